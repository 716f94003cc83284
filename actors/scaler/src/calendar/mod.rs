//! Sessions of markets: whether one is open, until when, and when the next one opens.
//!
//! A calendar is a file ([`Calendars`]); here it is a list of instants, made once from its zone, its weekly sessions, its
//! holidays and its early closes. It knows the years that its file speaks of. Of any other instant it says
//! [`NotKnown`], which is neither open nor closed: who asks has a rule for that.

mod file;
mod rule;
mod set;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::OnceLock;
use std::time::Duration;

use jiff::civil::{Date, Time, Weekday};
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};

pub use file::CalendarError;
pub use set::{Calendars, UnknownCalendar};

use file::{MINUTES_A_DAY, Parts};

/// What a market does at an instant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// It trades.
    Open {
        /// The first instant at which it does not, or at which nobody knows any more.
        until: Timestamp,
    },
    /// It does not.
    Closed {
        /// When it does again; `None` where that is in a year that the calendar does not know.
        opens_at: Option<Timestamp>,
    },
}

/// An instant in a year whose holidays the calendar does not know. The operator extends the file.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("calendar {calendar} knows the years {first} to {last} and not {at}")]
pub struct NotKnown {
    /// Whose.
    pub calendar: String,
    /// The first year that it knows.
    pub first: i16,
    /// The last one.
    pub last: i16,
    /// What was asked for.
    pub at: Timestamp,
}

/// From an opening to the next close. Sessions that touch are one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Session {
    /// The first instant of it.
    pub opens: Timestamp,
    /// The first instant after it.
    pub closes: Timestamp,
}

/// What trading day a date is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum DayKind {
    /// A day with all of its sessions.
    Full,
    /// One that closes early.
    Short,
    /// A day of the week, or a holiday, without sessions.
    Closed,
}

/// The sessions of one market.
#[derive(Clone, Debug)]
pub struct Calendar {
    name: String,
    parts: Parts,
    /// Made of them when it is first asked for: of many calendars a node follows few.
    laid_out: OnceLock<LaidOut>,
}

/// The years that a file speaks of.
#[derive(Clone, Debug)]
struct LaidOut {
    /// Sorted; no two touch.
    sessions: Vec<Session>,
    special: BTreeMap<Date, Special>,
    known_from: Timestamp,
    known_until: Timestamp,
}

/// A date that is not like others of its weekday.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Special {
    name: String,
    /// In minutes; `None` for a holiday.
    closes: Option<i32>,
}

impl Calendar {
    /// Lowercase, as its file is called.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Where its clock hangs.
    #[must_use]
    pub fn zone(&self) -> &TimeZone {
        &self.parts.zone
    }

    /// Whether the market trades.
    ///
    /// # Errors
    /// The year is not known.
    pub fn state(&self, at: Timestamp) -> Result<State, NotKnown> {
        self.known(at)?;
        let (sessions, after) = (&self.laid_out().sessions, self.after(at));
        let now = after.checked_sub(1).map(|before| sessions[before]);
        Ok(match now {
            Some(session) if at < session.closes => State::Open { until: session.closes },
            _ => State::Closed { opens_at: sessions.get(after).map(|next| next.opens) },
        })
    }

    /// Whether the market trades, in one word.
    ///
    /// # Errors
    /// The year is not known.
    pub fn is_open(&self, at: Timestamp) -> Result<bool, NotKnown> {
        self.state(at).map(|state| matches!(state, State::Open { .. }))
    }

    /// How long until it opens next, also while it trades; `None` where that is in a year that is not known, and where
    /// it never closes.
    ///
    /// # Errors
    /// The year is not known.
    pub fn until_open(&self, at: Timestamp) -> Result<Option<Duration>, NotKnown> {
        self.known(at)?;
        let next = self.laid_out().sessions.get(self.after(at));
        Ok(next.map(|next| next.opens.duration_since(at).try_into().unwrap_or(Duration::ZERO)))
    }

    /// The session that goes on at that instant, if one does, and those after it; they end with the years that are
    /// known.
    pub fn next_sessions(&self, at: Timestamp) -> impl Iterator<Item = Session> {
        let sessions = &self.laid_out().sessions;
        let first = sessions.partition_point(|session| session.closes <= at);
        sessions[first..].iter().copied()
    }

    /// What trading day it is; `None` for a year that is not known. A session that crosses midnight is of the day that
    /// it closes on.
    #[must_use]
    pub fn day(&self, date: Date) -> Option<DayKind> {
        if !(self.parts.first..=self.parts.last).contains(&date.year()) {
            return None;
        }
        let as_it_is = || self.parts.of_day(date, self.laid_out().special.get(&date));
        Some(match as_it_is().next() {
            None => DayKind::Closed,
            Some(_) if as_it_is().eq(self.parts.of_day(date, None)) => DayKind::Full,
            Some(_) => DayKind::Short,
        })
    }

    /// Why a date is not like others of its weekday.
    #[must_use]
    pub fn occasion(&self, date: Date) -> Option<&str> {
        self.laid_out().special.get(&date).map(|special| special.name.as_str())
    }

    /// From and until when it answers.
    #[must_use]
    pub fn known_within(&self) -> (Timestamp, Timestamp) {
        (self.laid_out().known_from, self.laid_out().known_until)
    }

    fn known(&self, at: Timestamp) -> Result<(), NotKnown> {
        let (from, until) = self.known_within();
        if (from..until).contains(&at) {
            return Ok(());
        }
        let (first, last) = (self.parts.first, self.parts.last);
        Err(NotKnown { calendar: self.name.clone(), first, last, at })
    }

    /// The first session that opens later.
    fn after(&self, at: Timestamp) -> usize {
        self.laid_out().sessions.partition_point(|session| session.opens <= at)
    }

    fn new(name: String, parts: Parts) -> Self {
        Self { name, parts, laid_out: OnceLock::new() }
    }

    fn laid_out(&self) -> &LaidOut {
        self.laid_out.get_or_init(|| LaidOut::of(&self.parts))
    }
}

/// What is laid out follows from the rest.
impl PartialEq for Calendar {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name && self.parts == other.parts
    }
}

impl LaidOut {
    fn of(parts: &Parts) -> Self {
        let special = parts.special_days();
        let mut sessions = Vec::new();
        let mut date = Date::constant(parts.first, 1, 1);
        while date.year() <= parts.last {
            for (opens, closes) in parts.of_day(date, special.get(&date)) {
                sessions.push(Session { opens: parts.at(date, opens), closes: parts.at(date, closes) });
            }
            date = date.tomorrow().expect("years are below 2200");
        }
        let known_from = parts.at(Date::constant(parts.first, 1, 1), 0);
        // What opens on the last evening is of a day that is not known.
        let overnight = parts.sessions.iter().map(|session| session.opens).min().unwrap_or(0).min(0);
        let known_until = parts.at(Date::constant(parts.last + 1, 1, 1), overnight);
        Self { sessions: merge(sessions), special, known_from, known_until }
    }
}

/// Sorted, and those that touch or overlap made one.
fn merge(mut sessions: Vec<Session>) -> Vec<Session> {
    // A clock put forward can leave a session of no length.
    sessions.retain(|session| session.opens < session.closes);
    sessions.sort_unstable_by_key(|session| session.opens);
    let mut merged: Vec<Session> = Vec::new();
    for session in sessions {
        match merged.last_mut() {
            Some(last) if session.opens <= last.closes => last.closes = last.closes.max(session.closes),
            _ => merged.push(session),
        }
    }
    merged
}

impl Parts {
    /// Opening and close of each session of a trading day, in minutes from its midnight.
    fn of_day(&self, date: Date, special: Option<&Special>) -> impl Iterator<Item = (i32, i32)> {
        let closes_at = match special {
            Some(Special { closes: None, .. }) => i32::MIN,
            Some(Special { closes: Some(early), .. }) => *early,
            None => i32::MAX,
        };
        let sessions = self.sessions.iter().filter(move |session| session.is_on(date));
        sessions
            .map(move |session| (session.opens, session.closes.min(closes_at)))
            .filter(|(opens, closes)| opens < closes)
    }

    /// A holiday is closed whatever else the day is; of two early closes the earlier holds.
    fn special_days(&self) -> BTreeMap<Date, Special> {
        let mut special = BTreeMap::new();
        // A rule may move its day over the end of a year.
        for year in self.first - 1..=self.last + 1 {
            let holidays = self.holidays.iter().map(|day| (day, None));
            let early = self.early_closes.iter().map(|(day, closes)| (day, Some(*closes)));
            for (day, closes) in holidays.chain(early) {
                let Some(date) = day.rule.day_of(year) else { continue };
                let new = Special { name: day.name.clone(), closes };
                let old = special.entry(date).or_insert_with(|| new.clone());
                if new.closes.unwrap_or(i32::MIN) < old.closes.unwrap_or(i32::MIN) {
                    *old = new;
                }
            }
        }
        special
    }

    /// The instant of a local time, given in minutes from the midnight that a date begins with. A time that the clock
    /// jumps over is as much later; of one that comes twice it is the first.
    fn at(&self, date: Date, minutes: i32) -> Timestamp {
        let date = date
            .saturating_add(SignedDuration::from_hours(24 * i64::from(minutes.div_euclid(MINUTES_A_DAY))));
        let minute = minutes.rem_euclid(MINUTES_A_DAY);
        let time = Time::constant((minute / 60) as i8, (minute % 60) as i8, 0, 0);
        self.zone.to_timestamp(date.to_datetime(time)).expect("years are between 1970 and 2200")
    }
}

/// The weekdays that have a session, as bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Weekdays(u8);

impl Weekdays {
    fn holds(self, weekday: Weekday) -> bool {
        self.0 >> weekday.to_monday_zero_offset() & 1 == 1
    }
}
