//! Transactions: decoded and their senders recovered once, when they are admitted.
//!
//! In:     EIP-2718 bytes from strangers.
//! Out:    the transaction, who sent it, and the signers of the vouchers it claims with.
//! Holds:  bytes within bounds, one encoding, a chain id, a signature with a low `s`; no blobs.
//! Absent: whether it can be executed now (`execute`), queues (`validator`).

use std::{collections::BTreeMap, sync::Arc};

use alloy_consensus::{Transaction as _, TxEnvelope, crypto::secp256k1, transaction::SignerRecoverable};
use alloy_eips::eip2718::{Decodable2718, Encodable2718};
use alloy_evm::FromRecoveredTx as _;
use alloy_primitives::{Address, B256, Signature, TxKind, U256};
use revm::{context::TxEnv, context_interface::cfg::gas_params::GasParams, primitives::hardfork::SpecId};

use crate::{
    modules::channels,
    params::Params,
    spec::{ChainSpec, TRANSACTION_BYTES_MAX},
};

/// Why bytes are no transaction of ours.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TransactionError {
    /// Too long.
    #[error("the transaction takes {0} bytes; at most {TRANSACTION_BYTES_MAX} are allowed")]
    TooLong(usize),
    /// No EIP-2718 transaction, or not its only encoding.
    #[error("the transaction is malformed: {0}")]
    Malformed(String),
    /// Could be replayed on other chains.
    #[error("the transaction names no chain (EIP-155)")]
    NoChainId,
    /// EIP-4844.
    #[error("blob transactions are not accepted")]
    Blob,
    /// No sender follows from it.
    #[error("the transaction's signature is invalid")]
    Signature,
}

/// A transaction with its sender.
#[derive(Debug, Clone)]
pub struct Recovered {
    envelope: TxEnvelope,
    sender: Address,
    bytes: Vec<u8>,
    voucher_signers: Arc<BTreeMap<Signed, Option<Address>>>,
}

/// A digest and a signature over it.
pub(crate) type Signed = (B256, [u8; 65]);

impl Recovered {
    /// Reads one transaction.
    pub fn decode(bytes: &[u8]) -> Result<Recovered, TransactionError> {
        if bytes.len() > TRANSACTION_BYTES_MAX {
            return Err(TransactionError::TooLong(bytes.len()));
        }
        let mut rest = bytes;
        let envelope = TxEnvelope::decode_2718(&mut rest)
            .map_err(|error| TransactionError::Malformed(error.to_string()))?;
        if !rest.is_empty() || envelope.encoded_2718() != bytes {
            return Err(TransactionError::Malformed("not its only encoding".to_owned()));
        }
        if matches!(envelope, TxEnvelope::Eip4844(_)) {
            return Err(TransactionError::Blob);
        }
        let chain_id = envelope.chain_id().ok_or(TransactionError::NoChainId)?;
        let sender = envelope.recover_signer().map_err(|_| TransactionError::Signature)?;
        let house = match envelope.kind() {
            TxKind::Call(to) => channels::House::at(&to),
            TxKind::Create => None,
        };
        let signed = house.map(|house| channels::signatures_of(house, chain_id, envelope.input()));
        let signed = signed.unwrap_or_default().into_iter();
        let voucher_signers = signed.map(|signed| (signed, recover(&signed.0, &signed.1))).collect();
        Ok(Recovered { envelope, sender, bytes: bytes.to_vec(), voucher_signers: Arc::new(voucher_signers) })
    }

    /// The transaction.
    pub fn envelope(&self) -> &TxEnvelope {
        &self.envelope
    }

    /// Who signed it.
    pub fn sender(&self) -> Address {
        self.sender
    }

    /// Its only encoding.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Its identity.
    pub fn hash(&self) -> B256 {
        *self.envelope.tx_hash()
    }

    /// Its place among its sender's.
    pub fn nonce(&self) -> u64 {
        self.envelope.nonce()
    }

    /// The most gas it may use.
    pub fn gas_limit(&self) -> u64 {
        self.envelope.gas_limit()
    }

    /// The most it pays for a unit of gas, in wei.
    pub fn max_fee_per_gas(&self) -> u128 {
        self.envelope.max_fee_per_gas()
    }

    /// What it may cost its sender at most, in wei; nothing if that overflows.
    pub fn cost_max(&self) -> Option<U256> {
        U256::from(self.gas_limit())
            .checked_mul(U256::from(self.max_fee_per_gas()))?
            .checked_add(self.envelope.value())
    }

    pub(crate) fn voucher_signers(&self) -> &Arc<BTreeMap<Signed, Option<Address>>> {
        &self.voucher_signers
    }
}

/// Who signed a digest (`r ‖ s ‖ v`, a low `s`, `v` 0, 1, 27 or 28); nobody if nothing follows.
pub(crate) fn recover(digest: &B256, signature: &[u8; 65]) -> Option<Address> {
    let parity = match signature[64] {
        0 | 27 => false,
        1 | 28 => true,
        _ => return None,
    };
    let signature = Signature::from_bytes_and_parity(&signature[..64], parity);
    secp256k1::recover_signer(&signature, *digest).ok()
}

/// Why a transaction cannot be executed whatever the state.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AdmissionError {
    /// Another chain's.
    #[error("the transaction is for chain {found}; this is chain {expected}")]
    ChainId {
        /// Ours.
        expected: u64,
        /// The transaction's.
        found: u64,
    },
    /// More gas than a transaction may use.
    #[error("the transaction asks for {gas} gas; at most {most} is allowed")]
    GasLimit {
        /// What it asks for.
        gas: u64,
        /// What is allowed.
        most: u64,
    },
    /// Less gas than its bytes cost.
    #[error("the transaction asks for {gas} gas; it needs at least {least}")]
    IntrinsicGas {
        /// What it asks for.
        gas: u64,
        /// What it needs.
        least: u64,
    },
    /// Too cheap.
    #[error("the transaction pays at most {price} wei per gas; the minimum is {least}")]
    Underpriced {
        /// What it pays.
        price: u128,
        /// The minimum.
        least: u64,
    },
    /// A tip above all it pays.
    #[error("the transaction's priority fee exceeds its maximum fee")]
    Tip,
    /// Nobody has that much.
    #[error("the transaction's cost overflows")]
    Cost,
    /// The last nonce is never used (EIP-2681).
    #[error("the transaction's nonce is the last")]
    Nonce,
}

/// Whether a transaction can be executed in some state: everything that does not depend on accounts.
pub fn check_admission(
    spec: &ChainSpec,
    params: &Params,
    transaction: &Recovered,
) -> Result<(), AdmissionError> {
    let envelope = transaction.envelope();
    let found = envelope.chain_id().unwrap_or_default();
    if found != spec.chain_id {
        return Err(AdmissionError::ChainId { expected: spec.chain_id, found });
    }
    let gas = transaction.gas_limit();
    if gas > params.transaction_gas_max {
        return Err(AdmissionError::GasLimit { gas, most: params.transaction_gas_max });
    }
    let least = intrinsic_gas(envelope);
    if gas < least {
        return Err(AdmissionError::IntrinsicGas { gas, least });
    }
    let price = transaction.max_fee_per_gas();
    if price < u128::from(params.minimum_gas_price) {
        return Err(AdmissionError::Underpriced { price, least: params.minimum_gas_price });
    }
    if envelope.max_priority_fee_per_gas().is_some_and(|tip| tip > price) {
        return Err(AdmissionError::Tip);
    }
    if transaction.cost_max().is_none() {
        return Err(AdmissionError::Cost);
    }
    if transaction.nonce() == u64::MAX {
        return Err(AdmissionError::Nonce);
    }
    Ok(())
}

/// What a transaction costs before anything is executed, and at least (EIP-7623).
fn intrinsic_gas(envelope: &TxEnvelope) -> u64 {
    let transaction = TxEnv::from_recovered_tx(envelope, Address::ZERO);
    let gas = GasParams::new_spec(SpecId::PRAGUE).initial_tx_gas_for_tx(&transaction, None);
    gas.initial_regular_gas.max(gas.floor_gas)
}
