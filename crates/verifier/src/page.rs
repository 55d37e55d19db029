//! The room's door in a page: memory that JavaScript writes a file into and reads numbers from.
//!
//! In:     `reserve(bytes)` gives the address for a file, 0 if there is no room; `verify(bytes)` checks what was written there.
//! Out:    `verify` gives 0 if it holds, or `1 + fault` in the low byte and `1 + answer`, or 0, above it. `report()` is then the address of
//!         how many answers there are, and of the two words (checked, not checked) of the envelope and of each of them.
//! Touches: the module's own memory. Each `reserve` forgets all that came before.

use alloc::{alloc::Layout, vec::Vec};
use core::{
    alloc::GlobalAlloc,
    arch::wasm32,
    panic::PanicInfo,
    ptr,
    sync::atomic::{AtomicUsize, Ordering::Relaxed},
};

use crate::{Found, Refusal};

/// The address of what is free; 0 at first.
static TOP: AtomicUsize = AtomicUsize::new(0);
/// Where the file lies.
static FILE: AtomicUsize = AtomicUsize::new(0);
/// Where what was found lies.
static REPORT: AtomicUsize = AtomicUsize::new(0);

const PAGE_BYTES: usize = 1 << 16;

unsafe extern "C" {
    /// Where the linker's own data ends.
    static __heap_base: u8;
}

fn bottom() -> usize {
    (&raw const __heap_base).addr()
}

fn top() -> usize {
    TOP.load(Relaxed).max(bottom())
}

/// Moves the top, if there is memory up to there or can be.
fn raise(end: usize) -> bool {
    let missing = end.div_ceil(PAGE_BYTES).saturating_sub(wasm32::memory_size(0));
    let is_there = missing == 0 || wasm32::memory_grow(0, missing) != usize::MAX;
    if is_there {
        TOP.store(end, Relaxed);
    }
    is_there
}

/// Gives out memory in order, and takes none back before all of it is forgotten: a file is read once.
struct Shelf;

#[global_allocator]
static SHELF: Shelf = Shelf;

// SAFETY: a page's module has one thread; what is given out lies between the top and the memory's end, and the top moves past it.
unsafe impl GlobalAlloc for Shelf {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let begin = top().next_multiple_of(layout.align());
        match begin.checked_add(layout.size()) {
            Some(end) if raise(end) => ptr::with_exposed_provenance_mut(begin),
            _ => ptr::null_mut(),
        }
    }

    unsafe fn dealloc(&self, _: *mut u8, _: Layout) {}

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // What was given out last grows where it lies.
        if at.addr() + layout.size() == top() {
            return match at.addr().checked_add(size) {
                Some(end) if raise(end) => at,
                _ => ptr::null_mut(),
            };
        }
        let Ok(wider) = Layout::from_size_align(size, layout.align()) else { return ptr::null_mut() };
        // SAFETY: the caller promises that `size` is not zero.
        let new = unsafe { self.alloc(wider) };
        if !new.is_null() {
            // SAFETY: both are as large as the smaller of the two sizes, and do not overlap.
            unsafe { ptr::copy_nonoverlapping(at, new, layout.size().min(size)) };
        }
        new
    }
}

/// Ends the module's work: JavaScript sees a trap.
#[panic_handler]
fn panic(_: &PanicInfo<'_>) -> ! {
    wasm32::unreachable()
}

/// Forgets everything, and makes room for a file.
#[unsafe(no_mangle)]
extern "C" fn reserve(bytes: usize) -> usize {
    let begin = bottom();
    match begin.checked_add(bytes) {
        Some(end) if raise(end) => {}
        _ => return 0,
    }
    FILE.store(begin, Relaxed);
    begin
}

/// Checks the file of so many bytes at the place that was reserved for them.
#[unsafe(no_mangle)]
extern "C" fn verify(bytes: usize) -> u32 {
    let file = ptr::with_exposed_provenance(FILE.load(Relaxed));
    // SAFETY: `reserve` made room there, and JavaScript asks for no more than that.
    let json = unsafe { core::slice::from_raw_parts(file, bytes) };
    match crate::verify(json) {
        Ok(report) => {
            let mut words: Vec<u32> = Vec::with_capacity(3 + 2 * report.answers.len());
            words.push(report.answers.len() as u32);
            for Found { checked, unchecked } in core::iter::once(&report.envelope).chain(&report.answers) {
                words.extend([checked.0, unchecked.0]);
            }
            REPORT.store(Vec::leak(words).as_ptr().expose_provenance(), Relaxed);
            0
        }
        Err(Refusal { fault, answer }) => {
            1 + fault as u32 | answer.map_or(0, |answer| (1 + answer as u32) << 8)
        }
    }
}

/// Where the words of the last report are.
#[unsafe(no_mangle)]
extern "C" fn report() -> usize {
    REPORT.load(Relaxed)
}
