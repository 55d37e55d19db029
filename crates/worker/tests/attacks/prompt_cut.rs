//! Row 4: the middle of a long prompt is dropped.

use std::sync::LazyLock;

use surety_proof::Fault;
use surety_worker::audit::Discrepancy;

use crate::liar::{Computed, bundled_file, chat, compute_from};
use crate::{Case, Refused};

static LONG: LazyLock<Case> = LazyLock::new(|| {
    let tale =
        "The senators of Rome have stored the corn, and edicts for usury support the rich. ".repeat(10);
    Case::of(bundled_file().to_vec(), chat("A street in Rome.", &tale), |order| order.max_output_tokens = 24)
});

/// What the model gives without tokens 100 to 200 of its prompt.
fn cut() -> Computed {
    let case = &*LONG;
    let mut prompt = case.honest.prompt.clone();
    assert!(prompt.len() > 250, "{}", prompt.len());
    prompt.drain(100..200);
    compute_from(&case.liar.model, prompt, &case.request, &case.order)
}

#[test]
fn a_cut_prompt_that_is_counted_is_refused_by_its_count() {
    let (case, claim) = (&*LONG, cut());
    match case.claim(&claim) {
        Err(Refused::Recomputation(Discrepancy::PromptCount { claimed, found })) => {
            assert_eq!((claimed as usize, found), (claim.prompt.len(), claim.prompt.len() + 100));
        }
        other => panic!("{other:?}"),
    }
    // Accepted for all of it, receipted for less.
    let refused = case.judge(&case.sign(&claim, |acceptance, _| acceptance.prompt_tokens += 100));
    assert!(matches!(refused, Err(Refused::Check(Fault::PromptCount { .. }))), "{refused:?}");
}

#[test]
fn a_cut_prompt_that_is_filled_up_is_refused_by_its_digest() {
    let (case, mut claim) = (&*LONG, cut());
    claim.prompt.splice(100..100, [300; 100]);
    assert_eq!(claim.prompt.len(), case.honest.prompt.len());
    let refused = case.claim(&claim);
    assert!(matches!(refused, Err(Refused::Recomputation(Discrepancy::PromptTokens))), "{refused:?}");
}

#[test]
fn a_cut_prompt_that_is_not_admitted_is_refused_by_the_answer() {
    LONG.refused_at_a_token(&Computed { prompt: LONG.honest.prompt.clone(), ..cut() });
}
