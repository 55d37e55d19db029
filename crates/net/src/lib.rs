//! The roads: who speaks to whom, in which protocol, in frames of which size, and for how long.
//!
//! In:     keys and socket addresses; values of `surety_types::wire` to send.
//! Out:    streams of such values from a peer whose key is proven by the connection.
//! Touches: one UDP socket per endpoint; the relays that are named in addresses, and no others; no name service. Where that
//!         is asked for, the multicast group of a private network.
//! Holds:  a frame is bounded before it is read, arrives whole or is an error, and must arrive in time; a stream that
//!         ends without having been finished is an error on the other side, never an end.
//! Absent: what the messages mean and the order they may come in (`client`, `worker`).

mod address;
mod endpoint;
mod frame;
mod link;
mod listen;
mod local;
mod protocol;
mod relay;
mod stream;

pub use address::{
    Location, ParseAddressError, ParseLocationError, ParseRelayError, RelayAddress, WorkerAddress,
};
pub use endpoint::{BindError, BindOptions, ConnectError, Endpoint, RelayError};
pub use frame::{FrameDecoder, FrameError, encode_frame};
pub use link::{AskError, Link, OpenError};
pub use listen::{
    AuditStream, BlobListener, BlobStream, Incoming, ListenLimits, Listener, LogStream, StatusStream,
};
pub use local::{Announced, LocalError, LocalNetwork, announce, find};
pub use protocol::{CloseCode, Lost, Protocol};
pub use relay::{Relay, RelayCounts, RelayLimits};
pub use stream::{OrderStream, ReceiveError, Receiver, SendError, Sender, ServeStream, Stream};
