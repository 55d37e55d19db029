//! Bundles of disputes, as collected from a node that nobody trusts.
//!
//! In:     the number of a dispute.
//! Out:    its bundle: the signed moves of both sides, from blocks that two thirds of the validators signed, and what the
//!         ledger recorded, proven.
//! Touches: the network, through the ledger.
//! Holds:  a bundle is given out only if its replay says what the ledger recorded: a node that leaves a move out is passed
//!         over, and the next one is asked.
//! Absent: judging (`chain::replay`), files.

use std::collections::BTreeSet;

use alloy_consensus::transaction::SignerRecoverable as _;
use alloy_eips::eip2718::Encodable2718 as _;
use alloy_primitives::{Address, B256, Log, U256};
use alloy_sol_types::{SolCall as _, SolEvent as _};
use serde_json::json;
use surety_chain::{Params, bundled_parameters, replay};
use surety_consensus::Header;
use surety_types::{
    BUNDLE_VERSION, Bundle, BundleMove, Digest,
    abi::{IDisputes, address::DISPUTES},
    bundle::MOVES_MAX,
};

use super::{
    Inner, Ledger, LedgerError, Viewed,
    error::Fault,
    nodes::{Node, garbage},
    submit::Proven,
};

/// Events that a move of a dispute notes, each with its number as the first topic.
const MOVES: [B256; 5] = [
    IDisputes::Opened::SIGNATURE_HASH,
    IDisputes::Moved::SIGNATURE_HASH,
    IDisputes::Convicted::SIGNATURE_HASH,
    IDisputes::Dismissed::SIGNATURE_HASH,
    IDisputes::Overtaken::SIGNATURE_HASH,
];

/// What of a bundle is proven state.
pub(super) struct Known {
    id: u64,
    /// The block that the record is as of.
    number: u64,
    chain_id: u64,
    params: Params,
    pub(super) dispute: IDisputes::Dispute,
    lost_before: u64,
}

/// A move as it stands in its block.
pub(super) struct Made {
    pub(super) header: Header,
    /// Whether the block is proven.
    pub(super) proven: bool,
    pub(super) entry: Proven,
    /// Who signed it.
    pub(super) sender: Option<Address>,
}

impl Ledger {
    /// The bundle of a dispute, by which anyone judges it again (D-8).
    pub async fn dispute_bundle(&self, id: u64) -> Result<Bundle, LedgerError> {
        let Viewed { tip, value: dispute } = self.view(DISPUTES, &IDisputes::disputesCall { id }).await?;
        if dispute.state == 0 {
            return Err(LedgerError::Invalid(format!("the ledger knows no dispute {id}")));
        }
        let known = self.known_dispute(id, tip.number, dispute).await?;
        let mut round = self.0.nodes.round();
        while let Some(node) = round.next() {
            match self.0.bundle_at(node, &known).await {
                Ok(bundle) => {
                    round.answered();
                    return Ok(bundle);
                }
                Err(fault) => round.failed(fault),
            }
        }
        Err(round.exhausted())
    }

    /// What else a bundle needs to know of a dispute that was recorded so at a block.
    pub(super) async fn known_dispute(
        &self,
        id: u64,
        number: u64,
        dispute: IDisputes::Dispute,
    ) -> Result<Known, LedgerError> {
        let params = self.params().await?.value;
        let first = IDisputes::bondForCall { words: dispute.words, order: B256::ZERO, worker: B256::ZERO };
        let first = self.view(DISPUTES, &first).await?.value.bond;
        let lost_before = lost_before(dispute.bond, first);
        Ok(Known { id, number, chain_id: self.chain_id(), params, dispute, lost_before })
    }
}

impl Known {
    /// The bundle of these moves.
    pub(super) fn bundle(&self, moves: &[Made]) -> Bundle {
        let moves = moves.iter().map(|made| BundleMove {
            number: made.header.number,
            timestamp_ms: made.header.timestamp_ms,
            block: Digest(made.header.hash().0),
            transaction: made.entry.transaction.encoded_2718(),
        });
        let bundle = Bundle {
            version: BUNDLE_VERSION,
            chain_id: self.chain_id,
            id: self.id,
            lost_before: self.lost_before,
            parameters: bundled_parameters(&self.params),
            moves: moves.collect(),
            recorded: IDisputes::disputesCall::abi_encode_returns(&self.dispute),
            digest: Digest::ZERO,
        };
        bundle.sealed()
    }
}

/// Challengers that had lost before: each has doubled the bond.
fn lost_before(bond: U256, first: U256) -> u64 {
    match bond.checked_div(first) {
        Some(times) if !times.is_zero() => times.bit_len() as u64 - 1,
        _ => 0,
    }
}

impl Inner {
    async fn bundle_at(&self, node: &Node, known: &Known) -> Result<Bundle, Fault> {
        let moves = self.moves_at(node, known).await?;
        if let Some(made) = moves.iter().find(|made| !made.proven) {
            let why = format!("the validators of epoch {} are not known any more", made.header.epoch());
            return Err(garbage("surety_certificate", why));
        }
        let bundle = known.bundle(&moves);
        replay(&bundle).map_err(|why| garbage("eth_getLogs", why))?;
        Ok(bundle)
    }

    /// The moves that a node has of a dispute, as of the block of its record.
    pub(super) async fn moves_at(&self, node: &Node, known: &Known) -> Result<Vec<Made>, Fault> {
        const METHOD: &str = "eth_getLogs";
        let id = B256::from(U256::from(known.id));
        let last = format!("{:#x}", known.number);
        let filter =
            json!([{ "address": DISPUTES, "topics": [MOVES, id], "fromBlock": "earliest", "toBlock": last }]);
        let logs: Vec<alloy_rpc_types_eth::Log> = self.nodes.call(node, METHOD, filter).await?;
        let numbers: BTreeSet<u64> = logs.iter().filter_map(|log| log.block_number).collect();
        if numbers.len() > MOVES_MAX {
            return Err(garbage(METHOD, "more moves than a dispute has"));
        }
        let mut moves = Vec::new();
        for number in numbers {
            let (headed, entries) = self.kept(node, number).await?;
            let made =
                entries.into_iter().filter(|entry| entry.receipt.logs().iter().any(|log| is_move(log, &id)));
            moves.extend(made.map(|entry| Made {
                header: headed.header.clone(),
                proven: headed.proven,
                sender: entry.transaction.recover_signer().ok(),
                entry,
            }));
        }
        if moves.len() > MOVES_MAX {
            return Err(garbage(METHOD, "more moves than a dispute has"));
        }
        Ok(moves)
    }
}

fn is_move(log: &Log, id: &B256) -> bool {
    let [event, of, ..] = log.topics() else { return false };
    log.address == DISPUTES && of == id && MOVES.contains(event)
}

#[cfg(test)]
mod tests {
    use alloy_primitives::Bytes;

    use super::*;

    #[test]
    fn lost_challengers_are_counted_by_the_bond() {
        let lost = |bond: u64, first: u64| lost_before(U256::from(bond), U256::from(first));
        assert_eq!([lost(0, 7), lost(7, 7), lost(14, 7), lost(56, 7), lost(7, 0)], [0, 0, 1, 3, 0]);
    }

    #[test]
    fn only_moves_of_the_dispute_are_taken() {
        let (id, other) = (B256::with_last_byte(5), B256::with_last_byte(6));
        let log = |address, event, of| Log::new(address, vec![event, of], Bytes::new()).unwrap();
        assert!(is_move(&log(DISPUTES, IDisputes::Moved::SIGNATURE_HASH, id), &id));
        assert!(!is_move(&log(DISPUTES, IDisputes::Moved::SIGNATURE_HASH, other), &id));
        assert!(!is_move(&log(DISPUTES, IDisputes::Refunded::SIGNATURE_HASH, id), &id));
        let elsewhere = surety_types::abi::address::CLAIMS;
        assert!(!is_move(&log(elsewhere, IDisputes::Moved::SIGNATURE_HASH, id), &id));
    }
}
