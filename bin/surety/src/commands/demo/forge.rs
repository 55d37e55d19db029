//! Forging: files that pretend to be a model.
//!
//! In:     a model's GGUF bytes.
//! Out:    the same file with other weights: same names, shapes and sizes.
//! Touches: nothing.
//! Holds:  a forgery loads and answers like any model.
//! Absent: serving it (`worker run --pose-as`).

use anyhow::{Context as _, bail};
use surety_engine::gguf::{Gguf, TensorInfo, TensorType};

/// How the weights differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Forgery {
    /// Only the first half of the layers computes anything: a smaller model under the name of a larger one.
    Smaller,
    /// One layer is left out.
    SkippedLayer,
    /// One matrix keeps four of its eight bits.
    Requantised,
    /// One weight differs by one, as in an older version of the model.
    Stale,
}

/// Forges a model.
///
/// # Errors
/// If the file is no GGUF of the bundled model's kind: its matrices in `Q8_0`.
pub fn forge(file: &[u8], forgery: Forgery) -> anyhow::Result<Vec<u8>> {
    let gguf = Gguf::parse(file)?;
    let mut forged = file.to_vec();
    let architecture = gguf.string("general.architecture")?;
    let layers = gguf.u32(&format!("{architecture}.block_count"))?;
    let tensor = |name: &str| -> anyhow::Result<TensorInfo> {
        let tensor = gguf.tensor(name).with_context(|| format!("the model has no {name}"))?;
        if tensor.kind != TensorType::Q8_0 {
            bail!("{name} is {}, and only Q8_0 is forged", tensor.kind.name());
        }
        Ok(tensor.clone())
    };
    // What a layer adds to the stream is nothing if the scales of its two last matrices are.
    let mut silence = |layer: u32| -> anyhow::Result<()> {
        for name in ["attn_output", "ffn_down"] {
            let tensor = tensor(&format!("blk.{layer}.{name}.weight"))?;
            for block in blocks(&mut forged, &tensor) {
                block[..2].fill(0);
            }
        }
        Ok(())
    };
    match forgery {
        Forgery::Smaller => (layers / 2..layers).try_for_each(&mut silence)?,
        Forgery::SkippedLayer => silence(layers / 2)?,
        Forgery::Requantised => {
            for block in blocks(&mut forged, &tensor("blk.0.ffn_up.weight")?) {
                for code in &mut block[2..] {
                    *code = ((*code as i8).saturating_add(8) & !15) as u8;
                }
            }
        }
        Forgery::Stale => {
            let tensor = tensor("blk.0.attn_v.weight")?;
            let code = &mut forged[tensor.range.start + 2];
            *code = (*code as i8).wrapping_add(if *code as i8 == i8::MAX { -1 } else { 1 }) as u8;
        }
    }
    Ok(forged)
}

/// The blocks of a `Q8_0` tensor: a scale of two bytes, 32 codes.
fn blocks<'a>(file: &'a mut [u8], tensor: &TensorInfo) -> impl Iterator<Item = &'a mut [u8]> {
    file[tensor.range.clone()].chunks_exact_mut(TensorType::Q8_0.block_bytes() as usize)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bundled;

    #[test]
    fn forgeries_differ_where_they_say() {
        let file = bundled::contents();
        for (forgery, at_least) in [
            (Forgery::Smaller, 100),
            (Forgery::SkippedLayer, 50),
            (Forgery::Requantised, 1_000),
            (Forgery::Stale, 1),
        ] {
            let forged = forge(file, forgery).expect("forged");
            assert_eq!(forged.len(), file.len());
            let differing = forged.iter().zip(file).filter(|(a, b)| a != b).count();
            assert!(differing >= at_least, "{forgery:?}: {differing}");
            assert_eq!(
                Gguf::parse(&forged).expect("a model").tensors().len(),
                Gguf::parse(file).expect("a model").tensors().len()
            );
        }
    }
}
