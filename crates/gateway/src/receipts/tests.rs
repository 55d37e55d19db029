use surety_types::{
    Amount, Answer, Canonical, Digest, Envelope, FinishReason, ModelId, Order, Outcome, Price, Prompt,
    Receipt, Request, Sampling, SecretKey, Seed, Signed, Text, order::ORDER_VERSION,
    receipt::RECEIPT_VERSION,
};

use super::*;
use crate::disk::tests::FullDisk;

const FILE: &str = "receipts.redb";

const ROOMY: Bounds = Bounds { count_max: 1000, bytes_max: 1 << 30 };

fn id(number: u128) -> RequestId {
    RequestId::parse(&format!("req_{number:032x}")).expect("an id")
}

/// Evidence whose parts can be read; nobody here asks whether they agree.
fn evidence(id: RequestId, text: &str) -> Evidence {
    let key = SecretKey::from_bytes(&[7; 32]);
    let request = Request {
        prompt: Prompt::Text(text.to_owned()),
        stop: vec![],
        logprobs: None,
        prompt_logprobs: None,
        embedding: None,
        date: None,
        grammar: None,
    };
    let order = Order {
        version: ORDER_VERSION,
        model: ModelId::default(),
        request_digest: request.digest(),
        nonce: [1; 32],
        seed: Seed::Nonce,
        choice: 0,
        sampling: Sampling::default(),
        max_output_tokens: 1,
        ignore_end: false,
        deadline_ms: 2,
        price_ceiling: Price::ZERO,
        channel: None,
        payer: key.public(),
        issued_ms: 1,
        resumed: None,
        disclosure: None,
    };
    let receipt = Receipt {
        version: RECEIPT_VERSION,
        outcome: Outcome::Completed,
        order: order.digest(),
        model: order.model,
        arithmetic: 0,
        prompt_tokens: 1,
        cached_tokens: 0,
        output_tokens: 1,
        prompt_digest: Digest::ZERO,
        output_digest: Digest::ZERO,
        text_digest: Digest::ZERO,
        finish: FinishReason::Stop,
        seed: order.seed_bytes(),
        state_commitment: Digest::ZERO,
        price: Price::ZERO,
        charge: Amount::ZERO,
        accepted_ms: 1,
        first_token_ms: Some(1),
        done_ms: 1,
        software: Text::clipped("test"),
        worker: key.public(),
    };
    let envelope = Envelope {
        request_id: id.to_string(),
        gateway: key.public(),
        model_name: "m".to_owned(),
        parts: vec![],
        received_ms: 1,
        first_byte_ms: 1,
        done_ms: 1,
        charge: Amount::ZERO,
    };
    let answer = Answer {
        order: Signed::sign(order, &key).bytes().to_vec(),
        request: request.to_cbor(),
        acceptance: None,
        receipt: Some(Signed::sign(receipt, &key).bytes().to_vec()),
        progress: None,
        salt: [0; 32],
        output_ids: vec![1],
        resumed_ids: Vec::new(),
        channel: None,
        text: text.to_owned(),
        prompt_ids: None,
        embedding: None,
    };
    let envelope = Signed::sign(envelope, &key).bytes().to_vec();
    Evidence { request_id: id.to_string(), envelope, answers: vec![answer] }
}

fn found(receipts: &Receipts, number: u128) -> Option<Evidence> {
    let json = receipts.find(id(number)).expect("readable")?;
    Some(Evidence::parse(&json).expect("evidence"))
}

#[tokio::test]
async fn what_was_kept_is_found_also_after_a_restart() {
    let directory = tempfile::tempdir().expect("a directory");
    let (receipts, writer) = Receipts::open(directory.path(), ROOMY).expect("a new store");
    receipts.keep(id(1), evidence(id(1), "a")).await.expect("kept");
    assert_eq!(found(&receipts, 1), Some(evidence(id(1), "a")));
    assert_eq!(found(&receipts, 2), None);
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        let mode = std::fs::metadata(directory.path().join(FILE)).expect("a file").permissions().mode();
        assert_eq!(mode & 0o077, 0, "prompts are nobody else's business");
    }
    drop(receipts);
    writer.join();
    let (receipts, _writer) = Receipts::open(directory.path(), ROOMY).expect("the same store");
    assert_eq!(found(&receipts, 1), Some(evidence(id(1), "a")));
}

#[tokio::test]
async fn many_at_once_are_all_kept() {
    let directory = tempfile::tempdir().expect("a directory");
    let (receipts, _writer) = Receipts::open(directory.path(), ROOMY).expect("a new store");
    let kept = (0..300).map(|number| receipts.keep(id(number), evidence(id(number), "x")));
    for kept in futures::future::join_all(kept).await {
        kept.expect("kept");
    }
    assert!((0..300).all(|number| found(&receipts, number).is_some()));
}

#[tokio::test]
async fn the_oldest_go_by_count_and_by_bytes() {
    let directory = tempfile::tempdir().expect("a directory");
    let bounds = Bounds { count_max: 3, ..ROOMY };
    let (receipts, writer) = Receipts::open(directory.path(), bounds).expect("a new store");
    for number in 0..5 {
        receipts.keep(id(number), evidence(id(number), "x")).await.expect("kept");
    }
    let there: Vec<bool> = (0..5).map(|number| found(&receipts, number).is_some()).collect();
    assert_eq!(there, [false, false, true, true, true]);
    drop(receipts);
    writer.join();

    // Bounds may shrink between two runs.
    let bytes = evidence(id(9), "x").to_json().expect("JSON").len() as u64;
    let bounds = Bounds { bytes_max: bytes * 2 + bytes / 2, ..ROOMY };
    let (receipts, _writer) = Receipts::open(directory.path(), bounds).expect("the same store");
    receipts.keep(id(9), evidence(id(9), "x")).await.expect("kept");
    let there: Vec<bool> =
        [2, 3, 4, 9].into_iter().map(|number| found(&receipts, number).is_some()).collect();
    assert_eq!(there, [false, false, true, true]);

    let long = evidence(id(10), &"y".repeat(20_000));
    let error = receipts.keep(id(10), long).await.expect_err("alone too large");
    assert!(matches!(error, KeepError::TooLarge { .. }), "{error}");
    assert!(found(&receipts, 9).is_some(), "nothing else went for it");
}

#[tokio::test]
async fn two_gateways_cannot_share_a_directory() {
    let directory = tempfile::tempdir().expect("a directory");
    let (_receipts, _writer) = Receipts::open(directory.path(), ROOMY).expect("a new store");
    let error = Receipts::open(directory.path(), ROOMY).expect_err("in use");
    assert!(matches!(error, OpenStoreError::InUse { .. }), "{error}");
}

#[test]
fn a_damaged_file_is_named() {
    let directory = tempfile::tempdir().expect("a directory");
    std::fs::write(directory.path().join(FILE), b"not a database, but long enough to look at")
        .expect("written");
    let error = Receipts::open(directory.path(), ROOMY).expect_err("damaged");
    assert!(matches!(error, OpenStoreError::File { .. }), "{error}");
    assert!(error.to_string().contains(FILE));
}

#[tokio::test]
async fn what_is_kept_again_is_kept_once() {
    let directory = tempfile::tempdir().expect("a directory");
    let bounds = Bounds { count_max: 2, ..ROOMY };
    let (receipts, _writer) = Receipts::open(directory.path(), bounds).expect("a new store");
    for (number, text) in [(1, "a"), (1, "b"), (2, "c")] {
        receipts.keep(id(number), evidence(id(number), text)).await.expect("kept");
    }
    assert_eq!(found(&receipts, 1), Some(evidence(id(1), "b")));
    assert_eq!(found(&receipts, 2), Some(evidence(id(2), "c")));
}

#[tokio::test]
async fn a_full_disk_fails_what_it_meets_and_nothing_else() {
    let directory = tempfile::tempdir().expect("a directory");
    let (disk, _writer, full) = FullDisk::holding(directory.path(), Kept(ROOMY));
    let receipts = Receipts(disk);
    receipts.keep(id(1), evidence(id(1), "a")).await.expect("there is room");
    full.set(true);
    for number in [2, 3] {
        let error = receipts.keep(id(number), evidence(id(number), "b")).await.expect_err("full");
        assert!(error.to_string().starts_with("receipt not stored: "), "{error}");
    }
    full.set(false);
    // The first after a failure may find the file closed, and opens it again.
    let _ = receipts.keep(id(4), evidence(id(4), "d")).await;
    receipts.keep(id(5), evidence(id(5), "e")).await.expect("there is room again");
    assert!(found(&receipts, 1).is_some() && found(&receipts, 5).is_some());
    assert!(found(&receipts, 2).is_none() && found(&receipts, 3).is_none());
}
