//! What a calendar says at one instant.

use std::time::Duration;

use super::{calendar, local, utc};
use crate::calendar::State;

/// Local times: what the market does at `at`, and when that changes.
#[track_caller]
fn check(name: &str, at: &str, open: bool, changes_at: &str) {
    let calendar = calendar(name);
    let changes_at = local(&calendar, changes_at);
    let expected =
        if open { State::Open { until: changes_at } } else { State::Closed { opens_at: Some(changes_at) } };
    assert_eq!(calendar.state(local(&calendar, at)), Ok(expected));
}

/// The same in coordinated time, where it matters which clock was put forward.
#[track_caller]
fn check_utc(name: &str, at: &str, open: bool, changes_at: &str) {
    let changes_at = utc(changes_at);
    let expected =
        if open { State::Open { until: changes_at } } else { State::Closed { opens_at: Some(changes_at) } };
    assert_eq!(calendar(name).state(utc(at)), Ok(expected));
}

#[test]
fn an_opening_is_open_and_a_close_is_closed() {
    check("xnys", "2026-11-25T09:29:59.999999999", false, "2026-11-25T09:30");
    check("xnys", "2026-11-25T09:30", true, "2026-11-25T16:00");
    check("xnys", "2026-11-25T15:59:59.999999999", true, "2026-11-25T16:00");
    // Thanksgiving comes between.
    check("xnys", "2026-11-25T16:00", false, "2026-11-27T09:30");
    check("xnys", "2026-11-27T12:59", true, "2026-11-27T13:00");
    check("xnys", "2026-11-27T13:00", false, "2026-11-30T09:30");
}

#[test]
fn tokyo_has_lunch() {
    check("xtks", "2026-11-27T11:29", true, "2026-11-27T11:30");
    check("xtks", "2026-11-27T11:30", false, "2026-11-27T12:30");
    check("xtks", "2026-11-27T12:30", true, "2026-11-27T15:30");
    check("xtks", "2024-11-01T14:59", true, "2024-11-01T15:00");
    check("xtks", "2024-11-05T14:59", true, "2024-11-05T15:30");
    // Golden Week, and the days around the New Year.
    check("xtks", "2026-05-01T15:30", false, "2026-05-07T09:00");
    check("xtks", "2026-12-30T16:00", false, "2027-01-04T09:00");
}

#[test]
fn futures_trade_through_the_night() {
    check("xcme", "2026-11-22T16:59", false, "2026-11-22T17:00");
    check("xcme", "2026-11-22T17:00", true, "2026-11-23T16:00");
    check("xcme", "2026-11-23T00:00", true, "2026-11-23T16:00");
    check("xcme", "2026-11-23T16:00", false, "2026-11-23T17:00");
    // Thanksgiving: a halt at noon, then the day after, which is short too.
    check("xcme", "2026-11-26T12:00", false, "2026-11-26T17:00");
    check("xcme", "2026-11-26T23:00", true, "2026-11-27T12:15");
    check("xcme", "2026-11-27T12:15", false, "2026-11-29T17:00");
    // Christmas is closed; what opens on its evening is of the next day.
    check("xcme", "2025-12-24T12:15", false, "2025-12-25T17:00");
    check("xcme", "2025-12-25T17:00", true, "2025-12-26T16:00");
    check("xcme", "2026-04-03T08:15", false, "2026-04-05T17:00");
}

#[test]
fn the_week_of_foreign_exchange_is_one_session() {
    check("fx", "2026-11-22T17:00", true, "2026-11-27T17:00");
    check("fx", "2026-11-25T17:00", true, "2026-11-27T17:00");
    check("fx", "2026-11-27T17:00", false, "2026-11-29T17:00");
    check("fx", "2025-12-23T12:00", true, "2025-12-24T17:00");
    check("fx", "2025-12-24T17:00", false, "2025-12-25T17:00");
}

#[test]
fn crypto_is_open_as_long_as_anybody_knows() {
    check_utc("crypto", "2000-01-01T00:00", true, "2060-01-01T00:00");
    check_utc("crypto", "2028-02-29T23:59", true, "2060-01-01T00:00");
}

/// America puts its clocks forward three weeks before Europe, and back one week after.
#[test]
fn between_the_clock_changes_oceans_are_an_hour_narrower() {
    check_utc("xnys", "2026-03-06T14:00", false, "2026-03-06T14:30");
    check_utc("xnys", "2026-03-09T13:00", false, "2026-03-09T13:30");
    check_utc("xlon", "2026-03-09T10:00", true, "2026-03-09T16:30");
    check_utc("xetr", "2026-03-09T10:00", true, "2026-03-09T16:30");
    check_utc("xlon", "2026-03-30T10:00", true, "2026-03-30T15:30");
    check_utc("xetr", "2026-03-30T10:00", true, "2026-03-30T15:30");

    check_utc("xlon", "2026-10-23T10:00", true, "2026-10-23T15:30");
    check_utc("xlon", "2026-10-26T10:00", true, "2026-10-26T16:30");
    check_utc("xnys", "2026-10-26T10:00", false, "2026-10-26T13:30");
    check_utc("xnys", "2026-11-02T10:00", false, "2026-11-02T14:30");
    // The week of futures that begins after the change begins an hour earlier in Greenwich.
    check_utc("xcme", "2026-03-08T21:59", false, "2026-03-08T22:00");
    check_utc("xcme", "2026-11-01T22:00", false, "2026-11-01T23:00");
    // Tokyo's clocks stay.
    check_utc("xtks", "2026-03-09T00:00", true, "2026-03-09T02:30");
    check_utc("xtks", "2026-07-01T00:00", true, "2026-07-01T02:30");
}

#[test]
fn a_leap_day_is_a_day() {
    check("xnys", "2024-02-29T10:00", true, "2024-02-29T16:00");
    check("xlon", "2024-02-29T10:00", true, "2024-02-29T16:30");
}

#[test]
fn years_that_are_not_known_are_neither_open_nor_closed() {
    let calendar = calendar("xnys");
    for at in ["2023-12-29T15:00", "2028-01-03T15:00"] {
        let error = calendar.state(utc(at)).unwrap_err();
        assert_eq!((error.first, error.last, error.at), (2024, 2027, utc(at)));
        assert!(error.to_string().starts_with("calendar xnys knows the years 2024 to 2027 and not 20"));
        assert!(calendar.is_open(utc(at)).is_err());
        assert!(calendar.until_open(utc(at)).is_err());
    }
    assert_eq!(calendar.day("2023-12-29".parse().unwrap()), None);
    assert_eq!(calendar.day("2028-01-03".parse().unwrap()), None);
    // The last evening of the last year: closed, and nobody knows until when.
    let last = local(&calendar, "2027-12-31T16:00");
    assert_eq!(calendar.state(last), Ok(State::Closed { opens_at: None }));
    assert_eq!(calendar.until_open(last), Ok(None));
    assert_eq!(calendar.next_sessions(last).count(), 0);
}

/// What opens at 17:00 on New Year's Eve would be the session of a day in a year that is not known.
#[test]
fn the_last_evening_belongs_to_the_next_year() {
    let futures = calendar("xcme");
    assert!(futures.state(local(&futures, "2027-12-31T16:59")).is_ok());
    assert!(futures.state(local(&futures, "2027-12-31T17:00")).is_err());
    assert!(futures.state(local(&futures, "2024-01-01T00:00")).is_ok());
}

#[test]
fn until_open_counts_down() {
    let calendar = calendar("xnys");
    let until = |at: &str| calendar.until_open(local(&calendar, at)).unwrap();
    assert_eq!(until("2026-11-25T09:15"), Some(Duration::from_secs(15 * 60)));
    // While it is open until it opens again: Thursday is Thanksgiving.
    let to_friday = |minutes: u64| Some(Duration::from_secs(minutes * 60));
    assert_eq!(until("2026-11-25T09:30"), to_friday(48 * 60));
    assert_eq!(until("2026-11-25T12:00"), to_friday(45 * 60 + 30));
    assert_eq!(until("2026-11-25T16:00"), to_friday(41 * 60 + 30));
    assert_eq!(calendar.is_open(local(&calendar, "2026-11-25T12:00")), Ok(true));
    assert_eq!(calendar.is_open(local(&calendar, "2026-11-26T12:00")), Ok(false));
}

#[test]
fn sessions_come_in_order_from_the_one_that_goes_on() {
    let calendar = calendar("xtks");
    let sessions = calendar.next_sessions(local(&calendar, "2026-11-27T13:00"));
    let opens: Vec<String> = sessions.take(3).map(|session| session.opens.to_string()).collect();
    assert_eq!(opens, ["2026-11-27T03:30:00Z", "2026-11-30T00:00:00Z", "2026-11-30T03:30:00Z"]);
    let at_close = calendar.next_sessions(local(&calendar, "2026-11-27T15:30")).next().unwrap();
    assert_eq!(at_close.opens, utc("2026-11-30T00:00"));
}
