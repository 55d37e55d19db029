//! Rows 14 and 48: a row of a shared prefix in the KV cache is edited, by a neighbour or by bad memory.

use crate::CASE;
use crate::engine::Cheat;

/// Changes the row of one position once, as soon as the prefix is there.
struct Edited {
    layer: usize,
    position: usize,
    change: fn(&mut [u16], &mut [u16]),
}

impl Cheat for Edited {
    fn stored(&self, layer: usize, head: usize, keys: &mut [Vec<u16>], values: &mut [Vec<u16>]) {
        if layer == self.layer && head == 0 && keys.len() == self.position + 4 {
            (self.change)(&mut keys[self.position], &mut values[self.position]);
        }
    }
}

#[test]
fn an_edited_row_of_a_shared_prefix_is_refused() {
    let poisoned = Edited {
        layer: 0,
        position: 3,
        change: |key, value| {
            key.fill(0x3c00);
            value.reverse();
        },
    };
    CASE.refused_both_ways(&CASE.file, &poisoned);
}

/// The least that can go wrong in memory. Nothing tells it from a lie, and to who asked it is none the better.
#[test]
fn a_flipped_bit_in_memory_is_refused_like_a_lie() {
    for (layer, position) in [(0, 2), (3, 9), (5, 1)] {
        let flipped = Edited { layer, position, change: |_, value| value[7] ^= 1 << 9 };
        CASE.refused_both_ways(&CASE.file, &flipped);
    }
}
