//! Seeded numbers for cases: ordinary ones, and those at which implementations come apart.

use surety_reference::weights::Format;

/// A generator of numbers; the same seed gives the same numbers.
pub struct Noise(u64);

impl Noise {
    pub fn new(seed: u64) -> Noise {
        Noise(seed)
    }

    /// SplitMix64.
    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, bound: usize) -> usize {
        (self.bits() % bound as u64) as usize
    }

    pub fn pick<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len())]
    }

    /// From −1 to 1.
    pub fn unit(&mut self) -> f32 {
        (self.bits() >> 40) as f32 / 8388608.0 - 1.0
    }

    /// Any finite binary32, each bit pattern alike.
    pub fn finite(&mut self) -> f32 {
        loop {
            let value = f32::from_bits(self.bits() as u32);
            if value.is_finite() {
                return value;
            }
        }
    }

    /// Any finite binary16, each bit pattern alike.
    fn finite_half(&mut self) -> u16 {
        loop {
            let half = self.bits() as u16;
            if half & 0x7c00 != 0x7c00 {
                return half;
            }
        }
    }

    /// A row of floats: 32 at a time of one style.
    pub fn row(&mut self, count: usize, temper: Temper) -> Vec<f32> {
        let mut row = Vec::new();
        while row.len() < count {
            let style = match temper {
                Temper::Calm => 0,
                Temper::Any if self.below(3) > 0 => 0,
                Temper::Any => self.below(9),
                Temper::Wild => self.below(12),
            };
            let scale = self.power_of_two(-6, 6);
            let small = self.pick(&[1e-40, 3e-37, 3.8e-37, 5e-37, 1e-36, 1e-30]);
            let block: [f32; 32] = std::array::from_fn(|e| match style {
                0 => self.unit() * scale,
                1 => self.unit() * self.power_of_two(-30, 30),
                2 => self.pick(&[0.0, -0.0]),
                3 => self.pick(&[1.0, -1.0, 0.0, -0.0, 0.5, -0.5, 127.0, -127.0, 65504.0, 1e-3]) * scale,
                // Every x·r is half an integer, up to rounding: ties of.
                4 if e == 5 => 127.0 * scale,
                4 => (self.below(254) as f32 - 126.5) * scale,
                5 if e == 17 => self.pick(&[1e4, -3e10, 1e20]),
                5 => self.unit() * 1e-3,
                // Around the least block with a finite reciprocal scale, 127 ÷ 3.4e38, and among the subnormals.
                6 => self.unit() * small,
                7 => self.unit() * self.pick(&[1e15, 1e18, 1e20]),
                8 => (self.below(17) as f32 - 8.0) * 0.25,
                9 => self.finite(),
                10 => self.pick(&[f32::MAX, f32::MIN, 1e38, f32::MIN_POSITIVE, f32::from_bits(1), -0.0]),
                _ => match self.below(40) {
                    0 => self.pick(&[f32::NAN, f32::INFINITY, f32::NEG_INFINITY]),
                    _ => self.unit(),
                },
            });
            row.extend(block);
        }
        row.truncate(count);
        row
    }

    fn power_of_two(&mut self, low: i32, high: i32) -> f32 {
        let exponent = low + self.below((high - low) as usize) as i32;
        f32::from_bits(((exponent + 127) as u32) << 23)
    }

    /// The bytes of a weight row, all of its scales and floats finite.
    pub fn weight_row(&mut self, format: Format, columns: usize) -> Vec<u8> {
        let mut row = Vec::new();
        for _ in 0..columns / format.block().0 {
            let mut block = self.codes(format.block().1);
            match format {
                Format::F32 => {
                    let value = if self.below(50) == 0 { self.finite() } else { self.unit() };
                    block.copy_from_slice(&value.to_le_bytes());
                }
                Format::BF16 => {
                    let value = if self.below(50) == 0 { self.finite() } else { self.unit() };
                    block.copy_from_slice(&value.to_le_bytes()[2..]);
                }
                Format::F16 | Format::Q8_0 | Format::Q4_0 => self.put_half(&mut block, 0),
                Format::Q4_K => {
                    self.put_half(&mut block, 0);
                    self.put_half(&mut block, 2);
                }
                Format::Q6_K => self.put_half(&mut block, 208),
            }
            row.extend(block);
        }
        row
    }

    /// Bytes without order, or all alike at an end of their range.
    fn codes(&mut self, count: usize) -> Vec<u8> {
        match self.below(8) {
            0 => vec![self.pick(&[0x00, 0x7f, 0x80, 0xff, 0x0f, 0xf0]); count],
            1 => (0..count).map(|_| self.pick(&[0x80, 0x7f, 0x81, 0x00])).collect(),
            _ => (0..count).map(|_| self.bits() as u8).collect(),
        }
    }

    fn put_half(&mut self, block: &mut [u8], at: usize) {
        let half = match self.below(10) {
            // 2⁻¹⁴ to 1, of either sign.
            0..=6 => ((self.below(14) + 1) as u16 * 1024) | (self.bits() as u16 & 0x83ff),
            7 => self.pick(&[0x0000, 0x8000, 0x0001, 0x83ff, 0x7bff, 0xfbff, 0x0400, 0x3c00]),
            _ => self.finite_half(),
        };
        block[at..at + 2].copy_from_slice(&half.to_le_bytes());
    }
}

/// How far a row strays from ordinary activations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Temper {
    /// Numbers of ordinary size.
    Calm,
    /// Also zeros of both signs, ties, spikes, and sizes from subnormal to 10²⁰.
    Any,
    /// Also the greatest finite values, any bit pattern, NaN and infinities.
    Wild,
}
