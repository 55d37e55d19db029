//! The pool as the parts of the role share it: RPC and gossip bring transactions, `consensus` takes them.
//!
//! In:     encoded transactions from anyone; finalised blocks.
//! Out:    admitted transactions, to peers and to subscribers; proposals.
//! Holds:  a transaction's signature is recovered once; peers are sent what was admitted, unless one of the validators
//!         sent it: they all know each other.
//! Absent: which transaction is better (`mempool`).

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use alloy_primitives::{Address, B256, Bytes, keccak256};
use tokio::sync::broadcast;

use crate::{
    ledger::{View, ViewError},
    mempool::{Account, Admitted, Candidate, Mempool, PoolLimits, PoolSize, Refused, Room, Terms},
};

/// Bytes of transactions that are checked where they come in: some hundred microseconds of work. More goes to a thread
/// that may take its time.
const CHECK_BYTES_INLINE: usize = 1_024;
/// Admitted transactions that a slow subscriber may lag behind.
const PENDING_MAX: usize = 4_096;

/// Why a transaction was not taken.
#[derive(Debug, thiserror::Error)]
pub enum SubmitError {
    /// It is at fault.
    #[error(transparent)]
    Refused(#[from] Refused),
    /// The state that it depends on cannot be read.
    #[error(transparent)]
    View(#[from] ViewError),
}

/// Whether peers are told of what is admitted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Spread {
    /// All of them.
    Peers,
    /// None: a validator sent it, and what one sends, all get.
    Nobody,
}

/// The shared pool.
#[derive(Debug)]
pub struct Pool {
    mempool: Mutex<Mempool>,
    admitted: broadcast::Sender<Arc<Candidate>>,
}

impl Pool {
    /// An empty pool.
    pub fn new(limits: PoolLimits, terms: Terms) -> Self {
        let (admitted, _) = broadcast::channel(PENDING_MAX);
        Self { mempool: Mutex::new(Mempool::new(limits, terms)), admitted }
    }

    /// Takes a transaction in, or says why not.
    pub async fn submit(&self, encoded: Bytes, view: &View) -> Result<Admitted, SubmitError> {
        let mut all = self.submit_all(vec![encoded], view, Spread::Peers).await?;
        Ok(all.pop().expect("an answer for each transaction")?)
    }

    /// The same for several: answers in their order. What they have in common is done once.
    pub async fn submit_all(
        &self,
        encoded: Vec<Bytes>,
        view: &View,
        spread: Spread,
    ) -> Result<Vec<Result<Admitted, Refused>>, ViewError> {
        let bytes: usize = encoded.iter().map(|encoded| encoded.len()).sum();
        let (new, terms) = self.new_among(encoded);
        // Most of the cost of a transaction, and none of it under the lock.
        let check = move || -> Vec<Result<Arc<Candidate>, Refused>> {
            new.iter()
                .map(|new| Candidate::check(new.as_ref().ok_or(Refused::Known)?, &terms).map(Arc::new))
                .collect()
        };
        let checked = if bytes <= CHECK_BYTES_INLINE {
            check()
        } else {
            tokio::task::spawn_blocking(check).await.map_err(|error| ViewError::Corrupt(Box::new(error)))?
        };
        let senders: BTreeSet<Address> =
            checked.iter().flatten().map(|candidate| candidate.sender()).collect();
        let accounts = view.accounts(senders).await?;
        let answers: Vec<Result<Admitted, Refused>> = {
            let mut mempool = self.lock();
            let mut insert = |candidate: &Arc<Candidate>| {
                let account = accounts.get(&candidate.sender()).copied().unwrap_or_default();
                let account = Account { nonce: account.nonce, balance: account.balance };
                mempool.insert(Arc::clone(candidate), account)
            };
            checked.iter().map(|checked| insert(checked.as_ref().map_err(Clone::clone)?)).collect()
        };
        for (checked, answer) in checked.into_iter().zip(&answers) {
            if let (Ok(candidate), Ok(_)) = (checked, answer) {
                if spread == Spread::Peers {
                    view.ledger().gossip(candidate.encoded().clone());
                }
                // Nobody may be listening.
                let _ = self.admitted.send(candidate);
            }
        }
        Ok(answers)
    }

    /// Those that do not wait here already, each in its place, and what they are checked by.
    fn new_among(&self, encoded: Vec<Bytes>) -> (Vec<Option<Bytes>>, Terms) {
        let hashes: Vec<B256> = encoded.iter().map(keccak256).collect();
        let mempool = self.lock();
        let new = encoded.into_iter().zip(hashes);
        let new = new.map(|(encoded, hash)| mempool.get(&hash).is_none().then_some(encoded)).collect();
        (new, *mempool.terms())
    }

    /// The best transactions for a block; see [`Mempool::propose`].
    pub fn propose(&self, room: Room, ahead: &BTreeMap<Address, u64>) -> Vec<Arc<Candidate>> {
        self.lock().propose(room, ahead)
    }

    /// Follows a finalised block; see [`Mempool::follow`].
    pub fn follow(&self, height: u64, terms: Terms, accounts: Vec<(Address, Account)>) -> Vec<B256> {
        self.lock().follow(height, terms, accounts)
    }

    /// A waiting transaction.
    pub fn get(&self, hash: &B256) -> Option<Arc<Candidate>> {
        self.lock().get(hash).cloned()
    }

    /// Drops a transaction.
    pub fn remove(&self, hash: &B256) {
        self.lock().remove(hash);
    }

    /// The nonce that the sender's next transaction should have; see [`Mempool::pending_nonce`].
    pub fn pending_nonce(&self, sender: &Address, nonce: u64) -> u64 {
        self.lock().pending_nonce(sender, nonce)
    }

    /// What the chain asks of transactions now.
    pub fn terms(&self) -> Terms {
        *self.lock().terms()
    }

    /// How much waits.
    pub fn size(&self) -> PoolSize {
        self.lock().size()
    }

    /// The senders that have something waiting.
    pub fn senders(&self) -> Vec<Address> {
        self.lock().senders().copied().collect()
    }

    /// Up to `count` transactions that could run: for peers that may have missed them.
    pub fn sample(&self, count: usize) -> Vec<Arc<Candidate>> {
        self.lock().executable().take(count).cloned().collect()
    }

    /// What is admitted from now on.
    pub fn subscribe(&self) -> broadcast::Receiver<Arc<Candidate>> {
        self.admitted.subscribe()
    }

    fn lock(&self) -> MutexGuard<'_, Mempool> {
        // A panic under the lock is a defect; the pool's books are checked when they change.
        self.mempool.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
