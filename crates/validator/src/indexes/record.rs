//! What is kept of a finalised block, and how it is written.
//!
//! Rows are RLP; they are read by this program only, and a row that does not decode is an error, not a panic.

use alloy_primitives::{Address, B256, Bloom, Bytes, Log, keccak256};
use alloy_rlp::{Decodable, Encodable, RlpDecodable, RlpEncodable};

/// A block's header.
#[derive(Debug, Clone, PartialEq, Eq, Default, RlpEncodable, RlpDecodable)]
pub struct IndexedHeader {
    /// Its height.
    pub number: u64,
    /// The digest that validators voted on.
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
    /// The randomness that contracts see.
    pub beacon: B256,
    /// The root of the state after it.
    pub state_root: B256,
    /// The root of its transactions.
    pub transactions_root: B256,
    /// The root of their receipts.
    pub receipts_root: B256,
    /// Gas that its transactions used.
    pub gas_used: u64,
    /// Gas that they may use.
    pub gas_limit: u64,
    /// The least price of a unit of gas, in wei.
    pub base_fee: u64,
    /// How many transactions it has.
    pub transactions: u64,
    /// Bytes of the block, as it travels.
    pub bytes: u64,
    /// The header as it is hashed, for whoever checks certificates and state proofs.
    pub encoded: Bytes,
}

/// A transaction in a block.
#[derive(Debug, Clone, PartialEq, Eq, RlpEncodable, RlpDecodable)]
pub struct IndexedTransaction {
    /// Who signed it.
    pub sender: Address,
    /// Its bytes (EIP-2718).
    pub encoded: Bytes,
}

impl IndexedTransaction {
    /// Its hash.
    pub fn hash(&self) -> B256 {
        keccak256(&self.encoded)
    }
}

/// What a transaction did.
#[derive(Debug, Clone, PartialEq, Eq, RlpEncodable, RlpDecodable)]
#[rlp(trailing)]
pub struct IndexedReceipt {
    /// Whether it ran to its end; otherwise only its fee was taken.
    pub success: bool,
    /// Gas that it used.
    pub gas_used: u64,
    /// Gas that it and those before it in the block used.
    pub cumulative_gas_used: u64,
    /// The place of its first log among the block's.
    pub log_index_first: u64,
    /// Its logs.
    pub logs: Vec<Log>,
    /// The contract that it created.
    pub contract: Option<Address>,
}

/// A finalised block, whole.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct IndexedBlock {
    /// Its header.
    pub header: IndexedHeader,
    /// The certificate that made it final, as `consensus` writes it.
    pub certificate: Bytes,
    /// Its transactions and what they did.
    pub transactions: Vec<(IndexedTransaction, IndexedReceipt)>,
}

impl IndexedBlock {
    /// Every log of the block.
    pub fn logs(&self) -> impl Iterator<Item = &Log> {
        self.transactions.iter().flat_map(|(_, receipt)| &receipt.logs)
    }
}

/// The bloom filter of a block's logs.
pub fn bloom<'a>(receipts: impl IntoIterator<Item = &'a IndexedReceipt>) -> Bloom {
    receipts.into_iter().flat_map(|receipt| &receipt.logs).collect()
}

pub(super) fn encode(value: &impl Encodable) -> Vec<u8> {
    alloy_rlp::encode(value)
}

/// The value that a row holds; its whole.
pub(super) fn decode<T: Decodable>(row: &[u8]) -> Option<T> {
    alloy_rlp::decode_exact(row).ok()
}
