//! Openings: kilobytes of a string, shown to be the string's against values of its tree that are known.
//!
//! In:     the tree of a string (its hashing mode and length); values of nodes; bytes and values from anyone.
//! Out:    whether those are the bytes at those places, or why they prove nothing; and, from a whole string, its tree.
//! Touches: nothing.
//! Holds:  what verifies is what the string holds there, unless two inputs of one BLAKE3 value are known; of chunks that
//!         are shown there is one opening; the work is bounded by the chunks opened times the depth of the tree.
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
pub const DEPTH_MAX: usize = (STRING_BYTES_MAX / CHUNK_BYTES).ilog2() as usize;
/// Values beside an opening, at most: a path on either side of every chunk.
pub const SIBLINGS_MAX: usize = 2 * DEPTH_MAX * OPENING_CHUNKS_MAX;

/// The value of a node: of the root the string's digest.
pub type Value = [u8; 32];

/// Why an opening proves nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OpeningError {
    /// It shows chunks that are not below nodes whose values are known.
    #[error("chunks {first} to {last} are not all below nodes that are known")]
    Outside {
        /// The first of a run.
        first: u64,
        /// The last of it.
        last: u64,
    },
    /// It shows nothing, too much, or part of a chunk.
    #[error("an opening shows 1 to {OPENING_CHUNKS_MAX} whole chunks; a run of it is {bytes} bytes")]
    Length {
        /// What a run shows.
        bytes: usize,
    },
    /// Its runs touch, overlap, or go back.
    #[error("the run that begins at chunk {first} does not leave one out after the run before it")]
    Order {
        /// Where the run begins.
        first: u64,
    },
    /// There are more or fewer values beside it.
    #[error("there are more or fewer values beside the chunks than the tree has")]
    Siblings,
    /// It leads to another value.
    #[error("the bytes are not those of the string at this place")]
    Value,
}

/// Chunks of a string and what is beside them (D-1.2).
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Opening {
    /// The chunks, in order; between two runs there is a chunk that is not shown.
    #[n(0)]
    pub runs: Vec<Run>,
    /// The values beside them, in the order of the string, joined.
    #[cbor(n(1), with = "minicbor::bytes")]
    pub siblings: Vec<u8>,
}

/// Consecutive chunks.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Run {
    /// Index of the first.
    #[n(0)]
    pub first: u64,
    /// The chunks.
    #[cbor(n(1), with = "minicbor::bytes")]
    pub bytes: Vec<u8>,
}

impl Run {
    /// How many chunks it shows; an empty string's is one.
    fn chunks(&self) -> u64 {
        (self.bytes.len() as u64).div_ceil(CHUNK_BYTES).max(1)
    }
}

impl Opening {
    /// An opening of consecutive chunks.
    pub fn of_run(first: u64, bytes: Vec<u8>, siblings: Vec<u8>) -> Opening {
        Opening { runs: vec![Run { first, bytes }], siblings }
    }

    /// Bytes it shows, with the values beside them.
    pub fn shown_bytes(&self) -> usize {
        self.runs.iter().map(|run| run.bytes.len()).sum::<usize>() + self.siblings.len()
    }

    /// The chunks, with their indices. Of an opening that has been checked: its indices are those of a string.
    pub(super) fn chunks(&self) -> impl Iterator<Item = (u64, &[u8])> {
        self.runs.iter().flat_map(|run| {
            // An empty string has one chunk, which is empty.
            let empty = run.bytes.is_empty().then_some(&[][..]);
            (run.first..).zip(run.bytes.chunks(CHUNK_BYTES as usize).chain(empty))
        })
    }

    /// `N` bytes of the string from byte `at` on. `None` if no run holds them.
    pub fn bytes_at<const N: usize>(&self, at: u64) -> Option<[u8; N]> {
        self.runs.iter().find_map(|run| {
            let from = at.checked_sub(run.first.checked_mul(CHUNK_BYTES)?)?;
            run.bytes.get(usize::try_from(from).ok()?..)?.first_chunk().copied()
        })
    }
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

    /// Checks that an opening shows chunks of the string, against its digest (D-1.2).
    ///
    /// # Errors
    /// `OpeningError` if it proves nothing.
    pub fn check(&self, digest: &Value, opening: &Opening) -> Result<(), OpeningError> {
        self.check_below(&[(self.root(), *digest)], opening)
    }

    /// Checks that an opening shows chunks below nodes whose values are known (D-1.2). They are nodes of this tree, in its
    /// order, and none is below another; nothing is said of one without an opened chunk.
    ///
    /// # Errors
    /// `OpeningError` if it proves nothing.
    pub fn check_below(&self, known: &[(Node, Value)], opening: &Opening) -> Result<(), OpeningError> {
        let all = self.root().chunks;
        let (mut shown, mut free) = (0, 0);
        for run in &opening.runs {
            let (chunks, bytes) = (run.chunks(), run.bytes.len());
            shown += chunks;
            if shown > OPENING_CHUNKS_MAX as u64 {
                return Err(OpeningError::Length { bytes });
            }
            let last = run.first.saturating_add(chunks - 1);
            if last >= all {
                return Err(OpeningError::Outside { first: run.first, last });
            }
            if run.first < free {
                return Err(OpeningError::Order { first: run.first });
            }
            if bytes != self.bytes_below(Node { first: run.first, chunks }) {
                return Err(OpeningError::Length { bytes });
            }
            free = last + 2;
        }
        if shown == 0 {
            return Err(OpeningError::Length { bytes: 0 });
        }
        let (siblings, rest) = opening.siblings.as_chunks::<32>();
        if !rest.is_empty() || siblings.len() > SIBLINGS_MAX {
            return Err(OpeningError::Siblings);
        }
        let chunks: Vec<(u64, &[u8])> = opening.chunks().collect();
        let mut left = Reading { chunks: &chunks, siblings };
        for (node, value) in known {
            let outside = |first| OpeningError::Outside { first, last: first };
            match left.chunks.first() {
                Some((first, _)) if *first < node.first => return Err(outside(*first)),
                Some((first, _)) if *first < node.end() => {}
                _ => continue,
            }
            if self.read(*node, &mut left).ok_or(OpeningError::Siblings)? != *value {
                return Err(OpeningError::Value);
            }
        }
        if let Some((first, _)) = left.chunks.first() {
            return Err(OpeningError::Outside { first: *first, last: *first });
        }
        if left.siblings.is_empty() { Ok(()) } else { Err(OpeningError::Siblings) }
    }

    /// The value of a node, from the chunks shown that are left, none of which is before it; `None` if values are missing.
    fn read(&self, node: Node, left: &mut Reading<'_>) -> Option<Value> {
        let Some((_, bytes)) = left.chunks.first().filter(|(first, _)| *first < node.end()) else {
            let (value, rest) = left.siblings.split_first()?;
            left.siblings = rest;
            return Some(*value);
        };
        match node.children() {
            Some((first, second)) => {
                let first = self.read(first, left)?;
                let second = self.read(second, left)?;
                Some(self.join(node, &first, &second))
            }
            None => {
                left.chunks = &left.chunks[1..];
                Some(self.value(node, bytes))
            }
        }
    }

    /// An opening of `shown`, which are chunks below `known` in order and once each, from whoever knows the bytes and values of
    /// nodes. `None` if they are not, or too many, or something is not known.
    pub fn open(
        &self,
        known: impl IntoIterator<Item = Node>,
        shown: &[u64],
        nodes: &impl Nodes,
    ) -> Option<Opening> {
        if shown.is_empty() || shown.len() > OPENING_CHUNKS_MAX || !shown.is_sorted_by(|a, b| a < b) {
            return None;
        }
        let mut runs: Vec<Run> = Vec::new();
        for &first in shown {
            let bytes = nodes.bytes(Node { first, chunks: 1 })?;
            match runs.last_mut().filter(|run| run.first + run.chunks() == first) {
                Some(run) => run.bytes.extend_from_slice(bytes),
                None => runs.push(Run { first, bytes: bytes.to_vec() }),
            }
        }
        let (mut siblings, mut left) = (Vec::new(), shown);
        for node in known {
            if left.first().is_some_and(|chunk| (node.first..node.end()).contains(chunk)) {
                beside(node, &mut left, &mut |node| {
                    siblings.extend(nodes.value(node)?);
                    Some(())
                })?;
            }
        }
        left.is_empty().then_some(Opening { runs, siblings })
    }

    /// How many bytes [`Tree::open`] shows, with the values beside them. `None` if `shown` are not chunks below `known`.
    pub fn opening_bytes(&self, known: impl IntoIterator<Item = Node>, shown: &[u64]) -> Option<u64> {
        let (mut values, mut left) = (0, shown);
        for node in known {
            if left.first().is_some_and(|chunk| (node.first..node.end()).contains(chunk)) {
                beside(node, &mut left, &mut |_| {
                    values += 1;
                    Some(())
                })?;
            }
        }
        let bytes = |first: &u64| self.bytes_below(Node { first: *first, chunks: 1 }) as u64;
        left.is_empty().then(|| shown.iter().map(bytes).sum::<u64>() + 32 * values)
    }
}

/// Tells the greatest nodes below `node` without a chunk that is shown, in order, and takes those shown off `left`, none of
/// which is before it.
fn beside(node: Node, left: &mut &[u64], tell: &mut dyn FnMut(Node) -> Option<()>) -> Option<()> {
    if left.first().is_none_or(|chunk| *chunk >= node.end()) {
        return tell(node);
    }
    match node.children() {
        Some((first, second)) => {
            beside(first, left, tell)?;
            beside(second, left, tell)
        }
        None => {
            *left = &left[1..];
            Some(())
        }
    }
}

/// What of an opening is not read yet.
struct Reading<'a> {
    chunks: &'a [(u64, &'a [u8])],
    siblings: &'a [Value],
}

/// Whoever knows parts of a string.
pub trait Nodes {
    /// The value of a node, if it is known.
    fn value(&self, node: Node) -> Option<Value>;
    /// The bytes below a node, if they are known.
    fn bytes(&self, node: Node) -> Option<&[u8]>;
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

    /// Opens chunks, in order, against the digest. `None` if they are not the string's, or more than one opening shows.
    pub fn open_chunks(&self, shown: &[u64]) -> Option<Opening> {
        self.tree.open([self.tree.root()], shown, self)
    }

    /// Opens the chunks of `shown`, which need not be a node, against a node that holds them. Panics if it does not, or they are
    /// more than one opening shows.
    pub fn open(&self, node: Node, shown: Node) -> Opening {
        let chunks: Vec<u64> = (shown.first..shown.end()).collect();
        let opening = self.tree.open([node], &chunks, self);
        opening.unwrap_or_else(|| panic!("{shown:?} is not in {node:?}, or too much for one opening"))
    }
}

impl<B: AsRef<[u8]>> Nodes for Hashed<B> {
    fn value(&self, node: Node) -> Option<Value> {
        (node.end() <= self.tree.root().chunks).then(|| Hashed::value(self, node))
    }

    fn bytes(&self, node: Node) -> Option<&[u8]> {
        (node.end() <= self.tree.root().chunks).then(|| self.bytes_below(node))
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

    /// Chunks of a string by a mask: whatever sets of them there are.
    fn chosen(chunks: u64, mask: u64) -> Vec<u64> {
        let of = |bit: u64| bit * chunks / 64;
        let mut chosen: Vec<u64> = (0..64).filter(|bit| mask >> bit & 1 == 1).map(of).collect();
        chosen.dedup();
        chosen.truncate(OPENING_CHUNKS_MAX);
        chosen
    }

    #[test]
    fn every_set_of_chunks_of_short_strings_has_one_opening() {
        for bytes in [0u64, 1, 1_024, 1_025, 3_000, 5 * 1_024, 6 * 1_024 - 1, 7 * 1_024] {
            let string = string(bytes as usize);
            for tree in trees(bytes) {
                let hashed = Hashed::new(tree, &string);
                let (root, digest) = (tree.root(), hashed.digest());
                let mut seen = std::collections::BTreeSet::new();
                for mask in 1..1u64 << root.chunks {
                    let shown: Vec<u64> = (0..root.chunks).filter(|chunk| mask >> chunk & 1 == 1).collect();
                    let opening = tree.open([root], &shown, &hashed).expect("its own chunks");
                    assert_eq!(tree.check(&digest, &opening), Ok(()), "{bytes}, {shown:?}");
                    assert_eq!(opening.chunks().map(|(index, _)| index).collect::<Vec<_>>(), shown);
                    assert_eq!(tree.opening_bytes([root], &shown), Some(opening.shown_bytes() as u64));
                    assert!(seen.insert(minicbor::to_vec(&opening).expect("memory")));
                }
                assert_eq!(tree.open([root], &[], &hashed), None);
                assert_eq!(tree.open([root], &[root.chunks], &hashed), None);
                assert_eq!(tree.open([root], &[0, 0], &hashed), None);
                assert_eq!(tree.open([], &[0], &hashed), None);
            }
        }
    }

    /// The same chunks told otherwise: cut apart, together, out of order, twice, or with values that are not needed.
    #[test]
    fn no_other_form_of_an_opening_is_taken() {
        let string = string(9 * 1_024 + 7);
        let tree = Tree::derived(DOMAIN, string.len() as u64).expect("short");
        let hashed = Hashed::new(tree, &string);
        let (root, digest) = (tree.root(), hashed.digest());
        let good = tree.open([root], &[1, 2, 5, 9], &hashed).expect("its own chunks");
        assert_eq!(tree.check(&digest, &good), Ok(()));
        assert_eq!(good.runs.len(), 3);
        let refused = |change: &dyn Fn(&mut Opening), why: OpeningError| {
            let mut other = good.clone();
            change(&mut other);
            assert_eq!(tree.check(&digest, &other), Err(why));
        };
        let adjacent = |opening: &mut Opening| {
            let rest = opening.runs[0].bytes.split_off(1_024);
            opening.runs.insert(1, Run { first: 2, bytes: rest });
        };
        refused(&adjacent, OpeningError::Order { first: 2 });
        refused(&|opening| opening.runs.swap(1, 2), OpeningError::Order { first: 5 });
        let twice = |opening: &mut Opening| opening.runs.insert(1, opening.runs[0].clone());
        refused(&twice, OpeningError::Order { first: 1 });
        let overlapping = |opening: &mut Opening| {
            let more = string[3 * 1_024..6 * 1_024].to_vec();
            opening.runs[0].bytes.extend(more);
        };
        refused(&overlapping, OpeningError::Order { first: 5 });
        let nothing = |opening: &mut Opening| opening.runs.insert(0, Run { first: 0, bytes: Vec::new() });
        refused(&nothing, OpeningError::Length { bytes: 0 });
        refused(&|opening| opening.runs[1].bytes.clear(), OpeningError::Length { bytes: 0 });
        refused(&|opening| opening.runs.clear(), OpeningError::Length { bytes: 0 });
        // The last chunk is shorter, and no other is.
        refused(&|opening| opening.runs[2].bytes.push(0), OpeningError::Length { bytes: 8 });
        refused(&|opening| opening.runs[1].bytes.truncate(7), OpeningError::Length { bytes: 7 });
        refused(&|opening| opening.runs[2].first = 10, OpeningError::Outside { first: 10, last: 10 });
        refused(
            &|opening| opening.runs[2].first = u64::MAX,
            OpeningError::Outside { first: u64::MAX, last: u64::MAX },
        );
        refused(&|opening| opening.siblings.truncate(31), OpeningError::Siblings);
        let more = vec![0; 32 * SIBLINGS_MAX + 32];
        refused(&|opening| opening.siblings = more.clone(), OpeningError::Siblings);
        // A chunk more is another opening, with a value less; with the values of this one it is none.
        let other = tree.open([root], &[1, 2, 4, 5, 9], &hashed).expect("its own chunks");
        assert_eq!(tree.check(&digest, &other), Ok(()));
        assert_eq!(other.siblings.len() + 32, good.siblings.len());
        refused(&|opening| opening.runs = other.runs.clone(), OpeningError::Value);
        let long = Opening::of_run(0, vec![0; 17 * 1_024], Vec::new());
        assert_eq!(tree.check(&digest, &long), Err(OpeningError::Length { bytes: 17 * 1_024 }));
    }

    /// An inner value told as a chunk, a node's value as the root's, a leaf twice: BLAKE3 tells them apart.
    #[test]
    fn parts_of_a_tree_are_not_passed_off_as_others() {
        let string = string(4 * 1_024);
        let tree = Tree::plain(string.len() as u64).expect("short");
        let hashed = Hashed::new(tree, &string);
        let (left, right) = tree.root().children().expect("four chunks");
        let values = [Hashed::value(&hashed, left), Hashed::value(&hashed, right)].concat();
        // The root's two children, as the whole of a string of 64 bytes.
        let short = Tree::plain(64).expect("short");
        let opening = Opening::of_run(0, values, Vec::new());
        assert_eq!(short.check(&hashed.digest(), &opening), Err(OpeningError::Value));
        // The left half, as a whole string.
        let half = Tree::plain(2_048).expect("short");
        let opening = Opening::of_run(0, string[..2_048].to_vec(), Vec::new());
        assert_eq!(half.check(&Hashed::value(&hashed, left), &opening), Err(OpeningError::Value));
        assert_eq!(tree.check_below(&[(left, Hashed::value(&hashed, left))], &opening), Ok(()));
        // A string whose halves are equal: each chunk is hashed with its place.
        let twice = [&string[..2_048], &string[..2_048]].concat();
        let doubled = Hashed::new(tree, &twice);
        let own = tree.open([left], &[0, 1], &doubled).expect("its own chunks");
        let mut moved = own.clone();
        moved.runs[0].first = 2;
        let known = [(left, Hashed::value(&doubled, left)), (right, Hashed::value(&doubled, right))];
        assert_eq!(tree.check_below(&known, &own), Ok(()));
        assert_eq!(tree.check_below(&known, &moved), Ok(()), "the same bytes are there too");
        assert_ne!(known[0].1, known[1].1);
        let wrong = [(left, known[0].1), (right, known[0].1)];
        assert_eq!(tree.check_below(&wrong, &moved), Err(OpeningError::Value));
    }

    proptest! {
        #[test]
        fn an_opening_shows_what_is_there_and_nothing_else(
            bytes in 1usize..40_000,
            mask in any::<u64>(),
            sparse in any::<[u64; 2]>(),
            flip in any::<prop::sample::Index>(),
        ) {
            let string = string(bytes);
            // As often few chunks as many.
            let mask = if flip.index(2) == 0 { mask } else { mask & sparse[0] & sparse[1] };
            for tree in trees(bytes as u64) {
                let hashed = Hashed::new(tree, &string);
                let (root, digest) = (tree.root(), hashed.digest());
                let shown = chosen(root.chunks, mask | 1 << flip.index(64));
                let opening = tree.open([root], &shown, &hashed).expect("its own chunks");
                prop_assert_eq!(tree.check(&digest, &opening), Ok(()));
                prop_assert_eq!(tree.opening_bytes([root], &shown), Some(opening.shown_bytes() as u64));
                for (index, chunk) in opening.chunks() {
                    let at = (index * CHUNK_BYTES) as usize;
                    prop_assert_eq!(chunk, &string[at..at + chunk.len()]);
                }
                let run = flip.index(opening.runs.len());
                let mut other = opening.clone();
                let at = flip.index(other.runs[run].bytes.len());
                other.runs[run].bytes[at] ^= 1;
                prop_assert_eq!(tree.check(&digest, &other), Err(OpeningError::Value));
                for by in [1, u64::MAX] {
                    let mut other = opening.clone();
                    other.runs[run].first = other.runs[run].first.wrapping_add(by);
                    prop_assert!(tree.check(&digest, &other).is_err());
                }
                let mut other = opening.clone();
                other.runs.remove(run);
                prop_assert!(tree.check(&digest, &other).is_err());
                let mut other = opening.clone();
                other.siblings.extend([0; 32]);
                prop_assert_eq!(tree.check(&digest, &other), Err(OpeningError::Siblings));
                let mut other = opening;
                if !other.siblings.is_empty() {
                    let at = flip.index(other.siblings.len());
                    other.siblings[at] ^= 1;
                    prop_assert_eq!(tree.check(&digest, &other), Err(OpeningError::Value));
                    other.siblings[at] ^= 1;
                    other.siblings.drain(at / 32 * 32..at / 32 * 32 + 32);
                    prop_assert!(tree.check(&digest, &other).is_err());
                }
            }
        }

        /// Against any nodes that are known, side by side, as a dispute has them.
        #[test]
        fn nodes_open_like_whole_strings(
            bytes in 4_097usize..40_000,
            turns in prop::collection::vec(any::<bool>(), 5),
            mask in any::<u64>(),
            flip in any::<prop::sample::Index>(),
        ) {
            let string = string(bytes);
            let tree = Tree::derived(DOMAIN, bytes as u64).expect("short");
            let hashed = Hashed::new(tree, &string);
            let (mut node, mut nodes) = (tree.root(), Vec::new());
            for right in turns {
                let Some(children) = node.children() else { break };
                nodes.extend(right.then_some(children.0));
                node = if right { children.1 } else { children.0 };
                prop_assert_eq!(tree.value(node, hashed.bytes_below(node)), hashed.value(node));
            }
            nodes.push(node);
            let known: Vec<(Node, Value)> = nodes.iter().map(|node| (*node, hashed.value(*node))).collect();
            let shown = chosen(node.end(), mask | 1 << flip.index(64));
            let opening = tree.open(nodes.iter().copied(), &shown, &hashed).expect("chunks below them");
            prop_assert_eq!(tree.check_below(&known, &opening), Ok(()));
            prop_assert_eq!(tree.opening_bytes(nodes.iter().copied(), &shown), Some(opening.shown_bytes() as u64));
            // Of another node's value nothing is shown, unless no chunk is below it.
            let mut other = known.clone();
            let at = flip.index(other.len());
            other[at].1[0] ^= 1;
            let touched = shown.iter().any(|chunk| (other[at].0.first..other[at].0.end()).contains(chunk));
            prop_assert_eq!(tree.check_below(&other, &opening).is_err(), touched);
            other.remove(at);
            prop_assert_eq!(tree.check_below(&other, &opening).is_err(), touched);
            if node.end() < tree.root().chunks {
                let beyond = Opening::of_run(node.end(), string[node.end() as usize * 1_024..][..1_024.min(bytes - node.end() as usize * 1_024)].to_vec(), Vec::new());
                let outside = OpeningError::Outside { first: node.end(), last: node.end() };
                prop_assert_eq!(tree.check_below(&known, &beyond), Err(outside));
            }
        }

        #[test]
        fn garbage_is_refused(
            bytes in prop_oneof![0..STRING_BYTES_MAX, 0u64..20_000],
            runs in prop::collection::vec(
                (prop_oneof![any::<u64>(), 0u64..20], prop::collection::vec(any::<u8>(), 0..2_100)),
                0..5,
            ),
            siblings in prop::collection::vec(any::<u8>(), 0..3_000),
            whole in any::<bool>(),
        ) {
            let tree = Tree::plain(bytes).expect("short enough");
            let whole_chunks = |bytes: &mut Vec<u8>| bytes.resize(bytes.len().next_multiple_of(1_024), 1);
            let run = |(first, mut bytes): (u64, Vec<u8>)| {
                if whole {
                    whole_chunks(&mut bytes);
                }
                Run { first, bytes }
            };
            let mut opening = Opening { runs: runs.into_iter().map(run).collect(), siblings };
            if whole {
                opening.siblings.resize(opening.siblings.len().next_multiple_of(32), 1);
            }
            let _ = (opening.bytes_at::<4>(bytes), opening.shown_bytes());
            prop_assert!(tree.check(&[7; 32], &opening).is_err());
            let inner = Node { first: 0, chunks: 1 };
            prop_assert!(tree.check_below(&[(inner, [7; 32])], &opening).is_err());
            let encoded = minicbor::to_vec(&opening).expect("memory");
            prop_assert_eq!(minicbor::decode::<Opening>(&encoded).expect("an opening"), opening);
        }
    }
}
