use super::*;
use crate::bits::f32_to_f16;

fn halves(values: &[f32]) -> Vec<u16> {
    values.iter().map(|&value| f32_to_f16(value)).collect()
}

/// (query, keys, values) without order.
fn case(head_dim: usize, positions: usize, spread: f32) -> (Vec<f32>, Vec<Vec<u16>>, Vec<Vec<u16>>) {
    let mut state = (head_dim * 1_000_003 + positions) as u64;
    let mut row = |size: f32| -> Vec<f32> {
        let mut next = || {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            ((state >> 40) as f32 / 8388608.0 - 1.0) * size
        };
        (0..head_dim).map(|_| next()).collect()
    };
    let q = row(spread);
    let keys = (0..positions).map(|_| halves(&row(1.0))).collect();
    let values = (0..positions).map(|_| halves(&row(1.0))).collect();
    (q, keys, values)
}

fn in_binary64(q: &[f32], keys: &[Vec<u16>], values: &[Vec<u16>]) -> Vec<f64> {
    let wide = |half: &u16| f64::from(f16_to_f32(*half));
    let scale = 1.0 / (q.len() as f64).sqrt();
    let score = |key: &Vec<u16>| q.iter().zip(key).map(|(q, k)| f64::from(*q) * wide(k)).sum::<f64>() * scale;
    let scores: Vec<f64> = keys.iter().map(score).collect();
    let greatest = scores.iter().fold(f64::NEG_INFINITY, |a, b| a.max(*b));
    let weights: Vec<f64> = scores.iter().map(|score| (score - greatest).exp()).collect();
    let total: f64 = weights.iter().sum();
    let out = |d: usize| weights.iter().zip(values).map(|(p, v)| p * wide(&v[d])).sum::<f64>() / total;
    (0..q.len()).map(out).collect()
}

#[test]
fn attention_is_near_binary64() {
    for (head_dim, positions, spread) in [
        (16, 1, 1.0),
        (32, 2, 1.0),
        (64, 17, 3.0),
        (128, 511, 1.0),
        (64, 512, 8.0),
        (64, 513, 1.0),
        (32, 1300, 30.0),
    ] {
        let (q, keys, values) = case(head_dim, positions, spread);
        let out = attention_head(&q, &keys, &values).expect("finite");
        for (d, (out, exact)) in out.iter().zip(in_binary64(&q, &keys, &values)).enumerate() {
            let error = (f64::from(*out) - exact).abs();
            assert!(error < 1e-5, "head_dim {head_dim}, positions {positions}, d {d}: {out} {exact}");
        }
    }
}

#[test]
fn one_position_returns_its_value() {
    let value = [1.0, -2.0, 0.5, 65504.0].repeat(4);
    let out = attention_head(&[0.0; 16], &[halves(&[1.0; 16])], &[halves(&value)]).expect("finite");
    assert_eq!(out, value);
}

/// Four positions of equal score: the mean of their values, exactly.
#[test]
fn equal_scores_average() {
    let keys = vec![halves(&[0.25; 16]); 4];
    let values: Vec<Vec<u16>> = (0..4).map(|t| halves(&[t as f32; 16])).collect();
    assert_eq!(attention_head(&[1.0; 16], &keys, &values).expect("finite"), [1.5; 16]);
}

#[test]
fn the_maximum_is_a_ceiling_and_clamped() {
    assert_eq!(maximum(&[-3.5, -9.0]), -3);
    assert_eq!(maximum(&[0.25, 2.0]), 2);
    assert_eq!(maximum(&[-0.5]), 0);
    assert_eq!(maximum(&[3e7]), 1_000_000);
    assert_eq!(maximum(&[-3e7]), -1_000_000);
}

/// 512 positions of weight 2⁻²⁴ beside one of weight 1: a segment of their own keeps them.
#[test]
fn the_normaliser_closes_every_512_positions() {
    let small = f32::powi(2.0, -24);
    let mut weights = vec![0.0; 1024];
    weights[0] = 1.0;
    weights[16] = small;
    assert_eq!(normaliser(&weights), 1.0);
    weights[512] = small;
    weights[513] = small;
    assert_eq!(normaliser(&weights), 1.0 + 2.0 * small);

    let values = vec![halves(&[1.0]); 1024];
    assert_eq!(weighted_sum(&weights, &values), [1.0 + 2.0 * small]);
}

#[test]
fn an_overflowing_score_ends_the_sequence() {
    let keys = vec![halves(&[60000.0; 16])];
    let values = vec![halves(&[1.0; 16])];
    assert!(attention_head(&[1e38; 16], &keys, &values).is_err());
    assert!(attention_head(&[f32::NAN; 16], &keys, &values).is_err());
}
