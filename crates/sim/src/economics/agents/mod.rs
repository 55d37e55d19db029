//! Agents: how a party behaves, one file each.
//!
//! In:     what a party sees when it has to decide. Out: what it does. Touches: its own state.
//! Absent: what comes of it (`world`).

mod cheater;
mod colluder;
mod copier;
mod extorter;
mod flaky;
mod honest;
mod lazy;
mod scammer;
mod selective;
mod sleeper;
mod sybil;

pub use cheater::{Cheater, OnDraw, best_share};
pub use colluder::Colluder;
pub use copier::Copier;
pub use extorter::Extorter;
pub use flaky::Flaky;
pub use honest::Honest;
pub use lazy::Lazy;
pub use scammer::Scammer;
pub use selective::Selective;
pub use sleeper::Sleeper;
pub use sybil::sybils;

use super::{Gwei, Random};

/// What a worker sees of a job.
#[derive(Debug, Clone, Copy)]
pub struct Sight {
    /// Now.
    pub epoch: u64,
    /// The last epoch in which anything is asked for.
    pub last_epoch: u64,
    /// What the answer will cost.
    pub price: Gwei,
}

/// What a worker gives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Served {
    /// The model's answer.
    Right,
    /// A cheaper model's, under the model's name.
    Wrong,
    /// The model's, computed with a flipped bit; nobody knows.
    Faulty,
    /// No receipt by the deadline: a restart, or a link too slow.
    Nothing,
}

/// What a worker does about a receipt that was drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Disclosure {
    /// Shows it.
    Shows,
    /// Computes it again, and shows it; if it is false, reports it before, or does not show it if it may report none.
    Checks,
    /// Does not show it.
    Withholds,
    /// Shows it, and gives its auditors nothing to compute it from.
    Starves,
}

/// What a drawn auditor sees.
#[derive(Debug, Clone, Copy)]
pub struct AuditSight {
    /// What it is paid if its result is the worker's.
    pub pay: Gwei,
    /// What computing it costs, gas included.
    pub cost: Gwei,
    /// Whether the worker is of the auditor's own coalition.
    pub friend: bool,
}

/// What a drawn auditor does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AuditAct {
    /// Computes the answer, and disputes one that is false.
    Computes,
    /// Commits to a made-up digest: the right one is not to be had without the work.
    Guesses,
    /// Commits to the commitment in the receipt, which is bound to the worker's key.
    Copies,
    /// Commits to the digest that its friend, the worker, has told it.
    Vouches,
    /// Does nothing.
    Skips,
}

/// What must be done within a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// A step of an audit.
    Audit,
    /// A move of a dispute.
    Move,
    /// The answer to a failure claim.
    Claim,
}

/// A party with a worker. Whoever changes nothing is honest, and its machine never fails.
pub trait Agent {
    /// As tables call it.
    fn name(&self) -> &'static str;
    /// Whether it does what the protocol says, as well as its machine lets it.
    fn is_honest(&self) -> bool {
        false
    }
    /// What it gives for an order that it has accepted.
    fn serve(&mut self, _sight: &Sight, _random: &mut Random) -> Served {
        Served::Right
    }
    /// What it does about a receipt that was drawn; `false_known` if it gave a wrong answer on purpose.
    fn disclose(&mut self, _false_known: bool) -> Disclosure {
        Disclosure::Shows
    }
    /// What it does as a drawn auditor.
    fn audit(&mut self, _sight: &AuditSight, _random: &mut Random) -> AuditAct {
        AuditAct::Computes
    }
    /// Whether it does in time what may take so many seconds.
    fn in_time(&mut self, _step: Step, _seconds: u64, _random: &mut Random) -> bool {
        true
    }
    /// Whether it is down: nothing is asked of it, and it does nothing.
    fn is_down(&self, _epoch: u64) -> bool {
        false
    }
    /// Whether it bonds more when it has too little to serve.
    fn tops_up(&self) -> bool {
        true
    }
    /// Whether it leaves at the end of this epoch.
    fn leaves(&self, _epoch: u64, _last_epoch: u64) -> bool {
        false
    }
}
