//! Requests that are paid for by themselves, and credits that are bought: x402 over real sockets, on the real ledger's rules.

use std::time::Duration;

use alloy_primitives::{Address, B256, U256};
use base64::{Engine as _, prelude::BASE64_STANDARD};
use serde_json::{Value, json};
use surety_gateway::{Gateway, GatewaySettings, KeyTerms, Micro, StartError};
use surety_types::{
    WEI_PER_MICRO_CREDIT,
    abi::{ICredit, Module, address::CREDIT},
    credit::{signed::TransferWithAuthorization, transfer_digest},
};

use crate::{
    fake::FakeWorker,
    http::{Answer, Site, settings},
    keys::{credits, key, number},
    memory::{MemoryLedger, wallet},
    pays::{OPERATOR, PRICE, amount, asking, charged, paying, register},
};

pub const CHAT: &str = "/v1/chat/completions";
pub const CHAIN_ID: u64 = 88_888;
pub const GATEWAY: u64 = 2;
pub const PAYER: u64 = 3;
const POOR: u64 = 77;

pub fn chat(text: &str) -> Value {
    json!({"model": "tiny", "max_tokens": 40, "messages": [{"role": "user", "content": text}]})
}

/// A gateway that whoever has no key pays by the request; its one worker asks a price.
pub async fn selling() -> (MemoryLedger, FakeWorker, Site) {
    let (ledger, worker) = (MemoryLedger::new(), asking(1).await);
    register(&ledger, OPERATOR, 1, &worker.address.location.to_string(), PRICE).await;
    let mine = paying(&ledger, GATEWAY);
    let site = Site::with(&[], |settings| {
        settings.ledger = Some(mine);
        settings.x402 = true;
    })
    .await;
    until_open(&site).await;
    (ledger, worker, site)
}

pub async fn until_open(site: &Site) {
    site.until(|status| status["workers"][0]["state"] == "ready" && amount(status, "unspent") > 0).await;
}

pub fn decoded(header: Option<&str>) -> Value {
    let bytes = BASE64_STANDARD.decode(header.expect("a header")).expect("base64");
    serde_json::from_slice(&bytes).expect("JSON")
}

/// What is to be paid, by the answer that asks for it.
pub fn required(answer: &Answer) -> Value {
    assert_eq!(answer.status, 402, "{}", answer.text());
    let required = decoded(answer.header("payment-required"));
    assert_eq!(required["x402Version"], 2);
    assert!(required["resource"]["url"].as_str().expect("a URL").starts_with("http://localhost/"));
    required
}

pub fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_else(|| panic!("no text: {value}"))
}

/// What a payer signs for what is asked for, good for ten minutes from the ledger's time on.
struct Offer {
    accepted: Value,
    transfer: TransferWithAuthorization,
    signer: u64,
    chain_id: u64,
}

impl Offer {
    fn of(ledger: &MemoryLedger, required: &Value, signer: u64, nonce: u8) -> Offer {
        let accepted = required["accepts"][0].clone();
        assert_eq!((text(&accepted["scheme"]), text(&accepted["network"])), ("exact", "eip155:88888"));
        assert_eq!(text(&accepted["asset"]), CREDIT.to_string());
        assert_eq!(accepted["extra"]["name"], "Surety Credit");
        let transfer = TransferWithAuthorization {
            from: wallet(signer).address(),
            to: text(&accepted["payTo"]).parse().expect("an address"),
            value: text(&accepted["amount"]).parse().expect("a number"),
            validAfter: U256::ZERO,
            validBefore: U256::from(ledger.now_s() + 600),
            nonce: B256::repeat_byte(nonce),
        };
        Offer { accepted, transfer, signer, chain_id: CHAIN_ID }
    }

    /// As a header, with further lines.
    fn header(&self) -> String {
        let signature = wallet(self.signer).sign_digest(&transfer_digest(self.chain_id, &self.transfer));
        let TransferWithAuthorization { from, to, value, validAfter, validBefore, nonce } = &self.transfer;
        let payload = json!({
            "x402Version": 2,
            "accepted": self.accepted,
            "payload": {
                "signature": format!("0x{}", signature.map(|byte| format!("{byte:02x}")).concat()),
                "authorization": {
                    "from": from.to_string(), "to": to.to_string(), "value": value.to_string(),
                    "validAfter": validAfter.to_string(), "validBefore": validBefore.to_string(),
                    "nonce": nonce.to_string(),
                },
            },
        });
        format!("PAYMENT-SIGNATURE: {}\r\n", BASE64_STANDARD.encode(payload.to_string()))
    }

    fn asks(&mut self, value: U256) {
        self.transfer.value = value;
        self.accepted["amount"] = Value::from(value.to_string());
    }
}

async fn offer(ledger: &MemoryLedger, site: &Site, body: &Value, nonce: u8) -> Offer {
    let required = required(&site.chat(body.clone()).await);
    Offer::of(ledger, &required, PAYER, nonce)
}

pub fn orders(worker: &FakeWorker) -> usize {
    worker.diary.orders.lock().expect("no panic").len()
}

pub fn wei(micro: u128) -> U256 {
    U256::from(micro) * U256::from(WEI_PER_MICRO_CREDIT)
}

fn moved(ledger: &MemoryLedger, payer: u64, nonce: u8) -> U256 {
    let (authorizer, nonce) = (wallet(payer).address(), B256::repeat_byte(nonce));
    ledger.view(Module::Credit, &ICredit::authorizationUseCall { authorizer, nonce }).moved
}

/// Waits until the ledger has taken so much of a payment.
async fn until_moved(ledger: &MemoryLedger, payer: u64, nonce: u8) -> U256 {
    for _ in 0..500 {
        let wei = moved(ledger, payer, nonce);
        if !wei.is_zero() {
            return wei;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("the payment should be taken");
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_shows_nothing_is_told_what_to_pay_and_may_look() {
    let (_ledger, worker, site) = selling().await;
    let body = chat("one two");
    let answer = site.chat(body.clone()).await;
    let required = required(&answer);
    assert_eq!(answer.error()["code"], "payment_required");
    assert_eq!(text(&required["accepts"][0]["payTo"]), wallet(GATEWAY).address().to_string());
    // What a quote says it may cost is what is asked for.
    let quote = site.post("/v1/quote", &body.to_string()).await.json();
    let asked: U256 = text(&required["accepts"][0]["amount"]).parse().expect("a number");
    assert_eq!(asked, wei(number(&quote["cost_max"])));
    assert_eq!(site.get("/v1/models").await.status, 200);
    for path in ["/v1/usage", "/v1/credits", "/metrics"] {
        assert_eq!(site.get(path).await.error()["code"], "bad_key", "{path}");
    }
    // Any key that clients make up stands for none; one that looks like ours is looked up.
    let dummy = "authorization: Bearer unused\r\n";
    assert_eq!(site.post_with(CHAT, dummy, &body.to_string()).await.error()["code"], "payment_required");
    let mistyped = "authorization: Bearer sk-surety-00\r\n";
    assert_eq!(site.post_with(CHAT, mistyped, &body.to_string()).await.error()["code"], "bad_key");
    // What cannot be answered is not to be paid for.
    let error = site.chat(json!({"model": "huge", "messages": []})).await;
    assert!(error.status == 400 || error.status == 404, "{}", error.text());
    assert_eq!(site.post("/v1/responses", &body.to_string()).await.error()["code"], "bad_key");
    assert_eq!(orders(&worker), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_receipt_charges_is_taken_and_no_more() {
    let (ledger, worker, site) = selling().await;
    let before = ledger.balance(wallet(PAYER).address());
    let body = chat("one two three");
    let paid = offer(&ledger, &site, &body, 1).await;
    let answer = site.post_with(CHAT, &paid.header(), &body.to_string()).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let cost: u128 = answer.header("x-surety-cost").expect("a cost").parse().expect("a number");
    assert!(cost > 0 && wei(cost) < paid.transfer.value && cost == charged(&worker));
    let response = decoded(answer.header("payment-response"));
    assert_eq!((&response["success"], text(&response["network"])), (&json!(true), "eip155:88888"));
    assert_eq!(text(&response["amount"]), wei(cost).to_string());
    assert_eq!(text(&response["payer"]), wallet(PAYER).address().to_string());
    assert!(text(&response["transaction"]).parse::<B256>().is_ok_and(|hash| !hash.is_zero()));
    assert_eq!(ledger.balance(wallet(PAYER).address()), before - wei(cost));
    assert_eq!(moved(&ledger, PAYER, 1), wei(cost));
    // Its receipt is there for whoever knows its id.
    let path = answer.header("x-surety-receipt").expect("a path").to_owned();
    let evidence = site.get(&path).await.json();
    assert_eq!(evidence["view"]["envelope"]["charge"], cost.to_string());
    let id = answer.header("x-request-id").expect("an id").to_owned();
    assert_eq!(number(&site.get(&format!("/v1/generations/{id}")).await.json()["cost"]), cost);

    // A stream tells its cost last, and is taken then.
    let body = json!({"model": "tiny", "max_tokens": 40, "stream": true,
        "messages": [{"role": "user", "content": "four five"}]});
    let paid = offer(&ledger, &site, &body, 2).await;
    let answer = site.post_with(CHAT, &paid.header(), &body.to_string()).await;
    let response = decoded(answer.header("payment-response"));
    assert_eq!((&response["success"], text(&response["transaction"])), (&json!(true), ""));
    assert_eq!(text(&response["extra"]["authorizedAmount"]), paid.transfer.value.to_string());
    let second = number(&answer.chunks().last().expect("a chunk")["surety"]["cost"]);
    assert_eq!(until_moved(&ledger, PAYER, 2).await, wei(second));

    // Anthropic's shape.
    let body = json!({"model": "tiny", "max_tokens": 9, "messages": [{"role": "user", "content": "six"}]});
    let asked = required(&site.post("/v1/messages", &body.to_string()).await);
    let header = Offer::of(&ledger, &asked, PAYER, 3).header();
    assert_eq!(site.post_with("/v1/messages", &header, &body.to_string()).await.status, 200);
    let all = U256::from(charged(&worker)) * U256::from(WEI_PER_MICRO_CREDIT);
    assert_eq!(ledger.balance(wallet(PAYER).address()), before - all);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_does_not_pay_is_refused_by_its_name_and_nothing_is_ordered() {
    let (ledger, worker, site) = selling().await;
    let body = chat("one two");
    let good = || offer(&ledger, &site, &body, 9);
    let check = async |offer: Offer, reason: &str, word: &str| {
        let answer = site.post_with(CHAT, &offer.header(), &body.to_string()).await;
        let required = required(&answer);
        let error = answer.error();
        assert_eq!((text(&error["code"]), text(&required["error"])), ("payment_refused", reason), "{error}");
        assert!(text(&error["message"]).contains(word), "{error} lacks {word}");
    };
    let mut under = good().await;
    under.asks(wei(1));
    check(under, "invalid_exact_evm_payload_authorization_value", "0.000001 credits").await;
    let mut other = good().await;
    other.transfer.value -= U256::from(1);
    check(other, "invalid_exact_evm_payload_authorization_value_mismatch", "was accepted").await;
    let mut elsewhere = good().await;
    elsewhere.transfer.to = wallet(5).address();
    let mismatch = "invalid_exact_evm_payload_recipient_mismatch";
    check(elsewhere, mismatch, "another account").await;
    let mut elsewhere = good().await;
    elsewhere.accepted["payTo"] = Value::from(wallet(5).address().to_string());
    elsewhere.transfer.to = wallet(5).address();
    check(elsewhere, mismatch, "another account").await;
    let mut late = good().await;
    late.transfer.validBefore = U256::from(ledger.now_s());
    check(late, "invalid_exact_evm_payload_authorization_valid_before", "is good until").await;
    let mut soon = good().await;
    soon.transfer.validBefore = U256::from(ledger.now_s() + 50);
    check(soon, "invalid_exact_evm_payload_authorization_valid_before", "60 s yet").await;
    let mut forever = good().await;
    forever.transfer.validBefore = U256::MAX;
    check(forever, "invalid_exact_evm_payload_authorization_valid_before", "a day at most").await;
    let mut early = good().await;
    early.transfer.validAfter = U256::from(ledger.now_s() + 100);
    check(early, "invalid_exact_evm_payload_authorization_valid_after", "only after").await;
    let mut foreign = good().await;
    foreign.accepted["network"] = Value::from("eip155:1");
    check(foreign, "network_mismatch", "eip155:88888").await;
    let mut foreign = good().await;
    foreign.chain_id = 1;
    check(foreign, "invalid_exact_evm_payload_signature", "is not signed by").await;
    let mut gold = good().await;
    gold.accepted["asset"] = Value::from(Address::repeat_byte(7).to_string());
    check(gold, "asset_mismatch", "another asset").await;
    let mut forged = good().await;
    forged.signer = 4;
    check(forged, "invalid_exact_evm_payload_signature", "is not signed by").await;
    let mut poor = good().await;
    (poor.signer, poor.transfer.from) = (POOR, wallet(POOR).address());
    check(poor, "invalid_exact_evm_insufficient_balance", "has 0 wei").await;
    let mut rich = good().await;
    rich.asks(wei(2_000_000_000));
    check(rich, "invalid_exact_evm_insufficient_balance", "Send credits").await;
    let answer = site.post_with(CHAT, "PAYMENT-SIGNATURE: rubbish\r\n", &body.to_string()).await;
    assert_eq!(required(&answer)["error"], "invalid_payload");
    assert_eq!(orders(&worker), 0);
    assert_eq!(ledger.balance(wallet(PAYER).address()), wei(1_000_000_000));

    // One that was used, here or elsewhere, pays for nothing more.
    let paid = good().await;
    assert_eq!(site.post_with(CHAT, &paid.header(), &body.to_string()).await.status, 200);
    let replayed = "invalid_exact_evm_nonce_already_used";
    check(paid, replayed, "used before").await;
    let spent = offer(&ledger, &site, &body, 10).await;
    let TransferWithAuthorization { from, to, value, validAfter, validBefore, nonce } =
        spent.transfer.clone();
    let signature = wallet(PAYER).sign_digest(&transfer_digest(CHAIN_ID, &spent.transfer)).to_vec().into();
    let transfer = ICredit::transferWithAuthorization_0Call {
        from,
        to,
        value,
        validAfter,
        validBefore,
        nonce,
        signature,
    };
    let call = surety_client::channel::ModuleCall::new(Module::Credit, &transfer);
    ledger.account(6).send(vec![call]).await.expect("moved");
    check(spent, replayed, "used before").await;
    assert_eq!(orders(&worker), 1);
    // A stream that was paid for by itself is not gone on with for nothing.
    let answer = site.post_with(CHAT, "Last-Event-ID: x\r\n", &body.to_string()).await;
    assert_eq!(answer.error()["param"], "Last-Event-ID");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_payment_pays_for_one_request_whatever_comes_at_once() {
    let (ledger, worker, site) = selling().await;
    let body = chat("one PAUSE two");
    let paid = offer(&ledger, &site, &body, 1).await.header();
    let text = body.to_string();
    let all = futures::future::join_all((0..12).map(|_| site.post_with(CHAT, &paid, &text))).await;
    let served: Vec<&Answer> = all.iter().filter(|answer| answer.status == 200).collect();
    assert_eq!((served.len(), orders(&worker)), (1, 1));
    for answer in all.iter().filter(|answer| answer.status != 200) {
        assert_eq!(required(answer)["error"], "invalid_exact_evm_nonce_already_used");
    }
    assert_eq!(moved(&ledger, PAYER, 1), wei(charged(&worker)));

    // Of a payer's balance no more is promised than there is.
    let poor = wallet(POOR).address();
    let asked = required(&site.chat(body.clone()).await);
    let each = Offer::of(&ledger, &asked, POOR, 1).transfer.value;
    let gift = ICredit::transferCall { to: poor, value: each * U256::from(2) };
    let gift = surety_client::channel::ModuleCall::new(Module::Credit, &gift);
    ledger.account(6).send(vec![gift]).await.expect("given");
    let headers: Vec<String> = (1..9).map(|nonce| Offer::of(&ledger, &asked, POOR, nonce).header()).collect();
    let all =
        futures::future::join_all(headers.iter().map(|header| site.post_with(CHAT, header, &text))).await;
    assert_eq!(all.iter().filter(|answer| answer.status == 200).count(), 2);
    for answer in all.iter().filter(|answer| answer.status != 200) {
        assert_eq!(required(answer)["error"], "invalid_exact_evm_insufficient_balance");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_fails_takes_nothing_and_its_payment_is_good_again() {
    let (ledger, _worker, site) = selling().await;
    let before = ledger.balance(wallet(PAYER).address());
    let body = chat("one two FAIL");
    let paid = offer(&ledger, &site, &body, 1).await;
    for _ in 0..2 {
        let answer = site.post_with(CHAT, &paid.header(), &body.to_string()).await;
        assert!(answer.status >= 500, "{}", answer.text());
        assert!(answer.header("payment-response").is_none());
    }
    let mut stream = body.clone();
    stream["stream"] = json!(true);
    let answer = site.post_with(CHAT, &paid.header(), &stream.to_string()).await;
    answer.error_frame();
    assert_eq!(ledger.balance(wallet(PAYER).address()), before);
    assert_eq!(moved(&ledger, PAYER, 1), U256::ZERO);
    let body = chat("one two");
    let answer = site.post_with(CHAT, &paid.header(), &body.to_string()).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert!(!moved(&ledger, PAYER, 1).is_zero());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_document_whose_payer_has_not_enough_any_more_is_withheld() {
    let (ledger, _worker, site) = selling().await;
    let body = chat("one HUSH two");
    let asked = required(&site.chat(body.clone()).await);
    let offer = Offer::of(&ledger, &asked, 8, 1);
    let answering = async { site.post_with(CHAT, &offer.header(), &body.to_string()).await };
    let leaving = async {
        _worker.diary.until(&_worker.diary.accepted, 1).await;
        let all = ledger.balance(wallet(8).address()) - U256::from(10u64.pow(16));
        let call = ICredit::transferCall { to: wallet(9).address(), value: all };
        let call = surety_client::channel::ModuleCall::new(Module::Credit, &call);
        ledger.account(8).send(vec![call]).await.expect("moved away");
        // What is left is less than the answer costs: a canceled nonce makes sure.
        let nonce = B256::repeat_byte(1);
        let digest = surety_types::credit::cancel_digest(CHAIN_ID, wallet(8).address(), nonce);
        let cancel = ICredit::cancelAuthorization_0Call {
            authorizer: wallet(8).address(),
            nonce,
            signature: wallet(8).sign_digest(&digest).to_vec().into(),
        };
        let call = surety_client::channel::ModuleCall::new(Module::Credit, &cancel);
        ledger.account(6).send(vec![call]).await.expect("canceled");
        for _ in 0..500 {
            _worker.diary.speaks.notify_one();
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let answer = tokio::select! {
        answer = answering => answer,
        () = leaving => panic!("it should be answered"),
    };
    assert_eq!(required(&answer)["error"], "transaction_failed");
    assert!(answer.text().contains("withheld"), "{}", answer.text());
}

/// A gateway on the directory of one before it, whose files may still be in use for a moment.
pub async fn again(site: Site, ledger: &MemoryLedger) -> Site {
    let Site { gateway, directory, .. } = site;
    drop(gateway);
    for _ in 0..500 {
        let settings =
            GatewaySettings { ledger: Some(paying(ledger, GATEWAY)), x402: true, ..settings(&directory) };
        match Gateway::start(settings).await {
            Ok(gateway) => return Site { address: gateway.address(), gateway, directory },
            Err(StartError::PayerBook(_) | StartError::Receipts(_) | StartError::Batches(_)) => {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            Err(error) => panic!("{error}"),
        }
    }
    panic!("the books stay in use");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_told_before_a_crash_is_taken_after_it_once() {
    let (ledger, worker, site) = selling().await;
    let before = ledger.balance(wallet(PAYER).address());
    let body = json!({"model": "tiny", "max_tokens": 40, "stream": true,
        "messages": [{"role": "user", "content": "one HUSH two"}]});
    let paid = offer(&ledger, &site, &body, 1).await;
    let mut wire = site.open_with(CHAT, &paid.header(), &body.to_string()).await;
    wire.until("one").await;
    // The ledger goes away, then the answer ends, then the gateway dies.
    ledger.set_away(true);
    let told = async {
        loop {
            worker.diary.speaks.notify_one();
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::select! {
        () = wire.until("[DONE]") => {}
        () = told => {}
    }
    drop(wire);
    let mut site = again(site, &ledger).await;
    assert_eq!(ledger.balance(wallet(PAYER).address()), before);
    ledger.set_away(false);
    assert_eq!(until_moved(&ledger, PAYER, 1).await, wei(charged(&worker)));
    // Again, where it was taken already: no more is.
    site = again(site, &ledger).await;
    until_open(&site).await;
    let answer = site.post_with(CHAT, &paid.header(), &body.to_string()).await;
    assert_eq!(required(&answer)["error"], "invalid_exact_evm_nonce_already_used");
    assert_eq!(ledger.balance(wallet(PAYER).address()), before - wei(charged(&worker)));
}

/// Of all keys: granted and bought is used, set aside or left; as the gateway's own metrics say.
async fn check_sums(site: &Site, key: &str) -> u128 {
    let page = site.get_with("/metrics", key).await;
    let of = |kind: &str| -> u128 {
        let line = format!("surety_key_micro_credits{{kind=\"{kind}\"}} ");
        let found = page.text().lines().find_map(|text| text.strip_prefix(&line));
        found.unwrap_or_else(|| panic!("no {kind} in {}", page.text())).parse().expect("a number")
    };
    assert_eq!(of("granted") + of("bought"), of("used") + of("reserved") + of("left"));
    of("bought")
}

#[tokio::test(flavor = "multi_thread")]
async fn credits_are_bought_once_for_each_payment_and_spent_like_a_budget() {
    let (ledger, worker, site) = selling().await;
    let mine = key(&site, KeyTerms { budget: Some(Micro(0)), ..KeyTerms::named("mine") }).await;
    let body = chat("one two").to_string();
    let short = site.post_with(CHAT, &mine, &body).await;
    assert_eq!((short.status, &short.error()["code"]), (402, &json!("budget_exhausted")));
    assert_eq!(orders(&worker), 0);

    let buying = json!({"amount": "5000"}).to_string();
    assert_eq!(site.post("/v1/credits", &buying).await.error()["code"], "bad_key");
    let asked = required(&site.post_with("/v1/credits", &mine, &buying).await);
    assert_eq!(text(&asked["accepts"][0]["amount"]), wei(5000).to_string());
    let before = ledger.balance(wallet(PAYER).address());
    let header = format!("{mine}{}", Offer::of(&ledger, &asked, PAYER, 1).header());
    let all =
        futures::future::join_all((0..6).map(|_| site.post_with("/v1/credits", &header, &buying))).await;
    let bought: Vec<&Answer> = all.iter().filter(|answer| answer.status == 200).collect();
    assert_eq!(bought.len(), 1);
    for answer in all.iter().filter(|answer| answer.status != 200) {
        assert_eq!(required(answer)["error"], "invalid_exact_evm_nonce_already_used");
    }
    assert_eq!(ledger.balance(wallet(PAYER).address()), before - wei(5000));
    let response = decoded(bought[0].header("payment-response"));
    assert_eq!(text(&response["amount"]), wei(5000).to_string());
    let told = bought[0].json();
    assert_eq!((number(&told["bought"]), number(&told["left"])), (5000, 5000));
    assert_eq!((&told["data"]["total_credits"], &told["data"]["total_usage"]), (&json!(0.005), &json!(0.0)));

    let answer = site.post_with(CHAT, &mine, &body).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let cost: u128 = answer.header("x-surety-cost").expect("a cost").parse().expect("a number");
    let told = credits(&site, &mine).await;
    assert_eq!((number(&told["used"]), number(&told["left"])), (cost, 5000 - cost));
    assert_eq!(check_sums(&site, &mine).await, 5000);

    // What was bought is there after a crash, also where it was not known yet that it was taken.
    let asked = required(&site.post_with("/v1/credits", &mine, &buying).await);
    let header = format!("{mine}{}", Offer::of(&ledger, &asked, PAYER, 2).header());
    let taken = async {
        until_moved(&ledger, PAYER, 2).await;
    };
    tokio::select! {
        answer = site.post_with("/v1/credits", &header, &buying) => assert_eq!(answer.status, 200),
        () = taken => {}
    }
    let site = again(site, &ledger).await;
    until_open(&site).await;
    for _ in 0..500 {
        if number(&credits(&site, &mine).await["bought"]) == 10_000 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(check_sums(&site, &mine).await, 10_000);
    assert_eq!(number(&credits(&site, &mine).await["left"]), 10_000 - cost);

    // Where nothing bounds a key, there is nothing to buy; and what is wrong with an amount is named.
    let free = key(&site, KeyTerms::named("free")).await;
    assert_eq!(site.post_with("/v1/credits", &free, &buying).await.error()["code"], "policy");
    let wrong = site.post_with("/v1/credits", &mine, r#"{"amount":"0"}"#).await;
    assert_eq!(wrong.error()["param"], "amount");
}

#[tokio::test(flavor = "multi_thread")]
async fn vectors_are_paid_for_by_their_tokens() {
    const PATH: &str = "/v1/embeddings";
    let (ledger, worker, site) = selling().await;
    let before = ledger.balance(wallet(PAYER).address());
    let body = json!({"model": "tiny", "input": ["abc", "abcdef"], "encoding_format": "base64"}).to_string();
    let asked = required(&site.post(PATH, &body).await);
    let offer = Offer::of(&ledger, &asked, PAYER, 1);
    let answer = site.post_with(PATH, &offer.header(), &body).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(answer.json()["data"].as_array().expect("vectors").len(), 2);
    assert_eq!(answer.json()["usage"]["total_tokens"], 9);
    let cost: u128 = answer.header("x-surety-cost").expect("a cost").parse().expect("a number");
    assert!(cost > 0 && cost == charged(&worker) && wei(cost) <= offer.transfer.value);
    let response = decoded(answer.header("payment-response"));
    assert_eq!(text(&response["amount"]), wei(cost).to_string());
    assert_eq!(moved(&ledger, PAYER, 1), wei(cost));
    assert_eq!(ledger.balance(wallet(PAYER).address()), before - wei(cost));
    // The same payment is for no further vectors, and what is too little for them is refused.
    let again = site.post_with(PATH, &offer.header(), &body).await;
    assert_eq!(required(&again)["error"], "invalid_exact_evm_nonce_already_used");
    let mut under = Offer::of(&ledger, &asked, PAYER, 2);
    under.asks(wei(1));
    let refused = site.post_with(PATH, &under.header(), &body).await;
    assert_eq!(required(&refused)["error"], "invalid_exact_evm_payload_authorization_value");
    // What fails takes nothing.
    let failing = json!({"model": "tiny", "input": "NO-VECTOR"}).to_string();
    let asked = required(&site.post(PATH, &failing).await);
    let offer = Offer::of(&ledger, &asked, PAYER, 3);
    let failed = site.post_with(PATH, &offer.header(), &failing).await;
    assert!(failed.status >= 500, "{}", failed.text());
    assert_eq!(moved(&ledger, PAYER, 3), U256::ZERO);
    assert_eq!(ledger.balance(wallet(PAYER).address()), before - wei(cost));
}
