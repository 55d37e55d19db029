//! The connection: keeps a worker reachable, and opens sessions and asks for status on it.
//!
//! In:     an endpoint and an address. Out: sessions, statuses.
//! Holds:  a lost connection is sought again, ever more slowly, and at once when the worker was heard, until the last
//!         clone of [`Connection`] is dropped; what the worker said on a new connection makes the one for orders new too: a
//!         worker that was killed and started again does not say that the old one is dead.

use std::{pin::pin, sync::Arc, time::Duration};

use surety_net::{AskError, CloseCode, ConnectError, Endpoint, Link, Lost, Protocol, WorkerAddress};
use surety_types::{Digest, Inclusion, PublicKey, Region, Request, Signed, WorkerStatus};
use tokio::{
    sync::{Mutex, watch},
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
/// A status comes within this, or not …
const STATUS_WAIT: Duration = Duration::from_secs(5);
/// … and if not within this, it is asked for on a new connection too.
const STATUS_LATE: Duration = Duration::from_millis(500);

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
    /// Since when it is there for certain: heard where it was not connected, or on a connection begun then. It is worth calling.
    heard: watch::Sender<Instant>,
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
    /// The version of the arithmetic in the model's manifest: the receipt must claim that, neither more nor less.
    pub arithmetic: Option<u32>,
    /// Where the worker says that it is, by its status, if it was chosen for that: then its acceptance must say the same.
    pub region: Option<Region>,
}

impl Default for OrderOptions {
    fn default() -> Self {
        let stall = Duration::from_secs(10);
        OrderOptions { stall, acceptance: stall, context_tokens: None, arithmetic: None, region: None }
    }
}

impl Connection {
    /// Starts to seek a worker, and returns at once. Needs a Tokio runtime.
    pub fn open(endpoint: &Endpoint, address: WorkerAddress) -> Connection {
        let (state, serve) = watch::channel(State::Seeking(None));
        let mut task = JoinSet::new();
        let (heard, calling) = watch::channel(Instant::now());
        task.spawn(seek(endpoint.clone(), address, state, calling));
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
    pub async fn status(&self) -> Result<WorkerStatus, AskError> {
        // One question at a time, on a connection of its own.
        let mut kept = self.inner.status.lock().await;
        let (link, status) = match kept.take().filter(|link| !link.is_closed()) {
            None => self.ask_anew().await?,
            Some(link) => {
                let mut asked = pin!(link.status(STATUS_WAIT));
                match timeout(STATUS_LATE, asked.as_mut()).await {
                    Ok(status) => (link.clone(), status?),
                    // Slow, or gone; and gone, it may be there again.
                    Err(_) => {
                        let mut anew = pin!(self.ask_anew());
                        tokio::select! {
                            status = asked.as_mut() => match status {
                                Ok(status) => (link.clone(), status),
                                Err(_) => anew.await?,
                            },
                            answer = anew.as_mut() => match answer {
                                Ok(answer) => answer,
                                Err(_) => (link.clone(), asked.await?),
                            },
                        }
                    }
                }
            }
        };
        *kept = Some(link);
        if !self.is_connected() {
            self.inner.heard.send_replace(Instant::now());
        }
        Ok(status)
    }

    /// Asks for the status on a new connection.
    async fn ask_anew(&self) -> Result<(Link, WorkerStatus), AskError> {
        let Inner { endpoint, address, heard, .. } = &*self.inner;
        let began = Instant::now();
        let link = endpoint
            .connect_within(address, Protocol::Status, FIRST_WAIT)
            .await
            .map_err(|error| AskError::Open(surety_net::OpenError::Lost(error.as_lost())))?;
        let status = link.status(STATUS_WAIT).await?;
        heard.send_replace(began);
        Ok((link, status))
    }

    /// Asks the worker where a receipt stands in its log, on a connection of its own. What it says is worth what
    /// [`crate::inclusion::checked`] makes of it.
    pub async fn inclusion(&self, receipt: Digest) -> Result<Inclusion, AskError> {
        let Inner { endpoint, address, .. } = &*self.inner;
        let link = endpoint
            .connect_within(address, Protocol::Log, LONGEST_WAIT)
            .await
            .map_err(|error| AskError::Open(surety_net::OpenError::Lost(error.as_lost())))?;
        link.inclusion(receipt, STATUS_WAIT).await
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
async fn seek(
    endpoint: Endpoint,
    address: WorkerAddress,
    state: watch::Sender<State>,
    mut heard: watch::Receiver<Instant>,
) {
    let mut pause = FIRST_PAUSE;
    let mut wait = FIRST_WAIT;
    loop {
        let lost = match endpoint.connect_within(&address, Protocol::Serve, wait).await {
            Ok(link) => {
                info!(worker = %address.key.short(), "connected");
                let since = Instant::now();
                let lost = kept(&endpoint, link, &state, &mut heard).await;
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
            Ok(()) = heard.changed() => {}
        }
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

/// Shows a link until it is lost. If the worker is heard on a later one, this one may lead to a process that is gone: a new one
/// takes its place, and whoever has the old one may go on with it.
async fn kept(
    endpoint: &Endpoint,
    mut link: Link,
    state: &watch::Sender<State>,
    heard: &mut watch::Receiver<Instant>,
) -> Lost {
    let mut connected = Instant::now();
    state.send_replace(State::Connected(link.clone()));
    loop {
        tokio::select! {
            lost = link.closed() => return lost,
            Ok(()) = heard.changed() => {}
        }
        if *heard.borrow_and_update() <= connected {
            continue;
        }
        match endpoint.connect_within(link.address(), Protocol::Serve, FIRST_WAIT).await {
            Ok(new) => {
                (link, connected) = (new, Instant::now());
                state.send_replace(State::Connected(link.clone()));
            }
            Err(error) => debug!(%error, "worker not reached anew"),
        }
    }
}
