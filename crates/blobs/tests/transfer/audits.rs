//! Storage audits over sockets.

use std::{
    fs::{self, File},
    time::Duration,
};

use surety_blobs::{
    AuditReport, Challenge, HoldLimits, audit,
    audit::{Miss, MissReason},
    audit_at, challenges_needed,
    tree::{CHUNK_BYTES, PIECE_BYTES},
};
use surety_net::Protocol;
use surety_types::Digest;

use crate::holders::{AUDITED, Blob, Deed, Holder, endpoint};

const PATIENCE: Duration = Duration::from_secs(30);

async fn audited(holder: &Holder, blob: &Blob, beacon: u8, count: u32) -> (Challenge, AuditReport) {
    let auditor = endpoint(1).await;
    let link = auditor.connect(&holder.address(), Protocol::Blobs).await.unwrap();
    let challenge = Challenge {
        digest: blob.digest,
        shape: blob.tree.shape(),
        beacon: Digest([beacon; 32]),
        holder: holder.endpoint.key(),
        count,
    };
    let report = audit(&link, &challenge, PATIENCE).await;
    assert_eq!(report.drawn as usize, challenge.chunks().len());
    assert_eq!(report.proven as usize + report.misses.len(), report.drawn as usize);
    (challenge, report)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_holds_all_of_it_passes_and_who_lost_a_piece_misses_just_that() {
    let blob = Blob::new((6 << 20) + 333, 1);
    let holder = Holder::honest(2, &[&blob], HoldLimits::default()).await;
    let (_, report) = audited(&holder, &blob, 1, 200).await;
    assert!(report.passed(), "{:?}", report.misses);
    assert!(report.bytes > 200 * CHUNK_BYTES, "{}", report.bytes);

    // Zeros where piece 2 was, without a trace in the file's size or time.
    let path = holder.folder.path().join(blob.digest.to_string());
    let modified = fs::metadata(&path).unwrap().modified().unwrap();
    let mut bytes = blob.data.to_vec();
    bytes[2 << 20..3 << 20].fill(0);
    fs::write(&path, bytes).unwrap();
    File::options().write(true).open(&path).unwrap().set_modified(modified).unwrap();
    let (challenge, report) = audited(&holder, &blob, 2, 200).await;
    let lost = challenge.chunks().into_iter().filter(|chunk| chunk * CHUNK_BYTES / PIECE_BYTES == 2);
    let expected: Vec<Miss> = lost.map(|chunk| Miss { chunk, why: MissReason::Missing }).collect();
    assert!(!expected.is_empty());
    assert_eq!(report.misses, expected);

    fs::remove_file(&path).unwrap();
    let (_, report) = audited(&holder, &blob, 3, 5).await;
    assert_eq!(report.proven, 0);
    assert!(report.misses.iter().all(|miss| miss.why == MissReason::Refused), "{:?}", report.misses);
}

/// A cheat that kept the whole tree and dropped one chunk in a hundred.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_percent_dropped_is_caught_within_the_stated_number() {
    let blob = Blob::new(8 << 20, 2);
    let cheat = Holder::liar(AUDITED, &blob, Deed::Dropped(100)).await;
    let count = challenges_needed(0.01, 0.99) as u32;
    let (challenge, report) = audited(&cheat, &blob, 4, count).await;
    let dropped = challenge.chunks().into_iter().filter(|chunk| chunk % 100 == 0);
    let expected: Vec<Miss> = dropped.map(|chunk| Miss { chunk, why: MissReason::Wrong }).collect();
    assert!(!expected.is_empty(), "this beacon draws one");
    assert_eq!(report.misses, expected);
    assert!(!report.passed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_audit_of_another_key_proves_nothing() {
    let blob = Blob::new(5000, 3);
    let holder = Holder::honest(2, &[&blob], HoldLimits::default()).await;
    let auditor = endpoint(1).await;
    let link = auditor.connect(&holder.address(), Protocol::Blobs).await.unwrap();
    let (shape, beacon) = (blob.tree.shape(), Digest([1; 32]));
    let challenge = Challenge { digest: blob.digest, shape, beacon, holder: auditor.key(), count: 3 };
    let report = audit(&link, &challenge, PATIENCE).await;
    assert_eq!((report.proven, report.misses.len()), (0, 3));
}

/// Whoever is not there is silent, whoever stays busy is busy, and neither takes longer than it may.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_absent_holder_is_silent_and_a_busy_one_is_asked_again() {
    let blob = Blob::new(50_000, 4);
    let auditor = endpoint(1).await;
    let challenge = |holder: &Holder| Challenge {
        digest: blob.digest,
        shape: blob.tree.shape(),
        beacon: Digest([1; 32]),
        holder: holder.endpoint.key(),
        count: 9,
    };
    let short = Duration::from_millis(1500);
    let holder = Holder::honest(2, &[&blob], HoldLimits::default()).await;
    let (address, asked) = (holder.address(), challenge(&holder));
    assert!(audit_at(&auditor, &address, &asked, PATIENCE).await.passed());
    holder.vanish().await;
    let report = audit_at(&auditor, &address, &asked, short).await;
    assert_eq!((report.proven, report.drawn, report.misses.len()), (0, 9, 9));
    assert!(report.misses.iter().all(|miss| miss.why == MissReason::Silence), "{:?}", report.misses);

    let never = HoldLimits { audits: 0, patience: Duration::from_millis(1), ..HoldLimits::default() };
    let busy = Holder::honest(3, &[&blob], never).await;
    let report = audit_at(&auditor, &busy.address(), &challenge(&busy), short).await;
    assert!(report.misses.iter().all(|miss| miss.why == MissReason::Busy), "{:?}", report.misses);
    assert!(report.elapsed_ms >= 500, "it was asked more than once: {} ms", report.elapsed_ms);
}
