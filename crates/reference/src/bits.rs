//! binary16 and bfloat16 by integer arithmetic.
//!
//! In:     bit patterns.
//! Out:    bit patterns and the binary32 values they stand for.
//! Touches: nothing.
//! Holds:  widening is exact; rounding is to nearest, ties to even; subnormals are kept.
//! Absent: any conversion instruction.

/// the binary32 of the same value as a binary16.
pub fn f16_to_f32(half: u16) -> f32 {
    let sign = u32::from(half >> 15) << 31;
    let exponent = u32::from(half >> 10) & 31;
    let mantissa = u32::from(half) & 1023;
    let magnitude = match (exponent, mantissa) {
        (0, 0) => 0,
        // Subnormal: mantissa · 2⁻²⁴. Its leading one, at bit `top`, becomes the implicit one.
        (0, _) => {
            let top = 31 - mantissa.leading_zeros();
            (top + 127 - 24) << 23 | (mantissa << (23 - top)) & 0x007f_ffff
        }
        (31, _) => 0x7f80_0000 | mantissa << 13,
        _ => (exponent + 127 - 15) << 23 | mantissa << 13,
    };
    f32::from_bits(sign | magnitude)
}

/// a bfloat16 is the upper half of the binary32 of the same value.
pub fn bf16_to_f32(half: u16) -> f32 {
    f32::from_bits(u32::from(half) << 16)
}

/// the binary16 nearest to a binary32, ties to even, overflow to infinity. A NaN stays some NaN.
pub fn f32_to_f16(value: f32) -> u16 {
    let bits = value.to_bits();
    let sign = (bits >> 16) as u16 & 0x8000;
    let magnitude = bits & 0x7fff_ffff;
    if magnitude > 0x7f80_0000 {
        return sign | 0x7e00;
    }
    // 2¹⁶ and above, infinity included. What lies between 65,520 and 2¹⁶ overflows by the carry below.
    if magnitude >= (127 + 16) << 23 {
        return sign | 0x7c00;
    }
    let exponent = magnitude >> 23;
    let rounded = if exponent >= 127 - 14 {
        // Normal in both: re-bias the exponent, drop 13 bits. A carry out of the mantissa raises the exponent.
        shift_to_even(magnitude - ((127 - 15) << 23), 13)
    } else if exponent >= 127 - 25 {
        // Subnormal in binary16, whose unit is 2⁻²⁴: the value is (1.mantissa) · 2^(exponent − 127 − 23).
        shift_to_even(magnitude & 0x007f_ffff | 0x0080_0000, 127 - 1 - exponent)
    } else {
        // Below 2⁻²⁵, half of the least subnormal.
        0
    };
    sign | rounded as u16
}

/// value ÷ 2^shift, to nearest, ties to even; shift from 1 to 31.
fn shift_to_even(value: u32, shift: u32) -> u32 {
    let kept = value >> shift;
    let dropped = value & ((1 << shift) - 1);
    let half = 1 << (shift - 1);
    if dropped > half || (dropped == half && kept & 1 == 1) { kept + 1 } else { kept }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The value of a binary16 computed from its fields, in binary64.
    fn value_of(half: u16) -> f64 {
        let sign = if half & 0x8000 == 0 { 1.0 } else { -1.0 };
        let exponent = i32::from(half >> 10 & 31);
        let mantissa = f64::from(half & 1023);
        match exponent {
            0 => sign * mantissa * 2f64.powi(-24),
            31 => sign * if mantissa == 0.0 { f64::INFINITY } else { f64::NAN },
            _ => sign * (1.0 + mantissa / 1024.0) * 2f64.powi(exponent - 15),
        }
    }

    #[test]
    fn every_binary16_widens_to_its_value_and_comes_back() {
        for half in 0..=u16::MAX {
            let wide = f16_to_f32(half);
            let value = value_of(half);
            if value.is_nan() {
                assert!(wide.is_nan(), "{half:04x}");
                assert!(f16_to_f32(f32_to_f16(wide)).is_nan(), "{half:04x}");
            } else {
                assert_eq!(f64::from(wide).to_bits(), value.to_bits(), "{half:04x}");
                assert_eq!(f32_to_f16(wide), half, "{half:04x}");
            }
        }
    }

    /// Either side of, and exactly on, the middle between every two neighbouring finite binary16 values.
    #[test]
    fn rounding_is_to_nearest_even() {
        for low in 0..0x7c00_u16 {
            let high = low + 1;
            // The successor of the greatest finite value is 65,536 for the purpose of rounding.
            let high_value = if high == 0x7c00 { 65536.0 } else { value_of(high) };
            let middle = ((value_of(low) + high_value) / 2.0) as f32;
            let below = f32::from_bits(middle.to_bits() - 1);
            let above = f32::from_bits(middle.to_bits() + 1);
            let even = if low & 1 == 0 { low } else { high };
            for (value, expected) in [(below, low), (middle, even), (above, high)] {
                assert_eq!(f32_to_f16(value), expected, "{value:e}");
                assert_eq!(f32_to_f16(-value), expected | 0x8000, "{value:e}");
            }
        }
    }

    #[test]
    fn extremes_round_as_the_rule_says() {
        for (value, expected) in [
            (0.0, 0),
            (-0.0, 0x8000),
            (f32::from_bits(1), 0),
            (f32::MIN_POSITIVE, 0),
            (65504.0, 0x7bff),
            (65519.996, 0x7bff),
            (65520.0, 0x7c00),
            (f32::MAX, 0x7c00),
            (f32::NEG_INFINITY, 0xfc00),
        ] {
            assert_eq!(f32_to_f16(value), expected, "{value:e}");
        }
        assert_eq!(bf16_to_f32(0xc040), -3.0);
        assert_eq!(bf16_to_f32(1), f32::from_bits(1 << 16));
    }
}
