//! Files and batches: every request has one outcome, found by its name; none is begun where a worker is busy, and none twice.

use std::{collections::BTreeMap, time::Duration};

use proptest::prelude::*;
use serde_json::{Value, json};
use surety_gateway::{Gateway, GatewaySettings};
use surety_types::Prompt;
use tokio::net::TcpStream;

use crate::{
    fake::FakeWorker,
    http::{Answer, Site, request, settings},
    memory::MemoryLedger,
    pays::{self, PRICE},
};

pub const CHAT: &str = "/v1/chat/completions";
pub const PATIENCE: Duration = Duration::from_secs(20);

pub fn form(parts: &[(&str, Option<&str>, &str)]) -> String {
    let part = |(name, file, text): &(&str, Option<&str>, &str)| {
        let file = file.map(|file| format!("; filename=\"{file}\"")).unwrap_or_default();
        format!("--edge\r\ncontent-disposition: form-data; name=\"{name}\"{file}\r\n\r\n{text}\r\n")
    };
    parts.iter().map(part).collect::<String>() + "--edge--\r\n"
}

async fn send(site: &Site, headers: &str, form: &str) -> Answer {
    let text = format!(
        "POST /v1/files HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n{headers}\
         content-type: multipart/form-data; boundary=edge\r\ncontent-length: {}\r\n\r\n{form}",
        form.len()
    );
    request(site.address, &text).await
}

async fn upload(site: &Site, text: &str) -> Value {
    let sent = send(site, "", &form(&[("purpose", None, "batch"), ("file", Some("in.jsonl"), text)])).await;
    assert_eq!(sent.status, 200, "{}", sent.text());
    sent.json()
}

pub fn line(name: &str, url: &str, body: &Value) -> String {
    json!({"custom_id": name, "method": "POST", "url": url, "body": body}).to_string() + "\n"
}

pub fn chat(script: &str) -> Value {
    json!({"model": "tiny", "messages": [{"role": "user", "content": script}]})
}

fn script(prompt: &Prompt) -> String {
    match prompt {
        Prompt::Chat { messages, .. } => messages[0].content.clone(),
        other => format!("{other:?}"),
    }
}

async fn create(site: &Site, file: &Value, endpoint: &str) -> Value {
    let body = json!({"input_file_id": file["id"], "endpoint": endpoint, "completion_window": "24h", "metadata": {"k": "v"}});
    let made = site.post("/v1/batches", &body.to_string()).await;
    assert_eq!(made.status, 200, "{}", made.text());
    made.json()
}

/// Waits until a batch is as wanted.
async fn until(site: &Site, batch: &Value, wanted: impl Fn(&Value) -> bool) -> Value {
    let path = format!("/v1/batches/{}", batch["id"].as_str().expect("an id"));
    let reached = async {
        loop {
            let batch = site.get(&path).await.json();
            if wanted(&batch) {
                return batch;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, reached).await.expect("the batch should get there")
}

async fn ended(site: &Site, batch: &Value) -> Value {
    until(site, batch, |batch| {
        !["in_progress", "cancelling"].contains(&batch["status"].as_str().expect("a status"))
    })
    .await
}

/// The lines of a file, in order, by their names.
async fn lines(site: &Site, id: &Value) -> Vec<(String, Value)> {
    let content = site.get(&format!("/v1/files/{}/content", id.as_str().expect("an id"))).await;
    assert_eq!(content.status, 200);
    let text = content.text();
    let lines = text.lines().map(|line| serde_json::from_str::<Value>(line).expect("JSON"));
    lines.map(|line| (line["custom_id"].as_str().expect("a name").to_owned(), line)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_request_has_its_outcome_and_its_receipt() {
    let worker = FakeWorker::start(1).await;
    let site = Site::start(&[&worker]).await;
    let mut bad = chat("never");
    bad["temperature"] = json!(9);
    let mut streaming = chat("never");
    streaming["stream"] = json!(true);
    let bodies = [
        ("a", chat("one two")),
        ("hot", bad),
        ("b", chat("three")),
        ("s", streaming),
        ("c", chat("REFUSE-BAD")),
    ];
    let text: String = bodies.iter().map(|(name, body)| line(name, CHAT, body)).collect();
    let file = upload(&site, &format!("{text}\n")).await;
    assert_eq!(
        (&file["object"], &file["purpose"], &file["filename"]),
        (&json!("file"), &json!("batch"), &json!("in.jsonl"))
    );
    assert_eq!(file["bytes"], text.len() + 1);
    let batch = create(&site, &file, CHAT).await;
    assert_eq!(batch["metadata"], json!({"k": "v"}));
    let batch = ended(&site, &batch).await;
    assert_eq!(batch["status"], "completed", "{batch}");
    assert_eq!(batch["request_counts"], json!({"total": 5, "completed": 2, "failed": 3}));

    let answers = lines(&site, &batch["output_file_id"]).await;
    let said = |line: &Value| line["response"]["body"]["choices"][0]["message"]["content"].clone();
    let found: Vec<(&str, Value)> = answers.iter().map(|(name, line)| (name.as_str(), said(line))).collect();
    assert_eq!(found, [("a", json!("one two")), ("b", json!("three"))]);
    for (_, line) in &answers {
        assert_eq!((&line["response"]["status_code"], &line["error"]), (&json!(200), &Value::Null));
        let id = line["response"]["request_id"].as_str().expect("an id");
        assert_eq!(site.get(&format!("/v1/receipts/{id}")).await.status, 200);
    }
    let failures: BTreeMap<String, Value> = lines(&site, &batch["error_file_id"]).await.into_iter().collect();
    let error = |name: &str| failures[name]["response"]["body"]["error"]["param"].clone();
    assert_eq!((error("hot"), error("s")), (json!("temperature"), json!("stream")));
    assert_eq!(failures["c"]["response"]["status_code"], 400);

    let files = site.get("/v1/files?order=asc").await.json();
    assert_eq!(files["data"].as_array().expect("a list").len(), 3);
    let outputs = site.get("/v1/files?purpose=batch_output&limit=1").await.json();
    assert_eq!((outputs["data"].as_array().expect("a list").len(), &outputs["has_more"]), (1, &json!(true)));
    assert_eq!(site.get("/v1/batches").await.json()["data"][0]["id"], batch["id"]);
    let id = file["id"].as_str().expect("an id");
    let delete = format!("DELETE /v1/files/{id} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
    let gone = request(site.address, &delete).await;
    assert_eq!(gone.json(), json!({"id": id, "object": "file", "deleted": true}));
    assert_eq!(request(site.address, &delete).await.status, 404);
    assert_eq!(site.get(&format!("/v1/files/{id}/content")).await.status, 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn vectors_and_completions_come_in_batches_too() {
    let worker = FakeWorker::start(1).await;
    let site = Site::start(&[&worker]).await;
    for (endpoint, body) in [
        ("/v1/embeddings", json!({"model": "tiny", "input": "abc"})),
        ("/v1/completions", json!({"model": "tiny", "prompt": "one two", "echo": true, "logprobs": 1})),
    ] {
        let file = upload(&site, &line("x", endpoint, &body)).await;
        let batch = ended(&site, &create(&site, &file, endpoint).await).await;
        let mut found = lines(&site, &batch["output_file_id"]).await.remove(0).1["response"]["body"].clone();
        let mut direct = site.post(endpoint, &body.to_string()).await.json();
        for answer in [&mut found, &mut direct] {
            for name in ["id", "created", "surety"] {
                answer.as_object_mut().expect("an object").remove(name);
            }
        }
        assert_eq!(found, direct, "{endpoint}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_at_fault_fails_its_batch_and_bad_wishes_are_refused() {
    let worker = FakeWorker::start(1).await;
    let site = Site::start(&[&worker]).await;
    let file = upload(&site, &(line("a", CHAT, &chat("x")) + "{}\n" + &line("a", CHAT, &chat("x")))).await;
    let batch = create(&site, &file, CHAT).await;
    assert_eq!(batch["status"], "failed");
    let faults: Vec<(&Value, &Value)> = batch["errors"]["data"]
        .as_array()
        .expect("faults")
        .iter()
        .map(|fault| (&fault["line"], &fault["code"]))
        .collect();
    assert_eq!(
        faults,
        [(&json!(2), &json!("invalid_json_line")), (&json!(3), &json!("duplicate_custom_id"))]
    );
    assert!(worker.diary.orders.lock().expect("no panic").is_empty());

    let refused = |answer: Answer| (answer.status, answer.json()["error"]["param"].clone());
    let file_part = ("file", Some("f"), "x");
    for (parts, expected) in [
        (vec![file_part], (400, json!("purpose"))),
        (vec![("purpose", None, "batch")], (400, json!("file"))),
        (vec![("purpose", None, "fine-tune"), file_part], (400, json!("purpose"))),
        (vec![("purpose", None, "batch"), file_part, file_part], (400, json!("file"))),
        (vec![("purpose", None, "batch"), ("colour", None, "red")], (400, json!("colour"))),
        (vec![("expires_after[seconds]", None, "3600"), file_part], (400, json!("expires_after"))),
    ] {
        assert_eq!(refused(send(&site, "", &form(&parts)).await), expected, "{parts:?}");
    }
    let whole = form(&[("purpose", None, "batch"), file_part]);
    assert_eq!(send(&site, "", &whole[..whole.len() - 12]).await.status, 400, "it breaks off");
    assert_eq!(send(&site, "origin: https://evil.example\r\n", &whole).await.status, 403);
    assert_eq!(site.post("/v1/files", "{}").await.status, 415);
    let body = json!({"input_file_id": "file-1", "endpoint": CHAT, "completion_window": "24h"});
    assert_eq!(refused(site.post("/v1/batches", &body.to_string()).await), (400, json!("input_file_id")));
    let mut forgetful = body;
    forgetful["output_expires_after"] = json!({"anchor": "created_at", "seconds": 3600});
    let answer = site.post("/v1/batches", &forgetful.to_string()).await;
    assert_eq!(answer.json()["error"]["code"], "unsupported_parameter");
    assert_eq!(refused(answer), (400, json!("output_expires_after")));
    for path in ["/v1/batches/batch_1", "/v1/files/file-..%2f..%2fetc", "/v1/files/file-1/content"] {
        assert_eq!(site.get(path).await.status, 404, "{path}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_begun_at_a_worker_that_is_busy() {
    let worker = FakeWorker::start(1).await;
    let site = Site::start(&[&worker]).await;
    worker.set(|status| status.active_requests = 1);
    site.until(|status| status["workers"][0]["active_requests"] == 1).await;
    let file = upload(&site, &line("a", CHAT, &chat("one"))).await;
    let batch = create(&site, &file, CHAT).await;
    tokio::time::sleep(Duration::from_millis(400)).await;
    assert!(worker.diary.orders.lock().expect("no panic").is_empty(), "busy by its own word");

    // Somebody's answer is under way here while the worker says that it has nothing to do.
    let wire = site.open(CHAT, &chat("WAIT").to_string()).await;
    worker.diary.until(&worker.diary.accepted, 1).await;
    worker.set(|status| status.active_requests = 0);
    site.until(|status| status["workers"][0]["active_requests"] == 0).await;
    tokio::time::sleep(Duration::from_millis(400)).await;
    assert_eq!(worker.diary.orders.lock().expect("no panic").len(), 1, "busy by ours");
    drop(wire);
    let batch = ended(&site, &batch).await;
    assert_eq!(batch["request_counts"]["completed"], 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_that_is_cancelled_begins_no_more() {
    let worker = FakeWorker::start(1).await;
    let site = Site::start(&[&worker]).await;
    worker.set(|status| status.active_requests = 1);
    site.until(|status| status["workers"][0]["active_requests"] == 1).await;
    let file = upload(&site, &(line("a", CHAT, &chat("one")) + &line("b", CHAT, &chat("two")))).await;
    let batch = create(&site, &file, CHAT).await;
    let id = batch["id"].as_str().expect("an id");
    let in_use = format!(
        "DELETE /v1/files/{} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n",
        file["id"].as_str().expect("an id")
    );
    assert_eq!(request(site.address, &in_use).await.status, 400, "it is being read");
    assert_eq!(site.post(&format!("/v1/batches/{id}/cancel"), "{}").await.json()["status"], "cancelling");
    let batch = ended(&site, &batch).await;
    assert_eq!((&batch["status"], &batch["output_file_id"]), (&json!("cancelled"), &Value::Null));
    assert_eq!(batch["request_counts"], json!({"total": 2, "completed": 0, "failed": 2}));
    let failures = lines(&site, &batch["error_file_id"]).await;
    assert!(failures.iter().all(|(_, line)| line["error"]["code"] == "batch_cancelled"));
    assert!(worker.diary.orders.lock().expect("no panic").is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_that_is_stopped_and_begins_again_does_nothing_twice() {
    begin_again(true).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_that_is_cut_off_and_begins_again_does_nothing_twice() {
    begin_again(false).await;
}

/// Ends a gateway in the middle of a batch, in order or not, and has another go on.
async fn begin_again(in_order: bool) {
    let worker = FakeWorker::start(1).await;
    let patient = |settings: &mut GatewaySettings| {
        settings.limits.stall_timeout = Duration::from_secs(60);
        settings.limits.search_timeout = Duration::from_secs(10);
    };
    let site = Site::with(&[&worker], patient).await;
    site.until_ready(1).await;
    let text: String = [("a", "one"), ("b", "two PAUSE three HUSH four"), ("c", "five")]
        .iter()
        .map(|(name, said)| line(name, CHAT, &chat(said)))
        .collect();
    let file = upload(&site, &text).await;
    let batch = create(&site, &file, CHAT).await;
    until(&site, &batch, |batch| batch["request_counts"]["completed"] == 2).await;
    let Site { gateway, directory, .. } = site;
    if in_order {
        gateway.stop().await;
    } else {
        drop(gateway);
    }

    let mut settings = settings(&directory);
    settings.workers = vec![worker.address];
    patient(&mut settings);
    let starting = async {
        loop {
            // What was cut off holds its files until its tasks are gone.
            match Gateway::start(settings.clone()).await {
                Ok(gateway) => return gateway,
                Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        }
    };
    let gateway = tokio::time::timeout(PATIENCE, starting).await.expect("it begins again");
    let site = Site { address: gateway.address(), gateway, directory };
    worker.diary.until(&worker.diary.accepted, 4).await;
    let speaking = async {
        loop {
            worker.diary.speaks.notify_waiters();
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let batch = tokio::select! {
        batch = ended(&site, &batch) => batch,
        () = speaking => unreachable!("it does not end"),
    };
    assert_eq!(batch["request_counts"], json!({"total": 3, "completed": 3, "failed": 0}), "{batch}");
    let said = |line: &Value| line["response"]["body"]["choices"][0]["message"]["content"].clone();
    let answers: Vec<(String, Value)> = lines(&site, &batch["output_file_id"])
        .await
        .iter()
        .map(|(name, line)| (name.clone(), said(line)))
        .collect();
    let expected = [("a", "one"), ("b", "two three four"), ("c", "five")];
    assert_eq!(answers, expected.map(|(name, said)| (name.to_owned(), json!(said))));
    let mut orders: BTreeMap<String, u32> = BTreeMap::new();
    for (_, request) in &*worker.diary.orders.lock().expect("no panic") {
        *orders.entry(script(&request.prompt)).or_default() += 1;
    }
    assert_eq!((orders["one"], orders["five"]), (1, 1), "what had its outcome is not ordered again");
    assert_eq!(orders["two PAUSE three HUSH four"], 2, "and what had not is ordered once more");
}

#[tokio::test(flavor = "multi_thread")]
async fn idle_workers_are_paid_their_batch_price_and_others_wait() {
    let half = PRICE.percent(50).expect("an amount");
    let (ledger, worker) = (MemoryLedger::new(), pays::asking(1).await);
    worker.set(|status| {
        (status.models[0].price, status.models[0].batch_price) = (PRICE, Some(half));
    });
    pays::register(&ledger, pays::OPERATOR, 1, &worker.address.location.to_string(), PRICE).await;
    let site = pays::site(&ledger).await;
    let status = site.get("/v1/network/status").await.json();
    assert_eq!(status["workers"][0]["models"][0]["batch_price"]["output"], "500000");

    let direct = site.chat(chat("one two")).await;
    let full: u128 = direct.header("x-surety-cost").expect("a cost").parse().expect("a number");
    let asked = chat("one two").to_string();
    for (path, price) in [("/v1/quote", "1000000"), ("/v1/quote?batch=true", "500000")] {
        let quote = site.post(path, &asked).await.json();
        assert_eq!(quote["workers"][0]["price_output"], price, "{path}");
    }

    // The worker refuses it more often than a failure would be tried again.
    let text = line("a", CHAT, &chat("one two")) + &line("b", CHAT, &chat("REFUSE-SIX-TIMES"));
    let file = upload(&site, &text).await;
    let batch = ended(&site, &create(&site, &file, CHAT).await).await;
    assert!(batch["error_file_id"].is_null(), "{:?}", lines(&site, &batch["error_file_id"]).await);
    assert_eq!(batch["request_counts"], json!({"total": 2, "completed": 2, "failed": 0}), "{batch}");
    let answers = lines(&site, &batch["output_file_id"]).await;
    let (_, answer) = answers.iter().find(|(name, _)| name == "a").expect("its line");
    let cost = &answer["response"]["body"]["surety"]["cost"];
    assert_eq!(cost, &json!(full.div_ceil(2).to_string()), "rounded up once");
    let id = answer["response"]["request_id"].as_str().expect("an id");
    let kept = site.get(&format!("/v1/receipts/{id}")).await.json();
    let part = &kept["view"]["answers"][0];
    assert_eq!(part["receipt"]["price"]["output"], "500000");
    assert_eq!(part["order"]["price_ceiling"]["output"], "500000", "it bids no more");
    let generation = site.get(&format!("/v1/generations/{id}")).await.json();
    assert_eq!((&generation["parts"][0]["price"]["output"], &generation["cost"]), (&json!("500000"), cost));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Whatever a form looks like, there is an answer, and never a failure of the gateway's.
    #[test]
    fn no_form_is_too_strange(bytes in "[ -~\r\n]{0,200}", at in 0usize..120) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        runtime.block_on(async {
            let site = Site::with(&[], |_| {}).await;
            let mut text = form(&[("purpose", None, "batch"), ("file", Some("f"), "x")]);
            let at = at.min(text.len());
            text.insert_str(at, &bytes);
            let answer = send(&site, "", &text).await;
            assert!(answer.status < 500, "{}", answer.text());
            TcpStream::connect(site.address).await.expect("it still listens");
        });
    }
}
