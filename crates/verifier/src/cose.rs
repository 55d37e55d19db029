//! Signed messages: COSE_Sign1 in its one layout.

use alloc::vec::Vec;

use ed25519_dalek::{Signature, VerifyingKey};

use crate::{
    cbor::{BYTES, Reader, TAG},
    fault::Fault,
};

/// What a message adds to its payload, at most.
pub(crate) const OVERHEAD_BYTES: usize = 176;

pub(crate) struct Message<'a> {
    pub(crate) bytes: &'a [u8],
    pub(crate) signer: &'a [u8; 32],
    pub(crate) payload: &'a [u8],
    protected: &'a [u8],
    signature: &'a [u8; 64],
}

impl<'a> Message<'a> {
    /// A message of this kind, with a payload of at most so many bytes. Its signature is not verified yet.
    pub(crate) fn read(bytes: &'a [u8], kind: &str, most: usize) -> Result<Self, Fault> {
        if bytes.len() > most + OVERHEAD_BYTES {
            return Err(Fault::Unreadable);
        }
        let mut reader = Reader::new(bytes);
        if reader.head(TAG)? != 18 || reader.list(4)? != 4 {
            return Err(Fault::Unreadable);
        }
        let protected = reader.bytes(usize::MAX)?;
        if reader.map()? != 0 {
            return Err(Fault::Unreadable);
        }
        let payload = reader.bytes(usize::MAX)?;
        let signature = reader.bytes(64)?.try_into().map_err(|_| Fault::Unreadable)?;
        let signer = protected.last_chunk::<32>().ok_or(Fault::Unreadable)?;
        if !reader.is_at_end() || header(kind, signer) != protected {
            return Err(Fault::Unreadable);
        }
        Ok(Message { bytes, signer, payload, protected, signature })
    }

    ///
    pub(crate) fn is_signed(&self) -> bool {
        let mut signed = Vec::with_capacity(self.payload.len() + 256);
        signed.extend(b"\x84\x6aSignature1");
        head(&mut signed, self.protected.len());
        signed.extend(self.protected);
        signed.push(BYTES << 5);
        head(&mut signed, self.payload.len());
        signed.extend(self.payload);
        VerifyingKey::from_bytes(self.signer)
            .is_ok_and(|key| key.verify_strict(&signed, &Signature::from_bytes(self.signature)).is_ok())
    }
}

/// algorithm, content type, key id. The content type takes 24 to 255 bytes.
fn header(kind: &str, signer: &[u8; 32]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(80);
    bytes.extend(b"\xa3\x01\x27\x03\x78");
    bytes.push((b"application/surety-+cbor".len() + kind.len()) as u8);
    bytes.extend(b"application/surety-");
    bytes.extend(kind.as_bytes());
    bytes.extend(b"+cbor\x04\x58\x20");
    bytes.extend(signer);
    bytes
}

/// The head of a byte string.
fn head(bytes: &mut Vec<u8>, length: usize) {
    let be = (length as u32).to_be_bytes();
    match length {
        0..24 => bytes.push(BYTES << 5 | be[3]),
        24..0x100 => bytes.extend([BYTES << 5 | 24, be[3]]),
        0x100..0x1_0000 => bytes.extend([BYTES << 5 | 25, be[2], be[3]]),
        _ => bytes.extend([BYTES << 5 | 26, be[0], be[1], be[2], be[3]]),
    }
}
