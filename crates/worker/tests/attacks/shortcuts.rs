//! Row 17: work is left out: layers, or old positions.

use crate::CASE;
use crate::engine::Cheat;

struct Skips(fn(usize) -> bool);

impl Cheat for Skips {
    fn computes(&self, layer: usize) -> bool {
        !(self.0)(layer)
    }
}

struct Forgets(fn(usize) -> usize);

impl Cheat for Forgets {
    fn sees_from(&self, positions: usize) -> usize {
        (self.0)(positions)
    }
}

#[test]
fn a_skipped_layer_or_an_early_exit_is_refused() {
    CASE.refused_both_ways(&CASE.file, &Skips(|layer| layer == 3));
    CASE.refused_both_ways(&CASE.file, &Skips(|layer| layer >= 5));
}

#[test]
fn dropped_keys_and_values_are_refused() {
    // The oldest tenth; all but a window; none but where the context gets long.
    CASE.refused_both_ways(&CASE.file, &Forgets(|positions| positions / 10));
    CASE.refused_both_ways(&CASE.file, &Forgets(|positions| positions.saturating_sub(16)));
    CASE.refused_both_ways(
        &CASE.file,
        &Forgets(|positions| usize::from(positions > CASE.honest.prompt.len() + 8)),
    );
}
