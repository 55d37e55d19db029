//! The listener: takes connections and hands out their streams, a bounded number at once.
//!
//! In:     connections from anyone. Out: order and status streams.
//! Holds:  what is over a limit is refused with a reason, at the cost of the one who came too late; one peer's
//!         misbehaviour ends its own stream or connection and no other.

use std::{sync::Arc, time::Duration};

use iroh::endpoint::Connection;
use surety_types::{PublicKey, StatusRequest, WorkerStatus};
use tokio::{
    sync::{Semaphore, mpsc},
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

/// Takes connections until it is dropped or its endpoint is closed.
#[derive(Debug)]
pub struct Listener {
    incoming: mpsc::Receiver<Incoming>,
    /// Aborted with the listener.
    _task: JoinSet<()>,
}

/// A stream that a peer has opened. Nothing of it has been read.
#[derive(Debug)]
pub enum Incoming {
    /// It will carry an order.
    Order(ServeStream),
    /// It will ask for the status.
    Status(StatusStream),
}

/// A stream that asks for the status.
#[derive(Debug)]
pub struct StatusStream(Stream<WorkerStatus, StatusRequest>);

impl Listener {
    pub(crate) fn start(endpoint: iroh::Endpoint, limits: ListenLimits) -> Self {
        // A short queue: a stream waits in the transport, where flow control holds its sender back.
        let (queue, incoming) = mpsc::channel(16);
        let mut task = JoinSet::new();
        task.spawn(take_connections(endpoint, limits, queue));
        Listener { incoming, _task: task }
    }

    /// The next stream; none once the endpoint is closed.
    pub async fn accept(&mut self) -> Option<Incoming> {
        self.incoming.recv().await
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

async fn take_connections(endpoint: iroh::Endpoint, limits: ListenLimits, queue: mpsc::Sender<Incoming>) {
    let connections = Arc::new(Semaphore::new(limits.connections));
    let streams = Arc::new(Semaphore::new(limits.streams));
    // Connections end with this task.
    let mut tasks = JoinSet::new();
    while let Some(incoming) = endpoint.accept().await {
        while tasks.try_join_next().is_some() {}
        let Ok(place) = connections.clone().try_acquire_owned() else {
            incoming.refuse();
            continue;
        };
        let (queue, streams) = (queue.clone(), streams.clone());
        tasks.spawn(async move {
            let _place = place;
            let Ok(accepting) = incoming.accept() else { return };
            match timeout(CONNECT_TIMEOUT, accepting).await {
                Ok(Ok(connection)) => take_streams(connection, limits, streams, queue).await,
                Ok(Err(error)) => debug!(%error, "a connection was not completed"),
                Err(_) => debug!("a connection was not completed in time"),
            }
        });
    }
}

async fn take_streams(
    connection: Connection,
    limits: ListenLimits,
    streams: Arc<Semaphore>,
    queue: mpsc::Sender<Incoming>,
) {
    let peer = PublicKey(*connection.remote_id().as_bytes());
    let Some(protocol) = Protocol::from_alpn(connection.alpn()) else {
        connection.close(CloseCode::BadMessage.into(), b"");
        return;
    };
    while let Ok((mut send, mut receive)) = connection.accept_bi().await {
        let Ok(permit) = streams.clone().try_acquire_owned() else {
            // Errors mean that the peer has left already.
            let _ = send.reset(CloseCode::Busy.into());
            let _ = receive.stop(CloseCode::Busy.into());
            continue;
        };
        let stream = match protocol {
            Protocol::Serve => {
                Incoming::Order(Stream::new(send, receive, peer).limited(limits.frame_timeout, permit))
            }
            Protocol::Status => Incoming::Status(StatusStream(
                Stream::new(send, receive, peer).limited(limits.frame_timeout, permit),
            )),
        };
        if queue.send(stream).await.is_err() {
            connection.close(CloseCode::ShuttingDown.into(), b"");
            return;
        }
    }
}
