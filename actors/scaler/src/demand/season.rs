//! The seasonal naive forecast: at this hour of such a day it will be as it was.
//!
//! Such a day is one of the same kind in the market's calendar, and this hour is one of the market's clock, so that a
//! clock put forward or a holiday is no surprise. Of up to three such days the median counts: yesterday's news is not
//! tomorrow's, and Fridays may have ways of their own. The interval comes from its own past errors near that hour, as
//! conformal prediction has it: the k-th smallest of n errors, `k = ⌈(n + 1) · level⌉`.

use std::collections::VecDeque;
use std::sync::Arc;

use jiff::ToSpan;
use jiff::civil::{Date, DateTime, Weekday};
use jiff::tz::TimeZone;

use crate::calendar::{Calendar, DayKind};

use super::history::{Cell, History};
use super::model::{Band, Failure};

/// Days that are looked back for one of the same kind.
const DAYS_BACK: i32 = 35;
/// Days that count.
const PRECEDENTS: usize = 3;
/// Errors of times of day that are no further off say how far off this time will be.
const NEAR_MINUTES: i32 = 60;
const MINUTES_A_DAY: i32 = 24 * 60;

/// Whose days and hours demand follows.
#[derive(Clone, Debug)]
pub enum Season {
    /// Those of a market. In years that its calendar does not know, weekdays are trading days.
    Market(Arc<Calendar>),
    /// Weekdays and weekends by the clock of a zone.
    Week(TimeZone),
}

impl Season {
    fn zone(&self) -> &TimeZone {
        match self {
            Self::Market(calendar) => calendar.zone(),
            Self::Week(zone) => zone,
        }
    }

    fn kind(&self, date: Date) -> Kind {
        let day = match self {
            Self::Market(calendar) => calendar.day(date),
            Self::Week(_) => None,
        };
        match (day, date.weekday()) {
            (Some(DayKind::Short), _) => Kind::Short,
            (Some(DayKind::Full), _) => Kind::Trading,
            (_, Weekday::Saturday) => Kind::Saturday,
            (_, Weekday::Sunday) => Kind::Sunday,
            (Some(DayKind::Closed), _) => Kind::Holiday,
            (None, _) => Kind::Trading,
        }
    }
}

/// Days of one kind are alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Trading,
    Short,
    Saturday,
    Sunday,
    Holiday,
}

impl Kind {
    /// What a day is like when there was none of its kind.
    fn nearest(self) -> Option<Self> {
        match self {
            Self::Short => Some(Self::Trading),
            Self::Holiday | Self::Saturday => Some(Self::Sunday),
            Self::Sunday => Some(Self::Saturday),
            Self::Trading => None,
        }
    }
}

/// The forecast, and the errors that it has made.
#[derive(Clone, Debug)]
pub(super) struct SeasonalNaive {
    season: Season,
    /// Quantile of the upper bound.
    upper: f64,
    /// Errors that are kept, and as many as there must be.
    errors_max: usize,
    errors_min: usize,
    /// The oldest first.
    errors: VecDeque<Error>,
    /// What it had said of each cell of the history.
    said: VecDeque<Option<f64>>,
}

#[derive(Clone, Copy, Debug)]
struct Error {
    kind: Kind,
    /// Of the day, by the market's clock.
    minute: i32,
    /// The truth less the forecast.
    above: f64,
}

impl SeasonalNaive {
    pub(super) fn new(season: Season, upper: f64, day_steps: usize, history_len: usize) -> Self {
        // With fewer errors the quantile lies outside of them; and a day has hours of every sort.
        let errors_min = ((upper / (1.0 - upper)).ceil() as usize).max(day_steps);
        let errors_max = history_len.max(errors_min);
        Self { season, upper, errors_max, errors_min, errors: VecDeque::new(), said: VecDeque::new() }
    }

    /// Compares what it would have said with a cell that is now over, the newest of `history`.
    pub(super) fn learn(&mut self, history: &History, cell: Cell, truth: Option<f64>) {
        let clock = self.clock(history, cell);
        let said = self.median(history, cell, cell - 1);
        if let (Some(said), Some(truth)) = (&said, truth)
            && said.alike
        {
            if self.errors.len() == self.errors_max {
                self.errors.pop_front();
            }
            let kind = self.season.kind(clock.date());
            self.errors.push_back(Error { kind, minute: minute(clock), above: truth - said.median });
        }
        if self.said.len() == self.errors_max {
            self.said.pop_front();
        }
        self.said.push_back(said.map(|said| said.median));
    }

    /// What it had said of one of the latest cells, `back` of them before the newest.
    pub(super) fn said(&self, back: usize) -> Option<f64> {
        self.said.len().checked_sub(back + 1).and_then(|at| self.said[at])
    }

    /// The next cells after `origin`.
    pub(super) fn forecast(
        &self,
        history: &History,
        origin: Cell,
        horizon: usize,
    ) -> Result<Vec<Band>, Failure> {
        let (have, need) = (self.errors.len(), self.errors_min);
        if have < need {
            return Err(Failure::ShortHistory { have, need });
        }
        let band = |lead: usize| {
            let cell = origin + lead as i64;
            let median =
                self.median(history, cell, origin).ok_or(Failure::ShortHistory { have: 0, need: 1 })?;
            Ok(self.band(self.clock(history, cell), median.median))
        };
        (1..=horizon).map(band).collect()
    }

    /// The middle of what was at this time of the latest days like that one.
    pub(super) fn median(&self, history: &History, cell: Cell, origin: Cell) -> Option<Said> {
        let clock = self.clock(history, cell);
        let kind = self.season.kind(clock.date());
        let found = self.precedents(history, clock, origin, |other| other == kind);
        if let Some(median) = middle(found) {
            return Some(Said { median, alike: true });
        }
        let near = kind.nearest().map(|near| self.precedents(history, clock, origin, |other| other == near));
        let any = || middle(self.precedents(history, clock, origin, |_| true));
        near.and_then(middle).or_else(any).map(|median| Said { median, alike: false })
    }

    /// Of the latest days that are wanted: the three latest, or the two latest and the same weekday of a week ago.
    fn precedents(
        &self,
        history: &History,
        clock: DateTime,
        origin: Cell,
        wanted: impl Fn(Kind) -> bool,
    ) -> Vec<f64> {
        let mut found = Vec::with_capacity(PRECEDENTS);
        for back in 1..=DAYS_BACK {
            let Ok(date) = clock.date().checked_sub(back.days()) else { break };
            let is_due = found.len() < PRECEDENTS - 1 || back % 7 == 0 || back > 7;
            if !is_due || !wanted(self.season.kind(date)) {
                continue;
            }
            let Ok(start) = self.season.zone().to_timestamp(date.to_datetime(clock.time())) else { continue };
            let cell = history.cell(start);
            if let Some(value) = history.get(cell).filter(|_| cell <= origin) {
                found.push(value);
                if found.len() == PRECEDENTS {
                    break;
                }
            }
        }
        found
    }

    fn band(&self, clock: DateTime, median: f64) -> Band {
        let kind = self.season.kind(clock.date());
        let near = |error: &&Error| {
            let apart = (error.minute - minute(clock)).abs();
            error.kind == kind && apart.min(MINUTES_A_DAY - apart) <= NEAR_MINUTES
        };
        let above = |errors: Vec<&Error>| errors.into_iter().map(|error| error.above).collect::<Vec<f64>>();
        let least = (self.upper / (1.0 - self.upper)).ceil() as usize;
        let mut errors = above(self.errors.iter().filter(near).collect());
        if errors.len() < least {
            errors = above(self.errors.iter().filter(|error| error.kind == kind).collect());
        }
        if errors.len() < least {
            errors = above(self.errors.iter().collect());
        }
        let rank = (((errors.len() + 1) as f64 * self.upper).ceil() as usize).clamp(1, errors.len());
        let from_below = errors.len() - rank;
        let lowest = *errors.select_nth_unstable_by(from_below, f64::total_cmp).1;
        let highest = *errors.select_nth_unstable_by(rank - 1, f64::total_cmp).1;
        Band { lower: median + lowest, median, upper: median + highest }.ordered()
    }

    fn clock(&self, history: &History, cell: Cell) -> DateTime {
        self.season.zone().to_datetime(history.start(cell))
    }
}

/// What the season says of a cell.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Said {
    pub(super) median: f64,
    /// From days of the same kind.
    alike: bool,
}

fn minute(clock: DateTime) -> i32 {
    i32::from(clock.hour()) * 60 + i32::from(clock.minute())
}

fn middle(mut values: Vec<f64>) -> Option<f64> {
    values.sort_unstable_by(f64::total_cmp);
    let at = values.len() / 2;
    match (values.len(), values.len() % 2) {
        (0, _) => None,
        (_, 1) => Some(values[at]),
        _ => Some(f64::midpoint(values[at - 1], values[at])),
    }
}
