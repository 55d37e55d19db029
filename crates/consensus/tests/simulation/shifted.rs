//! A runtime whose clock is ahead by a constant; everything else is the simulated runtime's.

use commonware_runtime::{
    BlobVersion, Clock, Error, Handle, Metrics, Name, Spawner, Storage, Supervisor, deterministic::Context,
    signal, telemetry::metrics,
};
use std::{
    convert::Infallible,
    future::Future,
    ops::RangeInclusive,
    time::{Duration, SystemTime},
};

/// The runtime.
pub struct Shifted {
    inner: Context,
    ahead: Duration,
}

impl Shifted {
    pub fn new(inner: Context, ahead: Duration) -> Self {
        Self { inner, ahead }
    }
}

impl Supervisor for Shifted {
    fn name(&self) -> Name {
        self.inner.name()
    }

    fn child(&self, label: &'static str) -> Self {
        Self { inner: self.inner.child(label), ahead: self.ahead }
    }

    fn with_attribute(self, key: &'static str, value: impl std::fmt::Display) -> Self {
        Self { inner: self.inner.with_attribute(key, value), ahead: self.ahead }
    }
}

impl Spawner for Shifted {
    fn shared(self, blocking: bool) -> Self {
        Self { inner: self.inner.shared(blocking), ahead: self.ahead }
    }

    fn dedicated(self) -> Self {
        Self { inner: self.inner.dedicated(), ahead: self.ahead }
    }

    fn spawn<F, Fut, T>(self, work: F) -> Handle<T>
    where
        F: FnOnce(Self) -> Fut + Send + 'static,
        Fut: Future<Output = T> + Send + 'static,
        T: Send + 'static,
    {
        let ahead = self.ahead;
        self.inner.spawn(move |inner| work(Self { inner, ahead }))
    }

    fn stop(self, value: i32, timeout: Option<Duration>) -> impl Future<Output = Result<(), Error>> + Send {
        self.inner.stop(value, timeout)
    }

    fn stopped(&self) -> signal::Signal {
        self.inner.stopped()
    }
}

impl Metrics for Shifted {
    fn register<N: Into<String>, H: Into<String>, M: metrics::Metric>(
        &self,
        name: N,
        help: H,
        metric: M,
    ) -> metrics::Registered<M> {
        self.inner.register(name, help, metric)
    }

    fn encode(&self) -> String {
        self.inner.encode()
    }
}

impl Clone for Shifted {
    fn clone(&self) -> Self {
        self.child("clock")
    }
}

impl governor::clock::Clock for Shifted {
    type Instant = SystemTime;

    fn now(&self) -> SystemTime {
        self.current()
    }
}

impl governor::clock::ReasonablyRealtime for Shifted {}

impl Clock for Shifted {
    fn current(&self) -> SystemTime {
        self.inner.current() + self.ahead
    }

    fn sleep(&self, duration: Duration) -> impl Future<Output = ()> + Send + 'static + use<> {
        self.inner.sleep(duration)
    }

    fn sleep_until(&self, deadline: SystemTime) -> impl Future<Output = ()> + Send + 'static + use<> {
        // A deadline from before this clock began is past.
        let deadline = deadline.checked_sub(self.ahead).unwrap_or(SystemTime::UNIX_EPOCH);
        self.inner.sleep_until(deadline)
    }
}

impl rand_core::TryRng for Shifted {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        self.inner.try_next_u32()
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        self.inner.try_next_u64()
    }

    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), Infallible> {
        self.inner.try_fill_bytes(bytes)
    }
}

impl rand_core::TryCryptoRng for Shifted {}

impl Storage for Shifted {
    type Blob = <Context as Storage>::Blob;

    async fn open_versioned(
        &self,
        partition: &str,
        name: &[u8],
        versions: RangeInclusive<BlobVersion>,
    ) -> Result<(Self::Blob, u64, BlobVersion), Error> {
        self.inner.open_versioned(partition, name, versions).await
    }

    async fn remove(&self, partition: &str, name: Option<&[u8]>) -> Result<(), Error> {
        self.inner.remove(partition, name).await
    }

    async fn scan(&self, partition: &str) -> Result<Vec<Vec<u8>>, Error> {
        self.inner.scan(partition).await
    }
}
