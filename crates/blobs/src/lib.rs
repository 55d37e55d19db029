//! Content-addressed files: served in verified pieces, pulled from many holders at once, audited.
//!
//! In:     digests; paths at which files are said to lie; addresses of holders.
//! Out:    files, every byte of them checked against their BLAKE3; answers to storage audits, and their judgement.
//! Touches: the part file and its journal while a file is pulled; a folder of cached trees; streams of `net`.
//! Holds:  no byte is written that its digest does not vouch for; what is sent was checked when it was read; a
//!         holder's misbehaviour costs that holder and nobody else; whatever was verified survives a crash.
//! Absent: which files there are and what they are called (the worker's store); what a miss costs (the ledger).
//!
//! The transfer is our own, over `net`'s frames and limits, on the BLAKE3 tree of the file where it lies: one value
//! per mebibyte is all that is kept beside it (32 bytes for each), and the same openings of single chunks that audits
//! use open weights to a judge. See `docs/operating/models.md`.

mod ask;
pub mod audit;
mod hold;
pub mod message;
mod partial;
mod pull;
mod read;
mod schedule;
mod throttle;
pub mod tree;
mod view;

pub use ask::Fault;
pub use audit::{AuditReport, Challenge, audit, audit_at, challenges_needed};
pub use hold::{HoldLimits, hold};
pub use partial::DiskError;
pub use pull::{Event, HolderSummary, Progress, PullError, PullLimits, PullRequest, Pulled, pull};
pub use read::{ReadLimits, ReadRequest, Reader, Unavailable, read};
pub use view::{ReadError, Shelf, View};
