use super::*;
use crate::generate::Generator;
use crate::rotary::{RotaryParameters, Scaling};
use crate::testing::{bits, executor, twins_agree};
use crate::{Backend, Forms, half};

/// A sequence: what earlier steps stored, and this step's rows.
struct Sequence {
    past: usize,
    rows: usize,
    /// Its pages.
    table: Vec<u32>,
}

struct Case {
    shape: KvShape,
    layer: usize,
    heads: usize,
    norms: Option<(Vec<f32>, Vec<f32>)>,
    pairs: RotaryPairs,
    rotary: RotaryTable,
    sequences: Vec<Sequence>,
    pages: usize,
    /// Of every sequence's past and present rows, one sequence after another.
    q: Vec<f32>,
    k: Vec<f32>,
    v: Vec<f32>,
    forms: Forms,
}

impl Case {
    fn new(generator: &mut Generator) -> Case {
        // Rarely a sequence that crosses the segment border of 512 positions, with little else.
        if generator.below(500) == 0 {
            let lengths = (505 + generator.below(80), 1 + generator.below(20));
            return Case::with_shape(generator, 32, 1, 1, &[lengths]);
        }
        let head_dim = [16, 16, 32, 32, 48, 64, 80, 128][generator.below(8)];
        let (kv_heads, group) =
            [(1, 1), (1, 2), (2, 1), (2, 2), (1, 4), (2, 3), (1, 7), (1, 9)][generator.below(8)];
        let sequences = (0..1 + generator.below(3))
            .map(|_| match generator.below(12) {
                0 => (0, 1 + generator.below(35)),
                1 => (generator.below(20), [15, 16, 17, 33][generator.below(4)]),
                _ => (generator.below(18), 1 + generator.below(3)),
            })
            .collect::<Vec<_>>();
        Case::with_shape(generator, head_dim, kv_heads, group, &sequences)
    }

    fn with_shape(
        generator: &mut Generator,
        head_dim: usize,
        kv_heads: usize,
        group: usize,
        lengths: &[(usize, usize)],
    ) -> Case {
        let layers = 1 + generator.below(3);
        let needed = |(past, rows): (usize, usize)| (past + rows).div_ceil(PAGE_POSITIONS);
        let pages = lengths.iter().map(|lengths| needed(*lengths)).sum::<usize>() + 3;
        let mut free: Vec<u32> = (0..pages as u32).collect();
        let sequences: Vec<Sequence> = lengths
            .iter()
            .map(|(past, rows)| {
                // Pages in no order, some of them beyond what the step reaches.
                let table =
                    (0..needed((*past, *rows))).map(|_| free.swap_remove(generator.below(free.len())));
                Sequence { past: *past, rows: *rows, table: table.collect() }
            })
            .collect();
        let positions = lengths.iter().map(|(past, rows)| past + rows).max().expect("a sequence");
        let rotary = RotaryTable::new(RotaryParameters {
            head_dim,
            base: [1e4, 5e5][generator.below(2)],
            context: positions,
            positions,
            scaling: Scaling::None,
            factors: None,
        })
        .expect("in range");
        let total: usize = lengths.iter().map(|(past, rows)| past + rows).sum();
        let scale = [0.3, 1.0, 6.0][generator.below(3)];
        let mut floats = |count: usize| -> Vec<f32> {
            let spiky = generator.below(4) == 0;
            (0..count)
                .map(|_| match generator.below(64) {
                    0 if spiky => generator.normal(60.0),
                    1 if spiky => 0.0,
                    2 if spiky => -0.0,
                    3 if spiky => generator.normal(1e-6),
                    _ => generator.normal(scale),
                })
                .collect()
        };
        let norms = (floats(head_dim), floats(head_dim));
        let (q, k, v) = (
            floats(total * kv_heads * group * head_dim),
            floats(total * kv_heads * head_dim),
            floats(total * kv_heads * head_dim),
        );
        Case {
            shape: KvShape { layers, kv_heads, head_dim },
            layer: generator.below(layers),
            heads: kv_heads * group,
            norms: (generator.below(2) == 0).then_some(norms),
            pairs: [RotaryPairs::Halves, RotaryPairs::Interleaved][generator.below(2)],
            rotary,
            sequences,
            pages,
            q,
            k,
            v,
            forms: [Forms::Float, Forms::Quantised][generator.below(2)],
        }
    }

    /// The rows of one step: of each sequence, the positions `of(sequence)`; appended to what `cache` holds.
    fn step(
        &self,
        executor: &Executor,
        cache: &mut KvCache,
        of: impl Fn(&Sequence) -> Range<usize>,
    ) -> (Vec<f32>, Vec<bool>) {
        let (mut q, mut k, mut v) = (Vec::new(), Vec::new(), Vec::new());
        let mut segments = Vec::new();
        let mut first = 0;
        for sequence in &self.sequences {
            let positions = of(sequence);
            let take = |from: &[f32], to: &mut Vec<f32>, width: usize| {
                to.extend_from_slice(
                    &from[(first + positions.start) * width..(first + positions.end) * width],
                );
            };
            let dim = self.shape.head_dim;
            take(&self.q, &mut q, self.heads * dim);
            take(&self.k, &mut k, self.shape.kv_heads * dim);
            take(&self.v, &mut v, self.shape.kv_heads * dim);
            let start = segments.last().map_or(0, |segment: &Segment<'_>| segment.rows.end);
            segments.push(Segment {
                pages: &sequence.table,
                first_position: positions.start,
                rows: start..start + positions.len(),
            });
            first += sequence.past + sequence.rows;
        }
        let rows = segments.last().expect("a sequence").rows.end;
        // Heads of 16 or 48 elements make rows of whole blocks only in even number.
        let columns = self.heads * self.shape.head_dim;
        let mut out = Activations::new(rows, columns, self.forms);
        out.set_rows(rows);
        let faults = Faults::new(rows);
        let step = AttentionStep {
            layer: self.layer,
            heads: self.heads,
            norms: self.norms.as_ref().map(|(q, k)| HeadNorms { q, k, eps: 1e-6 }),
            pairs: self.pairs,
            rotary: &self.rotary,
            segments: &segments,
        };
        executor.attention(&step, &mut q, &mut k, &v, cache, &mut out, &faults);
        let out = (0..rows).flat_map(|row| out.row_f32(row).to_vec()).collect();
        (out, (0..rows).map(|row| faults.is_faulted(row)).collect())
    }

    fn cache(&self) -> KvCache {
        KvCache::new(self.shape, self.pages).expect("memory")
    }

    fn is_possible(&self) -> bool {
        (self.heads * self.shape.head_dim).is_multiple_of(32)
    }
}

fn possible(generator: &mut Generator) -> Case {
    loop {
        let case = Case::new(generator);
        if case.is_possible() {
            return case;
        }
    }
}

/// Outputs and faults as one comparable thing; faulted rows count for nothing.
fn record((mut out, faults): (Vec<f32>, Vec<bool>)) -> Vec<u32> {
    let columns = out.len() / faults.len().max(1);
    for (row, fault) in faults.iter().enumerate() {
        if *fault {
            out[row * columns..][..columns].fill(0.0);
        }
    }
    let mut record = bits(&out);
    record.extend(faults.iter().map(|fault| u32::from(*fault)));
    record
}

#[test]
fn twins_agree_on_attention() {
    twins_agree(10_000, possible, |executor, case| {
        let mut cache = case.cache();
        let past = case.step(executor, &mut cache, |sequence| 0..sequence.past);
        let now = case.step(executor, &mut cache, |sequence| sequence.past..sequence.past + sequence.rows);
        [record(past), record(now)].concat()
    });
}

/// one prefill, any chunks, token by token, alone or in company: the same bits.
#[test]
fn chunks_and_neighbours_do_not_matter() {
    let generator = &mut Generator::new(5);
    for (head_dim, kv_heads, group) in [(64, 2, 2), (128, 1, 3), (32, 1, 1), (48, 2, 1)] {
        let case = Case::with_shape(generator, head_dim, kv_heads, group, &[(0, 560), (0, 37), (0, 1)]);
        let longest = 560;
        let width = case.heads * head_dim;
        let whole = case.step(&executor(Backend::Scalar, 1), &mut case.cache(), |sequence| 0..sequence.rows);
        for backend in Backend::available() {
            let executor = executor(backend, 2);
            for chunk in [1, 7, 16, 100, longest] {
                if backend == Backend::Scalar && (chunk != 100 || head_dim > 48) {
                    continue;
                }
                let mut cache = case.cache();
                let mut parts = vec![Vec::new(); case.sequences.len()];
                for start in (0..longest).step_by(chunk) {
                    let part =
                        |sequence: &Sequence| start.min(sequence.rows)..(start + chunk).min(sequence.rows);
                    let (out, faults) = case.step(&executor, &mut cache, part);
                    assert!(!faults.contains(&true));
                    let mut rest = out.as_slice();
                    for (sequence, parts) in case.sequences.iter().zip(&mut parts) {
                        let (own, others) = rest.split_at(part(sequence).len() * width);
                        parts.extend_from_slice(own);
                        rest = others;
                    }
                }
                assert!(
                    bits(&parts.concat()) == bits(&whole.0),
                    "{backend}, chunks of {chunk}, heads of {head_dim}"
                );
            }
        }
    }
}

/// Pages that held another sequence, extreme values in them, change nothing.
#[test]
fn old_contents_of_pages_do_not_matter() {
    let generator = &mut Generator::new(6);
    let case = Case::with_shape(generator, 64, 2, 2, &[(21, 5), (3, 1)]);
    for backend in Backend::available() {
        let executor = executor(backend, 1);
        let run = |cache: &mut KvCache| {
            let past = case.step(&executor, cache, |sequence| 0..sequence.past);
            let now = case.step(&executor, cache, |sequence| sequence.past..sequence.past + sequence.rows);
            [record(past), record(now)].concat()
        };
        let clean = run(&mut case.cache());
        let mut used = case.cache();
        let extreme = Case {
            k: vec![60000.0; case.k.len()],
            v: vec![-60000.0; case.v.len()],
            ..Case::with_shape(&mut Generator::new(6), 64, 2, 2, &[(21, 5), (3, 1)])
        };
        extreme.step(&executor, &mut used, |sequence| 0..sequence.past + sequence.rows);
        assert_eq!(run(&mut used), clean, "{backend}");
    }
}

/// a value that is not finite faults its own row, is stored as +0, and harms no neighbour.
#[test]
fn faults_stay_with_their_sequence() {
    for (which, bad) in
        [("q", f32::NAN), ("k", f32::INFINITY), ("k", 1e6), ("v", -1e6), ("v", f32::NAN), ("q", f32::MAX)]
    {
        let mut case = Case::with_shape(&mut Generator::new(7), 64, 2, 2, &[(0, 20), (0, 9)]);
        case.norms = None;
        let clean = case.step(&executor(Backend::Scalar, 1), &mut case.cache(), |sequence| 0..sequence.rows);
        let row = 13;
        match which {
            "q" => case.q[row * 256 + 70..][..2].fill(bad),
            "k" => case.k[row * 128 + 70] = bad,
            _ => case.v[row * 128 + 70] = bad,
        }
        let mut records = Vec::new();
        for backend in Backend::available() {
            let mut cache = case.cache();
            let (out, faults) = case.step(&executor(backend, 2), &mut cache, |sequence| 0..sequence.rows);
            assert!(faults[row], "{backend}: {which} = {bad}");
            assert!(
                faults[..row].iter().chain(&faults[20..]).all(|fault| !fault),
                "{backend}: {which} = {bad}"
            );
            assert_eq!(bits(&out[..row * 256]), bits(&clean.0[..row * 256]), "{backend}: rows before it");
            assert_eq!(bits(&out[20 * 256..]), bits(&clean.0[20 * 256..]), "{backend}: another sequence");
            records.push(record((out, faults)));
        }
        assert!(records.windows(2).all(|pair| pair[0] == pair[1]), "{which} = {bad}");
    }
}

/// Closeness of meaning: a softmax in binary64 over the same rounded keys and values.
#[test]
fn attention_is_close_to_binary64() {
    let mut case = Case::with_shape(&mut Generator::new(8), 64, 1, 2, &[(0, 700)]);
    (case.norms, case.forms) = (None, Forms::Float);
    // No rotation to repeat here: a table of one position, cos 1 and sin 0, for all.
    let rotary = RotaryTable::new(RotaryParameters {
        head_dim: 64,
        base: 1e4,
        context: 700,
        positions: 700,
        scaling: Scaling::Linear(1e30),
        factors: None,
    });
    case.rotary = rotary.expect("in range");
    let (out, _) = case.step(&executor(Backend::detect(), 2), &mut case.cache(), |sequence| 0..sequence.rows);
    let rounded = |x: f32| f64::from(half::widen(half::narrow(x)));
    for (row, head) in [(0, 0), (1, 1), (511, 0), (512, 1), (699, 0)] {
        let q = &case.q[(row * 2 + head) * 64..][..64];
        let score = |t: usize| {
            let dot: f64 = (0..64).map(|d| f64::from(q[d]) * rounded(case.k[t * 64 + d])).sum();
            dot / 8.0
        };
        let scores: Vec<f64> = (0..=row).map(score).collect();
        let max = scores.iter().copied().fold(f64::MIN, f64::max);
        let weights: Vec<f64> = scores.iter().map(|score| (score - max).exp()).collect();
        let sum: f64 = weights.iter().sum();
        for d in 0..64 {
            let exact: f64 =
                weights.iter().enumerate().map(|(t, p)| p / sum * rounded(case.v[t * 64 + d])).sum();
            let found = f64::from(out[(row * 2 + head) * 64 + d]);
            assert!(
                (found - exact).abs() < 1e-4 * exact.abs().max(1.0),
                "row {row} head {head}: {found} for {exact}"
            );
        }
    }
}

#[test]
#[should_panic(expected = "written by one sequence and read by another")]
fn a_page_is_not_written_and_shared() {
    let mut case = Case::with_shape(&mut Generator::new(9), 32, 1, 1, &[(16, 4), (20, 1)]);
    let shared = case.sequences[0].table[1];
    case.sequences[1].table[0] = shared;
    case.step(&executor(Backend::Scalar, 1), &mut case.cache(), |sequence| {
        sequence.past..sequence.past + sequence.rows
    });
}

#[test]
#[should_panic(expected = "is written twice in one step")]
fn a_page_has_one_writer() {
    let mut case = Case::with_shape(&mut Generator::new(9), 32, 1, 1, &[(0, 4), (0, 1)]);
    case.sequences[1].table = case.sequences[0].table.clone();
    case.step(&executor(Backend::Scalar, 1), &mut case.cache(), |sequence| 0..sequence.rows);
}

#[test]
#[should_panic(expected = "pages exist")]
fn a_page_beyond_the_cache_is_refused() {
    let mut case = Case::with_shape(&mut Generator::new(9), 32, 1, 1, &[(0, 4)]);
    case.sequences[0].table[0] = 1000;
    case.step(&executor(Backend::Scalar, 1), &mut case.cache(), |sequence| 0..sequence.rows);
}

/// Sequences may read a prefix they share, as long as nobody writes it.
#[test]
fn a_shared_prefix_reads_like_an_own_one() {
    let mut case = Case::with_shape(&mut Generator::new(10), 32, 2, 1, &[(32, 3), (32, 3)]);
    let width = 35 * 2 * 32;
    // The same prefix, and the same rows after it.
    for x in [&mut case.q, &mut case.k, &mut case.v] {
        let (first, second) = x.split_at_mut(width);
        second.copy_from_slice(first);
    }
    let executor = executor(Backend::detect(), 2);
    let mut cache = case.cache();
    case.step(&executor, &mut cache, |sequence| 0..sequence.past);
    let (own, _) = case.step(&executor, &mut cache, |sequence| sequence.past..sequence.past + sequence.rows);
    let table = case.sequences[0].table[..2].to_vec();
    case.sequences[1].table[..2].copy_from_slice(&table);
    let (shared, _) =
        case.step(&executor, &mut cache, |sequence| sequence.past..sequence.past + sequence.rows);
    assert_eq!(bits(&own), bits(&shared));
    assert_eq!(bits(&own[..own.len() / 2]), bits(&own[own.len() / 2..]));
}
