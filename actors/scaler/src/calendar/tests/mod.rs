//! Calendars against what exchanges have published, and against a clock that is read minute by minute.

mod files;
mod holidays;
mod scan;
mod states;

use std::sync::{Arc, LazyLock};

use jiff::Timestamp;
use jiff::civil::DateTime;

use super::{Calendar, Calendars};

static CALENDARS: LazyLock<Calendars> = LazyLock::new(Calendars::built_in);

#[track_caller]
fn calendar(name: &str) -> Arc<Calendar> {
    Arc::clone(CALENDARS.get(name).unwrap())
}

#[track_caller]
fn utc(text: &str) -> Timestamp {
    format!("{text}Z").parse().unwrap()
}

/// The instant at which the clock of a market says so.
#[track_caller]
fn local(calendar: &Calendar, text: &str) -> Timestamp {
    calendar.zone().to_timestamp(text.parse::<DateTime>().unwrap()).unwrap()
}
