//! Row 19: a name has moved on to new weights, and the worker serves those of before.

use surety_proof::Fault;
use surety_types::{Answer, Order};
use surety_worker::audit::Discrepancy;

use crate::engine::Honest;
use crate::liar::{Liar, bundled_file, compute, load};
use crate::{CASE, Refused, edited};

/// The version before the one that is ordered.
fn before() -> Vec<u8> {
    edited(bundled_file(), "blk.4.ffn_down.weight", |bytes| {
        bytes.chunks_exact_mut(34).for_each(|block| block[2..].rotate_left(1));
    })
}

#[test]
fn the_version_before_is_refused_under_the_new_ones_name() {
    CASE.refused_both_ways(&before(), &Honest);
}

#[test]
fn the_version_before_is_refused_under_its_own_name() {
    let case = &*CASE;
    let old = load(&before());
    let claim = compute(&old, &case.request, &case.order);
    let fault = |answer: Answer| match case.judge(&answer) {
        Err(Refused::Check(fault)) => fault,
        other => panic!("{other:?}"),
    };
    let named = case.sign(&claim, |_, receipt| receipt.model = old.id());
    assert!(
        matches!(fault(named), Fault::OtherModel { ordered, found } if (ordered, found) == (case.order.model, old.id()))
    );
    let accepted = case.sign(&claim, |acceptance, receipt| {
        (acceptance.model, receipt.model) = (old.id(), old.id());
    });
    assert!(matches!(fault(accepted), Fault::AcceptanceOfOtherModel { .. }));
}

/// There is no grace in which either will do: an order pins its version, and is judged by that one.
#[test]
fn an_order_of_the_version_before_is_judged_by_that_version() {
    let case = &*CASE;
    let old = Liar::of(load(&before()));
    let order = Order { model: old.model.id(), ..case.order.clone() };
    let answer = old.answer(&order, &case.request, &compute(&old.model, &case.request, &order));
    old.judge(&answer).unwrap();
    let refused = case.judge(&answer);
    let by_the_new = matches!(
        refused,
        Err(Refused::Recomputation(Discrepancy::Model { claimed, found }))
            if (claimed, found) == (old.model.id(), case.liar.model.id())
    );
    assert!(by_the_new, "{refused:?}");
}
