//! Attention as A-6 defines it, one query head at a time.

use super::cache::HeadPages;
use super::{PAGE_POSITIONS, POSITION_SEGMENT, Rows};
use crate::{half, norm, rotary, step};

/// for some rows of one key/value head.
pub(super) fn prepare(rows: &Rows<'_>) {
    for row in rows.rows.clone() {
        // SAFETY: the item owns these rows of its head.
        #[allow(unsafe_code)]
        let (queries, key) = unsafe { (rows.queries(row), rows.key(row)) };
        let value = rows.value(row);
        let turn = |head: &mut [f32], weight: Option<&[f32]>| {
            if let (Some(weight), Some(norms)) = (weight, rows.step.norms) {
                let projected = head.to_vec();
                norm::scalar::rms_norm(&projected, weight, norms.eps, head);
            }
            rotary::scalar::rotate(head, rows.rotary_row(row), rows.step.pairs);
        };
        let mut finite = true;
        for query in queries.chunks_exact_mut(key.len()) {
            turn(query, rows.step.norms.map(|norms| norms.q));
            finite &= query.iter().all(|q| q.is_finite());
        }
        turn(key, rows.step.norms.map(|norms| norms.k));
        let (page, slot) = rows.place(row);
        for (d, (key, value)) in key.iter().zip(value).enumerate() {
            // SAFETY: the item alone writes this head's cells of its own positions.
            #[allow(unsafe_code)]
            let (key_cell, value_cell) =
                unsafe { (&mut *rows.pages.key(page, d, slot), &mut *rows.pages.value(page, d, slot)) };
            finite &= store(*key, key_cell);
            finite &= store(*value, value_cell);
        }
        if !finite {
            rows.faults.set(row);
        }
    }
}

/// Rounds a key or value to binary16; one that is not finite becomes +0 and is reported.
fn store(x: f32, cell: &mut u16) -> bool {
    let narrowed = step::narrowed(x);
    *cell = narrowed.unwrap_or(0);
    narrowed.is_some()
}

/// for some queries of one key/value head.
pub(super) fn attend(rows: &Rows<'_>, scratch: &mut [f32]) {
    let longest = (0..rows.count()).map(|i| rows.visible(i)).max().unwrap_or(0);
    let entries = Entries::new(&rows.pages, longest);
    for i in 0..rows.count() {
        // SAFETY: the item owns its queries and their outputs.
        #[allow(unsafe_code)]
        let (query, out) = unsafe { (rows.query(i), rows.out(i)) };
        if !attend_one(query, &entries, &mut scratch[..rows.visible(i)], out) {
            rows.faults.set(rows.row_of(i));
        }
    }
}

/// Keys and values, widened: `[position][dimension]`.
struct Entries {
    keys: Vec<Vec<f32>>,
    values: Vec<Vec<f32>>,
}

impl Entries {
    /// The first `count` positions of a sequence.
    fn new(pages: &HeadPages<'_>, count: usize) -> Entries {
        let widened = |cell: &dyn Fn(usize, usize, usize) -> *mut u16| {
            let position = |t: usize| {
                // SAFETY: cells of positions stored in this step or before.
                #[allow(unsafe_code)]
                let widen = |d| half::widen(unsafe { *cell(t / PAGE_POSITIONS, d, t % PAGE_POSITIONS) });
                (0..pages.head_dim).map(widen).collect()
            };
            (0..count).map(position).collect()
        };
        Entries {
            keys: widened(&|page, d, slot| pages.key(page, d, slot)),
            values: widened(&|page, d, slot| pages.value(page, d, slot)),
        }
    }
}

/// One query that sees as many positions, from 0, as `p` is long. Whether every score was finite.
fn attend_one(query: &[f32], entries: &Entries, p: &mut [f32], out: &mut [f32]) -> bool {
    for (score, key) in p.iter_mut().zip(&entries.keys) {
        *score = step::score(query, key);
    }
    let finite = p.iter().all(|score| score.is_finite());
    let m = step::ceiling(step::greatest(None, p));
    for score in p.iter_mut() {
        *score = step::attention_weight(*score, m);
    }
    let inverse = step::reciprocal(p.chunks(POSITION_SEGMENT).fold(0.0, step::normaliser));
    for (d, out) in out.iter_mut().enumerate() {
        let segments = p.chunks(POSITION_SEGMENT).zip(entries.values.chunks(POSITION_SEGMENT));
        let sum = segments.fold(None, |before, (p, values)| {
            let values: Vec<f32> = values.iter().zip(p).map(|(value, _)| value[d]).collect();
            Some(step::value_sum(before, p, &values))
        });
        *out = step::attended(sum.expect("a position is visible"), inverse);
    }
    finite
}
