//! Shapes: OpenAI's responses, their events and lists as JSON, with what we add.
//!
//! In:     values. Out: their JSON and their OpenAPI description.
//! Touches: nothing.
//! Holds:  every field that OpenAI's own clients require is there, null where we have nothing to say.
//! Absent: deciding what goes into them (`record`, `live`).

use std::{borrow::Cow, collections::BTreeMap};

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
    /// What was said and called, in that order; nothing yet.
    pub(crate) output: Vec<OutputItem<'a>>,
    /// As asked.
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
    /// Its form.
    pub(crate) text: TextConfig<'a>,
    /// As asked.
    #[schema(value_type = Value)]
    pub(crate) tool_choice: &'a RawValue,
    /// As asked.
    #[schema(value_type = Vec<Value>)]
    pub(crate) tools: &'a RawValue,
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
pub(crate) struct TextConfig<'a> {
    /// As asked.
    #[schema(value_type = Value)]
    pub(crate) format: &'a RawValue,
    /// Always `medium`.
    pub(crate) verbosity: &'static str,
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

/// How many tokens a request for a response has.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ResponseTokens {
    /// `response.input_tokens`.
    pub(crate) object: &'static str,
    /// Tokens of the prompt, the template's own included.
    pub(crate) input_tokens: u32,
}

/// One item of what a response came to.
#[derive(Debug, Serialize, ToSchema)]
#[serde(untagged)]
pub(crate) enum OutputItem<'a> {
    /// What was said.
    Message(OutputMessage<'a>),
    /// What was called.
    Call(CallItem<'a>),
}

/// A call of a function.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(crate) struct CallItem<'a> {
    /// `fc_…`.
    pub(crate) id: String,
    /// `function_call`.
    #[serde(rename = "type")]
    pub(crate) kind: &'static str,
    /// `in_progress` or `completed`.
    pub(crate) status: &'static str,
    /// What the function's output is to name.
    #[schema(value_type = String)]
    pub(crate) call_id: Cow<'a, str>,
    /// The function.
    #[schema(value_type = String)]
    pub(crate) name: Cow<'a, str>,
    /// A JSON object, as the model wrote it; empty in the event that begins the call.
    #[schema(value_type = String)]
    pub(crate) arguments: Cow<'a, str>,
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
    pub(crate) item: Option<OutputItem<'a>>,
    /// In the events of an item: its place in `output`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) output_index: Option<u32>,
    /// In the events of a text or of arguments: the item they belong to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) item_id: Option<String>,
    /// In the events of the text: always 0.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) content_index: Option<u32>,
    /// In `response.content_part.…`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) part: Option<OutputText<'a>>,
    /// In `response.output_text.delta`: more text; in `response.function_call_arguments.delta`: the arguments.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) delta: Option<&'a str>,
    /// In `response.output_text.done`: all of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) text: Option<&'a str>,
    /// In `response.function_call_arguments.done`: all of them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) arguments: Option<&'a str>,
    /// In `response.function_call_arguments.done`: the function.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) name: Option<&'a str>,
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

/// One item that a response answered.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[serde(untagged)]
pub(crate) enum InputItem {
    /// What was said.
    Message(InputMessage),
    /// What was called.
    Call(CallItem<'static>),
    /// What a function said.
    Result(CallOutput),
}

impl InputItem {
    pub(super) fn id(&self) -> &str {
        match self {
            InputItem::Message(message) => &message.id,
            InputItem::Call(call) => &call.id,
            InputItem::Result(result) => &result.id,
        }
    }
}

/// A message that a response answered.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(crate) struct InputMessage {
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

/// What a function said.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(crate) struct CallOutput {
    /// `fco_…`.
    pub(crate) id: String,
    /// `function_call_output`.
    #[serde(rename = "type")]
    pub(crate) kind: &'static str,
    /// `completed`.
    pub(crate) status: &'static str,
    /// The call it answers.
    pub(crate) call_id: String,
    /// The text.
    pub(crate) output: String,
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
