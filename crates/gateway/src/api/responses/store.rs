//! Store: responses kept for whoever knows their id.
//!
//! In:     records, by request id: as a response begins, and as it ended.
//! Out:    the same until they are deleted, old or too many; which of them had not ended.
//! Touches: one file, `responses.redb`, by way of `disk`.
//! Holds:  what `keep` and `forget` returned from is on the disk; the oldest go when there are too many or they take too
//!         much. What was deleted does not come back by ending later. A failed write fails those it was for, and no
//!         others.
//! Absent: what the records say (`record`), making responses (`live`).

use std::{collections::BTreeMap, path::Path, time::Duration};

use redb::{ReadableTable, ReadableTableMetadata, TableDefinition, WriteTransaction};

use crate::{
    api::unix_ms,
    disk::{Disk, FindError, OpenStoreError, Pace, Tables, WriteError, Writer},
    id::RequestId,
};

/// Order of arrival → request id, Unix milliseconds, record.
const RECORDS: TableDefinition<'_, u64, (u128, u64, &[u8])> = TableDefinition::new("records");
/// Request id → order of arrival.
const ARRIVALS: TableDefinition<'_, u128, u64> = TableDefinition::new("arrivals");
/// Those that have not ended.
const UNFINISHED: TableDefinition<'_, u128, ()> = TableDefinition::new("unfinished");
/// `bytes` → the sum of what is kept; `next` → the order of the next arrival.
const TOTALS: TableDefinition<'_, &str, u64> = TableDefinition::new("totals");
const BYTES: &str = "bytes";
const NEXT: &str = "next";
/// How much is kept, and for how long.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bounds {
    pub(crate) count_max: u64,
    pub(crate) bytes_max: u64,
    pub(crate) kept_for: Duration,
}

/// Why a response was not kept, in words for the caller.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum KeepError {
    #[error("response not stored: {0}")]
    Write(#[from] WriteError),
    #[error("response not stored: it takes {bytes} bytes, and at most {max} are kept")]
    TooLarge { bytes: usize, max: u64 },
}

/// How a record is to be kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Keeping {
    /// The response begins: it is to be gone on with by a gateway that finds it so.
    Begun,
    /// It ended, and its beginning was kept: if that is gone, it stays gone.
    Ended,
    /// It ended, and nothing was kept of it before.
    Whole,
}

/// The kept responses.
#[derive(Debug, Clone)]
pub(crate) struct Store {
    disk: Disk<Kept>,
    bounds: Bounds,
}

struct Kept(Bounds);

enum Change {
    Keep(Keeping, Vec<u8>),
    Forget,
}

impl Store {
    /// Opens what is in `data_dir`, or makes it.
    pub(crate) fn open(data_dir: &Path, bounds: Bounds) -> Result<(Self, Writer), OpenStoreError> {
        let (disk, writer) = Disk::open(data_dir, Kept(bounds))?;
        Ok((Store { disk, bounds }, writer))
    }

    /// Returns once the record is on the disk, in place of what was kept under `id` before; or once it is clear that it was
    /// deleted meanwhile, which is no error.
    pub(crate) async fn keep(
        &self,
        id: RequestId,
        keeping: Keeping,
        record: Vec<u8>,
    ) -> Result<(), KeepError> {
        if record.len() as u64 > self.bounds.bytes_max {
            return Err(KeepError::TooLarge { bytes: record.len(), max: self.bounds.bytes_max });
        }
        self.disk.keep((id, Change::Keep(keeping, record))).await?;
        Ok(())
    }

    /// Deletes what is kept under `id`; returns whether there was anything, once it is gone from the disk.
    pub(crate) async fn forget(&self, id: RequestId) -> Result<bool, KeepError> {
        Ok(self.disk.keep((id, Change::Forget)).await?)
    }

    /// What is kept under `id`. Reads the disk.
    pub(crate) fn find(&self, id: RequestId) -> Result<Option<Vec<u8>>, FindError> {
        let oldest_ms = oldest_ms(unix_ms(), self.bounds);
        self.disk.read(|transaction| {
            let Some(arrival) = transaction.open_table(ARRIVALS)?.get(id.bits())? else { return Ok(None) };
            let record = transaction.open_table(RECORDS)?.get(arrival.value())?;
            Ok(record.and_then(|record| {
                let (_, at_ms, bytes) = record.value();
                (at_ms >= oldest_ms).then(|| bytes.to_vec())
            }))
        })
    }

    /// The responses that were begun and had not ended, the oldest first. Reads the disk.
    pub(crate) fn unfinished(&self) -> Result<Vec<(RequestId, Vec<u8>)>, FindError> {
        self.disk.read(|transaction| {
            let (arrivals, records) = (transaction.open_table(ARRIVALS)?, transaction.open_table(RECORDS)?);
            let mut found = BTreeMap::new();
            for row in transaction.open_table(UNFINISHED)?.iter()? {
                let id = row?.0.value();
                let Some(arrival) = arrivals.get(id)?.map(|arrival| arrival.value()) else { continue };
                let Some(record) = records.get(arrival)? else { continue };
                found.insert(arrival, (RequestId::of_bits(id), record.value().2.to_vec()));
            }
            Ok(found.into_values().collect())
        })
    }
}

impl Tables for Kept {
    type Change = (RequestId, Change);
    /// Whether there was something under its id.
    type Outcome = bool;

    const NAME: &'static str = "responses";
    const PACE: Pace = Pace::DOCUMENTS;

    fn create(transaction: &WriteTransaction) -> Result<(), redb::Error> {
        transaction.open_table(RECORDS)?;
        transaction.open_table(ARRIVALS)?;
        transaction.open_table(UNFINISHED)?;
        transaction.open_table(TOTALS)?;
        Ok(())
    }

    /// Makes the changes, and what the bounds ask for.
    fn apply(
        &self,
        transaction: &WriteTransaction,
        changes: Vec<(RequestId, Change)>,
        now_ms: u64,
    ) -> Result<Vec<bool>, redb::Error> {
        let bounds = self.0;
        let mut outcomes = Vec::with_capacity(changes.len());
        let mut records = transaction.open_table(RECORDS)?;
        let mut arrivals = transaction.open_table(ARRIVALS)?;
        let mut unfinished = transaction.open_table(UNFINISHED)?;
        let mut totals = transaction.open_table(TOTALS)?;
        let mut bytes = totals.get(BYTES)?.map_or(0, |total| total.value());
        let mut next = totals.get(NEXT)?.map_or(0, |next| next.value());
        for (id, change) in &changes {
            let id = id.bits();
            let there = arrivals.get(id)?.map(|arrival| arrival.value());
            outcomes.push(there.is_some());
            match change {
                Change::Forget => {
                    let Some(arrival) = there else { continue };
                    arrivals.remove(id)?;
                    unfinished.remove(id)?;
                    let removed = records.remove(arrival)?;
                    bytes -= removed.map_or(0, |record| record.value().2.len() as u64).min(bytes);
                }
                Change::Keep(Keeping::Ended, _) if there.is_none() => {}
                Change::Keep(keeping, record) => {
                    let arrival = there.unwrap_or(next);
                    next = next.max(arrival + 1);
                    let before = records.get(arrival)?.map(|before| {
                        let (_, at_ms, record) = before.value();
                        (at_ms, record.len() as u64)
                    });
                    let (at_ms, length) = before.unwrap_or((now_ms, 0));
                    bytes = (bytes + record.len() as u64).saturating_sub(length);
                    records.insert(arrival, (id, at_ms, &record[..]))?;
                    arrivals.insert(id, arrival)?;
                    if *keeping == Keeping::Begun {
                        unfinished.insert(id, ())?;
                    } else {
                        unfinished.remove(id)?;
                    }
                }
            }
        }
        let oldest_ms = oldest_ms(now_ms, bounds);
        loop {
            let oldest = records.first()?.map(|(arrival, record)| {
                let (id, at_ms, record) = record.value();
                (arrival.value(), id, at_ms, record.len() as u64)
            });
            let Some((arrival, id, at_ms, length)) = oldest else { break };
            if at_ms >= oldest_ms && records.len()? <= bounds.count_max && bytes <= bounds.bytes_max {
                break;
            }
            records.remove(arrival)?;
            arrivals.remove(id)?;
            unfinished.remove(id)?;
            bytes -= length.min(bytes);
        }
        totals.insert(BYTES, bytes)?;
        totals.insert(NEXT, next)?;
        Ok(outcomes)
    }

    fn bytes((_, change): &(RequestId, Change)) -> usize {
        match change {
            Change::Keep(_, record) => record.len(),
            Change::Forget => 0,
        }
    }
}

/// What came before this moment is too old.
fn oldest_ms(now_ms: u64, bounds: Bounds) -> u64 {
    now_ms.saturating_sub(u64::try_from(bounds.kept_for.as_millis()).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::tests::{FullDisk, applied};

    const DAY: Duration = Duration::from_secs(24 * 3600);
    const BOUNDS: Bounds = Bounds { count_max: 4, bytes_max: 100, kept_for: DAY };

    fn id(digit: u128) -> RequestId {
        RequestId::of_bits(digit)
    }

    async fn keep(store: &Store, digit: u128, keeping: Keeping, record: &str) {
        store.keep(id(digit), keeping, record.as_bytes().to_vec()).await.expect("kept");
    }

    fn found(store: &Store, digit: u128) -> Option<String> {
        let bytes = store.find(id(digit)).expect("read")?;
        Some(String::from_utf8(bytes).expect("text"))
    }

    fn unfinished(store: &Store) -> Vec<(RequestId, Vec<u8>)> {
        store.unfinished().expect("read")
    }

    fn close(store: Store, writer: Writer) {
        drop(store);
        writer.join();
    }

    #[tokio::test]
    async fn what_was_kept_is_there_after_a_restart() {
        let directory = tempfile::tempdir().expect("a directory");
        let (store, writer) = Store::open(directory.path(), BOUNDS).expect("opened");
        keep(&store, 2, Keeping::Begun, "begun 2").await;
        keep(&store, 1, Keeping::Begun, "begun 1").await;
        keep(&store, 3, Keeping::Whole, "whole 3").await;
        keep(&store, 1, Keeping::Ended, "ended 1").await;
        close(store, writer);

        let (store, writer) = Store::open(directory.path(), BOUNDS).expect("opened");
        assert_eq!(found(&store, 1).as_deref(), Some("ended 1"));
        assert_eq!(found(&store, 2).as_deref(), Some("begun 2"));
        assert_eq!(found(&store, 3).as_deref(), Some("whole 3"));
        assert_eq!(found(&store, 4), None);
        assert_eq!(unfinished(&store), [(id(2), b"begun 2".to_vec())]);
        close(store, writer);
    }

    #[tokio::test]
    async fn what_was_deleted_does_not_come_back() {
        let directory = tempfile::tempdir().expect("a directory");
        let (store, writer) = Store::open(directory.path(), BOUNDS).expect("opened");
        keep(&store, 1, Keeping::Begun, "begun 1").await;
        assert_eq!(store.forget(id(1)).await, Ok(true));
        assert_eq!(store.forget(id(1)).await, Ok(false));
        keep(&store, 1, Keeping::Ended, "ended 1").await;
        assert_eq!(found(&store, 1), None);
        assert_eq!(unfinished(&store), []);
        // Nothing is left of it in the sum of bytes either.
        keep(&store, 2, Keeping::Whole, &"x".repeat(100)).await;
        assert_eq!(found(&store, 2).map(|record| record.len()), Some(100));
        close(store, writer);
    }

    #[tokio::test]
    async fn the_oldest_go_when_there_are_too_many_or_they_take_too_much() {
        let directory = tempfile::tempdir().expect("a directory");
        let (store, writer) = Store::open(directory.path(), BOUNDS).expect("opened");
        for digit in 1..=5 {
            keep(&store, digit, Keeping::Begun, "0123456789").await;
        }
        let there =
            |store: &Store| (1..=6).filter(|digit| found(store, *digit).is_some()).collect::<Vec<_>>();
        assert_eq!(there(&store), [2, 3, 4, 5]);
        // One that grows pushes the oldest out, not itself.
        keep(&store, 3, Keeping::Ended, &"x".repeat(75)).await;
        assert_eq!(there(&store), [3, 4, 5]);
        assert_eq!(unfinished(&store).len(), 2);
        let large = store.keep(id(6), Keeping::Whole, vec![0; 101]).await;
        assert_eq!(large, Err(KeepError::TooLarge { bytes: 101, max: 100 }));
        assert_eq!(there(&store), [3, 4, 5]);
        close(store, writer);
    }

    #[tokio::test]
    async fn a_full_disk_fails_what_it_meets_and_nothing_else() {
        let directory = tempfile::tempdir().expect("a directory");
        let bounds = Bounds { count_max: 100, bytes_max: 1 << 20, kept_for: DAY };
        let (disk, writer, full) = FullDisk::holding(directory.path(), Kept(bounds));
        let store = Store { disk, bounds };
        keep(&store, 1, Keeping::Begun, "begun 1").await;
        full.set(true);
        let failed = store.keep(id(1), Keeping::Ended, b"ended 1".to_vec()).await.expect_err("full");
        assert!(failed.to_string().starts_with("response not stored: "), "{failed}");
        assert!(store.forget(id(1)).await.is_err());
        full.set(false);
        // The first after a failure may find the file closed, and opens it again.
        let _ = store.keep(id(2), Keeping::Whole, b"whole 2".to_vec()).await;
        keep(&store, 3, Keeping::Whole, "whole 3").await;
        assert_eq!(found(&store, 1).as_deref(), Some("begun 1"));
        assert_eq!(found(&store, 3).as_deref(), Some("whole 3"));
        assert_eq!(unfinished(&store).len(), 1);
        close(store, writer);
    }

    #[test]
    fn the_old_go() {
        let directory = tempfile::tempdir().expect("a directory");
        let (store, writer) = Store::open(directory.path(), BOUNDS).expect("opened");
        let whole = |digit| (id(digit), Change::Keep(Keeping::Whole, vec![0; 10]));
        let day_ms = DAY.as_millis() as u64;
        let at = |now_ms, changes| applied(&store.disk, &Kept(BOUNDS), changes, now_ms);
        at(day_ms, vec![whole(1), whole(2)]);
        at(day_ms + 5, vec![whole(3)]);
        // Ending later makes nothing younger.
        at(2 * day_ms, vec![whole(2)]);
        assert_eq!(at(2 * day_ms + 1, vec![(id(9), Change::Forget)]), [false]);
        let is_there = |digit| at(2 * day_ms + 1, vec![(id(digit), Change::Forget)])[0];
        assert_eq!([1, 2, 3].map(is_there), [false, false, true]);
        close(store, writer);
    }
}
