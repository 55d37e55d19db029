//! Long work, as someone watching it sees it.
//!
//! In:     steps that take long: hashing, downloading, packing.
//! Out:    how far each is.
//! Touches: nothing.
//! Absent: drawing it. Only the binary knows terminals.

/// How far a step is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// What is being done.
    pub step: Step,
    /// Bytes done.
    pub done: u64,
    /// Bytes in all.
    pub total: u64,
}

/// What takes long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Reading a file to learn its digest.
    Hashing,
    /// Fetching a file from a hub.
    Downloading,
    /// Rearranging weights into the tiles the kernels read.
    Packing,
}

/// Is told of progress, often; it must be quick.
pub type Report<'a> = dyn FnMut(Progress) + Send + 'a;
