//! Keys: ed25519, for workers, gateways and payers' sessions alike.
//!
//! In:     32 bytes (randomness arrives as an argument). Out: signatures and their verification.
//! Holds:  a secret is wiped when dropped and never printed; verification is the strict one (no small-order keys,
//!         no malleable signatures), R-3.4.
//! Absent: storing keys (`bin`).

use std::{fmt, str::FromStr};

use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};
use minicbor::{Decode, Decoder, Encode, Encoder, decode, encode};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::digest::{ParseHexError, decode_32, parse_hex, write_hex};

/// An ed25519 secret key; wiped from memory when dropped.
#[derive(Clone)]
pub struct SecretKey(SigningKey);

impl SecretKey {
    /// From 32 bytes: a stored key, or fresh randomness.
    pub fn from_bytes(bytes: &[u8; 32]) -> Self {
        SecretKey(SigningKey::from_bytes(bytes))
    }

    /// The 32 bytes, for storing. The caller keeps them secret and wipes its copy.
    pub fn to_bytes(&self) -> [u8; 32] {
        self.0.to_bytes()
    }

    /// The public half.
    pub fn public(&self) -> PublicKey {
        PublicKey(self.0.verifying_key().to_bytes())
    }

    /// Signs bytes.
    pub fn sign(&self, message: &[u8]) -> [u8; 64] {
        self.0.sign(message).to_bytes()
    }
}

impl fmt::Debug for SecretKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SecretKey(of {})", self.public())
    }
}

/// An ed25519 public key. Shown and read as 64 lower-case hexadecimal digits.
///
/// Any 32 bytes may stand here; bytes that are no point verify nothing.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PublicKey(pub [u8; 32]);

impl PublicKey {
    /// Whether `signature` is this key's over `message`, by the strict rule.
    pub fn verifies(&self, message: &[u8], signature: &[u8; 64]) -> bool {
        VerifyingKey::from_bytes(&self.0)
            .is_ok_and(|key| key.verify_strict(message, &Signature::from_bytes(signature)).is_ok())
    }

    /// The first eight digits, for logs and tables.
    pub fn short(&self) -> String {
        self.to_string()[..8].to_owned()
    }

    /// The bytes.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_hex(&self.0, f)
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_hex(&self.0, f)
    }
}

impl FromStr for PublicKey {
    type Err = ParseHexError;
    fn from_str(text: &str) -> Result<Self, ParseHexError> {
        parse_hex(text).map(PublicKey)
    }
}

impl Serialize for PublicKey {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for PublicKey {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(de::Error::custom)
    }
}

impl<C> Encode<C> for PublicKey {
    fn encode<W: encode::Write>(&self, e: &mut Encoder<W>, _: &mut C) -> Result<(), encode::Error<W::Error>> {
        e.bytes(&self.0)?.ok()
    }
}

impl<'b, C> Decode<'b, C> for PublicKey {
    fn decode(d: &mut Decoder<'b>, _: &mut C) -> Result<Self, decode::Error> {
        decode_32(d).map(PublicKey)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_never_printed() {
        let key = SecretKey::from_bytes(&[7; 32]);
        let shown = format!("{key:?}");
        assert_eq!(shown, format!("SecretKey(of {})", key.public()));
        assert!(!shown.contains("0707"));
    }

    #[test]
    fn small_order_keys_verify_nothing() {
        // The identity point: a lax verifier accepts (R = identity, s = 0) for every message.
        let mut identity = [0; 32];
        identity[0] = 1;
        let mut signature = [0; 64];
        signature[0] = 1;
        assert!(!PublicKey(identity).verifies(b"anything", &signature));
        assert!(!PublicKey([0xff; 32]).verifies(b"anything", &signature));
    }

    #[test]
    fn hexadecimal_has_one_spelling() {
        let text = SecretKey::from_bytes(&[7; 32]).public().to_string();
        assert!(text.parse::<PublicKey>().is_ok());
        assert!(text.to_uppercase().parse::<PublicKey>().is_err());
        assert!(text[1..].parse::<PublicKey>().is_err());
        assert!(format!("{text}0").parse::<PublicKey>().is_err());
        assert!(format!("é{}", &text[2..]).parse::<PublicKey>().is_err());
    }
}
