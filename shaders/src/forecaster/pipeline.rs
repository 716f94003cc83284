//! Both sides of the plan: raw windows to normalized inputs, raw outputs to answers.

use rayon::prelude::*;

use crate::normalizer::{Normalizer, Scale, Workspace};
use crate::{ExecuteError, Windows, head};

use super::ensemble;
use super::network::{Layout, Order};
use super::trained::Trained;

/// Reusable buffers of [`Forecaster::forecast`](super::Forecaster::forecast): the steady state allocates nothing.
#[derive(Debug, Default)]
pub struct Scratch {
    pub(super) features: Vec<f32>,
    pub(super) mask: Vec<f32>,
    pub(super) raw: Vec<f32>,
    /// Of every row every series.
    scales: Vec<SeriesScale>,
    reused: Reused,
    pub(super) ensemble: ensemble::Workspace,
}

/// Numbers in a batch from which on all cores take part: half a millisecond of one core. Below it, waking them costs more.
const PARALLEL_VALUES_MIN: usize = 1 << 15;

/// What it takes to bring one series of one row back.
#[derive(Clone, Copy, Debug)]
struct SeriesScale {
    outward: Scale,
    /// From the network's numbers to normalized ones.
    back: Scale,
}

/// What one row goes through; every thread that takes part has its own.
#[derive(Debug, Default)]
struct Reused {
    series: Vec<f64>,
    step: Vec<f64>,
    workspace: Workspace,
}

/// One exogenous or target column set of one row, step-major, and its mask.
#[derive(Clone, Copy)]
struct Columns<'a> {
    values: &'a [f32],
    columns: usize,
    /// Steps that statistics are taken over; the rest is only scaled.
    window: usize,
    mask: Option<&'a [f32]>,
    /// Whether the mask has as many columns as the values; it has one otherwise.
    masked_apart: bool,
}

impl SeriesScale {
    const NONE: Self = Self { outward: Scale::NONE, back: Scale::NONE };
}

impl Trained {
    /// Fills the plan's inputs.
    pub(super) fn prepare(&self, windows: &Windows, scratch: &mut Scratch) -> Result<(), ExecuteError> {
        let layout = Layout::of(&self.spec);
        let Scratch { features, mask, raw, scales, reused, .. } = scratch;
        let (width, series) = (layout.width(), self.spec.series);
        features.resize(windows.rows * width, 0.0);
        raw.resize(windows.rows * self.raw_len(), 0.0);
        scales.resize(windows.rows * series, SeriesScale::NONE);
        let prepare =
            |reused: &mut Reused, (row, (target, scales)): (usize, (&mut [f32], &mut [SeriesScale]))| {
                self.prepare_row(windows, row, layout, (target, scales), reused);
                (!is_finite(target)).then_some(row)
            };
        let refused = if windows.rows * width < PARALLEL_VALUES_MIN {
            let rows = features.chunks_exact_mut(width).zip(scales.chunks_exact_mut(series));
            rows.enumerate().find_map(|row| prepare(reused, row))
        } else {
            let rows = features.par_chunks_exact_mut(width).zip(scales.par_chunks_exact_mut(series));
            rows.enumerate().map_init(Reused::default, prepare).flatten().min()
        };
        if let Some(row) = refused {
            return Err(ExecuteError::NotFinite { row });
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
        (target, scales): (&mut [f32], &mut [SeriesScale]),
        reused: &mut Reused,
    ) {
        let Reused { series, workspace, .. } = reused;
        let (window, series_count) = (self.spec.window, self.spec.series);
        let mask = windows.mask.as_deref().map(|mask| part(mask, row, layout.y));
        let y = part(&windows.y, row, layout.y);
        let (y_target, target) = target.split_at_mut(layout.y);
        let (hist_target, target) = target.split_at_mut(layout.hist);
        let (futr_target, stat_target) = target.split_at_mut(layout.futr);

        let columns = Columns { values: y, columns: series_count, window, mask, masked_apart: true };
        for (at, row_scale) in scales.iter_mut().enumerate() {
            let scale = fit(self.normalizer, columns, at, workspace);
            let values = y.iter().skip(at).step_by(series_count);
            series.clear();
            series.extend(values.map(|&value| self.normalizer.apply(value, scale)));
            let around = self.anchor.around(at, series);
            let targets = y_target.iter_mut().skip(at).step_by(series_count);
            let fill = |(to, &from): (&mut f32, &f64)| *to = around.inward(from) as f32;
            match self.order {
                Order::OldestFirst => targets.zip(series.iter()).for_each(fill),
                Order::NewestFirst => targets.zip(series.iter().rev()).for_each(fill),
            }
            *row_scale = SeriesScale { outward: self.normalizer.outward(scale), back: around.back };
        }
        let hist = Columns {
            values: part(&windows.hist_exog, row, layout.hist),
            columns: self.spec.hist_exog.len(),
            window,
            mask,
            masked_apart: false,
        };
        scale_columns(self.normalizer, hist, hist_target, workspace);
        let futr = Columns {
            values: part(&windows.futr_exog, row, layout.futr),
            columns: self.spec.futr_exog.len(),
            window,
            mask,
            masked_apart: false,
        };
        scale_columns(self.normalizer, futr, futr_target, workspace);
        stat_target.copy_from_slice(part(&windows.stat_exog, row, layout.stat));
    }

    /// Width of the plan's output.
    fn raw_len(&self) -> usize {
        self.spec.horizon * self.spec.series * self.spec.head.network_width()
    }

    fn fill_mask(&self, windows: &Windows, mask: &mut Vec<f32>) {
        mask.clear();
        match &windows.mask {
            None => mask.resize(windows.rows * self.spec.y_len(), 1.0),
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
        let (raw_len, answer_len) = (self.raw_len(), self.spec.answer_len());
        let Scratch { raw, scales, reused, .. } = scratch;
        out.resize(rows * answer_len, 0.0);
        type Row<'a> = (usize, ((&'a [f32], &'a mut [f32]), &'a [SeriesScale]));
        let finish = |reused: &mut Reused, (row, ((raw, answer), scales)): Row<'_>| {
            self.finish_row(raw, answer, scales, &mut reused.step);
            (!is_finite(answer)).then_some(row)
        };
        let series = self.spec.series;
        let refused = if rows * raw_len < PARALLEL_VALUES_MIN {
            let rows = raw.chunks_exact(raw_len).zip(out.chunks_exact_mut(answer_len));
            rows.zip(scales.chunks_exact(series)).enumerate().find_map(|row| finish(reused, row))
        } else {
            let rows = raw.par_chunks_exact(raw_len).zip(out.par_chunks_exact_mut(answer_len));
            let rows = rows.zip(scales.par_chunks_exact(series)).enumerate();
            rows.map_init(Reused::default, finish).flatten().min()
        };
        refused.map_or(Ok(()), |row| Err(ExecuteError::NotFinite { row }))
    }

    fn finish_row(&self, raw: &[f32], answer: &mut [f32], scales: &[SeriesScale], step: &mut Vec<f64>) {
        let spec = &self.spec;
        let (outputs, columns, series) = (spec.head.network_width(), spec.columns.len(), spec.series);
        let steps = raw.chunks_exact(outputs * series).zip(answer.chunks_exact_mut(columns * series));
        for (raw, answer) in steps {
            step.clear();
            // The network says all series, output after output …
            for output in raw.chunks_exact(series) {
                let back =
                    |(&value, at): (&f32, &SeriesScale)| f64::from(value) * at.back.scale + at.back.shift;
                step.extend(output.iter().zip(scales).map(back));
            }
            // … and the library reads the same list series after series.
            let answers = step.chunks_exact(outputs).zip(answer.chunks_exact_mut(columns));
            for ((step, answer), at) in answers.zip(scales) {
                head::answer(&spec.head, step, self.normalizer, at.outward, answer);
            }
        }
    }
}

/// Whether all numbers of a row are.
pub(super) fn is_finite(row: &[f32]) -> bool {
    row.iter().all(|value| value.is_finite())
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
                let (first, step) = if from.masked_apart { (column, from.columns) } else { (0, 1) };
                let mask = mask.iter().skip(first).step_by(step);
                observed.extend(values.zip(mask).filter(|&(_, &mask)| mask == 1.0).map(|(value, _)| value));
            }
            None if from.columns == 1 => observed.extend_from_slice(&from.values[..from.window]),
            None => observed.extend(values),
        }
    }
    normalizer.fit(workspace)
}
