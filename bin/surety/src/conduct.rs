//! Conduct: what the ledger knows of operators, in words and as JSON.
//!
//! In:     records. Out: rows for pages.
//! Touches: the network, through the ledger.
//! Holds:  what cannot be read is unknown, and never nothing.
//! Absent: proofs, and what is known of one receipt (`client::ledger`).

use alloy_primitives::{Address, U256};
use serde::Serialize;
pub use surety_client::ledger::rechecked::{Rechecked, rechecked};
use surety_client::ledger::{
    Ledger,
    records::{Disputes, OperatorRecord},
};
use surety_types::abi::IDisputes;

use crate::look::credits;

/// Operators whose records are looked at.
const RECORDS_MAX: usize = 64;

/// An operator's conduct. Amounts are wei, as decimal text.
#[derive(Clone, Debug, Serialize)]
pub struct Conduct {
    pub operator: String,
    /// Of a million of its receipts, so many are drawn.
    pub audit_ppm: u64,
    pub audits_passed: u64,
    /// Draws it did not answer for.
    pub audits_missed: u64,
    /// Draws that no auditor came through with.
    pub audits_unconfirmed: u64,
    /// Audits in which auditor and worker found different things.
    pub audits_differing: u64,
    /// Its pay is withheld until this epoch begins; zero if it is not.
    pub withheld_until_epoch: u64,
    /// What is set aside for auditors of its receipts.
    pub auditors_pool: String,
    /// What was claimed for it since the last log that is closed.
    pub exposure: String,
    /// What its stake can answer for at its rate of audits.
    pub exposure_cap: String,
    /// Claims that it left an order unanswered: a receipt was shown, of those a failure's, compensated.
    pub claims_answered: u64,
    pub claims_failed: u64,
    pub claims_compensated: u64,
    /// Of the latest disputes.
    pub disputes_open: u64,
    pub convictions: u64,
    pub disputes_dismissed: u64,
    /// Unix seconds; its workers are out of service until then.
    pub jailed_until: u64,
}

/// What was re-checked on a ledger.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Conducts {
    pub operators: Vec<Conduct>,
    /// Operators whose record cannot be read now.
    pub unknown: Vec<String>,
    /// Disputes that there were, and those that the counts are of.
    pub disputes: u64,
    pub disputes_looked_at: u64,
}

/// Looks at every operator's conduct.
pub async fn conducts(ledger: &Ledger, operators: &[Address]) -> Conducts {
    let disputes = ledger.disputes().await;
    let mut found = Conducts::default();
    let known = disputes.unwrap_or_default();
    (found.disputes, found.disputes_looked_at) = (known.count, known.latest.len() as u64);
    for (index, operator) in operators.iter().enumerate() {
        // One whose record is too long to be proven at once hides no other's.
        let record = match index < RECORDS_MAX {
            true => ledger.operator_record(*operator).await.ok(),
            false => None,
        };
        match record {
            Some(record) => found.operators.push(conduct(*operator, &record.value, &known)),
            None => found.unknown.push(operator.to_string()),
        }
    }
    found
}

fn conduct(operator: Address, record: &OperatorRecord, disputes: &Disputes) -> Conduct {
    let OperatorRecord { standing, exposure, claims, jailed_until } = record;
    let count = |wanted: fn(&IDisputes::Dispute) -> bool| {
        let about = disputes.latest.iter().filter(|(_, dispute)| dispute.operator == operator);
        about.filter(|(_, dispute)| wanted(dispute)).count() as u64
    };
    Conduct {
        operator: operator.to_string(),
        audit_ppm: standing.ratePpm,
        audits_passed: standing.passed,
        audits_missed: standing.missed,
        audits_unconfirmed: standing.unconfirmed,
        audits_differing: standing.differing,
        withheld_until_epoch: standing.withheldUntil,
        auditors_pool: standing.pool.to_string(),
        exposure: exposure.exposure.to_string(),
        exposure_cap: exposure.cap.to_string(),
        claims_answered: claims.answered,
        claims_failed: claims.failed,
        claims_compensated: claims.compensated,
        disputes_open: count(|dispute| dispute.state == 1),
        convictions: count(|dispute| (2..=7).contains(&dispute.state)),
        disputes_dismissed: count(|dispute| matches!(dispute.state, 8 | 9)),
        jailed_until: *jailed_until,
    }
}

/// Rows for a page: a title for each column, then each operator.
pub fn rows(conducts: &Conducts) -> Vec<Vec<String>> {
    let titles = [
        "  operator",
        "audited",
        "passed",
        "missed",
        "unconfirmed",
        "differing",
        "exposure of cap",
        "claims paid",
        "disputes",
    ];
    let mut rows = vec![titles.map(str::to_owned).to_vec()];
    let amount = |text: &str| credits(text.parse::<U256>().unwrap_or_default());
    rows.extend(conducts.operators.iter().map(|of| {
        let disputes = match (of.disputes_open, of.convictions, of.disputes_dismissed) {
            (0, 0, 0) => "none".to_owned(),
            (open, convicted, dismissed) => {
                format!("{convicted} convicted, {open} open, {dismissed} dismissed")
            }
        };
        vec![
            format!("  {}", &of.operator[..10.min(of.operator.len())]),
            format!("{} %", of.audit_ppm as f64 / 10_000.0),
            of.audits_passed.to_string(),
            of.audits_missed.to_string(),
            of.audits_unconfirmed.to_string(),
            of.audits_differing.to_string(),
            format!("{} of {}", amount(&of.exposure), amount(&of.exposure_cap)),
            of.claims_compensated.to_string(),
            disputes,
        ]
    }));
    rows
}
