//! Measurements, run by hand and one at a time:
//! `cargo test --release -p surety-blobs --test measure -- --ignored --nocapture --test-threads 1`

#[path = "transfer/holders.rs"]
#[allow(dead_code, reason = "the liars are for other tests")]
mod holders;

use std::time::{Duration, Instant};

use holders::{Blob, Folder, Holder, endpoint, request};
use surety_blobs::{Challenge, HoldLimits, PullLimits, View, audit, challenges_needed, pull};
use surety_net::Protocol;
use surety_types::Digest;

async fn pulled(blob: &Blob, holders: &[&Holder]) -> f64 {
    let puller = endpoint(1).await;
    let folder = tempfile::tempdir().unwrap();
    let began = Instant::now();
    let asked = request(folder.path(), blob, holders);
    let pulled = pull(&puller, asked, PullLimits::default(), &mut |_| {}).await.unwrap();
    let seconds = began.elapsed().as_secs_f64();
    for part in &pulled.holders {
        println!("  {:>6.1} MB from {}", part.bytes as f64 / 1e6, part.holder.key.short());
    }
    blob.bytes() as f64 / 1e6 / seconds
}

/// Three holders whose links are throttled to 4, 8 and 12 MB/s: the sum is 24.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement"]
async fn throttled_links_add_up() {
    let blob = Blob::new(192 << 20, 1);
    let rates = [4_000_000, 8_000_000, 12_000_000];
    let mut throttled = Vec::new();
    for (seed, rate) in (2..).zip(rates) {
        throttled.push(Holder::slow(seed, &blob, rate).await);
    }
    let all: Vec<&Holder> = throttled.iter().collect();
    for number in 1..=3 {
        let (rate, sum) = (pulled(&blob, &all).await, rates.iter().sum::<u64>() as f64 / 1e6);
        println!("run {number}: {rate:.1} MB/s of {sum:.0}: {:.0} %", 100.0 * rate / sum);
        assert!(rate >= 0.8 * sum);
    }
}

/// One holder and three, without a limit: both ends on this machine, so that each byte is paid for twice.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "a measurement"]
async fn unthrottled_links() {
    let blob = Blob::new(1 << 30, 2);
    let mut all = Vec::new();
    for seed in 2..5 {
        all.push(Holder::honest(seed, &[&blob], HoldLimits::default()).await);
    }
    println!("one holder: {:.0} MB/s", pulled(&blob, &[&all[0]]).await);
    println!("three holders: {:.0} MB/s", pulled(&blob, &all.iter().collect::<Vec<_>>()).await);
}

/// What one audit costs both sides.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement"]
async fn an_audits_cost() {
    let blob = Blob::new(2 << 30, 3);
    let holder = Holder::honest(2, &[&blob], HoldLimits::default()).await;
    let auditor = endpoint(1).await;
    let link = auditor.connect(&holder.address(), Protocol::Blobs).await.unwrap();
    let view = View::new(Folder(holder.folder.path().to_owned()), holder.folder.path().join("trees"));
    let began = Instant::now();
    view.tree(blob.digest, &mut |_, _| {}).unwrap();
    println!("the tree of {} MiB, once: {:.2} s", blob.bytes() >> 20, began.elapsed().as_secs_f64());
    for (fraction, probability) in [(0.1, 0.99), (0.01, 0.95), (0.01, 0.99)] {
        let count = challenges_needed(fraction, probability) as u32;
        for beacon in 1..=2 {
            let challenge = Challenge {
                digest: blob.digest,
                shape: blob.tree.shape(),
                beacon: Digest([beacon; 32]),
                holder: holder.endpoint.key(),
                count,
            };
            let report = audit(&link, &challenge, Duration::from_secs(60)).await;
            assert!(report.passed());
            println!(
                "{:.0} % dropped, caught with {:.0} %: {count} challenges, {} bytes, {} ms",
                100.0 * fraction,
                100.0 * probability,
                report.bytes,
                report.elapsed_ms
            );
        }
    }
}
