//! Embedding: rows of the embedding matrix, widened.
//!
//! In:     the matrix, and token ids.
//! Out:    one f32 row per token.
//! Holds:  the same bits from either layout. An embedding that is also the output matrix is read where that one is
//!         packed, so that it is in memory once; any other is read straight from the file, and never packed.
//! Absent: checks of the weights. `check_weights` and `pack` do them once, at load.

use crate::format::{Format, widen_row};
use crate::pack::unpack_row;
use crate::parts::Parts;
use crate::{Executor, Matrix};

/// An embedding matrix [vocabulary, columns].
#[derive(Clone, Copy)]
pub enum Embedding<'a> {
    /// As it lies in a GGUF file, row after row.
    Rows {
        /// How its elements are stored.
        format: Format,
        /// Elements of a row.
        columns: usize,
        /// The rows.
        bytes: &'a [u8],
    },
    /// Packed.
    Packed(Matrix<'a>),
}

impl Executor {
    /// Rows `ids` of `embedding` [vocabulary, columns] into `out` [ids, columns].
    ///
    /// Panics if an id is beyond the matrix or `out` is not ids × columns long.
    pub fn embed(&self, embedding: Embedding<'_>, ids: &[u32], out: &mut [f32]) {
        let columns = match embedding {
            Embedding::Rows { columns, .. } => columns,
            Embedding::Packed(matrix) => matrix.columns(),
        };
        assert_eq!(out.len(), ids.len() * columns, "one row per token");
        let out = Parts::new(out);
        self.pool().run(ids.len(), |_, i| {
            // SAFETY: each item has its own row.
            #[allow(unsafe_code)]
            let out = unsafe { out.part(i * columns..(i + 1) * columns) };
            let id = ids[i] as usize;
            match embedding {
                Embedding::Rows { format, bytes, .. } => {
                    let row_bytes = format.row_bytes(columns);
                    widen_row(format, &bytes[id * row_bytes..][..row_bytes], out);
                }
                Embedding::Packed(matrix) => out.copy_from_slice(&unpack_row(&matrix, id).values()),
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::Embedding;
    use crate::testing::{bits, twins_agree};
    use crate::{Format, Matrix, packed_bytes};

    #[test]
    fn twins_and_layouts_agree_on_embedding() {
        twins_agree(
            10_000,
            |generator| {
                let format = Format::ALL[generator.below(7)];
                let columns = format.product_elements()
                    * (1 + generator.below(if format.product_elements() == 256 { 2 } else { 40 }));
                let vocabulary = 1 + generator.below(20);
                let table = generator.matrix(format, vocabulary, columns, 0.1);
                let ids: Vec<u32> =
                    (0..generator.below(9)).map(|_| generator.below(vocabulary) as u32).collect();
                (format, columns, table, ids)
            },
            |executor, (format, columns, table, ids)| {
                let (format, columns) = (*format, *columns);
                let vocabulary = table.len() / format.row_bytes(columns);
                let mut out = vec![0.0; ids.len() * columns];
                executor.embed(Embedding::Rows { format, columns, bytes: table }, ids, &mut out);
                let mut packed = vec![0; packed_bytes(format, vocabulary, columns)];
                executor.pack(format, vocabulary, columns, table, &mut packed).expect("finite");
                let matrix = Matrix::new(format, vocabulary, columns, &packed);
                let mut from_packed = vec![0.0; out.len()];
                executor.embed(Embedding::Packed(matrix), ids, &mut from_packed);
                assert_eq!(bits(&from_packed), bits(&out));
                bits(&out)
            },
        );
    }

    #[test]
    #[should_panic]
    fn an_id_beyond_the_table_is_refused() {
        let executor = crate::testing::executor(crate::Backend::Scalar, 1);
        let embedding = Embedding::Rows { format: Format::F32, columns: 4, bytes: &[0; 32] };
        executor.embed(embedding, &[2], &mut [0.0; 4]);
    }
}
