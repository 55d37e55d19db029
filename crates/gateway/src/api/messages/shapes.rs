//! Shapes of messages: Anthropic's answers as JSON, with what we add.
//!
//! In:     values. Out: their JSON and their OpenAPI description.
//! Touches: nothing.
//! Holds:  every field that Anthropic's own clients require is there, null where we have nothing to say; what we add is in
//!         fields those clients ignore.

use serde::Serialize;
use serde_json::value::RawValue;
use utoipa::ToSchema;

use crate::api::shapes::{ModelNote, SuretyNote, Usage};

/// An answer.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Message<'a> {
    /// `msg_…`.
    pub(crate) id: &'a str,
    /// `message`.
    #[serde(rename = "type")]
    pub(crate) kind: &'static str,
    /// `assistant`.
    pub(crate) role: &'static str,
    /// The name of the model.
    pub(crate) model: &'a str,
    /// One text block, or where tools may be called what was said and called in its order; none in the message that begins a
    /// stream.
    pub(crate) content: Vec<ContentBlock<'a>>,
    /// `end_turn`, `max_tokens`, `stop_sequence`, `tool_use` or `model_context_window_exceeded`.
    pub(crate) stop_reason: Option<&'static str>,
    /// Which stop sequence ended the answer.
    pub(crate) stop_sequence: Option<&'a str>,
    pub(crate) usage: MessageUsage,
    /// Who answered.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) surety: Option<SuretyNote>,
}

/// A part of an answer.
#[derive(Debug, Serialize, ToSchema)]
#[serde(untagged)]
pub(crate) enum ContentBlock<'a> {
    Text(TextBlock<'a>),
    ToolUse(ToolUseBlock<'a>),
}

/// A call of a tool.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ToolUseBlock<'a> {
    /// `tool_use`.
    #[serde(rename = "type")]
    pub(crate) kind: &'static str,
    /// By which its result names it.
    pub(crate) id: &'a str,
    pub(crate) name: &'a str,
    /// An object, as the model wrote it; empty where the block begins in a stream.
    #[schema(value_type = Object)]
    pub(crate) input: &'a RawValue,
}

/// What was said.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct TextBlock<'a> {
    /// `text`.
    #[serde(rename = "type")]
    pub(crate) kind: &'static str,
    pub(crate) text: &'a str,
    /// Always null.
    pub(crate) citations: Option<&'static str>,
}

/// How many tokens it took.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
pub(crate) struct MessageUsage {
    /// Tokens of the prompt that came from no cache; before the end all of its tokens.
    pub(crate) input_tokens: u64,
    /// Always 0: keeping costs nothing.
    pub(crate) cache_creation_input_tokens: u64,
    /// Tokens of the prompt that came from a cache.
    pub(crate) cache_read_input_tokens: u64,
    /// Tokens of the answer.
    pub(crate) output_tokens: u64,
}

impl MessageUsage {
    /// Before anything was said.
    pub(super) fn of_prompt(tokens: u32) -> Self {
        Self {
            input_tokens: tokens.into(),
            cache_creation_input_tokens: 0,
            cache_read_input_tokens: 0,
            output_tokens: 0,
        }
    }

    /// At the end.
    pub(super) fn of(usage: &Usage) -> Self {
        let cached = usage.prompt_tokens_details.cached_tokens;
        Self {
            input_tokens: usage.prompt_tokens.saturating_sub(cached),
            cache_creation_input_tokens: 0,
            cache_read_input_tokens: cached,
            output_tokens: usage.completion_tokens,
        }
    }
}

/// An event of a stream.
#[derive(Debug, Serialize, ToSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(crate) enum MessageEvent<'a> {
    /// First.
    MessageStart { message: Message<'a> },
    /// Before a text or a call.
    ContentBlockStart { index: u32, content_block: ContentBlock<'a> },
    /// Says that the line is open.
    Ping,
    /// More of the text, or of the call's input.
    ContentBlockDelta { index: u32, delta: BlockDelta<'a> },
    /// The text or the call is whole.
    ContentBlockStop { index: u32 },
    /// How it ended, and what it took.
    MessageDelta {
        delta: StopDelta<'a>,
        usage: MessageUsage,
        #[serde(skip_serializing_if = "Option::is_none")]
        surety: Option<SuretyNote>,
    },
    /// Last.
    MessageStop,
}

impl MessageEvent<'_> {
    /// As the `event` line has it.
    pub(super) fn name(&self) -> &'static str {
        match self {
            MessageEvent::MessageStart { .. } => "message_start",
            MessageEvent::ContentBlockStart { .. } => "content_block_start",
            MessageEvent::Ping => "ping",
            MessageEvent::ContentBlockDelta { .. } => "content_block_delta",
            MessageEvent::ContentBlockStop { .. } => "content_block_stop",
            MessageEvent::MessageDelta { .. } => "message_delta",
            MessageEvent::MessageStop => "message_stop",
        }
    }
}

/// More of a block.
#[derive(Debug, Serialize, ToSchema)]
#[serde(untagged)]
pub(crate) enum BlockDelta<'a> {
    Text(TextDelta<'a>),
    Input(InputDelta<'a>),
}

/// More of a call's input.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct InputDelta<'a> {
    /// `input_json_delta`.
    #[serde(rename = "type")]
    pub(crate) kind: &'static str,
    /// Put together, they are one JSON object.
    pub(crate) partial_json: &'a str,
}

/// More of the text.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct TextDelta<'a> {
    /// `text_delta`.
    #[serde(rename = "type")]
    pub(crate) kind: &'static str,
    pub(crate) text: &'a str,
}

/// How an answer ended.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct StopDelta<'a> {
    /// As in the message.
    pub(crate) stop_reason: &'static str,
    /// As in the message.
    pub(crate) stop_sequence: Option<&'a str>,
}

/// How many tokens a prompt has.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct MessageTokens {
    /// As a worker counted them, by the model's own template and tokenizer.
    pub(crate) input_tokens: u32,
}

/// A page of the models there are, for those who send `anthropic-version`.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ModelPage {
    /// By name.
    pub(crate) data: Vec<ModelInfo>,
    /// Whether there are more in the direction asked for.
    pub(crate) has_more: bool,
    /// Of the page; to be sent as `before_id` for the page before it.
    pub(crate) first_id: Option<String>,
    /// Of the page; to be sent as `after_id` for the page after it.
    pub(crate) last_id: Option<String>,
}

/// A model, for those who send `anthropic-version`.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(crate) struct ModelInfo {
    /// `model`.
    #[serde(rename = "type")]
    pub(crate) kind: &'static str,
    /// The name to ask for.
    pub(crate) id: String,
    /// The same.
    pub(crate) display_name: String,
    /// When this gateway started.
    pub(crate) created_at: String,
    /// Always `active`.
    pub(crate) lifecycle: &'static str,
    /// Tokens that prompt and answer may take together.
    pub(crate) max_input_tokens: u32,
    /// The same.
    pub(crate) max_tokens: u32,
    /// More about it.
    pub(crate) surety: ModelNote,
}
