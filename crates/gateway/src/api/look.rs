//! Look: what there is to see without asking a model anything.
//!
//! In:     GET requests. Out: models, workers, receipts, health.
//! Touches: the receipts on disk, to read.
//! Holds:  nothing here changes anything.
//! Absent: answers. That is `generate`.

use std::sync::Arc;

use axum::{
    Json,
    extract::{Path, State, rejection::PathRejection},
    http::{HeaderMap, Uri, header},
    response::{IntoResponse, Response},
};
use serde::Serialize;
use surety_types::{Evidence, Receipt, Signed};
use tracing::error;
use utoipa::ToSchema;

use super::{
    dialect,
    fields::quote,
    messages::{
        self,
        shapes::{ModelInfo, ModelPage},
    },
    money::may_see,
    nearest::nearest,
    shapes::{ClaimsReport, Health, IgnoredWorker, LedgerReport, Model, ModelList, NetworkStatus},
};
use crate::{
    SOFTWARE,
    error::{ApiError, Code, ErrorBody},
    gateway::Shared,
    id::RequestId,
    payer::{ClaimsState, Payer},
    route::chain,
};

const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
const COSE: &str = "application/cose";
const COSE_SIGN1: &str = "application/cose; cose-type=\"cose-sign1\"";

/// The models there are, as OpenAI shapes them or as Anthropic does.
#[derive(Serialize, ToSchema)]
#[serde(untagged)]
pub(super) enum ModelsAnswer {
    OpenAi(ModelList),
    Anthropic(ModelPage),
}

/// A model, as OpenAI shapes it or as Anthropic does.
#[derive(Serialize, ToSchema)]
#[serde(untagged)]
pub(super) enum ModelAnswer {
    OpenAi(Model),
    Anthropic(ModelInfo),
}

/// An error, as OpenAI shapes it or as Anthropic does.
#[derive(Serialize, ToSchema)]
#[serde(untagged)]
#[expect(dead_code, reason = "describes what `dialect` renders")]
enum EitherError {
    OpenAi(ErrorBody),
    Anthropic(dialect::MessageErrorBody),
}

/// What programs are told at `/`.
pub(super) fn welcome(shared: &Shared) -> String {
    let base = format!("http://{}/v1", shared.address);
    let models = shared.workers.models(shared.started);
    let model = models.first().map_or("MODEL", |model| model.id.as_str());
    format!(
        "This is a Surety gateway ({SOFTWARE}).\n\
         It speaks the APIs of OpenAI, Anthropic and Ollama, and hands out a signed receipt with every answer.\n\n\
         base URL    {base}\n\
         models      {base}/models\n\
         workers     {base}/network/status\n\
         chat        http://{}/ in a browser\n\
         all of it   http://{}/openapi.json\n\n\
         curl {base}/chat/completions -H 'content-type: application/json' \\\n  \
         -d '{{\"model\": \"{model}\", \"stream\": true, \"messages\": [{{\"role\": \"user\", \"content\": \"Hello\"}}]}}'\n",
        shared.address, shared.address,
    )
}

/// Whether the process runs.
#[utoipa::path(get, path = "/health", tag = "state", responses((status = 200, description = "It runs.", body = Health)))]
pub(super) async fn health() -> Json<Health> {
    Json(Health { status: "ok" })
}

/// Whether a request could be answered now.
#[utoipa::path(get, path = "/ready", tag = "state", responses(
    (status = 200, description = "A worker with a model is ready.", body = Health),
    (status = 503, description = "None is; the message says why.", body = ErrorBody),
))]
pub(super) async fn ready(State(shared): State<Arc<Shared>>) -> Result<Json<Health>, ApiError> {
    shared.open()?;
    shared.workers.unready()?;
    Ok(Json(Health { status: "ready" }))
}

/// What the gateway has done, in numbers, for Prometheus.
#[utoipa::path(get, path = "/metrics", tag = "state", responses((status = 200, description = "OpenMetrics text.", body = String, content_type = "application/openmetrics-text")))]
pub(super) async fn metrics(State(shared): State<Arc<Shared>>) -> Result<Response, ApiError> {
    let payments = shared.payments.as_ref().map(|payments| payments.sums().named()).unwrap_or_default();
    let page = shared.metrics.text(
        shared.active.count() as u64,
        &shared.workers.census(),
        &shared.keys.sums(),
        &payments,
    );
    let page = page.map_err(|_| ApiError::bug("the metrics cannot be written"))?;
    Ok(([(header::CONTENT_TYPE, OPEN_METRICS)], page).into_response())
}

/// The models that can be asked for; page by page, as Anthropic shapes them, if `anthropic-version` is sent.
#[utoipa::path(get, path = "/v1/models", tag = "models", params(
    ("anthropic-version" = Option<String>, Header, description = "Any: the answer is as Anthropic shapes it."),
    ("limit" = Option<usize>, Query, description = "With `anthropic-version`: how many to a page, 1 to 1000. Default 20."),
    ("after_id" = Option<String>, Query, description = "With `anthropic-version`: the page after this model."),
    ("before_id" = Option<String>, Query, description = "With `anthropic-version`: the page before this model."),
), responses(
    (status = 200, description = "By name.", body = ModelsAnswer),
    (status = "4XX", description = "There is no such page.", body = EitherError),
))]
pub(super) async fn models(
    State(shared): State<Arc<Shared>>,
    headers: HeaderMap,
    uri: Uri,
) -> Result<Json<ModelsAnswer>, ApiError> {
    let data = shared.workers.models(shared.started);
    if headers.contains_key(dialect::VERSION) {
        return Ok(Json(ModelsAnswer::Anthropic(messages::models::page(uri.query().unwrap_or(""), data)?)));
    }
    Ok(Json(ModelsAnswer::OpenAi(ModelList { object: "list", data })))
}

/// One model, by name, `name@<first digits of its id>`, or id.
#[utoipa::path(get, path = "/v1/models/{id}", tag = "models", params(("id" = String, Path, description = "A name, a pinned name, or an id.")), responses(
    (status = 200, description = "The model; as Anthropic shapes it, if `anthropic-version` is sent.", body = ModelAnswer),
    (status = "4XX", description = "No worker serves it.", body = EitherError),
    (status = 503, description = "No worker was heard yet.", body = EitherError),
))]
pub(super) async fn model(
    State(shared): State<Arc<Shared>>,
    headers: HeaderMap,
    asked: Result<Path<String>, PathRejection>,
) -> Result<Json<ModelAnswer>, ApiError> {
    let asked = path_text(asked)?;
    let resolved = shared.workers.resolve(&asked)?;
    let id = resolved.id.to_string();
    let mut known = shared.workers.models(shared.started).into_iter().filter(|model| model.surety.id == id);
    let plain = asked.split_once('@').map_or(asked.as_str(), |(name, _)| name);
    let found = known.clone().find(|model| model.id == plain).or_else(|| known.next());
    // Between the two looks the worker may have gone.
    let found = found.ok_or_else(|| {
        ApiError::new(Code::ModelUnknown, "No worker serves it any more.").with_param("model")
    })?;
    Ok(Json(match headers.contains_key(dialect::VERSION) {
        true => ModelAnswer::Anthropic(messages::models::info(found)),
        false => ModelAnswer::OpenAi(found),
    }))
}

/// The workers, as far as this gateway knows.
#[utoipa::path(get, path = "/v1/network/status", tag = "network", responses((status = 200, description = "The workers.", body = NetworkStatus)))]
pub(super) async fn network_status(State(shared): State<Arc<Shared>>) -> Json<NetworkStatus> {
    Json(NetworkStatus {
        gateway: shared.key.public().to_string(),
        software: SOFTWARE,
        active_requests: shared.active.count() as u64,
        workers: shared.workers.report(),
        ledger: shared.workers.payer().map(|payer| ledger_report(payer)),
    })
}

fn ledger_report(payer: &Payer) -> LedgerReport {
    let standing = payer.standing();
    let (problem, hint) = standing.problem.unzip();
    let ignored = standing.ignored.into_iter().map(|(id, reason)| IgnoredWorker { id, reason }).collect();
    LedgerReport {
        account: payer.account().address().to_string(),
        block: standing.block,
        problem,
        hint,
        ignored,
        claims: claims_report(&payer.claims_state()),
    }
}

fn claims_report(state: &ClaimsState) -> ClaimsReport {
    ClaimsReport {
        waiting: state.waiting,
        open: state.open,
        compensated: state.compensated,
        answered: state.answered,
        failed: state.failed,
        dropped: state.dropped,
        compensation_wei: state.compensation.to_string(),
        refunds_wei: state.collected.to_string(),
    }
}

/// The evidence of an answered request.
///
/// JSON that `surety verify` reads; or, with `accept: application/cose`, one worker's signed receipt.
#[utoipa::path(get, path = "/v1/receipts/{id}", tag = "receipts", params(
    ("id" = String, Path, description = "`req_…`, `chatcmpl-…` or `cmpl-…`."),
    ("choice" = Option<usize>, Query, description = "Which answer's receipt, with `application/cose`. Default 0."),
), responses(
    (status = 200, description = "The evidence.", content((serde_json::Value = "application/json"), (Vec<u8> = "application/cose"))),
    (status = "4XX", description = "Nothing is kept under that id, or no such answer or form of it.", body = ErrorBody),
))]
pub(super) async fn receipt(
    State(shared): State<Arc<Shared>>,
    asked: Result<Path<String>, PathRejection>,
    headers: HeaderMap,
    uri: Uri,
) -> Result<Response, ApiError> {
    let accept = headers.get(header::ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or("*/*");
    let form = Form::wanted(accept).ok_or_else(|| {
        let message = format!(
            "`accept` is \"{}\". Receipts come as application/json or application/cose.",
            quote(accept)
        );
        ApiError::new(Code::NotAcceptable, message)
    })?;
    let choice = choice(uri.query().unwrap_or(""))?;
    let (id, json) = kept(&shared, asked).await?;
    match form {
        Form::Json => Ok(([(header::CONTENT_TYPE, "application/json")], json).into_response()),
        Form::Cose => {
            let evidence = readable(id, &json)?;
            // The one that brought each answer to its end.
            let is_end = |receipt: &Vec<u8>| {
                Signed::<Receipt>::peek_value(receipt).is_ok_and(|(receipt, _)| receipt.failure().is_none())
            };
            let answers = evidence.answers.into_iter().filter_map(|answer| answer.receipt);
            let mut receipts: Vec<Vec<u8>> = answers.filter(is_end).collect();
            let count = receipts.len();
            let receipt = (choice < count).then(|| receipts.swap_remove(choice)).ok_or_else(|| {
                let message = format!("`choice` is {choice}; {id} has {count} answers, counted from 0.");
                ApiError::invalid("choice", message)
            })?;
            Ok(([(header::CONTENT_TYPE, COSE_SIGN1)], receipt).into_response())
        }
    }
}

/// The request that a path names, and the JSON of its evidence.
pub(super) async fn kept(
    shared: &Arc<Shared>,
    asked: Result<Path<String>, PathRejection>,
) -> Result<(RequestId, Vec<u8>), ApiError> {
    let asked = path_text(asked)?;
    let Some(id) = RequestId::parse(&asked) else {
        let message = format!(
            "\"{}\" is not a request id. Ids look like req_ and 32 digits, as in `x-request-id`.",
            quote(&asked),
        );
        return Err(ApiError::new(Code::NotFound, message).with_param("id"));
    };
    if !may_see(shared, id).await? {
        let message = format!(
            "Nothing is kept for {id} that was asked with this key: it was another's, it failed, or it is too old."
        );
        return Err(ApiError::new(Code::NotFound, message).with_param("id"));
    }
    let receipts = shared.receipts.clone();
    let found = tokio::task::spawn_blocking(move || receipts.find(id)).await;
    let found = found.map_err(|_| ApiError::bug("reading receipts panicked"))?.map_err(|error| {
        error!(error = chain(&error), "receipts cannot be read");
        ApiError::bug("the receipts on its disk cannot be read")
    })?;
    let json = found.ok_or_else(|| {
        let message = if shared.active.contains(id) {
            format!("{id} is still being answered. Ask again when it has ended.")
        } else {
            format!("Nothing is kept for {id}: it was not answered here, it failed, or it is too old.")
        };
        ApiError::new(Code::NotFound, message).with_param("id")
    })?;
    Ok((id, json))
}

/// Kept evidence, read.
pub(super) fn readable(id: RequestId, json: &[u8]) -> Result<Evidence, ApiError> {
    Evidence::parse(json).map_err(|error| {
        error!(request = %id, error = chain(&error), "kept evidence cannot be read");
        ApiError::bug("kept evidence cannot be read")
    })
}

/// The variable part of a path.
pub(super) fn path_text(path: Result<Path<String>, PathRejection>) -> Result<String, ApiError> {
    let Path(text) =
        path.map_err(|_| ApiError::new(Code::NotFound, "The path is not UTF-8. Encode it as such."))?;
    Ok(text)
}

/// In which form a receipt is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    Json,
    Cose,
}

impl Form {
    /// The first of the accepted forms that there is.
    fn wanted(accept: &str) -> Option<Form> {
        accept.split(',').find_map(|range| {
            let essence = range.split(';').next().unwrap_or("").trim();
            match essence.to_ascii_lowercase().as_str() {
                COSE => Some(Form::Cose),
                "application/json" | "application/*" | "*/*" | "" => Some(Form::Json),
                _ => None,
            }
        })
    }
}

fn choice(query: &str) -> Result<usize, ApiError> {
    let mut choice = 0;
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        if name != "choice" {
            let message = match nearest(name, ["choice"].into_iter()) {
                Some(near) => format!("There is no parameter `{}` here. Did you mean `{near}`?", quote(name)),
                None => format!("There is no parameter `{}` here. There is only `choice`.", quote(name)),
            };
            return Err(ApiError::new(Code::UnknownParameter, message).with_param(quote(name)));
        }
        choice = value.parse().map_err(|_| {
            ApiError::invalid(
                "choice",
                format!("`choice` is \"{}\". It must be an integer from 0.", quote(value)),
            )
        })?;
    }
    Ok(choice)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_form_there_is_counts() {
        for (accept, form) in [
            ("*/*", Some(Form::Json)),
            ("", Some(Form::Json)),
            ("application/json", Some(Form::Json)),
            ("Application/COSE", Some(Form::Cose)),
            ("text/html, application/cose; q=0.9, */*", Some(Form::Cose)),
            ("text/html", None),
        ] {
            assert_eq!(Form::wanted(accept), form, "{accept}");
        }
    }

    #[test]
    fn a_choice_is_a_number() {
        assert_eq!(choice("").expect("none"), 0);
        assert_eq!(choice("choice=3").expect("three"), 3);
        for query in ["choice=", "choice=-1", "choice=x", "chioce=1", "a=b", "choice=1&a=b"] {
            assert!(choice(query).is_err(), "{query}");
        }
    }
}
