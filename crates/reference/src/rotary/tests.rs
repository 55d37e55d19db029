use super::*;

fn plain(head_dim: usize, base: f64) -> Parameters {
    Parameters { head_dim, base, scaling: Scaling::None, factors: None }
}

#[test]
fn ln_is_near_std() {
    for x in (1..200_000).map(|i| f64::from(i) * 0.37).chain([1e-300, 1e300, 0.7071067811865476, 0.5]) {
        let error = (ln(x) - x.ln()).abs();
        assert!(error <= 4e-16 * x.ln().abs().max(1.0), "{x}: {error:e}");
    }
    assert_eq!(ln(1.0), 0.0);
    assert_eq!(ln(2.0), 0.6931471805599453);
}

#[test]
fn sine_and_cosine_are_near_std() {
    let mut worst = 0.0_f64;
    for position in (0..131_072).step_by(7) {
        for frequency in [1.0, 0.749, 0.0131, 1e-6] {
            let x = f64::from(position) * frequency;
            let (sin, cos) = sin_cos(x);
            worst = worst.max((sin - x.sin()).abs()).max((cos - x.cos()).abs());
        }
    }
    assert!(worst < 1e-15, "{worst:e}");
    assert_eq!(sin_cos(0.0), (0.0, 1.0));
    for (quarter, expected) in
        [(1.0, (1.0, 0.0)), (2.0, (0.0, -1.0)), (3.0, (-1.0, 0.0)), (-1.0, (-1.0, 0.0))]
    {
        let (sin, cos) = sin_cos(quarter * std::f64::consts::FRAC_PI_2);
        assert!(
            (sin - expected.0).abs() < 1e-15 && (cos - expected.1).abs() < 1e-15,
            "{quarter}: {sin} {cos}"
        );
    }
}

#[test]
fn the_ratio_is_the_greatest_that_is_low_enough() {
    for (h, base) in [(1, 10000.0), (8, 10000.0), (32, 500000.0), (64, 1e6), (64, 5e6)] {
        let thetas = thetas(h, base);
        assert_eq!(thetas.len(), h);
        assert_eq!(thetas[0], 1.0);
        for (i, theta) in thetas.iter().enumerate() {
            let exact = base.powf(-(i as f64) / h as f64);
            assert!((theta / exact - 1.0).abs() < 1e-13, "h {h} base {base} i {i}");
        }
        if h > 1 {
            let power = |rho: f64| (0..h).fold(1.0, |power, _| power * rho);
            let above = f64::from_bits(thetas[1].to_bits() + 1);
            assert!(power(thetas[1]) <= 1.0 / base, "h {h} base {base}");
            assert!(power(above) > 1.0 / base, "h {h} base {base}");
        }
    }
    // One factor: ρ itself is 1 ÷ base.
    assert_eq!(thetas(1, 4.0), [1.0]);
    // Two factors: ρ² = ¼.
    assert_eq!(thetas(2, 4.0), [1.0, 0.5]);
}

#[test]
fn linear_scaling_and_factors_divide() {
    let mut parameters = plain(4, 4.0);
    parameters.scaling = Scaling::Linear { factor: 8.0 };
    assert_eq!(Rotary::new(&parameters).frequencies, [0.125, 0.0625]);
    parameters.factors = Some(vec![2.0, 4.0]);
    assert_eq!(Rotary::new(&parameters).frequencies, [0.0625, 0.015625]);
}

#[test]
fn yarn_keeps_fast_frequencies_and_divides_slow_ones() {
    let mut parameters = plain(128, 1e6);
    parameters.scaling = Scaling::Yarn {
        factor: 4.0,
        original_context: 32768.0,
        beta_fast: 32.0,
        beta_slow: 1.0,
        attention_factor: 1.0,
    };
    let yarn = Rotary::new(&parameters);
    let none = Rotary::new(&plain(128, 1e6));
    let corr = |beta: f64| 128.0 * (32768.0 / (beta * std::f64::consts::TAU)).ln() / (2.0 * 1e6_f64.ln());
    let (low, high) = (corr(32.0).floor(), corr(1.0).ceil());
    assert_eq!((low, high), (23.0, 40.0));
    for i in 0..64 {
        let theta = none.frequencies[i];
        let mix = 1.0 - ((i as f64 - low) / (high - low)).clamp(0.0, 1.0);
        let exact = theta / 4.0 * (1.0 - mix) + theta * mix;
        assert!((yarn.frequencies[i] / exact - 1.0).abs() < 1e-14, "pair {i}");
    }
    assert_eq!(yarn.frequencies[23], none.frequencies[23]);
    assert_eq!(yarn.frequencies[40], none.frequencies[40] / 4.0);
    let magnitude = 1.0 + 0.1 * 4.0_f64.ln();
    assert!((yarn.magnitude.expect("YaRN scales") - magnitude).abs() < 1e-15);
    assert_eq!(yarn.row(0).0, [magnitude as f32; 64]);
}

#[test]
fn rows_and_the_digest() {
    let rotary = Rotary::new(&plain(4, 4.0));
    assert_eq!(rotary.row(0), (vec![1.0, 1.0], vec![0.0, 0.0]));
    let (cosines, sines) = rotary.row(3);
    let exact = [3.0_f64, 1.5];
    for i in 0..2 {
        assert_eq!((cosines[i], sines[i]), (exact[i].cos() as f32, exact[i].sin() as f32));
    }
    let mut bytes = Vec::new();
    for position in 0..2 {
        let (cosines, sines) = rotary.row(position);
        bytes.extend(cosines.iter().chain(&sines).flat_map(|value| value.to_le_bytes()));
    }
    assert_eq!(rotary.digest(2), *blake3::hash(&bytes).as_bytes());
}

#[test]
fn pairs_turn_together() {
    let (cosines, sines) = ([0.0, 1.0], [1.0, 0.0]);
    let head = [1.0, 2.0, 3.0, 4.0];
    assert_eq!(rotate(&head, Pairs::Neighbours, &cosines, &sines), [-2.0, 1.0, 3.0, 4.0]);
    assert_eq!(rotate(&head, Pairs::Halves, &cosines, &sines), [-3.0, 2.0, 1.0, 4.0]);
    // A zero sine is subtracted from 0, so that it is +0: −0·1 + 2·(+0) = +0, as in `fma(−0, 1, +0)`.
    let turned = rotate(&[-0.0, 2.0], Pairs::Halves, &[1.0], &[0.0]);
    assert_eq!(turned[0].to_bits(), 0);
}
