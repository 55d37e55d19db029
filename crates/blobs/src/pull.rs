//! Pulling: one file from many holders at once, every piece checked before it is written.
//!
//! In:     a digest, holders, a folder for what has come so far, the file's place.
//! Out:    the file at its place; how far it is; which holder was dropped and why.
//! Touches: the network through `net`; the disk through `partial`.
//! Holds:  a size counts only with a last piece that fits it; wrong bytes drop their holder for good and are not
//!         written; a holder that is slow, silent or gone loses its pieces to the others; memory is bounded by
//!         [`PullLimits::pieces`]; whatever was written is found again by the next call.
//! Absent: names, the index of the store.

use std::{
    path::PathBuf,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use surety_net::{CloseCode, ConnectError, Endpoint, Link, Protocol, ReceiveError, Stream, WorkerAddress};
use surety_types::Digest;
use thiserror::Error;
use tokio::{
    sync::{Notify, OwnedSemaphorePermit, Semaphore, mpsc, watch},
    task::{JoinSet, spawn_blocking},
    time::{Instant, sleep, timeout},
};

use crate::{
    message::{FRAME_BYTES, FromHolder, Refusal, ToHolder},
    partial::{DiskError, Partial},
    schedule::{HolderIndex, Schedule},
    tree::{BLOB_BYTES_MAX, PIECE_BYTES, Shape, Tree, Value},
};

/// Holders of one pull.
pub const HOLDERS_MAX: usize = 64;
/// Pieces one holder is asked for at once: a slow one, and a quick one.
const DEPTH: std::ops::RangeInclusive<usize> = 2..=8;
/// A piece that took less shows a holder that could be asked for more; one that took more, for less.
const QUICK: Duration = Duration::from_millis(250);
const SLOW: Duration = Duration::from_secs(1);
/// How often a holder with room looks for a piece that others are late with.
const LOOK_AGAIN: Duration = Duration::from_millis(100);
/// How often progress is told.
const TELL: Duration = Duration::from_millis(200);

/// What to pull.
#[derive(Clone, Debug)]
pub struct PullRequest {
    /// BLAKE3 of the whole file.
    pub digest: Digest,
    /// Its size, if that is known; holders that tell another are dropped.
    pub bytes: Option<u64>,
    /// Who is said to hold it; the first `HOLDERS_MAX` are asked.
    pub holders: Vec<WorkerAddress>,
    /// Where what has come is kept until it is whole. On the same file system as `place`.
    pub downloads: PathBuf,
    /// Where it belongs. A file that is there is replaced.
    pub place: PathBuf,
}

/// Patience and memory.
#[derive(Clone, Copy, Debug)]
pub struct PullLimits {
    /// The next 64 KiB of a piece come within this.
    pub frame_wait: Duration,
    /// And the whole piece within this.
    pub piece_wait: Duration,
    /// Who told the size first proves it; the next one tries beside it after this.
    pub hedge: Duration,
    /// Failures in a row, without a piece between them, after which a holder is given up.
    pub failures: u32,
    /// The pause after a failure; it doubles with each further one.
    pub backoff: Duration,
    /// How often a holder may ask to be asked later, in a row.
    pub busy: u32,
    /// Pieces in memory, over all holders.
    pub pieces: usize,
}

impl Default for PullLimits {
    fn default() -> Self {
        PullLimits {
            frame_wait: Duration::from_secs(10),
            piece_wait: Duration::from_secs(120),
            hedge: Duration::from_millis(1500),
            failures: 4,
            backoff: Duration::from_millis(500),
            busy: 120,
            pieces: 64,
        }
    }
}

/// What can be told on the way.
#[derive(Clone, Debug)]
pub enum Event {
    /// What an earlier process left is being checked: bytes of bytes.
    Checking {
        /// Done.
        done: u64,
        /// In all.
        total: u64,
    },
    /// How far it is.
    Progress(Progress),
    /// A holder is not asked any more.
    Dropped {
        /// Which.
        holder: WorkerAddress,
        /// Why.
        fault: Fault,
    },
}

/// How far a pull is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Progress {
    /// Bytes verified and on disk.
    pub done: u64,
    /// Bytes in all.
    pub total: u64,
    /// Bytes a second, lately.
    pub rate: u64,
    /// Holders that something came from within the last seconds.
    pub peers: usize,
}

/// Why a holder is not asked any more.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Fault {
    /// It does not have the file.
    #[error("it does not have the file")]
    Absent,
    /// Its file is another by now.
    #[error("its file changed and is another now")]
    Changed,
    /// It told a size that is not the file's.
    #[error("it told a size of {told} bytes, but the file has {proven}")]
    WrongSize {
        /// What it told.
        told: u64,
        /// What the file has.
        proven: u64,
    },
    /// It sent bytes that are not the file's.
    #[error("it sent wrong bytes for piece {0}")]
    WrongBytes(u32),
    /// The tree it sent is not the digest's.
    #[error("it sent a tree of another file")]
    WrongTree,
    /// What it sent is no answer.
    #[error("it sent nonsense: {0}")]
    Nonsense(String),
    /// It broke off within an answer.
    #[error("it broke off within a piece")]
    Truncated,
    /// Nothing came in time.
    #[error("nothing came from it within {} s", .0.as_secs_f32())]
    Silence(Duration),
    /// A piece did not come in time.
    #[error("it did not give a piece within {} s", .0.as_secs_f32())]
    Slow(Duration),
    /// It had no time for us.
    #[error("it is too busy")]
    Busy,
    /// Its disk fails.
    #[error("it cannot read the file")]
    Failed,
    /// There is no connection.
    #[error("{0}")]
    Unreachable(String),
}

impl Fault {
    /// Whether asking again cannot help.
    pub fn is_final(&self) -> bool {
        match self {
            Fault::Absent
            | Fault::Changed
            | Fault::WrongSize { .. }
            | Fault::WrongBytes(_)
            | Fault::WrongTree
            | Fault::Nonsense(_) => true,
            Fault::Truncated
            | Fault::Silence(_)
            | Fault::Slow(_)
            | Fault::Busy
            | Fault::Failed
            | Fault::Unreachable(_) => false,
        }
    }

    /// Whether no honest holder does this.
    pub fn is_a_lie(&self) -> bool {
        matches!(self, Fault::WrongSize { .. } | Fault::WrongBytes(_) | Fault::WrongTree | Fault::Nonsense(_))
    }
}

/// Why there is no file.
#[derive(Debug, Error)]
pub enum PullError {
    /// The disk.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// Every holder was given up.
    #[error("no holder is left that could give blake3:{digest}{}", list(faults))]
    NoHolders {
        /// What was asked for.
        digest: Digest,
        /// Bytes that came and are kept.
        done: u64,
        /// Each holder and what became of it.
        faults: Vec<(WorkerAddress, Fault)>,
    },
}

impl PullError {
    /// What a person can do about it, if anything.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Disk(error) => error.hint(),
            Self::NoHolders { done: 0, .. } => {
                Some("check the digest and the addresses, or name other holders with --from".into())
            }
            Self::NoHolders { .. } => Some(
                "ask again, perhaps with other holders: what has come is kept and need not come twice".into(),
            ),
        }
    }
}

fn list(faults: &[(WorkerAddress, Fault)]) -> String {
    let line = |(holder, fault): &(WorkerAddress, Fault)| format!("\n  {holder}: {fault}");
    faults.iter().map(line).collect()
}

/// What a pull came to.
#[derive(Clone, Debug)]
pub struct Pulled {
    /// The file's size.
    pub bytes: u64,
    /// Bytes that were here already.
    pub resumed: u64,
    /// How long it took, without the checking of what was here.
    pub elapsed: Duration,
    /// Each holder's part.
    pub holders: Vec<HolderSummary>,
}

/// A holder's part in a pull.
#[derive(Clone, Debug)]
pub struct HolderSummary {
    /// Which.
    pub holder: WorkerAddress,
    /// Bytes of it that were verified and kept.
    pub bytes: u64,
    /// Why it was dropped, if it was.
    pub fault: Option<Fault>,
}

/// Pulls a file. May be dropped at any time, and called again.
pub async fn pull(
    endpoint: &Endpoint,
    request: PullRequest,
    limits: PullLimits,
    report: &mut (dyn FnMut(Event) + Send),
) -> Result<Pulled, PullError> {
    let PullRequest { digest, bytes, mut holders, downloads, place } = request;
    holders.truncate(HOLDERS_MAX);
    let (tell, mut told) = mpsc::unbounded_channel();
    let opening = spawn_blocking(move || {
        let mut partial = Partial::open(&downloads, digest)?;
        partial.check(&mut |done, total| {
            // Whoever pulls may have gone.
            let _ = tell.send((done, total));
        })?;
        Ok::<_, DiskError>(partial)
    });
    while let Some((done, total)) = told.recv().await {
        report(Event::Checking { done, total });
    }
    let partial = joined(opening.await)?;

    let began = Instant::now();
    let pulling = Arc::new(Pulling::new(digest, bytes, limits, partial, holders.len(), began));
    let _closing = Closing(&pulling);
    let resumed = pulling.done();
    let mut faults: Vec<Option<Fault>> = vec![None; holders.len()];
    let mut tasks = JoinSet::new();
    for (index, address) in holders.iter().enumerate() {
        let asking =
            Asking { pulling: pulling.clone(), endpoint: endpoint.clone(), index, address: *address };
        tasks.spawn(async move { (index, asking.run().await) });
    }
    let mut pace = Pace::new(began);
    let mut ticks = tokio::time::interval(TELL);
    while !pulling.is_whole() {
        tokio::select! {
            ended = tasks.join_next() => match ended {
                Some(Ok((index, Err(fault)))) => {
                    report(Event::Dropped { holder: holders[index], fault: fault.clone() });
                    faults[index] = Some(fault);
                }
                Some(Ok((_, Ok(())))) => {}
                Some(Err(error)) => std::panic::resume_unwind(error.into_panic()),
                None => {
                    let faults = holders.iter().copied().zip(faults);
                    let faults = faults.filter_map(|(holder, fault)| Some((holder, fault?))).collect();
                    return Err(PullError::NoHolders { digest, done: pulling.done(), faults });
                }
            },
            () = pulling.disk_failed.notified() => {}
            _ = ticks.tick() => {}
        }
        if let Some(error) = lock(&pulling.disk_error).take() {
            return Err(error.into());
        }
        if let Some(total) = pulling.total() {
            report(Event::Progress(pace.progress(&pulling, total)));
        }
    }
    let elapsed = began.elapsed();
    tasks.shutdown().await;
    let total = pulling.total().expect("it is whole");
    report(Event::Progress(pace.progress(&pulling, total)));
    let partial = lock(&pulling.partial).take().expect("taken once");
    joined(spawn_blocking(move || partial.finish(&place)).await)?;
    let part = |(index, fault): (usize, Option<Fault>)| HolderSummary {
        holder: holders[index],
        bytes: pulling.holders[index].kept.load(Ordering::Relaxed),
        fault,
    };
    let holders = faults.into_iter().enumerate().map(part).collect();
    Ok(Pulled { bytes: total, resumed, elapsed, holders })
}

/// However a pull ends, nothing is written after it, and the next one may begin.
struct Closing<'a>(&'a Pulling);

impl Drop for Closing<'_> {
    fn drop(&mut self) {
        lock(&self.0.partial).take();
    }
}

/// What all tasks of a pull share.
struct Pulling {
    digest: Digest,
    bytes: Option<u64>,
    limits: PullLimits,
    began: Instant,
    /// Until the file is whole.
    partial: Mutex<Option<Partial>>,
    /// Once the tree is proven.
    proven: watch::Sender<Option<Arc<Tree>>>,
    schedule: Mutex<Option<Schedule>>,
    /// Changes with the schedule.
    changed: watch::Sender<u64>,
    /// How many told a size, to take turns in proving it.
    turns: AtomicUsize,
    pieces: Arc<Semaphore>,
    done: AtomicU64,
    holders: Vec<Counters>,
    disk_error: Mutex<Option<DiskError>>,
    disk_failed: Notify,
}

#[derive(Default)]
struct Counters {
    /// Bytes that came, right or wrong.
    received: AtomicU64,
    /// Bytes that were kept.
    kept: AtomicU64,
}

impl Pulling {
    fn new(
        digest: Digest,
        bytes: Option<u64>,
        limits: PullLimits,
        partial: Partial,
        holders: usize,
        began: Instant,
    ) -> Self {
        let tree = partial.tree().cloned().map(Arc::new);
        let schedule = tree.as_ref().map(|_| Schedule::new(partial.here(), holders));
        let done = tree.as_ref().map_or(0, |tree| {
            let here = partial.here().iter().enumerate().filter(|(_, here)| **here);
            here.map(|(index, _)| tree.shape().piece_bytes(index as u32) as u64).sum()
        });
        Pulling {
            digest,
            bytes,
            limits,
            began,
            partial: Mutex::new(Some(partial)),
            proven: watch::Sender::new(tree),
            schedule: Mutex::new(schedule),
            changed: watch::Sender::new(0),
            turns: AtomicUsize::new(0),
            pieces: Arc::new(Semaphore::new(limits.pieces.max(1))),
            done: AtomicU64::new(done),
            holders: (0..holders).map(|_| Counters::default()).collect(),
            disk_error: Mutex::new(None),
            disk_failed: Notify::new(),
        }
    }

    fn tree(&self) -> Option<Arc<Tree>> {
        self.proven.borrow().clone()
    }

    fn total(&self) -> Option<u64> {
        self.tree().map(|tree| tree.shape().bytes())
    }

    fn done(&self) -> u64 {
        self.done.load(Ordering::Relaxed)
    }

    fn is_whole(&self) -> bool {
        lock(&self.schedule).as_ref().is_some_and(|schedule| schedule.left() == 0)
    }

    fn is_here(&self, piece: u32) -> bool {
        lock(&self.schedule).as_ref().is_some_and(|schedule| schedule.is_here(piece))
    }

    /// Takes a tree whose root is the digest, and the last piece that goes with it, from whoever comes first.
    fn prove(&self, tree: Tree, holder: HolderIndex, last: &[u8]) -> Result<(), DiskError> {
        let mut partial = lock(&self.partial);
        let Some(partial) = partial.as_mut().filter(|partial| partial.tree().is_none()) else {
            return Ok(());
        };
        let index = tree.shape().pieces() - 1;
        partial.begin(tree.clone())?;
        partial.write(index, last)?;
        *lock(&self.schedule) = Some(Schedule::new(partial.here(), self.holders.len()));
        self.kept(holder, last.len());
        self.proven.send_replace(Some(Arc::new(tree)));
        Ok(())
    }

    /// Checks a piece and writes it, unless it has come from somebody else by now.
    fn keep(&self, holder: HolderIndex, index: u32, data: &[u8]) -> Result<Result<(), Fault>, DiskError> {
        let tree = self.tree().expect("the tree is proven");
        if !tree.vouches_for(index, data) {
            return Ok(Err(Fault::WrongBytes(index)));
        }
        if let Some(partial) = lock(&self.partial).as_mut() {
            partial.write(index, data)?;
            let now = self.began.elapsed();
            let new = lock(&self.schedule).as_mut().expect("proven").came(index, holder, now);
            if new {
                self.kept(holder, data.len());
            }
        }
        self.changed.send_modify(|version| *version += 1);
        Ok(Ok(()))
    }

    fn kept(&self, holder: HolderIndex, bytes: usize) {
        self.done.fetch_add(bytes as u64, Ordering::Relaxed);
        self.holders[holder].kept.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// The disk takes no more: nothing will, until somebody has made room.
    async fn stop(&self, error: DiskError) -> Fault {
        lock(&self.disk_error).get_or_insert(error);
        self.disk_failed.notify_one();
        std::future::pending().await
    }
}

/// One holder, asked.
struct Asking {
    pulling: Arc<Pulling>,
    endpoint: Endpoint,
    index: HolderIndex,
    address: WorkerAddress,
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
    async fn run(&self) -> Result<(), Fault> {
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

/// How quickly bytes come, told from time to time.
struct Pace {
    at: Instant,
    received: u64,
    rate: f64,
    /// What each holder had sent when last looked at, and when something last came from it.
    holders: Vec<(u64, Option<Instant>)>,
}

impl Pace {
    /// Bytes of the last two seconds or so count.
    const WINDOW: Duration = Duration::from_secs(2);

    fn new(at: Instant) -> Self {
        Pace { at, received: 0, rate: 0.0, holders: Vec::new() }
    }

    fn progress(&mut self, pulling: &Pulling, total: u64) -> Progress {
        let now = Instant::now();
        self.holders.resize(pulling.holders.len(), (0, None));
        let mut received = 0;
        for (holder, (before, last)) in pulling.holders.iter().zip(&mut self.holders) {
            let count = holder.received.load(Ordering::Relaxed);
            if count > *before {
                (*before, *last) = (count, Some(now));
            }
            received += count;
        }
        let passed = now - self.at;
        if passed >= TELL / 2 {
            let latest = (received - self.received) as f64 / passed.as_secs_f64();
            let weight = (passed.as_secs_f64() / Self::WINDOW.as_secs_f64()).min(1.0);
            self.rate = if self.received == 0 { latest } else { self.rate + weight * (latest - self.rate) };
            (self.at, self.received) = (now, received);
        }
        let lately = |(_, last): &&(u64, Option<Instant>)| last.is_some_and(|last| now - last < Self::WINDOW);
        let peers = self.holders.iter().filter(lately).count();
        Progress { done: pulling.done(), total, rate: self.rate as u64, peers }
    }
}

/// What a blocking task returned. One that panicked panics here; none is aborted.
fn joined<T>(result: Result<T, tokio::task::JoinError>) -> T {
    result.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()))
}

/// Whoever panicked ends the pull: its panic goes on in the task that asked for it.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

const _: () = assert!(PIECE_BYTES <= 1 << 20, "the bound on memory counts mebibytes");
