//! The virtual vector: 16 lanes of binary32, whatever the machine's width.
//!
//! In:     vectors, and memory in pieces of 16.
//! Out:    vectors. Every operation is one IEEE 754 operation, or one exact integer operation, per lane.
//! Holds:  all instances agree bit for bit, so a kernel written once over `Lanes` has the same bits on each.
//!         A value of an instance is the proof that its instructions exist here: it is made in `instances!` alone.
//! Absent: kernels. Each operation keeps its own beside its definition.
//!
//! `scalar` is the definition the instances are tested against. AVX2 uses two 256-bit registers for a vector, AVX-512
//! one of 512, NEON four of 128.

#[cfg(target_arch = "x86_64")]
pub(crate) mod avx2;
#[cfg(target_arch = "x86_64")]
pub(crate) mod avx512;
#[cfg(target_arch = "aarch64")]
pub(crate) mod neon;
#[cfg(test)]
pub(crate) mod scalar;
#[cfg(test)]
mod tests;

/// Lanes of a vector.
pub(crate) const WIDTH: usize = 16;

/// 16 lanes of f32 and the integer operations products need.
pub(crate) trait Lanes: Copy {
    /// 16 f32.
    type Floats: Copy;
    /// 16 i32.
    type Ints: Copy;
    /// 64 bytes: four consecutive elements of K for each of 16 rows.
    type Words: Copy;
    /// Whether the machine has 32 registers of this width, so that a whole block of weights stays in them.
    const WIDE: bool;

    fn splat(self, x: f32) -> Self::Floats;
    fn load(self, x: &[f32; WIDTH]) -> Self::Floats;
    fn store(self, out: &mut [f32; WIDTH], v: Self::Floats);
    /// 16 little-endian f32 on any byte boundary.
    fn load_f32(self, x: &[[u8; 4]; WIDTH]) -> Self::Floats;
    /// 16 little-endian binary16, widened.
    fn load_f16(self, x: &[[u8; 2]; WIDTH]) -> Self::Floats;
    /// Rounds to binary16.
    fn store_f16(self, out: &mut [u16; WIDTH], v: Self::Floats);
    /// 16 little-endian bfloat16, widened.
    fn load_bf16(self, x: &[[u8; 2]; WIDTH]) -> Self::Floats;
    fn load_u8(self, x: &[u8; WIDTH]) -> Self::Floats;
    fn load_i8(self, x: &[u8; WIDTH]) -> Self::Floats;

    fn add(self, a: Self::Floats, b: Self::Floats) -> Self::Floats;
    fn sub(self, a: Self::Floats, b: Self::Floats) -> Self::Floats;
    fn mul(self, a: Self::Floats, b: Self::Floats) -> Self::Floats;
    fn div(self, a: Self::Floats, b: Self::Floats) -> Self::Floats;
    /// a·b + c, rounded once.
    fn fma(self, a: Self::Floats, b: Self::Floats, c: Self::Floats) -> Self::Floats;
    /// The greater; of numbers that are equal, or where one is a NaN, either.
    fn max(self, a: Self::Floats, b: Self::Floats) -> Self::Floats;
    /// The lesser, likewise.
    fn min(self, a: Self::Floats, b: Self::Floats) -> Self::Floats;
    /// To an integral value, ties to even.
    fn rint(self, a: Self::Floats) -> Self::Floats;
    /// To an integer, ties to even; exact for |a| < 2³¹, anything beyond.
    fn to_ints(self, a: Self::Floats) -> Self::Ints;
    /// The greatest lane.
    fn greatest(self, a: Self::Floats) -> f32;
    /// The lanes closed by the tree of.
    fn tree(self, a: Self::Floats) -> f32;

    fn splat_ints(self, x: i32) -> Self::Ints;
    /// Wraps on overflow.
    fn add_ints(self, a: Self::Ints, b: Self::Ints) -> Self::Ints;
    fn max_ints(self, a: Self::Ints, b: Self::Ints) -> Self::Ints;
    /// Exact for |a| ≤ 2²⁴.
    fn to_floats(self, a: Self::Ints) -> Self::Floats;
    /// The bits of |a|: as integers they order like the magnitudes, infinities and NaNs last.
    fn magnitude(self, a: Self::Floats) -> Self::Ints;
    fn greatest_int(self, a: Self::Ints) -> i32;
    fn sum_ints(self, a: Self::Ints) -> i32;
    /// 2^a; +0 below 2⁻¹²⁰, infinity at 2¹²⁸. Lanes are at most 128.
    fn power_of_two(self, a: Self::Ints) -> Self::Floats;
    /// The low byte of each lane.
    fn store_i8(self, out: &mut [i8; WIDTH], v: Self::Ints);

    fn load_words(self, x: &[u8; 64]) -> Self::Words;
    /// Each byte's low four bits.
    fn low_nibbles(self, w: Self::Words) -> Self::Words;
    /// Each byte's high four bits.
    fn high_nibbles(self, w: Self::Words) -> Self::Words;
    /// Bits 2·field and 2·field + 1 of each byte of `high` as bits 4 and 5 above the nibbles `low`.
    fn six_bits(self, low: Self::Words, high: Self::Words, field: usize) -> Self::Words;

    /// Asks for the cache line at `address`, which need not exist.
    fn prefetch(self, address: *const u8);
}

/// A class of unsigned weight codes: up to 15, in `Q4_0` and `Q4_K`.
pub(crate) struct Nibbles;
/// Codes up to 63: `Q6_K`.
pub(crate) struct SixBits;
/// Codes up to 255, w + 128: `Q8_0`.
pub(crate) struct Bytes;

/// Exact integer dot products of one class of codes with int8 activations in [−127, 127].
///
/// A sum begins, takes up to eight vectors of weights (32 elements) in order, and finishes as `offset + Σ code·q`.
/// The offset is what undoes the bias of the codes; where an instance rather undoes it in the weights, as some do
/// for `Bytes`, it leaves the offset alone and the sum is the same.
pub(crate) trait Dot<C>: Lanes {
    /// Weights as the instance likes them; made once and used for many columns.
    type Weights: Copy;
    /// A sum in progress.
    type Sum: Copy;

    fn prepare(self, w: Self::Words) -> Self::Weights;
    fn begin(self, offset: i32) -> Self::Sum;
    /// Vector `j` of the sum, counted from its beginning, against the four activations `q`.
    fn step(self, sum: Self::Sum, j: usize, w: Self::Weights, q: [i8; 4]) -> Self::Sum;
    fn finish(self, sum: Self::Sum, offset: i32) -> Self::Ints;
}

/// All three classes: what a backend must provide to run every kernel.
pub(crate) trait Vector: Lanes + Dot<Nibbles> + Dot<SixBits> + Dot<Bytes> {}

impl<V: Lanes + Dot<Nibbles> + Dot<SixBits> + Dot<Bytes>> Vector for V {}

/// Compiles a kernel once per backend and picks one by an `Available`.
///
/// `fn name = scalar | kernel(args) -> result;` makes `name(available, args)`: `scalar(args)` on the scalar backend,
/// else `kernel(v, args)` for the backend's `v`. Kernels are `#[inline(always)]`, so that they are compiled with the
/// instructions of the instance that calls them.
macro_rules! instances {
    ($($(#[$meta:meta])* fn $name:ident = $scalar:path | $kernel:path, ($($arg:ident: $type:ty),* $(,)?) $(-> $result:ty)?;)*) => { $(
        $(#[$meta])*
        #[allow(unsafe_code, clippy::too_many_arguments, reason = "the dispatch; the arguments are the kernel's")]
        fn $name(available: $crate::backend::Available, $($arg: $type),*) $(-> $result)? {
            use $crate::Backend;
            #[cfg(target_arch = "x86_64")]
            {
                use $crate::lane::{avx2::Avx2, avx512::Avx512};

                #[target_feature(enable = "avx2,fma,f16c")]
                fn avx2($($arg: $type),*) $(-> $result)? {
                    $kernel(Avx2::<false>::new(), $($arg),*)
                }

                #[target_feature(enable = "avx2,fma,f16c,avxvnni")]
                fn avx_vnni($($arg: $type),*) $(-> $result)? {
                    $kernel(Avx2::<true>::new_vnni(), $($arg),*)
                }

                #[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512dq")]
                fn avx512($($arg: $type),*) $(-> $result)? {
                    $kernel(Avx512::<false>::new(), $($arg),*)
                }

                #[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
                fn avx512_vnni($($arg: $type),*) $(-> $result)? {
                    $kernel(Avx512::<true>::new_vnni(), $($arg),*)
                }

                match available.backend() {
                    Backend::Scalar => $scalar($($arg),*),
                    // SAFETY: an `Available` is made only after its backend's features were detected.
                    Backend::Avx2 => unsafe { avx2($($arg),*) },
                    // SAFETY: as above.
                    Backend::AvxVnni => unsafe { avx_vnni($($arg),*) },
                    // SAFETY: as above.
                    Backend::Avx512 => unsafe { avx512($($arg),*) },
                    // SAFETY: as above.
                    Backend::Avx512Vnni => unsafe { avx512_vnni($($arg),*) },
                    Backend::Neon => unreachable!("never available here"),
                }
            }
            #[cfg(target_arch = "aarch64")]
            {
                #[target_feature(enable = "neon,dotprod")]
                fn neon($($arg: $type),*) $(-> $result)? {
                    $kernel($crate::lane::neon::Neon::new(), $($arg),*)
                }

                match available.backend() {
                    Backend::Scalar => $scalar($($arg),*),
                    // SAFETY: an `Available` is made only after its backend's features were detected.
                    Backend::Neon => unsafe { neon($($arg),*) },
                    _ => unreachable!("never available here"),
                }
            }
            #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
            match available.backend() {
                Backend::Scalar => $scalar($($arg),*),
                _ => unreachable!("never available here"),
            }
        }
    )* };
}

pub(crate) use instances;
