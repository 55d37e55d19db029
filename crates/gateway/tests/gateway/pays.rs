//! A gateway that pays: workers found on a ledger in memory, scripted ones that ask a price.

use alloy_primitives::{B256, U256};
use serde_json::{Value, json};
use surety_client::{channel::ModuleCall, ledger::recover};
use surety_gateway::{Gateway, GatewayLedger, GatewaySettings, RunningGateway, StartError};
use surety_types::{
    Amount, Canonical, ChannelDigests, Digest, Price, SecretKey, Voucher, WEI_PER_MICRO_CREDIT,
    abi::{IChannels, IModels, IOperators, IStaking, Module},
};

use crate::{
    fake::{FakeWorker, manifest, model},
    http::{Site, settings},
    memory::{CREDIT, MemoryLedger, wallet},
};

pub const OPERATOR: u64 = 1;
const PAYER: u64 = 2;
/// A micro-credit for each token, cached ones a tenth.
pub const PRICE: Price =
    Price { prompt: Amount(1_000_000), cached: Amount(100_000), output: Amount(1_000_000) };
/// Micro-credits.
pub const DEPOSIT: u128 = 20_000;

pub async fn asking(seed: u8) -> FakeWorker {
    FakeWorker::asking(seed, vec![model("tiny", manifest("tiny", true))], PRICE).await
}

/// Makes an operator of an account, with one worker and one offer.
pub async fn register(ledger: &MemoryLedger, operator: u64, seed: u8, endpoint: &str, price: Price) {
    let account = ledger.account(operator);
    let secret = SecretKey::from_bytes(&[seed; 32]);
    let message = surety_chain::worker_proof_message(account.chain_id(), account.address(), &secret.public());
    let key = B256::from(secret.public().0);
    let proof = secret.sign(&message).to_vec().into();
    let tiny = manifest("tiny", true);
    let model = B256::from(tiny.id().0.0);
    let known = ledger.view(Module::Models, &IModels::modelCall { id: model });
    let mut calls = vec![
        ModuleCall::paying(Module::Staking, &IStaking::bondCall {}, U256::from(10 * CREDIT)),
        ModuleCall::new(
            Module::Operators,
            &IOperators::registerCall { name: "Acme".into(), url: String::new() },
        ),
        ModuleCall::new(
            Module::Operators,
            &IOperators::addWorkerCall { key, endpoint: endpoint.into(), proof },
        ),
    ];
    if known.height == 0 {
        calls
            .push(ModuleCall::new(Module::Models, &IModels::publishCall { manifest: tiny.to_cbor().into() }));
    }
    let offer = IOperators::offerCall {
        model,
        promptPrice: price.prompt.0,
        cachedPrice: price.cached.0,
        outputPrice: price.output.0,
    };
    calls.push(ModuleCall::new(Module::Operators, &offer));
    account.send(calls).await.expect("registered");
}

pub fn paying(ledger: &MemoryLedger, payer: u64) -> GatewayLedger {
    GatewayLedger {
        account: ledger.account(payer),
        ledger: None,
        deposit: U256::from(DEPOSIT * WEI_PER_MICRO_CREDIT),
        price_ceiling: PRICE,
    }
}

pub async fn site(ledger: &MemoryLedger) -> Site {
    let ledger = paying(ledger, PAYER);
    let site = Site::with(&[], |settings| settings.ledger = Some(ledger)).await;
    site.until(|status| status["workers"][0]["state"] == "ready" && amount(status, "unspent") == DEPOSIT)
        .await;
    site
}

/// A number of the first worker's channel, in micro-credits.
pub fn amount(status: &Value, name: &str) -> u128 {
    status["workers"][0]["channel"][name].as_str().and_then(|text| text.parse().ok()).unwrap_or(0)
}

async fn status(site: &Site) -> Value {
    site.get("/v1/network/status").await.json()
}

/// Every wei that was paid in is unspent, spent, written off or in flight, and the ledger holds it.
fn check_sums(ledger: &MemoryLedger, status: &Value) {
    let parts = ["unspent", "spent", "written_off", "in_flight"].map(|name| amount(status, name));
    assert_eq!(parts.iter().sum::<u128>(), amount(status, "balance"), "{status}");
    let id: Digest =
        status["workers"][0]["channel"]["id"].as_str().expect("an id").parse().expect("a digest");
    let held = ledger.view(Module::Channels, &IChannels::channelsCall { channelId: B256::from(id.0) });
    assert_eq!(held.balance, amount(status, "balance") * WEI_PER_MICRO_CREDIT);
}

fn vouchers(worker: &FakeWorker) -> Vec<Voucher> {
    worker.diary.vouchers.lock().expect("no panic").clone()
}

pub fn charged(worker: &FakeWorker) -> u128 {
    worker.diary.charges.lock().expect("no panic").iter().map(|charge| charge.0).sum()
}

fn highest(worker: &FakeWorker) -> u128 {
    vouchers(worker).iter().map(|voucher| voucher.max_claimable).max().unwrap_or(0)
}

fn chat(text: &str) -> Value {
    json!({"model": "tiny", "messages": [{"role": "user", "content": text}]})
}

#[tokio::test(flavor = "multi_thread")]
async fn a_prompt_is_counted_for_nothing() {
    let (ledger, worker) = (MemoryLedger::new(), asking(1).await);
    register(&ledger, OPERATOR, 1, &worker.address.location.to_string(), PRICE).await;
    let site = site(&ledger).await;
    for _ in 0..3 {
        let counted = site.post("/v1/messages/count_tokens", &chat("one two").to_string()).await;
        assert_eq!(counted.json(), json!({"input_tokens": 12}), "{}", counted.text());
    }
    // What is paid after them is what it would have been.
    let answer = site.chat(chat("one two")).await;
    let cost: u128 = answer.header("x-surety-cost").expect("a cost").parse().expect("a number");
    site.until(|status| amount(status, "in_flight") == 0).await;
    let report = status(&site).await;
    assert_eq!((amount(&report, "spent"), amount(&report, "written_off")), (cost, 0));
    assert_eq!(amount(&report, "unspent"), DEPOSIT - cost);
    let orders: std::collections::BTreeSet<Digest> =
        vouchers(&worker).iter().map(|voucher| voucher.order).collect();
    assert_eq!(orders.len(), 1, "only the answer was promised anything");
    check_sums(&ledger, &report);
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_are_paid_by_vouchers_and_cost_what_their_receipts_say() {
    let (ledger, worker) = (MemoryLedger::new(), asking(1).await);
    register(&ledger, OPERATOR, 1, &worker.address.location.to_string(), PRICE).await;
    let site = site(&ledger).await;
    let report = status(&site).await;
    assert_eq!(report["workers"][0]["operator"], wallet(OPERATOR).address().to_string());
    assert_eq!(report["workers"][0]["bonded"], (10 * CREDIT).to_string());
    assert_eq!(report["workers"][0]["unsettled"], "0");
    assert_eq!(report["workers"][0]["offers"][0]["output"], "1000000");
    assert_eq!(report["ledger"]["account"], wallet(PAYER).address().to_string());
    assert!(report["ledger"]["problem"].is_null());

    let mut total = 0;
    for _ in 0..3 {
        let answer = site.chat(chat("one two three four five six seven eight")).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        let cost: u128 = answer.header("x-surety-cost").expect("a cost").parse().expect("a number");
        assert!(cost > 8);
        let body = answer.json();
        assert_eq!(body["surety"]["cost"], cost.to_string());
        let evidence = site.get(body["surety"]["receipt"].as_str().expect("a path")).await.json();
        assert_eq!(evidence["view"]["envelope"]["charge"], cost.to_string());
        total += cost;
    }
    assert_eq!(total, charged(&worker));
    site.until(|status| amount(status, "in_flight") == 0).await;
    let report = status(&site).await;
    assert_eq!((amount(&report, "spent"), amount(&report, "written_off")), (total, 0));
    check_sums(&ledger, &report);

    // Every voucher is signed for the one channel, none below the one before, and the last backs all that is owed.
    let digests = ChannelDigests::new(88_888);
    let mut before = 0;
    for voucher in vouchers(&worker) {
        let id = voucher.channel.id(&digests);
        assert_eq!(report["workers"][0]["channel"]["id"], id.to_string());
        let digest = digests.voucher(B256::from(id.0), voucher.max_claimable);
        assert_eq!(recover(&digest, &voucher.signature), Some(wallet(PAYER).address()));
        assert!(voucher.max_claimable >= before);
        before = voucher.max_claimable;
    }
    assert!(before >= total * WEI_PER_MICRO_CREDIT && before <= DEPOSIT * WEI_PER_MICRO_CREDIT);
    let orders = worker.diary.orders.lock().expect("no panic").clone();
    assert!(orders.iter().all(|(order, _)| order.price_ceiling == PRICE && order.channel.is_some()));
}

#[tokio::test(flavor = "multi_thread")]
async fn several_answers_at_once_share_a_channel_and_a_stream_tells_its_cost_last() {
    let (ledger, worker) = (MemoryLedger::new(), asking(1).await);
    register(&ledger, OPERATOR, 1, &worker.address.location.to_string(), PRICE).await;
    let site = site(&ledger).await;
    let body = json!({"model": "tiny", "n": 4, "stream": true,
        "messages": [{"role": "user", "content": "{choice} b c d e f g h i"}]});
    let wire = site.open("/v1/chat/completions", &body.to_string()).await;
    let answer = wire.rest().await;
    assert_eq!(answer.header("x-surety-cost"), None, "not known yet");
    let chunks = answer.chunks();
    let cost = chunks.last().expect("a chunk")["surety"]["cost"].as_str().expect("a cost").to_owned();
    assert_eq!(cost, charged(&worker).to_string());
    site.until(|status| amount(status, "in_flight") == 0).await;
    let report = status(&site).await;
    assert_eq!(amount(&report, "spent").to_string(), cost);
    check_sums(&ledger, &report);
}

#[tokio::test(flavor = "multi_thread")]
async fn failures_cost_nothing_and_silence_keeps_its_cover() {
    let (ledger, worker) = (MemoryLedger::new(), asking(1).await);
    register(&ledger, OPERATOR, 1, &worker.address.location.to_string(), PRICE).await;
    let site = site(&ledger).await;
    for script in ["one two FAIL", "REFUSE-INTERNAL"] {
        assert!(site.chat(chat(script)).await.status >= 500, "{script}");
        site.until(|status| amount(status, "in_flight") == 0).await;
        let report = status(&site).await;
        assert_eq!((amount(&report, "spent"), amount(&report, "written_off")), (0, 0), "{script}");
    }
    let prompt = "one two BREAK".len() as u128 + 5;
    assert!(site.chat(chat("one two BREAK")).await.status >= 500);
    site.until(|status| amount(status, "in_flight") == 0).await;
    let report = status(&site).await;
    let (spent, lost) = (amount(&report, "spent"), amount(&report, "written_off"));
    assert_eq!(spent, 0);
    // It was asked twice: first for all of it, then for what it had not signed for.
    assert!(lost >= 2 * (prompt + 128) && lost <= 2 * (prompt + 132), "its whole covers: {lost}");
    check_sums(&ledger, &report);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_leaves_pays_for_what_it_got_and_no_more() {
    let (ledger, worker) = (MemoryLedger::new(), asking(1).await);
    register(&ledger, OPERATOR, 1, &worker.address.location.to_string(), PRICE).await;
    let site = site(&ledger).await;
    let body =
        json!({"model": "tiny", "stream": true, "messages": [{"role": "user", "content": "one two WAIT"}]});
    let mut wire = site.open("/v1/chat/completions", &body.to_string()).await;
    wire.until("two").await;
    drop(wire);
    worker.diary.until(&worker.diary.cancelled, 1).await;
    site.until(|status| amount(status, "in_flight") == 0).await;
    let report = status(&site).await;
    assert_eq!((amount(&report, "spent"), amount(&report, "written_off")), (charged(&worker), 0));
    assert!(charged(&worker) > 0);
    check_sums(&ledger, &report);
}

/// A gateway on the directory of one before it, whose file may still be in use for a moment.
async fn again(directory: &tempfile::TempDir, ledger: &MemoryLedger) -> RunningGateway {
    for _ in 0..500 {
        let settings = GatewaySettings { ledger: Some(paying(ledger, PAYER)), ..settings(directory) };
        match Gateway::start(settings).await {
            Ok(gateway) => return gateway,
            Err(StartError::PayerBook(_) | StartError::Receipts(_)) => {
                tokio::time::sleep(std::time::Duration::from_millis(20)).await;
            }
            Err(error) => panic!("{error}"),
        }
    }
    panic!("the books stay in use");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crash_never_lets_a_voucher_fall_and_an_orderly_end_loses_nothing() {
    let (ledger, worker) = (MemoryLedger::new(), asking(1).await);
    register(&ledger, OPERATOR, 1, &worker.address.location.to_string(), PRICE).await;
    let mut site = site(&ledger).await;
    assert_eq!(site.chat(chat("one two three")).await.status, 200);
    site.until(|status| amount(status, "in_flight") == 0).await;
    let (before, promised) = (status(&site).await, highest(&worker));

    // An orderly end: the same channel, the same sums.
    let Site { gateway, directory, .. } = site;
    gateway.stop().await;
    let gateway = again(&directory, &ledger).await;
    site = Site { address: gateway.address(), gateway, directory };
    site.until(|status| status["workers"][0]["state"] == "ready" && amount(status, "balance") > 0).await;
    assert_eq!(status(&site).await["workers"][0]["channel"], before["workers"][0]["channel"]);
    assert_eq!(site.chat(chat("four five six")).await.status, 200);
    assert!(vouchers(&worker).last().expect("one").max_claimable >= promised);
    site.until(|status| amount(status, "in_flight") == 0).await;
    let (before, promised) = (status(&site).await, highest(&worker));
    assert_eq!(amount(&before, "spent"), charged(&worker));

    // A crash: what may have been promised counts as spent.
    let Site { gateway, directory, .. } = site;
    drop(gateway);
    let gateway = again(&directory, &ledger).await;
    site = Site { address: gateway.address(), gateway, directory };
    site.until(|status| status["workers"][0]["state"] == "ready" && amount(status, "balance") > 0).await;
    let after = status(&site).await;
    assert_eq!(after["workers"][0]["channel"]["id"], before["workers"][0]["channel"]["id"]);
    let counted = amount(&after, "spent") + amount(&after, "written_off");
    assert!(counted * WEI_PER_MICRO_CREDIT >= promised && counted >= charged(&worker));
    assert!(counted <= charged(&worker) + 2 * 150 + DEPOSIT / 64 + 1, "{counted}");
    check_sums(&ledger, &after);
    assert_eq!(site.chat(chat("seven eight")).await.status, 200);
    assert!(vouchers(&worker).last().expect("one").max_claimable >= promised);
    site.gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_channel_is_topped_up_before_it_is_empty() {
    let (ledger, worker) = (MemoryLedger::new(), asking(1).await);
    register(&ledger, OPERATOR, 1, &worker.address.location.to_string(), PRICE).await;
    let site = site(&ledger).await;
    let long = "word ".repeat(400);
    let mut asked = 0;
    while amount(&status(&site).await, "balance") == DEPOSIT {
        let answer = site.chat(chat(long.trim_end())).await;
        asked += 1;
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        assert!(answer.status == 200 || answer.status == 503, "{}", answer.text());
        assert!(asked < 200);
    }
    site.until(|status| amount(status, "in_flight") == 0).await;
    let report = status(&site).await;
    assert!(amount(&report, "spent") > DEPOSIT / 2);
    check_sums(&ledger, &report);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_used_is_shown_with_its_reason() {
    let ledger = MemoryLedger::new();
    let (dear, rubbish) = (asking(1).await, "localhost:1");
    let above = Price { output: Amount(PRICE.output.0 + 1), ..PRICE };
    register(&ledger, OPERATOR, 1, &dear.address.location.to_string(), above).await;
    register(&ledger, 3, 3, rubbish, PRICE).await;
    register(&ledger, 4, 4, "0.0.0.0:9", PRICE).await;
    let paying = paying(&ledger, PAYER);
    let site = Site::with(&[], |settings| settings.ledger = Some(paying)).await;
    site.until(|status| status["workers"][0]["state"] == "ready").await;
    let report = status(&site).await;
    let ignored = report["ledger"]["ignored"].as_array().expect("a list");
    let reasons: Vec<&str> = ignored.iter().filter_map(|worker| worker["reason"].as_str()).collect();
    assert_eq!(
        reasons,
        [
            "its endpoint is no IP:PORT and no relay+http://IP:PORT",
            "its endpoint is the address of no single machine"
        ]
    );
    assert_eq!(report["workers"].as_array().expect("a list").len(), 1);
    assert!(report["workers"][0]["channel"].is_null(), "nothing is put where nothing will be spent");
    let error = site.chat(chat("one")).await.error();
    assert_eq!(error["code"], "no_worker");
    assert!(error["message"].as_str().expect("words").contains("asks more than this gateway pays"));

    // Two gateways never share a channel, and one without money says so.
    let poor = GatewayLedger { account: ledger.account(50), ..self::paying(&ledger, PAYER) };
    let cheap = asking(5).await;
    register(&ledger, 5, 5, &cheap.address.location.to_string(), PRICE).await;
    let site = Site::with(&[], |settings| settings.ledger = Some(poor)).await;
    site.until(|status| {
        status["ledger"]["hint"].as_str().is_some_and(|hint| hint.starts_with("send credits to"))
    })
    .await;
}
