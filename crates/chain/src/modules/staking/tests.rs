//! Staking, from bond to withdrawal and from registration to jail and slash.

use alloy_primitives::{B256, Bytes, U256};
use alloy_sol_types::SolCall as _;
use surety_types::abi::{IStaking, Module, address::STAKING};

use super::super::tests::{check_solvency, equivocation};
use super::{pools, slot, tag};
use crate::{
    SignedVote, VoteKind,
    execute::surroundings,
    host::{Host, Outcome, Own},
    ledger::Ledger,
    testing::{Chain, GAS_PRICE, address, credits, secret, validator_proof},
};

fn bonded(chain: &Chain, operator: u64, delegator: u64) -> U256 {
    let call = IStaking::bondedOfCall { operator: address(operator), delegator: address(delegator) };
    chain.view(Module::Staking, call)
}

fn validator(chain: &Chain, operator: u64) -> IStaking::Validator {
    chain.view(Module::Staking, IStaking::validatorOfCall { operator: address(operator) })
}

fn bond(chain: &mut Chain, who: u64, amount: U256) {
    chain.call(who, Module::Staking, amount, IStaking::bondCall {});
}

fn delegate(chain: &mut Chain, who: u64, operator: u64, amount: U256) {
    chain.call(who, Module::Staking, amount, IStaking::delegateCall { operator: address(operator) });
}

fn unbond(chain: &mut Chain, who: u64, operator: u64, amount: U256) {
    let call = IStaking::unbondCall { operator: address(operator), amount };
    chain.call(who, Module::Staking, U256::ZERO, call);
}

fn withdraw(chain: &mut Chain, who: u64, operator: u64) -> Result<U256, String> {
    let call = IStaking::withdrawCall { operator: address(operator) };
    chain.try_call(who, Module::Staking, U256::ZERO, call)
}

fn register(chain: &mut Chain, who: u64, key: u8) -> Result<(), String> {
    let (key, proof) = validator_proof(address(who), &secret(key));
    let call = IStaking::registerValidatorCall { key, proof };
    chain.try_call(who, Module::Staking, U256::ZERO, call).map(|_| ())
}

fn refused<T: std::fmt::Debug>(result: Result<T, String>, expected: &str) {
    assert_eq!(result.expect_err("refused"), format!("staking: {expected}"));
}

#[test]
fn stake_leaves_after_the_delay_and_not_before() {
    let mut chain = Chain::new();
    bond(&mut chain, 5, credits(50));
    delegate(&mut chain, 6, 5, credits(30));
    assert_eq!([bonded(&chain, 5, 5), bonded(&chain, 5, 6)], [credits(50), credits(30)]);
    let call = IStaking::delegationsOfCall { account: address(6) };
    assert_eq!(chain.view(Module::Staking, call), [address(5)]);

    let too_much = IStaking::unbondCall { operator: address(5), amount: credits(31) };
    refused(chain.try_call(6, Module::Staking, U256::ZERO, too_much), "less than that is bonded");
    unbond(&mut chain, 6, 5, credits(10));
    refused(withdraw(&mut chain, 6, 5), "nothing has matured");
    refused(withdraw(&mut chain, 7, 5), "nothing has matured");
    let delay = chain.genesis.params.unbonding_s;
    chain.wait(delay - 2);
    refused(withdraw(&mut chain, 6, 5), "nothing has matured");
    chain.wait(2);
    let before = chain.balance(address(6));
    let paid = withdraw(&mut chain, 6, 5).expect("matured");
    assert_eq!(paid, credits(10));
    let fee = U256::from(chain.last.as_ref().expect("a block").gas_used) * U256::from(GAS_PRICE);
    assert_eq!(chain.balance(address(6)), before + credits(10) - fee);
    refused(withdraw(&mut chain, 6, 5), "nothing has matured");
    unbond(&mut chain, 6, 5, U256::MAX);
    assert_eq!(bonded(&chain, 5, 6), U256::ZERO);
    let call = IStaking::delegationsOfCall { account: address(6) };
    assert!(chain.view(Module::Staking, call).is_empty());
    check_solvency(&chain);
}

/// A bond stands for one operator, and while it leaves for none: what is bonded once cannot be bonded again before it is back.
#[test]
fn a_bond_stands_for_one_operator_at_a_time() {
    let mut chain = Chain::new();
    for operator in [5, 7] {
        bond(&mut chain, operator, credits(50));
    }
    let owned = chain.balance(address(6));
    delegate(&mut chain, 6, 5, credits(30));
    let fee =
        |chain: &Chain| U256::from(chain.last.as_ref().expect("a block").gas_used) * U256::from(GAS_PRICE);
    let mut left = owned - credits(30) - fee(&chain);
    assert_eq!(chain.balance(address(6)), left);
    unbond(&mut chain, 6, 5, credits(30));
    left -= fee(&chain);
    let of = |chain: &Chain| [bonded(chain, 5, 6), bonded(chain, 7, 6)];
    assert_eq!((of(&chain), chain.balance(address(6))), ([U256::ZERO; 2], left), "on its way, and nobody's");
    chain.wait(chain.genesis.params.unbonding_s);
    withdraw(&mut chain, 6, 5).expect("matured");
    left = left + credits(30) - fee(&chain);
    assert_eq!(chain.balance(address(6)), left);
    delegate(&mut chain, 6, 7, credits(30));
    assert_eq!(of(&chain), [U256::ZERO, credits(30)]);
    assert_eq!(chain.balance(address(6)), left - credits(30) - fee(&chain));
    check_solvency(&chain);
}

#[test]
fn bonds_are_refused_where_they_mean_nothing() {
    let mut chain = Chain::new();
    refused(chain.try_call(5, Module::Staking, U256::ZERO, IStaking::bondCall {}), "nothing was sent");
    let nobody = IStaking::delegateCall { operator: address(8) };
    refused(chain.try_call(5, Module::Staking, credits(1), nobody), "the operator has bonded nothing");
    let nothing = IStaking::unbondCall { operator: address(5), amount: U256::ZERO };
    refused(chain.try_call(5, Module::Staking, U256::ZERO, nothing), "nothing is asked for");
    bond(&mut chain, 5, credits(20));
    for _ in 0..16 {
        unbond(&mut chain, 5, 5, credits(1));
    }
    let once_more = IStaking::unbondCall { operator: address(5), amount: credits(1) };
    refused(
        chain.try_call(5, Module::Staking, U256::ZERO, once_more),
        "too much is on its way already; withdraw first",
    );
    check_solvency(&chain);
}

#[test]
fn one_account_bonds_to_a_bounded_number_of_operators() {
    let mut chain = Chain::with(|genesis| {
        for number in 20..40 {
            let balance = crate::Balance { address: address(number), amount: credits(5), why: "test".into() };
            genesis.balances.push(balance);
        }
    });
    for number in 20..36 {
        bond(&mut chain, number, U256::ONE);
        delegate(&mut chain, 4, number, U256::from(number));
    }
    bond(&mut chain, 36, U256::ONE);
    let one_more = IStaking::delegateCall { operator: address(36) };
    refused(
        chain.try_call(4, Module::Staking, credits(1), one_more),
        "the account bonds to too many operators",
    );
    unbond(&mut chain, 4, 25, U256::MAX);
    delegate(&mut chain, 4, 36, U256::from(36));
    let votes = chain.view(Module::Staking, IStaking::votesOfCall { account: address(4) });
    assert_eq!(votes, U256::from((20..37).filter(|number| *number != 25).sum::<u64>()));
}

#[test]
fn the_largest_validate_the_next_epoch() {
    let mut chain = Chain::with(|genesis| genesis.params.validators_max = 4);
    refused(register(&mut chain, 5, 50), "less than the validator's minimum is bonded");
    bond(&mut chain, 5, credits(20_000));
    register(&mut chain, 5, 50).expect("registered");
    unbond(&mut chain, 0, 0, credits(1));
    assert!(chain.validators(0).index_of(&secret(50).public()).is_none());
    chain.next_epoch();
    let set = chain.validators(1);
    assert_eq!(set.members.len(), 4);
    let operators: Vec<_> = set.members.iter().map(|member| member.operator).collect();
    assert!(operators.contains(&address(5)), "more stake than any");
    assert!(!operators.contains(&address(0)), "less than the rest");
    assert!(set.members.windows(2).all(|pair| pair[0].key < pair[1].key));
    let digest = chain.view(Module::Staking, IStaking::setDigestCall { epoch: 1 });
    assert_eq!(digest, set.digest());
    let shown = chain.view(Module::Staking, IStaking::validatorSetCall { epoch: 1 });
    assert_eq!(shown.len(), 4);
    assert_eq!(chain.view(Module::Staking, IStaking::validatorSetCall { epoch: 0 }).len(), 4);
    let gone = IStaking::validatorSetCall { epoch: 7 }.abi_encode();
    let outcome = chain.simulate(address(9), STAKING, U256::ZERO, gone);
    assert_eq!(outcome.revert_reason().as_deref(), Some("staking: the set of that epoch is not kept"));

    chain.call(5, Module::Staking, U256::ZERO, IStaking::retireValidatorCall {});
    refused(
        chain.try_call(5, Module::Staking, U256::ZERO, IStaking::retireValidatorCall {}),
        "the caller does not stand as a validator",
    );
    chain.next_epoch();
    assert!(chain.validators(2).index_of(&secret(50).public()).is_none());
    assert!(chain.validators(2).members.iter().any(|member| member.operator == address(0)));
}

#[test]
fn keys_are_proved_kept_and_never_shared() {
    let mut chain = Chain::new();
    bond(&mut chain, 5, credits(2_000));
    let (key, proof) = validator_proof(address(6), &secret(50));
    let stolen = IStaking::registerValidatorCall { key, proof };
    refused(chain.try_call(5, Module::Staking, U256::ZERO, stolen), "the proof is not the key's signature");
    let short = IStaking::registerValidatorCall { key, proof: Bytes::from_static(&[1; 63]) };
    refused(chain.try_call(5, Module::Staking, U256::ZERO, short), "the proof is not 64 bytes");
    let mut identity = B256::ZERO;
    identity[0] = 1;
    let weak = IStaking::registerValidatorCall { key: identity, proof: Bytes::from_static(&[0; 64]) };
    refused(chain.try_call(5, Module::Staking, U256::ZERO, weak), "the key is no sound ed25519 key");
    refused(register(&mut chain, 5, 1), "the key is another operator's");
    register(&mut chain, 5, 50).expect("registered");
    register(&mut chain, 5, 51).expect("changed");
    assert_eq!(validator(&chain, 5).key.0, secret(51).public().0);
    for key in [50, 51] {
        let call = IStaking::operatorOfCall { key: secret(key).public().0.into() };
        assert_eq!(chain.view(Module::Staking, call), address(5), "old keys stay answerable");
    }
    chain.next_epoch();
    assert!(chain.validators(1).index_of(&secret(51).public()).is_some());
    assert!(chain.validators(1).index_of(&secret(50).public()).is_none());
}

#[test]
fn conflicting_votes_cost_stake_and_the_place_for_ever() {
    let mut chain = Chain::new();
    delegate(&mut chain, 5, 0, credits(10_000));
    unbond(&mut chain, 5, 0, credits(2_000));
    let report = equivocation(&chain, 1, 0);
    let before = chain.balance(address(6));
    let receipt = chain.send(6, STAKING, U256::ZERO, report.clone());
    assert!(receipt.envelope.status(), "{receipt:?}");
    // 5 % of the 18,000 that are bonded; 5 % of that to the reporter.
    let fee = U256::from(receipt.gas_used) * U256::from(GAS_PRICE);
    assert_eq!(chain.balance(address(6)), before + credits(45) - fee);
    assert_eq!(bonded(&chain, 0, 0), credits(9_500));
    assert_eq!(bonded(&chain, 0, 5), credits(7_600));
    assert_eq!(chain.view(Module::Staking, IStaking::forfeitedCall {}), credits(855));
    assert!(validator(&chain, 0).slashed && validator(&chain, 0).key.is_zero());
    check_solvency(&chain);

    let again = chain.send(6, STAKING, U256::ZERO, report);
    assert!(!again.envelope.status());
    refused(register(&mut chain, 0, 60), "the operator was slashed");
    refused(
        chain.try_call(0, Module::Staking, credits(1), IStaking::bondCall {}),
        "the operator was slashed",
    );

    // What was forfeited goes to the bonds of the next validators.
    chain.next_epoch();
    assert_eq!(chain.validators(1).members.len(), 3);
    assert_eq!(chain.view(Module::Staking, IStaking::forfeitedCall {}), U256::ZERO);
    assert_eq!(bonded(&chain, 1, 1), credits(10_285));
    check_solvency(&chain);

    // What was on its way forfeits the same share, what left later does not.
    unbond(&mut chain, 5, 0, credits(600));
    let delay = chain.genesis.params.unbonding_s;
    chain.wait(delay + 1);
    assert_eq!(withdraw(&mut chain, 5, 0), Ok(credits(1_900 + 600)));
    assert_eq!(chain.view(Module::Staking, IStaking::forfeitedCall {}), credits(100));
    check_solvency(&chain);
}

#[test]
fn what_left_before_the_misdeed_is_not_touched() {
    let mut chain = Chain::new();
    delegate(&mut chain, 5, 0, credits(1_000));
    unbond(&mut chain, 5, 0, credits(1_000));
    chain.next_epoch();
    let report = equivocation(&chain, 1, 1);
    assert!(chain.send(6, STAKING, U256::ZERO, report).envelope.status());
    let delay = chain.genesis.params.unbonding_s;
    chain.wait(delay + 1);
    assert_eq!(withdraw(&mut chain, 5, 0), Ok(credits(1_000)));
    check_solvency(&chain);
}

#[test]
fn evidence_is_judged_strictly() {
    let mut chain = Chain::with(|genesis| genesis.params.evidence_epochs_max = 1);
    let namespace = chain.spec.vote_namespace();
    let vote = |key: u8, kind: VoteKind, message: Vec<u8>| {
        let signature = secret(key).sign(&kind.signed_bytes(&namespace, &message));
        SignedVote { kind, message, signature }
    };
    let notarize = |digest: u8, epoch: u8| [&[epoch, 3, 2][..], &[digest; 32]].concat();
    let key = secret(1).public();
    let first = vote(1, VoteKind::Notarize, notarize(1, 0));
    let second = vote(1, VoteKind::Notarize, notarize(2, 0));
    let mut check = |key, first: &SignedVote, second: &SignedVote, expected: &str| {
        let receipt = chain.send(6, STAKING, U256::ZERO, SignedVote::report(&key, first, second));
        let reason = <alloy_sol_types::Revert as alloy_sol_types::SolError>::abi_decode(&receipt.output);
        assert_eq!(reason.expect("a reason").reason, format!("staking: {expected}"));
    };
    check(secret(77).public(), &first, &second, "the key is no validator's");
    check(secret(2).public(), &first, &second, "a signature is not the key's");
    check(key, &first, &first, "the votes do not conflict");
    check(key, &first, &vote(2, VoteKind::Notarize, notarize(2, 0)), "a signature is not the key's");
    let other_view = vote(1, VoteKind::Notarize, [&[0, 4, 2][..], &[2; 32]].concat());
    check(key, &first, &other_view, "the votes do not conflict");
    let long = vote(1, VoteKind::Notarize, [&notarize(2, 0)[..], &[0]].concat());
    check(key, &first, &long, "a message is no vote");
    let padded = vote(1, VoteKind::Notarize, [&[0x80, 0, 3, 2][..], &[2; 32]].concat());
    check(key, &first, &padded, "a message is no vote");
    let early = [1, 2].map(|digest| vote(1, VoteKind::Notarize, notarize(digest, 5)));
    check(key, &early[0], &early[1], "the votes are of an epoch to come");
    // Another chain's votes are signed under another namespace.
    let foreign = crate::ChainSpec { chain_id: 1, epoch_blocks: 10 }.vote_namespace();
    let signature = secret(1).sign(&VoteKind::Notarize.signed_bytes(&foreign, &notarize(2, 0)));
    let elsewhere = SignedVote { kind: VoteKind::Notarize, message: notarize(2, 0), signature };
    check(key, &first, &elsewhere, "a signature is not the key's");

    // Nullifying a view and finalising a block of it.
    let nullify = vote(1, VoteKind::Nullify, vec![0, 3]);
    let finalize = vote(1, VoteKind::Finalize, notarize(1, 0));
    chain.next_epoch();
    chain.next_epoch();
    let late = chain.send(6, STAKING, U256::ZERO, SignedVote::report(&key, &nullify, &finalize));
    assert!(!late.envelope.status(), "two epochs later is too late here");
    let call = SignedVote::report(
        &key,
        &vote(1, VoteKind::Nullify, vec![1, 3]),
        &vote(1, VoteKind::Finalize, notarize(1, 1)),
    );
    assert!(chain.send(6, STAKING, U256::ZERO, call).envelope.status());
}

#[test]
fn who_misses_turns_is_jailed_without_losing_stake() {
    let mut chain = Chain::new();
    let absent = chain.genesis.validator_set().members[2].operator;
    let absent = (0..4).find(|number| address(*number) == absent).expect("a validator");
    chain.block(&[]);
    chain.missed = vec![2; 20];
    chain.block(&[]);
    let turns = chain.view(Module::Staking, IStaking::performanceCall { epoch: 0, index: U256::from(2) });
    assert_eq!((turns.proposed, turns.missed), (1, 20));
    chain.next_epoch();
    assert_eq!(chain.validators(1).members.len(), 3);
    let jailed = validator(&chain, absent);
    assert!(jailed.jailedUntil > 0 && !jailed.slashed);
    assert_eq!(bonded(&chain, absent, absent), credits(10_000));
    let unjail = IStaking::unjailCall {};
    refused(
        chain.try_call(absent, Module::Staking, U256::ZERO, unjail.clone()),
        "the time in jail is not over",
    );
    refused(chain.try_call(5, Module::Staking, U256::ZERO, unjail.clone()), "the caller is not in jail");
    let jail_s = chain.genesis.params.jail_s;
    chain.wait(jail_s);
    chain.next_epoch();
    assert_eq!(chain.validators(2).members.len(), 3, "nobody leaves jail by waiting alone");
    chain.call(absent, Module::Staking, U256::ZERO, unjail);
    chain.next_epoch();
    assert_eq!(chain.validators(3).members.len(), 4);
}

#[test]
fn an_outage_jails_no_more_than_the_rest_can_bear() {
    let mut chain = Chain::new();
    chain.missed = (0..4).flat_map(|index| vec![index; 20 + index]).collect();
    chain.block(&[]);
    chain.next_epoch();
    let set = chain.validators(1);
    assert_eq!(set.members.len(), 3, "one of four, the worst");
    let worst = chain.genesis.validator_set().members[3].key;
    assert!(set.index_of(&worst).is_none());
    // The turns of the epoch are forgotten.
    let turns = chain.view(Module::Staking, IStaking::performanceCall { epoch: 1, index: U256::from(1) });
    assert_eq!(turns.missed, 0);
}

#[test]
fn a_set_is_never_empty() {
    let mut chain = Chain::new();
    for number in 0..4 {
        chain.call(number, Module::Staking, U256::ZERO, IStaking::retireValidatorCall {});
    }
    chain.next_epoch();
    assert_eq!(chain.validators(1).members, chain.genesis.validator_set().members);
}

#[test]
fn the_largest_supply_overflows_nothing() {
    let mut chain = Chain::with(|genesis| {
        let stakes = genesis.validators.iter().fold(U256::ZERO, |sum, validator| sum + validator.stake);
        genesis.balances.truncate(2);
        genesis.balances[0].amount = credits(1_000);
        genesis.balances[1].amount = U256::from(u128::MAX) - stakes - credits(1_000);
        genesis.params.slash_equivocation_bps = 10_000;
    });
    let most = chain.balance(address(1)) - credits(1_000);
    bond(&mut chain, 1, most);
    let report = equivocation(&chain, 2, 0);
    assert!(chain.send(0, STAKING, U256::ZERO, report).envelope.status());
    assert_eq!(bonded(&chain, 1, 1), U256::ZERO);
    chain.next_epoch();
    unbond(&mut chain, 1, 1, U256::MAX);
    check_solvency(&chain);
}

/// Runs something as the chain itself would.
pub(crate) fn by_the_chain<T>(chain: &mut Chain, run: impl FnOnce(&mut dyn Host) -> Outcome<T>) -> T {
    let surroundings = surroundings(&chain.spec, &chain.next_header(), chain.genesis.params.clone());
    let (value, writes) = {
        let mut ledger = Ledger::new(&chain.state);
        let value = run(&mut Own { surroundings: &surroundings, ledger: &mut ledger }).expect("it can");
        (value, ledger.writes())
    };
    chain.state.apply(writes);
    value
}

fn leaving(chain: &Chain, operator: u64) -> U256 {
    chain.view(Module::Staking, IStaking::leavingCall { operator: address(operator) })
}

#[test]
fn a_penalty_takes_from_all_that_has_not_left() {
    let mut chain = Chain::new();
    bond(&mut chain, 5, credits(60));
    delegate(&mut chain, 6, 5, credits(30));
    unbond(&mut chain, 6, 5, credits(10));
    unbond(&mut chain, 5, 5, U256::from(7));
    let third = credits(90) / U256::from(3);
    by_the_chain(&mut chain, |host| pools::penalize(host, address(5), third, &[]));
    check_solvency(&chain);
    // A third of each, and what does not divide from what leaves.
    let together = bonded(&chain, 5, 5) + bonded(&chain, 5, 6) + leaving(&chain, 5);
    assert!(credits(60) - together <= U256::from(3), "{together}");
    assert!(credits(20) - bonded(&chain, 5, 6) * U256::from(3) / U256::from(2) <= U256::from(3));
    let all = by_the_chain(&mut chain, |host| pools::answerable(host, address(5)));
    let refuses = |chain: &mut Chain| {
        by_the_chain(chain, |host| Ok(pools::penalize(host, address(5), all + U256::ONE, &[]).is_err()))
    };
    assert!(refuses(&mut chain), "no more than there is");
    unbond(&mut chain, 6, 5, credits(1));
    chain.wait(chain.genesis.params.unbonding_s);
    let paid = withdraw(&mut chain, 6, 5).expect("matured") + withdraw(&mut chain, 5, 5).expect("matured");
    assert!(paid <= credits(10) * U256::from(2) / U256::from(3) + credits(1) + U256::from(7), "{paid}");
    assert_eq!(leaving(&chain, 5), U256::ZERO, "what divisions leave over is forfeited with the last");
    check_solvency(&chain);
}

/// Whatever penalties leave, what begins to leave afterwards leaves whole.
#[test]
fn after_the_hardest_penalties_stake_still_leaves() {
    let mut chain = Chain::new();
    bond(&mut chain, 5, credits(60));
    for _ in 0..9 {
        unbond(&mut chain, 5, 5, credits(1) / U256::from(1_000));
        by_the_chain(&mut chain, |host| {
            let all = pools::answerable(host, address(5))?;
            pools::penalize(host, address(5), all - all / U256::from(1_000), &[])
        });
        check_solvency(&chain);
        bond(&mut chain, 5, credits(1));
    }
    unbond(&mut chain, 5, 5, credits(1));
    chain.wait(chain.genesis.params.unbonding_s);
    let paid = withdraw(&mut chain, 5, 5).expect("matured");
    let (least, most) = (credits(1) - U256::ONE, credits(1) + credits(1) / U256::from(500));
    assert!((least..=most).contains(&paid), "{paid}");
    check_solvency(&chain);
}

/// What was on its way out before there were such pools leaves as it would have.
#[test]
fn older_entries_leave_whole() {
    let mut chain = Chain::new();
    bond(&mut chain, 5, credits(60));
    unbond(&mut chain, 5, 5, credits(10));
    by_the_chain(&mut chain, |host| {
        let keys = [address(5), address(5)];
        let at = slot(tag::UNBONDING_ENTRY, &[keys[0].as_slice(), keys[1].as_slice(), &0u64.to_be_bytes()]);
        let [started_at, epoch, delay_s, flags] = host.load_quarters(at.after(1))?;
        assert_eq!(flags, 2);
        host.store_quarters(at.after(1), [started_at, epoch, delay_s, 0])?;
        let pool = slot(tag::LEAVING, &[keys[0].as_slice()]);
        host.store(pool, U256::ZERO)?;
        host.store(pool.after(1), U256::ZERO)
    });
    unbond(&mut chain, 5, 5, credits(20));
    chain.wait(chain.genesis.params.unbonding_s);
    assert_eq!(withdraw(&mut chain, 5, 5).expect("matured"), credits(30));
    assert_eq!(chain.balance(STAKING), credits(40_030));
}
