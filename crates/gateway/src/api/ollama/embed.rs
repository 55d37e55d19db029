//! Embed: vectors, as Ollama's clients ask for them.
//!
//! In:     the body of `/api/embed` or of its older form `/api/embeddings`. Out: vectors.
//! Touches: workers, through `generate`.
//! Holds:  a text is never shortened to fit: it is refused.
//! Absent: the vectors' wording (`api/embeddings`).

use std::{sync::Arc, time::Instant};

use axum::{
    body::Body,
    extract::{Extension, State},
    http::HeaderMap,
    response::Response,
};
use surety_types::{CivilDate, Embedding, Prompt, Sampling, Seed};

use super::{
    answer,
    read::{Asked, Loaded, Options},
    shapes::{OllamaEmbed, OllamaEmbedding},
};
use crate::{
    api::{
        ask::{self, Ask, Form, Manner},
        dialect::OllamaErrorBody,
        fields::{self, Fields},
        openapi::{OllamaEmbedRequest, OllamaEmbeddingsRequest},
        parameters::{self as table, Route},
        provider,
    },
    error::ApiError,
    gateway::Shared,
    id::RequestId,
    route::preferences::Preferences,
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
    let read = |text: &str, today, began| read(text, Route::OllamaEmbed, today, began);
    answer(shared, id, headers, body, read).await
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
    let read = |text: &str, today, began| read(text, Route::OllamaEmbeddings, today, began);
    answer(shared, id, headers, body, read).await
}

/// What is asked for: without a text, clients ask for a model to be loaded.
fn read(text: &str, route: Route, today: CivilDate, began: Instant) -> Result<Asked, ApiError> {
    let mut fields = Fields::body(text)?;
    table::screen(&mut fields, route)?;
    let fields = &mut fields;
    let model = ask::model(fields)?;
    // How an answer is drawn is read, and changes no vector.
    Options::read(fields)?;
    let ask::Extras { date, worker, deadline_ms } = ask::extras(fields)?;
    let preferences = Preferences { worker, ..provider::preferences(fields, &model)? };
    let (texts, manner, wanted, told): (Vec<String>, _, _, _) = match route {
        Route::OllamaEmbeddings => {
            let text = fields.string("prompt")?.into_iter().collect();
            (text, Manner::OllamaOne, Embedding { dimensions: None }, Loaded::Vector)
        }
        _ => (inputs(fields)?, Manner::Ollama { began }, ask::dimensions(fields)?, Loaded::Vectors),
    };
    let form = Form::Embedding { manner, wanted };
    assert_eq!(fields.names().next(), None, "a parameter of the table is not read");
    // One empty text is how clients say that there is none.
    if texts.is_empty() || texts == [String::new()] {
        return Ok(Asked::Load { model, told });
    }
    let request = |text| form.request(Prompt::Text(text), Vec::new(), date.unwrap_or(today));
    let ask = Ask {
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
    };
    ask.checked().map(Box::new).map(Asked::Answer)
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
