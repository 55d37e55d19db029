//! The nouns of Surety and their one canonical encoding.
//!
//! In:     bytes from strangers; values from every other room.
//! Out:    checked values; the exact bytes that are signed, hashed and sent.
//! Touches: nothing. No I/O, clock, randomness or async.
//! Holds:  one value has one encoding, and any other bytes are refused; what is decoded is within its bounds;
//!         a [`Signed`] value carries a valid signature of the party it names.
//! Absent: judging an answer (`proof`), moving bytes (`net`), OpenAI's JSON (`gateway`).
//!
//! The rules `R-…` cited here are in `docs/spec/receipt.md`.

pub mod abi;
pub mod acceptance;
pub mod amount;
pub mod audit;
pub mod bundle;
pub mod channel;
pub mod codec;
pub mod cose;
pub mod credit;
pub mod detokenizer;
pub mod digest;
pub mod embedding;
pub mod envelope;
pub mod evidence;
pub mod inclusion;
pub mod json;
pub mod key;
pub mod manifest;
pub mod order;
pub mod plan;
pub mod progress;
pub mod receipt;
pub mod region;
pub mod request;
pub mod sampling;
pub mod spelling;
pub mod statement;
pub mod text;
pub mod voucher;
pub mod wire;

#[cfg(test)]
mod samples;
#[cfg(test)]
mod tests;

pub use acceptance::Acceptance;
pub use amount::{Amount, Price};
pub use audit::{AuditEvidence, EvidenceRequest};
pub use bundle::{BUNDLE_VERSION, Bundle, BundleMove, BundleParameter};
pub use channel::{Channel, ChannelDigests, WEI_PER_MICRO_CREDIT};
pub use codec::{Canonical, DecodeError, Invalid};
pub use cose::{Kind, OpenError, Signable, Signed};
pub use detokenizer::Detokenizer;
pub use digest::{Digest, ModelId};
pub use embedding::{Embedding, Pooling, Vectors};
pub use envelope::{Envelope, Part, Purpose};
pub use evidence::{Answer, Evidence, EvidenceError};
pub use inclusion::{Inclusion, InclusionRequest};
pub use key::{PublicKey, SecretKey};
pub use manifest::{FileDigest, FormatSummary, Manifest};
pub use order::{Disclosure, Order, Resumed, Seed};
pub use plan::{Plan, PlanHeader};
pub use progress::Progress;
pub use receipt::{FailureCode, FinishReason, Outcome, Receipt};
pub use region::Region;
pub use request::{CivilDate, Message, Prompt, Request, ToolCall};
pub use sampling::Sampling;
pub use spelling::Spelling;
pub use statement::{
    Decision, Dossier, DossierError, KeptOut, Paper, StatedEnd, StatedEvent, Statement, What,
};
pub use text::Text;
pub use voucher::Voucher;
pub use wire::{
    Alternative, CallFormat, FromWorker, ServedModel, StatusRequest, ToWorker, TokenLogprob, WorkerState,
    WorkerStatus,
};
