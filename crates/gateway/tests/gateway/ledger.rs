//! What the ledger knows of an answer, as the gateway tells it; and a refund that waits for whose channel it was.

use alloy_primitives::{Address, B256, U256};
use serde_json::{Value, json};
use surety_chain::{inclusion_path, leaf_hash, root_of, tariff::COLLECT_GAS};
use surety_client::channel::ModuleCall;
use surety_proof::output_digest;
use surety_types::{
    Canonical, Digest, Evidence, Inclusion, ModelId, Receipt, SecretKey, Signed,
    abi::{IDisputes, IModels, IReceipts, Module},
};

use crate::{
    claims::{OPERATOR, PAYER, again, begun, chat, claims},
    fake::{FakeWorker, manifest},
    http::Site,
    memory::{MemoryLedger, wallet},
};

/// Neither the payer nor the operator.
const STRANGER: u64 = 7;

/// An answer's request id and evidence. It is long enough that a refund is worth collecting.
async fn answered(site: &Site) -> (String, Evidence) {
    let answer = site.chat(chat(&"word ".repeat(300))).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let id = answer.header("x-request-id").expect("an id").to_owned();
    let evidence = site.get(&format!("/v1/receipts/{id}")).await;
    (id, Evidence::parse(evidence.text().as_bytes()).expect("evidence"))
}

async fn part(site: &Site, id: &str) -> Value {
    let told = site.get(&format!("/v1/receipts/{id}/ledger")).await;
    assert_eq!(told.status, 200, "{}", told.text());
    let told = told.json();
    assert_eq!((told["id"].as_str(), told["parts_left_out"].as_u64()), (Some(id), Some(0)));
    assert_eq!(told["parts"].as_array().map(Vec::len), Some(1), "{told}");
    told["parts"][0].clone()
}

fn said(part: &Value, words: &str) -> bool {
    part["said"].as_array().expect("lines").iter().any(|line| line.as_str().expect("words").contains(words))
}

/// The worker is convicted by a second answer, shown by somebody who does not say whose channel it was.
async fn convict(ledger: &MemoryLedger, evidence: &Evidence) {
    let answer = &evidence.answers[0];
    let first = answer.receipt.clone().expect("a receipt");
    let receipt: Receipt = (*Signed::<Receipt>::open(&first).expect("a receipt")).clone();
    let second = Receipt { output_digest: output_digest(&[7; 8]), ..receipt };
    let second = Signed::sign(second, &SecretKey::from_bytes(&[1; 32])).into_parts().1;
    let call = IDisputes::twoAnswersCall {
        order: answer.order.clone().into(),
        first: first.into(),
        second: second.into(),
        channel: Vec::new().into(),
        salt: B256::ZERO,
    };
    let sent = ledger.account(STRANGER).send(vec![ModuleCall::new(Module::Disputes, &call)]).await;
    sent.expect("a conviction");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_ledger_knows_of_an_answer_is_told_and_a_waiting_refund_is_collected() {
    let (ledger, worker, site) = begun().await;
    let supply = ledger.together();
    let (id, evidence) = answered(&site).await;
    let before = part(&site, &id).await;
    let receipt = Signed::<Receipt>::open(evidence.answers[0].receipt.as_ref().expect("a receipt"));
    assert_eq!(before["receipt"], receipt.expect("a receipt").digest().to_string());
    assert_eq!((before["drawn"].as_bool(), before["audited_by"].as_u64()), (Some(false), Some(0)));
    assert!(before["refunded"].is_null() && before["operator"].is_string());
    assert!(said(&before, "not drawn: no audit re-checked it"), "{before}");

    convict(&ledger, &evidence).await;
    let waits = part(&site, &id).await;
    assert_eq!((waits["convicted"].as_bool(), waits["refunded"].as_bool()), (Some(true), Some(false)));
    assert_eq!(waits["dispute_state"], "the worker signed two answers to one order");
    assert!(said(&waits, "waits for the payer to show its channel"), "{waits}");
    let owed: U256 = waits["refund_owed_wei"].as_str().expect("an amount").parse().expect("a number");
    let dispute = ledger.view(Module::Disputes, &IDisputes::disputesCall { id: 1 });
    assert_eq!((dispute.owed, dispute.payee), (owed, Address::ZERO));
    assert_eq!(owed, dispute.paid * U256::from(2));
    assert!(owed > U256::from(COLLECT_GAS * 1_000_000_000), "{owed}");

    // A gateway looks for refunds when it starts, and then now and again.
    let Site { gateway, directory, .. } = site;
    gateway.stop().await;
    worker.leave().await;
    let payer = wallet(PAYER).address();
    let balance = ledger.balance(payer);
    let site = again(directory, &ledger).await;
    site.until(|status| status["ledger"]["claims"]["refunds_wei"] == owed.to_string()).await;
    let gas = balance + owed - ledger.balance(payer);
    assert!(!gas.is_zero() && gas < owed, "{gas} wei of gas for {owed}");
    let done = part(&site, &id).await;
    assert_eq!((done["refunded"].as_bool(), &done["refund_owed_wei"]), (Some(true), &"0".into()));
    assert!(said(&done, "its payer has the refund"), "{done}");
    let report = site.get("/v1/network/status").await.json();
    assert_eq!(claims(&report, "open"), 0);
    assert_eq!(ledger.together(), supply, "no unit appears or vanishes");

    // The conviction is on its operator's record.
    let operator = done["operator"].as_str().expect("an account");
    let path = format!("/v1/network/operators/{operator}/ledger");
    let record = site.get(&path).await;
    assert_eq!(record.status, 200, "{}", record.text());
    let record = record.json();
    let [dispute] = &record["disputes"].as_array().expect("disputes")[..] else { panic!("one in {record}") };
    assert_eq!(
        (&dispute["id"], &dispute["is_convicted"], &dispute["is_open"]),
        (&json!(1), &json!(true), &json!(false))
    );
    assert_eq!(dispute["state"], "the worker signed two answers to one order");
    assert!(record["jailed_until"].as_u64().is_some_and(|until| until > 0), "{record}");
    let bonded = record["bonded_wei"].as_str().and_then(|wei| wei.parse::<u128>().ok());
    assert!(bonded.is_some_and(|wei| wei > 0), "{record}");
    assert_eq!((&record["audits_missed"], &record["disputes_left_out"]), (&json!(0), &json!(0)));
    let unknown = site.get(&format!("/v1/network/operators/{}/ledger", Address::ZERO)).await;
    assert_eq!((unknown.status, &unknown.error()["code"]), (404, &json!("not_found")));

    // A ledger that cannot be asked is no answer about audits.
    ledger.set_away(true);
    let error = loop {
        let answer = site.get(&path).await;
        if answer.status != 200 {
            break answer;
        }
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    };
    assert_eq!((error.status, &error.error()["code"]), (503, &json!("ledger_unavailable")));
    let error = site.get(&format!("/v1/receipts/{id}/ledger")).await;
    assert_eq!((error.status, error.header("retry-after")), (503, Some("5")));
    assert_eq!(error.error()["code"], "ledger_unavailable");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_receipt_is_in_its_log_only_if_a_path_leads_to_the_root_on_the_ledger() {
    let (ledger, worker, site) = begun().await;
    let (id, evidence) = answered(&site).await;
    let state = async || part(&site, &id).await["inclusion"]["state"].clone();
    assert_eq!(state().await, "not_shown");
    let epoch = ledger.epoch();
    worker.show(Inclusion::Unposted { epoch });
    assert_eq!(state().await, "not_yet");

    let receipt = Signed::<Receipt>::open(evidence.answers[0].receipt.as_ref().expect("a receipt"));
    let receipt = receipt.expect("a receipt").digest();
    let leaves: Vec<[u8; 32]> =
        [[1; 32], [2; 32], receipt.0].iter().map(|digest| leaf_hash(digest)).collect();
    let path: Vec<Digest> = inclusion_path(&leaves, 2).expect("a leaf").into_iter().map(Digest).collect();
    let place = Inclusion::Posted { epoch, index: 2, path: path.clone() };
    worker.show(place.clone());
    assert_eq!(state().await, "not_yet", "the ledger has no root");
    ledger.next_epoch();
    let call = IReceipts::postCall { epoch, size: 3, root: root_of(&leaves).into() };
    let posted = ledger.account(OPERATOR).send(vec![ModuleCall::new(Module::Receipts, &call)]).await;
    posted.expect("a root");

    let shown = part(&site, &id).await;
    assert!(said(&shown, "its receipt is entry 3 of 3 in its operator's log of epoch"), "{shown}");
    let shown = &shown["inclusion"];
    assert_eq!((&shown["state"], &shown["epoch"]), (&json!("included"), &json!(epoch)));
    assert_eq!((&shown["index"], &shown["size"]), (&json!(2), &json!(3)));
    assert_eq!(shown["root"], Digest(root_of(&leaves)).to_string());
    assert_eq!(shown["path"], json!(path.iter().map(Digest::to_string).collect::<Vec<_>>()));

    for wrong in [
        Inclusion::Posted { epoch, index: 1, path: path.clone() },
        Inclusion::Posted { epoch, index: 2, path: vec![] },
        Inclusion::Posted { epoch, index: 2, path: vec![Digest::ZERO] },
    ] {
        worker.show(wrong);
        assert_eq!(state().await, "refuted");
    }
    worker.show(place);
    assert_eq!(state().await, "included");
    worker.leave().await;
    site.until(|status| status["workers"][0]["state"] != "ready").await;
    assert!(part(&site, &id).await["inclusion"].is_null(), "there is nobody to ask");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_without_a_ledger_says_so() {
    let worker = FakeWorker::start(1).await;
    let site = Site::start(&[&worker]).await;
    let (id, _) = answered(&site).await;
    let error = site.get(&format!("/v1/receipts/{id}/ledger")).await;
    assert_eq!((error.status, error.header("x-should-retry")), (404, Some("false")));
    assert_eq!(error.error()["code"], "no_ledger");
    for unknown in ["req_00000000000000000000000000000000", "nonsense"] {
        let error = site.get(&format!("/v1/receipts/{unknown}/ledger")).await;
        assert_eq!((error.status, error.error()["code"].as_str()), (404, Some("not_found")), "{unknown}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_forbids_disclosure_signs_that_into_every_order_and_is_told_what_it_means() {
    let worker = FakeWorker::start(1).await;
    let site = Site::start(&[&worker]).await;
    for (disclosure, confidential) in [(None, false), (Some("allow"), false), (Some("deny"), true)] {
        let mut body = chat("one two three");
        if let Some(disclosure) = disclosure {
            body["provider"] = json!({"disclosure": disclosure});
        }
        let answer = site.chat(body).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        let ordered = worker.diary.orders.lock().expect("no panic").last().expect("an order").0.clone();
        assert_eq!(ordered.is_confidential(), confidential, "{disclosure:?}");
        let not_checked = answer.json()["surety"]["not_checked"].clone();
        let lines: Vec<&str> =
            not_checked.as_array().expect("lines").iter().filter_map(Value::as_str).collect();
        let told = lines.iter().any(|line| line.starts_with("not audited: the payer forbade disclosure"));
        assert_eq!(told, confidential, "{lines:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_models_name_stood_for_is_told_as_the_ledger_has_it() {
    let (ledger, _worker, site) = begun().await;
    let (tiny, other) = (manifest("tiny", true), manifest("other", true));
    let path = format!("/v1/network/models/{}/names", tiny.id());
    let first = site.get(&path).await;
    assert_eq!(first.status, 200, "{}", first.text());
    assert_eq!(
        first.json()["names"],
        json!([{"name": "tiny", "holder": null, "versions": [], "left_out": 0}])
    );

    let point = |id: ModelId| IModels::setNameCall { name: "tiny".into(), id: B256::from(id.0.0) };
    let calls = vec![
        ModuleCall::new(Module::Models, &IModels::publishCall { manifest: other.to_cbor().into() }),
        ModuleCall::new(Module::Models, &point(other.id())),
        ModuleCall::new(Module::Models, &point(tiny.id())),
    ];
    ledger.account(STRANGER).send(calls).await.expect("a name");
    let told = loop {
        let told = site.get(&path).await.json();
        if told["names"][0]["versions"].as_array().is_some_and(|versions| !versions.is_empty()) {
            break told;
        }
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    };
    let name = &told["names"][0];
    assert_eq!(name["holder"], wallet(STRANGER).address().to_string());
    let versions = name["versions"].as_array().expect("versions").iter();
    let versions: Vec<_> = versions.map(|one| (one["version"].as_u64(), one["model"].as_str())).collect();
    let [tiny, other] = [tiny.id().to_string(), other.id().to_string()];
    assert_eq!(versions, [(Some(2), Some(tiny.as_str())), (Some(1), Some(other.as_str()))]);
    assert_eq!(site.get("/v1/network/models/nothing/names").await.error()["code"], "model_unknown");
}
