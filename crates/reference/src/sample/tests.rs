use super::*;

const SEED: [u8; 32] = [7; 32];

fn draw_many(logits: &[f32], parameters: &Parameters, count: u64) -> Vec<u64> {
    let mut counts = vec![0; logits.len()];
    for position in 0..count {
        counts[sample(logits, None, parameters, &SEED, position).expect("finite") as usize] += 1;
    }
    counts
}

#[test]
fn adjustments_by_hand() {
    let parameters = Parameters {
        repetition_penalty: 2.0,
        presence_penalty: 0.25,
        frequency_penalty: 0.5,
        logit_bias: vec![(0, 1.0), (4, -3.0)],
        ..Parameters::NEUTRAL
    };
    // Token 0 occurs in the prompt, 1 in the output twice, 2 in both, 3 and 4 nowhere.
    let logits = [1.0, 4.0, -1.0, 5.0, 6.0];
    let adjusted = adjust(&logits, &[0, 2], &[1, 2, 1], &parameters).expect("finite");
    assert_eq!(adjusted, [1.0, 2.0 - 0.25 - 1.0, -2.0 - 0.25 - 0.5, 5.0, 3.0]);
    assert_eq!(adjust(&logits, &[0, 2], &[1, 2, 1], &Parameters::NEUTRAL).expect("finite"), logits);
}

#[test]
fn non_finite_logits_end_the_sequence() {
    assert!(adjust(&[0.0, f32::NAN], &[], &[], &Parameters::NEUTRAL).is_err());
    assert!(adjust(&[0.0, f32::INFINITY], &[], &[], &Parameters::NEUTRAL).is_err());
    let parameters = Parameters { logit_bias: vec![(1, 3e38)], ..Parameters::NEUTRAL };
    assert!(adjust(&[0.0, 3e38], &[], &[], &parameters).is_err());
}

#[test]
fn temperature_zero_takes_the_first_of_the_greatest() {
    let greedy = Parameters { temperature: 0.0, ..Parameters::NEUTRAL };
    let logits = [-0.0, 0.0, -1.0, 0.0];
    assert_eq!(argmax(&logits), 0);
    assert_eq!(sample(&logits, None, &greedy, &SEED, 3), Ok(0));
    let mask = [false, false, true, true];
    assert_eq!(sample(&logits, Some(&mask), &greedy, &SEED, 3), Ok(3));
}

#[test]
fn weights_by_hand() {
    // c = 1: the logits are base-2.
    let found = weights(&[0.0, -1.0, -32.0, -33.0, -64.0, -65.0], 0.0, 1.0);
    assert_eq!(found, [1 << 32, 1 << 31, 1, 0, 0, 0]);
    let near = weights(&[-0.5], 0.0, 1.0)[0];
    assert!(near.abs_diff(3037000499) < 512, "{near}");
}

#[test]
fn draws_follow_the_weights() {
    let logits = [2.0_f32.ln(), 0.0, 5.0_f32.ln(), f32::MIN];
    let counts = draw_many(&logits, &Parameters::NEUTRAL, 8000);
    for (count, expected) in counts.iter().zip([2000, 1000, 5000, 0]) {
        assert!(count.abs_diff(expected) < 150, "{counts:?}");
    }
}

#[test]
fn filters_keep_what_they_say() {
    // Weights 2³¹, 2³², 2³⁰, 2³¹ at c = 1, that is at temperature log2(e).
    let logits = [-1.0, 0.0, -2.0, -1.0];
    let base = Parameters { temperature: LOG2_E, ..Parameters::NEUTRAL };
    let check = |parameters: Parameters, kept: [bool; 4]| {
        let counts = draw_many(&logits, &parameters, 400);
        assert_eq!(counts.iter().map(|&count| count > 0).collect::<Vec<_>>(), kept, "{parameters:?}");
    };
    check(base.clone(), [true; 4]);
    check(Parameters { top_k: 1, ..base.clone() }, [false, true, false, false]);
    check(Parameters { top_k: 2, ..base.clone() }, [true, true, false, false]);
    check(Parameters { top_k: 9, ..base.clone() }, [true; 4]);
    check(Parameters { min_p: 0.5, ..base.clone() }, [true, true, false, true]);
    check(Parameters { min_p: 0.50000006, ..base.clone() }, [false, true, false, false]);
    // W = 2.25·2³²; the greatest is 4/9 of it, the first two 6/9, the first three 8/9.
    check(Parameters { top_p: 0.0, ..base.clone() }, [false, true, false, false]);
    check(Parameters { top_p: 0.44, ..base.clone() }, [false, true, false, false]);
    check(Parameters { top_p: 0.45, ..base.clone() }, [true, true, false, false]);
    check(Parameters { top_p: 0.67, ..base.clone() }, [true, true, false, true]);
    check(Parameters { top_p: 0.89, ..base.clone() }, [true; 4]);
    // Of the two left by top_k, the greatest is exactly 2/3; with min_p of the three left, exactly 1/2.
    check(Parameters { top_k: 2, top_p: 0.66, ..base.clone() }, [false, true, false, false]);
    check(Parameters { min_p: 0.5, top_p: 0.5, ..base.clone() }, [false, true, false, false]);
    check(Parameters { min_p: 0.5, top_p: 0.50000006, ..base }, [true, true, false, false]);
}

/// The draw written out for one position: the running sum in increasing id first exceeds (u·W) >> 64.
#[test]
fn a_draw_by_hand() {
    let parameters = Parameters { temperature: LOG2_E, ..Parameters::NEUTRAL };
    let logits = [-2.0, 0.0, -1.0];
    for position in 0..200 {
        let u = draw(&SEED, position);
        let quarters = (u128::from(u) * 7 * (1 << 30)) >> 64 >> 30;
        let expected = [0, 1, 1, 1, 1, 2, 2][quarters as usize];
        assert_eq!(sample(&logits, None, &parameters, &SEED, position), Ok(expected), "position {position}");
    }
}

#[test]
fn a_temperature_without_a_reciprocal_is_refused() {
    let parameters = Parameters { temperature: f32::from_bits(1), ..Parameters::NEUTRAL };
    assert!(sample(&[0.0, 1.0], None, &parameters, &SEED, 0).is_err());
}

#[test]
fn seeds_are_derived_from_what_the_rule_names() {
    let mut material = (-5_i64).to_le_bytes().to_vec();
    material.extend([2, 0, 0, 0]);
    let expected = blake3::derive_key("surety 2026 sampling seed", &material);
    assert_eq!(derive_seed(Seed::Caller(-5), 2), expected);
    let seeds = [
        derive_seed(Seed::Caller(-5), 2),
        derive_seed(Seed::Caller(-5), 3),
        derive_seed(Seed::Caller(5), 2),
        derive_seed(Seed::Nonce([0; 32]), 2),
        derive_seed(Seed::Nonce([1; 32]), 2),
    ];
    for (index, seed) in seeds.iter().enumerate() {
        assert!(!seeds[..index].contains(seed), "seed {index} occurs twice");
    }
}
