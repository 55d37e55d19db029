//! Compare: what each strategy brings beside what its honest twin would have had, in the same population, with the same seeds.
//!
//! In:     rules, a market, a strategy, how many jobs and runs.
//! Out:    means over the runs, with 95 % confidence intervals (Student's t).
//! Touches: nothing.
//! Holds:  both have the same stake and the same orders are asked for; who is compared is owner 0.

use serde::Serialize;

use super::{
    Gwei, Market, Outcome, Outsider, Party, Rules, Setting, Violation,
    agents::{
        Cheater, Colluder, Copier, Extorter, Honest, Lazy, OnDraw, Scammer, Selective, best_share, sybils,
    },
    run,
    world::FOCUS,
};
use crate::economics::Agent;

/// A mean, and half the width of its confidence interval.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Estimate {
    /// The mean over the runs.
    pub mean: f64,
    /// The truth is within mean ± this, with 95 % confidence.
    pub half_width: f64,
}

impl Estimate {
    /// Of independent values.
    #[must_use]
    pub fn of(values: &[f64]) -> Self {
        let count = values.len().max(1) as f64;
        let mean = values.iter().sum::<f64>() / count;
        let squares: f64 = values.iter().map(|value| (value - mean) * (value - mean)).sum();
        if values.len() < 2 {
            return Self { mean, half_width: f64::INFINITY };
        }
        // Student's t for 95 %, within 2 % from five degrees of freedom on.
        let freedom = count - 1.0;
        let t = 1.96 + 2.4 / freedom + 3.0 / (freedom * freedom);
        Self { mean, half_width: t * (squares / freedom / count).sqrt() }
    }

    /// Surely less than zero.
    #[must_use]
    pub fn negative(&self) -> bool {
        self.mean + self.half_width < 0.0
    }

    /// Surely more.
    #[must_use]
    pub fn positive(&self) -> bool {
        self.mean - self.half_width > 0.0
    }
}

/// A way to behave, for owner 0; all others are honest.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Strategy {
    /// Computes nothing as an auditor.
    Lazy,
    /// Copies as an auditor.
    Copying,
    /// Audits what pays.
    Selective,
    /// Cheats in the share that promises most.
    Rational,
    /// Cheats in a share of its answers, in millionths.
    Cheating(u64, OnDraw),
    /// So many operators cheat in a share of their answers, and vouch for each other.
    Colluding(u64, u64),
    /// The stake of so many, split or in one hand; cheats in a share of its answers.
    Sybil(u64, u64),
    /// Cheats in everything for so many epochs, and leaves.
    ExitScam(u64),
    /// False disputes and false claims in an epoch.
    Extorting(u64, u64),
}

/// The strategies that are compared at the defaults.
#[must_use]
pub fn strategies() -> Vec<Strategy> {
    let cheating = |share_ppm| Strategy::Cheating(share_ppm, OnDraw::Shows);
    vec![
        Strategy::Lazy,
        Strategy::Copying,
        Strategy::Selective,
        Strategy::Rational,
        cheating(10_000),
        cheating(100_000),
        cheating(1_000_000),
        Strategy::Cheating(10_000, OnDraw::Reports),
        Strategy::Cheating(1_000_000, OnDraw::Reports),
        Strategy::Cheating(10_000, OnDraw::Withholds),
        Strategy::Cheating(1_000_000, OnDraw::Withholds),
        Strategy::Cheating(10_000, OnDraw::Starves),
        Strategy::Cheating(1_000_000, OnDraw::Starves),
        Strategy::Colluding(2, 100_000),
        Strategy::Colluding(7, 100_000),
        Strategy::Sybil(10, 100_000),
        Strategy::ExitScam(20),
        Strategy::Extorting(1, 1),
    ]
}

impl Strategy {
    /// As tables call it.
    #[must_use]
    pub fn name(&self) -> String {
        let percent = |share_ppm: u64| format!("{} %", share_ppm as f64 / 10_000.0);
        match *self {
            Strategy::Lazy => "lazy auditor".into(),
            Strategy::Copying => "copying auditor".into(),
            Strategy::Selective => "selective auditor".into(),
            Strategy::Rational => "rational cheater".into(),
            Strategy::Cheating(share, OnDraw::Shows) => format!("cheats in {}", percent(share)),
            Strategy::Cheating(share, OnDraw::Withholds) => {
                format!("cheats in {}, discloses no lie", percent(share))
            }
            Strategy::Cheating(share, OnDraw::Starves) => {
                format!("cheats in {}, gives auditors nothing", percent(share))
            }
            Strategy::Cheating(share, OnDraw::Reports) => {
                format!("cheats in {}, reports drawn lies", percent(share))
            }
            Strategy::Colluding(count, share) => format!("{count} collude, cheat in {}", percent(share)),
            Strategy::Sybil(count, share) => format!("one as {count} Sybils, cheats in {}", percent(share)),
            Strategy::ExitScam(epochs) => format!("exit scam over {epochs} epochs"),
            Strategy::Extorting(disputes, claims) => {
                format!("extorts: {disputes} disputes, {claims} claims an epoch")
            }
        }
    }

    /// The population; with `deviates`, owner 0 follows the strategy, else it is honest.
    fn parties(&self, rules: &Rules, market: &Market, deviates: bool) -> (Vec<Party>, Vec<Outsider>) {
        let party = |agent: Box<dyn Agent>, owner: u32, stakes: u64| Party {
            agent,
            owner,
            coalition: None,
            bond: market.bond * stakes,
            purse: market.purse * stakes,
        };
        let mut parties = Vec::new();
        let mut outsiders = Vec::new();
        let focus = |agent: Box<dyn Agent>| party(if deviates { agent } else { Box::new(Honest) }, FOCUS, 1);
        let mut stakes = 1;
        match *self {
            Strategy::Lazy => parties.push(focus(Box::new(Lazy))),
            Strategy::Copying => parties.push(focus(Box::new(Copier))),
            Strategy::Selective => parties.push(focus(Box::new(Selective))),
            Strategy::Rational => {
                let caught = rules.rate_ppm(market.score) as f64 / 1e6;
                let share_ppm = best_share(rules, market, caught);
                parties.push(focus(Box::new(Cheater { share_ppm, on_draw: OnDraw::Shows })));
            }
            Strategy::Cheating(share_ppm, on_draw) => {
                parties.push(focus(Box::new(Cheater { share_ppm, on_draw })));
            }
            Strategy::ExitScam(epochs) => parties.push(focus(Box::new(Scammer { epochs }))),
            Strategy::Colluding(count, share_ppm) => {
                stakes = count;
                for _ in 0..count {
                    let mut member = focus(Box::new(Colluder { share_ppm }));
                    member.coalition = deviates.then_some(FOCUS);
                    parties.push(member);
                }
            }
            Strategy::Sybil(count, share_ppm) => {
                stakes = count;
                if deviates {
                    parties.extend(sybils(
                        FOCUS,
                        count,
                        market.bond * count,
                        market.purse * count,
                        share_ppm,
                    ));
                } else {
                    parties.push(party(Box::new(Honest), FOCUS, count));
                }
            }
            Strategy::Extorting(disputes, claims) => {
                stakes = 0;
                let agent = if deviates {
                    Extorter { disputes, claims }
                } else {
                    Extorter { disputes: 0, claims: 0 }
                };
                outsiders.push(Outsider { agent, owner: FOCUS, purse: market.purse });
            }
        }
        let others = market.operators.saturating_sub(stakes);
        parties.extend((0..others).map(|index| party(Box::new(Honest), 1 + index as u32, 1)));
        (parties, outsiders)
    }

    /// Which population its twin is of: strategies with the same number have the same twin.
    fn twin(&self) -> u64 {
        match *self {
            Strategy::Colluding(count, _) => count,
            Strategy::Sybil(count, _) => (1 << 32) + count,
            Strategy::Extorting(..) => 0,
            _ => 1,
        }
    }

    /// The share of all stake that owner 0 has; of an outsider, what one operator would have.
    fn stake_share(&self, market: &Market) -> f64 {
        let stakes = match *self {
            Strategy::Colluding(count, _) | Strategy::Sybil(count, _) => count,
            _ => 1,
        };
        stakes as f64 / market.operators.max(1) as f64
    }
}

/// One strategy beside its honest twin. Profits are micro-credits for each job that owner 0's stake would have served.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Comparison {
    /// Which.
    pub strategy: String,
    /// What it brings.
    pub profit: Estimate,
    /// What honesty brings instead.
    pub honest: Estimate,
    /// The first less the second, run by run.
    pub difference: Estimate,
    /// Answers that its stake's share would be asked for, over all runs; all that follow too.
    pub asked: u64,
    /// Answers it gave.
    pub served: u64,
    /// Wrong ones among them.
    pub wrong: u64,
    /// Convictions as a liar.
    pub lies: u64,
    /// Convictions for reported faults.
    pub memory_faults: u64,
    /// Draws not disclosed.
    pub missed: u64,
    /// Draws that no auditor came through with.
    pub unconfirmed: u64,
    /// Audits it was drawn for and not paid for.
    pub audits_unpaid: u64,
    /// Accusations lost.
    pub accusations_lost: u64,
    /// Stake taken, in gwei.
    pub slashed: Gwei,
    /// What of it went to payers, in gwei.
    pub refunded: Gwei,
    /// Beacons that it withheld.
    pub withheld_blocks: u64,
}

impl Comparison {
    /// Wrong answers that came to something: convictions, draws that were not disclosed or not confirmed. None if nothing was
    /// wrong.
    /// Where there were few, what is rare and dear may have been missed by chance, and the interval knows nothing of it.
    #[must_use]
    pub fn events(&self) -> Option<u64> {
        (self.wrong > 0).then_some(self.lies + self.memory_faults + self.missed + self.unconfirmed)
    }
}

/// Runs of honest twins, kept for those strategies whose twins are alike.
#[derive(Debug, Default)]
pub struct Twins(Vec<(u64, Vec<Outcome>)>);

/// How often, and how much.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Effort {
    /// Answers that are asked for in a run.
    pub jobs: u64,
    /// Runs of each strategy, and of its twin.
    pub runs: u64,
    /// Of the first run; each further one has the next.
    pub seed: u64,
}

/// Runs a strategy and its twin.
///
/// `twins` holds only runs of these rules, this market and this effort.
///
/// # Errors
/// A run broke an invariant.
pub fn compare(
    strategy: &Strategy,
    rules: &Rules,
    market: &Market,
    effort: &Effort,
    twins: &mut Twins,
) -> Result<Comparison, Violation> {
    let jobs = effort.jobs;
    let fair_jobs = (jobs as f64 * strategy.stake_share(market)).max(1.0);
    let outcomes = |deviates: bool| -> Result<Vec<Outcome>, Violation> {
        let seeds = (0..effort.runs).map(|index| effort.seed.wrapping_add(index));
        seeds
            .map(|seed| {
                let (parties, outsiders) = strategy.parties(rules, market, deviates);
                run(Setting { rules: rules.clone(), market: market.clone(), parties, outsiders, jobs, seed })
            })
            .collect()
    };
    let deviating = outcomes(true)?;
    let honest = match twins.0.iter().position(|(kind, _)| *kind == strategy.twin()) {
        Some(at) => &twins.0[at].1,
        None => {
            twins.0.push((strategy.twin(), outcomes(false)?));
            &twins.0[twins.0.len() - 1].1
        }
    };
    let per_job = |outcome: &Outcome| outcome.profit_of(FOCUS) as f64 / 1_000.0 / fair_jobs;
    let profits: Vec<f64> = deviating.iter().map(per_job).collect();
    let twin_profits: Vec<f64> = honest.iter().map(per_job).collect();
    let differences: Vec<f64> = profits.iter().zip(&twin_profits).map(|(one, twin)| one - twin).collect();
    let sum = |figure: fn(&super::Tally) -> u64| -> u64 {
        deviating.iter().map(|outcome| outcome.sum_of(FOCUS, figure)).sum()
    };
    Ok(Comparison {
        strategy: strategy.name(),
        profit: Estimate::of(&profits),
        honest: Estimate::of(&twin_profits),
        difference: Estimate::of(&differences),
        asked: (fair_jobs * effort.runs as f64) as u64,
        served: sum(|tally| tally.served),
        wrong: sum(|tally| tally.wrong),
        lies: sum(|tally| tally.lies),
        memory_faults: sum(|tally| tally.memory_faults),
        missed: sum(|tally| tally.missed),
        unconfirmed: sum(|tally| tally.unconfirmed),
        audits_unpaid: sum(|tally| tally.guesses_refused + tally.copies_refused + tally.skipped),
        accusations_lost: sum(|tally| tally.accusations_lost),
        slashed: sum(|tally| tally.slashed + tally.memory_penalties),
        refunded: sum(|tally| tally.refunded),
        withheld_blocks: sum(|tally| tally.withheld_blocks),
    })
}
