//! A limit on bytes per second, shared by everyone who sends.
//!
//! Holds: over any time, no more than the rate and one frame is let through; who asks first goes first.

use std::{sync::Mutex, time::Duration};

use tokio::time::{Instant, sleep_until};

/// Lets bytes through at a rate, or at once.
#[derive(Debug)]
pub struct Throttle {
    bytes_per_second: Option<u64>,
    /// When all that was let through so far will have passed.
    free: Mutex<Option<Instant>>,
}

impl Throttle {
    pub fn new(bytes_per_second: Option<u64>) -> Self {
        Throttle { bytes_per_second, free: Mutex::new(None) }
    }

    /// Waits until so many more may be sent.
    pub async fn pass(&self, bytes: usize) {
        let Some(rate) = self.bytes_per_second else { return };
        let begin = {
            let mut free = self.free.lock().expect("nothing panics here");
            let begin = free.map_or_else(Instant::now, |free| free.max(Instant::now()));
            *free = Some(begin + Duration::from_secs_f64(bytes as f64 / rate.max(1) as f64));
            begin
        };
        sleep_until(begin).await;
    }
}
