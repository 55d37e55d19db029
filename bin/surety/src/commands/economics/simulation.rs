//! `surety economics --simulate`: whether honesty pays under the default parameters, and where it stops.
//!
//! In:     the ledger's default parameters, how many jobs, a seed.
//! Out:    tables; the same for the same arguments.
//! Touches: nothing but the terminal.
//! Absent: the simulation (`surety-sim`).

use surety_chain::{PARAMETERS, Params};
use surety_sim::economics::{
    Comparison, Effort, Estimate, FlakyPoint, Market, Rules, Simulation, Sweep, simulate,
};

use crate::{
    commands::Outcome,
    look::aligned,
    output::{self, Style, hinted, out_style},
};

/// Runs of each strategy.
const RUNS: u64 = 20;
/// Convictions from which on a mean says something about what they cost.
const EVENTS_MIN: u64 = 10;
/// Jobs of a run, at most: the books count in 64 bits.
const JOBS_MAX: u64 = 10_000_000;

/// The rules as a ledger's parameters make them; those it does not have are the simulation's own, and named.
pub fn rules(params: &Params) -> (Rules, Vec<&'static str>) {
    let mut rules = Rules::default();
    let mut taken = Vec::new();
    for (index, parameter) in PARAMETERS.iter().enumerate() {
        let value = params.value(index).unwrap_or_default();
        if rules.set(parameter.name, value) {
            taken.push(parameter.name);
        }
    }
    (rules, taken)
}

pub fn run(json: bool, jobs: u64, seed: u64) -> anyhow::Result<Outcome> {
    if !(1_000..=JOBS_MAX).contains(&jobs) {
        return Err(hinted(
            format!("{jobs} jobs cannot be simulated"),
            format!("--jobs takes from 1000 to {JOBS_MAX}"),
        ));
    }
    let (rules, taken) = rules(&Params::default());
    let effort = Effort { jobs, runs: RUNS, seed };
    let page = simulate(&rules, &Market::default(), &effort, |what| output::note(format_args!("  {what}")))?;
    if json {
        output::json(&page)?;
    } else {
        for line in text(&page, &taken) {
            output::line(line)?;
        }
    }
    Ok(Outcome::Done)
}

fn gwei(amount: u64) -> String {
    format!("{:.4}", amount as f64 / 1e9)
}

fn estimate(estimate: &Estimate) -> String {
    format!("{:.1} ± {:.1}", estimate.mean, estimate.half_width)
}

/// What a difference says, after so many convictions and other events, if anything was wrong, and beside a formula for one
/// lie, if there is one.
fn word(difference: &Estimate, events: Option<u64>, formula: Option<f64>) -> &'static str {
    let agreed = difference.positive() && formula.is_some_and(|formula| formula > 0.0);
    if events.is_some_and(|events| events < EVENTS_MIN) && !difference.negative() && !agreed {
        "too rare to tell"
    } else if difference.mean == 0.0 && difference.half_width == 0.0 {
        "honest: the same"
    } else if difference.negative() {
        "honesty is better"
    } else if difference.positive() {
        "DEVIATING PAYS"
    } else {
        "not told apart"
    }
}

fn text(page: &Simulation, taken: &[&str]) -> Vec<String> {
    let heading = |text: &str| out_style(Style::Bold, text);
    let (rules, market, effort) = (&page.rules, &page.market, &page.effort);
    let mut lines = vec![
        heading("A simulation: it shows what its assumptions give (docs/economics.md)"),
        format!(
            "  {} runs of {} jobs for each strategy and its honest twin, from seed {}; the same arguments give the same figures",
            effort.runs, effort.jobs, effort.seed
        ),
        format!("  rules taken from the ledger's default parameters: {}", taken.join(", ")),
        "  all other rules are the simulation's own: `--json` shows each".to_owned(),
        format!(
            "  an answer costs {} credits on average, computing it {} % of that, by a cheaper model {} %, auditing it {} %",
            market.price as f64 / 1e9,
            market.compute_bps / 100,
            market.cheap_bps / 100,
            market.audit_bps / 100
        ),
        format!(
            "  {} operators, each with {} credits bonded; a lie costs {} of them, a draw that is missed {} × what it stands for",
            market.operators,
            market.bond as f64 / 1e9,
            rules.slash(market.bond, market.price) as f64 / 1e9,
            rules.audit_miss_bps as f64 / 10_000.0
        ),
        String::new(),
        heading(
            "What each strategy brings (micro-credits for each job of its stake's share; 95 % confidence)",
        ),
    ];
    lines.extend(comparisons(&page.comparisons));

    let detection = &page.detection;
    lines.extend([
        String::new(),
        heading("Detection"),
        format!(
            "  {} cheated replies at {} % are caught with probability {:.4} by formula; {:.4} ± {:.4} in {} trials",
            detection.replies,
            detection.rate_ppm as f64 / 10_000.0,
            detection.exact,
            detection.simulated.mean,
            detection.simulated.half_width,
            detection.trials
        ),
        format!(
            "  they bring {} micro-credits in the trials; {:.1} by formula, with one conviction",
            estimate(&detection.gain),
            detection.gain_exact
        ),
        format!(
            "  one wrong answer would have to be worth {:.1} × its price to pay",
            rules.break_even_gain(market.bond, market.price, detection.rate_ppm as f64 / 1e6)
                / market.price as f64
        ),
        String::new(),
        heading("Flaky honest workers: bit errors in 1 of 10,000 answers, 1 of 500 lost, away 1 % of the time"),
    ]);
    let flaky = &page.flaky;
    lines.extend([
        format!(
            "  {} workers, {} answers, at least {} each; {} with a flipped bit, {} lost",
            flaky.workers, flaky.served, flaky.served_least, flaky.faulty, flaky.failures
        ),
        format!(
            "  {} receipts drawn, {} not disclosed in time; {} false accusations defended",
            flaky.drawn, flaky.missed, flaky.cleared
        ),
        format!(
            "  convicted under the rule of bad memory: {}, for {} credits; beyond it: {}",
            flaky.memory_faults,
            gwei(flaky.memory_penalties),
            flaky.lies
        ),
        format!("  compensation for lost answers: {} credits", gwei(flaky.compensated)),
        format!("  taken of their pay for draws they missed: {} credits", gwei(flaky.forfeited)),
    ]);
    let night = &page.night;
    lines.push(format!(
        "  down for {} epochs, an honest operator misses {} draws, which take {} micro-credits of its pay, {:.0} at most; its receipts charge {:.0} a day",
        night.epochs,
        estimate(&night.missed),
        estimate(&night.forfeited),
        night.forfeited_most,
        night.daily
    ));
    lines.extend(limits(&page.flaky_limits));
    for sweep in &page.sweeps {
        lines.extend([String::new(), heading(&format!("Sweep: {}", sweep.name))]);
        lines.extend(swept(sweep));
    }
    lines
}

fn comparisons(comparisons: &[Comparison]) -> Vec<String> {
    let head = [
        "  strategy",
        "profit",
        "honest twin",
        "difference",
        "",
        "wrong",
        "convicted",
        "slashed",
        "refunded",
    ];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    rows.extend(comparisons.iter().map(|found| {
        vec![
            format!("  {}", found.strategy),
            estimate(&found.profit),
            estimate(&found.honest),
            estimate(&found.difference),
            word(&found.difference, found.events(), None).to_owned(),
            found.wrong.to_string(),
            (found.lies + found.memory_faults).to_string(),
            gwei(found.slashed),
            gwei(found.refunded),
        ]
    }));
    aligned(&rows)
}

fn limits(points: &[FlakyPoint]) -> Vec<String> {
    let mut rows = vec![["  if", "convicted beyond it, in runs"].map(str::to_owned).to_vec()];
    rows.extend(
        points
            .iter()
            .map(|point| vec![format!("  {}", point.at), format!("{} of {}", point.broken, point.runs)]),
    );
    aligned(&rows)
}

fn swept(sweep: &Sweep) -> Vec<String> {
    let head = ["  at", "best deviation tried", "difference", "", "events", "one lie, by formula", "served"];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    rows.extend(sweep.points.iter().map(|point| {
        vec![
            format!("  {}", point.at),
            point.deviation.clone(),
            estimate(&point.difference),
            word(&point.difference, point.events, point.formula).to_owned(),
            point.events.map_or_else(String::new, |events| events.to_string()),
            point.formula.map_or_else(String::new, |formula| format!("{formula:.1}")),
            format!("{:.0} %", point.served_ppm as f64 / 10_000.0),
        ]
    }));
    aligned(&rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The simulation's defaults are the ledger's, where it has them.
    #[test]
    fn the_simulations_rules_are_the_ledgers() {
        let (rules, taken) = rules(&Params::default());
        assert_eq!(rules, Rules::default());
        for name in ["minimum_gas_price", "worker_stake_min", "unbonding_s"] {
            assert!(taken.contains(&name), "{name}: {taken:?}");
        }
    }

    #[test]
    fn tables_say_who_is_better() {
        let difference = |mean, half_width| word(&Estimate { mean, half_width }, None, None);
        assert_eq!(difference(-2.0, 1.0), "honesty is better");
        assert_eq!(difference(2.0, 1.0), "DEVIATING PAYS");
        assert_eq!(difference(1.0, 2.0), "not told apart");
        assert_eq!(difference(0.0, 0.0), "honest: the same");
        let lucky = Estimate { mean: 2.0, half_width: 1.0 };
        assert_eq!(word(&lucky, Some(9), Some(-5.0)), "too rare to tell");
        assert_eq!(word(&lucky, Some(9), Some(5.0)), "DEVIATING PAYS");
        assert_eq!(word(&lucky, Some(10), Some(-5.0)), "DEVIATING PAYS");
        let effort = Effort { jobs: 1_000, runs: 2, seed: 1 };
        let page = simulate(&Rules::default(), &Market::default(), &effort, |_| {}).unwrap();
        let text = text(&page, &[]).join("\n");
        for said in
            ["lazy auditor", "Sybils", "caught with probability 0.8674", "Sweep: audit rate", "beyond it: 0"]
        {
            assert!(text.contains(said), "{said} is missing:\n{text}");
        }
    }
}
