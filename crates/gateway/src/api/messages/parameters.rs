//! Parameters of messages: every name a body may hold, and what becomes of it.
//!
//! In, out: the rows of the table (`api/parameters`) for Anthropic's two routes.
//! Holds:  a name is ignored only if the answer would be the same without it.

use crate::api::parameters::{Parameter, Route, Shape, Treatment};

pub(super) const TEMPERATURE: std::ops::RangeInclusive<f32> = 0.0..=1.0;
pub(super) const TOP_K: std::ops::RangeInclusive<i64> = 0..=i32::MAX as i64;
pub(super) const TOKENS: std::ops::RangeInclusive<i64> = 1..=i32::MAX as i64;

const MESSAGES: &[Route] = &[Route::Messages];
const BOTH: &[Route] = &[Route::Messages, Route::CountTokens];

const fn taken(name: &'static str, routes: &'static [Route], shape: Shape, about: &'static str) -> Parameter {
    Parameter { name, routes, treatment: Treatment::Taken, shape, about }
}

const fn examined(name: &'static str, about: &'static str) -> Parameter {
    Parameter { name, routes: BOTH, treatment: Treatment::Examined, shape: Shape::Any, about }
}

const fn ignored(name: &'static str, routes: &'static [Route]) -> Parameter {
    let about = "Accepted and ignored: the answer is the same without it.";
    Parameter { name, routes, treatment: Treatment::Ignored, shape: Shape::Any, about }
}

const fn refused(name: &'static str, instead: &'static str) -> Parameter {
    let about = "Not supported: refused rather than ignored, because it asks for another answer.";
    Parameter { name, routes: BOTH, treatment: Treatment::Refused(instead), shape: Shape::Any, about }
}

/// The rows.
pub(crate) const PARAMETERS: &[Parameter] = &[
    taken(
        "model",
        BOTH,
        Shape::Text,
        "A served name, `name@<first 8 or more digits of the id>`, or a whole id; `:nitro`, `:floor` and `:verified` may follow.",
    ),
    taken(
        "messages",
        BOTH,
        Shape::Any,
        "The conversation: `role` is `user`, `assistant` or `system`; `content` is a text or a list of text blocks, which are \
         joined as they stand; the assistant's may have `tool_use` blocks, the user's begins with their `tool_result`s. Messages of one role that follow each other are one turn, with an empty line between them. \
         The last must not be the assistant's.",
    ),
    taken("system", BOTH, Shape::Any, "A text or a list of text blocks, which are joined as they stand."),
    taken("max_tokens", MESSAGES, Shape::Integer(TOKENS), "Output tokens, at most. Required."),
    taken("temperature", MESSAGES, Shape::Number(TEMPERATURE), "0 takes the likeliest token. Default 1."),
    taken("top_p", MESSAGES, Shape::Number(crate::api::parameters::PROBABILITY), "Default 1, which is off."),
    taken("top_k", MESSAGES, Shape::Integer(TOP_K), "Only the k likeliest tokens. Default 0, which is off."),
    taken(
        "stop_sequences",
        MESSAGES,
        Shape::Texts,
        "Up to 16 texts; the answer ends before the first to appear, and `stop_sequence` names it.",
    ),
    taken("stream", MESSAGES, Shape::Flag, "Answer in server-sent events."),
    taken(
        "surety",
        BOTH,
        Shape::Any,
        "`date` (YYYY-MM-DD, for templates that mention today), `worker` (first 8 or more digits of its key), `deadline_ms` (for the whole answer).",
    ),
    taken(
        "provider",
        BOTH,
        Shape::Provider,
        "What is wanted of whoever answers, as OpenRouter spells it. Workers are named by the first 8 or more digits of \
         their keys, operators by 0x and those of their addresses.",
    ),
    taken(
        "tools",
        BOTH,
        Shape::Any,
        "What the model may call, up to 128, if its chat template shows it any: `name`, `description`, `input_schema`. Tools that \
         are executed by whoever answers are refused; `strict: true` is for `tool_choice` other than `auto`.",
    ),
    taken(
        "tool_choice",
        BOTH,
        Shape::Any,
        "`type` `auto`; `none`, with which the model is shown no tools; `any`, or `tool` with its `name`, with which the answer is a \
         call by construction, of an input that meets the schema. `disable_parallel_tool_use`: at most one call.",
    ),
    examined("thinking", "Only `{\"type\": \"disabled\"}`: thoughts are part of the text here."),
    taken(
        "output_config",
        BOTH,
        Shape::Any,
        "`format` of `type` `json_schema`, whose `schema` the answer meets by construction. `effort` is refused.",
    ),
    examined("speed", "Only `standard`."),
    ignored("cache_control", BOTH),
    ignored("metadata", MESSAGES),
    ignored("service_tier", MESSAGES),
    ignored("user_profile_id", BOTH),
    refused("container", "Leave it out; nothing is executed here."),
    refused("context_management", "Leave it out; a prompt is never shortened here. Send what is to be read."),
    refused("diagnostics", "Leave it out; nothing is known here about earlier requests."),
    refused("inference_geo", "Use `provider.region`."),
    refused("mcp_servers", "Leave it out; call the servers yourself and put what they said into `messages`."),
];
