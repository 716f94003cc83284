//! The product of two matrices in f64, of which folding two layers consists.

use std::array;

use crate::cpu::Simd;
use crate::cpu::simd::Kernel;

/// Rows of the product that are summed at once, in registers.
const ROWS: usize = 4;
/// Columns of them.
const COLUMNS: usize = 16;

/// `left · right`, `[rows, inner] · [inner, columns]`, all row-major. Each sum is taken in rising order of the inner index and
/// every product rounded: the same bits whatever the instructions.
///
/// # Panics
/// When the lengths contradict the shape.
pub(super) fn product(left: &[f64], right: &[f64], [rows, inner, columns]: [usize; 3]) -> Vec<f64> {
    assert!(left.len() == rows * inner && right.len() == inner * columns, "lengths of a product");
    let mut sums = vec![0.0; rows * columns];
    if inner > 0 && columns > 0 {
        Simd::best().run(Product { sums: &mut sums, left, right, columns });
    }
    sums
}

struct Product<'a> {
    sums: &'a mut [f64],
    left: &'a [f64],
    right: &'a [f64],
    columns: usize,
}

impl Kernel for Product<'_> {
    #[inline(always)]
    fn run(self) {
        let Self { sums, left, right, columns } = self;
        let inner = right.len() / columns;
        let last = left.len() / inner - 1;
        // Some columns of `right` side by side, so that they stay in a near cache while all rows of `left` pass.
        let mut strip = vec![[0.0; COLUMNS]; inner];
        for start in (0..columns).step_by(COLUMNS) {
            let width = COLUMNS.min(columns - start);
            for (cells, row) in strip.iter_mut().zip(right.chunks_exact(columns)) {
                cells[..width].copy_from_slice(&row[start..start + width]);
            }
            for (block, sums) in sums.chunks_mut(ROWS * columns).enumerate() {
                // A block that is short takes its last row again, for nobody.
                let rows: [&[f64]; ROWS] =
                    array::from_fn(|row| &left[(block * ROWS + row).min(last) * inner..][..inner]);
                let mut cells = [[0.0; COLUMNS]; ROWS];
                for (k, strip) in strip.iter().enumerate() {
                    for (cells, row) in cells.iter_mut().zip(&rows) {
                        for (cell, value) in cells.iter_mut().zip(strip) {
                            *cell += row[k] * value;
                        }
                    }
                }
                for (sums, cells) in sums.chunks_exact_mut(columns).zip(&cells) {
                    sums[start..start + width].copy_from_slice(&cells[..width]);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_product_has_the_bits_of_the_plain_loops() {
        let mut noise = crate::tests::Noise(11);
        for [rows, inner, columns] in
            [[1, 1, 1], [4, 3, 16], [5, 7, 17], [3, 40, 15], [9, 1, 33], [8, 64, 48], [1, 5, 100], [0, 3, 2]]
        {
            let mut numbers = |count| -> Vec<f64> {
                noise.uniform(count, 2.0).into_iter().map(|number| f64::from(number) / 3.0).collect()
            };
            let (left, right) = (numbers(rows * inner), numbers(inner * columns));
            let sum = |row: usize, column: usize| {
                (0..inner).fold(0.0, |sum, k| sum + left[row * inner + k] * right[k * columns + column])
            };
            let plain: Vec<f64> = (0..rows * columns).map(|at| sum(at / columns, at % columns)).collect();
            assert_eq!(product(&left, &right, [rows, inner, columns]), plain, "{rows} {inner} {columns}");
        }
    }
}
