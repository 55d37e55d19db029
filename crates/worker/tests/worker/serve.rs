//! A worker serving the bundled demonstration model, asked by the real client over real sockets.

use std::{
    num::NonZeroUsize,
    path::{Path, PathBuf},
    time::Duration,
};

use surety_blobs::{
    HoldLimits, PullLimits, PullRequest, Shelf, View,
    message::{FromHolder, ToHolder},
    pull,
};
use surety_client::{Completed, Connection, OrderOptions, Refusal, Session, SessionEvent};
use surety_kernels::{Backend, Executor};
use surety_net::{BindOptions, CloseCode, Endpoint, Protocol, ReceiveError, Stream};
use surety_types::{
    Canonical, Channel, Digest, FailureCode, FinishReason, FromWorker, Message, ModelId, Order, Price,
    Prompt, Receipt, Request, Sampling, SecretKey, Seed, Signed, ToWorker, Voucher, WorkerState,
    order::ORDER_VERSION,
};
use surety_worker::{
    audit::{Discrepancy, recompute},
    load::{Loader, ModelFile, ModelPlace},
    serve::{self, ModelSettings, RunningWorker, Sharing, WorkerSettings},
};

const MODEL: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../models/shakespeare-demo.gguf");
const TIME: Duration = Duration::from_secs(60);

struct Bench {
    worker: Option<RunningWorker>,
    connection: Connection,
    _endpoint: Endpoint,
    model: ModelId,
    payer: SecretKey,
    _folder: tempfile::TempDir,
}

fn file() -> ModelFile {
    let blake3 = Digest(*blake3::hash(&std::fs::read(MODEL).unwrap()).as_bytes());
    ModelFile { place: ModelPlace::File(MODEL.into()), blake3 }
}

fn settings(cache: Option<&Path>) -> WorkerSettings {
    WorkerSettings {
        key: SecretKey::from_bytes(&[1; 32]),
        listen: "127.0.0.1:0".parse().unwrap(),
        relays: Vec::new(),
        paused: false,
        models: vec![
            ModelSettings { name: "demo".into(), file: file() },
            ModelSettings { name: "alias".into(), file: file() },
        ],
        upstreams: Vec::new(),
        cache: cache.map(Path::to_owned),
        backend: None,
        threads: NonZeroUsize::new(1),
        context_tokens: None,
        kv_bytes: Some(64 << 20),
        region: None,
        ledger: None,
        sharing: None,
        lie: None,
    }
}

async fn bench() -> Bench {
    bench_sharing(|_| None).await
}

async fn bench_sharing(sharing: impl Fn(&Path) -> Option<Sharing>) -> Bench {
    let folder = tempfile::tempdir().unwrap();
    let settings = WorkerSettings { sharing: sharing(folder.path()), ..settings(Some(folder.path())) };
    let worker = serve::start(settings, |_| {}).await.unwrap();
    let model = worker.models()[0].id;
    let payer = SecretKey::from_bytes(&[2; 32]);
    let listen = "127.0.0.1:0".parse().unwrap();
    let endpoint = Endpoint::bind(BindOptions { key: payer.clone(), listen }).await.unwrap();
    let connection = Connection::open(&endpoint, worker.address());
    connection.ready(TIME).await.unwrap();
    Bench { worker: Some(worker), connection, _endpoint: endpoint, model, payer, _folder: folder }
}

fn request(prompt: Prompt) -> Request {
    Request {
        prompt,
        stop: Vec::new(),
        logprobs: None,
        prompt_logprobs: None,
        date: None,
        grammar: None,
        embedding: None,
    }
}

fn chat(content: &str) -> Request {
    let message = Message::text("user", content);
    request(Prompt::chat(vec![message]))
}

impl Bench {
    fn order(&self, request: &Request) -> Order {
        let issued_ms =
            std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_millis() as u64;
        Order {
            version: ORDER_VERSION,
            model: self.model,
            request_digest: request.digest(),
            nonce: [3; 32],
            seed: Seed::Caller(5),
            choice: 0,
            sampling: Sampling::default(),
            max_output_tokens: 24,
            ignore_end: true,
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
        let order = Signed::sign(order, &self.payer);
        let options = OrderOptions { stall: TIME, acceptance: TIME, ..OrderOptions::default() };
        self.connection.order(order, request, Vec::new(), options).await.unwrap()
    }

    async fn ask(&self, request: Request) -> Completed {
        let order = self.order(&request);
        completed(self.send(order, request).await).await
    }

    async fn idle(&self) {
        for _ in 0..500 {
            let status = self.connection.status().await.unwrap();
            if status.active_requests + status.waiting_requests == 0 {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("the worker is not idle");
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

async fn refused(mut session: Session) -> Refusal {
    loop {
        match session.next().await.unwrap() {
            SessionEvent::Refused(refusal) => return *refusal,
            SessionEvent::Finished(_) => panic!("it was answered"),
            _ => {}
        }
    }
}

async fn tokens(session: &mut Session, wanted: usize) {
    let mut seen = 0;
    while seen < wanted {
        match session.next().await.unwrap() {
            SessionEvent::Tokens { tokens, .. } => seen += tokens.len(),
            SessionEvent::Accepted(_) => {}
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_is_the_same_twice_and_recomputes_to_the_bit() {
    let bench = bench().await;
    let status = bench.connection.status().await.unwrap();
    assert_eq!(status.state, WorkerState::Ready);
    assert_eq!(status.models.len(), 1);
    assert_eq!(status.models[0].names, ["demo", "alias"]);
    assert_eq!(status.models[0].id, bench.model);

    let first = bench.ask(chat("Who goes there?")).await;
    let second = bench.ask(chat("Who goes there?")).await;
    assert_eq!(first.answer.output_ids, second.answer.output_ids);
    assert_eq!(first.answer.text, second.answer.text);
    assert_eq!(first.receipt.output_tokens, 24);
    assert_eq!(first.receipt.finish, FinishReason::Length);
    assert_ne!(first.answer.salt, second.answer.salt);
    let other = bench.ask(chat("Who goes here?")).await;
    assert_ne!(first.answer.output_ids, other.answer.output_ids);

    let executor = Executor::new(Backend::detect(), NonZeroUsize::MIN).unwrap();
    let loader = Loader { cache: None, context_tokens: None, executor: &executor };
    let model = loader.load(&file(), &mut |_| {}).unwrap();
    let again = |completed: &Completed| {
        recompute(&model, &executor, &completed.checked, &completed.answer, &mut |_, _| {})
    };
    let recomputed = again(&first).unwrap();
    assert_eq!(recomputed.output_tokens, 24);

    let mut changed = first.answer.clone();
    changed.output_ids[7] = changed.output_ids[7].wrapping_add(1) % model.manifest().vocabulary;
    let fault = recompute(&model, &executor, &first.checked, &changed, &mut |_, _| {}).unwrap_err();
    assert!(matches!(fault, Discrepancy::Token { index: 7, .. }), "{fault}");
    let mut changed = first.answer.clone();
    changed.text.push('\u{200b}');
    let fault = recompute(&model, &executor, &first.checked, &changed, &mut |_, _| {}).unwrap_err();
    assert!(matches!(fault, Discrepancy::Text { .. }), "{fault}");
    let mut changed = first.answer.clone();
    changed.salt[0] ^= 1;
    let fault = recompute(&model, &executor, &first.checked, &changed, &mut |_, _| {}).unwrap_err();
    assert!(matches!(fault, Discrepancy::State(_)), "{fault}");
}

#[tokio::test(flavor = "multi_thread")]
async fn strangers_beside_it_change_nothing() {
    let bench = bench().await;
    let alone = bench.ask(chat("To be, or not to be?")).await;
    let mut sessions = Vec::new();
    for stranger in 0..8 {
        let request = chat(&format!("Stranger {stranger} speaks."));
        sessions.push(bench.send(bench.order(&request), request).await);
    }
    let among = bench.ask(chat("To be, or not to be?")).await;
    assert_eq!(alone.answer.output_ids, among.answer.output_ids);
    for session in sessions {
        completed(session).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_answered_is_refused_with_a_signature() {
    let bench = bench().await;
    let context = bench.connection.status().await.unwrap().models[0].context_tokens;

    let long = request(Prompt::Tokens(vec![1; context as usize]));
    let refusal = refused(bench.send(bench.order(&long), long).await).await;
    let (code, message) = refusal.receipt.failure().unwrap();
    assert_eq!(code, FailureCode::ContextLengthExceeded);
    assert!(message.contains(&context.to_string()), "{message}");
    assert_eq!(refusal.receipt.prompt_tokens, context);

    let fits = request(Prompt::Tokens(vec![1; context as usize - 1]));
    let completed = bench.ask(fits).await;
    assert_eq!(completed.receipt.output_tokens, 1);
    assert_eq!(completed.receipt.finish, FinishReason::Length);

    let check = async |code: FailureCode, order: Order, request: Request| {
        let refusal = refused(bench.send(order, request).await).await;
        assert_eq!(refusal.receipt.failure().unwrap().0, code, "{:?}", refusal.receipt.failure());
        assert!(refusal.answer.acceptance.is_none());
    };
    let outside = request(Prompt::Tokens(vec![1, 4_000_000_000]));
    check(FailureCode::BadRequest, bench.order(&outside), outside).await;
    let empty = request(Prompt::Tokens(Vec::new()));
    check(FailureCode::BadRequest, bench.order(&empty), empty).await;
    let plain = chat("hello");
    let other = Order { model: ModelId(Digest([9; 32])), ..bench.order(&plain) };
    check(FailureCode::ModelUnknown, other, plain.clone()).await;
    let biased = Sampling { logit_bias: vec![(4_000_000_000, 1.0)], ..Sampling::default() };
    check(FailureCode::BadRequest, Order { sampling: biased, ..bench.order(&plain) }, plain.clone()).await;

    // A grammar that is none, and an answer in one that is to go on past its end.
    let held = |grammar: &str| {
        let request = Request { grammar: Some(grammar.to_owned()), ..plain.clone() };
        let mut order = Order { ignore_end: false, ..bench.order(&request) };
        order.sampling.grammar = Some(Request::grammar_digest(grammar));
        (order, request)
    };
    let (order, request) = held(r#"{"type":"object"}"#);
    check(FailureCode::BadRequest, order, request).await;
    let (order, request) = held(&surety_grammar::json_object());
    check(FailureCode::BadRequest, Order { ignore_end: true, ..order }, request).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_may_be_asked_for() {
    let bench = bench().await;
    let scored = Request { prompt_logprobs: Some(2), ..request(Prompt::Text("Enter Hamlet.".into())) };
    let order = Order { max_output_tokens: 0, ..bench.order(&scored) };
    let mut session = bench.send(order, scored).await;
    let mut scored = 0;
    let completed = loop {
        match session.next().await.unwrap() {
            SessionEvent::Prompt { logprobs, .. } => scored += logprobs.len(),
            SessionEvent::Finished(completed) => break completed,
            SessionEvent::Accepted(_) => {}
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(scored, completed.receipt.prompt_tokens as usize);
    assert!(scored > 2);
    assert_eq!((completed.receipt.output_tokens, completed.receipt.finish), (0, FinishReason::Length));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_answer_ends_at_once_with_a_receipt_for_what_was_sent() {
    let bench = bench().await;
    let plain = chat("Speak.");
    let order = Order { max_output_tokens: 10_000, ..bench.order(&plain) };
    let mut session = bench.send(order, plain).await;
    tokens(&mut session, 3).await;
    session.cancel().await;
    let completed = completed(session).await;
    assert_eq!(completed.receipt.finish, FinishReason::Cancelled);
    assert!(completed.receipt.output_tokens >= 3);
    bench.idle().await;

    let executor = Executor::new(Backend::detect(), NonZeroUsize::MIN).unwrap();
    let loader = Loader { cache: None, context_tokens: None, executor: &executor };
    let model = loader.load(&file(), &mut |_| {}).unwrap();
    recompute(&model, &executor, &completed.checked, &completed.answer, &mut |_, _| {}).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_goes_away_frees_its_place() {
    let bench = bench().await;
    for _ in 0..4 {
        let plain = chat("Speak on.");
        let order = Order { max_output_tokens: 10_000, ..bench.order(&plain) };
        let mut session = bench.send(order, plain).await;
        tokens(&mut session, 1).await;
        drop(session);
    }
    bench.idle().await;
    bench.ask(chat("Still there?")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deadline_is_kept_or_signed_off() {
    let bench = bench().await;
    let plain = chat("Quick!");
    let order = bench.order(&plain);
    let order = Order { max_output_tokens: 10_000, deadline_ms: order.issued_ms + 1, ..order };
    let mut session = bench.send(order, plain).await;
    // Either side's clock may come first: the worker signs off, or the client no longer waits for that.
    loop {
        match session.next().await {
            Ok(SessionEvent::Refused(refusal)) => {
                assert_eq!(refusal.receipt.failure().unwrap().0, FailureCode::DeadlineExceeded);
                break;
            }
            Ok(SessionEvent::Finished(_)) => panic!("it was answered"),
            Ok(_) => {}
            Err(error) => {
                assert!(format!("{error:?}").starts_with("DeadlineExceeded"), "{error:?}");
                break;
            }
        }
    }
    bench.idle().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_stops_signs_off_what_it_breaks() {
    let mut bench = bench().await;
    let plain = chat("Speak for ever.");
    let order = Order { max_output_tokens: 10_000, ..bench.order(&plain) };
    let mut session = bench.send(order, plain.clone()).await;
    tokens(&mut session, 1).await;
    let worker = bench.worker.take().unwrap();
    let stopping = tokio::spawn(worker.shutdown(Duration::from_millis(1)));
    let refusal = refused(session).await;
    let (code, message) = refusal.receipt.failure().unwrap();
    assert_eq!((code, message), (FailureCode::Leaving, "the worker is shutting down"));
    assert!(refusal.receipt.output_tokens >= 1);
    stopping.await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pause_refuses_what_is_new_and_finishes_what_is_there() {
    let bench = bench().await;
    let control = bench.worker.as_ref().unwrap().control();
    assert_eq!(control.relay_connected(), None);
    assert!(control.earnings().is_none(), "it serves for nothing");
    let long = Order { max_output_tokens: 200, ..bench.order(&chat("Speak!")) };
    let mut running = bench.send(long, chat("Speak!")).await;
    // It is taken before the pause begins.
    let first = running.next().await.unwrap();
    assert!(!matches!(first, SessionEvent::Refused(_) | SessionEvent::Finished(_)));
    control.pause();
    let session = bench.send(bench.order(&chat("Who goes there?")), chat("Who goes there?")).await;
    let refusal = refused(session).await;
    let (code, message) = refusal.receipt.failure().unwrap();
    assert_eq!((code, message), (FailureCode::Leaving, "the worker is paused by its operator"));
    assert_eq!(bench.connection.status().await.unwrap().state, surety_types::WorkerState::Draining);
    assert_eq!(completed(running).await.receipt.output_tokens, 200);
    control.resume();
    assert_eq!(bench.connection.status().await.unwrap().state, surety_types::WorkerState::Ready);
    bench.ask(chat("Who goes there?")).await;

    // One that starts paused is as one that was paused.
    let paused = serve::start(WorkerSettings { paused: true, ..settings(None) }, |_| {}).await.unwrap();
    assert_eq!(paused.control().status().state, surety_types::WorkerState::Draining);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_at_a_relay_answers() {
    let limits = surety_net::RelayLimits::default();
    let relay = surety_net::Relay::start("127.0.0.1:0".parse().unwrap(), limits).await.unwrap();
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let at_relay = WorkerSettings {
        // The first is not there.
        relays: vec![surety_net::RelayAddress(free), relay.address()],
        // The payer speaks IPv4: there is no other way than the relay.
        listen: "[::1]:0".parse().unwrap(),
        ..settings(None)
    };
    let worker = serve::start(at_relay, |_| {}).await.unwrap();
    assert_eq!(worker.address().location, surety_net::Location::Relayed(relay.address()));
    let (model, payer) = (worker.models()[0].id, SecretKey::from_bytes(&[2; 32]));
    let listen = "127.0.0.1:0".parse().unwrap();
    let endpoint = Endpoint::bind(BindOptions { key: payer.clone(), listen }).await.unwrap();
    let connection = Connection::open(&endpoint, worker.address());
    connection.ready(TIME).await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let bench =
        Bench { worker: Some(worker), connection, _endpoint: endpoint, model, payer, _folder: folder };
    let answer = bench.ask(chat("Who goes there?")).await;
    assert_eq!(answer.receipt.output_tokens, 24);
    assert_eq!(bench.worker.as_ref().unwrap().control().relay_connected(), Some(true));
    assert!(relay.counts().passed > 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_image_is_built_again() {
    let folder = tempfile::tempdir().unwrap();
    let executor = Executor::new(Backend::detect(), NonZeroUsize::MIN).unwrap();
    let loader = Loader { cache: Some(folder.path()), context_tokens: None, executor: &executor };
    let mut packed = 0;
    let mut load = || {
        let mut packs = false;
        let model = loader.load(&file(), &mut |_| packs = true).unwrap();
        packed += usize::from(packs);
        (model.id(), packed)
    };
    let (id, _) = load();
    assert_eq!(load(), (id, 1));
    let image = std::fs::read_dir(folder.path())
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .find(|path| path.extension().is_some_and(|extension| extension == "tiles"))
        .unwrap();
    let good = std::fs::read(&image).unwrap();
    let mut damaged = good.clone();
    damaged[good.len() / 2] ^= 4;
    for bad in [&damaged[..], &good[..good.len() - 1], &[], &[&good[..], &[0]].concat()] {
        let before = load().1;
        std::fs::remove_file(&image).unwrap();
        std::fs::write(&image, bad).unwrap();
        assert_eq!(load(), (id, before + 1));
        assert_eq!(std::fs::read(&image).unwrap(), good);
    }
}

#[test]
fn a_cache_that_cannot_be_written_costs_only_memory() {
    let folder = tempfile::tempdir().unwrap();
    let in_the_way = folder.path().join("cache");
    std::fs::write(&in_the_way, "").unwrap();
    let executor = Executor::new(Backend::detect(), NonZeroUsize::MIN).unwrap();
    let loader = Loader { cache: Some(&in_the_way), context_tokens: None, executor: &executor };
    loader.load(&file(), &mut |_| {}).unwrap();
}

#[tokio::test]
async fn a_worker_without_a_model_does_not_start() {
    let nothing = WorkerSettings { models: Vec::new(), ..settings(None) };
    assert!(matches!(serve::start(nothing, |_| {}).await, Err(serve::StartError::NoModels)));
    let folder = tempfile::tempdir().unwrap();
    let broken = folder.path().join("x.gguf");
    std::fs::write(&broken, b"GGUF\x03\0\0\0").unwrap();
    let model = ModelFile { place: ModelPlace::File(broken), blake3: Digest([0; 32]) };
    let models = vec![ModelSettings { name: "x".into(), file: model }];
    let error =
        serve::start(WorkerSettings { models, ..settings(None) }, |_| {}).await.map(drop).unwrap_err();
    assert!(matches!(error, serve::StartError::Model { .. }), "{error}");
    assert!(error.hint().is_some());
}

/// A voucher that nobody signed.
fn voucher(order: Digest) -> Voucher {
    let channel = Channel {
        payer: Default::default(),
        payer_authorizer: Default::default(),
        receiver: Default::default(),
        receiver_authorizer: Default::default(),
        token: Default::default(),
        withdraw_delay_s: 900,
        salt: Digest::ZERO,
    };
    Voucher { channel, max_claimable: 1, signature: [27; 65], order, covered_output_tokens: 1 }
}

/// Speaks to the worker without the client that keeps to the rules.
async fn raw(bench: &Bench) -> surety_net::OrderStream {
    let address = bench.worker.as_ref().unwrap().address();
    let link = bench._endpoint.connect(&address, surety_net::Protocol::Serve).await.unwrap();
    link.open_order().await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn who_breaks_the_rules_is_cut_off_and_others_are_not() {
    let bench = bench().await;
    let plain = chat("Speak.");
    let order = Order { max_output_tokens: 10_000, ..bench.order(&plain) };
    let good = Signed::sign(order, &bench.payer).into_parts().1;
    let mut forged = good.clone();
    *forged.last_mut().unwrap() ^= 1;

    for first in [
        ToWorker::Order { order: forged, request: plain.to_cbor(), output: Vec::new() },
        ToWorker::Order { order: vec![0xff; 100], request: Vec::new(), output: Vec::new() },
        ToWorker::Cancel,
        ToWorker::Voucher(Box::new(voucher(Digest::ZERO))),
    ] {
        let mut stream = raw(&bench).await;
        stream.send(&first).await.unwrap();
        let heard = stream.receive_within(TIME).await;
        assert!(matches!(heard, Err(ReceiveError::Reset(CloseCode::BadMessage))), "{first:?}: {heard:?}");
    }

    // A request that is not the one that was signed for is refused with a signature.
    let mut stream = raw(&bench).await;
    let swapped =
        ToWorker::Order { order: good.clone(), request: chat("Sing.").to_cbor(), output: Vec::new() };
    stream.send(&swapped).await.unwrap();
    let Ok(Some(FromWorker::Receipt { receipt, .. })) = stream.receive_within(TIME).await else {
        panic!("it was not refused")
    };
    let receipt = Signed::<Receipt>::open(&receipt).unwrap();
    assert_eq!(receipt.failure().unwrap().0, FailureCode::BadRequest);

    // Nonsense in the middle ends this answer, and only this one.
    let mut stream = raw(&bench).await;
    stream
        .send(&ToWorker::Order { order: good, request: plain.to_cbor(), output: Vec::new() })
        .await
        .unwrap();
    assert!(matches!(stream.receive_within(TIME).await, Ok(Some(FromWorker::Acceptance(_)))));
    stream.send(&ToWorker::Voucher(Box::new(voucher(Digest([9; 32]))))).await.unwrap();
    while let Ok(Some(message)) = stream.receive_within(TIME).await {
        assert!(!matches!(message, FromWorker::Receipt { .. }), "nonsense was answered");
    }
    bench.idle().await;
    bench.ask(chat("Still there?")).await;
}

/// A shelf of the model alone.
struct OneModel;

impl Shelf for OneModel {
    fn paths(&self, digest: Digest) -> Vec<PathBuf> {
        if digest == file().blake3 { vec![MODEL.into()] } else { Vec::new() }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn its_file_is_given_out_and_neither_road_takes_the_others_places() {
    let bench = bench_sharing(|folder| {
        let view = View::new(OneModel, folder.join("trees"));
        // One greedy asker may hold every place among the pieces for as long as it likes.
        let limits = HoldLimits { pieces: 2, request_timeout: TIME, ..HoldLimits::default() };
        Some(Sharing { view, limits })
    })
    .await;
    let address = bench.worker.as_ref().unwrap().address();
    let asker = |seed: u8| {
        let listen = "127.0.0.1:0".parse().unwrap();
        Endpoint::bind(BindOptions { key: SecretKey::from_bytes(&[seed; 32]), listen })
    };
    // Asks for as many pieces as one connection carries, and takes none of them.
    let greedy = asker(7).await.unwrap();
    let link = greedy.connect(&address, Protocol::Blobs).await.unwrap();
    let mut untaken = Vec::new();
    for _ in 0..200 {
        let mut stream: Stream<ToHolder, FromHolder> = link.open_stream().await.unwrap();
        stream.send(&ToHolder::Piece { digest: file().blake3, index: 0 }).await.unwrap();
        untaken.push(stream);
    }
    let answered = bench.ask(chat("Speak.")).await;
    assert_eq!(answered.receipt.output_tokens, 24);

    // While orders are computed, the file comes whole, past the greedy one.
    let folder = tempfile::tempdir().unwrap();
    let place = folder.path().join("model.gguf");
    let request = PullRequest {
        digest: file().blake3,
        bytes: None,
        holders: vec![address],
        downloads: folder.path().join("downloads"),
        place: place.clone(),
    };
    let (plain, puller) = (chat("Sing."), asker(8).await.unwrap());
    let order = Order { max_output_tokens: 200, ..bench.order(&plain) };
    let session = bench.send(order, plain).await;
    let mut ignored = |_| {};
    let pulled = pull(&puller, request, PullLimits::default(), &mut ignored);
    let (completed, pulled) = tokio::join!(completed(session), pulled);
    assert_eq!(completed.receipt.output_tokens, 200);
    pulled.unwrap();
    assert!(std::fs::read(place).unwrap() == std::fs::read(MODEL).unwrap(), "the file's bytes");
    drop(untaken);
}
