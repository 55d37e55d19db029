//! What the engine's tests share: small models, and a way to run requests through a scheduler.
#![allow(dead_code, reason = "each test binary uses its own part")]

use std::num::NonZeroUsize;
use std::path::Path;
use std::sync::Arc;

use surety_engine::model::pack_in_memory;
use surety_engine::{Event, Model, Scheduler, SchedulerLimits, SequenceRequest};
use surety_kernels::{Backend, Executor};
use surety_types::{Digest, FinishReason, Sampling};
use xtask::random_model::{self, Format, Settings, Shape};

/// A model and the file it came from.
pub struct Loaded {
    pub name: String,
    pub file: Arc<Vec<u8>>,
    pub model: Arc<Model>,
}

pub fn executor(backend: Backend, threads: usize) -> Arc<Executor> {
    Arc::new(Executor::new(backend, NonZeroUsize::new(threads).unwrap()).unwrap())
}

pub fn load(name: &str, file: Vec<u8>) -> Loaded {
    let digest = Digest(*blake3::hash(&file).as_bytes());
    let image = pack_in_memory(&file, digest, &executor(Backend::detect(), 2)).unwrap();
    let file = Arc::new(file);
    let model = Arc::new(Model::load(file.clone(), digest, image, None).unwrap());
    Loaded { name: name.to_owned(), file, model }
}

pub fn tiny(shape: Shape, format: Format) -> Loaded {
    load(&format!("{shape:?} {format:?}"), random_model::bytes(&Settings { shape, format, seed: 1 }))
}

/// The model in the repository.
pub fn bundled() -> Loaded {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/shakespeare-demo.gguf");
    load("bundled", std::fs::read(path).unwrap())
}

pub fn limits() -> SchedulerLimits {
    SchedulerLimits {
        kv_pages: 256,
        context_tokens: 1_024,
        tokens_per_step: 64,
        running_max: 64,
        waiting_max: 64,
    }
}

pub fn request(prompt: Vec<u32>, max_output_tokens: u32) -> SequenceRequest {
    SequenceRequest {
        prompt,
        output: Vec::new(),
        sampling: Sampling { temperature: 0.9, top_p: 0.95, ..Sampling::default() },
        seed: [7; 32],
        max_output_tokens,
        stop: Vec::new(),
        ignore_end: true,
        logprobs: None,
        prompt_logprobs: None,
        embedding: None,
        grammar: None,
    }
}

/// Tokens that look random and are the same everywhere.
pub fn tokens(model: &Model, seed: u64, count: usize) -> Vec<u32> {
    let vocabulary = u64::from(model.architecture().vocabulary);
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    (0..count)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state % vocabulary) as u32
        })
        .collect()
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    pub tokens: Vec<u32>,
    pub text: String,
    pub finish: FinishReason,
    pub state_digest: Digest,
}

/// Runs all requests side by side; answers in their order.
pub fn run(
    model: &Arc<Model>,
    executor: &Arc<Executor>,
    limits: SchedulerLimits,
    requests: &[SequenceRequest],
) -> Vec<Answer> {
    let mut scheduler = Scheduler::new(model.clone(), executor.clone(), limits).unwrap();
    let ids: Vec<_> = requests.iter().map(|request| scheduler.submit(request.clone()).unwrap()).collect();
    let mut tokens = vec![Vec::new(); ids.len()];
    let mut texts = vec![String::new(); ids.len()];
    let mut answers = vec![None; ids.len()];
    while !scheduler.is_idle() {
        for event in scheduler.step() {
            let index = |id| ids.iter().position(|known| *known == id).unwrap();
            match event {
                Event::Prompt { .. } | Event::Embedding { .. } => {}
                Event::Token { sequence, token, text, .. } => {
                    tokens[index(sequence)].push(token);
                    texts[index(sequence)] += &text;
                }
                Event::Finished { sequence, finish, text, state_digest } => {
                    let index = index(sequence);
                    let text = std::mem::take(&mut texts[index]) + &text;
                    let tokens = std::mem::take(&mut tokens[index]);
                    answers[index] = Some(Answer { tokens, text, finish, state_digest });
                }
                Event::Failed { error, .. } => panic!("{error}"),
            }
        }
    }
    assert_eq!(scheduler.free_pages(), limits.kv_pages as usize, "an ended sequence holds no memory");
    answers.into_iter().map(|answer| answer.expect("every sequence ends")).collect()
}
