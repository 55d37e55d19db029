//! What anyone may see of the network, as pages look at it.

use std::time::Duration;

use serde_json::{Value, json};
use surety_gateway::KeyTerms;

use crate::{
    fake::FakeWorker,
    http::{Answer, Site},
    keys::key,
};

const CHAT: &str = "/v1/chat/completions";
const LIVE: &str = "/v1/network/live";
const SERVICE: &str = "/v1/network/service";

fn chat(text: &str) -> Value {
    json!({"model": "tiny", "messages": [{"role": "user", "content": text}]})
}

async fn shown(site: &Site, path: &str, wanted: impl Fn(&Value) -> bool) -> Value {
    for _ in 0..600 {
        let shown = site.get(path).await;
        assert_eq!(shown.status, 200, "{}", shown.text());
        if wanted(&shown.json()) {
            return shown.json();
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("{path} shows {}", site.get(path).await.text());
}

fn state<'a>(status: &'a Value, kind: &str) -> &'a str {
    let parts = status["components"].as_array().expect("parts");
    let part =
        parts.iter().find(|part| part["kind"] == kind).unwrap_or_else(|| panic!("no {kind} in {status}"));
    part["state"].as_str().expect("a state")
}

fn tag(answer: &Answer) -> String {
    answer.header("etag").expect("a tag").to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_network_is_shown_as_it_is_and_not_sent_again_where_nothing_changed() {
    let (first, second) = (FakeWorker::start(1).await, FakeWorker::start(2).await);
    let site = Site::start(&[&first, &second]).await;
    let live = shown(&site, LIVE, |live| live["models"][0]["surety"]["workers_ready"] == 2).await;
    assert_eq!(
        (&live["models"][0]["id"], live["workers"].as_array().map(Vec::len)),
        (&json!("tiny"), Some(2))
    );
    assert_eq!(live["gateway"], site.gateway.key().to_string());
    assert!(live["ledger"].is_null() && live["workers"][0]["last_seen_ms"].is_null());

    assert_eq!(site.chat(chat("one two three")).await.status, 200);
    let answers = |live: &Value| -> u64 {
        let spans = live["pulse"]["spans"].as_array().expect("spans");
        spans.iter().map(|span| span["answers"].as_u64().expect("a count")).sum()
    };
    let live = shown(&site, LIVE, |live| answers(live) == 1).await;
    let tokens =
        live["pulse"]["spans"].as_array().expect("spans").iter().map(|span| span["output_tokens"].as_u64());
    assert_eq!(tokens.map(Option::unwrap_or_default).sum::<u64>(), 4, "three words and the end");

    // Nothing happens: sooner or later it is what it was.
    let mut is_known = false;
    for _ in 0..100 {
        let seen = tag(&site.get(LIVE).await);
        tokio::time::sleep(Duration::from_millis(300)).await;
        let again = site.get_with(LIVE, &format!("if-none-match: {seen}\r\n")).await;
        if again.status == 304 {
            assert!(again.body.is_empty() && tag(&again) == seen);
            is_known = true;
            break;
        }
    }
    assert!(is_known);
    second.leave().await;
    shown(&site, LIVE, |live| live["workers"][1]["state"] == "unreachable").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_are_counted_by_what_became_of_them_and_none_is_named() {
    let worker = FakeWorker::start(1).await;
    let site = Site::start(&[&worker]).await;
    let fresh = shown(&site, SERVICE, |status| state(status, "routing") == "operational").await;
    assert_eq!((&fresh["since_ms"], &fresh["spans"][0]["answered"]), (&Value::Null, &json!(0)));
    assert_eq!((state(&fresh, "api"), state(&fresh, "settlement")), ("operational", "none"));
    assert_eq!(fresh["state"], "operational");

    for _ in 0..3 {
        assert_eq!(site.chat(chat("one two")).await.status, 200);
    }
    assert_eq!(site.chat(chat("one BREAK")).await.error()["code"], "worker_lost");
    let mut unknown = chat("one");
    unknown["model"] = json!("what only its caller knows");
    let unknown = site.chat(unknown).await;
    assert_eq!(unknown.error()["code"], "model_unknown");

    let status = shown(&site, SERVICE, |status| status["spans"][0]["failed"] == 1).await;
    for span in status["spans"].as_array().expect("spans") {
        assert_eq!((&span["answered"], &span["failed"], &span["refused"]), (&json!(3), &json!(1), &json!(1)));
        assert_eq!(span["failed_by"]["worker"], 1);
    }
    let [model] = &status["models"].as_array().expect("models")[..] else { panic!("one model in {status}") };
    assert_eq!((&model["model"], &model["spans"][0]["answered"]), (&json!("tiny"), &json!(3)));
    let [operator] = &status["operators"].as_array().expect("operators")[..] else {
        panic!("one in {status}")
    };
    assert_eq!((&operator["operator"], &operator["workers"]), (&Value::Null, &json!([worker.key()])));
    // Who broke it off may have been asked once more.
    let orders = &operator["spans"][0];
    assert!(orders["finished"] == 3 && orders["failed"].as_u64() >= Some(1), "{orders}");
    let [incident] = &status["incidents"].as_array().expect("incidents")[..] else {
        panic!("one in {status}")
    };
    assert_eq!((&incident["code"], &incident["model"]), (&json!("worker_lost"), &json!("tiny")));
    assert_eq!((&incident["is_over"], &incident["failed_by"]["worker"]), (&json!(false), &json!(1)));
    let told = status.to_string();
    let id = unknown.header("x-request-id").expect("an id").to_owned();
    assert!(!told.contains("only its caller") && !told.contains(&id) && !told.contains("req_"), "{told}");

    worker.leave().await;
    let down = shown(&site, SERVICE, |status| state(status, "routing") == "major_outage").await;
    assert_eq!((state(&down, "model"), &down["state"]), ("major_outage", &json!("major_outage")));

    // It is read from the journal, and so outlives the process.
    let Site { gateway, directory, .. } = site;
    gateway.stop().await;
    let site = crate::responses::again(directory, None).await;
    let later = shown(&site, SERVICE, |_| true).await;
    assert_eq!((&later["spans"][1]["answered"], &later["spans"][1]["failed"]), (&json!(3), &json!(1)));
    // Nobody serves the model now; that it was answered is known, and when.
    let parts = later["components"].as_array().expect("parts");
    let models: Vec<_> = parts.iter().filter(|part| part["kind"] == "model").collect();
    let [gone] = &models[..] else { panic!("one model in {later}") };
    assert_eq!((&gone["name"], &gone["state"]), (&json!("tiny"), &json!("major_outage")));
    assert_eq!(gone["since_ms"], later["models"][0]["answered_ms"]);
    assert!(gone["since_ms"].is_u64(), "{gone}");
}

#[tokio::test(flavor = "multi_thread")]
async fn everybody_sees_the_network_and_nobody_whose_requests_there_were() {
    let worker = FakeWorker::start(1).await;
    let site = Site::start(&[&worker]).await;
    site.until_ready(1).await;
    let mine = key(&site, KeyTerms::named("a-name-of-mine")).await;
    assert_eq!(site.post_with(CHAT, &mine, &chat("hi").to_string()).await.status, 200);
    let status = shown(&site, SERVICE, |status| status["spans"][0]["answered"] == 1).await;
    assert!(!status.to_string().contains("a-name-of-mine"));
    assert_eq!(site.get(LIVE).await.status, 200);
    assert_eq!(site.get("/v1/models").await.status, 401);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_sees_why_its_worker_is_chosen_or_not_and_its_latest_orders() {
    let (first, second) = (FakeWorker::start(1).await, FakeWorker::start(2).await);
    let site = Site::start(&[&first, &second]).await;
    let only = |worker: &FakeWorker, text: &str| {
        let mut body = chat(text);
        body["provider"] = json!({"only": [worker.key()]});
        body
    };
    for text in ["one two", "one", "one BREAK"] {
        site.chat(only(&first, text)).await;
    }
    site.chat(only(&second, "three")).await;
    let path = format!("/v1/network/operators/{}", first.key());
    let are_all = |told: &Value| told["jobs"].as_array().is_some_and(|jobs| jobs.len() >= 3);
    // The other has not failed.
    let told = shown(&site, &path, |told| are_all(told) && told["scores"][0]["rank"] == 2).await;
    let jobs = told["jobs"].as_array().expect("jobs");
    let ends: Vec<&str> = jobs.iter().map(|job| job["end"].as_str().expect("an end")).collect();
    assert!(ends[0] == "failed" && ends.ends_with(&["finished", "finished"]), "the last first: {ends:?}");
    assert!(jobs.iter().all(|job| job["model"] == "tiny" && job["minute_ms"].as_u64().is_some_and(|ms| ms % 60_000 == 0)));
    let [score] = &told["scores"].as_array().expect("scores")[..] else { panic!("one score in {told}") };
    assert_eq!(
        (&score["worker"], &score["of"], score["factors"].as_array().map(Vec::len)),
        (&json!(first.key()), &json!(2), Some(8))
    );
    assert!(!told.to_string().contains("req_"));

    let none = site.get(&format!("{path}/ledger")).await;
    assert_eq!((none.status, &none.error()["code"]), (404, &json!("no_ledger")));
    let unknown = site.get("/v1/network/operators/0x1234").await;
    assert_eq!((unknown.status, &unknown.error()["code"]), (404, &json!("not_found")));
}
