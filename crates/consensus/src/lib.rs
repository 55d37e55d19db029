//! Agreement: every line of Commonware wiring.
//!
//! In:     transactions a pool offers, a law that says what they do, a key to vote with or none.
//! Out:    finalised blocks in order; the state they leave, provable against their headers; evidence of equivocation.
//! Touches: its storage and network, through the runtime it is given; the clock, for pacing.
//! Holds:  two honest validators never finalise different blocks at one height while fewer than a third misbehave; a key
//!         never signs what it may have signed otherwise before; the simulated engine is the real one.
//! Absent: what transactions mean (`surety_chain`), mempool, RPC and indexes (`validator`).
//!
//! Read [`Header`] and [`Block`] first, then [`Law`], then `application` (what a validator checks), `ballot` (whether it
//! may vote), `orchestrator` (epochs) and `engine` (how it is wired). Clients need only [`Certificate`], [`EpochRecord`]
//! and [`StateProof`].

mod keys;
mod validators;

mod block;
mod certificate;
mod proof;

mod evm;
mod law;

mod application;
mod cell;
mod clock;
mod pace;
mod state;

mod ballot;
mod epochs;
mod evidence;
mod orchestrator;
mod roster;

mod engine;
mod export;
mod handle;
mod node;
mod runtime;
mod settings;

/// A block hash, a state root: 32 bytes of SHA-256.
pub use commonware_cryptography::sha256::Digest;

pub use ballot::{Attendance, FileVoteRecord, MemoryVoteRecord, Role, VoteRecord, Why};
pub use block::{
    BODY_BYTES_MAX, Block, BlockContext, Header, TRANSACTION_BYTES_MAX, TRANSACTIONS_MAX, body_digest,
};
pub use certificate::{Certificate, CertificateError, EpochRecord, EpochRecordError};
pub use clock::{AHEAD_MAX_MS, STEP_MAX_MS};
pub use engine::{CHANNELS, Channels, Duty, DutyError, GOSSIP_BYTES_MAX, message_bytes_max, start};
pub use evidence::{Evidence, SignedVote, VoteKind};
pub use evm::{EvmLaw, GenesisChainError};
pub use export::{ExportError, Provenance, import};
pub use handle::{Handle, KEYS_MAX, Proofs, Status, Unavailable, Values};
pub use keys::{private_key, public_key, public_key_bytes};
pub use law::{
    Built, Effects, Law, LawError, Ledger, Place, Pool, Read, ReadCache, StateKey, StateReader, StateValue,
    Step,
};
pub use node::{Node, NodeSettings, PEERS_MAX, Peer, StartError};
pub use orchestrator::Voter;
pub use proof::{StateProof, StateProofError};
pub use runtime::Runtime;
pub use settings::{Chain, ChainError, EPOCH_BLOCKS_MIN, Settings, SettingsError};
pub use validators::{MEMBERS_MAX, Member, PublicKey, ValidatorSet, ValidatorSetError};
