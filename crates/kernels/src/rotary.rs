//! Rotary position embedding: the tables, in binary64 by own code, and the rotation of a head.
//!
//! In:     a model's rotary parameters; heads of queries and keys.
//! Out:    cosines and sines in binary32, their bytes for a digest; rotated heads.
//! Holds:  only `+ − · ÷` and rounding, so every machine computes the same table; a piece of it is computed when a
//!         sequence first reaches it, since few ever use a model's whole context.
//! Absent: BLAKE3. The engine hashes the bytes it is handed.

use std::sync::OnceLock;

use crate::step;

/// Positions computed together.
const PIECE_POSITIONS: usize = 256;

/// How positions become angles.
#[derive(Clone, Debug, PartialEq)]
pub struct RotaryParameters {
    /// Elements of a head that are rotated: all of them, an even number.
    pub head_dim: usize,
    /// The base of the frequencies.
    pub base: f64,
    /// The model's context length, in positions: what the digest covers.
    pub context: usize,
    /// Positions the table is kept for, from 0; at most `context`.
    pub positions: usize,
    /// Frequency scaling.
    pub scaling: Scaling,
    /// Per-frequency divisors (`rope_freqs`), head_dim / 2 of them.
    pub factors: Option<Vec<f32>>,
}

/// Frequency scaling.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Scaling {
    /// As trained.
    None,
    /// Every frequency divided by the factor.
    Linear(f64),
    /// YaRN.
    Yarn {
        /// F.
        factor: f64,
        /// C, in positions.
        original_context: f64,
        /// β_fast.
        beta_fast: f64,
        /// β_slow.
        beta_slow: f64,
        /// A, 1 if the model names none.
        attention_factor: f64,
    },
}

/// Why rotary parameters make no table.
#[derive(Debug, thiserror::Error, PartialEq)]
pub enum RotaryError {
    /// The head's length is zero or odd.
    #[error("a rotary head of {0} elements has no whole number of pairs")]
    HeadDim(usize),
    /// The base is not a finite number above 1.
    #[error("the rotary base {0} is not a finite number above 1")]
    Base(f64),
    /// A scaling number is out of range.
    #[error("the rotary scaling {0:?} is out of range")]
    Scaling(Scaling),
    /// The factors are not head_dim / 2 positive finite numbers.
    #[error("the rotary factors are not {expected} positive finite numbers")]
    Factors {
        /// Factors a head needs.
        expected: usize,
    },
    /// The table would be kept for more positions than the model has.
    #[error("a rotary table of {positions} positions for a context of {context}")]
    Positions {
        /// Positions to keep.
        positions: usize,
        /// The model's context length.
        context: usize,
    },
}

/// Cosines and sines by position.
pub struct RotaryTable {
    pairs: usize,
    positions: usize,
    context: usize,
    /// φ_i.
    frequencies: Vec<f64>,
    /// What YaRN multiplies cosines and sines by; 1 otherwise.
    amplitude: f64,
    /// Of each `PIECE_POSITIONS` positions: [position][cosines, then sines].
    pieces: Vec<OnceLock<Box<[f32]>>>,
}

impl RotaryTable {
    /// The table of these parameters.
    pub fn new(parameters: RotaryParameters) -> Result<RotaryTable, RotaryError> {
        let RotaryParameters { head_dim, base, context, positions, scaling, factors } = parameters;
        if head_dim == 0 || !head_dim.is_multiple_of(2) {
            return Err(RotaryError::HeadDim(head_dim));
        }
        if !(base > 1.0 && base.is_finite()) {
            return Err(RotaryError::Base(base));
        }
        if positions > context {
            return Err(RotaryError::Positions { positions, context });
        }
        let pairs = head_dim / 2;
        let bad = |factor: &f32| !(factor.is_finite() && *factor > 0.0);
        if factors.as_ref().is_some_and(|factors| factors.len() != pairs || factors.iter().any(bad)) {
            return Err(RotaryError::Factors { expected: pairs });
        }
        let (mut frequencies, amplitude) =
            scale(base_frequencies(base, pairs), base, scaling).ok_or(RotaryError::Scaling(scaling))?;
        if let Some(factors) = factors {
            for (frequency, factor) in frequencies.iter_mut().zip(factors) {
                *frequency /= f64::from(factor);
            }
        }
        let pieces = (0..positions.div_ceil(PIECE_POSITIONS)).map(|_| OnceLock::new()).collect();
        Ok(RotaryTable { pairs, positions, context, frequencies, amplitude, pieces })
    }

    /// Elements of the heads it rotates.
    pub fn head_dim(&self) -> usize {
        2 * self.pairs
    }

    /// Positions it is kept for.
    pub fn positions(&self) -> usize {
        self.positions
    }

    /// Feeds `sink` the bytes hashes: every position of the model's context, cosines then sines.
    pub fn digest(&self, mut sink: impl FnMut(&[u8])) {
        let mut row = vec![0.0; self.head_dim()];
        let mut bytes = Vec::with_capacity(4 * row.len());
        for position in 0..self.context {
            self.compute(position, &mut row);
            bytes.clear();
            bytes.extend(row.iter().flat_map(|x| x.to_le_bytes()));
            sink(&bytes);
        }
    }

    /// The cosines, then the sines, of a position.
    pub(crate) fn row(&self, position: usize) -> &[f32] {
        assert!(position < self.positions, "position {position} of {}", self.positions);
        let first = position / PIECE_POSITIONS * PIECE_POSITIONS;
        let piece = self.pieces[position / PIECE_POSITIONS].get_or_init(|| {
            let count = PIECE_POSITIONS.min(self.positions - first);
            let mut rows = vec![0.0; count * self.head_dim()].into_boxed_slice();
            for (i, row) in rows.chunks_exact_mut(self.head_dim()).enumerate() {
                self.compute(first + i, row);
            }
            rows
        });
        &piece[(position - first) * self.head_dim()..][..self.head_dim()]
    }

    fn compute(&self, position: usize, row: &mut [f32]) {
        let (cosines, sines) = row.split_at_mut(self.pairs);
        for ((cosine, sine), frequency) in cosines.iter_mut().zip(sines).zip(&self.frequencies) {
            let (s, c) = sin_cos(position as f64 * frequency);
            *cosine = (c * self.amplitude) as f32;
            *sine = (s * self.amplitude) as f32;
        }
    }
}

/// θ_i.
fn base_frequencies(base: f64, pairs: usize) -> Vec<f64> {
    let product = |rho: f64| (0..pairs).fold(1.0, |product, _| product * rho);
    // The product grows with ρ, and bit patterns order like the positive numbers they stand for.
    let (mut low, mut high) = (0u64, 1.0f64.to_bits());
    while high - low > 1 {
        let middle = low + (high - low) / 2;
        if product(f64::from_bits(middle)) <= 1.0 / base {
            low = middle;
        } else {
            high = middle;
        }
    }
    let rho = f64::from_bits(low);
    std::iter::successors(Some(1.0), |theta| Some(theta * rho)).take(pairs).collect()
}

/// φ_i before per-frequency factors, and the amplitude. None if a number is out of range.
fn scale(mut theta: Vec<f64>, base: f64, scaling: Scaling) -> Option<(Vec<f64>, f64)> {
    let positive = |x: f64| x > 0.0 && x.is_finite();
    match scaling {
        Scaling::None => Some((theta, 1.0)),
        Scaling::Linear(factor) => {
            theta.iter_mut().for_each(|theta| *theta /= factor);
            positive(factor).then_some((theta, 1.0))
        }
        Scaling::Yarn { factor, original_context, beta_fast, beta_slow, attention_factor } => {
            if ![factor, original_context, beta_fast, beta_slow, attention_factor].into_iter().all(positive) {
                return None;
            }
            let dims = (2 * theta.len()) as f64;
            let corr =
                |beta: f64| (dims * ln(original_context / (beta * 6.283185307179586))) / (2.0 * ln(base));
            let low = corr(beta_fast).floor().max(0.0);
            let high = corr(beta_slow).ceil().min(dims - 1.0);
            for (i, theta) in theta.iter_mut().enumerate() {
                let y = (i as f64 - low) / (high - low).max(0.001);
                let mix = 1.0 - y.clamp(0.0, 1.0);
                *theta = (*theta / factor) * (1.0 - mix) + *theta * mix;
            }
            Some((theta, attention_factor * (1.0 + 0.1 * ln(factor))))
        }
    }
}

/// the natural logarithm of a positive normal number.
pub(crate) fn ln(x: f64) -> f64 {
    assert!(x >= f64::MIN_POSITIVE && x.is_finite(), "ln of {x}");
    const SQRT_HALF: f64 = 0.7071067811865476;
    let bits = x.to_bits();
    // x = m·2^e with ½ ≤ m < 1, then m doubled if it is below √½.
    let mut e = (bits >> 52) as i64 - 1022;
    let mut m = f64::from_bits(bits & 0x000f_ffff_ffff_ffff | 1022 << 52);
    if m < SQRT_HALF {
        m *= 2.0;
        e -= 1;
    }
    let s = (m - 1.0) / (m + 1.0);
    let z = s * s;
    let p = (0..=11).rev().fold(0.0, |p, k| p * z + 1.0 / f64::from(2 * k + 1));
    e as f64 * 0.6931471805599453 + (2.0 * s) * p
}

/// sine and cosine.
fn sin_cos(x: f64) -> (f64, f64) {
    const S: [f64; 6] = [
        -1.66666666666666324348e-1,
        8.33333333332248946124e-3,
        -1.98412698298579493134e-4,
        2.75573137070700676789e-6,
        -2.50507602534068634195e-8,
        1.58969099521155010221e-10,
    ];
    const C: [f64; 6] = [
        4.16666666666666019037e-2,
        -1.38888888888741095749e-3,
        2.48015872894767294178e-5,
        -2.75573143513906633035e-7,
        2.08757232129817482790e-9,
        -1.13596475577881948265e-11,
    ];
    let n = (x * 0.6366197723675814).round_ties_even();
    let r = ((x - n * 1.5707963267341256) - n * 6.077100506303966e-11) - n * 2.0222662487959506e-21;
    let z = r * r;
    let horner = |c: [f64; 6]| c[0] + z * (c[1] + z * (c[2] + z * (c[3] + z * (c[4] + z * c[5]))));
    let sine = r + (r * z) * horner(S);
    let cosine = (1.0 - 0.5 * z) + (z * z) * horner(C);
    match n as i64 & 3 {
        0 => (sine, cosine),
        1 => (cosine, -sine),
        2 => (-sine, -cosine),
        _ => (-cosine, sine),
    }
}

/// Which elements of a head form pairs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RotaryPairs {
    /// (2i, 2i + 1), as in `llama`.
    Interleaved,
    /// (i, i + head_dim / 2), as in `qwen2` and `qwen3`.
    Halves,
}

pub(crate) mod scalar {
    use super::*;

    /// of one head in place; `row` is its position's cosines, then sines.
    pub(crate) fn rotate(head: &mut [f32], row: &[f32], pairs: RotaryPairs) {
        rotate_from(head, row, pairs, 0);
    }

    /// The pairs from `first` on.
    pub(super) fn rotate_from(head: &mut [f32], row: &[f32], pairs: RotaryPairs, first: usize) {
        let h = head.len() / 2;
        for i in first..h {
            let (first, second) = match pairs {
                RotaryPairs::Interleaved => (2 * i, 2 * i + 1),
                RotaryPairs::Halves => (i, i + h),
            };
            (head[first], head[second]) = step::rotated(head[first], head[second], row[i], row[h + i]);
        }
    }
}

pub(crate) mod kernel {
    use super::*;
    use crate::lane::{Lanes, WIDTH};

    /// Sixteen pairs at a time; the last ones, if fewer, by the definition.
    #[inline(always)]
    pub(crate) fn rotate<V: Lanes>(v: V, head: &mut [f32], row: &[f32], pairs: RotaryPairs) {
        let h = head.len() / 2;
        assert_eq!(row.len(), head.len());
        let (cosines, sines) = row.split_at(h);
        let whole = h / WIDTH * WIDTH;
        let angles = cosines.as_chunks::<WIDTH>().0.iter().zip(sines.as_chunks::<WIDTH>().0);
        match pairs {
            RotaryPairs::Halves => {
                let (first, second) = head.split_at_mut(h);
                let heads =
                    first.as_chunks_mut::<WIDTH>().0.iter_mut().zip(second.as_chunks_mut::<WIDTH>().0);
                for ((a, b), angles) in heads.zip(angles) {
                    turn(v, a, b, angles);
                }
            }
            RotaryPairs::Interleaved => {
                for (pairs, angles) in head.as_chunks_mut::<{ 2 * WIDTH }>().0.iter_mut().zip(angles) {
                    let mut a: [f32; WIDTH] = std::array::from_fn(|i| pairs[2 * i]);
                    let mut b: [f32; WIDTH] = std::array::from_fn(|i| pairs[2 * i + 1]);
                    turn(v, &mut a, &mut b, angles);
                    for i in 0..WIDTH {
                        (pairs[2 * i], pairs[2 * i + 1]) = (a[i], b[i]);
                    }
                }
            }
        }
        scalar::rotate_from(head, row, pairs, whole);
    }

    #[inline(always)]
    fn turn<V: Lanes>(
        v: V,
        a: &mut [f32; WIDTH],
        b: &mut [f32; WIDTH],
        (c, s): (&[f32; WIDTH], &[f32; WIDTH]),
    ) {
        let (va, vb, vc, vs) = (v.load(a), v.load(b), v.load(c), v.load(s));
        v.store(a, v.fma(va, vc, v.mul(vb, v.sub(v.splat(0.0), vs))));
        v.store(b, v.fma(vb, vc, v.mul(va, vs)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parameters(head_dim: usize, base: f64, scaling: Scaling) -> RotaryParameters {
        RotaryParameters { head_dim, base, context: 100_000, positions: 64, scaling, factors: None }
    }

    #[test]
    fn sines_and_cosines_are_close_to_binary64() {
        for i in 0..400_000 {
            let x = f64::from(i) * 0.37;
            let (s, c) = sin_cos(x);
            assert!((s - x.sin()).abs() < 4e-16 && (c - x.cos()).abs() < 4e-16, "{x}");
        }
    }

    #[test]
    fn logarithms_are_close_to_binary64() {
        for i in 1..100_000 {
            for x in [f64::from(i) * 0.01, f64::from(i).powi(5), 1.0 / f64::from(i)] {
                let exact = x.ln();
                assert!((ln(x) - exact).abs() <= 1e-15 * exact.abs().max(1.0), "{x}");
            }
        }
        assert_eq!(ln(1.0), 0.0);
        assert!(ln(f64::MIN_POSITIVE).is_finite() && ln(f64::MAX).is_finite());
    }

    #[test]
    fn frequencies_fall_from_one_to_the_base() {
        for (base, pairs) in [(1e4, 32), (5e5, 64), (1e6, 64), (1.5, 1), (1e4, 3)] {
            let theta = base_frequencies(base, pairs);
            assert_eq!(theta[0], 1.0);
            for (i, theta) in theta.iter().enumerate() {
                let exact = base.powf(-(i as f64) / pairs as f64);
                assert!((theta - exact).abs() < 1e-13 * exact, "{base} {i}");
            }
            // the product of all is at most 1/base, and with the next ρ it is more.
            if pairs > 1 {
                let product = |rho: f64| (0..pairs).fold(1.0, |product, _| product * rho);
                assert!(product(theta[1]) <= 1.0 / base);
                assert!(product(f64::from_bits(theta[1].to_bits() + 1)) > 1.0 / base);
            }
        }
    }

    #[test]
    fn scalings_change_the_frequencies_as_written() {
        let plain = RotaryTable::new(parameters(8, 1e4, Scaling::None)).expect("in range");
        let linear = RotaryTable::new(parameters(8, 1e4, Scaling::Linear(4.0))).expect("in range");
        for (plain, linear) in plain.frequencies.iter().zip(&linear.frequencies) {
            assert_eq!(*linear, plain / 4.0);
        }
        let factors = Some(vec![1.0, 2.0, 4.0, 8.0]);
        let divided = RotaryTable::new(RotaryParameters { factors, ..parameters(8, 1e4, Scaling::None) });
        let divided = divided.expect("in range");
        assert_eq!(divided.frequencies[3], plain.frequencies[3] / 8.0);
        let yarn = Scaling::Yarn {
            factor: 4.0,
            original_context: 32768.0,
            beta_fast: 32.0,
            beta_slow: 1.0,
            attention_factor: 1.0,
        };
        let yarn = RotaryTable::new(parameters(128, 1e6, yarn)).expect("in range");
        let plain = RotaryTable::new(parameters(128, 1e6, Scaling::None)).expect("in range");
        assert_eq!(yarn.frequencies[0], plain.frequencies[0], "fast pairs keep their frequency");
        assert_eq!(yarn.frequencies[63], plain.frequencies[63] / 4.0, "slow ones are interpolated");
        assert!((yarn.amplitude - (1.0 + 0.1 * 4f64.ln())).abs() < 1e-15);
    }

    #[test]
    fn the_digest_covers_the_context_and_agrees_with_the_table() {
        let parameters =
            RotaryParameters { context: 70, positions: 20, ..parameters(32, 1e4, Scaling::None) };
        let table = RotaryTable::new(parameters).expect("in range");
        let mut bytes = Vec::new();
        table.digest(|part| bytes.extend_from_slice(part));
        assert_eq!(bytes.len(), 70 * 32 * 4);
        for position in 0..20 {
            let row = bytes[position * 128..][..128].as_chunks().0.iter().map(|x| f32::from_le_bytes(*x));
            assert!(row.eq(table.row(position).iter().copied()));
        }
        assert_eq!(table.row(0)[..16], [1.0; 16]);
        assert_eq!(table.row(0)[16..], [0.0; 16]);
    }

    #[test]
    fn parameters_out_of_range_are_refused() {
        let refused = |parameters| RotaryTable::new(parameters).err().expect("refused");
        assert_eq!(refused(parameters(0, 1e4, Scaling::None)), RotaryError::HeadDim(0));
        assert_eq!(refused(parameters(7, 1e4, Scaling::None)), RotaryError::HeadDim(7));
        for base in [1.0, 0.0, -5.0, f64::INFINITY, f64::NAN] {
            assert!(matches!(refused(parameters(8, base, Scaling::None)), RotaryError::Base(_)));
        }
        for factor in [0.0, -1.0, f64::NAN, f64::INFINITY] {
            assert!(matches!(refused(parameters(8, 1e4, Scaling::Linear(factor))), RotaryError::Scaling(_)));
        }
        let factors = Some(vec![1.0; 3]);
        let bad = RotaryParameters { factors, ..parameters(8, 1e4, Scaling::None) };
        assert_eq!(refused(bad), RotaryError::Factors { expected: 4 });
        let bad = RotaryParameters { positions: 100_001, ..parameters(8, 1e4, Scaling::None) };
        assert_eq!(refused(bad), RotaryError::Positions { positions: 100_001, context: 100_000 });
    }
}
