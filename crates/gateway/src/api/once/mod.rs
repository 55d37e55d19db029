//! Once: what was asked once is answered once, however often the asking is repeated.
//!
//! In:     `Idempotency-Key`; retries as clients' libraries count them (`x-stainless-retry-count`); responses as they are
//!         made. Out: the same response to whoever asks again, from its beginning, and as it goes on.
//! Touches: memory, within bounds; `repeats.redb`, by way of `kept`.
//! Holds:  that a request may be sent again is on the disk before its answer is charged, so what a killed gateway had begun is
//!         found by the next: a whole response is told again, one that is charged is never made again, any other goes on. An
//!         `Idempotency-Key` stands for one request of one tenant for a day, and for no other. Without one, a retry is
//!         given what an equal request of the same tenant began only if nobody can have received it: its connection was
//!         lost, and no other retry has taken it. What failed is forgotten, so that a retry tries again.
//! Absent: what a response says; answers' own continuation (`last_event`).

mod kept;
mod record;

use std::{
    collections::{BTreeMap, HashMap},
    path::Path,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use axum::http::HeaderMap;
use surety_types::Digest;
use tokio::{
    sync::watch,
    time::{Instant, sleep},
};
use tracing::error;

pub(crate) use self::record::Record;
use self::{
    kept::{Begun, Change, Kept, Known, Whole},
    record::{Head, LeftBehind, Made},
};
use super::{generate::receipt_path, unix_ms};
use crate::{
    disk::{Disk, OpenStoreError, Writer, Written},
    error::{ApiError, Code},
    id::RequestId,
};

/// For so long an `Idempotency-Key` stands for its request.
const NAMED_FOR: Duration = Duration::from_secs(24 * 3600);
/// For so long after its end a response without one waits for a retry.
const UNNAMED_FOR: Duration = Duration::from_secs(60);
/// A retry may be here before its connection is seen to be lost.
const LOSS_PATIENCE: Duration = Duration::from_millis(1500);
const LOSS_PAUSE: Duration = Duration::from_millis(20);
/// Responses kept.
const RECORDS_MAX: usize = 8192;
/// Bytes of all of them.
const BYTES_MAX: usize = 256 << 20;
/// Where there is no room, one in so many of what may be kept is made free.
const ROOM_PARTS: usize = 8;
/// Between two looks for what is too old.
const AGE_INTERVAL: Duration = Duration::from_secs(1);
/// Characters of an `Idempotency-Key`.
const NAME_BYTES_MAX: usize = 256;
const DOMAIN: &str = "surety 2026 request once";

/// A connection of a client's, for as long as it is there.
#[derive(Debug, Clone, Default)]
pub(crate) struct Connection(Arc<AtomicBool>);

impl Connection {
    pub(crate) fn close(&self) {
        self.0.store(true, Ordering::Release);
    }

    fn is_closed(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

/// What a request says about being sent once or again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Said {
    /// By this name, always the same.
    Named(String),
    /// By a library that counts its retries.
    Counted(u32),
}

impl Said {
    /// What the headers say; none if nothing.
    pub(crate) fn of(headers: &HeaderMap) -> Result<Option<Said>, ApiError> {
        if let Some(name) = headers.get("idempotency-key") {
            let name = name.to_str().ok().filter(|name| (1..=NAME_BYTES_MAX).contains(&name.len()));
            let message = || {
                format!(
                    "`Idempotency-Key` must be 1 to {NAME_BYTES_MAX} printable ASCII characters. Send a UUID, or leave it out.",
                )
            };
            let name = name.ok_or_else(|| ApiError::invalid("Idempotency-Key", message()))?;
            return Ok(Some(Said::Named(name.to_owned())));
        }
        let count =
            headers.get("x-stainless-retry-count").and_then(|count| count.to_str().ok()?.parse().ok());
        Ok(count.map(Said::Counted))
    }
}

/// The digest of what makes requests equal.
pub(crate) fn digest(path: &str, body: &str) -> Digest {
    let mut hasher = Digest::hasher(DOMAIN);
    hasher.update(&(path.len() as u64).to_le_bytes()).update(path.as_bytes()).update(body.as_bytes());
    hasher.digest()
}

/// The responses that may be asked for again.
#[derive(Debug)]
pub(crate) struct Once {
    state: Mutex<State>,
    disk: Disk<Kept>,
}

#[derive(Debug, Default)]
struct State {
    next: u64,
    records: BTreeMap<u64, Arc<Record>>,
    named: HashMap<(u64, String), u64>,
    /// Bytes of all records that are still held by anyone.
    bytes: Arc<AtomicUsize>,
    /// When what is too old was last looked for.
    aged: Option<Instant>,
    /// What is to be forgotten on the disk, too.
    forgotten: Vec<u64>,
}

/// What is to be done with a request.
#[derive(Debug)]
pub(crate) enum Turn {
    /// It is the first: it is to be answered, and the response kept here; and when that it was sent is on the disk.
    First(Arc<Record>, Written<()>),
    /// A gateway that was stopped had begun to answer it: it is to be gone on with, under the id that the record has.
    Resumed(Arc<Record>),
    /// It is the same as this.
    Again(Arc<Record>),
    /// There is no room to keep its response.
    Unkept,
}

impl Once {
    /// Opens what is in `data_dir`, or makes it.
    pub(crate) fn open(data_dir: &Path) -> Result<(Arc<Once>, Writer), OpenStoreError> {
        let (disk, writer) = Disk::open(data_dir, Kept)?;
        let known = disk.read(kept::known).map_err(|error| error.at_start::<Kept>(data_dir))?;
        let mut state = State::default();
        let (now, now_ms) = (Instant::now(), unix_ms());
        for known in known {
            let order = known.order;
            if !state.restore(known, now, now_ms) {
                drop(disk.post(Change::Forget(order)));
            }
        }
        Ok((Arc::new(Once { state: Mutex::new(state), disk }), writer))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whose turn it is; `id` is what the response is known by, if it is the first.
    pub(crate) async fn turn(
        &self,
        tenant: u64,
        said: Said,
        request: Digest,
        id: RequestId,
    ) -> Result<Turn, ApiError> {
        let name = match &said {
            Said::Named(name) => Some(name.clone()),
            Said::Counted(_) => None,
        };
        let give_up = Instant::now() + LOSS_PATIENCE;
        let found = loop {
            {
                let mut state = self.lock();
                let found = match (&said, &name) {
                    (_, Some(name)) => state.named(tenant, name, request)?,
                    (Said::Counted(0), None) => None,
                    (_, None) => state.lost(tenant, &request),
                };
                let waits = matches!(said, Said::Counted(1..)) && state.is_read(tenant, &request);
                if found.is_some() || !waits || Instant::now() >= give_up {
                    let found = found.or_else(|| state.first(tenant, request, name.clone(), id));
                    break (found, std::mem::take(&mut state.forgotten));
                }
            }
            sleep(LOSS_PAUSE).await;
        };
        let (found, forgotten) = found;
        for order in forgotten {
            drop(self.disk.post(Change::Forget(order)));
        }
        let Some(found) = found else { return Ok(Turn::Unkept) };
        match found {
            Found::First(record) => {
                let begun = Begun { tenant, request, name, id };
                let written = self.disk.post(Change::Begun(record.id, begun));
                Ok(Turn::First(record, written))
            }
            Found::Known(record) => match record.take_over() {
                None => Ok(Turn::Again(record)),
                Some(LeftBehind::Begun) => Ok(Turn::Resumed(record)),
                Some(LeftBehind::Whole) => {
                    // Whoever asked may leave before it is read, and others wait for it.
                    tokio::spawn(fetch(self.disk.clone(), Arc::clone(&record)));
                    Ok(Turn::Again(record))
                }
            },
        }
    }

    /// Has a response that a gateway that was stopped had begun made anew, under another id; returns when that is on the disk.
    pub(crate) fn begin_anew(&self, record: &Record, id: RequestId) -> Written<()> {
        record.lock().request_id = id;
        let (tenant, request, name) = (record.tenant, record.request, record.name.clone());
        self.disk.post(Change::Begun(record.id, Begun { tenant, request, name, id }))
    }

    /// Forgets a response that a retry must not be given.
    fn forget(&self, record: &Record) {
        self.forget_here(record);
        drop(self.disk.post(Change::Forget(record.id)));
    }

    /// Forgets a response, and leaves it to the gateway that begins in this one's directory.
    fn forget_here(&self, record: &Record) {
        let mut state = self.lock();
        state.records.remove(&record.id);
        state.named.retain(|_, id| *id != record.id);
    }
}

/// Reads from the disk what a gateway that was stopped left whole.
async fn fetch(disk: Disk<Kept>, record: Arc<Record>) {
    let order = record.id;
    let read = tokio::task::spawn_blocking(move || disk.read(|rows| kept::response(rows, order)));
    let found = read.await.ok().and_then(|read| {
        read.inspect_err(|error| error!(%error, "a response that is asked for again cannot be read")).ok()?
    });
    record.change(|made| match found {
        Some(Whole { status, headers, body }) => {
            made.head = Some(Head { status, headers, id: Some(made.request_id) });
            made.pieces = vec![body];
        }
        None => made.failed = Some(answered_before(made.request_id)),
    });
}

/// A response that was charged cannot be told again.
pub(crate) fn answered_before(id: RequestId) -> ApiError {
    let message = format!(
        "This request was answered to its end, and charged once; the answer cannot be told again word by word: it was too \
         long to be kept, or the gateway was stopped in the very moment. All of it is in {}.",
        receipt_path(id),
    );
    ApiError::new(Code::AnsweredBefore, message)
}

/// A record that a request is about.
enum Found {
    First(Arc<Record>),
    Known(Arc<Record>),
}

impl State {
    /// Takes in what the gateway before left; false if it is too old.
    fn restore(&mut self, known: Known, now: Instant, now_ms: u64) -> bool {
        let Known { order, begun: Begun { tenant, request, name, id }, begun_ms, whole } = known;
        self.next = self.next.max(order + 1);
        let (since_ms, bytes) = whole.unwrap_or((begun_ms, 0));
        let age = Duration::from_millis(now_ms.saturating_sub(since_ms));
        // What had not ended is as old as this gateway: until now it could not be asked for again.
        let kept_for = match (&name, whole) {
            (None, None) => NAMED_FOR,
            (None, Some(_)) => UNNAMED_FOR,
            (Some(_), _) => NAMED_FOR,
        };
        if age >= kept_for || self.is_full(1) {
            return false;
        }
        let bytes = usize::try_from(bytes).unwrap_or(usize::MAX);
        self.bytes.fetch_add(bytes, Ordering::AcqRel);
        // Its connection went with the gateway.
        let given = whole.map(|_| Connection(Arc::new(AtomicBool::new(true))));
        let left_behind = Some(if whole.is_some() { LeftBehind::Whole } else { LeftBehind::Begun });
        let since = if whole.is_some() { now.checked_sub(age).unwrap_or(now) } else { now };
        let made =
            Made { left_behind, bytes, given, ended: Some(since), left: Some(since), ..Made::begun(id) };
        self.add(order, tenant, request, name, made);
        true
    }

    fn add(
        &mut self,
        order: u64,
        tenant: u64,
        request: Digest,
        name: Option<String>,
        made: Made,
    ) -> Arc<Record> {
        let record = Arc::new(Record {
            id: order,
            tenant,
            request,
            name: name.clone(),
            total: Arc::clone(&self.bytes),
            state: Mutex::new(made),
            changed: watch::Sender::new(0),
        });
        self.records.insert(order, Arc::clone(&record));
        if let Some(name) = name {
            self.named.insert((tenant, name), order);
        }
        record
    }

    fn named(&mut self, tenant: u64, name: &str, request: Digest) -> Result<Option<Found>, ApiError> {
        self.age();
        let known = self.named.get(&(tenant, name.to_owned())).and_then(|id| self.records.get(id));
        let Some(record) = known else { return Ok(None) };
        if record.request != request {
            let message = "The `Idempotency-Key` was used for another request within the last day: another path, or a body \
                           that is not the same to the byte. Send a new key with a new request, and the old request with \
                           the old key.";
            return Err(ApiError::new(Code::IdempotencyMismatch, message).with_param("Idempotency-Key"));
        }
        let mut made = record.lock();
        if made.clipped {
            return Err(answered_before(made.request_id));
        }
        // It is taken before it can be seen that nobody reads it.
        made.readers += 1;
        drop(made);
        Ok(Some(Found::Known(Arc::clone(record))))
    }

    /// None: there is no room.
    fn first(&mut self, tenant: u64, request: Digest, name: Option<String>, id: RequestId) -> Option<Found> {
        self.age();
        if self.is_full(1) {
            self.make_room();
        }
        if self.is_full(1) {
            return None;
        }
        let order = self.next;
        self.next += 1;
        let made = Made { readers: 1, ..Made::begun(id) };
        Some(Found::First(self.add(order, tenant, request, name, made)))
    }

    /// Whether there is no room, or less than a part of it where `parts` is more than one.
    fn is_full(&self, parts: usize) -> bool {
        let most = |all: usize| if parts > 1 { all - all / parts } else { all };
        self.records.len() >= most(RECORDS_MAX) || self.bytes.load(Ordering::Acquire) >= most(BYTES_MAX)
    }

    /// Forgets some that have ended: the oldest first, and those with a name last.
    fn make_room(&mut self) {
        let ended = self.records.values().filter(|record| record.lock().ended.is_some());
        let mut oldest: Vec<(bool, u64)> = ended.map(|record| (record.is_named(), record.id)).collect();
        oldest.sort_unstable();
        for (_, id) in oldest {
            if !self.is_full(ROOM_PARTS) {
                break;
            }
            self.records.remove(&id);
            self.forgotten.push(id);
        }
        self.named.retain(|_, id| self.records.contains_key(id));
    }

    /// Forgets what is too old, now and then.
    fn age(&mut self) {
        if self.aged.is_some_and(|aged| aged.elapsed() < AGE_INTERVAL) {
            return;
        }
        self.aged = Some(Instant::now());
        let old = |record: &Record| {
            let kept_for = if record.is_named() { NAMED_FOR } else { UNNAMED_FOR };
            record.lock().ended.is_some_and(|ended| ended.elapsed() >= kept_for)
        };
        let forgotten = &mut self.forgotten;
        self.records.retain(|id, record| {
            let old = old(record);
            forgotten.extend(old.then_some(*id));
            !old
        });
        self.named.retain(|_, id| self.records.contains_key(id));
    }

    fn alike<'a>(&'a self, tenant: u64, request: &Digest) -> impl Iterator<Item = &'a Arc<Record>> {
        let request = *request;
        let alike = move |record: &&Arc<Record>| {
            !record.is_named() && record.tenant == tenant && record.request == request
        };
        self.records.values().filter(alike)
    }

    /// Takes over a response to an equal request that was lost on its way: one whose reader left it before its end; or,
    /// where no other is known that it could be, one that was given to its end to a connection which has closed since, for what
    /// was in the network then is lost too.
    fn lost(&self, tenant: u64, request: &Digest) -> Option<Found> {
        let (mut known, mut given) = (0, None);
        for record in self.alike(tenant, request) {
            let mut made = record.lock();
            if made.failed.is_some() || made.clipped {
                continue;
            }
            known += 1;
            if made.readers > 0 {
                continue;
            }
            match &made.given {
                None => {
                    made.readers += 1;
                    return Some(Found::Known(Arc::clone(record)));
                }
                Some(connection) if connection.is_closed() => given = Some(record),
                Some(_) => {}
            }
        }
        let record = given.filter(|_| known == 1)?;
        let mut made = record.lock();
        made.readers += 1;
        made.given = None;
        Some(Found::Known(Arc::clone(record)))
    }

    /// Whether somebody still reads the response to an equal request, as far as is known, or may have it.
    fn is_read(&self, tenant: u64, request: &Digest) -> bool {
        self.alike(tenant, request).any(|record| {
            let made = record.lock();
            made.readers > 0 || made.given.as_ref().is_some_and(|connection| !connection.is_closed())
        })
    }
}

#[cfg(test)]
mod tests;
