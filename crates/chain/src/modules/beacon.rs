//! Beacons: what nobody could know before an epoch began, one for each epoch, kept.
//!
//! In:     the first block of an epoch. Out: what draws, for whoever draws by that epoch.
//! Touches: one slot for each epoch, among hosting's.
//! Holds:  an epoch's beacon never changes; before the epoch's first block there is none.
//! Absent: what is drawn (`hosting`, `audits`).
//!
//! Bias. An epoch's beacon is a hash of the last block of the epoch before. Whoever proposes that block can try variants of
//! it and keep the one it likes, at the price of hashing a header each, or give its turn up. Leaders take turns, so whoever
//! controls s of n validators chooses among variants in s/n of the epochs, and in the others nobody chooses.

use alloy_primitives::B256;
use surety_types::abi::address::HOSTING;

use crate::{
    execute::Header,
    host::{Host, Outcome, Slot, require},
};

/// Among the tags of hosting's storage.
const BEACON: u8 = 8;

/// Where an epoch's beacon is kept: known beforehand, so that every block loads it early.
pub(crate) fn slot(epoch: u64) -> Slot {
    Slot::new(HOSTING, BEACON, &[&epoch.to_be_bytes()])
}

/// At the beginning of a block: the first of an epoch brings the epoch's beacon.
pub(crate) fn keep(host: &mut dyn Host, header: &Header) -> Outcome<()> {
    let at = slot(header.epoch);
    if host.load(at)?.is_zero() {
        host.store_word(at, header.beacon)?;
    }
    Ok(())
}

/// An epoch's beacon. Between an epoch's last block and the next there is none.
pub(crate) fn of(host: &mut dyn Host, epoch: u64) -> Outcome<B256> {
    let beacon = host.load_word(slot(epoch))?;
    require(!beacon.is_zero(), "the beacon of this epoch is not known yet")?;
    Ok(beacon)
}
