//! The BLAKE3 tree of a file: sizes, pieces, chunks, and what proves that bytes belong to a digest.
//!
//! In:     a digest, a size, values of pieces, bytes.
//! Out:    whether the bytes are the digest's; openings of single chunks.
//! Holds:  every check is a comparison with the digest, through nothing but BLAKE3's own compression. A size is
//!         proven by the last piece: its chunks are hashed with their lengths, so a tree of another size has no last
//!         piece that fits.
//! Absent: files, sockets.
//!
//! Source: the BLAKE3 paper, §2.1 and §2.4; `blake3::hazmat` for the values of subtrees.

use blake3::hazmat::{HasherExt as _, Mode, left_subtree_len, merge_subtrees_non_root, merge_subtrees_root};
use surety_types::Digest;

/// The leaf of BLAKE3: what an audit draws, and the least that can be proven.
pub const CHUNK_BYTES: u64 = 1 << 10;
/// What is asked for, verified and written at once: a whole subtree.
pub const PIECE_BYTES: u64 = 1 << 20;
/// No file is larger.
pub const BLOB_BYTES_MAX: u64 = 1 << 40;
/// No chunk lies deeper.
pub const DEPTH_MAX: usize = (BLOB_BYTES_MAX / CHUNK_BYTES).ilog2() as usize;

const _: () = assert!(PIECE_BYTES.is_power_of_two() && PIECE_BYTES > CHUNK_BYTES);
const _: () = assert!(BLOB_BYTES_MAX / PIECE_BYTES <= u32::MAX as u64, "a piece's index is a u32");

/// The chaining value of a subtree; of a file of one piece, its digest.
pub type Value = [u8; 32];

/// A file's size, and how it falls into pieces and chunks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    bytes: u64,
}

/// A size that no file has here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a file of {0} bytes; one of 1 to {BLOB_BYTES_MAX} can be transferred")]
pub struct SizeError(pub u64);

impl Shape {
    /// Of a file of so many bytes.
    pub fn new(bytes: u64) -> Result<Self, SizeError> {
        if (1..=BLOB_BYTES_MAX).contains(&bytes) { Ok(Shape { bytes }) } else { Err(SizeError(bytes)) }
    }

    /// The size.
    pub fn bytes(self) -> u64 {
        self.bytes
    }

    /// How many pieces; the last may be short.
    pub fn pieces(self) -> u32 {
        self.bytes.div_ceil(PIECE_BYTES) as u32
    }

    /// How many chunks; the last may be short.
    pub fn chunks(self) -> u64 {
        self.bytes.div_ceil(CHUNK_BYTES)
    }

    /// Where a piece begins. Panics if there is no such piece.
    pub fn piece_offset(self, index: u32) -> u64 {
        assert!(index < self.pieces(), "a piece of the file");
        u64::from(index) * PIECE_BYTES
    }

    /// How long a piece is. Panics if there is no such piece.
    pub fn piece_bytes(self, index: u32) -> usize {
        PIECE_BYTES.min(self.bytes - self.piece_offset(index)) as usize
    }

    /// The value of a piece. Panics if there is no such piece, or it has another length.
    pub fn piece_value(self, index: u32, data: &[u8]) -> Value {
        assert_eq!(data.len(), self.piece_bytes(index), "the whole piece");
        if self.pieces() == 1 {
            return *blake3::hash(data).as_bytes();
        }
        subtree(self.piece_offset(index), data)
    }
}

/// The value of bytes that are a subtree, but not all, of a file, and begin at `offset` in it.
fn subtree(offset: u64, data: &[u8]) -> Value {
    blake3::Hasher::new().set_input_offset(offset).update(data).finalize_non_root()
}

/// A file's tree down to its pieces.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tree {
    shape: Shape,
    /// First the pieces; each further level holds the values of pairs, and the odd one out as it is. The last has at
    /// most two.
    levels: Vec<Vec<Value>>,
    root: Digest,
}

impl Tree {
    /// From the values of all pieces, in order. Panics if there are more or fewer.
    pub fn new(shape: Shape, values: Vec<Value>) -> Self {
        assert_eq!(values.len(), shape.pieces() as usize, "one value per piece");
        let mut levels = vec![values];
        loop {
            let last = levels.last().expect("the pieces at least");
            let root = match last[..] {
                [only] => Digest(only),
                [left, right] => Digest(*merge_subtrees_root(&left, &right, Mode::Hash).as_bytes()),
                _ => {
                    let above = last.chunks(2).map(|pair| match pair {
                        [left, right] => merge_subtrees_non_root(left, right, Mode::Hash),
                        odd => odd[0],
                    });
                    let above = above.collect();
                    levels.push(above);
                    continue;
                }
            };
            return Tree { shape, levels, root };
        }
    }

    /// The digest of the file whose pieces have these values, if the size is right too.
    pub fn root(&self) -> Digest {
        self.root
    }

    /// The size.
    pub fn shape(&self) -> Shape {
        self.shape
    }

    /// The values of the pieces, in order.
    pub fn values(&self) -> &[Value] {
        &self.levels[0]
    }

    /// Whether these are the bytes of that piece. Bytes of another length are not.
    pub fn vouches_for(&self, index: u32, data: &[u8]) -> bool {
        data.len() == self.shape.piece_bytes(index)
            && self.shape.piece_value(index, data) == self.values()[index as usize]
    }

    /// Opens one chunk, given the piece it lies in. Panics if there is no such chunk, or the piece is another.
    pub fn open(&self, chunk: u64, piece: &[u8]) -> Slice {
        assert!(chunk < self.shape.chunks(), "a chunk of the file");
        let at = chunk * CHUNK_BYTES;
        let piece_offset = at - at % PIECE_BYTES;
        assert_eq!(piece.len(), self.shape.piece_bytes((at / PIECE_BYTES) as u32), "the chunk's piece");
        let mut siblings = Vec::new();
        let leaf = walk(self.shape, chunk, |parent_bytes, sibling| {
            siblings.push(if parent_bytes > PIECE_BYTES {
                let first = sibling.offset / PIECE_BYTES;
                let level = sibling.bytes.div_ceil(PIECE_BYTES).next_power_of_two().ilog2();
                self.levels[level as usize][(first >> level) as usize]
            } else {
                subtree(sibling.offset, sibling.of(piece_offset, piece))
            });
        });
        Slice { chunk, data: leaf.of(piece_offset, piece).to_vec(), siblings }
    }
}

/// Part of a file that is a node of its tree.
#[derive(Clone, Copy, Debug)]
struct Node {
    offset: u64,
    bytes: u64,
    /// Whether it stands left of the path, where it is not on it.
    left: bool,
}

impl Node {
    /// Its bytes, out of a piece that holds them all.
    fn of(self, piece_offset: u64, piece: &[u8]) -> &[u8] {
        let from = (self.offset - piece_offset) as usize;
        &piece[from..from + self.bytes as usize]
    }
}

/// Goes down from the root to a chunk, telling each sibling on the way and the size of its parent; returns the chunk.
fn walk(shape: Shape, chunk: u64, mut pass: impl FnMut(u64, Node)) -> Node {
    let target = chunk * CHUNK_BYTES;
    let (mut offset, mut bytes) = (0, shape.bytes);
    while bytes > CHUNK_BYTES {
        let left = left_subtree_len(bytes);
        let parent = bytes;
        if target < offset + left {
            pass(parent, Node { offset: offset + left, bytes: parent - left, left: false });
            bytes = left;
        } else {
            pass(parent, Node { offset, bytes: left, left: true });
            (offset, bytes) = (offset + left, parent - left);
        }
    }
    Node { offset, bytes, left: false }
}

/// One chunk and what proves that it belongs to a digest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Slice {
    /// Which.
    pub chunk: u64,
    /// Its bytes.
    pub data: Vec<u8>,
    /// The values beside its path, from the root down.
    pub siblings: Vec<Value>,
}

/// Why a slice proves nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SliceError {
    /// The file has fewer chunks.
    #[error("the file has no such chunk")]
    NoSuchChunk,
    /// The chunk is longer or shorter.
    #[error("the chunk has another length")]
    Length,
    /// The path is longer or shorter.
    #[error("the path has another length")]
    Path,
    /// It leads to another digest.
    #[error("the bytes are not those of the file")]
    Digest,
}

impl Slice {
    /// Checks that this is that chunk of the file of this digest and shape.
    pub fn check(&self, digest: Digest, shape: Shape) -> Result<(), SliceError> {
        if self.chunk >= shape.chunks() {
            return Err(SliceError::NoSuchChunk);
        }
        let mut lefts = Vec::new();
        let leaf = walk(shape, self.chunk, |_, sibling| lefts.push(sibling.left));
        if self.data.len() as u64 != leaf.bytes {
            return Err(SliceError::Length);
        }
        if self.siblings.len() != lefts.len() {
            return Err(SliceError::Path);
        }
        let mut path = lefts.into_iter().zip(&self.siblings);
        let found = match path.next() {
            None => *blake3::hash(&self.data).as_bytes(),
            Some(top) => {
                let leaf = subtree(leaf.offset, &self.data);
                let below_top = path.rev().fold(leaf, |value, (left, sibling)| {
                    let (left, right) = if left { (sibling, &value) } else { (&value, sibling) };
                    merge_subtrees_non_root(left, right, Mode::Hash)
                });
                let (left, right) = if top.0 { (top.1, &below_top) } else { (&below_top, top.1) };
                *merge_subtrees_root(left, right, Mode::Hash).as_bytes()
            }
        };
        if found == digest.0 { Ok(()) } else { Err(SliceError::Digest) }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Bytes without repetition, from a seed.
    fn data(bytes: usize, seed: u64) -> Vec<u8> {
        let mut data = vec![0; bytes];
        blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut data);
        data
    }

    fn tree_of(data: &[u8]) -> Tree {
        let shape = Shape::new(data.len() as u64).unwrap();
        let pieces = data.chunks(PIECE_BYTES as usize).enumerate();
        Tree::new(shape, pieces.map(|(index, piece)| shape.piece_value(index as u32, piece)).collect())
    }

    fn digest(data: &[u8]) -> Digest {
        Digest(*blake3::hash(data).as_bytes())
    }

    fn piece_with(data: &[u8], chunk: u64) -> &[u8] {
        data.chunks(PIECE_BYTES as usize).nth((chunk * CHUNK_BYTES / PIECE_BYTES) as usize).unwrap()
    }

    /// Either side of every boundary, and counts of pieces that are powers of two and are not.
    const SIZES: &[usize] = &[
        1,
        1023,
        1024,
        1025,
        2048,
        5000,
        (1 << 20) - 1,
        1 << 20,
        (1 << 20) + 1,
        (2 << 20) + 1024,
        3 << 20,
        (4 << 20) + 7,
        (5 << 20) + 1025,
        (7 << 20) - 1,
        8 << 20,
    ];

    #[test]
    fn the_tree_of_the_pieces_is_blake3s() {
        for &bytes in SIZES {
            let data = data(bytes, 1);
            let tree = tree_of(&data);
            assert_eq!(tree.root(), digest(&data), "{bytes} bytes");
            for (index, piece) in data.chunks(PIECE_BYTES as usize).enumerate() {
                assert!(tree.vouches_for(index as u32, piece));
                let mut wrong = piece.to_vec();
                wrong[piece.len() / 2] ^= 1;
                assert!(!tree.vouches_for(index as u32, &wrong));
                assert!(!tree.vouches_for(index as u32, &piece[1..]));
            }
        }
    }

    #[test]
    fn every_chunk_opens_and_nothing_else_does() {
        for &bytes in SIZES {
            let data = data(bytes, 2);
            let (tree, digest) = (tree_of(&data), digest(&data));
            let chunks = tree.shape().chunks();
            let spread = (0..chunks).filter(|chunk| chunks < 12 || chunk % 509 == 0 || chunk + 3 > chunks);
            for chunk in spread {
                let slice = tree.open(chunk, piece_with(&data, chunk));
                assert_eq!(slice.check(digest, tree.shape()), Ok(()), "{bytes} bytes, chunk {chunk}");
                assert!(slice.siblings.len() <= DEPTH_MAX);
                let from = (chunk * CHUNK_BYTES) as usize;
                assert_eq!(slice.data, data[from..data.len().min(from + 1024)]);

                let mut wrong = slice.clone();
                wrong.data[0] ^= 1;
                assert_eq!(wrong.check(digest, tree.shape()), Err(SliceError::Digest));
                let mut wrong = slice.clone();
                wrong.chunk = if chunk == 0 { 1 } else { chunk - 1 };
                assert!(wrong.check(digest, tree.shape()).is_err());
                let mut wrong = slice.clone();
                wrong.siblings.push([0; 32]);
                assert_eq!(wrong.check(digest, tree.shape()), Err(SliceError::Path));
                for at in 0..slice.siblings.len() {
                    let mut wrong = slice.clone();
                    wrong.siblings[at][31] ^= 128;
                    assert_eq!(wrong.check(digest, tree.shape()), Err(SliceError::Digest));
                }
            }
            let beyond = Slice { chunk: chunks, data: vec![], siblings: vec![] };
            assert_eq!(beyond.check(digest, tree.shape()), Err(SliceError::NoSuchChunk));
        }
    }

    #[test]
    fn another_size_has_no_last_piece() {
        // The values of the real pieces, told as a file that is one byte shorter: the digest fits, the last piece not.
        let data = data((2 << 20) + 100, 3);
        let honest = tree_of(&data);
        let told = Shape::new(data.len() as u64 - 1).unwrap();
        let lie = Tree::new(told, honest.values().to_vec());
        assert_eq!(lie.root(), digest(&data));
        assert!(!lie.vouches_for(2, &data[2 << 20..data.len() - 1]));
        // Inner values told as pieces: likewise.
        let data = self::data(4 << 20, 4);
        let honest = tree_of(&data);
        let inner = honest.levels[1].clone();
        let lie = Tree::new(Shape::new(2 << 20).unwrap(), inner);
        assert_eq!(lie.root(), digest(&data));
        assert!(!lie.vouches_for(1, &data[3 << 20..]));
    }

    #[test]
    fn sizes_are_bounded() {
        assert_eq!(Shape::new(0), Err(SizeError(0)));
        assert!(Shape::new(BLOB_BYTES_MAX).is_ok());
        assert_eq!(Shape::new(BLOB_BYTES_MAX + 1), Err(SizeError(BLOB_BYTES_MAX + 1)));
        assert_eq!(Shape::new(BLOB_BYTES_MAX).unwrap().pieces(), 1 << 20);
    }

    proptest! {
        #[test]
        fn foreign_slices_prove_nothing_and_never_panic(
            bytes in 1..BLOB_BYTES_MAX,
            chunk in prop_oneof![any::<u64>(), 0u64..5000],
            data in prop::collection::vec(any::<u8>(), 0..1100),
            siblings in prop::collection::vec(any::<[u8; 32]>(), 0..40),
        ) {
            let shape = Shape::new(bytes).unwrap();
            let slice = Slice { chunk, data, siblings };
            prop_assert!(slice.check(Digest([7; 32]), shape).is_err());
        }
    }
}
