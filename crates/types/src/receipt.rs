//! The receipt: a worker's signed claim of what it was asked and what it answered.

use std::fmt;

use minicbor::{Decode, Encode};
use serde::Serialize;

use crate::{
    amount::{Amount, Price},
    codec::{Canonical, Invalid},
    cose::{Kind, OVERHEAD_BYTES, Signable},
    digest::{Digest, ModelId},
    key::PublicKey,
    text::Text,
};

/// The version this code reads and writes.
pub const RECEIPT_VERSION: u8 = 1;
/// The arithmetic this code computes (`docs/spec/arithmetic.md`).
pub const ARITHMETIC_VERSION: u32 = 0;
/// In place of a version: no arithmetic is claimed, and nobody can compute the answer again.
pub const NO_ARITHMETIC: u32 = u32::MAX;
/// A signed receipt is never longer.
pub const MAX_SIGNED_RECEIPT_BYTES: usize = 2048;

/// A receipt. Signed by `worker`.
///
/// Token counts and digests describe what was delivered, also when the outcome is a failure.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, Serialize)]
#[cbor(map)]
pub struct Receipt {
    /// [`RECEIPT_VERSION`].
    #[n(0)]
    pub version: u8,
    /// Answered, or failed and why.
    #[n(1)]
    pub outcome: Outcome,
    /// [`crate::Order::digest`].
    #[n(2)]
    pub order: Digest,
    /// The model that answered.
    #[n(3)]
    pub model: ModelId,
    /// The version of the arithmetic, or [`NO_ARITHMETIC`].
    #[n(4)]
    pub arithmetic: u32,
    /// Tokens of the prompt.
    #[n(5)]
    pub prompt_tokens: u32,
    /// Those of them that came from a cache.
    #[n(6)]
    pub cached_tokens: u32,
    /// Tokens of the output, the end-of-generation token included where one was sampled.
    #[n(7)]
    pub output_tokens: u32,
    /// Digest of the prompt's ids.
    #[n(8)]
    pub prompt_digest: Digest,
    /// Digest of the output's ids.
    #[n(9)]
    pub output_digest: Digest,
    /// Digest of the delivered text.
    #[n(10)]
    pub text_digest: Digest,
    /// Why the output ended.
    #[n(11)]
    pub finish: FinishReason,
    /// The sampling seed used.
    #[cbor(n(12), with = "minicbor::bytes")]
    #[serde(serialize_with = "crate::order::as_hex")]
    pub seed: [u8; 32],
    /// Commitment to the state digest under the worker's key and a salt; zero for a failure.
    #[n(13)]
    pub state_commitment: Digest,
    /// As accepted.
    #[n(14)]
    pub price: Price,
    /// What is owed.
    #[n(15)]
    pub charge: Amount,
    /// Unix milliseconds; for a refusal, when the order was read.
    #[n(16)]
    pub accepted_ms: u64,
    /// Unix milliseconds; absent if no token was sent.
    #[n(17)]
    pub first_token_ms: Option<u64>,
    /// Unix milliseconds.
    #[n(18)]
    pub done_ms: u64,
    /// Name and version of the worker's software.
    #[n(19)]
    pub software: Text<64>,
    /// Who claims this.
    #[n(20)]
    pub worker: PublicKey,
}

/// Whether a receipt is for an answer or a failure.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, Serialize)]
#[cbor(map)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// An answer, whole or (by its finish reason) partial.
    #[n(0)]
    Completed,
    /// No answer, or one that broke off through the worker.
    #[n(1)]
    Failed {
        /// Which failure.
        #[n(0)]
        code: FailureCode,
        /// For people: what happened, with numbers.
        #[n(1)]
        message: Text<512>,
    },
}

/// Why an output ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Encode, Decode, Serialize)]
#[cbor(index_only)]
#[serde(rename_all = "snake_case")]
pub enum FinishReason {
    /// The model ended it, or a stop string appeared.
    #[n(0)]
    Stop,
    /// The order's limit or the model's context was reached.
    #[n(1)]
    Length,
    /// The payer cancelled; the receipt is for what was delivered.
    #[n(2)]
    Cancelled,
    /// Vouchers stopped coming; the receipt is for what was delivered.
    #[n(3)]
    Unpaid,
    /// It failed; see the outcome.
    #[n(4)]
    Failed,
}

/// What kind of failure, so that the payer knows what to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Encode, Decode, Serialize)]
#[cbor(index_only)]
#[serde(rename_all = "snake_case")]
pub enum FailureCode {
    /// The order or request is at fault; another worker would refuse it too.
    #[n(0)]
    BadRequest,
    /// Prompt and limit do not fit the model's context.
    #[n(1)]
    ContextLengthExceeded,
    /// The queue is full; another worker, or later.
    #[n(2)]
    Overloaded,
    /// This worker does not serve that model.
    #[n(3)]
    ModelUnknown,
    /// Not enough memory; another worker, or later.
    #[n(4)]
    OutOfMemory,
    /// A value stopped being finite; every worker would fail alike.
    #[n(5)]
    NonFinite,
    /// The worker's own fault.
    #[n(6)]
    Internal,
    /// The payer cancelled before the first token.
    #[n(7)]
    Cancelled,
    /// The deadline passed first.
    #[n(8)]
    DeadlineExceeded,
    /// The worker asks a price, and no channel of the payer's covers it.
    #[n(9)]
    PaymentRequired,
    /// The worker stops or was paused: it breaks no word, and its status says when it serves again.
    #[n(10)]
    Leaving,
}

impl FailureCode {
    /// Whether another worker, or this one later, may succeed with the same order.
    pub fn is_retryable(self) -> bool {
        match self {
            FailureCode::Overloaded
            | FailureCode::ModelUnknown
            | FailureCode::OutOfMemory
            | FailureCode::Internal
            | FailureCode::Leaving => true,
            FailureCode::BadRequest
            | FailureCode::ContextLengthExceeded
            | FailureCode::NonFinite
            | FailureCode::Cancelled
            | FailureCode::DeadlineExceeded => false,
            // Another worker may ask less, or have a channel already.
            FailureCode::PaymentRequired => true,
        }
    }
}

impl fmt::Display for FailureCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            FailureCode::BadRequest => "bad request",
            FailureCode::ContextLengthExceeded => "context length exceeded",
            FailureCode::Overloaded => "overloaded",
            FailureCode::ModelUnknown => "model unknown",
            FailureCode::OutOfMemory => "out of memory",
            FailureCode::NonFinite => "non-finite value",
            FailureCode::Internal => "internal failure",
            FailureCode::Cancelled => "cancelled",
            FailureCode::DeadlineExceeded => "deadline exceeded",
            FailureCode::PaymentRequired => "payment required",
            FailureCode::Leaving => "leaving",
        })
    }
}

impl Receipt {
    /// Whether it is for an answer that nobody can compute again.
    pub fn is_by_word(&self) -> bool {
        self.arithmetic == NO_ARITHMETIC
    }

    /// Code and message, if it is a failure.
    pub fn failure(&self) -> Option<(FailureCode, &str)> {
        match &self.outcome {
            Outcome::Completed => None,
            Outcome::Failed { code, message } => Some((*code, message)),
        }
    }
}

impl Canonical for Receipt {
    const NAME: &'static str = "receipt";
    const MAX_BYTES: usize = MAX_SIGNED_RECEIPT_BYTES - OVERHEAD_BYTES;

    fn check(&self) -> Result<(), Invalid> {
        if self.version != RECEIPT_VERSION {
            return Err(Invalid::new(
                "version",
                format!("is {}; this software knows {RECEIPT_VERSION}", self.version),
            ));
        }
        //
        if self.failure().is_some() != (self.finish == FinishReason::Failed) {
            return Err(Invalid::new("finish", "disagrees with `outcome`"));
        }
        //
        if self.cached_tokens > self.prompt_tokens {
            return Err(Invalid::new("cached_tokens", "exceeds `prompt_tokens`"));
        }
        //
        let first = self.first_token_ms.unwrap_or(self.accepted_ms);
        if first < self.accepted_ms || self.done_ms < first {
            return Err(Invalid::new("done_ms", "the times are not in order"));
        }
        if self.first_token_ms.is_some() != (self.output_tokens > 0) {
            return Err(Invalid::new("first_token_ms", "is there if and only if a token was sent"));
        }
        Ok(())
    }
}

impl Signable for Receipt {
    const KIND: Kind = Kind::Receipt;
    fn signer(&self) -> &PublicKey {
        &self.worker
    }
}
