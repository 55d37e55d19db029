//! Receipts: the evidence of answered requests, kept for whoever asks.
//!
//! In:     evidence, by request id.
//! Out:    the same, as JSON, until it is old.
//! Touches: one file, `receipts.redb`, by way of `disk`.
//! Holds:  what `keep` returned from is on the disk; the oldest go when there are too many or they take too much. A failed
//!         write fails the requests it was for, and no others.
//! Absent: judging the evidence (`proof`), sending it (`api`).

use std::path::Path;

use redb::{ReadTransaction, ReadableTable, ReadableTableMetadata, TableDefinition, WriteTransaction};
use surety_types::{Evidence, evidence::MAX_EVIDENCE_BYTES};
use tracing::error;

use crate::{
    disk::{Disk, FindError, OpenStoreError, Pace, Tables, WriteError, Writer},
    id::RequestId,
};

/// Order of arrival → request id, evidence.
const EVIDENCE: TableDefinition<'_, u64, (u128, &[u8])> = TableDefinition::new("evidence");
/// Request id → order of arrival.
const ARRIVALS: TableDefinition<'_, u128, u64> = TableDefinition::new("arrivals");
/// `bytes` → the sum of what is kept.
const TOTALS: TableDefinition<'_, &str, u64> = TableDefinition::new("totals");
const BYTES: &str = "bytes";

/// Why evidence was not kept, in words for the caller.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum KeepError {
    #[error("receipt not stored: {0}")]
    Write(#[from] WriteError),
    #[error("receipt not stored: the evidence is not sound")]
    Unsound,
    #[error("receipt not stored: it takes {bytes} bytes, and at most {max} are kept")]
    TooLarge { bytes: usize, max: usize },
}

/// How much is kept.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bounds {
    pub(crate) count_max: u64,
    pub(crate) bytes_max: u64,
}

/// The kept receipts.
#[derive(Debug, Clone)]
pub(crate) struct Receipts(Disk<Kept>);

impl Receipts {
    /// Opens what is in `data_dir`, or makes it.
    pub(crate) fn open(data_dir: &Path, bounds: Bounds) -> Result<(Self, Writer), OpenStoreError> {
        let (disk, writer) = Disk::open(data_dir, Kept(bounds))?;
        Ok((Receipts(disk), writer))
    }

    /// Returns once the evidence is on the disk.
    pub(crate) async fn keep(&self, id: RequestId, evidence: Evidence) -> Result<(), KeepError> {
        self.0.keep((id, evidence)).await?
    }

    /// The JSON kept under `id`. Reads the disk.
    pub(crate) fn find(&self, id: RequestId) -> Result<Option<Vec<u8>>, FindError> {
        self.0.read(|transaction| find(transaction, id))
    }
}

fn find(transaction: &ReadTransaction, id: RequestId) -> Result<Option<Vec<u8>>, redb::Error> {
    let Some(arrival) = transaction.open_table(ARRIVALS)?.get(id.bits())? else { return Ok(None) };
    let evidence = transaction.open_table(EVIDENCE)?;
    Ok(evidence.get(arrival.value())?.map(|entry| entry.value().1.to_vec()))
}

struct Kept(Bounds);

impl Kept {
    /// What is written of it, if it can be.
    fn json(&self, id: RequestId, evidence: &Evidence) -> Result<String, KeepError> {
        let max = MAX_EVIDENCE_BYTES.min(usize::try_from(self.0.bytes_max).unwrap_or(usize::MAX));
        match evidence.to_json() {
            Ok(json) if json.len() > max => Err(KeepError::TooLarge { bytes: json.len(), max }),
            Ok(json) => Ok(json),
            Err(error) => {
                error!(request = %id, %error, "evidence cannot be written as JSON");
                Err(KeepError::Unsound)
            }
        }
    }
}

impl Tables for Kept {
    type Change = (RequestId, Evidence);
    type Outcome = Result<(), KeepError>;

    const NAME: &'static str = "receipts";
    const PACE: Pace = Pace::DOCUMENTS;

    fn create(transaction: &WriteTransaction) -> Result<(), redb::Error> {
        transaction.open_table(EVIDENCE)?;
        transaction.open_table(ARRIVALS)?;
        transaction.open_table(TOTALS)?;
        Ok(())
    }

    fn apply(
        &self,
        transaction: &WriteTransaction,
        changes: Vec<(RequestId, Evidence)>,
        _now_ms: u64,
    ) -> Result<Vec<Result<(), KeepError>>, redb::Error> {
        let mut outcomes = Vec::with_capacity(changes.len());
        let mut evidence = transaction.open_table(EVIDENCE)?;
        let mut arrivals = transaction.open_table(ARRIVALS)?;
        let mut totals = transaction.open_table(TOTALS)?;
        let mut next = evidence.last()?.map_or(0, |(arrival, _)| arrival.value() + 1);
        let mut bytes = totals.get(BYTES)?.map_or(0, |total| total.value());
        for (id, kept) in changes {
            let json = match self.json(id, &kept) {
                Ok(json) => json,
                Err(refused) => {
                    outcomes.push(Err(refused));
                    continue;
                }
            };
            // What is kept last of a request counts.
            let before = arrivals.insert(id.bits(), next)?.map(|before| before.value());
            if let Some(before) = before
                && let Some(row) = evidence.remove(before)?
            {
                bytes -= row.value().1.len() as u64;
            }
            evidence.insert(next, (id.bits(), json.as_bytes()))?;
            bytes += json.len() as u64;
            next += 1;
            outcomes.push(Ok(()));
        }
        while evidence.len()? > self.0.count_max || bytes > self.0.bytes_max {
            let Some((_, oldest)) = evidence.pop_first()? else { break };
            let (id, json) = oldest.value();
            arrivals.remove(id)?;
            bytes -= json.len() as u64;
        }
        totals.insert(BYTES, bytes)?;
        Ok(outcomes)
    }

    fn bytes((_, evidence): &(RequestId, Evidence)) -> usize {
        let of_answer = |answer: &surety_types::Answer| {
            let ids = answer.output_ids.len()
                + answer.resumed_ids.len()
                + answer.prompt_ids.as_ref().map_or(0, Vec::len);
            answer.request.len()
                + answer.text.len()
                + answer.embedding.as_ref().map_or(0, Vec::len)
                + ids * size_of::<u32>()
        };
        evidence.answers.iter().map(of_answer).sum()
    }
}

#[cfg(test)]
mod tests;
