//! What consensus asks of the chain, and of whoever runs it.
//!
//! In:     a block's place and transactions, and what the state holds.
//! Out:    what executing it writes and commits to.
//! Touches: nothing; implementors of [`Law`] are pure.
//! Holds:  equal inputs and equal state give equal effects, on every machine.
//! Absent: what transactions mean: `surety_chain` says that through [`crate::EvmLaw`]; simulations may use a smaller law.

use crate::{Block, Certificate, Digest, Evidence, Header, Role, ValidatorSet};
use bytes::Bytes;
use commonware_cryptography::ed25519::PublicKey;
use std::sync::Arc;

pub use surety_chain::{Read, ReadCache, StateKey, StateReader, StateValue};

/// Where a block stands: everything about it but its transactions and what they do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// Height.
    pub number: u64,
    /// The proposer's clock.
    pub timestamp_ms: u64,
    /// Epoch.
    pub epoch: u64,
    /// View.
    pub view: u64,
    /// The parent's hash.
    pub parent: Digest,
    /// Randomness every validator agrees on; a proposer could have withheld its block to avoid one value.
    pub beacon: Digest,
    /// The proposer's index in the epoch's validator set.
    pub proposer: usize,
    /// Leaders of the views skipped since the parent, each at most once, in ascending order.
    pub missed: Vec<usize>,
}

/// One pass over a block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step<T> {
    /// Load these keys and run again.
    Needs(Vec<StateKey>),
    /// Done.
    Done(T),
}

/// Why a block was not executed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LawError {
    /// The proposer's fault: nobody may vote for it.
    #[error("invalid block: {0}")]
    Invalid(String),
    /// Our own state is damaged: stop rather than vote.
    #[error("corrupt state: {0}")]
    Corrupt(String),
    /// The chain goes on with another binary from here; what to do about it.
    #[error("upgrade due: {0}")]
    Upgrade(String),
}

/// What executing a block did, as far as consensus must know.
#[derive(Debug)]
pub struct Effects<'a> {
    /// Writes sorted by key, each key once; `None` deletes.
    pub writes: &'a [(StateKey, Option<StateValue>)],
    /// Committed in the header.
    pub transactions_root: [u8; 32],
    /// Committed in the header.
    pub receipts_root: [u8; 32],
    /// Committed in the header.
    pub gas_used: u64,
    /// Present exactly at an epoch's last block.
    pub next_validators: Option<ValidatorSet>,
}

/// A proposer's choice among candidates.
pub struct Built<O> {
    /// Indices of the candidates included, in block order.
    pub chosen: Vec<usize>,
    /// What executing them did.
    pub outcome: O,
}

/// The state transition.
pub trait Law: Clone + Send + Sync + 'static {
    /// A decoded transaction whose sender is known.
    type Transaction: Clone + Send + Sync + 'static;
    /// All that executing a block yields.
    type Outcome: Send + Sync + 'static;

    /// Reads one transaction of a block that the pool does not know.
    fn decode(&self, bytes: &[u8]) -> Result<Self::Transaction, LawError>;

    /// The transaction as its signer encoded it.
    fn encoded(&self, transaction: &Self::Transaction) -> Bytes;

    /// Keys a block certainly reads: loaded before the first pass.
    fn hints(&self, place: &Place, transactions: &[Self::Transaction]) -> Vec<StateKey>;

    /// Executes a block; any invalid transaction makes the block invalid.
    fn execute(
        &self,
        reader: &dyn StateReader,
        place: &Place,
        transactions: &[Self::Transaction],
    ) -> Result<Step<Self::Outcome>, LawError>;

    /// Chooses transactions for a block and executes them; skips what is invalid now.
    fn build(
        &self,
        reader: &dyn StateReader,
        place: &Place,
        candidates: &[Self::Transaction],
        bytes_max: usize,
    ) -> Result<Step<Built<Self::Outcome>>, LawError>;

    /// What consensus commits to.
    fn effects<'a>(&self, outcome: &'a Self::Outcome) -> Effects<'a>;
}

/// What a proposer draws from: the validator's mempool.
pub trait Pool<T>: Send + Sync + 'static {
    /// Candidates, best first, of at most `bytes_max` together. They need not be valid.
    ///
    /// `ahead`: the transactions of each ancestor that is not final yet, oldest first; the block follows those.
    fn propose(&self, bytes_max: usize, ahead: &[Arc<[T]>]) -> Vec<T>;

    /// The decoded twin of a transaction admitted before, so that senders are recovered once.
    fn known(&self, encoded: &[u8]) -> Option<T>;

    /// A gossip message from a connected peer. Must not block; bounded by the implementor.
    fn received(&self, from: &PublicKey, message: Bytes);

    /// Proof that a validator signed two conflicting votes: to be handed to staking in a transaction.
    fn evidence(&self, evidence: Evidence);
}

/// Who is told of finalised blocks.
///
/// Called in height order and before the block is acknowledged, at least once each (a crash repeats: be idempotent by
/// number). Heights are skipped after a state sync. Must not block for long: it holds up finalisation.
pub trait Ledger<O>: Send + Sync + 'static {
    /// A finalised block, what it did, and its certificate; `None` if a descendant's certificate finalised it.
    fn finalised(&self, block: &Arc<Block>, outcome: &Arc<O>, certificate: Option<&Certificate>);

    /// Voting began, stopped or was refused, and why: for logs and status.
    fn role(&self, _epoch: u64, _role: &Role) {}

    /// The chain goes on only with another binary: this one stops before the block after `header`'s.
    fn halted(&self, _header: &Header, _why: &str) {}
}
