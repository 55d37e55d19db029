//! One thing altered each time: it is noticed for what it is, and the next node answers.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use alloy_primitives::hex;
use axum::http::StatusCode;
use proptest::{prelude::*, test_runner::TestRunner};
use serde_json::{Value, json};
use surety_chain::{Execution, Read, StateKey};
use surety_client::ledger::{Fault, Ledger, LedgerBounds, LedgerError, Lie};

use crate::{
    liar::{Liar, Manner, altered, honest, replayed},
    node::{EPOCH_BLOCKS, Node, bounds, genesis, wallet},
};

/// A node, a liar before it, and what the liar said while it was honest.
struct Stage {
    node: Node,
    liar: Liar,
}

impl Stage {
    async fn new() -> Self {
        let node = Node::start().await;
        node.reach(2 * EPOCH_BLOCKS + 1).await;
        let liar = Liar::before(&node.url).await;
        Self { node, liar }
    }

    async fn ask(ledger: &Ledger) -> Result<u64, LedgerError> {
        Ok(ledger.account(wallet(1).address()).await?.tip.number)
    }

    /// The liar alone is caught with this fault; beside an honest node it does no harm.
    async fn check(&self, manner: Manner, bounds: LedgerBounds, expected: impl Fn(&Fault) -> bool) {
        self.liar.set(manner);
        let alone = self.node.bounded(&[&self.liar.url], bounds);
        let error = Self::ask(&alone).await.unwrap_err();
        let LedgerError::Nodes(faults) = &error else { panic!("{error:?}") };
        assert!(faults.len() == 1 && faults[0].node == self.liar.url, "{error}");
        assert!(expected(&faults[0].fault), "{error:?}");
        assert!(error.hint().is_some());

        let beside = self.node.bounded(&[&self.liar.url, &self.node.url], bounds);
        Self::ask(&beside).await.unwrap();
        self.liar.asked();
        Self::ask(&beside).await.unwrap();
        assert_eq!(self.liar.asked(), Vec::<String>::new(), "who failed is not asked for a while");
    }

    async fn alters(
        &self,
        alter: impl Fn(&str, &Value, &mut Value) + Send + Sync + 'static,
        lie: fn(&Lie) -> bool,
    ) {
        let caught = |fault: &Fault| matches!(fault, Fault::Lie(found) if lie(found));
        self.check(altered(alter), bounds(), caught).await;
    }
}

/// Flips one bit of bytes in hexadecimal.
fn flip(value: &mut Value, at: usize, bit: usize) {
    let mut bytes = hex::decode(value.as_str().unwrap()).unwrap();
    let at = at % bytes.len();
    bytes[at] ^= 1 << (bit % 8);
    *value = hex::encode_prefixed(bytes).into();
}

#[tokio::test(flavor = "multi_thread")]
async fn every_lie_is_caught_for_what_it_is() {
    let stage = Stage::new().await;
    // What it says now is old afterwards, and of another account.
    let ledger = stage.node.ledger(&[&stage.liar.url]);
    let old = ledger.account(wallet(2).address()).await.unwrap().tip.number;
    let record = stage.liar.record();
    stage.node.reach(old + 2).await;

    // Another value: the last byte of a proof of presence is part of its path, the first ones of the value.
    stage
        .alters(
            |method, _, answer| {
                if method == "surety_proof" {
                    flip(&mut answer["proofs"][0]["proof"], 12, 0);
                }
            },
            |lie| matches!(lie, Lie::Proof { .. }),
        )
        .await;
    // The proof of another key.
    let (_, other) = record.iter().find(|(place, _)| place.starts_with("surety_proof")).unwrap();
    let other = other["proofs"][0]["proof"].clone();
    stage
        .alters(
            move |method, _, answer| {
                if method == "surety_proof" {
                    answer["proofs"][0]["proof"] = other.clone();
                }
            },
            |lie| matches!(lie, Lie::Proof { .. }),
        )
        .await;
    // Two proofs of one block, each given for the other's key.
    stage.liar.set(altered(|method, _, answer| {
        if method == "surety_proof" {
            answer["proofs"].as_array_mut().unwrap().reverse();
        }
    }));
    let keys = [wallet(1), wallet(2)].map(|wallet| StateKey::account(&wallet.address()));
    let swapped = stage.node.ledger(&[&stage.liar.url]);
    let both = swapped.read(|state, _| {
        let unknown: Vec<StateKey> =
            keys.iter().copied().filter(|key| state.read(key) == Read::Unknown).collect();
        Ok(if unknown.is_empty() { Execution::Done(Box::new(())) } else { Execution::Needs(unknown) })
    });
    let LedgerError::Nodes(faults) = both.await.unwrap_err() else { panic!("they are swapped") };
    assert!(matches!(faults[0].fault, Fault::Lie(Lie::Proof { .. })), "{faults:?}");
    // The certificate of another block.
    let (_, other) = record.iter().find(|(place, _)| place.starts_with("surety_certificate")).unwrap();
    let certificate = other["certificate"].clone();
    stage
        .alters(
            move |method, _, answer| {
                if method == "surety_certificate" {
                    answer["certificate"] = certificate.clone();
                }
            },
            |lie| matches!(lie, Lie::OtherBlock(_)),
        )
        .await;
    // Another block with its own, sound certificate: an old one instead of that of the proof.
    let whole = other.clone();
    stage
        .alters(
            move |method, _, answer| {
                if method == "surety_certificate" {
                    *answer = whole.clone();
                }
            },
            |lie| matches!(lie, Lie::Headers(_)),
        )
        .await;
    // A header that is not the certified one.
    stage
        .alters(
            |method, _, answer| {
                if method == "surety_proof" {
                    let length = answer["header"].as_str().unwrap().len();
                    flip(&mut answer["header"], length / 4, 0);
                }
            },
            |lie| matches!(lie, Lie::OtherBlock(_)),
        )
        .await;
    // A signature that is none: the certificate's last bytes.
    stage
        .alters(
            |method, _, answer| {
                if method == "surety_certificate" {
                    let bytes = answer["certificate"].as_str().unwrap().len() / 2 - 1;
                    flip(&mut answer["certificate"], bytes - 40, 0);
                }
            },
            |lie| matches!(lie, Lie::Certificate { .. }),
        )
        .await;
    // Another set of validators in an epoch's record, and the record of another epoch.
    stage
        .alters(
            |method, _, answer| {
                if method == "surety_epoch" {
                    let bytes = answer["header"].as_str().unwrap().len() / 2 - 1;
                    flip(&mut answer["header"], bytes - 1, 0);
                }
            },
            |lie| matches!(lie, Lie::Epoch { epoch: 1, .. }),
        )
        .await;
    let first: Mutex<Option<Value>> = Mutex::default();
    stage
        .alters(
            move |method, params, answer| {
                if method == "surety_epoch" {
                    let first = first.lock().unwrap().get_or_insert_with(|| answer.clone()).clone();
                    if params[0] == "0x2" {
                        *answer = first;
                    }
                }
            },
            |lie| matches!(lie, Lie::Epoch { epoch: 2, .. }),
        )
        .await;
    stage.node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_else_fails_is_caught_for_what_it_is() {
    let stage = Stage::new().await;
    let bounds = bounds();
    let short = LedgerBounds { answer_bytes_max: 100_000, ..bounds };
    stage.check(Manner::Longer(100_000), short, |fault| matches!(fault, Fault::TooLong(100_000))).await;
    stage.check(Manner::Half, bounds, |fault| matches!(fault, Fault::Garbage { .. })).await;
    stage.check(Manner::Words("\"\u{1b}[2J\""), bounds, |fault| matches!(fault, Fault::Garbage { .. })).await;
    stage.check(Manner::Words("{\"id\":0}"), bounds, |fault| matches!(fault, Fault::Garbage { .. })).await;
    let status = StatusCode::BAD_GATEWAY;
    stage.check(Manner::Status(status), bounds, |fault| matches!(fault, Fault::Status(_))).await;
    stage
        .check(replayed(&Arc::default(), |_, _, _| {}), bounds, |fault| {
            matches!(fault, Fault::Refused { code: -32601, .. })
        })
        .await;
    let missing = altered(|method, _, answer| {
        if method == "surety_proof" {
            answer["proofs"] = json!([]);
        }
    });
    stage.check(missing, bounds, |fault| matches!(fault, Fault::Garbage { .. })).await;
    // Both this node and the honest one beside it must answer within the limit, so it is not too short.
    let hasty = LedgerBounds { request_timeout: Duration::from_secs(3), ..bounds };
    stage.check(Manner::After(Duration::from_secs(20)), hasty, |fault| matches!(fault, Fault::Slow(_))).await;

    // Nobody there.
    let nobody = stage.node.ledger(&["http://127.0.0.1:1"]);
    let LedgerError::Nodes(faults) = Stage::ask(&nobody).await.unwrap_err() else {
        panic!("nobody is there")
    };
    assert!(matches!(faults[0].fault, Fault::Unreachable(_)));
    stage.node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_chain_of_another_genesis_is_not_taken_for_a_lie() {
    let mut node = Node::start().await;
    node.reach(1).await;
    node.genesis = genesis(10);
    let ledger = node.ledger(&[&node.url]);
    let LedgerError::Nodes(faults) = Stage::ask(&ledger).await.unwrap_err() else { panic!("another chain") };
    assert!(matches!(faults[0].fault, Fault::OtherChain { .. }), "{faults:?}");
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn old_answers_are_not_taken_for_new_ones() {
    let stage = Stage::new().await;
    let through = stage.node.ledger(&[&stage.liar.url]);
    let old = Stage::ask(&through).await.unwrap();
    let record = stage.liar.record();
    stage.node.reach(old + 5).await;

    // To whom has seen nothing newer it is the ledger; only its age tells.
    stage.liar.set(replayed(&record, |_, _, _| {}));
    let newcomer = stage.node.ledger(&[&stage.liar.url]);
    assert_eq!(Stage::ask(&newcomer).await.unwrap(), old);
    tokio::time::sleep(Duration::from_millis(1_100)).await;
    let strict = LedgerBounds { age_max: Some(Duration::from_secs(1)), ..bounds() };
    let strict = stage.node.bounded(&[&stage.liar.url], strict);
    let LedgerError::Nodes(faults) = Stage::ask(&strict).await.unwrap_err() else { panic!("it is old") };
    assert!(matches!(faults[0].fault, Fault::Stale { age_s: 1.. }), "{faults:?}");

    // Whoever has seen something newer stays with that.
    stage.liar.set(honest());
    let seen = Stage::ask(&through).await.unwrap();
    assert!(seen > old);
    stage.liar.set(replayed(&record, |_, _, _| {}));
    let LedgerError::Nodes(faults) = Stage::ask(&through).await.unwrap_err() else { panic!("it is behind") };
    assert!(
        matches!(faults[0].fault, Fault::Behind { number, seen: newest } if number == old && newest == seen)
    );
    stage.node.stop().await;
}

/// Any bit of any answer that is checked.
#[test]
fn no_flipped_bit_is_overlooked() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let stage = runtime.block_on(async {
        let stage = Stage::new().await;
        let ledger = stage.node.ledger(&[&stage.liar.url]);
        Stage::ask(&ledger).await.unwrap();
        stage
    });
    // What is asked is the same each time, because nothing was seen before.
    let record = stage.liar.record();
    let places: Vec<(String, &'static str)> = record
        .keys()
        .flat_map(|place| {
            let fields: &[&str] = match place.split(' ').next().unwrap() {
                "surety_proof" => &["/header", "/proofs/0/proof"],
                "surety_certificate" => &["/headers/0", "/certificate"],
                "surety_epoch" => &["/header", "/certificate"],
                other => panic!("nobody asked for {other}"),
            };
            fields.iter().map(|field| (place.clone(), *field))
        })
        .collect();
    assert!(places.len() >= 8, "{places:?}");
    let mut runner = TestRunner::new(ProptestConfig { cases: 256, ..ProptestConfig::default() });
    let flips = (0..places.len(), any::<usize>(), 0..8usize);
    let result = runner.run(&flips, |(which, at, bit)| {
        let (place, field) = places[which].clone();
        stage.liar.set(replayed(&record, move |method, params, answer| {
            if format!("{method} {params}") == place {
                flip(answer.pointer_mut(field).unwrap(), at, bit);
            }
        }));
        let ledger = stage.node.ledger(&[&stage.liar.url]);
        let error = runtime.block_on(Stage::ask(&ledger));
        prop_assert!(
            matches!(&error, Err(LedgerError::Nodes(_))),
            "{:?} byte {at} bit {bit}: {error:?}",
            places[which]
        );
        Ok(())
    });
    runtime.block_on(stage.node.stop());
    result.unwrap();
}
