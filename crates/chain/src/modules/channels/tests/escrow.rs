//! The escrow of x402's clients: what is theirs to the byte, deposits by signature, and that its money is apart.

use alloy_primitives::{Address, B256, Bytes, U256, aliases::U40, b256};
use alloy_sol_types::{SolCall, SolValue as _};
use proptest::prelude::*;
use surety_types::{
    abi::{
        IChannels::{self, ChannelConfig, Voucher, VoucherClaim},
        ICredit, Module,
        address::{CREDIT, DEPOSIT_COLLECTOR, ESCROW},
    },
    channel::{ChannelDigests, deposit_nonce},
    credit::{receive_digest, signed::ReceiveWithAuthorization},
};

use super::{PAYER, RECEIVER, STRANGER};
use crate::{
    modules::{
        channels::{House, signatures_of, slots_of},
        tests::check_solvency,
    },
    testing::{CHAIN_ID, Chain, GAS_PRICE, address, signed_by},
    transaction::recover,
};

const DELAY_S: u64 = 60;

fn chain() -> Chain {
    Chain::with(|genesis| genesis.params.channel_delay_min_s = 10)
}

fn config(payer: u64, salt: u8) -> ChannelConfig {
    ChannelConfig {
        payer: address(payer),
        payerAuthorizer: address(payer),
        receiver: address(RECEIVER),
        receiverAuthorizer: address(RECEIVER),
        token: CREDIT,
        withdrawDelay: U40::from(DELAY_S),
        salt: B256::repeat_byte(salt),
    }
}

fn id(config: &ChannelConfig) -> B256 {
    ChannelDigests::of_escrow(CHAIN_ID).channel_id(config)
}

fn call<C: SolCall>(chain: &mut Chain, who: u64, call: C) -> Result<C::Return, String> {
    chain.try_call(who, Module::Escrow, U256::ZERO, call)
}

fn refused<T: std::fmt::Debug>(result: Result<T, String>, expected: &str) {
    assert_eq!(result.expect_err("refused"), expected);
}

/// A deposit as the payer signs it.
#[derive(Clone)]
struct Deposit {
    config: ChannelConfig,
    amount: u128,
    signed: u128,
    after: u64,
    before: u64,
    salt: U256,
    by: u64,
    to: Address,
    collector: Address,
}

impl Deposit {
    fn new(payer: u64, amount: u128, salt: u64) -> Deposit {
        Deposit {
            config: config(payer, 0),
            amount,
            signed: amount,
            after: 0,
            before: u64::MAX,
            salt: U256::from(salt),
            by: payer,
            to: DEPOSIT_COLLECTOR,
            collector: DEPOSIT_COLLECTOR,
        }
    }

    fn with(change: impl FnOnce(&mut Deposit)) -> Deposit {
        let mut deposit = Deposit::new(PAYER, 1_000, 1);
        change(&mut deposit);
        deposit
    }

    fn authorization(&self) -> ReceiveWithAuthorization {
        ReceiveWithAuthorization {
            from: self.config.payer,
            to: self.to,
            value: U256::from(self.signed),
            validAfter: U256::from(self.after),
            validBefore: U256::from(self.before),
            nonce: deposit_nonce(&id(&self.config), self.salt),
        }
    }

    fn call(&self) -> IChannels::depositCall {
        let signature = signed_by(self.by, &receive_digest(CHAIN_ID, &self.authorization()));
        let data = (U256::from(self.after), U256::from(self.before), self.salt, signature);
        IChannels::depositCall {
            config: self.config.clone(),
            amount: self.amount,
            collector: self.collector,
            collectorData: data.abi_encode_params().into(),
        }
    }
}

/// Anybody brings what the payer signed.
fn deposit(chain: &mut Chain, deposit: &Deposit) -> Result<(), String> {
    call(chain, STRANGER, deposit.call()).map(drop)
}

fn claim(config: &ChannelConfig, payer: u64, most: u128, total: u128) -> VoucherClaim {
    let digests = ChannelDigests::of_escrow(CHAIN_ID);
    VoucherClaim {
        voucher: Voucher { channel: config.clone(), maxClaimableAmount: most },
        signature: signed_by(payer, &digests.voucher(digests.channel_id(config), most)),
        totalClaimed: total,
    }
}

fn claim_one(chain: &mut Chain, claim: VoucherClaim) -> Result<(), String> {
    call(chain, RECEIVER, IChannels::claimCall { voucherClaims: vec![claim] }).map(drop)
}

fn settle(chain: &mut Chain) -> Result<(), String> {
    call(chain, STRANGER, IChannels::settleCall { receiver: address(RECEIVER), token: CREDIT }).map(drop)
}

fn totals(chain: &Chain, config: &ChannelConfig) -> (u128, u128) {
    let channel = chain.view(Module::Escrow, IChannels::channelsCall { channelId: id(config) });
    (channel.balance, channel.totalClaimed)
}

/// What the escrow has is what its channels hold and what is claimed and not settled; and the channels of orders have theirs.
fn check_escrow(chain: &Chain, configs: &[ChannelConfig]) {
    let held = configs.iter().map(|config| totals(chain, config)).map(|(balance, claimed)| balance - claimed);
    let receivers = IChannels::receiversCall { receiver: address(RECEIVER), token: CREDIT };
    let receiver = chain.view(Module::Escrow, receivers);
    let owed = held.sum::<u128>() + receiver.totalClaimed - receiver.totalSettled;
    assert_eq!(chain.balance(ESCROW), U256::from(owed));
    assert_eq!(chain.balance(DEPOSIT_COLLECTOR), U256::ZERO);
    check_solvency(chain);
}

/// What PyPI's `x402` 2.25 computes for the same.
#[test]
fn identities_and_digests_are_those_of_the_stock_clients() {
    let config = ChannelConfig {
        payer: Address::repeat_byte(1),
        payerAuthorizer: Address::repeat_byte(2),
        receiver: Address::repeat_byte(3),
        receiverAuthorizer: Address::repeat_byte(4),
        token: CREDIT,
        withdrawDelay: U40::from(900),
        salt: B256::repeat_byte(5),
    };
    let expected = b256!("36682eaf257ed6eaaa59ebf64b9e5c78879a80f96c20bbeb7aff7457171db855");
    assert_eq!(id(&config), expected);
    let voucher = b256!("ac3b219e771ae0db69b8b30b012d2988a6f40226a7423a2a330a4eb207de25b8");
    assert_eq!(ChannelDigests::of_escrow(CHAIN_ID).voucher(expected, 123_456_789), voucher);
    let nonce = b256!("7e3b77c2a3803c00fa76a30394e6096453a45c6bc96a8c12e712beb79bba8aec");
    assert_eq!(deposit_nonce(&expected, U256::from_be_bytes([6; 32])), nonce);
    // The chain says the same, at the address that the clients ask.
    let chain = chain();
    assert_eq!(chain.view(Module::Escrow, IChannels::getChannelIdCall { config }), expected);
    let get = IChannels::getVoucherDigestCall { channelId: expected, maxClaimableAmount: 123_456_789 };
    assert_eq!(chain.view(Module::Escrow, get.clone()), voucher);
    assert_ne!(chain.view(Module::Channels, get), voucher);
}

#[test]
fn what_a_payer_signed_is_deposited_claimed_and_settled() {
    let mut chain = chain();
    let config = config(PAYER, 0);
    let (payer, receiver) = (chain.balance(address(PAYER)), chain.balance(address(RECEIVER)));
    let first = Deposit::new(PAYER, 1_000, 1);
    deposit(&mut chain, &first).expect("deposited");
    deposit(&mut chain, &Deposit::new(PAYER, 500, 2)).expect("more");
    assert_eq!(totals(&chain, &config), (1_500, 0));
    assert_eq!(chain.balance(address(PAYER)), payer - U256::from(1_500));
    let authorization = first.authorization();
    let used = ICredit::authorizationUseCall { authorizer: address(PAYER), nonce: authorization.nonce };
    let used = chain.view(Module::Credit, used);
    assert_eq!((used.digest, used.moved), (receive_digest(CHAIN_ID, &authorization), U256::from(1_000)));

    claim_one(&mut chain, claim(&config, PAYER, 1_200, 700)).expect("claimed");
    let fee = |chain: &Chain| U256::from(chain.last.as_ref().unwrap().gas_used) * U256::from(GAS_PRICE);
    let fees = fee(&chain);
    check_escrow(&chain, std::slice::from_ref(&config));
    settle(&mut chain).expect("settled");
    // All of it, at once: nothing of it is held back for audits.
    assert_eq!(chain.balance(address(RECEIVER)), receiver + U256::from(700) - fees);
    refused(settle(&mut chain), "escrow: nothing is to be settled");
    check_escrow(&chain, std::slice::from_ref(&config));

    // The payer leaves with the rest after the delay, or the receiver gives it back at once.
    let initiate = IChannels::initiateWithdrawCall { config: config.clone(), amount: 300 };
    call(&mut chain, PAYER, initiate).expect("begun");
    let finalize = || IChannels::finalizeWithdrawCall { config: config.clone() };
    refused(call(&mut chain, PAYER, finalize()), "escrow: the delay is not over");
    chain.wait(DELAY_S);
    call(&mut chain, PAYER, finalize()).expect("left");
    assert_eq!(totals(&chain, &config), (1_200, 700));
    let refund = IChannels::refundCall { config: config.clone(), amount: u128::MAX };
    call(&mut chain, RECEIVER, refund).expect("refunded");
    assert_eq!(totals(&chain, &config), (700, 700));
    check_escrow(&chain, &[config]);
}

#[test]
fn deposits_that_were_not_signed_so_are_refused() {
    let mut chain = chain();
    deposit(&mut chain, &Deposit::new(PAYER, 1_000, 1)).expect("deposited");
    let now = chain.header.timestamp_ms / 1_000;
    let mut check = |given: Deposit, expected: &str| refused(deposit(&mut chain, &given), expected);
    check(Deposit::new(PAYER, 1_000, 1), "escrow: the authorization is used or canceled");
    let unsigned = "escrow: the authorization is not signed by its payer";
    check(Deposit::with(|d| (d.salt, d.by) = (U256::from(2), STRANGER)), unsigned);
    check(Deposit::with(|d| (d.salt, d.signed) = (U256::from(2), 999)), unsigned);
    // What was signed for somebody else to receive is not the collector's.
    check(Deposit::with(|d| (d.salt, d.to) = (U256::from(2), ESCROW)), unsigned);
    let late = "escrow: the authorization is expired";
    check(Deposit::with(|d| (d.salt, d.before) = (U256::from(2), now)), late);
    let early = "escrow: the authorization is not yet valid";
    check(Deposit::with(|d| (d.salt, d.after) = (U256::from(2), now + 1_000)), early);
    let rich = Deposit::new(PAYER, u128::MAX, 2);
    check(rich, "escrow: the transfer exceeds the balance");
    check(Deposit::new(PAYER, 0, 2), "escrow: nothing was sent");
    let elsewhere = "escrow: the collector is not that of EIP-3009 authorizations";
    check(Deposit::with(|d| d.collector = Address::ZERO), elsewhere);
    let token = "escrow: a channel holds the native credit: its token is the credit module";
    let foreign = |d: &mut Deposit| (d.salt, d.config.token) = (U256::from(2), Address::ZERO);
    check(Deposit::with(foreign), token);
    let short = |d: &mut Deposit| (d.salt, d.config.withdrawDelay) = (U256::from(2), U40::from(9));
    check(Deposit::with(short), "escrow: the withdrawal delay is out of bounds");
    let mut malformed = Deposit::new(PAYER, 5, 3).call();
    malformed.collectorData = Bytes::from_static(&[0; 31]);
    refused(call(&mut chain, STRANGER, malformed), "escrow: what is given to the collector is malformed");
    // A deposit for one channel is none for another.
    let mut other = Deposit::new(PAYER, 5, 3).call();
    other.config.salt = B256::repeat_byte(9);
    refused(call(&mut chain, STRANGER, other), unsigned);
    let paid = chain.try_call(PAYER, Module::Escrow, U256::from(5), Deposit::new(PAYER, 5, 3).call());
    refused(paid, "escrow: the function takes no value");
    // Nobody else is the collector.
    let ReceiveWithAuthorization { from, to, value, validAfter, validBefore, nonce } =
        Deposit::new(PAYER, 5, 3).authorization();
    let signature = signed_by(PAYER, &receive_digest(CHAIN_ID, &Deposit::new(PAYER, 5, 3).authorization()));
    let stolen = ICredit::receiveWithAuthorization_0Call {
        from,
        to,
        value,
        validAfter,
        validBefore,
        nonce,
        signature,
    };
    let stolen = chain.try_call(STRANGER, Module::Credit, U256::ZERO, stolen);
    refused(stolen, "credit: the caller is not the payee");
    assert_eq!(totals(&chain, &config(PAYER, 0)), (1_000, 0));
    check_escrow(&chain, &[config(PAYER, 0)]);
}

#[test]
fn vouchers_of_one_house_are_worth_nothing_in_the_other() {
    let mut chain = chain();
    deposit(&mut chain, &Deposit::new(PAYER, 1_000, 1)).expect("deposited");
    let mut foreign = claim(&config(PAYER, 0), PAYER, 500, 500);
    let digests = ChannelDigests::new(CHAIN_ID);
    let channel = digests.channel_id(&foreign.voucher.channel);
    foreign.signature = signed_by(PAYER, &digests.voucher(channel, 500));
    refused(claim_one(&mut chain, foreign), "escrow: the voucher is not signed by the payer authorizer");
    let good = claim(&config(PAYER, 0), PAYER, 500, 500);
    let there = IChannels::claimCall { voucherClaims: vec![good.clone()] };
    let there = chain.try_call(RECEIVER, Module::Channels, U256::ZERO, there);
    refused(there, "channels: the claim exceeds the channel's balance");
    let more = claim(&config(PAYER, 0), PAYER, 1_001, 1_001);
    refused(claim_one(&mut chain, more), "escrow: the claim exceeds the channel's balance");
    claim_one(&mut chain, good).expect("claimed");
    let native = IChannels::settleCall { receiver: address(RECEIVER), token: Address::ZERO };
    let native = call(&mut chain, STRANGER, native);
    refused(native, "escrow: only the native credit is settled: the token is the credit module");
    check_escrow(&chain, &[config(PAYER, 0)]);
}

#[test]
fn what_admission_prepares_is_what_execution_needs() {
    let mut chain = chain();
    deposit(&mut chain, &Deposit::new(PAYER, 1_000, 1)).expect("deposited");
    let claims = vec![claim(&config(PAYER, 0), PAYER, 400, 400)];
    let input = IChannels::claimCall { voucherClaims: claims }.abi_encode();
    let [(digest, signature)] = signatures_of(House::Escrow, CHAIN_ID, &input)[..] else {
        panic!("one signature")
    };
    assert_eq!(recover(&digest, &signature), Some(address(PAYER)));
    assert!(slots_of(House::Escrow, CHAIN_ID, &input).iter().any(|slot| slot.module == ESCROW));
    let nonce = chain.account(address(RECEIVER)).nonce;
    let transaction =
        chain.transaction(RECEIVER, nonce, alloy_primitives::TxKind::Call(ESCROW), U256::ZERO, input);
    let header = chain.next_header();
    let (executed, passes) =
        crate::testing::execute_by_cache(&chain, &header, std::slice::from_ref(&transaction), |_| {});
    assert!(executed.expect("valid").receipts[0].envelope.status());
    assert!(passes <= 3, "{passes}");
}

#[derive(Debug, Clone)]
enum Step {
    Deposit { payer: u64, salt: u8, amount: u64, nonce: u64 },
    Claim { payer: u64, salt: u8, most: u64, total: u64 },
    Settle,
    Initiate { payer: u64, salt: u8, amount: u64 },
    Finalize { payer: u64, salt: u8 },
    Refund { payer: u64, salt: u8, amount: u64 },
    Wait,
}

fn step() -> impl Strategy<Value = Step> {
    let (payer, salt, amount) = (3u64..5, 0u8..2, 0u64..2_000);
    prop_oneof![
        (payer.clone(), salt.clone(), amount.clone(), 0u64..6)
            .prop_map(|(payer, salt, amount, nonce)| Step::Deposit { payer, salt, amount, nonce }),
        (payer.clone(), salt.clone(), amount.clone(), amount.clone())
            .prop_map(|(payer, salt, most, total)| Step::Claim { payer, salt, most, total }),
        Just(Step::Settle),
        (payer.clone(), salt.clone(), amount.clone()).prop_map(|(payer, salt, amount)| Step::Initiate {
            payer,
            salt,
            amount
        }),
        (payer.clone(), salt.clone()).prop_map(|(payer, salt)| Step::Finalize { payer, salt }),
        (payer, salt, amount).prop_map(|(payer, salt, amount)| Step::Refund { payer, salt, amount }),
        Just(Step::Wait),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, max_shrink_iters: 400, ..ProptestConfig::default() })]
    #[test]
    fn whatever_is_called_the_escrow_covers_what_it_owes(steps in prop::collection::vec(step(), 1..40)) {
        let mut chain = chain();
        let together = chain.together();
        for step in steps {
            // Most of these are refused; none may make or lose anything.
            let _ = match step {
                Step::Deposit { payer, salt, amount, nonce } => {
                    let mut given = Deposit::new(payer, u128::from(amount), nonce);
                    given.config = config(payer, salt);
                    deposit(&mut chain, &given)
                }
                Step::Claim { payer, salt, most, total } => {
                    let (most, total) = (u128::from(most), u128::from(total));
                    claim_one(&mut chain, claim(&config(payer, salt), payer, most, total))
                }
                Step::Settle => settle(&mut chain),
                Step::Initiate { payer, salt, amount } => {
                    let amount = u128::from(amount);
                    let asked = IChannels::initiateWithdrawCall { config: config(payer, salt), amount };
                    call(&mut chain, payer, asked).map(drop)
                }
                Step::Finalize { payer, salt } => {
                    let asked = IChannels::finalizeWithdrawCall { config: config(payer, salt) };
                    call(&mut chain, payer, asked).map(drop)
                }
                Step::Refund { payer, salt, amount } => {
                    let amount = u128::from(amount);
                    let asked = IChannels::refundCall { config: config(payer, salt), amount };
                    call(&mut chain, RECEIVER, asked).map(drop)
                }
                Step::Wait => {
                    chain.wait(DELAY_S);
                    Ok(())
                }
            };
        }
        let configs: Vec<ChannelConfig> =
            (3..5).flat_map(|payer| (0..2).map(move |salt| config(payer, salt))).collect();
        for config in &configs {
            let (balance, claimed) = totals(&chain, config);
            prop_assert!(claimed <= balance);
        }
        check_escrow(&chain, &configs);
        prop_assert_eq!(chain.together(), together);
    }
}
