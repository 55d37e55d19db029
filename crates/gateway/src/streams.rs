//! Streams: what a stream needs to go on after the gateway itself was killed.
//!
//! In:     what was agreed and signed about streams under way, as it comes.
//! Out:    the same by request id, until the stream is whole, old, or too many came after it.
//! Touches: one file, `streams.redb`, by way of `disk`.
//! Holds:  nothing on a request's path waits for the disk; a gap ends what is read back; prompts are not in it. The file is of use to running streams alone: one that cannot be read is
//!         replaced.
//! Absent: what the entries mean (`session/restore`).

use std::{
    collections::BTreeSet,
    fmt, fs, io,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use redb::{ReadTransaction, ReadableTable, ReadableTableMetadata, TableDefinition, WriteTransaction};
use surety_types::{CivilDate, Digest, ModelId};
use tracing::{error, warn};

use crate::{
    api::unix_ms,
    disk::{Disk, OpenStoreError, Pace, Tables, Writer},
    id::RequestId,
};

/// Request id, order of arrival → kind, number, two byte strings, text.
type Row<'a> = (u8, u64, &'a [u8], &'a [u8], &'a str);
const LOG: TableDefinition<'_, (u128, u64), Row<'_>> = TableDefinition::new("log");
/// Order of arrival → request id, Unix milliseconds.
const BEGUN: TableDefinition<'_, u64, (u128, u64)> = TableDefinition::new("begun");
/// `bytes` → the sum of what is kept; `next` → the order of the next arrival.
const TOTALS: TableDefinition<'_, &str, u64> = TableDefinition::new("totals");
const BYTES: &str = "bytes";
const NEXT: &str = "next";

/// Streams kept; the oldest go first.
const STREAMS_MAX: u64 = 4096;
/// Bytes kept.
const BYTES_MAX: u64 = 256 << 20;
/// For so long after a stream's beginning it can be gone on with.
const KEPT_FOR: Duration = Duration::from_secs(3600);
/// How a stream began.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Begun {
    pub(crate) model: ModelId,
    pub(crate) nonce: [u8; 32],
    /// Today, as the chat template was told.
    pub(crate) date: CivilDate,
    /// Unix milliseconds.
    pub(crate) received_ms: u64,
    /// The key that asked; nobody else goes on with it.
    pub(crate) tenant: u64,
}

/// Something that a stream needs to go on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Entry {
    Begun(Begun),
    /// A worker's tokens are what the caller is given from now on.
    Leg {
        order: Vec<u8>,
        acceptance: Vec<u8>,
        at_ms: u64,
    },
    /// It signed for more: `progress`, or the receipt of its failure. `first` counts the tokens of this leg before.
    Signed {
        message: Vec<u8>,
        is_receipt: bool,
        first: u32,
        ids: Vec<u32>,
        text: String,
    },
}

/// A stream's entry is to be kept, and somebody told of it; or all of a stream is not to be.
enum Change {
    Keep(u128, Entry, Option<Arc<AtomicBool>>),
    Forget(u128),
}

/// The kept streams.
#[derive(Debug, Clone)]
pub(crate) struct Streams(Disk<Kept>);

/// One stream's place among them.
#[derive(Clone)]
pub(crate) struct StreamLog {
    id: u128,
    disk: Disk<Kept>,
    /// Whether its beginning is on the disk.
    kept: Arc<AtomicBool>,
}

impl fmt::Debug for StreamLog {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("StreamLog").finish_non_exhaustive()
    }
}

impl Streams {
    /// Opens what is in `data_dir`, or makes it anew.
    pub(crate) fn open(data_dir: &Path) -> Result<(Streams, Writer), OpenStoreError> {
        let open = || Disk::open(data_dir, Kept { bytes_max: BYTES_MAX });
        let (disk, writer) = open().or_else(|error| match error {
            OpenStoreError::File { path, source } => {
                warn!(error = %source, "what is kept of streams cannot be read, and is thrown away");
                let failed = |error: io::Error| OpenStoreError::File {
                    path: path.clone(),
                    source: Box::new(error.into()),
                };
                fs::remove_file(&path).map_err(failed)?;
                open()
            }
            error => Err(error),
        })?;
        Ok((Streams(disk), writer))
    }

    /// A stream begins.
    pub(crate) fn begin(&self, id: RequestId, begun: Begun) -> StreamLog {
        let log = self.log(id, false);
        log.send(Entry::Begun(begun), Some(Arc::clone(&log.kept)));
        log
    }

    /// A stream goes on that is kept already.
    pub(crate) fn go_on(&self, id: RequestId) -> StreamLog {
        self.log(id, true)
    }

    fn log(&self, id: RequestId, kept: bool) -> StreamLog {
        StreamLog { id: id.bits(), disk: self.0.clone(), kept: Arc::new(AtomicBool::new(kept)) }
    }

    /// What is kept of a stream. Reads the disk.
    pub(crate) fn find(&self, id: RequestId) -> Option<(Begun, Vec<Entry>)> {
        let mut entries = self
            .0
            .read(|transaction| read(transaction, id.bits()))
            .inspect_err(|error| error!(%error, "what is kept of a stream cannot be read"))
            .ok()?
            .into_iter();
        let Some(Entry::Begun(begun)) = entries.next() else { return None };
        let now_ms = unix_ms();
        (now_ms.saturating_sub(begun.received_ms) < KEPT_FOR.as_millis() as u64)
            .then(|| (begun, entries.collect()))
    }
}

impl StreamLog {
    /// Whether the stream can be gone on with.
    pub(crate) fn is_kept(&self) -> bool {
        self.kept.load(Ordering::Relaxed)
    }

    /// Keeps an entry, some time soon.
    pub(crate) fn keep(&self, entry: Entry) {
        self.send(entry, None);
    }

    /// The stream is whole: nobody goes on with it.
    pub(crate) fn forget(&self) {
        // If it stays, it grows old.
        self.disk.offer(Change::Forget(self.id));
    }

    fn send(&self, entry: Entry, kept: Option<Arc<AtomicBool>>) {
        // Where the disk is too slow, what was lost is seen by its gap.
        self.disk.offer(Change::Keep(self.id, entry, kept));
    }
}

fn read(transaction: &ReadTransaction, id: u128) -> Result<Vec<Entry>, redb::Error> {
    let log = transaction.open_table(LOG)?;
    let mut entries = Vec::new();
    for row in log.range((id, 0)..=(id, u64::MAX))? {
        let (_, row) = row?;
        let Some(entry) = Entry::of_row(row.value()) else { break };
        entries.push(entry);
    }
    Ok(entries)
}

struct Kept {
    bytes_max: u64,
}

impl Tables for Kept {
    type Change = Change;
    /// Who is told that it is kept.
    type Outcome = Option<Arc<AtomicBool>>;

    const NAME: &'static str = "streams";
    const PACE: Pace = Pace {
        gather: Duration::from_millis(100),
        // What comes beyond is left out, and with it the rest of its stream.
        waiting_max: 8192,
        batch_max: 8192,
        batch_bytes_max: usize::MAX,
        cache_bytes: 8 << 20,
    };

    fn create(transaction: &WriteTransaction) -> Result<(), redb::Error> {
        transaction.open_table(LOG)?;
        transaction.open_table(BEGUN)?;
        transaction.open_table(TOTALS)?;
        Ok(())
    }

    fn apply(
        &self,
        transaction: &WriteTransaction,
        changes: Vec<Change>,
        now_ms: u64,
    ) -> Result<Vec<Option<Arc<AtomicBool>>>, redb::Error> {
        // What came and went between two commits is not written at all.
        let ended: BTreeSet<u128> = changes.iter().filter_map(Change::forgets).collect();
        let mut log = transaction.open_table(LOG)?;
        let mut begun = transaction.open_table(BEGUN)?;
        let mut totals = transaction.open_table(TOTALS)?;
        let mut bytes = totals.get(BYTES)?.map_or(0, |total| total.value());
        let mut next = totals.get(NEXT)?.map_or(0, |next| next.value());
        for change in &changes {
            match change {
                Change::Keep(id, entry, _) if !ended.contains(id) => {
                    let (kind, number, first, second, text) = entry.row();
                    let row = (kind, number, &first[..], &second[..], text);
                    bytes += row_bytes(&row);
                    log.insert((*id, next), row)?;
                    if let Entry::Begun(_) = entry {
                        begun.insert(next, (*id, now_ms))?;
                    }
                    next += 1;
                }
                Change::Keep(..) => {}
                Change::Forget(id) => bytes -= forget(&mut log, &mut begun, *id)?.min(bytes),
            }
        }
        loop {
            let oldest = begun.first()?.map(|(_, oldest)| oldest.value());
            let Some((id, at_ms)) = oldest else { break };
            let old = now_ms.saturating_sub(at_ms) >= KEPT_FOR.as_millis() as u64;
            if !old && begun.len()? <= STREAMS_MAX && bytes <= self.bytes_max {
                break;
            }
            bytes -= forget(&mut log, &mut begun, id)?.min(bytes);
        }
        totals.insert(BYTES, bytes)?;
        totals.insert(NEXT, next)?;
        Ok(changes.into_iter().map(Change::told).collect())
    }

    fn written(told: &Option<Arc<AtomicBool>>) {
        if let Some(kept) = told {
            kept.store(true, Ordering::Relaxed);
        }
    }
}

/// Removes a stream; returns what it took.
fn forget(
    log: &mut redb::Table<'_, (u128, u64), Row<'_>>,
    begun: &mut redb::Table<'_, u64, (u128, u64)>,
    id: u128,
) -> Result<u64, redb::Error> {
    let first = log.range((id, 0)..=(id, u64::MAX))?.next().transpose()?;
    let Some(arrival) = first.map(|(key, _)| key.value().1) else { return Ok(0) };
    begun.remove(arrival)?;
    let mut bytes = 0;
    log.retain_in((id, 0)..=(id, u64::MAX), |_, row| {
        bytes += row_bytes(&row);
        false
    })?;
    Ok(bytes)
}

fn row_bytes(row: &Row<'_>) -> u64 {
    (row.2.len() + row.3.len() + row.4.len()) as u64
}

impl Change {
    fn forgets(&self) -> Option<u128> {
        match self {
            Change::Forget(id) => Some(*id),
            Change::Keep(..) => None,
        }
    }

    fn told(self) -> Option<Arc<AtomicBool>> {
        match self {
            Change::Keep(_, _, kept) => kept,
            Change::Forget(_) => None,
        }
    }
}

impl Entry {
    fn row(&self) -> (u8, u64, Vec<u8>, Vec<u8>, &str) {
        match self {
            Entry::Begun(Begun { model, nonce, date, received_ms, tenant }) => {
                let mut bytes = [&model.0.0[..], nonce].concat();
                bytes.extend(date.year.to_le_bytes());
                bytes.extend([date.month, date.day]);
                bytes.extend(tenant.to_le_bytes());
                (0, *received_ms, bytes, Vec::new(), "")
            }
            Entry::Leg { order, acceptance, at_ms } => (1, *at_ms, order.clone(), acceptance.clone(), ""),
            Entry::Signed { message, is_receipt, first, ids, text } => {
                let ids = ids.iter().flat_map(|id| id.to_le_bytes()).collect();
                (2 + u8::from(*is_receipt), u64::from(*first), message.clone(), ids, text)
            }
        }
    }

    /// None for bytes that no entry gives.
    fn of_row(row: Row<'_>) -> Option<Entry> {
        let (kind, number, first, second, text) = row;
        match kind {
            0 => {
                let (model, rest) = first.split_first_chunk::<32>()?;
                let (nonce, rest) = rest.split_first_chunk::<32>()?;
                let (&[low, high, month, day], rest) = rest.split_first_chunk::<4>()?;
                let tenant = u64::from_le_bytes(rest.try_into().ok()?);
                let date = CivilDate { year: u16::from_le_bytes([low, high]), month, day };
                let model = ModelId(Digest(*model));
                Some(Entry::Begun(Begun { model, nonce: *nonce, date, received_ms: number, tenant }))
            }
            1 => Some(Entry::Leg { order: first.to_vec(), acceptance: second.to_vec(), at_ms: number }),
            2 | 3 => {
                let (ids, rest) = second.as_chunks::<4>();
                let ids = ids.iter().map(|id| u32::from_le_bytes(*id)).collect();
                let first_token = u32::try_from(number).ok().filter(|_| rest.is_empty())?;
                let (message, text) = (first.to_vec(), text.to_owned());
                Some(Entry::Signed { message, is_receipt: kind == 3, first: first_token, ids, text })
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::disk::tests::applied;

    fn begun(received_ms: u64) -> Begun {
        let date = CivilDate { year: 2026, month: 1, day: 2 };
        Begun { model: ModelId(Digest([7; 32])), nonce: [9; 32], date, received_ms, tenant: 3 }
    }

    fn id(digit: u128) -> RequestId {
        RequestId::parse(&format!("req_{digit:032x}")).expect("an id")
    }

    fn signed(first: u32, ids: Vec<u32>, text: &str) -> Entry {
        Entry::Signed { message: vec![3; 5], is_receipt: false, first, ids, text: text.to_owned() }
    }

    fn closed(streams: Streams, writer: Writer) {
        drop(streams);
        writer.join();
    }

    #[test]
    fn what_was_kept_is_there_after_a_restart_and_gone_after_its_end() {
        let directory = tempfile::tempdir().expect("a directory");
        let now_ms = unix_ms();
        let entries = [
            Entry::Leg { order: vec![1, 2], acceptance: vec![3], at_ms: 4 },
            signed(0, vec![5, 6], "ab"),
            signed(2, vec![], "é"),
        ];
        let (streams, writer) = Streams::open(directory.path()).expect("opened");
        for digit in [1, 2] {
            let log = streams.begin(id(digit), begun(now_ms));
            entries[..digit as usize].iter().for_each(|entry| log.keep(entry.clone()));
        }
        closed(streams, writer);

        let (streams, writer) = Streams::open(directory.path()).expect("opened");
        assert_eq!(streams.find(id(1)), Some((begun(now_ms), entries[..1].to_vec())));
        assert_eq!(streams.find(id(2)), Some((begun(now_ms), entries[..2].to_vec())));
        assert_eq!(streams.find(id(3)), None);
        let log = streams.go_on(id(2));
        assert!(log.is_kept());
        log.keep(entries[2].clone());
        drop(log);
        streams.go_on(id(1)).forget();
        closed(streams, writer);

        let (streams, writer) = Streams::open(directory.path()).expect("opened");
        assert_eq!(streams.find(id(1)), None);
        assert_eq!(streams.find(id(2)), Some((begun(now_ms), entries.to_vec())));
        closed(streams, writer);
    }

    #[test]
    fn a_file_that_cannot_be_read_is_replaced() {
        let directory = tempfile::tempdir().expect("a directory");
        fs::write(directory.path().join("streams.redb"), vec![b'x'; 10_000]).expect("written");
        let (streams, writer) = Streams::open(directory.path()).expect("opened");
        assert_eq!(streams.find(id(1)), None);
        closed(streams, writer);
    }

    #[test]
    fn the_old_and_the_many_go() {
        let directory = tempfile::tempdir().expect("a directory");
        let kept = || Kept { bytes_max: 10_000 };
        let (disk, _writer) = Disk::open(directory.path(), kept()).expect("opened");
        let keep = |digit: u128, entry| Change::Keep(digit, entry, None);
        let day_ms = 24 * 3600 * 1000;
        let one = |digit: u128| keep(digit, Entry::Begun(begun(day_ms)));
        let commit = |changes: Vec<Change>, now_ms| drop(applied(&disk, &kept(), changes, now_ms));
        commit(vec![one(1), one(2)], day_ms);
        commit(vec![one(3)], day_ms + KEPT_FOR.as_millis() as u64 - 1);
        let there =
            |digit: u128| !disk.read(|transaction| read(transaction, digit)).expect("read").is_empty();
        assert!((1..=3).all(there));
        commit(vec![Change::Forget(9)], day_ms + KEPT_FOR.as_millis() as u64);
        assert_eq!([1, 2, 3].map(there), [false, false, true]);
        // Too much altogether: the oldest goes, and the newest stays.
        let large = || signed(0, vec![], &"x".repeat(5000));
        let now_ms = 3 * day_ms;
        commit(vec![one(4), keep(4, large())], now_ms);
        commit(vec![one(5), keep(5, large())], now_ms);
        assert_eq!([3, 4, 5].map(there), [false, false, true]);
        commit(vec![Change::Forget(5)], now_ms);
        let total = disk
            .read(|transaction| Ok(transaction.open_table(TOTALS)?.get(BYTES)?.map(|total| total.value())));
        assert_eq!(total.expect("read"), Some(0));
    }

    proptest! {
        #[test]
        fn rows_are_read_as_they_were_written(
            message in prop::collection::vec(any::<u8>(), 0..40),
            is_receipt in any::<bool>(),
            first in any::<u32>(),
            ids in prop::collection::vec(any::<u32>(), 0..20),
            text in ".{0,30}",
        ) {
            let entry = Entry::Signed { message, is_receipt, first, ids, text };
            let (kind, number, first, second, text) = entry.row();
            prop_assert_eq!(Entry::of_row((kind, number, &first, &second, text)), Some(entry.clone()));
        }

        #[test]
        fn other_rows_are_refused_in_order(
            kind in any::<u8>(),
            number in any::<u64>(),
            first in prop::collection::vec(any::<u8>(), 0..100),
            second in prop::collection::vec(any::<u8>(), 0..40),
            text in ".{0,30}",
        ) {
            if let Some(entry) = Entry::of_row((kind, number, &first, &second, &text)) {
                let again = entry.row();
                prop_assert_eq!((again.0, again.1), (kind, number));
                prop_assert_eq!((&again.2, &again.3), (&first, if kind == 0 { &again.3 } else { &second }));
            }
        }
    }
}
