//! The validator role: the ledger as wallets, libraries and operators see it.
//!
//! In:     transactions from anyone, finalised blocks from `consensus`.
//! Out:    transactions for the next block; Ethereum's JSON-RPC over HTTP and WebSocket; metrics.
//! Touches: one TCP socket for RPC, one file of indexes, the sockets and files of `consensus`.
//! Holds:  everything a stranger can make grow has a bound: the pool, bodies, batches, ranges, subscriptions.
//! Absent: agreement (`consensus`), the rules of the ledger (`chain`), arguments and settings files (the binary).

mod desk;
mod evidence;
pub mod follow;
pub mod indexes;
pub mod ledger;
pub mod mempool;
pub mod metrics;
pub mod pool;
pub mod rpc;
mod validator;

pub use evidence::{Reporter, SignDigest};
pub use surety_consensus::FileVoteRecord;
pub use validator::{KnownPeer, Release, StartError, Validator, ValidatorSettings};

/// Name and version of this software.
pub const SOFTWARE: &str = concat!("surety/", env!("CARGO_PKG_VERSION"));
