//! Pulling: one file from many holders at once, every piece checked before it is written.
//!
//! In:     a digest, holders, a folder for what has come so far, the file's place.
//! Out:    the file at its place; how far it is; which holder was dropped and why.
//! Touches: the network through `net`; the disk through `partial`.
//! Holds:  a size counts only with a last piece that fits it; wrong bytes drop their holder for good and are not
//!         written; a holder that is slow, silent or gone loses its pieces to the others; memory is bounded by
//!         [`PullLimits::pieces`]; whatever was written is found again by the next call.
//! Absent: names, the index of the store.

mod asking;
mod pace;
mod shared;

use std::{
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError, atomic::Ordering},
    time::Duration,
};

use surety_net::{Endpoint, WorkerAddress};
use surety_types::Digest;
use thiserror::Error;
use tokio::{
    sync::mpsc,
    task::{JoinSet, spawn_blocking},
    time::Instant,
};

use self::{
    asking::Asking,
    pace::Pace,
    shared::{Closing, Pulling},
};
use crate::{
    ask::Fault,
    partial::{DiskError, Partial},
    tree::PIECE_BYTES,
};

/// Holders of one pull.
pub const HOLDERS_MAX: usize = 64;
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

/// What a blocking task returned. One that panicked panics here; none is aborted.
fn joined<T>(result: Result<T, tokio::task::JoinError>) -> T {
    result.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()))
}

/// Whoever panicked ends the pull: its panic goes on in the task that asked for it.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

const _: () = assert!(PIECE_BYTES <= 1 << 20, "the bound on memory counts mebibytes");
