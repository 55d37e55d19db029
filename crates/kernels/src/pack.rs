//! Packing: GGUF rows rearranged into the tiles the matrix products read.
//!
//! In:     a weight matrix as it lies in a GGUF file, row after row.
//! Out:    the same weights in tiles of 16 rows, one tile after another, the last padded with zero rows.
//! Holds:  one layout for every backend, so a packed file serves them all; non-finite weights are refused (A-1.6).
//! Absent: any change of value. `unpack_row` gives back exactly what went in.
//!
//! Lanes are output rows: one vector holds the same few elements of 16 rows, so a product never sums across a
//! vector. A tile of a quantised format is a run of *groups* of 8 blocks of 32 elements (the last group may be
//! shorter), each group its scales, then its codes:
//!
//! ```text
//! Q8_0   [block][row] f16 d                           | [block][k/4][row][4] u8 w + 128
//! Q4_0   [block][row] f16 d                           | [block][k/4 < 4][row][4] u8, low nibble k, high k + 16
//! Q4_K   [row] f16 d, [row] f16 dmin,
//!        [block]{[row] u8 scale, [row] u8 minimum}    | as Q4_0
//! Q6_K   [row] f16 d, [block][half][row] i8 scale     | [block]{as Q4_0 the low four bits,
//!                                                     |   [half][row][4] u8: bits 2f, 2f+1 of byte t are the
//!                                                     |   high bits of element 16·half + 4·f + t}
//! ```
//!
//! Scales are padded to 64 bytes. A tile of a float format is `[k][row]`.

use crate::activations::BLOCK;
use crate::format::{
    Format, element, non_finite_block, of_half, q4_0_code, q4_k_nibble, q4_k_scale, q6_k_code, q6_k_scale,
    q6_k_weight, q8_0_code, simple, u16_at, with_minimum,
};
use crate::parts::Parts;
use crate::{Executor, half};

/// Rows of a tile: the lanes of the virtual vector.
pub(crate) const ROWS: usize = 16;
/// Blocks of a whole group: one super-block of the `_K` formats.
pub(crate) const GROUP: usize = 8;

/// Why weights could not be packed.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum PackError {
    /// A row is not a whole number of the format's blocks.
    #[error("{format} rows must be a multiple of {multiple} elements long, not {columns}")]
    Columns {
        /// The format.
        format: Format,
        /// The row's length.
        columns: usize,
        /// What it must be a multiple of.
        multiple: usize,
    },
    /// The source is not `rows` rows long.
    #[error("the weights are {found} bytes where their shape needs {expected}")]
    SourceLength {
        /// Bytes the shape needs.
        expected: usize,
        /// Bytes given.
        found: usize,
    },
    /// The destination is not `packed_bytes` long.
    #[error("the packed weights take {expected} bytes, not {found}")]
    PackedLength {
        /// Bytes the packed matrix takes.
        expected: usize,
        /// Bytes given.
        found: usize,
    },
    /// A scale or a float weight is a NaN or an infinity (A-1.6).
    #[error("row {row} holds a weight or scale that is not a finite number, in block {block}")]
    NonFinite {
        /// The first such row.
        row: usize,
        /// The first such block of that row.
        block: usize,
    },
}

/// Bytes of a packed matrix. Panics if `columns` is not a multiple of `format.product_elements()`.
pub fn packed_bytes(format: Format, rows: usize, columns: usize) -> usize {
    rows.div_ceil(ROWS) * tile_bytes(format, columns)
}

/// Bytes of one tile of 16 rows.
pub(crate) const fn tile_bytes(format: Format, columns: usize) -> usize {
    assert!(columns.is_multiple_of(format.product_elements()), "a row is whole blocks");
    match format {
        Format::F32 => columns * ROWS * 4,
        Format::F16 | Format::BF16 => columns * ROWS * 2,
        _ => {
            let blocks = columns / BLOCK;
            blocks / GROUP * group_bytes(format, GROUP) + group_bytes(format, blocks % GROUP)
        }
    }
}

/// Bytes of the scales of a group of `blocks` blocks.
pub(crate) const fn scales_bytes(format: Format, blocks: usize) -> usize {
    let bytes = match format {
        Format::Q8_0 | Format::Q4_0 => blocks * ROWS * 2,
        Format::Q4_K => 2 * ROWS * 2 + blocks * 2 * ROWS,
        Format::Q6_K => ROWS * 2 + blocks * 2 * ROWS,
        _ => panic!("float formats have no scales"),
    };
    bytes.next_multiple_of(64)
}

/// Bytes of the codes of one block of 16 rows.
pub(crate) const fn codes_bytes(format: Format) -> usize {
    match format {
        Format::Q8_0 => ROWS * 32,
        Format::Q4_0 | Format::Q4_K => ROWS * 16,
        Format::Q6_K => ROWS * 24,
        _ => panic!("float formats have no codes"),
    }
}

/// Bytes of a group of `blocks` blocks; none for no blocks.
pub(crate) const fn group_bytes(format: Format, blocks: usize) -> usize {
    if blocks == 0 { 0 } else { scales_bytes(format, blocks) + blocks * codes_bytes(format) }
}

/// A packed weight matrix, [rows, columns].
#[derive(Clone, Copy)]
pub struct Matrix<'a> {
    format: Format,
    rows: usize,
    columns: usize,
    packed: &'a [u8],
}

impl<'a> Matrix<'a> {
    /// The matrix that `Executor::pack` wrote into `packed`.
    ///
    /// Panics unless `packed` is `packed_bytes(format, rows, columns)` long. A multiple of 64 as its address is
    /// worth some speed and nothing else.
    pub fn new(format: Format, rows: usize, columns: usize, packed: &'a [u8]) -> Matrix<'a> {
        assert_eq!(packed.len(), packed_bytes(format, rows, columns), "packed {format} [{rows}, {columns}]");
        Matrix { format, rows, columns, packed }
    }

    /// How its elements are stored.
    pub fn format(&self) -> Format {
        self.format
    }

    /// Its rows: the outputs of a product.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Its columns: the inputs of a product.
    pub fn columns(&self) -> usize {
        self.columns
    }

    /// How many tiles of 16 rows it has.
    pub(crate) fn tiles(&self) -> usize {
        self.rows.div_ceil(ROWS)
    }

    /// Tile `index`.
    pub(crate) fn tile(&self, index: usize) -> &'a [u8] {
        let bytes = tile_bytes(self.format, self.columns);
        &self.packed[index * bytes..][..bytes]
    }
}

impl Executor {
    /// Packs the GGUF rows `source` of a matrix [rows, columns] into `out`, of `packed_bytes` bytes.
    pub fn pack(
        &self,
        format: Format,
        rows: usize,
        columns: usize,
        source: &[u8],
        out: &mut [u8],
    ) -> Result<(), PackError> {
        check_shape(format, rows, columns, source)?;
        let expected = packed_bytes(format, rows, columns);
        if out.len() != expected {
            return Err(PackError::PackedLength { expected, found: out.len() });
        }
        self.check_finite(format, columns, source)?;
        let row_bytes = format.row_bytes(columns);
        let tile_bytes = tile_bytes(format, columns);
        let out = Parts::new(out);
        self.pool().run(rows.div_ceil(ROWS), |_, tile| {
            let first = tile * ROWS;
            let count = ROWS.min(rows - first);
            // SAFETY: each item writes its own tile.
            #[allow(unsafe_code)]
            let out = unsafe { out.part(tile * tile_bytes..(tile + 1) * tile_bytes) };
            pack_tile(format, columns, &source[first * row_bytes..][..count * row_bytes], out);
        });
        Ok(())
    }

    /// Checks the GGUF rows of a matrix as `pack` does, without packing them: for a table only `embed` reads.
    pub fn check_weights(
        &self,
        format: Format,
        rows: usize,
        columns: usize,
        source: &[u8],
    ) -> Result<(), PackError> {
        check_shape(format, rows, columns, source)?;
        self.check_finite(format, columns, source)
    }

    /// A-1.6. The row named is the first one, whichever thread found what.
    fn check_finite(&self, format: Format, columns: usize, source: &[u8]) -> Result<(), PackError> {
        use std::sync::atomic::{AtomicUsize, Ordering};
        const CHUNK: usize = 64;
        let row_bytes = format.row_bytes(columns);
        let first = AtomicUsize::new(usize::MAX);
        let is_bad = |row: &[u8]| non_finite_block(format, row);
        self.pool().run((source.len() / row_bytes).div_ceil(CHUNK), |_, chunk| {
            let rows = source.chunks_exact(row_bytes).enumerate().skip(chunk * CHUNK).take(CHUNK);
            for (row, bytes) in rows {
                if is_bad(bytes).is_some() {
                    first.fetch_min(row, Ordering::Relaxed);
                    break;
                }
            }
        });
        let row = first.into_inner();
        if row == usize::MAX {
            return Ok(());
        }
        let block = is_bad(&source[row * row_bytes..][..row_bytes]).expect("found above");
        Err(PackError::NonFinite { row, block })
    }
}

fn check_shape(format: Format, rows: usize, columns: usize, source: &[u8]) -> Result<(), PackError> {
    let multiple = format.product_elements();
    if columns == 0 || !columns.is_multiple_of(multiple) {
        return Err(PackError::Columns { format, columns, multiple });
    }
    let expected = rows.saturating_mul(format.row_bytes(columns));
    if source.len() != expected {
        return Err(PackError::SourceLength { expected, found: source.len() });
    }
    Ok(())
}

/// Packs up to 16 GGUF rows into one tile; rows that are missing become zeros.
fn pack_tile(format: Format, columns: usize, rows: &[u8], out: &mut [u8]) {
    let row_bytes = format.row_bytes(columns);
    let rows = rows.chunks_exact(row_bytes).enumerate();
    // A zero scale makes a row zero whatever its codes are.
    out.fill(0);
    match format {
        Format::F32 | Format::F16 | Format::BF16 => {
            let size = format.block_bytes();
            for (r, row) in rows {
                for (k, element) in row.chunks_exact(size).enumerate() {
                    out[(k * ROWS + r) * size..][..size].copy_from_slice(element);
                }
            }
        }
        Format::Q8_0 | Format::Q4_0 => {
            for (r, row) in rows {
                for (b, block) in row.chunks_exact(format.block_bytes()).enumerate() {
                    let (scales, codes) = split_group(format, columns, out, b / GROUP);
                    let b = b % GROUP;
                    scales[(b * ROWS + r) * 2..][..2].copy_from_slice(&block[..2]);
                    let codes = &mut codes[b * codes_bytes(format)..][..codes_bytes(format)];
                    // Q8_0's int8 become w + 128; Q4_0's bytes already pair k with k + 16.
                    let flip = if format == Format::Q8_0 { 0x8080_8080 } else { 0 };
                    for (j, four) in block[2..].chunks_exact(4).enumerate() {
                        put_four(codes, j, r, four_at(four, 0) ^ flip);
                    }
                }
            }
        }
        Format::Q4_K => {
            for (r, row) in rows {
                for (g, block) in row.chunks_exact(format.block_bytes()).enumerate() {
                    let (scales, codes) = split_group(format, columns, out, g);
                    scales[r * 2..][..2].copy_from_slice(&block[..2]);
                    scales[(ROWS + r) * 2..][..2].copy_from_slice(&block[2..4]);
                    for b in 0..GROUP {
                        let (scale, minimum) = q4_k_scale(block, b);
                        scales[4 * ROWS + b * 2 * ROWS + r] = scale;
                        scales[4 * ROWS + b * 2 * ROWS + ROWS + r] = minimum;
                        let nibbles = &block[16 + 32 * (b / 2)..][..32];
                        let shift = 4 * (b % 2);
                        let codes = &mut codes[b * codes_bytes(format)..][..codes_bytes(format)];
                        for j in 0..4 {
                            const LOW: u32 = 0x0f0f_0f0f;
                            let low = four_at(nibbles, 4 * j) >> shift & LOW;
                            let high = four_at(nibbles, 4 * j + 16) >> shift & LOW;
                            put_four(codes, j, r, low | high << 4);
                        }
                    }
                }
            }
        }
        Format::Q6_K => {
            for (r, row) in rows {
                for (g, block) in row.chunks_exact(format.block_bytes()).enumerate() {
                    let (scales, codes) = split_group(format, columns, out, g);
                    scales[r * 2..][..2].copy_from_slice(&block[208..210]);
                    for half in 0..2 * GROUP {
                        scales[2 * ROWS + half * ROWS + r] = block[192 + half];
                    }
                    for b in 0..GROUP {
                        let codes = &mut codes[b * codes_bytes(format)..][..codes_bytes(format)];
                        let (low, high) = codes.split_at_mut(ROWS * 16);
                        for i in 0..BLOCK {
                            let code = q6_k_code(block, b * BLOCK + i);
                            let (half, j, t) = (i / 16, i % 16 / 4, i % 4);
                            low[(j * ROWS + r) * 4 + t] |= (code & 15) << (4 * half);
                            high[(half * ROWS + r) * 4 + t] |= (code >> 4) << (2 * j);
                        }
                    }
                }
            }
        }
    }
}

/// The scales and codes of group `g` of a tile.
fn split_group(format: Format, columns: usize, tile: &mut [u8], g: usize) -> (&mut [u8], &mut [u8]) {
    let blocks = GROUP.min(columns / BLOCK - g * GROUP);
    let group = &mut tile[g * group_bytes(format, GROUP)..][..group_bytes(format, blocks)];
    group.split_at_mut(scales_bytes(format, blocks))
}

fn four_at(bytes: &[u8], offset: usize) -> u32 {
    u32::from_le_bytes([bytes[offset], bytes[offset + 1], bytes[offset + 2], bytes[offset + 3]])
}

/// Writes four consecutive elements of row `r` into vector `j` of a block's codes.
fn put_four(codes: &mut [u8], j: usize, r: usize, four: u32) {
    codes[(j * ROWS + r) * 4..][..4].copy_from_slice(&four.to_le_bytes());
}

/// A row, or some blocks of one, as the rules of A-3 name its parts; per block of 32 elements where not said.
#[derive(Debug, PartialEq)]
pub(crate) enum UnpackedRow {
    /// `F32`, `F16`, `BF16`: the widened elements.
    Float { weights: Vec<f32> },
    /// `Q8_0`, `Q4_0`: `dw`, and per element w.
    Simple { scales: Vec<f32>, weights: Vec<i32> },
    /// `Q4_K`: `sw`, `mw`, and per element n.
    Minimum { scales: Vec<f32>, minima: Vec<f32>, weights: Vec<i32> },
    /// `Q6_K`: `d`, the scales of both halves, and per element w.
    Halves { scales: Vec<f32>, halves: Vec<[i32; 2]>, weights: Vec<i32> },
}

impl UnpackedRow {
    /// Reads whole blocks of a GGUF row (A-2). Panics unless they are that.
    pub(crate) fn from_gguf(format: Format, bytes: &[u8]) -> UnpackedRow {
        let (blocks, rest) = (bytes.chunks_exact(format.block_bytes()), bytes.len() % format.block_bytes());
        assert_eq!(rest, 0, "whole blocks of {format}");
        let d = |at: usize| move |block: &[u8]| half::widen(u16_at(block, at));
        match format {
            Format::F32 | Format::F16 | Format::BF16 => {
                UnpackedRow::Float { weights: blocks.map(|block| element(format, block, 0)).collect() }
            }
            Format::Q8_0 | Format::Q4_0 => {
                let code = if format == Format::Q8_0 { q8_0_code } else { q4_0_code };
                let codes = |block| (0..BLOCK).map(move |e| i32::from(code(block, e)));
                UnpackedRow::Simple {
                    scales: blocks.clone().map(d(0)).collect(),
                    weights: blocks.flat_map(codes).collect(),
                }
            }
            Format::Q4_K => {
                let scale = |block, s| d(0)(block) * f32::from(q4_k_scale(block, s).0);
                let minimum = |block, s| d(2)(block) * f32::from(q4_k_scale(block, s).1);
                let nibbles = |block| (0..256).map(move |e| i32::from(q4_k_nibble(block, e)));
                UnpackedRow::Minimum {
                    scales: blocks
                        .clone()
                        .flat_map(|block| (0..GROUP).map(move |s| scale(block, s)))
                        .collect(),
                    minima: blocks
                        .clone()
                        .flat_map(|block| (0..GROUP).map(move |s| minimum(block, s)))
                        .collect(),
                    weights: blocks.flat_map(nibbles).collect(),
                }
            }
            Format::Q6_K => {
                let halves = |block, b| [2 * b, 2 * b + 1].map(|half| i32::from(q6_k_scale(block, half)));
                UnpackedRow::Halves {
                    scales: blocks.clone().flat_map(|block| [d(208)(block); GROUP]).collect(),
                    halves: blocks
                        .clone()
                        .flat_map(|block| (0..GROUP).map(move |b| halves(block, b)))
                        .collect(),
                    weights: blocks
                        .flat_map(|block| (0..256).map(move |e| i32::from(q6_k_weight(block, e))))
                        .collect(),
                }
            }
        }
    }

    /// How many elements it has.
    pub(crate) fn len(&self) -> usize {
        match self {
            UnpackedRow::Float { weights } => weights.len(),
            UnpackedRow::Simple { weights, .. }
            | UnpackedRow::Minimum { weights, .. }
            | UnpackedRow::Halves { weights, .. } => weights.len(),
        }
    }

    /// The row's values by A-2, in order: bit for bit those of the GGUF row that was packed.
    pub(crate) fn values(&self) -> Vec<f32> {
        let per_element = |weights: &[i32], value: &dyn Fn(usize, i32) -> f32| {
            weights.iter().enumerate().map(|(k, w)| value(k, *w)).collect()
        };
        match self {
            UnpackedRow::Float { weights } => weights.clone(),
            UnpackedRow::Simple { scales, weights } => {
                per_element(weights, &|k, w| simple(w as i8, scales[k / BLOCK]))
            }
            UnpackedRow::Minimum { scales, minima, weights } => {
                per_element(weights, &|k, w| with_minimum(w as u8, scales[k / BLOCK], minima[k / BLOCK]))
            }
            UnpackedRow::Halves { scales, halves, weights } => per_element(weights, &|k, w| {
                of_half(w as i8, scales[k / BLOCK], halves[k / BLOCK][k % BLOCK / 16] as i8)
            }),
        }
    }
}

/// Reads row `n` of a packed matrix.
pub(crate) fn unpack_row(matrix: &Matrix<'_>, n: usize) -> UnpackedRow {
    assert!(n < matrix.rows);
    let (tile, r) = (matrix.tile(n / ROWS), n % ROWS);
    let (format, columns) = (matrix.format, matrix.columns);
    if !format.is_quantised() {
        let size = format.block_bytes();
        let element = |k: usize| &tile[(k * ROWS + r) * size..][..size];
        let weights = (0..columns).map(|k| match format {
            Format::F32 => f32::from_bits(four_at(element(k), 0)),
            Format::F16 => half::widen(u16_at(element(k), 0)),
            _ => half::widen_bf16(u16_at(element(k), 0)),
        });
        return UnpackedRow::Float { weights: weights.collect() };
    }
    let blocks = columns / BLOCK;
    // The scales of the group block b is in, the codes of b, and b's place in its group.
    let block = |b: usize| {
        let count = GROUP.min(blocks - b / GROUP * GROUP);
        let group = &tile[b / GROUP * group_bytes(format, GROUP)..][..group_bytes(format, count)];
        let (scales, codes) = group.split_at(scales_bytes(format, count));
        (scales, &codes[b % GROUP * codes_bytes(format)..][..codes_bytes(format)], b % GROUP)
    };
    let nibble = |b: usize, i: usize| {
        let byte = block(b).1[(i % 16 / 4 * ROWS + r) * 4 + i % 4];
        i32::from(if i < 16 { byte & 15 } else { byte >> 4 })
    };
    let f16 = |scales: &[u8], index: usize| half::widen(u16_at(scales, index * 2));
    let elements = (0..columns).map(|k| (k / BLOCK, k % BLOCK));
    match format {
        Format::Q8_0 | Format::Q4_0 => UnpackedRow::Simple {
            scales: (0..blocks)
                .map(|b| {
                    let (scales, _, b) = block(b);
                    f16(scales, b * ROWS + r)
                })
                .collect(),
            weights: elements
                .map(|(b, i)| match format {
                    Format::Q8_0 => i32::from(block(b).1[(i / 4 * ROWS + r) * 4 + i % 4]) - 128,
                    _ => nibble(b, i) - 8,
                })
                .collect(),
        },
        Format::Q4_K => {
            let widened = |b: usize, which: usize| {
                let (scales, _, b) = block(b);
                f16(scales, which * ROWS + r) * f32::from(scales[4 * ROWS + (2 * b + which) * ROWS + r])
            };
            UnpackedRow::Minimum {
                scales: (0..blocks).map(|b| widened(b, 0)).collect(),
                minima: (0..blocks).map(|b| widened(b, 1)).collect(),
                weights: elements.map(|(b, i)| nibble(b, i)).collect(),
            }
        }
        _ => UnpackedRow::Halves {
            scales: (0..blocks).map(|b| f16(block(b).0, r)).collect(),
            halves: (0..blocks)
                .map(|b| {
                    let (scales, _, b) = block(b);
                    [0, 1].map(|half| i32::from(scales[2 * ROWS + (2 * b + half) * ROWS + r] as i8))
                })
                .collect(),
            weights: elements
                .map(|(b, i)| {
                    let high =
                        block(b).1[ROWS * 16 + (i / 16 * ROWS + r) * 4 + i % 4] >> (2 * (i % 16 / 4)) & 3;
                    (nibble(b, i) | i32::from(high) << 4) - 32
                })
                .collect(),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::widen_row;
    use crate::generate::Generator;
    use crate::testing::{bits, executor};
    use crate::{Backend, Region};

    #[test]
    fn packing_keeps_every_value() {
        let mut cases = 0;
        for format in Format::ALL {
            for seed in 0..120 {
                let generator = &mut Generator::new(seed);
                let rows = 1 + generator.below(40);
                let columns = format.product_elements()
                    * (1 + generator.below(if format.product_elements() == 32 { 20 } else { 5 }));
                let source = generator.matrix(format, rows, columns, 0.1);
                let mut packed = vec![0xaa; packed_bytes(format, rows, columns)];
                executor(Backend::Scalar, 1 + seed as usize % 3)
                    .pack(format, rows, columns, &source, &mut packed)
                    .expect("finite");
                let matrix = Matrix::new(format, rows, columns, &packed);
                let mut expected = vec![0.0; columns];
                for (n, row) in source.chunks_exact(format.row_bytes(columns)).enumerate() {
                    widen_row(format, row, &mut expected);
                    assert_eq!(
                        bits(&unpack_row(&matrix, n).values()),
                        bits(&expected),
                        "{format} {seed} {n}"
                    );
                    cases += 1;
                }
            }
        }
        assert!(cases > 10_000);
    }

    #[test]
    fn packing_takes_little_more_than_the_file() {
        for format in Format::ALL {
            for columns in [768, 1024, 2048, 4096, 5632, 14336] {
                let ratio =
                    packed_bytes(format, 4096, columns) as f64 / (4096 * format.row_bytes(columns)) as f64;
                assert!((1.0..1.03).contains(&ratio), "{format} {columns}: {ratio}");
            }
        }
    }

    #[test]
    fn non_finite_weights_are_refused_by_row() {
        let (nan, infinity) = (0x7e01u16.to_le_bytes(), 0xfc00u16.to_le_bytes());
        for (format, at, bytes) in [
            (Format::F32, 128 + 4 * 9, &f32::NAN.to_le_bytes()[..]),
            (Format::F16, 64 + 6, &infinity),
            (Format::BF16, 64 + 6, &0x7f80u16.to_le_bytes()),
            (Format::Q8_0, 34, &nan),
            (Format::Q4_0, 18, &infinity),
            (Format::Q4_K, 144, &nan),
            (Format::Q4_K, 146, &infinity),
            (Format::Q6_K, 418, &nan),
        ] {
            let columns = format.product_elements();
            let mut source = Generator::new(1).matrix(format, 3, columns, 0.1);
            source[at..at + bytes.len()].copy_from_slice(bytes);
            let executor = executor(Backend::Scalar, 2);
            let mut packed = vec![0; packed_bytes(format, 3, columns)];
            let error = executor.pack(format, 3, columns, &source, &mut packed).expect_err("refused");
            assert!(matches!(error, PackError::NonFinite { row: 1, .. }), "{format} {error}");
            assert_eq!(executor.check_weights(format, 3, columns, &source), Err(error));
        }
    }

    #[test]
    fn shapes_that_disagree_are_refused() {
        let executor = executor(Backend::Scalar, 1);
        let columns = executor.pack(Format::Q4_K, 1, 128, &[0; 72], &mut []);
        assert_eq!(columns, Err(PackError::Columns { format: Format::Q4_K, columns: 128, multiple: 256 }));
        let source = executor.pack(Format::Q8_0, 2, 32, &[0; 34], &mut []);
        assert_eq!(source, Err(PackError::SourceLength { expected: 68, found: 34 }));
        let packed = executor.pack(Format::Q8_0, 1, 32, &[0; 34], &mut [0; 5]);
        assert_eq!(packed, Err(PackError::PackedLength { expected: 576, found: 5 }));
        let absurd = executor.check_weights(Format::F32, usize::MAX, 32, &[]);
        assert!(matches!(absurd, Err(PackError::SourceLength { .. })));
        assert_eq!(executor.pack(Format::F32, 0, 32, &[], &mut []), Ok(()));
    }

    #[test]
    fn regions_hold_packed_weights() {
        let mut region = Region::zeroed(packed_bytes(Format::Q8_0, 16, 64)).expect("memory");
        let source = Generator::new(2).matrix(Format::Q8_0, 16, 64, 0.1);
        executor(Backend::Scalar, 1).pack(Format::Q8_0, 16, 64, &source, &mut region).expect("finite");
        let matrix = Matrix::new(Format::Q8_0, 16, 64, &region);
        assert_eq!((matrix.rows(), matrix.columns(), matrix.format()), (16, 64, Format::Q8_0));
    }
}
