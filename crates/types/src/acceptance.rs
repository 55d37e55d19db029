//! The acceptance: a worker's signed promise to answer an order, made before any work.

use minicbor::{Decode, Encode};
use serde::Serialize;

use crate::{
    amount::Price,
    codec::{Canonical, Invalid},
    cose::{Kind, Signable},
    digest::{Digest, ModelId},
    key::PublicKey,
    region::Region,
};

/// An acceptance. Signed by `worker`; from here on silence is a breach.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, Serialize)]
#[cbor(map)]
pub struct Acceptance {
    /// [`crate::Order::digest`].
    #[n(0)]
    pub order: Digest,
    /// The order's model.
    #[n(1)]
    pub model: ModelId,
    /// Who promises.
    #[n(2)]
    pub worker: PublicKey,
    /// Unix milliseconds; not after the order's.
    #[n(3)]
    pub deadline_ms: u64,
    /// What will be charged; within the order's ceiling.
    #[n(4)]
    pub price: Price,
    /// The prompt's length as this worker tokenised it.
    #[n(5)]
    pub prompt_tokens: u32,
    /// Unix milliseconds.
    #[n(6)]
    pub accepted_ms: u64,
    /// Output tokens, at most: the order's limit, or what the worker's context leaves if that is less.
    #[n(7)]
    pub max_output_tokens: u32,
    /// Where the worker says that it is, if it says so; nobody checks it.
    #[n(8)]
    pub region: Option<Region>,
}

impl Canonical for Acceptance {
    const NAME: &'static str = "acceptance";
    const MAX_BYTES: usize = 512;

    fn check(&self) -> Result<(), Invalid> {
        Ok(())
    }
}

impl Signable for Acceptance {
    const KIND: Kind = Kind::Acceptance;
    fn signer(&self) -> &PublicKey {
        &self.worker
    }
}
