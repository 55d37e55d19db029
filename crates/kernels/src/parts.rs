//! Parts: one mutable buffer handed out in disjoint pieces to the threads of a job.
//!
//! In:     an exclusive borrow of a slice.
//! Out:    exclusive borrows of pieces of it.
//! Holds:  bounds are checked; that pieces taken at the same time are disjoint is the taker's promise.
//! Absent: any lock. Items of a job own different rows by construction.

#![allow(unsafe_code)]

use std::marker::PhantomData;
use std::ops::Range;

/// A mutable slice whose pieces go to different threads.
pub(crate) struct Parts<'a, T> {
    start: *mut T,
    length: usize,
    borrow: PhantomData<&'a mut [T]>,
}

// SAFETY: a `Parts` gives out `&mut [T]`, which may cross threads when `T: Send`; disjointness is promised in `part`.
unsafe impl<T: Send> Sync for Parts<'_, T> {}

impl<'a, T> Parts<'a, T> {
    pub(crate) fn new(whole: &'a mut [T]) -> Parts<'a, T> {
        Parts { start: whole.as_mut_ptr(), length: whole.len(), borrow: PhantomData }
    }

    pub(crate) fn len(&self) -> usize {
        self.length
    }

    /// The elements of `range`. Panics if they are not all inside.
    ///
    /// # Safety
    /// No other piece alive at the same time may overlap `range`.
    #[allow(clippy::mut_from_ref, reason = "disjoint pieces are the purpose of this type")]
    pub(crate) unsafe fn part(&self, range: Range<usize>) -> &'a mut [T] {
        assert!(range.start <= range.end && range.end <= self.length, "{range:?} of {}", self.length);
        // SAFETY: in bounds; `new` borrowed the whole exclusively for 'a, and pieces do not overlap.
        unsafe { std::slice::from_raw_parts_mut(self.start.add(range.start), range.len()) }
    }
}
