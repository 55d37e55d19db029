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
    CivilDate, Message, Prompt, Sampling, Seed, envelope::MAX_ID_BYTES, request::MAX_MESSAGES,
};

use crate::{
    api::{
        ask::{self, Ask, Extras, Form, missing, required},
        fields::{self, Fields, quote},
        parameters::{self as table, Route},
        provider,
    },
    error::{ApiError, Code},
    id::RequestId,
    route::preferences::Preferences,
};

/// Parts of one message's content.
const PARTS_MAX: usize = 4096;
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
/// Roles of messages, and as chat templates know them.
const ROLES: [(&str, &str); 4] =
    [("user", "user"), ("assistant", "assistant"), ("system", "system"), ("developer", "system")];

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
    seed: Seed,
    stop: Vec<String>,
    ignore_end: bool,
    date: Option<CivilDate>,
    deadline_ms: Option<u64>,
    preferences: Preferences,
}

/// One item of the input.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Input {
    Said(Said),
    /// An item of another response, or its output.
    Reference {
        response: RequestId,
        /// None: its output.
        index: Option<u16>,
    },
}

/// A message.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Said {
    /// As the caller wrote it.
    pub(super) role: &'static str,
    pub(super) parts: Vec<String>,
}

impl Said {
    /// As chat templates see it.
    pub(super) fn message(&self) -> Message {
        let (_, role) = ROLES.iter().find(|(name, _)| *name == self.role).copied().unwrap_or(ROLES[0]);
        Message::text(role, self.parts.concat())
    }
}

impl Asked {
    /// Reads a body.
    pub(super) fn parse(text: &str) -> Result<Asked, ApiError> {
        let mut fields = Fields::body(text)?;
        table::screen(&mut fields, Route::Responses)?;
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
        only_text(fields)?;
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
            sampling: ask::sampling(fields)?,
            seed: fields.integer("seed", table::SEED)?.map_or(Seed::Nonce, Seed::Caller),
            stop: ask::stop(fields, "stop")?,
            ignore_end: fields.boolean("ignore_eos")?.unwrap_or(false),
            date,
            deadline_ms,
            preferences,
        };
        assert_eq!(fields.names().next(), None, "a parameter of the table is not read");
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
        let form = Form::Chat { logprobs: None };
        let request = form.request(Prompt::chat(messages), self.stop.clone(), self.date.unwrap_or(today));
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
            tools: None,
        };
        ask.checked().map_err(|error| error.with_param("input"))
    }
}

/// A text, or a list of items.
fn input(raw: &RawValue) -> Result<Vec<Input>, ApiError> {
    match fields::first_byte(raw) {
        b'"' => {
            let parts = vec![fields::string("input", raw)?];
            Ok(vec![Input::Said(Said { role: "user", parts })])
        }
        b'[' => fields::list("input", raw, MAX_MESSAGES)?
            .into_iter()
            .enumerate()
            .map(|(index, raw)| item(format!("input[{index}]"), raw))
            .collect(),
        _ => Err(fields::wrong_type("input", raw, "a text or a list of items")),
    }
}

fn item(path: String, raw: &RawValue) -> Result<Input, ApiError> {
    let mut fields = Fields::object(path.clone(), raw)?;
    let kind_path = fields.path("type");
    match fields.string("type")?.as_deref() {
        None | Some("message") => message(&path, fields).map(Input::Said),
        Some("item_reference") => reference(fields),
        Some(other) => {
            let message = format!(
                "`{kind_path}` is \"{}\". Only \"message\" and \"item_reference\" are supported here; say the rest in words.",
                quote(other),
            );
            Err(ApiError::new(Code::UnsupportedParameter, message).with_param(kind_path))
        }
    }
}

fn message(path: &str, mut fields: Fields<'_>) -> Result<Said, ApiError> {
    let role_path = fields.path("role");
    let role = fields.string("role")?.ok_or_else(|| missing(&role_path))?;
    let Some((role, _)) = ROLES.iter().find(|(name, _)| *name == role).copied() else {
        let names = ROLES.map(|(name, _)| format!("`{name}`")).join(", ");
        let message = format!("`{path}.role` is \"{}\". It must be one of {names}.", quote(&role));
        return Err(ApiError::invalid(role_path, message));
    };
    // What chat templates never see. An item has its own id here.
    for name in ["id", "status", "phase"] {
        fields.take(name);
    }
    let content_path = fields.path("content");
    let raw = fields.take("content").ok_or_else(|| missing(&content_path))?;
    let parts = match fields::first_byte(raw) {
        b'"' => vec![fields::string(&content_path, raw)?],
        b'[' => fields::list(&content_path, raw, PARTS_MAX)?
            .into_iter()
            .enumerate()
            .map(|(index, raw)| part(format!("{content_path}[{index}]"), raw))
            .collect::<Result<_, _>>()?,
        _ => return Err(fields::wrong_type(&content_path, raw, "a text or a list of text parts")),
    };
    table::nothing_left(&fields, &["type", "role", "content", "id", "status", "phase"])?;
    Ok(Said { role, parts })
}

fn part(path: String, raw: &RawValue) -> Result<String, ApiError> {
    let mut part = Fields::object(path, raw)?;
    let (kind_path, text_path) = (part.path("type"), part.path("text"));
    let kind = part.string("type")?.ok_or_else(|| missing(&kind_path))?;
    if !["input_text", "output_text", "text"].contains(&kind.as_str()) {
        let message = format!(
            "`{kind_path}` is \"{}\". Only \"input_text\" and \"output_text\" are supported here; say in words what it shows.",
            quote(&kind),
        );
        return Err(ApiError::new(Code::UnsupportedParameter, message).with_param(kind_path));
    }
    let text = part.string("text")?.ok_or_else(|| missing(&text_path))?;
    for name in ["annotations", "logprobs", "prompt_cache_breakpoint"] {
        part.take(name);
    }
    table::nothing_left(&part, &["type", "text", "annotations", "logprobs", "prompt_cache_breakpoint"])?;
    Ok(text)
}

fn reference(mut fields: Fields<'_>) -> Result<Input, ApiError> {
    let path = fields.path("id");
    let id = fields.string("id")?.ok_or_else(|| missing(&path))?;
    table::nothing_left(&fields, &["type", "id"])?;
    let Some((response, index)) = read_item_id(&id) else {
        let message = format!(
            "`{path}` is \"{}\", which is no item's id here. They look like msg_ and 32 or 36 digits.",
            quote(&id),
        );
        return Err(ApiError::invalid(path, message));
    };
    Ok(Input::Reference { response, index })
}

/// The id of the output of a response, or of an item of its input.
pub(super) fn item_id(response: RequestId, index: Option<u16>) -> String {
    let digits = response.bits();
    match index {
        None => format!("msg_{digits:032x}"),
        Some(index) => format!("msg_{digits:032x}{index:04x}"),
    }
}

/// Reads what `item_id` writes.
pub(super) fn read_item_id(text: &str) -> Option<(RequestId, Option<u16>)> {
    let digits = text.strip_prefix("msg_").filter(|digits| digits.is_ascii())?;
    let (response, index) = digits.split_at_checked(32)?;
    let response = RequestId::parse(&format!("req_{response}"))?;
    let index = match index {
        "" => None,
        index => Some(u16::from_str_radix(index, 16).ok()?),
    };
    (item_id(response, index) == text).then_some((response, index))
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

/// Answers are plain text, said without calling anything.
fn only_text(fields: &mut Fields<'_>) -> Result<(), ApiError> {
    let refused = |path: &str, instead: &str| {
        let message = format!("`{path}` is not supported here. {instead}");
        Err(ApiError::new(Code::UnsupportedParameter, message).with_param(path))
    };
    ask::no_tools(fields, "tools", "tool_choice")?;
    if let Some(mut text) = fields.fields("text")? {
        if let Some(mut format) = text.fields("format")? {
            if format.string("type")?.as_deref() != Some("text") {
                return refused(
                    "text.format",
                    "Only `{\"type\": \"text\"}` is. Describe the form in `input` and check the answer.",
                );
            }
            table::nothing_left(&format, &["type"])?;
        }
        if text.string("verbosity")?.is_some_and(|verbosity| verbosity != "medium") {
            return refused("text.verbosity", "Say in `instructions` how long the answer should be.");
        }
        table::nothing_left(&text, &["format", "verbosity"])?;
    }
    if let Some(mut reasoning) = fields.fields("reasoning")? {
        if reasoning.string("effort")?.is_some_and(|effort| effort != "none") {
            return refused("reasoning.effort", "Say in `instructions` how much to think.");
        }
        for name in ["summary", "generate_summary"] {
            if reasoning.take(name).is_some() {
                return refused(&reasoning.path(name), "Thoughts are part of the text here. Leave it out.");
            }
        }
        table::nothing_left(&reasoning, &["effort", "summary", "generate_summary"])?;
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

    use super::*;

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
        Input::Said(Said { role, parts: parts.iter().map(|part| (*part).to_owned()).collect() })
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
                 {"type":"item_reference","id":"msg_0000000000000000000000000000000a0003"}],
               "instructions":"in short","max_output_tokens":9,"temperature":0.5,"top_p":0.25,"stream":true,"store":true,
               "background":true,"previous_response_id":"resp_0000000000000000000000000000000b",
               "metadata":{"a":"b"},"user":"u","safety_identifier":"s","prompt_cache_key":"k",
               "text":{"format":{"type":"text"},"verbosity":"medium"},"truncation":"disabled","top_logprobs":0,
               "reasoning":{"effort":null,"summary":null},"include":["reasoning.encrypted_content"],"tools":[],
               "tool_choice":"auto","parallel_tool_calls":true,"max_tool_calls":3,"service_tier":"auto",
               "stream_options":{"include_obfuscation":false},"seed":5,"stop":"x","top_k":40,"ignore_eos":true,
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
                Input::Reference { response, index: None },
                Input::Reference { response, index: Some(3) },
            ]
        );
        assert_eq!(asked.previous, Some(RequestId::of_bits(11)));
        assert_eq!(asked.metadata, BTreeMap::from([("a".to_owned(), "b".to_owned())]));
        assert_eq!((asked.user.as_deref(), asked.prompt_cache_key.as_deref()), (Some("u"), Some("k")));
        assert!(asked.stream && asked.background && asked.store && asked.ignore_end);
        assert_eq!(
            (asked.max_output_tokens, asked.sampling.temperature, asked.sampling.top_p),
            (Some(9), 0.5, 0.25)
        );
        let ask = asked.ask(vec![said_message("user", "ab")], TODAY).expect("an ask");
        let Prompt::Chat { messages, .. } = &ask.requests[0].prompt else { panic!("a chat") };
        assert_eq!(*messages, [said_message("system", "in short"), said_message("user", "ab")]);
        assert_eq!(ask.requests[0].date, Some(CivilDate { year: 2024, month: 2, day: 29 }));
        assert!(ask.goes_on());
        assert_eq!((ask.seed, ask.deadline_ms, ask.requests[0].stop.len()), (Seed::Caller(5), Some(5000), 1));
        let Input::Said(developer) = &asked.input[0] else { panic!("a message") };
        assert_eq!(developer.message(), said_message("system", "be kind"));
    }

    #[test]
    fn what_is_not_there_is_refused_by_name() {
        use Code::{InvalidParam, UnknownParameter, UnsupportedParameter};
        check_refused("", InvalidParam, "input", "missing");
        check_refused(r#","input":3"#, InvalidParam, "input", "a text or a list");
        let with = |members: &str| format!(r#","input":"x",{members}"#);
        for (members, code, param, words) in [
            (
                r#""text":{"format":{"type":"json_object"}}"#,
                UnsupportedParameter,
                "text.format",
                "Describe the form",
            ),
            (r#""text":{"verbosity":"low"}"#, UnsupportedParameter, "text.verbosity", "how long"),
            (
                r#""reasoning":{"effort":"high"}"#,
                UnsupportedParameter,
                "reasoning.effort",
                "how much to think",
            ),
            (r#""reasoning":{"summary":"auto"}"#, UnsupportedParameter, "reasoning.summary", "Leave it out"),
            (r#""truncation":"auto""#, UnsupportedParameter, "truncation", "Send less"),
            (r#""truncation":"x""#, InvalidParam, "truncation", "disabled"),
            (r#""top_logprobs":2"#, UnsupportedParameter, "top_logprobs", "chat/completions"),
            (r#""include":["message.output_text.logprobs"]"#, UnsupportedParameter, "include[0]", "logprobs"),
            (r#""include":["x"]"#, InvalidParam, "include[0]", "one of"),
            (r#""tools":[{"type":"function"}]"#, UnsupportedParameter, "tools", "tool_choice"),
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
            (
                r#"{"type":"function_call_output","call_id":"c","output":"o"}"#,
                UnsupportedParameter,
                "input[0].type",
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
    fn a_conversation_has_at_least_a_message_and_not_too_many() {
        let asked = asked(r#","input":[]"#).expect("read");
        let check = |count: usize| asked.ask(vec![said_message("user", "x"); count], TODAY).is_ok();
        assert!(!check(0) && check(1) && check(MAX_MESSAGES) && !check(MAX_MESSAGES + 1));
    }

    proptest! {
        #[test]
        fn item_ids_are_read_as_they_were_written(bits in any::<u128>(), index in any::<Option<u16>>()) {
            let response = RequestId::of_bits(bits);
            prop_assert_eq!(read_item_id(&item_id(response, index)), Some((response, index)));
        }

        #[test]
        fn nothing_else_is_an_item_id(text in "(msg_)?[0-9a-fA-F+é]{0,40}") {
            if let Some((response, index)) = read_item_id(&text) {
                prop_assert_eq!(item_id(response, index), text);
            }
        }

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
