//! The error catalogue: every way a request can fail, and how that is told to the caller.
//!
//! In:     what went wrong, where it was noticed.
//! Out:    HTTP status, headers and the OpenAI error object; the same object as an in-stream frame.
//! Touches: nothing.
//! Holds:  codes are stable; a message alone says what happened, who, and what to do, because many
//!         programs show nothing else. A retry is suggested only where it can help.
//! Absent: deciding that something failed; that is each caller's matter.

use std::{borrow::Cow, time::Duration};

use axum::{
    body::Body,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use base64::{Engine as _, prelude::BASE64_STANDARD};
use serde::Serialize;
use surety_types::PublicKey;
use utoipa::ToSchema;

use crate::{api::shapes::Removed, catalogue::Advice, id::RequestId};

/// A stable error code. Programs branch on it, so a code is never renamed or reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Code {
    /// A parameter has a wrong type, shape or value.
    InvalidParam,
    /// A parameter this gateway has never heard of.
    UnknownParameter,
    /// A known parameter that would change the answer and is not supported.
    UnsupportedParameter,
    /// Prompt and context window disagree; the message gives both numbers.
    ContextLengthExceeded,
    /// The body is not JSON.
    InvalidJson,
    /// The body is not UTF-8.
    InvalidUtf8,
    /// The body took too long to arrive.
    RequestTimeout,
    /// The body is larger than the gateway reads.
    PayloadTooLarge,
    /// The body is not declared as JSON.
    UnsupportedMediaType,
    /// No key where one is asked for, or one that is unknown, expired or revoked.
    BadKey,
    /// The key's budget does not cover the request.
    BudgetExhausted,
    /// Nothing pays for the request; `PAYMENT-REQUIRED` says what would.
    PaymentRequired,
    /// What was to pay for the request does not.
    PaymentRefused,
    /// The key may not do this.
    Policy,
    /// The `Idempotency-Key` was used for another request.
    IdempotencyMismatch,
    /// The request was answered and charged before, and the answer cannot be told again.
    AnsweredBefore,
    /// The key has had its requests or tokens of this minute.
    RateLimited,
    /// The `Host` is not one this loopback gateway answers to.
    HostNotAllowed,
    /// No known worker offers the model.
    ModelUnknown,
    /// No such path, or nothing kept under that id.
    NotFound,
    /// The path exists, the method does not.
    MethodNotAllowed,
    /// None of the forms in `Accept` can be produced.
    NotAcceptable,
    /// The file has no such range of bytes.
    RangeNotSatisfiable,
    /// No worker qualifies; the message and `removed` say what kept how many out.
    NoWorker,
    /// Gateway or worker has no room at the moment.
    Overloaded,
    /// This gateway uses no ledger.
    NoLedger,
    /// The ledger cannot be asked now.
    LedgerUnavailable,
    /// None of those who serve a model gives its file.
    NoHolder,
    /// The gateway is shutting down.
    GatewayStopping,
    /// The connection to the worker ended before the answer did.
    WorkerLost,
    /// The worker stopped sending.
    WorkerStalled,
    /// The worker could not compute the answer, or spoke nonsense.
    WorkerBadOutput,
    /// The worker's signed claims and its stream disagree.
    VerificationFailed,
    /// The order's deadline passed.
    Deadline,
    /// A defect in the gateway.
    GatewayBug,
}

/// Whether the same request, sent again unchanged, may succeed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Retry {
    /// It cannot; clients are told not to.
    Useless,
    /// It may at once.
    Now,
    /// It may after this many seconds.
    After(u64),
}

/// The fixed part of a catalogue entry.
struct Entry {
    code: &'static str,
    status: StatusCode,
    kind: &'static str,
    accountable: Accountable,
    retry: Retry,
}

/// Who answers for a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Accountable {
    /// Whoever sent the request.
    Caller,
    /// This gateway.
    Gateway,
    /// The worker named in `worker`.
    Worker,
    /// The road between gateway and worker.
    Network,
    /// It cannot be told from here.
    Unknown,
}

impl Accountable {
    /// The name on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Accountable::Caller => "caller",
            Accountable::Gateway => "gateway",
            Accountable::Worker => "worker",
            Accountable::Network => "network",
            Accountable::Unknown => "unknown",
        }
    }
}

impl Code {
    /// Every code, for documentation and tests.
    pub const ALL: [Code; 35] = [
        Code::InvalidParam,
        Code::UnknownParameter,
        Code::UnsupportedParameter,
        Code::ContextLengthExceeded,
        Code::InvalidJson,
        Code::InvalidUtf8,
        Code::RequestTimeout,
        Code::PayloadTooLarge,
        Code::UnsupportedMediaType,
        Code::BadKey,
        Code::BudgetExhausted,
        Code::PaymentRequired,
        Code::PaymentRefused,
        Code::Policy,
        Code::IdempotencyMismatch,
        Code::AnsweredBefore,
        Code::RateLimited,
        Code::HostNotAllowed,
        Code::ModelUnknown,
        Code::NotFound,
        Code::MethodNotAllowed,
        Code::NotAcceptable,
        Code::RangeNotSatisfiable,
        Code::NoWorker,
        Code::Overloaded,
        Code::NoLedger,
        Code::LedgerUnavailable,
        Code::NoHolder,
        Code::GatewayStopping,
        Code::WorkerLost,
        Code::WorkerStalled,
        Code::WorkerBadOutput,
        Code::VerificationFailed,
        Code::Deadline,
        Code::GatewayBug,
    ];

    /// The name on the wire.
    pub fn as_str(self) -> &'static str {
        self.entry().code
    }

    /// The HTTP status of an answer that fails with this code before it began.
    pub fn status(self) -> StatusCode {
        self.entry().status
    }

    /// Who usually answers for it.
    pub(crate) fn accountable(self) -> Accountable {
        self.entry().accountable
    }

    /// Whether a retry helps.
    pub(crate) fn advice(self) -> Advice {
        match self.entry().retry {
            Retry::Useless => Advice::Useless,
            Retry::Now => Advice::Now,
            Retry::After(seconds) => Advice::After(seconds),
        }
    }

    fn entry(self) -> Entry {
        use Accountable::{Caller, Gateway, Unknown, Worker};
        let entry = |code, status, kind, accountable, retry| Entry { code, status, kind, accountable, retry };
        const REQUEST: &str = "invalid_request_error";
        const UNAVAILABLE: &str = "service_unavailable_error";
        const WORKER: &str = "worker_error";
        match self {
            Code::InvalidParam => {
                entry("invalid_param", StatusCode::BAD_REQUEST, REQUEST, Caller, Retry::Useless)
            }
            Code::UnknownParameter => {
                entry("unknown_parameter", StatusCode::BAD_REQUEST, REQUEST, Caller, Retry::Useless)
            }
            Code::UnsupportedParameter => {
                entry("unsupported_parameter", StatusCode::BAD_REQUEST, REQUEST, Caller, Retry::Useless)
            }
            Code::ContextLengthExceeded => {
                entry("context_length_exceeded", StatusCode::BAD_REQUEST, REQUEST, Caller, Retry::Useless)
            }
            Code::InvalidJson => {
                entry("invalid_json", StatusCode::BAD_REQUEST, REQUEST, Caller, Retry::Useless)
            }
            Code::InvalidUtf8 => {
                entry("invalid_utf8", StatusCode::BAD_REQUEST, REQUEST, Caller, Retry::Useless)
            }
            Code::RequestTimeout => {
                entry("request_timeout", StatusCode::REQUEST_TIMEOUT, REQUEST, Caller, Retry::Now)
            }
            Code::PayloadTooLarge => {
                entry("payload_too_large", StatusCode::PAYLOAD_TOO_LARGE, REQUEST, Caller, Retry::Useless)
            }
            Code::UnsupportedMediaType => entry(
                "unsupported_media_type",
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                REQUEST,
                Caller,
                Retry::Useless,
            ),
            Code::BadKey => {
                entry("bad_key", StatusCode::UNAUTHORIZED, "authentication_error", Caller, Retry::Useless)
            }
            Code::BudgetExhausted => entry(
                "budget_exhausted",
                StatusCode::PAYMENT_REQUIRED,
                "budget_error",
                Caller,
                Retry::Useless,
            ),
            Code::PaymentRequired => entry(
                "payment_required",
                StatusCode::PAYMENT_REQUIRED,
                "payment_error",
                Caller,
                Retry::Useless,
            ),
            Code::PaymentRefused => entry(
                "payment_refused",
                StatusCode::PAYMENT_REQUIRED,
                "payment_error",
                Caller,
                Retry::Useless,
            ),
            Code::Policy => {
                entry("policy", StatusCode::FORBIDDEN, "permission_error", Caller, Retry::Useless)
            }
            Code::IdempotencyMismatch => {
                entry("idempotency_mismatch", StatusCode::CONFLICT, REQUEST, Caller, Retry::Useless)
            }
            Code::AnsweredBefore => {
                entry("answered_before", StatusCode::CONFLICT, REQUEST, Gateway, Retry::Useless)
            }
            Code::RateLimited => entry(
                "rate_limited",
                StatusCode::TOO_MANY_REQUESTS,
                "rate_limit_error",
                Caller,
                Retry::After(1),
            ),
            Code::HostNotAllowed => {
                entry("host_not_allowed", StatusCode::FORBIDDEN, REQUEST, Caller, Retry::Useless)
            }
            Code::ModelUnknown => {
                entry("model_unknown", StatusCode::NOT_FOUND, REQUEST, Caller, Retry::Useless)
            }
            Code::NotFound => entry("not_found", StatusCode::NOT_FOUND, REQUEST, Caller, Retry::Useless),
            Code::MethodNotAllowed => {
                entry("method_not_allowed", StatusCode::METHOD_NOT_ALLOWED, REQUEST, Caller, Retry::Useless)
            }
            Code::NotAcceptable => {
                entry("not_acceptable", StatusCode::NOT_ACCEPTABLE, REQUEST, Caller, Retry::Useless)
            }
            Code::RangeNotSatisfiable => entry(
                "range_not_satisfiable",
                StatusCode::RANGE_NOT_SATISFIABLE,
                REQUEST,
                Caller,
                Retry::Useless,
            ),
            Code::NoWorker => {
                entry("no_worker", StatusCode::SERVICE_UNAVAILABLE, UNAVAILABLE, Unknown, Retry::After(2))
            }
            Code::Overloaded => {
                entry("overloaded", StatusCode::SERVICE_UNAVAILABLE, UNAVAILABLE, Worker, Retry::After(1))
            }
            Code::NoLedger => entry("no_ledger", StatusCode::NOT_FOUND, REQUEST, Gateway, Retry::Useless),
            Code::LedgerUnavailable => entry(
                "ledger_unavailable",
                StatusCode::SERVICE_UNAVAILABLE,
                UNAVAILABLE,
                Unknown,
                Retry::After(5),
            ),
            Code::NoHolder => {
                entry("no_holder", StatusCode::SERVICE_UNAVAILABLE, UNAVAILABLE, Unknown, Retry::After(5))
            }
            Code::GatewayStopping => entry(
                "gateway_stopping",
                StatusCode::SERVICE_UNAVAILABLE,
                UNAVAILABLE,
                Gateway,
                Retry::After(5),
            ),
            Code::WorkerLost => entry("worker_lost", StatusCode::BAD_GATEWAY, WORKER, Unknown, Retry::Now),
            Code::WorkerStalled => {
                entry("worker_stalled", StatusCode::GATEWAY_TIMEOUT, WORKER, Unknown, Retry::Now)
            }
            Code::WorkerBadOutput => {
                entry("worker_bad_output", StatusCode::BAD_GATEWAY, WORKER, Worker, Retry::Now)
            }
            Code::VerificationFailed => entry(
                "verification_failed",
                StatusCode::BAD_GATEWAY,
                "verification_error",
                Worker,
                Retry::Now,
            ),
            Code::Deadline => {
                entry("deadline", StatusCode::GATEWAY_TIMEOUT, UNAVAILABLE, Unknown, Retry::Useless)
            }
            Code::GatewayBug => entry(
                "gateway_bug",
                StatusCode::INTERNAL_SERVER_ERROR,
                "gateway_error",
                Gateway,
                Retry::Useless,
            ),
        }
    }
}

/// One failure, ready to be told.
#[derive(Debug, Clone)]
pub struct ApiError(Box<Details>);

#[derive(Debug, Clone)]
struct Details {
    code: Code,
    message: Cow<'static, str>,
    param: Option<String>,
    accountable: Accountable,
    worker: Option<PublicKey>,
    receipt: Option<Vec<u8>>,
    removed: Vec<Removed>,
    allow: Option<HeaderValue>,
    retry_after: Option<Duration>,
}

impl ApiError {
    /// `message` says what happened and what to do; the request id is added when it is told.
    pub fn new(code: Code, message: impl Into<Cow<'static, str>>) -> Self {
        let accountable = code.entry().accountable;
        let message = message.into();
        Self(Box::new(Details {
            code,
            message,
            param: None,
            accountable,
            worker: None,
            receipt: None,
            removed: Vec::new(),
            allow: None,
            retry_after: None,
        }))
    }

    /// A parameter with a wrong type, shape or value.
    pub fn invalid(param: impl Into<String>, message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(Code::InvalidParam, message).with_param(param)
    }

    /// A defect of ours that was noticed; `what` must not quote a prompt.
    pub fn bug(what: &str) -> Self {
        let message = format!(
            "The gateway made a mistake: {what}. Nothing was charged. Please report it with this id."
        );
        Self::new(Code::GatewayBug, message)
    }

    /// Says it otherwise.
    pub fn with_message(mut self, message: impl Into<Cow<'static, str>>) -> Self {
        self.0.message = message.into();
        self
    }

    /// Names the parameter at fault.
    pub fn with_param(mut self, param: impl Into<String>) -> Self {
        self.0.param = Some(param.into());
        self
    }

    /// Says who answers for it, where that differs from the catalogue's usual answer.
    pub fn with_accountable(mut self, accountable: Accountable) -> Self {
        self.0.accountable = accountable;
        self
    }

    /// Names the worker that was asked.
    pub fn with_worker(mut self, worker: PublicKey) -> Self {
        self.0.worker = Some(worker);
        self
    }

    /// Adds the worker's signed refusal as evidence.
    pub fn with_receipt(mut self, receipt: Vec<u8>) -> Self {
        self.0.receipt = Some(receipt);
        self
    }

    /// Lists what kept how many workers out.
    pub fn with_removed(mut self, removed: Vec<Removed>) -> Self {
        self.0.removed = removed;
        self
    }

    /// Says how long to wait, where that is known better than from the catalogue.
    pub fn with_retry_after(mut self, after: Duration) -> Self {
        self.0.retry_after = Some(after);
        self
    }

    /// Lists the methods the path does answer.
    pub fn with_allow(mut self, allow: Option<HeaderValue>) -> Self {
        self.0.allow = allow;
        self
    }

    /// The stable code.
    pub fn code(&self) -> Code {
        self.0.code
    }

    /// Who answers for it.
    pub fn accountable(&self) -> Accountable {
        self.0.accountable
    }

    /// Whether the same request, sent again later, may succeed.
    pub fn is_retryable(&self) -> bool {
        self.0.code.entry().retry != Retry::Useless
    }

    /// The worker's signed refusal, if it gave one.
    pub fn receipt(&self) -> Option<&[u8]> {
        self.0.receipt.as_deref()
    }

    /// The worker concerned, if one is.
    pub fn worker(&self) -> Option<PublicKey> {
        self.0.worker
    }

    /// The parameter at fault, if one is.
    pub fn param(&self) -> Option<&str> {
        self.0.param.as_deref()
    }

    /// What happened and what to do, without the request id.
    pub fn message(&self) -> &str {
        &self.0.message
    }

    /// The error object as callers see it.
    pub fn body(&self, id: &RequestId) -> ErrorBody {
        let entry = self.0.code.entry();
        let hop = match (self.0.worker, self.0.accountable) {
            (Some(_), _) => "gateway-worker",
            (None, Accountable::Caller) => "client-gateway",
            (None, _) => "gateway",
        };
        ErrorBody {
            error: ErrorObject {
                message: format!("{} id={id}", self.0.message),
                kind: entry.kind,
                param: self.0.param.clone(),
                code: entry.code,
                metadata: ErrorMetadata {
                    request_id: id.to_string(),
                    accountable: self.0.accountable,
                    hop,
                    worker: self.0.worker.map(|key| key.to_string()),
                    charged: "0",
                    retryable: entry.retry != Retry::Useless,
                    retry_after_ms: self.retry_after().map(|after| after.as_millis() as u64),
                    removed: self.0.removed.clone(),
                    evidence: self.0.receipt.as_ref().map(|bytes| BASE64_STANDARD.encode(bytes)),
                },
            },
        }
    }

    /// How long to wait before trying again, where waiting helps.
    fn retry_after(&self) -> Option<Duration> {
        match self.0.code.entry().retry {
            Retry::After(seconds) => Some(self.0.retry_after.unwrap_or(Duration::from_secs(seconds))),
            Retry::Useless | Retry::Now => None,
        }
    }

    /// The whole HTTP answer.
    pub fn render(&self, id: &RequestId) -> Response {
        let body = serde_json::to_vec(&self.body(id)).expect("an error object is JSON");
        let mut response = Response::new(Body::from(body));
        *response.status_mut() = self.0.code.status();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        let retryable = self.0.code.entry().retry != Retry::Useless;
        headers.insert("x-should-retry", HeaderValue::from_static(if retryable { "true" } else { "false" }));
        if let Some(after) = self.retry_after() {
            let ms = after.as_millis() as u64;
            headers.insert(header::RETRY_AFTER, HeaderValue::from(ms.div_ceil(1000)));
            headers.insert("retry-after-ms", HeaderValue::from(ms));
        }
        if self.0.code == Code::VerificationFailed {
            headers.insert("x-surety-verification", HeaderValue::from_static("failed"));
        }
        if self.0.code == Code::BadKey {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        if let Some(allow) = &self.0.allow {
            headers.insert(header::ALLOW, allow.clone());
        }
        if self.0.code == Code::RequestTimeout || self.0.code == Code::PayloadTooLarge {
            // The rest of the body was not read, so the connection cannot carry another request.
            headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        response
    }
}

/// Handlers fail without knowing the request id; the outermost layer renders what they left here.
impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut response = Response::new(Body::empty());
        *response.status_mut() = self.0.code.status();
        response.extensions_mut().insert(self);
        response
    }
}

/// `{"error": …}` as OpenAI shapes it, with our `metadata`.
#[derive(Debug, Serialize, ToSchema)]
pub struct ErrorBody {
    /// The error.
    pub error: ErrorObject,
}

/// What happened.
#[derive(Debug, Serialize, ToSchema)]
pub struct ErrorObject {
    /// What happened, who, what to do, and the request id.
    pub message: String,
    /// The family of the error.
    #[serde(rename = "type")]
    pub kind: &'static str,
    /// The parameter at fault, if one is.
    pub param: Option<String>,
    /// The stable code.
    pub code: &'static str,
    /// What programs may want to know.
    pub metadata: ErrorMetadata,
}

/// What programs may want to know about an error.
#[derive(Debug, Serialize, ToSchema)]
pub struct ErrorMetadata {
    /// The request id, also in `x-request-id`.
    pub request_id: String,
    /// Who answers for it.
    pub accountable: Accountable,
    /// Where it was noticed: `client-gateway`, `gateway` or `gateway-worker`.
    pub hop: &'static str,
    /// The worker concerned, by key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub worker: Option<String>,
    /// What this request cost, in credits.
    pub charged: &'static str,
    /// Whether the same request may succeed if sent again.
    pub retryable: bool,
    /// How long to wait first.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retry_after_ms: Option<u64>,
    /// Where no worker qualified: what kept how many of them out.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub removed: Vec<Removed>,
    /// The worker's signed refusal (COSE_Sign1, base64), if it gave one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub evidence: Option<String>,
}
