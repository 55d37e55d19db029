//! Shapes: OpenAI's answers as JSON, with what we add.
//!
//! In:     values. Out: their JSON and their OpenAPI description.
//! Touches: nothing.
//! Holds:  every field that OpenAI's own clients require is there, null where we have nothing to say; what we add
//!         is in fields those clients ignore.
//! Absent: deciding what goes into them. That is `reply`.

use std::collections::BTreeMap;

use serde::Serialize;
use surety_types::{Amount, CallFormat, ModelId, Price};
use utoipa::ToSchema;

use super::embeddings::EmbeddingNote;
use crate::payer::ChannelState;

/// How many tokens an answer took.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, ToSchema)]
pub struct Usage {
    /// Tokens of the prompts, each prompt counted once however many answers it has.
    pub prompt_tokens: u64,
    /// Tokens of all answers.
    pub completion_tokens: u64,
    /// Their sum.
    pub total_tokens: u64,
    /// More about the prompts' tokens.
    pub prompt_tokens_details: PromptTokensDetails,
    /// More about the answers' tokens.
    pub completion_tokens_details: CompletionTokensDetails,
}

/// More about prompt tokens.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, ToSchema)]
pub struct PromptTokensDetails {
    /// Those that came from a cache.
    pub cached_tokens: u64,
    /// Always 0.
    pub audio_tokens: u64,
}

/// More about completion tokens.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, ToSchema)]
pub struct CompletionTokensDetails {
    /// Always 0: thoughts are part of the text here.
    pub reasoning_tokens: u64,
    /// Always 0.
    pub audio_tokens: u64,
    /// Always 0.
    pub accepted_prediction_tokens: u64,
    /// Always 0.
    pub rejected_prediction_tokens: u64,
}

/// Who answered, and what was made sure of. Ours; other clients ignore it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, ToSchema)]
pub struct SuretyNote {
    /// As in the `x-request-id` header.
    pub request_id: String,
    /// Where the evidence is; null if it could not be stored.
    pub receipt: Option<String>,
    /// The immutable id of the model that answered.
    pub model: String,
    /// What the answer reaches, as in `provider.verification`: a promise that can be checked, not a check that was made.
    pub tier: &'static str,
    /// The keys of the workers that took part, in the order of their tokens.
    pub workers: Vec<String>,
    /// `passed`: workers of other operators computed the answer too, and gave the same, before its end was sent; or, of the tier
    /// `statistical`, it was compared with what such a worker computed, and not enough speaks against who gave it.
    /// `not-requested`: nobody did; audits may, later.
    pub verification: &'static str,
    /// The keys of those workers.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub checked_by: Vec<String>,
    /// How often another worker went on with an answer.
    pub handovers: u32,
    /// Where the time went, whenever another worker went on.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub waits: Vec<HandoverWait>,
    /// What its receipts charge, in micro-credits.
    pub cost: String,
    /// What the gateway checked before this was sent.
    pub checked: Vec<String>,
    /// What nobody has checked yet.
    pub not_checked: Vec<String>,
    /// Where tools could be called: the form in which calls were looked for in the text. The receipt signs that text, of which
    /// `content` and `tool_calls` are made.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tool_calls: Option<&'static str>,
    /// Anything else that should be known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}

/// The name of a form of calls.
pub(crate) fn call_format(format: CallFormat) -> &'static str {
    match format {
        CallFormat::Hermes => "hermes",
        CallFormat::Llama => "llama",
        CallFormat::Mistral => "mistral",
    }
}

/// Where the time went when a worker went on with another's answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
pub struct HandoverWait {
    /// Milliseconds from the last that was new until another worker was sought.
    pub noticed_ms: u64,
    /// From then until one had accepted.
    pub placed_ms: u64,
    /// From then until something new came.
    pub began_ms: u64,
}

/// A chat answer.
#[derive(Debug, Serialize, ToSchema)]
pub struct ChatCompletion<'a> {
    /// `chatcmpl-…`.
    pub id: &'a str,
    /// `chat.completion`.
    pub object: &'static str,
    /// Unix seconds.
    pub created: u64,
    /// The name of the model.
    pub model: &'a str,
    /// Short form of the model's immutable id.
    pub system_fingerprint: &'a str,
    /// One per answer.
    pub choices: Vec<ChatChoice>,
    /// Token counts.
    pub usage: Usage,
    /// Who answered.
    pub surety: SuretyNote,
}

/// One of the answers.
#[derive(Debug, Serialize, ToSchema)]
pub struct ChatChoice {
    /// From 0.
    pub index: u32,
    /// What was said.
    pub message: ChatMessage,
    /// If they were asked for.
    pub logprobs: Option<ChatLogprobs>,
    /// `stop`, `length`, `tool_calls`, or `function_call` where `functions` were sent.
    pub finish_reason: &'static str,
}

/// What the model said.
#[derive(Debug, Serialize, ToSchema)]
pub struct ChatMessage {
    /// `assistant`.
    pub role: &'static str,
    /// The text; null where there is none beside calls.
    pub content: Option<String>,
    /// Always null.
    pub refusal: Option<String>,
    /// What it calls.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tool_calls: Vec<ChatToolCall>,
    /// What it calls, where `functions` were sent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub function_call: Option<ChatFunction>,
}

/// A call of a tool.
#[derive(Debug, Serialize, ToSchema)]
pub struct ChatToolCall {
    /// By which the tool's message names it: the same whenever this request is answered.
    pub id: String,
    /// `function`.
    #[serde(rename = "type")]
    pub kind: &'static str,
    /// What is called.
    pub function: ChatFunction,
}

/// A function, and what it is given.
#[derive(Debug, Serialize, ToSchema)]
pub struct ChatFunction {
    /// One of those that were sent.
    pub name: String,
    /// A JSON object, as the model wrote it; it may not be what the function's schema wants.
    pub arguments: String,
}

/// A piece of a call.
#[derive(Debug, Serialize, ToSchema)]
pub struct ChatToolCallDelta<'a> {
    /// Which of the answer's calls, from 0.
    pub index: u32,
    /// In the call's first piece.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<&'a str>,
    /// `function`, in the call's first piece.
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    pub kind: Option<&'static str>,
    /// What is new.
    pub function: ChatFunctionDelta<'a>,
}

/// What is new of a function's call.
#[derive(Debug, Serialize, ToSchema)]
pub struct ChatFunctionDelta<'a> {
    /// In the call's first piece.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<&'a str>,
    /// More of the arguments.
    pub arguments: &'a str,
}

/// How likely the tokens were.
#[derive(Debug, Default, Serialize, ToSchema)]
pub struct ChatLogprobs {
    /// One per token, the end-of-generation token included.
    pub content: Vec<ChatTokenLogprob>,
    /// Always null.
    pub refusal: Option<Vec<ChatTokenLogprob>>,
}

/// How likely one token was.
#[derive(Debug, Serialize, ToSchema)]
pub struct ChatTokenLogprob {
    /// Its text; not valid text by itself where a character spans tokens.
    pub token: String,
    /// Natural logarithm of its probability.
    pub logprob: f32,
    /// Its bytes.
    pub bytes: Vec<u8>,
    /// The likeliest tokens.
    pub top_logprobs: Vec<ChatTopLogprob>,
}

/// A token that could have been.
#[derive(Debug, Serialize, ToSchema)]
pub struct ChatTopLogprob {
    /// Its text.
    pub token: String,
    /// Natural logarithm of its probability.
    pub logprob: f32,
    /// Its bytes.
    pub bytes: Vec<u8>,
}

/// A piece of a chat answer.
#[derive(Debug, Serialize, ToSchema)]
pub struct ChatCompletionChunk<'a> {
    /// `chatcmpl-…`, the same in every chunk.
    pub id: &'a str,
    /// `chat.completion.chunk`.
    pub object: &'static str,
    /// Unix seconds.
    pub created: u64,
    /// The name of the model.
    pub model: &'a str,
    /// Short form of the model's immutable id.
    pub system_fingerprint: &'a str,
    /// One; none in the chunk that carries the usage.
    pub choices: Vec<ChatChunkChoice<'a>>,
    /// Present if asked for; null but in the last chunk.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub usage: Option<Option<Usage>>,
    /// In the last chunk.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub surety: Option<SuretyNote>,
}

/// A piece of one of the answers.
#[derive(Debug, Serialize, ToSchema)]
pub struct ChatChunkChoice<'a> {
    /// From 0.
    pub index: u32,
    /// What is new.
    pub delta: ChatDelta<'a>,
    /// If they were asked for.
    pub logprobs: Option<ChatLogprobs>,
    /// Null but in the answer's last chunk.
    pub finish_reason: Option<&'static str>,
}

/// What is new in an answer.
#[derive(Debug, Default, Serialize, ToSchema)]
pub struct ChatDelta<'a> {
    /// `assistant`, in the answer's first chunk.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub role: Option<&'static str>,
    /// More text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub content: Option<&'a str>,
    /// A piece of a call.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tool_calls: Option<[ChatToolCallDelta<'a>; 1]>,
    /// The same where `functions` were sent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub function_call: Option<ChatFunctionDelta<'a>>,
}

/// A completion, or a piece of one.
#[derive(Debug, Serialize, ToSchema)]
pub struct Completion<'a> {
    /// `cmpl-…`.
    pub id: &'a str,
    /// `text_completion`.
    pub object: &'static str,
    /// Unix seconds.
    pub created: u64,
    /// The name of the model.
    pub model: &'a str,
    /// Short form of the model's immutable id.
    pub system_fingerprint: &'a str,
    /// One per answer; in a piece one, or none in the piece that carries the usage.
    pub choices: Vec<CompletionChoice<'a>>,
    /// Token counts; in pieces present if asked for, and null but in the last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub usage: Option<Option<Usage>>,
    /// Who answered; in pieces, in the last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub surety: Option<SuretyNote>,
}

/// One of the completions, or a piece of it.
#[derive(Debug, Serialize, ToSchema)]
pub struct CompletionChoice<'a> {
    /// From 0: prompt by prompt, and for each its `n` answers.
    pub index: u32,
    /// The text.
    pub text: &'a str,
    /// If they were asked for.
    pub logprobs: Option<CompletionLogprobs>,
    /// `stop` or `length`; null in pieces but the last.
    pub finish_reason: Option<&'static str>,
}

/// How likely the tokens were: four lists of one length.
#[derive(Debug, Default, PartialEq, Serialize, ToSchema)]
pub struct CompletionLogprobs {
    /// Their texts; `bytes:\x..` where a token is not text by itself.
    pub tokens: Vec<String>,
    /// Natural logarithms of their probabilities; null for the first token of an echoed prompt.
    pub token_logprobs: Vec<Option<f32>>,
    /// The likeliest tokens and the token itself; null for the first token of an echoed prompt.
    pub top_logprobs: Vec<Option<BTreeMap<String, f32>>>,
    /// Where each begins in the returned text, in characters.
    pub text_offset: Vec<u64>,
}

/// The models there are.
#[derive(Debug, Serialize, ToSchema)]
pub struct ModelList {
    /// `list`.
    pub object: &'static str,
    /// By name.
    pub data: Vec<Model>,
}

/// A model.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct Model {
    /// The name to ask for.
    pub id: String,
    /// `model`.
    pub object: &'static str,
    /// Unix seconds: when this gateway started.
    pub created: u64,
    /// `surety`.
    pub owned_by: &'static str,
    /// Tokens that prompt and answer may take together.
    pub context_length: u32,
    /// More about it.
    pub surety: ModelNote,
}

/// What a name stands for.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct ModelNote {
    /// The immutable id; pin it by asking for `name@<its first 8 or more digits>`.
    pub id: String,
    /// `llama`, `qwen2`, `qwen3`; or `upstream`, of which no more is known.
    pub architecture: String,
    /// What its answers reach, as in `provider.verification`: `exact`; or, where an upstream gives them, `signed`, and
    /// `statistical` where they can be compared with those of the model that they are said to be.
    pub tier: &'static str,
    /// What must be known before it is asked; null if nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
    /// Which model its operators say that their upstreams run; null if none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub claims: Option<ClaimNote>,
    /// Bytes of its files.
    pub file_bytes: u64,
    /// Tensor formats.
    pub formats: Vec<String>,
    /// Tokens it knows.
    pub vocabulary: u32,
    /// Whether it has a chat template.
    pub chat: bool,
    /// Whether that template shows it tools, in a form whose calls are known.
    pub tools: bool,
    /// How it makes vectors (`/v1/embeddings`); null if it makes none.
    pub embeddings: Option<EmbeddingNote>,
    /// Workers that are ready to answer with it.
    pub workers_ready: u32,
}

/// The model that answers of upstreams are said to be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct ClaimNote {
    /// Its id.
    pub model: String,
    /// Whether a worker serves it exactly, so that answers can be compared with its.
    pub is_served: bool,
    /// Answers of all such workers that were compared.
    pub compared: u64,
    /// How many workers' answers are taken for another model's by that.
    pub workers_differing: u32,
}

/// The workers this gateway knows.
#[derive(Debug, Serialize, ToSchema)]
pub struct NetworkStatus {
    /// The gateway's key.
    pub gateway: String,
    /// Name and version of its software.
    pub software: &'static str,
    /// Requests being answered.
    pub active_requests: u64,
    /// The workers: those of the settings in the order they were named, then those that the ledger lists.
    pub workers: Vec<WorkerReport>,
    /// How the gateway pays, if it does.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ledger: Option<LedgerReport>,
}

/// How a gateway stands with the ledger.
#[derive(Debug, Serialize, ToSchema)]
pub struct LedgerReport {
    /// The account that pays.
    pub account: String,
    /// The newest block it has seen.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub block: Option<u64>,
    /// What does not go as it should.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
    /// What to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
    /// Workers that the ledger lists and this gateway cannot use.
    pub ignored: Vec<IgnoredWorker>,
    /// Orders that workers accepted and gave no receipt for.
    pub claims: ClaimsReport,
}

/// Orders that workers accepted and gave no receipt for, and what came of them.
#[derive(Debug, Serialize, ToSchema)]
pub struct ClaimsReport {
    /// The deadline has not passed, or it is not their turn.
    pub waiting: u64,
    /// Claimed on the ledger, and not over.
    pub open: u64,
    /// The gateway was compensated.
    pub compensated: u64,
    /// The worker has shown a receipt after all.
    pub answered: u64,
    /// The worker has shown a receipt for a failure.
    pub failed: u64,
    /// Too late, refused, or not worth the gas.
    pub dropped: u64,
    /// What compensated, in wei.
    pub compensation_wei: String,
    /// Refunds of convictions that this process collected, in wei.
    pub refunds_wei: String,
}

/// What the ledger knows of an answered request.
#[derive(Debug, Serialize, ToSchema)]
pub struct ReceiptOnLedger {
    /// The request's.
    pub id: String,
    /// `receipt.ledger`.
    pub object: &'static str,
    /// What each worker did about it that signed anything.
    pub parts: Vec<PartOnLedger>,
    /// Parts that were not asked about: there were too many.
    pub parts_left_out: u64,
}

/// Where a receipt stands in the log of its operator, as its worker shows it.
#[derive(Debug, Serialize, ToSchema)]
pub struct InclusionOnLedger {
    /// `included`: a path leads from it to the root on the ledger. `not_yet`: by its worker's word; there is no root of that epoch
    /// yet. `refuted`: the path leads elsewhere. `not_shown`: there was none.
    pub state: &'static str,
    /// The epoch of the log.
    pub epoch: Option<u64>,
    /// The leaf's, from 0.
    pub index: Option<u64>,
    /// Leaves of the log.
    pub size: Option<u64>,
    /// The log's root, as it stands on the ledger, hexadecimal: RFC 9162, SHA-256; the receipt's digest is the leaf's entry.
    pub root: Option<String>,
    /// Hashes from the leaf to the root, hexadecimal.
    pub path: Vec<String>,
}

/// What the ledger knows of one worker's part in an answer. Amounts are wei, as decimal text.
#[derive(Debug, Serialize, ToSchema)]
pub struct PartOnLedger {
    /// Its key.
    pub worker: String,
    /// The order's digest.
    pub order: String,
    /// The receipt's digest; null if it accepted and gave none.
    pub receipt: Option<String>,
    /// Who answers for the worker; null if the ledger does not know its key.
    pub operator: Option<String>,
    /// The last epoch for which the operator posted the log of its receipts.
    pub log_posted_to_epoch: Option<u64>,
    /// Where its receipt stands in the operator's log; null where that could not be asked.
    pub inclusion: Option<InclusionOnLedger>,
    /// Whether the receipt was drawn for an audit and disclosed.
    pub drawn: bool,
    /// How far the audit is: disclosed, no answer to compute, committed, revealed, passed, differing; or confidential by the payer's wish.
    pub audit: Option<&'static str>,
    /// How many computed the answer again and said what they found.
    pub audited_by: u32,
    /// Who did, or is to.
    pub auditor: Option<String>,
    /// Whether that was the same, to the bit.
    pub confirmed: bool,
    /// The last dispute about it.
    pub dispute: Option<u64>,
    /// How that stands, in words.
    pub dispute_state: Option<&'static str>,
    /// A dispute is under way.
    pub contested: bool,
    /// The worker is convicted.
    pub convicted: bool,
    /// Whether the payer has its refund; null without a conviction, or where another dispute's was the conviction.
    pub refunded: Option<bool>,
    /// What of the refund waits for the payer.
    pub refund_owed_wei: String,
    /// The claim that the order was not answered.
    pub claim: Option<u64>,
    /// Whether that was compensated.
    pub compensated: bool,
    /// By how much.
    pub compensation_wei: String,
    /// The same in words, for people.
    pub said: Vec<String>,
}

/// A worker that cannot be used.
#[derive(Debug, Serialize, ToSchema)]
pub struct IgnoredWorker {
    /// Its key.
    pub id: String,
    /// Why not.
    pub reason: String,
}

/// What an operator asks for a model, in micro-credits per million tokens.
#[derive(Debug, Serialize, ToSchema)]
pub struct OfferReport {
    /// The model's immutable id.
    pub model: String,
    /// Prompt tokens that have to be computed.
    pub prompt: String,
    /// Prompt tokens found in a cache.
    pub cached: String,
    /// Output tokens.
    pub output: String,
}

impl OfferReport {
    pub(crate) fn new((model, price): (&ModelId, &Price)) -> Self {
        Self {
            model: model.to_string(),
            prompt: price.prompt.to_string(),
            cached: price.cached.to_string(),
            output: price.output.to_string(),
        }
    }
}

/// The channel to a worker's operator, in micro-credits.
#[derive(Debug, Serialize, ToSchema)]
pub struct ChannelReport {
    /// Its identity on the ledger.
    pub id: String,
    /// Paid in.
    pub balance: String,
    /// Charged by receipts.
    pub spent: String,
    /// Promised for orders that ended without a receipt: it may be claimed.
    pub written_off: String,
    /// Promised for orders under way.
    pub in_flight: String,
    /// Free for orders.
    pub unspent: String,
}

impl ChannelReport {
    pub(crate) fn new(state: ChannelState) -> Self {
        let micro = |wei| Amount::from_wei(wei).to_string();
        Self {
            id: state.id.to_string(),
            balance: micro(state.deposited),
            spent: micro(state.settled),
            written_off: micro(state.written_off),
            in_flight: micro(state.in_flight),
            unspent: micro(state.unspent),
        }
    }
}

/// A worker, as far as this gateway knows.
#[derive(Debug, Serialize, ToSchema)]
pub struct WorkerReport {
    /// Its key.
    pub id: String,
    /// `HOST:PORT`.
    pub address: String,
    /// `ready`, `starting`, `draining` or `unreachable`.
    pub state: &'static str,
    /// Why it is unreachable.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Name and version of its software.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub software: Option<String>,
    /// Orders it computes.
    pub active_requests: u32,
    /// Orders that wait there.
    pub waiting_requests: u32,
    /// Milliseconds since it was last heard.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_seen_ms: Option<u64>,
    /// What it serves.
    pub models: Vec<WorkerModel>,
    /// What it has shown this gateway, by which it is chosen.
    pub measured: Measured,
    /// The account that answers for it, if the ledger lists it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub operator: Option<String>,
    /// What is bonded to that account, in wei.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bonded: Option<String>,
    /// What of that stands for work that is claimed and not settled yet, in wei.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unsettled: Option<String>,
    /// Where it says that it is; nobody checks it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub region_claimed: Option<String>,
    /// What its operator asks.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub offers: Vec<OfferReport>,
    /// The channel on which it is paid.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub channel: Option<ChannelReport>,
    /// Where its operator says which model its upstream runs: what comparing its answers with that model's has shown.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub comparisons: Vec<ComparisonReport>,
}

/// What comparing a worker's answers with those of the model that it names has shown.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct ComparisonReport {
    /// The id of that model.
    pub model: String,
    /// Answers that were compared.
    pub compared: u64,
    /// Answers that were to be, and could not be.
    pub not_compared: u64,
    /// How much speaks against it, so many to one; about 1, or less, for who is honest.
    pub against: f64,
    /// When `against` reaches this, its answers are taken for another model's. One honest worker in so many ever comes there.
    pub differs_at: f64,
    /// Unix milliseconds: since when they are; null if they are not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub differs_since_ms: Option<u64>,
}

/// What a worker has shown this gateway by the tokens it served.
#[derive(Debug, Serialize, ToSchema)]
pub struct Measured {
    /// Answers it finished.
    pub answers: u64,
    /// Orders it failed, or could not be reached for.
    pub failures: u64,
    /// The decaying share of orders that ended well; 0.9 is assumed at first.
    pub reliability: f32,
    /// Milliseconds from order to acceptance, on average.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub accepted_ms: Option<f32>,
    /// The circuit breaker: `closed`; `open` while it gets no orders after failures, or one as a trial; `half_open` when
    /// such a trial is due.
    pub breaker: &'static str,
    /// Milliseconds until a trial is due.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub breaker_pause_ms: Option<u64>,
    /// Orders of this gateway's under way there.
    pub orders: u32,
    /// How many it takes at once, as far as learned; beyond, it comes last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub orders_max: Option<u32>,
    /// How quick it is, by model; those it has served something with.
    pub models: Vec<MeasuredModel>,
}

/// How quick a worker has been with a model.
#[derive(Debug, Serialize, ToSchema)]
pub struct MeasuredModel {
    /// The immutable id.
    pub id: String,
    /// Whether too little is known, or nothing lately.
    pub newcomer: bool,
    /// Milliseconds from order to first token, on average.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub first_token_ms: Option<f32>,
    /// 95 of 100 of the latest first tokens came within so many milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub first_token_p95_ms: Option<f32>,
    /// How long the first token after a short prompt may take before it counts as late.
    pub first_token_patience_ms: u64,
    /// Output tokens a second of one answer, on average.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tokens_per_second: Option<f32>,
}

/// What kept workers from a request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct Removed {
    /// The preference, as it is spelled in the request, or `unreachable`, `starting`, `draining`, `model`, `context`,
    /// `tried`, `payment`, `breaker`.
    pub constraint: &'static str,
    /// What the workers are.
    pub reason: String,
    /// How many.
    pub workers: u32,
}

/// A model on a worker.
#[derive(Debug, Serialize, ToSchema)]
pub struct WorkerModel {
    /// The immutable id.
    pub id: String,
    /// What the operator calls it.
    pub names: Vec<String>,
    /// Positions it can hold.
    pub context_tokens: u32,
    /// Measured or estimated; 0 if unknown.
    pub prefill_tokens_per_second: u32,
    /// Measured or estimated; 0 if unknown.
    pub decode_tokens_per_second: u32,
    /// What it asks of batches while it is idle, by its own word.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub batch_price: Option<PriceReport>,
}

/// What is asked, in micro-credits per million tokens.
#[derive(Debug, Serialize, ToSchema)]
pub struct PriceReport {
    /// Prompt tokens that have to be computed.
    pub prompt: String,
    /// Prompt tokens found in a cache.
    pub cached: String,
    /// Output tokens.
    pub output: String,
}

impl From<&Price> for PriceReport {
    fn from(price: &Price) -> Self {
        let [prompt, cached, output] =
            [price.prompt, price.cached, price.output].map(|each| each.to_string());
        Self { prompt, cached, output }
    }
}

/// Whether the process runs, or can answer.
#[derive(Debug, Serialize, ToSchema)]
pub struct Health {
    /// `ok` or `ready`.
    pub status: &'static str,
}
