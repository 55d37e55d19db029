//! Log roots: when they are posted, and what they show.

use alloy_primitives::{B256, U256};
use surety_types::abi::{IOperators, IReceipts, IStaking, Module};

use super::{inclusion_path, leaf_hash, root_of};
use crate::testing::{Chain, address, credits};

fn chain() -> Chain {
    let mut chain = Chain::with(|genesis| genesis.params.receipts_epochs_max = 2);
    chain.call(5, Module::Staking, credits(10), IStaking::bondCall {});
    let register = IOperators::registerCall { name: "Acme".into(), url: String::new() };
    chain.call(5, Module::Operators, U256::ZERO, register);
    chain
}

fn post(chain: &mut Chain, who: u64, epoch: u64, size: u64, root: B256) -> Result<(), String> {
    let call = IReceipts::postCall { epoch, size, root };
    chain.try_call(who, Module::Receipts, U256::ZERO, call).map(|_| ())
}

fn refused(result: Result<(), String>, expected: &str) {
    assert_eq!(result.expect_err("refused"), format!("receipts: {expected}"));
}

#[test]
fn a_root_is_posted_once_after_its_epoch_and_not_long_after() {
    let mut chain = chain();
    let root = B256::repeat_byte(7);
    refused(post(&mut chain, 5, 0, 3, root), "the epoch is not over");
    refused(post(&mut chain, 5, u64::MAX, 3, root), "the epoch is not over");
    chain.next_epoch();
    refused(post(&mut chain, 6, 0, 3, root), "the caller is no registered operator");
    refused(post(&mut chain, 5, 0, u64::MAX, root), "the log is too large");
    post(&mut chain, 5, 0, 3, root).expect("posted");
    refused(post(&mut chain, 5, 0, 4, root), "the root of that epoch was posted");
    let log = chain.view(Module::Receipts, IReceipts::logOfCall { operator: address(5), epoch: 0 });
    assert_eq!((log.root, log.size), (root, 3));
    for _ in 0..3 {
        chain.next_epoch();
    }
    refused(post(&mut chain, 5, 1, 3, root), "the epoch is over for too long");
    post(&mut chain, 5, 3, 0, B256::ZERO).expect("an empty log too");
    post(&mut chain, 5, 2, 1, root).expect("posted late");
    let posted = chain.view(Module::Receipts, IReceipts::postedByCall { operator: address(5) });
    assert_eq!((posted.lastEpoch, posted.count), (3, 3));
}

#[test]
fn a_posted_log_shows_what_it_includes() {
    let mut chain = chain();
    chain.next_epoch();
    let leaves: Vec<[u8; 32]> = (0..11u8).map(|number| leaf_hash(&[number])).collect();
    post(&mut chain, 5, 0, 11, root_of(&leaves).into()).expect("posted");
    let includes = |epoch: u64, index: u64, leaf: [u8; 32], path: &[[u8; 32]]| IReceipts::includesCall {
        operator: address(5),
        epoch,
        index,
        leafHash: leaf.into(),
        path: path.iter().map(|hash| B256::from(*hash)).collect(),
    };
    for index in [0, 5, 10] {
        let path = inclusion_path(&leaves, index).expect("a leaf");
        let call = includes(0, index as u64, leaves[index], &path);
        assert!(chain.view(Module::Receipts, call));
        let call = includes(0, index as u64, [1; 32], &path);
        assert!(!chain.view(Module::Receipts, call));
    }
    let nothing = alloy_sol_types::SolCall::abi_encode(&includes(9, 0, leaves[0], &[]));
    let outcome = chain.simulate(address(9), Module::Receipts.address(), U256::ZERO, nothing);
    assert_eq!(outcome.revert_reason().as_deref(), Some("receipts: no root of that epoch was posted"));
}
