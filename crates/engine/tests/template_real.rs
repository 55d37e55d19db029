//! The chat templates of published models, rendered as Python's jinja2 renders them (`templates/README.md`).

use serde_json::Value;
use surety_engine::chat_template::{ChatTemplate, RenderOptions};
use surety_types::{CallFormat, CivilDate, Message, ToolCall};

const EXPECTED: &str = include_str!("templates/expected.json");

const TEMPLATES: &[(&str, &str)] = &[
    ("chatml", include_str!("templates/chatml.jinja")),
    ("hermes-like", include_str!("templates/hermes-like.jinja")),
    ("llama-like", include_str!("templates/llama-like.jinja")),
    ("mistral-7b", include_str!("templates/mistral-7b.jinja")),
    ("mistral-nemo", include_str!("templates/mistral-nemo.jinja")),
    ("phi-3", include_str!("templates/phi-3.jinja")),
    ("qwen-2.5", include_str!("templates/qwen-2.5.jinja")),
    ("qwen-3", include_str!("templates/qwen-3.jinja")),
    ("zephyr", include_str!("templates/zephyr.jinja")),
];

fn date(value: &Value) -> Option<CivilDate> {
    let parts: Vec<u64> = value.as_array()?.iter().map(|part| part.as_u64().unwrap()).collect();
    Some(CivilDate { year: parts[0] as u16, month: parts[1] as u8, day: parts[2] as u8 })
}

fn text(value: &Value) -> Option<String> {
    value.as_str().map(str::to_owned)
}

fn message(value: &Value) -> Message {
    let call = |call: &Value| ToolCall {
        id: text(&call["id"]).unwrap(),
        name: text(&call["name"]).unwrap(),
        arguments: text(&call["arguments"]).unwrap(),
    };
    Message {
        role: text(&value["role"]).unwrap(),
        content: text(&value["content"]).unwrap(),
        name: text(&value["name"]),
        tool_calls: value["tool_calls"].as_array().into_iter().flatten().map(call).collect(),
        tool_call_id: text(&value["tool_call_id"]),
    }
}

fn check(template: &ChatTemplate, conversation: &Value, tools: &Value, case: &Value) {
    let messages: Vec<Message> = conversation.as_array().unwrap().iter().map(message).collect();
    let options = RenderOptions {
        add_generation_prompt: case["add_generation_prompt"].as_bool().unwrap(),
        date: date(&case["date"]),
    };
    let tools: Vec<String> = tools.as_array().into_iter().flatten().filter_map(text).collect();
    let name =
        format!("{} of {}, {} tools: {options:?}", case["template"], case["conversation"], tools.len());
    match (template.render(&messages, &tools, &options), case["text"].as_str()) {
        (Ok(text), Some(expected)) => assert_eq!(text, expected, "{name}"),
        (Err(_), None) => {}
        (found, expected) => panic!("{name}: {found:?}, expected {expected:?}"),
    }
}

#[test]
fn published_templates_render_as_in_python() {
    let expected: Value = serde_json::from_str(EXPECTED).unwrap();
    let cases = expected["cases"].as_array().unwrap();
    for (name, source) in TEMPLATES {
        let template = ChatTemplate::new(source, "<s>".into(), "</s>".into()).unwrap();
        let own: Vec<&Value> = cases.iter().filter(|case| case["template"] == *name).collect();
        assert!(own.iter().filter(|case| case["text"].is_string()).count() >= 6, "{name}: too few cases");
        for case in own {
            let tools = case["tools"].as_str().map_or(&Value::Null, |tools| &expected["tools"][tools]);
            check(&template, &expected["conversations"][case["conversation"].as_str().unwrap()], tools, case);
        }
    }
}

#[test]
fn how_a_template_has_tools_called_is_read_off_what_it_renders() {
    for (name, source) in TEMPLATES {
        let template = ChatTemplate::new(source, "<s>".into(), "</s>".into()).unwrap();
        let expected = match *name {
            "hermes-like" | "qwen-2.5" | "qwen-3" => Some(CallFormat::Hermes),
            "llama-like" => Some(CallFormat::Llama),
            "mistral-nemo" => Some(CallFormat::Mistral),
            _ => None,
        };
        assert_eq!(template.calls(), expected, "{name}");
    }
}
