//! Ollama: the protocol of its many clients.
//!
//! In:     requests under `/api`. Out: answers as lines of JSON, or one object; models; a version.
//! Touches: workers, through `generate`.
//! Holds:  a stream ends with a line whose `done` is true, after every receipt was checked, or with one that has an
//!         `error`. Nothing is pulled, made, copied or deleted here: models are the workers'.
//! Absent: errors' shape (`dialect`).

pub(super) mod embed;
pub(super) mod look;
pub(super) mod parameters;
mod read;
pub(super) mod shapes;
pub(super) mod wording;

use std::{sync::Arc, time::Instant};

use axum::{
    Json,
    body::Body,
    extract::{Extension, State},
    http::{HeaderMap, HeaderValue, header},
    response::{IntoResponse, Response},
};
use surety_types::CivilDate;

use self::{
    read::{Asked, Loaded},
    shapes::{OllamaChat, OllamaEmbed, OllamaEmbedding, OllamaGeneration, OllamaRest},
};
use super::{
    body::Text,
    dialect::OllamaErrorBody,
    generate::{self, Call},
    openapi::{OllamaChatRequest, OllamaGenerateRequest},
    parameters::Route,
    suffix, unix_ms,
};
use crate::{error::ApiError, gateway::Shared, id::RequestId, telemetry::TraceParent};

/// What every name has here, and names here have not.
const TAG: &str = ":latest";

/// Answer a conversation, as Ollama shapes it.
#[utoipa::path(post, path = "/api/chat", tag = "answers", request_body = OllamaChatRequest, responses(
    (status = 200, description = "Lines of JSON, the last with `done: true` or an `error`; with `stream: false`, one object.",
        content((OllamaChat<'static> = "application/x-ndjson"), (OllamaChat<'static> = "application/json"))),
    (status = "4XX", description = "The request cannot be answered as it is.", body = OllamaErrorBody),
    (status = "5XX", description = "It was not answered; `metadata` says who answers for that and whether a retry helps.", body = OllamaErrorBody),
))]
pub(super) async fn chat(
    State(shared): State<Arc<Shared>>,
    Extension(id): Extension<RequestId>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, ApiError> {
    let read = |text: &str, today, began| read::read(text, Route::OllamaChat, today, began);
    answer(shared, id, headers, body, read).await
}

/// Answer a prompt, or go on with a text, as Ollama shapes it.
#[utoipa::path(post, path = "/api/generate", tag = "answers", request_body = OllamaGenerateRequest, responses(
    (status = 200, description = "Lines of JSON, the last with `done: true` or an `error`; with `stream: false`, one object.",
        content((OllamaGeneration<'static> = "application/x-ndjson"), (OllamaGeneration<'static> = "application/json"))),
    (status = "4XX", description = "The request cannot be answered as it is.", body = OllamaErrorBody),
    (status = "5XX", description = "It was not answered; `metadata` says who answers for that and whether a retry helps.", body = OllamaErrorBody),
))]
pub(super) async fn generate(
    State(shared): State<Arc<Shared>>,
    Extension(id): Extension<RequestId>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, ApiError> {
    let read = |text: &str, today, began| read::read(text, Route::OllamaGenerate, today, began);
    answer(shared, id, headers, body, read).await
}

/// Answers what a reader understands of a body, by the day and the moment at which it came.
async fn answer(
    shared: Arc<Shared>,
    id: RequestId,
    headers: HeaderMap,
    body: Body,
    read: impl FnOnce(&str, CivilDate, Instant) -> Result<Asked, ApiError> + Send + 'static,
) -> Result<Response, ApiError> {
    let (began, received_ms, trace) = (Instant::now(), unix_ms(), TraceParent::of(&headers));
    let Text { text, share } = shared.intake.read_undeclared(&headers, body).await?;
    let today = CivilDate::from_unix_ms(received_ms);
    match generate::understand(text, move |text| read(text, today, began)).await? {
        Asked::Load { model, told } => {
            shared.workers.resolve(&served(&shared, model.clone()))?;
            Ok(loaded(&model, told))
        }
        Asked::Answer(mut ask) => {
            ask.model = served(&shared, ask.model);
            let call = Call { id, received_ms, today, trace, share };
            generate::start(shared, call, *ask, None).await?.respond().await
        }
    }
}

/// Says that a model is there. Nothing is loaded for it, and nothing unloaded.
fn loaded(model: &str, told: Loaded) -> Response {
    match told {
        Loaded::Text { chat, stream } => {
            let rest = OllamaRest { done: true, done_reason: Some("load"), ..OllamaRest::default() };
            let mut json = wording::object(model, chat, "", Vec::new(), rest);
            if stream {
                json.push(b'\n');
            }
            let mut response = Response::new(Body::from(json));
            let content_type = if stream { wording::LINES } else { "application/json" };
            response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
            response
        }
        Loaded::Vectors => Json(OllamaEmbed::nothing(model)).into_response(),
        Loaded::Vector => Json(OllamaEmbedding { embedding: Vec::new(), surety: None }).into_response(),
    }
}

/// The name under which a model is served, of one that may have Ollama's tag.
fn served(shared: &Shared, name: String) -> String {
    let bare = suffix::split(&name).0;
    match bare.strip_suffix(TAG) {
        Some(plain) if shared.workers.resolve(&bare).is_err() && shared.workers.resolve(plain).is_ok() => {
            // What suffixes wish for has been read.
            plain.to_owned()
        }
        _ => name,
    }
}
