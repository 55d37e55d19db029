//! Exit scammer: honest until its rate of audits is low, then it cheats in everything and leaves.

use super::{Agent, Random, Served, Sight};

/// Farms a standing, and spends it.
#[derive(Debug, Clone, Copy)]
pub struct Scammer {
    /// Epochs before the end in which every answer is wrong.
    pub epochs: u64,
}

impl Agent for Scammer {
    fn name(&self) -> &'static str {
        "exit scammer"
    }

    fn serve(&mut self, sight: &Sight, _random: &mut Random) -> Served {
        if sight.epoch + self.epochs > sight.last_epoch { Served::Wrong } else { Served::Right }
    }

    fn leaves(&self, epoch: u64, last_epoch: u64) -> bool {
        epoch == last_epoch
    }
}
