//! Tariff: gas that is reckoned with before a transaction is sent, or paid for by somebody else.
//!
//! In:     what is shown. Out: gas, at most, for orders and papers of any length.
//! Touches: nothing.
//! Holds:  no call takes more than is said here: tests of the modules measure the longest ones.
//! Absent: what gas costs (the parameters), and what a dispute's moves are paid (`dispute_move_gas`).

/// Of a claim that an order was not answered and of its settlement, together.
pub const CLAIM_GAS: u64 = 900_000;
/// Of collecting a refund.
pub const COLLECT_GAS: u64 = 150_000;
/// Of showing a receipt for a claim, where order and receipt are short.
const ANSWER_GAS: u64 = 300_000;
/// A transaction takes at least so much for itself and what surrounds papers in its calldata …
const CALL_GAS: u64 = 32_000;
/// … and so much for each byte of them (EIP-7623).
const BYTE_GAS: u64 = 40;

/// Of showing an order and a receipt for a claim, by their bytes together.
pub fn answer_gas(shown_bytes: usize) -> u64 {
    let bytes = BYTE_GAS.saturating_mul(u64::try_from(shown_bytes).unwrap_or(u64::MAX));
    CALL_GAS.saturating_add(bytes).max(ANSWER_GAS)
}
