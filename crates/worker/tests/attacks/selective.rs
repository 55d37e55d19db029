//! Row 20: honest to whoever may be an auditor, and to nobody else.

use surety_proof::{Expected, check_evidence};
use surety_types::{Amount, Answer, Envelope, Evidence, Part, Receipt, SecretKey, Signed};
use surety_worker::audit::{Discrepancy, recompute};

use crate::engine::Honest;
use crate::liar::{Computed, bundled_file};
use crate::{CASE, Case, shallow};

/// Nothing has to be planted: what any user is given is the evidence, and it is judged after the fact from what that user keeps.
#[test]
fn what_a_user_keeps_convicts_whatever_auditors_were_given() {
    let case = &*CASE;
    let small = shallow(bundled_file(), 3..6);
    let lie = crate::engine::Engine::of(&small).answer(&Honest, case, &mut |_, token| token);
    let (honest, lie) = (kept(case, &case.honest), kept(case, &lie));
    assert_eq!(judged(case, &honest).unwrap(), case.honest.tokens.len());
    let refused = judged(case, &lie);
    assert!(matches!(refused, Err(Discrepancy::Token { index: 0..=3, .. })), "{refused:?}");
}

/// The evidence file a user of some gateway keeps.
fn kept(case: &Case, claim: &Computed) -> String {
    let answer: Answer = case.sign(claim, |_, _| {});
    let receipt = Signed::<Receipt>::open(answer.receipt.as_ref().unwrap()).unwrap();
    let gateway = SecretKey::from_bytes(&[6; 32]);
    let envelope = Envelope {
        request_id: "req-1".into(),
        gateway: gateway.public(),
        model_name: "shakespeare-demo".into(),
        parts: vec![Part {
            order: case.order.digest(),
            receipt: Some(receipt.digest()),
            worker: receipt.worker,
            first_output_token: 0,
            output_tokens: receipt.output_tokens,
            purpose: None,
        }],
        received_ms: case.order.issued_ms,
        first_byte_ms: case.order.issued_ms,
        done_ms: receipt.done_ms,
        charge: Amount::ZERO,
    };
    let envelope = Signed::sign(envelope, &gateway).bytes().to_vec();
    Evidence { request_id: "req-1".into(), envelope, answers: vec![answer] }.to_json().unwrap()
}

/// Output tokens recomputed from the file alone.
fn judged(case: &Case, evidence: &str) -> Result<usize, Discrepancy> {
    let evidence = Evidence::parse(evidence.as_bytes()).unwrap();
    let checked = check_evidence(&evidence, None, &Expected::default()).expect("signed in proper form");
    let (model, executor) = (&case.liar.model, &case.liar.executor);
    recompute(model, executor, &checked.answers[0], &evidence.answers[0], &mut |_, _| {})
        .map(|recomputed| recomputed.output_tokens)
}
