//! A model's window of one series, as it was after a tick.

use peregrine_shaders::{ModelSpec, Windows};

use super::history::History;

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
    /// Appends the window after tick `seq` to `windows`, as one more row for the model.
    ///
    /// A slot of the grid without an observation is a zero with mask 0.
    ///
    /// # Errors
    /// [`Unready`]; `windows` is then as it was.
    pub fn window(&self, seq: u64, spec: &ModelSpec, windows: &mut Windows) -> Result<(), Unready> {
        if spec.series != 1 {
            return Err(Unready::Several(spec.series));
        }
        let row = self.row(seq).ok_or(Unready::Expired)?;
        let was_masked = windows.mask.is_some();
        let lens =
            (windows.y.len(), windows.hist_exog.len(), windows.futr_exog.len(), windows.stat_exog.len());
        let filled = if self.is_in_order() && !self.has_grid() {
            self.from_rows(row, spec, windows)
        } else {
            self.from_slots(row, spec, windows)
        };
        if let Err(unready) = filled {
            windows.y.truncate(lens.0);
            windows.hist_exog.truncate(lens.1);
            windows.futr_exog.truncate(lens.2);
            windows.stat_exog.truncate(lens.3);
            match &mut windows.mask {
                Some(mask) if was_masked => mask.truncate(lens.0),
                mask => *mask = None,
            }
            return Err(unready);
        }
        windows.rows += 1;
        Ok(())
    }

    /// The usual case: the newest rows are the window.
    fn from_rows(&self, row: usize, spec: &ModelSpec, windows: &mut Windows) -> Result<(), Unready> {
        let want = spec.window;
        let first = (row + 1).checked_sub(want).ok_or_else(|| self.too_short(row + 1, want))?;
        self.check_whole(self.times()[first])?;
        let rows = first..=row;
        let y_len = windows.y.len();
        windows.y.extend(self.values().range(rows.clone()));
        mask_missing(windows, y_len);
        self.columns(rows.map(Some), row, spec, windows)
    }

    /// By time: late ticks stand in their places, and slots may be empty.
    fn from_slots(&self, row: usize, spec: &ModelSpec, windows: &mut Windows) -> Result<(), Unready> {
        let want = spec.window;
        let times = self.times();
        let mut order: Vec<usize> = (0..=row).collect();
        order.sort_unstable_by_key(|&row| times[row]);
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
            rows
        } else {
            let first = order.len().checked_sub(want).ok_or_else(|| self.too_short(order.len(), want))?;
            self.check_whole(times[order[first]])?;
            order[first..].iter().copied().map(Some).collect()
        };
        let y_len = windows.y.len();
        windows.y.extend(rows.iter().map(|row| row.map_or(f32::NAN, |row| self.values()[row])));
        mask_missing(windows, y_len);
        let last = order.last().copied().unwrap_or(row);
        self.columns(rows.into_iter(), last, spec, windows)
    }

    /// Refuses a window, from its oldest slot on, that once held an observation which is kept no more.
    fn check_whole(&self, oldest: i64) -> Result<(), Unready> {
        if self.evicted().is_some_and(|evicted| evicted >= oldest) { Err(Unready::Expired) } else { Ok(()) }
    }

    /// A series whose beginning is gone does not become longer by waiting.
    fn too_short(&self, got: usize, want: usize) -> Unready {
        if self.evicted().is_some() { Unready::Expired } else { Unready::Short { got, want } }
    }

    /// Everything beside the value; `last` is the row of the newest observation.
    fn columns(
        &self,
        rows: impl Iterator<Item = Option<usize>> + Clone,
        last: usize,
        spec: &ModelSpec,
        windows: &mut Windows,
    ) -> Result<(), Unready> {
        let y = &windows.y[windows.y.len() - spec.window..];
        let observed = windows.mask.as_ref().map(|mask| &mask[mask.len() - spec.window..]);
        if observed.is_some_and(|mask| mask.iter().all(|&m| m == 0.0)) || y.is_empty() {
            return Err(Unready::Empty);
        }
        let unknown = |name: &String| Unready::Column(name.clone());
        let column = |name: &String| self.column(name).ok_or_else(|| unknown(name));
        // A gap of the grid has no columns either: zeros, as for its value.
        let cell =
            |values: &std::collections::VecDeque<f32>, row: Option<usize>| row.map_or(0.0, |row| values[row]);
        let hist: Vec<_> = spec.hist_exog.iter().map(column).collect::<Result<_, _>>()?;
        let futr: Vec<_> = spec.futr_exog.iter().map(column).collect::<Result<_, _>>()?;
        for row in rows.clone() {
            for (name, values) in spec.hist_exog.iter().zip(&hist) {
                let value = cell(values, row);
                windows.hist_exog.push(if value.is_nan() { return Err(unknown(name)) } else { value });
            }
        }
        if !futr.is_empty() {
            for row in rows {
                for (name, values) in spec.futr_exog.iter().zip(&futr) {
                    let value = cell(values, row);
                    windows.futr_exog.push(if value.is_nan() { return Err(unknown(name)) } else { value });
                }
            }
            let last = self.first_seq() + last as u64;
            let ahead: Vec<_> = (spec.futr_exog.iter())
                .map(|name| self.future(name, last).and_then(|ahead| ahead.get(1..=spec.horizon)))
                .zip(&spec.futr_exog)
                .map(|(ahead, name)| ahead.ok_or_else(|| unknown(name)))
                .collect::<Result<_, _>>()?;
            for step in 0..spec.horizon {
                windows.futr_exog.extend(ahead.iter().map(|column| column[step]));
            }
        }
        for name in &spec.stat_exog {
            windows.stat_exog.push(self.constant(name).ok_or_else(|| unknown(name))?);
        }
        Ok(())
    }
}

/// Turns what was not observed among the values from `from` on into zeros, and says so in the mask.
fn mask_missing(windows: &mut Windows, from: usize) {
    let new = &mut windows.y[from..];
    if windows.mask.is_none() && new.iter().all(|value| !value.is_nan()) {
        return;
    }
    let mask = windows.mask.get_or_insert_with(|| vec![1.0; from]);
    for value in new {
        mask.push(if value.is_nan() { 0.0 } else { 1.0 });
        if value.is_nan() {
            *value = 0.0;
        }
    }
}
