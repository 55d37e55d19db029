//! Conduct: what the ledger knows of all operators' audits, claims and disputes.
//!
//! In:     a ledger, its operators. Out: a record each, as the commands and the gateway show it.
//! Touches: the network, through the ledger.
//! Holds:  what cannot be read is unknown, and never nothing; so many records at most.
//! Absent: what is known of one receipt (`rechecked`); proofs (`records`).

use alloy_primitives::Address;
use serde::Serialize;
use surety_types::abi::IDisputes;
use tokio::task::JoinSet;

use super::{
    Ledger,
    records::{Disputes, OperatorRecord},
};

/// Operators whose records are looked at.
const RECORDS_MAX: usize = 64;
/// Records that are asked for at once.
const TOGETHER: usize = 8;

/// An operator's conduct. Amounts are wei, as decimal text.
#[derive(Clone, Debug, Serialize)]
pub struct Conduct {
    /// Its account.
    pub operator: String,
    /// Of a million of its receipts, so many are drawn.
    pub audit_ppm: u64,
    /// Draws it answered, and an auditor found the same.
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
    /// Claims that it left an order unanswered, for which it has shown a receipt.
    pub claims_answered: u64,
    /// For which it has shown that it failed.
    pub claims_failed: u64,
    /// For which its stake has compensated.
    pub claims_compensated: u64,
    /// Of the latest disputes: not over.
    pub disputes_open: u64,
    /// Of the latest disputes: it lost.
    pub convictions: u64,
    /// Of the latest disputes: the challenger lost.
    pub disputes_dismissed: u64,
    /// Unix seconds; its workers are out of service until then.
    pub jailed_until: u64,
}

/// What was re-checked on a ledger.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Conducts {
    /// Those whose record could be read.
    pub operators: Vec<Conduct>,
    /// Operators whose record cannot be read now.
    pub unknown: Vec<String>,
    /// Disputes that there were.
    pub disputes: u64,
    /// The latest of them, which the counts are of.
    pub disputes_looked_at: u64,
}

/// Looks at every operator's conduct.
pub async fn conducts(ledger: &Ledger, operators: &[Address]) -> Conducts {
    let disputes = ledger.disputes().await;
    let mut found = Conducts::default();
    let known = disputes.unwrap_or_default();
    (found.disputes, found.disputes_looked_at) = (known.count, known.latest.len() as u64);
    let (asked, left) = operators.split_at(operators.len().min(RECORDS_MAX));
    for operators in asked.chunks(TOGETHER) {
        let mut asking = JoinSet::new();
        for (index, operator) in operators.iter().copied().enumerate() {
            let ledger = ledger.clone();
            // One whose record is too long to be proven at once hides no other's.
            asking.spawn(async move { (index, operator, ledger.operator_record(operator).await.ok()) });
        }
        let mut records = asking.join_all().await;
        records.sort_unstable_by_key(|(index, ..)| *index);
        for (_, operator, record) in records {
            match record {
                Some(record) => found.operators.push(conduct(operator, &record.value, &known)),
                None => found.unknown.push(operator.to_string()),
            }
        }
    }
    found.unknown.extend(left.iter().map(ToString::to_string));
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
