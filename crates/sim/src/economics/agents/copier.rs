//! Copying auditor: hands in what others have committed to.

use super::{Agent, AuditAct, AuditSight, Random};

/// Serves honestly; as an auditor it copies the commitment in the receipt.
#[derive(Debug, Clone, Copy)]
pub struct Copier;

impl Agent for Copier {
    fn name(&self) -> &'static str {
        "copying auditor"
    }

    fn audit(&mut self, _sight: &AuditSight, _random: &mut Random) -> AuditAct {
        AuditAct::Copies
    }
}
