//! The gateway role: the OpenAI-shaped HTTP entrance.
//!
//! In:     HTTP requests in OpenAI's shapes.
//! Out:    answers in the same shapes, each with a checked receipt; errors that say what happened, who, and what to do.
//! Touches: one TCP socket, one UDP socket towards the workers, a data directory with its key, the receipts, the
//!         responses, streams under way, users' keys and the payer's book; an account on the ledger, if it pays.
//! Holds:  no stream ends silently: it ends in `[DONE]`, after the receipts were checked against what was sent, or in
//!         an error frame. No caller can stop, starve or read another.
//! Absent: running models (`worker`), checking receipts (`client`, `proof`), arguments and files of settings (the
//!         binary).
//!
//! A request goes through `server` (connections), `api` (HTTP and JSON), `route` (who should answer), `session`
//! (orders and what comes of them), `payer` (what they are paid with) and `receipts` (what is kept); `keys` says who may
//! ask, and what each has spent; `payments` takes what callers pay by themselves; `disk` writes what is kept; `streams` has
//! what a stream needs to go on when this process was killed, `journal` what became of every request, by this gateway's
//! word, which `service` counts; `downloads` brings models' files to who asks for them.

mod api;
pub mod catalogue;
mod comparisons;
mod disk;
mod downloads;
mod error;
mod explorer;
mod gateway;
mod id;
mod journal;
mod key;
mod keys;
mod metrics;
mod payer;
mod payments;
mod receipts;
mod route;
mod server;
mod service;
mod session;
mod settings;
mod streams;
mod surveys;
mod telemetry;

pub use api::{money::usage_csv, utc};
pub use disk::OpenStoreError;
pub use error::Code;
pub use gateway::{Gateway, RunningGateway, StartError};
pub use key::KeyError;
pub use keys::{
    ControlError, Generation, GenerationPart, KeyPrice, KeyReport, KeyTerms, KeysError, KeysOf,
    LoggedRequest, Micro, RequestsPage, TermsError, Totals, UsagePage, credits,
};
pub use payer::GatewayLedger;
pub use settings::{GatewaySettings, Limits, SettingsError};

/// Name and version of this software.
pub const SOFTWARE: &str = concat!("surety/", env!("CARGO_PKG_VERSION"));
