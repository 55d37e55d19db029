//! A worker on a real endpoint that follows a script, with honest building blocks for scripts to deviate from.

#![allow(dead_code, reason = "each test file uses its part")]

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use surety_net::{
    BindOptions, Endpoint, Incoming, ListenLimits, Protocol, SendError, ServeStream, WorkerAddress,
};
use surety_proof::{IdsHasher, TextHasher, output_digest, prompt_digest, state_commitment, text_digest};
use surety_types::{
    Acceptance, Amount, Canonical, Digest, FailureCode, FinishReason, FromWorker, Message, ModelId, Order,
    Outcome, Price, Progress, Prompt, Receipt, Request, Sampling, SecretKey, Seed, Signed, Text, ToWorker,
    TokenLogprob, WorkerState, WorkerStatus,
};

pub const PROMPT: [u32; 4] = [1, 50, 51, 2];
pub const TOKENS: [u32; 3] = [60, 61, 62];
pub const TEXT: [&str; 3] = ["The", " sea", "."];
pub const SALT: [u8; 32] = [5; 32];
pub const CONTEXT_TOKENS: u32 = 1000;

pub fn key(seed: u8) -> SecretKey {
    SecretKey::from_bytes(&[seed; 32])
}

pub fn unix_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as u64
}

pub async fn endpoint(seed: u8) -> Endpoint {
    Endpoint::bind(BindOptions { key: key(seed), listen: "127.0.0.1:0".parse().unwrap() }).await.unwrap()
}

pub fn request() -> Request {
    Request {
        prompt: Prompt::chat(vec![Message::text("user", "What is wide?")]),
        stop: vec![],
        logprobs: None,
        prompt_logprobs: None,
        embedding: None,
        date: None,
        grammar: None,
    }
}

pub fn order_for(request: &Request) -> Order {
    let now = unix_ms();
    Order {
        version: surety_types::order::ORDER_VERSION,
        model: ModelId(Digest([7; 32])),
        request_digest: request.digest(),
        nonce: [8; 32],
        seed: Seed::Nonce,
        choice: 0,
        sampling: Sampling::default(),
        max_output_tokens: 8,
        ignore_end: false,
        deadline_ms: now + 60_000,
        price_ceiling: Price::ZERO,
        channel: None,
        payer: key(2).public(),
        issued_ms: now,
        resumed: None,
        disclosure: None,
    }
}

pub fn logprob(token: u32) -> TokenLogprob {
    TokenLogprob { token, bytes: vec![], logprob: 0.0, top: vec![] }
}

pub struct Worker {
    endpoint: Endpoint,
}

impl Worker {
    pub async fn start<F: Future<Output = ()> + Send + 'static>(
        script: impl Fn(Served) -> F + Send + Sync + 'static,
    ) -> Worker {
        Worker::start_at("127.0.0.1:0".parse().unwrap(), script).await
    }

    pub async fn start_at<F: Future<Output = ()> + Send + 'static>(
        listen: SocketAddr,
        script: impl Fn(Served) -> F + Send + Sync + 'static,
    ) -> Worker {
        let endpoint = bind(listen).await;
        let ended = Ended::default();
        let mut listener = endpoint.listen(ListenLimits::default());
        let script = Arc::new(script);
        tokio::spawn(async move {
            while let Some(incoming) = listener.accept().await {
                let (script, ended) = (script.clone(), ended.clone());
                tokio::spawn(async move {
                    match incoming {
                        Incoming::Order(stream) => script(Served::new(stream, ended).await).await,
                        // The payer may be gone already.
                        Incoming::Status(stream) => drop(stream.reply(&status()).await),
                        Incoming::Audit(_) | Incoming::Log(_) => {}
                    }
                });
            }
        });
        Worker { endpoint }
    }

    pub fn address(&self) -> WorkerAddress {
        self.endpoint.address()
    }

    pub async fn close(&self) {
        self.endpoint.close().await;
    }
}

/// Binds, waiting until the one who had the socket before has let it go.
async fn bind(listen: SocketAddr) -> Endpoint {
    for _ in 0..500 {
        if let Ok(endpoint) = Endpoint::bind(BindOptions { key: key(1), listen }).await {
            return endpoint;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("{listen} stayed in use");
}

fn status() -> WorkerStatus {
    WorkerStatus {
        worker: key(1).public(),
        software: Text::clipped("scripted"),
        state: WorkerState::Ready,
        active_requests: 0,
        waiting_requests: 0,
        models: vec![],
        region: None,
    }
}

/// Streams whose script has ended: kept, so that what was sent still arrives and the end is not a reset.
type Ended = Arc<Mutex<Vec<ServeStream>>>;

/// An order that has been read, and what was said to it so far.
pub struct Served {
    stream: Option<ServeStream>,
    ended: Ended,
    order: Signed<Order>,
    accepted_ms: u64,
    first_token_ms: Option<u64>,
    ids: IdsHasher,
    text: TextHasher,
}

impl Served {
    async fn new(mut stream: ServeStream, ended: Ended) -> Served {
        let message = stream.receive_within(Duration::from_secs(10)).await.unwrap();
        let Some(ToWorker::Order { order, request, .. }) = message else { panic!("an order comes first") };
        let order = Signed::<Order>::open(&order).unwrap();
        assert_eq!(order.payer, stream.peer());
        assert_eq!(Request::from_cbor(&request).unwrap().digest(), order.request_digest);
        Served {
            stream: Some(stream),
            ended,
            order,
            accepted_ms: unix_ms(),
            first_token_ms: None,
            ids: IdsHasher::output(),
            text: TextHasher::new(),
        }
    }

    pub fn stream(&mut self) -> &mut ServeStream {
        self.stream.as_mut().unwrap()
    }

    pub fn take_stream(&mut self) -> ServeStream {
        self.stream.take().unwrap()
    }

    /// The whole of an honest answer.
    pub async fn answer(&mut self) {
        self.accept().await;
        self.frames().await;
        self.receipt().await;
    }

    pub async fn send(&mut self, message: FromWorker) {
        self.stream().send(&message).await.unwrap();
    }

    pub fn honest_acceptance(&self) -> Acceptance {
        Acceptance {
            order: self.order.digest(),
            model: self.order.model,
            worker: key(1).public(),
            deadline_ms: self.order.deadline_ms,
            price: Price::ZERO,
            prompt_tokens: PROMPT.len() as u32,
            accepted_ms: self.accepted_ms,
            max_output_tokens: self.order.max_output_tokens,
            region: None,
        }
    }

    pub async fn accept(&mut self) {
        self.send_acceptance(self.honest_acceptance()).await;
    }

    pub async fn send_acceptance(&mut self, acceptance: Acceptance) {
        self.send(FromWorker::Acceptance(Signed::sign(acceptance, &key(1)).bytes().to_vec())).await;
    }

    pub async fn prompt(&mut self, index: u32, ids: &[u32]) {
        let logprobs = ids.iter().map(|id| logprob(*id)).collect();
        self.send(FromWorker::Prompt { index, ids: ids.to_vec(), logprobs }).await;
    }

    pub async fn frame(&mut self, index: u32, tokens: &[u32], text: &str) {
        self.first_token_ms.get_or_insert_with(unix_ms);
        self.ids.push(tokens);
        self.text.push(text);
        let frame = FromWorker::Frame { index, tokens: tokens.to_vec(), text: text.into(), logprobs: vec![] };
        self.send(frame).await;
    }

    /// All tokens, one by one, with progress in between.
    pub async fn frames(&mut self) {
        for (index, token) in TOKENS.into_iter().enumerate() {
            self.frame(index as u32, &[token], TEXT[index]).await;
            self.progress(|_| {}).await;
        }
    }

    fn signed_progress(&self, change: impl FnOnce(&mut Progress)) -> FromWorker {
        let mut progress = Progress {
            order: self.order.digest(),
            output_tokens: self.ids.count(),
            output_digest: self.ids.digest(),
            text_digest: self.text.digest(),
            at_ms: unix_ms(),
            worker: key(1).public(),
        };
        change(&mut progress);
        FromWorker::Progress(Signed::sign(progress, &key(1)).bytes().to_vec())
    }

    pub async fn progress(&mut self, change: impl FnOnce(&mut Progress)) {
        let progress = self.signed_progress(change);
        self.send(progress).await;
    }

    pub async fn try_progress(&mut self) -> Result<(), SendError> {
        let progress = self.signed_progress(|_| {});
        self.stream().send(&progress).await
    }

    /// For what was sent so far.
    pub fn honest_receipt(&self) -> Receipt {
        let state_digest = Digest([6; 32]);
        Receipt {
            version: surety_types::receipt::RECEIPT_VERSION,
            outcome: Outcome::Completed,
            order: self.order.digest(),
            model: self.order.model,
            arithmetic: 0,
            prompt_tokens: PROMPT.len() as u32,
            cached_tokens: 0,
            output_tokens: self.ids.count(),
            prompt_digest: prompt_digest(&PROMPT),
            output_digest: self.ids.digest(),
            text_digest: self.text.digest(),
            finish: FinishReason::Stop,
            seed: self.order.seed_bytes(),
            state_commitment: state_commitment(&key(1).public(), &SALT, &state_digest),
            price: Price::ZERO,
            charge: Amount::ZERO,
            accepted_ms: self.accepted_ms,
            first_token_ms: self.first_token_ms,
            done_ms: unix_ms(),
            software: Text::clipped("scripted"),
            worker: key(1).public(),
        }
    }

    pub fn failure(&self, code: FailureCode, message: &str) -> Receipt {
        let receipt = Receipt {
            outcome: Outcome::Failed { code, message: Text::clipped(message) },
            finish: FinishReason::Failed,
            state_commitment: Digest::ZERO,
            ..self.honest_receipt()
        };
        if self.ids.count() > 0 {
            return receipt;
        }
        Receipt {
            prompt_tokens: 0,
            prompt_digest: prompt_digest(&[]),
            output_digest: output_digest(&[]),
            text_digest: text_digest(""),
            ..receipt
        }
    }

    pub async fn receipt(&mut self) {
        self.send_receipt(self.honest_receipt(), SALT).await;
    }

    pub async fn send_receipt(&mut self, receipt: Receipt, salt: [u8; 32]) {
        let receipt = Signed::sign(receipt, &key(1)).bytes().to_vec();
        self.send(FromWorker::Receipt { receipt, salt }).await;
        // The payer may be gone already.
        let _ = self.stream().finish().await;
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        self.ended.lock().unwrap().extend(self.stream.take());
    }
}

/// A worker that speaks QUIC, and answers every order with the same bytes.
pub struct RawWorker {
    endpoint: iroh::Endpoint,
}

impl RawWorker {
    pub async fn start(answer: Vec<u8>) -> RawWorker {
        let endpoint = iroh::Endpoint::builder(iroh::endpoint::presets::Minimal)
            .relay_mode(iroh::RelayMode::Disabled)
            .clear_ip_transports()
            .secret_key(iroh::SecretKey::from_bytes(&[1; 32]))
            .alpns(vec![Protocol::Serve.alpn().to_vec()])
            .bind_addr("127.0.0.1:0")
            .unwrap()
            .bind()
            .await
            .unwrap();
        let listening = endpoint.clone();
        tokio::spawn(async move {
            let connection = listening.accept().await.unwrap().await.unwrap();
            let mut streams = Vec::new();
            while let Ok((mut send, receive)) = connection.accept_bi().await {
                send.write_all(&answer).await.unwrap();
                streams.push((send, receive));
            }
        });
        RawWorker { endpoint }
    }

    pub fn address(&self) -> WorkerAddress {
        WorkerAddress::direct(key(1).public(), self.endpoint.bound_sockets()[0])
    }
}
