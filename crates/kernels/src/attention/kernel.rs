//! Attention over the virtual vector: lanes are positions for scores, dimensions for values.
//!
//! In:     the queries of one key/value head, and that head's pages.
//! Out:    their outputs, and which of them met a score that is not finite.
//! Holds:  every chain of `scalar`, in its order. Queries share each reading of keys and values; positions a query
//!         does not see have weight 0 and leave its chains as they are.

#![allow(unsafe_code)]
#![allow(clippy::needless_range_loop, reason = "several arrays of registers share an index")]

use super::{PAGE_POSITIONS, POSITION_SEGMENT, Rows};
use crate::activation::kernel::exp2;
use crate::lane::{Lanes, WIDTH};
use crate::step::score_factor;
use crate::{half, norm, rotary, sample};

const _: () = assert!(PAGE_POSITIONS == WIDTH, "a page's positions are the lanes of a vector");
const _: () = assert!(POSITION_SEGMENT.is_multiple_of(PAGE_POSITIONS), "a segment is whole pages");

/// for some rows of one key/value head: norms, rotary, and the keys and values into their page.
#[inline(always)]
pub(super) fn prepare<V: Lanes>(v: V, rows: &Rows<'_>) {
    for row in rows.rows.clone() {
        // SAFETY: the item owns these rows of its head.
        let (queries, key) = unsafe { (rows.queries(row), rows.key(row)) };
        let value = rows.value(row);
        let table = rows.rotary_row(row);
        let mut fault = false;
        for query in queries.chunks_exact_mut(key.len()) {
            if let Some(norms) = rows.step.norms {
                norm::kernel::rms_norm_in_place(v, query, norms.q, norms.eps);
            }
            rotary::kernel::rotate(v, query, table, rows.step.pairs);
            fault |= !sample::kernel::all_finite(v, query);
        }
        if let Some(norms) = rows.step.norms {
            norm::kernel::rms_norm_in_place(v, key, norms.k, norms.eps);
        }
        rotary::kernel::rotate(v, key, table, rows.step.pairs);
        let (page, slot) = rows.place(row);
        for (i, (key, value)) in
            key.as_chunks::<WIDTH>().0.iter().zip(value.as_chunks::<WIDTH>().0).enumerate()
        {
            let (mut keys, mut values) = ([0; WIDTH], [0; WIDTH]);
            v.store_f16(&mut keys, v.load(key));
            v.store_f16(&mut values, v.load(value));
            for cell in keys.iter_mut().chain(&mut values) {
                if !half::is_finite(*cell) {
                    *cell = 0;
                    fault = true;
                }
            }
            // SAFETY: the item alone writes this head's cells of its own positions.
            unsafe {
                for (d, key) in keys.into_iter().enumerate() {
                    *rows.pages.key(page, i * WIDTH + d, slot) = key;
                }
                rows.pages.value(page, i * WIDTH, slot).cast::<[u16; WIDTH]>().write(values);
            }
        }
        if fault {
            rows.faults.set(row);
        }
    }
}

/// for some queries of one key/value head.
#[inline(always)]
pub(super) fn attend<V: Lanes>(v: V, rows: &Rows<'_>, scratch: &mut [f32]) {
    let mut first = 0;
    macro_rules! take {
        ($count:literal queries, $pages:literal pages, $vectors:literal vectors) => {
            while rows.count() - first >= $count {
                block::<V, $count, $pages, $vectors>(v, rows, first, scratch);
                first += $count;
            }
        };
    }
    if V::WIDE {
        take!(8 queries, 2 pages, 2 vectors);
        take!(4 queries, 4 pages, 4 vectors);
        take!(2 queries, 4 pages, 4 vectors);
        take!(1 queries, 8 pages, 8 vectors);
    } else {
        take!(4 queries, 1 pages, 1 vectors);
        take!(2 queries, 2 pages, 2 vectors);
        take!(1 queries, 4 pages, 4 vectors);
    }
}

/// Q queries at once, over P pages of keys and D vectors of values at a time.
#[inline(always)]
fn block<V: Lanes, const Q: usize, const P: usize, const D: usize>(
    v: V,
    rows: &Rows<'_>,
    first: usize,
    scratch: &mut [f32],
) {
    let head = &rows.pages;
    let mut visible = [0; Q];
    for j in 0..Q {
        visible[j] = rows.visible(first + j);
    }
    let longest = visible.into_iter().max().expect("at least one query");
    let pages = longest.div_ceil(PAGE_POSITIONS);
    let stride = pages * PAGE_POSITIONS;
    let scratch = &mut scratch[..Q * stride];

    let mut page = 0;
    while page + P <= pages {
        scores::<V, Q, P>(v, rows, first, page, scratch, stride);
        page += P;
    }
    while page < pages {
        scores::<V, Q, 1>(v, rows, first, page, scratch, stride);
        page += 1;
    }
    let mut inverse = [0.0; Q];
    for j in 0..Q {
        let (scores, _) = scratch[j * stride..][..stride].as_chunks_mut();
        let (normaliser, finite) = weigh(v, scores, visible[j]);
        inverse[j] = 1.0 / normaliser;
        if !finite {
            rows.faults.set(rows.row_of(first + j));
        }
    }
    let mut d = 0;
    while d + D * WIDTH <= head.head_dim {
        values::<V, Q, D>(v, rows, first, d, longest, scratch, stride, &inverse);
        d += D * WIDTH;
    }
    while d < head.head_dim {
        values::<V, Q, 1>(v, rows, first, d, longest, scratch, stride, &inverse);
        d += WIDTH;
    }
}

/// the scores of Q queries at the positions of P pages.
#[inline(always)]
fn scores<V: Lanes, const Q: usize, const P: usize>(
    v: V,
    rows: &Rows<'_>,
    first: usize,
    page: usize,
    scratch: &mut [f32],
    stride: usize,
) {
    let head = &rows.pages;
    let mut query = [std::ptr::null::<f32>(); Q];
    for j in 0..Q {
        // SAFETY: the item's queries are prepared.
        query[j] = unsafe { rows.query(first + j) }.as_ptr();
    }
    let mut keys = [head.key(page, 0, 0).cast_const(); P];
    for p in 0..P {
        keys[p] = head.key(page + p, 0, 0).cast_const();
    }
    let mut acc = [[v.splat(0.0); P]; Q];
    for d in 0..head.head_dim {
        let mut k = [v.splat(0.0); P];
        for p in 0..P {
            // SAFETY: a page holds 16 keys of each dimension.
            k[p] = v.load_f16(unsafe { &*keys[p].add(d * PAGE_POSITIONS).cast() });
        }
        for j in 0..Q {
            // SAFETY: a query has `head_dim` elements.
            let q = v.splat(unsafe { *query[j].add(d) });
            for p in 0..P {
                acc[j][p] = v.fma(q, k[p], acc[j][p]);
            }
        }
    }
    let factor = v.splat(score_factor(head.head_dim));
    for j in 0..Q {
        let (scores, _) = scratch[j * stride..][..stride].as_chunks_mut();
        for p in 0..P {
            v.store(&mut scores[page + p], v.mul(acc[j][p], factor));
        }
    }
}

/// scores become weights, zero beyond `visible`. The normaliser, and whether the scores were finite.
#[inline(always)]
fn weigh<V: Lanes>(v: V, scores: &mut [[f32; WIDTH]], visible: usize) -> (f32, bool) {
    let pages = visible.div_ceil(PAGE_POSITIONS);
    let (seen, unseen) = scores.split_at_mut(pages);
    // Positions of the last page beyond the visible ones repeat a visible score, which changes no maximum.
    let tail = visible - (pages - 1) * PAGE_POSITIONS;
    let any = seen[0][0];
    seen[pages - 1][tail..].fill(any);
    let mut greatest = v.load(&seen[0]);
    let mut magnitude = v.magnitude(greatest);
    for page in &*seen {
        let scores = v.load(page);
        greatest = v.max(greatest, scores);
        magnitude = v.max_ints(magnitude, v.magnitude(scores));
    }
    let finite = (v.greatest_int(magnitude) as u32) < f32::INFINITY.to_bits();
    let m = v.greatest(greatest).ceil().clamp(-1e6, 1e6) as i32 as f32;

    let least = v.splat(m - 1000.0);
    let mut normaliser = 0.0;
    for (segment, pages_of) in seen.chunks_mut(POSITION_SEGMENT / PAGE_POSITIONS).enumerate() {
        let mut lanes = v.splat(0.0);
        let last = pages - 1 - segment * (POSITION_SEGMENT / PAGE_POSITIONS);
        for (i, page) in pages_of.iter_mut().enumerate() {
            v.store(page, exp2(v, v.max(v.load(page), least), m));
            if i == last {
                page[tail..].fill(0.0);
            }
            lanes = v.add(lanes, v.load(page));
        }
        normaliser += v.tree(lanes);
    }
    unseen.as_flattened_mut().fill(0.0);
    (normaliser, finite)
}

/// D vectors of outputs of Q queries, from dimension `d` on.
#[allow(clippy::too_many_arguments, reason = "one inner loop, split off for its constants")]
#[inline(always)]
fn values<V: Lanes, const Q: usize, const D: usize>(
    v: V,
    rows: &Rows<'_>,
    first: usize,
    d: usize,
    longest: usize,
    scratch: &[f32],
    stride: usize,
    inverse: &[f32; Q],
) {
    let head = &rows.pages;
    let weights = scratch.as_ptr();
    let mut total = [[v.splat(0.0); D]; Q];
    for start in (0..longest).step_by(POSITION_SEGMENT) {
        let end = longest.min(start + POSITION_SEGMENT);
        let mut acc = [[v.splat(0.0); D]; Q];
        for page in start / PAGE_POSITIONS..end.div_ceil(PAGE_POSITIONS) {
            let values = head.value(page, d, 0).cast_const();
            for slot in 0..PAGE_POSITIONS.min(end - page * PAGE_POSITIONS) {
                let position = page * PAGE_POSITIONS + slot;
                let mut x = [v.splat(0.0); D];
                for t in 0..D {
                    // SAFETY: a page holds `head_dim` values of each position.
                    x[t] = v.load_f16(unsafe { &*values.add(slot * head.head_dim + t * WIDTH).cast() });
                }
                for j in 0..Q {
                    // SAFETY: the scratch holds `stride` weights of each of Q queries, and `position` is below it.
                    let p = v.splat(unsafe { *weights.add(j * stride + position) });
                    for t in 0..D {
                        acc[j][t] = v.fma(p, x[t], acc[j][t]);
                    }
                }
            }
        }
        for j in 0..Q {
            for t in 0..D {
                total[j][t] = if start == 0 { acc[j][t] } else { v.add(total[j][t], acc[j][t]) };
            }
        }
    }
    for j in 0..Q {
        // SAFETY: the item owns its queries' outputs.
        let out = unsafe { rows.out(first + j) };
        let (out, _) = out[d..].as_chunks_mut();
        for t in 0..D {
            v.store(&mut out[t], v.mul(total[j][t], v.splat(inverse[j])));
        }
    }
}
