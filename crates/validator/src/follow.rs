//! What a finalised block means for the indexes and the pool.
//!
//! In:     a block, what executing it yielded, the parameters it was executed under.
//! Out:    what is kept of it; what the state now says of the senders that wait.

use alloy_primitives::{Address, B256, Bytes};
use surety_chain::{AccountState, CorruptValue, Executed, Params, StateKey};

use crate::{
    indexes::{IndexedBlock, IndexedHeader, IndexedReceipt, IndexedTransaction},
    mempool::Account,
};

/// What a block says of itself.
#[derive(Debug, Clone, Default)]
pub struct Facts {
    /// Its height.
    pub number: u64,
    /// Its digest.
    pub hash: B256,
    /// The digest of the block before.
    pub parent_hash: B256,
    /// Milliseconds since 1970.
    pub timestamp_ms: u64,
    /// The epoch it belongs to.
    pub epoch: u64,
    /// The view it was proposed in.
    pub view: u64,
    /// The account that is paid for it.
    pub proposer: Address,
    /// The validator key that proposed it.
    pub proposer_key: B256,
    /// The randomness that contracts saw.
    pub beacon: B256,
    /// The root of the state after it.
    pub state_root: B256,
    /// Bytes of the block.
    pub bytes: u64,
    /// The header, as it is hashed.
    pub encoded: Bytes,
    /// The certificate that made it final; empty if that was a later block's.
    pub certificate: Bytes,
}

/// What is kept of a block.
///
/// `transactions`: their EIP-2718 bytes, in order; `executed` has a receipt for each.
pub fn indexed(facts: Facts, transactions: &[Bytes], executed: &Executed, params: &Params) -> IndexedBlock {
    assert_eq!(transactions.len(), executed.receipts.len(), "every transaction has a receipt");
    let mut log_index_first = 0;
    let mut kept = Vec::with_capacity(transactions.len());
    for (encoded, receipt) in transactions.iter().zip(&executed.receipts) {
        let logs = receipt.envelope.logs().to_vec();
        let log_count = logs.len() as u64;
        let body = IndexedTransaction { sender: receipt.sender, encoded: encoded.clone() };
        let done = IndexedReceipt {
            success: receipt.envelope.status(),
            gas_used: receipt.gas_used,
            cumulative_gas_used: receipt.envelope.cumulative_gas_used(),
            log_index_first,
            logs,
            contract: receipt.contract,
        };
        log_index_first += log_count;
        kept.push((body, done));
    }
    let header = IndexedHeader {
        number: facts.number,
        hash: facts.hash,
        parent_hash: facts.parent_hash,
        timestamp_ms: facts.timestamp_ms,
        epoch: facts.epoch,
        view: facts.view,
        proposer: facts.proposer,
        proposer_key: facts.proposer_key,
        beacon: facts.beacon,
        state_root: facts.state_root,
        transactions_root: executed.transactions_root,
        receipts_root: executed.receipts_root,
        gas_used: executed.gas_used,
        gas_limit: params.block_gas_max,
        base_fee: params.minimum_gas_price,
        transactions: transactions.len() as u64,
        bytes: facts.bytes,
        encoded: facts.encoded,
    };
    IndexedBlock { header, certificate: facts.certificate, transactions: kept }
}

/// What a block's writes say of these senders; those it did not touch are left out.
pub fn touched(
    executed: &Executed,
    senders: impl IntoIterator<Item = Address>,
) -> Result<Vec<(Address, Account)>, CorruptValue> {
    let mut touched = Vec::new();
    for sender in senders {
        let key = StateKey::account(&sender);
        let Ok(index) = executed.writes.binary_search_by_key(&key, |(key, _)| *key) else { continue };
        let account = match &executed.writes[index].1 {
            Some(value) => AccountState::decode(value)?,
            None => AccountState::default(),
        };
        touched.push((sender, Account { nonce: account.nonce, balance: account.balance }));
    }
    Ok(touched)
}
