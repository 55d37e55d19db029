//! Matrices that borrow their elements, and their products.
//!
//! In:     slices of f32 with a row length; parts of them; their transposes.
//! Out:    products, set or added.
//! Holds:  every view lies within its slice (the library checks it once per view).
//! Absent: threads. A product runs where it is asked for.

use std::ops::Range;

use ndarray::linalg::general_mat_mul;
use ndarray::{ArrayView2, ArrayViewMut2, s};

/// A matrix to read from.
#[derive(Clone, Copy, Debug)]
pub struct Matrix<'a>(ArrayView2<'a, f32>);

/// A matrix to write to.
#[derive(Debug)]
pub struct MatrixMut<'a>(ArrayViewMut2<'a, f32>);

impl<'a> Matrix<'a> {
    /// The whole of a slice, in rows of `columns`. Panics unless the rows are whole.
    pub fn new(elements: &'a [f32], columns: usize) -> Matrix<'a> {
        assert!(elements.len().is_multiple_of(columns), "whole rows");
        let rows = elements.len() / columns;
        Matrix(ArrayView2::from_shape((rows, columns), elements).expect("rows × columns elements"))
    }

    /// Rows.
    pub fn rows(&self) -> usize {
        self.0.nrows()
    }

    /// The same elements, rows for columns.
    pub fn transposed(self) -> Matrix<'a> {
        Matrix(self.0.reversed_axes())
    }

    /// Some of the rows.
    pub fn rows_in(self, range: Range<usize>) -> Matrix<'a> {
        Matrix(self.0.slice_move(s![range, ..]))
    }

    /// Some of the columns.
    pub fn columns(self, range: Range<usize>) -> Matrix<'a> {
        Matrix(self.0.slice_move(s![.., range]))
    }
}

impl<'a> MatrixMut<'a> {
    /// The whole of a slice, in rows of `columns`. Panics unless the rows are whole.
    pub fn new(elements: &'a mut [f32], columns: usize) -> MatrixMut<'a> {
        assert!(elements.len().is_multiple_of(columns), "whole rows");
        let rows = elements.len() / columns;
        MatrixMut(ArrayViewMut2::from_shape((rows, columns), elements).expect("rows × columns elements"))
    }

    /// Some of the columns.
    pub fn columns(self, range: Range<usize>) -> MatrixMut<'a> {
        MatrixMut(self.0.slice_move(s![.., range]))
    }
}

/// `out = left · right`. Panics if the shapes disagree.
pub fn set_product(mut out: MatrixMut<'_>, left: Matrix<'_>, right: Matrix<'_>) {
    general_mat_mul(1.0, &left.0, &right.0, 0.0, &mut out.0);
}

/// `out += left · right`. Panics if the shapes disagree.
pub fn add_product(mut out: MatrixMut<'_>, left: Matrix<'_>, right: Matrix<'_>) {
    general_mat_mul(1.0, &left.0, &right.0, 1.0, &mut out.0);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn products_follow_views() {
        // [1 2 3; 4 5 6] without its first column, times its own transpose.
        let elements = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0];
        let part = Matrix::new(&elements, 3).columns(1..3);
        let mut out = [9.0; 4];
        set_product(MatrixMut::new(&mut out, 2), part, part.transposed());
        assert_eq!(out, [13.0, 28.0, 28.0, 61.0]);
        add_product(MatrixMut::new(&mut out, 2).columns(0..1), part, part.rows_in(0..1).transposed());
        assert_eq!(out, [26.0, 28.0, 56.0, 61.0]);
    }
}
