//! Pace: how far a pull is, how quickly bytes come, and from how many.
//!
//! In:     counts, the time. Out: progress, for people.

use std::{sync::atomic::Ordering, time::Duration};

use tokio::time::Instant;

use super::{Progress, TELL, shared::Pulling};

/// How quickly bytes come, told from time to time.
pub(super) struct Pace {
    at: Instant,
    received: u64,
    rate: f64,
    /// What each holder had sent when last looked at, and when something last came from it.
    holders: Vec<(u64, Option<Instant>)>,
}

impl Pace {
    /// Bytes of the last two seconds or so count.
    const WINDOW: Duration = Duration::from_secs(2);

    pub(super) fn new(at: Instant) -> Self {
        Pace { at, received: 0, rate: 0.0, holders: Vec::new() }
    }

    pub(super) fn progress(&mut self, pulling: &Pulling, total: u64) -> Progress {
        let now = Instant::now();
        self.holders.resize(pulling.holders.len(), (0, None));
        let mut received = 0;
        for (holder, (before, last)) in pulling.holders.iter().zip(&mut self.holders) {
            let count = holder.received.load(Ordering::Relaxed);
            if count > *before {
                (*before, *last) = (count, Some(now));
            }
            received += count;
        }
        let passed = now - self.at;
        if passed >= TELL / 2 {
            let latest = (received - self.received) as f64 / passed.as_secs_f64();
            let weight = (passed.as_secs_f64() / Self::WINDOW.as_secs_f64()).min(1.0);
            self.rate = if self.received == 0 { latest } else { self.rate + weight * (latest - self.rate) };
            (self.at, self.received) = (now, received);
        }
        let lately = |(_, last): &&(u64, Option<Instant>)| last.is_some_and(|last| now - last < Self::WINDOW);
        let peers = self.holders.iter().filter(lately).count();
        Progress { done: pulling.done(), total, rate: self.rate as u64, peers }
    }
}
