//! A chain that goes on: what its accounts own, what is on its way, and every export that is none.

use alloy_primitives::{Address, B256, Bytes, U256};
use proptest::prelude::*;
use surety_types::{
    Canonical as _,
    abi::{IChannels, IGovernance, IModels, IOperators, IReceipts, IStaking, Module},
};

use super::*;
use crate::{
    Execution, GenesisError,
    modules::{
        models::tests::manifest,
        tests::{check_solvency, claim, config, equivocation, run, step},
    },
    testing::{CHAIN_ID, Chain, address, credits, secret, worker_proof},
};

const NEXT_ID: u64 = 99_999;
const VOTING_S: u64 = 300;
const TIMELOCK_S: u64 = 1_000;
const UNBONDING_S: u64 = 400;

fn chain() -> Chain {
    Chain::with(|genesis| {
        let params = &mut genesis.params;
        (params.timelock_s, params.timelock_floor_s, params.unbonding_s) = (TIMELOCK_S, 500, UNBONDING_S);
        (params.voting_s, params.channel_delay_max_s, params.channel_delay_min_s) = (VOTING_S, 450, 10);
        (params.execution_s, params.jail_missed_min, params.jail_s) = (2_000, 1, 600);
    })
}

fn go_on(chain: &Chain) -> Chain {
    let exported = chain.exported();
    let genesis = exported.genesis(NEXT_ID, None).expect("a state to go on from");
    chain.going_on(&exported, genesis)
}

fn refused<T: std::fmt::Debug>(result: Result<T, String>, expected: &str) {
    let reason = result.expect_err("refused");
    assert!(reason.ends_with(expected), "{reason}");
}

fn channel(chain: &Chain, id: B256) -> (u128, u128) {
    let channel = chain.view(Module::Channels, IChannels::channelsCall { channelId: id });
    (channel.balance, channel.totalClaimed)
}

/// A chain in the middle of everything, and the numbers to compare.
struct Busy {
    chain: Chain,
    proposal: U256,
    channel: B256,
    model: B256,
    contract: Address,
}

/// Stake leaves, a channel is claimed of and asked back, a change waits, a name points, a validator sits in jail.
fn busy() -> Busy {
    let mut chain = chain();
    // A contract that keeps the number of the block it was called in last: SSTORE(0, NUMBER).
    let contract = chain
        .deploy(9, Bytes::from_static(&[0x62, 0x43, 0x5f, 0x55, 0x5f, 0x52, 0x60, 0x03, 0x60, 0x1d, 0xf3]));
    chain.send(9, contract, U256::ZERO, Bytes::new());
    chain.call(5, Module::Staking, credits(50), IStaking::bondCall {});
    chain.call(6, Module::Staking, credits(30), IStaking::delegateCall { operator: address(5) });
    chain.call(
        6,
        Module::Staking,
        U256::ZERO,
        IStaking::unbondCall { operator: address(5), amount: credits(10) },
    );
    let register = IOperators::registerCall { name: "Acme".into(), url: String::new() };
    chain.call(5, Module::Operators, U256::ZERO, register);
    let (key, proof) = worker_proof(address(5), &secret(90));
    chain.call(
        5,
        Module::Operators,
        U256::ZERO,
        IOperators::addWorkerCall { key, endpoint: "a".into(), proof },
    );
    let publish = IModels::publishCall { manifest: manifest().to_cbor().into() };
    let model = chain.call(5, Module::Models, U256::ZERO, publish);
    chain.call(5, Module::Models, U256::ZERO, IModels::setNameCall { name: "small".into(), id: model });
    let deposit = IChannels::depositCall {
        config: config(4, 5),
        amount: 1_000,
        collector: Address::ZERO,
        collectorData: Bytes::new(),
    };
    chain.call(4, Module::Channels, U256::from(1_000), deposit);
    let channel = chain.view(Module::Channels, IChannels::getChannelIdCall { config: config(4, 5) });
    let claims = vec![claim(&chain, 4, 5, 300)];
    chain.call(5, Module::Channels, U256::ZERO, IChannels::claimCall { voucherClaims: claims });
    let change = IGovernance::Change { name: B256::right_padding_from(b"pace_ms"), value: U256::from(500) };
    let propose = IGovernance::proposeParametersCall { changes: vec![change], title: "slower".into() };
    let proposal = chain.call(0, Module::Governance, U256::ZERO, propose);
    for who in 0..3 {
        chain.call(who, Module::Governance, U256::ZERO, IGovernance::voteCall { id: proposal, support: 1 });
    }
    chain.wait(VOTING_S);
    chain.call(9, Module::Governance, U256::ZERO, IGovernance::queueCall { id: proposal });
    let withdraw = IChannels::initiateWithdrawCall { config: config(4, 5), amount: 200 };
    chain.call(4, Module::Channels, U256::ZERO, withdraw);
    // The last validator misses turns to the end of an epoch, and is jailed.
    let epoch = chain.header.epoch;
    while chain.header.epoch == epoch {
        chain.missed = vec![3; 20];
        chain.block(&[]);
    }
    chain.block(&[]);
    Busy { chain, proposal, channel, model, contract }
}

#[test]
fn everything_goes_on_and_comes_due_when_it_would_have() {
    let Busy { chain: old, proposal, channel: id, model, contract } = busy();
    let mut chain = go_on(&old);
    let first = chain.genesis.first_block();
    assert_eq!((first, chain.genesis.first_epoch()), (30, 3), "the last block was {}", old.header.number);
    assert!(old.header.number < first && first - old.header.number <= chain.spec.epoch_blocks);

    // Nobody owns more or less; what the modules say is what they said.
    for account in &old.accounts {
        assert_eq!(chain.account(*account), old.account(*account));
    }
    assert_eq!(chain.together(), old.together());
    let everywhere = |call: &dyn Fn(&Chain) -> String| assert_eq!(call(&chain), call(&old));
    for operator in (0..7).map(address) {
        for delegator in (0..7).map(address) {
            everywhere(&|chain| {
                let bonded = IStaking::bondedOfCall { operator, delegator };
                let leaving = IStaking::unbondingOfCall { operator, delegator };
                format!(
                    "{:?} {:?}",
                    chain.view(Module::Staking, bonded),
                    chain.view(Module::Staking, leaving)
                )
            });
        }
        everywhere(&|chain| {
            let offers = IOperators::workersOfCall { operator, offset: 0 };
            let receiver = IChannels::receiversCall { receiver: operator, token: Address::ZERO };
            let validator = chain.view(Module::Staking, IStaking::validatorOfCall { operator });
            format!(
                "{:?} {:?} {} {}",
                chain.view(Module::Operators, offers),
                chain.view(Module::Channels, receiver).totalClaimed,
                validator.bonded,
                validator.jailedUntil
            )
        });
    }
    everywhere(&|chain| format!("{:?}", channel(chain, id)));
    everywhere(&|chain| {
        format!("{:?}", chain.view(Module::Governance, IGovernance::proposalCall { id: proposal }))
    });
    everywhere(&|chain| {
        let name = IModels::resolveCall { name: "small".into() };
        format!(
            "{:?} {:?}",
            chain.view(Module::Models, name),
            chain.view(Module::Models, IModels::modelCall { id: model })
        )
    });
    assert_eq!(crate::params(&chain.state), crate::params(&old.state));
    check_staking(&chain);

    // The jailed one does not validate, the others do, and stand for the next epoch.
    let set = chain.validators(3);
    assert_eq!((set.epoch, set.members.len()), (3, 3));
    let validator =
        |who: u64| chain.view(Module::Staking, IStaking::validatorOfCall { operator: address(who) });
    let jailed = (0..4).find(|who| validator(*who).jailedUntil != 0).expect("one is in jail");
    assert!(validator(jailed).key.is_zero());

    // Heights that contracts see go on.
    let seen = |chain: &Chain| match chain.state.0.get(&StateKey::slot(&contract, &U256::ZERO)) {
        Some(value) => decode_slot(value).expect("a slot"),
        None => U256::ZERO,
    };
    assert_eq!(seen(&chain), seen(&old));
    chain.send(9, contract, U256::ZERO, Bytes::new());
    assert_eq!(seen(&chain), U256::from(first + 1));

    // An old transaction is none here, signed though it is.
    let nonce = old.account(address(7)).nonce;
    let foreign =
        old.transaction(7, nonce, alloy_primitives::TxKind::Call(address(8)), U256::ONE, Bytes::new());
    assert!(chain.try_block(&chain.next_header(), &[foreign]).is_err());

    // The stake that was leaving has 400 seconds from when it began, 300 of which are over.
    let leaving = chain
        .view(Module::Staking, IStaking::unbondingOfCall { operator: address(5), delegator: address(6) });
    let due = leaving[0].matureAt;
    assert_eq!(leaving[0].startedAt + UNBONDING_S, due);
    let now = chain.header.timestamp_ms / 1_000;
    chain.wait(due - now - 2);
    let withdraw = || IStaking::withdrawCall { operator: address(5) };
    refused(chain.try_call(6, Module::Staking, U256::ZERO, withdraw()), "nothing has matured");
    chain.wait(2);
    assert_eq!(chain.call(6, Module::Staking, U256::ZERO, withdraw()), credits(10));

    // So has the change its timelock.
    let queued = chain.view(Module::Governance, IGovernance::proposalCall { id: proposal });
    let execute = || IGovernance::executeCall { id: proposal };
    refused(chain.try_call(9, Module::Governance, U256::ZERO, execute()), "the timelock is not over");
    chain.wait(queued.executableAt - chain.header.timestamp_ms / 1_000);
    chain.call(9, Module::Governance, U256::ZERO, execute());
    let Ok(Execution::Done(params)) = crate::params(&chain.state) else { panic!("parameters") };
    assert_eq!(params.pace_ms, 500);

    // Epochs go on, and who comes out of jail may stand again.
    chain.next_epoch();
    chain.next_epoch();
    assert_eq!(chain.validators(chain.header.epoch).epoch, chain.header.epoch);
    chain.call(jailed, Module::Staking, U256::ZERO, IStaking::unjailCall {});
    let key = secret(jailed as u8 + 1);
    let proof = key.sign(&crate::validator_proof_message(NEXT_ID, address(jailed), &key.public()));
    let register = IStaking::registerValidatorCall {
        key: B256::from(key.public().0),
        proof: Bytes::copy_from_slice(&proof),
    };
    chain.call(jailed, Module::Staking, U256::ZERO, register);
    chain.next_epoch();
    assert_eq!(chain.validators(chain.header.epoch).members.len(), 4);
}

/// What staking owes is what it has.
fn check_staking(chain: &Chain) {
    let mut owed = chain.view(Module::Staking, IStaking::forfeitedCall {})
        + chain.view(Module::Staking, IStaking::bondedTotalCall {});
    for operator in (0..10).map(address) {
        for delegator in (0..10).map(address) {
            let leaving = chain.view(Module::Staking, IStaking::unbondingOfCall { operator, delegator });
            owed += leaving.into_iter().fold(U256::ZERO, |sum, entry| sum + entry.amount);
        }
    }
    assert_eq!(chain.balance(Module::Staking.address()), owed);
}

#[test]
fn a_channel_keeps_its_vouchers_and_its_payer_a_way_out() {
    let Busy { chain: old, channel: id, .. } = busy();
    let promised = claim(&old, 4, 5, 700);
    let mut chain = go_on(&old);
    assert_eq!(channel(&chain, id), (1_000, 300));
    let claim_of = |claims| IChannels::claimCall { voucherClaims: claims };

    // Money put in now opens the channel of today's id, and hides nothing of the old one.
    let deposit = IChannels::depositCall {
        config: config(4, 5),
        amount: 50,
        collector: Address::ZERO,
        collectorData: Bytes::new(),
    };
    chain.call(4, Module::Channels, U256::from(50), deposit);
    let today = chain.view(Module::Channels, IChannels::getChannelIdCall { config: config(4, 5) });
    assert_ne!(today, id);
    let fresh = claim(&chain, 4, 5, 40);
    chain.call(5, Module::Channels, U256::ZERO, claim_of(vec![fresh.clone(), promised.clone()]));
    assert_eq!((channel(&chain, today), channel(&chain, id)), ((50, 40), (1_000, 700)));
    chain.call(5, Module::Channels, U256::ZERO, claim_of(vec![promised.clone(), fresh]));
    assert_eq!((channel(&chain, today), channel(&chain, id)), ((50, 40), (1_000, 700)), "nothing twice");
    let mut forged = promised;
    forged.voucher.maxClaimableAmount += 1;
    refused(
        chain.try_call(5, Module::Channels, U256::ZERO, claim_of(vec![forged])),
        "the voucher is not signed by the payer authorizer",
    );
    // Received: all that was ever claimed, once.
    let before = chain.balance(address(5));
    let settle = IChannels::settleCall { receiver: address(5), token: Address::ZERO };
    chain.call(9, Module::Channels, U256::ZERO, settle);
    // Less a twenty-fifth for auditors and a hundredth for the proposer, each rounded down.
    assert_eq!(chain.balance(address(5)), before + U256::from(740 - 29 - 7));

    // The withdrawal asked for before: after the sixty seconds it was to take, and not again.
    let finalize = || IChannels::finalizeWithdrawCall { config: config(4, 5) };
    refused(chain.try_call(4, Module::Channels, U256::ZERO, finalize()), "no withdrawal is under way");
    chain.wait(60);
    chain.call(4, Module::Channels, U256::ZERO, finalize());
    assert_eq!(channel(&chain, id), (800, 700));
    refused(chain.try_call(4, Module::Channels, U256::ZERO, finalize()), "no withdrawal is under way");
    // What is left, the old first.
    for expected in [((50, 40), (700, 700)), ((40, 40), (700, 700))] {
        let withdraw = IChannels::initiateWithdrawCall { config: config(4, 5), amount: u128::MAX };
        chain.call(4, Module::Channels, U256::ZERO, withdraw);
        chain.wait(61);
        chain.call(4, Module::Channels, U256::ZERO, finalize());
        assert_eq!((channel(&chain, today), channel(&chain, id)), expected);
    }
    assert_eq!(chain.balance(Module::Channels.address()), U256::ZERO);

    // Twice removed: the first chain's channels are still reached.
    let again = chain.exported().genesis(CHAIN_ID, None);
    assert!(matches!(again, Err(RegenesisError::Genesis(GenesisError::SameChain(CHAIN_ID)))), "{again:?}");
}

#[test]
fn a_refund_is_of_the_channel_it_was_signed_for() {
    let mut old = chain();
    let deposit = IChannels::depositCall {
        config: config(4, 5),
        amount: 1_000,
        collector: Address::ZERO,
        collectorData: Bytes::new(),
    };
    old.call(4, Module::Channels, U256::from(1_000), deposit);
    let id = old.view(Module::Channels, IChannels::getChannelIdCall { config: config(4, 5) });
    let digest = old.view(
        Module::Channels,
        IChannels::getRefundDigestCall { channelId: id, nonce: U256::ZERO, amount: 400 },
    );
    let signature = crate::testing::signed_by(5, &digest);
    let refund = |signature: Bytes| IChannels::refundWithSignatureCall {
        config: config(4, 5),
        amount: 400,
        nonce: U256::ZERO,
        receiverAuthorizerSignature: signature,
    };
    let mut chain = go_on(&old);
    refused(
        chain.try_call(9, Module::Channels, U256::ZERO, refund(vec![7_u8; 65].into())),
        "the refund is not signed by the receiver authorizer",
    );
    chain.call(9, Module::Channels, U256::ZERO, refund(signature.clone()));
    assert_eq!(channel(&chain, id), (600, 0));
    refused(
        chain.try_call(9, Module::Channels, U256::ZERO, refund(signature)),
        "the refund's nonce is not the next",
    );
    chain.call(5, Module::Channels, U256::ZERO, IChannels::refundCall { config: config(4, 5), amount: 100 });
    assert_eq!(channel(&chain, id), (500, 0));
}

#[test]
fn validators_of_choice_begin_and_the_others_keep_their_stake() {
    let old = busy().chain;
    let exported = old.exported();
    let keys = |numbers: &[u8]| -> Vec<PublicKey> {
        numbers.iter().map(|number| secret(*number).public()).collect()
    };
    let genesis = exported.genesis(NEXT_ID, Some(&keys(&[4, 1]))).expect("both are registered, one in jail");
    assert_eq!(genesis, exported.genesis(NEXT_ID, Some(&keys(&[1, 4]))).expect("in any order"));
    let chain = old.going_on(&exported, genesis.clone());
    let mut named = keys(&[1, 4]);
    named.sort();
    let set = chain.validators(genesis.first_epoch());
    assert_eq!(set.members.iter().map(|member| member.key).collect::<Vec<_>>(), named);
    assert_eq!(set, genesis.validator_set());
    let mut standing = chain.view(Module::Staking, IStaking::candidatesCall {});
    standing.sort();
    let mut expected = vec![address(0), address(3)];
    expected.sort();
    assert_eq!(standing, expected);
    for operator in (0..4).map(address) {
        let bonded = IStaking::bondedToCall { operator };
        assert_eq!(chain.view(Module::Staking, bonded.clone()), old.view(Module::Staking, bonded));
    }
    check_staking(&chain);

    let refuses = |chain: &Chain, numbers: &[u8], expected: &str| {
        let error = chain.exported().genesis(NEXT_ID, Some(&keys(numbers))).expect_err("refused");
        let text = std::iter::successors(Some(&error as &dyn std::error::Error), |error| error.source())
            .map(ToString::to_string)
            .collect::<Vec<_>>()
            .join(": ");
        assert!(text.contains(expected), "{text}");
    };
    refuses(&old, &[1, 77], "a key is no validator's");
    refuses(&old, &[], "nobody is eligible");
    refuses(&old, &[1, 1], "occurs twice");
    let mut convicted = old;
    let report = equivocation(&convicted, 2, 0);
    assert!(convicted.send(9, Module::Staking.address(), U256::ZERO, report).envelope.status());
    refuses(&convicted, &[1, 2], "the operator was slashed");
}

#[test]
fn a_genesis_is_the_same_bytes_for_everyone_and_names_what_differs() {
    let old = busy().chain;
    let exported = old.exported();
    let genesis = exported.genesis(NEXT_ID, None).expect("a state to go on from");
    let bytes = serde_json::to_vec(&genesis).expect("encodes");
    assert_eq!(
        bytes,
        serde_json::to_vec(&old.exported().genesis(NEXT_ID, None).expect("again")).expect("encodes")
    );
    assert_eq!(serde_json::from_slice::<Genesis>(&bytes).expect("decodes"), genesis);
    assert_eq!(genesis.supply(), Some(old.together()));
    assert_eq!(crate::genesis_writes(&genesis), Err(GenesisError::NeedsState));

    let differs = |change: &dyn Fn(&mut Genesis, &mut Exported), expected: &str| {
        let (mut genesis, mut exported) = (genesis.clone(), exported.clone());
        let digest = genesis.digest();
        change(&mut genesis, &mut exported);
        let error = regenesis_writes(&genesis, &exported).expect_err("refused");
        assert!(error.to_string().contains(expected), "{error}");
        if genesis != old.exported().genesis(NEXT_ID, None).expect("as before") {
            assert_ne!(genesis.digest(), digest, "{expected}");
        }
    };
    differs(&|_, exported| exported.origin.export = B256::ZERO, "the export's digest");
    differs(&|_, exported| exported.origin.number += 1, "the origin's block");
    differs(&|genesis, _| genesis.timestamp_ms += 1, "timestamp_ms is 170");
    differs(&|genesis, _| genesis.params.pace_ms += 1, "the parameters");
    differs(&|genesis, _| genesis.validators[0].stake += U256::ONE, "the validators");
    differs(&|genesis, _| genesis.origin.as_mut().expect("it goes on").supply += U256::ONE, "the supply");
    differs(&|_, exported| exported.writes.swap(0, 1), "out of order");
    differs(&|_, exported| exported.writes[0].1 = vec![0], "are no account, slot or code");
    let richest = StateKey::account(&address(7));
    differs(
        &|_, exported| {
            let at = exported.writes.iter().position(|(key, _)| *key == richest).expect("it has an account");
            exported.writes[at].1[39] ^= 1;
        },
        "all balances of the export together",
    );
    let plain = crate::testing::genesis();
    assert!(
        regenesis_writes(&plain, &exported)
            .expect_err("another chain")
            .to_string()
            .contains("the origin is none")
    );

    let unsound = |change: &dyn Fn(&mut Genesis), expected: GenesisError| {
        let mut genesis = genesis.clone();
        change(&mut genesis);
        assert_eq!(genesis.digest(), Err(expected));
    };
    unsound(&|genesis| genesis.chain_id = CHAIN_ID, GenesisError::SameChain(CHAIN_ID));
    unsound(&|genesis| genesis.balances = crate::testing::genesis().balances, GenesisError::Balances);
    unsound(&|genesis| genesis.origin.as_mut().expect("it goes on").epoch = u64::MAX, GenesisError::Heights);
}

#[test]
fn a_state_older_than_a_module_or_parameter_gets_them() {
    let mut old = chain();
    old.block(&[]);
    let (module, index) = (Module::Receipts.address(), 3);
    let mut exported = old.exported();
    exported.writes.retain(|(key, _)| {
        let slot = params::slot(index);
        *key != StateKey::account(&module) && *key != StateKey::slot(&slot.module, &slot.key)
    });
    let genesis = exported.genesis(NEXT_ID, None).expect("a state to go on from");
    assert_eq!(genesis.params.value(index), Params::default().value(index));
    let chain = old.going_on(&exported, genesis);
    assert_eq!(chain.account(module), old.account(module));
    chain.view(Module::Receipts, IReceipts::postedByCall { operator: address(5) });
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, max_shrink_iters: 200, ..ProptestConfig::default() })]
    #[test]
    fn whatever_was_done_before_money_is_conserved_across_and_after(
        before in prop::collection::vec(step(), 1..40),
        after in prop::collection::vec(step(), 1..20),
    ) {
        let mut old = Chain::with(|genesis| {
            (genesis.params.unbonding_s, genesis.params.voting_s) = (10, 10);
            (genesis.params.channel_delay_min_s, genesis.params.jail_missed_min) = (10, 1);
        });
        for step in &before {
            run(&mut old, step);
        }
        check_solvency(&old);
        // Where all validators have forfeited or left there is nothing to go on with.
        prop_assume!(old.exported().genesis(NEXT_ID, None).is_ok());
        let mut chain = go_on(&old);
        for account in &old.accounts {
            prop_assert_eq!(chain.account(*account), old.account(*account));
        }
        check_staking(&chain);
        for step in &after {
            run(&mut chain, step);
        }
        check_staking(&chain);
        chain.next_epoch();
        chain.next_epoch();
        prop_assert_eq!(chain.together(), old.together());
    }

    #[test]
    fn a_foreign_state_never_panics(
        writes in prop::collection::btree_map(any::<[u8; 32]>(), prop::collection::vec(any::<u8>(), 0..80), 0..8),
        slots in prop::collection::vec((0usize..400, any::<[u8; 32]>()), 0..6),
    ) {
        let mut exported = chain().exported();
        exported.writes = writes.into_iter().map(|(key, value)| (StateKey(key), value)).collect();
        prop_assert!(exported.genesis(NEXT_ID, None).is_err());
        // A sound state with slots of somebody's choice.
        let mut exported = chain().exported();
        for (at, value) in slots {
            let at = at % exported.writes.len();
            let value = U256::from_be_bytes(value).max(U256::ONE);
            if exported.writes[at].1.len() <= 32 {
                exported.writes[at].1 = value.to_be_bytes_trimmed_vec();
            }
        }
        let _ = exported.genesis(NEXT_ID, None);
    }
}
