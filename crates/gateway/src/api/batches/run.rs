//! Run: batches answered, a request at a time, where workers are idle.
//!
//! In:     open batches of the store. Out: their outcomes, into the store.
//! Touches: workers, through the same code as the routes of the API.
//! Holds:  a request is begun only at a worker that has nothing but the lane's (`lane`); its outcome is written once, and
//!         what was begun before the gateway was killed is gone on with, not begun again. It is its tenant's, as if that had
//!         sent it: models, prices, limits and budget of the key hold.
//! Absent: HTTP (`mod`), what is kept (`store`).

use std::{
    panic::AssertUnwindSafe,
    sync::Arc,
    time::{Duration, Instant},
};

use futures::FutureExt;
use serde::Serialize;
use serde_json::value::RawValue;
use surety_types::{CivilDate, FailureCode, Receipt, Signed};
use tokio::{task::JoinSet, time::sleep};
use tracing::{error, info, warn};

use super::{
    id::{BatchId, FileId},
    lane::Place,
    lines::{self, ENDPOINTS},
    store::{Batch, FileObject, Status, StoreError},
};
use crate::{
    api::{
        ask::Ask,
        generate::{self, Call},
        guard,
        last_event::{Broken, LastEvent},
        parameters::Route,
        unix_ms,
    },
    error::{ApiError, Code},
    gateway::Shared,
    id::RequestId,
    keys::Tenant,
    route::{Demand, preferences::Name},
};

/// Between two looks for an idle worker, or for new batches.
const PAUSE: Duration = Duration::from_millis(100);
/// Batches worked at at once.
const BATCHES_AT_ONCE: usize = 8;
/// Requests of one batch under way at once.
const REQUESTS_AT_ONCE: usize = 32;
/// Times that a request is tried before its failure is its outcome.
const ATTEMPTS: u32 = 5;
/// Before the next try; each pause is twice the one before.
const RETRY_PAUSE: Duration = Duration::from_secs(1);

/// Works at every open batch, as long as the gateway serves.
pub(crate) async fn run(shared: Arc<Shared>) {
    let (mut working, mut under_way) = (JoinSet::new(), Vec::new());
    loop {
        while let Some(done) = working.try_join_next() {
            match done {
                Ok(id) => under_way.retain(|known| *known != id),
                Err(failure) => {
                    error!(%failure, "a batch's task ended; all of them begin again");
                    working = JoinSet::new();
                    under_way.clear();
                }
            }
        }
        let batches = shared.batches.store(|store| store.open_batches()).await;
        let mut open: Vec<(u64, Batch)> = batches.unwrap_or_else(|failure| {
            warn!(%failure, "batches cannot be read");
            Vec::new()
        });
        open.sort_by(|(_, a), (_, b)| (a.created_at, &a.id).cmp(&(b.created_at, &b.id)));
        for (tenant, batch) in open {
            let Some(id) = BatchId::parse(&batch.id) else { continue };
            if working.len() < BATCHES_AT_ONCE && !under_way.contains(&id) {
                under_way.push(id);
                let shared = Arc::clone(&shared);
                working.spawn(async move {
                    if let Err(failure) = work(&shared, tenant, id, batch).await {
                        error!(batch = %id, %failure, "a batch stands still");
                        sleep(10 * RETRY_PAUSE).await;
                    }
                    id
                });
            }
        }
        tokio::select! {
            () = shared.batches.news.notified() => {}
            () = sleep(10 * PAUSE) => {}
        }
    }
}

/// Why a batch is worked at no longer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Over {
    Done,
    Cancelled,
    Expired,
}

async fn work(shared: &Arc<Shared>, tenant: u64, id: BatchId, batch: Batch) -> Result<(), StoreError> {
    let Some(input) = FileId::parse(&batch.input_file_id) else { return Err(StoreError::Missing) };
    let Some((endpoint, route)) = ENDPOINTS.into_iter().find(|(path, _)| *path == batch.endpoint) else {
        return Err(StoreError::Missing);
    };
    let (bytes, done) =
        shared.batches.store(move |store| Ok((store.content(tenant, input)?, store.done(id)?))).await?;
    let text = String::from_utf8(bytes).map_err(|_| StoreError::Missing)?;
    let mut running: JoinSet<Result<Over, StoreError>> = JoinSet::new();
    let mut over = Over::Done;
    for (number, line) in lines::numbered(&text) {
        if done.contains(&number) {
            continue;
        }
        while running.len() >= REQUESTS_AT_ONCE {
            over = over.or(joined(running.join_next().await)?);
        }
        let Ok(line) = lines::read(line, endpoint) else { return Err(StoreError::Missing) };
        let request = Request {
            id: id.request(number),
            custom_id: line.custom_id.into_owned(),
            body: line.body.to_owned(),
            route,
            created_at: batch.created_at,
            expires_at: batch.expires_at,
        };
        match prepare(shared, &request, tenant, id, None).await? {
            Prepared::Refused(failure) => {
                let output = request.failed(&failure);
                shared.batches.store(move |store| store.outcome(id, number, true, &output)).await?;
            }
            Prepared::Placed(place, counted) => {
                let shared = Arc::clone(shared);
                running.spawn(async move {
                    let answering = request.answer(&shared, (tenant, id), place, counted);
                    let answer = AssertUnwindSafe(answering).catch_unwind().await;
                    let answer = answer.unwrap_or_else(|_| {
                        // Tried again it would only panic again.
                        let failure = ApiError::bug("answering a request of a batch panicked");
                        Ok(Answer::Outcome { failed: true, output: request.failed(&failure) })
                    });
                    match answer? {
                        Answer::Outcome { failed, output } => {
                            let kept =
                                shared.batches.store(move |store| store.outcome(id, number, failed, &output));
                            kept.await.map(|()| Over::Done)
                        }
                        Answer::Over(why) => Ok(why),
                    }
                });
            }
            Prepared::Over(why) => {
                over = why;
                break;
            }
        }
        while let Some(ended) = running.try_join_next() {
            over = over.or(joined(Some(ended))?);
        }
    }
    while let Some(ended) = running.join_next().await {
        over = over.or(joined(Some(ended))?);
    }
    // What a gateway that stops has cut is left for the next one.
    if shared.open().is_err() {
        return Ok(());
    }
    finish(shared, tenant, id, &text, endpoint, over).await
}

impl Over {
    /// What it is over for, if it is for one of two.
    fn or(self, other: Over) -> Over {
        if self == Over::Done { other } else { self }
    }
}

fn joined(
    ended: Option<Result<Result<Over, StoreError>, tokio::task::JoinError>>,
) -> Result<Over, StoreError> {
    match ended {
        Some(Ok(kept)) => kept,
        // The store panicked; the batch is looked at again.
        Some(Err(_)) => Err(StoreError::Missing),
        None => Ok(Over::Done),
    }
}

/// One request of a batch.
struct Request {
    id: RequestId,
    custom_id: String,
    body: String,
    route: Route,
    /// Of its batch: the day that templates are told is the same whenever it is answered.
    created_at: u64,
    /// Of its batch.
    expires_at: u64,
}

/// Whether a request can begin.
enum Prepared {
    Placed(Place, Tenant),
    Refused(ApiError),
    Over(Over),
}

/// What came of a request.
enum Answer {
    Outcome { failed: bool, output: String },
    Over(Over),
}

/// Waits until its tenant's limits have room and an idle worker can answer it, or nobody wants it any more. Whom it is
/// `counted` for already it is not counted for again.
async fn prepare(
    shared: &Arc<Shared>,
    request: &Request,
    tenant: u64,
    id: BatchId,
    counted: Option<&Tenant>,
) -> Result<Prepared, StoreError> {
    let mut ask = match request.ask().await {
        Ok(ask) => ask,
        Err(failure) => return Ok(Prepared::Refused(failure)),
    };
    loop {
        if shared.batches.store(move |store| store.batch(tenant, id)).await?.status == Status::Cancelling {
            return Ok(Prepared::Over(Over::Cancelled));
        }
        if unix_ms() / 1000 >= request.expires_at {
            return Ok(Prepared::Over(Over::Expired));
        }
        if shared.open().is_err() {
            // It is left for the next gateway.
            return Ok(Prepared::Over(Over::Done));
        }
        let model = match generate::resolve_soon(shared, &ask.model).await {
            Ok(model) => model,
            Err(failure) if failure.is_retryable() => {
                sleep(PAUSE).await;
                continue;
            }
            Err(failure) => return Ok(Prepared::Refused(failure)),
        };
        if let Err(failure) = generate::fits(&ask, &model) {
            return Ok(Prepared::Refused(failure));
        }
        let screened =
            Tenant::again(&shared.keys, tenant).and_then(|tenant| guard::screen(&tenant, &mut ask, &model));
        if let Err(failure) = screened {
            return Ok(Prepared::Refused(failure));
        }
        let demand = Demand {
            model: &model,
            preferences: &ask.preferences,
            max_output_tokens: ask.max_output_tokens,
            context_tokens_min: None,
            without: &[],
            apart: &[],
            affinity: None,
            orders: ask.answers() as u32,
            trail: None,
        };
        // That nobody qualifies now may be otherwise before the batch expires.
        let loads = shared.workers.loads(&demand).unwrap_or_default();
        if let Some(place) = shared.batches.lane.place(&loads, Instant::now()) {
            let again = match counted {
                Some(counted) => Ok(counted.clone()),
                None => {
                    let tokens = guard::about_tokens(request.body.len() as u64);
                    Tenant::again_counted(&shared.keys, tenant, tokens)
                }
            };
            match again {
                Ok(tenant) => return Ok(Prepared::Placed(place, tenant)),
                Err(failure) if failure.code() == Code::RateLimited => {}
                Err(failure) => return Ok(Prepared::Refused(failure)),
            }
        }
        sleep(PAUSE).await;
    }
}

/// Whether a worker has others to answer first. One without the memory for it will not have it later.
fn is_busy(failure: &ApiError) -> bool {
    let receipt = failure.receipt().and_then(|bytes| Signed::<Receipt>::open(bytes).ok());
    let refused = receipt.as_ref().and_then(|receipt| receipt.failure()).map(|(code, _)| code);
    failure.code() == Code::Overloaded
        && failure.worker().is_some()
        && refused.is_none_or(|code| code == FailureCode::Overloaded)
}

#[derive(Serialize)]
struct Output<'a> {
    id: String,
    custom_id: &'a str,
    response: Option<Answered<'a>>,
    error: Option<Unanswered<'a>>,
}

#[derive(Serialize)]
struct Answered<'a> {
    status_code: u16,
    request_id: String,
    body: &'a RawValue,
}

#[derive(Serialize)]
struct Unanswered<'a> {
    code: &'a str,
    message: &'a str,
}

impl Request {
    async fn ask(&self) -> Result<Ask, ApiError> {
        let today = CivilDate::from_unix_ms(self.created_at.saturating_mul(1000));
        let route = self.route;
        let mut ask =
            generate::understand(self.body.clone(), move |body| Ask::parse(body, route, today)).await?;
        if ask.stream {
            let message = "`stream` is true; the answers of a batch are in a file. Leave it out.";
            return Err(ApiError::invalid("stream", message));
        }
        if ask.preferences.checked {
            let message = "The answers of a batch are not computed twice: they are made where workers are idle, and their checks \
                           would not be. Leave out `:verified` and `provider.verification_mode`, or send the request by itself.";
            return Err(
                ApiError::new(Code::UnsupportedParameter, message).with_param("provider.verification_mode")
            );
        }
        ask.preferences.batch = true;
        // What is signed for of an answer that is streamed is kept, so that the next gateway can go on with it.
        ask.stream = true;
        Ok(ask)
    }

    /// Its outcome, unless its batch, or the gateway, ends before it has one.
    async fn answer(
        &self,
        shared: &Arc<Shared>,
        (key, batch): (u64, BatchId),
        mut place: Place,
        tenant: Tenant,
    ) -> Result<Answer, StoreError> {
        let outcome = |failed, output| Ok(Answer::Outcome { failed, output });
        let (receipts, id) = (shared.receipts.clone(), self.id);
        let whole = tokio::task::spawn_blocking(move || receipts.find(id).is_ok_and(|found| found.is_some()));
        if whole.await.unwrap_or(false) {
            // It was answered, and is not answered again; only how it was worded went with the process.
            let message = format!(
                "The gateway was stopped between this answer and its line. It is not asked, or charged, again: the answer is \
                 in {}.",
                generate::receipt_path(id)
            );
            return outcome(true, unanswered(id, &self.custom_id, "answered_before_restart", &message));
        }
        let (mut pause, mut attempt) = (RETRY_PAUSE, 1);
        loop {
            match tenant.clone().scope(self.attempt(shared, &place)).await {
                Ok(body) => return outcome(false, self.output(200, &body)),
                Err(failure) if failure.code() == Code::GatewayStopping => {
                    return Ok(Answer::Over(Over::Done));
                }
                // Others came first: it waits for whoever is idle next, as it did before.
                Err(failure) if is_busy(&failure) => {
                    drop(place);
                    sleep(RETRY_PAUSE).await;
                    place = match prepare(shared, self, key, batch, Some(&tenant)).await? {
                        Prepared::Placed(place, _) => place,
                        Prepared::Refused(failure) => return outcome(true, self.failed(&failure)),
                        Prepared::Over(why) => return Ok(Answer::Over(why)),
                    };
                }
                Err(failure) if failure.is_retryable() && attempt < ATTEMPTS => {
                    info!(request = %self.id, code = failure.code().as_str(), "a request of a batch is tried again");
                    sleep(pause).await;
                    (pause, attempt) = (2 * pause, attempt + 1);
                }
                // What other answers hold of the budget may be given back when they end.
                Err(failure)
                    if failure.code() == Code::BudgetExhausted
                        && tenant.has_reserved()
                        && unix_ms() / 1000 < self.expires_at =>
                {
                    sleep(RETRY_PAUSE).await;
                }
                Err(failure) => return outcome(true, self.failed(&failure)),
            }
        }
    }

    async fn attempt(&self, shared: &Arc<Shared>, place: &Place) -> Result<Vec<u8>, ApiError> {
        let mut ask = self.ask().await?;
        if ask.preferences.worker.is_none() {
            ask.preferences.worker = Name::of_worker(&place.worker);
        }
        let id = self.id;
        let (mut received_ms, mut today) =
            (unix_ms(), CivilDate::from_unix_ms(self.created_at.saturating_mul(1000)));
        let broken = Broken::find(shared, LastEvent::from_the_beginning(id)).await.ok();
        if let Some(broken) = &broken {
            (received_ms, today) = (broken.begun.received_ms, broken.begun.date);
        }
        let call = Call { id, received_ms, today, trace: None, share: None };
        let job = generate::start(Arc::clone(shared), call, ask, broken).await?;
        let (body, _) = job.document().await?;
        Ok(body.to_vec())
    }

    fn failed(&self, failure: &ApiError) -> String {
        let body = serde_json::to_vec(&failure.body(&self.id)).expect("an error object is JSON");
        self.output(failure.code().status().as_u16(), &body)
    }

    fn output(&self, status_code: u16, body: &[u8]) -> String {
        let body: &RawValue = serde_json::from_slice(body).expect("answers and errors are JSON");
        let response = Some(Answered { status_code, request_id: self.id.to_string(), body });
        line(&Output { id: format!("batch_{}", self.id), custom_id: &self.custom_id, response, error: None })
    }
}

fn line(output: &Output<'_>) -> String {
    serde_json::to_string(output).expect("a line is JSON")
}

/// The line of a request that got no response.
fn unanswered(request: RequestId, custom_id: &str, code: &str, message: &str) -> String {
    let error = Some(Unanswered { code, message });
    line(&Output { id: format!("batch_{request}"), custom_id, response: None, error })
}

/// Every request has its outcome, or gets it now: the outcomes become files.
async fn finish(
    shared: &Arc<Shared>,
    tenant: u64,
    id: BatchId,
    text: &str,
    endpoint: &str,
    over: Over,
) -> Result<(), StoreError> {
    let done = shared.batches.store(move |store| store.done(id)).await?;
    let (code, message) = match over {
        Over::Done => ("", ""),
        Over::Cancelled => ("batch_cancelled", "The batch was cancelled before this request was begun."),
        Over::Expired => ("batch_expired", "The batch's time was over before a worker was idle."),
    };
    for (number, raw) in lines::numbered(text).filter(|(number, _)| !done.contains(number)) {
        if over == Over::Done {
            // One that panicked, or was cut: the batch is looked at again.
            return Err(StoreError::Missing);
        }
        let Ok(read) = lines::read(raw, endpoint) else { continue };
        let output = unanswered(id.request(number), &read.custom_id, code, message);
        shared.batches.store(move |store| store.outcome(id, number, true, &output)).await?;
    }
    let now = unix_ms() / 1000;
    let ended = shared.batches.store(move |store| {
        let object = |name: &'static str| {
            move |file: FileId, bytes| FileObject {
                id: file.to_string(),
                object: "file".to_owned(),
                bytes,
                created_at: now,
                filename: format!("{id}_{name}.jsonl"),
                purpose: "batch_output".to_owned(),
                status: "processed".to_owned(),
            }
        };
        let output = store.write_outcomes(tenant, id, false, object("output"))?;
        let errors = store.write_outcomes(tenant, id, true, object("error"))?;
        store.end(id, |batch| {
            batch.output_file_id = output.map(|file| file.to_string());
            batch.error_file_id = errors.map(|file| file.to_string());
            batch.finalizing_at = Some(now);
            match over {
                Over::Done => (batch.status, batch.completed_at) = (Status::Completed, Some(now)),
                Over::Cancelled => (batch.status, batch.cancelled_at) = (Status::Cancelled, Some(now)),
                Over::Expired => (batch.status, batch.expired_at) = (Status::Expired, Some(now)),
            }
        })
    });
    ended.await?;
    info!(batch = %id, ?over, "a batch has ended");
    Ok(())
}
