//! Who votes when: the validator sets this process knows, as schemes that verify.
//!
//! In:     sets from genesis, from finalised headers, and from verified epoch records.
//! Out:    the set or the verifying scheme of an epoch, wherever votes are checked.
//! Touches: nothing.
//! Holds:  a set once known never changes; the oldest are forgotten beyond `REMEMBERED`.
//! Absent: keeping records on disk and fetching them (`roster`); signing (`orchestrator`).

use crate::ValidatorSet;
use commonware_consensus::{simplex::scheme::ed25519::Scheme, types::Epoch};
use commonware_cryptography::certificate::{Provider, Scoped};
use std::{
    collections::BTreeMap,
    sync::{Arc, PoisonError, RwLock},
};

/// Epochs remembered at once: enough to catch up through, bounded for memory.
const REMEMBERED: usize = 4_096;

/// A shared table of validator sets.
#[derive(Clone)]
pub(crate) struct Epochs {
    namespace: Arc<[u8]>,
    first: u64,
    table: Arc<RwLock<BTreeMap<u64, Known>>>,
}

#[derive(Clone)]
struct Known {
    set: Arc<ValidatorSet>,
    scheme: Arc<Scheme>,
}

impl Epochs {
    /// A table that knows the first epoch.
    pub(crate) fn new(namespace: &[u8], genesis: ValidatorSet) -> Self {
        let epochs = Self { namespace: namespace.into(), first: genesis.epoch(), table: Arc::default() };
        epochs.learn(genesis);
        epochs
    }

    /// The chain's first epoch.
    pub(crate) fn first(&self) -> u64 {
        self.first
    }

    /// The namespace votes are signed under.
    pub(crate) fn namespace(&self) -> &[u8] {
        &self.namespace
    }

    /// Adds a set. Panics if another set of that epoch is known: two would mean a fork or a bug.
    pub(crate) fn learn(&self, set: ValidatorSet) {
        let mut table = self.table.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = table.get(&set.epoch()) {
            assert_eq!(*known.set, set, "an epoch has one validator set");
            return;
        }
        let scheme = Arc::new(set.verifier(&self.namespace));
        table.insert(set.epoch(), Known { set: Arc::new(set), scheme });
        while table.len() > REMEMBERED {
            table.pop_first();
        }
    }

    /// The set of an epoch.
    pub(crate) fn set(&self, epoch: u64) -> Option<Arc<ValidatorSet>> {
        self.known(epoch).map(|known| known.set)
    }

    /// The latest set known.
    pub(crate) fn latest(&self) -> Arc<ValidatorSet> {
        let table = self.table.read().unwrap_or_else(PoisonError::into_inner);
        table.last_key_value().map(|(_, known)| known.set.clone()).expect("genesis is always known")
    }

    fn known(&self, epoch: u64) -> Option<Known> {
        self.table.read().unwrap_or_else(PoisonError::into_inner).get(&epoch).cloned()
    }
}

impl Provider for Epochs {
    type Scope = Epoch;
    type Scheme = Scheme;

    fn scoped(&self, epoch: Epoch) -> Option<Scoped<Scheme>> {
        self.known(epoch.get()).map(|known| Scoped::scheme(known.scheme))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::validators::tests::set;

    #[test]
    fn sets_are_learnt_once_and_the_oldest_forgotten() {
        let epochs = Epochs::new(b"ns", set(0, 4));
        assert!(epochs.scoped(Epoch::new(1)).is_none());
        for epoch in 1..=REMEMBERED as u64 {
            epochs.learn(set(epoch, 1));
        }
        epochs.learn(set(5, 1));
        assert_eq!(epochs.latest().epoch(), REMEMBERED as u64);
        assert!(epochs.set(0).is_none() && epochs.set(1).is_some());
        assert!(epochs.scoped(Epoch::new(7)).is_some());
    }

    #[test]
    #[should_panic(expected = "one validator set")]
    fn a_second_set_for_an_epoch_is_a_fork() {
        let epochs = Epochs::new(b"ns", set(0, 4));
        epochs.learn(set(0, 3));
    }
}
