//! The link: a connection to one worker, from the side that called.

use std::time::Duration;

use iroh::endpoint::Connection;
use surety_types::{Canonical, Digest, Inclusion, InclusionRequest, StatusRequest, WorkerStatus};
use tokio::time::timeout;

use crate::{
    address::WorkerAddress,
    protocol::{CONNECT_TIMEOUT, CloseCode, Lost},
    stream::{OrderStream, ReceiveError, SendError, Stream},
};

/// A connection to one worker. Clones are the same connection, which closes with the last.
#[derive(Debug, Clone)]
pub struct Link {
    connection: Connection,
    address: WorkerAddress,
}

/// Why a stream was not opened.
#[derive(Debug, Clone, thiserror::Error)]
pub enum OpenError {
    /// The connection is gone.
    #[error("the connection was lost")]
    Lost(#[source] Lost),
    /// Too many streams are open.
    #[error("the worker allowed no further stream within {} s", CONNECT_TIMEOUT.as_secs())]
    Busy,
}

/// Why a question was not answered.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// No stream.
    #[error("the worker cannot be asked")]
    Open(#[from] OpenError),
    /// Not asked.
    #[error("the worker cannot be asked")]
    Send(#[from] SendError),
    /// Not answered.
    #[error("no answer came")]
    Receive(#[from] ReceiveError),
    /// The worker finished without answering.
    #[error("the worker ended the stream without an answer")]
    NoAnswer,
    /// It speaks for another.
    #[error("the answer is another worker's")]
    OtherWorker,
}

impl Link {
    pub(crate) fn new(connection: Connection, address: WorkerAddress) -> Self {
        Link { connection, address }
    }

    /// To whom.
    pub fn address(&self) -> &WorkerAddress {
        &self.address
    }

    /// Opens a stream for one order. The worker hears of it with the first message.
    pub async fn open_order(&self) -> Result<OrderStream, OpenError> {
        self.open().await
    }

    /// Asks for the worker's status, within `limit`.
    pub async fn status(&self, limit: Duration) -> Result<WorkerStatus, AskError> {
        let mut stream: Stream<StatusRequest, WorkerStatus> = self.open().await?;
        stream.send(&StatusRequest {}).await?;
        let status = stream.receive_within(limit).await?.ok_or(AskError::NoAnswer)?;
        stream.reset(CloseCode::Done);
        if status.worker != self.address.key {
            return Err(AskError::OtherWorker);
        }
        Ok(status)
    }

    /// Asks where a receipt stands in the worker's log, within `limit`.
    pub async fn inclusion(&self, receipt: Digest, limit: Duration) -> Result<Inclusion, AskError> {
        let mut stream: Stream<InclusionRequest, Inclusion> = self.open().await?;
        stream.send(&InclusionRequest { receipt }).await?;
        let inclusion = stream.receive_within(limit).await?.ok_or(AskError::NoAnswer)?;
        stream.reset(CloseCode::Done);
        Ok(inclusion)
    }

    /// Opens a stream of a protocol whose messages another room defines. The peer hears of it with the first one.
    pub async fn open_stream<Out: Canonical, In: Canonical>(&self) -> Result<Stream<Out, In>, OpenError> {
        self.open().await
    }

    /// Waits until the connection is gone, and says why.
    pub async fn closed(&self) -> Lost {
        self.connection.closed().await.into()
    }

    /// Whether it is gone.
    pub fn is_closed(&self) -> bool {
        self.connection.close_reason().is_some()
    }

    async fn open<Out: Canonical, In: Canonical>(&self) -> Result<Stream<Out, In>, OpenError> {
        match timeout(CONNECT_TIMEOUT, self.connection.open_bi()).await {
            Ok(Ok((send, receive))) => Ok(Stream::new(send, receive, self.address.key)),
            Ok(Err(error)) => Err(OpenError::Lost(error.into())),
            Err(_) => Err(OpenError::Busy),
        }
    }
}
