//! What the gateway must not forget of comparisons: what is known of each worker's answers by them.
//!
//! In:     rows. Out: the same, after a restart.
//! Touches: `comparisons.redb` in the data directory, by way of `disk`.
//! Absent: what a row means (`statistic`).

use std::{path::Path, time::Duration};

use redb::{ReadTransaction, ReadableTable, TableDefinition, WriteTransaction};
use serde::{Deserialize, Serialize};
use surety_types::{Digest, ModelId, PublicKey};
use tracing::warn;

use super::statistic::Tally;
use crate::disk::{Disk, OpenStoreError, Pace, Tables, Writer};

/// Worker ‖ model that it names → [`Row`].
const WORKERS: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("workers");

/// A worker, and the model that it says it has answers of.
pub(super) type Claim = (PublicKey, ModelId);

/// What is kept of a worker.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Row {
    pub(super) tally: Tally,
    /// Answers that were to be compared, and could not be.
    pub(super) not_compared: u64,
    /// Unix milliseconds: since when its answers are taken for another model's.
    pub(super) differs_since_ms: Option<u64>,
}

/// Workers' rows.
pub(super) type Rows = Vec<(Claim, Row)>;

/// The kept rows.
#[derive(Debug, Clone)]
pub(super) struct Store(Disk<Book>);

impl Store {
    /// Opens what is in `data_dir`, or makes it; and what it holds.
    pub(super) fn open(data_dir: &Path) -> Result<(Store, Writer, Rows), OpenStoreError> {
        let (disk, writer) = Disk::open(data_dir, Book)?;
        let rows = disk.read(rows).map_err(|error| error.at_start::<Book>(data_dir))?;
        Ok((Store(disk), writer, rows))
    }

    /// Has a row written.
    pub(super) fn keep(&self, claim: Claim, row: Row) {
        // The next row of the same worker says all that this one does.
        if !self.0.offer((claim, row)) {
            warn!("a comparison is not written: the disk is too slow");
        }
        self.0.hurry();
    }
}

fn key((worker, model): &Claim) -> Vec<u8> {
    [worker.as_bytes().as_slice(), model.0.as_bytes()].concat()
}

fn rows(transaction: &ReadTransaction) -> Result<Rows, redb::Error> {
    let corrupted = |why: String| redb::Error::Corrupted(format!("a comparison cannot be read: {why}"));
    let table = transaction.open_table(WORKERS)?;
    let mut rows = Vec::new();
    for entry in table.iter()? {
        let (key, row) = entry?;
        let (worker, model) = key.value().split_at_checked(32).ok_or_else(|| corrupted("its key".into()))?;
        let [worker, model] = [worker, model].map(<[u8; 32]>::try_from);
        let (Ok(worker), Ok(model)) = (worker, model) else { return Err(corrupted("its key".into())) };
        let row = serde_json::from_slice(row.value()).map_err(|error| corrupted(error.to_string()))?;
        rows.push(((PublicKey(worker), ModelId(Digest(model))), row));
    }
    Ok(rows)
}

pub(super) struct Book;

impl Tables for Book {
    type Change = (Claim, Row);
    type Outcome = ();

    const NAME: &'static str = "comparisons";
    const PACE: Pace = Pace {
        gather: Duration::ZERO,
        waiting_max: 4096,
        batch_max: 256,
        batch_bytes_max: usize::MAX,
        cache_bytes: 1 << 20,
    };

    fn create(transaction: &WriteTransaction) -> Result<(), redb::Error> {
        transaction.open_table(WORKERS)?;
        Ok(())
    }

    fn apply(
        &self,
        transaction: &WriteTransaction,
        changes: Rows,
        _now_ms: u64,
    ) -> Result<Vec<()>, redb::Error> {
        let mut table = transaction.open_table(WORKERS)?;
        for (claim, row) in &changes {
            let text = serde_json::to_vec(row).map_err(|error| {
                redb::Error::Corrupted(format!("a comparison cannot be written: {error}"))
            })?;
            table.insert(key(claim).as_slice(), text.as_slice())?;
        }
        Ok(vec![(); changes.len()])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_known_of_a_worker_is_known_after_a_restart() {
        let folder = tempfile::tempdir().expect("a folder");
        let claim = (PublicKey([7; 32]), ModelId(Digest([9; 32])));
        let mut row = Row { not_compared: 2, ..Row::default() };
        [-0.9, 0.3, -0.7].into_iter().for_each(|difference| row.tally.take(difference));
        let (store, writer, found) = Store::open(folder.path()).expect("a store");
        assert_eq!(found, []);
        store.keep(claim, Row::default());
        row.differs_since_ms = Some(5);
        store.keep(claim, row.clone());
        drop(store);
        writer.join();
        let (_store, _writer, found) = Store::open(folder.path()).expect("a store");
        assert_eq!(found, [(claim, row)]);
    }
}
