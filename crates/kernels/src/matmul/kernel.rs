//! The matrix product over the virtual vector: lanes are output rows, so no sum ever crosses a lane.
//!
//! In:     some tiles of a packed matrix and some panels of activations.
//! Out:    their outputs, without bias.
//! Holds:  each output is the chain of `scalar`, segment by segment, however many rows are taken at once.
//!
//! Up to 16 rows of activations share one reading of a tile. On machines with 32 registers a block's weights stay in
//! eight of them while the activations pass by; with 16, the rows' integer sums stay and the weights pass by.

#![allow(unsafe_code)]
#![allow(clippy::needless_range_loop, reason = "several arrays of registers share an index")]

use super::{SEGMENT_BLOCKS, Task};
use crate::activations::{BLOCK, Block, PANEL};
use crate::format::Format;
use crate::lane::{Bytes, Dot, Lanes, Nibbles, SixBits, Vector, WIDTH};
use crate::pack::{GROUP, ROWS, codes_bytes, group_bytes, scales_bytes, tile_bytes};
use std::ops::Range;
use std::sync::atomic::{Ordering, compiler_fence};

const _: () = assert!(ROWS == WIDTH, "a tile's rows are the lanes of a vector");
const _: () = assert!(SEGMENT_BLOCKS.is_multiple_of(GROUP), "a segment is whole groups");

/// How far ahead a tile that is read once is asked for, in bytes: one core alone does not keep memory busy.
const READ_AHEAD: usize = 8 << 10;

/// Runs a task over a float format.
macro_rules! float_formats {
    ($($name:ident: $format:ident;)*) => { $(
        #[inline(always)]
        pub(super) fn $name<V: Vector>(v: V, task: &Task<'_>) {
            drive(v, task, Plain($format));
        }
    )* };
}

/// Runs a task over a quantised format.
macro_rules! quantised_formats {
    ($($name:ident: $format:ident;)*) => { $(
        #[inline(always)]
        pub(super) fn $name<V: Vector>(v: V, task: &Task<'_>) {
            drive(v, task, Blocks($format));
        }
    )* };
}

float_formats! {
    f32: F32;
    f16: F16;
    bf16: BF16;
}

quantised_formats! {
    q8_0: Q8_0;
    q4_0: Q4_0;
    q4_k: Q4_K;
    q6_k: Q6_K;
}

/// Runs a body for m = 0 … M − 1, written out: what is indexed by m then lives in registers. The compiler unrolls
/// short loops by itself, but not sixteen times a block's work.
macro_rules! each {
    ($m:ident in $M:ident $body:block) => {
        each!(@ $m in $M $body 0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15)
    };
    (@ $m:ident in $M:ident $body:block $($index:literal)*) => { $(
        if const { $index < $M } {
            let $m: usize = $index;
            $body
        }
    )* };
}

/// A format's inner loop.
trait Kernel<V: Lanes>: Copy {
    /// The chains of M rows of activations, from `row` on, over the `blocks` of one segment of a tile.
    ///
    /// `ahead` is how far beyond each weight to ask for another.
    ///
    /// # Safety
    /// `tile` begins a whole tile of the task's matrix, `blocks` lies within its columns, and the
    /// task has M rows from `row` on, in one panel.
    unsafe fn segment<const M: usize>(
        self,
        v: V,
        task: &Task<'_>,
        tile: *const u8,
        blocks: Range<usize>,
        row: usize,
        ahead: usize,
    ) -> [V::Floats; M];
}

/// Walks a task's tiles, segments and rows.
///
/// One panel of rows reads each tile from end to end, as a decode must. Several go segment by segment, so that a
/// segment's weights stay in the first cache for all of them; the partial totals wait in the output.
#[inline(always)]
fn drive<V: Vector, K: Kernel<V>>(v: V, task: &Task<'_>, kernel: K) {
    let blocks = task.matrix.columns() / BLOCK;
    let once = task.rows.len() <= PANEL;
    let ahead = if once { READ_AHEAD } else { tile_bytes(task.matrix.format(), task.matrix.columns()) };
    let step = if once { blocks } else { SEGMENT_BLOCKS };
    for first in (0..blocks).step_by(step) {
        let range = first..blocks.min(first + step);
        for row in task.rows.clone().step_by(PANEL) {
            let rows = row..task.rows.end.min(row + PANEL);
            for tile in task.tiles.clone() {
                panel(v, task, kernel, tile, range.clone(), rows.clone(), ahead);
            }
        }
    }
}

/// One tile by the rows of one panel, in as few and as wide strides as the registers allow.
#[inline(always)]
fn panel<V: Vector, K: Kernel<V>>(
    v: V,
    task: &Task<'_>,
    kernel: K,
    tile: usize,
    blocks: Range<usize>,
    rows: Range<usize>,
    ahead: usize,
) {
    let mut row = rows.start;
    macro_rules! stride {
        ($count:literal) => {
            while rows.end - row >= $count {
                strip::<V, K, $count>(v, task, kernel, tile, blocks.clone(), row, ahead);
                row += $count;
            }
        };
    }
    if V::WIDE {
        stride!(16);
        stride!(8);
    }
    stride!(4);
    stride!(2);
    stride!(1);
}

/// One tile by M rows, over whole segments.
#[inline(always)]
fn strip<V: Vector, K: Kernel<V>, const M: usize>(
    v: V,
    task: &Task<'_>,
    kernel: K,
    tile: usize,
    blocks: Range<usize>,
    row: usize,
    ahead: usize,
) {
    let n = task.matrix.rows();
    let weights = task.matrix.tile(tile).as_ptr();
    let outputs = tile * ROWS..n.min((tile + 1) * ROWS);
    for first in blocks.clone().step_by(SEGMENT_BLOCKS) {
        let segment = first..blocks.end.min(first + SEGMENT_BLOCKS);
        // SAFETY: `weights` begins a tile, `segment` is within its columns, and `panel` keeps within the task's.
        let sums: [V::Floats; M] = unsafe { kernel.segment::<M>(v, task, weights, segment, row, ahead) };
        let mut totals = [[0.0; WIDTH]; M];
        each!(m in M {
            v.store(&mut totals[m], sums[m]);
        });
        for (m, sum) in totals.iter().enumerate() {
            // SAFETY: `panel` keeps within the task's tiles and rows, and the borrow ends with this turn.
            let out = unsafe { task.out(row + m, outputs.clone()) };
            // the first segment is the total so far.
            if first == 0 {
                out.copy_from_slice(&sum[..out.len()]);
            } else {
                out.iter_mut().zip(sum).for_each(|(total, sum)| *total += sum);
            }
        }
    }
}

/// A quantised format: how its blocks enter a chain.
trait Quantised<V: Vector + Dot<Self::Codes>>: Copy {
    const FORMAT: Format;
    /// The class of its codes.
    type Codes;
    /// The scales of one block of 16 rows.
    type Scales: Copy;
    /// Whether the halves of a block have scales of their own.
    const HALVES: bool;

    /// What undoes the codes' bias: of the whole block, or of each half.
    fn offsets(x: &Block) -> [i32; 2];

    /// The scales of block `i` of a group.
    ///
    /// # Safety
    /// `scales` begins a group of more than `i` blocks.
    unsafe fn scales(v: V, scales: *const u8, i: usize) -> Self::Scales;

    /// Vector `j` of a block's codes: elements 4j … 4j + 3 of every row.
    ///
    /// # Safety
    /// `codes` begins a block's codes.
    unsafe fn word(v: V, codes: *const u8, j: usize) -> V::Words;

    /// Continues the chain `acc` with a block's integer sums.
    fn close(v: V, acc: V::Floats, sums: Sums<V>, scales: Self::Scales, x: &Block) -> V::Floats;
}

/// A block's integer dot product: of the whole, or of its halves of 16.
enum Sums<V: Lanes> {
    Whole(V::Ints),
    Halves(V::Ints, V::Ints),
}

/// A quantised format's blocks as a kernel.
#[derive(Clone, Copy)]
struct Blocks<Q>(Q);

impl<V: Vector + Dot<Q::Codes>, Q: Quantised<V>> Kernel<V> for Blocks<Q> {
    #[inline(always)]
    unsafe fn segment<const M: usize>(
        self,
        v: V,
        task: &Task<'_>,
        tile: *const u8,
        blocks: Range<usize>,
        row: usize,
        ahead: usize,
    ) -> [V::Floats; M] {
        let total = task.matrix.columns() / BLOCK;
        let codes_bytes = const { codes_bytes(Q::FORMAT) };
        let panel_rows = task.input.panel_rows();
        // SAFETY: the rows are the activations' own.
        let mut x = unsafe { task.input.blocks().as_ptr().add(task.input.block_index(row, blocks.start)) };
        let mut acc = [v.splat(0.0); M];
        let mut first = blocks.start;
        while first < blocks.end {
            let count = GROUP.min(total - first);
            // SAFETY: group and block offsets are those the tile was packed with.
            let group = unsafe { tile.add(first / GROUP * const { group_bytes(Q::FORMAT, GROUP) }) };
            let scale_bytes = scales_bytes(Q::FORMAT, count);
            for line in 0..scale_bytes / 64 {
                v.prefetch(group.wrapping_add(ahead + line * 64));
            }
            // SAFETY: as above.
            let mut codes = unsafe { group.add(scale_bytes) };
            for i in 0..count {
                for line in 0..codes_bytes / 64 {
                    v.prefetch(codes.wrapping_add(ahead + line * 64));
                }
                // SAFETY: block i of the group, and of M rows.
                unsafe {
                    let scales = Q::scales(v, group, i);
                    if V::WIDE {
                        block_wide::<V, Q, M>(v, &mut acc, codes, scales, x);
                    } else {
                        block_narrow::<V, Q, M>(v, &mut acc, codes, scales, x);
                    }
                    x = x.add(panel_rows);
                    codes = codes.add(codes_bytes);
                }
            }
            first += count;
        }
        acc
    }
}

/// Vector `j` of a block's weights, as the instance likes them.
///
/// # Safety
/// `codes` begins a block's codes.
#[inline(always)]
unsafe fn weights<V: Vector + Dot<Q::Codes>, Q: Quantised<V>>(
    v: V,
    codes: *const u8,
    j: usize,
) -> Weights<V, Q> {
    // SAFETY: the caller's.
    unsafe { Dot::<Q::Codes>::prepare(v, Q::word(v, codes, j)) }
}

type Weights<V, Q> = <V as Dot<<Q as Quantised<V>>::Codes>>::Weights;

/// One block with its weights in registers and the activations passing by.
///
/// # Safety
/// `codes` begins a block's codes; `x` begins M blocks.
#[inline(always)]
unsafe fn block_wide<V: Vector + Dot<Q::Codes>, Q: Quantised<V>, const M: usize>(
    v: V,
    acc: &mut [V::Floats; M],
    codes: *const u8,
    scales: Q::Scales,
    x: *const Block,
) {
    // SAFETY: the caller's.
    let w: [Weights<V, Q>; 8] = unsafe {
        [
            weights::<V, Q>(v, codes, 0),
            weights::<V, Q>(v, codes, 1),
            weights::<V, Q>(v, codes, 2),
            weights::<V, Q>(v, codes, 3),
            weights::<V, Q>(v, codes, 4),
            weights::<V, Q>(v, codes, 5),
            weights::<V, Q>(v, codes, 6),
            weights::<V, Q>(v, codes, 7),
        ]
    };
    each!(m in M {
        // SAFETY: the caller's.
        let x = unsafe { &*x.add(m) };
        let q = x.fours();
        let offsets = Q::offsets(x);
        let mut low = Dot::<Q::Codes>::begin(v, offsets[0]);
        // With few rows nothing else hides a chain of eight steps: take the halves side by side.
        let sums = if Q::HALVES || M <= 2 {
            let mut high = Dot::<Q::Codes>::begin(v, offsets[1]);
            for j in 0..4 {
                low = Dot::<Q::Codes>::step(v, low, j, w[j], q[j]);
                high = Dot::<Q::Codes>::step(v, high, j, w[j + 4], q[j + 4]);
            }
            let (low, high) =
                (Dot::<Q::Codes>::finish(v, low, offsets[0]), Dot::<Q::Codes>::finish(v, high, offsets[1]));
            if Q::HALVES { Sums::Halves(low, high) } else { Sums::Whole(v.add_ints(low, high)) }
        } else {
            for j in 0..8 {
                low = Dot::<Q::Codes>::step(v, low, j, w[j], q[j]);
            }
            Sums::Whole(Dot::<Q::Codes>::finish(v, low, offsets[0]))
        };
        acc[m] = Q::close(v, acc[m], sums, scales, x);
        // Each row in its turn: taking several at once, as the compiler would, needs more registers than there are.
        compiler_fence(Ordering::SeqCst);
    });
}

/// One block with the rows' sums in registers and the weights passing by.
///
/// # Safety
/// As for `block_wide`.
#[inline(always)]
unsafe fn block_narrow<V: Vector + Dot<Q::Codes>, Q: Quantised<V>, const M: usize>(
    v: V,
    acc: &mut [V::Floats; M],
    codes: *const u8,
    scales: Q::Scales,
    x: *const Block,
) {
    // SAFETY: the caller's.
    let x = unsafe { &*x.cast::<[Block; M]>() };
    let mut low = [Dot::<Q::Codes>::begin(v, 0); M];
    let mut high = low;
    for m in 0..M {
        let offsets = Q::offsets(&x[m]);
        low[m] = Dot::<Q::Codes>::begin(v, offsets[0]);
        high[m] = Dot::<Q::Codes>::begin(v, offsets[1]);
    }
    for j in 0..8 {
        // SAFETY: the caller's.
        let w = unsafe { weights::<V, Q>(v, codes, j) };
        for m in 0..M {
            let q = x[m].fours()[j];
            if Q::HALVES && j >= 4 {
                high[m] = Dot::<Q::Codes>::step(v, high[m], j - 4, w, q);
            } else {
                low[m] = Dot::<Q::Codes>::step(v, low[m], j, w, q);
            }
        }
    }
    for m in 0..M {
        let offsets = Q::offsets(&x[m]);
        let whole = Dot::<Q::Codes>::finish(v, low[m], offsets[0]);
        let sums = if Q::HALVES {
            Sums::Halves(whole, Dot::<Q::Codes>::finish(v, high[m], offsets[1]))
        } else {
            Sums::Whole(whole)
        };
        acc[m] = Q::close(v, acc[m], sums, scales, &x[m]);
    }
}

#[derive(Clone, Copy)]
struct Q8_0;
#[derive(Clone, Copy)]
struct Q4_0;
#[derive(Clone, Copy)]
#[allow(non_camel_case_types, reason = "the format's name")]
struct Q4_K;
#[derive(Clone, Copy)]
#[allow(non_camel_case_types, reason = "the format's name")]
struct Q6_K;

/// Piece `i` of `N` elements from `start` on.
///
/// # Safety
/// That many elements are there, and live for 'a.
#[inline(always)]
unsafe fn piece<'a, T, const N: usize>(start: *const u8, i: usize) -> &'a [T; N] {
    const { assert!(align_of::<T>() == 1, "packed weights lie on any byte boundary") };
    // SAFETY: the caller's, and T has no alignment.
    unsafe { &*start.add(i * N * size_of::<T>()).cast() }
}

/// Vector `j` of nibbles: the low ones of vector j, or the high ones of vector j − 4.
///
/// # Safety
/// `codes` begins four vectors.
#[inline(always)]
unsafe fn nibbles<V: Lanes>(v: V, codes: *const u8, j: usize) -> V::Words {
    // SAFETY: the caller's.
    let both = v.load_words(unsafe { piece(codes, j % 4) });
    if j < 4 { v.low_nibbles(both) } else { v.high_nibbles(both) }
}

/// `acc = fma(f32(s), dw·da, acc)`.
#[inline(always)]
fn close_simple<V: Lanes>(v: V, acc: V::Floats, sums: Sums<V>, scale: V::Floats, x: &Block) -> V::Floats {
    let Sums::Whole(sum) = sums else { unreachable!("the format has no halves") };
    v.fma(v.to_floats(sum), v.mul(scale, v.splat(x.scale)), acc)
}

impl<V: Vector> Quantised<V> for Q8_0 {
    const FORMAT: Format = Format::Q8_0;
    type Codes = Bytes;
    type Scales = V::Floats;
    const HALVES: bool = false;

    #[inline(always)]
    fn offsets(x: &Block) -> [i32; 2] {
        [x.offset_byte, 0]
    }

    #[inline(always)]
    unsafe fn scales(v: V, scales: *const u8, i: usize) -> V::Floats {
        // SAFETY: the caller's.
        v.load_f16(unsafe { piece(scales, i) })
    }

    #[inline(always)]
    unsafe fn word(v: V, codes: *const u8, j: usize) -> V::Words {
        // SAFETY: the caller's.
        v.load_words(unsafe { piece(codes, j) })
    }

    #[inline(always)]
    fn close(v: V, acc: V::Floats, sums: Sums<V>, scale: V::Floats, x: &Block) -> V::Floats {
        close_simple(v, acc, sums, scale, x)
    }
}

impl<V: Vector> Quantised<V> for Q4_0 {
    const FORMAT: Format = Format::Q4_0;
    type Codes = Nibbles;
    type Scales = V::Floats;
    const HALVES: bool = false;

    #[inline(always)]
    fn offsets(x: &Block) -> [i32; 2] {
        [x.offset_nibble, 0]
    }

    #[inline(always)]
    unsafe fn scales(v: V, scales: *const u8, i: usize) -> V::Floats {
        // SAFETY: the caller's.
        v.load_f16(unsafe { piece(scales, i) })
    }

    #[inline(always)]
    unsafe fn word(v: V, codes: *const u8, j: usize) -> V::Words {
        // SAFETY: the caller's.
        unsafe { nibbles(v, codes, j) }
    }

    #[inline(always)]
    fn close(v: V, acc: V::Floats, sums: Sums<V>, scale: V::Floats, x: &Block) -> V::Floats {
        close_simple(v, acc, sums, scale, x)
    }
}

impl<V: Vector> Quantised<V> for Q4_K {
    const FORMAT: Format = Format::Q4_K;
    type Codes = Nibbles;
    /// `sw`, `mw`.
    type Scales = (V::Floats, V::Floats);
    const HALVES: bool = false;

    #[inline(always)]
    fn offsets(_x: &Block) -> [i32; 2] {
        [0, 0]
    }

    #[inline(always)]
    unsafe fn scales(v: V, scales: *const u8, i: usize) -> (V::Floats, V::Floats) {
        // SAFETY: the caller's: d and dmin of 16 rows come first, then a scale and a minimum of each per block.
        unsafe {
            let (d, dmin) = (v.load_f16(piece(scales, 0)), v.load_f16(piece(scales, 1)));
            let small = scales.add(4 * ROWS);
            let (scale, minimum) = (v.load_u8(piece(small, 2 * i)), v.load_u8(piece(small, 2 * i + 1)));
            (v.mul(d, scale), v.mul(dmin, minimum))
        }
    }

    #[inline(always)]
    unsafe fn word(v: V, codes: *const u8, j: usize) -> V::Words {
        // SAFETY: the caller's.
        unsafe { nibbles(v, codes, j) }
    }

    ///
    #[inline(always)]
    fn close(v: V, acc: V::Floats, sums: Sums<V>, (scale, minimum): Self::Scales, x: &Block) -> V::Floats {
        let acc = close_simple(v, acc, sums, scale, x);
        v.fma(minimum, v.splat(x.minus_sum), acc)
    }
}

/// The greatest |S| of: two halves of 16 products, each of a scale, a weight and an activation.
const S_MAX: u32 = 2 * 16 * 128 * 32 * 127;
const _: () = assert!(S_MAX.ilog2() < f32::MANTISSA_DIGITS, "S, and each of its terms, is exact in binary32");

impl<V: Vector> Quantised<V> for Q6_K {
    const FORMAT: Format = Format::Q6_K;
    type Codes = SixBits;
    /// `d`, `sc₀`, `sc₁`.
    type Scales = (V::Floats, V::Floats, V::Floats);
    const HALVES: bool = true;

    #[inline(always)]
    fn offsets(x: &Block) -> [i32; 2] {
        x.offset_code
    }

    #[inline(always)]
    unsafe fn scales(v: V, scales: *const u8, i: usize) -> Self::Scales {
        // SAFETY: the caller's: d of 16 rows comes first, then two scales of each per block.
        unsafe {
            let small = scales.add(2 * ROWS);
            let d = v.load_f16(piece(scales, 0));
            (d, v.load_i8(piece(small, 2 * i)), v.load_i8(piece(small, 2 * i + 1)))
        }
    }

    #[inline(always)]
    unsafe fn word(v: V, codes: *const u8, j: usize) -> V::Words {
        // SAFETY: the caller's: four vectors of nibbles, then two of high bits, one for each half.
        unsafe { v.six_bits(nibbles(v, codes, j), v.load_words(piece(codes, 4 + j / 4)), j % 4) }
    }

    /// The integer S is formed in binary32, where each step is exact; starting from +0 keeps its zero positive.
    #[inline(always)]
    fn close(v: V, acc: V::Floats, sums: Sums<V>, (d, low, high): Self::Scales, x: &Block) -> V::Floats {
        let Sums::Halves(first, second) = sums else { unreachable!("the format has halves") };
        let s = v.fma(v.to_floats(first), low, v.splat(0.0));
        let s = v.fma(v.to_floats(second), high, s);
        v.fma(s, v.mul(d, v.splat(x.scale)), acc)
    }
}

/// A float format: how 16 of its elements are widened.
trait Float<V: Lanes>: Copy {
    /// Bytes of an element.
    const BYTES: usize;

    /// The elements `k` of 16 rows.
    ///
    /// # Safety
    /// `tile` begins a tile of more than `k` columns.
    unsafe fn load(v: V, tile: *const u8, k: usize) -> V::Floats;
}

#[derive(Clone, Copy)]
struct F32;
#[derive(Clone, Copy)]
struct F16;
#[derive(Clone, Copy)]
struct BF16;

impl<V: Lanes> Float<V> for F32 {
    const BYTES: usize = 4;

    #[inline(always)]
    unsafe fn load(v: V, tile: *const u8, k: usize) -> V::Floats {
        // SAFETY: the caller's.
        v.load_f32(unsafe { piece(tile, k) })
    }
}

impl<V: Lanes> Float<V> for F16 {
    const BYTES: usize = 2;

    #[inline(always)]
    unsafe fn load(v: V, tile: *const u8, k: usize) -> V::Floats {
        // SAFETY: the caller's.
        v.load_f16(unsafe { piece(tile, k) })
    }
}

impl<V: Lanes> Float<V> for BF16 {
    const BYTES: usize = 2;

    #[inline(always)]
    unsafe fn load(v: V, tile: *const u8, k: usize) -> V::Floats {
        // SAFETY: the caller's.
        v.load_bf16(unsafe { piece(tile, k) })
    }
}

/// A float format's weights as a kernel.
#[derive(Clone, Copy)]
struct Plain<F>(F);

///
impl<V: Lanes, F: Float<V>> Kernel<V> for Plain<F> {
    #[inline(always)]
    unsafe fn segment<const M: usize>(
        self,
        v: V,
        task: &Task<'_>,
        tile: *const u8,
        blocks: Range<usize>,
        row: usize,
        ahead: usize,
    ) -> [V::Floats; M] {
        let stride = task.input.float_stride();
        // SAFETY: rows of activations lie `stride` apart, and the task has M of them from `row` on.
        let x = unsafe { task.input.floats().as_ptr().add(row * stride) };
        let mut acc = [v.splat(0.0); M];
        for k in blocks.start * BLOCK..blocks.end * BLOCK {
            v.prefetch(tile.wrapping_add(k * ROWS * F::BYTES + ahead));
            // SAFETY: k is a column of the tile and of the activations.
            unsafe {
                let w = F::load(v, tile, k);
                each!(m in M {
                    acc[m] = v.fma(w, v.splat(*x.add(m * stride + k)), acc[m]);
                });
            }
        }
        acc
    }
}
