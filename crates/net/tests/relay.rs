//! A relay between ends that have no other way to each other (one speaks IPv4, the other IPv6): honest peers are served
//! through it, it is bounded, and what it is told by others disturbs nobody.

use std::{
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    num::NonZeroU32,
    time::{Duration, Instant},
};

use surety_net::{
    BindOptions, ConnectError, Endpoint, Incoming, ListenLimits, Location, Protocol, Relay, RelayAddress,
    RelayLimits, WorkerAddress,
};
use surety_types::{FromWorker, SecretKey, ToWorker};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::{sleep, timeout},
};

const PATIENCE: Duration = Duration::from_secs(20);
const V4: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);
const V6: SocketAddr = SocketAddr::new(std::net::IpAddr::V6(Ipv6Addr::LOCALHOST), 0);

async fn endpoint(seed: u8, listen: SocketAddr) -> Endpoint {
    Endpoint::bind(BindOptions { key: SecretKey::from_bytes(&[seed; 32]), listen }).await.unwrap()
}

/// An endpoint at a relay. On a busy machine one attempt may be too short.
async fn behind(seed: u8, relay: RelayAddress) -> Endpoint {
    let reached = async {
        loop {
            if let Ok(endpoint) = endpoint(seed, V6).await.behind(relay).await {
                return endpoint;
            }
        }
    };
    timeout(PATIENCE, reached).await.expect("the relay should take it")
}

/// A worker that answers every message of every order with a frame of the same number.
async fn worker(seed: u8, relay: RelayAddress) -> Endpoint {
    let endpoint = behind(seed, relay).await;
    let mut listener = endpoint.listen(ListenLimits::default());
    tokio::spawn(async move {
        while let Some(Incoming::Order(mut stream)) = listener.accept().await {
            tokio::spawn(async move {
                let mut index = 0;
                while let Ok(Some(_)) = stream.receive().await {
                    let frame =
                        FromWorker::Frame { index, tokens: vec![index], text: "x".into(), logprobs: vec![] };
                    if stream.send(&frame).await.is_err() {
                        return;
                    }
                    index += 1;
                }
                let _ = stream.finish().await;
            });
        }
    });
    endpoint
}

/// Gives a worker `messages` of `bytes` bytes each, and has each answered.
async fn is_served(payer: &Endpoint, worker: &WorkerAddress, messages: u32, bytes: usize) {
    let link = payer.connect_within(worker, Protocol::Serve, PATIENCE).await.unwrap();
    let mut stream = link.open_order().await.unwrap();
    assert_eq!(stream.peer(), worker.key, "the key is proven through the relay");
    for number in 0..messages {
        stream
            .send(&ToWorker::Order { order: vec![1], request: vec![2; bytes], output: Vec::new() })
            .await
            .unwrap();
        let answer = stream.receive_within(PATIENCE).await.unwrap();
        assert!(matches!(answer, Some(FromWorker::Frame { index, .. }) if index == number));
    }
    stream.finish().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_only_calls_out_is_served_and_names_its_relay() {
    let relay = Relay::start(V4, RelayLimits::default()).await.unwrap();
    let worker = worker(1, relay.address()).await;
    let address = worker.address();
    assert_eq!(address.location, Location::Relayed(relay.address()));
    assert_eq!(address, address.to_string().parse().unwrap());
    assert_eq!(worker.relay_connected(), Some(true));
    let payer = endpoint(2, V4).await;
    assert_eq!(payer.relay_connected(), None);
    is_served(&payer, &address, 20, 100_000).await;
    let counts = relay.counts();
    assert!(counts.passed > 20, "{counts:?}");
    assert_eq!(counts.clients, 2, "{counts:?}");

    // Nobody else answers for a worker, and nobody is found at a relay who is not there.
    let other = WorkerAddress { key: SecretKey::from_bytes(&[9; 32]).public(), location: address.location };
    let answer = payer.connect_within(&other, Protocol::Serve, Duration::from_millis(500)).await;
    assert!(matches!(answer, Err(ConnectError::NoAnswer { .. })), "{answer:?}");
    assert!(relay.counts().dropped > 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_relay_that_goes_is_noticed_and_one_that_comes_back_is_used() {
    let relay = Relay::start(V4, RelayLimits::default()).await.unwrap();
    let listen = relay.address().0;
    let worker = worker(1, relay.address()).await;
    let payer = endpoint(2, V4).await;
    let link = payer.connect_within(&worker.address(), Protocol::Serve, PATIENCE).await.unwrap();
    let mut stream = link.open_order().await.unwrap();
    stream.send(&ToWorker::Cancel).await.unwrap();
    assert!(stream.receive_within(PATIENCE).await.unwrap().is_some());
    drop(relay);
    timeout(PATIENCE, link.closed()).await.expect("the loss is noticed");
    assert!(stream.receive_within(PATIENCE).await.is_err(), "and the order's stream ends with an error");

    let relay = timeout(PATIENCE, async {
        loop {
            match Relay::start(listen, RelayLimits::default()).await {
                Ok(relay) => return relay,
                Err(_) => sleep(Duration::from_millis(50)).await,
            }
        }
    });
    let relay = relay.await.unwrap();
    timeout(PATIENCE, async {
        while worker.relay_connected() != Some(true) || relay.counts().clients == 0 {
            sleep(Duration::from_millis(20)).await;
        }
    })
    .await
    .expect("the worker comes back by itself");
    is_served(&payer, &worker.address(), 1, 10).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_relay_that_is_not_there_is_said() {
    let free = std::net::TcpListener::bind(V4).unwrap().local_addr().unwrap();
    let error = endpoint(1, V6).await;
    let error = error.behind_within(RelayAddress(free), Duration::from_millis(300)).await.unwrap_err();
    assert!(error.to_string().contains(&free.to_string()), "{error}");
}

/// Sends bytes to a relay, and reads until it closes.
async fn answer_to(relay: &Relay, bytes: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(relay.address().0).await.unwrap();
    stream.write_all(bytes).await.unwrap();
    let mut answer = Vec::new();
    // A reset is an answer too.
    let _ = timeout(PATIENCE, stream.read_to_end(&mut answer)).await.expect("the relay closes in time");
    answer
}

const UPGRADE: &str = "GET /relay HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
     Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";

#[tokio::test(flavor = "multi_thread")]
async fn garbage_is_refused_and_disturbs_nobody() {
    let relay = Relay::start(V4, RelayLimits::default()).await.unwrap();
    let worker = worker(1, relay.address()).await;
    let payer = endpoint(2, V4).await;
    is_served(&payer, &worker.address(), 1, 10).await;

    let ping = answer_to(&relay, b"GET /ping HTTP/1.1\r\nHost: x\r\n\r\n").await;
    assert!(ping.starts_with(b"HTTP/1.1 200 OK\r\n"));
    let refused = relay.counts().refused;
    let endless = vec![b'a'; 64 << 10];
    let no_version = format!("{UPGRADE}\r\n");
    let other_version = format!("{UPGRADE}Sec-WebSocket-Protocol: iroh-relay-v9\r\n\r\n");
    let other_path = no_version.replace("/relay", "/admin");
    let bad: [&[u8]; 6] = [
        b"\x16\x03\x01garbage\r\n\r\n",
        b"GET / HTTP/1.1\r\n\r\n",
        &endless,
        no_version.as_bytes(),
        other_version.as_bytes(),
        other_path.as_bytes(),
    ];
    for bytes in bad {
        let answer = answer_to(&relay, bytes).await;
        assert!(!answer.starts_with(b"HTTP/1.1 101"), "{}", String::from_utf8_lossy(&answer));
    }
    assert_eq!(relay.counts().refused, refused + bad.len() as u64);

    // A client that holds no key: its answer to the challenge is a masked frame of zeros.
    let upgrade = format!("{UPGRADE}Sec-WebSocket-Protocol: iroh-relay-v1, iroh-relay-v2\r\n\r\n");
    let unproven = [&[1u8, 1][..], &[0; 31], &[64], &[0; 64]].concat();
    let mut bytes = upgrade.into_bytes();
    bytes.extend([0x82, 0x80 | u8::try_from(unproven.len()).unwrap(), 0, 0, 0, 0]);
    bytes.extend(unproven);
    let answer = answer_to(&relay, &bytes).await;
    assert!(answer.starts_with(b"HTTP/1.1 101"), "{}", String::from_utf8_lossy(&answer));
    let told = String::from_utf8_lossy(&answer).into_owned();
    assert!(told.contains("iroh-relay-v2") && told.contains("not shown to be yours"), "{told}");
    assert_eq!(relay.counts().refused, refused + bad.len() as u64 + 1);
    is_served(&payer, &worker.address(), 2, 10_000).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_takes_no_more_than_its_share() {
    let limits = RelayLimits { connections: 8, connections_per_ip: 6, ..RelayLimits::default() };
    let relay = Relay::start(V4, limits).await.unwrap();
    let worker = worker(1, relay.address()).await;
    let payer = endpoint(2, V4).await;
    is_served(&payer, &worker.address(), 1, 10).await;
    // Silent ones hold what is left of this address's places; those beyond are dropped at once.
    let mut silent = Vec::new();
    for _ in 0..32 {
        silent.push(TcpStream::connect(relay.address().0).await.unwrap());
    }
    timeout(PATIENCE, async {
        while relay.counts().refused < 28 {
            sleep(Duration::from_millis(20)).await;
        }
    })
    .await
    .unwrap_or_else(|_| panic!("{:?}", relay.counts()));
    is_served(&payer, &worker.address(), 1, 10).await;
    // Whoever says nothing is closed after a while, and there is room again.
    timeout(PATIENCE, async {
        while relay.counts().refused < 32 {
            sleep(Duration::from_millis(20)).await;
        }
    })
    .await
    .unwrap_or_else(|_| panic!("{:?}", relay.counts()));
    is_served(&endpoint(3, V4).await, &worker.address(), 1, 10).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_sends_no_faster_than_the_limit() {
    let bytes_per_second = NonZeroU32::new(200_000).unwrap();
    let relay = Relay::start(V4, RelayLimits { bytes_per_second, ..RelayLimits::default() }).await.unwrap();
    let worker = worker(1, relay.address()).await;
    let payer = endpoint(2, V4).await;
    let started = Instant::now();
    // A second's worth may have been saved up.
    is_served(&payer, &worker.address(), 5, 100_000).await;
    assert!(started.elapsed() >= Duration::from_millis(1400), "{:?}", started.elapsed());
}
