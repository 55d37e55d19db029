//! `:verified`: nothing is told before workers of two operators have given it, and the end not before both have signed.

use std::time::Duration;

use serde_json::{Value, json};
use surety_gateway::{KeyTerms, Micro};
use surety_proof::{Check, Expected, check_evidence};
use surety_types::{
    Amount, Dossier, Envelope, Evidence, Order, Price, Receipt, Signed, StatedEnd, Statement, What,
    WorkerState,
};

use crate::{
    fake::FakeWorker,
    http::{Answer, Site},
    keys::{credits, key, number},
    memory::MemoryLedger,
    pays::{OPERATOR, PRICE, asking, paying, register},
};

const CHAT: &str = "/v1/chat/completions";

fn chat(text: &str) -> Value {
    json!({"model": "tiny:verified", "messages": [{"role": "user", "content": text}]})
}

fn streamed(text: &str) -> Value {
    let mut body = chat(text);
    body["stream"] = json!(true);
    body
}

/// The first worker answers, the second checks.
fn by_first(first: &FakeWorker, mut body: Value) -> Value {
    body["provider"] = json!({"order": [first.key()]});
    body
}

fn content(answer: &Answer) -> String {
    answer.json()["choices"][0]["message"]["content"].as_str().expect("text").to_owned()
}

/// What a chat's stream has said.
fn said(answer: &Answer) -> String {
    let events = answer.events();
    let chunks = events.iter().filter(|event| *event != "[DONE]");
    let chunks = chunks.map(|event| serde_json::from_str::<Value>(event).expect("JSON"));
    chunks.filter_map(|chunk| chunk["choices"][0]["delta"]["content"].as_str().map(str::to_owned)).collect()
}

fn orders(worker: &FakeWorker) -> Vec<Order> {
    worker.diary.orders.lock().expect("no panic").iter().map(|(order, _)| order.clone()).collect()
}

async fn evidence(site: &Site, answer: &Answer) -> Evidence {
    let id = answer.header("x-request-id").expect("an id");
    let kept = site.get(&format!("/v1/receipts/{id}")).await;
    assert_eq!(kept.status, 200, "{}", kept.text());
    Evidence::parse(&kept.body).expect("evidence")
}

async fn dossier(site: &Site, answer: &Answer) -> (Dossier, Statement) {
    let id = answer.header("x-request-id").expect("an id");
    let kept = site.get(&format!("/v1/requests/{id}/explanation")).await;
    assert_eq!(kept.status, 200, "{}", kept.text());
    let dossier = Dossier::parse(&kept.body).expect("a dossier");
    let statement = Signed::<Statement>::open(dossier.statement.as_deref().expect("a statement"));
    (dossier, statement.expect("signed").into_parts().0)
}

async fn two() -> (FakeWorker, FakeWorker, Site) {
    let (first, second) = (FakeWorker::start(1).await, FakeWorker::start(2).await);
    let site = Site::start(&[&first, &second]).await;
    (first, second, site)
}

#[tokio::test(flavor = "multi_thread")]
async fn two_workers_compute_the_same_answer_under_the_same_seed() {
    let (first, second, site) = two().await;
    let answer = site.chat(by_first(&first, chat("one two three"))).await;
    assert_eq!((answer.status, content(&answer).as_str()), (200, "one two three"), "{}", answer.text());
    assert_eq!(answer.header("x-surety-verification"), Some("passed"));
    assert_eq!(answer.header("x-surety-workers"), Some(first.key().as_str()));
    let note = &answer.json()["surety"];
    assert_eq!((&note["verification"], &note["checked_by"]), (&json!("passed"), &json!([second.key()])));
    assert_eq!(note["workers"], json!([first.key()]));
    // Tokens are counted once: three words and an end.
    assert_eq!(answer.json()["usage"]["completion_tokens"], 4);

    let ([answered], [checked]) = (&orders(&first)[..], &orders(&second)[..]) else {
        panic!("an order each")
    };
    assert_eq!((answered.nonce, answered.seed_bytes()), (checked.nonce, checked.seed_bytes()));
    assert_eq!(answered.request_digest, checked.request_digest);

    let evidence = evidence(&site, &answer).await;
    let held = check_evidence(&evidence, None, &Expected::default()).expect("it holds");
    assert!(held.checked.contains(&Check::Repeated));
    let envelope = Signed::<Envelope>::open(&evidence.envelope).expect("signed");
    let checks: Vec<(String, bool)> =
        envelope.parts.iter().map(|part| (part.worker.to_string(), part.is_check())).collect();
    assert_eq!(checks, [(first.key(), false), (second.key(), true)]);

    // The check is one of the hops.
    let (_, statement) = dossier(&site, &answer).await;
    let compared: Vec<_> = statement.events.iter().filter(|event| event.what == What::Compared).collect();
    assert_eq!(compared.len(), 1);
    assert_eq!((compared[0].tokens, compared[0].why.as_str()), (4, "it is the same"));
    assert_eq!(compared[0].worker.map(|worker| worker.to_string()), Some(second.key()));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_nobody_wants_checked_says_so() {
    let (first, second, site) = two().await;
    for (stream, mode) in [(false, None), (false, Some("after")), (true, None)] {
        let mut body = by_first(&first, chat("one two"));
        (body["model"], body["stream"]) = (json!("tiny"), json!(stream));
        if let Some(mode) = mode {
            body["provider"]["verification_mode"] = json!(mode);
        }
        let answer = site.chat(body).await;
        assert_eq!(answer.header("x-surety-verification"), Some("not-requested"));
        let note = match stream {
            true => answer.chunks().last().expect("an end")["surety"].clone(),
            false => answer.json()["surety"].clone(),
        };
        assert_eq!((&note["verification"], note.get("checked_by")), (&json!("not-requested"), None));
    }
    assert!(orders(&second).is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_field_is_the_same_as_the_suffix_and_goes_with_pins_and_others() {
    let (first, second, site) = two().await;
    let id = crate::fake::manifest("tiny", true).id().0.to_string();
    let pin = &id[..8];
    for model in [
        "tiny".to_owned(),
        "tiny:verified".to_owned(),
        "tiny:floor:verified".to_owned(),
        "tiny:verified:nitro".to_owned(),
        format!("tiny@{pin}:verified"),
        format!("tiny:verified@blake3:{pin}"),
        format!("blake3:{id}:verified"),
    ] {
        let mut body = by_first(&first, chat("one"));
        body["model"] = json!(model);
        if model == "tiny" {
            body["provider"]["verification_mode"] = json!("before");
        }
        let answer = site.chat(body).await;
        assert_eq!(answer.status, 200, "{model}: {}", answer.text());
        assert_eq!(answer.json()["surety"]["checked_by"], json!([second.key()]), "{model}");
        assert_eq!(answer.json()["model"], "tiny", "{model}");
    }
    for (model, param) in [("tiny:nitro:floor", "model"), ("tiny@sha256:01234567", "model")] {
        let mut body = chat("one");
        body["model"] = json!(model);
        let error = site.chat(body).await.error();
        assert_eq!((&error["code"], &error["param"]), (&json!("invalid_param"), &json!(param)), "{model}");
    }
    let mut body = chat("one");
    (body["model"], body["provider"]) = (json!("tiny:floor"), json!({"sort": "latency"}));
    assert_eq!(site.chat(body).await.error()["param"], "provider.sort");
    let mut body = chat("one");
    body["model"] = json!("tiny:fast");
    assert_eq!(site.chat(body).await.error()["code"], "model_unknown", "no suffix is made up");
}

#[tokio::test(flavor = "multi_thread")]
async fn suffixes_sort() {
    let ledger = MemoryLedger::new();
    let dearer = Price { output: Amount(PRICE.output.0 * 4), ..PRICE };
    let (cheap, dear) = (asking(1).await, FakeWorker::asking(2, tiny(), dearer).await);
    register(&ledger, OPERATOR, 1, &cheap.address.location.to_string(), PRICE).await;
    register(&ledger, 3, 2, &dear.address.location.to_string(), dearer).await;
    let site = paid(&ledger, 2).await;
    let quoted =
        |model: &str| json!({"model": model, "messages": [{"role": "user", "content": "one"}]}).to_string();
    let quote = site.post("/v1/quote", &quoted("tiny:floor")).await.json();
    assert_eq!(quote["workers"][0]["worker"], cheap.key(), "{quote}");
    assert!(quote.get("checked_by").is_none());
    for _ in 0..4 {
        let mut body = chat("one");
        body["model"] = json!("tiny:floor");
        assert_eq!(site.chat(body).await.json()["surety"]["workers"], json!([cheap.key()]));
    }
}

fn tiny() -> Vec<surety_types::ServedModel> {
    vec![crate::fake::model("tiny", crate::fake::manifest("tiny", true))]
}

/// A gateway that pays what these workers ask, and so many of them ready.
async fn paid(ledger: &MemoryLedger, workers: usize) -> Site {
    let mut payer = paying(ledger, 2);
    payer.price_ceiling = Price { output: Amount(PRICE.output.0 * 4), ..PRICE };
    let site = Site::with(&[], |settings| settings.ledger = Some(payer)).await;
    site.until(|status| {
        let all = status["workers"].as_array().expect("workers");
        let ready = |worker: &&Value| {
            worker["state"] == "ready"
                && worker["channel"]["unspent"].as_str().is_some_and(|unspent| unspent != "0")
        };
        all.iter().filter(ready).count() == workers
    })
    .await;
    site
}

#[tokio::test(flavor = "multi_thread")]
async fn what_differs_is_never_told_and_nobody_is_named() {
    // The first or the second lies, in the middle or at the end; with a word too many, or one too few.
    for script in [
        "one two three@1 four@2 five",
        "one two lie@1",
        "one two lie@2",
        "lie@1 one two",
        "one LIE-LAST@1 two",
        "one two three@2",
    ] {
        for stream in [true, false] {
            let (first, second, site) = two().await;
            let mut body = by_first(&first, chat(script));
            body["stream"] = json!(stream);
            let answer = site.chat(body).await;
            let error = if stream { answer.error_frame() } else { answer.error() };
            assert_eq!(error["code"], "verification_failed", "{script}: {error}");
            assert_eq!(error["metadata"]["accountable"], "unknown", "{script}");
            assert_eq!(error["metadata"]["worker"], Value::Null, "{script}");
            let message = error["message"].as_str().expect("a text");
            for worker in [&first, &second] {
                assert!(message.contains(&worker.key()[..8]), "{message}");
            }
            if stream {
                // What was told is what both gave.
                let told = said(&answer);
                let honest = script.split(' ').take_while(|word| !word.contains(['@', '-']));
                let honest: String = honest.map(|word| format!("{word} ")).collect();
                assert!(honest.starts_with(&told), "{script}: told {told:?}");
            } else {
                assert_eq!((answer.status, answer.header("x-surety-verification")), (502, Some("failed")));
            }

            // What both signed is kept, for one request under one seed.
            let (dossier, statement) = dossier(&site, &answer).await;
            assert!(matches!(&statement.end, StatedEnd::Failed { worker: None, .. }));
            assert!(statement.events.iter().any(|event| event.what == What::Compared));
            assert_eq!(dossier.papers.len(), 2, "{script}");
            let signed: Vec<Order> = dossier
                .papers
                .iter()
                .map(|paper| Signed::<Order>::open(&paper.order).expect("signed").into_parts().0)
                .collect();
            assert_eq!(
                (signed[0].nonce, signed[0].request_digest),
                (signed[1].nonce, signed[1].request_digest)
            );
            let kept =
                site.get(&format!("/v1/receipts/{}", answer.header("x-request-id").expect("an id"))).await;
            assert_eq!(kept.status, 404, "what is not to be relied on is no answer");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn receipts_of_both_are_kept_of_what_differs() {
    let (first, _second, site) = two().await;
    // Both have ended when it shows.
    let answer = site.chat(by_first(&first, chat("one two lie@2"))).await;
    assert_eq!(answer.error()["code"], "verification_failed");
    let (dossier, _) = dossier(&site, &answer).await;
    let receipts: Vec<Receipt> = dossier
        .papers
        .iter()
        .filter_map(|paper| paper.receipt.as_deref())
        .map(|receipt| Signed::<Receipt>::open(receipt).expect("signed").into_parts().0)
        .collect();
    let [one, other] = &receipts[..] else { panic!("two receipts, not {}", receipts.len()) };
    assert_eq!(one.seed, other.seed);
    assert_ne!((one.worker, one.output_digest), (other.worker, other.output_digest));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_end_waits_for_the_check() {
    let (first, second, site) = two().await;
    // The second is slow, and gives signs of life.
    let body = by_first(&first, streamed("one two three PAUSE@2 PAUSE@2 four"));
    let mut wire = site.open(CHAT, &body.to_string()).await;
    wire.until("one").await;
    first.diary.until(&first.diary.finished, 1).await;
    let early = said(&wire.so_far());
    assert!(!early.contains("four"), "{early}");
    let answer = wire.rest().await;
    assert_eq!(said(&answer), "one two three four");
    assert_eq!(answer.header("x-surety-verification"), Some("pending"));
    let last = answer.chunks().last().expect("an end")["surety"].clone();
    assert_eq!((&last["verification"], &last["checked_by"]), (&json!("passed"), &json!([second.key()])));
}

#[tokio::test(flavor = "multi_thread")]
async fn every_protocol_holds_back() {
    let (first, second, site) = two().await;
    let order = json!({"order": [first.key()]});
    let message = json!([{"role": "user", "content": "one two lie@2 three"}]);
    for (path, body) in [
        (CHAT, json!({"messages": message})),
        ("/v1/completions", json!({"prompt": "one two lie@2 three", "max_tokens": 50})),
        ("/v1/responses", json!({"input": "one two lie@2 three"})),
        ("/v1/messages", json!({"messages": message, "max_tokens": 50})),
        ("/api/chat", json!({"messages": message})),
        ("/api/generate", json!({"prompt": "one two lie@2 three"})),
    ] {
        for stream in [true, false] {
            let mut body = body.clone();
            (body["model"], body["provider"], body["stream"]) =
                (json!("tiny:verified"), order.clone(), json!(stream));
            let answer = site.post(path, &body.to_string()).await;
            let text = answer.text();
            assert!(!text.contains("three") && !text.contains("lie"), "{path} told {text}");
            let codes = ["verification_failed", "does not compute the model"];
            assert!(codes.iter().any(|code| text.contains(code)), "{path}: {text}");
            assert!(!text.contains("[DONE]") && !text.contains("message_stop"), "{path}: {text}");
            if !stream {
                assert_eq!(answer.status, 502, "{path}: {text}");
            }
        }
        // And what is the same is told as ever.
        let honest = body.to_string().replace("lie@2", "and");
        let mut body: Value = serde_json::from_str(&honest).expect("JSON");
        (body["model"], body["provider"], body["stream"]) =
            (json!("tiny:verified"), order.clone(), json!(false));
        let answer = site.post(path, &body.to_string()).await;
        assert!(
            answer.status == 200 && answer.text().contains("one two and three"),
            "{path}: {}",
            answer.text()
        );
        assert_eq!(answer.header("x-surety-verification"), Some("passed"), "{path}");
    }
    let body = json!({"model": "tiny:verified", "input": ["a", "b"], "provider": order});
    let vectors = site.post("/v1/embeddings", &body.to_string()).await;
    assert_eq!(vectors.status, 200, "{}", vectors.text());
    assert_eq!(vectors.json()["surety"]["checked_by"], json!([second.key()]));
    let counted = json!({"model": "tiny:verified", "messages": [{"role": "user", "content": "one two"}]});
    let counted = site.post("/v1/messages/count_tokens", &counted.to_string()).await;
    assert_eq!(counted.json(), json!({"input_tokens": 12}), "what is only counted is not checked");
}

#[tokio::test(flavor = "multi_thread")]
async fn several_answers_are_checked_each() {
    let (first, second, site) = two().await;
    // More than are under way at once.
    let prompts: Vec<String> = (0..9).map(|prompt| format!("it is number {{choice}} of {prompt}")).collect();
    let body = json!({"model": "tiny:verified", "prompt": prompts, "n": 2, "max_tokens": 50});
    let answer = site.complete(by_first(&first, body)).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    for (index, (prompt, choice)) in (0..9).flat_map(|prompt| [(prompt, 0), (prompt, 1)]).enumerate() {
        let text = &answer.json()["choices"][index]["text"];
        assert_eq!(*text, format!("it is number {choice} of {prompt}"));
    }
    let held = check_evidence(&evidence(&site, &answer).await, None, &Expected::default()).expect("it holds");
    assert_eq!(held.answers.len(), 36);
    assert_eq!((orders(&first).len(), orders(&second).len()), (18, 18));
    let body = json!({"model": "tiny:verified", "prompt": vec!["a"; 9], "n": 16});
    let error = site.complete(body).await.error();
    assert!(error["message"].as_str().expect("a text").contains("computed twice"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn where_one_breaks_off_a_third_goes_on_and_never_one_of_both() {
    for (script, workers, checked_by) in [
        ("one two BREAK@2 three four", [true, false, false], [false, true, true]),
        ("one two BREAK@1 three four", [true, false, true], [false, true, false]),
        ("one two STALL@2 three four", [true, false, false], [false, true, true]),
    ] {
        for stream in [true, false] {
            let all = [FakeWorker::start(1).await, FakeWorker::start(2).await, FakeWorker::start(3).await];
            let site = Site::with(&[&all[0], &all[1], &all[2]], |settings| {
                settings.limits.stall_timeout = Duration::from_millis(400);
                settings.limits.search_timeout = Duration::from_secs(10);
            })
            .await;
            site.until_ready(3).await;
            let mut body = chat(script);
            body["stream"] = json!(stream);
            body["provider"] = json!({"order": [all[0].key(), all[1].key()]});
            let answer = site.chat(body).await;
            assert_eq!(answer.status, 200, "{script}: {}", answer.text());
            let note = match stream {
                true => answer.chunks().last().expect("an end")["surety"].clone(),
                false => answer.json()["surety"].clone(),
            };
            let keys = |taken: [bool; 3]| {
                let keys = all.iter().zip(taken).filter(|(_, taken)| *taken).map(|(worker, _)| worker.key());
                json!(keys.collect::<Vec<_>>())
            };
            assert_eq!(note["workers"], keys(workers), "{script}");
            assert_eq!(note["checked_by"], keys(checked_by), "{script}");
            let evidence = evidence(&site, &answer).await;
            let held = check_evidence(&evidence, None, &Expected::default()).expect("it holds");
            assert!(held.checked.contains(&Check::Repeated) && held.checked.contains(&Check::Continuation));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn where_nobody_is_left_to_check_that_is_said() {
    for stream in [true, false] {
        let (first, second, site) = two().await;
        let mut body = by_first(&first, chat("one two LEAVE@2 three"));
        body["stream"] = json!(stream);
        let answer = site.chat(body).await;
        let error = if stream { answer.error_frame() } else { answer.error() };
        let message = error["message"].as_str().expect("a text");
        assert!(
            message.starts_with("The answer could not be checked before its end, and is not charged."),
            "{message}"
        );
        assert_eq!(
            (&error["code"], &error["metadata"]["worker"]),
            (&json!("worker_lost"), &json!(second.key()))
        );
        assert!(!answer.text().contains("three"), "{}", answer.text());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_second_operator_nothing_is_ordered() {
    let first = FakeWorker::start(1).await;
    let site = Site::start(&[&first]).await;
    for stream in [true, false] {
        let mut body = chat("one");
        body["stream"] = json!(stream);
        let answer = site.chat(body).await;
        let error = answer.error();
        assert_eq!((answer.status, &error["code"]), (503, &json!("no_worker")));
        assert!(error["message"].as_str().expect("a text").contains(":verified"), "{error}");
        let removed = &error["metadata"]["removed"][0];
        assert_eq!(
            (&removed["constraint"], &removed["workers"]),
            (&json!("provider.verification_mode"), &json!(1))
        );
    }
    assert!(orders(&first).is_empty(), "before any work");

    // Two workers, of which the second takes no part; `surety.worker` names who answers, not who checks.
    let (first, second, site) = two().await;
    let mut body = chat("one");
    body["surety"] = json!({"worker": second.key()});
    let note = site.chat(body).await.json()["surety"].clone();
    assert_eq!((&note["workers"], &note["checked_by"]), (&json!([second.key()]), &json!([first.key()])));
    second.set(|status| status.state = WorkerState::Draining);
    site.until_ready(1).await;
    let error = site.chat(chat("one")).await.error();
    assert_eq!(error["code"], "no_worker");
    assert_eq!(error["metadata"]["removed"].as_array().map(Vec::len), Some(2), "{error}");
    let mut body = chat("one");
    body["provider"] = json!({"only": [first.key()]});
    assert_eq!(site.chat(body).await.error()["code"], "no_worker");
}

#[tokio::test(flavor = "multi_thread")]
async fn both_are_paid_reserved_and_charged_and_nothing_where_they_differ() {
    let ledger = MemoryLedger::new();
    let (first, second) = (asking(1).await, asking(2).await);
    register(&ledger, OPERATOR, 1, &first.address.location.to_string(), PRICE).await;
    register(&ledger, 3, 2, &second.address.location.to_string(), PRICE).await;
    let site = paid(&ledger, 2).await;
    let mut body = chat("one two");
    body["max_tokens"] = json!(20);
    let mut unchecked = body.clone();
    unchecked["model"] = json!("tiny");
    let quote = site.post("/v1/quote", &body.to_string()).await.json();
    let single = site.post("/v1/quote", &unchecked.to_string()).await.json();
    let worst = number(&quote["cost_max"]);
    assert_eq!(worst, 2 * number(&single["cost_max"]));
    assert_eq!(number(&quote["cost_expected"]), 2 * number(&single["cost_expected"]));
    assert_eq!(quote["checked_by"].as_array().map(Vec::len), Some(1), "{quote}");

    // Enough for one of both, and not for two: by then the first has counted the prompt, of 12 tokens.
    let both = 12 + 20 + number(&single["cost_max"]);
    let poor = key(&site, KeyTerms { budget: Some(Micro(both - 1)), ..KeyTerms::named("poor") }).await;
    let quoted = site.post_with("/v1/quote", &poor, &body.to_string()).await.json();
    assert_eq!(quoted["within_budget"], false);
    let refused = site.post_with(CHAT, &poor, &body.to_string()).await;
    assert_eq!((refused.status, &refused.error()["code"]), (402, &json!("budget_exhausted")));
    assert_eq!(number(&credits(&site, &poor).await["used"]), 0);

    let enough = key(&site, KeyTerms { budget: Some(Micro(both)), ..KeyTerms::named("enough") }).await;
    assert_eq!(site.post_with(CHAT, &enough, &body.to_string()).await.status, 200);
    let mine = key(&site, KeyTerms { budget: Some(Micro(3 * worst)), ..KeyTerms::named("mine") }).await;
    let answer = site.post_with(CHAT, &mine, &body.to_string()).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let cost = number(&answer.json()["surety"]["cost"]);
    let id = answer.header("x-request-id").expect("an id").to_owned();
    let generation = site.get_with(&format!("/v1/generations/{id}"), &mine).await.json();
    let parts = generation["parts"].as_array().expect("parts");
    let checks: Vec<bool> = parts.iter().map(|part| part["check"] == true).collect();
    assert_eq!(checks.iter().filter(|check| **check).count(), 1, "{generation}");
    assert_eq!(parts.len(), 2);
    assert_eq!(parts.iter().map(|part| number(&part["charge"])).sum::<u128>(), cost);
    assert_eq!(generation["output_tokens"], answer.json()["usage"]["completion_tokens"]);
    let account = credits(&site, &mine).await;
    assert_eq!((number(&account["used"]), number(&account["reserved"])), (cost, 0));

    for text in ["one two lie@1", "one two lie@2"] {
        let mut body = chat(text);
        body["max_tokens"] = json!(20);
        let failed = site.post_with(CHAT, &mine, &body.to_string()).await;
        assert_eq!(failed.error()["code"], "verification_failed");
        let account = credits(&site, &mine).await;
        assert_eq!((number(&account["used"]), number(&account["reserved"])), (cost, 0), "{text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_goes_on_and_is_compared_anew() {
    let (first, second, site) = two().await;
    let body = by_first(&first, streamed("one two PAUSE three four PAUSE PAUSE PAUSE five")).to_string();
    let mut wire = site.open(CHAT, &body).await;
    wire.until("three").await;
    let so_far = wire.so_far();
    let ids = so_far.event_ids();
    let Some(last) = ids.last() else { panic!("no id in {}", so_far.text()) };
    let position: usize = last.rsplit(':').next().expect("a place").parse().expect("a number");
    let begun = "one two three four five"[..position].to_owned();
    drop(wire);
    let rest = loop {
        let rest = site.go_on(CHAT, &body, last).await;
        if rest.status != 503 {
            break rest;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    assert_eq!(rest.status, 200, "{}", rest.text());
    assert_eq!(format!("{begun}{}", said(&rest)), "one two three four five");
    let note = rest.chunks().last().expect("an end")["surety"].clone();
    assert_eq!((&note["workers"], &note["checked_by"]), (&json!([first.key()]), &json!([second.key()])));
    let nonces: std::collections::BTreeSet<[u8; 32]> =
        [orders(&first), orders(&second)].concat().iter().map(|order| order.nonce).collect();
    assert_eq!(nonces.len(), 1, "one seed throughout");
}
