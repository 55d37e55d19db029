//! `surety bench engine|receipt|audit|chain|gateway`

mod audit;
mod chain;
mod gateway;
mod paced;

use std::{
    hint::black_box,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use serde::Serialize;
use surety_engine::{Event, Model, Scheduler, SchedulerLimits, SequenceRequest};
use surety_kernels::{Executor, PAGE_POSITIONS};
use surety_proof::commit::{IdsHasher, TextHasher, state_commitment};
use surety_types::{
    Amount, Digest, FinishReason, ModelId, Outcome as ReceiptOutcome, Price, Progress, Receipt, Sampling,
    SecretKey, Signed, Text,
    progress::PROGRESS_TOKENS,
    receipt::{ARITHMETIC_VERSION, RECEIPT_VERSION},
};
use surety_worker::{SOFTWARE, load::ModelPlace, store::Reference};

use super::{Outcome, model, worker::EngineArgs};
use crate::{
    cli::Global,
    data_dir::DataDir,
    models::{Found, Models},
    output::{self, hinted},
};

/// Tokens of the prompt whose prefill is measured.
const PROMPT_TOKENS: u32 = 512;
/// Tokens that each stream produces while decode is measured.
const OUTPUT_TOKENS: u32 = 64;
/// A piece of a prompt, where time is short.
const QUICK_PIECE_TOKENS: u32 = 64;
/// Streams decoded side by side.
const STREAMS: [u32; 3] = [1, 8, 16];
/// Each figure is the median of so many runs.
const RUNS: usize = 3;

/// What can be measured.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Tokens a second: prefill, and decode with 1, 8 and 16 streams.
    Engine(Args),
    /// What receipts cost: their share of decode time, their size, and the time to sign and check one.
    Receipt(Args),
    /// What audits cost, as a share of the compute that serves.
    Audit(audit::Args),
    /// Four validators on this machine: finality, transfers and claims a second, and what they cost.
    Chain(chain::Args),
    /// What the gateway adds to each token, what a silent stream costs, and what is left of the engine's speed.
    Gateway(Box<gateway::Args>),
    /// The proxy that the gateway is measured against.
    #[command(hide = true)]
    Proxy(paced::ProxyArgs),
}

/// Arguments of `bench engine` and `bench receipt`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The model to measure with [default: the bundled demonstration].
    #[arg(long, value_name = "REF")]
    model: Option<Reference>,
    #[command(flatten)]
    engine: EngineArgs,
}

/// What was measured, and with what.
#[derive(Serialize)]
struct Setting {
    model: String,
    backend: String,
    threads: usize,
}

#[derive(Serialize)]
struct EngineFigures {
    #[serde(flatten)]
    setting: Setting,
    prefill_tokens: u32,
    prefill_tokens_per_second: f64,
    decode: Vec<DecodeFigure>,
}

#[derive(Serialize)]
struct DecodeFigure {
    streams: u32,
    tokens_per_second: f64,
}

#[derive(Serialize)]
struct ReceiptFigures {
    #[serde(flatten)]
    setting: Setting,
    decode_microseconds_per_token: f64,
    receipt_microseconds_per_token: f64,
    /// Of decode time.
    receipt_share: f64,
    receipt_bytes: usize,
    sign_microseconds: f64,
    check_microseconds: f64,
}

/// A model with the kernels it runs on.
struct Bench {
    model: Arc<Model>,
    executor: Arc<Executor>,
    setting: Setting,
    /// The model's file, unless it is the bundled one.
    file: Option<PathBuf>,
    /// Tokens of prompt and answer together.
    context: u32,
    prompt_tokens: u32,
    output_tokens: u32,
}

/// How fast a model is here, measured within a limit of time.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Quick {
    /// Prompt tokens a second.
    pub prefill_tokens_per_second: f64,
    /// Output tokens a second of one answer.
    pub decode_tokens_per_second: f64,
    /// Output tokens a second of so many answers side by side, together.
    pub decode_together_tokens_per_second: f64,
    /// How many.
    pub streams: u32,
    /// How long it took to measure, loading included.
    pub seconds: f64,
}

/// Answers measured side by side.
const QUICK_STREAMS: u32 = 8;

/// Measures a model within about `limit`, after it is loaded: what is not done by then is judged by what is.
pub fn quick(
    found: Found,
    data_dir: &DataDir,
    engine: &EngineArgs,
    limit: Duration,
) -> anyhow::Result<(ModelId, Quick)> {
    let started = Instant::now();
    let executor = model::executor(engine.backend, engine.threads)?;
    let model = model::open_with(&found.file, data_dir, &found.name, &executor)?;
    let bench = Bench::new(found.name, model, executor, engine.context)?;
    let deadline = Instant::now() + limit;
    let third = limit / 3;
    let prefill_tokens_per_second = bench.prefill_until((Instant::now() + third).min(deadline))?;
    let decode = |streams, until: Instant| bench.decode_until(streams, Some(until.min(deadline)));
    let decode_tokens_per_second = decode(1, Instant::now() + third)?;
    let together = decode(QUICK_STREAMS, Instant::now() + third)?;
    let quick = Quick {
        prefill_tokens_per_second,
        decode_tokens_per_second,
        decode_together_tokens_per_second: together.max(decode_tokens_per_second),
        streams: QUICK_STREAMS,
        seconds: started.elapsed().as_secs_f64(),
    };
    Ok((bench.model.id(), quick))
}

/// Measures.
pub fn run(global: &Global, command: Command) -> anyhow::Result<Outcome> {
    match command {
        Command::Engine(args) => engine(global, &Bench::open(global, &args)?)?,
        Command::Receipt(args) => receipt(global, Bench::open(global, &args)?)?,
        Command::Audit(args) => return audit::run(global, &args),
        Command::Chain(args) => return chain::run(global.json, &args),
        Command::Gateway(args) => return super::wait(gateway::run(global.clone(), *args)),
        Command::Proxy(args) => {
            return super::wait(async { paced::proxy(args).await.map(|()| Outcome::Done) });
        }
    }
    Ok(Outcome::Done)
}

fn engine(global: &Global, bench: &Bench) -> anyhow::Result<()> {
    let prefill = median(|| bench.prefill())?;
    let decode = STREAMS.into_iter().map(|streams| {
        let tokens_per_second = median(|| bench.decode(streams))?;
        Ok(DecodeFigure { streams, tokens_per_second })
    });
    let decode = decode.collect::<anyhow::Result<Vec<_>>>()?;
    let Bench { setting, prompt_tokens, output_tokens, .. } = bench;
    if global.json {
        let setting = Setting {
            model: setting.model.clone(),
            backend: setting.backend.clone(),
            threads: setting.threads,
        };
        let prefill_tokens_per_second = prefill;
        return output::json(&EngineFigures {
            setting,
            prefill_tokens: *prompt_tokens,
            prefill_tokens_per_second,
            decode,
        });
    }
    output::line(format_args!("{}, {}, {} threads", setting.model, setting.backend, setting.threads))?;
    output::line(format_args!("prefill  {prefill:>10.1} tokens/s  (a prompt of {prompt_tokens})"))?;
    for DecodeFigure { streams, tokens_per_second } in decode {
        output::line(format_args!(
            "decode   {tokens_per_second:>10.1} tokens/s  ({streams} streams of {output_tokens}, together)"
        ))?;
    }
    Ok(())
}

fn receipt(global: &Global, bench: Bench) -> anyhow::Result<()> {
    let per_token = |per_second: f64| 1e6 / per_second;
    let decode = per_token(median(|| bench.decode(1))?);
    let key = SecretKey::from_bytes(&[7; 32]);
    let tokens = 4096;
    let width = bench.model.manifest().width as usize;
    // What a worker does for receipts while an answer is made: it hashes each state, the ids and the text, and signs
    // every 64 tokens and at the end.
    let state = vec![1; width * size_of::<f32>()];
    let bookkeeping = time(|| {
        let mut states = Digest::hasher(surety_types::digest::domain::STATE_COMMITMENT);
        let (mut ids, mut text) = (IdsHasher::output(), TextHasher::new());
        for token in 0..tokens {
            states.update(black_box(&state));
            ids.push(&[token]);
            text.push(" word");
            if (token + 1) % PROGRESS_TOKENS == 0 {
                black_box(progress(&key, &ids, &text));
            }
        }
        black_box(sign(&key, &states.digest(), &ids, &text));
    });
    let bookkeeping = bookkeeping.as_secs_f64() * 1e6 / f64::from(tokens);

    let (ids, text) = (IdsHasher::output(), TextHasher::new());
    let signed = sign(&key, &Digest::ZERO, &ids, &text);
    let repeat = 200;
    let each = |duration: Duration| duration.as_secs_f64() * 1e6 / f64::from(repeat);
    let signing = each(time(|| {
        for _ in 0..repeat {
            black_box(sign(&key, &Digest::ZERO, &ids, &text));
        }
    }));
    let mut opened = Ok(());
    let checking = each(time(|| {
        for _ in 0..repeat {
            opened = Signed::<Receipt>::open(black_box(signed.bytes())).map(drop);
        }
    }));
    opened?;
    let figures = ReceiptFigures {
        setting: bench.setting,
        decode_microseconds_per_token: decode,
        receipt_microseconds_per_token: bookkeeping,
        receipt_share: bookkeeping / decode,
        receipt_bytes: signed.bytes().len(),
        sign_microseconds: signing,
        check_microseconds: checking,
    };
    if global.json {
        return output::json(&figures);
    }
    let Setting { model, backend, threads } = &figures.setting;
    output::line(format_args!("{model}, {backend}, {threads} threads"))?;
    output::line(format_args!("decode   {decode:>9.2} µs a token, one stream"))?;
    output::line(format_args!(
        "receipt  {bookkeeping:>9.2} µs a token: {:.2} % of decode",
        figures.receipt_share * 100.0
    ))?;
    output::line(format_args!("size     {:>9} bytes, signed", figures.receipt_bytes))?;
    output::line(format_args!("sign     {signing:>9.1} µs"))?;
    output::line(format_args!("check    {checking:>9.1} µs"))?;
    Ok(())
}

impl Bench {
    fn open(global: &Global, args: &Args) -> anyhow::Result<Self> {
        let data_dir = DataDir::of(global)?;
        let Found { name, file, .. } = model::or_bundled(&Models::new(&data_dir), args.model.as_ref())?;
        let executor = model::executor(args.engine.backend, args.engine.threads)?;
        let model = model::open_with(&file, &data_dir, &name, &executor)?;
        let path = match &file.place {
            ModelPlace::File(path) => Some(path.clone()),
            ModelPlace::Program(_) => None,
        };
        Ok(Self { file: path, ..Self::new(name, model, executor, args.engine.context)? })
    }

    fn new(name: String, model: Model, executor: Executor, context: Option<u32>) -> anyhow::Result<Self> {
        let context = model.manifest().context.min(context.unwrap_or(u32::MAX));
        if context < 16 {
            return Err(hinted(
                format!("a context of {context} tokens is too short to measure with"),
                "choose a longer --context",
            ));
        }
        let output_tokens = OUTPUT_TOKENS.min(context / 4);
        let prompt_tokens = PROMPT_TOKENS.min(context - output_tokens);
        let (backend, threads) = (executor.backend().to_string(), executor.threads().get());
        let setting = Setting { model: name, backend, threads };
        Ok(Self {
            model: Arc::new(model),
            executor: Arc::new(executor),
            setting,
            file: None,
            context,
            prompt_tokens,
            output_tokens,
        })
    }

    /// Prompt tokens a second.
    fn prefill(&self) -> anyhow::Result<f64> {
        let mut scheduler = self.scheduler(1)?;
        scheduler.submit(self.request(self.prompt_tokens, 1, 0))?;
        let elapsed = time(|| {
            while !scheduler.is_idle() {
                scheduler.step();
            }
        });
        Ok(f64::from(self.prompt_tokens) / elapsed.as_secs_f64())
    }

    /// Prompt tokens a second, of those read by then; at least one step is.
    fn prefill_until(&self, until: Instant) -> anyhow::Result<f64> {
        let (mut tokens, mut elapsed) = (0.0, Duration::ZERO);
        // Pieces of a prompt, since a piece under way cannot be stopped.
        let piece = QUICK_PIECE_TOKENS.min(self.prompt_tokens);
        while tokens == 0.0 || (tokens < f64::from(self.prompt_tokens) && Instant::now() < until) {
            let mut scheduler = self.scheduler(1)?;
            scheduler.submit(self.request(piece, 1, 0))?;
            elapsed += time(|| {
                while !scheduler.is_idle() {
                    scheduler.step();
                }
            });
            tokens += f64::from(piece);
        }
        Ok(tokens / elapsed.as_secs_f64())
    }

    /// Output tokens a second, of all streams together; their prompts are short and not counted.
    fn decode(&self, streams: u32) -> anyhow::Result<f64> {
        self.decode_until(streams, None)
    }

    /// As `decode`, but for no longer than until then; at least one token of each is measured.
    fn decode_until(&self, streams: u32, until: Option<Instant>) -> anyhow::Result<f64> {
        let mut scheduler = self.scheduler(streams)?;
        for stream in 0..streams {
            scheduler.submit(self.request(8, self.output_tokens, stream))?;
        }
        let (mut started, mut first, mut tokens) = (None, 0, 0_u32);
        while !scheduler.is_idle() {
            let events = scheduler.step();
            let produced = events.iter().filter(|event| matches!(event, Event::Token { .. })).count() as u32;
            first += if started.is_none() { produced } else { 0 };
            // The clock runs from when every stream has its first token.
            match started {
                None if first >= streams => started = Some(Instant::now()),
                None => {}
                Some(_) => tokens += produced,
            }
            if tokens >= streams && until.is_some_and(|until| Instant::now() >= until) {
                break;
            }
        }
        let elapsed = started.map_or(Duration::ZERO, |started| started.elapsed());
        anyhow::ensure!(tokens > 0, "the model produced no tokens to measure");
        Ok(f64::from(tokens) / elapsed.as_secs_f64())
    }

    fn scheduler(&self, streams: u32) -> anyhow::Result<Scheduler> {
        self.scheduler_of(streams, self.prompt_tokens + self.output_tokens)
    }

    /// With room for so many positions of each stream.
    fn scheduler_of(&self, streams: u32, positions: u32) -> anyhow::Result<Scheduler> {
        let limits = SchedulerLimits {
            kv_pages: positions.div_ceil(PAGE_POSITIONS as u32) * streams + streams,
            context_tokens: positions + 1,
            tokens_per_step: 512,
            running_max: streams,
            waiting_max: streams,
        };
        Ok(Scheduler::new(self.model.clone(), self.executor.clone(), limits)?)
    }

    fn request(&self, prompt_tokens: u32, max_output_tokens: u32, stream: u32) -> SequenceRequest {
        let vocabulary = self.model.manifest().vocabulary;
        SequenceRequest {
            prompt: (0..prompt_tokens).map(|n| (n * 31 + stream * 7 + 1) % vocabulary).collect(),
            output: Vec::new(),
            sampling: Sampling { temperature: 0.0, ..Sampling::default() },
            seed: [0; 32],
            max_output_tokens,
            stop: Vec::new(),
            ignore_end: true,
            logprobs: None,
            prompt_logprobs: None,
            embedding: None,
            grammar: None,
        }
    }
}

fn progress(key: &SecretKey, ids: &IdsHasher, text: &TextHasher) -> Signed<Progress> {
    let progress = Progress {
        order: Digest::ZERO,
        output_tokens: ids.count(),
        output_digest: ids.digest(),
        text_digest: text.digest(),
        at_ms: 1,
        worker: key.public(),
    };
    Signed::sign(progress, key)
}

fn sign(key: &SecretKey, state: &Digest, ids: &IdsHasher, text: &TextHasher) -> Signed<Receipt> {
    let receipt = Receipt {
        version: RECEIPT_VERSION,
        outcome: ReceiptOutcome::Completed,
        order: Digest([0xff; 32]),
        model: ModelId(Digest([0xff; 32])),
        arithmetic: ARITHMETIC_VERSION,
        prompt_tokens: PROMPT_TOKENS,
        cached_tokens: 0,
        output_tokens: ids.count(),
        prompt_digest: Digest::ZERO,
        output_digest: ids.digest(),
        text_digest: text.digest(),
        finish: FinishReason::Stop,
        seed: [0xff; 32],
        state_commitment: state_commitment(&key.public(), &[0xff; 32], state),
        price: Price::ZERO,
        charge: Amount::ZERO,
        accepted_ms: 1_800_000_000_000,
        first_token_ms: (ids.count() > 0).then_some(1_800_000_000_000),
        done_ms: 1_800_000_000_000,
        software: Text::clipped(SOFTWARE),
        worker: key.public(),
    };
    Signed::sign(receipt, key)
}

fn time(work: impl FnOnce()) -> Duration {
    let started = Instant::now();
    work();
    started.elapsed()
}

fn median(mut measure: impl FnMut() -> anyhow::Result<f64>) -> anyhow::Result<f64> {
    let mut figures = (0..RUNS).map(|_| measure()).collect::<anyhow::Result<Vec<_>>>()?;
    figures.sort_by(f64::total_cmp);
    Ok(figures[RUNS / 2])
}
