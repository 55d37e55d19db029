//! Receipts: the evidence of answered requests, kept for whoever asks.
//!
//! In:     evidence, by request id.
//! Out:    the same, as JSON, until it is old.
//! Touches: one file, `receipts.redb`, and one thread that writes it.
//! Holds:  what `keep` returned from is on the disk; many at once share one commit; the oldest go when there are too
//!         many or they take too much. A failed write fails the requests it was for, and no others.
//! Absent: judging the evidence (`proof`), sending it (`api`).

use std::{
    fmt,
    fs::{File, OpenOptions},
    io,
    path::{Path, PathBuf},
    sync::{Arc, PoisonError, RwLock},
    thread::{self, JoinHandle},
};

use redb::{Database, ReadableDatabase, ReadableTable, ReadableTableMetadata, TableDefinition};
use surety_types::{Evidence, evidence::MAX_EVIDENCE_BYTES};
use tokio::sync::{mpsc, oneshot};
use tracing::{error, info};

use crate::id::RequestId;

const FILE: &str = "receipts.redb";
/// Order of arrival → request id, evidence.
const EVIDENCE: TableDefinition<'_, u64, (u128, &[u8])> = TableDefinition::new("evidence");
/// Request id → order of arrival.
const ARRIVALS: TableDefinition<'_, u128, u64> = TableDefinition::new("arrivals");
/// `bytes` → the sum of what is kept.
const TOTALS: TableDefinition<'_, &str, u64> = TableDefinition::new("totals");
const BYTES: &str = "bytes";
/// Evidence waiting to be written, before requests have to wait to hand theirs over.
const WAITING_MAX: usize = 256;
/// What one commit takes at most, so that the first in it does not wait for ever.
const BATCH_MAX: usize = 128;
const BATCH_BYTES_MAX: usize = 16 << 20;
/// Memory for redb's pages.
const CACHE_BYTES: usize = 16 << 20;

/// Why the receipts could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenStoreError {
    /// Another process has them open.
    #[error("{} is in use by another gateway", path.display())]
    InUse {
        /// The file.
        path: PathBuf,
    },
    /// The file cannot be opened, read or written.
    #[error("cannot open {}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: Box<redb::Error>,
    },
    /// No thread could be started.
    #[error("cannot start the thread that writes receipts")]
    Thread(#[source] io::Error),
}

impl OpenStoreError {
    /// What to do about it.
    pub fn hint(&self) -> &'static str {
        match self {
            OpenStoreError::InUse { .. } => "stop the other gateway, or name another data directory",
            OpenStoreError::File { .. } => {
                "check that the data directory is writable and has room; if the file is damaged, move it away"
            }
            OpenStoreError::Thread(_) => "raise the limit on threads",
        }
    }
}

/// Why evidence was not kept, in words for the caller.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum KeepError {
    #[error("receipt not stored: {0}")]
    Write(String),
    #[error("receipt not stored: it takes {bytes} bytes, and at most {max} are kept")]
    TooLarge { bytes: usize, max: usize },
    #[error("receipt not stored: the gateway is stopping")]
    Stopping,
}

/// Evidence could not be read back.
#[derive(Debug, thiserror::Error)]
#[error("receipts cannot be read")]
pub(crate) struct FindError(#[source] pub(crate) Box<redb::Error>);

/// How much is kept.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bounds {
    pub(crate) count_max: u64,
    pub(crate) bytes_max: u64,
}

/// The kept receipts.
#[derive(Clone)]
pub(crate) struct Receipts {
    database: Shared,
    queue: mpsc::Sender<Job>,
}

/// The open database; none while it is being reopened after a failure.
type Shared = Arc<RwLock<Option<Database>>>;

struct Job {
    id: RequestId,
    evidence: Evidence,
    done: oneshot::Sender<Result<(), KeepError>>,
}

/// The writing thread, to be joined once the last [`Receipts`] is gone.
#[derive(Debug)]
pub(crate) struct Writer(JoinHandle<()>);

impl fmt::Debug for Receipts {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Receipts").finish_non_exhaustive()
    }
}

impl Receipts {
    /// Opens what is in `data_dir`, or makes it.
    pub(crate) fn open(data_dir: &Path, bounds: Bounds) -> Result<(Self, Writer), OpenStoreError> {
        let path = data_dir.join(FILE);
        let file = path.clone();
        Self::with(path, bounds, move || {
            Database::builder().set_cache_size(CACHE_BYTES).create_file(open_private(&file)?)
        })
    }

    fn with(
        path: PathBuf,
        bounds: Bounds,
        open: impl Fn() -> Result<Database, redb::DatabaseError> + Send + 'static,
    ) -> Result<(Self, Writer), OpenStoreError> {
        let database = open_checked(&open).map_err(|error| match error {
            redb::Error::DatabaseAlreadyOpen => OpenStoreError::InUse { path: path.clone() },
            error => OpenStoreError::File { path: path.clone(), source: Box::new(error) },
        })?;
        let database = Arc::new(RwLock::new(Some(database)));
        let (queue, jobs) = mpsc::channel(WAITING_MAX);
        let shared = Arc::clone(&database);
        let writer = thread::Builder::new()
            .name("receipts".to_owned())
            .spawn(move || write_all(jobs, &shared, bounds, &open))
            .map_err(OpenStoreError::Thread)?;
        Ok((Self { database, queue }, Writer(writer)))
    }

    /// Returns once the evidence is on the disk.
    pub(crate) async fn keep(&self, id: RequestId, evidence: Evidence) -> Result<(), KeepError> {
        let (done, kept) = oneshot::channel();
        self.queue.send(Job { id, evidence, done }).await.map_err(|_| KeepError::Stopping)?;
        kept.await.map_err(|_| KeepError::Stopping)?
    }

    /// The JSON kept under `id`. Reads the disk.
    pub(crate) fn find(&self, id: RequestId) -> Result<Option<Vec<u8>>, FindError> {
        let guard = self.database.read().unwrap_or_else(PoisonError::into_inner);
        let Some(database) = guard.as_ref() else {
            return Err(FindError(Box::new(redb::Error::DatabaseClosed)));
        };
        find(database, id).map_err(|error| FindError(Box::new(error)))
    }
}

impl Writer {
    /// Waits for what was handed over to be written.
    pub(crate) fn join(self) {
        if self.0.join().is_err() {
            error!("the thread that writes receipts panicked");
        }
    }
}

/// Opens or makes the file for its owner only: prompts and answers are in it.
pub(crate) fn open_private(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false);
    #[cfg(unix)]
    {
        use std::os::unix::fs::OpenOptionsExt;
        options.mode(0o600);
    }
    options.open(path)
}

fn find(database: &Database, id: RequestId) -> Result<Option<Vec<u8>>, redb::Error> {
    let transaction = database.begin_read()?;
    let Some(arrival) = transaction.open_table(ARRIVALS)?.get(id.bits())? else { return Ok(None) };
    let evidence = transaction.open_table(EVIDENCE)?;
    Ok(evidence.get(arrival.value())?.map(|entry| entry.value().1.to_vec()))
}

/// Opens the database and sees that its tables are there.
fn open_checked(open: &dyn Fn() -> Result<Database, redb::DatabaseError>) -> Result<Database, redb::Error> {
    let database = open()?;
    let transaction = database.begin_write()?;
    transaction.open_table(EVIDENCE)?;
    transaction.open_table(ARRIVALS)?;
    transaction.open_table(TOTALS)?;
    transaction.commit()?;
    Ok(database)
}

/// The writing thread: takes what waits, commits it together, tells each.
fn write_all(
    mut jobs: mpsc::Receiver<Job>,
    shared: &Shared,
    bounds: Bounds,
    open: &dyn Fn() -> Result<Database, redb::DatabaseError>,
) {
    while let Some(first) = jobs.blocking_recv() {
        let mut batch = Batch::default();
        batch.add(first, bounds);
        while batch.entries.len() < BATCH_MAX && batch.bytes < BATCH_BYTES_MAX {
            let Ok(job) = jobs.try_recv() else { break };
            batch.add(job, bounds);
        }
        if batch.entries.is_empty() {
            continue;
        }
        let result = write_batch(shared, &batch.entries, bounds, open);
        if let Err(failure) = &result {
            error!(failure, requests = batch.entries.len(), "receipts were not stored");
        }
        for entry in batch.entries {
            // Nobody may be waiting any more: the client may have left.
            let _ = entry.done.send(result.clone().map_err(KeepError::Write));
        }
    }
}

#[derive(Default)]
struct Batch {
    entries: Vec<Entry>,
    bytes: usize,
}

struct Entry {
    id: RequestId,
    json: String,
    done: oneshot::Sender<Result<(), KeepError>>,
}

impl Batch {
    /// Adds what can be written; tells the others at once.
    fn add(&mut self, job: Job, bounds: Bounds) {
        let Job { id, evidence, done } = job;
        let max = MAX_EVIDENCE_BYTES.min(usize::try_from(bounds.bytes_max).unwrap_or(usize::MAX));
        let refused = match evidence.to_json() {
            Ok(json) if json.len() > max => KeepError::TooLarge { bytes: json.len(), max },
            Ok(json) => {
                self.bytes += json.len();
                self.entries.push(Entry { id, json, done });
                return;
            }
            Err(error) => {
                error!(request = %id, %error, "evidence cannot be written as JSON");
                KeepError::Write("the evidence is not sound".to_owned())
            }
        };
        let _ = done.send(Err(refused));
    }
}

/// Commits a batch; on failure the database is reopened, because redb refuses further work on a failed one.
fn write_batch(
    shared: &Shared,
    entries: &[Entry],
    bounds: Bounds,
    open: &dyn Fn() -> Result<Database, redb::DatabaseError>,
) -> Result<(), String> {
    let outcome = {
        let guard = shared.read().unwrap_or_else(PoisonError::into_inner);
        guard.as_ref().map(|database| commit(database, entries, bounds))
    };
    let failure = match outcome {
        Some(Ok(())) => return Ok(()),
        Some(Err(error)) => describe(&error),
        None => "the file could not be reopened after a failure".to_owned(),
    };
    let mut guard = shared.write().unwrap_or_else(PoisonError::into_inner);
    // Closed first: a file that is open here cannot be opened again.
    *guard = None;
    match open_checked(open) {
        Ok(database) => {
            info!("receipts reopened after a failed write");
            *guard = Some(database);
        }
        Err(error) => error!(failure = describe(&error), "receipts cannot be reopened"),
    }
    Err(failure)
}

fn commit(database: &Database, entries: &[Entry], bounds: Bounds) -> Result<(), redb::Error> {
    let transaction = database.begin_write()?;
    {
        let mut evidence = transaction.open_table(EVIDENCE)?;
        let mut arrivals = transaction.open_table(ARRIVALS)?;
        let mut totals = transaction.open_table(TOTALS)?;
        let next = evidence.last()?.map_or(0, |(arrival, _)| arrival.value() + 1);
        let mut bytes = totals.get(BYTES)?.map_or(0, |total| total.value());
        for (arrival, entry) in (next..).zip(entries) {
            evidence.insert(arrival, (entry.id.bits(), entry.json.as_bytes()))?;
            arrivals.insert(entry.id.bits(), arrival)?;
            bytes += entry.json.len() as u64;
        }
        while evidence.len()? > bounds.count_max || bytes > bounds.bytes_max {
            let Some((_, oldest)) = evidence.pop_first()? else { break };
            let (id, json) = oldest.value();
            arrivals.remove(id)?;
            bytes -= json.len() as u64;
        }
        totals.insert(BYTES, bytes)?;
    }
    transaction.commit()?;
    Ok(())
}

/// An error as callers are told of it: the cause, without our paths.
pub(crate) fn describe(error: &redb::Error) -> String {
    match error {
        redb::Error::Io(error) if error.kind() == io::ErrorKind::StorageFull => "disk full".to_owned(),
        redb::Error::Io(error) if error.kind() == io::ErrorKind::ReadOnlyFilesystem => {
            "the disk is read-only".to_owned()
        }
        redb::Error::Io(error) => error.kind().to_string(),
        error => error.to_string(),
    }
}

#[cfg(test)]
mod tests;
