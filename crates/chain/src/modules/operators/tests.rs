//! Operators, their keys and offers.

use alloy_primitives::{B256, Bytes, U256};
use alloy_sol_types::SolCall;
use surety_types::{
    Canonical as _,
    abi::{IModels, IOperators, IStaking, Module},
};

use crate::{
    modules::models::tests::manifest,
    testing::{Chain, address, credits, secret, worker_proof},
};

const OPERATOR: u64 = 5;

fn chain() -> Chain {
    let mut chain = Chain::new();
    chain.call(OPERATOR, Module::Staking, credits(10), IStaking::bondCall {});
    chain
}

fn call<C: SolCall>(chain: &mut Chain, who: u64, call: C) -> Result<C::Return, String> {
    chain.try_call(who, Module::Operators, U256::ZERO, call)
}

fn register(chain: &mut Chain, who: u64) -> Result<(), String> {
    let register = IOperators::registerCall { name: "Acme".into(), url: "https://acme.example".into() };
    call(chain, who, register).map(|_| ())
}

fn add(chain: &mut Chain, who: u64, key: u8) -> Result<B256, String> {
    let (key, proof) = worker_proof(address(who), &secret(key));
    call(chain, who, IOperators::addWorkerCall { key, endpoint: "quic://a".into(), proof }).map(|_| key)
}

fn worker(chain: &Chain, key: B256) -> IOperators::Worker {
    chain.view(Module::Operators, IOperators::workerCall { key })
}

fn refused<T: std::fmt::Debug>(result: Result<T, String>, expected: &str) {
    assert_eq!(result.expect_err("refused"), format!("operators: {expected}"));
}

#[test]
fn operators_register_with_stake_and_change_their_name() {
    let mut chain = chain();
    refused(register(&mut chain, 6), "less than the worker's minimum is bonded");
    refused(add(&mut chain, OPERATOR, 90), "the caller is no registered operator");
    register(&mut chain, OPERATOR).expect("registered");
    let renamed = IOperators::registerCall { name: "Acme 2".into(), url: String::new() };
    call(&mut chain, OPERATOR, renamed).expect("renamed");
    let operator = chain.view(Module::Operators, IOperators::operatorOfCall { account: address(OPERATOR) });
    assert_eq!((operator.name.as_str(), operator.url.as_str(), operator.height), ("Acme 2", "", 4));
    assert_eq!(chain.view(Module::Operators, IOperators::operatorCountCall {}), 1);
    let all = chain.view(Module::Operators, IOperators::operatorsCall { offset: 0 });
    assert_eq!(all, [address(OPERATOR)]);
    assert!(chain.view(Module::Operators, IOperators::operatorsCall { offset: u64::MAX }).is_empty());
    let unnamed = IOperators::registerCall { name: " ".into(), url: String::new() };
    refused(call(&mut chain, OPERATOR, unnamed), "an operator has a name");
    let long = IOperators::registerCall { name: "x".repeat(65), url: String::new() };
    refused(call(&mut chain, OPERATOR, long), "the name is too long or not plain text");
    let escape = IOperators::registerCall { name: "x".into(), url: "\u{1b}[2J".into() };
    refused(call(&mut chain, OPERATOR, escape), "the url is too long or not plain text");
}

#[test]
fn worker_keys_are_proved_rotated_and_stay_answerable() {
    let mut chain = chain();
    register(&mut chain, OPERATOR).expect("registered");
    let first = add(&mut chain, OPERATOR, 90).expect("added");
    refused(add(&mut chain, OPERATOR, 90), "the key was registered before");
    let (key, proof) = worker_proof(address(6), &secret(91));
    let stolen = IOperators::addWorkerCall { key, endpoint: String::new(), proof };
    refused(call(&mut chain, OPERATOR, stolen), "the proof is not the key's signature");
    // A proof for a validator's key registers no worker.
    let (key, proof) = crate::testing::validator_proof(address(OPERATOR), &secret(92));
    let other = IOperators::addWorkerCall { key, endpoint: String::new(), proof };
    refused(call(&mut chain, OPERATOR, other), "the proof is not the key's signature");

    let moved = IOperators::setEndpointCall { key: first, endpoint: "quic://b".into() };
    refused(call(&mut chain, 6, moved.clone()), "the key is not the caller's");
    call(&mut chain, OPERATOR, moved).expect("moved");
    assert_eq!(worker(&chain, first).endpoint, "quic://b");

    let (second, proof) = worker_proof(address(OPERATOR), &secret(93));
    let rotate = IOperators::rotateWorkerCall { retired: first, key: second, endpoint: String::new(), proof };
    call(&mut chain, OPERATOR, rotate.clone()).expect("rotated");
    refused(call(&mut chain, OPERATOR, rotate), "the key is retired");
    let old = worker(&chain, first);
    assert_eq!(old.operator, address(OPERATOR));
    assert!(old.retiredHeight > old.addedHeight);
    refused(add(&mut chain, OPERATOR, 90), "the key was registered before");
    refused(call(&mut chain, OPERATOR, IOperators::retireWorkerCall { key: first }), "the key is retired");
    let call_all = IOperators::workersOfCall { operator: address(OPERATOR), offset: 0 };
    let keys: Vec<B256> =
        chain.view(Module::Operators, call_all).into_iter().map(|worker| worker.key).collect();
    assert_eq!(keys, [first, second]);
    assert!(worker(&chain, B256::repeat_byte(9)).operator.is_zero());
    let nobodys = IOperators::retireWorkerCall { key: B256::repeat_byte(9) };
    refused(call(&mut chain, OPERATOR, nobodys), "the key is not the caller's");
}

#[test]
fn offers_name_published_models_and_come_and_go() {
    let mut chain = chain();
    register(&mut chain, OPERATOR).expect("registered");
    let offer = |model: B256, price: u128| IOperators::offerCall {
        model,
        promptPrice: price,
        cachedPrice: price / 4,
        outputPrice: u128::MAX,
    };
    refused(call(&mut chain, OPERATOR, offer(B256::repeat_byte(1), 4)), "the model is not published");
    let mut ids = Vec::new();
    for number in 0..3u32 {
        let mut manifest = manifest();
        manifest.layers += number;
        let publish = IModels::publishCall { manifest: Bytes::from(manifest.to_cbor()) };
        ids.push(chain.call(6, Module::Models, U256::ZERO, publish));
        call(&mut chain, OPERATOR, offer(ids[number as usize], 4)).expect("offered");
    }
    call(&mut chain, OPERATOR, offer(ids[1], 8)).expect("changed");
    let offers = |chain: &Chain| {
        chain.view(Module::Operators, IOperators::offersOfCall { operator: address(OPERATOR), offset: 0 })
    };
    let prices: Vec<u128> = offers(&chain).iter().map(|offer| offer.promptPrice).collect();
    assert_eq!(prices, [4, 8, 4]);
    assert!(offers(&chain).iter().all(|offer| offer.outputPrice == u128::MAX));
    let withdraw = IOperators::withdrawOfferCall { model: ids[0] };
    call(&mut chain, OPERATOR, withdraw.clone()).expect("withdrawn");
    refused(call(&mut chain, OPERATOR, withdraw), "the model is not offered");
    let left: Vec<B256> = offers(&chain).iter().map(|offer| offer.model).collect();
    assert_eq!(left, [ids[2], ids[1]]);
    call(&mut chain, OPERATOR, IOperators::withdrawOfferCall { model: ids[2] }).expect("withdrawn");
    call(&mut chain, OPERATOR, IOperators::withdrawOfferCall { model: ids[1] }).expect("withdrawn");
    assert!(offers(&chain).is_empty());

    let leave = IStaking::unbondCall { operator: address(OPERATOR), amount: credits(1) };
    chain.call(OPERATOR, Module::Staking, U256::ZERO, leave);
    refused(call(&mut chain, OPERATOR, offer(ids[0], 1)), "less than the worker's minimum is bonded");
}

/// Nobody is paid for what nobody can prove false.
#[test]
fn what_cannot_be_disputed_is_offered_for_nothing() {
    let mut chain = chain();
    register(&mut chain, OPERATOR).expect("registered");
    let mut manifest = manifest();
    manifest.plan = None;
    let mut second = manifest.files[0].clone();
    second.name = "sample-2.gguf".into();
    manifest.files.push(second);
    let publish = IModels::publishCall { manifest: manifest.to_cbor().into() };
    let model = chain.call(4, Module::Models, U256::ZERO, publish);
    assert!(!chain.view(Module::Models, IModels::modelCall { id: model }).disputable);
    let offer =
        |price: u128| IOperators::offerCall { model, promptPrice: 0, cachedPrice: 0, outputPrice: price };
    let expected = "what the model says cannot be disputed: it is offered for nothing";
    refused(call(&mut chain, OPERATOR, offer(1)), expected);
    call(&mut chain, OPERATOR, offer(0)).expect("offered");
}
