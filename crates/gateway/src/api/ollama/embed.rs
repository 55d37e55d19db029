//! Embed: vectors, as Ollama's clients ask for them.
//!
//! In:     the body of `/api/embed` or of its older form `/api/embeddings`. Out: vectors.
//! Touches: workers, through `generate`.
//! Holds:  a text is never shortened to fit: it is refused.
//! Absent: the vectors' wording (`api/embeddings`).

use std::{sync::Arc, time::Instant};

use axum::{
    Json,
    body::Body,
    extract::{Extension, State},
    http::HeaderMap,
    response::{IntoResponse, Response},
};
use surety_types::{CivilDate, Embedding, Prompt, Sampling, Seed};

use super::{
    read::Options,
    served,
    shapes::{OllamaEmbed, OllamaEmbedding},
};
use crate::{
    api::{
        ask::{self, Ask, Form, Manner},
        body::Text,
        dialect::OllamaErrorBody,
        fields::{self, Fields},
        generate::{self, Call},
        openapi::{OllamaEmbedRequest, OllamaEmbeddingsRequest},
        parameters::{self as table, Route},
        provider, unix_ms,
    },
    error::ApiError,
    gateway::Shared,
    id::RequestId,
    route::preferences::Preferences,
    telemetry::TraceParent,
};

/// Turn texts into vectors of length one, as Ollama shapes them.
#[utoipa::path(post, path = "/api/embed", tag = "answers", request_body = OllamaEmbedRequest, responses(
    (status = 200, description = "A vector for each input.", body = OllamaEmbed<'static>),
    (status = "4XX", description = "The request cannot be answered as it is.", body = OllamaErrorBody),
    (status = "5XX", description = "It was not answered; `metadata` says who answers for that and whether a retry helps.", body = OllamaErrorBody),
))]
pub(crate) async fn embed(
    State(shared): State<Arc<Shared>>,
    Extension(id): Extension<RequestId>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, ApiError> {
    vectors(shared, id, Route::OllamaEmbed, headers, body).await
}

/// Turn one text into a vector, in the older form.
#[utoipa::path(post, path = "/api/embeddings", tag = "answers", request_body = OllamaEmbeddingsRequest, responses(
    (status = 200, description = "A vector.", body = OllamaEmbedding),
    (status = "4XX", description = "The request cannot be answered as it is.", body = OllamaErrorBody),
    (status = "5XX", description = "It was not answered; `metadata` says who answers for that and whether a retry helps.", body = OllamaErrorBody),
))]
pub(crate) async fn embeddings(
    State(shared): State<Arc<Shared>>,
    Extension(id): Extension<RequestId>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, ApiError> {
    vectors(shared, id, Route::OllamaEmbeddings, headers, body).await
}

async fn vectors(
    shared: Arc<Shared>,
    id: RequestId,
    route: Route,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, ApiError> {
    let (began, received_ms, trace) = (Instant::now(), unix_ms(), TraceParent::of(&headers));
    let Text { text, share } = shared.intake.read_undeclared(&headers, body).await?;
    let today = CivilDate::from_unix_ms(received_ms);
    let mut ask = generate::understand(text, move |text| read(text, route, today, began)).await?;
    let asked = ask.model.clone();
    ask.model = served(&shared, ask.model);
    if ask.requests.is_empty() {
        shared.workers.resolve(&ask.model)?;
        return Ok(nothing(&asked, route));
    }
    let call = Call { id, received_ms, today, trace, share };
    generate::start(shared, call, ask, None).await?.respond().await
}

/// Without a text, clients ask for a model to be loaded: it is there.
fn nothing(model: &str, route: Route) -> Response {
    if route == Route::OllamaEmbeddings {
        return Json(OllamaEmbedding { embedding: Vec::new(), surety: None }).into_response();
    }
    Json(OllamaEmbed {
        model,
        embeddings: Vec::new(),
        total_duration: None,
        load_duration: None,
        prompt_eval_count: None,
        surety: None,
    })
    .into_response()
}

/// What is asked for: of no text, nothing.
fn read(text: &str, route: Route, today: CivilDate, began: Instant) -> Result<Ask, ApiError> {
    let mut fields = Fields::body(text)?;
    table::screen(&mut fields, route)?;
    let fields = &mut fields;
    let model = ask::model(fields)?;
    // How an answer is drawn is read, and changes no vector.
    Options::read(fields)?;
    let ask::Extras { date, worker, deadline_ms } = ask::extras(fields)?;
    let preferences = Preferences { worker, ..provider::preferences(fields, &model)? };
    let (texts, form) = match route {
        Route::OllamaEmbeddings => {
            let wanted = Embedding { dimensions: None };
            (
                fields.string("prompt")?.into_iter().collect(),
                Form::Embedding { manner: Manner::OllamaOne, wanted },
            )
        }
        _ => {
            let manner = Manner::Ollama { began };
            (inputs(fields)?, Form::Embedding { manner, wanted: ask::dimensions(fields)? })
        }
    };
    assert_eq!(fields.names().next(), None, "a parameter of the table is not read");
    // One empty text is how clients say that there is none.
    let texts = if texts == [String::new()] { Vec::new() } else { texts };
    let request = |text| form.request(Prompt::Text(text), Vec::new(), date.unwrap_or(today));
    Ask {
        model,
        requests: texts.into_iter().map(request).collect(),
        choices: 1,
        sampling: Sampling::default(),
        seed: Seed::Nonce,
        max_output_tokens: Some(0),
        ignore_end: false,
        stream: false,
        include_usage: false,
        preferences,
        deadline_ms,
        form,
        tools: None,
    }
    .checked()
}

/// A text, or a list of texts.
fn inputs(fields: &mut Fields<'_>) -> Result<Vec<String>, ApiError> {
    const INPUT: &str = "input";
    match fields.take(INPUT) {
        None => Ok(Vec::new()),
        Some(raw) if fields::first_byte(raw) == b'"' => Ok(vec![fields::string(INPUT, raw)?]),
        Some(raw) if fields::first_byte(raw) == b'[' => ask::inputs(INPUT, raw),
        Some(raw) => Err(fields::wrong_type(INPUT, raw, "a text or a list of texts")),
    }
}
