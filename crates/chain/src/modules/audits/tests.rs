//! Audits from a posted log to the auditor's pay, and everyone who would rather not do the work.

use std::collections::{BTreeMap, BTreeSet};

use alloy_primitives::{Address, B256, Bytes, U256};
use alloy_sol_types::SolCall;
use proptest::prelude::*;
use surety_types::{
    Amount, Canonical as _, Digest, Disclosure, FailureCode, FinishReason, ModelId, Order, Outcome, Price,
    Receipt, SecretKey, Signed, Text,
    abi::{IAudits, IChannels, IModels, IOperators, IReceipts, IStaking, Module},
    receipt::{ARITHMETIC_VERSION, RECEIPT_VERSION},
};

use super::{audit_commitment, state_commitment};
use crate::{
    modules::{
        models::tests::manifest,
        operators,
        receipts::{inclusion_path, leaf_hash, root_of},
        staking::tests::by_the_chain,
        tests::{check_solvency, claim, config},
    },
    testing::{self, Chain, address, credits, secret, worker_proof},
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
    /// In the channel.
    deposited: U256,
}

impl World {
    fn new() -> World {
        World::with(|_| {})
    }

    /// Whoever has passed one audit is audited at two percent.
    fn at_two_percent() -> World {
        World::with(|genesis| {
            genesis.params.audit_passes = 1;
            genesis.params.audit_ppm = 20_000;
            genesis.params.audit_floor_ppm = 20_000;
        })
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
        World { chain, model, answers: Vec::new(), epoch: 0, deposited: U256::ZERO }
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
        // Twice where it begins with the next block only.
        while self.now() == self.epoch {
            self.epochs(1);
        }
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
        self.deposited += U256::from(wei);
        let claim = claim(&self.chain, PAYER, AUDITED, wei);
        let claim = IChannels::claimCall { voucherClaims: vec![claim] };
        self.chain.call(AUDITED, Module::Channels, U256::ZERO, claim);
        self.try_settle()
    }

    /// What the operator was paid.
    fn try_settle(&mut self) -> Result<U256, String> {
        let before = self.chain.balance(address(AUDITED));
        let settle = IChannels::settleCall { receiver: address(AUDITED), token: Address::ZERO };
        self.chain.try_call(STRANGER, Module::Channels, U256::ZERO, settle)?;
        Ok(self.chain.balance(address(AUDITED)) - before)
    }

    fn settle(&mut self) -> U256 {
        self.try_settle().expect("settled")
    }

    /// The first receipt of the audited is drawn, and passes.
    fn pass_one(&mut self) {
        self.post_some(1, 1);
        self.disclose(0);
        self.epochs(1);
        let state = self.answer_of(0).state;
        self.result(0, state);
        self.answer(0).expect("answered");
        assert_eq!(self.standing().ratePpm, 20_000);
    }

    /// Unpaid, due, to be forfeited.
    fn pay(&self) -> (U256, U256, U256) {
        let found = self.chain.view(Module::Audits, IAudits::payOfCall { operator: address(AUDITED) });
        (found.unpaid, found.due, found.forfeited)
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

/// Nobody audits what its payer keeps confidential, and nobody else can make it so.
#[test]
fn what_its_payer_keeps_confidential_is_not_audited_and_is_no_miss() {
    let mut world = World::new();
    let orders = [Some(Disclosure::Payer), None].map(|disclosure| Order {
        disclosure,
        model: ModelId(Digest(world.model.0)),
        ..testing::order(&world.chain)
    });
    let answers = orders.iter().zip([1, 2]).map(|(order, number)| {
        let before = answered(world.model, number, AUDITED);
        let receipt = Receipt { order: order.digest(), ..before.receipt.value().clone() };
        Answered { receipt: Signed::sign(receipt, &worker(AUDITED)), ..before }
    });
    world.post(answers.collect());
    let kept = |world: &World, number: u32, order: &Order, key: &SecretKey| {
        let IAudits::discloseCall { id, receipt, path, .. } = world.disclosure(number);
        IAudits::discloseConfidentialCall { id, receipt, path, order: testing::signed(order, key) }
    };
    let key = testing::session();
    let forged = Order { payer: worker(AUDITED).public(), ..orders[0].clone() };
    for (number, order, key, why) in [
        (1, &orders[1], &key, "the order's payer does not forbid an audit"),
        (1, &orders[0], &key, "the receipt is for another order"),
        (0, &forged, &worker(AUDITED), "the receipt is for another order"),
    ] {
        let call = kept(&world, number, order, key);
        refused(world.call(AUDITED, call), why);
    }
    let call = kept(&world, 0, &orders[0], &key);
    refused(world.call(AUDITORS[0], call.clone()), "the log is not the caller's");
    world.call(AUDITED, call.clone()).expect("disclosed");
    refused(world.call(AUDITED, call), "it is disclosed already");
    world.disclose(1);
    world.epochs(1);
    let shown = world.audit(0);
    assert_eq!((shown.status, shown.auditor, shown.evidence), (7, Address::ZERO, B256::ZERO));
    let state = world.answer_of(1).state;
    world.result(1, state);
    world.answer(1).expect("answered");
    world.epochs(STEP * 5 + 1);
    let standing = world.standing();
    assert_eq!((standing.accounted, standing.missed, standing.unconfirmed, standing.passed), (1, 0, 0, 1));
    assert_eq!(standing.score, 1, "nothing is gained by what nobody checked");
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
    let pool = world.standing().pool;
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
    // Withheld is not taken; the three missed draws take of it, four times an average receipt each, and so all of it.
    let wait = after.withheldUntil - world.now();
    world.epochs(wait);
    assert_eq!(world.pay().2, U256::from(3 * 4 * 1_000u64 * 1_000_000_000_000));
    assert_eq!(world.settle(), U256::ZERO);
    assert_eq!(world.pay().2, U256::from(11_900u64 * 1_000_000_000_000));
    assert!(world.standing().pool < pool, "nobody has a share of it");
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
    assert_eq!(exposure(&world), (micro(300), credits(1)), "never more than a conviction takes");
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
    let mut world = World::at_two_percent();
    world.pass_one();
    let call = IAudits::exposureOfCall { operator: address(AUDITED) };
    let cap = world.chain.view(Module::Audits, call).cap;
    // Of a tenth of ten credits.
    assert_eq!(cap, credits(1) * U256::from(2) / U256::from(98));

    // Who has missed a draw, and passed none since, is trusted with what the least rate allows.
    world.post_some(2, 60);
    assert!(!world.drawn().is_empty());
    world.epochs(STEP * 5 + 1);
    assert_eq!(world.standing().ratePpm, 1_000_000);
    let call = IAudits::exposureOfCall { operator: address(AUDITED) };
    let cap = world.chain.view(Module::Audits, call).cap;
    assert_eq!(cap, credits(1) * U256::from(2) / U256::from(98));
}

/// U-7.5: beyond the cap pay waits until the log it is in is closed, and then it comes.
#[test]
fn pay_is_an_advance_up_to_the_cap_and_the_rest_when_it_is_audited() {
    let mut world = World::at_two_percent();
    let own = |wei: U256| wei - wei * U256::from(4) / U256::from(100) - wei / U256::from(100);
    let micro = |count: u64| U256::from(count * 1_000_000_000_000);
    // All of a newcomer's is audited: it is paid at once, up to what a conviction takes.
    assert_eq!(world.earn(900_000).expect("settled"), own(micro(900_000)));
    assert_eq!(world.earn(1_100_000).expect("settled"), own(micro(100_000)));
    assert_eq!(world.pay(), (micro(100_000), U256::ZERO, U256::ZERO));
    world.pass_one();
    assert_eq!(world.pay().1, U256::ZERO, "its cap has fallen below what it had");
    assert_eq!(world.earn(1_200_000).expect("claimed all the same"), U256::ZERO);
    check_solvency(&world.chain);

    // The log closes: what had been claimed when it was posted is audited, and the cap is beyond that.
    world.epochs(STEP * 5);
    let cap = credits(1) * U256::from(2) / U256::from(98);
    assert_eq!(world.pay(), (micro(200_000), micro(100_000) + cap, U256::ZERO));
    assert_eq!(world.settle(), own(micro(100_000) + cap));
    assert_eq!(world.settle(), U256::ZERO, "and no more");
    // An operator that has nothing more to show posts an empty log, and has everything in the end.
    world.post(Vec::new());
    world.epochs(STEP * 5);
    let left = world.pay().0;
    assert_eq!(world.pay(), (left, left, U256::ZERO));
    world.settle();
    assert_eq!(world.pay().0, U256::ZERO);
    assert_eq!(world.chain.balance(Module::Channels.address()), world.deposited - micro(1_200_000));
    check_solvency(&world.chain);
}

/// U-6.4: out of pay, to the bonds of the next validators; not out of stake.
#[test]
fn missed_draws_take_pay_and_no_stake() {
    let mut world = World::with(|genesis| {
        genesis.params.audit_misses_max = 1_000;
        genesis.params.audit_miss_bps = 20_000;
    });
    world.earn(1_000).expect("settled");
    // Ten receipts, all drawn; three are not disclosed.
    world.post_some(1, 10);
    (0..7).for_each(|number| world.disclose(number));
    let staked = |world: &World| {
        let call = IStaking::bondedToCall { operator: address(AUDITED) };
        world.chain.view(Module::Staking, call)
    };
    let stake = staked(&world);
    world.epochs(STEP * 5 + 1);
    let micro = |count: u64| U256::from(count * 1_000_000_000_000);
    // Those that it has shown charged 1,000 each: three times twice that.
    assert_eq!(world.pay(), (U256::ZERO, U256::ZERO, micro(6_000)));
    let before = world.pool();
    let forfeited = |world: &World| world.chain.view(Module::Staking, IStaking::forfeitedCall {});
    assert_eq!(world.earn(4_000).expect("claimed"), U256::ZERO);
    assert_eq!((forfeited(&world), world.pay().2), (micro(3_000), micro(3_000)));
    assert_eq!(world.pool(), before, "nobody has a share of it");
    let own = micro(1_000) * U256::from(95) / U256::from(100);
    assert_eq!(world.earn(8_000).expect("claimed"), own, "once, and the rest as ever");
    assert_eq!(world.pay().2, U256::ZERO);
    assert_eq!(world.standing().missed, 3);
    assert_eq!(staked(&world), stake);
    check_solvency(&world.chain);
}

/// U-6.4: who discloses nothing is measured by what it claims; junk in a log does not help who discloses.
#[test]
fn what_a_missed_draw_takes_is_an_average_that_junk_does_not_lower() {
    let micro = |count: u64| U256::from(count * 1_000_000_000_000);
    let mut world = World::new();
    world.earn(1_000).expect("settled");
    world.post_some(1, 10);
    world.epochs(STEP * 5 + 1);
    assert_eq!(world.pay().2, micro(10 * 4 * 100), "1,000 for ten receipts");

    let mut world = World::new();
    world.earn(1_000).expect("settled");
    world.post_some(1, 2);
    world.disclose(0);
    let junk = (10..60).map(|number| failed(world.model, number)).collect();
    world.post(junk);
    (0..50).for_each(|number| world.disclose(number));
    world.epochs(STEP * 5 + 1);
    assert_eq!((world.standing().missed, world.pay().2), (1, micro(4 * 1_000)));
}

/// U-7.5: while workers are in jail nothing is let go; U-4.1: nor are they drawn.
#[test]
fn who_is_in_jail_is_neither_paid_nor_drawn() {
    let mut world = World::new();
    let jail = |world: &mut World, who: u64, seconds: u64| {
        by_the_chain(&mut world.chain, |host| operators::jail(host, address(who), seconds));
    };
    world.post_some(1, 60);
    (0..40).for_each(|number| world.disclose(number));
    world.epochs(1);
    let count = |world: &World, who: u64| (0..40).filter(|number| world.auditor(*number) == who).count();
    assert!(count(&world, AUDITORS[0]) > 0);
    jail(&mut world, AUDITORS[0], 3_600);
    assert_eq!(count(&world, AUDITORS[0]), 0, "its places go to others");
    jail(&mut world, AUDITED, 3_600);
    assert_eq!(world.earn(500).expect("claimed"), U256::ZERO);
    assert_eq!(world.pay().1, U256::ZERO);
    world.chain.wait(3_600);
    assert!(count(&world, AUDITORS[0]) > 0);
    assert!(world.settle() > U256::ZERO);
    check_solvency(&world.chain);
}

/// Row 40 of the attacks: by stake, as it was when the beacon came.
#[test]
fn auditors_are_drawn_by_the_stake_they_had_before_the_beacon() {
    let mut world = World::new();
    let bond = |world: &mut World, who: u64, count: u64| {
        world.chain.call(who, Module::Staking, credits(count), IStaking::bondCall {});
    };
    bond(&mut world, AUDITORS[1], 30);
    bond(&mut world, AUDITORS[2], 990);
    world.post_some(1, 60);
    (0..55).for_each(|number| world.disclose(number));
    let drawn = |world: &World| AUDITORS.map(|who| (0..55).filter(|at| world.auditor(*at) == who).count());
    world.epochs(1);
    let first = drawn(&world);
    // 10, 40, and 1,000 that count as 100: 55 draws give 4, 15 and 37.
    assert!(first[0] < 13 && (4..28).contains(&first[1]) && first[2] > 25, "{first:?}");
    // Whoever bonds, or leaves, now that the beacon is known, changes nobody's turn; but who leaves has none.
    bond(&mut world, AUDITORS[0], 500);
    assert_eq!(drawn(&world), first);
    world.chain.next_epoch();
    bond(&mut world, AUDITORS[0], 1);
    assert_eq!(drawn(&world), first, "nor in a later epoch of the same turn");
    world.epochs(STEP - 1);
    let second = drawn(&world);
    assert!(second[0] > 12, "now it counts: {second:?}");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 8, max_shrink_iters: 60, ..ProptestConfig::default() })]
    /// Whatever an operator claims, posts, shows and hides: money is conserved in every block, what is unpaid is there, no
    /// stake is touched, and once all is audited everything has left.
    #[test]
    fn pay_converges_and_no_unit_appears_or_vanishes(
        steps in prop::collection::vec((0u8..5, 1u128..40_000), 1..10),
    ) {
        let mut world = World::with(|genesis| {
            genesis.epoch_blocks = 12;
            genesis.params.audit_passes = 1;
            genesis.params.audit_withhold_epochs = 3;
            genesis.params.audit_floor_ppm = 5_000;
        });
        let (mut total, mut next) = (0, 1u8);
        for (kind, amount) in steps {
            match kind {
                0 | 1 => {
                    total += amount;
                    let _ = world.earn(total);
                }
                2 if next < 200 => {
                    world.post_some(next, 5);
                    next += 5;
                }
                3 if next > 1 => {
                    let shown = world.drawn().len().min(usize::from(amount as u8 % 6)) as u32;
                    for number in 0..shown {
                        let call = world.disclosure(number);
                        let _ = world.call(AUDITED, call);
                    }
                }
                _ => world.epochs(1 + amount as u64 % 3),
            }
            let (unpaid, due, _) = world.pay();
            prop_assert!(due <= unpaid);
            check_solvency(&world.chain);
        }
        // Another log, all of it accounted for, no pay withheld.
        world.post(Vec::new());
        world.epochs(STEP * 6 + 5);
        let _ = world.try_settle();
        prop_assert_eq!(world.pay().0, U256::ZERO);
        let stake = IStaking::bondedToCall { operator: address(AUDITED) };
        prop_assert_eq!(world.chain.view(Module::Staking, stake), credits(10));
        check_solvency(&world.chain);
    }

    /// However a payment is split, what draws take of it is the same: every receipt once, and to the wei.
    #[test]
    fn what_missed_draws_take_does_not_depend_on_how_pay_comes(
        owed in 0u128..1 << 40,
        each in 0u128..1 << 90,
        payments in prop::collection::vec(0u128..1 << 70, 1..20),
    ) {
        let mut chain = Chain::new();
        let standing = by_the_chain(&mut chain, |host| super::standing::load(host, address(AUDITED)));
        let mut standing = super::standing::Standing { owed, ..standing };
        let (together, each): (U256, _) = (payments.iter().copied().map(U256::from).sum(), U256::from(each));
        let (expected, _) = standing.forfeit(each, together);
        prop_assert_eq!(expected, together.min(each * U256::from(owed)));
        let mut taken = U256::ZERO;
        for payment in payments {
            let (part, after) = standing.forfeit(each, U256::from(payment));
            prop_assert!(part <= U256::from(payment));
            taken += part;
            standing = after;
        }
        prop_assert_eq!(taken, expected);
    }
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
    assert!(gas < 730_000 && bytes < 2_000, "{steps:?}: {gas} gas, {bytes} bytes");
}
