//! Sampling: the parts that touch every logit.
//!
//! In:     logits.
//! Out:    integer weights, the greatest logit, finiteness; a log-sum-exp for display.
//! Holds:  weights are integers, so their sums are exact in any order.
//! Absent: penalties, top-k, top-p and the draw. Those are the engine's, on what this gives it.

use crate::activation::LOG2E;
use crate::lane::{Lanes, WIDTH, instances};
use crate::parts::Parts;
use crate::step::{UNIT, WEIGHT_EXPONENT_MIN};
use crate::{Executor, rotary, step};

impl Executor {
    /// the weight of every logit, `floor(2³²·exp2((l − max)·scale))`, or 0 if the exponent is under −64.
    ///
    /// `max` is the greatest logit, `scale` is log2e ÷ T.
    pub fn sampling_weights(&self, logits: &[f32], max: f32, scale: f32, out: &mut [u64]) {
        const CHUNK: usize = 8 << 10;
        assert_eq!(out.len(), logits.len(), "one weight per logit");
        let out = Parts::new(out);
        self.pool().run(logits.len().div_ceil(CHUNK), |_, chunk| {
            let range = chunk * CHUNK..logits.len().min((chunk + 1) * CHUNK);
            // SAFETY: each item has its own chunk.
            #[allow(unsafe_code)]
            let out = unsafe { out.part(range.clone()) };
            weights(self.available(), &logits[range], max, scale, out);
        });
    }

    /// The greatest logit and its id, the lowest on ties. Panics on no logits; they must be finite.
    pub fn argmax(&self, logits: &[f32]) -> (u32, f32) {
        assert!(!logits.is_empty(), "at least one logit");
        let id = argmax(self.available(), logits);
        (id as u32, logits[id])
    }

    /// Whether no entry is a NaN or an infinity.
    pub fn all_finite(&self, x: &[f32]) -> bool {
        all_finite(self.available(), x)
    }

    /// ln Σ exp(l): subtracted from a logit it gives the log-probability shown to people.
    ///
    /// Panics on no logits; they must be finite.
    pub fn log_sum_exp(&self, logits: &[f32]) -> f32 {
        let (_, max) = self.argmax(logits);
        let sum = sum_exp(self.available(), logits, max);
        (f64::from(max) + rotary::ln(sum)) as f32
    }
}

instances! {
    ///
    fn weights = scalar::weights | kernel::weights, (logits: &[f32], max: f32, scale: f32, out: &mut [u64]);
    /// the index of the first of the greatest.
    fn argmax = scalar::argmax | kernel::argmax, (logits: &[f32]) -> usize;
    ///
    fn all_finite = scalar::all_finite | kernel::all_finite, (x: &[f32]) -> bool;
    /// Σ exp(l − max), summed in order in binary64.
    fn sum_exp = scalar::sum_exp | kernel::sum_exp, (logits: &[f32], max: f32) -> f64;
}

mod scalar {
    use super::*;

    pub(super) fn weights(logits: &[f32], max: f32, scale: f32, out: &mut [u64]) {
        for (out, logit) in out.iter_mut().zip(logits) {
            *out = step::sampling_weight(*logit, max, scale);
        }
    }

    pub(super) fn argmax(logits: &[f32]) -> usize {
        step::best(None, 0, logits).1 as usize
    }

    pub(super) fn all_finite(x: &[f32]) -> bool {
        x.iter().all(|x| x.is_finite())
    }

    pub(super) fn sum_exp(logits: &[f32], max: f32) -> f64 {
        logits.iter().fold(0.0, |sum, logit| sum + f64::from(step::exp2((logit - max) * LOG2E, 0)))
    }
}

pub(crate) mod kernel {
    use super::*;
    use crate::activation::kernel::exp2;

    /// Whole vectors, and the rest completed with `fill`.
    #[inline(always)]
    fn split(x: &[f32], fill: f32) -> (&[[f32; WIDTH]], [f32; WIDTH]) {
        let (whole, rest) = x.as_chunks();
        let mut last = [fill; WIDTH];
        last[..rest.len()].copy_from_slice(rest);
        (whole, last)
    }

    #[inline(always)]
    pub(super) fn weights<V: Lanes>(v: V, logits: &[f32], max: f32, scale: f32, out: &mut [u64]) {
        let (whole, last) = split(logits, max);
        for (logits, out) in whole.iter().chain([&last]).zip(out.chunks_mut(WIDTH)) {
            let e = v.mul(v.sub(v.load(logits), v.splat(max)), v.splat(scale));
            let (mut exponents, mut units) = ([0.0; WIDTH], [0.0; WIDTH]);
            v.store(&mut exponents, e);
            v.store(&mut units, v.mul(exp2(v, e, 0.0), v.splat(UNIT)));
            for ((out, e), units) in out.iter_mut().zip(exponents).zip(units) {
                *out = if e < WEIGHT_EXPONENT_MIN { 0 } else { units as u64 };
            }
        }
    }

    #[inline(always)]
    pub(super) fn argmax<V: Lanes>(v: V, logits: &[f32]) -> usize {
        let (whole, last) = split(logits, logits[0]);
        let mut greatest = v.load(&last);
        for logits in whole {
            greatest = v.max(greatest, v.load(logits));
        }
        let greatest = v.greatest(greatest);
        let vector = whole.iter().position(|logits| v.greatest(v.load(logits)) == greatest);
        let start = vector.unwrap_or(whole.len()) * WIDTH;
        start
            + logits[start..]
                .iter()
                .position(|logit| *logit == greatest)
                .expect("the greatest is one of them")
    }

    #[inline(always)]
    pub(crate) fn all_finite<V: Lanes>(v: V, x: &[f32]) -> bool {
        let (whole, last) = split(x, 0.0);
        let mut greatest = v.magnitude(v.load(&last));
        for x in whole {
            greatest = v.max_ints(greatest, v.magnitude(v.load(x)));
        }
        (v.greatest_int(greatest) as u32) < f32::INFINITY.to_bits()
    }

    #[inline(always)]
    pub(super) fn sum_exp<V: Lanes>(v: V, logits: &[f32], max: f32) -> f64 {
        let (whole, last) = split(logits, max);
        let mut sum = 0.0;
        for (i, logits_of) in whole.iter().chain([&last]).enumerate() {
            let mut powers = [0.0; WIDTH];
            v.store(&mut powers, exp2(v, v.mul(v.sub(v.load(logits_of), v.splat(max)), v.splat(LOG2E)), 0.0));
            for power in &powers[..WIDTH.min(logits.len() - i * WIDTH)] {
                sum += f64::from(*power);
            }
        }
        sum
    }
}

#[cfg(test)]
mod tests {
    use crate::Backend;
    use crate::testing::{executor, twins_agree};

    #[test]
    fn twins_agree_on_sampling() {
        twins_agree(
            12_000,
            |generator| {
                let mut logits = vec![0.0; 1 + generator.below(600)];
                if generator.below(200) == 0 {
                    logits.resize(20_000 + generator.below(100), 0.0);
                }
                generator.activations(&mut logits);
                if generator.below(4) == 0 {
                    // Ties, zeros of both signs among them.
                    logits.iter_mut().for_each(|logit| *logit = [0.0, -0.0, -1.0][generator.below(3)]);
                }
                if generator.below(50) == 0 {
                    let at = generator.below(logits.len());
                    logits[at] = [f32::NAN, f32::NEG_INFINITY][generator.below(2)];
                }
                (logits, [1.44, 0.5, 20.0, 1e-3][generator.below(4)])
            },
            |executor, (logits, scale)| {
                if !executor.all_finite(logits) {
                    return vec![1];
                }
                let (id, max) = executor.argmax(logits);
                let mut weights = vec![0; logits.len()];
                executor.sampling_weights(logits, max, *scale, &mut weights);
                let mut record = vec![0, id, max.to_bits(), executor.log_sum_exp(logits).to_bits()];
                record.extend(weights.iter().flat_map(|weight| [(*weight >> 32) as u32, *weight as u32]));
                record
            },
        );
    }

    #[test]
    fn weights_and_maxima_are_what_the_rules_say() {
        for backend in Backend::available() {
            let executor = executor(backend, 2);
            let logits = [1.0, 3.0, -0.5, 3.0, 2.0];
            assert_eq!(executor.argmax(&logits), (1, 3.0), "the lowest id on ties");
            assert_eq!(executor.argmax(&[-0.0, 0.0]).0, 0, "zeros are equal");
            assert_eq!(executor.argmax(&[f32::MIN]), (0, f32::MIN));
            let mut weights = [0; 5];
            executor.sampling_weights(&logits, 3.0, 1.0, &mut weights);
            assert_eq!(
                weights,
                [1 << 30, 1 << 32, (2f64.powf(28.5)) as u64 & !0x1f | weights[2] & 0x1f, 1 << 32, 1 << 31]
            );
            // Exponents −64, just below it, and where 2³²·exp2 is below one.
            executor.sampling_weights(&[-64.0, -64.5, -33.0, -32.0, 0.0], 0.0, 1.0, &mut weights);
            assert_eq!(weights, [0, 0, 0, 1, 1 << 32]);
            let exact = (logits.iter().map(|l| f64::from(*l).exp()).sum::<f64>()).ln();
            assert!((f64::from(executor.log_sum_exp(&logits)) - exact).abs() < 1e-6);
            for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
                for at in 0..40 {
                    let mut x = [1.0; 40];
                    x[at] = bad;
                    assert!(!executor.all_finite(&x));
                }
            }
            assert!(executor.all_finite(&[]));
            assert!(executor.all_finite(&[f32::MAX; 33]));
        }
    }
}
