//! The listener: takes connections and hands out their streams, a bounded number at once.
//!
//! In:     connections from anyone. Out: order, status, audit, log and blob streams.
//! Holds:  what is over a limit is refused with a reason, at the cost of the one who came too late; one peer's
//!         misbehaviour ends its own stream or connection and no other.

use std::{sync::Arc, time::Duration};

use iroh::endpoint::{Connection, RecvStream, SendStream};
use surety_types::{
    AuditEvidence, Canonical, EvidenceRequest, Inclusion, InclusionRequest, PublicKey, StatusRequest,
    WorkerStatus,
};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, mpsc},
    task::JoinSet,
    time::timeout,
};
use tracing::debug;

use crate::{
    protocol::{CONNECT_TIMEOUT, CloseCode, FRAME_TIMEOUT, Protocol, STATUS_TIMEOUT},
    stream::{ReceiveError, SendError, ServeStream, Stream},
};

/// How much is taken on at once.
#[derive(Debug, Clone, Copy)]
pub struct ListenLimits {
    /// Connections.
    pub connections: usize,
    /// Streams, over all connections.
    pub streams: usize,
    /// A frame that has begun is complete within this, or its stream is refused.
    pub frame_timeout: Duration,
}

impl Default for ListenLimits {
    fn default() -> Self {
        ListenLimits { connections: 256, streams: 1024, frame_timeout: FRAME_TIMEOUT }
    }
}

/// Takes connections for orders, status, audits and logs until it is dropped or its endpoint is closed.
#[derive(Debug)]
pub struct Listener {
    incoming: mpsc::Receiver<Incoming>,
    /// Aborted with the last listener.
    _task: Arc<JoinSet<()>>,
}

/// Takes connections for blobs until it is dropped or its endpoint is closed.
#[derive(Debug)]
pub struct BlobListener {
    incoming: mpsc::Receiver<BlobStream>,
    /// Aborted with the last listener.
    _task: Arc<JoinSet<()>>,
}

/// A stream that a peer has opened. Nothing of it has been read.
#[derive(Debug)]
pub enum Incoming {
    /// It will carry an order.
    Order(ServeStream),
    /// It will ask for the status.
    Status(StatusStream),
    /// It will ask for the evidence of an audit.
    Audit(AuditStream),
    /// It will ask for a receipt's place in the log.
    Log(LogStream),
}

/// The audited side of a stream for an audit's evidence.
pub type AuditStream = Stream<AuditEvidence, EvidenceRequest>;

/// The worker's side of a stream for a receipt's place in its log.
pub type LogStream = Stream<Inclusion, InclusionRequest>;

/// A stream that asks for parts of a file. Nothing of it has been read.
#[derive(Debug)]
pub struct BlobStream {
    send: SendStream,
    receive: RecvStream,
    peer: PublicKey,
    frame_timeout: Duration,
    permit: OwnedSemaphorePermit,
}

/// A stream that asks for the status.
#[derive(Debug)]
pub struct StatusStream(Stream<WorkerStatus, StatusRequest>);

impl Listener {
    /// The next stream; none once the endpoint is closed.
    pub async fn accept(&mut self) -> Option<Incoming> {
        self.incoming.recv().await
    }
}

impl BlobListener {
    /// The next stream; none once the endpoint is closed.
    pub async fn accept(&mut self) -> Option<BlobStream> {
        self.incoming.recv().await
    }
}

impl BlobStream {
    /// Who asks, proven by the connection.
    pub fn peer(&self) -> PublicKey {
        self.peer
    }

    /// The stream, with the messages that it carries away from here and towards here.
    pub fn carrying<Out: Canonical, In: Canonical>(self) -> Stream<Out, In> {
        Stream::new(self.send, self.receive, self.peer).limited(self.frame_timeout, self.permit)
    }
}

impl StatusStream {
    /// Who asks, proven by the connection.
    pub fn peer(&self) -> PublicKey {
        self.0.peer()
    }

    /// Reads the request and answers it.
    pub async fn reply(mut self, status: &WorkerStatus) -> Result<(), SendError> {
        match self.0.receive_within(STATUS_TIMEOUT).await {
            Ok(Some(StatusRequest {})) => {
                self.0.send(status).await?;
                self.0.finish().await
            }
            Ok(None) | Err(ReceiveError::Frame(_) | ReceiveError::Message(_)) => {
                self.0.reset(CloseCode::BadMessage);
                Err(SendError::Ended)
            }
            Err(ReceiveError::Lost(lost)) => Err(SendError::Lost(lost)),
            Err(ReceiveError::Reset(code)) => Err(SendError::Stopped(code)),
            Err(ReceiveError::SlowFrame(_) | ReceiveError::Silence(_) | ReceiveError::Ended) => {
                self.0.reset(CloseCode::Timeout);
                Err(SendError::Ended)
            }
        }
    }
}

/// Where the streams of some protocols go, and how many at once.
#[derive(Debug)]
struct Intake<T> {
    limits: ListenLimits,
    connections: Arc<Semaphore>,
    streams: Arc<Semaphore>,
    // A short queue: a stream waits in the transport, where flow control holds its sender back.
    queue: mpsc::Sender<T>,
}

impl<T> Intake<T> {
    fn new(limits: ListenLimits) -> (Self, mpsc::Receiver<T>) {
        let (queue, incoming) = mpsc::channel(16);
        let connections = Arc::new(Semaphore::new(limits.connections));
        let streams = Arc::new(Semaphore::new(limits.streams));
        (Intake { limits, connections, streams, queue }, incoming)
    }
}

/// Starts to take connections of the protocols for which there are limits.
pub(crate) fn start(
    endpoint: iroh::Endpoint,
    orders: Option<ListenLimits>,
    blobs: Option<ListenLimits>,
) -> (Option<Listener>, Option<BlobListener>) {
    let connections_max = [orders, blobs].iter().flatten().map(|limits| limits.connections).sum();
    let (orders, incoming) = orders.map(Intake::new).unzip();
    let (blobs, incoming_blobs) = blobs.map(Intake::new).unzip();
    let mut task = JoinSet::new();
    task.spawn(take_connections(endpoint, connections_max, orders.map(Arc::new), blobs.map(Arc::new)));
    let task = Arc::new(task);
    let listener = incoming.map(|incoming| Listener { incoming, _task: task.clone() });
    let blob_listener = incoming_blobs.map(|incoming| BlobListener { incoming, _task: task });
    (listener, blob_listener)
}

async fn take_connections(
    endpoint: iroh::Endpoint,
    connections_max: usize,
    orders: Option<Arc<Intake<Incoming>>>,
    blobs: Option<Arc<Intake<BlobStream>>>,
) {
    // Those that have not said yet what they are for count here only.
    let connections = Arc::new(Semaphore::new(connections_max));
    // Connections end with this task.
    let mut tasks = JoinSet::new();
    while let Some(incoming) = endpoint.accept().await {
        while tasks.try_join_next().is_some() {}
        let Ok(place) = connections.clone().try_acquire_owned() else {
            incoming.refuse();
            continue;
        };
        let (orders, blobs) = (orders.clone(), blobs.clone());
        tasks.spawn(async move {
            let _place = place;
            let Ok(accepting) = incoming.accept() else { return };
            match timeout(CONNECT_TIMEOUT, accepting).await {
                Ok(Ok(connection)) => take_streams(connection, orders, blobs).await,
                Ok(Err(error)) => debug!(%error, "a connection was not completed"),
                Err(_) => debug!("a connection was not completed in time"),
            }
        });
    }
}

async fn take_streams(
    connection: Connection,
    orders: Option<Arc<Intake<Incoming>>>,
    blobs: Option<Arc<Intake<BlobStream>>>,
) {
    let frame_timeout = |limits: &ListenLimits| limits.frame_timeout;
    match (Protocol::from_alpn(connection.alpn()), orders, blobs) {
        (Some(Protocol::Serve), Some(orders), _) => {
            let frame_timeout = frame_timeout(&orders.limits);
            take(connection, &orders, |send, receive, peer, permit| {
                Incoming::Order(Stream::new(send, receive, peer).limited(frame_timeout, permit))
            })
            .await;
        }
        (Some(Protocol::Status), Some(orders), _) => {
            let frame_timeout = frame_timeout(&orders.limits);
            take(connection, &orders, |send, receive, peer, permit| {
                let stream = Stream::new(send, receive, peer).limited(frame_timeout, permit);
                Incoming::Status(StatusStream(stream))
            })
            .await;
        }
        (Some(Protocol::Audit), Some(orders), _) => {
            let frame_timeout = frame_timeout(&orders.limits);
            take(connection, &orders, |send, receive, peer, permit| {
                Incoming::Audit(Stream::new(send, receive, peer).limited(frame_timeout, permit))
            })
            .await;
        }
        (Some(Protocol::Log), Some(orders), _) => {
            let frame_timeout = frame_timeout(&orders.limits);
            take(connection, &orders, |send, receive, peer, permit| {
                Incoming::Log(Stream::new(send, receive, peer).limited(frame_timeout, permit))
            })
            .await;
        }
        (Some(Protocol::Blobs), _, Some(blobs)) => {
            let frame_timeout = frame_timeout(&blobs.limits);
            take(connection, &blobs, |send, receive, peer, permit| BlobStream {
                send,
                receive,
                peer,
                frame_timeout,
                permit,
            })
            .await;
        }
        _ => connection.close(CloseCode::BadMessage.into(), b""),
    }
}

async fn take<T>(
    connection: Connection,
    intake: &Intake<T>,
    wrap: impl Fn(SendStream, RecvStream, PublicKey, OwnedSemaphorePermit) -> T,
) {
    let peer = PublicKey(*connection.remote_id().as_bytes());
    let Ok(_place) = intake.connections.try_acquire() else {
        connection.close(CloseCode::Busy.into(), b"");
        return;
    };
    while let Ok((mut send, mut receive)) = connection.accept_bi().await {
        let Ok(permit) = intake.streams.clone().try_acquire_owned() else {
            // Errors mean that the peer has left already.
            let _ = send.reset(CloseCode::Busy.into());
            let _ = receive.stop(CloseCode::Busy.into());
            continue;
        };
        if intake.queue.send(wrap(send, receive, peer, permit)).await.is_err() {
            connection.close(CloseCode::ShuttingDown.into(), b"");
            return;
        }
    }
}
