//! The worst leaf of a dispute: how many bytes a judge could be shown for one word of a model's trace (D-5.8).
//!
//! In:     a manifest.
//! Out:    a bound on the leaves of its traces, or why it can have none.
//! Absent: the bound itself, which is `surety_proof`'s.

use surety_proof::dispute::{
    plan::TensorFormat,
    size::{Numbers, leaf_bytes_max},
};
use surety_types::Manifest;

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
    /// One file, and no plan of it.
    #[error("a model in one file has a plan, and this one names none")]
    Plan,
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
    let formats = manifest.formats.iter().map(|format| {
        TensorFormat::from_name(&format.name).ok_or_else(|| LeafError::Format(format.name.clone()))
    });
    Ok(leaf_bytes_max(&Numbers {
        layers: manifest.layers,
        width: manifest.width,
        heads: manifest.heads,
        head_dim: manifest.head_dim,
        feed_forward: manifest.feed_forward,
        vocabulary: manifest.vocabulary,
        context: manifest.context,
        file_bytes: manifest.files.iter().map(|file| file.bytes).max().unwrap_or_default(),
        formats: formats.collect::<Result<_, _>>()?,
    }))
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
            claims: None,
        }
    }

    #[test]
    fn ordinary_models_are_within_the_bound() {
        assert_eq!(Params::default().dispute_leaf_bytes_max, SHOWN_BYTES_MAX as u64, "what a judge reads");
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
        check(|m| m.plan = None, LeafError::Plan);
        let mut wide = manifest();
        wide.vocabulary = 1 << 20;
        assert!(dispute_leaf_bytes(&wide).expect("computable") > 16_384);
        wide.head_dim = u32::MAX;
        (wide.heads, wide.kv_heads, wide.context) = (u32::MAX, 1, u32::MAX);
        wide.files[0].bytes = u64::MAX;
        assert!(dispute_leaf_bytes(&wide).expect("computable") > 16_384);
    }
}
