//! Golden vectors: version 0 of the arithmetic as known answers.
//!
//! In:     a backend, and `vectors/v0.txt`, which is part of the binary.
//! Out:    whether the backend gives the recorded bits for every operation and format.
//! Holds:  inputs come from `generate`; a worker runs this before it serves, and refuses to on a mismatch.
//! Absent: rewriting. `cargo test -p surety-kernels -- --ignored rewrite_the_vectors` does that, as a decision with
//!         a commit of its own.

use crate::activations::BLOCK;
use crate::generate::Generator;
use crate::{
    Activations, AttentionStep, Backend, Embedding, Executor, Faults, Format, Forms, HeadNorms, KvCache,
    KvShape, Matrix, Output, RotaryPairs, RotaryParameters, RotaryTable, Scaling, Segment, packed_bytes,
    step,
};
use std::num::NonZeroUsize;

/// One line per case: its name, how many words it gives, their digest, and the first of them.
const RECORDED: &str = include_str!("../vectors/v0.txt");

/// Words written out in a line, for whoever looks for the first difference.
const SHOWN: usize = 8;

/// A backend that does not compute version 0 of the arithmetic.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("the {backend} backend gives other bits for {case}: {found}, recorded {recorded}")]
pub struct GoldenMismatch {
    /// The backend.
    pub backend: Backend,
    /// The operation and its parameters.
    pub case: String,
    /// The recorded count, digest and first words.
    pub recorded: String,
    /// Those found.
    pub found: String,
}

/// Runs every golden vector on `backend`. Panics if this machine cannot run it.
pub fn check(backend: Backend) -> Result<(), GoldenMismatch> {
    check_against(backend, RECORDED)
}

fn check_against(backend: Backend, recorded: &str) -> Result<(), GoldenMismatch> {
    let executor = Executor::new(backend, NonZeroUsize::MIN).expect("an available backend");
    let mut recorded = recorded.lines();
    for (case, run) in cases() {
        let found = line(&run(&executor));
        let recorded =
            recorded.next().and_then(|line| line.strip_prefix(&format!("{case} "))).unwrap_or("nothing");
        if recorded != found {
            return Err(GoldenMismatch { backend, case, recorded: recorded.to_owned(), found });
        }
    }
    assert_eq!(recorded.next(), None, "a recorded vector has no case");
    Ok(())
}

/// What a line records of a case's words.
fn line(words: &[u32]) -> String {
    let mut line = format!("{} {:016x}", words.len(), digest(words));
    for word in words.iter().take(SHOWN) {
        line.push_str(&format!(" {word:08x}"));
    }
    line
}

/// FNV-1a over the words' little-endian bytes. It finds mistakes; nobody is asked to forge it.
fn digest(words: &[u32]) -> u64 {
    let bytes = words.iter().flat_map(|word| word.to_le_bytes());
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

type Case = (String, Box<dyn Fn(&Executor) -> Vec<u32>>);

/// Every case, in the order of the file. The seed of a case is its place in this list.
fn cases() -> Vec<Case> {
    let mut cases: Vec<Case> = Vec::new();
    let mut add = |name: String, run: fn(&Executor, &mut Generator, usize) -> Vec<u32>, parameter: usize| {
        let seed = cases.len() as u64;
        cases.push((name, Box::new(move |executor| run(executor, &mut Generator::new(seed), parameter))));
    };
    for (i, format) in Format::ALL.into_iter().enumerate() {
        add(format!("matmul/format={format}"), matmul, i);
        add(format!("embed/format={format}"), embed, i);
    }
    add("quantise".into(), quantise, 0);
    add("rms_norm".into(), rms_norm, 0);
    add("silu_mul".into(), silu_mul, 0);
    for (i, name) in ["none", "linear", "factors", "yarn"].into_iter().enumerate() {
        add(format!("rotary/scaling={name}"), rotary, i);
    }
    add("attention/pairs=halves/norms=yes".into(), attention, 0);
    add("attention/pairs=interleaved/norms=no".into(), attention, 1);
    add("sample".into(), sample, 0);
    for (i, format) in Format::ALL.into_iter().enumerate() {
        add(format!("step/segment/format={format}"), step_segment, i);
    }
    add("step/norm".into(), step_norm, 0);
    add("step/attention".into(), step_attention, 0);
    add("step/sample".into(), step_sample, 0);
    cases
}

fn bits(x: &[f32]) -> impl Iterator<Item = u32> + '_ {
    x.iter().map(|x| x.to_bits())
}

fn normals(generator: &mut Generator, count: usize, scale: f32) -> Vec<f32> {
    (0..count).map(|_| generator.normal(scale)).collect()
}

/// 19 outputs of 5 rows, over more than one segment of 1,024 columns.
fn matmul(executor: &Executor, generator: &mut Generator, format: usize) -> Vec<u32> {
    let format = Format::ALL[format];
    let (rows, n, columns) = (5, 19, 1280);
    let source = generator.matrix(format, n, columns, 0.02);
    let x = normals(generator, rows * columns, 1.0);
    let bias = normals(generator, n, 1.0);
    let mut packed = vec![0; packed_bytes(format, n, columns)];
    executor.pack(format, n, columns, &source, &mut packed).expect("generated weights are finite");
    let mut input = Activations::new(rows, columns, Forms::of([format]));
    input.set_rows(rows);
    executor.quantise(&x, &mut input, &Faults::new(rows));
    let mut out = vec![0.0; rows * n];
    let matrix = Matrix::new(format, n, columns, &packed);
    executor.matmul(&input, &mut [Output { matrix, bias: Some(&bias), out: &mut out }]);
    bits(&out).collect()
}

fn embed(executor: &Executor, generator: &mut Generator, format: usize) -> Vec<u32> {
    let format = Format::ALL[format];
    let table = generator.matrix(format, 4, 256, 0.02);
    let mut out = vec![0.0; 3 * 256];
    executor.embed(Embedding::Rows { format, columns: 256, bytes: &table }, &[2, 0, 3], &mut out);
    bits(&out).collect()
}

/// Rows of every character, quantised.
fn quantise(executor: &Executor, generator: &mut Generator, _: usize) -> Vec<u32> {
    let (rows, columns) = (24, 96);
    let mut x = vec![0.0; rows * columns];
    x.chunks_exact_mut(columns).for_each(|row| generator.activations(row));
    let mut out = Activations::new(rows, columns, Forms::Quantised);
    out.set_rows(rows);
    executor.quantise(&x, &mut out, &Faults::new(rows));
    let blocks = (0..rows).flat_map(|row| (0..columns / BLOCK).map(move |b| (row, b)));
    blocks
        .flat_map(|(row, b)| {
            let block = &out.blocks()[out.block_index(row, b)];
            let quants = block.quants.map(|q| q as u32);
            quants.into_iter().chain([block.scale.to_bits()])
        })
        .collect()
}

/// A residual and the norm of its sum.
fn rms_norm(executor: &Executor, generator: &mut Generator, _: usize) -> Vec<u32> {
    let (rows, columns) = (3, 320);
    let (mut x, y) = (normals(generator, rows * columns, 1.0), normals(generator, rows * columns, 4.0));
    let weight = normals(generator, columns, 1.0);
    let mut out = Activations::new(rows, columns, Forms::Float);
    out.set_rows(rows);
    executor.add_rms_norm(&mut x, &y, &weight, 1e-5, &mut out, &Faults::new(rows));
    bits(&x).chain((0..rows).flat_map(|row| bits(out.row_f32(row)))).collect()
}

fn silu_mul(executor: &Executor, generator: &mut Generator, _: usize) -> Vec<u32> {
    let (gate, up) = (normals(generator, 512, 20.0), normals(generator, 512, 1.0));
    let mut out = Activations::new(1, 512, Forms::Float);
    out.set_rows(1);
    executor.silu_mul(&gate, &up, &mut out, &Faults::new(1));
    bits(out.row_f32(0)).collect()
}

fn table(scaling: usize, head_dim: usize, context: usize) -> RotaryTable {
    let yarn = Scaling::Yarn {
        factor: 4.0,
        original_context: 32768.0,
        beta_fast: 32.0,
        beta_slow: 1.0,
        attention_factor: 1.0,
    };
    let parameters = RotaryParameters {
        head_dim,
        base: 500_000.0,
        context,
        positions: context,
        scaling: [Scaling::None, Scaling::Linear(4.0), Scaling::None, yarn][scaling],
        factors: (scaling == 2).then(|| (0..head_dim / 2).map(|i| 1.0 + i as f32 / 8.0).collect()),
    };
    RotaryTable::new(parameters).expect("parameters in range")
}

/// The words hashes, for a short context.
fn rotary(_: &Executor, _: &mut Generator, scaling: usize) -> Vec<u32> {
    let mut words = Vec::new();
    table(scaling, 64, 300).digest(|bytes| {
        words.extend(bytes.as_chunks().0.iter().map(|word| u32::from_le_bytes(*word)));
    });
    words
}

/// One layer of two sequences: one past the segment border of 512 positions, one beginning.
fn attention(executor: &Executor, generator: &mut Generator, kind: usize) -> Vec<u32> {
    let (heads, kv_heads, head_dim) = (4, 2, 32);
    let (past, rows) = (518, 5);
    let first: Vec<u32> = (0..33).rev().collect();
    let second = [33];
    let (q_norm, k_norm) = (normals(generator, head_dim, 1.0), normals(generator, head_dim, 1.0));
    let norms = (kind == 0).then_some(HeadNorms { q: &q_norm, k: &k_norm, eps: 1e-6 });
    let pairs = [RotaryPairs::Halves, RotaryPairs::Interleaved][kind];
    let rotary = table(0, head_dim, past + rows);
    let mut cache = KvCache::new(KvShape { layers: 1, kv_heads, head_dim }, 34).expect("a small cache");
    let mut words = Vec::new();
    let steps = [
        vec![Segment { pages: &first, first_position: 0, rows: 0..past }],
        vec![
            Segment { pages: &first, first_position: past, rows: 0..rows },
            Segment { pages: &second, first_position: 0, rows: rows..rows + 2 },
        ],
    ];
    for segments in &steps {
        let rows = segments.last().expect("a segment").rows.end;
        let mut q = normals(generator, rows * heads * head_dim, 2.0);
        let mut k = normals(generator, rows * kv_heads * head_dim, 2.0);
        let v = normals(generator, rows * kv_heads * head_dim, 1.0);
        let mut out = Activations::new(rows, heads * head_dim, Forms::Float);
        out.set_rows(rows);
        let step = AttentionStep { layer: 0, heads, norms, pairs, rotary: &rotary, segments };
        executor.attention(&step, &mut q, &mut k, &v, &mut cache, &mut out, &Faults::new(rows));
        words.extend((0..rows).flat_map(|row| bits(out.row_f32(row)).collect::<Vec<_>>()));
    }
    words
}

/// The greatest logit and every weight, at two temperatures.
fn sample(executor: &Executor, generator: &mut Generator, _: usize) -> Vec<u32> {
    let logits = normals(generator, 1000, 4.0);
    let (id, max) = executor.argmax(&logits);
    let mut words = vec![id, max.to_bits()];
    for scale in [1.442695, 14.42695] {
        let mut weights = vec![0; logits.len()];
        executor.sampling_weights(&logits, max, scale, &mut weights);
        words.extend(weights.iter().flat_map(|weight| [*weight as u32, (*weight >> 32) as u32]));
    }
    words
}

/// Elements, and segments of a whole row, of a short one, of one that is not finite; their total with a bias. Like all steps the
/// same on every backend.
fn step_segment(_: &Executor, generator: &mut Generator, format: usize) -> Vec<u32> {
    let format = Format::ALL[format];
    let row = generator.matrix(format, 1, 1280, 0.02);
    let mut x = normals(generator, 1280, 1.0);
    let block = &row[..format.block_bytes()];
    let mut words: Vec<u32> =
        (0..format.block_elements()).map(|i| step::word(step::element(format, block, i))).collect();
    let segments: Vec<f32> = row
        .chunks(format.row_bytes(step::SEGMENT_ELEMENTS))
        .zip(x.chunks(step::SEGMENT_ELEMENTS))
        .map(|(row, x)| step::segment(format, row, x))
        .collect();
    words.extend(bits(&segments));
    words.push(step::word(step::total(&segments, Some(generator.normal(1.0)))));
    x[1030] = f32::INFINITY;
    words.push(step::word(step::segment(format, &row[format.row_bytes(1024)..], &x[1024..])));
    words
}

/// Lanes over two parts, `inv`, y, residuals and gated units.
fn step_norm(_: &Executor, generator: &mut Generator, _: usize) -> Vec<u32> {
    let (x, y) = (normals(generator, 1280, 1.0), normals(generator, 1280, 4.0));
    let first = step::squares([0.0; step::LANES], &x[..1024]);
    let last = step::squares(first, &x[1024..]);
    let inverse = step::norm_inverse(last, x.len(), 1e-6);
    let mut words: Vec<u32> = bits(&first).chain(bits(&last)).collect();
    words.extend([step::word(step::tree(last)), step::word(inverse)]);
    for (x, y) in x.iter().zip(&y).take(200) {
        let steps = [step::normed(*x, inverse, *y), step::residual(*x, *y), step::gated(8.0 * x, *y)];
        words.extend(steps.map(step::word));
    }
    words
}

/// One head over 600 positions: pairs, stored keys and values, scores, greatest, m, weights, normaliser, sums, output.
fn step_attention(_: &Executor, generator: &mut Generator, _: usize) -> Vec<u32> {
    let query = normals(generator, 32, 2.0);
    let (scores, values): (Vec<f32>, Vec<f32>) = (0..600)
        .map(|_| {
            let key: Vec<f32> = normals(generator, 32, 2.0).into_iter().map(step::stored).collect();
            (step::score(&query, &key), step::stored(generator.normal(1.0)))
        })
        .unzip();
    let (mut greatest, mut normaliser, mut sum) = (None, 0.0, None);
    for scores in scores.chunks(step::SPAN_POSITIONS) {
        greatest = Some(step::greatest(greatest, scores));
    }
    let m = step::ceiling(greatest.expect("a score"));
    let weights: Vec<f32> = scores.iter().map(|score| step::attention_weight(*score, m)).collect();
    let mut words: Vec<u32> = bits(&scores).chain(bits(&values)).chain(bits(&weights)).collect();
    for (weights, values) in weights.chunks(step::SPAN_POSITIONS).zip(values.chunks(step::SPAN_POSITIONS)) {
        normaliser = step::normaliser(normaliser, weights);
        sum = Some(step::value_sum(sum, weights, values));
        words.extend([normaliser, sum.expect("just set")].map(step::word));
    }
    let reciprocal = step::reciprocal(normaliser);
    words.extend([m, reciprocal, step::attended(sum.expect("a position"), reciprocal)].map(step::word));
    for pair in query.chunks_exact(4) {
        let (a, b) = step::rotated(pair[0], pair[1], pair[2], pair[3]);
        words.extend([a, b].map(step::word));
    }
    words
}

/// Adjusted logits, the best, weights, ranks, thresholds and draws.
fn step_sample(_: &Executor, generator: &mut Generator, _: usize) -> Vec<u32> {
    let halves = |x: u64| [x as u32, (x >> 32) as u32];
    let mut logits = Vec::new();
    for (i, logit) in normals(generator, 300, 4.0).into_iter().enumerate() {
        let by = step::Adjustment {
            bias: (i % 3 == 0).then(|| generator.normal(2.0)),
            repetition: (i % 2 == 0).then_some(1.1),
            count: i as u32 % 5,
            presence: 0.5,
            frequency: 0.25,
        };
        logits.push(step::adjusted(logit, &by));
    }
    let (greatest, id) = step::best(None, 0, &logits);
    let scale = step::sampling_scale(0.7);
    let mut words: Vec<u32> = bits(&logits).chain([step::word(greatest), id, step::word(scale)]).collect();
    let mut sum = 0;
    for (id, logit) in logits.iter().enumerate() {
        let weight = step::sampling_weight(*logit, greatest, scale);
        sum += weight;
        words.extend([weight, step::rank(*logit, id as u32)].map(halves).as_flattened());
    }
    for p in [0.05, 0.9, 1.0] {
        let fraction = step::fraction(p);
        words.extend(
            [fraction, step::nucleus(fraction, sum), step::draw(generator.next(), sum)]
                .map(halves)
                .as_flattened(),
        );
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_backend_computes_version_0() {
        for backend in Backend::available() {
            assert_eq!(check(backend), Ok(()));
        }
    }

    /// A build that computes anything else than what is recorded is told which.
    #[test]
    fn any_other_bits_are_a_mismatch_in_their_case() {
        let names: Vec<String> = cases().into_iter().map(|(case, _)| case).collect();
        for (index, name) in names.iter().enumerate().step_by(7) {
            let mut lines: Vec<String> = RECORDED.lines().map(str::to_owned).collect();
            let last = lines[index].pop().expect("a digit");
            lines[index].push(if last == '0' { '1' } else { '0' });
            let mismatch =
                check_against(Backend::detect(), &lines.join("\n")).expect_err("one digit differs");
            assert_eq!(&mismatch.case, name);
            assert_ne!(mismatch.found, mismatch.recorded);
        }
    }

    #[test]
    fn vectors_are_not_trivial() {
        let executor = Executor::new(Backend::Scalar, NonZeroUsize::MIN).expect("runs everywhere");
        let mut digests: Vec<u64> = Vec::new();
        for (case, run) in cases() {
            let words = run(&executor);
            let zeros = words.iter().filter(|word| **word << 1 == 0).count();
            // Weights of unlikely tokens are zero, and so is every high half of one.
            assert!(case == "sample" || zeros * 2 < words.len(), "{case}: {zeros} zeros of {}", words.len());
            digests.push(digest(&words));
        }
        digests.sort_unstable();
        digests.dedup();
        assert_eq!(digests.len(), cases().len());
    }

    #[test]
    #[ignore = "writes vectors/v0.txt: a change of the arithmetic, and a decision"]
    fn rewrite_the_vectors() {
        let executor = Executor::new(Backend::Scalar, NonZeroUsize::MIN).expect("runs everywhere");
        let lines = cases().into_iter().map(|(case, run)| format!("{case} {}\n", line(&run(&executor))));
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/vectors/v0.txt");
        std::fs::write(path, lines.collect::<String>()).expect("the file is writable");
    }
}
