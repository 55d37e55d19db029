//! Disputes: both sides of one, move by move, against the ledger.
//!
//! In:     an answer with its papers, the model, an account on the ledger.
//! Out:    the moves of D-5, each sent when it is due; the verdict.
//! Touches: the ledger, through the account; processor and memory for the trace.
//! Holds:  what is answered is looked up first, so that a restart repeats nothing; a division is believed only if it has
//!         the value that the ledger keeps; whoever's opponent is silent past its time ends the dispute.
//! Absent: who is right. That is the ledger's to say, by `surety_proof`.
//!
//! The rules `D-…` cited here are in `docs/spec/dispute.md`.

mod accuse;
mod case;
mod duty;
mod play;

pub use accuse::{Accusation, Accused, AskError, accusation, accuse, accuse_asking};
pub use case::{Case, CaseError, Prepared, TraceRoom};
pub(crate) use duty::{Defended, DisputeDuty};
pub use play::{Move, PlayError, Side, play, shown_ids, verdict};
pub use surety_client::ledger::rechecked::Verdict;
