//! The connection: keeps a worker reachable, and opens sessions and asks for status on it.
//!
//! In:     an endpoint and an address. Out: sessions, statuses.
//! Holds:  a lost connection is sought again, ever more slowly, and at once when the worker was heard, until the last
//!         clone of [`Connection`] is dropped.

use std::{sync::Arc, time::Duration};

use surety_net::{CloseCode, ConnectError, Endpoint, Link, Lost, Protocol, StatusError, WorkerAddress};
use surety_types::{PublicKey, Region, Request, Signed, WorkerStatus};
use tokio::{
    sync::{Mutex, Notify, watch},
    task::JoinSet,
    time::{Instant, sleep, timeout},
};
use tracing::{debug, info};

use crate::{
    channel::Purse,
    session::{Session, SessionError},
};

/// The first pause before a lost worker is called again, and the first wait for an answer …
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const FIRST_WAIT: Duration = Duration::from_secs(1);
/// … both of which double up to these.
const LONGEST_PAUSE: Duration = Duration::from_secs(2);
const LONGEST_WAIT: Duration = Duration::from_secs(5);
/// A connection that lasted so long starts the pauses anew.
const STEADY: Duration = Duration::from_secs(10);
/// A status comes within this, or not.
const STATUS_WAIT: Duration = Duration::from_secs(5);

/// A worker, kept reachable. Clones are the same connection.
#[derive(Debug, Clone)]
pub struct Connection {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    endpoint: Endpoint,
    address: WorkerAddress,
    serve: watch::Receiver<State>,
    status: Mutex<Option<Link>>,
    /// It was heard: it is worth calling now.
    heard: Arc<Notify>,
    /// Seeks the worker; aborted with the last clone.
    _task: JoinSet<()>,
}

#[derive(Debug, Clone)]
enum State {
    /// Not there, and why it was not the last time.
    Seeking(Option<Lost>),
    Connected(Link),
}

/// How an order is followed.
#[derive(Debug, Clone)]
pub struct OrderOptions {
    /// A worker that sends nothing for so long has stalled. Workers give a sign of life every
    /// [`surety_types::progress::PROGRESS_IDLE_MS`].
    pub stall: Duration,
    /// The same before it has accepted: it reads and tokenises the prompt first, and gives no sign meanwhile.
    pub acceptance: Duration,
    /// The context the worker offers for this model, from its status.
    pub context_tokens: Option<u32>,
    /// Where the worker says that it is, by its status, if it was chosen for that: then its acceptance must say the same.
    pub region: Option<Region>,
}

impl Default for OrderOptions {
    fn default() -> Self {
        let stall = Duration::from_secs(10);
        OrderOptions { stall, acceptance: stall, context_tokens: None, region: None }
    }
}

impl Connection {
    /// Starts to seek a worker, and returns at once. Needs a Tokio runtime.
    pub fn open(endpoint: &Endpoint, address: WorkerAddress) -> Connection {
        let (state, serve) = watch::channel(State::Seeking(None));
        let mut task = JoinSet::new();
        let heard = Arc::new(Notify::new());
        task.spawn(seek(endpoint.clone(), address, state, Arc::clone(&heard)));
        let (endpoint, status) = (endpoint.clone(), Mutex::new(None));
        let inner = Inner { endpoint, address, serve, status, heard, _task: task };
        Connection { inner: Arc::new(inner) }
    }

    /// Where the worker is sought.
    pub fn address(&self) -> &WorkerAddress {
        &self.inner.address
    }

    /// Who it must be.
    pub fn worker(&self) -> PublicKey {
        self.inner.address.key
    }

    /// Whether it is there now.
    pub fn is_connected(&self) -> bool {
        matches!(&*self.inner.serve.borrow(), State::Connected(link) if !link.is_closed())
    }

    /// Waits until it is there.
    pub async fn ready(&self, limit: Duration) -> Result<(), SessionError> {
        let mut serve = self.inner.serve.clone();
        let connected = serve.wait_for(|state| matches!(state, State::Connected(_)));
        match timeout(limit, connected).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(_)) | Err(_) => Err(self.unreachable()),
        }
    }

    /// Asks the worker how it is.
    pub async fn status(&self) -> Result<WorkerStatus, StatusError> {
        // One question at a time, on a connection of its own.
        let mut kept = self.inner.status.lock().await;
        let link = match kept.take().filter(|link| !link.is_closed()) {
            Some(link) => link,
            None => self
                .inner
                .endpoint
                .connect_within(&self.inner.address, Protocol::Status, FIRST_WAIT)
                .await
                .map_err(|error| StatusError::Open(surety_net::OpenError::Lost(error.as_lost())))?,
        };
        let status = link.status(STATUS_WAIT).await?;
        *kept = Some(link);
        if !self.is_connected() {
            self.inner.heard.notify_one();
        }
        Ok(status)
    }

    /// Sends an order, its request and the tokens it resumes from; what comes of it is the session's to tell.
    ///
    /// Fails at once if the worker is not there. Panics if the request or the tokens are not those that the order names.
    pub async fn order(
        &self,
        order: Signed<surety_types::Order>,
        request: Request,
        resumed: Vec<u32>,
        options: OrderOptions,
    ) -> Result<Session, SessionError> {
        self.start(order, request, resumed, options, None).await
    }

    /// As [`Connection::order`], paid from `purse`: the order names its channel.
    pub async fn order_paid(
        &self,
        order: Signed<surety_types::Order>,
        request: Request,
        resumed: Vec<u32>,
        options: OrderOptions,
        purse: Box<dyn Purse>,
    ) -> Result<Session, SessionError> {
        self.start(order, request, resumed, options, Some(purse)).await
    }

    async fn start(
        &self,
        order: Signed<surety_types::Order>,
        request: Request,
        resumed: Vec<u32>,
        options: OrderOptions,
        purse: Option<Box<dyn Purse>>,
    ) -> Result<Session, SessionError> {
        let link = match &*self.inner.serve.borrow() {
            State::Connected(link) => link.clone(),
            State::Seeking(lost) => {
                let lost = lost.clone();
                // It was not sent: it costs nothing.
                purse.into_iter().for_each(|purse| purse.release());
                return Err(SessionError::Unreachable { worker: self.worker(), lost });
            }
        };
        Session::start(&link, order, request, resumed, options, purse).await
    }

    fn unreachable(&self) -> SessionError {
        let lost = match &*self.inner.serve.borrow() {
            State::Seeking(lost) => lost.clone(),
            State::Connected(_) => None,
        };
        SessionError::Unreachable { worker: self.worker(), lost }
    }
}

/// Connects, waits for the loss, connects again. Ends when nobody watches.
async fn seek(endpoint: Endpoint, address: WorkerAddress, state: watch::Sender<State>, heard: Arc<Notify>) {
    let mut pause = FIRST_PAUSE;
    let mut wait = FIRST_WAIT;
    loop {
        let lost = match endpoint.connect_within(&address, Protocol::Serve, wait).await {
            Ok(link) => {
                info!(worker = %address.key.short(), "connected");
                let since = Instant::now();
                state.send_replace(State::Connected(link.clone()));
                let lost = link.closed().await;
                info!(worker = %address.key.short(), %lost, "connection lost");
                if since.elapsed() >= STEADY {
                    pause = FIRST_PAUSE;
                    wait = FIRST_WAIT;
                }
                lost
            }
            Err(error) => {
                if let ConnectError::BadKey { .. } = error {
                    info!(%address, "no worker can have this key");
                }
                debug!(%error, "worker not reached");
                wait = (wait * 2).min(LONGEST_WAIT);
                error.as_lost()
            }
        };
        let leaving = matches!(lost, Lost::ClosedByPeer(CloseCode::ShuttingDown));
        state.send_replace(State::Seeking(Some(lost)));
        if state.is_closed() {
            return;
        }
        // Who says goodbye does not come back at once.
        tokio::select! {
            () = sleep(if leaving { LONGEST_PAUSE } else { pause }) => {}
            () = heard.notified() => {}
        }
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}
