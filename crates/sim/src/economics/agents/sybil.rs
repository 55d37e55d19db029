//! Sybil: one owner, its stake split into many operators that vouch for each other.

use super::Colluder;
use crate::economics::{Gwei, Party};

/// The operators of one owner: `bond` and `purse` split evenly among so many, each cheating in a share of its answers.
#[must_use]
pub fn sybils(owner: u32, count: u64, bond: Gwei, purse: Gwei, share_ppm: u64) -> Vec<Party> {
    let count = count.max(1);
    let part = |_| Party {
        agent: Box::new(Colluder { share_ppm }),
        owner,
        coalition: Some(owner),
        bond: bond / count,
        purse: purse / count,
    };
    (0..count).map(part).collect()
}
