//! Asking: one file at one holder, question by question.
//!
//! In:     a link, a digest. Out: the size it tells, the tree it sends, the bytes of a piece; or what it did instead.
//! Touches: the network.
//! Holds:  every wait is bounded; a tree's root is the digest.
//! Absent: whether a piece's bytes are right (`tree`), who is asked for what (`pull`, `read`).

use std::time::Duration;

use surety_net::{CloseCode, ConnectError, Link, ReceiveError, Stream};
use surety_types::Digest;
use thiserror::Error;
use tokio::time::timeout;

use crate::{
    message::{FRAME_BYTES, FromHolder, Refusal, ToHolder},
    tree::{BLOB_BYTES_MAX, Shape, Tree, Value},
};

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

impl From<ConnectError> for Fault {
    fn from(error: ConnectError) -> Self {
        Fault::Unreachable(chain(&error))
    }
}

/// One file at one holder.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    pub(crate) link: Link,
    pub(crate) digest: Digest,
    /// For the next frame.
    pub(crate) frame_wait: Duration,
    /// For a whole piece.
    pub(crate) piece_wait: Duration,
}

impl Asked {
    /// The size that it tells, unproven.
    pub(crate) async fn size(&self) -> Result<u64, Fault> {
        let mut stream = self.ask(&ToHolder::Describe(self.digest)).await?;
        match self.answer(&mut stream).await? {
            FromHolder::Held(bytes) if (1..=BLOB_BYTES_MAX).contains(&bytes) => Ok(bytes),
            FromHolder::Held(bytes) => Err(Fault::Nonsense(format!("a size of {bytes} bytes"))),
            other => Err(unexpected(&other)),
        }
    }

    /// The tree of a file of so many bytes. The digest vouches for its values; only the last piece proves the size.
    pub(crate) async fn tree(&self, bytes: u64) -> Result<Tree, Fault> {
        let shape = Shape::new(bytes).map_err(|error| Fault::Nonsense(error.to_string()))?;
        let mut stream = self.ask(&ToHolder::Values(self.digest)).await?;
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
        if tree.root() == self.digest { Ok(tree) } else { Err(Fault::WrongTree) }
    }

    /// The `bytes` bytes of a piece, unchecked. `came` is told how many came at once.
    pub(crate) async fn piece(
        &self,
        index: u32,
        bytes: usize,
        came: impl Fn(usize),
    ) -> Result<Vec<u8>, Fault> {
        let wait = self.piece_wait;
        timeout(wait, self.piece_in_its_time(index, bytes, came)).await.unwrap_or(Err(Fault::Slow(wait)))
    }

    async fn piece_in_its_time(
        &self,
        index: u32,
        bytes: usize,
        came: impl Fn(usize),
    ) -> Result<Vec<u8>, Fault> {
        let mut stream = self.ask(&ToHolder::Piece { digest: self.digest, index }).await?;
        let mut piece = Vec::with_capacity(bytes);
        while piece.len() < bytes {
            match self.answer(&mut stream).await? {
                // Nothing smaller: a holder that sends byte by byte would never be silent, and never done.
                FromHolder::Data(data) if data.len() != FRAME_BYTES.min(bytes - piece.len()) => {
                    return Err(Fault::WrongBytes(index));
                }
                FromHolder::Data(data) => {
                    came(data.len());
                    piece.extend(data);
                }
                other => return Err(unexpected(&other)),
            }
        }
        stream.reset(CloseCode::Done);
        Ok(piece)
    }

    async fn ask(&self, request: &ToHolder) -> Result<Stream<ToHolder, FromHolder>, Fault> {
        let mut stream = self.link.open_stream().await.map_err(|error| Fault::Unreachable(chain(&error)))?;
        stream.send(request).await.map_err(|error| Fault::Unreachable(chain(&error)))?;
        Ok(stream)
    }

    async fn answer(&self, stream: &mut Stream<ToHolder, FromHolder>) -> Result<FromHolder, Fault> {
        let wait = self.frame_wait;
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
