//! Rechecking: what the ledger knows of the orders that evidence is made of.
//!
//! In:     orders with their workers and receipts; a ledger, or none.
//! Out:    a record of each, by order and worker, as far as one was found; what kept the rest from being found.
//! Touches: the network, through the ledger.
//! Holds:  what was found before something failed is kept, and what failed is said; an order without a receipt is looked up
//!         like any other, since claims are about orders.
//! Absent: words (`conduct`), who is accountable (`explanation`).

use std::time::Duration;

use surety_client::ledger::{Ledger, LedgerBounds};
use surety_types::{Digest, PublicKey};
use tokio::time::sleep;

use crate::{
    conduct::{Rechecked, rechecked},
    data_dir::DataDir,
    look::LookArgs,
};

/// What the ledger may know something of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Subject {
    pub order: Digest,
    pub worker: PublicKey,
    /// The receipt, by digest, if there is one.
    pub receipt: Option<Digest>,
}

/// What was found.
#[derive(Clone, Debug, Default)]
pub struct Found {
    pub records: Vec<(Subject, Rechecked)>,
    /// Why there is not a record of each.
    pub failure: Option<String>,
}

impl Found {
    /// The record of an order that a worker was given.
    pub fn of(&self, order: &Digest, worker: &PublicKey) -> Option<&Rechecked> {
        let is = |(subject, _): &&(Subject, Rechecked)| subject.order == *order && subject.worker == *worker;
        self.records.iter().find(is).map(|(_, record)| record)
    }
}

/// Looks every subject up on the ledger that these arguments mean.
pub async fn look_up(look: &LookArgs, data_dir: &DataDir, subjects: &[Subject]) -> Found {
    match look.open(data_dir) {
        Ok(look) => on_ledger(&look.ledger, subjects).await,
        Err(_) => Found {
            failure: Some("no ledger is known here (name one with --genesis and --rpc-url)".to_owned()),
            ..Found::default()
        },
    }
}

/// The same, waiting no longer than this for nodes that say nothing at all. One that is silent for half of that is not waited for
/// while there are others.
pub async fn look_up_within(
    look: &LookArgs,
    data_dir: &DataDir,
    subjects: &[Subject],
    patience: Duration,
) -> Found {
    let bounds = LedgerBounds { age_max: None, request_timeout: patience / 2, ..LedgerBounds::default() };
    let ledger = match look.open_within(data_dir, bounds) {
        Ok(look) => look.ledger,
        Err(_) => return look_up(look, data_dir, subjects).await,
    };
    let mut found = Found::default();
    let silent = tokio::select! {
        () = each(&ledger, subjects, &mut found) => false,
        () = silence(&ledger, patience) => true,
    };
    if silent {
        let ms = patience.as_millis();
        found.failure =
            Some(format!("the ledger's nodes said nothing for {ms} ms (--ledger-wait-ms waits longer)"));
    }
    found
}

/// Returns when no node has said anything for so long.
async fn silence(ledger: &Ledger, patience: Duration) {
    let mut heard = ledger.heard();
    loop {
        sleep(patience).await;
        match ledger.heard() {
            now if now == heard => return,
            now => heard = now,
        }
    }
}

/// Looks every subject up, until the ledger cannot be asked any more.
pub async fn on_ledger(ledger: &Ledger, subjects: &[Subject]) -> Found {
    let mut found = Found::default();
    each(ledger, subjects, &mut found).await;
    found
}

async fn each(ledger: &Ledger, subjects: &[Subject], found: &mut Found) {
    for subject in subjects {
        let receipt = subject.receipt.unwrap_or(Digest::ZERO);
        match ledger.receipt_record(&receipt, &subject.order, &subject.worker).await {
            Ok(record) => found.records.push((*subject, rechecked(&record))),
            Err(error) => {
                found.failure = Some(format!("the ledger cannot be asked: {:#}", anyhow::Error::new(error)));
                break;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_that_of_its_order_and_worker() {
        let subject = |order: u8, worker: u8| Subject {
            order: Digest([order; 32]),
            worker: PublicKey([worker; 32]),
            receipt: None,
        };
        let named = |name: &str| Rechecked { operator: Some(name.to_owned()), ..Rechecked::default() };
        let records =
            vec![(subject(1, 1), named("a")), (subject(2, 1), named("b")), (subject(2, 2), named("c"))];
        let found = Found { records, failure: Some("then it failed".to_owned()) };
        let operator = |order: u8, worker: u8| {
            found.of(&Digest([order; 32]), &PublicKey([worker; 32]))?.operator.clone()
        };
        assert_eq!(operator(2, 1).as_deref(), Some("b"));
        assert_eq!(operator(2, 2).as_deref(), Some("c"));
        assert_eq!(operator(1, 2), None);
    }
}
