//! The matrix product: rows of activations by packed weights.
//!
//! In:     activations, float or quantised as the weights need; one or more packed matrices that share them.
//! Out:    every output [activation rows, weight rows] f32, with its bias if it has one.
//! Holds:  an output is a function of its weight row and activation row alone: never of the other rows, the
//!         threads, the tiles or the backend.
//! Absent: quantisation of activations. That is `quantise`.

mod kernel;
mod scalar;
#[cfg(test)]
mod tests;

use crate::activations::PANEL;
use crate::backend::Available;
use crate::lane::instances;
use crate::pack::{ROWS, tile_bytes};
use crate::parts::Parts;
use crate::{Activations, Executor, Format, Forms, Matrix};
use std::ops::Range;

/// Blocks of 32 elements in a segment of a chain.
pub(crate) const SEGMENT_BLOCKS: usize = 32;

/// One product of a step: a matrix, its bias, and where the result goes.
pub struct Output<'a> {
    /// The weights.
    pub matrix: Matrix<'a>,
    /// One value per weight row, added to the finished product.
    pub bias: Option<&'a [f32]>,
    /// [activation rows, weight rows], overwritten.
    pub out: &'a mut [f32],
}

impl Executor {
    /// Multiplies `activations` [rows, columns] by each output's matrix.
    ///
    /// Panics if a shape disagrees, or if a quantised matrix meets activations kept as `Forms::Float`.
    pub fn matmul(&self, activations: &Activations, outputs: &mut [Output<'_>]) {
        let rows = activations.rows();
        for output in outputs.iter() {
            assert_eq!(
                output.matrix.columns(),
                activations.columns(),
                "columns of the weights and activations"
            );
            assert_eq!(output.out.len(), rows * output.matrix.rows(), "room for the product");
            let quantised = activations.forms() == Forms::Quantised;
            assert!(
                quantised || !output.matrix.format().is_quantised(),
                "quantised weights, float activations"
            );
            assert!(
                output.bias.is_none_or(|bias| bias.len() == output.matrix.rows()),
                "one bias per weight row"
            );
        }
        let columns = activations.columns();
        let rows = activations.rows();
        if rows == 0 {
            return;
        }
        // What one item takes: tiles of one output, and rows of the activations.
        let threads = self.threads().get();
        let row_chunks = rows.div_ceil(ROWS_AT_ONCE);
        let jobs: Vec<Job<'_>> = outputs
            .iter_mut()
            .map(|output| {
                let matrix = output.matrix;
                let tiles = matrix.tiles();
                let bytes = tile_bytes(matrix.format(), columns);
                let share = (tiles * row_chunks).div_ceil(threads * ITEMS_PER_THREAD);
                let most =
                    if row_chunks == 1 && rows <= PANEL { (ITEM_BYTES / bytes).max(1) } else { ITEM_TILES };
                let least = if row_chunks == 1 && rows <= PANEL {
                    (ITEM_BYTES_LEAST / bytes).clamp(1, most)
                } else {
                    1
                };
                Job {
                    matrix,
                    bias: output.bias,
                    out: Parts::new(output.out),
                    item_tiles: share.clamp(least, most),
                }
            })
            .collect();
        let items: Vec<(usize, usize)> = jobs
            .iter()
            .enumerate()
            .flat_map(|(j, job)| (0..job.matrix.tiles()).step_by(job.item_tiles).map(move |tile| (j, tile)))
            .collect();
        self.pool().run(items.len() * row_chunks, |_, i| {
            let (j, tile) = items[i % items.len()];
            let job = &jobs[j];
            let row = i / items.len() * ROWS_AT_ONCE;
            let task = Task {
                matrix: &job.matrix,
                tiles: tile..job.matrix.tiles().min(tile + job.item_tiles),
                input: activations,
                rows: row..rows.min(row + ROWS_AT_ONCE),
                out: &job.out,
            };
            run(self.available(), &task);
            if let Some(bias) = job.bias {
                task.add_bias(bias);
            }
        });
    }
}

/// Rows of activations one item multiplies; more would not fit the second cache beside the weights.
const ROWS_AT_ONCE: usize = 128;
/// Items a thread should find, so that threads of unequal speed end together.
const ITEMS_PER_THREAD: usize = 8;
/// Bytes of weights an item of a decode reads at most, and at least.
const ITEM_BYTES: usize = 256 << 10;
const ITEM_BYTES_LEAST: usize = 32 << 10;
/// Tiles an item of a prefill takes at most.
const ITEM_TILES: usize = 8;

/// One output while it is computed.
struct Job<'a> {
    matrix: Matrix<'a>,
    bias: Option<&'a [f32]>,
    out: Parts<'a, f32>,
    item_tiles: usize,
}

/// One item's part of a product.
pub(crate) struct Task<'a> {
    matrix: &'a Matrix<'a>,
    tiles: Range<usize>,
    input: &'a Activations,
    rows: Range<usize>,
    /// [all rows, matrix rows].
    out: &'a Parts<'a, f32>,
}

impl Task<'_> {
    /// The weight rows of its tiles.
    fn outputs(&self) -> Range<usize> {
        self.tiles.start * ROWS..self.matrix.rows().min(self.tiles.end * ROWS)
    }

    /// The outputs of weight rows `outputs` for activation row `row`.
    ///
    /// # Safety
    /// They are the task's, and held once.
    #[allow(unsafe_code, clippy::mut_from_ref, reason = "disjoint parts of one output")]
    #[inline(always)]
    unsafe fn out(&self, row: usize, outputs: Range<usize>) -> &mut [f32] {
        let start = row * self.matrix.rows();
        // SAFETY: tasks that run at the same time differ in their tiles or rows.
        unsafe { self.out.part(start + outputs.start..start + outputs.end) }
    }

    ///
    fn add_bias(&self, bias: &[f32]) {
        for row in self.rows.clone() {
            // SAFETY: the task's own outputs, and no other borrow of them is alive.
            #[allow(unsafe_code)]
            let out = unsafe { self.out(row, self.outputs()) };
            for (out, bias) in out.iter_mut().zip(&bias[self.outputs()]) {
                *out += bias;
            }
        }
    }
}

/// Computes a task's outputs, without bias.
fn run(available: Available, task: &Task<'_>) {
    match task.matrix.format() {
        Format::F32 => f32(available, task),
        Format::F16 => f16(available, task),
        Format::BF16 => bf16(available, task),
        Format::Q8_0 => q8_0(available, task),
        Format::Q4_0 => q4_0(available, task),
        Format::Q4_K => q4_k(available, task),
        Format::Q6_K => q6_k(available, task),
    }
}

instances! {
    fn f32 = scalar::run | kernel::f32, (task: &Task<'_>);
    fn f16 = scalar::run | kernel::f16, (task: &Task<'_>);
    fn bf16 = scalar::run | kernel::bf16, (task: &Task<'_>);
    fn q8_0 = scalar::run | kernel::q8_0, (task: &Task<'_>);
    fn q4_0 = scalar::run | kernel::q4_0, (task: &Task<'_>);
    fn q4_k = scalar::run | kernel::q4_k, (task: &Task<'_>);
    fn q6_k = scalar::run | kernel::q6_k, (task: &Task<'_>);
}
