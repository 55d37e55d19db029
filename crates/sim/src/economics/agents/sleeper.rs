//! Honest, and down for a night: what it had posted before is drawn meanwhile, and nobody discloses it.

use super::Agent;

/// Honest, and down for a while.
#[derive(Debug, Clone, Copy)]
pub struct Sleeper {
    /// The first epoch in which it is down.
    pub from: u64,
    /// For so many.
    pub epochs: u64,
}

impl Agent for Sleeper {
    fn name(&self) -> &'static str {
        "honest, down for a night"
    }

    fn is_honest(&self) -> bool {
        true
    }

    fn is_down(&self, epoch: u64) -> bool {
        (self.from..self.from + self.epochs).contains(&epoch)
    }
}
