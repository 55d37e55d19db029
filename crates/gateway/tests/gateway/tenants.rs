//! What one key asked, sent or had made, another does not see; what is made later is charged to the key it was asked with.

use std::{collections::BTreeSet, time::Duration};

use serde_json::{Value, json};
use surety_gateway::{Gateway, GatewaySettings, KeyTerms, Micro};

use crate::{
    batches::{CHAT, PATIENCE, chat, form, line},
    fake::FakeWorker,
    http::{Answer, Site, request, settings},
    keys::{credits, key, number, paying},
    memory::MemoryLedger,
    pays::{self, charged},
};

/// The account that pays in these tests.
const PAYER: u64 = 2;
/// More than anything here costs.
const RICH: u128 = 1_000_000;

async fn rich(site: &Site, name: &str) -> String {
    key(site, KeyTerms { budget: Some(Micro(RICH)), ..KeyTerms::named(name) }).await
}

async fn send(site: &Site, key: &str, text: &str) -> Value {
    let form = form(&[("purpose", None, "batch"), ("file", Some("in.jsonl"), text)]);
    // Clients' libraries count their retries with every request, also with a form.
    let head = format!(
        "POST /v1/files HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n{key}x-stainless-retry-count: 0\r\n\
         content-type: multipart/form-data; boundary=edge\r\ncontent-length: {}\r\n\r\n",
        form.len()
    );
    let sent = request(site.address, &(head + &form)).await;
    assert_eq!(sent.status, 200, "{}", sent.text());
    assert!(!sent.text().contains("tenant"), "whose it is, is told to nobody: {}", sent.text());
    sent.json()
}

async fn try_batch(site: &Site, key: &str, file: &Value) -> Answer {
    let body = json!({"input_file_id": file["id"], "endpoint": CHAT, "completion_window": "24h"});
    site.post_with("/v1/batches", key, &body.to_string()).await
}

/// Has lines with these words answered.
async fn batch(site: &Site, key: &str, scripts: &[(&str, &str)]) -> Value {
    let text: String = scripts.iter().map(|(name, said)| line(name, CHAT, &chat(said))).collect();
    let made = try_batch(site, key, &send(site, key, &text).await).await;
    assert_eq!(made.status, 200, "{}", made.text());
    assert!(!made.text().contains("tenant"), "{}", made.text());
    made.json()
}

async fn until(site: &Site, key: &str, batch: &Value, wanted: impl Fn(&Value) -> bool) -> Value {
    let path = path("/v1/batches", batch);
    let reached = async {
        loop {
            let batch = site.get_with(&path, key).await.json();
            if wanted(&batch) {
                return batch;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, reached).await.expect("the batch should get there")
}

async fn ended(site: &Site, key: &str, batch: &Value) -> Value {
    until(site, key, batch, |batch| batch["status"] == "completed").await
}

fn path(under: &str, thing: &Value) -> String {
    format!("{under}/{}", thing["id"].as_str().expect("an id"))
}

/// What came of each line: by the file's id, the responses.
async fn responses(site: &Site, key: &str, file: &Value) -> Vec<Value> {
    let content = site.get_with(&format!("/v1/files/{}/content", file.as_str().expect("an id")), key).await;
    assert_eq!(content.status, 200, "{}", content.text());
    content
        .text()
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).expect("JSON")["response"].clone())
        .collect()
}

/// What the answers of an output file cost together, and their requests.
fn cost(answers: &[Value]) -> (u128, BTreeSet<String>) {
    let sum = answers.iter().map(|answer| number(&answer["body"]["surety"]["cost"])).sum();
    (sum, answers.iter().map(|answer| answer["request_id"].as_str().expect("an id").to_owned()).collect())
}

/// The key's usage is these requests, each once, and what they cost.
async fn check_charged(site: &Site, key: &str, cost: u128, requests: &BTreeSet<String>) {
    let usage = site.get_with("/v1/usage", key).await.json();
    let rows = usage["data"].as_array().expect("rows");
    let ids: BTreeSet<String> =
        rows.iter().map(|row| row["id"].as_str().expect("an id").to_owned()).collect();
    assert_eq!((&ids, rows.len()), (requests, requests.len()));
    assert_eq!(number(&usage["total"]["cost"]), cost);
    let report = credits(site, key).await;
    assert_eq!((number(&report["used"]), number(&report["reserved"])), (cost, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn files_and_batches_are_their_keys_and_lines_are_charged_to_it() {
    let (_ledger, worker, site) = paying().await;
    let (mine, other) = (rich(&site, "mine").await, rich(&site, "other").await);
    let begun = batch(&site, &mine, &[("a", "one"), ("b", "one two")]).await;
    let done = ended(&site, &mine, &begun).await;
    assert_eq!(done["request_counts"], json!({"total": 2, "completed": 2, "failed": 0}), "{done}");
    let (mine_cost, requests) = cost(&responses(&site, &mine, &done["output_file_id"]).await);
    assert!(mine_cost > 0);
    assert_eq!(mine_cost, charged(&worker));
    check_charged(&site, &mine, mine_cost, &requests).await;

    // The other sees nothing of it, and can do nothing to it.
    for list in ["/v1/files", "/v1/batches"] {
        assert_eq!(site.get_with(list, &other).await.json()["data"], json!([]), "{list}");
        assert_ne!(site.get_with(list, &mine).await.json()["data"], json!([]), "{list}");
    }
    let not_found =
        |answer: Answer| assert_eq!((answer.status, &answer.error()["code"]), (404, &json!("not_found")));
    for file in [&done["input_file_id"], &done["output_file_id"]] {
        let path = format!("/v1/files/{}", file.as_str().expect("an id"));
        not_found(site.get_with(&path, &other).await);
        not_found(site.get_with(&format!("{path}/content"), &other).await);
        let delete = format!("DELETE {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n{other}\r\n");
        not_found(request(site.address, &delete).await);
        assert_eq!(site.get_with(&path, &mine).await.status, 200);
    }
    not_found(site.get_with(&path("/v1/batches", &begun), &other).await);
    not_found(site.post_with(&format!("{}/cancel", path("/v1/batches", &begun)), &other, "{}").await);
    let refused = try_batch(&site, &other, &json!({"id": done["input_file_id"]})).await;
    assert_eq!((refused.status, &refused.error()["param"]), (400, &json!("input_file_id")));
    for request in &requests {
        assert_eq!(site.get_with(&format!("/v1/receipts/{request}"), &mine).await.status, 200);
        not_found(site.get_with(&format!("/v1/receipts/{request}"), &other).await);
    }
    assert_eq!(number(&credits(&site, &other).await["used"]), 0);

    // What the other has made is charged to it.
    let begun = batch(&site, &other, &[("c", "three four five")]).await;
    let done = ended(&site, &other, &begun).await;
    let (other_cost, requests) = cost(&responses(&site, &other, &done["output_file_id"]).await);
    check_charged(&site, &other, other_cost, &requests).await;
    assert_eq!(number(&credits(&site, &mine).await["used"]), mine_cost);
    assert_eq!(mine_cost + other_cost, charged(&worker));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_budget_that_is_exhausted_fails_lines_and_one_that_is_set_aside_lets_them_wait() {
    let (_ledger, worker, site) = paying().await;
    let poor = key(&site, KeyTerms { budget: Some(Micro(1)), ..KeyTerms::named("poor") }).await;
    let begun = batch(&site, &poor, &[("a", "one"), ("b", "two")]).await;
    let done = ended(&site, &poor, &begun).await;
    assert_eq!(done["request_counts"], json!({"total": 2, "completed": 0, "failed": 2}), "{done}");
    for failure in responses(&site, &poor, &done["error_file_id"]).await {
        let code = &failure["body"]["error"]["code"];
        assert_eq!((&failure["status_code"], code), (&json!(402), &json!("budget_exhausted")));
    }
    check_charged(&site, &poor, 0, &BTreeSet::new()).await;
    assert_eq!(charged(&worker), 0);

    // Enough for the worst of one at a time.
    let mut body = chat("one PAUSE two");
    body["max_tokens"] = json!(400);
    let quote = site.post_with("/v1/quote", &poor, &body.to_string()).await.json();
    let budget = 2 * number(&quote["cost_max"]) - 1;
    let mine = key(&site, KeyTerms { budget: Some(Micro(budget)), ..KeyTerms::named("mine") }).await;
    let text: String = ["a", "b", "c"].iter().map(|name| line(name, CHAT, &body)).collect();
    let made = try_batch(&site, &mine, &send(&site, &mine, &text).await).await.json();
    let done = ended(&site, &mine, &made).await;
    assert_eq!(done["request_counts"], json!({"total": 3, "completed": 3, "failed": 0}), "{done}");
    let (sum, requests) = cost(&responses(&site, &mine, &done["output_file_id"]).await);
    check_charged(&site, &mine, sum, &requests).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_key_has_no_more_lines_answered_and_others_terms_hold() {
    let (_ledger, worker, site) = paying().await;
    let huge = KeyTerms { models: vec!["huge".into()], ..KeyTerms::named("huge") };
    let huge = key(&site, huge).await;
    let begun = batch(&site, &huge, &[("a", "one")]).await;
    let done = ended(&site, &huge, &begun).await;
    let failures = responses(&site, &huge, &done["error_file_id"]).await;
    assert_eq!(failures[0]["body"]["error"]["code"], "policy");

    // One request a minute: what making the batch has taken, its line waits for.
    let slow = key(&site, KeyTerms { rpm: Some(1), ..KeyTerms::named("slow") }).await;
    let begun = batch(&site, &slow, &[("a", "one")]).await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(site.get_with(&path("/v1/batches", &begun), &slow).await.json()["status"], "in_progress");
    let keys = surety_gateway::KeysOf::open(site.directory.path()).expect("the gateway's control");
    keys.revoke("slow").await.expect("revoked");
    let other = rich(&site, "other").await;
    let others = batch(&site, &other, &[("b", "two")]).await;
    ended(&site, &other, &others).await;
    let orders = worker.diary.orders.lock().expect("no panic").len();
    assert_eq!(orders, 1, "only the other's was ordered");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_goes_on_in_its_keys_name_when_the_gateway_was_stopped() {
    begin_again(true).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_goes_on_in_its_keys_name_when_the_gateway_was_cut_off() {
    begin_again(false).await;
}

/// Ends a gateway in the middle of a batch, in order or not, and has another go on.
async fn begin_again(in_order: bool) {
    let (ledger, worker) = (MemoryLedger::new(), pays::asking(1).await);
    let endpoint = worker.address.location.to_string();
    pays::register(&ledger, pays::OPERATOR, 1, &endpoint, pays::PRICE).await;
    let paid = |settings: &mut GatewaySettings| {
        settings.ledger = Some(pays::paying(&ledger, PAYER));
        settings.limits.stall_timeout = Duration::from_secs(60);
        settings.limits.search_timeout = Duration::from_secs(10);
    };
    let site = Site::with(&[], paid).await;
    let funded = |status: &Value| pays::amount(status, "unspent") == pays::DEPOSIT;
    site.until(|status| status["workers"][0]["state"] == "ready" && funded(status)).await;
    let (mine, other) = (rich(&site, "mine").await, rich(&site, "other").await);
    let begun = batch(&site, &mine, &[("a", "one"), ("b", "two PAUSE three HUSH four"), ("c", "five")]).await;
    until(&site, &mine, &begun, |batch| batch["request_counts"]["completed"] == 2).await;
    let Site { gateway, directory, .. } = site;
    if in_order {
        gateway.stop().await;
    } else {
        drop(gateway);
    }

    let mut settings = settings(&directory);
    paid(&mut settings);
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
    assert_eq!(site.get_with(&path("/v1/batches", &begun), &other).await.status, 404);
    let speaking = async {
        loop {
            worker.diary.speaks.notify_waiters();
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let done = tokio::select! {
        done = ended(&site, &mine, &begun) => done,
        () = speaking => unreachable!("it does not end"),
    };
    assert_eq!(done["request_counts"], json!({"total": 3, "completed": 3, "failed": 0}), "{done}");
    let answers = responses(&site, &mine, &done["output_file_id"]).await;
    let said = |answer: &Value| answer["body"]["choices"][0]["message"]["content"].clone();
    let said: Vec<Value> = answers.iter().map(said).collect();
    assert_eq!(said, ["one", "two three four", "five"].map(|text| json!(text)));
    let (sum, requests) = cost(&answers);
    assert_eq!(requests.len(), 3);
    // Where the receipt of what was cut was still heard, that is charged beside the rest of the answer.
    let used = number(&credits(&site, &mine).await["used"]);
    let heard = !in_order && used == charged(&worker);
    check_charged(&site, &mine, if heard { used } else { sum }, &requests).await;
    check_charged(&site, &other, 0, &BTreeSet::new()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_became_of_a_request_is_told_to_its_key_only() {
    let (_ledger, _worker, site) = paying().await;
    let (mine, other) = (rich(&site, "mine").await, rich(&site, "other").await);
    for (script, paths) in [
        (
            "one",
            &[
                "/v1/requests/ID/explanation",
                "/v1/receipts/ID/ledger",
                "/v1/receipts/ID",
                "/v1/generations/ID",
            ][..],
        ),
        // It failed: there is no receipt, but something to be said.
        ("one FAIL", &["/v1/requests/ID/explanation"]),
    ] {
        let answer = site.post_with(CHAT, &mine, &chat(script).to_string()).await;
        assert_eq!(answer.status == 200, script == "one", "{}", answer.text());
        let id = answer.header("x-request-id").expect("an id");
        for path in paths {
            let path = path.replace("ID", id);
            let seen = site.get_with(&path, &mine).await;
            assert_eq!(seen.status, 200, "{path}: {}", seen.text());
            let hidden = site.get_with(&path, &other).await;
            assert_eq!((hidden.status, &hidden.error()["code"]), (404, &json!("not_found")), "{path}");
        }
    }
    // Nor is what was refused before it was understood.
    let refused = site.post_with(CHAT, &mine, "{").await;
    assert_eq!(refused.status, 400);
    let path = format!("/v1/requests/{}/explanation", refused.header("x-request-id").expect("an id"));
    assert_eq!(site.get_with(&path, &mine).await.status, 200);
    assert_eq!(site.get_with(&path, &other).await.status, 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_rest_of_a_stream_is_its_keys() {
    let worker = FakeWorker::start(1).await;
    let patient = |settings: &mut GatewaySettings| {
        settings.limits.stall_timeout = Duration::from_secs(60);
        settings.limits.search_timeout = Duration::from_secs(10);
    };
    let site = Site::with(&[&worker], patient).await;
    site.until_ready(1).await;
    let (mine, other) =
        (key(&site, KeyTerms::named("mine")).await, key(&site, KeyTerms::named("other")).await);
    let mut body = chat("one two PAUSE three PAUSE four PAUSE PAUSE five SILENT-ONCE six");
    body["stream"] = json!(true);
    let body = body.to_string();
    let mut wire = site.open_with(CHAT, &mine, &body).await;
    wire.until("five").await;
    wire.until("id: req_").await;
    let last = wire.so_far().event_ids().pop().expect("an id");
    drop(wire);
    site.until(|status| status["active_requests"] == 0).await;
    let with = |key: &str| format!("{key}Last-Event-ID: {last}\r\n");
    let refused = site.post_with(CHAT, &with(&other), &body).await;
    assert_eq!((refused.status, &refused.error()["code"]), (404, &json!("not_found")));
    let rest = site.post_with(CHAT, &with(&mine), &body).await;
    assert_eq!(rest.status, 200, "{}", rest.text());
    assert_eq!(rest.header("x-request-id"), last.split(':').next());
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_but_what_is_public_is_told_without_a_key() {
    const PUBLIC: [&str; 4] = ["/", "/health", "/ready", "/openapi.json"];
    let worker = FakeWorker::start(1).await;
    let site = Site::start(&[&worker]).await;
    let mine = key(&site, KeyTerms::named("mine")).await;
    let secret = mine.trim().rsplit(' ').next().expect("a secret").to_owned();
    let described = site.get("/openapi.json").await.json();
    // A unit test holds that every path but these two is described.
    let mut asked = vec![("get".to_owned(), "/".to_owned()), ("get".to_owned(), "/openapi.json".to_owned())];
    for (path, methods) in described["paths"].as_object().expect("paths") {
        asked.extend(
            methods.as_object().expect("methods").keys().map(|method| (method.clone(), path.clone())),
        );
    }
    assert!(asked.len() > 40, "{asked:?}");
    for (method, path) in asked {
        let (method, shown) =
            (method.to_uppercase(), path.replace("{id}", "req_00000000000000000000000000000001"));
        for headers in ["", "x-api-key: sk-surety-1\r\n"] {
            let text = format!(
                "{method} {shown} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n{headers}\
                 content-type: application/json\r\ncontent-length: 2\r\n\r\n{{}}"
            );
            let answer = request(site.address, &text).await;
            if PUBLIC.contains(&path.as_str()) {
                assert_eq!(answer.status, 200, "{method} {path}");
                continue;
            }
            // Here is no ledger to show, and nobody of that name.
            if path.starts_with("/v1/network/") {
                let expected = match path.rsplit('/').next() {
                    Some("status" | "live" | "service") => &[200][..],
                    _ => &[404, 503],
                };
                assert!(expected.contains(&answer.status), "{method} {path}: {}", answer.text());
                continue;
            }
            assert_eq!(answer.status, 401, "{method} {path}: {}", answer.text());
            if method == "HEAD" {
                continue;
            }
            let body = answer.json();
            if path.starts_with("/v1/messages") {
                assert_eq!(
                    (&body["type"], &body["error"]["type"]),
                    (&json!("error"), &json!("authentication_error"))
                );
            } else if path.starts_with("/api/") || path.contains("/resolve/") {
                assert!(body["error"].is_string(), "{body}");
            } else if path == "/mcp" {
                assert_eq!(body["error"]["data"]["code"], "bad_key", "{body}");
            } else {
                assert_eq!(answer.error()["code"], "bad_key", "{path}");
            }
        }
    }
    let theirs = "anthropic-version: 2023-06-01\r\n";
    let answer = site.get_with("/v1/models", theirs).await;
    assert_eq!((answer.status, &answer.json()["error"]["type"]), (401, &json!("authentication_error")));

    // With a key, in either header, each protocol lets in.
    let message = json!({"model": "tiny", "max_tokens": 4, "messages": [{"role": "user", "content": "hi"}]});
    for headers in [mine, format!("x-api-key: {secret}\r\n")] {
        for path in [CHAT, "/v1/messages", "/api/chat"] {
            let mut message = message.clone();
            if path == "/api/chat" {
                message.as_object_mut().expect("an object").remove("max_tokens");
            }
            let answer = site.post_with(path, &headers, &message.to_string()).await;
            assert_eq!(answer.status, 200, "{path}: {}", answer.text());
        }
        for path in ["/metrics", "/api/tags", "/v1/models"] {
            assert_eq!(site.get_with(path, &headers).await.status, 200, "{path}");
        }
    }
}
