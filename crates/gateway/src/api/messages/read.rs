//! Read: the body of a message, understood.
//!
//! In:     the text of a body; today's date, for chat templates that mention it.
//! Out:    what is asked for, every default filled in, or an error that names the parameter.
//! Touches: nothing.
//! Holds:  what is not text is refused by name; turns of one role are one message, as Anthropic has it.
//! Absent: which models and workers there are.

use serde_json::value::RawValue;
use surety_types::{CivilDate, Message, Prompt, Sampling, Seed, request::MAX_MESSAGES};

use super::parameters as own;
use crate::{
    api::{
        ask::{self, Ask, Form},
        fields::{self, Fields},
        parameters::{self as table, Route},
        provider,
    },
    error::{ApiError, Code},
    route::preferences::Preferences,
};

const ROLES: [&str; 3] = ["user", "assistant", "system"];
/// Between messages of one role that are one turn.
const BETWEEN: &str = "\n\n";
/// To know a prompt's tokens, so many of an answer are ordered, and given up.
const COUNTED_TOKENS: u32 = 1;

/// Reads the body of either route.
pub(crate) fn read(text: &str, route: Route, today: CivilDate) -> Result<Ask, ApiError> {
    let mut fields = Fields::body(text)?;
    table::screen(&mut fields, route)?;
    let fields = &mut fields;
    let model = ask::model(fields)?;
    no_tools(fields)?;
    only_plain(fields)?;
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
    let preferences = Preferences { worker, ..provider::preferences(fields)? };
    let messages = conversation(fields)?;
    assert_eq!(fields.names().next(), None, "a parameter of the table is not read");

    let form = match route {
        Route::CountTokens => Form::Count,
        _ => Form::Message { stops: !stop.is_empty() },
    };
    Ask {
        model,
        requests: vec![form.request(Prompt::chat(messages), stop, date.unwrap_or(today))],
        choices: 1,
        sampling,
        seed: Seed::Nonce,
        max_output_tokens: Some(max_output_tokens),
        ignore_end: false,
        stream,
        include_usage: false,
        preferences,
        deadline_ms,
        form,
        tools: None,
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
        let content = content(&content_path, raw)?;
        turn.take("cache_control");
        table::nothing_left(&turn, &["role", "content"])?;
        if index == last && role == "assistant" {
            let message = "The last message is the assistant's, which asks for its continuation. Answers cannot be begun for \
                           the model here: end `messages` with what the user says.";
            return Err(ApiError::new(Code::UnsupportedParameter, message).with_param(role_path));
        }
        match messages.last_mut() {
            Some(before) if before.role == role => {
                before.content.push_str(BETWEEN);
                before.content.push_str(&content);
            }
            _ => messages.push(message(role, content)),
        }
    }
    Ok(messages)
}

fn message(role: &str, content: String) -> Message {
    Message::text(role, content)
}

/// A text, or a list of text blocks joined as they stand.
fn content(path: &str, raw: &RawValue) -> Result<String, ApiError> {
    match fields::first_byte(raw) {
        b'"' => fields::string(path, raw),
        b'[' => {
            let mut text = String::new();
            for (index, raw) in fields::list(path, raw, ask::PARTS_MAX)?.into_iter().enumerate() {
                let mut block = Fields::object(format!("{path}[{index}]"), raw)?;
                let kind_path = block.path("type");
                let kind = block.string("type")?.ok_or_else(|| ask::missing(&kind_path))?;
                if kind != "text" {
                    return Err(no_text(kind_path, &kind));
                }
                let text_path = block.path("text");
                text.push_str(&block.string("text")?.ok_or_else(|| ask::missing(&text_path))?);
                block.take("cache_control");
                let citations = block.path("citations");
                if block.take("citations").is_some_and(|raw| raw.get() != "[]") {
                    let message =
                        format!("`{citations}` is not supported here. Write what is cited into the text.");
                    return Err(ApiError::new(Code::UnsupportedParameter, message).with_param(citations));
                }
                table::nothing_left(&block, &["type", "text"])?;
            }
            Ok(text)
        }
        _ => Err(fields::wrong_type(path, raw, "a text or a list of text blocks")),
    }
}

/// A block that is no text.
fn no_text(path: String, kind: &str) -> ApiError {
    let instead = match kind {
        "image" => "Say in words what it shows.",
        "document" | "search_result" | "container_upload" => "Write what it says into a text block.",
        "thinking" | "redacted_thinking" => "Leave it out: thoughts are part of the text here.",
        "tool_use" => "Write the call into a text block.",
        "tool_result" => "Write what the tool said into a text block.",
        _ => "Write it into a text block.",
    };
    let message =
        format!("`{path}` is \"{}\". Only \"text\" is supported here. {instead}", fields::quote(kind));
    ApiError::new(Code::UnsupportedParameter, message).with_param(path)
}

/// Tools may be named as long as none is to be called.
fn no_tools(fields: &mut Fields<'_>) -> Result<(), ApiError> {
    let tools = fields.take("tools").is_some_and(|raw| raw.get() != "[]");
    let choice = match fields.fields("tool_choice")? {
        None => None,
        Some(mut choice) => {
            let kind = choice.string("type")?.ok_or_else(|| ask::missing("tool_choice.type"))?;
            choice.take("disable_parallel_tool_use");
            choice.take("name");
            table::nothing_left(&choice, &["type", "name", "disable_parallel_tool_use"])?;
            Some(kind)
        }
    };
    let at_fault = match (tools, choice.as_deref()) {
        (_, Some("none")) | (false, None | Some("auto")) => return Ok(()),
        (true, _) => "tools",
        (false, Some(_)) => "tool_choice",
    };
    let message = format!(
        "`{at_fault}` is not supported here: answers are text. Leave it out or send `tool_choice: {{\"type\": \"none\"}}`, and \
         describe in `messages` what may be called.",
    );
    Err(ApiError::new(Code::UnsupportedParameter, message).with_param(at_fault))
}

/// Answers are plain text, thought of as the model was taught, at the one speed there is.
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
    if let Some(mut config) = fields.fields("output_config")? {
        if config.take("effort").is_some() {
            return refused(
                "output_config.effort",
                "`output_config.effort` is not supported here. Leave it out, or say in `messages` how much to think.",
            );
        }
        if config.take("format").is_some() {
            return refused(
                "output_config.format",
                "`output_config.format` is not supported here. Describe the form in `messages` and check the answer.",
            );
        }
        table::nothing_left(&config, &["effort", "format"])?;
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
        check_refused(&body(r#","tools":[{"name":"f"}]"#), UnsupportedParameter, "tools");
        check_refused(&body(r#","tool_choice":{"type":"any"}"#), UnsupportedParameter, "tool_choice");
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
        for kind in ["image", "document", "thinking", "tool_use", "tool_result", "poem"] {
            let text = turn(&format!(r#"[{{"type":"{kind}"}}]"#), "user");
            check_refused(&text, UnsupportedParameter, "messages[0].content[0].type");
        }
        check_refused(&turn(r#""The answer is""#, "assistant"), UnsupportedParameter, "messages[0].role");
        check_refused(&turn(r#""x""#, "developer"), InvalidParam, "messages[0].role");
        check_refused(&turn("3", "user"), InvalidParam, "messages[0].content");
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
