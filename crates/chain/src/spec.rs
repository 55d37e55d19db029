//! What is fixed for the life of a chain, and the bounds of what a block may hold.

use serde::{Deserialize, Serialize};

/// Bytes of a state value: the longest is a contract's code (EIP-170).
pub const STATE_VALUE_BYTES_MAX: usize = 24_576;
/// Bytes of one transaction as EIP-2718 encodes it.
pub const TRANSACTION_BYTES_MAX: usize = 128 << 10;
/// Bytes of all transactions of a block.
pub const BLOCK_TRANSACTIONS_BYTES_MAX: usize = 2 << 20;
/// Leaders that missed their turn, as one block reports them; whoever proposes names the latest.
pub const MISSED_MAX: usize = 1_024;
/// Members of a validator set. The parameter `validators_max` stays within it.
pub const VALIDATORS_MAX: usize = 128;
/// Bytes of calldata a module reads.
pub const MODULE_INPUT_BYTES_MAX: usize = 64 << 10;

/// What is fixed for the life of a chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChainSpec {
    /// EIP-155.
    pub chain_id: u64,
    /// Blocks of an epoch. Block 0 is the genesis and belongs to epoch 0.
    pub epoch_blocks: u64,
}

impl ChainSpec {
    /// The epoch a block belongs to.
    pub fn epoch(&self, number: u64) -> u64 {
        number / self.epoch_blocks.max(1)
    }

    /// Whether a block is its epoch's last: the next epoch's validators are decided in it.
    pub fn is_epoch_last(&self, number: u64) -> bool {
        number.checked_add(1).is_none_or(|next| next % self.epoch_blocks.max(1) == 0)
    }

    /// What validators prefix their votes with; two chains never share it.
    pub fn vote_namespace(&self) -> Vec<u8> {
        let mut namespace = b"surety vote ".to_vec();
        namespace.extend(self.chain_id.to_be_bytes());
        namespace
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_genesis_belongs_to_the_first_epoch() {
        let spec = ChainSpec { chain_id: 1, epoch_blocks: 10 };
        assert_eq!([0, 9, 10, 19, 20].map(|number| spec.epoch(number)), [0, 0, 1, 1, 2]);
        assert_eq!(
            [0, 8, 9, 10, 19].map(|number| spec.is_epoch_last(number)),
            [false, false, true, false, true]
        );
    }
}
