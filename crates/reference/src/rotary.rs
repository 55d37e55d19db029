//! Rotary position embedding, with its own logarithm, sine and cosine.
//!
//! In:     a model's base, scaling and factors; a position; heads to turn.
//! Out:    a position's cosines and sines, a table's digest, heads turned.
//! Touches: nothing.
//! Holds:  everything up to the table's entries is binary64 without `fma`; only is binary32.
//! Absent: reading these parameters from metadata (`model`).

/// What a rotary table is made from.
#[derive(Clone, Debug)]
pub struct Parameters {
    /// Values of a head, an even number; `h` is half of it.
    pub head_dim: usize,
    /// The base, widened.
    pub base: f64,
    /// The scaling of.
    pub scaling: Scaling,
    /// Per-frequency factors `F_i`, h of them; not together with YaRN.
    pub factors: Option<Vec<f32>>,
}

///
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Scaling {
    /// `φ_i = θ_i`
    None,
    /// `φ_i = θ_i ÷ F`
    Linear {
        /// `F`
        factor: f64,
    },
    /// YaRN.
    Yarn {
        /// `F`
        factor: f64,
        /// `C`
        original_context: f64,
        /// `β_fast`
        beta_fast: f64,
        /// `β_slow`
        beta_slow: f64,
        /// `A`
        attention_factor: f64,
    },
}

/// The frequencies of a model, from which any row of its table follows.
#[derive(Clone, Debug)]
pub struct Rotary {
    /// `φ_i`
    frequencies: Vec<f64>,
    /// What cosine and sine are multiplied by; `None` without YaRN.
    magnitude: Option<f64>,
}

impl Rotary {
    /// Panics on an odd head, on factors of another length than h, and on factors with YaRN.
    pub fn new(parameters: &Parameters) -> Rotary {
        assert!(
            parameters.head_dim.is_multiple_of(2),
            "a head of {} values has no pairs",
            parameters.head_dim
        );
        let h = parameters.head_dim / 2;
        let thetas = thetas(h, parameters.base);
        let (mut frequencies, magnitude) = match parameters.scaling {
            Scaling::None => (thetas, None),
            Scaling::Linear { factor } => (thetas.iter().map(|theta| theta / factor).collect(), None),
            Scaling::Yarn { factor, original_context, beta_fast, beta_slow, attention_factor } => {
                assert!(
                    parameters.factors.is_none(),
                    "A-5.2 does not combine YaRN with per-frequency factors"
                );
                let dims = (2 * h) as f64;
                let corr = |beta: f64| {
                    (dims * ln(original_context / (beta * 6.283185307179586))) / (2.0 * ln(parameters.base))
                };
                let low = corr(beta_fast).floor().max(0.0);
                let high = corr(beta_slow).ceil().min(dims - 1.0);
                let frequencies = thetas.iter().enumerate().map(|(i, theta)| {
                    let y = (i as f64 - low) / (high - low).max(0.001);
                    let mix = 1.0 - y.max(0.0).min(1.0);
                    (theta / factor) * (1.0 - mix) + theta * mix
                });
                (frequencies.collect(), Some(attention_factor * (1.0 + 0.1 * ln(factor))))
            }
        };
        if let Some(factors) = &parameters.factors {
            assert_eq!(factors.len(), h, "the number of rotary factors");
            for (frequency, factor) in frequencies.iter_mut().zip(factors) {
                *frequency /= f64::from(*factor);
            }
        }
        Rotary { frequencies, magnitude }
    }

    /// The table's row of a position: (cosines, sines), h each.
    pub fn row(&self, position: usize) -> (Vec<f32>, Vec<f32>) {
        let pairs = self.frequencies.iter().map(|frequency| {
            let (sin, cos) = sin_cos(position as f64 * frequency);
            let (sin, cos) = match self.magnitude {
                None => (sin, cos),
                Some(magnitude) => (sin * magnitude, cos * magnitude),
            };
            (cos as f32, sin as f32)
        });
        pairs.unzip()
    }

    /// the digest of the rows of positions below the context length.
    pub fn digest(&self, context: usize) -> [u8; 32] {
        let mut hasher = blake3::Hasher::new();
        for position in 0..context {
            let (cosines, sines) = self.row(position);
            for value in cosines.iter().chain(&sines) {
                hasher.update(&value.to_le_bytes());
            }
        }
        *hasher.finalize().as_bytes()
    }
}

/// `θ_i` for i below h.
fn thetas(h: usize, base: f64) -> Vec<f64> {
    let target = 1.0 / base;
    let power_is_low = |bits: u64| {
        let rho = f64::from_bits(bits);
        (0..h).fold(1.0, |power, _| power * rho) <= target
    };
    // Rounding is monotone, so the power grows with ρ: bisect over the bit patterns of [0, 1).
    let (mut low, mut high) = (0, 1.0_f64.to_bits());
    while high - low > 1 {
        let middle = low + (high - low) / 2;
        if power_is_low(middle) {
            low = middle;
        } else {
            high = middle;
        }
    }
    let rho = f64::from_bits(low);
    let mut thetas = vec![1.0];
    while thetas.len() < h {
        thetas.push(thetas[thetas.len() - 1] * rho);
    }
    thetas
}

/// the natural logarithm of a positive, normal x.
pub fn ln(x: f64) -> f64 {
    assert!(x.is_normal() && x > 0.0, "ln is defined here for positive normal numbers, not {x}");
    let sqrt_half = 0.7071067811865476;
    // x = m·2^e with m in [½, 1); then, if m is below √½, m in [1, √2).
    let mut e = (x.to_bits() >> 52) as i64 - 1022;
    let mut m = f64::from_bits(x.to_bits() & 0x000f_ffff_ffff_ffff | 1022 << 52);
    if m < sqrt_half {
        m *= 2.0;
        e -= 1;
    }
    let s = (m - 1.0) / (m + 1.0);
    let z = s * s;
    let mut p = 1.0 / 23.0;
    for k in (0..11).rev() {
        p = p * z + 1.0 / f64::from(2 * k + 1);
    }
    e as f64 * 0.6931471805599453 + (2.0 * s) * p
}

/// (sine, cosine).
pub fn sin_cos(x: f64) -> (f64, f64) {
    let n = (x * 0.6366197723675814).round_ties_even();
    let r = ((x - n * 1.5707963267341256) - n * 6.077100506303966e-11) - n * 2.0222662487959506e-21;
    let z = r * r;
    let s = [
        -1.66666666666666324348e-1,
        8.33333333332248946124e-3,
        -1.98412698298579493134e-4,
        2.75573137070700676789e-6,
        -2.50507602534068634195e-8,
        1.58969099521155010221e-10,
    ];
    let c = [
        4.16666666666666019037e-2,
        -1.38888888888741095749e-3,
        2.48015872894767294178e-5,
        -2.75573143513906633035e-7,
        2.08757232129817482790e-9,
        -1.13596475577881948265e-11,
    ];
    let sine = r + ((r * z) * horner(&s, z));
    let cosine = (1.0 - (0.5 * z)) + ((z * z) * horner(&c, z));
    match (n as i64).rem_euclid(4) {
        0 => (sine, cosine),
        1 => (cosine, -sine),
        2 => (-sine, -cosine),
        _ => (-cosine, sine),
    }
}

/// `k₁ + z·(k₂ + z·(…))`, product then sum.
fn horner(coefficients: &[f64; 6], z: f64) -> f64 {
    let mut value = coefficients[5];
    for coefficient in coefficients[..5].iter().rev() {
        value = coefficient + z * value;
    }
    value
}

/// Which entries of a head form pair i.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pairs {
    /// (2i, 2i+1): `llama`.
    Neighbours,
    /// (i, i+h): `qwen2`, `qwen3`.
    Halves,
}

/// turns one head by a row of the table.
pub fn rotate(head: &[f32], pairs: Pairs, cosines: &[f32], sines: &[f32]) -> Vec<f32> {
    let h = head.len() / 2;
    assert_eq!((cosines.len(), sines.len()), (h, h), "a rotary row for another head");
    let mut turned = vec![0.0; head.len()];
    for i in 0..h {
        let (at_a, at_b) = match pairs {
            Pairs::Neighbours => (2 * i, 2 * i + 1),
            Pairs::Halves => (i, i + h),
        };
        let (a, b, c, s) = (head[at_a], head[at_b], cosines[i], sines[i]);
        turned[at_a] = a.mul_add(c, b * (0.0 - s));
        turned[at_b] = b.mul_add(c, a * s);
    }
    turned
}

#[cfg(test)]
mod tests;
