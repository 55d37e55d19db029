//! Row 12: an answer that was given before is given again.

use surety_proof::{Fault, check_answer};
use surety_types::{Amount, Answer, Order, Price, Seed, Signed};

use crate::liar::{bundled_file, chat, compute};
use crate::{CASE, Case, Refused};

#[test]
fn an_old_receipt_does_not_answer_a_new_order() {
    let case = &*CASE;
    let old = case.sign(&case.honest, |_, _| {});
    let renewed = Order { nonce: [44; 32], ..case.order.clone() };
    let order = Signed::sign(renewed.clone(), &case.liar.payer).bytes().to_vec();
    let refused = case.judge(&Answer { order: order.clone(), ..old.clone() });
    assert!(matches!(refused, Err(Refused::Check(Fault::AcceptanceOfOtherOrder))), "{refused:?}");
    // Accepted anew, with the receipt of before.
    let accepted = case.sign(&case.honest, |acceptance, _| acceptance.order = renewed.digest()).acceptance;
    let refused = case.judge(&Answer { order, acceptance: accepted, ..old });
    assert!(matches!(refused, Err(Refused::Check(Fault::ReceiptOfOtherOrder))), "{refused:?}");
}

/// The caller's seed makes it the same answer: signed for the new order it is correct, however it came about. Where the
/// nonce is the seed, it is another one.
#[test]
fn a_reply_signed_anew_is_as_good_as_its_tokens() {
    let case = &*CASE;
    let renewed = Order { nonce: [44; 32], ..case.order.clone() };
    let answer = case.liar.answer(&renewed, &case.request, &case.honest);
    case.judge(&answer).unwrap();

    let request = chat("A street in Rome.", "What news from the wars?");
    let by_nonce = Case::of(bundled_file().to_vec(), request, |order| order.seed = Seed::Nonce);
    let before = Order { nonce: [44; 32], ..by_nonce.order.clone() };
    let cached = compute(&by_nonce.liar.model, &by_nonce.request, &before);
    by_nonce.refused_at_a_token(&cached);
}

/// Which tokens of the prompt came from a cache is the worker's word; what they cost is not.
#[test]
fn what_came_from_a_cache_is_not_seen_but_what_it_costs_is_bounded() {
    let case = &*CASE;
    let price = Price { prompt: Amount(100_000), cached: Amount(10_000), output: Amount(1_000_000) };
    let order = Order { price_ceiling: price, ..case.order.clone() };
    let (prompt, output) = (case.honest.prompt.len() as u32, case.honest.tokens.len() as u32);
    let billed = |price: Price, cached: u32, more: u128| {
        let answer = case.liar.sign(&order, &case.request, &case.honest, |acceptance, receipt| {
            (acceptance.price, receipt.price) = (price, price);
            receipt.cached_tokens = cached;
            receipt.charge = price.charge(prompt, cached, output).unwrap();
            receipt.charge.0 += more;
        });
        case.judge(&answer).map(|_| check_answer(&answer, &Default::default()).unwrap().charge())
    };
    let (fresh, cached) = (billed(price, 0, 0).unwrap(), billed(price, prompt, 0).unwrap());
    assert!(fresh > cached, "{fresh} {cached}");
    let refused = billed(price, 0, 1);
    assert!(matches!(refused, Err(Refused::Check(Fault::Charge { .. }))), "{refused:?}");
    let refused = billed(Price { cached: Amount(10_001), ..price }, 0, 0);
    assert!(matches!(refused, Err(Refused::Check(Fault::PriceAboveCeiling))), "{refused:?}");
}
