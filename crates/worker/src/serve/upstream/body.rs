//! Body: an order in OpenAI's words.
//!
//! In:     an order and its request. Out: the path and the JSON that ask an upstream for the same; or which parameter it
//!         would not be kept by.
//! Touches: nothing.
//! Holds:  every parameter of the order is in the JSON, is at the value that means nothing, or is refused by its name.

use serde_json::{Map, Value, json};
use surety_types::{FailureCode, Message, Order, Prompt, Request, Seed};

use super::{Extra, Shared};
use crate::serve::admission::{Admitted, Refusal};

/// What an upstream is asked.
pub(super) struct Call {
    pub(super) path: &'static str,
    pub(super) body: Value,
    /// What ends the text, also if the upstream does not keep to it.
    pub(super) stop: Vec<String>,
    /// Output tokens, at most.
    pub(super) limit: u32,
}

/// Refuses what no upstream is trusted with, or this one does not take.
pub(super) fn refuse(order: &Order, request: &Request, takes: &[Extra]) -> Result<(), Refusal> {
    let sampling = &order.sampling;
    let has_tools = matches!(&request.prompt, Prompt::Chat { tools, .. } if !tools.is_empty());
    let unsupported = [
        (matches!(request.prompt, Prompt::Tokens(_)), "a prompt of token ids"),
        (has_tools, "`tools`"),
        (request.logprobs.is_some(), "`logprobs`"),
        (request.prompt_logprobs.is_some(), "log-probabilities of the prompt"),
        (request.grammar.is_some() || sampling.grammar.is_some(), "`response_format`, or another grammar"),
        (request.embedding.is_some(), "an embedding"),
        (!sampling.logit_bias.is_empty(), "`logit_bias`"),
        (order.ignore_end, "going on past the end (`ignore_eos`)"),
        (order.max_output_tokens == 0, "a limit of 0 tokens: it cannot count a prompt without answering it"),
    ];
    let extras = Extra::ALL.into_iter().filter(|extra| !takes.contains(extra));
    let extras = extras.map(|extra| (is_used(extra, order), format!("`{}`", extra.name())));
    let unsupported = unsupported.map(|(used, what)| (used, what.to_owned()));
    match unsupported.into_iter().chain(extras).find(|(used, _)| *used) {
        Some((_, what)) => {
            let message =
                format!("the operator's upstream does not take {what}; leave it out, or ask another model");
            Err(Refusal::new(FailureCode::BadRequest, message))
        }
        None => Ok(()),
    }
}

fn is_used(extra: Extra, order: &Order) -> bool {
    let sampling = &order.sampling;
    match extra {
        Extra::TopK => sampling.top_k != 0,
        Extra::MinP => sampling.min_p != 0.0,
        Extra::RepetitionPenalty => sampling.repetition_penalty != 1.0,
    }
}

impl Call {
    /// What `refuse` let through.
    pub(super) fn of(upstream: &Shared, order: &Order, admitted: Admitted) -> Call {
        let Admitted { request, max_output_tokens: limit, .. } = admitted;
        let mut body = Map::new();
        body.insert("model".into(), json!(upstream.model));
        let (path, whole_context) = match &request.prompt {
            Prompt::Chat { messages, .. } => {
                body.insert("messages".into(), messages.iter().map(message).collect());
                ("/chat/completions", limit >= upstream.context_tokens)
            }
            Prompt::Text(text) => {
                body.insert("prompt".into(), json!(text));
                ("/completions", false)
            }
            Prompt::Tokens(_) => unreachable!("refused"),
        };
        // As much as there is room for, which only the upstream knows. A text would be cut at 16 without a limit.
        if !whole_context {
            body.insert("max_tokens".into(), json!(limit));
        }
        let sampling = &order.sampling;
        // A server's own defaults may be others.
        body.insert("temperature".into(), decimal(sampling.temperature));
        body.insert("top_p".into(), decimal(sampling.top_p));
        for (name, value) in [
            ("presence_penalty", sampling.presence_penalty),
            ("frequency_penalty", sampling.frequency_penalty),
        ] {
            if value != 0.0 {
                body.insert(name.into(), decimal(value));
            }
        }
        for extra in Extra::ALL.into_iter().filter(|extra| is_used(*extra, order)) {
            let value = match extra {
                Extra::TopK => json!(sampling.top_k),
                Extra::MinP => decimal(sampling.min_p),
                Extra::RepetitionPenalty => decimal(sampling.repetition_penalty),
            };
            body.insert(extra.name().into(), value);
        }
        if let Seed::Caller(seed) = order.seed {
            body.insert("seed".into(), json!(seed_of(order, seed)));
        }
        if !request.stop.is_empty() {
            body.insert("stop".into(), json!(request.stop));
        }
        body.insert("stream".into(), json!(true));
        body.insert("stream_options".into(), json!({"include_usage": true}));
        Call { path, body: Value::Object(body), stop: request.stop, limit }
    }
}

/// The caller's seed; for the second answer to a request and those after it, one of their own.
fn seed_of(order: &Order, seed: i64) -> i64 {
    if order.choice == 0 {
        return seed;
    }
    let bytes = order.seed_bytes();
    // Never negative: not every server takes that.
    i64::from_le_bytes(*bytes.first_chunk().expect("a seed has 32 bytes")) & i64::MAX
}

/// The shortest decimal that is this binary32, as a caller wrote it: 0.7 rather than 0.699999988079071.
fn decimal(value: f32) -> Value {
    value.to_string().parse::<f64>().map_or(Value::Null, |value| json!(value))
}

fn message(message: &Message) -> Value {
    let Message { role, content, name, tool_calls, tool_call_id } = message;
    let mut object = Map::new();
    object.insert("role".into(), json!(role));
    object.insert("content".into(), json!(content));
    if let Some(name) = name {
        object.insert("name".into(), json!(name));
    }
    if !tool_calls.is_empty() {
        let calls = tool_calls.iter().map(|call| {
            json!({"id": call.id, "type": "function",
                   "function": {"name": call.name, "arguments": call.arguments}})
        });
        object.insert("tool_calls".into(), calls.collect());
    }
    if let Some(id) = tool_call_id {
        object.insert("tool_call_id".into(), json!(id));
    }
    Value::Object(object)
}
