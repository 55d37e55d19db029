//! Statistic: whether answers are distributed as a model's own, judged by how likely that model finds them.
//!
//! In:     log-probabilities, under the model that is named, of an answer's tokens and of those of a fresh answer of that model's.
//! Out:    one number between −1 and 1 for the two; over many, how much speaks against the worker.
//! Touches: nothing: the same input gives the same numbers.
//! Holds:  exchanging the two answers changes the sign of the number and nothing else. So, whatever the prompt, the sampling and
//!         the tokenizer, its expectation is zero for a worker whose answers are distributed as the model's, and what speaks
//!         against that worker is a nonnegative martingale that begins at 1: it ever reaches 1/α with a probability of α at most.
//! Absent: where the log-probabilities come from (`scoring`), what is done about it (the room, `route`).
//!
//! Source: Ville, Étude critique de la notion de collectif, 1939; Shafer, Testing by betting, 2021; the mixture over the time of
//! a change: Shin, Ramdas and Rinaldo, E-detectors, 2023.

use serde::{Deserialize, Serialize};
use surety_types::TokenLogprob;

/// What speaks against a worker reaches this for one in so many honest ones, at most, however long they serve.
pub(super) const DIFFERS_AT: f64 = 10_000.0;
/// Which part of what it has each bet stakes on an answer's being likelier than the model's own, or with a minus, less likely.
const BETS: [f64; 10] = [-0.9375, -0.5, -0.25, -0.125, -0.0625, 0.0625, 0.125, 0.25, 0.5, 0.9375];
/// The least log-probability that counts: one surprise is not everything.
const LOGPROB_MIN: f64 = -16.0;
/// A token that is less than half as likely as the likeliest is not what temperature 0 gives, whoever rounds.
const GREEDY_GAP: f64 = std::f64::consts::LN_2;
/// The least variance of a token's value, so that few tokens prove little: sampled, and at temperature 0.
const VARIANCE_MIN: [f64; 2] = [1.0, 0.05];

/// How likely a text is, token by token.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Scores {
    /// Of the tokens' values.
    pub(super) mean: f64,
    variance: f64,
    pub(super) tokens: usize,
}

/// How tokens are judged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Manner {
    /// By how likely they are.
    Sampled,
    /// By whether they are the likeliest, or nearly.
    Greedy,
}

impl Scores {
    /// Those of a text's tokens; none if it has no token.
    pub(super) fn of(tokens: &[TokenLogprob], manner: Manner) -> Option<Scores> {
        if tokens.is_empty() {
            return None;
        }
        let values: Vec<f64> = tokens.iter().map(|token| value(token, manner)).collect();
        let count = values.len() as f64;
        let mean = values.iter().sum::<f64>() / count;
        let variance = values.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / count;
        Some(Scores { mean, variance, tokens: values.len() })
    }
}

/// What a token counts: at most 0.
fn value(token: &TokenLogprob, manner: Manner) -> f64 {
    let logprob = f64::from(token.logprob);
    // A stranger's number may be none.
    let logprob = if logprob.is_nan() { LOGPROB_MIN } else { logprob.clamp(LOGPROB_MIN, 0.0) };
    match manner {
        Manner::Sampled => logprob,
        Manner::Greedy => {
            let best = token.top.iter().map(|top| f64::from(top.logprob)).fold(logprob, f64::max).min(0.0);
            if best - logprob > GREEDY_GAP { -1.0 } else { 0.0 }
        }
    }
}

/// How much likelier an answer is than the model's own: from −1 to 1, the sign turning with the two.
pub(super) fn difference(answer: Scores, own: Scores, manner: Manner) -> f64 {
    let least = VARIANCE_MIN[usize::from(manner == Manner::Greedy)];
    let part = |scores: Scores| scores.variance.max(least) / scores.tokens as f64;
    ((answer.mean - own.mean) / (part(answer) + part(own)).sqrt()).tanh()
}

/// What is known of a worker's answers by comparing them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Tally {
    /// Answers that were compared.
    pub(super) compared: u64,
    /// What each bet has made of its part. Kept as bits: what is read back is what was written.
    #[serde(with = "bits")]
    bets: [f64; BETS.len()],
}

mod bits {
    use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

    use super::BETS;

    pub(super) fn serialize<S: Serializer>(
        numbers: &[f64; BETS.len()],
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        numbers.map(f64::to_bits).serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<[f64; BETS.len()], D::Error> {
        let numbers = <[u64; BETS.len()]>::deserialize(deserializer)?.map(f64::from_bits);
        match numbers.iter().all(|number| number.is_finite() && *number >= 0.0) {
            true => Ok(numbers),
            false => Err(de::Error::custom("a bet is no finite number from 0 on")),
        }
    }
}

impl Default for Tally {
    fn default() -> Self {
        Tally { compared: 0, bets: [0.0; BETS.len()] }
    }
}

impl Tally {
    /// Takes in what came of one comparison.
    pub(super) fn take(&mut self, difference: f64) {
        assert!((-1.0..=1.0).contains(&difference), "a difference is from -1 to 1");
        self.compared += 1;
        let count = self.compared as f64;
        // A worker may change at any time: a part of what is staked begins with each comparison.
        let begins = 1.0 / (count * (count + 1.0));
        for (won, bet) in self.bets.iter_mut().zip(BETS) {
            *won = (*won + begins) * (1.0 + bet * difference);
        }
    }

    /// How much speaks against it, so many to one: the expectation for an honest worker is 1, always.
    pub(super) fn against(&self) -> f64 {
        let not_begun = 1.0 / (self.compared as f64 + 1.0);
        self.bets.iter().sum::<f64>() / BETS.len() as f64 + not_begun
    }

    /// Whether its answers are taken for another model's.
    pub(super) fn differs(&self) -> bool {
        self.against() >= DIFFERS_AT
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use surety_types::Alternative;

    use super::*;

    fn token(logprob: f32, best: f32) -> TokenLogprob {
        let top = vec![Alternative { token: 1, bytes: Vec::new(), logprob: best }];
        TokenLogprob { token: 0, bytes: Vec::new(), logprob, top }
    }

    fn tokens(logprobs: &[f32]) -> Vec<TokenLogprob> {
        logprobs.iter().map(|logprob| token(*logprob, -0.1)).collect()
    }

    fn any_tokens() -> impl Strategy<Value = Vec<TokenLogprob>> {
        let number = prop_oneof![-20.0f32..0.0, Just(f32::NAN), Just(f32::NEG_INFINITY), Just(f32::INFINITY)];
        prop::collection::vec(
            (number.clone(), number).prop_map(|(logprob, best)| token(logprob, best)),
            1..40,
        )
    }

    proptest! {
        #[test]
        fn exchanging_the_answers_turns_the_sign(one in any_tokens(), other in any_tokens(), greedy: bool) {
            let manner = if greedy { Manner::Greedy } else { Manner::Sampled };
            let scores = |tokens: &[TokenLogprob]| Scores::of(tokens, manner).expect("tokens");
            let (one, other) = (scores(&one), scores(&other));
            let (there, back) = (difference(one, other, manner), difference(other, one, manner));
            prop_assert_eq!(there, -back);
            prop_assert!((-1.0..=1.0).contains(&there));
            prop_assert_eq!(difference(one, one, manner), 0.0);
        }

        #[test]
        fn over_every_sequence_of_signs_what_speaks_against_a_worker_is_1(sizes in prop::collection::vec(0.0f64..=1.0, 1..10)) {
            // With the same chance of either sign, whatever their sizes: the expectation, summed out.
            let mut sum = 0.0;
            for signs in 0..1u32 << sizes.len() {
                let mut tally = Tally::default();
                for (index, size) in sizes.iter().enumerate() {
                    tally.take(if signs >> index & 1 == 0 { *size } else { -size });
                }
                prop_assert!(tally.against() > 0.0);
                sum += tally.against();
            }
            let mean = sum / f64::from(1u32 << sizes.len());
            prop_assert!((mean - 1.0).abs() < 1e-9, "{mean}");
        }
    }

    #[test]
    fn a_text_of_no_token_has_no_scores() {
        assert_eq!(Scores::of(&[], Manner::Sampled), None);
    }

    #[test]
    fn values_are_log_probabilities_or_whether_a_token_is_nearly_the_likeliest() {
        for (logprob, best, sampled, greedy) in [
            (-1.0, -0.5, -1.0, 0.0),
            (-1.0, -0.25, -1.0, -1.0),
            (-0.2, -0.2, -0.2, 0.0),
            (-40.0, -0.1, -16.0, -1.0),
            (f32::NAN, -0.1, -16.0, -1.0),
            (0.5, 0.0, 0.0, 0.0),
        ] {
            let token = token(logprob, best);
            let close = |found: f64, expected: f64| (found - expected).abs() < 1e-6;
            assert!(close(value(&token, Manner::Sampled), sampled), "{logprob} {best}");
            assert!(close(value(&token, Manner::Greedy), greedy), "{logprob} {best}");
        }
    }

    #[test]
    fn twenty_answers_of_quite_another_model_are_enough_and_the_same_again_never() {
        let (own, other) = (tokens(&[-1.0; 24]), tokens(&[-7.0; 24]));
        let scores = |tokens: &[TokenLogprob]| Scores::of(tokens, Manner::Sampled).expect("tokens");
        let mut tally = Tally::default();
        while !tally.differs() {
            tally.take(difference(scores(&other), scores(&own), Manner::Sampled));
        }
        assert!(tally.compared <= 20, "{}", tally.compared);
        let mut same = Tally::default();
        (0..10_000).for_each(|_| same.take(0.0));
        assert!((same.against() - 1.0).abs() < 1e-9);
        // After ten thousand that were the same, one that changes is found all the same.
        let mut later = same;
        while !later.differs() {
            later.take(-1.0);
        }
        assert!(later.compared < 10_060, "{}", later.compared);
    }

    #[test]
    fn noise_is_suspected_no_more_often_than_the_bound_says() {
        // Two thousand workers whose answers are noise: either is likelier with the same chance.
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        let mut uniform = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 11) as f64 / (1u64 << 53) as f64
        };
        let mut highest = Vec::new();
        for _ in 0..2_000 {
            let mut tally = Tally::default();
            let mut most = 0.0f64;
            for _ in 0..500 {
                tally.take((4.0 * uniform() - 2.0).tanh());
                most = most.max(tally.against());
            }
            highest.push(most);
        }
        let share = |at: f64| highest.iter().filter(|most| **most >= at).count() as f64 / 2_000.0;
        // Ville's bound, and four deviations of a count of 2,000.
        for at in [10.0, 20.0, 50.0] {
            let bound = 1.0 / at;
            assert!(share(at) <= bound + 4.0 * (bound / 2_000.0).sqrt(), "{at}: {}", share(at));
        }
        assert!(share(2.0) > 0.0, "nobody is ever suspected, which noise cannot bring about");
        assert_eq!(share(DIFFERS_AT), 0.0);
    }
}
