//! Reading parts of files in order from several holders, honest or not.

use std::{ops::Range, sync::Arc, time::Duration};

use proptest::strategy::{Strategy as _, ValueTree as _};
use surety_blobs::{Fault, HoldLimits, ReadLimits, ReadRequest, Reader, Unavailable, read, tree::Tree};
use surety_net::Endpoint;

use crate::holders::{Blob, Deed, Holder, endpoint};

const MIB: usize = 1 << 20;

fn limits() -> ReadLimits {
    ReadLimits {
        hedge: Duration::from_millis(300),
        rounds: 2,
        backoff: Duration::from_millis(20),
        ..ReadLimits::default()
    }
}

fn request(blob: &Blob, range: Range<u64>, holders: &[&Holder], tree: Option<Arc<Tree>>) -> ReadRequest {
    let holders = holders.iter().map(|holder| holder.address()).collect();
    ReadRequest { digest: blob.digest, bytes: blob.bytes(), range, holders, tree }
}

async fn rest(mut reader: Reader) -> Result<Vec<u8>, Unavailable> {
    let mut bytes = Vec::new();
    while let Some(piece) = reader.next().await? {
        assert!((1..=MIB).contains(&piece.len()));
        bytes.extend(piece);
    }
    assert!(reader.next().await?.is_none(), "the end stays the end");
    Ok(bytes)
}

async fn all(from: &Endpoint, blob: &Blob, holders: &[&Holder]) -> Result<Vec<u8>, Unavailable> {
    rest(read(from, request(blob, 0..blob.bytes(), holders, None), limits()).await?).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_range_is_the_files() {
    let reader = endpoint(1).await;
    let blob = Blob::new(5 * MIB + 4321, 1);
    let holder = Holder::honest(2, &[&blob], HoldLimits::default()).await;
    let tree = read(&reader, request(&blob, 0..1, &[&holder], None), limits()).await.unwrap().tree().clone();
    assert_eq!(*tree, blob.tree);
    let (mib, end) = (MIB as u64, blob.bytes());
    let mut ranges = vec![
        0..1,
        0..end,
        end - 1..end,
        mib - 1..mib,
        mib - 1..mib + 1,
        mib..2 * mib,
        7..5 * mib,
        5 * mib..end,
        4 * mib + 5..5 * mib + 1,
    ];
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    for _ in 0..20 {
        let (a, b) = (0..end, 0..end).new_tree(&mut runner).unwrap().current();
        ranges.push(a.min(b)..a.max(b) + 1);
    }
    for range in ranges {
        let request = request(&blob, range.clone(), &[&holder], Some(tree.clone()));
        let bytes = rest(read(&reader, request, limits()).await.unwrap()).await.unwrap();
        assert!(bytes == blob.data[range.start as usize..range.end as usize], "{range:?}");
    }
    for bytes in [1, 1023, MIB - 1, MIB, MIB + 1] {
        let blob = Blob::new(bytes, 2);
        let holder = Holder::honest(3, &[&blob], HoldLimits::default()).await;
        assert!(all(&reader, &blob, &[&holder]).await.unwrap() == *blob.data, "{bytes}");
    }
}

/// Alone, each of them gives nothing that is wrong, and is named.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_lie_is_named_and_no_wrong_byte_is_handed_on() {
    let reader = endpoint(1).await;
    let blob = Blob::new(4 * MIB, 2);
    let last = blob.pieces() - 1;
    let short = Fault::WrongSize { told: blob.bytes() - 1, proven: blob.bytes() };
    let half = Fault::WrongSize { told: blob.bytes() / 2, proven: blob.bytes() };
    type Expected<'a> = &'a dyn Fn(&Fault) -> bool;
    let cases: [(Deed, Expected<'_>); 9] = [
        (Deed::Corrupts(last), &|fault| *fault == Fault::WrongBytes(last)),
        (Deed::Corrupts(1), &|fault| *fault == Fault::WrongBytes(1)),
        (Deed::HasNothing, &|fault| *fault == Fault::Absent),
        (Deed::TellsAnotherSize, &|fault| *fault == short),
        (Deed::TellsTooMuch, &|fault| matches!(fault, Fault::Nonsense(_))),
        (Deed::SendsAnotherTree, &|fault| *fault == Fault::WrongTree),
        (Deed::SendsInnerValues, &|fault| *fault == half),
        (Deed::BreaksOff, &|fault| *fault == Fault::Truncated),
        (Deed::SendsGarbage, &|fault| matches!(fault, Fault::Nonsense(_))),
    ];
    for (number, (deed, expected)) in cases.into_iter().enumerate() {
        let liar = Holder::liar(10 + number as u8, &blob, deed).await;
        let error = all(&reader, &blob, &[&liar]).await.unwrap_err();
        let [(holder, fault)] = &error.faults[..] else { panic!("{deed:?}: {error}") };
        assert_eq!(*holder, liar.address());
        assert!(expected(fault), "{deed:?}: {fault}");
    }
    let error = all(&reader, &blob, &[]).await.unwrap_err();
    assert!(error.faults.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_honest_holder_is_enough() {
    let reader = endpoint(1).await;
    let blob = Blob::new(9 * MIB + 77, 4);
    let corrupting = Holder::liar(3, &blob, Deed::Corrupts(3)).await;
    let stalling = Holder::liar(4, &blob, Deed::Stalls).await;
    let empty = Holder::liar(5, &blob, Deed::HasNothing).await;
    let garbled = Holder::liar(6, &blob, Deed::SendsGarbage).await;
    let gone = Holder::honest(7, &[&blob], HoldLimits::default()).await;
    let gone_address = gone.address();
    gone.vanish().await;
    let honest = Holder::honest(2, &[&blob], HoldLimits::default()).await;
    let mut asked =
        request(&blob, 3..blob.bytes(), &[&stalling, &corrupting, &empty, &garbled, &honest], None);
    asked.holders.insert(0, gone_address);
    let bytes = rest(read(&reader, asked, limits()).await.unwrap()).await.unwrap();
    assert!(bytes == blob.data[3..]);
}

/// A holder that leaves in the middle is made good for by another, and without another the reader is told.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_leaves_is_replaced() {
    let from = endpoint(1).await;
    let blob = Blob::new(12 * MIB, 5);
    let first = Holder::slow(2, &blob, 8 << 20).await;
    let second = Holder::slow(3, &blob, 8 << 20).await;
    let both = request(&blob, 0..blob.bytes(), &[&first, &second], None);
    let mut reader = read(&from, both, limits()).await.unwrap();
    let mut bytes = reader.next().await.unwrap().unwrap();
    first.vanish().await;
    bytes.extend(rest(reader).await.unwrap());
    assert!(bytes == *blob.data);

    let alone = request(&blob, 0..blob.bytes(), &[&second], None);
    let mut reader = read(&from, alone, limits()).await.unwrap();
    reader.next().await.unwrap().unwrap();
    second.vanish().await;
    let error = rest(reader).await.unwrap_err();
    assert!(matches!(error.faults[0].1, Fault::Unreachable(_) | Fault::Silence(_)), "{error}");
}
