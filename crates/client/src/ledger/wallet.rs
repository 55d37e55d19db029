//! Accounts: keys that pay, stake and vote.
//!
//! In:     32 secret bytes; digests and transactions to sign.
//! Out:    signatures, and who made one.
//! Touches: nothing.
//! Holds:  the secret is never shown, logged or compared.
//! Absent: keeping it (`bin`'s keystore); what is signed.

use std::fmt;

use alloy_consensus::{SignableTransaction as _, TxEip1559, TxEnvelope, crypto::secp256k1};
use alloy_eips::eip2718::Encodable2718 as _;
use alloy_primitives::{Address, B256, Bytes, Signature};
use alloy_signer::SignerSync as _;
use alloy_signer_local::PrivateKeySigner;

/// A secp256k1 key and the account it is of.
#[derive(Clone)]
pub struct Wallet(PrivateKeySigner);

/// Bytes that are no key: zero, or a number not below the curve's order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("these 32 bytes are no secp256k1 key")]
pub struct NotAKey;

impl Wallet {
    /// The account of a secret.
    pub fn from_bytes(secret: &[u8; 32]) -> Result<Self, NotAKey> {
        PrivateKeySigner::from_bytes(&B256::from(secret)).map(Self).map_err(|_| NotAKey)
    }

    /// The account's address.
    #[must_use]
    pub fn address(&self) -> Address {
        self.0.address()
    }

    /// Signs a digest: `r ‖ s ‖ v`, with a low `s` and `v` 27 or 28.
    #[must_use]
    pub fn sign_digest(&self, digest: &B256) -> [u8; 65] {
        self.0.sign_hash_sync(digest).expect("a key in memory signs any digest").as_bytes()
    }

    /// Signs a transaction; its hash and its bytes as nodes take them.
    #[must_use]
    pub fn sign_transaction(&self, transaction: TxEip1559) -> (B256, Bytes) {
        let digest = transaction.signature_hash();
        let signature = self.0.sign_hash_sync(&digest).expect("a key in memory signs any digest");
        let signed = TxEnvelope::from(transaction.into_signed(signature));
        (*signed.tx_hash(), signed.encoded_2718().into())
    }
}

impl fmt::Debug for Wallet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Wallet").field(&self.address()).finish()
    }
}

/// Who signed a digest, by the rule of the chain: a low `s`, `v` 0, 1, 27 or 28. Nobody if nothing follows.
#[must_use]
pub fn recover(digest: &B256, signature: &[u8; 65]) -> Option<Address> {
    let parity = match signature[64] {
        0 | 27 => false,
        1 | 28 => true,
        _ => return None,
    };
    let signature = Signature::from_bytes_and_parity(&signature[..64], parity);
    secp256k1::recover_signer(&signature, *digest).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn only_the_address_is_shown() {
        let wallet = Wallet::from_bytes(&[7; 32]).unwrap();
        assert_eq!(format!("{wallet:?}"), format!("Wallet({:?})", wallet.address()));
        assert!(!format!("{wallet:?}").contains("0707"));
        assert!(Wallet::from_bytes(&[0; 32]).is_err() && Wallet::from_bytes(&[0xFF; 32]).is_err());
    }

    #[test]
    fn the_address_is_ethereums() {
        // Key and address of the first account that every Ethereum development tool derives.
        let secret =
            alloy_primitives::b256!("ac0974bec39a17e36ba4a6b4d238ff944bacb478cbed5efcae784d7bf4f2ff80");
        let expected = alloy_primitives::address!("f39Fd6e51aad88F6F4ce6aB8827279cffFb92266");
        assert_eq!(Wallet::from_bytes(&secret.0).unwrap().address(), expected);
    }

    proptest! {
        #[test]
        fn a_signature_names_its_signer_and_no_flipped_bit_does(secret in 1u8.., digest: [u8; 32], bit in 0usize..520) {
            let wallet = Wallet::from_bytes(&[secret.min(0xFE); 32]).unwrap();
            let digest = B256::from(digest);
            let mut signature = wallet.sign_digest(&digest);
            prop_assert!(matches!(signature[64], 27 | 28));
            prop_assert_eq!(recover(&digest, &signature), Some(wallet.address()));
            signature[bit / 8] ^= 1 << (bit % 8);
            prop_assert_ne!(recover(&digest, &signature), Some(wallet.address()));
        }
    }
}
