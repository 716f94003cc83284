//! A data file as a row of ticks without an end: values in, ticks out.
//!
//! After its last day the file begins again, and time goes on: a second pass is the first one, later by the length of the
//! file, until that would be later than it is. From then on a tick is dated when it is sent: a replay is faster than the
//! days it was made of, and nobody takes ticks from the future for ever. So the ticks never end, every series keeps rising
//! in time, and what happens at the seam is a jump in values.

use peregrine_actors::Trace;
use peregrine_actors::series::{SeriesName, SeriesNameError, Tick, Timestamp};

use crate::moment::Moment;
use crate::series_store::SeriesStore;

/// The data cannot be replayed; the operator acts.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReplayError {
    /// There is nothing to replay.
    #[error("the data have no column `{0}`")]
    NoColumn(String),
    /// No series, or none with a row.
    #[error("the data have no rows to replay")]
    Empty,
    /// A stamp that says no time.
    #[error(
        "series `{id}`: `{ds}` is neither a date such as 2026-01-31 or 2026-01-31T15:04:05+01:00 nor a whole number of \
         seconds, or of what all of the file counts in, since 1970"
    )]
    Stamp {
        /// Which series.
        id: String,
        /// What stands there.
        ds: String,
    },
    /// No series can be called so.
    #[error("series `{id}`: {source}")]
    Id {
        /// What the file calls it.
        id: String,
        /// Why.
        source: SeriesNameError,
    },
    /// Behind the prefix none can.
    #[error("`{name}`: {source}")]
    Name {
        /// The prefix and the id.
        name: String,
        /// Why.
        source: SeriesNameError,
    },
}

/// Ticks in order of time, of all series, without an end.
#[derive(Clone, Debug)]
pub struct Replay {
    series: Vec<SeriesName>,
    rows: Vec<Row>,
    /// From the first row of a pass to that of the next, in nanoseconds.
    span: i64,
    pass: i64,
    next: usize,
    /// The newest moment, by pass and file, and how its ticks are dated.
    newest: Option<([i64; 2], i64)>,
}

#[derive(Clone, Copy, Debug)]
struct Row {
    at: i64,
    /// Place within the series.
    series: usize,
    /// `None`: the data have none.
    value: Option<f32>,
}

impl Replay {
    /// One column of all series, which are called by their ids behind a prefix.
    ///
    /// # Errors
    /// The first thing that cannot be replayed.
    pub fn new(data: &SeriesStore, prefix: &str, column: &str) -> Result<Self, ReplayError> {
        let (mut series, mut rows) = (Vec::new(), Vec::new());
        let unit = unit(data, column);
        for id in data.symbols() {
            let history = data.history(id, column).ok_or_else(|| ReplayError::NoColumn(column.to_owned()))?;
            let name = format!("{prefix}{id}");
            let name = SeriesName::new(&name).map_err(|source| match SeriesName::new(id) {
                Ok(_) => ReplayError::Name { name, source },
                Err(source) => ReplayError::Id { id: id.to_owned(), source },
            })?;
            for (ds, value) in history.skip_while(|(_, value)| value.is_none()) {
                let unknown = || ReplayError::Stamp { id: id.to_owned(), ds: ds.to_owned() };
                let at = nanoseconds(ds, unit).ok_or_else(unknown)?;
                rows.push(Row { at, series: series.len(), value });
            }
            // One that has no value has nothing to replay.
            if rows.last().is_some_and(|row: &Row| row.series == series.len()) {
                series.push(name);
            }
        }
        // Within a moment in the order of the series.
        rows.sort_by_key(|row| row.at);
        let (Some(first), Some(last)) = (rows.first(), rows.last()) else { return Err(ReplayError::Empty) };
        let gaps = rows.windows(2).map(|pair| pair[1].at - pair[0].at).filter(|&gap| gap > 0);
        let span = (last.at - first.at).saturating_add(gaps.min().unwrap_or(DAY));
        Ok(Self { series, rows, span, pass: 0, next: 0, newest: None })
    }

    /// Series that are replayed.
    #[must_use]
    pub fn series_count(&self) -> usize {
        self.series.len()
    }

    /// Rows of one pass.
    #[must_use]
    pub fn row_count(&self) -> usize {
        self.rows.len()
    }

    /// The ticks that come next, none of them later than `now` but by as many microseconds as it takes to rise.
    pub fn ticks(&mut self, count: usize, now: Timestamp) -> Vec<Tick> {
        (0..count).map(|_| self.tick(now)).collect()
    }

    fn tick(&mut self, now: Timestamp) -> Tick {
        let row = self.rows[self.next];
        let (moment, filed) =
            ([self.pass, row.at], self.pass.saturating_mul(self.span).saturating_add(row.at));
        let at = match self.newest {
            Some((newest, at)) if newest == moment => at,
            Some((_, at)) => filed.min(now.0.max(at + RISE)),
            None => filed.min(now.0),
        };
        self.newest = Some((moment, at));
        self.next += 1;
        if self.next == self.rows.len() {
            (self.next, self.pass) = (0, self.pass + 1);
        }
        Tick {
            series: self.series[row.series].clone(),
            at: Timestamp(at),
            value: row.value,
            hist_exog: Vec::new(),
            futr_exog: Vec::new(),
            stat_exog: Vec::new(),
            trace: Trace::default(),
        }
    }
}

const SECOND: i64 = 1_000_000_000;
/// From one moment to the next, at least: what a browser's milliseconds still tell apart.
const RISE: i64 = 1_000;
const DAY: i64 = 24 * 3600 * SECOND;

/// Nanoseconds of what the numbers of the data count: the longest unit in which all of them are times that a tick can
/// have. Of what exporters write only one is: today's milliseconds would be some fifty thousand years of seconds.
fn unit(data: &SeriesStore, column: &str) -> i64 {
    let stamps = data.symbols().filter_map(|id| data.history(id, column)).flatten();
    let number = |(ds, _): (&str, Option<f32>)| match Moment::parse(ds.trim()) {
        Some(Moment::Whole(number)) => Some(number.unsigned_abs()),
        _ => None,
    };
    let latest = stamps.filter_map(number).max().unwrap_or_default();
    let fits = |unit: &i64| latest <= u128::from((i64::MAX / unit).unsigned_abs());
    [SECOND, SECOND / 1_000, SECOND / 1_000_000, 1].into_iter().find(fits).unwrap_or(SECOND)
}

/// A date, or a whole number of `unit` nanoseconds.
fn nanoseconds(ds: &str, unit: i64) -> Option<i64> {
    let nanoseconds = match Moment::parse(ds.trim())? {
        Moment::Whole(number) => number.checked_mul(unit.into())?,
        Moment::Date(at) => at.as_nanosecond(),
        Moment::Number(_) => return None,
    };
    i64::try_from(nanoseconds).ok()
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    #[test]
    fn stamps_are_moments() {
        for (ds, want) in [
            ("1970-01-01", Some(0)),
            ("2023-10-11", Some(1_696_982_400)),
            ("2000-02-29", Some(951_782_400)),
            ("1969-12-31", Some(-86_400)),
            ("2026-03-01T12:34:56", Some(1_772_368_496)),
            ("2026-03-01 12:34:56Z", Some(1_772_368_496)),
            ("17", Some(17)),
            ("2023-02-29", None),
            ("1900-02-29", None),
            ("2023-13-01", None),
            ("2023-10", Some(1_696_118_400)),
            ("2026-03-01 12:34:56+00:00", Some(1_772_368_496)),
            ("2026-03-01T14:34:56+02:00", Some(1_772_368_496)),
            ("1677-01-01", None),
            ("2263-01-01", None),
            ("17.5", None),
            ("2023-10-11-12", None),
            ("2023-10-11T25:00:00", None),
            ("+023-10-11", None),
            ("9999999999999", None),
            ("soon", None),
            ("", None),
        ] {
            assert_eq!(nanoseconds(ds, SECOND), want.map(|seconds: i64| seconds * SECOND), "{ds}");
        }
    }

    #[test]
    fn numbers_count_what_all_of_the_file_can_count() {
        let (first, second) = (1_772_755_200, 1_772_755_201);
        for unit in [SECOND, SECOND / 1_000, SECOND / 1_000_000, 1] {
            let count = |seconds: i64| seconds * (SECOND / unit);
            let rows = format!("A,{},10\nA,{},11\nB,-1,20\nC,2026-03-06,21\n", count(first), count(second));
            let mut replay = Replay::new(&data(&rows), "", "v").unwrap();
            let at: Vec<_> = replay.ticks(4, Timestamp(i64::MAX)).into_iter().map(|tick| tick.at.0).collect();
            assert_eq!(at, [-unit, first * SECOND, first * SECOND, second * SECOND], "{rows}");
        }
        let far = data("A,9223372036854775808,1\n");
        assert!(matches!(Replay::new(&far, "", "v"), Err(ReplayError::Stamp { .. })));
    }

    #[test]
    fn a_pass_is_in_order_of_time_and_the_next_goes_on() {
        let mut replay = Replay::new(&data("A,1,10\nA,2,11\nA,4,12\nB,2,20\nB,3,21\n"), "fx/", "v").unwrap();
        assert_eq!((replay.series_count(), replay.row_count()), (2, 5));
        let ticks: Vec<_> = replay
            .ticks(12, Timestamp(SECOND * 12))
            .into_iter()
            .map(|tick| (tick.series.to_string(), tick.at.0 / SECOND, tick.value.unwrap()))
            .collect();
        let pass = |after: i64| {
            [("A", 1, 10.0), ("A", 2, 11.0), ("B", 2, 20.0), ("B", 3, 21.0), ("A", 4, 12.0)]
                .map(|(id, at, value)| (format!("fx/{id}"), at + after, value))
        };
        assert_eq!(ticks[..5], pass(0));
        assert_eq!(ticks[5..10], pass(4));
        assert_eq!(ticks[10..], pass(8)[..2]);
    }

    #[test]
    fn a_value_that_is_missing_is_a_tick_without_one() {
        let mut replay = Replay::new(&data("A,1,\nA,2,11\nA,3,\nA,4,13\nA,5,\nB,1,\n"), "", "v").unwrap();
        assert_eq!((replay.series_count(), replay.row_count()), (1, 3));
        let ticks = replay.ticks(3, Timestamp(SECOND * 12)).into_iter();
        let ticks: Vec<_> = ticks.map(|tick| (tick.at.0 / SECOND, tick.value)).collect();
        assert_eq!(ticks, [(2, Some(11.0)), (3, None), (4, Some(13.0))]);
    }

    #[test]
    fn what_the_file_dates_later_than_it_is_is_dated_when_it_is_sent() {
        let mut replay = Replay::new(&data("A,1,10\nB,1,20\nA,5,11\nB,6,21\n"), "", "v").unwrap();
        let mut next =
            |count, now: i64| replay.ticks(count, Timestamp(now)).into_iter().map(|tick| tick.at.0);
        assert_eq!(next(2, 4 * SECOND).collect::<Vec<_>>(), [SECOND, SECOND]);
        assert_eq!(next(2, 4 * SECOND).collect::<Vec<_>>(), [4 * SECOND, 4 * SECOND + RISE]);
        // The clock is set back: time rises all the same. Those of one moment stay together.
        assert_eq!(next(2, 3 * SECOND).collect::<Vec<_>>(), [4 * SECOND + 2 * RISE; 2]);
        assert_eq!(next(1, 9 * SECOND).collect::<Vec<_>>(), [9 * SECOND]);
    }

    #[test]
    fn time_rises_in_every_series_of_the_data_that_ship_and_never_runs_ahead() {
        let data =
            SeriesStore::load(std::path::Path::new("models/portfolio_small.csv"), &["logrv5"]).unwrap();
        let mut replay = Replay::new(&data, "", "logrv5").unwrap();
        let (count, rows) = (replay.series_count(), replay.row_count());
        assert_eq!((count, rows), (12, 12 * 780));
        let mut newest = std::collections::HashMap::new();
        // A day of twenty a second: more passes than fit the years that a stamp can say, were they dated by the file.
        let begun = nanoseconds("2026-11-30", SECOND).unwrap();
        for turn in 0..24 * 3600 * 20 {
            let now = Timestamp(begun + turn * SECOND / 20);
            let tick = replay.ticks(1, now).pop().unwrap();
            assert!(tick.at <= now, "{tick:?}");
            let before = newest.insert(tick.series.clone(), tick.at);
            assert!(before < Some(tick.at), "{tick:?}");
        }
    }

    #[test]
    fn what_cannot_be_replayed_is_named() {
        check("A,1,1\n", "", "w", "the data have no column `w`");
        check("", "", "v", "the data have no rows to replay");
        check(
            "A,soon,1\n",
            "",
            "v",
            "series `A`: `soon` is neither a date such as 2026-01-31 or 2026-01-31T15:04:05+01:00 nor a whole number of \
             seconds, or of what all of the file counts in, since 1970",
        );
        check(
            "A,1,1\n",
            "*",
            "v",
            "`*A`: the name of a series has 1 to 128 bytes, no control characters and no `*`",
        );
    }

    #[track_caller]
    fn check(rows: &str, prefix: &str, column: &str, want: &str) {
        assert_eq!(Replay::new(&data(rows), prefix, column).unwrap_err().to_string(), want);
    }

    fn data(rows: &str) -> SeriesStore {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        write!(file, "unique_id,ds,v\n{rows}").unwrap();
        SeriesStore::load(file.path(), &["v"]).unwrap()
    }
}
