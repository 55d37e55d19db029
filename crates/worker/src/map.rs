//! Files as memory: the one memory map of the project.
//!
//! In:     the path of a model file or of a packed image.
//! Out:    its bytes, shared, for as long as anyone holds them.
//! Touches: the file, read-only.
//! Holds:  the only unsafe code outside `kernels`.
//! Absent: deciding what to map.

use std::{fs::File, io, path::Path, sync::Arc};

use memmap2::Mmap;
use surety_engine::Bytes;

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
