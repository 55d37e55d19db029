//! Credit as an ERC-20: what it moves, what it refuses, and that nothing is made by it.

use alloy_primitives::{Address, B256, Bytes, U256};
use alloy_sol_types::SolEvent as _;
use proptest::prelude::*;
use surety_types::{
    abi::{
        ICredit::{self, Transfer, authorizationUseReturn},
        Module,
        address::{CHANNELS, CREDIT},
    },
    credit::{
        cancel_digest, receive_digest,
        signed::{ReceiveWithAuthorization, TransferWithAuthorization},
        transfer_digest,
    },
};

use super::CANCELED;
use crate::testing::{CHAIN_ID, Chain, address, credits, signed_by};

const PAYER: u64 = 4;
const PAYEE: u64 = 5;
const STRANGER: u64 = 6;

fn call<C: alloy_sol_types::SolCall>(chain: &mut Chain, who: u64, call: C) -> Result<C::Return, String> {
    chain.try_call(who, Module::Credit, U256::ZERO, call)
}

fn refused<T: std::fmt::Debug>(result: Result<T, String>, expected: &str) {
    assert_eq!(result.expect_err("refused"), format!("credit: {expected}"));
}

fn balance(chain: &Chain, who: u64) -> U256 {
    let view = chain.view(Module::Credit, ICredit::balanceOfCall { account: address(who) });
    assert_eq!(view, chain.balance(address(who)));
    view
}

/// An authorization of the payer's for the payee, good at any time.
fn transfer(value: u64, nonce: u8) -> TransferWithAuthorization {
    TransferWithAuthorization {
        from: address(PAYER),
        to: address(PAYEE),
        value: U256::from(value),
        validAfter: U256::ZERO,
        validBefore: U256::from(u64::MAX),
        nonce: B256::repeat_byte(nonce),
    }
}

fn made(transfer: &TransferWithAuthorization, signature: Bytes) -> ICredit::transferWithAuthorization_0Call {
    let TransferWithAuthorization { from, to, value, validAfter, validBefore, nonce } = *transfer;
    ICredit::transferWithAuthorization_0Call { from, to, value, validAfter, validBefore, nonce, signature }
}

fn signed(transfer: &TransferWithAuthorization) -> ICredit::transferWithAuthorization_0Call {
    made(transfer, signed_by(PAYER, &transfer_digest(CHAIN_ID, transfer)))
}

fn drawn(transfer: &TransferWithAuthorization, amount: u64) -> ICredit::drawWithAuthorizationCall {
    let ICredit::transferWithAuthorization_0Call {
        from,
        to,
        value,
        validAfter,
        validBefore,
        nonce,
        signature,
    } = signed(transfer);
    let amount = U256::from(amount);
    ICredit::drawWithAuthorizationCall { from, to, value, validAfter, validBefore, nonce, signature, amount }
}

fn using(chain: &Chain, nonce: u8) -> (bool, authorizationUseReturn) {
    let (authorizer, nonce) = (address(PAYER), B256::repeat_byte(nonce));
    let used = chain.view(Module::Credit, ICredit::authorizationStateCall { authorizer, nonce });
    (used, chain.view(Module::Credit, ICredit::authorizationUseCall { authorizer, nonce }))
}

#[test]
fn it_is_the_ledgers_own_money() {
    let mut chain = Chain::new();
    let together = chain.together();
    let view = |chain: &Chain| chain.view(Module::Credit, ICredit::totalSupplyCall {});
    assert_eq!(view(&chain), together);
    assert_eq!(chain.view(Module::Credit, ICredit::decimalsCall {}), 18);
    assert_eq!(chain.view(Module::Credit, ICredit::nameCall {}), "Surety Credit");
    assert_eq!(chain.view(Module::Credit, ICredit::versionCall {}), "1");
    assert_eq!(chain.view(Module::Credit, ICredit::symbolCall {}), "SRTY");

    let before = (balance(&chain, PAYEE), chain.balance(CREDIT));
    assert!(
        call(&mut chain, PAYER, ICredit::transferCall { to: address(PAYEE), value: U256::from(7) }).unwrap()
    );
    assert_eq!((balance(&chain, PAYEE), chain.balance(CREDIT)), (before.0 + U256::from(7), before.1));
    let noted = &chain.last.as_ref().expect("a block").receipts[0].envelope.logs()[0];
    let event = Transfer::decode_log(noted).expect("a transfer");
    assert_eq!((event.address, event.from, event.to), (CREDIT, address(PAYER), address(PAYEE)));
    assert_eq!((view(&chain), chain.together()), (together, together));
}

#[test]
fn nobody_moves_what_is_not_there_or_to_where_it_would_be_lost() {
    let mut chain = Chain::new();
    let all = ICredit::transferCall { to: address(PAYEE), value: credits(1_000_000) };
    refused(call(&mut chain, PAYER, all), "the transfer exceeds the balance");
    for to in [Address::ZERO, CHANNELS, CREDIT] {
        let lost = ICredit::transferCall { to, value: U256::from(1) };
        refused(call(&mut chain, PAYER, lost), "the receiver is nobody's account");
    }
    let paid = chain.try_call(PAYER, Module::Credit, U256::from(1), ICredit::nameCall {});
    refused(paid, "the function takes no value");
}

#[test]
fn a_spender_moves_what_was_approved_and_no_more() {
    let mut chain = Chain::new();
    let (spender, to) = (address(STRANGER), address(PAYEE));
    let of = |value: u64| ICredit::transferFromCall { from: address(PAYER), to, value: U256::from(value) };
    refused(call(&mut chain, STRANGER, of(1)), "the transfer exceeds the allowance");
    let before = balance(&chain, PAYEE);
    call(&mut chain, PAYER, ICredit::approveCall { spender, value: U256::from(10) }).unwrap();
    call(&mut chain, STRANGER, of(6)).unwrap();
    refused(call(&mut chain, STRANGER, of(5)), "the transfer exceeds the allowance");
    call(&mut chain, STRANGER, of(4)).unwrap();
    let left = ICredit::allowanceCall { account: address(PAYER), spender };
    assert_eq!(chain.view(Module::Credit, left.clone()), U256::ZERO);
    call(&mut chain, PAYER, ICredit::approveCall { spender, value: U256::MAX }).unwrap();
    call(&mut chain, STRANGER, of(5)).unwrap();
    assert_eq!(chain.view(Module::Credit, left), U256::MAX, "no bound is counted down");
    assert_eq!(balance(&chain, PAYEE), before + U256::from(15));
}

#[test]
fn an_authorization_moves_money_once() {
    let mut chain = Chain::new();
    let (payer, payee) = (balance(&chain, PAYER), balance(&chain, PAYEE));
    let first = transfer(100, 1);
    assert_eq!(using(&chain, 1), (false, authorizationUseReturn { digest: B256::ZERO, moved: U256::ZERO }));
    call(&mut chain, STRANGER, signed(&first)).expect("moved");
    let digest = transfer_digest(CHAIN_ID, &first);
    assert_eq!(using(&chain, 1), (true, authorizationUseReturn { digest, moved: U256::from(100) }));
    refused(call(&mut chain, STRANGER, signed(&first)), "the authorization is used or canceled");
    // Another one under the same nonce, too.
    refused(call(&mut chain, STRANGER, signed(&transfer(1, 1))), "the authorization is used or canceled");
    assert_eq!(balance(&chain, PAYER), payer - U256::from(100));
    assert_eq!(balance(&chain, PAYEE), payee + U256::from(100));

    // The same with v, r and s apart.
    let second = transfer(5, 2);
    let bytes = signed_by(PAYER, &transfer_digest(CHAIN_ID, &second));
    let TransferWithAuthorization { from, to, value, validAfter, validBefore, nonce } = second;
    let (r, s, v) = (B256::from_slice(&bytes[..32]), B256::from_slice(&bytes[32..64]), bytes[64]);
    let apart =
        ICredit::transferWithAuthorization_1Call { from, to, value, validAfter, validBefore, nonce, v, r, s };
    call(&mut chain, STRANGER, apart).expect("moved");
    assert_eq!(balance(&chain, PAYEE), payee + U256::from(105));
}

#[test]
fn what_was_not_signed_for_is_refused() {
    let mut chain = Chain::new();
    let foreign = "the authorization is not signed by its payer";
    let honest = transfer(100, 1);
    let signature = signed_by(PAYER, &transfer_digest(CHAIN_ID, &honest));
    let other = address(STRANGER);
    for changed in [
        TransferWithAuthorization { from: other, ..honest.clone() },
        TransferWithAuthorization { to: other, ..honest.clone() },
        TransferWithAuthorization { value: U256::from(101), ..honest.clone() },
        TransferWithAuthorization { validAfter: U256::from(1), ..honest.clone() },
        TransferWithAuthorization { validBefore: U256::MAX, ..honest.clone() },
        TransferWithAuthorization { nonce: B256::ZERO, ..honest.clone() },
        TransferWithAuthorization { from: Address::ZERO, ..honest.clone() },
    ] {
        refused(call(&mut chain, STRANGER, made(&changed, signature.clone())), foreign);
    }
    // Signed for another chain, or as something else; or not at all.
    let elsewhere = signed_by(PAYER, &transfer_digest(CHAIN_ID + 1, &honest));
    refused(call(&mut chain, STRANGER, made(&honest, elsewhere)), foreign);
    let TransferWithAuthorization { from, to, value, validAfter, validBefore, nonce } = honest;
    let receive = ReceiveWithAuthorization { from, to, value, validAfter, validBefore, nonce };
    let received = signed_by(PAYER, &receive_digest(CHAIN_ID, &receive));
    refused(call(&mut chain, STRANGER, made(&honest, received)), foreign);
    refused(call(&mut chain, STRANGER, made(&honest, Bytes::new())), "a signature is not 65 bytes");
    refused(call(&mut chain, STRANGER, made(&honest, vec![0; 65].into())), foreign);
    call(&mut chain, STRANGER, made(&honest, signature)).expect("what was signed");
}

#[test]
fn an_authorization_has_its_time_and_its_payers_balance() {
    let mut chain = Chain::new();
    let now = U256::from(chain.header.timestamp_ms / 1_000);
    let early = TransferWithAuthorization { validAfter: now + U256::from(1_000), ..transfer(1, 1) };
    refused(call(&mut chain, STRANGER, signed(&early)), "the authorization is not yet valid");
    let late = TransferWithAuthorization { validBefore: now, ..transfer(1, 2) };
    refused(call(&mut chain, STRANGER, signed(&late)), "the authorization is expired");
    let dear = TransferWithAuthorization { value: credits(1_000_000), ..transfer(1, 3) };
    refused(call(&mut chain, STRANGER, signed(&dear)), "the transfer exceeds the balance");
    assert_eq!([1, 2, 3].map(|nonce| using(&chain, nonce).0), [false; 3], "what was refused was not used");
}

#[test]
fn only_the_payee_receives_or_draws() {
    let mut chain = Chain::new();
    let payee = balance(&chain, PAYEE);
    let TransferWithAuthorization { from, to, value, validAfter, validBefore, nonce } = transfer(100, 1);
    let receive = ReceiveWithAuthorization { from, to, value, validAfter, validBefore, nonce };
    let signature = signed_by(PAYER, &receive_digest(CHAIN_ID, &receive));
    let received = ICredit::receiveWithAuthorization_0Call {
        from,
        to,
        value,
        validAfter,
        validBefore,
        nonce,
        signature,
    };
    refused(call(&mut chain, STRANGER, received.clone()), "the caller is not the payee");
    let fees = |chain: &Chain| {
        U256::from(chain.last.as_ref().expect("a block").gas_used) * U256::from(crate::testing::GAS_PRICE)
    };
    call(&mut chain, PAYEE, received).expect("received");
    let paid = fees(&chain);
    assert_eq!(balance(&chain, PAYEE), payee + U256::from(100) - paid);

    // A part of what was signed for, once; the rest stays where it is, for good.
    let (payer, payee) = (balance(&chain, PAYER), balance(&chain, PAYEE));
    refused(call(&mut chain, STRANGER, drawn(&transfer(100, 2), 30)), "the caller is not the payee");
    refused(call(&mut chain, PAYER, drawn(&transfer(100, 2), 30)), "the caller is not the payee");
    let paid = fees(&chain);
    let payer = payer - paid;
    refused(call(&mut chain, PAYEE, drawn(&transfer(100, 2), 101)), "the draw exceeds the authorization");
    let paid = fees(&chain);
    call(&mut chain, PAYEE, drawn(&transfer(100, 2), 30)).expect("drawn");
    let paid = paid + fees(&chain);
    assert_eq!(balance(&chain, PAYER), payer - U256::from(30));
    assert_eq!(balance(&chain, PAYEE), payee + U256::from(30) - paid);
    assert_eq!(using(&chain, 2).1.moved, U256::from(30));
    refused(call(&mut chain, PAYEE, drawn(&transfer(100, 2), 30)), "the authorization is used or canceled");
    refused(call(&mut chain, PAYEE, signed(&transfer(100, 2))), "the authorization is used or canceled");
}

#[test]
fn what_was_canceled_moves_nothing() {
    let mut chain = Chain::new();
    let (authorizer, nonce) = (address(PAYER), B256::repeat_byte(1));
    let cancel = |who: u64| ICredit::cancelAuthorization_0Call {
        authorizer,
        nonce,
        signature: signed_by(who, &cancel_digest(CHAIN_ID, authorizer, nonce)),
    };
    refused(call(&mut chain, STRANGER, cancel(STRANGER)), "the authorization is not signed by its payer");
    call(&mut chain, STRANGER, cancel(PAYER)).expect("canceled");
    assert_eq!(using(&chain, 1), (true, authorizationUseReturn { digest: CANCELED, moved: U256::ZERO }));
    refused(call(&mut chain, PAYEE, signed(&transfer(1, 1))), "the authorization is used or canceled");
    refused(call(&mut chain, STRANGER, cancel(PAYER)), "the authorization is used or canceled");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Whatever is moved by whom how: all balances together stay, and no nonce moves money twice.
    #[test]
    fn nothing_is_made_or_lost(steps in prop::collection::vec((0u8..4, 0u64..200, 1u8..6), 1..20)) {
        let mut chain = Chain::new();
        let together = chain.together();
        let mut moved = std::collections::BTreeMap::new();
        for (how, value, nonce) in steps {
            let outcome = match how {
                0 => call(&mut chain, PAYER, ICredit::transferCall { to: address(PAYEE), value: U256::from(value) }).map(drop),
                1 => call(&mut chain, STRANGER, signed(&transfer(value, nonce))).map(drop),
                2 => call(&mut chain, PAYEE, drawn(&transfer(200, nonce), value)).map(drop),
                _ => call(&mut chain, PAYEE, signed(&transfer(value, nonce))).map(drop),
            };
            if how > 0 {
                prop_assert_eq!(outcome.is_err(), moved.contains_key(&nonce));
                moved.entry(nonce).or_insert(value);
                prop_assert_eq!(using(&chain, nonce).1.moved, U256::from(moved[&nonce]));
            }
            prop_assert_eq!(chain.together(), together);
        }
    }
}
