//! The worst leaf of a dispute: how many bytes a judge could be shown for one word of a model's trace (D-5.8).
//!
//! A leaf opens the word and everything it is computed from (D-6), in whole chunks, each run of them with the values of the
//! nodes beside it. Most of what a word is computed from lies shortly before it, at the end of an agreed node: beside
//! such a run are the nodes of one path, and few on its other side. Keys, values and counts lie far away: beside those
//! are the nodes of two paths. Every term below is an upper bound.

use surety_proof::dispute::{
    game::TRACE_WORDS_MAX,
    layout::{TILE, parts},
    plan::{TENSOR_WORDS, TensorFormat},
};
use surety_types::Manifest;

/// Elements of a segment.
const SEGMENT: u64 = 1_024;
const WORD_BYTES: u64 = 4;
const VALUE_BYTES: u64 = 32;
/// BLAKE3.
const CHUNK_BYTES: u64 = 1_024;
/// Levels of the tree of the longest trace.
const TRACE_DEPTH: u64 = (TRACE_WORDS_MAX * WORD_BYTES / CHUNK_BYTES).ilog2() as u64;
/// Levels above all that one output's sampling, or one position's layer, takes of a trace.
const NEAR_DEPTH: u64 = 12;
/// Levels of the tree of the ids.
const IDS_DEPTH: u64 = 12;
/// Chunks of the node in dispute, when it is bytes, have so many values beside one of them.
const OWN_BYTES: u64 = CHUNK_BYTES + 6 * VALUE_BYTES;

/// Why a model cannot be judged.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LeafError {
    /// A format without arithmetic.
    #[error("the arithmetic knows no format {0}")]
    Format(String),
    /// A number that no model has.
    #[error("{0} is zero")]
    Zero(&'static str),
    /// Query heads that share no key/value heads evenly.
    #[error("heads are no multiple of kv_heads")]
    Heads,
    /// Numbers beyond 64 bits.
    #[error("its numbers overflow")]
    Overflow,
    /// One file, and no plan of it.
    #[error("a model in one file has a plan, and this one names none")]
    Plan,
}

/// Tensors of a plan that are no layer's, and those of a layer (D-2.3).
const PLAN_TENSORS: u64 = 4;
const PLAN_TENSORS_OF_A_LAYER: u64 = 18;

/// Elements and bytes of a block.
fn format_block(name: &str) -> Option<(u64, u64)> {
    let format = TensorFormat::from_name(name)?;
    Some((format.block_elements().into(), format.block_bytes().into()))
}

/// Levels of the tree of so many bytes.
fn depth(bytes: u64) -> u64 {
    u64::from(bytes.div_ceil(CHUNK_BYTES).max(1).next_power_of_two().ilog2())
}

/// The most chunks that consecutive bytes lie in, if they begin at a word.
fn chunks(bytes: u64) -> u64 {
    if bytes == WORD_BYTES { 1 } else { bytes.saturating_sub(WORD_BYTES).div_ceil(CHUNK_BYTES) + 1 }
}

/// So many words of the trace shortly before the disputed one.
fn near(words: u64) -> u64 {
    let chunks = chunks(WORD_BYTES * words);
    chunks * CHUNK_BYTES + (TRACE_DEPTH + NEAR_DEPTH + depth(chunks * CHUNK_BYTES) + 1) * VALUE_BYTES
}

/// So many words of the trace anywhere before it.
fn far(words: u64) -> u64 {
    chunks(WORD_BYTES * words) * CHUNK_BYTES + 2 * TRACE_DEPTH * VALUE_BYTES
}

/// So many bytes of another string of this depth.
fn of_string(bytes: u64, depth: u64) -> u64 {
    chunks(bytes.max(2)) * CHUNK_BYTES + 2 * depth * VALUE_BYTES
}

/// The most bytes a leaf of a dispute about this model can take, with its openings.
pub fn dispute_leaf_bytes(manifest: &Manifest) -> Result<u64, LeafError> {
    let dimensions = [
        (manifest.layers, "layers"),
        (manifest.width, "width"),
        (manifest.heads, "heads"),
        (manifest.kv_heads, "kv_heads"),
        (manifest.head_dim, "head_dim"),
        (manifest.feed_forward, "feed_forward"),
        (manifest.vocabulary, "vocabulary"),
        (manifest.context, "context"),
    ];
    if let Some((_, name)) = dimensions.into_iter().find(|(value, _)| *value == 0) {
        return Err(LeafError::Zero(name));
    }
    if !manifest.heads.is_multiple_of(manifest.kv_heads) {
        return Err(LeafError::Heads);
    }
    if manifest.formats.is_empty() || manifest.files.is_empty() {
        return Err(LeafError::Zero(if manifest.formats.is_empty() { "formats" } else { "files" }));
    }
    // D-2.1: of what cannot be disputed only models in several files are admitted, and served for nothing.
    if manifest.files.len() == 1 && manifest.plan.is_none() {
        return Err(LeafError::Plan);
    }
    let file_depth = depth(manifest.files.iter().map(|file| file.bytes).max().unwrap_or_default());
    let (head_dim, context) = (u64::from(manifest.head_dim), u64::from(manifest.context));
    let attention = u64::from(manifest.heads).checked_mul(head_dim).ok_or(LeafError::Overflow)?;
    let row = u64::from(manifest.width).max(u64::from(manifest.feed_forward)).max(attention);
    let tensors = PLAN_TENSORS + PLAN_TENSORS_OF_A_LAYER * u64::from(manifest.layers);
    let plan_bytes = CHUNK_BYTES + TENSOR_WORDS as u64 * WORD_BYTES * tensors;
    let plan = CHUNK_BYTES + depth(plan_bytes) * VALUE_BYTES;
    let rotary_depth = depth(context.saturating_mul(head_dim * WORD_BYTES));
    let weight = of_string(WORD_BYTES, file_depth);

    let (mut segment, mut embedding) = (0, 0);
    for format in &manifest.formats {
        let (elements, bytes) =
            format_block(&format.name).ok_or_else(|| LeafError::Format(format.name.clone()))?;
        let blocks = SEGMENT.div_ceil(elements);
        segment = segment.max(of_string(blocks * bytes, file_depth) + near(SEGMENT) + plan);
        embedding = embedding.max(of_string(bytes, file_depth) + of_string(WORD_BYTES, IDS_DEPTH) + plan);
    }
    let tiles = u64::from(manifest.vocabulary).div_ceil(TILE);
    let kinds = [
        segment,
        embedding,
        // Lanes, a total, an element of a norm.
        near(16) + near(SEGMENT),
        near(parts(row)) + weight + plan,
        2 * near(1) + weight + plan,
        // A query or a key; a score; a value sum.
        2 * near(1) + 2 * of_string(WORD_BYTES, rotary_depth),
        near(head_dim) + far(head_dim),
        near(1) + near(512) + far(512),
        // Presence and repeats; an adjusted logit; a sum of a selection; its choice; the sampled id.
        far(1) + of_string(256 * WORD_BYTES, IDS_DEPTH),
        2 * near(1) + far(1),
        near(2) + near(TILE) + near(2 * TILE) + near(4),
        near(2 * 256) + near(4),
        near(2 * tiles) + near(2 * TILE),
    ];
    Ok(OWN_BYTES + kinds.into_iter().max().unwrap_or_default())
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::params::Params;
    use surety_proof::dispute::judge::SHOWN_BYTES_MAX;
    use surety_types::{Digest, FileDigest, FormatSummary};

    pub(crate) fn manifest() -> Manifest {
        Manifest {
            name: "sample".into(),
            files: vec![FileDigest {
                name: "sample.gguf".into(),
                bytes: 639_446_688,
                blake3: Digest([3; 32]),
            }],
            architecture: "qwen3".into(),
            layers: 28,
            width: 1_024,
            heads: 16,
            kv_heads: 8,
            head_dim: 128,
            feed_forward: 3_072,
            vocabulary: 151_936,
            context: 40_960,
            formats: ["F32", "Q8_0"]
                .map(|name| FormatSummary { name: name.into(), tensors: 100, bytes: 1 << 20 })
                .to_vec(),
            tokenizer_digest: Digest([4; 32]),
            template_digest: None,
            arithmetic: 1,
            rotary_digest: Digest([5; 32]),
            plan: Some(Digest([6; 32])),
        }
    }

    #[test]
    fn ordinary_models_are_within_the_bound() {
        assert_eq!(Params::default().dispute_leaf_bytes_max, SHOWN_BYTES_MAX as u64, "what a judge reads");
        let bytes = dispute_leaf_bytes(&manifest()).expect("admissible");
        assert!((8_192..=20_480).contains(&bytes), "{bytes}");
        // 70 billion parameters, 8-bit.
        let mut large = manifest();
        (large.layers, large.width, large.heads, large.feed_forward) = (80, 8_192, 64, 28_672);
        large.files[0].bytes = 75_000_000_000;
        let bytes = dispute_leaf_bytes(&large).expect("admissible");
        assert!(bytes <= 20_480, "{bytes}");
    }

    #[test]
    fn a_model_nobody_could_judge_is_named_as_such() {
        let check = |change: fn(&mut Manifest), expected: LeafError| {
            let mut changed = manifest();
            change(&mut changed);
            assert_eq!(dispute_leaf_bytes(&changed), Err(expected));
        };
        check(|m| m.formats[1].name = "Q3_K".into(), LeafError::Format("Q3_K".into()));
        check(|m| m.layers = 0, LeafError::Zero("layers"));
        check(|m| m.kv_heads = 3, LeafError::Heads);
        check(|m| m.formats.clear(), LeafError::Zero("formats"));
        check(|m| m.plan = None, LeafError::Plan);
        let mut wide = manifest();
        wide.vocabulary = 1 << 20;
        assert!(dispute_leaf_bytes(&wide).expect("computable") > 20_480);
        wide.head_dim = u32::MAX;
        (wide.heads, wide.kv_heads, wide.context) = (u32::MAX, 1, u32::MAX);
        wide.files[0].bytes = u64::MAX;
        assert!(dispute_leaf_bytes(&wide).expect("computable") > 20_480);
    }
}
