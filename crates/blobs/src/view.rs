//! The view: files read by digest where they lie, each piece checked when it is read.
//!
//! In:     digests; the paths at which a shelf says such files lie, or their bytes if they are part of the program.
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

    /// The bytes of a file of this digest that is part of the program, if there is one.
    fn bytes(&self, _digest: Digest) -> Option<&'static [u8]> {
        None
    }
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
    Good { place: Place, tree: Arc<Tree> },
}

/// Where a file's bytes are.
#[derive(Clone, Debug)]
enum Place {
    File { path: PathBuf, stamp: Stamp },
    Program(&'static [u8]),
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
        let (place, tree) = self.find(digest, &mut |_, _| {})?;
        if index >= tree.shape().pieces() {
            return Err(ReadError::NoSuchPart { digest });
        }
        place.piece(&tree, index)
    }

    /// A chunk of a file with its path.
    pub fn slice(&self, digest: Digest, chunk: u64) -> Result<Slice, ReadError> {
        let (place, tree) = self.find(digest, &mut |_, _| {})?;
        if chunk >= tree.shape().chunks() {
            return Err(ReadError::NoSuchPart { digest });
        }
        let piece = place.piece(&tree, piece_of(chunk))?;
        Ok(tree.open(chunk, &piece))
    }

    /// Some chunks of a file, in increasing order, each piece being read once. `pass` is given nothing for a chunk that
    /// cannot be opened, and says whether to go on.
    pub fn slices(
        &self,
        digest: Digest,
        chunks: &[u64],
        mut pass: impl FnMut(u64, Option<Slice>) -> bool,
    ) -> Result<(), ReadError> {
        let (place, tree) = self.find(digest, &mut |_, _| {})?;
        for together in chunks.chunk_by(|a, b| piece_of(*a) == piece_of(*b)) {
            let Some(last) = together.last().filter(|last| **last < tree.shape().chunks()) else {
                return Err(ReadError::NoSuchPart { digest });
            };
            let piece = place.piece(&tree, piece_of(*last));
            for &chunk in together {
                let slice = piece.as_ref().ok().map(|piece| tree.open(chunk, piece));
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
    ) -> Result<(Place, Arc<Tree>), ReadError> {
        let bytes = self.shelf.bytes(digest);
        let mut paths = if bytes.is_some() { Vec::new() } else { self.shelf.paths(digest) };
        if bytes.is_none() && paths.is_empty() {
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
        if let Some(bytes) = bytes {
            return program(&known, digest, bytes, report);
        }
        // One good file is enough.
        if let State::Good { place: Place::File { path: good, .. }, .. } = &lock(&known).state {
            paths.sort_by_key(|path| path != good);
        }
        let mut failed = None;
        for path in paths {
            match self.known_at(&known, digest, &path, report) {
                Ok(found) => return Ok(found),
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
    ) -> Result<(Place, Arc<Tree>), ReadError> {
        let failed = |source: io::Error| failure(digest, path, source);
        let now = stamp(path).map_err(failed)?;
        let shape =
            Shape::new(now.bytes).map_err(|source| ReadError::Size { path: path.to_owned(), source })?;
        let place = Place::File { path: path.to_owned(), stamp: now };
        // One reads a file; nobody waits for it with the lock, or for the lock.
        let mut reading = {
            let mut known_now = lock(known);
            match &known_now.state {
                State::Good { place: Place::File { path: at, stamp }, tree }
                    if at == path && *stamp == now =>
                {
                    return Ok((place, tree.clone()));
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
                let tree = File::open(path).and_then(|file| compute(file, shape, report)).map_err(failed)?;
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
        reading.found = State::Good { place: place.clone(), tree: tree.clone() };
        Ok((place, tree))
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

impl Place {
    /// A piece as it is now, if it is still the digest's.
    fn piece(&self, tree: &Tree, index: u32) -> Result<Vec<u8>, ReadError> {
        let digest = tree.root();
        let (offset, bytes) = (tree.shape().piece_offset(index), tree.shape().piece_bytes(index));
        let path = match self {
            Place::Program(file) => return Ok(file[offset as usize..][..bytes].to_vec()),
            Place::File { path, .. } => path,
        };
        let mut data = vec![0; bytes];
        let read = File::open(path).and_then(|mut file| {
            file.seek(SeekFrom::Start(offset))?;
            file.read_exact(&mut data)
        });
        match read {
            Ok(()) if tree.vouches_for(index, &data) => Ok(data),
            Ok(()) => Err(ReadError::Changed { path: path.to_owned(), digest }),
            Err(error) => Err(failure(digest, path, error)),
        }
    }
}

/// A file that is part of the program: its tree is made once for each time the program runs.
fn program(
    known: &Mutex<Known>,
    digest: Digest,
    bytes: &'static [u8],
    report: &mut dyn FnMut(u64, u64),
) -> Result<(Place, Arc<Tree>), ReadError> {
    let place = Place::Program(bytes);
    if let State::Good { place: Place::Program(_), tree } = &lock(known).state {
        return Ok((place, tree.clone()));
    }
    let tree = Shape::new(bytes.len() as u64).ok().and_then(|shape| compute(bytes, shape, report).ok());
    let Some(tree) = tree.filter(|tree| tree.root() == digest).map(Arc::new) else {
        return Err(ReadError::Absent { digest });
    };
    lock(known).state = State::Good { place: place.clone(), tree: tree.clone() };
    Ok((place, tree))
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
fn compute(mut file: impl Read, shape: Shape, report: &mut dyn FnMut(u64, u64)) -> io::Result<Tree> {
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
            seen.push((chunk, slice.is_some()));
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

    /// A shelf of one file that is part of the program.
    struct Bundle(&'static [u8]);

    impl Shelf for Bundle {
        fn paths(&self, _digest: Digest) -> Vec<PathBuf> {
            Vec::new()
        }

        fn bytes(&self, digest: Digest) -> Option<&'static [u8]> {
            (digest.0[0] != 0).then_some(self.0)
        }
    }

    #[test]
    fn a_file_of_the_program_is_given_out_without_a_disk() {
        let data: &'static [u8] = bytes((1 << 20) + 77).leak();
        let digest = Digest(*blake3::hash(data).as_bytes());
        let folder = tempfile::tempdir().unwrap();
        let cache = folder.path().join("cache");
        let view = View::new(Bundle(data), cache.clone());
        assert_eq!(read_all(&view, digest).unwrap(), 2);
        assert_eq!(read_all(&view, digest).unwrap(), 0, "once");
        assert_eq!(view.piece(digest, 1).unwrap(), data[1 << 20..]);
        let tree = view.tree(digest, &mut |_, _| {}).unwrap();
        assert_eq!(view.slice(digest, 1024).unwrap().check(digest, tree.shape()), Ok(()));
        // A shelf that is wrong about it, and one that has none.
        assert!(matches!(view.piece(Digest([1; 32]), 0), Err(ReadError::Absent { .. })));
        assert!(matches!(view.piece(Digest([0; 32]), 0), Err(ReadError::Absent { .. })));
        assert!(!cache.exists());
    }
}
