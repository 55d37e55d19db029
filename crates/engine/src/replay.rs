//! Exact re-execution: checks an answer in one teacher-forced prefill.
//!
//! In:     a request and the tokens somebody claims are its answer.
//! Out:    what this engine computes for the same request: the state digest, the text, how it ends, and the first
//!         token that differs, if one does.
//! Touches: nothing.
//! Holds:  the same code samples here as in serving (`generation`), from the same forward pass.
//! Absent: receipts and what follows from a difference (the worker's `audit`).

use surety_kernels::{Executor, KvCache, OutOfMemory};
use surety_types::{Digest, FinishReason};

use crate::embedding::EmbeddingError;
use crate::forward::{Forward, Segment};
use crate::generation::{Generation, NonFinite, PastTheEnd, Sampled, SequenceRequest};
use crate::model::Model;
use crate::pages::pages_for;

/// Rows computed at a time.
const CHUNK_ROWS: usize = 512;

/// What re-execution found.
#[derive(Debug, PartialEq)]
pub struct Replay {
    /// over the positions sampled: all of them unless `difference` is set.
    pub state_digest: Digest,
    /// The text that the tokens release, after that of those taken as said.
    pub text: String,
    /// What is still held back at the last, and follows where the answer ends there.
    pub rest: String,
    /// How the answer ends at its last token; `None` if it goes on from there.
    pub finish: Option<FinishReason>,
    /// The first difference between claim and computation.
    pub difference: Option<Difference>,
    /// The vector, where one was asked for.
    pub vector: Option<Vec<f32>>,
}

/// How a claimed answer differs from the computed one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Difference {
    /// Another token is sampled at this index of the output.
    Token {
        /// Index in the output.
        index: usize,
        /// What is computed.
        computed: u32,
        /// What was claimed.
        claimed: u32,
    },
    /// The answer ends before this index; the claim goes on.
    PastTheEnd {
        /// Index in the output of the first token that should not be there.
        index: usize,
    },
}

/// Why a claim cannot be re-executed.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    /// The prompt is empty, too long for the model, or names tokens outside the vocabulary.
    #[error("the claimed tokens are no sequence of this model")]
    NoSequence,
    /// The answer is over before what was taken as said.
    #[error("the answer that is continued was over already")]
    PastTheEnd(#[from] PastTheEnd),
    /// The computation meets a value that is not a finite number.
    #[error("re-execution failed")]
    NonFinite(#[from] NonFinite),
    /// The model gives no such vector.
    #[error("the model does not give this vector")]
    Embedding(#[from] EmbeddingError),
    /// There is no memory for the answer's keys and values.
    #[error("re-execution failed")]
    OutOfMemory(#[from] OutOfMemory),
}

/// Re-executes a request against the claimed `output`.
///
/// Tokens of `request.output` are taken as said. `progress` is told the positions done and the positions in all.
///
/// # Errors
/// `ReplayError` if there is nothing to compare with.
pub fn replay(
    model: &Model,
    executor: &Executor,
    request: &SequenceRequest,
    output: &[u32],
    progress: &mut dyn FnMut(usize, usize),
) -> Result<Replay, ReplayError> {
    let architecture = model.architecture();
    // The last token is sampled, never computed with.
    let forced = &output[..output.len().saturating_sub(1)];
    let tokens: Vec<u32> = request.prompt.iter().chain(&request.output).chain(forced).copied().collect();
    let in_vocabulary = tokens.iter().chain(output.last()).all(|&token| token < architecture.vocabulary);
    let fits = tokens.len() <= model.context_tokens() as usize;
    if request.prompt.is_empty() || !in_vocabulary || !fits {
        return Err(ReplayError::NoSequence);
    }
    let mut generation = Generation::new(request, model.tokenizer())?;
    let mut embedding = request.embedding.map(|wanted| model.collect(wanted)).transpose()?;
    if embedding.is_some() && !output.is_empty() {
        return Err(ReplayError::NoSequence);
    }

    let pages: Vec<u32> = (0..pages_for(tokens.len()) as u32).collect();
    let mut cache = KvCache::new(model.kv_shape(), pages.len())?;
    let mut forward = Forward::new(model, CHUNK_ROWS.min(tokens.len()));
    let mut text = String::new();
    let mut difference = None;
    let first_sampled = request.prompt.len() + request.output.len() - 1;
    let computed = if output.is_empty() && embedding.is_none() { 0 } else { tokens.len() };
    let mut state = Vec::new();

    'chunks: for start in (0..computed).step_by(CHUNK_ROWS) {
        let rows = &tokens[start..(start + CHUNK_ROWS).min(tokens.len())];
        let sampled: Vec<usize> = match &embedding {
            Some(embedding) => {
                let wanted = embedding.wanted(start..start + rows.len(), tokens.len());
                (wanted.start - start..wanted.end - start).collect()
            }
            None => (first_sampled.saturating_sub(start)..rows.len()).collect(),
        };
        let segment = Segment { pages: &pages, first_position: start, rows: 0..rows.len() };
        let faults = forward.run(model, executor, &mut cache, rows, &[segment], &sampled);
        if let Some(row) = faults.first() {
            return Err(NonFinite { position: (start + row) as u64 }.into());
        }
        if let Some(embedding) = &mut embedding {
            for (index, row) in sampled.iter().enumerate() {
                if !forward.state(model, executor, index, &mut state) {
                    return Err(NonFinite { position: (start + row) as u64 }.into());
                }
                embedding.take(&state);
            }
            progress(start + rows.len(), computed);
            continue;
        }
        for (index, row) in sampled.iter().enumerate() {
            let output_index = start + row - first_sampled;
            if generation.ended().is_some() {
                difference = Some(Difference::PastTheEnd { index: output_index });
                break 'chunks;
            }
            let (state, logits) = forward.output(model, executor, index);
            let claimed = output[output_index];
            let Sampled { token, text: released, .. } =
                generation.sample(executor, model.tokenizer(), state, logits)?;
            if token != claimed {
                difference = Some(Difference::Token { index: output_index, computed: token, claimed });
                break 'chunks;
            }
            text += &released;
        }
        progress(start + rows.len(), computed);
    }
    let vector = match embedding {
        None => None,
        Some(embedding) => {
            let vector = embedding.finish().ok_or(NonFinite { position: tokens.len() as u64 - 1 })?;
            generation.commit(&vector);
            Some(vector)
        }
    };
    let finish = generation.ended();
    let (rest, state_digest) = generation.finish();
    Ok(Replay { state_digest, text, rest, finish, difference, vector })
}
