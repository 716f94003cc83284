//! A model's window of one series, as it was after a tick.

use std::cmp::Reverse;

use peregrine_shaders::{ModelSpec, Windows};

use super::history::{Cells, FUTURE_MAX, History};

/// A series cannot be forecast by a model, as it is; says what is missing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unready {
    /// Too few observations yet.
    #[error("{got} observations where the model's window is {want}")]
    Short {
        /// Observations that there are.
        got: usize,
        /// The window.
        want: usize,
    },
    /// The window holds nothing but gaps.
    #[error("no observation in the model's window")]
    Empty,
    /// Too old to be known any more.
    #[error("older than what is kept")]
    Expired,
    /// The model reads a column that the ticks did not have throughout the window.
    #[error("column `{0}` is not known throughout the window")]
    Column(String),
    /// A model of several series cannot be asked about one.
    #[error("the model forecasts {0} series at once")]
    Several(usize),
}

impl History {
    /// The window after tick `seq` as one row for the model. A slot of the grid without an observation is a zero with
    /// mask 0, and has of the columns what an earlier tick foretold of it.
    ///
    /// # Errors
    /// [`Unready`].
    pub fn window(&self, seq: u64, spec: &ModelSpec) -> Result<Windows, Unready> {
        if spec.series != 1 {
            return Err(Unready::Several(spec.series));
        }
        let row = self.row(seq).ok_or(Unready::Expired)?;
        if self.is_in_order() && !self.has_grid() {
            self.newest_rows(row, spec)
        } else {
            self.newest_slots(row, spec)
        }
    }

    /// The last number after which the series was shorter than a window for certain, though not all is kept.
    pub(super) fn short_until(&self, window: usize) -> u64 {
        if !self.has_grid() {
            return (window as u64).saturating_sub(1).min(self.seq()); // each number has brought one observation
        }
        if self.first_seq() > 1 {
            return 0;
        }
        let mut slots = self.times().iter().map(|&at| self.slot(at));
        let Some(first) = slots.next() else { return 0 };
        let (mut oldest, mut newest) = (first, first);
        let is_short = |slot: i64| {
            (oldest, newest) = (oldest.min(slot), newest.max(slot));
            newest.abs_diff(oldest) < window as u64 - 1
        };
        std::iter::once(first).chain(slots).map(is_short).take_while(|&is_short| is_short).count() as u64
    }

    /// The usual case: the newest rows are the window.
    fn newest_rows(&self, row: usize, spec: &ModelSpec) -> Result<Windows, Unready> {
        let want = spec.window;
        let first = (row + 1).checked_sub(want).ok_or_else(|| self.too_short(row + 1, want))?;
        self.check_whole(self.times()[first])?;
        let rows = first..=row;
        let y = self.values().range(rows.clone()).copied().collect();
        let untold = |name: &str, _| Err(Unready::Column(name.to_owned()));
        self.with_columns(y, rows.map(Some), row, spec, untold)
    }

    /// By time: late ticks stand in their places, and slots may be empty.
    fn newest_slots(&self, row: usize, spec: &ModelSpec) -> Result<Windows, Unready> {
        let want = spec.window;
        let times = self.times();
        let mut order: Vec<usize> = (0..=row).collect();
        // A log from before there was a grid may have several of one slot: that has the first that came, which is so the last.
        order.sort_unstable_by_key(|&row| (self.slot(times[row]), Reverse(row)));
        let mut begins = 0;
        let rows: Vec<Option<usize>> = if self.has_grid() {
            let newest = order.last().map_or(0, |&row| self.slot(times[row]));
            let oldest = newest.saturating_sub(want as i64 - 1);
            let mut rows = vec![None; want];
            for &row in &order {
                if let Ok(place) = usize::try_from(self.slot(times[row]) - oldest) {
                    rows[place] = Some(row);
                }
            }
            let known = order.first().map_or(i64::MAX, |&row| self.slot(times[row]));
            self.check_whole(oldest)?;
            if known > oldest {
                return Err(self.too_short(usize::try_from(newest - known + 1).unwrap_or(0), want));
            }
            begins = oldest;
            rows
        } else {
            let first = order.len().checked_sub(want).ok_or_else(|| self.too_short(order.len(), want))?;
            self.check_whole(times[order[first]])?;
            order[first..].iter().copied().map(Some).collect()
        };
        let y = rows.iter().map(|row| row.map_or(f32::NAN, |row| self.values()[row])).collect();
        let last = order.last().copied().unwrap_or(row);
        let foretold = |name: &str, place: usize| {
            let slot = begins.saturating_add_unsigned(place as u64);
            if self.has_grid() {
                self.foretold(name, slot, &order)
            } else {
                Err(Unready::Column(name.to_owned()))
            }
        };
        self.with_columns(y, rows.into_iter(), last, spec, foretold)
    }

    /// What a column has in a slot as the nearest tick before it foretold that; `order` is the rows by time.
    fn foretold(&self, name: &str, slot: i64, order: &[usize]) -> Result<f32, Unready> {
        // Who is kept no more may have foretold it.
        let is_gone = |before: i64| self.evicted().is_some_and(|evicted| evicted >= before);
        let earlier = order.partition_point(|&row| self.slot(self.times()[row]) < slot);
        for &row in order[..earlier].iter().rev() {
            let before = self.slot(self.times()[row]);
            let steps = usize::try_from(slot - before).unwrap_or(usize::MAX);
            if steps >= FUTURE_MAX {
                break;
            }
            if is_gone(before) {
                return Err(Unready::Expired);
            }
            let ahead = self.future(name, self.first_seq() + row as u64);
            if let Some(&value) = ahead.and_then(|ahead| ahead.get(steps)) {
                return Ok(value);
            }
        }
        let reach = slot.saturating_sub(FUTURE_MAX as i64 - 1);
        Err(if is_gone(reach) { Unready::Expired } else { Unready::Column(name.to_owned()) })
    }

    /// Refuses a window, from its oldest slot on, that once held an observation which is kept no more.
    fn check_whole(&self, oldest: i64) -> Result<(), Unready> {
        if self.evicted().is_some_and(|evicted| evicted >= oldest) { Err(Unready::Expired) } else { Ok(()) }
    }

    /// A series whose beginning is gone does not become longer by waiting.
    fn too_short(&self, got: usize, want: usize) -> Unready {
        if self.evicted().is_some() { Unready::Expired } else { Unready::Short { got, want } }
    }

    /// Everything beside the values, NaN where there is none; `last` is the row of the newest observation, `foretold` what a
    /// column whose future is known has in a place of the window that did not bring it.
    fn with_columns(
        &self,
        mut y: Vec<f32>,
        rows: impl Iterator<Item = Option<usize>> + Clone,
        last: usize,
        spec: &ModelSpec,
        foretold: impl Fn(&str, usize) -> Result<f32, Unready>,
    ) -> Result<Windows, Unready> {
        let mask = mask_missing(&mut y);
        if mask.as_ref().is_some_and(|mask| mask.iter().all(|&m| m == 0.0)) {
            return Err(Unready::Empty);
        }
        let unknown = |name: &str| Unready::Column(name.to_owned());
        let hist_exog =
            cells(&spec.hist_exog, |name| self.hist(name), rows.clone(), |name, _| Err(unknown(name)))?;
        let mut futr_exog = cells(&spec.futr_exog, |name| self.futr(name), rows, foretold)?;
        let last = self.first_seq() + last as u64;
        let ahead = |name: &str| self.future(name, last).and_then(|ahead| ahead.get(1..=spec.horizon));
        let ahead: Vec<&[f32]> = (spec.futr_exog.iter())
            .map(|name| ahead(name).ok_or_else(|| unknown(name)))
            .collect::<Result<_, _>>()?;
        for step in 0..spec.horizon {
            futr_exog.extend(ahead.iter().map(|column| column[step]));
        }
        let constant = |name: &String| self.constant(name, last).ok_or_else(|| unknown(name));
        let stat_exog = spec.stat_exog.iter().map(constant).collect::<Result<_, _>>()?;
        Ok(Windows { rows: 1, y, mask, hist_exog, futr_exog, stat_exog })
    }
}

/// Columns by row, and `otherwise` where there is no row or the row has no such column.
fn cells<'a>(
    names: &[String],
    column: impl Fn(&str) -> Option<Cells<'a>>,
    rows: impl Iterator<Item = Option<usize>>,
    otherwise: impl Fn(&str, usize) -> Result<f32, Unready>,
) -> Result<Vec<f32>, Unready> {
    if names.is_empty() {
        return Ok(Vec::new());
    }
    let column = |name: &String| column(name).ok_or_else(|| Unready::Column(name.clone()));
    let columns: Vec<_> = names.iter().map(column).collect::<Result<_, _>>()?;
    let mut cells = Vec::new();
    for (place, row) in rows.enumerate() {
        for (name, values) in names.iter().zip(&columns) {
            let value = row.and_then(|row| values.at(row));
            cells.push(value.map_or_else(|| otherwise(name, place), Ok)?);
        }
    }
    Ok(cells)
}

/// Turns what was not observed into zeros, and says so in the mask.
fn mask_missing(y: &mut [f32]) -> Option<Vec<f32>> {
    if y.iter().all(|value| !value.is_nan()) {
        return None;
    }
    let mask = y.iter().map(|value| if value.is_nan() { 0.0 } else { 1.0 }).collect();
    y.iter_mut().filter(|value| value.is_nan()).for_each(|value| *value = 0.0);
    Some(mask)
}

/// Windows of one row each as one request; `None`: there is none, or they are not of one shape.
pub(super) fn joined<'a>(windows: impl IntoIterator<Item = &'a Windows>) -> Option<Windows> {
    let mut windows = windows.into_iter();
    let first = windows.next()?;
    let shape = |windows: &Windows| {
        [windows.y.len(), windows.hist_exog.len(), windows.futr_exog.len(), windows.stat_exog.len()]
    };
    let mut all = first.clone();
    for other in windows {
        if shape(other) != shape(first) {
            return None;
        }
        all.append(other, first.y.len());
    }
    Some(all)
}
