//! Tensor encodings: rows of f32 to ggml's block layouts and back.
//!
//! In:     rows whose length is a whole number of blocks, finite values.
//! Out:    the bytes of each block, exactly as ggml lays them out.
//! Holds:  a row's bytes depend on that row alone; decoding uses the scales as stored (rounded to f16).
//! Absent: ggml's search for better scales. Each scale is the one that just covers its block.
//!
//! Source: `ggml/src/ggml-common.h` and `ggml-quants.c`, the `_ref` functions.

/// How the elements of a tensor are encoded; the discriminant is the number in the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum TensorType {
    /// IEEE binary32.
    F32 = 0,
    /// IEEE binary16.
    F16 = 1,
    /// 32 elements: f16 scale, 16 bytes of nibbles offset by 8.
    Q4_0 = 2,
    /// 32 elements: f16 scale, 32 signed bytes.
    Q8_0 = 8,
    /// 256 elements: f16 scale and minimum scale, eight 6-bit pairs of them, 128 bytes of nibbles.
    Q4K = 12,
    /// 256 elements: 6-bit quants in two planes, sixteen signed 8-bit scales, f16 scale.
    Q6K = 14,
    /// The upper half of binary32.
    BF16 = 30,
}

impl TensorType {
    /// Every type this module writes.
    pub const ALL: [TensorType; 7] = [
        TensorType::F32,
        TensorType::F16,
        TensorType::BF16,
        TensorType::Q8_0,
        TensorType::Q4_0,
        TensorType::Q4K,
        TensorType::Q6K,
    ];

    /// Elements of a block.
    pub fn block_len(self) -> usize {
        match self {
            TensorType::F32 | TensorType::F16 | TensorType::BF16 => 1,
            TensorType::Q4_0 | TensorType::Q8_0 => 32,
            TensorType::Q4K | TensorType::Q6K => 256,
        }
    }

    /// Bytes of a block.
    pub fn block_size(self) -> usize {
        match self {
            TensorType::F32 => 4,
            TensorType::F16 | TensorType::BF16 => 2,
            TensorType::Q4_0 => 18,
            TensorType::Q8_0 => 34,
            TensorType::Q4K => 144,
            TensorType::Q6K => 210,
        }
    }

    /// Bytes of a row of `columns` elements. Panics unless that is a whole number of blocks.
    pub fn row_size(self, columns: usize) -> usize {
        assert!(columns.is_multiple_of(self.block_len()), "{columns} columns in blocks of {self:?}");
        columns / self.block_len() * self.block_size()
    }
}

/// Appends the encoding of a row. Panics unless the row is a whole number of blocks.
pub fn quantize_row(kind: TensorType, row: &[f32], out: &mut Vec<u8>) {
    let size = out.len() + kind.row_size(row.len());
    out.reserve(size - out.len());
    match kind {
        TensorType::F32 => row.iter().for_each(|value| out.extend(value.to_le_bytes())),
        TensorType::F16 => row.iter().for_each(|value| out.extend(f16_from_f32(*value).to_le_bytes())),
        TensorType::BF16 => row.iter().for_each(|value| out.extend(bf16_from_f32(*value).to_le_bytes())),
        TensorType::Q8_0 => blocks(row).for_each(|block| quantize_q8_0(block, out)),
        TensorType::Q4_0 => blocks(row).for_each(|block| quantize_q4_0(block, out)),
        TensorType::Q4K => blocks(row).for_each(|block| quantize_q4_k(block, out)),
        TensorType::Q6K => blocks(row).for_each(|block| quantize_q6_k(block, out)),
    }
    assert_eq!(out.len(), size);
}

/// Decodes a row into `out`. Panics if the sizes disagree.
pub fn dequantize_row(kind: TensorType, bytes: &[u8], out: &mut [f32]) {
    assert_eq!(bytes.len(), kind.row_size(out.len()));
    let blocks = bytes.chunks_exact(kind.block_size()).zip(out.chunks_exact_mut(kind.block_len()));
    for (block, out) in blocks {
        match kind {
            TensorType::F32 => out[0] = f32::from_le_bytes([block[0], block[1], block[2], block[3]]),
            TensorType::F16 => out[0] = f16_at(block, 0),
            TensorType::BF16 => out[0] = f32::from_le_bytes([0, 0, block[0], block[1]]),
            TensorType::Q8_0 => dequantize_q8_0(block, out),
            TensorType::Q4_0 => dequantize_q4_0(block, out),
            TensorType::Q4K => dequantize_q4_k(block, out),
            TensorType::Q6K => dequantize_q6_k(block, out),
        }
    }
}

fn blocks<const N: usize>(row: &[f32]) -> impl Iterator<Item = &[f32; N]> {
    row.as_chunks().0.iter()
}

/// Where dividing by a scale of zero would be asked for, everything becomes zero instead.
fn inverse(scale: f32) -> f32 {
    if scale == 0.0 { 0.0 } else { 1.0 / scale }
}

fn greatest_magnitude(values: &[f32]) -> f32 {
    values
        .iter()
        .fold(0.0, |greatest: f32, value| if value.abs() > greatest.abs() { *value } else { greatest })
}

fn quantize_q8_0(block: &[f32; 32], out: &mut Vec<u8>) {
    let scale = greatest_magnitude(block).abs() / 127.0;
    let to_quant = inverse(scale);
    out.extend(f16_from_f32(scale).to_le_bytes());
    out.extend(block.map(|value| round(value * to_quant) as i8 as u8));
}

fn dequantize_q8_0(block: &[u8], out: &mut [f32]) {
    let scale = f16_at(block, 0);
    for (out, quant) in out.iter_mut().zip(&block[2..]) {
        *out = scale * f32::from(*quant as i8);
    }
}

fn quantize_q4_0(block: &[f32; 32], out: &mut Vec<u8>) {
    let scale = greatest_magnitude(block) / -8.0;
    let to_quant = inverse(scale);
    out.extend(f16_from_f32(scale).to_le_bytes());
    let quant = |value: f32| ((value * to_quant + 8.5) as u8).min(15);
    out.extend((0..16).map(|index| quant(block[index]) | quant(block[index + 16]) << 4));
}

fn dequantize_q4_0(block: &[u8], out: &mut [f32]) {
    let scale = f16_at(block, 0);
    for (index, byte) in block[2..].iter().enumerate() {
        out[index] = scale * (f32::from(byte & 15) - 8.0);
        out[index + 16] = scale * (f32::from(byte >> 4) - 8.0);
    }
}

fn quantize_q4_k(block: &[f32; 256], out: &mut Vec<u8>) {
    let mut scales = [0.0; 8];
    let mut depths = [0.0; 8];
    for (index, part) in block.chunks_exact(32).enumerate() {
        let least = part.iter().fold(0.0, |a: f32, b| a.min(*b));
        let greatest = part.iter().fold(0.0, |a: f32, b| a.max(*b));
        scales[index] = (greatest - least) / 15.0;
        depths[index] = -least;
    }
    let scale = f16_from_f32(scales.iter().fold(0.0, |a: f32, b| a.max(*b)) / 63.0);
    let depth = f16_from_f32(depths.iter().fold(0.0, |a: f32, b| a.max(*b)) / 63.0);
    let (scale_f32, depth_f32) = (f32_from_f16(scale), f32_from_f16(depth));
    let six_bits = |value: f32, unit: f32| round(value * inverse(unit)).clamp(0.0, 63.0) as u8;
    let scales = scales.map(|value| six_bits(value, scale_f32));
    let depths = depths.map(|value| six_bits(value, depth_f32));

    out.extend(scale.to_le_bytes());
    out.extend(depth.to_le_bytes());
    // Pairs 0–3 lie in the low six bits of bytes 0–7; pairs 4–7 are split into a nibble each in
    // bytes 8–11 and the top two bits of bytes 0–7.
    let mut packed = [0; 12];
    for index in 0..4 {
        packed[index] = scales[index] | scales[index + 4] >> 4 << 6;
        packed[index + 4] = depths[index] | depths[index + 4] >> 4 << 6;
        packed[index + 8] = scales[index + 4] & 15 | depths[index + 4] << 4;
    }
    out.extend(packed);

    let quants = |part: usize| -> [u8; 32] {
        let to_quant = inverse(scale_f32 * f32::from(scales[part]));
        let depth = depth_f32 * f32::from(depths[part]);
        std::array::from_fn(|index| {
            round((block[part * 32 + index] + depth) * to_quant).clamp(0.0, 15.0) as u8
        })
    };
    for pair in 0..4 {
        let (low, high) = (quants(2 * pair), quants(2 * pair + 1));
        out.extend((0..32).map(|index| low[index] | high[index] << 4));
    }
}

fn dequantize_q4_k(block: &[u8], out: &mut [f32]) {
    let (scale, depth) = (f16_at(block, 0), f16_at(block, 2));
    let (packed, quants) = (&block[4..16], &block[16..]);
    for (part, out) in out.chunks_exact_mut(32).enumerate() {
        let (six_scale, six_depth) = if part < 4 {
            (packed[part] & 63, packed[part + 4] & 63)
        } else {
            (
                packed[part + 4] & 15 | packed[part - 4] >> 6 << 4,
                packed[part + 4] >> 4 | packed[part] >> 6 << 4,
            )
        };
        let (scale, depth) = (scale * f32::from(six_scale), depth * f32::from(six_depth));
        let shift = part % 2 * 4;
        for (out, byte) in out.iter_mut().zip(&quants[part / 2 * 32..]) {
            *out = scale * f32::from(byte >> shift & 15) - depth;
        }
    }
}

fn quantize_q6_k(block: &[f32; 256], out: &mut Vec<u8>) {
    let mut scales = [0.0; 16];
    for (scale, part) in scales.iter_mut().zip(block.chunks_exact(16)) {
        *scale = greatest_magnitude(part) / -32.0;
    }
    let scale = f16_from_f32(greatest_magnitude(&scales) / -128.0);
    let unit = f32_from_f16(scale);
    let scales = scales.map(|value| round(value * inverse(unit)).clamp(-128.0, 127.0) as i8);
    let quant = |index: usize| -> u8 {
        let to_quant = inverse(unit * f32::from(scales[index / 16]));
        (round(block[index] * to_quant).clamp(-32.0, 31.0) + 32.0) as u8
    };
    let quants: [u8; 256] = std::array::from_fn(quant);

    // Each half of 128 is four runs of 32: runs 0 and 2 share the first 32 low bytes, runs 1 and 3
    // the next; the upper two bits of all four share one byte.
    for half in quants.chunks_exact(128) {
        out.extend((0..64).map(|index| half[index] & 15 | half[index + 64] << 4));
    }
    for half in quants.chunks_exact(128) {
        out.extend(
            (0..32).map(|index| (0..4).fold(0, |byte, run| byte | half[run * 32 + index] >> 4 << (2 * run))),
        );
    }
    out.extend(scales.map(|scale| scale as u8));
    out.extend(scale.to_le_bytes());
}

fn dequantize_q6_k(block: &[u8], out: &mut [f32]) {
    let (low, rest) = block.split_at(128);
    let (high, rest) = rest.split_at(64);
    let unit = f16_at(rest, 16);
    for (index, out) in out.iter_mut().enumerate() {
        let (half, run, lane) = (index / 128, index / 32 % 4, index % 32);
        let four = low[half * 64 + run % 2 * 32 + lane] >> (run / 2 * 4) & 15;
        let two = high[half * 32 + lane] >> (2 * run) & 3;
        let scale = unit * f32::from(rest[index / 16] as i8);
        *out = scale * (f32::from(four | two << 4) - 32.0);
    }
}

/// Nearest integer, ties to even, for magnitudes under 2²²; `f32::round_ties_even` is a call without
/// SSE4.1, and this is hot.
#[inline]
fn round(value: f32) -> f32 {
    const SHIFT: f32 = 12_582_912.0; // 1.5 · 2²³
    (value + SHIFT) - SHIFT
}

fn f16_at(bytes: &[u8], at: usize) -> f32 {
    f32_from_f16(u16::from_le_bytes([bytes[at], bytes[at + 1]]))
}

/// Rounds to binary16, ties to even; what is too large becomes an infinity.
#[inline]
pub fn f16_from_f32(value: f32) -> u16 {
    let bits = value.to_bits();
    let sign = (bits >> 16 & 0x8000) as u16;
    let magnitude = bits & 0x7fff_ffff;
    let half = if magnitude > 0x7f80_0000 {
        0x7e00
    } else if magnitude >= 0x4780_0000 {
        0x7c00
    } else if magnitude < 0x3880_0000 {
        // Adding one half puts the last bit of a binary16 subnormal in the last bit of the sum.
        (f32::from_bits(magnitude) + 0.5).to_bits() - 0.5f32.to_bits()
    } else {
        let odd = magnitude >> 13 & 1;
        (magnitude - (112 << 23) + 0xfff + odd) >> 13
    };
    sign | half as u16
}

/// Widens binary16 exactly.
#[inline]
pub fn f32_from_f16(half: u16) -> f32 {
    let sign = u32::from(half & 0x8000) << 16;
    let magnitude = u32::from(half & 0x7fff) << 13;
    let value = if magnitude >= 0x7c00 << 13 {
        f32::from_bits(magnitude | 0x7f80_0000)
    } else {
        f32::from_bits(magnitude) * f32::from_bits((127 + 112) << 23)
    };
    f32::from_bits(sign | value.to_bits())
}

fn bf16_from_f32(value: f32) -> u16 {
    let bits = value.to_bits();
    if value.is_nan() {
        return (bits >> 16) as u16 | 0x40;
    }
    ((bits + 0x7fff + (bits >> 16 & 1)) >> 16) as u16
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Rng;
    use proptest::prelude::*;

    /// A second decoder: one element of a block, straight from the layout's description.
    fn element(kind: TensorType, block: &[u8], index: usize) -> f64 {
        let half = |at: usize| half_value(u16::from_le_bytes([block[at], block[at + 1]]));
        match kind {
            TensorType::F32 => f64::from(f32::from_le_bytes(block.try_into().unwrap())),
            TensorType::F16 => half(0),
            TensorType::BF16 => f64::from(f32::from_bits(u32::from_le_bytes([0, 0, block[0], block[1]]))),
            TensorType::Q8_0 => half(0) * f64::from(block[2 + index].cast_signed()),
            TensorType::Q4_0 => {
                let byte = block[2 + index % 16];
                let nibble = if index < 16 { byte % 16 } else { byte / 16 };
                half(0) * (f64::from(nibble) - 8.0)
            }
            TensorType::Q4K => {
                let bit = |at: usize, bit: usize| u32::from(block[4 + at] >> bit & 1);
                let bits = |places: [(usize, usize); 6]| {
                    places
                        .iter()
                        .enumerate()
                        .map(|(power, (at, place))| bit(*at, *place) << power)
                        .sum::<u32>()
                };
                let part = index / 32;
                let (scale, depth) = if part < 4 {
                    let low = |at| bits([(at, 0), (at, 1), (at, 2), (at, 3), (at, 4), (at, 5)]);
                    (low(part), low(part + 4))
                } else {
                    let (at, p) = (part + 4, part - 4);
                    (
                        bits([(at, 0), (at, 1), (at, 2), (at, 3), (p, 6), (p, 7)]),
                        bits([(at, 4), (at, 5), (at, 6), (at, 7), (part, 6), (part, 7)]),
                    )
                };
                let byte = block[16 + index / 64 * 32 + index % 32];
                let nibble = if index % 64 < 32 { byte % 16 } else { byte / 16 };
                half(0) * f64::from(scale) * f64::from(nibble) - half(2) * f64::from(depth)
            }
            TensorType::Q6K => {
                let (n, l) = (index / 128, index % 32);
                let (low, high) = match index % 128 / 32 {
                    0 => (block[64 * n + l] % 16, block[128 + 32 * n + l] % 4),
                    1 => (block[64 * n + 32 + l] % 16, block[128 + 32 * n + l] / 4 % 4),
                    2 => (block[64 * n + l] / 16, block[128 + 32 * n + l] / 16 % 4),
                    _ => (block[64 * n + 32 + l] / 16, block[128 + 32 * n + l] / 64),
                };
                let quant = f64::from(low) + 16.0 * f64::from(high) - 32.0;
                half(208) * f64::from(block[192 + index / 16].cast_signed()) * quant
            }
        }
    }

    fn half_value(half: u16) -> f64 {
        let sign = if half >> 15 == 1 { -1.0 } else { 1.0 };
        let fraction = f64::from(half & 0x3ff) / 1024.0;
        match half >> 10 & 31 {
            0 => sign * fraction * 2f64.powi(-14),
            31 if fraction == 0.0 => sign * f64::INFINITY,
            31 => f64::NAN,
            exponent => sign * (1.0 + fraction) * 2f64.powi(i32::from(exponent) - 15),
        }
    }

    /// Greatest error allowed, as a part of the block's greatest magnitude.
    fn tolerance(kind: TensorType) -> f32 {
        match kind {
            TensorType::F32 => 0.0,
            TensorType::F16 => 1.0 / 2048.0,
            TensorType::BF16 => 1.0 / 256.0,
            TensorType::Q8_0 => 0.5 / 127.0 + 1.0 / 1024.0,
            TensorType::Q4_0 => 1.01 / 8.0,
            // Half a step of a range of two, plus the six-bit scale's and depth's own roundings.
            TensorType::Q4K => 1.0 / 15.0 + 1.5 / 63.0,
            TensorType::Q6K => 1.01 / 32.0 + 0.5 / 128.0,
        }
    }

    fn check(kind: TensorType, row: &[f32]) {
        let mut bytes = Vec::new();
        quantize_row(kind, row, &mut bytes);
        assert_eq!(bytes.len(), kind.row_size(row.len()));
        let mut decoded = vec![f32::NAN; row.len()];
        dequantize_row(kind, &bytes, &mut decoded);
        for (at, block) in bytes.chunks_exact(kind.block_size()).enumerate() {
            let values = &row[at * kind.block_len()..][..kind.block_len()];
            let magnitude = values.iter().fold(0f32, |a, b| a.max(b.abs()));
            for (index, value) in values.iter().enumerate() {
                let decoded = decoded[at * kind.block_len() + index];
                let second = element(kind, block, index);
                let rounding = 1e-6 * f64::from(magnitude);
                assert!(
                    (f64::from(decoded) - second).abs() <= rounding,
                    "{kind:?} {index}: {decoded} {second}"
                );
                let error = (decoded - value).abs();
                assert!(error <= tolerance(kind) * magnitude + 1e-7, "{kind:?} {index}: {value} {decoded}");
            }
        }
    }

    proptest! {
        #[test]
        fn rows_survive(seed: u64, blocks in 1usize..4, log_scale in 0i32..8) {
            let mut rng = Rng::keyed(&[seed]);
            let scale = 2f32.powi(log_scale);
            // Large enough that f16 scales are not subnormal. Blocks of very different loudness, some of one sign only.
            let row: Vec<f32> = (0..blocks * 256)
                .map(|at| match (seed as usize + at / 32) % 4 {
                    0 => rng.bell() * scale,
                    1 => rng.bell().abs() * scale,
                    2 => -rng.bell().abs() * 0.05 * scale,
                    _ => 0.3 * rng.bell() * scale,
                })
                .collect();
            prop_assert!(row.iter().any(|value| *value != 0.0));
            TensorType::ALL.into_iter().for_each(|kind| check(kind, &row));
        }
    }

    #[test]
    fn zeros_and_lone_values_survive() {
        for kind in TensorType::ALL {
            check(kind, &[0.0; 512]);
            for (at, value) in [(0, 1.0), (255, -3.0), (300, 1e-3)] {
                let mut row = [0.0; 512];
                row[at] = value;
                check(kind, &row);
            }
        }
    }

    #[test]
    fn q8_0_bytes_are_ggmls() {
        let mut row = [0.0; 32];
        (row[0], row[1], row[31]) = (127.0, -64.0, 2.0);
        let mut bytes = Vec::new();
        quantize_row(TensorType::Q8_0, &row, &mut bytes);
        let mut expected = [0u8; 34];
        (expected[1], expected[2], expected[3], expected[33]) = (0x3c, 127, 0xc0, 2);
        assert_eq!(bytes, expected);
    }

    #[test]
    fn halves_convert_exactly() {
        for half in 0..=u16::MAX {
            let value = f32_from_f16(half);
            let expected = half_value(half);
            if expected.is_nan() {
                assert!(value.is_nan() && f32_from_f16(f16_from_f32(value)).is_nan());
            } else {
                assert_eq!(f64::from(value), expected);
                assert_eq!(f16_from_f32(value), half);
            }
        }
    }

    #[test]
    fn halves_round_to_even() {
        for low in (0..0x7bffu16).step_by(7) {
            let (a, b) = (half_value(low), half_value(low + 1));
            let middle = ((a + b) / 2.0) as f32; // exact: one more bit than a half has
            let even = if low % 2 == 0 { low } else { low + 1 };
            assert_eq!(f16_from_f32(middle), even);
            assert_eq!(f16_from_f32(-middle), even | 0x8000);
            assert_eq!(f16_from_f32(middle.next_up()), low + 1);
            assert_eq!(f16_from_f32(middle.next_down()), low);
        }
        assert_eq!(f16_from_f32(65_519.0), 0x7bff);
        assert_eq!(f16_from_f32(65_520.0), 0x7c00);
    }
}
