//! The worker: keeps models, serves them, signs for what it serves, and re-runs what others served.
//!
//! In:     settings; orders over `net`.
//! Out:    answers with signed receipts; the result of re-executing an answer.
//! Touches: the data directory's `models/` and `cache/`; its endpoint; a hub, when asked to download; with an account on
//!         the ledger that account, and a book of its own.
//! Holds:  every order that could be read ends in a signed receipt.
//! Absent: HTTP towards users (`gateway`), the terminal (`bin`).

pub mod audit;
mod clock;
pub mod dispute;
pub mod load;
pub mod machine;
mod map;
pub mod money;
mod progress;
mod receipt;
pub mod serve;
pub mod store;

pub use money::WorkerLedger;
pub use progress::{Progress, Report, Step};
pub use receipt::SOFTWARE;
