//! The relay: passes packets between those who can only call out.
//!
//! In:     TCP connections of clients that show which key they hold; packets from one key to another.
//! Out:    the packets, each to the connection of the key it is for, with the proven key of its sender.
//! Touches: one TCP socket.
//! Holds:  connections, those of one address, memory per client and bytes per second have a limit each; who says what is
//!         no frame, or nothing for too long, is closed; a packet for somebody who is not here, or takes nothing, is
//!         dropped. What passes is sealed between its two ends: the relay can read and change none of it, it can only
//!         lose it.
//! Absent: accounts, permissions, an administrator; TLS (the packets are encrypted already; who speaks to whom, when and
//!         how much is seen by whoever sees the relay's traffic); finding direct ways.

mod frames;

use std::{
    collections::HashMap,
    io::Cursor,
    net::{IpAddr, SocketAddr},
    num::NonZeroU32,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use futures::{SinkExt as _, StreamExt as _};
use surety_types::PublicKey;
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::{Semaphore, mpsc},
    task::JoinSet,
    time::{Instant, interval, sleep, sleep_until, timeout},
};
use tokio_websockets::{Limits as MessageLimits, Message, ServerBuilder, WebSocketStream};
use tracing::debug;

use self::frames::Said;
use crate::address::RelayAddress;

/// A connection is a known client within this, or closed.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);
/// The head of a request, in bytes.
const HEAD_BYTES_MAX: usize = 4 << 10;
/// A client is asked so often whether it lives.
const PING_INTERVAL: Duration = Duration::from_secs(15);
/// A client that says nothing for so long is gone.
const SILENCE_MAX: Duration = Duration::from_secs(40);
/// A client that takes nothing for so long is gone.
const WRITE_TIMEOUT: Duration = Duration::from_secs(10);
/// What waits for one client, in bytes and in frames; more is dropped, as a full router does.
const QUEUE_BYTES_MAX: usize = 1 << 20;
const QUEUE_FRAMES_MAX: usize = 1 << 10;
/// What a frame costs its sender beside its bytes: small ones are not for nothing.
const FRAME_COST_BYTES: usize = 64;
/// After the system refused a connection.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The versions of the protocol, the best first.
const VERSIONS: [&str; 2] = ["iroh-relay-v2", "iroh-relay-v1"];

/// How much a relay takes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RelayLimits {
    /// Connections, of all clients.
    pub connections: usize,
    /// Connections from one IP address.
    pub connections_per_ip: usize,
    /// Bytes per second that one client may send; what comes faster waits.
    pub bytes_per_second: NonZeroU32,
}

impl Default for RelayLimits {
    fn default() -> Self {
        let bytes_per_second = const { NonZeroU32::new(4 << 20).unwrap() };
        RelayLimits { connections: 512, connections_per_ip: 64, bytes_per_second }
    }
}

impl RelayLimits {
    /// What packets that wait for their receivers take at most.
    pub fn memory_bytes_max(&self) -> u64 {
        (self.connections as u64).saturating_mul(QUEUE_BYTES_MAX as u64)
    }
}

/// What a relay has done so far, and what it is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RelayCounts {
    /// Clients there are.
    pub clients: usize,
    /// Packets passed on.
    pub passed: u64,
    /// Packets dropped.
    pub dropped: u64,
    /// Connections refused: over a limit, or not shown to hold a key.
    pub refused: u64,
}

/// A relay at work. Dropped, it is cut off.
#[derive(Debug)]
pub struct Relay {
    address: RelayAddress,
    shared: Arc<Shared>,
    _accepting: JoinSet<()>,
}

#[derive(Debug)]
struct Shared {
    limits: RelayLimits,
    clients: Mutex<HashMap<PublicKey, Client>>,
    /// Open connections by address; never more entries than connections.
    by_ip: Mutex<HashMap<IpAddr, usize>>,
    turns: AtomicU64,
    passed: AtomicU64,
    dropped: AtomicU64,
    refused: AtomicU64,
}

/// The way to a client that is connected.
#[derive(Debug, Clone)]
struct Client {
    /// Which of the connections that its key ever had.
    turn: u64,
    queue: mpsc::Sender<Bytes>,
    queued_bytes: Arc<AtomicUsize>,
}

/// A client's way to itself, for answers; it does not keep the queue open.
#[derive(Debug)]
struct Own {
    queue: mpsc::WeakSender<Bytes>,
    queued_bytes: Arc<AtomicUsize>,
}

/// Why a connection ended.
#[derive(Debug, thiserror::Error)]
enum Ended {
    #[error("not a client within {} s", HANDSHAKE_TIMEOUT.as_secs())]
    Slow,
    #[error("not a request for a relay")]
    Request,
    #[error("its key was not shown to be its own")]
    Key,
    #[error("it spoke otherwise than agreed")]
    Frame,
    #[error("no sign of life")]
    Silence,
    #[error("its key is connected anew")]
    Replaced,
    #[error("it took nothing")]
    Stuck,
    #[error("it closed")]
    Closed,
    #[error("the connection failed: {0}")]
    Transport(#[from] tokio_websockets::Error),
    #[error("the connection failed: {0}")]
    Socket(#[from] std::io::Error),
}

impl Relay {
    /// Starts a relay.
    pub async fn start(listen: SocketAddr, limits: RelayLimits) -> std::io::Result<Relay> {
        let listener = TcpListener::bind(listen).await?;
        let address = RelayAddress(listener.local_addr()?);
        let shared = Arc::new(Shared {
            limits,
            clients: Mutex::default(),
            by_ip: Mutex::default(),
            turns: AtomicU64::new(0),
            passed: AtomicU64::new(0),
            dropped: AtomicU64::new(0),
            refused: AtomicU64::new(0),
        });
        let mut accepting = JoinSet::new();
        accepting.spawn(accept(listener, Arc::clone(&shared)));
        Ok(Relay { address, shared, _accepting: accepting })
    }

    /// Where it listens.
    pub fn address(&self) -> RelayAddress {
        self.address
    }

    /// How it is doing.
    pub fn counts(&self) -> RelayCounts {
        RelayCounts {
            clients: lock(&self.shared.clients).len(),
            passed: self.shared.passed.load(Ordering::Relaxed),
            dropped: self.shared.dropped.load(Ordering::Relaxed),
            refused: self.shared.refused.load(Ordering::Relaxed),
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Takes connections. They end with this task.
async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    let places = Arc::new(Semaphore::new(shared.limits.connections));
    let mut connections = JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        let (stream, peer) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                debug!(%error, "no connection could be taken");
                sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let place = places.clone().try_acquire_owned().ok();
        let Some((place, address)) = place.zip(Held::new(&shared, peer.ip())) else {
            // Dropped without a word: words would cost what is not there.
            shared.refused.fetch_add(1, Ordering::Relaxed);
            continue;
        };
        let shared = Arc::clone(&shared);
        connections.spawn(async move {
            let (_place, _address) = (place, address);
            if let Err(ended) = serve(stream, &shared).await {
                if matches!(ended, Ended::Slow | Ended::Request | Ended::Key) {
                    shared.refused.fetch_add(1, Ordering::Relaxed);
                }
                debug!(%ended, "a connection ended");
            }
        });
    }
}

/// One of the connections of an address.
struct Held {
    shared: Arc<Shared>,
    ip: IpAddr,
}

impl Held {
    fn new(shared: &Arc<Shared>, ip: IpAddr) -> Option<Held> {
        let mut by_ip = lock(&shared.by_ip);
        let count = by_ip.entry(ip).or_default();
        if *count >= shared.limits.connections_per_ip {
            return None;
        }
        *count += 1;
        Some(Held { shared: Arc::clone(shared), ip })
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let mut by_ip = lock(&self.shared.by_ip);
        if let Some(count) = by_ip.get_mut(&self.ip) {
            *count -= 1;
            if *count == 0 {
                by_ip.remove(&self.ip);
            }
        }
    }
}

/// A client's place in the list, given up when its connection ends.
struct Listed<'a> {
    shared: &'a Shared,
    key: PublicKey,
    turn: u64,
}

impl Drop for Listed<'_> {
    fn drop(&mut self) {
        let mut clients = lock(&self.shared.clients);
        // A newer connection of the same key has taken the place already.
        if clients.get(&self.key).is_some_and(|client| client.turn == self.turn) {
            clients.remove(&self.key);
        }
    }
}

impl Shared {
    fn list(&self, key: PublicKey) -> (Listed<'_>, mpsc::Receiver<Bytes>, Own) {
        let (queue, waiting) = mpsc::channel(QUEUE_FRAMES_MAX);
        let turn = self.turns.fetch_add(1, Ordering::Relaxed);
        let queued_bytes = Arc::<AtomicUsize>::default();
        let own = Own { queue: queue.downgrade(), queued_bytes: Arc::clone(&queued_bytes) };
        // An older connection of this key loses its queue, and ends.
        lock(&self.clients).insert(key, Client { turn, queue, queued_bytes });
        (Listed { shared: self, key, turn }, waiting, own)
    }

    /// Puts a frame where it is to go, or drops it.
    fn pass(&self, to: &PublicKey, frame: Bytes) {
        let client = lock(&self.clients).get(to).cloned();
        let passed = client.is_some_and(|client| put(&client.queue, &client.queued_bytes, frame));
        let count = if passed { &self.passed } else { &self.dropped };
        count.fetch_add(1, Ordering::Relaxed);
    }
}

/// Lets a frame wait for its client; whether there was room.
fn put(queue: &mpsc::Sender<Bytes>, queued_bytes: &AtomicUsize, frame: Bytes) -> bool {
    let bytes = frame.len();
    let before = queued_bytes.fetch_add(bytes, Ordering::Relaxed);
    let put = before + bytes <= QUEUE_BYTES_MAX && queue.try_send(frame).is_ok();
    if !put {
        queued_bytes.fetch_sub(bytes, Ordering::Relaxed);
    }
    put
}

/// One connection, from its first byte to its last.
async fn serve(stream: TcpStream, shared: &Shared) -> Result<(), Ended> {
    stream.set_nodelay(true)?;
    let opened = timeout(HANDSHAKE_TIMEOUT, open(stream)).await.map_err(|_| Ended::Slow)??;
    let Some((mut socket, key)) = opened else { return Ok(()) };
    let (_listed, waiting, own) = shared.list(key);
    socket.send(Message::binary(frames::confirmation())).await?;
    debug!(key = key.short(), "a client");
    let (sink, source) = socket.split();
    let queued_bytes = Arc::clone(&own.queued_bytes);
    tokio::select! {
        ended = listen(source, shared, key, own) => ended,
        ended = tell(sink, waiting, &queued_bytes) => ended,
    }
}

trait Socket: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Socket for T {}

/// Reads the request; answers a question for the round-trip time; else makes sure who calls.
async fn open(mut stream: TcpStream) -> Result<Option<(WebSocketStream<impl Socket>, PublicKey)>, Ended> {
    let mut head = Vec::new();
    let mut piece = [0; 1024];
    let end = loop {
        if let Some(end) = head.windows(4).position(|window| window == b"\r\n\r\n") {
            break end;
        }
        let read = stream.read(&mut piece).await?;
        if read == 0 || head.len() + read > HEAD_BYTES_MAX {
            return Err(Ended::Request);
        }
        head.extend_from_slice(&piece[..read]);
    };
    if head.starts_with(b"GET /ping HTTP/1.1\r\n") {
        let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
        stream.write_all(answer).await?;
        stream.shutdown().await?;
        return Ok(None);
    }
    let version = version(&head[..end]).filter(|_| head.starts_with(b"GET /relay HTTP/1.1\r\n"));
    let Some(version) = version else {
        let answer = b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
        stream.write_all(answer).await?;
        return Err(Ended::Request);
    };
    let (read, write) = stream.into_split();
    let stream = tokio::io::join(Cursor::new(head).chain(read), write);
    let name = "sec-websocket-protocol".parse().map_err(|_| Ended::Request)?;
    let value = version.parse().map_err(|_| Ended::Request)?;
    let builder = ServerBuilder::new()
        .limits(MessageLimits::default().max_payload_len(Some(frames::FRAME_BYTES_MAX)))
        .add_header(name, value)?;
    let (_, mut socket) = builder.accept(stream).await?;
    let mut challenge = frames::Challenge::default();
    getrandom::fill(&mut challenge).map_err(|error| std::io::Error::other(error.to_string()))?;
    socket.send(Message::binary(frames::challenge(&challenge))).await?;
    let answer = next(&mut socket).await?;
    match frames::authenticated(&challenge, &answer) {
        Ok(key) => Ok(Some((socket, key))),
        Err(_) => {
            socket.send(Message::binary(frames::denial("the key was not shown to be yours"))).await?;
            Err(Ended::Key)
        }
    }
}

/// The best version that both sides speak.
fn version(head: &[u8]) -> Option<&'static str> {
    let offered = std::str::from_utf8(head).ok()?.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("sec-websocket-protocol").then_some(value)
    })?;
    VERSIONS.into_iter().find(|version| offered.split(',').any(|offer| offer.trim() == *version))
}

/// The next frame.
async fn next<S>(source: &mut S) -> Result<BytesMut, Ended>
where
    S: futures::Stream<Item = Result<Message, tokio_websockets::Error>> + Unpin,
{
    loop {
        let message = source.next().await.ok_or(Ended::Closed)??;
        if message.is_binary() {
            return Ok(message.into_payload().into());
        }
        if message.is_close() {
            return Err(Ended::Closed);
        }
        if message.is_text() {
            return Err(Ended::Frame);
        }
    }
}

/// Hears a client, no faster than it may speak.
async fn listen<S>(mut source: S, shared: &Shared, key: PublicKey, own: Own) -> Result<(), Ended>
where
    S: futures::Stream<Item = Result<Message, tokio_websockets::Error>> + Unpin,
{
    let rate = f64::from(shared.limits.bytes_per_second.get());
    // The moment up to which what it has said is paid for; a second may be saved up.
    let mut paid = Instant::now();
    loop {
        let frame = timeout(SILENCE_MAX, next(&mut source)).await.map_err(|_| Ended::Silence)??;
        let now = Instant::now();
        let earliest = now.checked_sub(Duration::from_secs(1)).unwrap_or(now);
        paid = paid.max(earliest) + Duration::from_secs_f64((frame.len() + FRAME_COST_BYTES) as f64 / rate);
        if paid > now {
            sleep_until(paid).await;
        }
        match frames::read(&key, frame).map_err(|_| Ended::Frame)? {
            Said::Packet { to, frame } => shared.pass(&PublicKey(to), frame),
            Said::Ping { pong } => {
                if let Some(queue) = own.queue.upgrade() {
                    put(&queue, &own.queued_bytes, pong);
                }
            }
            Said::Pong => {}
        }
    }
}

/// Tells a client what waits for it.
async fn tell<S>(
    mut sink: S,
    mut waiting: mpsc::Receiver<Bytes>,
    queued_bytes: &AtomicUsize,
) -> Result<(), Ended>
where
    S: futures::Sink<Message, Error = tokio_websockets::Error> + Unpin,
{
    let mut pings = interval(PING_INTERVAL);
    loop {
        let mut frame = tokio::select! {
            frame = waiting.recv() => Some(frame.ok_or(Ended::Replaced)?),
            _ = pings.tick() => None,
        };
        let told = async {
            if frame.is_none() {
                sink.feed(Message::binary(frames::ping())).await?;
            }
            while let Some(bytes) = frame {
                let length = bytes.len();
                sink.feed(Message::binary(bytes)).await?;
                queued_bytes.fetch_sub(length, Ordering::Relaxed);
                frame = waiting.try_recv().ok();
            }
            sink.flush().await
        };
        timeout(WRITE_TIMEOUT, told).await.map_err(|_| Ended::Stuck)??;
    }
}
