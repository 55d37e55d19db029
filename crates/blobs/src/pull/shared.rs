//! What the tasks of a pull share: the part file, the schedule, the counts.
//!
//! In:     proven trees and pieces of holders. Out: what is here, what is missing.
//! Touches: the part file.
//! Holds:  a piece is written only if the tree vouches for it, and counted once, for whoever brought it first.
//! Absent: asking (`asking`).

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicU64, AtomicUsize, Ordering},
};

use surety_types::Digest;
use tokio::{
    sync::{Notify, Semaphore, watch},
    time::Instant,
};

use super::{PullLimits, lock};
use crate::{
    ask::Fault,
    partial::{DiskError, Partial},
    schedule::{HolderIndex, Schedule},
    tree::Tree,
};

/// What all tasks of a pull share.
pub(super) struct Pulling {
    pub(super) digest: Digest,
    pub(super) bytes: Option<u64>,
    pub(super) limits: PullLimits,
    pub(super) began: Instant,
    /// Until the file is whole.
    pub(super) partial: Mutex<Option<Partial>>,
    /// Once the tree is proven.
    pub(super) proven: watch::Sender<Option<Arc<Tree>>>,
    pub(super) schedule: Mutex<Option<Schedule>>,
    /// Changes with the schedule.
    pub(super) changed: watch::Sender<u64>,
    /// How many told a size, to take turns in proving it.
    pub(super) turns: AtomicUsize,
    pub(super) pieces: Arc<Semaphore>,
    pub(super) done: AtomicU64,
    pub(super) holders: Vec<Counters>,
    pub(super) disk_error: Mutex<Option<DiskError>>,
    pub(super) disk_failed: Notify,
}

#[derive(Default)]
pub(super) struct Counters {
    /// Bytes that came, right or wrong.
    pub(super) received: AtomicU64,
    /// Bytes that were kept.
    pub(super) kept: AtomicU64,
}

impl Pulling {
    pub(super) fn new(
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

    pub(super) fn tree(&self) -> Option<Arc<Tree>> {
        self.proven.borrow().clone()
    }

    pub(super) fn total(&self) -> Option<u64> {
        self.tree().map(|tree| tree.shape().bytes())
    }

    pub(super) fn done(&self) -> u64 {
        self.done.load(Ordering::Relaxed)
    }

    pub(super) fn is_whole(&self) -> bool {
        lock(&self.schedule).as_ref().is_some_and(|schedule| schedule.left() == 0)
    }

    pub(super) fn is_here(&self, piece: u32) -> bool {
        lock(&self.schedule).as_ref().is_some_and(|schedule| schedule.is_here(piece))
    }

    /// Takes a tree whose root is the digest, and the last piece that goes with it, from whoever comes first.
    pub(super) fn prove(&self, tree: Tree, holder: HolderIndex, last: &[u8]) -> Result<(), DiskError> {
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
    pub(super) fn keep(
        &self,
        holder: HolderIndex,
        index: u32,
        data: &[u8],
    ) -> Result<Result<(), Fault>, DiskError> {
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
    pub(super) async fn stop(&self, error: DiskError) -> Fault {
        lock(&self.disk_error).get_or_insert(error);
        self.disk_failed.notify_one();
        std::future::pending().await
    }
}

/// However a pull ends, nothing is written after it, and the next one may begin.
pub(super) struct Closing<'a>(pub(super) &'a Pulling);

impl Drop for Closing<'_> {
    fn drop(&mut self) {
        lock(&self.0.partial).take();
    }
}
