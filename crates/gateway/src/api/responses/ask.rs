//! Ask: the body of a request for a response, understood.
//!
//! In:     the text of a body; later what was said before, and today's date.
//! Out:    what is asked for, every default filled in, or an error that names the parameter.
//! Touches: nothing.
//! Holds:  a body that was understood once is understood alike whenever it is read again; whatever is ordered of workers is
//!         within the bounds of `types`.
//! Absent: finding what was said before (`live`), which models and workers there are.

use std::collections::BTreeMap;

use serde_json::value::RawValue;
use surety_types::{
    CivilDate, Message, Prompt, Request, Sampling, Seed, envelope::MAX_ID_BYTES, json, request::MAX_MESSAGES,
};

use super::items::{Input, input};
use crate::{
    api::{
        ask::{self, Ask, Extras, Form, required},
        fields::{self, Fields, quote},
        parameters::{self as table, Route},
        provider, response_format,
        tools::{self, Tools},
    },
    error::{ApiError, Code},
    id::RequestId,
    route::preferences::Preferences,
};

/// Pairs in `metadata`, and characters of a name and of a value, as OpenAI has it.
const METADATA_MAX: usize = 16;
const METADATA_NAME_CHARACTERS_MAX: usize = 64;
const METADATA_VALUE_CHARACTERS_MAX: usize = 512;
/// Characters of what names an end user or a cache.
const LABEL_CHARACTERS_MAX: usize = 512;
/// Things that `include` may name.
const INCLUDE_MAX: usize = 32;
/// What `include` may name: parts of items that are never there, and so are never left out.
const INCLUDED: [&str; 7] = [
    "file_search_call.results",
    "web_search_call.results",
    "web_search_call.action.sources",
    "message.input_image.image_url",
    "computer_call_output.output.image_url",
    "code_interpreter_call.outputs",
    "reasoning.encrypted_content",
];
/// To know a prompt's tokens, so many of an answer are ordered, and given up.
const COUNTED_TOKENS: u32 = 1;

/// What is asked for.
#[derive(Debug, PartialEq)]
pub(super) struct Asked {
    /// A name, `name@<digits>`, or an id, as the caller wrote it.
    pub(super) model: String,
    pub(super) instructions: Option<String>,
    pub(super) input: Vec<Input>,
    pub(super) previous: Option<RequestId>,
    pub(super) background: bool,
    pub(super) store: bool,
    pub(super) stream: bool,
    pub(super) metadata: BTreeMap<String, String>,
    pub(super) user: Option<String>,
    pub(super) safety_identifier: Option<String>,
    pub(super) prompt_cache_key: Option<String>,
    pub(super) max_output_tokens: Option<u32>,
    pub(super) sampling: Sampling,
    /// What may be called.
    pub(super) tools: Option<Tools>,
    pub(super) repeated: Repeated,
    /// The tools as templates are given them.
    shown: Vec<String>,
    grammar: Option<String>,
    seed: Seed,
    stop: Vec<String>,
    ignore_end: bool,
    date: Option<CivilDate>,
    deadline_ms: Option<u64>,
    preferences: Preferences,
}

/// What the response repeats as it was sent.
#[derive(Debug, PartialEq)]
pub(super) struct Repeated {
    pub(super) tools: AsSent,
    pub(super) tool_choice: AsSent,
    pub(super) parallel_tool_calls: bool,
    /// The form of the text.
    pub(super) format: AsSent,
}

/// JSON as it was sent.
#[derive(Debug)]
pub(super) struct AsSent(Box<RawValue>);

impl PartialEq for AsSent {
    fn eq(&self, other: &Self) -> bool {
        self.0.get() == other.0.get()
    }
}

impl AsSent {
    /// What was sent, on one line, or its default, which is JSON.
    fn or(sent: Option<&RawValue>, default: &'static str) -> AsSent {
        let json = sent.map_or_else(|| default.to_owned(), |raw| json::compact(raw.get()));
        AsSent(RawValue::from_string(json).expect("what was read as JSON is JSON"))
    }

    pub(super) fn json(&self) -> &RawValue {
        &self.0
    }
}

impl Asked {
    /// Reads the body of a request for a response.
    pub(super) fn parse(text: &str) -> Result<Asked, ApiError> {
        Asked::parse_of(text, Route::Responses)
    }

    /// Reads a body, of which the other route has fewer parameters.
    pub(super) fn parse_of(text: &str, route: Route) -> Result<Asked, ApiError> {
        let mut fields = Fields::body(text)?;
        table::screen(&mut fields, route)?;
        let fields = &mut fields;
        let model = fields::string("model", required(fields, "model")?)?;
        if model.is_empty() || model.len() > MAX_ID_BYTES {
            let message = format!(
                "`model` takes {} bytes. Names take 1 to {MAX_ID_BYTES}; GET /v1/models lists what there is.",
                model.len(),
            );
            return Err(ApiError::invalid("model", message));
        }
        let input = input(required(fields, "input")?)?;
        let background = fields.boolean("background")?.unwrap_or(false);
        let store = fields.boolean("store")?.unwrap_or(true);
        if background && !store {
            let message = "`background` needs `store`: nobody could get the response. Leave one of them out.";
            return Err(ApiError::invalid("background", message));
        }
        let (tools, tool_choice) = (fields.raw("tools"), fields.raw("tool_choice"));
        let parallel_tool_calls = fields.boolean("parallel_tool_calls")?.unwrap_or(true);
        let (shown, callable) = tools::offered_flat(fields, parallel_tool_calls)?;
        let (format, grammar) = form(fields)?;
        only_plain(fields)?;
        let Extras { date, worker, deadline_ms } = ask::extras(fields)?;
        let preferences = Preferences { worker, ..provider::preferences(fields, &model)? };
        let asked = Asked {
            model,
            instructions: fields.string("instructions")?,
            input,
            previous: previous(fields)?,
            background,
            store,
            stream: fields.boolean("stream")?.unwrap_or(false),
            metadata: metadata(fields)?,
            user: label(fields, "user")?,
            safety_identifier: label(fields, "safety_identifier")?,
            prompt_cache_key: label(fields, "prompt_cache_key")?,
            max_output_tokens: fields
                .integer("max_output_tokens", table::CHAT_TOKENS)?
                .map(|tokens| tokens as u32),
            sampling: Sampling {
                grammar: grammar.as_deref().map(Request::grammar_digest),
                ..ask::sampling(fields)?
            },
            tools: callable,
            repeated: Repeated {
                tools: AsSent::or(tools, "[]"),
                tool_choice: AsSent::or(tool_choice, "\"auto\""),
                parallel_tool_calls,
                format,
            },
            shown,
            grammar,
            seed: fields.integer("seed", table::SEED)?.map_or(Seed::Nonce, Seed::Caller),
            stop: ask::stop(fields, "stop")?,
            ignore_end: fields.boolean("ignore_eos")?.unwrap_or(false),
            date,
            deadline_ms,
            preferences,
        };
        assert_eq!(fields.names().next(), None, "a parameter of the table is not read");
        if asked.grammar.is_some() && asked.ignore_end {
            let message = "`ignore_eos` goes past the end of an answer, and one that keeps to `text.format` has nothing more to \
                           say there. Leave one of them out.";
            return Err(ApiError::invalid("ignore_eos", message));
        }
        Ok(asked)
    }

    /// Whether a second worker is to compute it, too, before it is whole.
    pub(super) fn checked(&self) -> bool {
        self.preferences.checked
    }

    /// Whether it is kept from its beginning, so that whoever lost it finds it.
    pub(super) fn is_kept_from_the_start(&self) -> bool {
        self.store && (self.stream || self.background)
    }

    /// What is ordered of workers: `conversation` is all that was said, the input included.
    pub(super) fn ask(&self, conversation: Vec<Message>, today: CivilDate) -> Result<Ask, ApiError> {
        let instructions = self.instructions.iter().map(|text| Message::text("system", text.clone()));
        let messages: Vec<Message> = instructions.chain(conversation).collect();
        if messages.is_empty() || messages.len() > MAX_MESSAGES {
            let message = format!(
                "The conversation has {} messages, with `instructions` and those of responses before. It takes 1 to \
                 {MAX_MESSAGES}.",
                messages.len(),
            );
            return Err(ApiError::invalid("input", message));
        }
        let form = Form::Response;
        let prompt = Prompt::Chat { messages, tools: self.shown.clone() };
        let request = form.request(prompt, self.stop.clone(), self.date.unwrap_or(today));
        let request = Request { grammar: self.grammar.clone(), ..request };
        let ask = Ask {
            model: self.model.clone(),
            requests: vec![request],
            choices: 1,
            sampling: self.sampling.clone(),
            seed: self.seed,
            max_output_tokens: self.max_output_tokens,
            ignore_end: self.ignore_end,
            // Whether what it needs to go on is kept.
            stream: self.is_kept_from_the_start(),
            include_usage: false,
            preferences: self.preferences.clone(),
            deadline_ms: self.deadline_ms,
            form,
            tools: self.tools.clone(),
        };
        ask.checked().map_err(|error| error.with_param("input"))
    }

    /// What is ordered of a worker that is to count the tokens of this.
    pub(super) fn count(&self, conversation: Vec<Message>, today: CivilDate) -> Result<Ask, ApiError> {
        let ask = self.ask(conversation, today)?;
        // Of what is only counted, nothing is made.
        Ok(Ask {
            max_output_tokens: Some(COUNTED_TOKENS),
            stream: false,
            form: Form::Count,
            tools: None,
            ..ask
        })
    }
}

fn previous(fields: &mut Fields<'_>) -> Result<Option<RequestId>, ApiError> {
    const NAME: &str = "previous_response_id";
    let Some(text) = fields.string(NAME)? else { return Ok(None) };
    match RequestId::parse(&text).filter(|id| id.response() == text) {
        Some(id) => Ok(Some(id)),
        None => {
            let message = format!(
                "`{NAME}` is \"{}\", which is no response's id here. They look like resp_ and 32 digits.",
                quote(&text),
            );
            Err(ApiError::invalid(NAME, message))
        }
    }
}

/// The form of the text, as the response repeats it, and the grammar that it is.
fn form(fields: &mut Fields<'_>) -> Result<(AsSent, Option<String>), ApiError> {
    const PLAIN: &str = "{\"type\":\"text\"}";
    let Some(mut text) = fields.fields("text")? else { return Ok((AsSent::or(None, PLAIN), None)) };
    let format = AsSent::or(text.raw("format"), PLAIN);
    let grammar = response_format::text_format(&mut text)?;
    if text.string("verbosity")?.is_some_and(|verbosity| verbosity != "medium") {
        return refused("text.verbosity", "Say in `instructions` how long the answer should be.");
    }
    table::nothing_left(&text, &["format", "verbosity"])?;
    Ok((format, grammar))
}

fn refused<T>(path: &str, instead: &str) -> Result<T, ApiError> {
    let message = format!("`{path}` is not supported here. {instead}");
    Err(ApiError::new(Code::UnsupportedParameter, message).with_param(path))
}

/// Nothing is thought, shown or left out beside the answer.
fn only_plain(fields: &mut Fields<'_>) -> Result<(), ApiError> {
    if let Some(mut reasoning) = fields.fields("reasoning")? {
        if reasoning.string("effort")?.is_some_and(|effort| effort != "none") {
            return refused("reasoning.effort", "Say in `instructions` how much to think.");
        }
        for name in ["summary", "generate_summary", "context", "mode"] {
            if reasoning.take(name).is_some() {
                return refused(&reasoning.path(name), "Thoughts are part of the text here. Leave it out.");
            }
        }
        table::nothing_left(&reasoning, &["effort"])?;
    }
    if let Some(raw) = fields.take("include") {
        included("include", raw)?;
    }
    if let Some(truncation) = fields.string("truncation")? {
        match truncation.as_str() {
            "disabled" => {}
            "auto" => {
                let instead = "What does not fit is refused, and nothing is left out unseen. Send less, or leave it out.";
                return refused("truncation", instead);
            }
            other => {
                let message = format!("`truncation` is \"{}\". It must be \"disabled\".", quote(other));
                return Err(ApiError::invalid("truncation", message));
            }
        }
    }
    if fields.integer("top_logprobs", table::TOP_LOGPROBS)?.is_some_and(|top| top > 0) {
        return refused("top_logprobs", "Ask /v1/chat/completions for `logprobs`.");
    }
    if let Some(mut options) = fields.fields("stream_options")? {
        options.boolean("include_obfuscation")?;
        table::nothing_left(&options, &["include_obfuscation"])?;
    }
    Ok(())
}

/// Checks a list of what is to be included: nothing that it may name is ever left out.
fn included(path: &str, raw: &RawValue) -> Result<(), ApiError> {
    for (index, raw) in fields::list(path, raw, INCLUDE_MAX)?.into_iter().enumerate() {
        let path = format!("{path}[{index}]");
        check_included(&path, &fields::string(&path, raw)?)?;
    }
    Ok(())
}

/// Checks one thing that is to be included.
pub(super) fn check_included(path: &str, name: &str) -> Result<(), ApiError> {
    if INCLUDED.contains(&name) {
        return Ok(());
    }
    let (code, message) = match name {
        "message.output_text.logprobs" => (
            Code::UnsupportedParameter,
            format!("`{path}` asks for log-probabilities. Ask /v1/chat/completions for `logprobs`."),
        ),
        _ => (
            Code::InvalidParam,
            format!("`{path}` is \"{}\". It must be one of {}.", quote(name), INCLUDED.join(", ")),
        ),
    };
    Err(ApiError::new(code, message).with_param(path))
}

fn metadata(fields: &mut Fields<'_>) -> Result<BTreeMap<String, String>, ApiError> {
    let Some(mut members) = fields.fields("metadata")? else { return Ok(BTreeMap::new()) };
    let names: Vec<String> = members.names().map(str::to_owned).collect();
    if names.len() > METADATA_MAX {
        let message = format!("`metadata` has {} pairs. Send at most {METADATA_MAX}.", names.len());
        return Err(ApiError::invalid("metadata", message));
    }
    let mut metadata = BTreeMap::new();
    for name in names {
        let path = members.path(&quote(&name));
        let value = members.string(&name)?.ok_or_else(|| {
            ApiError::invalid(path.clone(), format!("`{path}` is null. It must be a string."))
        })?;
        let (name_characters, characters) = (name.chars().count(), value.chars().count());
        if name_characters > METADATA_NAME_CHARACTERS_MAX || characters > METADATA_VALUE_CHARACTERS_MAX {
            let message = format!(
                "`{path}` has a name of {name_characters} and a value of {characters} characters. At most \
                 {METADATA_NAME_CHARACTERS_MAX} and {METADATA_VALUE_CHARACTERS_MAX} are kept.",
            );
            return Err(ApiError::invalid(path, message));
        }
        metadata.insert(name, value);
    }
    Ok(metadata)
}

/// What the response repeats, and nothing else is done with.
fn label(fields: &mut Fields<'_>, name: &str) -> Result<Option<String>, ApiError> {
    let label = fields.string(name)?;
    let characters = label.as_ref().map_or(0, |label| label.chars().count());
    if characters > LABEL_CHARACTERS_MAX {
        let message =
            format!("`{name}` has {characters} characters. At most {LABEL_CHARACTERS_MAX} are taken.");
        return Err(ApiError::invalid(name, message));
    }
    Ok(label)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use surety_types::ToolCall;

    use super::*;
    use crate::api::responses::items::{Place, Said};

    const TODAY: CivilDate = CivilDate { year: 2026, month: 11, day: 20 };

    fn asked(members: &str) -> Result<Asked, ApiError> {
        Asked::parse(&format!(r#"{{"model":"m"{members}}}"#))
    }

    fn check_refused(members: &str, code: Code, param: &str, words: &str) {
        let error = asked(members).expect_err(members);
        assert_eq!((error.code(), error.param()), (code, Some(param)), "{}", error.message());
        assert!(error.message().contains(words), "{} lacks {words}", error.message());
    }

    fn said(role: &'static str, parts: &[&str]) -> Input {
        Input::Said(Said::Message { role, parts: parts.iter().map(|part| (*part).to_owned()).collect() })
    }

    #[test]
    fn what_is_absent_has_openai_s_default() {
        let asked = asked(r#","input":"hi""#).expect("a plain one");
        assert_eq!(asked.input, [said("user", &["hi"])]);
        assert!(asked.store && !asked.stream && !asked.background);
        assert_eq!((asked.previous, asked.max_output_tokens), (None, None));
        let ask = asked.ask(vec![said_message("user", "hi")], TODAY).expect("an ask");
        assert_eq!(
            (ask.sampling.clone(), ask.seed, ask.requests[0].date),
            (Sampling::default(), Seed::Nonce, Some(TODAY))
        );
        assert!(!ask.goes_on());
    }

    fn said_message(role: &str, content: &str) -> Message {
        Message::text(role, content)
    }

    #[test]
    fn every_parameter_is_read() {
        let asked = asked(
            r#","input":[{"role":"developer","content":"be kind"},
                 {"type":"message","role":"user","content":[{"type":"input_text","text":"a"},{"type":"input_text","text":"b"}]},
                 {"type":"message","id":"msg_x","status":"completed","role":"assistant","phase":null,
                  "content":[{"type":"output_text","text":"c","annotations":[],"logprobs":[]}]},
                 {"type":"item_reference","id":"msg_0000000000000000000000000000000a"},
                 {"type":"function_call","id":"fc_x","status":"completed","call_id":"call_1","name":"f","arguments":"{\"a\": 1}"},
                 {"type":"function_call_output","call_id":"call_1","name":"f","output":[{"type":"input_text","text":"o"}]},
                 {"type":"item_reference","id":"fc_0000000000000000000000000000000a_0001"},
                 {"type":"item_reference","id":"msg_0000000000000000000000000000000a0003"}],
               "instructions":"in short","max_output_tokens":9,"temperature":0.5,"top_p":0.25,"stream":true,"store":true,
               "background":true,"previous_response_id":"resp_0000000000000000000000000000000b",
               "metadata":{"a":"b"},"user":"u","safety_identifier":"s","prompt_cache_key":"k",
               "text":{"format":{"type":"json_schema","name":"n","schema":{"type": "null"}},"verbosity":"medium"},"truncation":"disabled","top_logprobs":0,
               "reasoning":{"effort":null,"summary":null},"include":["reasoning.encrypted_content"],
               "tools":[{"type":"function","name":"f","description":"d","parameters":{"type":"object"},"strict":false}],
               "tool_choice":"auto","parallel_tool_calls":false,"max_tool_calls":3,"service_tier":"auto",
               "stream_options":{"include_obfuscation":false},"seed":5,"stop":"x","top_k":40,"ignore_eos":false,
               "surety":{"date":"2024-02-29","deadline_ms":5000}"#,
        )
        .expect("all of them");
        let response = RequestId::of_bits(10);
        assert_eq!(
            asked.input,
            [
                said("developer", &["be kind"]),
                said("user", &["a", "b"]),
                said("assistant", &["c"]),
                Input::Reference { response, place: Place::Output(0) },
                Input::Said(Said::Call(ToolCall {
                    id: "call_1".to_owned(),
                    name: "f".to_owned(),
                    arguments: r#"{"a":1}"#.to_owned(),
                })),
                Input::Said(Said::Result { call_id: "call_1".to_owned(), parts: vec!["o".to_owned()] }),
                Input::Reference { response, place: Place::Output(1) },
                Input::Reference { response, place: Place::Input(3) },
            ]
        );
        assert_eq!(asked.previous, Some(RequestId::of_bits(11)));
        assert_eq!(asked.metadata, BTreeMap::from([("a".to_owned(), "b".to_owned())]));
        assert_eq!((asked.user.as_deref(), asked.prompt_cache_key.as_deref()), (Some("u"), Some("k")));
        assert!(asked.stream && asked.background && asked.store && !asked.ignore_end);
        let Repeated { tools, tool_choice, parallel_tool_calls, format } = &asked.repeated;
        assert!(tools.json().get().starts_with(r#"[{"type":"function","name":"f","#) && !parallel_tool_calls);
        assert_eq!(tool_choice.json().get(), r#""auto""#);
        assert_eq!(format.json().get(), r#"{"type":"json_schema","name":"n","schema":{"type":"null"}}"#);
        assert_eq!(
            (asked.max_output_tokens, asked.sampling.temperature, asked.sampling.top_p),
            (Some(9), 0.5, 0.25)
        );
        let ask = asked.ask(vec![said_message("user", "ab")], TODAY).expect("an ask");
        let Prompt::Chat { messages, tools } = &ask.requests[0].prompt else { panic!("a chat") };
        assert_eq!(*messages, [said_message("system", "in short"), said_message("user", "ab")]);
        let shown =
            r#"{"type":"function","function":{"name":"f","description":"d","parameters":{"type":"object"}}}"#;
        assert_eq!(tools[..], [shown]);
        let tools = ask.tools.as_ref().expect("tools");
        assert_eq!((&tools.names[..], tools.most, &tools.forced), (&["f".to_owned()][..], 1, &None));
        let grammar = ask.requests[0].grammar.as_deref();
        assert!(grammar.is_some() && grammar.map(Request::grammar_digest) == ask.sampling.grammar);
        assert_eq!(ask.requests[0].date, Some(CivilDate { year: 2024, month: 2, day: 29 }));
        assert_eq!((ask.seed, ask.deadline_ms, ask.requests[0].stop.len()), (Seed::Caller(5), Some(5000), 1));
        let counted = asked.count(vec![said_message("user", "ab")], TODAY).expect("an ask");
        assert_eq!(counted.requests, ask.requests);
        assert!(counted.form == Form::Count && counted.tools.is_none() && !counted.stream);
    }

    #[test]
    fn what_is_not_there_is_refused_by_name() {
        use Code::{InvalidParam, UnknownParameter, UnsupportedParameter};
        check_refused("", InvalidParam, "input", "missing");
        check_refused(r#","input":3"#, InvalidParam, "input", "a text or a list");
        let with = |members: &str| format!(r#","input":"x",{members}"#);
        for (members, code, param, words) in [
            (r#""text":{"format":{"type":"grammar"}}"#, InvalidParam, "text.format.type", "json_schema"),
            (
                r#""text":{"format":{"type":"json_object"}},"ignore_eos":true"#,
                InvalidParam,
                "ignore_eos",
                "text.format",
            ),
            (
                r#""tools":[{"type":"function","name":"f","strict":true}]"#,
                UnsupportedParameter,
                "tools[0].strict",
                "required",
            ),
            (r#""tools":[{"type":"web_search"}]"#, UnsupportedParameter, "tools[0].type", "web_search"),
            (r#""tool_choice":"required""#, InvalidParam, "tool_choice", "no `tools`"),
            (
                r#""tools":[{"type":"function","name":"f"}],"tool_choice":{"type":"function","name":"g"}"#,
                InvalidParam,
                "tool_choice",
                "none of `tools`",
            ),
            (r#""text":{"verbosity":"low"}"#, UnsupportedParameter, "text.verbosity", "how long"),
            (
                r#""reasoning":{"effort":"high"}"#,
                UnsupportedParameter,
                "reasoning.effort",
                "how much to think",
            ),
            (r#""reasoning":{"summary":"auto"}"#, UnsupportedParameter, "reasoning.summary", "Leave it out"),
            (r#""reasoning":{"context":"auto"}"#, UnsupportedParameter, "reasoning.context", "Leave it out"),
            (r#""truncation":"auto""#, UnsupportedParameter, "truncation", "Send less"),
            (r#""truncation":"x""#, InvalidParam, "truncation", "disabled"),
            (r#""top_logprobs":2"#, UnsupportedParameter, "top_logprobs", "chat/completions"),
            (r#""include":["message.output_text.logprobs"]"#, UnsupportedParameter, "include[0]", "logprobs"),
            (r#""include":["x"]"#, InvalidParam, "include[0]", "one of"),
            (r#""tools":[{"type":"function"}]"#, InvalidParam, "tools[0].name", "missing"),
            (r#""conversation":"c""#, UnsupportedParameter, "conversation", "previous_response_id"),
            (r#""prompt":{"id":"p"}"#, UnsupportedParameter, "prompt", "instructions"),
            (r#""background":true,"store":false"#, InvalidParam, "background", "store"),
            (r#""previous_response_id":"x""#, InvalidParam, "previous_response_id", "resp_"),
            (r#""metadata":{"a":null}"#, InvalidParam, "metadata.a", "null"),
            (r#""messages":[]"#, UnknownParameter, "messages", "no parameter"),
            (r#""max_output_tokens":0"#, InvalidParam, "max_output_tokens", "between"),
        ] {
            check_refused(&with(members), code, param, words);
        }
        for (item, code, param) in [
            (r#"{"type":"reasoning","summary":[]}"#, UnsupportedParameter, "input[0].type"),
            (r#"{"type":"function_call_output","output":"o"}"#, InvalidParam, "input[0].call_id"),
            (r#"{"type":"function_call_output","call_id":"c"}"#, InvalidParam, "input[0].output"),
            (
                r#"{"type":"function_call_output","call_id":"c","output":"o","namespace":"n"}"#,
                UnsupportedParameter,
                "input[0].namespace",
            ),
            (r#"{"type":"function_call","call_id":"c","name":"f"}"#, InvalidParam, "input[0].arguments"),
            (
                r#"{"type":"function_call","call_id":"c","name":"f","arguments":"{}","namespace":"n"}"#,
                UnsupportedParameter,
                "input[0].namespace",
            ),
            (r#"{"role":"tool","content":"x"}"#, InvalidParam, "input[0].role"),
            (r#"{"role":"user"}"#, InvalidParam, "input[0].content"),
            (r#"{"role":"user","content":"x","name":"n"}"#, UnknownParameter, "input[0].name"),
            (
                r#"{"role":"user","content":[{"type":"input_image","image_url":"u"}]}"#,
                UnsupportedParameter,
                "input[0].content[0].type",
            ),
            (r#"{"type":"item_reference","id":"msg_5"}"#, InvalidParam, "input[0].id"),
        ] {
            check_refused(&format!(r#","input":[{item}]"#), code, param, "");
        }
        let many: Vec<String> = (0..17).map(|index| format!(r#""{index}":"x""#)).collect();
        check_refused(
            &with(&format!(r#""metadata":{{{}}}"#, many.join(","))),
            InvalidParam,
            "metadata",
            "17",
        );
    }

    #[test]
    fn every_parameter_is_named_when_its_value_is_nonsense() {
        for parameter in table::PARAMETERS.iter().filter(|parameter| parameter.is_on(Route::Responses)) {
            let (name, nonsense) = (parameter.name, r#"{"no such member":[{}]}"#);
            let result = match name {
                "model" => Asked::parse(&format!(r#"{{"input":"x","model":{nonsense}}}"#)),
                "input" => asked(&format!(r#","input":{nonsense}"#)),
                name => asked(&format!(r#","input":"x","{name}":{nonsense}"#)),
            };
            if parameter.treatment == table::Treatment::Ignored {
                assert!(result.is_ok(), "{name}");
            } else {
                let error = result.expect_err(name);
                assert!(
                    error.param().is_some_and(|param| param.starts_with(name)),
                    "{name}: {:?}",
                    error.param()
                );
            }
        }
    }

    #[test]
    fn some_of_the_functions_may_be_called() {
        let tools = |choice: &str| {
            let members = format!(
                r#","input":"x","tools":[{{"type":"function","name":"f"}},{{"type":"function","name":"g"}}],"tool_choice":{choice}"#
            );
            asked(&members).expect(choice).tools.expect(choice)
        };
        let allowed = |mode: &str| {
            let g = r#"[{"type":"function","name":"g"}]"#;
            tools(&format!(r#"{{"type":"allowed_tools","mode":"{mode}","tools":{g}}}"#))
        };
        assert_eq!(tools(r#""auto""#).names[..], ["f", "g"]);
        let may = allowed("auto");
        assert_eq!((&may.names[..], &may.forced), (&["g".to_owned()][..], &None));
        let must = allowed("required");
        assert!(
            must.names[..] == ["g"] && must.forced.is_some_and(|schemas| schemas.len() == 1) && must.most > 1
        );
        let named = tools(r#"{"type":"function","name":"f"}"#);
        assert!(named.names[..] == ["f"] && named.forced.is_some() && named.most == 1);
    }

    #[test]
    fn a_conversation_has_at_least_a_message_and_not_too_many() {
        let asked = asked(r#","input":[]"#).expect("read");
        let check = |count: usize| asked.ask(vec![said_message("user", "x"); count], TODAY).is_ok();
        assert!(!check(0) && check(1) && check(MAX_MESSAGES) && !check(MAX_MESSAGES + 1));
    }

    proptest! {
        #[test]
        fn arbitrary_input_never_panics(input in r#"[\[\]{}",:0-9a-z_ ]{0,80}"#) {
            let _ = asked(&format!(r#","input":{input}"#));
        }

        #[test]
        fn arbitrary_values_of_any_parameter_never_panic(
            name in prop::sample::select(table::PARAMETERS.iter().map(|parameter| parameter.name).collect::<Vec<_>>()),
            value in prop::sample::select(vec![
                "null", "true", "-1", "1e999", "\"\"", "\"x\"", "[]", "[null]", "[{}]", "{}", "{\"type\":\"text\"}",
                "{\"id\":\"msg_\"}", "[\"\\u0000\"]", "[[[]]]",
            ]),
        ) {
            let body = match name {
                "model" => format!(r#"{{"model":{value},"input":"x"}}"#),
                "input" => format!(r#"{{"model":"m","input":{value}}}"#),
                name => format!(r#"{{"model":"m","input":"x","{name}":{value}}}"#),
            };
            if let Ok(asked) = Asked::parse(&body) {
                prop_assert_eq!(Asked::parse(&body).expect("again"), asked);
            }
        }
    }
}
