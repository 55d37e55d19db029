//! The endpoint: one key, one UDP socket.

use std::{net::SocketAddr, time::Duration};

use iroh::{
    EndpointAddr, RelayConfig, RelayMap, RelayMode, Watcher as _,
    endpoint::{NetReportConfig, QuicTransportConfig, VarInt, presets},
};
use surety_types::{PublicKey, SecretKey};
use tokio::time::timeout;

use crate::{
    address::{Location, RelayAddress, WorkerAddress},
    link::Link,
    listen::{BlobListener, ListenLimits, Listener, start},
    protocol::{CONNECT_TIMEOUT, IDLE_TIMEOUT, KEEP_ALIVE, Lost, Protocol},
};

/// Streams that a peer may have open on one connection.
const STREAMS_PER_CONNECTION: u32 = 256;
/// Bytes that a peer may have under way on one stream, unread.
const STREAM_WINDOW_BYTES: u32 = 1 << 20;
/// Bytes that a peer may have under way on one connection, unread.
const CONNECTION_WINDOW_BYTES: u32 = 16 << 20;

/// How long a relay may take to take us on.
const RELAY_TIMEOUT: Duration = Duration::from_secs(5);

/// Who we are and where.
#[derive(Debug, Clone)]
pub struct BindOptions {
    /// Our identity to every peer.
    pub key: SecretKey,
    /// The socket; port 0 takes any. An endpoint on a loopback address reaches loopback only, and whoever is at a relay.
    pub listen: SocketAddr,
}

/// One key and one UDP socket, for connections both ways. Clones are the same endpoint.
#[derive(Debug, Clone)]
pub struct Endpoint {
    endpoint: iroh::Endpoint,
    address: WorkerAddress,
}

/// Why there is no endpoint.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {listen}")]
pub struct BindError {
    /// Where.
    pub listen: SocketAddr,
    #[source]
    source: Box<dyn std::error::Error + Send + Sync>,
}

/// A relay that is of no use.
#[derive(Debug, thiserror::Error)]
#[error("the relay {relay} did not take us on within {} s", limit.as_secs_f32())]
pub struct RelayError {
    /// Which.
    pub relay: RelayAddress,
    /// How long.
    pub limit: Duration,
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// Nobody answered.
    #[error("{address} did not answer within {} s", limit.as_secs_f32())]
    NoAnswer {
        /// Who was called.
        address: WorkerAddress,
        /// How long.
        limit: Duration,
    },
    /// The key in the address is no key.
    #[error("{address} names no valid key")]
    BadKey {
        /// Who was called.
        address: WorkerAddress,
    },
    /// Somebody answered, but not as the one called, or refusing.
    #[error("no connection to {address}")]
    Refused {
        /// Who was called.
        address: WorkerAddress,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

impl Endpoint {
    /// Opens the socket. Nothing else is spoken to before somebody is called.
    pub async fn bind(options: BindOptions) -> Result<Endpoint, BindError> {
        let listen = options.listen;
        let failed = |source| BindError { listen, source };
        let transport = QuicTransportConfig::builder()
            .max_idle_timeout(Some(IDLE_TIMEOUT.try_into().expect("a few seconds")))
            .keep_alive_interval(KEEP_ALIVE)
            .default_path_max_idle_timeout(IDLE_TIMEOUT)
            .default_path_keep_alive_interval(KEEP_ALIVE)
            .max_concurrent_bidi_streams(STREAMS_PER_CONNECTION.into())
            .max_concurrent_uni_streams(VarInt::from_u32(0))
            .datagram_receive_buffer_size(None)
            .stream_receive_window(STREAM_WINDOW_BYTES.into())
            .receive_window(CONNECTION_WINDOW_BYTES.into())
            .build();
        // A relay is asked how far away it is, and nobody is asked anything else.
        let mut report = NetReportConfig::minimal();
        report.https_probes = true;
        let endpoint = iroh::Endpoint::builder(presets::Minimal)
            .relay_mode(RelayMode::Custom(RelayMap::empty()))
            .net_report_config(report)
            .clear_address_lookup()
            .clear_ip_transports()
            .transport_config(transport)
            .secret_key(iroh::SecretKey::from_bytes(&options.key.to_bytes()))
            .bind_addr(listen)
            .map_err(|error| failed(error.into()))?
            .bind()
            .await
            .map_err(|error| failed(error.into()))?;
        let socket = endpoint
            .bound_sockets()
            .into_iter()
            .find(|socket| socket.is_ipv4() == listen.is_ipv4())
            .ok_or_else(|| failed("the socket closed again".into()))?;
        Ok(Endpoint { endpoint, address: WorkerAddress::direct(options.key.public(), socket) })
    }

    /// Keeps a connection to a relay, at which we are reached from now on. Where both ends find a direct way, packets
    /// take that.
    pub async fn behind(self, relay: RelayAddress) -> Result<Endpoint, RelayError> {
        self.behind_within(relay, RELAY_TIMEOUT).await
    }

    /// As [`Endpoint::behind`], with a time limit of one's own.
    pub async fn behind_within(
        mut self,
        relay: RelayAddress,
        limit: Duration,
    ) -> Result<Endpoint, RelayError> {
        let url = relay.url();
        self.endpoint.insert_relay(url.clone(), RelayConfig::new(url, None).into()).await;
        if timeout(limit, self.endpoint.online()).await.is_err() {
            self.endpoint.close().await;
            return Err(RelayError { relay, limit });
        }
        self.address.location = Location::Relayed(relay);
        Ok(self)
    }

    /// Whether the relay is connected at the moment; it is called again and again. None without a relay.
    pub fn relay_connected(&self) -> Option<bool> {
        matches!(self.address.location, Location::Relayed(_)).then(|| {
            self.endpoint.home_relay_status().get().iter().any(iroh::endpoint::RelayStatus::is_connected)
        })
    }

    /// Our key.
    pub fn key(&self) -> PublicKey {
        self.address.key
    }

    /// Our key, and our socket or relay.
    pub fn address(&self) -> WorkerAddress {
        self.address
    }

    /// Starts to take connections for orders and status. An endpoint listens once, in one of the three ways.
    pub fn listen(&self, limits: ListenLimits) -> Listener {
        let (listener, _) = self.start(Some(limits), None);
        listener.expect("asked for")
    }

    /// As [`Endpoint::listen`], for blobs alone.
    pub fn listen_for_blobs(&self, limits: ListenLimits) -> BlobListener {
        let (_, listener) = self.start(None, Some(limits));
        listener.expect("asked for")
    }

    /// As [`Endpoint::listen`], for orders, status and blobs. Neither kind takes the other's places.
    pub fn listen_with_blobs(&self, limits: ListenLimits, blobs: ListenLimits) -> (Listener, BlobListener) {
        let (listener, blob_listener) = self.start(Some(limits), Some(blobs));
        (listener.expect("asked for"), blob_listener.expect("asked for"))
    }

    fn start(
        &self,
        orders: Option<ListenLimits>,
        blobs: Option<ListenLimits>,
    ) -> (Option<Listener>, Option<BlobListener>) {
        let taken = |protocol: &Protocol| match protocol {
            Protocol::Serve | Protocol::Status | Protocol::Audit | Protocol::Log => orders.is_some(),
            Protocol::Blobs => blobs.is_some(),
        };
        let names = Protocol::ALL.into_iter().filter(taken).map(|protocol| protocol.alpn().to_vec());
        self.endpoint.set_alpns(names.collect());
        start(self.endpoint.clone(), orders, blobs)
    }

    /// Connects to a worker; the connection proves that it holds its key.
    pub async fn connect(&self, address: &WorkerAddress, protocol: Protocol) -> Result<Link, ConnectError> {
        self.connect_within(address, protocol, CONNECT_TIMEOUT).await
    }

    /// As [`Endpoint::connect`], with a time limit of one's own.
    pub async fn connect_within(
        &self,
        address: &WorkerAddress,
        protocol: Protocol,
        limit: Duration,
    ) -> Result<Link, ConnectError> {
        let id = iroh::EndpointId::from_bytes(address.key.as_bytes())
            .map_err(|_| ConnectError::BadKey { address: *address })?;
        let target = EndpointAddr::new(id);
        let target = match address.location {
            Location::Direct(socket) => target.with_ip_addr(socket),
            Location::Relayed(relay) => target.with_relay_url(relay.url()),
        };
        match timeout(limit, self.endpoint.connect(target, protocol.alpn())).await {
            Ok(Ok(connection)) => Ok(Link::new(connection, *address)),
            Ok(Err(error)) => Err(ConnectError::Refused { address: *address, source: error.into() }),
            Err(_) => Err(ConnectError::NoAnswer { address: *address, limit }),
        }
    }

    /// Closes every connection. The socket closes with the last clone.
    pub async fn close(&self) {
        self.endpoint.close().await;
    }
}

impl ConnectError {
    /// As the loss of a connection that never was.
    pub fn as_lost(&self) -> Lost {
        match self {
            ConnectError::NoAnswer { .. } => Lost::Silence,
            ConnectError::BadKey { .. } | ConnectError::Refused { .. } => Lost::Broken(self.to_string()),
        }
    }
}
