//! JSON-RPC over HTTP and WebSocket, as Ethereum's wallets, libraries and tools speak it.
//!
//! In:     requests from anyone.
//! Out:    answers; heads, logs and transactions to subscribers; `/health` and `/metrics`.
//! Touches: one TCP socket.
//! Holds:  connections, bodies, batches, nesting, ranges, subscriptions, the work of a request and what is executed at
//!         once are bounded; an answer is about finalised blocks only; errors carry the codes, words and revert data
//!         from which libraries tell what happened.
//! Absent: keys and signing (wallets have them), traces, the state of old blocks.

mod count;
mod error;
mod eth;
mod http;
mod params;
mod shapes;
mod subscribe;
mod surety;

use std::{fmt, net::SocketAddr, sync::Arc, time::Duration};

use alloy_primitives::B256;
use jsonrpsee::{RpcModule, core::RegisterMethodError};
use tokio::sync::Semaphore;

use crate::{
    indexes::{Indexes, LogBounds, Snapshot},
    ledger::View,
    metrics::Metrics,
    pool::Pool,
};
use error::{Answer, internal, limit, told};
pub use http::RpcServer;

/// How RPC is served.
#[derive(Debug, Clone)]
pub struct RpcSettings {
    /// Where to listen; port 0 takes any free one.
    pub listen: SocketAddr,
    /// Names, besides addresses and `localhost`, under which browsers may reach it.
    pub hosts: Vec<String>,
    /// Origins of pages that may use it, such as `https://example.org`; `*` is every page.
    pub origins: Vec<String>,
    /// Bounds.
    pub limits: RpcLimits,
}

/// Bounds of RPC.
#[derive(Debug, Clone, Copy)]
pub struct RpcLimits {
    /// Connections open at once.
    pub connections_max: u32,
    /// Bytes of a request.
    pub request_bytes_max: u32,
    /// Bytes of an answer.
    pub answer_bytes_max: u32,
    /// Requests in a batch.
    pub batch_max: u32,
    /// Subscriptions of one connection.
    pub subscriptions_max: u32,
    /// Messages that wait for a slow reader.
    pub messages_max: u32,
    /// Readings of the disk at once.
    pub readings_max: usize,
    /// Readings that wait for their turn.
    pub waiting_max: usize,
    /// For a request's headers to arrive.
    pub header_timeout: Duration,
    /// For a request to be read and answered.
    pub request_timeout: Duration,
    /// For requests to end when the validator stops.
    pub stop_grace: Duration,
    /// Of a query for logs.
    pub logs: LogBounds,
}

impl Default for RpcLimits {
    fn default() -> Self {
        Self {
            connections_max: 1_024,
            request_bytes_max: 2 << 20,
            answer_bytes_max: 32 << 20,
            batch_max: 100,
            subscriptions_max: 64,
            messages_max: 256,
            readings_max: 8,
            waiting_max: 1_024,
            header_timeout: Duration::from_secs(10),
            request_timeout: Duration::from_secs(60),
            stop_grace: Duration::from_secs(5),
            logs: LogBounds::default(),
        }
    }
}

/// What answers are made of.
pub struct Services {
    /// What happened.
    pub indexes: Indexes,
    /// What waits.
    pub pool: Arc<Pool>,
    /// What is.
    pub view: View,
    /// The digest of the genesis document.
    pub genesis: B256,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// More metrics, as text: those of `consensus`.
    pub more_metrics: Box<dyn Fn() -> String + Send + Sync>,
    limits: RpcLimits,
    readings: Arc<Semaphore>,
    waiting: Arc<Semaphore>,
}

impl fmt::Debug for Services {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Services").finish_non_exhaustive()
    }
}

impl Services {
    /// From the parts of the role.
    pub fn new(
        indexes: Indexes,
        pool: Arc<Pool>,
        view: View,
        genesis: B256,
        metrics: Arc<Metrics>,
        more_metrics: impl Fn() -> String + Send + Sync + 'static,
        limits: RpcLimits,
    ) -> Self {
        Self {
            indexes,
            pool,
            view,
            genesis,
            metrics,
            more_metrics: Box::new(more_metrics),
            limits,
            readings: Arc::new(Semaphore::new(limits.readings_max)),
            waiting: Arc::new(Semaphore::new(limits.waiting_max)),
        }
    }

    /// Reads the indexes on a thread that may wait for the disk.
    async fn reading<T: Send + 'static>(
        &self,
        read: impl FnOnce(&Snapshot) -> Answer<T> + Send + 'static,
    ) -> Answer<T> {
        let busy = || limit("too many requests are waiting for the disk");
        let waiting = Arc::clone(&self.waiting).try_acquire_owned().map_err(|_| busy())?;
        let place = Arc::clone(&self.readings).acquire_owned().await.map_err(|_| busy())?;
        drop(waiting);
        let indexes = self.indexes.clone();
        let done = tokio::task::spawn_blocking(move || {
            let _place = place;
            read(&told(indexes.snapshot())?)
        });
        done.await.map_err(|error| internal(&error))?
    }

    /// `/metrics`
    fn metrics_text(&self) -> String {
        let size = self.pool.size();
        let gauge = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
        self.metrics.pool_executable.set(gauge(size.executable));
        self.metrics.pool_queued.set(gauge(size.queued));
        self.metrics.pool_bytes.set(gauge(size.bytes));
        let own = self.metrics.text();
        let more = (self.more_metrics)();
        // One document has one end.
        format!("{}{}", own.trim_end_matches("# EOF\n"), more)
    }
}

/// Every method.
fn methods(services: Arc<Services>) -> Result<RpcModule<Services>, RegisterMethodError> {
    let mut module = RpcModule::from_arc(services);
    eth::register(&mut module)?;
    subscribe::register(&mut module)?;
    surety::register(&mut module)?;
    Ok(module)
}
