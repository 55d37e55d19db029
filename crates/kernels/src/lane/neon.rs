//! NEON: a vector is four 128-bit registers, low lanes first.
//!
//! Written from the same trait as the x86 instances and kept plain. No machine of that kind was at hand: under QEMU's
//! emulation of a Neoverse N1, on one thread, it passed the golden vectors and equalled the scalar definition in 2,800
//! random products of every format. A worker runs the golden vectors before it serves, and so would notice a difference.

#![allow(unsafe_code)]

use super::{Bytes, Dot, Lanes, Nibbles, SixBits, WIDTH};
use crate::activation::EXPONENT_MIN;
use std::arch::aarch64::*;
use std::arch::asm;

/// The NEON instance; a value proves that NEON and FEAT_DotProd are there.
#[derive(Clone, Copy)]
pub(crate) struct Neon(());

impl Neon {
    #[target_feature(enable = "neon,dotprod")]
    pub(crate) fn new() -> Self {
        Neon(())
    }
}

/// 16 f32.
type F = [float32x4_t; 4];
/// 16 i32.
type I = [int32x4_t; 4];
/// 64 bytes.
type W = [uint8x16_t; 4];

/// Wraps an expression of intrinsics. The one safety argument of this file:
macro_rules! simd {
    ($($body:tt)*) => {
        // SAFETY: `self` exists only where the instructions do (`new`); pointers come from references to arrays of at
        // least the size read or written.
        unsafe { $($body)* }
    };
}

/// Applies an expression of intrinsics to each of the four registers of its operands.
macro_rules! four {
    (|$($operand:ident),+| $body:expr) => {
        simd! { [
            { $(let $operand = $operand[0];)+ $body },
            { $(let $operand = $operand[1];)+ $body },
            { $(let $operand = $operand[2];)+ $body },
            { $(let $operand = $operand[3];)+ $body },
        ] }
    };
}

impl Neon {
    /// acc[l] += Σ w[4l + t]·q[4l + t], exactly.
    #[inline(always)]
    fn dot(self, acc: int32x4_t, w: int8x16_t, q: int8x16_t) -> int32x4_t {
        let mut acc = acc;
        // SAFETY: FEAT_DotProd is there, as `self` proves; the instruction touches its registers alone.
        unsafe {
            asm!(
                ".arch_extension dotprod",
                "sdot {acc:v}.4s, {w:v}.16b, {q:v}.16b",
                acc = inout(vreg) acc,
                w = in(vreg) w,
                q = in(vreg) q,
                options(pure, nomem, nostack, preserves_flags),
            );
        }
        acc
    }

    /// Four registers of four half-width elements each.
    #[inline(always)]
    fn halves(self, x: &[[u8; 2]; WIDTH]) -> [uint16x4_t; 4] {
        let p: *const u8 = x.as_ptr().cast();
        simd! { [
            vreinterpret_u16_u8(vld1_u8(p)),
            vreinterpret_u16_u8(vld1_u8(p.add(8))),
            vreinterpret_u16_u8(vld1_u8(p.add(16))),
            vreinterpret_u16_u8(vld1_u8(p.add(24))),
        ] }
    }
}

impl Lanes for Neon {
    type Floats = F;
    type Ints = I;
    type Words = W;
    // 32 registers of a quarter vector each hold even less than 16 of a half.
    const WIDE: bool = false;

    #[inline(always)]
    fn splat(self, x: f32) -> F {
        simd! { [vdupq_n_f32(x); 4] }
    }

    #[inline(always)]
    fn load(self, x: &[f32; WIDTH]) -> F {
        let p = x.as_ptr();
        simd! { [vld1q_f32(p), vld1q_f32(p.add(4)), vld1q_f32(p.add(8)), vld1q_f32(p.add(12))] }
    }

    #[inline(always)]
    fn store(self, out: &mut [f32; WIDTH], v: F) {
        let p = out.as_mut_ptr();
        simd! {
            vst1q_f32(p, v[0]);
            vst1q_f32(p.add(4), v[1]);
            vst1q_f32(p.add(8), v[2]);
            vst1q_f32(p.add(12), v[3])
        }
    }

    #[inline(always)]
    fn load_f32(self, x: &[[u8; 4]; WIDTH]) -> F {
        let w = self.load_words(x.as_flattened().as_array().expect("64 bytes"));
        four!(|w| vreinterpretq_f32_u8(w))
    }

    #[inline(always)]
    fn load_f16(self, x: &[[u8; 2]; WIDTH]) -> F {
        let x = self.halves(x);
        four!(|x| vcvt_f32_f16(vreinterpret_f16_u16(x)))
    }

    #[inline(always)]
    fn store_f16(self, out: &mut [u16; WIDTH], v: F) {
        let halves = four!(|v| vreinterpret_u16_f16(vcvt_f16_f32(v)));
        let p = out.as_mut_ptr();
        simd! {
            vst1_u16(p, halves[0]);
            vst1_u16(p.add(4), halves[1]);
            vst1_u16(p.add(8), halves[2]);
            vst1_u16(p.add(12), halves[3])
        }
    }

    #[inline(always)]
    fn load_bf16(self, x: &[[u8; 2]; WIDTH]) -> F {
        let x = self.halves(x);
        four!(|x| vreinterpretq_f32_u32(vshlq_n_u32::<16>(vmovl_u16(x))))
    }

    #[inline(always)]
    fn load_u8(self, x: &[u8; WIDTH]) -> F {
        let x = simd! {
            let x = vld1q_u8(x.as_ptr());
            let (low, high) = (vmovl_u8(vget_low_u8(x)), vmovl_u8(vget_high_u8(x)));
            [vget_low_u16(low), vget_high_u16(low), vget_low_u16(high), vget_high_u16(high)]
        };
        four!(|x| vcvtq_f32_u32(vmovl_u16(x)))
    }

    #[inline(always)]
    fn load_i8(self, x: &[u8; WIDTH]) -> F {
        let x = simd! {
            let x = vreinterpretq_s8_u8(vld1q_u8(x.as_ptr()));
            let (low, high) = (vmovl_s8(vget_low_s8(x)), vmovl_s8(vget_high_s8(x)));
            [vget_low_s16(low), vget_high_s16(low), vget_low_s16(high), vget_high_s16(high)]
        };
        four!(|x| vcvtq_f32_s32(vmovl_s16(x)))
    }

    #[inline(always)]
    fn add(self, a: F, b: F) -> F {
        four!(|a, b| vaddq_f32(a, b))
    }

    #[inline(always)]
    fn sub(self, a: F, b: F) -> F {
        four!(|a, b| vsubq_f32(a, b))
    }

    #[inline(always)]
    fn mul(self, a: F, b: F) -> F {
        four!(|a, b| vmulq_f32(a, b))
    }

    #[inline(always)]
    fn div(self, a: F, b: F) -> F {
        four!(|a, b| vdivq_f32(a, b))
    }

    #[inline(always)]
    fn fma(self, a: F, b: F, c: F) -> F {
        four!(|a, b, c| vfmaq_f32(c, a, b))
    }

    // The number where one of two is a NaN, as `f32::max`.
    #[inline(always)]
    fn max(self, a: F, b: F) -> F {
        four!(|a, b| vmaxnmq_f32(a, b))
    }

    #[inline(always)]
    fn min(self, a: F, b: F) -> F {
        four!(|a, b| vminnmq_f32(a, b))
    }

    #[inline(always)]
    fn rint(self, a: F) -> F {
        four!(|a| vrndnq_f32(a))
    }

    #[inline(always)]
    fn to_ints(self, a: F) -> I {
        four!(|a| vcvtnq_s32_f32(a))
    }

    #[inline(always)]
    fn greatest(self, a: F) -> f32 {
        simd! { vmaxnmvq_f32(vmaxnmq_f32(vmaxnmq_f32(a[0], a[1]), vmaxnmq_f32(a[2], a[3]))) }
    }

    #[inline(always)]
    fn tree(self, a: F) -> f32 {
        simd! {
            // l + (l + 8), then l + (l + 4): registers 0 and 2, 1 and 3; then what is left of both.
            let four = vaddq_f32(vaddq_f32(a[0], a[2]), vaddq_f32(a[1], a[3]));
            let two = vadd_f32(vget_low_f32(four), vget_high_f32(four));
            vget_lane_f32::<0>(two) + vget_lane_f32::<1>(two)
        }
    }

    #[inline(always)]
    fn splat_ints(self, x: i32) -> I {
        simd! { [vdupq_n_s32(x); 4] }
    }

    #[inline(always)]
    fn add_ints(self, a: I, b: I) -> I {
        four!(|a, b| vaddq_s32(a, b))
    }

    #[inline(always)]
    fn max_ints(self, a: I, b: I) -> I {
        four!(|a, b| vmaxq_s32(a, b))
    }

    #[inline(always)]
    fn to_floats(self, a: I) -> F {
        four!(|a| vcvtq_f32_s32(a))
    }

    #[inline(always)]
    fn magnitude(self, a: F) -> I {
        four!(|a| vandq_s32(vreinterpretq_s32_f32(a), vdupq_n_s32(i32::MAX)))
    }

    #[inline(always)]
    fn greatest_int(self, a: I) -> i32 {
        simd! { vmaxvq_s32(vmaxq_s32(vmaxq_s32(a[0], a[1]), vmaxq_s32(a[2], a[3]))) }
    }

    #[inline(always)]
    fn sum_ints(self, a: I) -> i32 {
        simd! { vaddvq_s32(vaddq_s32(vaddq_s32(a[0], a[1]), vaddq_s32(a[2], a[3]))) }
    }

    #[inline(always)]
    fn power_of_two(self, a: I) -> F {
        four!(|a| {
            let kept = vcgeq_s32(a, vdupq_n_s32(EXPONENT_MIN));
            let power = vshlq_n_s32::<23>(vaddq_s32(a, vdupq_n_s32(127)));
            vreinterpretq_f32_u32(vandq_u32(kept, vreinterpretq_u32_s32(power)))
        })
    }

    #[inline(always)]
    fn store_i8(self, out: &mut [i8; WIDTH], v: I) {
        simd! {
            let low = vcombine_s16(vmovn_s32(v[0]), vmovn_s32(v[1]));
            let high = vcombine_s16(vmovn_s32(v[2]), vmovn_s32(v[3]));
            vst1q_s8(out.as_mut_ptr(), vcombine_s8(vmovn_s16(low), vmovn_s16(high)))
        }
    }

    #[inline(always)]
    fn load_words(self, x: &[u8; 64]) -> W {
        let p = x.as_ptr();
        simd! { [vld1q_u8(p), vld1q_u8(p.add(16)), vld1q_u8(p.add(32)), vld1q_u8(p.add(48))] }
    }

    #[inline(always)]
    fn low_nibbles(self, w: W) -> W {
        four!(|w| vandq_u8(w, vdupq_n_u8(15)))
    }

    #[inline(always)]
    fn high_nibbles(self, w: W) -> W {
        four!(|w| vshrq_n_u8::<4>(w))
    }

    #[inline(always)]
    fn six_bits(self, low: W, high: W, field: usize) -> W {
        let shifted = match field {
            0 => four!(|high| vshlq_n_u8::<4>(high)),
            1 => four!(|high| vshlq_n_u8::<2>(high)),
            2 => high,
            _ => four!(|high| vshrq_n_u8::<2>(high)),
        };
        four!(|low, shifted| vorrq_u8(low, vandq_u8(shifted, vdupq_n_u8(0x30))))
    }

    #[inline(always)]
    fn prefetch(self, address: *const u8) {
        // SAFETY: a prefetch of any address has no effect but on time.
        unsafe { asm!("prfm pldl1keep, [{}]", in(reg) address, options(nostack, readonly, preserves_flags)) };
    }
}

/// Codes below 128 are the same number signed and unsigned, so one signed dot product serves; the offset undoes the
/// bias.
macro_rules! small_codes {
    ($($codes:ty),*) => { $(
        impl Dot<$codes> for Neon {
            type Weights = W;
            type Sum = I;

            #[inline(always)]
            fn prepare(self, w: W) -> W {
                w
            }

            #[inline(always)]
            fn begin(self, offset: i32) -> I {
                self.splat_ints(offset)
            }

            #[inline(always)]
            fn step(self, sum: I, _j: usize, w: W, q: [i8; 4]) -> I {
                let q = self.splat_ints(i32::from_ne_bytes(q.map(|q| q as u8)));
                four!(|sum, w, q| self.dot(sum, vreinterpretq_s8_u8(w), vreinterpretq_s8_s32(q)))
            }

            #[inline(always)]
            fn finish(self, sum: I, _offset: i32) -> I {
                sum
            }
        }
    )* };
}

small_codes!(Nibbles, SixBits);

/// The bias of bytes is undone in the weights, which fit a signed byte.
impl Dot<Bytes> for Neon {
    type Weights = W;
    type Sum = I;

    #[inline(always)]
    fn prepare(self, w: W) -> W {
        four!(|w| veorq_u8(w, vdupq_n_u8(0x80)))
    }

    #[inline(always)]
    fn begin(self, _offset: i32) -> I {
        self.splat_ints(0)
    }

    #[inline(always)]
    fn step(self, sum: I, j: usize, w: W, q: [i8; 4]) -> I {
        Dot::<Nibbles>::step(self, sum, j, w, q)
    }

    #[inline(always)]
    fn finish(self, sum: I, _offset: i32) -> I {
        sum
    }
}
