//! Whether hosting a model pays: what a pin earns in an epoch, and what its proof costs.
//!
//! In:     a model's pool and files, the ledger's parameters, how many pin it.
//! Out:    whether to pin, and whether to go on.
//! Touches: nothing.
//! Holds:  what was just pinned for its pay is not given up for it at once: pinning asks for twice what keeping asks for.
//! Absent: the disk, the ledger.

use alloy_primitives::U256;
use surety_chain::Params;
use surety_proof::opening::{CHUNK_BYTES, chunk_count};
use surety_types::abi::IHosting::File;

/// For what a worker pins models.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum HostingPolicy {
    /// For pay alone: where what a pin earns in an epoch is more than its proof costs.
    #[default]
    Paid,
    /// Also for nothing, where fewer pin a model than the ledger wants.
    Wanted,
    /// Never; what is pinned is taken back.
    Off,
}

/// A transaction, before its calldata.
const TRANSACTION_GAS: u64 = 21_000;
/// A byte of calldata that is not zero (EIP-7623).
const BYTE_GAS: u64 = 40;
/// Calldata of a proof without openings: selector, four words, and the list's length.
const PROOF_BYTES: u64 = 4 + 5 * 32;
/// Words of an opening without its bytes and values: where it begins, where its parts do, and how long they are.
const OPENING_BYTES: u64 = 5 * 32;
/// So many times the cost is asked for before something is pinned: it pays for pinning too, and bears a change.
const MARGIN: u64 = 2;

/// What a pin of a model comes to in an epoch.
#[derive(Debug, Clone, Copy)]
pub(super) struct Deal {
    policy: HostingPolicy,
    /// Of each of the first so many pins that are proven, in wei.
    pub(super) part: U256,
    /// Of a proof, in wei, at the least price of gas.
    pub(super) cost: U256,
    /// So many are wanted, and paid.
    pub(super) wanted: u64,
}

impl Deal {
    pub(super) fn new(policy: HostingPolicy, pool: U256, files: &[File], params: &Params) -> Deal {
        let wanted = params.hosting_replicas.max(1);
        let share = pool.saturating_mul(U256::from(params.hosting_payout_ppm)) / U256::from(1_000_000);
        let gas = proof_gas(files, params.hosting_chunks);
        let cost = U256::from(gas).saturating_mul(U256::from(params.minimum_gas_price));
        Deal { policy, part: share / U256::from(wanted), cost, wanted }
    }

    /// What one of so many pins may expect in an epoch, if all are proven and none is always first.
    fn expected(&self, pins: u64) -> U256 {
        self.part.saturating_mul(U256::from(self.wanted.min(pins))) / U256::from(pins.max(1))
    }

    /// Whether to pin a model that so many others pin.
    pub(super) fn worth_pinning(&self, others: u64) -> bool {
        let pays = || self.expected(others.saturating_add(1)) >= self.cost.saturating_mul(U256::from(MARGIN));
        match self.policy {
            HostingPolicy::Off => false,
            HostingPolicy::Wanted => others < self.wanted || pays(),
            HostingPolicy::Paid => pays(),
        }
    }

    /// Whether to keep a pin, of so many, at this place in the ledger's list. Where there are too many for the pay, only those
    /// behind give up.
    pub(super) fn worth_keeping(&self, pins: u64, place: u64) -> bool {
        let within = place < self.wanted;
        let pays = self.part >= self.cost && (within || self.expected(pins) >= self.cost);
        match self.policy {
            HostingPolicy::Off => false,
            HostingPolicy::Wanted => within || pays,
            HostingPolicy::Paid => pays,
        }
    }
}

/// Gas of a proof, at most: nearly all of it is calldata, counted here as if no byte of it were zero.
fn proof_gas(files: &[File], chunks: u64) -> u64 {
    let count = files.iter().map(|file| chunk_count(file.bytes_)).fold(0, u64::saturating_add).min(chunks);
    let depth = |file: &File| u64::from(chunk_count(file.bytes_).next_power_of_two().ilog2());
    let depth = files.iter().map(depth).max().unwrap_or(0);
    let opening = OPENING_BYTES + CHUNK_BYTES + 32 * depth;
    TRANSACTION_GAS + BYTE_GAS * (PROOF_BYTES + count.saturating_mul(opening))
}

#[cfg(test)]
mod tests {
    use alloy_primitives::B256;
    use proptest::prelude::*;

    use super::*;

    fn file(bytes: u64) -> File {
        File { digest: B256::ZERO, bytes_: bytes }
    }

    fn deal(policy: HostingPolicy, pool: u64) -> Deal {
        Deal::new(policy, U256::from(pool), &[file(16 << 20)], &Params::default())
    }

    #[test]
    fn a_proofs_gas_is_what_was_measured_or_a_little_more() {
        let bytes = |size| (proof_gas(&[file(size)], 8) - TRANSACTION_GAS) / BYTE_GAS;
        // As measured (docs/operating/hosting.md).
        assert_eq!(bytes(16 << 20), 13_220);
        assert_eq!(bytes(1 << 30), 13_220 + 6 * 256);
        assert!((508_580..560_000).contains(&proof_gas(&[file(16 << 20)], 8)));
        // No more is opened than there is.
        assert_eq!(bytes(1), PROOF_BYTES + OPENING_BYTES + CHUNK_BYTES);
    }

    #[test]
    fn what_pays_is_pinned_and_an_empty_pool_only_where_that_was_asked_for() {
        let credit = 1_000_000_000_000_000_000;
        // A third of a ten-thousandth of this is a little more than a proof costs; of twice this, twice.
        let even = 17 * credit;
        for (pool, pinned, kept) in [(0, false, false), (even / 2, false, false), (even, false, true)] {
            let deal = deal(HostingPolicy::Paid, pool);
            assert_eq!((deal.worth_pinning(0), deal.worth_keeping(1, 0)), (pinned, kept), "{pool}");
        }
        let rich = deal(HostingPolicy::Paid, u64::MAX);
        assert_eq!(rich.cost, U256::from(549_800_000_000_000_u64));
        assert!(!rich.worth_pinning(2), "18 credits pay once, not twice");
        let wanted = deal(HostingPolicy::Wanted, 0);
        assert!(wanted.worth_pinning(2) && !wanted.worth_pinning(3));
        assert!(wanted.worth_keeping(9, 2) && !wanted.worth_keeping(9, 3));
        let off = deal(HostingPolicy::Off, u64::MAX);
        assert!(!off.worth_pinning(0) && !off.worth_keeping(1, 0));
    }

    proptest! {
        #[test]
        fn what_was_pinned_is_kept(
            pool in any::<u128>(), size in 1u64..1 << 40, others in 0u64..1000, price in 1u64..1 << 40,
            wanted in any::<bool>(),
        ) {
            let policy = if wanted { HostingPolicy::Wanted } else { HostingPolicy::Paid };
            let params = Params { minimum_gas_price: price, ..Params::default() };
            let deal = Deal::new(policy, U256::from(pool), &[file(size)], &params);
            if deal.worth_pinning(others) {
                prop_assert!(deal.worth_keeping(others + 1, others));
            }
            // A pin within the number that is wanted never gives way to others.
            if deal.worth_keeping(1, 0) {
                prop_assert!(deal.worth_keeping(others.max(1), others.min(deal.wanted - 1)));
            }
        }
    }
}
