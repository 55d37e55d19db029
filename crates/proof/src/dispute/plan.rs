//! The plan of a model, as a dispute reads it (D-2).
//!
//! In:     a plan's chunks.
//! Out:    the model's numbers, where its tensors lie, in which format the kernels read them.
//! Touches: nothing.
//! Holds:  formats mean to the judge what they mean to the kernels.
//! Absent: the encoding, which is `surety_types::plan`'s: the engine makes plans and knows no disputes.

use surety_kernels::Format;
pub use surety_types::plan::{
    HEADER_WORDS, LayerSlot, MAX_END_TOKENS, Pairs, Plan, PlanError, PlanHeader, Product, Slot,
    SpellingEntry, TENSOR_WORDS, TensorEntry, TensorFormat,
};

use super::opening::{STRING_BYTES_MAX, Tree};
use surety_types::digest::domain;

const _: () =
    assert!(4 * HEADER_WORDS as u64 == super::opening::CHUNK_BYTES, "the header is the first chunk");
const _: () = assert!(surety_types::plan::MAX_FILE_BYTES <= STRING_BYTES_MAX, "a file can be opened");

/// How the kernels read a format.
pub fn kernel_format(format: TensorFormat) -> Format {
    match format {
        TensorFormat::F32 => Format::F32,
        TensorFormat::F16 => Format::F16,
        TensorFormat::BF16 => Format::BF16,
        TensorFormat::Q8_0 => Format::Q8_0,
        TensorFormat::Q4_0 => Format::Q4_0,
        TensorFormat::Q4_K => Format::Q4_K,
        TensorFormat::Q6_K => Format::Q6_K,
    }
}

/// The tree of a model's plan; its root is the digest in the manifest.
pub fn tree(header: &PlanHeader) -> Tree {
    Tree::derived(domain::PLAN, header.plan_bytes() as u64).expect("a plan is short")
}

/// The tree of what a model's ids spell; its root is the digest in the plan.
pub fn spelling_tree(header: &PlanHeader) -> Option<Tree> {
    let bytes = 4 * u64::from(header.vocabulary) + u64::from(header.spelling.pieces_bytes);
    Tree::derived(domain::SPELLING, bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats_are_the_kernels() {
        assert_eq!(TensorFormat::ALL.map(kernel_format), Format::ALL);
        for format in TensorFormat::ALL {
            let kernels = kernel_format(format);
            assert_eq!(format.name(), kernels.name());
            assert_eq!(format.block_elements() as usize, kernels.block_elements());
            assert_eq!(format.block_bytes() as usize, kernels.block_bytes());
            let entry = TensorEntry { format, columns: 1_024, rows: 1, offset: 0 };
            assert_eq!(entry.row_bytes() as usize, kernels.row_bytes(1_024));
            assert_eq!(TensorFormat::from_name(format.name()), Some(format));
        }
    }
}
