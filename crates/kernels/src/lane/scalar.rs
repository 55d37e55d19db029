//! The virtual vector as arrays: what each operation means, lane by lane. Instances are tested against it, and it
//! lets the kernels' structure be tested on machines without vectors.

use super::{Dot, Lanes, WIDTH};
use crate::activation::EXPONENT_MIN;
use crate::{half, step};
use std::array::from_fn;

/// The array instance.
#[derive(Clone, Copy)]
pub(crate) struct Scalar;

type F = [f32; WIDTH];
type I = [i32; WIDTH];

impl Lanes for Scalar {
    type Floats = F;
    type Ints = I;
    type Words = [u8; 64];
    const WIDE: bool = false;

    fn splat(self, x: f32) -> F {
        [x; WIDTH]
    }
    fn load(self, x: &F) -> F {
        *x
    }
    fn store(self, out: &mut F, v: F) {
        *out = v;
    }
    fn load_f32(self, x: &[[u8; 4]; WIDTH]) -> F {
        x.map(f32::from_le_bytes)
    }
    fn load_f16(self, x: &[[u8; 2]; WIDTH]) -> F {
        x.map(|x| half::widen(u16::from_le_bytes(x)))
    }
    fn store_f16(self, out: &mut [u16; WIDTH], v: F) {
        *out = v.map(half::narrow);
    }
    fn load_bf16(self, x: &[[u8; 2]; WIDTH]) -> F {
        x.map(|x| half::widen_bf16(u16::from_le_bytes(x)))
    }
    fn load_u8(self, x: &[u8; WIDTH]) -> F {
        x.map(f32::from)
    }
    fn load_i8(self, x: &[u8; WIDTH]) -> F {
        x.map(|x| f32::from(x as i8))
    }
    fn add(self, a: F, b: F) -> F {
        from_fn(|l| a[l] + b[l])
    }
    fn sub(self, a: F, b: F) -> F {
        from_fn(|l| a[l] - b[l])
    }
    fn mul(self, a: F, b: F) -> F {
        from_fn(|l| a[l] * b[l])
    }
    fn div(self, a: F, b: F) -> F {
        from_fn(|l| a[l] / b[l])
    }
    fn fma(self, a: F, b: F, c: F) -> F {
        from_fn(|l| a[l].mul_add(b[l], c[l]))
    }
    fn max(self, a: F, b: F) -> F {
        from_fn(|l| a[l].max(b[l]))
    }
    fn min(self, a: F, b: F) -> F {
        from_fn(|l| a[l].min(b[l]))
    }
    fn rint(self, a: F) -> F {
        a.map(f32::round_ties_even)
    }
    fn to_ints(self, a: F) -> I {
        a.map(|a| a.round_ties_even() as i32)
    }
    fn greatest(self, a: F) -> f32 {
        a.into_iter().fold(f32::NEG_INFINITY, f32::max)
    }
    fn tree(self, a: F) -> f32 {
        step::tree(a)
    }
    fn splat_ints(self, x: i32) -> I {
        [x; WIDTH]
    }
    fn add_ints(self, a: I, b: I) -> I {
        from_fn(|l| a[l].wrapping_add(b[l]))
    }
    fn max_ints(self, a: I, b: I) -> I {
        from_fn(|l| a[l].max(b[l]))
    }
    fn to_floats(self, a: I) -> F {
        a.map(|a| a as f32)
    }
    fn magnitude(self, a: F) -> I {
        a.map(|a| (a.to_bits() & 0x7fff_ffff) as i32)
    }
    fn greatest_int(self, a: I) -> i32 {
        a.into_iter().max().expect("16 lanes")
    }
    fn sum_ints(self, a: I) -> i32 {
        a.into_iter().fold(0, i32::wrapping_add)
    }
    fn power_of_two(self, a: I) -> F {
        a.map(|a| if a < EXPONENT_MIN { 0.0 } else { f32::from_bits(((a + 127) as u32) << 23) })
    }
    fn store_i8(self, out: &mut [i8; WIDTH], v: I) {
        *out = v.map(|v| v as i8);
    }
    fn load_words(self, x: &[u8; 64]) -> [u8; 64] {
        *x
    }
    fn low_nibbles(self, w: [u8; 64]) -> [u8; 64] {
        w.map(|w| w & 15)
    }
    fn high_nibbles(self, w: [u8; 64]) -> [u8; 64] {
        w.map(|w| w >> 4)
    }
    fn six_bits(self, low: [u8; 64], high: [u8; 64], field: usize) -> [u8; 64] {
        from_fn(|i| low[i] | (high[i] >> (2 * field) & 3) << 4)
    }
    fn prefetch(self, _address: *const u8) {}
}

impl<C> Dot<C> for Scalar {
    type Weights = [u8; 64];
    type Sum = I;

    fn prepare(self, w: [u8; 64]) -> [u8; 64] {
        w
    }
    fn begin(self, offset: i32) -> I {
        [offset; WIDTH]
    }
    fn step(self, sum: I, _j: usize, w: [u8; 64], q: [i8; 4]) -> I {
        from_fn(|l| (0..4).fold(sum[l], |sum, t| sum + i32::from(w[4 * l + t]) * i32::from(q[t])))
    }
    fn finish(self, sum: I, _offset: i32) -> I {
        sum
    }
}
