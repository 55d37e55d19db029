//! Dialect: in whose words errors are told.
//!
//! In:     a request's path and headers; a failure. Out: the error as that protocol's clients read it.
//! Touches: nothing.
//! Holds:  whatever goes wrong on a protocol's path, a panic included, is told in that protocol's shape, with the code of the
//!         catalogue in it; what tells clients whether to try again is the same in all of them.
//! Absent: what goes wrong (`error`).

use axum::{
    body::Body,
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode},
    response::Response,
};
use bytes::Bytes;
use serde::Serialize;
use serde_json::{Value, json};
use utoipa::ToSchema;

use super::{hub, mcp};
use crate::{
    error::{ApiError, Code, ErrorMetadata},
    id::RequestId,
};

/// Anthropic's clients send it with every request.
pub(crate) const VERSION: &str = "anthropic-version";
/// Where they look for the request's id.
const REQUEST_ID: HeaderName = HeaderName::from_static("request-id");
/// JSON-RPC's, for what is no fault of a message.
const SERVER_ERROR: i32 = -32000;

/// Whose clients ask.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Dialect {
    OpenAi,
    Anthropic,
    Ollama,
    Hub,
    Mcp,
}

impl Dialect {
    /// By the path, and where several share one by the header.
    pub(crate) fn of(path: &str, headers: &HeaderMap) -> Dialect {
        let under = |root: &str| {
            path.strip_prefix(root).is_some_and(|rest| matches!(rest.bytes().next(), None | Some(b'/')))
        };
        if hub::is_hubs(path) {
            Dialect::Hub
        } else if under("/api") {
            Dialect::Ollama
        } else if under("/mcp") {
            Dialect::Mcp
        } else if under("/v1/messages") || headers.contains_key(VERSION) {
            Dialect::Anthropic
        } else {
            Dialect::OpenAi
        }
    }

    /// The whole HTTP answer.
    pub(crate) fn render(self, failure: &ApiError, id: &RequestId) -> Response {
        let mut response = failure.render(id);
        let body = match self {
            Dialect::OpenAi => return response,
            Dialect::Anthropic => {
                if failure.code() == Code::Overloaded {
                    *response.status_mut() = overloaded();
                }
                serde_json::to_vec(&MessageErrorBody::new(failure, id))
            }
            Dialect::Hub => {
                hub::mark(failure, response.headers_mut());
                serde_json::to_vec(&OllamaErrorBody::new(failure, id))
            }
            Dialect::Ollama => serde_json::to_vec(&OllamaErrorBody::new(failure, id)),
            Dialect::Mcp => serde_json::to_vec(&rpc_error(failure, id)),
        };
        *response.body_mut() = Body::from(body.expect("an error object is JSON"));
        response
    }

    /// What every answer carries, whatever came of it.
    pub(crate) fn mark(self, headers: &mut HeaderMap, id: &HeaderValue) {
        if self == Dialect::Anthropic {
            headers.insert(REQUEST_ID, id.clone());
        }
    }
}

/// Anthropic's own, of which HTTP knows nothing.
fn overloaded() -> StatusCode {
    StatusCode::from_u16(529).expect("a number of three digits")
}

/// `{"type": "error", …}` as Anthropic shapes it.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct MessageErrorBody {
    /// `error`.
    #[serde(rename = "type")]
    kind: &'static str,
    error: MessageError,
    /// As in the `request-id` header.
    request_id: String,
}

/// What happened.
#[derive(Debug, Serialize, ToSchema)]
struct MessageError {
    /// The family of the error, by Anthropic's names.
    #[serde(rename = "type")]
    kind: &'static str,
    /// What happened, who, what to do, and the request id.
    message: String,
    details: ErrorDetails,
}

/// What programs may want to know.
#[derive(Debug, Serialize, ToSchema)]
struct ErrorDetails {
    /// The stable code.
    error_code: &'static str,
    /// The parameter at fault, if one is.
    param: Option<String>,
    metadata: ErrorMetadata,
}

/// `{"error": "…"}` as Ollama and hubs shape it, with the stable code beside it.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct OllamaErrorBody {
    /// What happened, who, what to do, and the request id.
    error: String,
    /// The stable code.
    code: &'static str,
    /// The parameter at fault, if one is.
    param: Option<String>,
    metadata: ErrorMetadata,
}

impl MessageErrorBody {
    pub(crate) fn new(failure: &ApiError, id: &RequestId) -> Self {
        let error = failure.body(id).error;
        let details = ErrorDetails { error_code: error.code, param: error.param, metadata: error.metadata };
        let error = MessageError { kind: family(failure.code().status()), message: error.message, details };
        Self { kind: "error", error, request_id: id.to_string() }
    }
}

impl OllamaErrorBody {
    pub(crate) fn new(failure: &ApiError, id: &RequestId) -> Self {
        let error = failure.body(id).error;
        Self { error: error.message, code: error.code, param: error.param, metadata: error.metadata }
    }
}

/// Anthropic's name for what a status tells.
///
/// Source: Anthropic, *Errors*.
fn family(status: StatusCode) -> &'static str {
    match status.as_u16() {
        401 => "authentication_error",
        402 => "billing_error",
        403 => "permission_error",
        404 => "not_found_error",
        413 => "request_too_large",
        429 => "rate_limit_error",
        503 | 529 => "overloaded_error",
        504 => "timeout_error",
        400..=499 => "invalid_request_error",
        _ => "api_error",
    }
}

/// A failure as JSON-RPC shapes it, with all that is known of it as `data`; whose message it was is not known.
fn rpc_error(failure: &ApiError, id: &RequestId) -> Value {
    let code = if failure.code() == Code::InvalidUtf8 { mcp::PARSE_ERROR } else { SERVER_ERROR };
    let error = failure.body(id).error;
    json!({"jsonrpc": "2.0", "id": null, "error": {"code": code, "message": error.message.as_str(), "data": error}})
}

/// A failure as the last event of a stream of messages.
pub(crate) fn message_frame(failure: &ApiError, id: &RequestId) -> Bytes {
    let json = serde_json::to_string(&MessageErrorBody::new(failure, id)).expect("an error object is JSON");
    Bytes::from(format!("event: error\ndata: {json}\n\n"))
}

/// A failure as the last line of a stream of objects.
pub(crate) fn ollama_line(failure: &ApiError, id: &RequestId) -> Bytes {
    let mut line = serde_json::to_vec(&OllamaErrorBody::new(failure, id)).expect("an error object is JSON");
    line.push(b'\n');
    Bytes::from(line)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_path_or_the_header_says_who_asks() {
        let (none, mut version) = (HeaderMap::new(), HeaderMap::new());
        version.insert(VERSION, HeaderValue::from_static("2023-06-01"));
        for (path, headers, dialect) in [
            ("/v1/chat/completions", &none, Dialect::OpenAi),
            ("/v1/models", &none, Dialect::OpenAi),
            ("/v1/models", &version, Dialect::Anthropic),
            ("/nowhere", &version, Dialect::Anthropic),
            ("/v1/messages", &none, Dialect::Anthropic),
            ("/v1/messages/count_tokens", &none, Dialect::Anthropic),
            ("/v1/messagesque", &none, Dialect::OpenAi),
            ("/api", &none, Dialect::Ollama),
            ("/api/chat", &version, Dialect::Ollama),
            ("/apis", &none, Dialect::OpenAi),
            ("/api/models", &version, Dialect::Hub),
            ("/api/models/a/b", &none, Dialect::Hub),
            ("/a/b/resolve/main/c", &none, Dialect::Hub),
            ("/mcp", &version, Dialect::Mcp),
        ] {
            assert_eq!(Dialect::of(path, headers), dialect, "{path}");
        }
    }

    #[test]
    fn every_code_has_a_family_that_anthropic_knows() {
        for code in Code::ALL {
            let family = family(code.status());
            assert_eq!(family == "api_error", [500, 502].contains(&code.status().as_u16()), "{code:?}");
        }
        assert_eq!(family(Code::ModelUnknown.status()), "not_found_error");
        assert_eq!(family(Code::WorkerStalled.status()), "timeout_error");
    }
}
