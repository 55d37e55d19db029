//! Tools, with a real worker: a model whose template shows it tools, and one whose template does not.

use std::io::Read;

use serde_json::{Value, json};
use xtask::compat::model::with_tools;

use crate::{
    http::{ask, post, question, request_id},
    process::{Up, assert_status, json, run},
};

/// Tokens of the bundled model's window.
const WINDOW_TOKENS: u32 = 1024;

fn tool() -> Value {
    json!({"type": "function", "function": {"name": "weather", "description": "Of a place.",
        "parameters": {"type": "object", "properties": {"place": {"type": "string"}}}}})
}

#[test]
fn a_model_is_shown_tools_and_calls_and_what_it_answers_holds() {
    let data_dir = tempfile::tempdir().unwrap();
    let dir = data_dir.path();
    let path = dir.join("tooled.gguf");
    with_tools(&path, WINDOW_TOKENS).unwrap();
    let up = Up::start(dir, &["--workers", "1", "--validators", "0", "--model", path.to_str().unwrap()]);

    let mut asked = question(12);
    asked["model"] = json!("tooled");
    let (_, plain) = ask(&up.base_url(), &asked);
    asked["tools"] = json!([tool()]);
    let (head, shown) = ask(&up.base_url(), &asked);
    let tokens = |answer: &Value| answer["usage"]["prompt_tokens"].as_u64().unwrap();
    assert!(tokens(&shown) > tokens(&plain) + 20, "{} and {}", tokens(&shown), tokens(&plain));
    assert_eq!(shown["surety"]["tool_calls"], "hermes");
    // The bundled model calls nothing: all is text.
    assert_ne!(shown["choices"][0]["finish_reason"], "tool_calls");
    assert!(!shown["choices"][0]["message"]["content"].as_str().unwrap().is_empty());
    let verified = run(dir, &["verify", &request_id(&head), "--recompute"]);
    assert_status(&verified, 0);

    // Made to, it calls, of what the schema has.
    let mut forced = asked.clone();
    forced["max_tokens"] = json!(100);
    forced["tool_choice"] = json!("required");
    forced["parallel_tool_calls"] = json!(false);
    forced["tools"][0]["function"]["parameters"]["properties"]["place"] = json!({"enum": ["Rome", "Paris"]});
    forced["tools"][0]["function"]["parameters"]["required"] = json!(["place"]);
    let (head, called) = ask(&up.base_url(), &forced);
    let choice = &called["choices"][0];
    assert_eq!(choice["finish_reason"], "tool_calls", "{called}");
    assert_eq!(choice["message"]["content"], Value::Null);
    let arguments = choice["message"]["tool_calls"][0]["function"]["arguments"].as_str().unwrap();
    let arguments: Value = serde_json::from_str(arguments).unwrap();
    assert!(["Rome", "Paris"].contains(&arguments["place"].as_str().unwrap()), "{arguments}");
    assert_status(&run(dir, &["verify", &request_id(&head), "--recompute"]), 0);

    let call = json!({"id": "c", "type": "function", "function": {"name": "weather", "arguments": "{\"place\":\"Rome\"}"}});
    asked["messages"] = json!([
        {"role": "user", "content": "Who goes there?"},
        {"role": "assistant", "content": null, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "c", "content": "Warm."},
    ]);
    let (head, gone_on) = ask(&up.base_url(), &asked);
    assert!(tokens(&gone_on) > tokens(&shown) + 20);
    let report = json(&run(dir, &["verify", &request_id(&head), "--recompute", "--json"]));
    assert_eq!((&report["verified"], &report["recomputed"]), (&json!(true), &json!(true)));
}

#[test]
fn a_model_whose_template_shows_no_tools_is_named() {
    let data_dir = tempfile::tempdir().unwrap();
    let up = Up::start(data_dir.path(), &["--workers", "1", "--validators", "0"]);
    let mut asked = question(12);
    asked["tools"] = json!([tool()]);
    let mut answer = String::new();
    post(&up.base_url(), "/chat/completions", &asked).read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 400"), "{answer}");
    assert!(answer.contains("Tools are not supported by the chat template of"), "{answer}");
    asked["tool_choice"] = json!("none");
    ask(&up.base_url(), &asked);
}
