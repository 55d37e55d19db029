//! Activation quantisation: rows of f32 as int8 blocks with one scale each.
//!
//! In:     rows of f32.
//! Out:    the rows and their blocks in an `Activations`; a fault for every row with a non-finite entry.
//! Holds:  a block is a function of its 32 elements alone.
//! Absent: the products that read it.

use crate::activations::{BLOCK, Block, RowBlocks};
use crate::lane::{Lanes, WIDTH, instances};
use crate::{Activations, Executor, Faults, step};

impl Executor {
    /// Copies the rows `x` [rows, columns] into `out` and quantises them if it keeps quantised rows.
    ///
    /// `out.rows()` says how many rows there are; row i of `faults` is set if row i is non-finite.
    pub fn quantise(&self, x: &[f32], out: &mut Activations, faults: &Faults) {
        let columns = out.columns();
        assert_eq!(x.len(), out.rows() * columns, "rows of the input and of the activations");
        self.write_rows(out, faults, |row, out| out.copy_from_slice(&x[row * columns..][..columns]));
    }

    /// Fills every row of `out` by `write(row, floats)`, then checks and quantises it while it is in cache.
    pub(crate) fn write_rows(
        &self,
        out: &mut Activations,
        faults: &Faults,
        write: impl Fn(usize, &mut [f32]) + Sync,
    ) {
        let rows = out.rows();
        assert!(faults.len() >= rows, "one fault flag per row");
        let out = out.writer();
        self.pool().run(rows, |_, row| {
            // SAFETY: each item has its own row.
            #[allow(unsafe_code)]
            let mut out = unsafe { out.row(row) };
            write(row, out.floats);
            if !quantise_row(self.available(), out.floats, out.blocks.as_mut()) {
                faults.set(row);
            }
        });
    }
}

instances! {
    /// Quantises a row, if there is room for it; whether the row is finite in the sense of.
    fn quantise_row = scalar::quantise_row | kernel::quantise_row, (x: &[f32], blocks: Option<&mut RowBlocks<'_>>) -> bool;
}

pub(crate) mod scalar {
    use super::*;

    pub(crate) fn quantise_row(x: &[f32], blocks: Option<&mut RowBlocks<'_>>) -> bool {
        let mut finite = x.iter().all(|x| x.is_finite());
        let Some(blocks) = blocks else { return finite };
        for (b, x) in x.as_chunks().0.iter().enumerate() {
            let block = step::quantise(x);
            finite &= block.is_some();
            blocks.set(b, block.unwrap_or_else(|| Block::new([0; BLOCK], 0.0, [0; 2])));
        }
        finite
    }
}

mod kernel {
    use super::*;

    #[inline(always)]
    pub(super) fn quantise_row<V: Lanes>(v: V, x: &[f32], blocks: Option<&mut RowBlocks<'_>>) -> bool {
        let (x, rest) = x.as_chunks::<WIDTH>();
        assert!(rest.is_empty() && x.len().is_multiple_of(2), "whole blocks");
        let mut greatest = v.splat_ints(0);
        let mut finite = true;
        match blocks {
            None => {
                for x in x {
                    greatest = v.max_ints(greatest, v.magnitude(v.load(x)));
                }
            }
            Some(blocks) => {
                for (b, x) in x.chunks_exact(2).enumerate() {
                    let (low, high) = (v.load(&x[0]), v.load(&x[1]));
                    let magnitudes = v.max_ints(v.magnitude(low), v.magnitude(high));
                    greatest = v.max_ints(greatest, magnitudes);
                    let a = f32::from_bits(v.greatest_int(magnitudes) as u32);
                    let d = a / 127.0;
                    let r = if a > 0.0 { 127.0 / a } else { 0.0 };
                    finite &= r.is_finite();
                    let inverse = v.splat(r);
                    let (low, high) = (v.to_ints(v.mul(low, inverse)), v.to_ints(v.mul(high, inverse)));
                    let mut quants = [[0; WIDTH]; 2];
                    v.store_i8(&mut quants[0], low);
                    v.store_i8(&mut quants[1], high);
                    let quants = *quants.as_flattened().as_array().expect("32 elements");
                    blocks.set(b, Block::new(quants, d, [v.sum_ints(low), v.sum_ints(high)]));
                }
            }
        }
        finite && (v.greatest_int(greatest) as u32) < f32::INFINITY.to_bits()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{bits, executor, twins_agree};
    use crate::{Backend, Forms};

    /// All that quantising a batch leaves behind.
    fn record(executor: &Executor, x: &[f32], columns: usize, forms: Forms) -> Vec<u32> {
        let rows = x.len() / columns;
        let mut out = Activations::new(rows, columns, forms);
        out.set_rows(rows);
        let faults = Faults::new(rows);
        executor.quantise(x, &mut out, &faults);
        let mut record = Vec::new();
        for row in 0..rows {
            record.push(u32::from(faults.is_faulted(row)));
            if faults.is_faulted(row) {
                continue;
            }
            record.extend(bits(out.row_f32(row)));
            for b in 0..if forms == Forms::Quantised { columns / BLOCK } else { 0 } {
                let block = &out.blocks()[out.block_index(row, b)];
                record.extend(block.quants.map(|q| q as u32));
                record.extend(bits(&[block.scale, block.minus_sum]));
                record.extend([block.offset_byte, block.offset_nibble].map(|offset| offset as u32));
                record.extend(block.offset_code.map(|offset| offset as u32));
            }
        }
        record
    }

    #[test]
    fn twins_agree_on_quantisation() {
        twins_agree(
            12_000,
            |generator| {
                let columns = BLOCK * (1 + generator.below(9));
                let rows = 1 + generator.below(20);
                let mut x = vec![0.0; rows * columns];
                for row in x.chunks_exact_mut(columns) {
                    generator.activations(row);
                    match generator.below(16) {
                        0 => row.iter_mut().for_each(|x| *x = generator.any_finite()),
                        1 => row[generator.below(columns)] = [f32::NAN, f32::INFINITY][generator.below(2)],
                        2 => row.iter_mut().for_each(|x| *x *= 1e-36),
                        _ => {}
                    }
                }
                (x, columns, [Forms::Quantised, Forms::Quantised, Forms::Float][generator.below(3)])
            },
            |executor, (x, columns, forms)| record(executor, x, *columns, *forms),
        );
    }

    fn one_block(x: [f32; BLOCK]) -> (Block, bool) {
        let mut out = Activations::new(1, BLOCK, Forms::Quantised);
        out.set_rows(1);
        let faults = Faults::new(1);
        executor(Backend::detect(), 1).quantise(&x, &mut out, &faults);
        (out.blocks()[0], faults.any())
    }

    #[test]
    fn blocks_hold_what_the_rule_says() {
        let mut x = [0.0; BLOCK];
        x[..5].copy_from_slice(&[127.0, -127.0, 0.5, 1.5, -2.5]);
        let (block, fault) = one_block(x);
        assert_eq!(block.quants[..5], [127, -127, 0, 2, -2], "ties go to even");
        assert_eq!(block.scale, 1.0);
        assert_eq!((block.offset_byte, block.offset_code), (0, [0, 0]));
        assert!(!fault);
        let (block, fault) = one_block([0.0; BLOCK]);
        assert_eq!((block.quants, block.scale), ([0; BLOCK], 0.0));
        assert!(!fault);
    }

    /// A-3.1's last clause: 127 ÷ a overflows for the least magnitudes.
    #[test]
    fn a_block_too_small_to_invert_is_a_fault() {
        assert!(one_block([1e-38; BLOCK]).1);
        assert!(!one_block([1e-36; BLOCK]).1);
    }
}
