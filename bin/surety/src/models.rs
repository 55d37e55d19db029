//! Which models a command means, and their files.
//!
//! In:     `--model` arguments: a reference, or a name for one.
//! Out:    what a worker is to serve, and to give to others.
//! Touches: the store; a hub, for what was never downloaded.
//! Holds:  a reference means the same for every command.
//! Absent: loading.

use std::{
    fmt,
    path::{Path, PathBuf},
    str::FromStr,
    time::SystemTime,
};

use surety_blobs::{Shelf, View};
use surety_types::{Digest, ModelId};
use surety_worker::{
    load::{ModelFile, ModelPlace},
    serve::ModelSettings,
    store::{
        Entry, Held, Reference, ReferenceError, Store, StoreError,
        hub::{Hub, HubSettings},
        is_name,
    },
};

use crate::{bundled, data_dir::DataDir, output::hinted, progress::Shown};

/// `REF`, or `NAME=REF` to serve it under a name of one's own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelArg {
    /// The name of one's own.
    pub alias: Option<String>,
    /// What is meant.
    pub reference: Reference,
}

impl FromStr for ModelArg {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> anyhow::Result<Self> {
        let understood = |result: Result<Reference, ReferenceError>| {
            result.map_err(|error| anyhow::anyhow!("{error} ({})", error.hint()))
        };
        // A path may hold `=` too; what stands before it would then not be a name.
        match text.split_once('=') {
            Some((name, reference)) if is_name(name) => {
                Ok(Self { alias: Some(name.to_owned()), reference: understood(reference.parse())? })
            }
            _ => Ok(Self { alias: None, reference: understood(text.parse())? }),
        }
    }
}

impl fmt::Display for ModelArg {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.alias {
            Some(alias) => write!(f, "{alias}={}", self.reference),
            None => self.reference.fmt(f),
        }
    }
}

impl Default for ModelArg {
    fn default() -> Self {
        Self { alias: None, reference: Reference::Name { name: bundled::NAME.to_owned(), pin: None } }
    }
}

/// The models there are, the bundled one among them.
pub struct Models {
    store: Store,
}

/// A model found.
pub struct Found {
    /// What it is called.
    pub name: String,
    /// Its file.
    pub file: ModelFile,
}

impl Models {
    /// Those of this data directory.
    pub fn new(data_dir: &DataDir) -> Self {
        Self { store: Store::new(data_dir.path()) }
    }

    /// The store beneath.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// Their files by digest, for whoever asks for them; `served` are those of the models that are served.
    pub fn view(&self, data_dir: &DataDir, share: Share, served: &[Digest]) -> Option<View> {
        let only = match share {
            Share::Store => None,
            Share::Served => Some(served.to_vec()),
            Share::Nothing => return None,
        };
        Some(View::new(StoreShelf { store: self.store.clone(), only }, data_dir.cache().join("trees")))
    }

    /// Holds a file that is used from now on, so that no collection deletes it, and notes that it is used.
    pub fn hold(&self, path: &Path, blake3: Digest) -> Option<Held> {
        self.store.note_use(blake3, SystemTime::now());
        match self.store.hold(path) {
            Ok(held) => Some(held),
            Err(error) => {
                tracing::warn!(%error, path = %path.display(), "the file is used without being held");
                None
            }
        }
    }

    /// The same of a model's file, unless it is the program's.
    pub fn hold_file(&self, file: &ModelFile) -> Option<Held> {
        match &file.place {
            ModelPlace::File(path) => self.hold(path, file.blake3),
            ModelPlace::Program(_) => None,
        }
    }

    /// The model that is meant, without asking any network.
    pub fn find(&self, reference: &Reference) -> anyhow::Result<Found> {
        let mut shown = Shown::new(reference.to_string());
        match self.store.resolve(reference, &mut |progress| shown.report(progress)) {
            Ok(entry) => Ok(found(entry)),
            Err(error) => match (reference, error) {
                (Reference::Name { name, pin }, StoreError::Unknown { .. }) if name == bundled::NAME => {
                    match pin {
                        None => Ok(bundled_model()),
                        Some(_) => Err(hinted(
                            "the bundled model takes no pin",
                            format!("ask for {} alone", bundled::NAME),
                        )),
                    }
                }
                (Reference::Name { name, .. }, StoreError::Unknown { asked, nearest, empty }) => {
                    // The bundled model may be the one that was misspelt.
                    let nearest =
                        nearest.or_else(|| surety_worker::store::nearest(name, [bundled::NAME].into_iter()));
                    Err(StoreError::Unknown { asked, nearest, empty }.into())
                }
                (_, error) => Err(error.into()),
            },
        }
    }

    /// The model that is meant; what a hub has is downloaded if it never was.
    pub async fn find_or_download(&self, reference: &Reference) -> anyhow::Result<Found> {
        match (reference, self.find(reference)) {
            (Reference::Hub(hub), Err(error))
                if matches!(
                    error.downcast_ref(),
                    Some(StoreError::Unknown { .. } | StoreError::Missing { .. })
                ) =>
            {
                let mut shown = Shown::new(hub.to_string());
                let reached = Hub::new(HubSettings::from_environment()).map_err(StoreError::from)?;
                let report = &mut |progress| shown.report(progress);
                Ok(found(self.store.add_hub(&reached, hub, None, report).await?))
            }
            (_, result) => result,
        }
    }

    /// What a worker is to serve for this argument.
    pub fn settings(&self, arg: &ModelArg) -> anyhow::Result<ModelSettings> {
        let found = self.find(&arg.reference)?;
        Ok(ModelSettings { name: arg.alias.clone().unwrap_or(found.name), file: found.file })
    }

    /// Every model that is, or after loading might turn out to be, this one; the likeliest first.
    pub fn candidates(&self, id: ModelId) -> anyhow::Result<Vec<Found>> {
        let mut entries = self.store.list()?;
        entries.retain(|entry| entry.model.is_none_or(|model| model == id));
        entries.sort_by_key(|entry| entry.model.is_none());
        let (known, unknown): (Vec<Entry>, Vec<Entry>) =
            entries.into_iter().partition(|entry| entry.model.is_some());
        let known = known.into_iter().map(found);
        Ok(known.chain([bundled_model()]).chain(unknown.into_iter().map(found)).collect())
    }
}

/// Which files are given to others.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Share {
    /// All of the store's, whether served or not: whoever knows a file's BLAKE3 can have it.
    #[default]
    Store,
    /// Those of the models that are served.
    Served,
    /// None.
    Nothing,
}

/// The store's files, as they are listed now, and the bundled one.
struct StoreShelf {
    store: Store,
    /// Of these alone.
    only: Option<Vec<Digest>>,
}

impl StoreShelf {
    fn gives(&self, digest: Digest) -> bool {
        self.only.as_ref().is_none_or(|only| only.contains(&digest))
    }
}

impl Shelf for StoreShelf {
    fn paths(&self, digest: Digest) -> Vec<PathBuf> {
        if !self.gives(digest) {
            return Vec::new();
        }
        match self.store.list() {
            Ok(entries) => {
                entries.into_iter().filter(|entry| entry.blake3 == digest).map(|entry| entry.path).collect()
            }
            Err(error) => {
                tracing::warn!(%error, "the model store cannot be read");
                Vec::new()
            }
        }
    }

    fn bytes(&self, digest: Digest) -> Option<&'static [u8]> {
        match bundled::file() {
            ModelFile { place: ModelPlace::Program(bytes), blake3 }
                if blake3 == digest && self.gives(digest) =>
            {
                Some(bytes)
            }
            _ => None,
        }
    }
}

fn found(entry: Entry) -> Found {
    let file = ModelFile { place: ModelPlace::File(entry.path), blake3: entry.blake3 };
    Found { name: entry.name, file }
}

/// The bundled model.
pub fn bundled_model() -> Found {
    Found { name: bundled::NAME.to_owned(), file: bundled::file() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_shared_is_not_given() {
        let folder = tempfile::tempdir().unwrap();
        let data_dir = DataDir::at(folder.path());
        let models = Models::new(&data_dir);
        let digest = bundled::file().blake3;
        let gives = |share, served: &[Digest]| {
            let view = models.view(&data_dir, share, served);
            view.is_some_and(|view| view.tree(digest, &mut |_, _| {}).is_ok())
        };
        assert!(gives(Share::Store, &[]) && gives(Share::Served, &[digest]));
        assert!(!gives(Share::Served, &[]) && !gives(Share::Nothing, &[digest]));
    }

    #[test]
    fn names_of_ones_own_are_told_from_paths() {
        let check = |text: &str, alias: Option<&str>, reference: &str| {
            let arg: ModelArg = text.parse().unwrap();
            assert_eq!((arg.alias.as_deref(), arg.reference.to_string().as_str()), (alias, reference));
        };
        check("qwen", None, "qwen");
        check("gpt-4o=qwen", Some("gpt-4o"), "qwen");
        check("gpt-4o=hf:a/b", Some("gpt-4o"), "hf:a/b");
        check("./a=b.gguf", None, "./a=b.gguf");
        check("x=./a=b.gguf", Some("x"), "./a=b.gguf");
        assert!("x=".parse::<ModelArg>().is_err());
        assert!("a b".parse::<ModelArg>().is_err());
    }
}
