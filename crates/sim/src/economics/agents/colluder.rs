//! Colluder: cheats as a worker, and vouches for its coalition as an auditor.

use super::{Agent, AuditAct, AuditSight, Random, Served, Sight};

/// One of a coalition.
#[derive(Debug, Clone, Copy)]
pub struct Colluder {
    /// Of a million answers, so many are wrong.
    pub share_ppm: u64,
}

impl Agent for Colluder {
    fn name(&self) -> &'static str {
        "colluder"
    }

    fn serve(&mut self, _sight: &Sight, random: &mut Random) -> Served {
        if random.chance(self.share_ppm) { Served::Wrong } else { Served::Right }
    }

    fn audit(&mut self, sight: &AuditSight, _random: &mut Random) -> AuditAct {
        if sight.friend { AuditAct::Vouches } else { AuditAct::Computes }
    }
}
