//! Metrics, in Prometheus' text format.
//!
//! Holds:  labels come from a closed set, so that a stranger cannot make them grow.

use std::sync::atomic::AtomicU64;

use prometheus_client::{
    encoding::{EncodeLabelSet, text::encode},
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::Registry,
};

/// A request's labels.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct Request {
    pub(crate) method: &'static str,
    pub(crate) outcome: &'static str,
}

/// What is counted.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    pub(crate) requests: Family<Request, Counter>,
    pub(crate) request_seconds: Histogram,
    pub(crate) connections: Gauge,
    pub(crate) subscriptions: Gauge,
    pub(crate) pool_executable: Gauge,
    pub(crate) pool_queued: Gauge,
    pub(crate) pool_bytes: Gauge,
    pub(crate) indexed_height: Gauge,
    pub(crate) indexed_transactions: Counter,
    pub(crate) block_gas_used: Gauge,
    pub(crate) index_seconds: Histogram,
    pub(crate) gossip_received: Counter,
    pub(crate) gossip_dropped: Counter,
    pub(crate) block_time_seconds: Gauge<f64, AtomicU64>,
}

impl Default for Metrics {
    fn default() -> Self {
        let seconds = || Histogram::new([0.000_1, 0.000_5, 0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0]);
        let mut metrics = Self {
            registry: Registry::with_prefix("surety_validator"),
            requests: Family::default(),
            request_seconds: seconds(),
            connections: Gauge::default(),
            subscriptions: Gauge::default(),
            pool_executable: Gauge::default(),
            pool_queued: Gauge::default(),
            pool_bytes: Gauge::default(),
            indexed_height: Gauge::default(),
            indexed_transactions: Counter::default(),
            block_gas_used: Gauge::default(),
            index_seconds: seconds(),
            gossip_received: Counter::default(),
            gossip_dropped: Counter::default(),
            block_time_seconds: Gauge::default(),
        };
        let registry = &mut metrics.registry;
        registry.register(
            "rpc_requests",
            "Requests answered, by method and outcome",
            metrics.requests.clone(),
        );
        registry.register("rpc_request_seconds", "Time a request took", metrics.request_seconds.clone());
        registry.register("rpc_connections", "Connections open", metrics.connections.clone());
        registry.register("rpc_subscriptions", "Subscriptions open", metrics.subscriptions.clone());
        registry.register(
            "pool_executable",
            "Transactions that could run now",
            metrics.pool_executable.clone(),
        );
        registry.register("pool_queued", "Transactions that wait for another", metrics.pool_queued.clone());
        registry.register("pool_bytes", "Bytes of waiting transactions", metrics.pool_bytes.clone());
        registry.register(
            "indexed_height",
            "The newest block that can be looked up",
            metrics.indexed_height.clone(),
        );
        registry.register(
            "indexed_transactions",
            "Transactions indexed",
            metrics.indexed_transactions.clone(),
        );
        registry.register("block_gas_used", "Gas that the newest block used", metrics.block_gas_used.clone());
        registry.register(
            "index_seconds",
            "Time from a block's finality to its being looked up",
            metrics.index_seconds.clone(),
        );
        registry.register("gossip_received", "Transactions from peers", metrics.gossip_received.clone());
        registry.register(
            "gossip_dropped",
            "Transactions from peers that were not taken",
            metrics.gossip_dropped.clone(),
        );
        registry.register(
            "block_time_seconds",
            "When the newest block was proposed",
            metrics.block_time_seconds.clone(),
        );
        metrics
    }
}

impl Metrics {
    /// Everything counted so far.
    pub fn text(&self) -> String {
        let mut text = String::new();
        encode(&mut text, &self.registry).expect("a string takes any text");
        text
    }
}
