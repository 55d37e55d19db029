//! `surety bench gateway`: what the gateway adds to each token, what a silent stream costs it, and what is left of the
//! engine's speed behind it.
//!
//! In:     how many streams, how fast.
//! Out:    added latency against the least proxy there can be, memory for each stream, tokens a second against the engine.
//! Touches: a temporary folder, loopback sockets, child processes; `/proc`, where the system has it.
//! Holds:  what is compared is measured in one run, by turns, with the same client; each figure is a median of rounds.
//! Absent: the worker and the proxy that it is measured with (`paced`), networks slower than loopback.

use std::{
    fs,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use serde::Serialize;
use serde_json::json;
use surety_engine::Event;
use tokio::{task::JoinSet, time::sleep};

use super::{
    Bench, Setting,
    paced::{self, MODEL, PacedWorker, ProxyReady, Script, Sent, TOKENS_MAX},
};
use crate::{
    api::Api,
    child::{self, Running},
    cli::Global,
    commands::{Outcome, gateway, worker},
    output,
};

/// Each figure is the median of so many rounds.
const ROUNDS: usize = 3;
/// Paced workers; one connection carries at most 256 streams.
const WORKERS: u8 = 5;
/// Tokens of a stream that are not counted: the first wait for caches to fill.
const WARM_TOKENS: usize = 10;
/// For a stream that was opened to get its first bytes.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long idle streams are watched before memory is read.
const IDLE: Duration = Duration::from_secs(5);
const STOP_GRACE: Duration = Duration::from_secs(15);

/// What is to hold.
const ADDED_P50_MICROSECONDS_MAX: f64 = 100.0;
const ADDED_P99_MICROSECONDS_MAX: f64 = 1000.0;
const IDLE_BYTES_MAX: u64 = 200_000_000;
const SHARE_OF_ENGINE_MIN: f64 = 0.95;

/// Arguments of `bench gateway`.
///
/// Latency: a worker that computes nothing sends tokens at a fixed pace through a gateway, and a plain server sends the
/// same as events through a minimal axum proxy, by turns and in one beat: whoever is asked, the tokens of all streams are due
/// evenly spread over the pace. So are the streams' ends: in the place of each that ends, one at a time, another begins, so
/// that as many run all the while. A token's latency is the time from just before the worker (or server) hands it to its socket
/// until the client has read its bytes. *Added* is the gateway's percentile less the proxy's, so it holds everything that the
/// gateway does more: QUIC, the checks of every frame, signatures, OpenAI's JSON, and what other streams' beginnings and ends take.
///
/// Idle: the resident memory of the gateway's process while so many streams are open, have had their first token and
/// wait.
///
/// Engine: tokens a second, from the request to the last token, of the same prompts through a worker and a gateway and
/// through the engine alone, by turns.
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
// Its arguments and those it takes in are both called `Args`, and a group has one name.
#[group(skip)]
pub struct Args {
    /// What to measure; may be given several times [default: all].
    #[arg(long = "part", value_name = "PART", value_enum)]
    parts: Vec<Part>,
    /// Concurrent streams whose latency is measured.
    #[arg(long, value_delimiter = ',', default_value = "1,16,128", value_parser = clap::value_parser!(u32).range(1..=512))]
    streams: Vec<u32>,
    /// Between two tokens of a stream.
    #[arg(long, value_name = "MS", default_value_t = 20, value_parser = clap::value_parser!(u64).range(1..=1000))]
    pace_ms: u64,
    /// Paces over which latency is measured, and thus tokens of each of the concurrent streams.
    #[arg(long, value_name = "N", default_value_t = 250, value_parser = clap::value_parser!(u32).range(50..=4000))]
    tokens: u32,
    /// Silent streams whose memory is measured.
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=1024))]
    idle: u32,
    /// Tokens of each stream whose speed is compared with the engine's.
    #[arg(long, value_name = "N", default_value_t = 256, value_parser = clap::value_parser!(u32).range(16..))]
    output_tokens: u32,
    #[command(flatten)]
    model: super::Args,
}

/// A part of the measurement.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Part {
    /// What the gateway adds to each token.
    Latency,
    /// Memory of silent streams.
    Idle,
    /// Speed against the engine alone.
    Engine,
}

#[derive(Serialize)]
struct Figures {
    latency: Vec<Latency>,
    idle: Option<Idle>,
    engine: Option<Shares>,
}

/// Microseconds.
#[derive(Serialize)]
struct Latency {
    streams: u32,
    gateway_p50: f64,
    gateway_p99: f64,
    proxy_p50: f64,
    proxy_p99: f64,
    added_p50: f64,
    added_p99: f64,
    /// Processor time for each token, all threads together; on a busy machine it says more than the latency.
    gateway_processor: f64,
    proxy_processor: f64,
    holds: bool,
}

#[derive(Serialize)]
struct Idle {
    streams: u32,
    /// Resident memory of the gateway before any stream.
    bytes_before: u64,
    bytes: u64,
    bytes_per_stream: u64,
    holds: bool,
}

#[derive(Serialize)]
struct Shares {
    #[serde(flatten)]
    setting: Setting,
    output_tokens: u32,
    shares: Vec<Share>,
}

#[derive(Serialize)]
struct Share {
    streams: u32,
    engine_tokens_per_second: f64,
    network_tokens_per_second: f64,
    share: f64,
    holds: bool,
}

/// Measures.
pub async fn run(global: Global, args: Args) -> anyhow::Result<Outcome> {
    // Each stream is a socket on either side.
    child::allow_open_files();
    let measures = |part| args.parts.is_empty() || args.parts.contains(&part);
    let folder = tempfile::tempdir()?;
    let mut figures = Figures { latency: Vec::new(), idle: None, engine: None };
    if measures(Part::Latency) || measures(Part::Idle) {
        let sent = Sent::new();
        let mut workers = Vec::new();
        for number in 1..=WORKERS {
            workers.push(PacedWorker::start(number, sent.clone()).await?);
        }
        let addresses = workers.iter().map(|worker| worker.address.to_string());
        let (gateway, base_url) = start_gateway(folder.path(), addresses).await?;
        if measures(Part::Idle) {
            figures.idle = Some(idle(&base_url, gateway.pid, args.idle).await?);
        }
        if measures(Part::Latency) {
            let mut tasks = JoinSet::new();
            let upstream = paced::upstream(sent.clone(), &mut tasks).await?;
            let proxy = ["bench", "proxy", "--upstream"].map(Into::into).into_iter();
            let proxy: Vec<_> = proxy.chain([format!("http://{upstream}").into()]).collect();
            let (proxy, ready) =
                child::start::<ProxyReady>(&proxy).await.context("the proxy did not start")?;
            for streams in &args.streams {
                let round = Round { streams: *streams as usize, tokens: args.tokens as usize, args: &args };
                let [proxied, served] = [(&ready.base_url, proxy.pid), (&base_url, gateway.pid)]
                    .map(|(base_url, pid)| Measured { base_url, pid });
                let measured = latency(&sent, &round, &served, &proxied).await?;
                figures.latency.push(measured);
            }
            proxy.stop(STOP_GRACE).await;
        }
        gateway.stop(STOP_GRACE).await;
        for worker in workers {
            worker.stop().await;
        }
    }
    if measures(Part::Engine) {
        figures.engine = Some(against_engine(&global, &args, folder.path()).await?);
    }
    match global.json {
        true => output::json(&figures)?,
        false => print(&figures)?,
    }
    Ok(Outcome::Done)
}

async fn start_gateway(
    folder: &Path,
    workers: impl Iterator<Item = String>,
) -> anyhow::Result<(Running, String)> {
    let mut args: Vec<std::ffi::OsString> =
        ["gateway", "run", "--listen", "127.0.0.1:0"].map(Into::into).into();
    args.extend(["--data-dir".into(), folder.into()]);
    workers.for_each(|worker| args.extend(["--worker".into(), worker.into()]));
    let (running, ready) =
        child::start::<gateway::Ready>(&args).await.context("the gateway did not start")?;
    let api = Api::at(&ready.base_url)?;
    tokio::time::timeout(PATIENCE, api.ready()).await.context("the gateway does not reach its workers")?;
    // Every one of them, for they share the streams.
    sleep(Duration::from_secs(2)).await;
    Ok((running, ready.base_url))
}

/// What a round asks for.
struct Round<'a> {
    streams: usize,
    tokens: usize,
    args: &'a Args,
}

/// One of the two that take turns.
struct Measured<'a> {
    base_url: &'a str,
    pid: u32,
}

/// What one of them showed, by round, in microseconds.
#[derive(Default)]
struct Turns {
    p50: Vec<f64>,
    p99: Vec<f64>,
    processor: Vec<f64>,
}

async fn latency(
    sent: &Arc<Sent>,
    round: &Round<'_>,
    gateway: &Measured<'_>,
    proxy: &Measured<'_>,
) -> anyhow::Result<Latency> {
    let mut by_turns: [Turns; 2] = Default::default();
    for _ in 0..ROUNDS {
        for (measured, turns) in [proxy, gateway].into_iter().zip(&mut by_turns) {
            let before = processor_ns(measured.pid)?;
            let mut latencies = round.run(sent, measured.base_url).await?;
            let tokens = round.tokens_sent() as f64;
            turns.processor.push(processor_ns(measured.pid)?.saturating_sub(before) as f64 / 1e3 / tokens);
            latencies.sort_unstable();
            turns.p50.push(percentile(&latencies, 50));
            turns.p99.push(percentile(&latencies, 99));
        }
    }
    let [[proxy_p50, proxy_p99, proxy_processor], [gateway_p50, gateway_p99, gateway_processor]] =
        by_turns.map(|Turns { p50, p99, processor }| [p50, p99, processor].map(median));
    let (added_p50, added_p99) = (gateway_p50 - proxy_p50, gateway_p99 - proxy_p99);
    Ok(Latency {
        streams: round.streams as u32,
        gateway_p50,
        gateway_p99,
        proxy_p50,
        proxy_p99,
        added_p50,
        added_p99,
        gateway_processor,
        proxy_processor,
        holds: added_p50 <= ADDED_P50_MICROSECONDS_MAX && added_p99 <= ADDED_P99_MICROSECONDS_MAX,
    })
}

impl Round<'_> {
    /// Tokens of the two streams that follow each other in a place: the first ones end evenly spread over what is measured, the
    /// second ones after it.
    fn tokens_of(&self, place: usize) -> [usize; 2] {
        let first = WARM_TOKENS + self.tokens * (place + 1) / self.streams;
        [first, self.tokens + 3 * WARM_TOKENS - first]
    }

    fn tokens_sent(&self) -> usize {
        self.streams * (self.tokens + 3 * WARM_TOKENS)
    }

    /// Nanoseconds of every token of all streams, while all places are taken.
    async fn run(&self, sent: &Arc<Sent>, base_url: &str) -> anyhow::Result<Vec<u64>> {
        let client = client()?;
        let pace = Duration::from_millis(self.args.pace_ms);
        let end_ns = sent.now_ns() + pace.as_nanos() as u64 * (WARM_TOKENS + self.tokens) as u64;
        let mut places = JoinSet::new();
        for place in 0..self.streams {
            let phase = pace * place as u32 / self.streams as u32;
            let [first, second] = self.tokens_of(place);
            let scripts = [(place, first), (self.streams + place, second)].map(|(stream, tokens)| Script {
                stream,
                tokens,
                pace,
                phase,
            });
            let (client, base_url, sent) = (client.clone(), base_url.to_owned(), sent.clone());
            places.spawn(async move {
                let mut heard = Vec::new();
                for script in scripts {
                    heard.extend(hear(&client, &base_url, script, &sent).await?);
                }
                anyhow::Ok(heard)
            });
        }
        let mut latencies = Vec::with_capacity(self.streams * self.tokens);
        while let Some(heard) = places.join_next().await {
            let heard = heard.context("a task failed")??;
            latencies
                .extend(heard.iter().filter(|heard| heard.sent_ns < end_ns).map(|heard| heard.latency_ns));
        }
        anyhow::ensure!(!latencies.is_empty(), "no token came while all streams ran");
        Ok(latencies)
    }
}

/// A token that arrived.
struct Heard {
    sent_ns: u64,
    latency_ns: u64,
}

fn client() -> anyhow::Result<reqwest::Client> {
    Ok(surety_client::https::client_builder().no_proxy().tcp_nodelay(true).build()?)
}

async fn open(client: &reqwest::Client, base_url: &str, script: Script) -> anyhow::Result<reqwest::Response> {
    let body = json!({
        "model": MODEL, "stream": true, "max_tokens": script.tokens.max(2),
        "messages": [{ "role": "user", "content": script.text() }],
    });
    let answer = client.post(format!("{base_url}/chat/completions")).json(&body).send().await?;
    anyhow::ensure!(answer.status().is_success(), "a stream was refused: {}", answer.text().await?);
    Ok(answer)
}

/// Reads a stream to its end; its tokens, without the first few.
async fn hear(
    client: &reqwest::Client,
    base_url: &str,
    script: Script,
    sent: &Sent,
) -> anyhow::Result<Vec<Heard>> {
    let mut answer = open(client, base_url, script).await?;
    let mut tokens = Tokens::default();
    let mut heard = Vec::with_capacity(script.tokens);
    let mut count = 0;
    while let Some(piece) = answer.chunk().await? {
        let now = sent.now_ns();
        for token in tokens.read(&piece) {
            anyhow::ensure!(token == count && token < TOKENS_MAX, "token {token} came where {count} was due");
            count += 1;
            if token >= WARM_TOKENS {
                let sent_ns = sent.at_ns(script.stream, token);
                heard.push(Heard { sent_ns, latency_ns: now.saturating_sub(sent_ns) });
            }
        }
    }
    anyhow::ensure!(count == script.tokens, "{count} of {} tokens came", script.tokens);
    Ok(heard)
}

/// Finds tokens in bytes, in whatever pieces these come.
#[derive(Default)]
struct Tokens {
    within: Option<usize>,
}

impl Tokens {
    fn read(&mut self, piece: &[u8]) -> Vec<usize> {
        let mut found = Vec::new();
        for byte in piece {
            match (byte, self.within) {
                (b'@', _) => self.within = Some(0),
                (b'0'..=b'9', Some(number)) if number < TOKENS_MAX => {
                    self.within = Some(number * 10 + usize::from(byte - b'0'));
                }
                (b';', Some(number)) => {
                    found.push(number);
                    self.within = None;
                }
                _ => self.within = None,
            }
        }
        found
    }
}

/// Opens streams that get one token and then nothing, and reads what they cost.
async fn idle(base_url: &str, pid: u32, streams: u32) -> anyhow::Result<Idle> {
    let client = client()?;
    let bytes_before = resident_bytes(pid)?;
    let mut kept = JoinSet::new();
    let (opened, mut opens) = tokio::sync::mpsc::channel::<()>(1);
    for stream in 0..streams {
        let (client, base_url, opened) = (client.clone(), base_url.to_owned(), opened.clone());
        let script =
            Script { stream: stream as usize, tokens: 0, pace: Duration::ZERO, phase: Duration::ZERO };
        kept.spawn(async move {
            let mut answer = open(&client, &base_url, script).await?;
            let mut tokens = Tokens::default();
            let mut told = Some(opened);
            while let Some(piece) = answer.chunk().await? {
                if !tokens.read(&piece).is_empty() {
                    // Dropping the sender says it.
                    drop(told.take());
                }
            }
            anyhow::bail!("a silent stream ended")
        });
        if stream % 32 == 31 {
            // As clients come: not all in one moment.
            sleep(Duration::from_millis(20)).await;
        }
    }
    drop(opened);
    tokio::select! {
        // Nothing is ever sent: it ends when all have had their first token.
        _ = tokio::time::timeout(PATIENCE, opens.recv()) => {}
        Some(ended) = kept.join_next() => return Err(stream_ended(ended)),
    }
    tokio::select! {
        () = sleep(IDLE) => {}
        Some(ended) = kept.join_next() => return Err(stream_ended(ended)),
    }
    let bytes = resident_bytes(pid)?;
    kept.shutdown().await;
    let bytes_per_stream = bytes.saturating_sub(bytes_before) / u64::from(streams);
    // Fewer streams are to take less.
    let holds = bytes
        <= bytes_before + (IDLE_BYTES_MAX - bytes_before.min(IDLE_BYTES_MAX)) * u64::from(streams) / 1000;
    Ok(Idle { streams, bytes_before, bytes, bytes_per_stream, holds })
}

fn stream_ended(ended: Result<anyhow::Result<()>, tokio::task::JoinError>) -> anyhow::Error {
    match ended {
        Ok(Err(error)) => error,
        Ok(Ok(())) => anyhow::anyhow!("a silent stream ended"),
        Err(error) => error.into(),
    }
}

/// What a process has in memory.
fn resident_bytes(pid: u32) -> anyhow::Result<u64> {
    let status =
        fs::read_to_string(format!("/proc/{pid}/status")).context("this system tells no process's memory")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib: u64 =
        line.and_then(|line| line.trim().strip_suffix("kB")).context("no memory is told")?.trim().parse()?;
    Ok(kib * 1024)
}

/// Nanoseconds that a process's threads have computed.
fn processor_ns(pid: u32) -> anyhow::Result<u64> {
    let mut sum = 0;
    for thread in fs::read_dir(format!("/proc/{pid}/task")).context("this system tells no process's time")? {
        // A thread may end meanwhile.
        let Ok(text) = fs::read_to_string(thread?.path().join("schedstat")) else { continue };
        sum += text.split(' ').next().and_then(|spent| spent.parse::<u64>().ok()).unwrap_or(0);
    }
    Ok(sum)
}

/// Tokens a second through a worker and a gateway, and of the engine alone.
async fn against_engine(global: &Global, args: &Args, folder: &Path) -> anyhow::Result<Shares> {
    let mut bench = Bench::open(global, &args.model)?;
    bench.output_tokens = args.output_tokens.min(bench.context / 2);
    let mut worker: Vec<std::ffi::OsString> =
        ["worker", "run", "--listen", "127.0.0.1:0"].map(Into::into).into();
    worker.extend(["--data-dir".into(), folder.into()]);
    if let Some(file) = &bench.file {
        worker.extend(["--model".into(), file.into()]);
    }
    worker.extend(["--threads".into(), bench.setting.threads.to_string().into()]);
    worker.extend(["--backend".into(), bench.setting.backend.clone().into()]);
    if let Some(context) = args.model.engine.context {
        worker.extend(["--context".into(), context.to_string().into()]);
    }
    let (worker, ready) = child::start::<worker::Ready>(&worker).await.context("the worker did not start")?;
    let name = ready.models.first().and_then(|model| model.names.first()).context("no model is served")?;
    let (gateway, base_url) =
        start_gateway(&folder.join("gateway"), [ready.address.clone()].into_iter()).await?;
    let client = client()?;
    let mut shares = Vec::new();
    for streams in super::STREAMS {
        let (mut engine, mut network) = (Vec::new(), Vec::new());
        // The first of each is not counted.
        for round in 0..=ROUNDS {
            let alone = bench.answers(streams)?;
            let through = through_network(&client, &base_url, name, &bench, streams).await?;
            if round > 0 {
                engine.push(alone);
                network.push(through);
            }
        }
        let (engine, network) = (median(engine), median(network));
        let share = network / engine;
        shares.push(Share {
            streams,
            engine_tokens_per_second: engine,
            network_tokens_per_second: network,
            share,
            holds: share >= SHARE_OF_ENGINE_MIN,
        });
    }
    gateway.stop(STOP_GRACE).await;
    worker.stop(STOP_GRACE).await;
    let Bench { setting, output_tokens, .. } = bench;
    Ok(Shares { setting, output_tokens, shares })
}

impl Bench {
    /// Output tokens a second of so many answers, from their prompts to their last token.
    fn answers(&self, streams: u32) -> anyhow::Result<f64> {
        let mut scheduler = self.scheduler(streams)?;
        let started = Instant::now();
        for stream in 0..streams {
            scheduler.submit(self.request(8, self.output_tokens, stream))?;
        }
        let mut tokens = 0_u32;
        while !scheduler.is_idle() {
            let events = scheduler.step();
            tokens += events.iter().filter(|event| matches!(event, Event::Token { .. })).count() as u32;
        }
        anyhow::ensure!(tokens == streams * self.output_tokens, "the engine gave {tokens} tokens");
        Ok(f64::from(tokens) / started.elapsed().as_secs_f64())
    }
}

/// The same answers as [`Bench::answers`], asked for over HTTP.
async fn through_network(
    client: &reqwest::Client,
    base_url: &str,
    model: &str,
    bench: &Bench,
    streams: u32,
) -> anyhow::Result<f64> {
    let mut asking = JoinSet::new();
    let started = Instant::now();
    for stream in 0..streams {
        let body = json!({
            "model": model, "prompt": bench.request(8, 1, stream).prompt, "max_tokens": bench.output_tokens,
            "temperature": 0.0, "ignore_eos": true, "stream": true, "stream_options": { "include_usage": true },
        });
        let request = client.post(format!("{base_url}/completions")).json(&body);
        asking.spawn(async move {
            let text = request.send().await?.text().await?;
            anyhow::Ok(text)
        });
    }
    let mut texts = Vec::new();
    while let Some(text) = asking.join_next().await {
        texts.push(text.context("a task failed")??);
    }
    let elapsed = started.elapsed();
    let whole = format!("\"completion_tokens\":{}", bench.output_tokens);
    for text in texts {
        anyhow::ensure!(text.contains(&whole) && text.contains("[DONE]"), "an answer is not whole: {text}");
    }
    Ok(f64::from(streams * bench.output_tokens) / elapsed.as_secs_f64())
}

/// Microseconds; the values are nanoseconds in ascending order.
fn percentile(sorted: &[u64], percent: usize) -> f64 {
    let rank = (sorted.len() * percent).div_ceil(100).saturating_sub(1);
    sorted.get(rank).map_or(f64::NAN, |ns| *ns as f64 / 1e3)
}

fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 2]
}

fn print(figures: &Figures) -> anyhow::Result<()> {
    let holds = |holds: bool| if holds { "holds" } else { "DOES NOT HOLD" };
    if !figures.latency.is_empty() {
        output::line(format_args!(
            "latency of a token, µs; added at most {ADDED_P50_MICROSECONDS_MAX} at p50, {ADDED_P99_MICROSECONDS_MAX} at p99"
        ))?;
        output::line(
            "streams   gateway p50    p99    proxy p50    p99    added p50    p99    processor time",
        )?;
    }
    for row in &figures.latency {
        output::line(format_args!(
            "{:>7}   {:>11.0} {:>6.0}    {:>9.0} {:>6.0}    {:>9.0} {:>6.0}    {:>5.0}, {:>3.0}   {}",
            row.streams,
            row.gateway_p50,
            row.gateway_p99,
            row.proxy_p50,
            row.proxy_p99,
            row.added_p50,
            row.added_p99,
            row.gateway_processor,
            row.proxy_processor,
            holds(row.holds)
        ))?;
    }
    if let Some(Idle { streams, bytes_before, bytes, bytes_per_stream, holds: held }) = &figures.idle {
        output::line(format_args!(
            "memory    {} with {streams} silent streams, {} without: {} each   {}",
            output::size(*bytes),
            output::size(*bytes_before),
            output::size(*bytes_per_stream),
            holds(*held)
        ))?;
    }
    if let Some(Shares { setting, output_tokens, shares }) = &figures.engine {
        let Setting { model, backend, threads } = setting;
        output::line(format_args!(
            "{model}, {backend}, {threads} threads, answers of {output_tokens} tokens"
        ))?;
        for row in shares {
            output::line(format_args!(
                "network   {:>9.1} tokens/s of the engine's {:>9.1} with {} streams: {:.1} %   {}",
                row.network_tokens_per_second,
                row.engine_tokens_per_second,
                row.streams,
                row.share * 100.0,
                holds(row.holds)
            ))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_found_in_any_pieces() {
        let bytes = b"data: {\"content\":\"@0;@1;\"}\n\n: x\n\ndata: \"@12;\" @ 3; @x; @77";
        let expected = [0, 1, 12];
        assert_eq!(Tokens::default().read(bytes), expected);
        for cut in 0..bytes.len() {
            let mut tokens = Tokens::default();
            let mut found = tokens.read(&bytes[..cut]);
            found.extend(tokens.read(&bytes[cut..]));
            assert_eq!(found, expected, "cut at {cut}");
        }
    }

    #[test]
    fn streams_end_one_at_a_time_and_the_last_ones_after_what_is_measured() {
        use clap::Parser as _;
        #[derive(clap::Parser)]
        struct Line {
            #[command(flatten)]
            args: Args,
        }
        let args = Line::parse_from(["bench"]).args;
        for (streams, tokens) in [(1, 250), (16, 250), (128, 250), (512, 4000), (512, 50)] {
            let round = Round { streams, tokens, args: &args };
            let counts: Vec<[usize; 2]> = (0..streams).map(|place| round.tokens_of(place)).collect();
            assert_eq!(counts.iter().flatten().sum::<usize>(), round.tokens_sent());
            assert!(
                counts.is_sorted_by_key(|[first, _]| *first)
                    && counts[streams - 1][0] == WARM_TOKENS + tokens
            );
            for [first, second] in counts {
                assert!((WARM_TOKENS..TOKENS_MAX).contains(&first));
                assert!((2 * WARM_TOKENS..TOKENS_MAX).contains(&second));
            }
        }
    }

    #[test]
    fn percentiles_are_of_what_is_there() {
        let values: Vec<u64> = (1..=100).map(|value| value * 1000).collect();
        assert_eq!(
            (percentile(&values, 50), percentile(&values, 99), median(vec![3.0, 1.0, 2.0])),
            (50.0, 99.0, 2.0)
        );
        assert!(percentile(&[], 50).is_nan());
    }
}
