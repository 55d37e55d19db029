//! Keys: who gets in, how fast, and for how much; over real sockets, with a worker that asks a price.

use serde_json::{Value, json};
use surety_gateway::{KeyTerms, KeysOf, Micro};

use crate::{
    fake::FakeWorker,
    http::{Answer, Site},
    memory::MemoryLedger,
    pays::{OPERATOR, PRICE, amount, asking, charged, register, site},
};

const CHAT: &str = "/v1/chat/completions";

/// A key of a running gateway, as headers.
pub async fn key(site: &Site, terms: KeyTerms) -> String {
    let keys = KeysOf::open(site.directory.path()).expect("the gateway's control");
    let (secret, _) = keys.create(terms).await.expect("a key");
    format!("authorization: Bearer {secret}\r\n")
}

fn chat(text: &str) -> String {
    json!({"model": "tiny", "messages": [{"role": "user", "content": text}]}).to_string()
}

/// A gateway whose one worker asks a price.
pub async fn paying() -> (MemoryLedger, FakeWorker, Site) {
    let (ledger, worker) = (MemoryLedger::new(), asking(1).await);
    register(&ledger, OPERATOR, 1, &worker.address.location.to_string(), PRICE).await;
    let site = site(&ledger).await;
    (ledger, worker, site)
}

pub fn number(value: &Value) -> u128 {
    value.as_str().and_then(|text| text.parse().ok()).unwrap_or_else(|| panic!("no amount: {value}"))
}

pub async fn credits(site: &Site, key: &str) -> Value {
    site.get_with("/v1/credits", key).await.json()
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_gets_in_without_a_key_once_there_is_one() {
    let worker = FakeWorker::start(1).await;
    let site = Site::start(&[&worker]).await;
    assert_eq!(site.post(CHAT, &chat("hi")).await.status, 200, "open as long as there is no key");
    let mine = key(&site, KeyTerms::named("mine")).await;
    let secret = mine.trim().rsplit(' ').next().expect("a secret").to_owned();
    for headers in
        ["", "authorization: Bearer none\r\n", "authorization: Basic eDp5\r\n", "x-api-key: sk-surety-1\r\n"]
    {
        for answer in
            [site.post_with(CHAT, headers, &chat("hi")).await, site.get_with("/v1/models", headers).await]
        {
            assert_eq!((answer.status, &answer.error()["code"]), (401, &json!("bad_key")), "{headers}");
            assert_eq!(answer.header("www-authenticate"), Some("Bearer"));
        }
    }
    for path in ["/", "/health", "/ready", "/openapi.json", "/v1/network/status"] {
        assert_eq!(site.get(path).await.status, 200, "{path}");
    }
    assert_eq!(site.get("/v1/nothing").await.status, 401, "what is not public is not told of");
    assert_eq!(site.post_with(CHAT, &mine, &chat("hi")).await.status, 200);
    assert_eq!(site.post_with(CHAT, &format!("x-api-key: {secret}\r\n"), &chat("hi")).await.status, 200);

    // What one key asked, another does not see.
    let answer = site.post_with(CHAT, &mine, &chat("a secret")).await;
    let id = answer.header("x-request-id").expect("an id").to_owned();
    let other = key(&site, KeyTerms::named("other")).await;
    for path in ["receipts", "generations"] {
        let path = format!("/v1/{path}/{id}");
        assert_eq!(site.get_with(&path, &mine).await.status, 200, "{path}");
        let answer = site.get_with(&path, &other).await;
        assert_eq!((answer.status, &answer.error()["code"]), (404, &json!("not_found")), "{path}");
    }
    let seen = site.get_with(&format!("/v1/generations/{id}"), &mine).await.json();
    assert_eq!(
        (&seen["key"], &seen["status"], &seen["cost"]),
        (&json!("mine"), &json!("complete"), &json!("0"))
    );

    let keys = KeysOf::open(site.directory.path()).expect("the gateway's control");
    assert_eq!(keys.revoke("mine").await.expect("revoked").state, "revoked");
    let answer = site.post_with(CHAT, &mine, &chat("hi")).await;
    assert!(answer.status == 401 && answer.text().contains("was revoked"), "{}", answer.text());
    assert_eq!(keys.list().await.expect("keys").len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_may_require_a_key_before_there_is_one() {
    let worker = FakeWorker::start(1).await;
    let site = Site::with(&[&worker], |settings| settings.require_key = true).await;
    site.until_ready(1).await;
    assert_eq!(site.post(CHAT, &chat("hi")).await.error()["code"], "bad_key");
    let mine = key(&site, KeyTerms { models: vec!["tiny".into()], ..KeyTerms::named("mine") }).await;
    assert_eq!(site.post_with(CHAT, &mine, &chat("hi")).await.status, 200);
    let other = key(&site, KeyTerms { models: vec!["huge".into()], ..KeyTerms::named("other") }).await;
    let answer = site.post_with(CHAT, &other, &chat("hi")).await;
    let error = answer.error();
    assert_eq!((answer.status, &error["code"], &error["param"]), (403, &json!("policy"), &json!("model")));
    assert!(error["message"].as_str().expect("a text").contains("It may ask for huge."));
}

#[tokio::test(flavor = "multi_thread")]
async fn two_hundred_streams_never_overspend_a_budget_for_ten() {
    let (_ledger, worker, site) = paying().await;
    // The worst of one: a prompt of 97 bytes and signs at most, and 40 tokens.
    let body = json!({"model": "tiny", "stream": true, "max_tokens": 40,
        "messages": [{"role": "user", "content": "one PAUSE two"}]})
    .to_string();
    let quote = site.post("/v1/quote", &body).await.json();
    let worst = number(&quote["cost_max"]);
    assert!(worst > 40 && quote["workers"].as_array().map(Vec::len) == Some(1), "{quote}");
    let budget = 10 * worst;
    let mine = key(&site, KeyTerms { budget: Some(Micro(budget)), ..KeyTerms::named("mine") }).await;
    let answers: Vec<Answer> =
        futures::future::join_all((0..200).map(|_| site.post_with(CHAT, &mine, &body))).await;
    let (mut granted, mut cost) = (0, 0);
    for answer in answers {
        if answer.status == 200 {
            granted += 1;
            cost += number(&answer.chunks().last().expect("a chunk")["surety"]["cost"]);
            continue;
        }
        let error = answer.error();
        assert_eq!((answer.status, &error["code"]), (402, &json!("budget_exhausted")), "{error}");
        assert!(error["message"].as_str().expect("a text").contains("more are needed"), "{error}");
        assert_eq!(answer.header("retry-after"), None);
    }
    assert!(granted >= 10, "{granted}");
    let report = credits(&site, &mine).await;
    assert_eq!(number(&report["used"]), cost);
    assert_eq!(cost, charged(&worker));
    assert!(cost <= budget);
    assert_eq!((number(&report["reserved"]), number(&report["left"])), (0, budget - cost));

    // What is left is spent to the last that fits, and not beyond.
    loop {
        let answer = site.post_with(CHAT, &mine, &chat("one two three four five six")).await;
        if answer.status != 200 {
            assert_eq!(answer.error()["code"], "budget_exhausted");
            break;
        }
    }
    let report = credits(&site, &mine).await;
    assert!(number(&report["used"]) <= budget);
    assert_eq!(number(&report["used"]), charged(&worker));
}

#[tokio::test(flavor = "multi_thread")]
async fn usage_sums_to_what_receipts_charged_and_failures_cost_nothing() {
    let (_ledger, worker, site) = paying().await;
    let mine = key(&site, KeyTerms { budget: Some(Micro(100_000)), ..KeyTerms::named("mine") }).await;
    let mut costs = Vec::new();
    for text in ["one", "one two", "one two three"] {
        let answer = site.post_with(CHAT, &mine, &chat(text)).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        costs.push(answer.header("x-surety-cost").expect("a cost").parse::<u128>().expect("a number"));
    }
    assert!(site.post_with(CHAT, &mine, &chat("one FAIL")).await.status >= 500);
    let body = json!({"model": "tiny", "n": 3, "messages": [{"role": "user", "content": "{choice} b"}]});
    let answer = site.post_with(CHAT, &mine, &body.to_string()).await;
    costs.push(answer.header("x-surety-cost").expect("a cost").parse().expect("a number"));
    let total: u128 = costs.iter().sum();
    assert_eq!(total, charged(&worker));

    let usage = site.get_with("/v1/usage", &mine).await.json();
    let rows = usage["data"].as_array().expect("rows");
    assert_eq!(rows.iter().map(|row| number(&row["cost"])).collect::<Vec<_>>(), costs);
    assert_eq!(number(&usage["total"]["cost"]), total);
    assert_eq!((&rows[3]["choices"], rows[3]["parts"].as_array().map(Vec::len)), (&json!(3), Some(3)));
    for row in rows {
        let parts = row["parts"].as_array().expect("parts");
        assert_eq!(parts.iter().map(|part| number(&part["charge"])).sum::<u128>(), number(&row["cost"]));
        assert_eq!(parts[0]["price"]["prompt"], "1000000");
        assert_eq!(parts[0]["worker"], worker.key());
    }
    let table = site.get_with("/v1/usage?format=csv", &mine).await;
    assert_eq!(table.header("content-type"), Some("text/csv; charset=utf-8"));
    let sum: u128 = table
        .text()
        .lines()
        .skip(1)
        .map(|line| line.split(',').nth(8).expect("a cost").parse::<u128>().expect("a number"))
        .sum();
    assert_eq!(sum, total);
    let report = credits(&site, &mine).await;
    assert_eq!((number(&report["used"]), number(&report["reserved"])), (total, 0));

    // After a restart the same.
    let keys = KeysOf::open(site.directory.path()).expect("the gateway's control");
    assert_eq!(keys.usage("mine", 0).await.expect("usage").total.cost, Micro(total));
    drop(keys);
    let Site { gateway, directory, .. } = site;
    gateway.stop().await;
    let keys = KeysOf::open(directory.path()).expect("the keys themselves");
    let report = keys.show("mine").await.expect("the key");
    assert_eq!(
        (report.used, report.reserved, report.left),
        (Micro(total), Micro(0), Some(Micro(100_000 - total)))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_dropped_again_and_again_is_charged_once() {
    let (_ledger, worker, site) = paying().await;
    let mine = key(&site, KeyTerms { budget: Some(Micro(100_000)), ..KeyTerms::named("mine") }).await;
    let (mut cost, rounds) = (0, 10);
    for round in 0..rounds {
        let body = json!({"model": "tiny", "stream": round % 2 == 0,
            "messages": [{"role": "user", "content": format!("{round} one two three four")}]})
        .to_string();
        let headers = format!("{mine}Idempotency-Key: {round}\r\n");
        for drop in 0..10 {
            site.drop_after(CHAT, &headers, &body, (drop * 397 + round * 61) % 2400).await;
        }
        let answer = site.post_with(CHAT, &headers, &body).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        let note = if round % 2 == 0 {
            answer.chunks().last().expect("a chunk")["surety"].clone()
        } else {
            answer.json()["surety"].clone()
        };
        cost += number(&note["cost"]);
    }
    assert_eq!(worker.diary.orders.lock().expect("no panic").len(), rounds);
    assert_eq!(cost, charged(&worker));
    let report = credits(&site, &mine).await;
    assert_eq!((number(&report["used"]), number(&report["reserved"])), (cost, 0));
    assert_eq!(report["requests"], rounds);
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_leaves_is_charged_for_what_was_given() {
    let (_ledger, worker, site) = paying().await;
    let mine = key(&site, KeyTerms { budget: Some(Micro(100_000)), ..KeyTerms::named("mine") }).await;
    let body =
        json!({"model": "tiny", "stream": true, "messages": [{"role": "user", "content": "one two WAIT"}]});
    site.drop_after(CHAT, &mine, &body.to_string(), 900).await;
    worker.diary.until(&worker.diary.cancelled, 1).await;
    site.until(|status| amount(status, "in_flight") == 0).await;
    let reached = async {
        loop {
            let report = credits(&site, &mine).await;
            if number(&report["reserved"]) == 0 && number(&report["used"]) > 0 {
                return report;
            }
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    };
    let report =
        tokio::time::timeout(std::time::Duration::from_secs(10), reached).await.expect("it is charged");
    assert_eq!(number(&report["used"]), charged(&worker));
    let usage = site.get_with("/v1/usage", &mine).await.json();
    assert_eq!(usage["data"][0]["status"], "cancelled");
    assert_eq!(usage["total"]["cost"], report["used"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn limits_are_told_and_held() {
    let worker = FakeWorker::start(1).await;
    let site = Site::start(&[&worker]).await;
    let mine = key(&site, KeyTerms { rpm: Some(3), tpm: Some(100_000), ..KeyTerms::named("mine") }).await;
    for left in [2, 1, 0] {
        let answer = site.post_with(CHAT, &mine, &chat("hi")).await;
        assert_eq!(answer.status, 200);
        assert_eq!(answer.header("x-ratelimit-limit-requests"), Some("3"));
        assert_eq!(answer.header("x-ratelimit-remaining-requests"), Some(&left.to_string()[..]));
        assert_eq!(answer.header("x-ratelimit-limit-tokens"), Some("100000"));
        let reset = answer.header("x-ratelimit-reset-requests").expect("a time");
        assert!(reset.len() == 20 && reset.starts_with("20") && reset.ends_with('Z'), "{reset}");
    }
    let answer = site.post_with(CHAT, &mine, &chat("hi")).await;
    let error = answer.error();
    assert_eq!((answer.status, &error["code"]), (429, &json!("rate_limited")));
    assert_eq!(answer.header("x-should-retry"), Some("true"));
    assert_eq!(answer.header("x-ratelimit-remaining-requests"), Some("0"));
    let ms: u64 = answer.header("retry-after-ms").expect("a time").parse().expect("a number");
    let seconds: u64 = answer.header("retry-after").expect("a time").parse().expect("a number");
    assert!(ms <= 20_000 && seconds == ms.div_ceil(1000), "{ms} {seconds}");
    assert_eq!(error["metadata"]["retry_after_ms"], ms);
    // Looking costs nothing, and neither does another key.
    assert_eq!(site.get_with("/v1/models", &mine).await.status, 200);
    let other = key(&site, KeyTerms::named("other")).await;
    assert_eq!(site.post_with(CHAT, &other, &chat("hi")).await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_sees_its_terms_its_usage_by_time_and_its_requests_and_nobody_elses() {
    let (_ledger, worker, site) = paying().await;
    let terms = KeyTerms {
        budget: Some(Micro(100_000)),
        rpm: Some(5),
        models: vec!["tiny".into(), "other".into()],
        expires_ms: Some(4_000_000_000_000),
        ..KeyTerms::named("mine")
    };
    let mine = key(&site, terms).await;
    let other = key(&site, KeyTerms::named("other")).await;
    let get = async |path: &str, headers: &str| {
        let answer = site.get_with(path, headers).await;
        assert_eq!(answer.status, 200, "{path}: {}", answer.text());
        answer.json()
    };
    let told = get("/v1/key", &mine).await;
    assert_eq!((&told["name"], &told["models"]), (&json!("mine"), &json!(["tiny", "other"])));
    assert_eq!((&told["requests"]["limit"], &told["requests"]["remaining"]), (&json!(5), &json!(5)));
    assert_eq!((&told["tokens"], &told["sells_credits"]), (&Value::Null, &json!(false)));
    assert!(!told.to_string().contains("sk-surety"), "no secret is told");

    for text in ["one", "one two", "one two three"] {
        assert_eq!(site.post_with(CHAT, &mine, &chat(text)).await.status, 200);
    }
    assert!(site.post_with(CHAT, &mine, &chat("one FAIL")).await.status >= 500);
    let unknown = json!({"model": "huge", "messages": [{"role": "user", "content": "hi"}]}).to_string();
    assert_eq!(site.post_with(CHAT, &mine, &unknown).await.error()["code"], "model_unknown");
    assert_eq!(site.post_with(CHAT, &mine, &chat("hi")).await.error()["code"], "rate_limited");
    assert_eq!(site.post_with(CHAT, &other, &chat("theirs")).await.status, 200);

    // What the spans sum to is what the export sums to, and both are what the receipts charge.
    let usage = get("/v1/usage", &mine).await;
    let total = number(&usage["total"]["cost"]);
    assert_eq!(
        total + number(&get("/v1/usage", &other).await["total"]["cost"]),
        charged(&worker),
        "what both used is what the worker was promised",
    );
    for (width, count) in [("1m", 60), ("1h", 48), ("1d", 30)] {
        let told = get(&format!("/v1/usage/buckets?bucket_width={width}"), &mine).await;
        let spans = told["data"].as_array().expect("spans");
        let sum = |field: &str| spans.iter().map(|span| number(&span[field])).sum::<u128>();
        let count_of = |field: &str| spans.iter().filter_map(|span| span[field].as_u64()).sum::<u64>();
        assert_eq!((spans.len(), sum("cost")), (count, total));
        assert_eq!((&told["total"], &told["earlier"]["requests"]), (&usage["total"], &json!(0)));
        assert_eq!(count_of("output_tokens"), usage["total"]["output_tokens"].as_u64().expect("tokens"));
        assert_eq!(count_of("requests"), 3);
        let models = spans.iter().flat_map(|span| span["models"].as_array().expect("models"));
        assert_eq!(models.map(|model| number(&model["cost"])).sum::<u128>(), total);
    }
    let path = "/v1/usage/buckets";
    let first = site.get_with(path, &mine).await;
    let tag = format!("{mine}if-none-match: {}\r\n", first.header("etag").expect("a tag"));
    assert_eq!(site.get_with(path, &tag).await.status, 304);

    let told = get("/v1/requests", &mine).await;
    let seen: Vec<(&str, Option<&str>)> = told["data"]
        .as_array()
        .expect("requests")
        .iter()
        .map(|one| (one["state"].as_str().expect("a state"), one["failure"]["code"].as_str()))
        .collect();
    assert_eq!(seen.len(), 6, "{told}");
    assert_eq!(seen[..2], [("failed", Some("rate_limited")), ("failed", Some("model_unknown"))]);
    assert_eq!(seen[2].0, "failed");
    assert_eq!(seen[3..], [("answered", None); 3]);
    let costs = told["data"].as_array().expect("requests").iter().map(|one| number(&one["cost"]));
    assert_eq!(costs.sum::<u128>(), total, "what failed cost nothing");
    assert!(told["data"][0]["failure"]["act"].as_str().is_some_and(|act| act.len() > 20));
    let theirs = get("/v1/requests?limit=1", &other).await;
    assert_eq!(
        (theirs["data"].as_array().map(Vec::len), &theirs["data"][0]["state"]),
        (Some(1), &json!("answered"))
    );
    // Whoever was only too fast has its request explained, and nobody else has.
    let id = told["data"][0]["id"].as_str().expect("an id");
    let explanation = format!("/v1/requests/{id}/explanation");
    assert_eq!(site.get_with(&explanation, &mine).await.status, 200);
    assert_eq!(site.get_with(&explanation, &other).await.status, 404);

    for (path, code) in [
        ("/v1/usage/buckets?bucket_width=2h", "invalid_param"),
        ("/v1/usage/buckets?bucket_with=1h", "unknown_parameter"),
        ("/v1/requests?limit=0", "invalid_param"),
        ("/v1/requests?limit=101", "invalid_param"),
        ("/v1/requests?limit=x&after=1", "unknown_parameter"),
        ("/v1/requests?a=1", "unknown_parameter"),
    ] {
        let answer = site.get_with(path, &mine).await;
        assert_eq!((answer.status, &answer.error()["code"]), (400, &json!(code)), "{path}");
    }
    for path in ["/v1/key", "/v1/usage/buckets", "/v1/requests"] {
        assert_eq!(site.get(path).await.error()["code"], "bad_key", "{path}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_without_keys_tells_of_all_that_was_asked_without_one() {
    let worker = FakeWorker::start(1).await;
    let site = Site::start(&[&worker]).await;
    assert_eq!(site.post(CHAT, &chat("hi")).await.status, 200);
    assert_eq!(site.post(CHAT, "{").await.status, 400);
    assert_eq!(site.get("/v1/nothing").await.status, 404);
    let told = site.get("/v1/key").await.json();
    assert_eq!(
        (&told["name"], &told["requests"], &told["expires_ms"]),
        (&Value::Null, &Value::Null, &Value::Null)
    );
    let told = site.get("/v1/requests").await.json();
    let states: Vec<&Value> =
        told["data"].as_array().expect("requests").iter().map(|one| &one["state"]).collect();
    assert_eq!(states, [&json!("failed"), &json!("answered")], "what asks no model is not told of");
    let spans = site.get("/v1/usage/buckets").await.json();
    assert_eq!(spans["total"]["requests"], 1);
}
