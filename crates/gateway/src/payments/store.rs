//! What the gateway must not forget of payments: what was signed, for what, and how far it is.
//!
//! In:     rows, in their order. Out: the same, after a restart.
//! Touches: `payments.redb` in the data directory, by way of `disk`.
//! Absent: what a row means (`payments`).

use std::{path::Path, time::Duration};

use alloy_primitives::{Address, B256};
use redb::{ReadTransaction, ReadableTable, TableDefinition, WriteTransaction};
use serde::{Deserialize, Serialize};

use super::wire::Authorization;
use crate::{
    disk::{Disk, OpenStoreError, Pace, Tables, Writer, Written},
    keys::Micro,
};

/// Payer ‖ nonce → [`Row`].
const PAYMENTS: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("payments");

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

/// A row to be written; without one, the payment is forgotten.
pub(super) struct Change(PaymentId, Option<Row>);

/// What is kept of payments.
type Rows = Vec<(PaymentId, Row)>;

/// The kept payments.
#[derive(Debug, Clone)]
pub(super) struct Store(Disk<Book>);

impl Store {
    /// Opens what is in `data_dir`, or makes it; and what it holds.
    pub(super) fn open(data_dir: &Path) -> Result<(Store, Writer, Rows), OpenStoreError> {
        let (disk, writer) = Disk::open(data_dir, Book)?;
        let rows = disk.read(rows).map_err(|error| error.at_start::<Book>(data_dir))?;
        Ok((Store(disk), writer, rows))
    }

    /// Has a row written, or forgotten; what is returned says when it is on the disk.
    pub(super) fn keep(&self, id: PaymentId, row: Option<Row>) -> Written<()> {
        let written = self.0.post(Change(id, row));
        self.0.hurry();
        written
    }
}

fn rows(transaction: &ReadTransaction) -> Result<Rows, redb::Error> {
    let table = transaction.open_table(PAYMENTS)?;
    let mut rows = Vec::new();
    for entry in table.iter()? {
        let (_, row) = entry?;
        let row: Row = serde_json::from_slice(row.value())
            .map_err(|error| redb::Error::Corrupted(format!("a payment cannot be read: {error}")))?;
        rows.push(((row.authorization.from, row.authorization.nonce), row));
    }
    Ok(rows)
}

pub(super) struct Book;

impl Tables for Book {
    type Change = Change;
    type Outcome = ();

    const NAME: &'static str = "payments";
    const PACE: Pace = Pace {
        gather: Duration::ZERO,
        waiting_max: 65_536,
        batch_max: 256,
        batch_bytes_max: usize::MAX,
        cache_bytes: 4 << 20,
    };

    fn create(transaction: &WriteTransaction) -> Result<(), redb::Error> {
        transaction.open_table(PAYMENTS)?;
        Ok(())
    }

    fn apply(
        &self,
        transaction: &WriteTransaction,
        changes: Vec<Change>,
        _now_ms: u64,
    ) -> Result<Vec<()>, redb::Error> {
        let mut table = transaction.open_table(PAYMENTS)?;
        for Change((payer, nonce), row) in &changes {
            let key = [payer.as_slice(), nonce.as_slice()].concat();
            match row {
                Some(row) => {
                    let text = serde_json::to_vec(row).map_err(|error| {
                        redb::Error::Corrupted(format!("a payment cannot be written: {error}"))
                    })?;
                    table.insert(&key[..], &text[..])?;
                }
                None => drop(table.remove(&key[..])?),
            }
        }
        Ok(vec![(); changes.len()])
    }
}
