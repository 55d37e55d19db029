//! Read: the body of one of Ollama's requests, understood.
//!
//! In:     the text of a body; today's date, for chat templates that mention it; when it came.
//! Out:    what is asked for, every default filled in, or an error that names the parameter.
//! Touches: nothing.
//! Holds:  what Ollama's clients send to mean nothing, such as empty texts and lists, means nothing here.
//! Absent: which models and workers there are.

use std::time::Instant;

use serde_json::value::RawValue;
use surety_types::{CivilDate, Message, Prompt, Request, Sampling, Seed, request::MAX_MESSAGES};

use super::parameters as own;
use crate::{
    api::{
        ask::{self, Ask, Form},
        fields::{self, Fields},
        parameters::{self as table, Route},
        provider, response_format, tools,
    },
    error::{ApiError, Code},
    route::preferences::Preferences,
};

const ROLES: [&str; 4] = ["system", "user", "assistant", "tool"];
/// What Ollama documents for requests that do not say.
const TEMPERATURE: f32 = 0.8;
const TOP_K: u32 = 40;
const TOP_P: f32 = 0.9;
/// Below: no limit but the context window.
const NUM_PREDICT: std::ops::RangeInclusive<i64> = -2..=i32::MAX as i64;
const NUM_CTX: std::ops::RangeInclusive<i64> = 1..=i32::MAX as i64;
const REPEAT_LAST_N: std::ops::RangeInclusive<i64> = -1..=i32::MAX as i64;
/// Of an option that must be off, any number is compared.
const ANY: std::ops::RangeInclusive<f32> = f32::MIN..=f32::MAX;

/// What is asked for.
#[derive(Debug)]
pub(super) enum Asked {
    /// Only whether the model is there: Ollama loads it then.
    Load {
        model: String,
        told: Loaded,
    },
    Answer(Box<Ask>),
}

/// In which shape it is told that a model is there.
#[derive(Debug, Clone, Copy)]
pub(super) enum Loaded {
    Text {
        chat: bool,
        stream: bool,
    },
    Vectors,
    /// In the older form, of one.
    Vector,
}

/// Reads the body of `/api/chat` or `/api/generate`.
pub(super) fn read(text: &str, route: Route, today: CivilDate, began: Instant) -> Result<Asked, ApiError> {
    let mut fields = Fields::body(text)?;
    table::screen(&mut fields, route)?;
    let fields = &mut fields;
    let model = ask::model(fields)?;
    lacking(fields)?;
    let options = Options::read(fields)?;
    let logprobs = logprobs(fields)?;
    let stream = fields.boolean("stream")?.unwrap_or(true);
    let ask::Extras { date, worker, deadline_ms } = ask::extras(fields)?;
    let preferences = Preferences { worker, ..provider::preferences(fields, &model)? };
    let chat = route == Route::OllamaChat;
    let grammar = response_format::format(fields)?;
    let (shown, tools) = if chat { offered(fields)? } else { (Vec::new(), None) };
    let prompt = if chat { conversation(fields, shown)? } else { prompt(fields)? };
    assert_eq!(fields.names().next(), None, "a parameter of the table is not read");

    let Some(prompt) = prompt else { return Ok(Asked::Load { model, told: Loaded::Text { chat, stream } }) };
    let form = Form::Ollama { chat, logprobs, began };
    let ask = Ask {
        model,
        sampling: Sampling { grammar: grammar.as_deref().map(Request::grammar_digest), ..options.sampling },
        requests: vec![Request { grammar, ..form.request(prompt, options.stop, date.unwrap_or(today)) }],
        choices: 1,
        seed: options.seed,
        max_output_tokens: options.max_output_tokens,
        ignore_end: false,
        stream,
        include_usage: false,
        preferences,
        deadline_ms,
        form,
        tools,
    };
    ask.checked().map(Box::new).map(Asked::Answer)
}

/// Reads the body of `/api/show`.
pub(super) fn read_name(text: &str) -> Result<String, ApiError> {
    let mut fields = Fields::body(text)?;
    table::screen(&mut fields, Route::OllamaShow)?;
    let older = fields.string("name")?;
    match fields.string("model")?.filter(|model| !model.is_empty()).or(older) {
        Some(name) if !name.is_empty() => Ok(name),
        _ => Err(ask::missing("model")),
    }
}

/// Whether a value says nothing: clients send these for what their callers left out.
fn is_empty(raw: &RawValue) -> bool {
    matches!(raw.get(), "\"\"" | "[]" | "{}" | "false")
}

/// Refuses what is asked for and cannot be had.
fn lacking(fields: &mut Fields<'_>) -> Result<(), ApiError> {
    for (name, instead) in [
        ("think", "Leave it out, or say how much to think: thoughts are part of the text."),
        ("images", "Say in words what they show."),
        ("suffix", "Put the text to be completed at the end of `prompt`."),
        (
            "template",
            "The template is part of the model's identity. Send a finished `prompt` with `raw: true`.",
        ),
        ("context", "Send the conversation to /api/chat."),
    ] {
        if fields.take(name).is_some_and(|raw| !is_empty(raw)) {
            let message = format!("`{name}` is not supported here. {instead}");
            return Err(ApiError::new(Code::UnsupportedParameter, message).with_param(name));
        }
    }
    Ok(())
}

fn logprobs(fields: &mut Fields<'_>) -> Result<Option<u8>, ApiError> {
    let wanted = fields.boolean("logprobs")?.unwrap_or(false);
    let top = fields.integer("top_logprobs", table::TOP_LOGPROBS)?;
    if let (Some(1..), false) = (top, wanted) {
        let message = "`top_logprobs` needs `logprobs: true`. Set it, or leave `top_logprobs` out.";
        return Err(ApiError::invalid("top_logprobs", message));
    }
    Ok(wanted.then_some(top.unwrap_or(0) as u8))
}

/// What may be called; clients send empty values for nothing.
fn offered(fields: &mut Fields<'_>) -> Result<tools::Offered, ApiError> {
    if fields.raw("tools").is_some_and(is_empty) {
        fields.take("tools");
    }
    tools::offered(fields)
}

/// The prompt of a chat; none if it has no messages.
fn conversation(fields: &mut Fields<'_>, shown: Vec<String>) -> Result<Option<Prompt>, ApiError> {
    let Some(raw) = fields.take("messages") else { return Ok(None) };
    let turns = fields::list("messages", raw, MAX_MESSAGES)?;
    let last = turns.len().saturating_sub(1);
    let mut messages = Vec::with_capacity(turns.len());
    for (index, raw) in turns.into_iter().enumerate() {
        let mut turn = Fields::object(format!("messages[{index}]"), raw)?;
        let role_path = turn.path("role");
        let role = turn.string("role")?.ok_or_else(|| ask::missing(&role_path))?;
        if !ROLES.contains(&role.as_str()) {
            let names = ROLES.map(|name| format!("`{name}`")).join(", ");
            let message =
                format!("`{role_path}` is \"{}\". It must be one of {names}.", fields::quote(&role));
            return Err(ApiError::invalid(role_path, message));
        }
        let content = turn.string("content")?.unwrap_or_default();
        for (name, instead) in [
            ("images", "Say in words what they show."),
            ("thinking", "Leave it out, or put it into `content`."),
        ] {
            if turn.take(name).is_some_and(|raw| !is_empty(raw)) {
                let path = turn.path(name);
                let message = format!("`{path}` is not supported here. {instead}");
                return Err(ApiError::new(Code::UnsupportedParameter, message).with_param(path));
            }
        }
        if turn.raw("tool_calls").is_some_and(is_empty) {
            turn.take("tool_calls");
        }
        let tool_calls = match role.as_str() {
            "assistant" => tools::calls_of_objects(index, &mut turn)?,
            _ => Vec::new(),
        };
        let mut named = |name: &str| -> Result<Option<String>, ApiError> {
            let path = turn.path(name);
            let text = turn.string(name)?.filter(|text| !text.is_empty() && role == "tool");
            text.map(|text| tools::short(&path, text)).transpose()
        };
        let (name, tool_call_id) = (named("tool_name")?, named("tool_call_id")?);
        table::nothing_left(&turn, &["role", "content", "tool_calls", "tool_name", "tool_call_id"])?;
        if index == last && role == "assistant" {
            let message = "The last message is the assistant's, which asks for its continuation. Answers cannot be begun for \
                           the model here: end `messages` with what the user says.";
            return Err(ApiError::new(Code::UnsupportedParameter, message).with_param(role_path));
        }
        messages.push(Message { role, content, name, tool_calls, tool_call_id });
    }
    answer_calls(&mut messages);
    Ok((!messages.is_empty()).then_some(Prompt::Chat { messages, tools: shown }))
}

/// A result that names no call is that of the first call before it that has none yet: of its tool, if it names one.
fn answer_calls(messages: &mut [Message]) {
    let mut open: Vec<(String, String)> = Vec::new();
    for message in messages {
        if !message.tool_calls.is_empty() {
            open = message.tool_calls.iter().map(|call| (call.id.clone(), call.name.clone())).collect();
        }
        if message.role != "tool" {
            continue;
        }
        let of = open.iter().position(|(id, name)| match (&message.tool_call_id, &message.name) {
            (Some(named), _) => named == id,
            (None, Some(named)) => named == name,
            (None, None) => true,
        });
        if let Some(of) = of {
            message.tool_call_id = Some(open.remove(of).0);
        }
    }
}

/// The prompt of a text; none if it is empty.
fn prompt(fields: &mut Fields<'_>) -> Result<Option<Prompt>, ApiError> {
    let said = |text: Option<String>| text.filter(|text| !text.is_empty());
    let prompt = said(fields.string("prompt")?);
    let system = said(fields.string("system")?);
    let raw = fields.boolean("raw")?.unwrap_or(false);
    let Some(prompt) = prompt else { return Ok(None) };
    if !raw {
        let messages = system.map(|system| Message::text("system", system)).into_iter();
        return Ok(Some(Prompt::chat(messages.chain([Message::text("user", prompt)]).collect())));
    }
    if system.is_some() {
        let message = "`raw: true` leaves no place for `system`. Put it into `prompt`, or leave `raw` out.";
        return Err(ApiError::invalid("system", message));
    }
    Ok(Some(Prompt::Text(prompt)))
}

/// What `options` says.
pub(super) struct Options {
    sampling: Sampling,
    seed: Seed,
    max_output_tokens: Option<u32>,
    stop: Vec<String>,
}

impl Options {
    pub(super) fn read(fields: &mut Fields<'_>) -> Result<Options, ApiError> {
        let Some(mut options) = fields.fields("options")? else {
            return Options::of(&mut Fields::body("{}")?);
        };
        Options::of(&mut options)
    }

    fn of(options: &mut Fields<'_>) -> Result<Options, ApiError> {
        for name in own::IGNORED {
            options.take(name);
        }
        for (name, off) in own::OFF {
            let path = options.path(name);
            if options.number(name, ANY)?.is_some_and(|value| value != off) {
                let message = format!(
                    "`{path}` is not supported here, except {off}, which is off. Use `top_p` or `min_p`."
                );
                return Err(ApiError::new(Code::UnsupportedParameter, message).with_param(path));
            }
        }
        for name in own::BESIDE {
            options.take(name);
        }
        // A prompt is never shortened, and an answer may use all of the model's window, whatever is set aside elsewhere.
        options.integer("num_ctx", NUM_CTX)?;
        let off = Sampling::default();
        let mut sampling = Sampling {
            temperature: options.number("temperature", table::TEMPERATURE)?.unwrap_or(TEMPERATURE),
            top_k: options.integer("top_k", table::TOP_K)?.map_or(TOP_K, |k| k.max(0) as u32),
            top_p: options.number("top_p", table::PROBABILITY)?.unwrap_or(TOP_P),
            min_p: options.number("min_p", table::PROBABILITY)?.unwrap_or(off.min_p),
            repetition_penalty: options
                .number("repeat_penalty", table::REPETITION)?
                .unwrap_or(off.repetition_penalty),
            presence_penalty: options
                .number("presence_penalty", table::PENALTY)?
                .unwrap_or(off.presence_penalty),
            frequency_penalty: options
                .number("frequency_penalty", table::PENALTY)?
                .unwrap_or(off.frequency_penalty),
            ..off
        };
        let window = options.path("repeat_last_n");
        match options.integer("repeat_last_n", REPEAT_LAST_N)? {
            None | Some(-1) => {}
            Some(0) => {
                let off = Sampling::default();
                sampling.repetition_penalty = off.repetition_penalty;
                sampling.presence_penalty = off.presence_penalty;
                sampling.frequency_penalty = off.frequency_penalty;
            }
            Some(_) if is_unpenalised(&sampling) => {}
            Some(_) => {
                let message = format!(
                    "`{window}` is not supported here beside a penalty: all that was said counts. Send -1, or leave it out."
                );
                return Err(ApiError::new(Code::UnsupportedParameter, message).with_param(window));
            }
        }
        sampling.check().map_err(|invalid| ApiError::invalid(invalid.field, format!("{invalid}.")))?;
        // Ollama's own default, and what its clients send for none.
        let seed = options.integer("seed", table::SEED)?.filter(|seed| *seed != -1);
        let limit = options.path("num_predict");
        let max_output_tokens = match options.integer("num_predict", NUM_PREDICT)? {
            None | Some(-2 | -1) => None,
            Some(0) => {
                let message = format!(
                    "`{limit}` is 0, so there would be no answer. Send at least 1, or -1 for no limit."
                );
                return Err(ApiError::invalid(limit, message));
            }
            Some(tokens) => Some(tokens as u32),
        };
        let stop = ask::stop(options, "stop")?;
        let known: Vec<&'static str> = own::TAKEN.into_iter().chain(own::IGNORED).collect();
        table::nothing_left(options, &known)?;
        Ok(Options { sampling, seed: seed.map_or(Seed::Nonce, Seed::Caller), max_output_tokens, stop })
    }
}

fn is_unpenalised(sampling: &Sampling) -> bool {
    let off = Sampling::default();
    (sampling.repetition_penalty, sampling.presence_penalty, sampling.frequency_penalty)
        == (off.repetition_penalty, off.presence_penalty, off.frequency_penalty)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TODAY: CivilDate = CivilDate { year: 2026, month: 1, day: 1 };

    fn try_read(text: &str, route: Route) -> Result<Asked, ApiError> {
        read(text, route, TODAY, Instant::now())
    }

    fn asked(text: &str, route: Route) -> Ask {
        match try_read(text, route).expect("a good body") {
            Asked::Answer(ask) => *ask,
            Asked::Load { .. } => panic!("nothing is asked: {text}"),
        }
    }

    fn chat(more: &str) -> String {
        format!(r#"{{"model":"m","messages":[{{"role":"user","content":"x"}}]{more}}}"#)
    }

    fn check_refused(text: &str, route: Route, code: Code, param: &str) {
        let error = try_read(text, route).expect_err("should be refused");
        assert_eq!((error.code(), error.param()), (code, Some(param)), "{text}: {}", error.message());
    }

    #[test]
    fn what_is_left_out_is_as_ollama_documents_it() {
        let ask = asked(&chat(""), Route::OllamaChat);
        assert!(ask.stream);
        assert_eq!((ask.sampling.temperature, ask.sampling.top_k, ask.sampling.top_p), (0.8, 40, 0.9));
        assert_eq!((ask.seed, ask.max_output_tokens), (Seed::Nonce, None));
        assert_eq!(ask.requests[0].logprobs, None);
    }

    #[test]
    fn options_are_read() {
        let ask = asked(
            &chat(
                r#","stream":false,"keep_alive":"5m","format":"","tools":[],"think":false,"logprobs":true,"top_logprobs":2,
                   "options":{"temperature":0,"top_k":0,"top_p":1,"min_p":0.5,"seed":7,"num_predict":3,"stop":["A"],"num_ctx":2048,
                   "repeat_penalty":1.5,"repeat_last_n":-1,"presence_penalty":1,"frequency_penalty":-1,"num_thread":4,"mirostat":0,
                   "mirostat_tau":5.0,"tfs_z":1.0}"#,
            ),
            Route::OllamaChat,
        );
        let expected = Sampling {
            temperature: 0.0,
            top_k: 0,
            top_p: 1.0,
            min_p: 0.5,
            repetition_penalty: 1.5,
            presence_penalty: 1.0,
            frequency_penalty: -1.0,
            ..Sampling::default()
        };
        assert_eq!((&ask.sampling, ask.seed), (&expected, Seed::Caller(7)));
        assert_eq!((ask.max_output_tokens, ask.stream), (Some(3), false));
        assert_eq!((&ask.requests[0].stop[..], ask.requests[0].logprobs), (&["A".to_owned()][..], Some(2)));
        let off = asked(
            &chat(r#","options":{"repeat_penalty":1.5,"repeat_last_n":0,"seed":-1,"num_predict":-1}"#),
            Route::OllamaChat,
        );
        assert_eq!(
            (off.sampling.repetition_penalty, off.seed, off.max_output_tokens),
            (1.0, Seed::Nonce, None)
        );
    }

    #[test]
    fn a_text_is_a_turn_or_stands_as_it_is() {
        let turn = asked(
            r#"{"model":"m","prompt":"p","system":"s","suffix":"","images":[]}"#,
            Route::OllamaGenerate,
        );
        let Prompt::Chat { messages, .. } = &turn.requests[0].prompt else { panic!("not a chat") };
        let roles: Vec<&str> = messages.iter().map(|message| message.role.as_str()).collect();
        assert_eq!(roles, ["system", "user"]);
        let raw = asked(r#"{"model":"m","prompt":"p","raw":true}"#, Route::OllamaGenerate);
        assert_eq!(raw.requests[0].prompt, Prompt::Text("p".to_owned()));
        assert_eq!(raw.requests[0].date, None);
    }

    #[test]
    fn without_a_prompt_only_the_model_is_asked_for() {
        for (text, route) in [
            (r#"{"model":"m"}"#, Route::OllamaGenerate),
            (r#"{"model":"m","prompt":"","keep_alive":0}"#, Route::OllamaGenerate),
            (r#"{"model":"m","messages":[]}"#, Route::OllamaChat),
        ] {
            assert!(matches!(try_read(text, route), Ok(Asked::Load { .. })), "{text}");
        }
    }

    #[test]
    fn what_is_lacking_is_named() {
        use Code::{InvalidParam, UnknownParameter, UnsupportedParameter};
        let chat_refused =
            |more: &str, code, param| check_refused(&chat(more), Route::OllamaChat, code, param);
        chat_refused(r#","format":"yaml""#, InvalidParam, "format");
        chat_refused(r#","format":{"type":"text"}"#, InvalidParam, "format");
        chat_refused(r#","format":{"pattern":"x"}"#, UnsupportedParameter, "format");
        chat_refused(r#","tools":[{"type":"function"}]"#, InvalidParam, "tools[0].function");
        chat_refused(r#","tool_choice":"none""#, UnknownParameter, "tool_choice");
        chat_refused(r#","think":"high""#, UnsupportedParameter, "think");
        chat_refused(r#","temperature":1"#, UnknownParameter, "temperature");
        chat_refused(r#","options":{"temprature":1}"#, UnknownParameter, "options.temprature");
        chat_refused(r#","options":{"temperature":9}"#, InvalidParam, "options.temperature");
        chat_refused(r#","options":{"mirostat":2}"#, UnsupportedParameter, "options.mirostat");
        chat_refused(r#","options":{"num_predict":0}"#, InvalidParam, "options.num_predict");
        chat_refused(r#","options":{"num_ctx":0}"#, InvalidParam, "options.num_ctx");
        let window = r#","options":{"repeat_penalty":1.1,"repeat_last_n":64}"#;
        chat_refused(window, UnsupportedParameter, "options.repeat_last_n");
        let generate = |more: &str, param| {
            let text = format!(r#"{{"model":"m","prompt":"p"{more}}}"#);
            check_refused(&text, Route::OllamaGenerate, UnsupportedParameter, param);
        };
        generate(r#","suffix":"s""#, "suffix");
        generate(r#","template":"{{ .Prompt }}""#, "template");
        generate(r#","context":[1]"#, "context");
        generate(r#","images":["aGk="]"#, "images");
        generate(r#","width":9"#, "width");
        let raw = r#"{"model":"m","prompt":"p","raw":true,"system":"s"}"#;
        check_refused(raw, Route::OllamaGenerate, InvalidParam, "system");
        let turn = |turn: &str, param| {
            let text = format!(r#"{{"model":"m","messages":[{turn}]}}"#);
            check_refused(&text, Route::OllamaChat, UnsupportedParameter, param);
        };
        turn(r#"{"role":"user","content":"x","images":["aGk="]}"#, "messages[0].images");
        turn(r#"{"role":"assistant","content":"The"}"#, "messages[0].role");
    }

    #[test]
    fn formats_become_grammars() {
        let generate = r#"{"model":"m","prompt":"p","format":{"type": "null"}}"#;
        for (text, route, expected) in [
            (chat(r#","format":"json""#), Route::OllamaChat, Some(surety_grammar::json_object())),
            (
                generate.to_owned(),
                Route::OllamaGenerate,
                surety_grammar::json_schema(r#"{"type":"null"}"#).ok(),
            ),
            (chat(r#","format":"""#), Route::OllamaChat, None),
        ] {
            let ask = asked(&text, route);
            assert_eq!(ask.sampling.grammar, expected.as_deref().map(Request::grammar_digest), "{text}");
            assert_eq!(ask.requests[0].grammar, expected);
        }
    }

    #[test]
    fn calls_and_results_are_messages() {
        let tool = r#"{"type":"function","function":{"name":"f","parameters":{"type":"object"}}}"#;
        let ask = asked(
            &format!(
                r#"{{"model":"m","tools":[{tool}],"messages":[{{"role":"user","content":"a"}},
                    {{"role":"assistant","tool_calls":[{{"function":{{"name":"f","arguments":{{"x": 1}}}}}},
                        {{"id":"own","function":{{"index":1,"name":"g","arguments":{{}}}}}}]}},
                    {{"role":"tool","content":"d","tool_name":"g"}},{{"role":"tool","content":"c"}}]}}"#
            ),
            Route::OllamaChat,
        );
        let Prompt::Chat { messages, tools } = &ask.requests[0].prompt else { panic!("not a chat") };
        assert_eq!(tools[..], [tool]);
        assert_eq!(ask.tools.as_ref().map(|tools| (tools.most, tools.forced.is_some())), Some((128, false)));
        let calls: Vec<(&str, &str)> =
            messages[1].tool_calls.iter().map(|call| (call.id.as_str(), call.arguments.as_str())).collect();
        assert_eq!(calls, [("call00100", r#"{"x":1}"#), ("own", "{}")]);
        assert_eq!(
            (messages[2].name.as_deref(), messages[2].tool_call_id.as_deref()),
            (Some("g"), Some("own"))
        );
        assert_eq!(messages[3].tool_call_id.as_deref(), Some("call00100"));
    }

    #[test]
    fn a_model_is_named_in_either_way() {
        assert_eq!(read_name(r#"{"model":"m","verbose":true}"#).expect("a name"), "m");
        assert_eq!(read_name(r#"{"name":"m"}"#).expect("a name"), "m");
        assert_eq!(read_name(r#"{"name":""}"#).expect_err("no name").param(), Some("model"));
    }

    proptest! {
        #[test]
        fn no_value_of_any_parameter_panics(
            name in prop::sample::select(own::PARAMETERS.iter().map(|row| row.name).collect::<Vec<_>>()),
            option in prop::sample::select([own::TAKEN.as_slice(), own::IGNORED.as_slice()].concat()),
            value in r#"[\[\]{}",:0-9eE.\-a-z\\u ]{0,60}"#,
        ) {
            for route in [Route::OllamaChat, Route::OllamaGenerate] {
                let _ = try_read(&format!(r#"{{"model":"m","{name}":{value}}}"#), route);
                let _ = try_read(&format!(r#"{{"model":"m","options":{{"{option}":{value}}}}}"#), route);
            }
            let _ = read_name(&format!(r#"{{"{name}":{value}}}"#));
        }
    }
}
