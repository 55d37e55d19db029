//! Simulation: everything this room can say about a set of rules, in one go.
//!
//! In:     rules, a market, how much to run.
//! Out:    comparisons, detection, flaky workers, sweeps.
//! Touches: nothing.

use serde::Serialize;

use super::{
    Comparison, Detection, Effort, FlakyPoint, FlakyRun, Market, NightRun, Rules, Sweep, Twins, Violation,
    agents::Flaky, compare, detection, flaky_limits, flaky_run, night_run, strategies, sweeps,
};

/// What a set of rules gives.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Simulation {
    /// Enforced.
    pub rules: Rules,
    /// Assumed.
    pub market: Market,
    /// How much was run.
    pub effort: Effort,
    /// Each strategy beside its honest twin; operators have passed `audit_passes` audits at the start.
    pub comparisons: Vec<Comparison>,
    /// A hundred cheated replies.
    pub detection: Detection,
    /// Flaky honest workers, each with as many jobs as a run.
    pub flaky: FlakyRun,
    /// A night in which an honest operator is down.
    pub night: NightRun,
    /// Where the rule of bad memory does not save them.
    pub flaky_limits: Vec<FlakyPoint>,
    /// Where honesty stops being the best reply.
    pub sweeps: Vec<Sweep>,
}

/// Runs all of it; `next` is told what is being run.
///
/// # Errors
/// A run broke an invariant: money was not conserved, or an honest party lost what it must not.
pub fn simulate(
    rules: &Rules,
    market: &Market,
    effort: &Effort,
    mut next: impl FnMut(&str),
) -> Result<Simulation, Violation> {
    let mut twins = Twins::default();
    let established = Market { score: rules.audit_passes, ..market.clone() };
    let mut comparisons = Vec::new();
    for strategy in strategies() {
        next(&strategy.name());
        comparisons.push(compare(&strategy, rules, &established, effort, &mut twins)?);
    }
    next("a hundred cheated replies");
    // As many replies in all as a run has jobs.
    let trials = (effort.jobs / 100).max(100);
    let detection = detection(rules, market, trials, effort.seed)?;
    next("flaky honest workers");
    let flaky = flaky_run(rules, market, Flaky::default(), effort.jobs, effort.seed)?;
    let night = night_run(rules, market, 10 * effort.runs, effort.seed)?;
    let flaky_limits = flaky_limits(rules, market, effort)?;
    next("sweeps");
    let sweeps = sweeps(rules, market, effort)?;
    let (rules, market, effort) = (rules.clone(), market.clone(), *effort);
    Ok(Simulation { rules, market, effort, comparisons, detection, flaky, night, flaky_limits, sweeps })
}
