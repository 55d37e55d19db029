//! Openings: consecutive kilobytes of a string, shown to be the string's against the value of a node of its tree.
//!
//! In:     the tree of a string (its hashing mode and length); a node's value; bytes and values from anyone.
//! Out:    whether those are the bytes at that place, or why they prove nothing; and, from a whole string, its tree.
//! Touches: nothing.
//! Holds:  what verifies is what the string holds there, unless two inputs of one BLAKE3 value are known; the work is
//!         bounded by the chunks opened times the depth of the tree.
//! Absent: which strings there are (`judge`), and who must show what (`game`).
//!
//! Rules: D-1. Source: the BLAKE3 paper, §2.1 and §2.4; `blake3::hazmat` for the values of nodes.

use blake3::hazmat::{self, HasherExt as _, Mode, merge_subtrees_non_root, merge_subtrees_root};
use minicbor::{Decode, Encode};

/// Bytes of a chunk; the last of a string may be shorter.
pub const CHUNK_BYTES: u64 = 1 << 10;
/// Chunks that one opening shows, at most.
pub const OPENING_CHUNKS_MAX: usize = 16;
/// No string is longer.
pub const STRING_BYTES_MAX: u64 = 1 << 43;
/// Nodes below the root of the longest string, down to a chunk.
const DEPTH_MAX: usize = (STRING_BYTES_MAX / CHUNK_BYTES).ilog2() as usize;
/// Values beside an opening, at most: a path on either side.
pub const SIBLINGS_MAX: usize = 2 * DEPTH_MAX;

/// The value of a node: of the root the string's digest.
pub type Value = [u8; 32];

/// Why an opening proves nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OpeningError {
    /// It shows chunks that are not below the node.
    #[error("chunks {first} to {last} are not all below the node")]
    Outside {
        /// The first shown.
        first: u64,
        /// The last shown.
        last: u64,
    },
    /// It shows nothing, or too much.
    #[error("an opening shows 1 to {OPENING_CHUNKS_MAX} whole chunks, not {bytes} bytes")]
    Length {
        /// What it shows.
        bytes: usize,
    },
    /// There are more or fewer values beside it.
    #[error("there are more or fewer values beside the chunks than the tree has")]
    Siblings,
    /// It leads to another value.
    #[error("the bytes are not those of the string at this place")]
    Value,
}

/// Consecutive chunks of a string and what is beside them (D-1.2).
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Opening {
    /// Index of the first chunk.
    #[n(0)]
    pub first: u64,
    /// The chunks.
    #[cbor(n(1), with = "minicbor::bytes")]
    pub bytes: Vec<u8>,
    /// The values beside them, in the order of the string, joined.
    #[cbor(n(2), with = "minicbor::bytes")]
    pub siblings: Vec<u8>,
}

/// Consecutive chunks that BLAKE3 hashes to one value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Node {
    /// Index of the first chunk.
    pub first: u64,
    /// How many.
    pub chunks: u64,
}

impl Node {
    /// Index of the first chunk after it.
    pub fn end(self) -> u64 {
        self.first + self.chunks
    }

    /// Its two children, unless it is a chunk (D-1.1).
    pub fn children(self) -> Option<(Node, Node)> {
        let left = 1 << (self.chunks - 1).checked_ilog2()?;
        Some((
            Node { first: self.first, chunks: left },
            Node { first: self.first + left, chunks: self.chunks - left },
        ))
    }
}

/// How a string is hashed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Hashing {
    Plain,
    Derived(hazmat::ContextKey),
}

/// The tree of a string of known length, without its values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tree {
    hashing: Hashing,
    bytes: u64,
}

impl Tree {
    /// Of a string under its plain BLAKE3 digest. `None` if it is too long.
    pub fn plain(bytes: u64) -> Option<Tree> {
        (bytes <= STRING_BYTES_MAX).then_some(Tree { hashing: Hashing::Plain, bytes })
    }

    /// Of a string under its digest in key-derivation mode. `None` if it is too long.
    pub fn derived(domain: &str, bytes: u64) -> Option<Tree> {
        let hashing = Hashing::Derived(hazmat::hash_derive_key_context(domain));
        (bytes <= STRING_BYTES_MAX).then_some(Tree { hashing, bytes })
    }

    /// The string's length.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The whole string; one chunk at least.
    pub fn root(&self) -> Node {
        Node { first: 0, chunks: self.bytes.div_ceil(CHUNK_BYTES).max(1) }
    }

    /// Bytes of the string below a node. Panics if it is not of this tree.
    pub fn bytes_below(&self, node: Node) -> usize {
        assert!(node.end() <= self.root().chunks, "a node of the string's");
        ((node.end() * CHUNK_BYTES).min(self.bytes) - node.first * CHUNK_BYTES) as usize
    }

    /// The value of a node whose bytes are at hand. Panics if they are longer or shorter, or it is not of this tree.
    pub fn value(&self, node: Node, bytes: &[u8]) -> Value {
        assert_eq!(bytes.len(), self.bytes_below(node), "the bytes of the node");
        let mut hasher = match &self.hashing {
            Hashing::Plain => blake3::Hasher::new(),
            Hashing::Derived(key) => blake3::Hasher::new_from_context_key(key),
        };
        if node == self.root() {
            return *hasher.update(bytes).finalize().as_bytes();
        }
        hasher.set_input_offset(node.first * CHUNK_BYTES).update(bytes).finalize_non_root()
    }

    /// The value of a node from those of its children.
    pub fn join(&self, node: Node, left: &Value, right: &Value) -> Value {
        let mode = match &self.hashing {
            Hashing::Plain => Mode::Hash,
            Hashing::Derived(key) => Mode::DeriveKeyMaterial(key),
        };
        match node == self.root() {
            true => *merge_subtrees_root(left, right, mode).as_bytes(),
            false => merge_subtrees_non_root(left, right, mode),
        }
    }

    /// Checks that an opening shows chunks below `node`, whose value is known (D-1.2).
    ///
    /// # Errors
    /// `OpeningError` if it proves nothing.
    pub fn check(&self, node: Node, value: &Value, opening: &Opening) -> Result<(), OpeningError> {
        let length = OpeningError::Length { bytes: opening.bytes.len() };
        let chunks = opening.bytes.len().div_ceil(CHUNK_BYTES as usize);
        if !(1..=OPENING_CHUNKS_MAX).contains(&chunks) && self.bytes > 0 {
            return Err(length);
        }
        let shown = Node { first: opening.first, chunks: chunks.max(1) as u64 };
        let last = shown.first.saturating_add(shown.chunks - 1);
        if shown.first < node.first || last >= node.end() {
            return Err(OpeningError::Outside { first: shown.first, last });
        }
        if opening.bytes.len() != self.bytes_below(shown) {
            return Err(length);
        }
        let (siblings, rest) = opening.siblings.as_chunks::<32>();
        if !rest.is_empty() || siblings.len() > SIBLINGS_MAX {
            return Err(OpeningError::Siblings);
        }
        let mut left = Reading { bytes: &opening.bytes, siblings };
        let found = self.read(node, shown, &mut left).ok_or(OpeningError::Siblings)?;
        if !left.siblings.is_empty() {
            return Err(OpeningError::Siblings);
        }
        if found == *value { Ok(()) } else { Err(OpeningError::Value) }
    }

    /// The value of a node of which some chunks are shown; `None` if values are missing.
    fn read(&self, node: Node, shown: Node, left: &mut Reading<'_>) -> Option<Value> {
        if node.end() <= shown.first || shown.end() <= node.first {
            let (value, rest) = left.siblings.split_first()?;
            left.siblings = rest;
            return Some(*value);
        }
        match node.children() {
            Some((first, second)) => {
                let first = self.read(first, shown, left)?;
                let second = self.read(second, shown, left)?;
                Some(self.join(node, &first, &second))
            }
            None => {
                let (bytes, rest) = left.bytes.split_at(self.bytes_below(node));
                left.bytes = rest;
                Some(self.value(node, bytes))
            }
        }
    }
}

/// What of an opening is not read yet.
struct Reading<'a> {
    bytes: &'a [u8],
    siblings: &'a [Value],
}

/// A whole string with the values of its nodes; those of small ones are computed when they are asked for.
#[derive(Clone, Debug)]
pub struct Hashed<B> {
    tree: Tree,
    bytes: B,
    /// The values of groups of chunks; then of each pair of values, the odd one out as it is; the last is the root's.
    levels: Vec<Vec<Value>>,
}

/// Chunks of a group, 2 to this power, whose values are kept.
const GROUP_LEVEL: u32 = 3;

impl<B: AsRef<[u8]>> Hashed<B> {
    /// Hashes a string. Panics if the tree is of another length.
    ///
    /// Besides the string it keeps 64 bytes for each group of 8 chunks.
    pub fn new(tree: Tree, bytes: B) -> Self {
        let string = bytes.as_ref();
        assert_eq!(string.len() as u64, tree.bytes, "the string's length");
        let root = tree.root();
        let group = |first: u64| {
            let node = Node { first, chunks: (root.chunks - first).min(1 << GROUP_LEVEL) };
            let start = (first * CHUNK_BYTES) as usize;
            tree.value(node, &string[start..start + tree.bytes_below(node)])
        };
        let groups = (0..root.chunks).step_by(1 << GROUP_LEVEL);
        let mut levels = vec![groups.map(group).collect::<Vec<Value>>()];
        while let Some(below) = levels.last().filter(|level| level.len() > 1) {
            let pairs = below.chunks(2).map(|pair| match pair {
                // Only the root covers everything, and only the root's value depends on what is covered.
                [left, right] if below.len() == 2 => tree.join(root, left, right),
                [left, right] => tree.join(Node { first: 1, chunks: 2 }, left, right),
                odd => odd[0],
            });
            let above = pairs.collect();
            levels.push(above);
        }
        Hashed { tree, bytes, levels }
    }

    /// The tree, without values.
    pub fn tree(&self) -> &Tree {
        &self.tree
    }

    /// The string's digest.
    pub fn digest(&self) -> Value {
        self.value(self.tree.root())
    }

    /// The value of a node. Panics if it is not of this tree.
    pub fn value(&self, node: Node) -> Value {
        let level = node.chunks.next_power_of_two().ilog2();
        match level.checked_sub(GROUP_LEVEL) {
            Some(kept) => self.levels[kept as usize][(node.first >> level) as usize],
            None => self.tree.value(node, self.bytes_below(node)),
        }
    }

    /// The bytes below a node. Panics if it is not of this tree.
    pub fn bytes_below(&self, node: Node) -> &[u8] {
        let start = (node.first * CHUNK_BYTES) as usize;
        &self.bytes.as_ref()[start..start + self.tree.bytes_below(node)]
    }

    /// Opens the chunks of `shown`, which need not be a node, against a node that holds them. Panics if it does not.
    pub fn open(&self, node: Node, shown: Node) -> Opening {
        assert!(
            shown.chunks > 0 && node.first <= shown.first && shown.end() <= node.end(),
            "chunks of the node"
        );
        let mut siblings = Vec::new();
        self.beside(node, shown, &mut siblings);
        Opening { first: shown.first, bytes: self.bytes_below(shown).to_vec(), siblings }
    }

    fn beside(&self, node: Node, shown: Node, siblings: &mut Vec<u8>) {
        if node.end() <= shown.first || shown.end() <= node.first {
            siblings.extend_from_slice(&self.value(node));
        } else if let Some((left, right)) = node.children() {
            self.beside(left, shown, siblings);
            self.beside(right, shown, siblings);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const DOMAIN: &str = "surety 2026 trace";

    fn string(bytes: usize) -> Vec<u8> {
        (0..bytes).map(|i| (i as u32).wrapping_mul(2_654_435_761).to_be_bytes()[0]).collect()
    }

    fn trees(bytes: u64) -> [Tree; 2] {
        [Tree::plain(bytes).expect("short"), Tree::derived(DOMAIN, bytes).expect("short")]
    }

    #[test]
    fn digests_are_blake3s() {
        for bytes in [0, 1, 1_023, 1_024, 1_025, 2_048, 3_000, 7 * 1_024, 8 * 1_024 + 1, 33 * 1_024] {
            let string = string(bytes);
            let [plain, derived] = trees(bytes as u64).map(|tree| Hashed::new(tree, &string).digest());
            assert_eq!(plain, *blake3::hash(&string).as_bytes(), "{bytes}");
            assert_eq!(derived, blake3::derive_key(DOMAIN, &string), "{bytes}");
        }
    }

    #[test]
    fn a_string_too_long_has_no_tree() {
        assert_eq!(Tree::plain(STRING_BYTES_MAX + 1), None);
        assert!(Tree::plain(STRING_BYTES_MAX).is_some());
    }

    proptest! {
        #[test]
        fn an_opening_shows_what_is_there_and_nothing_else(
            bytes in 1usize..40_000,
            first in 0u64..40,
            chunks in 1u64..8,
            flip in any::<prop::sample::Index>(),
        ) {
            let string = string(bytes);
            for tree in trees(bytes as u64) {
                let hashed = Hashed::new(tree, &string);
                let root = tree.root();
                let first = first % root.chunks;
                let shown = Node { first, chunks: chunks.min(root.chunks - first) };
                let opening = hashed.open(root, shown);
                prop_assert_eq!(tree.check(root, &hashed.digest(), &opening), Ok(()));
                let mut other = opening.clone();
                let at = flip.index(other.bytes.len());
                other.bytes[at] ^= 1;
                prop_assert_eq!(tree.check(root, &hashed.digest(), &other), Err(OpeningError::Value));
                let mut other = opening.clone();
                other.first += 1;
                prop_assert!(tree.check(root, &hashed.digest(), &other).is_err());
                let mut other = opening.clone();
                other.siblings.extend([0; 32]);
                prop_assert_eq!(tree.check(root, &hashed.digest(), &other), Err(OpeningError::Siblings));
                let mut other = opening;
                if !other.siblings.is_empty() {
                    let at = flip.index(other.siblings.len());
                    other.siblings[at] ^= 1;
                    prop_assert_eq!(tree.check(root, &hashed.digest(), &other), Err(OpeningError::Value));
                    other.siblings.truncate(other.siblings.len() - 32);
                    prop_assert_eq!(tree.check(root, &hashed.digest(), &other), Err(OpeningError::Siblings));
                }
            }
        }

        #[test]
        fn nodes_open_like_whole_strings(bytes in 4_097usize..40_000, turns in prop::collection::vec(any::<bool>(), 5)) {
            let string = string(bytes);
            let tree = Tree::derived(DOMAIN, bytes as u64).expect("short");
            let hashed = Hashed::new(tree, &string);
            let mut node = tree.root();
            for right in turns {
                let Some(children) = node.children() else { break };
                node = if right { children.1 } else { children.0 };
                prop_assert_eq!(tree.value(node, hashed.bytes_below(node)), hashed.value(node));
                let shown = Node { first: node.first, chunks: node.chunks.min(3) };
                let opening = hashed.open(node, shown);
                prop_assert_eq!(tree.check(node, &hashed.value(node), &opening), Ok(()));
            }
        }

        #[test]
        fn garbage_is_refused(
            bytes in 0u64..STRING_BYTES_MAX,
            first in any::<u64>(),
            shown in prop::collection::vec(any::<u8>(), 0..3_000),
            siblings in prop::collection::vec(any::<u8>(), 0..3_000),
        ) {
            let tree = Tree::plain(bytes).expect("short enough");
            let opening = Opening { first, bytes: shown, siblings };
            prop_assert!(tree.check(tree.root(), &[7; 32], &opening).is_err());
        }
    }
}
