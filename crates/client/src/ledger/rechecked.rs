//! Re-checked: what the ledger knows of one receipt, in words.
//!
//! In:     its record. Out: whether it was drawn, audited, disputed, refunded; the same in words, for people.
//! Touches: nothing.
//! Holds:  what nobody re-checked is said to be so; what this version does not know is said to be unknown.
//! Absent: asking the ledger (`records`); who is accountable for what (the binary).

use alloy_primitives::U256;
use serde::Serialize;
use surety_types::abi::IAudits;

use super::records::ReceiptRecord;

/// How a dispute stands or ended (`IDisputes.Dispute.state`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// The number of the state.
    pub state: u8,
}

impl Verdict {
    /// Whether the worker was convicted.
    pub fn is_conviction(self) -> bool {
        (2..=7).contains(&self.state) || self.state == 10
    }

    /// In words.
    pub fn reason(self) -> &'static str {
        match self.state {
            0 => "there is no such dispute",
            1 => "it is open",
            2 => "the worker's word is not what the arithmetic gives",
            3 => "the worker's own trace is not the receipt's",
            4 => "the worker was silent",
            5 => "the worker signed two answers to one order",
            6 => "the answer goes on past its end",
            7 => "the answer was stopped, and not by the model",
            8 => "the worker's word is right",
            9 => "the challenger was silent",
            10 => "the answer was convicted by other evidence",
            _ => "this version does not know the ledger's reason",
        }
    }
}

/// What the ledger knows of a receipt. Amounts are wei, as decimal text.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Rechecked {
    /// Who answers for the worker.
    pub operator: Option<String>,
    /// The last epoch for which it has posted the log of its receipts.
    pub log_posted_to_epoch: Option<u64>,
    /// Whether the receipt was drawn for an audit and disclosed.
    pub drawn: bool,
    /// How far the audit is: disclosed, no answer to compute, committed, revealed, passed, differing; or confidential by the payer's wish.
    pub audit: Option<&'static str>,
    /// Who computed it again, or is to.
    pub auditor: Option<String>,
    /// How many computed it again and said what they found.
    pub audited_by: u32,
    /// Whether that was the same, to the bit.
    pub confirmed: bool,
    /// The last dispute about it.
    pub dispute: Option<u64>,
    /// Its state, in words.
    pub dispute_state: Option<&'static str>,
    /// It is under way.
    pub contested: bool,
    /// It ended with a conviction.
    pub convicted: bool,
    /// Whether the payer has its refund; none without a conviction, or where another dispute's was the conviction.
    pub refunded: Option<bool>,
    /// What of the refund waits for the payer to show its channel.
    pub refund_owed: String,
    /// The claim that its order was not answered.
    pub claim: Option<u64>,
    /// Whether the worker showed a receipt for an answer to that.
    pub shown: bool,
    /// Whether that was compensated.
    pub compensated: bool,
    /// What compensated the payer.
    pub compensation: String,
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
    let (refunded, owed) = refund(record);
    match refunded {
        Some(true) => said.push("its payer has the refund".to_owned()),
        Some(false) if owed.is_zero() => said.push("there was nothing paid to refund".to_owned()),
        Some(false) => said.push("its refund waits for the payer to show its channel".to_owned()),
        None => {}
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
        audited_by: u32::from(audit.is_some_and(|audit| matches!(audit.status, 5 | 6))),
        confirmed: audit.is_some_and(|audit| audit.status == 5),
        auditor: audit.filter(|audit| !audit.auditor.is_zero()).map(|audit| audit.auditor.to_string()),
        dispute: verdict.map(|(id, _)| id),
        dispute_state: verdict.map(|(_, verdict)| verdict.reason()),
        contested: verdict.is_some_and(|(_, verdict)| verdict.state == 1),
        convicted: verdict.is_some_and(|(_, verdict)| verdict.is_conviction()),
        refunded,
        refund_owed: owed.to_string(),
        claim: record.claim.as_ref().map(|(id, _)| *id),
        shown: record.claim.as_ref().is_some_and(|(_, claim)| claim.state == 2),
        compensated: record.claim.as_ref().is_some_and(|(_, claim)| claim.state == 4),
        compensation: record.claim.as_ref().map_or(U256::ZERO, |(_, claim)| claim.compensation).to_string(),
        said,
    }
}

/// Whether the payer has its refund of a conviction, and what of it waits.
fn refund(record: &ReceiptRecord) -> (Option<bool>, U256) {
    let Some((_, dispute)) = &record.dispute else { return (None, U256::ZERO) };
    match dispute.state {
        2..=7 => (Some(!dispute.paid.is_zero() && !dispute.payee.is_zero()), dispute.owed),
        _ => (None, U256::ZERO),
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
        7 => "confidential",
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
        7 => "not audited: the payer forbade disclosure, and no auditor is shown it".to_owned(),
        _ => "this version does not know its state".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use alloy_primitives::{Address, B256};
    use surety_types::abi::IDisputes;

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
        assert_eq!((passed.audited_by, passed.confirmed, passed.refunded), (1, true, None));
        assert_eq!((waiting.audited_by, waiting.confirmed), (0, false));
        assert!(passed.said.iter().any(|line| line.contains("found the same, to the bit")));
        let confidential = rechecked(&record(Some(7), None));
        assert_eq!(
            (confidential.audit, confidential.audited_by, confidential.confirmed),
            (Some("confidential"), 0, false)
        );
        assert!(confidential.said.iter().any(|line| line.contains("the payer forbade disclosure")));
        let convicted = rechecked(&record(Some(6), Some(2)));
        assert!(convicted.convicted && convicted.said.iter().any(|line| line.contains("dispute 4")));
        assert_eq!((convicted.audited_by, convicted.confirmed, convicted.refunded), (1, false, Some(false)));
        let unknown = rechecked(&ReceiptRecord { operator: None, posted: None, ..record(None, None) });
        assert!(unknown.said[0].contains("does not know the worker's key"));
    }

    #[test]
    fn a_refund_is_there_or_waits_or_is_nobodys() {
        let (nobody, payer) = (Address::ZERO, Address::repeat_byte(3));
        for (state, paid, payee, owed, refunded) in [
            (1, 5, payer, 0, None),
            (2, 5, payer, 0, Some(true)),
            (2, 5, nobody, 10, Some(false)),
            (7, 0, nobody, 0, Some(false)),
            (8, 5, payer, 0, None),
            (10, 0, nobody, 0, None),
        ] {
            let mut record = record(None, Some(state));
            let (_, dispute) = record.dispute.as_mut().expect("a dispute");
            (dispute.paid, dispute.payee, dispute.owed) = (U256::from(paid), payee, U256::from(owed));
            let found = rechecked(&record);
            assert_eq!((found.refunded, found.refund_owed), (refunded, owed.to_string()), "{state}");
        }
    }
}
