//! Files as memory: the one memory map of the project.
//!
//! In:     the path of a model file or of a packed image; a folder in which bytes may be kept for a while.
//! Out:    the file's bytes, shared, for as long as anyone holds them; bytes to write, in a file of nobody else's.
//! Touches: the file, read-only; files without a name in that folder.
//! Holds:  the only unsafe code outside `kernels`. What is written is gone when it is dropped, and when the process ends.
//! Absent: deciding what to map.

use std::{
    fs::{self, File},
    io::{self, Read as _, Seek as _},
    path::{Path, PathBuf},
    sync::Arc,
};

use memmap2::{Mmap, MmapMut};
use rustix::{
    fs::{FallocateFlags, fallocate},
    io::Errno,
};
use surety_engine::Bytes;

use crate::machine;

/// Maps a file.
///
/// An empty file cannot be mapped and is an error.
#[allow(unsafe_code)]
pub fn map(path: &Path) -> io::Result<Bytes> {
    let file = File::open(path)?;
    // SAFETY: the map is private and read-only, so this process never writes through it. What remains is that
    // another process changes or truncates the file while it is mapped. Images are only ever replaced by rename,
    // never written in place. A model file belongs to its operator; one who edits it under a running worker gets
    // wrong answers (which the receipt's commitment exposes) or a stopped process, as with every engine that maps
    // its weights. No code relies on the bytes staying the same for memory safety: every read of the map is of
    // plain bytes within its length.
    let map = unsafe { Mmap::map(&file) }?;
    if map.is_empty() {
        return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the file is empty"));
    }
    Ok(Arc::new(map))
}

/// Bytes on a disk, to be written and read like memory. All are 0 at first.
#[derive(Debug)]
pub struct Scratch(MmapMut);

/// Why there are none.
#[derive(Debug, thiserror::Error)]
pub enum ScratchError {
    /// The disk is too full.
    #[error("{bytes} bytes are needed in {folder}, and {free} are free")]
    NoRoom {
        /// What is needed.
        bytes: u64,
        /// Where.
        folder: PathBuf,
        /// What there is.
        free: u64,
    },
    /// The file cannot be made.
    #[error("a file of {bytes} bytes cannot be made in {folder}")]
    File {
        /// What is needed.
        bytes: u64,
        /// Where.
        folder: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

impl Scratch {
    /// So many bytes on the disk of a folder, which is made if there is none. They are set aside before it returns.
    pub fn new(folder: &Path, bytes: u64) -> Result<Scratch, ScratchError> {
        let failed = |source| ScratchError::File { bytes, folder: folder.into(), source };
        fs::create_dir_all(folder).map_err(failed)?;
        if let Some(free) = machine::free_disk_bytes(folder).filter(|free| *free < bytes) {
            return Err(ScratchError::NoRoom { bytes, folder: folder.into(), free });
        }
        Scratch::map(folder, bytes).map(Scratch).map_err(failed)
    }

    #[allow(unsafe_code)]
    fn map(folder: &Path, bytes: u64) -> io::Result<MmapMut> {
        let mut file = tempfile::tempfile_in(folder)?;
        file.set_len(bytes)?;
        // A byte of the map that no disk has room for would stop the process when it is written.
        match fallocate(&file, FallocateFlags::empty(), 0, bytes) {
            Err(Errno::OPNOTSUPP) => {
                file.rewind()?;
                io::copy(&mut io::repeat(0).take(bytes), &mut file)?;
            }
            set_aside => set_aside?,
        }
        // SAFETY: the file has no name, so no other process opens it, and this one keeps no other handle: nobody changes its
        // bytes or its length while it is mapped.
        unsafe { MmapMut::map_mut(&file) }
    }
}

impl AsRef<[u8]> for Scratch {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl AsMut<[u8]> for Scratch {
    fn as_mut(&mut self) -> &mut [u8] {
        &mut self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scratch_is_written_and_leaves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let inner = folder.path().join("a").join("b");
        let mut scratch = Scratch::new(&inner, 100_001).unwrap();
        assert_eq!(scratch.as_ref(), vec![0; 100_001]);
        scratch.as_mut()[100_000] = 7;
        let mut other = Scratch::new(&inner, 5_000).unwrap();
        other.as_mut().fill(9);
        assert_eq!((scratch.as_ref()[100_000], scratch.as_ref()[0]), (7, 0));
        assert_eq!(fs::read_dir(&inner).unwrap().count(), 0, "no file has a name");
    }

    #[test]
    fn a_disk_without_room_is_said_before_anything_is_written() {
        let folder = tempfile::tempdir().unwrap();
        let bytes = 1 << 60;
        let error = Scratch::new(folder.path(), bytes).unwrap_err();
        assert!(matches!(&error, ScratchError::NoRoom { bytes: own, .. } if *own == bytes), "{error:?}");
        let file = folder.path().join("file");
        fs::write(&file, "no folder").unwrap();
        assert!(matches!(Scratch::new(&file, 10), Err(ScratchError::File { .. })));
    }
}
