//! Evidence: what a worker commits to, whether an answer keeps to what was signed, and whether bytes are a file's.
//!
//! In:     token ids, text, state digests; an answer with everything signed about it; opened pieces of files.
//! Out:    commitments; what holds, what could not be checked, or the one reason why it does not hold.
//! Touches: nothing. No I/O, clock, randomness or async.
//! Holds:  every way in which an answer can disagree with its signatures has a [`check::Fault`] of its own.
//! Absent: running a model (`engine`); parsing (`types`).
//!
//! The rules `R-…` cited here are in `docs/spec/receipt.md`, `D-…` in `docs/spec/dispute.md`.

pub mod check;
pub mod commit;
pub mod dispute;
pub mod opening;

pub use check::{
    Check, Checked, CheckedEvidence, EvidenceFault, Expected, Fault, Opened, Unchecked, check_answer,
    check_evidence, check_opened_answer, check_state,
};
pub use commit::{IdsHasher, TextHasher, output_digest, prompt_digest, state_commitment, text_digest};
pub use opening::{OpeningError, check_opening};
