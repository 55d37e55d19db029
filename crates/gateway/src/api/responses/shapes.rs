//! Shapes: OpenAI's responses, their events and lists as JSON, with what we add.
//!
//! In:     values. Out: their JSON and their OpenAPI description.
//! Touches: nothing.
//! Holds:  every field that OpenAI's own clients require is there, null where we have nothing to say.
//! Absent: deciding what goes into them (`record`, `live`).

use std::collections::BTreeMap;

use serde::{Serialize, Serializer};
use serde_json::value::RawValue;
use utoipa::ToSchema;

use crate::api::shapes::{SuretyNote, Usage};

/// A response.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ResponseObject<'a> {
    /// `resp_…`.
    pub(crate) id: String,
    /// `response`.
    pub(crate) object: &'static str,
    /// Unix seconds.
    pub(crate) created_at: u64,
    /// `queued`, `in_progress`, `completed`, `incomplete`, `failed` or `cancelled`.
    pub(crate) status: &'static str,
    /// Unix seconds; null unless it is completed.
    pub(crate) completed_at: Option<u64>,
    /// Whether it is made whether or not anybody waits for it.
    pub(crate) background: bool,
    /// Why it failed.
    #[schema(value_type = Option<ResponseFailure>)]
    pub(crate) error: Option<&'a RawValue>,
    /// Why it is incomplete.
    pub(crate) incomplete_details: Option<IncompleteDetails>,
    /// What was said first.
    pub(crate) instructions: Option<&'a str>,
    /// As asked.
    pub(crate) max_output_tokens: Option<u32>,
    /// Always null.
    pub(crate) max_tool_calls: Option<u32>,
    /// As asked.
    pub(crate) metadata: &'a BTreeMap<String, String>,
    /// The name of the model.
    pub(crate) model: &'a str,
    /// What was said: one message, or nothing yet.
    pub(crate) output: Vec<OutputMessage<'a>>,
    /// Always true; there are no tools.
    pub(crate) parallel_tool_calls: bool,
    /// The response it goes on from.
    pub(crate) previous_response_id: Option<String>,
    /// As asked.
    pub(crate) prompt_cache_key: Option<&'a str>,
    /// Always empty.
    pub(crate) reasoning: Reasoning,
    /// As asked.
    pub(crate) safety_identifier: Option<&'a str>,
    /// Always `default`.
    pub(crate) service_tier: &'static str,
    /// Whether it is kept.
    pub(crate) store: bool,
    /// What was applied.
    pub(crate) temperature: f32,
    /// Always plain text.
    pub(crate) text: TextConfig,
    /// Always `auto`; there are no tools.
    pub(crate) tool_choice: &'static str,
    /// Always empty.
    pub(crate) tools: [&'static str; 0],
    /// Always 0.
    pub(crate) top_logprobs: u8,
    /// What was applied.
    pub(crate) top_p: f32,
    /// Always `disabled`.
    pub(crate) truncation: &'static str,
    /// Token counts; null until it ended well.
    #[schema(value_type = Option<ResponseUsage>)]
    pub(crate) usage: Option<&'a RawValue>,
    /// As asked.
    pub(crate) user: Option<&'a str>,
    /// Who answered, once it ended well.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<SuretyNote>)]
    pub(crate) surety: Option<&'a RawValue>,
}

/// Why a response failed.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ResponseFailure {
    /// `server_error`, `rate_limit_exceeded` or `invalid_prompt`, the words that OpenAI's clients know.
    pub(crate) code: &'static str,
    /// What happened, who, what to do, and the request id.
    pub(crate) message: String,
    /// The family of the error.
    #[serde(rename = "type")]
    pub(crate) kind: &'static str,
    /// The parameter at fault, if one is.
    pub(crate) param: Option<String>,
    /// The stable code, as other routes give it.
    pub(crate) surety_code: &'static str,
    /// What programs may want to know.
    pub(crate) metadata: crate::error::ErrorMetadata,
}

/// Why a response is incomplete.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct IncompleteDetails {
    /// `max_output_tokens`.
    pub(crate) reason: &'static str,
}

/// What is not done here.
#[derive(Debug, Default, Serialize, ToSchema)]
pub(crate) struct Reasoning {
    /// Always null.
    pub(crate) effort: Option<&'static str>,
    /// Always null.
    pub(crate) summary: Option<&'static str>,
}

/// The form of the text.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct TextConfig {
    /// Plain text.
    pub(crate) format: TextFormat,
    /// Always `medium`.
    pub(crate) verbosity: &'static str,
}

/// Plain text.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct TextFormat {
    /// `text`.
    #[serde(rename = "type")]
    pub(crate) kind: &'static str,
}

/// How many tokens a response took.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ResponseUsage {
    /// Tokens of the prompt.
    pub(crate) input_tokens: u64,
    /// More about them.
    pub(crate) input_tokens_details: InputTokensDetails,
    /// Tokens of the output.
    pub(crate) output_tokens: u64,
    /// More about them.
    pub(crate) output_tokens_details: OutputTokensDetails,
    /// Their sum.
    pub(crate) total_tokens: u64,
}

/// More about the prompt's tokens.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct InputTokensDetails {
    /// Those that came from a cache.
    pub(crate) cached_tokens: u64,
    /// Always 0: nobody pays for what is put into a cache.
    pub(crate) cache_write_tokens: u64,
}

/// More about the output's tokens.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct OutputTokensDetails {
    /// Always 0: thoughts are part of the text here.
    pub(crate) reasoning_tokens: u64,
}

impl From<Usage> for ResponseUsage {
    fn from(usage: Usage) -> Self {
        Self {
            input_tokens: usage.prompt_tokens,
            input_tokens_details: InputTokensDetails {
                cached_tokens: usage.prompt_tokens_details.cached_tokens,
                cache_write_tokens: 0,
            },
            output_tokens: usage.completion_tokens,
            output_tokens_details: OutputTokensDetails {
                reasoning_tokens: usage.completion_tokens_details.reasoning_tokens,
            },
            total_tokens: usage.total_tokens,
        }
    }
}

/// What was said in a response.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct OutputMessage<'a> {
    /// `msg_…`.
    pub(crate) id: String,
    /// `message`.
    #[serde(rename = "type")]
    pub(crate) kind: &'static str,
    /// `in_progress`, `completed` or `incomplete`.
    pub(crate) status: &'static str,
    /// `assistant`.
    pub(crate) role: &'static str,
    /// One text; none in the event that begins the message.
    pub(crate) content: Vec<OutputText<'a>>,
}

/// A text of a response.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct OutputText<'a> {
    /// `output_text`.
    #[serde(rename = "type")]
    pub(crate) kind: &'static str,
    /// The text.
    pub(crate) text: &'a str,
    /// Always empty.
    pub(crate) annotations: [&'static str; 0],
    /// Always empty.
    pub(crate) logprobs: [&'static str; 0],
}

impl<'a> OutputText<'a> {
    pub(super) fn new(text: &'a str) -> Self {
        Self { kind: "output_text", text, annotations: [], logprobs: [] }
    }
}

/// An event of a stream, which the member that goes with its type describes.
#[derive(Debug, Default, Serialize, ToSchema)]
pub(crate) struct ResponseEvent<'a> {
    /// `response.created`, `response.output_text.delta`, …
    #[serde(rename = "type")]
    pub(crate) kind: &'static str,
    /// From 0, without a gap. What comes after the same number is the same, whoever reads it and whenever.
    pub(crate) sequence_number: u64,
    /// In the events of the response itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) response: Option<ResponseObject<'a>>,
    /// In `response.output_item.…`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) item: Option<OutputMessage<'a>>,
    /// In the events of the message: always 0.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) output_index: Option<u32>,
    /// In the events of the text: the message it belongs to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) item_id: Option<String>,
    /// In the events of the text: always 0.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) content_index: Option<u32>,
    /// In `response.content_part.…`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) part: Option<OutputText<'a>>,
    /// In `response.output_text.delta`: more text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) delta: Option<&'a str>,
    /// In `response.output_text.done`: all of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) text: Option<&'a str>,
    /// In `response.output_text.…`: always empty.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) logprobs: Option<[&'static str; 0]>,
}

/// What ends a stream that can be gone on with, or that nobody brought to its end.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct StreamError<'a> {
    /// `error`.
    #[serde(rename = "type")]
    pub(crate) kind: &'static str,
    /// The stable code.
    pub(crate) code: &'static str,
    /// What happened and what to do.
    pub(crate) message: &'a str,
    /// Always null.
    pub(crate) param: Option<&'static str>,
    /// Behind the events that were sent.
    pub(crate) sequence_number: u64,
    /// What programs may want to know.
    pub(crate) metadata: &'a crate::error::ErrorMetadata,
}

/// What is left of a response that was deleted.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct DeletedResponse {
    /// `resp_…`.
    pub(crate) id: String,
    /// `response`.
    pub(crate) object: &'static str,
    /// True.
    pub(crate) deleted: bool,
}

/// What a response answered.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct InputItems {
    /// `list`.
    pub(crate) object: &'static str,
    /// The latest first, unless asked otherwise.
    pub(crate) data: Vec<InputItem>,
    /// The first of `data`, or empty.
    pub(crate) first_id: String,
    /// The last of `data`, or empty; what comes behind it is got with `after`.
    pub(crate) last_id: String,
    /// Whether there are more behind it.
    pub(crate) has_more: bool,
}

/// A message that a response answered.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(crate) struct InputItem {
    /// `msg_…`.
    pub(crate) id: String,
    /// `message`.
    #[serde(rename = "type")]
    pub(crate) kind: &'static str,
    /// `completed`, or `incomplete` for what a response said that did not end well.
    pub(crate) status: &'static str,
    /// `user`, `assistant`, `system` or `developer`.
    pub(crate) role: &'static str,
    /// Its texts.
    pub(crate) content: Vec<InputPart>,
}

/// A text of a message.
#[derive(Debug, Clone, PartialEq, Eq, ToSchema)]
pub(crate) struct InputPart {
    /// Whether a model said it.
    pub(crate) is_output: bool,
    /// The text.
    pub(crate) text: String,
}

/// What a model said carries more members than what it was told.
impl Serialize for InputPart {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct InputText<'a> {
            #[serde(rename = "type")]
            kind: &'static str,
            text: &'a str,
        }
        if self.is_output {
            OutputText::new(&self.text).serialize(serializer)
        } else {
            InputText { kind: "input_text", text: &self.text }.serialize(serializer)
        }
    }
}
