//! Steps: the scalar definition of the arithmetic, one value at a time, as a judge computes it.
//!
//! In:     plain slices, and bytes as they lie in a GGUF file.
//! Out:    single values: an element, a segment of a product, a link of a norm, of attention, of sampling.
//! Touches: nothing. Whoever computes calls `fpcr::set` first.
//! Holds:  the scalar backend is made of these functions, so that there is one definition. What is computed from a NaN is a
//!         NaN, and a value that checks is a NaN where it is not finite (D-3.10); which NaN is nobody's business.
//! Absent: which step follows which, and where its inputs lie (`proof::dispute`); hashing.
//!
//! Rules `D-…` are those of `docs/spec/dispute.md`.

use crate::Format;
use crate::activation::{EXP2, EXPONENT_MIN, LOG2E};
use crate::activations::{BLOCK, Block};
use crate::half;
use crate::pack::UnpackedRow;

pub use crate::format::element;

/// Elements of a segment of a product, and between two lanes of a trace (D-3.4).
pub const SEGMENT_ELEMENTS: usize = 1_024;
/// Positions of a segment of attention's chains.
pub const SPAN_POSITIONS: usize = 512;
/// Lanes of the sums of squares and of attention's normaliser.
pub const LANES: usize = 16;
/// In the place of a token's id: none (D-3.10).
pub const NO_TOKEN: u32 = u32::MAX;

const _: () = assert!(SEGMENT_ELEMENTS.is_multiple_of(256), "a segment is whole blocks of every format");

/// The word of a value in a trace: its bits, of a NaN always the same (D-3.10).
pub fn word(x: f32) -> u32 {
    if x.is_nan() { 0x7fc0_0000 } else { x.to_bits() }
}

/// A value that checks: itself, or a NaN if it is not finite.
pub fn checked(x: f32) -> f32 {
    if x.is_finite() { x } else { f32::NAN }
}

// ---- products (A-3) ----

/// Weights of one row: a segment's, or fewer blocks.
pub struct Weights(UnpackedRow);

impl Weights {
    /// Reads blocks as they lie in a GGUF file.
    ///
    /// Panics unless `bytes` are whole blocks of `format`, and of whole 32 elements.
    pub fn read(format: Format, bytes: &[u8]) -> Weights {
        Weights(UnpackedRow::from_gguf(format, bytes))
    }
}

/// Inputs of one row: a segment's, or fewer blocks.
pub struct Inputs {
    floats: Vec<f32>,
    /// Empty if the product is not with quantised weights.
    blocks: Vec<Block>,
    finite: bool,
}

impl Inputs {
    /// The inputs `x` of a product with weights of `format`, quantised if it is.
    ///
    /// Panics unless they are whole blocks of 32.
    pub fn new(format: Format, x: &[f32]) -> Inputs {
        let (chunks, rest) = x.as_chunks::<BLOCK>();
        assert!(rest.is_empty(), "{} inputs are not whole blocks", x.len());
        let finite = x.iter().all(|x| x.is_finite());
        let blocks: Option<Vec<Block>> =
            if format.is_quantised() { chunks.iter().map(quantise).collect() } else { Some(Vec::new()) };
        let finite = finite && blocks.is_some();
        Inputs { floats: x.to_vec(), blocks: blocks.unwrap_or_default(), finite }
    }
}

/// of one block; none if it is not finite in the sense of.
pub(crate) fn quantise(x: &[f32; BLOCK]) -> Option<Block> {
    let a = x.iter().fold(0.0f32, |a, x| a.max(x.abs()));
    let d = a / 127.0;
    let r = if a > 0.0 { 127.0 / a } else { 0.0 };
    if !(r.is_finite() && x.iter().all(|x| x.is_finite())) {
        return None;
    }
    let quants = x.map(|x| (x * r).round_ties_even() as i8);
    let sum = |quants: &[i8]| quants.iter().map(|q| i32::from(*q)).sum();
    Some(Block::new(quants, d, [sum(&quants[..16]), sum(&quants[16..])]))
}

/// one segment of a product; a NaN if its inputs are not finite (D-3.10).
///
/// Panics unless there are as many weights as inputs, at most a segment's, the inputs made for their format.
pub fn product(weights: &Weights, inputs: &Inputs) -> f32 {
    assert_eq!(weights.0.len(), inputs.floats.len(), "as many weights as inputs");
    assert!(inputs.floats.len() <= SEGMENT_ELEMENTS, "{} inputs of one segment", inputs.floats.len());
    if inputs.finite { chain(&weights.0, 0, &inputs.floats, &inputs.blocks) } else { f32::NAN }
}

/// [`product`] of weights as they lie in a GGUF file.
pub fn segment(format: Format, weights: &[u8], x: &[f32]) -> f32 {
    product(&Weights::read(format, weights), &Inputs::new(format, x))
}

/// The chain of a segment: the weights from element `first` on, by finite inputs: their floats, and their blocks if the
/// weights are quantised.
pub(crate) fn chain(weights: &UnpackedRow, first: usize, floats: &[f32], blocks: &[Block]) -> f32 {
    let links = |link: &dyn Fn(f32, usize, &Block) -> f32| {
        assert_eq!(blocks.len() * BLOCK, floats.len(), "one block for every 32 inputs");
        blocks.iter().enumerate().fold(0.0, |acc, (i, x)| link(acc, first / BLOCK + i, x))
    };
    match weights {
        //
        UnpackedRow::Float { weights } => {
            let weights = &weights[first..][..floats.len()];
            weights.iter().zip(floats).fold(0.0, |acc: f32, (w, x)| w.mul_add(*x, acc))
        }
        //
        UnpackedRow::Simple { scales, weights } => links(&|acc, b, x| {
            let s = dot(&weights[b * BLOCK..][..BLOCK], &x.quants);
            (s as f32).mul_add(scales[b] * x.scale, acc)
        }),
        //
        UnpackedRow::Minimum { scales, minima, weights } => links(&|acc, b, x| {
            let s = dot(&weights[b * BLOCK..][..BLOCK], &x.quants);
            let acc = (s as f32).mul_add(scales[b] * x.scale, acc);
            let sum: i32 = x.quants.iter().map(|q| i32::from(*q)).sum();
            minima[b].mul_add(-(sum as f32 * x.scale), acc)
        }),
        //
        UnpackedRow::Halves { scales, halves, weights } => links(&|acc, b, x| {
            let (w, q) = (&weights[b * BLOCK..][..BLOCK], &x.quants);
            let s = halves[b][0] * dot(&w[..16], &q[..16]) + halves[b][1] * dot(&w[16..], &q[16..]);
            (s as f32).mul_add(scales[b] * x.scale, acc)
        }),
    }
}

/// Σ w·q, exactly.
fn dot(w: &[i32], q: &[i8]) -> i32 {
    w.iter().zip(q).map(|(w, q)| w * i32::from(*q)).sum()
}

/// the segments of a product together, and its bias if it has one.
///
/// Panics without segments.
pub fn total(segments: &[f32], bias: Option<f32>) -> f32 {
    let (first, rest) = segments.split_first().expect("a product has a segment");
    let total = rest.iter().fold(*first, |total, segment| total + segment);
    bias.map_or(total, |bias| total + bias)
}

// ---- norms, residual, activation (A-4) ----

/// the chains of squares in 16 lanes, continued from `lanes` over `x`; the first x is lane 0's.
pub fn squares(mut lanes: [f32; LANES], x: &[f32]) -> [f32; LANES] {
    for (i, x) in x.iter().enumerate() {
        lanes[i % LANES] = x.mul_add(*x, lanes[i % LANES]);
    }
    lanes
}

/// Closes 16 lanes by the tree of.
pub fn tree(mut lanes: [f32; LANES]) -> f32 {
    let mut width = LANES / 2;
    while width > 0 {
        for l in 0..width {
            lanes[l] += lanes[l + width];
        }
        width /= 2;
    }
    lanes[0]
}

/// `inv` of a norm over `count` values, from its last lanes.
pub fn norm_inverse(lanes: [f32; LANES], count: usize, eps: f32) -> f32 {
    1.0 / (tree(lanes) / count as f32 + eps).sqrt()
}

/// `y` of one element.
pub fn normed(x: f32, inverse: f32, weight: f32) -> f32 {
    (x * inverse) * weight
}

///
pub fn residual(x: f32, y: f32) -> f32 {
    x + y
}

/// `exp2(t; m)`.
pub(crate) fn exp2(t: f32, m: i32) -> f32 {
    let n = t.round_ties_even();
    let f = t - n;
    let p = EXP2[1..].iter().fold(EXP2[0], |p, c| p.mul_add(f, *c));
    p * power_of_two(n, m)
}

/// 2^(n − m) for an integral n: +0 below 2⁻¹²⁰, and infinity from 2¹²⁸, where binary32 ends.
fn power_of_two(n: f32, m: i32) -> f32 {
    let exponent = (n - m as f32).min(128.0) as i32;
    if exponent < EXPONENT_MIN { 0.0 } else { f32::from_bits(((exponent + 127) as u32) << 23) }
}

///
pub(crate) fn silu(x: f32) -> f32 {
    let t = (x * -LOG2E).clamp(-100.0, 100.0);
    x / (1.0 + exp2(t, 0))
}

/// one element of the gated unit.
pub fn gated(gate: f32, up: f32) -> f32 {
    silu(gate) * up
}

// ---- rotary, queries, keys and values (A-5.5, A-6.1) ----

/// a pair of a head turned by its cosine and sine.
pub fn rotated(a: f32, b: f32, cosine: f32, sine: f32) -> (f32, f32) {
    (a.mul_add(cosine, b * (0.0 - sine)), b.mul_add(cosine, a * sine))
}

/// a key or value as binary16; none if it is not finite.
pub fn narrowed(x: f32) -> Option<u16> {
    let narrowed = half::narrow(x);
    half::is_finite(narrowed).then_some(narrowed)
}

/// A key or value as it is read again: rounded to binary16 and widened (D-3.4, D-3.5); a NaN if it is not finite.
pub fn stored(x: f32) -> f32 {
    narrowed(x).map_or(f32::NAN, half::widen)
}

// ---- attention (A-6) ----

/// `c` of.
pub fn score_factor(head_dim: usize) -> f32 {
    LOG2E * (1.0 / (head_dim as f32).sqrt())
}

/// the score of a query and a key, both whole heads; a NaN if it is not finite.
///
/// Panics if they differ in length.
pub fn score(query: &[f32], key: &[f32]) -> f32 {
    assert_eq!(query.len(), key.len(), "query and key of one head");
    let acc = query.iter().zip(key).fold(0.0, |acc: f32, (q, k)| q.mul_add(*k, acc));
    checked(acc * score_factor(query.len()))
}

/// The greatest of `values` and of what came before, if anything did: of equal ones the first; a NaN if there is one.
///
/// Panics if there is nothing at all.
pub fn greatest(before: Option<f32>, values: &[f32]) -> f32 {
    let greater = |a: f32, b: f32| if a.is_nan() || b <= a { a } else { b };
    before.into_iter().chain(values.iter().copied()).reduce(greater).expect("a value")
}

/// `m` of the greatest score, an integer.
pub fn ceiling(greatest: f32) -> f32 {
    // Adding +0 leaves no −0.
    greatest.ceil().clamp(-1e6, 1e6) + 0.0
}

/// the weight of a score under `m`.
pub fn attention_weight(score: f32, m: f32) -> f32 {
    if score.is_nan() || m.is_nan() {
        return f32::NAN;
    }
    exp2(score.max(m - 1000.0), m as i32)
}

/// the normaliser so far, +0 before the first, and one more segment of weights.
///
/// Panics if it is longer than a segment.
pub fn normaliser(before: f32, weights: &[f32]) -> f32 {
    assert!(weights.len() <= SPAN_POSITIONS, "{} weights of one segment", weights.len());
    let mut lanes = [0.0; LANES];
    for (t, p) in weights.iter().enumerate() {
        lanes[t % LANES] += p;
    }
    before + tree(lanes)
}

/// `1 ÷ l` of.
pub fn reciprocal(l: f32) -> f32 {
    1.0 / l
}

/// the sum of values so far, if there is one, and one more segment of weights and values of one dimension.
///
/// Panics if they differ in length or are longer than a segment.
pub fn value_sum(before: Option<f32>, weights: &[f32], values: &[f32]) -> f32 {
    assert_eq!(weights.len(), values.len(), "as many weights as values");
    assert!(weights.len() <= SPAN_POSITIONS, "{} weights of one segment", weights.len());
    let segment = weights.iter().zip(values).fold(0.0, |acc: f32, (p, v)| p.mul_add(*v, acc));
    before.map_or(segment, |total| total + segment)
}

/// an output of a head.
pub fn attended(total: f32, reciprocal: f32) -> f32 {
    total * reciprocal
}

// ---- sampling (A-8) ----

/// What knows of one token.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Adjustment {
    /// Its bias, if the order has one for it.
    pub bias: Option<f32>,
    /// ρ, if it occurs in prompt or output so far.
    pub repetition: Option<f32>,
    /// How often it occurs in the output so far.
    pub count: u32,
    /// α.
    pub presence: f32,
    /// β.
    pub frequency: f32,
}

/// of one token's logit; a NaN if it is not finite before or after.
pub fn adjusted(logit: f32, by: &Adjustment) -> f32 {
    let mut l = checked(logit);
    if let Some(bias) = by.bias {
        l = biased(l, bias);
    }
    if let Some(repetition) = by.repetition {
        l = repeated(l, repetition);
    }
    checked(penalised(l, by.count, by.presence, by.frequency))
}

/// a logit with its bias.
pub fn biased(l: f32, bias: f32) -> f32 {
    l + bias
}

/// the logit of a token that occurs in prompt or output so far, under the repetition penalty.
pub fn repeated(l: f32, repetition: f32) -> f32 {
    if repetition == 1.0 {
        l
    } else if l > 0.0 {
        l / repetition
    } else {
        l * repetition
    }
}

/// the logit of a token that occurs `count` times in the output so far, under presence and frequency penalty.
pub fn penalised(l: f32, count: u32, presence: f32, frequency: f32) -> f32 {
    let l = if count > 0 && presence != 0.0 { l - presence } else { l };
    if count > 0 && frequency != 0.0 { (-frequency).mul_add(count as f32, l) } else { l }
}

/// the greatest logit so far and its id, if there is one, and one more run of logits with ids from `first` on. The
/// lowest id on ties; a NaN and [`NO_TOKEN`] if one is a NaN.
///
/// Panics if there is nothing at all.
pub fn best(before: Option<(f32, u32)>, first: u32, logits: &[f32]) -> (f32, u32) {
    let named =
        logits.iter().zip(first..).map(|(logit, id)| (*logit, if logit.is_nan() { NO_TOKEN } else { id }));
    let better = |a: (f32, u32), b: (f32, u32)| if a.0.is_nan() || b.0 <= a.0 { a } else { b };
    before.into_iter().chain(named).reduce(better).expect("a logit")
}

/// `c` of.
pub fn sampling_scale(temperature: f32) -> f32 {
    LOG2E / temperature
}

/// 2³², the scale of sampling weights.
pub(crate) const UNIT: f32 = 4_294_967_296.0;
/// Exponents below this weigh nothing.
pub(crate) const WEIGHT_EXPONENT_MIN: f32 = -64.0;

/// the weight of a logit; `scale` is `c`. 0 if the logit or the greatest is a NaN.
pub fn sampling_weight(logit: f32, greatest: f32, scale: f32) -> u64 {
    let e = (logit - greatest) * scale;
    if e.is_nan() || e < WEIGHT_EXPONENT_MIN { 0 } else { (exp2(e, 0) * UNIT) as u64 }
}

/// tokens of increasing rank are in its order: logit descending, −0 as +0, then id ascending. A NaN is the last.
pub fn rank(logit: f32, id: u32) -> u64 {
    let bits = logit.to_bits();
    let ordered = if logit.is_nan() {
        0
    } else if logit == 0.0 {
        1 << 31
    } else if bits >> 31 == 1 {
        !bits
    } else {
        bits | 1 << 31
    };
    u64::from(!ordered) << 32 | u64::from(id)
}

/// `floor(p·2³²)` for p from 0 to 1.
pub fn fraction(p: f32) -> u64 {
    (f64::from(p) * f64::from(UNIT)) as u64
}

/// what the weights of a prefix must sum to at least, for a `fraction` P of the sum of all: `ceil(P·W ÷ 2³²)`, and one at
/// least, since a token is kept. Every prefix begins with the greatest weight, 2³².
pub fn nucleus(fraction: u64, sum: u64) -> u64 {
    let goal = (u128::from(fraction) * u128::from(sum)).div_ceil(1 << 32);
    u64::try_from(goal).expect("a fraction is at most one").max(1)
}

/// `r` of the 64 random bits `u` and the sum of the kept weights.
pub fn draw(u: u64, sum: u64) -> u64 {
    ((u128::from(u) * u128::from(sum)) >> 64) as u64
}
