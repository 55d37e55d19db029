//! Read: the body of a message, understood.
//!
//! In:     the text of a body; today's date, for chat templates that mention it.
//! Out:    what is asked for, every default filled in, or an error that names the parameter.
//! Touches: nothing.
//! Holds:  what is neither text nor a call of a tool or its result is refused by name; turns of one role are one message, as Anthropic has it.
//! Absent: which models and workers there are.

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

const ROLES: [&str; 3] = ["user", "assistant", "system"];
/// Between messages of one role that are one turn.
const BETWEEN: &str = "\n\n";
/// Before what a tool said that failed.
const FAILED: &str = "Error: ";
/// To know a prompt's tokens, so many of an answer are ordered, and given up.
const COUNTED_TOKENS: u32 = 1;

/// Reads the body of either route.
pub(crate) fn read(text: &str, route: Route, today: CivilDate) -> Result<Ask, ApiError> {
    let mut fields = Fields::body(text)?;
    table::screen(&mut fields, route)?;
    let fields = &mut fields;
    let model = ask::model(fields)?;
    let (shown, tools) = tools::offered_in_blocks(fields)?;
    only_plain(fields)?;
    let grammar = output_config(fields)?;
    let max_output_tokens = match route {
        Route::CountTokens => COUNTED_TOKENS,
        _ => fields.integer("max_tokens", own::TOKENS)?.ok_or_else(|| ask::missing("max_tokens"))? as u32,
    };
    let off = Sampling::default();
    let sampling = Sampling {
        temperature: fields.number("temperature", own::TEMPERATURE)?.unwrap_or(off.temperature),
        top_p: fields.number("top_p", table::PROBABILITY)?.unwrap_or(off.top_p),
        top_k: fields.integer("top_k", own::TOP_K)?.map_or(off.top_k, |k| k as u32),
        ..off
    };
    sampling.check().map_err(|invalid| ApiError::invalid(invalid.field, format!("{invalid}.")))?;
    let stop = ask::stop(fields, "stop_sequences")?;
    let stream = fields.boolean("stream")?.unwrap_or(false);
    let ask::Extras { date, worker, deadline_ms } = ask::extras(fields)?;
    let preferences = Preferences { worker, ..provider::preferences(fields, &model)? };
    let messages = conversation(fields)?;
    assert_eq!(fields.names().next(), None, "a parameter of the table is not read");

    let form = match route {
        Route::CountTokens => Form::Count,
        _ => Form::Message { stops: !stop.is_empty() },
    };
    // Of what is only counted, nothing is made.
    let (grammar, tools) = (grammar.filter(|_| form != Form::Count), tools.filter(|_| form != Form::Count));
    let request = form.request(Prompt::Chat { messages, tools: shown }, stop, date.unwrap_or(today));
    Ask {
        model,
        sampling: Sampling { grammar: grammar.as_deref().map(Request::grammar_digest), ..sampling },
        requests: vec![Request { grammar, ..request }],
        choices: 1,
        seed: Seed::Nonce,
        max_output_tokens: Some(max_output_tokens),
        ignore_end: false,
        stream,
        include_usage: false,
        preferences,
        deadline_ms,
        form,
        tools,
    }
    .checked()
}

/// The system's words and the turns.
fn conversation(fields: &mut Fields<'_>) -> Result<Vec<Message>, ApiError> {
    let mut messages: Vec<Message> = Vec::new();
    if let Some(raw) = fields.take("system") {
        let content = content("system", raw)?;
        if !content.is_empty() {
            messages.push(message("system", content));
        }
    }
    let raw = fields.take("messages").ok_or_else(|| ask::missing("messages"))?;
    let turns = fields::list("messages", raw, MAX_MESSAGES - 1)?;
    let Some(last) = turns.len().checked_sub(1) else {
        return Err(ApiError::invalid("messages", "`messages` is empty. Send at least one message."));
    };
    for (index, raw) in turns.into_iter().enumerate() {
        let mut turn = Fields::object(format!("messages[{index}]"), raw)?;
        let role_path = turn.path("role");
        let role = turn.string("role")?.ok_or_else(|| ask::missing(&role_path))?;
        let Some(role) = ROLES.into_iter().find(|name| *name == role) else {
            let names = ROLES.map(|name| format!("`{name}`")).join(", ");
            let message =
                format!("`{role_path}` is \"{}\". It must be one of {names}.", fields::quote(&role));
            return Err(ApiError::invalid(role_path, message));
        };
        let content_path = turn.path("content");
        let raw = turn.take("content").ok_or_else(|| ask::missing(&content_path))?;
        turn.take("cache_control");
        table::nothing_left(&turn, &["role", "content"])?;
        if index == last && role == "assistant" {
            let message = "The last message is the assistant's, which asks for its continuation. Answers cannot be begun for \
                           the model here: end `messages` with what the user says.";
            return Err(ApiError::new(Code::UnsupportedParameter, message).with_param(role_path));
        }
        said(&mut messages, role, &content_path, raw)?;
    }
    Ok(messages)
}

/// Adds a turn: what tools said comes as messages of their own, before what else is said.
fn said(messages: &mut Vec<Message>, role: &str, path: &str, raw: &RawValue) -> Result<(), ApiError> {
    let (mut content, mut tool_calls) = (String::new(), Vec::new());
    let (mut texts, mut results) = (false, false);
    if fields::first_byte(raw) == b'"' {
        (content, texts) = (fields::string(path, raw)?, true);
    } else {
        for mut block in blocks(path, raw)? {
            let kind_path = block.fields.path("type");
            match (block.kind.as_str(), role) {
                ("text", _) => {
                    content.push_str(&text(&mut block.fields)?);
                    texts = true;
                }
                ("tool_use", "assistant") => {
                    tool_calls.push(tools::call_of_block(&mut block.fields)?);
                    block.fields.take("cache_control");
                    // By whom it was called; anybody but the model itself would be named.
                    direct(&mut block.fields)?;
                    table::nothing_left(&block.fields, &["type", "id", "name", "input"])?;
                }
                ("tool_result", "user") if texts => {
                    let message = format!(
                        "`{kind_path}` is \"tool_result\" behind text. Send results first, and text behind them."
                    );
                    return Err(ApiError::invalid(kind_path, message));
                }
                ("tool_result", "user") => {
                    messages.push(result(&mut block.fields)?);
                    results = true;
                }
                (kind @ ("tool_use" | "tool_result"), _) => {
                    let of = if kind == "tool_use" { "the assistant" } else { "the user" };
                    let message = format!("`{kind_path}` is \"{kind}\", which only {of} sends.");
                    return Err(ApiError::invalid(kind_path, message));
                }
                (kind, _) => return Err(no_text(kind_path, kind)),
            }
        }
    }
    if results && !texts {
        return Ok(());
    }
    match messages.last_mut() {
        Some(before) if before.role == role => {
            if !content.is_empty() || tool_calls.is_empty() {
                if !before.content.is_empty() || before.tool_calls.is_empty() {
                    before.content.push_str(BETWEEN);
                }
                before.content.push_str(&content);
            }
            before.tool_calls.append(&mut tool_calls);
        }
        _ => messages.push(Message { tool_calls, ..message(role, content) }),
    }
    Ok(())
}

fn message(role: &str, content: String) -> Message {
    Message::text(role, content)
}

/// What a tool said.
fn result(block: &mut Fields<'_>) -> Result<Message, ApiError> {
    let [id_path, path] = ["tool_use_id", "content"].map(|name| block.path(name));
    let id = block.string("tool_use_id")?.ok_or_else(|| ask::missing(&id_path))?;
    let mut said = block.take("content").map_or(Ok(String::new()), |raw| content(&path, raw))?;
    // Templates have no other place for it.
    if block.boolean("is_error")?.unwrap_or(false) {
        said.insert_str(0, FAILED);
    }
    block.take("cache_control");
    table::nothing_left(block, &["type", "tool_use_id", "content", "is_error"])?;
    Ok(Message { tool_call_id: Some(tools::short(&id_path, id)?), ..message("tool", said) })
}

/// Calls that anybody but the model made are refused.
fn direct(block: &mut Fields<'_>) -> Result<(), ApiError> {
    let path = block.path("caller");
    let Some(mut caller) = block.fields("caller")? else { return Ok(()) };
    if caller.string("type")?.as_deref() == Some("direct") {
        return table::nothing_left(&caller, &["type"]);
    }
    let message =
        format!("`{path}` is not supported here: tools are called by the model alone. Leave it out.");
    Err(ApiError::new(Code::UnsupportedParameter, message).with_param(path))
}

/// A block of content, whose type was read.
struct Block<'a> {
    kind: String,
    fields: Fields<'a>,
}

fn blocks<'a>(path: &str, raw: &'a RawValue) -> Result<Vec<Block<'a>>, ApiError> {
    if fields::first_byte(raw) != b'[' {
        return Err(fields::wrong_type(path, raw, "a text or a list of blocks"));
    }
    let block = |(index, raw)| {
        let mut fields = Fields::object(format!("{path}[{index}]"), raw)?;
        let kind = fields.string("type")?.ok_or_else(|| ask::missing(&fields.path("type")))?;
        Ok(Block { kind, fields })
    };
    fields::list(path, raw, ask::PARTS_MAX)?.into_iter().enumerate().map(block).collect()
}

/// A text, or a list of text blocks joined as they stand.
fn content(path: &str, raw: &RawValue) -> Result<String, ApiError> {
    if fields::first_byte(raw) == b'"' {
        return fields::string(path, raw);
    }
    let mut joined = String::new();
    for mut block in blocks(path, raw)? {
        if block.kind != "text" {
            return Err(no_text(block.fields.path("type"), &block.kind));
        }
        joined.push_str(&text(&mut block.fields)?);
    }
    Ok(joined)
}

/// The text of a text block.
fn text(block: &mut Fields<'_>) -> Result<String, ApiError> {
    let text_path = block.path("text");
    let text = block.string("text")?.ok_or_else(|| ask::missing(&text_path))?;
    block.take("cache_control");
    let citations = block.path("citations");
    if block.take("citations").is_some_and(|raw| raw.get() != "[]") {
        let message = format!("`{citations}` is not supported here. Write what is cited into the text.");
        return Err(ApiError::new(Code::UnsupportedParameter, message).with_param(citations));
    }
    table::nothing_left(block, &["type", "text"])?;
    Ok(text)
}

/// A block that is no text.
fn no_text(path: String, kind: &str) -> ApiError {
    let instead = match kind {
        "image" => "Say in words what it shows.",
        "document" | "search_result" | "container_upload" => "Write what it says into a text block.",
        "thinking" | "redacted_thinking" => "Leave it out: thoughts are part of the text here.",
        _ => "Write it into a text block.",
    };
    let message = format!(
        "`{path}` is \"{}\". Only \"text\" is supported here, and calls of tools with their results in \
         `messages`. {instead}",
        fields::quote(kind)
    );
    ApiError::new(Code::UnsupportedParameter, message).with_param(path)
}

/// The grammar that the answer must keep to, if a form is asked for.
fn output_config(fields: &mut Fields<'_>) -> Result<Option<String>, ApiError> {
    let Some(mut config) = fields.fields("output_config")? else { return Ok(None) };
    if config.take("effort").is_some() {
        let message = "`output_config.effort` is not supported here. Leave it out, or say in `messages` how much to think.";
        return Err(ApiError::new(Code::UnsupportedParameter, message).with_param("output_config.effort"));
    }
    let grammar = response_format::output_format(&mut config)?;
    table::nothing_left(&config, &["effort", "format"])?;
    Ok(grammar)
}

/// Answers are thought of as the model was taught, at the one speed there is.
fn only_plain(fields: &mut Fields<'_>) -> Result<(), ApiError> {
    let refused = |param: &str, message: &'static str| {
        Err(ApiError::new(Code::UnsupportedParameter, message).with_param(param))
    };
    if let Some(mut thinking) = fields.fields("thinking")?
        && thinking.string("type")?.as_deref() != Some("disabled")
    {
        return refused(
            "thinking",
            "`thinking` other than `{\"type\": \"disabled\"}` is not supported here: thoughts are part of the text. Leave it \
             out, or say in `messages` how much to think.",
        );
    }
    if let Some(speed) = fields.string("speed")?
        && speed != "standard"
    {
        return refused(
            "speed",
            "`speed` other than \"standard\" is not supported here. Prefer fast workers by `provider.sort`.",
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TODAY: CivilDate = CivilDate { year: 2026, month: 1, day: 1 };

    fn body(more: &str) -> String {
        format!(r#"{{"model":"m","max_tokens":9,"messages":[{{"role":"user","content":"x"}}]{more}}}"#)
    }

    fn asked(text: &str) -> Ask {
        read(text, Route::Messages, TODAY).expect("a good body")
    }

    fn check_refused(text: &str, code: Code, param: &str) {
        let error = read(text, Route::Messages, TODAY).expect_err("should be refused");
        assert_eq!((error.code(), error.param()), (code, Some(param)), "{text}: {}", error.message());
    }

    fn turns(ask: &Ask) -> Vec<(&str, &str)> {
        let Prompt::Chat { messages, .. } = &ask.requests[0].prompt else { panic!("not a chat") };
        messages.iter().map(|message| (message.role.as_str(), message.content.as_str())).collect()
    }

    #[test]
    fn what_is_asked_is_read() {
        let ask = asked(&body(
            r#","temperature":0.5,"top_p":0.25,"top_k":7,"stop_sequences":["A","B"],"stream":true,"metadata":{"user_id":"u"},
               "service_tier":"auto","cache_control":{"type":"ephemeral"},"thinking":{"type":"disabled"},"tools":[]"#,
        ));
        assert_eq!((ask.sampling.temperature, ask.sampling.top_p, ask.sampling.top_k), (0.5, 0.25, 7));
        assert_eq!((ask.max_output_tokens, ask.stream, ask.answers()), (Some(9), true, 1));
        assert_eq!(ask.requests[0].stop, ["A", "B"]);
        assert_eq!(ask.requests[0].date, Some(TODAY));
        // Which of them ended the answer is known by the tokens' bytes.
        assert_eq!(ask.requests[0].logprobs, Some(0));
        assert_eq!(asked(&body("")).requests[0].logprobs, None);
        assert_eq!(asked(&body("")).sampling, Sampling::default());
    }

    #[test]
    fn blocks_are_joined_and_turns_of_one_role_are_one() {
        let ask = asked(
            r#"{"model":"m","max_tokens":1,"system":[{"type":"text","text":"a","cache_control":{"type":"ephemeral"}},{"type":"text","text":"b"}],
                "messages":[{"role":"user","content":"c"},{"role":"user","content":[{"type":"text","text":"d","citations":null}]},
                            {"role":"assistant","content":"e"},{"role":"system","content":"f"},{"role":"user","content":"g"}]}"#,
        );
        assert_eq!(
            turns(&ask),
            [("system", "ab"), ("user", "c\n\nd"), ("assistant", "e"), ("system", "f"), ("user", "g")]
        );
    }

    #[test]
    fn what_is_lacking_is_named() {
        use Code::{InvalidParam, UnknownParameter, UnsupportedParameter};
        check_refused(r#"{"model":"m","messages":[]}"#, InvalidParam, "max_tokens");
        check_refused(r#"{"model":"m","max_tokens":0,"messages":[]}"#, InvalidParam, "max_tokens");
        check_refused(r#"{"model":"m","max_tokens":1,"messages":[]}"#, InvalidParam, "messages");
        check_refused(r#"{"max_tokens":1,"messages":[]}"#, InvalidParam, "model");
        check_refused(&body(r#","temperature":1.5"#), InvalidParam, "temperature");
        check_refused(&body(r#","stop_sequences":[""]"#), InvalidParam, "stop_sequences");
        check_refused(&body(r#","presence_penalty":1"#), UnknownParameter, "presence_penalty");
        check_refused(&body(r#","tools":[{"name":"f"}]"#), InvalidParam, "tools[0].input_schema");
        check_refused(&body(r#","tool_choice":{"type":"any"}"#), InvalidParam, "tool_choice");
        check_refused(&body(r#","tool_choice":{"type":"all"}"#), InvalidParam, "tool_choice.type");
        check_refused(&body(r#","tool_choice":{"type":"tool"}"#), InvalidParam, "tool_choice.name");
        check_refused(&body(r#","tool_choice":{"type":"tool","name":"g"}"#), InvalidParam, "tool_choice");
        let tool = |more: &str| body(&format!(r#","tools":[{{"name":"f","input_schema":{{}}{more}}}]"#));
        check_refused(&tool(r#","type":"web_search_20250305""#), UnsupportedParameter, "tools[0].type");
        check_refused(&tool(r#","strict":true"#), UnsupportedParameter, "tools[0].strict");
        check_refused(&tool(r#","defer_loading":true"#), UnsupportedParameter, "tools[0].defer_loading");
        check_refused(&tool(r#","input_examples":[{}]"#), UnsupportedParameter, "tools[0].input_examples");
        check_refused(&tool(r#","parameters":{}"#), UnknownParameter, "tools[0].parameters");
        check_refused(
            &body(r#","thinking":{"type":"enabled","budget_tokens":1024}"#),
            UnsupportedParameter,
            "thinking",
        );
        check_refused(
            &body(r#","output_config":{"effort":"low"}"#),
            UnsupportedParameter,
            "output_config.effort",
        );
        check_refused(&body(r#","mcp_servers":[]"#), UnsupportedParameter, "mcp_servers");
        check_refused(&body(r#","speed":"fast""#), UnsupportedParameter, "speed");
        let turn = |content: &str, role: &str| {
            format!(r#"{{"model":"m","max_tokens":9,"messages":[{{"role":"{role}","content":{content}}}]}}"#)
        };
        for kind in ["image", "document", "thinking", "server_tool_use", "poem"] {
            let text = turn(&format!(r#"[{{"type":"{kind}"}}]"#), "user");
            check_refused(&text, UnsupportedParameter, "messages[0].content[0].type");
        }
        let (used, said) =
            (r#"[{"type":"tool_use"}]"#, r#"[{"type":"text","text":"x"},{"type":"tool_result"}]"#);
        check_refused(&turn(used, "user"), InvalidParam, "messages[0].content[0].type");
        check_refused(&turn(said, "user"), InvalidParam, "messages[0].content[1].type");
        let bare = r#"[{"type":"tool_result"}]"#;
        check_refused(&turn(bare, "user"), InvalidParam, "messages[0].content[0].tool_use_id");
        check_refused(&turn(r#""The answer is""#, "assistant"), UnsupportedParameter, "messages[0].role");
        check_refused(&turn(r#""x""#, "developer"), InvalidParam, "messages[0].role");
        check_refused(&turn("3", "user"), InvalidParam, "messages[0].content");
    }

    #[test]
    fn tools_are_shown_as_templates_know_them() {
        let tools = r#","tools":[{"type":"custom","name":"f","description":"d","input_schema":{"type": "object"},
            "cache_control":{"type":"ephemeral"}},{"name":"g","input_schema":{}}]"#;
        let read = |choice: &str| asked(&body(&format!("{tools}{choice}")));
        let ask = read("");
        let Prompt::Chat { tools: shown, .. } = &ask.requests[0].prompt else { panic!("not a chat") };
        assert_eq!(
            shown[..],
            [
                r#"{"type":"function","function":{"name":"f","description":"d","parameters":{"type":"object"}}}"#,
                r#"{"type":"function","function":{"name":"g","parameters":{}}}"#,
            ]
        );
        let made =
            |ask: Ask| ask.tools.map(|tools| (tools.names.to_vec(), tools.most, tools.forced.is_some()));
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<String>>();
        assert_eq!(made(ask), Some((names(&["f", "g"]), 128, false)));
        let one = read(r#","tool_choice":{"type":"auto","disable_parallel_tool_use":true}"#);
        assert_eq!(made(one), Some((names(&["f", "g"]), 1, false)));
        let any = read(r#","tool_choice":{"type":"any"}"#);
        assert_eq!(made(any), Some((names(&["f", "g"]), 128, true)));
        let named = read(r#","tool_choice":{"type":"tool","name":"g"}"#);
        assert_eq!(made(named), Some((names(&["g"]), 1, true)));
        let none = read(r#","tool_choice":{"type":"none"}"#);
        assert_eq!(none.shows_tools(), None);
        assert_eq!(made(none), None);
    }

    #[test]
    fn calls_and_results_are_messages() {
        let ask = asked(
            r#"{"model":"m","max_tokens":1,"messages":[{"role":"user","content":"a"},
                {"role":"assistant","content":[{"type":"text","text":"b"},{"type":"tool_use","id":"1","name":"f","input":{"x": 1}}]},
                {"role":"assistant","content":[{"type":"tool_use","id":"2","name":"g","input":{},"caller":{"type":"direct"}}]},
                {"role":"user","content":[{"type":"tool_result","tool_use_id":"1","content":"c"},
                    {"type":"tool_result","tool_use_id":"2","is_error":true,"content":[{"type":"text","text":"d"}]},
                    {"type":"text","text":"e"}]}]}"#,
        );
        let said = [("user", "a"), ("assistant", "b"), ("tool", "c"), ("tool", "Error: d"), ("user", "e")];
        assert_eq!(turns(&ask), said);
        let Prompt::Chat { messages, .. } = &ask.requests[0].prompt else { panic!("not a chat") };
        let calls: Vec<(&str, &str, &str)> = messages[1]
            .tool_calls
            .iter()
            .map(|call| (call.id.as_str(), call.name.as_str(), call.arguments.as_str()))
            .collect();
        assert_eq!(calls, [("1", "f", r#"{"x":1}"#), ("2", "g", "{}")]);
        assert_eq!(messages[2].tool_call_id.as_deref(), Some("1"));
        assert_eq!(ask.shows_tools(), Some("messages"));
    }

    #[test]
    fn a_form_is_a_grammar_of_the_answer() {
        let format =
            r#","output_config":{"effort":null,"format":{"type":"json_schema","schema":{"type":"null"}}}"#;
        let ask = asked(&body(format));
        let grammar = surety_grammar::json_schema(r#"{"type":"null"}"#).expect("a schema");
        assert_eq!(ask.requests[0].grammar, Some(grammar));
        assert_eq!(ask.sampling.grammar, ask.requests[0].grammar.as_deref().map(Request::grammar_digest));
        assert_eq!(asked(&body(r#","output_config":{}"#)).sampling.grammar, None);
        let bodied = body(format).replace(r#""max_tokens":9,"#, "");
        let counted = read(&bodied, Route::CountTokens, TODAY).expect("a count");
        assert_eq!((counted.sampling.grammar, &counted.requests[0].grammar), (None, &None));
        let unknown = r#","output_config":{"form":{}}"#;
        check_refused(&body(unknown), Code::UnknownParameter, "output_config.form");
    }

    #[test]
    fn a_count_asks_for_the_same_prompt_and_no_more() {
        let text = r#"{"model":"m","system":"s","messages":[{"role":"user","content":"x"}],"tools":[],"thinking":null}"#;
        let ask = read(text, Route::CountTokens, TODAY).expect("a good body");
        assert_eq!((ask.form, ask.max_output_tokens), (Form::Count, Some(1)));
        assert_eq!(turns(&ask), [("system", "s"), ("user", "x")]);
        let error = read(&body(""), Route::CountTokens, TODAY).expect_err("nothing is generated");
        assert_eq!(error.param(), Some("max_tokens"));
    }

    proptest! {
        #[test]
        fn no_value_of_any_parameter_panics(
            name in prop::sample::select(own::PARAMETERS.iter().map(|row| row.name).collect::<Vec<_>>()),
            value in r#"[\[\]{}",:0-9eE.\-a-z\\u ]{0,60}"#,
        ) {
            let text = format!(r#"{{"model":"m","max_tokens":9,"{name}":{value}}}"#);
            for route in [Route::Messages, Route::CountTokens] {
                let _ = read(&text, route, TODAY);
                let _ = read(&text.replace("\"max_tokens\":9,", ""), route, TODAY);
            }
        }

        #[test]
        fn whatever_is_said_reaches_the_prompt(texts in prop::collection::vec(".{0,20}", 1..5)) {
            let turns: Vec<serde_json::Value> =
                texts.iter().map(|text| serde_json::json!({"role": "user", "content": text})).collect();
            let body = serde_json::json!({"model": "m", "max_tokens": 1, "messages": turns}).to_string();
            let ask = asked(&body);
            let Prompt::Chat { messages, .. } = &ask.requests[0].prompt else { panic!("not a chat") };
            prop_assert_eq!(&messages[0].content, &texts.join(BETWEEN));
        }
    }
}
