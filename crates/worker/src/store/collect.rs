//! Collection: makes room in the store, and says of each file why it goes or stays.
//!
//! In:     a limit, if there is one; the time; which files the program has by itself.
//! Out:    every file that was judged, with the reason.
//! Touches: `models/` and `cache/` in the data directory.
//! Holds:  what is pinned, held by a running process or a person's own is never deleted; a name is forgotten before its
//!         file is deleted, so that a crash leaves at most a file without a name, which the next collection finds; what
//!         was deleted by mistake could only be had again, never be wrong.
//! Absent: when to collect. Somebody asks.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    fs::{self, File, TryLockError},
    io::ErrorKind,
    path::{Path, PathBuf},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use surety_types::Digest;

use super::{
    Store, StoreError,
    index::{self, Place, Record},
    io_error,
};

/// What nobody has written to for so long has been given up.
const STALE_AFTER: Duration = Duration::from_secs(24 * 3600);
/// Files looked at in one collection.
const FILES_MAX: usize = 65_536;
/// Folders below the store's, down to its files.
const DEPTH_MAX: usize = 8;
/// What transfers leave in `downloads`.
const TRANSFERS: [&str; 3] = ["part", "pull", "check"];

/// What is to be done.
#[derive(Clone, Copy, Debug)]
pub struct Sweep<'a> {
    /// The store's own files may take so many bytes; without this no model goes.
    pub keep_bytes: Option<u64>,
    /// Decide, and delete nothing.
    pub dry_run: bool,
    /// Now.
    pub now: SystemTime,
    /// The folder of packed weights and trees.
    pub cache: &'a Path,
    /// Files of the program itself, whose packed weights stay.
    pub bundled: &'a [Digest],
}

/// A file that was judged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Swept {
    /// Which.
    pub path: PathBuf,
    /// Its size.
    pub bytes: u64,
    /// The names that mean it.
    pub names: Vec<String>,
    /// Whether it goes.
    pub goes: bool,
    /// Why it goes or stays.
    pub why: Why,
}

/// Why a file goes or stays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// Goes: a transfer that nobody went on with.
    Stale(Duration),
    /// Goes: no name means it.
    Nameless,
    /// Goes: it was made from a model that is not here any more, and can be made again.
    Derived,
    /// Goes: it was used longest ago, of what is too much.
    Oldest(Duration),
    /// Stays: it is pinned.
    Pinned,
    /// Stays: a process works with it.
    Held,
    /// Stays: it came lately; whoever wants the rest goes on from there.
    Recent,
    /// Stays: there is room.
    Room,
    /// Stays: the system does not let it go.
    Refused,
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let days = |age: &Duration| match age.as_secs() / 86_400 {
            0 => "today".to_owned(),
            1 => "a day ago".to_owned(),
            days => format!("{days} days ago"),
        };
        match self {
            Why::Stale(age) => write!(f, "a transfer that broke off {}", days(age)),
            Why::Nameless => f.write_str("no name means it"),
            Why::Derived => f.write_str("made from a model that is not here any more"),
            Why::Oldest(age) => write!(f, "last used {}, longer ago than what stays", days(age)),
            Why::Pinned => f.write_str("pinned"),
            Why::Held => f.write_str("a running process serves, fetches or reads it"),
            Why::Recent => f.write_str("it came within the last day"),
            Why::Room => f.write_str("there is room"),
            Why::Refused => f.write_str("the system does not let it go"),
        }
    }
}

/// A file that somebody works with: no collection deletes it while this lives, or after a crash of who held it.
#[derive(Debug)]
pub struct Held {
    _file: File,
}

impl Store {
    /// Holds a file, so that no collection deletes it. Waits while one is about to.
    pub fn hold(&self, path: &Path) -> Result<Held, StoreError> {
        let file = File::open(path).map_err(io_error("open", path))?;
        match file.lock_shared() {
            // Where files cannot be locked, a collection cannot lock them either, and leaves them alone.
            Ok(()) => {}
            Err(error) if error.kind() == ErrorKind::Unsupported => {}
            Err(error) => return Err(io_error("lock", path)(error)),
        }
        // A collection may have been faster.
        fs::metadata(path).map_err(io_error("open", path))?;
        Ok(Held { _file: file })
    }

    /// Judges every file of the store's own, and deletes what goes.
    pub fn collect(&self, sweep: &Sweep<'_>) -> Result<Vec<Swept>, StoreError> {
        let mut swept = Vec::new();
        let (records, kept) = (index::read(&self.folder)?, &mut swept);
        self.transfers(sweep, kept)?;
        self.nameless(&records, sweep, kept)?;
        self.models(&records, sweep, kept)?;
        // Whatever was forgotten until now takes what was made from it along.
        let goes: BTreeSet<PathBuf> =
            kept.iter().filter(|file| file.goes).map(|file| file.path.clone()).collect();
        let records = index::read(&self.folder)?;
        let left = records.iter().filter(|record| !goes.contains(&self.path(&record.place)));
        let left = left.map(|record| record.blake3).chain(sweep.bundled.iter().copied()).collect();
        derived(sweep, &left, kept)?;
        swept.sort_by(|one, two| two.goes.cmp(&one.goes).then_with(|| one.path.cmp(&two.path)));
        Ok(swept)
    }

    /// What transfers left, each with its journal.
    fn transfers(&self, sweep: &Sweep<'_>, swept: &mut Vec<Swept>) -> Result<(), StoreError> {
        let mut transfers: BTreeMap<PathBuf, Vec<Found>> = BTreeMap::new();
        for found in files_in(&self.downloads())? {
            let extension = found.path.extension().and_then(|extension| extension.to_str());
            if extension.is_some_and(|extension| TRANSFERS.contains(&extension)) {
                transfers.entry(found.path.with_extension("")).or_default().push(found);
            }
        }
        for files in transfers.into_values() {
            let age = files.iter().map(|found| found.age(sweep.now)).min().unwrap_or_default();
            let locks: Option<Vec<File>> = files.iter().map(|found| lock(&found.path)).collect();
            let (goes, why) = match locks {
                None => (false, Why::Held),
                Some(_) if age < STALE_AFTER => (false, Why::Recent),
                Some(_) => (true, Why::Stale(age)),
            };
            // The locks last until all of its files are gone.
            swept.extend(files.into_iter().map(|found| delete(found, Vec::new(), goes, why, sweep)));
        }
        Ok(())
    }

    /// Files that came whole and were not entered, or were forgotten and not deleted.
    fn nameless(
        &self,
        records: &[Record],
        sweep: &Sweep<'_>,
        swept: &mut Vec<Swept>,
    ) -> Result<(), StoreError> {
        let named: BTreeSet<PathBuf> = records.iter().map(|record| self.path(&record.place)).collect();
        for top in ["pulled", "hub"] {
            for found in files_below(&self.folder.join(top))? {
                if named.contains(&found.path) {
                    continue;
                }
                let lock = lock(&found.path);
                let (goes, why) = match &lock {
                    None => (false, Why::Held),
                    Some(_) if found.age(sweep.now) < STALE_AFTER => (false, Why::Recent),
                    Some(_) => (true, Why::Nameless),
                };
                let path = found.path.clone();
                swept.push(delete(found, Vec::new(), goes, why, sweep));
                self.tidy(&path, sweep);
            }
        }
        Ok(())
    }

    /// Models that the store downloaded: those used longest ago go first, until the rest fits.
    fn models(
        &self,
        records: &[Record],
        sweep: &Sweep<'_>,
        swept: &mut Vec<Swept>,
    ) -> Result<(), StoreError> {
        let mut places: BTreeMap<PathBuf, Vec<&Record>> = BTreeMap::new();
        for record in records.iter().filter(|record| matches!(record.place, Place::Store(_))) {
            places.entry(self.path(&record.place)).or_default().push(record);
        }
        let mut models = Vec::new();
        for (path, records) in places {
            // What is gone takes no room; `model list` says that it is gone.
            let Some(found) = look(path)? else { continue };
            let used = records.iter().filter_map(|record| record.used_s).max();
            let used = used.map(|used_s| UNIX_EPOCH + Duration::from_secs(used_s));
            let idle = used.map_or_else(|| found.age(sweep.now), |used| since(used, sweep.now));
            models.push((found, records, idle));
        }
        models.sort_by_key(|(.., idle)| std::cmp::Reverse(*idle));
        let staying = swept.iter().filter(|file| !file.goes).map(|file| file.bytes);
        let mut total: u64 = staying.chain(models.iter().map(|(found, ..)| found.bytes)).sum();
        for (found, records, idle) in models {
            let names = records.iter().map(|record| record.name.clone()).collect();
            let pinned = records.iter().any(|record| record.pinned);
            let lock = lock(&found.path);
            let (goes, why) = match &lock {
                _ if pinned => (false, Why::Pinned),
                None => (false, Why::Held),
                Some(_) if sweep.keep_bytes.is_none_or(|keep| total <= keep) => (false, Why::Room),
                Some(_) if !sweep.dry_run && !self.forget(&found.path)? => (false, Why::Pinned),
                Some(_) => (true, Why::Oldest(idle)),
            };
            let path = found.path.clone();
            let file = delete(found, names, goes, why, sweep);
            if file.goes {
                total -= file.bytes;
            }
            swept.push(file);
            self.tidy(&path, sweep);
        }
        Ok(())
    }

    /// Forgets every name of a file, unless one of them has been pinned meanwhile.
    fn forget(&self, path: &Path) -> Result<bool, StoreError> {
        index::change(&self.folder, |records| {
            let means = |record: &Record| self.path(&record.place) == path;
            if records.iter().any(|record| means(record) && record.pinned) {
                return Ok(false);
            }
            records.retain(|record| !means(record));
            Ok(true)
        })
    }

    /// Deletes the folders a file lay in, up to the store's, as far as they are empty.
    fn tidy(&self, path: &Path, sweep: &Sweep<'_>) {
        if !sweep.dry_run {
            self.remove_empty_folders(path);
        }
    }
}

/// Packed weights and trees of files that are not here any more.
fn derived(sweep: &Sweep<'_>, left: &BTreeSet<Digest>, swept: &mut Vec<Swept>) -> Result<(), StoreError> {
    let of_ours = |path: &Path| {
        let name = path.file_name()?.to_str()?;
        let digits = name.get(..64)?;
        let rest = &name[64..];
        let ours = rest == ".tree" || (rest.starts_with('-') && rest.ends_with(".tiles"));
        digits.parse::<Digest>().ok().filter(|_| ours)
    };
    for folder in [sweep.cache.to_owned(), sweep.cache.join("trees")] {
        for found in files_in(&folder)? {
            if of_ours(&found.path).is_some_and(|digest| !left.contains(&digest)) {
                swept.push(delete(found, Vec::new(), true, Why::Derived, sweep));
            }
        }
    }
    Ok(())
}

/// A file that lies there.
struct Found {
    path: PathBuf,
    bytes: u64,
    modified: SystemTime,
}

impl Found {
    fn age(&self, now: SystemTime) -> Duration {
        since(self.modified, now)
    }
}

fn since(then: SystemTime, now: SystemTime) -> Duration {
    now.duration_since(then).unwrap_or_default()
}

fn look(path: PathBuf) -> Result<Option<Found>, StoreError> {
    // A link is not the store's own doing, and not followed.
    match fs::symlink_metadata(&path) {
        Ok(metadata) if metadata.is_file() => {
            let modified = metadata.modified().map_err(io_error("look at", &path))?;
            Ok(Some(Found { bytes: metadata.len(), modified, path }))
        }
        Ok(_) => Ok(None),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(io_error("look at", &path)(error)),
    }
}

/// What lies directly in a folder; nothing if it is not there.
fn entries(folder: &Path) -> Result<Vec<PathBuf>, StoreError> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(io_error("list", folder)(error)),
    };
    let paths = entries.take(FILES_MAX).map(|entry| entry.map(|entry| entry.path()));
    paths.collect::<Result<_, _>>().map_err(io_error("list", folder))
}

fn files_in(folder: &Path) -> Result<Vec<Found>, StoreError> {
    entries(folder)?.into_iter().filter_map(|path| look(path).transpose()).collect()
}

fn files_below(folder: &Path) -> Result<Vec<Found>, StoreError> {
    let (mut files, mut folders) = (Vec::new(), vec![(folder.to_owned(), 0)]);
    while let Some((folder, depth)) = folders.pop() {
        for path in entries(&folder)? {
            let is_folder = fs::symlink_metadata(&path).is_ok_and(|metadata| metadata.is_dir());
            if is_folder && depth < DEPTH_MAX {
                folders.push((path, depth + 1));
            } else if let Some(found) = look(path)? {
                files.push(found);
            }
            if files.len() + folders.len() > FILES_MAX {
                return Ok(files);
            }
        }
    }
    Ok(files)
}

/// The file, locked, if nobody works with it.
fn lock(path: &Path) -> Option<File> {
    let file = File::open(path).ok()?;
    match file.try_lock() {
        Ok(()) => Some(file),
        Err(TryLockError::WouldBlock | TryLockError::Error(_)) => None,
    }
}

fn delete(found: Found, names: Vec<String>, goes: bool, why: Why, sweep: &Sweep<'_>) -> Swept {
    let Found { path, bytes, .. } = found;
    let (goes, why) = match goes && !sweep.dry_run {
        false => (goes, why),
        true => match fs::remove_file(&path) {
            Ok(()) => (true, why),
            Err(error) if error.kind() == ErrorKind::NotFound => (true, why),
            Err(error) => {
                tracing::warn!(%error, path = %path.display(), "a file was not deleted");
                (false, Why::Refused)
            }
        },
    };
    Swept { path, bytes, names, goes, why }
}
