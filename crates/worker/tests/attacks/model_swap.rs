//! Row 1: another model answers than the one that was ordered.

use xtask::random_model::{self, Format, Settings, Shape};

use crate::engine::Honest;
use crate::liar::{Computed, bundled_file, compute, load};
use crate::{CASE, edited, shallow};

#[test]
fn a_model_of_another_family_is_refused_at_its_first_tokens() {
    let case = &*CASE;
    let settings = Settings { shape: Shape::TinyLlama, format: Format::Q8_0, seed: 4 };
    let own = compute(&load(&random_model::bytes(&settings)), &case.request, &case.order);
    // It says that it was given the prompt as the ordered model's tokenizer cuts it.
    let claim = Computed { prompt: case.honest.prompt.clone(), ..own };
    assert!(case.refused_at_a_token(&claim) <= 3);
}

#[test]
fn a_smaller_model_is_refused_at_its_first_tokens() {
    let smaller = shallow(bundled_file(), 3..6);
    assert!(CASE.refused_both_ways(&smaller, &Honest).unwrap() <= 3);
}

#[test]
fn another_fine_tune_is_refused() {
    // Every weight of two matrices in twelve moves by one step at most.
    let tuned = ["blk.1.ffn_up.weight", "blk.4.attn_q.weight"].iter().fold(
        bundled_file().to_vec(),
        |file, tensor| {
            edited(&file, tensor, |bytes| {
                for (index, code) in bytes.chunks_exact_mut(34).flat_map(|block| &mut block[2..]).enumerate()
                {
                    *code = (*code as i8).saturating_add([-1, 0, 1][index * 7 % 3]) as u8;
                }
            })
        },
    );
    CASE.refused_both_ways(&tuned, &Honest);
}
