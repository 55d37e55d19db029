//! Test data: numbers from a documented integer generator, the same on every machine.
//!
//! In:     a seed.
//! Out:    integers, f32 of chosen character, and weight rows of every format.
//! Holds:  a seed gives one sequence for ever: the golden vectors depend on it.
//! Absent: ambient randomness.

use crate::format::Format;
use crate::half;

/// SplitMix64 (Steele, Lea, Flood 2014): state += 0x9e3779b97f4a7c15, then two xor-shift-multiplies.
pub(crate) struct Generator(u64);

impl Generator {
    pub(crate) fn new(seed: u64) -> Generator {
        Generator(seed)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// An integer below `bound`, from the high 32 bits.
    pub(crate) fn below(&mut self, bound: usize) -> usize {
        (((self.next() >> 32) * bound as u64) >> 32) as usize
    }

    /// About normal with deviation `scale`: a sum of four 24-bit uniforms about zero, exact before the product.
    pub(crate) fn normal(&mut self, scale: f32) -> f32 {
        let sum: i64 = (0..4).map(|_| (self.next() >> 40) as i64 - (1 << 23)).sum();
        (sum as f32 / (1 << 24) as f32) * (scale * 1.7320508)
    }

    /// A finite f32 with any bits.
    pub(crate) fn any_finite(&mut self) -> f32 {
        loop {
            let x = f32::from_bits(self.next() as u32);
            if x.is_finite() {
                return x;
            }
        }
    }

    /// A row of activations of one of several characters: plain, spiky, sparse, tied, tiny, huge, zero.
    pub(crate) fn activations(&mut self, out: &mut [f32]) {
        let character = self.below(12);
        let scale = [1.0, 0.02, 30.0][self.below(3)];
        for x in out.iter_mut() {
            *x = match character {
                0 => {
                    if self.below(40) == 0 {
                        self.normal(60.0 * scale)
                    } else {
                        self.normal(scale)
                    }
                }
                1 => [0.0, -0.0, self.normal(scale)][self.below(3)],
                // Multiples of a half: with 127 as a block's greatest, every quotient of is one too.
                2 => (self.below(509) as f32 - 254.0) / 2.0,
                3 => f32::from_bits(
                    (self.next() as u32 & 0x8000_0000) | (0x0080_0000 + self.below(1 << 26) as u32),
                ),
                4 => self.normal(1e18),
                5 => self.normal(1e-18),
                6 if self.below(2) == 0 => 0.0,
                7 => [-1.0, 1.0][self.below(2)],
                _ => self.normal(scale),
            };
        }
        if character == 2 {
            out.iter_mut().step_by(32).for_each(|x| *x = 127.0);
        }
    }

    /// A finite binary16 of one of several characters, subnormals and extremes among them.
    fn scale(&mut self, scale: f32) -> u16 {
        let half = match self.below(16) {
            0 => self.below(1024) as u16 | (self.below(2) as u16) << 15,
            1 => [0x0000, 0x8000, 0x7bff, 0xfbff, 0x0001, 0x8001, 0x0400, 0x3c00][self.below(8)],
            _ => half::narrow(self.normal(scale)),
        };
        assert!(half::is_finite(half));
        half
    }

    /// One GGUF row of a matrix. Codes are any bytes, often extremes; scales are about `scale` but sometimes extreme.
    pub(crate) fn weights(&mut self, format: Format, columns: usize, scale: f32, out: &mut Vec<u8>) {
        for _ in 0..columns / format.block_elements() {
            match format {
                Format::F32 => {
                    let w = if self.below(64) == 0 { self.any_finite() * 1e-20 } else { self.normal(scale) };
                    out.extend(w.to_le_bytes());
                }
                Format::F16 => out.extend(self.scale(scale).to_le_bytes()),
                Format::BF16 => out.extend(((self.normal(scale).to_bits() >> 16) as u16).to_le_bytes()),
                _ => {
                    let start = out.len();
                    let bytes = format.block_bytes();
                    let extreme = self.below(24);
                    for _ in 0..bytes {
                        let byte = match extreme {
                            // −128 everywhere in Q8_0, least and greatest codes in the others.
                            0 => 0x80,
                            1 => 0xff,
                            2 => 0x00,
                            3 => [0x80, 0x7f][self.below(2)],
                            _ => self.next() as u8,
                        };
                        out.push(byte);
                    }
                    let scales: &[usize] = match format {
                        Format::Q4_K => &[0, 2],
                        Format::Q6_K => &[208],
                        _ => &[0],
                    };
                    for at in scales {
                        let half = self.scale(scale);
                        out[start + at..start + at + 2].copy_from_slice(&half.to_le_bytes());
                    }
                }
            }
        }
    }

    /// The GGUF rows of a matrix.
    pub(crate) fn matrix(&mut self, format: Format, rows: usize, columns: usize, scale: f32) -> Vec<u8> {
        let mut out = Vec::with_capacity(rows * format.row_bytes(columns));
        (0..rows).for_each(|_| self.weights(format, columns, scale, &mut out));
        out
    }
}
