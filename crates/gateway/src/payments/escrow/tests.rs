//! What vouchers pay for, whatever is sent and in whatever order, and what a crash leaves of channels.

use std::{path::Path, time::Duration};

use alloy_primitives::{Address, B256};
use alloy_sol_types::SolValue as _;
use base64::{Engine as _, prelude::BASE64_STANDARD};
use proptest::prelude::*;
use serde_json::{Value, json};
use surety_types::{
    abi::address::{CREDIT, DEPOSIT_COLLECTOR},
    channel::DepositAuthorization,
    credit::receive_digest,
};

use super::{
    super::{
        Payments, Sums,
        tests::memory::{MemoryLedger, wallet},
        wire::{Asked, Shown as Any},
    },
    *,
};
use crate::keys::Keys;

const GATEWAY: u64 = 2;
const PAYER: u64 = 3;
const CHAIN_ID: u64 = 88_888;

fn payee() -> Payee {
    Payee { chain_id: CHAIN_ID, account: wallet(GATEWAY).address(), valid_s: 900 }
}

fn config(salt: u8) -> Config {
    Config {
        payer: wallet(PAYER).address(),
        payer_authorizer: wallet(PAYER).address(),
        receiver: wallet(GATEWAY).address(),
        withdraw_delay_s: WITHDRAW_DELAY_S,
        salt: B256::repeat_byte(salt),
    }
}

fn id(config: &Config) -> B256 {
    ChannelDigests::of_escrow(CHAIN_ID).channel_id(&config.on_ledger())
}

fn shown(ceiling: u128, amount: u128) -> Shown {
    let config = config(0);
    let id = id(&config);
    let digest = ChannelDigests::of_escrow(CHAIN_ID).voucher(id, ceiling);
    let signature = wallet(PAYER).sign_digest(&digest).to_vec();
    Shown { config, id, ceiling, signature, amount, kind: Kind::Voucher }
}

fn seen(balance: u128, claimed: u128, leaving: u128) -> Seen {
    Seen { now_s: 1, balance, claimed, leaving, leaving_since: u64::from(leaving > 0) }
}

fn held(shown: &Shown, request: u128, told: bool) -> Held {
    Held {
        request: RequestId::of_bits(request).to_string(),
        told,
        ceiling: shown.ceiling,
        signature: shown.signature.clone(),
        charged: 0,
    }
}

/// A payload as stock clients send it.
fn sound() -> Value {
    let (config, shown) = (config(0), shown(700, 700));
    let address = |address: &Address| address.to_string();
    json!({
        "x402Version": 2,
        "accepted": {
            "scheme": "batch-settlement", "network": "eip155:88888", "asset": CREDIT.to_string(), "amount": "700",
            "payTo": address(&config.receiver), "maxTimeoutSeconds": 900, "extra": {},
        },
        "payload": {
            "type": "deposit",
            "channelConfig": {
                "payer": address(&config.payer), "payerAuthorizer": address(&config.payer_authorizer),
                "receiver": address(&config.receiver), "receiverAuthorizer": address(&config.receiver),
                "token": CREDIT.to_string(), "withdrawDelay": WITHDRAW_DELAY_S, "salt": config.salt.to_string(),
            },
            "voucher": {
                "channelId": shown.id.to_string(), "maxClaimableAmount": "700",
                "signature": alloy_primitives::hex::encode_prefixed(&shown.signature),
            },
            "deposit": { "amount": "5000", "authorization": { "erc3009Authorization": {
                "validAfter": "0", "validBefore": "99", "salt": B256::repeat_byte(6).to_string(),
                "signature": format!("0x{}", "07".repeat(65)),
            } } },
            "__extensions": {},
        },
    })
}

fn read_all(document: &Value) -> Result<Shown, Refusal> {
    match payee().read(&BASE64_STANDARD.encode(document.to_string()), Asked::Answer)? {
        Any::Voucher(shown) => Ok(*shown),
        Any::Authorization(authorization) => panic!("no voucher: {authorization:?}"),
    }
}

#[test]
fn what_was_signed_is_read() {
    let found = read_all(&sound()).expect("sound");
    let Kind::Deposit(deposit) = &found.kind else { panic!("{found:?}") };
    assert_eq!((deposit.amount, deposit.signature.len()), (5_000, 65));
    assert_eq!(
        (found.config.clone(), found.id, found.ceiling, found.amount),
        (config(0), id(&config(0)), 700, 700)
    );
    let mut refund = sound();
    refund["payload"]["type"] = json!("refund");
    assert_eq!(read_all(&refund).expect("sound").kind, Kind::Refund(None));
    refund["payload"]["amount"] = json!("5");
    assert_eq!(read_all(&refund).expect("sound").kind, Kind::Refund(Some(5)));
    refund["payload"]["type"] = json!("voucher");
    assert_eq!(read_all(&refund).expect("sound").kind, Kind::Voucher);
    let credits = payee().read(&BASE64_STANDARD.encode(sound().to_string()), Asked::Credits);
    assert_eq!(credits.expect_err("not by vouchers").reason, "unsupported_scheme");
}

#[test]
fn what_is_wrong_is_named() {
    let check = |pointer: &str, value: Value, reason: &str| {
        let mut document = sound();
        *document.pointer_mut(pointer).unwrap_or_else(|| panic!("{pointer}")) = value;
        let refusal = read_all(&document).expect_err(pointer);
        assert_eq!(refusal.reason, reason, "{pointer}");
        assert!(refusal.message.len() > 30, "{}", refusal.message);
    };
    let other = json!(Address::repeat_byte(3).to_string());
    check("/accepted/network", json!("eip155:8"), reason::NETWORK);
    check("/accepted/asset", other.clone(), reason::TOKEN);
    check("/accepted/payTo", other.clone(), reason::RECEIVER);
    check("/payload/type", json!("claim"), reason::PAYLOAD_TYPE);
    check("/payload/type", json!(7), reason::PAYLOAD_TYPE);
    check("/payload", json!([]), reason::PAYLOAD_TYPE);
    check("/payload/channelConfig/receiver", other.clone(), reason::RECEIVER);
    check("/payload/channelConfig/receiverAuthorizer", other.clone(), reason::RECEIVER_AUTHORIZER);
    check("/payload/channelConfig/token", other.clone(), reason::TOKEN);
    check("/payload/channelConfig/payer", other, reason::CHANNEL_ID);
    check("/payload/channelConfig/withdrawDelay", json!(30 * 86_400 + 1), reason::WITHDRAW_DELAY);
    check("/payload/channelConfig/withdrawDelay", json!(u64::MAX), reason::WITHDRAW_DELAY);
    check("/payload/channelConfig/withdrawDelay", json!(-1), "invalid_payload");
    check("/payload/channelConfig/salt", json!("0x12"), "invalid_payload");
    check("/payload/voucher/channelId", json!(B256::ZERO.to_string()), reason::CHANNEL_ID);
    for bad in ["", "-1", "0x5", "340282366920938463463374607431768211456"] {
        check("/payload/voucher/maxClaimableAmount", json!(bad), "invalid_payload");
        check("/payload/deposit/amount", json!(bad), "invalid_payload");
        check("/accepted/amount", json!(bad), "invalid_payload");
    }
    check("/payload/voucher/signature", json!("zz"), "invalid_payload");
    check("/payload/deposit", json!(null), "invalid_payload");
    check("/payload/deposit/authorization", json!({}), reason::DEPOSIT_AUTHORIZATION);
    let permit = json!({ "permit2Authorization": {} });
    check("/payload/deposit/authorization", permit, reason::DEPOSIT_AUTHORIZATION);
}

#[test]
fn a_voucher_pays_for_exactly_what_was_charged_and_may_be() {
    let mut row = Row::new(config(0), &seen(1_000, 0, 0));
    let check = |row: &Row, shown: &Shown, covers: u128, expected: Result<(), &str>| {
        assert_eq!(judge(shown, row, covers).map_err(|refusal| refusal.reason), expected);
    };
    check(&row, &shown(700, 700), 1_000, Ok(()));
    check(&row, &shown(700, 700), 699, Err(reason::EXCEEDS));
    check(&row, &shown(700, 700), 0, Err(reason::UNFUNDED));
    check(&row, &shown(701, 700), 1_000, Err(reason::STALE));
    row.held = Some(held(&shown(700, 700), 1, false));
    row.charge(100);
    assert_eq!(row.end(), 100);
    check(&row, &shown(700, 700), 1_000, Err(reason::STALE));
    check(&row, &shown(700, 600), 1_000, Err(reason::USED));
    check(&row, &shown(701, 601), 1_000, Ok(()));
    check(&row, &shown(u128::MAX, u128::MAX), u128::MAX, Err(reason::STALE));
    // What is claimed is spent, and what is asked back does not pay.
    row.see(&seen(1_000, 100, 900));
    check(&row, &shown(101, 1), seen(1_000, 100, 900).covers(), Err(reason::UNFUNDED));
    check(&row, &shown(101, 1), seen(1_000, 100, 800).covers(), Ok(()));
    // The corrective answer shows the payer's own best voucher.
    let refusal = judge(&shown(5, 5), &row, 1_000).expect_err("stale");
    let state = refusal.state.expect("how it stands");
    assert_eq!(state["channelState"]["chargedCumulativeAmount"], "100");
    assert_eq!(state["voucherState"]["signedMaxClaimable"], "700");
    let signature = alloy_primitives::hex::encode_prefixed(&shown(700, 700).signature);
    assert_eq!(state["voucherState"]["signature"], signature);
}

#[derive(Debug, Clone)]
struct Step {
    /// What the payer's book is off by, and what it signs for.
    off: i64,
    amount: u64,
    /// What receipts charge, in two parts.
    charges: [u64; 2],
    /// Shown again instead of signed anew.
    replayed: Option<usize>,
    /// Wei that come in and are claimed.
    deposit: u64,
    claims: bool,
}

fn step() -> impl Strategy<Value = Step> {
    let small = 1u64..40;
    let replayed = prop::option::weighted(0.3, 0usize..20);
    (
        prop_oneof![5 => Just(0i64), 1 => -20i64..20],
        small.clone(),
        [small.clone(), small],
        replayed,
        0u64..50,
        any::<bool>(),
    )
        .prop_map(|(off, amount, charges, replayed, deposit, claims)| Step {
            off,
            amount,
            charges,
            replayed,
            deposit,
            claims,
        })
}

proptest! {
    /// However vouchers come: what is charged is what served requests cost, is covered by a kept voucher and by the ledger,
    /// and no ceiling pays twice.
    #[test]
    fn no_order_of_vouchers_takes_more_than_was_signed(steps in prop::collection::vec(step(), 1..60)) {
        let mut row = Row::new(config(0), &seen(0, 0, 0));
        let (mut balance, mut claimed, mut spent) = (0u128, 0u128, 0u128);
        let mut paid: Vec<u128> = Vec::new();
        for step in steps {
            balance += u128::from(step.deposit);
            row.see(&seen(balance, claimed, 0));
            let mut amount = u128::from(step.amount);
            let mut ceiling = (row.charged + amount).saturating_add_signed(i128::from(step.off));
            if let Some(ceiling_before) = step.replayed.and_then(|index| paid.get(index)) {
                // Whoever shows a voucher again chooses what it says to be for.
                ceiling = *ceiling_before;
                amount = ceiling.saturating_sub(row.charged);
            }
            // Nobody is asked for nothing.
            if amount == 0 {
                continue;
            }
            let voucher = Shown { ceiling, amount, ..shown(0, 0) };
            if judge(&voucher, &row, balance).is_ok() {
                prop_assert_eq!(ceiling, row.charged + amount);
                prop_assert!(ceiling <= balance);
                prop_assert!(!paid.contains(&ceiling), "{} pays twice", ceiling);
                let before = row.charged;
                row.held = Some(held(&voucher, 1, true));
                let first = u128::from(step.charges[0]);
                row.charge(first);
                row.charge(first + u128::from(step.charges[1]));
                let charged = row.end();
                prop_assert_eq!(row.charged, before + charged);
                prop_assert!(charged <= amount);
                spent += charged;
                if charged > 0 {
                    paid.push(ceiling);
                }
            }
            prop_assert_eq!(row.charged, spent);
            prop_assert!(row.charged <= row.signed && row.signed <= balance);
            prop_assert!(row.held.is_none() && row.spent.iter().all(|ceiling| *ceiling > row.charged));
            if step.claims {
                claimed = row.charged;
            }
            // What is on the disk is what there was.
            let text = serde_json::to_vec(&row).expect("text");
            prop_assert_eq!(&serde_json::from_slice::<Row>(&text).expect("a row"), &row);
        }
    }

    #[test]
    fn no_bytes_stop_the_reader(bytes in prop::collection::vec(any::<u8>(), 1..12)) {
        let mut document = sound().to_string().into_bytes();
        for (at, byte) in bytes.iter().enumerate() {
            let length = document.len();
            document[(at * 197 + usize::from(*byte) * 5) % length] = *byte;
        }
        // Whatever comes of it, it is told.
        let _ = payee().read(&BASE64_STANDARD.encode(&document), Asked::Answer);
    }
}

#[test]
fn amounts_of_128_bits_are_kept_whole() {
    let mut row = Row::new(config(0), &seen(u128::MAX, u128::MAX - 2, 0));
    row.spent.insert(u128::MAX);
    let text = serde_json::to_vec(&row).expect("text");
    assert_eq!(serde_json::from_slice::<Row>(&text).expect("a row"), row);
}

#[test]
fn ceilings_with_the_least_left_are_forgotten_first() {
    let mut row = Row::new(config(0), &seen(u128::MAX, 0, 0));
    row.spent = (10_000..10_000 + SPENT_MAX as u128).collect();
    row.held = Some(held(&shown(50_000, 50_000), 1, false));
    row.charge(1);
    row.end();
    assert_eq!(
        (row.spent.len(), row.spent.first(), row.spent.last()),
        (SPENT_MAX, Some(&10_001), Some(&50_000))
    );
}

async fn open(
    ledger: &MemoryLedger,
    directory: &Path,
    answered: &dyn Fn(RequestId) -> Option<u128>,
) -> (Arc<Payments>, [crate::disk::Writer; 2]) {
    let (keys, keys_writer) = Keys::open(directory, true, None).expect("keys");
    let account = ledger.account(GATEWAY);
    let opened = Payments::open(account, keys, Duration::from_secs(60), directory, answered);
    let (payments, writer) = opened.expect("payments");
    (payments, [writer, keys_writer])
}

/// Pays into a channel on the ledger, as its payer signed it.
async fn pay_in(ledger: &MemoryLedger, config: &Config, amount: u128) {
    let id = id(config);
    let deposit = Deposit {
        amount,
        valid_after: U256::ZERO,
        valid_before: U256::from(4_000_000_000u64),
        salt: U256::from(1),
        signature: Vec::new(),
    };
    let digest = receive_digest(CHAIN_ID, &deposit.authorization(&id, config.payer));
    let signature = wallet(PAYER).sign_digest(&digest).to_vec().into();
    let data: DepositAuthorization = (deposit.valid_after, deposit.valid_before, deposit.salt, signature);
    let call = IChannels::depositCall {
        config: config.on_ledger(),
        amount,
        collector: DEPOSIT_COLLECTOR,
        collectorData: data.abi_encode_params().into(),
    };
    ledger.account(6).send(vec![ModuleCall::new(Module::Escrow, &call)]).await.expect("paid in");
}

#[tokio::test]
async fn what_a_crash_left_is_charged_where_it_was_told_and_has_a_receipt_and_is_claimed_once() {
    let ledger = MemoryLedger::new();
    let directory = tempfile::tempdir().expect("a directory");
    let micro = |count: u128| count * WEI_PER_MICRO_CREDIT;
    let mut rows = Vec::new();
    for (salt, told) in [(1u8, true), (2, true), (3, false), (4, true)] {
        let config = config(salt);
        pay_in(&ledger, &config, micro(1_000)).await;
        let mut row = Row::new(config.clone(), &seen(micro(1_000), 0, 0));
        let (id, ceiling) = (id(&config), micro(100));
        let digest = ChannelDigests::of_escrow(CHAIN_ID).voucher(id, ceiling);
        let signature = wallet(PAYER).sign_digest(&digest).to_vec();
        let request = RequestId::of_bits(u128::from(salt)).to_string();
        row.held = Some(Held { request, told, ceiling, signature, charged: 0 });
        if salt == 4 {
            // It was charged before, and the gateway was killed before it had ended.
            row.charge(micro(60));
        }
        rows.push((id, row));
    }
    {
        let (store, writer, _) = Store::open(directory.path()).expect("a store");
        for (id, row) in &rows {
            store.keep_channel(*id, Some(row.clone())).outcome().await.expect("kept");
        }
        drop(store);
        writer.join();
    }
    // Requests 1, 3 and 4 have receipts; 3 was told to nobody.
    let answered = |request: RequestId| matches!(request.bits(), 1 | 3 | 4).then_some(40 + request.bits());
    let (payments, writers) = open(&ledger, directory.path(), &answered).await;
    let channels = Arc::clone(&payments.channels);
    let charged = |index: usize| channels.lock().rows[&rows[index].0].charged;
    assert_eq!([0, 1, 2, 3].map(charged), [micro(41), 0, 0, micro(60)]);
    assert_eq!(payments.sums(), Sums { due: 101, ..Sums::default() });

    let before = ledger.balance(wallet(PAYER).address());
    for _ in 0..2 {
        channels.claim_due(1).await.expect("claimed");
    }
    assert_eq!(payments.sums(), Sums { settled: 101, ..Sums::default() });
    let receivers = IChannels::receiversCall { receiver: wallet(GATEWAY).address(), token: CREDIT };
    let totals = ledger.view(Module::Escrow, &receivers);
    assert_eq!((totals.totalClaimed, totals.totalSettled), (micro(101), micro(101)));
    assert_eq!(ledger.balance(wallet(PAYER).address()), before);
    // As if it had died before it knew.
    for row in channels.lock().rows.values_mut() {
        row.claimed = 0;
    }
    channels.claim_due(1).await.expect("looked at");
    assert_eq!(ledger.view(Module::Escrow, &receivers).totalClaimed, micro(101));
    assert_eq!(payments.sums().due, 0);
    // And after a restart.
    drop((payments, channels));
    writers.into_iter().for_each(crate::disk::Writer::join);
    let (payments, _writers) = open(&ledger, directory.path(), &answered).await;
    assert_eq!(payments.sums(), Sums::default());
}

#[tokio::test]
async fn little_is_claimed_when_its_payer_leaves() {
    let ledger = MemoryLedger::new();
    let directory = tempfile::tempdir().expect("a directory");
    let (payments, _writers) = open(&ledger, directory.path(), &|_| None).await;
    let channels = &payments.channels;
    for salt in [1u8, 2] {
        let config = config(salt);
        pay_in(&ledger, &config, 1_000).await;
        let digest = ChannelDigests::of_escrow(CHAIN_ID).voucher(id(&config), 500);
        let signature = wallet(PAYER).sign_digest(&digest).to_vec();
        let mut row = Row::new(config.clone(), &seen(1_000, 0, 0));
        row.held = Some(Held { request: String::new(), told: true, ceiling: 500, signature, charged: 0 });
        row.charge(300);
        row.end();
        channels.lock().rows.insert(id(&config), row);
    }
    let claimed = |salt: u8| {
        let channel = IChannels::channelsCall { channelId: id(&config(salt)) };
        ledger.view(Module::Escrow, &channel).totalClaimed
    };
    channels.claim_due(301).await.expect("nothing to do");
    assert_eq!([1, 2].map(claimed), [0, 0]);
    let leaving = IChannels::initiateWithdrawCall { config: config(2).on_ledger(), amount: u128::MAX };
    let call = ModuleCall::new(Module::Escrow, &leaving);
    ledger.account(PAYER).send(vec![call]).await.expect("on its way out");
    channels.claim_due(301).await.expect("claimed");
    assert_eq!([1, 2].map(claimed), [0, 300]);
    channels.claim_due(300).await.expect("claimed");
    assert_eq!([1, 2].map(claimed), [300, 300]);
}

#[tokio::test]
async fn one_channel_that_cannot_be_claimed_holds_up_no_other() {
    let ledger = MemoryLedger::new();
    let directory = tempfile::tempdir().expect("a directory");
    let (payments, _writers) = open(&ledger, directory.path(), &|_| None).await;
    let channels = &payments.channels;
    for (salt, good) in [(1u8, true), (2, false), (3, true)] {
        let config = config(salt);
        pay_in(&ledger, &config, 1_000).await;
        let mut row = Row::new(config.clone(), &seen(1_000, 0, 0));
        let digest = ChannelDigests::of_escrow(CHAIN_ID).voucher(id(&config), 500);
        let signature = wallet(if good { PAYER } else { 5 }).sign_digest(&digest).to_vec();
        row.held = Some(Held { request: String::new(), told: true, ceiling: 500, signature, charged: 0 });
        row.charge(300);
        row.end();
        channels.lock().rows.insert(id(&config), row);
    }
    let problem = channels.claim_due(1).await.expect_err("one of them");
    assert!(problem.contains("not signed by the payer authorizer"), "{problem}");
    let claimed = |salt: u8| {
        let channel = IChannels::channelsCall { channelId: id(&config(salt)) };
        ledger.view(Module::Escrow, &channel).totalClaimed
    };
    assert_eq!([1, 2, 3].map(claimed), [300, 0, 300]);
}
