//! Anthropic's protocol, as its clients meet it.

use serde_json::{Value, json};
use surety_types::{CallFormat, Prompt, ServedModel};

use crate::{
    fake::{CONTEXT, FakeWorker, manifest, model},
    http::{Answer, Site},
};

const PATH: &str = "/v1/messages";
const COUNT: &str = "/v1/messages/count_tokens";

fn message(script: &str) -> Value {
    json!({"model": "tiny", "max_tokens": 64, "messages": [{"role": "user", "content": script}]})
}

fn with(mut body: Value, members: Value) -> Value {
    for (name, value) in members.as_object().expect("an object") {
        body[name] = value.clone();
    }
    body
}

async fn post(site: &Site, body: Value) -> Answer {
    site.post(PATH, &body.to_string()).await
}

/// The events of a stream, each of which is named as its data says.
fn events(answer: &Answer) -> Vec<Value> {
    let blocks = answer.text().split_terminator("\n\n").filter(|block| !block.starts_with(':'));
    let event = |block: &str| {
        let line = |name: &str| block.lines().find_map(|line| line.strip_prefix(name));
        let data: Value = serde_json::from_str(line("data: ").expect("data")).expect("JSON");
        assert_eq!(line("event: "), data["type"].as_str(), "{block}");
        data
    };
    blocks.map(event).collect()
}

fn kinds(events: &[Value]) -> Vec<&str> {
    events.iter().map(|event| event["type"].as_str().expect("a type")).collect()
}

fn text(events: &[Value]) -> String {
    events.iter().filter_map(|event| event["delta"]["text"].as_str()).collect()
}

/// An error in Anthropic's shape, whole.
fn check_error(answer: &Answer, status: u16, kind: &str, code: &str) -> Value {
    assert_eq!(answer.status, status, "{}", answer.text());
    let body = answer.json();
    assert_eq!((&body["type"], &body["error"]["type"]), (&json!("error"), &json!(kind)));
    assert_eq!(body["error"]["details"]["error_code"], code);
    let id = answer.header("x-request-id").expect("an id");
    assert_eq!((answer.header("request-id"), body["request_id"].as_str()), (Some(id), Some(id)));
    assert!(body["error"]["message"].as_str().expect("a message").ends_with(&format!("id={id}")));
    body["error"].clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_is_answered_whole() {
    let worker = FakeWorker::start(1).await;
    let site = Site::start(&[&worker]).await;
    let body =
        with(message("Hello there world"), json!({"system": "be brief", "metadata": {"user_id": "u"}}));
    let answer = post(&site, body).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let id = answer.header("request-id").expect("an id").to_owned();
    let body = answer.json();
    assert_eq!(body["id"], format!("msg_{}", &id[4..]));
    assert_eq!(
        (&body["type"], &body["role"], &body["model"]),
        (&json!("message"), &json!("assistant"), &json!("tiny"))
    );
    assert_eq!(body["content"], json!([{"type": "text", "text": "Hello there world", "citations": null}]));
    assert_eq!((&body["stop_reason"], &body["stop_sequence"]), (&json!("end_turn"), &Value::Null));
    // 17 bytes and 5 around them, one of them cached; three words and the end.
    assert_eq!(
        body["usage"],
        json!({"input_tokens": 21, "cache_creation_input_tokens": 0, "cache_read_input_tokens": 1, "output_tokens": 4})
    );
    assert_eq!(body["surety"]["workers"], json!([worker.key()]));
    assert_eq!(answer.header("x-surety-verification"), Some("not-requested"));
    // The evidence is found under Anthropic's id too.
    let path = format!("/v1/receipts/{}", body["id"].as_str().expect("an id"));
    assert_eq!(site.get(&path).await.status, 200);
    let orders = worker.diary.orders.lock().expect("no panic");
    let Prompt::Chat { messages, .. } = &orders[0].1.prompt else { panic!("not a chat") };
    assert_eq!((messages[0].role.as_str(), messages[0].content.as_str()), ("system", "be brief"));
    assert_eq!(orders[0].0.max_output_tokens, 64);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_says_the_same_and_ends() {
    let worker = FakeWorker::start(1).await;
    let site = Site::start(&[&worker]).await;
    let answer = post(&site, with(message("Hello HOLD-BACK there world"), json!({"stream": true}))).await;
    assert_eq!(answer.header("content-type"), Some("text/event-stream; charset=utf-8"));
    let events = events(&answer);
    let kinds = kinds(&events);
    assert_eq!(kinds[..4], ["message_start", "content_block_start", "ping", "content_block_delta"]);
    assert_eq!(kinds[kinds.len() - 3..], ["content_block_stop", "message_delta", "message_stop"]);
    assert!(kinds[3..kinds.len() - 3].iter().all(|kind| *kind == "content_block_delta"));
    assert_eq!(text(&events), "Hello there world");
    let start = &events[0]["message"];
    assert_eq!(start["usage"]["input_tokens"], 32);
    assert!(start["id"].as_str().expect("an id").starts_with("msg_") && start["stop_reason"].is_null());
    let end = &events[events.len() - 2];
    assert_eq!(end["delta"], json!({"stop_reason": "end_turn", "stop_sequence": null}));
    assert_eq!((&end["usage"]["input_tokens"], &end["usage"]["output_tokens"]), (&json!(31), &json!(5)));
    assert_eq!(end["surety"]["receipt"].as_str(), answer.header("x-surety-receipt"));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_ended_an_answer_is_told() {
    let worker = FakeWorker::start(1).await;
    let site = Site::start(&[&worker]).await;
    let stops = json!({"stop_sequences": ["nothing", "STOPPED"]});
    let ended = |answer: &Answer| {
        let body = answer.json();
        (body["stop_reason"].as_str().expect("a reason").to_owned(), body["stop_sequence"].clone())
    };
    let answer = post(&site, with(message("one STOPPED"), stops.clone())).await;
    assert_eq!(ended(&answer), ("stop_sequence".to_owned(), json!("STOPPED")));
    assert_eq!(answer.json()["content"][0]["text"], "one ");
    let answer = post(&site, with(message("one two"), stops.clone())).await;
    assert_eq!(ended(&answer), ("end_turn".to_owned(), Value::Null));
    let answer = post(&site, with(message("one two three"), json!({"max_tokens": 2}))).await;
    assert_eq!(ended(&answer), ("max_tokens".to_owned(), Value::Null));
    let streamed =
        events(&post(&site, with(with(message("one STOPPED"), stops), json!({"stream": true}))).await);
    let end = &streamed[streamed.len() - 2]["delta"];
    assert_eq!(*end, json!({"stop_reason": "stop_sequence", "stop_sequence": "STOPPED"}));
    // The window is full before the tokens are that were asked for.
    let long = "x".repeat(CONTEXT as usize - 20);
    let script = format!("{long} FLOOD");
    let answer = post(&site, message(&script)).await;
    assert_eq!(ended(&answer).0, "model_context_window_exceeded");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_fails_ends_with_an_error_event() {
    let worker = FakeWorker::start(1).await;
    let site = Site::start(&[&worker]).await;
    let answer = post(&site, with(message("one two FAIL"), json!({"stream": true}))).await;
    assert_eq!(answer.status, 200);
    let events = events(&answer);
    let last = events.last().expect("an event");
    assert_eq!((&last["type"], &last["error"]["type"]), (&json!("error"), &json!("api_error")));
    assert_eq!(last["error"]["details"]["error_code"], "worker_bad_output");
    assert_eq!(last["request_id"].as_str(), answer.header("request-id"));
    assert!(!kinds(&events).contains(&"message_stop"));
    let whole = post(&site, message("one FAIL")).await;
    check_error(&whole, 502, "api_error", "worker_bad_output");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_broke_off_is_gone_on_with() {
    let worker = FakeWorker::start(1).await;
    let site = Site::start(&[&worker]).await;
    let body = with(message("one two PAUSE three PAUSE PAUSE four"), json!({"stream": true})).to_string();
    let mut wire = site.open(PATH, &body).await;
    wire.until("two").await;
    // An id is there as soon as the beginning is kept.
    wire.until("\nid: req_").await;
    let so_far = wire.so_far();
    let last = so_far.event_ids().pop().expect("an id");
    let position: usize = last.rsplit(':').next().expect("a position").parse().expect("a number");
    drop(wire);
    site.until(|status| status["active_requests"] == 0).await;
    let rest = site.go_on(PATH, &body, &last).await;
    assert_eq!(rest.status, 200, "{}", rest.text());
    let rest = events(&rest);
    assert_eq!(&"one two three four"[position..], text(&rest));
    assert_eq!(
        (kinds(&rest)[0], kinds(&rest)[kinds(&rest).len() - 1]),
        ("content_block_delta", "message_stop")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn errors_are_in_anthropic_s_shape() {
    let worker = FakeWorker::start(1).await;
    let site = Site::start(&[&worker]).await;
    let invalid = "invalid_request_error";
    check_error(&site.post(PATH, "{").await, 400, invalid, "invalid_json");
    let error = check_error(
        &post(&site, json!({"model": "tiny", "messages": []})).await,
        400,
        invalid,
        "invalid_param",
    );
    assert_eq!(error["details"]["param"], "max_tokens");
    // The model's template shows no tools.
    let tools = with(message("x"), json!({"tools": [{"name": "f", "input_schema": {}}]}));
    check_error(&post(&site, tools).await, 400, invalid, "unsupported_parameter");
    let unknown = with(message("x"), json!({"model": "tinny"}));
    check_error(&post(&site, unknown).await, 404, "not_found_error", "model_unknown");
    let long = message(&"x".repeat(CONTEXT as usize));
    check_error(&post(&site, long).await, 400, invalid, "context_length_exceeded");
    let full = post(&site, message("REFUSE-OVERLOADED")).await;
    check_error(&full, 529, "overloaded_error", "overloaded");
    assert!(full.header("retry-after").is_some());
    let get = site.get(PATH).await;
    check_error(&get, 405, invalid, "method_not_allowed");
    assert_eq!(get.header("allow"), Some("POST"));
    check_error(&site.get("/v1/messages/batches").await, 404, "not_found_error", "not_found");
    // Elsewhere the header says whose words are wanted.
    let version = "anthropic-version: 2023-06-01\r\n";
    check_error(&site.get_with("/v1/models/tinny", version).await, 404, "not_found_error", "model_unknown");
    assert_eq!(site.get("/v1/models/tinny").await.error()["code"], "model_unknown");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_count_is_what_a_worker_signs_for() {
    let worker = FakeWorker::start(1).await;
    let site = Site::start(&[&worker]).await;
    let body = json!({"model": "tiny", "messages": [{"role": "user", "content": "one WAIT"}]});
    let answer = site.post(COUNT, &body.to_string()).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    // 8 bytes and 5 around them.
    assert_eq!(answer.json(), json!({"input_tokens": 13}));
    // Nobody waits for an answer.
    worker.diary.until(&worker.diary.cancelled, 1).await;
    site.until(|status| status["active_requests"] == 0).await;
    // A prompt that no answer would fit is counted all the same.
    let long =
        json!({"model": "tiny", "messages": [{"role": "user", "content": "x".repeat(CONTEXT as usize)}]});
    let answer = site.post(COUNT, &long.to_string()).await;
    assert_eq!(answer.json(), json!({"input_tokens": CONTEXT + 5}), "{}", answer.text());
    let error = site.post(COUNT, &message("x").to_string()).await;
    check_error(&error, 400, "invalid_request_error", "unknown_parameter");
}

#[tokio::test(flavor = "multi_thread")]
async fn models_are_paged_for_who_sends_the_version() {
    let (tiny, other) = (manifest("tiny", true), manifest("other", false));
    let worker = FakeWorker::serving(1, vec![model("tiny", tiny), model("owner/other", other)]).await;
    let site = Site::start(&[&worker]).await;
    let version = "anthropic-version: 2023-06-01\r\n";
    let all = site.get_with("/v1/models", version).await;
    let body = all.json();
    assert_eq!(
        (&body["has_more"], &body["first_id"], &body["last_id"]),
        (&json!(false), &json!("owner/other"), &json!("tiny"))
    );
    let found = &body["data"][1];
    assert_eq!(
        (&found["type"], &found["display_name"], &found["max_input_tokens"]),
        (&json!("model"), &json!("tiny"), &json!(CONTEXT))
    );
    let created = found["created_at"].as_str().expect("a time");
    assert!(created.ends_with('Z') && created.len() == 20, "{created}");
    assert_eq!(site.get_with("/v1/models/tiny", version).await.json(), *found);
    let rest = site.get_with("/v1/models?limit=1&after_id=owner%2Fother", version).await.json();
    assert_eq!((&rest["data"][0]["id"], &rest["has_more"]), (&json!("tiny"), &json!(false)));
    let wrong = site.get_with("/v1/models?limit=0", version).await;
    check_error(&wrong, 400, "invalid_request_error", "invalid_param");
    assert_eq!(site.get("/v1/models").await.json()["object"], "list");
}

const CALL: &str =
    r#"<tool_call> {"name": "weather", "arguments": {"place": "Rome", "days": 2}} </tool_call>"#;

fn tools() -> Value {
    json!({"tools": [{"name": "weather", "input_schema": {"type": "object"}}]})
}

async fn caller() -> FakeWorker {
    let served = ServedModel { calls: Some(CallFormat::Hermes), ..model("tiny", manifest("tiny", true)) };
    FakeWorker::serving(1, vec![served]).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tool_is_called_and_the_conversation_goes_on() {
    let worker = caller().await;
    let site = Site::start(&[&worker]).await;
    let answer = post(&site, with(message(&format!("I look. {CALL}")), tools())).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let answer = answer.json();
    assert_eq!(answer["stop_reason"], "tool_use");
    assert_eq!(answer["content"][0], json!({"type": "text", "text": "I look.", "citations": null}));
    let call = &answer["content"][1];
    assert_eq!(
        (&call["type"], &call["name"], &call["input"]),
        (&json!("tool_use"), &json!("weather"), &json!({"place": "Rome", "days": 2}))
    );
    assert_eq!(answer["surety"]["tool_calls"], "hermes");

    let mut next = with(message("Is it warm?"), tools());
    let turns = next["messages"].as_array_mut().expect("turns");
    turns.push(json!({"role": "assistant", "content": [{"type": "text", "text": "I look."}, call]}));
    turns.push(json!({"role": "user", "content": [
        {"type": "tool_result", "tool_use_id": call["id"], "content": "Warm it is"},
    ]}));
    let answer = post(&site, next).await.json();
    assert_eq!(
        (&answer["content"][0]["text"], &answer["stop_reason"]),
        (&json!("Warm it is"), &json!("end_turn"))
    );
    let orders = worker.diary.orders.lock().expect("no panic");
    let Prompt::Chat { messages, tools } = &orders[1].1.prompt else { panic!("not a chat") };
    assert_eq!(tools.len(), 1);
    assert_eq!(messages[1].tool_calls[0].id, call["id"].as_str().expect("an id"));
    assert_eq!(messages[2].tool_call_id.as_deref(), call["id"].as_str());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_is_streamed_and_ordered_where_it_must_come() {
    let worker = caller().await;
    let site = Site::start(&[&worker]).await;
    let body = with(message(CALL), tools());
    let asked = json!({"stream": true, "tool_choice": {"type": "tool", "name": "weather"}});
    let answer = post(&site, with(body, asked)).await;
    let events = events(&answer);
    assert_eq!(
        kinds(&events),
        [
            "message_start",
            "ping",
            "content_block_start",
            "content_block_delta",
            "content_block_stop",
            "message_delta",
            "message_stop"
        ]
    );
    let block = &events[2]["content_block"];
    assert_eq!(
        (&block["type"], &block["name"], &block["input"]),
        (&json!("tool_use"), &json!("weather"), &json!({}))
    );
    let delta = json!({"type": "input_json_delta", "partial_json": r#"{"place": "Rome", "days": 2}"#});
    assert_eq!(events[3]["delta"], delta);
    assert_eq!(events[5]["delta"]["stop_reason"], "tool_use");
    assert_eq!(events[5]["surety"]["tool_calls"], "hermes");
    // It cannot be gone on with, so nothing names its places.
    assert!(!answer.text().contains("\nid: "));
    // Tools are counted as the template shows them; nothing is made of an answer.
    let mut counted = with(message("x"), tools());
    counted.as_object_mut().expect("an object").remove("max_tokens");
    assert_eq!(site.post(COUNT, &counted.to_string()).await.status, 200);
    let orders = worker.diary.orders.lock().expect("no panic");
    assert!(orders[0].1.grammar.as_ref().expect("a grammar").contains("weather"));
}
