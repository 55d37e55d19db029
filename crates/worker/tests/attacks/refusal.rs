//! Row 21: an order that is not liked is failed, for a reason that is made up.

use surety_proof::Fault;
use surety_types::{Amount, Answer, Digest, FailureCode, FinishReason, Outcome, Text};
use surety_worker::audit::Discrepancy;

use crate::liar::Computed;
use crate::{CASE, Refused};

/// A failure signed after the acceptance, with nothing delivered.
fn failed(charge: Amount) -> Answer {
    let case = &*CASE;
    let nothing = Computed {
        tokens: Vec::new(),
        text: String::new(),
        finish: FinishReason::Failed,
        ..case.honest.clone()
    };
    let answer = case.sign(&nothing, |_, receipt| {
        let message = Text::clipped("a value that is not finite");
        receipt.outcome = Outcome::Failed { code: FailureCode::NonFinite, message };
        receipt.state_commitment = Digest::ZERO;
        receipt.first_token_ms = None;
        receipt.charge = charge;
    });
    Answer { salt: [0; 32], ..answer }
}

/// Out of reach: a failure is no answer, so there is nothing to recompute. It earns nothing.
#[test]
fn a_made_up_failure_is_signed_and_free_and_nothing_is_concluded_from_it() {
    let refused = CASE.judge(&failed(Amount::ZERO));
    assert!(matches!(refused, Err(Refused::Recomputation(Discrepancy::Failure(_)))), "{refused:?}");
    let refused = CASE.judge(&failed(Amount(1)));
    assert!(matches!(refused, Err(Refused::Check(Fault::Charge { .. }))), "{refused:?}");
}
