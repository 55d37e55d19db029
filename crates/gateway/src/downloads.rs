//! Downloads: files of models, from the workers that hold them to whoever asks.
//!
//! In:     which bytes of which file, and who says it has it. Out: those bytes as a body; or why there are none.
//! Touches: the network, through `blobs`. Nothing is kept on disk.
//! Holds:  no byte leaves that the file's BLAKE3 does not vouch for; who reads nothing while others wait for a place gives
//!         way; memory is bounded by places times pieces.
//! Absent: which files there are, and what they are called (`api::hub`).

use std::{
    collections::VecDeque,
    io,
    ops::Range,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use axum::body::Body;
use bytes::Bytes;
use futures::stream;
use surety_blobs::{ReadLimits, ReadRequest, Reader, Unavailable, read, tree::Tree};
use surety_net::{Endpoint, WorkerAddress};
use surety_types::Digest;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch},
    time::{sleep, timeout},
};
use tracing::{info, warn};

/// Downloads at once.
const PLACES: usize = 64;
/// A place is waited for so long; clients give up not much later.
const PATIENCE: Duration = Duration::from_secs(5);
/// Who takes nothing for so long, while others wait for a place, gives way. Clients go on where they were.
const STALL: Duration = Duration::from_secs(10);
/// Values of proven trees that are kept, over all files: a file has one for each mebibyte.
const TREE_VALUES_MAX: usize = 1 << 20;

/// Which bytes of which file.
#[derive(Debug, Clone)]
pub(crate) struct Wanted {
    pub(crate) digest: Digest,
    pub(crate) file_bytes: u64,
    /// Some of them.
    pub(crate) range: Range<u64>,
    /// Who says that it has the file, best first.
    pub(crate) holders: Vec<WorkerAddress>,
}

/// Why nothing can be downloaded now.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DownloadError {
    /// Nobody gives the file.
    #[error(transparent)]
    Unavailable(#[from] Unavailable),
    /// As many are being served as the gateway serves at once.
    #[error("{PLACES} downloads run, which is all the gateway serves at once")]
    Full,
}

/// Everything that is being downloaded.
#[derive(Debug)]
pub(crate) struct Downloads {
    endpoint: Endpoint,
    places: Arc<Semaphore>,
    /// How many wait for a place.
    waiting: watch::Sender<usize>,
    /// Proven trees, latest last.
    trees: Mutex<VecDeque<(Digest, Arc<Tree>)>>,
}

/// Someone who waits for a place, until dropped.
struct Waiting<'a>(&'a watch::Sender<usize>);

impl Downloads {
    pub(crate) fn new(endpoint: Endpoint) -> Self {
        Self {
            endpoint,
            places: Arc::new(Semaphore::new(PLACES)),
            waiting: watch::Sender::new(0),
            trees: Mutex::default(),
        }
    }

    /// Begins a download: the first bytes are here, and checked, when this returns. `halted` ends it early.
    pub(crate) async fn open(
        self: &Arc<Self>,
        wanted: Wanted,
        halted: impl Future<Output = ()> + Send + 'static,
    ) -> Result<Body, DownloadError> {
        let place = self.place().await?;
        let Wanted { digest, file_bytes, range, holders } = wanted;
        let request =
            ReadRequest { digest, bytes: file_bytes, range, holders, tree: self.known(digest, file_bytes) };
        let mut reader = read(&self.endpoint, request, ReadLimits::default()).await?;
        self.keep(digest, reader.tree());
        let first = reader.next().await?;
        let (sender, mut receiver) = mpsc::channel::<Result<Bytes, io::Error>>(1);
        let downloads = Arc::clone(self);
        tokio::spawn(async move {
            tokio::select! {
                () = downloads.send(reader, first, &sender, place) => {}
                () = halted => {
                    let _ = sender.try_send(Err(io::Error::other("the gateway stops")));
                }
            }
        });
        Ok(Body::from_stream(stream::poll_fn(move |context| receiver.poll_recv(context))))
    }

    /// Sends the rest, until it is sent, nobody reads it, or somebody else needs the place more.
    async fn send(
        &self,
        mut reader: Reader,
        mut piece: Option<Vec<u8>>,
        sender: &mpsc::Sender<Result<Bytes, io::Error>>,
        _place: OwnedSemaphorePermit,
    ) {
        while let Some(bytes) = piece.take() {
            let sent = tokio::select! {
                sent = sender.send(Ok(bytes.into())) => sent,
                () = self.stalled() => {
                    info!("a download whose reader took nothing gave way to another");
                    return;
                }
            };
            if sent.is_err() {
                return;
            }
            let next = tokio::select! {
                next = reader.next() => next,
                () = sender.closed() => return,
            };
            piece = match next {
                Ok(next) => next,
                Err(error) => {
                    warn!(%error, "a download broke off");
                    // The length that was promised is not reached, so the reader knows.
                    let _ = sender.send(Err(io::Error::other(error))).await;
                    return;
                }
            };
        }
    }

    async fn place(&self) -> Result<OwnedSemaphorePermit, DownloadError> {
        if let Ok(place) = Arc::clone(&self.places).try_acquire_owned() {
            return Ok(place);
        }
        let _waiting = Waiting::new(&self.waiting);
        match timeout(PATIENCE, Arc::clone(&self.places).acquire_owned()).await {
            Ok(Ok(place)) => Ok(place),
            Ok(Err(_)) | Err(_) => Err(DownloadError::Full),
        }
    }

    /// When bytes have waited for long, and somebody else waits too.
    async fn stalled(&self) {
        sleep(STALL).await;
        // The sender is ours: it is there as long as we are.
        let _ = self.waiting.subscribe().wait_for(|waiting| *waiting > 0).await;
    }

    fn known(&self, digest: Digest, bytes: u64) -> Option<Arc<Tree>> {
        let trees = self.trees.lock().unwrap_or_else(PoisonError::into_inner);
        let known = trees.iter().find(|(known, tree)| *known == digest && tree.shape().bytes() == bytes);
        known.map(|(_, tree)| Arc::clone(tree))
    }

    fn keep(&self, digest: Digest, tree: &Arc<Tree>) {
        let mut trees = self.trees.lock().unwrap_or_else(PoisonError::into_inner);
        trees.retain(|(known, _)| *known != digest);
        trees.push_back((digest, Arc::clone(tree)));
        let mut values: usize = trees.iter().map(|(_, tree)| tree.values().len()).sum();
        while values > TREE_VALUES_MAX
            && let Some((_, oldest)) = trees.pop_front()
        {
            values -= oldest.values().len();
        }
    }
}

impl<'a> Waiting<'a> {
    fn new(waiting: &'a watch::Sender<usize>) -> Self {
        waiting.send_modify(|waiting| *waiting += 1);
        Self(waiting)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.send_modify(|waiting| *waiting -= 1);
    }
}
