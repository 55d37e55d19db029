//! Account: what whoever has a key sees of it: what it may do, what it used by time and model, what became of its requests.
//!
//! In:     GET requests. Out: terms and limits, sums by span, the latest requests.
//! Touches: the usage and the journal on disk, to read.
//! Holds:  a tenant sees its own and nobody else's; sums are those of the export, to the micro-credit; however often somebody looks, what
//!         takes long is made anew a twentieth of the time at most.
//! Absent: what is left of a budget and the export (`money`); making keys (`surety apikey`).

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use axum::{
    Json,
    extract::State,
    http::{HeaderMap, Uri},
    response::Response,
};
use serde::Serialize;
use surety_types::{StatedEnd, Statement};
use tracing::error;
use utoipa::ToSchema;

use super::{fields::quote, fresh::Fresh, money::read, nearest::nearest, unix_ms};
use crate::{
    catalogue,
    error::{ApiError, Code, ErrorBody},
    gateway::Shared,
    id::RequestId,
    keys::{Buckets, KeyPrice, Level, Tenant, Totals, UsageBucket, Width},
};

/// How old what is told may be.
const AGE_MAX: Duration = Duration::from_millis(250);
/// What is kept for keys that look again; beyond, all of it is made anew.
const KEPT_MAX: usize = 256;
/// Requests that are told of, at most and usually.
const REQUESTS_MAX: usize = 100;
const REQUESTS_USUAL: usize = 50;
/// Paths whose requests are told of: those that ask a model. One that was asked for by another request has none.
const ASKING: [&str; 11] = [
    "",
    "/api/chat",
    "/api/embed",
    "/api/embeddings",
    "/api/generate",
    "/v1/chat/completions",
    "/v1/completions",
    "/v1/embeddings",
    "/v1/messages",
    "/v1/messages/count_tokens",
    "/v1/responses",
];

/// What is kept for whoever looks again, by key.
#[derive(Debug, Default)]
pub(crate) struct Looks(Mutex<HashMap<(u64, Look), Arc<Fresh>>>);

/// What a key looks at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Look {
    Buckets(Width),
    /// At most so many.
    Requests(usize),
}

impl Looks {
    fn of(&self, key: u64, look: Look) -> Arc<Fresh> {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() >= KEPT_MAX && !kept.contains_key(&(key, look)) {
            kept.clear();
        }
        Arc::clone(kept.entry((key, look)).or_default())
    }
}

/// A limit per minute, and how near the key is to it.
#[derive(Debug, Serialize, ToSchema)]
struct LimitNote {
    /// In a minute.
    limit: u32,
    /// What there is room for now.
    remaining: u32,
    /// Unix milliseconds: all of it is there again.
    full_ms: u64,
}

impl From<Level> for LimitNote {
    fn from(Level { limit, remaining, full_ms }: Level) -> Self {
        LimitNote { limit, remaining, full_ms }
    }
}

/// What a key may do, for who has it. Amounts are micro-credits, as decimal texts.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct KeyNote {
    /// `key`.
    object: &'static str,
    /// What it is called; none where the gateway asks for none.
    name: Option<String>,
    /// Unix milliseconds.
    created_ms: Option<u64>,
    /// Unix milliseconds from which on it is refused; none: never.
    expires_ms: Option<u64>,
    /// Only these may be asked for, by name or id; any if empty.
    models: Vec<String>,
    /// For a million tokens; dearer workers are not asked. None: any price.
    #[schema(value_type = Option<Object>)]
    max_price: Option<KeyPrice>,
    /// Requests in a minute; none: as many as there are.
    requests: Option<LimitNote>,
    /// Tokens in a minute, of prompts and answers; none: as many as there are.
    tokens: Option<LimitNote>,
    /// Whether more can be bought for it by `POST /v1/credits`.
    sells_credits: bool,
    /// Unix milliseconds, by the gateway's clock.
    now_ms: u64,
}

/// What the key may do, and how near it is to its limits.
#[utoipa::path(get, path = "/v1/key", tag = "money", responses(
    (status = 200, description = "The key that was shown; nothing of its secret.", body = KeyNote),
    (status = 401, description = "The key is missing or refused.", body = ErrorBody),
))]
pub(super) async fn key(State(shared): State<Arc<Shared>>) -> Result<Json<KeyNote>, ApiError> {
    let tenant = Tenant::current(&shared.keys)?;
    let room = tenant.room();
    let (report, account) = shared.keys.account(tenant.key()).unzip();
    let terms = report.as_ref().map(|report| &report.terms);
    Ok(Json(KeyNote {
        object: "key",
        name: terms.map(|terms| terms.name.clone()),
        created_ms: report.as_ref().map(|report| report.created_ms),
        expires_ms: terms.and_then(|terms| terms.expires_ms),
        models: terms.map(|terms| terms.models.clone()).unwrap_or_default(),
        max_price: terms.and_then(|terms| terms.max_price),
        requests: room.requests.map(LimitNote::from),
        tokens: room.tokens.map(LimitNote::from),
        sells_credits: shared.payments.is_some() && account.is_some_and(|account| account.budget.is_some()),
        now_ms: unix_ms(),
    }))
}

/// What a key used, span by span. Amounts are micro-credits, as decimal texts.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct BucketsReport {
    /// `list`.
    object: &'static str,
    /// `1m`, `1h` or `1d`.
    bucket_width: &'static str,
    /// The last hour, two days, or thirty days: the oldest first, without gaps; the last has not ended.
    data: Vec<UsageBucket>,
    /// Sums of what was before.
    #[schema(value_type = Object)]
    earlier: Totals,
    /// Sums of all there ever were: what the key was charged.
    #[schema(value_type = Object)]
    total: Totals,
}

/// What the key has used by the minute, the hour or the day, and by model.
///
/// What is in `data` and `earlier` sums to `total`, which is that of `/v1/usage`.
#[utoipa::path(get, path = "/v1/usage/buckets", tag = "money", params(
    ("bucket_width" = Option<String>, Query, description = "`1m` (60 of them), `1h` (default; 48) or `1d` (30)."),
    ("if-none-match" = Option<String>, Header, description = "The `etag` of what the caller has."),
), responses(
    (status = 200, description = "Answers count when they ended.", body = BucketsReport),
    (status = 304, description = "It is what the caller has."),
    (status = 401, description = "The key is missing or refused.", body = ErrorBody),
    (status = 400, description = "A parameter is not understood.", body = ErrorBody),
))]
pub(super) async fn buckets(
    State(shared): State<Arc<Shared>>,
    uri: Uri,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let tenant = Tenant::current(&shared.keys)?;
    let (mut name, mut width) = ("1h", Width::Hour);
    for (parameter, value) in parameters(uri.query(), "bucket_width")? {
        (name, width) = Width::NAMES.into_iter().find(|(name, _)| *name == value).ok_or_else(|| {
            let message = format!("`{parameter}` is \"{}\". It must be `1m`, `1h` or `1d`.", quote(value));
            ApiError::invalid("bucket_width", message)
        })?;
    }
    let made = async {
        shared.keys.written().await;
        let (keys, key) = (Arc::clone(&shared.keys), tenant.key());
        let found = read(tokio::task::spawn_blocking(move || keys.buckets(key, width)).await)?;
        let Buckets { buckets, earlier, total } = found;
        Ok(BucketsReport { object: "list", bucket_width: name, data: buckets, earlier, total })
    };
    let kept = shared.views.looks.of(tenant.key(), Look::Buckets(width));
    Ok(kept.get(AGE_MAX, made).await?.response(&headers))
}

/// How a request ended, or that it has not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
enum RequestState {
    /// It is being answered.
    UnderWay,
    /// With an answer.
    Answered,
    /// Its prompt was counted, which was all that was asked.
    Counted,
    /// Its caller left before the end: what was given until then was charged.
    Left,
    /// With an error.
    Failed,
    /// The gateway ended in the middle of it.
    Interrupted,
}

/// What became of one request. Amounts are micro-credits, as decimal texts.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct RequestNote {
    /// As in `x-request-id`.
    id: String,
    /// Where it was sent; none for one that another asked for, such as a line of a batch.
    path: Option<String>,
    /// The name that was asked for; none if the request was not understood so far.
    model: Option<String>,
    /// Unix milliseconds.
    received_ms: u64,
    /// Unix milliseconds; none: it has not ended.
    ended_ms: Option<u64>,
    /// How it ended.
    state: RequestState,
    /// What it was charged.
    cost: String,
    /// Tokens of the prompt; none: nothing was charged, or the row is not kept any more.
    prompt_tokens: Option<u64>,
    /// Tokens of the answer.
    output_tokens: Option<u64>,
    /// What went wrong.
    #[serde(skip_serializing_if = "Option::is_none")]
    failure: Option<FailureNote>,
}

/// Why a request was not answered.
#[derive(Debug, Serialize, ToSchema)]
struct FailureNote {
    /// The stable code, as in `docs/api/errors.md`.
    code: String,
    /// What the caller was told.
    message: String,
    /// Who was said to answer for it.
    accountable: String,
    /// What the code means.
    means: Option<&'static str>,
    /// What to do about it.
    act: Option<&'static str>,
}

/// A key's latest requests.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct RequestsReport {
    /// `list`.
    object: &'static str,
    /// The newest first; those that failed, too.
    data: Vec<RequestNote>,
    /// Unix milliseconds: what was before was not looked at, since others asked so much since; none: all there is was.
    looked_back_to_ms: Option<u64>,
}

/// What became of the key's latest requests to models, those that failed among them.
///
/// It is the gateway's word; `/v1/requests/{id}/explanation` weighs it against what workers signed.
#[utoipa::path(get, path = "/v1/requests", tag = "money", params(
    ("limit" = Option<u64>, Query, description = "At most so many: 1 to 100, usually 50."),
    ("if-none-match" = Option<String>, Header, description = "The `etag` of what the caller has."),
), responses(
    (status = 200, description = "As far back as the gateway's journal reaches.", body = RequestsReport),
    (status = 304, description = "It is what the caller has."),
    (status = 401, description = "The key is missing or refused.", body = ErrorBody),
    (status = 400, description = "A parameter is not understood.", body = ErrorBody),
))]
pub(super) async fn requests(
    State(shared): State<Arc<Shared>>,
    uri: Uri,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let tenant = Tenant::current(&shared.keys)?;
    let mut limit = REQUESTS_USUAL;
    for (parameter, value) in parameters(uri.query(), "limit")? {
        let found = value.parse().ok().filter(|limit| (1..=REQUESTS_MAX).contains(limit));
        limit = found.ok_or_else(|| {
            let message =
                format!("`{parameter}` is \"{}\". It must be from 1 to {REQUESTS_MAX}.", quote(value));
            ApiError::invalid("limit", message)
        })?;
    }
    let kept = shared.views.looks.of(tenant.key(), Look::Requests(limit));
    Ok(kept.get(AGE_MAX, latest(&shared, tenant.key(), limit)).await?.response(&headers))
}

/// What became of a key's latest requests, at most so many.
async fn latest(shared: &Arc<Shared>, key: u64, limit: usize) -> Result<RequestsReport, ApiError> {
    shared.keys.written().await;
    let wanted = |statement: &Statement| ASKING.contains(&statement.path.as_str());
    let latest = shared.journal.latest(key, limit, wanted).await.map_err(|failure| {
        error!(%failure, "the journal on disk cannot be read");
        ApiError::bug("the journal on its disk cannot be read")
    })?;
    let looked_back_to_ms = latest.looked_back_to_ms;
    let (keys, journal) = (Arc::clone(&shared.keys), shared.journal.clone());
    let noted = tokio::task::spawn_blocking(move || {
        let note = |statement: Statement| {
            let id = RequestId::parse(&statement.request_id);
            let row = id.map(|id| keys.generation(id)).transpose()?.flatten();
            let row = row.and_then(|row| row.of(key));
            let is_under_way = id.is_some_and(|id| journal.is_under_way(id));
            let counted = row.map(|row| (row.prompt_tokens, row.output_tokens, row.cost.to_string()));
            Ok(note(statement, is_under_way, counted))
        };
        latest.statements.into_iter().map(note).collect::<Result<Vec<_>, String>>()
    });
    Ok(RequestsReport { object: "list", data: read(noted.await)?, looked_back_to_ms })
}

/// `counted`: tokens of prompt and answer, and what they cost.
fn note(statement: Statement, is_under_way: bool, counted: Option<(u64, u64, String)>) -> RequestNote {
    let told = |text: &str| Some(text.to_owned()).filter(|text| !text.is_empty());
    let (state, failure) = match &statement.end {
        StatedEnd::Answered => (RequestState::Answered, None),
        StatedEnd::Counted => (RequestState::Counted, None),
        StatedEnd::Left => (RequestState::Left, None),
        StatedEnd::Stopped if is_under_way => (RequestState::UnderWay, None),
        StatedEnd::Stopped => (RequestState::Interrupted, None),
        StatedEnd::Failed { code, message, accountable, .. } => {
            let known = catalogue::explained(code.as_str());
            let failure = FailureNote {
                code: code.as_str().to_owned(),
                message: message.as_str().to_owned(),
                accountable: accountable.as_str().to_owned(),
                means: known.map(|known| known.means),
                act: known.map(|known| known.act),
            };
            (RequestState::Failed, Some(failure))
        }
    };
    let cost = counted.as_ref().map_or_else(|| statement.charge.0.to_string(), |(_, _, cost)| cost.clone());
    RequestNote {
        path: told(statement.path.as_str()),
        model: told(&statement.model_name),
        received_ms: statement.received_ms,
        ended_ms: (state != RequestState::UnderWay).then_some(statement.ended_ms),
        state,
        cost,
        prompt_tokens: counted.as_ref().map(|(prompt, ..)| *prompt),
        output_tokens: counted.as_ref().map(|(_, output, _)| *output),
        failure,
        id: statement.request_id,
    }
}

/// The parameters of a query, of which there is one.
fn parameters<'a>(
    query: Option<&'a str>,
    known: &'static str,
) -> Result<Vec<(&'static str, &'a str)>, ApiError> {
    let mut found = Vec::new();
    for pair in query.unwrap_or("").split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        if name != known {
            let advice = match nearest(name, [known].into_iter()) {
                Some(near) => format!("Did you mean `{near}`?"),
                None => format!("There is `{known}`."),
            };
            let message = format!("There is no parameter `{}` here. {advice}", quote(name));
            return Err(ApiError::new(Code::UnknownParameter, message).with_param(quote(name)));
        }
        found.push((known, value));
    }
    Ok(found)
}
