//! How large a leaf can be (D-5.8), for whatever answer of a model of such numbers.
//!
//! In:     a model's numbers.
//! Out:    bytes that the largest leaf shows, at most, with the values beside them.
//! Touches: nothing.
//! Holds:  no leaf of any trace of the model shows more, wherever its chunks begin. No number overflows anything.
//! Absent: how large one leaf is (`trace::leaf_bytes`); what is allowed (`chain`).
//!
//! A leaf opens the word and everything it is computed from (D-6), in whole chunks, each string once. Beside a run are the nodes
//! of the path on either side of it; between two runs of the trace that are near each other there are few nodes, however long
//! the trace is. Every term below is an upper bound, reached by some alignment or nearly so.

use super::layout::{By, DIGITS, IDS, LANES, PART, ROUNDS, SPAN, STANDING_WORDS, TILE, parts};
use super::opening::{CHUNK_BYTES, DEPTH_MAX};
use super::plan::{LayerSlot, Slot, TensorFormat};
use surety_types::spelling::PIECE_BYTES_MAX;

/// Bytes of a value.
const VALUE_BYTES: u64 = 32;
/// Words of a chunk.
const CHUNK_WORDS: u64 = CHUNK_BYTES / 4;
/// Levels of the greatest agreed node: it is a child of the root.
const AGREED_DEPTH: u64 = DEPTH_MAX as u64 - 1;
/// Values beside the chunk of the word itself, in a node of 8 chunks.
const OWN_VALUES: u64 = super::game::BYTES_CHUNKS_MAX.ilog2() as u64;

/// The numbers of a model that the size of its leaves follows from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Numbers {
    /// Layers.
    pub layers: u32,
    /// Elements of x.
    pub width: u32,
    /// Query heads.
    pub heads: u32,
    /// Elements of a head.
    pub head_dim: u32,
    /// Elements of a gated unit.
    pub feed_forward: u32,
    /// Tokens.
    pub vocabulary: u32,
    /// Positions.
    pub context: u32,
    /// Bytes of the file.
    pub file_bytes: u64,
    /// In which formats its tensors may be.
    pub formats: Vec<TensorFormat>,
}

/// What a leaf shows: so many chunks, with so many values beside them.
#[derive(Clone, Copy, Default)]
struct Shown {
    chunks: u64,
    values: u64,
}

impl std::ops::Add for Shown {
    type Output = Shown;

    fn add(self, other: Shown) -> Shown {
        let chunks = self.chunks.saturating_add(other.chunks);
        Shown { chunks, values: self.values.saturating_add(other.values) }
    }
}

impl Shown {
    fn bytes(self) -> u64 {
        let values = self.values.saturating_mul(VALUE_BYTES);
        self.chunks.saturating_mul(CHUNK_BYTES).saturating_add(values)
    }
}

/// The most chunks that consecutive words lie in.
fn chunks_of_words(words: u64) -> u64 {
    1 + (words - 1).div_ceil(CHUNK_WORDS)
}

/// The most chunks that consecutive bytes lie in.
fn chunks_of_bytes(bytes: u64) -> u64 {
    1 + (bytes - 1).div_ceil(CHUNK_BYTES)
}

/// Levels of the tree of so many bytes.
fn depth(bytes: u64) -> u64 {
    let chunks = bytes.div_ceil(CHUNK_BYTES).max(1);
    u64::from(u64::BITS - (chunks - 1).leading_zeros())
}

/// Consecutive chunks of a whole string. The most values are beside chunks in the middle, a path on either side, but for the
/// levels at which a path is among the chunks: of n chunks at least as many as n − 2 has ones.
fn run(chunks: u64, depth: u64) -> Shown {
    let values = match chunks {
        1 => depth,
        _ => (2 * depth).saturating_sub(2 + u64::from((chunks - 2).count_ones())),
    };
    Shown { chunks, values }
}

/// Words of the trace, anywhere left of the word: at the end of the greatest agreed node and the beginning of the one after it.
fn far(words: u64) -> Shown {
    let chunks = chunks_of_words(words);
    let values = match chunks {
        1 => AGREED_DEPTH,
        _ => 2 * AGREED_DEPTH - 1 - u64::from((chunks - 2).count_ones()),
    };
    Shown { chunks, values }
}

/// Words of the trace that end with the word itself, when nothing else of it is shown.
fn own(words: u64) -> Shown {
    let chunks = chunks_of_words(words);
    match chunks {
        1 => Shown { chunks, values: OWN_VALUES },
        _ => Shown { chunks, values: AGREED_DEPTH + OWN_VALUES },
    }
}

/// The most greatest nodes that so many consecutive chunks are made of: two of each size, from one chunk on.
fn between(chunks: u64) -> u64 {
    let (mut nodes, mut size, mut left) = (0, 1u64, chunks);
    while left >= size {
        left -= size;
        nodes += 1;
        // The second of a size is followed by the first of the next.
        if nodes % 2 == 0 {
            size *= 2;
        }
    }
    nodes
}

/// Runs of the trace from left to right, each by its words and by how many words at most are between it and the next; the last
/// ends with the word itself.
fn near(runs: &[(u64, u64)], own_words: u64) -> Shown {
    let mut all = Shown { chunks: chunks_of_words(own_words), values: AGREED_DEPTH + OWN_VALUES };
    for (words, gap) in runs {
        let values = between(gap.div_ceil(CHUNK_WORDS)).min(2 * AGREED_DEPTH);
        all = all + Shown { chunks: chunks_of_words(*words), values };
    }
    all
}

/// Bytes that the largest leaf of any answer shows, at most, with the values beside them.
pub fn leaf_bytes_max(numbers: &Numbers) -> u64 {
    leaves(numbers).into_iter().map(|(_, bytes)| bytes).max().unwrap_or_default()
}

/// The same for each kind of word, by the kinds that are largest.
pub fn leaves(numbers: &Numbers) -> Vec<(&'static str, u64)> {
    let number = |number: u32| u64::from(number.max(1));
    let (head_dim, vocabulary) = (number(numbers.head_dim), number(numbers.vocabulary));
    let attended = number(numbers.heads) * head_dim;
    let row = number(numbers.width).max(attended).max(number(numbers.feed_forward));
    let (context, tiles) = (number(numbers.context), vocabulary.div_ceil(TILE));
    // A plan ends where one more layer would begin.
    let plan = run(1, depth(Slot::Layer(numbers.layers, LayerSlot::AttentionNorm).bytes().start as u64));
    let file = |bytes: u64| run(chunks_of_bytes(bytes), depth(numbers.file_bytes));
    let ids = |count: u64| run(chunks_of_words(count), depth(context.saturating_mul(4)));
    let rotary_depth = depth(context.saturating_mul(head_dim).saturating_mul(4));
    let rotary = run(1, rotary_depth) + run(1, rotary_depth);
    let (mut weights, mut block) = (Shown::default(), Shown::default());
    for format in &numbers.formats {
        let (elements, bytes) = (u64::from(format.block_elements()), u64::from(format.block_bytes()));
        let own = [PART.div_ceil(elements) * bytes, bytes].map(file);
        weights = if own[0].bytes() > weights.bytes() { own[0] } else { weights };
        block = if own[1].bytes() > block.bytes() { own[1] } else { block };
    }
    let weight = file(4);
    let sums = |by: By| ROUNDS * (tiles * DIGITS * by.words() + 2 + by.words());
    // From the logits of a tile to its candidates: the other logits, the weights, the candidates before.
    let to_candidates = sums(By::Count) + tiles + 4 * vocabulary;
    let to_choice = sums(By::Weight) + 2 * tiles + 2 * vocabulary;
    let to_sums = tiles * DIGITS * By::Weight.words();
    let parts = parts(row);
    // Pieces are joined behind the table of their ends (D-2.4).
    let spelling_depth = depth(4 * vocabulary + (1 << 31));
    let ends = run(chunks_of_words(2), spelling_depth);
    let piece = run(chunks_of_bytes(PIECE_BYTES_MAX as u64), spelling_depth);
    let all = [
        ("length spelled", ends + ids(1) + own(2)),
        ("text", ends + piece + ids(1) + own(4)),
        ("standing in a grammar", ends + piece + ids(1) + own(2 * STANDING_WORDS)),
        ("exclusion", far(STANDING_WORDS) + ends + piece + plan + own(1)),
        ("embedding", block + ids(1) + plan + own(1)),
        ("lanes", far(PART) + own(2 * LANES)),
        ("inv", far(LANES) + own(1)),
        ("y of a norm", far(1) + far(1) + weight + plan + own(1)),
        ("segment", far(PART) + weights + plan + own(1)),
        ("total", far(parts) + weight + plan + own(1)),
        ("query, key", far(1) + far(1) + rotary + own(1)),
        ("score", far(head_dim) + far(head_dim) + own(1)),
        ("greatest score, normaliser", far(SPAN) + own(2)),
        ("value sum", far(SPAN) + far(SPAN) + own(2)),
        ("residual, gated unit, weight, output of a head", far(1) + far(1) + own(1)),
        ("chunk of the states' tree", far(CHUNK_WORDS) + own(1)),
        ("node of the states' tree", far(16) + own(1)),
        ("presence, repeats", far(1) + ids(IDS) + own(1)),
        ("counts", far(1) + ids(1) + own(1)),
        ("adjusted logit", far(1) + far(1) + far(1) + far(1) + own(1)),
        ("best, greatest logit", far(TILE) + own(4)),
        ("sampling weight", far(1) + far(1) + own(1)),
        ("candidate, kept", far(2) + far(1) + far(2) + own(1)),
        ("sum of candidates or of those kept", far(2 * TILE) + own(4)),
        (
            "sum of a selection by weight",
            near(
                &[(TILE, to_candidates), (2 * TILE, to_choice), (2, to_sums)],
                // The sum before, and the word.
                2 * (DIGITS + 1),
            ),
        ),
        ("choice", far(2) + far(4) + own(2 * DIGITS + 4)),
        ("sampled id", near(&[(2 * TILE, 2 * vocabulary)], 2 * tiles + 1)),
    ];
    all.into_iter().map(|(kind, shown)| (kind, shown.bytes())).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use surety_types::plan::MAX_FILE_BYTES;

    use super::super::{
        judge::SHOWN_BYTES_MAX,
        layout::VOCABULARY_MAX,
        opening::{Node, Tree},
        plan::{Pairs, PlanHeader, SpellingEntry},
    };
    use super::*;

    /// The most that D-2.2, D-2.3 and D-3.11 allow of everything, all at once.
    fn greatest() -> Numbers {
        Numbers {
            layers: 448,
            width: 65_536,
            heads: 1_024,
            head_dim: 256,
            feed_forward: 524_288,
            vocabulary: VOCABULARY_MAX,
            context: 1 << 20,
            file_bytes: MAX_FILE_BYTES,
            formats: TensorFormat::ALL.to_vec(),
        }
    }

    /// Whether a plan has such numbers.
    fn is_planned(numbers: &Numbers) -> bool {
        let header = PlanHeader {
            pairs: Pairs::Halves,
            layers: numbers.layers,
            width: numbers.width,
            heads: numbers.heads,
            kv_heads: 1,
            head_dim: numbers.head_dim,
            feed_forward: numbers.feed_forward,
            vocabulary: numbers.vocabulary,
            context: numbers.context,
            eps: 1.0,
            q_norm: false,
            k_norm: false,
            end_tokens: Vec::new(),
            spelling: SpellingEntry::default(),
        };
        header.check().is_ok()
    }

    #[test]
    fn no_leaf_of_any_model_is_larger_than_what_a_judge_reads() {
        assert!(is_planned(&greatest()));
        let more: [fn(&mut Numbers); 6] = [
            |numbers| numbers.layers += 1,
            |numbers| numbers.width += 32,
            |numbers| numbers.heads += 1,
            |numbers| numbers.head_dim += 32,
            |numbers| numbers.feed_forward += 32,
            |numbers| numbers.context += 1,
        ];
        for more in more {
            let mut numbers = greatest();
            more(&mut numbers);
            assert!(!is_planned(&numbers), "the greatest is the greatest: {numbers:?}");
        }
        let mut leaves = leaves(&greatest());
        leaves.sort_by_key(|(_, bytes)| std::cmp::Reverse(*bytes));
        leaves.iter().for_each(|(kind, bytes)| println!("{kind}: {bytes}"));
        assert!(leaves[0].1 <= SHOWN_BYTES_MAX as u64, "{:?}", leaves[0]);
        // With twice the tokens it would be.
        let vocabulary = 2 * VOCABULARY_MAX;
        assert!(leaf_bytes_max(&Numbers { vocabulary, ..greatest() }) > SHOWN_BYTES_MAX as u64);
        // And no number is too great to be told so.
        let most = u32::MAX;
        let beyond = Numbers {
            layers: most,
            width: most,
            heads: most,
            head_dim: most,
            feed_forward: most,
            vocabulary: most,
            context: most,
            file_bytes: u64::MAX,
            formats: Vec::new(),
        };
        assert!(leaf_bytes_max(&beyond) > 1 << 24);
        let none = Numbers { layers: 0, width: 0, heads: 0, head_dim: 0, feed_forward: 0, ..beyond };
        let none = Numbers { vocabulary: 0, context: 0, file_bytes: 0, ..none };
        assert!(leaf_bytes_max(&none) > 0);
    }

    /// The bounds on values, against every place in trees of every size.
    #[test]
    fn no_run_has_more_values_beside_it() {
        for all in 1..=70u64 {
            let tree = Tree::plain(all * CHUNK_BYTES).expect("short");
            for chunks in 1..=all.min(10) {
                let beside = |first: u64| {
                    let shown: Vec<u64> = (first..first + chunks).collect();
                    let bytes = tree.opening_bytes([tree.root()], &shown).expect("its own chunks");
                    (bytes - chunks * CHUNK_BYTES) / VALUE_BYTES
                };
                let most = (0..=all - chunks).map(beside).max().expect("a place");
                let bound = run(chunks, depth(all * CHUNK_BYTES)).values;
                assert!(most <= bound, "{chunks} of {all}: {most}, not {bound}");
                if all.is_power_of_two() && chunks <= all / 2 {
                    assert_eq!(most, bound, "{chunks} of {all}: it is reached");
                }
            }
        }
    }

    /// The values between two runs, against every two chunks of a tree.
    #[test]
    fn no_gap_has_more_nodes() {
        let tree = Tree::plain(128 * CHUNK_BYTES).expect("short");
        let values = |shown: &[u64]| {
            let bytes = tree.opening_bytes([tree.root()], shown).expect("its own chunks");
            (bytes - shown.len() as u64 * CHUNK_BYTES) / VALUE_BYTES
        };
        let mut reached = BTreeSet::new();
        for first in 0..127u64 {
            for second in first + 1..128u64 {
                // What is left of the one and right of the other is beside them in any case.
                let outside = first.count_ones() + (127 - second).count_ones();
                let gap = second - first - 1;
                let found = values(&[first, second]) - u64::from(outside);
                assert!(found <= between(gap), "{gap} chunks: {found} nodes");
                if found == between(gap) {
                    reached.insert(gap);
                }
            }
        }
        assert!(reached.contains(&62) && reached.contains(&30) && reached.contains(&22), "{reached:?}");
    }

    /// Values left and right of a run in the greatest agreed node and the one after it.
    #[test]
    fn no_run_of_agreed_nodes_has_more_values_beside_it() {
        let tree = Tree::plain(64 * CHUNK_BYTES).expect("short");
        let whole = Node { first: 0, chunks: 32 };
        let next = Node { first: 32, chunks: 16 };
        for chunks in 1..=10u64 {
            let beside = |first: u64| {
                let shown: Vec<u64> = (first..first + chunks).collect();
                let bytes = tree.opening_bytes([whole, next], &shown).expect("below both");
                (bytes - chunks * CHUNK_BYTES) / VALUE_BYTES
            };
            let most = (0..=48 - chunks).map(beside).max().expect("a place");
            // The bound is for all levels there can be; here there are five.
            let levels = if chunks == 1 { AGREED_DEPTH - 5 } else { 2 * (AGREED_DEPTH - 5) };
            let bound = far((chunks - 1) * CHUNK_WORDS + 1).values - levels;
            assert!(most <= bound, "{chunks}: {most}, not {bound}");
        }
    }
}
