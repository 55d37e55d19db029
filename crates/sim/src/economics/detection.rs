//! Detection: how often a hundred cheated replies are caught, and what they bring; what a flaky honest worker suffers.
//!
//! In:     rules, a market, how many trials or jobs. Out: figures. Touches: nothing.

use serde::Serialize;

use super::{
    Agent, Estimate, Gwei, Market, Outcome, Outsider, Party, Random, Rules, Served, Setting, Sight,
    Violation,
    agents::{Extorter, Flaky, Honest, Sleeper},
    run,
    world::FOCUS,
};

/// Replies that are cheated in one trial.
const REPLIES: u64 = 100;

/// Cheats in its first replies, and never again.
struct Once {
    left: u64,
}

impl Agent for Once {
    fn name(&self) -> &'static str {
        "cheats a hundred times"
    }

    fn serve(&mut self, _sight: &Sight, _random: &mut Random) -> Served {
        if self.left == 0 {
            return Served::Right;
        }
        self.left -= 1;
        Served::Wrong
    }
}

/// How often a hundred cheated replies are caught at the default rate.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Detection {
    /// Cheated replies in a trial.
    pub replies: u64,
    /// Of a million receipts, so many are audited.
    pub rate_ppm: u64,
    /// 1 − (1 − p)¹⁰⁰.
    pub exact: f64,
    /// Trials.
    pub trials: u64,
    /// The share of them in which there was a conviction.
    pub simulated: Estimate,
    /// What a trial brings beside the same worker without a lie, in micro-credits.
    pub gain: Estimate,
    /// The same by formula, with one conviction and no income lost.
    pub gain_exact: f64,
}

/// Runs so many trials.
///
/// # Errors
/// A run broke an invariant.
pub fn detection(rules: &Rules, market: &Market, trials: u64, seed: u64) -> Result<Detection, Violation> {
    // Established operators, whose rate is the default's; all replies are of one epoch.
    let rules = Rules { audit_floor_ppm: rules.audit_ppm, ..rules.clone() };
    let jobs = 4 * REPLIES;
    let market = Market { score: rules.audit_passes, jobs_per_epoch: jobs, operators: 2, ..market.clone() };
    let trial = |agent: Box<dyn Agent>, seed: u64| -> Result<Outcome, Violation> {
        let party =
            |agent, owner| Party { agent, owner, coalition: None, bond: market.bond, purse: market.purse };
        let parties = vec![party(agent, FOCUS), party(Box::new(Honest) as Box<dyn Agent>, 1)];
        run(Setting { rules: rules.clone(), market: market.clone(), parties, outsiders: vec![], jobs, seed })
    };
    let (mut caught, mut gains) = (Vec::new(), Vec::new());
    for index in 0..trials {
        let seed = seed.wrapping_add(index);
        let cheated = trial(Box::new(Once { left: REPLIES }), seed)?;
        let honest = trial(Box::new(Honest), seed)?;
        caught.push(if cheated.sum_of(FOCUS, |tally| tally.lies) > 0 { 1.0 } else { 0.0 });
        gains.push((cheated.profit_of(FOCUS) - honest.profit_of(FOCUS)) as f64 / 1_000.0);
    }
    let rate_ppm = rules.rate_ppm(market.score);
    let rate = rate_ppm as f64 / 1e6;
    let lies = REPLIES as f64;
    Ok(Detection {
        replies: REPLIES,
        rate_ppm,
        exact: 1.0 - (1.0 - rate).powf(lies),
        trials,
        simulated: Estimate::of(&caught),
        gain: Estimate::of(&gains),
        gain_exact: rules.lies_expectation(market.bond, market.price, rate, market.gain() as f64, lies)
            / 1_000.0,
    })
}

/// Flaky honest workers, new at the beginning, and an extorter among them.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct FlakyRun {
    /// Workers.
    pub workers: u64,
    /// Answers of all.
    pub served: u64,
    /// The fewest of one.
    pub served_least: u64,
    /// Answers with a flipped bit.
    pub faulty: u64,
    /// Acceptances without a receipt.
    pub failures: u64,
    /// Draws, and those not disclosed in time.
    pub drawn: u64,
    /// Of those.
    pub missed: u64,
    /// What they took of pay, in gwei.
    pub forfeited: Gwei,
    /// Convictions for reported faults: the rule of bad memory.
    pub memory_faults: u64,
    /// Convictions beyond that rule.
    pub lies: u64,
    /// False accusations that were defended.
    pub cleared: u64,
    /// Stake taken for reported faults, in gwei.
    pub memory_penalties: Gwei,
    /// Stake paid for acceptances without a receipt, in gwei.
    pub compensated: Gwei,
    /// The worst worker's profit for an answer, in micro-credits.
    pub profit_least: f64,
    /// The mean.
    pub profit_mean: f64,
}

/// Ten flaky workers, each with about so many jobs.
///
/// # Errors
/// A run broke an invariant: also if a flaky worker was punished beyond the rule of bad memory.
pub fn flaky_run(
    rules: &Rules,
    market: &Market,
    flaky: Flaky,
    jobs: u64,
    seed: u64,
) -> Result<FlakyRun, Violation> {
    const WORKERS: u64 = 10;
    let party = |owner: u64| Party {
        agent: Box::new(flaky),
        owner: owner as u32,
        coalition: None,
        bond: market.bond,
        purse: market.purse,
    };
    let outsiders = vec![Outsider {
        agent: Extorter { disputes: 1, claims: 1 },
        owner: WORKERS as u32,
        purse: 1_000 * market.purse,
    }];
    let outcome = run(Setting {
        rules: rules.clone(),
        market: Market { operators: WORKERS, jobs_per_epoch: market.jobs_per_epoch / 2, ..market.clone() },
        parties: (0..WORKERS).map(party).collect(),
        outsiders,
        jobs: jobs * WORKERS,
        seed,
    })?;
    let workers = &outcome.tallies[..WORKERS as usize];
    let sum = |figure: fn(&super::Tally) -> u64| workers.iter().map(figure).sum::<u64>();
    let profits = workers.iter().zip(&outcome.profits);
    let profits: Vec<f64> =
        profits.map(|(tally, profit)| *profit as f64 / 1_000.0 / tally.served.max(1) as f64).collect();
    Ok(FlakyRun {
        workers: WORKERS,
        served: sum(|tally| tally.served),
        served_least: workers.iter().map(|tally| tally.served).min().unwrap_or(0),
        faulty: sum(|tally| tally.wrong),
        failures: sum(|tally| tally.failures),
        drawn: sum(|tally| tally.drawn),
        missed: sum(|tally| tally.missed),
        forfeited: sum(|tally| tally.forfeited),
        memory_faults: sum(|tally| tally.memory_faults),
        lies: sum(|tally| tally.lies),
        cleared: sum(|tally| tally.cleared),
        memory_penalties: sum(|tally| tally.memory_penalties),
        compensated: sum(|tally| tally.compensated),
        profit_least: profits.iter().copied().fold(f64::INFINITY, f64::min),
        profit_mean: profits.iter().sum::<f64>() / WORKERS as f64,
    })
}

/// An honest operator that is down for a night, over many runs.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct NightRun {
    /// Epochs for which it is down.
    pub epochs: u64,
    /// Draws that it missed, on average.
    pub missed: Estimate,
    /// What they took of its pay, in micro-credits.
    pub forfeited: Estimate,
    /// The same, at most.
    pub forfeited_most: f64,
    /// What its receipts charge in a day, in micro-credits.
    pub daily: f64,
}

/// Nights of so many runs: the first operator of an ordinary, established market is down for eight hours.
///
/// # Errors
/// A run broke an invariant.
pub fn night_run(rules: &Rules, market: &Market, runs: u64, seed: u64) -> Result<NightRun, Violation> {
    let market = Market { score: rules.audit_passes, ..market.clone() };
    let epochs = market.epochs(8 * 3_600);
    let party =
        |agent, owner| Party { agent, owner, coalition: None, bond: market.bond, purse: market.purse };
    let (mut missed, mut forfeited) = (Vec::new(), Vec::new());
    for index in 0..runs.max(2) {
        let sleeper: Box<dyn Agent> = Box::new(Sleeper { from: 30, epochs });
        let mut parties = vec![party(sleeper, FOCUS)];
        parties.extend((1..market.operators as u32).map(|owner| party(Box::new(Honest), owner)));
        let outcome = run(Setting {
            rules: rules.clone(),
            market: market.clone(),
            parties,
            outsiders: vec![],
            jobs: market.jobs_per_epoch * (60 + epochs),
            seed: seed.wrapping_add(index),
        })?;
        missed.push(outcome.sum_of(FOCUS, |tally| tally.missed) as f64);
        forfeited.push(outcome.sum_of(FOCUS, |tally| tally.forfeited) as f64 / 1_000.0);
    }
    let answers = (market.jobs_per_epoch * market.epochs(86_400)) as f64 / market.operators.max(1) as f64;
    Ok(NightRun {
        epochs,
        missed: Estimate::of(&missed),
        forfeited: Estimate::of(&forfeited),
        forfeited_most: forfeited.iter().copied().fold(0.0, f64::max),
        daily: answers * market.price as f64 / 1_000.0,
    })
}
