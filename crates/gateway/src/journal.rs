//! Journal: the gateway's own word on what became of every request, kept for whoever asks by its id.
//!
//! In:     what is noted of a request while it runs (`trail`), whose it was, and how it ended.
//! Out:    a signed statement, and whose it is, with what workers signed about its orders where there is no evidence; until it is old.
//! Touches: one file, `journal.redb`, by way of `disk`; its thread signs.
//! Holds:  nothing on a request's path waits for the disk or for a signature; what a killed gateway leaves behind says that it
//!         ended in the middle of a request; the oldest go when there are too many, they take too much, or are too old. No
//!         text of a prompt or an answer is in it.
//! Absent: the evidence of answers (`receipts`), who is accountable (whoever explains).

pub(crate) mod trail;

use std::{
    collections::HashMap,
    fmt,
    ops::RangeInclusive,
    path::Path,
    sync::{Arc, Mutex, PoisonError, Weak},
    time::Duration,
};

use redb::{ReadTransaction, ReadableTable, ReadableTableMetadata, TableDefinition, WriteTransaction};
use surety_types::{Dossier, Paper, SecretKey, Signed, Statement, statement::DOSSIER_VERSION};
use tokio::time::{Instant, MissedTickBehavior};
use tracing::{error, warn};

use crate::{
    disk::{Disk, FindError, OpenStoreError, Pace, Tables, Writer},
    id::RequestId,
    keys::{NOBODY, Owned},
};
use trail::{Notes, Trail};

/// Order of arrival → request id, Unix milliseconds, the file as JSON.
const ENTRIES: TableDefinition<'_, u64, (u128, u64, &[u8])> = TableDefinition::new("entries");
/// Request id → order of arrival.
const ARRIVALS: TableDefinition<'_, u128, u64> = TableDefinition::new("arrivals");
/// Request id → the number of the key it came with, if it came with one.
const TENANTS: TableDefinition<'_, u128, u64> = TableDefinition::new("tenants");
/// `bytes` → the sum of what is kept; `next` → the order of the next arrival.
const TOTALS: TableDefinition<'_, &str, u64> = TableDefinition::new("totals");
const BYTES: &str = "bytes";
const NEXT: &str = "next";

/// Entries of one page, those that are looked at for it, and bytes from which on no more come.
const PAGE_MAX: usize = 256;
const PAGE_LOOKS_MAX: usize = 16_384;
const PAGE_BYTES_MAX: usize = 8 << 20;
/// Entries that are looked at for the latest of one key.
const LATEST_LOOKS_MAX: usize = 16_384;
/// Statements of one reading of what is new.
const SINCE_MAX: usize = 2048;
/// Between two looks at whether the gateway itself runs …
const BEAT: Duration = Duration::from_millis(250);
/// … and by how much one may be late before it is said that it stood still.
const LATE_MAX: Duration = Duration::from_secs(1);

/// How much is kept, and how long.
#[derive(Debug, Clone, Copy)]
pub(crate) struct JournalBounds {
    pub(crate) count_max: u64,
    pub(crate) bytes_max: u64,
    pub(crate) age_max: Duration,
}

/// The kept statements.
#[derive(Clone)]
pub(crate) struct Journal(Arc<Inner>);

struct Inner {
    disk: Disk<Kept>,
    /// The requests under way.
    trails: Mutex<HashMap<u128, Weak<Notes>>>,
    /// When it was last seen that the gateway runs.
    beat: Mutex<Instant>,
}

/// When something was noted, the number of the key, the file; and where the next page begins, if there may be one.
pub(crate) type Page = (Vec<(u64, u64, Dossier)>, Option<u64>);

/// Statements in the order in which they came; the arrival from which to go on; and whether these are all there are.
pub(crate) struct Since {
    pub(crate) statements: Vec<Statement>,
    pub(crate) next: u64,
    pub(crate) is_all: bool,
}

/// The latest statements of one key's requests.
pub(crate) struct Latest {
    /// The newest first.
    pub(crate) statements: Vec<Statement>,
    /// Unix milliseconds: what was noted before was not looked at; none: all was.
    pub(crate) looked_back_to_ms: Option<u64>,
}

/// A statement to be signed and kept.
struct Entry {
    id: RequestId,
    tenant: u64,
    statement: Statement,
    papers: Vec<Paper>,
}

/// An entry as it is kept.
#[derive(Debug, PartialEq, Eq)]
struct Row {
    id: RequestId,
    tenant: u64,
    json: Vec<u8>,
}

impl fmt::Debug for Journal {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Journal").finish_non_exhaustive()
    }
}

impl Journal {
    /// Opens what is in `data_dir`, or makes it. What is written is signed by `key`.
    pub(crate) fn open(
        data_dir: &Path,
        key: SecretKey,
        bounds: JournalBounds,
    ) -> Result<(Journal, Writer), OpenStoreError> {
        let (disk, writer) = Disk::open(data_dir, Kept { key, bounds })?;
        let inner = Inner { disk, trails: Mutex::default(), beat: Mutex::new(Instant::now()) };
        Ok((Journal(Arc::new(inner)), writer))
    }

    /// What is noted of a request: begun, unless somebody notes already.
    pub(crate) fn trail(&self, id: RequestId) -> Trail {
        let mut trails = self.0.trails.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(notes) = trails.get(&id.bits()).and_then(Weak::upgrade) {
            return Trail::of(notes);
        }
        let notes = Arc::new(Notes::new(self.clone(), id));
        trails.insert(id.bits(), Arc::downgrade(&notes));
        Trail::of(notes)
    }

    /// Whether something is being noted of a request.
    pub(crate) fn is_under_way(&self, id: RequestId) -> bool {
        // Let go outside the lock: the last to let go takes it.
        let notes = {
            let trails = self.0.trails.lock().unwrap_or_else(PoisonError::into_inner);
            trails.get(&id.bits()).and_then(Weak::upgrade)
        };
        notes.is_some_and(|notes| notes.is_under_way())
    }

    fn forget(&self, id: RequestId) {
        let mut trails = self.0.trails.lock().unwrap_or_else(PoisonError::into_inner);
        // Another may have begun to note meanwhile.
        if trails.get(&id.bits()).is_some_and(|notes| notes.strong_count() == 0) {
            trails.remove(&id.bits());
        }
    }

    fn keep(&self, entry: Entry) {
        if !self.0.disk.offer(Box::new(entry)) {
            warn!("a request is not in the journal: the disk is too slow");
        }
    }

    /// What is kept of a request. Waits until what was handed over before is written.
    pub(crate) async fn find(&self, id: RequestId) -> Result<Option<Owned<Dossier>>, FindError> {
        self.0.disk.flush().await;
        let disk = self.0.disk.clone();
        let read = tokio::task::spawn_blocking(move || disk.read(|transaction| find(transaction, id)));
        let found = read.await.unwrap_or_else(|_| Err(FindError::closed::<Kept>()))?;
        Ok(found.and_then(|Row { tenant, json, .. }| {
            Dossier::parse(&json)
                .inspect_err(|error| error!(request = %id, %error, "an entry of the journal cannot be read"))
                .ok()
                .map(|dossier| Owned::by(tenant, dossier))
        }))
    }

    /// What was noted in a span of time, from this arrival on, oldest first: when, the number of the key, the file; and where the next
    /// page begins, if there may be one. In Unix milliseconds, both ends included.
    pub(crate) async fn page(&self, first: u64, from_ms: u64, to_ms: u64) -> Result<Page, FindError> {
        self.0.disk.flush().await;
        let disk = self.0.disk.clone();
        let read = tokio::task::spawn_blocking(move || {
            disk.read(|transaction| page(transaction, first, from_ms..=to_ms))
        });
        read.await.unwrap_or_else(|_| Err(FindError::closed::<Kept>()))
    }

    /// What was said last of those of one key's requests that are wanted, at most so many.
    pub(crate) async fn latest(
        &self,
        tenant: u64,
        count_max: usize,
        is_wanted: impl Fn(&Statement) -> bool + Send + 'static,
    ) -> Result<Latest, FindError> {
        self.0.disk.flush().await;
        let disk = self.0.disk.clone();
        let read = tokio::task::spawn_blocking(move || {
            disk.read(|transaction| latest(transaction, tenant, count_max, &is_wanted))
        });
        read.await.unwrap_or_else(|_| Err(FindError::closed::<Kept>()))
    }

    /// What is said from this arrival on, as far as it is one page. What was handed over before is written first.
    pub(crate) async fn since(&self, first: u64) -> Result<Since, FindError> {
        self.0.disk.flush().await;
        let disk = self.0.disk.clone();
        let read = tokio::task::spawn_blocking(move || disk.read(|transaction| since(transaction, first)));
        read.await.unwrap_or_else(|_| Err(FindError::closed::<Kept>()))
    }

    /// Watches that the gateway runs: where it stood still, every request under way is told so.
    pub(crate) async fn watch(self) {
        let mut beats = tokio::time::interval(BEAT);
        beats.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            beats.tick().await;
            self.beat();
        }
    }

    /// Notes that the gateway runs, and where it did not.
    fn beat(&self) {
        let late = {
            let mut beat = self.0.beat.lock().unwrap_or_else(PoisonError::into_inner);
            std::mem::replace(&mut *beat, Instant::now()).elapsed().saturating_sub(BEAT)
        };
        if late < LATE_MAX {
            return;
        }
        warn!(ms = late.as_millis() as u64, "the gateway stood still");
        let live: Vec<Arc<Notes>> = {
            let trails = self.0.trails.lock().unwrap_or_else(PoisonError::into_inner);
            trails.values().filter_map(Weak::upgrade).collect()
        };
        live.iter().for_each(|notes| notes.stood_still(late));
    }
}

fn find(transaction: &ReadTransaction, id: RequestId) -> Result<Option<Row>, redb::Error> {
    let Some(arrival) = transaction.open_table(ARRIVALS)?.get(id.bits())? else { return Ok(None) };
    let entries = transaction.open_table(ENTRIES)?;
    let tenant = transaction.open_table(TENANTS)?.get(id.bits())?.map_or(NOBODY, |tenant| tenant.value());
    Ok(entries.get(arrival.value())?.map(|entry| Row { id, tenant, json: entry.value().2.to_vec() }))
}

fn page(
    transaction: &ReadTransaction,
    first: u64,
    span_ms: RangeInclusive<u64>,
) -> Result<Page, redb::Error> {
    let (entries, tenants) = (transaction.open_table(ENTRIES)?, transaction.open_table(TENANTS)?);
    let (mut found, mut bytes) = (Vec::new(), 0);
    for (looked, entry) in entries.range(first..)?.enumerate() {
        let (arrival, entry) = entry?;
        if looked == PAGE_LOOKS_MAX || found.len() == PAGE_MAX || bytes > PAGE_BYTES_MAX {
            return Ok((found, Some(arrival.value())));
        }
        let (id, at_ms, json) = entry.value();
        if !span_ms.contains(&at_ms) {
            continue;
        }
        bytes += json.len();
        let tenant = tenants.get(id)?.map_or(NOBODY, |tenant| tenant.value());
        match Dossier::parse(json) {
            Ok(dossier) => found.push((at_ms, tenant, dossier)),
            Err(error) => error!(%error, "an entry of the journal cannot be read"),
        }
    }
    Ok((found, None))
}

fn since(transaction: &ReadTransaction, first: u64) -> Result<Since, redb::Error> {
    let mut since = Since { statements: Vec::new(), next: first, is_all: true };
    let mut bytes = 0;
    for entry in transaction.open_table(ENTRIES)?.range(first..)? {
        let (arrival, entry) = entry?;
        let (_, _, json) = entry.value();
        if since.statements.len() == SINCE_MAX || bytes > PAGE_BYTES_MAX {
            since.is_all = false;
            break;
        }
        bytes += json.len();
        since.next = arrival.value() + 1;
        since.statements.extend(statement(json));
    }
    Ok(since)
}

fn latest(
    transaction: &ReadTransaction,
    tenant: u64,
    count_max: usize,
    is_wanted: &dyn Fn(&Statement) -> bool,
) -> Result<Latest, redb::Error> {
    let (entries, tenants) = (transaction.open_table(ENTRIES)?, transaction.open_table(TENANTS)?);
    let mut latest = Latest { statements: Vec::new(), looked_back_to_ms: None };
    for (looked, entry) in entries.iter()?.rev().enumerate() {
        let (_, entry) = entry?;
        let (id, at_ms, json) = entry.value();
        if latest.statements.len() == count_max {
            break;
        }
        if looked == LATEST_LOOKS_MAX {
            latest.looked_back_to_ms = Some(at_ms);
            break;
        }
        if tenants.get(id)?.map_or(NOBODY, |tenant| tenant.value()) == tenant {
            latest.statements.extend(statement(json).filter(is_wanted));
        }
    }
    Ok(latest)
}

/// What an entry states. It is ours: who signed it needs no check.
fn statement(json: &[u8]) -> Option<Statement> {
    let dossier =
        Dossier::parse(json).inspect_err(|error| error!(%error, "an entry of the journal cannot be read"));
    let signed = dossier.ok()?.statement?;
    Signed::<Statement>::peek_value(&signed).ok().map(|(statement, _)| statement)
}

/// An entry, signed, as it is kept.
fn row(entry: Entry, key: &SecretKey) -> Option<Row> {
    let Entry { id, tenant, statement, papers } = entry;
    let signed = Signed::try_sign(statement, key);
    let signed =
        signed.inspect_err(|invalid| error!(request = %id, %invalid, "a statement cannot be signed"));
    let dossier = Dossier {
        surety_dossier: DOSSIER_VERSION,
        request_id: id.to_string(),
        statement: Some(signed.ok()?.bytes().to_vec()),
        papers,
        evidence: None,
        ledger: None,
    };
    let json = serde_json::to_vec(&dossier);
    let json =
        json.inspect_err(|error| error!(request = %id, %error, "a statement cannot be written as JSON"));
    Some(Row { id, tenant, json: json.ok()? })
}

struct Kept {
    /// Signs what is written.
    key: SecretKey,
    bounds: JournalBounds,
}

impl Tables for Kept {
    type Change = Box<Entry>;
    type Outcome = ();

    const NAME: &'static str = "journal";
    const PACE: Pace = Pace {
        gather: Duration::from_millis(50),
        // What comes beyond is not kept.
        waiting_max: 4096,
        batch_max: 4096,
        batch_bytes_max: usize::MAX,
        cache_bytes: 8 << 20,
    };

    fn create(transaction: &WriteTransaction) -> Result<(), redb::Error> {
        transaction.open_table(ENTRIES)?;
        transaction.open_table(ARRIVALS)?;
        transaction.open_table(TENANTS)?;
        transaction.open_table(TOTALS)?;
        Ok(())
    }

    fn apply(
        &self,
        transaction: &WriteTransaction,
        changes: Vec<Box<Entry>>,
        now_ms: u64,
    ) -> Result<Vec<()>, redb::Error> {
        let (bounds, outcomes) = (self.bounds, vec![(); changes.len()]);
        let mut entries = transaction.open_table(ENTRIES)?;
        let mut arrivals = transaction.open_table(ARRIVALS)?;
        let mut tenants = transaction.open_table(TENANTS)?;
        let mut totals = transaction.open_table(TOTALS)?;
        let mut next = totals.get(NEXT)?.map_or(0, |next| next.value());
        let mut bytes = totals.get(BYTES)?.map_or(0, |total| total.value());
        for Row { id, tenant, json } in changes.into_iter().filter_map(|entry| row(*entry, &self.key)) {
            // What is said last of a request counts.
            let before = arrivals.insert(id.bits(), next)?.map(|before| before.value());
            if let Some(before) = before
                && let Some(entry) = entries.remove(before)?
            {
                bytes -= entry.value().2.len() as u64;
            }
            entries.insert(next, (id.bits(), now_ms, json.as_slice()))?;
            match tenant {
                NOBODY => drop(tenants.remove(id.bits())?),
                key => drop(tenants.insert(id.bits(), key)?),
            }
            next += 1;
            bytes += json.len() as u64;
        }
        let oldest_ms = now_ms.saturating_sub(bounds.age_max.as_millis() as u64);
        loop {
            let crowded = entries.len()? > bounds.count_max || bytes > bounds.bytes_max;
            let old = entries.first()?.is_some_and(|(_, entry)| entry.value().1 < oldest_ms);
            if !crowded && !old {
                break;
            }
            let Some((_, oldest)) = entries.pop_first()? else { break };
            let (id, _, json) = oldest.value();
            arrivals.remove(id)?;
            tenants.remove(id)?;
            bytes -= json.len() as u64;
        }
        totals.insert(NEXT, next)?;
        totals.insert(BYTES, bytes)?;
        Ok(outcomes)
    }
}

#[cfg(test)]
mod tests;
