//! What the gateway must not forget of payments: what was signed, for what, and how far it is.
//!
//! In:     rows, in their order. Out: the same, after a restart.
//! Touches: `payments.redb` in the data directory, and one thread that writes it.
//! Holds:  rows reach the disk in the order they were handed over; many at once share one commit.
//! Absent: what a row means (`payments`).

use std::{
    path::Path,
    sync::mpsc,
    thread::{self, JoinHandle},
};

use alloy_primitives::{Address, B256};
use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition};
use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;
use tracing::error;

use super::wire::Authorization;
use crate::{keys::Micro, receipts::OpenStoreError};

const FILE: &str = "payments.redb";
/// Payer ‖ nonce → [`Row`].
const PAYMENTS: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("payments");
/// What one commit takes at most.
const BATCH_MAX: usize = 256;
/// Memory for redb's pages.
const CACHE_BYTES: usize = 4 << 20;

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

struct Job {
    id: PaymentId,
    /// None: it is forgotten.
    row: Option<Row>,
    done: oneshot::Sender<Result<(), String>>,
}

/// The kept payments.
#[derive(Debug, Clone)]
pub(super) struct Store {
    jobs: mpsc::Sender<Job>,
}

/// The writing thread, to be joined once the last sender is gone.
#[derive(Debug)]
pub(crate) struct Writer(JoinHandle<()>);

impl Writer {
    /// Waits for what was handed over to be written.
    pub(crate) fn join(self) {
        if self.0.join().is_err() {
            error!("the thread that keeps payments panicked");
        }
    }
}

impl Store {
    /// Opens what is in `data_dir`, or makes it; and what it holds.
    pub(super) fn open(data_dir: &Path) -> Result<(Store, Writer, Vec<(PaymentId, Row)>), OpenStoreError> {
        let path = data_dir.join(FILE);
        let opened = open(&path).and_then(|database| Ok((rows(&database)?, database)));
        let (rows, database) = opened.map_err(|error| match error {
            redb::Error::DatabaseAlreadyOpen => OpenStoreError::InUse { path: path.clone() },
            error => OpenStoreError::File { path: path.clone(), source: Box::new(error) },
        })?;
        // As many as payments can be open: `payments` bounds it.
        let (jobs, queue) = mpsc::channel();
        let writer = thread::Builder::new()
            .name("payments".to_owned())
            .spawn(move || write_all(&queue, &database))
            .map_err(OpenStoreError::Thread)?;
        Ok((Store { jobs }, Writer(writer), rows))
    }

    /// Has a row written, or forgotten; what is returned says when it is on the disk.
    pub(super) fn keep(&self, id: PaymentId, row: Option<Row>) -> oneshot::Receiver<Result<(), String>> {
        let (done, kept) = oneshot::channel();
        // If the thread has ended, so has the other half of `done`.
        let _ = self.jobs.send(Job { id, row, done });
        kept
    }
}

fn open(path: &Path) -> Result<Database, redb::Error> {
    let mut options = std::fs::OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false);
    #[cfg(unix)]
    {
        use std::os::unix::fs::OpenOptionsExt;
        options.mode(0o600);
    }
    let database = Database::builder().set_cache_size(CACHE_BYTES).create_file(options.open(path)?)?;
    let transaction = database.begin_write()?;
    transaction.open_table(PAYMENTS)?;
    transaction.commit()?;
    Ok(database)
}

fn rows(database: &Database) -> Result<Vec<(PaymentId, Row)>, redb::Error> {
    let table = database.begin_read()?.open_table(PAYMENTS)?;
    let mut rows = Vec::new();
    for entry in table.iter()? {
        let (_, row) = entry?;
        let row: Row = serde_json::from_slice(row.value())
            .map_err(|error| redb::Error::Corrupted(format!("a payment cannot be read: {error}")))?;
        rows.push(((row.authorization.from, row.authorization.nonce), row));
    }
    Ok(rows)
}

/// The writing thread: takes what waits, commits it together, tells each.
fn write_all(queue: &mpsc::Receiver<Job>, database: &Database) {
    while let Ok(first) = queue.recv() {
        let mut jobs = vec![first];
        jobs.extend(queue.try_iter().take(BATCH_MAX - 1));
        let result = commit(database, &jobs).map_err(|error| error.to_string());
        if let Err(failure) = &result {
            error!(failure, "payments were not kept");
        }
        for job in jobs {
            let _ = job.done.send(result.clone());
        }
    }
}

fn commit(database: &Database, jobs: &[Job]) -> Result<(), redb::Error> {
    let transaction = database.begin_write()?;
    {
        let mut table = transaction.open_table(PAYMENTS)?;
        for Job { id: (payer, nonce), row, .. } in jobs {
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
    }
    transaction.commit()?;
    Ok(())
}
