//! The slow lane: which worker has nothing better to do.
//!
//! In:     the workers that could answer a request of a batch, and how busy each is. Out: a place at one of them, or none.
//! Touches: nothing else.
//! Holds:  a worker that has any order but the lane's gets none from it; a worker has few of the lane's at once.
//! Absent: waiting, and answering (`run`).

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use surety_types::PublicKey;

/// The lane's requests at one worker at once.
const AT_ONE_WORKER: u32 = 4;
/// How old what a worker says of itself may be: what the lane had there meanwhile may be what it speaks of.
const STATUS_AGE: Duration = Duration::from_millis(2_500);

/// Who is at what.
#[derive(Debug, Default)]
pub(super) struct Lane(Mutex<HashMap<PublicKey, Use>>);

/// What the lane has at one worker.
#[derive(Debug, Default)]
struct Use {
    now: u32,
    /// When each that has ended lately did.
    ended: Vec<Instant>,
}

/// A place at a worker, until it is dropped.
#[derive(Debug)]
pub(super) struct Place {
    lane: Arc<Lane>,
    pub(super) worker: PublicKey,
}

impl Lane {
    /// A place at the first worker that has nothing but the lane's own: of its key, the orders that it says it has, and those
    /// of this gateway that it has not finished.
    pub(super) fn place(self: &Arc<Self>, loads: &[(PublicKey, u32, u32)], now: Instant) -> Option<Place> {
        let mut uses = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        uses.retain(|_, used| {
            used.ended.retain(|ended| now.saturating_duration_since(*ended) < STATUS_AGE);
            used.now > 0 || !used.ended.is_empty()
        });
        let free = loads.iter().find(|(worker, theirs, ours)| {
            let used = uses.get(worker);
            let (current, lately) = used.map_or((0, 0), |used| (used.now, used.ended.len() as u32));
            current < AT_ONE_WORKER && *ours <= current && *theirs <= (current + lately).min(AT_ONE_WORKER)
        });
        let (worker, ..) = *free?;
        uses.entry(worker).or_default().now += 1;
        Some(Place { lane: Arc::clone(self), worker })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut uses = self.lane.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(used) = uses.get_mut(&self.worker) {
            used.now -= 1;
            used.ended.push(Instant::now());
        }
    }
}

#[cfg(test)]
mod tests {
    use surety_types::SecretKey;

    use super::*;

    #[test]
    fn only_who_is_idle_gets_some_and_not_too_many() {
        let [a, b] = [1, 2].map(|seed| SecretKey::from_bytes(&[seed; 32]).public());
        let lane = Arc::new(Lane::default());
        let now = Instant::now();
        let taken = |loads: &[(PublicKey, u32, u32)]| lane.place(loads, now).map(|place| (place.worker, place));
        assert!(taken(&[]).is_none());
        assert!(taken(&[(a, 1, 0)]).is_none(), "busy by its own word");
        assert!(taken(&[(a, 0, 1)]).is_none(), "busy by ours");
        assert_eq!(taken(&[(a, 3, 0), (b, 0, 0)]).map(|(worker, _)| worker), Some(b));

        // Its own places, which the worker may or may not speak of yet, are no load.
        let places: Vec<_> = (0..AT_ONE_WORKER).filter_map(|held| taken(&[(a, held, held)])).collect();
        assert_eq!(places.len(), AT_ONE_WORKER as usize);
        assert!(taken(&[(a, 0, AT_ONE_WORKER)]).is_none(), "enough");
        drop(places);
        assert!(taken(&[(a, AT_ONE_WORKER, 0)]).is_some(), "what it speaks of may be what has just ended");
        assert!(taken(&[(a, AT_ONE_WORKER + 1, 0)]).is_none(), "but no more");
        let later = now + 10 * STATUS_AGE;
        assert!(lane.place(&[(a, 1, 0)], later).is_none(), "nor for long");
        assert!(lane.place(&[(a, 0, 0)], later).is_some());
    }
}
