//! Earnings: what the ledger shows that an operator was paid.
//!
//! In:     GET requests, by an account that answers for workers this gateway knows. Out: what is owed now, and what each epoch brought.
//! Touches: the ledger.
//! Holds:  each operator is asked about once for all who look; epochs that were added up are kept as long as the operator is known.
//! Absent: what is said of events (`client::ledger::earnings`); what a worker has not claimed yet, which only its book says.

use std::{
    sync::{Arc, PoisonError},
    time::Duration,
};

use axum::{
    extract::{Path, State, rejection::PathRejection},
    http::HeaderMap,
    response::Response,
};
use surety_client::ledger::earnings;
use tokio::time::timeout;

use super::{ledger::too_late, look::path_text, standing::known, surveys::surveys};
use crate::{
    error::{ApiError, ErrorBody},
    gateway::Shared,
    surveys::unavailable,
};

/// How old it may be.
const AGE_MAX: Duration = Duration::from_secs(1);
const TIMEOUT: Duration = Duration::from_secs(20);

/// What the ledger shows that an operator was paid. Amounts are wei, as decimal text.
///
/// What is claimed, settled, unpaid, due, held and bonded is proven to this gateway; what each epoch brought is what a node says of events.
#[utoipa::path(get, path = "/v1/network/operators/{id}/earnings", tag = "network", params(
    ("id" = String, Path, description = "The operator's account."),
), responses(
    (status = 200, description = "As of the block `number`; thirty epochs and the one that has not ended.", body = serde_json::Value),
    (status = 304, description = "As it was."),
    (status = 404, description = "No worker that is known is that operator's. `no_ledger`: this gateway uses none.", body = ErrorBody),
    (status = 503, description = "`ledger_unavailable`: it cannot be asked now.", body = ErrorBody),
))]
pub(super) async fn earnings(
    State(shared): State<Arc<Shared>>,
    asked: Result<Path<String>, PathRejection>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let asked = path_text(asked)?;
    let ledger = surveys(&shared)?.ledger();
    let operator = known(&shared, &asked)?;
    let views = shared.views.of_operator(&shared, &operator.to_string());
    let made = async {
        let before = views.epochs.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let found = timeout(TIMEOUT, earnings::earnings(ledger, operator, &before)).await;
        let found = found.map_err(|_| too_late())?.map_err(unavailable)?;
        found.epochs.clone_into(&mut views.epochs.lock().unwrap_or_else(PoisonError::into_inner));
        Ok(found)
    };
    Ok(views.earnings.get(AGE_MAX, made).await?.response(&headers))
}
