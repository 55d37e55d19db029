//! Keys as bytes, for rooms that know nothing of Commonware.
//!
//! In:     32 bytes, or a key of Commonware's. Out: the other.
//! Absent: where secrets are kept (`bin`).

use bytes::Bytes;
use commonware_codec::{DecodeExt as _, Encode as _};
use commonware_cryptography::ed25519::PrivateKey;

use crate::PublicKey;

/// The key of these bytes; `None` if they are no point of the curve.
pub fn public_key(bytes: &[u8; 32]) -> Option<PublicKey> {
    PublicKey::decode(Bytes::copy_from_slice(bytes)).ok()
}

/// The bytes of a key.
pub fn public_key_bytes(key: &PublicKey) -> [u8; 32] {
    let mut bytes = [0; 32];
    bytes.copy_from_slice(&key.encode());
    bytes
}

/// The key to vote and connect with, from its secret bytes.
pub fn private_key(secret: &[u8; 32]) -> Option<PrivateKey> {
    PrivateKey::decode(Bytes::copy_from_slice(secret)).ok()
}
