//! Weights as the kernels read them: panels of a few output columns, input-major inside, padded with zeros.

use crate::Weights;

/// Floats that start on a cache line.
#[derive(Debug, Default)]
pub(crate) struct Aligned(Vec<Line>);

#[derive(Clone, Copy, Debug, Default)]
#[repr(C, align(64))]
struct Line([f32; 16]);

impl Aligned {
    /// `len` zeros; a line more may be there.
    pub(crate) fn zeros(len: usize) -> Self {
        Self(vec![Line::default(); len.div_ceil(16)])
    }

    /// Makes room for `len` floats; keeps nothing when it has to grow.
    pub(crate) fn reserve(&mut self, len: usize) {
        if self.0.len() * 16 < len {
            *self = Self::zeros(len);
        }
    }

    pub(crate) fn as_slice(&self) -> &[f32] {
        // SAFETY: a `Line` is sixteen floats without padding.
        unsafe { std::slice::from_raw_parts(self.0.as_ptr().cast(), self.0.len() * 16) }
    }

    pub(crate) fn as_mut_slice(&mut self) -> &mut [f32] {
        // SAFETY: as above, and the borrow is exclusive.
        unsafe { std::slice::from_raw_parts_mut(self.0.as_mut_ptr().cast(), self.0.len() * 16) }
    }
}

/// One layer, packed: `panels[p][i][c] = W[p · panel_width + c, i]`.
#[derive(Debug)]
pub(crate) struct Packed {
    pub(crate) out_width: usize,
    pub(crate) in_width: usize,
    pub(crate) panel_width: usize,
    pub(crate) panel_count: usize,
    /// No weight is NaN or infinite, so an input of zero adds nothing.
    pub(crate) finite: bool,
    panels: Aligned,
    bias: Aligned,
}

impl Packed {
    /// # Panics
    /// When the lengths in `weights` contradict its widths.
    pub(crate) fn new(weights: &Weights, panel_width: usize) -> Self {
        let (n, k) = (weights.out_width, weights.in_width);
        assert!(n > 0 && k > 0, "a layer has inputs and outputs");
        assert_eq!(weights.matrix.len(), n.checked_mul(k).expect("a matrix fits memory"), "matrix");
        assert_eq!(weights.bias.len(), n, "bias");
        let panel_count = n.div_ceil(panel_width);
        let mut panels = Aligned::zeros(panel_count * k * panel_width);
        let cells = panels.as_mut_slice();
        for (o, row) in weights.matrix.chunks_exact(k).enumerate() {
            let first = o / panel_width * k * panel_width + o % panel_width;
            for (i, &weight) in row.iter().enumerate() {
                cells[first + i * panel_width] = weight;
            }
        }
        let mut bias = Aligned::zeros(panel_count * panel_width);
        bias.as_mut_slice()[..n].copy_from_slice(&weights.bias);
        let finite = weights.matrix.iter().all(|weight| weight.is_finite());
        Self { out_width: n, in_width: k, panel_width, panel_count, finite, panels, bias }
    }

    /// `panel_count · in_width · panel_width` floats.
    pub(crate) fn panels(&self) -> &[f32] {
        self.panels.as_slice()
    }

    /// `panel_count · panel_width` floats.
    pub(crate) fn bias(&self) -> &[f32] {
        self.bias.as_slice()
    }
}
