//! What is asked once is answered once: connections that break at any point, retries, and equal requests that are not one.

use std::time::Duration;

use serde_json::{Value, json};

use surety_types::Evidence;

use crate::{
    fake::FakeWorker,
    http::Site,
    responses::{SAID, SCRIPT, again, copied, events, id, patient, said, text, until, whole_events},
};

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

#[tokio::test(flavor = "multi_thread")]
async fn what_a_killed_gateway_answered_is_told_again_and_what_it_had_begun_goes_on() {
    let worker = FakeWorker::start(1).await;
    let site = patient(&worker, |_| {}).await;
    let mut whole = Vec::new();
    for stream in [false, true] {
        let (name, body) = (format!("Idempotency-Key: whole-{stream}\r\n"), chat("one two three", stream));
        let answer = site.post_with(CHAT, &name, &body).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        whole.push((name, body, answer));
    }
    // A library's request: nobody read the end of its answer.
    let counted = |count: usize| format!("x-stainless-retry-count: {count}\r\n");
    let lost = chat("one two", false);
    let answered = site.post_with(CHAT, &counted(0), &lost).await;
    let (name, body) = ("Idempotency-Key: under-way\r\n", chat(SCRIPT, false));
    let _wire = site.open_with(CHAT, name, &body).await;
    // Five words are signed for when the worker falls silent.
    tokio::time::sleep(Duration::from_secs(2)).await;
    let before = orders(&worker);
    let site = again(copied(&site), Some(&worker)).await;
    for (name, body, answer) in whole {
        let told = site.post_with(CHAT, &name, &body).await;
        assert_eq!((told.status, &told.body), (200, &answer.body), "to the byte");
        assert_eq!(told.header("x-request-id"), answer.header("x-request-id"));
        assert_eq!(told.header("content-type"), answer.header("content-type"));
        let other = site.post_with(CHAT, &name, &chat("other", false)).await;
        assert_eq!((other.status, &other.error()["code"]), (409, &json!("idempotency_mismatch")));
    }
    assert_eq!(site.post_with(CHAT, &counted(1), &lost).await.body, answered.body);
    assert_eq!(orders(&worker), before, "nothing is made again");
    let whole = site.post_with(CHAT, name, &body).await;
    assert_eq!(whole.json()["choices"][0]["message"]["content"], SAID, "{}", whole.text());
    assert_eq!(orders(&worker), before + 1);
    let id = whole.header("x-request-id").expect("an id").to_owned();
    let kept = site.get(&format!("/v1/receipts/{id}")).await;
    let evidence = Evidence::parse(&kept.body).expect("evidence");
    assert!(!evidence.answers[0].output_ids.is_empty(), "something was signed for before");
    assert_eq!(evidence.answers[1].resumed_ids, evidence.answers[0].output_ids);
    let again = site.post_with(CHAT, name, &body).await;
    assert_eq!((again.header("x-request-id"), again.body == whole.body), (Some(id.as_str()), true));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_charged_and_cannot_be_told_again_is_not_made_again() {
    let worker = FakeWorker::start(1).await;
    let site = patient(&worker, |_| {}).await;
    let (name, body) = ("Idempotency-Key: begun\r\n", chat(SCRIPT, false));
    let _wire = site.open_with(CHAT, name, &body).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    let begun = copied(&site);
    // The next gateway answers it to its end; then it is as if it had been killed before its response was kept.
    let site = again(begun, Some(&worker)).await;
    let early = copied(&site);
    let answer = site.post_with(CHAT, name, &body).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let late = copied(&site);
    std::fs::copy(early.path().join("repeats.redb"), late.path().join("repeats.redb")).expect("copied");
    let before = orders(&worker);
    let site = again(late, Some(&worker)).await;
    for _ in 0..2 {
        let refused = site.post_with(CHAT, name, &body).await;
        let error = refused.error();
        assert_eq!((refused.status, &error["code"]), (409, &json!("answered_before")), "{error}");
        let id = answer.header("x-request-id").expect("an id");
        assert!(
            error["message"].as_str().expect("a message").contains(&format!("/v1/receipts/{id}")),
            "{error}"
        );
        assert_eq!(refused.header("x-should-retry"), Some("false"));
    }
    assert_eq!(orders(&worker), before);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_response_that_the_next_gateway_made_by_itself_is_told_to_whoever_asks_again() {
    let worker = FakeWorker::start(1).await;
    let site = patient(&worker, |_| {}).await;
    let (path, name) = ("/v1/responses", "Idempotency-Key: response\r\n");
    let body = json!({"model": "tiny", "stream": true, "input": SCRIPT}).to_string();
    let mut wire = site.open_with(path, name, &body).await;
    wire.until("r fi").await;
    let response = id(&whole_events(wire.so_far().text())[0]["response"]);
    tokio::time::sleep(Duration::from_millis(500)).await;
    let site = again(copied(&site), Some(&worker)).await;
    let whole = until(&site, &response, |response| response["status"] == "completed").await;
    assert_eq!(said(&whole), SAID);
    let before = orders(&worker);
    for _ in 0..2 {
        let told = events(&site.post_with(path, name, &body).await);
        assert_eq!((id(&told[0]["response"]), text(&told)), (response.clone(), SAID.to_owned()));
    }
    assert_eq!(orders(&worker), before, "nothing is made again");
}
