//! Tools: a model is shown them, and what it calls is told apart from what it says.

use serde_json::{Value, json};
use surety_proof::{Expected, check_evidence};
use surety_types::{CallFormat, Evidence, Prompt, ServedModel};

use crate::{
    fake::{FakeWorker, manifest, model},
    http::Site,
};

const CALL: &str =
    r#"<tool_call> {"name": "weather", "arguments": {"place": "Rome", "days": 2}} </tool_call>"#;

async fn worker(calls: Option<CallFormat>) -> FakeWorker {
    FakeWorker::serving(1, vec![ServedModel { calls, ..model("tiny", manifest("tiny", true)) }]).await
}

fn body(said: &str) -> Value {
    json!({
        "model": "tiny", "messages": [{"role": "user", "content": said}],
        "tools": [{"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}],
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_is_told_apart_and_the_receipt_signs_the_text() {
    let worker = worker(Some(CallFormat::Hermes)).await;
    let site = Site::start(&[&worker]).await;
    let answer = site.chat(body(&format!("I look. {CALL}"))).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let answer = answer.json();
    let id = answer["surety"]["request_id"].as_str().expect("an id").to_owned();
    let choice = &answer["choices"][0];
    assert_eq!(choice["finish_reason"], "tool_calls");
    assert_eq!(choice["message"]["content"], "I look.");
    let call = &choice["message"]["tool_calls"][0];
    assert_eq!(call["id"], format!("call_{}0000", &id[4..24]));
    assert_eq!(
        (&call["type"], &call["function"]),
        (&json!("function"), &json!({"name": "weather", "arguments": r#"{"place": "Rome", "days": 2}"#}))
    );
    assert_eq!(answer["surety"]["tool_calls"], "hermes");

    let evidence = Evidence::parse(&site.get(&format!("/v1/receipts/{id}")).await.body).expect("evidence");
    let checked = check_evidence(&evidence, None, &Expected::default()).expect("it holds");
    assert_eq!(evidence.answers[0].text, format!("I look. {CALL}"));
    let Prompt::Chat { tools, .. } = &checked.answers[0].request.prompt else { panic!("not a chat") };
    // As it was sent: `json!` orders members by name.
    let tool = r#"{"function":{"name":"weather","parameters":{"type":"object"}},"type":"function"}"#;
    assert_eq!(tools[..], [tool]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_says_the_same_calls() {
    let worker = worker(Some(CallFormat::Hermes)).await;
    let site = Site::start(&[&worker]).await;
    let mut asked = body(&format!("{CALL} {CALL}"));
    asked["stream"] = json!(true);
    let chunks = site.chat(asked).await.chunks();
    let mut calls: Vec<(String, String)> = Vec::new();
    for chunk in &chunks {
        let delta = &chunk["choices"][0]["delta"];
        assert!(delta.get("content").is_none(), "{delta}");
        for piece in delta["tool_calls"].as_array().into_iter().flatten() {
            let at = piece["index"].as_u64().expect("an index") as usize;
            if at == calls.len() {
                assert!(piece["id"].as_str().expect("an id").starts_with("call_"));
                calls.push((piece["function"]["name"].as_str().expect("a name").to_owned(), String::new()));
            }
            calls[at].1 += piece["function"]["arguments"].as_str().expect("arguments");
        }
    }
    assert_eq!(calls, vec![("weather".to_owned(), r#"{"place": "Rome", "days": 2}"#.to_owned()); 2]);
    let last = chunks.last().expect("a last");
    assert_eq!(last["choices"][0]["finish_reason"], "tool_calls");
    assert_eq!(last["surety"]["tool_calls"], "hermes");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_conversation_goes_on_with_what_the_tool_said() {
    let worker = worker(Some(CallFormat::Mistral)).await;
    let site = Site::start(&[&worker]).await;
    let mut asked = body("");
    asked["messages"] = json!([
        {"role": "user", "content": "Is it warm?"},
        {"role": "assistant", "content": null, "tool_calls": [
            {"id": "abcde1234", "type": "function", "function": {"name": "weather", "arguments": "{\"place\": \"Rome\"}"}},
        ]},
        {"role": "tool", "tool_call_id": "abcde1234", "content": "Warm it is"},
    ]);
    let answer = site.chat(asked).await.json();
    assert_eq!(answer["choices"][0]["message"]["content"], "Warm it is");
    assert_eq!(answer["choices"][0]["finish_reason"], "stop");
    let orders = worker.diary.orders.lock().expect("no panic");
    let Prompt::Chat { messages, .. } = &orders[0].1.prompt else { panic!("not a chat") };
    assert_eq!(messages[1].tool_calls[0].arguments, r#"{"place":"Rome"}"#);
    assert_eq!(messages[2].tool_call_id.as_deref(), Some("abcde1234"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_must_come_is_ordered() {
    let worker = worker(Some(CallFormat::Hermes)).await;
    let site = Site::start(&[&worker]).await;
    let mut asked = body(CALL);
    asked["tool_choice"] = json!("required");
    let answer = site.chat(asked).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(answer.json()["choices"][0]["finish_reason"], "tool_calls");
    let orders = worker.diary.orders.lock().expect("no panic");
    let (order, request) = &orders[0];
    let grammar = request.grammar.as_ref().expect("a grammar");
    assert!(grammar.contains("weather"), "{grammar}");
    assert_eq!(order.sampling.grammar, Some(surety_types::Request::grammar_digest(grammar)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_model_that_is_shown_no_tools_is_named() {
    let worker = worker(None).await;
    let site = Site::start(&[&worker]).await;
    let answer = site.chat(body("x")).await;
    assert_eq!(answer.status, 400);
    let error = &answer.json()["error"];
    assert_eq!((&error["param"], &error["code"]), (&json!("tools"), &json!("unsupported_parameter")));
    let message = error["message"].as_str().expect("a message");
    assert!(message.starts_with("Tools are not supported by the chat template of \"tiny\"."), "{message}");
    let mut asked = body("fine");
    asked["tool_choice"] = json!("none");
    let answer = site.chat(asked).await.json();
    assert_eq!(answer["choices"][0]["message"]["content"], "fine");
    assert!(answer["surety"].get("tool_calls").is_none());
    assert_eq!(site.get("/v1/models/tiny").await.json()["surety"]["tools"], false);
}
