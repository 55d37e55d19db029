//! Lanes: orders at the worker's price, and orders at its batch price, which are for a worker that has none of the others.
//!
//! In:     that an order is taken, and in which lane. Out: its presence there; or a refusal.
//! Touches: nothing.
//! Holds:  no order at the batch price begins beside one at the price, nor beside too many of its own kind.
//! Absent: what an order bids (`money`), how many a model has room for (`engine`).

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use surety_types::FailureCode;

use super::admission::Refusal;

/// Orders at the batch price at once: who comes at the price finds room beside them.
const BATCH_MAX: u32 = 4;

/// Who is there.
#[derive(Clone, Debug, Default)]
pub(super) struct Lanes(Arc<Mutex<Counts>>);

#[derive(Debug, Default)]
struct Counts {
    full: u32,
    batch: u32,
}

/// An order that is there, until this is dropped.
#[derive(Debug)]
pub(super) struct Presence {
    lanes: Lanes,
    count: fn(&mut Counts) -> &mut u32,
}

impl Lanes {
    /// An order at the price.
    pub(super) fn full(&self) -> Presence {
        self.counts().full += 1;
        Presence { lanes: self.clone(), count: |counts| &mut counts.full }
    }

    /// An order at the batch price, if there is none at the price, and few of its own kind.
    pub(super) fn batch(&self) -> Result<Presence, Refusal> {
        let mut counts = self.counts();
        let Counts { full, batch } = *counts;
        if full > 0 || batch >= BATCH_MAX {
            let message = format!(
                "the batch price is for a worker that has no order at its price, and fewer than {BATCH_MAX} at this; \
                 {full} and {batch} are under way here: ask again later, or bid the price"
            );
            return Err(Refusal::new(FailureCode::Overloaded, message));
        }
        counts.batch += 1;
        Ok(Presence { lanes: self.clone(), count: |counts| &mut counts.batch })
    }

    fn counts(&self) -> MutexGuard<'_, Counts> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Presence {
    fn drop(&mut self) {
        *(self.count)(&mut self.lanes.counts()) -= 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_batch_price_is_for_the_idle() {
        let lanes = Lanes::default();
        let refused = |lanes: &Lanes| match lanes.batch() {
            Ok(_) => panic!("taken"),
            Err(refusal) => (refusal.code, refusal.message),
        };
        let full = lanes.full();
        let (code, message) = refused(&lanes);
        assert_eq!(code, FailureCode::Overloaded);
        assert!(message.contains("1 and 0 are under way"), "{message}");
        drop(full);
        let mut batch: Vec<Presence> = (0..BATCH_MAX).map(|_| lanes.batch().expect("idle")).collect();
        assert!(refused(&lanes).1.contains("0 and 4 are under way"));
        batch.pop();
        // Whoever pays the price comes in beside them, and from then on keeps others out.
        let full = lanes.full();
        assert!(refused(&lanes).1.contains("1 and 3 are under way"));
        drop((full, batch));
        assert!(lanes.batch().is_ok(), "all are gone");
    }
}
