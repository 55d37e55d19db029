//! Row 2: the model's own weights, with fewer bits.

use xtask::gguf::{TensorType, dequantize_row, quantize_row};

use crate::engine::Honest;
use crate::liar::bundled_file;
use crate::{CASE, edited};

/// Q8_0 to Q4_0 and back: the same places in the file, the values of four bits.
fn to_four_bits(bytes: &mut [u8]) {
    for block in bytes.chunks_exact_mut(34) {
        let (mut values, mut fewer, mut back) = ([0.0; 32], Vec::new(), Vec::new());
        dequantize_row(TensorType::Q8_0, block, &mut values);
        quantize_row(TensorType::Q4_0, &values, &mut fewer);
        dequantize_row(TensorType::Q4_0, &fewer, &mut values);
        quantize_row(TensorType::Q8_0, &values, &mut back);
        block.copy_from_slice(&back);
    }
}

#[test]
fn one_tensor_of_four_bits_is_refused() {
    for tensor in ["blk.0.attn_v.weight", "blk.3.ffn_down.weight", "blk.5.attn_k.weight"] {
        let file = edited(bundled_file(), tensor, to_four_bits);
        CASE.refused_both_ways(&file, &Honest);
    }
}
