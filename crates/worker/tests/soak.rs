//! Honest answers served by one machine's kernels and audited by another's: every receipt holds, to the bit.
//!
//! Batches of strangers, of many sizes, in steps of many sizes, on one thread and on several, with caches too small for all
//! of them, are served by each backend of this processor and signed for as a worker does; then every answer is audited with
//! another backend, as [`surety_worker::audit`] does it: signatures and bindings, one teacher-forced prefill, tokens, text,
//! end and state commitment. Ordinary runs audit a few thousand tokens; for 10⁶ of several models in some minutes:
//!
//! `SURETY_TOKENS=1000000 SURETY_MODELS=FILE:FILE cargo test --release -p surety-worker --test soak -- --nocapture`
//!
//! `SURETY_MODELS` are GGUF files [default: the bundled model, and small random ones], `SURETY_SEED` names the questions.

mod liar;

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use liar::{Computed, Liar, bundled_file, chat, load, order};
use surety_engine::{Event, Scheduler, SchedulerLimits, SequenceRequest};
use surety_kernels::{Backend, Executor, PAGE_POSITIONS};
use surety_proof::check::{Expected, check_answer};
use surety_types::{Digest, FinishReason, Order, Prompt, Request, Sampling};
use surety_worker::audit::recompute;
use xtask::random_model::{self, Format, Shape};

/// Answers served side by side.
const BATCHES: [usize; 7] = [3, 16, 1, 8, 5, 48, 32];
/// Rows of a step, at most.
const STEPS: [u32; 5] = [512, 1, 33, 128, 7];
/// Output tokens of an answer, at most.
const OUTPUTS: [u32; 5] = [128, 48, 200, 16, 96];
/// Positions of an answer, at most.
const CONTEXT: u32 = 1_024;
/// The scalar kernels are there to be read: every so many rounds they serve, and of so many answers they audit one.
const SCALAR_EVERY: u64 = 24;
/// By then the scalar kernels have served and audited.
const ROUNDS_MIN: u64 = 5;

fn setting(name: &str, ordinary: u64) -> u64 {
    std::env::var(name).ok().and_then(|value| value.parse().ok()).unwrap_or(ordinary)
}

/// Numbers that a seed and a few others name.
fn drawn(seed: u64, round: u64, index: u64) -> impl FnMut(u64) -> u64 {
    let mut state = blake3::Hasher::new()
        .update(&seed.to_le_bytes())
        .update(&round.to_le_bytes())
        .update(&index.to_le_bytes())
        .finalize_xof();
    move |bound| {
        let mut bytes = [0; 8];
        state.fill(&mut bytes);
        u64::from_le_bytes(bytes) % bound
    }
}

/// Ways to sample.
fn sampling(below: &mut impl FnMut(u64) -> u64) -> Sampling {
    let plain = Sampling::default;
    let all = [
        Sampling { temperature: 0.0, ..plain() },
        Sampling { temperature: 0.8, ..plain() },
        Sampling { temperature: 0.9, top_p: 0.9, ..plain() },
        Sampling { temperature: 1.2, top_k: 40, ..plain() },
        Sampling { temperature: 0.7, min_p: 0.05, ..plain() },
        Sampling { temperature: 0.8, repetition_penalty: 1.2, frequency_penalty: 0.3, ..plain() },
        Sampling {
            temperature: 0.0,
            presence_penalty: 0.7,
            logit_bias: vec![(65, 2.0), (301, -4.0)],
            ..plain()
        },
        Sampling { temperature: 1.0, top_k: 60, top_p: 0.95, min_p: 0.01, presence_penalty: 0.4, ..plain() },
    ];
    all[below(all.len() as u64) as usize].clone()
}

fn request(below: &mut impl FnMut(u64) -> u64, vocabulary: u32) -> Request {
    const WORDS: [&str; 12] =
        ["king", "night", "the", "sword", "of", "and", "who", "comes", "there", "mercy", "queen", "storm"];
    let words = 1 + below(40);
    let text: Vec<&str> = (0..words).map(|_| WORDS[below(12) as usize]).collect();
    let mut request = chat("A street in Rome.", &text.join(" "));
    match below(4) {
        0 => request.prompt = Prompt::Text(text.join(" ")),
        1 => {
            let count = 1 + below(200);
            request.prompt = Prompt::Tokens((0..count).map(|_| below(vocabulary.into()) as u32).collect());
        }
        _ => {}
    }
    if below(5) == 0 {
        request.stop = vec!["\n\n".into(), "e t".into()];
    }
    request
}

/// What two backends did together.
#[derive(Clone, Copy, Debug, Default)]
struct Pair {
    answers: u64,
    tokens: u64,
    positions: u64,
}

/// What is audited, and what came of it.
struct Soak {
    name: String,
    liar: Liar,
    executors: Vec<Vec<Arc<Executor>>>,
    seed: u64,
    pairs: Mutex<BTreeMap<(String, String), Pair>>,
    mismatches: Mutex<Vec<String>>,
    tokens: AtomicU64,
    rounds: AtomicU64,
    set_aside: AtomicU64,
    serving: Mutex<Duration>,
    auditing: Mutex<Duration>,
}

impl Soak {
    fn of(name: &str, file: &[u8], seed: u64) -> Soak {
        let of_backend = |backend| {
            let threads = [1, 2, 3].map(|count| NonZeroUsize::new(count).expect("some"));
            let executor = |count| Arc::new(Executor::new(backend, count).expect("an available backend"));
            threads.map(executor).to_vec()
        };
        Soak {
            name: name.into(),
            liar: Liar::of(load(file)),
            executors: Backend::available().into_iter().map(of_backend).collect(),
            seed,
            pairs: Mutex::default(),
            mismatches: Mutex::default(),
            tokens: AtomicU64::new(0),
            rounds: AtomicU64::new(0),
            set_aside: AtomicU64::new(0),
            serving: Mutex::default(),
            auditing: Mutex::default(),
        }
    }

    /// Kernels by a number; the scalar ones, which are the first, only now and then. Mostly on one thread.
    fn executor(&self, number: u64, turn: u64) -> &Arc<Executor> {
        let all = self.executors.len() as u64;
        let backend = match turn.is_multiple_of(SCALAR_EVERY) || all == 1 {
            true => 0,
            false => 1 + number % (all - 1),
        };
        let of_backend = &self.executors[backend as usize];
        &of_backend[if turn % 5 == 3 { 1 + (turn % 2) as usize } else { 0 }]
    }

    /// One batch, served and audited.
    fn round(&self, round: u64) {
        let model = &self.liar.model;
        let mut below = drawn(self.seed, round, u64::MAX);
        let batch = BATCHES[(round % 7) as usize];
        let vocabulary = model.architecture().vocabulary;
        let asked: Vec<(Request, Order)> = (0..batch as u64)
            .map(|index| {
                let below = &mut drawn(self.seed, round, index);
                let request = request(below, vocabulary);
                let outputs = OUTPUTS[below(5) as usize];
                let mut order =
                    order(model.id(), &request, &self.liar.payer, (round * 64 + index) as i64, outputs);
                order.sampling = sampling(below);
                order.ignore_end = below(2) == 0;
                (request, order)
            })
            .collect();
        let server = self.executor(round, round + SCALAR_EVERY - 4);
        let began = Instant::now();
        let served = self.serve(server, &asked, STEPS[below(5) as usize], below(3) == 0);
        *self.serving.lock().expect("no panic") += began.elapsed();
        let began = Instant::now();
        for (index, ((request, order), computed)) in asked.iter().zip(&served).enumerate() {
            // Never the kernels that served it, unless there are no others.
            let turn = round * 64 + index as u64;
            let mut auditors =
                (0..8).map(|next| self.executor(turn + next, turn + next * (SCALAR_EVERY + 1) + 1));
            let other = auditors.find(|other| other.backend() != server.backend());
            self.audit(server, other.unwrap_or(server), request, order, computed);
        }
        *self.auditing.lock().expect("no panic") += began.elapsed();
    }

    fn audit(
        &self,
        server: &Executor,
        auditor: &Executor,
        request: &Request,
        order: &Order,
        computed: &Computed,
    ) {
        let answer = self.liar.answer(order, request, computed);
        let checked = check_answer(&answer, &Expected::default()).expect("signed in proper form");
        let pair = (server.backend().to_string(), auditor.backend().to_string());
        match recompute(&self.liar.model, auditor, &checked, &answer, &mut |_, _| {}) {
            Ok(recomputed) => {
                let mut pairs = self.pairs.lock().expect("no panic");
                let pair = pairs.entry(pair).or_default();
                pair.answers += 1;
                pair.tokens += recomputed.output_tokens as u64;
                pair.positions += recomputed.positions as u64;
                self.tokens.fetch_add(recomputed.output_tokens as u64, Ordering::Relaxed);
            }
            Err(discrepancy) => self.mismatches.lock().expect("no panic").push(format!(
                "{}, seed {}, {pair:?}, {} and {} threads, order {}: {discrepancy}",
                self.name,
                self.seed,
                server.threads(),
                auditor.threads(),
                order.digest(),
            )),
        }
    }

    /// Answers as the engine gives them, computed side by side.
    fn serve(
        &self,
        executor: &Arc<Executor>,
        asked: &[(Request, Order)],
        rows: u32,
        is_tight: bool,
    ) -> Vec<Computed> {
        let model = &self.liar.model;
        let context = CONTEXT.min(model.context_tokens());
        let pages = context.div_ceil(PAGE_POSITIONS as u32);
        let limits = SchedulerLimits {
            // Where it is tight not all of them fit: the youngest are set aside, and computed again.
            kv_pages: if is_tight { pages + asked.len() as u32 } else { pages * asked.len() as u32 },
            context_tokens: context,
            tokens_per_step: rows.max(asked.len() as u32),
            running_max: asked.len() as u32,
            waiting_max: asked.len() as u32,
        };
        self.set_aside.fetch_add(u64::from(is_tight && asked.len() > 1), Ordering::Relaxed);
        let mut scheduler =
            Scheduler::new(model.clone(), executor.clone(), limits).expect("memory for a cache");
        let mut served = Vec::new();
        let ids: Vec<_> = asked
            .iter()
            .map(|(request, order)| {
                let prompt = model.prompt_tokens(request).expect("a prompt");
                served.push(Computed {
                    prompt: prompt.clone(),
                    tokens: Vec::new(),
                    text: String::new(),
                    finish: FinishReason::Failed,
                    state_digest: Digest::ZERO,
                });
                let sequence = SequenceRequest {
                    prompt,
                    output: Vec::new(),
                    sampling: order.sampling.clone(),
                    seed: order.seed_bytes(),
                    max_output_tokens: order.max_output_tokens,
                    stop: request.stop.clone(),
                    ignore_end: order.ignore_end,
                    logprobs: None,
                    prompt_logprobs: None,
                    embedding: None,
                    grammar: None,
                };
                scheduler.submit(sequence).expect("it fits")
            })
            .collect();
        let index = |id| ids.iter().position(|own| *own == id).expect("one of them");
        while !scheduler.is_idle() {
            for event in scheduler.step() {
                match event {
                    Event::Token { sequence, token, text, .. } => {
                        let own = &mut served[index(sequence)];
                        own.tokens.push(token);
                        own.text += &text;
                    }
                    Event::Finished { sequence, finish, text, state_digest } => {
                        let own = &mut served[index(sequence)];
                        own.text += &text;
                        (own.finish, own.state_digest) = (finish, state_digest);
                    }
                    other => panic!("{other:?}"),
                }
            }
        }
        served
    }

    /// An audit that cannot fail shows nothing: one bit of one state, and one other token.
    fn notices_a_lie(&self) {
        let model = &self.liar.model;
        let request = chat("A street in Rome.", "Who comes there?");
        let mut order = order(model.id(), &request, &self.liar.payer, 1, 12);
        order.ignore_end = true;
        let asked = [(request, order)];
        let server = self.executors.last().expect("a backend")[0].clone();
        let computed = self.serve(&server, &asked, 64, false).remove(0);
        let [(request, order)] = &asked;
        for auditor in self.executors.iter().map(|of_backend| &of_backend[0]) {
            let refused = |claim: &Computed| {
                let answer = self.liar.answer(order, request, claim);
                let checked = check_answer(&answer, &Expected::default()).expect("signed in proper form");
                recompute(model, auditor, &checked, &answer, &mut |_, _| {}).is_err()
            };
            assert!(!refused(&computed), "{}", auditor.backend());
            let mut lie = computed.clone();
            lie.state_digest.0[7] ^= 1;
            assert!(refused(&lie), "{}: another state", auditor.backend());
            let mut lie = computed.clone();
            lie.tokens[5] ^= 1;
            assert!(refused(&lie), "{}: another token", auditor.backend());
        }
    }
}

/// The models of this run.
fn models() -> Vec<(String, Vec<u8>)> {
    if let Ok(paths) = std::env::var("SURETY_MODELS") {
        let read = |path: &str| (path.to_owned(), std::fs::read(path).expect("a model's file"));
        return paths.split(':').filter(|path| !path.is_empty()).map(read).collect();
    }
    let random = |shape, format| random_model::bytes(&random_model::Settings { shape, format, seed: 5 });
    vec![
        ("the bundled model".into(), bundled_file().to_vec()),
        ("a tiny Qwen3 in Q4_K_M".into(), random(Shape::TinyQwen3, Format::Q4KM)),
        ("a tiny Llama in BF16".into(), random(Shape::TinyLlama, Format::BF16)),
    ]
}

#[test]
fn honest_receipts_hold_whatever_computes_them() {
    let models = models();
    let wanted = setting("SURETY_TOKENS", 3_000).div_ceil(models.len() as u64);
    let seed = setting("SURETY_SEED", 1);
    let mut failures = Vec::new();
    let (mut all, mut seen) = (0, BTreeSet::new());
    for (name, file) in models {
        let soak = Soak::of(&name, &file, seed);
        soak.notices_a_lie();
        let began = Instant::now();
        let lanes = thread::available_parallelism().map_or(1, NonZeroUsize::get);
        thread::scope(|scope| {
            for _ in 0..lanes {
                scope.spawn(|| {
                    loop {
                        let round = soak.rounds.fetch_add(1, Ordering::Relaxed);
                        if soak.tokens.load(Ordering::Relaxed) >= wanted && round >= ROUNDS_MIN {
                            break;
                        }
                        soak.round(round);
                        if round.is_multiple_of(16) {
                            let tokens = soak.tokens.load(Ordering::Relaxed);
                            eprintln!("{name}: {tokens} of {wanted} tokens, {:?}", began.elapsed());
                        }
                    }
                });
            }
        });
        let took = began.elapsed().as_secs_f64();
        let mismatches = soak.mismatches.into_inner().expect("no panic");
        let tokens = soak.tokens.into_inner();
        all += tokens;
        println!(
            "{name}: {tokens} output tokens audited in {took:.1} s ({:.0} a second), {} of the batches in caches too \
             small; {} mismatches",
            tokens as f64 / took,
            soak.set_aside.into_inner(),
            mismatches.len()
        );
        let (serving, auditing) = (soak.serving.into_inner(), soak.auditing.into_inner());
        println!(
            "  {:.1} s of serving, {:.1} s of auditing, over {lanes} lanes",
            serving.expect("no panic").as_secs_f64(),
            auditing.expect("no panic").as_secs_f64()
        );
        for ((server, auditor), Pair { answers, tokens, positions }) in
            soak.pairs.into_inner().expect("no panic")
        {
            seen.insert((server.clone(), auditor.clone()));
            println!(
                "  served by {server:8} audited by {auditor:8} {answers:>7} answers {tokens:>9} tokens {positions:>9} positions"
            );
        }
        failures.extend(mismatches);
    }
    println!("{all} tokens, {} mismatches", failures.len());
    let scalar = Backend::Scalar.to_string();
    assert!(seen.iter().any(|(server, _)| *server == scalar), "the scalar kernels served nothing");
    assert!(seen.iter().any(|(_, auditor)| *auditor == scalar), "the scalar kernels audited nothing");
    assert!(failures.is_empty(), "{failures:#?}");
}
