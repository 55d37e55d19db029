//! The view: files read by digest where they lie, each piece checked when it is read.
//!
//! In:     digests; the paths at which a shelf says such files lie.
//! Out:    sizes, values of pieces, pieces, opened chunks.
//! Touches: reads those files; keeps their trees in a folder of its own, 32 bytes per mebibyte.
//! Holds:  what is returned is vouched for by its digest; a file that changed or vanished is an error, whatever its
//!         size and time of change say.
//! Absent: which files there are, and copies of them.
//!
//! Everything here blocks.

use std::{
    collections::HashMap,
    fs::{self, File},
    io::{self, ErrorKind, Read, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard},
    time::UNIX_EPOCH,
};

use surety_types::Digest;
use thiserror::Error;

use crate::tree::{PIECE_BYTES, Shape, SizeError, Slice, Tree, Value};

/// A cached tree begins with this.
const MAGIC: [u8; 8] = *b"sr-tree1";
/// And continues with the file's size and time of change.
const HEADER_BYTES: usize = 24;
/// Files that were found to be something else, of one digest.
const BAD_MAX: usize = 8;
/// Files whose trees are kept in memory at once.
const OPEN_MAX: usize = 64;

/// Who knows which files there are.
pub trait Shelf: Send + Sync + 'static {
    /// The paths at which a file of this digest is said to lie. Is asked for each request, and must be quick.
    fn paths(&self, digest: Digest) -> Vec<PathBuf>;
}

/// Files by digest.
pub struct View {
    shelf: Box<dyn Shelf>,
    cache: PathBuf,
    open: Mutex<HashMap<Digest, Arc<Mutex<Known>>>>,
}

/// Why a file, or part of it, is not to be had.
#[derive(Debug, Error)]
pub enum ReadError {
    /// It is not here, or no longer.
    #[error("there is no file blake3:{digest} here")]
    Absent {
        /// What was asked for.
        digest: Digest,
    },
    /// Its bytes are others now.
    #[error("{} is not blake3:{digest} any more", path.display())]
    Changed {
        /// Where it lay.
        path: PathBuf,
        /// What it was.
        digest: Digest,
    },
    /// It is being read as a whole, for the first time or because it changed.
    #[error("{} is still being read", path.display())]
    Reading {
        /// Where it lies.
        path: PathBuf,
    },
    /// The file has no such part.
    #[error("blake3:{digest} has no such part")]
    NoSuchPart {
        /// What was asked for.
        digest: Digest,
    },
    /// Its size is none that can be transferred.
    #[error("cannot transfer {}", path.display())]
    Size {
        /// Where it lies.
        path: PathBuf,
        /// Why not.
        #[source]
        source: SizeError,
    },
    /// The system refused.
    #[error("cannot read {}", path.display())]
    Io {
        /// What was read.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
}

/// What is known of a digest.
#[derive(Default)]
struct Known {
    state: State,
    /// Files that were read and are something else; not read again until they change.
    bad: Vec<(PathBuf, Stamp)>,
}

#[derive(Default)]
enum State {
    #[default]
    Nothing,
    /// Somebody reads a file now.
    Reading,
    /// A file that was read, whole, and found to be the digest's.
    Good { path: PathBuf, stamp: Stamp, tree: Arc<Tree> },
}

/// What tells that a file was probably not written to since.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    bytes: u64,
    modified_ns: u64,
}

impl View {
    /// Of the files on this shelf; trees are kept in `cache`, which is made when the first one is.
    pub fn new(shelf: impl Shelf, cache: PathBuf) -> Self {
        View { shelf: Box::new(shelf), cache, open: Mutex::default() }
    }

    /// The tree of a file. The first time the whole file is read; `report` is told how many bytes of how many.
    pub fn tree(&self, digest: Digest, report: &mut dyn FnMut(u64, u64)) -> Result<Arc<Tree>, ReadError> {
        self.find(digest, report).map(|(_, tree)| tree)
    }

    /// A piece of a file.
    pub fn piece(&self, digest: Digest, index: u32) -> Result<Vec<u8>, ReadError> {
        let (path, tree) = self.find(digest, &mut |_, _| {})?;
        if index >= tree.shape().pieces() {
            return Err(ReadError::NoSuchPart { digest });
        }
        read_piece(&path, &tree, index)
    }

    /// A chunk of a file with its path.
    pub fn slice(&self, digest: Digest, chunk: u64) -> Result<Slice, ReadError> {
        let (path, tree) = self.find(digest, &mut |_, _| {})?;
        if chunk >= tree.shape().chunks() {
            return Err(ReadError::NoSuchPart { digest });
        }
        let piece = read_piece(&path, &tree, piece_of(chunk))?;
        Ok(tree.open(chunk, &piece))
    }

    /// Some chunks of a file, in increasing order, each piece being read once. `pass` says whether to go on.
    pub fn slices(
        &self,
        digest: Digest,
        chunks: &[u64],
        mut pass: impl FnMut(u64, Result<Slice, ReadError>) -> bool,
    ) -> Result<(), ReadError> {
        let (path, tree) = self.find(digest, &mut |_, _| {})?;
        for together in chunks.chunk_by(|a, b| piece_of(*a) == piece_of(*b)) {
            let Some(last) = together.last().filter(|last| **last < tree.shape().chunks()) else {
                return Err(ReadError::NoSuchPart { digest });
            };
            let piece = read_piece(&path, &tree, piece_of(*last));
            for &chunk in together {
                let slice = match &piece {
                    Ok(piece) => Ok(tree.open(chunk, piece)),
                    Err(_) => Err(ReadError::Changed { path: path.clone(), digest }),
                };
                if !pass(chunk, slice) {
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    fn find(
        &self,
        digest: Digest,
        report: &mut dyn FnMut(u64, u64),
    ) -> Result<(PathBuf, Arc<Tree>), ReadError> {
        let mut paths = self.shelf.paths(digest);
        if paths.is_empty() {
            lock(&self.open).remove(&digest);
            return Err(ReadError::Absent { digest });
        }
        let known = {
            let mut open = lock(&self.open);
            if open.len() >= OPEN_MAX && !open.contains_key(&digest) {
                open.clear();
            }
            open.entry(digest).or_default().clone()
        };
        // One good file is enough.
        if let State::Good { path: good, .. } = &lock(&known).state {
            paths.sort_by_key(|path| path != good);
        }
        let mut failed = None;
        for path in paths {
            match self.known_at(&known, digest, &path, report) {
                Ok(tree) => return Ok((path, tree)),
                Err(error) => failed = Some(error),
            }
        }
        Err(failed.unwrap_or(ReadError::Absent { digest }))
    }

    fn known_at(
        &self,
        known: &Mutex<Known>,
        digest: Digest,
        path: &Path,
        report: &mut dyn FnMut(u64, u64),
    ) -> Result<Arc<Tree>, ReadError> {
        let failed = |source: io::Error| failure(digest, path, source);
        let now = stamp(path).map_err(failed)?;
        let shape =
            Shape::new(now.bytes).map_err(|source| ReadError::Size { path: path.to_owned(), source })?;
        // One reads a file; nobody waits for it with the lock, or for the lock.
        let mut reading = {
            let mut known_now = lock(known);
            match &known_now.state {
                State::Good { path: at, stamp, tree } if at == path && *stamp == now => {
                    return Ok(tree.clone());
                }
                State::Reading => return Err(ReadError::Reading { path: path.to_owned() }),
                State::Good { .. } | State::Nothing => {}
            }
            if known_now.bad.iter().any(|(at, stamp)| at == path && *stamp == now) {
                return Err(ReadError::Changed { path: path.to_owned(), digest });
            }
            known_now.state = State::Reading;
            Reading { known, found: State::Nothing }
        };
        let cached = self.cache.join(format!("{digest}.tree"));
        let tree = match load(&cached, digest, shape, now) {
            Some(tree) => tree,
            None => {
                let tree = compute(path, shape, report).map_err(failed)?;
                if tree.root() != digest || stamp(path).map_err(failed)? != now {
                    let bad = &mut lock(known).bad;
                    bad.retain(|(at, _)| at != path);
                    bad.truncate(BAD_MAX - 1);
                    bad.push((path.to_owned(), now));
                    return Err(ReadError::Changed { path: path.to_owned(), digest });
                }
                if let Err(error) = save(&self.cache, &cached, &tree, now) {
                    tracing::debug!(%error, path = %cached.display(), "a tree was not kept");
                }
                tree
            }
        };
        let tree = Arc::new(tree);
        reading.found = State::Good { path: path.to_owned(), stamp: now, tree: tree.clone() };
        Ok(tree)
    }
}

/// Someone who reads a file; what was found is known when this is dropped, however that comes.
struct Reading<'a> {
    known: &'a Mutex<Known>,
    found: State,
}

impl Drop for Reading<'_> {
    fn drop(&mut self) {
        lock(self.known).state = std::mem::take(&mut self.found);
    }
}

fn piece_of(chunk: u64) -> u32 {
    u32::try_from(chunk / (PIECE_BYTES / crate::tree::CHUNK_BYTES)).unwrap_or(u32::MAX)
}

/// A piece as it lies on disk now, if it is still the digest's.
fn read_piece(path: &Path, tree: &Tree, index: u32) -> Result<Vec<u8>, ReadError> {
    let digest = tree.root();
    let mut data = vec![0; tree.shape().piece_bytes(index)];
    let read = File::open(path).and_then(|mut file| {
        file.seek(SeekFrom::Start(tree.shape().piece_offset(index)))?;
        file.read_exact(&mut data)
    });
    match read {
        Ok(()) if tree.vouches_for(index, &data) => Ok(data),
        Ok(()) => Err(ReadError::Changed { path: path.to_owned(), digest }),
        Err(error) if error.kind() == ErrorKind::UnexpectedEof => {
            Err(ReadError::Changed { path: path.to_owned(), digest })
        }
        Err(error) => Err(failure(digest, path, error)),
    }
}

fn failure(digest: Digest, path: &Path, source: io::Error) -> ReadError {
    match source.kind() {
        ErrorKind::NotFound => ReadError::Absent { digest },
        ErrorKind::UnexpectedEof => ReadError::Changed { path: path.to_owned(), digest },
        _ => ReadError::Io { path: path.to_owned(), source },
    }
}

fn stamp(path: &Path) -> io::Result<Stamp> {
    let metadata = fs::metadata(path)?;
    if !metadata.is_file() {
        return Err(ErrorKind::NotFound.into());
    }
    let modified = metadata.modified()?.duration_since(UNIX_EPOCH);
    Ok(Stamp { bytes: metadata.len(), modified_ns: modified.map_or(0, |since| since.as_nanos() as u64) })
}

/// Reads the whole file.
fn compute(path: &Path, shape: Shape, report: &mut dyn FnMut(u64, u64)) -> io::Result<Tree> {
    let mut file = File::open(path)?;
    let mut buffer = vec![0; PIECE_BYTES as usize];
    let mut values = Vec::new();
    let mut done = 0;
    for index in 0..shape.pieces() {
        let piece = &mut buffer[..shape.piece_bytes(index)];
        file.read_exact(piece)?;
        values.push(shape.piece_value(index, piece));
        done += piece.len() as u64;
        report(done, shape.bytes());
    }
    Ok(Tree::new(shape, values))
}

/// A tree kept earlier, if it is whole and of this very file. A damaged one is none.
fn load(path: &Path, digest: Digest, shape: Shape, stamp: Stamp) -> Option<Tree> {
    let mut bytes = Vec::new();
    let length = HEADER_BYTES as u64 + 32 * u64::from(shape.pieces());
    File::open(path).ok()?.take(length + 1).read_to_end(&mut bytes).ok()?;
    let values = bytes.strip_prefix(&header(stamp)[..])?;
    if bytes.len() as u64 != length {
        return None;
    }
    let values: Vec<Value> = values.as_chunks::<32>().0.to_vec();
    let tree = Tree::new(shape, values);
    (tree.root() == digest).then_some(tree)
}

fn save(folder: &Path, path: &Path, tree: &Tree, stamp: Stamp) -> io::Result<()> {
    fs::create_dir_all(folder)?;
    let mut file = tempfile::Builder::new().prefix(".tree-").tempfile_in(folder)?;
    file.write_all(&header(stamp))?;
    file.write_all(tree.values().as_flattened())?;
    file.persist(path).map(drop).map_err(|error| error.error)
}

fn header(stamp: Stamp) -> [u8; HEADER_BYTES] {
    let mut header = [0; HEADER_BYTES];
    header[..8].copy_from_slice(&MAGIC);
    header[8..16].copy_from_slice(&stamp.bytes.to_le_bytes());
    header[16..].copy_from_slice(&stamp.modified_ns.to_le_bytes());
    header
}

/// Whoever panicked left nothing half-done: every value here is replaced whole.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use super::*;

    /// A shelf of everything in a folder, under the digest in the file's name.
    struct Folder(PathBuf);

    impl Shelf for Folder {
        fn paths(&self, digest: Digest) -> Vec<PathBuf> {
            let path = self.0.join(digest.to_string());
            if path.exists() { vec![path] } else { vec![] }
        }
    }

    fn bytes(count: usize) -> Vec<u8> {
        let mut data = vec![0; count];
        blake3::Hasher::new().finalize_xof().fill(&mut data);
        data
    }

    /// A view of one file.
    fn view(data: &[u8]) -> (tempfile::TempDir, View, Digest, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let digest = Digest(*blake3::hash(data).as_bytes());
        let path = folder.path().join(digest.to_string());
        fs::write(&path, data).unwrap();
        let view = View::new(Folder(folder.path().to_owned()), folder.path().join("cache"));
        (folder, view, digest, path)
    }

    fn read_all(view: &View, digest: Digest) -> Result<u64, ReadError> {
        let mut read = 0;
        view.tree(digest, &mut |_, _| read += 1).map(|_| read)
    }

    #[test]
    fn a_file_is_read_whole_once_and_then_in_pieces() {
        let data = bytes((3 << 20) + 500);
        let (folder, view, digest, path) = view(&data);
        assert_eq!(read_all(&view, digest).unwrap(), 4);
        assert_eq!(read_all(&view, digest).unwrap(), 0);
        assert_eq!(view.piece(digest, 1).unwrap(), data[1 << 20..2 << 20]);
        assert_eq!(view.piece(digest, 3).unwrap(), data[3 << 20..]);
        assert!(matches!(view.piece(digest, 4), Err(ReadError::NoSuchPart { .. })));
        let tree = view.tree(digest, &mut |_, _| {}).unwrap();
        let chunk = tree.shape().chunks() - 1;
        assert_eq!(view.slice(digest, chunk).unwrap().check(digest, tree.shape()), Ok(()));
        assert!(matches!(view.slice(digest, chunk + 1), Err(ReadError::NoSuchPart { .. })));

        // Another process finds the tree; but not if it was spoiled.
        let again = || View::new(Folder(folder.path().to_owned()), folder.path().join("cache"));
        assert_eq!(read_all(&again(), digest).unwrap(), 0);
        let cached = folder.path().join("cache").join(format!("{digest}.tree"));
        assert_eq!(fs::metadata(&cached).unwrap().len(), 24 + 4 * 32);
        for at in [0, 9, 30, 151] {
            let mut spoiled = fs::read(&cached).unwrap();
            spoiled[at] ^= 1;
            fs::write(&cached, spoiled).unwrap();
            assert_eq!(read_all(&again(), digest).unwrap(), 4);
        }
        // A file that was only touched is read once more and is still good.
        let file = File::options().write(true).open(&path).unwrap();
        file.set_modified(SystemTime::now() + Duration::from_secs(10)).unwrap();
        assert_eq!(read_all(&view, digest).unwrap(), 4);
        assert_eq!(view.piece(digest, 0).unwrap(), data[..1 << 20]);
    }

    #[test]
    fn a_changed_file_is_refused_even_if_nothing_but_its_bytes_tells() {
        let data = bytes((2 << 20) + 1);
        let (_folder, view, digest, path) = view(&data);
        assert!(view.piece(digest, 1).is_ok());
        let modified = fs::metadata(&path).unwrap().modified().unwrap();
        let mut changed = data.clone();
        changed[(1 << 20) + 77] ^= 4;
        fs::write(&path, &changed).unwrap();
        File::options().write(true).open(&path).unwrap().set_modified(modified).unwrap();
        assert!(matches!(view.piece(digest, 1), Err(ReadError::Changed { .. })));
        assert_eq!(view.piece(digest, 0).unwrap(), data[..1 << 20], "this piece is still what it was");
        let mut seen = Vec::new();
        view.slices(digest, &[0, 5, 1024, 1030, 2048], |chunk, slice| {
            seen.push((chunk, slice.is_ok()));
            true
        })
        .unwrap();
        assert_eq!(seen, [(0, true), (5, true), (1024, false), (1030, false), (2048, true)]);

        // With a new time of change the whole file is judged, once.
        fs::write(&path, &changed).unwrap();
        let file = File::options().write(true).open(&path).unwrap();
        file.set_modified(modified + Duration::from_secs(5)).unwrap();
        let mut read = 0;
        for _ in 0..3 {
            assert!(matches!(view.tree(digest, &mut |_, _| read += 1), Err(ReadError::Changed { .. })));
        }
        assert_eq!(read, 3, "three pieces, once");
        // Shortened, then gone.
        fs::write(&path, &data[..100]).unwrap();
        assert!(matches!(view.piece(digest, 0), Err(ReadError::Changed { .. })));
        fs::write(&path, []).unwrap();
        assert!(matches!(view.piece(digest, 0), Err(ReadError::Size { .. })));
        fs::remove_file(&path).unwrap();
        assert!(matches!(view.piece(digest, 0), Err(ReadError::Absent { .. })));
        // And back.
        fs::write(&path, &data).unwrap();
        assert_eq!(view.piece(digest, 2).unwrap(), data[2 << 20..]);
    }
}
