//! Who validates an epoch, and what version they are to run.

use alloy_primitives::{Address, B256, U256};
use serde::{Deserialize, Serialize};
use surety_types::PublicKey;

use sha2::{Digest as _, Sha256};

/// The validators of one epoch, by increasing key. A member's index is its place here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ValidatorSet {
    /// Whose.
    pub epoch: u64,
    /// By increasing key, each key once.
    pub members: Vec<Validator>,
}

/// A member of a validator set. Each has one vote.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Validator {
    /// It votes with this.
    pub key: PublicKey,
    /// Who answers for it and is paid.
    pub operator: Address,
    /// Bonded to the operator when the set was made, in wei.
    pub stake: U256,
}

impl ValidatorSet {
    /// SHA-256 of "surety validator set v1" ‖ epoch (8 bytes) ‖ each member's key (32), operator (20), stake (32).
    pub fn digest(&self) -> B256 {
        let mut hasher = Sha256::new();
        hasher.update(b"surety validator set v1");
        hasher.update(self.epoch.to_be_bytes());
        for member in &self.members {
            hasher.update(member.key.0);
            hasher.update(member.operator);
            hasher.update(member.stake.to_be_bytes::<32>());
        }
        B256::from(<[u8; 32]>::from(hasher.finalize()))
    }

    /// The place of a key.
    pub fn index_of(&self, key: &PublicKey) -> Option<usize> {
        self.members.binary_search_by(|member| member.key.cmp(key)).ok()
    }
}

/// A version that validators run from a height on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UpgradePlan {
    /// The first block of the new version.
    pub height: u64,
    /// As the software calls itself.
    pub version: String,
    /// Of its source.
    pub source_revision: B256,
    /// SHA-256 of the binaries that may run it; empty if any build of the source may.
    pub binary_hashes: Vec<B256>,
}

/// Why software may not execute a block.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UpgradeNeeded {
    /// Too old, or too new for what is scheduled.
    #[error("from block {height} on the network runs version {planned}; this is {running}")]
    Version {
        /// The first block of the planned version.
        height: u64,
        /// What is planned.
        planned: String,
        /// What runs.
        running: String,
    },
    /// The right version, another build.
    #[error("from block {height} on the network runs version {planned}; this binary is none of its builds")]
    Binary {
        /// The first block of the planned version.
        height: u64,
        /// What is planned.
        planned: String,
    },
}

impl UpgradePlan {
    /// Whether software of this version and binary may execute block `number`. Below the height anything may.
    pub fn check(&self, number: u64, version: &str, binary: Option<&B256>) -> Result<(), UpgradeNeeded> {
        if number < self.height {
            return Ok(());
        }
        if self.version != version {
            return Err(UpgradeNeeded::Version {
                height: self.height,
                planned: self.version.clone(),
                running: version.to_owned(),
            });
        }
        let known = |binary: &B256| self.binary_hashes.contains(binary);
        if !self.binary_hashes.is_empty() && !binary.is_some_and(known) {
            return Err(UpgradeNeeded::Binary { height: self.height, planned: self.version.clone() });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_upgrade_stops_what_it_does_not_name() {
        let build = B256::repeat_byte(1);
        let mut plan = UpgradePlan {
            height: 10,
            version: "2.0.0".into(),
            source_revision: B256::ZERO,
            binary_hashes: vec![build],
        };
        assert_eq!(plan.check(9, "1.0.0", None), Ok(()));
        assert!(matches!(plan.check(10, "1.0.0", Some(&build)), Err(UpgradeNeeded::Version { .. })));
        assert!(matches!(plan.check(10, "2.0.0", Some(&B256::ZERO)), Err(UpgradeNeeded::Binary { .. })));
        assert!(matches!(plan.check(10, "2.0.0", None), Err(UpgradeNeeded::Binary { .. })));
        assert_eq!(plan.check(11, "2.0.0", Some(&build)), Ok(()));
        plan.binary_hashes.clear();
        assert_eq!(plan.check(11, "2.0.0", None), Ok(()));
    }
}
