//! Row 10: tokens are added that the model did not sample, to be counted.

use surety_proof::Fault;
use surety_types::FinishReason;
use surety_worker::audit::Discrepancy;

use crate::engine::{Engine, Honest};
use crate::liar::Computed;
use crate::{CASE, Refused};

#[test]
fn tokens_after_the_end_are_refused() {
    let case = &*CASE;
    let end = case.honest.tokens.len();
    let mut claim = case.honest.clone();
    claim.tokens.extend(&case.honest.tokens[..4]);
    // With the states that the model has over them.
    claim.state_digest = Engine::of(&case.file).forced(&Honest, &claim.prompt, &claim.tokens);
    match case.claim(&claim) {
        Err(Refused::Recomputation(Discrepancy::PastTheEnd { index })) => assert_eq!(index, end),
        other => panic!("{other:?}"),
    }
    // Or up to the limit, as if there had been no end.
    while claim.tokens.len() < case.order.max_output_tokens as usize {
        claim.tokens.push(300);
    }
    let refused = case.claim(&Computed { finish: FinishReason::Length, ..claim });
    assert!(matches!(refused, Err(Refused::Recomputation(Discrepancy::PastTheEnd { .. }))), "{refused:?}");
}

#[test]
fn tokens_that_spell_nothing_are_refused_where_they_stand() {
    let case = &*CASE;
    let mut claim = case.honest.clone();
    claim.tokens.splice(5..5, [claim.tokens[4]; 3]);
    claim.state_digest = Engine::of(&case.file).forced(&Honest, &claim.prompt, &claim.tokens);
    assert_eq!(case.refused_at_a_token(&claim), 5);
}

#[test]
fn tokens_that_were_only_counted_are_refused() {
    let case = &*CASE;
    let answer = case.sign(&case.honest, |_, receipt| receipt.output_tokens += 10);
    let refused = case.judge(&answer);
    assert!(matches!(refused, Err(Refused::Check(Fault::OutputCount { .. }))), "{refused:?}");
}
