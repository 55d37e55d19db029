//! The two voices agree: every operation of `kernels`, in every format, on every backend of this machine and with one
//! and three threads, gives bit for bit what `reference` gives.
//!
//! A case is one value or row that depends on inputs of its own: an output element of a matrix product, a row of a
//! norm, one query head's attention. Each operation (and format) is held to at least 10,000 cases per backend, drawn
//! from seeds, not counting results that are zero; a failure prints the smallest failing case with its seed. Cases mix ordinary numbers with signed zeros,
//! ties, subnormals, extremes and non-finite values, and ragged shapes. Where the page ends a sequence, both
//! voices must end it; the numbers of a row that ended are not compared.

mod noise;
mod steps;

use std::fmt::Debug;
use std::num::NonZeroUsize;
use std::sync::LazyLock;

use noise::{Noise, Temper};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestCaseError, TestRunner};
use surety_kernels as kernels;
use surety_kernels::{Activations, Backend, Embedding, Executor, Faults, Forms, Matrix, Output};
use surety_reference::weights::{self, Format};
use surety_reference::{attention, bits, ops, rotary, sample};

/// Cases of one operation, format and backend.
const CASES_MIN: usize = 10_000;

/// Every backend of this machine, with one thread and with several.
static EXECUTORS: LazyLock<Vec<Executor>> = LazyLock::new(|| {
    let mut executors = Vec::new();
    for backend in Backend::available() {
        for threads in [1, 3] {
            let threads = NonZeroUsize::new(threads).expect("at least one");
            executors.push(Executor::new(backend, threads).expect("an available backend"));
        }
    }
    executors
});

/// Draws inputs until at least [`CASES_MIN`] cases were compared. `compare` says how many one input held.
fn check<S>(draws: u32, strategy: S, compare: impl Fn(S::Value, &mut usize) -> Result<(), TestCaseError>)
where
    S: Strategy<Value: Debug>,
{
    let compared = std::cell::Cell::new(0);
    let mut runner = TestRunner::new(Config { cases: draws, failure_persistence: None, ..Config::default() });
    let outcome = runner.run(&strategy, |input| {
        let mut cases = 0;
        compare(input, &mut cases)?;
        compared.set(compared.get() + cases);
        Ok(())
    });
    if let Err(failure) = outcome {
        panic!("{failure}\n{runner}");
    }
    assert!(compared.get() >= CASES_MIN, "only {} cases", compared.get());
}

/// How many of the results say something: zeros are compared, but not counted as cases.
fn nonzero(values: &[f32]) -> usize {
    values.iter().filter(|value| value.is_finite() && **value != 0.0).count()
}

/// The bits of floats, every NaN alike: the page gives a NaN no bits, it ends a request.
fn bits_of(values: &[f32]) -> Vec<u32> {
    values.iter().map(|value| if value.is_nan() { 0x7fc0_0000 } else { value.to_bits() }).collect()
}

/// Fails with the first place at which two rows differ.
fn same(found: &[f32], expected: &[f32], what: impl Fn() -> String) -> Result<(), TestCaseError> {
    if bits_of(found) == bits_of(expected) {
        return Ok(());
    }
    let differs = |i: &usize| bits_of(&found[*i..=*i]) != bits_of(&expected[*i..=*i]);
    let place = (0..found.len().min(expected.len())).find(differs);
    let Some(i) = place else {
        return Err(TestCaseError::fail(format!("{}: {} of {} values", what(), found.len(), expected.len())));
    };
    Err(TestCaseError::fail(format!(
        "{}: at {i} kernels give {:e} ({:08x}), reference {:e} ({:08x})",
        what(),
        found[i],
        found[i].to_bits(),
        expected[i],
        expected[i].to_bits()
    )))
}

fn name(executor: &Executor) -> String {
    format!("{} with {} threads", executor.backend(), executor.threads())
}

fn kernel_format(format: Format) -> kernels::Format {
    match format {
        Format::F32 => kernels::Format::F32,
        Format::F16 => kernels::Format::F16,
        Format::BF16 => kernels::Format::BF16,
        Format::Q8_0 => kernels::Format::Q8_0,
        Format::Q4_0 => kernels::Format::Q4_0,
        Format::Q4_K => kernels::Format::Q4_K,
        Format::Q6_K => kernels::Format::Q6_K,
    }
}

fn is_quantised(format: Format) -> bool {
    !matches!(format, Format::F32 | Format::F16 | Format::BF16)
}

fn temper() -> impl Strategy<Value = Temper> {
    prop_oneof![3 => Just(Temper::Calm), 3 => Just(Temper::Any), 1 => Just(Temper::Wild)]
}

/// A number of rows: none, one, and either side of the widths of vectors and tiles.
fn row_count() -> impl Strategy<Value = usize> {
    prop_oneof![1 => Just(0), 4 => Just(1), 8 => 2..20_usize, 2 => 30..36_usize, 1 => 60..70_usize]
}

// Matrix product

#[derive(Clone, Debug)]
struct MatmulCase {
    seed: u64,
    temper: Temper,
    columns: usize,
    activation_rows: usize,
    /// The matrices that share the input: rows of each, and whether it has a bias.
    matrices: Vec<(Format, usize, bool)>,
}

fn matmul_case(format: Format) -> impl Strategy<Value = MatmulCase> {
    let unit = format.block().0.max(32);
    // K from one unit to three segments, often next to the segment's end at 1,024.
    let near = 1024 / unit;
    let columns = prop_oneof![
        3 => 1..=near,
        2 => near.max(2) - 1..=near + 1,
        1 => 2 * near - 1..=3 * near + 1,
    ];
    let weight_rows = || prop_oneof![4 => Just(1), 12 => 2..40_usize, 4 => 60..70_usize, 1 => 250..260_usize];
    let other = prop::sample::select(Format::ALL.to_vec());
    let others = prop::collection::vec((other, weight_rows(), any::<bool>()), 0..3);
    (any::<u64>(), temper(), columns, row_count(), weight_rows(), any::<bool>(), others).prop_map(
        move |(seed, temper, units, activation_rows, rows, bias, others)| {
            let columns = units * unit;
            let mut matrices = vec![(format, rows, bias)];
            matrices.extend(others.into_iter().filter(|(other, ..)| columns.is_multiple_of(other.block().0)));
            MatmulCase { seed, temper, columns, activation_rows, matrices }
        },
    )
}

fn matmul_agrees(format: Format) {
    check(500, matmul_case(format), |case, cases| {
        let mut noise = Noise::new(case.seed);
        let x = noise.row(case.activation_rows * case.columns, case.temper);
        let mut sources: Vec<(Vec<u8>, Option<Vec<f32>>)> = Vec::new();
        for &(format, rows, bias) in &case.matrices {
            let weights = (0..rows).flat_map(|_| noise.weight_row(format, case.columns)).collect();
            sources.push((weights, bias.then(|| noise.row(rows, Temper::Any))));
        }

        // For each activation row: what each matrix makes of it, or none if the sequence ends there.
        let quantised = case.matrices.iter().any(|&(format, ..)| is_quantised(format));
        let mut expected: Vec<Option<Vec<Vec<f32>>>> = Vec::new();
        for x in x.chunks_exact(case.columns) {
            let ends = x.iter().any(|x| !x.is_finite()) || quantised && ops::quantise(x).is_err();
            let products = case.matrices.iter().zip(&sources).map(|(&(format, ..), (weights, bias))| {
                let product = ops::matmul(format, weights, x).expect("checked above");
                bias.as_ref().map_or(product.clone(), |bias| ops::add(&product, bias))
            });
            expected.push((!ends).then(|| products.collect()));
        }
        *cases += expected.iter().flatten().map(|products| nonzero(&products[0])).sum::<usize>();

        for executor in EXECUTORS.iter() {
            let mut packed = Vec::new();
            for (&(format, rows, _), (weights, _)) in case.matrices.iter().zip(&sources) {
                let format = kernel_format(format);
                // Half of the images begin at an odd address.
                let shift = (case.seed % 2) as usize;
                let mut image = vec![0; shift + kernels::packed_bytes(format, rows, case.columns)];
                executor
                    .pack(format, rows, case.columns, weights, &mut image[shift..])
                    .expect("finite weights");
                packed.push((image, shift));
            }
            let forms = Forms::of(case.matrices.iter().map(|&(format, ..)| kernel_format(format)));
            let mut activations = Activations::new(case.activation_rows.max(1), case.columns, forms);
            activations.set_rows(case.activation_rows);
            let faults = Faults::new(case.activation_rows);
            executor.quantise(&x, &mut activations, &faults);

            let mut outs: Vec<Vec<f32>> = case
                .matrices
                .iter()
                .map(|&(_, rows, _)| vec![f32::NAN; case.activation_rows * rows])
                .collect();
            let mut outputs: Vec<Output<'_>> = Vec::new();
            for (((&(format, rows, _), (_, bias)), (image, shift)), out) in
                case.matrices.iter().zip(&sources).zip(&packed).zip(&mut outs)
            {
                let matrix = Matrix::new(kernel_format(format), rows, case.columns, &image[*shift..]);
                outputs.push(Output { matrix, bias: bias.as_deref(), out });
            }
            executor.matmul(&activations, &mut outputs);

            for (row, expected) in expected.iter().enumerate() {
                prop_assert_eq!(
                    faults.is_faulted(row),
                    expected.is_none(),
                    "{}: row {}",
                    name(executor),
                    row
                );
                let Some(expected) = expected else { continue };
                for ((&(format, rows, _), out), expected) in case.matrices.iter().zip(&outs).zip(expected) {
                    same(&out[row * rows..][..rows], expected, || {
                        format!("{}: {format:?}, row {row}", name(executor))
                    })?;
                }
            }
        }
        Ok(())
    });
}

#[test]
fn matmul_f32() {
    matmul_agrees(Format::F32);
}

#[test]
fn matmul_f16() {
    matmul_agrees(Format::F16);
}

#[test]
fn matmul_bf16() {
    matmul_agrees(Format::BF16);
}

#[test]
fn matmul_q8_0() {
    matmul_agrees(Format::Q8_0);
}

#[test]
fn matmul_q4_0() {
    matmul_agrees(Format::Q4_0);
}

#[test]
fn matmul_q4_k() {
    matmul_agrees(Format::Q4_K);
}

#[test]
fn matmul_q6_k() {
    matmul_agrees(Format::Q6_K);
}

/// laid bare: a product with the identity in Q8_0 gives `q·da`, element by element.
#[test]
fn quantise() {
    let mut identity = Vec::new();
    for e in 0..32 {
        let mut block = vec![0_u8; 34];
        block[1] = 0x3c;
        block[2 + e] = 1;
        identity.extend(block);
    }
    check(400, (any::<u64>(), temper(), row_count()), |(seed, temper, rows), cases| {
        let x = Noise::new(seed).row(rows * 32, temper);
        let expected: Vec<_> = x.chunks_exact(32).map(|x| ops::matmul(Format::Q8_0, &identity, x)).collect();
        *cases += expected.iter().flatten().map(|row| nonzero(row)).sum::<usize>();
        for executor in EXECUTORS.iter() {
            let format = kernels::Format::Q8_0;
            let mut image = vec![0; kernels::packed_bytes(format, 32, 32)];
            executor.pack(format, 32, 32, &identity, &mut image).expect("finite weights");
            let mut activations = Activations::new(rows.max(1), 32, Forms::Quantised);
            activations.set_rows(rows);
            let faults = Faults::new(rows);
            executor.quantise(&x, &mut activations, &faults);
            let mut out = vec![0.0; x.len()];
            let matrix = Matrix::new(format, 32, 32, &image);
            executor.matmul(&activations, &mut [Output { matrix, bias: None, out: &mut out }]);
            for (row, expected) in expected.iter().enumerate() {
                prop_assert_eq!(faults.is_faulted(row), expected.is_err(), "{}: row {}", name(executor), row);
                if let Ok(expected) = expected {
                    same(&out[32 * row..][..32], expected, || format!("{}: row {row}", name(executor)))?;
                }
            }
        }
        Ok(())
    });
}

/// both refuse a matrix for the same rows.
#[test]
fn non_finite_weights() {
    for format in Format::ALL {
        check(400, (any::<u64>(), 1..60_usize), |(seed, rows), cases| {
            let mut noise = Noise::new(seed);
            let row_bytes = format.row_bytes(256);
            let mut weights: Vec<u8> = (0..rows).flat_map(|_| noise.weight_row(format, 256)).collect();
            for _ in 0..noise.below(3) {
                let at = noise.below(weights.len() / 2) * 2;
                weights[at..at + 2].copy_from_slice(&noise.pick(&[[0x00, 0x7c], [0xff, 0xff], [0x80, 0x7f]]));
            }
            let finite = weights.chunks_exact(row_bytes).all(|row| weights::is_finite(format, row));
            *cases += rows;
            let own = kernel_format(format);
            for executor in EXECUTORS.iter() {
                let mut image = vec![0; kernels::packed_bytes(own, rows, 256)];
                prop_assert_eq!(executor.pack(own, rows, 256, &weights, &mut image).is_ok(), finite);
                prop_assert_eq!(executor.check_weights(own, rows, 256, &weights).is_ok(), finite);
            }
            Ok(())
        });
    }
}

// Embedding, norm, residual, activation

#[test]
fn embed() {
    for format in Format::ALL {
        check(
            600,
            (any::<u64>(), 1..4_usize, 1..30_usize, row_count()),
            |(seed, blocks, rows, ids), cases| {
                let mut noise = Noise::new(seed);
                let columns = 256 * blocks;
                let row_bytes = format.row_bytes(columns);
                let table: Vec<u8> = (0..rows).flat_map(|_| noise.weight_row(format, columns)).collect();
                let ids: Vec<u32> = (0..ids).map(|_| noise.below(rows) as u32).collect();
                let row =
                    |id: &u32| ops::embedding_row(format, &table[*id as usize * row_bytes..][..row_bytes]);
                let expected: Vec<f32> = ids.iter().flat_map(row).collect();
                *cases += nonzero(&expected);
                for executor in EXECUTORS.iter() {
                    let mut out = vec![f32::NAN; expected.len()];
                    let format = kernel_format(format);
                    executor.embed(Embedding::Rows { format, columns, bytes: &table }, &ids, &mut out);
                    same(&out, &expected, || format!("{}: {format:?}", name(executor)))?;
                }
                Ok(())
            },
        );
    }
}

/// Compares what an operation put into activations with the rows expected of it.
fn same_activations(
    executor: &Executor,
    activations: &Activations,
    faults: &Faults,
    expected: &[Vec<f32>],
) -> Result<(), TestCaseError> {
    for (row, expected) in expected.iter().enumerate() {
        let ends = expected.iter().any(|value| !value.is_finite())
            || activations.forms() == Forms::Quantised && ops::quantise(expected).is_err();
        prop_assert_eq!(faults.is_faulted(row), ends, "{}: row {}", name(executor), row);
        if !ends {
            same(activations.row_f32(row), expected, || format!("{}: row {row}", name(executor)))?;
        }
    }
    Ok(())
}

fn forms() -> impl Strategy<Value = Forms> {
    prop_oneof![Just(Forms::Float), Just(Forms::Quantised)]
}

fn eps(noise: &mut Noise) -> f32 {
    noise.pick(&[1e-5, 1e-6, 1e-12, 0.0, 1.0])
}

#[test]
fn rms_norm() {
    let strategy = (any::<u64>(), temper(), 1..70_usize, row_count(), forms());
    check(2000, strategy, |(seed, temper, blocks, rows, forms), cases| {
        let mut noise = Noise::new(seed);
        let columns = 32 * blocks;
        let x = noise.row(rows * columns, temper);
        let y = noise.row(rows * columns, temper);
        let weight = noise.row(columns, Temper::Any);
        let eps = eps(&mut noise);
        let expected: Vec<Vec<f32>> =
            x.chunks_exact(columns).map(|x| ops::rms_norm(x, &weight, eps)).collect();
        let sum = ops::add(&x, &y);
        let expected_of_sum: Vec<Vec<f32>> =
            sum.chunks_exact(columns).map(|x| ops::rms_norm(x, &weight, eps)).collect();
        *cases += expected.iter().filter(|row| nonzero(row) > 0).count();
        for executor in EXECUTORS.iter() {
            let mut activations = Activations::new(rows.max(1), columns, forms);
            activations.set_rows(rows);
            let faults = Faults::new(rows);
            executor.rms_norm(&x, &weight, eps, &mut activations, &faults);
            same_activations(executor, &activations, &faults, &expected)?;

            let mut own = x.clone();
            let faults = Faults::new(rows);
            executor.add_rms_norm(&mut own, &y, &weight, eps, &mut activations, &faults);
            same(&own, &sum, || format!("{}: the sum", name(executor)))?;
            same_activations(executor, &activations, &faults, &expected_of_sum)?;

            let mut out = vec![f32::NAN; x.len()];
            executor.rms_norm_rows(&x, &weight, eps, &mut out);
            same(&out, &expected.concat(), || format!("{}: as rows", name(executor)))?;
        }
        Ok(())
    });
}

#[test]
fn add() {
    check(200, (any::<u64>(), temper(), 0..3000_usize), |(seed, temper, count), cases| {
        let mut noise = Noise::new(seed);
        let (x, y) = (noise.row(count, temper), noise.row(count, temper));
        let expected = ops::add(&x, &y);
        *cases += nonzero(&expected);
        for executor in EXECUTORS.iter() {
            let mut own = x.clone();
            executor.add(&mut own, &y);
            same(&own, &expected, || name(executor))?;
        }
        Ok(())
    });
}

#[test]
fn silu_mul() {
    let strategy = (any::<u64>(), temper(), 1..40_usize, row_count(), forms());
    check(600, strategy, |(seed, temper, blocks, rows, forms), cases| {
        let mut noise = Noise::new(seed);
        let columns = 32 * blocks;
        let mut gate = noise.row(rows * columns, temper);
        let up = noise.row(rows * columns, temper);
        // Around the clamp and the ties of the exponent's rounding.
        for (i, gate) in gate.iter_mut().enumerate().filter(|(i, _)| i % 5 == 0) {
            let t = (i % 410) as f32 - 205.0;
            *gate = t * 0.5 / ops::LOG2_E;
        }
        let expected: Vec<Vec<f32>> = gate
            .chunks_exact(columns)
            .zip(up.chunks_exact(columns))
            .map(|(gate, up)| ops::silu_mul(gate, up))
            .collect();
        *cases += nonzero(&expected.concat());
        for executor in EXECUTORS.iter() {
            let mut activations = Activations::new(rows.max(1), columns, forms);
            activations.set_rows(rows);
            let faults = Faults::new(rows);
            executor.silu_mul(&gate, &up, &mut activations, &faults);
            same_activations(executor, &activations, &faults, &expected)?;
        }
        Ok(())
    });
}

// Rotary tables

fn rotary_case() -> impl Strategy<Value = (rotary::Parameters, usize)> {
    let base = prop_oneof![
        prop::sample::select(vec![10000.0, 500000.0, 1e6, 5e6, 1e7]),
        (1.5..1e6_f32).prop_map(f64::from),
        (1.01..8.0_f32).prop_map(f64::from),
    ];
    let positive = |low: f32, high: f32| (low..high).prop_map(f64::from);
    let yarn = (
        positive(1.0, 64.0),
        prop_oneof![64..400_u32, 400..200_000_u32],
        positive(2.0, 64.0),
        positive(0.25, 2.0),
        positive(0.1, 2.0),
    )
        .prop_map(|(factor, original_context, beta_fast, beta_slow, attention_factor)| {
            rotary::Scaling::Yarn {
                factor,
                original_context: original_context.into(),
                beta_fast,
                beta_slow,
                attention_factor,
            }
        });
    let scaling = prop_oneof![
        Just(rotary::Scaling::None),
        positive(0.5, 64.0).prop_map(|factor| rotary::Scaling::Linear { factor }),
        yarn,
    ];
    (1..17_usize, base, scaling, any::<bool>(), any::<u64>(), 1..300_usize).prop_map(
        |(blocks, base, scaling, factors, seed, context)| {
            let head_dim = 16 * blocks;
            let mut noise = Noise::new(seed);
            let factors = (factors && !matches!(scaling, rotary::Scaling::Yarn { .. }))
                .then(|| (0..head_dim / 2).map(|_| 1.0 + 31.0 * noise.unit().abs()).collect());
            (rotary::Parameters { head_dim, base, scaling, factors }, context)
        },
    )
}

fn kernel_table(parameters: &rotary::Parameters, context: usize) -> kernels::RotaryTable {
    let scaling = match parameters.scaling {
        rotary::Scaling::None => kernels::Scaling::None,
        rotary::Scaling::Linear { factor } => kernels::Scaling::Linear(factor),
        rotary::Scaling::Yarn { factor, original_context, beta_fast, beta_slow, attention_factor } => {
            kernels::Scaling::Yarn { factor, original_context, beta_fast, beta_slow, attention_factor }
        }
    };
    kernels::RotaryTable::new(kernels::RotaryParameters {
        head_dim: parameters.head_dim,
        base: parameters.base,
        context,
        positions: context,
        scaling,
        factors: parameters.factors.clone(),
    })
    .expect("parameters in range")
}

/// A case is a row of the table. The bytes that both hash are compared, not only their digests.
#[test]
fn rotary_tables() {
    check(300, rotary_case(), |(parameters, context), cases| {
        let own = rotary::Rotary::new(&parameters);
        let mut expected = Vec::new();
        for position in 0..context {
            let (cosines, sines) = own.row(position);
            expected.extend(cosines.iter().chain(&sines).flat_map(|value| value.to_le_bytes()));
        }
        let mut found = Vec::new();
        kernel_table(&parameters, context).digest(|bytes| found.extend_from_slice(bytes));
        prop_assert_eq!(&found, &expected);
        prop_assert_eq!(own.digest(context), *blake3::hash(&found).as_bytes());
        *cases += context;
        Ok(())
    });
}

/// The longest contexts in use, whose far positions are the hardest to reduce.
#[test]
fn rotary_tables_of_long_contexts() {
    for (base, scaling, context) in
        [(1e6, rotary::Scaling::None, 131_072), (500000.0, rotary::Scaling::Linear { factor: 8.0 }, 40_960)]
    {
        let parameters = rotary::Parameters { head_dim: 128, base, scaling, factors: None };
        let mut hasher = blake3::Hasher::new();
        kernel_table(&parameters, context).digest(|bytes| {
            hasher.update(bytes);
        });
        assert_eq!(
            rotary::Rotary::new(&parameters).digest(context),
            *hasher.finalize().as_bytes(),
            "base {base}"
        );
    }
}

// Attention

#[derive(Clone, Debug)]
struct AttentionCase {
    seed: u64,
    /// Whether some rows hold what ends a sequence.
    wild: bool,
    head_dim: usize,
    kv_heads: usize,
    group: usize,
    norms: bool,
    halves: bool,
    /// For each sequence, the positions it adds in each step.
    sequences: Vec<Vec<usize>>,
}

impl AttentionCase {
    fn heads(&self) -> usize {
        self.kv_heads * self.group
    }
}

fn attention_case(
    head_dims: Vec<usize>,
    kv_heads: std::ops::Range<usize>,
    sequences: impl Strategy<Value = Vec<Vec<usize>>>,
) -> impl Strategy<Value = AttentionCase> {
    let head_dim = prop::sample::select(head_dims);
    (any::<u64>(), any::<bool>(), head_dim, kv_heads, 1..4_usize, any::<bool>(), any::<bool>(), sequences)
        .prop_map(|(seed, wild, head_dim, kv_heads, group, norms, halves, sequences)| {
            // The row that leaves attention enters a product, which takes whole blocks of 32.
            let group = if (head_dim * kv_heads * group).is_multiple_of(32) { group } else { 2 * group };
            AttentionCase { seed, wild, head_dim, kv_heads, group, norms, halves, sequences }
        })
}

/// What a sequence gives kernels: q, k and v rows for positions from 0.
struct Inputs {
    q: Vec<Vec<f32>>,
    k: Vec<Vec<f32>>,
    v: Vec<Vec<f32>>,
}

impl Inputs {
    fn draw(noise: &mut Noise, case: &AttentionCase, positions: usize) -> Inputs {
        let (mut q, mut k, mut v) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..positions {
            // A few rows stray, however long the sequence: enough of it must go on.
            let temper = match noise.below(20 + positions) {
                0 if case.wild => Temper::Wild,
                0..4 => Temper::Any,
                _ => Temper::Calm,
            };
            // What binary16 can hold, unless the row is meant to end the sequence.
            let tame = |x: f32| if temper == Temper::Wild { x } else { x.clamp(-6e4, 6e4) };
            q.push(noise.row(case.head_dim * case.heads(), temper));
            k.push(noise.row(case.head_dim * case.kv_heads, temper).into_iter().map(tame).collect());
            v.push(noise.row(case.head_dim * case.kv_heads, temper).into_iter().map(tame).collect());
        }
        Inputs { q, k, v }
    }
}

/// The norms of.
struct Norms {
    q: Vec<f32>,
    k: Vec<f32>,
    eps: f32,
}

/// The attention rows of positions from 0, until the sequence ends.
fn expected_attention(
    case: &AttentionCase,
    inputs: &Inputs,
    norms: Option<&Norms>,
    table: &rotary::Rotary,
) -> Vec<Vec<f32>> {
    let pairs = if case.halves { rotary::Pairs::Halves } else { rotary::Pairs::Neighbours };
    let mut keys = vec![Vec::new(); case.kv_heads];
    let mut values = vec![Vec::new(); case.kv_heads];
    let mut rows = Vec::new();
    for (position, ((q, k), v)) in inputs.q.iter().zip(&inputs.k).zip(&inputs.v).enumerate() {
        let (cosines, sines) = table.row(position);
        let turn = |head: &[f32], norm: Option<(&Vec<f32>, f32)>| {
            let normed = norm.map_or(head.to_vec(), |(weight, eps)| ops::rms_norm(head, weight, eps));
            rotary::rotate(&normed, pairs, &cosines, &sines)
        };
        let store = |row: &[f32]| row.iter().map(|&value| bits::f32_to_f16(value)).collect::<Vec<u16>>();
        let is_stored = |row: &[u16]| row.iter().all(|&half| bits::f16_to_f32(half).is_finite());
        for kv in 0..case.kv_heads {
            let range = kv * case.head_dim..(kv + 1) * case.head_dim;
            let key = store(&turn(&k[range.clone()], norms.map(|norms| (&norms.k, norms.eps))));
            let value = store(&v[range]);
            if !is_stored(&key) || !is_stored(&value) {
                return rows;
            }
            keys[kv].push(key);
            values[kv].push(value);
        }
        let mut row = Vec::new();
        for (head, q) in q.chunks_exact(case.head_dim).enumerate() {
            let q = turn(q, norms.map(|norms| (&norms.q, norms.eps)));
            let kv = head / case.group;
            match attention::attention_head(&q, &keys[kv], &values[kv]) {
                Ok(out) if q.iter().all(|q| q.is_finite()) => row.extend(out),
                _ => return rows,
            }
        }
        // The row enters a product next.
        if ops::quantise(&row).is_err() {
            return rows;
        }
        rows.push(row);
    }
    rows
}

/// One sequence's part in one step.
struct Part<'a> {
    pages: &'a [u32],
    first_position: usize,
    q: &'a [Vec<f32>],
    k: &'a [Vec<f32>],
    v: &'a [Vec<f32>],
}

/// Runs one step of attention in kernels. The rows are those of the parts, one part after another.
fn kernel_step(
    executor: &Executor,
    case: &AttentionCase,
    norms: Option<&Norms>,
    rotary: &kernels::RotaryTable,
    cache: &mut kernels::KvCache,
    parts: &[Part<'_>],
) -> (Activations, Faults) {
    let mut segments = Vec::new();
    let (mut q, mut k, mut v) = (Vec::new(), Vec::new(), Vec::new());
    let mut rows = 0;
    for part in parts {
        q.extend(part.q.concat());
        k.extend(part.k.concat());
        v.extend(part.v.concat());
        let own = rows..rows + part.q.len();
        rows = own.end;
        segments.push(kernels::Segment { pages: part.pages, first_position: part.first_position, rows: own });
    }
    let pairs = if case.halves { kernels::RotaryPairs::Halves } else { kernels::RotaryPairs::Interleaved };
    let step = kernels::AttentionStep {
        layer: 1,
        heads: case.heads(),
        norms: norms.map(|norms| kernels::HeadNorms { q: &norms.q, k: &norms.k, eps: norms.eps }),
        pairs,
        rotary,
        segments: &segments,
    };
    let mut out = Activations::new(rows, case.head_dim * case.heads(), Forms::Quantised);
    out.set_rows(rows);
    let faults = Faults::new(rows);
    executor.attention(&step, &mut q, &mut k, &v, cache, &mut out, &faults);
    (out, faults)
}

/// Whole steps of several sequences on scattered pages with stale contents: norms, rotary, the cache, attention.
/// A case is one query head at one position.
fn attention_agrees(draws: u32, strategy: impl Strategy<Value = AttentionCase>) {
    check(draws, strategy, |case, cases| {
        let mut noise = Noise::new(case.seed);
        let norms = case.norms.then(|| Norms {
            q: noise.row(case.head_dim, Temper::Calm),
            k: noise.row(case.head_dim, Temper::Calm),
            eps: eps(&mut noise),
        });
        let norms = norms.as_ref();
        let lengths: Vec<usize> = case.sequences.iter().map(|steps| steps.iter().sum()).collect();
        let context = lengths.iter().copied().max().unwrap_or(0).max(kernels::PAGE_POSITIONS);
        let parameters = rotary::Parameters {
            head_dim: case.head_dim,
            base: noise.pick(&[10000.0, 500000.0, 50.0]),
            scaling: rotary::Scaling::None,
            factors: None,
        };
        let table = rotary::Rotary::new(&parameters);
        let inputs: Vec<Inputs> =
            lengths.iter().map(|&length| Inputs::draw(&mut noise, &case, length)).collect();
        let expected: Vec<Vec<Vec<f32>>> =
            inputs.iter().map(|inputs| expected_attention(&case, inputs, norms, &table)).collect();
        let heads = expected.iter().flatten().flat_map(|row| row.chunks_exact(case.head_dim));
        *cases += heads.filter(|head| nonzero(head) > 0).count();

        // Pages in any order, a few of them nobody's.
        let pages_of = |length: usize| length.div_ceil(kernels::PAGE_POSITIONS);
        let page_count = lengths.iter().map(|&length| pages_of(length)).sum::<usize>() + 3;
        let mut pages: Vec<u32> = (0..page_count as u32).collect();
        for i in (1..pages.len()).rev() {
            pages.swap(i, noise.below(i + 1));
        }
        let mut first_pages = vec![0];
        for &length in &lengths {
            first_pages.push(first_pages[first_pages.len() - 1] + pages_of(length));
        }

        let kernel_rotary = kernel_table(&parameters, context);
        let shape = kernels::KvShape { layers: 2, kv_heads: case.kv_heads, head_dim: case.head_dim };
        let stale = vec![vec![f32::INFINITY; case.head_dim * case.heads()]; kernels::PAGE_POSITIONS];
        let stale_kv = vec![vec![f32::INFINITY; case.head_dim * case.kv_heads]; kernels::PAGE_POSITIONS];
        let steps = case.sequences.iter().map(Vec::len).max().unwrap_or(0);
        for executor in EXECUTORS.iter() {
            let mut cache = kernels::KvCache::new(shape, page_count).expect("memory for a small cache");
            let parts: Vec<Part<'_>> = pages
                .chunks(1)
                .map(|pages| Part { pages, first_position: 0, q: &stale, k: &stale_kv, v: &stale_kv })
                .collect();
            kernel_step(executor, &case, norms, &kernel_rotary, &mut cache, &parts);

            for step in 0..steps {
                // The sequences that take part: those with positions to add, and not yet ended.
                let mut parts = Vec::new();
                let mut owners = Vec::new();
                for (sequence, added) in case.sequences.iter().enumerate() {
                    let from: usize = added[..step.min(added.len())].iter().sum();
                    let to = from + added.get(step).copied().unwrap_or(0);
                    if to > from && from <= expected[sequence].len() {
                        let inputs = &inputs[sequence];
                        let (q, k, v) = (&inputs.q[from..to], &inputs.k[from..to], &inputs.v[from..to]);
                        let pages = &pages[first_pages[sequence]..][..pages_of(to)];
                        parts.push(Part { pages, first_position: from, q, k, v });
                        owners.push((sequence, from));
                    }
                }
                let (out, faults) = kernel_step(executor, &case, norms, &kernel_rotary, &mut cache, &parts);
                let mut row = 0;
                for (part, (sequence, from)) in parts.iter().zip(owners) {
                    for position in from..from + part.q.len() {
                        let what = || format!("{}: sequence {sequence}, position {position}", name(executor));
                        match expected[sequence].get(position) {
                            Some(expected) => {
                                prop_assert!(!faults.is_faulted(row), "{} ended", what());
                                same(out.row_f32(row), expected, what)?;
                            }
                            None if position == expected[sequence].len() => {
                                prop_assert!(faults.is_faulted(row), "{} did not end", what());
                            }
                            // After its end a sequence has no numbers.
                            None => (),
                        }
                        row += 1;
                    }
                }
            }
        }
        Ok(())
    });
}

#[test]
fn attention_in_batches() {
    let added = prop_oneof![3 => Just(1), 4 => 2..20_usize, 1 => 30..40_usize];
    let sequences = prop::collection::vec(prop::collection::vec(added, 1..5), 1..5);
    attention_agrees(150, attention_case(vec![16, 32, 48, 64, 80, 96, 128], 1..4, sequences));
}

/// Past the ends of segments at 512 and at 1,024 positions.
#[test]
fn attention_past_segments() {
    let beside_512 = (500..513_usize, 1..4_usize, 1..20_usize).prop_map(|(a, b, c)| vec![vec![a, b, 1, c]]);
    let beside_1024 = (1010..1026_usize).prop_map(|a| vec![vec![a, 1, 1]]);
    let sequences = prop_oneof![5 => beside_512, 1 => beside_1024];
    attention_agrees(16, attention_case(vec![16, 32, 48], 1..2, sequences));
}

// Sampling

#[test]
fn sampling_weights() {
    check(300, (any::<u64>(), 1..3000_usize), |(seed, count), cases| {
        let mut noise = Noise::new(seed);
        let mut logits: Vec<f32> = (0..count).map(|_| noise.unit() * 30.0).collect();
        for logit in &mut logits {
            match noise.below(60) {
                0 => *logit = noise.pick(&[0.0, -0.0, f32::MIN, -1e30, 30.0, f32::from_bits(1)]),
                1 => *logit = noise.below(61) as f32 - 30.0,
                2 => *logit = noise.below(120) as f32 * 0.5 - 30.0,
                _ => (),
            }
        }
        let temperature =
            noise.pick(&[0.01, 0.1, 0.5, 0.7, 1.0, 1.3, 2.0, ops::LOG2_E, 1e-6, f32::MIN_POSITIVE]);
        let scale = ops::LOG2_E / temperature;
        let max = logits[sample::argmax(&logits) as usize];
        let expected = sample::weights(&logits, max, scale);
        *cases += expected.iter().filter(|&&weight| weight > 0).count();
        for executor in EXECUTORS.iter() {
            let mut out = vec![u64::MAX; count];
            executor.sampling_weights(&logits, max, scale, &mut out);
            let differs = (0..count).find(|&i| out[i] != expected[i]);
            if let Some(i) = differs {
                return Err(TestCaseError::fail(format!(
                    "{}: logit {:e}, max {max:e}, scale {scale:e}: kernels give {}, reference {}",
                    name(executor),
                    logits[i],
                    out[i],
                    expected[i]
                )));
            }
        }
        Ok(())
    });
}

#[test]
fn argmax_and_all_finite() {
    check(12_000, (any::<u64>(), temper(), 1..200_usize), |(seed, temper, count), cases| {
        let logits = Noise::new(seed).row(count, temper);
        let finite = logits.iter().all(|logit| logit.is_finite());
        *cases += 1;
        for executor in EXECUTORS.iter() {
            prop_assert_eq!(executor.all_finite(&logits), finite, "{}", name(executor));
            if finite {
                let expected = sample::argmax(&logits);
                let (token, logit) = executor.argmax(&logits);
                prop_assert_eq!(token, expected, "{}", name(executor));
                same(&[logit], &[logits[expected as usize]], || name(executor))?;
            }
        }
        Ok(())
    });
}

// binary16

#[test]
fn halves() {
    for half in 0..=u16::MAX {
        let wide = [kernels::half::widen(half), kernels::half::widen_bf16(half)];
        assert_eq!(bits_of(&wide), bits_of(&[bits::f16_to_f32(half), bits::bf16_to_f32(half)]), "{half:04x}");
    }
    // Every 1,021st binary32, and the middles between neighbouring binary16 values with their neighbours.
    let strided = (0..=u32::MAX).step_by(1021);
    let middles =
        (0..u32::MAX >> 12).flat_map(|upper| [(upper << 12).wrapping_sub(1), upper << 12, (upper << 12) + 1]);
    for pattern in strided.chain(middles) {
        let value = f32::from_bits(pattern);
        if !value.is_nan() {
            assert_eq!(kernels::half::narrow(value), bits::f32_to_f16(value), "{value:e}");
        }
    }
}
