//! The steps a judge computes (`kernels::step`), each held to `reference` on at least 100,000 leaves that say something, of
//! ordinary and of awkward numbers; zeros and NaNs are compared too, and not counted. A failure names the seed.

use surety_kernels::step;
use surety_reference::weights::{self, Format};
use surety_reference::{attention, ops, rotary, sample};

use crate::kernel_format;
use crate::noise::{Noise, Temper};

/// Leaves of a kind that are neither zero nor a NaN.
const LEAVES: usize = 100_000;
/// What a NaN is written as (D-3.10).
const NAN: u64 = 0x7fc0_0000;

/// Draws leaves of one kind: pairs of what `step` gives and what `reference` does.
fn agree(kind: &str, draw: impl Fn(&mut Noise, &mut dyn FnMut(u64, u64))) {
    let (mut counted, mut seed) = (0, 0);
    while counted < LEAVES {
        assert!(seed < 8 * LEAVES as u64, "{kind}: only {counted} of the leaves say something");
        draw(&mut Noise::new(seed), &mut |found, expected| {
            assert_eq!(found, expected, "{kind}: seed {seed}: step gives {found:x}, reference {expected:x}");
            counted += usize::from(expected != 0 && expected != NAN && expected << 33 != 0);
        });
        seed += 1;
    }
}

/// A value as a word of a trace.
fn word(x: f32) -> u64 {
    if x.is_nan() { NAN } else { u64::from(x.to_bits()) }
}

/// A value that checks, as a word of a trace.
fn checked(x: f32) -> u64 {
    if x.is_finite() { word(x) } else { NAN }
}

fn temper(noise: &mut Noise) -> Temper {
    noise.pick(&[Temper::Calm, Temper::Calm, Temper::Any, Temper::Any, Temper::Wild])
}

/// A logit or score: ordinary, tied, extreme.
fn logit(noise: &mut Noise) -> f32 {
    match noise.below(12) {
        0 => {
            noise.pick(&[0.0, -0.0, f32::MIN, f32::MAX, -1e30, 30.0, f32::from_bits(1), 1e6, -1e6, 999_999.5])
        }
        1 => noise.below(61) as f32 - 30.0,
        2 => noise.below(120) as f32 * 0.5 - 30.0,
        3 => noise.finite(),
        _ => noise.unit() * 30.0,
    }
}

#[test]
fn elements() {
    for format in Format::ALL {
        agree(&format!("element of {format:?}"), |noise, leaf| {
            let row = noise.weight_row(format, 256);
            let expected = weights::values(format, &row);
            let (elements, bytes) = format.block();
            for _ in 0..64 {
                let i = noise.below(256);
                let block = &row[i / elements * bytes..][..bytes];
                leaf(word(step::element(kernel_format(format), block, i % elements)), word(expected[i]));
            }
        });
    }
}

fn segments_of(format: Format) {
    let unit = format.block().0.max(32);
    agree(&format!("segment of {format:?}"), |noise, leaf| {
        let columns = if noise.below(3) == 0 { 1024 } else { unit * (1 + noise.below(1024 / unit)) };
        let temper = temper(noise);
        let x = noise.row(columns, temper);
        let inputs = step::Inputs::new(kernel_format(format), &x);
        for _ in 0..8 {
            let row = noise.weight_row(format, columns);
            // A row of one segment is that segment.
            let expected = ops::matmul_row(format, &row, &x).map_or(NAN, word);
            leaf(word(step::segment(kernel_format(format), &row, &x)), expected);
            let weights = step::Weights::read(kernel_format(format), &row);
            assert_eq!(word(step::product(&weights, &inputs)), expected, "{format:?}");
        }
    });
}

#[test]
fn segments_f32() {
    segments_of(Format::F32);
}

#[test]
fn segments_f16() {
    segments_of(Format::F16);
}

#[test]
fn segments_bf16() {
    segments_of(Format::BF16);
}

#[test]
fn segments_q8_0() {
    segments_of(Format::Q8_0);
}

#[test]
fn segments_q4_0() {
    segments_of(Format::Q4_0);
}

#[test]
fn segments_q4_k() {
    segments_of(Format::Q4_K);
}

#[test]
fn segments_q6_k() {
    segments_of(Format::Q6_K);
}

/// Weights that are -1 or 1 times powers of two make every segment visible in the total: F32 rows of up to five.
#[test]
fn totals() {
    agree("total", |noise, leaf| {
        let columns = 32 * (1 + noise.below(20)) + 1024 * noise.below(5);
        let x = noise.row(columns, Temper::Any);
        let row: Vec<u8> = (0..columns)
            .flat_map(|_| noise.pick(&[0.0_f32, 1.0, -1.0, 0.5, 1e-3, 3.0]).to_le_bytes())
            .collect();
        let format = kernel_format(Format::F32);
        let parts = x.chunks(1024).zip(row.chunks(4096));
        let segments: Vec<f32> = parts.map(|(x, row)| step::segment(format, row, x)).collect();
        let expected = ops::matmul_row(Format::F32, &row, &x).expect("finite inputs");
        leaf(word(step::total(&segments, None)), word(expected));
        for _ in 0..8 {
            let bias = noise.unit() * 4.0;
            leaf(word(step::total(&segments, Some(bias))), word(ops::add(&[expected], &[bias])[0]));
        }
    });
}

#[test]
fn norms() {
    agree("lanes, inv and y", |noise, leaf| {
        let columns = 32 * (1 + noise.below(8)) + 1024 * noise.below(3);
        let temper = temper(noise);
        let x = noise.row(columns, temper);
        let weight = noise.row(columns, Temper::Any);
        let eps = noise.pick(&[1e-5, 1e-6, 1e-12, 0.0, 1.0]);
        let mut lanes = [0.0; 16];
        for (part, x_of) in x.chunks(1024).enumerate() {
            lanes = step::squares(lanes, x_of);
            let expected = ops::square_lanes(&x[..part * 1024 + x_of.len()]);
            lanes.iter().zip(expected).for_each(|(lane, expected)| leaf(word(*lane), word(expected)));
        }
        leaf(word(step::tree(lanes)), word(ops::close_lanes(lanes)));
        let inverse = step::norm_inverse(lanes, columns, eps);
        leaf(word(inverse), word(ops::norm_inverse(lanes, columns, eps)));
        let expected = ops::rms_norm(&x, &weight, eps);
        for _ in 0..16 {
            let i = noise.below(columns);
            leaf(word(step::normed(x[i], inverse, weight[i])), word(expected[i]));
        }
    });
    // Each kind by itself, too.
    let sixteen = |noise: &mut Noise| -> [f32; 16] {
        let temper = temper(noise);
        noise.row(16, temper).try_into().expect("sixteen")
    };
    agree("inv", |noise, leaf| {
        let lanes = sixteen(noise).map(|x| (x * x).min(1e37));
        let (n, eps) = (32 * (1 + noise.below(2000)), noise.pick(&[1e-5, 1e-6, 0.0]));
        leaf(word(step::norm_inverse(lanes, n, eps)), word(ops::norm_inverse(lanes, n, eps)));
    });
    agree("y", |noise, leaf| {
        let x = noise.row(32, Temper::Any);
        let weight = noise.row(32, Temper::Any);
        let inverse = step::norm_inverse(step::squares([0.0; 16], &x), 32, 1e-6);
        let expected = ops::rms_norm(&x, &weight, 1e-6);
        for i in 0..32 {
            leaf(word(step::normed(x[i], inverse, weight[i])), word(expected[i]));
        }
    });
}

#[test]
fn residuals_and_gated_units() {
    agree("residual", |noise, leaf| {
        let temper = temper(noise);
        let (x, y) = (noise.row(64, temper), noise.row(64, temper));
        for (i, expected) in ops::add(&x, &y).into_iter().enumerate() {
            leaf(word(step::residual(x[i], y[i])), word(expected));
        }
    });
    agree("gated unit", |noise, leaf| {
        let temper = temper(noise);
        let (mut gate, up) = (noise.row(64, temper), noise.row(64, temper));
        // Around the clamp and the ties of the exponent's rounding.
        for (i, gate) in gate.iter_mut().enumerate().filter(|(i, _)| i % 5 == 0) {
            *gate = ((7 * i) as f32 - 205.0) * 0.5 / ops::LOG2_E;
        }
        for (i, expected) in ops::silu_mul(&gate, &up).into_iter().enumerate() {
            leaf(word(step::gated(gate[i], up[i])), word(expected));
        }
    });
}

#[test]
fn rotary_and_stored_values() {
    agree("rotary pair", |noise, leaf| {
        let temper = temper(noise);
        let head = noise.row(2, temper);
        let (c, s) = rotary::sin_cos(f64::from(noise.unit()) * 1e5);
        let (c, s) = (c as f32, s as f32);
        let expected = rotary::rotate(&head, rotary::Pairs::Halves, &[c], &[s]);
        let (a, b) = step::rotated(head[0], head[1], c, s);
        leaf(checked(a), checked(expected[0]));
        leaf(checked(b), checked(expected[1]));
        assert_eq!(u64::from(step::word(step::checked(a))), checked(a));
    });
    agree("key or value", |noise, leaf| {
        let temper = temper(noise);
        for x in noise.row(64, temper) {
            let half = surety_reference::bits::f32_to_f16(x);
            leaf(word(step::stored(x)), checked(surety_reference::bits::f16_to_f32(half)));
        }
    });
}

fn halves(noise: &mut Noise, count: usize, temper: Temper) -> Vec<u16> {
    noise.row(count, temper).into_iter().map(surety_reference::bits::f32_to_f16).collect()
}

fn widened(halves: &[u16]) -> Vec<f32> {
    halves.iter().map(|half| surety_reference::bits::f16_to_f32(*half)).collect()
}

#[test]
fn scores() {
    agree("score", |noise, leaf| {
        let head_dim = 32 * (1 + noise.below(8));
        let temper = temper(noise);
        let query = noise.row(head_dim, temper);
        for _ in 0..16 {
            let key = halves(noise, head_dim, temper);
            leaf(word(step::score(&query, &widened(&key))), checked(attention::score(&query, &key)));
        }
    });
}

#[test]
fn greatest_scores_and_weights() {
    agree("m", |noise, leaf| {
        let count = 1 + noise.below(40) + 512 * noise.below(3);
        let scale = noise.pick(&[1.0, 1.0, 1e3, 1e7, 1e-3]);
        let scores: Vec<f32> = (0..count).map(|_| noise.unit() * scale).collect();
        let greatest = scores.chunks(512).fold(None, |before, scores| Some(step::greatest(before, scores)));
        let m = step::ceiling(greatest.expect("a score"));
        let expected = attention::maximum(&scores);
        assert_eq!(m as i32, expected);
        leaf(word(m), word(expected as f32));
    });
    agree("attention weight", |noise, leaf| {
        let m = match noise.below(4) {
            0 => noise.pick(&[-1_000_000, 1_000_000, 0, 1, -1]),
            _ => noise.below(60) as i32 - 30,
        };
        for _ in 0..64 {
            let below = match noise.below(5) {
                0 => noise.below(130) as f32,
                1 => noise.below(260) as f32 * 0.5,
                2 => logit(noise).abs(),
                _ => noise.unit().abs() * 120.0,
            };
            let score = m as f32 - below;
            if score.is_finite() {
                leaf(word(step::attention_weight(score, m as f32)), word(attention::weight(score, m)));
            }
        }
    });
}

/// What D-3.10 says of values that are not finite, and of equal ones.
#[test]
fn what_is_not_finite_stays_a_nan() {
    let nan = f32::NAN;
    for at in 0..5 {
        let mut scores = [1.0, 3.0, -2.0, 3.0, 0.0];
        scores[at] = nan;
        assert!(step::greatest(None, &scores).is_nan() && step::greatest(Some(4.0), &scores).is_nan());
        let (logit, id) = step::best(Some((4.0, 9)), 10, &scores);
        assert!(logit.is_nan() && id == step::NO_TOKEN);
    }
    assert!(step::greatest(Some(nan), &[1.0]).is_nan());
    assert_eq!(step::best(Some((nan, step::NO_TOKEN)), 10, &[1.0]).1, step::NO_TOKEN);
    assert_eq!(step::greatest(Some(-0.0), &[0.0]).to_bits(), (-0.0_f32).to_bits(), "of equal ones the first");
    assert_eq!(step::greatest(None, &[0.0, -0.0]).to_bits(), 0);
    assert_eq!(step::ceiling(-0.5).to_bits(), 0, "m is an integer, and has one zero");
    assert!(step::ceiling(nan).is_nan());
    assert!(step::attention_weight(nan, 1.0).is_nan() && step::attention_weight(1.0, nan).is_nan());
    assert!(step::score(&[1e30; 32], &[1e30; 32]).is_nan(), "a score beyond binary32");
    assert!(step::stored(65520.0).is_nan() && step::stored(65519.0) == 65504.0);
    assert_eq!([(nan, 1.0), (1.0, nan)].map(|(l, max)| step::sampling_weight(l, max, 1.0)), [0, 0]);
    let by =
        step::Adjustment { bias: Some(f32::MAX), repetition: None, count: 0, presence: 0.0, frequency: 0.0 };
    assert!(step::adjusted(f32::MAX, &by).is_nan() && step::adjusted(f32::INFINITY, &by).is_nan());
    assert_eq!(step::word(f32::from_bits(0xffc1_2345)), 0x7fc0_0000);
    for bad in [nan, f32::INFINITY, 1e-38] {
        let mut x = [1.0; 64];
        x[32..].fill(bad);
        let q8_0 = step::segment(surety_kernels::Format::Q8_0, &[1; 68], &x);
        assert!(q8_0.is_nan(), "{bad}");
        let f32 = step::segment(surety_kernels::Format::F32, &[0; 256], &x);
        assert_eq!(f32.is_nan(), !bad.is_finite(), "{bad}: floats are not quantised");
    }
}

#[test]
fn normalisers_and_value_sums() {
    let weights = |noise: &mut Noise, count: usize| -> Vec<f32> {
        (0..count)
            .map(|_| attention::weight(-noise.unit().abs() * noise.pick(&[1.0, 20.0, 130.0]), 0))
            .collect()
    };
    agree("normaliser", |noise, leaf| {
        let count = 1 + noise.below(520) + 512 * noise.below(3);
        let weights = weights(noise, count);
        let mut sum = 0.0;
        for (i, part) in weights.chunks(512).enumerate() {
            sum = step::normaliser(sum, part);
            leaf(word(sum), word(attention::normaliser(&weights[..i * 512 + part.len()])));
        }
    });
    agree("value sum and output", |noise, leaf| {
        let count = 1 + noise.below(520) + 512 * noise.below(3);
        let weights = weights(noise, count);
        let reciprocal = step::reciprocal(attention::normaliser(&weights));
        for _ in 0..8 {
            let temper = temper(noise);
            let values = halves(noise, count, temper);
            let (rows, wide) =
                (values.iter().map(|value| vec![*value]).collect::<Vec<_>>(), widened(&values));
            let mut sum = None;
            for (i, (part, of)) in weights.chunks(512).zip(wide.chunks(512)).enumerate() {
                sum = Some(step::value_sum(sum, part, of));
                let end = i * 512 + part.len();
                leaf(
                    word(sum.expect("set")),
                    word(attention::weighted_sum(&weights[..end], &rows[..end])[0]),
                );
            }
            // The whole of by a head of one element whose scores are those weights' exponents.
            let total = attention::weighted_sum(&weights, &rows)[0];
            leaf(
                word(step::attended(sum.expect("set"), reciprocal)),
                word(total * (1.0 / attention::normaliser(&weights))),
            );
        }
    });
}

#[test]
fn sampling() {
    agree("sampling weight", |noise, leaf| {
        let temperature =
            noise.pick(&[0.01, 0.1, 0.5, 0.7, 1.0, 1.3, 2.0, ops::LOG2_E, 1e-6, f32::MIN_POSITIVE]);
        let scale = step::sampling_scale(temperature);
        assert_eq!(scale.to_bits(), (ops::LOG2_E / temperature).to_bits());
        let logits: Vec<f32> = (0..128).map(|_| logit(noise)).collect();
        let greatest = step::greatest(None, &logits);
        assert_eq!(greatest, logits[sample::argmax(&logits) as usize]);
        let near = |noise: &mut Noise| greatest - noise.unit().abs() * 64.0 / scale;
        let logits: Vec<f32> =
            logits.iter().map(|l| if noise.below(3) == 0 { *l } else { near(noise) }).collect();
        for (l, expected) in logits.iter().zip(sample::weights(&logits, greatest, scale)) {
            leaf(step::sampling_weight(*l, greatest, scale), expected);
        }
    });
    agree("adjusted logit", |noise, leaf| {
        let count = noise.below(4) as u32 * noise.below(4) as u32;
        let (in_prompt, biased) = (noise.below(2) == 0, noise.below(2) == 0);
        let parameters = sample::Parameters {
            repetition_penalty: noise.pick(&[1.0, 1.1, 0.5, 10.0, 0.01]),
            presence_penalty: noise.pick(&[0.0, 0.0, 0.3, -2.0]),
            frequency_penalty: noise.pick(&[0.0, 0.0, 0.7, -1.5]),
            logit_bias: if biased { vec![(0, noise.unit() * 100.0)] } else { Vec::new() },
            ..sample::Parameters::NEUTRAL
        };
        let by = step::Adjustment {
            bias: parameters.logit_bias.first().map(|(_, bias)| *bias),
            repetition: (in_prompt || count > 0).then_some(parameters.repetition_penalty),
            count,
            presence: parameters.presence_penalty,
            frequency: parameters.frequency_penalty,
        };
        let l = if noise.below(40) == 0 { noise.pick(&[f32::NAN, f32::INFINITY]) } else { logit(noise) };
        let expected =
            sample::adjust(&[l], &[0][..usize::from(in_prompt)], &vec![0; count as usize], &parameters);
        leaf(word(step::adjusted(l, &by)), expected.map_or(NAN, |adjusted| word(adjusted[0])));
    });
    agree("best", |noise, leaf| {
        let logits: Vec<f32> = (0..1 + noise.below(40)).map(|_| logit(noise)).collect();
        let mut best = None;
        for (tile, logits) in logits.chunks(8).enumerate() {
            best = Some(step::best(best, 8 * tile as u32, logits));
        }
        let (greatest, id) = best.expect("a logit");
        leaf(u64::from(id) + 1, u64::from(sample::argmax(&logits)) + 1);
        assert_eq!(word(greatest), word(logits[id as usize]));
    });
    agree("rank", |noise, leaf| {
        // Two tokens by the reference's order: the one a prefix of one keeps comes first.
        let logits = [logit(noise), logit(noise)];
        let [first, second] = [step::rank(logits[0], 0), step::rank(logits[1], 1)];
        leaf(u64::from(second < first) + 1, u64::from(sample::argmax(&logits)) + 1);
        assert!(step::rank(f32::NAN, 0) > step::rank(f32::MIN, u32::MAX), "a NaN is last");
    });
    agree("thresholds", |noise, leaf| {
        let p = match noise.below(8) {
            0 => noise.pick(&[0.0, 1.0, 0.9, f32::from_bits(1), 1.0 - f32::EPSILON / 2.0]),
            _ => noise.unit().abs(),
        };
        let sum = (1 << 32) + (noise.bits() >> (10 + noise.below(30)));
        leaf(step::fraction(p), sample::fraction(p));
        let expected = sample::needed(p, sum.into()).max(1);
        leaf(step::nucleus(step::fraction(p), sum), expected as u64);
        let u = noise.bits();
        leaf(step::draw(u, sum), sample::threshold(u, sum.into()) as u64);
    });
}
