//! binary16 and bfloat16: exact widening, and rounding to nearest even.
//!
//! In:     bit patterns.
//! Out:    bit patterns.
//! Holds:  the definition; vector backends use the processor's own conversions and are compared with it.
//! Absent: arithmetic in half precision. There is none.

/// 2⁻²⁴, the spacing of binary16 subnormals.
const SUBNORMAL_STEP: f32 = f32::from_bits((127 - 24) << 23);

/// The f32 equal to a binary16; a NaN stays one.
pub fn widen(half: u16) -> f32 {
    let sign = u32::from(half >> 15) << 31;
    let exponent = u32::from(half >> 10 & 31);
    let fraction = u32::from(half & 1023);
    let magnitude = match exponent {
        0 => (fraction as f32 * SUBNORMAL_STEP).to_bits(),
        31 => 0x7f80_0000 | fraction << 13,
        _ => (exponent + 127 - 15) << 23 | fraction << 13,
    };
    f32::from_bits(sign | magnitude)
}

/// The binary16 nearest to an f32, ties to even; overflow gives infinity, a NaN gives a NaN.
pub fn narrow(x: f32) -> u16 {
    let bits = x.to_bits();
    let sign = (bits >> 16 & 0x8000) as u16;
    let magnitude = bits & 0x7fff_ffff;
    const INFINITY: u32 = 0x7f80_0000;
    const OVERFLOW: u32 = (127 + 16) << 23;
    const NORMAL: u32 = (127 - 14) << 23;
    let narrowed = if magnitude > INFINITY {
        0x7e00
    } else if magnitude >= OVERFLOW {
        0x7c00
    } else if magnitude < NORMAL {
        // A whole number of subnormal steps; 1024 of them are the least normal number, as they should be.
        (f32::from_bits(magnitude) / SUBNORMAL_STEP).round_ties_even() as u16
    } else {
        // Adding half a unit less the tie's parity carries into the exponent, up to infinity itself.
        let rounded = magnitude + 0x0fff + (magnitude >> 13 & 1);
        ((rounded - ((127 - 15) << 23)) >> 13) as u16
    };
    sign | narrowed
}

/// Whether a binary16 is neither an infinity nor a NaN.
pub fn is_finite(half: u16) -> bool {
    half & 0x7c00 != 0x7c00
}

/// The f32 equal to a bfloat16.
pub fn widen_bf16(bits: u16) -> f32 {
    f32::from_bits(u32::from(bits) << 16)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The value of a finite half by the textbook: (−1)^s · 2^(e−25) · (1024 + f), or 2^−24 · f.
    fn value(half: u16) -> f64 {
        let (e, f) = (i32::from(half >> 10 & 31), f64::from(half & 1023));
        let magnitude = if e == 0 { f * 2f64.powi(-24) } else { (1024.0 + f) * 2f64.powi(e - 25) };
        if half >> 15 == 1 { -magnitude } else { magnitude }
    }

    #[test]
    fn every_half_widens_to_its_value_and_back() {
        for half in 0..=u16::MAX {
            if is_finite(half) {
                assert_eq!(f64::from(widen(half)), value(half), "{half:04x}");
                assert_eq!(widen(half).is_sign_negative(), half >> 15 == 1);
                assert_eq!(narrow(widen(half)), half);
            } else if half & 1023 == 0 {
                assert_eq!(widen(half), if half >> 15 == 1 { f32::NEG_INFINITY } else { f32::INFINITY });
                assert_eq!(narrow(widen(half)), half);
            } else {
                assert!(widen(half).is_nan());
                assert!(!is_finite(narrow(widen(half))));
            }
        }
    }

    /// Between neighbouring halves: below the midpoint down, above it up, on it to the even one.
    #[test]
    fn every_boundary_rounds_to_nearest_even() {
        for half in 0..0x7c00u16 {
            let next = half + 1;
            let upper = if next == 0x7c00 { 65536.0 } else { value(next) };
            let middle = ((value(half) + upper) / 2.0) as f32;
            assert_eq!(f64::from(middle), (value(half) + upper) / 2.0, "midpoints are exact");
            let even = if half % 2 == 0 { half } else { next };
            for (x, expected) in [
                (f32::from_bits(middle.to_bits() - 1), half),
                (middle, even),
                (f32::from_bits(middle.to_bits() + 1), next),
            ] {
                assert_eq!(narrow(x), expected, "{x:e}");
                assert_eq!(narrow(-x), expected | 0x8000, "{x:e}");
            }
        }
        assert_eq!(narrow(f32::MAX), 0x7c00);
        assert_eq!(narrow(f32::from_bits(1)), 0);
        assert_eq!(narrow(-0.0), 0x8000);
    }

    #[test]
    fn bfloat16_widens_by_its_bits() {
        assert_eq!(widen_bf16(0x3f80), 1.0);
        assert_eq!(widen_bf16(0xc000), -2.0);
        assert_eq!(widen_bf16(0x0001).to_bits(), 0x0001_0000);
    }
}
