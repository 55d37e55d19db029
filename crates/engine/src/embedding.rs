//! Embeddings: one vector of a whole prompt.
//!
//! In:     what a file says of pooling; the state vectors of a prompt's positions, in order.
//! Out:    a vector of length one, or why a model makes none such.
//! Touches: nothing.
//! Holds:  the same code collects in serving and in checking; sums run in the order of positions.
//! Absent: the forward pass (`forward`), the sums themselves (`kernels::pooling`).

use std::ops::Range;

use surety_kernels::pooling;
use surety_types::{Embedding, Pooling, Vectors};

use crate::architecture::Family;
use crate::gguf::{Gguf, GgufError};

/// Why a model does not give a vector that is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EmbeddingError {
    /// The file says that states are not to be pooled.
    #[error("this model gives no vector of a whole text: its file says so (pooling_type)")]
    NoVector,
    /// More numbers than there are.
    #[error("this model's vectors have {width} dimensions; {asked} were asked for")]
    TooMany {
        /// How many were asked for.
        asked: u32,
        /// How many there are.
        width: u32,
    },
    /// Fewer numbers, of a model that was not made for it.
    #[error(
        "this model's vectors have {width} dimensions, and nothing says that the first {asked} mean anything alone: its file \
         names no pooling_type"
    )]
    NotMadeForIt {
        /// How many were asked for.
        asked: u32,
        /// How many there are.
        width: u32,
    },
}

/// what a file says; `None` if it is to give no vectors.
pub(crate) fn vectors(gguf: &Gguf, family: Family) -> Result<Option<Vectors>, GgufError> {
    let key = format!("{}.pooling_type", family.name());
    let made_for_it = |pooling| Some(Vectors { pooling, may_be_cut: true });
    Ok(match gguf.optional_u32(&key)? {
        None => Some(Vectors { pooling: Pooling::Last, may_be_cut: false }),
        Some(1) => made_for_it(Pooling::Mean),
        Some(2) => made_for_it(Pooling::First),
        Some(3) => made_for_it(Pooling::Last),
        // None at all, a ranking, or something unknown.
        Some(_) => None,
    })
}

/// Begins a vector of a model of this width.
pub(crate) fn collect(vectors: Vectors, wanted: Embedding, width: u32) -> Result<Collecting, EmbeddingError> {
    let dimensions = match wanted.dimensions {
        Some(asked) if asked > width => return Err(EmbeddingError::TooMany { asked, width }),
        Some(asked) if asked < width && !vectors.may_be_cut => {
            return Err(EmbeddingError::NotMadeForIt { asked, width });
        }
        asked => asked.unwrap_or(width) as usize,
    };
    Ok(Collecting { pooling: vectors.pooling, dimensions, sum: Vec::new(), taken: 0 })
}

/// A vector in the making.
#[derive(Clone, Debug)]
pub(crate) struct Collecting {
    pooling: Pooling,
    dimensions: usize,
    sum: Vec<f32>,
    taken: usize,
}

impl Collecting {
    /// Which of these positions' states belong to the vector of a prompt of so many tokens.
    pub(crate) fn wanted(&self, positions: Range<usize>, prompt_tokens: usize) -> Range<usize> {
        let wanted = match self.pooling {
            Pooling::Last => prompt_tokens - 1..prompt_tokens,
            Pooling::Mean => 0..prompt_tokens,
            Pooling::First => 0..1,
        };
        let first = positions.start.max(wanted.start);
        first..positions.end.min(wanted.end).max(first)
    }

    /// Takes the next of their states [width].
    pub(crate) fn take(&mut self, state: &[f32]) {
        match self.taken {
            0 => self.sum = state.to_vec(),
            _ => pooling::add(&mut self.sum, state),
        }
        self.taken += 1;
    }

    /// Begins again.
    pub(crate) fn clear(&mut self) {
        self.sum.clear();
        self.taken = 0;
    }

    /// the vector; `None` if one of its numbers is not finite.
    pub(crate) fn finish(mut self) -> Option<Vec<f32>> {
        if self.pooling == Pooling::Mean {
            pooling::mean(&mut self.sum, self.taken);
        }
        let finite = |values: &[f32]| values.iter().all(|value| value.is_finite());
        self.sum.truncate(self.dimensions);
        if !finite(&self.sum) {
            return None;
        }
        pooling::normalise(&mut self.sum);
        finite(&self.sum).then_some(self.sum)
    }
}
