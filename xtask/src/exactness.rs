//! `xtask exactness`: the same answers by every route, over many tokens.
//!
//! In:     GGUF files, and how many tokens to compare.
//! Out:    a count of tokens compared and of differences; fails if there is one.
//! Touches: packs each model in memory.
//! Holds:  every answer is produced in a batch of sixteen strangers and then again by other routes: one prefill on each
//!         backend in turn, alone token by token, in odd chunks, on one thread and on two.
//! Absent: the second implementation, which the engine's tests compare on small models.

use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use surety_engine::replay::replay;
use surety_engine::{Event, Model, Scheduler, SchedulerLimits, SequenceRequest};
use surety_kernels::{Backend, Executor};
use surety_types::{Digest, Sampling};

/// Arguments of `xtask exactness`.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// GGUF files.
    #[arg(required = true)]
    models: Vec<PathBuf>,
    /// Tokens to compare for each model, at least.
    #[arg(long, default_value_t = 100_000)]
    tokens: usize,
    /// Tokens of one answer.
    #[arg(long, default_value_t = 128)]
    output_tokens: u32,
}

const BATCH: usize = 16;

/// Runs the comparison.
pub fn run(arguments: &Arguments) -> Result<()> {
    for path in &arguments.models {
        let routes = Routes::load(path)?;
        let (mut compared, mut differences, mut round) = (0, 0, 0);
        while compared < arguments.tokens {
            let (tokens, different) = routes.round(round, arguments.output_tokens)?;
            compared += tokens;
            differences += different;
            round += 1;
            eprintln!("{}: {compared} tokens compared, {differences} answers differ", path.display());
        }
        println!(
            "{}: {compared} tokens compared by every route, {differences} answers differ",
            path.display()
        );
        ensure!(differences == 0, "determinism is broken");
    }
    Ok(())
}

#[derive(PartialEq, Eq)]
struct Answer {
    tokens: Vec<u32>,
    state_digest: Digest,
}

struct Routes {
    model: Arc<Model>,
    executors: Vec<Arc<Executor>>,
}

impl Routes {
    fn load(path: &Path) -> Result<Self> {
        let bytes = std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
        let digest = Digest(*blake3::hash(&bytes).as_bytes());
        let threads = |count| NonZeroUsize::new(count).expect("not zero");
        // The scalar definition is far too slow for this many tokens; the tests compare it on small models.
        let executors: Vec<_> = Backend::available()
            .into_iter()
            .filter(|backend| *backend != Backend::Scalar)
            .flat_map(|backend| [1, 2].map(|count| Executor::new(backend, threads(count)).map(Arc::new)))
            .collect::<Result<_, _>>()?;
        ensure!(!executors.is_empty(), "this processor has no vector backend");
        let image = surety_engine::model::pack_in_memory(&bytes, digest, &executors[0])?;
        Ok(Self { model: Arc::new(Model::load(Arc::new(bytes), digest, image, Some(1_024))?), executors })
    }

    /// One batch of strangers and its repetitions: tokens compared, answers that differ.
    fn round(&self, round: usize, output_tokens: u32) -> Result<(usize, usize)> {
        let fastest = self.executors.last().expect("checked when loading");
        let requests: Vec<_> =
            (0..BATCH).map(|index| self.request(round * BATCH + index, output_tokens)).collect();
        let answers = self.serve(fastest, &requests, 512)?;
        let (mut compared, mut differences) = (0, 0);
        let mut compare = |request: &SequenceRequest, same: bool| {
            compared += request.prompt.len() + output_tokens as usize;
            differences += usize::from(!same);
        };
        for (index, (request, answer)) in requests.iter().zip(&answers).enumerate() {
            let executor = &self.executors[(round + index) % self.executors.len()];
            let replayed = replay(&self.model, executor, request, &answer.tokens, &mut |_, _| {})?;
            compare(request, replayed.difference.is_none() && replayed.state_digest == answer.state_digest);
        }
        for (index, tokens_per_step) in
            [(round % BATCH, 1), ((round + 5) % BATCH, 7), ((round + 11) % BATCH, 33)]
        {
            let executor = &self.executors[(round + index) % self.executors.len()];
            let alone = self.serve(executor, std::slice::from_ref(&requests[index]), tokens_per_step)?;
            compare(&requests[index], alone[0] == answers[index]);
        }
        Ok((compared, differences))
    }

    fn request(&self, number: usize, output_tokens: u32) -> SequenceRequest {
        let vocabulary = u64::from(self.model.architecture().vocabulary);
        let token = |position: usize| {
            let mixed = (number as u64 * 1_000_003 + position as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15);
            ((mixed >> 20) % vocabulary) as u32
        };
        SequenceRequest {
            prompt: (0..1 + number * 37 % 211).map(token).collect(),
            output: Vec::new(),
            sampling: Sampling { temperature: 0.8, top_p: 0.95, ..Sampling::default() },
            seed: *blake3::hash(&number.to_le_bytes()).as_bytes(),
            max_output_tokens: output_tokens,
            stop: Vec::new(),
            ignore_end: true,
            logprobs: None,
            prompt_logprobs: None,
            embedding: None,
            grammar: None,
        }
    }

    fn serve(
        &self,
        executor: &Arc<Executor>,
        requests: &[SequenceRequest],
        tokens_per_step: u32,
    ) -> Result<Vec<Answer>> {
        let limits = SchedulerLimits {
            kv_pages: 1_024,
            context_tokens: 1_024,
            tokens_per_step,
            running_max: BATCH as u32,
            waiting_max: BATCH as u32,
        };
        let mut scheduler = Scheduler::new(self.model.clone(), executor.clone(), limits)?;
        let ids: Vec<_> = requests
            .iter()
            .map(|request| scheduler.submit(request.clone()).expect("the cache holds the batch"))
            .collect();
        let mut answers: Vec<_> =
            ids.iter().map(|_| Answer { tokens: Vec::new(), state_digest: Digest::ZERO }).collect();
        while !scheduler.is_idle() {
            for event in scheduler.step() {
                let index = |id| ids.iter().position(|known| *known == id).expect("one of ours");
                match event {
                    Event::Token { sequence, token, .. } => answers[index(sequence)].tokens.push(token),
                    Event::Finished { sequence, state_digest, .. } => {
                        answers[index(sequence)].state_digest = state_digest;
                    }
                    // An answer cut short differs from every other route's.
                    Event::Prompt { .. } | Event::Embedding { .. } | Event::Failed { .. } => {}
                }
            }
        }
        Ok(answers)
    }
}
