//! Attention of one query head at one position.
//!
//! In:     a query, and the keys and values of the visible positions as binary16 rows.
//! Out:    the weighted sum of the values.
//! Touches: nothing.
//! Holds:  positions are taken in ascending order, in segments of 512.
//! Absent: projections, norm, rotary and the cache (`model`).

use crate::bits::f16_to_f32;
use crate::ops::{LOG2_E, close_lanes, exp2};
use crate::{NonFinite, check_finite};

/// Positions to a segment.
const SEGMENT: usize = 512;

/// One key row and one value row for each visible position from 0; rows are head_dim long.
pub fn attention_head(q: &[f32], keys: &[Vec<u16>], values: &[Vec<u16>]) -> Result<Vec<f32>, NonFinite> {
    assert_eq!(keys.len(), values.len(), "keys and values of different positions");
    let scores: Vec<f32> = keys.iter().map(|key| score(q, key)).collect();
    check_finite("an attention score", &scores)?;
    let m = maximum(&scores);
    let weights: Vec<f32> = scores.iter().map(|&score| weight(score, m)).collect();
    let inverse = 1.0 / normaliser(&weights);
    Ok(weighted_sum(&weights, values).iter().map(|total| total * inverse).collect())
}

/// a base-2 logit.
pub fn score(q: &[f32], key: &[u16]) -> f32 {
    assert_eq!(q.len(), key.len(), "query and key differ in length");
    let mut acc = 0.0_f32;
    for (q, &k) in q.iter().zip(key) {
        acc = q.mul_add(f16_to_f32(k), acc);
    }
    let c = LOG2_E * (1.0 / (q.len() as f32).sqrt());
    acc * c
}

///
pub fn maximum(scores: &[f32]) -> i32 {
    let greatest = scores.iter().fold(f32::NEG_INFINITY, |greatest, &score| greatest.max(score));
    greatest.ceil().max(-1e6).min(1e6) as i32
}

///
pub fn weight(score: f32, m: i32) -> f32 {
    exp2(score.max(m as f32 - 1000.0), m)
}

///
pub fn normaliser(weights: &[f32]) -> f32 {
    let mut l = 0.0;
    for segment in weights.chunks(SEGMENT) {
        let mut lanes = [0.0; 16];
        for (t, p) in segment.iter().enumerate() {
            lanes[t % 16] += p;
        }
        l += close_lanes(lanes);
    }
    l
}

/// before the division.
pub fn weighted_sum(weights: &[f32], values: &[Vec<u16>]) -> Vec<f32> {
    let head_dim = values[0].len();
    let mut total: Option<Vec<f32>> = None;
    for (weights, values) in weights.chunks(SEGMENT).zip(values.chunks(SEGMENT)) {
        let mut acc = vec![0.0_f32; head_dim];
        for (p, value) in weights.iter().zip(values) {
            for (acc, &v) in acc.iter_mut().zip(value) {
                *acc = p.mul_add(f16_to_f32(v), *acc);
            }
        }
        total = Some(match total {
            None => acc,
            Some(total) => total.iter().zip(&acc).map(|(total, segment)| total + segment).collect(),
        });
    }
    total.expect("a query sees at least its own position")
}

#[cfg(test)]
mod tests;
