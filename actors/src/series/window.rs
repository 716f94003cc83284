//! A model's window of one series, as it was after a tick.

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
        match self.rows_at(seq) {
            Ok(0) => Err(Unready::Expired),
            Ok(count) if !self.has_grid() => self.newest_rows(count, spec),
            Ok(count) => self.newest_slots(&(0..count).collect::<Vec<_>>(), spec),
            Err(rows) if rows.is_empty() => Err(Unready::Expired),
            Err(rows) => self.newest_slots(&rows, spec),
        }
    }

    /// The last number after which the series was shorter than a window for certain, though not all is kept.
    pub(super) fn short_until(&self, window: usize) -> u64 {
        if !self.has_grid() {
            return (window as u64).saturating_sub(1).min(self.seq()); // each number has brought one observation
        }
        let mut rows: Vec<usize> = (0..self.len()).collect();
        if rows.len() as u64 != self.seq() {
            return 0;
        }
        rows.sort_by_key(|&row| self.number(row));
        let mut slots = rows.iter().map(|&row| self.slot(self.times()[row]));
        let Some(first) = slots.next() else { return 0 };
        let (mut oldest, mut newest) = (first, first);
        let is_short = |slot: i64| {
            (oldest, newest) = (oldest.min(slot), newest.max(slot));
            newest.abs_diff(oldest) < window as u64 - 1
        };
        std::iter::once(first).chain(slots).map(is_short).take_while(|&is_short| is_short).count() as u64
    }

    /// The usual case: the newest of so many rows are the window.
    fn newest_rows(&self, count: usize, spec: &ModelSpec) -> Result<Windows, Unready> {
        let want = spec.window;
        let first = count.checked_sub(want).ok_or_else(|| self.too_short(count, want))?;
        let rows = first..count;
        let y = self.values().range(rows.clone()).copied().collect();
        let untold = |name: &str, _| Err(Unready::Column(name.to_owned()));
        self.with_columns(y, rows.map(Some), count - 1, spec, untold)
    }

    /// Of these rows, oldest first: some may be left out, and slots may be empty.
    fn newest_slots(&self, order: &[usize], spec: &ModelSpec) -> Result<Windows, Unready> {
        let want = spec.window;
        let times = self.times();
        let slot = |row: &usize| self.slot(times[*row]);
        let mut begins = 0;
        let rows: Vec<Option<usize>> = if self.has_grid() {
            let (known, newest) = (order.first().map_or(0, slot), order.last().map_or(0, slot));
            let oldest = newest.saturating_sub(want as i64 - 1);
            if known > oldest {
                return Err(self.too_short(usize::try_from(newest - known + 1).unwrap_or(0), want));
            }
            let mut rows = vec![None; want];
            // Of several of one slot the last counts.
            for row in &order[order.partition_point(|row| slot(row) < oldest)..] {
                if let Ok(place) = usize::try_from(slot(row) - oldest) {
                    rows[place] = Some(*row);
                }
            }
            begins = oldest;
            rows
        } else {
            let first = order.len().checked_sub(want).ok_or_else(|| self.too_short(order.len(), want))?;
            order[first..].iter().copied().map(Some).collect()
        };
        let y = rows.iter().map(|row| row.map_or(f32::NAN, |row| self.values()[row])).collect();
        let last = order.last().copied().unwrap_or_default();
        let foretold = |name: &str, place: usize| {
            let slot = begins.saturating_add_unsigned(place as u64);
            if self.has_grid() {
                self.foretold(name, slot, order)
            } else {
                Err(Unready::Column(name.to_owned()))
            }
        };
        self.with_columns(y, rows.into_iter(), last, spec, foretold)
    }

    /// What a column has in a slot as the nearest tick before it foretold that; `order` is the rows by time.
    fn foretold(&self, name: &str, slot: i64, order: &[usize]) -> Result<f32, Unready> {
        let earlier = order.partition_point(|&row| self.slot(self.times()[row]) < slot);
        for &row in order[..earlier].iter().rev() {
            let before = self.slot(self.times()[row]);
            let steps = usize::try_from(slot - before).unwrap_or(usize::MAX);
            if steps >= FUTURE_MAX {
                break;
            }
            let ahead = self.future(name, self.number(row));
            if let Some(&value) = ahead.and_then(|ahead| ahead.get(steps)) {
                return Ok(value);
            }
        }
        // Who is kept no more may have foretold it.
        let reach = slot.saturating_sub(FUTURE_MAX as i64 - 1);
        let is_gone = self.evicted().is_some_and(|evicted| evicted >= reach);
        Err(if is_gone { Unready::Expired } else { Unready::Column(name.to_owned()) })
    }

    /// A series whose beginning is gone does not become longer by waiting.
    fn too_short(&self, got: usize, want: usize) -> Unready {
        if self.evicted().is_some() { Unready::Expired } else { Unready::Short { got, want } }
    }

    /// Everything beside the values, NaN where there is none; `last` is the row of the newest observation, `foretold` what a
    /// column whose future is known has in a place of the window, or of the horizon behind it, that nothing newer tells.
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
        let mut futr_exog = cells(&spec.futr_exog, |name| self.futr(name), rows, &foretold)?;
        let last = self.number(last);
        for step in 0..spec.horizon {
            for name in &spec.futr_exog {
                let told = self.future(name, last).and_then(|ahead| ahead.get(step + 1));
                futr_exog.push(told.copied().map_or_else(|| foretold(name, spec.window + step), Ok)?);
            }
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
