//! What is kept, in the shapes of Ethereum's JSON-RPC.

use alloy_consensus::{
    Receipt, ReceiptEnvelope, ReceiptWithBloom, Transaction as _, TxEnvelope, TxType, transaction::Recovered,
};
use alloy_eips::eip2718::Decodable2718;
use alloy_primitives::{B64, Bloom, Bytes, U256};
use alloy_rpc_types_eth::{Block, BlockTransactions, Header, Log, Transaction, TransactionReceipt};

use crate::{
    indexes::{FoundLog, IndexedHeader, IndexedReceipt, IndexedTransaction, Place, ReadError, bloom},
    mempool::Candidate,
};

/// Ethereum's digest of no uncles.
const NO_UNCLES: alloy_primitives::B256 = alloy_consensus::EMPTY_OMMER_ROOT_HASH;

/// A header. `hash` is the digest that validators voted on, not Ethereum's hash of these fields.
pub(super) fn header(header: &IndexedHeader, logs_bloom: Bloom) -> Header {
    Header {
        hash: header.hash,
        inner: alloy_consensus::Header {
            parent_hash: header.parent_hash,
            ommers_hash: NO_UNCLES,
            beneficiary: header.proposer,
            state_root: header.state_root,
            transactions_root: header.transactions_root,
            receipts_root: header.receipts_root,
            logs_bloom,
            difficulty: U256::ZERO,
            number: header.number,
            gas_limit: header.gas_limit,
            gas_used: header.gas_used,
            timestamp: header.timestamp_ms / 1_000,
            extra_data: Bytes::new(),
            mix_hash: header.beacon,
            nonce: B64::ZERO,
            base_fee_per_gas: Some(header.base_fee),
            ..Default::default()
        },
        total_difficulty: Some(U256::ZERO),
        size: Some(U256::from(header.bytes)),
    }
}

/// A block, with its transactions or their hashes.
pub(super) fn block(
    kept: &IndexedHeader,
    transactions: &[IndexedTransaction],
    receipts: &[IndexedReceipt],
    whole: bool,
) -> Result<Block, ReadError> {
    let transactions = if whole {
        let places = (0..).map(|index| Place { number: kept.number, index });
        let all = transactions.iter().zip(places).map(|(body, place)| included(body, place, kept));
        BlockTransactions::Full(all.collect::<Result<_, _>>()?)
    } else {
        BlockTransactions::Hashes(transactions.iter().map(IndexedTransaction::hash).collect())
    };
    Ok(Block { header: header(kept, bloom(receipts)), uncles: Vec::new(), transactions, withdrawals: None })
}

/// A transaction in a block.
pub(super) fn included(
    body: &IndexedTransaction,
    place: Place,
    header: &IndexedHeader,
) -> Result<Transaction, ReadError> {
    let envelope = envelope(body, place)?;
    Ok(Transaction {
        effective_gas_price: Some(envelope.effective_gas_price(Some(header.base_fee))),
        inner: Recovered::new_unchecked(envelope, body.sender),
        block_hash: Some(header.hash),
        block_number: Some(header.number),
        transaction_index: Some(place.index.into()),
        block_timestamp: Some(header.timestamp_ms / 1_000),
    })
}

/// A transaction that waits.
pub(super) fn pending(candidate: &Candidate) -> Transaction {
    Transaction {
        inner: Recovered::new_unchecked(candidate.envelope().clone(), candidate.sender()),
        block_hash: None,
        block_number: None,
        transaction_index: None,
        effective_gas_price: None,
        block_timestamp: None,
    }
}

/// What a transaction did.
pub(super) fn receipt(
    body: &IndexedTransaction,
    receipt: &IndexedReceipt,
    place: Place,
    header: &IndexedHeader,
) -> Result<TransactionReceipt, ReadError> {
    let envelope = envelope(body, place)?;
    let transaction_hash = body.hash();
    let found = (receipt.log_index_first..).zip(&receipt.logs).map(|(log_index, inner)| {
        log(FoundLog {
            log: inner.clone(),
            place,
            log_index,
            block_hash: header.hash,
            block_timestamp_ms: header.timestamp_ms,
            transaction_hash,
        })
    });
    let with_bloom = ReceiptWithBloom {
        receipt: Receipt {
            status: receipt.success.into(),
            cumulative_gas_used: receipt.cumulative_gas_used,
            logs: found.collect(),
        },
        logs_bloom: bloom([receipt]),
    };
    let inner = match envelope.tx_type() {
        TxType::Legacy => ReceiptEnvelope::Legacy(with_bloom),
        TxType::Eip2930 => ReceiptEnvelope::Eip2930(with_bloom),
        TxType::Eip1559 => ReceiptEnvelope::Eip1559(with_bloom),
        TxType::Eip4844 => ReceiptEnvelope::Eip4844(with_bloom),
        TxType::Eip7702 => ReceiptEnvelope::Eip7702(with_bloom),
    };
    Ok(TransactionReceipt {
        inner,
        transaction_hash,
        transaction_index: Some(place.index.into()),
        block_hash: Some(header.hash),
        block_number: Some(header.number),
        gas_used: receipt.gas_used,
        effective_gas_price: envelope.effective_gas_price(Some(header.base_fee)),
        blob_gas_used: None,
        blob_gas_price: None,
        from: body.sender,
        to: envelope.to(),
        contract_address: receipt.contract,
    })
}

/// A log, and where it is.
pub(super) fn log(found: FoundLog) -> Log {
    Log {
        inner: found.log,
        block_hash: Some(found.block_hash),
        block_number: Some(found.place.number),
        block_timestamp: Some(found.block_timestamp_ms / 1_000),
        transaction_hash: Some(found.transaction_hash),
        transaction_index: Some(found.place.index.into()),
        log_index: Some(found.log_index),
        removed: false,
    }
}

/// What a block pays the proposer per gas beyond the base fee.
pub(super) fn tip(
    body: &IndexedTransaction,
    place: Place,
    header: &IndexedHeader,
) -> Result<u128, ReadError> {
    let price = envelope(body, place)?.effective_gas_price(Some(header.base_fee));
    Ok(price.saturating_sub(header.base_fee.into()))
}

fn envelope(body: &IndexedTransaction, place: Place) -> Result<TxEnvelope, ReadError> {
    let damaged = ReadError::Row { what: "transaction", number: place.number };
    TxEnvelope::decode_2718_exact(&body.encoded).map_err(|_| damaged)
}
