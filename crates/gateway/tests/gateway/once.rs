//! What is asked once is answered once: connections that break at any point, retries, and equal requests that are not one.

use std::time::Duration;

use serde_json::{Value, json};

use crate::{fake::FakeWorker, http::Site};

const CHAT: &str = "/v1/chat/completions";

fn chat(text: &str, stream: bool) -> String {
    json!({"model": "tiny", "stream": stream, "messages": [{"role": "user", "content": text}]}).to_string()
}

fn orders(worker: &FakeWorker) -> usize {
    worker.diary.orders.lock().expect("no panic").len()
}

/// Numbers that are the same every time.
fn numbers() -> impl FnMut(usize) -> usize {
    let mut state = 7u64;
    move |below| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize % below
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn five_hundred_broken_responses_are_made_once_each() {
    let worker = FakeWorker::start(1).await;
    let site = Site::start(&[&worker]).await;
    let mut number = numbers();
    for round in 0..50 {
        let stream = round % 2 == 0;
        let body = match round % 5 {
            0 => json!({"model": "tiny", "n": 2, "stream": stream,
                "messages": [{"role": "user", "content": "{choice} b c d"}]})
            .to_string(),
            _ => chat("one two three four five six", stream),
        };
        let before = orders(&worker);
        let name = format!("Idempotency-Key: round-{round}\r\n");
        for _ in 0..10 {
            site.drop_after(CHAT, &name, &body, number(2500)).await;
        }
        let answer = site.post_with(CHAT, &name, &body).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        let again = site.post_with(CHAT, &name, &body).await;
        assert_eq!(again.body, answer.body, "to the byte");
        assert_eq!(again.header("x-request-id"), answer.header("x-request-id"));
        if stream {
            assert!(!answer.chunks().is_empty());
        }
        let answers = if round % 5 == 0 { 2 } else { 1 };
        assert_eq!(orders(&worker) - before, answers, "round {round}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_library_that_retries_gets_what_it_lost() {
    let worker = FakeWorker::start(1).await;
    let site = Site::start(&[&worker]).await;
    let mut number = numbers();
    for round in 0..20 {
        let before = orders(&worker);
        // Each is another text, so that rounds have nothing to do with each other.
        let body = chat(&format!("round {round} one two three"), round % 2 == 0);
        for count in 0..4 {
            // At least a byte: who leaves before the gateway has read the request may be behind its own retry.
            let bytes = 1 + number(1500);
            let headers = format!("x-stainless-retry-count: {count}\r\n");
            site.drop_after(CHAT, &headers, &body, bytes).await;
        }
        let answer = site.post_with(CHAT, "x-stainless-retry-count: 4\r\n", &body).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        assert!(answer.text().contains("three"));
        assert_eq!(orders(&worker) - before, 1, "round {round}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn different_requests_are_never_one() {
    let worker = FakeWorker::start(1).await;
    let site = Site::start(&[&worker]).await;
    let body = chat("one PAUSE two", false);
    let id = |answer: &crate::http::Answer| answer.header("x-request-id").expect("an id").to_owned();

    // Equal, and sent for the first time each.
    let first = "x-stainless-retry-count: 0\r\n";
    let (a, b) = tokio::join!(site.post_with(CHAT, first, &body), site.post_with(CHAT, first, &body));
    assert_ne!(id(&a), id(&b));
    assert_eq!(orders(&worker), 2);
    // A retry cannot know which of the two it was, so it is none of them.
    let retry = site.post_with(CHAT, "x-stainless-retry-count: 1\r\n", &body).await;
    assert!(id(&retry) != id(&a) && id(&retry) != id(&b));
    assert_eq!(orders(&worker), 3);

    // Without a word about it.
    let (a, b) = (site.post(CHAT, &body).await, site.post(CHAT, &body).await);
    assert_ne!(id(&a), id(&b));

    // One name, two requests.
    let name = "Idempotency-Key: mine\r\n";
    let a = site.post_with(CHAT, name, &chat("one", false)).await;
    assert_eq!(a.status, 200);
    for (path, other) in [(CHAT, chat("two", false)), ("/v1/completions", chat("one", false))] {
        let answer = site.post_with(path, name, &other).await;
        let error = answer.error();
        assert_eq!((answer.status, &error["code"]), (409, &json!("idempotency_mismatch")), "{error}");
        assert_eq!(error["param"], "Idempotency-Key");
    }
    for wrong in ["Idempotency-Key: \r\n".to_owned(), format!("Idempotency-Key: {}\r\n", "x".repeat(300))] {
        assert_eq!(site.post_with(CHAT, &wrong, &body).await.error()["param"], "Idempotency-Key");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_that_were_lost_go_to_two_that_ask_again() {
    let worker = FakeWorker::start(1).await;
    let site = Site::start(&[&worker]).await;
    let body = chat("one PAUSE two", false);
    let first = "x-stainless-retry-count: 0\r\n";
    let lost = [site.open_with(CHAT, first, &body).await, site.open_with(CHAT, first, &body).await];
    worker.diary.until(&worker.diary.accepted, 2).await;
    drop(lost);
    let again = "x-stainless-retry-count: 1\r\n";
    let (a, b) = tokio::join!(site.post_with(CHAT, again, &body), site.post_with(CHAT, again, &body));
    assert_eq!((a.status, b.status), (200, 200));
    assert_ne!(a.header("x-request-id"), b.header("x-request-id"));
    assert_eq!(orders(&worker), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_failed_is_tried_again() {
    let worker = FakeWorker::start(1).await;
    let site = Site::start(&[&worker]).await;
    let name = "Idempotency-Key: once\r\n";
    for stream in [false, true] {
        let body = chat("one FAIL", stream);
        let name = name.replace("once", &format!("once-{stream}"));
        let before = orders(&worker);
        for count in 1..=2 {
            let answer = site.post_with(CHAT, &name, &body).await;
            let error: Value = if stream { answer.error_frame() } else { answer.error() };
            assert_eq!(error["code"], "worker_bad_output", "{error}");
            assert!(orders(&worker) - before >= count, "it was tried anew");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_is_asked_for_again_is_told_from_its_beginning_and_goes_on() {
    let worker = FakeWorker::start(1).await;
    let site = Site::start(&[&worker]).await;
    let body = chat("one two HUSH three", true);
    let name = "Idempotency-Key: live\r\n";
    site.drop_after(CHAT, name, &body, 600).await;
    let reading = site.post_with(CHAT, name, &body);
    let speaking = async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        loop {
            worker.diary.speaks.notify_waiters();
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let answer = tokio::select! {
        answer = reading => answer,
        () = speaking => unreachable!("it speaks for ever"),
    };
    let text: String = answer
        .chunks()
        .iter()
        .filter_map(|chunk| chunk["choices"][0]["delta"]["content"].as_str().map(str::to_owned))
        .collect();
    assert_eq!(text, "one two three");
}
