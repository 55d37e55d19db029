//! Row 8: of a thousand seeds the worker takes the one whose answer it likes.

use surety_engine::sampler;
use surety_proof::Fault;
use surety_types::{OpenError, Order, Seed, Signed};

use crate::engine::{Engine, Honest};
use crate::liar::compute;
use crate::{CASE, Refused};

const SEEDS: i64 = 1_000;

#[test]
fn a_seed_of_the_workers_choice_is_refused() {
    let case = &*CASE;
    let engine = Engine::of(&case.file);
    let logits = engine.logits(&engine.sequence(&Honest).push_all(&case.honest.prompt));
    let position = case.honest.prompt.len() as u64;
    let with = |seed| Order { seed: Seed::Caller(seed), ..case.order.clone() };
    let first = |seed: i64| {
        let seed = with(seed).seed_bytes();
        sampler::sample(&case.liar.executor, &logits, &case.order.sampling, &seed, position, &mut Vec::new())
    };
    // It wants the word that it would be given most rarely.
    let firsts: Vec<u32> = (0..SEEDS).map(first).collect();
    let count = |token: u32| firsts.iter().filter(|other| **other == token).count();
    let ground = (0..SEEDS).min_by_key(|seed| count(firsts[*seed as usize])).unwrap();
    assert!(count(firsts[ground as usize]) < 10);
    assert_ne!(firsts[ground as usize], case.honest.tokens[0]);
    let claim = compute(&case.liar.model, &case.request, &with(ground));
    assert_eq!(claim.tokens[0], firsts[ground as usize]);

    // It admits the seed; it does not.
    let admitted = case.sign(&claim, |_, receipt| receipt.seed = with(ground).seed_bytes());
    let refused = case.judge(&admitted);
    assert!(matches!(refused, Err(Refused::Check(Fault::OtherSeed))), "{refused:?}");
    assert_eq!(case.refused_at_a_token(&claim), 0);
}

/// Where the caller names no seed it is the payer's nonce, which is under the payer's signature.
#[test]
fn the_nonce_is_not_the_workers_to_choose() {
    let case = &*CASE;
    let own = Order { seed: Seed::Nonce, nonce: [77; 32], ..case.order.clone() };
    let claim = compute(&case.liar.model, &case.request, &own);
    let mut answer = case.sign(&claim, |acceptance, receipt| {
        acceptance.order = own.digest();
        receipt.order = own.digest();
        receipt.seed = own.seed_bytes();
    });
    // Signed by the only key it has.
    answer.order = Signed::sign(Order { payer: case.liar.worker.public(), ..own.clone() }, &case.liar.worker)
        .bytes()
        .to_vec();
    let refused = case.judge(&answer);
    assert!(matches!(refused, Err(Refused::Check(Fault::OtherPayer { .. }))), "{refused:?}");
    // The payer's name over its own signature.
    let mut forged = Signed::sign(own, &case.liar.payer).bytes().to_vec();
    let last = forged.len() - 1;
    forged[last] ^= 1;
    answer.order = forged;
    let refused = case.judge(&answer);
    let bad = matches!(refused, Err(Refused::Check(Fault::Order(OpenError::BadSignature { .. }))));
    assert!(bad, "{refused:?}");
}
