//! Both sides of the plan: raw windows to normalized inputs, raw outputs to answers.

use crate::normalizer::{Normalizer, Scale, Workspace};
use crate::{ExecuteError, Windows, head};

use super::Forecaster;
use super::network::{Anchor, Layout, Order};

/// Reusable buffers of [`Forecaster::forecast`]: the steady state allocates nothing.
#[derive(Debug, Default)]
pub struct Scratch {
    pub(super) features: Vec<f32>,
    pub(super) mask: Vec<f32>,
    pub(super) raw: Vec<f32>,
    rows: Vec<RowScale>,
    step: Vec<f64>,
    workspace: Workspace,
}

/// What it takes to bring one row back.
#[derive(Clone, Copy, Debug)]
struct RowScale {
    outward: Scale,
    /// Added to the network's outputs: the last normalized value, or zero.
    level: f64,
}

/// One exogenous or target column set of one row, step-major, and its mask.
#[derive(Clone, Copy)]
struct Columns<'a> {
    values: &'a [f32],
    columns: usize,
    /// Steps that statistics are taken over; the rest is only scaled.
    window: usize,
    mask: Option<&'a [f32]>,
}

impl Forecaster {
    /// Fills the plan's inputs.
    pub(super) fn prepare(&self, windows: &Windows, scratch: &mut Scratch) -> Result<(), ExecuteError> {
        let layout = Layout::of(&self.spec);
        let Scratch { features, mask, raw, rows, workspace, .. } = scratch;
        features.resize(windows.rows * layout.width(), 0.0);
        raw.resize(windows.rows * self.spec.horizon * self.spec.head.network_width(), 0.0);
        rows.clear();
        for (row, target) in features.chunks_exact_mut(layout.width()).enumerate() {
            rows.push(self.prepare_row(windows, row, layout, target, workspace));
            if !target.iter().all(|value| value.is_finite()) {
                return Err(ExecuteError::NotFinite { row });
            }
        }
        if self.masked {
            self.fill_mask(windows, mask);
        }
        Ok(())
    }

    fn prepare_row(
        &self,
        windows: &Windows,
        row: usize,
        layout: Layout,
        target: &mut [f32],
        workspace: &mut Workspace,
    ) -> RowScale {
        let window = self.spec.window;
        let mask = windows.mask.as_deref().map(|mask| part(mask, row, window));
        let y = part(&windows.y, row, window);
        let (y_target, target) = target.split_at_mut(layout.y);
        let (hist_target, target) = target.split_at_mut(layout.hist);
        let (futr_target, stat_target) = target.split_at_mut(layout.futr);

        let column = Columns { values: y, columns: 1, window, mask };
        let scale = fit(self.normalizer, column, 0, workspace);
        let last = self.normalizer.apply(y[window - 1], scale);
        let (level, taken_off) = match self.anchor {
            Anchor::None => (0.0, 0.0),
            Anchor::Level => (last, 0.0),
            Anchor::Difference => (last, last),
        };
        let normalized = |&value: &f32| (self.normalizer.apply(value, scale) - taken_off) as f32;
        match self.order {
            Order::OldestFirst => y_target.iter_mut().zip(y).for_each(|(to, from)| *to = normalized(from)),
            Order::NewestFirst => {
                y_target.iter_mut().zip(y.iter().rev()).for_each(|(to, from)| *to = normalized(from));
            }
        }
        let hist = Columns {
            values: part(&windows.hist_exog, row, layout.hist),
            columns: self.spec.hist_exog.len(),
            window,
            mask,
        };
        scale_columns(self.normalizer, hist, hist_target, workspace);
        let futr = Columns {
            values: part(&windows.futr_exog, row, layout.futr),
            columns: self.spec.futr_exog.len(),
            window,
            mask,
        };
        scale_columns(self.normalizer, futr, futr_target, workspace);
        stat_target.copy_from_slice(part(&windows.stat_exog, row, layout.stat));
        RowScale { outward: self.normalizer.outward(scale), level }
    }

    fn fill_mask(&self, windows: &Windows, mask: &mut Vec<f32>) {
        mask.clear();
        match &windows.mask {
            None => mask.resize(windows.rows * self.spec.window, 1.0),
            Some(given) if self.order == Order::OldestFirst => mask.extend_from_slice(given),
            Some(given) => given.chunks_exact(self.spec.window).for_each(|row| mask.extend(row.iter().rev())),
        }
    }

    /// Turns the plan's output into the answer.
    pub(super) fn finish(
        &self,
        rows: usize,
        scratch: &mut Scratch,
        out: &mut Vec<f32>,
    ) -> Result<(), ExecuteError> {
        let spec = &self.spec;
        let (outputs, columns) = (spec.head.network_width(), spec.columns.len());
        let Scratch { raw, rows: scales, step, .. } = scratch;
        out.resize(rows * spec.answer_len(), 0.0);
        let per_row = raw.chunks_exact(spec.horizon * outputs).zip(out.chunks_exact_mut(spec.answer_len()));
        for (row, ((raw, answer), at)) in per_row.zip(scales.iter()).enumerate() {
            for (raw, answer) in raw.chunks_exact(outputs).zip(answer.chunks_exact_mut(columns)) {
                step.clear();
                step.extend(raw.iter().map(|&value| f64::from(value) + at.level));
                head::answer(&spec.head, step, self.normalizer, at.outward, answer);
            }
            if !answer.iter().all(|value| value.is_finite()) {
                return Err(ExecuteError::NotFinite { row });
            }
        }
        Ok(())
    }
}

fn part(values: &[f32], row: usize, width: usize) -> &[f32] {
    &values[row * width..(row + 1) * width]
}

fn scale_columns(normalizer: Normalizer, from: Columns<'_>, target: &mut [f32], workspace: &mut Workspace) {
    for column in 0..from.columns {
        let scale = fit(normalizer, from, column, workspace);
        let values = from.values.iter().skip(column).step_by(from.columns);
        for (to, &value) in target.iter_mut().skip(column).step_by(from.columns).zip(values) {
            *to = normalizer.apply(value, scale) as f32;
        }
    }
}

/// Statistics of one column over the observed steps.
fn fit(normalizer: Normalizer, from: Columns<'_>, column: usize, workspace: &mut Workspace) -> Scale {
    let observed = &mut workspace.observed;
    observed.clear();
    if normalizer.needs_statistics() {
        let values = from.values.iter().copied().skip(column).step_by(from.columns).take(from.window);
        match from.mask {
            Some(mask) => {
                observed.extend(values.zip(mask).filter(|&(_, &mask)| mask == 1.0).map(|(value, _)| value));
            }
            None if from.columns == 1 => observed.extend_from_slice(&from.values[..from.window]),
            None => observed.extend(values),
        }
    }
    normalizer.fit(workspace)
}
