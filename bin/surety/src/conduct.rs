//! Conduct: what the ledger knows of operators and of receipts, in words and as JSON.
//!
//! In:     records. Out: rows for pages; lines for one receipt.
//! Touches: the network, through the ledger.
//! Holds:  what nobody re-checked is said to be so; what cannot be read is unknown, and never nothing.
//! Absent: proofs (`client::ledger`).

use alloy_primitives::{Address, U256};
use serde::Serialize;
use surety_client::ledger::{
    Ledger,
    records::{Disputes, OperatorRecord, ReceiptRecord},
};
use surety_types::abi::{IAudits, IDisputes};
use surety_worker::dispute::Verdict;

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

/// What the ledger knows of a receipt.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Rechecked {
    /// Who answers for the worker.
    pub operator: Option<String>,
    /// The last epoch for which it has posted the log of its receipts.
    pub log_posted_to_epoch: Option<u64>,
    /// Whether the receipt was drawn for an audit and disclosed.
    pub drawn: bool,
    /// How far the audit is: disclosed, no answer to compute, committed, revealed, passed, differing.
    pub audit: Option<&'static str>,
    /// Who computed it again, or is to.
    pub auditor: Option<String>,
    /// The last dispute about it, and its state.
    pub dispute: Option<u64>,
    pub dispute_state: Option<&'static str>,
    /// It is under way.
    pub contested: bool,
    pub convicted: bool,
    /// The claim that its order was not answered, and whether that was compensated.
    pub claim: Option<u64>,
    pub compensated: bool,
    /// The same in words, for people.
    pub said: Vec<String>,
}

/// What the ledger knows of a receipt, in words.
pub fn rechecked(record: &ReceiptRecord) -> Rechecked {
    let mut said = Vec::new();
    match (record.operator, record.posted) {
        (None, _) => {
            said.push("the ledger does not know the worker's key: nobody audits its receipts".to_owned())
        }
        (Some(operator), None) => {
            said.push(format!("its operator {operator} has posted no log of receipts yet"))
        }
        (Some(operator), Some((epoch, _))) => {
            said.push(format!(
                "its operator {operator} has posted the logs of its receipts up to epoch {epoch}"
            ));
        }
    }
    let audit = record.audit.as_ref().map(|(_, audit)| audit);
    said.push(match audit {
        None => "not drawn: no audit re-checked it, as far as the ledger shows by now".to_owned(),
        Some(audit) => format!("drawn for an audit: {}", told(audit)),
    });
    let verdict = record.dispute.as_ref().map(|(id, dispute)| (*id, Verdict { state: dispute.state }));
    if let Some((id, verdict)) = verdict {
        said.push(format!("disputed (dispute {id}): {}", verdict.reason()));
    }
    if let Some((id, claim)) = &record.claim {
        let state = match claim.state {
            1 => "it waits for the worker's receipt",
            2 => "the worker showed a receipt",
            3 => "the worker showed a receipt for a failure",
            _ => "the payer was compensated",
        };
        said.push(format!("its order was claimed not to be answered (claim {id}): {state}"));
    }
    Rechecked {
        operator: record.operator.map(|operator| operator.to_string()),
        log_posted_to_epoch: record.posted.map(|(epoch, _)| epoch),
        drawn: audit.is_some(),
        audit: audit.map(status),
        auditor: audit.filter(|audit| !audit.auditor.is_zero()).map(|audit| audit.auditor.to_string()),
        dispute: verdict.map(|(id, _)| id),
        dispute_state: verdict.map(|(_, verdict)| verdict.reason()),
        contested: verdict.is_some_and(|(_, verdict)| verdict.state == 1),
        convicted: verdict.is_some_and(|(_, verdict)| verdict.is_conviction()),
        claim: record.claim.as_ref().map(|(id, _)| *id),
        compensated: record.claim.as_ref().is_some_and(|(_, claim)| claim.state == 4),
        said,
    }
}

fn status(audit: &IAudits::Audit) -> &'static str {
    match audit.status {
        1 => "disclosed",
        2 => "no answer to compute",
        3 => "committed",
        4 => "revealed",
        5 => "passed",
        6 => "differing",
        _ => "unknown",
    }
}

fn told(audit: &IAudits::Audit) -> String {
    let by = audit.auditor;
    match audit.status {
        1 => "disclosed; nobody has computed it again yet".to_owned(),
        2 => "it is for a failure, which there is nothing to compute of".to_owned(),
        3 | 4 => format!("{by} computes it again; there is no result yet"),
        5 => format!("PASSED: {by} computed it again and found the same, to the bit"),
        6 => format!("DIFFERING: {by} computed something else; a dispute says who is right"),
        _ => "this version does not know its state".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use alloy_primitives::B256;

    use super::*;

    fn record(status: Option<u8>, state: Option<u8>) -> ReceiptRecord {
        let audit = |status| IAudits::Audit {
            status,
            index: 0,
            receipt: B256::ZERO,
            worker: B256::ZERO,
            model: B256::ZERO,
            stateCommitment: B256::ZERO,
            evidence: B256::ZERO,
            charge: 0,
            disclosedIn: 1,
            due: 0,
            auditor: Address::repeat_byte(7),
            auditorKey: B256::ZERO,
            commitment: B256::ZERO,
            found: B256::ZERO,
        };
        let dispute = |state| IDisputes::Dispute {
            order: B256::ZERO,
            receipt: B256::ZERO,
            worker: B256::ZERO,
            operator: Address::ZERO,
            challenger: Address::ZERO,
            payee: Address::ZERO,
            state,
            turn: 0,
            words: 1,
            openedAt: 0,
            moveUntil: 0,
            moves: 1,
            bond: U256::ZERO,
            defence: U256::ZERO,
            paid: U256::ZERO,
            owed: U256::ZERO,
        };
        ReceiptRecord {
            operator: Some(Address::repeat_byte(1)),
            posted: Some((9, 3)),
            audit: status.map(|status| (B256::ZERO, audit(status))),
            dispute: state.map(|state| (4, dispute(state))),
            claim: None,
        }
    }

    #[test]
    fn what_nobody_looked_at_is_said_to_be_so() {
        let nothing = rechecked(&record(None, None));
        assert!(!nothing.drawn && nothing.auditor.is_none() && !nothing.convicted);
        assert!(nothing.said.iter().any(|line| line.starts_with("not drawn: no audit re-checked it")));
        let waiting = rechecked(&record(Some(1), None));
        assert!(
            waiting.drawn
                && waiting.said.iter().any(|line| line.contains("nobody has computed it again yet"))
        );
        let passed = rechecked(&record(Some(5), None));
        assert_eq!((passed.audit, passed.auditor.is_some()), (Some("passed"), true));
        assert!(passed.said.iter().any(|line| line.contains("found the same, to the bit")));
        let convicted = rechecked(&record(Some(6), Some(2)));
        assert!(convicted.convicted && convicted.said.iter().any(|line| line.contains("dispute 4")));
        let unknown = rechecked(&ReceiptRecord { operator: None, posted: None, ..record(None, None) });
        assert!(unknown.said[0].contains("does not know the worker's key"));
    }
}
