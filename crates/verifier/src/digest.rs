//! Digests: BLAKE3 under a domain.

use alloc::vec::Vec;

use crate::blake3;

pub(crate) type Digest = [u8; 32];

pub(crate) const ZERO: Digest = [0; 32];

pub(crate) const REQUEST: &str = "surety 2026 request";
pub(crate) const GRAMMAR: &str = "surety 2026 grammar";
pub(crate) const ORDER: &str = "surety 2026 order";
pub(crate) const RECEIPT: &str = "surety 2026 receipt";
pub(crate) const PROMPT_IDS: &str = "surety 2026 prompt ids";
pub(crate) const OUTPUT_IDS: &str = "surety 2026 output ids";
pub(crate) const OUTPUT_TEXT: &str = "surety 2026 output text";
pub(crate) const STATE_COMMITMENT: &str = "surety 2026 state commitment";
pub(crate) const SAMPLING_SEED: &str = "surety 2026 sampling seed";

/// over pieces one behind the other.
pub(crate) fn digest(domain: &str, pieces: &[&[u8]]) -> Digest {
    blake3::derive_key(domain, &pieces.concat())
}

/// BLAKE3 of a vector's bytes.
pub(crate) fn plain(bytes: &[u8]) -> Digest {
    blake3::hash(bytes)
}

/// of ids one behind the other.
pub(crate) fn ids(domain: &str, pieces: &[&[u32]]) -> Digest {
    let mut bytes = Vec::new();
    for id in pieces.iter().copied().flatten() {
        bytes.extend(id.to_le_bytes());
    }
    blake3::derive_key(domain, &bytes)
}
