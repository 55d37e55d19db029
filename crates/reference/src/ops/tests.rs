use super::*;
use crate::bits::f32_to_f16;

/// A small sequence of numbers without order, from a seed.
fn noise(seed: u64, count: usize) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        ((state >> 40) as f32 / 8388608.0) - 1.0
    };
    (0..count).map(|_| next()).collect()
}

/// A row of whole blocks with noise for codes and half-sized scales.
fn noise_row(format: Format, seed: u64, elements: usize) -> Vec<u8> {
    let bytes: Vec<u8> =
        noise(seed, format.row_bytes(elements)).iter().map(|x| (x * 128.0) as i8 as u8).collect();
    let mut row = Vec::new();
    for block in bytes.chunks_exact(format.block().1) {
        let mut block = block.to_vec();
        let first = block[0];
        let half = f32_to_f16(f32::from(first) / 1024.0 + 0.01).to_le_bytes();
        match format {
            Format::F32 => block.copy_from_slice(&(f32::from(first) / 256.0 - 0.5).to_le_bytes()),
            Format::BF16 => block.copy_from_slice(&[first, 0x3f]),
            Format::F16 | Format::Q8_0 | Format::Q4_0 => block[..2].copy_from_slice(&half),
            Format::Q4_K => block[..4].copy_from_slice(&[half, half].concat()),
            Format::Q6_K => block[208..].copy_from_slice(&half),
        }
        row.extend(block);
    }
    row
}

#[test]
fn quantisation_by_hand() {
    let mut x = vec![0.0; 64];
    x[0] = -127.0;
    x[1] = 0.5;
    x[2] = 1.5;
    x[3] = -2.5;
    x[4] = 126.6;
    let blocks = quantise(&x).expect("finite");
    assert_eq!(blocks[0].scale, 1.0);
    assert_eq!(blocks[0].codes[..6], [-127, 0, 2, -2, 127, 0]);
    assert_eq!(blocks[1], QuantisedBlock { scale: 0.0, codes: [0; 32] });
}

#[test]
fn quantisation_refuses_what_has_no_reciprocal() {
    for (greatest, fits) in [
        (3.8e-37, true),
        (3.7e-37, false),
        (f32::from_bits(1), false),
        (f32::MAX, true),
        (f32::INFINITY, false),
        (f32::NAN, false),
        (0.0, true),
    ] {
        let mut x = [0.0; 32];
        x[17] = greatest;
        assert_eq!(quantise(&x).is_ok(), fits, "{greatest:e}");
    }
}

#[test]
fn products_by_hand() {
    let x: Vec<f32> = (0..32).map(|e| if e == 0 { 127.0 } else { e as f32 }).collect();
    let mut q8 = vec![0x00, 0x38];
    q8.extend((0..32).map(|e| (e - 16) as i8 as u8));
    let expected: i32 = (0..32).map(|e| (e - 16) * if e == 0 { 127 } else { e }).sum();
    assert_eq!(matmul_row(Format::Q8_0, &q8, &x), Ok(0.5 * expected as f32));

    let mut q4 = vec![0x00, 0x3c];
    q4.extend([0x9a; 16]);
    let expected: i32 = (0..32).map(|e| if e == 0 { 127 } else { e } * if e < 16 { 2 } else { 1 }).sum();
    assert_eq!(matmul_row(Format::Q4_0, &q4, &x), Ok(expected as f32));
}

/// A chain of 1,025 elements ends after 1,024: what would vanish in one chain survives as a segment.
#[test]
fn segments_end_after_1024_elements() {
    let mut w = vec![0.0_f32; 1056];
    w[0] = 16777216.0;
    w[1] = 1.0;
    w[1024] = 1.0;
    w[1025] = 1.0;
    let bytes: Vec<u8> = w.iter().flat_map(|w| w.to_le_bytes()).collect();
    let x = vec![1.0; 1056];
    // In one chain every 1 would be rounded away; the two of the second segment are added as a 2.
    assert_eq!(matmul_row(Format::F32, &bytes, &x), Ok(16777218.0));
}

/// Every format's product lies near the binary64 product of its values with the quantised activations' values.
#[test]
fn products_are_near_the_exact_ones() {
    for format in Format::ALL {
        for (seed, columns) in [256, 1024, 1280, 2304].into_iter().enumerate() {
            let row = noise_row(format, seed as u64 + 1, columns);
            let x = noise(seed as u64 + 100, columns);
            let seen: Vec<f64> = match format {
                Format::F32 | Format::F16 | Format::BF16 => x.iter().map(|&x| f64::from(x)).collect(),
                _ => {
                    let blocks = quantise(&x).expect("finite");
                    let value = |b: &QuantisedBlock, e: usize| f64::from(b.codes[e]) * f64::from(b.scale);
                    blocks.iter().flat_map(|b| (0..32).map(|e| value(b, e)).collect::<Vec<_>>()).collect()
                }
            };
            let values = weights::values(format, &row);
            let terms: Vec<f64> = values.iter().zip(&seen).map(|(w, x)| f64::from(*w) * x).collect();
            let exact: f64 = terms.iter().sum();
            let size: f64 = terms.iter().map(|term| term.abs()).sum();
            let product = f64::from(matmul_row(format, &row, &x).expect("finite"));
            assert!(size > 1.0, "{format:?} {columns}: the data are trivial");
            assert!((product - exact).abs() < 1e-5 * size, "{format:?} {columns}: {product} {exact}");
        }
    }
}

#[test]
fn a_matrix_is_its_rows() {
    for format in Format::ALL {
        let rows: Vec<Vec<u8>> = (0..5).map(|row| noise_row(format, 7 + row, 512)).collect();
        let x = noise(3, 512);
        let together = matmul(format, &rows.concat(), &x).expect("finite");
        let apart: Vec<f32> = rows.iter().map(|row| matmul_row(format, row, &x).expect("finite")).collect();
        assert_eq!(together, apart, "{format:?}");
    }
}

#[test]
fn products_refuse_non_finite_activations() {
    for format in Format::ALL {
        let row = noise_row(format, 5, 256);
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let mut x = noise(6, 256);
            x[200] = bad;
            assert!(matmul_row(format, &row, &x).is_err(), "{format:?} {bad}");
        }
    }
}

#[test]
fn the_tree_adds_halves() {
    let lanes = std::array::from_fn(|l| (1 << l) as f32);
    assert_eq!(close_lanes(lanes), 65535.0);
    // (l₀ + l₈) first: the big ones cancel before the small one is added.
    let mut lanes = [0.0; 16];
    (lanes[0], lanes[8], lanes[1]) = (1e30, -1e30, 1.0);
    assert_eq!(close_lanes(lanes), 1.0);
}

#[test]
fn rms_norm_by_hand_and_against_binary64() {
    let x = [3.0; 16];
    assert_eq!(rms_norm(&x, &[2.0; 16], 7.0), [1.5; 16]);

    let x = noise(11, 768);
    let w = noise(12, 768);
    let mean = x.iter().map(|&x| f64::from(x) * f64::from(x)).sum::<f64>() / 768.0;
    let inv = 1.0 / (mean + 1e-5).sqrt();
    for ((y, x), w) in rms_norm(&x, &w, 1e-5).iter().zip(&x).zip(&w) {
        let exact = f64::from(*x) * inv * f64::from(*w);
        assert!((f64::from(*y) - exact).abs() <= 4e-7 * exact.abs(), "{y} {exact}");
    }
}

#[test]
fn exp2_is_exact_at_integers_and_near_elsewhere() {
    for n in -120..=120 {
        assert_eq!(exp2(n as f32, 0), f32::powi(2.0, n), "{n}");
    }
    // A tie goes to the even −120; beyond it the rounded exponent is below −120.
    assert!((f64::from(exp2(-120.5, 0)) / 2f64.powf(-120.5) - 1.0).abs() < 2.5e-7);
    assert_eq!(exp2(-120.50001, 0).to_bits(), 0);
    let mut worst = 0.0_f64;
    for step in -240_000..=240_000 {
        let t = step as f32 / 2048.0;
        let exact = f64::from(t).exp2();
        worst = worst.max((f64::from(exp2(t, 0)) / exact - 1.0).abs());
    }
    assert!(worst < 2.5e-7, "relative error {worst:e}");
}

#[test]
fn exp2_scales_by_m_and_ends_at_minus_120() {
    assert_eq!(exp2(5.25, 3), exp2(2.25, 0));
    assert_eq!(exp2(1e6, 999_999), 2.0);
    assert_eq!(exp2(-20.0, 100), f32::powi(2.0, -120));
    assert_eq!(exp2(-21.0, 100).to_bits(), 0);
    assert_eq!(exp2(-1e6 - 1000.0, -1_000_000).to_bits(), 0);
    assert_eq!(exp2(127.0, 0), f32::powi(2.0, 127));
    assert_eq!(exp2(128.0, 0), f32::INFINITY);
    assert_eq!(exp2(f32::MAX, -1_000_000), f32::INFINITY);
    assert_eq!(exp2(f32::MIN, 1_000_000), 0.0);
}

#[test]
fn silu_is_near_its_definition_and_tame_at_the_ends() {
    for step in -4000..=4000 {
        let x = step as f32 / 64.0;
        let exact = f64::from(x) / (1.0 + (-f64::from(x)).exp());
        let error = (f64::from(silu(x)) - exact).abs();
        assert!(error <= 4e-6 * exact.abs(), "{x} {exact} {error:e}");
    }
    assert_eq!(silu(0.0).to_bits(), 0);
    assert_eq!(silu(-0.0).to_bits(), (-0.0_f32).to_bits());
    assert_eq!(silu(1e30), 1e30);
    assert_eq!(silu(-1e30), -1e30 / (1.0 + f32::powi(2.0, 100)));
    assert_eq!(silu_mul(&[1e30, 0.0], &[2.0, 5.0]), [2e30, 0.0]);
}

#[test]
fn sums_and_embeddings() {
    assert_eq!(add(&[1.0, -0.0], &[2.0, -0.0]).map_bits(), [3.0_f32.to_bits(), (-0.0_f32).to_bits()]);
    assert_eq!(embedding_row(Format::F16, &[0x00, 0x3c, 0x01, 0x00]), [1.0, f32::powi(2.0, -24)]);
}

trait MapBits {
    fn map_bits(&self) -> Vec<u32>;
}

impl MapBits for Vec<f32> {
    fn map_bits(&self) -> Vec<u32> {
        self.iter().map(|value| value.to_bits()).collect()
    }
}
