//! Indexes: finalised blocks, kept so that what happened can be looked up.
//!
//! In:     finalised blocks, in order.
//! Out:    blocks, transactions, receipts, certificates and logs, by what people know of them.
//! Touches: one file, `indexes.redb`, and one thread that writes it.
//! Holds:  what `append` returned from is on the disk; many at once share one commit; after a crash the indexes end at
//!         a whole block, and the blocks after it can be appended again. Heights have no gap. Blocks older than the
//!         bound go.
//! Absent: the state (`consensus`), JSON (`rpc`).

mod query;
mod record;
mod terms;

use std::{
    collections::BTreeSet,
    fmt, io,
    path::{Path, PathBuf},
    sync::Arc,
    thread::{self, JoinHandle},
};

use alloy_primitives::B256;
use redb::{Database, ReadableDatabase, ReadableTable, StorageBackend, TableDefinition, WriteTransaction};
use tokio::sync::{mpsc, oneshot, watch};
use tracing::error;

pub use query::{FoundLog, LogBounds, LogQuery, LogsError, Place, Snapshot};
pub use record::{IndexedBlock, IndexedHeader, IndexedReceipt, IndexedTransaction, bloom};
use record::{decode, encode};

const FILE: &str = "indexes.redb";
/// Height → header.
const HEADERS: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("headers");
/// Height → certificate.
const CERTIFICATES: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("certificates");
/// Digest → height.
const BLOCK_NUMBERS: TableDefinition<'_, &[u8; 32], u64> = TableDefinition::new("block_numbers");
/// Height, place in the block → transaction.
const TRANSACTIONS: TableDefinition<'_, (u64, u32), &[u8]> = TableDefinition::new("transactions");
/// Height, place in the block → receipt.
const RECEIPTS: TableDefinition<'_, (u64, u32), &[u8]> = TableDefinition::new("receipts");
/// Eight bytes of a transaction's hash, height, place. Whoever finds one still compares the whole hash.
const TRANSACTION_PLACES: TableDefinition<'_, (u64, u64, u32), ()> =
    TableDefinition::new("transaction_places");
/// Term, height of a block with such a log.
const POSTINGS: TableDefinition<'_, (u64, u64), ()> = TableDefinition::new("postings");
/// `genesis` → the chain these indexes are of.
const CHAIN: TableDefinition<'_, &str, &[u8; 32]> = TableDefinition::new("chain");
const GENESIS: &str = "genesis";

/// Blocks waiting to be written, before whoever appends has to wait.
const WAITING_MAX: usize = 64;
/// What one commit takes at most.
const BATCH_MAX: usize = 256;
const BATCH_TRANSACTIONS_MAX: usize = 20_000;
/// Blocks that one commit removes at most, beyond as many as it adds.
const PRUNE_MAX: u64 = 64;

/// How indexes are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IndexSettings {
    /// Blocks that are kept; none is all.
    pub blocks_kept: Option<u64>,
    /// Memory for pages of the file.
    pub cache_bytes: usize,
}

impl Default for IndexSettings {
    fn default() -> Self {
        Self { blocks_kept: None, cache_bytes: 64 << 20 }
    }
}

/// Why the indexes could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenIndexesError {
    /// Another process has them open.
    #[error("{} is in use by another validator", path.display())]
    InUse {
        /// The file.
        path: PathBuf,
    },
    /// They are of another chain.
    #[error("{} holds the indexes of another chain, whose genesis is {found}", path.display())]
    OtherChain {
        /// The file.
        path: PathBuf,
        /// That chain's.
        found: B256,
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
    #[error("cannot start the thread that writes indexes")]
    Thread(#[source] io::Error),
}

impl OpenIndexesError {
    /// What to do about it.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::InUse { .. } => "stop the other validator, or name another data directory",
            Self::OtherChain { .. } => {
                "name another data directory, or the genesis file that it was made with"
            }
            Self::File { .. } => {
                "check that the data directory is writable and has room; if the file is damaged, remove it: it is built \
                 again from the blocks"
            }
            Self::Thread(_) => "raise the limit on threads",
        }
    }
}

/// Why something could not be looked up.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The file cannot be read.
    #[error("the indexes cannot be read")]
    File(#[source] Box<redb::Error>),
    /// A row is not what was written.
    #[error("the indexes are damaged: the {what} of block {number} does not decode")]
    Row {
        /// What it was to hold.
        what: &'static str,
        /// The block's height.
        number: u64,
    },
}

impl ReadError {
    fn row(what: &'static str, number: u64) -> Self {
        Self::Row { what, number }
    }
}

impl<E: Into<redb::Error>> From<E> for ReadError {
    fn from(error: E) -> Self {
        Self::File(Box::new(error.into()))
    }
}

/// Why a block was not appended.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AppendError {
    /// Blocks are missing before it.
    #[error("block {number} does not follow block {tip}")]
    Gap {
        /// The block's height.
        number: u64,
        /// The newest kept.
        tip: u64,
    },
    /// Another block is kept at its height.
    #[error("block {number} is {kept} in the indexes, and now {given}: a finalised block has changed")]
    Conflict {
        /// The height.
        number: u64,
        /// The digest that is kept.
        kept: B256,
        /// The digest that came.
        given: B256,
    },
    /// The disk would not take it.
    #[error("the indexes cannot be written: {0}")]
    Write(String),
    /// Nothing is written any more.
    #[error("the indexes are closed")]
    Closed,
}

/// The indexes.
#[derive(Clone)]
pub struct Indexes {
    database: Arc<Database>,
    tip: Arc<watch::Sender<Option<u64>>>,
    queue: mpsc::Sender<Job>,
}

struct Job {
    block: Arc<IndexedBlock>,
    done: oneshot::Sender<Result<(), AppendError>>,
}

/// The writing thread, to be joined once the last [`Indexes`] is gone.
#[derive(Debug)]
pub struct IndexWriter(JoinHandle<()>);

impl fmt::Debug for Indexes {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Indexes").finish_non_exhaustive()
    }
}

impl Indexes {
    /// Opens what is in `data_dir`, or makes it, for the chain that began with the block of this digest.
    pub fn open(
        data_dir: &Path,
        genesis: B256,
        settings: IndexSettings,
    ) -> Result<(Self, IndexWriter), OpenIndexesError> {
        let path = data_dir.join(FILE);
        let mut builder = Database::builder();
        builder.set_cache_size(settings.cache_bytes);
        Self::with(&path, genesis, settings, builder.create(&path))
    }

    /// Indexes in a place of the caller's.
    pub fn on(
        backend: impl StorageBackend,
        genesis: B256,
        settings: IndexSettings,
    ) -> Result<(Self, IndexWriter), OpenIndexesError> {
        let database = Database::builder().create_with_backend(backend);
        Self::with(Path::new(FILE), genesis, settings, database)
    }

    fn with(
        path: &Path,
        genesis: B256,
        settings: IndexSettings,
        database: Result<Database, redb::DatabaseError>,
    ) -> Result<(Self, IndexWriter), OpenIndexesError> {
        let failed = |error: redb::Error| match error {
            redb::Error::DatabaseAlreadyOpen => OpenIndexesError::InUse { path: path.to_owned() },
            error => OpenIndexesError::File { path: path.to_owned(), source: Box::new(error) },
        };
        let database = database.map_err(|error| failed(error.into()))?;
        let (chain, tip) = prepare(&database, genesis).map_err(failed)?;
        if chain != genesis {
            return Err(OpenIndexesError::OtherChain { path: path.to_owned(), found: chain });
        }
        let database = Arc::new(database);
        let tip = Arc::new(watch::Sender::new(tip));
        let (queue, jobs) = mpsc::channel(WAITING_MAX);
        let (shared, shared_tip) = (Arc::clone(&database), Arc::clone(&tip));
        let writer = thread::Builder::new()
            .name("indexes".to_owned())
            .spawn(move || write_all(jobs, &shared, &shared_tip, settings))
            .map_err(OpenIndexesError::Thread)?;
        Ok((Self { database, tip, queue }, IndexWriter(writer)))
    }

    /// Returns once the block is on the disk. One that is there already is left alone.
    pub async fn append(&self, block: Arc<IndexedBlock>) -> Result<(), AppendError> {
        let (done, written) = oneshot::channel();
        self.queue.send(Job { block, done }).await.map_err(|_| AppendError::Closed)?;
        written.await.map_err(|_| AppendError::Closed)?
    }

    /// The height of the newest block.
    pub fn tip(&self) -> Option<u64> {
        *self.tip.borrow()
    }

    /// The height of the newest block, whenever it changes.
    pub fn watch(&self) -> watch::Receiver<Option<u64>> {
        self.tip.subscribe()
    }

    /// Everything as it is now. Reads the disk.
    pub fn snapshot(&self) -> Result<Snapshot, ReadError> {
        Ok(Snapshot::new(self.database.begin_read()?))
    }

    /// Forgets every block, so that a later one may be the first: after the state was taken over from others.
    pub fn clear(&self) -> Result<(), ReadError> {
        let transaction = self.database.begin_write()?;
        transaction.delete_table(HEADERS)?;
        transaction.delete_table(CERTIFICATES)?;
        transaction.delete_table(BLOCK_NUMBERS)?;
        transaction.delete_table(TRANSACTIONS)?;
        transaction.delete_table(RECEIPTS)?;
        transaction.delete_table(TRANSACTION_PLACES)?;
        transaction.delete_table(POSTINGS)?;
        open_tables(&transaction)?;
        transaction.commit()?;
        self.tip.send_replace(None);
        Ok(())
    }
}

impl IndexWriter {
    /// Waits for what was handed over to be written.
    pub fn join(self) {
        if self.0.join().is_err() {
            error!("the thread that writes indexes panicked");
        }
    }
}

/// Sees that the tables are there; returns the chain they are of, and the newest height.
fn prepare(database: &Database, genesis: B256) -> Result<(B256, Option<u64>), redb::Error> {
    let transaction = database.begin_write()?;
    open_tables(&transaction)?;
    let (chain, tip) = {
        let mut chains = transaction.open_table(CHAIN)?;
        let found = chains.get(GENESIS)?.map(|row| B256::from(row.value()));
        if found.is_none() {
            chains.insert(GENESIS, &genesis.0)?;
        }
        let headers = transaction.open_table(HEADERS)?;
        let tip = headers.last()?.map(|(number, _)| number.value());
        (found.unwrap_or(genesis), tip)
    };
    transaction.commit()?;
    Ok((chain, tip))
}

fn open_tables(transaction: &WriteTransaction) -> Result<(), redb::TableError> {
    transaction.open_table(HEADERS)?;
    transaction.open_table(CERTIFICATES)?;
    transaction.open_table(BLOCK_NUMBERS)?;
    transaction.open_table(TRANSACTIONS)?;
    transaction.open_table(RECEIPTS)?;
    transaction.open_table(TRANSACTION_PLACES)?;
    transaction.open_table(POSTINGS)?;
    Ok(())
}

/// The writing thread: takes what waits, commits it together, tells each.
fn write_all(
    mut jobs: mpsc::Receiver<Job>,
    database: &Database,
    tip: &watch::Sender<Option<u64>>,
    settings: IndexSettings,
) {
    while let Some(first) = jobs.blocking_recv() {
        let mut transactions = first.block.transactions.len();
        let mut batch = vec![first];
        while batch.len() < BATCH_MAX && transactions < BATCH_TRANSACTIONS_MAX {
            let Ok(job) = jobs.try_recv() else { break };
            transactions += job.block.transactions.len();
            batch.push(job);
        }
        match commit(database, &batch, settings) {
            Ok((newest, results)) => {
                tip.send_replace(newest);
                for (job, result) in batch.into_iter().zip(results) {
                    // Nobody may be waiting any more.
                    let _ = job.done.send(result);
                }
            }
            Err(failure) => {
                let failure = describe(&failure);
                error!(failure, blocks = batch.len(), "the indexes were not written");
                for job in batch {
                    let _ = job.done.send(Err(AppendError::Write(failure.clone())));
                }
            }
        }
    }
}

type Results = Vec<Result<(), AppendError>>;

/// Writes a batch. A block that does not follow is refused by itself; a failing disk refuses all.
fn commit(
    database: &Database,
    batch: &[Job],
    settings: IndexSettings,
) -> Result<(Option<u64>, Results), redb::Error> {
    let transaction = database.begin_write()?;
    let mut results = Vec::new();
    for job in batch {
        results.push(add(&transaction, &job.block)?);
    }
    if let Some(kept) = settings.blocks_kept {
        prune(&transaction, kept.max(1), PRUNE_MAX + batch.len() as u64)?;
    }
    let tip = transaction.open_table(HEADERS)?.last()?.map(|(number, _)| number.value());
    transaction.commit()?;
    Ok((tip, results))
}

fn add(transaction: &WriteTransaction, block: &IndexedBlock) -> Result<Result<(), AppendError>, redb::Error> {
    let number = block.header.number;
    let mut headers = transaction.open_table(HEADERS)?;
    let tip = headers.last()?.map(|(number, _)| number.value());
    if let Some(row) = headers.get(number)? {
        let kept: Option<IndexedHeader> = decode(row.value());
        return Ok(match kept {
            Some(kept) if kept.hash == block.header.hash => Ok(()),
            kept => Err(AppendError::Conflict {
                number,
                kept: kept.map(|kept| kept.hash).unwrap_or_default(),
                given: block.header.hash,
            }),
        });
    }
    if let Some(tip) = tip {
        // What is older than everything kept was pruned.
        if number < tip {
            return Ok(Ok(()));
        }
        if number != tip + 1 {
            return Ok(Err(AppendError::Gap { number, tip }));
        }
    }
    headers.insert(number, encode(&block.header).as_slice())?;
    transaction.open_table(BLOCK_NUMBERS)?.insert(&block.header.hash.0, number)?;
    transaction.open_table(CERTIFICATES)?.insert(number, &block.certificate[..])?;
    let mut transactions = transaction.open_table(TRANSACTIONS)?;
    let mut receipts = transaction.open_table(RECEIPTS)?;
    let mut places = transaction.open_table(TRANSACTION_PLACES)?;
    // Sorted, so that neighbours are written together.
    let mut prefixes: Vec<(u64, u32)> = Vec::with_capacity(block.transactions.len());
    for (index, (body, receipt)) in (0..).zip(&block.transactions) {
        transactions.insert((number, index), encode(body).as_slice())?;
        receipts.insert((number, index), encode(receipt).as_slice())?;
        prefixes.push((prefix(&body.hash()), index));
    }
    prefixes.sort_unstable();
    for (prefix, index) in prefixes {
        places.insert((prefix, number, index), ())?;
    }
    let terms: BTreeSet<u64> = block.logs().flat_map(terms::of).collect();
    let mut postings = transaction.open_table(POSTINGS)?;
    for term in terms {
        postings.insert((term, number), ())?;
    }
    Ok(Ok(()))
}

/// Removes the oldest blocks beyond `kept`, at most `count_max` of them.
fn prune(transaction: &WriteTransaction, kept: u64, count_max: u64) -> Result<(), redb::Error> {
    let mut headers = transaction.open_table(HEADERS)?;
    let mut numbers = transaction.open_table(BLOCK_NUMBERS)?;
    let mut certificates = transaction.open_table(CERTIFICATES)?;
    let mut transactions = transaction.open_table(TRANSACTIONS)?;
    let mut receipts = transaction.open_table(RECEIPTS)?;
    let mut places = transaction.open_table(TRANSACTION_PLACES)?;
    let mut postings = transaction.open_table(POSTINGS)?;
    let Some(tip) = headers.last()?.map(|(number, _)| number.value()) else { return Ok(()) };
    for _ in 0..count_max {
        let Some(number) = headers.first()?.map(|(number, _)| number.value()) else { break };
        if tip - number < kept {
            break;
        }
        if let Some((_, row)) = headers.pop_first()?
            && let Some(header) = decode::<IndexedHeader>(row.value())
        {
            numbers.remove(&header.hash.0)?;
        }
        certificates.remove(number)?;
        let block = (number, 0)..=(number, u32::MAX);
        for row in transactions.extract_from_if(block.clone(), |_, _| true)? {
            let (key, row) = row?;
            if let Some(body) = decode::<IndexedTransaction>(row.value()) {
                places.remove((prefix(&body.hash()), number, key.value().1))?;
            }
        }
        let mut terms = BTreeSet::new();
        for row in receipts.extract_from_if(block, |_, _| true)? {
            if let Some(receipt) = decode::<IndexedReceipt>(row?.1.value()) {
                terms.extend(receipt.logs.iter().flat_map(terms::of));
            }
        }
        for term in terms {
            postings.remove((term, number))?;
        }
    }
    Ok(())
}

/// The first eight bytes of a hash.
fn prefix(hash: &B256) -> u64 {
    hash.iter().take(8).fold(0, |prefix, byte| prefix << 8 | u64::from(*byte))
}

/// An error in words for whoever runs the validator: the cause, without our paths.
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
mod tests;
