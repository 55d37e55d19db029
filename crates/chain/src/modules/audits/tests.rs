//! Audits from a posted log to the auditor's pay, and everyone who would rather not do the work.

use std::collections::{BTreeMap, BTreeSet};

use alloy_primitives::{Address, B256, Bytes, U256};
use alloy_sol_types::SolCall;
use surety_types::{
    Amount, Canonical as _, Digest, FailureCode, FinishReason, ModelId, Outcome, Price, Receipt, SecretKey,
    Signed, Text,
    abi::{IAudits, IChannels, IModels, IOperators, IReceipts, IStaking, Module},
    receipt::{ARITHMETIC_VERSION, RECEIPT_VERSION},
};

use super::{audit_commitment, state_commitment};
use crate::{
    modules::{
        models::tests::manifest,
        receipts::{inclusion_path, leaf_hash, root_of},
        tests::{check_solvency, claim, config},
    },
    testing::{Chain, address, credits, secret, worker_proof},
};

const PAYER: u64 = 4;
const AUDITED: u64 = 5;
const AUDITORS: [u64; 3] = [6, 7, 8];
const STRANGER: u64 = 9;
/// Blocks of an epoch: enough for whatever a test does within one.
const EPOCH_BLOCKS: u64 = 60;
const STEP: u64 = 2;

fn worker(operator: u64) -> SecretKey {
    secret(100 + operator as u8)
}

/// An answer with what opens its commitment.
#[derive(Clone)]
struct Answered {
    receipt: Signed<Receipt>,
    salt: [u8; 32],
    state: Digest,
}

fn answered(model: B256, number: u8, operator: u64) -> Answered {
    let (salt, state) = ([number.wrapping_add(1); 32], Digest([number.wrapping_add(100); 32]));
    let key = worker(operator);
    let receipt = Receipt {
        version: RECEIPT_VERSION,
        outcome: Outcome::Completed,
        order: Digest([number; 32]),
        model: ModelId(Digest(model.0)),
        arithmetic: ARITHMETIC_VERSION,
        prompt_tokens: 3,
        cached_tokens: 0,
        output_tokens: 2,
        prompt_digest: Digest([1; 32]),
        output_digest: Digest([2; 32]),
        text_digest: Digest([3; 32]),
        finish: FinishReason::Length,
        seed: [4; 32],
        state_commitment: state_commitment(&key.public(), &salt, &state),
        price: Price { prompt: Amount(1), cached: Amount(1), output: Amount(1) },
        charge: Amount(1_000),
        accepted_ms: 1,
        first_token_ms: Some(2),
        done_ms: 3,
        software: Text::clipped("tests"),
        worker: key.public(),
    };
    Answered { receipt: Signed::sign(receipt, &key), salt, state }
}

fn failed(model: B256, number: u8) -> Answered {
    let before = answered(model, number, AUDITED);
    let receipt = Receipt {
        outcome: Outcome::Failed { code: FailureCode::Internal, message: Text::clipped("no") },
        finish: FinishReason::Failed,
        state_commitment: Digest::ZERO,
        charge: Amount(0),
        ..before.receipt.value().clone()
    };
    Answered { receipt: Signed::sign(receipt, &worker(AUDITED)), ..before }
}

struct World {
    chain: Chain,
    model: B256,
    answers: Vec<Answered>,
    /// The epoch of the log that was posted last.
    epoch: u64,
}

impl World {
    fn new() -> World {
        World::with(|_| {})
    }

    fn with(change: impl FnOnce(&mut crate::Genesis)) -> World {
        let mut chain = Chain::with(|genesis| {
            genesis.epoch_blocks = EPOCH_BLOCKS;
            genesis.params.audit_epochs = STEP;
            genesis.params.channel_delay_min_s = 10;
            change(genesis);
        });
        let publish = IModels::publishCall { manifest: manifest().to_cbor().into() };
        let model = chain.call(STRANGER, Module::Models, U256::ZERO, publish);
        for operator in [AUDITED].into_iter().chain(AUDITORS) {
            chain.call(operator, Module::Staking, credits(10), IStaking::bondCall {});
            let register = IOperators::registerCall { name: "Acme".into(), url: String::new() };
            chain.call(operator, Module::Operators, U256::ZERO, register);
            let (key, proof) = worker_proof(address(operator), &worker(operator));
            let add = IOperators::addWorkerCall { key, endpoint: "a".into(), proof };
            chain.call(operator, Module::Operators, U256::ZERO, add);
            let offer = IOperators::offerCall { model, promptPrice: 1, cachedPrice: 1, outputPrice: 1 };
            chain.call(operator, Module::Operators, U256::ZERO, offer);
        }
        World { chain, model, answers: Vec::new(), epoch: 0 }
    }

    fn now(&self) -> u64 {
        self.chain.next_header().epoch
    }

    /// So many epochs on, and the beacon of the last is known.
    fn epochs(&mut self, count: u64) {
        for _ in 0..count {
            self.chain.next_epoch();
        }
        self.chain.block(&[]);
    }

    fn leaves(&self) -> Vec<[u8; 32]> {
        self.answers.iter().map(|answer| leaf_hash(&answer.receipt.digest().0)).collect()
    }

    /// Posts a log of these answers, and goes on to the epoch that draws.
    fn post(&mut self, answers: Vec<Answered>) {
        self.answers = answers;
        self.epoch = self.now();
        self.epochs(1);
        let root = B256::from(root_of(&self.leaves()));
        let post = IReceipts::postCall { epoch: self.epoch, size: self.answers.len() as u64, root };
        self.chain.call(AUDITED, Module::Receipts, U256::ZERO, post);
        self.epochs(1);
    }

    fn post_some(&mut self, from: u8, count: u8) {
        let answers = (from..from + count).map(|number| answered(self.model, number, AUDITED)).collect();
        self.post(answers);
    }

    fn id(&self, number: u32) -> B256 {
        super::Id { operator: address(AUDITED), epoch: self.epoch, number }.word()
    }

    fn call<C: SolCall>(&mut self, who: u64, call: C) -> Result<C::Return, String> {
        self.chain.try_call(who, Module::Audits, U256::ZERO, call)
    }

    fn drawn(&self) -> Vec<u64> {
        let call = IAudits::drawnCall { operator: address(AUDITED), epoch: self.epoch, offset: 0 };
        self.chain.view(Module::Audits, call)
    }

    fn draw(&self) -> IAudits::Draw {
        self.chain.view(Module::Audits, IAudits::drawOfCall { operator: address(AUDITED), epoch: self.epoch })
    }

    fn audit(&self, number: u32) -> IAudits::Audit {
        self.chain.view(Module::Audits, IAudits::auditOfCall { id: self.id(number) })
    }

    fn standing(&self) -> IAudits::Standing {
        self.chain.view(Module::Audits, IAudits::standingOfCall { operator: address(AUDITED) })
    }

    fn answer_of(&self, number: u32) -> Answered {
        self.answers[self.drawn()[number as usize] as usize].clone()
    }

    fn disclosure(&self, number: u32) -> IAudits::discloseCall {
        let index = self.drawn()[number as usize] as usize;
        let path = inclusion_path(&self.leaves(), index).expect("an entry");
        IAudits::discloseCall {
            id: self.id(number),
            receipt: Bytes::copy_from_slice(self.answers[index].receipt.bytes()),
            path: path.into_iter().map(B256::from).collect(),
            evidence: B256::repeat_byte(9),
        }
    }

    fn disclose(&mut self, number: u32) {
        let call = self.disclosure(number);
        self.call(AUDITED, call).expect("disclosed");
    }

    /// Whose turn it is, by number.
    fn auditor(&self, number: u32) -> u64 {
        let auditor = self.audit(number).auditor;
        *AUDITORS.iter().find(|number| address(**number) == auditor).expect("an auditor is drawn")
    }

    fn commit(&mut self, who: u64, number: u32, commitment: Digest) -> Result<(), String> {
        let call = IAudits::commitCall { id: self.id(number), commitment: commitment.0.into() };
        self.call(who, call).map(|_| ())
    }

    fn reveal(&mut self, who: u64, number: u32, salt: [u8; 32], state: Digest) -> Result<(), String> {
        let id = self.id(number);
        let call = IAudits::revealCall { id, salt: salt.into(), stateDigest: state.0.into() };
        self.call(who, call).map(|_| ())
    }

    fn answer(&mut self, number: u32) -> Result<(), String> {
        let Answered { salt, state, .. } = self.answer_of(number);
        let id = self.id(number);
        let call = IAudits::answerCall { id, salt: salt.into(), stateDigest: state.0.into() };
        self.call(AUDITED, call).map(|_| ())
    }

    /// An auditor commits to a state and reveals it.
    fn result(&mut self, number: u32, state: Digest) -> u64 {
        let auditor = self.auditor(number);
        let commitment = audit_commitment(&worker(auditor).public(), &[7; 32], &state);
        self.commit(auditor, number, commitment).expect("committed");
        self.reveal(auditor, number, [7; 32], state).expect("revealed");
        auditor
    }

    /// Claims so much in all and settles it; what the operator and the next proposer were paid.
    fn earn(&mut self, micro: u128) -> Result<U256, String> {
        let wei = micro * 1_000_000_000_000;
        let deposit = IChannels::depositCall {
            config: config(PAYER, AUDITED),
            amount: wei,
            collector: Address::ZERO,
            collectorData: Bytes::new(),
        };
        self.chain.call(PAYER, Module::Channels, U256::from(wei), deposit);
        let claim = claim(&self.chain, PAYER, AUDITED, wei);
        let claim = IChannels::claimCall { voucherClaims: vec![claim] };
        self.chain.call(AUDITED, Module::Channels, U256::ZERO, claim);
        let before = self.chain.balance(address(AUDITED));
        let settle = IChannels::settleCall { receiver: address(AUDITED), token: Address::ZERO };
        self.chain.try_call(STRANGER, Module::Channels, U256::ZERO, settle)?;
        Ok(self.chain.balance(address(AUDITED)) - before)
    }

    fn pool(&self) -> U256 {
        self.chain.balance(Module::Audits.address())
    }
}

fn refused<T: std::fmt::Debug>(result: Result<T, String>, expected: &str) {
    let reason = result.expect_err("refused");
    assert!(reason.starts_with(&format!("audits: {expected}")), "{reason}");
}

#[test]
fn what_is_settled_is_shared_and_nothing_is_lost() {
    let mut world = World::new();
    let wei = 1_000u64 * 1_000_000_000_000;
    let settle = world.chain.header.number + 3;
    let proposer = world.chain.validators(0).members[settle as usize % 4].operator;
    let poor = world.chain.balance(proposer);
    let paid = world.earn(1_000).expect("settled");
    assert_eq!(paid, U256::from(wei / 100 * 95));
    assert_eq!(world.pool(), U256::from(wei / 100 * 4));
    let gas = world.chain.last.as_ref().expect("a block").fees;
    // Fees of the one block that it proposed, and its share.
    assert_eq!(world.chain.balance(proposer) - poor, gas + U256::from(wei / 100));
    assert_eq!(world.standing().pool, world.pool());
    check_solvency(&world.chain);

    // Whoever is no operator is paid in full.
    let deposit = IChannels::depositCall {
        config: config(PAYER, STRANGER),
        amount: 100,
        collector: Address::ZERO,
        collectorData: Bytes::new(),
    };
    world.chain.call(PAYER, Module::Channels, U256::from(100), deposit);
    let claim = claim(&world.chain, PAYER, STRANGER, 100);
    let claim = IChannels::claimCall { voucherClaims: vec![claim] };
    world.chain.call(STRANGER, Module::Channels, U256::ZERO, claim);
    let before = world.chain.balance(address(STRANGER));
    let settle = IChannels::settleCall { receiver: address(STRANGER), token: Address::ZERO };
    world.chain.call(AUDITED, Module::Channels, U256::ZERO, settle);
    assert_eq!(world.chain.balance(address(STRANGER)), before + U256::from(100));
}

#[test]
fn an_honest_answer_is_audited_and_its_auditor_paid() {
    let mut world = World::new();
    world.earn(1_000).expect("settled");
    world.post_some(1, 5);
    let draw = world.draw();
    assert_eq!((draw.ratePpm, draw.count, draw.size), (1_000_000, 5, 5), "of the new, everything");
    assert_eq!(world.drawn(), [0, 1, 2, 3, 4]);
    world.disclose(2);
    let audit = world.audit(2);
    assert_eq!((audit.status, audit.index, audit.auditor), (1, 2, Address::ZERO), "drawn later");
    assert_eq!(audit.charge, 1_000 * 1_000_000_000_000);
    world.epochs(1);
    let auditor = world.auditor(2);
    let answer = world.answer_of(2);
    let commitment = audit_commitment(&worker(auditor).public(), &[7; 32], &answer.state);
    let other = AUDITORS.into_iter().find(|other| *other != auditor).expect("three");
    refused(world.commit(other, 2, commitment), "the caller was not drawn as auditor");
    refused(world.commit(AUDITED, 2, commitment), "the caller was not drawn as auditor");
    world.commit(auditor, 2, commitment).expect("committed");
    refused(world.commit(auditor, 2, commitment), "the auditor has committed already");
    refused(world.answer(2), "no auditor's result waits for an answer");
    let not_it = "that is not what the auditor committed to";
    refused(world.reveal(auditor, 2, [8; 32], answer.state), not_it);
    refused(world.reveal(auditor, 2, [7; 32], Digest([5; 32])), not_it);
    refused(world.reveal(other, 2, [7; 32], answer.state), "the caller is not the auditor that committed");
    world.reveal(auditor, 2, [7; 32], answer.state).expect("revealed");
    let (id, salt, state) = (world.id(2), B256::from(answer.salt), B256::from(answer.state.0));
    let unopened = "that does not open the receipt's state commitment";
    refused(world.call(STRANGER, IAudits::answerCall { id, salt, stateDigest: salt }), unopened);
    refused(world.call(STRANGER, IAudits::answerCall { id, salt: state, stateDigest: state }), unopened);

    let (before, pool) = (world.chain.balance(address(auditor)), world.pool());
    world.answer(2).expect("answered");
    // A twenty-fifth of the charge: everything is audited, so each audit has its own receipt's share.
    let fee = U256::from(1_000_000_000_000_000u64 / 25);
    assert_eq!(world.chain.balance(address(auditor)), before + fee);
    assert_eq!(world.pool(), pool - fee);
    assert_eq!(world.audit(2).status, 5);
    let standing = world.standing();
    assert_eq!((standing.passed, standing.score, standing.missed, standing.pool), (1, 1, 0, pool - fee));
    refused(world.answer(2), "no auditor's result waits for an answer");
}

#[test]
fn disclosures_show_exactly_what_was_drawn() {
    let mut world = World::new();
    world.post_some(1, 7);
    let good = world.disclosure(3);
    refused(world.call(STRANGER, good.clone()), "the log is not the caller's");
    let mut other = world.disclosure(4);
    other.id = good.id;
    refused(world.call(AUDITED, other), "the receipt is not the entry that was drawn");
    let mut path = good.clone();
    path.path[0] = B256::repeat_byte(1);
    refused(world.call(AUDITED, path), "the receipt is not the entry that was drawn");
    let mut bytes = good.receipt.to_vec();
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    let edited = IAudits::discloseCall { receipt: bytes.into(), ..good.clone() };
    refused(world.call(AUDITED, edited), "the receipt cannot be opened");
    let long = IAudits::discloseCall { receipt: vec![0; 2_049].into(), ..good.clone() };
    refused(world.call(AUDITED, long), "the receipt is too long");
    let beyond = IAudits::discloseCall { id: world.id(7), ..good.clone() };
    refused(world.call(AUDITED, beyond), "no such draw");
    let mut unposted = super::Id::from_word(&good.id);
    unposted.epoch += 1;
    let unposted = IAudits::discloseCall { id: unposted.word(), ..good.clone() };
    refused(world.call(AUDITED, unposted), "no root of that epoch was posted");
    world.call(AUDITED, good.clone()).expect("disclosed");
    refused(world.call(AUDITED, good), "it is disclosed already");
    let in_time = world.disclosure(5);
    world.epochs(STEP);
    refused(world.call(AUDITED, in_time), "it is too late to disclose it");
}

#[test]
fn a_receipt_answers_for_one_draw_only() {
    let mut world = World::new();
    let once = answered(world.model, 1, AUDITED);
    // The same receipt twice in one log, and another receipt for the same order.
    let mut again = once.receipt.value().clone();
    again.done_ms += 1;
    let again = Answered { receipt: Signed::sign(again, &worker(AUDITED)), ..once.clone() };
    world.post(vec![once.clone(), once.clone(), again]);
    world.disclose(0);
    for number in [1, 2] {
        let call = world.disclosure(number);
        refused(world.call(AUDITED, call), "a receipt for the order was disclosed before");
    }
    // Nor in another log, nor by an operator that it is not of.
    world.post(vec![once]);
    let call = world.disclosure(0);
    refused(world.call(AUDITED, call), "a receipt for the order was disclosed before");
    let foreign = answered(world.model, 9, AUDITORS[0]);
    world.post(vec![foreign]);
    let call = world.disclosure(0);
    refused(world.call(AUDITED, call), "the receipt is not by a worker of the operator");
}

#[test]
fn a_failure_has_nothing_to_audit_and_is_no_miss() {
    let mut world = World::new();
    world.post(vec![failed(world.model, 1)]);
    world.disclose(0);
    assert_eq!(world.audit(0).status, 2);
    world.epochs(STEP * 5 + 1);
    let standing = world.standing();
    assert_eq!((standing.accounted, standing.missed, standing.unconfirmed, standing.passed), (1, 0, 0, 0));
}

#[test]
fn without_the_digest_there_is_no_pay() {
    let mut world = World::new();
    world.earn(1_000).expect("settled");
    world.post_some(1, 3);
    (0..3).for_each(|number| world.disclose(number));
    world.epochs(1);
    let pool = world.pool();
    // The lazy one makes something up.
    world.result(0, Digest([0xee; 32]));
    world.answer(0).expect("answered");
    assert_eq!((world.audit(0).status, world.pool()), (6, pool));
    // It copies what the first audit has shown: that is another answer's.
    let shown = world.answer_of(0).state;
    world.result(1, shown);
    world.answer(1).expect("answered");
    assert_eq!((world.audit(1).status, world.pool()), (6, pool));
    let standing = world.standing();
    assert_eq!((standing.differing, standing.passed, standing.missed), (2, 0, 0));
}

#[test]
fn a_copied_commitment_cannot_be_revealed_by_the_copier() {
    let mut world = World::new();
    world.post_some(1, 8);
    (0..8).for_each(|number| world.disclose(number));
    world.epochs(1);
    // The first auditor of each commits and falls silent; whoever is drawn next repeats its commitment.
    let first: Vec<u64> = (0..8).map(|number| world.auditor(number)).collect();
    for (number, auditor) in (0..8).zip(&first) {
        let state = world.answer_of(number).state;
        let commitment = audit_commitment(&worker(*auditor).public(), &[7; 32], &state);
        world.commit(*auditor, number, commitment).expect("committed");
    }
    world.epochs(STEP);
    let number = (0..8).find(|number| world.auditor(*number) != first[*number as usize]).expect("another");
    let (honest, copier) = (first[number as usize], world.auditor(number));
    let state = world.answer_of(number).state;
    let copied = audit_commitment(&worker(honest).public(), &[7; 32], &state);
    world.commit(copier, number, copied).expect("a commitment is only bytes");
    // Even if it learns what is behind it.
    refused(world.reveal(copier, number, [7; 32], state), "that is not what the auditor committed to");
    refused(world.reveal(honest, number, [7; 32], state), "the caller is not the auditor that committed");
}

#[test]
fn colluding_auditors_cost_the_honest_nothing() {
    let mut world = World::new();
    world.earn(1_000).expect("settled");
    world.post_some(1, 5);
    (0..5).for_each(|number| world.disclose(number));
    world.epochs(1);
    let staked = |world: &World| {
        let call = IStaking::bondedToCall { operator: address(AUDITED) };
        world.chain.view(Module::Staking, call)
    };
    let (stake, pool) = (staked(&world), world.pool());
    // Five of five say that it lied, with one voice.
    for number in 0..5 {
        world.result(number, Digest([0xee; 32]));
        world.answer(number).expect("answered");
    }
    assert_eq!((staked(&world), world.pool()), (stake, pool));
    world.epochs(STEP * 5 + 1);
    let standing = world.standing();
    assert_eq!((standing.differing, standing.missed, standing.withheldUntil), (5, 0, 0));
    assert_eq!(staked(&world), stake);
    world.earn(1_500).expect("and it is paid on");
}

#[test]
fn who_does_not_disclose_or_answer_has_missed_it_and_is_not_paid_for_a_while() {
    let mut world = World::with(|genesis| genesis.params.audit_withhold_epochs = 6);
    world.earn(100).expect("settled");
    world.post_some(1, 4);
    // One is disclosed and answered, one disclosed and not answered, two not even disclosed.
    (0..2).for_each(|number| world.disclose(number));
    world.epochs(1);
    for number in 0..2 {
        let state = world.answer_of(number).state;
        world.result(number, state);
    }
    world.answer(0).expect("answered");
    let before = world.standing();
    assert_eq!((before.score, before.missed, before.accounted), (1, 0, 0), "nothing is over yet");
    world.epochs(STEP + 1);
    refused(world.answer(1), "it is too late to answer");
    world.epochs(STEP * 5 - STEP);
    let after = world.standing();
    assert_eq!((after.passed, after.missed, after.unconfirmed, after.accounted), (1, 3, 0, 1));
    assert_eq!((after.score, after.ratePpm), (0, 1_000_000), "it begins anew");
    assert!(after.withheldUntil > world.now());
    let reason = world.earn(200).expect_err("withheld");
    assert_eq!(reason, "channels: pay is withheld: too many of the operator's audits went unanswered");
    // Withheld is not taken.
    let wait = after.withheldUntil - world.now();
    world.epochs(wait);
    let settle = IChannels::settleCall { receiver: address(AUDITED), token: Address::ZERO };
    let before = world.chain.balance(address(AUDITED));
    world.chain.call(STRANGER, Module::Channels, U256::ZERO, settle);
    let wei = U256::from(100u64 * 1_000_000_000_000 / 100 * 95);
    assert_eq!(world.chain.balance(address(AUDITED)) - before, wei);
    check_solvency(&world.chain);
}

#[test]
fn a_silent_auditor_is_followed_by_others_and_none_of_them_is_a_fault_of_the_audited() {
    let mut world = World::new();
    world.post_some(1, 6);
    (0..6).for_each(|number| world.disclose(number));
    let mut seen = BTreeSet::new();
    for _ in 0..3 {
        world.epochs(if seen.is_empty() { 1 } else { STEP });
        for number in 0..6 {
            seen.insert((number, world.auditor(number)));
        }
    }
    assert!(seen.len() > 6, "others are drawn: {seen:?}");
    world.epochs(STEP);
    assert_eq!(world.audit(0).auditor, Address::ZERO);
    refused(world.commit(AUDITORS[0], 0, Digest([1; 32])), "it is no auditor's turn");
    world.epochs(STEP * 5);
    let standing = world.standing();
    assert_eq!((standing.unconfirmed, standing.missed, standing.withheldUntil), (6, 0, 0));
}

#[test]
fn the_rate_falls_with_audits_passed_and_rises_after_a_miss() {
    let mut world = World::with(|genesis| {
        genesis.params.audit_passes = 4;
        genesis.params.audit_ppm = 250_000;
        genesis.params.audit_floor_ppm = 125_000;
    });
    let mut rates = Vec::new();
    for round in 0..3u8 {
        world.post_some(round * 6 + 1, 6);
        rates.push(world.draw().ratePpm);
        let count = world.drawn().len() as u32;
        (0..count).for_each(|number| world.disclose(number));
        world.epochs(1);
        for number in 0..count {
            let state = world.answer_of(number).state;
            world.result(number, state);
            world.answer(number).expect("answered");
        }
    }
    // 4 × 25 % over 0, 6 and at least 7 audits passed.
    assert_eq!(rates[..2], [1_000_000, 166_666]);
    assert!(rates[2] < rates[1] && rates[2] >= 125_000, "{rates:?}");
    let score = world.standing().score;
    world.post_some(30, 60);
    let due = world.drawn().len() as u64;
    assert!(due > 5);
    world.epochs(STEP * 5 + 1);
    let standing = world.standing();
    assert_eq!((standing.missed, standing.score), (due, 0), "after a score of {score}");
    assert_eq!(standing.ratePpm, 1_000_000);
}

#[test]
fn auditors_are_drawn_evenly_and_were_there_before_the_beacon() {
    let mut world = World::new();
    world.post_some(1, 60);
    let count = world.drawn().len() as u32;
    for number in 0..count {
        world.disclose(number);
        if world.now() > world.draw().drawnIn {
            break;
        }
    }
    let disclosed: Vec<B256> = world.chain.view(Module::Audits, IAudits::disclosedCall { offset: 0 });
    assert_eq!(disclosed.len() as u64, world.chain.view(Module::Audits, IAudits::disclosedCountCall {}));
    // Who comes once disclosures are there, but before the beacon, can be drawn; who comes after cannot.
    let join = |world: &mut World, operator: u64| {
        let chain = &mut world.chain;
        chain.call(operator, Module::Staking, credits(10), IStaking::bondCall {});
        let register = IOperators::registerCall { name: "Late".into(), url: String::new() };
        chain.call(operator, Module::Operators, U256::ZERO, register);
        let (key, proof) = worker_proof(address(operator), &worker(operator));
        let add = IOperators::addWorkerCall { key, endpoint: "a".into(), proof };
        chain.call(operator, Module::Operators, U256::ZERO, add);
        let model = world.model;
        let offer = IOperators::offerCall { model, promptPrice: 1, cachedPrice: 1, outputPrice: 1 };
        world.chain.call(operator, Module::Operators, U256::ZERO, offer);
    };
    world.epochs(1);
    let drawn = |world: &World| {
        let mut drawn: BTreeMap<Address, u32> = BTreeMap::new();
        for id in &disclosed[..50] {
            let audit = world.chain.view(Module::Audits, IAudits::auditOfCall { id: *id });
            *drawn.entry(audit.auditor).or_default() += 1;
        }
        drawn
    };
    let before = drawn(&world);
    assert!(!before.contains_key(&address(AUDITED)), "nobody audits itself");
    // Fifty among three: a third each, within four deviations.
    assert!(before.len() == 3 && before.values().all(|count| (4..=30).contains(count)), "{before:?}");
    join(&mut world, STRANGER);
    assert_eq!(drawn(&world), before, "who offers now changes no draw");
    let withdraw = IOperators::withdrawOfferCall { model: world.model };
    world.chain.call(AUDITORS[0], Module::Operators, U256::ZERO, withdraw);
    let after = drawn(&world);
    assert!(!after.contains_key(&address(AUDITORS[0])) && !after.contains_key(&address(STRANGER)));
    // Offering again is of no use before the next beacon.
    let (model, price) = (world.model, 1);
    let offer = IOperators::offerCall { model, promptPrice: price, cachedPrice: price, outputPrice: price };
    world.chain.call(AUDITORS[0], Module::Operators, U256::ZERO, offer);
    assert_eq!(drawn(&world), after);
    world.epochs(STEP);
    let next = drawn(&world);
    assert!(next.contains_key(&address(STRANGER)) && next.contains_key(&address(AUDITORS[0])), "{next:?}");
}

#[test]
fn exposure_is_what_was_claimed_and_is_not_audited_yet() {
    let mut world = World::new();
    let exposure = |world: &World| {
        let call = IAudits::exposureOfCall { operator: address(AUDITED) };
        let found = world.chain.view(Module::Audits, call);
        (found.exposure, found.cap)
    };
    let micro = |count: u64| U256::from(count * 1_000_000_000_000);
    world.earn(300).expect("settled");
    assert_eq!(exposure(&world), (micro(300), credits(10)), "never more than the stake");
    world.post(vec![failed(world.model, 1)]);
    world.disclose(0);
    world.earn(500).expect("settled");
    assert_eq!(exposure(&world).0, micro(500));
    world.epochs(STEP * 5 + 1);
    assert_eq!(exposure(&world).0, micro(200), "what was claimed before the log was posted is accounted for");
    let call = IAudits::accountCall { operator: address(AUDITED) };
    world.call(STRANGER, call).expect("anyone may");
    assert_eq!(exposure(&world).0, micro(200));
    assert_eq!(world.standing().accounted, 1);
    assert_eq!(world.standing().logs, 1);
}

#[test]
fn an_answer_to_p_and_one_minus_p_bounds_what_a_stake_answers_for() {
    let mut world = World::with(|genesis| {
        genesis.params.audit_passes = 1;
        genesis.params.audit_ppm = 20_000;
        genesis.params.audit_floor_ppm = 20_000;
    });
    world.post_some(1, 1);
    world.disclose(0);
    world.epochs(1);
    let state = world.answer_of(0).state;
    world.result(0, state);
    world.answer(0).expect("answered");
    assert_eq!(world.standing().ratePpm, 20_000);
    let call = IAudits::exposureOfCall { operator: address(AUDITED) };
    let cap = world.chain.view(Module::Audits, call).cap;
    assert_eq!(cap, credits(10) * U256::from(2) / U256::from(98));
}

#[test]
fn an_audit_costs_what_is_said() {
    let mut world = World::new();
    world.earn(1_000).expect("settled");
    world.post_some(1, 60);
    let call = world.disclosure(2);
    let send = |world: &mut World, who: u64, input: Vec<u8>| {
        let bytes = input.len();
        let receipt = world.chain.send(who, Module::Audits.address(), U256::ZERO, input);
        assert!(receipt.envelope.status(), "{receipt:?}");
        (receipt.gas_used, bytes)
    };
    let disclosed = send(&mut world, AUDITED, call.abi_encode());
    world.epochs(1);
    let (auditor, answer) = (world.auditor(2), world.answer_of(2));
    let commitment = audit_commitment(&worker(auditor).public(), &[7; 32], &answer.state);
    let (id, state) = (world.id(2), B256::from(answer.state.0));
    let call = IAudits::commitCall { id, commitment: commitment.0.into() };
    let committed = send(&mut world, auditor, call.abi_encode());
    let call = IAudits::revealCall { id, salt: [7; 32].into(), stateDigest: state };
    let revealed = send(&mut world, auditor, call.abi_encode());
    let call = IAudits::answerCall { id, salt: answer.salt.into(), stateDigest: state };
    let answered = send(&mut world, AUDITED, call.abi_encode());
    let steps = [disclosed, committed, revealed, answered];
    let gas: u64 = steps.iter().map(|(gas, _)| gas).sum();
    let bytes: usize = steps.iter().map(|(_, bytes)| bytes).sum();
    // docs/spec/audit.md, U-7.4.
    assert!(gas < 750_000 && bytes < 2_000, "{steps:?}: {gas} gas, {bytes} bytes");
}
