//! Checks: what must hold in every step of a run, whoever takes part.
//!
//! In:     books, tallies.
//! Out:    nothing, or which invariant broke and when; with the seed that shows it again.
//! Touches: nothing.

use super::{Books, Gwei, Tally};

/// An invariant, and how it broke.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Invariant {
    /// Money appeared or vanished.
    #[error("there were {opened_with} gwei and now there are {now}")]
    Conserved {
        /// At the beginning.
        opened_with: Gwei,
        /// Now.
        now: Gwei,
    },
    /// An honest party lost stake for something other than its own failures.
    #[error("honest operator {operator} lost {lost} gwei of stake, and its own failures cost {own}")]
    HonestKeeps {
        /// Which.
        operator: usize,
        /// Of its stake.
        lost: Gwei,
        /// What compensation and the rule of bad memory allow.
        own: Gwei,
    },
    /// A defence cost an honest party more than it was repaid.
    #[error("honest operator {operator} spent {spent} gwei on disputes that it won, and was repaid {repaid}")]
    DefencePaid {
        /// Which.
        operator: usize,
        /// Gas and traces.
        spent: Gwei,
        /// By those who accused it.
        repaid: Gwei,
    },
    /// Pay was taken from an honest party that had missed no draw.
    #[error("honest operator {operator} missed nothing, and {forfeited} gwei of its pay were taken")]
    Forfeited {
        /// Which.
        operator: usize,
        /// Of its pay.
        forfeited: Gwei,
    },
    /// A fault that its operator had reported was punished like a lie.
    #[error("honest operator {operator} was convicted {convicted} times as a liar")]
    MemoryRule {
        /// Which.
        operator: usize,
        /// Convictions beyond the rule.
        convicted: u64,
    },
}

/// A run that broke an invariant.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("seed {seed}, epoch {epoch}: {broken}")]
pub struct Violation {
    /// Shows it again.
    pub seed: u64,
    /// When.
    pub epoch: u64,
    /// What.
    pub broken: Invariant,
}

/// Money is conserved.
pub(super) fn conserved(books: &Books) -> Result<(), Invariant> {
    let (opened_with, now) = books.conserved();
    if opened_with == now { Ok(()) } else { Err(Invariant::Conserved { opened_with, now }) }
}

/// An honest party keeps its stake, but for its own failures.
pub(super) fn honest_keeps(operator: usize, bond_now: Gwei, tally: &Tally) -> Result<(), Invariant> {
    let lost = (tally.bonded + tally.topped_up).saturating_sub(bond_now + tally.unbonded);
    let own = tally.compensated + tally.memory_penalties;
    if tally.lies > 0 {
        return Err(Invariant::MemoryRule { operator, convicted: tally.lies });
    }
    if lost > own {
        return Err(Invariant::HonestKeeps { operator, lost, own });
    }
    if tally.missed == 0 && tally.forfeited > 0 {
        return Err(Invariant::Forfeited { operator, forfeited: tally.forfeited });
    }
    if tally.defence_spent > tally.defence_repaid {
        let (spent, repaid) = (tally.defence_spent, tally.defence_repaid);
        return Err(Invariant::DefencePaid { operator, spent, repaid });
    }
    Ok(())
}
