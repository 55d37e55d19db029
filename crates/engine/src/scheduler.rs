//! The scheduler: many sequences through one model, a step at a time.
//!
//! In:     requests and cancellations, between steps.
//! Out:    events: tokens, text, ends and failures of each sequence.
//! Touches: its KV cache.
//! Holds:  a sequence's tokens do not depend on its neighbours, on the chunks its prompt is cut into, or on
//!         being set aside and recomputed; a cancelled sequence holds no memory; nobody is starved.
//! Absent: threads, clocks, channels. The caller owns the loop.
//!
//! Each step takes the running sequences in order of arrival: first one token for each that is producing, then
//! prompt chunks until the step is full. When the KV cache is full, the youngest sequence gives its pages up and
//! waits; it is recomputed later, bit for bit the same.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;

use surety_kernels::{Executor, KvCache, OutOfMemory};
use surety_types::{Digest, FinishReason, TokenLogprob};

use crate::embedding::{Collecting, EmbeddingError};
use crate::forward::{Forward, Segment};
use crate::generation::{Generation, NonFinite, PastTheEnd, Sampled, SequenceRequest};
use crate::model::Model;
use crate::pages::{PagePool, pages_for};
use crate::sampler;

/// Bounds on what the scheduler takes on.
#[derive(Clone, Copy, Debug)]
pub struct SchedulerLimits {
    /// Pages of the KV cache.
    pub kv_pages: u32,
    /// Positions one sequence may have, prompt and output together.
    pub context_tokens: u32,
    /// Rows computed in one step at most.
    pub tokens_per_step: u32,
    /// Sequences computed side by side at most.
    pub running_max: u32,
    /// Sequences waiting at most; one more is refused.
    pub waiting_max: u32,
}

/// Names a sequence within its scheduler.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SequenceId(u64);

/// What happened to a sequence.
#[derive(Debug)]
pub enum Event {
    /// Log-probabilities of the prompt's tokens; once, before the first token.
    Prompt {
        /// Which sequence.
        sequence: SequenceId,
        /// One entry for each prompt token. The first has nothing before it to be likely after: its
        /// log-probability is given as 0, without alternatives.
        logprobs: Vec<TokenLogprob>,
    },
    /// The vector of the prompt; once, and no token follows.
    Embedding {
        /// Which sequence.
        sequence: SequenceId,
        /// Of length one.
        vector: Vec<f32>,
    },
    /// A token was produced.
    Token {
        /// Which sequence.
        sequence: SequenceId,
        /// The token.
        token: u32,
        /// Text released by it; may be empty.
        text: String,
        /// Its log-probability, if asked for.
        logprob: Option<TokenLogprob>,
    },
    /// The sequence ended; its memory is free.
    Finished {
        /// Which sequence.
        sequence: SequenceId,
        /// Why.
        finish: FinishReason,
        /// The rest of the text.
        text: String,
        ///
        state_digest: Digest,
    },
    /// The sequence failed; its memory is free.
    Failed {
        /// Which sequence.
        sequence: SequenceId,
        /// Why.
        error: NonFinite,
    },
}

/// What a cancelled sequence leaves behind.
#[derive(Debug)]
pub struct Cancelled {
    /// Text that was held back.
    pub text: String,
    /// over what was sampled.
    pub state_digest: Digest,
}

/// Why a request was not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SubmitError {
    /// The prompt leaves no room for a token.
    #[error("the prompt has {prompt_tokens} tokens and the context window {context_tokens}")]
    ContextLength {
        /// Tokens of the prompt.
        prompt_tokens: usize,
        /// Positions a sequence may have.
        context_tokens: usize,
    },
    /// The KV cache is too small for this request even when empty.
    #[error("the request needs {needed_pages} pages of KV cache and there are {total_pages}")]
    TooLargeForMemory {
        /// Pages needed.
        needed_pages: usize,
        /// Pages there are.
        total_pages: usize,
    },
    /// Too many requests are waiting.
    #[error("{waiting} requests are waiting already")]
    Overloaded {
        /// Requests waiting.
        waiting: usize,
    },
    /// A token id is outside the vocabulary.
    #[error("token id {token} is outside the vocabulary of {vocabulary}")]
    BadToken {
        /// The id.
        token: u32,
        /// Tokens in the vocabulary.
        vocabulary: u32,
    },
    /// The prompt is empty.
    #[error("the prompt has no tokens")]
    EmptyPrompt,
    /// The model does not give such a vector.
    #[error("the model does not give this vector")]
    Embedding(#[from] EmbeddingError),
    /// The answer to be continued is over.
    #[error("the answer cannot be continued")]
    PastTheEnd(#[from] PastTheEnd),
}

/// One sequence.
struct Sequence {
    id: SequenceId,
    prompt: Vec<u32>,
    generation: Generation,
    pages: Vec<u32>,
    /// Positions whose keys and values are in the cache.
    computed: usize,
    prompt_logprobs: Option<PromptLogprobs>,
    embedding: Option<Collecting>,
    paused: bool,
    end: Option<Result<FinishReason, NonFinite>>,
}

/// Log-probabilities of the prompt, collected while it is computed.
struct PromptLogprobs {
    top: u8,
    collected: Vec<TokenLogprob>,
}

impl Sequence {
    /// Positions whose tokens are known.
    fn known(&self) -> usize {
        self.prompt.len() + self.generation.output().len()
    }

    /// Rows that one step may compute: a prompt that is scored is not computed together with what it continues.
    fn rows_at_once(&self) -> usize {
        let unscored = (self.prompt.len() - 1).saturating_sub(self.computed);
        if self.prompt_logprobs.is_some() && unscored > 0 { unscored } else { usize::MAX }
    }

    fn token(&self, position: usize) -> u32 {
        match position.checked_sub(self.prompt.len()) {
            None => self.prompt[position],
            Some(index) => self.generation.output()[index],
        }
    }
}

/// The rows of one sequence in a step.
struct Share {
    sequence: usize,
    rows: usize,
}

/// Runs sequences over one model. See the module's page.
pub struct Scheduler {
    model: Arc<Model>,
    executor: Arc<Executor>,
    limits: SchedulerLimits,
    cache: KvCache,
    pool: PagePool,
    forward: Forward,
    running: Vec<Sequence>,
    waiting: VecDeque<Sequence>,
    next_id: u64,
}

impl Scheduler {
    /// A scheduler with an empty cache.
    ///
    /// # Errors
    /// `OutOfMemory` if the cache cannot be had.
    pub fn new(
        model: Arc<Model>,
        executor: Arc<Executor>,
        limits: SchedulerLimits,
    ) -> Result<Self, OutOfMemory> {
        let cache = KvCache::new(model.kv_shape(), limits.kv_pages as usize)?;
        let forward = Forward::new(&model, limits.tokens_per_step as usize);
        Ok(Self {
            pool: PagePool::new(limits.kv_pages),
            model,
            executor,
            limits,
            cache,
            forward,
            running: Vec::new(),
            waiting: VecDeque::new(),
            next_id: 0,
        })
    }

    /// Takes a request on; it starts at the next step that has room.
    ///
    /// # Errors
    /// `SubmitError`, with the numbers that decided.
    pub fn submit(&mut self, request: SequenceRequest) -> Result<SequenceId, SubmitError> {
        let prompt_tokens = request.prompt.len();
        let context_tokens = self.limits.context_tokens.min(self.model.context_tokens()) as usize;
        let vocabulary = self.model.architecture().vocabulary;
        if prompt_tokens == 0 {
            return Err(SubmitError::EmptyPrompt);
        }
        if prompt_tokens >= context_tokens {
            return Err(SubmitError::ContextLength { prompt_tokens, context_tokens });
        }
        if let Some(&token) = request.prompt.iter().chain(&request.output).find(|&&token| token >= vocabulary)
        {
            return Err(SubmitError::BadToken { token, vocabulary });
        }
        let positions = (prompt_tokens + request.max_output_tokens as usize).min(context_tokens);
        let needed_pages = pages_for(positions);
        let total_pages = self.pool.total();
        if needed_pages > total_pages {
            return Err(SubmitError::TooLargeForMemory { needed_pages, total_pages });
        }
        if self.waiting.len() >= self.limits.waiting_max as usize {
            return Err(SubmitError::Overloaded { waiting: self.waiting.len() });
        }
        let embedding = request.embedding.map(|wanted| self.model.collect(wanted)).transpose()?;
        let generation = Generation::new(&request, self.model.tokenizer())?;
        let id = SequenceId(self.next_id);
        self.next_id += 1;
        self.waiting.push_back(Sequence {
            id,
            generation,
            prompt: request.prompt,
            pages: Vec::new(),
            computed: 0,
            prompt_logprobs: request.prompt_logprobs.map(|top| PromptLogprobs { top, collected: Vec::new() }),
            embedding,
            paused: false,
            end: None,
        });
        Ok(id)
    }

    /// Ends a sequence and frees its memory at once. `None` if there is no such sequence: it may just have ended.
    pub fn cancel(&mut self, id: SequenceId) -> Option<Cancelled> {
        let sequence = match self.running.iter().position(|sequence| sequence.id == id) {
            Some(index) => self.remove(index),
            None => {
                let index = self.waiting.iter().position(|sequence| sequence.id == id)?;
                self.waiting.remove(index)?
            }
        };
        let (text, state_digest) = sequence.generation.finish();
        Some(Cancelled { text, state_digest })
    }

    /// Lets a sequence rest, or go on: while it rests no step computes for it, and it keeps its memory unless another needs
    /// it. Its tokens are the same either way. Without effect if there is no such sequence.
    pub fn set_paused(&mut self, id: SequenceId, paused: bool) {
        let mut all = self.running.iter_mut().chain(&mut self.waiting);
        if let Some(sequence) = all.find(|sequence| sequence.id == id) {
            sequence.paused = paused;
        }
    }

    /// Nothing to do until the next `submit`, or until a sequence goes on.
    pub fn is_idle(&self) -> bool {
        let full = self.running.len() >= self.limits.running_max as usize;
        self.running.iter().all(|sequence| sequence.paused)
            && (full || self.waiting.iter().all(|sequence| sequence.paused))
    }

    /// Sequences being computed.
    pub fn running(&self) -> usize {
        self.running.len()
    }

    /// Sequences waiting for room.
    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// Free pages of the KV cache.
    pub fn free_pages(&self) -> usize {
        self.pool.free()
    }

    /// Computes one step and says what came of it.
    pub fn step(&mut self) -> Vec<Event> {
        self.admit();
        let shares = self.share_step();
        if shares.is_empty() {
            return Vec::new();
        }
        let mut events = Vec::new();
        let faulty = self.run(&shares);
        let mut states = 0;
        for (share, faulty) in shares.iter().zip(faulty) {
            let positions = self.outputs(share);
            let first_state = states;
            states += positions.len();
            if let Some(row) = faulty {
                let sequence = &mut self.running[share.sequence];
                sequence.end = Some(Err(NonFinite { position: (sequence.computed + row) as u64 }));
            } else {
                self.take_outputs(share, positions, first_state, &mut events);
            }
        }
        self.remove_ended(&mut events);
        events
    }

    /// Moves waiting sequences in while there is room for the next chunk of each.
    fn admit(&mut self) {
        while self.running.len() < self.limits.running_max as usize {
            let Some(next) = self.waiting.front() else { break };
            let wanted = pages_for(next.known().min(self.limits.tokens_per_step as usize));
            // One page a running sequence is left free, so that an arrival does not at once push another out.
            if wanted + self.running.len() > self.pool.free() && !self.running.is_empty() {
                break;
            }
            let sequence = self.waiting.pop_front().expect("just seen");
            self.running.push(sequence);
        }
    }

    /// Decides whose rows are computed, and gives them pages.
    fn share_step(&mut self) -> Vec<Share> {
        let mut left = self.limits.tokens_per_step as usize;
        let mut shares: Vec<Share> = Vec::new();
        for producing in [true, false] {
            let mut index = 0;
            while index < self.running.len() && left > 0 {
                let pending = self.running[index].known() - self.running[index].computed;
                if (pending == 1) == producing && !self.running[index].paused {
                    let rows = pending.min(left).min(self.running[index].rows_at_once());
                    if !self.make_room(index, rows, &mut shares) {
                        break;
                    }
                    shares.push(Share { sequence: index, rows });
                    left -= rows;
                }
                index += 1;
            }
        }
        shares.retain(|share| share.rows > 0);
        shares.sort_unstable_by_key(|share| share.sequence);
        shares
    }

    /// Gets pages for the next `rows` positions of a sequence, setting younger sequences aside if needed.
    fn make_room(&mut self, index: usize, rows: usize, shares: &mut Vec<Share>) -> bool {
        loop {
            let sequence = &mut self.running[index];
            let positions = sequence.computed + rows;
            if self.pool.grow(&mut sequence.pages, positions) {
                return true;
            }
            let youngest = self.running.len() - 1;
            if youngest == index {
                return false;
            }
            shares.retain(|share| share.sequence != youngest);
            let mut aside = self.running.pop().expect("there is a younger sequence");
            self.pool.release(&mut aside.pages);
            aside.computed = 0;
            if let Some(prompt) = &mut aside.prompt_logprobs {
                prompt.collected.clear();
            }
            if let Some(embedding) = &mut aside.embedding {
                embedding.clear();
            }
            self.waiting.push_front(aside);
        }
    }

    /// Positions of a share whose states or logits are wanted.
    fn outputs(&self, share: &Share) -> std::ops::Range<usize> {
        let sequence = &self.running[share.sequence];
        let end = sequence.computed + share.rows;
        if let Some(embedding) = &sequence.embedding {
            return embedding.wanted(sequence.computed..end, sequence.prompt.len());
        }
        let last = if end == sequence.known() { end } else { end.min(sequence.prompt.len() - 1) };
        let first = match sequence.prompt_logprobs {
            Some(_) if sequence.computed < sequence.prompt.len() - 1 => sequence.computed,
            _ if end == sequence.known() => end - 1,
            _ => return end..end,
        };
        first..last.max(first)
    }

    /// Runs the forward pass; says for each share in which of its rows a non-finite value first turned up, if in any.
    fn run(&mut self, shares: &[Share]) -> Vec<Option<usize>> {
        let mut tokens = Vec::new();
        let mut segments = Vec::with_capacity(shares.len());
        let mut outputs = Vec::new();
        for share in shares {
            let sequence = &self.running[share.sequence];
            let start = tokens.len();
            let positions = sequence.computed..sequence.computed + share.rows;
            tokens.extend(positions.clone().map(|position| sequence.token(position)));
            outputs.extend(self.outputs(share).map(|position| start + position - positions.start));
            segments.push(Segment {
                pages: &sequence.pages,
                first_position: positions.start,
                rows: start..tokens.len(),
            });
        }
        let faults =
            self.forward.run(&self.model, &self.executor, &mut self.cache, &tokens, &segments, &outputs);
        let first =
            |rows: &Range<usize>| faults.iter().find(|row| rows.contains(row)).map(|row| row - rows.start);
        segments.iter().map(|segment| first(&segment.rows)).collect()
    }

    /// Takes the logits of one share: prompt log-probabilities, then the next token.
    fn take_outputs(
        &mut self,
        share: &Share,
        positions: std::ops::Range<usize>,
        first_state: usize,
        events: &mut Vec<Event>,
    ) {
        let sequence = &mut self.running[share.sequence];
        sequence.computed += share.rows;
        if let Some(embedding) = &mut sequence.embedding {
            let mut state = Vec::new();
            for (index, position) in (first_state..).zip(positions) {
                if !self.forward.state(&self.model, &self.executor, index, &mut state) {
                    sequence.end = Some(Err(NonFinite { position: position as u64 }));
                    return;
                }
                embedding.take(&state);
            }
            if sequence.computed == sequence.prompt.len()
                && let Some(embedding) = sequence.embedding.take()
            {
                let last = NonFinite { position: sequence.prompt.len() as u64 - 1 };
                sequence.end = Some(match embedding.finish() {
                    Some(vector) => {
                        sequence.generation.commit(&vector);
                        events.push(Event::Embedding { sequence: sequence.id, vector });
                        Ok(FinishReason::Length)
                    }
                    None => Err(last),
                });
            }
            return;
        }
        let tokenizer = self.model.tokenizer();
        for (index, position) in (first_state..).zip(positions) {
            let (state, logits) = self.forward.output(&self.model, &self.executor, index);
            if position + 1 < sequence.prompt.len() {
                let prompt = sequence.prompt_logprobs.as_mut().expect("only then are these positions wanted");
                if !self.executor.all_finite(logits) {
                    sequence.end = Some(Err(NonFinite { position: position as u64 }));
                    return;
                }
                let token = sequence.prompt[position + 1];
                let bytes = |token| tokenizer.token_bytes(token).to_vec();
                if prompt.collected.is_empty() {
                    prompt.collected.push(certain(sequence.prompt[0], &bytes));
                }
                prompt.collected.push(sampler::logprob(&self.executor, logits, token, prompt.top, &bytes));
                continue;
            }
            if let Some(mut prompt) = sequence.prompt_logprobs.take() {
                if prompt.collected.is_empty() {
                    let bytes = |token| tokenizer.token_bytes(token).to_vec();
                    prompt.collected.push(certain(sequence.prompt[0], &bytes));
                }
                events.push(Event::Prompt { sequence: sequence.id, logprobs: prompt.collected });
            }
            // It may be over before anything is sampled: only the prompt was to be scored, or what it continues is all.
            if let Some(finish) = sequence.generation.ended() {
                sequence.end = Some(Ok(finish));
                return;
            }
            match sequence.generation.sample(&self.executor, tokenizer, state, logits) {
                Ok(Sampled { token, text, logprob }) => {
                    events.push(Event::Token { sequence: sequence.id, token, text, logprob });
                    sequence.end = sequence.generation.ended().map(Ok);
                }
                Err(error) => sequence.end = Some(Err(error)),
            }
        }
    }

    /// Takes out every sequence that ended, frees its memory and says so.
    fn remove_ended(&mut self, events: &mut Vec<Event>) {
        let mut index = 0;
        while index < self.running.len() {
            let Some(end) = self.running[index].end else {
                index += 1;
                continue;
            };
            let ended = self.remove(index);
            events.push(match end {
                Ok(finish) => {
                    let (text, state_digest) = ended.generation.finish();
                    Event::Finished { sequence: ended.id, finish, text, state_digest }
                }
                Err(error) => Event::Failed { sequence: ended.id, error },
            });
        }
    }

    fn remove(&mut self, index: usize) -> Sequence {
        let mut sequence = self.running.remove(index);
        self.pool.release(&mut sequence.pages);
        sequence
    }
}

/// The entry of a prompt's first token.
fn certain(token: u32, bytes: &dyn Fn(u32) -> Vec<u8>) -> TokenLogprob {
    TokenLogprob { token, bytes: bytes(token), logprob: 0.0, top: Vec::new() }
}
