//! Kernels: the closed set of arithmetic operations a model is made of, to the bit.
//!
//! In:     weights in the formats of A-2, rows of f32, a cache of keys and values.
//! Out:    rows of f32 whose bits are a function of the inputs alone.
//! Touches: its own threads and their floating-point control; memory it is handed or asked for.
//! Holds:  the rules of `docs/spec/arithmetic.md`, cited by number. The scalar form of each operation is the
//!         definition; its vector twins are written once over a 16-lane virtual vector and equal it bit for bit,
//!         on any number of threads.
//! Absent: models, files, clocks, randomness; any mathematical library.
//!
//! Every operation is a safe method of [`Executor`] over whole buffers; unsafe code stays in this crate.

#![deny(missing_docs)]
#![allow(
    clippy::excessive_precision,
    clippy::approx_constant,
    reason = "constants are written as the rules write them"
)]

mod activation;
mod activations;
mod attention;
mod backend;
mod embed;
mod executor;
mod format;
pub mod fpcr;
mod generate;
pub mod golden;
pub mod half;
mod lane;
mod matmul;
mod memory;
mod norm;
mod pack;
mod parts;
mod pool;
pub mod pooling;
mod quantise;
mod rotary;
mod sample;
pub mod step;
#[cfg(test)]
mod testing;

pub use activations::{Activations, Faults, Forms};
pub use attention::{AttentionStep, HeadNorms, KvCache, KvShape, PAGE_POSITIONS, Segment};
pub use backend::{Backend, UnknownBackend};
pub use embed::Embedding;
pub use executor::{Executor, ExecutorError};
pub use format::Format;
pub use golden::GoldenMismatch;
pub use matmul::Output;
pub use memory::{OutOfMemory, Region};
pub use pack::{Matrix, PackError, packed_bytes};
pub use rotary::{RotaryError, RotaryPairs, RotaryParameters, RotaryTable, Scaling};
