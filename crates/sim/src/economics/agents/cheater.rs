//! Cheating worker: gives a share of its answers by a cheaper model.

use super::{Agent, Disclosure, Random, Served, Sight};
use crate::economics::{Market, PPM, Rules};

/// What a cheater does when one of its lies is drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnDraw {
    /// Shows it, and hopes for a friend.
    Shows,
    /// Does not show it.
    Withholds,
    /// Shows it, and lets its auditors wait for the evidence.
    Starves,
    /// Reports it as if a bit had flipped, and shows it.
    Reports,
}

/// A worker that cheats in a share of its answers.
#[derive(Debug, Clone, Copy)]
pub struct Cheater {
    /// Of a million answers, so many are wrong.
    pub share_ppm: u64,
    /// What it does when one is drawn.
    pub on_draw: OnDraw,
}

impl Agent for Cheater {
    fn name(&self) -> &'static str {
        "cheating worker"
    }

    fn serve(&mut self, _sight: &Sight, random: &mut Random) -> Served {
        if random.chance(self.share_ppm) { Served::Wrong } else { Served::Right }
    }

    fn disclose(&mut self, false_known: bool) -> Disclosure {
        match self.on_draw {
            OnDraw::Withholds if false_known => Disclosure::Withholds,
            OnDraw::Starves if false_known => Disclosure::Starves,
            OnDraw::Reports if false_known => Disclosure::Checks,
            _ => Disclosure::Shows,
        }
    }
}

/// The share of wrong answers, in millionths, that a rational cheater chooses among a few from none to all: the one with
/// the highest expectation over the answers it gives before the first of them is audited.
#[must_use]
pub fn best_share(rules: &Rules, market: &Market, caught: f64) -> u64 {
    let operators = market.operators.max(1);
    // From an epoch's end until its log is drawn two more pass.
    let before = (3 * market.jobs_per_epoch / operators) as f64;
    let expectation = |share: u64| {
        let lies = before * share as f64 / PPM as f64;
        rules.lies_expectation(market.bond, market.price, caught, market.gain() as f64, lies)
    };
    let mut best = 0;
    for share in [1_000, 10_000, 100_000, 500_000, PPM] {
        if expectation(share) > expectation(best) {
            best = share;
        }
    }
    best
}
