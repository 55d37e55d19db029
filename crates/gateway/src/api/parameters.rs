//! Parameters: every name a request body may hold, and what becomes of it.
//!
//! In:     the names found in a body.
//! Out:    nothing if each is taken or harmless; else an error that names them all and says what to do.
//!         The same table, as the OpenAPI description of the bodies.
//! Touches: nothing.
//! Holds:  a name is ignored only if the answer would be the same without it.
//! Absent: reading the values that are taken. That is `ask`.

use std::ops::RangeInclusive;

use utoipa::openapi::{
    ObjectBuilder, RefOr, Schema,
    schema::{ArrayBuilder, SchemaType, Type},
};

use super::{fields::Fields, nearest::nearest};
use crate::error::{ApiError, Code};

pub(crate) const TEMPERATURE: RangeInclusive<f32> = 0.0..=2.0;
pub(crate) const PROBABILITY: RangeInclusive<f32> = 0.0..=1.0;
pub(crate) const PENALTY: RangeInclusive<f32> = -2.0..=2.0;
pub(crate) const REPETITION: RangeInclusive<f32> = 0.01..=10.0;
pub(crate) const BIAS: RangeInclusive<f32> = -100.0..=100.0;
pub(crate) const CHOICES: RangeInclusive<i64> = 1..=16;
pub(crate) const SEED: RangeInclusive<i64> = i64::MIN..=i64::MAX;
pub(crate) const TOP_K: RangeInclusive<i64> = -1..=i32::MAX as i64;
pub(crate) const TOP_LOGPROBS: RangeInclusive<i64> = 0..=surety_types::request::MAX_TOP_LOGPROBS as i64;
pub(crate) const CHAT_TOKENS: RangeInclusive<i64> = 1..=i32::MAX as i64;
pub(crate) const DIMENSIONS: RangeInclusive<i64> = 1..=surety_types::embedding::MAX_DIMENSIONS as i64;
pub(crate) const COMPLETION_TOKENS: RangeInclusive<i64> = 0..=i32::MAX as i64;

/// Which of the routes that take parameters in JSON a body was sent to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Route {
    Chat,
    Completions,
    Embeddings,
    Responses,
    ResponseTokens,
    Batches,
    Messages,
    CountTokens,
    OllamaChat,
    OllamaGenerate,
    OllamaEmbed,
    OllamaEmbeddings,
    OllamaShow,
}

/// What becomes of a parameter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Treatment {
    /// Read, and part of what is asked.
    Taken,
    /// Read only to see that it asks for nothing we lack.
    Examined,
    /// Accepted unread: the answer is the same without it.
    Ignored,
    /// It asks for what is not supported; the text says what to do instead.
    Refused(&'static str),
}

/// How a parameter's value looks, for the description.
pub(crate) enum Shape {
    Text,
    Flag,
    Number(RangeInclusive<f32>),
    Integer(RangeInclusive<i64>),
    Texts,
    Messages,
    Provider,
    Any,
}

pub(crate) struct Parameter {
    pub(crate) name: &'static str,
    pub(crate) routes: &'static [Route],
    pub(crate) treatment: Treatment,
    pub(crate) shape: Shape,
    pub(crate) about: &'static str,
}

/// What the description says of what is refused.
pub(super) const NOT_SUPPORTED: &str =
    "Not supported: refused rather than ignored, because it asks for another answer.";

const BOTH: &[Route] = &[Route::Chat, Route::Completions];
const CHAT: &[Route] = &[Route::Chat];
const COMPLETIONS: &[Route] = &[Route::Completions];
const EMBEDDINGS: &[Route] = &[Route::Embeddings];
const RESPONSES: &[Route] = &[Route::Responses];
const BATCHES: &[Route] = &[Route::Batches];
/// Those of responses that say what a model is shown, of which the tokens can be counted.
const SHOWN: &[Route] = &[Route::Responses, Route::ResponseTokens];
const GENERATING: &[Route] = &[Route::Chat, Route::Completions, Route::Responses];
const ALL: &[Route] =
    &[Route::Chat, Route::Completions, Route::Embeddings, Route::Responses, Route::ResponseTokens];

const fn taken(name: &'static str, routes: &'static [Route], shape: Shape, about: &'static str) -> Parameter {
    Parameter { name, routes, treatment: Treatment::Taken, shape, about }
}

const fn examined(name: &'static str, routes: &'static [Route], about: &'static str) -> Parameter {
    Parameter { name, routes, treatment: Treatment::Examined, shape: Shape::Any, about }
}

const fn ignored(name: &'static str) -> Parameter {
    ignored_in(BOTH, name)
}

const fn ignored_in(routes: &'static [Route], name: &'static str) -> Parameter {
    let about = "Accepted and ignored: the answer is the same without it.";
    Parameter { name, routes, treatment: Treatment::Ignored, shape: Shape::Any, about }
}

const fn refused(name: &'static str, instead: &'static str) -> Parameter {
    refused_in(BOTH, name, instead)
}

const fn refused_in(routes: &'static [Route], name: &'static str, instead: &'static str) -> Parameter {
    let treatment = Treatment::Refused(instead);
    Parameter { name, routes, treatment, shape: Shape::Any, about: NOT_SUPPORTED }
}

/// The table, for OpenAI's routes; other protocols have rows of their own.
pub(crate) const PARAMETERS: &[Parameter] = &[
    taken(
        "model",
        ALL,
        Shape::Text,
        "A served name, `name@<first 8 or more digits of the id>`, or a whole id; `:nitro`, `:floor` and `:verified` may follow.",
    ),
    taken(
        "messages",
        CHAT,
        Shape::Messages,
        "The conversation. Contents are texts or lists of text parts, which are joined as they stand. The role `developer` is `system`, `function` is `tool`. An assistant's may hold `tool_calls`, a tool's the `tool_call_id` it answers.",
    ),
    taken(
        "prompt",
        COMPLETIONS,
        Shape::Any,
        "A text, a list of texts, a list of token ids, or a list of such lists.",
    ),
    taken(
        "input",
        EMBEDDINGS,
        Shape::Any,
        "A text, a list of texts, a list of token ids, or a list of such lists: a vector for each.",
    ),
    taken(
        "encoding_format",
        EMBEDDINGS,
        Shape::Text,
        "`float` (the default), or `base64`: the numbers as binary32, little-endian.",
    ),
    taken(
        "dimensions",
        EMBEDDINGS,
        Shape::Integer(DIMENSIONS),
        "Only the first so many numbers, scaled to length one again. Refused unless the model was made for vectors.",
    ),
    taken(
        "max_tokens",
        BOTH,
        Shape::Integer(COMPLETION_TOKENS),
        "Output tokens, at most. Absent: the rest of the context window (chat), 16 (completions). 0 only in completions with `echo`.",
    ),
    taken(
        "max_completion_tokens",
        CHAT,
        Shape::Integer(CHAT_TOKENS),
        "Output tokens, at most. The newer name of `max_tokens`.",
    ),
    taken("temperature", GENERATING, Shape::Number(TEMPERATURE), "0 takes the likeliest token. Default 1."),
    taken("top_p", GENERATING, Shape::Number(PROBABILITY), "Default 1, which is off."),
    taken(
        "top_k",
        GENERATING,
        Shape::Integer(TOP_K),
        "Only the k likeliest tokens. Default 0, which is off, as is -1.",
    ),
    taken(
        "min_p",
        GENERATING,
        Shape::Number(PROBABILITY),
        "Only tokens this likely relative to the likeliest. Default 0, which is off.",
    ),
    taken("repetition_penalty", GENERATING, Shape::Number(REPETITION), "Default 1, which is off."),
    taken("presence_penalty", GENERATING, Shape::Number(PENALTY), "Default 0."),
    taken("frequency_penalty", GENERATING, Shape::Number(PENALTY), "Default 0."),
    taken("logit_bias", GENERATING, Shape::Any, "Token ids and what is added to their logits, -100 to 100."),
    taken(
        "seed",
        GENERATING,
        Shape::Integer(SEED),
        "The same request with the same seed gives the same answer. Absent: fresh randomness.",
    ),
    taken(
        "stop",
        GENERATING,
        Shape::Texts,
        "One text or up to 16; the answer ends before the first to appear.",
    ),
    taken("n", BOTH, Shape::Integer(CHOICES), "How many answers. Default 1."),
    taken("ignore_eos", GENERATING, Shape::Flag, "Go on past the model's end-of-generation tokens."),
    taken(
        "logprobs",
        BOTH,
        Shape::Any,
        "Chat: true or false. Completions: how many alternatives to report per token, 0 to 20.",
    ),
    taken(
        "top_logprobs",
        CHAT,
        Shape::Integer(TOP_LOGPROBS),
        "How many alternatives to report per token; needs `logprobs: true`.",
    ),
    taken(
        "echo",
        COMPLETIONS,
        Shape::Flag,
        "Return the prompt too, with its log-probabilities if `logprobs` asks for them.",
    ),
    taken("stream", GENERATING, Shape::Flag, "Answer in server-sent events."),
    taken(
        "stream_options",
        BOTH,
        Shape::Any,
        "`include_usage`: end the stream with a chunk that counts tokens.",
    ),
    taken(
        "surety",
        ALL,
        Shape::Any,
        "`date` (YYYY-MM-DD, for templates that mention today), `worker` (first 8 or more digits of its key), `deadline_ms` (for the whole answer).",
    ),
    taken(
        "provider",
        ALL,
        Shape::Provider,
        "What is wanted of whoever answers, as OpenRouter spells it. Workers are named by the first 8 or more digits of \
         their keys, operators by 0x and those of their addresses. What only orders never keeps a request from being \
         answered; what excludes is never violated.",
    ),
    taken(
        "input",
        SHOWN,
        Shape::Any,
        "A text, or a list of items: messages, whose contents are texts or lists of text parts, calls of functions and their \
         outputs, and references to items of responses that are kept.",
    ),
    taken("instructions", SHOWN, Shape::Text, "What is said first, as the system."),
    taken(
        "previous_response_id",
        SHOWN,
        Shape::Text,
        "A response that is kept: what was said there and before goes ahead of `input`. Its `instructions` do not.",
    ),
    taken(
        "max_output_tokens",
        RESPONSES,
        Shape::Integer(CHAT_TOKENS),
        "Output tokens, at most. Absent: the rest of the context window.",
    ),
    taken(
        "background",
        RESPONSES,
        Shape::Flag,
        "Answer at once, and make the response whether or not anybody waits for it; GET it. Default false.",
    ),
    taken("store", RESPONSES, Shape::Flag, "Whether the response is kept. Default true."),
    taken("metadata", RESPONSES, Shape::Any, "Up to 16 pairs of texts, which the response repeats."),
    taken("user", RESPONSES, Shape::Text, "The response repeats it."),
    taken("safety_identifier", RESPONSES, Shape::Text, "The response repeats it."),
    taken("prompt_cache_key", RESPONSES, Shape::Text, "The response repeats it."),
    taken(
        "text",
        SHOWN,
        Shape::Any,
        "`format`: `text`, `json_object`, or `json_schema` with `name` and `schema`, which the text meets by construction, as in \
         chat. `verbosity`: only `medium`.",
    ),
    taken(
        "tools",
        SHOWN,
        Shape::Any,
        "Functions the model may call, up to 128, if its chat template shows it any. `strict` is false unless sent, and is for \
         `tool_choice` other than `auto`. Nothing is executed here: tools of other types are refused.",
    ),
    taken(
        "tool_choice",
        SHOWN,
        Shape::Any,
        "`auto`; `none`; `required` or a function, with which the answer is a call by construction; `allowed_tools`.",
    ),
    taken("parallel_tool_calls", SHOWN, Shape::Flag, "false: at most one call in a response. Default true."),
    examined("reasoning", SHOWN, "Only empty, or `effort: \"none\"`."),
    examined("include", RESPONSES, "Nothing that it may name is ever left out; no log-probabilities."),
    examined("truncation", SHOWN, "Only `disabled`."),
    examined("top_logprobs", RESPONSES, "Only 0."),
    examined("stream_options", RESPONSES, "`include_obfuscation`, which changes nothing."),
    examined("best_of", COMPLETIONS, "Only equal to `n`."),
    taken(
        "tools",
        CHAT,
        Shape::Any,
        "Functions the model may call, up to 128, if its chat template shows it any. `strict: true` is for `tool_choice` other than `auto`.",
    ),
    taken(
        "tool_choice",
        CHAT,
        Shape::Any,
        "`auto`; `none`, with which the model is shown no tools; `required` or a function, with which the answer is a call by \
         construction, of arguments that meet the function's schema; `allowed_tools`, some of the functions.",
    ),
    taken("parallel_tool_calls", CHAT, Shape::Flag, "false: at most one call in an answer. Default true."),
    taken("functions", CHAT, Shape::Any, "The older form of `tools`; it is answered with `function_call`."),
    taken("function_call", CHAT, Shape::Any, "The older form of `tool_choice`."),
    taken(
        "response_format",
        CHAT,
        Shape::Any,
        "`text`, `json_object`, or `json_schema` with `name` and `schema`: the answer meets the schema by construction, \
         unless its limit or a stop string cuts it off. Always as if `strict`; keywords that are not supported are refused by name.",
    ),
    taken(
        "input_file_id",
        BATCHES,
        Shape::Text,
        "A file that was sent to /v1/files for `batch`: JSONL, a request each line.",
    ),
    taken("endpoint", BATCHES, Shape::Text, "The route that answers: the same for all lines."),
    taken("completion_window", BATCHES, Shape::Text, "`24h`."),
    taken("metadata", BATCHES, Shape::Any, "Up to 16 pairs of texts, which the batch repeats."),
    refused_in(
        BATCHES,
        "output_expires_after",
        "What a batch writes is kept until it is deleted: DELETE /v1/files/{id}.",
    ),
    examined("modalities", CHAT, "Only `[\"text\"]`."),
    Parameter { routes: &[Route::Chat, Route::Completions, Route::Embeddings], ..ignored("user") },
    ignored("metadata"),
    ignored("store"),
    ignored("service_tier"),
    ignored("safety_identifier"),
    ignored("prompt_cache_key"),
    ignored("prompt_cache_options"),
    ignored("prompt_cache_retention"),
    ignored_in(RESPONSES, "service_tier"),
    ignored_in(RESPONSES, "max_tool_calls"),
    ignored_in(RESPONSES, "prompt_cache_options"),
    ignored_in(RESPONSES, "prompt_cache_retention"),
    ignored_in(RESPONSES, "image"),
    refused("audio", "Ask for text; this network speaks text only."),
    refused("suffix", "Put the text to be completed at the end of `prompt`."),
    refused("prediction", "Leave it out; it would only save time."),
    refused("web_search_options", "Search yourself and put what you found into `messages`."),
    refused("moderation", "Call a moderation service yourself."),
    refused("reasoning_effort", "Leave it out, or say in `messages` how much to think."),
    refused("verbosity", "Leave it out, or say in `messages` how long the answer should be."),
    refused("logit_processors", "Use `logit_bias`."),
    refused_in(SHOWN, "conversation", "Send `previous_response_id`, or all that was said as `input`."),
    refused_in(&[Route::ResponseTokens], "personality", "Say it in `instructions`."),
    refused_in(RESPONSES, "prompt", "Send its text as `instructions` and `input`."),
    refused_in(RESPONSES, "context_management", "Send what is to be remembered as `input`."),
    refused_in(RESPONSES, "moderation", "Call a moderation service yourself."),
    refused_in(RESPONSES, "access_programs", "Leave it out; there are none here."),
    refused("guided_json", "Ask for JSON in `messages` and check the answer."),
    refused("guided_regex", "Say the form in `messages` and check the answer."),
    refused("guided_choice", "Say the choices in `messages` and check the answer."),
    refused("grammar", "Say the form in `messages` and check the answer."),
    refused(
        "chat_template",
        "The template is part of the model's identity. Send a finished `prompt` to /v1/completions.",
    ),
    refused(
        "chat_template_kwargs",
        "The template is part of the model's identity. Send a finished `prompt` to /v1/completions.",
    ),
];

/// The rows of all protocols.
fn rows() -> impl Iterator<Item = &'static Parameter> {
    PARAMETERS
        .iter()
        .chain(super::messages::parameters::PARAMETERS)
        .chain(super::ollama::parameters::PARAMETERS)
}

impl Parameter {
    pub(crate) fn is_on(&self, route: Route) -> bool {
        self.routes.contains(&route)
    }
}

/// Refuses a body that holds a name we do not know, or a parameter we lack.
pub(crate) fn screen(fields: &mut Fields<'_>, route: Route) -> Result<(), ApiError> {
    let mut unsupported = Vec::new();
    let mut unread = Vec::new();
    for name in fields.names() {
        let Some(parameter) = rows().find(|parameter| parameter.name == name && parameter.is_on(route))
        else {
            return Err(unknown(&fields.path(name), name, known(route)));
        };
        match parameter.treatment {
            Treatment::Taken | Treatment::Examined => {}
            Treatment::Ignored => unread.push(parameter),
            Treatment::Refused(_) => unsupported.push(parameter),
        }
    }
    for parameter in unread {
        fields.take(parameter.name);
    }
    // Null is absence, and asks for nothing.
    unsupported.retain(|parameter| fields.take(parameter.name).is_some());
    let Some(first) = unsupported.first() else { return Ok(()) };
    let mut message = String::from("Not supported here, and not silently ignored:");
    for parameter in &unsupported {
        let Treatment::Refused(instead) = parameter.treatment else { continue };
        message.push_str(&format!(" `{}`. {instead}", parameter.name));
    }
    Err(ApiError::new(Code::UnsupportedParameter, message).with_param(first.name))
}

/// Refuses whatever is left of an object whose known members were taken.
pub(crate) fn nothing_left(fields: &Fields<'_>, known: &[&'static str]) -> Result<(), ApiError> {
    match fields.names().next() {
        None => Ok(()),
        Some(name) => Err(unknown(&fields.path(name), name, known.iter().copied())),
    }
}

fn known(route: Route) -> impl Iterator<Item = &'static str> {
    rows().filter(move |parameter| parameter.is_on(route)).map(|parameter| parameter.name)
}

fn unknown(path: &str, name: &str, known: impl Iterator<Item = &'static str>) -> ApiError {
    let path = super::fields::quote(path);
    let message = match nearest(name, known) {
        Some(near) => format!("There is no parameter `{path}`. Did you mean `{near}`?"),
        None => format!("There is no parameter `{path}`. Leave it out; /openapi.json lists those there are."),
    };
    ApiError::new(Code::UnknownParameter, message).with_param(path)
}

/// The description of a route's request body.
pub(crate) fn schema(route: Route) -> RefOr<Schema> {
    let mut object = ObjectBuilder::new();
    for parameter in rows().filter(|parameter| parameter.is_on(route)) {
        object = object.property(parameter.name, parameter.schema());
    }
    let subjects: &[&str] = match route {
        Route::Chat | Route::CountTokens => &["messages"],
        Route::Completions => &["prompt"],
        Route::Embeddings | Route::Responses | Route::ResponseTokens => &["input"],
        Route::Messages => &["messages", "max_tokens"],
        Route::Batches => &["input_file_id", "endpoint", "completion_window"],
        Route::OllamaChat
        | Route::OllamaGenerate
        | Route::OllamaEmbed
        | Route::OllamaEmbeddings
        | Route::OllamaShow => &[],
    };
    let asks_a_model = route != Route::Batches;
    let object = if asks_a_model { object.required("model") } else { object };
    subjects.iter().fold(object, |object, subject| object.required(*subject)).into()
}

impl Parameter {
    fn schema(&self) -> RefOr<Schema> {
        let object =
            |kind| ObjectBuilder::new().schema_type(SchemaType::Type(kind)).description(Some(self.about));
        let schema = match &self.shape {
            Shape::Text => object(Type::String).into(),
            Shape::Flag => object(Type::Boolean).into(),
            Shape::Number(range) => object(Type::Number)
                .minimum(Some(f64::from(*range.start())))
                .maximum(Some(f64::from(*range.end())))
                .into(),
            Shape::Integer(range) if *range == SEED => object(Type::Integer).into(),
            Shape::Integer(range) => {
                object(Type::Integer).minimum(Some(*range.start())).maximum(Some(*range.end())).into()
            }
            Shape::Texts => ObjectBuilder::new()
                .schema_type(SchemaType::from_iter([Type::String, Type::Array]))
                .description(Some(self.about))
                .into(),
            Shape::Messages => ArrayBuilder::new()
                .items(message_schema())
                .description(Some(self.about))
                .min_items(Some(1))
                .into(),
            Shape::Provider => {
                let members = super::provider::MEMBERS.iter();
                let members = members.fold(object(Type::Object), |object, (name, about)| {
                    let member =
                        ObjectBuilder::new().schema_type(SchemaType::AnyValue).description(Some(*about));
                    object.property(*name, member)
                });
                members.into()
            }
            Shape::Any => {
                ObjectBuilder::new().schema_type(SchemaType::AnyValue).description(Some(self.about)).into()
            }
        };
        RefOr::T(schema)
    }
}

fn message_schema() -> ObjectBuilder {
    let text = || ObjectBuilder::new().schema_type(SchemaType::Type(Type::String));
    let content = ObjectBuilder::new().schema_type(SchemaType::from_iter([Type::String, Type::Array]));
    ObjectBuilder::new()
        .property("role", text().enum_values(Some(super::ask::ROLES.map(|(name, _)| name))))
        .property("content", content)
        .property("name", text())
        .property("tool_calls", ArrayBuilder::new().items(call_schema()))
        .property("tool_call_id", text())
        .required("role")
}

fn call_schema() -> ObjectBuilder {
    let text = || ObjectBuilder::new().schema_type(SchemaType::Type(Type::String));
    let function = ObjectBuilder::new().property("name", text()).property("arguments", text());
    ObjectBuilder::new()
        .property("id", text())
        .property("type", text().enum_values(Some(["function"])))
        .property("function", function.required("name").required("arguments"))
        .required("id")
        .required("function")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(body: &str, route: Route, expected: Option<(Code, &str)>) {
        let mut fields = Fields::body(body).expect("JSON");
        let found = screen(&mut fields, route).err();
        let found = found.as_ref().map(|error| (error.code(), error.param().expect("a parameter")));
        assert_eq!(found, expected, "{body}");
    }

    #[test]
    fn each_name_has_one_treatment_per_route() {
        let others = [
            Route::Batches,
            Route::Messages,
            Route::CountTokens,
            Route::OllamaChat,
            Route::OllamaGenerate,
            Route::OllamaEmbed,
            Route::OllamaEmbeddings,
            Route::OllamaShow,
        ];
        for route in ALL.iter().chain(&others) {
            let mut names: Vec<_> = known(*route).collect();
            names.sort_unstable();
            assert!(names.windows(2).all(|pair| pair[0] != pair[1]), "{route:?}");
        }
    }

    #[test]
    fn harmless_names_are_ignored_and_others_named() {
        use Code::{UnknownParameter, UnsupportedParameter};
        check(r#"{"user":"u","metadata":{"a":"b"},"store":true,"seed":1}"#, Route::Chat, None);
        check(r#"{"audio":null,"prediction":null}"#, Route::Chat, None);
        check(r#"{"audio":{}}"#, Route::Chat, Some((UnsupportedParameter, "audio")));
        check(r#"{"suffix":"x"}"#, Route::Completions, Some((UnsupportedParameter, "suffix")));
        check(r#"{"temprature":1}"#, Route::Chat, Some((UnknownParameter, "temprature")));
        check(r#"{"messages":[]}"#, Route::Completions, Some((UnknownParameter, "messages")));
    }

    #[test]
    fn the_nearest_name_is_suggested() {
        let mut fields = Fields::body(r#"{"temprature":1}"#).expect("JSON");
        let error = screen(&mut fields, Route::Chat).expect_err("unknown");
        assert!(error.message().contains("Did you mean `temperature`?"), "{}", error.message());
    }

    #[test]
    fn all_unsupported_names_are_told_at_once() {
        let mut fields = Fields::body(r#"{"verbosity":"low","audio":{}}"#).expect("JSON");
        let error = screen(&mut fields, Route::Chat).expect_err("unsupported");
        assert!(error.message().contains("`audio`") && error.message().contains("`verbosity`"));
    }
}
