//! Failures of a session, as the caller is told of them.
//!
//! In:     what went wrong at one worker. Out: the error, with who answers for it and what to do.
//! Touches: nothing.
//! Absent: whether another worker goes on (`session`).

use surety_client::{Party, PurseError, Refusal, SessionError};
use surety_net::CloseCode;
use surety_types::{FailureCode, FinishReason, PublicKey};
use tracing::warn;

use crate::{
    error::{Accountable, ApiError, Code},
    route::chain,
};

/// Why a session has no whole answer.
pub(super) fn failed(worker: PublicKey, error: &SessionError) -> ApiError {
    warn!(worker = worker.short(), error = chain(error), "an answer failed");
    let short = worker.short();
    let (code, message) = match error {
        SessionError::Unreachable { .. } => (
            Code::WorkerLost,
            format!("Worker {short} cannot be reached ({}). Send the request again.", chain(error)),
        ),
        SessionError::BrokenOff { code: CloseCode::Busy, accepted: false, .. } => {
            (Code::Overloaded, format!("Worker {short} takes no more orders. Try again shortly."))
        }
        SessionError::WorkerLost { .. } | SessionError::BrokenOff { .. } => (
            Code::WorkerLost,
            format!(
                "Worker {short} was lost before the answer was whole ({}). What came so far is not the whole \
                 answer. Send the request again.",
                chain(error),
            ),
        ),
        SessionError::Stalled { .. } => (
            Code::WorkerStalled,
            format!("Worker {short} stopped answering ({}). Send the request again.", chain(error)),
        ),
        SessionError::DeadlineExceeded { .. } => (
            Code::Deadline,
            format!(
                "The answer was not whole by its deadline ({}). Ask for fewer tokens, or give it longer by \
                 `surety.deadline_ms`.",
                chain(error),
            ),
        ),
        SessionError::BadAcceptance { .. }
        | SessionError::BadProgress { .. }
        | SessionError::BadReceipt { .. } => (
            Code::VerificationFailed,
            format!(
                "What worker {short} signed is not what it sent ({}). Do not rely on what came so far. \
                 Send the request again.",
                chain(error),
            ),
        ),
        SessionError::BadMessage { .. }
        | SessionError::OutOfTurn { .. }
        | SessionError::Gap { .. }
        | SessionError::BadFrame { .. } => (
            Code::WorkerBadOutput,
            format!(
                "Worker {short} did not keep to the protocol ({}). Send the request again.",
                chain(error)
            ),
        ),
        SessionError::Invalid(invalid) => {
            return ApiError::invalid(invalid.field, format!("{invalid}.")).with_worker(worker);
        }
        SessionError::Ended => return ApiError::bug("a session was read past its end"),
    };
    let accountable = match error.accountable() {
        Party::Worker => Accountable::Worker,
        Party::Network => Accountable::Network,
        Party::Payer => Accountable::Gateway,
    };
    told(worker, code, message).with_accountable(accountable)
}

pub(super) fn told(
    worker: PublicKey,
    code: Code,
    message: impl Into<std::borrow::Cow<'static, str>>,
) -> ApiError {
    ApiError::new(code, message).with_worker(worker)
}

/// A worker's signed refusal, or its signed failure in mid-answer.
pub(super) fn refused(worker: PublicKey, refusal: &Refusal) -> ApiError {
    let short = worker.short();
    let Some((failure, message)) = refusal.receipt.failure() else {
        return ApiError::bug("a refusal without a failure").with_worker(worker);
    };
    let (code, message) = match failure {
        FailureCode::BadRequest => {
            (Code::InvalidParam, format!("Worker {short} refused the request: {message}"))
        }
        FailureCode::ContextLengthExceeded => {
            (Code::ContextLengthExceeded, format!("{} Shorten the prompt.", sentence(message)))
        }
        FailureCode::Overloaded | FailureCode::OutOfMemory => (
            Code::Overloaded,
            format!("Worker {short} has no room: {} Try again shortly.", sentence(message)),
        ),
        FailureCode::ModelUnknown => (
            Code::NoWorker,
            format!("Worker {short} no longer serves the model: {} Try again shortly.", sentence(message)),
        ),
        FailureCode::NonFinite => (
            Code::WorkerBadOutput,
            format!(
                "The model computed a value that is not finite, so there is no answer: {} Change the prompt.",
                sentence(message),
            ),
        ),
        FailureCode::Internal => (
            Code::WorkerBadOutput,
            format!("Worker {short} failed: {} Send the request again.", sentence(message)),
        ),
        FailureCode::Cancelled => (
            Code::WorkerLost,
            format!("Worker {short} gave the request up: {} Send the request again.", sentence(message)),
        ),
        FailureCode::Leaving => (
            Code::NoWorker,
            format!("Worker {short} takes no orders now: {} Try again shortly.", sentence(message)),
        ),
        FailureCode::PaymentRequired => (
            Code::NoWorker,
            format!("Worker {short} asks to be paid: {} Try again shortly.", sentence(message)),
        ),
        FailureCode::DeadlineExceeded => (
            Code::Deadline,
            format!(
                "The answer was not whole by its deadline: {} Ask for fewer tokens, or give it longer by \
                 `surety.deadline_ms`.",
                sentence(message),
            ),
        ),
    };
    told(worker, code, message).with_receipt(refusal.receipt.bytes().to_vec())
}

/// A worker's words, ending as a sentence does.
fn sentence(text: &str) -> String {
    let text = text.trim();
    if text.ends_with(['.', '!', '?']) { text.to_owned() } else { format!("{text}.") }
}

/// An answer that its worker ended without need.
pub(super) fn cut_short(worker: PublicKey, finish: FinishReason, problem: Option<&PurseError>) -> ApiError {
    let short = worker.short();
    if problem.is_none() && finish != FinishReason::Unpaid {
        let message = format!(
            "Worker {short} ended the answer as \"{finish:?}\", which nobody asked for. Send the request again.",
        );
        return told(worker, Code::WorkerBadOutput, message);
    }
    let why = problem.map_or_else(|| "its vouchers did not come in time".to_owned(), ToString::to_string);
    warn!(worker = short, why, "an answer was not paid to its end");
    let message = format!(
        "The gateway could not go on paying worker {short} ({why}). What came so far is not the whole answer. Send the \
         request again shortly.",
    );
    told(worker, Code::Overloaded, message).with_accountable(Accountable::Gateway)
}

/// An answer and its check, by workers of two operators, that are not the same.
pub(super) fn differs(worker: PublicKey, checker: PublicKey, what: &str) -> ApiError {
    let message = format!(
        "The check before the end found that the answer is not what a worker of another operator computes: worker {} gives {what}; \
         the answer is worker {}'s. One of the two does not compute the model, and which is not known. Do not rely on what came so \
         far; nothing is charged for it. Send the request again.",
        checker.short(),
        worker.short(),
    );
    ApiError::new(Code::VerificationFailed, message).with_accountable(Accountable::Unknown)
}

/// A worker that was to check an answer, and was given another prompt by its own count.
pub(super) fn miscounts(checker: PublicKey, what: &str) -> ApiError {
    let message = format!(
        "Worker {} was to compute the answer too, and counts {what}. It or the worker that answers does not tokenise as the model \
         prescribes, and which is not known. Nothing is charged. Send the request again.",
        checker.short(),
    );
    ApiError::new(Code::VerificationFailed, message).with_accountable(Accountable::Unknown)
}

/// Nobody is there, or left, to check an answer that is only wanted checked.
pub(super) fn unchecked(error: ApiError) -> ApiError {
    let message =
        format!("The answer could not be checked before its end, and is not charged. {}", error.message());
    error.with_message(message)
}

/// Two workers that gave different answers to one order.
pub(super) fn disagreement(worker: PublicKey, before: Option<PublicKey>, what: &str) -> ApiError {
    let before =
        before.map_or_else(|| "the worker before it".to_owned(), |key| format!("worker {}", key.short()));
    let message = format!(
        "Worker {} was to go on where {before} left the answer off, and gives {what}. One of the two does not compute \
         the model. Do not rely on what came so far. Send the request again.",
        worker.short(),
    );
    told(worker, Code::VerificationFailed, message).with_accountable(Accountable::Unknown)
}
