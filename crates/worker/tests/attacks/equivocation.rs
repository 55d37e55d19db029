//! Row 24: two receipts are signed for one order.

use surety_proof::{Expected, check_answer};
use surety_types::{Order, Receipt, Seed, Signed};

use crate::CASE;
use crate::liar::compute;

#[test]
fn two_receipts_for_one_order_prove_it_by_themselves_and_one_is_refused() {
    let case = &*CASE;
    let other = Order { seed: Seed::Caller(9_999), ..case.order.clone() };
    let other = compute(&case.liar.model, &case.request, &other);
    let [first, second] = [&case.honest, &other].map(|claim| case.sign(claim, |_, _| {}));
    // Each is in order, so that whoever sees one alone believes it until it is recomputed.
    let checked = [&first, &second].map(|answer| check_answer(answer, &Expected::default()).unwrap());
    // Together they are one key's word that one order has two answers (D-4.2).
    let [a, b]: [Signed<Receipt>; 2] = checked.map(|checked| checked.receipt.unwrap());
    assert_eq!((a.order, a.worker), (b.order, b.worker));
    assert!(a.failure().is_none() && b.failure().is_none());
    assert_ne!(a.output_digest, b.output_digest);
    case.judge(&first).unwrap();
    case.refused_at_a_token(&other);

    // An order that comes twice is answered twice: at another time, with the same answer.
    let again = case.sign(&case.honest, |_, receipt| receipt.done_ms += 1);
    assert_ne!(again.receipt, first.receipt);
    case.judge(&again).unwrap();
}
