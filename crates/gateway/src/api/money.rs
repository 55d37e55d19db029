//! Money: what a key has used, what is left, and what an answer would cost.
//!
//! In:     GET requests; POST requests whose bodies are those of answers. Out: usage, credits, quotes.
//! Touches: the usage on disk, to read.
//! Holds:  a tenant sees its own and nobody else's; what is listed sums to what was charged, exactly; no order is given.
//! Absent: charging (`keys`).

use std::{fmt::Write as _, sync::Arc};

use axum::{
    Json,
    body::Body,
    extract::{Path, State, rejection::PathRejection},
    http::{HeaderMap, Uri, header},
    response::{IntoResponse, Response},
};
use serde::Serialize;
use surety_types::{CivilDate, Price, receipt::NO_ARITHMETIC};
use utoipa::ToSchema;

use super::{
    ask::Ask,
    body::Text,
    fields::{Fields, quote},
    guard,
    look::path_text,
    nearest::nearest,
    parameters::Route,
    unix_ms, utc,
};
use crate::{
    error::{ApiError, Code, ErrorBody},
    gateway::Shared,
    id::RequestId,
    keys::{
        Generation, NOBODY, Owned, Tenant, Totals, UsagePage,
        hold::{charge_max, prompt_tokens_bound, worst_charge},
    },
    route::{Candidate, Demand, Resolved},
};

/// Rows of usage in one answer.
const ROWS_MAX: usize = 10_000;
/// Bytes of a prompt that make a token, about.
const BYTES_PER_TOKEN: u32 = 4;
/// Tokens that an answer has, about, where nothing bounds it.
const OUTPUT_TOKENS_USUAL: u32 = 512;

/// Credits as OpenRouter tells them: numbers, and only about right beyond nine digits or so.
#[derive(Debug, Serialize, ToSchema)]
struct CreditsData {
    /// The budget and what was bought; none if nothing bounds it.
    total_credits: Option<f64>,
    /// What was charged.
    total_usage: f64,
}

/// What a key may still spend. Amounts are micro-credits, as decimal texts, but for `data`.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct CreditsReport {
    /// `credits`.
    object: &'static str,
    /// In credits.
    data: CreditsData,
    /// The key's name; none where the gateway asks for none.
    key: Option<String>,
    /// All it was granted; none if nothing bounds it.
    budget: Option<String>,
    /// What was paid in beside it.
    bought: String,
    /// What it was charged.
    used: String,
    /// What is set aside for answers under way.
    reserved: String,
    /// What is left beside both.
    left: Option<String>,
    /// Answers it was charged for, or given for nothing.
    requests: u64,
}

/// Budget, bought, used, reserved, left.
#[utoipa::path(get, path = "/v1/credits", tag = "money", responses(
    (status = 200, description = "How the account of the key stands.", body = CreditsReport),
    (status = 401, description = "The key is missing or refused.", body = ErrorBody),
))]
pub(super) async fn credits(State(shared): State<Arc<Shared>>) -> Result<Json<CreditsReport>, ApiError> {
    credits_of(&shared).await.map(Json)
}

/// How the account of whoever asks stands.
pub(super) async fn credits_of(shared: &Arc<Shared>) -> Result<CreditsReport, ApiError> {
    let tenant = Tenant::current(&shared.keys)?;
    let in_credits = |micro: u128| micro as f64 / 1e6;
    if let Some((report, account)) = shared.keys.account(tenant.key()) {
        return Ok(CreditsReport {
            object: "credits",
            data: CreditsData {
                total_credits: account.all().map(in_credits),
                total_usage: in_credits(account.used),
            },
            key: Some(report.terms.name),
            budget: account.budget.map(|budget| budget.to_string()),
            bought: account.bought.to_string(),
            used: account.used.to_string(),
            reserved: account.reserved.to_string(),
            left: account.left().map(|left| left.to_string()),
            requests: report.requests,
        });
    }
    let UsagePage { total, .. } = read_usage(shared, NOBODY, 0, 0).await?;
    Ok(CreditsReport {
        object: "credits",
        data: CreditsData { total_credits: None, total_usage: in_credits(total.cost.0) },
        key: None,
        budget: None,
        bought: "0".to_owned(),
        used: total.cost.to_string(),
        reserved: "0".to_owned(),
        left: None,
        requests: total.requests,
    })
}

/// What a key was charged for, oldest first. Amounts are micro-credits, as decimal texts.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct UsageReport {
    /// `list`.
    object: &'static str,
    /// Each answer.
    #[schema(value_type = Vec<Object>)]
    data: Vec<Generation>,
    /// Sums of answers that are listed no more, because there were too many.
    #[schema(value_type = Object)]
    dropped: Totals,
    /// Sums of all there ever were: what the key was charged.
    #[schema(value_type = Object)]
    total: Totals,
    /// Give this as `after` for more; none at the end.
    next: Option<u64>,
}

/// What the key has used: JSON, or CSV.
#[utoipa::path(get, path = "/v1/usage", tag = "money", params(
    ("format" = Option<String>, Query, description = "`json` (default) or `csv`."),
    ("after" = Option<u64>, Query, description = "What `next` said, for the rows behind those."),
), responses(
    (status = 200, description = "Rows and their sums. As CSV, `x-next` holds `next`, and the first row those that were dropped.",
        content((UsageReport = "application/json"), (String = "text/csv"))),
    (status = 401, description = "The key is missing or refused.", body = ErrorBody),
    (status = 400, description = "A parameter is not understood.", body = ErrorBody),
))]
pub(super) async fn usage(State(shared): State<Arc<Shared>>, uri: Uri) -> Result<Response, ApiError> {
    let tenant = Tenant::current(&shared.keys)?;
    let (csv, after) = usage_query(uri.query().unwrap_or(""))?;
    let page = read_usage(&shared, tenant.key(), after, ROWS_MAX).await?;
    if csv {
        let next = page.next.map(|next| [("x-next", next.to_string())]);
        let text = usage_csv(&page, after == 0);
        let response = ([(header::CONTENT_TYPE, "text/csv; charset=utf-8")], text).into_response();
        return Ok(match next {
            Some(next) => (next, response).into_response(),
            None => response,
        });
    }
    let UsagePage { generations, dropped, total, next } = page;
    Ok(Json(UsageReport { object: "list", data: generations, dropped, total, next }).into_response())
}

fn usage_query(query: &str) -> Result<(bool, u64), ApiError> {
    let (mut csv, mut after) = (false, 0);
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        match name {
            "format" => {
                csv = match value {
                    "csv" => true,
                    "json" => false,
                    _ => {
                        let message =
                            format!("`format` is \"{}\". It must be `json` or `csv`.", quote(value));
                        return Err(ApiError::invalid("format", message));
                    }
                }
            }
            "after" => {
                after = value.parse().map_err(|_| {
                    let message = format!("`after` is \"{}\". It must be what `next` said.", quote(value));
                    ApiError::invalid("after", message)
                })?;
            }
            _ => {
                let advice = match nearest(name, ["format", "after"].into_iter()) {
                    Some(near) => format!("Did you mean `{near}`?"),
                    None => "There are `format` and `after`.".to_owned(),
                };
                let message = format!("There is no parameter `{}` here. {advice}", quote(name));
                return Err(ApiError::new(Code::UnknownParameter, message).with_param(quote(name)));
            }
        }
    }
    Ok((csv, after))
}

/// Usage as a table (RFC 4180), of which the columns of numbers sum to the totals; `first`: it is the first page.
pub fn usage_csv(page: &UsagePage, first: bool) -> String {
    let mut text = String::from(
        "id,key,model,status,requests,prompt_tokens,cached_tokens,output_tokens,cost_micro_credits,received,done\r\n",
    );
    let Totals { requests, prompt_tokens, cached_tokens, output_tokens, cost } = &page.dropped;
    if first && *requests > 0 {
        // A text never fails to be written to.
        let _ = write!(
            text,
            "(earlier),,,,{requests},{prompt_tokens},{cached_tokens},{output_tokens},{cost},,\r\n"
        );
    }
    for row in &page.generations {
        let _ = write!(
            text,
            "{},{},{},{},1,{},{},{},{},{},{}\r\n",
            row.id,
            cell(row.key.as_deref().unwrap_or("")),
            cell(&row.model),
            row.status,
            row.prompt_tokens,
            row.cached_tokens,
            row.output_tokens,
            row.cost,
            utc(row.received_ms),
            utc(row.done_ms),
        );
    }
    text
}

/// A text as a cell that no spreadsheet takes for a formula.
fn cell(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-/:@ ".contains(&byte);
    let text = match text.as_bytes().first() {
        Some(b'=' | b'+' | b'-' | b'@' | b'\t' | b'\r') => format!("'{text}"),
        _ => text.to_owned(),
    };
    if text.bytes().all(plain) { text } else { format!("\"{}\"", text.replace('"', "\"\"")) }
}

async fn read_usage(
    shared: &Arc<Shared>,
    key: u64,
    first: u64,
    count_max: usize,
) -> Result<UsagePage, ApiError> {
    shared.keys.written().await;
    let keys = Arc::clone(&shared.keys);
    let page = tokio::task::spawn_blocking(move || keys.usage(key, first, count_max)).await;
    read(page)
}

pub(super) fn read<T>(read: Result<Result<T, String>, tokio::task::JoinError>) -> Result<T, ApiError> {
    let read = read.map_err(|_| ApiError::bug("reading the usage panicked"))?;
    read.map_err(|error| {
        tracing::error!(error, "the usage on disk cannot be read");
        ApiError::bug("the usage on its disk cannot be read")
    })
}

/// What became of a request: tokens, prices, cost, workers, times.
#[utoipa::path(get, path = "/v1/generations/{id}", tag = "money", params(
    ("id" = String, Path, description = "`req_…`, `chatcmpl-…` or `cmpl-…`."),
), responses(
    (status = 200, description = "What it was charged for. Amounts are micro-credits, as decimal texts.", body = serde_json::Value),
    (status = 401, description = "The key is missing or refused.", body = ErrorBody),
    (status = 404, description = "This key was answered nothing under that id.", body = ErrorBody),
))]
pub(super) async fn generation(
    State(shared): State<Arc<Shared>>,
    asked: Result<Path<String>, PathRejection>,
) -> Result<Json<Generation>, ApiError> {
    let tenant = Tenant::current(&shared.keys)?;
    let asked = path_text(asked)?;
    let Some(id) = RequestId::parse(&asked) else {
        let message = format!(
            "\"{}\" is not a request id. Ids look like req_ and 32 digits, as in `x-request-id`.",
            quote(&asked),
        );
        return Err(ApiError::new(Code::NotFound, message).with_param("id"));
    };
    match find(&shared, id).await?.and_then(|generation| generation.of(tenant.key())) {
        Some(generation) => Ok(Json(generation)),
        None if shared.active.contains(id) => {
            let message = format!("{id} is still being answered. Ask again when it has ended.");
            Err(ApiError::new(Code::NotFound, message).with_param("id"))
        }
        None => {
            let message = format!(
                "This key was answered nothing under {id}: it was asked with another key, it failed and cost nothing, or it is \
                 too old.",
            );
            Err(ApiError::new(Code::NotFound, message).with_param("id"))
        }
    }
}

async fn find(shared: &Arc<Shared>, id: RequestId) -> Result<Option<Owned<Generation>>, ApiError> {
    shared.keys.written().await;
    let keys = Arc::clone(&shared.keys);
    read(tokio::task::spawn_blocking(move || keys.generation(id)).await)
}

/// Whether a tenant may see what is kept of a request: nobody sees another key's.
pub(super) async fn may_see(shared: &Arc<Shared>, id: RequestId) -> Result<bool, ApiError> {
    let tenant = Tenant::current(&shared.keys)?;
    if !shared.keys.is_closed() {
        return Ok(true);
    }
    Ok(find(shared, id).await?.and_then(|generation| generation.of_or_nobodys(tenant.key())).is_some())
}

/// What an answer would cost. Amounts are micro-credits, as decimal texts.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Quote {
    /// `quote`.
    object: &'static str,
    /// The model that would answer.
    model: String,
    /// Answers that are asked for.
    choices: u32,
    /// Tokens of the prompts, at most; no token stands for less than a byte.
    prompt_tokens_max: u64,
    /// The same, about.
    prompt_tokens_expected: u64,
    /// Tokens of the answers, at most: what was asked for.
    output_tokens_max: Option<u64>,
    /// The same, about: 512 each, unless less was asked for.
    output_tokens_expected: u64,
    /// What the dearest of the workers may charge at most, and of those that check, if one is to: what is set aside.
    cost_max: String,
    /// What the first of both charges, about.
    cost_expected: String,
    /// What the key has left; none if nothing bounds it.
    left: Option<String>,
    /// Whether what is left covers the cheapest worker's worst.
    within_budget: bool,
    /// Who would be asked, in this order.
    workers: Vec<WorkerQuote>,
    /// Who would be asked to compute the answer too, if that is wanted and the first of `workers` answers.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    checked_by: Vec<WorkerQuote>,
}

/// What one worker would charge. Amounts are micro-credits, as decimal texts.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct WorkerQuote {
    /// Its key.
    worker: String,
    /// A million tokens of the prompt.
    price_prompt: String,
    /// A million tokens of the prompt that it has cached.
    price_cached: String,
    /// A million tokens of the answer.
    price_output: String,
    /// At most.
    cost_max: String,
    /// About.
    cost_expected: String,
}

/// What a chat or a completion would cost, by worker. Nothing is ordered.
#[utoipa::path(post, path = "/v1/quote", tag = "money", params(
        ("batch" = Option<bool>, Query, description = "Whether it would be a line of a batch: what idle workers ask for that."),
    ),
    request_body(content = serde_json::Value, description = "The body of a chat completion or of a completion."),
    responses(
        (status = 200, description = "By worker, and in all.", body = Quote),
        (status = "4XX", description = "The request could not be answered as it is.", body = ErrorBody),
        (status = "5XX", description = "Nobody could answer it now.", body = ErrorBody),
    ))]
pub(super) async fn quote_answer(
    State(shared): State<Arc<Shared>>,
    uri: Uri,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<Quote>, ApiError> {
    let tenant = Tenant::current(&shared.keys)?;
    let batch = quote_query(uri.query().unwrap_or(""))?;
    let Text { text, share: _share } = shared.intake.read(&headers, body).await?;
    let is_chat = Fields::body(&text)?.names().any(|name| name == "messages");
    let route = if is_chat { Route::Chat } else { Route::Completions };
    let today = CivilDate::from_unix_ms(unix_ms());
    let parsed = tokio::task::spawn_blocking(move || Ask::parse(&text, route, today)).await;
    let mut ask = parsed.map_err(|_| ApiError::bug("reading the body panicked"))??;
    ask.preferences.batch = batch;
    let model = shared.workers.resolve(&ask.model)?;
    guard::screen(&tenant, &mut ask, &model)?;
    let weighed = weigh(&shared, &ask, &model, tenant.affinity(ask.affinity()))?;
    let output = usual_output(&ask);
    let quotes = |weighed: &[(Candidate, Cost)]| {
        let quoted = weighed.iter().map(|(candidate, cost)| {
            let price = candidate.terms.as_ref().map_or(Price::ZERO, |terms| terms.price);
            WorkerQuote {
                worker: candidate.worker.key().to_string(),
                price_prompt: price.prompt.to_string(),
                price_cached: price.cached.to_string(),
                price_output: price.output.to_string(),
                cost_max: cost.worst.to_string(),
                cost_expected: cost.usual.to_string(),
            }
        });
        quoted.collect::<Vec<_>>()
    };
    let (workers, checked_by) = (quotes(&weighed.answers), quotes(&weighed.checks));
    let left = shared.keys.account(tenant.key()).and_then(|(_, account)| account.left());
    let worsts = weighed.worsts();
    let first = |weighed: &[(Candidate, Cost)]| weighed.first().map_or(0, |(_, cost)| cost.usual);
    let cheapest = worsts.iter().min().copied().unwrap_or(0);
    let answers = ask.answers() as u64;
    Ok(Json(Quote {
        object: "quote",
        model: model.name.clone(),
        choices: ask.choices,
        prompt_tokens_max: over_requests(&ask, |request| u128::from(prompt_tokens_bound(request))) as u64,
        prompt_tokens_expected: over_requests(&ask, |request| u128::from(expected(request))) as u64,
        output_tokens_max: ask.max_output_tokens.map(|tokens| u64::from(tokens) * answers),
        output_tokens_expected: u64::from(output) * answers,
        cost_max: worsts.iter().max().copied().unwrap_or(0).to_string(),
        cost_expected: first(&weighed.answers).saturating_add(first(&weighed.checks)).to_string(),
        within_budget: left.is_none_or(|left| cheapest <= left),
        left: left.map(|left| left.to_string()),
        workers,
        checked_by,
    }))
}

/// Whether a line of a batch is meant.
fn quote_query(query: &str) -> Result<bool, ApiError> {
    let mut batch = false;
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        batch = match pair.split_once('=').unwrap_or((pair, "")) {
            ("batch", "true") => true,
            ("batch", "false") => false,
            ("batch", value) => {
                let message = format!("`batch` is \"{}\". It must be `true` or `false`.", quote(value));
                return Err(ApiError::invalid("batch", message));
            }
            (name, _) => {
                let message = format!("There is no parameter `{}` here. There is `batch`.", quote(name));
                return Err(ApiError::new(Code::UnknownParameter, message).with_param(quote(name)));
            }
        };
    }
    Ok(batch)
}

/// Tokens of a prompt, about.
fn expected(request: &surety_types::Request) -> u32 {
    prompt_tokens_bound(request).div_ceil(BYTES_PER_TOKEN)
}

/// Output tokens of an answer, as such requests go.
fn usual_output(ask: &Ask) -> u32 {
    ask.max_output_tokens.unwrap_or(u32::MAX).min(OUTPUT_TOKENS_USUAL)
}

/// The sum over all prompts that are asked.
fn over_requests(ask: &Ask, count: impl Fn(&surety_types::Request) -> u128) -> u128 {
    ask.requests.iter().fold(0, |sum, request| sum.saturating_add(count(request)))
}

/// What a worker would charge for all that is asked of it, in micro-credits: at worst, and as such requests go.
pub(super) struct Cost {
    worst: u128,
    usual: u128,
}

/// Who may answer, best first, and who may check the first of them, if somebody is to.
pub(super) struct Weighed {
    answers: Vec<(Candidate, Cost)>,
    checks: Vec<(Candidate, Cost)>,
}

impl Weighed {
    /// The worst that each way of having it answered costs; what is checked is charged twice, each by another operator.
    pub(super) fn worsts(&self) -> Vec<u128> {
        if self.checks.is_empty() {
            return self.answers.iter().map(|(_, cost)| cost.worst).collect();
        }
        let pairs = self.answers.iter().flat_map(|(candidate, cost)| {
            let others = self.checks.iter().chain(&self.answers);
            let others = others.filter(|(other, _)| !candidate.worker.is_kin(&other.worker));
            others.map(|(_, check)| cost.worst.saturating_add(check.worst))
        });
        pairs.collect()
    }
}

/// Who would be asked, in this order, and what each would charge at most and about, in micro-credits.
pub(super) fn weigh(
    shared: &Shared,
    ask: &Ask,
    model: &Resolved,
    affinity: u64,
) -> Result<Weighed, ApiError> {
    let demand = Demand {
        model,
        preferences: &ask.preferences,
        max_output_tokens: ask.max_output_tokens,
        context_tokens_min: None,
        without: &[],
        apart: &[],
        affinity: Some(affinity),
        orders: ask.answers() as u32,
        trail: None,
    };
    // Nobody is charged for comparing what an upstream gives.
    let (answers, checks) = match ask.preferences.checked && model.arithmetic != NO_ARITHMETIC {
        true => shared.workers.has_others(&demand, &ask.preferences.of_check())?,
        false => (shared.workers.quoted(&demand)?, Vec::new()),
    };
    let choices = u128::from(ask.choices);
    let output = usual_output(ask);
    let cost = |candidate: Candidate| {
        let price = candidate.terms.as_ref().map_or(Price::ZERO, |terms| terms.price);
        let worst = over_requests(ask, |request| {
            worst_charge(request, 0, ask.max_output_tokens, candidate.context_tokens, &price)
        });
        let usual = over_requests(ask, |request| charge_max(&price, expected(request), output));
        let cost = Cost { worst: worst.saturating_mul(choices), usual: usual.saturating_mul(choices) };
        (candidate, cost)
    };
    let [answers, checks] = [answers, checks].map(|candidates| candidates.into_iter().map(cost).collect());
    Ok(Weighed { answers, checks })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_are_cells() {
        for (text, expected) in [
            ("tiny", "tiny"),
            ("a/b:c", "a/b:c"),
            ("a,b", "\"a,b\""),
            ("say \"x\"", "\"say \"\"x\"\"\""),
            ("=1+1", "\"'=1+1\""),
        ] {
            assert_eq!(cell(text), expected);
        }
    }

    #[test]
    fn parameters_are_known_or_named() {
        assert_eq!(usage_query("").expect("none"), (false, 0));
        assert_eq!(usage_query("format=csv&after=7").expect("both"), (true, 7));
        for query in ["format=xml", "after=x", "formt=csv", "a=b"] {
            assert!(usage_query(query).is_err(), "{query}");
        }
        let quoted = ["", "batch=true", "batch=false"].map(|query| quote_query(query).expect("known"));
        assert_eq!(quoted, [false, true, false]);
        for query in ["batch", "batch=1", "lane=batch"] {
            assert!(quote_query(query).is_err(), "{query}");
        }
    }
}
