//! The matrix product as A-3 defines it, one output at a time.

use super::{SEGMENT_BLOCKS, Task};
use crate::activations::{BLOCK, Block};
use crate::pack::{UnpackedRow, unpack_row};

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
    match weights {
        //
        UnpackedRow::Float { weights } => {
            let chain = |acc: f32, (w, x): (&f32, &f32)| w.mul_add(*x, acc);
            let segment = SEGMENT_BLOCKS * BLOCK;
            sum_segments(weights.len().div_ceil(segment), |s| {
                let range = s * segment..weights.len().min((s + 1) * segment);
                weights[range.clone()].iter().zip(&floats[range]).fold(0.0, chain)
            })
        }
        //
        UnpackedRow::Simple { scales, weights } => sum_blocks(blocks, |acc, b, x| {
            let s = dot(&weights[b * BLOCK..][..BLOCK], &x.quants);
            (s as f32).mul_add(scales[b] * x.scale, acc)
        }),
        //
        UnpackedRow::Minimum { scales, minima, weights } => sum_blocks(blocks, |acc, b, x| {
            let s = dot(&weights[b * BLOCK..][..BLOCK], &x.quants);
            let acc = (s as f32).mul_add(scales[b] * x.scale, acc);
            let sum: i32 = x.quants.iter().map(|q| i32::from(*q)).sum();
            minima[b].mul_add(-(sum as f32 * x.scale), acc)
        }),
        //
        UnpackedRow::Halves { scales, halves, weights } => sum_blocks(blocks, |acc, b, x| {
            let (w, q) = (&weights[b * BLOCK..][..BLOCK], &x.quants);
            let s = halves[b][0] * dot(&w[..16], &q[..16]) + halves[b][1] * dot(&w[16..], &q[16..]);
            (s as f32).mul_add(scales[b] * x.scale, acc)
        }),
    }
}

/// over quantised blocks: `step(acc, b, block)` continues a chain with block b.
fn sum_blocks(blocks: &[Block], step: impl Fn(f32, usize, &Block) -> f32) -> f32 {
    sum_segments(blocks.len().div_ceil(SEGMENT_BLOCKS), |s| {
        let first = s * SEGMENT_BLOCKS;
        let last = blocks.len().min(first + SEGMENT_BLOCKS);
        (first..last).fold(0.0, |acc, b| step(acc, b, &blocks[b]))
    })
}

/// `total = seg₀`, then `total + seg_j` in order.
fn sum_segments(count: usize, segment: impl Fn(usize) -> f32) -> f32 {
    (1..count).fold(segment(0), |total, j| total + segment(j))
}

/// Σ w·q, exactly.
fn dot(w: &[i32], q: &[i8]) -> i32 {
    w.iter().zip(q).map(|(w, q)| w * i32::from(*q)).sum()
}
