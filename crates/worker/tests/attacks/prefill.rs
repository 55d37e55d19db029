//! Row 11: a small model writes; the right one is run over what it wrote, so that the states are genuine.

use surety_proof::check_state;
use surety_types::{Receipt, Signed};

use crate::engine::{Engine, Honest};
use crate::liar::{Computed, bundled_file};
use crate::{CASE, shallow};

#[test]
fn genuine_states_under_another_models_words_are_refused() {
    let case = &*CASE;
    let small = shallow(bundled_file(), 4..6);
    let written = Engine::of(&small).answer(&Honest, case, &mut |_, token| token);
    let state_digest = Engine::of(&case.file).forced(&Honest, &written.prompt, &written.tokens);
    assert_ne!(state_digest, written.state_digest);
    let claim = Computed { state_digest, ..written };
    let answer = case.sign(&claim, |_, _| {});
    // The evidence by itself is in order: these are the ordered model's states over these tokens.
    let receipt = Signed::<Receipt>::open(answer.receipt.as_ref().unwrap()).unwrap();
    check_state(&receipt, &answer.salt, &state_digest).unwrap();
    case.refused_at_a_token(&claim);
}
