//! The worst leaf of a dispute: how many bytes a judge could be shown for one step of a model.
//!
//! A leaf is one step with everything it is computed from: one weight row times one activation row over a segment of
//! 1,024 elements; one attention score; one accumulator step over a page of 16 positions; one tree of a norm; one tile
//! of the sampler. Weights open against the file's own BLAKE3 tree, everything else against 16-ary Merkle trees. Every
//! term below is an upper bound.

use surety_types::Manifest;

/// Elements of a segment, a tile of the sampler and a tree of a norm.
const SEGMENT: u64 = 1_024;
/// Positions of a page.
const PAGE_POSITIONS: u64 = 16;
/// Identities, positions and lengths around a leaf.
const FRAME_BYTES: u64 = 512;
const F32_BYTES: u64 = 4;
const F16_BYTES: u64 = 2;
const HASH_BYTES: u64 = 32;
/// BLAKE3.
const CHUNK_BYTES: u64 = 1_024;

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
}

/// Elements and bytes of a block, and whether activations are quantised for it.
fn format_block(name: &str) -> Option<(u64, u64, bool)> {
    Some(match name {
        "F32" => (1, 4, false),
        "F16" | "BF16" => (1, 2, false),
        "Q8_0" => (32, 34, true),
        "Q4_0" => (32, 18, true),
        "Q5_0" => (32, 22, true),
        "Q4_K" => (256, 144, true),
        "Q5_K" => (256, 176, true),
        "Q6_K" => (256, 210, true),
        "IQ4_XS" => (256, 136, true),
        _ => return None,
    })
}

/// Bytes of a path in a 16-ary Merkle tree over so many leaves.
fn path_bytes(leaves: u64) -> u64 {
    let mut levels = 0;
    let mut left = leaves.max(1);
    while left > 1 {
        left = left.div_ceil(16);
        levels += 1;
    }
    levels * 15 * HASH_BYTES
}

/// Bytes of an opening of `bytes` somewhere in a file: whole chunks, and the nodes on both edges.
fn file_opening_bytes(bytes: u64, file_bytes: u64) -> u64 {
    let chunks = bytes.div_ceil(CHUNK_BYTES) + 1;
    let depth = u64::from(u64::BITS - file_bytes.div_ceil(CHUNK_BYTES).leading_zeros());
    8 + chunks * CHUNK_BYTES + (chunks + 2 * depth) * 2 * HASH_BYTES
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
    let file_bytes = manifest.files.iter().map(|file| file.bytes).max().unwrap_or_default();
    let head_dim = u64::from(manifest.head_dim);
    let row_elements = u64::from(manifest.width)
        .max(u64::from(manifest.feed_forward))
        .max(u64::from(manifest.heads).checked_mul(head_dim).ok_or(LeafError::Overflow)?);
    let row_path = path_bytes(row_elements.div_ceil(SEGMENT));
    let context = u64::from(manifest.context);

    let mut product = 0;
    for format in &manifest.formats {
        let (elements, bytes, quantised) =
            format_block(&format.name).ok_or_else(|| LeafError::Format(format.name.clone()))?;
        let weights = file_opening_bytes(SEGMENT / elements * bytes, file_bytes);
        let activations = if quantised { SEGMENT + SEGMENT / 32 * F32_BYTES } else { SEGMENT * F32_BYTES };
        product = product.max(weights + activations);
    }
    // Input, output, and the running total between segments.
    let product = product + 2 * row_path + 2 * F32_BYTES;
    let page_path = path_bytes(context.div_ceil(PAGE_POSITIONS));
    let score = head_dim * (F32_BYTES + F16_BYTES) + page_path + row_path;
    let step = head_dim.checked_mul(PAGE_POSITIONS * F16_BYTES + 2 * F32_BYTES).ok_or(LeafError::Overflow)?
        + PAGE_POSITIONS * F32_BYTES
        + 2 * page_path;
    let norm = SEGMENT.min(row_elements) * F32_BYTES
        + file_opening_bytes(SEGMENT.min(row_elements) * F32_BYTES, file_bytes)
        + 2 * row_path;
    let sampler = SEGMENT * F32_BYTES + 2 * path_bytes(u64::from(manifest.vocabulary).div_ceil(SEGMENT));
    Ok(FRAME_BYTES + product.max(score).max(step).max(norm).max(sampler))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
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
            plan: None,
        }
    }

    #[test]
    fn ordinary_models_are_within_the_bound() {
        let bytes = dispute_leaf_bytes(&manifest()).expect("admissible");
        assert!((8_192..=16_384).contains(&bytes), "{bytes}");
        // 70 billion parameters, 8-bit.
        let mut large = manifest();
        (large.layers, large.width, large.heads, large.feed_forward) = (80, 8_192, 64, 28_672);
        large.files[0].bytes = 75_000_000_000;
        let bytes = dispute_leaf_bytes(&large).expect("admissible");
        assert!(bytes <= 16_384, "{bytes}");
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
        let mut wide = manifest();
        wide.head_dim = 512;
        assert!(dispute_leaf_bytes(&wide).expect("computable") > 16_384);
        wide.head_dim = u32::MAX;
        (wide.heads, wide.kv_heads, wide.context) = (u32::MAX, 1, u32::MAX);
        wide.files[0].bytes = u64::MAX;
        assert!(dispute_leaf_bytes(&wide).expect("computable") > 16_384);
    }
}
