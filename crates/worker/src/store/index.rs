//! The index: which names the store knows, and where their bytes lie.
//!
//! In:     entries to add, change, drop.
//! Out:    the entries there are.
//! Touches: `index.json` and `.lock` in the store's folder.
//! Holds:  the file on disk is always one whole index, old or new, never half of one; of two processes that
//!         change it, neither loses the other's change.
//! Absent: the models' files themselves.

use std::{
    fs::{self, File},
    io::{Read, Write},
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};
use surety_types::{Digest, ModelId};

use super::{StoreError, io_error};

/// An index of this many bytes holds tens of thousands of models; a larger one was not written by us.
const INDEX_BYTES_MAX: u64 = 16 << 20;
const VERSION: u32 = 1;

/// Where a model's bytes lie.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", deny_unknown_fields)]
pub enum Place {
    /// In the store's folder, at this path below it: ours to delete.
    Store(PathBuf),
    /// A person's own file, by its absolute path: never ours to delete.
    File(PathBuf),
}

/// What tells that a file is still the one that was hashed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Stamp {
    /// Size in bytes.
    pub bytes: u64,
    /// Time of its last change, in nanoseconds since 1970.
    pub modified_ns: u64,
}

/// One line of the index.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Record {
    /// The name it goes by here.
    pub name: String,
    /// Where its bytes lie.
    pub place: Place,
    /// The file as it was when it was hashed.
    pub stamp: Stamp,
    /// BLAKE3 of the whole file.
    pub blake3: Digest,
    /// Its model id, once it has been loaded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<ModelId>,
    /// Where it was downloaded from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// Whether no collection deletes its file.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub pinned: bool,
    /// When it was last served or loaded, in seconds since 1970, to within an hour.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub used_s: Option<u64>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct IndexFile {
    version: u32,
    models: Vec<Record>,
}

/// Reads the index; an absent one is empty. Needs no lock, since it is only ever replaced whole.
pub fn read(folder: &Path) -> Result<Vec<Record>, StoreError> {
    let path = folder.join("index.json");
    let file = match File::open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(io_error("open", &path)(error)),
    };
    let mut bytes = Vec::new();
    file.take(INDEX_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(io_error("read", &path))?;
    if bytes.len() as u64 > INDEX_BYTES_MAX {
        return Err(StoreError::IndexVersion { path });
    }
    let index: IndexFile =
        serde_json::from_slice(&bytes).map_err(|source| StoreError::Index { path: path.clone(), source })?;
    if index.version != VERSION {
        return Err(StoreError::IndexVersion { path });
    }
    Ok(index.models)
}

/// Changes the index while no other process does.
///
/// The change is given all records and may alter them; its result is returned once the new index is on disk.
/// When it fails, nothing is written.
pub fn change<T>(
    folder: &Path,
    change: impl FnOnce(&mut Vec<Record>) -> Result<T, StoreError>,
) -> Result<T, StoreError> {
    fs::create_dir_all(folder).map_err(io_error("create", folder))?;
    let lock_path = folder.join(".lock");
    let lock =
        File::options().create(true).append(true).open(&lock_path).map_err(io_error("open", &lock_path))?;
    lock.lock().map_err(io_error("lock", &lock_path))?;
    let before = read(folder)?;
    let mut records = before.clone();
    let result = change(&mut records)?;
    if records != before {
        records.sort_by(|a, b| a.name.cmp(&b.name));
        write(folder, records)?;
    }
    Ok(result)
}

fn write(folder: &Path, models: Vec<Record>) -> Result<(), StoreError> {
    let path = folder.join("index.json");
    let mut bytes = serde_json::to_vec_pretty(&IndexFile { version: VERSION, models })
        .expect("records are plain data with UTF-8 paths");
    bytes.push(b'\n');
    let mut file = tempfile::Builder::new()
        .prefix(".index-")
        .tempfile_in(folder)
        .map_err(io_error("write into", folder))?;
    file.write_all(&bytes).map_err(io_error("write", file.path()))?;
    file.as_file().sync_all().map_err(io_error("write", file.path()))?;
    file.persist(&path).map_err(|error| io_error("replace", &path)(error.error))?;
    sync_folder(folder);
    Ok(())
}

/// Makes a rename within this folder last through a loss of power, where the system can.
pub fn sync_folder(folder: &Path) {
    if let Ok(folder) = File::open(folder) {
        // Some file systems refuse this; the rename is atomic all the same.
        let _ = folder.sync_all();
    }
}
