//! One answer in the making: samples a position, decides whether the answer ends, releases its text.
//!
//! In:     the state vector and the logits of each position, in order.
//! Out:    tokens, text, the finish reason, the state digest.
//! Touches: nothing.
//! Holds:  serving and checking run this same code, so they cannot disagree on where an answer ends.
//! Absent: the forward pass and the batch (`forward`, `scheduler`, `replay`).

use std::sync::Arc;

use surety_grammar::Grammar;
use surety_kernels::Executor;
use surety_types::embedding::vector_bytes;
use surety_types::{Digest, Embedding, FinishReason, Sampling, TokenLogprob};

use crate::constraint::Constraint;
use crate::sampler::{self, History};
use crate::text::TextStream;
use crate::tokenizer::Tokenizer;

/// What one sequence is asked to produce.
#[derive(Clone, Debug)]
pub struct SequenceRequest {
    /// Token ids of the prompt; at least one.
    pub prompt: Vec<u32>,
    /// Token ids already produced elsewhere, to be continued; usually empty.
    pub output: Vec<u32>,
    /// How tokens are chosen.
    pub sampling: Sampling,
    /// The sampling seed.
    pub seed: [u8; 32],
    /// Tokens to produce at most, those of `output` included. None at all scores the prompt.
    pub max_output_tokens: u32,
    /// Strings that end the answer and are not part of it.
    pub stop: Vec<String>,
    /// Go on after an end-of-generation token.
    pub ignore_end: bool,
    /// Give log-probabilities of each output token, with this many alternatives.
    pub logprobs: Option<u8>,
    /// Give log-probabilities of each prompt token, with this many alternatives.
    pub prompt_logprobs: Option<u8>,
    /// Give a vector of the prompt, and produce nothing.
    pub embedding: Option<Embedding>,
    /// What the answer keeps to, from [`crate::constraint`] for the same model.
    pub grammar: Option<Arc<Grammar>>,
}

/// What one sampled token adds.
#[derive(Debug)]
pub(crate) struct Sampled {
    pub(crate) token: u32,
    pub(crate) text: String,
    pub(crate) logprob: Option<TokenLogprob>,
}

/// A position whose logits are not finite.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the model produced a value that is not a finite number at position {position}")]
pub struct NonFinite {
    /// Position in the sequence, the prompt's first token at 0.
    pub position: u64,
}

/// The running state of one answer.
pub(crate) struct Generation {
    sampling: Sampling,
    seed: [u8; 32],
    prompt_tokens: usize,
    max_output_tokens: usize,
    ignore_end: bool,
    logprobs: Option<u8>,
    history: History,
    constraint: Option<Constraint>,
    output: Vec<u32>,
    text: TextStream,
    states: blake3::Hasher,
    state_bytes: Vec<u8>,
    weights: Vec<u64>,
    /// How the answer ended, once it has.
    ended: Option<FinishReason>,
}

/// Tokens to be continued, though the answer ends among them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the answer ends before output token {index}")]
pub struct PastTheEnd {
    /// Index in the output of the first token that should not be there.
    pub index: usize,
}

impl Generation {
    /// Starts an answer. Tokens of `request.output` are taken as said: their text is released already, and their states are
    /// not part of the digest.
    ///
    /// # Errors
    /// `PastTheEnd` if the answer ends before their last.
    pub(crate) fn new(request: &SequenceRequest, tokenizer: &Tokenizer) -> Result<Self, PastTheEnd> {
        let mut generation = Self {
            sampling: request.sampling.clone(),
            seed: request.seed,
            prompt_tokens: request.prompt.len(),
            max_output_tokens: request.max_output_tokens as usize,
            ignore_end: request.ignore_end,
            logprobs: request.logprobs,
            history: History::of_prompt(&request.prompt),
            constraint: request.grammar.clone().map(Constraint::new),
            output: Vec::new(),
            text: TextStream::new(&request.stop),
            states: blake3::Hasher::new(),
            state_bytes: Vec::new(),
            weights: Vec::new(),
            ended: (request.max_output_tokens == 0).then_some(FinishReason::Length),
        };
        for (index, &token) in request.output.iter().enumerate() {
            if generation.ended.is_some() {
                return Err(PastTheEnd { index });
            }
            generation.accept(token, tokenizer);
        }
        Ok(generation)
    }

    /// How the answer ended, if it has.
    pub(crate) fn ended(&self) -> Option<FinishReason> {
        self.ended
    }

    /// Tokens produced so far.
    pub(crate) fn output(&self) -> &[u32] {
        &self.output
    }

    /// Samples the next token.
    ///
    /// state [width]; logits [vocabulary], adjusted in place.
    ///
    /// # Errors
    /// `NonFinite` if a logit is not finite, before or after adjustment; nothing is sampled then.
    pub(crate) fn sample(
        &mut self,
        executor: &Executor,
        tokenizer: &Tokenizer,
        state: &[f32],
        logits: &mut [f32],
    ) -> Result<Sampled, NonFinite> {
        let position = (self.prompt_tokens + self.output.len()) as u64;
        let finite =
            |logits: &[f32]| if executor.all_finite(logits) { Ok(()) } else { Err(NonFinite { position }) };
        finite(logits)?;
        let unadjusted = self.logprobs.map(|_| logits.to_vec());
        sampler::adjust(logits, &self.sampling, &self.history);
        finite(logits)?;
        if let Some(constraint) = &mut self.constraint {
            constraint.apply(logits, tokenizer);
        }

        self.state_bytes.clear();
        self.state_bytes.extend(state.iter().flat_map(|value| value.to_le_bytes()));
        self.states.update(&self.state_bytes);
        let token =
            sampler::sample(executor, logits, &self.sampling, &self.seed, position, &mut self.weights);
        let logprob = self.logprobs.zip(unadjusted).map(|(top, logits)| {
            let bytes = |token| tokenizer.token_bytes(token).to_vec();
            sampler::logprob(executor, &logits, token, top, &bytes)
        });
        let text = self.accept(token, tokenizer);
        Ok(Sampled { token, text, logprob })
    }

    /// Commits to a vector in the place of states.
    pub(crate) fn commit(&mut self, vector: &[f32]) {
        self.states.update(&vector_bytes(vector));
    }

    /// Takes a token in; returns the text it releases.
    fn accept(&mut self, token: u32, tokenizer: &Tokenizer) -> String {
        self.output.push(token);
        self.history.push(token);
        if let Some(constraint) = &mut self.constraint {
            constraint.push(token, tokenizer);
        }
        if !self.ignore_end && tokenizer.is_end_of_generation(token) {
            self.ended = Some(FinishReason::Stop);
            return String::new();
        }
        let released = self.text.push(tokenizer.text_bytes(token));
        if released.stopped {
            self.ended = Some(FinishReason::Stop);
        } else if self.output.len() >= self.max_output_tokens {
            self.ended = Some(FinishReason::Length);
        }
        released.text
    }

    /// Ends the answer: the text still held back, and the digest of the sampled positions' states.
    pub(crate) fn finish(self) -> (String, Digest) {
        (self.text.finish(), Digest(*self.states.finalize().as_bytes()))
    }
}
