//! Explanation: what this gateway has to say of one request.
//!
//! In:     a request's id. Out: its signed statement, what workers signed, the evidence if there is any.
//! Touches: journal and receipts on disk, to read.
//! Holds:  only who knows the id, which nobody can guess, is told, and where there are keys only with the one that the
//!         request came with; nothing is concluded here.
//! Absent: who is accountable: whoever asks judges that by itself (`surety explain`).

use std::sync::Arc;

use axum::{
    extract::{Path, State, rejection::PathRejection},
    http::header,
    response::{IntoResponse, Response},
};
use serde_json::value::RawValue;
use surety_types::{Dossier, statement::DOSSIER_VERSION};
use tracing::error;

use super::{fields::quote, look::path_text, money::may_see};
use crate::{
    disk::FindError,
    error::{ApiError, Code, ErrorBody},
    gateway::Shared,
    id::RequestId,
    keys::Tenant,
    route::chain,
};

/// What became of a request, answered or not.
///
/// JSON that `surety explain` reads: what this gateway says of it under its signature, which workers were considered and what kept the
/// others out, what workers signed, and the evidence if it was answered.
#[utoipa::path(get, path = "/v1/requests/{id}/explanation", tag = "receipts", params(
    ("id" = String, Path, description = "`req_…`, `chatcmpl-…` or `cmpl-…`."),
), responses(
    (status = 200, description = "What is kept of it.", body = serde_json::Value),
    (status = 404, description = "Nothing is kept under that id, or it is still being answered.", body = ErrorBody),
))]
pub(super) async fn explanation(
    State(shared): State<Arc<Shared>>,
    asked: Result<Path<String>, PathRejection>,
) -> Result<Response, ApiError> {
    let dossier = gathered(&shared, &path_text(asked)?).await?;
    let json = serde_json::to_vec(&dossier).map_err(unsound)?;
    Ok(([(header::CONTENT_TYPE, "application/json")], json).into_response())
}

fn unsound(_: serde_json::Error) -> ApiError {
    ApiError::bug("what it keeps of a request is not JSON")
}

/// What is kept of a request.
pub(super) async fn gathered(shared: &Arc<Shared>, asked: &str) -> Result<Dossier, ApiError> {
    let Some(id) = RequestId::parse(asked) else {
        let message = format!(
            "\"{}\" is not a request id. Ids look like req_ and 32 digits, as in `x-request-id`.",
            quote(asked),
        );
        return Err(ApiError::new(Code::NotFound, message).with_param("id"));
    };
    let nothing_kept = || {
        let message = format!("Nothing is kept for {id}: it did not come here, or it is too old.");
        ApiError::new(Code::NotFound, message).with_param("id")
    };
    let unreadable = |error: FindError| {
        error!(error = chain(&error), "what is kept of a request cannot be read");
        ApiError::bug("what it keeps of requests cannot be read")
    };
    if shared.journal.is_under_way(id) {
        let message = format!("{id} is still being answered. Ask again when it has ended.");
        return Err(ApiError::new(Code::NotFound, message).with_param("id"));
    }
    let stated = match shared.journal.find(id).await.map_err(unreadable)? {
        Some(stated) => {
            let tenant = Tenant::current(&shared.keys)?;
            Some(stated.of_or_nobodys(tenant.key()).ok_or_else(nothing_kept)?)
        }
        // Of an answer more is known than what the gateway says of it.
        None if may_see(shared, id).await? => None,
        None => return Err(nothing_kept()),
    };
    let receipts = shared.receipts.clone();
    let evidence = tokio::task::spawn_blocking(move || receipts.find(id)).await;
    let evidence = evidence.map_err(|_| ApiError::bug("reading receipts panicked"))?.map_err(unreadable)?;
    if stated.is_none() && evidence.is_none() {
        return Err(nothing_kept());
    }
    let nothing = || Dossier {
        surety_dossier: DOSSIER_VERSION,
        request_id: id.to_string(),
        statement: None,
        papers: Vec::new(),
        evidence: None,
        ledger: None,
    };
    let evidence = evidence.map(|json| String::from_utf8_lossy(&json).into_owned());
    let evidence = evidence.map(RawValue::from_string).transpose().map_err(unsound)?;
    Ok(Dossier { evidence, ..stated.unwrap_or_else(nothing) })
}
