//! Receipts: the root of each operator's log of receipts, epoch by epoch.
//!
//! In:     roots of finished epochs, posted by their operators.
//! Out:    what binds an operator to the receipts it settled; whether a receipt is among them.
//! Touches: its own storage.
//! Holds:  a root once posted never changes; none is posted before its epoch is over or long after.
//! Absent: the receipts themselves, which operators keep and show on demand.

mod log;

use alloy_primitives::Address;
use alloy_sol_types::SolCall as _;
use surety_types::abi::{IReceipts, address::RECEIPTS};

use super::{Call, audits, decode, operators, takes_no_value};
use crate::host::{GAS_HASH, GAS_HASH_WORD, Host, Outcome, Slot, checked, require};

pub use log::{inclusion_path, leaf_hash, root_of, verify_inclusion};

mod tag {
    /// Of an operator and an epoch: root, then size and height.
    pub(super) const LOG: u8 = 1;
    /// Of an operator: last epoch, number of epochs.
    pub(super) const POSTED: u8 = 2;
}

/// Leaves of one log.
const LOG_LEAVES_MAX: u64 = 1 << 48;

fn log_slot(operator: Address, epoch: u64) -> Slot {
    Slot::new(RECEIPTS, tag::LOG, &[operator.as_slice(), &epoch.to_be_bytes()])
}

fn posted_slot(operator: Address) -> Slot {
    Slot::new(RECEIPTS, tag::POSTED, &[operator.as_slice()])
}

pub(crate) fn log_of(host: &mut dyn Host, operator: Address, epoch: u64) -> Outcome<IReceipts::LogRoot> {
    let at = log_slot(operator, epoch);
    let root = host.load_word(at)?;
    let [_, _, size, height] = host.load_quarters(at.after(1))?;
    Ok(IReceipts::LogRoot { root, size, height })
}

pub(super) fn call(host: &mut dyn Host, call: &Call<'_>) -> Outcome<Vec<u8>> {
    use IReceipts::IReceiptsCalls as Calls;
    takes_no_value(call)?;
    match decode::<Calls>(call)? {
        Calls::post(post) => {
            let operator = call.caller;
            operators::require_registered(host, operator)?;
            require(post.size <= LOG_LEAVES_MAX, "the log is too large")?;
            let now = host.surroundings().epoch;
            require(post.epoch < now, "the epoch is not over")?;
            require(now - post.epoch <= host.params().receipts_epochs_max, "the epoch is over for too long")?;
            require(log_of(host, operator, post.epoch)?.height == 0, "the root of that epoch was posted")?;
            let at = log_slot(operator, post.epoch);
            let height = host.surroundings().number;
            host.store_word(at, post.root)?;
            host.store_quarters(at.after(1), [0, 0, post.size, height])?;
            let [_, _, last, count] = host.load_quarters(posted_slot(operator))?;
            let count = checked(count.checked_add(1))?;
            host.store_quarters(posted_slot(operator), [0, 0, last.max(post.epoch), count])?;
            audits::note_log(host, operator, post.epoch, post.size)?;
            let event = IReceipts::Posted { operator, epoch: post.epoch, size: post.size, root: post.root };
            host.emit(RECEIPTS, &event)?;
            Ok(Vec::new())
        }
        Calls::logOf(get) => {
            Ok(IReceipts::logOfCall::abi_encode_returns(&log_of(host, get.operator, get.epoch)?))
        }
        Calls::postedBy(get) => {
            let [_, _, last_epoch, count] = host.load_quarters(posted_slot(get.operator))?;
            let posted = IReceipts::postedByReturn { lastEpoch: last_epoch, count };
            Ok(IReceipts::postedByCall::abi_encode_returns(&posted))
        }
        Calls::includes(get) => {
            host.charge((GAS_HASH + 3 * GAS_HASH_WORD) * get.path.len() as u64)?;
            let log = log_of(host, get.operator, get.epoch)?;
            require(log.height != 0, "no root of that epoch was posted")?;
            let path: Vec<[u8; 32]> = get.path.iter().map(|hash| hash.0).collect();
            let included = verify_inclusion(&log.root.0, log.size, get.index, &get.leafHash.0, &path);
            Ok(IReceipts::includesCall::abi_encode_returns(&included))
        }
    }
}

#[cfg(test)]
mod tests;
