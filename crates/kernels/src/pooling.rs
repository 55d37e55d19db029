//! Pooling: the state vectors of positions become one vector of length one.
//!
//! In, out: rows of f32. Touches: nothing.
//! Holds:  sums run over positions in ascending order, plain adds; the length is a norm's sum of squares.
//! Absent: which positions (the engine). There is one twin: a vector is made once, of few numbers.

use crate::{
    fpcr,
    step::{LANES, squares, tree},
};

/// adds one position's state to the sum of those before it.
///
/// sum, state `[width]`. Panics if they differ in length.
pub fn add(sum: &mut [f32], state: &[f32]) {
    assert_eq!(sum.len(), state.len(), "states of one width");
    fpcr::set();
    sum.iter_mut().zip(state).for_each(|(sum, state)| *sum += state);
}

/// the mean of `count` states whose sum this is.
pub fn mean(sum: &mut [f32], count: usize) {
    fpcr::set();
    let count = count as f32;
    sum.iter_mut().for_each(|sum| *sum /= count);
}

/// scales a vector to length one; one of zeros stays as it is.
pub fn normalise(vector: &mut [f32]) {
    fpcr::set();
    let sum = tree(squares([0.0; LANES], vector));
    if sum > 0.0 {
        let inverse = 1.0 / sum.sqrt();
        vector.iter_mut().for_each(|value| *value *= inverse);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mean_of_length_one() {
        let mut sum = vec![0.0; 2];
        add(&mut sum, &[1.0, 8.0]);
        add(&mut sum, &[5.0, 0.0]);
        mean(&mut sum, 2);
        assert_eq!(sum, [3.0, 4.0]);
        normalise(&mut sum);
        assert_eq!(sum, [3.0 * (1.0 / 5.0), 4.0 * (1.0 / 5.0)]);
        let mut zeros = [0.0, -0.0];
        normalise(&mut zeros);
        assert_eq!(zeros, [0.0, -0.0]);
    }
}
