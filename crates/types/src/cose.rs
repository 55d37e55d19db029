//! Signatures: COSE_Sign1 (RFC 9052) with one layout, and nothing but that layout.
//!
//! In:     a payload and a key, or bytes from a stranger.
//! Out:    the signed bytes, or the payload if exactly those bytes are what the expected key signs.
//! Holds:  …. For a kind, a key and a payload everything but the signature is fixed byte for byte, so
//!         opening means: take out payload and signature, lay the message out again, compare.
//! Absent: general COSE. A general library must first be made to refuse what this layout cannot express; tests hold
//!         that such a library reads and verifies what is signed here.

use minicbor::{Decoder, Encoder, data::Tag, decode};

use crate::{
    codec::{Canonical, DecodeError},
    digest::Digest,
    key::{PublicKey, SecretKey},
};

/// What is signed. Part of the protected header, so a signature over one kind is never one over another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// [`crate::Order`], by the payer's session key.
    Order,
    /// [`crate::Acceptance`], by the worker.
    Acceptance,
    /// [`crate::Progress`], by the worker.
    Progress,
    /// [`crate::Receipt`], by the worker.
    Receipt,
    /// [`crate::Envelope`], by the gateway.
    Envelope,
    /// [`crate::Statement`], by the gateway.
    Statement,
}

impl Kind {
    /// Every kind.
    pub const ALL: [Kind; 6] =
        [Kind::Order, Kind::Acceptance, Kind::Progress, Kind::Receipt, Kind::Envelope, Kind::Statement];

    /// the content type in the protected header.
    pub fn content_type(self) -> &'static str {
        match self {
            Kind::Order => "application/surety-order+cbor",
            Kind::Acceptance => "application/surety-acceptance+cbor",
            Kind::Progress => "application/surety-progress+cbor",
            Kind::Receipt => "application/surety-receipt+cbor",
            Kind::Envelope => "application/surety-envelope+cbor",
            Kind::Statement => "application/surety-statement+cbor",
        }
    }
}

/// The bytes that COSE adds to a payload, at most.
pub const OVERHEAD_BYTES: usize = 176;

const COSE_SIGN1: Tag = Tag::new(18);
const HEADER_ALGORITHM: u8 = 1;
const HEADER_CONTENT_TYPE: u8 = 3;
const HEADER_KEY_ID: u8 = 4;
const EDDSA: i8 = -8;

/// Why signed bytes were not accepted.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Not COSE_Sign1, or longer than the kind may be.
    #[error("not a COSE_Sign1 message")]
    Malformed(#[source] decode::Error),
    /// Longer than any message of this kind.
    #[error("a signed message of {bytes} bytes; at most {max} are allowed")]
    TooLong {
        /// What was offered.
        bytes: usize,
        /// What is allowed.
        max: usize,
    },
    /// COSE_Sign1, but not in the one layout of this kind and key: other headers, another content type or key id,
    /// another encoding.
    #[error("not a {} in its canonical layout", kind.content_type())]
    NotCanonical {
        /// The kind that was expected.
        kind: Kind,
    },
    /// Signed by a key other than the one expected.
    #[error("signed by {found}, not by {expected}")]
    WrongSigner {
        /// Who should have signed.
        expected: PublicKey,
        /// Whom the message names.
        found: PublicKey,
    },
    /// The signature does not verify.
    #[error("the signature of {signer} does not verify")]
    BadSignature {
        /// Whose signature it is said to be.
        signer: PublicKey,
    },
    /// The payload is not what the kind says.
    #[error("the signed payload cannot be read")]
    Payload(#[from] DecodeError),
}

/// What a message says about itself, before anything is verified.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Peek<'a> {
    /// The key named in the header.
    pub signer: PublicKey,
    /// The payload.
    pub payload: &'a [u8],
}

/// Signs a payload as a message of this kind.
pub fn sign(key: &SecretKey, kind: Kind, payload: &[u8]) -> Vec<u8> {
    let protected = protected_header(kind, &key.public());
    let signature = key.sign(&signed_bytes(&protected, payload));
    layout(&protected, payload, &signature)
}

/// The payload, if `bytes` are a message of this kind by `expected`, in its one layout.
pub fn verify<'a>(bytes: &'a [u8], kind: Kind, expected: &PublicKey) -> Result<&'a [u8], OpenError> {
    let parts = parse(bytes, kind)?;
    // the signer is the one the reader expects, not whom the message names.
    if parts.signer != *expected {
        return Err(OpenError::WrongSigner { expected: *expected, found: parts.signer });
    }
    let protected = protected_header(kind, expected);
    // the one layout.
    if layout(&protected, parts.payload, parts.signature) != bytes {
        return Err(OpenError::NotCanonical { kind });
    }
    //
    if !expected.verifies(&signed_bytes(&protected, parts.payload), parts.signature) {
        return Err(OpenError::BadSignature { signer: *expected });
    }
    Ok(parts.payload)
}

/// Reads signer and payload without verifying anything.
pub fn peek(bytes: &[u8], kind: Kind) -> Result<Peek<'_>, OpenError> {
    parse(bytes, kind).map(|parts| Peek { signer: parts.signer, payload: parts.payload })
}

struct Parts<'a> {
    signer: PublicKey,
    payload: &'a [u8],
    signature: &'a [u8; 64],
}

fn parse(bytes: &[u8], kind: Kind) -> Result<Parts<'_>, OpenError> {
    let (protected, payload, signature) = split(bytes).map_err(OpenError::Malformed)?;
    // The key id is the header's last 32 bytes; `verify` compares the whole header.
    let signer = protected
        .last_chunk::<32>()
        .map(|key| PublicKey(*key))
        .filter(|key| protected_header(kind, key) == protected)
        .ok_or(OpenError::NotCanonical { kind })?;
    Ok(Parts { signer, payload, signature })
}

/// Protected header, payload and signature.
type Split<'a> = (&'a [u8], &'a [u8], &'a [u8; 64]);

fn split(bytes: &[u8]) -> Result<Split<'_>, decode::Error> {
    let mut d = Decoder::new(bytes);
    if d.tag()? != COSE_SIGN1 {
        return Err(decode::Error::message("expected tag 18"));
    }
    if d.array()? != Some(4) {
        return Err(decode::Error::message("expected an array of four"));
    }
    let protected = d.bytes()?;
    if d.map()? != Some(0) {
        return Err(decode::Error::message("expected no unprotected headers"));
    }
    let payload = d.bytes()?;
    let signature =
        d.bytes()?.try_into().map_err(|_| decode::Error::message("expected a signature of 64 bytes"))?;
    if d.position() != bytes.len() {
        return Err(decode::Error::message("bytes after the message").at(d.position()));
    }
    Ok((protected, payload, signature))
}

/// algorithm, content type, key id; in the order of their keys, the key id last.
fn protected_header(kind: Kind, signer: &PublicKey) -> Vec<u8> {
    encoded(|e| {
        e.map(3)?.u8(HEADER_ALGORITHM)?.i8(EDDSA)?;
        e.u8(HEADER_CONTENT_TYPE)?.str(kind.content_type())?;
        e.u8(HEADER_KEY_ID)?.bytes(&signer.0)?.ok()
    })
}

/// RFC 9052 §4.4: the Sig_structure, without external data.
fn signed_bytes(protected: &[u8], payload: &[u8]) -> Vec<u8> {
    encoded(|e| e.array(4)?.str("Signature1")?.bytes(protected)?.bytes(&[])?.bytes(payload)?.ok())
}

///
fn layout(protected: &[u8], payload: &[u8], signature: &[u8; 64]) -> Vec<u8> {
    encoded(|e| e.tag(COSE_SIGN1)?.array(4)?.bytes(protected)?.map(0)?.bytes(payload)?.bytes(signature)?.ok())
}

type Infallible = minicbor::encode::Error<std::convert::Infallible>;

fn encoded(write: impl FnOnce(&mut Encoder<&mut Vec<u8>>) -> Result<(), Infallible>) -> Vec<u8> {
    let mut bytes = Vec::new();
    match write(&mut Encoder::new(&mut bytes)) {
        Ok(()) => bytes,
        Err(error) => unreachable!("encoding into memory failed: {error}"),
    }
}

/// A value that is signed by a party it names.
pub trait Signable: Canonical {
    /// Its kind.
    const KIND: Kind;

    /// Who must have signed it.
    fn signer(&self) -> &PublicKey;
}

/// A value with a valid signature by the party it names, and the exact bytes that carry both.
#[derive(Debug, Clone, PartialEq)]
pub struct Signed<T> {
    value: T,
    bytes: Vec<u8>,
}

impl<T: Signable> Signed<T> {
    /// Signed bytes are never longer.
    pub const MAX_BYTES: usize = T::MAX_BYTES + OVERHEAD_BYTES;

    /// Signs a value.
    ///
    /// Panics if the value is out of its bounds or names another signer than `key`.
    pub fn sign(value: T, key: &SecretKey) -> Self {
        match Self::try_sign(value, key) {
            Ok(signed) => signed,
            Err(invalid) => panic!("a {} was not checked before it was signed: {invalid}", T::NAME),
        }
    }

    /// Signs a value, if it is within its bounds. Panics if the value names another signer than `key`.
    pub fn try_sign(value: T, key: &SecretKey) -> Result<Self, crate::codec::Invalid> {
        assert_eq!(*value.signer(), key.public(), "a {} is signed by the party it names", T::NAME);
        let bytes = sign(key, T::KIND, &value.try_to_cbor()?);
        Ok(Signed { value, bytes })
    }

    /// Opens a message by whoever it names: the header's key and the value's own must be the same.
    pub fn open(bytes: &[u8]) -> Result<Self, OpenError> {
        let signer = Self::peek_value(bytes)?.1;
        Self::open_by(bytes, &signer)
    }

    /// Opens a message that must be by `expected`.
    pub fn open_by(bytes: &[u8], expected: &PublicKey) -> Result<Self, OpenError> {
        Self::bounded(bytes)?;
        let value = T::from_cbor(verify(bytes, T::KIND, expected)?)?;
        //
        if value.signer() != expected {
            return Err(OpenError::WrongSigner { expected: *value.signer(), found: *expected });
        }
        Ok(Signed { value, bytes: bytes.to_vec() })
    }

    /// The value and the key in the header, nothing verified: for showing what a message says.
    pub fn peek_value(bytes: &[u8]) -> Result<(T, PublicKey), OpenError> {
        Self::bounded(bytes)?;
        let peek = peek(bytes, T::KIND)?;
        Ok((T::from_cbor(peek.payload)?, peek.signer))
    }

    fn bounded(bytes: &[u8]) -> Result<(), OpenError> {
        if bytes.len() > Self::MAX_BYTES {
            return Err(OpenError::TooLong { bytes: bytes.len(), max: Self::MAX_BYTES });
        }
        Ok(())
    }
}

impl<T> Signed<T> {
    /// The value.
    pub fn value(&self) -> &T {
        &self.value
    }

    /// The COSE bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Both parts.
    pub fn into_parts(self) -> (T, Vec<u8>) {
        (self.value, self.bytes)
    }
}

impl<T> std::ops::Deref for Signed<T> {
    type Target = T;
    fn deref(&self) -> &T {
        &self.value
    }
}

impl Signed<crate::Receipt> {
    /// The digest by which an envelope names this receipt.
    pub fn digest(&self) -> Digest {
        Digest::of(crate::digest::domain::RECEIPT, &self.bytes)
    }
}
