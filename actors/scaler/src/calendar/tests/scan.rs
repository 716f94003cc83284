//! Every minute of three years, by the clock on the wall and the published lists alone.

use std::collections::BTreeSet;

use jiff::civil::{Date, DateTime, Weekday};
use jiff::{SignedDuration, Timestamp};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

use super::holidays::{FX, GLOBEX, LONDON, NEW_YORK, TOKYO, XETRA, Year};
use super::{calendar, local, utc};
use crate::calendar::State;

const MINUTE: i64 = 60;

/// `closed` and `short` dates of a market.
struct Dates {
    closed: BTreeSet<Date>,
    short: BTreeSet<Date>,
}

impl Dates {
    fn new(years: &[Year]) -> Self {
        let dates = |year: &Year, list: &str| {
            let year = year.year;
            list.split_whitespace().map(|day| format!("{year}-{day}").parse().unwrap()).collect::<Vec<Date>>()
        };
        Self {
            closed: years.iter().flat_map(|year| dates(year, year.closed)).collect(),
            short: years.iter().flat_map(|year| dates(year, year.short)).collect(),
        }
    }

    fn trades(&self, date: Date) -> bool {
        !matches!(date.weekday(), Weekday::Saturday | Weekday::Sunday) && !self.closed.contains(&date)
    }
}

fn hm(hour: i32, minute: i32) -> i32 {
    hour * 60 + minute
}

fn minute_of(clock: DateTime) -> i32 {
    hm(i32::from(clock.hour()), i32::from(clock.minute()))
}

/// One session a day.
fn daily(dates: &Dates, clock: DateTime, opens: i32, closes: i32, short_closes: i32) -> bool {
    let closes = if dates.short.contains(&clock.date()) { short_closes } else { closes };
    dates.trades(clock.date()) && (opens..closes).contains(&minute_of(clock))
}

fn globex(dates: &Dates, clock: DateTime) -> bool {
    let minute = minute_of(clock);
    if (hm(16, 0)..hm(17, 0)).contains(&minute) {
        return false;
    }
    let evening = minute >= hm(17, 0);
    let day = if evening { clock.date().tomorrow().unwrap() } else { clock.date() };
    if !dates.trades(day) {
        return false;
    }
    if evening || !dates.short.contains(&day) {
        return true;
    }
    let day_before_or_after = [(7, 3), (11, 28), (11, 29), (11, 27), (12, 24)];
    let closes = match (day.year(), day.month(), day.day()) {
        (2025, 1, 9) => hm(8, 30),
        (2026, 4, 3) => hm(8, 15),
        // Independence Day itself, kept on a Friday; and Thanksgiving.
        (2026, 7, 3) | (2024, 11, 28) | (2025, 11, 27) => hm(12, 0),
        (2027, 11, 26) => hm(12, 15),
        (_, month, date) if day_before_or_after.contains(&(month, date)) => hm(12, 15),
        _ => hm(12, 0),
    };
    minute < closes
}

fn tokyo(dates: &Dates, clock: DateTime) -> bool {
    let closes = if clock.date() < Date::constant(2024, 11, 5) { hm(15, 0) } else { hm(15, 30) };
    let minute = minute_of(clock);
    let trading = (hm(9, 0)..hm(11, 30)).contains(&minute) || (hm(12, 30)..closes).contains(&minute);
    dates.trades(clock.date()) && trading
}

fn foreign_exchange(dates: &Dates, clock: DateTime) -> bool {
    let evening = minute_of(clock) >= hm(17, 0);
    dates.trades(if evening { clock.date().tomorrow().unwrap() } else { clock.date() })
}

/// Compares every minute of 2025 to 2027, and a thousand instants between minutes.
#[track_caller]
fn check(name: &str, is_open: impl Fn(DateTime) -> bool) {
    let calendar = calendar(name);
    let (_, known_until) = calendar.known_within();
    let first = local(&calendar, "2025-01-01T00:00");
    let end = known_until.min(utc("2028-01-01T00:00"));
    let minutes = (end.as_second() - first.as_second()) / MINUTE;
    let instant = |minute: i64| Timestamp::from_second(first.as_second() + minute * MINUTE).unwrap();
    let open: Vec<bool> =
        (0..minutes).map(|minute| is_open(calendar.zone().to_datetime(instant(minute)))).collect();
    let mut changes_at = vec![None; open.len()];
    for minute in (0..open.len() - 1).rev() {
        let next = minute + 1;
        changes_at[minute] =
            if open[next] == open[minute] { changes_at[next] } else { Some(instant(next as i64)) };
    }
    let mut rng = StdRng::seed_from_u64(7);
    let some = (0..1000).map(|_| {
        let minute = rng.random_range(0..open.len());
        (minute, SignedDuration::from_nanos(rng.random_range(0..60_000_000_000)))
    });
    let all = (0..open.len()).map(|minute| (minute, SignedDuration::ZERO));
    let mut checked = 0;
    for (minute, later) in all.chain(some.collect::<Vec<_>>()) {
        let at = instant(minute as i64) + later;
        let expected = match (open[minute], changes_at[minute]) {
            (false, opens_at) => State::Closed { opens_at },
            (true, Some(until)) => State::Open { until },
            // It stays open to the end of what was scanned.
            (true, None) => State::Open { until: known_until },
        };
        assert_eq!(calendar.state(at), Ok(expected), "{name} at {at}");
        checked += 1;
    }
    assert!(checked > 3 * 365 * 24 * 60);
}

#[test]
fn new_york_minute_by_minute() {
    let dates = Dates::new(&NEW_YORK);
    let is_open = |clock| daily(&dates, clock, hm(9, 30), hm(16, 0), hm(13, 0));
    check("xnys", is_open);
    check("xnas", is_open);
}

#[test]
fn london_minute_by_minute() {
    let dates = Dates::new(&LONDON);
    check("xlon", |clock| daily(&dates, clock, hm(8, 0), hm(16, 30), hm(12, 30)));
}

#[test]
fn frankfurt_minute_by_minute() {
    let dates = Dates::new(&XETRA);
    check("xetr", |clock| daily(&dates, clock, hm(9, 0), hm(17, 30), hm(14, 0)));
}

#[test]
fn tokyo_minute_by_minute() {
    let dates = Dates::new(&TOKYO);
    check("xtks", |clock| tokyo(&dates, clock));
}

#[test]
fn futures_minute_by_minute() {
    let dates = Dates::new(&GLOBEX);
    check("xcme", |clock| globex(&dates, clock));
}

#[test]
fn foreign_exchange_minute_by_minute() {
    let dates = Dates::new(&FX);
    check("fx", |clock| foreign_exchange(&dates, clock));
}

#[test]
fn crypto_minute_by_minute() {
    check("crypto", |_| true);
}
