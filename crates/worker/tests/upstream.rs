//! A worker that fronts a server of somebody else's: what that is asked, what becomes of its answers, and of every way in which
//! it fails.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use serde_json::{Value, json};
use surety_client::{Completed, Connection, OrderOptions, Refusal, Session, SessionEvent};
use surety_net::{BindOptions, Endpoint};
use surety_proof::{Check, Unchecked};
use surety_types::{
    Digest, FailureCode, FinishReason, Message, ModelId, Order, Price, Prompt, Request, Sampling, SecretKey,
    Seed, Signed, order::ORDER_VERSION, receipt::NO_ARITHMETIC,
};
use surety_worker::serve::{
    self, Extra, RunningWorker, StartError, UpstreamKey, UpstreamSettings, WorkerSettings,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::watch,
};

const KEY: &str = "sk-not-to-be-shown";
const TIME: Duration = Duration::from_secs(30);
const CONTEXT: u32 = 4096;

/// What the server does with a request for an answer.
#[derive(Clone, Debug)]
enum Step {
    Send(Vec<u8>),
    /// Says nothing more, and keeps the connection until the other side is gone.
    Hang,
    /// A byte at a time, without ever ending a line.
    Trickle,
}

/// A server that says what it is told to.
struct Server {
    address: SocketAddr,
    script: Arc<Mutex<Vec<Step>>>,
    /// Heads and bodies of the requests for answers.
    asked: Arc<Mutex<Vec<(String, Value)>>>,
    /// Connections that the other side left.
    left: watch::Receiver<u32>,
    task: tokio::task::JoinHandle<()>,
}

impl Server {
    async fn start() -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (script, asked) = (Arc::new(Mutex::new(Vec::new())), Arc::new(Mutex::new(Vec::new())));
        let (leaving, left) = watch::channel(0);
        let (steps, requests, leaving) = (Arc::clone(&script), Arc::clone(&asked), Arc::new(leaving));
        let task = tokio::spawn(async move {
            loop {
                let Ok((stream, _)) = listener.accept().await else { return };
                let (steps, requests, leaving) =
                    (Arc::clone(&steps), Arc::clone(&requests), Arc::clone(&leaving));
                tokio::spawn(async move {
                    if Self::serve(stream, &steps, &requests).await {
                        leaving.send_modify(|left| *left += 1);
                    }
                });
            }
        });
        Server { address, script, asked, left, task }
    }

    /// One exchange; whether the other side left before its end.
    async fn serve(
        mut stream: TcpStream,
        script: &Mutex<Vec<Step>>,
        asked: &Mutex<Vec<(String, Value)>>,
    ) -> bool {
        let mut bytes = Vec::new();
        let (head, body_from) = loop {
            let mut piece = [0; 4096];
            let read = stream.read(&mut piece).await.unwrap_or(0);
            if read == 0 {
                return true;
            }
            bytes.extend_from_slice(&piece[..read]);
            if let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
                break (String::from_utf8_lossy(&bytes[..end]).into_owned(), end + 4);
            }
        };
        if head.starts_with("GET /v1/models ") {
            let list =
                json!({"data": [{"id": "big", "max_model_len": CONTEXT}, {"id": "small"}]}).to_string();
            let reply = format!(
                "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{list}",
                list.len(),
            );
            let _ = stream.write_all(reply.as_bytes()).await;
            return false;
        }
        let length = head.lines().find_map(|line| {
            line.to_ascii_lowercase()
                .strip_prefix("content-length: ")
                .and_then(|length| length.parse::<usize>().ok())
        });
        let length = length.expect("a length");
        while bytes.len() < body_from + length {
            let mut piece = [0; 4096];
            let read = stream.read(&mut piece).await.unwrap_or(0);
            assert!(read > 0, "the whole body comes");
            bytes.extend_from_slice(&piece[..read]);
        }
        asked.lock().unwrap().push((head, serde_json::from_slice(&bytes[body_from..]).unwrap()));
        let steps = script.lock().unwrap().clone();
        for step in steps {
            match step {
                Step::Send(bytes) => {
                    if stream.write_all(&bytes).await.is_err() {
                        return true;
                    }
                }
                Step::Hang => {
                    let mut rest = Vec::new();
                    let _ = stream.read_to_end(&mut rest).await;
                    return true;
                }
                Step::Trickle => {
                    while stream.write_all(b"x").await.is_ok() {
                        tokio::time::sleep(Duration::from_millis(20)).await;
                    }
                    return true;
                }
            }
        }
        false
    }

    fn says(&self, steps: Vec<Step>) {
        *self.script.lock().unwrap() = steps;
    }

    fn settings(&self) -> UpstreamSettings {
        UpstreamSettings {
            name: "vendor/big".into(),
            url: format!("http://{}/v1/", self.address),
            model: "big".into(),
            answers_as: None,
            claims: None,
            key: UpstreamKey::new(KEY),
            context_tokens: None,
            takes: vec![Extra::MinP],
            orders_max: 2,
            patience: Duration::from_millis(400),
        }
    }
}

fn settings(upstream: UpstreamSettings) -> WorkerSettings {
    WorkerSettings {
        key: SecretKey::from_bytes(&[1; 32]),
        listen: "127.0.0.1:0".parse().unwrap(),
        relays: Vec::new(),
        paused: false,
        models: Vec::new(),
        upstreams: vec![upstream],
        cache: None,
        backend: None,
        threads: std::num::NonZeroUsize::new(1),
        context_tokens: None,
        kv_bytes: None,
        region: None,
        ledger: None,
        sharing: None,
        lie: None,
    }
}

struct Bench {
    server: Server,
    worker: RunningWorker,
    connection: Connection,
    _endpoint: Endpoint,
    model: ModelId,
    payer: SecretKey,
}

async fn bench() -> Bench {
    let server = Server::start().await;
    let worker = serve::start(settings(server.settings()), |_| {}).await.unwrap();
    let model = worker.models()[0].id;
    let payer = SecretKey::from_bytes(&[2; 32]);
    let listen = "127.0.0.1:0".parse().unwrap();
    let endpoint = Endpoint::bind(BindOptions { key: payer.clone(), listen }).await.unwrap();
    let connection = Connection::open(&endpoint, worker.address());
    connection.ready(TIME).await.unwrap();
    Bench { server, worker, connection, _endpoint: endpoint, model, payer }
}

fn chat() -> Request {
    Request {
        prompt: Prompt::chat(vec![Message::text("system", "Be short."), Message::text("user", "Hello")]),
        stop: Vec::new(),
        logprobs: None,
        prompt_logprobs: None,
        date: None,
        grammar: None,
        embedding: None,
    }
}

fn event(data: &Value) -> Vec<u8> {
    format!("data: {data}\n\n").into_bytes()
}

fn piece(text: &str) -> Vec<u8> {
    event(&json!({"model": "big", "choices": [{"index": 0, "delta": {"content": text}}]}))
}

fn finish(reason: &str) -> Vec<u8> {
    event(&json!({"choices": [{"index": 0, "delta": {}, "finish_reason": reason}]}))
}

fn usage(prompt: u32, output: u32) -> Vec<u8> {
    event(&json!({"choices": [], "usage": {"prompt_tokens": prompt, "completion_tokens": output}}))
}

fn head() -> Step {
    Step::Send(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n".to_vec())
}

/// A stream of these, to its end.
fn stream(pieces: &[Vec<u8>]) -> Vec<Step> {
    vec![head(), Step::Send([pieces.concat(), b"data: [DONE]\n\n".to_vec()].concat())]
}

impl Bench {
    fn order(&self, request: &Request) -> Order {
        let issued_ms = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as u64;
        Order {
            version: ORDER_VERSION,
            model: self.model,
            request_digest: request.digest(),
            nonce: [3; 32],
            seed: Seed::Caller(5),
            choice: 0,
            sampling: Sampling { temperature: 0.7, ..Sampling::default() },
            max_output_tokens: 24,
            ignore_end: false,
            deadline_ms: issued_ms + 60_000,
            price_ceiling: Price::ZERO,
            channel: None,
            payer: self.payer.public(),
            issued_ms,
            resumed: None,
            disclosure: None,
        }
    }

    async fn send(&self, order: Order, request: Request) -> Session {
        let options = OrderOptions {
            stall: TIME,
            acceptance: TIME,
            context_tokens: Some(CONTEXT),
            arithmetic: Some(NO_ARITHMETIC),
            region: None,
        };
        self.connection.order(Signed::sign(order, &self.payer), request, Vec::new(), options).await.unwrap()
    }

    async fn ask(&self, request: Request) -> Completed {
        let order = self.order(&request);
        completed(self.send(order, request).await).await
    }

    async fn refused(&self, order: Order, request: Request) -> Refusal {
        let mut session = self.send(order, request).await;
        loop {
            match session.next().await.unwrap() {
                SessionEvent::Refused(refusal) => return *refusal,
                SessionEvent::Finished(completed) => panic!("{:?}", completed.receipt.value()),
                _ => {}
            }
        }
    }

    fn asked(&self) -> usize {
        self.server.asked.lock().unwrap().len()
    }
}

async fn completed(mut session: Session) -> Completed {
    loop {
        match session.next().await.unwrap() {
            SessionEvent::Finished(completed) => return *completed,
            SessionEvent::Refused(refusal) => panic!("{:?}", refusal.receipt.failure()),
            _ => {}
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_is_the_upstreams_text_and_count_and_claims_no_more() {
    let bench = bench().await;
    let status = bench.connection.status().await.unwrap();
    let served = &status.models[0];
    assert_eq!(
        (served.names.as_slice(), served.context_tokens),
        (["vendor/big".to_owned()].as_slice(), CONTEXT)
    );
    assert!(served.manifest.is_by_word() && served.manifest.name == "big" && served.calls.is_none());

    bench.server.says(stream(&[piece("Good "), piece("day"), finish("stop"), usage(17, 9)]));
    let request = Request { stop: vec!["END".into(), "x".into()], ..chat() };
    let mut order = bench.order(&request);
    (order.sampling.min_p, order.sampling.frequency_penalty) = (0.05, 0.3);
    let Completed { answer, receipt, checked } = completed(bench.send(order, request).await).await;
    assert_eq!(answer.text, "Good day");
    assert_eq!((receipt.prompt_tokens, receipt.output_tokens, receipt.finish), (17, 9, FinishReason::Stop));
    assert_eq!(
        (receipt.arithmetic, receipt.state_commitment, receipt.price),
        (NO_ARITHMETIC, Digest::ZERO, Price::ZERO)
    );
    assert!(
        checked.is_by_word()
            && checked.checked.contains(&Check::Word)
            && checked.checked.contains(&Check::Text)
    );
    for overstated in [Check::Parameters, Check::OutputTokens, Check::Salt, Check::PromptTokens] {
        assert!(!checked.checked.contains(&overstated), "{overstated:?}");
    }
    assert!(
        checked.unchecked.contains(&Unchecked::Upstream) && checked.unchecked.contains(&Unchecked::Usage)
    );

    let (head, body) = bench.server.asked.lock().unwrap().pop().unwrap();
    assert!(head.starts_with("POST /v1/chat/completions "), "{head}");
    assert!(head.to_lowercase().contains(&format!("authorization: bearer {KEY}")), "the key is sent");
    assert_eq!(
        body,
        json!({
            "model": "big", "stream": true, "stream_options": {"include_usage": true},
            "messages": [{"role": "system", "content": "Be short."}, {"role": "user", "content": "Hello"}],
            "max_tokens": 24, "temperature": 0.7, "top_p": 1.0, "frequency_penalty": 0.3, "min_p": 0.05, "seed": 5,
            "stop": ["END", "x"],
        })
    );

    // A raw text goes where texts go; as much as there is room for needs no limit; another seed for another choice.
    bench.server.says(stream(&[event(&json!({"choices": [{"text": "day"}]})), finish("length")]));
    let request = Request { prompt: Prompt::Text("Good ".into()), ..chat() };
    let order =
        Order { choice: 1, seed: Seed::Caller(5), max_output_tokens: CONTEXT, ..bench.order(&request) };
    let raw = completed(bench.send(order, request).await).await;
    assert_eq!((raw.answer.text.as_str(), raw.receipt.finish), ("day", FinishReason::Length));
    assert_eq!(
        (raw.receipt.prompt_tokens, raw.receipt.output_tokens),
        (0, 1),
        "without a count, what was seen"
    );
    let (head, body) = bench.server.asked.lock().unwrap().pop().unwrap();
    assert!(head.starts_with("POST /v1/completions "), "{head}");
    assert_eq!((&body["prompt"], &body["max_tokens"]), (&json!("Good "), &json!(CONTEXT)));
    assert_ne!(body["seed"], json!(5));
    let request = chat();
    let order = Order { seed: Seed::Nonce, max_output_tokens: CONTEXT, ..bench.order(&request) };
    completed(bench.send(order, request).await).await;
    let (_, body) = bench.server.asked.lock().unwrap().pop().unwrap();
    assert!(body.get("max_tokens").is_none() && body.get("seed").is_none(), "{body}");
    bench.worker.shutdown(Duration::ZERO).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn text_ends_before_a_stop_string_that_the_upstream_passed_over() {
    let bench = bench().await;
    let tail = piece(" and more");
    bench.server.says(stream(&[
        piece("one E"),
        piece("N"),
        piece("D two"),
        tail,
        finish("stop"),
        usage(3, 7),
    ]));
    let done = bench.ask(Request { stop: vec!["END".into()], ..chat() }).await;
    assert_eq!((done.answer.text.as_str(), done.receipt.finish), ("one ", FinishReason::Stop));
    assert_eq!(done.receipt.output_tokens, 1, "what was seen of it");
    // What only began like one is given.
    bench.server.says(stream(&[piece("one E"), piece("N"), finish("stop"), usage(3, 3)]));
    let done = bench.ask(Request { stop: vec!["END".into()], ..chat() }).await;
    assert_eq!((done.answer.text.as_str(), done.receipt.output_tokens), ("one EN", 3));
    bench.worker.shutdown(Duration::ZERO).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_payer_that_cancels_or_leaves_frees_the_upstream() {
    let mut bench = bench().await;
    bench.server.says(vec![head(), Step::Send(piece("so far")), Step::Hang]);
    let request = chat();
    let mut session = bench.send(bench.order(&request), request.clone()).await;
    while !matches!(session.next().await.unwrap(), SessionEvent::Tokens { .. }) {}
    session.cancel().await;
    let done = completed(session).await;
    assert_eq!((done.answer.text.as_str(), done.receipt.finish), ("so far", FinishReason::Cancelled));
    bench.server.left.wait_for(|left| *left == 1).await.unwrap();

    let mut session = bench.send(bench.order(&request), request).await;
    while !matches!(session.next().await.unwrap(), SessionEvent::Tokens { .. }) {}
    drop(session);
    bench.server.left.wait_for(|left| *left == 2).await.unwrap();
    bench.worker.shutdown(Duration::ZERO).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_upstream_would_not_keep_to_is_refused_by_name_and_never_asked() {
    let bench = bench().await;
    let check = async |change: fn(&mut Order, &mut Request), expected: &str| {
        let mut request = chat();
        let mut order = bench.order(&request);
        change(&mut order, &mut request);
        order.request_digest = request.digest();
        let refusal = bench.refused(order, request).await;
        let (code, message) = refusal.receipt.failure().unwrap();
        assert_eq!(code, FailureCode::BadRequest, "{message}");
        assert!(message.contains(expected), "{message}");
    };
    check(|order, _| order.sampling.top_k = 40, "`top_k`").await;
    check(|order, _| order.sampling.repetition_penalty = 1.1, "`repetition_penalty`").await;
    check(|order, _| order.sampling.logit_bias = vec![(5, 1.0)], "`logit_bias`").await;
    check(|order, _| order.ignore_end = true, "`ignore_eos`").await;
    check(|order, _| order.max_output_tokens = 0, "limit of 0 tokens").await;
    check(|_, request| request.logprobs = Some(2), "`logprobs`").await;
    check(|_, request| request.prompt = Prompt::Tokens(vec![1]), "token ids").await;
    check(
        |order, request| {
            let grammar = r#"{"type":"object"}"#;
            order.sampling.grammar = Some(Request::grammar_digest(grammar));
            request.grammar = Some(grammar.into());
        },
        "`response_format`",
    )
    .await;
    assert_eq!(bench.asked(), 0);
    bench.worker.shutdown(Duration::ZERO).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_failure_of_the_upstream_is_signed_with_its_code_and_without_the_key() {
    let bench = bench().await;
    let status = |status: &str, body: &str| {
        vec![Step::Send(
            format!("HTTP/1.1 {status}\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}", body.len())
                .into_bytes(),
        )]
    };
    let raw = |bytes: Vec<u8>| vec![head(), Step::Send(bytes)];
    let leak = format!(r#"{{"error":{{"message":"the key {KEY} is odd"}}}}"#);
    let chunked = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\nffff\r\ndata: {";
    let cases: Vec<(&str, Vec<Step>, FailureCode, &str)> = vec![
        ("hangs", vec![Step::Hang], FailureCode::Internal, "did not begin within"),
        ("hangs up", vec![], FailureCode::Internal, "connection to the operator's upstream broke"),
        (
            "falls silent",
            vec![head(), Step::Send(piece("a")), Step::Hang],
            FailureCode::Internal,
            "fell silent",
        ),
        ("slow-loris", vec![head(), Step::Trickle], FailureCode::Internal, "fell silent"),
        ("no stream", status("200 OK", "{}"), FailureCode::Internal, "does not stream"),
        ("garbage", raw(b"\xff\xfe\n\n".to_vec()), FailureCode::Internal, "no server-sent event"),
        ("a huge line", raw(vec![b'x'; 3 << 20]), FailureCode::Internal, "more than 1048576 bytes"),
        (
            "another model",
            raw(event(&json!({"model": "tiny"}))),
            FailureCode::Internal,
            "answers as \"tiny\"",
        ),
        ("no finish reason", stream(&[piece("a")]), FailureCode::Internal, "without saying why"),
        ("cut off", vec![Step::Send(chunked.to_vec())], FailureCode::Internal, "broke"),
        (
            "too much",
            stream(&[piece(&"x".repeat(100_000)), finish("stop")]),
            FailureCode::Internal,
            "more text than",
        ),
        (
            "error in mid-answer",
            raw([piece("a"), event(&json!({"error": {"message": KEY}}))].concat()),
            FailureCode::Internal,
            "[key]",
        ),
        ("filtered", raw(finish("content_filter")), FailureCode::Internal, "withheld"),
        ("400", status("400 Bad Request", &leak), FailureCode::BadRequest, "the key [key] is odd"),
        (
            "401",
            status("401 Unauthorized", &leak),
            FailureCode::Internal,
            "does not accept the operator's key",
        ),
        ("redirect", status("302 Found", ""), FailureCode::Internal, "points elsewhere"),
        ("429", status("429 Too Many Requests", &leak), FailureCode::Overloaded, "overloaded"),
        ("500", status("500 Internal Server Error", &leak), FailureCode::Internal, "the key [key] is odd"),
    ];
    for (name, steps, code, expected) in cases {
        bench.server.says(steps);
        let request = chat();
        let refusal = bench.refused(bench.order(&request), request).await;
        let (found, message) = refusal.receipt.failure().unwrap();
        assert_eq!(found, code, "{name}: {message}");
        assert!(message.contains(expected), "{name}: {message}");
        assert!(!message.contains(KEY), "{name}: {message}");
        assert!(refusal.answer.acceptance.is_some(), "{name}: it was accepted");
    }
    // It serves on, until there is nobody to ask.
    bench.server.says(stream(&[piece("fine"), finish("stop"), usage(1, 1)]));
    assert_eq!(bench.ask(chat()).await.answer.text, "fine");
    bench.server.task.abort();
    let _ = bench.server.task.await;
    let request = chat();
    let (payer, model) = (bench.payer.clone(), bench.model);
    let order = Order { model, payer: payer.public(), request_digest: request.digest(), ..order_now() };
    let options = OrderOptions { stall: TIME, acceptance: TIME, ..OrderOptions::default() };
    let mut session =
        bench.connection.order(Signed::sign(order, &payer), request, Vec::new(), options).await.unwrap();
    let refusal = loop {
        if let SessionEvent::Refused(refusal) = session.next().await.unwrap() {
            break refusal;
        }
    };
    let (code, message) = refusal.receipt.failure().unwrap();
    assert_eq!((code, message), (FailureCode::Internal, "the operator's upstream cannot be reached"));
    bench.worker.shutdown(Duration::ZERO).await;
}

fn order_now() -> Order {
    let issued_ms = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as u64;
    Order {
        version: ORDER_VERSION,
        model: ModelId(Digest::ZERO),
        request_digest: Digest::ZERO,
        nonce: [4; 32],
        seed: Seed::Nonce,
        choice: 0,
        sampling: Sampling::default(),
        max_output_tokens: 8,
        ignore_end: false,
        deadline_ms: issued_ms + 60_000,
        price_ceiling: Price::ZERO,
        channel: None,
        payer: SecretKey::from_bytes(&[2; 32]).public(),
        issued_ms,
        resumed: None,
        disclosure: None,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upstream_is_asked_for_its_models_before_it_is_fronted() {
    let server = Server::start().await;
    let refused = async |change: fn(&mut UpstreamSettings)| {
        let mut upstream = server.settings();
        change(&mut upstream);
        match serve::start(settings(upstream), |_| {}).await {
            Err(error @ StartError::Upstream { .. }) => {
                let source = std::error::Error::source(&error).unwrap().to_string();
                (source, error.hint().unwrap())
            }
            Err(other) => panic!("{other}"),
            Ok(_) => panic!("it starts"),
        }
    };
    let (said, hint) = refused(|settings| settings.model = "huge".into()).await;
    assert!(said.contains("has no model `huge`; it has big, small"), "{said}");
    assert!(hint.contains("--upstream-model"), "{hint}");
    let (said, hint) = refused(|settings| settings.model = "small".into()).await;
    assert!(said.contains("how many tokens `small` takes") && hint.contains("--context"), "{said} {hint}");
    let (said, _) =
        refused(|settings| settings.url = "http://user:hidden@127.0.0.1:9/v1?key=hidden".into()).await;
    assert!(said.contains("127.0.0.1:9/v1") && !said.contains("hidden"), "{said}");
    let (said, _) = refused(|settings| settings.url = "http://127.0.0.1:1/v1".into()).await;
    assert!(said.contains("cannot be reached"), "{said}");
    assert!(!format!("{:?}", server.settings()).contains(KEY));
}
