//! Matrix product and the operations of A-4.
//!
//! In:     rows of activations, bytes of weight rows.
//! Out:    rows of activations, or the check of that failed.
//! Touches: nothing.
//! Holds:  one loop per chain, in the order of the page; `mul_add` exactly where the page writes `fma`.
//! Absent: rotary embedding and attention, which have rooms of their own.

use crate::weights::{self, Block, Format, Row, Scale};
use crate::{NonFinite, check_finite};

/// log2(e), as written in.
pub const LOG2_E: f32 = 1.44269504;

/// 32 activations, quantised.
#[derive(Clone, Debug, PartialEq)]
pub struct QuantisedBlock {
    /// `d`, called `da` in.
    pub scale: f32,
    /// `q`
    pub codes: [i8; 32],
}

/// over a row of whole blocks of 32.
pub fn quantise(x: &[f32]) -> Result<Vec<QuantisedBlock>, NonFinite> {
    assert!(x.len().is_multiple_of(32), "a row of {} is not whole blocks of 32", x.len());
    check_finite("an activation", x)?;
    let mut blocks = Vec::new();
    for x in x.chunks_exact(32) {
        let a = x.iter().fold(0.0_f32, |a, value| a.max(value.abs()));
        let r = if a > 0.0 { 127.0 / a } else { 0.0 };
        check_finite("an activation block's reciprocal scale", &[r])?;
        let codes = std::array::from_fn(|e| (x[e] * r).round_ties_even() as i8);
        blocks.push(QuantisedBlock { scale: a / 127.0, codes });
    }
    Ok(blocks)
}

/// one element of a product, from one weight row and one activation row of the same length.
pub fn matmul_row(format: Format, weight_row: &[u8], x: &[f32]) -> Result<f32, NonFinite> {
    Ok(matmul(format, weight_row, x)?[0])
}

/// the products of every row of a matrix with one activation row, whose length is the matrix's K.
pub fn matmul(format: Format, matrix: &[u8], x: &[f32]) -> Result<Vec<f32>, NonFinite> {
    assert!(x.len().is_multiple_of(32), "K = {} is not a multiple of 32 (A-3)", x.len());
    let rows = matrix.chunks_exact(format.row_bytes(x.len())).map(|row| weights::decode(format, row));
    check_finite("a row entering a matrix product", x)?;
    match format {
        Format::F32 | Format::F16 | Format::BF16 => Ok(rows.map(|row| product_of_floats(&row, x)).collect()),
        Format::Q8_0 | Format::Q4_0 | Format::Q4_K | Format::Q6_K => {
            let x = quantise(x)?;
            Ok(rows.map(|row| product_of_blocks(&row, &x)).collect())
        }
    }
}

/// in the segments of.
fn product_of_floats(row: &Row, x: &[f32]) -> f32 {
    let Row::Floats(w) = row else { unreachable!("a float format decodes to floats") };
    let mut total = None;
    for (w, x) in w.chunks(1024).zip(x.chunks(1024)) {
        let mut acc = 0.0_f32;
        for (w, x) in w.iter().zip(x) {
            acc = w.mul_add(*x, acc);
        }
        total = Some(add_segment(total, acc));
    }
    total.expect("a row has at least one block")
}

/// in the segments of.
fn product_of_blocks(row: &Row, x: &[QuantisedBlock]) -> f32 {
    let Row::Blocks(w) = row else { unreachable!("a quantised format decodes to blocks") };
    let mut total = None;
    for (w, x) in w.chunks(32).zip(x.chunks(32)) {
        let mut acc = 0.0_f32;
        for (w, x) in w.iter().zip(x) {
            acc = add_block(acc, w, x);
        }
        total = Some(add_segment(total, acc));
    }
    total.expect("a row has at least one block")
}

/// `total = seg₀`, then `total = total + seg_j`.
fn add_segment(total: Option<f32>, segment: f32) -> f32 {
    match total {
        None => segment,
        Some(total) => total + segment,
    }
}

/// One block's step of the chain.
fn add_block(acc: f32, w: &Block, x: &QuantisedBlock) -> f32 {
    let da = x.scale;
    match w.scale {
        //
        Scale::Plain { d } => {
            let s = dot(&w.codes, &x.codes);
            (s as f32).mul_add(d * da, acc)
        }
        //
        Scale::Minimum { sw, mw } => {
            let s = dot(&w.codes, &x.codes);
            let sum: i32 = x.codes.iter().map(|&q| i32::from(q)).sum();
            let acc = (s as f32).mul_add(sw * da, acc);
            mw.mul_add(-(sum as f32 * da), acc)
        }
        //
        Scale::Halves { d, sc } => {
            let s0 = dot(&w.codes[..16], &x.codes[..16]);
            let s1 = dot(&w.codes[16..], &x.codes[16..]);
            let s = i32::from(sc[0]) * s0 + i32::from(sc[1]) * s1;
            (s as f32).mul_add(d * da, acc)
        }
    }
}

/// The exact integer Σ w·q.
fn dot(w: &[i8], q: &[i8]) -> i32 {
    w.iter().zip(q).map(|(&w, &q)| i32::from(w) * i32::from(q)).sum()
}

/// `x + y`, element by element.
pub fn add(x: &[f32], y: &[f32]) -> Vec<f32> {
    assert_eq!(x.len(), y.len(), "the two rows of a sum differ in length");
    x.iter().zip(y).map(|(x, y)| x + y).collect()
}

/// the embedding of one token, from its row of the embedding matrix.
pub fn embedding_row(format: Format, row: &[u8]) -> Vec<f32> {
    weights::values(format, row)
}

///
pub fn rms_norm(x: &[f32], weight: &[f32], eps: f32) -> Vec<f32> {
    assert_eq!(x.len(), weight.len(), "a norm's weight differs in length from its row");
    assert!(x.len().is_multiple_of(16), "a norm over {} values, not a multiple of 16", x.len());
    let inv = norm_inverse(square_lanes(x), x.len(), eps);
    x.iter().zip(weight).map(|(x, w)| (x * inv) * w).collect()
}

/// The sixteen chains of squares of.
pub fn square_lanes(x: &[f32]) -> [f32; 16] {
    let mut lanes = [0.0_f32; 16];
    for (i, &x) in x.iter().enumerate() {
        lanes[i % 16] = x.mul_add(x, lanes[i % 16]);
    }
    lanes
}

/// `inv` of, of the lanes of `n` values.
pub fn norm_inverse(lanes: [f32; 16], n: usize, eps: f32) -> f32 {
    1.0 / (close_lanes(lanes) / n as f32 + eps).sqrt()
}

/// The tree of: sixteen lanes to one sum.
pub fn close_lanes(mut lanes: [f32; 16]) -> f32 {
    for distance in [8, 4, 2, 1] {
        for l in 0..distance {
            lanes[l] += lanes[l + distance];
        }
    }
    lanes[0]
}

/// `2^(t − m)`, by a polynomial. `t` is finite.
pub fn exp2(t: f32, m: i32) -> f32 {
    let n = t.round_ties_even();
    let f = t - n;
    let mut p = 1.535336188319500e-4_f32;
    for coefficient in [
        1.339887440266574e-3,
        9.618437357674640e-3,
        5.550332471162809e-2,
        2.402264791363012e-1,
        6.931472028550421e-1,
        1.0,
    ] {
        p = p.mul_add(f, coefficient);
    }
    let exponent = (n as i64).saturating_sub(i64::from(m));
    if exponent < -120 { 0.0 } else { times_power_of_two(p, exponent) }
}

/// `p·2^exponent` for p near 1 and exponent ≥ −120: exact, or an infinity.
fn times_power_of_two(p: f32, exponent: i64) -> f32 {
    let power = |exponent: i64| f32::from_bits(((exponent + 127) as u32) << 23);
    if exponent <= 127 { p * power(exponent) } else { p * power(127) * power((exponent - 127).min(127)) }
}

///
pub fn silu(x: f32) -> f32 {
    let t = (x * -LOG2_E).max(-100.0).min(100.0);
    x / (1.0 + exp2(t, 0))
}

/// the gated unit, `silu(gate)·up`.
pub fn silu_mul(gate: &[f32], up: &[f32]) -> Vec<f32> {
    assert_eq!(gate.len(), up.len(), "gate and up differ in length");
    gate.iter().zip(up).map(|(&gate, up)| silu(gate) * up).collect()
}

#[cfg(test)]
mod tests;
