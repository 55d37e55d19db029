//! Explorer: blocks, transactions, accounts and disputes of the ledger, looked up once for everybody who looks.
//!
//! In:     what is wanted. Out: it as JSON; that there is none.
//! Touches: the ledger, while somebody looks.
//! Holds:  each thing is looked up by one at a time and kept for a moment; so many are kept, so many looked up at once, so long;
//!         who waited is told what was found, or why nothing was; what is not there is looked up again by the next.
//! Absent: what a thing says (`client::ledger::explorer`), how it is shown (`web`).

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use alloy_primitives::{Address, B256};
use serde::Serialize;
use surety_client::ledger::{Ledger, LedgerError};
use tokio::{
    sync::{self, Semaphore},
    time::timeout,
};

use crate::{
    api::{fresh::Shown, ledger::too_late},
    error::ApiError,
    surveys::unavailable,
};

/// Things that are kept, and looked up at once.
const KEPT_MAX: usize = 64;
const TOGETHER: usize = 8;
/// For the ledger to answer, and to have its turn before.
const TIMEOUT: Duration = Duration::from_secs(20);

/// What can be looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Wanted {
    /// The latest blocks, or those before one; so many.
    Blocks(Option<u64>, u64),
    Block(u64),
    Transaction(B256),
    Account(Address),
    Disputes,
    Dispute(u64),
}

/// How old what still changes may be, what hardly does, and what is over.
const LIVE: Duration = Duration::from_millis(250);
const SOON: Duration = Duration::from_millis(900);
const LATER: Duration = Duration::from_secs(5);
const OVER: Duration = Duration::from_secs(60);

/// The ledger, for whoever looks into it.
#[derive(Debug)]
pub(crate) struct Explorer {
    pub(crate) ledger: Ledger,
    kept: Mutex<Kept>,
    turns: Semaphore,
}

/// Where one thing is kept.
type Place = Arc<sync::Mutex<Option<Made>>>;

#[derive(Debug)]
struct Made {
    at: Instant,
    until: Instant,
    shown: Result<Arc<Shown>, ApiError>,
}

#[derive(Debug, Default)]
struct Kept {
    things: HashMap<Wanted, (Place, u64)>,
    /// Counts questions.
    asked: u64,
}

impl Kept {
    /// Where a thing is kept; of the others what was asked for longest ago goes.
    fn place(&mut self, wanted: Wanted) -> Place {
        self.asked += 1;
        if self.things.len() >= KEPT_MAX && !self.things.contains_key(&wanted) {
            let oldest = self.things.iter().min_by_key(|(_, (_, asked))| *asked).map(|(wanted, _)| *wanted);
            oldest.and_then(|oldest| self.things.remove(&oldest));
        }
        let (place, asked) = self.things.entry(wanted).or_default();
        *asked = self.asked;
        Arc::clone(place)
    }
}

impl Explorer {
    pub(crate) fn new(ledger: Ledger) -> Self {
        Self { ledger, kept: Mutex::default(), turns: Semaphore::new(TOGETHER) }
    }

    /// What is wanted; `missing` says that there is none.
    pub(crate) async fn shown(
        &self,
        wanted: Wanted,
        missing: impl FnOnce() -> ApiError,
    ) -> Result<Arc<Shown>, ApiError> {
        let place = self.kept.lock().unwrap_or_else(PoisonError::into_inner).place(wanted);
        let asked = Instant::now();
        let mut made = place.lock().await;
        // Who came while it was looked up is given the same, an error too.
        if let Some(made) = made.as_ref().filter(|made| made.at >= asked || Instant::now() < made.until) {
            return made.shown.clone();
        }
        let found = self.in_turn(self.found(wanted)).await.and_then(|found| found.ok_or_else(missing));
        let (shown, age_max) = match found {
            Ok((shown, age_max)) => (shown.map(Arc::new), age_max),
            Err(error) => (Err(error), Duration::ZERO),
        };
        let at = Instant::now();
        *made = Some(Made { at, until: at + age_max, shown: shown.clone() });
        shown
    }

    /// What the ledger answers, when it is this question's turn, if it does in time.
    pub(crate) async fn in_turn<T>(
        &self,
        question: impl Future<Output = Result<T, LedgerError>>,
    ) -> Result<T, ApiError> {
        let answered = timeout(TIMEOUT, async {
            let _turn = self.turns.acquire().await.map_err(|_| ApiError::bug("its explorer was closed"))?;
            question.await.map_err(unavailable)
        });
        answered.await.map_err(|_| too_late())?
    }

    /// What there is, and how old it may be.
    async fn found(
        &self,
        wanted: Wanted,
    ) -> Result<Option<(Result<Shown, ApiError>, Duration)>, LedgerError> {
        fn found(thing: &impl Serialize, age_max: Duration) -> (Result<Shown, ApiError>, Duration) {
            (Shown::new(thing), age_max)
        }
        let ledger = &self.ledger;
        Ok(match wanted {
            Wanted::Blocks(None, count) => Some(found(&ledger.blocks(None, count).await?, LIVE)),
            Wanted::Blocks(before, count) => Some(found(&ledger.blocks(before, count).await?, LATER)),
            Wanted::Block(number) => ledger.block(number).await?.map(|block| found(&block, LATER)),
            Wanted::Transaction(hash) => ledger.transaction(hash).await?.map(|transaction| {
                let age_max = if transaction.waits { SOON } else { OVER };
                found(&transaction, age_max)
            }),
            Wanted::Account(address) => Some(found(&ledger.account_view(address).await?, SOON)),
            Wanted::Disputes => Some(found(&ledger.dispute_page().await?, SOON)),
            Wanted::Dispute(id) => ledger.dispute_story(id).await?.map(|story| {
                let age_max = if story.dispute.is_open { SOON } else { OVER };
                found(&story, age_max)
            }),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_asked_for_longest_ago_goes() {
        let mut kept = Kept::default();
        let first = kept.place(Wanted::Block(0));
        for number in 1..KEPT_MAX as u64 {
            kept.place(Wanted::Block(number));
        }
        assert!(Arc::ptr_eq(&first, &kept.place(Wanted::Block(0))), "it is kept, and asked for again");
        kept.place(Wanted::Disputes);
        assert_eq!(kept.things.len(), KEPT_MAX);
        assert!(kept.things.contains_key(&Wanted::Block(0)) && !kept.things.contains_key(&Wanted::Block(1)));
    }
}
