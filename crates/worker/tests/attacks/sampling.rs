//! Row 7: the logits are right, and the token is drawn otherwise than ordered.

use surety_types::{Order, Sampling};
use surety_worker::audit::Discrepancy;

use crate::liar::{Computed, bundled_file, chat, compute};
use crate::{Case, Refused, edited};

#[test]
fn parameters_other_than_the_ordered_ones_are_refused() {
    let ordered = Sampling { temperature: 0.6, top_p: 0.9, ..Sampling::default() };
    let request = chat("A street in Rome.", "Who comes here?");
    let case = Case::of(bundled_file().to_vec(), request, |order| order.sampling = ordered.clone());
    let applied = [
        Sampling { temperature: 0.7, ..ordered.clone() },
        Sampling { temperature: 0.0, ..ordered.clone() },
        Sampling { top_p: 1.0, temperature: 1.2, ..ordered.clone() },
        Sampling { top_k: 2, ..ordered.clone() },
        Sampling { frequency_penalty: 1.0, ..ordered.clone() },
        Sampling { logit_bias: vec![(300, 20.0)], ..ordered },
    ];
    for sampling in applied {
        let order = Order { sampling, ..case.order.clone() };
        case.refused_at_a_token(&compute(&case.liar.model, &case.request, &order));
    }
}

/// Two tokens of one embedding have one logit, and whichever is taken the model goes on alike: nothing but the rule for ties
/// tells the answers apart.
#[test]
fn a_tie_broken_the_other_way_is_refused() {
    let greedy = |order: &mut Order| {
        order.sampling.temperature = 0.0;
        order.max_output_tokens = 12;
    };
    let request = chat("A street in Rome.", "Who comes here?");
    let plain = Case::of(bundled_file().to_vec(), request.clone(), greedy);
    let said = plain.honest.tokens[1];
    let twin = (said + 1..).find(|token| !plain.honest.tokens.contains(token)).unwrap();
    let row = 192 / 32 * 34;
    let tied = edited(bundled_file(), "token_embd.weight", |bytes| {
        bytes.copy_within(said as usize * row..(said as usize + 1) * row, twin as usize * row);
    });
    let case = Case::of(tied, request, greedy);
    assert_eq!(case.honest.tokens, plain.honest.tokens, "the lowest id wins");
    let mut claim = case.honest.clone();
    let index = claim.tokens.iter().rposition(|&token| token == said).unwrap();
    claim.tokens[index] = twin;
    let forced =
        crate::engine::Engine::of(&case.file).forced(&crate::engine::Honest, &claim.prompt, &claim.tokens);
    assert_eq!(forced, case.honest.state_digest, "the states are the same");
    match case.claim(&Computed { state_digest: forced, ..claim }) {
        Err(Refused::Recomputation(Discrepancy::Token { index: at, claimed, computed, .. })) => {
            assert_eq!((at, claimed, computed), (index, twin, said));
        }
        other => panic!("{other:?}"),
    }
}
