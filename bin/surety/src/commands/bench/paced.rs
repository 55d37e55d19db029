//! What stands before and behind a gateway that is measured: a worker that computes nothing, the same as a plain HTTP
//! server, and the least proxy there can be.
//!
//! In:     requests whose text says how many tokens to send, how fast.
//! Out:    tokens, and when each was sent.
//! Touches: sockets.
//! Holds:  the worker speaks the whole protocol: acceptance, frames, signed progress, receipt. Both send the same tokens
//!         at the same pace, and note the time before each.
//! Absent: computing; clients (`gateway`).

use std::{
    convert::Infallible,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use anyhow::Context as _;
use axum::{
    Router,
    body::{Body, Bytes},
    extract::{Request as HttpRequest, State},
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::post,
    serve::ListenerExt as _,
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use surety_net::{
    BindOptions, Endpoint, Incoming, ListenLimits, ReceiveError, Sender, ServeStream, WorkerAddress,
};
use surety_proof::commit::{IdsHasher, TextHasher, prompt_digest, state_commitment};
use surety_types::{
    Acceptance, Amount, Canonical as _, Digest, FileDigest, FinishReason, FormatSummary, FromWorker,
    Manifest, Order, Outcome, Price, Progress, Prompt, Receipt, Request, SecretKey, ServedModel, Signed,
    Text, ToWorker, WorkerState, WorkerStatus,
    progress::{PROGRESS_IDLE_MS, PROGRESS_MS, PROGRESS_TOKENS},
    receipt::{ARITHMETIC_VERSION, RECEIPT_VERSION},
};
use tokio::{
    net::TcpListener,
    sync::mpsc,
    task::JoinSet,
    time::{Instant as TimerInstant, sleep_until, timeout_at},
};

use crate::child::{ChildArgs, stop_requested};

/// What the model that nobody computes is called.
pub const MODEL: &str = "paced";
/// Streams that may be measured at once, and tokens of each.
pub const STREAMS_MAX: usize = 1024;
pub const TOKENS_MAX: usize = 4096;
const VOCABULARY: u32 = 1000;
const PROMPT: [u32; 8] = [1; 8];

/// When each token was sent, by stream and index.
pub struct Sent {
    start: Instant,
    times: Box<[AtomicU64]>,
}

impl Sent {
    pub fn new() -> Arc<Self> {
        let times = (0..STREAMS_MAX * TOKENS_MAX).map(|_| AtomicU64::new(0)).collect();
        Arc::new(Self { start: Instant::now(), times })
    }

    /// Nanoseconds since this was made.
    pub fn now_ns(&self) -> u64 {
        self.start.elapsed().as_nanos() as u64
    }

    fn note(&self, stream: usize, token: usize) {
        self.times[stream * TOKENS_MAX + token].store(self.now_ns(), Relaxed);
    }

    /// The next moment that is so far into a pace, of those that all streams of that pace have in common: what begins
    /// it, and when, has no part in where its tokens fall among the others'.
    fn next_beat(&self, pace: Duration, phase: Duration) -> TimerInstant {
        let (first, now) = (self.start + phase, Instant::now());
        let missed = now.saturating_duration_since(first).as_nanos().div_ceil(pace.as_nanos().max(1));
        // A pace of nothing is no pace.
        TimerInstant::from_std((first + pace * u32::try_from(missed).unwrap_or(u32::MAX)).max(now))
    }

    /// When that token was sent.
    pub fn at_ns(&self, stream: usize, token: usize) -> u64 {
        self.times[stream * TOKENS_MAX + token].load(Relaxed)
    }
}

/// What a request's text asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Script {
    /// Which stream it is.
    pub stream: usize,
    /// How many tokens; with none, one comes and then only signs of life.
    pub tokens: usize,
    /// Between two tokens.
    pub pace: Duration,
    /// How far into the pace its tokens are due.
    pub phase: Duration,
}

impl Script {
    /// The text that asks for it.
    pub fn text(&self) -> String {
        let Script { stream, tokens, pace, phase } = self;
        format!("{stream} {tokens} {} {}", pace.as_micros(), phase.as_micros())
    }

    fn read(text: &str) -> Option<Self> {
        let mut words = text.split(' ').map(|word| word.parse::<u64>().ok());
        let mut next = || words.next().flatten();
        let (stream, tokens) = (next()? as usize, next()? as usize);
        let (pace, phase) = (Duration::from_micros(next()?), Duration::from_micros(next()?));
        (stream < STREAMS_MAX && tokens <= TOKENS_MAX).then_some(Self { stream, tokens, pace, phase })
    }

    /// When its tokens are due.
    fn due(&self, start: TimerInstant, token: usize) -> TimerInstant {
        start + self.pace * token as u32
    }
}

/// The text of a token, as the client finds it again.
fn spelling(token: usize) -> String {
    format!("@{token};")
}

/// A worker that computes nothing, until dropped.
pub struct PacedWorker {
    pub address: WorkerAddress,
    endpoint: Endpoint,
    _tasks: JoinSet<()>,
}

impl PacedWorker {
    /// Starts one; `number` names its key.
    pub async fn start(number: u8, sent: Arc<Sent>) -> anyhow::Result<Self> {
        let key = SecretKey::from_bytes(&[number; 32]);
        let listen = (std::net::Ipv4Addr::LOCALHOST, 0).into();
        let endpoint = Endpoint::bind(BindOptions { key: key.clone(), listen }).await?;
        let mut listener = endpoint.listen(ListenLimits { streams: STREAMS_MAX, ..ListenLimits::default() });
        let status = status(&key);
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut orders = JoinSet::new();
            while let Some(incoming) = listener.accept().await {
                while orders.try_join_next().is_some() {}
                match incoming {
                    Incoming::Status(stream) => {
                        let status = status.clone();
                        orders.spawn(async move { drop(stream.reply(&status).await) });
                    }
                    Incoming::Audit(_) | Incoming::Log(_) => {}
                    Incoming::Order(stream) => {
                        let (key, sent) = (key.clone(), sent.clone());
                        orders.spawn(async move {
                            if let Err(error) = serve(stream, key, sent).await {
                                tracing::debug!("a stream ended early: {error:#}");
                            }
                        });
                    }
                }
            }
        });
        Ok(Self { address: endpoint.address(), endpoint, _tasks: tasks })
    }

    /// Says goodbye.
    pub async fn stop(self) {
        self.endpoint.close().await;
    }
}

fn status(key: &SecretKey) -> WorkerStatus {
    let manifest = Manifest {
        name: MODEL.to_owned(),
        files: vec![FileDigest { name: format!("{MODEL}.gguf"), bytes: 1000, blake3: Digest::ZERO }],
        architecture: "llama".to_owned(),
        layers: 1,
        width: 64,
        heads: 1,
        kv_heads: 1,
        head_dim: 64,
        feed_forward: 64,
        vocabulary: VOCABULARY,
        context: TOKENS_MAX as u32 + 64,
        formats: vec![FormatSummary { name: "Q8_0".to_owned(), tensors: 1, bytes: 1000 }],
        tokenizer_digest: Digest::ZERO,
        template_digest: Some(Digest::ZERO),
        arithmetic: ARITHMETIC_VERSION,
        rotary_digest: Digest::ZERO,
        plan: None,
        claims: None,
    };
    WorkerStatus {
        worker: key.public(),
        software: Text::clipped(surety_worker::SOFTWARE),
        state: WorkerState::Ready,
        active_requests: 0,
        waiting_requests: 0,
        models: vec![ServedModel {
            id: manifest.id(),
            names: vec![MODEL.to_owned()],
            context_tokens: manifest.context,
            manifest,
            prefill_tokens_per_second: 1000,
            decode_tokens_per_second: 100,
            price: Price::ZERO,
            calls: None,
            vectors: None,
            batch_price: None,
        }],
        region: None,
    }
}

/// One answer under way.
struct Answer {
    key: SecretKey,
    order: Signed<Order>,
    sender: Sender<FromWorker>,
    ids: IdsHasher,
    text: TextHasher,
    accepted_ms: u64,
    first_token_ms: Option<u64>,
    signed_tokens: u32,
    signed_at: TimerInstant,
}

async fn serve(mut stream: ServeStream, key: SecretKey, sent: Arc<Sent>) -> anyhow::Result<()> {
    let Some(ToWorker::Order { order, request, output }) = stream.receive().await? else {
        anyhow::bail!("no order came")
    };
    anyhow::ensure!(output.is_empty(), "a paced worker continues nobody's answer");
    let order = Signed::<Order>::open(&order)?;
    let request = Request::from_cbor(&request)?;
    let Prompt::Chat { messages, .. } = &request.prompt else { anyhow::bail!("the request is no chat") };
    let script = messages.last().and_then(|message| Script::read(&message.content));
    let script = script.context("the request's text is no script")?;
    let (sender, mut receiver) = stream.split();
    let mut answer = Answer {
        key,
        order,
        sender,
        ids: IdsHasher::output(),
        text: TextHasher::new(),
        accepted_ms: unix_ms(),
        first_token_ms: None,
        signed_tokens: 0,
        signed_at: TimerInstant::now(),
    };
    let acceptance = Acceptance {
        order: answer.order.digest(),
        model: answer.order.model,
        worker: answer.key.public(),
        deadline_ms: answer.order.deadline_ms,
        price: Price::ZERO,
        prompt_tokens: PROMPT.len() as u32,
        accepted_ms: answer.accepted_ms,
        max_output_tokens: answer.order.max_output_tokens,
        region: None,
    };
    let acceptance = Signed::sign(acceptance, &answer.key);
    answer.sender.send(&FromWorker::Acceptance(acceptance.into_parts().1)).await?;
    let start = sent.next_beat(script.pace, script.phase);
    for token in 0..script.tokens.max(1) {
        sleep_until(script.due(start, token)).await;
        answer.say(token, || sent.note(script.stream, token)).await?;
    }
    if script.tokens == 0 {
        // Signs of life, until nobody listens.
        loop {
            let idle = TimerInstant::now() + Duration::from_millis(PROGRESS_IDLE_MS);
            match timeout_at(idle, receiver.receive()).await {
                Err(_) => answer.sign_progress().await?,
                Ok(Ok(Some(ToWorker::Voucher(_)))) => {}
                Ok(Ok(_) | Err(ReceiveError::Lost(_) | ReceiveError::Reset(_))) => return Ok(()),
                Ok(Err(error)) => return Err(error.into()),
            }
        }
    }
    answer.end().await
}

impl Answer {
    async fn say(&mut self, token: usize, about_to: impl FnOnce()) -> anyhow::Result<()> {
        let (id, text) = (token as u32 % VOCABULARY, spelling(token));
        self.ids.push(&[id]);
        self.text.push(&text);
        self.first_token_ms.get_or_insert_with(unix_ms);
        let frame = FromWorker::Frame { index: token as u32, tokens: vec![id], text, logprobs: Vec::new() };
        about_to();
        self.sender.send(&frame).await?;
        let due = self.ids.count() - self.signed_tokens >= PROGRESS_TOKENS
            || self.signed_at.elapsed() >= Duration::from_millis(PROGRESS_MS);
        if due {
            self.sign_progress().await?;
        }
        Ok(())
    }

    async fn sign_progress(&mut self) -> anyhow::Result<()> {
        let progress = Progress {
            order: self.order.digest(),
            output_tokens: self.ids.count(),
            output_digest: self.ids.digest(),
            text_digest: self.text.digest(),
            at_ms: unix_ms(),
            worker: self.key.public(),
        };
        (self.signed_tokens, self.signed_at) = (self.ids.count(), TimerInstant::now());
        let progress = Signed::sign(progress, &self.key);
        Ok(self.sender.send(&FromWorker::Progress(progress.into_parts().1)).await?)
    }

    async fn end(mut self) -> anyhow::Result<()> {
        let salt = [7; 32];
        let receipt = Receipt {
            version: RECEIPT_VERSION,
            outcome: Outcome::Completed,
            order: self.order.digest(),
            model: self.order.model,
            arithmetic: ARITHMETIC_VERSION,
            prompt_tokens: PROMPT.len() as u32,
            cached_tokens: 0,
            output_tokens: self.ids.count(),
            prompt_digest: prompt_digest(&PROMPT),
            output_digest: self.ids.digest(),
            text_digest: self.text.digest(),
            finish: FinishReason::Length,
            seed: self.order.seed_bytes(),
            state_commitment: state_commitment(&self.key.public(), &salt, &Digest::ZERO),
            price: Price::ZERO,
            charge: Amount::ZERO,
            accepted_ms: self.accepted_ms,
            first_token_ms: self.first_token_ms,
            done_ms: unix_ms().max(self.first_token_ms.unwrap_or(0)),
            software: Text::clipped(surety_worker::SOFTWARE),
            worker: self.key.public(),
        };
        let receipt = Signed::sign(receipt, &self.key).into_parts().1;
        self.sender.send(&FromWorker::Receipt { receipt, salt }).await?;
        Ok(self.sender.finish().await?)
    }
}

fn unix_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis() as u64
}

/// Serves the same tokens as a plain stream of events; returns its address.
pub async fn upstream(sent: Arc<Sent>, tasks: &mut JoinSet<()>) -> anyhow::Result<std::net::SocketAddr> {
    let router = Router::new().route("/v1/chat/completions", post(plain)).with_state(sent);
    serve_http(router, tasks).await
}

async fn serve_http(router: Router, tasks: &mut JoinSet<()>) -> anyhow::Result<std::net::SocketAddr> {
    let listener = TcpListener::bind((std::net::Ipv4Addr::LOCALHOST, 0)).await?;
    let address = listener.local_addr()?;
    let listener = listener.tap_io(|stream| drop(stream.set_nodelay(true)));
    tasks.spawn(async move {
        if let Err(error) = axum::serve(listener, router).await {
            tracing::warn!(%error, "a server of the benchmark ended");
        }
    });
    Ok(address)
}

async fn plain(State(sent): State<Arc<Sent>>, body: Bytes) -> Response {
    let asked: Option<Value> = serde_json::from_slice(&body).ok();
    let script = asked.and_then(|asked| Script::read(asked["messages"][0]["content"].as_str()?));
    let Some(script) = script else { return StatusCode::BAD_REQUEST.into_response() };
    let (events, body) = mpsc::unbounded_channel::<Result<Bytes, Infallible>>();
    tokio::spawn(async move {
        let start = sent.next_beat(script.pace, script.phase);
        for token in 0..script.tokens {
            sleep_until(script.due(start, token)).await;
            // As long as a gateway's.
            let event = json!({
                "id": "chatcmpl-00000000000000000000000000000000", "object": "chat.completion.chunk",
                "created": 1_800_000_000, "model": MODEL, "system_fingerprint": "fp_0000000000000000",
                "choices": [{ "index": 0, "delta": { "content": spelling(token) }, "finish_reason": null }],
            });
            let event = Bytes::from(format!("data: {event}\n\n"));
            sent.note(script.stream, token);
            if events.send(Ok(event)).is_err() {
                return;
            }
        }
        let _ = events.send(Ok(Bytes::from_static(b"data: [DONE]\n\n")));
    });
    let stream = tokio_stream(body);
    ([(header::CONTENT_TYPE, "text/event-stream")], Body::from_stream(stream)).into_response()
}

/// A channel as a stream.
fn tokio_stream<T: Send + 'static>(
    channel: mpsc::UnboundedReceiver<T>,
) -> impl futures::Stream<Item = T> + Send + 'static {
    futures::stream::unfold(channel, async |mut channel| Some((channel.recv().await?, channel)))
}

/// Arguments of `bench proxy`.
#[derive(Debug, clap::Args)]
pub struct ProxyArgs {
    /// Where requests go.
    #[arg(long, value_name = "URL")]
    upstream: String,
    #[command(flatten)]
    child: ChildArgs,
}

/// The line that the proxy prints.
#[derive(Debug, Serialize, Deserialize)]
pub struct ProxyReady {
    pub ready: bool,
    pub base_url: String,
}

/// What the proxy needs for each request.
#[derive(Clone)]
struct Proxy {
    client: reqwest::Client,
    upstream: String,
}

/// The least that a proxy does: passes a request on, and the answer's bytes back as they come.
pub async fn proxy(args: ProxyArgs) -> anyhow::Result<()> {
    let client = surety_client::https::client_builder().no_proxy().tcp_nodelay(true).build()?;
    let state = Proxy { client, upstream: args.upstream };
    let mut tasks = JoinSet::new();
    let router = Router::new().fallback(forward).with_state(state);
    let address = serve_http(router, &mut tasks).await?;
    crate::output::json(&ProxyReady { ready: true, base_url: format!("http://{address}/v1") })?;
    stop_requested(args.child).await
}

async fn forward(State(proxy): State<Proxy>, request: HttpRequest) -> Response {
    let (parts, body) = request.into_parts();
    let url = format!("{}{}", proxy.upstream, parts.uri.path());
    let mut onward = proxy.client.request(parts.method, url);
    if let Some(kind) = parts.headers.get(header::CONTENT_TYPE) {
        onward = onward.header(header::CONTENT_TYPE, kind);
    }
    match onward.body(reqwest::Body::wrap_stream(body.into_data_stream())).send().await {
        Ok(answer) => {
            let mut response = Response::builder().status(answer.status());
            if let Some(kind) = answer.headers().get(header::CONTENT_TYPE) {
                response = response.header(header::CONTENT_TYPE, kind);
            }
            let body = Body::from_stream(answer.bytes_stream());
            response.body(body).unwrap_or_else(|_| StatusCode::BAD_GATEWAY.into_response())
        }
        Err(_) => StatusCode::BAD_GATEWAY.into_response(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_script_is_read_as_it_is_written() {
        let (pace, phase) = (Duration::from_micros(20_000), Duration::from_micros(156));
        let script = Script { stream: 7, tokens: 250, pace, phase };
        assert_eq!(Script::read(&script.text()), Some(script));
        for text in ["", "1", "1 2 3", "a b c d", "-1 2 3 4", "1024 1 1 1", "0 4097 1 1"] {
            assert_eq!(Script::read(text), None, "{text}");
        }
    }

    #[test]
    fn whoever_begins_falls_in_with_the_others() {
        let sent = Sent::new();
        let (pace, phase) = (Duration::from_millis(20), Duration::from_millis(3));
        let earliest = TimerInstant::now();
        let beat = sent.next_beat(pace, phase);
        assert!(beat >= earliest);
        let into = beat.into_std().duration_since(sent.start + phase);
        assert_eq!(into.as_nanos() % pace.as_nanos(), 0);
        assert!(
            sent.next_beat(Duration::ZERO, Duration::ZERO) >= earliest,
            "without a pace it begins at once"
        );
    }
}
