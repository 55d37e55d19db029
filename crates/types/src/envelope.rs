//! The envelope: a gateway's signature over how one HTTP request was served, by whom, and when.

use minicbor::{Decode, Encode};
use serde::Serialize;

use crate::{
    amount::Amount,
    codec::{Canonical, Invalid, at_most},
    cose::{Kind, Signable},
    digest::Digest,
    key::PublicKey,
};

/// Parts in one envelope.
pub const MAX_PARTS: usize = 4096;
/// Bytes of a request id or a model's name.
pub const MAX_ID_BYTES: usize = 256;

/// An envelope. Signed by `gateway`.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, Serialize)]
#[cbor(map)]
pub struct Envelope {
    /// As in the `x-request-id` header.
    #[n(0)]
    pub request_id: String,
    /// Who signs.
    #[n(1)]
    pub gateway: PublicKey,
    /// The name the caller asked for.
    #[n(2)]
    pub model_name: String,
    /// Every worker that took part, in order of choice and then of tokens.
    #[cbor(n(3), decode_with = "crate::codec::list::<{ MAX_PARTS as u64 }, _, _>")]
    pub parts: Vec<Part>,
    /// Unix milliseconds: the request came.
    #[n(4)]
    pub received_ms: u64,
    /// Unix milliseconds: the first byte of the answer went.
    #[n(5)]
    pub first_byte_ms: u64,
    /// Unix milliseconds: the last went.
    #[n(6)]
    pub done_ms: u64,
    /// What the caller was charged.
    #[n(7)]
    pub charge: Amount,
}

/// One worker's part in an answer.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, Serialize)]
#[cbor(map)]
pub struct Part {
    /// [`crate::Order::digest`].
    #[n(0)]
    pub order: Digest,
    /// Digest of the receipt's COSE bytes; none if the worker broke off without one.
    #[n(1)]
    pub receipt: Option<Digest>,
    /// Who answered.
    #[n(2)]
    pub worker: PublicKey,
    /// Index of the first output token it answers for.
    #[n(3)]
    pub first_output_token: u32,
    /// How many it answers for.
    #[n(4)]
    pub output_tokens: u32,
    /// What it was ordered for, if not to be given to the caller.
    #[n(5)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub purpose: Option<Purpose>,
}

/// What a part was ordered for besides the answer itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode, Serialize)]
#[serde(rename_all = "snake_case")]
#[cbor(index_only)]
pub enum Purpose {
    /// The same answer, computed by another worker, to be compared with it.
    #[n(0)]
    Check,
}

impl Part {
    /// Whether it was ordered to be compared with the answer, and is no answer itself.
    pub fn is_check(&self) -> bool {
        self.purpose.is_some()
    }
}

impl Canonical for Envelope {
    const NAME: &'static str = "envelope";
    const MAX_BYTES: usize = 512 << 10;

    fn check(&self) -> Result<(), Invalid> {
        at_most("request_id", "bytes", self.request_id.len(), MAX_ID_BYTES)?;
        at_most("model_name", "bytes", self.model_name.len(), MAX_ID_BYTES)?;
        at_most("parts", "parts", self.parts.len(), MAX_PARTS)?;
        //
        if self.first_byte_ms < self.received_ms || self.done_ms < self.first_byte_ms {
            return Err(Invalid::new("done_ms", "the times are not in order"));
        }
        Ok(())
    }
}

impl Signable for Envelope {
    const KIND: Kind = Kind::Envelope;
    fn signer(&self) -> &PublicKey {
        &self.gateway
    }
}
