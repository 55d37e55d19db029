//! Embeddings: what an order may ask for instead of text, and the vector that answers it.
//!
//! In, out: values. Holds: a vector has 1 … 65,536 finite numbers, and one spelling: their bits, little-endian.
//! Absent: how it is computed (A-9, the engine).

use minicbor::{Decode, Encode};
use serde::Serialize;

use crate::{codec::Invalid, digest::Digest};

/// Numbers of a vector, at most: no model is wider.
pub const MAX_DIMENSIONS: u32 = 1 << 16;

/// What is wanted of the vector.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Encode, Decode, Serialize)]
#[cbor(map)]
pub struct Embedding {
    /// Its first numbers alone, so many; all of them if it does not say.
    #[n(0)]
    pub dimensions: Option<u32>,
}

/// How the states of a prompt's positions become one vector.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Encode, Decode, Serialize)]
#[cbor(index_only)]
#[serde(rename_all = "snake_case")]
pub enum Pooling {
    /// The last position's.
    #[n(0)]
    Last,
    /// The mean of all.
    #[n(1)]
    Mean,
    /// The first position's.
    #[n(2)]
    First,
}

/// How a model makes vectors.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Encode, Decode, Serialize)]
#[cbor(map)]
pub struct Vectors {
    /// Whose states.
    #[n(0)]
    pub pooling: Pooling,
    /// Whether fewer numbers than there are may be asked for: its file says that it was made for vectors.
    #[n(1)]
    pub may_be_cut: bool,
}

impl Embedding {
    pub(crate) fn check(&self) -> Result<(), Invalid> {
        match self.dimensions {
            Some(dimensions) if !(1..=MAX_DIMENSIONS).contains(&dimensions) => {
                Err(Invalid::new("dimensions", format!("is {dimensions}; 1 to {MAX_DIMENSIONS} are allowed")))
            }
            _ => Ok(()),
        }
    }
}

/// The bytes of a vector.
pub fn vector_bytes(vector: &[f32]) -> Vec<u8> {
    vector.iter().flat_map(|value| value.to_le_bytes()).collect()
}

/// The vector that bytes spell, if they do.
pub fn vector_of(bytes: &[u8]) -> Result<Vec<f32>, Invalid> {
    let (words, rest) = bytes.as_chunks::<4>();
    if !rest.is_empty() || !(1..=MAX_DIMENSIONS as usize).contains(&words.len()) {
        let problem =
            format!("takes {} bytes; 4 for each of 1 to {MAX_DIMENSIONS} numbers are allowed", bytes.len());
        return Err(Invalid::new("embedding", problem));
    }
    let vector: Vec<f32> = words.iter().map(|word| f32::from_le_bytes(*word)).collect();
    if vector.iter().all(|value| value.is_finite()) {
        Ok(vector)
    } else {
        Err(Invalid::new("embedding", "holds what is no finite number"))
    }
}

/// The state digest of an embedding, over the bytes of its vector.
pub fn vector_digest(bytes: &[u8]) -> Digest {
    Digest(*blake3::hash(bytes).as_bytes())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_vector_has_one_spelling(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            match vector_of(&bytes) {
                Ok(vector) => prop_assert_eq!(vector_bytes(&vector), bytes),
                Err(_) => prop_assert!(
                    bytes.is_empty()
                        || bytes.len() % 4 != 0
                        || bytes.chunks(4).any(|word| !f32::from_le_bytes(word.try_into().unwrap()).is_finite())
                ),
            }
        }
    }

    #[test]
    fn lengths_are_bounded() {
        assert!(vector_of(&vec![0; 4 * MAX_DIMENSIONS as usize]).is_ok());
        assert!(vector_of(&vec![0; 4 * MAX_DIMENSIONS as usize + 4]).is_err());
        for dimensions in [0, MAX_DIMENSIONS + 1] {
            assert!(Embedding { dimensions: Some(dimensions) }.check().is_err());
        }
    }
}
