//! Store: files and batches, on the disk.
//!
//! In:     files and batches, each a tenant's; what came of each of their requests. Out: the same, after any restart.
//! Touches: `batches.redb` and the folder `files` of the data directory.
//! Holds:  what a method returned from is on the disk; a request's outcome and the counts of its batch change together,
//!         and an outcome is written once. What is another tenant's is missing to whoever asks in a tenant's name.
//! Absent: answering (`run`), HTTP (`files`, `batches`). Every method blocks.

use std::{
    collections::HashSet,
    fs::{self, File, OpenOptions},
    io::{self, Write},
    path::{Path, PathBuf},
};

use redb::{Database, ReadableDatabase, ReadableTable, ReadableTableMetadata, TableDefinition};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use utoipa::ToSchema;

use super::id::{BatchId, FileId};
use crate::keys::Owned;

/// Bytes of one file.
pub(crate) const FILE_BYTES_MAX: usize = 64 << 20;
/// Files that callers may keep, and their bytes.
const FILES_MAX: u64 = 1_000;
const FILES_BYTES_MAX: u64 = 2 << 30;
/// Batches that are kept, ended ones included; the oldest of those go first.
const BATCHES_MAX: u64 = 1_000;
/// Memory for redb's pages.
const CACHE_BYTES: usize = 8 << 20;

/// File id → whose it is and what is known of it, JSON.
const FILES: TableDefinition<'_, u128, &[u8]> = TableDefinition::new("files");
/// Batch id → whose it is and how it stands, JSON.
const BATCHES: TableDefinition<'_, u128, &[u8]> = TableDefinition::new("batches");
/// Batch id, line → whether it failed, and its line of output.
const OUTCOMES: TableDefinition<'_, (u128, u64), (bool, &str)> = TableDefinition::new("outcomes");

/// Why the store could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenBatchesError {
    /// Another process has it open.
    #[error("{} is in use by another gateway", path.display())]
    InUse {
        /// The file.
        path: PathBuf,
    },
    /// The database cannot be opened, read or written.
    #[error("cannot open {}", path.display())]
    Database {
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: Box<redb::Error>,
    },
    /// The folder cannot be made.
    #[error("cannot make {}", path.display())]
    Folder {
        /// The folder.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
}

impl OpenBatchesError {
    /// What to do about it.
    pub fn hint(&self) -> &'static str {
        match self {
            OpenBatchesError::InUse { .. } => "stop the other gateway, or name another data directory",
            OpenBatchesError::Database { .. } => {
                "check that the data directory is writable and has room; if the file is damaged, move it away"
            }
            OpenBatchesError::Folder { .. } => "check the path and its permissions",
        }
    }
}

/// Why something could not be kept or found.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StoreError {
    #[error("the store of batches failed")]
    Database(#[source] Box<redb::Error>),
    #[error("a file of a batch cannot be read or written")]
    Io(#[from] io::Error),
    #[error("an entry of the store cannot be read")]
    Entry(#[from] serde_json::Error),
    #[error("there is no such entry")]
    Missing,
    #[error("{0}")]
    Full(String),
    #[error("batch {0} reads it")]
    InUse(BatchId),
}

macro_rules! from_database {
    ($($error:ty),*) => {$(
        impl From<$error> for StoreError {
            fn from(error: $error) -> Self {
                StoreError::Database(Box::new(error.into()))
            }
        }
    )*};
}

from_database!(redb::StorageError, redb::TableError, redb::TransactionError, redb::CommitError);

/// A file, as callers see it.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub(crate) struct FileObject {
    /// `file-…`.
    pub(crate) id: String,
    /// `file`.
    pub(crate) object: String,
    /// Its size.
    pub(crate) bytes: u64,
    /// Unix seconds.
    pub(crate) created_at: u64,
    /// What its sender calls it.
    pub(crate) filename: String,
    /// `batch`, or `batch_output`.
    pub(crate) purpose: String,
    /// `processed`.
    pub(crate) status: String,
}

/// How far a batch is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Status {
    Failed,
    InProgress,
    Completed,
    Expired,
    Cancelling,
    Cancelled,
}

impl Status {
    pub(crate) fn is_open(self) -> bool {
        matches!(self, Status::InProgress | Status::Cancelling)
    }
}

/// What is wrong with a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub(crate) struct Problem {
    /// A stable name.
    pub(crate) code: String,
    /// Which line, from 1.
    pub(crate) line: Option<u64>,
    /// What to do about it.
    pub(crate) message: String,
    /// The member at fault.
    pub(crate) param: Option<String>,
}

/// What is wrong with a batch's file.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub(crate) struct Problems {
    /// `list`.
    pub(crate) object: String,
    /// The first hundred.
    pub(crate) data: Vec<Problem>,
}

/// How many requests a batch has.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub(crate) struct Counts {
    /// In its file.
    pub(crate) total: u64,
    /// Answered.
    pub(crate) completed: u64,
    /// That were not, and will not be.
    pub(crate) failed: u64,
}

/// A batch, as callers see it.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub(crate) struct Batch {
    /// `batch_…`.
    pub(crate) id: String,
    /// `batch`.
    pub(crate) object: String,
    /// The path that its requests go to.
    pub(crate) endpoint: String,
    /// Why it failed, if its file was at fault.
    pub(crate) errors: Option<Problems>,
    /// The file with its requests.
    pub(crate) input_file_id: String,
    /// `24h`.
    pub(crate) completion_window: String,
    /// How far it is.
    pub(crate) status: Status,
    /// The file with the answers, once it has ended.
    pub(crate) output_file_id: Option<String>,
    /// The file with the requests that failed, once it has ended, if any did.
    pub(crate) error_file_id: Option<String>,
    /// Unix seconds, like all of the following.
    pub(crate) created_at: u64,
    pub(crate) in_progress_at: Option<u64>,
    pub(crate) expires_at: u64,
    pub(crate) finalizing_at: Option<u64>,
    pub(crate) completed_at: Option<u64>,
    pub(crate) failed_at: Option<u64>,
    pub(crate) expired_at: Option<u64>,
    pub(crate) cancelling_at: Option<u64>,
    pub(crate) cancelled_at: Option<u64>,
    /// Its requests.
    pub(crate) request_counts: Counts,
    /// As it was sent.
    pub(crate) metadata: Option<std::collections::BTreeMap<String, String>>,
}

fn read<T: DeserializeOwned>(bytes: &[u8]) -> Result<Owned<T>, StoreError> {
    Ok(serde_json::from_slice(bytes)?)
}

fn written<T: Serialize>(tenant: u64, thing: T) -> Result<Vec<u8>, StoreError> {
    Ok(serde_json::to_vec(&Owned::by(tenant, thing))?)
}

/// Files and batches.
#[derive(Debug)]
pub(crate) struct Store {
    database: Database,
    folder: PathBuf,
}

/// A file on its way in; removed again unless it is kept.
#[derive(Debug)]
pub(crate) struct Incoming {
    path: PathBuf,
    file: File,
    bytes: u64,
}

impl Drop for Incoming {
    fn drop(&mut self) {
        // Kept, it has another name.
        let _ = fs::remove_file(&self.path);
    }
}

impl Incoming {
    pub(crate) fn write(&mut self, piece: &[u8]) -> io::Result<()> {
        self.bytes += piece.len() as u64;
        self.file.write_all(piece)
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }
}

impl Store {
    /// Opens what is in `data_dir`, or makes it.
    pub(crate) fn open(data_dir: &Path) -> Result<Store, OpenBatchesError> {
        let folder = data_dir.join("files");
        fs::create_dir_all(&folder)
            .map_err(|source| OpenBatchesError::Folder { path: folder.clone(), source })?;
        let path = data_dir.join("batches.redb");
        let open = || -> Result<Database, redb::Error> {
            let database = Database::builder().set_cache_size(CACHE_BYTES).create_file(private(&path)?)?;
            let transaction = database.begin_write()?;
            transaction.open_table(FILES)?;
            transaction.open_table(BATCHES)?;
            transaction.open_table(OUTCOMES)?;
            transaction.commit()?;
            Ok(database)
        };
        let database = open().map_err(|error| match error {
            redb::Error::DatabaseAlreadyOpen => OpenBatchesError::InUse { path: path.clone() },
            source => OpenBatchesError::Database { path: path.clone(), source: Box::new(source) },
        })?;
        Ok(Store { database, folder })
    }

    fn path(&self, id: FileId) -> PathBuf {
        self.folder.join(id.to_string())
    }

    /// Begins a file.
    pub(crate) fn incoming(&self, id: FileId) -> io::Result<Incoming> {
        let path = self.folder.join(format!("{id}.part"));
        let file = private(&path)?;
        file.set_len(0)?;
        Ok(Incoming { path, file, bytes: 0 })
    }

    /// Keeps a file that has come whole. `bounded`: it counts among those that callers may keep.
    pub(crate) fn keep(
        &self,
        tenant: u64,
        id: FileId,
        incoming: Incoming,
        object: &FileObject,
        bounded: bool,
    ) -> Result<(), StoreError> {
        if bounded {
            let files: Vec<_> = self.owned_files()?.into_iter().map(Owned::apart).collect();
            let bytes: u64 = files.iter().map(|(_, file)| file.bytes).sum();
            if files.len() as u64 >= FILES_MAX || bytes + object.bytes > FILES_BYTES_MAX {
                let message = format!(
                    "{} files of {bytes} bytes are kept here, {} of them yours; {FILES_MAX} of {FILES_BYTES_MAX} bytes \
                     can be. Delete some.",
                    files.len(),
                    files.iter().filter(|(owner, _)| *owner == tenant).count(),
                );
                return Err(StoreError::Full(message));
            }
        }
        incoming.file.sync_all()?;
        fs::rename(&incoming.path, self.path(id))?;
        File::open(&self.folder)?.sync_all()?;
        let transaction = self.database.begin_write()?;
        transaction.open_table(FILES)?.insert(id.0, written(tenant, object)?.as_slice())?;
        transaction.commit()?;
        Ok(())
    }

    /// What is known of a tenant's file.
    pub(crate) fn file(&self, tenant: u64, id: FileId) -> Result<FileObject, StoreError> {
        let transaction = self.database.begin_read()?;
        let found = transaction.open_table(FILES)?.get(id.0)?.ok_or(StoreError::Missing)?;
        read(found.value())?.of(tenant).ok_or(StoreError::Missing)
    }

    fn owned_files(&self) -> Result<Vec<Owned<FileObject>>, StoreError> {
        let transaction = self.database.begin_read()?;
        let table = transaction.open_table(FILES)?;
        table.iter()?.map(|entry| read(entry?.1.value())).collect()
    }

    /// All files of a tenant.
    pub(crate) fn files(&self, tenant: u64) -> Result<Vec<FileObject>, StoreError> {
        Ok(self.owned_files()?.into_iter().filter_map(|file| file.of(tenant)).collect())
    }

    /// What a tenant's file holds.
    pub(crate) fn content(&self, tenant: u64, id: FileId) -> Result<Vec<u8>, StoreError> {
        self.file(tenant, id)?;
        Ok(fs::read(self.path(id))?)
    }

    /// Forgets a tenant's file that no open batch reads.
    pub(crate) fn delete(&self, tenant: u64, id: FileId) -> Result<(), StoreError> {
        self.file(tenant, id)?;
        let name = id.to_string();
        let mut open = self.batches(tenant)?.into_iter().filter(|batch| batch.status.is_open());
        let reader = open.find(|batch| batch.input_file_id == name);
        if let Some(id) = reader.and_then(|batch| BatchId::parse(&batch.id)) {
            return Err(StoreError::InUse(id));
        }
        let transaction = self.database.begin_write()?;
        transaction.open_table(FILES)?.remove(id.0)?.ok_or(StoreError::Missing)?;
        transaction.commit()?;
        // What is left of it nobody finds, and the next file of that name replaces it.
        let _ = fs::remove_file(self.path(id));
        Ok(())
    }

    /// Keeps a new batch of a tenant's; the oldest that have ended make room, its own first.
    pub(crate) fn add(&self, tenant: u64, id: BatchId, batch: &Batch) -> Result<(), StoreError> {
        let transaction = self.database.begin_write()?;
        {
            let mut table = transaction.open_table(BATCHES)?;
            if table.len()? >= BATCHES_MAX {
                let mut oldest: Option<(bool, u64, u128)> = None;
                for entry in table.iter()? {
                    let (id, bytes) = entry?;
                    let (theirs, kept) = read::<Batch>(bytes.value())?.apart();
                    let age = (theirs != tenant, kept.created_at, id.value());
                    if !kept.status.is_open() && oldest.is_none_or(|oldest| age < oldest) {
                        oldest = Some(age);
                    }
                }
                let Some((_, _, id)) = oldest else {
                    let message = format!("{BATCHES_MAX} batches are under way, which is all that can be.");
                    return Err(StoreError::Full(message));
                };
                table.remove(id)?;
            }
            table.insert(id.0, written(tenant, batch)?.as_slice())?;
        }
        transaction.commit()?;
        Ok(())
    }

    /// How a tenant's batch stands.
    pub(crate) fn batch(&self, tenant: u64, id: BatchId) -> Result<Batch, StoreError> {
        let transaction = self.database.begin_read()?;
        let found = transaction.open_table(BATCHES)?.get(id.0)?.ok_or(StoreError::Missing)?;
        read(found.value())?.of(tenant).ok_or(StoreError::Missing)
    }

    fn owned_batches(&self) -> Result<Vec<Owned<Batch>>, StoreError> {
        let transaction = self.database.begin_read()?;
        let table = transaction.open_table(BATCHES)?;
        table.iter()?.map(|entry| read(entry?.1.value())).collect()
    }

    /// All batches of a tenant.
    pub(crate) fn batches(&self, tenant: u64) -> Result<Vec<Batch>, StoreError> {
        Ok(self.owned_batches()?.into_iter().filter_map(|batch| batch.of(tenant)).collect())
    }

    /// The batches of all tenants that have not ended, and whose they are.
    pub(crate) fn open_batches(&self) -> Result<Vec<(u64, Batch)>, StoreError> {
        let batches = self.owned_batches()?.into_iter().map(Owned::apart);
        Ok(batches.filter(|(_, batch)| batch.status.is_open()).collect())
    }

    /// Changes a tenant's batch; what it is then.
    pub(crate) fn change(
        &self,
        tenant: u64,
        id: BatchId,
        change: impl FnOnce(&mut Batch),
    ) -> Result<Batch, StoreError> {
        self.batch(tenant, id)?;
        let transaction = self.database.begin_write()?;
        let batch = changed(&transaction, id, change)?;
        transaction.commit()?;
        Ok(batch)
    }

    /// Keeps what came of a request, once.
    pub(crate) fn outcome(
        &self,
        id: BatchId,
        line: u64,
        failed: bool,
        output: &str,
    ) -> Result<(), StoreError> {
        let transaction = self.database.begin_write()?;
        {
            let mut table = transaction.open_table(OUTCOMES)?;
            if table.get((id.0, line))?.is_some() {
                return Ok(());
            }
            table.insert((id.0, line), (failed, output))?;
        }
        changed(&transaction, id, |batch| {
            let counts = &mut batch.request_counts;
            *(if failed { &mut counts.failed } else { &mut counts.completed }) += 1;
        })?;
        transaction.commit()?;
        Ok(())
    }

    /// The lines whose requests have an outcome.
    pub(crate) fn done(&self, id: BatchId) -> Result<HashSet<u64>, StoreError> {
        let transaction = self.database.begin_read()?;
        let table = transaction.open_table(OUTCOMES)?;
        table.range((id.0, 0)..=(id.0, u64::MAX))?.map(|entry| Ok(entry?.0.value().1)).collect()
    }

    /// Writes the outcomes of one kind, in the order of their lines, into a file of the tenant's; none if there are
    /// none.
    pub(crate) fn write_outcomes(
        &self,
        tenant: u64,
        id: BatchId,
        failed: bool,
        object: impl FnOnce(FileId, u64) -> FileObject,
    ) -> Result<Option<FileId>, StoreError> {
        let file = id.output(failed);
        let mut incoming = self.incoming(file)?;
        let transaction = self.database.begin_read()?;
        let table = transaction.open_table(OUTCOMES)?;
        for entry in table.range((id.0, 0)..=(id.0, u64::MAX))? {
            let (_, value) = entry?;
            let (kind, output) = value.value();
            if kind == failed {
                incoming.write(output.as_bytes())?;
                incoming.write(b"\n")?;
            }
        }
        if incoming.bytes() == 0 {
            return Ok(None);
        }
        let object = object(file, incoming.bytes());
        self.keep(tenant, file, incoming, &object, false)?;
        Ok(Some(file))
    }

    /// The last change of a batch: its outcomes are in files.
    pub(crate) fn end(&self, id: BatchId, change: impl FnOnce(&mut Batch)) -> Result<(), StoreError> {
        let transaction = self.database.begin_write()?;
        transaction.open_table(OUTCOMES)?.retain_in((id.0, 0)..=(id.0, u64::MAX), |_, _| false)?;
        changed(&transaction, id, change)?;
        transaction.commit()?;
        Ok(())
    }
}

fn changed(
    transaction: &redb::WriteTransaction,
    id: BatchId,
    change: impl FnOnce(&mut Batch),
) -> Result<Batch, StoreError> {
    let mut table = transaction.open_table(BATCHES)?;
    let (tenant, mut batch) = read(table.get(id.0)?.ok_or(StoreError::Missing)?.value())?.apart();
    change(&mut batch);
    table.insert(id.0, written(tenant, &batch)?.as_slice())?;
    Ok(batch)
}

/// Opens or makes a file for its owner only: prompts and answers are in it.
fn private(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false);
    #[cfg(unix)]
    {
        use std::os::unix::fs::OpenOptionsExt;
        options.mode(0o600);
    }
    options.open(path)
}
