//! Ask: a request body, understood.
//!
//! In:     the text of a body; today's date, for chat templates that mention it.
//! Out:    what is asked for, every default filled in, or an error that names the parameter.
//! Touches: nothing.
//! Holds:  whatever is returned is within the bounds of `types`, so it can be ordered from a worker.
//! Absent: which models and workers there are.

use std::{
    hash::{DefaultHasher, Hasher},
    time::Instant,
};

use serde_json::value::RawValue;
use surety_types::{
    CallFormat, Canonical, CivilDate, Embedding, Message, Prompt, Request, Sampling, Seed,
    envelope::MAX_ID_BYTES,
    request::{MAX_MESSAGES, MAX_PROMPT_TOKENS, MAX_REQUEST_BYTES, MAX_STOP_BYTES, MAX_STOPS},
    sampling::MAX_LOGIT_BIASES,
};

use super::{
    fields::{self, Fields},
    parameters::{self as table, Route},
    provider,
    response_format::response_format,
    tools::{self, Tools},
};
use crate::{
    error::{ApiError, Code},
    route::preferences::{Name, Preferences},
};

/// Prompts in one body, and texts to make vectors of, as OpenAI has it.
const PROMPTS_MAX: usize = 128;
const INPUTS_MAX: usize = 2048;
/// Answers to one body: prompts times choices.
const ANSWERS_MAX: usize = 256;
// As many parts again may be there of workers that broke off.
const _: () = assert!(2 * INPUTS_MAX <= surety_types::envelope::MAX_PARTS && ANSWERS_MAX <= INPUTS_MAX);
/// Bytes of all orders' requests together; each answer's evidence holds its own copy.
const ORDERED_BYTES_MAX: usize = MAX_REQUEST_BYTES;
/// Text parts in one message's content.
pub(super) const PARTS_MAX: usize = 4096;
/// Output tokens of a completion that does not say, as OpenAI documents.
const COMPLETION_TOKENS_DEFAULT: u32 = 16;
/// Bytes of a request's beginning that say which others begin alike.
const BEGINNING_BYTES: usize = 1024;
/// Milliseconds a caller may give the whole answer.
const DEADLINE_MS: std::ops::RangeInclusive<i64> = 1_000..=86_400_000;

/// Roles as callers write them, and as chat templates know them.
pub(crate) const ROLES: [(&str, &str); 6] = [
    ("system", "system"),
    ("developer", "system"),
    ("user", "user"),
    ("assistant", "assistant"),
    ("tool", "tool"),
    ("function", "tool"),
];

/// What is asked for.
#[derive(Debug)]
pub(crate) struct Ask {
    /// A name, `name@<digits>`, or an id, as the caller wrote it.
    pub(crate) model: String,
    /// One per prompt; a chat has one.
    pub(crate) requests: Vec<Request>,
    /// Answers per prompt.
    pub(crate) choices: u32,
    pub(crate) sampling: Sampling,
    pub(crate) seed: Seed,
    /// `None`: the rest of the context window.
    pub(crate) max_output_tokens: Option<u32>,
    pub(crate) ignore_end: bool,
    pub(crate) stream: bool,
    pub(crate) include_usage: bool,
    /// What is wanted of whoever answers.
    pub(crate) preferences: Preferences,
    pub(crate) deadline_ms: Option<u64>,
    pub(crate) form: Form,
    /// What may be made of an answer besides text.
    pub(crate) tools: Option<Tools>,
}

/// In which protocol's shape to answer, and with how many alternatives per token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    Chat {
        logprobs: Option<u8>,
    },
    /// OpenAI's response, which words itself (`responses`).
    Response,
    Completion {
        echo: bool,
        logprobs: Option<u8>,
    },
    /// Anthropic's, which says which stop sequence ended the answer.
    Message {
        stops: bool,
    },
    /// None: only the prompt's tokens are counted.
    Count,
    /// Ollama's, which says how long the answer took since the request came.
    Ollama {
        chat: bool,
        logprobs: Option<u8>,
        began: Instant,
    },
    /// A vector of each prompt.
    Embedding {
        manner: Manner,
        wanted: Embedding,
    },
}

/// How vectors are told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Manner {
    Float,
    Base64,
    /// Ollama's, which says how long it took since the request came.
    Ollama {
        began: Instant,
    },
    /// Ollama's older, of one vector.
    OllamaOne,
}

impl Ask {
    /// How many answers are to be given.
    pub(crate) fn answers(&self) -> usize {
        self.requests.len() * self.choices as usize
    }

    /// Whether its stream can be gone on with: one answer, of text alone, in which nothing is looked for.
    pub(crate) fn goes_on(&self) -> bool {
        self.stream && self.could_go_on()
    }

    /// The same of a document.
    pub(crate) fn could_go_on(&self) -> bool {
        let plain = match self.form {
            Form::Chat { logprobs } => logprobs.is_none(),
            Form::Completion { echo, logprobs } => !echo && logprobs.is_none(),
            Form::Message { stops } => !stops,
            Form::Response => true,
            // Lines of JSON have no place for ids.
            Form::Count | Form::Ollama { .. } | Form::Embedding { .. } => false,
        };
        plain && self.tools.is_none() && self.answers() == 1
    }

    /// Has the answers be calls, where they must: how a model writes them is known with the model.
    pub(crate) fn hold_to_calls(&mut self, format: Option<CallFormat>) -> Result<(), ApiError> {
        let Some((tools, format)) = self.tools.as_ref().zip(format) else { return Ok(()) };
        let Some(grammar) = tools.grammar(format)? else { return Ok(()) };
        if self.sampling.grammar.is_some() || self.ignore_end {
            let message = "`tool_choice` has the answer be a call and nothing else. Leave out the form that is asked for, and `ignore_eos`.";
            return Err(ApiError::invalid("tool_choice", message));
        }
        self.sampling.grammar = Some(Request::grammar_digest(&grammar));
        self.requests.iter_mut().for_each(|request| request.grammar = Some(grammar.clone()));
        self.check()
    }

    /// The parameter by which a model is to be shown tools or calls of them, if it is.
    pub(crate) fn shows_tools(&self) -> Option<&'static str> {
        match &self.requests.first()?.prompt {
            Prompt::Chat { tools, .. } if !tools.is_empty() => {
                let older = self.tools.as_ref().is_some_and(|tools| tools.older);
                Some(if older { "functions" } else { "tools" })
            }
            Prompt::Chat { messages, .. }
                if messages.iter().any(|message| !message.tool_calls.is_empty()) =>
            {
                Some(self.form.subject())
            }
            _ => None,
        }
    }

    /// The same for requests that begin alike, as the turns of one conversation do: one worker may have kept what it computed.
    pub(crate) fn affinity(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        let mut left = BEGINNING_BYTES;
        let mut add = |bytes: &[u8]| {
            let bytes = &bytes[..bytes.len().min(left)];
            hasher.write(bytes);
            left -= bytes.len();
        };
        match self.requests.first().map(|request| &request.prompt) {
            Some(Prompt::Chat { messages, tools }) => {
                // Templates show tools before all else.
                tools.iter().for_each(|tool| add(tool.as_bytes()));
                for message in messages {
                    add(message.role.as_bytes());
                    add(message.content.as_bytes());
                }
            }
            Some(Prompt::Text(text)) => add(text.as_bytes()),
            Some(Prompt::Tokens(ids)) => {
                ids.iter().take(BEGINNING_BYTES).for_each(|id| add(&id.to_le_bytes()));
            }
            None => {}
        }
        hasher.finish()
    }

    /// Reads the body of a route that answers in events.
    pub(crate) fn parse(text: &str, route: Route, today: CivilDate) -> Result<Ask, ApiError> {
        if route == Route::Messages {
            return super::messages::read::read(text, route, today);
        }
        let mut fields = Fields::body(text)?;
        table::screen(&mut fields, route)?;
        let model = model(&mut fields)?;
        let choices = fields.integer("n", table::CHOICES)?.unwrap_or(1) as u32;
        let mut sampling = sampling(&mut fields)?;
        let seed = fields.integer("seed", table::SEED)?.map_or(Seed::Nonce, Seed::Caller);
        let stop = stop(&mut fields, "stop")?;
        let ignore_end = fields.boolean("ignore_eos")?.unwrap_or(false);
        let stream = fields.boolean("stream")?.unwrap_or(false);
        let include_usage = stream_options(&mut fields)?;
        let Extras { date, worker, deadline_ms } = extras(&mut fields)?;
        let preferences = Preferences { worker, ..provider::preferences(&mut fields, &model)? };
        let grammar = match route {
            Route::Chat => response_format(&mut fields)?,
            _ => None,
        };
        sampling.grammar = grammar.as_deref().map(Request::grammar_digest);
        if grammar.is_some() && ignore_end {
            let message = "`ignore_eos` goes past the end of an answer, and one that keeps to `response_format` has nothing \
                           more to say there. Leave one of them out.";
            return Err(ApiError::invalid("ignore_eos", message));
        }
        let Subject { form, max_output_tokens, prompts, tools } = match route {
            Route::Completions => completions(&mut fields, choices)?,
            Route::Embeddings => embeddings(&mut fields)?,
            _ => chat(&mut fields)?,
        };
        assert_eq!(fields.names().next(), None, "a parameter of the table is not read");

        let requests: Vec<Request> = prompts
            .into_iter()
            .map(|prompt| Request {
                grammar: grammar.clone(),
                ..form.request(prompt, stop.clone(), date.unwrap_or(today))
            })
            .collect();
        Ask {
            model,
            requests,
            choices,
            sampling,
            seed,
            max_output_tokens,
            ignore_end,
            stream,
            include_usage,
            preferences,
            deadline_ms,
            form,
            tools,
        }
        .checked()
    }

    /// Holds the bounds that concern more than one parameter.
    pub(super) fn checked(self) -> Result<Ask, ApiError> {
        self.check()?;
        Ok(self)
    }

    pub(super) fn check(&self) -> Result<(), ApiError> {
        let subject = self.form.subject();
        let most = if matches!(self.form, Form::Embedding { .. }) { INPUTS_MAX } else { ANSWERS_MAX };
        // What is checked is ordered twice.
        let computed = if self.preferences.checked { 2 } else { 1 };
        let answers_max = most / computed;
        if self.answers() > answers_max {
            let message = format!(
                "{} prompts times `n` {} are {} answers. Ask for at most {answers_max} at once{}.",
                self.requests.len(),
                self.choices,
                self.answers(),
                if computed > 1 { ", where each is computed twice" } else { "" },
            );
            return Err(ApiError::invalid(subject, message));
        }
        let mut ordered_bytes = 0;
        for request in &self.requests {
            let bytes = request.try_to_cbor().map_err(|invalid| {
                if prompt_bytes(&request.prompt) > MAX_REQUEST_BYTES / 2 {
                    let message = format!(
                        "The prompt takes {} bytes. At most {MAX_REQUEST_BYTES} are carried to a worker, \
                         which is more than any context window here holds. Shorten it.",
                        prompt_bytes(&request.prompt),
                    );
                    ApiError::new(Code::PayloadTooLarge, message).with_param(subject)
                } else {
                    ApiError::invalid(invalid.field, format!("{invalid}."))
                }
            })?;
            ordered_bytes += bytes.len() * self.choices as usize * computed;
        }
        if ordered_bytes > ORDERED_BYTES_MAX {
            let message = format!(
                "The prompts times `n` take {ordered_bytes} bytes. At most {ORDERED_BYTES_MAX} fit one request. \
                 Send several.",
            );
            return Err(ApiError::new(Code::PayloadTooLarge, message).with_param(subject));
        }
        Ok(())
    }
}

impl Form {
    /// What OpenTelemetry's conventions call it.
    pub(crate) fn operation(&self) -> &'static str {
        match self {
            Form::Chat { .. }
            | Form::Response
            | Form::Message { .. }
            | Form::Count
            | Form::Ollama { chat: true, .. } => "chat",
            Form::Completion { .. } | Form::Ollama { chat: false, .. } => "text_completion",
            Form::Embedding { .. } => "embeddings",
        }
    }

    /// Alternatives wanted per output token.
    pub(crate) fn logprobs(&self) -> Option<u8> {
        match *self {
            Form::Chat { logprobs } | Form::Completion { logprobs, .. } | Form::Ollama { logprobs, .. } => {
                logprobs
            }
            // The tokens' bytes tell which of them it was.
            Form::Message { stops } => stops.then_some(0),
            Form::Response | Form::Count | Form::Embedding { .. } => None,
        }
    }

    /// What is wanted of a vector, if one is.
    fn embedding(&self) -> Option<Embedding> {
        match *self {
            Form::Embedding { wanted, .. } => Some(wanted),
            _ => None,
        }
    }

    /// The parameter that holds what is asked.
    pub(crate) fn subject(&self) -> &'static str {
        match self {
            Form::Chat { .. } | Form::Message { .. } | Form::Count | Form::Ollama { chat: true, .. } => {
                "messages"
            }
            Form::Completion { .. } | Form::Ollama { chat: false, .. } => "prompt",
            Form::Response | Form::Embedding { .. } => "input",
        }
    }

    /// The parameter that says which form the answer is to have.
    pub(crate) fn form_parameter(&self) -> &'static str {
        match self {
            Form::Message { .. } => "output_config.format",
            Form::Ollama { .. } => "format",
            Form::Response => "text.format",
            Form::Chat { .. } | Form::Completion { .. } | Form::Count | Form::Embedding { .. } => {
                "response_format"
            }
        }
    }

    /// The request of a worker for an answer to one prompt.
    pub(super) fn request(&self, prompt: Prompt, stop: Vec<String>, date: CivilDate) -> Request {
        Request {
            stop,
            logprobs: self.logprobs(),
            prompt_logprobs: self.prompt_logprobs(&prompt),
            grammar: None,
            embedding: self.embedding(),
            date: matches!(prompt, Prompt::Chat { .. }).then_some(date),
            prompt,
        }
    }

    /// Alternatives wanted per prompt token. An echoed list of token ids is scored even where nobody asked, because
    /// only the worker knows the tokens' texts.
    fn prompt_logprobs(&self, prompt: &Prompt) -> Option<u8> {
        match *self {
            Form::Completion { echo: true, logprobs: Some(top) } => Some(top),
            Form::Completion { echo: true, logprobs: None } => {
                matches!(prompt, Prompt::Tokens(_)).then_some(0)
            }
            _ => None,
        }
    }
}

/// What is asked of a route.
struct Subject {
    form: Form,
    max_output_tokens: Option<u32>,
    prompts: Vec<Prompt>,
    tools: Option<Tools>,
}
/// The name of the model.
pub(super) fn model(fields: &mut Fields<'_>) -> Result<String, ApiError> {
    let model = fields::string("model", required(fields, "model")?)?;
    if model.is_empty() {
        return Err(ApiError::invalid("model", "`model` is empty. GET /v1/models lists what there is."));
    }
    if model.len() > MAX_ID_BYTES {
        let message = format!("`model` takes {} bytes. Names take at most {MAX_ID_BYTES}.", model.len());
        return Err(ApiError::invalid("model", message));
    }
    Ok(model)
}

fn chat(fields: &mut Fields<'_>) -> Result<Subject, ApiError> {
    let (shown, tools) = tools::offered(fields)?;
    only_text(fields)?;

    let wanted = fields.boolean("logprobs")?.unwrap_or(false);
    let top = fields.integer("top_logprobs", table::TOP_LOGPROBS)?;
    if let (Some(1..), false) = (top, wanted) {
        let message = "`top_logprobs` needs `logprobs: true`. Set it, or leave `top_logprobs` out.";
        return Err(ApiError::invalid("top_logprobs", message));
    }
    let logprobs = wanted.then_some(top.unwrap_or(0) as u8);

    let older = fields.integer("max_tokens", table::CHAT_TOKENS)?;
    let newer = fields.integer("max_completion_tokens", table::CHAT_TOKENS)?;
    if let (Some(older), Some(newer)) = (older, newer)
        && older != newer
    {
        let message = format!(
            "`max_tokens` is {older} and `max_completion_tokens` is {newer}; they are two names of one thing. Send one.",
        );
        return Err(ApiError::invalid("max_tokens", message));
    }
    let max_output_tokens = newer.or(older).map(|tokens| tokens as u32);

    let raw = required(fields, "messages")?;
    let raw = fields::list("messages", raw, MAX_MESSAGES)?;
    let messages: Result<Vec<Message>, ApiError> =
        raw.into_iter().enumerate().map(|(index, raw)| message(index, raw)).collect();
    let mut messages = messages?;
    answer_calls(&mut messages);
    if messages.is_empty() {
        return Err(ApiError::invalid("messages", "`messages` is empty. Send at least one message."));
    }
    let prompts = vec![Prompt::Chat { messages, tools: shown }];
    Ok(Subject { form: Form::Chat { logprobs }, max_output_tokens, prompts, tools })
}

/// A result that names no call, as those of the older form do, is that of the last call of its name.
fn answer_calls(messages: &mut [Message]) {
    for index in 0..messages.len() {
        let (before, rest) = messages.split_at_mut(index);
        let message = &mut rest[0];
        let Some(name) = message.name.as_ref().filter(|_| message.role == "tool") else { continue };
        if message.tool_call_id.is_none() {
            let mut calls = before.iter().rev().flat_map(|message| message.tool_calls.iter().rev());
            message.tool_call_id = calls.find(|call| call.name == *name).map(|call| call.id.clone());
        }
    }
}

fn message(index: usize, raw: &RawValue) -> Result<Message, ApiError> {
    let path = format!("messages[{index}]");
    let mut fields = Fields::object(path.clone(), raw)?;
    let role = fields.string("role")?.ok_or_else(|| missing(&fields.path("role")))?;
    let Some((_, role)) = ROLES.iter().find(|(name, _)| *name == role) else {
        let names = ROLES.map(|(name, _)| format!("`{name}`")).join(", ");
        let message = format!("`{path}.role` is \"{}\". It must be one of {names}.", fields::quote(&role));
        return Err(ApiError::invalid(fields.path("role"), message));
    };
    for (name, instead) in [
        ("audio", "Send its transcript as `content`."),
        ("refusal", "Send it as `content`."),
        ("reasoning_content", "Leave it out, or put it into `content`."),
        ("reasoning", "Leave it out, or put it into `content`."),
    ] {
        if fields.take(name).is_some_and(|raw| raw.get() != "[]") {
            let path = fields.path(name);
            let message = format!("`{path}` is not supported here. {instead}");
            return Err(ApiError::new(Code::UnsupportedParameter, message).with_param(path));
        }
    }
    let tool_calls = if *role == "assistant" { tools::calls(index, &mut fields)? } else { Vec::new() };
    let tool_call_id = if *role == "tool" { fields.string("tool_call_id")? } else { None };
    let tool_call_id = tool_call_id.map(|id| tools::short(&fields.path("tool_call_id"), id)).transpose()?;
    // What chat templates never see; the last is what LiteLLM adds to answers, which come back with it.
    for name in ["annotations", "cache_control", "id", "tool_call_id", "provider_specific_fields"] {
        fields.take(name);
    }
    let name = fields.string("name")?;
    let content_path = fields.path("content");
    let content = match fields.take("content") {
        Some(content) => content_text(&content_path, content)?,
        None if !tool_calls.is_empty() => String::new(),
        None => return Err(missing(&content_path)),
    };
    table::nothing_left(
        &fields,
        &["role", "content", "name", "tool_calls", "tool_call_id", "function_call"],
    )?;
    Ok(Message { role: (*role).to_owned(), content, name, tool_calls, tool_call_id })
}

/// A text, or a list of text parts joined as they stand.
fn content_text(path: &str, raw: &RawValue) -> Result<String, ApiError> {
    match fields::first_byte(raw) {
        b'"' => fields::string(path, raw),
        b'[' => {
            let mut text = String::new();
            for (index, raw) in fields::list(path, raw, PARTS_MAX)?.into_iter().enumerate() {
                let mut part = Fields::object(format!("{path}[{index}]"), raw)?;
                let kind_path = part.path("type");
                let kind = part.string("type")?.ok_or_else(|| missing(&kind_path))?;
                if kind != "text" {
                    let message = format!(
                        "`{kind_path}` is \"{}\". Only \"text\" is supported here; say in words what it shows.",
                        fields::quote(&kind),
                    );
                    return Err(ApiError::new(Code::UnsupportedParameter, message).with_param(kind_path));
                }
                let text_path = part.path("text");
                text.push_str(&part.string("text")?.ok_or_else(|| missing(&text_path))?);
                part.take("cache_control");
                part.take("prompt_cache_breakpoint");
                table::nothing_left(&part, &["type", "text"])?;
            }
            Ok(text)
        }
        _ => Err(fields::wrong_type(path, raw, "a text or a list of text parts")),
    }
}

/// Answers are plain text.
fn only_text(fields: &mut Fields<'_>) -> Result<(), ApiError> {
    if let Some(raw) = fields.take("modalities") {
        for raw in fields::list("modalities", raw, 16)? {
            if fields::string("modalities", raw)? != "text" {
                let message = "`modalities` other than `[\"text\"]` are not supported here. Leave it out.";
                return Err(ApiError::new(Code::UnsupportedParameter, message).with_param("modalities"));
            }
        }
    }
    Ok(())
}

fn completions(fields: &mut Fields<'_>, choices: u32) -> Result<Subject, ApiError> {
    let echo = fields.boolean("echo")?.unwrap_or(false);
    let logprobs = fields.integer("logprobs", table::TOP_LOGPROBS)?.map(|top| top as u8);
    let max_tokens = fields.integer("max_tokens", table::COMPLETION_TOKENS)?;
    let max_tokens = max_tokens.map_or(COMPLETION_TOKENS_DEFAULT, |tokens| tokens as u32);
    if max_tokens == 0 && !echo {
        let message = "`max_tokens` is 0, so there would be no answer. Send at least 1, or `echo: true` to score the prompt.";
        return Err(ApiError::invalid("max_tokens", message));
    }
    if let Some(best_of) = fields.integer("best_of", 0..=i64::from(i32::MAX))?
        && best_of != i64::from(choices)
    {
        let message = format!(
            "`best_of` is {best_of} and `n` is {choices}. Choosing among hidden answers is not supported here; \
             ask for `n` answers and choose.",
        );
        return Err(ApiError::new(Code::UnsupportedParameter, message).with_param("best_of"));
    }
    let prompts = prompts("prompt", required(fields, "prompt")?, PROMPTS_MAX)?;
    let form = Form::Completion { echo, logprobs };
    Ok(Subject { form, max_output_tokens: Some(max_tokens), prompts, tools: None })
}

fn embeddings(fields: &mut Fields<'_>) -> Result<Subject, ApiError> {
    let manner = match fields.string("encoding_format")?.as_deref() {
        None | Some("float") => Manner::Float,
        Some("base64") => Manner::Base64,
        Some(other) => {
            let message = format!(
                "`encoding_format` is \"{}\". It must be \"float\" or \"base64\".",
                fields::quote(other)
            );
            return Err(ApiError::invalid("encoding_format", message));
        }
    };
    let wanted = dimensions(fields)?;
    let prompts = prompts("input", required(fields, "input")?, INPUTS_MAX)?;
    let form = Form::Embedding { manner, wanted };
    Ok(Subject { form, max_output_tokens: Some(0), prompts, tools: None })
}

/// What is wanted of vectors.
pub(super) fn dimensions(fields: &mut Fields<'_>) -> Result<Embedding, ApiError> {
    let dimensions = fields.integer("dimensions", table::DIMENSIONS)?;
    Ok(Embedding { dimensions: dimensions.map(|dimensions| dimensions as u32) })
}

/// The texts in a list found at `path` of which vectors are wanted.
pub(super) fn inputs(path: &str, raw: &RawValue) -> Result<Vec<String>, ApiError> {
    let texts = fields::list(path, raw, INPUTS_MAX)?.into_iter().enumerate();
    texts.map(|(index, raw)| fields::string(&format!("{path}[{index}]"), raw)).collect()
}

fn prompts(path: &str, raw: &RawValue, most: usize) -> Result<Vec<Prompt>, ApiError> {
    let element = |index: usize| format!("{path}[{index}]");
    let prompts: Vec<Prompt> = match (fields::first_byte(raw), fields::first_element_byte(raw)) {
        (b'"', _) => vec![Prompt::Text(fields::string(path, raw)?)],
        (b'[', Some(b'"')) => fields::list(path, raw, most)?
            .into_iter()
            .enumerate()
            .map(|(index, raw)| fields::string(&element(index), raw).map(Prompt::Text))
            .collect::<Result<_, _>>()?,
        (b'[', Some(b'[')) => fields::list(path, raw, most)?
            .into_iter()
            .enumerate()
            .map(|(index, raw)| {
                fields::token_ids(&element(index), raw, MAX_PROMPT_TOKENS).map(Prompt::Tokens)
            })
            .collect::<Result<_, _>>()?,
        (b'[', Some(_)) => vec![Prompt::Tokens(fields::token_ids(path, raw, MAX_PROMPT_TOKENS)?)],
        (b'[', None) => {
            let message =
                format!("`{path}` is an empty list. Send at least one text, or the ids of its tokens.");
            return Err(ApiError::invalid(path, message));
        }
        _ => return Err(fields::wrong_type(path, raw, "a text, a list of texts, or lists of token ids")),
    };
    let empty = |prompt: &Prompt| matches!(prompt, Prompt::Tokens(ids) if ids.is_empty());
    if let Some(index) = prompts.iter().position(empty) {
        let message = format!("`{}` is an empty list of token ids. Send at least one.", element(index));
        return Err(ApiError::invalid(element(index), message));
    }
    Ok(prompts)
}

pub(super) fn sampling(fields: &mut Fields<'_>) -> Result<Sampling, ApiError> {
    let off = Sampling::default();
    let sampling = Sampling {
        temperature: fields.number("temperature", table::TEMPERATURE)?.unwrap_or(off.temperature),
        top_k: fields.integer("top_k", table::TOP_K)?.map_or(off.top_k, |k| k.max(0) as u32),
        top_p: fields.number("top_p", table::PROBABILITY)?.unwrap_or(off.top_p),
        min_p: fields.number("min_p", table::PROBABILITY)?.unwrap_or(off.min_p),
        repetition_penalty: fields
            .number("repetition_penalty", table::REPETITION)?
            .unwrap_or(off.repetition_penalty),
        presence_penalty: fields.number("presence_penalty", table::PENALTY)?.unwrap_or(off.presence_penalty),
        frequency_penalty: fields
            .number("frequency_penalty", table::PENALTY)?
            .unwrap_or(off.frequency_penalty),
        logit_bias: logit_bias(fields)?,
        grammar: None,
    };
    sampling.check().map_err(|invalid| ApiError::invalid(invalid.field, format!("{invalid}.")))?;
    Ok(sampling)
}

fn logit_bias(fields: &mut Fields<'_>) -> Result<Vec<(u32, f32)>, ApiError> {
    let Some(mut members) = fields.fields("logit_bias")? else { return Ok(Vec::new()) };
    let names: Vec<String> = members.names().map(str::to_owned).collect();
    if names.len() > MAX_LOGIT_BIASES {
        let message = format!("`logit_bias` has {} entries. Send at most {MAX_LOGIT_BIASES}.", names.len());
        return Err(ApiError::invalid("logit_bias", message));
    }
    let mut biases = Vec::with_capacity(names.len());
    for name in names {
        let path = members.path(&fields::quote(&name));
        // One spelling per id: no sign, no leading zero.
        let Some(token) = name.parse::<u32>().ok().filter(|token| token.to_string() == name) else {
            let message =
                format!("`{path}` is not a token id. Keys of `logit_bias` are integers, e.g. \"50256\".");
            return Err(ApiError::invalid(path, message));
        };
        if let Some(bias) = members.number(&name, table::BIAS)? {
            biases.push((token, bias));
        }
    }
    biases.sort_unstable_by_key(|(token, _)| *token);
    Ok(biases)
}

/// One text or several, of which each ends the answer.
pub(super) fn stop(fields: &mut Fields<'_>, name: &str) -> Result<Vec<String>, ApiError> {
    let path = fields.path(name);
    let Some(raw) = fields.take(name) else { return Ok(Vec::new()) };
    let stops = match fields::first_byte(raw) {
        b'"' => vec![fields::string(&path, raw)?],
        b'[' => fields::list(&path, raw, MAX_STOPS)?
            .into_iter()
            .enumerate()
            .map(|(index, raw)| fields::string(&format!("{path}[{index}]"), raw))
            .collect::<Result<_, _>>()?,
        _ => return Err(fields::wrong_type(&path, raw, "a text or a list of texts")),
    };
    for (index, stop) in stops.iter().enumerate() {
        if stop.is_empty() || stop.len() > MAX_STOP_BYTES {
            let message = format!(
                "`{path}[{index}]` takes {} bytes. A stop text takes 1 to {MAX_STOP_BYTES}.",
                stop.len(),
            );
            return Err(ApiError::invalid(path, message));
        }
    }
    Ok(stops)
}

fn stream_options(fields: &mut Fields<'_>) -> Result<bool, ApiError> {
    let Some(mut options) = fields.fields("stream_options")? else { return Ok(false) };
    let include_usage = options.boolean("include_usage")?.unwrap_or(false);
    options.take("include_obfuscation");
    table::nothing_left(&options, &["include_usage", "include_obfuscation"])?;
    Ok(include_usage)
}

/// What only this network understands.
pub(super) struct Extras {
    pub(super) date: Option<CivilDate>,
    pub(super) worker: Option<Name>,
    pub(super) deadline_ms: Option<u64>,
}

pub(super) fn extras(fields: &mut Fields<'_>) -> Result<Extras, ApiError> {
    let Some(mut extras) = fields.fields("surety")? else {
        return Ok(Extras { date: None, worker: None, deadline_ms: None });
    };
    let date = match extras.string("date")? {
        None => None,
        Some(text) => Some(date(&text).ok_or_else(|| {
            let message = format!("`surety.date` is \"{}\". It must be YYYY-MM-DD.", fields::quote(&text));
            ApiError::invalid("surety.date", message)
        })?),
    };
    let worker = extras.string("worker")?;
    let worker = worker.map(|digits| provider::worker("surety.worker", &digits)).transpose()?;
    let deadline_ms = extras.integer("deadline_ms", DEADLINE_MS)?.map(|ms| ms as u64);
    table::nothing_left(&extras, &["date", "worker", "deadline_ms"])?;
    Ok(Extras { date, worker, deadline_ms })
}

/// Reads YYYY-MM-DD; whether there is such a day is for `types` to say.
fn date(text: &str) -> Option<CivilDate> {
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    let mut parts = text.splitn(3, '-');
    let (year, month, day) = (parts.next()?, parts.next()?, parts.next()?);
    if (year.len(), month.len(), day.len()) != (4, 2, 2) || ![year, month, day].into_iter().all(digits) {
        return None;
    }
    Some(CivilDate { year: year.parse().ok()?, month: month.parse().ok()?, day: day.parse().ok()? })
}

pub(super) fn required<'a>(fields: &mut Fields<'a>, name: &str) -> Result<&'a RawValue, ApiError> {
    fields.take(name).ok_or_else(|| missing(name))
}

pub(super) fn missing(path: &str) -> ApiError {
    ApiError::invalid(path, format!("`{path}` is missing. Send it."))
}

/// The caller's part of a request's size.
fn prompt_bytes(prompt: &Prompt) -> usize {
    match prompt {
        Prompt::Chat { messages, .. } => messages.iter().map(|message| message.content.len()).sum(),
        Prompt::Text(text) => text.len(),
        Prompt::Tokens(ids) => ids.len() * size_of::<u32>(),
    }
}

#[cfg(test)]
mod tests;
