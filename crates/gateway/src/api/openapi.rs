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
    openapi::{
        KnownFormat, ObjectBuilder, RefOr, Schema, SchemaFormat,
        schema::{SchemaType, Type},
    },
};

use super::{
    account, batches,
    dialect::{MessageErrorBody, OllamaErrorBody},
    earnings, explanation, explorer, files, generate, hub, ledger, look, mcp,
    messages::{self, shapes::MessageEvent},
    money, names, network, ollama,
    parameters::{self, Route},
    responses,
    shapes::{ChatCompletionChunk, Completion},
    standing, surveys, x402,
};
use crate::error::ErrorBody;

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Surety gateway",
        description = "The APIs of OpenAI, Anthropic and Ollama, with a signed receipt for every answer. What we add, stock clients ignore.",
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
        responses::compact,
        responses::input_tokens,
        responses::retrieve,
        responses::cancel,
        responses::delete,
        responses::input_items,
        messages::create,
        messages::count_tokens,
        ollama::chat,
        ollama::generate,
        ollama::embed::embed,
        ollama::embed::embeddings,
        ollama::look::show,
        ollama::look::tags,
        ollama::look::running,
        ollama::look::version,
        hub::models,
        hub::about,
        hub::about_at,
        hub::refs,
        hub::tree,
        hub::file,
        hub::whoami,
        look::models,
        look::model,
        look::receipt,
        ledger::receipt_ledger,
        explanation::explanation,
        mcp::serve,
        look::network_status,
        explorer::account,
        explorer::block,
        explorer::blocks,
        explorer::dispute,
        explorer::disputes,
        explorer::find,
        explorer::transaction,
        surveys::economics,
        surveys::governance,
        surveys::powers,
        network::live,
        names::names,
        network::operator,
        standing::standing,
        earnings::earnings,
        network::service,
        look::health,
        look::metrics,
        look::ready,
        money::credits,
        money::usage,
        account::key,
        account::buckets,
        account::requests,
        money::generation,
        money::quote_answer,
        x402::buy,
    ),
    components(schemas(
        ChatCompletionRequest,
        CompletionRequest,
        EmbeddingRequest,
        CreateResponse,
        CountResponse,
        BatchRequest,
        FileForm,
        MessageRequest,
        CountTokensRequest,
        OllamaChatRequest,
        OllamaGenerateRequest,
        OllamaEmbedRequest,
        OllamaEmbeddingsRequest,
        OllamaShowRequest,
        ChatCompletionChunk<'static>,
        Completion<'static>,
        MessageEvent<'static>,
        MessageErrorBody,
        OllamaErrorBody,
        ErrorBody,
    )),
)]
struct Description;

/// Bodies, as the table of parameters has them.
macro_rules! bodies {
    ($($name:ident: $route:ident, $about:literal;)*) => {$(
        #[doc = $about]
        pub(super) struct $name;

        impl PartialSchema for $name {
            fn schema() -> RefOr<Schema> {
                parameters::schema(Route::$route)
            }
        }

        impl ToSchema for $name {}
    )*};
}

bodies! {
    ChatCompletionRequest: Chat, "The body of a chat request.";
    CompletionRequest: Completions, "The body of a completion request.";
    EmbeddingRequest: Embeddings, "The body of a request for vectors.";
    CreateResponse: Responses, "The body of a request for a response.";
    CountResponse: ResponseTokens, "The body of a request to count what a response would be asked for.";
    BatchRequest: Batches, "The body of a request for a batch.";
    MessageRequest: Messages, "The body of a message request.";
    CountTokensRequest: CountTokens, "The body of a request to count.";
    OllamaChatRequest: OllamaChat, "The body of a chat request of Ollama's.";
    OllamaGenerateRequest: OllamaGenerate, "The body of a generate request of Ollama's.";
    OllamaEmbedRequest: OllamaEmbed, "The body of a request for vectors of Ollama's.";
    OllamaEmbeddingsRequest: OllamaEmbeddings, "The body of a request for a vector of Ollama's older form.";
    OllamaShowRequest: OllamaShow, "The body of a request for a model of Ollama's.";
}

/// The form that a file comes in.
pub(super) struct FileForm;

impl PartialSchema for FileForm {
    fn schema() -> RefOr<Schema> {
        let text = |about| ObjectBuilder::new().schema_type(Type::String).description(Some(about));
        let file =
            text("JSONL, a request each line.").format(Some(SchemaFormat::KnownFormat(KnownFormat::Binary)));
        let expires_after = ObjectBuilder::new().schema_type(SchemaType::AnyValue);
        ObjectBuilder::new()
            .property("purpose", text("What it is for.").enum_values(Some(["batch"])))
            .property("file", file)
            .property("expires_after", expires_after.description(Some(parameters::NOT_SUPPORTED)))
            .required("purpose")
            .required("file")
            .into()
    }
}

impl ToSchema for FileForm {}

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
        let undescribed = ["/", "/openapi.json", super::super::pages::PATH];
        let expected = super::super::PATHS.iter().copied().filter(|path| !undescribed.contains(path));
        for path in expected {
            assert!(described.contains(&path), "{path} is not in {described:?}");
        }
        assert_eq!(described.len(), super::super::PATHS.len() - undescribed.len());
        let chat = &document["components"]["schemas"]["ChatCompletionRequest"];
        assert_eq!(chat["properties"]["temperature"]["maximum"], 2.0);
        assert_eq!(chat["required"], serde_json::json!(["model", "messages"]));
    }
}
