//! The way in for everybody else in the process: reads, proofs, blocks, status.
//!
//! In:     keys and heights.
//! Out:    values and proofs at the finalised tip; blocks, certificates and epoch records that are kept.
//! Touches: nothing; the desk does, inside the engine's runtime.
//! Holds:  values and proofs come with the header of exactly the block whose state they show; any async runtime may wait
//!         for an answer.
//! Absent: older states. The state is that of the tip; blocks are kept for a while, records for ever.

use crate::{
    Block, Certificate, Digest, EpochRecord, Header, Law, Role, StateKey, StateProof, StateValue,
    application::{Marshal, Shared},
    law::ReadCache,
    roster::Roster,
    runtime::Runtime,
    state::{self, StateError, StateSet},
};
use bytes::Bytes;
use commonware_consensus::marshal::Identifier;
use futures::{StreamExt as _, pin_mut};
use std::{ops::Bound, sync::Arc};
use tokio::sync::{mpsc, oneshot, watch};

/// The most keys one read or proof request takes.
pub const KEYS_MAX: usize = 1_024;
/// Requests waiting at the desk.
pub(crate) const DESK: usize = 256;

/// Why an answer is not to be had.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unavailable {
    /// No block is final here yet, or the state is still being fetched.
    #[error("the state is not there yet")]
    Starting,
    /// The engine has stopped.
    #[error("consensus has stopped")]
    Stopped,
    /// More keys than one request may ask for.
    #[error("a request names at most {KEYS_MAX} keys")]
    TooMany,
    /// The storage failed.
    #[error("{0}")]
    Storage(String),
}

impl From<StateError> for Unavailable {
    fn from(error: StateError) -> Self {
        Self::Storage(error.to_string())
    }
}

/// What a validator is doing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// The latest finalised header applied here.
    pub tip: Option<Arc<Header>>,
    /// The epoch it takes part in, and how; none while it starts.
    pub role: Option<(u64, Role)>,
}

/// Values at a tip: the header whose state they are, and one value for each key asked for.
pub type Values = (Arc<Header>, Vec<Option<StateValue>>);
/// Proofs at a tip: the header against whose `state_root` they verify, and one proof for each key.
pub type Proofs = (Arc<Header>, Vec<StateProof>);

pub(crate) enum Request {
    Read { keys: Vec<StateKey>, reply: oneshot::Sender<Result<Values, Unavailable>> },
    Prove { keys: Vec<StateKey>, reply: oneshot::Sender<Result<Proofs, Unavailable>> },
    Cells { from: StateKey, count: usize, reply: oneshot::Sender<Result<CellPage, Unavailable>> },
    Latest { reply: oneshot::Sender<Option<u64>> },
    Block { number: u64, reply: oneshot::Sender<Option<Arc<Block>>> },
    Certificate { number: u64, reply: oneshot::Sender<Option<Certificate>> },
    Epoch { epoch: u64, reply: oneshot::Sender<Option<EpochRecord>> },
}

pub(crate) type CellPage = (Arc<Header>, Vec<(StateKey, crate::cell::Cell)>);

/// A cheap, cloneable way to ask the engine.
#[derive(Clone)]
pub struct Handle {
    pub(crate) desk: mpsc::Sender<Request>,
    pub(crate) gossip: mpsc::Sender<Bytes>,
    pub(crate) tip: watch::Receiver<Option<Arc<Header>>>,
    pub(crate) role: watch::Receiver<Option<(u64, Role)>>,
}

impl Handle {
    /// Values under `keys` at the finalised tip.
    pub async fn read(&self, keys: Vec<StateKey>) -> Result<Values, Unavailable> {
        if keys.len() > KEYS_MAX {
            return Err(Unavailable::TooMany);
        }
        self.ask(|reply| Request::Read { keys, reply }).await?
    }

    /// Proofs of what stands, or does not stand, under `keys` at the finalised tip.
    pub async fn prove(&self, keys: Vec<StateKey>) -> Result<Proofs, Unavailable> {
        if keys.len() > KEYS_MAX {
            return Err(Unavailable::TooMany);
        }
        self.ask(|reply| Request::Prove { keys, reply }).await?
    }

    /// Whether everything final that is here is executed too. After a start it takes a moment until it is.
    pub async fn is_settled(&self) -> bool {
        let Some(tip) = self.tip() else { return false };
        match self.ask(|reply| Request::Latest { reply }).await {
            Ok(Some(latest)) => latest <= tip.number || self.block(tip.number + 1).await.is_none(),
            Ok(None) => true,
            Err(_) => false,
        }
    }

    /// A finalised block, while it is kept.
    pub async fn block(&self, number: u64) -> Option<Arc<Block>> {
        self.ask(|reply| Request::Block { number, reply }).await.ok().flatten()
    }

    /// A block's own certificate, while it is kept; some blocks are final only through a descendant's.
    pub async fn certificate(&self, number: u64) -> Option<Certificate> {
        self.ask(|reply| Request::Certificate { number, reply }).await.ok().flatten()
    }

    /// The record that establishes an epoch's validators; none for the first, which the genesis establishes.
    pub async fn epoch(&self, epoch: u64) -> Option<EpochRecord> {
        self.ask(|reply| Request::Epoch { epoch, reply }).await.ok().flatten()
    }

    /// The latest finalised header applied here.
    pub fn tip(&self) -> Option<Arc<Header>> {
        self.tip.borrow().clone()
    }

    /// Waits for the next tip.
    pub async fn tip_changed(&mut self) -> Result<Arc<Header>, Unavailable> {
        loop {
            self.tip.changed().await.map_err(|_| Unavailable::Stopped)?;
            if let Some(tip) = self.tip.borrow_and_update().clone() {
                return Ok(tip);
            }
        }
    }

    /// What this validator is doing.
    pub fn status(&self) -> Status {
        Status { tip: self.tip(), role: self.role.borrow().clone() }
    }

    /// Sends a message to every connected peer. `false` if the queue is full or the engine has stopped.
    pub fn gossip(&self, message: Bytes) -> bool {
        message.len() <= crate::engine::GOSSIP_BYTES_MAX && self.gossip.try_send(message).is_ok()
    }

    /// Stored cells in key order, as `export` reads them.
    pub(crate) async fn cells(&self, from: StateKey, count: usize) -> Result<CellPage, Unavailable> {
        self.ask(|reply| Request::Cells { from, count, reply }).await?
    }

    async fn ask<T>(&self, request: impl FnOnce(oneshot::Sender<T>) -> Request) -> Result<T, Unavailable> {
        let (reply, answer) = oneshot::channel();
        self.desk.send(request(reply)).await.map_err(|_| Unavailable::Stopped)?;
        answer.await.map_err(|_| Unavailable::Stopped)
    }
}

/// Answers requests inside the engine's runtime.
pub(crate) struct Desk<E: Runtime, L: Law> {
    pub(crate) shared: Arc<Shared<L>>,
    pub(crate) databases: StateSet<E>,
    pub(crate) marshal: Marshal,
    pub(crate) roster: Roster,
}

impl<E: Runtime, L: Law> Clone for Desk<E, L> {
    fn clone(&self) -> Self {
        Self {
            shared: self.shared.clone(),
            databases: self.databases.clone(),
            marshal: self.marshal.clone(),
            roster: self.roster.clone(),
        }
    }
}

impl<E: Runtime, L: Law> Desk<E, L> {
    /// Answers one after the other; each answer is short.
    pub(crate) async fn run(self, mut requests: mpsc::Receiver<Request>) {
        while let Some(request) = requests.recv().await {
            match request {
                Request::Read { keys, reply } => drop(reply.send(self.read(&keys).await)),
                Request::Prove { keys, reply } => drop(reply.send(self.prove(&keys).await)),
                Request::Cells { from, count, reply } => drop(reply.send(self.cells(from, count).await)),
                Request::Latest { reply } => {
                    let latest = self.marshal.get_info(Identifier::Latest).await;
                    let _ = reply.send(latest.map(|(height, _)| self.shared.chain.number_of(height)));
                }
                Request::Block { number, reply } => {
                    let found = match self.shared.chain.height_of(number) {
                        Some(height) => self.marshal.get_block(height).await,
                        None => None,
                    };
                    drop(reply.send(found.map(|block| block.inner_shared())));
                }
                Request::Certificate { number, reply } => {
                    let found = match self.shared.chain.height_of(number) {
                        Some(height) => self.marshal.get_finalization(height).await,
                        None => None,
                    };
                    drop(reply.send(found.map(Certificate)));
                }
                Request::Epoch { epoch, reply } => drop(reply.send(self.roster.get(epoch).await)),
            }
        }
    }

    /// The header of the state the database shows while `guard` is held.
    async fn header_of(&self, root: Digest) -> Result<Arc<Header>, Unavailable> {
        if let Some(header) = self.shared.header_of_state(&root) {
            return Ok(header);
        }
        // After a start the state is that of a block executed before it.
        if let Some((_, block)) = self.marshal.get_anchor().await {
            let header = Arc::new(block.inner().header().clone());
            self.shared.remember(header.clone());
            if header.state_root == root {
                return Ok(header);
            }
        }
        Err(Unavailable::Starting)
    }

    async fn read(&self, keys: &[StateKey]) -> Result<Values, Unavailable> {
        let database = self.databases.read().await;
        let root = database.root();
        let mut loaded = ReadCache::default();
        state::load(&*database, keys, &mut loaded).await?;
        drop(database);
        let values = keys.iter().map(|key| loaded.0.get(key).cloned().flatten()).collect();
        Ok((self.header_of(root).await?, values))
    }

    async fn prove(&self, keys: &[StateKey]) -> Result<Proofs, Unavailable> {
        let database = self.databases.read().await;
        let root = database.root();
        let proofs = StateProof::of(&database, keys).await?;
        drop(database);
        Ok((self.header_of(root).await?, proofs))
    }

    async fn cells(&self, from: StateKey, count: usize) -> Result<CellPage, Unavailable> {
        let (root, cells) = {
            let database = self.databases.read().await;
            let range = (Bound::Included(Digest::from(from.0)), Bound::Unbounded);
            let stream = database.stream_range(range).take(count);
            pin_mut!(stream);
            let mut cells = Vec::new();
            while let Some(cell) = stream.next().await {
                let (key, cell) = cell.map_err(StateError::from)?;
                cells.push((StateKey(key.0), cell));
            }
            (database.root(), cells)
        };
        Ok((self.header_of(root).await?, cells))
    }
}
