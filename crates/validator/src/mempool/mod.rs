//! The mempool: transactions that wait for a block.
//!
//! In:     checked transactions, what the state says of their senders, and of blocks what they changed.
//! Out:    the best transactions for the next block, in an order in which they can run; why others are refused.
//! Touches: nothing. No I/O, clock, async or randomness; time is the chain's height.
//! Holds:  transactions, their bytes, and those of one sender are bounded. Among one sender's transactions nonces are
//!         unique. When there is no room, the cheapest goes, never for something cheaper; a transaction that stops
//!         others from running is never taken out from under them.
//! Absent: execution (`chain`), gossip (`gossip`).
//!
//! A transaction is replaced only by one of the same nonce that raises both fee caps by a tenth, as in every Ethereum
//! pool.

mod candidate;
mod queue;
mod refused;

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet, BinaryHeap, HashMap, btree_map::Entry},
    sync::Arc,
};

use alloy_primitives::{Address, B256, U256};

pub use candidate::{Candidate, Terms};
use queue::{Pooled, Queue, Rank};
pub use refused::Refused;

/// What the state says of a sender.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Account {
    /// The nonce of its next transaction.
    pub nonce: u64,
    /// What it owns, in wei.
    pub balance: U256,
}

/// Bounds of a pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PoolLimits {
    /// Transactions.
    pub transactions_max: usize,
    /// Their bytes, together.
    pub bytes_max: usize,
    /// How far ahead of its account a nonce may be; so also how many transactions one sender may have.
    pub ahead_max: u64,
    /// Blocks that a transaction waits before it is dropped.
    pub lifetime_blocks: u64,
}

impl Default for PoolLimits {
    fn default() -> Self {
        // An hour at four blocks a second.
        Self { transactions_max: 65_536, bytes_max: 64 << 20, ahead_max: 1_024, lifetime_blocks: 14_400 }
    }
}

/// What a block has room for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Room {
    /// Bytes of all transactions.
    pub bytes_max: usize,
    /// Gas that they may ask for.
    pub gas_max: u64,
}

/// What became of an admitted transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Admitted {
    /// Its hash.
    pub hash: B256,
    /// Whether it could run now; otherwise something is missing before it.
    pub executable: bool,
    /// The transaction that it took the place of.
    pub replaced: Option<B256>,
    /// Those that had to make room.
    pub evicted: Vec<B256>,
}

/// How much waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PoolSize {
    /// Transactions that could run now.
    pub executable: usize,
    /// Transactions that wait for another.
    pub queued: usize,
    /// Bytes of both.
    pub bytes: usize,
}

/// The pool.
#[derive(Debug)]
pub struct Mempool {
    limits: PoolLimits,
    terms: Terms,
    height: u64,
    arrivals: u64,
    bytes: usize,
    senders: BTreeMap<Address, Queue>,
    /// Hash → sender and nonce.
    places: HashMap<B256, (Address, u64)>,
    /// Order of arrival → sender and nonce.
    ages: BTreeMap<u64, (Address, u64)>,
    /// The last transaction of each sender, the least wanted first.
    ranks: BTreeSet<(Rank, Address)>,
}

impl Mempool {
    /// An empty pool.
    pub fn new(limits: PoolLimits, terms: Terms) -> Self {
        assert!(limits.transactions_max > 0 && limits.ahead_max > 0, "a pool has room for something");
        Self {
            limits,
            terms,
            height: 0,
            arrivals: 0,
            bytes: 0,
            senders: BTreeMap::new(),
            places: HashMap::new(),
            ages: BTreeMap::new(),
            ranks: BTreeSet::new(),
        }
    }

    /// What the chain asks of transactions now.
    pub fn terms(&self) -> &Terms {
        &self.terms
    }

    /// How much waits.
    pub fn size(&self) -> PoolSize {
        let executable = self.senders.values().map(Queue::executable_count).sum();
        PoolSize { executable, queued: self.places.len() - executable, bytes: self.bytes }
    }

    /// A waiting transaction.
    pub fn get(&self, hash: &B256) -> Option<&Arc<Candidate>> {
        let (sender, nonce) = self.places.get(hash)?;
        Some(&self.senders.get(sender)?.transactions.get(nonce)?.candidate)
    }

    /// The nonce that the next transaction of `sender` should have, whose account's next is `nonce`.
    pub fn pending_nonce(&self, sender: &Address, nonce: u64) -> u64 {
        let waiting = self
            .senders
            .get(sender)
            .and_then(|queue| queue.executable_from(0).last())
            .map(|last| last.candidate.nonce());
        waiting.map_or(nonce, |last| nonce.max(last + 1))
    }

    /// Every waiting transaction that could run, those of one sender in order.
    pub fn executable(&self) -> impl Iterator<Item = &Arc<Candidate>> {
        self.senders.values().flat_map(|queue| queue.executable_from(0)).map(|pooled| &pooled.candidate)
    }

    /// The senders that have something waiting.
    pub fn senders(&self) -> impl Iterator<Item = &Address> {
        self.senders.keys()
    }

    /// Takes a transaction in, or says why not. `account` is what the newest state says of its sender.
    pub fn insert(&mut self, candidate: Arc<Candidate>, account: Account) -> Result<Admitted, Refused> {
        let (sender, nonce, hash) = (candidate.sender(), candidate.nonce(), candidate.hash());
        if self.places.contains_key(&hash) {
            return Err(Refused::Known);
        }
        // The terms may have changed since it was checked.
        let base_fee = self.terms.base_fee;
        if candidate.fee_cap() < u128::from(base_fee) {
            return Err(Refused::FeeTooLow { cap: candidate.fee_cap(), base_fee });
        }
        if nonce < account.nonce {
            return Err(Refused::NonceTooLow { next: account.nonce, nonce });
        }
        let ahead_max = self.limits.ahead_max;
        if nonce - account.nonce >= ahead_max {
            return Err(Refused::NonceTooHigh { next: account.nonce, nonce, ahead_max });
        }
        if self.senders.contains_key(&sender) {
            self.set_account(sender, account);
        }
        let queue = self.senders.get(&sender);
        let same_nonce = queue.and_then(|queue| queue.transactions.get(&nonce));
        if let Some(old) = same_nonce {
            check_replacement(&old.candidate, &candidate)?;
        }
        let queued = queue.map_or(Some(U256::ZERO), |queue| queue.cost_before(nonce));
        let queued = queued.ok_or(Refused::CostOverflow)?;
        let needed = queued.checked_add(candidate.cost()).ok_or(Refused::CostOverflow)?;
        if needed > account.balance {
            return Err(Refused::Funds { balance: account.balance, queued, cost: candidate.cost() });
        }

        let replaced = same_nonce.map(|old| old.candidate.hash());
        let old = replaced.and_then(|hash| self.take(&hash));
        let arrival = self.arrivals;
        self.arrivals += 1;
        self.put(account, Pooled { candidate, arrival, height: self.height });
        match self.make_room(&hash) {
            Ok(evicted) => {
                let executable = self.senders.get(&sender).is_some_and(|queue| {
                    queue.executable_from(nonce).next().is_some_and(|first| first.candidate.nonce() == nonce)
                });
                Ok(Admitted { hash, executable, replaced, evicted })
            }
            Err(refused) => {
                self.take(&hash);
                if let Some(old) = old {
                    self.put(account, old);
                }
                Err(refused)
            }
        }
    }

    /// The best transactions for a block on top of the newest state, in an order in which they can run.
    ///
    /// `ahead`: of senders with transactions in blocks that are not final yet, the next nonce after those.
    /// Sorted by what they pay per gas, then by arrival.
    pub fn propose(&self, room: Room, ahead: &BTreeMap<Address, u64>) -> Vec<Arc<Candidate>> {
        let mut waiting: BTreeMap<Address, _> = BTreeMap::new();
        let mut best = BinaryHeap::new();
        let base_fee = self.terms.base_fee;
        let bid = |pooled: &Pooled, sender: Address| {
            (pooled.candidate.price(base_fee), Reverse(pooled.arrival), sender)
        };
        for (sender, queue) in &self.senders {
            let from = ahead.get(sender).copied().unwrap_or(0);
            let mut rest = queue.executable_from(from).peekable();
            if let Some(first) = rest.peek()
                && first.candidate.nonce() >= from
            {
                best.push(bid(first, *sender));
                waiting.insert(*sender, rest);
            }
        }
        let mut chosen = Vec::new();
        let (mut bytes, mut gas) = (0_usize, 0_u64);
        while let Some((_, _, sender)) = best.pop() {
            let Some(rest) = waiting.get_mut(&sender) else { continue };
            let Some(pooled) = rest.next() else { continue };
            let candidate = &pooled.candidate;
            let (bytes_then, gas_then) = (
                bytes.saturating_add(candidate.encoded().len()),
                gas.saturating_add(alloy_consensus::Transaction::gas_limit(candidate.envelope())),
            );
            // What follows it could not run without it.
            if bytes_then > room.bytes_max
                || gas_then > room.gas_max
                || candidate.fee_cap() < u128::from(base_fee)
            {
                waiting.remove(&sender);
                continue;
            }
            (bytes, gas) = (bytes_then, gas_then);
            chosen.push(Arc::clone(candidate));
            if let Some(next) = rest.peek() {
                best.push(bid(next, sender));
            }
        }
        chosen
    }

    /// Follows a finalised block: new terms, and what the state now says of senders it touched. Returns the hashes of
    /// the transactions that left, because they were included, made impossible, or waited too long.
    pub fn follow(
        &mut self,
        height: u64,
        terms: Terms,
        accounts: impl IntoIterator<Item = (Address, Account)>,
    ) -> Vec<B256> {
        let reranked = self.terms.base_fee != terms.base_fee;
        (self.height, self.terms) = (height, terms);
        let mut left = Vec::new();
        for (sender, account) in accounts {
            left.extend(self.set_account(sender, account));
        }
        while let Some((_, (sender, nonce))) = self.ages.first_key_value() {
            let oldest = self.senders.get(sender).and_then(|queue| queue.transactions.get(nonce));
            let Some(oldest) = oldest else { break };
            if oldest.height.saturating_add(self.limits.lifetime_blocks) > height {
                break;
            }
            let hash = oldest.candidate.hash();
            self.take(&hash);
            left.push(hash);
        }
        if reranked {
            self.ranks = self
                .senders
                .iter()
                .filter_map(|(sender, queue)| Some((queue.rank(terms.base_fee)?, *sender)))
                .collect();
        }
        left
    }

    /// Takes out a transaction that turned out not to run, as the builder of a block found.
    pub fn remove(&mut self, hash: &B256) -> Option<Arc<Candidate>> {
        self.take(hash).map(|pooled| pooled.candidate)
    }

    /// Notes what the state says of a sender; returns what thereby became impossible.
    fn set_account(&mut self, sender: Address, account: Account) -> Vec<B256> {
        let Some(queue) = self.senders.get(&sender) else { return Vec::new() };
        if queue.account == account {
            return Vec::new();
        }
        let past = queue.transactions.range(..account.nonce);
        let gone: Vec<B256> = past.map(|(_, pooled)| pooled.candidate.hash()).collect();
        self.unrank(sender);
        if let Some(queue) = self.senders.get_mut(&sender) {
            queue.account = account;
        }
        self.rerank(sender);
        for hash in &gone {
            self.take(hash);
        }
        gone
    }

    /// Removes the least wanted until the bounds hold again; puts them back if `newcomer` is itself the least wanted.
    fn make_room(&mut self, newcomer: &B256) -> Result<Vec<B256>, Refused> {
        let mut evicted: Vec<(Account, Pooled)> = Vec::new();
        while self.places.len() > self.limits.transactions_max || self.bytes > self.limits.bytes_max {
            let worst = self.ranks.first().and_then(|(_, sender)| {
                let queue = self.senders.get(sender)?;
                let (_, last) = queue.transactions.last_key_value()?;
                Some((queue.account, last.candidate.hash()))
            });
            let victim = worst.filter(|(_, hash)| hash != newcomer);
            let victim = victim.and_then(|(account, hash)| Some((account, self.take(&hash)?)));
            // Nothing of the newcomer's own sender goes for it: it would be left with a gap, or gain nothing.
            let own = self.places.get(newcomer).map(|(sender, _)| *sender);
            match victim {
                Some((account, pooled)) if Some(pooled.candidate.sender()) != own => {
                    evicted.push((account, pooled));
                }
                other => {
                    for (account, pooled) in other.into_iter().chain(evicted.into_iter().rev()) {
                        self.put(account, pooled);
                    }
                    return Err(Refused::PoolFull);
                }
            }
        }
        Ok(evicted.into_iter().map(|(_, pooled)| pooled.candidate.hash()).collect())
    }

    fn put(&mut self, account: Account, pooled: Pooled) {
        let (sender, nonce) = (pooled.candidate.sender(), pooled.candidate.nonce());
        self.unrank(sender);
        self.bytes += pooled.candidate.encoded().len();
        self.places.insert(pooled.candidate.hash(), (sender, nonce));
        self.ages.insert(pooled.arrival, (sender, nonce));
        let queue = self.senders.entry(sender).or_insert_with(|| Queue::new(account));
        let before = queue.transactions.insert(nonce, pooled);
        assert!(before.is_none(), "a nonce stands for one transaction");
        self.rerank(sender);
    }

    fn take(&mut self, hash: &B256) -> Option<Pooled> {
        let (sender, nonce) = self.places.remove(hash)?;
        self.unrank(sender);
        let Entry::Occupied(mut queue) = self.senders.entry(sender) else { return None };
        let pooled = queue.get_mut().transactions.remove(&nonce)?;
        if queue.get().transactions.is_empty() {
            queue.remove();
        }
        self.bytes -= pooled.candidate.encoded().len();
        self.ages.remove(&pooled.arrival);
        self.rerank(sender);
        Some(pooled)
    }

    fn unrank(&mut self, sender: Address) {
        if let Some(rank) = self.rank(sender) {
            self.ranks.remove(&(rank, sender));
        }
    }

    fn rerank(&mut self, sender: Address) {
        if let Some(rank) = self.rank(sender) {
            self.ranks.insert((rank, sender));
        }
    }

    fn rank(&self, sender: Address) -> Option<Rank> {
        self.senders.get(&sender)?.rank(self.terms.base_fee)
    }
}

/// Both caps must rise by a tenth, rounded up, and in any case rise.
fn check_replacement(old: &Candidate, new: &Candidate) -> Result<(), Refused> {
    let least = |cap: u128| cap.saturating_add((cap / 10 + u128::from(!cap.is_multiple_of(10))).max(1));
    let (cap_min, tip_min) = (least(old.fee_cap()), least(old.tip_cap()));
    if new.fee_cap() >= cap_min && new.tip_cap() >= tip_min {
        Ok(())
    } else {
        Err(Refused::ReplacementUnderpriced { cap_min, tip_min })
    }
}

#[cfg(test)]
mod tests;
