//! Two real endpoints on loopback: honest peers are served, misbehaving ones are refused with the reason, and refusing
//! one disturbs no other.

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
    time::{Duration, Instant},
};

use iroh::{EndpointAddr, EndpointId, RelayMode, endpoint::presets};
use surety_net::{
    AskError, BindOptions, CloseCode, ConnectError, Endpoint, FrameError, Incoming, Link, ListenLimits, Lost,
    OpenError, Protocol, ReceiveError, SendError, ServeStream, Stream, WorkerAddress, encode_frame,
};
use surety_types::{
    Canonical, DecodeError, Digest, FromWorker, Manifest, SecretKey, ServedModel, Text, ToWorker,
    WorkerState, WorkerStatus, wire::MAX_TO_WORKER_BYTES,
};
use tokio::{sync::mpsc, time::timeout};

const LOOPBACK: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);
const PATIENCE: Duration = Duration::from_secs(10);

fn key(seed: u8) -> SecretKey {
    SecretKey::from_bytes(&[seed; 32])
}

async fn endpoint(seed: u8) -> Endpoint {
    Endpoint::bind(BindOptions { key: key(seed), listen: LOOPBACK }).await.unwrap()
}

fn status_of(seed: u8) -> WorkerStatus {
    let manifest = Manifest {
        name: "model".into(),
        files: vec![],
        architecture: "llama".into(),
        layers: 1,
        width: 32,
        heads: 1,
        kv_heads: 1,
        head_dim: 32,
        feed_forward: 32,
        vocabulary: 2,
        context: 16,
        formats: vec![],
        tokenizer_digest: Digest::ZERO,
        template_digest: None,
        arithmetic: 0,
        rotary_digest: Digest::ZERO,
        plan: None,
        claims: None,
    };
    WorkerStatus {
        worker: key(seed).public(),
        software: Text::clipped("test"),
        state: WorkerState::Ready,
        active_requests: 0,
        waiting_requests: 0,
        models: vec![ServedModel {
            id: manifest.id(),
            names: vec!["model".into()],
            manifest,
            context_tokens: 16,
            prefill_tokens_per_second: 0,
            decode_tokens_per_second: 0,
            price: surety_types::Price::ZERO,
            calls: None,
            vectors: None,
            batch_price: None,
        }],
        region: None,
    }
}

fn frame(index: u32) -> FromWorker {
    FromWorker::Frame { index, tokens: vec![index], text: "x".into(), logprobs: vec![] }
}

/// What a stream of the echo worker came to: every message it took, and its end.
type Outcome = (Vec<ToWorker>, Result<(), ReceiveError>);

/// A worker that answers every message with a frame, and reports what each stream came to.
struct Echo {
    endpoint: Endpoint,
    outcomes: mpsc::UnboundedReceiver<Outcome>,
}

impl Echo {
    async fn start(limits: ListenLimits) -> Echo {
        let endpoint = endpoint(1).await;
        let mut listener = endpoint.listen(limits);
        let (report, outcomes) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            while let Some(incoming) = listener.accept().await {
                let report = report.clone();
                tokio::spawn(async move {
                    match incoming {
                        Incoming::Order(stream) => {
                            // Nobody listens any more once the test is over.
                            let _ = report.send(echo(stream).await);
                        }
                        Incoming::Status(stream) => {
                            let _ = stream.reply(&status_of(1)).await;
                        }
                        Incoming::Audit(mut stream) => stream.reset(CloseCode::Failed),
                        Incoming::Log(mut stream) => stream.reset(CloseCode::Failed),
                    }
                });
            }
        });
        Echo { endpoint, outcomes }
    }

    async fn outcome(&mut self) -> Outcome {
        timeout(PATIENCE, self.outcomes.recv()).await.expect("an outcome in time").expect("a running worker")
    }
}

async fn echo(mut stream: ServeStream) -> Outcome {
    let mut taken = Vec::new();
    let end = loop {
        match stream.receive().await {
            Ok(Some(message)) => {
                let _ = stream.send(&frame(taken.len() as u32)).await;
                taken.push(message);
            }
            Ok(None) => {
                let _ = stream.finish().await;
                break Ok(());
            }
            Err(error) => break Err(error),
        }
    };
    (taken, end)
}

/// An honest exchange on a link: two messages, two answers, a clean end on both sides.
async fn is_served(link: &Link) {
    let mut stream = link.open_order().await.unwrap();
    for index in 0..2 {
        stream.send(&ToWorker::Cancel).await.unwrap();
        let answer = timeout(PATIENCE, stream.receive()).await.unwrap().unwrap();
        assert_eq!(answer, Some(frame(index)));
    }
    stream.finish().await.unwrap();
    assert_eq!(timeout(PATIENCE, stream.receive()).await.unwrap().unwrap(), None);
}

/// Speaks QUIC to the worker, and nothing else as agreed.
struct Rogue(
    iroh::endpoint::Connection,
    #[expect(dead_code, reason = "the connection needs it")] iroh::Endpoint,
);

impl Rogue {
    async fn endpoint() -> iroh::Endpoint {
        iroh::Endpoint::builder(presets::Minimal)
            .relay_mode(RelayMode::Disabled)
            .clear_ip_transports()
            .bind_addr(LOOPBACK)
            .unwrap()
            .bind()
            .await
            .unwrap()
    }

    fn target(address: &WorkerAddress) -> EndpointAddr {
        EndpointAddr::new(EndpointId::from_bytes(address.key.as_bytes()).unwrap())
            .with_ip_addr(address.location.socket())
    }

    async fn connect(address: &WorkerAddress) -> Rogue {
        let endpoint = Rogue::endpoint().await;
        let connection = endpoint.connect(Rogue::target(address), Protocol::Serve.alpn()).await.unwrap();
        Rogue(connection, endpoint)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn honest_peers_are_served() {
    let mut worker = Echo::start(ListenLimits::default()).await;
    let address = worker.endpoint.address();
    let payer = endpoint(2).await;
    let link = payer.connect(&address, Protocol::Serve).await.unwrap();
    is_served(&link).await;
    let (taken, end) = worker.outcome().await;
    assert_eq!(taken.len(), 2);
    assert!(end.is_ok());

    // A message as large as they come, whole and unchanged.
    let large = ToWorker::Order { order: vec![1; 10_000], request: vec![2; 8 << 20], output: Vec::new() };
    let mut stream = link.open_order().await.unwrap();
    stream.send(&large).await.unwrap();
    stream.finish().await.unwrap();
    assert_eq!(worker.outcome().await.0, [large]);

    let status = payer.connect(&address, Protocol::Status).await.unwrap();
    assert_eq!(status.status(PATIENCE).await.unwrap(), status_of(1));
    assert_eq!(status.status(PATIENCE).await.unwrap(), status_of(1));
}

#[tokio::test(flavor = "multi_thread")]
async fn misbehaving_streams_are_refused_and_disturb_nobody() {
    let limits = ListenLimits { frame_timeout: Duration::from_millis(300), ..ListenLimits::default() };
    let mut worker = Echo::start(limits).await;
    let address = worker.endpoint.address();
    let payer = endpoint(2).await;
    let link = payer.connect(&address, Protocol::Serve).await.unwrap();
    let rogue = Rogue::connect(&address).await;

    let whole = encode_frame(&ToWorker::Cancel.to_cbor(), MAX_TO_WORKER_BYTES);
    let over = (MAX_TO_WORKER_BYTES as u32 + 1).to_be_bytes();
    type Is = fn(&ReceiveError) -> bool;
    let cases: [(&str, Vec<u8>, bool, CloseCode, Is); 7] = [
        (
            "garbage",
            encode_frame(&[0xff; 40], 100),
            false,
            CloseCode::BadMessage,
            |error| matches!(error, ReceiveError::Message(error) if matches!(**error, DecodeError::Malformed { .. })),
        ),
        (
            "another encoding",
            encode_frame(&[&ToWorker::Cancel.to_cbor()[..], &[0]].concat(), 100),
            false,
            CloseCode::BadMessage,
            |error| matches!(error, ReceiveError::Message(error) if matches!(**error, DecodeError::NotCanonical { .. })),
        ),
        ("an oversize frame", over.to_vec(), false, CloseCode::BadMessage, |error| {
            matches!(error, ReceiveError::Frame(FrameError::TooLong { .. }))
        }),
        ("an empty frame", vec![0; 4], false, CloseCode::BadMessage, |error| {
            matches!(error, ReceiveError::Frame(FrameError::Empty))
        }),
        ("a truncated frame", whole[..whole.len() - 1].to_vec(), true, CloseCode::BadMessage, |error| {
            matches!(error, ReceiveError::Frame(FrameError::Truncated { .. }))
        }),
        ("a truncated length", vec![0, 0], true, CloseCode::BadMessage, |error| {
            matches!(error, ReceiveError::Frame(FrameError::Truncated { bytes: 2 }))
        }),
        ("a slow frame", whole[..5].to_vec(), false, CloseCode::Timeout, |error| {
            matches!(error, ReceiveError::SlowFrame(_))
        }),
    ];
    for (what, bytes, finish, code, is_expected) in cases {
        let (mut send, _receive) = rogue.0.open_bi().await.unwrap();
        send.write_all(&whole).await.unwrap();
        send.write_all(&bytes).await.unwrap();
        if finish {
            send.finish().unwrap();
        }
        // Meanwhile another is served, on another connection and on the same.
        is_served(&link).await;
        let mut outcomes = vec![worker.outcome().await, worker.outcome().await];
        outcomes.sort_by_key(|(_, end)| end.is_ok());
        let (taken, end) = outcomes.remove(0);
        assert_eq!(taken, [ToWorker::Cancel], "{what}: what came before is taken");
        let error = end.unwrap_err();
        assert!(is_expected(&error), "{what}: {error:?}");
        assert!(outcomes[0].1.is_ok());
        if !finish {
            let told = timeout(PATIENCE, send.stopped()).await.unwrap().unwrap();
            assert_eq!(told.map(CloseCode::from), Some(code), "{what}: the reason is told");
        }
    }

    // A drip of one byte at a time does not prolong a frame.
    let (mut send, _receive) = rogue.0.open_bi().await.unwrap();
    let started = Instant::now();
    let drip = tokio::spawn(async move {
        for byte in encode_frame(&[0x82; 200], 300) {
            if send.write_all(&[byte]).await.is_err() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    let (_, end) = worker.outcome().await;
    assert!(matches!(end, Err(ReceiveError::SlowFrame(_))), "{end:?}");
    assert!(started.elapsed() < Duration::from_secs(3));
    drip.await.unwrap();

    // A reset is a reset, and so is a stream that is dropped half-way.
    let (mut send, _receive) = rogue.0.open_bi().await.unwrap();
    send.write_all(&whole).await.unwrap();
    tokio::time::sleep(Duration::from_millis(50)).await;
    send.reset(CloseCode::Cancelled.into()).unwrap();
    assert!(matches!(worker.outcome().await.1, Err(ReceiveError::Reset(CloseCode::Cancelled))));
    is_served(&link).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crash_never_looks_like_an_end() {
    let worker = endpoint(1).await;
    let mut listener = worker.listen(ListenLimits::default());
    let payer = endpoint(2).await;
    let link = payer.connect(&worker.address(), Protocol::Serve).await.unwrap();
    let mut stream = link.open_order().await.unwrap();
    stream.send(&ToWorker::Cancel).await.unwrap();
    let Some(Incoming::Order(mut served)) = listener.accept().await else { panic!("an order") };
    served.send(&frame(0)).await.unwrap();
    assert_eq!(stream.receive().await.unwrap(), Some(frame(0)));
    // The task that served it panics, say.
    drop(served);
    assert!(matches!(stream.receive().await, Err(ReceiveError::Reset(CloseCode::Failed))));
    // And again the same.
    assert!(matches!(stream.receive().await, Err(ReceiveError::Reset(CloseCode::Failed))));

    // The other way round, the worker hears of it while it is sending.
    let mut stream = link.open_order().await.unwrap();
    stream.send(&ToWorker::Cancel).await.unwrap();
    let Some(Incoming::Order(served)) = listener.accept().await else { panic!("an order") };
    let (mut sender, mut receiver) = served.split();
    assert_eq!(receiver.receive().await.unwrap(), Some(ToWorker::Cancel));
    stream.reset(CloseCode::Cancelled);
    let stopped = timeout(PATIENCE, sender.stopped()).await.unwrap();
    assert!(matches!(stopped, SendError::Stopped(CloseCode::Cancelled)), "{stopped:?}");
    assert!(matches!(sender.send(&frame(0)).await, Err(SendError::Stopped(CloseCode::Cancelled))));
    assert!(matches!(receiver.receive().await, Err(ReceiveError::Reset(CloseCode::Cancelled))));

    // Closing the endpoint is heard on every stream.
    let mut stream = link.open_order().await.unwrap();
    stream.send(&ToWorker::Cancel).await.unwrap();
    let _served = listener.accept().await;
    worker.close().await;
    let end = timeout(PATIENCE, stream.receive()).await.unwrap();
    assert!(matches!(end, Err(ReceiveError::Lost(Lost::ClosedByPeer(_)))), "{end:?}");
    assert!(link.is_closed());
    assert!(matches!(link.open_order().await, Err(OpenError::Lost(Lost::ClosedByPeer(_)))));
    assert!(listener.accept().await.is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn waiting_for_a_message_can_be_given_up_and_resumed() {
    let worker = endpoint(1).await;
    let mut listener = worker.listen(ListenLimits::default());
    let rogue = Rogue::connect(&worker.address()).await;
    let (mut send, _receive) = rogue.0.open_bi().await.unwrap();
    let bytes = encode_frame(&ToWorker::Cancel.to_cbor(), 100);
    send.write_all(&bytes[..3]).await.unwrap();
    let Some(Incoming::Order(mut served)) = listener.accept().await else { panic!("an order") };
    let limit = Duration::from_millis(100);
    assert!(matches!(served.receive_within(limit).await, Err(ReceiveError::Silence(_))));
    send.write_all(&bytes[3..]).await.unwrap();
    assert_eq!(served.receive_within(PATIENCE).await.unwrap(), Some(ToWorker::Cancel));
}

#[tokio::test(flavor = "multi_thread")]
async fn too_many_are_refused_with_a_reason() {
    let limits = ListenLimits { connections: 2, streams: 2, ..ListenLimits::default() };
    let worker = endpoint(1).await;
    let mut listener = worker.listen(limits);
    let address = worker.address();
    let served = Arc::new(tokio::sync::Mutex::new(Vec::new()));
    let keep = served.clone();
    tokio::spawn(async move {
        while let Some(incoming) = listener.accept().await {
            keep.lock().await.push(incoming);
        }
    });
    let payer = endpoint(2).await;
    let link = payer.connect(&address, Protocol::Serve).await.unwrap();
    let mut streams = Vec::new();
    for _ in 0..2 {
        let mut stream = link.open_order().await.unwrap();
        stream.send(&ToWorker::Cancel).await.unwrap();
        streams.push(stream);
    }
    while served.lock().await.len() < 2 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let mut third = link.open_order().await.unwrap();
    third.send(&ToWorker::Cancel).await.unwrap();
    let end = timeout(PATIENCE, third.receive()).await.unwrap();
    assert!(matches!(end, Err(ReceiveError::Reset(CloseCode::Busy))), "{end:?}");
    // A place that is given up can be taken again.
    served.lock().await.clear();
    let mut fourth = link.open_order().await.unwrap();
    fourth.send(&ToWorker::Cancel).await.unwrap();
    while served.lock().await.is_empty() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }

    let second = endpoint(3).await;
    let _second = second.connect(&address, Protocol::Serve).await.unwrap();
    let third = endpoint(4).await;
    let refused = third.connect(&address, Protocol::Serve).await;
    assert!(matches!(refused, Err(ConnectError::Refused { .. })), "{refused:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_one_called_may_answer() {
    let worker = Echo::start(ListenLimits::default()).await;
    let payer = endpoint(2).await;
    let address = worker.endpoint.address();
    let other = WorkerAddress { key: key(9).public(), ..address };
    let answer = payer.connect_within(&other, Protocol::Serve, PATIENCE).await;
    assert!(matches!(answer, Err(ConnectError::Refused { .. })), "{answer:?}");

    // No point of the curve.
    let nobody = WorkerAddress { key: surety_types::PublicKey([2; 32]), ..address };
    let answer = payer.connect(&nobody, Protocol::Serve).await;
    assert!(matches!(answer, Err(ConnectError::BadKey { .. })), "{answer:?}");

    // Nobody listens there.
    let free = std::net::UdpSocket::bind(LOOPBACK).unwrap();
    let silent = WorkerAddress::direct(key(8).public(), free.local_addr().unwrap());
    let limit = Duration::from_millis(200);
    let answer = payer.connect_within(&silent, Protocol::Serve, limit).await;
    assert!(matches!(answer, Err(ConnectError::NoAnswer { .. })), "{answer:?}");

    // A protocol that is not spoken here.
    let rogue = Rogue::endpoint().await;
    assert!(rogue.connect(Rogue::target(&address), b"surety/serve/2").await.is_err());

    // A worker that speaks for another.
    let liar = endpoint(5).await;
    let mut listener = liar.listen(ListenLimits::default());
    tokio::spawn(async move {
        while let Some(Incoming::Status(stream)) = listener.accept().await {
            stream.reply(&status_of(1)).await.unwrap();
        }
    });
    let link = payer.connect(&liar.address(), Protocol::Status).await.unwrap();
    assert!(matches!(link.status(PATIENCE).await, Err(AskError::OtherWorker)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_port_in_use_is_said() {
    let taken = std::net::UdpSocket::bind(LOOPBACK).unwrap();
    let listen = taken.local_addr().unwrap();
    let error = Endpoint::bind(BindOptions { key: key(1), listen }).await.unwrap_err();
    assert_eq!(error.to_string(), format!("cannot listen on {listen}"));
}

/// One endpoint takes orders and blobs, and neither takes the other's places.
#[tokio::test]
async fn orders_and_blobs_share_an_endpoint_and_not_their_limits() {
    let worker = endpoint(1).await;
    let one = ListenLimits { connections: 1, streams: 1, ..ListenLimits::default() };
    let (mut orders, mut blobs) = worker.listen_with_blobs(ListenLimits::default(), one);
    let payer = endpoint(2).await;
    let blob_link = payer.connect(&worker.address(), Protocol::Blobs).await.unwrap();
    let mut asked: Stream<ToWorker, FromWorker> = blob_link.open_stream().await.unwrap();
    asked.send(&ToWorker::Cancel).await.unwrap();
    let taken = timeout(PATIENCE, blobs.accept()).await.unwrap().expect("a stream");
    assert_eq!(taken.peer(), payer.key());
    let mut taken: Stream<FromWorker, ToWorker> = taken.carrying();
    assert_eq!(taken.receive_within(PATIENCE).await.unwrap(), Some(ToWorker::Cancel));

    // The one place for blobs is taken: another stream and another connection are refused, an order is not.
    let mut second: Stream<ToWorker, FromWorker> = blob_link.open_stream().await.unwrap();
    second.send(&ToWorker::Cancel).await.unwrap();
    let refused = second.receive_within(PATIENCE).await.unwrap_err();
    assert!(matches!(refused, ReceiveError::Reset(CloseCode::Busy)), "{refused}");
    let other = endpoint(3).await;
    let other_link = other.connect(&worker.address(), Protocol::Blobs).await.unwrap();
    assert_eq!(timeout(PATIENCE, other_link.closed()).await.unwrap(), Lost::ClosedByPeer(CloseCode::Busy));
    let order_link = payer.connect(&worker.address(), Protocol::Serve).await.unwrap();
    let mut order = order_link.open_order().await.unwrap();
    order.send(&ToWorker::Cancel).await.unwrap();
    let Some(Incoming::Order(mut served)) = timeout(PATIENCE, orders.accept()).await.unwrap() else {
        panic!("an order")
    };
    assert_eq!(served.receive_within(PATIENCE).await.unwrap(), Some(ToWorker::Cancel));

    // Who listens for blobs alone takes no orders.
    let holder = endpoint(4).await;
    let _listener = holder.listen_for_blobs(ListenLimits::default());
    assert!(matches!(
        payer.connect(&holder.address(), Protocol::Serve).await,
        Err(ConnectError::Refused { .. })
    ));
}
