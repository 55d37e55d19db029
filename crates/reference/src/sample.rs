//! Sampling: from logits, parameters and a seed to a token.
//!
//! In:     logits, the tokens so far, parameters, a seed and a position.
//! Out:    a token id.
//! Touches: nothing.
//! Holds:  after the weights of everything is exact integer arithmetic.
//! Absent: validation of parameters, stop rules, and log-probabilities.

use crate::ops::{LOG2_E, exp2};
use crate::{NonFinite, check_finite};

/// Sampling parameters. Each has a neutral value, given by [`Parameters::NEUTRAL`].
#[derive(Clone, Debug)]
pub struct Parameters {
    /// `T`; 0 takes the greatest logit.
    pub temperature: f32,
    /// 0 keeps all.
    pub top_k: u32,
    /// 1 keeps all.
    pub top_p: f32,
    /// 0 keeps all.
    pub min_p: f32,
    /// `ρ`
    pub repetition_penalty: f32,
    /// `α`
    pub presence_penalty: f32,
    /// `β`
    pub frequency_penalty: f32,
    /// (token, bias), each token at most once.
    pub logit_bias: Vec<(u32, f32)>,
}

impl Parameters {
    /// Plain sampling at temperature 1.
    pub const NEUTRAL: Parameters = Parameters {
        temperature: 1.0,
        top_k: 0,
        top_p: 1.0,
        min_p: 0.0,
        repetition_penalty: 1.0,
        presence_penalty: 0.0,
        frequency_penalty: 0.0,
        logit_bias: Vec::new(),
    };
}

/// The seed a caller gives, or the order's nonce.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seed {
    /// The caller's integer.
    Caller(i64),
    /// The order's nonce.
    Nonce([u8; 32]),
}

/// the 32 bytes that key every draw of one choice.
pub fn derive_seed(seed: Seed, choice: u32) -> [u8; 32] {
    let mut material = match seed {
        Seed::Caller(integer) => integer.to_le_bytes().to_vec(),
        Seed::Nonce(nonce) => nonce.to_vec(),
    };
    material.extend(choice.to_le_bytes());
    blake3::derive_key("surety 2026 sampling seed", &material)
}

/// with the checks of before and after.
pub fn adjust(
    logits: &[f32],
    prompt: &[u32],
    output: &[u32],
    parameters: &Parameters,
) -> Result<Vec<f32>, NonFinite> {
    check_finite("a logit", logits)?;
    let mut biases = vec![None; logits.len()];
    for &(token, bias) in &parameters.logit_bias {
        biases[token as usize] = Some(bias);
    }
    let mut in_prompt = vec![false; logits.len()];
    for &token in prompt {
        in_prompt[token as usize] = true;
    }
    let mut output_counts = vec![0_u32; logits.len()];
    for &token in output {
        output_counts[token as usize] += 1;
    }
    let mut adjusted = logits.to_vec();
    for (token, l) in adjusted.iter_mut().enumerate() {
        let count = output_counts[token];
        if let Some(bias) = biases[token] {
            *l += bias;
        }
        let rho = parameters.repetition_penalty;
        if rho != 1.0 && (in_prompt[token] || count > 0) {
            *l = if *l > 0.0 { *l / rho } else { *l * rho };
        }
        if parameters.presence_penalty != 0.0 && count > 0 {
            *l -= parameters.presence_penalty;
        }
        if parameters.frequency_penalty != 0.0 && count > 0 {
            *l = (-parameters.frequency_penalty).mul_add(count as f32, *l);
        }
    }
    check_finite("an adjusted logit", &adjusted)?;
    Ok(adjusted)
}

/// the greatest logit, the lowest id on ties.
pub fn argmax(logits: &[f32]) -> u32 {
    let mut best = 0;
    for (token, &l) in logits.iter().enumerate() {
        if l > logits[best] {
            best = token;
        }
    }
    best as u32
}

/// the weight of each logit, given the greatest of those that take part and `c = log2e ÷ T`.
pub fn weights(logits: &[f32], l_max: f32, c: f32) -> Vec<u64> {
    let weight = |&l: &f32| {
        let e = (l - l_max) * c;
        if e < -64.0 { 0 } else { (4294967296.0 * exp2(e, 0)).floor() as u64 }
    };
    logits.iter().map(weight).collect()
}

/// over adjusted logits. Tokens for which `mask` is false take no part; at least one must.
pub fn sample(
    logits: &[f32],
    mask: Option<&[bool]>,
    parameters: &Parameters,
    seed: &[u8; 32],
    position: u64,
) -> Result<u32, NonFinite> {
    // the order: logit descending, id ascending (the sort is stable).
    let takes_part = |token: &u32| mask.is_none_or(|mask| mask[*token as usize]);
    let mut tokens: Vec<u32> = (0..logits.len() as u32).filter(takes_part).collect();
    assert!(!tokens.is_empty(), "a mask that leaves no token");
    check_finite("an adjusted logit", logits)?;
    let logit = |token: u32| logits[token as usize];
    tokens.sort_by(|&a, &b| logit(b).partial_cmp(&logit(a)).expect("logits are finite"));

    //
    if parameters.temperature == 0.0 {
        return Ok(tokens[0]);
    }

    // the weights.
    let c = LOG2_E / parameters.temperature;
    check_finite("log2e ÷ temperature", &[c])?;
    let weights = weights(logits, logit(tokens[0]), c);
    let weight = |token: u32| weights[token as usize];
    let sum = |tokens: &[u32]| tokens.iter().map(|&token| u128::from(weight(token))).sum::<u128>();

    //
    if parameters.top_k > 0 {
        tokens.truncate(parameters.top_k as usize);
    }
    let least = fraction(parameters.min_p);
    tokens.retain(|&token| weight(token) >= least);
    if parameters.top_p < 1.0 {
        let needed = needed(parameters.top_p, sum(&tokens));
        let mut kept = 1;
        let mut prefix = sum(&tokens[..1]);
        while prefix < needed {
            prefix += sum(&tokens[kept..=kept]);
            kept += 1;
        }
        tokens.truncate(kept);
    }

    //
    let r = threshold(draw(seed, position), sum(&tokens));
    tokens.sort();
    let mut running = 0;
    for &token in &tokens {
        running += u128::from(weight(token));
        if running > r {
            return Ok(token);
        }
    }
    unreachable!("r is below the sum of the kept weights")
}

/// what the kept prefix must sum to, of the sum of all.
pub fn needed(top_p: f32, sum: u128) -> u128 {
    (u128::from(fraction(top_p)) * sum).div_ceil(1 << 32)
}

/// `r`, of the random bits and the sum of the kept weights.
pub fn threshold(u: u64, sum: u128) -> u128 {
    (u128::from(u) * sum) >> 64
}

/// `floor(p·2³²)` for p in [0, 1]; the product is exact.
pub fn fraction(p: f32) -> u64 {
    (p * 4294967296.0).floor() as u64
}

/// the 64 random bits of a position.
pub fn draw(seed: &[u8; 32], position: u64) -> u64 {
    let hash = blake3::keyed_hash(seed, &position.to_le_bytes());
    u64::from_le_bytes(std::array::from_fn(|i| hash.as_bytes()[i]))
}

#[cfg(test)]
mod tests;
