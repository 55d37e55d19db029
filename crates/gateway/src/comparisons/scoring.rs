//! Scoring: how likely an exact worker finds an answer, and a fresh one of its own to the same request.
//!
//! In:     a request, the text that somebody else's server gave to it, the model that it is said to be.
//! Out:    the scores of both texts; or why there are none.
//! Touches: the network, by orders like any others: who gets them is not told what they are for.
//! Holds:  both texts are cut, tokenised and scored in the same way; a text whose tokens do not spell it is not scored.
//! Absent: what the scores mean (`statistic`).

use std::sync::Arc;

use surety_types::{ModelId, Prompt, PublicKey, Request, Sampling, Seed, TokenLogprob};

use super::statistic::{Manner, Scores};
use crate::{
    api::unix_ms,
    error::{Accountable, ApiError, Code},
    gateway::Shared,
    id::RequestId,
    keys::{Hold, Tenant},
    route::{Resolved, preferences::Preferences},
    session::{self, Desk, Event},
};

/// Bytes of each text that are looked at, …
const TEXT_BYTES_MAX: usize = 1024;
/// … tokens of those that are scored, …
const SCORED_TOKENS_MAX: usize = 128;
/// … and output tokens that are ordered of the model itself, so that there are as many to score.
const OWN_TOKENS_MAX: u32 = 256;

/// An answer to be compared.
#[derive(Debug, Clone)]
pub(crate) struct Subject {
    /// Who gave it.
    pub(crate) worker: PublicKey,
    /// Of which model it is said to be.
    pub(crate) claims: ModelId,
    pub(crate) request: Request,
    pub(crate) sampling: Sampling,
    /// Output tokens at most, as the caller said.
    pub(crate) max_output_tokens: Option<u32>,
    pub(crate) text: String,
    /// What is wanted of who is shown it.
    pub(crate) preferences: Preferences,
}

/// An answer's scores, and those of the model's own.
#[derive(Debug, Clone, Copy)]
pub(super) struct Scored {
    pub(super) manner: Manner,
    pub(super) answer: Scores,
    pub(super) own: Scores,
    /// Who computed them.
    pub(super) by: PublicKey,
}

/// What came of one order.
#[derive(Debug, Default)]
struct Heard {
    prompt: Vec<TokenLogprob>,
    text: String,
    worker: Option<PublicKey>,
}

/// Orders a fresh answer, and scores both.
pub(super) async fn score(shared: &Shared, subject: &Subject) -> Result<Scored, ApiError> {
    let model = shared.workers.resolve(&subject.claims.to_string())?;
    let orders = Orders { shared, model: &model, preferences: &subject.preferences };
    let sampling = &subject.sampling;
    let manner = match sampling.temperature == 0.0 || sampling.top_k == 1 {
        true => Manner::Greedy,
        false => Manner::Sampled,
    };
    let request = Request { prompt_logprobs: Some(0), ..subject.request.clone() };
    let limit = subject.max_output_tokens.unwrap_or(OWN_TOKENS_MAX).min(OWN_TOKENS_MAX);
    let [own] = orders.heard([request], sampling, limit).await?;
    let prompt: Vec<u32> = own.prompt.iter().map(|token| token.token).collect();
    let texts = [cut(&subject.text), cut(&own.text)];
    if texts.iter().any(|text| text.is_empty()) {
        return Err(not_comparable("there is no text to compare"));
    }
    let greedy = Sampling { temperature: 0.0, ..Sampling::default() };
    let scored = |prompt, top| Request {
        prompt,
        stop: Vec::new(),
        logprobs: None,
        prompt_logprobs: Some(top),
        date: None,
        embedding: None,
        grammar: None,
    };
    let tokenised =
        orders.heard(texts.map(|text| scored(Prompt::Text(text.to_owned()), 0)), &greedy, 0).await?;
    let mut requests = Vec::with_capacity(texts.len());
    for (text, heard) in texts.into_iter().zip(&tokenised) {
        let ids = spelling(text, &heard.prompt)
            .ok_or_else(|| not_comparable("its text is not what its tokens spell"))?;
        let ids = prompt.iter().copied().chain(ids.into_iter().take(SCORED_TOKENS_MAX));
        requests.push(scored(Prompt::Tokens(ids.collect()), 1));
    }
    let requests: [Request; 2] = requests.try_into().map_err(|_| ApiError::bug("two texts are compared"))?;
    let [answer, own] = orders.heard(requests, &greedy, 0).await?;
    let scores = |heard: &Heard| {
        let tokens = heard.prompt.get(prompt.len()..).unwrap_or_default();
        Scores::of(tokens, manner).ok_or_else(|| not_comparable("no token of it was scored"))
    };
    let by = answer.worker.ok_or_else(|| ApiError::bug("nobody scored an answer"))?;
    Ok(Scored { manner, answer: scores(&answer)?, own: scores(&own)?, by })
}

/// The beginning of a text.
fn cut(text: &str) -> &str {
    &text[..text.floor_char_boundary(TEXT_BYTES_MAX)]
}

/// The ids among a text's that spell it: those before them are what a tokenizer puts before every text.
fn spelling(text: &str, tokens: &[TokenLogprob]) -> Option<Vec<u32>> {
    let all = tokens.iter().map(|token| token.bytes.len()).sum::<usize>();
    if all > 2 * TEXT_BYTES_MAX {
        return None;
    }
    let mut bytes: Vec<u8> = tokens.iter().flat_map(|token| token.bytes.iter().copied()).collect();
    let mut rest = tokens;
    // SentencePiece puts a space before a text; who is silent in a text is no part of it.
    while bytes != text.as_bytes() && bytes.strip_prefix(b" ") != Some(text.as_bytes()) {
        let (first, others) = rest.split_first()?;
        bytes.drain(..first.bytes.len());
        rest = others;
    }
    let ids: Vec<u32> =
        rest.iter().filter(|token| !token.bytes.is_empty()).map(|token| token.token).collect();
    (!ids.is_empty()).then_some(ids)
}

/// An answer of which nothing can be said.
fn not_comparable(why: &str) -> ApiError {
    let message = format!("The answer could not be compared: {why}. Nothing is charged.");
    ApiError::new(Code::VerificationFailed, message).with_accountable(Accountable::Unknown)
}

/// How scores are ordered: of workers that compute the model, at the gateway's own expense.
struct Orders<'a> {
    shared: &'a Shared,
    model: &'a Resolved,
    preferences: &'a Preferences,
}

/// What is set aside for orders of the gateway's own: no row of anybody's usage comes of it.
struct Own(Arc<Hold>);

impl Drop for Own {
    fn drop(&mut self) {
        self.0.fail();
    }
}

impl Orders<'_> {
    /// Has each of some requests answered; what came of them, in their order.
    async fn heard<const N: usize>(
        &self,
        requests: [Request; N],
        sampling: &Sampling,
        max_output_tokens: u32,
    ) -> Result<[Heard; N], ApiError> {
        let Orders { shared, model, preferences } = *self;
        // Its orders are nobody's request: what is noted of them is kept nowhere.
        let id = RequestId::random().map_err(|_| ApiError::bug("the random source failed"))?;
        let now_ms = unix_ms();
        let own = Own(Tenant::of_gateway(&shared.keys).hold(id, &model.name, N as u32, now_ms));
        let desk = Desk {
            workers: Arc::clone(&shared.workers),
            key: shared.key.clone(),
            model: model.clone(),
            preferences: preferences.clone(),
            checking: None,
            sampling: sampling.clone(),
            // A seed that nobody has seen before: the same one again would give the same answer again.
            seed: Seed::Nonce,
            max_output_tokens: Some(max_output_tokens),
            ignore_end: false,
            deadline_ms: now_ms + shared.answer_timeout.as_millis() as u64,
            stall: shared.stall_timeout,
            search: shared.search_timeout,
            affinity: None,
            hold: Arc::clone(&own.0),
            counts: false,
            trail: shared.journal.trail(id),
        };
        let mut heard: [Heard; N] = std::array::from_fn(|_| Heard::default());
        let mut answering = session::order(desk, &requests).await?;
        while let Some(step) = answering.next().await {
            let (index, event) = step?;
            let heard = &mut heard[index];
            match event {
                Event::Prompt { logprobs, .. } => heard.prompt.extend(logprobs),
                Event::Output { text, .. } => heard.text.push_str(&text),
                Event::Finished(finished) => {
                    heard.worker = finished.whole.shares.last().map(|share| share.part.worker);
                }
            }
        }
        Ok(heard)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tokens(pieces: &[&str]) -> Vec<TokenLogprob> {
        let token = |(id, piece): (usize, &&str)| TokenLogprob {
            token: id as u32,
            bytes: piece.as_bytes().to_vec(),
            logprob: -1.0,
            top: Vec::new(),
        };
        pieces.iter().enumerate().map(token).collect()
    }

    #[test]
    fn what_a_tokenizer_puts_around_a_text_is_no_part_of_it() {
        for (text, pieces, expected) in [
            ("Hello you", &["Hello", " you"][..], Some(vec![0, 1])),
            ("Hello you", &["<s>", "Hello", " you"], Some(vec![1, 2])),
            ("Hello you", &["", "Hello", " you", ""], Some(vec![1, 2])),
            ("Hello you", &["<s>", " Hello", " you"], Some(vec![1, 2])),
            (" you", &["<s>", " ", " you"], Some(vec![1, 2])),
            ("Hello you", &["Hello", " me"], None),
            ("Hello you", &["Hello", " you", "!"], None),
            ("Hello you", &[], None),
            ("é", &["Ã", "©"], None),
        ] {
            assert_eq!(spelling(text, &tokens(pieces)), expected, "{text} {pieces:?}");
        }
    }

    #[test]
    fn a_long_text_is_cut_between_characters() {
        let text = format!("{}é", "a".repeat(TEXT_BYTES_MAX - 1));
        assert_eq!(cut(&text).len(), TEXT_BYTES_MAX - 1);
        assert_eq!(cut("short"), "short");
    }
}
