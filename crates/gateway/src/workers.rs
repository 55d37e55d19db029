//! Workers: which there are, how they are, and which of them should answer.
//!
//! In:     the addresses in the settings; what the ledger lists; each worker's own word on its state, asked for again and
//!         again.
//! Out:    what a model's name stands for; the workers that serve it, least busy first.
//! Touches: the network, by one task per worker.
//! Holds:  a name stands for one immutable model id or the caller is told of the several; a pinned name is never
//!         served by another model.
//! Absent: giving orders. That is `session`.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc, Mutex, OnceLock, PoisonError, RwLock, Weak,
        atomic::{AtomicU32, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use surety_client::Connection;
use surety_net::{Endpoint, WorkerAddress};
use surety_types::{ModelId, Price, PublicKey, ServedModel, WorkerState, WorkerStatus};
use tokio::task::AbortHandle;
use tracing::{info, warn};

use crate::{
    api::{
        fields::quote,
        nearest::nearest,
        shapes::{ChannelReport, Model, ModelNote, OfferReport, WorkerModel, WorkerReport},
    },
    error::{ApiError, Code},
    payer::{Listed, PayChannel, Payer},
};

/// Digits that are enough to pin a model.
const PIN_DIGITS: std::ops::RangeInclusive<usize> = 8..=64;
/// A worker's word counts for so many status intervals.
const INTERVALS_TRUSTED: u32 = 4;
/// And at least so long, because a busy machine may take its time.
const TRUSTED_MIN: Duration = Duration::from_secs(2);
/// Names listed in a message.
const NAMES_LISTED: usize = 8;

/// The workers this gateway knows.
#[derive(Debug)]
pub(crate) struct Workers {
    /// Those of the settings first, then those that the ledger lists.
    workers: RwLock<Vec<Arc<Worker>>>,
    endpoint: Endpoint,
    interval: Duration,
    /// Who pays, if somebody does.
    payer: Option<Arc<Payer>>,
    aliases: BTreeMap<String, String>,
    /// Takes turns among equally busy workers.
    turn: AtomicUsize,
}

/// One worker.
#[derive(Debug)]
pub(crate) struct Worker {
    pub(crate) connection: Connection,
    /// Whether it is in the settings, and stays whatever the ledger lists.
    fixed: bool,
    listed: Mutex<Option<Listed>>,
    heard: Mutex<Heard>,
    trusted_for: Duration,
    /// Orders of ours that it has not finished.
    ours: AtomicU32,
    /// Asks it how it is; ends with it.
    watching: OnceLock<AbortHandle>,
}

/// A worker that could answer.
#[derive(Debug, Clone)]
pub(crate) struct Candidate {
    pub(crate) worker: Arc<Worker>,
    /// Positions that it can hold.
    pub(crate) context_tokens: u32,
    /// What it asks, and the channel it is paid on; none if it asks nothing.
    pub(crate) terms: Option<PaidTerms>,
}

/// How a worker is paid.
#[derive(Debug, Clone)]
pub(crate) struct PaidTerms {
    pub(crate) price: Price,
    pub(crate) channel: Arc<PayChannel>,
}

/// What was last heard of a worker.
#[derive(Debug, Clone, Default)]
struct Heard {
    status: Option<Arc<WorkerStatus>>,
    at: Option<Instant>,
    /// Why the last attempt to ask it failed.
    failure: Option<String>,
}

/// What a worker is fit for at the moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fitness {
    Ready,
    Starting,
    Draining,
    Unreachable,
}

/// What a name stands for.
#[derive(Debug, Clone)]
pub(crate) struct Resolved {
    pub(crate) id: ModelId,
    /// The name to answer with.
    pub(crate) name: String,
    /// Tokens it knows.
    pub(crate) vocabulary: u32,
    /// Whether it has a chat template.
    pub(crate) chat: bool,
}

/// Orders of ours at a worker, counted until dropped.
#[derive(Debug)]
pub(crate) struct Held {
    worker: Arc<Worker>,
    orders: u32,
}

impl Workers {
    /// Connects to the workers in the background, and asks them how they are, as long as this lives.
    pub(crate) fn open(
        endpoint: &Endpoint,
        addresses: Vec<WorkerAddress>,
        aliases: BTreeMap<String, String>,
        interval: Duration,
        payer: Option<Arc<Payer>>,
    ) -> Self {
        let workers = Self {
            workers: RwLock::default(),
            endpoint: endpoint.clone(),
            interval,
            payer,
            aliases,
            turn: AtomicUsize::new(0),
        };
        let fixed = addresses.into_iter().map(|address| workers.watched(address, None)).collect();
        *workers.workers.write().unwrap_or_else(PoisonError::into_inner) = fixed;
        workers
    }

    /// A worker that is asked how it is from now on.
    fn watched(&self, address: WorkerAddress, listed: Option<Listed>) -> Arc<Worker> {
        let worker = Arc::new(Worker {
            connection: Connection::open(&self.endpoint, address),
            fixed: listed.is_none(),
            listed: Mutex::new(listed),
            heard: Mutex::default(),
            trusted_for: (self.interval * INTERVALS_TRUSTED).max(TRUSTED_MIN),
            ours: AtomicU32::new(0),
            watching: OnceLock::new(),
        });
        let task = tokio::spawn(watch(Arc::downgrade(&worker), self.interval));
        // It was set nowhere else.
        let _ = worker.watching.set(task.abort_handle());
        worker
    }

    fn all(&self) -> Vec<Arc<Worker>> {
        self.workers.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Takes over what the ledger lists: new workers are called, those no longer listed are forgotten, unless they are in the
    /// settings.
    pub(crate) fn set_listed(&self, listed: Vec<Listed>) {
        let mut workers = self.workers.write().unwrap_or_else(PoisonError::into_inner);
        workers.retain(|worker| {
            let now = listed.iter().find(|listed| listed.key == worker.key());
            // One that moved is called anew, below.
            let stays =
                worker.fixed || now.is_some_and(|now| now.socket == worker.connection.address().socket);
            if stays {
                *worker.listed.lock().unwrap_or_else(PoisonError::into_inner) = now.cloned();
            }
            stays
        });
        for listed in listed {
            if workers.iter().all(|worker| worker.key() != listed.key) {
                let address = WorkerAddress { key: listed.key, socket: listed.socket };
                workers.push(self.watched(address, Some(listed)));
            }
        }
    }

    /// What `asked` stands for: a served name, an alias, `name@digits`, or an id.
    pub(crate) fn resolve(&self, asked: &str) -> Result<Resolved, ApiError> {
        let (name, pin) = match asked.split_once('@') {
            Some((name, pin)) => (name, Some(pin)),
            None => (asked, None),
        };
        let name = self.aliases.get(name).map_or(name, String::as_str);
        let digits = match pin.map(|pin| pin.strip_prefix("blake3:").unwrap_or(pin)) {
            Some(digits) if !PIN_DIGITS.contains(&digits.len()) => {
                let message = format!(
                    "`model` pins \"{}\". A pin is the first 8 to 64 digits of the model's id.",
                    quote(digits),
                );
                return Err(ApiError::invalid("model", message));
            }
            digits => digits,
        };
        // What a worker that is gone once said counts only where nobody who is here knows better.
        let statuses = self.statuses(Worker::is_reachable);
        let statuses = match Offers::of(&statuses).named(name)[..] {
            [] => self.statuses(|_| true),
            _ => statuses,
        };
        let offers = Offers::of(&statuses);
        let named = offers.named(name);
        if named.is_empty() {
            return Err(self.no_such_model(asked, &offers));
        }
        let pinned =
            |offer: &&Offer<'_>| digits.is_none_or(|digits| offer.model.id.0.to_string().starts_with(digits));
        let matching: Vec<&Offer<'_>> = named.iter().copied().filter(pinned).collect();
        match matching[..] {
            [offer] => Ok(Resolved {
                id: offer.model.id,
                name: offer
                    .names
                    .first()
                    .map_or_else(|| offer.model.id.to_string(), |name| (*name).to_owned()),
                vocabulary: offer.model.manifest.vocabulary,
                chat: offer.model.manifest.template_digest.is_some(),
            }),
            [] => {
                let message = format!(
                    "No worker serves \"{}\" under that pin; the name stands for {}. Pin that, or leave the pin out.",
                    quote(asked),
                    ids(&named),
                );
                Err(ApiError::new(Code::ModelUnknown, message).with_param("model"))
            }
            [first, ..] => {
                let message = format!(
                    "Workers serve different models as \"{name}\": {}. Pin one, e.g. \"{name}@{}\".",
                    ids(&matching),
                    &first.model.id.0.to_string()[..*PIN_DIGITS.start()],
                );
                Err(ApiError::invalid("model", message))
            }
        }
    }

    /// The workers ready to answer with a model, least busy first, and how many tokens each can hold; those that ask a
    /// price only if it is paid here.
    pub(crate) fn candidates(
        &self,
        model: &ModelId,
        only: Option<&str>,
        max_output_tokens: Option<u32>,
    ) -> Vec<Candidate> {
        let workers = self.all();
        let turn = self.turn.fetch_add(1, Ordering::Relaxed) % workers.len().max(1);
        let rotated = workers.iter().cycle().skip(turn).take(workers.len());
        let mut fit: Vec<(u32, Candidate)> = rotated
            .filter(|worker| only.is_none_or(|digits| worker.key().to_string().starts_with(digits)))
            .filter_map(|worker| {
                let (fitness, status) = worker.state();
                let status = status.filter(|_| fitness == Fitness::Ready)?;
                let served = status.models.iter().find(|served| served.id == *model)?;
                let context_tokens = served.context_tokens;
                let output = max_output_tokens.unwrap_or(context_tokens).min(context_tokens);
                let terms = self.terms(worker, served, output).ok()?;
                let candidate = Candidate { worker: Arc::clone(worker), context_tokens, terms };
                Some((worker.load(&status), candidate))
            })
            .collect();
        fit.sort_by_key(|(load, _)| *load);
        fit.into_iter().map(|(_, candidate)| candidate).collect()
    }

    /// How a worker is paid for a model; nothing if it asks nothing; or why it cannot be.
    fn terms(
        &self,
        worker: &Worker,
        served: &ServedModel,
        output_tokens: u32,
    ) -> Result<Option<PaidTerms>, &'static str> {
        let Some(listed) = worker.listed() else {
            // What it asks is due only where the ledger says the same.
            let free = served.price == Price::ZERO;
            return if free { Ok(None) } else { Err("it asks a price and the ledger does not list it yet") };
        };
        let Some(price) = listed.offers.get(&served.id).copied() else {
            return Err("its operator does not offer the model on the ledger");
        };
        if price == Price::ZERO {
            return Ok(None);
        }
        let payer = self.payer.as_ref().ok_or("this gateway pays nobody")?;
        if !payer.accepts(&price) {
            return Err("it asks more than this gateway pays");
        }
        let channel = payer.channel(&listed.operator, &price, served.context_tokens, output_tokens);
        let channel = channel.ok_or("the channel to its operator is being filled")?;
        Ok(Some(PaidTerms { price, channel }))
    }

    pub(crate) fn payer(&self) -> Option<&Arc<Payer>> {
        self.payer.as_ref()
    }

    /// Nobody is ready to answer with `model`: says why not.
    pub(crate) fn nobody(&self, model: &Resolved, only: Option<&str>) -> ApiError {
        let wanted = match only {
            Some(digits) => format!("a worker whose key begins with {digits}"),
            None => "a worker".to_owned(),
        };
        let message = format!(
            "{wanted} with \"{}\" is needed and none is ready ({}). Try again shortly; /v1/network/status shows them.",
            model.name,
            self.unpaid(model).unwrap_or_else(|| self.census()),
        );
        ApiError::new(Code::NoWorker, capitalised(message))
    }

    /// Why ready workers are not asked, if it is a matter of money.
    fn unpaid(&self, model: &Resolved) -> Option<String> {
        let reason = |worker: &Arc<Worker>| {
            let (fitness, status) = worker.state();
            let status = status.filter(|_| fitness == Fitness::Ready)?;
            let served = status.models.iter().find(|served| served.id == model.id)?;
            let why = self.terms(worker, served, served.context_tokens).err()?;
            Some(format!("{}: {why}", worker.key().short()))
        };
        let reasons: Vec<String> = self.all().iter().filter_map(reason).take(NAMES_LISTED).collect();
        (!reasons.is_empty()).then(|| reasons.join("; "))
    }

    /// Why no request could be answered at the moment, if none could.
    pub(crate) fn unready(&self) -> Result<(), ApiError> {
        let any = self.all().iter().any(|worker| {
            let (fitness, status) = worker.state();
            let payable = |served: &ServedModel| self.terms(worker, served, served.context_tokens).is_ok();
            fitness == Fitness::Ready && status.is_some_and(|status| status.models.iter().any(payable))
        });
        if any {
            return Ok(());
        }
        let message = format!("No worker with a model is ready ({}). Wait, or start one.", self.census());
        Err(ApiError::new(Code::NoWorker, message))
    }

    /// The models that can be asked for, by every name.
    pub(crate) fn models(&self, created: u64) -> Vec<Model> {
        let ready = self.statuses(|worker| worker.state().0 == Fitness::Ready);
        let ready = |id: ModelId| {
            ready.iter().filter(|status| status.models.iter().any(|model| model.id == id)).count() as u32
        };
        let statuses = self.statuses(|_| true);
        let mut models = BTreeMap::new();
        for offer in Offers::of(&statuses).0.values() {
            let aliases = self.aliases.iter().filter(|(_, target)| offer.is_named(target));
            let aliases = aliases.map(|(alias, _)| alias.as_str());
            for name in offer.names.iter().copied().chain(aliases) {
                models.insert(
                    (name.to_owned(), offer.model.id),
                    offer.describe(name, ready(offer.model.id), created),
                );
            }
        }
        models.into_values().collect()
    }

    /// How each worker is.
    pub(crate) fn report(&self) -> Vec<WorkerReport> {
        self.all().iter().map(|worker| worker.describe(self.payer.as_deref())).collect()
    }

    /// What the workers that are `wanted` last said.
    fn statuses(&self, wanted: impl Fn(&Worker) -> bool) -> Vec<Arc<WorkerStatus>> {
        self.all().iter().filter(|worker| wanted(worker)).filter_map(|worker| worker.state().1).collect()
    }

    fn no_such_model(&self, asked: &str, offers: &Offers<'_>) -> ApiError {
        // Whoever is not heard yet may well serve it.
        if let Err(unready) = self.unready() {
            return unready.with_param("model");
        }
        let names: BTreeSet<&str> = offers
            .0
            .values()
            .flat_map(|offer| offer.names.iter().copied())
            .chain(self.aliases.keys().map(String::as_str))
            .collect();
        let plain = asked.split_once('@').map_or(asked, |(name, _)| name);
        let advice = match nearest(plain, names.iter().copied()) {
            Some(near) => format!("Did you mean \"{near}\"?"),
            None => {
                let listed: Vec<&str> = names.iter().copied().take(NAMES_LISTED).collect();
                format!("There are: {}. GET /v1/models lists them all.", listed.join(", "))
            }
        };
        let message = format!("No worker serves a model \"{}\" ({}). {advice}", quote(asked), self.census());
        ApiError::new(Code::ModelUnknown, message).with_param("model")
    }

    /// The workers counted by state, in words.
    fn census(&self) -> String {
        let workers = self.all();
        if workers.is_empty() {
            return match self.payer {
                Some(_) => "the ledger lists no workers that can be used".to_owned(),
                None => "no workers are configured".to_owned(),
            };
        }
        let states: Vec<Fitness> = workers.iter().map(|worker| worker.state().0).collect();
        let parts: Vec<String> = Fitness::ALL
            .into_iter()
            .filter_map(|fitness| {
                let count = states.iter().filter(|state| **state == fitness).count();
                (count > 0).then(|| format!("{count} {}", fitness.name()))
            })
            .collect();
        format!("workers: {}", parts.join(", "))
    }
}

/// Every model that some workers serve, by id.
struct Offers<'a>(BTreeMap<ModelId, Offer<'a>>);

/// A model, under all the names that workers give it.
struct Offer<'a> {
    model: &'a ServedModel,
    names: Vec<&'a str>,
    context_tokens: u32,
}

impl<'a> Offers<'a> {
    fn of(statuses: &'a [Arc<WorkerStatus>]) -> Self {
        let mut offers: BTreeMap<ModelId, Offer<'a>> = BTreeMap::new();
        for model in statuses.iter().flat_map(|status| &status.models) {
            let offer =
                offers.entry(model.id).or_insert(Offer { model, names: Vec::new(), context_tokens: 0 });
            for name in &model.names {
                if !offer.names.contains(&name.as_str()) {
                    offer.names.push(name);
                }
            }
            offer.context_tokens = offer.context_tokens.max(model.context_tokens);
        }
        Self(offers)
    }

    /// The models that go by a name or are of an id.
    fn named(&self, name: &str) -> Vec<&Offer<'a>> {
        self.0.values().filter(|offer| offer.is_named(name)).collect()
    }
}

impl Offer<'_> {
    fn is_named(&self, name: &str) -> bool {
        self.names.contains(&name) || name.parse::<ModelId>().is_ok_and(|id| id == self.model.id)
    }

    fn describe(&self, name: &str, workers_ready: u32, created: u64) -> Model {
        let manifest = &self.model.manifest;
        Model {
            id: name.to_owned(),
            object: "model",
            created,
            owned_by: "surety",
            context_length: self.context_tokens,
            surety: ModelNote {
                id: self.model.id.to_string(),
                architecture: manifest.architecture.clone(),
                file_bytes: manifest.files.iter().map(|file| file.bytes).sum(),
                formats: manifest.formats.iter().map(|format| format.name.clone()).collect(),
                vocabulary: manifest.vocabulary,
                chat: manifest.template_digest.is_some(),
                workers_ready,
            },
        }
    }
}

impl Fitness {
    const ALL: [Fitness; 4] = [Fitness::Ready, Fitness::Starting, Fitness::Draining, Fitness::Unreachable];

    fn name(self) -> &'static str {
        match self {
            Fitness::Ready => "ready",
            Fitness::Starting => "starting",
            Fitness::Draining => "draining",
            Fitness::Unreachable => "unreachable",
        }
    }
}

impl Worker {
    pub(crate) fn key(&self) -> PublicKey {
        self.connection.worker()
    }

    /// What the ledger says of it.
    fn listed(&self) -> Option<Listed> {
        self.listed.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Counts orders of ours.
    pub(crate) fn hold(self: &Arc<Self>, orders: u32) -> Held {
        self.ours.fetch_add(orders, Ordering::Relaxed);
        Held { worker: Arc::clone(self), orders }
    }

    /// An order could not be brought to it: until it is heard again it gets no more.
    pub(crate) fn lost(&self, failure: String) {
        let mut heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        heard.at = None;
        heard.failure = Some(failure);
    }

    fn is_reachable(&self) -> bool {
        self.state().0 != Fitness::Unreachable
    }

    fn heard(&self) -> Heard {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn state(&self) -> (Fitness, Option<Arc<WorkerStatus>>) {
        let heard = self.heard();
        let recent = heard.at.is_some_and(|at| at.elapsed() <= self.trusted_for);
        let fitness = match heard.status.as_ref().filter(|_| recent).map(|status| status.state) {
            Some(WorkerState::Ready) => Fitness::Ready,
            Some(WorkerState::Starting) => Fitness::Starting,
            Some(WorkerState::Draining) => Fitness::Draining,
            None => Fitness::Unreachable,
        };
        (fitness, heard.status)
    }

    /// How busy it is: by its own count, or ours where that is newer and greater.
    fn load(&self, status: &WorkerStatus) -> u32 {
        let theirs = status.active_requests.saturating_add(status.waiting_requests);
        theirs.max(self.ours.load(Ordering::Relaxed))
    }

    fn describe(&self, payer: Option<&Payer>) -> WorkerReport {
        let heard = self.heard();
        let listed = self.listed();
        let channel = listed.as_ref().zip(payer).and_then(|(listed, payer)| payer.state(&listed.operator));
        let (fitness, status) = self.state();
        let models = status.iter().flat_map(|status| &status.models).map(|model| WorkerModel {
            id: model.id.to_string(),
            names: model.names.clone(),
            context_tokens: model.context_tokens,
            prefill_tokens_per_second: model.prefill_tokens_per_second,
            decode_tokens_per_second: model.decode_tokens_per_second,
        });
        WorkerReport {
            id: self.key().to_string(),
            address: self.connection.address().socket.to_string(),
            state: fitness.name(),
            reason: (fitness == Fitness::Unreachable)
                .then(|| heard.failure.unwrap_or_else(|| "it has not said anything lately".to_owned())),
            software: status.as_ref().map(|status| status.software.to_string()),
            active_requests: status.as_ref().map_or(0, |status| status.active_requests),
            waiting_requests: status.as_ref().map_or(0, |status| status.waiting_requests),
            last_seen_ms: heard.at.map(|at| at.elapsed().as_millis() as u64),
            models: models.collect(),
            operator: listed.as_ref().map(|listed| listed.operator.to_string()),
            offers: listed.iter().flat_map(|listed| listed.offers.iter()).map(OfferReport::new).collect(),
            channel: channel.map(ChannelReport::new),
        }
    }

    fn hear(&self, result: Result<WorkerStatus, String>) {
        let before = self.state().0;
        let failure = {
            let mut heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
            match result {
                Ok(status) => {
                    *heard =
                        Heard { status: Some(Arc::new(status)), at: Some(Instant::now()), failure: None };
                }
                Err(failure) => {
                    heard.failure = Some(failure);
                    heard.at = None;
                }
            }
            heard.failure.clone()
        };
        let after = self.state().0;
        if before != after {
            let worker = self.key().short();
            match failure {
                None => info!(worker, state = after.name(), "worker"),
                Some(failure) => warn!(worker, state = after.name(), failure, "worker"),
            }
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.worker.ours.fetch_sub(self.orders, Ordering::Relaxed);
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        if let Some(watching) = self.watching.get() {
            watching.abort();
        }
    }
}

/// Asks a worker how it is, again and again, as long as somebody knows it.
async fn watch(worker: Weak<Worker>, interval: Duration) {
    let mut ticks = tokio::time::interval(interval);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let Some((connection, patience)) =
            worker.upgrade().map(|worker| (worker.connection.clone(), worker.trusted_for))
        else {
            return;
        };
        let result = match tokio::time::timeout(patience, connection.status()).await {
            Ok(Ok(status)) => Ok(status),
            Ok(Err(error)) => Err(chain(&error)),
            Err(_) => Err(format!("no answer within {} ms", patience.as_millis())),
        };
        match worker.upgrade() {
            Some(worker) => worker.hear(result),
            None => return,
        }
    }
}

/// An error and its causes, in one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

fn ids(offers: &[&Offer<'_>]) -> String {
    let ids: Vec<String> = offers.iter().take(NAMES_LISTED).map(|offer| offer.model.id.to_string()).collect();
    ids.join(", ")
}

fn capitalised(mut text: String) -> String {
    if let Some(first) = text.get_mut(..1) {
        first.make_ascii_uppercase();
    }
    text
}
