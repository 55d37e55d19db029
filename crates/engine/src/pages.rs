//! Pages of the KV cache: which are free, and how many a sequence needs.
//!
//! In:     requests for pages.
//! Out:    page numbers, each owned by one sequence at a time.
//! Touches: nothing; the memory itself is the kernels' `KvCache`.
//! Holds:  a page is never handed out twice; freeing is immediate.
//! Absent: when a sequence must give its pages up (`scheduler`).

/// Positions in one page (A-6 does not depend on it).
pub const PAGE_POSITIONS: usize = surety_kernels::PAGE_POSITIONS;

/// The free list.
pub(crate) struct PagePool {
    free: Vec<u32>,
    total: usize,
}

impl PagePool {
    pub(crate) fn new(pages: u32) -> Self {
        Self { free: (0..pages).rev().collect(), total: pages as usize }
    }

    pub(crate) fn total(&self) -> usize {
        self.total
    }

    pub(crate) fn free(&self) -> usize {
        self.free.len()
    }

    /// Grows `pages` until it holds `positions`; takes nothing if there are too few free pages.
    pub(crate) fn grow(&mut self, pages: &mut Vec<u32>, positions: usize) -> bool {
        let wanted = pages_for(positions).saturating_sub(pages.len());
        if wanted > self.free.len() {
            return false;
        }
        pages.extend(self.free.drain(self.free.len() - wanted..).rev());
        true
    }

    /// Takes every page of a sequence back.
    pub(crate) fn release(&mut self, pages: &mut Vec<u32>) {
        self.free.append(pages);
        assert!(self.free.len() <= self.total, "a page was freed twice");
    }
}

/// Pages that hold this many positions.
pub(crate) fn pages_for(positions: usize) -> usize {
    positions.div_ceil(PAGE_POSITIONS)
}
