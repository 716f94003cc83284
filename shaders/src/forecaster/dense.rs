//! Layers in f64 while they are folded at load; rounded to f32 once, when recorded.

use std::sync::Arc;

use crate::loader::{Archive, LoadError};
use crate::{PlanBuilder, View, Weights};

use super::product::product;

/// Multiply-adds that folding two layers may cost at load.
const FOLD_WORK_MAX: usize = 1 << 32;
/// Numbers in all matrices of one plan: 1 GiB in f32.
pub(super) const PLAN_LEN_MAX: usize = 1 << 28;
/// Numbers that one row of a batch may take between the commands of a plan: 8 MiB in f32.
const ROW_LEN_MAX: usize = 1 << 21;

/// `y = matrix · x + bias`.
#[derive(Clone, Debug)]
pub(super) struct Dense {
    pub(super) out_width: usize,
    pub(super) in_width: usize,
    /// `[out, in]`
    pub(super) matrix: Vec<f64>,
    pub(super) bias: Vec<f64>,
}

/// Linear map without bias whose rows are mostly zero: interpolation, bases, change of layout.
#[derive(Clone, Debug)]
pub(super) struct Sparse {
    pub(super) in_width: usize,
    /// Per output the inputs it sums and their weights.
    pub(super) rows: Vec<Vec<(usize, f64)>>,
}

impl Dense {
    /// `NAME.weight` and `NAME.bias`.
    pub(super) fn take(
        archive: &Archive,
        name: &str,
        out_width: usize,
        in_width: usize,
    ) -> Result<Self, LoadError> {
        let matrix = archive.take(&format!("{name}.weight"), &[out_width, in_width])?;
        let bias = archive.take(&format!("{name}.bias"), &[out_width])?;
        Ok(Self { out_width, in_width, matrix, bias })
    }

    /// `y = x`.
    pub(super) fn identity(width: usize) -> Self {
        let matrix = (0..width * width).map(|at| if at % (width + 1) == 0 { 1.0 } else { 0.0 }).collect();
        Self { out_width: width, in_width: width, matrix, bias: vec![0.0; width] }
    }

    /// Every output becomes the mean of all.
    pub(super) fn averaged(&self) -> Self {
        let count = self.out_width as f64;
        let mean = |column: usize| self.matrix[column..].iter().step_by(self.in_width).sum::<f64>() / count;
        let row: Vec<f64> = (0..self.in_width).map(mean).collect();
        let bias = self.bias.iter().sum::<f64>() / count;
        Self { matrix: row.repeat(self.out_width), bias: vec![bias; self.out_width], ..*self }
    }

    /// Rows `start .. end` of the outputs.
    pub(super) fn outputs(&self, start: usize, end: usize) -> Self {
        Self {
            out_width: end - start,
            in_width: self.in_width,
            matrix: self.matrix[start * self.in_width..end * self.in_width].to_vec(),
            bias: self.bias[start..end].to_vec(),
        }
    }

    /// With so many outputs, those that are new always zero.
    pub(super) fn with_outputs(mut self, out_width: usize) -> Self {
        self.matrix.resize(out_width * self.in_width, 0.0);
        self.bias.resize(out_width, 0.0);
        Self { out_width, ..self }
    }

    /// With so many inputs, those that are new without effect.
    pub(super) fn with_inputs(self, in_width: usize) -> Self {
        if in_width == self.in_width {
            return self;
        }
        let rows = self.matrix.chunks_exact(self.in_width);
        let new = vec![0.0; in_width - self.in_width];
        let matrix = rows.flat_map(|row| row.iter().chain(&new)).copied().collect();
        Self { in_width, matrix, ..self }
    }

    pub(super) fn negated(mut self) -> Self {
        self.matrix.iter_mut().chain(&mut self.bias).for_each(|value| *value = -*value);
        self
    }

    /// The layer that equals `self` after `first`, when it needs no more multiply-adds than the two.
    pub(super) fn after(&self, first: &Self) -> Option<Self> {
        let (hidden, wide) = (self.in_width, first.in_width);
        let cheaper = self.out_width * wide <= hidden * (wide + self.out_width);
        let affordable = self.matrix.len().checked_mul(wide).is_some_and(|work| work <= FOLD_WORK_MAX);
        if !(cheaper && affordable) {
            return None;
        }
        let matrix = product(&self.matrix, &first.matrix, [self.out_width, hidden, wide]);
        let mut bias = self.bias.clone();
        for (weights, bias) in self.matrix.chunks_exact(hidden).zip(&mut bias) {
            for (weight, inner) in weights.iter().zip(&first.bias) {
                *bias += weight * inner;
            }
        }
        Some(Self { out_width: self.out_width, in_width: wide, matrix, bias })
    }

    /// Rounds to f32.
    ///
    /// # Errors
    /// When a product of layers lies beyond f32.
    pub(super) fn weights(&self, name: &str) -> Result<Arc<Weights>, LoadError> {
        let bias = rounded(name, &self.bias)?;
        check(name, &self.matrix)?;
        let narrow = |weight| weight as f32;
        Ok(Arc::new(Weights::narrowed(self.out_width, self.in_width, &self.matrix, bias, narrow)))
    }
}

impl Sparse {
    pub(super) fn out_width(&self) -> usize {
        self.rows.len()
    }

    /// True when mapping straight from what `theta` reads needs no more multiply-adds than by way of `theta`.
    pub(super) fn folds_into(&self, theta_out: usize, theta_in: usize) -> bool {
        let cheaper = self.out_width() * theta_in <= theta_out * (theta_in + self.out_width());
        let terms: usize = self.rows.iter().map(Vec::len).sum();
        cheaper && terms.checked_mul(theta_in).is_some_and(|work| work <= FOLD_WORK_MAX)
    }

    /// `self · theta`.
    pub(super) fn folded(&self, theta: &Dense) -> Dense {
        let wide = theta.in_width;
        let mut matrix = vec![0.0; self.out_width() * wide];
        let mut bias = vec![0.0; self.out_width()];
        for ((row, sum), terms) in matrix.chunks_exact_mut(wide).zip(&mut bias).zip(&self.rows) {
            for &(k, weight) in terms {
                add_scaled(row, weight, &theta.matrix[k * wide..(k + 1) * wide]);
                *sum += weight * theta.bias[k];
            }
        }
        Dense { out_width: self.out_width(), in_width: wide, matrix, bias }
    }

    /// Written out, with zero biases.
    pub(super) fn dense(&self) -> Dense {
        let mut matrix = vec![0.0; self.out_width() * self.in_width];
        for (row, terms) in matrix.chunks_exact_mut(self.in_width).zip(&self.rows) {
            for &(k, weight) in terms {
                row[k] += weight;
            }
        }
        Dense {
            out_width: self.out_width(),
            in_width: self.in_width,
            matrix,
            bias: vec![0.0; self.out_width()],
        }
    }
}

/// Counts what a plan and the bases it is made from take, and what its buffers take for each row of a batch, both in
/// f32 words, before it is allocated.
#[derive(Default)]
pub(super) struct Budget {
    weights_len: usize,
    row_len: usize,
}

impl Budget {
    pub(super) fn spend(&mut self, out_width: usize, in_width: usize) -> Result<(), LoadError> {
        let len = out_width.saturating_mul(in_width).saturating_add(self.weights_len);
        if len > PLAN_LEN_MAX {
            return Err(LoadError::TooLarge { what: "the plan's weight count", len, len_max: PLAN_LEN_MAX });
        }
        self.weights_len = len;
        Ok(())
    }

    /// For a buffer of `steps · columns` columns.
    pub(super) fn spend_row(&mut self, steps: usize, columns: usize) -> Result<(), LoadError> {
        let len = steps.saturating_mul(columns).saturating_add(self.row_len);
        if len > ROW_LEN_MAX {
            return Err(LoadError::TooLarge { what: "the plan's row", len, len_max: ROW_LEN_MAX });
        }
        self.row_len = len;
        Ok(())
    }

    /// A buffer of `steps · columns` columns, spent.
    pub(super) fn buffer(
        &mut self,
        plan: &mut PlanBuilder,
        steps: usize,
        columns: usize,
    ) -> Result<View, LoadError> {
        self.spend_row(steps, columns)?;
        Ok(plan.buffer(steps * columns))
    }

    /// For a [`Sparse`] map of `rows` rows.
    pub(super) fn spend_terms(&mut self, rows: usize, terms_per_row: usize) -> Result<(), LoadError> {
        const WORDS_PER_TERM: usize = size_of::<(usize, f64)>() / size_of::<f32>();
        const WORDS_PER_ROW: usize = 16;
        self.spend(rows, terms_per_row.saturating_mul(WORDS_PER_TERM).saturating_add(WORDS_PER_ROW))
    }
}

fn add_scaled(row: &mut [f64], weight: f64, other: &[f64]) {
    for (sum, value) in row.iter_mut().zip(other) {
        *sum += weight * value;
    }
}

pub(super) fn rounded(name: &str, values: &[f64]) -> Result<Vec<f32>, LoadError> {
    check(name, values)?;
    Ok(values.iter().map(|&value| value as f32).collect())
}

/// That all are f32, rounded.
fn check(name: &str, values: &[f64]) -> Result<(), LoadError> {
    match values.iter().position(|&value| !(value as f32).is_finite()) {
        Some(index) => Err(LoadError::NotFinite { name: name.to_owned(), index }),
        None => Ok(()),
    }
}
