//! Serving: a worker's life, from its first self-test to its last receipt.
//!
//! In:     settings; orders, questions for its status and for its files, over `net`.
//! Out:    signed acceptances, answers, receipts; statuses; pieces of files.
//! Touches: its endpoint, its models' threads, the cache of packed weights.
//! Holds:  no order is taken before the golden vectors agree, the models are loaded and the ledger, if there is one, names
//!         the worker; every order that could be
//!         read ends in a signed receipt, also at shutdown; a model's thread that dies is reported, so that
//!         whoever runs the worker can start it anew.
//! Absent: HTTP, and anything OpenAI. That is the gateway's.

mod admission;
mod computed;
mod engine;
mod lanes;
mod lie;
mod sequences;
mod session;
mod upstream;

use std::{
    collections::BTreeMap,
    future::pending,
    net::SocketAddr,
    num::NonZeroUsize,
    path::PathBuf,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use surety_blobs::{HoldLimits, View, hold};
use surety_engine::{Model, SchedulerLimits};
use surety_kernels::{Backend, Executor, ExecutorError, GoldenMismatch, PAGE_POSITIONS, golden};
use surety_net::{
    BindError, BindOptions, Endpoint, Incoming, ListenLimits, Listener, RelayAddress, RelayError,
    WorkerAddress,
};
use surety_types::{
    Digest, FailureCode, Manifest, ModelId, PublicKey, Region, SecretKey, Text, WorkerState, WorkerStatus,
    channel::cover_wei, order::MAX_OUTPUT_TOKENS, request::MAX_PROMPT_TOKENS,
};
use thiserror::Error;
use tokio::{
    sync::{Mutex, Semaphore, mpsc, oneshot, watch},
    task::{JoinHandle, JoinSet},
    time::{sleep, timeout},
};

use self::{
    admission::Refusal,
    computed::Computed,
    engine::{Engine, Gauges},
    lanes::Lanes,
    sequences::Sequences,
};
pub use self::{
    lie::{LIES, Lie, UnknownLie},
    upstream::{Extra, UnknownExtra, UpstreamError, UpstreamKey, UpstreamSettings},
};
use crate::{
    audit::{self, Desk, Means, Trickle},
    dispute::{Defended, DisputeDuty},
    load::{Loader, ModelFile, OpenError},
    machine,
    money::{
        self, BookError, Duties, Duty, Earnings, Hosted, Hosts, Problem, Registration, Till, WorkerLedger,
    },
    progress::Progress,
    receipt::SOFTWARE,
};

/// Orders that one model has accepted and not answered yet, at most.
const PLACES: u32 = 256;
/// Sequences of one model computed side by side, at most.
const RUNNING_MAX: u32 = 64;
/// Rows of one step, at most.
const TOKENS_PER_STEP: u32 = 512;
/// Memory for keys and values where the system does not say how much there is.
const KV_BYTES_UNKNOWN: u64 = 2 << 30;
/// A context window shorter than this, if the model has it, is not worth serving.
const CONTEXT_TOKENS_MIN: u32 = 256;
/// How often a worker that shuts down looks whether its last orders are done.
const QUIET_INTERVAL: Duration = Duration::from_millis(20);
/// Between two answers of its own that a worker computes again.
const TRICKLE_INTERVAL: Duration = Duration::from_secs(300);
/// How long the receipts of orders that were broken off may take to be sent.
const FAREWELL: Duration = Duration::from_secs(2);

/// Everything a worker is told.
pub struct WorkerSettings {
    /// Its identity: names it on the network and signs its receipts.
    pub key: SecretKey,
    /// Where it listens.
    pub listen: SocketAddr,
    /// Relays at which it may be found, where nobody can call it: the first that takes it on. None: it is called directly.
    pub relays: Vec<RelayAddress>,
    /// Whether it takes no orders until it is told to ([`Control::resume`]).
    pub paused: bool,
    /// What it computes; at least one, unless it fronts something.
    pub models: Vec<ModelSettings>,
    /// What it has others compute.
    pub upstreams: Vec<UpstreamSettings>,
    /// The folder for packed weights; without one they are packed in memory at each start.
    pub cache: Option<PathBuf>,
    /// The kernels to use; detected if not given.
    pub backend: Option<Backend>,
    /// Threads that compute; one per core if not given.
    pub threads: Option<NonZeroUsize>,
    /// Positions of a sequence, at most; the model's own number, or what memory allows, if not given.
    pub context_tokens: Option<u32>,
    /// Memory for keys and values, of all models together; half of what is free if not given.
    pub kv_bytes: Option<u64>,
    /// Where it says that it is.
    pub region: Option<Region>,
    /// How it is registered and paid; without this it serves for nothing, and the ledger knows nothing of it.
    pub ledger: Option<WorkerLedger>,
    /// Which files it gives to those who ask for them by digest; without this, none.
    pub sharing: Option<Sharing>,
    /// How it deceives, if it is to show that it is caught.
    pub lie: Option<Lie>,
}

/// What a worker gives of its files, over connections that take none of the orders' places.
pub struct Sharing {
    /// The files.
    pub view: View,
    /// How much at once.
    pub limits: HoldLimits,
}

/// One model of a worker.
#[derive(Clone, Debug)]
pub struct ModelSettings {
    /// What it is called here.
    pub name: String,
    /// Its bytes.
    pub file: ModelFile,
}

/// Why a worker does not start.
#[derive(Debug, Error)]
pub enum StartError {
    /// Nothing to serve.
    #[error("a worker needs at least one model")]
    NoModels,
    /// The self-test failed.
    #[error("this machine computes other numbers than the specification; it must not serve")]
    Golden(#[source] GoldenMismatch),
    /// The kernels cannot run here.
    #[error("cannot start the compute threads")]
    Executor(#[source] ExecutorError),
    /// The address cannot be had.
    #[error("cannot listen on {listen}")]
    Bind {
        /// The address.
        listen: SocketAddr,
        /// Why not.
        #[source]
        source: BindError,
    },
    /// The relay is of no use.
    #[error("the worker cannot be reached")]
    Relay(#[from] RelayError),
    /// A model cannot be loaded.
    #[error("model {name} cannot be served")]
    Model {
        /// Its name.
        name: String,
        /// Why not.
        #[source]
        source: OpenError,
    },
    /// An upstream cannot be fronted.
    #[error("model {name} cannot be served by its upstream")]
    Upstream {
        /// Its name.
        name: String,
        /// Why not.
        #[source]
        source: UpstreamError,
    },
    /// Nobody is paid for what nobody can prove false (D-2.1).
    #[error("an upstream's answers cannot be disputed, so a worker on the ledger does not front one")]
    UpstreamOnLedger,
    /// Not even one sequence's keys and values fit.
    #[error("model {name} needs {needed_bytes} bytes for keys and values; {there_bytes} are set aside")]
    NoRoom {
        /// Its name.
        name: String,
        /// For the shortest sequence worth serving.
        needed_bytes: u64,
        /// What there is.
        there_bytes: u64,
    },
    /// The book of channels and receipts cannot be had.
    #[error("the worker's book cannot be opened")]
    Book(#[source] BookError),
    /// The price is beyond what can be reckoned with.
    #[error("the price is too high to be reckoned with")]
    Price,
    /// The memory for keys and values, or the thread, was refused.
    #[error("cannot start the scheduler of model {name}")]
    Scheduler {
        /// The model.
        name: String,
        /// Why not.
        #[source]
        source: sequences::ThreadError,
    },
}

impl StartError {
    /// What the person can do about it, if anything.
    pub fn hint(&self) -> Option<String> {
        Some(match self {
            Self::NoModels => "name one with --model".into(),
            Self::Golden(_) => {
                "this points at faulty memory, an overclocked processor or a miscompiled program; `surety doctor` repeats the test for each backend"
                    .into()
            }
            Self::Bind { .. } => "choose another port with --listen, or 0 for any".into(),
            Self::Relay(_) => "check the relay's address and that it runs (`surety relay run`), or name another with --relay".into(),
            Self::Model { source, .. } => return source.hint(),
            Self::Upstream { source, .. } => return source.hint(),
            Self::UpstreamOnLedger => {
                "run another worker without --genesis for the upstream, and name it to gateways by its address".into()
            }
            Self::Book(error) => error.hint().into(),
            Self::Price => "prices are micro-credits per million tokens; ask less".into(),
            Self::NoRoom { .. } | Self::Scheduler { .. } => {
                "free memory, serve fewer models, or choose a smaller --context".into()
            }
            Self::Executor(_) => return None,
        })
    }
}

/// A model that is being served.
pub struct Served {
    /// Its identity.
    pub id: ModelId,
    /// What it is called here.
    pub names: Vec<String>,
    /// The file it was loaded from; none if an upstream has it.
    pub file: Option<ModelFile>,
    /// Positions of a sequence, at most.
    pub context_tokens: u32,
}

/// A worker at work. Dropped, it is cut off; [`RunningWorker::shutdown`] ends it in order.
pub struct RunningWorker {
    endpoint: Endpoint,
    shared: Arc<Shared>,
    accepting: Option<JoinHandle<JoinSet<()>>>,
    /// Aborted when dropped.
    holding: JoinSet<()>,
    /// The audits and the trickle; aborted when dropped.
    _tasks: JoinSet<()>,
    failures: mpsc::UnboundedReceiver<String>,
    duty: Option<Duty>,
}

/// Steers a worker at work, from any task.
#[derive(Clone)]
pub struct Control {
    endpoint: Endpoint,
    shared: Arc<Shared>,
}

/// A model as its sessions see it.
struct ServedModel {
    /// As which it is served.
    manifest: Manifest,
    names: Vec<String>,
    context_tokens: u32,
    engine: Box<dyn Engine>,
    /// What is on this machine, if it is.
    own: Option<Own>,
}

/// A model that is on this machine.
struct Own {
    file: ModelFile,
    model: Arc<Model>,
}

/// What a worker takes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Nothing yet.
    Starting,
    /// Orders.
    Ready,
    /// No new orders.
    Draining,
    /// Nothing: what is left is broken off.
    Stopping,
}

/// What all sessions share.
struct Shared {
    key: SecretKey,
    models: OnceLock<BTreeMap<ModelId, Arc<ServedModel>>>,
    phase: watch::Sender<Phase>,
    /// Whether new orders are refused for a while.
    paused: AtomicBool,
    tokenising: Semaphore,
    till: Option<Arc<Till>>,
    region: Option<Region>,
    lie: Option<Lie>,
    trickle: Trickle,
    lanes: Lanes,
}

/// Starts a worker: self-test, endpoint, models. It answers questions for its status from the second on.
pub async fn start(
    settings: WorkerSettings,
    mut report: impl FnMut(Progress) + Send + 'static,
) -> Result<RunningWorker, StartError> {
    let WorkerSettings {
        key,
        listen,
        relays,
        paused,
        models,
        upstreams,
        cache,
        backend,
        threads,
        context_tokens,
        kv_bytes,
        region,
        ledger,
        sharing,
        lie,
    } = settings;
    let for_defence = lie.clone();
    if let Some(lie) = &lie {
        tracing::warn!("this worker lies on purpose: {lie}");
    }
    if models.is_empty() && upstreams.is_empty() {
        return Err(StartError::NoModels);
    }
    if ledger.is_some() && !upstreams.is_empty() {
        return Err(StartError::UpstreamOnLedger);
    }
    let mut fronted = Vec::new();
    for settings in upstreams {
        let name = settings.name.clone();
        fronted
            .push(upstream::front(settings).await.map_err(|source| StartError::Upstream { name, source })?);
    }
    let till = match &ledger {
        Some(ledger) => {
            // An answer to the longest of prompts still costs an amount.
            let most = MAX_PROMPT_TOKENS as u32;
            cover_wei(&ledger.price, most, MAX_OUTPUT_TOKENS).ok_or(StartError::Price)?;
            Some(money::open_till(ledger).map_err(StartError::Book)?)
        }
        None => None,
    };
    let backend = backend.unwrap_or_else(Backend::detect);
    let threads = threads.unwrap_or_else(machine::cores);
    let executor = blocking(move || {
        golden::check(backend).map_err(StartError::Golden)?;
        Executor::new(backend, threads).map_err(StartError::Executor)
    });
    let executor = Arc::new(executor.await?);
    let endpoint = open_endpoint(&key, listen, &relays).await?;
    let shared = Arc::new(Shared {
        key,
        models: OnceLock::new(),
        phase: watch::Sender::new(Phase::Starting),
        paused: AtomicBool::new(paused),
        tokenising: Semaphore::new(machine::cores().get()),
        till: till.clone(),
        region,
        lie: lie.clone(),
        trickle: Trickle::default(),
        lanes: Lanes::default(),
    });
    let (listener, mut holding, mut hosts) = (ListenLimits::default(), JoinSet::new(), None);
    let listener = match sharing {
        None => endpoint.listen(listener),
        Some(Sharing { view, limits }) => {
            let (listener, blobs) = endpoint.listen_with_blobs(listener, ListenLimits::default());
            let view = Arc::new(view);
            hosts = Some(Hosts { view: view.clone(), endpoint: endpoint.clone() });
            holding.spawn(hold(blobs, endpoint.key(), view.clone(), limits));
            // Each is read once, now, rather than when the first stranger asks.
            let files: Vec<Digest> = models.iter().map(|model| model.file.blake3).collect();
            holding.spawn_blocking(move || read_once(&view, &files));
            listener
        }
    };
    let accepting = tokio::spawn(accept(listener, shared.clone()));
    let (obituary, failures) = mpsc::unbounded_channel();
    let (for_audits, of_trickle) = (executor.clone(), obituary.clone());
    let for_traces = cache.clone().unwrap_or_else(std::env::temp_dir);
    let loading = blocking(move || {
        let room =
            kv_bytes.unwrap_or_else(|| machine::available_memory_bytes().map_or(KV_BYTES_UNKNOWN, |b| b / 2));
        let room = room / models.len().max(1) as u64;
        let mut served: BTreeMap<ModelId, ServedModel> = BTreeMap::new();
        let loader = Loader { cache: cache.as_deref(), context_tokens, executor: &executor };
        for ModelSettings { name, file } in models {
            // One file under several names is one model.
            let is_same = |model: &&mut ServedModel| {
                model.own.as_ref().is_some_and(|own| own.file.blake3 == file.blake3)
            };
            if let Some(same) = served.values_mut().find(is_same) {
                same.names.push(name);
                continue;
            }
            let model = loader
                .load(&file, &mut report)
                .map_err(|source| StartError::Model { name: name.clone(), source })?;
            let limits = limits(&name, &model, room)?;
            let manifest = match &lie {
                Some(Lie::Model(manifest)) => (**manifest).clone(),
                _ => model.manifest().clone(),
            };
            let (id, model) = (manifest.id(), Arc::new(model));
            let sequences =
                Sequences::start(&name, model.clone(), executor.clone(), limits, obituary.clone())
                    .map_err(|source| StartError::Scheduler { name: name.clone(), source })?;
            let context_tokens = limits.context_tokens;
            tracing::info!(name, model = %id, context_tokens, "serving");
            let names = vec![name];
            let engine =
                Box::new(Computed { model: model.clone(), context_tokens, sequences, lie: lie.clone() });
            let own = Some(Own { file, model });
            served.insert(id, ServedModel { manifest, names, context_tokens, engine, own });
        }
        for (name, engine) in fronted {
            let (manifest, context_tokens) = (engine.manifest(), engine.context_tokens());
            let id = manifest.id();
            tracing::info!(name, model = %id, context_tokens, "serving what an upstream computes");
            let engine: Box<dyn Engine> = Box::new(engine);
            served.insert(id, ServedModel { manifest, names: vec![name], context_tokens, engine, own: None });
        }
        Ok(served.into_iter().map(|(id, model)| (id, Arc::new(model))).collect())
    });
    match loading.await {
        Ok(models) => shared.models.get_or_init(|| models),
        Err(error) => {
            accepting.abort();
            endpoint.close().await;
            return Err(error);
        }
    };
    let ready = {
        let shared = shared.clone();
        move || {
            shared.phase.send_if_modified(|phase| {
                let starting = *phase == Phase::Starting;
                if starting {
                    *phase = Phase::Ready;
                }
                starting
            });
        }
    };
    let mut tasks = JoinSet::new();
    tasks.spawn(trickle(shared.clone(), backend, of_trickle));
    let duty = match (ledger, till) {
        (Some(ledger), Some(till)) => {
            let models = shared.own().map(|(_, own)| (own.model.id(), own.model.clone()));
            let (serving, key) = (shared.clone(), shared.worker());
            let (contests, contested) = mpsc::unbounded_channel();
            let means = Means {
                till: till.clone(),
                endpoint: endpoint.clone(),
                key,
                models: models.collect(),
                executor: for_audits,
                busy: Arc::new(move || serving.is_busy()),
                contests,
            };
            let defended = |(served, own): (&Arc<ServedModel>, &Own)| {
                let (manifest, file) = (served.manifest.clone(), own.file.clone());
                (manifest.id(), Defended { manifest, model: own.model.clone(), file })
            };
            let disputes = DisputeDuty {
                account: ledger.account.clone(),
                till: till.clone(),
                key,
                models: shared.own().map(defended).collect(),
                lie: for_defence,
                folder: for_traces,
                turn: Mutex::new(()),
                contested: Mutex::new(contested),
            };
            let registered = |served: &Arc<ServedModel>| {
                (served.manifest.id(), served.manifest.clone(), served.names.clone())
            };
            let registration = Registration {
                key: shared.key.clone(),
                endpoint: ledger.endpoint.unwrap_or_else(|| endpoint.address().location),
                models: shared.models().map(registered).collect(),
            };
            let duty = Duty::start(ledger, till, registration, hosts, ready);
            let mut state = duty.state();
            tasks.spawn(async move {
                // An error means that the duties have ended, and the worker with them.
                if state.wait_for(|state| state.registered).await.is_ok() {
                    tokio::join!(Desk::new(means).run(), disputes.run());
                }
            });
            Some(duty)
        }
        _ => {
            ready();
            None
        }
    };
    Ok(RunningWorker { endpoint, shared, accepting: Some(accepting), holding, _tasks: tasks, failures, duty })
}

impl RunningWorker {
    /// Where it can be reached, and by which key.
    pub fn address(&self) -> WorkerAddress {
        self.endpoint.address()
    }

    /// What it serves.
    pub fn models(&self) -> Vec<Served> {
        let served = |model: &Arc<ServedModel>| Served {
            id: model.manifest.id(),
            names: model.names.clone(),
            file: model.own.as_ref().map(|own| own.file.clone()),
            context_tokens: model.context_tokens,
        };
        self.shared.models().map(served).collect()
    }

    /// How its dealings with the ledger stand, as they change; none without a ledger.
    pub fn duties(&self) -> Option<watch::Receiver<Duties>> {
        self.duty.as_ref().map(Duty::state)
    }

    /// How it stands with the models that are hosted, or might be, as that changes; none without a ledger.
    pub fn hosted(&self) -> Option<watch::Receiver<Vec<Hosted>>> {
        self.duty.as_ref().map(Duty::hosted)
    }

    /// Resolves, with the model's name, if a model can no longer be computed: only a new start helps then.
    pub async fn failed(&mut self) -> String {
        match self.failures.recv().await {
            Some(name) => name,
            None => pending().await,
        }
    }

    /// What steers it.
    pub fn control(&self) -> Control {
        Control { endpoint: self.endpoint.clone(), shared: self.shared.clone() }
    }

    /// As [`RunningWorker::shutdown`], and takes the worker off the ledger: its key never serves again. Says why it is
    /// still there, if it is.
    pub async fn retire(mut self, grace: Duration) -> Option<Problem> {
        self.close(grace).await;
        match self.duty.take() {
            Some(duty) => duty.leave().await,
            None => None,
        }
    }

    /// Takes no more orders, lets those it has finish for `grace`, signs off the rest, and closes.
    pub async fn shutdown(mut self, grace: Duration) {
        self.close(grace).await;
        if let Some(duty) = self.duty.take() {
            duty.stop().await;
        }
    }

    async fn close(&mut self, grace: Duration) {
        self.shared.phase.send_replace(Phase::Draining);
        let quiet = async {
            while self.shared.models().any(|model| model.engine.places().taken() > 0) {
                sleep(QUIET_INTERVAL).await;
            }
        };
        if timeout(grace, quiet).await.is_err() {
            tracing::warn!("orders that are not done are broken off, with a signed receipt each");
        }
        self.shared.phase.send_replace(Phase::Stopping);
        if let Some(accepting) = self.accepting.take()
            && let Ok(mut sessions) = accepting.await
        {
            // What is left has only its receipt to send.
            let farewell = async { while sessions.join_next().await.is_some() {} };
            let _ = timeout(FAREWELL, farewell).await;
        }
        self.holding.abort_all();
        self.endpoint.close().await;
    }
}

impl Control {
    /// Refuses new orders until [`Control::resume`]; those there are go on.
    pub fn pause(&self) {
        self.shared.paused.store(true, Ordering::Relaxed);
    }

    /// Takes orders again.
    pub fn resume(&self) {
        self.shared.paused.store(false, Ordering::Relaxed);
    }

    /// Where it can be reached, and by which key.
    pub fn address(&self) -> WorkerAddress {
        self.endpoint.address()
    }

    /// What it tells gateways of itself.
    pub fn status(&self) -> WorkerStatus {
        self.shared.status()
    }

    /// Whether its relay is connected at the moment; none without one.
    pub fn relay_connected(&self) -> Option<bool> {
        self.endpoint.relay_connected()
    }

    /// What it earned, as the ledger was last seen; none if it works for nothing. Reads the disk.
    pub fn earnings(&self) -> Option<Result<Earnings, String>> {
        self.shared.till.as_ref().map(|till| money::earnings_of(till))
    }
}

impl Drop for RunningWorker {
    fn drop(&mut self) {
        if let Some(accepting) = &self.accepting {
            accepting.abort();
        }
    }
}

impl Shared {
    fn key(&self) -> &SecretKey {
        &self.key
    }

    fn worker(&self) -> PublicKey {
        self.key.public()
    }

    fn models(&self) -> impl Iterator<Item = &Arc<ServedModel>> {
        self.models.get().into_iter().flat_map(BTreeMap::values)
    }

    /// Whether orders are being served.
    fn is_busy(&self) -> bool {
        self.models().any(|model| model.engine.places().taken() > 0)
    }

    /// Those of the models that are on this machine.
    fn own(&self) -> impl Iterator<Item = (&Arc<ServedModel>, &Own)> {
        self.models().filter_map(|served| Some((served, served.own.as_ref()?)))
    }

    /// The model an order asks for, if this worker takes orders for it.
    fn model(&self, id: ModelId) -> Result<Arc<ServedModel>, Refusal> {
        let refused = |code, message| Err(Refusal::new(code, message));
        match *self.phase.borrow() {
            Phase::Starting => {
                let message = "the worker is still loading its models, or registering on the ledger";
                return refused(FailureCode::Overloaded, message);
            }
            Phase::Draining | Phase::Stopping => {
                return refused(FailureCode::Leaving, "the worker is shutting down");
            }
            Phase::Ready => {}
        }
        if self.paused.load(Ordering::Relaxed) {
            return refused(FailureCode::Leaving, "the worker is paused by its operator");
        }
        self.models.get().and_then(|models| models.get(&id)).cloned().ok_or_else(|| {
            Refusal::new(FailureCode::ModelUnknown, format!("this worker does not serve {id}"))
        })
    }

    /// Resolves when everything is to be broken off.
    async fn stopping(&self) {
        // An error means that the sender is gone, and with it the worker.
        let _ = self.phase.subscribe().wait_for(|phase| *phase == Phase::Stopping).await;
    }

    fn status(&self) -> WorkerStatus {
        let served = |model: &Arc<ServedModel>| surety_types::ServedModel {
            id: model.manifest.id(),
            names: model.names.clone(),
            manifest: model.manifest.clone(),
            context_tokens: model.context_tokens,
            prefill_tokens_per_second: model.engine.gauges().prefill_tokens_per_second(),
            decode_tokens_per_second: model.engine.gauges().decode_tokens_per_second(),
            price: self.till.as_ref().map_or(surety_types::Price::ZERO, |till| till.price()),
            calls: model.engine.calls(),
            vectors: model.engine.vectors(),
            batch_price: self.till.as_ref().and_then(|till| till.batch_price()),
        };
        let sum = |count: fn(&Gauges) -> u32| self.models().map(|model| count(model.engine.gauges())).sum();
        WorkerStatus {
            worker: self.worker(),
            software: Text::clipped(SOFTWARE),
            state: match *self.phase.borrow() {
                Phase::Starting => WorkerState::Starting,
                Phase::Ready if self.paused.load(Ordering::Relaxed) => WorkerState::Draining,
                Phase::Ready => WorkerState::Ready,
                Phase::Draining | Phase::Stopping => WorkerState::Draining,
            },
            active_requests: sum(Gauges::running),
            waiting_requests: sum(Gauges::waiting),
            models: self.models().map(served).collect(),
            region: self.region.clone(),
        }
    }
}

/// Computes own answers again, one now and then while nothing is served. If one comes out otherwise the worker takes no
/// more orders, and says whose model it was: it computes wrongly, or its memory does not keep what is put there.
async fn trickle(shared: Arc<Shared>, backend: Backend, failed: mpsc::UnboundedSender<String>) {
    loop {
        sleep(TRICKLE_INTERVAL).await;
        if shared.is_busy() {
            continue;
        }
        let Some((id, case)) = shared.trickle.take() else { continue };
        let Some(served) = shared.models.get().and_then(|models| models.get(&id)).cloned() else { continue };
        let Some(own) = &served.own else { continue };
        let (model, serving) = (own.model.clone(), shared.clone());
        let wait = move || {
            while serving.is_busy() && *serving.phase.borrow() == Phase::Ready {
                std::thread::sleep(QUIET_INTERVAL);
            }
        };
        let (told, result) = oneshot::channel();
        let run = move || drop(told.send(audit::compute_again(&model, backend, case, wait)));
        if std::thread::Builder::new().name("trickle".into()).spawn(run).is_err() {
            continue;
        }
        if let Ok(Err(problem)) = result.await {
            tracing::error!(
                model = %id,
                %problem,
                "an answer of this worker's own came out otherwise when it was computed again: faulty memory, an \
                 overclocked processor or a damaged model file; it takes no more orders"
            );
            shared.phase.send_if_modified(|phase| {
                let ready = *phase == Phase::Ready;
                if ready {
                    *phase = Phase::Draining;
                }
                ready
            });
            let name = served.names.first().cloned().unwrap_or_default();
            let _ = failed.send(name);
            return;
        }
    }
}

/// The worker's endpoint, at the first relay that takes it on if it is to be at one.
async fn open_endpoint(
    key: &SecretKey,
    listen: SocketAddr,
    relays: &[RelayAddress],
) -> Result<Endpoint, StartError> {
    let mut refused = None;
    for relay in relays.iter().map(Some).chain(relays.is_empty().then_some(None)) {
        let options = BindOptions { key: key.clone(), listen };
        let endpoint = Endpoint::bind(options).await.map_err(|source| StartError::Bind { listen, source })?;
        let Some(relay) = relay else { return Ok(endpoint) };
        match endpoint.behind(*relay).await {
            Ok(endpoint) => return Ok(endpoint),
            Err(error) => {
                tracing::warn!(%error, "a relay is of no use");
                refused = Some(error);
            }
        }
    }
    Err(refused.expect("a relay was tried").into())
}

/// Takes streams until everything is to stop; returns the sessions still open.
async fn accept(mut listener: Listener, shared: Arc<Shared>) -> JoinSet<()> {
    let mut sessions = JoinSet::new();
    loop {
        tokio::select! {
            incoming = listener.accept() => match incoming {
                Some(Incoming::Order(stream)) => {
                    sessions.spawn(session::serve(shared.clone(), stream));
                }
                Some(Incoming::Status(stream)) => {
                    let status = shared.status();
                    sessions.spawn(async move {
                        if let Err(error) = stream.reply(&status).await {
                            tracing::debug!(%error, "a status was not delivered");
                        }
                    });
                }
                Some(Incoming::Audit(stream)) => {
                    sessions.spawn(audit::give(shared.till.clone(), stream));
                }
                Some(Incoming::Log(stream)) => {
                    sessions.spawn(money::show(shared.till.clone(), stream));
                }
                None => return sessions,
            },
            Some(ended) = sessions.join_next() => {
                if let Err(error) = ended {
                    tracing::error!(%error, "a session failed");
                }
            }
            () = shared.stopping() => return sessions,
        }
    }
}

/// Makes the trees of these files, so that whoever asks first need not wait.
fn read_once(view: &View, files: &[Digest]) {
    for digest in files {
        if let Err(error) = view.tree(*digest, &mut |_, _| {}) {
            tracing::warn!(%error, "a model's file is not given to others");
        }
    }
}

/// How much of a model's context can be served with this much memory, and how many sequences at once.
fn limits(name: &str, model: &Model, room: u64) -> Result<SchedulerLimits, StartError> {
    let page_bytes = model.kv_page_bytes() as u64;
    let pages_there = u32::try_from(room / page_bytes).unwrap_or(u32::MAX);
    let wanted = model.context_tokens();
    let positions_there = pages_there.saturating_mul(PAGE_POSITIONS as u32);
    let context_tokens = wanted.min(positions_there);
    if context_tokens < wanted.min(CONTEXT_TOKENS_MIN) {
        let needed_bytes = u64::from(CONTEXT_TOKENS_MIN / PAGE_POSITIONS as u32) * page_bytes;
        return Err(StartError::NoRoom { name: name.to_owned(), needed_bytes, there_bytes: room });
    }
    if context_tokens < wanted {
        tracing::warn!(name, wanted, context_tokens, "the context window is cut to what memory allows");
    }
    let pages_useful = context_tokens.div_ceil(PAGE_POSITIONS as u32).saturating_mul(RUNNING_MAX);
    Ok(SchedulerLimits {
        kv_pages: pages_there.min(pages_useful),
        context_tokens,
        tokens_per_step: TOKENS_PER_STEP,
        running_max: RUNNING_MAX,
        waiting_max: PLACES,
    })
}

/// Runs what takes long, or blocks, beside the tasks. A panic there is one here.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(value) => value,
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}
