//! Openings: single kilobytes of a file, shown to be the file's against nothing but its BLAKE3 digest.
//!
//! In:     a digest and a size that were agreed on; a chunk's bytes and the values beside its path, from anyone.
//! Out:    whether those are the bytes at that place, or why they prove nothing.
//! Touches: nothing.
//! Holds:  what verifies is what the file holds there, unless two inputs with one BLAKE3 digest are known. The work is
//!         bounded by the depth of the tree, at most [`DEPTH_MAX`] steps, whatever is sent. If the size is not the
//!         file's, at most the chunks verify that lie where both sizes have the same tree, and never the last.
//! Absent: making openings of files (`blobs`), and who must show which (`chain`).
//!
//! BLAKE3's leaves are chunks of 1,024 bytes, the last shorter; a left subtree is the largest power of two of chunks that
//! leaves something for the right. A file without bytes has one chunk, which is empty.
//!
//! Source: the BLAKE3 paper, §2.1 and §2.4; `blake3::hazmat` for the values of subtrees.

use blake3::hazmat::{HasherExt as _, Mode, left_subtree_len, merge_subtrees_non_root, merge_subtrees_root};
use surety_types::Digest;

/// The least that can be opened.
pub const CHUNK_BYTES: u64 = 1 << 10;
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
    if file_bytes > FILE_BYTES_MAX {
        return Err(OpeningError::FileBytes(file_bytes));
    }
    let chunks = chunk_count(file_bytes);
    if index >= chunks {
        return Err(OpeningError::NoSuchChunk { index, chunks });
    }
    // Down from the root: which side of each parent the path takes.
    let target = index * CHUNK_BYTES;
    let (mut offset, mut bytes) = (0, file_bytes);
    let (mut turns_right, mut depth) = ([false; DEPTH_MAX], 0);
    while bytes > CHUNK_BYTES {
        let left = left_subtree_len(bytes);
        let right = target >= offset + left;
        turns_right[depth] = right;
        depth += 1;
        (offset, bytes) = if right { (offset + left, bytes - left) } else { (offset, left) };
    }
    if data.len() as u64 != bytes {
        return Err(OpeningError::Length { expected: bytes, found: data.len() });
    }
    if siblings.len() != depth {
        return Err(OpeningError::Path { expected: depth, found: siblings.len() });
    }
    let pair = |right: bool, value: &[u8; 32], sibling: &[u8; 32]| {
        if right { (*sibling, *value) } else { (*value, *sibling) }
    };
    let found = match siblings.split_first() {
        None => *blake3::hash(data).as_bytes(),
        Some((top, below)) => {
            // And up again: the root alone is hashed as such.
            let leaf = blake3::Hasher::new().set_input_offset(offset).update(data).finalize_non_root();
            let value =
                turns_right[1..depth].iter().zip(below).rev().fold(leaf, |value, (right, sibling)| {
                    let (left, right) = pair(*right, &value, sibling);
                    merge_subtrees_non_root(&left, &right, Mode::Hash)
                });
            let (left, right) = pair(turns_right[0], &value, top);
            *merge_subtrees_root(&left, &right, Mode::Hash).as_bytes()
        }
    };
    if found == digest.0 { Ok(()) } else { Err(OpeningError::Digest) }
}
