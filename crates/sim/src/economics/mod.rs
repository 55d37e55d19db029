//! Economics: whether honesty pays under the rules of audits, disputes and money.
//!
//! In:     [`Rules`], a [`Market`], strategies.
//! Out:    profits of each strategy beside an honest twin's, how often lies are caught, where honesty stops paying.
//! Touches: nothing.
//! Holds:  money is conserved in every step; who is honest loses no more than its own failures cost (`checks`).
//! Absent: how answers are computed: an answer is right, or wrong, or wrong by one bit.

pub mod agents;
mod books;
mod checks;
mod compare;
mod detection;
mod random;
mod rules;
mod simulation;
mod sweeps;
mod world;

pub use agents::{Agent, AuditAct, AuditSight, Disclosure, Served, Sight, Step};
pub use books::{Account, Books};
pub use checks::{Invariant, Violation};
pub use compare::{Comparison, Effort, Estimate, Strategy, Twins, compare, strategies};
pub use detection::{Detection, FlakyRun, NightRun, detection, flaky_run, night_run};
pub use random::Random;
pub use rules::{BPS, Gwei, Market, PPM, Rules};
pub use simulation::{Simulation, simulate};
pub use sweeps::{FlakyPoint, Sweep, SweepPoint, flaky_limits, sweeps};
pub use world::{Outcome, Outsider, Party, Setting, Tally, run};

#[cfg(test)]
mod tests;
