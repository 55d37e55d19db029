//! AVX-512: a vector is one 512-bit register. With `VNNI`, byte dot products take one instruction.

#![allow(unsafe_code)]

use super::{Bytes, Dot, Lanes, Nibbles, SixBits, WIDTH};
use crate::activation::EXPONENT_MIN;
use std::arch::x86_64::*;

/// The AVX-512 instance; a value proves that F, BW, VL and DQ (and VNNI, if so marked) are there.
#[derive(Clone, Copy)]
pub(crate) struct Avx512<const VNNI: bool>(());

impl Avx512<false> {
    #[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512dq")]
    pub(crate) fn new() -> Self {
        Avx512(())
    }
}

impl Avx512<true> {
    #[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
    pub(crate) fn new_vnni() -> Self {
        Avx512(())
    }
}

/// Wraps an expression of intrinsics. The one safety argument of this file:
macro_rules! simd {
    ($($body:tt)*) => {
        // SAFETY: `self` exists only where the instructions do (`new`, `new_vnni`); pointers come from references
        // to arrays of at least the size read or written.
        unsafe { $($body)* }
    };
}

impl<const VNNI: bool> Avx512<VNNI> {
    /// Products of unsigned and signed bytes, summed in pairs to 16 bits; the caller shows they do not saturate.
    #[inline(always)]
    fn pairs(self, unsigned: __m512i, signed: __m512i) -> __m512i {
        simd! { _mm512_maddubs_epi16(unsigned, signed) }
    }

    /// Pairs of 16 bits summed to 32.
    #[inline(always)]
    fn widen_pairs(self, pairs: __m512i) -> __m512i {
        simd! { _mm512_madd_epi16(pairs, _mm512_set1_epi16(1)) }
    }

    /// Four activations in every lane.
    #[inline(always)]
    fn broadcast(self, q: [i8; 4]) -> __m512i {
        simd! { _mm512_set1_epi32(i32::from_ne_bytes(q.map(|q| q as u8))) }
    }

    /// `low + high` halves, the first step of the tree.
    #[inline(always)]
    fn halves(self, a: __m512) -> (__m256, __m256) {
        simd! { (_mm512_castps512_ps256(a), _mm512_extractf32x8_ps::<1>(a)) }
    }
}

impl<const VNNI: bool> Lanes for Avx512<VNNI> {
    type Floats = __m512;
    type Ints = __m512i;
    type Words = __m512i;
    const WIDE: bool = true;

    #[inline(always)]
    fn splat(self, x: f32) -> __m512 {
        simd! { _mm512_set1_ps(x) }
    }

    #[inline(always)]
    fn load(self, x: &[f32; WIDTH]) -> __m512 {
        simd! { _mm512_loadu_ps(x.as_ptr()) }
    }

    #[inline(always)]
    fn store(self, out: &mut [f32; WIDTH], v: __m512) {
        simd! { _mm512_storeu_ps(out.as_mut_ptr(), v) }
    }

    #[inline(always)]
    fn load_f32(self, x: &[[u8; 4]; WIDTH]) -> __m512 {
        simd! { _mm512_loadu_ps(x.as_ptr().cast()) }
    }

    #[inline(always)]
    fn load_f16(self, x: &[[u8; 2]; WIDTH]) -> __m512 {
        simd! { _mm512_cvtph_ps(_mm256_loadu_si256(x.as_ptr().cast())) }
    }

    #[inline(always)]
    fn store_f16(self, out: &mut [u16; WIDTH], v: __m512) {
        simd! { _mm256_storeu_si256(out.as_mut_ptr().cast(), _mm512_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(v)) }
    }

    #[inline(always)]
    fn load_bf16(self, x: &[[u8; 2]; WIDTH]) -> __m512 {
        simd! {
            let wide = _mm512_cvtepu16_epi32(_mm256_loadu_si256(x.as_ptr().cast()));
            _mm512_castsi512_ps(_mm512_slli_epi32::<16>(wide))
        }
    }

    #[inline(always)]
    fn load_u8(self, x: &[u8; WIDTH]) -> __m512 {
        simd! { _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(_mm_loadu_si128(x.as_ptr().cast()))) }
    }

    #[inline(always)]
    fn load_i8(self, x: &[u8; WIDTH]) -> __m512 {
        simd! { _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(x.as_ptr().cast()))) }
    }

    #[inline(always)]
    fn add(self, a: __m512, b: __m512) -> __m512 {
        simd! { _mm512_add_ps(a, b) }
    }

    #[inline(always)]
    fn sub(self, a: __m512, b: __m512) -> __m512 {
        simd! { _mm512_sub_ps(a, b) }
    }

    #[inline(always)]
    fn mul(self, a: __m512, b: __m512) -> __m512 {
        simd! { _mm512_mul_ps(a, b) }
    }

    #[inline(always)]
    fn div(self, a: __m512, b: __m512) -> __m512 {
        simd! { _mm512_div_ps(a, b) }
    }

    #[inline(always)]
    fn fma(self, a: __m512, b: __m512, c: __m512) -> __m512 {
        simd! { _mm512_fmadd_ps(a, b, c) }
    }

    #[inline(always)]
    fn max(self, a: __m512, b: __m512) -> __m512 {
        simd! { _mm512_max_ps(a, b) }
    }

    #[inline(always)]
    fn min(self, a: __m512, b: __m512) -> __m512 {
        simd! { _mm512_min_ps(a, b) }
    }

    #[inline(always)]
    fn rint(self, a: __m512) -> __m512 {
        simd! { _mm512_roundscale_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(a) }
    }

    #[inline(always)]
    fn to_ints(self, a: __m512) -> __m512i {
        simd! { _mm512_cvtps_epi32(a) }
    }

    #[inline(always)]
    fn greatest(self, a: __m512) -> f32 {
        let (low, high) = self.halves(a);
        simd! { super::avx2::greatest(_mm256_max_ps(low, high)) }
    }

    #[inline(always)]
    fn tree(self, a: __m512) -> f32 {
        let (low, high) = self.halves(a);
        simd! { super::avx2::tree(_mm256_add_ps(low, high)) }
    }

    #[inline(always)]
    fn splat_ints(self, x: i32) -> __m512i {
        simd! { _mm512_set1_epi32(x) }
    }

    #[inline(always)]
    fn add_ints(self, a: __m512i, b: __m512i) -> __m512i {
        simd! { _mm512_add_epi32(a, b) }
    }

    #[inline(always)]
    fn max_ints(self, a: __m512i, b: __m512i) -> __m512i {
        simd! { _mm512_max_epi32(a, b) }
    }

    #[inline(always)]
    fn to_floats(self, a: __m512i) -> __m512 {
        simd! { _mm512_cvtepi32_ps(a) }
    }

    #[inline(always)]
    fn magnitude(self, a: __m512) -> __m512i {
        simd! { _mm512_and_si512(_mm512_castps_si512(a), _mm512_set1_epi32(i32::MAX)) }
    }

    #[inline(always)]
    fn greatest_int(self, a: __m512i) -> i32 {
        simd! { _mm512_reduce_max_epi32(a) }
    }

    #[inline(always)]
    fn sum_ints(self, a: __m512i) -> i32 {
        simd! { _mm512_reduce_add_epi32(a) }
    }

    #[inline(always)]
    fn power_of_two(self, a: __m512i) -> __m512 {
        simd! {
            let kept = _mm512_cmpge_epi32_mask(a, _mm512_set1_epi32(EXPONENT_MIN));
            let biased = _mm512_add_epi32(a, _mm512_set1_epi32(127));
            _mm512_castsi512_ps(_mm512_maskz_slli_epi32::<23>(kept, biased))
        }
    }

    #[inline(always)]
    fn store_i8(self, out: &mut [i8; WIDTH], v: __m512i) {
        simd! { _mm_storeu_si128(out.as_mut_ptr().cast(), _mm512_cvtepi32_epi8(v)) }
    }

    #[inline(always)]
    fn load_words(self, x: &[u8; 64]) -> __m512i {
        simd! { _mm512_loadu_si512(x.as_ptr().cast()) }
    }

    #[inline(always)]
    fn low_nibbles(self, w: __m512i) -> __m512i {
        simd! { _mm512_and_si512(w, _mm512_set1_epi8(15)) }
    }

    #[inline(always)]
    fn high_nibbles(self, w: __m512i) -> __m512i {
        simd! { _mm512_and_si512(_mm512_srli_epi16::<4>(w), _mm512_set1_epi8(15)) }
    }

    #[inline(always)]
    fn six_bits(self, low: __m512i, high: __m512i, field: usize) -> __m512i {
        simd! {
            let shifted = match field {
                0 => _mm512_slli_epi16::<4>(high),
                1 => _mm512_slli_epi16::<2>(high),
                2 => high,
                _ => _mm512_srli_epi16::<2>(high),
            };
            // low | (shifted & 0x30)
            _mm512_ternarylogic_epi32::<0xf8>(low, shifted, _mm512_set1_epi8(0x30))
        }
    }

    #[inline(always)]
    fn prefetch(self, address: *const u8) {
        simd! { _mm_prefetch::<_MM_HINT_T0>(address.cast()) }
    }
}

/// One VNNI instruction adds four products to a lane, exactly: the offset undoes the bias.
macro_rules! vnni {
    ($($codes:ty),*) => { $(
        impl Dot<$codes> for Avx512<true> {
            type Weights = __m512i;
            type Sum = __m512i;

            #[inline(always)]
            fn prepare(self, w: __m512i) -> __m512i {
                w
            }

            #[inline(always)]
            fn begin(self, offset: i32) -> __m512i {
                self.splat_ints(offset)
            }

            #[inline(always)]
            fn step(self, sum: __m512i, _j: usize, w: __m512i, q: [i8; 4]) -> __m512i {
                simd! { _mm512_dpbusd_epi32(sum, w, self.broadcast(q)) }
            }

            #[inline(always)]
            fn finish(self, sum: __m512i, _offset: i32) -> __m512i {
                sum
            }
        }
    )* };
}

vnni!(Nibbles, SixBits, Bytes);

const _: () = assert!(8 * 2 * 15 * 127 <= i16::MAX as i32, "eight steps of two products of nibbles");

/// All eight steps stay in 16 bits, then widen once.
impl Dot<Nibbles> for Avx512<false> {
    type Weights = __m512i;
    type Sum = __m512i;

    #[inline(always)]
    fn prepare(self, w: __m512i) -> __m512i {
        w
    }

    #[inline(always)]
    fn begin(self, _offset: i32) -> __m512i {
        self.splat_ints(0)
    }

    #[inline(always)]
    fn step(self, sum: __m512i, _j: usize, w: __m512i, q: [i8; 4]) -> __m512i {
        simd! { _mm512_add_epi16(sum, self.pairs(w, self.broadcast(q))) }
    }

    #[inline(always)]
    fn finish(self, sum: __m512i, offset: i32) -> __m512i {
        self.add_ints(self.widen_pairs(sum), self.splat_ints(offset))
    }
}

const _: () = assert!(2 * 2 * 63 * 127 <= i16::MAX as i32, "two steps of two products of six-bit codes");

/// Two steps stay in 16 bits, then widen.
impl Dot<SixBits> for Avx512<false> {
    type Weights = __m512i;
    /// The 16-bit sum of the even step before this one, and the 32-bit total.
    type Sum = (__m512i, __m512i);

    #[inline(always)]
    fn prepare(self, w: __m512i) -> __m512i {
        w
    }

    #[inline(always)]
    fn begin(self, offset: i32) -> Self::Sum {
        (self.splat_ints(0), self.splat_ints(offset))
    }

    #[inline(always)]
    fn step(self, (pending, total): Self::Sum, j: usize, w: __m512i, q: [i8; 4]) -> Self::Sum {
        let pairs = self.pairs(w, self.broadcast(q));
        if j.is_multiple_of(2) {
            (pairs, total)
        } else {
            let both = simd! { _mm512_add_epi16(pending, pairs) };
            (pending, self.add_ints(total, self.widen_pairs(both)))
        }
    }

    #[inline(always)]
    fn finish(self, (_, total): Self::Sum, _offset: i32) -> __m512i {
        total
    }
}

const _: () = assert!(2 * 128 * 127 <= i16::MAX as i32, "one step of two products of bytes");

/// |w|·(q with w's sign): one step fits 16 bits, and the bias is undone in the weights.
impl Dot<Bytes> for Avx512<false> {
    /// |w|, and which w are negative.
    type Weights = (__m512i, __mmask64);
    type Sum = __m512i;

    #[inline(always)]
    fn prepare(self, w: __m512i) -> Self::Weights {
        simd! {
            let signed = _mm512_xor_si512(w, _mm512_set1_epi8(i8::MIN));
            (_mm512_abs_epi8(signed), _mm512_movepi8_mask(signed))
        }
    }

    #[inline(always)]
    fn begin(self, _offset: i32) -> __m512i {
        self.splat_ints(0)
    }

    #[inline(always)]
    fn step(self, sum: __m512i, _j: usize, (magnitude, negative): Self::Weights, q: [i8; 4]) -> __m512i {
        let q = self.broadcast(q);
        let signed = simd! { _mm512_mask_sub_epi8(q, negative, _mm512_setzero_si512(), q) };
        self.add_ints(sum, self.widen_pairs(self.pairs(magnitude, signed)))
    }

    #[inline(always)]
    fn finish(self, sum: __m512i, _offset: i32) -> __m512i {
        sum
    }
}
