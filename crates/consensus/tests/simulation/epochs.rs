//! Validator sets that change, and validators that lost what they had signed.

use crate::{
    harness::{Network, key, roles, rotating, steady},
    run, seeds,
};
use commonware_consensus::types::{Epoch, Round, View};
use commonware_cryptography::Signer as _;
use commonware_glue::simulate::action::{Action, Crash, Schedule};
use std::time::Duration;
use surety_consensus::{Attendance, Role, VoteRecord as _, Why};

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn the_set_changes_every_epoch() {
    for seed in seeds(2) {
        let mut network = Network::new(6, rotating);
        network.epoch_blocks = 8;
        run(seed, &network, 40, |plan| plan);
        for epoch in 0..5u64 {
            for index in 0..6u64 {
                let rests = index == epoch % 6 || index == (epoch + 3) % 6;
                let expected = if rests { Role::Observing(Why::NotAMember) } else { Role::Voting };
                assert_eq!(
                    roles(&network.world, index as usize, epoch),
                    [expected],
                    "{index} in epoch {epoch}"
                );
            }
        }
    }
}

#[test]
fn a_chain_that_goes_on_begins_in_a_later_epoch() {
    for seed in seeds(1) {
        let mut network = Network::new(6, rotating);
        (network.epoch_blocks, network.first) = (8, 8 * 30);
        let crash = Crash::Random { frequency: 2 * SECOND, downtime: Duration::from_millis(700), count: 1 };
        run(seed, &network, 30, |plan| plan.crash(crash));
        assert_eq!(
            network.world.history.lock().unwrap().first_key_value().map(|(number, _)| *number),
            Some(241)
        );
        assert!(roles(&network.world, 0, 0).is_empty());
        for index in 0..6u64 {
            let rests = index == 30 % 6 || index == (30 + 3) % 6;
            let expected = if rests { Role::Observing(Why::NotAMember) } else { Role::Voting };
            assert_eq!(roles(&network.world, index as usize, 30)[0], expected, "{index} in its first epoch");
        }
    }
}

#[test]
fn one_that_joins_late_learns_the_sets_of_a_chain_that_goes_on() {
    for seed in seeds(1) {
        let mut network = Network::new(6, rotating);
        (network.epoch_blocks, network.first) = (8, 8 * 30);
        (network.state_sync, network.initialised) = (true, false);
        let late = Crash::DelayRound {
            participants: vec![key(2).public_key()],
            round: Round::new(Epoch::new(33), View::new(3)),
        };
        run(seed, &network, 56, |plan| plan.crash(late));
        assert!(roles(&network.world, 2, 30).is_empty());
        assert_eq!(roles(&network.world, 2, 36), [Role::Voting], "it votes once it has seen an epoch begin");
    }
}

#[test]
fn the_set_changes_while_validators_crash() {
    for seed in seeds(2) {
        let mut network = Network::new(6, rotating);
        network.epoch_blocks = 8;
        let crash = Crash::Random { frequency: 2 * SECOND, downtime: Duration::from_millis(700), count: 1 };
        run(seed, &network, 40, |plan| plan.crash(crash));
    }
}

#[test]
fn a_late_joiner_learns_every_set_from_genesis_and_fetches_the_state() {
    for seed in seeds(2) {
        let mut network = Network::new(6, rotating);
        network.epoch_blocks = 8;
        network.state_sync = true;
        network.initialised = false;
        // Resting in epochs 2 and 5: it joins during epoch 3, of which it is a member.
        let late = Crash::DelayRound {
            participants: vec![key(2).public_key()],
            round: Round::new(Epoch::new(3), View::new(3)),
        };
        run(seed, &network, 56, |plan| plan.crash(late));
        assert!(roles(&network.world, 2, 0).is_empty());
        let later: Vec<Role> = (6..7).flat_map(|epoch| roles(&network.world, 2, epoch)).collect();
        assert_eq!(later, [Role::Voting], "it votes once it has seen an epoch begin");
    }
}

/// Participant 0 crashes at two seconds and returns at four, in epoch 0.
fn returning() -> Crash<surety_consensus::PublicKey> {
    let key = key(0).public_key();
    Crash::Schedule(
        Schedule::new().at(2 * SECOND, Action::Crash(key.clone())).at(4 * SECOND, Action::Restart(key)),
    )
}

#[test]
fn a_lost_journal_costs_the_vote_until_the_next_epoch() {
    for seed in seeds(2) {
        let mut network = Network::new(4, steady);
        network.epoch_blocks = 32;
        network.loses_journal = Some(0);
        run(seed, &network, 40, |plan| plan.crash(returning()));
        assert_eq!(roles(&network.world, 0, 0), [Role::Voting, Role::Observing(Why::JournalLost)]);
        assert_eq!(roles(&network.world, 0, 1), [Role::Voting]);
    }
}

#[test]
fn a_kept_journal_keeps_the_vote() {
    for seed in seeds(1) {
        let mut network = Network::new(4, steady);
        network.epoch_blocks = 32;
        run(seed, &network, 40, |plan| plan.crash(returning()));
        assert_eq!(roles(&network.world, 0, 0), [Role::Voting, Role::Voting]);
    }
}

#[test]
fn a_lost_disk_is_fetched_again_and_costs_the_vote_until_the_next_epoch() {
    for seed in seeds(2) {
        let mut network = Network::new(4, steady);
        network.epoch_blocks = 32;
        network.loses_disk = Some(0);
        run(seed, &network, 40, |plan| plan.crash(returning()));
        assert_eq!(roles(&network.world, 0, 0), [Role::Voting, Role::Observing(Why::JournalLost)]);
        assert_eq!(roles(&network.world, 0, 1), [Role::Voting]);
    }
}

#[test]
fn an_old_copy_of_the_data_does_not_vote() {
    for seed in seeds(1) {
        let mut network = Network::new(4, steady);
        network.epoch_blocks = 16;
        // The record outside the data knows epoch 1; the data is as new.
        let record = network.record(0);
        record.store(Attendance::Last { epoch: 1, voting: true }).unwrap();
        run(seed, &network, 36, |plan| plan);
        assert_eq!(roles(&network.world, 0, 0), [Role::Observing(Why::OldData { recorded: 1 })]);
        assert_eq!(roles(&network.world, 0, 1), [Role::Observing(Why::JournalLost)]);
        assert_eq!(roles(&network.world, 0, 2), [Role::Voting]);
    }
}
