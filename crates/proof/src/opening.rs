//! Openings: single kilobytes of a file, shown to be the file's against nothing but its BLAKE3 digest.
//!
//! In:     a digest and a size that were agreed on; a chunk's bytes and the values beside its path, from anyone.
//! Out:    whether those are the bytes at that place, or why they prove nothing.
//! Touches: nothing.
//! Holds:  what verifies is what the file holds there, unless two inputs with one BLAKE3 digest are known. The work is
//!         bounded by the depth of the tree, at most [`DEPTH_MAX`] steps, whatever is sent. If the size is not the
//!         file's, at most the chunks verify that lie where both sizes have the same tree, and never the last.
//! Absent: the tree (`dispute::opening`), making openings of files (`blobs`), and who must show which (`chain`).
//!
//! BLAKE3's leaves are chunks of 1,024 bytes, the last shorter. A file without bytes has one chunk, which is empty.

use surety_types::Digest;

use crate::dispute::opening::{Opening, Tree};

/// The least that can be opened.
pub use crate::dispute::opening::CHUNK_BYTES;
/// No larger file is opened: a tebibyte.
pub const FILE_BYTES_MAX: u64 = 1 << 40;
/// Values beside a path, at most.
pub const DEPTH_MAX: usize = (FILE_BYTES_MAX / CHUNK_BYTES).ilog2() as usize;

/// Why an opening proves nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OpeningError {
    /// No file is so large here.
    #[error("a file of {0} bytes is not opened; at most {FILE_BYTES_MAX}")]
    FileBytes(u64),
    /// The file has fewer chunks.
    #[error("the file has {chunks} chunks, and none of index {index}")]
    NoSuchChunk {
        /// What was to be opened.
        index: u64,
        /// How many there are.
        chunks: u64,
    },
    /// The chunk is longer or shorter.
    #[error("the chunk has {expected} bytes, not {found}")]
    Length {
        /// As the size says.
        expected: u64,
        /// As it came.
        found: usize,
    },
    /// The path is longer or shorter.
    #[error("the path has {expected} values beside it, not {found}")]
    Path {
        /// As the size says.
        expected: usize,
        /// As it came.
        found: usize,
    },
    /// It leads to another digest.
    #[error("the bytes are not those of the file at this place")]
    Digest,
}

/// How many chunks a file of so many bytes has; one at least.
pub const fn chunk_count(file_bytes: u64) -> u64 {
    if file_bytes == 0 { 1 } else { file_bytes.div_ceil(CHUNK_BYTES) }
}

/// Checks that `data` is chunk `index` of the file of this digest and size. `siblings` are the values beside the path, from
/// the root down.
pub fn check_opening(
    digest: &Digest,
    file_bytes: u64,
    index: u64,
    data: &[u8],
    siblings: &[[u8; 32]],
) -> Result<(), OpeningError> {
    let tree = Tree::plain(file_bytes).filter(|_| file_bytes <= FILE_BYTES_MAX);
    let tree = tree.ok_or(OpeningError::FileBytes(file_bytes))?;
    let chunks = chunk_count(file_bytes);
    if index >= chunks {
        return Err(OpeningError::NoSuchChunk { index, chunks });
    }
    // Down from the root: on which side of the chunk each value is.
    let (mut node, mut depth) = (tree.root(), 0);
    let (mut before, mut after) = (Vec::<[u8; 32]>::new(), Vec::new());
    while let Some((left, right)) = node.children() {
        let side = if index < right.first { &mut after } else { &mut before };
        side.extend(siblings.get(depth));
        node = if index < right.first { left } else { right };
        depth += 1;
    }
    let expected = tree.bytes_below(node);
    if data.len() != expected {
        return Err(OpeningError::Length { expected: expected as u64, found: data.len() });
    }
    if siblings.len() != depth {
        return Err(OpeningError::Path { expected: depth, found: siblings.len() });
    }
    let in_order = before.into_iter().chain(after.into_iter().rev()).flatten().collect();
    let opening = Opening::of_run(index, data.to_vec(), in_order);
    tree.check(&digest.0, &opening).map_err(|_| OpeningError::Digest)
}
