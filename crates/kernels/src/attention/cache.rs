//! The KV cache: pages of 16 positions, in one region of memory.
//!
//! In:     keys and values of positions, rounded to binary16 by the attention step.
//! Out:    the keys and values of a page, layer and head.
//! Holds:  every entry is finite: zero before it is written, and never an infinity or a NaN after.
//! Absent: which page belongs to whom. The engine allocates pages and keeps each sequence's table.
//!
//! A page holds, for every layer and key/value head in turn, K as `[dimension][16 positions]` (a vector is 16 scores
//! at once) and V as `[16 positions][dimension]` (a vector is 16 outputs at once).

#![allow(unsafe_code)]

use crate::memory::{OutOfMemory, Region};

/// Positions of a page.
pub const PAGE_POSITIONS: usize = 16;

/// What one position of a model's cache holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KvShape {
    /// Layers of the model.
    pub layers: usize,
    /// Key/value heads of a layer.
    pub kv_heads: usize,
    /// Elements of a head, a multiple of 16.
    pub head_dim: usize,
}

impl KvShape {
    /// Elements of one head's keys and values in a page.
    fn head_elements(self) -> usize {
        2 * PAGE_POSITIONS * self.head_dim
    }

    /// Elements of a page.
    fn page_elements(self) -> usize {
        self.layers * self.kv_heads * self.head_elements()
    }
}

/// Keys and values in pages of 16 positions.
pub struct KvCache {
    shape: KvShape,
    pages: usize,
    region: Region,
    /// Per page, the last attention step that wrote it: how a step checks that it writes each page once.
    pub(crate) written: Vec<u64>,
    /// The number of the present step.
    pub(crate) step: u64,
}

impl KvCache {
    /// A cache of `pages` pages; memory is taken as pages are first written.
    ///
    /// Panics if the shape has no layers or heads, or a head is not a positive multiple of 16.
    pub fn new(shape: KvShape, pages: usize) -> Result<KvCache, OutOfMemory> {
        assert!(shape.layers > 0 && shape.kv_heads > 0, "a cache of nothing: {shape:?}");
        assert!(
            shape.head_dim > 0 && shape.head_dim.is_multiple_of(16),
            "heads of {} elements",
            shape.head_dim
        );
        let bytes = KvCache::page_bytes(shape).checked_mul(pages).ok_or(OutOfMemory { bytes: usize::MAX })?;
        Ok(KvCache { shape, pages, region: Region::zeroed(bytes)?, written: vec![0; pages], step: 0 })
    }

    /// Bytes of one page.
    pub fn page_bytes(shape: KvShape) -> usize {
        shape.page_elements() * 2
    }

    /// Its shape.
    pub fn shape(&self) -> KvShape {
        self.shape
    }

    /// How many pages it has.
    pub fn pages(&self) -> usize {
        self.pages
    }

    /// The pages of one layer: its first head, with no sequence's table yet.
    pub(super) fn layer(&mut self, layer: usize) -> HeadPages<'_> {
        assert!(layer < self.shape.layers);
        let offset = layer * self.shape.kv_heads * self.shape.head_elements();
        HeadPages {
            // A region begins on a 64-byte boundary at least, so it is aligned for u16.
            start: self.region.as_ptr().cast::<u16>().wrapping_add(offset),
            pages: self.pages,
            page_elements: self.shape.page_elements(),
            kv_heads: self.shape.kv_heads,
            head_dim: self.shape.head_dim,
            table: &[],
        }
    }
}

/// The keys and values of one layer and head of one sequence.
#[derive(Clone, Copy)]
pub(super) struct HeadPages<'a> {
    start: *mut u16,
    pages: usize,
    page_elements: usize,
    kv_heads: usize,
    pub(super) head_dim: usize,
    table: &'a [u32],
}

// SAFETY: the pointer is into a cache borrowed exclusively for a step, whose items write disjoint cells and read
// what no other item writes (`attention`'s check of pages).
unsafe impl Send for HeadPages<'_> {}
// SAFETY: as above.
unsafe impl Sync for HeadPages<'_> {}

impl HeadPages<'_> {
    /// Another head of the same layer, of the sequence with this page table.
    pub(super) fn of<'b>(&self, head: usize, table: &'b [u32]) -> HeadPages<'b>
    where
        Self: 'b,
    {
        assert!(head < self.kv_heads);
        let start = self.start.wrapping_add(head * 2 * PAGE_POSITIONS * self.head_dim);
        HeadPages { start, table, ..*self }
    }

    /// Where key `d` of a position lies: its page in the sequence's table, and its slot there: `[d][slot]`.
    #[inline(always)]
    pub(super) fn key(&self, page: usize, d: usize, slot: usize) -> *mut u16 {
        self.page(page).wrapping_add(d * PAGE_POSITIONS + slot)
    }

    /// Where value `d` of a position lies: `[slot][d]`.
    #[inline(always)]
    pub(super) fn value(&self, page: usize, d: usize, slot: usize) -> *mut u16 {
        self.page(page).wrapping_add(PAGE_POSITIONS * self.head_dim + slot * self.head_dim + d)
    }

    #[inline(always)]
    fn page(&self, page: usize) -> *mut u16 {
        let page = self.table[page] as usize;
        assert!(page < self.pages, "page {page} of {}", self.pages);
        self.start.wrapping_add(page * self.page_elements)
    }
}
