//! Evidence for an auditor: what it computes from, and nothing that it is to find out.
//!
//! In:     a stream whose first message names an audit. Out: the evidence, or a stream that is broken off.
//! Touches: the book, to read; the ledger, to see whose turn it is.
//! Holds:  U-4.4: only who is drawn on the ledger is given anything, as the connection proves its key; never the salt or the
//!         state digest; to nobody what is confidential.
//! Absent: who draws (the ledger).

use std::{sync::Arc, time::Duration};

use alloy_primitives::{Address, B256};
use surety_client::channel::view;
use surety_net::{AuditStream, CloseCode};
use surety_types::{
    Digest,
    abi::{IAudits, Module},
};

use super::{desk::stage, is_confidential};
use crate::money::Till;

/// How long a stream may be open before it names an audit.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

/// Answers one request for evidence.
pub(crate) async fn give(till: Option<Arc<Till>>, mut stream: AuditStream) {
    let Some(till) = till else { return stream.reset(CloseCode::Failed) };
    let Ok(Some(request)) = stream.receive_within(REQUEST_TIMEOUT).await else {
        return stream.reset(CloseCode::BadMessage);
    };
    let id = B256::from(request.id.0);
    let account = till.account();
    if Address::from_slice(&id[..20]) != account.address() {
        return stream.reset(CloseCode::BadMessage);
    }
    let audit = match view(&**account, Module::Audits, &IAudits::auditOfCall { id }).await {
        Ok(audit) => audit,
        Err(error) => {
            tracing::debug!(%error, "the ledger does not say who audits an answer");
            return stream.reset(CloseCode::Failed);
        }
    };
    let waits = matches!(audit.status, stage::DISCLOSED | stage::COMMITTED);
    if !waits || audit.auditorKey.0 != stream.peer().0 {
        tracing::debug!(peer = %stream.peer(), "evidence was asked for by who is not the auditor");
        return stream.reset(CloseCode::BadMessage);
    }
    let Ok(Some(case)) = till.store().case(&Digest(audit.receipt.0)) else {
        tracing::warn!(receipt = %audit.receipt, "the evidence of an audited receipt is not there");
        return stream.reset(CloseCode::Failed);
    };
    // whatever was disclosed.
    if is_confidential(&case.evidence.order) {
        tracing::warn!(receipt = %audit.receipt, "the payer of an audited receipt lets no auditor see it");
        return stream.reset(CloseCode::BadMessage);
    }
    let sent = async {
        stream.send(&case.evidence).await?;
        stream.finish().await
    };
    if let Err(error) = sent.await {
        tracing::debug!(%error, "evidence was not delivered");
    }
}
