//! Surveys: the pages about the ledger itself, for anyone.
//!
//! In:     GET requests. Out: powers, economics, governance, as JSON, each with the block it is as of.
//! Touches: nothing itself.
//! Holds:  what is told is public: it is on the ledger, and proven to this gateway; where something is only a node's word, the field says so.
//! Absent: computing them (`crate::surveys`).

use std::sync::Arc;

use axum::{extract::State, http::HeaderMap, response::Response};

use crate::{
    error::{ApiError, Code, ErrorBody},
    gateway::Shared,
    surveys::Surveys,
};

/// Who controls what, computed from proven state: stage, alarms, powers, how few it takes.
///
/// As `surety powers --json` says it, by this gateway's word; that command has it proven to you.
#[utoipa::path(get, path = "/v1/network/powers", tag = "network", params(
    ("if-none-match" = Option<String>, Header, description = "The `etag` of what the caller has."),
), responses(
    (status = 200, description = "As of the block `number`; `etag` names it.", body = serde_json::Value),
    (status = 304, description = "It is what the caller has."),
    (status = 404, description = "`no_ledger`: this gateway uses none.", body = ErrorBody),
    (status = 503, description = "`ledger_unavailable`: it cannot be asked now.", body = ErrorBody),
))]
pub(super) async fn powers(
    State(shared): State<Arc<Shared>>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    Ok(surveys(&shared)?.powers().await?.response(&headers))
}

/// What there is, where it is, who paid whom, what answers for it. Amounts are wei, as decimal text.
///
/// As `surety economics --json` says it. What happened in an epoch is a node's word; everything else is proven to this gateway.
#[utoipa::path(get, path = "/v1/network/economics", tag = "network", params(
    ("if-none-match" = Option<String>, Header, description = "The `etag` of what the caller has."),
), responses(
    (status = 200, description = "As of the block `number`; `etag` names it.", body = serde_json::Value),
    (status = 304, description = "It is what the caller has."),
    (status = 404, description = "`no_ledger`: this gateway uses none.", body = ErrorBody),
    (status = 503, description = "`ledger_unavailable`: it cannot be asked now.", body = ErrorBody),
))]
pub(super) async fn economics(
    State(shared): State<Arc<Shared>>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    Ok(surveys(&shared)?.economics().await?.response(&headers))
}

/// What can be decided by vote, and what is being decided: parameters, and proposals as `surety gov list --json` says them.
///
/// Titles are a node's word; everything else is proven to this gateway.
#[utoipa::path(get, path = "/v1/network/governance", tag = "network", params(
    ("if-none-match" = Option<String>, Header, description = "The `etag` of what the caller has."),
), responses(
    (status = 200, description = "As of the block `number`; `etag` names it.", body = serde_json::Value),
    (status = 304, description = "It is what the caller has."),
    (status = 404, description = "`no_ledger`: this gateway uses none.", body = ErrorBody),
    (status = 503, description = "`ledger_unavailable`: it cannot be asked now.", body = ErrorBody),
))]
pub(super) async fn governance(
    State(shared): State<Arc<Shared>>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    Ok(surveys(&shared)?.governance().await?.response(&headers))
}

pub(super) fn surveys(shared: &Shared) -> Result<&Surveys, ApiError> {
    shared.surveys.as_ref().ok_or_else(|| {
        let message = "This gateway uses no ledger: nothing here is bonded, paid or decided by vote.";
        ApiError::new(Code::NoLedger, message)
    })
}
