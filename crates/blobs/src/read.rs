//! Reading: part of a file, in order, from many holders, each piece checked before it is handed on.
//!
//! In:     a digest, a size, holders, a range. Out: the range's bytes, piece by piece; or what became of every holder.
//! Touches: the network. No disk.
//! Holds:  nothing is handed on that the digest does not vouch for; a holder that fails, lies or is slow costs the time
//!         until another is asked; memory is bounded by [`ReadLimits::ahead`].
//! Absent: files that are kept (`pull`).

use std::{
    collections::VecDeque,
    ops::Range,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use surety_net::{Endpoint, Link, Protocol, WorkerAddress};
use surety_types::Digest;
use thiserror::Error;
use tokio::{
    task::{JoinHandle, JoinSet, spawn_blocking},
    time::{Instant, sleep},
};

use crate::{
    ask::{Asked, Fault},
    pull::HOLDERS_MAX,
    tree::{PIECE_BYTES, Tree},
};

/// Holders that are asked for one piece at once.
const BESIDE: usize = 2;

/// What to read.
#[derive(Clone, Debug)]
pub struct ReadRequest {
    /// BLAKE3 of the whole file.
    pub digest: Digest,
    /// Its size.
    pub bytes: u64,
    /// Which of its bytes; some, and none beyond its end.
    pub range: Range<u64>,
    /// Who is said to hold it, best first; the first `HOLDERS_MAX` are asked.
    pub holders: Vec<WorkerAddress>,
    /// The tree that an earlier reader of the same file proved.
    pub tree: Option<Arc<Tree>>,
}

/// Patience and memory.
#[derive(Clone, Copy, Debug)]
pub struct ReadLimits {
    /// A connection, and the next 64 KiB of a piece, come within this.
    pub frame_wait: Duration,
    /// And the whole piece within this.
    pub piece_wait: Duration,
    /// Who takes longer for a piece is not waited for alone.
    pub hedge: Duration,
    /// How often all holders are asked for one piece.
    pub rounds: u32,
    /// The pause before the second round; before the third it is twice as long.
    pub backoff: Duration,
    /// Pieces that are fetched before they are wanted, the wanted one included.
    pub ahead: usize,
}

impl Default for ReadLimits {
    fn default() -> Self {
        ReadLimits {
            frame_wait: Duration::from_secs(3),
            piece_wait: Duration::from_secs(60),
            hedge: Duration::from_millis(1500),
            rounds: 3,
            backoff: Duration::from_millis(300),
            ahead: 4,
        }
    }
}

/// Nobody gives the file.
#[derive(Clone, Debug, Error)]
#[error("no holder gives blake3:{digest}{}", list(faults))]
pub struct Unavailable {
    /// What was asked for.
    pub digest: Digest,
    /// Each holder and what became of it.
    pub faults: Vec<(WorkerAddress, Fault)>,
}

fn list(faults: &[(WorkerAddress, Fault)]) -> String {
    faults.iter().map(|(holder, fault)| format!("; {holder}: {fault}")).collect()
}

/// A range of a file, read in order. Dropped, it asks nobody any more.
pub struct Reader {
    reading: Arc<Reading>,
    tree: Arc<Tree>,
    range: Range<u64>,
    /// The next piece to be fetched, and the one after the last.
    next: u32,
    end: u32,
    /// What is being fetched, in order.
    ahead: VecDeque<Fetching>,
    /// The piece at the front of `ahead`.
    front: u32,
}

/// A piece under way; dropped, it is given up.
struct Fetching(JoinHandle<Result<Vec<u8>, Unavailable>>);

struct Reading {
    endpoint: Endpoint,
    digest: Digest,
    bytes: u64,
    limits: ReadLimits,
    holders: Vec<Holder>,
}

struct Holder {
    address: WorkerAddress,
    link: tokio::sync::Mutex<Option<Link>>,
    fault: Mutex<Option<Fault>>,
    /// Questions that it has not answered.
    under_way: AtomicU32,
    /// How long an answer takes it, lately; zero before the first.
    took_ms: AtomicU32,
}

/// A question that a holder has not answered, until dropped.
struct Asking {
    reading: Arc<Reading>,
    holder: usize,
    began: Instant,
}

/// Begins to read: the file's tree is proven when this returns.
///
/// Panics if the range is empty or leaves the file, or a tree is given that is another file's.
pub async fn read(
    endpoint: &Endpoint,
    request: ReadRequest,
    limits: ReadLimits,
) -> Result<Reader, Unavailable> {
    let ReadRequest { digest, bytes, range, mut holders, tree } = request;
    assert!(range.start < range.end && range.end <= bytes, "bytes of the file");
    holders.truncate(HOLDERS_MAX);
    let holders = holders.into_iter().map(Holder::new).collect();
    let reading = Arc::new(Reading { endpoint: endpoint.clone(), digest, bytes, limits, holders });
    let tree = match tree {
        Some(tree) => tree,
        None => reading.first(Reading::prove).await?,
    };
    assert!(tree.root() == digest && tree.shape().bytes() == bytes, "the file's tree");
    let first = (range.start / PIECE_BYTES) as u32;
    let end = range.end.div_ceil(PIECE_BYTES) as u32;
    let mut reader = Reader { reading, tree, range, next: first, end, ahead: VecDeque::new(), front: first };
    reader.fetch_ahead();
    Ok(reader)
}

impl Reader {
    /// The file's tree, for who reads more of it.
    pub fn tree(&self) -> &Arc<Tree> {
        &self.tree
    }

    /// The next bytes, a mebibyte at most; none after the last. May be dropped and called again.
    pub async fn next(&mut self) -> Result<Option<Vec<u8>>, Unavailable> {
        let Some(fetching) = self.ahead.front_mut() else { return Ok(None) };
        let mut piece = joined((&mut fetching.0).await)?;
        self.ahead.pop_front();
        self.fetch_ahead();
        let offset = self.tree.shape().piece_offset(self.front);
        self.front += 1;
        piece.truncate((self.range.end - offset).min(PIECE_BYTES) as usize);
        piece.drain(..self.range.start.saturating_sub(offset) as usize);
        Ok(Some(piece))
    }

    fn fetch_ahead(&mut self) {
        while self.next < self.end && self.ahead.len() < self.reading.limits.ahead.max(1) {
            let (reading, tree, index) = (self.reading.clone(), self.tree.clone(), self.next);
            let fetching = async move {
                let fetched = |reading: Arc<Reading>, holder| reading.piece(holder, tree.clone(), index);
                reading.first(fetched).await
            };
            self.ahead.push_back(Fetching(tokio::spawn(fetching)));
            self.next += 1;
        }
    }
}

impl Drop for Fetching {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Reading {
    /// Asks the holders in turn, the next one when one fails or takes long. The first good answer counts.
    async fn first<T, F>(self: &Arc<Self>, ask: impl Fn(Arc<Self>, usize) -> F) -> Result<T, Unavailable>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, Fault>> + Send + 'static,
    {
        for round in 0..self.limits.rounds.max(1) {
            sleep(self.limits.backoff * round).await;
            let mut waiting: VecDeque<usize> = self.order().into();
            let mut under_way = JoinSet::new();
            let mut asked = Vec::new();
            loop {
                if under_way.is_empty() {
                    let Some(holder) = waiting.pop_front() else { break };
                    asked.push(holder);
                    under_way.spawn(Asking::new(self, holder).run(ask(self.clone(), holder)));
                }
                let others = under_way.len() < BESIDE && !waiting.is_empty();
                tokio::select! {
                    Some(ended) = under_way.join_next() => match joined(ended) {
                        (_, Ok(answer)) => return Ok(answer),
                        (holder, Err(fault)) => self.holders[holder].note(fault),
                    },
                    () = sleep(self.limits.hedge), if others => {
                        for holder in &asked {
                            self.holders[*holder].is_slow(self.limits.hedge);
                        }
                        let Some(holder) = waiting.pop_front() else { continue };
                        asked.push(holder);
                        under_way.spawn(Asking::new(self, holder).run(ask(self.clone(), holder)));
                    }
                }
            }
        }
        let fault = |holder: &Holder| Some((holder.address, holder.lock_fault().clone()?));
        Err(Unavailable { digest: self.digest, faults: self.holders.iter().filter_map(fault).collect() })
    }

    /// Those who may be asked, who will answer soonest first.
    fn order(&self) -> Vec<usize> {
        let may = |holder: &Holder| !holder.lock_fault().as_ref().is_some_and(Fault::is_final);
        let mut order: Vec<usize> =
            (0..self.holders.len()).filter(|index| may(&self.holders[*index])).collect();
        order.sort_by_key(|index| self.holders[*index].ready_in_ms());
        order
    }

    async fn asked(&self, holder: usize) -> Result<Asked, Fault> {
        let ReadLimits { frame_wait, piece_wait, .. } = self.limits;
        let holder = &self.holders[holder];
        let mut link = holder.link.lock().await;
        let link = match link.as_ref().filter(|link| !link.is_closed()) {
            Some(link) => link.clone(),
            None => {
                let new = self.endpoint.connect_within(&holder.address, Protocol::Blobs, frame_wait).await?;
                link.insert(new).clone()
            }
        };
        Ok(Asked { link, digest: self.digest, frame_wait, piece_wait })
    }

    async fn prove(self: Arc<Self>, holder: usize) -> Result<Arc<Tree>, Fault> {
        let asked = self.asked(holder).await?;
        let told = asked.size().await?;
        if told != self.bytes {
            return Err(Fault::WrongSize { told, proven: self.bytes });
        }
        let tree = Arc::new(asked.tree(told).await?);
        // The digest vouches for the values, the last piece for the size.
        let last = tree.shape().pieces() - 1;
        self.piece(holder, tree.clone(), last).await?;
        Ok(tree)
    }

    async fn piece(self: Arc<Self>, holder: usize, tree: Arc<Tree>, index: u32) -> Result<Vec<u8>, Fault> {
        let asked = self.asked(holder).await?;
        let data = asked.piece(index, tree.shape().piece_bytes(index), |_| {}).await?;
        let checking = spawn_blocking(move || {
            if tree.vouches_for(index, &data) { Ok(data) } else { Err(Fault::WrongBytes(index)) }
        });
        joined(checking.await)
    }
}

impl Holder {
    fn new(address: WorkerAddress) -> Self {
        Holder {
            address,
            link: tokio::sync::Mutex::default(),
            fault: Mutex::default(),
            under_way: AtomicU32::new(0),
            took_ms: AtomicU32::new(0),
        }
    }

    /// How soon one more piece would be here, as far as is known.
    fn ready_in_ms(&self) -> u64 {
        let (under_way, took_ms) =
            (self.under_way.load(Ordering::Relaxed), self.took_ms.load(Ordering::Relaxed));
        u64::from(under_way + 1) * u64::from(took_ms.max(1))
    }

    fn took(&self, time: Duration) {
        let (now, before) = (time.as_millis() as u32, self.took_ms.load(Ordering::Relaxed));
        let lately = if before == 0 { now } else { (3 * before + now) / 4 };
        self.took_ms.store(lately.max(1), Ordering::Relaxed);
    }

    fn is_slow(&self, after: Duration) {
        self.took_ms.fetch_max(after.as_millis() as u32, Ordering::Relaxed);
    }

    fn note(&self, fault: Fault) {
        if fault.is_a_lie() {
            tracing::warn!(holder = %self.address, %fault, "a holder is not asked any more");
        }
        *self.lock_fault() = Some(fault);
    }

    fn lock_fault(&self) -> std::sync::MutexGuard<'_, Option<Fault>> {
        self.fault.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Asking {
    fn new(reading: &Arc<Reading>, holder: usize) -> Self {
        reading.holders[holder].under_way.fetch_add(1, Ordering::Relaxed);
        Asking { reading: reading.clone(), holder, began: Instant::now() }
    }

    async fn run<T>(self, answer: impl Future<Output = Result<T, Fault>>) -> (usize, Result<T, Fault>) {
        let answer = answer.await;
        if answer.is_ok() {
            self.reading.holders[self.holder].took(self.began.elapsed());
        }
        (self.holder, answer)
    }
}

impl Drop for Asking {
    fn drop(&mut self) {
        self.reading.holders[self.holder].under_way.fetch_sub(1, Ordering::Relaxed);
    }
}

/// What a task returned. One that panicked panics here.
fn joined<T>(result: Result<T, tokio::task::JoinError>) -> T {
    result.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()))
}
