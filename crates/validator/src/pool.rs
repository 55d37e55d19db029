//! The pool as the parts of the role share it: RPC and gossip bring transactions, `consensus` takes them.
//!
//! In:     encoded transactions from anyone; finalised blocks.
//! Out:    admitted transactions, to peers and to subscribers; proposals.
//! Holds:  a transaction's signature is recovered once; peers are sent what was admitted, and nothing twice.
//! Absent: which transaction is better (`mempool`).

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use alloy_primitives::{Address, B256, Bytes, keccak256};
use tokio::sync::broadcast;

use crate::{
    ledger::{View, ViewError},
    mempool::{Account, Admitted, Candidate, Mempool, PoolLimits, PoolSize, Refused, Room, Terms},
};

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
        let terms = {
            let mempool = self.lock();
            if mempool.get(&keccak256(&encoded)).is_some() {
                return Err(Refused::Known.into());
            }
            *mempool.terms()
        };
        // Most of the cost of a transaction, and none of it under the lock.
        let checked = tokio::task::spawn_blocking(move || Candidate::check(&encoded, &terms)).await;
        let candidate = Arc::new(checked.map_err(|error| ViewError::Corrupt(Box::new(error)))??);
        let (_, account) = view.account(candidate.sender()).await?;
        let account = Account { nonce: account.nonce, balance: account.balance };
        let admitted = self.lock().insert(Arc::clone(&candidate), account)?;
        view.ledger().gossip(candidate.encoded().clone());
        // Nobody may be listening.
        let _ = self.admitted.send(candidate);
        Ok(admitted)
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
