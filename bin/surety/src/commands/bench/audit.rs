//! `surety bench audit`: what audits cost, as a share of the compute that serves.
//!
//! In:     a model; the length of a typical prompt and answer, how many answers are made side by side.
//! Out:    the time to serve such answers and the time to audit them, and their ratio at the rates of the usual parameters.
//! Touches: nothing but processors.
//! Holds:  an audit is the worker's own: one teacher-forced prefill that samples every position again, and it must find the
//!         answer it is given. Both are timed with the same kernels, in turns, and each figure is the median.
//! Absent: gas and fees of audits (`surety economics`), signatures (`bench receipt`).

use std::num::NonZeroU32;
use std::time::{Duration, Instant};

use anyhow::ensure;
use serde::Serialize;
use surety_chain::Params;
use surety_engine::{Event, SequenceRequest, replay};
use surety_types::{Digest, Sampling};

use super::{Bench, RUNS, Setting};
use crate::{
    cli::Global,
    commands::Outcome,
    output::{self, hinted},
};

/// What audits may take of the compute that serves, at the usual parameters.
const SHARE_MAX: f64 = 0.015;
const MILLION: f64 = 1e6;

/// Arguments of `bench audit`.
#[derive(Debug, clap::Args)]
// Its arguments and those it takes in are both called `Args`, and a group has one name.
#[group(skip)]
pub struct Args {
    #[command(flatten)]
    bench: super::Args,
    /// Tokens of each prompt.
    #[arg(long, value_name = "N", default_value = "512")]
    prompt_tokens: NonZeroU32,
    /// Tokens of each answer.
    #[arg(long, value_name = "N", default_value = "256")]
    output_tokens: NonZeroU32,
    /// Answers served side by side.
    #[arg(long, value_name = "N", default_value = "8")]
    streams: NonZeroU32,
}

#[derive(Serialize)]
struct Figures {
    #[serde(flatten)]
    setting: Setting,
    prompt_tokens: u32,
    output_tokens: u32,
    streams: u32,
    /// Of each answer, in seconds.
    serve_seconds: f64,
    audit_seconds: f64,
    /// An audit's time by that of serving.
    ratio: f64,
    shares: Vec<Share>,
    /// The most that is allowed at the rate which honest operators come to.
    share_max: f64,
}

/// What audits take of the compute that serves, at a rate.
#[derive(Serialize)]
struct Share {
    /// Receipts audited of a million.
    rate_ppm: u64,
    /// Audits that an operator has passed to have it.
    passed: u64,
    share: f64,
}

/// An answer as it was served.
#[derive(Clone)]
struct Served {
    tokens: Vec<u32>,
    state_digest: Digest,
}

/// Measures, and fails if audits cost more than they may.
pub fn run(global: &Global, args: &Args) -> anyhow::Result<Outcome> {
    let bench = Bench::open(global, &args.bench)?;
    let (prompt, output) = (args.prompt_tokens.get(), args.output_tokens.get());
    let streams = args.streams.get();
    if prompt.saturating_add(output) > bench.context {
        return Err(hinted(
            format!("{prompt} and {output} tokens are more than the context of {}", bench.context),
            "choose a shorter prompt or answer, or a longer --context",
        ));
    }
    let requests: Vec<SequenceRequest> =
        (0..streams).map(|stream| typical(bench.request(prompt, output, stream), stream)).collect();
    let (mut serving, mut auditing) = (Vec::new(), Vec::new());
    for _ in 0..RUNS {
        let began = Instant::now();
        let served = serve(&bench, &requests)?;
        serving.push(began.elapsed());
        let began = Instant::now();
        for (request, served) in requests.iter().zip(&served) {
            let found =
                replay::replay(&bench.model, &bench.executor, request, &served.tokens, &mut |_, _| {})?;
            let is_same = found.difference.is_none() && found.state_digest == served.state_digest;
            ensure!(is_same, "an audit of an honest answer found another one");
        }
        auditing.push(began.elapsed());
    }
    let each = |times: &mut Vec<Duration>| {
        times.sort();
        times[RUNS / 2].as_secs_f64() / f64::from(streams)
    };
    let (serve_seconds, audit_seconds) = (each(&mut serving), each(&mut auditing));
    let ratio = audit_seconds / serve_seconds;
    let params = Params::default();
    let passed_at_floor = params.audit_ppm * params.audit_passes / params.audit_floor_ppm;
    let shares = [(params.audit_ppm, params.audit_passes), (params.audit_floor_ppm, passed_at_floor)]
        .map(|(rate_ppm, passed)| Share { rate_ppm, passed, share: ratio * rate_ppm as f64 / MILLION });
    let figures = Figures {
        setting: bench.setting,
        prompt_tokens: prompt,
        output_tokens: output,
        streams,
        serve_seconds,
        audit_seconds,
        ratio,
        shares: shares.into(),
        share_max: SHARE_MAX,
    };
    let is_cheap = figures.shares.last().is_some_and(|share| share.share <= SHARE_MAX);
    if global.json {
        output::json(&figures)?;
    } else {
        print(&figures)?;
    }
    Ok(if is_cheap { Outcome::Done } else { Outcome::Failed })
}

fn print(figures: &Figures) -> anyhow::Result<()> {
    let Figures { setting, prompt_tokens, output_tokens, streams, .. } = figures;
    output::line(format_args!("{}, {}, {} threads", setting.model, setting.backend, setting.threads))?;
    output::line(format_args!(
        "serve    {:>9.4} s an answer  (a prompt of {prompt_tokens}, {output_tokens} tokens, {streams} together)",
        figures.serve_seconds
    ))?;
    output::line(format_args!(
        "audit    {:>9.4} s an answer: {:.3} of serving it",
        figures.audit_seconds, figures.ratio
    ))?;
    for Share { rate_ppm, passed, share } in &figures.shares {
        output::line(format_args!(
            "share    {:>9.3} % of the compute that serves, at a rate of {} %  (after {passed} audits passed)",
            share * 100.0,
            *rate_ppm as f64 / 1e4
        ))?;
    }
    Ok(())
}

/// A request sampled as chats are, and not as the benchmarks of speed.
fn typical(request: SequenceRequest, stream: u32) -> SequenceRequest {
    let sampling = Sampling { temperature: 0.7, top_p: 0.95, ..Sampling::default() };
    SequenceRequest { sampling, seed: [stream as u8; 32], ..request }
}

fn serve(bench: &Bench, requests: &[SequenceRequest]) -> anyhow::Result<Vec<Served>> {
    let positions = requests.first().map_or(0, |first| first.prompt.len() as u32 + first.max_output_tokens);
    let mut scheduler = bench.scheduler_of(requests.len() as u32, positions)?;
    let ids =
        requests.iter().map(|request| scheduler.submit(request.clone())).collect::<Result<Vec<_>, _>>()?;
    let mut served = vec![Served { tokens: Vec::new(), state_digest: Digest::ZERO }; requests.len()];
    while !scheduler.is_idle() {
        for event in scheduler.step() {
            let of = |sequence| ids.iter().position(|id| *id == sequence);
            match event {
                Event::Token { sequence, token, .. } => {
                    of(sequence).into_iter().for_each(|at| served[at].tokens.push(token));
                }
                Event::Finished { sequence, state_digest, .. } => {
                    of(sequence).into_iter().for_each(|at| served[at].state_digest = state_digest);
                }
                Event::Failed { error, .. } => return Err(error.into()),
                Event::Prompt { .. } | Event::Embedding { .. } => {}
            }
        }
    }
    Ok(served)
}
