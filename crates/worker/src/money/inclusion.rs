//! Inclusion: where a receipt stands in the log of its epoch, for whoever has the receipt.
//!
//! In:     a stream whose first message names a receipt. Out: its place, and the path from there to the root.
//! Touches: the book, to read.
//! Holds: ; the path is that to the root which was posted; one log is read at a time, however many ask.
//! Absent: posting roots (`duties`), what a root on the ledger is worth (who asked).

use std::{sync::Arc, time::Duration};

use surety_net::{CloseCode, LogStream};
use surety_types::{Digest, Inclusion};
use tokio::sync::Mutex;

use super::{Till, store::NotKept};

/// How long a stream may be open before it names a receipt.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
/// A log may be large.
static TURN: Mutex<()> = Mutex::const_new(());

/// Answers one question for a receipt's place.
pub(crate) async fn show(till: Option<Arc<Till>>, mut stream: LogStream) {
    let Some(till) = till else { return stream.reset(CloseCode::Failed) };
    let Ok(Some(request)) = stream.receive_within(REQUEST_TIMEOUT).await else {
        return stream.reset(CloseCode::BadMessage);
    };
    let found = {
        let _turn = TURN.lock().await;
        tokio::task::spawn_blocking(move || inclusion(&till, request.receipt)).await
    };
    let Ok(Ok(found)) = found else {
        tracing::warn!(receipt = %request.receipt, "the log of a receipt cannot be read");
        return stream.reset(CloseCode::Failed);
    };
    let sent = async {
        stream.send(&found).await?;
        stream.finish().await
    };
    if let Err(error) = sent.await {
        tracing::debug!(%error, "a receipt's place was not delivered");
    }
}

/// Where a receipt stands. Reads the disk.
pub(super) fn inclusion(till: &Till, receipt: Digest) -> Result<Inclusion, NotKept> {
    let Some((epoch, index)) = till.store().place(&receipt)? else { return Ok(Inclusion::Unknown) };
    if !till.store().is_posted(epoch)? {
        return Ok(Inclusion::Unposted { epoch });
    }
    let leaves = leaf_hashes(&till.store().leaves(epoch)?);
    let path = usize::try_from(index).ok().and_then(|index| surety_chain::inclusion_path(&leaves, index));
    Ok(match path {
        Some(path) => Inclusion::Posted { epoch, index, path: path.into_iter().map(Digest).collect() },
        // It was pruned meanwhile.
        None => Inclusion::Unknown,
    })
}

/// The leaves of a log: a receipt's digest is its entry.
pub(super) fn leaf_hashes(digests: &[Digest]) -> Vec<[u8; 32]> {
    digests.iter().map(|digest| surety_chain::leaf_hash(&digest.0)).collect()
}
