//! RMS norm and the residual.
//!
//! In:     rows of f32, a weight per column, epsilon.
//! Out:    normed rows, as f32 or as activations ready for a product; residual sums in place.
//! Holds:  the sum of squares runs in 16 lanes closed by one tree, whatever the vector width.
//! Absent: layer norm with a mean. No supported architecture has one.

use crate::lane::{Lanes, WIDTH, instances};
use crate::parts::Parts;
use crate::{Activations, Executor, Faults, step};

impl Executor {
    /// Norms the rows `x` [rows, columns] with `weight` `[columns]` into `out`.
    ///
    /// Panics if the shapes disagree or `columns` is not a multiple of 16.
    pub fn rms_norm(&self, x: &[f32], weight: &[f32], eps: f32, out: &mut Activations, faults: &Faults) {
        let columns = out.columns();
        assert_eq!(x.len(), out.rows() * columns, "rows of the input and of the activations");
        assert_eq!(weight.len(), columns, "one weight per column");
        self.write_rows(out, faults, |row, out| {
            rms_norm(self.available(), &x[row * columns..][..columns], weight, eps, out);
        });
    }

    /// `x = x + y`, both [rows, columns], then the rows of x normed into `out`.
    pub fn add_rms_norm(
        &self,
        x: &mut [f32],
        y: &[f32],
        weight: &[f32],
        eps: f32,
        out: &mut Activations,
        faults: &Faults,
    ) {
        let columns = out.columns();
        assert_eq!(x.len(), out.rows() * columns, "rows of the input and of the activations");
        assert_eq!(y.len(), x.len(), "the two terms of a residual");
        assert_eq!(weight.len(), columns, "one weight per column");
        let x = Parts::new(x);
        self.write_rows(out, faults, |row, out| {
            // SAFETY: each item has its own row.
            #[allow(unsafe_code)]
            let x = unsafe { x.part(row * columns..(row + 1) * columns) };
            add(self.available(), x, &y[row * columns..][..columns]);
            rms_norm(self.available(), x, weight, eps, out);
        });
    }

    /// Norms the rows `x` [rows, columns] with `weight` `[columns]` into `out`, like x.
    pub fn rms_norm_rows(&self, x: &[f32], weight: &[f32], eps: f32, out: &mut [f32]) {
        let columns = weight.len();
        assert_eq!(x.len(), out.len(), "as many outputs as inputs");
        assert!(x.len().is_multiple_of(columns), "whole rows");
        let out = Parts::new(out);
        self.pool().run(x.len() / columns, |_, row| {
            // SAFETY: each item has its own row.
            #[allow(unsafe_code)]
            let out = unsafe { out.part(row * columns..(row + 1) * columns) };
            rms_norm(self.available(), &x[row * columns..][..columns], weight, eps, out);
        });
    }

    /// `x = x + y`.
    pub fn add(&self, x: &mut [f32], y: &[f32]) {
        const CHUNK: usize = 16 << 10;
        assert_eq!(y.len(), x.len(), "the two terms of a residual");
        let x = Parts::new(x);
        self.pool().run(x.len().div_ceil(CHUNK), |_, chunk| {
            let range = chunk * CHUNK..x.len().min((chunk + 1) * CHUNK);
            // SAFETY: each item has its own chunk.
            #[allow(unsafe_code)]
            let x = unsafe { x.part(range.clone()) };
            add(self.available(), x, &y[range]);
        });
    }
}

instances! {
    /// of one row of whole vectors.
    fn rms_norm = scalar::rms_norm | kernel::rms_norm, (x: &[f32], weight: &[f32], eps: f32, out: &mut [f32]);
    ///
    fn add = scalar::add | kernel::add, (x: &mut [f32], y: &[f32]);
}

pub(crate) mod scalar {
    use super::*;
    use step::LANES;

    /// of one row.
    pub(crate) fn rms_norm(x: &[f32], weight: &[f32], eps: f32, out: &mut [f32]) {
        let inverse = step::norm_inverse(step::squares([0.0; LANES], x), x.len(), eps);
        for ((y, x), w) in out.iter_mut().zip(x).zip(weight) {
            *y = step::normed(*x, inverse, *w);
        }
    }

    ///
    pub(crate) fn add(x: &mut [f32], y: &[f32]) {
        for (x, y) in x.iter_mut().zip(y) {
            *x = step::residual(*x, *y);
        }
    }
}

pub(crate) mod kernel {
    use super::*;

    /// `inv` of.
    #[inline(always)]
    fn inverse<V: Lanes>(v: V, x: &[f32], eps: f32) -> f32 {
        let (vectors, rest) = x.as_chunks::<WIDTH>();
        assert!(rest.is_empty(), "whole vectors");
        let mut squares = v.splat(0.0);
        for x in vectors {
            let x = v.load(x);
            squares = v.fma(x, x, squares);
        }
        1.0 / (v.tree(squares) / x.len() as f32 + eps).sqrt()
    }

    #[inline(always)]
    pub(crate) fn rms_norm<V: Lanes>(v: V, x: &[f32], weight: &[f32], eps: f32, out: &mut [f32]) {
        assert!(weight.len() == x.len() && out.len() == x.len());
        let inverse = v.splat(inverse(v, x, eps));
        let vectors = out.as_chunks_mut().0.iter_mut().zip(x.as_chunks().0).zip(weight.as_chunks().0);
        for ((out, x), weight) in vectors {
            v.store(out, v.mul(v.mul(v.load(x), inverse), v.load(weight)));
        }
    }

    #[inline(always)]
    pub(crate) fn rms_norm_in_place<V: Lanes>(v: V, x: &mut [f32], weight: &[f32], eps: f32) {
        assert_eq!(weight.len(), x.len());
        let inverse = v.splat(inverse(v, x, eps));
        for (x, weight) in x.as_chunks_mut().0.iter_mut().zip(weight.as_chunks().0) {
            v.store(x, v.mul(v.mul(v.load(x), inverse), v.load(weight)));
        }
    }

    #[inline(always)]
    pub(crate) fn add<V: Lanes>(v: V, x: &mut [f32], y: &[f32]) {
        assert_eq!(x.len(), y.len());
        let ((xs, x_rest), (ys, y_rest)) = (x.as_chunks_mut(), y.as_chunks());
        for (x, y) in xs.iter_mut().zip(ys) {
            v.store(x, v.add(v.load(x), v.load(y)));
        }
        scalar::add(x_rest, y_rest);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Forms;
    use crate::generate::Generator;
    use crate::testing::{bits, executor, twins_agree};

    struct Case {
        columns: usize,
        x: Vec<f32>,
        y: Vec<f32>,
        weight: Vec<f32>,
        eps: f32,
    }

    fn case(generator: &mut Generator) -> Case {
        let columns = 32 * (1 + generator.below(10));
        let rows = 1 + generator.below(6);
        let mut rows_of = || {
            let mut x = vec![0.0; rows * columns];
            x.chunks_exact_mut(columns).for_each(|row| generator.activations(row));
            x
        };
        let (x, y) = (rows_of(), rows_of());
        let weight = (0..columns).map(|_| generator.normal(1.0)).collect();
        Case { columns, x, y, weight, eps: [1e-5, 1e-6][generator.below(2)] }
    }

    /// The rows of some activations, faulted ones as zeros.
    fn record(out: &Activations, faults: &Faults) -> Vec<u32> {
        let row = |row| if faults.is_faulted(row) { vec![0] } else { bits(out.row_f32(row)) };
        (0..out.rows()).flat_map(row).collect()
    }

    #[test]
    fn twins_agree_on_norms_and_residuals() {
        twins_agree(12_000, case, |executor, case| {
            let rows = case.x.len() / case.columns;
            let mut out = Activations::new(rows, case.columns, Forms::Quantised);
            out.set_rows(rows);
            let faults = Faults::new(rows);
            executor.rms_norm(&case.x, &case.weight, case.eps, &mut out, &faults);
            let mut found = record(&out, &faults);
            let faults = Faults::new(rows);
            let mut x = case.x.clone();
            executor.add_rms_norm(&mut x, &case.y, &case.weight, case.eps, &mut out, &faults);
            found.extend(record(&out, &faults));
            found.extend(bits(&x));
            let mut plain = vec![0.0; x.len()];
            executor.rms_norm_rows(&case.x, &case.weight, case.eps, &mut plain);
            found.extend(bits(&plain));
            // Lengths that are not whole vectors.
            let ragged = x.len() - x.len() % 7 - 1;
            let mut sum = x[..ragged].to_vec();
            executor.add(&mut sum, &case.y[..ragged]);
            found.extend(bits(&sum));
            found
        });
    }

    #[test]
    fn the_tree_closes_as_written() {
        let lanes: [f32; step::LANES] = std::array::from_fn(|l| 1.1f32.powi(3 * l as i32));
        let eight: [f32; 8] = std::array::from_fn(|l| lanes[l] + lanes[l + 8]);
        let four: [f32; 4] = std::array::from_fn(|l| eight[l] + eight[l + 4]);
        assert_eq!(step::tree(lanes), (four[0] + four[2]) + (four[1] + four[3]));
    }

    #[test]
    fn norms_are_close_to_binary64() {
        let generator = &mut Generator::new(1);
        let x: Vec<f32> = (0..1024).map(|_| generator.normal(3.0)).collect();
        let weight: Vec<f32> = (0..1024).map(|_| generator.normal(1.0)).collect();
        let mut out = vec![0.0; 1024];
        executor(crate::Backend::detect(), 1).rms_norm_rows(&x, &weight, 1e-6, &mut out);
        let mean = x.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>() / 1024.0;
        for i in 0..1024 {
            let exact = f64::from(x[i]) / (mean + 1e-6).sqrt() * f64::from(weight[i]);
            assert!((f64::from(out[i]) - exact).abs() <= 1e-6 * exact.abs(), "{i}");
        }
    }
}
