//! Row 9: the answer is ended before the model ends it.

use surety_proof::Fault;
use surety_types::{FinishReason, Order};
use surety_worker::audit::Discrepancy;

use crate::liar::{Computed, compute};
use crate::{CASE, Refused};

/// The answer without its last token.
fn shorter() -> Computed {
    let case = &*CASE;
    let tokens = case.honest.tokens.len() as u32 - 1;
    compute(&case.liar.model, &case.request, &Order { max_output_tokens: tokens, ..case.order.clone() })
}

#[test]
fn a_stop_one_token_early_is_refused() {
    let claim = Computed { finish: FinishReason::Stop, ..shorter() };
    match CASE.claim(&claim) {
        Err(Refused::Recomputation(Discrepancy::Finish { claimed: FinishReason::Stop, computed: None })) => {}
        other => panic!("{other:?}"),
    }
}

#[test]
fn every_other_excuse_for_it_is_refused() {
    let (case, claim) = (&*CASE, shorter());
    let limit = claim.tokens.len() as u32;
    let refused = |finish, lowered: bool| {
        let claim = Computed { finish, ..claim.clone() };
        let answer = case.sign(&claim, |acceptance, _| {
            if lowered {
                acceptance.max_output_tokens = limit;
            }
        });
        match case.judge(&answer) {
            Err(Refused::Check(fault)) => fault,
            other => panic!("{other:?}"),
        }
    };
    assert!(matches!(refused(FinishReason::Length, false), Fault::LimitNotReached { .. }));
    assert!(matches!(refused(FinishReason::Length, true), Fault::LimitNotTheContext { .. }));
    assert!(matches!(refused(FinishReason::Cancelled, false), Fault::NotCancelled));
    assert!(matches!(refused(FinishReason::Unpaid, false), Fault::NothingToPay));
}
