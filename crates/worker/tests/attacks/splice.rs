//! Row 15: parts of two answers are put together.

use surety_proof::{Fault, commit::state_commitment};
use surety_types::{Answer, PublicKey, SecretKey};
use surety_worker::audit::Discrepancy;

use crate::liar::{Computed, bundled_file, chat};
use crate::{CASE, Case, Refused};

#[test]
fn states_of_another_request_are_refused() {
    let case = &*CASE;
    let other =
        Case::of(bundled_file().to_vec(), chat("A street in Rome.", "What news from the sea?"), |_| {});
    assert_ne!(other.honest.state_digest, case.honest.state_digest);
    case.refused_by_its_state(&Computed { state_digest: other.honest.state_digest, ..case.honest.clone() });

    // Its receipt, its acceptance, its words.
    let (ours, theirs) = (case.sign(&case.honest, |_, _| {}), other.sign(&other.honest, |_, _| {}));
    let fault = |answer: Answer| match case.judge(&answer) {
        Err(Refused::Check(fault)) => fault,
        other => panic!("{other:?}"),
    };
    let spliced = Answer { receipt: theirs.receipt.clone(), ..ours.clone() };
    assert!(matches!(fault(spliced), Fault::ReceiptOfOtherOrder));
    let spliced = Answer { acceptance: theirs.acceptance, receipt: theirs.receipt, ..ours.clone() };
    assert!(matches!(fault(spliced), Fault::AcceptanceOfOtherOrder));
    let spliced = Answer { text: theirs.text, ..ours.clone() };
    assert!(matches!(fault(spliced), Fault::TextDigest));
    let spliced = Answer { request: theirs.request, ..ours };
    assert!(matches!(fault(spliced), Fault::OtherRequest));
}

/// A commitment is bound to a key and a salt: another worker's, over the right states, does not open under this one's.
#[test]
fn another_workers_commitment_is_refused() {
    let case = &*CASE;
    let theirs: PublicKey = SecretKey::from_bytes(&[55; 32]).public();
    let answer = case.sign(&case.honest, |_, receipt| {
        receipt.state_commitment = state_commitment(&theirs, &case.salt, &case.honest.state_digest);
    });
    let refused = case.judge(&answer);
    assert!(
        matches!(refused, Err(Refused::Recomputation(Discrepancy::State(Fault::OtherState)))),
        "{refused:?}"
    );
}
