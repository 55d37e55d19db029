//! The order: what a payer asks of a worker, under the payer's signature.

use minicbor::{Decode, Encode};
use serde::Serialize;

use crate::{
    amount::Price,
    codec::{Canonical, Invalid},
    cose::{Kind, Signable},
    digest::{Digest, ModelId, domain},
    key::PublicKey,
    sampling::Sampling,
};

/// The version this code reads and writes.
pub const ORDER_VERSION: u8 = 1;
/// Output tokens of one order, at most.
pub const MAX_OUTPUT_TOKENS: u32 = 1 << 20;

/// An order. Signed by `payer`.
#[derive(Debug, Clone, PartialEq, Encode, Decode, Serialize)]
#[cbor(map)]
pub struct Order {
    /// [`ORDER_VERSION`].
    #[n(0)]
    pub version: u8,
    /// The model that must answer.
    #[n(1)]
    pub model: ModelId,
    /// [`crate::Request::digest`].
    #[n(2)]
    pub request_digest: Digest,
    /// Fresh randomness of the payer's.
    #[cbor(n(3), with = "minicbor::bytes")]
    #[serde(serialize_with = "as_hex")]
    pub nonce: [u8; 32],
    /// Where the sampling seed comes from.
    #[n(4)]
    pub seed: Seed,
    /// Which of several answers to one request, from 0.
    #[n(5)]
    pub choice: u32,
    /// Applied as they stand.
    #[n(6)]
    pub sampling: Sampling,
    /// Output tokens, at most, after those resumed from; 0 of an order that resumes nothing asks for the prompt to be
    /// scored and nothing else.
    #[n(7)]
    pub max_output_tokens: u32,
    /// Whether to go on past the model's end-of-generation tokens.
    #[n(8)]
    pub ignore_end: bool,
    /// Unix milliseconds; a receipt must come before.
    #[n(9)]
    pub deadline_ms: u64,
    /// The most the payer will pay.
    #[n(10)]
    pub price_ceiling: Price,
    /// The payment channel, if any.
    #[n(11)]
    pub channel: Option<Digest>,
    /// The payer's session key, which signs this.
    #[n(12)]
    pub payer: PublicKey,
    /// Unix milliseconds.
    #[n(13)]
    pub issued_ms: u64,
    /// The beginning of the answer, if another worker has given it already.
    #[n(14)]
    pub resumed: Option<Resumed>,
    /// Who else may be shown the request and the answer; none: whoever the ledger draws to audit it.
    #[n(15)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub disclosure: Option<Disclosure>,
}

/// To whom a worker may show an order's request and answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Encode, Decode, Serialize)]
#[cbor(index_only)]
#[serde(rename_all = "snake_case")]
pub enum Disclosure {
    /// To the payer, and to no auditor.
    #[n(0)]
    Payer,
}

/// The beginning of an answer that an order continues. Its ids travel beside the order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode, Serialize)]
#[cbor(map)]
pub struct Resumed {
    /// Tokens of it; at least one.
    #[n(0)]
    pub output_tokens: u32,
    /// Digest of their ids.
    #[n(1)]
    pub output_digest: Digest,
}

/// Where the sampling seed comes from. Never the worker's choice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Encode, Decode, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Seed {
    /// The caller's integer: the same request gives the same answer.
    #[n(0)]
    Caller(#[n(0)] i64),
    /// The order's nonce.
    #[n(1)]
    Nonce,
}

impl Order {
    /// The digest by which everything else names this order: over the payload, not the signature.
    ///
    /// Panics if the order is out of its bounds.
    pub fn digest(&self) -> Digest {
        Digest::of(domain::ORDER, &self.to_cbor())
    }

    /// Tokens of the answer that are there already.
    pub fn resumed_tokens(&self) -> u32 {
        self.resumed.map_or(0, |resumed| resumed.output_tokens)
    }

    /// Whether the payer lets no auditor see it.
    pub fn is_confidential(&self) -> bool {
        self.disclosure.is_some()
    }

    /// The 32-byte sampling seed.
    pub fn seed_bytes(&self) -> [u8; 32] {
        let mut hasher = Digest::hasher(domain::SAMPLING_SEED);
        match self.seed {
            Seed::Caller(seed) => hasher.update(&seed.to_le_bytes()),
            Seed::Nonce => hasher.update(&self.nonce),
        };
        hasher.update(&self.choice.to_le_bytes());
        hasher.digest().0
    }
}

impl Canonical for Order {
    const NAME: &'static str = "order";
    const MAX_BYTES: usize = 16 << 10;

    fn check(&self) -> Result<(), Invalid> {
        if self.version != ORDER_VERSION {
            return Err(Invalid::new(
                "version",
                format!("is {}; this software knows {ORDER_VERSION}", self.version),
            ));
        }
        //
        if self.max_output_tokens > MAX_OUTPUT_TOKENS {
            return Err(Invalid::new(
                "max_output_tokens",
                format!("is {}; at most {MAX_OUTPUT_TOKENS} are allowed", self.max_output_tokens),
            ));
        }
        if let Some(Resumed { output_tokens, .. }) = self.resumed
            && (output_tokens == 0 || output_tokens > MAX_OUTPUT_TOKENS - self.max_output_tokens)
        {
            return Err(Invalid::new(
                "resumed",
                format!(
                    "holds {output_tokens} tokens; with those ordered, 1 to {MAX_OUTPUT_TOKENS} are allowed"
                ),
            ));
        }
        if self.deadline_ms <= self.issued_ms {
            return Err(Invalid::new("deadline_ms", "is not after `issued_ms`"));
        }
        self.sampling.check()
    }
}

impl Signable for Order {
    const KIND: Kind = Kind::Order;
    fn signer(&self) -> &PublicKey {
        &self.payer
    }
}

/// 32 bytes as hexadecimal, in views.
pub(crate) fn as_hex<S: serde::Serializer>(bytes: &[u8; 32], serializer: S) -> Result<S::Ok, S::Error> {
    Digest(*bytes).serialize(serializer)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::samples;

    #[test]
    fn the_seed_is_as_the_arithmetic_says() {
        let derive = |message: &[u8]| blake3::derive_key("surety 2026 sampling seed", message);
        let order = Order { seed: Seed::Caller(-2), choice: 3, ..samples::order() };
        let mut message = vec![0xfe, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff];
        message.extend([3, 0, 0, 0]);
        assert_eq!(order.seed_bytes(), derive(&message));

        let order = Order { seed: Seed::Nonce, choice: 1, ..samples::order() };
        let mut message = order.nonce.to_vec();
        message.extend([1, 0, 0, 0]);
        assert_eq!(order.seed_bytes(), derive(&message));
    }
}
