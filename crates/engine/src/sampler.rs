//! The sampler: from logits to a token, in integers.
//!
//! In:     the logits of one position, what was said before, the parameters and the seed.
//! Out:    the token.
//! Touches: the logits, in place.
//! Holds:  the token is a function of its arguments; sums are exact, so their order does not matter.
//! Absent: grammar masks (`constraint`): an excluded token comes as −∞, which weighs nothing and is the last in order; which tokens end an answer (`generation`).

use std::collections::{BTreeMap, BTreeSet};

use surety_kernels::{Executor, step};
use surety_types::sampling::random;
use surety_types::{Alternative, Sampling, TokenLogprob};

/// What was said before the position being sampled, as the penalties need it.
#[derive(Clone, Debug, Default)]
pub struct History {
    seen: BTreeSet<u32>,
    output: BTreeMap<u32, u32>,
}

impl History {
    /// A history of the prompt alone.
    pub fn of_prompt(prompt: &[u32]) -> Self {
        Self { seen: prompt.iter().copied().collect(), output: BTreeMap::new() }
    }

    /// Adds a sampled token.
    pub fn push(&mut self, token: u32) {
        self.seen.insert(token);
        *self.output.entry(token).or_insert(0) += 1;
    }
}

/// adjusts logits in place.
pub fn adjust(logits: &mut [f32], sampling: &Sampling, history: &History) {
    for &(token, bias) in &sampling.logit_bias {
        if let Some(logit) = logits.get_mut(token as usize) {
            *logit = step::biased(*logit, bias);
        }
    }
    if sampling.repetition_penalty != 1.0 {
        for &token in &history.seen {
            let logit = &mut logits[token as usize];
            *logit = step::repeated(*logit, sampling.repetition_penalty);
        }
    }
    for (&token, &count) in &history.output {
        let logit = &mut logits[token as usize];
        *logit = step::penalised(*logit, count, sampling.presence_penalty, sampling.frequency_penalty);
    }
}

/// …: samples one token from adjusted logits, finite but for those excluded, which are −∞.
///
/// `position` is the position being sampled; the prompt's first token has position 0.
pub fn sample(
    executor: &Executor,
    logits: &[f32],
    sampling: &Sampling,
    seed: &[u8; 32],
    position: u64,
    weights: &mut Vec<u64>,
) -> u32 {
    let (best, max) = executor.argmax(logits);
    if sampling.temperature == 0.0 {
        return best;
    }
    weights.resize(logits.len(), 0);
    executor.sampling_weights(logits, max, step::sampling_scale(sampling.temperature), weights);
    keep(logits, sampling, weights);

    // the greatest weight is 2³², so the total is never 0.
    let total: u64 = weights.iter().sum();
    let threshold = step::draw(random(seed, position), total);
    let mut running = 0;
    for (token, &weight) in weights.iter().enumerate() {
        running += weight;
        if running > threshold {
            return token as u32;
        }
    }
    unreachable!("the threshold is below the total");
}

/// sets the weight of every token that is not kept to 0.
fn keep(logits: &[f32], sampling: &Sampling, weights: &mut [u64]) {
    let top_k = if sampling.top_k == 0 { logits.len() } else { (sampling.top_k as usize).min(logits.len()) };
    if top_k < logits.len() {
        let mut order = Descending::new(logits);
        order.sort_prefix(top_k);
        for &token in &order.tokens[top_k..] {
            weights[token as usize] = 0;
        }
    }
    if sampling.min_p > 0.0 {
        let least = step::fraction(sampling.min_p);
        for weight in weights.iter_mut().filter(|weight| **weight < least) {
            *weight = 0;
        }
    }
    if sampling.top_p < 1.0 {
        let enough = step::nucleus(step::fraction(sampling.top_p), weights.iter().sum());
        let mut order = Descending::new(logits);
        let mut sum = 0;
        let mut kept = 0;
        let mut sorted = 0;
        // A token dropped above has weight 0: taking it in its turn adds nothing and keeps the order simple.
        while kept < logits.len() && sum < enough {
            if kept == sorted {
                sorted = (sorted * 8).clamp(128, logits.len());
                order.sort_prefix(sorted);
            }
            sum += weights[order.tokens[kept] as usize];
            kept += 1;
        }
        for &token in &order.tokens[kept..] {
            weights[token as usize] = 0;
        }
    }
}

/// Token ids by logit descending, id ascending, sorted only as far as needed.
struct Descending<'a> {
    logits: &'a [f32],
    tokens: Vec<u32>,
    sorted: usize,
}

impl<'a> Descending<'a> {
    fn new(logits: &'a [f32]) -> Self {
        Self { logits, tokens: (0..logits.len() as u32).collect(), sorted: 0 }
    }

    /// Makes the first `count` tokens the greatest, in order.
    fn sort_prefix(&mut self, count: usize) {
        let compare = |a: &u32, b: &u32| {
            let (x, y) = (self.logits[*a as usize], self.logits[*b as usize]);
            y.partial_cmp(&x).expect("logits are finite").then(a.cmp(b))
        };
        let rest = &mut self.tokens[self.sorted..];
        let wanted = count - self.sorted;
        if wanted < rest.len() && wanted > 0 {
            rest.select_nth_unstable_by(wanted - 1, compare);
        }
        rest[..wanted].sort_unstable_by(compare);
        self.sorted = count;
    }
}

/// the log-probability of `token` and of the `top` likeliest tokens, for display.
///
/// `bytes` gives a token's bytes.
pub fn logprob(
    executor: &Executor,
    logits: &[f32],
    token: u32,
    top: u8,
    bytes: &dyn Fn(u32) -> Vec<u8>,
) -> TokenLogprob {
    let log_sum = executor.log_sum_exp(logits);
    let logprob = |token: u32| logits[token as usize] - log_sum;
    let mut order = Descending::new(logits);
    let count = usize::from(top).min(logits.len());
    order.sort_prefix(count);
    let top = order.tokens[..count]
        .iter()
        .map(|&token| Alternative { token, bytes: bytes(token), logprob: logprob(token) })
        .collect();
    TokenLogprob { token, bytes: bytes(token), logprob: logprob(token), top }
}
