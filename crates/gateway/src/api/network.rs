//! Network: what anyone may see of the network through this gateway, for pages that look again and again.
//!
//! In:     GET requests. Out: workers, models, throughput; what became of requests, counted; how each part of the service is.
//! Touches: the journal, to read.
//! Holds:  however many look, each is made once a moment (`fresh`); nothing here names a request, a key or what anybody wrote.
//! Absent: counting (`service`), what pages make of it (`web/`).

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use axum::{
    extract::{Path, State, rejection::PathRejection},
    http::HeaderMap,
    response::Response,
};
use serde::Serialize;
use surety_client::ledger::earnings::EpochEarnings;
use surety_types::PublicKey;
use tracing::error;
use utoipa::ToSchema;

use super::{
    account::Looks,
    fields::quote,
    fresh::Fresh,
    look::path_text,
    shapes::{Model, WorkerReport},
    unix_ms,
};
use crate::{
    SOFTWARE,
    error::{ApiError, Code, ErrorBody},
    gateway::Shared,
    metrics::Pulse,
    route::{chain, scores::Score},
    service::{
        Service, Tally,
        components::{Component, Facts, LedgerFacts, State as PartState, components, overall},
        report::{Job, Known, ServiceReport},
    },
};

/// How old what is live may be, and what is counted.
const LIVE_AGE_MAX: Duration = Duration::from_millis(250);
const SERVICE_AGE_MAX: Duration = Duration::from_millis(900);

/// What is made for whoever looks.
#[derive(Debug, Default)]
pub(crate) struct Views {
    live: Fresh,
    service: Fresh,
    /// By operator, or worker that none answers for; those that there are.
    operators: Mutex<HashMap<String, OperatorViews>>,
    /// By id; those that are served.
    models: Mutex<HashMap<String, Arc<Fresh>>>,
    tally: Service,
    /// What keys look at of themselves.
    pub(super) looks: Looks,
    /// Names of models → Unix milliseconds: when they were last seen served. Those that are served, and those that are counted.
    seen: Mutex<BTreeMap<String, u64>>,
}

/// What is made of one operator.
#[derive(Debug, Clone, Default)]
pub(crate) struct OperatorViews {
    note: Arc<Fresh>,
    pub(super) ledger: Arc<Fresh>,
    pub(super) earnings: Arc<Fresh>,
    /// Epochs whose events were added up.
    pub(super) epochs: Arc<Mutex<Vec<EpochEarnings>>>,
}

impl Views {
    /// Those of an operator that there is; of those that are gone nothing is kept.
    pub(super) fn of_operator(&self, shared: &Shared, id: &str) -> OperatorViews {
        let report = shared.workers.report();
        let mut views = self.operators.lock().unwrap_or_else(PoisonError::into_inner);
        views.retain(|kept, _| report.iter().any(|worker| answers_for(worker) == kept));
        views.entry(id.to_owned()).or_default().clone()
    }

    /// What is made of a model that is served.
    pub(super) fn of_model(&self, shared: &Shared, id: &str) -> Arc<Fresh> {
        let served = shared.workers.models(shared.started);
        let mut views = self.models.lock().unwrap_or_else(PoisonError::into_inner);
        views.retain(|kept, _| served.iter().any(|model| model.surety.id == *kept));
        Arc::clone(views.entry(id.to_owned()).or_default())
    }

    /// Notes what is served now; when it and what is gone was seen last.
    fn seen(&self, served: &[Model], report: &ServiceReport, now_ms: u64) -> BTreeMap<String, u64> {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.retain(|name, _| report.models.iter().any(|counted| counted.model == *name));
        seen.extend(served.iter().map(|model| (model.id.clone(), now_ms)));
        seen.clone()
    }
}

/// The account that answers for a worker; its own key, if no ledger lists it.
fn answers_for(worker: &WorkerReport) -> &str {
    worker.operator.as_deref().unwrap_or(&worker.id)
}

/// The network as it is, as far as this gateway knows.
#[derive(Debug, Serialize, ToSchema)]
pub struct LiveNetwork {
    /// The gateway's key.
    pub gateway: String,
    /// Name and version of its software.
    pub software: &'static str,
    /// Requests that it is answering.
    pub active_requests: u64,
    /// What it answered lately.
    pub pulse: Pulse,
    /// The ledger, if it uses one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ledger: Option<LedgerNote>,
    /// The models, by every name.
    pub models: Vec<Model>,
    /// The workers.
    pub workers: Vec<WorkerReport>,
}

/// How the ledger answers this gateway.
#[derive(Debug, Serialize, ToSchema)]
pub struct LedgerNote {
    /// The newest block it has seen.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub block: Option<u64>,
    /// What does not go as it should.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
    /// What to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}

/// How the service is, and what became of requests.
#[derive(Debug, Serialize, ToSchema)]
pub struct ServiceStatus {
    /// The worst state of any part.
    pub state: PartState,
    /// The parts.
    pub components: Vec<Component>,
    /// What became of requests, by this gateway's word.
    #[serde(flatten)]
    pub report: ServiceReport,
}

/// What there is to know of who answers for workers.
#[derive(Debug, Serialize, ToSchema)]
pub struct OperatorNote {
    /// The account, or the key of a worker that no ledger lists.
    pub id: String,
    /// How its workers rank with each of their models, for a request without wishes.
    pub scores: Vec<Score>,
    /// The latest orders that they were given, the last first.
    pub jobs: Vec<Job>,
}

/// The network as it is: workers, models, what is asked and what was answered in the last minute.
///
/// With an `etag`: what has not changed is not sent again to who shows it in `if-none-match`.
#[utoipa::path(get, path = "/v1/network/live", tag = "network", responses(
    (status = 200, description = "As it is.", body = LiveNetwork),
    (status = 304, description = "As it was."),
))]
pub(super) async fn live(
    State(shared): State<Arc<Shared>>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let made = async { Ok(seen(&shared)) };
    Ok(shared.views.live.get(LIVE_AGE_MAX, made).await?.response(&headers))
}

/// How each part of the service is, how many requests were answered, and when they were not.
///
/// Counted from this gateway's journal, as far as that reaches: it is its word. Requests are counted, and none is named.
#[utoipa::path(get, path = "/v1/network/service", tag = "network", responses(
    (status = 200, description = "States, counts, incidents.", body = ServiceStatus),
    (status = 304, description = "As they were."),
    (status = 500, description = "The journal cannot be read.", body = ErrorBody),
))]
pub(super) async fn service(
    State(shared): State<Arc<Shared>>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let shown = shared.views.service.get(SERVICE_AGE_MAX, counted(&shared)).await?;
    Ok(shown.response(&headers))
}

/// How an operator's workers are chosen and why, and what became of their latest orders.
#[utoipa::path(get, path = "/v1/network/operators/{id}", tag = "network", params(
    ("id" = String, Path, description = "The operator's account, or the key of a worker that no ledger lists."),
), responses(
    (status = 200, description = "Ranks and orders.", body = OperatorNote),
    (status = 304, description = "As they were."),
    (status = 404, description = "No worker that is known is that operator's.", body = ErrorBody),
))]
pub(super) async fn operator(
    State(shared): State<Arc<Shared>>,
    asked: Result<Path<String>, PathRejection>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let asked = path_text(asked)?;
    let report = shared.workers.report();
    let Some(id) = report.iter().map(answers_for).find(|id| id.eq_ignore_ascii_case(&asked)) else {
        let message = format!(
            "No worker that this gateway knows is of the operator \"{}\". /v1/network/live lists those that are.",
            quote(&asked),
        );
        return Err(ApiError::new(Code::NotFound, message).with_param("id"));
    };
    let fresh = shared.views.of_operator(&shared, id).note;
    let workers = report.iter().filter(|worker| answers_for(worker) == id);
    let workers: Vec<PublicKey> = workers.filter_map(|worker| worker.id.parse().ok()).collect();
    let made = async {
        let known = known(&shared);
        let jobs = tallied(&shared, |tally| tally.jobs(&workers, &known)).await?;
        Ok(OperatorNote { id: id.to_owned(), scores: shared.workers.scores(&workers), jobs })
    };
    Ok(fresh.get(SERVICE_AGE_MAX, made).await?.response(&headers))
}

/// Who answers for whom, and the names that are served.
fn known(shared: &Shared) -> Known {
    let models = shared.workers.models(shared.started).into_iter().map(|model| model.id).collect();
    Known { operators: shared.workers.operators(), models }
}

/// What is made of the tally.
async fn tallied<T>(shared: &Shared, look: impl FnOnce(&Tally) -> T) -> Result<T, ApiError> {
    let looked = shared.views.tally.look(&shared.journal, unix_ms(), look).await;
    looked.map_err(|error| {
        error!(error = chain(&error), "the journal cannot be read");
        ApiError::bug("what it keeps of requests cannot be read")
    })
}

/// What changes by the mere passing of time is left out.
fn seen(shared: &Shared) -> LiveNetwork {
    let worker = |worker: WorkerReport| WorkerReport { last_seen_ms: None, channel: None, ..worker };
    let ledger = shared.workers.payer().map(|payer| {
        let standing = payer.standing();
        let (problem, hint) = standing.problem.unzip();
        LedgerNote { block: standing.block, problem, hint }
    });
    LiveNetwork {
        gateway: shared.key.public().to_string(),
        software: SOFTWARE,
        active_requests: shared.active.count() as u64,
        pulse: shared.metrics.pulse(),
        ledger,
        models: shared.workers.models(shared.started),
        workers: shared.workers.report().into_iter().map(worker).collect(),
    }
}

async fn counted(shared: &Shared) -> Result<ServiceStatus, ApiError> {
    let (workers, models) = (shared.workers.report(), shared.workers.models(shared.started));
    let known = known(shared);
    let now_ms = unix_ms();
    let report = tallied(shared, |tally| tally.report(now_ms, &known)).await?;
    let ledger = shared.workers.payer().map(|payer| {
        let standing = payer.standing();
        LedgerFacts {
            block: standing.block,
            quiet: standing.block_at.map(|at| at.elapsed()),
            problem: standing.problem.map(|(problem, _)| problem),
        }
    });
    let is_open = shared.open().is_ok();
    let seen = shared.views.seen(&models, &report, now_ms);
    let facts = Facts { is_open, workers: &workers, models: &models, seen: &seen, ledger, report: &report };
    let components = components(&facts);
    Ok(ServiceStatus { state: overall(&components), components, report })
}
