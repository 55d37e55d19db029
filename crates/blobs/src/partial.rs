//! A file that is being pulled: the pieces that came, and a journal of which.
//!
//! In:     a proven tree; verified pieces. Out: which pieces are here; the whole file at its place.
//! Touches: `DIGEST.part` and `DIGEST.pull` in a folder of downloads; the file's final place.
//! Holds:  one process at a time; a journal entry follows the bytes it stands for; what an earlier process left is
//!         checked piece by piece before it counts; a file appears at its place only whole and on disk.
//! Absent: where pieces come from (`pull`), which are asked for (`schedule`).
//!
//! The journal is a header (magic, size, and a check of both, since the values alone do not tell the size), the values of all pieces, and the index of each piece that was written, four
//! bytes each, in the order they came. Half an entry at its end is what a crash leaves, and is cut off.

use std::{
    fs::{self, File, TryLockError},
    io::{self, ErrorKind, Read, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
};

use surety_types::Digest;
use thiserror::Error;

use crate::tree::{PIECE_BYTES, Shape, Tree, Value};

const MAGIC: [u8; 8] = *b"sr-pull1";
const HEADER_BYTES: usize = 32;

/// What went wrong on disk.
#[derive(Debug, Error)]
pub enum DiskError {
    /// The system refused something.
    #[error("cannot {attempt} {}", path.display())]
    Io {
        /// What was attempted.
        attempt: &'static str,
        /// On what.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// Another process pulls the same file.
    #[error("another process is pulling blake3:{digest} at this moment")]
    Busy {
        /// Which.
        digest: Digest,
    },
}

impl DiskError {
    /// What a person can do about it, if anything.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Busy { .. } => Some("wait for it, then ask again".into()),
            Self::Io { source, path, .. } => match source.kind() {
                ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::FileTooLarge => Some(
                    "the disk takes no more; free some space (`surety model remove` frees downloads) and ask again: \
                     what has come is kept and need not come twice"
                        .into(),
                ),
                ErrorKind::PermissionDenied => Some(format!(
                    "give yourself the right to {}, or choose another --data-dir",
                    path.display()
                )),
                ErrorKind::ReadOnlyFilesystem => {
                    Some("the file system is read-only; choose another --data-dir".into())
                }
                _ => None,
            },
        }
    }
}

/// A file that is being pulled.
#[derive(Debug)]
pub struct Partial {
    digest: Digest,
    part_path: PathBuf,
    part: File,
    journal_path: PathBuf,
    journal: File,
    known: Option<Known>,
}

#[derive(Debug)]
struct Known {
    tree: Tree,
    here: Vec<bool>,
}

impl Partial {
    /// Takes up what is there for this digest, or begins.
    pub fn open(folder: &Path, digest: Digest) -> Result<Self, DiskError> {
        fs::create_dir_all(folder).map_err(failed("create", folder))?;
        let open = |path: &Path| {
            let mut options = File::options();
            options.read(true).write(true).create(true).truncate(false);
            options.open(path).map_err(failed("write", path))
        };
        let journal_path = folder.join(format!("{digest}.pull"));
        let journal = open(&journal_path)?;
        match journal.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(DiskError::Busy { digest }),
            Err(TryLockError::Error(source)) => return Err(failed("lock", &journal_path)(source)),
        }
        let part_path = folder.join(format!("{digest}.part"));
        let part = open(&part_path)?;
        let mut partial = Partial { digest, part_path, part, journal_path, journal, known: None };
        partial.known = partial.read_journal()?;
        Ok(partial)
    }

    /// The tree, if an earlier process learned it.
    pub fn tree(&self) -> Option<&Tree> {
        self.known.as_ref().map(|known| &known.tree)
    }

    /// Which pieces are here, once the tree is known.
    pub fn here(&self) -> &[bool] {
        self.known.as_ref().map_or(&[], |known| &known.here)
    }

    /// Reads what an earlier process left and forgets what does not fit. `report` is told bytes of bytes.
    pub fn check(&mut self, report: &mut dyn FnMut(u64, u64)) -> Result<(), DiskError> {
        let Some(known) = &mut self.known else { return Ok(()) };
        let shape = known.tree.shape();
        let size = |index: usize, here: &bool| if *here { shape.piece_bytes(index as u32) as u64 } else { 0 };
        let total = known.here.iter().enumerate().map(|(index, here)| size(index, here)).sum();
        let mut buffer = vec![0; PIECE_BYTES as usize];
        let mut done = 0;
        for index in 0..shape.pieces() {
            let here = &mut known.here[index as usize];
            if !*here {
                continue;
            }
            let piece = &mut buffer[..shape.piece_bytes(index)];
            let read = self
                .part
                .seek(SeekFrom::Start(shape.piece_offset(index)))
                .and_then(|_| self.part.read_exact(piece));
            match read {
                Ok(()) => *here = known.tree.vouches_for(index, piece),
                Err(error) if error.kind() == ErrorKind::UnexpectedEof => *here = false,
                Err(error) => return Err(failed("read", &self.part_path)(error)),
            }
            done += piece.len() as u64;
            report(done, total);
        }
        Ok(())
    }

    /// Begins with a proven tree; what was there is thrown away.
    pub fn begin(&mut self, tree: Tree) -> Result<(), DiskError> {
        assert_eq!(tree.root(), self.digest, "a proven tree");
        self.part.set_len(0).map_err(failed("empty", &self.part_path))?;
        let mut bytes = Vec::with_capacity(HEADER_BYTES + 32 * tree.values().len());
        bytes.extend(header(tree.shape().bytes()));
        bytes.extend(tree.values().as_flattened());
        self.journal
            .set_len(0)
            .and_then(|()| self.journal.rewind())
            .and_then(|()| self.journal.write_all(&bytes))
            .map_err(failed("write", &self.journal_path))?;
        self.known = Some(Known { here: vec![false; tree.values().len()], tree });
        Ok(())
    }

    /// Writes a piece. Panics if the tree does not vouch for it: whoever calls this has checked.
    pub fn write(&mut self, index: u32, data: &[u8]) -> Result<(), DiskError> {
        let known = self.known.as_mut().expect("the tree is known");
        assert!(known.tree.vouches_for(index, data), "a verified piece");
        if known.here[index as usize] {
            return Ok(());
        }
        self.part
            .seek(SeekFrom::Start(known.tree.shape().piece_offset(index)))
            .and_then(|_| self.part.write_all(data))
            .map_err(failed("write", &self.part_path))?;
        self.journal.write_all(&index.to_le_bytes()).map_err(failed("write", &self.journal_path))?;
        known.here[index as usize] = true;
        Ok(())
    }

    /// Puts the file, whole and on disk, where it belongs. Panics if a piece is missing.
    pub fn finish(self, place: &Path) -> Result<(), DiskError> {
        assert!(self.known.is_some_and(|known| known.here.iter().all(|here| *here)), "every piece is here");
        self.part.sync_all().map_err(failed("write", &self.part_path))?;
        let folder = place.parent().expect("a file's place has a folder");
        fs::create_dir_all(folder).map_err(failed("create", folder))?;
        fs::rename(&self.part_path, place).map_err(failed("create", place))?;
        if let Ok(folder) = File::open(folder) {
            // Some file systems refuse this; the rename is atomic all the same.
            let _ = folder.sync_all();
        }
        match fs::remove_file(&self.journal_path) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                Err(failed("delete", &self.journal_path)(error))
            }
            _ => Ok(()),
        }
    }

    /// What the journal says, if it is one, and leaves it ready for the next entry.
    fn read_journal(&mut self) -> Result<Option<Known>, DiskError> {
        let failed = |source| failed("read", &self.journal_path)(source);
        let mut found = [0; HEADER_BYTES];
        match self.journal.read_exact(&mut found) {
            Ok(()) => {}
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => return Ok(None),
            Err(error) => return Err(failed(error)),
        }
        let bytes = u64::from_le_bytes(*found[8..].first_chunk().expect("eight bytes"));
        if found != header(bytes) {
            return Ok(None);
        }
        let Ok(shape) = Shape::new(bytes) else { return Ok(None) };
        let mut values = Vec::new();
        let length = 32 * u64::from(shape.pieces());
        (&mut self.journal).take(length).read_to_end(&mut values).map_err(failed)?;
        if values.len() as u64 != length {
            return Ok(None);
        }
        let values: Vec<Value> = values.as_chunks::<32>().0.to_vec();
        let tree = Tree::new(shape, values);
        if tree.root() != self.digest {
            return Ok(None);
        }
        let mut here = vec![false; shape.pieces() as usize];
        // A piece may have come twice, where the first was found spoiled.
        let entries_max = 4 * 4 * u64::from(shape.pieces());
        let mut entries = Vec::new();
        (&mut self.journal).take(entries_max).read_to_end(&mut entries).map_err(failed)?;
        let whole = entries.as_chunks::<4>().0;
        for entry in whole {
            if let Some(here) = here.get_mut(u32::from_le_bytes(*entry) as usize) {
                *here = true;
            }
        }
        let end = HEADER_BYTES as u64 + length + 4 * whole.len() as u64;
        self.journal.set_len(end).and_then(|()| self.journal.seek(SeekFrom::Start(end))).map_err(failed)?;
        Ok(Some(Known { tree, here }))
    }
}

fn header(bytes: u64) -> [u8; HEADER_BYTES] {
    let mut header = [0; HEADER_BYTES];
    header[..8].copy_from_slice(&MAGIC);
    header[8..16].copy_from_slice(&bytes.to_le_bytes());
    let check = blake3::hash(&header[..16]);
    header[16..].copy_from_slice(&check.as_bytes()[..16]);
    header
}

fn failed<'a>(attempt: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> DiskError + 'a {
    move |source| DiskError::Io { attempt, path: path.to_owned(), source }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(pieces: usize) -> (Vec<u8>, Tree) {
        let mut data = vec![0; (pieces << 20) - 1000];
        blake3::Hasher::new().finalize_xof().fill(&mut data);
        let shape = Shape::new(data.len() as u64).unwrap();
        let values = data.chunks(1 << 20).enumerate();
        let values = values.map(|(index, piece)| shape.piece_value(index as u32, piece)).collect();
        (data, Tree::new(shape, values))
    }

    fn piece(data: &[u8], index: usize) -> &[u8] {
        data.chunks(1 << 20).nth(index).unwrap()
    }

    fn check(partial: &mut Partial) -> Vec<u32> {
        partial.check(&mut |_, _| {}).unwrap();
        let here = partial.here().iter().enumerate().filter(|(_, here)| **here);
        here.map(|(index, _)| index as u32).collect()
    }

    #[test]
    fn what_was_written_is_found_again_and_the_rest_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let (data, tree) = file(5);
        let digest = tree.root();
        let open = || Partial::open(folder.path(), digest);
        let mut partial = open().unwrap();
        assert!(partial.tree().is_none());
        partial.begin(tree.clone()).unwrap();
        partial.write(4, piece(&data, 4)).unwrap();
        partial.write(1, piece(&data, 1)).unwrap();
        assert!(matches!(open(), Err(DiskError::Busy { .. })));
        drop(partial);

        // As a crash within an entry leaves it.
        let journal = folder.path().join(format!("{digest}.pull"));
        File::options().append(true).open(&journal).unwrap().write_all(&[2, 0]).unwrap();
        let mut partial = open().unwrap();
        assert_eq!(partial.tree(), Some(&tree));
        assert_eq!(check(&mut partial), [1, 4]);
        partial.write(0, piece(&data, 0)).unwrap();
        partial.write(0, piece(&data, 0)).unwrap();
        drop(partial);

        // An entry whose bytes never came, one of no piece, and bytes that rotted.
        let mut end = File::options().append(true).open(&journal).unwrap();
        end.write_all(&[3, 0, 0, 0, 9, 0, 0, 0]).unwrap();
        let part = folder.path().join(format!("{digest}.part"));
        let mut bytes = fs::read(&part).unwrap();
        bytes[(1 << 20) + 5] ^= 1;
        fs::write(&part, &bytes).unwrap();
        let mut partial = open().unwrap();
        assert_eq!(check(&mut partial), [0, 4]);
        for index in 1..4 {
            partial.write(index, piece(&data, index as usize)).unwrap();
        }
        let place = folder.path().join("a/b/file");
        partial.finish(&place).unwrap();
        assert!(fs::read(&place).unwrap() == data);
        assert!(!part.exists() && !journal.exists());
    }

    #[test]
    fn a_spoiled_journal_is_begun_again() {
        let folder = tempfile::tempdir().unwrap();
        let (data, tree) = file(3);
        let digest = tree.root();
        let journal = folder.path().join(format!("{digest}.pull"));
        for spoil in [0, 8, 12, 20, 31, 32, 32 + 3 * 32 - 1] {
            let mut partial = Partial::open(folder.path(), digest).unwrap();
            partial.begin(tree.clone()).unwrap();
            partial.write(0, piece(&data, 0)).unwrap();
            drop(partial);
            let mut bytes = fs::read(&journal).unwrap();
            bytes[spoil] ^= 0x40;
            fs::write(&journal, &bytes).unwrap();
            let partial = Partial::open(folder.path(), digest).unwrap();
            assert!(partial.tree().is_none(), "byte {spoil}");
            assert!(partial.here().is_empty());
        }
        for length in [0, 5, 16, 32, 50] {
            let bytes = fs::read(&journal).unwrap();
            fs::write(&journal, &bytes[..length.min(bytes.len())]).unwrap();
            assert!(Partial::open(folder.path(), digest).unwrap().tree().is_none());
        }
    }

    #[test]
    #[should_panic(expected = "a verified piece")]
    fn unverified_bytes_are_never_written() {
        let folder = tempfile::tempdir().unwrap();
        let (data, tree) = file(2);
        let mut partial = Partial::open(folder.path(), tree.root()).unwrap();
        partial.begin(tree).unwrap();
        let mut wrong = piece(&data, 0).to_vec();
        wrong[0] ^= 1;
        let _ = partial.write(0, &wrong);
    }
}
