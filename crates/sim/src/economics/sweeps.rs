//! Sweeps: one assumption or parameter moves, and the table says where honesty stops being the best reply.
//!
//! In:     rules, a market, how much to run.
//! Out:    for each value what the better of a few deviations brings beside honesty.
//! Touches: nothing.
//! Absent: the best deviation there is: only those that are tried.

use serde::Serialize;

use super::{
    Effort, Estimate, Gwei, Market, PPM, Rules, Strategy, Twins, Violation,
    agents::{Flaky, OnDraw},
    compare, flaky_run,
};

/// One value.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct SweepPoint {
    /// Which.
    pub at: String,
    /// The better of the deviations that were tried.
    pub deviation: String,
    /// What it brings more than honesty, in micro-credits for each job of its stake's share.
    pub difference: Estimate,
    /// Wrong answers that came to something: convictions, draws that were not disclosed or not confirmed; none if nothing was
    /// wrong.
    pub events: Option<u64>,
    /// What one wrong answer brings by formula, in micro-credits; none where there is none.
    pub formula: Option<f64>,
    /// Of a million answers that were asked of its stake's share, so many it gave: jail and misses keep the rest from it.
    pub served_ppm: u64,
}

/// One thing that moves.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Sweep {
    /// What moves.
    pub name: &'static str,
    /// In order.
    pub points: Vec<SweepPoint>,
}

/// How far a flaky honest worker is from harm.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct FlakyPoint {
    /// What moves.
    pub at: String,
    /// Runs of ten workers.
    pub runs: u64,
    /// Those in which one was convicted beyond the rule of bad memory.
    pub broken: u64,
}

/// Operators that have passed audits before, as many as the default rate needs.
fn established(rules: &Rules, market: &Market) -> Market {
    Market { score: rules.audit_passes, ..market.clone() }
}

/// Few operators, so that each gives many answers.
fn few(market: &Market) -> Market {
    Market { operators: 5, jobs_per_epoch: 50, ..market.clone() }
}

/// Every receipt has the same rate, whatever was passed before.
fn fixed_rate(rules: &Rules, ppm: u64) -> Rules {
    Rules { audit_ppm: ppm, audit_floor_ppm: ppm, ..rules.clone() }
}

fn point(
    at: String,
    tried: &[Strategy],
    rules: &Rules,
    market: &Market,
    effort: &Effort,
    formula: Option<f64>,
) -> Result<SweepPoint, Violation> {
    let mut twins = Twins::default();
    let mut best: Option<SweepPoint> = None;
    for strategy in tried {
        let compared = compare(strategy, rules, market, effort, &mut twins)?;
        let found = SweepPoint {
            at: at.clone(),
            deviation: compared.strategy.clone(),
            difference: compared.difference,
            events: compared.events(),
            formula,
            served_ppm: compared.served.saturating_mul(PPM) / compared.asked.max(1),
        };
        if best.as_ref().is_none_or(|best| found.difference.mean > best.difference.mean) {
            best = Some(found);
        }
    }
    Ok(best.expect("something was tried"))
}

/// What one lie brings, in micro-credits.
fn lie(rules: &Rules, market: &Market, caught: f64) -> Option<f64> {
    Some(rules.lies_expectation(market.bond, market.price, caught, market.gain() as f64, 1.0) / 1_000.0)
}

fn percent(ppm: u64) -> String {
    format!("{} %", ppm as f64 / 10_000.0)
}

fn credits(amount: Gwei) -> String {
    format!("{} credits", amount as f64 / 1e9)
}

/// All of them, half of the jobs and half of the runs each.
///
/// # Errors
/// A run broke an invariant.
pub fn sweeps(rules: &Rules, market: &Market, effort: &Effort) -> Result<Vec<Sweep>, Violation> {
    let effort = Effort { jobs: (effort.jobs / 2).max(1), runs: (effort.runs / 2).max(2), seed: effort.seed };
    let many = established(rules, market);
    let market = few(&many);
    let caught = rules.rate_ppm(market.score) as f64 / PPM as f64;
    let cheats = |shares: &[u64], on_draw| -> Vec<Strategy> {
        shares.iter().map(|share| Strategy::Cheating(*share, on_draw)).collect()
    };
    let open = cheats(&[100_000, PPM], OnDraw::Shows);
    let mut all = Vec::new();

    let mut points = Vec::new();
    for ppm in [100, 500, 1_000, 10_000, 20_000, 100_000] {
        let rules = fixed_rate(rules, ppm);
        let formula = lie(&rules, &market, ppm as f64 / PPM as f64);
        points.push(point(percent(ppm), &open, &rules, &market, &effort, formula)?);
    }
    all.push(Sweep { name: "audit rate", points });

    let mut points = Vec::new();
    for bond in [5_000_000, 10_000_000, 20_000_000, 100_000_000, 1_000_000_000, 10_000_000_000] {
        let rules = Rules { worker_stake_min: bond, ..rules.clone() };
        let market = Market { bond, ..market.clone() };
        points.push(point(credits(bond), &open, &rules, &market, &effort, lie(&rules, &market, caught))?);
    }
    all.push(Sweep { name: "bond of an operator", points });

    let mut points = Vec::new();
    for times in [0, 10, 30, 60, 70, 100, 300] {
        let market = Market { bribe: market.price * times, ..market.clone() };
        let at = format!("{times} × price");
        points.push(point(at, &open, rules, &market, &effort, lie(rules, &market, caught))?);
    }
    all.push(Sweep { name: "bribe for each wrong answer", points });

    for (name, times) in
        [("operators of 20 that collude", 0), ("operators of 20 that collude, bribed with 10 × price", 10)]
    {
        let bribed = Market { bribe: many.price * times, ..many.clone() };
        let mut points = Vec::new();
        for count in [2, 5, 10, 15, 17, 19, 20] {
            let others = bribed.operators.saturating_sub(count) as f64;
            let strangers = others / bribed.operators.saturating_sub(1).max(1) as f64;
            let formula = lie(rules, &bribed, caught * strangers);
            let tried = [Strategy::Colluding(count, 100_000), Strategy::Colluding(count, PPM)];
            points.push(point(count.to_string(), &tried, rules, &bribed, &effort, formula)?);
        }
        let watched = Market { payer_audit_ppm: 5_000, ..bribed.clone() };
        let tried = [Strategy::Colluding(20, 100_000), Strategy::Colluding(20, PPM)];
        let at = "20; payers audit 0.5 %".to_owned();
        points.push(point(at, &tried, rules, &watched, &effort, lie(rules, &watched, 0.005))?);
        all.push(Sweep { name, points });
    }

    let mut points = Vec::new();
    for ppm in [0, 100_000, 333_333, 500_000, 900_000, 990_000, PPM] {
        let market = Market { beacon_ppm: ppm, ..market.clone() };
        points.push(point(percent(ppm), &open, rules, &market, &effort, None)?);
    }
    all.push(Sweep { name: "share of the beacon's turns that the cheater has", points });

    let hiding = cheats(&[10_000, 100_000, PPM], OnDraw::Withholds);
    let hidden = |rules: &Rules, market: &Market| {
        let cost = rules.forfeit(market.price, (1.0 / caught) as u64) as f64;
        Some(((1.0 - caught) * market.gain() as f64 - caught * cost) / 1_000.0)
    };
    let mut points = Vec::new();
    for bps in [0, 2_000, 5_000, 10_000, 20_000, 40_000, 80_000] {
        let rules = Rules { audit_miss_bps: bps, ..rules.clone() };
        let at = format!("{} × what it stands for", bps as f64 / 10_000.0);
        points.push(point(at, &hiding, &rules, &market, &effort, hidden(&rules, &market))?);
    }
    all.push(Sweep { name: "what a draw takes of pay that is not disclosed", points });

    let mut points = Vec::new();
    for times in [0, 1, 3, 4, 10] {
        let market = Market { bribe: market.price * times, ..market.clone() };
        let at = format!("{times} × price");
        points.push(point(at, &hiding, rules, &market, &effort, hidden(rules, &market))?);
    }
    all.push(Sweep { name: "bribe for each wrong answer, for who discloses no lie", points });

    let mut points = Vec::new();
    for times in [1, 3, 10, 30] {
        let market = Market {
            price: market.price * times,
            bond: market.bond * times,
            purse: market.purse * times,
            ..market.clone()
        };
        let at = format!("{} (bond {})", credits(market.price), credits(market.bond));
        points.push(point(at, &hiding, rules, &market, &effort, hidden(rules, &market))?);
    }
    all.push(Sweep { name: "price of an answer, for who discloses no lie", points });

    let starving = cheats(&[10_000, 100_000, PPM], OnDraw::Starves);
    let mut points = Vec::new();
    for times in [1, 2, 3, 10] {
        let market = Market { price: market.price * times, purse: market.purse * times, ..market.clone() };
        points.push(point(credits(market.price), &starving, rules, &market, &effort, None)?);
    }
    all.push(Sweep { name: "price of an answer, for who gives auditors nothing", points });

    let mut points = Vec::new();
    for bps in [0, 50, 100, 150, 200, 400] {
        let rules = Rules { auditors_bps: bps, ..rules.clone() };
        let at = format!("{} % of the price", bps as f64 / 100.0);
        points.push(point(at, &[Strategy::Lazy, Strategy::Selective], &rules, &many, &effort, None)?);
    }
    all.push(Sweep { name: "share of the price that is for auditors", points });

    let mut points = Vec::new();
    for score in [0, 8, 16, 64, 128] {
        let market = Market { score, ..many.clone() };
        points.push(point(format!("{score} audits"), &[Strategy::Selective], rules, &market, &effort, None)?);
    }
    all.push(Sweep { name: "audits that everybody has passed at the start", points });

    Ok(all)
}

/// How long a flaky worker may be away, and who may audit it besides, before the rule of bad memory does not save it.
///
/// # Errors
/// A run broke another invariant.
pub fn flaky_limits(rules: &Rules, market: &Market, effort: &Effort) -> Result<Vec<FlakyPoint>, Violation> {
    let runs = (effort.runs / 2).max(2);
    let mut points = Vec::new();
    let mut broken = |at: String, market: &Market, flaky: Flaky| -> Result<(), Violation> {
        let mut broken = 0;
        for index in 0..runs {
            let seed = effort.seed.wrapping_add(index);
            match flaky_run(rules, market, flaky, (effort.jobs / 10).max(1), seed) {
                Ok(_) => {}
                Err(Violation { broken: super::Invariant::MemoryRule { .. }, .. }) => broken += 1,
                Err(other) => return Err(other),
            }
        }
        points.push(FlakyPoint { at, runs, broken });
        Ok(())
    };
    let usual = Flaky::default();
    for away_s in [120, 600, 1_800, 7_200] {
        let at = format!("away for {away_s} s on average, moves have {} s", rules.dispute_move_s);
        broken(at, market, Flaky { away_s, ..usual })?;
    }
    broken("computes nothing again before it discloses".into(), market, Flaky { checks: false, ..usual })?;
    for ppm in [10_000, 100_000] {
        let watched = Market { payer_audit_ppm: ppm, ..market.clone() };
        broken(format!("payers audit {} besides", percent(ppm)), &watched, usual)?;
    }
    Ok(points)
}
