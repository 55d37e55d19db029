//! Messages between gateway and worker, one per frame.
//!
//! In, out: values; `net` moves their bytes. Holds: …, every list bounded before it is read.
//! Absent: the order in which they may come (`client`, `worker`), framing and time limits (`net`).

use minicbor::{Decode, Encode};
use serde::{Deserialize, Serialize};

use crate::{
    amount::Price,
    codec::{Canonical, Invalid, at_most},
    digest::ModelId,
    embedding::{Vectors, vector_of},
    key::PublicKey,
    manifest::Manifest,
    order::MAX_OUTPUT_TOKENS,
    region::Region,
    request::{MAX_REQUEST_BYTES, MAX_TOP_LOGPROBS},
    text::Text,
    voucher::Voucher,
};

/// One message to a worker: a request, its order and the tokens to resume from, at most.
pub const MAX_TO_WORKER_BYTES: usize = MAX_REQUEST_BYTES + 5 * MAX_OUTPUT_TOKENS as usize + (32 << 10);
/// One message from a worker.
pub const MAX_FROM_WORKER_BYTES: usize = 4 << 20;
/// One status.
pub const MAX_STATUS_BYTES: usize = 4 << 20;
/// Tokens in one frame, or in one piece of a scored prompt.
pub const MAX_FRAME_TOKENS: usize = 1024;
/// Models in one status.
pub const MAX_SERVED_MODELS: usize = 64;
/// Names of one model.
pub const MAX_MODEL_NAMES: usize = 16;
/// Bytes of a model's name.
pub const MAX_MODEL_NAME_BYTES: usize = 256;

/// From the payer's side to a worker, on a serve stream.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub enum ToWorker {
    /// First, and once.
    #[n(0)]
    Order {
        /// COSE bytes of an [`crate::Order`].
        #[cbor(n(0), with = "minicbor::bytes")]
        order: Vec<u8>,
        /// Canonical CBOR of the [`crate::Request`] whose digest it names.
        #[cbor(n(1), with = "minicbor::bytes")]
        request: Vec<u8>,
        /// The ids that [`crate::Order::resumed`] is about; empty where it is none.
        #[cbor(n(2), decode_with = "crate::codec::list::<{ MAX_OUTPUT_TOKENS as u64 }, _, _>")]
        output: Vec<u32>,
    },
    /// Pays for more of the answer.
    #[n(1)]
    Voucher(#[n(0)] Box<Voucher>),
    /// Stop now; a partial receipt may follow.
    #[n(2)]
    Cancel,
}

/// From a worker, on a serve stream.
#[derive(Debug, Clone, PartialEq, Encode, Decode)]
#[cbor(map)]
pub enum FromWorker {
    /// COSE bytes of an [`crate::Acceptance`]; first, unless the order is refused.
    #[n(0)]
    Acceptance(#[cbor(n(0), with = "minicbor::bytes")] Vec<u8>),
    /// Output tokens.
    #[n(1)]
    Frame {
        /// Index of the first token among the output's.
        #[n(0)]
        index: u32,
        /// In order; may be empty where only text was held back.
        #[cbor(n(1), decode_with = "crate::codec::list::<{ MAX_FRAME_TOKENS as u64 }, _, _>")]
        tokens: Vec<u32>,
        /// What they add to the text.
        #[n(2)]
        text: String,
        /// One per token if the request asks for them, else empty.
        #[cbor(n(3), decode_with = "crate::codec::list::<{ MAX_FRAME_TOKENS as u64 }, _, _>")]
        logprobs: Vec<TokenLogprob>,
    },
    /// A piece of the scored prompt; only if the request asks for it, and before the first frame.
    #[n(2)]
    Prompt {
        /// Index of the first token among the prompt's.
        #[n(0)]
        index: u32,
        /// In order.
        #[cbor(n(1), decode_with = "crate::codec::list::<{ MAX_FRAME_TOKENS as u64 }, _, _>")]
        ids: Vec<u32>,
        /// One per id; the prompt's first token has log-probability 0 and no alternatives.
        #[cbor(n(2), decode_with = "crate::codec::list::<{ MAX_FRAME_TOKENS as u64 }, _, _>")]
        logprobs: Vec<TokenLogprob>,
    },
    /// COSE bytes of a [`crate::Progress`].
    #[n(3)]
    Progress(#[cbor(n(0), with = "minicbor::bytes")] Vec<u8>),
    /// Last. A refusal or failure is a receipt too.
    #[n(4)]
    Receipt {
        /// COSE bytes of a [`crate::Receipt`].
        #[cbor(n(0), with = "minicbor::bytes")]
        receipt: Vec<u8>,
        /// Opens the state commitment; zero for a failure.
        #[cbor(n(1), with = "minicbor::bytes")]
        salt: [u8; 32],
    },
    /// The vector that was asked for: the bits of its numbers, little-endian; once, before the receipt.
    #[n(5)]
    Embedding(#[cbor(n(0), with = "minicbor::bytes")] Vec<u8>),
}

/// How likely one token was. For display; under no signature.
#[derive(Debug, Clone, PartialEq, Encode, Decode)]
#[cbor(map)]
pub struct TokenLogprob {
    /// The token.
    #[n(0)]
    pub token: u32,
    /// Its bytes; not always UTF-8 by itself.
    #[cbor(n(1), with = "minicbor::bytes")]
    pub bytes: Vec<u8>,
    /// Natural logarithm of its probability.
    #[cbor(n(2), with = "crate::codec::bits")]
    pub logprob: f32,
    /// The likeliest tokens, most likely first.
    #[cbor(n(3), decode_with = "crate::codec::list::<{ MAX_TOP_LOGPROBS as u64 }, _, _>")]
    pub top: Vec<Alternative>,
}

/// A token that could have been.
#[derive(Debug, Clone, PartialEq, Encode, Decode)]
#[cbor(map)]
pub struct Alternative {
    /// The token.
    #[n(0)]
    pub token: u32,
    /// Its bytes.
    #[cbor(n(1), with = "minicbor::bytes")]
    pub bytes: Vec<u8>,
    /// Natural logarithm of its probability.
    #[cbor(n(2), with = "crate::codec::bits")]
    pub logprob: f32,
}

/// Asks a worker how it is.
#[derive(Debug, Clone, PartialEq, Eq, Default, Encode, Decode)]
#[cbor(map)]
pub struct StatusRequest {}

/// How a worker is. What it says of itself; under no signature but the connection's.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, Serialize)]
#[cbor(map)]
pub struct WorkerStatus {
    /// Its key.
    #[n(0)]
    pub worker: PublicKey,
    /// Name and version of its software.
    #[n(1)]
    pub software: Text<64>,
    /// Whether it takes orders.
    #[n(2)]
    pub state: WorkerState,
    /// Orders being computed.
    #[n(3)]
    pub active_requests: u32,
    /// Orders accepted and waiting.
    #[n(4)]
    pub waiting_requests: u32,
    /// What it serves.
    #[cbor(n(5), decode_with = "crate::codec::list::<{ MAX_SERVED_MODELS as u64 }, _, _>")]
    pub models: Vec<ServedModel>,
    /// Where it says that it is, if it says so. Its acceptances say the same, under its signature; nobody checks it.
    #[n(6)]
    pub region: Option<Region>,
}

/// Whether a worker takes orders.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Encode, Decode, Serialize)]
#[cbor(index_only)]
#[serde(rename_all = "snake_case")]
pub enum WorkerState {
    /// Loading or testing itself.
    #[n(0)]
    Starting,
    /// Yes.
    #[n(1)]
    Ready,
    /// Finishing what it has.
    #[n(2)]
    Draining,
}

/// A model that a worker serves.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, Serialize)]
#[cbor(map)]
pub struct ServedModel {
    /// Its identity, that of `manifest`.
    #[n(0)]
    pub id: ModelId,
    /// What the operator calls it.
    #[cbor(n(1), decode_with = "crate::codec::list::<{ MAX_MODEL_NAMES as u64 }, _, _>")]
    pub names: Vec<String>,
    /// What it is made of.
    #[n(2)]
    pub manifest: Manifest,
    /// Positions it can hold; at most the model's context.
    #[n(3)]
    pub context_tokens: u32,
    /// Measured or estimated; 0 if unknown.
    #[n(4)]
    pub prefill_tokens_per_second: u32,
    /// Measured or estimated; 0 if unknown.
    #[n(5)]
    pub decode_tokens_per_second: u32,
    /// What it asks. Where it asks anything, the ledger says the same.
    #[n(6)]
    pub price: Price,
    /// How its chat template has it call tools; none if the template does not show it any, or in no way that is known.
    #[n(7)]
    pub calls: Option<CallFormat>,
    /// How it makes vectors; none if it makes none.
    #[n(8)]
    pub vectors: Option<Vectors>,
    /// What it asks of an order that bids less than `price`, while it has none at `price`; none: it takes no such order.
    #[n(9)]
    pub batch_price: Option<Price>,
}

/// How a model writes the calls of tools into its answer.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode, Serialize, Deserialize,
)]
#[cbor(index_only)]
#[serde(rename_all = "snake_case")]
pub enum CallFormat {
    /// `<tool_call>{"name": …, "arguments": {…}}</tool_call>`: Hermes, Qwen.
    #[n(0)]
    Hermes,
    /// `{"name": …, "parameters": {…}}`, which is the whole answer, behind `<|python_tag|>` or not: Llama 3.
    #[n(1)]
    Llama,
    /// `[TOOL_CALLS][{"name": …, "arguments": {…}}, …]`: Mistral.
    #[n(2)]
    Mistral,
}

impl Canonical for ToWorker {
    const NAME: &'static str = "message to a worker";
    const MAX_BYTES: usize = MAX_TO_WORKER_BYTES;

    fn check(&self) -> Result<(), Invalid> {
        match self {
            ToWorker::Voucher(voucher) => voucher.check(),
            ToWorker::Order { output, .. } => {
                at_most("output", "tokens", output.len(), MAX_OUTPUT_TOKENS as usize)
            }
            ToWorker::Cancel => Ok(()),
        }
    }
}

impl Canonical for FromWorker {
    const NAME: &'static str = "message from a worker";
    const MAX_BYTES: usize = MAX_FROM_WORKER_BYTES;

    fn check(&self) -> Result<(), Invalid> {
        match self {
            FromWorker::Frame { tokens, logprobs, text, .. } => {
                if tokens.is_empty() && text.is_empty() {
                    return Err(Invalid::new("tokens", "and `text` are both empty"));
                }
                check_tokens(tokens, logprobs)
            }
            FromWorker::Prompt { ids, logprobs, .. } => {
                if ids.is_empty() || logprobs.len() != ids.len() {
                    return Err(Invalid::new("ids", "must be some, each with its log-probability"));
                }
                check_tokens(ids, logprobs)
            }
            FromWorker::Embedding(vector) => vector_of(vector).map(drop),
            FromWorker::Acceptance(_) | FromWorker::Progress(_) | FromWorker::Receipt { .. } => Ok(()),
        }
    }
}

fn check_tokens(tokens: &[u32], logprobs: &[TokenLogprob]) -> Result<(), Invalid> {
    at_most("tokens", "tokens", tokens.len(), MAX_FRAME_TOKENS)?;
    if !logprobs.is_empty() && !logprobs.iter().map(|logprob| logprob.token).eq(tokens.iter().copied()) {
        return Err(Invalid::new("logprobs", "must be of the tokens, in their order"));
    }
    for logprob in logprobs {
        at_most("top", "alternatives", logprob.top.len(), MAX_TOP_LOGPROBS.into())?;
        let values = std::iter::once(logprob.logprob).chain(logprob.top.iter().map(|top| top.logprob));
        if values.into_iter().any(f32::is_nan) {
            return Err(Invalid::new("logprob", "is not a number"));
        }
    }
    Ok(())
}

impl Canonical for StatusRequest {
    const NAME: &'static str = "status request";
    const MAX_BYTES: usize = 16;

    fn check(&self) -> Result<(), Invalid> {
        Ok(())
    }
}

impl Canonical for WorkerStatus {
    const NAME: &'static str = "worker status";
    const MAX_BYTES: usize = MAX_STATUS_BYTES;

    fn check(&self) -> Result<(), Invalid> {
        at_most("models", "models", self.models.len(), MAX_SERVED_MODELS)?;
        for model in &self.models {
            at_most("names", "names", model.names.len(), MAX_MODEL_NAMES)?;
            for name in &model.names {
                at_most("names", "bytes in one name", name.len(), MAX_MODEL_NAME_BYTES)?;
            }
            model.manifest.check()?;
            if model.manifest.id() != model.id {
                return Err(Invalid::new("id", "is not the manifest's"));
            }
            if let Some(price) = &model.batch_price
                && (*price == model.price || *price == Price::ZERO || !price.within(&model.price))
            {
                return Err(Invalid::new("batch_price", "must be below `price`, and not zero"));
            }
        }
        Ok(())
    }
}
