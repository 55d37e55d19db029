//! The real law under the same faults: payments, staking, slashing, upgrades, a wrong clock.

use crate::{
    economy::{
        Call, Economy, NOON, Proved, SECOND, address, assert_not_trivial, chain_key, credits, operator, roles,
    },
    faults::failing_storage,
    good,
    harness::key,
    misdeeds::{self, GUILTY},
    seeds,
};
use alloy_primitives::{B256, U256};
use alloy_sol_types::SolCall as _;
use commonware_cryptography::Signer as _;
use commonware_glue::simulate::{
    action::{Action, Crash, Schedule},
    engine::InitContext,
    exit::ProcessedHeightAtLeast,
    plan::{PlanBuilder, PlanResult},
};
use commonware_p2p::simulated::Link;
use commonware_runtime::{Handle as TaskHandle, Spawner as _, Supervisor as _};
use commonware_utils::probability;
use std::{sync::Arc, time::Duration};
use surety_chain::validator_proof_message;
use surety_consensus::{CHANNELS, Channels, MemoryVoteRecord, PublicKey, Role, Why};
use surety_types::abi::{
    IGovernance, IStaking,
    address::{GOVERNANCE, STAKING},
};

/// Runs one seed until everybody has reached `height`.
fn run(
    seed: u64,
    economy: &Economy,
    height: u64,
    change: impl FnOnce(PlanBuilder<Economy>) -> PlanBuilder<Economy>,
) -> PlanResult<Economy> {
    let _ = tracing_subscriber::fmt()
        .with_env_filter(tracing_subscriber::EnvFilter::from_default_env())
        .with_test_writer()
        .try_init();
    let plan = PlanBuilder::new(economy.clone())
        .seeds(seed..seed + 1)
        .link(good())
        .exit_condition(ProcessedHeightAtLeast::new(height))
        .property(Proved(economy.clone()))
        .timeout(Duration::from_secs(1_200));
    let result = change(plan).run().unwrap_or_else(|error| panic!("{error}"));
    assert_not_trivial(&economy.world, height);
    result.into_iter().next().unwrap()
}

fn crashing() -> Crash<PublicKey> {
    Crash::Random { frequency: 2 * SECOND, downtime: Duration::from_millis(700), count: 1 }
}

fn happened<E: alloy_sol_types::SolEvent>(economy: &Economy) -> bool {
    economy.world.events.lock().unwrap().contains_key(&E::SIGNATURE_HASH)
}

/// Participant 4 bonds and stands, participant 1 retires.
fn staking() -> Vec<Call> {
    let registration = IStaking::registerValidatorCall {
        key: chain_key(4).0.into(),
        proof: {
            let message = validator_proof_message(88_888, address(operator(4)), &chain_key(4));
            // The chain signs without a namespace, as any ed25519 library does.
            surety_types::SecretKey::from_bytes(
                &commonware_codec::Encode::encode(&key(4)).as_ref().try_into().unwrap(),
            )
            .sign(&message)
            .to_vec()
            .into()
        },
    };
    vec![
        Call::new(2, operator(4), STAKING, IStaking::bondCall {}.abi_encode()).with(credits(20_000)),
        Call::new(3, operator(4), STAKING, registration.abi_encode()),
        Call::new(4, operator(1), STAKING, IStaking::retireValidatorCall {}.abi_encode()),
    ]
}

#[test]
fn payments_conserve_the_supply_and_a_seed_replays_identically() {
    for seed in seeds(2) {
        let (first, again) = (Economy::new(4, 4, 1_000, Vec::new()), Economy::new(4, 4, 1_000, Vec::new()));
        let results =
            [&first, &again].map(|economy| run(seed, economy, 12, |plan| plan.crash(crashing())).state);
        assert_eq!(results[0], results[1], "the digests of everything that happened");
        assert_eq!(*first.world.trace.lock().unwrap(), *again.world.trace.lock().unwrap());
        assert!(first.world.reverts.lock().unwrap().is_empty());
    }
}

#[test]
fn staking_changes_who_votes_while_validators_crash() {
    for seed in seeds(1) {
        let economy = Economy::new(5, 4, 16, staking());
        run(seed, &economy, 40, |plan| plan.crash(crashing()));
        assert!(happened::<IStaking::ValidatorRegistered>(&economy));
        assert!(happened::<IStaking::ValidatorRetired>(&economy));
        assert_eq!(economy.world.reverts.lock().unwrap().as_slice(), []);
        assert!(roles(&economy.world, 4, 0).iter().all(|role| *role == Role::Observing(Why::NotAMember)));
        assert!(roles(&economy.world, 4, 2).contains(&Role::Voting), "it bonded and stood");
        assert!(roles(&economy.world, 1, 2).iter().all(|role| *role == Role::Observing(Why::NotAMember)));
    }
}

#[test]
fn staking_changes_who_votes_over_a_lossy_network() {
    let lossy = Link {
        latency: Duration::from_millis(30),
        jitter: Duration::from_millis(60),
        success_rate: probability!(0.8),
    };
    for seed in seeds(1) {
        let economy = Economy::new(5, 4, 8, staking());
        run(seed, &economy, 26, |plan| plan.link(lossy.clone()));
        assert_eq!(roles(&economy.world, 4, 2), [Role::Voting]);
        assert_eq!(roles(&economy.world, 1, 2), [Role::Observing(Why::NotAMember)]);
    }
}

fn conflicter(economy: &Economy, init: InitContext<'_, PublicKey>) -> TaskHandle<()> {
    misdeeds::conflict(&economy.chain(), init)
}

#[test]
fn an_equivocator_is_slashed_by_its_own_votes() {
    for seed in seeds(1) {
        let mut economy = Economy::new(4, 4, 8, Vec::new());
        economy.misdeed = Some((GUILTY, conflicter));
        run(seed, &economy, 20, |plan| plan);
        assert!(happened::<IStaking::Slashed>(&economy));
        let roles = roles(&economy.world, 0, 2);
        assert_eq!(roles, [Role::Voting], "the others go on without it");
    }
}

/// Two whole validators with one key: one talks with participant 0, the other with 1 and 2.
fn twins(economy: &Economy, init: InitContext<'_, PublicKey>) -> TaskHandle<()> {
    let groups: [Vec<PublicKey>; 2] =
        [vec![key(0).public_key()], [1, 2].map(|seed| key(seed).public_key()).to_vec()];
    let (mut left, mut right) = (Vec::new(), Vec::new());
    for (sender, receiver) in init.channels {
        let (pairs_left, pairs_right) = misdeeds::split(&init.context, sender, receiver, groups.clone());
        left.push(pairs_left);
        right.push(pairs_right);
    }
    let mut tasks = Vec::new();
    for (name, channels) in [("left", left), ("right", right)] {
        let record = Arc::new(MemoryVoteRecord::default());
        let duty = economy.duty(GUILTY, 1, name.into(), false, record, None);
        let channels: [_; CHANNELS] = channels.try_into().unwrap_or_else(|_| panic!("as many as declared"));
        let blocker = init.oracle.control(init.public_key.clone());
        let channels = Channels::from_pairs(channels);
        let context = init.context.child(name);
        tasks.push(
            surety_consensus::start(context, channels, init.oracle.manager(), blocker, duty).unwrap().0,
        );
    }
    init.context.spawn(move |_| async move {
        futures::future::join_all(tasks).await;
    })
}

#[test]
fn twins_spend_nothing_twice() {
    for seed in seeds(1) {
        let mut economy = Economy::new(4, 4, 1_000, Vec::new());
        economy.misdeed = Some((GUILTY, twins));
        run(seed, &economy, 12, |plan| plan);
    }
}

#[test]
fn two_of_four_down_halt_payments_and_they_resume() {
    for seed in seeds(1) {
        let (a, b) = (key(0).public_key(), key(1).public_key());
        let schedule = Schedule::new()
            .at(SECOND, Action::Crash(a.clone()))
            .at(SECOND, Action::Crash(b.clone()))
            .at(6 * SECOND, Action::Restart(a))
            .at(6 * SECOND, Action::Restart(b));
        let economy = Economy::new(4, 4, 1_000, Vec::new());
        run(seed, &economy, 16, |plan| plan.crash(Crash::Schedule(schedule)));
    }
}

#[test]
fn a_lost_disk_is_fetched_again_with_every_balance() {
    for seed in seeds(1) {
        let lost = key(0).public_key();
        let schedule =
            Schedule::new().at(2 * SECOND, Action::Crash(lost.clone())).at(4 * SECOND, Action::Restart(lost));
        let mut economy = Economy::new(4, 4, 32, Vec::new());
        economy.loses_disk = Some(0);
        run(seed, &economy, 40, |plan| plan.crash(Crash::Schedule(schedule)));
        assert_eq!(roles(&economy.world, 0, 0), [Role::Voting, Role::Observing(Why::JournalLost)]);
        assert_eq!(roles(&economy.world, 0, 1), [Role::Voting]);
    }
}

#[test]
fn storage_that_fails_costs_no_balance() {
    for seed in seeds(1) {
        let economy = Economy::new(4, 4, 1_000, Vec::new());
        run(seed, &economy, 20, |plan| plan.crash(Crash::Schedule(failing_storage())));
    }
}

#[test]
fn a_clock_an_hour_off_delays_and_decides_nothing() {
    let hour = 3_600 * SECOND;
    for seed in seeds(1) {
        for shown in [NOON + hour, NOON - hour] {
            let mut economy = Economy::new(4, 4, 1_000, Vec::new());
            economy.clock = Some((2, shown));
            run(seed, &economy, 16, |plan| plan);
            let times = economy.world.times.lock().unwrap().clone();
            assert!(times.windows(2).all(|pair| pair[0] < pair[1]), "time grows: {times:?}");
            let last = *times.last().unwrap();
            let limit = (NOON + 120 * SECOND).as_millis() as u64;
            assert!(last < limit, "no block believes the wrong clock: {last}, {limit}");
        }
    }
}

const UPGRADE_HEIGHT: u64 = 40;
const BUILD: B256 = B256::repeat_byte(2);

/// An upgrade is proposed, voted for, queued, tried too early, and carried out after the timelock.
fn upgrade() -> Vec<Call> {
    let proposal = IGovernance::proposeUpgradeCall {
        upgrade_: IGovernance::Upgrade {
            height: UPGRADE_HEIGHT,
            version: "2.0.0".into(),
            sourceRevision: B256::repeat_byte(7),
            binaryHashes: vec![BUILD],
        },
        title: "The second release".into(),
    };
    let id = U256::ONE;
    let vote = IGovernance::voteCall { id, support: 1 }.abi_encode();
    let execute = IGovernance::executeCall { id }.abi_encode();
    let mut script = vec![Call::new(1, operator(0), GOVERNANCE, proposal.abi_encode())];
    script.extend((0..3).map(|index| Call::new(3, operator(index), GOVERNANCE, vote.clone())));
    script.extend([
        // Two seconds of voting, three of timelock, four blocks a second.
        Call::new(13, operator(0), GOVERNANCE, IGovernance::queueCall { id }.abi_encode()),
        Call::new(15, operator(0), GOVERNANCE, execute.clone()),
        Call::new(29, operator(0), GOVERNANCE, execute),
    ]);
    script
}

/// What a rehearsal leaves behind, whoever stopped.
fn assert_upgraded(economy: &Economy) {
    assert!(happened::<IGovernance::UpgradeScheduled>(economy));
    let reverts = economy.world.reverts.lock().unwrap().clone();
    assert_eq!(reverts, [(address(operator(0)), "governance: the timelock is not over".to_owned())]);
}

/// Participant 3 runs the first release until its second start.
fn one_late(index: usize, start: u32) -> (&'static str, B256) {
    if index == 3 && start == 1 { ("1.0.0", B256::repeat_byte(1)) } else { ("2.0.0", BUILD) }
}

fn restarts(at: Duration, participants: &[u64]) -> Crash<PublicKey> {
    let mut schedule = Schedule::new();
    for action in [Action::Crash, Action::Restart] {
        for seed in participants {
            schedule = schedule.at(at, action(key(*seed).public_key()));
        }
    }
    Crash::Schedule(schedule)
}

#[test]
fn an_old_release_stops_before_the_upgrade_and_joins_after_it_is_replaced() {
    for seed in seeds(1) {
        let mut economy = Economy::new(4, 4, 1_000, upgrade());
        economy.software = one_late;
        run(seed, &economy, UPGRADE_HEIGHT + 20, |plan| plan.crash(restarts(18 * SECOND, &[3])));
        assert_upgraded(&economy);
        let halted = economy.world.halted.lock().unwrap().clone();
        assert_eq!(halted.keys().collect::<Vec<_>>(), [&3]);
        assert!(
            halted[&3].0 == UPGRADE_HEIGHT - 1 && halted[&3].1.contains("runs version 2.0.0; this is 1.0.0")
        );
        let trace = economy.world.trace.lock().unwrap().clone();
        assert!(trace.iter().any(|(index, height, _)| *index == 3 && *height > UPGRADE_HEIGHT));
    }
}

/// Participant 3 runs another build of the right version until its second start.
fn one_other_build(index: usize, start: u32) -> (&'static str, B256) {
    ("2.0.0", if index == 3 && start == 1 { B256::repeat_byte(9) } else { BUILD })
}

#[test]
fn another_build_of_the_right_version_is_refused() {
    for seed in seeds(1) {
        let mut economy = Economy::new(4, 4, 1_000, upgrade());
        economy.software = one_other_build;
        run(seed, &economy, UPGRADE_HEIGHT + 20, |plan| plan.crash(restarts(18 * SECOND, &[3])));
        assert_upgraded(&economy);
        assert!(economy.world.halted.lock().unwrap()[&3].1.contains("none of its builds"));
    }
}

/// Everybody tries the second release early, goes back to the first, and stops; then comes the second.
fn all_back_and_forth(_: usize, start: u32) -> (&'static str, B256) {
    if start == 2 { ("1.0.0", B256::repeat_byte(1)) } else { ("2.0.0", BUILD) }
}

#[test]
fn everybody_may_go_back_below_the_height_and_nobody_beyond_it() {
    for seed in seeds(1) {
        let mut economy = Economy::new(4, 4, 1_000, upgrade());
        economy.software = all_back_and_forth;
        run(seed, &economy, UPGRADE_HEIGHT + 8, |plan| {
            plan.crash(restarts(5 * SECOND, &[0, 1, 2, 3])).crash(restarts(20 * SECOND, &[0, 1, 2, 3]))
        });
        assert_upgraded(&economy);
        let halted = economy.world.halted.lock().unwrap().clone();
        assert!(
            !halted.is_empty() && halted.values().all(|(height, _)| *height == UPGRADE_HEIGHT - 1),
            "{halted:?}"
        );
    }
}
