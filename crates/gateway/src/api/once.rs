//! Once: what was asked once is answered once, however often the asking is repeated.
//!
//! In:     `Idempotency-Key`; retries as clients' libraries count them (`x-stainless-retry-count`); responses as they are
//!         made. Out: the same response to whoever asks again, from its beginning, and as it goes on.
//! Touches: memory, within bounds.
//! Holds:  an `Idempotency-Key` stands for one request of one tenant for a day, and for no other. Without one, a retry is
//!         given what an equal request of the same tenant began only if nobody can have received it: its connection was
//!         lost, and no other retry has taken it. What failed is forgotten, so that a retry tries again.
//! Absent: what a response says; answers' own continuation (`last_event`).

use std::{
    collections::{BTreeMap, HashMap},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use axum::{
    body::Body,
    http::{HeaderMap, StatusCode},
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use futures::{StreamExt, stream};
use surety_types::Digest;
use tokio::{
    sync::watch,
    time::{Instant, sleep, sleep_until},
};

use crate::{
    error::{ApiError, Code},
    id::RequestId,
    keys::Tenant,
};

/// For so long an `Idempotency-Key` stands for its request.
const NAMED_FOR: Duration = Duration::from_secs(24 * 3600);
/// For so long after its end a response without one waits for a retry.
const UNNAMED_FOR: Duration = Duration::from_secs(60);
/// An answer that nobody reads any more goes on for so long, in case of a retry …
const GRACE: Duration = Duration::from_secs(10);
/// … and one of which something was read for so long: clients' libraries do not retry those.
const GRACE_READ: Duration = Duration::from_secs(2);
/// A retry may be here before its connection is seen to be lost.
const LOSS_PATIENCE: Duration = Duration::from_millis(1500);
const LOSS_PAUSE: Duration = Duration::from_millis(20);
/// Responses kept.
const RECORDS_MAX: usize = 8192;
/// Bytes of all of them, and of one.
const BYTES_MAX: usize = 256 << 20;
const RECORD_BYTES_MAX: usize = 32 << 20;
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
#[derive(Debug, Default)]
pub(crate) struct Once(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    next: u64,
    records: BTreeMap<u64, Arc<Record>>,
    named: HashMap<(u64, String), u64>,
    /// Bytes of all records that are still held by anyone.
    bytes: Arc<AtomicUsize>,
    /// When what is too old was last looked for.
    aged: Option<Instant>,
}

/// What is to be done with a request.
#[derive(Debug)]
pub(crate) enum Turn {
    /// It is the first: it is to be answered, and the response kept here.
    First(Arc<Record>),
    /// It is the same as this.
    Again(Arc<Record>),
    /// There is no room to keep its response.
    Unkept,
}

/// A response, as far as it has been made.
#[derive(Debug)]
pub(crate) struct Record {
    id: u64,
    tenant: u64,
    request: Digest,
    named: bool,
    /// Of all records.
    total: Arc<AtomicUsize>,
    state: Mutex<Made>,
    /// Counts changes.
    changed: watch::Sender<u64>,
}

#[derive(Debug)]
struct Made {
    head: Option<Head>,
    failed: Option<ApiError>,
    pieces: Vec<Bytes>,
    bytes: usize,
    /// It became too long to be kept: it cannot be told again from the beginning.
    clipped: bool,
    ended: Option<Instant>,
    readers: usize,
    /// Whether something of the body was read.
    read: bool,
    /// Whether a reader was given all of it, and through which connection.
    given: Option<Connection>,
    /// Since when nobody reads it.
    left: Option<Instant>,
}

#[derive(Debug, Clone)]
struct Head {
    status: StatusCode,
    headers: HeaderMap,
    id: Option<RequestId>,
}

impl Once {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whose turn it is.
    pub(crate) async fn turn(&self, tenant: u64, said: Said, request: Digest) -> Result<Turn, ApiError> {
        let count = match said {
            Said::Named(name) => return self.lock().named(tenant, name, request),
            Said::Counted(count) => count,
        };
        if count == 0 {
            return Ok(self.lock().first(tenant, request, None));
        }
        let give_up = Instant::now() + LOSS_PATIENCE;
        loop {
            {
                let mut state = self.lock();
                if let Some(record) = state.lost(tenant, &request) {
                    return Ok(Turn::Again(record));
                }
                if !state.is_read(tenant, &request) || Instant::now() >= give_up {
                    return Ok(state.first(tenant, request, None));
                }
            }
            sleep(LOSS_PAUSE).await;
        }
    }

    /// Forgets a response that a retry must not be given.
    fn forget(&self, record: &Record) {
        let mut state = self.lock();
        state.records.remove(&record.id);
        state.named.retain(|_, id| *id != record.id);
    }
}

impl State {
    fn named(&mut self, tenant: u64, name: String, request: Digest) -> Result<Turn, ApiError> {
        self.age();
        let known = self.named.get(&(tenant, name.clone())).and_then(|id| self.records.get(id));
        let Some(record) = known else { return Ok(self.first(tenant, request, Some(name))) };
        if record.request != request {
            let message = "The `Idempotency-Key` was used for another request within the last day: another path, or a body \
                           that is not the same to the byte. Send a new key with a new request, and the old request with \
                           the old key.";
            return Err(ApiError::new(Code::IdempotencyMismatch, message).with_param("Idempotency-Key"));
        }
        if record.lock().clipped {
            let message = "The answer to this `Idempotency-Key` is too long to be told again. It is in the receipt that its \
                           first response named.";
            return Err(ApiError::new(Code::IdempotencyMismatch, message).with_param("Idempotency-Key"));
        }
        // It is taken before it can be seen that nobody reads it.
        record.lock().readers += 1;
        Ok(Turn::Again(Arc::clone(record)))
    }

    fn first(&mut self, tenant: u64, request: Digest, name: Option<String>) -> Turn {
        self.age();
        if self.is_full(1) {
            self.make_room();
        }
        if self.is_full(1) {
            return Turn::Unkept;
        }
        let id = self.next;
        self.next += 1;
        let made = Made {
            head: None,
            failed: None,
            pieces: Vec::new(),
            bytes: 0,
            clipped: false,
            ended: None,
            readers: 1,
            read: false,
            given: None,
            left: None,
        };
        let record = Arc::new(Record {
            id,
            tenant,
            request,
            named: name.is_some(),
            total: Arc::clone(&self.bytes),
            state: Mutex::new(made),
            changed: watch::Sender::new(0),
        });
        self.records.insert(id, Arc::clone(&record));
        if let Some(name) = name {
            self.named.insert((tenant, name), id);
        }
        Turn::First(record)
    }

    /// Whether there is no room, or less than a part of it where `parts` is more than one.
    fn is_full(&self, parts: usize) -> bool {
        let most = |all: usize| if parts > 1 { all - all / parts } else { all };
        self.records.len() >= most(RECORDS_MAX) || self.bytes.load(Ordering::Acquire) >= most(BYTES_MAX)
    }

    /// Forgets some that have ended: the oldest first, and those with a name last.
    fn make_room(&mut self) {
        let ended = self.records.values().filter(|record| record.lock().ended.is_some());
        let mut oldest: Vec<(bool, u64)> = ended.map(|record| (record.named, record.id)).collect();
        oldest.sort_unstable();
        for (_, id) in oldest {
            if !self.is_full(ROOM_PARTS) {
                break;
            }
            self.records.remove(&id);
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
            let kept_for = if record.named { NAMED_FOR } else { UNNAMED_FOR };
            record.lock().ended.is_some_and(|ended| ended.elapsed() >= kept_for)
        };
        self.records.retain(|_, record| !old(record));
        self.named.retain(|_, id| self.records.contains_key(id));
    }

    fn alike<'a>(&'a self, tenant: u64, request: &Digest) -> impl Iterator<Item = &'a Arc<Record>> {
        let request = *request;
        let alike = move |record: &&Arc<Record>| {
            !record.named && record.tenant == tenant && record.request == request
        };
        self.records.values().filter(alike)
    }

    /// Takes over a response to an equal request that was lost on its way: one whose reader left it before its end; or,
    /// if there is one alone, one that was given to a connection to its end which has closed since, for what was
    /// in the network then is lost too.
    fn lost(&self, tenant: u64, request: &Digest) -> Option<Arc<Record>> {
        let mut given = Vec::new();
        for record in self.alike(tenant, request) {
            let mut made = record.lock();
            if made.readers > 0 || made.failed.is_some() || made.clipped {
                continue;
            }
            match &made.given {
                None => {
                    made.readers += 1;
                    return Some(Arc::clone(record));
                }
                Some(connection) if connection.is_closed() => given.push(record),
                Some(_) => {}
            }
        }
        let [record] = given[..] else { return None };
        let mut made = record.lock();
        made.readers += 1;
        made.given = None;
        Some(Arc::clone(record))
    }

    /// Whether somebody still reads the response to an equal request, as far as is known, or may have it.
    fn is_read(&self, tenant: u64, request: &Digest) -> bool {
        self.alike(tenant, request).any(|record| {
            let made = record.lock();
            made.readers > 0 || made.given.as_ref().is_some_and(|connection| !connection.is_closed())
        })
    }
}

impl Record {
    fn lock(&self) -> MutexGuard<'_, Made> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change<T>(&self, change: impl FnOnce(&mut Made) -> T) -> T {
        let changed = change(&mut self.lock());
        self.changed.send_modify(|count| *count += 1);
        changed
    }

    /// Has a response made and kept, whether or not anyone reads it. `making` ends when it begins.
    pub(crate) async fn make(
        self: Arc<Self>,
        once: Arc<Once>,
        tenant: Tenant,
        making: impl Future<Output = Response>,
    ) {
        // A task that is stopped, or panics, leaves nobody waiting.
        let mut guard = Guard { record: &self, once: &once, whole: false };
        let response = tokio::select! {
            response = making => response,
            () = self.is_left() => return,
        };
        if let Some(failure) = response.extensions().get::<ApiError>() {
            let failure = failure.clone();
            self.change(|made| made.failed = Some(failure));
            return;
        }
        let (parts, body) = response.into_parts();
        let id = parts.extensions.get::<RequestId>().copied();
        self.change(|made| made.head = Some(Head { status: parts.status, headers: parts.headers, id }));
        let mut body = body.into_data_stream();
        loop {
            tokio::select! {
                piece = body.next() => match piece {
                    Some(Ok(piece)) => self.change(|made| {
                        made.bytes += piece.len();
                        self.total.fetch_add(piece.len(), Ordering::AcqRel);
                        made.clipped |= made.bytes > RECORD_BYTES_MAX;
                        made.pieces.push(piece);
                    }),
                    Some(Err(_)) => return,
                    None => break,
                },
                () = self.is_left() => return,
            }
        }
        guard.whole = !tenant.has_failed();
        if !guard.whole {
            // Whoever reads it is told how it failed; whoever asks again is not.
            once.forget(&self);
        }
        self.change(|made| {
            made.ended = Some(Instant::now());
            if made.clipped && made.readers == 0 {
                made.pieces = Vec::new();
                self.total.fetch_sub(made.bytes, Ordering::AcqRel);
                made.bytes = 0;
            }
        });
    }

    /// Returns when nobody has read it for so long that nobody will.
    async fn is_left(&self) {
        if self.named {
            return std::future::pending().await;
        }
        let mut changes = self.changed.subscribe();
        loop {
            let until = {
                let made = self.lock();
                let grace = if made.read { GRACE_READ } else { GRACE };
                made.left.filter(|_| made.readers == 0).map(|left| left + grace)
            };
            match until {
                None => drop(changes.changed().await),
                Some(until) if until <= Instant::now() => return,
                Some(until) => tokio::select! {
                    () = sleep_until(until) => {}
                    _ = changes.changed() => {}
                },
            }
        }
    }

    /// The response, for one that has a turn at it.
    pub(crate) fn response(
        self: Arc<Self>,
        connection: Connection,
    ) -> impl Future<Output = Response> + Send + 'static {
        // Whoever waits is a reader from the beginning.
        let reader = Reader { record: self, at: 0, connection };
        async move {
            let mut changes = reader.record.changed.subscribe();
            loop {
                let (failed, head) = {
                    let made = reader.record.lock();
                    (made.failed.clone(), made.head.clone())
                };
                if let Some(failure) = failed {
                    return failure.into_response();
                }
                if let Some(head) = head {
                    return head.response(reader);
                }
                if changes.changed().await.is_err() {
                    return ApiError::bug("a response that was waited for never came").into_response();
                }
            }
        }
    }
}

impl Head {
    fn response(self, reader: Reader) -> Response {
        let body = stream::unfold(reader, |mut reader| async move {
            let piece = reader.next().await?;
            Some((piece, reader))
        });
        let mut response = Response::new(Body::from_stream(body));
        *response.status_mut() = self.status;
        *response.headers_mut() = self.headers;
        // The body is told in pieces.
        response.headers_mut().remove(axum::http::header::CONTENT_LENGTH);
        if let Some(id) = self.id {
            response.extensions_mut().insert(id);
        }
        response
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        let made = self.state.get_mut().unwrap_or_else(PoisonError::into_inner);
        self.total.fetch_sub(made.bytes, Ordering::AcqRel);
    }
}

/// Somebody who reads a record.
struct Reader {
    record: Arc<Record>,
    at: usize,
    connection: Connection,
}

impl Reader {
    async fn next(&mut self) -> Option<Result<Bytes, std::io::Error>> {
        let mut changes = self.record.changed.subscribe();
        loop {
            changes.borrow_and_update();
            {
                let mut made = self.record.lock();
                if let Some(piece) = made.pieces.get(self.at).cloned() {
                    self.at += 1;
                    made.read = true;
                    return Some(Ok(piece));
                }
                if made.ended.is_some() {
                    made.given = Some(self.connection.clone());
                    return None;
                }
                if made.failed.is_some() {
                    let error = std::io::Error::other("the response was broken off");
                    return Some(Err(error));
                }
            }
            if changes.changed().await.is_err() {
                return Some(Err(std::io::Error::other("the response was broken off")));
            }
        }
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.record.change(|made| {
            made.readers = made.readers.saturating_sub(1);
            if made.readers == 0 {
                made.left = Some(Instant::now());
            }
        });
    }
}

/// Sees to it that a record that is not whole is forgotten, and its readers told.
struct Guard<'a> {
    record: &'a Arc<Record>,
    once: &'a Arc<Once>,
    whole: bool,
}

impl Drop for Guard<'_> {
    fn drop(&mut self) {
        if self.whole {
            return;
        }
        self.once.forget(self.record);
        self.record.change(|made| {
            if made.failed.is_none() && made.ended.is_none() {
                made.failed = Some(ApiError::bug("making a response ended without a word"));
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counted(once: &Once, number: u64) -> Turn {
        once.lock().first(0, digest("/", &number.to_string()), None)
    }

    #[test]
    fn what_is_kept_is_bounded_and_names_stay_longest() {
        let once = Once::default();
        let named = |name: &str| once.lock().named(7, name.to_owned(), digest("/", name));
        let Ok(Turn::First(kept)) = named("a") else { panic!("it is the first") };
        kept.change(|made| made.ended = Some(Instant::now()));
        for number in 0..3 * RECORDS_MAX as u64 {
            let Turn::First(record) = counted(&once, number) else { panic!("there is room") };
            record.change(|made| {
                made.ended = Some(Instant::now());
                made.bytes = 100;
                record.total.fetch_add(100, Ordering::AcqRel);
            });
        }
        let count = once.lock().records.len();
        let bytes = once.lock().bytes.load(Ordering::Acquire);
        assert!(count <= RECORDS_MAX && bytes <= 100 * count, "{count} records, {bytes} bytes");
        assert!(matches!(named("a"), Ok(Turn::Again(_))), "what has a name is there still");
        let other = once.lock().named(7, "a".to_owned(), digest("/", "b"));
        assert_eq!(other.err().map(|error| error.code()), Some(Code::IdempotencyMismatch));
        assert!(matches!(once.lock().named(8, "a".to_owned(), digest("/", "b")), Ok(Turn::First(_))));
        // Those that are still being made make no room.
        let running: Vec<Turn> = (0..RECORDS_MAX as u64 + 10).map(|number| counted(&once, number)).collect();
        assert!(running.iter().any(|turn| matches!(turn, Turn::Unkept)));
        assert!(once.lock().records.len() <= RECORDS_MAX);
    }

    #[test]
    fn only_what_nobody_can_have_is_given_to_a_retry() {
        let once = Once::default();
        let request = digest("/", "body");
        let lost = || once.lock().lost(0, &request).map(|record| record.id);
        let begin = || match once.lock().first(0, request, None) {
            Turn::First(record) => record,
            turn => panic!("{turn:?}"),
        };
        let read = |record: &Arc<Record>, connection: Option<&Connection>| {
            record.change(|made| {
                made.readers -= 1;
                made.left = Some(Instant::now());
                made.given = connection.cloned();
                made.ended = connection.map(|_| Instant::now());
            });
        };
        let (first, second) = (begin(), begin());
        assert_eq!(lost(), None, "both are read");
        read(&first, None);
        assert_eq!(lost(), Some(first.id));
        assert_eq!(lost(), None, "it is taken");
        let open = Connection::default();
        read(&first, Some(&open));
        assert_eq!(lost(), None, "it was given to a connection that is there");
        open.close();
        assert_eq!(lost(), Some(first.id), "the one that may have been lost on its way");
        read(&first, Some(&open));
        read(&second, Some(&open));
        assert_eq!(lost(), None, "which of the two was lost, nobody knows");
        assert_eq!(once.lock().lost(1, &request).map(|record| record.id), None, "another tenant's");
    }
}
