//! Terms: what logs can be found by, in eight bytes each.
//!
//! A term may stand for two things by accident; whoever finds a block by its terms still looks at its logs.

use alloy_primitives::{Address, B256, Log, keccak256};

/// That a block has logs at all.
pub(super) const ANY_LOG: u64 = 0;

pub(super) fn address(address: &Address) -> u64 {
    let mut bytes = [0; 21];
    bytes[1..].copy_from_slice(address.as_slice());
    shorten(&bytes)
}

pub(super) fn topic(position: usize, topic: &B256) -> u64 {
    let mut bytes = [0; 33];
    // A log has four topics at most.
    bytes[0] = 1 + u8::try_from(position).unwrap_or(u8::MAX - 1);
    bytes[1..].copy_from_slice(topic.as_slice());
    shorten(&bytes)
}

/// The terms under which a log's block is found.
pub(super) fn of(log: &Log) -> impl Iterator<Item = u64> {
    let topics = log.topics().iter().enumerate().map(|(position, value)| topic(position, value));
    [ANY_LOG, address(&log.address)].into_iter().chain(topics)
}

fn shorten(bytes: &[u8]) -> u64 {
    let digest = keccak256(bytes);
    // Zero is taken.
    digest.iter().take(8).fold(0, |term, byte| term << 8 | u64::from(*byte)).max(1)
}
