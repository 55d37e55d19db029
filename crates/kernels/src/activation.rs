//! The activation function: exp2, SiLU and the gated unit.
//!
//! In:     rows of gate and up projections.
//! Out:    `silu(gate)·up`, ready for a product.
//! Holds:  exp2 is the one transcendental of the arithmetic; attention and sampling use it too.
//! Absent: GELU. No supported architecture has one.

use crate::lane::{Lanes, WIDTH, instances};
use crate::{Activations, Executor, Faults, step};

/// log2(e), as the rules write it.
pub(crate) const LOG2E: f32 = 1.44269504;

/// The polynomial of, highest power first.
pub(crate) const EXP2: [f32; 7] = [
    1.535336188319500e-4,
    1.339887440266574e-3,
    9.618437357674640e-3,
    5.550332471162809e-2,
    2.402264791363012e-1,
    6.931472028550421e-1,
    1.0,
];

/// Exponents below this give exactly zero.
pub(crate) const EXPONENT_MIN: i32 = -120;

impl Executor {
    /// `silu(gate)·up`, both [rows, columns], into `out`.
    pub fn silu_mul(&self, gate: &[f32], up: &[f32], out: &mut Activations, faults: &Faults) {
        let columns = out.columns();
        assert_eq!(gate.len(), out.rows() * columns, "rows of the gate and of the activations");
        assert_eq!(up.len(), gate.len(), "as many ups as gates");
        self.write_rows(out, faults, |row, out| {
            let range = row * columns..(row + 1) * columns;
            silu_mul(self.available(), &gate[range.clone()], &up[range], out);
        });
    }
}

instances! {
    /// `silu(gate)·up` of one row of whole vectors.
    fn silu_mul = scalar::silu_mul | kernel::silu_mul, (gate: &[f32], up: &[f32], out: &mut [f32]);
}

mod scalar {
    use super::*;

    pub(super) fn silu_mul(gate: &[f32], up: &[f32], out: &mut [f32]) {
        for ((out, gate), up) in out.iter_mut().zip(gate).zip(up) {
            *out = step::gated(*gate, *up);
        }
    }
}

pub(crate) mod kernel {
    use super::*;

    /// for an integral `m`.
    #[inline(always)]
    pub(crate) fn exp2<V: Lanes>(v: V, t: V::Floats, m: f32) -> V::Floats {
        let n = v.rint(t);
        let f = v.sub(t, n);
        let mut p = v.splat(EXP2[0]);
        for c in &EXP2[1..] {
            p = v.fma(p, f, v.splat(*c));
        }
        let exponent = v.min(v.sub(n, v.splat(m)), v.splat(128.0));
        v.mul(p, v.power_of_two(v.to_ints(exponent)))
    }

    #[inline(always)]
    pub(super) fn silu_mul<V: Lanes>(v: V, gate: &[f32], up: &[f32], out: &mut [f32]) {
        assert!(gate.len() == out.len() && up.len() == out.len() && out.len().is_multiple_of(WIDTH));
        let vectors = out.as_chunks_mut().0.iter_mut().zip(gate.as_chunks().0).zip(up.as_chunks().0);
        for ((out, gate), up) in vectors {
            let x = v.load(gate);
            let t = v.min(v.max(v.mul(x, v.splat(-LOG2E)), v.splat(-100.0)), v.splat(100.0));
            let silu = v.div(x, v.add(v.splat(1.0), exp2(v, t, 0.0)));
            v.store(out, v.mul(silu, v.load(up)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Forms;
    use crate::testing::{bits, twins_agree};

    #[test]
    fn twins_agree_on_the_gated_unit() {
        twins_agree(
            12_000,
            |generator| {
                let columns = 32 * (1 + generator.below(8));
                let mut gate = vec![0.0; columns * (1 + generator.below(4))];
                let mut up = gate.clone();
                for (gate, up) in gate.chunks_exact_mut(columns).zip(up.chunks_exact_mut(columns)) {
                    generator.activations(gate);
                    generator.activations(up);
                    if generator.below(8) == 0 {
                        gate.iter_mut().for_each(|x| *x = generator.any_finite());
                    }
                }
                (columns, gate, up)
            },
            |executor, (columns, gate, up)| {
                let rows = gate.len() / columns;
                let mut out = Activations::new(rows, *columns, Forms::Float);
                out.set_rows(rows);
                let faults = Faults::new(rows);
                executor.silu_mul(gate, up, &mut out, &faults);
                (0..rows)
                    .flat_map(|row| bits(out.row_f32(row)))
                    .chain(faults.rows().map(|row| row as u32))
                    .collect()
            },
        );
    }

    #[test]
    fn exp2_is_close_and_flushes_as_written() {
        for i in -12_000..12_000 {
            let t = i as f32 / 100.0;
            let exact = f64::from(t).exp2();
            let found = f64::from(step::exp2(t, 0));
            if t.round_ties_even() < -120.0 {
                assert_eq!(found.to_bits(), 0, "{t}");
            } else {
                assert!((found - exact).abs() <= 3e-7 * exact, "{t}: {found} for {exact}");
            }
        }
        assert_eq!(step::exp2(-120.0, 0), 2f32.powi(-120));
        assert_eq!(step::exp2(-121.0, 0), 0.0);
        assert_eq!(step::exp2(-3.0, 117), 2f32.powi(-120));
        assert_eq!(step::exp2(127.0, 0), 2f32.powi(127));
        assert_eq!(step::exp2(128.0, 0), f32::INFINITY);
        assert_eq!(step::exp2(3e38, -5), f32::INFINITY);
        assert_eq!(step::exp2(-3e38, 5), 0.0);
    }

    #[test]
    fn silu_is_close_to_binary64() {
        for i in -4_000..4_000 {
            let x = i as f32 / 40.0;
            let exact = f64::from(x) / (1.0 + (-f64::from(x)).exp());
            let error = (f64::from(step::silu(x)) - exact).abs();
            // Far below zero the clamped exponent is what counts: there the result is next to nothing.
            assert!(error <= 4e-6 * exact.abs() || error < 1e-25, "{x}: {error:e}");
        }
    }
}
