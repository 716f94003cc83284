//! What was asked, on a grid of time: one mean rate for each cell, and nothing for a cell that nobody measured.

use std::collections::VecDeque;
use std::time::Duration;

use jiff::Timestamp;

/// Rates are below this; whatever says more is broken. Requests per second.
pub(super) const RATE_MAX: f64 = 1e9;

/// A cell of the grid, counted from 1970.
pub(super) type Cell = i64;

/// An observation or a reading of the clock that is not taken. Nothing has changed.
#[derive(Clone, Copy, Debug, PartialEq, thiserror::Error)]
pub enum Refused {
    /// No rate is like that: whoever measures acts.
    #[error("{0} is no rate of requests")]
    NoRate(f64),
    /// Its cell is over: whoever measures is late, or the clock was put back.
    #[error("an observation of {at} is too late, the cell of {newest} is being filled")]
    Late {
        /// When it was made.
        at: Timestamp,
        /// When the cell that is being filled begins.
        newest: Timestamp,
    },
    /// All that is known would be forgotten: the clock has jumped, or nothing was heard for as long as the history is.
    /// Whoever keeps the history begins a new one, or sets the clock.
    #[error("{at} is further from {newest} than the history is long")]
    FarAhead {
        /// What was said to be now.
        at: Timestamp,
        /// When the cell that is being filled begins.
        newest: Timestamp,
    },
}

/// Cells that are over, the oldest first, and the one that is being filled.
#[derive(Clone, Debug)]
pub(super) struct History {
    step_s: i64,
    len_max: usize,
    /// `ln(1 + rate)`: errors of traffic are shares of it.
    closed: VecDeque<Option<f64>>,
    open: Option<Open>,
}

#[derive(Clone, Copy, Debug)]
struct Open {
    cell: Cell,
    sum: f64,
    count: u32,
}

impl Open {
    fn mean(&self) -> Option<f64> {
        (self.count > 0).then(|| (self.sum / f64::from(self.count)).ln_1p())
    }
}

impl History {
    pub(super) fn new(step: Duration, len_max: usize) -> Self {
        Self { step_s: step.as_secs() as i64, len_max, closed: VecDeque::new(), open: None }
    }

    pub(super) fn cell(&self, at: Timestamp) -> Cell {
        at.as_second().div_euclid(self.step_s)
    }

    /// When a cell begins.
    pub(super) fn start(&self, cell: Cell) -> Timestamp {
        Timestamp::from_second(cell.saturating_mul(self.step_s)).unwrap_or(Timestamp::MAX)
    }

    /// How many cells end by `at`, the first of them the one that is being filled.
    ///
    /// # Errors
    /// Time has gone back, or so far ahead that nothing would be left.
    pub(super) fn due(&mut self, at: Timestamp) -> Result<usize, Refused> {
        let cell = self.cell(at);
        let open = *self.open.get_or_insert(Open { cell, sum: 0.0, count: 0 });
        let newest = self.start(open.cell);
        match usize::try_from(cell - open.cell) {
            Ok(due) if due <= self.len_max => Ok(due),
            Ok(_) => Err(Refused::FarAhead { at, newest }),
            Err(_) => Err(Refused::Late { at, newest }),
        }
    }

    /// Ends the cell that is being filled.
    pub(super) fn close(&mut self) -> Option<(Cell, Option<f64>)> {
        let open = self.open?;
        if self.closed.len() == self.len_max {
            self.closed.pop_front();
        }
        self.closed.push_back(open.mean());
        self.open = Some(Open { cell: open.cell + 1, sum: 0.0, count: 0 });
        Some((open.cell, open.mean()))
    }

    /// Adds to the cell that is being filled.
    pub(super) fn add(&mut self, rate: f64) {
        if let Some(open) = &mut self.open {
            open.sum += rate;
            open.count = open.count.saturating_add(1);
        }
    }

    /// Cells that are over and kept, known or not.
    pub(super) fn len(&self) -> usize {
        self.closed.len()
    }

    /// The newest cell that is over.
    pub(super) fn newest(&self) -> Option<Cell> {
        self.open.filter(|_| !self.closed.is_empty()).map(|open| open.cell - 1)
    }

    /// What is known of a cell that is over.
    pub(super) fn get(&self, cell: Cell) -> Option<f64> {
        let back = usize::try_from(self.newest()?.checked_sub(cell)?).ok()?;
        let at = self.closed.len().checked_sub(back + 1)?;
        self.closed[at]
    }

    /// The newest cell that something is known of.
    pub(super) fn newest_known(&self) -> Option<Cell> {
        let back = self.closed.iter().rev().position(Option::is_some)?;
        Some(self.newest()? - back as i64)
    }

    /// Cells that something is known of.
    pub(super) fn known_count(&self) -> usize {
        self.closed.iter().flatten().count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: i64 = 3600;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn observe(history: &mut History, second: i64, rate: f64) -> Result<(), Refused> {
        for _ in 0..history.due(at(second))? {
            history.close();
        }
        history.add(rate);
        Ok(())
    }

    #[test]
    fn a_cell_is_the_mean_of_what_was_seen_and_a_gap_is_a_gap() {
        let mut history = History::new(Duration::from_secs(3600), 4);
        assert_eq!((history.newest(), history.newest_known(), history.known_count()), (None, None, 0));
        observe(&mut history, 10, 1.0).unwrap();
        observe(&mut history, 20, 3.0).unwrap();
        observe(&mut history, 3 * HOUR, 8.0).unwrap();
        assert_eq!((history.newest(), history.newest_known(), history.known_count()), (Some(2), Some(0), 1));
        assert_eq!(history.get(0), Some(2f64.ln_1p()));
        // Two hours without a word are not hours without requests, and what is not over is not known.
        for cell in [-1, 1, 2, 3, i64::MIN, i64::MAX] {
            assert_eq!(history.get(cell), None);
        }
        observe(&mut history, 5 * HOUR, 0.0).unwrap();
        assert_eq!((history.get(3), history.get(0), history.closed.len()), (Some(8f64.ln_1p()), None, 4));
        history.close();
        assert_eq!(history.get(5), Some(0.0));
    }

    #[test]
    fn a_clock_that_jumps_changes_nothing() {
        let mut history = History::new(Duration::from_secs(3600), 4);
        observe(&mut history, 9 * HOUR, 1.0).unwrap();
        let newest = at(9 * HOUR);
        let early = at(9 * HOUR - 1);
        assert_eq!(history.due(early), Err(Refused::Late { at: early, newest }));
        let late = at(14 * HOUR);
        assert_eq!(history.due(late), Err(Refused::FarAhead { at: late, newest }));
        assert_eq!(history.due(at(14 * HOUR - 1)), Ok(4));
        assert_eq!(history.due(Timestamp::MAX).is_err(), history.due(Timestamp::MIN).is_err());
    }
}
