//! Shapes of Ollama's answers as JSON, with what we add.
//!
//! In:     values. Out: their JSON and their OpenAPI description.
//! Touches: nothing.
//! Holds:  every field that Ollama's own clients read is there if there is anything to say; what we add is in fields those
//!         clients ignore.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::{Value, value::RawValue};
use utoipa::ToSchema;

use crate::api::shapes::{ChatTokenLogprob, ModelNote, SuretyNote};

/// An answer to a conversation, or a piece of one.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct OllamaChat<'a> {
    /// As it was asked for.
    pub(crate) model: &'a str,
    /// RFC 3339.
    pub(crate) created_at: String,
    pub(crate) message: OllamaMessage<'a>,
    #[serde(flatten)]
    pub(crate) rest: OllamaRest,
}

/// What was said.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct OllamaMessage<'a> {
    /// `assistant`.
    pub(crate) role: &'static str,
    /// The text, or what is new of it.
    pub(crate) content: &'a str,
    /// What is called, each whole.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) tool_calls: Vec<OllamaCall>,
}

/// A call of a tool.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct OllamaCall {
    /// By which its result may name it.
    pub(crate) id: String,
    pub(crate) function: OllamaFunction,
}

/// Which function is called, and with what.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct OllamaFunction {
    /// Its place among the answer's calls.
    pub(crate) index: u32,
    pub(crate) name: String,
    /// An object, as the model wrote it.
    #[schema(value_type = Object)]
    pub(crate) arguments: Box<RawValue>,
}

/// An answer to a prompt, or a piece of one.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct OllamaGeneration<'a> {
    /// As it was asked for.
    pub(crate) model: &'a str,
    /// RFC 3339.
    pub(crate) created_at: String,
    /// The text, or what is new of it.
    pub(crate) response: &'a str,
    #[serde(flatten)]
    pub(crate) rest: OllamaRest,
}

/// What both end with.
#[derive(Debug, Default, Serialize, ToSchema)]
pub(crate) struct OllamaRest {
    /// If they were asked for: of the tokens whose text this is.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) logprobs: Vec<ChatTokenLogprob>,
    /// Whether this is the last.
    pub(crate) done: bool,
    /// In the last: `stop`, `length`, or `load` where nothing was asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) done_reason: Option<&'static str>,
    /// In the last: what it took.
    #[serde(flatten)]
    pub(crate) took: Option<OllamaTook>,
    /// In the last: who answered.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) surety: Option<SuretyNote>,
}

/// What an answer took, in nanoseconds and tokens, as the gateway measured it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
pub(crate) struct OllamaTook {
    /// From the request to the end.
    pub(crate) total_duration: u64,
    /// From the request until a worker had accepted it.
    pub(crate) load_duration: u64,
    /// Tokens of the prompt.
    pub(crate) prompt_eval_count: u64,
    /// From then until the first of the answer.
    pub(crate) prompt_eval_duration: u64,
    /// Tokens of the answer.
    pub(crate) eval_count: u64,
    /// From then to the end.
    pub(crate) eval_duration: u64,
}

/// The models there are.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct OllamaModels {
    /// By name.
    pub(crate) models: Vec<OllamaModel>,
}

/// A model.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct OllamaModel {
    /// The name to ask for.
    pub(crate) name: String,
    /// The same.
    pub(crate) model: String,
    /// When this gateway started.
    pub(crate) modified_at: String,
    /// Bytes of its files.
    pub(crate) size: u64,
    /// The digits of its immutable id.
    pub(crate) digest: String,
    pub(crate) details: OllamaDetails,
    /// Tokens that prompt and answer may take together.
    pub(crate) context_length: u32,
    /// More about it.
    pub(crate) surety: ModelNote,
}

/// What a model is like.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(crate) struct OllamaDetails {
    /// Always empty.
    pub(crate) parent_model: &'static str,
    /// `gguf`.
    pub(crate) format: &'static str,
    /// `llama`, `qwen2`, `qwen3`.
    pub(crate) family: String,
    /// The same.
    pub(crate) families: Vec<String>,
    /// As in 134.5M; empty where it holds tensors in a format whose size is not known.
    pub(crate) parameter_size: String,
    /// The format of most of its bytes.
    pub(crate) quantization_level: String,
}

/// All about a model.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct OllamaShow {
    /// Always empty: the template is part of the model, and is the workers'.
    pub(crate) template: &'static str,
    /// Always empty.
    pub(crate) parameters: &'static str,
    /// Always empty.
    pub(crate) modelfile: &'static str,
    pub(crate) details: OllamaDetails,
    /// What its header says, under the names it has there.
    pub(crate) model_info: BTreeMap<String, Value>,
    /// `completion`, and `tools` where its template shows it any.
    pub(crate) capabilities: Vec<&'static str>,
    /// When this gateway started.
    pub(crate) modified_at: String,
    /// More about it.
    pub(crate) surety: ModelNote,
}

/// Which of Ollama's versions this follows, and which software it is.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct OllamaVersion {
    /// As in `0.12.11+surety.1.0.0`.
    pub(crate) version: &'static str,
}

/// Vectors.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct OllamaEmbed<'a> {
    /// As it was asked for.
    pub(crate) model: &'a str,
    /// One for each input, of length one.
    pub(crate) embeddings: Vec<Vec<f32>>,
    /// Nanoseconds since the request came.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) total_duration: Option<u64>,
    /// Nanoseconds of them until a worker had accepted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) load_duration: Option<u64>,
    /// Tokens of the inputs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) prompt_eval_count: Option<u64>,
    /// Who computed them; none where nothing was asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) surety: Option<SuretyNote>,
}

impl<'a> OllamaEmbed<'a> {
    /// What is told where nothing was asked: the model is there.
    pub(crate) fn nothing(model: &'a str) -> Self {
        Self {
            model,
            embeddings: Vec::new(),
            total_duration: None,
            load_duration: None,
            prompt_eval_count: None,
            surety: None,
        }
    }
}

/// One vector, as Ollama's older route has it.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct OllamaEmbedding {
    /// Of length one; empty where nothing was asked.
    pub(crate) embedding: Vec<f32>,
    /// Who computed it; none where nothing was asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) surety: Option<SuretyNote>,
}
