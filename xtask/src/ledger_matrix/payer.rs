//! Payer: an account of its own that signs for what it asks (x402, scheme `exact`).
//!
//! In:     a seed and a number; what a gateway asks to be paid. Out: an address; the header that pays.
//! Touches: nothing.
//! Holds:  the same seed gives the same accounts; each payment has a nonce that its maker chooses.

use alloy_primitives::{Address, B256, U256, hex};
use alloy_signer::SignerSync as _;
use alloy_signer_local::PrivateKeySigner;
use anyhow::{Context, Result};
use base64::{Engine as _, prelude::BASE64_STANDARD};
use serde_json::{Value, json};
use surety_types::credit::{signed::TransferWithAuthorization, transfer_digest};

use crate::rng::Rng;

/// Payments are kept as long as they are good: to be compared, they are to be there at the end.
const GOOD_FOR_S: u64 = 20 * 3600;

/// One account.
#[derive(Debug)]
pub struct Payer(PrivateKeySigner);

impl Payer {
    /// An account.
    pub fn new(seed: u64, number: usize) -> Result<Payer> {
        let mut rng = Rng::keyed(&[seed, 5, number as u64]);
        Ok(Payer(PrivateKeySigner::from_bytes(&words(&mut rng))?))
    }

    /// Its address.
    pub fn address(&self) -> Address {
        self.0.address()
    }

    /// Pays what `PAYMENT-REQUIRED` asks for.
    pub fn pay(&self, required: &str, nonce: B256, now_s: u64) -> Result<String> {
        let required: Value = serde_json::from_slice(&BASE64_STANDARD.decode(required)?)?;
        let accepted = required["accepts"][0].clone();
        let text = |name: &str| accepted[name].as_str().with_context(|| format!("{accepted} has no {name}"));
        let chain_id = text("network")?.strip_prefix("eip155:").context("no network of ours")?.parse()?;
        let transfer = TransferWithAuthorization {
            from: self.address(),
            to: text("payTo")?.parse()?,
            value: text("amount")?.parse()?,
            validAfter: U256::ZERO,
            validBefore: U256::from(now_s + GOOD_FOR_S),
            nonce,
        };
        let signature = self.0.sign_hash_sync(&transfer_digest(chain_id, &transfer))?.as_bytes();
        let TransferWithAuthorization { from, to, value, validAfter, validBefore, nonce } = &transfer;
        let payload = json!({
            "x402Version": 2,
            "accepted": accepted,
            "payload": {
                "signature": hex::encode_prefixed(signature),
                "authorization": {
                    "from": from.to_string(), "to": to.to_string(), "value": value.to_string(),
                    "validAfter": validAfter.to_string(), "validBefore": validBefore.to_string(),
                    "nonce": nonce.to_string(),
                },
            },
        });
        Ok(BASE64_STANDARD.encode(payload.to_string()))
    }
}

/// 32 bytes that nobody has used before.
pub fn words(rng: &mut Rng) -> B256 {
    let mut bytes = [0; 32];
    bytes.chunks_exact_mut(8).for_each(|word| word.copy_from_slice(&rng.next_u64().to_be_bytes()));
    B256::from(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_asked_for_is_signed_by_the_account() {
        let payer = Payer::new(1, 2).unwrap();
        assert_ne!(payer.address(), Payer::new(1, 3).unwrap().address());
        let accepts = json!([{ "network": "eip155:88888", "payTo": Address::repeat_byte(7).to_string(), "amount": "5" }]);
        let required = BASE64_STANDARD.encode(json!({ "accepts": accepts }).to_string());
        let header = payer.pay(&required, B256::repeat_byte(1), 1000).unwrap();
        let paid: Value = serde_json::from_slice(&BASE64_STANDARD.decode(header).unwrap()).unwrap();
        let transfer = TransferWithAuthorization {
            from: payer.address(),
            to: Address::repeat_byte(7),
            value: U256::from(5),
            validAfter: U256::ZERO,
            validBefore: U256::from(1000 + GOOD_FOR_S),
            nonce: B256::repeat_byte(1),
        };
        let signature = hex::decode(paid["payload"]["signature"].as_str().unwrap()).unwrap();
        let signature = alloy_primitives::Signature::from_raw(&signature).unwrap();
        let signer = signature.recover_address_from_prehash(&transfer_digest(88_888, &transfer)).unwrap();
        assert_eq!(signer, payer.address());
        assert!(payer.pay("no base64!", B256::ZERO, 0).is_err());
    }
}
