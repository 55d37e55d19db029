//! Worker: one worker, as far as this gateway knows it.
//!
//! In:     its own word on its state, asked for again and again; what the ledger lists; outcomes of orders.
//! Out:    how it stands, for choosing and for showing.
//! Touches: the network, by one task.
//! Holds:  its word counts for a while and makes it a candidate; it is judged by what it served; who fell silent is asked
//!         how it is at once, and comes last until it says.
//! Absent: who is preferred (`choice`).

use std::{
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

use alloy_primitives::Address;
use surety_client::Connection;
use surety_net::{Endpoint, WorkerAddress};
use surety_types::{ModelId, PublicKey, WorkerState, WorkerStatus, progress::PROGRESS_IDLE_MS};
use tokio::{
    sync::Notify,
    task::AbortHandle,
    time::{sleep, timeout},
};
use tracing::{info, warn};

use super::{
    choice::Fitness,
    health::{Gate, Health, Outcome, PATIENCE_UNKNOWN},
};
use crate::{
    api::shapes::{
        ChannelReport, Measured, MeasuredModel, OfferReport, PriceReport, WorkerModel, WorkerReport,
    },
    payer::{Listed, Payer},
};

/// A worker's word counts for so many status intervals.
const INTERVALS_TRUSTED: u32 = 4;
/// And at least so long, because a busy machine may take its time.
const TRUSTED_MIN: Duration = Duration::from_secs(2);
/// Who does not answer within this is doubted: others are asked first.
const ANSWER_PATIENCE: Duration = Duration::from_millis(700);
/// And who does not within this is not there.
const STATUS_PATIENCE: Duration = Duration::from_secs(2);
/// Between two questions to a worker that is doubted, at least.
const DOUBT_PAUSE: Duration = Duration::from_millis(20);
/// How late a sign of life may be before another worker is asked beside it: so much at least …
const SILENCE_MIN: Duration = Duration::from_millis(PROGRESS_IDLE_MS + 150);
/// … and so much at most, where a worker often spoke again after that.
const SILENCE_MAX: Duration = Duration::from_secs(10);
/// What a needless question to another makes of it, in eighths; and what an answer that ended well does.
const SILENCE_RAISED: u32 = 12;
const SILENCE_LOWERED: u32 = 7;

/// One worker.
#[derive(Debug)]
pub(crate) struct Worker {
    pub(crate) connection: Connection,
    /// Whether it is in the settings, and stays whatever the ledger lists.
    fixed: bool,
    listed: Mutex<Option<Listed>>,
    heard: Mutex<Heard>,
    health: Mutex<Health>,
    trusted_for: Duration,
    /// How late a sign of life may be, in milliseconds.
    silence_ms: AtomicU32,
    /// Somebody doubts that it is there.
    doubted: Arc<Notify>,
    /// Orders of ours that it has not finished.
    ours: AtomicU32,
    /// Asks it how it is; ends with it.
    watching: OnceLock<AbortHandle>,
}

/// What was last heard of a worker.
#[derive(Debug, Clone, Default)]
struct Heard {
    status: Option<Arc<WorkerStatus>>,
    at: Option<Instant>,
    /// It fell silent since.
    doubted: bool,
    /// It has signed since that it leaves.
    leaving: bool,
    /// Why the last attempt to ask it failed.
    failure: Option<String>,
}

/// Orders of ours at a worker, counted until dropped.
#[derive(Debug)]
pub(crate) struct Held {
    worker: Arc<Worker>,
    orders: u32,
}

impl Worker {
    /// A worker that is asked how it is from now on.
    pub(super) fn watched(
        endpoint: &Endpoint,
        address: WorkerAddress,
        listed: Option<Listed>,
        interval: Duration,
    ) -> Arc<Worker> {
        let worker = Arc::new(Worker {
            connection: Connection::open(endpoint, address),
            fixed: listed.is_none(),
            listed: Mutex::new(listed),
            heard: Mutex::default(),
            health: Mutex::default(),
            trusted_for: (interval * INTERVALS_TRUSTED).max(TRUSTED_MIN),
            silence_ms: AtomicU32::new(SILENCE_MIN.as_millis() as u32),
            doubted: Arc::default(),
            ours: AtomicU32::new(0),
            watching: OnceLock::new(),
        });
        let task = tokio::spawn(watch(Arc::downgrade(&worker), Arc::clone(&worker.doubted), interval));
        // It was set nowhere else.
        let _ = worker.watching.set(task.abort_handle());
        worker
    }

    pub(crate) fn key(&self) -> PublicKey {
        self.connection.worker()
    }

    pub(super) fn is_fixed(&self) -> bool {
        self.fixed
    }

    /// What the ledger says of it.
    pub(super) fn listed(&self) -> Option<Listed> {
        lock(&self.listed).clone()
    }

    /// Who answers for it, if the ledger lists it.
    pub(super) fn operator(&self) -> Option<Address> {
        lock(&self.listed).as_ref().map(|listed| listed.operator)
    }

    /// Whether both are of one operator, as far as a ledger says; else each is its own.
    pub(crate) fn is_kin(&self, other: &Worker) -> bool {
        match (self.operator(), other.operator()) {
            (Some(own), Some(theirs)) => own == theirs,
            _ => self.key() == other.key(),
        }
    }

    pub(super) fn set_listed(&self, listed: Option<Listed>) {
        *lock(&self.listed) = listed;
    }

    /// Counts orders of ours.
    pub(crate) fn hold(self: &Arc<Self>, orders: u32) -> Held {
        self.ours.fetch_add(orders, Ordering::Relaxed);
        Held { worker: Arc::clone(self), orders }
    }

    /// Takes what came of an order while it is held.
    pub(crate) fn report(&self, outcome: Outcome) {
        if let Outcome::Finished { .. } = outcome {
            self.scale_silence(SILENCE_LOWERED);
        }
        let now = Instant::now();
        let (before, after, pause) = {
            let mut health = lock(&self.health);
            let before = health.gate(now);
            health.take(outcome, self.ours(), now);
            (before, health.gate(now), health.pause_left(now))
        };
        let worker = self.key().short();
        match (before, after) {
            (Gate::Closed, Gate::Open) => {
                let pause_ms = pause.unwrap_or_default().as_millis() as u64;
                warn!(worker, pause_ms, "a worker failed again and again and gets no orders for a while");
            }
            (Gate::Open | Gate::Paused | Gate::HalfOpen, Gate::Closed) => {
                info!(worker, "a worker serves again")
            }
            _ => {}
        }
    }

    /// An order could not be brought to it: until it is heard again it gets no more.
    pub(crate) fn lost(&self, failure: String) {
        {
            let mut heard = lock(&self.heard);
            heard.at = None;
            heard.failure = Some(failure);
        }
        self.doubted.notify_one();
    }

    /// It is silent where something was due: others are asked first until it says how it is.
    pub(crate) fn doubt(&self) {
        lock(&self.heard).doubted = true;
        self.doubted.notify_one();
    }

    /// It has signed that it leaves: it gets no more orders until it says that it serves.
    pub(crate) fn leaves(&self) {
        lock(&self.heard).leaving = true;
        self.doubted.notify_one();
    }

    /// How late a sign of life may be before another worker is asked beside it.
    pub(crate) fn silence(&self) -> Duration {
        Duration::from_millis(self.silence_ms.load(Ordering::Relaxed).into())
    }

    /// It was only slow to give a sign of life: next time it is waited for longer.
    pub(crate) fn spoke_again(&self) {
        self.scale_silence(SILENCE_RAISED);
    }

    fn scale_silence(&self, eighths: u32) {
        let bounds = (SILENCE_MIN.as_millis() as u32, SILENCE_MAX.as_millis() as u32);
        let scaled = |silence: u32| Some((silence * eighths / 8).clamp(bounds.0, bounds.1));
        // It always gives a value.
        let _ = self.silence_ms.fetch_update(Ordering::Relaxed, Ordering::Relaxed, scaled);
    }

    /// Whether it fell silent, and has not said how it is since.
    pub(super) fn is_doubted(&self) -> bool {
        lock(&self.heard).doubted
    }

    /// How long the first token after such a prompt may take before another worker had better be asked too; learned from
    /// the latest.
    pub(crate) fn first_token_patience(&self, model: &ModelId, prompt_tokens: u32) -> Duration {
        let health = lock(&self.health);
        health.speed(model).map_or(PATIENCE_UNKNOWN, |speed| speed.first_token_patience(prompt_tokens))
    }

    /// What it has shown, for as long as the guard lives.
    pub(super) fn health(&self) -> MutexGuard<'_, Health> {
        lock(&self.health)
    }

    /// Orders of ours that it has not finished.
    pub(super) fn ours(&self) -> u32 {
        self.ours.load(Ordering::Relaxed)
    }

    pub(super) fn is_reachable(&self) -> bool {
        self.state().0 != Fitness::Unreachable
    }

    /// What it is fit for, and its last word.
    pub(super) fn state(&self) -> (Fitness, Option<Arc<WorkerStatus>>) {
        let heard = lock(&self.heard).clone();
        let recent = heard.at.is_some_and(|at| at.elapsed() <= self.trusted_for);
        let fitness = match heard.status.as_ref().filter(|_| recent).map(|status| status.state) {
            Some(WorkerState::Ready) if heard.leaving => Fitness::Draining,
            // What it says comes by another connection than what it is ordered.
            Some(WorkerState::Ready) if !self.connection.is_connected() => Fitness::Unreachable,
            Some(WorkerState::Ready) => Fitness::Ready,
            Some(WorkerState::Starting) => Fitness::Starting,
            Some(WorkerState::Draining) => Fitness::Draining,
            None => Fitness::Unreachable,
        };
        (fitness, heard.status)
    }

    /// How busy it is: by its own count, or ours where that is newer and greater.
    pub(super) fn load(&self, status: &WorkerStatus) -> u32 {
        let theirs = status.active_requests.saturating_add(status.waiting_requests);
        theirs.max(self.ours())
    }

    /// Its key, the orders it says that it has, and those of ours that it has not finished.
    pub(super) fn loads(&self) -> (PublicKey, u32, u32) {
        let theirs = self
            .state()
            .1
            .map_or(u32::MAX, |status| status.active_requests.saturating_add(status.waiting_requests));
        (self.key(), theirs, self.ours())
    }

    pub(super) fn describe(&self, payer: Option<&Payer>) -> WorkerReport {
        let heard = lock(&self.heard).clone();
        let listed = self.listed();
        let channel = listed.as_ref().zip(payer).and_then(|(listed, payer)| payer.state(&listed.operator));
        let (fitness, status) = self.state();
        let models = status.iter().flat_map(|status| &status.models).map(|model| WorkerModel {
            id: model.id.to_string(),
            names: model.names.clone(),
            context_tokens: model.context_tokens,
            prefill_tokens_per_second: model.prefill_tokens_per_second,
            decode_tokens_per_second: model.decode_tokens_per_second,
            batch_price: model.batch_price.as_ref().map(PriceReport::from),
        });
        WorkerReport {
            id: self.key().to_string(),
            address: self.connection.address().location.to_string(),
            state: fitness.name(),
            reason: (fitness == Fitness::Unreachable).then(|| {
                heard.failure.unwrap_or_else(|| "there is no connection to it at the moment".to_owned())
            }),
            software: status.as_ref().map(|status| status.software.to_string()),
            active_requests: status.as_ref().map_or(0, |status| status.active_requests),
            waiting_requests: status.as_ref().map_or(0, |status| status.waiting_requests),
            last_seen_ms: heard.at.map(|at| at.elapsed().as_millis() as u64),
            models: models.collect(),
            measured: self.measured(),
            operator: listed.as_ref().map(|listed| listed.operator.to_string()),
            bonded: listed.as_ref().map(|listed| listed.bonded.to_string()),
            unsettled: listed.as_ref().map(|listed| listed.unsettled.to_string()),
            region_claimed: status
                .as_ref()
                .and_then(|status| status.region.as_ref().map(ToString::to_string)),
            offers: listed.iter().flat_map(|listed| listed.offers.iter()).map(OfferReport::new).collect(),
            channel: channel.map(ChannelReport::new),
            comparisons: Vec::new(),
        }
    }

    fn measured(&self) -> Measured {
        let now = Instant::now();
        let health = lock(&self.health);
        Measured {
            answers: health.finished(),
            failures: health.failed(),
            reliability: health.reliability(),
            accepted_ms: health.accepted_ms(),
            breaker: match health.gate(now) {
                Gate::Closed => "closed",
                Gate::HalfOpen => "half_open",
                Gate::Paused | Gate::Open => "open",
            },
            breaker_pause_ms: health.pause_left(now).map(|left| left.as_millis() as u64),
            orders: self.ours(),
            orders_max: health.limit(),
            models: health
                .speeds()
                .map(|(model, speed)| MeasuredModel {
                    id: model.to_string(),
                    newcomer: !speed.is_proven(now),
                    first_token_ms: speed.first_token_ms(),
                    first_token_p95_ms: speed.first_token_p95_ms(),
                    first_token_patience_ms: speed.first_token_patience(0).as_millis() as u64,
                    tokens_per_second: speed.tokens_per_second(),
                })
                .collect(),
        }
    }

    fn hear(&self, result: Result<WorkerStatus, String>) {
        let before = self.state().0;
        let failure = {
            let mut heard = lock(&self.heard);
            match result {
                Ok(status) => {
                    let (status, at) = (Some(Arc::new(status)), Some(Instant::now()));
                    *heard = Heard { status, at, ..Heard::default() };
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
async fn watch(worker: Weak<Worker>, doubted: Arc<Notify>, interval: Duration) {
    let mut ticks = tokio::time::interval(interval);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            // Whoever is doubted is asked at once, and not over and over.
            () = doubted.notified() => sleep(DOUBT_PAUSE).await,
        }
        let Some(connection) = worker.upgrade().map(|worker| worker.connection.clone()) else { return };
        let mut asking = std::pin::pin!(timeout(STATUS_PATIENCE, connection.status()));
        let answer = match timeout(ANSWER_PATIENCE, asking.as_mut()).await {
            Ok(answer) => answer,
            Err(_) => {
                if let Some(worker) = worker.upgrade() {
                    lock(&worker.heard).doubted = true;
                }
                asking.await
            }
        };
        let result = match answer {
            Ok(Ok(status)) => Ok(status),
            Ok(Err(error)) => Err(chain(&error)),
            Err(_) => Err(format!("no answer within {} ms", STATUS_PATIENCE.as_millis())),
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

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
