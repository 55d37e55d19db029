//! Every error of the catalogue, triggered.

use std::time::Duration;

use proptest::{prelude::*, strategy::ValueTree, test_runner::TestRunner};
use serde_json::{Value, json};
use surety_gateway::{Gateway, GatewaySettings, StartError};
use surety_types::WorkerState;

use crate::{
    fake::{FakeWorker, manifest, model},
    http::{Answer, Site, request, settings},
};

fn chat(text: &str) -> Value {
    json!({"model": "tiny", "messages": [{"role": "user", "content": text}]})
}

fn check(answer: &Answer, status: u16, code: &str) -> Value {
    assert_eq!(answer.status, status, "{}", answer.text());
    let error = answer.error();
    assert_eq!(error["code"], code, "{error}");
    error
}

fn says(error: &Value, words: &str) {
    assert!(error["message"].as_str().expect("a message").contains(words), "{error} lacks {words}");
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_requests_are_told_what_is_bad() {
    let worker = FakeWorker::start(1).await;
    let site = Site::start(&[&worker]).await;
    let path = "/v1/chat/completions";

    let error = check(&site.post(path, "{\"model\": \"tiny\",\n oops}").await, 400, "invalid_json");
    says(&error, "line 2, column");
    assert_eq!(error["metadata"]["accountable"], "caller");
    let body = json!({"model": "tiny", "messages": [], "temperature": 3});
    let error = check(&site.chat(body).await, 400, "invalid_param");
    assert_eq!(error["param"], "temperature");
    let body = json!({"model": "tiny", "messages": [], "temprature": 1});
    let error = check(&site.chat(body).await, 400, "unknown_parameter");
    says(&error, "Did you mean `temperature`?");
    let body = json!({"model": "tiny", "messages": [], "tools": [{"type": "web_search"}]});
    check(&site.chat(body).await, 400, "unsupported_parameter");

    let mut body = chat("x");
    body["logit_bias"] = json!({"1000": 1});
    let error = check(&site.chat(body).await, 400, "invalid_param");
    says(&error, "knows tokens 0 to 999");
    let error =
        check(&site.complete(json!({"model": "tiny", "prompt": [5, 1000]})).await, 400, "invalid_param");
    says(&error, "token 1000 at index 1");

    let head = |kind: &str, length: usize| {
        format!(
            "POST {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n{kind}content-length: {length}\r\n\r\n"
        )
    };
    check(&request(site.address, &(head("", 2) + "{}")).await, 415, "unsupported_media_type");
    check(
        &request(site.address, &(head("content-type: text/plain\r\n", 2) + "{}")).await,
        415,
        "unsupported_media_type",
    );
}

/// Any JSON, with the names and words of real requests among it.
fn any_body() -> impl Strategy<Value = Value> {
    const NAMES: &[&str] = &[
        "model",
        "messages",
        "prompt",
        "role",
        "content",
        "n",
        "stop",
        "seed",
        "echo",
        "logprobs",
        "max_tokens",
    ];
    const WORDS: &[&str] = &["tiny", "user", "one two", "auto"];
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        (-2i64..20).prop_map(Value::from),
        any::<f64>().prop_map(|number| json!(number)),
        prop::sample::select(WORDS).prop_map(Value::from),
        ".{0,6}".prop_map(Value::from),
    ];
    let any = leaf.prop_recursive(3, 16, 4, |inner| {
        let name = prop_oneof![prop::sample::select(NAMES).prop_map(str::to_owned), ".{0,4}"];
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::hash_map(name, inner, 0..6)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    });
    let members = prop::collection::hash_map(prop::sample::select(NAMES), any.clone(), 0..4);
    let request = members.prop_map(|members| {
        let mut body =
            json!({"model": "tiny", "prompt": "one", "messages": [{"role": "user", "content": "one"}]});
        members.into_iter().for_each(|(name, value)| body[name] = value);
        body
    });
    prop_oneof![any, request]
}

#[tokio::test(flavor = "multi_thread")]
async fn no_json_is_the_gateway_s_fault() {
    let worker = FakeWorker::start(1).await;
    let site = Site::start(&[&worker]).await;
    let mut runner = TestRunner::deterministic();
    let strategy = any_body();
    for round in 0..150 {
        let mut body = strategy.new_tree(&mut runner).expect("a body").current();
        let path = if round % 2 == 0 { "/v1/chat/completions" } else { "/v1/completions" };
        if let Some(members) = body.as_object_mut() {
            members.remove(if round % 2 == 0 { "prompt" } else { "messages" });
        }
        let answer = site.post(path, &body.to_string()).await;
        assert!(answer.status < 500, "{body}: {}", answer.text());
        if answer.status != 200 {
            answer.error();
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_json_is_the_gateway_s_fault_in_other_protocols() {
    let worker = FakeWorker::start(1).await;
    let site = Site::start(&[&worker]).await;
    let mut runner = TestRunner::deterministic();
    let strategy = any_body();
    // Each with a member that is not of it, which would be refused before anything else.
    let paths = [
        ("/v1/messages", "prompt"),
        ("/v1/messages/count_tokens", "prompt"),
        ("/api/chat", "prompt"),
        ("/api/generate", "messages"),
        ("/api/show", "messages"),
    ];
    let mut answered = 0;
    for (path, other) in paths.iter().cycle().take(100) {
        let mut body = strategy.new_tree(&mut runner).expect("a body").current();
        if let Some(members) = body.as_object_mut() {
            members.remove(*other);
            if *path == "/v1/messages" {
                members.entry("max_tokens").or_insert(json!(9));
            }
        }
        let answer = site.post(path, &body.to_string()).await;
        assert!(answer.status < 500, "{path} {body}: {}", answer.text());
        match path.starts_with("/api") {
            _ if answer.status == 200 => answered += 1,
            true => assert!(answer.json()["error"].is_string(), "{}", answer.text()),
            false => assert_eq!(answer.json()["type"], "error", "{}", answer.text()),
        }
    }
    assert!(answered > 5, "only {answered} were answered");
}

#[tokio::test(flavor = "multi_thread")]
async fn utf8_is_required() {
    let worker = FakeWorker::start(1).await;
    let site = Site::start(&[&worker]).await;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let mut stream = tokio::net::TcpStream::connect(site.address).await.expect("a connection");
    let head = "POST /v1/completions HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-type: application/json\r\ncontent-length: 4\r\n\r\n";
    stream.write_all(head.as_bytes()).await.expect("sent");
    stream.write_all(b"{\"\xff\"").await.expect("sent");
    let mut text = String::new();
    stream.read_to_string(&mut text).await.expect("an answer");
    assert!(text.contains("invalid_utf8") && text.contains("byte 2"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn sizes_are_bounded_and_said() {
    let worker = FakeWorker::start(1).await;
    let site = Site::start(&[&worker]).await;
    let path = "/v1/chat/completions";
    // 10 MB of prompt are more than is carried to a worker.
    let error = check(&site.chat(chat(&"x".repeat(10_000_000))).await, 413, "payload_too_large");
    says(&error, "10000000 bytes");
    // 17 MiB of anything are more than is read; with the length told, or not.
    let error = check(&site.chat(chat(&"x".repeat(17 << 20))).await, 413, "payload_too_large");
    says(&error, "16777216");
    let piece = "x".repeat(1 << 20);
    let mut chunked = format!(
        "POST {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n"
    );
    for _ in 0..18 {
        chunked.push_str(&format!("{:x}\r\n{piece}\r\n", piece.len()));
    }
    chunked.push_str("0\r\n\r\n");
    check(&request(site.address, &chunked).await, 413, "payload_too_large");
    // 5 KB are more than this model's context.
    let error = check(&site.chat(chat(&"x".repeat(5000))).await, 400, "context_length_exceeded");
    says(&error, "4096");
    assert!(error["metadata"]["evidence"].is_string(), "the refusal is signed");
    assert_eq!(error["param"], "messages", "what a worker refuses is named");
    let error = check(&site.chat(json!({"model": "tiny", "stream": true, "messages": [{"role": "user", "content": "x".repeat(5000)}]})).await, 400, "context_length_exceeded");
    assert_eq!(error["metadata"]["worker"], worker.key());
}

#[tokio::test(flavor = "multi_thread")]
async fn deep_nesting_is_only_bad_json() {
    let worker = FakeWorker::start(1).await;
    let site = Site::start(&[&worker]).await;
    let deep = format!("{{\"model\":\"tiny\",\"messages\":{}{}}}", "[".repeat(100_000), "]".repeat(100_000));
    check(&site.post("/v1/chat/completions", &deep).await, 400, "invalid_param");
    let open = "{\"a\":".repeat(100_000);
    check(&site.post("/v1/chat/completions", &open).await, 400, "invalid_json");
}

#[tokio::test(flavor = "multi_thread")]
async fn models_that_are_not_there_are_suggested() {
    let worker = FakeWorker::start(1).await;
    let site = Site::start(&[&worker]).await;
    for (name, words) in [
        ("tinny", "Did you mean \"tiny\"?"),
        ("gpt-5", "There are: tiny"),
        ("tinny@00000000", "Did you mean"),
    ] {
        let mut body = chat("x");
        body["model"] = json!(name);
        let error = check(&site.chat(body).await, 404, "model_unknown");
        says(&error, words);
        assert_eq!(error["param"], "model");
    }
    let mut body = chat("x");
    body["model"] = json!("tiny@00000000");
    says(&check(&site.chat(body.clone()).await, 404, "model_unknown"), "stands for blake3:");
    body["model"] = json!("tiny@00");
    check(&site.chat(body).await, 400, "invalid_param");
    check(&site.get("/v1/models/nope").await, 404, "model_unknown");
    check(&site.get("/v1/models/a/b/c%20d").await, 404, "model_unknown");
    check(&site.get("/v1/models/%ff").await, 404, "not_found");
}

#[tokio::test(flavor = "multi_thread")]
async fn two_models_of_one_name_are_not_mixed() {
    let first = FakeWorker::serving(1, vec![model("tiny", manifest("one", true))]).await;
    let second = FakeWorker::serving(2, vec![model("tiny", manifest("two", true))]).await;
    let site = Site::start(&[&first, &second]).await;
    let error = check(&site.chat(chat("x")).await, 400, "invalid_param");
    says(&error, "different models");
    let id = manifest("two", true).id();
    let mut body = chat("x");
    body["model"] = json!(format!("tiny@{}", &id.0.to_string()[..8]));
    assert_eq!(site.chat(body).await.header("x-surety-workers"), Some(second.key().as_str()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_model_without_a_template_does_not_chat() {
    let worker = FakeWorker::serving(1, vec![model("tiny", manifest("plain", false))]).await;
    let site = Site::start(&[&worker]).await;
    says(&check(&site.chat(chat("x")).await, 400, "invalid_param"), "/v1/completions");
    assert_eq!(site.complete(json!({"model": "tiny", "prompt": "x"})).await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_ready_is_said_and_passes() {
    let worker = FakeWorker::start(1).await;
    worker.set(|status| status.state = WorkerState::Starting);
    let site = Site::with(&[&worker], |_| {}).await;
    let ready = site.get("/ready").await;
    check(&ready, 503, "no_worker");
    assert_eq!(ready.header("retry-after"), Some("2"));
    site.until(|status| status["workers"][0]["state"] == "starting").await;
    says(&check(&site.chat(chat("x")).await, 503, "no_worker"), "1 starting");
    worker.set(|status| status.state = WorkerState::Draining);
    site.until(|status| status["workers"][0]["state"] == "draining").await;
    says(&check(&site.chat(chat("x")).await, 503, "no_worker"), "1 draining");
    worker.set(|status| status.state = WorkerState::Ready);
    site.until_ready(1).await;
    assert_eq!(site.get("/ready").await.status, 200);
    let mut body = chat("x");
    body["surety"] = json!({"worker": "00000000"});
    check(&site.chat(body).await, 503, "no_worker");

    let empty = Site::with(&[], |_| {}).await;
    says(&check(&empty.chat(chat("x")).await, 503, "no_worker"), "no workers are configured");
}

#[tokio::test(flavor = "multi_thread")]
async fn refusals_have_a_status_also_for_streams() {
    let worker = FakeWorker::start(1).await;
    let site = Site::start(&[&worker]).await;
    for (script, status, code, retry) in [
        ("REFUSE-OVERLOADED", 503, "overloaded", true),
        ("REFUSE-MEMORY", 503, "overloaded", true),
        ("REFUSE-BAD", 400, "invalid_param", false),
        ("REFUSE-MODEL", 503, "no_worker", true),
        ("REFUSE-INTERNAL", 502, "worker_bad_output", true),
        ("BUSY", 503, "overloaded", true),
        ("BAD-ACCEPTANCE", 502, "verification_failed", true),
    ] {
        for stream in [false, true] {
            let mut body = chat(script);
            body["stream"] = json!(stream);
            let answer = site.chat(body).await;
            let error = check(&answer, status, code);
            assert_eq!(error["metadata"]["retryable"], retry, "{error}");
            assert_eq!(error["metadata"]["worker"], worker.key());
            if script.starts_with("REFUSE") {
                assert!(error["metadata"]["evidence"].is_string(), "{error}");
            }
            if code == "overloaded" {
                assert_eq!(answer.header("retry-after"), Some("1"));
            }
        }
        // None of it has harmed the worker's standing.
        assert_eq!(site.chat(chat("x")).await.status, 200);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn failures_in_mid_answer_end_the_stream_with_an_error() {
    for (script, status, code, accountable) in [
        ("one two BREAK", 502, "worker_lost", "worker"),
        ("one two END-EARLY", 502, "worker_lost", "worker"),
        ("one two STALL", 504, "worker_stalled", "worker"),
        ("one two GAP three", 502, "worker_bad_output", "worker"),
        ("one two LIE-TEXT", 502, "verification_failed", "worker"),
        ("one two LIE-PROGRESS", 502, "verification_failed", "worker"),
        ("one two FAIL", 502, "worker_bad_output", "worker"),
        ("one two LATE", 504, "deadline", "unknown"),
    ] {
        // One that breaks off again and again gets no more orders for a while: each case has its own.
        let (worker, mut body) = (FakeWorker::start(1).await, chat(script));
        let site = Site::start(&[&worker]).await;
        let error = check(&site.chat(body.clone()).await, status, code);
        assert_eq!(error["metadata"]["accountable"], accountable, "{error}");
        let site = Site::start(&[&worker]).await;
        body["stream"] = json!(true);
        let answer = site.chat(body).await;
        assert_eq!(answer.status, 200);
        let frame = answer.error_frame();
        assert_eq!(frame["code"], code, "{frame}");
        assert_eq!(frame["metadata"]["worker"], worker.key());
        assert!(answer.text().contains("one"), "what came before is there");
        let id = answer.header("x-request-id").expect("an id");
        check(&site.get(&format!("/v1/receipts/{id}")).await, 404, "not_found");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_leaves_is_named() {
    let worker = FakeWorker::start(1).await;
    let site = Site::start(&[&worker]).await;
    let mut body = chat("one two LEAVE");
    body["stream"] = json!(true);
    let answer = site.chat(body).await;
    let frame = answer.error_frame();
    assert_eq!(frame["code"], "worker_lost");
    says(&frame, &worker.key()[..8]);
    assert!(!answer.text().contains("finish_reason\":\"stop"));
    site.until(|status| status["workers"][0]["state"] == "unreachable").await;
    check(&site.chat(chat("x")).await, 503, "no_worker");
}

#[tokio::test(flavor = "multi_thread")]
async fn another_worker_takes_what_the_first_declines() {
    let (first, second) = (FakeWorker::start(1).await, FakeWorker::start(2).await);
    let site = Site::start(&[&first, &second]).await;
    // Both refuse, so both were asked.
    check(&site.chat(chat("REFUSE-OVERLOADED")).await, 503, "overloaded");
    assert_eq!(first.diary.orders.lock().expect("no panic").len(), 1);
    assert_eq!(second.diary.orders.lock().expect("no panic").len(), 1);
    // What all would refuse is asked of one.
    check(&site.chat(chat("REFUSE-BAD")).await, 400, "invalid_param");
    let asked = first.diary.orders.lock().expect("no panic").len()
        + second.diary.orders.lock().expect("no panic").len();
    assert_eq!(asked, 3);
    // A worker that has just gone is passed over without the caller noticing.
    first.leave().await;
    for _ in 0..4 {
        let answer = site.chat(chat("x")).await;
        assert_eq!(answer.header("x-surety-workers"), Some(second.key().as_str()), "{}", answer.text());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_least_busy_worker_is_asked() {
    let (first, second) = (FakeWorker::start(1).await, FakeWorker::start(2).await);
    first.set(|status| status.waiting_requests = 9);
    let site = Site::start(&[&first, &second]).await;
    for _ in 0..3 {
        assert_eq!(site.chat(chat("x")).await.header("x-surety-workers"), Some(second.key().as_str()));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deadline_is_kept() {
    let worker = FakeWorker::start(1).await;
    let site = Site::start(&[&worker]).await;
    let mut body = chat("one WAIT");
    body["surety"] = json!({"deadline_ms": 1000});
    check(&site.chat(body.clone()).await, 504, "deadline");
    body["stream"] = json!(true);
    assert_eq!(site.chat(body).await.error_frame()["code"], "deadline");
    worker.diary.until(&worker.diary.cancelled, 2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_never_answers_is_given_up() {
    let worker = FakeWorker::start(1).await;
    let site =
        Site::with(&[&worker], |settings| settings.limits.stall_timeout = Duration::from_millis(300)).await;
    site.until_ready(1).await;
    let mut body = chat("SILENCE");
    body["stream"] = json!(true);
    let error = check(&site.chat(body).await, 504, "worker_stalled");
    assert_eq!(error["metadata"]["accountable"], "network", "nothing was promised yet");
}

#[tokio::test(flavor = "multi_thread")]
async fn too_many_at_once_are_told_so() {
    let worker = FakeWorker::start(1).await;
    let site = Site::with(&[&worker], |settings| settings.limits.requests_max = 1).await;
    site.until_ready(1).await;
    let mut body = chat("one WAIT");
    body["stream"] = json!(true);
    let mut wire = site.open("/v1/chat/completions", &body.to_string()).await;
    wire.until("one").await;
    let error = check(&site.chat(chat("x")).await, 503, "overloaded");
    assert_eq!(error["metadata"]["accountable"], "gateway");
    drop(wire);
    worker.diary.until(&worker.diary.cancelled, 1).await;
    assert_eq!(site.chat(chat("x")).await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn paths_and_methods_are_told() {
    let worker = FakeWorker::start(1).await;
    let site = Site::start(&[&worker]).await;
    says(
        &check(&site.get("/v1/chat/completion").await, 404, "not_found"),
        "Did you mean /v1/chat/completions?",
    );
    check(&site.get("/etc/passwd").await, 404, "not_found");
    check(&site.get("/v1/receipts/nonsense").await, 404, "not_found");
    says(
        &check(&site.get("/v1/receipts/req_00000000000000000000000000000000").await, 404, "not_found"),
        "Nothing is kept",
    );
    let get = site.get("/v1/chat/completions").await;
    check(&get, 405, "method_not_allowed");
    assert_eq!(get.header("allow"), Some("POST"));
    for method in ["OPTIONS", "DELETE", "PUT"] {
        let head =
            format!("{method} /v1/models/tiny HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
        let answer = request(site.address, &head).await;
        check(&answer, 405, "method_not_allowed");
        assert_eq!(answer.header("allow"), Some("GET,HEAD"));
        assert_eq!(answer.header("access-control-allow-origin"), None);
    }
    let head =
        request(site.address, "HEAD /v1/nothing HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")
            .await;
    assert_eq!((head.status, head.body.len()), (404, 0));
    assert!(head.header("x-request-id").is_some());
    let accept = "GET /v1/receipts/req_00000000000000000000000000000000 HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\naccept: text/html\r\n\r\n";
    check(&request(site.address, accept).await, 406, "not_acceptable");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_foreign_name_for_this_machine_is_refused() {
    let site = Site::with(&[], |_| {}).await;
    let head = "GET /v1/models HTTP/1.1\r\nhost: evil.example\r\nconnection: close\r\n\r\n";
    check(&request(site.address, head).await, 403, "host_not_allowed");
    let open = Site::with(&[], |settings| settings.open = true).await;
    assert_eq!(request(open.address, head).await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn slow_headers_and_bodies_are_given_up() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let site = Site::with(&[], |settings| {
        settings.limits.header_timeout = Duration::from_millis(200);
        settings.limits.body_timeout = Duration::from_millis(200);
    })
    .await;
    let mut stream = tokio::net::TcpStream::connect(site.address).await.expect("a connection");
    stream.write_all(b"GET /health HTTP/1.1\r\nhost:").await.expect("sent");
    let mut text = String::new();
    let read = tokio::time::timeout(Duration::from_secs(5), stream.read_to_string(&mut text)).await;
    read.expect("closed in time").expect("closed");
    assert!(!text.contains("200 OK"), "{text}");

    let body = "POST /v1/completions HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-type: application/json\r\ncontent-length: 10\r\n\r\n{";
    check(&request(site.address, body).await, 408, "request_timeout");
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_are_bounded() {
    let site = Site::with(&[], |settings| settings.limits.connections_max = 1).await;
    let held = tokio::net::TcpStream::connect(site.address).await.expect("a connection");
    tokio::time::sleep(Duration::from_millis(50)).await;
    let mut second = tokio::net::TcpStream::connect(site.address).await.expect("a connection");
    let mut text = String::new();
    tokio::io::AsyncReadExt::read_to_string(&mut second, &mut text).await.expect("an answer");
    assert!(text.starts_with("HTTP/1.1 503") && text.contains("overloaded"), "{text}");
    drop(held);
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(site.get("/health").await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_starts_are_explained() {
    let start =
        |settings: GatewaySettings| async { Gateway::start(settings).await.expect_err("it must not start") };
    let directory = tempfile::tempdir().expect("a directory");
    let site = Site::with(&[], |_| {}).await;

    let mut taken = settings(&directory);
    taken.listen = site.address;
    let error = start(taken).await;
    assert!(matches!(error, StartError::Listen { .. }) && error.hint().contains("another port"), "{error}");

    let mut open = settings(&directory);
    open.listen = "0.0.0.0:0".parse().expect("an address");
    let error = start(open).await;
    assert!(matches!(error, StartError::Settings(_)) && error.hint().contains("127.0.0.1"), "{error}");

    let mut shared = settings(&directory);
    shared.data_dir = site.directory.path().to_owned();
    let error = start(shared).await;
    assert!(matches!(error, StartError::Receipts(_)) && error.hint().contains("other gateway"), "{error}");

    let file = directory.path().join("file");
    std::fs::write(&file, "").expect("a file");
    let mut in_a_file = settings(&directory);
    in_a_file.data_dir = file.join("data");
    let error = start(in_a_file).await;
    assert!(
        matches!(error, StartError::DataDir { .. }) && error.hint().contains("data directory"),
        "{error}"
    );
}

#[test]
fn every_code_is_triggered_by_a_test() {
    const TESTS: [&str; 9] = [
        include_str!("errors.rs"),
        include_str!("hub.rs"),
        include_str!("keys.rs"),
        include_str!("ledger.rs"),
        include_str!("life.rs"),
        include_str!("once.rs"),
        include_str!("routes.rs"),
        include_str!("x402.rs"),
        include_str!("../../src/api/mod.rs"),
    ];
    for known in surety_gateway::catalogue::all() {
        let named = format!("\"{}\"", known.code);
        assert!(TESTS.iter().any(|test| test.contains(&named)), "no test triggers {}", known.code);
    }
}
