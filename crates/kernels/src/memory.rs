//! Memory: large zeroed regions that cost nothing until touched, on huge pages where the system has them.
//!
//! In:     a length in bytes.
//! Out:    zeroed bytes on a 2 MiB boundary.
//! Touches: the allocator, and one advice to the kernel on Linux.
//! Holds:  bytes read are bytes written, or zero: nothing is ever uninitialised.
//! Absent: files. Mapped files are the engine's.

#![allow(unsafe_code)]

use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;

/// The alignment of a region: a huge page.
const ALIGNMENT: usize = 2 << 20;
/// The allocator's own alignment; asking for no more lets it hand out untouched pages of the system.
const ALLOCATOR_ALIGNMENT: usize = 16;

/// The system would not give this much memory.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("cannot allocate {bytes} bytes")]
pub struct OutOfMemory {
    /// What was asked for.
    pub bytes: usize,
}

/// A zeroed region of memory; pages never written take no memory.
pub struct Region {
    allocation: NonNull<u8>,
    layout: Layout,
    start: NonNull<u8>,
    bytes: usize,
}

// SAFETY: a region owns its bytes; access follows Rust's borrows.
unsafe impl Send for Region {}
// SAFETY: as above.
unsafe impl Sync for Region {}

impl Region {
    /// A zeroed region of `bytes`.
    pub fn zeroed(bytes: usize) -> Result<Region, OutOfMemory> {
        let refused = OutOfMemory { bytes };
        // Small regions are not worth a huge page.
        let alignment = if bytes < ALIGNMENT { 64 } else { ALIGNMENT };
        let size = bytes.checked_add(alignment).ok_or(OutOfMemory { bytes })?;
        let layout = Layout::from_size_align(size, ALLOCATOR_ALIGNMENT).map_err(|_| OutOfMemory { bytes })?;
        // SAFETY: the layout is not empty: it holds at least `alignment` bytes.
        let allocation = NonNull::new(unsafe { alloc_zeroed(layout) }).ok_or(refused)?;
        let skip = allocation.as_ptr().align_offset(alignment);
        assert!(skip <= alignment);
        // SAFETY: `skip` is at most `alignment`, and the allocation is `alignment` longer than the region.
        let start = unsafe { allocation.add(skip) };
        advise_huge_pages(start, bytes);
        Ok(Region { allocation, layout, start, bytes })
    }

    /// The first byte, for code that hands out disjoint parts to several threads.
    pub(crate) fn as_ptr(&self) -> *mut u8 {
        self.start.as_ptr()
    }
}

impl Drop for Region {
    fn drop(&mut self) {
        // SAFETY: allocated in `zeroed` with this layout.
        unsafe { dealloc(self.allocation.as_ptr(), self.layout) }
    }
}

impl Deref for Region {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: `start` begins `bytes` initialised bytes inside the allocation.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.bytes) }
    }
}

impl DerefMut for Region {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as for `deref`, and the region is borrowed exclusively.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr(), self.bytes) }
    }
}

/// Asks for huge pages; a refusal costs speed and nothing else.
#[cfg(target_os = "linux")]
fn advise_huge_pages(start: NonNull<u8>, bytes: usize) {
    let whole = bytes / ALIGNMENT * ALIGNMENT;
    if whole > 0 {
        // SAFETY: the range is inside one live allocation, and the advice changes no contents.
        unsafe { libc::madvise(start.as_ptr().cast(), whole, libc::MADV_HUGEPAGE) };
    }
}

#[cfg(not(target_os = "linux"))]
fn advise_huge_pages(_start: NonNull<u8>, _bytes: usize) {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn regions_are_zeroed_aligned_and_writable() {
        for bytes in [0, 1, 63, 64, 4096, ALIGNMENT - 1, ALIGNMENT, 3 * ALIGNMENT + 17] {
            let mut region = Region::zeroed(bytes).expect("memory");
            assert_eq!(region.len(), bytes);
            assert!(region.iter().all(|byte| *byte == 0));
            assert!(region.as_ptr().addr().is_multiple_of(if bytes < ALIGNMENT { 64 } else { ALIGNMENT }));
            region.fill(0xa5);
            assert!(region.iter().all(|byte| *byte == 0xa5));
        }
    }

    #[test]
    fn absurd_sizes_are_refused() {
        assert!(Region::zeroed(usize::MAX).is_err());
        assert!(Region::zeroed(usize::MAX / 2).is_err());
    }
}
