//! Row 23: where two tokens are nearly as likely, a secret bit decides.

use crate::CASE;
use crate::engine::{Engine, Honest};

/// Logits this near are as good as equal to a reader.
const NEAR: f32 = 1.0;

#[test]
fn bits_hidden_among_near_ties_are_refused_at_the_first() {
    let case = &*CASE;
    let secret = b"the secret";
    let mut bits = (0..secret.len() * 8).map(|bit| secret[bit / 8] >> (bit % 8) & 1);
    let (mut hidden, mut at, mut index) = (0, None, 0);
    let claim = Engine::of(&case.file).answer(&Honest, case, &mut |logits, sampled| {
        let mut order: Vec<u32> = (0..logits.len() as u32).collect();
        order.sort_by(|a, b| logits[*b as usize].total_cmp(&logits[*a as usize]));
        let near = logits[order[0] as usize] - logits[order[1] as usize] < NEAR;
        let token = match near.then(|| bits.next()).flatten() {
            Some(bit) => order[bit as usize],
            None => sampled,
        };
        hidden += u32::from(near);
        if token != sampled && at.is_none() {
            at = Some(index);
        }
        index += 1;
        token
    });
    assert!(hidden > 0, "there are near ties");
    assert_eq!(case.refused_at_a_token(&claim), at.unwrap());
}
