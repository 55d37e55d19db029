//! A gateway that is owed something: workers that accept and fall silent, a ledger in memory by the real rules.

use std::sync::Arc;

use alloy_primitives::{B256, U256};
use alloy_sol_types::{SolCall, SolEvent};
use serde_json::{Value, json};
use surety_client::{Account, channel::ModuleCall};
use surety_gateway::Gateway;
use surety_proof::{output_digest, prompt_digest, state_commitment, text_digest};
use surety_types::{
    Acceptance, Amount, Digest, FinishReason, Order, Outcome, Price, Receipt, SecretKey, Signed, Text,
    abi::{IClaims, IStaking, Module},
    receipt::{ARITHMETIC_VERSION, RECEIPT_VERSION},
};
use tempfile::TempDir;

use crate::{
    fake::{FakeWorker, manifest, model},
    http::{Site, settings},
    memory::{CREDIT, MemoryLedger, wallet},
    pays::{paying, register},
};

pub const OPERATOR: u64 = 1;
pub const PAYER: u64 = 2;
const PRICE: Price = Price { prompt: Amount(1_000_000), cached: Amount(100_000), output: Amount(1_000_000) };

pub async fn begun() -> (MemoryLedger, FakeWorker, Site) {
    let ledger = MemoryLedger::new();
    let worker = FakeWorker::asking(1, vec![model("tiny", manifest("tiny", true))], PRICE).await;
    register(&ledger, OPERATOR, 1, &worker.address.location.to_string(), PRICE).await;
    let paying = paying(&ledger, PAYER);
    let site = Site::with(&[], |settings| settings.ledger = Some(paying)).await;
    site.until(|status| {
        let worker = &status["workers"][0];
        worker["state"] == "ready"
            && worker["channel"]["unspent"].as_str().is_some_and(|unspent| unspent != "0")
    })
    .await;
    (ledger, worker, site)
}

pub fn chat(text: &str) -> Value {
    json!({"model": "tiny", "messages": [{"role": "user", "content": text}]})
}

pub fn claims(status: &Value, name: &str) -> u64 {
    status["ledger"]["claims"][name].as_u64().expect("a count")
}

fn claim(ledger: &MemoryLedger, id: u64) -> IClaims::Claim {
    ledger.view(Module::Claims, &IClaims::claimsCall { id })
}

fn stake(ledger: &MemoryLedger) -> U256 {
    ledger.view(Module::Staking, &IStaking::bondedToCall { operator: wallet(OPERATOR).address() })
}

/// Lets the ledger's time pass the deadline of everything that was ordered, and the margin.
async fn pass_deadlines(ledger: &MemoryLedger, worker: &FakeWorker) {
    let orders = worker.diary.orders.lock().expect("no panic").clone();
    let last = orders.iter().map(|(order, _)| order.deadline_ms).max().expect("an order");
    let now_ms = ledger.account(PAYER).moment().await.expect("a block").timestamp_ms;
    // The ledger's time stands between blocks: whole seconds past the deadline's, the margin, and one.
    ledger.wait(last.saturating_sub(now_ms).div_ceil(1_000) + 60 + 2);
}

/// A gateway where another was, once that has let go of its files.
pub async fn again(directory: TempDir, ledger: &MemoryLedger) -> Site {
    let gateway = loop {
        let mut settings = settings(&directory);
        settings.ledger = Some(paying(ledger, PAYER));
        match Gateway::start(settings).await {
            Ok(gateway) => break gateway,
            Err(_) => tokio::time::sleep(std::time::Duration::from_millis(20)).await,
        }
    };
    Site { address: gateway.address(), gateway, directory }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_falls_silent_compensates_the_gateway_without_anyone_asking() {
    let (ledger, worker, site) = begun().await;
    let supply = ledger.together();
    // It accepts, is paid to begin, and breaks off; and so it does when it is asked for the rest, as often as it is.
    assert!(site.chat(chat("one two BREAK")).await.status >= 500);
    site.until(|status| claims(status, "waiting") >= 1).await;
    let count = || ledger.view(Module::Claims, &IClaims::claimCountCall {});
    assert_eq!(count(), 0, "the deadline has not passed");

    // What waits is on the disk: a gateway that was killed knows it.
    let Site { gateway, directory, .. } = site;
    drop(gateway);
    worker.leave().await;
    let site = again(directory, &ledger).await;
    pass_deadlines(&ledger, &worker).await;
    // All that a day's claims may take of so small a stake is one claim's: a second would be for nothing.
    site.until(|status| claims(status, "open") == 1).await;
    assert_eq!(count(), 1);
    let made = claim(&ledger, 1);
    let payer = wallet(PAYER).address();
    assert_eq!((made.claimant, made.payee, made.operator), (payer, payer, wallet(OPERATOR).address()));
    let (balance, staked) = (ledger.balance(payer), stake(&ledger));

    let params = ledger.account(PAYER).params().await.expect("parameters");
    ledger.wait(params.claim_answer_s + 1);
    site.until(|status| claims(status, "compensated") == 1).await;
    let ended = claim(&ledger, 1);
    assert_eq!((ended.state, ended.compensation), (4, staked / U256::from(100)));
    assert_eq!(stake(&ledger), staked - ended.compensation);
    // The bond is back, the compensation is there, and the gas of one settlement is gone.
    let gas = balance + U256::from(params.claim_bond) + ended.compensation - ledger.balance(payer);
    assert!(gas < U256::from(CREDIT / 1_000), "{gas} wei of gas");
    assert_eq!(ledger.together(), supply, "no unit appears or vanishes");
    let report: Value = site.get("/v1/network/status").await.json();
    assert_eq!(report["ledger"]["claims"]["compensation_wei"], ended.compensation.to_string());
    site.gateway.stop().await;
}

/// The receipt that a worker has for an order after all.
fn receipt(worker: &SecretKey, order: &Order, acceptance: &Acceptance) -> Vec<u8> {
    let prompt: Vec<u32> = (0..acceptance.prompt_tokens).collect();
    let price = acceptance.price;
    let receipt = Receipt {
        version: RECEIPT_VERSION,
        outcome: Outcome::Completed,
        order: order.digest(),
        model: order.model,
        arithmetic: ARITHMETIC_VERSION,
        prompt_tokens: acceptance.prompt_tokens,
        cached_tokens: 0,
        output_tokens: 1,
        prompt_digest: prompt_digest(&prompt),
        output_digest: output_digest(&[3]),
        text_digest: text_digest("x"),
        finish: FinishReason::Cancelled,
        seed: order.seed_bytes(),
        state_commitment: state_commitment(&worker.public(), &[5; 32], &Digest::ZERO),
        price,
        charge: price.charge(acceptance.prompt_tokens, 0, 1).expect("small"),
        accepted_ms: acceptance.accepted_ms,
        first_token_ms: Some(acceptance.accepted_ms),
        done_ms: acceptance.accepted_ms + 1,
        software: Text::clipped("fake/1"),
        worker: worker.public(),
    };
    Signed::sign(receipt, worker).into_parts().1
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_shows_its_receipt_in_time_is_taken_as_any_other() {
    let (ledger, worker, site) = begun().await;
    let supply = ledger.together();
    assert!(site.chat(chat("one two BREAK")).await.status >= 500);
    site.until(|status| claims(status, "waiting") >= 1).await;
    pass_deadlines(&ledger, &worker).await;
    site.until(|status| claims(status, "open") == 1).await;

    // Its operator answers, as workers do by themselves, with what it had computed.
    let operator: Arc<dyn Account> = ledger.account(OPERATOR);
    let topics = vec![IClaims::Claimed::SIGNATURE_HASH, B256::from(U256::from(1))];
    let inputs = operator.inputs(Module::Claims, topics).await.expect("what was called");
    let claimed = IClaims::claimCall::abi_decode(&inputs[0]).expect("a claim");
    let order = Signed::<Order>::open(&claimed.order).expect("an order");
    let acceptance = Signed::<Acceptance>::open(&claimed.acceptance).expect("an acceptance");
    let receipt = receipt(&SecretKey::from_bytes(&[1; 32]), &order, &acceptance);
    let answer = IClaims::answerCall { id: 1, order: claimed.order, receipt: receipt.into() };
    operator.send(vec![ModuleCall::new(Module::Claims, &answer)]).await.expect("taken");
    site.until(|status| claims(status, "answered") == 1).await;
    assert_eq!(claim(&ledger, 1).state, 2);
    assert_eq!(stake(&ledger), U256::from(10 * CREDIT), "it has lost nothing");
    // Who answers is there: no further bond is put at stake for it on that day. What it breaks off now waits until it is too
    // late, and is let go without a claim.
    assert!(site.chat(chat("three BREAK")).await.status >= 500);
    site.until(|status| claims(status, "waiting") >= 1).await;
    pass_deadlines(&ledger, &worker).await;
    let params = operator.params().await.expect("parameters");
    ledger.wait(params.claim_window_s);
    site.until(|status| claims(status, "waiting") == 0 && claims(status, "dropped") >= 1).await;
    assert_eq!(ledger.view(Module::Claims, &IClaims::claimCountCall {}), 1);
    assert_eq!(ledger.together(), supply, "no unit appears or vanishes");
    site.gateway.stop().await;
}
