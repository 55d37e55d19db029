//! What an operator may tune, and what the network agrees on.
//!
//! In:     values from configuration.
//! Out:    one checked struct.
//! Touches: nothing.
//! Holds:  the timeouts stand in the order the protocol needs; retention covers what peers ask for.
//! Absent: reading files (`bin`).

use crate::{Digest, StateKey, StateValue, ValidatorSet};
use commonware_consensus::types::{Epoch, EpochInfo, Epocher, FixedEpocher, Height};
use std::{num::NonZeroU64, sync::Arc, time::Duration};

/// How a validator runs. Timings may differ between validators; a wrong one costs speed, never safety.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Time between blocks: a proposer waits until this long after the parent's time.
    pub pacing: Duration,
    /// How long to wait for a leader's proposal.
    pub leader_timeout: Duration,
    /// How long to wait for a view to make progress before skipping it.
    pub certification_timeout: Duration,
    /// How often to repeat a vote to skip while stuck.
    pub retry: Duration,
    /// After how long of silence a leader's views are skipped at once.
    pub skip_after: Duration,
    /// How long to wait for an answer from one peer before asking another.
    pub fetch_timeout: Duration,
    /// The most bytes of transactions a proposal carries.
    pub proposal_bytes_max: usize,
    /// Blocks kept for peers that catch up and for the RPC.
    pub retained_blocks: usize,
    /// Blocks between prunings.
    pub prune_every: usize,
    /// Bytes of each read and write buffer.
    pub buffer_bytes: usize,
    /// Pages of 8 KiB cached for reads.
    pub cached_pages: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            pacing: Duration::from_millis(250),
            leader_timeout: Duration::from_secs(1),
            certification_timeout: Duration::from_secs(2),
            retry: Duration::from_millis(500),
            skip_after: Duration::from_secs(5),
            fetch_timeout: Duration::from_secs(2),
            proposal_bytes_max: 1 << 20,
            retained_blocks: 100_000,
            prune_every: 64,
            buffer_bytes: 1 << 20,
            cached_pages: 2_048,
        }
    }
}

/// Why settings cannot work.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SettingsError {
    /// A proposal arrives only after the pacing has passed.
    #[error("leader_timeout must be longer than pacing")]
    LeaderTimeout,
    /// Certification follows the proposal.
    #[error("certification_timeout must be longer than leader_timeout")]
    CertificationTimeout,
    /// Silence is judged over more than one attempt.
    #[error("skip_after must be longer than certification_timeout and retry")]
    SkipAfter,
    /// Nothing may be zero.
    #[error("{0} must not be zero")]
    Zero(&'static str),
    /// Peers would refuse the block.
    #[error("proposal_bytes_max is above what a block may hold")]
    ProposalBytes,
    /// Peers that sync state need recent blocks.
    #[error("retained_blocks must be at least {min}")]
    Retained {
        /// The least that works.
        min: usize,
    },
}

/// State sync targets a block this far back at most; its block must still be there.
pub(crate) const STATE_RETAINED_BLOCKS: usize = 64;

impl Settings {
    /// Checks the values against each other.
    pub fn check(&self) -> Result<(), SettingsError> {
        for (name, zero) in [
            ("retry", self.retry.is_zero()),
            ("fetch_timeout", self.fetch_timeout.is_zero()),
            ("prune_every", self.prune_every == 0),
            ("buffer_bytes", self.buffer_bytes == 0),
            ("cached_pages", self.cached_pages == 0),
        ] {
            if zero {
                return Err(SettingsError::Zero(name));
            }
        }
        if self.leader_timeout <= self.pacing {
            return Err(SettingsError::LeaderTimeout);
        }
        if self.certification_timeout <= self.leader_timeout {
            return Err(SettingsError::CertificationTimeout);
        }
        if self.skip_after <= self.certification_timeout || self.skip_after <= self.retry {
            return Err(SettingsError::SkipAfter);
        }
        if self.proposal_bytes_max > crate::BODY_BYTES_MAX {
            return Err(SettingsError::ProposalBytes);
        }
        if self.retained_blocks < STATE_RETAINED_BLOCKS {
            return Err(SettingsError::Retained { min: STATE_RETAINED_BLOCKS });
        }
        Ok(())
    }
}

/// What every validator of one chain agrees on before its first block.
#[derive(Clone, Debug)]
pub struct Chain {
    /// Digest of the genesis document: the parent of block 0.
    pub document: Digest,
    /// The namespace votes are signed under; unlike that of any other chain, and of this one before a re-genesis.
    pub namespace: Vec<u8>,
    /// Block 0's time.
    pub timestamp_ms: u64,
    /// Blocks per epoch.
    pub epoch_blocks: u64,
    /// The number of its genesis block: zero, or where an epoch begins, if the chain goes on from another's state.
    pub first: u64,
    /// Who votes in the first epoch.
    pub validators: ValidatorSet,
    /// What the first block lays into the empty state, sorted by key, each key once.
    pub writes: Arc<Vec<(StateKey, StateValue)>>,
}

/// The fewest blocks an epoch may have: its validators must be able to finalise its end in peace.
pub const EPOCH_BLOCKS_MIN: u64 = 4;

/// Why a chain cannot begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChainError {
    /// Too short to hand over.
    #[error("an epoch has at least {EPOCH_BLOCKS_MIN} blocks")]
    EpochBlocks,
    /// A chain begins with an epoch, and the first set is that epoch's.
    #[error("the genesis must begin an epoch, and its validators be those of that epoch")]
    Epoch,
    /// Every validator must write the same operations in the same order.
    #[error("genesis writes must be sorted by key, each key once")]
    Order,
    /// A value longer than the state holds.
    #[error("genesis value {0} is too long")]
    Value(usize),
}

impl Chain {
    /// Checks that a chain can begin so.
    pub fn check(&self) -> Result<(), ChainError> {
        if self.epoch_blocks < EPOCH_BLOCKS_MIN {
            return Err(ChainError::EpochBlocks);
        }
        if !self.first.is_multiple_of(self.epoch_blocks) || self.validators.epoch() != self.first_epoch() {
            return Err(ChainError::Epoch);
        }
        if !self.writes.windows(2).all(|pair| pair[0].0 < pair[1].0) {
            return Err(ChainError::Order);
        }
        if let Some(index) =
            self.writes.iter().position(|(_, value)| value.len() > crate::cell::VALUE_BYTES_MAX)
        {
            return Err(ChainError::Value(index));
        }
        Ok(())
    }

    /// The epoch it begins with.
    pub fn first_epoch(&self) -> u64 {
        self.epoch_of(self.first)
    }

    /// How far a block is from the genesis: what consensus counts. None for a block before it.
    pub(crate) fn height_of(&self, number: u64) -> Option<Height> {
        number.checked_sub(self.first).map(Height::new)
    }

    /// The number of the block so far from the genesis.
    pub(crate) fn number_of(&self, height: Height) -> u64 {
        self.first.saturating_add(height.get())
    }

    /// Which heights belong to which epoch.
    pub(crate) fn epocher(&self) -> ChainEpocher {
        let blocks = NonZeroU64::new(self.epoch_blocks).expect("checked");
        ChainEpocher { first_epoch: self.first_epoch(), heights: FixedEpocher::new(blocks) }
    }

    /// The epoch of a block.
    pub fn epoch_of(&self, number: u64) -> u64 {
        number / self.epoch_blocks
    }

    /// Whether a block is its epoch's last.
    pub fn is_last(&self, number: u64) -> bool {
        number % self.epoch_blocks == self.epoch_blocks - 1
    }
}

/// Epochs of one length, of which the first need not be zero; heights begin at zero always.
#[derive(Clone, Debug)]
pub(crate) struct ChainEpocher {
    first_epoch: u64,
    heights: FixedEpocher,
}

impl ChainEpocher {
    /// How many epochs after the first.
    fn since_first(&self, epoch: Epoch) -> Option<Epoch> {
        epoch.get().checked_sub(self.first_epoch).map(Epoch::new)
    }
}

impl Epocher for ChainEpocher {
    fn containing(&self, height: Height) -> Option<EpochInfo> {
        let info = self.heights.containing(height)?;
        let epoch = Epoch::new(info.epoch().get().checked_add(self.first_epoch)?);
        Some(EpochInfo::new(epoch, height, info.first(), info.last()))
    }

    fn first(&self, epoch: Epoch) -> Option<Height> {
        self.heights.first(self.since_first(epoch)?)
    }

    fn last(&self, epoch: Epoch) -> Option<Height> {
        self.heights.last(self.since_first(epoch)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chain_that_goes_on_counts_epochs_on_and_heights_anew() {
        let chain = Chain {
            document: Digest::from([0; 32]),
            namespace: vec![],
            timestamp_ms: 0,
            epoch_blocks: 10,
            first: 40,
            validators: crate::validators::tests::set(4, 1),
            writes: Arc::default(),
        };
        assert_eq!(chain.check(), Ok(()));
        let check = |change: fn(&mut Chain)| {
            let mut chain = chain.clone();
            change(&mut chain);
            assert_eq!(chain.check(), Err(ChainError::Epoch));
        };
        check(|chain| chain.first = 41);
        check(|chain| chain.first = 50);
        assert_eq!((chain.height_of(39), chain.height_of(45)), (None, Some(Height::new(5))));
        assert_eq!(chain.number_of(Height::new(5)), 45);
        let epocher = chain.epocher();
        for number in 40..90 {
            let info = epocher.containing(chain.height_of(number).unwrap()).unwrap();
            assert_eq!(info.epoch().get(), chain.epoch_of(number));
            assert_eq!(info.last() == info.height(), chain.is_last(number));
            assert_eq!(Some(info.first()), epocher.first(info.epoch()));
            assert_eq!(Some(info.last()), epocher.last(info.epoch()));
        }
        assert_eq!((epocher.first(Epoch::new(3)), epocher.last(Epoch::new(3))), (None, None));
    }

    #[test]
    fn defaults_hold_and_each_broken_relation_is_named() {
        let good = Settings::default();
        assert_eq!(good.check(), Ok(()));
        let check = |change: fn(&mut Settings), expected| {
            let mut settings = Settings::default();
            change(&mut settings);
            assert_eq!(settings.check(), Err(expected));
        };
        check(|s| s.leader_timeout = s.pacing, SettingsError::LeaderTimeout);
        check(|s| s.certification_timeout = s.leader_timeout, SettingsError::CertificationTimeout);
        check(|s| s.skip_after = s.certification_timeout, SettingsError::SkipAfter);
        check(|s| s.retry = Duration::ZERO, SettingsError::Zero("retry"));
        check(|s| s.proposal_bytes_max = crate::BODY_BYTES_MAX + 1, SettingsError::ProposalBytes);
        check(|s| s.retained_blocks = 3, SettingsError::Retained { min: STATE_RETAINED_BLOCKS });
    }
}
