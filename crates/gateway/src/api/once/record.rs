//! Record: one response, as far as it has been made, and whoever reads it.
//!
//! In:     the response, from whoever makes it; readers. Out: the same to each of them, from its beginning.
//! Touches: the disk, when it is whole.
//! Holds:  a response with a name has its end told when it is on the disk; what is not whole is forgotten, and its readers told.
//! Absent: who may read it (the room).

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
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
    time::{Instant, sleep_until},
};
use tracing::warn;

use super::{
    Connection, Once,
    kept::{Change, Whole},
};
use crate::{
    error::{ApiError, Code},
    id::RequestId,
    keys::Tenant,
};

/// An answer that nobody reads any more goes on for so long, in case of a retry …
const GRACE: Duration = Duration::from_secs(10);
/// … and one of which something was read for so long: clients' libraries do not retry those.
const GRACE_READ: Duration = Duration::from_secs(2);
/// Bytes of one response that are kept.
const BYTES_MAX: usize = 32 << 20;

/// A response, as far as it has been made.
#[derive(Debug)]
pub(crate) struct Record {
    pub(super) id: u64,
    pub(super) tenant: u64,
    pub(super) request: Digest,
    /// Its `Idempotency-Key`, if it came with one.
    pub(super) name: Option<String>,
    /// Of all records.
    pub(super) total: Arc<AtomicUsize>,
    pub(super) state: Mutex<Made>,
    /// Counts changes.
    pub(super) changed: watch::Sender<u64>,
}

#[derive(Debug)]
pub(super) struct Made {
    /// What its response is known by.
    pub(super) request_id: RequestId,
    /// What a gateway that was stopped left of it, until somebody asks for it.
    pub(super) left_behind: Option<LeftBehind>,
    pub(super) head: Option<Head>,
    pub(super) failed: Option<ApiError>,
    pub(super) pieces: Vec<Bytes>,
    pub(super) bytes: usize,
    /// It became too long to be kept: it cannot be told again from the beginning.
    pub(super) clipped: bool,
    pub(super) ended: Option<Instant>,
    pub(super) readers: usize,
    /// Whether something of the body was read.
    pub(super) read: bool,
    /// Whether a reader was given all of it, and through which connection.
    pub(super) given: Option<Connection>,
    /// Since when nobody reads it.
    pub(super) left: Option<Instant>,
}

impl Made {
    /// Nothing of it is there yet.
    pub(super) fn begun(request_id: RequestId) -> Made {
        Made {
            request_id,
            left_behind: None,
            head: None,
            failed: None,
            pieces: Vec::new(),
            bytes: 0,
            clipped: false,
            ended: None,
            readers: 0,
            read: false,
            given: None,
            left: None,
        }
    }
}

/// What a gateway that was stopped left of a response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum LeftBehind {
    /// It had begun.
    Begun,
    /// All of it is on the disk.
    Whole,
}

#[derive(Debug, Clone)]
pub(super) struct Head {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) id: Option<RequestId>,
}

impl Record {
    pub(super) fn lock(&self) -> MutexGuard<'_, Made> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn change<T>(&self, change: impl FnOnce(&mut Made) -> T) -> T {
        let changed = change(&mut self.lock());
        self.changed.send_modify(|count| *count += 1);
        changed
    }

    pub(super) fn is_named(&self) -> bool {
        self.name.is_some()
    }

    /// What its response is known by.
    pub(crate) fn request_id(&self) -> RequestId {
        self.lock().request_id
    }

    /// What a gateway that was stopped left of it, to the first who asks for it.
    pub(super) fn take_over(&self) -> Option<LeftBehind> {
        let mut made = self.lock();
        let left_behind = made.left_behind.take();
        if left_behind == Some(LeftBehind::Begun) {
            (made.ended, made.left) = (None, None);
        }
        left_behind
    }

    /// The whole response, if it can be told again.
    pub(super) fn whole(&self) -> Option<Whole> {
        let made = self.lock();
        let Head { status, headers, .. } = made.head.clone().filter(|_| !made.clipped)?;
        Some(Whole { status, headers, body: Bytes::from(made.pieces.concat()) })
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
            match failure.code() {
                // The gateway that begins in this one's directory goes on with it.
                Code::GatewayStopping => {
                    once.forget_here(&self);
                    guard.whole = true;
                }
                // Whoever asks again is told the same.
                Code::AnsweredBefore => guard.whole = true,
                _ => {}
            }
            self.change(|made| {
                made.failed = Some(failure);
                made.ended = Some(Instant::now());
            });
            return;
        }
        let (parts, body) = response.into_parts();
        // Whoever is told it again is told the same id.
        let id = parts.extensions.get::<RequestId>().copied().or_else(|| Some(self.request_id()));
        self.change(|made| made.head = Some(Head { status: parts.status, headers: parts.headers, id }));
        let mut body = body.into_data_stream();
        loop {
            tokio::select! {
                piece = body.next() => match piece {
                    Some(Ok(piece)) => self.change(|made| {
                        made.bytes += piece.len();
                        self.total.fetch_add(piece.len(), Ordering::AcqRel);
                        made.clipped |= made.bytes > BYTES_MAX;
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
        } else if let Some(whole) = self.whole() {
            let written = once.disk.post(Change::Whole(self.id, whole));
            // What has a name is told again for a day; its reader's end is the promise.
            if self.is_named() {
                once.disk.hurry();
                if let Err(failure) = written.outcome().await {
                    warn!(%failure, "a gateway that begins here cannot tell a response again");
                }
            }
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
        if self.is_named() {
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
