//! Attention over a paged cache: head norms, rotary, storing, scores and values of one layer in one call.
//!
//! In:     the query, key and value projections of a step's rows; which rows belong to which sequence.
//! Out:    the attention output of every row, ready for the output projection; keys and values in the cache.
//! Touches: the pages that hold the step's own positions, and no other.
//! Holds:  a row's output is a function of its sequence alone: never of chunking, page placement or neighbours.
//! Absent: page allocation and sequences. The engine keeps those.

mod cache;
mod kernel;
mod scalar;
#[cfg(test)]
mod tests;

pub use cache::{KvCache, KvShape, PAGE_POSITIONS};

use crate::activations::Writer;
use crate::lane::instances;
use crate::parts::Parts;
use crate::rotary::{RotaryPairs, RotaryTable};
use crate::{Activations, Executor, Faults, step};
use cache::HeadPages;
use std::ops::Range;

/// Positions in a segment of attention's chains.
const POSITION_SEGMENT: usize = step::SPAN_POSITIONS;

/// The RMS norms of each query and key head, where a model has them.
#[derive(Clone, Copy)]
pub struct HeadNorms<'a> {
    /// Weights of a query head, `[head_dim]`.
    pub q: &'a [f32],
    /// Weights of a key head, `[head_dim]`.
    pub k: &'a [f32],
    /// Epsilon.
    pub eps: f32,
}

/// One sequence's rows in a step: consecutive positions, written to and read from its pages.
#[derive(Clone, Debug)]
pub struct Segment<'a> {
    /// The sequence's pages in position order, covering at least every position of this step.
    pub pages: &'a [u32],
    /// The position of the first row.
    pub first_position: usize,
    /// The step's rows that are this sequence's.
    pub rows: Range<usize>,
}

/// What attention needs to know besides the numbers.
#[derive(Clone, Copy)]
pub struct AttentionStep<'a> {
    /// The layer.
    pub layer: usize,
    /// Query heads; a multiple of the cache's key/value heads.
    pub heads: usize,
    /// Head norms, if the model has them.
    pub norms: Option<HeadNorms<'a>>,
    /// How rotary pairs lie in a head.
    pub pairs: RotaryPairs,
    /// The rotary table; it must cover every position of the step.
    pub rotary: &'a RotaryTable,
    /// The sequences of the step; their rows are disjoint and together all rows.
    pub segments: &'a [Segment<'a>],
}

impl Executor {
    /// One layer's attention for every row of a step.
    ///
    /// q [rows, heads, head_dim] and k [rows, kv_heads, head_dim] are normed and rotated in place; v is like k;
    /// out [rows, heads·head_dim] is quantised if it keeps quantised rows.
    /// A row's fault is set if an entry of its q, k or v, or a score, is not finite.
    ///
    /// Panics if shapes disagree, if the segments' rows do not cover 0 … rows in order, if a page does not
    /// exist, or if a page this step writes also appears elsewhere in the step.
    #[allow(
        clippy::too_many_arguments,
        reason = "the operands of one operation; swapping any two fails an assertion"
    )]
    pub fn attention(
        &self,
        step: &AttentionStep<'_>,
        q: &mut [f32],
        k: &mut [f32],
        v: &[f32],
        cache: &mut KvCache,
        out: &mut Activations,
        faults: &Faults,
    ) {
        check(step, q, k, v, cache, out, faults);
        let kv_heads = cache.shape().kv_heads;
        let layer = cache.layer(step.layer);
        let all = Buffers { q: Parts::new(q), k: Parts::new(k), v, out: out.writer() };
        // The rows of one sequence and one key/value head, the longest first, so that threads end together.
        let mut items: Vec<(usize, usize, Range<usize>)> = Vec::new();
        for (s, segment) in step.segments.iter().enumerate() {
            for head in 0..kv_heads {
                for first in segment.rows.clone().step_by(ITEM_ROWS) {
                    items.push((s, head, first..segment.rows.end.min(first + ITEM_ROWS)));
                }
            }
        }
        let visible = |(s, _, rows): &(usize, usize, Range<usize>)| {
            let segment = &step.segments[*s];
            segment.first_position + rows.end - segment.rows.start
        };
        items.sort_by_key(|item| std::cmp::Reverse(visible(item)));
        let part = |(s, head, rows): &(usize, usize, Range<usize>)| Rows {
            step,
            segment: &step.segments[*s],
            head: *head,
            pages: layer.of(*head, step.segments[*s].pages),
            rows: rows.clone(),
            group: step.heads / kv_heads,
            kv_heads,
            all: &all,
            faults,
        };
        // Rows that attend to each other's keys must all be stored first; one item holds a short sequence whole.
        let whole = step.segments.iter().all(|segment| segment.rows.len() <= ITEM_ROWS);
        if !whole {
            self.pool().run(items.len(), |_, i| prepare(self.available(), &part(&items[i])));
        }
        let scratch_elements =
            QUERIES_AT_ONCE * items.first().map_or(0, visible).next_multiple_of(PAGE_POSITIONS);
        self.pool().run(items.len(), |worker, i| {
            let rows = part(&items[i]);
            if whole {
                prepare(self.available(), &rows);
            }
            let mut scratch = self.scratch(worker);
            if scratch.len() < scratch_elements {
                scratch.resize(scratch_elements, 0.0);
            }
            attend(self.available(), &rows, &mut scratch);
        });
        self.write_rows(out, faults, |_, _| {});
    }
}
/// Rows of a step that one item takes: enough that its queries share each reading of keys and values.
const ITEM_ROWS: usize = 16;
/// Queries a kernel takes at once at most; an item has scratch for the scores of so many.
const QUERIES_AT_ONCE: usize = 8;

/// The operands of a step, as its items share them.
struct Buffers<'a> {
    q: Parts<'a, f32>,
    k: Parts<'a, f32>,
    v: &'a [f32],
    out: Writer<'a>,
}

/// One item: some rows of one sequence, and one key/value head with the query heads that read it.
///
/// Items that run at the same time differ in their rows or their head, so each owns what `unsafe` methods hand out.
struct Rows<'a> {
    step: &'a AttentionStep<'a>,
    segment: &'a Segment<'a>,
    head: usize,
    pages: HeadPages<'a>,
    rows: Range<usize>,
    /// Query heads of each key/value head.
    group: usize,
    kv_heads: usize,
    all: &'a Buffers<'a>,
    faults: &'a Faults,
}

#[allow(unsafe_code, clippy::mut_from_ref, reason = "pieces of buffers shared by the items of a job")]
impl Rows<'_> {
    fn position(&self, row: usize) -> usize {
        self.segment.first_position + row - self.segment.rows.start
    }

    /// The page of a row, in its sequence's table, and its place there.
    fn place(&self, row: usize) -> (usize, usize) {
        (self.position(row) / PAGE_POSITIONS, self.position(row) % PAGE_POSITIONS)
    }

    /// The cosines, then the sines, of a row's position.
    fn rotary_row(&self, row: usize) -> &[f32] {
        self.step.rotary.row(self.position(row))
    }

    /// The key of a row.
    ///
    /// # Safety
    /// The item's own row, and held once.
    unsafe fn key(&self, row: usize) -> &mut [f32] {
        let dim = self.pages.head_dim;
        let start = (row * self.kv_heads + self.head) * dim;
        // SAFETY: the caller's.
        unsafe { self.all.k.part(start..start + dim) }
    }

    /// The value of a row.
    fn value(&self, row: usize) -> &[f32] {
        let dim = self.pages.head_dim;
        &self.all.v[(row * self.kv_heads + self.head) * dim..][..dim]
    }

    /// The query heads of a row that read this head, one after another.
    ///
    /// # Safety
    /// The item's own row, and held once.
    unsafe fn queries(&self, row: usize) -> &mut [f32] {
        let length = self.group * self.pages.head_dim;
        let start = (row * self.kv_heads + self.head) * length;
        // SAFETY: the caller's; the query heads of one key/value head are neighbours.
        unsafe { self.all.q.part(start..start + length) }
    }

    /// How many queries the item has: its rows' query heads, row by row.
    fn count(&self) -> usize {
        self.rows.len() * self.group
    }

    fn row_of(&self, query: usize) -> usize {
        self.rows.start + query / self.group
    }

    /// Query `i` of the item.
    ///
    /// # Safety
    /// The item's queries are prepared, and none is held exclusively.
    unsafe fn query(&self, i: usize) -> &[f32] {
        // SAFETY: only this item touches these queries, and it now only reads them.
        let queries = unsafe { self.queries(self.row_of(i)) };
        &queries[i % self.group * self.pages.head_dim..][..self.pages.head_dim]
    }

    /// How many positions query `i` sees, from 0.
    fn visible(&self, i: usize) -> usize {
        self.position(self.row_of(i)) + 1
    }

    /// The output of query `i`.
    ///
    /// # Safety
    /// Held once.
    unsafe fn out(&self, i: usize) -> &mut [f32] {
        let dim = self.pages.head_dim;
        let start = (self.head * self.group + i % self.group) * dim;
        // SAFETY: outputs of different heads and rows are disjoint, and these are the item's.
        unsafe { self.all.out.floats(self.row_of(i), start..start + dim) }
    }
}

instances! {
    /// norms, rotates and stores an item's queries, keys and values.
    fn prepare = scalar::prepare | kernel::prepare, (rows: &Rows<'_>);
    /// for an item's queries, over keys and values already stored.
    fn attend = scalar::attend | kernel::attend, (rows: &Rows<'_>, scratch: &mut [f32]);
}

/// The preconditions of `attention`; what its unsafe code relies on.
fn check(
    step: &AttentionStep<'_>,
    q: &[f32],
    k: &[f32],
    v: &[f32],
    cache: &mut KvCache,
    out: &Activations,
    faults: &Faults,
) {
    let KvShape { layers, kv_heads, head_dim } = cache.shape();
    let rows = out.rows();
    assert!(step.layer < layers, "layer {} of {layers}", step.layer);
    assert!(step.heads > 0 && step.heads.is_multiple_of(kv_heads), "{} heads over {kv_heads}", step.heads);
    assert_eq!(step.rotary.head_dim(), head_dim, "the rotary table's heads");
    assert_eq!(q.len(), rows * step.heads * head_dim, "queries");
    assert_eq!(k.len(), rows * kv_heads * head_dim, "keys");
    assert_eq!(v.len(), k.len(), "values");
    assert_eq!(out.columns(), step.heads * head_dim, "columns of the output");
    assert!(faults.len() >= rows, "one fault flag per row");
    if let Some(norms) = &step.norms {
        assert_eq!(norms.q.len(), head_dim, "weights of the query norm");
        assert_eq!(norms.k.len(), head_dim, "weights of the key norm");
    }
    let mut next_row = 0;
    cache.step += 1;
    for segment in step.segments {
        assert_eq!(segment.rows.start, next_row, "segments cover the rows in order");
        assert!(segment.rows.end >= segment.rows.start, "a segment's rows ascend");
        next_row = segment.rows.end;
        let end = segment.first_position + segment.rows.len();
        assert!(end <= step.rotary.positions(), "position {end} beyond the rotary table");
        assert!(end <= segment.pages.len() * PAGE_POSITIONS, "pages for {end} positions");
        for page in written_pages(segment) {
            let stamp = cache.written.get_mut(*page as usize).expect("pages exist");
            assert_ne!(*stamp, cache.step, "page {page} is written twice in one step");
            *stamp = cache.step;
        }
    }
    assert_eq!(next_row, rows, "segments cover the rows");
    for segment in step.segments {
        let (first, last) = written_range(segment);
        for (i, page) in segment.pages.iter().enumerate() {
            let stamp = *cache.written.get(*page as usize).expect("pages exist");
            let own = first <= i && i < last;
            assert!(own || stamp != cache.step, "page {page} is written by one sequence and read by another");
        }
    }
}

/// The range of a segment's page table that this step writes.
fn written_range(segment: &Segment<'_>) -> (usize, usize) {
    let end = segment.first_position + segment.rows.len();
    (segment.first_position / PAGE_POSITIONS, end.div_ceil(PAGE_POSITIONS))
}

fn written_pages<'a>(segment: &Segment<'a>) -> &'a [u32] {
    let (first, last) = written_range(segment);
    if segment.rows.is_empty() { &[] } else { &segment.pages[first..last] }
}
