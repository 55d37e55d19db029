//! AVX2: a vector is two 256-bit registers, low lanes first. With `VNNI`, byte dot products take one instruction.

#![allow(unsafe_code)]

use super::{Bytes, Dot, Lanes, Nibbles, SixBits, WIDTH};
use crate::activation::EXPONENT_MIN;
use std::arch::x86_64::*;

/// The AVX2 instance; a value proves that AVX2, FMA and F16C (and AVX-VNNI, if so marked) are there.
#[derive(Clone, Copy)]
pub(crate) struct Avx2<const VNNI: bool>(());

impl Avx2<false> {
    #[target_feature(enable = "avx2,fma,f16c")]
    pub(crate) fn new() -> Self {
        Avx2(())
    }
}

impl Avx2<true> {
    #[target_feature(enable = "avx2,fma,f16c,avxvnni")]
    pub(crate) fn new_vnni() -> Self {
        Avx2(())
    }
}

/// 16 f32.
type F = [__m256; 2];
/// 16 i32, or 64 bytes.
type I = [__m256i; 2];

/// Wraps an expression of intrinsics. The one safety argument of this file:
macro_rules! simd {
    ($($body:tt)*) => {
        // SAFETY: `self` exists only where the instructions do (`new`, `new_vnni`); pointers come from references
        // to arrays of at least the size read or written.
        unsafe { $($body)* }
    };
}

/// Applies an expression of intrinsics to both registers of its operands.
macro_rules! both {
    (|$($operand:ident),+| $body:expr) => {
        simd! { [
            { $(let $operand = $operand[0];)+ $body },
            { $(let $operand = $operand[1];)+ $body },
        ] }
    };
}

/// The greatest of eight lanes.
#[target_feature(enable = "avx2")]
#[inline]
pub(super) fn greatest(a: __m256) -> f32 {
    let m = _mm_max_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps::<1>(a));
    let m = _mm_max_ps(m, _mm_movehl_ps(m, m));
    _mm_cvtss_f32(_mm_max_ss(m, _mm_shuffle_ps::<1>(m, m)))
}

/// Eight lanes closed by l + (l+4), l + (l+2), l + (l+1): the tree of after its first step.
#[target_feature(enable = "avx2")]
#[inline]
pub(super) fn tree(a: __m256) -> f32 {
    let s = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps::<1>(a));
    let s = _mm_add_ps(s, _mm_movehl_ps(s, s));
    _mm_cvtss_f32(_mm_add_ss(s, _mm_shuffle_ps::<1>(s, s)))
}

impl<const VNNI: bool> Avx2<VNNI> {
    /// Products of unsigned and signed bytes, summed in pairs to 16 bits; the caller shows they do not saturate.
    #[inline(always)]
    fn pairs(self, unsigned: I, signed: I) -> I {
        both!(|unsigned, signed| _mm256_maddubs_epi16(unsigned, signed))
    }

    /// Pairs of 16 bits summed to 32.
    #[inline(always)]
    fn widen_pairs(self, pairs: I) -> I {
        both!(|pairs| _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)))
    }

    #[inline(always)]
    fn add_pairs(self, a: I, b: I) -> I {
        both!(|a, b| _mm256_add_epi16(a, b))
    }

    /// Four activations in every lane.
    #[inline(always)]
    fn broadcast(self, q: [i8; 4]) -> I {
        self.splat_ints(i32::from_ne_bytes(q.map(|q| q as u8)))
    }

    /// Both registers' eight 32-bit lanes widened from 16-byte-wide memory by `widen`.
    #[inline(always)]
    fn low_halves(self, x: &[u8; WIDTH]) -> [__m128i; 2] {
        simd! { [_mm_loadl_epi64(x.as_ptr().cast()), _mm_loadl_epi64(x.as_ptr().add(8).cast())] }
    }

    #[inline(always)]
    fn halves(self, x: &[[u8; 2]; WIDTH]) -> [__m128i; 2] {
        simd! { [_mm_loadu_si128(x.as_ptr().cast()), _mm_loadu_si128(x.as_ptr().add(8).cast())] }
    }
}

impl<const VNNI: bool> Lanes for Avx2<VNNI> {
    type Floats = F;
    type Ints = I;
    type Words = I;
    const WIDE: bool = false;

    #[inline(always)]
    fn splat(self, x: f32) -> F {
        simd! { [_mm256_set1_ps(x); 2] }
    }

    #[inline(always)]
    fn load(self, x: &[f32; WIDTH]) -> F {
        simd! { [_mm256_loadu_ps(x.as_ptr()), _mm256_loadu_ps(x.as_ptr().add(8))] }
    }

    #[inline(always)]
    fn store(self, out: &mut [f32; WIDTH], v: F) {
        simd! {
            _mm256_storeu_ps(out.as_mut_ptr(), v[0]);
            _mm256_storeu_ps(out.as_mut_ptr().add(8), v[1])
        }
    }

    #[inline(always)]
    fn load_f32(self, x: &[[u8; 4]; WIDTH]) -> F {
        simd! { [_mm256_loadu_ps(x.as_ptr().cast()), _mm256_loadu_ps(x.as_ptr().add(8).cast())] }
    }

    #[inline(always)]
    fn load_f16(self, x: &[[u8; 2]; WIDTH]) -> F {
        let x = self.halves(x);
        both!(|x| _mm256_cvtph_ps(x))
    }

    #[inline(always)]
    fn store_f16(self, out: &mut [u16; WIDTH], v: F) {
        simd! {
            let p = out.as_mut_ptr();
            _mm_storeu_si128(p.cast(), _mm256_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(v[0]));
            _mm_storeu_si128(p.add(8).cast(), _mm256_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(v[1]))
        }
    }

    #[inline(always)]
    fn load_bf16(self, x: &[[u8; 2]; WIDTH]) -> F {
        let x = self.halves(x);
        both!(|x| _mm256_castsi256_ps(_mm256_slli_epi32::<16>(_mm256_cvtepu16_epi32(x))))
    }

    #[inline(always)]
    fn load_u8(self, x: &[u8; WIDTH]) -> F {
        let x = self.low_halves(x);
        both!(|x| _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(x)))
    }

    #[inline(always)]
    fn load_i8(self, x: &[u8; WIDTH]) -> F {
        let x = self.low_halves(x);
        both!(|x| _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(x)))
    }

    #[inline(always)]
    fn add(self, a: F, b: F) -> F {
        both!(|a, b| _mm256_add_ps(a, b))
    }

    #[inline(always)]
    fn sub(self, a: F, b: F) -> F {
        both!(|a, b| _mm256_sub_ps(a, b))
    }

    #[inline(always)]
    fn mul(self, a: F, b: F) -> F {
        both!(|a, b| _mm256_mul_ps(a, b))
    }

    #[inline(always)]
    fn div(self, a: F, b: F) -> F {
        both!(|a, b| _mm256_div_ps(a, b))
    }

    #[inline(always)]
    fn fma(self, a: F, b: F, c: F) -> F {
        both!(|a, b, c| _mm256_fmadd_ps(a, b, c))
    }

    #[inline(always)]
    fn max(self, a: F, b: F) -> F {
        both!(|a, b| _mm256_max_ps(a, b))
    }

    #[inline(always)]
    fn min(self, a: F, b: F) -> F {
        both!(|a, b| _mm256_min_ps(a, b))
    }

    #[inline(always)]
    fn rint(self, a: F) -> F {
        both!(|a| _mm256_round_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(a))
    }

    #[inline(always)]
    fn to_ints(self, a: F) -> I {
        both!(|a| _mm256_cvtps_epi32(a))
    }

    #[inline(always)]
    fn greatest(self, a: F) -> f32 {
        simd! { greatest(_mm256_max_ps(a[0], a[1])) }
    }

    #[inline(always)]
    fn tree(self, a: F) -> f32 {
        simd! { tree(_mm256_add_ps(a[0], a[1])) }
    }

    #[inline(always)]
    fn splat_ints(self, x: i32) -> I {
        simd! { [_mm256_set1_epi32(x); 2] }
    }

    #[inline(always)]
    fn add_ints(self, a: I, b: I) -> I {
        both!(|a, b| _mm256_add_epi32(a, b))
    }

    #[inline(always)]
    fn max_ints(self, a: I, b: I) -> I {
        both!(|a, b| _mm256_max_epi32(a, b))
    }

    #[inline(always)]
    fn to_floats(self, a: I) -> F {
        both!(|a| _mm256_cvtepi32_ps(a))
    }

    #[inline(always)]
    fn magnitude(self, a: F) -> I {
        both!(|a| _mm256_and_si256(_mm256_castps_si256(a), _mm256_set1_epi32(i32::MAX)))
    }

    #[inline(always)]
    fn greatest_int(self, a: I) -> i32 {
        simd! {
            let m = _mm256_max_epi32(a[0], a[1]);
            let m = _mm_max_epi32(_mm256_castsi256_si128(m), _mm256_extracti128_si256::<1>(m));
            let m = _mm_max_epi32(m, _mm_shuffle_epi32::<0b01_00_11_10>(m));
            _mm_cvtsi128_si32(_mm_max_epi32(m, _mm_shuffle_epi32::<0b10_11_00_01>(m)))
        }
    }

    #[inline(always)]
    fn sum_ints(self, a: I) -> i32 {
        simd! {
            let s = _mm256_add_epi32(a[0], a[1]);
            let s = _mm_add_epi32(_mm256_castsi256_si128(s), _mm256_extracti128_si256::<1>(s));
            let s = _mm_add_epi32(s, _mm_shuffle_epi32::<0b01_00_11_10>(s));
            _mm_cvtsi128_si32(_mm_add_epi32(s, _mm_shuffle_epi32::<0b10_11_00_01>(s)))
        }
    }

    #[inline(always)]
    fn power_of_two(self, a: I) -> F {
        both!(|a| {
            let kept = _mm256_cmpgt_epi32(a, _mm256_set1_epi32(EXPONENT_MIN - 1));
            let power = _mm256_slli_epi32::<23>(_mm256_add_epi32(a, _mm256_set1_epi32(127)));
            _mm256_castsi256_ps(_mm256_and_si256(kept, power))
        })
    }

    #[inline(always)]
    fn store_i8(self, out: &mut [i8; WIDTH], v: I) {
        simd! {
            // The low byte of every lane to the front of each 128 bits, then the four pieces of four together.
            let pick = _mm_setr_epi8(0, 4, 8, 12, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1);
            let four = |x: __m128i| _mm_shuffle_epi8(x, pick);
            let eight = |x: __m256i| {
                let (low, high) = (_mm256_castsi256_si128(x), _mm256_extracti128_si256::<1>(x));
                _mm_unpacklo_epi32(four(low), four(high))
            };
            _mm_storeu_si128(out.as_mut_ptr().cast(), _mm_unpacklo_epi64(eight(v[0]), eight(v[1])))
        }
    }

    #[inline(always)]
    fn load_words(self, x: &[u8; 64]) -> I {
        simd! { [_mm256_loadu_si256(x.as_ptr().cast()), _mm256_loadu_si256(x.as_ptr().add(32).cast())] }
    }

    #[inline(always)]
    fn low_nibbles(self, w: I) -> I {
        both!(|w| _mm256_and_si256(w, _mm256_set1_epi8(15)))
    }

    #[inline(always)]
    fn high_nibbles(self, w: I) -> I {
        both!(|w| _mm256_and_si256(_mm256_srli_epi16::<4>(w), _mm256_set1_epi8(15)))
    }

    #[inline(always)]
    fn six_bits(self, low: I, high: I, field: usize) -> I {
        let shifted = match field {
            0 => both!(|high| _mm256_slli_epi16::<4>(high)),
            1 => both!(|high| _mm256_slli_epi16::<2>(high)),
            2 => high,
            _ => both!(|high| _mm256_srli_epi16::<2>(high)),
        };
        both!(|low, shifted| _mm256_or_si256(low, _mm256_and_si256(shifted, _mm256_set1_epi8(0x30))))
    }

    #[inline(always)]
    fn prefetch(self, address: *const u8) {
        simd! { _mm_prefetch::<_MM_HINT_T0>(address.cast()) }
    }
}

/// One VNNI instruction adds four products to a lane, exactly: the offset undoes the bias.
macro_rules! vnni {
    ($($codes:ty),*) => { $(
        impl Dot<$codes> for Avx2<true> {
            type Weights = I;
            type Sum = I;

            #[inline(always)]
            fn prepare(self, w: I) -> I {
                w
            }

            #[inline(always)]
            fn begin(self, offset: i32) -> I {
                self.splat_ints(offset)
            }

            #[inline(always)]
            fn step(self, sum: I, _j: usize, w: I, q: [i8; 4]) -> I {
                let q = self.broadcast(q);
                both!(|sum, w, q| _mm256_dpbusd_avx_epi32(sum, w, q))
            }

            #[inline(always)]
            fn finish(self, sum: I, _offset: i32) -> I {
                sum
            }
        }
    )* };
}

vnni!(Nibbles, SixBits, Bytes);

const _: () = assert!(8 * 2 * 15 * 127 <= i16::MAX as i32, "eight steps of two products of nibbles");

/// All eight steps stay in 16 bits, then widen once.
impl Dot<Nibbles> for Avx2<false> {
    type Weights = I;
    type Sum = I;

    #[inline(always)]
    fn prepare(self, w: I) -> I {
        w
    }

    #[inline(always)]
    fn begin(self, _offset: i32) -> I {
        self.splat_ints(0)
    }

    #[inline(always)]
    fn step(self, sum: I, _j: usize, w: I, q: [i8; 4]) -> I {
        self.add_pairs(sum, self.pairs(w, self.broadcast(q)))
    }

    #[inline(always)]
    fn finish(self, sum: I, offset: i32) -> I {
        self.add_ints(self.widen_pairs(sum), self.splat_ints(offset))
    }
}

const _: () = assert!(2 * 2 * 63 * 127 <= i16::MAX as i32, "two steps of two products of six-bit codes");

/// Two steps stay in 16 bits, then widen.
impl Dot<SixBits> for Avx2<false> {
    type Weights = I;
    /// The 16-bit sum of the even step before this one, and the 32-bit total.
    type Sum = (I, I);

    #[inline(always)]
    fn prepare(self, w: I) -> I {
        w
    }

    #[inline(always)]
    fn begin(self, offset: i32) -> (I, I) {
        (self.splat_ints(0), self.splat_ints(offset))
    }

    #[inline(always)]
    fn step(self, (pending, total): (I, I), j: usize, w: I, q: [i8; 4]) -> (I, I) {
        let pairs = self.pairs(w, self.broadcast(q));
        if j.is_multiple_of(2) {
            (pairs, total)
        } else {
            (pending, self.add_ints(total, self.widen_pairs(self.add_pairs(pending, pairs))))
        }
    }

    #[inline(always)]
    fn finish(self, (_, total): (I, I), _offset: i32) -> I {
        total
    }
}

const _: () = assert!(2 * 128 * 127 <= i16::MAX as i32, "one step of two products of bytes");

/// |w|·(q with w's sign): one step fits 16 bits, and the bias is undone in the weights.
impl Dot<Bytes> for Avx2<false> {
    /// w, and |w|.
    type Weights = (I, I);
    type Sum = I;

    #[inline(always)]
    fn prepare(self, w: I) -> (I, I) {
        let signed = both!(|w| _mm256_xor_si256(w, _mm256_set1_epi8(i8::MIN)));
        (signed, both!(|signed| _mm256_abs_epi8(signed)))
    }

    #[inline(always)]
    fn begin(self, _offset: i32) -> I {
        self.splat_ints(0)
    }

    #[inline(always)]
    fn step(self, sum: I, _j: usize, (w, magnitude): (I, I), q: [i8; 4]) -> I {
        let q = self.broadcast(q);
        let signed = both!(|q, w| _mm256_sign_epi8(q, w));
        self.add_ints(sum, self.widen_pairs(self.pairs(magnitude, signed)))
    }

    #[inline(always)]
    fn finish(self, sum: I, _offset: i32) -> I {
        sum
    }
}
