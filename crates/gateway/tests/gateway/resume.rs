//! A reader that lost its stream asks for the rest of it, and gets the rest of the same answer.

use std::time::Duration;

use serde_json::{Value, json};
use surety_gateway::Gateway;
use surety_proof::{Expected, check_evidence};
use surety_types::Evidence;

use crate::{
    fake::FakeWorker,
    http::{Answer, Site, settings},
};

const PATH: &str = "/v1/chat/completions";

fn chat(script: &str) -> Value {
    json!({"model": "tiny", "stream": true, "messages": [{"role": "user", "content": script}]})
}

/// The text of a stream's events, whole or not.
fn text(answer: &Answer) -> String {
    let events = answer.events();
    let chunks = events.iter().filter(|event| *event != "[DONE]");
    let said = chunks.map(|event| serde_json::from_str::<Value>(event).expect("JSON"));
    said.filter_map(|chunk| chunk["choices"][0]["delta"]["content"].as_str().map(str::to_owned)).collect()
}

/// Reads a stream until a text and the id of an event behind it have come, and leaves. Returns what it said, and the id.
async fn read_until(site: &Site, body: &Value, said: &str) -> (String, String) {
    let mut wire = site.open(PATH, &body.to_string()).await;
    wire.until(said).await;
    // An id is there as soon as the beginning is kept.
    wire.until("id: req_").await;
    let so_far = wire.so_far();
    let last = so_far.event_ids().pop().expect("an id");
    let position: usize = last.rsplit(':').next().expect("a position").parse().expect("a number");
    (text(&so_far)[..position].to_owned(), last)
}

/// Waits until the stream is no longer sent to whoever left.
async fn until_idle(site: &Site) {
    site.until(|status| status["active_requests"] == 0).await;
}

async fn evidence(site: &Site, id: &str) -> Evidence {
    let kept = site.get(&format!("/v1/receipts/{id}")).await;
    assert_eq!(kept.status, 200, "{}", kept.text());
    let evidence = Evidence::parse(&kept.body).expect("evidence");
    check_evidence(&evidence, None, &Expected::default()).expect("it holds");
    evidence
}

/// The words before and behind where the worker falls silent, each with a pause: the beginning is kept meanwhile.
const SCRIPT: &str = "one two PAUSE three PAUSE four PAUSE PAUSE five SILENT-ONCE six s\u{e9}ven eight";

#[tokio::test(flavor = "multi_thread")]
async fn the_rest_of_a_stream_is_the_same_answer() {
    let worker = FakeWorker::start(1).await;
    let site = Site::with(&[&worker], |settings| {
        settings.limits.stall_timeout = Duration::from_secs(60);
        settings.limits.search_timeout = Duration::from_secs(10);
    })
    .await;
    site.until_ready(1).await;
    let body = chat(SCRIPT);
    let (before, last) = read_until(&site, &body, "five").await;
    let request = last.split(':').next().expect("a request").to_owned();
    until_idle(&site).await;

    let rest = site.go_on(PATH, &body.to_string(), &last).await;
    assert_eq!(rest.status, 200, "{}", rest.text());
    assert_eq!(rest.header("x-request-id"), Some(request.as_str()));
    assert_eq!(before + &text(&rest), "one two three four five six s\u{e9}ven eight");
    let note = rest.chunks().last().expect("an end")["surety"].clone();
    assert_eq!((&note["request_id"], &note["handovers"]), (&json!(request), &json!(1)));
    let evidence = evidence(&site, &request).await;
    let [begun, ended] = &evidence.answers[..] else { panic!("two orders") };
    // What was signed for before is not asked for again.
    assert!(!begun.output_ids.is_empty());
    assert_eq!(ended.resumed_ids, begun.output_ids);
    assert_eq!(format!("{}{}", begun.text, ended.text), "one two three four five six s\u{e9}ven eight");

    // It is not sent twice.
    let again = site.go_on(PATH, &body.to_string(), &last).await;
    assert_eq!((again.status, again.error()["code"].clone()), (404, json!("not_found")));
    assert!(again.text().contains("/v1/receipts/"), "{}", again.text());
}

/// The gateway is not there any more; another begins in its directory, and knows what is needed.
#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_that_begins_anew_goes_on_with_streams() {
    let worker = FakeWorker::start(1).await;
    let site = Site::with(&[&worker], |settings| {
        settings.limits.stall_timeout = Duration::from_secs(60);
        settings.limits.stop_grace = Duration::from_millis(1);
    })
    .await;
    site.until_ready(1).await;
    let body = chat(SCRIPT);
    let (before, last) = read_until(&site, &body, "five").await;
    let Site { gateway, directory, .. } = site;
    gateway.stop().await;

    let mut settings = settings(&directory);
    settings.workers = vec![worker.address];
    settings.limits.stall_timeout = Duration::from_secs(60);
    settings.limits.search_timeout = Duration::from_secs(10);
    let gateway = Gateway::start(settings).await.expect("a gateway");
    let site = Site { address: gateway.address(), gateway, directory };
    // It has not heard the worker yet: the stream waits.
    let rest = site.go_on(PATH, &body.to_string(), &last).await;
    assert_eq!(rest.status, 200, "{}", rest.text());
    assert_eq!(before + &text(&rest), "one two three four five six s\u{e9}ven eight");
    assert_eq!(evidence(&site, last.split(':').next().expect("a request")).await.answers.len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_same_request_goes_on() {
    let worker = FakeWorker::start(1).await;
    let site = Site::with(&[&worker], |settings| {
        settings.limits.stall_timeout = Duration::from_secs(60);
        settings.limits.search_timeout = Duration::from_millis(300);
    })
    .await;
    site.until_ready(1).await;
    let body = chat(SCRIPT);
    let (before, last) = read_until(&site, &body, "five").await;
    until_idle(&site).await;
    let check = async |body: Value, last: String, status: u16, says: &str| {
        let answer = site.go_on(PATH, &body.to_string(), &last).await;
        assert_eq!(answer.status, status, "{last}: {}", answer.text());
        assert!(answer.error()["message"].as_str().expect("a message").contains(says), "{}", answer.text());
    };
    let request = last.split(':').next().expect("a request").to_owned();
    check(body.clone(), "five".to_owned(), 400, "no event's id").await;
    check(body.clone(), format!("req_{:032x}:3", 7), 404, "Nothing is kept").await;
    check(chat("one two"), last.clone(), 400, "another request").await;
    let mut other = body.clone();
    other["seed"] = json!(5);
    check(other, last.clone(), 400, "another request").await;
    let mut other = body.clone();
    other["stream"] = json!(false);
    check(other, last.clone(), 400, "another request").await;
    // Whoever claims more than there is is told so at the end.
    let beyond = site.go_on(PATH, &body.to_string(), &format!("{request}:4000")).await;
    assert!(beyond.error_frame()["message"].as_str().expect("a message").contains("behind the end"));
    // All of that has changed nothing.
    let rest = site.go_on(PATH, &body.to_string(), &last).await;
    assert_eq!(before + &text(&rest), "one two three four five six s\u{e9}ven eight");
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_of_more_than_text_carry_no_ids() {
    let worker = FakeWorker::start(1).await;
    let site = Site::start(&[&worker]).await;
    for (name, value) in [("n", json!(2)), ("logprobs", json!(true))] {
        let mut body = chat("one PAUSE two PAUSE three");
        body[name] = value;
        let answer = site.chat(body).await;
        assert_eq!((answer.status, answer.event_ids()), (200, vec![]), "{name}");
    }
}
