//! The matrix product as A-3 defines it, one output at a time.

use super::{SEGMENT_BLOCKS, Task};
use crate::activations::{BLOCK, Block};
use crate::pack::{UnpackedRow, unpack_row};
use crate::step;

const _: () = assert!(SEGMENT_BLOCKS * BLOCK == step::SEGMENT_ELEMENTS);

/// The outputs of a task.
pub(super) fn run(task: &Task<'_>) {
    let quantised = task.matrix.format().is_quantised();
    for n in task.outputs() {
        let weights = unpack_row(task.matrix, n);
        for row in task.rows.clone() {
            let block = |b| task.input.blocks()[task.input.block_index(row, b)];
            let count = if quantised { task.matrix.columns() / BLOCK } else { 0 };
            let blocks: Vec<Block> = (0..count).map(block).collect();
            // SAFETY: the task's own output, and the borrow ends here.
            #[allow(unsafe_code)]
            let out = unsafe { task.out(row, n..n + 1) };
            out[0] = product(&weights, task.input.row_f32(row), &blocks);
        }
    }
}

/// The product of one weight row and one activation row: its float form, and its blocks if the format is quantised.
fn product(weights: &UnpackedRow, floats: &[f32], blocks: &[Block]) -> f32 {
    let mut blocks = blocks.chunks(SEGMENT_BLOCKS);
    let segments: Vec<f32> = floats
        .chunks(step::SEGMENT_ELEMENTS)
        .enumerate()
        .map(|(s, floats)| {
            step::chain(weights, s * step::SEGMENT_ELEMENTS, floats, blocks.next().unwrap_or_default())
        })
        .collect();
    step::total(&segments, None)
}
