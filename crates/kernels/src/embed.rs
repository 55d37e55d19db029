//! Embedding: rows of the embedding matrix, widened.
//!
//! In:     the matrix as it lies in the GGUF file, and token ids.
//! Out:    one f32 row per token.
//! Holds:  a row is read straight from the file; nothing is packed for it.
//! Absent: checks of the weights. `check_weights` does them once, at load.

use crate::Executor;
use crate::format::{Format, widen_row};
use crate::parts::Parts;

impl Executor {
    /// Rows `ids` of `table` [vocabulary, columns] into `out` [ids, columns].
    ///
    /// Panics if an id is beyond the table or `out` is not ids × columns long.
    pub fn embed(&self, format: Format, table: &[u8], columns: usize, ids: &[u32], out: &mut [f32]) {
        let row_bytes = format.row_bytes(columns);
        assert_eq!(out.len(), ids.len() * columns, "one row per token");
        let out = Parts::new(out);
        self.pool().run(ids.len(), |_, i| {
            let row = &table[ids[i] as usize * row_bytes..][..row_bytes];
            // SAFETY: each item has its own row.
            #[allow(unsafe_code)]
            let out = unsafe { out.part(i * columns..(i + 1) * columns) };
            widen_row(format, row, out);
        });
    }
}

#[cfg(test)]
mod tests {
    use crate::Format;
    use crate::testing::{bits, twins_agree};

    #[test]
    fn twins_agree_on_embedding() {
        twins_agree(
            10_000,
            |generator| {
                let format = Format::ALL[generator.below(7)];
                let columns = format.block_elements()
                    * (1 + generator.below(if format.block_elements() == 256 { 2 } else { 40 }));
                let vocabulary = 1 + generator.below(20);
                let table = generator.matrix(format, vocabulary, columns, 0.1);
                let ids: Vec<u32> =
                    (0..generator.below(9)).map(|_| generator.below(vocabulary) as u32).collect();
                (format, columns, table, ids)
            },
            |executor, (format, columns, table, ids)| {
                let mut out = vec![0.0; ids.len() * columns];
                executor.embed(*format, table, *columns, ids, &mut out);
                bits(&out)
            },
        );
    }

    #[test]
    #[should_panic]
    fn an_id_beyond_the_table_is_refused() {
        let executor = crate::testing::executor(crate::Backend::Scalar, 1);
        executor.embed(Format::F32, &[0; 32], 4, &[2], &mut [0.0; 4]);
    }
}
