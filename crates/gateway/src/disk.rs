//! Disk: a redb file, and the one thread that writes it.
//!
//! In:     changes, in their order. Out: what each came to, once it is on the disk; whatever is read.
//! Touches: `NAME.redb` in the data directory, open to its owner alone, and its thread.
//! Holds:  many changes share one commit, in the order they were handed over; a commit is whole or not there. What somebody
//!         waits for is written at once, the rest when a little has gathered. A failed write fails the changes it was for, and
//!         no others: the file is then opened anew, because redb refuses further work on a failed one.
//! Absent: what is in the tables ([`Tables`]).

use std::{
    fmt,
    fs::{self, File, OpenOptions},
    io,
    path::{Path, PathBuf},
    sync::{
        Arc, PoisonError, RwLock,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle, Thread},
    time::{Duration, Instant},
};

use redb::{Database, ReadTransaction, ReadableDatabase, WriteTransaction};
use tokio::sync::{
    mpsc::{self, error::TrySendError},
    oneshot,
};
use tracing::{error, info};

use crate::api::unix_ms;

/// Between two looks at whether a full queue has room.
const FULL_PAUSE: Duration = Duration::from_millis(1);

/// The tables of one file, and how they change.
pub(crate) trait Tables: Send + 'static {
    /// Something to be written.
    type Change: Send + 'static;
    /// What it came to.
    type Outcome: Send + 'static;

    /// Names the file and its thread.
    const NAME: &'static str;
    const PACE: Pace;

    /// Sees that the tables are there.
    fn create(transaction: &WriteTransaction) -> Result<(), redb::Error>;

    /// Makes the changes in their order; returns what each came to.
    fn apply(
        &self,
        transaction: &WriteTransaction,
        changes: Vec<Self::Change>,
        now_ms: u64,
    ) -> Result<Vec<Self::Outcome>, redb::Error>;

    /// What a change takes, about.
    fn bytes(_change: &Self::Change) -> usize {
        0
    }

    /// A change is on the disk.
    fn written(_outcome: &Self::Outcome) {}
}

/// How changes are written.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pace {
    /// What nobody waits for is gathered for so long.
    pub(crate) gather: Duration,
    /// Changes waiting to be written, before whoever hands one over waits, or goes without.
    pub(crate) waiting_max: usize,
    /// What one commit takes at most, so that the first in it does not wait for ever.
    pub(crate) batch_max: usize,
    pub(crate) batch_bytes_max: usize,
    /// Memory for redb's pages.
    pub(crate) cache_bytes: usize,
}

impl Pace {
    /// Small changes, each of which somebody waits for.
    pub(crate) const AWAITED: Pace = Pace {
        gather: Duration::ZERO,
        waiting_max: 65_536,
        batch_max: 256,
        batch_bytes_max: usize::MAX,
        cache_bytes: 8 << 20,
    };
    /// The same of documents, which may be long.
    pub(crate) const DOCUMENTS: Pace = Pace {
        waiting_max: 256,
        batch_max: 128,
        batch_bytes_max: 16 << 20,
        cache_bytes: 16 << 20,
        ..Pace::AWAITED
    };
}

/// Why a file could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenStoreError {
    /// Another process has it open.
    #[error("{} is in use by another gateway", path.display())]
    InUse {
        /// The file.
        path: PathBuf,
    },
    /// It cannot be opened, read or written.
    #[error("cannot open {}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: Box<redb::Error>,
    },
    /// No thread could be started.
    #[error("cannot start the thread that writes {name}")]
    Thread {
        /// What it writes.
        name: &'static str,
        /// Why not.
        #[source]
        source: io::Error,
    },
}

impl OpenStoreError {
    /// What to do about it.
    pub fn hint(&self) -> &'static str {
        match self {
            OpenStoreError::InUse { .. } => "stop the other gateway, or name another data directory",
            OpenStoreError::File { .. } => {
                "check that the data directory is writable and has room; if the file is damaged, move it away"
            }
            OpenStoreError::Thread { .. } => "raise the limit on threads",
        }
    }
}

/// Why a change is not on the disk, in words for the caller.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum WriteError {
    #[error("{0}")]
    Failed(String),
    #[error("the gateway is stopping")]
    Stopping,
}

/// What is kept could not be read back.
#[derive(Debug, thiserror::Error)]
#[error("{name} cannot be read")]
pub(crate) struct FindError {
    name: &'static str,
    #[source]
    source: Box<redb::Error>,
}

/// An open file, for as many as share it; its thread ends when the last of them is gone.
pub(crate) struct Disk<T: Tables>(Arc<Inner<T>>);

struct Inner<T: Tables> {
    queue: mpsc::Sender<Job<T>>,
    database: Shared,
    haste: Haste,
}

/// The open database; none while it is being opened anew after a failure.
type Shared = Arc<RwLock<Option<Database>>>;

struct Job<T: Tables> {
    /// None: all before it is on the disk when it is.
    change: Option<T::Change>,
    done: Option<oneshot::Sender<Result<Option<T::Outcome>, WriteError>>>,
}

/// What is told of a change once it is on the disk, or is known not to be.
#[derive(Debug)]
pub(crate) struct Written<O> {
    told: Option<oneshot::Receiver<Result<Option<O>, WriteError>>>,
    haste: Haste,
}

/// Has a file written without gathering more.
#[derive(Debug, Clone)]
struct Haste {
    /// Somebody waits for what was handed over.
    hurried: Arc<AtomicBool>,
    writer: Thread,
}

/// The writing thread, to be joined once the last [`Disk`] of it is gone.
#[derive(Debug)]
pub(crate) struct Writer {
    name: &'static str,
    thread: JoinHandle<()>,
}

impl Writer {
    /// Waits for what was handed over to be written.
    pub(crate) fn join(self) {
        if self.thread.join().is_err() {
            error!(file = self.name, "the thread that writes it panicked");
        }
    }
}

impl<O> Written<O> {
    /// What the change came to.
    pub(crate) async fn outcome(self) -> Result<O, WriteError> {
        let Some(told) = self.told else { return Err(WriteError::Stopping) };
        told.await.ok().unwrap_or(Err(WriteError::Stopping))?.ok_or(WriteError::Stopping)
    }

    /// The same, without waiting for more to be written along with it.
    pub(crate) async fn at_once(self) -> Result<O, WriteError> {
        if self.told.as_ref().is_some_and(oneshot::Receiver::is_empty) {
            self.haste.hurry();
        }
        self.outcome().await
    }

    /// All of this, to one of several who could wait for it.
    pub(crate) fn take(&mut self) -> Option<Written<O>> {
        let told = self.told.take()?;
        Some(Written { told: Some(told), haste: self.haste.clone() })
    }
}

impl Haste {
    fn hurry(&self) {
        self.hurried.store(true, Ordering::Release);
        self.writer.unpark();
    }
}

impl<T: Tables> Clone for Disk<T> {
    fn clone(&self) -> Self {
        Disk(Arc::clone(&self.0))
    }
}

impl<T: Tables> fmt::Debug for Disk<T> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Disk({})", T::NAME)
    }
}

impl<T: Tables> Drop for Inner<T> {
    fn drop(&mut self) {
        self.haste.hurry();
    }
}

/// Where the tables of a data directory lie.
pub(crate) fn path_of<T: Tables>(data_dir: &Path) -> PathBuf {
    data_dir.join(T::NAME).with_extension("redb")
}

impl<T: Tables> Disk<T> {
    /// Opens what is in `data_dir`, or makes it.
    pub(crate) fn open(data_dir: &Path, tables: T) -> Result<(Disk<T>, Writer), OpenStoreError> {
        let path = path_of::<T>(data_dir);
        let file = path.clone();
        let cache_bytes = T::PACE.cache_bytes;
        Self::with(path, tables, move || {
            Database::builder().set_cache_size(cache_bytes).create_file(open_private(&file)?)
        })
    }

    pub(crate) fn with(
        path: PathBuf,
        tables: T,
        open: impl Fn() -> Result<Database, redb::DatabaseError> + Send + 'static,
    ) -> Result<(Disk<T>, Writer), OpenStoreError> {
        let database = open_checked::<T>(&open).map_err(|error| match error {
            redb::Error::DatabaseAlreadyOpen => OpenStoreError::InUse { path: path.clone() },
            error => OpenStoreError::File { path: path.clone(), source: Box::new(error) },
        })?;
        let database = Arc::new(RwLock::new(Some(database)));
        let hurried = Arc::new(AtomicBool::new(false));
        let (queue, jobs) = mpsc::channel(T::PACE.waiting_max);
        let writing =
            Writing { database: Arc::clone(&database), hurried: Arc::clone(&hurried), path, tables, open };
        let thread = thread::Builder::new()
            .name(T::NAME.to_owned())
            .spawn(move || writing.write_all(jobs))
            .map_err(|source| OpenStoreError::Thread { name: T::NAME, source })?;
        let haste = Haste { hurried, writer: thread.thread().clone() };
        let disk = Disk(Arc::new(Inner { queue, database, haste }));
        Ok((disk, Writer { name: T::NAME, thread }))
    }

    /// Has a change written at once; returns what it came to. Waits for room first.
    pub(crate) async fn keep(&self, change: T::Change) -> Result<T::Outcome, WriteError> {
        let (done, written) = oneshot::channel();
        let job = Job { change: Some(change), done: Some(done) };
        self.0.queue.send(job).await.map_err(|_| WriteError::Stopping)?;
        self.0.haste.hurry();
        let written = Written { told: Some(written), haste: self.0.haste.clone() };
        written.outcome().await
    }

    /// Has a change written soon; what is returned says when it is on the disk. Where there is no room, the calling thread
    /// waits.
    pub(crate) fn post(&self, change: T::Change) -> Written<T::Outcome> {
        let (done, written) = oneshot::channel();
        let mut job = Job { change: Some(change), done: Some(done) };
        // A queue that is closed belongs to a gateway at its end.
        while let Err(TrySendError::Full(back)) = self.0.queue.try_send(job) {
            job = back;
            thread::sleep(FULL_PAUSE);
        }
        Written { told: Some(written), haste: self.0.haste.clone() }
    }

    /// Has what was handed over written at once.
    pub(crate) fn hurry(&self) {
        self.0.haste.hurry();
    }

    /// Has a change written soon, if there is room; returns whether there was.
    pub(crate) fn offer(&self, change: T::Change) -> bool {
        self.0.queue.try_send(Job { change: Some(change), done: None }).is_ok()
    }

    /// Returns once what was handed over by now is on the disk, or is known not to be.
    pub(crate) async fn flush(&self) {
        let (done, written) = oneshot::channel();
        if self.0.queue.send(Job { change: None, done: Some(done) }).await.is_ok() {
            self.0.haste.hurry();
            let _ = written.await;
        }
    }

    /// Reads the disk.
    pub(crate) fn read<R>(
        &self,
        look: impl FnOnce(&ReadTransaction) -> Result<R, redb::Error>,
    ) -> Result<R, FindError> {
        let failed = |source| FindError { name: T::NAME, source: Box::new(source) };
        let guard = self.0.database.read().unwrap_or_else(PoisonError::into_inner);
        let database = guard.as_ref().ok_or_else(|| failed(redb::Error::DatabaseClosed))?;
        let transaction = database.begin_read().map_err(|error| failed(error.into()))?;
        look(&transaction).map_err(failed)
    }
}

impl FindError {
    /// Whoever was to read it ended.
    pub(crate) fn closed<T: Tables>() -> FindError {
        FindError { name: T::NAME, source: Box::new(redb::Error::DatabaseClosed) }
    }

    /// As the reason why nothing was opened: what is kept is read at the start.
    pub(crate) fn at_start<T: Tables>(self, data_dir: &Path) -> OpenStoreError {
        OpenStoreError::File { path: path_of::<T>(data_dir), source: self.source }
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

/// Opens the database and sees that its tables are there.
fn open_checked<T: Tables>(
    open: &impl Fn() -> Result<Database, redb::DatabaseError>,
) -> Result<Database, redb::Error> {
    let database = open()?;
    let transaction = database.begin_write()?;
    T::create(&transaction)?;
    transaction.commit()?;
    Ok(database)
}

/// What the writing thread has.
struct Writing<T, O> {
    database: Shared,
    hurried: Arc<AtomicBool>,
    path: PathBuf,
    tables: T,
    open: O,
}

impl<T: Tables, O: Fn() -> Result<Database, redb::DatabaseError>> Writing<T, O> {
    /// Takes what waits, commits it together, tells each.
    fn write_all(&self, mut jobs: mpsc::Receiver<Job<T>>) {
        while let Some(first) = jobs.blocking_recv() {
            self.gather();
            let (mut changes, mut told) = (Vec::new(), Vec::new());
            let (mut bytes, mut next) = (0, Some(first));
            while let Some(Job { change, done }) = next {
                bytes += change.as_ref().map_or(0, T::bytes);
                told.push((change.is_some(), done));
                changes.extend(change);
                let room = told.len() < T::PACE.batch_max && bytes < T::PACE.batch_bytes_max;
                next = if room { jobs.try_recv().ok() } else { None };
                // What is left may be waited for.
                self.hurried.fetch_or(!room, Ordering::AcqRel);
            }
            let count = changes.len();
            match if count == 0 { Ok(Vec::new()) } else { self.write(changes) } {
                Ok(outcomes) => {
                    outcomes.iter().for_each(T::written);
                    let mut outcomes = outcomes.into_iter();
                    for (changed, done) in told {
                        let outcome = if changed { outcomes.next() } else { None };
                        // Nobody may be waiting any more: the client may have left.
                        let _ = done.map(|done| done.send(Ok(outcome)));
                    }
                }
                Err(failure) => {
                    error!(file = T::NAME, failure, count, "changes were not written");
                    for done in told.into_iter().filter_map(|(_, done)| done) {
                        let _ = done.send(Err(WriteError::Failed(failure.clone())));
                    }
                }
            }
        }
    }

    /// Sleeps until enough has gathered, or somebody waits. Asleep, and not waiting for the next: whoever hands a change over
    /// on a request's path wakes nobody.
    fn gather(&self) {
        let until = Instant::now() + T::PACE.gather;
        loop {
            // What hurries from here on is in this batch, or hurries the next.
            let hurried = self.hurried.swap(false, Ordering::AcqRel);
            let left = until.saturating_duration_since(Instant::now());
            if hurried || left.is_zero() {
                return;
            }
            thread::park_timeout(left);
        }
    }

    fn write(&self, changes: Vec<T::Change>) -> Result<Vec<T::Outcome>, String> {
        let outcome = {
            let guard = self.database.read().unwrap_or_else(PoisonError::into_inner);
            guard.as_ref().map(|database| commit(database, &self.tables, changes, unix_ms()))
        };
        let failure = match outcome {
            Some(Ok(outcomes)) => return Ok(outcomes),
            Some(Err(error)) => describe(&error),
            None => "the file could not be reopened after a failure".to_owned(),
        };
        let mut guard = self.database.write().unwrap_or_else(PoisonError::into_inner);
        // Closed first: a file that is open here cannot be opened again.
        *guard = None;
        // A file that is gone is not made anew under a gateway that remembers what was in it.
        let there = fs::metadata(&self.path).map_err(redb::Error::from);
        match there.and_then(|_| open_checked::<T>(&self.open)) {
            Ok(database) => {
                info!(file = T::NAME, "reopened after a failed write");
                *guard = Some(database);
            }
            Err(error) => error!(file = T::NAME, failure = describe(&error), "cannot be reopened"),
        }
        Err(failure)
    }
}

fn commit<T: Tables>(
    database: &Database,
    tables: &T,
    changes: Vec<T::Change>,
    now_ms: u64,
) -> Result<Vec<T::Outcome>, redb::Error> {
    let transaction = database.begin_write()?;
    let outcomes = tables.apply(&transaction, changes, now_ms)?;
    transaction.commit()?;
    Ok(outcomes)
}

/// An error as callers are told of it: the cause, without our paths.
fn describe(error: &redb::Error) -> String {
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
pub(crate) mod tests;
