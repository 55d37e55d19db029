//! Governance: from a proposal to its execution, and every way it is stopped.

use alloy_primitives::{B256, U256};
use surety_types::abi::{
    IGovernance::{self, Change, Upgrade},
    IParams, IStaking, Module,
};

use crate::{
    Execution, Params,
    testing::{Chain, address, credits},
};

const TIMELOCK_S: u64 = 1_000;
const VOTING_S: u64 = 300;

fn chain() -> Chain {
    Chain::with(|genesis| {
        let params = &mut genesis.params;
        (params.timelock_s, params.timelock_floor_s, params.unbonding_s) = (TIMELOCK_S, 500, 400);
        (params.voting_s, params.channel_delay_max_s, params.channel_delay_min_s) = (VOTING_S, 450, 10);
        (params.execution_s, params.upgrade_lead_blocks) = (2_000, 5);
    })
}

fn word(name: &str) -> B256 {
    B256::right_padding_from(name.as_bytes())
}

fn propose(chain: &mut Chain, changes: &[(&str, u64)]) -> Result<U256, String> {
    let changes = changes.iter().map(|(name, value)| Change { name: word(name), value: U256::from(*value) });
    let call = IGovernance::proposeParametersCall { changes: changes.collect(), title: "a change".into() };
    chain.try_call(0, Module::Governance, U256::ZERO, call)
}

fn vote(chain: &mut Chain, who: u64, id: U256, support: u8) -> Result<(), String> {
    let call = IGovernance::voteCall { id, support };
    chain.try_call(who, Module::Governance, U256::ZERO, call).map(|_| ())
}

fn queue(chain: &mut Chain, id: U256) -> Result<(), String> {
    chain.try_call(9, Module::Governance, U256::ZERO, IGovernance::queueCall { id }).map(|_| ())
}

fn execute(chain: &mut Chain, id: U256) -> Result<(), String> {
    chain.try_call(9, Module::Governance, U256::ZERO, IGovernance::executeCall { id }).map(|_| ())
}

fn state(chain: &Chain, id: U256) -> u8 {
    chain.view(Module::Governance, IGovernance::proposalCall { id }).state
}

fn params(chain: &Chain) -> Params {
    match crate::params(&chain.state).expect("sound") {
        Execution::Done(params) => *params,
        Execution::Needs(keys) => panic!("{keys:?}"),
    }
}

fn refused<T: std::fmt::Debug>(result: Result<T, String>, expected: &str) {
    assert_eq!(result.expect_err("refused"), format!("governance: {expected}"));
}

/// Passes what was proposed, up to the queue.
fn pass(chain: &mut Chain, id: U256) {
    for who in 0..3 {
        vote(chain, who, id, 1).expect("voted");
    }
    chain.wait(VOTING_S);
    queue(chain, id).expect("passed");
}

#[test]
fn a_change_passes_waits_and_holds_from_the_next_block_on() {
    let mut chain = chain();
    let id = propose(&mut chain, &[("pace_ms", 500), ("validators_max", 64)]).expect("proposed");
    assert_eq!(state(&chain, id), 1);
    refused(queue(&mut chain, id), "only a proposal that passed is queued, once and in time");
    refused(execute(&mut chain, id), "the proposal is not queued");
    pass(&mut chain, id);
    refused(queue(&mut chain, id), "only a proposal that passed is queued, once and in time");
    refused(execute(&mut chain, id), "the timelock is not over");
    chain.wait(TIMELOCK_S - 10);
    refused(execute(&mut chain, id), "the timelock is not over");
    chain.wait(10);
    assert_eq!(params(&chain).pace_ms, 250);
    execute(&mut chain, id).expect("executed");
    assert_eq!((params(&chain).pace_ms, params(&chain).validators_max), (500, 64));
    let value = chain.view(Module::Params, IParams::getCall { name: word("pace_ms") });
    assert_eq!(value, U256::from(500));
    assert_eq!(state(&chain, id), 6);
    refused(execute(&mut chain, id), "the proposal is not queued");
}

#[test]
fn the_timelock_is_shortened_only_by_what_waited_it_and_never_below_its_floor() {
    let mut chain = chain();
    let below = propose(&mut chain, &[("timelock_s", 499)]);
    refused(below, "timelock_s is below timelock_floor_s");
    refused(propose(&mut chain, &[("timelock_floor_s", 2)]), "timelock_floor_s is fixed at genesis");
    let shorter = propose(&mut chain, &[("timelock_s", 500)]).expect("proposed");
    let other = propose(&mut chain, &[("pace_ms", 500)]).expect("proposed");
    for id in [shorter, other] {
        for who in 0..3 {
            vote(&mut chain, who, id, 1).expect("voted");
        }
    }
    chain.wait(VOTING_S);
    queue(&mut chain, shorter).expect("passed");
    chain.wait(900);
    queue(&mut chain, other).expect("passed");
    chain.wait(100);
    execute(&mut chain, shorter).expect("it waited the old delay");
    // What was queued under the old delay still waits it.
    chain.wait(600);
    refused(execute(&mut chain, other), "the timelock is not over");
    chain.wait(300);
    execute(&mut chain, other).expect("now it has waited");
}

#[test]
fn exit_stays_faster_than_any_change() {
    let mut chain = chain();
    let check = |chain: &mut Chain, changes: &[(&str, u64)], expected: &str| {
        refused(propose(chain, changes), expected);
    };
    check(
        &mut chain,
        &[("unbonding_s", 1_000)],
        "unbonding_s must be less than timelock_s: exit comes first",
    );
    check(
        &mut chain,
        &[("channel_delay_max_s", 1_000)],
        "channel_delay_max_s must be less than timelock_s: exit comes first",
    );
    // Two proposals that agree with today's rules and not with each other: the later one fails.
    let shorter = propose(&mut chain, &[("timelock_s", 600)]).expect("proposed");
    let longer = propose(&mut chain, &[("unbonding_s", 700)]).expect("proposed");
    for id in [shorter, longer] {
        for who in 0..3 {
            vote(&mut chain, who, id, 1).expect("voted");
        }
    }
    chain.wait(VOTING_S);
    queue(&mut chain, shorter).expect("passed");
    queue(&mut chain, longer).expect("passed");
    chain.wait(TIMELOCK_S);
    execute(&mut chain, shorter).expect("executed");
    refused(execute(&mut chain, longer), "unbonding_s must be less than timelock_s: exit comes first");
    assert_eq!(state(&chain, longer), 5, "nothing of it happened");
}

#[test]
fn what_lacks_quorum_or_majority_is_defeated() {
    let mut chain = chain();
    let quiet = propose(&mut chain, &[("pace_ms", 500)]).expect("proposed");
    let split = propose(&mut chain, &[("pace_ms", 500)]).expect("proposed");
    let abstained = propose(&mut chain, &[("pace_ms", 500)]).expect("proposed");
    let narrow = propose(&mut chain, &[("pace_ms", 500)]).expect("proposed");
    vote(&mut chain, 0, quiet, 1).expect("voted");
    for (who, support) in [(0, 1), (1, 1), (2, 0), (3, 0)] {
        vote(&mut chain, who, split, support).expect("voted");
        vote(&mut chain, who, abstained, 2).expect("voted");
    }
    for (who, support) in [(0, 1), (1, 2), (2, 2), (3, 2)] {
        vote(&mut chain, who, narrow, support).expect("voted");
    }
    chain.wait(VOTING_S);
    for id in [quiet, split, abstained] {
        assert_eq!(state(&chain, id), 2);
        refused(queue(&mut chain, id), "only a proposal that passed is queued, once and in time");
    }
    assert_eq!(state(&chain, narrow), 3, "abstention counts for the quorum only");
    refused(vote(&mut chain, 1, narrow, 0), "the voting is over");
    chain.wait(2_001);
    assert_eq!(state(&chain, narrow), 7);
    refused(queue(&mut chain, narrow), "only a proposal that passed is queued, once and in time");
}

#[test]
fn a_vote_weighs_what_is_bonded_and_counts_once() {
    let mut chain = chain();
    let id = propose(&mut chain, &[("pace_ms", 500)]).expect("proposed");
    let votes = |chain: &Chain| {
        let proposal = chain.view(Module::Governance, IGovernance::proposalCall { id });
        [proposal.votesAgainst, proposal.votesFor, proposal.votesAbstaining]
    };
    refused(vote(&mut chain, 8, id, 1), "the caller has bonded nothing");
    refused(vote(&mut chain, 0, id, 3), "a vote is 0 against, 1 for or 2 abstain");
    refused(vote(&mut chain, 0, U256::from(99), 1), "no such proposal");
    vote(&mut chain, 0, id, 1).expect("voted");
    vote(&mut chain, 0, id, 1).expect("voted again");
    assert_eq!(votes(&chain), [U256::ZERO, credits(10_000), U256::ZERO]);
    chain.call(8, Module::Staking, credits(7), IStaking::delegateCall { operator: address(1) });
    vote(&mut chain, 8, id, 0).expect("voted");
    assert_eq!(votes(&chain), [credits(7), credits(10_000), U256::ZERO], "delegators vote for themselves");
    vote(&mut chain, 0, id, 2).expect("changed its mind");
    assert_eq!(votes(&chain), [credits(7), U256::ZERO, credits(10_000)]);
    let vote = chain.view(Module::Governance, IGovernance::voteOfCall { id, account: address(0) });
    assert_eq!((vote.support, vote.weight), (2, credits(10_000)));
}

#[test]
fn a_vote_ends_no_later_than_stake_that_voted_can_leave() {
    let mut chain = chain();
    let shorter = propose(&mut chain, &[("unbonding_s", 20), ("voting_s", 10)]).expect("proposed");
    pass(&mut chain, shorter);
    chain.wait(TIMELOCK_S);
    let open = propose(&mut chain, &[("pace_ms", 500)]).expect("proposed");
    vote(&mut chain, 0, open, 1).expect("voted");
    execute(&mut chain, shorter).expect("executed");
    chain.call(
        0,
        Module::Staking,
        U256::ZERO,
        IStaking::unbondCall { operator: address(0), amount: U256::MAX },
    );
    chain.wait(20);
    chain.call(0, Module::Staking, U256::ZERO, IStaking::withdrawCall { operator: address(0) });
    // What has left would be bonded elsewhere and vote again: the voting is over by then.
    chain.call(5, Module::Staking, credits(100), IStaking::bondCall {});
    refused(vote(&mut chain, 5, open, 1), "the voting is over");
}

#[test]
fn proposals_that_could_not_be_executed_are_not_opened() {
    let mut chain = chain();
    refused(propose(&mut chain, &[]), "nothing would change");
    refused(propose(&mut chain, &[("mint", 1)]), "no such parameter");
    refused(propose(&mut chain, &[("pace_ms", 500), ("pace_ms", 600)]), "a parameter is changed twice");
    refused(propose(&mut chain, &[("pace_ms", 1)]), "pace_ms must be from 50 to 60000");
    let call = IGovernance::proposeParametersCall {
        changes: vec![Change { name: word("pace_ms"), value: U256::MAX }],
        title: "a change".into(),
    };
    let refusal = chain.try_call(0, Module::Governance, U256::ZERO, call.clone());
    refused(refusal, "pace_ms must be from 50 to 60000");
    let poor = chain.try_call(8, Module::Governance, U256::ZERO, call);
    refused(poor, "less than the proposal's minimum is bonded");
    let untitled = IGovernance::proposeUpgradeCancellationCall { title: " ".into() };
    refused(chain.try_call(0, Module::Governance, U256::ZERO, untitled), "a proposal has a title");
    assert_eq!(chain.view(Module::Governance, IGovernance::proposalCountCall {}), U256::ZERO);
}

#[test]
fn an_upgrade_is_scheduled_shown_to_every_block_and_can_be_cancelled() {
    let mut chain = chain();
    let upgrade = |height: u64| Upgrade {
        height,
        version: "2.0.0".into(),
        sourceRevision: B256::repeat_byte(7),
        binaryHashes: vec![B256::repeat_byte(8), B256::repeat_byte(9)],
    };
    let propose = |chain: &mut Chain, height: u64| {
        let call = IGovernance::proposeUpgradeCall { upgrade_: upgrade(height), title: "two".into() };
        chain.try_call(0, Module::Governance, U256::ZERO, call)
    };
    refused(propose(&mut chain, 3), "the height comes too soon");
    let late = propose(&mut chain, 9).expect("proposed");
    let id = propose(&mut chain, 100).expect("proposed");
    for who in 0..3 {
        vote(&mut chain, who, late, 1).expect("voted");
    }
    pass(&mut chain, id);
    queue(&mut chain, late).expect("passed");
    chain.wait(TIMELOCK_S);
    refused(execute(&mut chain, late), "the height comes too soon");
    assert_eq!(chain.last.as_ref().and_then(|executed| executed.upgrade.clone()), None);
    execute(&mut chain, id).expect("executed");
    let plan = chain.last.as_ref().and_then(|executed| executed.upgrade.clone()).expect("scheduled");
    assert_eq!((plan.height, plan.version.as_str()), (100, "2.0.0"));
    assert_eq!(plan.binary_hashes, upgrade(100).binaryHashes);
    assert_eq!(chain.view(Module::Governance, IGovernance::upgradeCall {}), upgrade(100));

    let call = IGovernance::proposeUpgradeCancellationCall { title: "not yet".into() };
    let cancel = chain.call(0, Module::Governance, U256::ZERO, call);
    pass(&mut chain, cancel);
    chain.wait(TIMELOCK_S);
    execute(&mut chain, cancel).expect("executed");
    assert_eq!(chain.last.as_ref().and_then(|executed| executed.upgrade.clone()), None);
}
