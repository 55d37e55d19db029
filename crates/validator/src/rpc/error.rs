//! Errors as wallets and libraries understand them: JSON-RPC 2.0's codes, EIP-1474's, and `3` for a revert.

use alloy_primitives::Bytes;
use jsonrpsee::types::ErrorObjectOwned;
use serde_json::json;

use crate::{
    indexes::{LogsError, ReadError},
    ledger::{Unavailable, ViewError},
    mempool::Refused,
    pool::SubmitError,
};

/// What a method answers.
pub(super) type Answer<T> = Result<T, ErrorObjectOwned>;

/// An answer that cannot fail.
pub(super) fn answer<T>(value: T) -> Answer<T> {
    Ok(value)
}

/// A call that was reverted.
const REVERTED: i32 = 3;
/// EIP-1474: the input cannot be used.
const INVALID_INPUT: i32 = -32000;
/// EIP-1474: what was named is not there.
const NOT_FOUND: i32 = -32001;
/// EIP-1474: it exists and cannot be had now.
const UNAVAILABLE: i32 = -32002;
/// EIP-1474: more than a node does for one request.
const LIMIT: i32 = -32005;
/// JSON-RPC 2.0.
const INVALID_PARAMS: i32 = -32602;
const INTERNAL: i32 = -32603;
/// Blocks that were pruned (EIP-4444, as go-ethereum answers).
const PRUNED: i32 = 4444;

fn plain(code: i32, message: impl Into<String>) -> ErrorObjectOwned {
    ErrorObjectOwned::owned(code, message, None::<()>)
}

pub(super) fn invalid_params(message: impl Into<String>) -> ErrorObjectOwned {
    plain(INVALID_PARAMS, message)
}

pub(super) fn invalid_input(message: impl Into<String>) -> ErrorObjectOwned {
    plain(INVALID_INPUT, message)
}

pub(super) fn not_found(message: impl Into<String>) -> ErrorObjectOwned {
    plain(NOT_FOUND, message)
}

pub(super) fn unavailable(message: impl Into<String>) -> ErrorObjectOwned {
    plain(UNAVAILABLE, message)
}

pub(super) fn limit(message: impl Into<String>) -> ErrorObjectOwned {
    plain(LIMIT, message)
}

pub(super) fn pruned(number: u64, earliest: u64) -> ErrorObjectOwned {
    plain(
        PRUNED,
        format!("pruned history unavailable: block {number} is older than {earliest}, the oldest kept here"),
    )
}

/// A failure of this node's own; its causes are for its log, not for strangers.
pub(super) fn internal(error: &(dyn std::error::Error + 'static)) -> ErrorObjectOwned {
    tracing::error!(error, "a request failed for a reason of this node's own");
    plain(INTERNAL, "internal error: this node cannot read what it keeps")
}

/// A call that reverted, with the data from which libraries decode the reason.
pub(super) fn reverted(reason: Option<String>, output: &Bytes) -> ErrorObjectOwned {
    let message = match reason {
        Some(reason) => format!("execution reverted: {reason}"),
        None => "execution reverted".to_owned(),
    };
    ErrorObjectOwned::owned(REVERTED, message, Some(json!(output)))
}

impl From<Refused> for ErrorObject {
    fn from(refused: Refused) -> Self {
        Self(invalid_input(refused.to_string()))
    }
}

impl From<ReadError> for ErrorObject {
    fn from(error: ReadError) -> Self {
        Self(internal(&error))
    }
}

impl From<LogsError> for ErrorObject {
    fn from(error: LogsError) -> Self {
        let through = match &error {
            LogsError::Read(_) => return Self(internal(&error)),
            LogsError::Logs { through, .. } | LogsError::Work { through } => *through,
            LogsError::Terms { .. } => None,
        };
        let narrower = through
            .map_or_else(String::new, |through| format!("; retry with a range that ends at {through:#x}"));
        Self(limit(format!("{error}{narrower}")))
    }
}

/// Lets `?` turn our errors into JSON-RPC's.
pub(super) struct ErrorObject(ErrorObjectOwned);

impl From<ErrorObject> for ErrorObjectOwned {
    fn from(error: ErrorObject) -> Self {
        error.0
    }
}

/// Our result as JSON-RPC's.
pub(super) fn told<T, E: Into<ErrorObject>>(result: Result<T, E>) -> Answer<T> {
    result.map_err(|error| error.into().0)
}

impl From<ViewError> for ErrorObject {
    fn from(error: ViewError) -> Self {
        Self(match error {
            ViewError::Unavailable(_) | ViewError::Moved => unavailable(error.to_string()),
            ViewError::Busy => limit(error.to_string()),
            ViewError::Refused(why) => invalid_input(why),
            ViewError::Corrupt(_) => internal(&error),
        })
    }
}

impl From<Unavailable> for ErrorObject {
    fn from(error: Unavailable) -> Self {
        Self(unavailable(error.to_string()))
    }
}

impl From<SubmitError> for ErrorObject {
    fn from(error: SubmitError) -> Self {
        match error {
            SubmitError::Refused(refused) => refused.into(),
            SubmitError::View(error) => error.into(),
        }
    }
}
