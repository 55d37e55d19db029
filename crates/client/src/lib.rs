//! The way in: sessions that believe nothing a worker has not signed, and a [`ledger`] that believes nothing a node has
//! not proven.
//!
//! In:     signed orders and their requests; what workers send.
//! Out:    tokens as they come, and in the end an answer that `surety_proof` has checked against every signature; or an
//!         error that says who is accountable and whether trying again may help.
//! Touches: the endpoint it is given; for the ledger HTTP; the clock.
//! Holds:  nothing is yielded out of turn; `Finished` is yielded only for an answer that holds; a session ends with
//!         `Finished`, `Refused` or an error, never without a word.
//! Absent: which worker to ask, and what to do when one fails (`gateway`).
//!
//! The rules `R-…` cited here are in `docs/spec/receipt.md`.

pub mod channel;
mod connection;
pub mod https;
pub mod inclusion;
pub mod ledger;
pub mod models;
mod reach;
mod session;
mod transcript;

pub use channel::{Account, AccountError, Purse, PurseError, account_on};
pub use connection::{Connection, OrderOptions};
pub use reach::Reach;
pub use session::{Completed, Party, Refusal, Session, SessionError, SessionEvent};
pub use surety_net::AskError;
pub use surety_proof::{
    Check, Checked, CheckedEvidence, EvidenceFault, Expected, IdsHasher, TextHasher, check_evidence,
};
pub use transcript::ProgressProblem;

/// What an order says of the tokens that it resumes from; nothing if there are none.
pub fn resumed_from(ids: &[u32]) -> Option<surety_types::Resumed> {
    let output_tokens = u32::try_from(ids.len()).unwrap_or(u32::MAX);
    (output_tokens > 0)
        .then(|| surety_types::Resumed { output_tokens, output_digest: surety_proof::output_digest(ids) })
}
