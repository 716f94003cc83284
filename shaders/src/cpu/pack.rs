//! Weights as the kernels read them: panels of a few output columns, input-major inside, padded with zeros.

use std::marker::PhantomData;
use std::sync::Arc;

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

/// A matrix in panels of `width` outputs: `cells[p][i][c] = W[p · width + c, i]`.
#[derive(Debug)]
pub(crate) struct Panels<W> {
    pub(crate) width: usize,
    cells: Aligned,
    of: PhantomData<W>,
}

impl<W: Pod> Panels<W> {
    /// Of a row-major matrix, each number of which `narrow` makes what is kept of it.
    pub(crate) fn new<T: Copy>(width: usize, in_width: usize, matrix: &[T], narrow: impl Fn(T) -> W) -> Self {
        /// Inputs whose cells of one panel stay in the nearest cache while its outputs pass.
        const TOGETHER: usize = 16;
        let out_width = matrix.len() / in_width;
        let mut cells = Aligned::zeros::<W>(out_width.div_ceil(width) * in_width * width);
        let panels = cells.cells_mut().chunks_exact_mut(in_width * width);
        for (panel, outputs) in panels.zip(matrix.chunks(in_width * width)) {
            for (block, cells) in panel.chunks_mut(TOGETHER * width).enumerate() {
                for (c, row) in outputs.chunks_exact(in_width).enumerate() {
                    let row = row[block * TOGETHER..].iter();
                    for (cell, weight) in cells[c..].iter_mut().step_by(width).zip(row) {
                        *cell = narrow(*weight);
                    }
                }
            }
        }
        Self { width, cells, of: PhantomData }
    }

    /// The matrix, row-major.
    pub(crate) fn rows(&self, out_width: usize, in_width: usize) -> Vec<W> {
        let cells = self.cells.cells::<W>();
        let mut matrix = Vec::with_capacity(out_width * in_width);
        for output in 0..out_width {
            let first = output / self.width * in_width * self.width + output % self.width;
            matrix.extend(cells[first..].iter().step_by(self.width).take(in_width));
        }
        matrix
    }

    fn bytes(&self) -> usize {
        self.cells.bytes()
    }
}

/// One layer, packed.
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
    panels: Kept,
    bias: Aligned,
    /// Of each column, if its weights are whole numbers.
    scales: Aligned,
}

/// Whose panels they are.
#[derive(Debug)]
enum Kept {
    /// The plan's own are as this layer wants them.
    Plan(Arc<Weights>),
    Here(Aligned),
}

impl Packed {
    /// # Panics
    /// When a weight is larger than `precision` allows.
    pub(crate) fn new(weights: &Arc<Weights>, panel_width: usize, precision: Precision) -> Self {
        let (n, k) = (weights.out_width, weights.in_width);
        let panel_count = n.div_ceil(panel_width);
        let cells = weights.panels().cells.cells::<f32>();
        // Kernels rely on it, and widths can be written to.
        let plan_width = weights.panels().width;
        let len = n.div_ceil(plan_width).checked_mul(plan_width).and_then(|columns| columns.checked_mul(k));
        assert!(len.is_some_and(|len| n > 0 && len > 0 && len <= cells.len()), "matrix");
        assert_eq!(weights.bias.len(), n, "bias");
        let finite = cells.iter().all(|weight| weight.is_finite());
        let mut scales = Aligned::default();
        let panels = match precision {
            Precision::F32 if plan_width == panel_width => Kept::Plan(Arc::clone(weights)),
            Precision::F32 => {
                Kept::Here(Panels::new(panel_width, k, &weights.matrix(), |weight: f32| weight).cells)
            }
            Precision::F16 => {
                let matrix = weights.matrix();
                let largest = matrix.iter().fold(0.0, |max: f32, weight| max.max(weight.abs()));
                assert!(finite && largest <= f16::MAX.to_f32(), "halves can be as large as the weights");
                let mut rounded = vec![f16::ZERO; matrix.len()];
                halves::round(&matrix, &mut rounded);
                Kept::Here(Panels::new(panel_width, k, &rounded, |half| half).cells)
            }
            Precision::Int8 => {
                assert!(finite, "whole numbers are finite");
                let matrix = weights.matrix();
                let rows = matrix.chunks_exact(k);
                scales = Aligned::zeros::<f32>(panel_count * panel_width);
                scales
                    .cells_mut()
                    .iter_mut()
                    .zip(rows.clone())
                    .for_each(|(of_row, row)| *of_row = scale(row));
                let numbers = rows.flat_map(|row| {
                    let scale = scale(row);
                    row.iter().map(move |weight| whole(*weight, scale))
                });
                let numbers: Vec<i8> = numbers.collect();
                Kept::Here(Panels::new(panel_width, k, &numbers, |number| number).cells)
            }
        };
        let mut bias = Aligned::zeros::<f32>(panel_count * panel_width);
        bias.cells_mut()[..n].copy_from_slice(&weights.bias);
        Self { out_width: n, in_width: k, panel_width, panel_count, finite, precision, panels, bias, scales }
    }

    /// `panel_count · in_width · panel_width` weights, of the type that [`precision`](Self::precision) tells.
    pub(crate) fn panels<W: Weight>(&self) -> &[W] {
        debug_assert_eq!(W::PRECISION, self.precision);
        match &self.panels {
            Kept::Plan(weights) => weights.panels().cells.cells(),
            Kept::Here(cells) => cells.cells(),
        }
    }

    /// `panel_count · panel_width` floats.
    pub(crate) fn bias(&self) -> &[f32] {
        self.bias.cells()
    }

    /// As many, or none.
    pub(crate) fn scales(&self) -> &[f32] {
        self.scales.cells()
    }

    /// What it works with, the plan's own panels included.
    pub(crate) fn bytes(&self) -> usize {
        let panels = match &self.panels {
            Kept::Plan(weights) => weights.panels().bytes(),
            Kept::Here(cells) => cells.bytes(),
        };
        panels + self.bias.bytes() + self.scales.bytes()
    }
}
