//! Responses: asked for, streamed, left and found again, cancelled, deleted, gone on from.

use std::{collections::BTreeSet, time::Duration};

use serde_json::{Value, json};
use surety_gateway::{Gateway, GatewaySettings};
use surety_proof::{Expected, check_evidence};
use surety_types::{Evidence, Prompt};

use crate::{
    fake::FakeWorker,
    http::{Answer, Site, request, settings},
};

const PATH: &str = "/v1/responses";
const PATIENCE: Duration = Duration::from_secs(20);

fn body(script: &str, members: Value) -> Value {
    let mut body = json!({"model": "tiny", "input": script});
    for (name, value) in members.as_object().expect("an object") {
        body[name] = value.clone();
    }
    body
}

async fn post(site: &Site, script: &str, members: Value) -> Answer {
    site.post(PATH, &body(script, members).to_string()).await
}

async fn call(site: &Site, method: &str, path: &str) -> Answer {
    let text = format!(
        "{method} {path} HTTP/1.1\r\nhost: localhost\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
    );
    request(site.address, &text).await
}

/// The events of a stream, whose numbers have no gap.
pub fn events(answer: &Answer) -> Vec<Value> {
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(answer.header("content-type"), Some("text/event-stream; charset=utf-8"));
    let events: Vec<Value> =
        answer.events().iter().map(|event| serde_json::from_str(event).expect("JSON")).collect();
    let number = |event: &Value| event["sequence_number"].as_u64().expect("a number");
    assert!(events.windows(2).all(|pair| number(&pair[0]) + 1 == number(&pair[1])), "{}", answer.text());
    events
}

pub fn text(events: &[Value]) -> String {
    events.iter().filter_map(|event| event["delta"].as_str()).collect()
}

pub fn id(response: &Value) -> String {
    response["id"].as_str().expect("an id").to_owned()
}

/// Waits until a response is as wanted.
pub async fn until(site: &Site, id: &str, wanted: impl Fn(&Value) -> bool) -> Value {
    let reached = async {
        loop {
            let answer = site.get(&format!("{PATH}/{id}")).await;
            assert_eq!(answer.status, 200, "{}", answer.text());
            let response = answer.json();
            if wanted(&response) {
                return response;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(PATIENCE, reached).await.expect("it should get there")
}

pub fn said(response: &Value) -> &str {
    response["output"][0]["content"][0]["text"].as_str().unwrap_or("")
}

async fn stream(site: &Site, id: &str, starting_after: Option<u64>) -> Answer {
    let after = starting_after.map_or_else(String::new, |number| format!("&starting_after={number}"));
    site.get(&format!("{PATH}/{id}?stream=true{after}")).await
}

/// Reads a stream until a text has come, and leaves. Returns the events that came.
async fn read_until(site: &Site, body: &Value, said: &str) -> Vec<Value> {
    let mut wire = site.open(PATH, &body.to_string()).await;
    wire.until(said).await;
    whole_events(wire.so_far().text())
}

pub fn whole_events(text: &str) -> Vec<Value> {
    let whole = text.rsplit_once("\n\n").map_or("", |(whole, _)| whole);
    let data =
        whole.split("\n\n").filter_map(|event| event.lines().find_map(|line| line.strip_prefix("data: ")));
    data.map(|data| serde_json::from_str(data).expect("JSON")).collect()
}

pub async fn patient(worker: &FakeWorker, change: impl FnOnce(&mut GatewaySettings)) -> Site {
    let site = Site::with(&[worker], |settings| {
        settings.limits.stall_timeout = Duration::from_secs(60);
        settings.limits.search_timeout = Duration::from_secs(10);
        change(settings);
    })
    .await;
    site.until_ready(1).await;
    site
}

#[tokio::test(flavor = "multi_thread")]
async fn a_response_is_given_and_kept() {
    let worker = FakeWorker::start(1).await;
    let site = Site::start(&[&worker]).await;
    let answer =
        post(&site, "Hello there world", json!({"instructions": "be brief", "metadata": {"a": "b"}})).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let response = answer.json();
    let request = answer.header("x-request-id").expect("an id").to_owned();
    assert_eq!(response["id"], format!("resp_{}", &request[4..]));
    assert_eq!((&response["object"], &response["status"]), (&json!("response"), &json!("completed")));
    assert_eq!(said(&response), "Hello there world");
    let usage = &response["usage"];
    assert_eq!(
        (&usage["input_tokens"], &usage["output_tokens"], &usage["total_tokens"]),
        (&json!(22), &json!(4), &json!(26))
    );
    assert_eq!(usage["input_tokens_details"], json!({"cached_tokens": 1, "cache_write_tokens": 0}));
    assert_eq!(response["surety"]["workers"], json!([worker.key()]));
    assert_eq!(answer.header("x-surety-workers"), Some(worker.key().as_str()));
    assert_eq!(answer.header("x-surety-verification"), Some("not-requested"));
    let kept = site.get(&format!("{PATH}/{}", id(&response))).await;
    assert_eq!(kept.json(), response);
    // The receipt is found by the response's id as well.
    let receipt = site.get(&format!("/v1/receipts/{}", id(&response))).await;
    let evidence = Evidence::parse(&receipt.body).expect("evidence");
    check_evidence(&evidence, None, &Expected::default()).expect("it holds");
    let (_, ordered) = worker.diary.orders.lock().expect("no panic")[0].clone();
    let Prompt::Chat { messages, .. } = ordered.prompt else { panic!("a chat") };
    let roles: Vec<(&str, &str)> =
        messages.iter().map(|message| (&*message.role, &*message.content)).collect();
    assert_eq!(roles, [("system", "be brief"), ("user", "Hello there world")]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_says_what_the_document_says() {
    let worker = FakeWorker::start(1).await;
    let site = Site::start(&[&worker]).await;
    let answer = post(&site, "Hello HOLD-BACK there wörld", json!({"stream": true})).await;
    let events = events(&answer);
    let kind = |event: &Value| event["type"].as_str().expect("a type").to_owned();
    assert_eq!(kind(&events[0]), "response.created");
    assert_eq!(
        (&events[0]["sequence_number"], &events[0]["response"]["status"]),
        (&json!(0), &json!("in_progress"))
    );
    assert_eq!(text(&events), "Hello there wörld");
    let last = events.last().expect("an end");
    assert_eq!(kind(last), "response.completed");
    assert!(!answer.text().contains("[DONE]"));
    assert_eq!(answer.header("x-surety-receipt"), last["response"]["surety"]["receipt"].as_str());
    let response = id(&last["response"]);
    assert_eq!(site.get(&format!("{PATH}/{response}")).await.json(), last["response"]);
    // Whoever comes later gets the same, from any number on.
    for number in 0..events.len() as u64 - 1 {
        assert_eq!(
            self::events(&stream(&site, &response, Some(number)).await),
            events[number as usize + 1..]
        );
    }
    assert_eq!(self::events(&stream(&site, &response, None).await), events);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_broke_off_is_gone_on_with_while_it_is_made() {
    let worker = FakeWorker::start(1).await;
    let site = patient(&worker, |_| {}).await;
    let script = "one two three HUSH four five six séven eight";
    let mut streams = Vec::new();
    // At the beginning, in the middle, at a number that is not there yet.
    for (said, after) in [("response.created", 0), ("ne t", 4), ("hree", 6), ("hree", 9)] {
        let seen = read_until(&site, &body(script, json!({"stream": true})), said).await;
        let response = id(&seen[0]["response"]);
        streams.push((response, after, seen));
    }
    let readers: Vec<_> = streams
        .iter()
        .map(|(response, after, _)| {
            let path = format!("GET {PATH}/{response}?stream=true&starting_after={after} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
            let address = site.address;
            tokio::spawn(async move { request(address, &path).await })
        })
        .collect();
    // Each is read by somebody again, and its worker is at the same place.
    tokio::time::sleep(Duration::from_millis(50)).await;
    for _ in 0..20 {
        worker.diary.speaks.notify_waiters();
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    for (reader, (response, after, seen)) in readers.into_iter().zip(streams) {
        let rest = events(&reader.await.expect("no panic"));
        let whole = events(&stream(&site, &response, None).await);
        assert_eq!(text(&whole), "one two three four five six séven eight");
        assert_eq!(seen[..], whole[..seen.len()]);
        assert_eq!(rest[..], whole[after as usize + 1..], "{after}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_response_in_the_background_needs_no_reader() {
    let worker = FakeWorker::start(1).await;
    let site = patient(&worker, |settings| settings.limits.reader_grace = Duration::ZERO).await;
    let answer = post(&site, "one HUSH two", json!({"background": true})).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let begun = answer.json();
    assert_eq!((&begun["background"], &begun["output"]), (&json!(true), &json!([])));
    assert!(["queued", "in_progress"].contains(&begun["status"].as_str().expect("a status")));
    let response = id(&begun);
    let part = until(&site, &response, |response| said(response) == "one ").await;
    assert_eq!((&part["status"], &part["usage"]), (&json!("in_progress"), &Value::Null));
    let speak = async {
        loop {
            worker.diary.speaks.notify_waiters();
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let whole = tokio::select! {
        whole = until(&site, &response, |response| response["status"] == "completed") => whole,
        () = speak => unreachable!("it speaks for ever"),
    };
    assert_eq!(said(&whole), "one two");
    let events = events(&stream(&site, &response, None).await);
    let kinds: Vec<&str> =
        events.iter().take(3).map(|event| event["type"].as_str().expect("a type")).collect();
    assert_eq!(kinds, ["response.created", "response.queued", "response.in_progress"]);
    // Streamed in the background, its reader may leave.
    let seen =
        read_until(&site, &body("one PAUSE PAUSE two", json!({"background": true, "stream": true})), "one")
            .await;
    let response = id(&seen[0]["response"]);
    let whole = until(&site, &response, |response| response["status"] == "completed").await;
    assert_eq!(said(&whole), "one two");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_response_is_cancelled_or_deleted_while_it_is_made() {
    let worker = FakeWorker::start(1).await;
    let site = patient(&worker, |_| {}).await;
    let begin = async || {
        let begun = post(&site, "one two three WAIT", json!({"background": true})).await.json();
        until(&site, &id(&begun), |response| said(response).starts_with("one two")).await;
        id(&begun)
    };
    let response = begin().await;
    let address = site.address;
    let path =
        format!("GET {PATH}/{response}?stream=true HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
    let reader = tokio::spawn(async move { request(address, &path).await });
    let cancelled = call(&site, "POST", &format!("{PATH}/{response}/cancel")).await;
    assert_eq!((cancelled.status, cancelled.json()["status"].clone()), (200, json!("cancelled")));
    worker.diary.until(&worker.diary.cancelled, 1).await;
    let seen = events(&reader.await.expect("no panic"));
    let last = seen.last().expect("an end");
    assert_eq!((&last["type"], &last["response"]), (&json!("response.incomplete"), &cancelled.json()));
    // Once more changes nothing, and it is kept so.
    assert_eq!(call(&site, "POST", &format!("{PATH}/{response}/cancel")).await.json(), cancelled.json());
    assert_eq!(site.get(&format!("{PATH}/{response}")).await.json(), cancelled.json());

    let response = begin().await;
    let deleted = call(&site, "DELETE", &format!("{PATH}/{response}")).await;
    assert_eq!(deleted.json(), json!({"id": response, "object": "response", "deleted": true}));
    worker.diary.until(&worker.diary.cancelled, 2).await;
    for answer in [
        site.get(&format!("{PATH}/{response}")).await,
        call(&site, "DELETE", &format!("{PATH}/{response}")).await,
        call(&site, "POST", &format!("{PATH}/{response}/cancel")).await,
        stream(&site, &response, None).await,
        site.get(&format!("{PATH}/{response}/input_items")).await,
    ] {
        assert_eq!((answer.status, answer.error()["code"].clone()), (404, json!("not_found")));
    }

    let whole = post(&site, "one", json!({})).await.json();
    let refused = call(&site, "POST", &format!("{PATH}/{}/cancel", id(&whole))).await;
    assert_eq!((refused.status, refused.error()["code"].clone()), (400, json!("invalid_param")));
    let path = format!("{PATH}/{}", id(&whole));
    assert_eq!(call(&site, "DELETE", &path).await.status, 200);
    assert_eq!(site.get(&path).await.status, 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_nobody_reads_ends_unless_its_reader_comes_back() {
    let worker = FakeWorker::start(1).await;
    let site = patient(&worker, |settings| settings.limits.reader_grace = Duration::from_millis(50)).await;
    let seen = read_until(&site, &body("one two three WAIT", json!({"stream": true})), "hree").await;
    worker.diary.until(&worker.diary.cancelled, 1).await;
    let kept = until(&site, &id(&seen[0]["response"]), |response| response["status"] == "cancelled").await;
    assert!(said(&kept).starts_with("one two"), "{kept}");
    // What is not stored ends at once, and nothing is kept of it.
    let body = body("one two three WAIT", json!({"stream": true, "store": false}));
    let seen = read_until(&site, &body, "hree").await;
    worker.diary.until(&worker.diary.cancelled, 2).await;
    assert_eq!(site.get(&format!("{PATH}/{}", id(&seen[0]["response"]))).await.status, 404);
    // As does one whose reader never learnt its id.
    let wire = site.open(PATH, &self::body("one WAIT", json!({})).to_string()).await;
    worker.diary.until(&worker.diary.accepted, 3).await;
    drop(wire);
    worker.diary.until(&worker.diary.cancelled, 3).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_stored_is_not_kept() {
    let worker = FakeWorker::start(1).await;
    let site = Site::start(&[&worker]).await;
    for stream in [false, true] {
        let answer = post(&site, "one two", json!({"store": false, "stream": stream})).await;
        let response =
            if stream { events(&answer).pop().expect("an end")["response"].clone() } else { answer.json() };
        assert_eq!((said(&response), &response["store"]), ("one two", &json!(false)));
        assert_eq!(site.get(&format!("{PATH}/{}", id(&response))).await.status, 404);
        let next = post(&site, "three", json!({"previous_response_id": id(&response)})).await;
        assert_eq!((next.status, next.error()["param"].clone()), (400, json!("previous_response_id")));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_conversation_goes_on_from_a_response() {
    let worker = FakeWorker::start(1).await;
    let site = Site::start(&[&worker]).await;
    let first = post(&site, "one two", json!({"instructions": "first"})).await.json();
    let previous = json!({"previous_response_id": id(&first), "instructions": "second"});
    let second = post(&site, "three", previous).await.json();
    assert_eq!(second["previous_response_id"], first["id"]);
    let items = json!([
        {"type": "item_reference", "id": first["output"][0]["id"]},
        {"role": "user", "content": [{"type": "input_text", "text": "fo"}, {"type": "input_text", "text": "ur"}]},
    ]);
    let third = json!({"model": "tiny", "previous_response_id": id(&second), "input": items});
    let third = site.post(PATH, &third.to_string()).await;
    assert_eq!(third.status, 200, "{}", third.text());
    let ordered = worker.diary.orders.lock().expect("no panic").last().expect("an order").1.clone();
    let Prompt::Chat { messages, .. } = ordered.prompt else { panic!("a chat") };
    let said: Vec<(&str, &str)> =
        messages.iter().map(|message| (&*message.role, &*message.content)).collect();
    let conversation = [
        ("user", "one two"),
        ("assistant", "one two"),
        ("user", "three"),
        ("assistant", "three"),
        ("assistant", "one two"),
        ("user", "four"),
    ];
    assert_eq!(said, conversation);

    let path = format!("{PATH}/{}/input_items", id(&third.json()));
    let all = site.get(&format!("{path}?order=asc")).await.json();
    let found: Vec<(&str, String)> = all["data"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|item| {
            let parts = item["content"].as_array().expect("parts").iter();
            (
                item["role"].as_str().expect("a role"),
                parts.map(|part| part["text"].as_str().expect("a text")).collect(),
            )
        })
        .collect();
    assert_eq!(found, conversation.map(|(role, text)| (role, text.to_owned())));
    // Page by page, the same the other way round.
    let (mut pages, mut after) = (Vec::new(), String::new());
    loop {
        let page = site.get(&format!("{path}?limit=2{after}")).await.json();
        pages.extend(page["data"].as_array().expect("a list").clone());
        if page["has_more"] == false {
            break;
        }
        after = format!("&after={}", page["last_id"].as_str().expect("an id"));
    }
    pages.reverse();
    // One of them is there twice, under one id.
    assert_eq!(json!(pages), all["data"]);
    let ids: BTreeSet<String> = pages.iter().map(|item| item["id"].to_string()).collect();
    assert_eq!(ids.len(), 5);
    assert_eq!(call(&site, "DELETE", &format!("{PATH}/{}", id(&first))).await.status, 200);
    let broken = post(&site, "five", json!({"previous_response_id": id(&second)})).await;
    assert_eq!((broken.status, broken.error()["param"].clone()), (400, json!("previous_response_id")));
}

#[tokio::test(flavor = "multi_thread")]
async fn failures_and_short_answers_are_told_in_every_form() {
    let worker = FakeWorker::start(1).await;
    let site = Site::start(&[&worker]).await;
    let document = post(&site, "one FAIL", json!({})).await;
    assert_eq!((document.status, document.error()["code"].clone()), (502, json!("worker_bad_output")));

    let events = events(&post(&site, "one FAIL", json!({"stream": true})).await);
    let last = events.last().expect("an end");
    assert_eq!((&last["type"], &last["response"]["status"]), (&json!("response.failed"), &json!("failed")));
    let error = &last["response"]["error"];
    assert_eq!(
        (&error["code"], &error["surety_code"]),
        (&json!("server_error"), &json!("worker_bad_output"))
    );
    let request = last["response"]["id"].as_str().expect("an id").replace("resp_", "req_");
    assert!(error["message"].as_str().expect("a message").ends_with(&format!("id={request}")), "{error}");
    assert_eq!(site.get(&format!("{PATH}/{}", id(&last["response"]))).await.json(), last["response"]);
    let next = post(&site, "two", json!({"previous_response_id": id(&last["response"])})).await;
    assert_eq!(next.status, 400);

    for script in ["one FAIL", "REFUSE-BAD"] {
        let begun = post(&site, script, json!({"background": true})).await.json();
        let failed = until(&site, &id(&begun), |response| response["status"] == "failed").await;
        assert!(
            failed["error"]["message"].as_str().is_some_and(|message| message.contains("id=req_")),
            "{failed}"
        );
        let seen = self::events(&stream(&site, &id(&begun), None).await);
        assert_eq!(seen.last().expect("an end")["type"], "response.failed");
    }

    let short = post(&site, "one two three", json!({"max_output_tokens": 2})).await.json();
    assert_eq!(
        (&short["status"], &short["incomplete_details"]),
        (&json!("incomplete"), &json!({"reason": "max_output_tokens"}))
    );
    assert_eq!((said(&short), &short["output"][0]["status"]), ("one two ", &json!("incomplete")));
}

/// Words before and behind where the worker falls silent, each with a pause: the beginning is kept meanwhile.
pub const SCRIPT: &str = "one two PAUSE three PAUSE four PAUSE PAUSE five SILENT-ONCE six séven eight";
pub const SAID: &str = "one two three four five six séven eight";

pub async fn again(directory: tempfile::TempDir, worker: Option<&FakeWorker>) -> Site {
    let mut settings = settings(&directory);
    settings.workers = worker.iter().map(|worker| worker.address).collect();
    settings.limits.stall_timeout = Duration::from_secs(60);
    settings.limits.search_timeout = Duration::from_secs(if worker.is_some() { 10 } else { 0 });
    settings.limits.search_timeout += Duration::from_millis(100);
    let gateway = Gateway::start(settings).await.expect("a gateway");
    Site { address: gateway.address(), gateway, directory }
}

/// What a gateway leaves behind that is killed now.
pub fn copied(site: &Site) -> tempfile::TempDir {
    let copy = tempfile::tempdir().expect("a directory");
    for entry in std::fs::read_dir(site.directory.path()).expect("a directory") {
        let entry = entry.expect("an entry");
        if entry.file_type().expect("a type").is_file() {
            std::fs::copy(entry.path(), copy.path().join(entry.file_name())).expect("copied");
        }
    }
    copy
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_that_begins_anew_goes_on_with_responses() {
    let worker = FakeWorker::start(1).await;
    let site = patient(&worker, |settings| settings.limits.stop_grace = Duration::from_millis(1)).await;
    let whole = post(&site, "one two", json!({})).await.json();
    let quiet = post(&site, SCRIPT, json!({"background": true})).await.json();
    let mut wire = site.open(PATH, &body(SCRIPT, json!({"stream": true})).to_string()).await;
    wire.until("r fi").await;
    let Site { gateway, directory, .. } = site;
    gateway.stop().await;
    // Its reader is told how to get the rest.
    let told = wire.rest().await;
    let mut seen = events(&told);
    let last = seen.pop().expect("an end");
    assert_eq!((&last["type"], &last["code"]), (&json!("error"), &json!("gateway_stopping")));
    assert!(last["message"].as_str().expect("a message").contains("starting_after"));
    let after = seen.last().expect("events")["sequence_number"].as_u64().expect("a number");
    let response = id(&seen[0]["response"]);

    let site = again(directory, Some(&worker)).await;
    let rest = events(&stream(&site, &response, Some(after)).await);
    assert_eq!(text(&seen) + &text(&rest), SAID);
    assert_eq!(events(&stream(&site, &response, None).await), [seen, rest].concat());
    let quiet = until(&site, &id(&quiet), |response| response["status"] == "completed").await;
    assert_eq!(said(&quiet), SAID);
    assert_eq!(site.get(&format!("{PATH}/{}", id(&whole))).await.json(), whole);
    // It was not asked again for what was signed for, and there is one receipt for all of it.
    let kept = site.get(&format!("/v1/receipts/{response}")).await;
    let evidence = Evidence::parse(&kept.body).expect("evidence");
    check_evidence(&evidence, None, &Expected::default()).expect("it holds");
    assert_eq!(evidence.answers.len(), 2);
    assert_eq!(evidence.answers[1].resumed_ids, evidence.answers[0].output_ids);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_gateway_s_responses_go_on_or_fail() {
    let worker = FakeWorker::start(1).await;
    let site = patient(&worker, |_| {}).await;
    let begun = post(&site, SCRIPT, json!({"background": true})).await.json();
    let response = id(&begun);
    until(&site, &response, |response| said(response).starts_with("one two three four f")).await;
    // Nothing is written any more: what is on the disk is what a gateway killed now leaves behind.
    tokio::time::sleep(Duration::from_millis(500)).await;
    let copy = |streams: bool| {
        let copy = copied(&site);
        if !streams {
            std::fs::remove_file(copy.path().join("streams.redb")).expect("removed");
        }
        copy
    };
    let resumed = again(copy(true), Some(&worker)).await;
    let whole = until(&resumed, &response, |response| response["status"] == "completed").await;
    assert_eq!(
        (said(&whole), &whole["id"], &whole["created_at"]),
        (SAID, &begun["id"], &begun["created_at"])
    );
    // Without what was signed for all of it is asked again, with the same seed; this worker falls silent again.
    let anew = again(copy(false), Some(&worker)).await;
    until(&anew, &response, |response| said(response).starts_with("one two three four f")).await;
    let orders = worker.diary.orders.lock().expect("no panic").clone();
    let [first, second, third] = &orders[..] else { panic!("three orders") };
    assert_eq!([&first.0.nonce, &first.0.nonce], [&second.0.nonce, &third.0.nonce]);
    assert_eq!([first, second, third].map(|(order, _)| order.resumed_tokens() > 0), [false, true, false]);
    // Where no worker is there any more, it ends.
    let site = again(copy(true), None).await;
    let failed = until(&site, &response, |response| {
        response["status"] != "queued" && response["status"] != "in_progress"
    })
    .await;
    let why = &failed["error"];
    assert_eq!((&failed["status"], &why["surety_code"]), (&json!("failed"), &json!("no_worker")), "{failed}");
    // Whoever had read more than is there now hears of it behind that.
    let seen = events(&stream(&site, &response, Some(9)).await);
    let [last] = &seen[..] else { panic!("one event") };
    assert_eq!((&last["type"], &last["sequence_number"]), (&json!("response.failed"), &json!(10)));
}
