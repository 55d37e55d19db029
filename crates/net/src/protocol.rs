//! Protocols by name, codes by number, times by the clock.

use std::time::Duration;

use iroh::endpoint::{ConnectionError, VarInt};

/// What a connection is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// One order per stream.
    Serve,
    /// One status request per stream.
    Status,
    /// One request for the evidence of an audit per stream.
    Audit,
    /// One request for a receipt's place in its worker's log per stream.
    Log,
    /// One request for parts of a file per stream; its messages are the room's that speaks it (`blobs`).
    Blobs,
}

impl Protocol {
    /// Every protocol.
    pub const ALL: [Protocol; 5] =
        [Protocol::Serve, Protocol::Status, Protocol::Audit, Protocol::Log, Protocol::Blobs];

    /// The name by which both sides agree on it (ALPN), R-9.2.
    pub fn alpn(self) -> &'static [u8] {
        match self {
            Protocol::Serve => b"surety/serve/1",
            Protocol::Status => b"surety/status/1",
            Protocol::Audit => b"surety/audit/1",
            Protocol::Log => b"surety/log/1",
            Protocol::Blobs => b"surety/blobs/1",
        }
    }

    pub(crate) fn from_alpn(alpn: &[u8]) -> Option<Protocol> {
        Protocol::ALL.into_iter().find(|protocol| protocol.alpn() == alpn)
    }
}

/// A peer that shows no sign of life for so long is lost. QUIC counts from the first unanswered packet, which a
/// keep-alive makes sure there is: a peer that dies in silence is lost after the sum of the two at the latest.
pub(crate) const IDLE_TIMEOUT: Duration = Duration::from_secs(4);
/// A sign of life is given, and asked for, at least so often.
pub(crate) const KEEP_ALIVE: Duration = Duration::from_millis(500);
/// A connection is made within this, or not.
pub(crate) const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// A peer that takes nothing for so long is given up.
pub(crate) const SEND_TIMEOUT: Duration = Duration::from_secs(30);
/// A frame that has begun is complete within this, or refused.
pub(crate) const FRAME_TIMEOUT: Duration = Duration::from_secs(20);
/// A status is asked for and given within this.
pub(crate) const STATUS_TIMEOUT: Duration = Duration::from_secs(5);

const _: () = assert!(KEEP_ALIVE.as_millis() * 3 < IDLE_TIMEOUT.as_millis(), "two keep-alives may be lost");

/// Why a stream or connection was closed, as told to the other side.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CloseCode {
    /// Everything was said.
    Done,
    /// The payer no longer wants it.
    Cancelled,
    /// The other side sent what cannot be read, or out of turn.
    BadMessage,
    /// Too many at once.
    Busy,
    /// The other side took too long.
    Timeout,
    /// This side is going away.
    ShuttingDown,
    /// This side failed.
    Failed,
    /// A code this software does not know.
    Unknown(u64),
}

impl CloseCode {
    fn number(self) -> u64 {
        match self {
            CloseCode::Done => 0,
            CloseCode::Cancelled => 1,
            CloseCode::BadMessage => 2,
            CloseCode::Busy => 3,
            CloseCode::Timeout => 4,
            CloseCode::ShuttingDown => 5,
            CloseCode::Failed => 6,
            CloseCode::Unknown(number) => number,
        }
    }
}

impl From<CloseCode> for VarInt {
    fn from(code: CloseCode) -> VarInt {
        VarInt::from_u64(code.number()).unwrap_or(VarInt::MAX)
    }
}

impl From<VarInt> for CloseCode {
    fn from(code: VarInt) -> CloseCode {
        match code.into_inner() {
            0 => CloseCode::Done,
            1 => CloseCode::Cancelled,
            2 => CloseCode::BadMessage,
            3 => CloseCode::Busy,
            4 => CloseCode::Timeout,
            5 => CloseCode::ShuttingDown,
            6 => CloseCode::Failed,
            number => CloseCode::Unknown(number),
        }
    }
}

impl std::fmt::Display for CloseCode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            CloseCode::Done => f.write_str("done"),
            CloseCode::Cancelled => f.write_str("cancelled"),
            CloseCode::BadMessage => f.write_str("bad message"),
            CloseCode::Busy => f.write_str("busy"),
            CloseCode::Timeout => f.write_str("timeout"),
            CloseCode::ShuttingDown => f.write_str("shutting down"),
            CloseCode::Failed => f.write_str("failed"),
            CloseCode::Unknown(number) => write!(f, "code {number}"),
        }
    }
}

/// How a connection was lost.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Lost {
    /// No sign of life from the peer.
    #[error("no sign of life for {} s", IDLE_TIMEOUT.as_secs())]
    Silence,
    /// The peer closed it.
    #[error("closed by the peer: {0}")]
    ClosedByPeer(CloseCode),
    /// The peer no longer knows of it: it was restarted.
    #[error("the peer was restarted")]
    Restarted,
    /// We closed it.
    #[error("closed by this side")]
    ClosedHere,
    /// The transport broke off.
    #[error("broken off: {0}")]
    Broken(String),
}

impl From<ConnectionError> for Lost {
    fn from(error: ConnectionError) -> Lost {
        match error {
            ConnectionError::TimedOut => Lost::Silence,
            ConnectionError::ApplicationClosed(close) => Lost::ClosedByPeer(close.error_code.into()),
            ConnectionError::Reset => Lost::Restarted,
            ConnectionError::LocallyClosed => Lost::ClosedHere,
            other @ (ConnectionError::VersionMismatch
            | ConnectionError::TransportError(_)
            | ConnectionError::ConnectionClosed(_)
            | ConnectionError::CidsExhausted) => Lost::Broken(other.to_string()),
        }
    }
}
