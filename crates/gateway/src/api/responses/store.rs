//! Store: responses kept for whoever knows their id.
//!
//! In:     records, by request id: as a response begins, and as it ended.
//! Out:    the same until they are deleted, old or too many; which of them had not ended.
//! Touches: one file, `responses.redb`, and one thread that writes it.
//! Holds:  what `keep` and `forget` returned from is on the disk; many at once share one commit; the oldest go when there
//!         are too many or they take too much. What was deleted does not come back by ending later. A failed write fails
//!         those it was for, and no others.
//! Absent: what the records say (`record`), making responses (`live`).

use std::{
    collections::BTreeMap,
    fmt,
    path::Path,
    sync::{Arc, PoisonError, RwLock},
    thread::{self, JoinHandle},
    time::Duration,
};

use redb::{Database, ReadableDatabase, ReadableTable, ReadableTableMetadata, TableDefinition};
use tokio::sync::{mpsc, oneshot};
use tracing::{error, info};

use crate::{
    api::unix_ms,
    id::RequestId,
    receipts::{OpenStoreError, describe, open_private},
};

const FILE: &str = "responses.redb";
/// Order of arrival → request id, Unix milliseconds, record.
const RECORDS: TableDefinition<'_, u64, (u128, u64, &[u8])> = TableDefinition::new("records");
/// Request id → order of arrival.
const ARRIVALS: TableDefinition<'_, u128, u64> = TableDefinition::new("arrivals");
/// Those that have not ended.
const UNFINISHED: TableDefinition<'_, u128, ()> = TableDefinition::new("unfinished");
/// `bytes` → the sum of what is kept; `next` → the order of the next arrival.
const TOTALS: TableDefinition<'_, &str, u64> = TableDefinition::new("totals");
const BYTES: &str = "bytes";
const NEXT: &str = "next";
/// Changes waiting to be written, before requests have to wait to hand theirs over.
const WAITING_MAX: usize = 256;
/// What one commit takes at most, so that the first in it does not wait for ever.
const BATCH_MAX: usize = 128;
const BATCH_BYTES_MAX: usize = 16 << 20;
/// Memory for redb's pages.
const CACHE_BYTES: usize = 16 << 20;

/// How much is kept, and for how long.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bounds {
    pub(crate) count_max: u64,
    pub(crate) bytes_max: u64,
    pub(crate) kept_for: Duration,
}

/// Why a response was not kept, in words for the caller.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum KeepError {
    #[error("response not stored: {0}")]
    Write(String),
    #[error("response not stored: it takes {bytes} bytes, and at most {max} are kept")]
    TooLarge { bytes: usize, max: u64 },
    #[error("response not stored: the gateway is stopping")]
    Stopping,
}

/// What is kept could not be read back.
#[derive(Debug, thiserror::Error)]
#[error("responses cannot be read")]
pub(crate) struct FindError(#[source] Box<redb::Error>);

/// How a record is to be kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Keeping {
    /// The response begins: it is to be gone on with by a gateway that finds it so.
    Begun,
    /// It ended, and its beginning was kept: if that is gone, it stays gone.
    Ended,
    /// It ended, and nothing was kept of it before.
    Whole,
}

/// The kept responses.
#[derive(Clone)]
pub(crate) struct Store {
    database: Shared,
    queue: mpsc::Sender<Job>,
    bounds: Bounds,
}

/// The open database; none while it is being reopened after a failure.
type Shared = Arc<RwLock<Option<Database>>>;
type Open = dyn Fn() -> Result<Database, redb::DatabaseError>;

struct Job {
    id: RequestId,
    change: Change,
    done: oneshot::Sender<Result<bool, KeepError>>,
}

enum Change {
    Keep(Keeping, Vec<u8>),
    Forget,
}

/// The writing thread, to be joined once the last [`Store`] is gone.
#[derive(Debug)]
pub(crate) struct Writer(JoinHandle<()>);

impl fmt::Debug for Store {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Store").finish_non_exhaustive()
    }
}

impl Store {
    /// Opens what is in `data_dir`, or makes it.
    pub(crate) fn open(data_dir: &Path, bounds: Bounds) -> Result<(Self, Writer), OpenStoreError> {
        let path = data_dir.join(FILE);
        let file = path.clone();
        let open = move || Database::builder().set_cache_size(CACHE_BYTES).create_file(open_private(&file)?);
        let database = open_checked(&open).map_err(|error| match error {
            redb::Error::DatabaseAlreadyOpen => OpenStoreError::InUse { path: path.clone() },
            error => OpenStoreError::File { path: path.clone(), source: Box::new(error) },
        })?;
        let database = Arc::new(RwLock::new(Some(database)));
        let (queue, jobs) = mpsc::channel(WAITING_MAX);
        let shared = Arc::clone(&database);
        let writer = thread::Builder::new()
            .name("responses".to_owned())
            .spawn(move || write_all(jobs, &shared, bounds, &open))
            .map_err(OpenStoreError::Thread)?;
        Ok((Self { database, queue, bounds }, Writer(writer)))
    }

    /// Returns once the record is on the disk, in place of what was kept under `id` before; or once it is clear that it was
    /// deleted meanwhile, which is no error.
    pub(crate) async fn keep(
        &self,
        id: RequestId,
        keeping: Keeping,
        record: Vec<u8>,
    ) -> Result<(), KeepError> {
        if record.len() as u64 > self.bounds.bytes_max {
            return Err(KeepError::TooLarge { bytes: record.len(), max: self.bounds.bytes_max });
        }
        self.change(id, Change::Keep(keeping, record)).await.map(drop)
    }

    /// Deletes what is kept under `id`; returns whether there was anything, once it is gone from the disk.
    pub(crate) async fn forget(&self, id: RequestId) -> Result<bool, KeepError> {
        self.change(id, Change::Forget).await
    }

    async fn change(&self, id: RequestId, change: Change) -> Result<bool, KeepError> {
        let (done, kept) = oneshot::channel();
        self.queue.send(Job { id, change, done }).await.map_err(|_| KeepError::Stopping)?;
        kept.await.map_err(|_| KeepError::Stopping)?
    }

    /// What is kept under `id`. Reads the disk.
    pub(crate) fn find(&self, id: RequestId) -> Result<Option<Vec<u8>>, FindError> {
        let oldest_ms = oldest_ms(unix_ms(), self.bounds);
        self.read(|database| {
            let transaction = database.begin_read()?;
            let Some(arrival) = transaction.open_table(ARRIVALS)?.get(id.bits())? else { return Ok(None) };
            let record = transaction.open_table(RECORDS)?.get(arrival.value())?;
            Ok(record.and_then(|record| {
                let (_, at_ms, bytes) = record.value();
                (at_ms >= oldest_ms).then(|| bytes.to_vec())
            }))
        })
    }

    /// The responses that were begun and had not ended, the oldest first. Reads the disk.
    pub(crate) fn unfinished(&self) -> Result<Vec<(RequestId, Vec<u8>)>, FindError> {
        self.read(|database| {
            let transaction = database.begin_read()?;
            let (arrivals, records) = (transaction.open_table(ARRIVALS)?, transaction.open_table(RECORDS)?);
            let mut found = BTreeMap::new();
            for row in transaction.open_table(UNFINISHED)?.iter()? {
                let id = row?.0.value();
                let Some(arrival) = arrivals.get(id)?.map(|arrival| arrival.value()) else { continue };
                let Some(record) = records.get(arrival)? else { continue };
                found.insert(arrival, (RequestId::of_bits(id), record.value().2.to_vec()));
            }
            Ok(found.into_values().collect())
        })
    }

    fn read<T>(&self, look: impl FnOnce(&Database) -> Result<T, redb::Error>) -> Result<T, FindError> {
        let guard = self.database.read().unwrap_or_else(PoisonError::into_inner);
        let database = guard.as_ref().ok_or_else(|| FindError(Box::new(redb::Error::DatabaseClosed)))?;
        look(database).map_err(|error| FindError(Box::new(error)))
    }
}

impl Writer {
    /// Waits for what was handed over to be written.
    pub(crate) fn join(self) {
        if self.0.join().is_err() {
            error!("the thread that writes responses panicked");
        }
    }
}

/// Opens the database and sees that its tables are there.
fn open_checked(open: &Open) -> Result<Database, redb::Error> {
    let database = open()?;
    let transaction = database.begin_write()?;
    transaction.open_table(RECORDS)?;
    transaction.open_table(ARRIVALS)?;
    transaction.open_table(UNFINISHED)?;
    transaction.open_table(TOTALS)?;
    transaction.commit()?;
    Ok(database)
}

/// The writing thread: takes what waits, commits it together, tells each.
fn write_all(mut jobs: mpsc::Receiver<Job>, shared: &Shared, bounds: Bounds, open: &Open) {
    while let Some(first) = jobs.blocking_recv() {
        let mut bytes = first.change.bytes();
        let mut batch = vec![first];
        while batch.len() < BATCH_MAX && bytes < BATCH_BYTES_MAX {
            let Ok(job) = jobs.try_recv() else { break };
            bytes += job.change.bytes();
            batch.push(job);
        }
        match write_batch(shared, &batch, bounds, open) {
            Ok(outcomes) => {
                for (job, outcome) in batch.into_iter().zip(outcomes) {
                    // Nobody may be waiting any more: the client may have left.
                    let _ = job.done.send(Ok(outcome));
                }
            }
            Err(failure) => {
                error!(failure, responses = batch.len(), "responses were not stored");
                for job in batch {
                    let _ = job.done.send(Err(KeepError::Write(failure.clone())));
                }
            }
        }
    }
}

/// Commits a batch; on failure the database is reopened, because redb refuses further work on a failed one.
fn write_batch(shared: &Shared, batch: &[Job], bounds: Bounds, open: &Open) -> Result<Vec<bool>, String> {
    let outcome = {
        let guard = shared.read().unwrap_or_else(PoisonError::into_inner);
        guard.as_ref().map(|database| commit(database, batch, bounds, unix_ms()))
    };
    let failure = match outcome {
        Some(Ok(outcomes)) => return Ok(outcomes),
        Some(Err(error)) => describe(&error),
        None => "the file could not be reopened after a failure".to_owned(),
    };
    let mut guard = shared.write().unwrap_or_else(PoisonError::into_inner);
    // Closed first: a file that is open here cannot be opened again.
    *guard = None;
    match open_checked(open) {
        Ok(database) => {
            info!("responses reopened after a failed write");
            *guard = Some(database);
        }
        Err(error) => error!(failure = describe(&error), "responses cannot be reopened"),
    }
    Err(failure)
}

/// Makes the changes, and what the bounds ask for; says of each whether there was something under its id.
fn commit(database: &Database, batch: &[Job], bounds: Bounds, now_ms: u64) -> Result<Vec<bool>, redb::Error> {
    let transaction = database.begin_write()?;
    let mut outcomes = Vec::with_capacity(batch.len());
    {
        let mut records = transaction.open_table(RECORDS)?;
        let mut arrivals = transaction.open_table(ARRIVALS)?;
        let mut unfinished = transaction.open_table(UNFINISHED)?;
        let mut totals = transaction.open_table(TOTALS)?;
        let mut bytes = totals.get(BYTES)?.map_or(0, |total| total.value());
        let mut next = totals.get(NEXT)?.map_or(0, |next| next.value());
        for job in batch {
            let id = job.id.bits();
            let there = arrivals.get(id)?.map(|arrival| arrival.value());
            outcomes.push(there.is_some());
            match &job.change {
                Change::Forget => {
                    let Some(arrival) = there else { continue };
                    arrivals.remove(id)?;
                    unfinished.remove(id)?;
                    let removed = records.remove(arrival)?;
                    bytes -= removed.map_or(0, |record| record.value().2.len() as u64).min(bytes);
                }
                Change::Keep(Keeping::Ended, _) if there.is_none() => {}
                Change::Keep(keeping, record) => {
                    let arrival = there.unwrap_or(next);
                    next = next.max(arrival + 1);
                    let before = records.get(arrival)?.map(|before| {
                        let (_, at_ms, record) = before.value();
                        (at_ms, record.len() as u64)
                    });
                    let (at_ms, length) = before.unwrap_or((now_ms, 0));
                    bytes = (bytes + record.len() as u64).saturating_sub(length);
                    records.insert(arrival, (id, at_ms, &record[..]))?;
                    arrivals.insert(id, arrival)?;
                    if *keeping == Keeping::Begun {
                        unfinished.insert(id, ())?;
                    } else {
                        unfinished.remove(id)?;
                    }
                }
            }
        }
        let oldest_ms = oldest_ms(now_ms, bounds);
        loop {
            let oldest = records.first()?.map(|(arrival, record)| {
                let (id, at_ms, record) = record.value();
                (arrival.value(), id, at_ms, record.len() as u64)
            });
            let Some((arrival, id, at_ms, length)) = oldest else { break };
            if at_ms >= oldest_ms && records.len()? <= bounds.count_max && bytes <= bounds.bytes_max {
                break;
            }
            records.remove(arrival)?;
            arrivals.remove(id)?;
            unfinished.remove(id)?;
            bytes -= length.min(bytes);
        }
        totals.insert(BYTES, bytes)?;
        totals.insert(NEXT, next)?;
    }
    transaction.commit()?;
    Ok(outcomes)
}

/// What came before this moment is too old.
fn oldest_ms(now_ms: u64, bounds: Bounds) -> u64 {
    now_ms.saturating_sub(u64::try_from(bounds.kept_for.as_millis()).unwrap_or(u64::MAX))
}

impl Change {
    fn bytes(&self) -> usize {
        match self {
            Change::Keep(_, record) => record.len(),
            Change::Forget => 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: Duration = Duration::from_secs(24 * 3600);
    const BOUNDS: Bounds = Bounds { count_max: 4, bytes_max: 100, kept_for: DAY };

    fn id(digit: u128) -> RequestId {
        RequestId::of_bits(digit)
    }

    async fn keep(store: &Store, digit: u128, keeping: Keeping, record: &str) {
        store.keep(id(digit), keeping, record.as_bytes().to_vec()).await.expect("kept");
    }

    fn found(store: &Store, digit: u128) -> Option<String> {
        let bytes = store.find(id(digit)).expect("read")?;
        Some(String::from_utf8(bytes).expect("text"))
    }

    fn unfinished(store: &Store) -> Vec<(RequestId, Vec<u8>)> {
        store.unfinished().expect("read")
    }

    fn close(store: Store, writer: Writer) {
        drop(store);
        writer.join();
    }

    #[tokio::test]
    async fn what_was_kept_is_there_after_a_restart() {
        let directory = tempfile::tempdir().expect("a directory");
        let (store, writer) = Store::open(directory.path(), BOUNDS).expect("opened");
        keep(&store, 2, Keeping::Begun, "begun 2").await;
        keep(&store, 1, Keeping::Begun, "begun 1").await;
        keep(&store, 3, Keeping::Whole, "whole 3").await;
        keep(&store, 1, Keeping::Ended, "ended 1").await;
        close(store, writer);

        let (store, writer) = Store::open(directory.path(), BOUNDS).expect("opened");
        assert_eq!(found(&store, 1).as_deref(), Some("ended 1"));
        assert_eq!(found(&store, 2).as_deref(), Some("begun 2"));
        assert_eq!(found(&store, 3).as_deref(), Some("whole 3"));
        assert_eq!(found(&store, 4), None);
        assert_eq!(unfinished(&store), [(id(2), b"begun 2".to_vec())]);
        close(store, writer);
    }

    #[tokio::test]
    async fn what_was_deleted_does_not_come_back() {
        let directory = tempfile::tempdir().expect("a directory");
        let (store, writer) = Store::open(directory.path(), BOUNDS).expect("opened");
        keep(&store, 1, Keeping::Begun, "begun 1").await;
        assert_eq!(store.forget(id(1)).await, Ok(true));
        assert_eq!(store.forget(id(1)).await, Ok(false));
        keep(&store, 1, Keeping::Ended, "ended 1").await;
        assert_eq!(found(&store, 1), None);
        assert_eq!(unfinished(&store), []);
        // Nothing is left of it in the sum of bytes either.
        keep(&store, 2, Keeping::Whole, &"x".repeat(100)).await;
        assert_eq!(found(&store, 2).map(|record| record.len()), Some(100));
        close(store, writer);
    }

    #[tokio::test]
    async fn the_oldest_go_when_there_are_too_many_or_they_take_too_much() {
        let directory = tempfile::tempdir().expect("a directory");
        let (store, writer) = Store::open(directory.path(), BOUNDS).expect("opened");
        for digit in 1..=5 {
            keep(&store, digit, Keeping::Begun, "0123456789").await;
        }
        let there =
            |store: &Store| (1..=6).filter(|digit| found(store, *digit).is_some()).collect::<Vec<_>>();
        assert_eq!(there(&store), [2, 3, 4, 5]);
        // One that grows pushes the oldest out, not itself.
        keep(&store, 3, Keeping::Ended, &"x".repeat(75)).await;
        assert_eq!(there(&store), [3, 4, 5]);
        assert_eq!(unfinished(&store).len(), 2);
        let large = store.keep(id(6), Keeping::Whole, vec![0; 101]).await;
        assert_eq!(large, Err(KeepError::TooLarge { bytes: 101, max: 100 }));
        assert_eq!(there(&store), [3, 4, 5]);
        close(store, writer);
    }

    #[test]
    fn the_old_go() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join(FILE);
        let open = move || Database::builder().create_file(open_private(&path)?);
        let database = open_checked(&open).expect("opened");
        let job = |digit: u128, change| Job { id: id(digit), change, done: oneshot::channel().0 };
        let whole = || Change::Keep(Keeping::Whole, vec![0; 10]);
        let day_ms = DAY.as_millis() as u64;
        let at = |now_ms, jobs: &[Job]| commit(&database, jobs, BOUNDS, now_ms).expect("written");
        at(day_ms, &[job(1, whole()), job(2, whole())]);
        at(day_ms + 5, &[job(3, whole())]);
        // Ending later makes nothing younger.
        at(2 * day_ms, &[job(2, whole())]);
        assert_eq!(at(2 * day_ms + 1, &[job(9, Change::Forget)]), [false]);
        let is_there = |digit| at(2 * day_ms + 1, &[job(digit, Change::Forget)])[0];
        assert_eq!([1, 2, 3].map(is_there), [false, false, true]);
    }
}
