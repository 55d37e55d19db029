//! Embeddings: one vector from the state vectors of a prompt.
//!
//! In, out: plain slices. Touches: nothing. Absent: which kind of pooling a file names; the caller says.

use crate::ops::{close_lanes, square_lanes};
use crate::{NonFinite, assert_float_control, check_finite};

/// whose states are pooled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pooling {
    /// The last position's.
    Last,
    /// Every position's: their mean.
    Mean,
    /// The first position's.
    First,
}

/// the vector of the first `dimensions` numbers. There is at least one state.
pub fn embed(states: &[Vec<f32>], pooling: Pooling, dimensions: usize) -> Result<Vec<f32>, NonFinite> {
    assert_float_control();
    let (first, last) = (&states[0], &states[states.len() - 1]);
    let mut vector = match pooling {
        Pooling::Last => last.clone(),
        Pooling::First => first.clone(),
        Pooling::Mean => (0..first.len())
            .map(|element| {
                let mut sum = first[element];
                for state in &states[1..] {
                    sum += state[element];
                }
                sum / states.len() as f32
            })
            .collect(),
    };
    vector.truncate(dimensions);
    check_finite("a pooled state", &vector)?;
    let sum = close_lanes(square_lanes(&vector));
    if sum > 0.0 {
        let inverse = 1.0 / sum.sqrt();
        for value in &mut vector {
            *value *= inverse;
        }
    }
    check_finite("a number of a vector", &vector)?;
    Ok(vector)
}

/// the state digest of an embedding.
pub fn vector_digest(vector: &[f32]) -> [u8; 32] {
    crate::model::state_digest(&[vector])
}
