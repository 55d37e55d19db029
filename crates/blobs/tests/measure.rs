//! Measurements, run by hand and one at a time:
//! `cargo test --release -p surety-blobs --test measure -- --ignored --nocapture --test-threads 1`

#[path = "transfer/holders.rs"]
#[allow(dead_code, reason = "the liars are for other tests")]
mod holders;

use std::time::{Duration, Instant};

use holders::{Blob, Deed, Folder, Holder, endpoint, request};
use surety_blobs::{Challenge, Event, Fault, HoldLimits, PullLimits, View, audit, challenges_needed, pull};
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

/// Three providers of 8 MB/s each: one corrupts, one is killed when a third has come. What the honest ones could have sent
/// at their rates, while they were there, is the sum that is held against the pull.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement"]
async fn one_killed_and_one_corrupting_cost_only_what_they_had() {
    const RATE: u64 = 8_000_000;
    let blob = Blob::new(128 << 20, 4);
    for number in 1..=3 {
        let staying = Holder::slow(2, &blob, RATE).await;
        let dying = Holder::slow(3, &blob, RATE).await;
        let corrupting = Holder::liar(4, &blob, Deed::Corrupts(5)).await;
        let (puller, folder) = (endpoint(1).await, tempfile::tempdir().unwrap());
        let asked = request(folder.path(), &blob, &[&staying, &dying, &corrupting]);
        let third = tokio::sync::Notify::new();
        let mut report = |event| {
            if matches!(event, Event::Progress(progress) if progress.done >= blob.bytes() / 3) {
                third.notify_one();
            }
        };
        let began = Instant::now();
        let (pulled, both) = tokio::join!(pull(&puller, asked, PullLimits::default(), &mut report), async {
            third.notified().await;
            let both = began.elapsed().as_secs_f64();
            dying.vanish().await;
            both
        });
        let (pulled, seconds) = (pulled.unwrap(), began.elapsed().as_secs_f64());
        assert!(std::fs::read(folder.path().join("files/model")).unwrap() == *blob.data, "the file's bytes");
        let lied = pulled.holders.iter().filter(|part| part.fault.as_ref().is_some_and(Fault::is_a_lie));
        // What the liar gave rightly before it was caught is nobody's merit here.
        let from_liar = pulled.holders[2].bytes;
        let could = RATE as f64 * (both + seconds);
        let share = (blob.bytes() - from_liar) as f64 / could;
        println!(
            "run {number}: {seconds:.1} s, {:.0} % of what the honest ones could send, {} caught lying",
            100.0 * share,
            lied.count()
        );
        assert!(share >= 0.8, "{share}");
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
