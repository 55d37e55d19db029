//! Digests: BLAKE3 under a domain string, so that no digest of one kind of thing is ever one of another.
//!
//! In:     bytes and a domain. Out: 32 bytes. Holds.

use std::{fmt, str::FromStr};

use minicbor::{Decode, Decoder, Encode, Encoder, decode, encode};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// The domain strings, each used for one kind of thing only.
pub mod domain {
    /// Canonical CBOR of a [`crate::Request`].
    pub const REQUEST: &str = "surety 2026 request";
    /// What an answer must keep to.
    pub const GRAMMAR: &str = "surety 2026 grammar";
    /// Canonical CBOR of an [`crate::Order`].
    pub const ORDER: &str = "surety 2026 order";
    /// COSE bytes of a [`crate::Receipt`].
    pub const RECEIPT: &str = "surety 2026 receipt";
    /// Canonical CBOR of a [`crate::Manifest`].
    pub const MODEL: &str = "surety 2026 model";
    /// Token ids of a prompt, each u32 little-endian.
    pub const PROMPT_IDS: &str = "surety 2026 prompt ids";
    /// Token ids of an output, each u32 little-endian.
    pub const OUTPUT_IDS: &str = "surety 2026 output ids";
    /// UTF-8 of a delivered text.
    pub const OUTPUT_TEXT: &str = "surety 2026 output text";
    /// Worker key, salt and state digest.
    pub const STATE_COMMITMENT: &str = "surety 2026 state commitment";
    /// An auditor's worker key, salt and state digest.
    pub const AUDIT_COMMITMENT: &str = "surety 2026 audit commitment";
    /// Canonical CBOR of a [`crate::AuditEvidence`].
    pub const AUDIT_EVIDENCE: &str = "surety 2026 audit evidence";
    /// The sampling seed.
    pub const SAMPLING_SEED: &str = "surety 2026 sampling seed";
    /// A model's tokenizer.
    pub const TOKENIZER: &str = "surety 2026 tokenizer";
    /// A model's chat template.
    pub const TEMPLATE: &str = "surety 2026 chat template";
    /// A model's plan (D-2).
    pub const PLAN: &str = "surety 2026 plan";
    /// What a model's ids spell (D-2.4).
    pub const SPELLING: &str = "surety 2026 spelling";
    /// The trace of a disputed answer (D-1.3).
    pub const TRACE: &str = "surety 2026 trace";
    /// A [`crate::Bundle`] (D-8.2).
    pub const BUNDLE: &str = "surety 2026 bundle";
}

/// A 32-byte BLAKE3 digest. Shown and read as 64 lower-case hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Digest(pub [u8; 32]);

impl Digest {
    /// All zeros: stands for "none" where a rule says so.
    pub const ZERO: Digest = Digest([0; 32]);

    /// BLAKE3 in key-derivation mode with `domain` as its context.
    pub fn of(domain: &'static str, bytes: &[u8]) -> Digest {
        Digest(blake3::derive_key(domain, bytes))
    }

    /// A hasher for [`Digest::of`] over bytes that come in pieces.
    pub fn hasher(domain: &'static str) -> Hasher {
        Hasher(blake3::Hasher::new_derive_key(domain))
    }

    /// The bytes.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

/// [`Digest::of`] over bytes that come in pieces.
#[derive(Clone, Debug)]
pub struct Hasher(blake3::Hasher);

impl Hasher {
    /// Adds bytes.
    pub fn update(&mut self, bytes: &[u8]) -> &mut Self {
        self.0.update(bytes);
        self
    }

    /// The digest of everything so far; more may follow.
    pub fn digest(&self) -> Digest {
        Digest(*self.0.finalize().as_bytes())
    }
}

/// A model's identity: the digest of its manifest. Shown as `blake3:<hex>`; read with or without the prefix.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Encode, Decode)]
#[cbor(transparent)]
pub struct ModelId(#[n(0)] pub Digest);

/// Text that is not 64 lower-case hexadecimal digits.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("expected 64 lower-case hexadecimal digits")]
pub struct ParseHexError;

/// Writes bytes as lower-case hexadecimal.
pub(crate) fn write_hex(bytes: &[u8], f: &mut fmt::Formatter<'_>) -> fmt::Result {
    bytes.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
}

/// Reads exactly 64 lower-case digits. Upper case is refused, so that one value has one spelling.
pub(crate) fn parse_hex(text: &str) -> Result<[u8; 32], ParseHexError> {
    let digits: &[u8; 64] = text.as_bytes().try_into().map_err(|_| ParseHexError)?;
    let nibble = |digit: u8| match digit {
        b'0'..=b'9' => Ok(digit - b'0'),
        b'a'..=b'f' => Ok(digit - b'a' + 10),
        _ => Err(ParseHexError),
    };
    let mut bytes = [0; 32];
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = nibble(pair[0])? << 4 | nibble(pair[1])?;
    }
    Ok(bytes)
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_hex(&self.0, f)
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_hex(&self.0, f)
    }
}

impl FromStr for Digest {
    type Err = ParseHexError;
    fn from_str(text: &str) -> Result<Self, ParseHexError> {
        parse_hex(text).map(Digest)
    }
}

impl Serialize for Digest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(de::Error::custom)
    }
}

impl<C> Encode<C> for Digest {
    fn encode<W: encode::Write>(&self, e: &mut Encoder<W>, _: &mut C) -> Result<(), encode::Error<W::Error>> {
        e.bytes(&self.0)?.ok()
    }
}

impl<'b, C> Decode<'b, C> for Digest {
    fn decode(d: &mut Decoder<'b>, _: &mut C) -> Result<Self, decode::Error> {
        decode_32(d).map(Digest)
    }
}

/// A byte string of exactly 32 bytes.
pub(crate) fn decode_32(d: &mut Decoder<'_>) -> Result<[u8; 32], decode::Error> {
    let position = d.position();
    d.bytes()?.try_into().map_err(|_| decode::Error::message("expected 32 bytes").at(position))
}

impl fmt::Display for ModelId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "blake3:{}", self.0)
    }
}

impl fmt::Debug for ModelId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for ModelId {
    type Err = ParseHexError;
    fn from_str(text: &str) -> Result<Self, ParseHexError> {
        text.strip_prefix("blake3:").unwrap_or(text).parse().map(ModelId)
    }
}

impl Serialize for ModelId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for ModelId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(de::Error::custom)
    }
}
