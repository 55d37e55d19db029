use super::*;
use crate::generate::Generator;
use crate::testing::{bits, executor, twins_agree};
use crate::{Backend, Faults, packed_bytes};

/// A product to check: a packed matrix, a batch of activations, perhaps a bias.
struct Case {
    format: Format,
    n: usize,
    columns: usize,
    packed: Vec<u8>,
    /// Bytes the packed matrix is moved by, so that nothing relies on its alignment.
    shift: usize,
    rows: usize,
    x: Vec<f32>,
    bias: Option<Vec<f32>>,
}

impl Case {
    /// Mostly small shapes; sometimes many rows, sometimes past one or two segments of 1,024 columns.
    fn new(generator: &mut Generator, format: Format) -> Case {
        let rows = match generator.below(8) {
            0 => 1 + generator.below(50),
            1 => 15 + generator.below(4),
            _ => 1 + generator.below(9),
        };
        let n = match generator.below(8) {
            0 => 1 + generator.below(70),
            1 => [15, 16, 17, 31, 32, 33][generator.below(6)],
            _ => 1 + generator.below(18),
        };
        let unit = format.product_elements();
        let columns = match generator.below(32) {
            0 => 2048 + unit * generator.below(2048 / unit),
            1..4 => 1024 - 256 + unit * generator.below(512 / unit + 1),
            _ => unit * (1 + generator.below(if unit == 32 { 12 } else { 2 })),
        };
        Case::with_shape(generator, format, n, columns, rows)
    }

    fn with_shape(generator: &mut Generator, format: Format, n: usize, columns: usize, rows: usize) -> Case {
        let scale = [0.01, 1.0, 1e-6][generator.below(3)];
        let source = generator.matrix(format, n, columns, scale);
        let shift = generator.below(4);
        let mut packed = vec![0; packed_bytes(format, n, columns) + shift];
        executor(Backend::Scalar, 1).pack(format, n, columns, &source, &mut packed[shift..]).expect("finite");
        let mut x = vec![0.0; rows * columns];
        x.chunks_exact_mut(columns).for_each(|row| generator.activations(row));
        let bias = (generator.below(3) == 0).then(|| (0..n).map(|_| generator.normal(1.0)).collect());
        Case { format, n, columns, packed, shift, rows, x, bias }
    }

    fn run(&self, executor: &Executor) -> Vec<u32> {
        bits(&self.run_rows(executor, 0..self.rows))
    }

    /// The product of some of its rows; rows that are faulted count for nothing.
    fn run_rows(&self, executor: &Executor, range: Range<usize>) -> Vec<f32> {
        let rows = range.len();
        let mut input = Activations::new(rows + rows % 3, self.columns, Forms::of([self.format]));
        input.set_rows(rows);
        let faults = Faults::new(rows);
        executor.quantise(&self.x[range.start * self.columns..range.end * self.columns], &mut input, &faults);
        let mut out = vec![f32::NAN; rows * self.n];
        let matrix = Matrix::new(self.format, self.n, self.columns, &self.packed[self.shift..]);
        executor.matmul(&input, &mut [Output { matrix, bias: self.bias.as_deref(), out: &mut out }]);
        for row in faults.rows() {
            out[row * self.n..][..self.n].fill(0.0);
        }
        out
    }
}

macro_rules! twins {
    ($($name:ident: $format:ident;)*) => { $(
        #[test]
        fn $name() {
            twins_agree(2_000, |generator| Case::new(generator, Format::$format), |executor, case| case.run(executor));
        }
    )* };
}

twins! {
    twins_agree_on_f32: F32;
    twins_agree_on_f16: F16;
    twins_agree_on_bf16: BF16;
    twins_agree_on_q8_0: Q8_0;
    twins_agree_on_q4_0: Q4_0;
    twins_agree_on_q4_k: Q4_K;
    twins_agree_on_q6_k: Q6_K;
}

/// each row alone gives what it gives in company, on every backend and many threads.
#[test]
fn rows_do_not_depend_on_their_neighbours() {
    for format in Format::ALL {
        for (seed, rows) in [(1, 37), (2, 150)] {
            let generator = &mut Generator::new(seed);
            let case = Case::with_shape(generator, format, 40, 1280, rows);
            let together = case.run(&executor(Backend::Scalar, 1));
            for backend in Backend::available() {
                let (alone, many) = (executor(backend, 1), executor(backend, 4));
                assert!(case.run(&alone) == together, "{format} {backend}");
                assert!(case.run(&many) == together, "{format} {backend}");
                for row in (0..rows).step_by(if backend == Backend::Scalar { 50 } else { 3 }) {
                    let one = bits(&case.run_rows(&alone, row..row + 1));
                    assert_eq!(one, together[row * 40..(row + 1) * 40], "{format} {backend} row {row}");
                }
            }
        }
    }
}

/// Several outputs in one call are those of several calls.
#[test]
fn outputs_that_share_an_input_do_not_meet() {
    for backend in Backend::available() {
        let executor = executor(backend, 2);
        let generator = &mut Generator::new(3);
        let cases: Vec<Case> = [(Format::Q4_K, 70), (Format::Q6_K, 16), (Format::F16, 33), (Format::Q8_0, 1)]
            .map(|(format, n)| Case::with_shape(generator, format, n, 512, 5))
            .into();
        let x = &cases[0].x;
        let mut input = Activations::new(5, 512, Forms::Quantised);
        input.set_rows(5);
        executor.quantise(x, &mut input, &Faults::new(5));
        let product = |cases: &[Case]| -> Vec<Vec<f32>> {
            let mut outs: Vec<Vec<f32>> = cases.iter().map(|case| vec![0.0; 5 * case.n]).collect();
            let mut outputs: Vec<Output<'_>> = cases
                .iter()
                .zip(&mut outs)
                .map(|(case, out)| Output {
                    matrix: Matrix::new(case.format, case.n, case.columns, &case.packed[case.shift..]),
                    bias: case.bias.as_deref(),
                    out,
                })
                .collect();
            executor.matmul(&input, &mut outputs);
            outs
        };
        let together = product(&cases);
        for (i, case) in cases.iter().enumerate() {
            assert_eq!(bits(&together[i]), bits(&product(std::slice::from_ref(case))[0]), "{backend} {i}");
        }
    }
}

/// Closeness of meaning: against binary64 over the same weights, widened, and the same activations.
#[test]
fn products_are_close_to_binary64() {
    for format in Format::ALL {
        let (n, columns, rows) = (20, 1536, 3);
        let generator = &mut Generator::new(4);
        let mut source = Vec::new();
        while source.len() < n * format.row_bytes(columns) {
            let mut block = Vec::new();
            generator.weights(format, format.block_elements(), 0.05, &mut block);
            let mut values = vec![0.0; format.block_elements()];
            crate::format::widen_row(format, &block, &mut values);
            if values.iter().all(|w| w.abs() < 1e3) {
                source.extend(block);
            }
        }
        let x: Vec<f32> = (0..rows * columns).map(|_| generator.normal(1.0)).collect();
        let executor = executor(Backend::detect(), 1);
        let mut packed = vec![0; packed_bytes(format, n, columns)];
        executor.pack(format, n, columns, &source, &mut packed).expect("finite");
        let mut input = Activations::new(rows, columns, Forms::of([format]));
        input.set_rows(rows);
        executor.quantise(&x, &mut input, &Faults::new(rows));
        let mut out = vec![0.0; rows * n];
        let matrix = Matrix::new(format, n, columns, &packed);
        executor.matmul(&input, &mut [Output { matrix, bias: None, out: &mut out }]);
        let mut weights = vec![0.0; columns];
        for (r, row) in source.chunks_exact(format.row_bytes(columns)).enumerate() {
            crate::format::widen_row(format, row, &mut weights);
            for m in 0..rows {
                let terms = weights.iter().zip(&x[m * columns..][..columns]);
                let (mut exact, mut size) = (0.0, 0.0);
                for (w, x) in terms {
                    exact += f64::from(*w) * f64::from(*x);
                    size += (f64::from(*w) * f64::from(*x)).powi(2);
                }
                // Quantised activations are off by up to 1/254 of their block's greatest; floats only by rounding.
                let tolerance = if format.is_quantised() { 0.03 } else { 1e-5 } * size.sqrt();
                let error = (f64::from(out[m * n + r]) - exact).abs();
                assert!(error <= tolerance, "{format} {r} {m}: {error:e} of {tolerance:e}");
            }
        }
    }
}

#[test]
fn no_rows_give_no_outputs() {
    let executor = executor(Backend::detect(), 2);
    let packed = vec![0; packed_bytes(Format::Q8_0, 3, 32)];
    let input = Activations::new(4, 32, Forms::Quantised);
    let matrix = Matrix::new(Format::Q8_0, 3, 32, &packed);
    executor.matmul(&input, &mut [Output { matrix, bias: None, out: &mut [] }]);
}

#[test]
#[should_panic(expected = "quantised weights, float activations")]
fn float_activations_do_not_meet_quantised_weights() {
    let executor = executor(Backend::Scalar, 1);
    let packed = vec![0; packed_bytes(Format::Q8_0, 3, 32)];
    let mut input = Activations::new(1, 32, Forms::Float);
    input.set_rows(1);
    let matrix = Matrix::new(Format::Q8_0, 3, 32, &packed);
    executor.matmul(&input, &mut [Output { matrix, bias: None, out: &mut [0.0; 3] }]);
}
