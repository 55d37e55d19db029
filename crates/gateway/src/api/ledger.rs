//! Ledger: what the ledger knows of the answers to a request that was answered here.
//!
//! In:     GET requests, by a request's id. Out: for each part, whether it is in a log, was drawn, audited, disputed, refunded.
//! Touches: the evidence on disk, to read; the ledger, through the payer's account; workers, for places in their logs.
//! Holds:  only what somebody signed is asked about; so many questions at once, and so long; a ledger that is not there or does
//!         not answer is an error of its own, and never "not audited".
//! Absent: what is said of a record (`client::ledger::rechecked`); who is accountable (`surety explain`).

use std::{sync::Arc, time::Duration};

use axum::{
    Json,
    extract::{Path, State, rejection::PathRejection},
};
use futures::future::try_join_all;
use surety_client::{
    Account, AccountError,
    inclusion::{self, Included},
    ledger::{rechecked::rechecked, records::ReceiptRecord},
};
use surety_types::{Acceptance, Answer, Digest, Evidence, Order, PublicKey, Receipt, Signed};
use tokio::time::timeout;
use tracing::debug;

use super::{
    look::{kept, readable},
    shapes::{InclusionOnLedger, PartOnLedger, ReceiptOnLedger},
};
use crate::{
    error::{ApiError, Code, ErrorBody},
    gateway::Shared,
};

/// Parts that are asked about, the first ones.
const PARTS_MAX: usize = 16;
/// For all of a request's parts.
const TIMEOUT: Duration = Duration::from_secs(20);
/// For a worker to say where a receipt stands: what the ledger knows does not wait for it any longer.
const WORKER_TIMEOUT: Duration = Duration::from_secs(3);

/// What the ledger knows of an answered request: audits, disputes, refunds.
///
/// Everything but which audit a receipt was drawn for is proven to this gateway; `surety verify` has it proven to you.
#[utoipa::path(get, path = "/v1/receipts/{id}/ledger", tag = "receipts", params(
    ("id" = String, Path, description = "`req_…`, `chatcmpl-…` or `cmpl-…`."),
), responses(
    (status = 200, description = "Each part of the answer.", body = ReceiptOnLedger),
    (status = 404, description = "Nothing is kept under that id. `no_ledger`: this gateway uses none.", body = ErrorBody),
    (status = 503, description = "`ledger_unavailable`: it cannot be asked now.", body = ErrorBody),
))]
pub(super) async fn receipt_ledger(
    State(shared): State<Arc<Shared>>,
    asked: Result<Path<String>, PathRejection>,
) -> Result<Json<ReceiptOnLedger>, ApiError> {
    let (id, json) = kept(&shared, asked).await?;
    let payer = shared.workers.payer().ok_or_else(|| {
        let message = "This gateway uses no ledger: its workers have no stake, and nobody audits or judges their receipts. \
                       `surety verify --recompute` computes the answer again.";
        ApiError::new(Code::NoLedger, message)
    })?;
    let evidence = readable(id, &json)?;
    let _turn = payer.looks.try_acquire().map_err(|_| busy())?;
    let parts =
        timeout(TIMEOUT, look_up(&shared, payer.account(), &evidence)).await.map_err(|_| too_late())??;
    let parts_left_out = evidence.answers.len().saturating_sub(PARTS_MAX) as u64;
    Ok(Json(ReceiptOnLedger { id: id.to_string(), object: "receipt.ledger", parts, parts_left_out }))
}

/// Why the ledger was not asked, or did not answer.
pub(super) fn busy() -> ApiError {
    ApiError::new(Code::LedgerUnavailable, "The ledger is being asked by others. Try again shortly.")
}

pub(crate) fn too_late() -> ApiError {
    ApiError::new(Code::LedgerUnavailable, "The ledger did not answer in time. Try again later.")
}

pub(super) fn unasked(error: &AccountError) -> ApiError {
    let message = format!("The ledger cannot be asked: {}. {}.", error.message, error.hint);
    ApiError::new(Code::LedgerUnavailable, message)
}

async fn look_up(
    shared: &Shared,
    account: &dyn Account,
    evidence: &Evidence,
) -> Result<Vec<PartOnLedger>, ApiError> {
    let mut known = Vec::new();
    for answer in evidence.answers.iter().take(PARTS_MAX) {
        let Some(signed) = SignedFor::of(answer) else { continue };
        let SignedFor { receipt, order, worker, .. } = signed;
        let record = account.answer_record(receipt, order, worker).await.map_err(|error| unasked(&error))?;
        known.push((signed, record));
    }
    let included =
        try_join_all(known.iter().map(|(signed, record)| included(shared, account, signed, record))).await?;
    Ok(known
        .iter()
        .zip(included)
        .map(|((signed, record), included)| part(signed, record, included))
        .collect())
}

/// What a worker signed about an order.
struct SignedFor {
    /// None if it accepted and broke off.
    receipt: Option<Digest>,
    order: Digest,
    worker: PublicKey,
    accepted: bool,
}

impl SignedFor {
    fn of(answer: &Answer) -> Option<SignedFor> {
        let order = Signed::<Order>::peek_value(&answer.order).ok()?.0.digest();
        let receipt = answer.receipt.as_ref().and_then(|receipt| Signed::<Receipt>::open(receipt).ok());
        if let Some(receipt) = receipt {
            let accepted = answer.acceptance.is_some();
            return Some(SignedFor {
                receipt: Some(receipt.digest()),
                order,
                worker: receipt.worker,
                accepted,
            });
        }
        let (acceptance, _) = Signed::<Acceptance>::peek_value(answer.acceptance.as_ref()?).ok()?;
        Some(SignedFor { receipt: None, order, worker: acceptance.worker, accepted: true })
    }
}

/// Whether the receipt is in its operator's log; none if there is nobody to ask. What follows no acceptance is in none.
async fn included(
    shared: &Shared,
    account: &dyn Account,
    signed: &SignedFor,
    record: &ReceiptRecord,
) -> Result<Option<Included>, ApiError> {
    let (Some(receipt), true, Some(operator)) = (signed.receipt, signed.accepted, record.operator) else {
        return Ok(None);
    };
    let Some(connection) = shared.workers.connection(&signed.worker) else { return Ok(None) };
    let said = match timeout(WORKER_TIMEOUT, connection.inclusion(receipt)).await {
        Ok(Ok(said)) => said,
        Ok(Err(error)) => {
            debug!(%error, "a worker does not say where a receipt stands in its log");
            return Ok(None);
        }
        Err(_) => return Ok(None),
    };
    let included = inclusion::checked(account, operator, &receipt, said).await;
    included.map(Some).map_err(|error| unasked(&error))
}

fn part(signed: &SignedFor, record: &ReceiptRecord, included: Option<Included>) -> PartOnLedger {
    let mut known = rechecked(record);
    known.said.extend(included.as_ref().map(Included::said));
    PartOnLedger {
        worker: signed.worker.to_string(),
        order: signed.order.to_string(),
        receipt: signed.receipt.map(|receipt| receipt.to_string()),
        operator: known.operator,
        log_posted_to_epoch: known.log_posted_to_epoch,
        inclusion: included.map(shown),
        drawn: known.drawn,
        audit: known.audit,
        audited_by: known.audited_by,
        auditor: known.auditor,
        confirmed: known.confirmed,
        dispute: known.dispute,
        dispute_state: known.dispute_state,
        contested: known.contested,
        convicted: known.convicted,
        refunded: known.refunded,
        refund_owed_wei: known.refund_owed,
        claim: known.claim,
        compensated: known.compensated,
        compensation_wei: known.compensation,
        said: known.said,
    }
}

fn shown(included: Included) -> InclusionOnLedger {
    let (state, epoch, proof) = match included {
        Included::Shown(proof) => ("included", Some(proof.epoch), Some(proof)),
        Included::NotYet { epoch } => ("not_yet", Some(epoch), None),
        Included::Refuted { epoch } => ("refuted", Some(epoch), None),
        Included::NotShown => ("not_shown", None, None),
    };
    InclusionOnLedger {
        state,
        epoch,
        index: proof.as_ref().map(|proof| proof.index),
        size: proof.as_ref().map(|proof| proof.size),
        root: proof.as_ref().map(|proof| proof.root.to_string()),
        path: proof.iter().flat_map(|proof| &proof.path).map(Digest::to_string).collect(),
    }
}
