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

fn response(said: &str) -> Value {
    json!({
        "model": "tiny", "input": said,
        "tools": [{"type": "function", "name": "weather", "parameters": {"type": "object"}}],
    })
}

async fn respond(site: &Site, body: &Value) -> Value {
    let answer = site.post("/v1/responses", &body.to_string()).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.json()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_response_has_calls_as_items_and_is_gone_on_with() {
    let worker = worker(Some(CallFormat::Hermes)).await;
    let site = Site::start(&[&worker]).await;
    let first = respond(&site, &response(&format!("I look. {CALL}"))).await;
    assert_eq!((&first["status"], &first["surety"]["tool_calls"]), (&json!("completed"), &json!("hermes")));
    let (message, call) = (&first["output"][0], &first["output"][1]);
    assert_eq!((&message["type"], &message["content"][0]["text"]), (&json!("message"), &json!("I look.")));
    assert_eq!((&call["type"], &call["name"]), (&json!("function_call"), &json!("weather")));
    assert_eq!(call["arguments"], r#"{"place": "Rome", "days": 2}"#);
    // As it is kept, with the form in which its model writes calls.
    let id = first["id"].as_str().expect("an id");
    assert_eq!(site.get(&format!("/v1/responses/{id}")).await.json(), first);

    let output = json!({"type": "function_call_output", "call_id": call["call_id"], "output": "Warm it is"});
    let mut next = response("");
    (next["input"], next["previous_response_id"]) = (json!([output]), json!(id));
    let second = respond(&site, &next).await;
    assert_eq!(second["output"][0]["content"][0]["text"], "Warm it is");
    let path = format!("/v1/responses/{}/input_items?order=asc", second["id"].as_str().expect("an id"));
    let items = site.get(&path).await.json();
    let kinds: Vec<&Value> =
        items["data"].as_array().expect("items").iter().map(|item| &item["type"]).collect();
    assert_eq!(kinds, ["message", "message", "function_call", "function_call_output"]);
    // The same told by references, and told again.
    let user = json!({"role": "user", "content": format!("I look. {CALL}")});
    let reference = |item: &Value| json!({"type": "item_reference", "id": item["id"]});
    for said in [[reference(message), reference(call)], [message.clone(), call.clone()]] {
        let mut told = response("");
        told["input"] = json!([user, said[0], said[1], output]);
        respond(&site, &told).await;
    }
    let orders = worker.diary.orders.lock().expect("no panic");
    assert_eq!(orders.len(), 4);
    let Prompt::Chat { messages, .. } = &orders[1].1.prompt else { panic!("not a chat") };
    assert_eq!(
        (messages[1].content.as_str(), messages[1].tool_calls[0].arguments.as_str()),
        ("I look.", r#"{"place":"Rome","days":2}"#)
    );
    assert_eq!(messages[2].tool_call_id.as_deref(), call["call_id"].as_str());
    assert_eq!((&orders[2].1.prompt, &orders[3].1.prompt), (&orders[1].1.prompt, &orders[1].1.prompt));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_streamed_response_says_the_same_calls_and_a_forced_one_is_ordered() {
    let worker = worker(Some(CallFormat::Hermes)).await;
    let site = Site::start(&[&worker]).await;
    let mut asked = response(CALL);
    (asked["stream"], asked["tool_choice"]) = (json!(true), json!({"type": "function", "name": "weather"}));
    let answer = site.post("/v1/responses", &asked.to_string()).await;
    let events: Vec<Value> =
        answer.events().iter().map(|event| serde_json::from_str(event).expect("JSON")).collect();
    let done = events.iter().find(|event| event["type"] == "response.function_call_arguments.done");
    let done = done.expect("a call");
    assert_eq!((&done["name"], &done["output_index"]), (&json!("weather"), &json!(0)));
    let last = events.last().expect("an end");
    assert_eq!(last["type"], "response.completed");
    assert_eq!(last["response"]["output"][0]["arguments"], done["arguments"]);
    assert_eq!(last["response"]["tool_choice"], asked["tool_choice"]);
    let id = last["response"]["id"].as_str().expect("an id");
    let again = site.get(&format!("/v1/responses/{id}?stream=true")).await;
    assert_eq!(
        again.text().split_once("event: ").expect("events").1,
        answer.text().split_once("event: ").expect("events").1
    );
    let orders = worker.diary.orders.lock().expect("no panic");
    assert!(orders[0].1.grammar.as_ref().is_some_and(|grammar| grammar.contains("weather")));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_tokens_of_a_response_are_counted_and_what_is_not_there_is_named() {
    let tooled = worker(Some(CallFormat::Hermes)).await;
    let site = Site::start(&[&tooled]).await;
    let answer = site.post("/v1/responses/input_tokens", &response("Hello there").to_string()).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let asked = respond(&site, &response("Hello there")).await;
    let expected = json!({"object": "response.input_tokens", "input_tokens": asked["usage"]["input_tokens"]});
    assert_eq!(answer.json(), expected);
    let error = |answer: &crate::http::Answer| {
        let error = &answer.json()["error"];
        (answer.status, error["code"].as_str().expect("a code").to_owned(), error["param"].clone())
    };
    let compact = site.post("/v1/responses/compact", r#"{"model":"tiny","input":"x"}"#).await;
    assert_eq!(error(&compact), (400, "unsupported_parameter".to_owned(), Value::Null));
    let mut personal = response("x");
    personal["personality"] = json!("friendly");
    let personal = site.post("/v1/responses/input_tokens", &personal.to_string()).await;
    assert_eq!(error(&personal), (400, "unsupported_parameter".to_owned(), json!("personality")));

    let plain = worker(None).await;
    let site = Site::start(&[&plain]).await;
    let refused = site.post("/v1/responses", &response("x").to_string()).await;
    assert_eq!(error(&refused), (400, "unsupported_parameter".to_owned(), json!("tools")));
    let calls = json!([{"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"}]);
    let refused = site.post("/v1/responses", &json!({"model": "tiny", "input": calls}).to_string()).await;
    assert_eq!(error(&refused), (400, "unsupported_parameter".to_owned(), json!("input")));
}

#[tokio::test(flavor = "multi_thread")]
async fn some_of_the_tools_may_be_called() {
    let worker = worker(Some(CallFormat::Hermes)).await;
    let site = Site::start(&[&worker]).await;
    let mut asked = body(CALL);
    asked["tools"]
        .as_array_mut()
        .expect("tools")
        .push(json!({"type": "function", "function": {"name": "ask"}}));
    let allowed = |name: &str, mode: &str| {
        let tool = json!({"type": "function", "function": {"name": name}});
        json!({"type": "allowed_tools", "allowed_tools": {"mode": mode, "tools": [tool]}})
    };
    asked["tool_choice"] = allowed("weather", "auto");
    assert_eq!(site.chat(asked.clone()).await.json()["choices"][0]["finish_reason"], "tool_calls");
    // What may not be called stays text.
    asked["tool_choice"] = allowed("ask", "auto");
    assert_eq!(site.chat(asked.clone()).await.json()["choices"][0]["finish_reason"], "stop");
    asked["tool_choice"] = allowed("weather", "required");
    assert_eq!(site.chat(asked.clone()).await.status, 200);
    let orders = worker.diary.orders.lock().expect("no panic");
    let Prompt::Chat { tools, .. } = &orders[2].1.prompt else { panic!("not a chat") };
    assert_eq!(tools.len(), 2, "all are shown");
    let grammar = orders[2].1.grammar.as_ref().expect("a grammar");
    assert!(grammar.contains("weather") && !grammar.contains("ask"), "{grammar}");
}
