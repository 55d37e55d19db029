//! Row 3: one code of one weight is flipped. It is seen where it changes a bit that is checked, and only there.

use crate::engine::{Engine, Honest};
use crate::liar::{Computed, bundled_file, compute, load};
use crate::{CASE, Case, edited};
use surety_types::{Prompt, Request};

/// Flips the lowest bit of a code of one row.
fn flipped(tensor: &str, row: usize, columns: usize) -> Vec<u8> {
    edited(bundled_file(), tensor, |bytes| bytes[row * columns / 32 * 34 + 2 + 5] ^= 1)
}

#[test]
fn one_flipped_code_is_refused() {
    for (tensor, row, columns) in [
        ("blk.2.ffn_down.weight", 17, 512),
        ("blk.0.attn_q.weight", 3, 192),
        ("blk.5.ffn_gate.weight", 200, 192),
    ] {
        let file = flipped(tensor, row, columns);
        CASE.refused_both_ways(&file, &Honest);
    }
}

/// A token that the answer has nothing to do with: its row is read for no state, and its logit decides no draw.
#[test]
fn a_code_that_changes_no_bit_of_the_answer_is_not_seen_and_where_it_does_it_is() {
    let case = &*CASE;
    let unused =
        (300..).find(|token| !case.honest.prompt.contains(token) && !case.honest.tokens.contains(token));
    let unused = unused.unwrap();
    let file = flipped("token_embd.weight", unused as usize, 192);
    let claim = compute(&load(&file), &case.request, &case.order);
    assert_eq!(claim.state_digest, case.honest.state_digest);
    assert_eq!(claim.tokens, case.honest.tokens);
    // Out of reach of a recomputation, and of no consequence to who asked.
    case.claim(&claim).unwrap();

    // Whoever asks with that token is given other bits.
    let request = Request { prompt: Prompt::Tokens(vec![unused, 300, 301]), ..case.request.clone() };
    let asked = Case::of(bundled_file().to_vec(), request, |order| order.max_output_tokens = 8);
    let honest = &asked.honest;
    let state_digest = Engine::of(&file).forced(&Honest, &honest.prompt, &honest.tokens);
    assert_ne!(state_digest, honest.state_digest);
    asked.refused_by_its_state(&Computed { state_digest, ..honest.clone() });
}
