//! Clients that leave, clients that read slowly, gateways that stop.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::io::AsyncReadExt;

use crate::{fake::FakeWorker, http::Site};

const CHAT: &str = "/v1/chat/completions";

fn chat(text: &str, stream: bool) -> String {
    json!({"model": "tiny", "stream": stream, "messages": [{"role": "user", "content": text}]}).to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn leaving_before_the_first_token_cancels_the_work() {
    let worker = FakeWorker::start(1).await;
    let site = Site::start(&[&worker]).await;
    for (count, stream) in [(1, true), (2, false)] {
        let wire = site.open(CHAT, &chat("WAIT", stream)).await;
        worker.diary.until(&worker.diary.accepted, count).await;
        let left = Instant::now();
        drop(wire);
        worker.diary.until(&worker.diary.cancelled, count).await;
        assert!(left.elapsed() < Duration::from_secs(2), "at once");
    }
    site.until(|status| status["active_requests"] == 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn leaving_before_the_worker_accepts_cancels_too() {
    let worker = FakeWorker::start(1).await;
    let site = Site::start(&[&worker]).await;
    let wire = site.open(CHAT, &chat("SILENCE", true)).await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    drop(wire);
    worker.diary.until(&worker.diary.cancelled, 1).await;
    site.until(|status| status["active_requests"] == 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn leaving_in_mid_stream_cancels_every_choice() {
    let worker = FakeWorker::start(1).await;
    let site = Site::start(&[&worker]).await;
    let body = json!({"model": "tiny", "stream": true, "n": 4, "messages": [{"role": "user", "content": "one WAIT"}]});
    let mut wire = site.open(CHAT, &body.to_string()).await;
    wire.until("one").await;
    drop(wire);
    worker.diary.until(&worker.diary.cancelled, 4).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn comments_come_while_nothing_else_does() {
    let worker = FakeWorker::start(1).await;
    let site =
        Site::with(&[&worker], |settings| settings.limits.keep_alive = Duration::from_millis(60)).await;
    site.until_ready(1).await;
    let answer = site.open(CHAT, &chat("PAUSE one PAUSE two", true)).await.rest().await;
    let comments = answer.text().matches(": keep-alive\n\n").count();
    assert!((3..=12).contains(&comments), "{comments} in {}", answer.text());
    assert!(answer.chunks().len() > 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_of_single_bytes_blocks_nobody_and_gets_everything() {
    let worker = FakeWorker::start(1).await;
    let site = Site::start(&[&worker]).await;
    let mut slow = site.open(CHAT, &chat("FLOOD", true)).await;
    // It has hardly read anything when the worker is done.
    let mut byte = [0];
    for _ in 0..10 {
        slow.stream.read_exact(&mut byte).await.expect("a byte");
    }
    worker.diary.until(&worker.diary.finished, 1).await;
    let quick = chat("quick one", true);
    let others = (0..20).map(|_| site.open(CHAT, &quick));
    for other in futures::future::join_all(others).await {
        assert!(!other.rest().await.chunks().is_empty());
    }
    let mut rest = Vec::new();
    slow.stream.read_to_end(&mut rest).await.expect("the rest");
    let rest = String::from_utf8_lossy(&rest);
    assert!(rest.contains("data: [DONE]"));
    let words = rest.matches("0123456789abcdef").count();
    assert!(words >= 4000, "{words} tokens arrived");
}

#[tokio::test(flavor = "multi_thread")]
async fn many_at_once_are_each_answered_by_their_own() {
    let (first, second) = (FakeWorker::start(1).await, FakeWorker::start(2).await);
    let site = Site::start(&[&first, &second]).await;
    let answers = (0..100).map(|number| {
        let body =
            json!({"model": "tiny", "messages": [{"role": "user", "content": format!("number {number}")}]});
        site.chat(body)
    });
    for (number, answer) in futures::future::join_all(answers).await.into_iter().enumerate() {
        assert_eq!(answer.json()["choices"][0]["message"]["content"], format!("number {number}"));
    }
    let asked = |worker: &FakeWorker| worker.diary.orders.lock().expect("no panic").len();
    assert!(asked(&first) > 20 && asked(&second) > 20, "{} and {}", asked(&first), asked(&second));
}

#[tokio::test(flavor = "multi_thread")]
async fn stopping_lets_answers_end_and_tells_those_it_cuts() {
    let worker = FakeWorker::start(1).await;
    let site = Site::start(&[&worker]).await;
    let address = site.address;
    let mut short = site.open(CHAT, &chat("one PAUSE two", true)).await;
    let mut long = site.open(CHAT, &chat("one WAIT", true)).await;
    let whole = site.open(CHAT, &chat("one WAIT", false)).await;
    short.until("one").await;
    long.until("one").await;
    worker.diary.until(&worker.diary.accepted, 3).await;
    let Site { gateway, directory, .. } = site;
    let stopped = tokio::spawn(gateway.stop());
    let short = short.rest().await;
    assert!(short.chunks().len() > 2, "it had time to end");
    assert_eq!(long.rest().await.error_frame()["code"], "gateway_stopping");
    let whole = whole.rest().await;
    assert_eq!((whole.status, &whole.error()["code"]), (503, &json!("gateway_stopping")));
    stopped.await.expect("stopped");
    assert!(tokio::net::TcpStream::connect(address).await.is_err(), "nobody listens any more");

    // What was kept is there for the next gateway in the same directory.
    let mut settings = crate::http::settings(&directory);
    settings.data_dir = directory.path().to_owned();
    let gateway = surety_gateway::Gateway::start(settings).await.expect("a gateway");
    let path = short.header("x-surety-receipt").expect("a receipt");
    let head = format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
    let found = crate::http::request(gateway.address(), &head).await;
    assert_eq!(found.status, 200, "{}", found.text());
    let evidence: Value = found.json();
    assert_eq!(evidence["view"]["envelope"]["gateway"], gateway.key().to_string());
}
