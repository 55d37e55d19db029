//! Streams of messages, one canonical CBOR value per frame.
//!
//! In, out: values. Holds; see the crate. A dropped sender that was not finished resets its stream, so
//! a crash half-way is never mistaken for an end.

use std::{marker::PhantomData, time::Duration};

use iroh::endpoint::{ReadError, RecvStream, SendStream, WriteError};
use surety_types::{Canonical, DecodeError, FromWorker, PublicKey, ToWorker};
use tokio::{
    sync::OwnedSemaphorePermit,
    time::{Instant, timeout, timeout_at},
};

use crate::{
    frame::{FrameDecoder, FrameError, encode_frame},
    protocol::{CloseCode, FRAME_TIMEOUT, Lost, SEND_TIMEOUT},
};

/// The most that is taken from the transport at once.
const PIECE_BYTES: usize = 64 << 10;

/// The payer's half of an order's stream.
pub type OrderStream = Stream<ToWorker, FromWorker>;
/// The worker's half of an order's stream.
pub type ServeStream = Stream<FromWorker, ToWorker>;

/// Both directions of a stream.
#[derive(Debug)]
pub struct Stream<Out: Canonical, In> {
    sender: Sender<Out>,
    receiver: Receiver<In>,
}

/// The direction away from here. Dropped before it is finished, it is reset.
#[derive(Debug)]
pub struct Sender<Out: Canonical> {
    stream: SendStream,
    peer: PublicKey,
    state: Sending,
    sends: PhantomData<fn(Out)>,
    _permit: Option<std::sync::Arc<OwnedSemaphorePermit>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sending {
    /// Between frames.
    Open,
    /// Within a frame. Stays so if sending fails or is given up: half a frame must not be followed by another.
    WithinFrame,
    /// Finished or reset.
    Ended,
}

/// The direction towards here.
#[derive(Debug)]
pub struct Receiver<In> {
    stream: RecvStream,
    peer: PublicKey,
    decoder: FrameDecoder,
    /// Since when a frame is incomplete.
    begun: Option<Instant>,
    frame_timeout: Duration,
    failed: Option<ReceiveError>,
    receives: PhantomData<fn() -> In>,
    _permit: Option<std::sync::Arc<OwnedSemaphorePermit>>,
}

/// Why nothing could be sent.
#[derive(Debug, Clone, thiserror::Error)]
pub enum SendError {
    /// The connection is gone.
    #[error("the connection was lost")]
    Lost(#[source] Lost),
    /// The peer takes no more of this stream.
    #[error("the peer stopped the stream: {0}")]
    Stopped(CloseCode),
    /// The peer took nothing.
    #[error("the peer took nothing for {} s", SEND_TIMEOUT.as_secs())]
    Timeout,
    /// The stream was finished or reset here.
    #[error("the stream has ended")]
    Ended,
}

/// Why nothing was received.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ReceiveError {
    /// The connection is gone.
    #[error("the connection was lost")]
    Lost(#[source] Lost),
    /// The peer broke off.
    #[error("the peer broke the stream off: {0}")]
    Reset(CloseCode),
    /// What came is no frame.
    #[error("the peer sent a bad frame")]
    Frame(#[source] FrameError),
    /// A frame is no message.
    #[error("the peer sent a bad message")]
    Message(#[source] std::sync::Arc<DecodeError>),
    /// A frame did not come to its end.
    #[error("a frame was not complete within {} s", .0.as_secs_f32())]
    SlowFrame(Duration),
    /// Nothing came in time.
    #[error("nothing came within {} s", .0.as_secs_f32())]
    Silence(Duration),
    /// The stream was stopped here.
    #[error("the stream has ended")]
    Ended,
}

impl<Out: Canonical, In: Canonical> Stream<Out, In> {
    pub(crate) fn new(send: SendStream, receive: RecvStream, peer: PublicKey) -> Self {
        Stream {
            sender: Sender { stream: send, peer, state: Sending::Open, sends: PhantomData, _permit: None },
            receiver: Receiver {
                stream: receive,
                peer,
                decoder: FrameDecoder::new(In::MAX_BYTES),
                begun: None,
                frame_timeout: FRAME_TIMEOUT,
                failed: None,
                receives: PhantomData,
                _permit: None,
            },
        }
    }

    /// Limits the time of a frame, and holds a place among the concurrent streams until both halves are gone.
    pub(crate) fn limited(mut self, frame_timeout: Duration, permit: OwnedSemaphorePermit) -> Self {
        let permit = std::sync::Arc::new(permit);
        self.receiver.frame_timeout = frame_timeout;
        self.receiver._permit = Some(permit.clone());
        self.sender._permit = Some(permit);
        self
    }

    /// Who is at the other end, proven by the connection.
    pub fn peer(&self) -> PublicKey {
        self.sender.peer
    }

    /// See [`Sender::send`].
    pub async fn send(&mut self, message: &Out) -> Result<(), SendError> {
        self.sender.send(message).await
    }

    /// See [`Receiver::receive`].
    pub async fn receive(&mut self) -> Result<Option<In>, ReceiveError> {
        self.receiver.receive().await
    }

    /// See [`Receiver::receive_within`].
    pub async fn receive_within(&mut self, limit: Duration) -> Result<Option<In>, ReceiveError> {
        self.receiver.receive_within(limit).await
    }

    /// See [`Sender::finish`].
    pub async fn finish(&mut self) -> Result<(), SendError> {
        self.sender.finish().await
    }

    /// Breaks both directions off, telling the peer why.
    pub fn reset(&mut self, code: CloseCode) {
        self.sender.reset(code);
        self.receiver.stop(code);
    }

    /// The two directions, for two tasks.
    pub fn split(self) -> (Sender<Out>, Receiver<In>) {
        (self.sender, self.receiver)
    }
}

impl<Out: Canonical> Sender<Out> {
    /// Who is at the other end, proven by the connection.
    pub fn peer(&self) -> PublicKey {
        self.peer
    }

    /// Sends one message; returns when the transport has taken it. Panics if the message is out of its bounds.
    ///
    /// If the future is dropped half-way, the stream is of no more use and is reset.
    pub async fn send(&mut self, message: &Out) -> Result<(), SendError> {
        if self.state != Sending::Open {
            return Err(SendError::Ended);
        }
        let frame = encode_frame(&message.to_cbor(), Out::MAX_BYTES);
        self.state = Sending::WithinFrame;
        match timeout(SEND_TIMEOUT, self.stream.write_all(&frame)).await {
            Ok(Ok(())) => {
                self.state = Sending::Open;
                Ok(())
            }
            Ok(Err(error)) => Err(send_error(error)),
            Err(_) => {
                self.reset(CloseCode::Timeout);
                Err(SendError::Timeout)
            }
        }
    }

    /// Ends the stream; returns when the peer has acknowledged all of it, or said that it is done.
    pub async fn finish(&mut self) -> Result<(), SendError> {
        self.finish_unconfirmed()?;
        match timeout(SEND_TIMEOUT, self.stream.stopped()).await {
            Ok(Ok(None)) => Ok(()),
            Ok(Ok(Some(code))) => match code.into() {
                CloseCode::Done => Ok(()),
                code => Err(SendError::Stopped(code)),
            },
            Ok(Err(error)) => Err(send_error(error.into())),
            Err(_) => Err(SendError::Timeout),
        }
    }

    /// Ends the stream without waiting. What was sent still arrives if the connection lasts.
    pub fn finish_unconfirmed(&mut self) -> Result<(), SendError> {
        if self.state != Sending::Open {
            return Err(SendError::Ended);
        }
        self.state = Sending::Ended;
        self.stream.finish().map_err(|_| SendError::Ended)
    }

    /// Breaks the stream off, telling the peer why. No effect after its end.
    pub fn reset(&mut self, code: CloseCode) {
        if self.state != Sending::Ended {
            self.state = Sending::Ended;
            // An error means that it had ended by itself.
            let _ = self.stream.reset(code.into());
        }
    }

    /// When the peer takes no more of this stream: why, or that the connection is gone. Never, after a clean end.
    pub async fn stopped(&self) -> SendError {
        match self.stream.stopped().await {
            Ok(Some(code)) => SendError::Stopped(code.into()),
            Ok(None) => std::future::pending().await,
            Err(error) => send_error(error.into()),
        }
    }
}

impl<Out: Canonical> Drop for Sender<Out> {
    fn drop(&mut self) {
        // The transport finishes what is dropped; but what was not finished here must not look finished there.
        self.reset(CloseCode::Failed);
    }
}

impl<In: Canonical> Receiver<In> {
    /// Who is at the other end, proven by the connection.
    pub fn peer(&self) -> PublicKey {
        self.peer
    }

    /// The next message, or none when the peer has finished. May be cancelled without loss.
    ///
    /// Waits without limit for a frame to begin, but not for it to end. After a bad or slow frame the peer is told to
    /// stop, and every further call gives the same error.
    pub async fn receive(&mut self) -> Result<Option<In>, ReceiveError> {
        if let Some(error) = &self.failed {
            return Err(error.clone());
        }
        match self.next().await {
            Ok(message) => Ok(message),
            Err(error) => {
                let code = match &error {
                    ReceiveError::Frame(_) | ReceiveError::Message(_) => Some(CloseCode::BadMessage),
                    ReceiveError::SlowFrame(_) => Some(CloseCode::Timeout),
                    ReceiveError::Lost(_)
                    | ReceiveError::Reset(_)
                    | ReceiveError::Silence(_)
                    | ReceiveError::Ended => None,
                };
                if let Some(code) = code {
                    self.stop(code);
                }
                self.failed = Some(error.clone());
                Err(error)
            }
        }
    }

    /// As [`Receiver::receive`], but gives up with [`ReceiveError::Silence`] if it takes longer. A later call goes on.
    pub async fn receive_within(&mut self, limit: Duration) -> Result<Option<In>, ReceiveError> {
        timeout(limit, self.receive()).await.unwrap_or(Err(ReceiveError::Silence(limit)))
    }

    /// Takes no more, telling the peer why.
    pub fn stop(&mut self, code: CloseCode) {
        self.failed.get_or_insert(ReceiveError::Ended);
        // An error means that it had ended by itself.
        let _ = self.stream.stop(code.into());
    }

    async fn next(&mut self) -> Result<Option<In>, ReceiveError> {
        loop {
            if let Some(body) = self.decoder.next_frame().map_err(ReceiveError::Frame)? {
                self.begun = self.decoder.is_within_frame().then(Instant::now);
                let message = In::from_cbor(&body).map_err(|error| ReceiveError::Message(error.into()))?;
                return Ok(Some(message));
            }
            let read = self.stream.read_chunk(PIECE_BYTES);
            let piece = match self.begun {
                None => read.await,
                Some(begun) => timeout_at(begun + self.frame_timeout, read)
                    .await
                    .map_err(|_| ReceiveError::SlowFrame(self.frame_timeout))?,
            };
            match piece.map_err(receive_error)? {
                Some(bytes) => {
                    self.begun.get_or_insert_with(Instant::now);
                    self.decoder.push(&bytes);
                }
                None => {
                    self.decoder.finish().map_err(ReceiveError::Frame)?;
                    return Ok(None);
                }
            }
        }
    }
}

fn send_error(error: WriteError) -> SendError {
    match error {
        WriteError::Stopped(code) => SendError::Stopped(code.into()),
        WriteError::ConnectionLost(error) => SendError::Lost(error.into()),
        WriteError::ClosedStream | WriteError::ZeroRttRejected => SendError::Ended,
    }
}

fn receive_error(error: ReadError) -> ReceiveError {
    match error {
        ReadError::Reset(code) => ReceiveError::Reset(code.into()),
        ReadError::ConnectionLost(error) => ReceiveError::Lost(error.into()),
        ReadError::ClosedStream | ReadError::ZeroRttRejected => ReceiveError::Ended,
    }
}
