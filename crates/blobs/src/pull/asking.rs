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

use surety_net::{Endpoint, Protocol, WorkerAddress};
use tokio::{
    sync::OwnedSemaphorePermit,
    task::{JoinSet, spawn_blocking},
    time::{Instant, sleep, timeout},
};

use super::{PullLimits, joined, lock, shared::Pulling};
use crate::{
    ask::{Asked, Fault},
    schedule::HolderIndex,
    tree::Tree,
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
        let PullLimits { frame_wait, piece_wait, .. } = self.pulling.limits;
        let link = self.endpoint.connect(&self.address, Protocol::Blobs).await?;
        let asked = Asked { link, digest: self.pulling.digest, frame_wait, piece_wait };
        let told = asked.size().await?;
        if let Some(known) = self.pulling.bytes.or(self.pulling.total())
            && known != told
        {
            return Err(Fault::WrongSize { told, proven: known });
        }
        let tree = self.proven(&asked, told).await?;
        let proven = tree.shape().bytes();
        if proven != told {
            return Err(Fault::WrongSize { told, proven });
        }
        self.pieces(&asked, &tree).await
    }

    /// The proven tree: ours to prove if nobody else does so soon.
    async fn proven(&self, asked: &Asked, told: u64) -> Result<Arc<Tree>, Fault> {
        let mut proven = self.pulling.proven.subscribe();
        let turn = self.pulling.turns.fetch_add(1, Ordering::Relaxed) as u32;
        if turn > 0 {
            // An error means that nobody did in time.
            let _ = timeout(self.pulling.limits.hedge * turn, proven.wait_for(Option::is_some)).await;
        }
        if let Some(tree) = self.pulling.tree() {
            return Ok(tree);
        }
        let tree = asked.tree(told).await?;
        // The digest vouches for the values, the last piece for the size.
        let last = tree.shape().pieces() - 1;
        let data = self.piece(asked, &tree, last).await?;
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
    async fn pieces(&self, asked: &Asked, tree: &Arc<Tree>) -> Result<(), Fault> {
        let mut changed = self.pulling.changed.subscribe();
        let mut depth = *DEPTH.start();
        let mut under_way = JoinSet::new();
        loop {
            changed.borrow_and_update();
            while under_way.len() < depth {
                let Ok(place) = self.pulling.pieces.clone().try_acquire_owned() else { break };
                let Some(piece) = self.next() else { break };
                let asking = self.clone();
                let (asked, tree) = (asked.clone(), tree.clone());
                under_way.spawn(async move { asking.fetch(&asked, &tree, piece, place).await });
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
        asked: &Asked,
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
            data = self.piece(asked, tree, piece) => data?,
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
    async fn piece(&self, asked: &Asked, tree: &Tree, index: u32) -> Result<Vec<u8>, Fault> {
        let received = &self.pulling.holders[self.index].received;
        let came = |bytes: usize| {
            received.fetch_add(bytes as u64, Ordering::Relaxed);
        };
        asked.piece(index, tree.shape().piece_bytes(index), came).await
    }
}

impl Clone for Asking {
    fn clone(&self) -> Self {
        Asking { pulling: self.pulling.clone(), endpoint: self.endpoint.clone(), ..*self }
    }
}
