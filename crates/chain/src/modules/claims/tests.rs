//! Claims, from an acceptance without a receipt to the compensation, and everything that ends one before.

use alloy_primitives::{Address, Bytes, U256};
use proptest::prelude::*;
use surety_types::{
    Acceptance, Canonical as _, FailureCode, Order, Outcome, Receipt, SecretKey, Signed, Text,
    abi::{IClaims, IStaking, Module},
};

use super::payee_proof_message;
use crate::{
    modules::tests::check_stakes,
    tariff::{CLAIM_GAS, answer_gas},
    testing::{
        CHAIN_ID, CREDIT, Chain, GAS_PRICE, OPERATOR, PAYER, acceptance, address, channel, credits, failure,
        order, receipt, secret, served, session, signed, worker,
    },
};

const CLAIMANT: u64 = 7;

fn bond() -> U256 {
    U256::from(CREDIT / 50)
}

fn asked(order: &Order, acceptance: &Acceptance) -> IClaims::claimCall {
    IClaims::claimCall {
        order: signed(order, &session()),
        acceptance: signed(acceptance, &worker()),
        channel: channel().to_cbor().into(),
        account: Address::ZERO,
        proof: Bytes::new(),
    }
}

fn claim(chain: &mut Chain, order: &Order) -> Result<u64, String> {
    let call = asked(order, &acceptance(order));
    chain.try_call(CLAIMANT, Module::Claims, bond(), call)
}

fn show(chain: &mut Chain, id: u64, order: &Order, receipt: &Receipt, key: &SecretKey) -> Result<(), String> {
    let call = IClaims::answerCall { id, order: signed(order, &session()), receipt: signed(receipt, key) };
    chain.try_call(OPERATOR, Module::Claims, U256::ZERO, call).map(|_| ())
}

fn settle(chain: &mut Chain, id: u64) -> Result<U256, String> {
    chain.try_call(8, Module::Claims, U256::ZERO, IClaims::settleCall { id })
}

fn refused<T: std::fmt::Debug>(result: Result<T, String>, expected: &str) {
    assert_eq!(result.expect_err("refused"), format!("claims: {expected}"));
}

fn stake(chain: &Chain) -> U256 {
    chain.view(Module::Staking, IStaking::bondedToCall { operator: address(OPERATOR) })
}

fn fee(chain: &Chain) -> U256 {
    U256::from(chain.last.as_ref().expect("a block").gas_used) * U256::from(GAS_PRICE)
}

#[test]
fn silence_is_paid_for_by_the_operator() {
    let mut chain = served();
    let order = order(&chain);
    refused(claim(&mut chain, &order), "the deadline has not passed");
    chain.wait(61);
    let before = chain.balance(address(CLAIMANT));
    let id = claim(&mut chain, &order).expect("claimed");
    assert_eq!(chain.balance(address(CLAIMANT)), before - bond() - fee(&chain));
    let claimed = chain.view(Module::Claims, IClaims::claimsCall { id });
    // 1,000 tokens of prompt and as many of output, at a credit for a thousand.
    assert_eq!((claimed.state, claimed.payee, claimed.cost), (1, address(PAYER), credits(2)));
    refused(claim(&mut chain, &order), "the acceptance was claimed before");
    refused(settle(&mut chain, id), "the claim can still be answered");
    refused(settle(&mut chain, id + 1), "there is no such claim");
    check_stakes(&chain);

    chain.wait(2 * 60 * 60);
    let late = show(&mut chain, id, &order, &receipt(&order), &worker());
    refused(late, "the time to answer is over");
    let (payer, claimant) = (chain.balance(address(PAYER)), chain.balance(address(CLAIMANT)));
    // A tenth of a credit and twice the cost would be more than a hundredth of the stake.
    assert_eq!(settle(&mut chain, id).expect("settled"), credits(1));
    assert_eq!(chain.balance(address(PAYER)), payer + credits(1));
    assert_eq!(chain.balance(address(CLAIMANT)), claimant + bond());
    assert_eq!(stake(&chain), credits(99));
    refused(settle(&mut chain, id), "the claim is over");
    refused(claim(&mut chain, &order), "the acceptance was claimed before");
    let record = chain.view(Module::Claims, IClaims::recordOfCall { operator: address(OPERATOR) });
    assert_eq!((record.answered, record.failed, record.compensated), (0, 0, 1));
    check_stakes(&chain);
}

#[test]
fn what_claims_take_in_a_day_is_bounded() {
    let mut chain = served();
    let mut orders: Vec<Order> = (0..3).map(|_| order(&chain)).collect();
    for (nonce, order) in orders.iter_mut().enumerate() {
        order.nonce = [nonce as u8; 32];
    }
    chain.wait(61);
    let ids: Vec<u64> = orders.iter().map(|order| claim(&mut chain, order).expect("claimed")).collect();
    chain.wait(2 * 60 * 60);
    assert_eq!(settle(&mut chain, ids[0]).expect("settled"), credits(1));
    assert_eq!(settle(&mut chain, ids[1]).expect("settled"), U256::ZERO, "the day's share is used up");
    chain.wait(24 * 60 * 60);
    assert_eq!(settle(&mut chain, ids[2]).expect("settled"), credits(99) / U256::from(100));
    check_stakes(&chain);
}

#[test]
fn a_receipt_ends_a_claim_and_takes_the_bond() {
    let mut chain = served();
    let order = order(&chain);
    chain.wait(61);
    let id = claim(&mut chain, &order).expect("claimed");
    let mut other = order.clone();
    other.nonce = [1; 32];
    refused(show(&mut chain, id, &other, &receipt(&other), &worker()), "the order is not the claim's");
    refused(show(&mut chain, id, &order, &receipt(&other), &worker()), "the receipt is for another order");
    let foreign = Receipt { worker: secret(51).public(), ..receipt(&order) };
    refused(show(&mut chain, id, &order, &foreign, &secret(51)), "the receipt is another worker's");
    let late = Receipt { done_ms: order.deadline_ms + 1, ..receipt(&order) };
    refused(show(&mut chain, id, &order, &late, &worker()), "the answer was not done by its deadline");
    let before = chain.balance(address(OPERATOR));
    show(&mut chain, id, &order, &receipt(&order), &worker()).expect("shown");
    assert_eq!(chain.balance(address(OPERATOR)), before + bond() - fee(&chain));
    refused(show(&mut chain, id, &order, &receipt(&order), &worker()), "the claim is over");
    chain.wait(3 * 60 * 60);
    refused(settle(&mut chain, id), "the claim is over");
    assert_eq!(stake(&chain), credits(100));
    check_stakes(&chain);
}

/// Whoever reckons what claiming costs reckons with no less than it does, and who shows a failure is paid no less, up to the
/// longest order there can be.
#[test]
fn claims_take_no_more_gas_than_is_reckoned_with() {
    for biases in [0, 256, 512, 768, 1_024] {
        let mut chain = served();
        let orders = [1, 2].map(|nonce| {
            let mut order = Order { nonce: [nonce; 32], ..order(&chain) };
            order.sampling.logit_bias = (0..biases).map(|index| (u32::MAX - 1_024 + index, 0.1)).collect();
            order
        });
        chain.wait(61);
        let used = |chain: &Chain| chain.last.as_ref().expect("a block").gas_used;
        let first = claim(&mut chain, &orders[0]).expect("claimed");
        let claimed = used(&chain);
        let second = claim(&mut chain, &orders[1]).expect("claimed");
        let long = Text::clipped("x".repeat(4_096));
        let outcome = Outcome::Failed { code: FailureCode::Internal, message: long };
        let receipt = Receipt { outcome, ..failure(&orders[1]) };
        let shown = signed(&orders[1], &session()).len() + signed(&receipt, &worker()).len();
        show(&mut chain, second, &orders[1], &receipt, &worker()).expect("shown");
        let answered = used(&chain);
        assert!(answered <= answer_gas(shown), "{answered} of {}, {shown} bytes", answer_gas(shown));
        chain.wait(2 * 60 * 60);
        settle(&mut chain, first).expect("settled");
        let together = claimed + used(&chain);
        assert!(together <= CLAIM_GAS, "{together}, {biases} biases");
        assert!(together > CLAIM_GAS / 2 && answered > answer_gas(shown) / 2, "{together} {answered}");
    }
}

/// Nobody can tell when a failure was signed: the claimant has lost no more than the operator's gas.
#[test]
fn a_failure_ends_a_claim_at_the_price_of_the_gas() {
    let mut chain = served();
    let order = order(&chain);
    chain.wait(61);
    let id = claim(&mut chain, &order).expect("claimed");
    let claimant = chain.balance(address(CLAIMANT));
    show(&mut chain, id, &order, &failure(&order), &worker()).expect("shown");
    let shown = [signed(&order, &session()), signed(&failure(&order), &worker())];
    let gas = U256::from(u128::from(answer_gas(shown[0].len() + shown[1].len())) * GAS_PRICE);
    assert_eq!(chain.balance(address(CLAIMANT)), claimant + bond() - gas);
    assert!(fee(&chain) <= gas, "{} of {gas}", fee(&chain));
    let record = chain.view(Module::Claims, IClaims::recordOfCall { operator: address(OPERATOR) });
    assert_eq!((record.answered, record.failed, record.compensated), (1, 1, 0));
    check_stakes(&chain);
}

#[test]
fn an_order_without_a_channel_pays_whom_its_payer_names() {
    let mut chain = served();
    let order = Order { channel: None, ..order(&chain) };
    chain.wait(61);
    let free = Acceptance { price: surety_types::Price::ZERO, ..acceptance(&order) };
    let mut call = asked(&order, &free);
    let mut check = |call: &IClaims::claimCall, expected: &str| {
        refused(chain.try_call(CLAIMANT, Module::Claims, bond(), call.clone()), expected);
    };
    check(&call, "the order names no channel");
    call.channel = Bytes::new();
    check(&call, "nobody is named to be paid");
    call.account = address(8);
    check(&call, "the proof is not 64 bytes");
    // Who sees a claim under way cannot have it pay itself.
    let proof = session().sign(&payee_proof_message(CHAIN_ID, &order.digest(), address(9)));
    call.proof = proof.to_vec().into();
    check(&call, "the proof is not the signature of the order's payer");
    let proof = session().sign(&payee_proof_message(CHAIN_ID, &order.digest(), address(8)));
    call.proof = proof.to_vec().into();
    let id = chain.call(CLAIMANT, Module::Claims, bond(), call);
    chain.wait(3 * 60 * 60);
    let before = chain.balance(address(8));
    assert_eq!(settle(&mut chain, id).expect("settled"), U256::from(CREDIT / 10));
    assert_eq!(chain.balance(address(8)), before + U256::from(CREDIT / 10) - fee(&chain));
    check_stakes(&chain);
}

#[test]
fn what_is_no_breach_is_no_claim() {
    let mut chain = served();
    let order = order(&chain);
    chain.wait(61);
    let good = acceptance(&order);
    let mut check = |change: fn(&mut Acceptance), expected: &str| {
        let mut changed = good.clone();
        change(&mut changed);
        refused(chain.try_call(CLAIMANT, Module::Claims, bond(), asked(&order, &changed)), expected);
    };
    check(|a| a.order.0[0] ^= 1, "the acceptance is for another order");
    check(|a| a.model.0.0[0] ^= 1, "the acceptance is for another model than the order");
    check(|a| a.deadline_ms -= 1, "the acceptance moves the deadline");
    check(|a| a.accepted_ms = a.deadline_ms + 1, "the order was accepted after its deadline");
    check(|a| a.max_output_tokens += 1, "more tokens were accepted than were ordered");
    let ceiling = Order { price_ceiling: surety_types::Price::ZERO, ..order.clone() };
    let call = asked(&ceiling, &acceptance(&ceiling));
    refused(chain.try_call(CLAIMANT, Module::Claims, bond(), call), "the price is above the order's ceiling");

    let call = asked(&order, &good);
    let short = chain.try_call(CLAIMANT, Module::Claims, bond() - U256::ONE, call.clone());
    refused(short, "the value sent is not the bond of a claim");
    let stranger = Acceptance { worker: secret(51).public(), ..good.clone() };
    let foreign = IClaims::claimCall { acceptance: signed(&stranger, &secret(51)), ..call.clone() };
    refused(chain.try_call(CLAIMANT, Module::Claims, bond(), foreign), "the worker is no operator's");
    let mut config = channel();
    config.payer = address(8);
    let other = IClaims::claimCall { channel: config.to_cbor().into(), ..call.clone() };
    refused(chain.try_call(CLAIMANT, Module::Claims, bond(), other), "the channel is not the order's");
    let mut forged = call.clone();
    let mut bytes = forged.acceptance.to_vec();
    *bytes.last_mut().expect("bytes") ^= 1;
    forged.acceptance = bytes.into();
    let said = chain.try_call(CLAIMANT, Module::Claims, bond(), forged).expect_err("refused");
    assert!(said.contains("does not verify"), "{said}");
    chain.wait(25 * 60 * 60);
    refused(chain.try_call(CLAIMANT, Module::Claims, bond(), call), "the deadline has passed too long ago");
    check_stakes(&chain);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    /// A bit of what is signed is changed, or bytes are cut off: no panic, and no claim.
    #[test]
    fn damaged_papers_are_refused(bit in any::<prop::sample::Index>(), cut in any::<bool>(), first in any::<bool>()) {
        let mut chain = served();
        let order = order(&chain);
        chain.wait(61);
        let mut call = asked(&order, &acceptance(&order));
        let paper = if first { &mut call.order } else { &mut call.acceptance };
        let mut bytes = paper.to_vec();
        let at = bit.index(bytes.len() * 8);
        if cut { bytes.truncate(at / 8) } else { bytes[at / 8] ^= 1 << (at % 8) }
        *paper = bytes.into();
        prop_assert!(chain.try_call(CLAIMANT, Module::Claims, bond(), call).is_err());
        prop_assert_eq!(chain.balance(Module::Claims.address()), U256::ZERO);
    }
}

#[test]
fn a_signed_paper_is_what_the_parties_sign() {
    let chain = served();
    let order = order(&chain);
    let bytes = signed(&order, &session());
    assert_eq!(Signed::<Order>::open(&bytes).expect("signed").value(), &order);
}
