//! Weight formats: how a row of a matrix is stored in a GGUF file.
//!
//! In:     a format's name or its GGUF type number.
//! Out:    its block geometry, and single rows widened to f32.
//! Holds:  only the formats of A-2 exist here; anything else is refused at the border.
//! Absent: the packed layout the products read. That is `pack`.

use crate::half;
use std::fmt;

/// How the elements of a weight matrix are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(non_camel_case_types, reason = "the field's own names")]
pub enum Format {
    /// binary32.
    F32,
    /// binary16.
    F16,
    /// bfloat16.
    BF16,
    /// 32 int8 and one binary16 scale.
    Q8_0,
    /// 32 nibbles and one binary16 scale.
    Q4_0,
    /// 256 nibbles in 8 sub-blocks with 6-bit scales and minima.
    Q4_K,
    /// 256 six-bit codes in 16 sub-blocks with int8 scales.
    Q6_K,
}

impl Format {
    /// Every format.
    pub const ALL: [Format; 7] =
        [Format::F32, Format::F16, Format::BF16, Format::Q8_0, Format::Q4_0, Format::Q4_K, Format::Q6_K];

    /// Elements in one block; a row is a whole number of blocks.
    pub const fn block_elements(self) -> usize {
        match self {
            Format::F32 | Format::F16 | Format::BF16 => 1,
            Format::Q8_0 | Format::Q4_0 => 32,
            Format::Q4_K | Format::Q6_K => 256,
        }
    }

    /// Bytes of one block in a GGUF file.
    pub const fn block_bytes(self) -> usize {
        match self {
            Format::F32 => 4,
            Format::F16 | Format::BF16 => 2,
            Format::Q8_0 => 34,
            Format::Q4_0 => 18,
            Format::Q4_K => 144,
            Format::Q6_K => 210,
        }
    }

    /// Elements a row's length must be a multiple of to enter a matrix product.
    pub const fn product_elements(self) -> usize {
        match self {
            Format::Q4_K | Format::Q6_K => 256,
            _ => 32,
        }
    }

    /// Bytes of one row of `columns` elements in a GGUF file. Panics if the row is not whole blocks.
    pub const fn row_bytes(self, columns: usize) -> usize {
        assert!(columns.is_multiple_of(self.block_elements()), "a row is a whole number of blocks");
        columns / self.block_elements() * self.block_bytes()
    }

    /// Whether activations are quantised before a product with this format.
    pub const fn is_quantised(self) -> bool {
        !matches!(self, Format::F32 | Format::F16 | Format::BF16)
    }

    /// The name used in GGUF files.
    pub const fn name(self) -> &'static str {
        match self {
            Format::F32 => "F32",
            Format::F16 => "F16",
            Format::BF16 => "BF16",
            Format::Q8_0 => "Q8_0",
            Format::Q4_0 => "Q4_0",
            Format::Q4_K => "Q4_K",
            Format::Q6_K => "Q6_K",
        }
    }

    /// The format with this GGUF type number, if it is one of A-2's.
    pub const fn from_ggml(number: u32) -> Option<Format> {
        Some(match number {
            0 => Format::F32,
            1 => Format::F16,
            2 => Format::Q4_0,
            8 => Format::Q8_0,
            12 => Format::Q4_K,
            14 => Format::Q6_K,
            30 => Format::BF16,
            _ => return None,
        })
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A little-endian u16 at `offset`.
pub(crate) fn u16_at(bytes: &[u8], offset: usize) -> u16 {
    u16::from_le_bytes([bytes[offset], bytes[offset + 1]])
}

/// `w` of element `e` of a `Q8_0` block.
pub(crate) fn q8_0_code(block: &[u8], e: usize) -> i8 {
    block[2 + e] as i8
}

/// `w` of element `e` of a `Q4_0` block.
pub(crate) fn q4_0_code(block: &[u8], e: usize) -> i8 {
    let byte = block[2 + e % 16];
    (if e < 16 { byte & 15 } else { byte >> 4 }) as i8 - 8
}

/// The scale and minimum of sub-block `s` of a `Q4_K` block.
pub(crate) fn q4_k_scale(block: &[u8], s: usize) -> (u8, u8) {
    let c = &block[4..16];
    if s < 4 {
        (c[s] & 63, c[s + 4] & 63)
    } else {
        ((c[s + 4] & 15) | ((c[s - 4] >> 6) << 4), (c[s + 4] >> 4) | ((c[s] >> 6) << 4))
    }
}

/// The nibble of element `e` of a `Q4_K` block.
pub(crate) fn q4_k_nibble(block: &[u8], e: usize) -> u8 {
    let (s, i) = (e / 32, e % 32);
    let byte = block[16 + 32 * (s / 2) + i];
    if s.is_multiple_of(2) { byte & 15 } else { byte >> 4 }
}

/// The 6-bit code of element `e` of a `Q6_K` block.
pub(crate) fn q6_k_code(block: &[u8], e: usize) -> u8 {
    let (h, quarter, l) = (e / 128, e % 128 / 32, e % 32);
    let low = block[64 * h + 32 * (quarter % 2) + l];
    let low = if quarter < 2 { low & 15 } else { low >> 4 };
    let high = block[128 + 32 * h + l] >> (2 * quarter) & 3;
    low | high << 4
}

/// `w` of element `e` of a `Q6_K` block.
pub(crate) fn q6_k_weight(block: &[u8], e: usize) -> i8 {
    q6_k_code(block, e) as i8 - 32
}

/// The scale of elements 16·half … +15 of a `Q6_K` block.
pub(crate) fn q6_k_scale(block: &[u8], half: usize) -> i8 {
    block[192 + half] as i8
}

/// Element `index` of a GGUF block.
///
/// Panics unless `block` is `format.block_bytes()` long and has the element.
pub fn element(format: Format, block: &[u8], index: usize) -> f32 {
    assert_eq!(block.len(), format.block_bytes(), "one block of {format}");
    assert!(index < format.block_elements(), "element {index} of a block of {format}");
    let d = |at: usize| half::widen(u16_at(block, at));
    match format {
        Format::F32 => f32::from_le_bytes([block[0], block[1], block[2], block[3]]),
        Format::F16 => d(0),
        Format::BF16 => half::widen_bf16(u16_at(block, 0)),
        Format::Q8_0 => simple(q8_0_code(block, index), d(0)),
        Format::Q4_0 => simple(q4_0_code(block, index), d(0)),
        Format::Q4_K => {
            let (scale, minimum) = q4_k_scale(block, index / 32);
            let (sw, mw) = (d(0) * f32::from(scale), d(2) * f32::from(minimum));
            with_minimum(q4_k_nibble(block, index), sw, mw)
        }
        Format::Q6_K => of_half(q6_k_weight(block, index), d(208), q6_k_scale(block, index / 16)),
    }
}

/// The value of a `Q8_0` or `Q4_0` weight.
pub(crate) fn simple(w: i8, d: f32) -> f32 {
    f32::from(w) * d
}

/// The value of a `Q4_K` weight.
pub(crate) fn with_minimum(n: u8, sw: f32, mw: f32) -> f32 {
    sw * f32::from(n) - mw
}

/// The value of a `Q6_K` weight.
pub(crate) fn of_half(w: i8, d: f32, scale: i8) -> f32 {
    (d * f32::from(scale)) * f32::from(w)
}

/// Widens one GGUF row into f32.
///
/// Panics unless `row` is `format.row_bytes(out.len())` long.
pub(crate) fn widen_row(format: Format, row: &[u8], out: &mut [f32]) {
    assert_eq!(row.len(), format.row_bytes(out.len()), "a row's bytes and elements agree");
    let blocks = row.chunks_exact(format.block_bytes()).zip(out.chunks_exact_mut(format.block_elements()));
    match format {
        Format::F32 => {
            for (block, out) in blocks {
                out[0] = f32::from_le_bytes([block[0], block[1], block[2], block[3]]);
            }
        }
        Format::F16 => blocks.for_each(|(block, out)| out[0] = half::widen(u16_at(block, 0))),
        Format::BF16 => blocks.for_each(|(block, out)| out[0] = half::widen_bf16(u16_at(block, 0))),
        Format::Q8_0 => {
            for (block, out) in blocks {
                let d = half::widen(u16_at(block, 0));
                for (i, out) in out.iter_mut().enumerate() {
                    *out = simple(q8_0_code(block, i), d);
                }
            }
        }
        Format::Q4_0 => {
            for (block, out) in blocks {
                let d = half::widen(u16_at(block, 0));
                for (i, out) in out.iter_mut().enumerate() {
                    *out = simple(q4_0_code(block, i), d);
                }
            }
        }
        Format::Q4_K => {
            for (block, out) in blocks {
                let (d, dmin) = (half::widen(u16_at(block, 0)), half::widen(u16_at(block, 2)));
                for (s, out) in out.chunks_exact_mut(32).enumerate() {
                    let (scale, minimum) = q4_k_scale(block, s);
                    let (sw, mw) = (d * f32::from(scale), dmin * f32::from(minimum));
                    for (i, out) in out.iter_mut().enumerate() {
                        *out = with_minimum(q4_k_nibble(block, 32 * s + i), sw, mw);
                    }
                }
            }
        }
        Format::Q6_K => {
            for (block, out) in blocks {
                let d = half::widen(u16_at(block, 208));
                for (e, out) in out.iter_mut().enumerate() {
                    *out = of_half(q6_k_weight(block, e), d, q6_k_scale(block, e / 16));
                }
            }
        }
    }
}

/// The first element or scale of a GGUF row that is a NaN or an infinity, as its block's index.
pub(crate) fn non_finite_block(format: Format, row: &[u8]) -> Option<usize> {
    let is_non_finite = |block: &[u8]| match format {
        Format::F32 => !f32::from_le_bytes([block[0], block[1], block[2], block[3]]).is_finite(),
        Format::BF16 => !half::widen_bf16(u16_at(block, 0)).is_finite(),
        Format::F16 | Format::Q8_0 | Format::Q4_0 => !half::is_finite(u16_at(block, 0)),
        Format::Q4_K => !half::is_finite(u16_at(block, 0)) || !half::is_finite(u16_at(block, 2)),
        Format::Q6_K => !half::is_finite(u16_at(block, 208)),
    };
    row.chunks_exact(format.block_bytes()).position(is_non_finite)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::bits;

    #[test]
    fn geometry_is_gguf_s() {
        assert_eq!(Format::Q4_K.row_bytes(4096), 2304);
        assert_eq!(Format::Q6_K.row_bytes(4096), 3360);
        assert_eq!(Format::Q8_0.row_bytes(64), 68);
        for format in Format::ALL {
            let number = (0..64).find(|number| Format::from_ggml(*number) == Some(format));
            assert!(number.is_some(), "{format}");
        }
        assert_eq!(Format::from_ggml(3), None);
    }

    /// Blocks written out by hand from A-2.
    #[test]
    fn rows_widen_as_the_rules_say() {
        let one = 0x3c00u16.to_le_bytes();
        let two = 0x4000u16.to_le_bytes();

        let mut q8 = two.to_vec();
        q8.extend((0..32).map(|i| (i as i8 - 16) as u8));
        let mut out = [0.0; 32];
        widen_row(Format::Q8_0, &q8, &mut out);
        assert_eq!(out, std::array::from_fn(|i| 2.0 * (i as f32 - 16.0)));

        let mut q4 = two.to_vec();
        q4.extend((0..16u8).map(|j| j | (15 - j) << 4));
        widen_row(Format::Q4_0, &q4, &mut out);
        assert_eq!(out[..16], std::array::from_fn::<f32, 16, _>(|j| 2.0 * (j as f32 - 8.0)));
        assert_eq!(out[16..], std::array::from_fn::<f32, 16, _>(|j| 2.0 * (7.0 - j as f32)));

        // Scales 1…8 and minima 9…16 in the twelve bytes: the upper two of the last four hide in the first eight.
        let (scales, minima): ([u8; 8], [u8; 8]) =
            (std::array::from_fn(|s| 41 + 3 * s as u8), std::array::from_fn(|s| 62 - 5 * s as u8));
        let mut q4k = [one, two].concat();
        for s in 0..4 {
            q4k.push(scales[s] | (scales[s + 4] >> 4) << 6);
        }
        for s in 0..4 {
            q4k.push(minima[s] | (minima[s + 4] >> 4) << 6);
        }
        for s in 0..4 {
            q4k.push(scales[s + 4] & 15 | (minima[s + 4] & 15) << 4);
        }
        q4k.extend((0..128u8).map(|i| (i % 16) | (((i / 16 + 3) % 16) << 4)));
        let mut out = [0.0; 256];
        widen_row(Format::Q4_K, &q4k, &mut out);
        for (e, found) in out.iter().enumerate() {
            let (s, i) = (e / 32, e % 32);
            let byte = 32 * (s / 2) + i;
            let nibble = if s % 2 == 0 { byte % 16 } else { (byte / 16 + 3) % 16 };
            let expected = f32::from(scales[s]) * nibble as f32 - 2.0 * f32::from(minima[s]);
            assert_eq!(*found, expected, "{e}");
        }

        // Codes e·5 mod 64, scattered as gathers them.
        let code = |e: usize| (e * 5 % 64) as u8;
        let mut q6k = vec![0u8; 210];
        for e in 0..256 {
            let (h, quarter, l) = (e / 128, e % 128 / 32, e % 32);
            q6k[64 * h + 32 * (quarter % 2) + l] |= (code(e) & 15) << (4 * (quarter / 2));
            q6k[128 + 32 * h + l] |= (code(e) >> 4) << (2 * quarter);
        }
        for (i, scale) in q6k[192..208].iter_mut().enumerate() {
            *scale = (3 * i as i32 - 24) as u8;
        }
        q6k[208..].copy_from_slice(&two);
        widen_row(Format::Q6_K, &q6k, &mut out);
        for (e, found) in out.iter().enumerate() {
            let scale = 3.0 * (e / 16) as f32 - 24.0;
            assert_eq!(*found, (2.0 * scale) * (f32::from(code(e)) - 32.0), "{e}");
        }

        let mut out = [0.0; 2];
        widen_row(Format::F16, &[one, two].concat(), &mut out);
        assert_eq!(out, [1.0, 2.0]);
        widen_row(Format::BF16, &[0x80, 0x3f, 0x00, 0xc0], &mut out);
        assert_eq!(out, [1.0, -2.0]);
        widen_row(Format::F32, &[1.5f32.to_le_bytes(), (-0.0f32).to_le_bytes()].concat(), &mut out);
        assert_eq!(bits(&out), bits(&[1.5, -0.0]));
    }
}
