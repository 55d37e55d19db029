//! Money: what a worker asks, takes and claims, and what it owes the ledger as an operator.
//!
//! In:     an account on the ledger, a price; vouchers; receipts.
//! Out:    what is covered; transactions: bond, registration, offers, claims, roots of the receipts' log, pins and their
//!         proofs.
//! Touches: the ledger, through its account; `book.redb` in its folder.
//! Holds:  R-11: nothing is delivered beyond what is covered; what a receipt charges is on the disk before the receipt
//!         leaves, and exactly that is claimed. One process serves one account: its nonces and its log are not shared.
//! Absent: orders and streams (`serve`), how the ledger is reached (`surety_client`).

mod book;
mod duties;
mod hosting;
mod inclusion;
mod store;
#[cfg(test)]
mod tests;
mod till;

use std::{path::PathBuf, sync::Arc, time::Duration};

use alloy_primitives::U256;
use surety_client::Account;
use surety_net::Location;
use surety_types::{Digest, Price};

pub use hosting::{Hosted, HostingPolicy, HostingSettings, Room};
pub use store::{BookError, Earned, Proven};

pub(crate) use duties::{Duty, Registration};
pub(crate) use hosting::Hosts;
pub(crate) use inclusion::show;
pub(crate) use store::Case;
pub(crate) use till::{REFUSED_MAX, Tab, Till};

use book::Book;
use store::Store;

/// How a worker earns.
#[derive(Debug, Clone)]
pub struct WorkerLedger {
    /// The operator's account: it bonds, registers, is paid. One process at a time uses it.
    pub account: Arc<dyn Account>,
    /// Wei to have bonded.
    pub bond: U256,
    /// Micro-credits per million tokens, of every model.
    pub price: Price,
    /// The same while no order at `price` is under way, of those that bid less. `price` itself: they are refused.
    pub batch_price: Price,
    /// What the operator is called.
    pub name: String,
    /// Where the book is kept; made if it is not there.
    pub folder: PathBuf,
    /// Where gateways are to reach the worker; where it listens, or its relay, if not given.
    pub endpoint: Option<Location>,
    /// When to claim.
    pub claims: Claims,
    /// What it does to have models kept.
    pub hosting: HostingSettings,
}

/// When a worker claims what it earned. At shutdown, and before a payer's withdrawal matures, it does so in any case.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Claims {
    /// Between two claims, if there is something to claim.
    pub interval: Duration,
    /// So many unclaimed wei are claimed at once.
    pub threshold_wei: u128,
}

impl Default for Claims {
    fn default() -> Self {
        Claims { interval: Duration::from_secs(60), threshold_wei: 1_000_000_000_000_000_000 }
    }
}

/// How a worker's dealings with the ledger stand.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Duties {
    /// Whether the ledger names it: only then it takes orders.
    pub registered: bool,
    /// What it does at the moment, for people.
    pub doing: String,
    /// What keeps it from doing so; it keeps trying.
    pub problem: Option<Problem>,
}

/// Something on the ledger does not go as it should.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// What.
    pub message: String,
    /// What to do about it.
    pub hint: String,
}

/// What a worker earned, as far as its book goes back.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Earnings {
    /// What receipts charged, by day and model, the oldest first.
    pub charged: Vec<Earned>,
    /// What of it the ledger was not asked for yet; the rest is claimed, and paid out in the same transaction.
    pub unclaimed_wei: u128,
    /// Channels that pay it.
    pub channels: usize,
    /// What proofs of hosting were paid, by day and model, the oldest first.
    pub proven: Vec<Proven>,
}

/// What the worker of this book earned. It must not run; while it does, ask it.
pub async fn earnings(ledger: &WorkerLedger) -> Result<Earnings, EarningsError> {
    let till = open_till(ledger).map_err(EarningsError::Book)?;
    let ids: Vec<Digest> = till.read(|book| book.iter().map(|(id, _)| *id).collect());
    till.refresh(&ids).await.map_err(|error| EarningsError::Ledger(error.message, error.hint))?;
    earnings_of(&till).map_err(EarningsError::Read)
}

/// What the ledger was last seen to have paid out, and what it was not.
pub(crate) fn earnings_of(till: &Till) -> Result<Earnings, String> {
    let charged = till.store().earned().map_err(|error| error.to_string())?;
    let proven = till.store().all_proven().map_err(|error| error.to_string())?;
    let (unclaimed_wei, channels) =
        till.read(|book| (book.iter().map(|(_, entry)| entry.unclaimed()).sum(), book.iter().count()));
    Ok(Earnings { charged, unclaimed_wei, channels, proven })
}

/// Why nothing can be said about earnings.
#[derive(Debug, thiserror::Error)]
pub enum EarningsError {
    /// The book cannot be had.
    #[error("the worker's book cannot be opened")]
    Book(#[source] BookError),
    /// It cannot be read.
    #[error("{0}")]
    Read(String),
    /// The ledger does not say what it paid out.
    #[error("the ledger does not say what was claimed: {0}")]
    Ledger(String, String),
}

impl EarningsError {
    /// What to do about it.
    pub fn hint(&self) -> String {
        match self {
            EarningsError::Book(error) => error.hint().into(),
            EarningsError::Read(_) => "see the disk".into(),
            EarningsError::Ledger(_, hint) => hint.clone(),
        }
    }
}

/// Opens the book in its folder.
pub(crate) fn open_till(ledger: &WorkerLedger) -> Result<Arc<Till>, BookError> {
    let (store, rows) = Store::open(&ledger.folder)?;
    Ok(Arc::new(Till::new(ledger, store, Book::restore(rows))))
}
