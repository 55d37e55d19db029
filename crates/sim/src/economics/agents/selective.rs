//! Selective auditor: computes what is paid better than it costs, and skips the rest.

use super::{Agent, AuditAct, AuditSight, Random};

/// Serves honestly; as an auditor it does only what pays.
#[derive(Debug, Clone, Copy)]
pub struct Selective;

impl Agent for Selective {
    fn name(&self) -> &'static str {
        "selective auditor"
    }

    fn audit(&mut self, sight: &AuditSight, _random: &mut Random) -> AuditAct {
        if sight.pay < sight.cost { AuditAct::Skips } else { AuditAct::Computes }
    }
}
