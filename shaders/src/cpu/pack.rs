//! Weights as the kernels read them: panels of a few output columns, input-major inside, padded with zeros.

use bytemuck::{Pod, Zeroable};
use half::f16;

use super::weight::Weight;
use crate::plan::{scale, whole};
use crate::{Precision, Weights, halves};

/// Numbers that start on a cache line.
#[derive(Debug, Default)]
pub(crate) struct Aligned(Vec<Line>);

#[derive(Clone, Copy, Debug, Default, Pod, Zeroable)]
#[repr(C, align(64))]
struct Line([f32; 16]);

impl Aligned {
    /// `len` zeros; a line more may be there.
    pub(crate) fn zeros<T: Pod>(len: usize) -> Self {
        Self(vec![Line::default(); (len * size_of::<T>()).div_ceil(size_of::<Line>())])
    }

    /// Makes room for `len` floats; keeps nothing when it has to grow.
    pub(crate) fn reserve(&mut self, len: usize) {
        if self.0.len() * 16 < len {
            *self = Self::zeros::<f32>(len);
        }
    }

    pub(crate) fn bytes(&self) -> usize {
        size_of_val(self.0.as_slice())
    }

    pub(crate) fn cells<T: Pod>(&self) -> &[T] {
        bytemuck::cast_slice(&self.0)
    }

    pub(crate) fn cells_mut<T: Pod>(&mut self) -> &mut [T] {
        bytemuck::cast_slice_mut(&mut self.0)
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
    /// What the panels are made of.
    pub(crate) precision: Precision,
    panels: Aligned,
    bias: Aligned,
    /// Of each column, if its weights are whole numbers.
    scales: Aligned,
}

impl Packed {
    /// # Panics
    /// When the lengths in `weights` contradict its widths, or a weight is larger than `precision` allows.
    pub(crate) fn new(weights: &Weights, panel_width: usize, precision: Precision) -> Self {
        let (n, k) = (weights.out_width, weights.in_width);
        assert!(n > 0 && k > 0, "a layer has inputs and outputs");
        assert_eq!(weights.matrix.len(), n.checked_mul(k).expect("a matrix fits memory"), "matrix");
        assert_eq!(weights.bias.len(), n, "bias");
        let panel_count = n.div_ceil(panel_width);
        let finite = weights.matrix.iter().all(|weight| weight.is_finite());
        let mut scales = Aligned::default();
        let panels = match precision {
            Precision::F32 => panels(weights, panel_width, |from, to: &mut [f32]| to.copy_from_slice(from)),
            Precision::F16 => {
                let largest = weights.matrix.iter().fold(0.0, |max: f32, weight| max.max(weight.abs()));
                assert!(finite && largest <= f16::MAX.to_f32(), "halves can be as large as the weights");
                panels(weights, panel_width, halves::round)
            }
            Precision::Int8 => {
                assert!(finite, "whole numbers are finite");
                let rows = weights.matrix.chunks_exact(k);
                scales = Aligned::zeros::<f32>(panel_count * panel_width);
                scales.cells_mut().iter_mut().zip(rows).for_each(|(of_row, row)| *of_row = scale(row));
                panels(weights, panel_width, |from, to: &mut [i8]| {
                    let scale = scale(from);
                    for (kept, weight) in to.iter_mut().zip(from) {
                        *kept = whole(*weight, scale);
                    }
                })
            }
        };
        let mut bias = Aligned::zeros::<f32>(panel_count * panel_width);
        bias.cells_mut()[..n].copy_from_slice(&weights.bias);
        Self { out_width: n, in_width: k, panel_width, panel_count, finite, precision, panels, bias, scales }
    }

    /// `panel_count · in_width · panel_width` weights, of the type that [`precision`](Self::precision) tells.
    pub(crate) fn panels<W: Weight>(&self) -> &[W] {
        debug_assert_eq!(W::PRECISION, self.precision);
        self.panels.cells()
    }

    /// `panel_count · panel_width` floats.
    pub(crate) fn bias(&self) -> &[f32] {
        self.bias.cells()
    }

    /// As many, or none.
    pub(crate) fn scales(&self) -> &[f32] {
        self.scales.cells()
    }

    pub(crate) fn bytes(&self) -> usize {
        self.panels.bytes() + self.bias.bytes() + self.scales.bytes()
    }
}

/// `narrow` makes a row of the matrix what is kept of it.
fn panels<W: Weight>(
    weights: &Weights,
    panel_width: usize,
    mut narrow: impl FnMut(&[f32], &mut [W]),
) -> Aligned {
    let k = weights.in_width;
    let mut panels = Aligned::zeros::<W>(weights.out_width.div_ceil(panel_width) * k * panel_width);
    let cells = panels.cells_mut();
    let mut kept = vec![W::zeroed(); k];
    for (o, row) in weights.matrix.chunks_exact(k).enumerate() {
        narrow(row, &mut kept);
        let first = o / panel_width * k * panel_width + o % panel_width;
        for (i, &weight) in kept.iter().enumerate() {
            cells[first + i * panel_width] = weight;
        }
    }
    panels
}
