//! Channels, from deposit to settlement and refund, and every way to claim too much.

use alloy_primitives::{Address, B256, Bytes, U256, aliases::U40};
use alloy_sol_types::{SolCall as _, SolStruct as _};
use surety_types::{
    abi::{
        IChannels::{self, ChannelConfig, VoucherClaim},
        Module,
    },
    channel::domain,
};

use super::{ChannelDigests, House, signatures_of, signed, slots_of};
use crate::{
    modules::tests::{check_solvency, claim, config},
    testing::{CHAIN_ID, Chain, GAS_PRICE, address, signed_by},
};

mod escrow;

const PAYER: u64 = 4;
const RECEIVER: u64 = 5;
const STRANGER: u64 = 6;

fn chain() -> Chain {
    Chain::with(|genesis| genesis.params.channel_delay_min_s = 10)
}

fn call<C: alloy_sol_types::SolCall>(chain: &mut Chain, who: u64, call: C) -> Result<C::Return, String> {
    chain.try_call(who, Module::Channels, U256::ZERO, call)
}

fn deposit(chain: &mut Chain, config: ChannelConfig, amount: u128, value: u128) -> Result<(), String> {
    let call =
        IChannels::depositCall { config, amount, collector: Address::ZERO, collectorData: Bytes::new() };
    chain.try_call(PAYER, Module::Channels, U256::from(value), call).map(|_| ())
}

fn open(chain: &mut Chain, amount: u128) -> B256 {
    deposit(chain, config(PAYER, RECEIVER), amount, amount).expect("deposited");
    chain.view(Module::Channels, IChannels::getChannelIdCall { config: config(PAYER, RECEIVER) })
}

fn claim_all(chain: &mut Chain, who: u64, claims: Vec<VoucherClaim>) -> Result<(), String> {
    call(chain, who, IChannels::claimCall { voucherClaims: claims }).map(|_| ())
}

fn settle(chain: &mut Chain) -> Result<(), String> {
    let settle = IChannels::settleCall { receiver: address(RECEIVER), token: Address::ZERO };
    call(chain, STRANGER, settle).map(|_| ())
}

fn totals(chain: &Chain, id: B256) -> (u128, u128) {
    let channel = chain.view(Module::Channels, IChannels::channelsCall { channelId: id });
    (channel.balance, channel.totalClaimed)
}

fn refused<T: std::fmt::Debug>(result: Result<T, String>, expected: &str) {
    assert_eq!(result.expect_err("refused"), format!("channels: {expected}"));
}

#[test]
fn digests_are_those_of_the_scheme() {
    let expected = "ChannelConfig(address payer,address payerAuthorizer,address receiver,\
                    address receiverAuthorizer,address token,uint40 withdrawDelay,bytes32 salt)";
    assert_eq!(signed::ChannelConfig::eip712_encode_type(), expected);
    assert_eq!(
        signed::Voucher::eip712_encode_type(),
        "Voucher(bytes32 channelId,uint128 maxClaimableAmount)"
    );
    assert_eq!(
        signed::Refund::eip712_encode_type(),
        "Refund(bytes32 channelId,uint256 nonce,uint128 amount)"
    );
    assert_eq!(
        signed::ClaimBatch::eip712_encode_type(),
        "ClaimBatch(ClaimEntry[] claims)ClaimEntry(bytes32 channelId,uint128 maxClaimableAmount,\
         uint128 totalClaimed)"
    );
    let voucher = signed::Voucher { channelId: B256::repeat_byte(1), maxClaimableAmount: 7 };
    assert_eq!(
        ChannelDigests::new(CHAIN_ID).digest(&voucher),
        voucher.eip712_signing_hash(&domain(CHAIN_ID))
    );
    assert_ne!(ChannelDigests::new(1).digest(&voucher), voucher.eip712_signing_hash(&domain(CHAIN_ID)));
}

#[test]
fn vouchers_are_claimed_and_settled_once() {
    let mut chain = chain();
    let id = open(&mut chain, 1_000);
    let first = claim(&chain, PAYER, RECEIVER, 300);
    claim_all(&mut chain, RECEIVER, vec![first.clone()]).expect("claimed");
    // The same again, and an older one after a newer: nothing more.
    claim_all(&mut chain, RECEIVER, vec![first.clone(), first.clone()]).expect("passed over");
    let second = claim(&chain, PAYER, RECEIVER, 700);
    claim_all(&mut chain, RECEIVER, vec![second, first]).expect("claimed");
    assert_eq!(totals(&chain, id), (1_000, 700));
    let before = chain.balance(address(RECEIVER));
    settle(&mut chain).expect("settled");
    assert_eq!(chain.balance(address(RECEIVER)), before + U256::from(700));
    refused(settle(&mut chain), "nothing is to be settled");
    check_solvency(&chain);
}

/// Demand that an operator makes for itself: what it pays it gets back, and the fees are gone.
#[test]
fn paying_oneself_gains_nothing() {
    let mut chain = chain();
    let (before, together) = (chain.balance(address(PAYER)), chain.together());
    let mut fees = U256::ZERO;
    let mut paid = |chain: &Chain| {
        fees += U256::from(chain.last.as_ref().expect("a block").gas_used) * U256::from(GAS_PRICE);
    };
    deposit(&mut chain, config(PAYER, PAYER), 1_000, 1_000).expect("deposited");
    paid(&chain);
    let all = claim(&chain, PAYER, PAYER, 1_000);
    claim_all(&mut chain, PAYER, vec![all]).expect("claimed");
    paid(&chain);
    let settle = IChannels::settleCall { receiver: address(PAYER), token: Address::ZERO };
    call(&mut chain, PAYER, settle).expect("settled");
    paid(&chain);
    assert!(fees > U256::ZERO);
    assert_eq!(chain.balance(address(PAYER)), before - fees);
    assert_eq!(chain.together(), together);
    check_solvency(&chain);
}

#[test]
fn less_than_a_vouchers_most_may_be_claimed() {
    let mut chain = chain();
    let id = open(&mut chain, 1_000);
    let mut less = claim(&chain, PAYER, RECEIVER, 900);
    less.totalClaimed = 250;
    claim_all(&mut chain, RECEIVER, vec![less]).expect("claimed");
    assert_eq!(totals(&chain, id), (1_000, 250));
}

#[test]
fn claims_beyond_what_was_promised_or_paid_in_are_refused() {
    let mut chain = chain();
    let id = open(&mut chain, 1_000);
    let mut check = |who: u64, change: &dyn Fn(&mut VoucherClaim), expected: &str| {
        let mut changed = claim(&chain, PAYER, RECEIVER, 500);
        change(&mut changed);
        refused(claim_all(&mut chain, who, vec![changed]), expected);
    };
    check(STRANGER, &|_| (), "the caller is neither receiver nor receiver authorizer");
    check(RECEIVER, &|claim| claim.totalClaimed = 501, "the claim exceeds its voucher");
    let unsigned = "the voucher is not signed by the payer authorizer";
    check(RECEIVER, &|claim| claim.voucher.maxClaimableAmount = 501, unsigned);
    check(RECEIVER, &|claim| claim.signature = vec![1; 65].into(), unsigned);
    check(RECEIVER, &|claim| claim.signature = vec![1; 64].into(), "a signature is not 65 bytes");
    // Another channel of the same parties: the voucher is not for it, and it holds nothing.
    check(
        RECEIVER,
        &|claim| claim.voucher.channel.salt = B256::repeat_byte(1),
        "the claim exceeds the channel's balance",
    );
    let too_much = claim(&chain, PAYER, RECEIVER, 1_001);
    refused(claim_all(&mut chain, RECEIVER, vec![too_much]), "the claim exceeds the channel's balance");
    let huge = claim(&chain, PAYER, RECEIVER, u128::MAX);
    refused(claim_all(&mut chain, RECEIVER, vec![huge]), "the claim exceeds the channel's balance");
    refused(claim_all(&mut chain, RECEIVER, Vec::new()), "nothing is claimed");
    // One bad claim undoes the batch.
    let good = claim(&chain, PAYER, RECEIVER, 10);
    let mut bad = good.clone();
    (bad.totalClaimed, bad.voucher.maxClaimableAmount) = (20, 20);
    refused(claim_all(&mut chain, RECEIVER, vec![good, bad]), unsigned);
    assert_eq!(totals(&chain, id), (1_000, 0));
    check_solvency(&chain);
}

#[test]
fn anyone_claims_with_the_receivers_signature() {
    let mut chain = chain();
    let id = open(&mut chain, 1_000);
    let claims = vec![claim(&chain, PAYER, RECEIVER, 400)];
    let digest =
        chain.view(Module::Channels, IChannels::getClaimBatchDigestCall { voucherClaims: claims.clone() });
    let signature = |who: u64| signed_by(who, &digest);
    let with = |signature: Bytes| IChannels::claimWithSignatureCall {
        voucherClaims: claims.clone(),
        authorizerSignature: signature,
    };
    refused(
        call(&mut chain, STRANGER, with(signature(STRANGER))),
        "the batch is not signed by the receiver authorizer",
    );
    call(&mut chain, STRANGER, with(signature(RECEIVER))).expect("claimed");
    assert_eq!(totals(&chain, id), (1_000, 400));
    let none = IChannels::claimWithSignatureCall {
        voucherClaims: Vec::new(),
        authorizerSignature: signature(RECEIVER),
    };
    refused(call(&mut chain, STRANGER, none), "nothing is claimed");
}

#[test]
fn deposits_are_the_value_sent_to_a_whole_channel() {
    let mut chain = chain();
    let base = config(PAYER, RECEIVER);
    refused(deposit(&mut chain, base.clone(), 5, 4), "the amount is not the value sent");
    refused(deposit(&mut chain, base.clone(), 0, 0), "nothing was sent");
    let mut check = |change: fn(&mut ChannelConfig), expected: &str| {
        let mut changed = config(PAYER, RECEIVER);
        change(&mut changed);
        refused(deposit(&mut chain, changed, 5, 5), expected);
    };
    let whole = "a channel names its payer, receiver and both authorizers";
    check(|c| c.payer = Address::ZERO, whole);
    check(|c| c.payerAuthorizer = Address::ZERO, whole);
    check(|c| c.receiverAuthorizer = Address::ZERO, whole);
    check(|c| c.token = Address::repeat_byte(1), "a channel holds the native credit: its token is zero");
    check(|c| c.withdrawDelay = U40::from(9u64), "the withdrawal delay is out of bounds");
    check(|c| c.withdrawDelay = U40::MAX, "the withdrawal delay is out of bounds");
    let collected = IChannels::depositCall {
        config: base,
        amount: 5,
        collector: address(9),
        collectorData: Bytes::new(),
    };
    let refusal = chain.try_call(PAYER, Module::Channels, U256::from(5), collected);
    refused(refusal, "there is no collector: a deposit is the value sent");
}

#[test]
fn a_payer_leaves_after_the_delay_whatever_the_receiver_does() {
    let mut chain = chain();
    let id = open(&mut chain, 1_000);
    let initiate = |amount: u128| IChannels::initiateWithdrawCall { config: config(PAYER, RECEIVER), amount };
    let finalize = || IChannels::finalizeWithdrawCall { config: config(PAYER, RECEIVER) };
    refused(call(&mut chain, STRANGER, initiate(5)), "the caller is neither payer nor payer authorizer");
    refused(call(&mut chain, PAYER, finalize()), "no withdrawal is under way");
    call(&mut chain, PAYER, initiate(u128::MAX)).expect("begun");
    refused(call(&mut chain, PAYER, initiate(1)), "a withdrawal is under way");
    let pending = chain.view(Module::Channels, IChannels::pendingWithdrawalsCall { channelId: id });
    assert_eq!(pending.amount, 1_000);
    refused(call(&mut chain, PAYER, finalize()), "the delay is not over");
    // The receiver claims what it holds vouchers for meanwhile.
    let claimed = claim(&chain, PAYER, RECEIVER, 600);
    claim_all(&mut chain, RECEIVER, vec![claimed]).expect("claimed");
    chain.wait(60);
    refused(call(&mut chain, STRANGER, finalize()), "the caller is neither payer nor payer authorizer");
    let before = chain.balance(address(PAYER));
    call(&mut chain, PAYER, finalize()).expect("left");
    let fee = U256::from(chain.last.as_ref().expect("a block").gas_used) * U256::from(GAS_PRICE);
    assert_eq!(chain.balance(address(PAYER)), before + U256::from(400) - fee);
    assert_eq!(totals(&chain, id), (600, 600));
    refused(call(&mut chain, PAYER, initiate(1)), "nothing is left to withdraw");
    settle(&mut chain).expect("settled");
    check_solvency(&chain);
}

#[test]
fn a_receiver_refunds_at_once() {
    let mut chain = chain();
    let id = open(&mut chain, 1_000);
    let refund = |amount: u128| IChannels::refundCall { config: config(PAYER, RECEIVER), amount };
    refused(call(&mut chain, PAYER, refund(5)), "the caller is neither receiver nor receiver authorizer");
    call(&mut chain, RECEIVER, refund(300)).expect("refunded");
    assert_eq!(totals(&chain, id), (700, 0));

    let digest = chain.view(
        Module::Channels,
        IChannels::getRefundDigestCall { channelId: id, nonce: U256::ZERO, amount: u128::MAX },
    );
    let signature = signed_by(RECEIVER, &digest);
    let signed = |nonce: u64| IChannels::refundWithSignatureCall {
        config: config(PAYER, RECEIVER),
        amount: u128::MAX,
        nonce: U256::from(nonce),
        receiverAuthorizerSignature: signature.clone(),
    };
    refused(call(&mut chain, PAYER, signed(1)), "the refund's nonce is not the next");
    call(&mut chain, PAYER, signed(0)).expect("refunded");
    assert_eq!(totals(&chain, id), (0, 0));
    refused(call(&mut chain, PAYER, signed(0)), "the refund's nonce is not the next");
    refused(call(&mut chain, PAYER, signed(1)), "the refund is not signed by the receiver authorizer");
    assert_eq!(chain.view(Module::Channels, IChannels::refundNonceCall { channelId: id }), U256::ONE);
    refused(call(&mut chain, RECEIVER, refund(1)), "nothing is left to refund");
    check_solvency(&chain);
}

#[test]
fn several_calls_happen_together_or_not_at_all() {
    let mut chain = chain();
    let id = open(&mut chain, 1_000);
    let claimed = IChannels::claimCall { voucherClaims: vec![claim(&chain, PAYER, RECEIVER, 400)] };
    let refund = IChannels::refundCall { config: config(PAYER, RECEIVER), amount: u128::MAX };
    let both =
        IChannels::multicallCall { data: vec![claimed.abi_encode().into(), refund.abi_encode().into()] };
    let stranger = call(&mut chain, STRANGER, both.clone());
    refused(stranger, "the caller is neither receiver nor receiver authorizer");
    assert_eq!(totals(&chain, id), (1_000, 0));
    call(&mut chain, RECEIVER, both).expect("both");
    assert_eq!(totals(&chain, id), (400, 400));
    let nested = IChannels::multicallCall {
        data: vec![IChannels::multicallCall { data: vec![] }.abi_encode().into()],
    };
    refused(call(&mut chain, RECEIVER, nested), "a call among several is neither a deposit nor several");
    // Calls that share their bytes would be read more often than they were paid for.
    let one = vec![0xab; 256];
    let mut overlapping = IChannels::multicallCall { data: vec![one.clone().into(); 4] }.abi_encode();
    for index in 1..4 {
        let word: Vec<u8> = overlapping[68..100].to_vec();
        overlapping[68 + 32 * index..100 + 32 * index].copy_from_slice(&word);
    }
    let outcome = chain.simulate(address(RECEIVER), Module::Channels.address(), U256::ZERO, overlapping);
    assert!(!outcome.success);
}

#[test]
fn the_largest_amounts_overflow_nothing() {
    let mut chain = Chain::with(|genesis| {
        let stakes = genesis.validators.iter().fold(U256::ZERO, |sum, validator| sum + validator.stake);
        genesis.balances.retain(|balance| [address(PAYER), address(RECEIVER)].contains(&balance.address));
        genesis.balances[1].amount = crate::testing::credits(100);
        genesis.balances[0].amount = U256::from(u128::MAX) - stakes - crate::testing::credits(100);
    });
    let everything = chain.balance(address(PAYER)) - crate::testing::credits(100);
    let amount = u128::try_from(everything).expect("fits");
    let mut config = config(PAYER, RECEIVER);
    config.withdrawDelay = U40::from(1_000u64);
    deposit(&mut chain, config.clone(), amount, amount).expect("deposited");
    let refund = IChannels::refundCall { config, amount: u128::MAX };
    call(&mut chain, RECEIVER, refund).expect("refunded");
}

#[test]
fn what_admission_prepares_is_what_execution_needs() {
    let mut chain = chain();
    open(&mut chain, 1_000);
    let claims = vec![claim(&chain, PAYER, RECEIVER, 400), claim(&chain, STRANGER, RECEIVER, 5)];
    let input = IChannels::claimCall { voucherClaims: claims }.abi_encode();
    assert_eq!(signatures_of(House::Channels, CHAIN_ID, &input).len(), 2);
    assert_eq!(slots_of(House::Channels, CHAIN_ID, &input).len(), 5);
    assert!(signatures_of(House::Channels, CHAIN_ID, &input[..input.len() - 40]).is_empty());
    let claims = vec![claim(&chain, PAYER, RECEIVER, 400)];
    let input = IChannels::claimCall { voucherClaims: claims }.abi_encode();
    let nonce = chain.account(address(RECEIVER)).nonce;
    let to = alloy_primitives::TxKind::Call(Module::Channels.address());
    let transaction = chain.transaction(RECEIVER, nonce, to, U256::ZERO, input);
    let header = chain.next_header();
    let (executed, passes) =
        crate::testing::execute_by_cache(&chain, &header, std::slice::from_ref(&transaction), |_| {});
    assert!(executed.expect("valid").receipts[0].envelope.status());
    assert!(passes <= 3, "{passes}");
}
