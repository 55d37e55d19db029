//! What can be said of a transaction without knowing the state; the only place where signatures are recovered.
//!
//! In:     bytes from anyone, the chain's terms.
//! Out:    a transaction whose sender is known, or why not.
//! Holds:  cheap checks come before the signature's recovery, which is most of the cost of a transaction.

use alloy_consensus::{Transaction as _, TxEnvelope, TxType, Typed2718};
use alloy_eips::eip2718::Decodable2718;
use alloy_primitives::{Address, B256, Bytes, U256};
use surety_chain::{Params, Recovered, TRANSACTION_BYTES_MAX, TransactionError};

use super::Refused;

/// What the chain asks of every transaction at this height.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Terms {
    /// The chain's id.
    pub chain_id: u64,
    /// Gas that one transaction may ask for.
    pub transaction_gas_max: u64,
    /// The least price of a unit of gas, in wei.
    pub base_fee: u64,
}

impl Terms {
    /// Under these parameters.
    pub fn new(chain_id: u64, params: &Params) -> Self {
        let Params { transaction_gas_max, minimum_gas_price, .. } = *params;
        Self { chain_id, transaction_gas_max, base_fee: minimum_gas_price }
    }
}

/// A well-formed transaction for this chain, and who signed it.
#[derive(Debug, Clone)]
pub struct Candidate {
    recovered: Recovered,
    encoded: Bytes,
    cost: U256,
}

/// Bytes of creation code (EIP-3860).
const INITCODE_BYTES_MAX: usize = 2 * 24_576;

impl Candidate {
    /// Checks everything that does not depend on state, then recovers the sender.
    pub fn check(encoded: &Bytes, terms: &Terms) -> Result<Self, Refused> {
        if encoded.len() > TRANSACTION_BYTES_MAX {
            return Err(Refused::Oversized { bytes: encoded.len(), max: TRANSACTION_BYTES_MAX });
        }
        let envelope = TxEnvelope::decode_2718(&mut &encoded[..])
            .map_err(|error| Refused::Malformed(error.to_string()))?;
        let cost = check_form(&envelope, terms)?;
        let recovered = Recovered::decode(encoded).map_err(|error| match error {
            TransactionError::Signature => Refused::Signature,
            error => Refused::Malformed(error.to_string()),
        })?;
        Ok(Self { recovered, encoded: encoded.clone(), cost })
    }

    /// As `chain` takes it.
    pub fn recovered(&self) -> &Recovered {
        &self.recovered
    }

    /// The transaction.
    pub fn envelope(&self) -> &TxEnvelope {
        self.recovered.envelope()
    }

    /// Who signed it.
    pub fn sender(&self) -> Address {
        self.recovered.sender()
    }

    /// Its bytes, as they travel.
    pub fn encoded(&self) -> &Bytes {
        &self.encoded
    }

    /// Its hash.
    pub fn hash(&self) -> B256 {
        self.recovered.hash()
    }

    /// Its place among the sender's transactions.
    pub fn nonce(&self) -> u64 {
        self.recovered.nonce()
    }

    /// The most it can take from its sender, in wei.
    pub fn cost(&self) -> U256 {
        self.cost
    }

    /// The most it pays per gas.
    pub fn fee_cap(&self) -> u128 {
        self.recovered.max_fee_per_gas()
    }

    /// What it pays per gas beyond the base fee, at most.
    pub fn tip_cap(&self) -> u128 {
        self.envelope().max_priority_fee_per_gas().unwrap_or_else(|| self.fee_cap())
    }

    /// What it pays per gas when it must pay `base_fee`.
    pub fn price(&self, base_fee: u64) -> u128 {
        self.envelope().effective_gas_price(Some(base_fee))
    }
}

/// Checks the fields of a transaction; returns the most it can cost.
fn check_form(envelope: &TxEnvelope, terms: &Terms) -> Result<U256, Refused> {
    if envelope.tx_type() == TxType::Eip4844 {
        return Err(Refused::Type(envelope.ty()));
    }
    match envelope.chain_id() {
        None => return Err(Refused::Unprotected),
        Some(have) if have != terms.chain_id => {
            return Err(Refused::ChainId { have, want: terms.chain_id });
        }
        Some(_) => {}
    }
    let cap = envelope.max_fee_per_gas();
    if let Some(tip) = envelope.max_priority_fee_per_gas()
        && tip > cap
    {
        return Err(Refused::TipAboveCap { tip, cap });
    }
    let gas = envelope.gas_limit();
    if gas > terms.transaction_gas_max {
        return Err(Refused::GasLimit { gas, max: terms.transaction_gas_max });
    }
    // EIP-2681.
    if envelope.nonce() == u64::MAX {
        return Err(Refused::NonceMax(u64::MAX));
    }
    if envelope.kind().is_create() && envelope.input().len() > INITCODE_BYTES_MAX {
        return Err(Refused::Initcode { bytes: envelope.input().len(), max: INITCODE_BYTES_MAX });
    }
    if envelope.authorization_list().is_some_and(|list| list.is_empty()) {
        return Err(Refused::NoAuthorisations);
    }
    let needed = intrinsic_gas(envelope);
    if gas < needed {
        return Err(Refused::IntrinsicGas { gas, needed });
    }
    if cap < u128::from(terms.base_fee) {
        return Err(Refused::FeeTooLow { cap, base_fee: terms.base_fee });
    }
    // 64 + 128 bits cannot overflow; the value can.
    let fees = U256::from(gas) * U256::from(cap);
    fees.checked_add(envelope.value()).ok_or(Refused::CostOverflow)
}

/// The gas a transaction takes before its first instruction: yellow paper appendix G with EIP-2028, 2930, 3860, 7702,
/// and not less than the floor of EIP-7623.
fn intrinsic_gas(envelope: &TxEnvelope) -> u64 {
    let count = |n: usize| u64::try_from(n).unwrap_or(u64::MAX);
    let input = envelope.input();
    let zeros = count(input.iter().filter(|byte| **byte == 0).count());
    let tokens = zeros + 4 * (count(input.len()) - zeros);
    let create = if envelope.kind().is_create() { 32_000 + 2 * count(input.len()).div_ceil(32) } else { 0 };
    let access = envelope.access_list().map_or(0, |list| {
        let keys = list.iter().map(|item| item.storage_keys.len()).sum();
        2_400 * count(list.len()) + 1_900 * count(keys)
    });
    let authorisations = 25_000 * envelope.authorization_list().map_or(0, |list| count(list.len()));
    (21_000 + 4 * tokens + create + access + authorisations).max(21_000 + 10 * tokens)
}
