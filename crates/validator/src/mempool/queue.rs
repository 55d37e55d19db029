//! One sender's transactions, by nonce.
//!
//! Holds:  every nonce is at or after the account's; the executable ones are those without a gap before them that the
//!         balance covers.

use std::{cmp::Reverse, collections::BTreeMap, sync::Arc};

use alloy_primitives::U256;

use super::{Account, Candidate};

/// A transaction in the pool.
#[derive(Debug, Clone)]
pub(super) struct Pooled {
    pub(super) candidate: Arc<Candidate>,
    /// Order of arrival.
    pub(super) arrival: u64,
    /// The height at which it came.
    pub(super) height: u64,
}

/// How much the pool wants to keep a sender's last transaction. The last is the one that can go without leaving a
/// gap, and it is worth no more than the cheapest one before it, without which it cannot run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Rank {
    pub(super) executable: bool,
    pub(super) price_min: u128,
    pub(super) arrival: Reverse<u64>,
}

#[derive(Debug, Clone)]
pub(super) struct Queue {
    pub(super) account: Account,
    pub(super) transactions: BTreeMap<u64, Pooled>,
}

impl Queue {
    pub(super) fn new(account: Account) -> Self {
        Self { account, transactions: BTreeMap::new() }
    }

    /// The transactions that could run one after the other from `nonce` on.
    pub(super) fn executable_from(&self, nonce: u64) -> impl Iterator<Item = &Pooled> {
        let balance = self.account.balance;
        let mut expected = self.account.nonce;
        let mut spent = Some(U256::ZERO);
        self.transactions
            .values()
            .take_while(move |pooled| {
                let follows = pooled.candidate.nonce() == expected;
                expected += 1;
                spent = spent.and_then(|spent| spent.checked_add(pooled.candidate.cost()));
                follows && spent.is_some_and(|spent| spent <= balance)
            })
            .skip_while(move |pooled| pooled.candidate.nonce() < nonce)
    }

    /// How many could run now.
    pub(super) fn executable_count(&self) -> usize {
        self.executable_from(self.account.nonce).count()
    }

    /// What the transactions before `nonce` may cost together.
    pub(super) fn cost_before(&self, nonce: u64) -> Option<U256> {
        let mut before = self.transactions.range(..nonce);
        before.try_fold(U256::ZERO, |sum, (_, pooled)| sum.checked_add(pooled.candidate.cost()))
    }

    /// The rank of the last transaction; none if there is none.
    pub(super) fn rank(&self, base_fee: u64) -> Option<Rank> {
        let (_, last) = self.transactions.last_key_value()?;
        let prices = self.transactions.values().map(|pooled| pooled.candidate.price(base_fee));
        Some(Rank {
            executable: self.executable_count() == self.transactions.len(),
            price_min: prices.min().unwrap_or(0),
            arrival: Reverse(last.arrival),
        })
    }
}
