//! The till against a ledger in memory: every voucher that does not count, by name, and every sum.

#[path = "../../../client/tests/memory/mod.rs"]
mod memory;

use std::{path::Path, sync::Arc};

use alloy_primitives::{Address, B256, U256};
use memory::{CREDIT, MemoryLedger, wallet};
use surety_client::channel::ModuleCall;
use surety_types::{
    Amount, Channel, ChannelDigests, Digest, FailureCode, FinishReason, Inclusion, ModelId, Outcome, Price,
    PublicKey, Receipt, SecretKey, Signed, Text, Voucher, WEI_PER_MICRO_CREDIT,
    abi::{IChannels, Module},
    channel::cover_wei,
    receipt::{ARITHMETIC_VERSION, RECEIPT_VERSION},
};

use super::{
    Claims, Till, WorkerLedger,
    inclusion::{inclusion, leaf_hashes},
    open_till,
    till::{Tab, VoucherRefused},
};

const OPERATOR: u64 = 1;
const PAYER: u64 = 2;
const STRANGER: u64 = 3;
/// A micro-credit for each token of prompt or output.
const PRICE: Price =
    Price { prompt: Amount(1_000_000), cached: Amount(1_000_000), output: Amount(1_000_000) };
/// Half of it.
const BATCH_PRICE: Price =
    Price { prompt: Amount(500_000), cached: Amount(500_000), output: Amount(500_000) };
const PROMPT: u32 = 10;

fn micro(count: u128) -> u128 {
    count * WEI_PER_MICRO_CREDIT
}

fn ledger_settings(ledger: &MemoryLedger, folder: &Path) -> WorkerLedger {
    WorkerLedger {
        account: ledger.account(OPERATOR),
        bond: U256::from(10 * CREDIT),
        price: PRICE,
        batch_price: BATCH_PRICE,
        name: "Acme".into(),
        folder: folder.into(),
        endpoint: None,
        claims: Claims::default(),
        hosting: Default::default(),
    }
}

fn till(ledger: &MemoryLedger, folder: &Path) -> Arc<Till> {
    let till = open_till(&ledger_settings(ledger, folder)).unwrap();
    till.set_delay_min_s(900);
    till
}

fn channel(salt: u8) -> Channel {
    let account = |number| wallet(number).address();
    Channel {
        payer: account(PAYER),
        payer_authorizer: account(PAYER),
        receiver: account(OPERATOR),
        receiver_authorizer: account(OPERATOR),
        token: Address::ZERO,
        withdraw_delay_s: 900,
        salt: Digest([salt; 32]),
    }
}

fn digests() -> ChannelDigests {
    ChannelDigests::new(88_888)
}

async fn deposit(ledger: &MemoryLedger, channel: &Channel, wei: u128) {
    let call = IChannels::depositCall {
        config: channel.config(),
        amount: wei,
        collector: Address::ZERO,
        collectorData: Vec::new().into(),
    };
    let call = ModuleCall::paying(Module::Channels, &call, U256::from(wei));
    ledger.account(PAYER).send(vec![call]).await.unwrap();
}

fn order(seed: u8) -> Digest {
    Digest([seed; 32])
}

/// A voucher that covers an order of its own alone.
fn voucher(channel: &Channel, order: Digest, wei: u128, tokens: u32) -> Voucher {
    let digest = digests().voucher(B256::from(channel.id(&digests()).0), wei);
    Voucher {
        channel: channel.clone(),
        max_claimable: wei,
        signature: wallet(PAYER).sign_digest(&digest),
        order,
        covered_output_tokens: tokens,
    }
}

fn cover(tokens: u32) -> u128 {
    cover_wei(&PRICE, PROMPT, tokens).unwrap()
}

fn receipt(order: Digest, output_tokens: u32, failed: bool) -> Signed<Receipt> {
    let key = SecretKey::from_bytes(&[9; 32]);
    let outcome = if failed {
        Outcome::Failed { code: FailureCode::Internal, message: Text::clipped("x") }
    } else {
        Outcome::Completed
    };
    let charge = if failed { Amount::ZERO } else { PRICE.charge(PROMPT, 0, output_tokens).unwrap() };
    let receipt = Receipt {
        version: RECEIPT_VERSION,
        outcome,
        order,
        model: ModelId(Digest::ZERO),
        arithmetic: ARITHMETIC_VERSION,
        prompt_tokens: PROMPT,
        cached_tokens: 0,
        output_tokens,
        prompt_digest: Digest::ZERO,
        output_digest: Digest::ZERO,
        text_digest: Digest::ZERO,
        finish: if failed { FinishReason::Failed } else { FinishReason::Length },
        seed: [0; 32],
        state_commitment: Digest::ZERO,
        price: PRICE,
        charge,
        accepted_ms: 1,
        first_token_ms: (output_tokens > 0).then_some(2),
        done_ms: 3,
        software: Text::clipped("x"),
        worker: key.public(),
    };
    Signed::sign(receipt, &key)
}

fn tab(till: &Arc<Till>, channel: &Channel, order: Digest) -> Tab {
    till.open(order, PRICE, channel.id(&digests()), PROMPT)
}

fn covered(tab: &Tab) -> Option<u32> {
    *tab.covered().borrow()
}

#[tokio::test]
async fn every_voucher_that_does_not_count_is_refused_by_name() {
    let (ledger, folder) = (MemoryLedger::new(), tempfile::tempdir().unwrap());
    let (till, plain) = (till(&ledger, folder.path()), channel(1));
    deposit(&ledger, &plain, micro(1_000)).await;
    let tab_on = |channel: &Channel| tab(&till, channel, order(1));
    let good = voucher(&plain, order(1), cover(128), 128);

    let foreign = tab(&till, &channel(2), order(1)).take(&good).await;
    assert_eq!(foreign, Err(VoucherRefused::OtherChannel));
    let tab = tab_on(&plain);
    let other = Voucher { order: order(2), ..good.clone() };
    assert_eq!(tab.take(&other).await, Err(VoucherRefused::OtherOrder));
    let mut signature = good.signature;
    signature[7] ^= 1;
    assert_eq!(tab.take(&Voucher { signature, ..good.clone() }).await, Err(VoucherRefused::WrongSigner));
    let dearer = Voucher { max_claimable: good.max_claimable + 1, ..good.clone() };
    assert_eq!(tab.take(&dearer).await, Err(VoucherRefused::WrongSigner), "another amount than was signed");

    let stranger = wallet(STRANGER).address();
    let check = async |channel: Channel, expected: VoucherRefused| {
        let voucher = voucher(&channel, order(1), cover(128), 128);
        assert_eq!(tab_on(&channel).take(&voucher).await, Err(expected));
    };
    check(Channel { receiver: stranger, ..channel(1) }, VoucherRefused::OtherReceiver(stranger)).await;
    let other = Channel { receiver_authorizer: stranger, ..channel(1) };
    check(other, VoucherRefused::OtherAuthorizer(stranger)).await;
    check(Channel { token: stranger, ..channel(1) }, VoucherRefused::OtherToken).await;
    let quick = Channel { withdraw_delay_s: 899, ..channel(1) };
    check(quick, VoucherRefused::DelayTooShort { found: 899, least: 900 }).await;
    check(Channel { payer_authorizer: stranger, ..channel(1) }, VoucherRefused::WrongSigner).await;
    let unfunded = VoucherRefused::Unbacked { promised: cover(128), balance: 0 };
    check(channel(3), unfunded.clone()).await;
    assert!(till.read(|book| book.iter().count() == 0), "a stranger's channel takes no room");

    assert_eq!(covered(&tab), None);
    tab.take(&good).await.unwrap();
    assert_eq!(covered(&tab), Some(128));
    assert_eq!(tab.take(&good).await, Err(VoucherRefused::Replayed));
    let lower = voucher(&plain, order(1), cover(64), 64);
    assert_eq!(tab.take(&lower).await, Err(VoucherRefused::Replayed));
    assert_eq!(tab.last_refused(), Some(VoucherRefused::Replayed));
    let greedy = voucher(&plain, order(1), cover(128), 129);
    assert!(matches!(tab.take(&greedy).await, Err(VoucherRefused::Insufficient(_))));
    assert_eq!(covered(&tab), Some(128), "nothing of it harmed");
    let beyond = voucher(&plain, order(1), micro(1_001), 800);
    let unbacked = VoucherRefused::Unbacked { promised: micro(1_001), balance: micro(1_000) };
    assert_eq!(tab.take(&beyond).await, Err(unbacked));
    tab.close(&receipt(order(1), 100, false)).await.unwrap();
    till.read(|book| {
        let entry = book.get(&plain.id(&digests())).unwrap();
        assert_eq!((entry.row.settled, entry.row.highest), (micro(110), cover(128)));
    });
}

#[tokio::test]
async fn vouchers_of_two_orders_count_in_any_order_of_arrival() {
    let (ledger, folder) = (MemoryLedger::new(), tempfile::tempdir().unwrap());
    let (till, channel) = (till(&ledger, folder.path()), channel(1));
    deposit(&ledger, &channel, micro(10_000)).await;
    let (one, two) = (tab(&till, &channel, order(1)), tab(&till, &channel, order(2)));
    // The payer signed the first voucher for `one`, then one for both; the second comes first.
    let first = voucher(&channel, order(1), cover(128), 128);
    let second = voucher(&channel, order(2), 2 * cover(128), 128);
    two.take(&second).await.unwrap();
    one.take(&first).await.unwrap();
    assert_eq!((covered(&one), covered(&two)), (Some(128), Some(128)));
    // A third order has nothing left of them.
    let three = tab(&till, &channel, order(3));
    let stale = voucher(&channel, order(3), 2 * cover(128), 128);
    assert!(matches!(three.take(&stale).await, Err(VoucherRefused::Insufficient(_))));
    // Until one ended with less than was covered, or failed.
    one.close(&receipt(order(1), 28, false)).await.unwrap();
    two.close(&receipt(order(2), 0, true)).await.unwrap();
    three.take(&stale).await.unwrap();
    assert_eq!(covered(&three), Some(128));
    drop(three);
    till.read(|book| {
        let entry = book.get(&channel.id(&digests())).unwrap();
        assert_eq!((entry.row.settled, entry.orders()), (micro(38), 0));
    });
}

#[tokio::test]
async fn a_channel_that_is_topped_up_or_withdrawn_from_is_seen() {
    let (ledger, folder) = (MemoryLedger::new(), tempfile::tempdir().unwrap());
    let (till, channel) = (till(&ledger, folder.path()), channel(1));
    deposit(&ledger, &channel, micro(200)).await;
    let one = tab(&till, &channel, order(1));
    one.take(&voucher(&channel, order(1), cover(128), 128)).await.unwrap();
    deposit(&ledger, &channel, micro(800)).await;
    one.take(&voucher(&channel, order(1), cover(256), 256)).await.unwrap();
    assert_eq!(covered(&one), Some(256));
    let leave = IChannels::initiateWithdrawCall { config: channel.config(), amount: micro(100) };
    ledger.account(PAYER).send(vec![ModuleCall::new(Module::Channels, &leave)]).await.unwrap();
    till.refresh(&[channel.id(&digests())]).await.unwrap();
    let two = tab(&till, &channel, order(2));
    let refused = two.take(&voucher(&channel, order(2), cover(256) + cover(128), 128)).await;
    assert_eq!(refused, Err(VoucherRefused::Withdrawing));
    let found = till.channel_of(&surety_order(Some(channel.id(&digests()))));
    assert!(matches!(found, Err((FailureCode::PaymentRequired, message)) if message.contains("withdrawn")));
}

fn surety_order(channel: Option<Digest>) -> surety_types::Order {
    surety_types::Order {
        version: surety_types::order::ORDER_VERSION,
        model: ModelId(Digest::ZERO),
        request_digest: Digest::ZERO,
        nonce: [0; 32],
        seed: surety_types::Seed::Nonce,
        choice: 0,
        sampling: Default::default(),
        max_output_tokens: 1,
        ignore_end: false,
        deadline_ms: 2,
        price_ceiling: PRICE,
        channel,
        payer: PublicKey([0; 32]),
        issued_ms: 1,
        resumed: None,
        disclosure: None,
    }
}

#[tokio::test]
async fn an_order_without_a_channel_or_with_a_low_ceiling_is_told_what_to_do() {
    let (ledger, folder) = (MemoryLedger::new(), tempfile::tempdir().unwrap());
    let till = till(&ledger, folder.path());
    let (code, message) = till.channel_of(&surety_order(None)).unwrap_err();
    assert_eq!(code, FailureCode::PaymentRequired);
    assert!(message.contains("open one to") && message.contains(&wallet(OPERATOR).address().to_string()));
    let cheap = surety_types::Order { price_ceiling: Price::ZERO, ..surety_order(Some(order(1))) };
    let (code, message) = till.channel_of(&cheap).unwrap_err();
    assert_eq!(code, FailureCode::PaymentRequired);
    assert!(message.contains("price ceiling"), "{message}");
    assert_eq!(till.channel_of(&surety_order(Some(order(1)))), Ok(Some(order(1))));

    // Who bids less than the price, and not less than the batch price, is asked that.
    let bidding = |price_ceiling| surety_types::Order { price_ceiling, ..surety_order(Some(order(1))) };
    let more = Price { prompt: Amount(700_000), ..BATCH_PRICE };
    for (ceiling, asked) in [(PRICE, PRICE), (BATCH_PRICE, BATCH_PRICE), (more, BATCH_PRICE)] {
        assert_eq!(till.price_of(&bidding(ceiling)), asked);
        assert_eq!(till.channel_of(&bidding(ceiling)), Ok(Some(order(1))));
    }
    let less = Price { output: Amount(499_999), ..PRICE };
    assert_eq!(till.price_of(&bidding(less)), PRICE);
    assert!(matches!(till.channel_of(&bidding(less)), Err((FailureCode::PaymentRequired, _))));
}

#[tokio::test]
async fn a_restart_remembers_what_was_promised_and_charged_and_every_leaf() {
    let (ledger, folder) = (MemoryLedger::new(), tempfile::tempdir().unwrap());
    let channel = channel(1);
    deposit(&ledger, &channel, micro(10_000)).await;
    let id = channel.id(&digests());
    let mut promised = 0;
    for round in 1..=3u8 {
        let till = reopened(&ledger, folder.path()).await;
        till.read(|book| {
            let settled = book.get(&id).map_or(0, |entry| entry.row.settled);
            assert_eq!(settled, micro(u128::from(round - 1) * 60), "round {round}");
        });
        let (kept, lost) =
            (tab(&till, &channel, order(2 * round)), tab(&till, &channel, order(2 * round + 1)));
        let base = micro(u128::from(round - 1) * 60);
        kept.take(&voucher(&channel, order(2 * round), base + cover(128), 128)).await.unwrap();
        promised = base + 2 * cover(128);
        lost.take(&voucher(&channel, order(2 * round + 1), promised, 128)).await.unwrap();
        kept.close(&receipt(order(2 * round), 50, false)).await.unwrap();
        // The other order is under way when the process ends: nothing of it is written.
        drop((lost, kept, till));
    }
    let till = reopened(&ledger, folder.path()).await;
    till.read(|book| {
        let entry = book.get(&id).unwrap();
        assert_eq!((entry.row.settled, entry.claimable()), (micro(180), micro(180)));
        assert_eq!(entry.row.highest, promised);
    });
    assert_eq!(till.store().leaves(0).unwrap().len(), 3);
    assert_eq!(till.store().unposted(1).unwrap(), [0]);
    assert!(matches!(
        open_till(&ledger_settings(&ledger, folder.path())),
        Err(super::BookError::InUse { .. })
    ));
}

/// The till of a new process: the old one's file is free once its last user is gone.
async fn reopened(ledger: &MemoryLedger, folder: &Path) -> Arc<Till> {
    for _ in 0..200 {
        if let Ok(till) = open_till(&ledger_settings(ledger, folder)) {
            till.set_delay_min_s(900);
            return till;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    panic!("the book stays in use");
}

#[tokio::test]
async fn a_leaf_is_in_the_epoch_in_which_its_receipt_was_made() {
    let (ledger, folder) = (MemoryLedger::new(), tempfile::tempdir().unwrap());
    let till = till(&ledger, folder.path());
    till.log(&receipt(order(1), 1, false)).await.unwrap();
    till.set_epoch(4).await.unwrap();
    for seed in 2..=6 {
        till.log(&receipt(order(seed), 1, false)).await.unwrap();
    }
    till.set_epoch(3).await.unwrap();
    till.log(&receipt(order(7), 1, false)).await.unwrap();
    assert_eq!(till.store().leaves(0).unwrap().len(), 1);
    assert_eq!(till.store().leaves(4).unwrap().len(), 6);
    assert_eq!(till.store().unposted(4).unwrap(), [0]);
    assert_eq!(till.store().unposted(5).unwrap(), [0, 4]);
    let wanted = receipt(order(4), 1, false).digest();
    let place = |receipt| inclusion(&till, receipt).unwrap();
    assert_eq!(place(wanted), Inclusion::Unposted { epoch: 4 });
    assert_eq!(place(receipt(order(8), 1, false).digest()), Inclusion::Unknown, "it was never made");
    till.store().posted(0);
    till.store().posted(4);
    till.store().prune(4);
    till.set_epoch(5).await.unwrap();
    assert!(till.store().leaves(0).unwrap().is_empty());
    assert_eq!(place(receipt(order(1), 1, false).digest()), Inclusion::Unknown, "its epoch is pruned");
    let leaves = leaf_hashes(&till.store().leaves(4).unwrap());
    let (root, leaf) = (surety_chain::root_of(&leaves), surety_chain::leaf_hash(&wanted.0));
    let Inclusion::Posted { epoch: 4, index, path } = place(wanted) else { panic!("it is posted") };
    let path: Vec<[u8; 32]> = path.iter().map(|hash| hash.0).collect();
    assert!(surety_chain::verify_inclusion(&root, leaves.len() as u64, index, &leaf, &path));
}

/// What keeping costs: prints how long an order waits for its charge to be on the disk, alone and among others.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "a measurement"]
async fn what_group_commit_costs() {
    let (ledger, folder) = (MemoryLedger::new(), tempfile::tempdir_in(".").unwrap());
    let till = till(&ledger, folder.path());
    let channel = channel(1);
    deposit(&ledger, &channel, CREDIT).await;
    for orders in [1usize, 8, 64, 256] {
        let mut times = Vec::new();
        let began = std::time::Instant::now();
        for round in 0..8u8 {
            let mut keeping = tokio::task::JoinSet::new();
            for number in 0..orders {
                let (till, channel) = (Arc::clone(&till), channel.clone());
                keeping.spawn(async move {
                    let mut id = [round; 32];
                    id[..8].copy_from_slice(&(number as u64).to_be_bytes());
                    let tab = tab(&till, &channel, Digest(id));
                    let receipt = receipt(Digest(id), 1, true);
                    let began = std::time::Instant::now();
                    tab.close(&receipt).await.unwrap();
                    began.elapsed()
                });
            }
            while let Some(time) = keeping.join_next().await {
                times.push(time.unwrap());
            }
        }
        times.sort_unstable();
        let total = began.elapsed();
        println!(
            "orders={orders}: median {:?}, worst {:?}, {:.0} receipts a second",
            times[times.len() / 2],
            times[times.len() - 1],
            times.len() as f64 / total.as_secs_f64(),
        );
    }
}
