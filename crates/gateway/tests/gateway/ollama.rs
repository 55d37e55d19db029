//! Ollama's protocol, as its clients meet it.

use serde_json::{Value, json};
use surety_types::{CallFormat, Prompt, Request, Seed, ServedModel};

use crate::{
    fake::{CONTEXT, FakeWorker, manifest, model},
    http::{Answer, Site, request},
};

fn chat(script: &str) -> Value {
    json!({"model": "tiny", "messages": [{"role": "user", "content": script}]})
}

fn with(mut body: Value, members: Value) -> Value {
    for (name, value) in members.as_object().expect("an object") {
        body[name] = value.clone();
    }
    body
}

async fn post(site: &Site, path: &str, body: Value) -> Answer {
    site.post(path, &body.to_string()).await
}

/// The lines of a stream, of which each is an object and the last one ends it.
fn lines(answer: &Answer) -> Vec<Value> {
    assert_eq!(answer.header("content-type"), Some("application/x-ndjson"), "{}", answer.text());
    assert!(answer.text().ends_with('\n'));
    let lines: Vec<Value> =
        answer.text().lines().map(|line| serde_json::from_str(line).expect("an object")).collect();
    let (last, before) = lines.split_last().expect("a line");
    assert!(before.iter().all(|line| line["done"] == false && line.get("error").is_none()));
    assert!((last["done"] == true) != last["error"].is_string(), "{last}");
    lines
}

fn check_error(answer: &Answer, status: u16, code: &str) -> Value {
    assert_eq!(answer.status, status, "{}", answer.text());
    let body = answer.json();
    assert_eq!(body["code"], code);
    let id = answer.header("x-request-id").expect("an id");
    assert!(body["error"].as_str().expect("a text").ends_with(&format!("id={id}")), "{body}");
    body
}

#[tokio::test(flavor = "multi_thread")]
async fn a_chat_streams_lines_unless_told_otherwise() {
    let worker = FakeWorker::start(1).await;
    let site = Site::start(&[&worker]).await;
    let answer = post(&site, "/api/chat", chat("Hello PAUSE there world")).await;
    assert_eq!(answer.status, 200);
    let lines = lines(&answer);
    let text: String = lines.iter().filter_map(|line| line["message"]["content"].as_str()).collect();
    assert_eq!(text, "Hello there world");
    let last = lines.last().expect("a last");
    assert_eq!((&last["done_reason"], &last["model"]), (&json!("stop"), &json!("tiny")));
    assert_eq!((&last["prompt_eval_count"], &last["eval_count"]), (&json!(28), &json!(4)));
    let ns = |name: &str| last[name].as_u64().expect("nanoseconds");
    assert_eq!(ns("total_duration"), ns("load_duration") + ns("prompt_eval_duration") + ns("eval_duration"));
    // The pause is in there.
    assert!(ns("eval_duration") >= 200_000_000, "{last}");
    assert_eq!(last["surety"]["receipt"].as_str(), answer.header("x-surety-receipt"));

    let whole = post(&site, "/api/chat", with(chat("Hello there"), json!({"stream": false}))).await;
    assert_eq!(whole.header("content-type"), Some("application/json"));
    let body = whole.json();
    assert_eq!(body["message"], json!({"role": "assistant", "content": "Hello there"}));
    assert_eq!((&body["done"], &body["done_reason"]), (&json!(true), &json!("stop")));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_prompt_is_a_turn_or_stands_as_it_is() {
    let worker = FakeWorker::start(1).await;
    let site = Site::start(&[&worker]).await;
    let body = json!({"model": "tiny:latest", "prompt": "one two", "system": "s", "options": {"num_predict": 1, "seed": 7, "temperature": 0}});
    let said = lines(&post(&site, "/api/generate", body).await);
    assert_eq!((&said[0]["response"], &said[1]["done_reason"]), (&json!("one "), &json!("length")));
    let raw = json!({"model": "tiny", "prompt": "one two", "raw": true, "stream": false});
    assert_eq!(post(&site, "/api/generate", raw).await.json()["response"], "one two");
    let orders = worker.diary.orders.lock().expect("no panic");
    assert_eq!((orders[0].0.seed, orders[0].0.max_output_tokens), (Seed::Caller(7), 1));
    assert_eq!((orders[0].0.sampling.temperature, orders[1].0.sampling.top_k), (0.0, 40));
    assert!(matches!(&orders[0].1.prompt, Prompt::Chat { messages, .. } if messages.len() == 2));
    assert_eq!(orders[1].1.prompt, Prompt::Text("one two".to_owned()));
}

#[tokio::test(flavor = "multi_thread")]
async fn log_probabilities_are_beside_their_text() {
    let worker = FakeWorker::start(1).await;
    let site = Site::start(&[&worker]).await;
    let body = with(chat("one two"), json!({"stream": false, "logprobs": true, "top_logprobs": 2}));
    let logprobs = post(&site, "/api/chat", body).await.json()["logprobs"].clone();
    assert_eq!(logprobs.as_array().expect("a list").len(), 3);
    assert_eq!((&logprobs[0]["token"], &logprobs[0]["bytes"]), (&json!("one "), &json!([111, 110, 101, 32])));
    assert_eq!(logprobs[0]["top_logprobs"].as_array().expect("a list").len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_prompt_only_the_model_is_looked_for() {
    let worker = FakeWorker::start(1).await;
    let site = Site::start(&[&worker]).await;
    let loaded = lines(&post(&site, "/api/generate", json!({"model": "tiny", "keep_alive": -1})).await);
    assert_eq!((&loaded[0]["done_reason"], &loaded[0]["response"]), (&json!("load"), &json!("")));
    let loaded =
        post(&site, "/api/chat", json!({"model": "tiny", "messages": [], "stream": false})).await.json();
    assert_eq!((&loaded["done"], &loaded["message"]["content"]), (&json!(true), &json!("")));
    let unknown = post(&site, "/api/generate", json!({"model": "tinny:latest"})).await;
    check_error(&unknown, 404, "model_unknown");
    assert!(worker.diary.orders.lock().expect("no panic").is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_fails_ends_with_an_error_line() {
    let worker = FakeWorker::start(1).await;
    let site = Site::start(&[&worker]).await;
    let answer = post(&site, "/api/chat", chat("one two FAIL")).await;
    assert_eq!(answer.status, 200);
    let lines = lines(&answer);
    let last = lines.last().expect("a last");
    assert_eq!((&last["code"], last.get("done")), (&json!("worker_bad_output"), None));
    assert!(lines.len() > 1, "something was said before");
}

#[tokio::test(flavor = "multi_thread")]
async fn errors_are_in_ollama_s_shape() {
    let worker = FakeWorker::serving(
        1,
        vec![model("tiny", manifest("tiny", true)), model("plain", manifest("plain", false))],
    )
    .await;
    let site = Site::start(&[&worker]).await;
    check_error(&site.post("/api/chat", "{").await, 400, "invalid_json");
    check_error(
        &post(&site, "/api/chat", with(chat("x"), json!({"think": "high"}))).await,
        400,
        "unsupported_parameter",
    );
    let error = post(&site, "/api/chat", with(chat("x"), json!({"options": {"temprature": 1}}))).await;
    let error = check_error(&error, 400, "unknown_parameter");
    assert!(error["error"].as_str().expect("a text").contains("Did you mean `temperature`?"), "{error}");
    check_error(
        &post(&site, "/api/chat", with(chat("x"), json!({"model": "tinny"}))).await,
        404,
        "model_unknown",
    );
    check_error(
        &post(&site, "/api/chat", chat(&"x".repeat(CONTEXT as usize))).await,
        400,
        "context_length_exceeded",
    );
    check_error(&post(&site, "/api/chat", chat("REFUSE-OVERLOADED")).await, 503, "overloaded");
    let plain = json!({"model": "plain", "prompt": "x"});
    let error = check_error(&post(&site, "/api/generate", plain).await, 400, "invalid_param");
    assert!(error["error"].as_str().expect("a text").contains("`raw: true`"), "{error}");
    for (path, members, code) in [
        ("/api/embed", json!({"input": 3}), "invalid_param"),
        ("/api/embed", json!({"input": ["x", 3]}), "invalid_param"),
        ("/api/embed", json!({"input": "x", "dimensions": 0}), "invalid_param"),
        ("/api/embed", json!({"prompt": "x"}), "unknown_parameter"),
        ("/api/embed", json!({"input": "x", "options": {"mirostat": 2}}), "unsupported_parameter"),
        ("/api/embeddings", json!({"input": "x"}), "unknown_parameter"),
        ("/api/embeddings", json!({"prompt": ["x"]}), "invalid_param"),
    ] {
        check_error(&post(&site, path, with(json!({"model": "tiny"}), members)).await, 400, code);
    }
    check_error(
        &post(&site, "/api/embed", json!({"model": "tinny", "input": "x"})).await,
        404,
        "model_unknown",
    );
    check_error(&post(&site, "/api/pull", json!({"model": "tiny"})).await, 404, "not_found");
    check_error(&site.get("/api/chat").await, 405, "method_not_allowed");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_clients_look_at_first_is_there() {
    let worker = FakeWorker::start(1).await;
    let site = Site::start(&[&worker]).await;
    let version = site.get("/api/version").await.json()["version"].as_str().expect("a version").to_owned();
    assert!(version.starts_with("0.") && version.contains("+surety."), "{version}");
    let tags = site.get("/api/tags").await.json();
    let tiny = &tags["models"][0];
    assert_eq!(
        (&tiny["name"], &tiny["model"], &tiny["size"]),
        (&json!("tiny"), &json!("tiny"), &json!(1000))
    );
    assert_eq!(tiny["digest"].as_str().expect("digits").len(), 64);
    assert_eq!(tiny["details"]["quantization_level"], "Q8_0");
    assert_eq!(site.get("/api/ps").await.json()["models"][0]["name"], "tiny");
    for body in [json!({"model": "tiny"}), json!({"name": "tiny:latest", "verbose": false})] {
        let shown = post(&site, "/api/show", body).await;
        assert_eq!(shown.status, 200, "{}", shown.text());
        let shown = shown.json();
        assert_eq!(shown["capabilities"], json!(["completion"]));
        assert_eq!(shown["model_info"]["general.architecture"], "llama");
        assert_eq!(shown["model_info"]["llama.context_length"], CONTEXT);
        assert_eq!(shown["details"]["format"], "gguf");
    }
    check_error(&post(&site, "/api/show", json!({"model": "tinny"})).await, 404, "model_unknown");
    check_error(&post(&site, "/api/show", json!({})).await, 400, "invalid_param");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tool_is_called_and_a_form_is_ordered() {
    const CALL: &str = r#"<tool_call> {"name": "weather", "arguments": {"place": "Rome"}} </tool_call>"#;
    let served = ServedModel { calls: Some(CallFormat::Hermes), ..model("tiny", manifest("tiny", true)) };
    let worker = FakeWorker::serving(1, vec![served]).await;
    let site = Site::start(&[&worker]).await;
    let tools = json!({"tools": [{"type": "function", "function": {"name": "weather"}}], "stream": false});
    let answer = post(&site, "/api/chat", with(chat(CALL), tools)).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let answer = answer.json();
    assert_eq!((&answer["message"]["content"], &answer["done_reason"]), (&json!(""), &json!("stop")));
    let call = &answer["message"]["tool_calls"][0];
    assert_eq!(call["function"], json!({"index": 0, "name": "weather", "arguments": {"place": "Rome"}}));
    assert_eq!(answer["surety"]["tool_calls"], "hermes");

    let generate = json!({"model": "tiny", "prompt": "{}", "format": {"type": "object"}, "stream": false});
    assert_eq!(post(&site, "/api/generate", generate).await.status, 200);
    let shown = site.post("/api/show", r#"{"model":"tiny"}"#).await.json();
    assert_eq!(shown["capabilities"], json!(["completion", "tools"]));
    let orders = worker.diary.orders.lock().expect("no panic");
    let Prompt::Chat { tools, .. } = &orders[0].1.prompt else { panic!("not a chat") };
    assert_eq!(tools[..], [r#"{"function":{"name":"weather"},"type":"function"}"#]);
    let grammar = orders[1].1.grammar.as_ref().expect("a grammar");
    assert_eq!(orders[1].0.sampling.grammar, Some(Request::grammar_digest(grammar)));
}

#[tokio::test(flavor = "multi_thread")]
async fn vectors_are_those_of_openai_s_route() {
    let worker = FakeWorker::start(1).await;
    let site = Site::start(&[&worker]).await;
    let body = json!({"model": "tiny", "input": ["abc", "abcdef"]});
    let expected = site.post("/v1/embeddings", &body.to_string()).await.json();
    let answer =
        post(&site, "/api/embed", with(body, json!({"model": "tiny:latest", "truncate": true}))).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let many = answer.json();
    assert_eq!((&many["model"], &many["prompt_eval_count"]), (&json!("tiny"), &json!(9)));
    assert!(many["total_duration"].as_u64() >= many["load_duration"].as_u64(), "{many}");
    for index in 0..2 {
        assert_eq!(many["embeddings"][index], expected["data"][index]["embedding"]);
    }
    assert_eq!(many["surety"]["workers"], json!([worker.key()]));
    let one = post(&site, "/api/embed", json!({"model": "tiny", "input": "abc"})).await.json();
    assert_eq!(one["embeddings"], json!([expected["data"][0]["embedding"]]));
    let older = post(&site, "/api/embeddings", json!({"model": "tiny", "prompt": "abc"})).await.json();
    assert_eq!(older["embedding"], expected["data"][0]["embedding"]);
    let cut =
        post(&site, "/api/embed", json!({"model": "tiny", "input": "abc", "dimensions": 8})).await.json();
    assert_eq!(cut["embeddings"][0].as_array().expect("numbers").len(), 8);
    // Of nothing there is nothing: clients ask so for a model to be loaded.
    let before = worker.diary.orders.lock().expect("no panic").len();
    for input in [json!({}), json!({"input": ""}), json!({"input": []})] {
        let none = post(&site, "/api/embed", with(json!({"model": "tiny"}), input)).await.json();
        assert_eq!(none, json!({"model": "tiny", "embeddings": []}));
    }
    let none = post(&site, "/api/embeddings", json!({"model": "tiny", "prompt": ""})).await.json();
    assert_eq!(none, json!({"embedding": []}));
    assert_eq!(worker.diary.orders.lock().expect("no panic").len(), before);
}

#[tokio::test(flavor = "multi_thread")]
async fn programs_need_not_declare_their_json_and_pages_of_browsers_must() {
    let worker = FakeWorker::start(1).await;
    let site = Site::start(&[&worker]).await;
    let body = json!({"model": "tiny", "stream": false, "messages": [{"role": "user", "content": "fine"}]})
        .to_string();
    for (headers, status) in [
        ("", 200),
        ("content-type: application/x-www-form-urlencoded\r\n", 200),
        ("content-encoding: gzip\r\n", 415),
        ("origin: https://elsewhere.example\r\n", 415),
        ("origin: null\r\ncontent-type: text/plain\r\n", 415),
        ("sec-fetch-site: cross-site\r\n", 415),
    ] {
        let text = format!(
            "POST /api/chat HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n{headers}content-length: {}\r\n\r\n{body}",
            body.len(),
        );
        let answer = request(site.address, &text).await;
        assert_eq!(answer.status, status, "{headers}: {}", answer.text());
    }
}
