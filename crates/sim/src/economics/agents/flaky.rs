//! Honest, on a bad machine: bits flip, links are slow, it restarts.
//!
//! It computes again what is drawn before it shows it. If a bit had flipped it reports that first; a second time, while it may
//! report no other, it does not show it, which costs pay and no stake.

use super::{Agent, Disclosure, Random, Served, Sight, Step};

/// Honest on a bad machine.
#[derive(Debug, Clone, Copy)]
pub struct Flaky {
    /// Of a million answers, so many have a bit error that nobody notices.
    pub fault_ppm: u64,
    /// Of a million answers, so many come too late or not at all: slow links, restarts.
    pub lost_ppm: u64,
    /// Of a million times, it is away in so many when something must be done.
    pub away_ppm: u64,
    /// How long it is away, on average, in seconds; how much longer does not depend on how long it has been already.
    pub away_s: u64,
    /// Whether it computes again what is drawn.
    pub checks: bool,
}

impl Default for Flaky {
    fn default() -> Self {
        Self { fault_ppm: 100, lost_ppm: 2_000, away_ppm: 10_000, away_s: 120, checks: true }
    }
}

impl Agent for Flaky {
    fn name(&self) -> &'static str {
        "flaky honest"
    }

    fn is_honest(&self) -> bool {
        true
    }

    fn serve(&mut self, _sight: &Sight, random: &mut Random) -> Served {
        if random.chance(self.lost_ppm) {
            Served::Nothing
        } else if random.chance(self.fault_ppm) {
            Served::Faulty
        } else {
            Served::Right
        }
    }

    fn disclose(&mut self, _false_known: bool) -> Disclosure {
        if self.checks { Disclosure::Checks } else { Disclosure::Shows }
    }

    fn in_time(&mut self, _step: Step, seconds: u64, random: &mut Random) -> bool {
        if !random.chance(self.away_ppm) {
            return true;
        }
        let away = -random.unit().ln() * self.away_s as f64;
        away <= seconds as f64
    }
}
