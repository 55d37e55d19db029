//! The engine under a seeded clock, network and storage: the same code that runs on sockets and disks.
//!
//! Each case runs for several seeds; `SURETY_SEEDS` sets how many (a thousand for the long set). A failure names the seed,
//! and `SURETY_SEED_FIRST` replays from it.

mod coins;
mod economies;
mod economy;
mod epochs;
mod faults;
mod harness;
mod misdeeds;
mod shifted;

use commonware_glue::simulate::{
    action::Crash,
    exit::ProcessedHeightAtLeast,
    plan::{PlanBuilder, PlanResult},
};
use commonware_p2p::simulated::Link;
use commonware_utils::probability;
use harness::{Conserved, Network, assert_not_trivial, steady};
use std::time::Duration;

fn seeds(short: u64) -> std::ops::Range<u64> {
    let number = |name| std::env::var(name).ok().and_then(|value| value.parse().ok());
    let first = number("SURETY_SEED_FIRST").unwrap_or(0);
    first..first + number("SURETY_SEEDS").unwrap_or(short)
}

fn good() -> Link {
    Link {
        latency: Duration::from_millis(10),
        jitter: Duration::from_millis(5),
        success_rate: probability!(1.0),
    }
}

/// Runs one seed until everybody has reached `height`.
///
/// With `RUST_LOG` set, says what happens.
fn run(
    seed: u64,
    network: &Network,
    height: u64,
    change: impl FnOnce(PlanBuilder<Network>) -> PlanBuilder<Network>,
) -> PlanResult<Network> {
    let _ = tracing_subscriber::fmt()
        .with_env_filter(tracing_subscriber::EnvFilter::from_default_env())
        .with_test_writer()
        .try_init();
    let plan = PlanBuilder::new(network.clone())
        .seeds(seed..seed + 1)
        .link(good())
        .exit_condition(ProcessedHeightAtLeast::new(height))
        .property(Conserved(network.world.clone()))
        .timeout(Duration::from_secs(1_200));
    let result = change(plan).run().unwrap_or_else(|error| panic!("{error}"));
    assert_not_trivial(&network.world, height);
    result.into_iter().next().unwrap()
}

#[test]
fn blocks_follow_each_other() {
    for seed in seeds(3) {
        run(seed, &Network::new(4, steady), 20, |plan| plan);
    }
}

#[test]
fn blocks_on_top_of_unfinished_ones_carry_what_follows() {
    for seed in seeds(2) {
        let mut network = Network::new(4, steady);
        network.pace = Duration::from_millis(1);
        run(seed, &network, 60, |plan| plan);
        assert!(*network.world.stacked.lock().unwrap() > 0, "some proposals were ahead of finality");
        assert_eq!(*network.world.empty.lock().unwrap(), 0, "a proposal repeated what its ancestors carry");
    }
}

#[test]
fn a_seed_replays_identically() {
    let (again, first) = (Network::new(4, steady), Network::new(4, steady));
    let states = [first, again].map(|network| {
        let crash = Crash::Random {
            frequency: Duration::from_secs(1),
            downtime: Duration::from_millis(500),
            count: 1,
        };
        run(7, &network, 12, |plan| plan.crash(crash)).state
    });
    assert_eq!(states[0], states[1]);
}
