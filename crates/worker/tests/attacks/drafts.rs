//! Row 16: a small model's drafts are taken wherever the ordered one finds them likely enough.

use crate::engine::{Engine, Honest};
use crate::liar::{Computed, bundled_file};
use crate::{CASE, shallow};

/// Drafts at least this likely are not drawn for.
const LIKELY: f32 = 0.05;

#[test]
fn likely_drafts_taken_without_a_draw_are_refused() {
    let case = &*CASE;
    let small = shallow(bundled_file(), 5..6);
    let drafter = Engine::of(&small);
    let mut draft = drafter.sequence(&Honest);
    let mut state = draft.push_all(&case.honest.prompt);
    let (mut taken, mut other_than_drawn) = (0, 0);
    let claim: Computed = Engine::of(&case.file).answer(&Honest, case, &mut |logits, sampled| {
        let drafted = greatest(&drafter.logits(&state));
        let likely = probability(logits, drafted, case.order.sampling.temperature) >= LIKELY;
        let token = if likely { drafted } else { sampled };
        taken += u32::from(likely);
        other_than_drawn += u32::from(token != sampled);
        state = draft.push(token);
        token
    });
    assert!(taken > 0 && other_than_drawn > 0, "{taken} {other_than_drawn}");
    // The states are the ordered model's own; only the draws are missing.
    case.refused_at_a_token(&claim);
}

fn greatest(logits: &[f32]) -> u32 {
    (0..logits.len() as u32).max_by(|a, b| logits[*a as usize].total_cmp(&logits[*b as usize])).unwrap()
}

fn probability(logits: &[f32], token: u32, temperature: f32) -> f32 {
    let weight = |logit: f32| ((logit - logits[token as usize]) / temperature).exp();
    1.0 / logits.iter().map(|&logit| weight(logit)).sum::<f32>()
}
