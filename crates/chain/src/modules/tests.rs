//! Modules as the EVM reaches them: which calls are refused and why, and what stays true whatever is called.

use alloy_primitives::{Address, Bytes, TxKind, U256, hex};
use alloy_sol_types::{Revert, SolCall as _, SolError as _};
use proptest::prelude::*;
use surety_types::abi::{
    IChannels::{self, ChannelConfig, Voucher, VoucherClaim},
    IGovernance, IParams, IStaking, Module,
    address::{CHANNELS, CLAIMS, DISPUTES, PARAMS, STAKING},
};

use crate::{
    SignedVote, VoteKind,
    testing::{Chain, address, credits, owed_by_claims, owed_by_disputes, secret, signed_by},
};

/// Creation code of a contract that passes its calldata and value on to the staking module by one instruction and
/// returns or reverts with what comes back.
fn forwarder(instruction: u8) -> Bytes {
    let takes_value = matches!(instruction, 0xf1 | 0xf2);
    let mut code = hex!("365f5f375f5f365f").to_vec();
    if takes_value {
        code.push(0x34);
    }
    code.extend(hex!("6108015a"));
    code.push(instruction);
    code.extend(hex!("3d5f5f3e60"));
    code.push(code.len() as u8 + 5);
    code.extend(hex!("573d5ffd5b3d5ff3"));
    let mut creation = vec![0x60, code.len() as u8];
    creation.extend(hex!("8060095f395ff3"));
    creation.extend(code);
    creation.into()
}

const CALL: u8 = 0xf1;
const CALLCODE: u8 = 0xf2;
const DELEGATECALL: u8 = 0xf4;
const STATICCALL: u8 = 0xfa;

fn reason(output: &[u8]) -> String {
    Revert::abi_decode(output).map_or_else(|_| hex::encode(output), |revert| revert.reason)
}

#[test]
fn contracts_call_modules_directly_or_not_at_all() {
    let mut chain = Chain::new();
    let call = chain.deploy(4, forwarder(CALL));
    let callcode = chain.deploy(4, forwarder(CALLCODE));
    let delegatecall = chain.deploy(4, forwarder(DELEGATECALL));
    let staticcall = chain.deploy(4, forwarder(STATICCALL));
    let bond = IStaking::bondCall {}.abi_encode();
    let total = IStaking::bondedTotalCall {}.abi_encode();

    assert!(chain.send(4, call, credits(5), bond.clone()).envelope.status());
    let bonded = chain.view(Module::Staking, IStaking::bondedToCall { operator: call });
    assert_eq!(bonded, credits(5), "the contract is who bonds");
    for (contract, input, expected) in [
        (callcode, &bond, "staking: modules are called directly"),
        (callcode, &total, "staking: modules are called directly"),
        (delegatecall, &bond, "staking: modules are called directly"),
        (delegatecall, &total, "staking: modules are called directly"),
    ] {
        let receipt = chain.send(4, contract, U256::ZERO, input.clone());
        assert_eq!(reason(&receipt.output), expected);
    }
    let receipt = chain.send(4, callcode, credits(1), bond.clone());
    assert_eq!(reason(&receipt.output), "staking: modules are called directly");
    let unbond = IStaking::unbondCall { operator: call, amount: U256::MAX }.abi_encode();
    let receipt = chain.send(4, staticcall, U256::ZERO, unbond.clone());
    assert!(!receipt.envelope.status());
    let read = chain.send(4, staticcall, U256::ZERO, total);
    assert_eq!(U256::from_be_slice(&read.output), credits(40_005));

    let registered = IStaking::retireValidatorCall {}.abi_encode();
    let receipt = chain.send(4, staticcall, U256::ZERO, registered);
    assert_eq!(reason(&receipt.output), "staking: the caller does not stand as a validator");
}

#[test]
fn a_static_call_changes_nothing() {
    let mut chain = Chain::new();
    // Bonds its endowment when created, then forwards by staticcall: it has something to lose.
    let mut creation = vec![0x63];
    creation.extend(IStaking::bondCall::SELECTOR);
    // PUSH4 selector, PUSH1 224, SHL, PUSH0, MSTORE; CALL(gas, staking, value, 0, 4, 0, 0); POP
    creation.extend(hex!("60e01b5f525f5f60045f346108015af150"));
    let runtime = &forwarder(STATICCALL)[9..];
    let offset = creation.len() as u8 + 9;
    creation.extend([0x60, runtime.len() as u8, 0x80, 0x60, offset, 0x5f, 0x39, 0x5f, 0xf3]);
    creation.extend(runtime);
    let nonce = chain.account(address(4)).nonce;
    let contract = address(4).create(nonce);
    chain.accounts.push(contract);
    let creation = chain.transaction(4, nonce, TxKind::Create, credits(3), creation);
    assert!(chain.block(&[creation]).receipts[0].envelope.status());
    let bonded = |chain: &Chain| chain.view(Module::Staking, IStaking::bondedToCall { operator: contract });
    assert_eq!(bonded(&chain), credits(3));
    let unbond = IStaking::unbondCall { operator: contract, amount: credits(1) }.abi_encode();
    let receipt = chain.send(4, contract, U256::ZERO, unbond);
    assert_eq!(reason(&receipt.output), "staking: a static call changes nothing");
    assert_eq!(bonded(&chain), credits(3));
}

#[test]
fn a_payment_runs_nobodys_code() {
    let mut chain = Chain::with(|genesis| {
        (genesis.params.unbonding_s, genesis.params.voting_s) = (10, 10);
    });
    // Whatever calls this contract is passed on to staking: a payment that ran its code would call staking again.
    let contract = chain.deploy(4, forwarder(CALL));
    chain.send(4, contract, credits(5), IStaking::bondCall {}.abi_encode());
    let unbond = IStaking::unbondCall { operator: contract, amount: U256::MAX }.abi_encode();
    assert!(chain.send(4, contract, U256::ZERO, unbond).envelope.status());
    chain.wait(11);
    let withdraw = IStaking::withdrawCall { operator: contract }.abi_encode();
    let receipt = chain.send(4, contract, U256::ZERO, withdraw.clone());
    assert!(receipt.envelope.status());
    assert_eq!(receipt.envelope.logs().len(), 1, "one withdrawal, nothing else");
    assert_eq!(chain.balance(contract), credits(5));
    let again = chain.send(4, contract, U256::ZERO, withdraw);
    assert_eq!(reason(&again.output), "staking: nothing has matured");
}

#[test]
fn what_is_no_call_is_refused_with_a_reason() {
    let mut chain = Chain::new();
    let mut check = |value: U256, input: &[u8], expected: &str| {
        let receipt = chain.send(4, STAKING, value, input.to_vec());
        assert!(!receipt.envelope.status());
        assert_eq!(reason(&receipt.output), expected);
    };
    check(credits(1), &[], "staking: no function is named");
    check(U256::ZERO, &[1, 2, 3], "staking: no function is named");
    check(U256::ZERO, &hex!("deadbeef"), "staking: no such function");
    check(U256::ZERO, &IStaking::delegateCall::SELECTOR, "staking: the arguments are malformed");
    let mut dirty = IStaking::delegateCall { operator: address(0) }.abi_encode();
    dirty[4] = 1;
    check(credits(1), &dirty, "staking: the arguments are malformed");
    check(credits(1), &IStaking::retireValidatorCall {}.abi_encode(), "staking: the function takes no value");
    check(U256::ZERO, &vec![0; 70_000], "staking: the input is too long");
    let balance = chain.balance(STAKING);
    assert_eq!(balance, credits(40_000));
}

#[test]
fn too_little_gas_ends_a_call_and_undoes_it() {
    let chain = Chain::new();
    let header = chain.next_header();
    let enough = chain.simulate(address(4), STAKING, credits(1), IStaking::bondCall {}.abi_encode()).gas_used;
    for gas in (21_100..enough).step_by(4_999) {
        let call = crate::CallRequest {
            from: address(4),
            to: Some(STAKING),
            gas: Some(gas),
            value: credits(1),
            input: IStaking::bondCall {}.abi_encode().into(),
            ..crate::CallRequest::default()
        };
        match crate::simulate(&chain.spec, &chain.state, &header, &call).expect("sound") {
            crate::Execution::Done(outcome) => {
                assert!(!outcome.success && outcome.logs.is_empty(), "{gas}");
                assert!(outcome.gas_used <= gas);
            }
            crate::Execution::Needs(keys) => panic!("{keys:?}"),
        }
    }
}

#[test]
fn parameters_are_read_and_not_written() {
    let chain = Chain::new();
    let name = crate::Parameter::name_word(&crate::PARAMETERS[0]);
    let value = chain.view(Module::Params, IParams::getCall { name });
    assert_eq!(value, U256::from(1_000_000_000));
    let all = chain.view(Module::Params, IParams::allCall {});
    assert_eq!(all.len(), crate::PARAMETERS.len());
    assert!(
        all.iter().all(|parameter| parameter.least <= parameter.value && parameter.value <= parameter.most)
    );
    let unknown = IParams::getCall { name: Default::default() }.abi_encode();
    let outcome = chain.simulate(address(4), PARAMS, U256::ZERO, unknown);
    assert_eq!(outcome.revert_reason().as_deref(), Some("params: no such parameter"));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]
    #[test]
    fn garbage_never_panics_and_changes_nothing_unseen(
        module in 0usize..Module::ALL.len(),
        function in 0usize..30,
        words in prop::collection::vec(
            prop_oneof![
                Just([0u8; 32]),
                Just([0xff; 32]),
                (0u64..400).prop_map(|word| U256::from(word).to_be_bytes::<32>()),
                any::<[u8; 32]>(),
            ],
            0..24,
        ),
        tail in prop::collection::vec(any::<u8>(), 0..40),
        value in prop_oneof![Just(U256::ZERO), Just(U256::from(7))],
    ) {
        let chain = Chain::new();
        let module = Module::ALL[module];
        let abi = module.abi();
        let functions: Vec<_> = abi.functions().collect();
        let mut input = functions[function % functions.len()].selector().to_vec();
        input.extend(words.concat());
        input.extend(tail);
        let outcome = chain.simulate(address(0), module.address(), value, input);
        prop_assert!(outcome.invalid.is_none());
        if !outcome.success && outcome.halt.is_none() {
            let said = outcome.revert_reason().unwrap_or_default();
            let named = said.starts_with(module.name());
            prop_assert!(named, "{said}");
        }
    }
}

/// Something that anyone may try.
#[derive(Debug, Clone)]
pub(crate) enum Step {
    Bond { who: u64, amount: u64 },
    Delegate { who: u64, to: u64, amount: u64 },
    Unbond { who: u64, from: u64, amount: u64 },
    UnbondAll { who: u64, from: u64 },
    Withdraw { who: u64, from: u64 },
    Register { who: u64 },
    Retire { who: u64 },
    Equivocate { validator: u64, reporter: u64 },
    Deposit { payer: u64, receiver: u64, amount: u64 },
    Claim { payer: u64, receiver: u64, amount: u64 },
    Settle { receiver: u64 },
    Refund { payer: u64, receiver: u64, amount: u64 },
    Leave { payer: u64, receiver: u64, amount: u64 },
    Left { payer: u64, receiver: u64 },
    Propose { who: u64 },
    Vote { who: u64, support: u8 },
    Miss { index: usize },
    Wait { seconds: u64 },
    NextEpoch,
}

pub(crate) fn step() -> impl Strategy<Value = Step> {
    let who = 0u64..7;
    let amount = prop_oneof![0u64..5, 1u64..3_000];
    prop_oneof![
        (who.clone(), amount.clone()).prop_map(|(who, amount)| Step::Bond { who, amount }),
        (who.clone(), who.clone(), amount.clone()).prop_map(|(who, to, amount)| Step::Delegate {
            who,
            to,
            amount
        }),
        (who.clone(), who.clone(), amount.clone()).prop_map(|(who, from, amount)| Step::Unbond {
            who,
            from,
            amount
        }),
        (who.clone(), who.clone()).prop_map(|(who, from)| Step::UnbondAll { who, from }),
        (who.clone(), who.clone()).prop_map(|(who, from)| Step::Withdraw { who, from }),
        who.clone().prop_map(|who| Step::Register { who }),
        who.clone().prop_map(|who| Step::Retire { who }),
        (who.clone(), who.clone()).prop_map(|(validator, reporter)| Step::Equivocate { validator, reporter }),
        (who.clone(), who.clone(), amount.clone()).prop_map(|(payer, receiver, amount)| Step::Deposit {
            payer,
            receiver,
            amount
        }),
        (who.clone(), who.clone(), amount.clone()).prop_map(|(payer, receiver, amount)| Step::Claim {
            payer,
            receiver,
            amount
        }),
        who.clone().prop_map(|receiver| Step::Settle { receiver }),
        (who.clone(), who.clone(), amount.clone()).prop_map(|(payer, receiver, amount)| Step::Refund {
            payer,
            receiver,
            amount
        }),
        (who.clone(), who.clone(), amount).prop_map(|(payer, receiver, amount)| Step::Leave {
            payer,
            receiver,
            amount
        }),
        (who.clone(), who.clone()).prop_map(|(payer, receiver)| Step::Left { payer, receiver }),
        who.clone().prop_map(|who| Step::Propose { who }),
        (who, 0u8..4).prop_map(|(who, support)| Step::Vote { who, support }),
        (0usize..4).prop_map(|index| Step::Miss { index }),
        (0u64..200).prop_map(|seconds| Step::Wait { seconds }),
        Just(Step::NextEpoch),
    ]
}

pub(crate) fn config(payer: u64, receiver: u64) -> ChannelConfig {
    ChannelConfig {
        payer: address(payer),
        payerAuthorizer: address(payer),
        receiver: address(receiver),
        receiverAuthorizer: address(receiver),
        token: Address::ZERO,
        withdrawDelay: alloy_primitives::aliases::U40::from(60u64),
        salt: Default::default(),
    }
}

/// A claim with a voucher of the payer's for as much.
pub(crate) fn claim(chain: &Chain, payer: u64, receiver: u64, total: u128) -> VoucherClaim {
    let channel = config(payer, receiver);
    let id = chain.view(Module::Channels, IChannels::getChannelIdCall { config: channel.clone() });
    let digest = chain
        .view(Module::Channels, IChannels::getVoucherDigestCall { channelId: id, maxClaimableAmount: total });
    VoucherClaim {
        voucher: Voucher { channel, maxClaimableAmount: total },
        signature: signed_by(payer, &digest),
        totalClaimed: total,
    }
}

/// Two votes of a validator for different blocks in one view.
pub(crate) fn equivocation(chain: &Chain, key: u8, epoch: u64) -> Bytes {
    let secret = secret(key);
    let vote = |digest: u8| {
        let mut message = vec![epoch as u8, 3, 2];
        message.extend([digest; 32]);
        let signed = VoteKind::Notarize.signed_bytes(&chain.spec.vote_namespace(), &message);
        SignedVote { kind: VoteKind::Notarize, signature: secret.sign(&signed), message }
    };
    assert!(epoch < 128, "one byte is enough for the epoch");
    SignedVote::report(&secret.public(), &vote(1), &vote(2))
}

pub(crate) fn run(chain: &mut Chain, step: &Step) {
    let one = |amount: u64| U256::from(amount) * U256::from(1_000_000_000_000_000_003u64);
    let wei = |amount: u64| u128::from(amount) * 1_000_000_000_000_000_003;
    match *step {
        Step::Bond { who, amount } => {
            let _ = chain.try_call(who, Module::Staking, one(amount), IStaking::bondCall {});
        }
        Step::Delegate { who, to, amount } => {
            let call = IStaking::delegateCall { operator: address(to) };
            let _ = chain.try_call(who, Module::Staking, one(amount), call);
        }
        Step::Unbond { who, from, amount } => {
            let call = IStaking::unbondCall { operator: address(from), amount: one(amount) };
            let _ = chain.try_call(who, Module::Staking, U256::ZERO, call);
        }
        Step::UnbondAll { who, from } => {
            let call = IStaking::unbondCall { operator: address(from), amount: U256::MAX };
            let _ = chain.try_call(who, Module::Staking, U256::ZERO, call);
        }
        Step::Withdraw { who, from } => {
            let call = IStaking::withdrawCall { operator: address(from) };
            let _ = chain.try_call(who, Module::Staking, U256::ZERO, call);
        }
        Step::Register { who } => {
            let (key, proof) = crate::testing::validator_proof(address(who), &secret(who as u8 + 1));
            let call = IStaking::registerValidatorCall { key, proof };
            let _ = chain.try_call(who, Module::Staking, U256::ZERO, call);
        }
        Step::Retire { who } => {
            let _ = chain.try_call(who, Module::Staking, U256::ZERO, IStaking::retireValidatorCall {});
        }
        Step::Equivocate { validator, reporter } => {
            let epoch = chain.spec.epoch(chain.header.number);
            let report = equivocation(chain, validator as u8 + 1, epoch);
            chain.send(reporter, STAKING, U256::ZERO, report);
        }
        Step::Deposit { payer, receiver, amount } => {
            let call = IChannels::depositCall {
                config: config(payer, receiver),
                amount: wei(amount),
                collector: Address::ZERO,
                collectorData: Bytes::new(),
            };
            let _ = chain.try_call(payer, Module::Channels, one(amount), call);
        }
        Step::Claim { payer, receiver, amount } => {
            let claims = vec![claim(chain, payer, receiver, wei(amount)); 2];
            let _ = chain.try_call(
                receiver,
                Module::Channels,
                U256::ZERO,
                IChannels::claimCall { voucherClaims: claims },
            );
        }
        Step::Settle { receiver } => {
            let call = IChannels::settleCall { receiver: address(receiver), token: Address::ZERO };
            let _ = chain.try_call(9, Module::Channels, U256::ZERO, call);
        }
        Step::Refund { payer, receiver, amount } => {
            let call = IChannels::refundCall { config: config(payer, receiver), amount: wei(amount) };
            let _ = chain.try_call(receiver, Module::Channels, U256::ZERO, call);
        }
        Step::Leave { payer, receiver, amount } => {
            let call =
                IChannels::initiateWithdrawCall { config: config(payer, receiver), amount: wei(amount) };
            let _ = chain.try_call(payer, Module::Channels, U256::ZERO, call);
        }
        Step::Left { payer, receiver } => {
            let call = IChannels::finalizeWithdrawCall { config: config(payer, receiver) };
            let _ = chain.try_call(payer, Module::Channels, U256::ZERO, call);
        }
        Step::Propose { who } => {
            let call = IGovernance::proposeUpgradeCancellationCall { title: "nothing".into() };
            let _ = chain.try_call(who, Module::Governance, U256::ZERO, call);
        }
        Step::Vote { who, support } => {
            let call = IGovernance::voteCall { id: U256::ONE, support };
            let _ = chain.try_call(who, Module::Governance, U256::ZERO, call);
        }
        Step::Miss { index } => chain.missed.push(index),
        Step::Wait { seconds } => chain.wait(seconds),
        Step::NextEpoch => chain.next_epoch(),
    }
}

/// What the modules of stakes, disputes and claims owe and what they have. Exactly equal: nobody sent anything astray. Where penalties touched what was leaving, less than a wei for each entry is left over until the last
/// has left.
pub(crate) fn check_stakes(chain: &Chain) {
    let mut owed = chain.view(Module::Staking, IStaking::forfeitedCall {});
    let mut bonded = U256::ZERO;
    for operator in (0..10).map(address) {
        bonded += chain.view(Module::Staking, IStaking::bondedToCall { operator });
        let (mut parts, mut leaving, mut entries) = (U256::ZERO, U256::ZERO, 0);
        for delegator in (0..10).map(address) {
            parts += chain.view(Module::Staking, IStaking::bondedOfCall { operator, delegator });
            for entry in chain.view(Module::Staking, IStaking::unbondingOfCall { operator, delegator }) {
                leaving += entry.amount;
                entries += 1;
            }
        }
        assert!(parts <= chain.view(Module::Staking, IStaking::bondedToCall { operator }));
        let kept = chain.view(Module::Staking, IStaking::leavingCall { operator });
        assert!(leaving <= kept && kept <= leaving + U256::from(entries), "{leaving} {kept} {entries}");
        owed += kept;
    }
    assert_eq!(bonded, chain.view(Module::Staking, IStaking::bondedTotalCall {}));
    assert_eq!(chain.balance(STAKING), bonded + owed);
    assert_eq!(chain.balance(DISPUTES), owed_by_disputes(chain));
    assert_eq!(chain.balance(CLAIMS), owed_by_claims(chain));
}

/// The same, and for channels.
pub(crate) fn check_solvency(chain: &Chain) {
    check_stakes(chain);
    let mut owed = U256::ZERO;
    for receiver in 0..7 {
        let totals = IChannels::receiversCall { receiver: address(receiver), token: Address::ZERO };
        let totals = chain.view(Module::Channels, totals);
        owed += U256::from(totals.totalClaimed - totals.totalSettled);
        for payer in 0..7 {
            let call = IChannels::getChannelIdCall { config: config(payer, receiver) };
            let id = chain.view(Module::Channels, call);
            let channel = chain.view(Module::Channels, IChannels::channelsCall { channelId: id });
            owed += U256::from(channel.balance - channel.totalClaimed);
        }
    }
    assert_eq!(chain.balance(CHANNELS), owed);
    for module in [
        Module::Operators,
        Module::Models,
        Module::Receipts,
        Module::Governance,
        Module::Params,
        Module::Hosting,
    ] {
        assert_eq!(chain.balance(module.address()), U256::ZERO);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, max_shrink_iters: 400, ..ProptestConfig::default() })]
    #[test]
    fn whatever_is_called_money_is_conserved_and_modules_are_solvent(
        steps in prop::collection::vec(step(), 1..60),
    ) {
        let mut chain = Chain::with(|genesis| {
            let params = &mut genesis.params;
            (params.unbonding_s, params.voting_s, params.jail_missed_min) = (100, 100, 2);
            (params.channel_delay_min_s, params.slash_equivocation_bps) = (1, 3_333);
        });
        for step in &steps {
            run(&mut chain, step);
        }
        check_solvency(&chain);
    }
}
