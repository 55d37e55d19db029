//! Counts requests by method and outcome.

use std::{sync::Arc, time::Instant};

use jsonrpsee::{
    MethodResponse,
    core::middleware::{Batch, Notification},
    server::middleware::rpc::RpcServiceT,
    types::Request,
};

use crate::metrics::{self, Metrics};

/// A service that is counted.
#[derive(Clone)]
pub(super) struct Counted<S> {
    pub(super) service: S,
    pub(super) metrics: Arc<Metrics>,
    /// The methods there are: others are counted together.
    pub(super) names: Arc<[&'static str]>,
}

impl<S> RpcServiceT for Counted<S>
where
    S: RpcServiceT<MethodResponse = MethodResponse> + Clone + Send + Sync + 'static,
{
    type MethodResponse = MethodResponse;
    type NotificationResponse = S::NotificationResponse;
    type BatchResponse = S::BatchResponse;

    fn call<'a>(&self, request: Request<'a>) -> impl Future<Output = Self::MethodResponse> + Send + 'a {
        let (service, metrics) = (self.service.clone(), Arc::clone(&self.metrics));
        let method = self.names.iter().find(|name| **name == request.method).copied().unwrap_or("unknown");
        async move {
            let started = Instant::now();
            let response = service.call(request).await;
            let outcome = if response.is_success() { "answered" } else { "refused" };
            metrics.requests.get_or_create(&metrics::Request { method, outcome }).inc();
            metrics.request_seconds.observe(started.elapsed().as_secs_f64());
            response
        }
    }

    fn batch<'a>(&self, batch: Batch<'a>) -> impl Future<Output = Self::BatchResponse> + Send + 'a {
        self.service.batch(batch)
    }

    fn notification<'a>(
        &self,
        notification: Notification<'a>,
    ) -> impl Future<Output = Self::NotificationResponse> + Send + 'a {
        self.service.notification(notification)
    }
}
