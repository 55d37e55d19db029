//! OpenAPI: the description of this API for programs.
//!
//! In:     the annotations beside the handlers, the shapes, the table of parameters.
//! Out:    one JSON document.
//! Touches: nothing.
//! Holds:  every path of the router is in it; a test compares them.
//! Absent: prose. That is in the README.

use axum::Json;
use utoipa::{
    OpenApi, PartialSchema, ToSchema,
    openapi::{RefOr, Schema},
};

use super::{
    batches, files, generate, ledger, look,
    parameters::{self, Route},
    responses,
    shapes::{ChatCompletionChunk, Completion},
};
use crate::error::ErrorBody;

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Surety gateway",
        description = "The OpenAI API, with a signed receipt for every answer. What we add, stock clients ignore.",
        license(name = "MIT OR Apache-2.0"),
    ),
    paths(
        generate::chat_completions,
        generate::completions,
        generate::embeddings,
        files::create,
        files::list,
        files::get,
        files::content,
        files::delete,
        batches::create,
        batches::list,
        batches::get,
        batches::cancel,
        responses::create,
        responses::retrieve,
        responses::cancel,
        responses::delete,
        responses::input_items,
        look::models,
        look::model,
        look::receipt,
        ledger::receipt_ledger,
        look::network_status,
        look::health,
        look::metrics,
        look::ready,
    ),
    components(schemas(ChatCompletionRequest, CompletionRequest, EmbeddingRequest, CreateResponse, ChatCompletionChunk<'static>, Completion<'static>, ErrorBody)),
)]
struct Description;

/// The body of a chat request, as the table of parameters has it.
pub(super) struct ChatCompletionRequest;

/// The body of a request for vectors, as the table of parameters has it.
pub(super) struct EmbeddingRequest;

impl PartialSchema for EmbeddingRequest {
    fn schema() -> RefOr<Schema> {
        parameters::schema(Route::Embeddings)
    }
}

impl ToSchema for EmbeddingRequest {}

/// The body of a completion request, as the table of parameters has it.
pub(super) struct CompletionRequest;

impl PartialSchema for ChatCompletionRequest {
    fn schema() -> RefOr<Schema> {
        parameters::schema(Route::Chat)
    }
}

impl ToSchema for ChatCompletionRequest {}

impl PartialSchema for CompletionRequest {
    fn schema() -> RefOr<Schema> {
        parameters::schema(Route::Completions)
    }
}

impl ToSchema for CompletionRequest {}

/// The body of a request for a response, as the table of parameters has it.
pub(super) struct CreateResponse;

impl PartialSchema for CreateResponse {
    fn schema() -> RefOr<Schema> {
        parameters::schema(Route::Responses)
    }
}

impl ToSchema for CreateResponse {}

pub(super) async fn document() -> Json<utoipa::openapi::OpenApi> {
    Json(Description::openapi())
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    #[test]
    fn every_path_is_described() {
        let json = Description::openapi().to_json().expect("JSON");
        let document: Value = serde_json::from_str(&json).expect("JSON");
        let described: Vec<&str> =
            document["paths"].as_object().expect("paths").keys().map(String::as_str).collect();
        let expected = super::super::PATHS.iter().copied().filter(|path| !["/", "/openapi.json"].contains(path));
        for path in expected {
            assert!(described.contains(&path), "{path} is not in {described:?}");
        }
        assert_eq!(described.len(), super::super::PATHS.len() - 2);
        let chat = &document["components"]["schemas"]["ChatCompletionRequest"];
        assert_eq!(chat["properties"]["temperature"]["maximum"], 2.0);
        assert_eq!(chat["required"], serde_json::json!(["model", "messages"]));
    }
}
