//! Papers: orders, acceptances and receipts as modules read them, with the gas that reading takes.
//!
//! In:     COSE bytes of strangers, the channel that an order names.
//! Out:    values whose signatures hold; whether a receipt can be one for an order; who paid, and how much at most.
//! Touches: nothing.
//! Holds:  gas is charged before a byte is read; what is refused is refused by name.
//! Absent: what follows from it (`claims`, `disputes`).

use alloy_primitives::{Address, B256};
use surety_types::{
    Amount, Canonical as _, Channel, Digest, OpenError, Order, Receipt, Signable, Signed,
    receipt::ARITHMETIC_VERSION,
};

use super::channels;
use crate::host::{GAS_ED25519, GAS_HASH, GAS_HASH_WORD, Host, Outcome, refuse, require};

/// Pays for decoding, encoding again to compare, and hashing.
pub(super) fn charge_reading(host: &mut dyn Host, bytes: usize) -> Outcome<()> {
    host.charge(GAS_HASH + 4 * GAS_HASH_WORD * bytes.div_ceil(32) as u64)
}

/// Opens a signed message by whoever it names.
pub(super) fn open<T: Signable>(host: &mut dyn Host, bytes: &[u8]) -> Outcome<Signed<T>> {
    charge_reading(host, bytes.len())?;
    // The signature is over all of it, by SHA-512.
    host.charge(GAS_ED25519 + GAS_HASH_WORD * bytes.len().div_ceil(32) as u64)?;
    opened(Signed::open(bytes))
}

/// Reads a message that was opened before, and is recognised by its digest: the signature is not verified again.
pub(super) fn read<T: Signable>(host: &mut dyn Host, bytes: &[u8]) -> Outcome<T> {
    charge_reading(host, bytes.len())?;
    opened(Signed::peek_value(bytes)).map(|(value, _)| value)
}

fn opened<T>(result: Result<T, OpenError>) -> Outcome<T> {
    result.or_else(|error| refuse(error.to_string()))
}

/// Refuses a receipt that cannot be one for an order (R-6.4 …, as far as both show it by themselves).
pub(super) fn require_answers(order: &Order, receipt: &Receipt) -> Outcome<()> {
    require(receipt.order == order.digest(), "the receipt is for another order")?;
    require(receipt.model == order.model, "the receipt is for another model than the order")?;
    if receipt.failure().is_some() {
        return require(
            receipt.state_commitment == Digest::ZERO && receipt.charge == Amount::ZERO,
            "a failure commits to no state and charges nothing",
        );
    }
    //
    require(
        !receipt.is_by_word(),
        "the receipt claims no arithmetic: the answer is its worker's word, which nothing here shows to be false",
    )?;
    require(receipt.arithmetic == ARITHMETIC_VERSION, "the receipt is of another arithmetic")?;
    require(receipt.seed == order.seed_bytes(), "the seed is not the one the order prescribes")?;
    require(receipt.state_commitment != Digest::ZERO, "the receipt commits to no state")?;
    require(
        receipt.output_tokens <= order.max_output_tokens,
        "the answer has more tokens than were ordered",
    )?;
    require(
        receipt.prompt_tokens >= order.resumed_tokens(),
        "the receipt counts fewer tokens than it resumes",
    )?;
    require(receipt.done_ms <= order.deadline_ms, "the answer was not done by its deadline")?;
    require(receipt.price.within(&order.price_ceiling), "the price is above the order's ceiling")?;
    let due = receipt.price.charge(receipt.prompt_tokens, receipt.cached_tokens, receipt.output_tokens);
    require(due == Ok(receipt.charge), "the charge is not what the price says")
}

/// The payer of an order's channel; nobody if the channel is not shown.
pub(super) fn payer_of(host: &mut dyn Host, channel: &B256, shown: &[u8]) -> Outcome<Option<Address>> {
    if shown.is_empty() {
        return Ok(None);
    }
    charge_reading(host, shown.len())?;
    let Ok(config) = Channel::from_cbor(shown) else { return refuse("the channel cannot be read") };
    require(channels::is_of(host, &config.config(), channel)?, "the channel is not the order's")?;
    Ok(Some(config.payer))
}

/// An amount in wei, as far as an order's channel holds it: nobody is refunded what it cannot have paid.
pub(super) fn in_channel(host: &mut dyn Host, order: &Order, wei: Option<u128>) -> Outcome<u128> {
    match order.channel {
        None => Ok(0),
        Some(channel) => Ok(channels::held(host, &channel.0.into())?.min(wei.unwrap_or(u128::MAX))),
    }
}
