//! Gateway: from settings to a running gateway, and to its orderly end.
//!
//! In:     settings. Out: a bound address; whatever goes wrong at the start, with a hint.
//! Touches: the data directory, two sockets, the tasks of everything else.
//! Holds:  a gateway that has started can serve; one that stops lets running answers end, and tells those it must cut.
//! Absent: HTTP (`server`, `api`), orders (`session`).

use std::{
    collections::HashSet,
    fs::DirBuilder,
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use surety_client::Reach;
use surety_net::{BindError, BindOptions, Endpoint, Location, WorkerAddress};
use surety_types::{PublicKey, SecretKey};
use tokio::{
    net::TcpListener,
    sync::watch,
    task::{JoinHandle, JoinSet},
    time::Instant,
};
use tracing::{info, warn};

use crate::{
    api::{
        self,
        batches::{self, Batches, OpenBatchesError},
        body::Intake,
        network::Views,
        once::Once,
        responses::{self, Responses, store},
        unix_ms,
    },
    comparisons::Comparisons,
    disk::{OpenStoreError, Writer},
    downloads::Downloads,
    error::{Accountable, ApiError, Code},
    explorer::Explorer,
    id::RequestId,
    journal::{Journal, JournalBounds},
    key::{self, KeyError},
    keys::{self, Generation, Keys},
    metrics::Metrics,
    payer::{Payer, follow, see_to},
    payments::Payments,
    receipts::{Bounds, Receipts},
    route::Workers,
    server,
    settings::{GatewaySettings, SettingsError},
    streams::Streams,
    surveys::Surveys,
};

/// Why a gateway did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The settings contradict themselves.
    #[error("the settings cannot be used")]
    Settings(#[from] SettingsError),
    /// The data directory cannot be made.
    #[error("cannot make the data directory {}", path.display())]
    DataDir {
        /// The directory.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// There is no key.
    #[error("the gateway has no key")]
    Key(#[from] KeyError),
    /// There are no receipts, streams or responses.
    #[error("what was kept cannot be opened")]
    Receipts(#[from] OpenStoreError),
    /// There are no files and batches.
    #[error("the batches cannot be opened")]
    Batches(#[from] OpenBatchesError),
    /// Commands could not reach it.
    #[error("cannot make the control socket in {}", path.display())]
    Control {
        /// The data directory.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// Somebody else has the address, or it is not this machine's.
    #[error("cannot listen on {listen}")]
    Listen {
        /// The address.
        listen: SocketAddr,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// There is no payer's book.
    #[error("the payer's book cannot be opened")]
    PayerBook(#[source] OpenStoreError),
    /// There is no socket to speak to workers from.
    #[error("cannot open a socket towards the workers")]
    Endpoint(#[from] BindError),
}

impl StartError {
    /// What to do about it.
    pub fn hint(&self) -> &'static str {
        match self {
            StartError::Settings(error) => error.hint(),
            StartError::DataDir { .. } => {
                "check the path and its permissions, or name another data directory"
            }
            StartError::Key(error) => error.hint(),
            StartError::Receipts(error) => error.hint(),
            StartError::Control { .. } => {
                "check that the data directory is writable and on a file system with sockets, or name another"
            }
            StartError::PayerBook(OpenStoreError::File { .. }) => {
                "check that the data directory is writable and has room; if the file is damaged, move it away: its \
                 channels can still be withdrawn from on the ledger"
            }
            StartError::PayerBook(error) => error.hint(),
            StartError::Batches(error) => error.hint(),
            StartError::Listen { source, .. } => match source.kind() {
                io::ErrorKind::AddrInUse => "another program listens there: stop it, or choose another port",
                io::ErrorKind::PermissionDenied => "ports below 1024 need privileges: choose a higher one",
                io::ErrorKind::AddrNotAvailable => "the address is not this machine's: use 127.0.0.1",
                _ => "choose another address or port",
            },
            StartError::Endpoint(_) => "check that the system allows UDP sockets",
        }
    }
}

/// How far a gateway is on its way out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Phase {
    /// It serves.
    Open,
    /// It takes nothing new, and lets what runs end.
    Draining,
    /// What still runs is cut, and told so.
    Halted,
}

/// What every request sees.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) key: SecretKey,
    pub(crate) address: SocketAddr,
    /// Whether it serves its own machine only.
    pub(crate) loopback_only: bool,
    /// Unix seconds.
    pub(crate) started: u64,
    pub(crate) workers: Arc<Workers>,
    /// What the ledger shows of itself, if there is one.
    pub(crate) surveys: Option<Surveys>,
    /// What is on the ledger, thing by thing, if there is one.
    pub(crate) explorer: Option<Explorer>,
    pub(crate) receipts: Receipts,
    pub(crate) journal: Journal,
    pub(crate) streams: Streams,
    pub(crate) batches: Batches,
    pub(crate) comparisons: Arc<Comparisons>,
    pub(crate) responses: Responses,
    pub(crate) downloads: Arc<Downloads>,
    pub(crate) keys: Arc<Keys>,
    /// What whoever shows no key pays with, where they may.
    pub(crate) payments: Option<Arc<Payments>>,
    pub(crate) once: Arc<Once>,
    pub(crate) intake: Intake,
    pub(crate) active: Arc<ActiveSet>,
    pub(crate) metrics: Arc<Metrics>,
    /// What pages look at.
    pub(crate) views: Views,
    pub(crate) answer_timeout: Duration,
    pub(crate) stall_timeout: Duration,
    pub(crate) search_timeout: Duration,
    pub(crate) keep_alive: Duration,
    requests_max: usize,
    phase: watch::Receiver<Phase>,
}

/// The requests being answered.
#[derive(Debug, Default)]
pub(crate) struct ActiveSet(Mutex<HashSet<RequestId>>);

/// A request being answered, until dropped.
#[derive(Debug)]
pub(crate) struct Active {
    id: RequestId,
    set: Arc<ActiveSet>,
}

impl ActiveSet {
    pub(crate) fn count(&self) -> usize {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    pub(crate) fn contains(&self, id: RequestId) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).contains(&id)
    }
}

impl Drop for Active {
    fn drop(&mut self) {
        self.set.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.id);
    }
}

impl Shared {
    /// Refuses new work once the gateway is on its way out.
    pub(crate) fn open(&self) -> Result<(), ApiError> {
        if *self.phase.borrow() == Phase::Open {
            return Ok(());
        }
        let message = "The gateway is stopping and takes no new requests. Try again shortly.";
        Err(ApiError::new(Code::GatewayStopping, message))
    }

    /// Counts a request as being answered, if there is room for one more.
    pub(crate) fn admit(&self, id: RequestId) -> Result<Active, ApiError> {
        let mut set = self.active.0.lock().unwrap_or_else(PoisonError::into_inner);
        if set.len() >= self.requests_max {
            let message = format!(
                "The gateway answers {} requests, which is all it takes at once. Try again shortly.",
                set.len(),
            );
            return Err(ApiError::new(Code::Overloaded, message).with_accountable(Accountable::Gateway));
        }
        set.insert(id);
        Ok(Active { id, set: Arc::clone(&self.active) })
    }

    /// Returns when what still runs is to be cut.
    pub(crate) async fn halted(&self) {
        // A sender that is gone has halted everything too.
        let _ = self.phase.clone().wait_for(|phase| *phase == Phase::Halted).await;
    }
}

/// Starts gateways.
#[derive(Debug)]
pub struct Gateway;

impl Gateway {
    /// Starts a gateway; when this returns it listens. Needs a Tokio runtime.
    pub async fn start(settings: GatewaySettings) -> Result<RunningGateway, StartError> {
        settings.check()?;
        let GatewaySettings {
            listen,
            open,
            require_key,
            data_dir,
            workers,
            nearby,
            ledger,
            x402,
            aliases,
            limits,
        } = settings;
        make_private(&data_dir).map_err(|source| StartError::DataDir { path: data_dir.clone(), source })?;
        let listener =
            TcpListener::bind(listen).await.map_err(|source| StartError::Listen { listen, source })?;
        let address = listener.local_addr().map_err(|source| StartError::Listen { listen, source })?;
        let key = key::load_or_create(&data_dir)?;
        let bounds = Bounds { count_max: limits.receipts_max, bytes_max: limits.receipts_bytes_max };
        let (receipts, writer) = Receipts::open(&data_dir, bounds)?;
        let (streams, stream_writer) = Streams::open(&data_dir)?;
        let (comparisons, comparison_writer) = Comparisons::open(&data_dir, limits.compare_one_in)?;
        let batches = Batches::open(&data_dir)?;
        let bounds = store::Bounds {
            count_max: limits.responses_max,
            bytes_max: limits.responses_bytes_max,
            kept_for: limits.responses_kept_for,
        };
        let (kept_responses, response_writer) = store::Store::open(&data_dir, bounds)?;
        let (keys, key_writer) =
            Keys::open(&data_dir, require_key || x402, Some(&|request| answered(&receipts, request)))?;
        let bounds = JournalBounds {
            count_max: limits.journal_max,
            bytes_max: limits.journal_bytes_max,
            age_max: limits.journal_age_max,
        };
        let (journal, journal_writer) = Journal::open(&data_dir, key.clone(), bounds)?;
        let kept = keys::Kept { journal: journal.clone(), receipts: receipts.clone() };
        let control = keys::Served::start(&data_dir, Arc::clone(&keys), kept)
            .map_err(|source| StartError::Control { path: data_dir.clone(), source })?;
        let (once, once_writer) = Once::open(&data_dir)?;
        let mut writers = vec![
            writer,
            stream_writer,
            comparison_writer,
            response_writer,
            key_writer,
            journal_writer,
            once_writer,
        ];
        let payments = match ledger.as_ref().filter(|_| x402) {
            Some(ledger) => {
                let (payments, writer) = Payments::open(
                    Arc::clone(&ledger.account),
                    Arc::clone(&keys),
                    limits.answer_timeout,
                    &data_dir,
                    &|request| answered(&receipts, request).map(|generation| generation.cost.0),
                )?;
                writers.push(writer);
                Some(payments)
            }
            None => None,
        };
        let loopback_only = address.ip().is_loopback() && !open;
        let seen = ledger.as_ref().and_then(|ledger| ledger.ledger.clone());
        let explorer = seen.clone().map(Explorer::new);
        let surveys = seen.map(|ledger| Surveys::new(ledger, loopback_only));
        let payer = match ledger {
            Some(ledger) => {
                let (payer, writer) = Payer::open(ledger, &data_dir).map_err(StartError::PayerBook)?;
                writers.push(writer);
                Some(payer)
            }
            None => None,
        };
        let towards = workers.iter().map(|worker| worker.location);
        let local = local_for(towards, payer.is_some() || nearby.is_some());
        let endpoint = Endpoint::bind(BindOptions { key: key.clone(), listen: local }).await?;
        let mut tasks = JoinSet::new();
        tasks.spawn(journal.clone().watch());
        let workers = Workers::open(
            &endpoint,
            workers,
            aliases,
            limits.status_interval,
            payer.clone(),
            Arc::clone(&comparisons),
        );
        let workers = Arc::new(workers);
        let reach = Reach { loopback: address.ip().is_loopback(), ipv6: Some(local.is_ipv6()) };
        if let Some(nearby) = nearby {
            tasks.spawn(follow_nearby(nearby, Arc::clone(&workers), reach));
        }
        if let Some(payer) = &payer {
            tasks.spawn(follow(Arc::clone(payer), Arc::clone(&workers), reach));
            tasks.spawn(see_to(Arc::clone(payer)));
        }
        if let Some(payments) = &payments {
            tasks.spawn(Arc::clone(payments).run());
        }
        let (phase, phases) = watch::channel(Phase::Open);
        let public = key.public();
        let shared = Arc::new(Shared {
            key,
            address,
            loopback_only,
            started: unix_ms() / 1000,
            workers,
            surveys,
            explorer,
            receipts,
            journal,
            streams,
            batches,
            comparisons,
            downloads: Arc::new(Downloads::new(endpoint.clone())),
            responses: Responses::new(kept_responses, limits.reader_grace),
            keys,
            payments,
            once,
            intake: Intake::new(limits.body_bytes_max, limits.bodies_bytes_max, limits.body_timeout),
            active: Arc::default(),
            metrics: Arc::default(),
            views: Views::default(),
            answer_timeout: limits.answer_timeout,
            stall_timeout: limits.stall_timeout,
            search_timeout: limits.search_timeout,
            keep_alive: limits.keep_alive,
            requests_max: limits.requests_max,
            phase: phases.clone(),
        });
        tasks.spawn(batches::run(Arc::clone(&shared)));
        // What had not ended is found by its readers from the first moment on.
        let revived = responses::unfinished(&shared);
        tasks.spawn(revived.go_on(Arc::clone(&shared)));
        let making = shared.responses.running();
        let serving = tokio::spawn(server::serve(listener, api::router(shared), limits.clone(), phases));
        info!(%address, gateway = %public, "gateway listens");
        Ok(RunningGateway {
            address,
            key: public,
            phase,
            serving: Some(serving),
            tasks,
            endpoint,
            making,
            writers,
            control: Some(control),
            payer,
            stop_grace: limits.stop_grace,
        })
    }
}

/// Takes over who is found nearby, as far as that can and should be called.
async fn follow_nearby(mut nearby: watch::Receiver<Vec<WorkerAddress>>, workers: Arc<Workers>, reach: Reach) {
    loop {
        let found = nearby.borrow_and_update().clone().into_iter();
        workers.set_nearby(found.filter(|found| reach.check(&found.location.to_string()).is_ok()).collect());
        if nearby.changed().await.is_err() {
            return;
        }
    }
}

/// What a request was charged by its receipts, if they are kept.
fn answered(receipts: &Receipts, request: RequestId) -> Option<Generation> {
    let found =
        receipts.find(request).inspect_err(|error| warn!(%error, "a receipt cannot be read")).ok()??;
    let generation = keys::of_evidence(&found);
    if generation.is_none() {
        warn!(%request, "kept evidence cannot be read: its request is charged nothing");
    }
    generation
}

/// Makes a directory for its owner only, unless it is there.
pub(crate) fn make_private(directory: &Path) -> io::Result<()> {
    let mut builder = DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    {
        use std::os::unix::fs::DirBuilderExt;
        builder.mode(0o700);
    }
    builder.create(directory)
}

/// The address to speak to workers from: loopback if all of them are there, and none is known by the ledger or the network alone. Those
/// at a relay are reached from any.
fn local_for(workers: impl Iterator<Item = Location>, anywhere: bool) -> SocketAddr {
    let workers: Vec<Location> = workers.collect();
    let loopback = !anywhere && workers.iter().all(|worker| worker.socket().ip().is_loopback());
    let ipv6 = |worker: &Location| matches!(worker, Location::Direct(SocketAddr::V6(_)));
    let ip = match (loopback, workers.iter().any(ipv6)) {
        (true, false) => IpAddr::V4(Ipv4Addr::LOCALHOST),
        (true, true) => IpAddr::V6(Ipv6Addr::LOCALHOST),
        (false, false) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        (false, true) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
    };
    SocketAddr::new(ip, 0)
}

/// A gateway that serves. Dropped, it is cut off; [`RunningGateway::stop`] ends it in order.
#[derive(Debug)]
pub struct RunningGateway {
    address: SocketAddr,
    key: PublicKey,
    phase: watch::Sender<Phase>,
    serving: Option<JoinHandle<()>>,
    tasks: JoinSet<()>,
    endpoint: Endpoint,
    /// How many responses are being made, with readers or without.
    making: watch::Receiver<usize>,
    writers: Vec<Writer>,
    /// Where commands reach the keys.
    control: Option<keys::Served>,
    payer: Option<Arc<Payer>>,
    stop_grace: Duration,
}

impl RunningGateway {
    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The key it signs with.
    pub fn key(&self) -> PublicKey {
        self.key
    }

    /// Takes nothing new, lets running answers end for as long as the settings grant, cuts the rest with an error
    /// that says so, writes what is to be kept, and returns.
    pub async fn stop(mut self) {
        self.phase.send_replace(Phase::Draining);
        let mut serving = self.serving.take().expect("it is taken here only");
        let until = Instant::now() + self.stop_grace;
        let mut ended = tokio::time::timeout_at(until, &mut serving).await.is_ok();
        let _ = tokio::time::timeout_at(until, self.making.wait_for(|making| *making == 0)).await;
        self.phase.send_replace(Phase::Halted);
        let until = Instant::now() + LAST_WORDS;
        if !ended {
            ended = tokio::time::timeout_at(until, &mut serving).await.is_ok();
        }
        let _ = tokio::time::timeout_at(until, self.making.wait_for(|making| *making == 0)).await;
        if !ended {
            warn!("connections that did not end were cut");
            serving.abort();
        }
        self.control = None;
        self.tasks.shutdown().await;
        if let Some(payer) = self.payer.take() {
            payer.stop().await;
        }
        self.endpoint.close().await;
        let writers = std::mem::take(&mut self.writers);
        // The last sender went with the last request, so the threads end when all is written.
        let joined = tokio::task::spawn_blocking(move || writers.into_iter().for_each(Writer::join));
        let _ = tokio::time::timeout(LAST_WORDS, joined).await;
        info!(address = %self.address, "gateway stopped");
    }
}

impl Drop for RunningGateway {
    fn drop(&mut self) {
        self.phase.send_replace(Phase::Halted);
        if let Some(serving) = &self.serving {
            serving.abort();
        }
    }
}

/// For clients to read that they were cut off, and for the last receipts to be written.
const LAST_WORDS: Duration = Duration::from_secs(2);
