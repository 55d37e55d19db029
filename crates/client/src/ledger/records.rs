//! Records: what the ledger knows of an operator's conduct, and of one receipt.
//!
//! In:     an operator; a receipt's digest, its order and worker.
//! Out:    audits, misses, exposure, claims, disputes; all proven but for which audit a receipt was drawn for, which a node
//!         finds and the state then proves.
//! Touches: the network, through the ledger.
//! Holds:  what is not known is said to be unknown; lists are bounded.
//! Absent: judging it, and words for people (the binary).

use std::{collections::BTreeSet, time::Duration};

use alloy_primitives::{Address, B256};
use alloy_sol_types::SolEvent as _;
use serde_json::json;
use surety_types::{
    Digest, PublicKey,
    abi::{
        IAudits, IClaims, IDisputes, IOperators, IReceipts,
        address::{AUDITS, CLAIMS, DISPUTES, OPERATORS, RECEIPTS},
    },
};
use tokio::time::sleep;

use super::{Ledger, LedgerError, Viewed, nodes::garbage};

/// The latest disputes that are looked at.
pub const DISPUTES_MAX: u64 = 64;
/// Answers that one digest may be of: a claim on an order names each worker that was given it.
const TRACES_MAX: usize = 64;
/// How often an audit is asked for again while a beacon is missing, and after how long.
const BEACON_TRIES: usize = 10;
const BEACON_PAUSE: Duration = Duration::from_millis(200);
/// Disputes in one question.
const TOGETHER: usize = 8;

/// What the ledger knows of an operator's conduct.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OperatorRecord {
    /// Of its audits.
    pub standing: IAudits::Standing,
    /// What was claimed for it and is in no log that is closed, and what its stake can answer for, in wei.
    pub exposure: IAudits::exposureOfReturn,
    /// Claims that it did not answer an order: shown a receipt, a failure, compensated.
    pub claims: IClaims::recordOfReturn,
    /// Seconds since 1970; its workers are out of service until then.
    pub jailed_until: u64,
}

/// The latest disputes, the newest first.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Disputes {
    /// How many there were, looked at or not.
    pub count: u64,
    /// Those looked at.
    pub latest: Vec<(u64, IDisputes::Dispute)>,
}

/// What the ledger knows of one receipt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReceiptRecord {
    /// Who answers for the worker; none if the ledger does not know its key.
    pub operator: Option<Address>,
    /// The last epoch for which the operator posted its log, and how many it posted; none if none.
    pub posted: Option<(u64, u64)>,
    /// The audit that the receipt was disclosed for, with its id.
    pub audit: Option<(B256, IAudits::Audit)>,
    /// The last dispute about it.
    pub dispute: Option<(u64, IDisputes::Dispute)>,
    /// The claim that its order was not answered.
    pub claim: Option<(u64, IClaims::Claim)>,
}

/// An answer that the ledger has something of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Trace {
    /// Its order.
    pub order: Digest,
    /// Who was given it.
    pub worker: PublicKey,
    /// Its receipt, if that is known.
    pub receipt: Option<Digest>,
}

impl Ledger {
    /// What claims, disputes and audits there are about an order or a receipt, by its digest alone. Which there are is a node's word;
    /// what is so is proven by [`Ledger::answer_record`].
    pub async fn traces(&self, digest: &Digest) -> Result<Vec<Trace>, LedgerError> {
        let wanted = B256::from(digest.0);
        let worker = |key: B256| PublicKey(key.0);
        let mut found = Vec::new();
        let claimed = (IClaims::Claimed::SIGNATURE_HASH, CLAIMS, json!([null, null, wanted]));
        for log in self.logs(claimed).await? {
            let Ok(event) = IClaims::Claimed::decode_log_data(&log.inner.data) else { continue };
            if event.order == wanted {
                found.push(Trace { order: *digest, worker: worker(event.worker), receipt: None });
            }
        }
        let answer = |order: B256, key, receipt: B256| Trace {
            order: Digest(order.0),
            worker: worker(key),
            receipt: Some(Digest(receipt.0)),
        };
        let mut opened = BTreeSet::new();
        for log in self.logs((IDisputes::Opened::SIGNATURE_HASH, DISPUTES, json!([]))).await? {
            let Ok(event) = IDisputes::Opened::decode_log_data(&log.inner.data) else { continue };
            opened.insert(event.id);
            if event.order == wanted || event.receipt == wanted {
                found.push(answer(event.order, event.worker, event.receipt));
            }
        }
        // What is shown at once, such as a stop that is none, is convicted without being opened.
        let mut at_once =
            BTreeSet::from([self.view(DISPUTES, &IDisputes::disputeOfCall { receipt: wanted }).await?.value]);
        for log in self.logs((IDisputes::Convicted::SIGNATURE_HASH, DISPUTES, json!([]))).await? {
            at_once.extend(IDisputes::Convicted::decode_log_data(&log.inner.data).map(|event| event.id));
        }
        // 0 is none.
        let at_once: Vec<u64> = at_once.difference(&opened).copied().filter(|id| *id != 0).collect();
        for id in at_once.into_iter().rev().take(DISPUTES_MAX as usize) {
            let dispute = self.view(DISPUTES, &IDisputes::disputesCall { id }).await?.value;
            if dispute.order == wanted || dispute.receipt == wanted {
                found.push(answer(dispute.order, dispute.worker, dispute.receipt));
            }
        }
        // Of an audit the ledger knows the receipt, and not the order.
        for log in self.logs((IAudits::Disclosed::SIGNATURE_HASH, AUDITS, json!([]))).await? {
            let Ok(event) = IAudits::Disclosed::decode_log_data(&log.inner.data) else { continue };
            if event.receipt == wanted {
                let audit = self.audit(event.id).await?;
                let known = found.iter().find(|trace: &&Trace| trace.receipt == Some(*digest));
                let order = known.map_or(Digest::ZERO, |trace| trace.order);
                if audit.receipt == wanted {
                    found.push(Trace { order, worker: worker(audit.worker), receipt: Some(*digest) });
                }
            }
        }
        // One line for each, and of two about one the one that knows the receipt.
        found.sort_by_key(|trace| (trace.order.0, trace.worker.0, trace.receipt.is_none()));
        found.dedup_by_key(|trace| (trace.order, trace.worker));
        found.truncate(TRACES_MAX);
        Ok(found)
    }

    /// A node's events of one kind.
    async fn logs(
        &self,
        (kind, address, topics): (B256, Address, serde_json::Value),
    ) -> Result<Vec<alloy_rpc_types_eth::Log>, LedgerError> {
        const METHOD: &str = "eth_getLogs";
        let mut all = vec![json!(kind)];
        all.extend(topics.as_array().into_iter().flatten().cloned());
        let filter = json!([{ "address": address, "fromBlock": "earliest", "topics": all }]);
        let logs = self.unverified(METHOD, filter).await?;
        serde_json::from_value(logs).map_err(|why| LedgerError::Invalid(garbage(METHOD, why).to_string()))
    }

    /// An operator's record.
    pub async fn operator_record(&self, operator: Address) -> Result<Viewed<OperatorRecord>, LedgerError> {
        self.views(|views| {
            let standing = views.call(AUDITS, &IAudits::standingOfCall { operator });
            let exposure = views.call(AUDITS, &IAudits::exposureOfCall { operator });
            let claims = views.call(CLAIMS, &IClaims::recordOfCall { operator });
            let jailed_until = views.call(OPERATORS, &IOperators::jailedUntilCall { operator });
            Some(OperatorRecord {
                standing: standing?,
                exposure: exposure?,
                claims: claims?,
                jailed_until: jailed_until?,
            })
        })
        .await
    }

    /// The latest disputes, at most [`DISPUTES_MAX`].
    pub async fn disputes(&self) -> Result<Disputes, LedgerError> {
        let count = self.view(DISPUTES, &IDisputes::disputeCountCall {}).await?.value;
        let ids: Vec<u64> = (1..=count).rev().take(DISPUTES_MAX as usize).collect();
        let mut latest = Vec::with_capacity(ids.len());
        for ids in ids.chunks(TOGETHER) {
            let found = self.views(|views| {
                let found = ids.iter().map(|id| views.call(DISPUTES, &IDisputes::disputesCall { id: *id }));
                // All are asked before one is waited for.
                let found: Vec<Option<IDisputes::Dispute>> = found.collect();
                found.into_iter().collect::<Option<Vec<_>>>()
            });
            latest.extend(ids.iter().copied().zip(found.await?.value));
        }
        Ok(Disputes { count, latest })
    }

    /// What is known of a receipt, by its digest, its order and its worker.
    pub async fn receipt_record(
        &self,
        receipt: &Digest,
        order: &Digest,
        worker: &PublicKey,
    ) -> Result<ReceiptRecord, LedgerError> {
        self.answer_record(Some(receipt), order, worker).await
    }

    /// What is known of what a worker did about an order, whether it gave a receipt or not.
    pub async fn answer_record(
        &self,
        receipt: Option<&Digest>,
        order: &Digest,
        worker: &PublicKey,
    ) -> Result<ReceiptRecord, LedgerError> {
        let (order, key) = (B256::from(order.0), B256::from(worker.0));
        let receipt = receipt.map(|receipt| B256::from(receipt.0));
        let known = self.views(|views| {
            let holder = views.call(OPERATORS, &IOperators::workerCall { key });
            let dispute = match receipt {
                Some(receipt) => views.call(DISPUTES, &IDisputes::disputeOfCall { receipt }),
                None => Some(0),
            };
            let claim = views.call(CLAIMS, &IClaims::claimOfCall { order, worker: key });
            let dispute = match dispute? {
                0 => None,
                id => Some((id, views.call(DISPUTES, &IDisputes::disputesCall { id })?)),
            };
            let claim = match claim? {
                0 => None,
                id => Some((id, views.call(CLAIMS, &IClaims::claimsCall { id })?)),
            };
            let operator = Some(holder?.operator).filter(|operator| !operator.is_zero());
            let posted = match operator {
                Some(operator) => Some(views.call(RECEIPTS, &IReceipts::postedByCall { operator })?),
                None => None,
            };
            let posted =
                posted.filter(|posted| posted.count > 0).map(|posted| (posted.lastEpoch, posted.count));
            Some(ReceiptRecord { operator, posted, audit: None, dispute, claim })
        });
        let record = known.await?.value;
        let (Some(operator), Some(receipt)) = (record.operator, receipt) else { return Ok(record) };
        let Some(id) = self.disclosed_audit(operator, receipt).await? else { return Ok(record) };
        let audit = self.audit(id).await?;
        // A node that names another audit has found nothing.
        let audit = (audit.receipt == receipt).then_some((id, audit));
        Ok(ReceiptRecord { audit, ..record })
    }

    /// An audit. Who audits depends on an epoch's beacon, which is not there between the last block before it and its first: then it is
    /// asked for again.
    async fn audit(&self, id: B256) -> Result<IAudits::Audit, LedgerError> {
        let mut tries = 0;
        loop {
            match self.view(AUDITS, &IAudits::auditOfCall { id }).await {
                Err(LedgerError::Reverted { .. }) if tries < BEACON_TRIES => tries += 1,
                answer => return Ok(answer?.value),
            }
            sleep(BEACON_PAUSE).await;
        }
    }

    /// The audit for which a node says that a receipt was disclosed.
    async fn disclosed_audit(&self, operator: Address, receipt: B256) -> Result<Option<B256>, LedgerError> {
        let topics = json!([null, operator.into_word()]);
        let logs = self.logs((IAudits::Disclosed::SIGNATURE_HASH, AUDITS, topics)).await?;
        let mut disclosed =
            logs.iter().filter_map(|log| IAudits::Disclosed::decode_log_data(&log.inner.data).ok());
        Ok(disclosed.find(|event| event.receipt == receipt).map(|event| event.id))
    }
}
