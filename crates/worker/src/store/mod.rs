//! The model store: names for model files, on this machine.
//!
//! In:     files of the operator's own, by reference; files of a hub, by download; files pulled by their digest.
//! Out:    entries: name, file, size, BLAKE3, and the model id once it is known.
//! Touches: `models/` in the data directory; a hub, only when asked to add from it.
//! Holds:  an entry's BLAKE3 is that of the bytes at its path now (a file that changed is hashed again);
//!         nothing half-written is ever entered; a person's own file is never deleted, and what is pinned only after it
//!         was unpinned.
//! Absent: reading what is inside a model file. That is the engine's.

mod collect;
mod hash;
pub mod hub;
mod index;
mod reference;

use std::{
    fs,
    io::ErrorKind,
    path::{Path, PathBuf},
    time::{SystemTime, UNIX_EPOCH},
};

use surety_types::{Digest, ModelId};
use thiserror::Error;

pub use self::collect::{Held, Sweep, Swept, Why};
use self::hub::{Hub, HubError};
use self::index::{Place, Record, Stamp};
pub use self::reference::{HubReference, Reference, ReferenceError, is_name};
use crate::progress::Report;

/// A use is noted again after so many seconds.
const USE_NOTED_S: u64 = 3600;

/// The store of one data directory.
#[derive(Clone, Debug)]
pub struct Store {
    folder: PathBuf,
}

/// A model the store knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The name it goes by here.
    pub name: String,
    /// The absolute path of its file.
    pub path: PathBuf,
    /// Whether the file is the store's own (a download), to be deleted with the entry.
    pub owned: bool,
    /// Size in bytes.
    pub bytes: u64,
    /// BLAKE3 of the whole file.
    pub blake3: Digest,
    /// Its model id, once it has been loaded.
    pub model: Option<ModelId>,
    /// Where it was downloaded from.
    pub source: Option<String>,
    /// Whether no collection deletes its file.
    pub pinned: bool,
    /// When it was last served or loaded, in seconds since 1970, to within an hour.
    pub used_s: Option<u64>,
}

/// What went wrong with the store.
#[derive(Debug, Error)]
pub enum StoreError {
    /// The system refused something.
    #[error("cannot {attempt} {}", path.display())]
    Io {
        /// What was attempted.
        attempt: &'static str,
        /// On what.
        path: PathBuf,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// The index is not one.
    #[error("the model index {} is damaged", path.display())]
    Index {
        /// The index.
        path: PathBuf,
        /// Where.
        #[source]
        source: serde_json::Error,
    },
    /// The index was written by another version.
    #[error("the model index {} was not written by this version of surety", path.display())]
    IndexVersion {
        /// The index.
        path: PathBuf,
    },
    /// A folder, a device, a socket.
    #[error("{} is not a file", path.display())]
    NotAFile {
        /// What was given.
        path: PathBuf,
    },
    /// The file does not begin as a GGUF file does.
    #[error("{} is not a GGUF model file", path.display())]
    NotGguf {
        /// What was given.
        path: PathBuf,
    },
    /// The file's path cannot be written into the index.
    #[error("{} has a path that is not UTF-8", path.display())]
    Path {
        /// What was given.
        path: PathBuf,
    },
    /// The file was written to while it was read.
    #[error("{} changed while it was being read", path.display())]
    Changing {
        /// What was given.
        path: PathBuf,
    },
    /// The file of an entry is gone.
    #[error("the file of model {name}, {}, is gone", path.display())]
    Missing {
        /// The entry.
        name: String,
        /// Where it was.
        path: PathBuf,
    },
    /// No such model.
    #[error("no model here is called {asked}")]
    Unknown {
        /// What was asked for.
        asked: String,
        /// The most similar name there is.
        nearest: Option<String>,
        /// Whether the store holds no model at all.
        empty: bool,
    },
    /// The name exists, but its model id is another.
    #[error("{name} is {found}, not blake3:{pin}…")]
    Pinned {
        /// The name.
        name: String,
        /// What was asked for.
        pin: String,
        /// What it is.
        found: String,
    },
    /// Several models fit.
    #[error("blake3:{digits} fits several models: {}", names.join(", "))]
    Ambiguous {
        /// What was asked for.
        digits: String,
        /// What fits.
        names: Vec<String>,
    },
    /// The name is in use.
    #[error("{name} already names another model, {}", path.display())]
    NameTaken {
        /// The name.
        name: String,
        /// The file it names.
        path: PathBuf,
    },
    /// It is pinned.
    #[error("{name} is pinned")]
    IsPinned {
        /// The name.
        name: String,
    },
    /// The reference makes no sense.
    #[error(transparent)]
    Reference(#[from] ReferenceError),
    /// The hub, or the way to it.
    #[error(transparent)]
    Hub(#[from] HubError),
}

impl StoreError {
    /// What the person can do about it, if anything.
    pub fn hint(&self) -> Option<String> {
        Some(match self {
            Self::Io { source, path, .. } => return io_hint(source, path),
            Self::Index { path, .. } => {
                format!("move {} away and add the models again; their files are untouched", path.display())
            }
            Self::IndexVersion { .. } => "use the version that wrote it, or another --data-dir".into(),
            Self::NotAFile { .. } => "give the path of one .gguf file".into(),
            Self::NotGguf { .. } => {
                "Surety reads GGUF files (their first four bytes are `GGUF`); safetensors and others must be converted first"
                    .into()
            }
            Self::Path { .. } => "move the file to a path of UTF-8 letters".into(),
            Self::Changing { .. } => "wait until it is written completely, then try again".into(),
            Self::Missing { name, .. } => {
                format!("put the file back, or forget the name with `surety model remove {name}`")
            }
            Self::Unknown { nearest: Some(nearest), .. } => format!("did you mean {nearest}?"),
            Self::Unknown { empty: true, .. } => {
                "the store is empty; add a model with `surety model add file.gguf` or `surety model add hf:owner/repo`".into()
            }
            Self::Unknown { .. } => "`surety model list` shows the names there are".into(),
            Self::Pinned { .. } => {
                "the file behind the name is not the model that was pinned; `surety model list` shows what is here".into()
            }
            Self::Ambiguous { .. } => "give more digits".into(),
            Self::NameTaken { name, .. } => {
                format!("choose another with --name, or remove the old one with `surety model remove {name}`")
            }
            Self::IsPinned { name } => format!("unpin it first: `surety model unpin {name}`"),
            Self::Reference(error) => error.hint().into(),
            Self::Hub(error) => return error.hint(),
        })
    }
}

impl Store {
    /// The store in this data directory. Nothing is created before something is added.
    pub fn new(data_dir: &Path) -> Self {
        Self { folder: data_dir.join("models") }
    }

    /// Every model here, by name.
    pub fn list(&self) -> Result<Vec<Entry>, StoreError> {
        Ok(index::read(&self.folder)?.iter().map(|record| self.entry(record)).collect())
    }

    /// Enters a file by reference: it is hashed, and stays where it is.
    ///
    /// Without a name it gets its file's name in lower case, with a number if that is taken. A file that is
    /// here already, unchanged and under a fitting name, is not read again.
    pub fn add_file(
        &self,
        path: &Path,
        name: Option<&str>,
        report: &mut Report<'_>,
    ) -> Result<Entry, StoreError> {
        check_name(name)?;
        let path = absolute(path)?;
        if let Some(entry) = self.known(&Place::File(path.clone()), hash::stamp(&path)?, name)? {
            return Ok(entry);
        }
        let (blake3, stamp) = hash::hash_model(&path, report)?;
        self.enter(name, Place::File(path), stamp, blake3, None)
    }

    /// Downloads a file from a hub and enters it.
    ///
    /// An interrupted download is taken up where it stopped, by whoever asks for the same file next. A file
    /// that is here already is not downloaded again.
    pub async fn add_hub(
        &self,
        hub: &Hub,
        reference: &HubReference,
        name: Option<&str>,
        report: &mut Report<'_>,
    ) -> Result<Entry, StoreError> {
        check_name(name)?;
        let file = hub.choose(reference).await?;
        let place = Place::Store(file.place());
        let path = self.path(&place);
        if path.exists()
            && let Some(entry) = self.known(&place, hash::stamp(&path)?, name)?
        {
            return Ok(entry);
        }
        let blake3 = hub.download(&file, &self.folder.join("downloads"), &path, report).await?;
        let stamp = hash::stamp(&path)?;
        self.enter(name, place, stamp, blake3, Some(file.to_string()))
    }

    /// Where a transfer keeps what has come so far.
    pub fn downloads(&self) -> PathBuf {
        self.folder.join("downloads")
    }

    /// Where a file belongs that was pulled by its digest.
    pub fn pulled(&self, blake3: Digest) -> PathBuf {
        self.folder.join(pulled_place(blake3))
    }

    /// Enters the file at [`Store::pulled`], whose bytes were checked against the digest as they came.
    ///
    /// Without a name it keeps the one it has, or gets what it is called made into one.
    pub fn enter_pulled(
        &self,
        blake3: Digest,
        name: Option<&str>,
        called: &str,
    ) -> Result<Entry, StoreError> {
        check_name(name)?;
        let place = Place::Store(pulled_place(blake3));
        let stamp = hash::stamp(&self.path(&place))?;
        let name = match name {
            Some(name) => name.to_owned(),
            None => {
                let records = index::read(&self.folder)?;
                let known = records.iter().find(|record| record.place == place);
                known.map_or_else(
                    || free_name(&records, &default_name(Some(called))),
                    |known| known.name.clone(),
                )
            }
        };
        self.enter(Some(&name), place, stamp, blake3, Some(format!("blake3:{blake3}")))
    }

    /// The model a reference means.
    ///
    /// A file given by its path is entered by reference, so that its digest is computed once and a receipt's
    /// model can be found again; where the store cannot be written, it is used all the same. A reference to a
    /// hub means what was downloaded from there earlier: this function reaches no network.
    pub fn resolve(&self, reference: &Reference, report: &mut Report<'_>) -> Result<Entry, StoreError> {
        if let Reference::Path(path) = reference {
            return self.resolve_path(path, report);
        }
        let records = index::read(&self.folder)?;
        let record = match reference {
            Reference::Path(_) => unreachable!("answered above"),
            Reference::Name { name, .. } => records.iter().find(|record| &record.name == name),
            Reference::Id(digits) => one_by_id(&records, digits)?,
            Reference::Hub(hub) => {
                let exact = hub.to_string();
                let folder = format!("{exact}/");
                records.iter().find(|record| {
                    let source = record.source.as_deref().unwrap_or_default();
                    source == exact || (hub.file().is_none() && source.starts_with(&folder))
                })
            }
        };
        let Some(record) = record else {
            let asked = reference.to_string();
            let nearest = nearest(&asked, records.iter().map(|record| record.name.as_str()));
            return Err(StoreError::Unknown { asked, nearest, empty: records.is_empty() });
        };
        let entry = self.fresh(record, report)?;
        match reference {
            Reference::Name { name, pin: Some(pin) } if !fits(&entry.model, &entry.blake3, pin) => {
                let found =
                    entry.model.map_or(format!("a file with blake3:{}", entry.blake3), |id| id.to_string());
                Err(StoreError::Pinned { name: name.clone(), pin: pin.clone(), found })
            }
            _ => Ok(entry),
        }
    }

    /// Notes the model id of every entry with this file digest. Does nothing where the store cannot be written.
    pub fn note_model(&self, blake3: Digest, model: ModelId) {
        let known = |record: &Record| record.blake3 != blake3 || record.model == Some(model);
        if index::read(&self.folder).is_ok_and(|records| records.iter().all(known)) {
            return;
        }
        let noted = index::change(&self.folder, |records| {
            for record in records.iter_mut().filter(|record| record.blake3 == blake3) {
                record.model = Some(model);
            }
            Ok(())
        });
        if let Err(error) = noted {
            tracing::debug!(%model, %error, "the model's id was not noted in the store");
        }
    }

    /// Forgets a name. The file is deleted only if the store downloaded it and no other name means it.
    ///
    /// Returns the entry and whether its file was deleted.
    pub fn remove(&self, reference: &Reference) -> Result<(Entry, bool), StoreError> {
        let (record, last) = index::change(&self.folder, |records| {
            let at = position(records, reference)?;
            if records[at].pinned {
                return Err(StoreError::IsPinned { name: records[at].name.clone() });
            }
            let record = records.remove(at);
            let last = !records.iter().any(|other| other.place == record.place);
            Ok((record, last))
        })?;
        let entry = self.entry(&record);
        let delete = entry.owned && last;
        if delete {
            match fs::remove_file(&entry.path) {
                Err(error) if error.kind() != ErrorKind::NotFound => {
                    return Err(io_error("delete", &entry.path)(error));
                }
                _ => {}
            }
            self.remove_empty_folders(&entry.path);
        }
        Ok((entry, delete))
    }

    /// Pins a model's file, or unpins it: no collection deletes a file that any of its names pins.
    pub fn set_pinned(&self, reference: &Reference, pinned: bool) -> Result<Entry, StoreError> {
        let record = index::change(&self.folder, |records| {
            let at = position(records, reference)?;
            let place = records[at].place.clone();
            for record in records.iter_mut().filter(|record| record.place == place) {
                record.pinned = pinned;
            }
            Ok(records[at].clone())
        })?;
        Ok(self.entry(&record))
    }

    /// Notes that a file is used now. Does nothing where the store cannot be written.
    pub fn note_use(&self, blake3: Digest, now: SystemTime) {
        let now_s = now.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let due = |record: &Record| {
            record.blake3 == blake3 && record.used_s.is_none_or(|used_s| used_s + USE_NOTED_S <= now_s)
        };
        if !index::read(&self.folder).is_ok_and(|records| records.iter().any(due)) {
            return;
        }
        let noted = index::change(&self.folder, |records| {
            for record in records.iter_mut().filter(|record| record.blake3 == blake3) {
                record.used_s = Some(now_s);
            }
            Ok(())
        });
        if let Err(error) = noted {
            tracing::debug!(%error, "the use of a model was not noted in the store");
        }
    }

    /// The folders a file lay in, up to the store's, as far as they are empty.
    fn remove_empty_folders(&self, path: &Path) {
        for folder in path.ancestors().skip(1).take_while(|folder| *folder != self.folder) {
            if fs::remove_dir(folder).is_err() {
                break;
            }
        }
    }

    fn resolve_path(&self, path: &Path, report: &mut Report<'_>) -> Result<Entry, StoreError> {
        let path = absolute(path)?;
        // What is wrong with the index, if anything, is judged when the entry is made.
        if let Ok(Some(entry)) = self.known(&Place::File(path.clone()), hash::stamp(&path)?, None) {
            return Ok(entry);
        }
        let (blake3, stamp) = hash::hash_model(&path, report)?;
        let place = Place::File(path);
        self.enter(None, place.clone(), stamp, blake3, None).or_else(|error| match error {
            StoreError::Io { .. } => {
                tracing::warn!(%error, "the model is used without being entered into the store");
                let name = default_name(self.path(&place).file_name().and_then(|name| name.to_str()));
                let record = Record {
                    name,
                    place,
                    stamp,
                    blake3,
                    model: None,
                    source: None,
                    pinned: false,
                    used_s: None,
                };
                Ok(self.entry(&record))
            }
            error => Err(error),
        })
    }

    /// The entry for this place, if its file is unchanged and the name is right or none was asked for.
    fn known(&self, place: &Place, stamp: Stamp, name: Option<&str>) -> Result<Option<Entry>, StoreError> {
        let records = index::read(&self.folder)?;
        let known = records.iter().find(|record| {
            &record.place == place && record.stamp == stamp && name.is_none_or(|name| record.name == name)
        });
        Ok(known.map(|record| self.entry(record)))
    }

    fn enter(
        &self,
        name: Option<&str>,
        place: Place,
        stamp: Stamp,
        blake3: Digest,
        source: Option<String>,
    ) -> Result<Entry, StoreError> {
        let record = index::change(&self.folder, |records| {
            let name = match name {
                Some(name) => name.to_owned(),
                None => match records.iter().find(|record| record.place == place) {
                    Some(record) => record.name.clone(),
                    None => free_name(
                        records,
                        &default_name(self.path(&place).file_name().and_then(|n| n.to_str())),
                    ),
                },
            };
            let at = records.iter().position(|record| record.name == name);
            if let Some(at) = at
                && records[at].place != place
            {
                return Err(StoreError::NameTaken { name, path: self.path(&records[at].place) });
            }
            let model = records.iter().find(|record| record.blake3 == blake3).and_then(|record| record.model);
            let pinned = records.iter().any(|record| record.place == place && record.pinned);
            let used_s = at.and_then(|at| records[at].used_s);
            let record = Record { name, place, stamp, blake3, model, source, pinned, used_s };
            match at {
                Some(at) => records[at] = record.clone(),
                None => records.push(record.clone()),
            }
            Ok(record)
        })?;
        Ok(self.entry(&record))
    }

    /// The entry of a record whose file may have changed since: then it is hashed again.
    fn fresh(&self, record: &Record, report: &mut Report<'_>) -> Result<Entry, StoreError> {
        let path = self.path(&record.place);
        let stamp = match hash::stamp(&path) {
            Ok(stamp) => stamp,
            Err(StoreError::Io { source, .. }) if source.kind() == ErrorKind::NotFound => {
                return Err(StoreError::Missing { name: record.name.clone(), path });
            }
            Err(error) => return Err(error),
        };
        if stamp == record.stamp {
            return Ok(self.entry(record));
        }
        let (blake3, stamp) = hash::hash_model(&path, report)?;
        if blake3 != record.blake3 {
            tracing::warn!(name = %record.name, path = %path.display(), "the file changed since it was added: it is another model now");
        }
        let model = record.model.filter(|_| blake3 == record.blake3);
        let renewed = Record { stamp, blake3, model, ..record.clone() };
        let noted = index::change(&self.folder, |records| {
            for other in records.iter_mut().filter(|other| **other == *record) {
                *other = renewed.clone();
            }
            Ok(())
        });
        if let Err(error) = noted {
            tracing::warn!(%error, "the model's new digest was not noted in the store");
        }
        Ok(self.entry(&renewed))
    }

    fn entry(&self, record: &Record) -> Entry {
        Entry {
            name: record.name.clone(),
            path: self.path(&record.place),
            owned: matches!(record.place, Place::Store(_)),
            bytes: record.stamp.bytes,
            blake3: record.blake3,
            model: record.model,
            source: record.source.clone(),
            pinned: record.pinned,
            used_s: record.used_s,
        }
    }

    fn path(&self, place: &Place) -> PathBuf {
        match place {
            Place::Store(below) => self.folder.join(below),
            Place::File(path) => path.clone(),
        }
    }
}

/// What went wrong with a file, ready to be passed to `map_err`.
fn io_error<'a>(attempt: &'static str, path: &'a Path) -> impl FnOnce(std::io::Error) -> StoreError + 'a {
    move |source| StoreError::Io { attempt, path: path.to_owned(), source }
}

/// What a person can do about a refusal of the system.
pub fn io_hint(error: &std::io::Error, path: &Path) -> Option<String> {
    Some(match error.kind() {
        ErrorKind::NotFound => "check the path".into(),
        ErrorKind::PermissionDenied => {
            format!("give yourself the right to {}, or choose another --data-dir", path.display())
        }
        ErrorKind::ReadOnlyFilesystem => "the file system is read-only; choose another --data-dir".into(),
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => {
            "the disk is full; free some space (`surety model remove` frees downloads), or choose a --data-dir elsewhere"
                .into()
        }
        _ => return None,
    })
}

/// The name most like what was asked for, if any is like it at all.
pub fn nearest<'a>(asked: &str, names: impl Iterator<Item = &'a str>) -> Option<String> {
    let asked = asked.to_ascii_lowercase();
    let near = names.map(|name| {
        let lower = name.to_ascii_lowercase();
        let inside = !asked.is_empty() && lower.contains(&asked);
        (if inside { 0 } else { edits(&asked, &lower) }, name)
    });
    let (distance, name) = near.min()?;
    (distance <= asked.len().max(4) / 2).then(|| name.to_owned())
}

/// Levenshtein's distance in bytes.
fn edits(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.bytes().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.bytes().enumerate() {
            let replaced = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

/// Below the store's folder, in a folder of its own, which goes with it.
fn pulled_place(blake3: Digest) -> PathBuf {
    Path::new("pulled").join(blake3.to_string()).join("model.gguf")
}

fn check_name(name: Option<&str>) -> Result<(), ReferenceError> {
    match name {
        Some(name) if !is_name(name) => Err(ReferenceError::Name(name.to_owned())),
        _ => Ok(()),
    }
}

fn absolute(path: &Path) -> Result<PathBuf, StoreError> {
    let absolute = fs::canonicalize(path).map_err(io_error("open", path))?;
    if absolute.to_str().is_none() {
        return Err(StoreError::Path { path: absolute });
    }
    Ok(absolute)
}

/// A file's name as a model's name: lower case, without `.gguf`, other characters as `-`.
fn default_name(file: Option<&str>) -> String {
    let file = file.unwrap_or_default().to_ascii_lowercase();
    let stem = file.strip_suffix(".gguf").unwrap_or(&file);
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    let name: String = stem.chars().map(|c| if allowed(c) { c } else { '-' }).take(80).collect();
    let name = name.trim_start_matches(|c: char| !c.is_ascii_alphanumeric());
    if name.is_empty() { "model".into() } else { name.into() }
}

fn free_name(records: &[Record], name: &str) -> String {
    let taken = |name: &str| records.iter().any(|record| record.name == name);
    if !taken(name) {
        return name.to_owned();
    }
    let numbered = (2..).map(|number| format!("{name}-{number}"));
    numbered.into_iter().find(|name| !taken(name)).expect("there are more numbers than records")
}

/// The record a reference means, as it stands in the index.
fn position(records: &[Record], reference: &Reference) -> Result<usize, StoreError> {
    let name = match reference {
        Reference::Name { name, .. } => Some(name.clone()),
        Reference::Id(digits) => one_by_id(records, digits)?.map(|record| record.name.clone()),
        Reference::Hub(hub) => {
            let source = hub.to_string();
            let found = records.iter().find(|record| record.source.as_ref() == Some(&source));
            found.map(|record| record.name.clone())
        }
        Reference::Path(path) => {
            let place = Place::File(absolute(path)?);
            records.iter().find(|record| record.place == place).map(|record| record.name.clone())
        }
    };
    let at = name.and_then(|name| records.iter().position(|record| record.name == name));
    let Some(at) = at else {
        let asked = reference.to_string();
        let nearest = nearest(&asked, records.iter().map(|record| record.name.as_str()));
        return Err(StoreError::Unknown { asked, nearest, empty: records.is_empty() });
    };
    if let Reference::Name { name, pin: Some(pin) } = reference
        && !fits(&records[at].model, &records[at].blake3, pin)
    {
        let found = records[at].model.map_or_else(|| "not known yet".into(), |id| id.to_string());
        return Err(StoreError::Pinned { name: name.clone(), pin: pin.clone(), found });
    }
    Ok(at)
}

fn fits(model: &Option<ModelId>, blake3: &Digest, pin: &str) -> bool {
    model.is_some_and(|model| hex(&model).starts_with(pin)) || blake3.to_string().starts_with(pin)
}

fn hex(model: &ModelId) -> String {
    model.to_string().trim_start_matches("blake3:").to_owned()
}

/// The one model whose id, or else file digest, begins with these digits. Several names of one file are one.
fn one_by_id<'a>(records: &'a [Record], digits: &str) -> Result<Option<&'a Record>, StoreError> {
    let by_model: Vec<&Record> = records
        .iter()
        .filter(|record| record.model.is_some_and(|model| hex(&model).starts_with(digits)))
        .collect();
    let found = if by_model.is_empty() {
        records.iter().filter(|record| record.blake3.to_string().starts_with(digits)).collect()
    } else {
        by_model
    };
    match found.first() {
        Some(first) if found.iter().any(|other| other.blake3 != first.blake3) => Err(StoreError::Ambiguous {
            digits: digits.to_owned(),
            names: found.iter().map(|record| record.name.clone()).collect(),
        }),
        first => Ok(first.copied()),
    }
}

#[cfg(test)]
mod tests;
