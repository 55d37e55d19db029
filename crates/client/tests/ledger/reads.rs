//! What an honest node's answers come to.

use alloy_primitives::{Address, B256, U256};
use surety_chain::{Execution, Read, StateKey};
use surety_client::ledger::{LedgerBounds, LedgerError, call_at};
use surety_types::abi::{
    IGovernance, IParams, IStaking,
    address::{CHANNELS, GOVERNANCE, PARAMS, STAKING},
};

use crate::node::{EPOCH_BLOCKS, Node, bounds, credits, wallet};

#[tokio::test(flavor = "multi_thread")]
async fn what_is_read_is_what_genesis_began_with() {
    let node = Node::start().await;
    let ledger = node.ledger(&[&node.url]);
    let account = ledger.account(wallet(0).address()).await.unwrap();
    assert_eq!((account.value.nonce, account.value.balance), (0, credits(1_000_000)));
    assert_eq!(ledger.account(Address::repeat_byte(7)).await.unwrap().value, Default::default());
    assert_eq!(ledger.params().await.unwrap().value, node.genesis.params);
    let bonded = ledger.view(STAKING, &IStaking::bondedTotalCall {}).await.unwrap();
    assert_eq!(bonded.value, credits(10_000));
    let all = ledger.view(PARAMS, &IParams::allCall {}).await.unwrap();
    assert_eq!(all.value.len(), surety_chain::PARAMETERS.len());
    let candidates = ledger.view(STAKING, &IStaking::candidatesCall {}).await.unwrap();
    assert_eq!(candidates.value, [Address::repeat_byte(0x99)]);
    assert!(bonded.tip.number >= account.tip.number, "what was seen is not followed by something older");

    let refused = ledger.view(PARAMS, &IParams::getCall { name: B256::repeat_byte(b'x') }).await;
    assert!(matches!(refused, Err(LedgerError::Reverted { reason: Some(_), .. })), "{refused:?}");
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn validator_sets_are_followed_over_epochs() {
    let node = Node::start().await;
    node.reach(3 * EPOCH_BLOCKS + 2).await;
    // It knows nothing but the genesis, and must learn three sets at once.
    let ledger = node.ledger(&[&node.url]);
    let first = ledger.tip().await.unwrap();
    assert!(first.epoch >= 3 && first.epoch == first.number / EPOCH_BLOCKS);
    node.reach((first.epoch + 1) * EPOCH_BLOCKS).await;
    let second = ledger.tip().await.unwrap();
    assert!(second.epoch > first.epoch && second.timestamp_ms > first.timestamp_ms);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn many_values_are_of_one_block() {
    let node = Node::start().await;
    let ledger = node.ledger(&[&node.url]);
    let read = ledger
        .read(|state, place| {
            let (mut missing, mut present) = (Vec::new(), 0);
            // More than one request carries, and the second half depends on the first.
            for half in [0..90u64, 90..180] {
                for slot in half {
                    let key = StateKey::slot(&PARAMS, &U256::from(slot));
                    match state.read(&key) {
                        Read::Unknown => missing.push(key),
                        Read::Known(value) => present += usize::from(value.is_some()),
                    }
                }
                if !missing.is_empty() {
                    return Ok(Execution::Needs(missing));
                }
            }
            let spec = node.genesis.spec();
            let (one, two) = (
                call_at(&spec, state, place, STAKING, &IStaking::bondedTotalCall {})?,
                call_at(&spec, state, place, GOVERNANCE, &IGovernance::proposalCountCall {})?,
            );
            Ok(match (one, two) {
                (Execution::Done(one), Execution::Done(two)) => {
                    Execution::Done(Box::new((present, one.unwrap(), two.unwrap())))
                }
                (Execution::Needs(keys), _) | (_, Execution::Needs(keys)) => Execution::Needs(keys),
            })
        })
        .await
        .unwrap();
    assert_eq!(read.value, (read.value.0, credits(10_000), U256::ZERO));
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_question_without_end_is_given_up() {
    let node = Node::start().await;
    let bounds = LedgerBounds { rounds_max: 5, keys_max: 50, ..bounds() };
    let ledger = node.bounded(&[&node.url], bounds);
    let asked = std::cell::Cell::new(0u64);
    let endless = ledger
        .read::<()>(|_, _| {
            asked.set(asked.get() + 1);
            Ok(Execution::Needs(vec![StateKey::slot(&CHANNELS, &U256::from(asked.get()))]))
        })
        .await;
    assert!(matches!(endless, Err(LedgerError::TooMuch { .. })), "{endless:?}");
    let same = ledger.read::<()>(|_, _| Ok(Execution::Needs(vec![StateKey([1; 32])]))).await;
    assert!(matches!(same, Err(LedgerError::TooMuch { .. })), "{same:?}");
    let many = (0..51).map(|byte| StateKey([byte; 32])).collect::<Vec<_>>();
    let broad = ledger.read::<()>(|_, _| Ok(Execution::Needs(many.clone()))).await;
    assert!(matches!(broad, Err(LedgerError::TooMuch { .. })), "{broad:?}");
    node.stop().await;
}
