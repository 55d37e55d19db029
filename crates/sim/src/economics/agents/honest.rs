//! Honest, on a machine that never fails.

use super::Agent;

/// Does what the protocol says.
#[derive(Debug, Clone, Copy)]
pub struct Honest;

impl Agent for Honest {
    fn name(&self) -> &'static str {
        "honest"
    }

    fn is_honest(&self) -> bool {
        true
    }
}
