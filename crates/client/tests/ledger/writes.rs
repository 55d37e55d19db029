//! Transactions, and nodes that lie about them.

use alloy_primitives::{Address, U256};
use alloy_sol_types::{SolCall as _, SolEvent as _};
use serde_json::json;
use surety_client::ledger::{Fault, LedgerError, Lie, TransactionCall};
use surety_types::abi::{IStaking, address::STAKING};

use crate::{
    liar::{Liar, Manner, altered},
    node::{Node, credits, wallet},
};

fn pay(to: Address, credits_: u64) -> TransactionCall {
    TransactionCall { to, value: credits(credits_), ..TransactionCall::default() }
}

fn bond(amount: u64) -> TransactionCall {
    let input = IStaking::bondCall {}.abi_encode().into();
    TransactionCall { to: STAKING, value: credits(amount), input, gas: None }
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_land_in_order_and_are_proven() {
    let node = Node::start().await;
    let ledger = node.ledger(&[&node.url]);
    let friend = Address::repeat_byte(0x42);
    let calls = vec![pay(friend, 5), bond(20), pay(friend, 7)];
    let landed = ledger.submit(&wallet(0), calls).await.unwrap();
    assert_eq!(landed.len(), 3);
    assert!(landed.iter().all(|landed| landed.success && landed.number > 0));
    assert_eq!(landed[0].gas_used, 21_000);
    let bonded = IStaking::Bonded::decode_log(&landed[1].logs[0]).unwrap();
    assert_eq!((bonded.operator, bonded.amount), (wallet(0).address(), credits(20)));
    let account = ledger.account(wallet(0).address()).await.unwrap().value;
    let fees: U256 = landed.iter().map(|landed| landed.fee).sum();
    assert_eq!(account.nonce, 3);
    assert_eq!(account.balance, credits(1_000_000 - 5 - 20 - 7) - fees);
    assert_eq!(ledger.account(friend).await.unwrap().value.balance, credits(12));

    // Two submissions of one wallet wait for each other.
    let payer = wallet(1);
    let (one, two) = tokio::join!(
        ledger.submit(&payer, vec![pay(friend, 1)]),
        ledger.submit(&payer, vec![pay(friend, 1), pay(friend, 1)])
    );
    assert_eq!((one.unwrap().len(), two.unwrap().len()), (1, 2));
    assert!(ledger.submit(&wallet(1), vec![]).await.unwrap().is_empty());
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_would_revert_is_not_sent_and_what_reverts_says_why() {
    let node = Node::start().await;
    let ledger = node.ledger(&[&node.url]);
    let input = IStaking::withdrawCall { operator: Address::repeat_byte(1) }.abi_encode();
    let call = TransactionCall { to: STAKING, input: input.into(), ..TransactionCall::default() };
    let refused = ledger.submit(&wallet(0), vec![call.clone()]).await.unwrap_err();
    let LedgerError::Reverted { reason: Some(reason), .. } = refused else { panic!("{refused:?}") };
    assert_eq!(ledger.account(wallet(0).address()).await.unwrap().value.nonce, 0);

    let forced = TransactionCall { gas: Some(1_000_000), ..call };
    let landed = ledger.submit(&wallet(0), vec![forced]).await.unwrap().remove(0);
    assert!(!landed.success && landed.fee > U256::ZERO && landed.logs.is_empty());
    assert_eq!(landed.revert_reason, Some(reason));

    let poor = ledger.submit(&wallet(77), vec![pay(Address::ZERO, 1)]).await.unwrap_err();
    assert!(matches!(poor, LedgerError::Invalid(_)), "{poor:?}");
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn lies_about_what_came_of_it_are_caught() {
    let node = Node::start().await;
    let liar = Liar::before(&node.url).await;
    let to = Address::repeat_byte(0x42);
    let check = async |alter: fn(&str, &mut serde_json::Value), expected: fn(&Lie) -> bool| {
        liar.set(altered(move |method, _, answer| alter(method, answer)));
        let alone = node.ledger(&[&liar.url]);
        let error = alone.submit(&wallet(2), vec![pay(to, 1)]).await.unwrap_err();
        let LedgerError::Nodes(faults) = &error else { panic!("{error:?}") };
        let caught = faults.iter().any(|fault| matches!(&fault.fault, Fault::Lie(lie) if expected(lie)));
        assert!(caught, "{error:?}");
        let beside = node.ledger(&[&liar.url, &node.url]);
        assert!(beside.submit(&wallet(2), vec![pay(to, 1)]).await.unwrap()[0].success);
    };
    check(
        |method, answer| {
            if method == "eth_getBlockReceipts" {
                answer[0]["status"] = json!("0x0");
            }
        },
        |lie| matches!(lie, Lie::Receipts(_)),
    )
    .await;
    check(
        |method, answer| {
            if method == "eth_getBlockReceipts" {
                answer[0]["cumulativeGasUsed"] = json!("0x1");
            }
        },
        |lie| matches!(lie, Lie::Receipts(_)),
    )
    .await;
    check(
        |method, answer| {
            if method == "eth_getBlockByNumber" {
                answer["transactions"] = json!([]);
            }
        },
        |lie| matches!(lie, Lie::Transactions(_)),
    )
    .await;
    check(
        |method, answer| {
            if method == "eth_getTransactionReceipt" && answer.is_object() {
                let number = answer["blockNumber"].as_str().unwrap().trim_start_matches("0x");
                let number = u64::from_str_radix(number, 16).unwrap();
                answer["blockNumber"] = json!(format!("{:#x}", number - 1));
            }
        },
        |lie| matches!(lie, Lie::NotThere { .. }),
    )
    .await;
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_keeps_transactions_to_itself_does_not_stop_them() {
    let node = Node::start().await;
    let silent = Liar::before(&node.url).await;
    silent.set(Manner::Silent);
    let both = node.ledger(&[&silent.url, &node.url]);
    let landed = both.submit(&wallet(3), vec![pay(Address::repeat_byte(9), 1)]).await.unwrap();
    assert!(landed[0].success);
    assert!(silent.asked().iter().any(|method| method == "eth_sendRawTransaction"));
    node.stop().await;
}
