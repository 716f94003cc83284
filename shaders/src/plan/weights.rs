//! The matrices of a plan.

use crate::cpu::{Panels, Simd};

/// `out × in` matrix and `out` biases. Shared, never copied per batch, and kept once: as the kernels of this machine's
/// CPU read it. A device takes its own order from [`matrix`](Self::matrix).
#[derive(Debug)]
pub struct Weights {
    /// Number of outputs.
    pub out_width: usize,
    /// Number of inputs.
    pub in_width: usize,
    /// `[out]`; zeros when the layer has none.
    pub bias: Vec<f32>,
    panels: Panels<f32>,
}

impl Weights {
    /// Of a matrix that is row-major as trained (`W[o, i]`).
    ///
    /// # Panics
    /// When the lengths contradict each other, or the layer has no inputs or no outputs.
    #[must_use]
    pub fn new(out_width: usize, in_width: usize, matrix: &[f32], bias: Vec<f32>) -> Self {
        Self::narrowed(out_width, in_width, matrix, bias, |weight| weight)
    }

    /// The same of wider numbers, each made an f32 by `narrow`.
    pub(crate) fn narrowed<T: Copy>(
        out_width: usize,
        in_width: usize,
        matrix: &[T],
        bias: Vec<f32>,
        narrow: impl Fn(T) -> f32,
    ) -> Self {
        assert!(in_width > 0 && out_width > 0, "a layer has inputs and outputs");
        assert_eq!(out_width.checked_mul(in_width), Some(matrix.len()), "matrix");
        assert_eq!(bias.len(), out_width, "bias");
        let panels = Panels::new(Simd::best().panel_width(), in_width, matrix, narrow);
        Self { out_width, in_width, bias, panels }
    }

    /// `[out, in]`, row-major: written anew, for whoever loads it.
    #[must_use]
    pub fn matrix(&self) -> Vec<f32> {
        self.panels.rows(self.out_width, self.in_width)
    }

    /// Numbers in the matrix.
    #[must_use]
    pub fn matrix_len(&self) -> usize {
        self.out_width * self.in_width
    }

    pub(crate) fn panels(&self) -> &Panels<f32> {
        &self.panels
    }
}
