//! The second voice: the arithmetic of `docs/spec/arithmetic.md`, written a second time from that page alone.
//!
//! In:     bytes of a GGUF file, token ids, sampling parameters; or the plain slices of one operation.
//! Out:    state vectors, logits, sampled tokens, digests; or the result of one operation.
//! Touches: nothing.
//! Holds:  no code and no constant is shared with `kernels` or `engine`; every function cites its rules (`A-n.m`).
//! Absent: speed. Loops are plain and sequential, so that a judge can read them beside the page.
//!
//! Read in the order of the modules below: it is the order of the page.
#![forbid(unsafe_code)]
#![allow(
    clippy::approx_constant,
    clippy::excessive_precision,
    clippy::manual_clamp,
    reason = "constants and expressions stand as the page writes them"
)]

pub mod bits;
pub mod weights;

pub mod ops;

pub mod rotary;

pub mod attention;

pub mod gguf;
pub mod model;
pub mod pooling;

pub mod sample;

use std::fmt;
use std::hint::black_box;

/// A NaN or an infinity where looks for one: the sequence ends with `non_finite`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NonFinite {
    /// Which of the checks of found it.
    pub place: &'static str,
}

impl fmt::Display for NonFinite {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "non_finite: {} is a NaN or an infinity (A-1.5)", self.place)
    }
}

impl std::error::Error for NonFinite {}

/// refuses a row that holds a NaN or an infinity.
pub fn check_finite(place: &'static str, row: &[f32]) -> Result<(), NonFinite> {
    if row.iter().all(|value| value.is_finite()) { Ok(()) } else { Err(NonFinite { place }) }
}

/// panics if this thread rounds otherwise than to nearest even, or drops subnormals. Safe code cannot set the
/// floating-point control state, so it looks at what arithmetic does.
pub fn assert_float_control() {
    let unit = black_box(f32::EPSILON);
    assert_eq!(1.0 + unit * 0.5, 1.0, "a tie above 1 goes down to even");
    assert_eq!(1.0 + unit * 1.5, 1.0 + unit * 2.0, "the next tie goes up to even");
    assert_eq!(-1.0 - unit * 0.5, -1.0, "a tie below -1 goes up to even");
    assert_eq!(1.0 + unit * 0.75, 1.0 + unit, "what is nearer above goes up");
    let least = black_box(f32::MIN_POSITIVE);
    assert_eq!((least * 0.5).to_bits(), 1 << 22, "a subnormal result is kept");
    assert_eq!(black_box(least * 0.5) * 2.0, least, "a subnormal operand is kept");
}
