//! What the gateway must not forget of payments: what was signed, for what, and how far it is.
//!
//! In:     rows, in their order. Out: the same, after a restart.
//! Touches: `payments.redb` in the data directory, by way of `disk`.
//! Absent: what a row means (`payments`).

use std::path::Path;

use alloy_primitives::{Address, B256};
use redb::{ReadTransaction, ReadableTable, TableDefinition, WriteTransaction};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::{escrow, wire::Authorization};
use crate::{
    disk::{Disk, OpenStoreError, Pace, Tables, Writer, Written},
    keys::Micro,
};

/// Payer ‖ nonce → [`Row`].
const PAYMENTS: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("payments");
/// A channel's identity → [`escrow::Row`].
const CHANNELS: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("channels");

/// Who pays, and the nonce of what was signed: the ledger takes each once.
pub(crate) type PaymentId = (Address, B256);

/// What is kept of a payment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Row {
    pub(super) authorization: Authorization,
    pub(super) purpose: Purpose,
    pub(super) stage: Stage,
}

/// What is paid for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Purpose {
    /// An answer, by its request's id. What was not told to anyone is not charged after a crash.
    Answer { request: String, told: bool },
    /// Credits of a key's.
    Credits { key: u64 },
}

/// How far a payment is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Stage {
    /// It stands for what is under way.
    Held,
    /// So much of it is to be taken.
    Due(Micro),
    /// So much was taken, by this transaction; zero: before a restart.
    Settled(Micro, B256),
    /// So much could not be taken, and why.
    Lost(Micro, String),
}

/// A row to be written; without one, the payment or channel is forgotten.
pub(super) enum Change {
    Payment(PaymentId, Option<Row>),
    Channel(B256, Option<escrow::Row>),
}

/// What is kept.
#[derive(Debug, Default)]
pub(super) struct Kept {
    pub(super) payments: Vec<(PaymentId, Row)>,
    pub(super) channels: Vec<(B256, escrow::Row)>,
}

/// The kept payments.
#[derive(Debug, Clone)]
pub(super) struct Store(Disk<Book>);

impl Store {
    /// Opens what is in `data_dir`, or makes it; and what it holds.
    pub(super) fn open(data_dir: &Path) -> Result<(Store, Writer, Kept), OpenStoreError> {
        let (disk, writer) = Disk::open(data_dir, Book)?;
        let kept = disk.read(kept).map_err(|error| error.at_start::<Book>(data_dir))?;
        Ok((Store(disk), writer, kept))
    }

    /// Has a row written, or forgotten; what is returned says when it is on the disk.
    pub(super) fn keep(&self, id: PaymentId, row: Option<Row>) -> Written<()> {
        let written = self.0.post(Change::Payment(id, row));
        self.0.hurry();
        written
    }

    /// The same for a channel.
    pub(super) fn keep_channel(&self, id: B256, row: Option<escrow::Row>) -> Written<()> {
        let written = self.0.post(Change::Channel(id, row));
        self.0.hurry();
        written
    }
}

fn kept(transaction: &ReadTransaction) -> Result<Kept, redb::Error> {
    let mut kept = Kept::default();
    for entry in transaction.open_table(PAYMENTS)?.iter()? {
        let (_, row) = entry?;
        let row: Row = read(row.value())?;
        kept.payments.push(((row.authorization.from, row.authorization.nonce), row));
    }
    for entry in transaction.open_table(CHANNELS)?.iter()? {
        let (id, row) = entry?;
        let id = B256::try_from(id.value())
            .map_err(|_| redb::Error::Corrupted("a channel's identity has not 32 bytes".to_owned()))?;
        kept.channels.push((id, read(row.value())?));
    }
    Ok(kept)
}

fn read<T: DeserializeOwned>(text: &[u8]) -> Result<T, redb::Error> {
    serde_json::from_slice(text)
        .map_err(|error| redb::Error::Corrupted(format!("a payment cannot be read: {error}")))
}

fn text(row: &impl Serialize) -> Result<Vec<u8>, redb::Error> {
    serde_json::to_vec(row)
        .map_err(|error| redb::Error::Corrupted(format!("a payment cannot be written: {error}")))
}

pub(super) struct Book;

impl Tables for Book {
    type Change = Change;
    type Outcome = ();

    const NAME: &'static str = "payments";
    const PACE: Pace = Pace::AWAITED;

    fn create(transaction: &WriteTransaction) -> Result<(), redb::Error> {
        transaction.open_table(PAYMENTS)?;
        transaction.open_table(CHANNELS)?;
        Ok(())
    }

    fn apply(
        &self,
        transaction: &WriteTransaction,
        changes: Vec<Change>,
        _now_ms: u64,
    ) -> Result<Vec<()>, redb::Error> {
        let mut payments = transaction.open_table(PAYMENTS)?;
        let mut channels = transaction.open_table(CHANNELS)?;
        for change in &changes {
            match change {
                Change::Payment((payer, nonce), row) => {
                    let key = [payer.as_slice(), nonce.as_slice()].concat();
                    match row {
                        Some(row) => drop(payments.insert(&key[..], &text(row)?[..])?),
                        None => drop(payments.remove(&key[..])?),
                    }
                }
                Change::Channel(id, Some(row)) => drop(channels.insert(id.as_slice(), &text(row)?[..])?),
                Change::Channel(id, None) => drop(channels.remove(id.as_slice())?),
            }
        }
        Ok(vec![(); changes.len()])
    }
}
