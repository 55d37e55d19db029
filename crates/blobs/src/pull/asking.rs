//! Asking: one holder's part in a pull, from the connection to the last piece it gives.
//!
//! In:     an address, the schedule. Out: pieces, checked and kept; or the fault for which it is given up.
//! Touches: the network.
//! Holds:  what a holder does costs its own pieces and time only; each wait is bounded.
//! Absent: what becomes of the file (`shared`).

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use surety_net::{CloseCode, ConnectError, Endpoint, Link, Protocol, ReceiveError, Stream, WorkerAddress};
use tokio::{
    sync::OwnedSemaphorePermit,
    task::{JoinSet, spawn_blocking},
    time::{Instant, sleep, timeout},
};

use super::{Fault, joined, lock, shared::Pulling};
use crate::{
    message::{FRAME_BYTES, FromHolder, Refusal, ToHolder},
    schedule::HolderIndex,
    tree::{BLOB_BYTES_MAX, Shape, Tree, Value},
};

/// Pieces one holder is asked for at once: a slow one, and a quick one.
const DEPTH: std::ops::RangeInclusive<usize> = 2..=8;
/// A piece that took less shows a holder that could be asked for more; one that took more, for less.
const QUICK: Duration = Duration::from_millis(250);
const SLOW: Duration = Duration::from_secs(1);
/// How often a holder with room looks for a piece that others are late with.
const LOOK_AGAIN: Duration = Duration::from_millis(100);
/// One holder, asked.
pub(super) struct Asking {
    pub(super) pulling: Arc<Pulling>,
    pub(super) endpoint: Endpoint,
    pub(super) index: HolderIndex,
    pub(super) address: WorkerAddress,
}

/// A piece that was asked for.
enum Fetched {
    /// Checked and kept; and how long it took.
    Kept(Duration),
    /// Somebody else was sooner.
    Overtaken,
}

impl Asking {
    /// Until the file is whole, or this holder is given up.
    pub(super) async fn run(&self) -> Result<(), Fault> {
        let limits = &self.pulling.limits;
        let (mut failures, mut kept) = (0, 0);
        loop {
            let fault = match self.session().await {
                Ok(()) => return Ok(()),
                Err(fault) => fault,
            };
            if let Some(schedule) = lock(&self.pulling.schedule).as_mut() {
                schedule.release(self.index);
            }
            self.pulling.changed.send_modify(|version| *version += 1);
            let kept_now = self.pulling.holders[self.index].kept.load(Ordering::Relaxed);
            failures = if kept_now > kept { 1 } else { failures + 1 };
            kept = kept_now;
            let failures_max = if fault == Fault::Busy { limits.busy } else { limits.failures };
            if fault.is_final() || failures >= failures_max {
                return Err(fault);
            }
            tracing::debug!(holder = %self.address, %fault, failures, "a holder is asked again");
            sleep(limits.backoff * (1 << (failures - 1).min(3))).await;
        }
    }

    async fn session(&self) -> Result<(), Fault> {
        let link = self
            .endpoint
            .connect(&self.address, Protocol::Blobs)
            .await
            .map_err(|error| no_connection(&error))?;
        let told = self.size(&link).await?;
        if let Some(known) = self.pulling.bytes.or(self.pulling.total())
            && known != told
        {
            return Err(Fault::WrongSize { told, proven: known });
        }
        let tree = self.proven(&link, told).await?;
        let proven = tree.shape().bytes();
        if proven != told {
            return Err(Fault::WrongSize { told, proven });
        }
        self.pieces(&link, &tree).await
    }

    async fn size(&self, link: &Link) -> Result<u64, Fault> {
        let mut stream = self.ask(link, &ToHolder::Describe(self.pulling.digest)).await?;
        match self.answer(&mut stream).await? {
            FromHolder::Held(bytes) if (1..=BLOB_BYTES_MAX).contains(&bytes) => Ok(bytes),
            FromHolder::Held(bytes) => Err(Fault::Nonsense(format!("a size of {bytes} bytes"))),
            other => Err(unexpected(&other)),
        }
    }

    /// The proven tree: ours to prove if nobody else does so soon.
    async fn proven(&self, link: &Link, told: u64) -> Result<Arc<Tree>, Fault> {
        let mut proven = self.pulling.proven.subscribe();
        let turn = self.pulling.turns.fetch_add(1, Ordering::Relaxed) as u32;
        if turn > 0 {
            // An error means that nobody did in time.
            let _ = timeout(self.pulling.limits.hedge * turn, proven.wait_for(Option::is_some)).await;
        }
        if let Some(tree) = self.pulling.tree() {
            return Ok(tree);
        }
        let shape = Shape::new(told).map_err(|error| Fault::Nonsense(error.to_string()))?;
        let mut stream = self.ask(link, &ToHolder::Values(self.pulling.digest)).await?;
        let count = shape.pieces() as usize;
        let mut values: Vec<Value> = Vec::new();
        while values.len() < count {
            match self.answer(&mut stream).await? {
                FromHolder::Values(more) if more.len() == FRAME_BYTES.min(32 * (count - values.len())) => {
                    values.extend(more.as_chunks::<32>().0);
                }
                FromHolder::Values(_) => return Err(Fault::WrongTree),
                other => return Err(unexpected(&other)),
            }
        }
        stream.reset(CloseCode::Done);
        let tree = Tree::new(shape, values);
        if tree.root() != self.pulling.digest {
            return Err(Fault::WrongTree);
        }
        // The digest vouches for the values, the last piece for the size.
        let last = shape.pieces() - 1;
        let data = self.piece(link, last, shape.piece_bytes(last)).await?;
        let (pulling, index) = (self.pulling.clone(), self.index);
        let proving = spawn_blocking(move || {
            if !tree.vouches_for(last, &data) {
                return Ok(Err(Fault::WrongBytes(last)));
            }
            pulling.prove(tree, index, &data).map(Ok)
        });
        match joined(proving.await) {
            Ok(proved) => proved?,
            Err(error) => return Err(self.pulling.stop(error).await),
        }
        self.pulling.changed.send_modify(|version| *version += 1);
        match self.pulling.tree() {
            Some(tree) => Ok(tree),
            // Nothing is proven any more only because the pull has ended.
            None => std::future::pending().await,
        }
    }

    /// Asks for pieces until none is missing.
    async fn pieces(&self, link: &Link, tree: &Arc<Tree>) -> Result<(), Fault> {
        let mut changed = self.pulling.changed.subscribe();
        let mut depth = *DEPTH.start();
        let mut under_way = JoinSet::new();
        loop {
            changed.borrow_and_update();
            while under_way.len() < depth {
                let Ok(place) = self.pulling.pieces.clone().try_acquire_owned() else { break };
                let Some(piece) = self.next() else { break };
                let asking = self.clone();
                let (link, tree) = (link.clone(), tree.clone());
                under_way.spawn(async move { asking.fetch(&link, &tree, piece, place).await });
            }
            if under_way.is_empty() && self.pulling.is_whole() {
                return Ok(());
            }
            tokio::select! {
                Some(fetched) = under_way.join_next() => match fetched {
                    Ok(Ok(Fetched::Kept(took))) if took < QUICK => depth = (depth + 1).min(*DEPTH.end()),
                    Ok(Ok(Fetched::Kept(took))) if took > SLOW => depth = (depth - 1).max(*DEPTH.start()),
                    Ok(Ok(_)) => {}
                    Ok(Err(fault)) => return Err(fault),
                    Err(error) => std::panic::resume_unwind(error.into_panic()),
                },
                _ = changed.changed() => {}
                () = sleep(LOOK_AGAIN) => {}
            }
        }
    }

    fn next(&self) -> Option<u32> {
        let now = self.pulling.began.elapsed();
        lock(&self.pulling.schedule).as_mut().and_then(|schedule| schedule.next(self.index, now))
    }

    async fn fetch(
        &self,
        link: &Link,
        tree: &Tree,
        piece: u32,
        place: OwnedSemaphorePermit,
    ) -> Result<Fetched, Fault> {
        let began = Instant::now();
        let mut changed = self.pulling.changed.subscribe();
        let overtaken = async {
            while !self.pulling.is_here(piece) {
                if changed.changed().await.is_err() {
                    std::future::pending::<()>().await;
                }
            }
        };
        let data = tokio::select! {
            data = self.piece(link, piece, tree.shape().piece_bytes(piece)) => data?,
            () = overtaken => return Ok(Fetched::Overtaken),
        };
        let (pulling, index) = (self.pulling.clone(), self.index);
        let keeping = spawn_blocking(move || {
            let _place = place;
            pulling.keep(index, piece, &data)
        });
        match joined(keeping.await) {
            Ok(kept) => kept.map(|()| Fetched::Kept(began.elapsed())),
            Err(error) => Err(self.pulling.stop(error).await),
        }
    }

    /// The bytes of a piece, unchecked.
    async fn piece(&self, link: &Link, index: u32, bytes: usize) -> Result<Vec<u8>, Fault> {
        let wait = self.pulling.limits.piece_wait;
        timeout(wait, self.piece_in_its_time(link, index, bytes)).await.unwrap_or(Err(Fault::Slow(wait)))
    }

    async fn piece_in_its_time(&self, link: &Link, index: u32, bytes: usize) -> Result<Vec<u8>, Fault> {
        let request = ToHolder::Piece { digest: self.pulling.digest, index };
        let mut stream = self.ask(link, &request).await?;
        let mut piece = Vec::with_capacity(bytes);
        while piece.len() < bytes {
            match self.answer(&mut stream).await? {
                // Nothing smaller: a holder that sends byte by byte would never be silent, and never done.
                FromHolder::Data(data) if data.len() != FRAME_BYTES.min(bytes - piece.len()) => {
                    return Err(Fault::WrongBytes(index));
                }
                FromHolder::Data(data) => {
                    self.pulling.holders[self.index].received.fetch_add(data.len() as u64, Ordering::Relaxed);
                    piece.extend(data);
                }
                other => return Err(unexpected(&other)),
            }
        }
        stream.reset(CloseCode::Done);
        Ok(piece)
    }

    async fn ask(&self, link: &Link, request: &ToHolder) -> Result<Stream<ToHolder, FromHolder>, Fault> {
        let mut stream = link.open_stream().await.map_err(|error| Fault::Unreachable(chain(&error)))?;
        stream.send(request).await.map_err(|error| Fault::Unreachable(chain(&error)))?;
        Ok(stream)
    }

    async fn answer(&self, stream: &mut Stream<ToHolder, FromHolder>) -> Result<FromHolder, Fault> {
        let wait = self.pulling.limits.frame_wait;
        match stream.receive_within(wait).await {
            Ok(Some(answer)) => Ok(answer),
            Ok(None) | Err(ReceiveError::Ended) => Err(Fault::Truncated),
            Err(ReceiveError::Silence(_) | ReceiveError::SlowFrame(_)) => Err(Fault::Silence(wait)),
            Err(ReceiveError::Reset(CloseCode::Busy)) => Err(Fault::Busy),
            Err(ReceiveError::Reset(CloseCode::BadMessage)) => {
                Err(Fault::Nonsense("it does not understand the request".into()))
            }
            Err(ReceiveError::Reset(_)) => Err(Fault::Truncated),
            Err(error @ (ReceiveError::Frame(_) | ReceiveError::Message(_))) => {
                Err(Fault::Nonsense(chain(&error)))
            }
            Err(error @ ReceiveError::Lost(_)) => Err(Fault::Unreachable(chain(&error))),
        }
    }
}

impl Clone for Asking {
    fn clone(&self) -> Self {
        Asking { pulling: self.pulling.clone(), endpoint: self.endpoint.clone(), ..*self }
    }
}

fn unexpected(answer: &FromHolder) -> Fault {
    match answer {
        FromHolder::Refused(Refusal::Absent) => Fault::Absent,
        FromHolder::Refused(Refusal::Changed) => Fault::Changed,
        FromHolder::Refused(Refusal::Busy) => Fault::Busy,
        FromHolder::Refused(Refusal::Failed) => Fault::Failed,
        FromHolder::Refused(Refusal::Impossible) => {
            Fault::Nonsense("it refuses a piece that its size says is there".into())
        }
        FromHolder::Held(_)
        | FromHolder::Values(_)
        | FromHolder::Data(_)
        | FromHolder::Slice { .. }
        | FromHolder::Missing(_) => Fault::Nonsense("an answer to another question".into()),
    }
}

fn no_connection(error: &ConnectError) -> Fault {
    Fault::Unreachable(chain(error))
}

/// An error with its causes, on one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.ends_with(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        source = cause.source();
    }
    text
}
