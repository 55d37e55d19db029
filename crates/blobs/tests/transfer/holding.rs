//! Holding within limits: what one peer does harms no other.

use std::time::Duration;

use surety_blobs::{
    HoldLimits,
    message::{FromHolder, Refusal, ToHolder},
    pull,
};
use surety_net::{CloseCode, Protocol, ReceiveError, Stream};
use surety_types::Digest;

use crate::holders::{Blob, Garbage, Holder, endpoint, limits, request};

const PATIENCE: Duration = Duration::from_secs(20);

async fn ask(
    link: &surety_net::Link,
    request: &ToHolder,
) -> (Stream<ToHolder, FromHolder>, Result<Option<FromHolder>, ReceiveError>) {
    let mut stream: Stream<ToHolder, FromHolder> = link.open_stream().await.unwrap();
    stream.send(request).await.unwrap();
    let answer = stream.receive_within(PATIENCE).await;
    (stream, answer)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_not_there_is_refused_by_name() {
    let blob = Blob::new((2 << 20) + 5, 1);
    let holder = Holder::honest(2, &[&blob], HoldLimits::default()).await;
    let asker = endpoint(1).await;
    let link = asker.connect(&holder.address(), Protocol::Blobs).await.unwrap();
    let digest = blob.digest;
    let check = async |request: ToHolder, expected: FromHolder| {
        let (_, answer) = ask(&link, &request).await;
        assert_eq!(answer.unwrap(), Some(expected), "{request:?}");
    };
    let refused = FromHolder::Refused;
    check(ToHolder::Describe(digest), FromHolder::Held(blob.bytes())).await;
    check(ToHolder::Describe(Digest([9; 32])), refused(Refusal::Absent)).await;
    check(ToHolder::Values(Digest([9; 32])), refused(Refusal::Absent)).await;
    check(ToHolder::Piece { digest, index: 3 }, refused(Refusal::Impossible)).await;
    check(ToHolder::Piece { digest, index: u32::MAX }, refused(Refusal::Impossible)).await;
    let beacon = Digest([1; 32]);
    let absent = ToHolder::Audit { digest: Digest([9; 32]), beacon, count: 1 };
    check(absent, refused(Refusal::Absent)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn greed_and_garbage_cost_their_own_streams_only() {
    let blob = Blob::new(3 << 20, 2);
    let few = HoldLimits {
        streams_per_peer: 4,
        pieces: 2,
        patience: Duration::from_millis(300),
        stall: Duration::from_millis(200),
        request_timeout: Duration::from_secs(2),
        ..HoldLimits::default()
    };
    let holder = Holder::honest(2, &[&blob], few).await;
    let greedy = endpoint(1).await;
    let link = greedy.connect(&holder.address(), Protocol::Blobs).await.unwrap();

    // Pieces that are asked for and not taken fill this peer's places and the holder's.
    let mut untaken = Vec::new();
    for index in 0..3 {
        let mut stream: Stream<ToHolder, FromHolder> = link.open_stream().await.unwrap();
        stream.send(&ToHolder::Piece { digest: blob.digest, index }).await.unwrap();
        untaken.push(stream);
    }
    // A stream on which nothing is said is broken off.
    let mut silent: Stream<Garbage, FromHolder> = link.open_stream().await.unwrap();
    silent.send(&Garbage { number: 1 }).await.unwrap();
    let refused = silent.receive_within(PATIENCE).await;
    assert!(matches!(refused, Err(ReceiveError::Reset(_))), "{refused:?}");

    // Another peer is served meanwhile: who takes nothing gives way.
    let folder = tempfile::tempdir().unwrap();
    let puller = endpoint(3).await;
    let pulled =
        pull(&puller, request(folder.path(), &blob, &[&holder]), limits(), &mut |_| {}).await.unwrap();
    assert_eq!(pulled.bytes, blob.bytes());

    // And over its share, the greedy one is told so.
    let mut outcomes = Vec::new();
    for _ in 0..8 {
        let mut stream: Stream<ToHolder, FromHolder> = link.open_stream().await.unwrap();
        // The holder may refuse before the request has left.
        let _ = stream.send(&ToHolder::Describe(blob.digest)).await;
        untaken.push(stream);
    }
    for stream in untaken.iter_mut().skip(3) {
        outcomes.push(stream.receive_within(PATIENCE).await);
    }
    let answered = outcomes.iter().filter(|outcome| matches!(outcome, Ok(Some(FromHolder::Held(_))))).count();
    let busy = outcomes
        .iter()
        .filter(|outcome| matches!(outcome, Err(ReceiveError::Reset(CloseCode::Busy))))
        .count();
    assert_eq!(answered + busy, 8, "{outcomes:?}");
}
