//! Crash, loss, partition, broken storage, late joining: agreement, conservation and liveness hold.

use crate::{
    good,
    harness::{Network, key, steady},
    run, seeds,
};
use commonware_consensus::types::{Epoch, Round, View};
use commonware_cryptography::Signer as _;
use commonware_glue::simulate::action::{Action, Crash, Schedule};
use commonware_p2p::simulated::Link;
use commonware_runtime::deterministic::FaultConfig;
use commonware_utils::probability;
use std::time::Duration;
use surety_consensus::{PublicKey, Role, Why};

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn a_lossy_network() {
    let lossy = Link {
        latency: Duration::from_millis(40),
        jitter: Duration::from_millis(80),
        success_rate: probability!(0.75),
    };
    for seed in seeds(2) {
        run(seed, &Network::new(4, steady), 12, |plan| plan.link(lossy.clone()));
    }
}

#[test]
fn one_after_the_other_crashes_and_returns() {
    for seed in seeds(2) {
        let crash = Crash::Random { frequency: SECOND, downtime: Duration::from_millis(500), count: 1 };
        let result = run(seed, &Network::new(4, steady), 30, |plan| plan.crash(crash));
        assert!(result.crashes > 0);
    }
}

#[test]
fn two_of_four_down_halt_the_chain_and_it_resumes() {
    for seed in seeds(2) {
        let (a, b) = (key(0).public_key(), key(1).public_key());
        let schedule = Schedule::new()
            .at(SECOND, Action::Crash(a.clone()))
            .at(SECOND, Action::Crash(b.clone()))
            .at(6 * SECOND, Action::Restart(a))
            .at(6 * SECOND, Action::Restart(b));
        run(seed, &Network::new(4, steady), 20, |plan| plan.crash(Crash::Schedule(schedule)));
    }
}

#[test]
fn two_halves_cut_off_from_each_other_heal() {
    let cut =
        Link { latency: Duration::from_millis(10), jitter: Duration::ZERO, success_rate: probability!(0.0) };
    for seed in seeds(2) {
        let keys: Vec<_> = (0..4).map(|seed| key(seed).public_key()).collect();
        let mut schedule = Schedule::new();
        for (from, to) in [(0, 2), (0, 3), (1, 2), (1, 3)].into_iter().flat_map(|(a, b)| [(a, b), (b, a)]) {
            let action =
                Action::UpdateLink { from: keys[from].clone(), to: keys[to].clone(), link: cut.clone() };
            schedule = schedule.at(SECOND, action);
        }
        schedule = schedule.at(8 * SECOND, Action::Heal(good()));
        run(seed, &Network::new(4, steady), 20, |plan| plan.crash(Crash::Schedule(schedule)));
    }
}

#[test]
fn a_late_joiner_fetches_the_state_and_observes() {
    for seed in seeds(2) {
        let mut network = Network::new(4, steady);
        network.state_sync = true;
        network.initialised = false;
        let late = Crash::DelayRound {
            participants: vec![key(0).public_key()],
            round: Round::new(Epoch::zero(), View::new(20)),
        };
        let result = run(seed, &network, 40, |plan| plan.crash(late));
        assert!(result.delayed_started);
        let roles = crate::harness::roles(&network.world, 0, 0);
        assert_eq!(roles, [Role::Observing(Why::JoinedLate)], "nothing shows what its key has signed");
    }
}

#[test]
fn a_late_joiner_without_state_sync_executes_from_genesis() {
    for seed in seeds(1) {
        let mut network = Network::new(4, steady);
        network.initialised = false;
        let late = Crash::DelayRound {
            participants: vec![key(0).public_key()],
            round: Round::new(Epoch::zero(), View::new(20)),
        };
        run(seed, &network, 40, |plan| plan.crash(late));
        let roles = crate::harness::roles(&network.world, 0, 0);
        assert_eq!(roles, [Role::Observing(Why::JoinedLate)], "the validators show that the chain has begun");
    }
}

/// The storage of all four fails now and then for three seconds.
pub fn failing_storage() -> Schedule<PublicKey> {
    let faulty = FaultConfig::default().sync(probability!(0.05));
    let mut schedule = Schedule::new()
        .at(2 * SECOND, Action::SetStorageFault(faulty))
        .at(5 * SECOND, Action::SetStorageFault(FaultConfig::default()));
    // Whoever died of it is started again, as a service manager would.
    for action in [Action::Crash, Action::Restart] {
        for seed in 0..4 {
            schedule = schedule.at(6 * SECOND, action(key(seed).public_key()));
        }
    }
    schedule
}

#[test]
fn storage_that_fails_costs_a_restart_and_nothing_else() {
    for seed in seeds(2) {
        run(seed, &Network::new(4, steady), 25, |plan| plan.crash(Crash::Schedule(failing_storage())));
    }
}

#[test]
fn a_new_validator_may_begin_late() {
    for seed in seeds(1) {
        let network = Network::new(4, steady);
        let late = Crash::DelayRound {
            participants: vec![key(0).public_key()],
            round: Round::new(Epoch::zero(), View::new(20)),
        };
        run(seed, &network, 40, |plan| plan.crash(late));
        assert_eq!(
            crate::harness::roles(&network.world, 0, 0),
            [Role::Voting],
            "its record says that its key is new"
        );
    }
}
