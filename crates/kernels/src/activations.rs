//! Activations: rows of f32 on their way into a matrix product, and their quantised form.
//!
//! In:     rows written by the operation before a product (a norm, the gated unit, attention).
//! Out:    the rows, their 32-element blocks as int8 with a scale, and one fault flag per row of a step.
//! Holds:  a quantised block always belongs to the float block beside it.
//! Absent: the quantisation itself. That is `quantise`.

#![allow(unsafe_code)]

use crate::Format;
use crate::parts::Parts;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};

/// Which forms of a row the products that read it need.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Forms {
    /// The f32 row alone: every weight it meets is `F32`, `F16` or `BF16`.
    Float,
    /// The f32 row and its quantisation.
    Quantised,
}

impl Forms {
    /// The forms a row needs that will meet weights of these formats.
    pub fn of(formats: impl IntoIterator<Item = Format>) -> Forms {
        if formats.into_iter().any(Format::is_quantised) { Forms::Quantised } else { Forms::Float }
    }
}

/// Elements of a quantised block.
pub(crate) const BLOCK: usize = 32;

/// One block of a quantised row with all a product needs of it, in one cache line.
///
/// The offsets undo the bias of weights stored unsigned: Σ(u − c)·q = Σu·q − c·Σq.
#[derive(Clone, Copy, Debug, PartialEq)]
#[repr(C, align(64))]
pub(crate) struct Block {
    /// The elements, in [−127, 127].
    pub(crate) quants: [i8; BLOCK],
    /// `d` of.
    pub(crate) scale: f32,
    /// `−(f32(Σq)·d)`, the factor of a `Q4_K` minimum.
    pub(crate) minus_sum: f32,
    /// −128·Σq, for `Q8_0`.
    pub(crate) offset_byte: i32,
    /// −8·Σq, for `Q4_0`.
    pub(crate) offset_nibble: i32,
    /// −32·Σq of each half of 16, for `Q6_K`.
    pub(crate) offset_code: [i32; 2],
}

impl Block {
    /// A block and the numbers that follow from its elements, their scale and the sums of both halves.
    ///
    /// Of a row that is faulted the numbers mean nothing, and the sums may be anything.
    #[inline(always)]
    pub(crate) fn new(quants: [i8; BLOCK], scale: f32, halves: [i32; 2]) -> Block {
        let sum = halves[0].wrapping_add(halves[1]);
        Block {
            quants,
            scale,
            minus_sum: -(sum as f32 * scale),
            offset_byte: sum.wrapping_mul(-128),
            offset_nibble: sum.wrapping_mul(-8),
            offset_code: halves.map(|half| half.wrapping_mul(-32)),
        }
    }

    /// The elements in fours, as a dot product takes them.
    #[inline(always)]
    pub(crate) fn fours(&self) -> &[[i8; 4]; BLOCK / 4] {
        self.quants.as_chunks().0.try_into().expect("eight fours")
    }
}

/// Rows whose equal blocks lie side by side: as many as a product takes at once.
pub(crate) const PANEL: usize = 16;

/// Rows of activations [rows, columns] f32, with their quantised blocks where `Forms::Quantised` asks for them.
///
/// Blocks lie `[panel of 16 rows][block][row]`, so that a product reads one block of all its rows from one place; fewer
/// than 16 rows lie closer, `[block][row]`.
pub struct Activations {
    columns: usize,
    rows: usize,
    rows_capacity: usize,
    forms: Forms,
    floats: Vec<f32>,
    blocks: Vec<Block>,
}

impl Activations {
    /// Room for `rows_capacity` rows of `columns` elements, none in use yet.
    ///
    /// Panics unless `columns` is a positive multiple of 32, as every product needs.
    pub fn new(rows_capacity: usize, columns: usize, forms: Forms) -> Activations {
        assert!(
            columns > 0 && columns.is_multiple_of(BLOCK),
            "{columns} columns are not whole blocks of {BLOCK}"
        );
        let mut activations =
            Activations { columns, rows: 0, rows_capacity, forms, floats: Vec::new(), blocks: Vec::new() };
        activations.floats = vec![0.0; rows_capacity * activations.float_stride()];
        if forms == Forms::Quantised {
            let rows =
                if rows_capacity < PANEL { rows_capacity } else { rows_capacity.next_multiple_of(PANEL) };
            activations.blocks = vec![Block::new([0; BLOCK], 0.0, [0; 2]); rows * (columns / BLOCK)];
        }
        activations
    }

    /// Sets how many rows the next operation writes; what they hold until then is unspecified.
    ///
    /// Panics above the capacity.
    pub fn set_rows(&mut self, rows: usize) {
        assert!(rows <= self.rows_capacity, "{rows} rows in room for {}", self.rows_capacity);
        self.rows = rows;
    }

    /// Rows in use.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Rows there is room for.
    pub fn rows_capacity(&self) -> usize {
        self.rows_capacity
    }

    /// Elements of a row.
    pub fn columns(&self) -> usize {
        self.columns
    }

    /// The forms kept.
    pub fn forms(&self) -> Forms {
        self.forms
    }

    /// Row `row` as f32. Panics if it is not in use.
    pub fn row_f32(&self, row: usize) -> &[f32] {
        assert!(row < self.rows, "row {row} of {}", self.rows);
        &self.floats[row * self.float_stride()..][..self.columns]
    }

    /// Elements from one row to the next: an odd number of cache lines, so that equal columns of neighbouring rows,
    /// which a product reads together, fall into different sets of the first cache.
    pub(crate) fn float_stride(&self) -> usize {
        self.columns + BLOCK / 2
    }

    /// Rows of one panel: the distance between consecutive blocks of a row.
    pub(crate) fn panel_rows(&self) -> usize {
        self.rows.min(PANEL)
    }

    /// Where block `block` of row `row` lies.
    pub(crate) fn block_index(&self, row: usize, block: usize) -> usize {
        (row / PANEL * (self.columns / BLOCK) + block) * self.panel_rows() + row % PANEL
    }

    /// The rows, `float_stride` apart.
    pub(crate) fn floats(&self) -> &[f32] {
        &self.floats
    }

    /// The blocks, placed by `block_index`. Panics if none are kept.
    pub(crate) fn blocks(&self) -> &[Block] {
        assert_eq!(self.forms, Forms::Quantised, "these rows were not quantised");
        &self.blocks
    }

    /// Both forms, to be written by the threads of a job.
    pub(crate) fn writer(&mut self) -> Writer<'_> {
        Writer {
            rows: self.rows,
            columns: self.columns,
            float_stride: self.float_stride(),
            panel_rows: self.panel_rows(),
            floats: Parts::new(&mut self.floats),
            blocks: (self.forms == Forms::Quantised).then(|| Parts::new(&mut self.blocks)),
        }
    }
}

/// Activations being written by several threads, each its own rows.
pub(crate) struct Writer<'a> {
    rows: usize,
    columns: usize,
    float_stride: usize,
    panel_rows: usize,
    floats: Parts<'a, f32>,
    blocks: Option<Parts<'a, Block>>,
}

impl Writer<'_> {
    /// Row `row`, to be written.
    ///
    /// # Safety
    /// No other thread may hold the same row.
    pub(crate) unsafe fn row(&self, row: usize) -> RowWriter<'_> {
        assert!(row < self.rows, "row {row} of {}", self.rows);
        let start = row * self.float_stride;
        // SAFETY: rows are disjoint, and this one is the caller's.
        let floats = unsafe { self.floats.part(start..start + self.columns) };
        let first = row / PANEL * (self.columns / BLOCK) * self.panel_rows + row % PANEL;
        RowWriter {
            floats,
            blocks: self.blocks.as_ref().map(|parts| RowBlocks { parts, first, step: self.panel_rows }),
        }
    }
}

impl Writer<'_> {
    /// Elements `range` of row `row` as f32, to be written.
    ///
    /// # Safety
    /// No other thread may hold any of them.
    #[allow(clippy::mut_from_ref, reason = "disjoint pieces")]
    pub(crate) unsafe fn floats(&self, row: usize, range: Range<usize>) -> &mut [f32] {
        assert!(row < self.rows && range.end <= self.columns, "{range:?} of row {row}");
        let start = row * self.float_stride;
        // SAFETY: the caller's.
        unsafe { self.floats.part(start + range.start..start + range.end) }
    }
}

/// One row of activations being written.
pub(crate) struct RowWriter<'a> {
    pub(crate) floats: &'a mut [f32],
    /// None where rows are not quantised.
    pub(crate) blocks: Option<RowBlocks<'a>>,
}

/// The quantised blocks of one row.
pub(crate) struct RowBlocks<'a> {
    parts: &'a Parts<'a, Block>,
    first: usize,
    step: usize,
}

impl RowBlocks<'_> {
    /// Writes block `index`.
    #[inline(always)]
    pub(crate) fn set(&mut self, index: usize, block: Block) {
        let at = self.first + index * self.step;
        // SAFETY: blocks of different rows are disjoint, and `Writer::row` gave this row to one thread.
        let slot = unsafe { self.parts.part(at..at + 1) };
        slot[0] = block;
    }
}

/// Which rows of one step met a value that is not finite.
#[derive(Debug)]
pub struct Faults {
    rows: Vec<AtomicBool>,
}

impl Faults {
    /// No fault in any of `rows` rows.
    pub fn new(rows: usize) -> Faults {
        Faults { rows: (0..rows).map(|_| AtomicBool::new(false)).collect() }
    }

    /// The faulted rows, ascending.
    pub fn rows(&self) -> impl Iterator<Item = usize> + '_ {
        (0..self.rows.len()).filter(|row| self.is_faulted(*row))
    }

    /// Whether a row is faulted.
    pub fn is_faulted(&self, row: usize) -> bool {
        self.rows[row].load(Ordering::Relaxed)
    }

    /// Whether any row is.
    pub fn any(&self) -> bool {
        self.rows().next().is_some()
    }

    /// How many rows are watched.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether no row is watched.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Marks a row.
    pub fn set(&self, row: usize) {
        self.rows[row].store(true, Ordering::Relaxed);
    }
}
