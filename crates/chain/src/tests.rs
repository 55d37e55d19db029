//! Blocks as a whole: what is refused and why, who is paid, and that everyone computes the same.

use alloy_consensus::{SignableTransaction as _, TxEip1559, TxEip7702, TxEnvelope, TxLegacy};
use alloy_eips::{eip2718::Encodable2718 as _, eip7702::Authorization};
use alloy_primitives::{Address, B256, Bytes, Signature, TxKind, U256, hex, keccak256};
use alloy_signer::SignerSync as _;
use alloy_sol_types::SolCall as _;
use proptest::prelude::*;
use revm::context::result::InvalidTransaction;
use surety_types::abi::{IStaking, Module, address::STAKING};

use crate::{
    AdmissionError, BLOCK_TRANSACTIONS_BYTES_MAX, CallRequest, Estimate, Execution, ExecutionError, Genesis,
    GenesisError, InvalidBlock, MISSED_MAX, ReadCache, Recovered, Skipped, StateKey, TRANSACTION_BYTES_MAX,
    TransactionError, build, estimate_gas, genesis_writes,
    params::{Params, ParamsError},
    testing::{
        CHAIN_ID, Chain, GAS_PRICE, address, credits, execute_by_cache, genesis, secret, sign, signer,
    },
};

fn transfer(nonce: u64) -> TxEip1559 {
    TxEip1559 {
        chain_id: CHAIN_ID,
        nonce,
        gas_limit: 21_000,
        max_fee_per_gas: GAS_PRICE,
        max_priority_fee_per_gas: 0,
        to: TxKind::Call(address(5)),
        value: credits(1),
        access_list: Default::default(),
        input: Bytes::new(),
    }
}

#[test]
fn a_transfer_moves_money_and_its_fee_goes_to_the_proposer() {
    let mut chain = Chain::new();
    let proposer = chain.next_proposer();
    let before = [4, 5].map(|number| chain.balance(address(number)));
    let proposer_before = chain.balance(proposer);
    let mut tipped = transfer(0);
    (tipped.max_fee_per_gas, tipped.max_priority_fee_per_gas) = (3 * GAS_PRICE, GAS_PRICE);
    let executed = chain.block(&[sign(4, tipped)]);
    let fee = U256::from(21_000) * U256::from(2 * GAS_PRICE);
    assert_eq!(executed.fees, fee);
    assert_eq!(executed.gas_used, 21_000);
    assert_eq!(chain.balance(address(4)), before[0] - credits(1) - fee);
    assert_eq!(chain.balance(address(5)), before[1] + credits(1));
    assert_eq!(chain.balance(proposer), proposer_before + fee);
    assert_eq!(executed.receipts[0].effective_gas_price, 2 * GAS_PRICE);
    assert!(executed.receipts[0].envelope.status());
}

#[test]
fn what_a_contract_destroys_goes_to_the_proposer() {
    let mut chain = Chain::new();
    // Creation code: ADDRESS SELFDESTRUCT. Its own endowment would be burnt (EIP-6780).
    let nonce = chain.account(address(4)).nonce;
    let contract = address(4).create(nonce);
    chain.accounts.push(contract);
    let proposer = chain.next_proposer();
    let before = chain.balance(proposer);
    let creation = chain.transaction(4, nonce, TxKind::Create, credits(7), hex!("30ff"));
    let executed = chain.block(&[creation]);
    assert!(executed.receipts[0].envelope.status());
    assert_eq!(chain.balance(contract), U256::ZERO);
    assert_eq!(chain.balance(proposer), before + credits(7) + executed.fees);
}

#[test]
fn a_block_with_an_invalid_transaction_is_invalid_and_says_which() {
    let chain = Chain::new();
    let header = chain.next_header();
    let check = |change: fn(&mut TxEip1559), expected: fn(&InvalidBlock) -> bool| {
        let mut second = transfer(1);
        change(&mut second);
        let error = chain.try_block(&header, &[sign(4, transfer(0)), sign(4, second)]).expect_err("invalid");
        assert!(matches!(&error, ExecutionError::Invalid(invalid) if expected(invalid)), "{error:?}");
    };
    check(
        |t| t.chain_id = 1,
        |e| {
            let source = AdmissionError::ChainId { expected: CHAIN_ID, found: 1 };
            *e == InvalidBlock::Inadmissible { index: 1, source }
        },
    );
    check(
        |t| t.nonce = 2,
        |e| {
            let source = InvalidTransaction::NonceTooHigh { tx: 2, state: 1 };
            *e == InvalidBlock::Transaction { index: 1, source }
        },
    );
    check(
        |t| t.nonce = 0,
        |e| {
            let source = InvalidTransaction::NonceTooLow { tx: 0, state: 1 };
            *e == InvalidBlock::Transaction { index: 1, source }
        },
    );
    check(
        |t| t.max_fee_per_gas = GAS_PRICE - 1,
        |e| matches!(e, InvalidBlock::Inadmissible { index: 1, source: AdmissionError::Underpriced { .. } }),
    );
    check(
        |t| t.max_priority_fee_per_gas = GAS_PRICE + 1,
        |e| matches!(e, InvalidBlock::Inadmissible { index: 1, source: AdmissionError::Tip }),
    );
    check(
        |t| t.gas_limit = 20_999,
        |e| {
            matches!(
                e,
                InvalidBlock::Inadmissible {
                    index: 1,
                    source: AdmissionError::IntrinsicGas { least: 21_000, .. }
                }
            )
        },
    );
    check(
        |t| t.gas_limit = 16_777_217,
        |e| matches!(e, InvalidBlock::Inadmissible { index: 1, source: AdmissionError::GasLimit { .. } }),
    );
    check(
        |t| t.nonce = u64::MAX,
        |e| matches!(e, InvalidBlock::Inadmissible { index: 1, source: AdmissionError::Nonce }),
    );
    check(
        |t| t.value = U256::MAX,
        |e| matches!(e, InvalidBlock::Inadmissible { index: 1, source: AdmissionError::Cost }),
    );
    check(
        |t| t.value = credits(100_000),
        |e| {
            matches!(
                e,
                InvalidBlock::Transaction {
                    index: 1,
                    source: InvalidTransaction::LackOfFundForMaxFee { .. }
                }
            )
        },
    );
}

#[test]
fn a_block_that_stands_nowhere_is_invalid() {
    let chain = Chain::new();
    let check = |change: fn(&mut crate::Header), expected: InvalidBlock| {
        let mut header = chain.next_header();
        change(&mut header);
        assert_eq!(chain.try_block(&header, &[]), Err(ExecutionError::Invalid(expected)));
    };
    check(|h| h.number = 0, InvalidBlock::Genesis);
    check(|h| h.epoch = 1, InvalidBlock::Epoch { number: 1, expected: 0, found: 1 });
    check(|h| h.proposer = 4, InvalidBlock::Validator { index: 4, members: 4 });
    check(|h| h.missed = vec![1, 9], InvalidBlock::Validator { index: 9, members: 4 });
    check(|h| h.missed = vec![0; MISSED_MAX + 1], InvalidBlock::Missed(MISSED_MAX + 1));
    check(|h| (h.number, h.epoch) = (10, 1), InvalidBlock::NoValidators(1));
}

#[test]
fn too_many_bytes_or_too_much_gas_make_a_block_invalid() {
    let chain = Chain::with(|genesis| {
        genesis.params.block_gas_max = 20_000_000;
        genesis.params.transaction_gas_max = 16_000_000;
    });
    let header = chain.next_header();
    let mut large = transfer(0);
    large.input = vec![1; TRANSACTION_BYTES_MAX - 1_000].into();
    large.gas_limit = 6_000_000;
    let large = sign(4, large);
    let count = BLOCK_TRANSACTIONS_BYTES_MAX / large.bytes().len() + 1;
    let blocks = vec![large; count];
    let error = chain.try_block(&header, &blocks).expect_err("invalid");
    assert!(matches!(error, ExecutionError::Invalid(InvalidBlock::Bytes(_))), "{error:?}");

    let with_gas = |nonce: u64| {
        let mut transaction = transfer(nonce);
        transaction.gas_limit = 16_000_000;
        sign(4, transaction)
    };
    // What counts is what is asked for: the first uses little, the second still fits, no limit is passed.
    assert!(chain.try_block(&header, &[with_gas(0), with_gas(1)]).is_ok());
    let hungry = |nonce: u64| {
        let mut transaction = transfer(nonce);
        transaction.gas_limit = 16_000_000;
        // JUMPDEST PUSH0 JUMP: uses up all its gas.
        (transaction.to, transaction.value) = (TxKind::Create, U256::ZERO);
        transaction.input = hex!("5b5f56").into();
        sign(4, transaction)
    };
    let error = chain.try_block(&header, &[hungry(0), with_gas(1)]).expect_err("invalid");
    assert_eq!(error, ExecutionError::Invalid(InvalidBlock::Gas { index: 1 }));
}

#[test]
fn bytes_that_are_no_transaction_of_ours_are_refused_with_a_reason() {
    let good = sign(4, transfer(0)).bytes().to_vec();
    let refused = |bytes: &[u8]| Recovered::decode(bytes).expect_err("refused");
    assert_eq!(
        refused(&vec![0; TRANSACTION_BYTES_MAX + 1]),
        TransactionError::TooLong(TRANSACTION_BYTES_MAX + 1)
    );
    assert!(matches!(refused(&[]), TransactionError::Malformed(_)));
    assert!(matches!(refused(&good[..good.len() - 1]), TransactionError::Malformed(_)));
    let mut longer = good.clone();
    longer.push(0);
    assert!(matches!(refused(&longer), TransactionError::Malformed(_)));

    let legacy = TxLegacy { chain_id: None, gas_limit: 21_000, gas_price: GAS_PRICE, ..TxLegacy::default() };
    let signature = signer(4).sign_hash_sync(&legacy.signature_hash()).expect("signs");
    let bytes = TxEnvelope::from(legacy.into_signed(signature)).encoded_2718();
    assert_eq!(refused(&bytes), TransactionError::NoChainId);

    // The other `s` of the same signature (EIP-2).
    let transaction = transfer(0);
    let signature = signer(4).sign_hash_sync(&transaction.signature_hash()).expect("signs");
    let order = U256::from_be_bytes(hex!("fffffffffffffffffffffffffffffffebaaedce6af48a03bbfd25e8cd0364141"));
    let flipped = Signature::new(signature.r(), order - signature.s(), !signature.v());
    let bytes = TxEnvelope::from(transaction.into_signed(flipped)).encoded_2718();
    assert_eq!(refused(&bytes), TransactionError::Signature);
}

proptest! {
    #[test]
    fn foreign_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..300), kind in 0u8..5) {
        let mut typed = vec![kind];
        typed.extend(&bytes);
        for bytes in [bytes, typed] {
            if let Ok(transaction) = Recovered::decode(&bytes) {
                prop_assert_eq!(transaction.bytes(), &bytes[..]);
            }
        }
    }

    #[test]
    fn a_changed_byte_changes_the_sender_or_is_refused(index in 0usize..110, flip in 1u8..) {
        let good = sign(4, transfer(0));
        let mut bytes = good.bytes().to_vec();
        let index = index % bytes.len();
        bytes[index] ^= flip;
        if let Ok(changed) = Recovered::decode(&bytes) {
            prop_assert_ne!(changed.sender(), good.sender());
        }
    }
}

#[test]
fn building_takes_what_can_be_executed_and_says_why_not_the_rest() {
    let mut chain = Chain::new();
    let mut foreign = transfer(0);
    foreign.chain_id = 1;
    let candidates = [
        sign(4, transfer(1)),
        sign(4, transfer(0)),
        sign(4, transfer(1)),
        sign(5, foreign),
        sign(5, transfer(0)),
    ];
    let header = chain.next_header();
    let built = match build(&chain.spec, &chain.state, &header, &candidates, usize::MAX).expect("built") {
        Execution::Done(built) => built,
        Execution::Needs(keys) => panic!("{keys:?}"),
    };
    assert_eq!(built.chosen, [1, 2, 4]);
    assert!(matches!(built.skipped[0], (0, Skipped::Invalid(InvalidTransaction::NonceTooHigh { .. }))));
    assert!(matches!(built.skipped[1], (3, Skipped::Inadmissible(AdmissionError::ChainId { .. }))));
    let chosen: Vec<Recovered> = built.chosen.iter().map(|index| candidates[*index].clone()).collect();
    assert_eq!(chain.block(&chosen), built.executed);

    let one = candidates[1].bytes().len();
    let header = chain.next_header();
    let candidates = [sign(4, transfer(2)), sign(4, transfer(3))];
    match build(&chain.spec, &chain.state, &header, &candidates, one).expect("built") {
        Execution::Done(built) => {
            assert_eq!(built.chosen, [0]);
            assert_eq!(built.skipped, [(1, Skipped::NoRoom)]);
        }
        Execution::Needs(keys) => panic!("{keys:?}"),
    }
}

/// A block that touches transfers, modules, contracts and an epoch's end.
fn busy(chain: &mut Chain) -> (crate::Header, Vec<Recovered>) {
    while !chain.spec.is_epoch_last(chain.header.number + 1) {
        chain.block(&[]);
    }
    // Stores the caller, reads three slots, emits a log.
    let code = hex!("335f55600154600254016003540160015560006000a0");
    let mut init = hex!("60168060095f395ff3").to_vec();
    init.extend(code);
    let contract = address(6).create(0);
    chain.accounts.push(contract);
    let transactions = vec![
        chain.transaction(4, 0, TxKind::Call(address(5)), credits(3), []),
        chain.transaction(6, 0, TxKind::Create, U256::ZERO, init),
        chain.transaction(6, 1, TxKind::Call(contract), U256::ZERO, []),
        chain.transaction(7, 0, TxKind::Call(STAKING), credits(50), IStaking::bondCall {}.abi_encode()),
        chain.transaction(
            8,
            0,
            TxKind::Call(STAKING),
            credits(5),
            IStaking::delegateCall { operator: address(7) }.abi_encode(),
        ),
        chain.transaction(9, 0, TxKind::Call(STAKING), U256::ZERO, hex!("deadbeef")),
    ];
    let mut header = chain.next_header();
    header.missed = vec![1, 2, 1];
    (header, transactions)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn the_order_in_which_keys_are_loaded_is_of_no_consequence(seed: u64) {
        let mut chain = Chain::new();
        let (header, transactions) = busy(&mut chain);
        let expected = chain.try_block(&header, &transactions).expect("valid");
        let mut random = seed;
        let (executed, passes) = execute_by_cache(&chain, &header, &transactions, |keys| {
            // A different part of what is asked for, in another order, every time.
            keys.sort_by_key(|key| keccak256([&key.0[..], &random.to_be_bytes()].concat()));
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let kept = 1 + (random >> 33) as usize % keys.len();
            keys.truncate(kept);
        });
        prop_assert_eq!(executed.expect("valid"), expected);
        prop_assert!(passes > 1);
    }
}

#[test]
fn a_cache_is_filled_in_few_passes() {
    let mut chain = Chain::new();
    let (header, transactions) = busy(&mut chain);
    let (_, passes) = execute_by_cache(&chain, &header, &transactions, |_| {});
    assert!(passes <= 8, "{passes}");
    let mut chain = Chain::new();
    chain.block(&[]);
    let header = chain.next_header();
    let transfers = [sign(4, transfer(0)), sign(5, transfer(0))];
    let (_, passes) = execute_by_cache(&chain, &header, &transfers, |_| {});
    assert!(passes <= 3, "{passes}");
}

#[test]
fn a_damaged_state_is_our_fault_and_not_the_proposers() {
    let mut chain = Chain::new();
    let key = StateKey::account(&address(4));
    chain.state.0.insert(key, vec![1, 2, 3]);
    let error = chain.try_block(&chain.next_header(), &[sign(4, transfer(0))]).expect_err("refused");
    assert!(matches!(error, ExecutionError::Corrupt { key: found, .. } if found == key), "{error:?}");
}

#[test]
fn contracts_see_the_hashes_of_earlier_blocks() {
    let mut chain = Chain::new();
    for _ in 0..3 {
        chain.block(&[]);
    }
    // Returns BLOCKHASH of the calldata's first word.
    let mut init = hex!("600b8060095f395ff3").to_vec();
    init.extend(hex!("5f35405f5260205ff3"));
    init[1] = 9;
    let contract = chain.deploy(4, init);
    let ask = |number: u64| {
        let input = U256::from(number).to_be_bytes::<32>();
        B256::from_slice(&chain.simulate(address(4), contract, U256::ZERO, input).output)
    };
    let expected = |number: u64| keccak256(number.to_be_bytes());
    assert_eq!([ask(1), ask(2), ask(3)], [1, 2, 3].map(expected));
    assert_eq!(ask(chain.header.number + 5), B256::ZERO);
    // EIP-2935: the same from the history contract.
    let input = U256::from(2).to_be_bytes::<32>();
    let history = alloy_eips::eip2935::HISTORY_STORAGE_ADDRESS;
    assert_eq!(chain.simulate(address(4), history, U256::ZERO, input).output, expected(2).to_vec());
}

#[test]
fn an_account_that_delegates_its_code_to_a_module_is_no_way_in() {
    let mut chain = Chain::new();
    let authorization = Authorization { chain_id: U256::from(CHAIN_ID), address: STAKING, nonce: 0 };
    let signature = signer(8).sign_hash_sync(&authorization.signature_hash()).expect("signs");
    let transaction = TxEip7702 {
        chain_id: CHAIN_ID,
        nonce: 0,
        gas_limit: 1_000_000,
        max_fee_per_gas: GAS_PRICE,
        max_priority_fee_per_gas: 0,
        to: address(8),
        value: credits(5),
        access_list: Default::default(),
        authorization_list: vec![authorization.into_signed(signature)],
        input: IStaking::bondCall {}.abi_encode().into(),
    };
    let signature = signer(4).sign_hash_sync(&transaction.signature_hash()).expect("signs");
    let bytes = TxEnvelope::from(transaction.into_signed(signature)).encoded_2718();
    let executed = chain.block(&[Recovered::decode(&bytes).expect("a transaction")]);
    assert!(executed.receipts[0].envelope.logs().is_empty());
    let bonded = chain.view(Module::Staking, IStaking::bondedToCall { operator: address(8) });
    assert_eq!(bonded, U256::ZERO);
    assert_eq!(chain.view(Module::Staking, IStaking::bondedToCall { operator: address(4) }), U256::ZERO);
}

#[test]
fn the_least_gas_is_enough_and_less_is_not() {
    let chain = Chain::new();
    let header = chain.next_header();
    let call = CallRequest {
        from: address(4),
        to: Some(STAKING),
        value: credits(1),
        input: IStaking::bondCall {}.abi_encode().into(),
        ..CallRequest::default()
    };
    let gas = match estimate_gas(&chain.spec, &chain.state, &header, &call).expect("sound") {
        Execution::Done(estimate) => match *estimate {
            Estimate::Gas(gas) => gas,
            Estimate::Fails(outcome) => panic!("{outcome:?}"),
        },
        Execution::Needs(keys) => panic!("{keys:?}"),
    };
    let with = |gas: u64| {
        let call = CallRequest { gas: Some(gas), ..call.clone() };
        match crate::simulate(&chain.spec, &chain.state, &header, &call).expect("sound") {
            Execution::Done(outcome) => outcome.success,
            Execution::Needs(keys) => panic!("{keys:?}"),
        }
    };
    assert!(with(gas) && !with(gas - 1), "{gas}");
    let refused = CallRequest { value: U256::ZERO, ..call.clone() };
    match estimate_gas(&chain.spec, &chain.state, &header, &refused).expect("sound") {
        Execution::Done(estimate) => match *estimate {
            Estimate::Fails(outcome) => {
                assert_eq!(outcome.revert_reason().as_deref(), Some("staking: nothing was sent"));
            }
            Estimate::Gas(gas) => panic!("succeeds with {gas}"),
        },
        Execution::Needs(keys) => panic!("{keys:?}"),
    }
}

#[test]
fn a_simulation_asks_for_what_it_lacks() {
    let chain = Chain::new();
    let call = CallRequest { from: address(4), to: Some(address(5)), ..CallRequest::default() };
    let nothing = ReadCache::default();
    let asked = crate::simulate(&chain.spec, &nothing, &chain.next_header(), &call).expect("sound");
    assert!(matches!(asked, Execution::Needs(keys) if !keys.is_empty()));
    let asked = crate::params(&nothing).expect("sound");
    assert!(matches!(asked, Execution::Needs(keys) if keys.len() == crate::PARAMETERS.len()));
    assert_eq!(crate::params(&chain.state), Ok(Execution::Done(Box::new(Params::default()))));
    let set = crate::validator_set(&chain.state, 0);
    assert_eq!(set, Ok(Execution::Done(Box::new(Some(chain.genesis.validator_set())))));
    assert_eq!(crate::validator_set(&chain.state, 2), Ok(Execution::Done(Box::new(None))));
    assert_eq!(crate::upgrade_plan(&chain.state), Ok(Execution::Done(Box::new(None))));
}

#[test]
fn a_genesis_names_every_balance_and_is_sound() {
    let check = |change: fn(&mut Genesis), expected: GenesisError| {
        let mut changed = genesis();
        change(&mut changed);
        assert_eq!(genesis_writes(&changed), Err(expected));
    };
    check(|g| g.balances[3].why = " ".into(), GenesisError::NoReason(address(3)));
    check(|g| g.balances[3].address = address(2), GenesisError::Twice(address(2).to_string()));
    check(|g| g.balances[3].address = STAKING, GenesisError::Reserved(STAKING));
    check(|g| g.balances[3].address = Address::ZERO, GenesisError::Reserved(Address::ZERO));
    check(|g| g.validators[1].key = secret(1).public(), GenesisError::Twice(secret(1).public().to_string()));
    check(|g| g.validators[1].operator = address(0), GenesisError::Twice(address(0).to_string()));
    check(|g| g.validators[1].stake = credits(1), GenesisError::Stake(address(1)));
    check(|g| g.validators.clear(), GenesisError::NoValidators);
    check(|g| g.epoch_blocks = 0, GenesisError::Zero("epoch_blocks"));
    check(|g| g.balances[0].amount = U256::from(u128::MAX), GenesisError::Supply);
    check(|g| g.balances[0].amount = U256::MAX, GenesisError::Supply);
    let weak = surety_types::PublicKey([0; 32]);
    let mut changed = genesis();
    changed.validators[0].key = weak;
    assert_eq!(genesis_writes(&changed), Err(GenesisError::Key(weak)));
    check(|g| g.params.validators_max = 3, GenesisError::TooMany { what: "validators", found: 4, most: 3 });
    check(
        |g| g.params.unbonding_s = g.params.timelock_s,
        GenesisError::Params(ParamsError::Contradiction(
            "unbonding_s must be less than timelock_s: exit comes first",
        )),
    );
}

#[test]
fn a_genesis_is_a_file() {
    let genesis = genesis();
    let text = serde_json::to_string(&genesis).expect("text");
    assert_eq!(serde_json::from_str::<Genesis>(&text).expect("a genesis"), genesis);
    let unknown = text.replacen("\"chain_id\"", "\"owner\":1,\"chain_id\"", 1);
    assert!(serde_json::from_str::<Genesis>(&unknown).is_err());
}

#[test]
fn genesis_and_a_blocks_roots_are_golden() {
    let mut chain = Chain::new();
    let genesis_digest = chain.genesis.digest().expect("sound");
    let first_set = chain.genesis.validator_set().digest();
    let (header, transactions) = busy(&mut chain);
    let executed = chain.try_block(&header, &transactions).expect("valid");
    assert!(executed.receipts.iter().any(|receipt| !receipt.envelope.logs().is_empty()));
    let mut writes = Vec::new();
    for (key, value) in &executed.writes {
        writes.extend(key.0);
        writes.extend(value.as_deref().unwrap_or(b"deleted"));
    }
    let next_set = executed.next_validators.expect("an epoch ends").digest();
    let found = format!(
        "genesis {genesis_digest}\nfirst validators {first_set}\ntransactions {}\nreceipts {}\nlogs {}\ngas {}\n\
         writes {} {}\nnext validators {next_set}\n",
        executed.transactions_root,
        executed.receipts_root,
        keccak256(executed.logs_bloom),
        executed.gas_used,
        executed.writes.len(),
        keccak256(writes),
    );
    assert_eq!(found, include_str!("../vectors/block.txt"), "found:\n{found}");
}
