//! What a gateway has to say of a request later, answered or not.

use serde_json::{Value, json};
use surety_types::{Acceptance, Dossier, Evidence, Receipt, Signed, StatedEnd, Statement, What};

use crate::{
    fake::FakeWorker,
    http::{Answer, Site},
};

fn chat(text: &str) -> Value {
    json!({"model": "tiny", "messages": [{"role": "user", "content": text}]})
}

/// What is kept of a request, and its statement.
async fn kept(site: &Site, answer: &Answer) -> (Dossier, Statement) {
    let id = answer.header("x-request-id").expect("an id");
    let kept = site.get(&format!("/v1/requests/{id}/explanation")).await;
    assert_eq!(kept.status, 200, "{}", kept.text());
    let dossier = Dossier::parse(&kept.body).expect("a dossier");
    let statement =
        Signed::<Statement>::open(dossier.statement.as_deref().expect("a statement")).expect("signed");
    assert_eq!(statement.request_id, id);
    (dossier, (*statement).clone())
}

fn whats(statement: &Statement) -> Vec<What> {
    statement.events.iter().map(|event| event.what).collect()
}

fn code(statement: &Statement) -> &str {
    match &statement.end {
        StatedEnd::Failed { code, .. } => code,
        _ => "",
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_has_a_statement_beside_its_evidence() {
    let (first, second) = (FakeWorker::start(1).await, FakeWorker::start(2).await);
    let site = Site::start(&[&first, &second]).await;
    let mut body = chat("one two three");
    body["provider"] = json!({"ignore": [first.key()]});
    let answer = site.chat(body).await;
    let (dossier, statement) = kept(&site, &answer).await;
    assert_eq!(statement.end, StatedEnd::Answered);
    let [decision] = &statement.decisions[..] else { panic!("one decision") };
    assert_eq!((decision.qualified, decision.best[0].to_string()), (1, second.key()));
    let removed: Vec<(&str, u32)> =
        decision.removed.iter().map(|kept| (kept.constraint.as_str(), kept.workers)).collect();
    assert_eq!(removed, [("provider.ignore", 1)]);
    assert_eq!(whats(&statement), [What::Ordered, What::Accepted, What::Finished]);
    assert!(dossier.papers.is_empty());
    let evidence = dossier.evidence.expect("evidence");
    Evidence::parse(evidence.get().as_bytes()).expect("it can be read");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_failed_leaves_what_its_worker_signed() {
    for (script, expected, stream) in [
        ("one two BREAK", "worker_lost", true),
        ("one two BREAK", "worker_lost", false),
        ("one STALL", "worker_stalled", true),
    ] {
        let worker = FakeWorker::start(1).await;
        let site = Site::start(&[&worker]).await;
        let mut body = chat(script);
        body["stream"] = json!(stream);
        let answer = site.chat(body).await;
        let (dossier, statement) = kept(&site, &answer).await;
        assert_eq!(code(&statement), expected, "{script}");
        let whats = whats(&statement);
        assert!(whats.starts_with(&[What::Ordered, What::Accepted]), "{whats:?}");
        assert!(whats.contains(&What::BrokeOff), "{whats:?}");
        let paper = dossier.papers.first().expect("a paper");
        let accepted = Signed::<Acceptance>::open(paper.acceptance.as_deref().expect("an acceptance"));
        assert_eq!(accepted.expect("signed").worker.to_string(), worker.key());
        assert!(paper.receipt.is_none() && dossier.evidence.is_none());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn refusals_mistakes_and_nobody_are_kept() {
    let worker = FakeWorker::start(1).await;
    let site = Site::start(&[&worker]).await;
    let (dossier, statement) = kept(&site, &site.chat(chat("REFUSE-INTERNAL")).await).await;
    assert_eq!(code(&statement), "worker_bad_output");
    let receipt = dossier.papers[0].receipt.as_deref().expect("a refusal");
    assert!(Signed::<Receipt>::open(receipt).expect("signed").failure().is_some());

    let mut body = chat("x");
    body["temperature"] = json!(9);
    let (dossier, statement) = kept(&site, &site.chat(body).await).await;
    assert_eq!((code(&statement), dossier.papers.len()), ("invalid_param", 0));
    assert_eq!(statement.path.as_str(), "/v1/chat/completions");

    let mut body = chat("x");
    body["surety"] = json!({"worker": "00000000"});
    let (_, statement) = kept(&site, &site.chat(body).await).await;
    assert_eq!(code(&statement), "no_worker");
    let removed = &statement.decisions.last().expect("a decision").removed;
    assert_eq!((removed[0].constraint.as_str(), removed[0].workers), ("surety.worker", 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn who_leaves_is_noted_and_what_runs_is_not_told_of_yet() {
    let worker = FakeWorker::start(1).await;
    let site = Site::start(&[&worker]).await;
    let mut body = chat("one WAIT");
    body["stream"] = json!(true);
    let mut wire = site.open("/v1/chat/completions", &body.to_string()).await;
    wire.until("one").await;
    let id = wire.so_far().header("x-request-id").expect("an id").to_owned();
    let path = format!("/v1/requests/{id}/explanation");
    let early = site.get(&path).await;
    assert_eq!(early.status, 404);
    assert!(early.text().contains("still being answered"), "{}", early.text());
    drop(wire);
    worker.diary.until(&worker.diary.cancelled, 1).await;
    let kept = loop {
        let kept = site.get(&path).await;
        if kept.status == 200 {
            break kept;
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    };
    let dossier = Dossier::parse(&kept.body).expect("a dossier");
    let statement = Signed::<Statement>::open(&dossier.statement.expect("a statement")).expect("signed");
    assert_eq!(statement.end, StatedEnd::Left);

    for (path, words) in [
        ("/v1/requests/nonsense/explanation", "not a request id"),
        ("/v1/requests/req_00000000000000000000000000000000/explanation", "Nothing is kept"),
    ] {
        let answer = site.get(path).await;
        assert_eq!(answer.status, 404);
        assert!(answer.text().contains(words), "{}", answer.text());
    }
}
