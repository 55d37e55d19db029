//! Row 13: nothing is computed.

use surety_types::Digest;

use crate::CASE;
use crate::liar::Computed;

#[test]
fn random_tokens_are_refused_at_the_first() {
    let case = &*CASE;
    let mut state = 0x9E37_79B9_7F4A_7C15_u64;
    let tokens = std::iter::repeat_with(|| {
        state = state.wrapping_mul(0x5851_F42D_4C95_7F2D).wrapping_add(1);
        (state >> 40) as u32 % 1_000
    });
    let tokens: Vec<u32> = tokens.take(case.honest.tokens.len()).collect();
    let bytes = case.liar.model.tokenizer().decode_bytes(&tokens);
    let text = String::from_utf8_lossy(&bytes).into_owned();
    let claim = Computed { tokens, text, state_digest: Digest([3; 32]), ..case.honest.clone() };
    assert_eq!(case.refused_at_a_token(&claim), 0);
}

/// Tokens that another worker computed, seen on the wire: the states are not in them.
#[test]
fn copied_tokens_are_refused_by_their_state() {
    let case = &*CASE;
    for state_digest in [Digest::ZERO, Digest([3; 32])] {
        case.refused_by_its_state(&Computed { state_digest, ..case.honest.clone() });
    }
}
