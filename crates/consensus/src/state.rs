//! The authenticated state: which database, and how values lie in it.
//!
//! In:     keys to read, writes to apply.
//! Out:    values; batches whose root goes into a header.
//! Touches: the storage partitions `<prefix>-state-…`.
//! Holds:  equal histories of writes give equal roots.
//! Absent: when a batch becomes final (the stateful actor), and proofs (`proof`).

use crate::{
    Digest,
    cell::{self, Cell, Head},
    law::{ReadCache, StateKey, StateValue},
};
use commonware_cryptography::Sha256;
use commonware_glue::stateful::db::{
    Shared,
    current::{CurrentMerkleized, CurrentUnmerkleized},
};
use commonware_parallel::Sequential;
use commonware_runtime::{Spawner, buffer::paged::CacheRef};
use commonware_storage::{
    Context as StorageContext,
    index::ordered::Index,
    journal::contiguous::fixed::{Config as LogConfig, Journal},
    merkle::Location,
    mmr::{self, full::Config as MmrConfig},
    qmdb::{
        Error,
        any::{
            ordered::{Update, fixed::Operation},
            value::FixedEncoding,
        },
        current::{FixedConfig, ordered::fixed},
        sync::Target,
    },
    translator::EightCap,
};
use commonware_utils::{NZU64, NZUsize};
use std::{collections::BTreeSet, num::NonZeroUsize};

/// Bytes of activity bitmap that one proof carries; a power of two.
pub(crate) const CHUNK_BYTES: usize = 32;

/// The family of Merkle trees.
pub(crate) type Family = mmr::Family;
/// How cells are encoded in operations.
pub(crate) type Encoding = FixedEncoding<Cell>;
/// One operation of the log that state sync transfers.
pub(crate) type StateOperation = Operation<Family, Digest, Cell>;
/// The database: current values of keys in order, provable, and provably absent.
pub(crate) type StateDb<E> = fixed::Db<Family, E, Digest, Cell, Sha256, EightCap, CHUNK_BYTES, Sequential>;
/// The database as the stateful actor shares it.
pub(crate) type StateSet<E> = Shared<StateDb<E>>;
type Log<E> = Journal<E, StateOperation>;
type Keys = Index<EightCap, Location<Family>>;
type Updates = Update<Digest, Encoding>;
/// A block's speculative writes.
pub(crate) type Batch<E> =
    CurrentUnmerkleized<Family, E, Log<E>, Keys, Sha256, Updates, CHUNK_BYTES, Sequential>;
/// A block's writes with their root.
pub(crate) type Sealed<E> =
    CurrentMerkleized<Family, E, Log<E>, Keys, Sha256, Updates, CHUNK_BYTES, Sequential>;
/// What a header commits to for state sync.
pub(crate) type StateTarget = Target<Family, Digest>;

/// The database's configuration under a partition prefix.
pub(crate) fn config(
    prefix: &str,
    page_cache: CacheRef,
    buffer: NonZeroUsize,
) -> FixedConfig<EightCap, Sequential> {
    FixedConfig {
        merkle_config: MmrConfig {
            journal_partition: format!("{prefix}-state-tree"),
            metadata_partition: format!("{prefix}-state-peaks"),
            items_per_blob: NZU64!(1 << 18),
            write_buffer: buffer,
            replay_buffer: buffer,
            strategy: Sequential,
            page_cache: page_cache.clone(),
        },
        journal_config: LogConfig {
            partition: format!("{prefix}-state-log"),
            items_per_blob: NZU64!(1 << 16),
            page_cache,
            write_buffer: buffer,
            replay_buffer: buffer,
        },
        grafted_metadata_partition: format!("{prefix}-state-bitmap"),
        translator: EightCap,
        init_cache: Some(NZUsize!(1 << 16)),
        init_buffer: NZUsize!(1 << 21),
        init_concurrency: (),
    }
}

/// Where cells are read from: a batch or the applied database.
pub(crate) trait Cells {
    /// Cells under `keys`, in their order.
    fn cells(
        &self,
        keys: &[&Digest],
    ) -> impl Future<Output = Result<Vec<Option<Cell>>, Error<Family>>> + Send;
}

impl<E: StorageContext + Spawner> Cells for Batch<E> {
    async fn cells(&self, keys: &[&Digest]) -> Result<Vec<Option<Cell>>, Error<Family>> {
        self.get_many(keys).await
    }
}

impl<E: StorageContext + Spawner> Cells for StateDb<E> {
    async fn cells(&self, keys: &[&Digest]) -> Result<Vec<Option<Cell>>, Error<Family>> {
        self.get_many(keys).await
    }
}

/// Why the state could not be read.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// The storage failed.
    #[error("the state database failed: {0}")]
    Storage(String),
    /// Cells do not join into the value their head promised.
    #[error("the state holds damaged cells under {0}")]
    Damaged(Digest),
}

impl From<Error<Family>> for StateError {
    fn from(error: Error<Family>) -> Self {
        Self::Storage(error.to_string())
    }
}

/// Loads `keys`: one read for all heads, one more if any value is long.
pub(crate) async fn load(
    source: &impl Cells,
    keys: &[StateKey],
    into: &mut ReadCache,
) -> Result<(), StateError> {
    let missing: BTreeSet<StateKey> = keys.iter().filter(|key| !into.0.contains_key(*key)).copied().collect();
    let keys: Vec<Digest> = missing.iter().map(|key| Digest::from(key.0)).collect();
    let heads = source.cells(&keys.iter().collect::<Vec<_>>()).await?;
    let mut long = Vec::new();
    for ((key, head), state_key) in keys.iter().zip(heads).zip(missing) {
        let value = match head {
            None => None,
            Some(cell) => match cell.as_head().ok_or(StateError::Damaged(*key))? {
                Head::Short(value) => Some(value.to_vec()),
                Head::Long { length, digest } => {
                    long.push((state_key, *key, length, digest));
                    continue;
                }
            },
        };
        into.0.insert(state_key, value);
    }
    for (state_key, key, length, digest) in long {
        let chunk_keys = cell::chunk_keys(&key, length);
        let cells = source.cells(&chunk_keys.iter().collect::<Vec<_>>()).await?;
        let cells: Option<Vec<Cell>> = cells.into_iter().collect();
        let value =
            cells.and_then(|cells| cell::join(length, &digest, &cells)).ok_or(StateError::Damaged(key))?;
        into.0.insert(state_key, Some(value));
    }
    Ok(())
}

/// Records `writes` in a batch.
///
/// A deleted or replaced long value takes its chunks with it when `before` knows it was long; the chain reads what it
/// deletes, and code is written once, so nothing is left behind.
pub(crate) fn write<E: StorageContext + Spawner>(
    mut batch: Batch<E>,
    before: &ReadCache,
    writes: &[(StateKey, Option<StateValue>)],
) -> Batch<E> {
    for (state_key, value) in writes {
        let key = Digest::from(state_key.0);
        let old = before.0.get(state_key).and_then(Option::as_ref).map_or(0, Vec::len);
        let new = value.as_ref().map_or(0, Vec::len);
        for stale in cell::chunk_keys(&key, old).into_iter().skip(cell::chunk_keys(&key, new).len()) {
            batch = batch.write(stale, None);
        }
        batch = match value {
            None => batch.write(key, None),
            Some(value) => {
                for (chunk_key, chunk) in cell::chunks(&key, value) {
                    batch = batch.write(chunk_key, Some(chunk));
                }
                batch.write(key, Some(Cell::head(value)))
            }
        };
    }
    batch
}
