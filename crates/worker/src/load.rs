//! Loading: from a model's file to a model ready to compute, by way of the packed image.
//!
//! In:     a model's bytes and their BLAKE3; the cache folder.
//! Out:    the loaded model.
//! Touches: `cache/` in the data directory.
//! Holds:  an image that is stale, truncated or damaged is noticed (the engine checks its digest) and built again;
//!         an image appears under its name only whole; processes that want the same image build it once and share
//!         its memory; a cache that cannot be written costs memory, never an answer.
//! Absent: what is inside an image. That is the engine's.

use std::{
    fs::{self, File},
    io::{self, BufWriter, Write},
    path::{Path, PathBuf},
    sync::Arc,
};

use surety_engine::{
    Bytes, LoadError, Model,
    image::{IMAGE_VERSION, image_bytes, write_image},
};
use surety_kernels::{Executor, OutOfMemory, Region};
use surety_types::Digest;
use thiserror::Error;

use crate::{
    map,
    progress::{Progress, Report, Step},
    store::io_hint,
};

/// A model's bytes, and what they must hash to.
#[derive(Clone, Debug)]
pub struct ModelFile {
    /// Where the bytes are.
    pub place: ModelPlace,
    /// Their BLAKE3.
    pub blake3: Digest,
}

/// Where a model's bytes are.
#[derive(Clone)]
pub enum ModelPlace {
    /// In a file, to be mapped.
    File(PathBuf),
    /// In the program itself.
    Program(&'static [u8]),
}

impl ModelFile {
    /// Its bytes, mapped.
    ///
    /// # Errors
    /// `OpenError::File` if it cannot be mapped.
    pub fn open(&self) -> Result<Bytes, OpenError> {
        match &self.place {
            ModelPlace::File(path) => {
                map::map(path).map_err(|source| OpenError::File { path: path.clone(), source })
            }
            ModelPlace::Program(bytes) => Ok(Arc::new(*bytes)),
        }
    }
}

impl std::fmt::Debug for ModelPlace {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::File(path) => path.fmt(f),
            Self::Program(bytes) => write!(f, "{} bytes of the program", bytes.len()),
        }
    }
}

/// Why a model could not be loaded.
#[derive(Debug, Error)]
pub enum OpenError {
    /// Its file cannot be mapped.
    #[error("cannot open the model file {}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// There is not enough memory for its image.
    #[error("cannot set memory aside for the model's weights")]
    Memory(#[from] OutOfMemory),
    /// The engine refuses it.
    #[error("cannot load the model")]
    Load(#[from] LoadError),
}

impl OpenError {
    /// What the person can do about it, if anything.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::File { path, source } => io_hint(source, path),
            Self::Memory(_) => Some("use a smaller model, or free memory".into()),
            Self::Load(LoadError::Gguf(_)) => {
                Some("the file is damaged or incomplete; download it again".into())
            }
            Self::Load(LoadError::Architecture(_) | LoadError::Type { .. }) => {
                Some("Surety runs Llama, Qwen2 and Qwen3 models in Q8_0, Q4_0, Q4_K, Q6_K (so Q4_K_M), F16, BF16 and F32".into())
            }
            Self::Load(_) => None,
        }
    }
}

/// How models are loaded.
pub struct Loader<'a> {
    /// The folder for packed weights; without one they stay in memory.
    pub cache: Option<&'a Path>,
    /// Positions of a sequence, at most; the model's own number if not given.
    pub context_tokens: Option<u32>,
    /// What packs the weights.
    pub executor: &'a Executor,
}

/// Deletes the cached images of a model file.
pub fn forget(cache: &Path, blake3: Digest) -> io::Result<()> {
    match fs::remove_file(image_path(cache, blake3)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

impl Loader<'_> {
    /// Loads a model; its image comes from the cache, goes to the cache, or stays in memory.
    pub fn load(&self, file: &ModelFile, report: &mut Report<'_>) -> Result<Model, OpenError> {
        if let Some(folder) = self.cache {
            let path = image_path(folder, file.blake3);
            if let Some(model) = self.load_cached(file, &path)? {
                return Ok(model);
            }
            match self.build_in_cache(file, folder, &path, report) {
                Ok(model) => return Ok(model),
                Err(BuildError::Cache(error)) => {
                    let folder = folder.display();
                    tracing::warn!(%folder, %error, "the packed weights are kept in memory and packed anew at each start, since the cache cannot be written");
                }
                Err(BuildError::Open(error)) => return Err(error),
            }
        }
        self.build_in_memory(file, report)
    }

    /// The model with the cached image, if there is one that is good.
    fn load_cached(&self, file: &ModelFile, path: &Path) -> Result<Option<Model>, OpenError> {
        let Ok(image) = map::map(path) else { return Ok(None) };
        match self.assemble(file, image) {
            Ok(model) => Ok(Some(model)),
            Err(OpenError::Load(LoadError::Image { reason })) => {
                tracing::warn!(image = %path.display(), reason, "the cached image of the weights is not used");
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    fn build_in_cache(
        &self,
        file: &ModelFile,
        folder: &Path,
        path: &Path,
        report: &mut Report<'_>,
    ) -> Result<Model, BuildError> {
        fs::create_dir_all(folder)?;
        let lock = File::options().create(true).append(true).open(folder.join(".lock"))?;
        lock.lock()?;
        // Another process may have built it while this one waited.
        if let Some(model) = self.load_cached(file, path)? {
            return Ok(model);
        }
        let part = path.with_extension("part");
        let written = self.write_part(file, &part, report);
        if written.is_err() {
            // A half-written image would only take up room.
            let _ = fs::remove_file(&part);
        }
        written?;
        fs::rename(&part, path)?;
        Ok(self.assemble(file, map::map(path)?)?)
    }

    fn write_part(&self, file: &ModelFile, part: &Path, report: &mut Report<'_>) -> Result<(), BuildError> {
        let source = file.open()?;
        let mut out = BufWriter::with_capacity(1 << 20, File::create(part)?);
        self.pack((*source).as_ref(), file.blake3, &mut out, report).map_err(|error| match error {
            LoadError::WriteImage(error) => BuildError::Cache(error),
            error => BuildError::Open(error.into()),
        })?;
        out.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()?;
        Ok(())
    }

    fn build_in_memory(&self, file: &ModelFile, report: &mut Report<'_>) -> Result<Model, OpenError> {
        let source = file.open()?;
        let bytes = usize::try_from(image_bytes((*source).as_ref())?).map_err(|_| LoadError::TooLarge)?;
        let mut image = Region::zeroed(bytes)?;
        self.pack((*source).as_ref(), file.blake3, &mut &mut image[..], report)?;
        drop(source);
        self.assemble(file, Arc::new(InMemory(image)))
    }

    fn pack(
        &self,
        source: &[u8],
        blake3: Digest,
        out: &mut dyn Write,
        report: &mut Report<'_>,
    ) -> Result<(), LoadError> {
        write_image(source, blake3, self.executor, out, &mut |done, total| {
            report(Progress { step: Step::Packing, done, total });
        })
    }

    /// The model. Its file is mapped anew, so that pages that packing read do not stay in this process's memory.
    fn assemble(&self, file: &ModelFile, image: Bytes) -> Result<Model, OpenError> {
        Ok(Model::load(file.open()?, file.blake3, image, self.context_tokens)?)
    }
}

fn image_path(folder: &Path, blake3: Digest) -> PathBuf {
    folder.join(format!("{blake3}-{IMAGE_VERSION}.tiles"))
}

/// Why an image could not be built in the cache.
enum BuildError {
    /// The cache is at fault; memory will do.
    Cache(io::Error),
    /// The model is.
    Open(OpenError),
}

impl From<io::Error> for BuildError {
    fn from(error: io::Error) -> Self {
        Self::Cache(error)
    }
}

impl From<OpenError> for BuildError {
    fn from(error: OpenError) -> Self {
        Self::Open(error)
    }
}

/// An image that has no file.
struct InMemory(Region);

impl AsRef<[u8]> for InMemory {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}
