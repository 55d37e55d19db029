//! Standing: what the ledger knows of an operator: audits, misses, claims, disputes and what they ended with.
//!
//! In:     GET requests, by an account that answers for workers this gateway knows. Out: the record, as proven to this gateway.
//! Touches: the ledger, through the payer's account.
//! Holds:  each operator is asked about once for all who look; a ledger that does not answer is an error, and never a clean record.
//! Absent: what became of orders here (`network`); what is known of one receipt (`ledger`).

use std::{sync::Arc, time::Duration};

use alloy_primitives::Address;
use axum::{
    extract::{Path, State, rejection::PathRejection},
    http::HeaderMap,
    response::Response,
};
use serde::Serialize;
use surety_client::{Account, AccountError, channel::view, ledger::rechecked::Verdict};
use surety_types::abi::{IAudits, IClaims, IDisputes, IOperators, IStaking, Module};
use tokio::time::timeout;
use utoipa::ToSchema;

use super::{
    fields::quote,
    ledger::{busy, too_late, unasked},
    look::path_text,
};
use crate::{
    error::{ApiError, Code, ErrorBody},
    gateway::Shared,
};

/// How old it may be.
const AGE_MAX: Duration = Duration::from_millis(700);
const TIMEOUT: Duration = Duration::from_secs(20);
/// Disputes that are told of, the latest.
const DISPUTES_MAX: usize = 20;
/// Pages of the list of disputes that are turned to find them.
const PAGES_MAX: usize = 16;

/// What the ledger knows of an operator, proven to this gateway. Amounts are wei, as decimal text.
#[derive(Debug, Serialize, ToSchema)]
pub struct OperatorOnLedger {
    /// The account.
    pub operator: String,
    /// What is bonded to it.
    pub bonded_wei: String,
    /// Of a million of its receipts, so many are drawn for audits.
    pub audit_ppm: u64,
    pub audits_passed: u64,
    /// Draws it did not answer for: each raises the rate and takes of its pay.
    pub audits_missed: u64,
    /// Draws that no auditor came through with.
    pub audits_unconfirmed: u64,
    /// Audits in which auditor and worker found different things: a dispute says who lied.
    pub audits_differing: u64,
    /// Its pay is withheld until this epoch begins; zero if it is not.
    pub withheld_until_epoch: u64,
    /// What was claimed for it since its last log that is closed, and what its stake can answer for.
    pub exposure_wei: String,
    pub exposure_cap_wei: String,
    /// Claims that it left an order unanswered: it showed a receipt; one for a failure; its payer was compensated of its stake.
    pub claims_answered: u64,
    pub claims_failed: u64,
    pub claims_compensated: u64,
    /// Unix seconds: its workers are out of service until then; zero if they are not.
    pub jailed_until: u64,
    /// Disputes about its receipts, the latest first.
    pub disputes: Vec<DisputeNote>,
    /// Earlier ones, of which nothing is told here.
    pub disputes_left_out: u64,
}

/// A dispute about a receipt. Its evidence is on the ledger: `surety dispute show` reads it, and judges it again.
#[derive(Debug, Serialize, ToSchema)]
pub struct DisputeNote {
    pub id: u64,
    /// The receipt's digest, and its worker's key.
    pub receipt: String,
    pub worker: String,
    /// How it stands, in words.
    pub state: &'static str,
    pub is_open: bool,
    /// Whether the operator was convicted.
    pub is_convicted: bool,
}

/// What the ledger knows of an operator: audits, misses, claims, disputes.
#[utoipa::path(get, path = "/v1/network/operators/{id}/ledger", tag = "network", params(
    ("id" = String, Path, description = "The operator's account."),
), responses(
    (status = 200, description = "Its record.", body = OperatorOnLedger),
    (status = 304, description = "As it was."),
    (status = 404, description = "No worker that is known is that operator's. `no_ledger`: this gateway uses none.", body = ErrorBody),
    (status = 503, description = "`ledger_unavailable`: it cannot be asked now.", body = ErrorBody),
))]
pub(super) async fn standing(
    State(shared): State<Arc<Shared>>,
    asked: Result<Path<String>, PathRejection>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let asked = path_text(asked)?;
    let payer = shared.workers.payer().ok_or_else(|| {
        ApiError::new(
            Code::NoLedger,
            "This gateway uses no ledger: its workers have no stake, and nobody audits them.",
        )
    })?;
    let operator = known(&shared, &asked)?;
    let made = async {
        let _turn = payer.looks.try_acquire().map_err(|_| busy())?;
        let found = timeout(TIMEOUT, record(payer.account(), operator)).await.map_err(|_| too_late())?;
        found.map_err(|error| unasked(&error))
    };
    let fresh = shared.views.of_operator(&shared, &operator.to_string()).ledger;
    Ok(fresh.get_from_afar(AGE_MAX, made).await?.response(&headers))
}

/// Only who is known here is asked about.
pub(super) fn known(shared: &Shared, asked: &str) -> Result<Address, ApiError> {
    let operator = shared.workers.operators().into_values().find(|known| known.eq_ignore_ascii_case(asked));
    operator.and_then(|known| known.parse().ok()).ok_or_else(|| {
        let message = format!("No worker that this gateway knows is of the operator \"{}\".", quote(asked));
        ApiError::new(Code::NotFound, message).with_param("id")
    })
}

async fn record(account: &dyn Account, operator: Address) -> Result<OperatorOnLedger, AccountError> {
    let standing = view(account, Module::Audits, &IAudits::standingOfCall { operator }).await?;
    let exposure = view(account, Module::Audits, &IAudits::exposureOfCall { operator }).await?;
    let claims = view(account, Module::Claims, &IClaims::recordOfCall { operator }).await?;
    let bonded = view(account, Module::Staking, &IStaking::bondedToCall { operator }).await?;
    let jailed_until = view(account, Module::Operators, &IOperators::jailedUntilCall { operator }).await?;
    let ids = disputes(account, operator).await?;
    let mut found = Vec::new();
    for id in ids.iter().rev().take(DISPUTES_MAX) {
        let dispute = view(account, Module::Disputes, &IDisputes::disputesCall { id: *id }).await?;
        let verdict = Verdict { state: dispute.state };
        found.push(DisputeNote {
            id: *id,
            receipt: dispute.receipt.to_string(),
            worker: dispute.worker.to_string(),
            state: verdict.reason(),
            is_open: dispute.state == 1,
            is_convicted: verdict.is_conviction(),
        });
    }
    Ok(OperatorOnLedger {
        operator: operator.to_string(),
        bonded_wei: bonded.to_string(),
        audit_ppm: standing.ratePpm,
        audits_passed: standing.passed,
        audits_missed: standing.missed,
        audits_unconfirmed: standing.unconfirmed,
        audits_differing: standing.differing,
        withheld_until_epoch: standing.withheldUntil,
        exposure_wei: exposure.exposure.to_string(),
        exposure_cap_wei: exposure.cap.to_string(),
        claims_answered: claims.answered,
        claims_failed: claims.failed,
        claims_compensated: claims.compensated,
        jailed_until,
        disputes_left_out: ids.len().saturating_sub(found.len()) as u64,
        disputes: found,
    })
}

/// Disputes about an operator's receipts, in the order in which they were opened.
async fn disputes(account: &dyn Account, operator: Address) -> Result<Vec<u64>, AccountError> {
    let mut ids: Vec<u64> = Vec::new();
    for _ in 0..PAGES_MAX {
        let call = IDisputes::disputesOfCall { operator, offset: ids.len() as u64 };
        let page = view(account, Module::Disputes, &call).await?;
        if page.is_empty() {
            break;
        }
        ids.extend(page);
    }
    Ok(ids)
}
