//! Weight formats: from the bytes of a GGUF tensor row to codes and scales.
//!
//! In:     the bytes of one row.
//! Out:    floats, or blocks of 32 integer codes with their scales.
//! Touches: nothing.
//! Holds:  elements come out in the order of the row, whatever the order of the bits.
//! Absent: packing for speed, and formats not in A-2.

use crate::bits::{bf16_to_f32, f16_to_f32};

/// A weight format of A-2, named as in GGUF.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(non_camel_case_types)]
pub enum Format {
    ///
    F32,
    ///
    F16,
    ///
    BF16,
    ///
    Q8_0,
    ///
    Q4_0,
    ///
    Q4_K,
    ///
    Q6_K,
}

impl Format {
    /// Every format, for tests that go through them all.
    pub const ALL: [Format; 7] =
        [Format::F32, Format::F16, Format::BF16, Format::Q8_0, Format::Q4_0, Format::Q4_K, Format::Q6_K];

    /// The format of a GGUF tensor type number; `None` for a type not in A-2.
    pub fn from_gguf(number: u32) -> Option<Format> {
        match number {
            0 => Some(Format::F32),
            1 => Some(Format::F16),
            2 => Some(Format::Q4_0),
            8 => Some(Format::Q8_0),
            12 => Some(Format::Q4_K),
            14 => Some(Format::Q6_K),
            30 => Some(Format::BF16),
            _ => None,
        }
    }

    /// (elements, bytes) of one block.
    pub fn block(self) -> (usize, usize) {
        match self {
            Format::F32 => (1, 4),
            Format::F16 | Format::BF16 => (1, 2),
            Format::Q8_0 => (32, 34),
            Format::Q4_0 => (32, 18),
            Format::Q4_K => (256, 144),
            Format::Q6_K => (256, 210),
        }
    }

    /// Bytes of a row of so many elements. Panics unless these are whole blocks.
    pub fn row_bytes(self, elements: usize) -> usize {
        let (block_elements, block_bytes) = self.block();
        assert!(elements.is_multiple_of(block_elements), "{elements} elements are not whole {self:?} blocks");
        elements / block_elements * block_bytes
    }
}

/// 32 consecutive elements of a quantised row.
#[derive(Clone, Debug, PartialEq)]
pub struct Block {
    /// The integers `w` of A-2 (for Q4_K the unsigned nibbles `n`).
    pub codes: [i8; 32],
    /// What turns codes into values.
    pub scale: Scale,
}

/// The scales of one [`Block`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Scale {
    /// Q8_0, Q4_0: value `w·d`.
    Plain {
        /// `d`
        d: f32,
    },
    /// Q4_K: value `sw·n − mw`.
    Minimum {
        /// `sw = d·sc`
        sw: f32,
        /// `mw = dmin·mn`
        mw: f32,
    },
    /// Q6_K: value `(d·sc)·w`, with one `sc` for each half of 16 elements.
    Halves {
        /// `d`
        d: f32,
        /// `sc` of the two halves
        sc: [i8; 2],
    },
}

/// A row of a weight matrix, unpacked.
#[derive(Clone, Debug, PartialEq)]
pub enum Row {
    /// the values.
    Floats(Vec<f32>),
    ///
    Blocks(Vec<Block>),
}

/// Unpacks a row. Panics unless the bytes are whole blocks.
pub fn decode(format: Format, bytes: &[u8]) -> Row {
    let (_, block_bytes) = format.block();
    assert!(bytes.len().is_multiple_of(block_bytes), "{} bytes are not whole {format:?} blocks", bytes.len());
    let blocks = bytes.chunks_exact(block_bytes);
    match format {
        Format::F32 => Row::Floats(blocks.map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect()),
        Format::F16 => Row::Floats(blocks.map(|b| f16_to_f32(half(b, 0))).collect()),
        Format::BF16 => Row::Floats(blocks.map(|b| bf16_to_f32(half(b, 0))).collect()),
        Format::Q8_0 => Row::Blocks(blocks.map(decode_q8_0).collect()),
        Format::Q4_0 => Row::Blocks(blocks.map(decode_q4_0).collect()),
        Format::Q4_K => Row::Blocks(blocks.flat_map(decode_q4_k).collect()),
        Format::Q6_K => Row::Blocks(blocks.flat_map(decode_q6_k).collect()),
    }
}

/// The values of a row, as the embedding uses them.
pub fn values(format: Format, bytes: &[u8]) -> Vec<f32> {
    let blocks = match decode(format, bytes) {
        Row::Floats(values) => return values,
        Row::Blocks(blocks) => blocks,
    };
    let mut values = Vec::new();
    for block in &blocks {
        for (e, &code) in block.codes.iter().enumerate() {
            let w = f32::from(code);
            values.push(match block.scale {
                Scale::Plain { d } => w * d,
                Scale::Minimum { sw, mw } => sw * w - mw,
                Scale::Halves { d, sc } => (d * f32::from(sc[e / 16])) * w,
            });
        }
    }
    values
}

/// whether every stored scale and float of a row is finite.
pub fn is_finite(format: Format, bytes: &[u8]) -> bool {
    let (_, block_bytes) = format.block();
    bytes.chunks_exact(block_bytes).all(|b| match format {
        Format::F32 => f32::from_le_bytes([b[0], b[1], b[2], b[3]]).is_finite(),
        Format::F16 | Format::Q8_0 | Format::Q4_0 => f16_to_f32(half(b, 0)).is_finite(),
        Format::BF16 => bf16_to_f32(half(b, 0)).is_finite(),
        Format::Q4_K => f16_to_f32(half(b, 0)).is_finite() && f16_to_f32(half(b, 2)).is_finite(),
        Format::Q6_K => f16_to_f32(half(b, 208)).is_finite(),
    })
}

/// The 16 bits at a byte offset, little-endian.
fn half(bytes: &[u8], offset: usize) -> u16 {
    u16::from_le_bytes([bytes[offset], bytes[offset + 1]])
}

///
fn decode_q8_0(bytes: &[u8]) -> Block {
    let mut codes = [0; 32];
    for (code, &byte) in codes.iter_mut().zip(&bytes[2..]) {
        *code = byte as i8;
    }
    Block { codes, scale: Scale::Plain { d: f16_to_f32(half(bytes, 0)) } }
}

///
fn decode_q4_0(bytes: &[u8]) -> Block {
    let mut codes = [0; 32];
    for (j, &byte) in bytes[2..].iter().enumerate() {
        codes[j] = (byte & 15) as i8 - 8;
        codes[j + 16] = (byte >> 4) as i8 - 8;
    }
    Block { codes, scale: Scale::Plain { d: f16_to_f32(half(bytes, 0)) } }
}

///
fn decode_q4_k(bytes: &[u8]) -> [Block; 8] {
    let d = f16_to_f32(half(bytes, 0));
    let dmin = f16_to_f32(half(bytes, 2));
    let c = &bytes[4..16];
    let nibbles = &bytes[16..144];
    std::array::from_fn(|s| {
        let (sc, mn) = if s < 4 {
            (c[s] & 63, c[s + 4] & 63)
        } else {
            ((c[s + 4] & 15) | (c[s - 4] >> 6) << 4, (c[s + 4] >> 4) | (c[s] >> 6) << 4)
        };
        let own = &nibbles[32 * (s / 2)..][..32];
        let codes = std::array::from_fn(|e| (if s % 2 == 0 { own[e] & 15 } else { own[e] >> 4 }) as i8);
        Block { codes, scale: Scale::Minimum { sw: d * f32::from(sc), mw: dmin * f32::from(mn) } }
    })
}

///
fn decode_q6_k(bytes: &[u8]) -> [Block; 8] {
    let d = f16_to_f32(half(bytes, 208));
    let sc = &bytes[192..208];
    let mut codes = [0_i8; 256];
    for h in 0..2 {
        let low = &bytes[64 * h..];
        let high = &bytes[128 + 32 * h..];
        for l in 0..32 {
            let own = &mut codes[128 * h + l..];
            own[0] = (low[l] & 15 | (high[l] & 3) << 4) as i8 - 32;
            own[32] = (low[l + 32] & 15 | (high[l] >> 2 & 3) << 4) as i8 - 32;
            own[64] = (low[l] >> 4 | (high[l] >> 4 & 3) << 4) as i8 - 32;
            own[96] = (low[l + 32] >> 4 | (high[l] >> 6 & 3) << 4) as i8 - 32;
        }
    }
    std::array::from_fn(|b| Block {
        codes: std::array::from_fn(|e| codes[32 * b + e]),
        scale: Scale::Halves { d, sc: [sc[2 * b] as i8, sc[2 * b + 1] as i8] },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: [u8; 2] = [0x00, 0x3c];
    const HALF: [u8; 2] = [0x00, 0x38];

    #[test]
    fn floats_are_themselves() {
        assert_eq!(values(Format::F32, &(-1.5_f32).to_le_bytes()), [-1.5]);
        assert_eq!(values(Format::F16, &[0x00, 0x3c, 0x00, 0xb8]), [1.0, -0.5]);
        assert_eq!(values(Format::BF16, &[0x80, 0x3f, 0x40, 0xc0]), [1.0, -3.0]);
    }

    #[test]
    fn q8_0_and_q4_0_by_hand() {
        let mut q8 = HALF.to_vec();
        q8.extend((0..32).map(|j| if j == 31 { 0x80 } else { j as u8 }));
        let row = values(Format::Q8_0, &q8);
        assert_eq!((row[0], row[1], row[30], row[31]), (0.0, 0.5, 15.0, -64.0));

        let mut q4 = HALF.to_vec();
        q4.extend((0..16).map(|j| j as u8 | (15 - j as u8) << 4));
        let row = values(Format::Q4_0, &q4);
        assert_eq!((row[0], row[8], row[15]), (-4.0, 0.0, 3.5));
        assert_eq!((row[16], row[23], row[31]), (3.5, 0.0, -4.0));
    }

    /// Packs sc[s], mn[s] as in and checks that they come back.
    #[test]
    fn q4_k_by_hand() {
        let sc: [u8; 8] = [1, 2, 31, 63, 32, 17, 48, 63];
        let mn: [u8; 8] = [63, 0, 5, 9, 16, 33, 62, 1];
        let mut c = [0_u8; 12];
        for s in 0..4 {
            c[s] = sc[s] | sc[s + 4] >> 4 << 6;
            c[s + 4] = mn[s] | mn[s + 4] >> 4 << 6;
            c[s + 8] = sc[s + 4] & 15 | (mn[s + 4] & 15) << 4;
        }
        let mut bytes = [ONE, HALF].concat();
        bytes.extend(c);
        bytes.extend((0..128).map(|i| (i as u8 % 16) | (i as u8 / 16) << 4));
        let Row::Blocks(blocks) = decode(Format::Q4_K, &bytes) else { panic!("Q4_K is quantised") };
        for s in 0..8 {
            let expected = Scale::Minimum { sw: f32::from(sc[s]), mw: f32::from(mn[s]) * 0.5 };
            assert_eq!(blocks[s].scale, expected, "sub-block {s}");
            for e in 0..32 {
                let byte = 32 * (s / 2) + e;
                let nibble = if s % 2 == 0 { byte % 16 } else { byte / 16 };
                assert_eq!(blocks[s].codes[e], nibble as i8, "sub-block {s} element {e}");
            }
        }
        assert_eq!(values(Format::Q4_K, &bytes)[3], 3.0 - 31.5);
    }

    /// Writes every code at the place gives it, starting from the elements.
    #[test]
    fn q6_k_by_hand() {
        let code = |e: usize| (e * 7 % 64) as u8;
        let mut bytes = vec![0_u8; 210];
        for e in 0..256 {
            let (h, quarter, l) = (e / 128, e % 128 / 32, e % 32);
            let low = 64 * h + l + if quarter % 2 == 1 { 32 } else { 0 };
            bytes[low] |= (code(e) & 15) << if quarter < 2 { 0 } else { 4 };
            bytes[128 + 32 * h + l] |= (code(e) >> 4) << (2 * quarter);
        }
        for (b, byte) in bytes[192..208].iter_mut().enumerate() {
            *byte = (b as i32 * 9 - 70) as u8;
        }
        bytes[208..].copy_from_slice(&HALF);
        let row = values(Format::Q6_K, &bytes);
        for (e, value) in row.iter().enumerate() {
            let sc = (e / 16) as f32 * 9.0 - 70.0;
            assert_eq!(*value, 0.5 * sc * (f32::from(code(e)) - 32.0), "element {e}");
        }
    }

    #[test]
    fn non_finite_scales_and_floats_are_found() {
        for format in Format::ALL {
            let mut bytes = vec![0_u8; format.row_bytes(256)];
            assert!(is_finite(format, &bytes), "{format:?}");
            let last = format.block().1;
            let (at, pattern): (usize, &[u8]) = match format {
                Format::F32 => (2, &[0x80, 0x7f]),
                Format::BF16 => (0, &[0xc0, 0xff]),
                Format::Q6_K => (208, &[0x01, 0x7c]),
                Format::Q4_K => (2, &[0x00, 0xfc]),
                _ => (0, &[0x00, 0x7c]),
            };
            let block = bytes.len() - last;
            bytes[block + at..block + at + 2].copy_from_slice(pattern);
            assert!(!is_finite(format, &bytes), "{format:?}");
        }
    }
}
