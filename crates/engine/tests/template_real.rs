//! The chat templates of published models, rendered as Python's jinja2 renders them (`templates/README.md`).

use serde_json::Value;
use surety_engine::chat_template::{ChatTemplate, RenderOptions};
use surety_types::{CivilDate, Message};

const EXPECTED: &str = include_str!("templates/expected.json");

const TEMPLATES: &[(&str, &str)] = &[
    ("chatml", include_str!("templates/chatml.jinja")),
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

fn check(template: &ChatTemplate, conversation: &Value, case: &Value) {
    let messages: Vec<Message> = conversation
        .as_array()
        .unwrap()
        .iter()
        .map(|message| Message {
            role: message["role"].as_str().unwrap().into(),
            content: message["content"].as_str().unwrap().into(),
            name: None,
        })
        .collect();
    let options = RenderOptions {
        add_generation_prompt: case["add_generation_prompt"].as_bool().unwrap(),
        date: date(&case["date"]),
    };
    let name = format!("{} of {}: {options:?}", case["template"], case["conversation"]);
    match (template.render(&messages, &options), case["text"].as_str()) {
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
            check(&template, &expected["conversations"][case["conversation"].as_str().unwrap()], case);
        }
    }
}
