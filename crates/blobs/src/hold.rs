//! Holding: answers those who ask for files, within limits.
//!
//! In:     streams of the blobs' protocol; a view of the files. Out: sizes, values, pieces, opened chunks, refusals.
//! Holds:  one asker's slowness, greed or nonsense costs its own stream: reads, pieces in memory, audits and the streams
//!         of each peer are bounded apart.
//! Absent: taking connections (`net`), checking bytes (`view`).

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use surety_net::{BlobListener, BlobStream, CloseCode, SendError, Stream};
use surety_types::{Digest, PublicKey};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch},
    task::{JoinSet, spawn_blocking},
    time::{sleep, timeout},
};

use crate::{
    audit::Challenge,
    message::{FRAME_BYTES, FRAME_VALUES, FromHolder, Refusal, ToHolder},
    throttle::Throttle,
    tree::{PIECE_BYTES, Tree},
    view::{ReadError, View},
};

/// How much is done at once.
#[derive(Clone, Copy, Debug)]
pub struct HoldLimits {
    /// Pieces in memory, being read or sent; each is a mebibyte.
    pub pieces: usize,
    /// Streams of one peer.
    pub streams_per_peer: usize,
    /// Audits. One reads and hashes up to a mebibyte for each chunk drawn.
    pub audits: usize,
    /// A request comes within this after its stream was opened.
    pub request_timeout: Duration,
    /// A place among the pieces is waited for so long; then the asker is told to come again.
    pub patience: Duration,
    /// Who takes nothing of a piece for so long, while others wait for a place, is told to come again.
    pub stall: Duration,
    /// A piece is taken within this, or its stream is broken off.
    pub piece_timeout: Duration,
    /// Bytes sent in a second, to all together; none is no limit.
    pub bytes_per_second: Option<u64>,
}

impl Default for HoldLimits {
    fn default() -> Self {
        HoldLimits {
            pieces: 64,
            streams_per_peer: 32,
            audits: 2,
            request_timeout: Duration::from_secs(5),
            patience: Duration::from_secs(3),
            stall: Duration::from_secs(2),
            piece_timeout: Duration::from_secs(120),
            bytes_per_second: None,
        }
    }
}

struct Holder {
    view: Arc<View>,
    key: PublicKey,
    limits: HoldLimits,
    pieces: Arc<Semaphore>,
    audits: Arc<Semaphore>,
    /// How many wait for a place among the pieces.
    waiting: watch::Sender<usize>,
    peers: Mutex<HashMap<PublicKey, usize>>,
    throttle: Throttle,
}

/// Someone who waits for a place, until dropped.
struct Waiting<'a>(&'a watch::Sender<usize>);

/// A peer's place; given back when dropped.
struct PeerPlace {
    holder: Arc<Holder>,
    peer: PublicKey,
}

type Asked = Stream<FromHolder, ToHolder>;

/// Answers until the listener ends. Dropped, it breaks everything off.
///
/// `key` is that of the endpoint which listens: audits draw by it. Any endpoint will do, one that serves orders too.
pub async fn hold(mut listener: BlobListener, key: PublicKey, view: Arc<View>, limits: HoldLimits) {
    let holder = Arc::new(Holder {
        view,
        key,
        limits,
        pieces: Arc::new(Semaphore::new(limits.pieces)),
        audits: Arc::new(Semaphore::new(limits.audits)),
        waiting: watch::Sender::new(0),
        peers: Mutex::default(),
        throttle: Throttle::new(limits.bytes_per_second),
    });
    let mut asked = JoinSet::new();
    while let Some(stream) = listener.accept().await {
        while let Some(ended) = asked.try_join_next() {
            if let Err(error) = ended {
                tracing::error!(%error, "a request for a file failed");
            }
        }
        asked.spawn(answer(holder.clone(), stream));
    }
}

async fn answer(holder: Arc<Holder>, stream: BlobStream) {
    let peer = stream.peer();
    let mut stream: Asked = stream.carrying();
    let Some(_place) = PeerPlace::take(&holder, peer) else {
        stream.reset(CloseCode::Busy);
        return;
    };
    let request = match stream.receive_within(holder.limits.request_timeout).await {
        Ok(Some(request)) => request,
        Ok(None) => return stream.reset(CloseCode::BadMessage),
        // What cannot be read was refused where it was read; the rest is late.
        Err(_) => return stream.reset(CloseCode::Timeout),
    };
    let sent = match request {
        ToHolder::Describe(digest) => holder.describe(&mut stream, digest).await,
        ToHolder::Values(digest) => holder.values(&mut stream, digest).await,
        ToHolder::Piece { digest, index } => {
            match timeout(holder.limits.piece_timeout, holder.piece(&mut stream, digest, index)).await {
                Ok(sent) => sent,
                Err(_) => return stream.reset(CloseCode::Timeout),
            }
        }
        ToHolder::Audit { digest, beacon, count } => holder.audit(&mut stream, digest, beacon, count).await,
    };
    match sent {
        Ok(()) => {
            // Whether it arrived is the asker's to see.
            let _ = stream.finish().await;
        }
        Err(error) => tracing::debug!(peer = %peer.short(), %error, "an answer was not taken"),
    }
}

impl Holder {
    async fn describe(&self, stream: &mut Asked, digest: Digest) -> Result<(), SendError> {
        match self.tree(digest).await {
            Ok(tree) => stream.send(&FromHolder::Held(tree.shape().bytes())).await,
            Err(refusal) => stream.send(&FromHolder::Refused(refusal)).await,
        }
    }

    async fn values(&self, stream: &mut Asked, digest: Digest) -> Result<(), SendError> {
        let tree = match self.tree(digest).await {
            Ok(tree) => tree,
            Err(refusal) => return stream.send(&FromHolder::Refused(refusal)).await,
        };
        for values in tree.values().chunks(FRAME_VALUES) {
            let values = values.as_flattened();
            self.throttle.pass(values.len()).await;
            stream.send(&FromHolder::Values(values.to_vec())).await?;
        }
        Ok(())
    }

    async fn piece(&self, stream: &mut Asked, digest: Digest, index: u32) -> Result<(), SendError> {
        let read = match self.place(&self.pieces).await {
            Err(refusal) => Err(refusal),
            Ok(place) => {
                let view = self.view.clone();
                let read = spawn_blocking(move || view.piece(digest, index)).await;
                read.map_err(|_| Refusal::Failed)
                    .and_then(|read| read.map_err(|error| refusal(&error)))
                    .map(|data| (data, place))
            }
        };
        let (data, _place) = match read {
            Ok(read) => read,
            Err(refusal) => return stream.send(&FromHolder::Refused(refusal)).await,
        };
        for data in data.chunks(FRAME_BYTES) {
            self.throttle.pass(data.len()).await;
            let message = FromHolder::Data(data.to_vec());
            tokio::select! {
                sent = stream.send(&message) => sent?,
                () = self.stalled() => {
                    stream.reset(CloseCode::Busy);
                    return Err(SendError::Stopped(CloseCode::Busy));
                }
            }
        }
        Ok(())
    }

    async fn audit(
        &self,
        stream: &mut Asked,
        digest: Digest,
        beacon: Digest,
        count: u32,
    ) -> Result<(), SendError> {
        let opened = async {
            let place = self.place(&self.audits).await?;
            Ok((self.tree(digest).await?, place))
        };
        let (tree, place) = match opened.await {
            Ok(opened) => opened,
            Err(refusal) => return stream.send(&FromHolder::Refused(refusal)).await,
        };
        let challenge = Challenge { digest, shape: tree.shape(), beacon, holder: self.key, count };
        // Reading waits when the asker does not take what was read.
        let (queue, mut opened) = mpsc::channel(8);
        let view = self.view.clone();
        let reading = spawn_blocking(move || {
            let _place = place;
            view.slices(digest, &challenge.chunks(), |chunk, slice| {
                let message = match slice {
                    Some(slice) => FromHolder::Slice {
                        chunk,
                        data: slice.data,
                        siblings: slice.siblings.as_flattened().to_vec(),
                    },
                    None => FromHolder::Missing(chunk),
                };
                queue.blocking_send(message).is_ok()
            })
        });
        while let Some(message) = opened.recv().await {
            stream.send(&message).await?;
        }
        match reading.await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => stream.send(&FromHolder::Refused(refusal(&error))).await,
            Err(_) => stream.send(&FromHolder::Refused(Refusal::Failed)).await,
        }
    }

    /// A file's tree. While a large file is read for the first time, askers are told to come again.
    async fn tree(&self, digest: Digest) -> Result<Arc<Tree>, Refusal> {
        let place = self.place(&self.pieces).await?;
        let view = self.view.clone();
        let reading = spawn_blocking(move || {
            let _place = place;
            view.tree(digest, &mut |_, _| {})
        });
        match timeout(self.limits.patience, reading).await {
            Ok(Ok(Ok(tree))) => Ok(tree),
            Ok(Ok(Err(error))) => Err(refusal(&error)),
            Ok(Err(_)) => Err(Refusal::Failed),
            Err(_) => Err(Refusal::Busy),
        }
    }

    /// When a frame has waited for long, and somebody else waits too.
    async fn stalled(&self) {
        sleep(self.limits.stall).await;
        // The sender is ours: it is there as long as we are.
        let _ = self.waiting.subscribe().wait_for(|waiting| *waiting > 0).await;
    }

    async fn place(&self, places: &Arc<Semaphore>) -> Result<OwnedSemaphorePermit, Refusal> {
        if let Ok(place) = places.clone().try_acquire_owned() {
            return Ok(place);
        }
        let _waiting = Arc::ptr_eq(places, &self.pieces).then(|| Waiting::new(&self.waiting));
        match timeout(self.limits.patience, places.clone().acquire_owned()).await {
            Ok(Ok(place)) => Ok(place),
            Ok(Err(_)) | Err(_) => Err(Refusal::Busy),
        }
    }
}

fn refusal(error: &ReadError) -> Refusal {
    match error {
        ReadError::Absent { .. } => Refusal::Absent,
        ReadError::NoSuchPart { .. } => Refusal::Impossible,
        ReadError::Reading { .. } => Refusal::Busy,
        ReadError::Changed { .. } => {
            tracing::warn!(%error, "a file is not given out any more");
            Refusal::Changed
        }
        ReadError::Size { .. } | ReadError::Io { .. } => {
            tracing::warn!(%error, "a file could not be given out");
            Refusal::Failed
        }
    }
}

impl<'a> Waiting<'a> {
    fn new(waiting: &'a watch::Sender<usize>) -> Self {
        waiting.send_modify(|waiting| *waiting += 1);
        Waiting(waiting)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.send_modify(|waiting| *waiting -= 1);
    }
}

impl PeerPlace {
    fn take(holder: &Arc<Holder>, peer: PublicKey) -> Option<Self> {
        let mut peers = holder.peers.lock().unwrap_or_else(PoisonError::into_inner);
        let streams = peers.entry(peer).or_default();
        if *streams >= holder.limits.streams_per_peer {
            return None;
        }
        *streams += 1;
        Some(PeerPlace { holder: holder.clone(), peer })
    }
}

impl Drop for PeerPlace {
    fn drop(&mut self) {
        let mut peers = self.holder.peers.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(streams) = peers.get_mut(&self.peer) {
            *streams -= 1;
            if *streams == 0 {
                peers.remove(&self.peer);
            }
        }
    }
}

const _: () = assert!((PIECE_BYTES as usize).is_multiple_of(FRAME_BYTES), "a piece is whole frames");
