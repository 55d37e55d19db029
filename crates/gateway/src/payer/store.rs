//! What the payer must not forget: its channels, how much it may have promised on each, and what it has to claim.
//!
//! In:     channels and their marks; breaches. Out: the same, after a restart.
//! Touches: `payer.redb` in the data directory, and one thread that writes it.
//! Holds:  what [`Store::keep`] and [`Store::keep_claim`] returned from is on the disk; many at once share one commit.
//! Absent: what a mark means (`payer`), and what a breach (`claims`).

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::mpsc,
    thread,
};

use alloy_primitives::Address;
use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition};
use surety_types::{Canonical, Channel, Digest};
use tokio::sync::oneshot;
use tracing::error;

use super::claims::{ClaimKey, ClaimRow, Stage};

const FILE: &str = "payer.redb";
/// Channel, mark, settled, written off, whether it was left in order.
type KeptRow<'a> = (&'a [u8], u128, u128, u128, bool);
/// By channel id.
const CHANNELS: TableDefinition<'_, &[u8], KeptRow<'_>> = TableDefinition::new("channels");
/// Order, acceptance, operator, deadline, stage, id, when it was over, compensation, receipt.
type KeptClaim<'a> = (&'a [u8], &'a [u8], &'a [u8], u64, u8, u64, u64, u128, &'a [u8]);
/// By order digest and worker.
const CLAIMS: TableDefinition<'_, &[u8], KeptClaim<'_>> = TableDefinition::new("claims");
/// What one commit takes at most.
const BATCH_MAX: usize = 256;
/// Memory for redb's pages.
const CACHE_BYTES: usize = 8 << 20;

/// Why the payer's book cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum PayerBookError {
    /// Another process has it open.
    #[error("{} is in use by another gateway", path.display())]
    InUse {
        /// The file.
        path: PathBuf,
    },
    /// The file cannot be made, read or written.
    #[error("cannot open {}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: Box<redb::Error>,
    },
    /// No thread could be started.
    #[error("cannot start the thread that writes the payer's book")]
    Thread(#[source] std::io::Error),
}

impl PayerBookError {
    /// What to do about it.
    pub fn hint(&self) -> &'static str {
        match self {
            PayerBookError::InUse { .. } => "stop the other gateway, or name another data directory",
            PayerBookError::File { .. } => {
                "check that the data directory is writable and has room; if the file is damaged, move it away: its \
                 channels can still be withdrawn from on the ledger"
            }
            PayerBookError::Thread(_) => "raise the limit on threads",
        }
    }
}

/// What is kept of a channel. Amounts are wei.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Row {
    pub(super) channel: Channel,
    /// No voucher that was ever signed promises more.
    pub(super) mark: u128,
    pub(super) settled: u128,
    pub(super) written_off: u128,
    /// Nothing was under way when this was written: the mark is exact.
    pub(super) in_order: bool,
}

/// What is kept of channels.
type Rows = Vec<(Digest, Row)>;
/// What is kept of breaches.
pub(super) type Claims = BTreeMap<ClaimKey, ClaimRow>;

enum Change {
    Channel(Digest, Row),
    /// None: it is forgotten.
    Claim(ClaimKey, Option<ClaimRow>),
}

struct Job {
    change: Change,
    done: oneshot::Sender<Result<(), String>>,
}

/// The kept channels.
#[derive(Debug, Clone)]
pub(super) struct Store {
    jobs: mpsc::Sender<Job>,
}

impl Store {
    /// Opens what is in `data_dir`, or makes it; and what it holds.
    pub(super) fn open(data_dir: &Path) -> Result<(Store, Rows, Claims), PayerBookError> {
        let path = data_dir.join(FILE);
        let opened = open(&path).and_then(|database| Ok((rows(&database)?, claims(&database)?, database)));
        let (rows, claims, database) = opened.map_err(|error| match error {
            redb::Error::DatabaseAlreadyOpen => PayerBookError::InUse { path: path.clone() },
            source => PayerBookError::File { path: path.clone(), source: Box::new(source) },
        })?;
        // As many as orders can be under way: the gateway bounds it.
        let (jobs, queue) = mpsc::channel();
        thread::Builder::new()
            .name("payer".to_owned())
            .spawn(move || write_all(&queue, &database))
            .map_err(PayerBookError::Thread)?;
        Ok((Store { jobs }, rows, claims))
    }

    /// Returns once the row is on the disk.
    pub(super) async fn keep(&self, id: Digest, row: Row) -> Result<(), String> {
        let kept = self.post(Change::Channel(id, row));
        kept.await.unwrap_or_else(|_| Err("its thread has ended".to_owned()))
    }

    /// Returns once the row is on the disk.
    pub(super) async fn keep_claim(&self, key: ClaimKey, row: ClaimRow) -> Result<(), String> {
        let kept = self.post(Change::Claim(key, Some(row)));
        kept.await.unwrap_or_else(|_| Err("its thread has ended".to_owned()))
    }

    /// Has a row written, or forgotten, soon.
    pub(super) fn post_claim(&self, key: ClaimKey, row: Option<ClaimRow>) {
        drop(self.post(Change::Claim(key, row)));
    }

    fn post(&self, change: Change) -> oneshot::Receiver<Result<(), String>> {
        let (done, kept) = oneshot::channel();
        // If the thread has ended, so has the other half of `done`.
        let _ = self.jobs.send(Job { change, done });
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
    transaction.open_table(CHANNELS)?;
    transaction.open_table(CLAIMS)?;
    transaction.commit()?;
    Ok(database)
}

fn claims(database: &Database) -> Result<Claims, redb::Error> {
    let table = database.begin_read()?.open_table(CLAIMS)?;
    let mut claims = Claims::new();
    for entry in table.iter()? {
        let (key, value) = entry?;
        let (order, acceptance, operator, deadline_ms, stage, id, over_s, compensation, receipt) =
            value.value();
        let broken = |what: &str| redb::Error::Corrupted(format!("a claim's {what} cannot be read"));
        let row = ClaimRow {
            order: order.to_vec(),
            acceptance: acceptance.to_vec(),
            operator: Address::try_from(operator).map_err(|_| broken("operator"))?,
            deadline_ms,
            stage: Stage::from_code(stage).ok_or_else(|| broken("stage"))?,
            id,
            over_s,
            compensation,
            receipt: receipt.to_vec(),
        };
        claims.insert(key.value().try_into().map_err(|_| broken("key"))?, row);
    }
    Ok(claims)
}

fn rows(database: &Database) -> Result<Rows, redb::Error> {
    let channels = database.begin_read()?.open_table(CHANNELS)?;
    let mut rows = Vec::new();
    for entry in channels.iter()? {
        let (id, value) = entry?;
        let (channel, mark, settled, written_off, in_order) = value.value();
        let broken = |what: &str| redb::Error::Corrupted(format!("a channel's {what} cannot be read"));
        let channel = Channel::from_cbor(channel).map_err(|_| broken("configuration"))?;
        let id = Digest(id.value().try_into().map_err(|_| broken("id"))?);
        rows.push((id, Row { channel, mark, settled, written_off, in_order }));
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
            error!(failure, "the payer's book was not written");
        }
        for job in jobs {
            let _ = job.done.send(result.clone());
        }
    }
}

fn commit(database: &Database, jobs: &[Job]) -> Result<(), redb::Error> {
    let transaction = database.begin_write()?;
    {
        let mut channels = transaction.open_table(CHANNELS)?;
        let mut claims = transaction.open_table(CLAIMS)?;
        for Job { change, .. } in jobs {
            match change {
                Change::Channel(id, row) => {
                    let channel = row.channel.to_cbor();
                    let value = (&channel[..], row.mark, row.settled, row.written_off, row.in_order);
                    channels.insert(&id.0[..], value)?;
                }
                Change::Claim(key, None) => drop(claims.remove(&key[..])?),
                Change::Claim(key, Some(row)) => {
                    let ClaimRow { order, acceptance, operator, receipt, .. } = row;
                    let (stage, operator) = (row.stage as u8, operator.as_slice());
                    let value: KeptClaim<'_> = (
                        order,
                        acceptance,
                        operator,
                        row.deadline_ms,
                        stage,
                        row.id,
                        row.over_s,
                        row.compensation,
                        receipt,
                    );
                    claims.insert(&key[..], value)?;
                }
            }
        }
    }
    transaction.commit()?;
    Ok(())
}
