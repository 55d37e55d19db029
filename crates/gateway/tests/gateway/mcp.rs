//! Tools by the Model Context Protocol.

use proptest::{prelude::*, strategy::ValueTree, test_runner::TestRunner};
use serde_json::{Value, json};
use surety_gateway::{KeyTerms, KeysOf};

use crate::{
    fake::FakeWorker,
    http::{Answer, Site},
};

async fn call(site: &Site, method: &str, params: Value) -> Value {
    let message = json!({"jsonrpc": "2.0", "id": 7, "method": method, "params": params});
    let answer =
        site.post_with("/mcp", "mcp-protocol-version: 2025-06-18\r\n", &message.to_string()).await.json();
    assert_eq!((&answer["jsonrpc"], &answer["id"]), (&json!("2.0"), &json!(7)), "{answer}");
    answer
}

async fn tool(site: &Site, name: &str, arguments: Value) -> Value {
    let answer = call(site, "tools/call", json!({"name": name, "arguments": arguments})).await;
    let result = answer["result"].clone();
    assert!(result["content"][0]["text"].is_string(), "{answer}");
    if result["isError"] == false {
        let listed = call(site, "tools/list", json!({})).await;
        let listed = listed["result"]["tools"].as_array().expect("tools").clone();
        let schema = &listed.iter().find(|tool| tool["name"] == name).expect("listed")["outputSchema"];
        check_schema(schema, &result["structuredContent"]);
        let text = result["content"][1]["text"].as_str().expect("text");
        assert_eq!(serde_json::from_str::<Value>(text).expect("JSON"), result["structuredContent"]);
    }
    result
}

/// What a schema of ours says of an object: which names it has, and of which types.
fn check_schema(schema: &Value, found: &Value) {
    let properties = schema["properties"].as_object().expect("properties");
    let required: Vec<&str> =
        schema["required"].as_array().expect("names").iter().filter_map(Value::as_str).collect();
    let found = found.as_object().expect("an object");
    let names: Vec<&str> = found.keys().map(String::as_str).collect();
    assert!(names.iter().all(|name| required.contains(name)) && names.len() == required.len(), "{names:?}");
    for (name, value) in found {
        let kind = match value {
            Value::Null => "null",
            Value::Bool(_) => "boolean",
            Value::Number(_) => "number",
            Value::String(_) => "string",
            Value::Array(_) => "array",
            Value::Object(_) => "object",
        };
        let said = &properties[name]["type"];
        let is_said = said == kind || said.as_array().is_some_and(|kinds| kinds.contains(&json!(kind)));
        assert!(is_said, "{name} is {kind}, not {said}");
    }
}

async fn chat(site: &Site, text: &str) -> Answer {
    site.chat(json!({"model": "tiny", "messages": [{"role": "user", "content": text}]})).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_begins_and_finds_the_tools() {
    let worker = FakeWorker::start(1).await;
    let site = Site::start(&[&worker]).await;
    let begun = call(&site, "initialize", json!({"protocolVersion": "2025-03-26", "capabilities": {}})).await;
    assert_eq!(begun["result"]["protocolVersion"], "2025-03-26");
    assert_eq!(begun["result"]["serverInfo"]["name"], "surety");
    let taken = site.post("/mcp", r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#).await;
    assert_eq!((taken.status, taken.text()), (202, ""));
    assert_eq!(call(&site, "ping", json!({})).await["result"], json!({}));
    let tools = call(&site, "tools/list", json!({})).await["result"]["tools"].clone();
    let names: Vec<&str> =
        tools.as_array().expect("tools").iter().filter_map(|tool| tool["name"].as_str()).collect();
    assert_eq!(names, ["models", "verify", "explain"]);
    let models = tool(&site, "models", json!({})).await["structuredContent"]["models"].clone();
    assert_eq!(models, site.get("/v1/models").await.json()["data"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_is_verified_and_explained() {
    let worker = FakeWorker::start(1).await;
    let site = Site::start(&[&worker]).await;
    let answer = chat(&site, "one two three").await;
    let id = answer.header("x-request-id").expect("an id").to_owned();
    // Any spelling of the id finds it.
    let spelled = answer.json()["id"].as_str().expect("an id").to_owned();
    let verified = tool(&site, "verify", json!({"request_id": spelled})).await["structuredContent"].clone();
    assert_eq!((&verified["request_id"], &verified["verified"]), (&json!(id), &json!(true)));
    assert_eq!(verified["gateway"], site.gateway.key().to_string());
    assert_eq!(verified["answers"][0]["worker"], worker.key());
    let lines = |name: &str| verified[name].as_array().expect("lines").clone();
    assert!(lines("checked").contains(&json!("the text is the receipt's, to the byte")));
    assert!(
        lines("not_checked").contains(&json!("that the model gives these tokens (needs a recomputation)"))
    );

    let explained = tool(&site, "explain", json!({"request_id": id})).await["structuredContent"].clone();
    assert_eq!(explained["statement"]["end"], "answered");
    assert_eq!(explained["evidence"], format!("/v1/receipts/{id}"));
    assert!(explained["no_ledger"].as_str().expect("why").contains("uses no ledger"));

    let failed = chat(&site, "one two BREAK").await;
    let id = failed.header("x-request-id").expect("an id");
    let explained = tool(&site, "explain", json!({"request_id": id})).await;
    let content = &explained["structuredContent"];
    assert_eq!(content["statement"]["end"]["failed"]["code"], "worker_lost");
    assert_eq!(content["papers"][0]["accepted_by"], worker.key());
    assert!(explained["content"][0]["text"].as_str().expect("said").contains("worker_lost"));
    let refused = tool(&site, "verify", json!({"request_id": id})).await;
    assert_eq!(refused["isError"], true);
    assert!(refused["content"][0]["text"].as_str().expect("why").starts_with("not_found: "), "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_message_is_refused_in_json_rpc() {
    let site = Site::with(&[], |_| {}).await;
    for (body, status, code) in [
        ("{", 400, -32700),
        ("[]", 400, -32600),
        (r#"{"jsonrpc":"2.0","id":1,"method":"prompts/list"}"#, 200, -32601),
        (r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"nothing"}}"#, 200, -32602),
        (&format!("\"{}\"", "x".repeat(70_000)), 413, -32000),
    ] {
        let answer = site.post("/mcp", body).await;
        assert_eq!(
            (answer.status, &answer.json()["error"]["code"]),
            (status, &json!(code)),
            "{}",
            answer.text()
        );
    }
    let ping = r#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#;
    let old = site.post_with("/mcp", "mcp-protocol-version: 1999-01-01\r\n", ping).await;
    assert_eq!((old.status, &old.json()["error"]["code"]), (400, &json!(-32600)));
    let page = site.post_with("/mcp", "origin: https://evil.example\r\n", ping).await;
    assert_eq!((page.status, &page.json()["error"]["data"]["code"]), (403, &json!("host_not_allowed")));
    let stream = site.get_with("/mcp", "accept: text/event-stream\r\n").await;
    assert_eq!((stream.status, stream.header("allow")), (405, Some("POST")));
    assert_eq!(stream.json()["error"]["code"], -32000);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_sees_its_own() {
    let worker = FakeWorker::start(1).await;
    let site = Site::start(&[&worker]).await;
    let keys = KeysOf::open(site.directory.path()).expect("the gateway's control");
    let (mine, _) = keys.create(KeyTerms::named("mine")).await.expect("a key");
    let (other, _) = keys.create(KeyTerms::named("other")).await.expect("a key");
    let shown = |secret: &str| format!("authorization: Bearer {secret}\r\n");
    let body = json!({"model": "tiny", "messages": [{"role": "user", "content": "one"}]}).to_string();
    let answer = site.post_with("/v1/chat/completions", &shown(&mine), &body).await;
    let id = answer.header("x-request-id").expect("an id");
    let verify = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call",
        "params": {"name": "verify", "arguments": {"request_id": id}}})
    .to_string();
    let nobody = site.post("/mcp", &verify).await;
    assert_eq!((nobody.status, &nobody.json()["error"]["data"]["code"]), (401, &json!("bad_key")));
    let found = site.post_with("/mcp", &shown(&mine), &verify).await.json();
    assert_eq!(found["result"]["structuredContent"]["verified"], true, "{found}");
    let hidden = site.post_with("/mcp", &shown(&other), &verify).await.json();
    assert_eq!(hidden["result"]["isError"], true, "{hidden}");
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_is_sent_the_server_does_not_fail() {
    let site = Site::with(&[], |_| {}).await;
    let mut runner = TestRunner::deterministic();
    let texts = prop_oneof![
        ".{0,80}",
        r#"\{"jsonrpc":"2\.0","id":[0-9]{1,3},"method":"(ping|initialize|tools/list|tools/call)","params":(\{\}|\[\]|7)\}"#,
        r#"\{"jsonrpc":"2\.0","id":1,"method":"tools/call","params":\{"name":"(verify|explain|models)","arguments":\{"request_id":"(req_)?[0-9a-f]{0,33}"\}\}\}"#,
    ];
    for _ in 0..96 {
        let text = texts.new_tree(&mut runner).expect("a text").current();
        let answer = site.post("/mcp", &text).await;
        assert!([200, 202, 400].contains(&answer.status), "{} to {text}", answer.status);
        if answer.status != 202 {
            assert_eq!(answer.json()["jsonrpc"], "2.0", "{text}");
        }
    }
}
