//! Failure: what an upstream's failing is to who ordered.
//!
//! In:     statuses, errors and words of a stranger's. Out: a code and a message that may be shown.
//! Holds:  no message has the operator's key, the address, control characters, or more than a few lines.

use reqwest::{Response, StatusCode};
use serde_json::Value;
use surety_types::FailureCode;

use super::Shared;

/// Bytes of an upstream's error that are read.
const ERROR_BYTES_MAX: usize = 16 << 10;
/// Characters of it that are shown.
const SHOWN_MAX: usize = 240;

/// An upstream failed.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Failure {
    pub(super) code: FailureCode,
    pub(super) message: String,
}

impl Failure {
    pub(super) fn new(code: FailureCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }

    /// Which the operator has to answer for; another worker may do better.
    pub(super) fn ours(message: impl Into<String>) -> Self {
        Self::new(FailureCode::Internal, message)
    }

    /// The connection failed.
    pub(super) fn of_connection(error: &reqwest::Error) -> Self {
        let what = if error.is_connect() {
            "the operator's upstream cannot be reached"
        } else if error.is_timeout() {
            "the operator's upstream took too long"
        } else {
            "the connection to the operator's upstream broke"
        };
        Self::ours(what)
    }
}

/// Makes what a stranger said fit to be shown.
#[derive(Clone, Copy)]
pub(super) struct Redacting<'a>(pub(super) Option<&'a str>);

impl Redacting<'_> {
    /// One line of it, without the key.
    pub(super) fn line(&self, text: &str) -> String {
        let text = match self.0 {
            Some(key) => text.replace(key, "[key]"),
            None => text.to_owned(),
        };
        let printable = |c: char| if c.is_control() { ' ' } else { c };
        let mut line: String = text.chars().take(SHOWN_MAX).map(printable).collect();
        if text.chars().nth(SHOWN_MAX).is_some() {
            line.push('…');
        }
        line
    }
}

/// Reads a body up to so many bytes.
pub(super) async fn read_some(mut response: Response, bytes_max: usize) -> Result<Vec<u8>, reqwest::Error> {
    let mut bytes = Vec::new();
    while bytes.len() < bytes_max {
        let Some(chunk) = response.chunk().await? else { break };
        bytes.extend_from_slice(&chunk[..chunk.len().min(bytes_max - bytes.len())]);
    }
    Ok(bytes)
}

/// What a status other than 200 means. Reads some of the body.
pub(super) async fn of_response(shared: &Shared, response: Response) -> Failure {
    let status = response.status();
    let body = match tokio::time::timeout(shared.patience, read_some(response, ERROR_BYTES_MAX)).await {
        Ok(Ok(body)) => body,
        Ok(Err(_)) | Err(_) => Vec::new(),
    };
    of_status(shared.redacting(), status, &body)
}

/// What a status and what came with it mean.
pub(super) fn of_status(redacting: Redacting<'_>, status: StatusCode, body: &[u8]) -> Failure {
    let said = said(body);
    let quoted = match &said {
        Some((message, _)) => format!(": \"{}\"", redacting.line(message)),
        None => String::new(),
    };
    match status.as_u16() {
        400 | 413 | 422 => {
            let code = match &said {
                Some((message, code)) if is_context(message, code) => FailureCode::ContextLengthExceeded,
                _ => FailureCode::BadRequest,
            };
            Failure::new(code, format!("the operator's upstream refuses the request ({status}){quoted}"))
        }
        // Who is told what a key is wrong with is the operator.
        401 | 403 => {
            Failure::ours(format!("the operator's upstream does not accept the operator's key ({status})"))
        }
        402 => Failure::ours(format!("the operator's account at its upstream is used up ({status})")),
        404 => Failure::ours(format!("the operator's upstream does not have the model ({status})")),
        408 | 425 | 429 | 503 | 529 => {
            Failure::new(FailureCode::Overloaded, format!("the operator's upstream is overloaded ({status})"))
        }
        300..=399 => Failure::ours(format!(
            "the operator's upstream points elsewhere, which is not followed ({status})"
        )),
        _ => Failure::ours(format!("the operator's upstream failed ({status}){quoted}")),
    }
}

/// What an upstream's error says, and its code, where it is written as OpenAI writes it.
pub(super) fn said(body: &[u8]) -> Option<(String, String)> {
    let value: Value = serde_json::from_slice(body).ok()?;
    said_in(value.get("error").unwrap_or(&value))
}

/// The same of the error alone.
pub(super) fn said_in(error: &Value) -> Option<(String, String)> {
    if let Some(text) = error.as_str() {
        return Some((text.to_owned(), String::new()));
    }
    let text = |name: &str| error.get(name).and_then(Value::as_str).unwrap_or_default();
    let code = [text("code"), text("type")].join(" ");
    (!text("message").is_empty()).then(|| (text("message").to_owned(), code))
}

fn is_context(message: &str, code: &str) -> bool {
    let message = message.to_lowercase();
    code.contains("context_length_exceeded")
        || code.contains("exceed_context_size")
        || message.contains("maximum context length")
        || message.contains("context window")
}
