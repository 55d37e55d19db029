//! Holders on loopback: honest ones, and those that are not.

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use minicbor::{Decode, Encode};
use surety_blobs::{
    HoldLimits, PullLimits, PullRequest, Shelf, View, hold,
    message::{FRAME_BYTES, FRAME_VALUES, FromHolder, Refusal, ToHolder},
    tree::{CHUNK_BYTES, PIECE_BYTES, Shape, Tree},
};
use surety_net::{BindOptions, BlobStream, Endpoint, ListenLimits, Stream, WorkerAddress};
use surety_types::{Canonical, Digest, Invalid, SecretKey};
use tokio::{task::JoinSet, time::sleep};

const LOOPBACK: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

pub async fn endpoint(seed: u8) -> Endpoint {
    let key = SecretKey::from_bytes(&[seed; 32]);
    Endpoint::bind(BindOptions { key, listen: LOOPBACK }).await.unwrap()
}

/// A file's bytes, its digest and its tree.
#[derive(Clone)]
pub struct Blob {
    pub data: Arc<Vec<u8>>,
    pub digest: Digest,
    pub tree: Tree,
}

impl Blob {
    pub fn new(bytes: usize, seed: u8) -> Self {
        let mut data = vec![0; bytes];
        blake3::Hasher::new().update(&[seed]).finalize_xof().fill(&mut data);
        let shape = Shape::new(bytes as u64).unwrap();
        let values = data.chunks(PIECE_BYTES as usize).enumerate();
        let values = values.map(|(index, piece)| shape.piece_value(index as u32, piece)).collect();
        let digest = Digest(*blake3::hash(&data).as_bytes());
        Blob { data: Arc::new(data), digest, tree: Tree::new(shape, values) }
    }

    pub fn piece(&self, index: u32) -> &[u8] {
        self.data.chunks(PIECE_BYTES as usize).nth(index as usize).unwrap()
    }

    pub fn pieces(&self) -> u32 {
        self.tree.shape().pieces()
    }

    pub fn bytes(&self) -> u64 {
        self.data.len() as u64
    }

    /// Puts the file where a folder's shelf finds it.
    pub fn put(&self, folder: &Path) -> PathBuf {
        let path = folder.join(self.digest.to_string());
        std::fs::write(&path, &self.data[..]).unwrap();
        path
    }
}

/// Every file in a folder, under the digest that is its name.
pub struct Folder(pub PathBuf);

impl Shelf for Folder {
    fn paths(&self, digest: Digest) -> Vec<PathBuf> {
        let path = self.0.join(digest.to_string());
        if path.exists() { vec![path] } else { vec![] }
    }
}

/// A holder, until it is dropped.
pub struct Holder {
    pub endpoint: Endpoint,
    pub folder: tempfile::TempDir,
    tasks: JoinSet<()>,
}

impl Holder {
    pub fn address(&self) -> WorkerAddress {
        self.endpoint.address()
    }

    /// An honest one, with these files.
    pub async fn honest(seed: u8, blobs: &[&Blob], limits: HoldLimits) -> Self {
        let folder = tempfile::tempdir().unwrap();
        for blob in blobs {
            blob.put(folder.path());
        }
        let endpoint = endpoint(seed).await;
        let view = View::new(Folder(folder.path().to_owned()), folder.path().join("trees"));
        let listener = endpoint.listen_for_blobs(ListenLimits::default());
        let mut tasks = JoinSet::new();
        tasks.spawn(hold(listener, endpoint.key(), Arc::new(view), limits));
        Holder { endpoint, folder, tasks }
    }

    /// An honest one that sends so many bytes a second.
    pub async fn slow(seed: u8, blob: &Blob, bytes_per_second: u64) -> Self {
        let limits = HoldLimits { bytes_per_second: Some(bytes_per_second), ..HoldLimits::default() };
        Self::honest(seed, &[blob], limits).await
    }

    /// One that does this.
    pub async fn liar(seed: u8, blob: &Blob, deed: Deed) -> Self {
        let endpoint = endpoint(seed).await;
        let mut listener = endpoint.listen_for_blobs(ListenLimits::default());
        let blob = blob.clone();
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut streams = JoinSet::new();
            while let Some(stream) = listener.accept().await {
                streams.spawn(lie(stream, blob.clone(), deed));
            }
        });
        Holder { endpoint, folder: tempfile::tempdir().unwrap(), tasks }
    }

    /// Is gone from one moment to the next.
    pub async fn vanish(mut self) {
        self.tasks.shutdown().await;
        self.endpoint.close().await;
    }
}

/// What a holder does that is none.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Deed {
    /// Flips a bit in this piece.
    Corrupts(u32),
    /// Says that it has the file, and has nothing.
    HasNothing,
    /// Does not even say so.
    SaysNothing,
    /// Tells a size that is one byte too small, with the real tree.
    TellsAnotherSize,
    /// Tells a petabyte.
    TellsTooMuch,
    /// Sends the tree of something else.
    SendsAnotherTree,
    /// Sends the inner values of the real tree as if they were those of a file half as large.
    SendsInnerValues,
    /// Ends within a piece.
    BreaksOff,
    /// Ends a frame, then sends nothing more.
    Stalls,
    /// Sends a piece byte by byte.
    Drips,
    /// Answers another question.
    AnswersBesides,
    /// Sends bytes that are no message.
    SendsGarbage,
    /// Kept the tree, and dropped every chunk whose number this divides.
    Dropped(u64),
}

/// Bytes that are no message of the protocol.
#[derive(Debug, Encode, Decode)]
#[cbor(map)]
pub struct Garbage {
    #[n(7)]
    pub number: u64,
}

impl Canonical for Garbage {
    const NAME: &'static str = "garbage";
    const MAX_BYTES: usize = 100;

    fn check(&self) -> Result<(), Invalid> {
        Ok(())
    }
}

async fn lie(stream: BlobStream, blob: Blob, deed: Deed) {
    if deed == Deed::SendsGarbage {
        let mut stream: Stream<Garbage, ToHolder> = stream.carrying();
        let _ = stream.receive().await;
        let _ = stream.send(&Garbage { number: 1 }).await;
        let _ = stream.finish().await;
        return;
    }
    let mut stream: Stream<FromHolder, ToHolder> = stream.carrying();
    let Ok(Some(request)) = stream.receive().await else { return };
    // What cannot be sent, nobody waits for any more.
    let _ = reply(&mut stream, request, &blob, deed).await;
    let _ = stream.finish().await;
}

async fn reply(
    stream: &mut Stream<FromHolder, ToHolder>,
    request: ToHolder,
    blob: &Blob,
    deed: Deed,
) -> Result<(), surety_net::SendError> {
    match request {
        ToHolder::Describe(_) => {
            let bytes = match deed {
                Deed::TellsAnotherSize => blob.bytes() - 1,
                Deed::TellsTooMuch => 1 << 50,
                Deed::SendsInnerValues => blob.bytes() / 2,
                _ => blob.bytes(),
            };
            let answer = match deed {
                Deed::SaysNothing => FromHolder::Refused(Refusal::Absent),
                Deed::AnswersBesides => FromHolder::Missing(1),
                _ => FromHolder::Held(bytes),
            };
            stream.send(&answer).await
        }
        ToHolder::Values(_) => {
            let mut values = blob.tree.values().to_vec();
            if deed == Deed::SendsAnotherTree {
                values[0][0] ^= 1;
            }
            if deed == Deed::SendsInnerValues {
                values = values
                    .chunks(2)
                    .map(|pair| {
                        blake3::hazmat::merge_subtrees_non_root(
                            &pair[0],
                            &pair[1],
                            blake3::hazmat::Mode::Hash,
                        )
                    })
                    .collect();
            }
            for values in values.chunks(FRAME_VALUES) {
                stream.send(&FromHolder::Values(values.as_flattened().to_vec())).await?;
            }
            Ok(())
        }
        ToHolder::Piece { .. } if deed == Deed::HasNothing => {
            stream.send(&FromHolder::Refused(Refusal::Absent)).await
        }
        ToHolder::Piece { index, .. } => {
            let mut data = blob.piece(index).to_vec();
            if deed == Deed::Corrupts(index) {
                let at = data.len() / 3;
                data[at] ^= 1;
            }
            if deed == Deed::TellsAnotherSize && index + 1 == blob.pieces() {
                data.pop();
            }
            for (number, frame) in data.chunks(FRAME_BYTES).enumerate() {
                match deed {
                    Deed::BreaksOff if number > 0 || frame.len() < FRAME_BYTES => return Ok(()),
                    Deed::Stalls if number > 0 || frame.len() < FRAME_BYTES => {
                        sleep(Duration::from_secs(3600)).await;
                    }
                    Deed::Drips => {
                        for byte in frame {
                            stream.send(&FromHolder::Data(vec![*byte])).await?;
                            sleep(Duration::from_millis(300)).await;
                        }
                    }
                    _ => {}
                }
                stream.send(&FromHolder::Data(frame.to_vec())).await?;
            }
            Ok(())
        }
        ToHolder::Audit { digest, beacon, count } => {
            let holder = SecretKey::from_bytes(&[AUDITED; 32]).public();
            let shape = blob.tree.shape();
            let challenge = surety_blobs::Challenge { digest, shape, beacon, holder, count };
            for chunk in challenge.chunks() {
                let piece = blob.piece((chunk * CHUNK_BYTES / PIECE_BYTES) as u32);
                let mut slice = blob.tree.open(chunk, piece);
                if matches!(deed, Deed::Dropped(every) if chunk % every == 0) {
                    slice.data.fill(0);
                }
                let siblings = slice.siblings.as_flattened().to_vec();
                stream.send(&FromHolder::Slice { chunk, data: slice.data, siblings }).await?;
            }
            Ok(())
        }
    }
}

/// The seed of the key of a liar that is audited.
pub const AUDITED: u8 = 77;

/// Patience for tests: short where a test waits for it to end, long where a busy machine might need it.
pub fn limits() -> PullLimits {
    PullLimits {
        frame_wait: Duration::from_secs(3),
        backoff: Duration::from_millis(20),
        failures: 2,
        hedge: Duration::from_millis(500),
        ..PullLimits::default()
    }
}

/// Asks these for a file, into a folder.
pub fn request(folder: &Path, blob: &Blob, holders: &[&Holder]) -> PullRequest {
    PullRequest {
        digest: blob.digest,
        bytes: None,
        holders: holders.iter().map(|holder| holder.address()).collect(),
        downloads: folder.join("downloads"),
        place: folder.join("files").join("model"),
    }
}
