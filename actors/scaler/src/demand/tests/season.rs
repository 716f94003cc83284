//! What the season says of single hours.

use std::time::Duration;

use jiff::Timestamp;
use jiff::tz::TimeZone;

use super::{Demand, DemandSettings, Outlook, Season, hourly, utc, xnys};

/// Feeds one rate an hour from `first` until `now`, then asks.
#[track_caller]
fn outlook(demand: &mut Demand, first: &str, now: &str, rate: impl Fn(Timestamp) -> f64) -> Outlook {
    let (mut at, now) = (utc(first), utc(now));
    while at < now {
        demand.observe(at, rate(at)).unwrap();
        at += Duration::from_secs(3600);
    }
    demand.outlook(now).unwrap()
}

/// The medians of the points that begin at these instants.
fn medians<const N: usize>(outlook: &Outlook, at: [&str; N]) -> [f64; N] {
    at.map(|at| {
        let steps = utc(at).duration_since(outlook.starts).as_secs() / 3600;
        (outlook.points[steps as usize].median * 1e6).round() / 1e6
    })
}

/// 100 requests per second in the hour in which New York opens, else 10.
fn at_the_open(at: Timestamp) -> f64 {
    let clock = xnys().zone().to_datetime(at);
    if clock.hour() == 9 && xnys().day(clock.date()) != Some(crate::calendar::DayKind::Closed) {
        100.0
    } else {
        10.0
    }
}

#[test]
fn the_open_stays_at_its_local_hour_when_clocks_change() {
    // Until Friday, 13:00 in Greenwich; from Monday on, 14:00.
    let outlook = outlook(&mut hourly(None), "2026-10-01T04:00", "2026-11-02T05:00", at_the_open);
    assert_eq!(
        medians(&outlook, ["2026-11-02T13:00", "2026-11-02T14:00", "2026-11-02T15:00"]),
        [10.0, 100.0, 10.0]
    );
}

#[test]
fn a_holiday_is_like_a_sunday_and_the_day_after_is_not() {
    let mut demand = hourly(None);
    let before = outlook(&mut demand, "2026-10-15T04:00", "2026-11-26T05:00", at_the_open);
    assert_eq!(medians(&before, ["2026-11-26T14:00"]), [10.0]);
    let after = outlook(&mut demand, "2026-11-26T05:00", "2026-11-27T05:00", at_the_open);
    assert_eq!(medians(&after, ["2026-11-27T14:00"]), [100.0]);
}

#[test]
fn without_a_calendar_weekends_are_known_and_holidays_are_not() {
    let zone = TimeZone::get("America/New_York").unwrap();
    let mut demand = Demand::new(DemandSettings::default(), Season::Week(zone), None).unwrap();
    let weekend = outlook(&mut demand, "2026-10-15T04:00", "2026-11-21T05:00", at_the_open);
    assert_eq!(medians(&weekend, ["2026-11-21T14:00"]), [10.0]);
    let holiday = outlook(&mut demand, "2026-11-21T05:00", "2026-11-26T05:00", at_the_open);
    assert_eq!(medians(&holiday, ["2026-11-26T14:00"]), [100.0]);
}

#[test]
fn news_of_yesterday_are_not_expected_again() {
    let news = utc("2026-11-18T17:00");
    let rate = |at: Timestamp| if at == news { 900.0 } else { at_the_open(at) };
    let outlook = outlook(&mut hourly(None), "2026-10-15T04:00", "2026-11-19T05:00", rate);
    assert_eq!(medians(&outlook, ["2026-11-19T14:00", "2026-11-19T17:00"]), [100.0, 10.0]);
}

#[test]
fn years_without_a_calendar_have_weeks() {
    let outlook = outlook(&mut hourly(None), "2028-01-03T05:00", "2028-02-07T05:00", |at| {
        let clock = xnys().zone().to_datetime(at);
        if clock.hour() == 9 && clock.weekday().to_monday_zero_offset() < 5 { 100.0 } else { 10.0 }
    });
    assert_eq!(medians(&outlook, ["2028-02-07T14:00", "2028-02-07T15:00"]), [100.0, 10.0]);
}

#[test]
fn upper_within_looks_as_far_as_it_is_asked() {
    let outlook = outlook(&mut hourly(None), "2026-10-15T04:00", "2026-11-19T10:30", at_the_open);
    let within = |minutes: u64| outlook.upper_within(Duration::from_secs(60 * minutes)).round();
    // The open is in the hour from 14:00, three and a half hours on.
    assert_eq!(outlook.starts, utc("2026-11-19T10:00"));
    assert_eq!(
        [within(0), within(30), within(210), within(211), within(100_000)],
        [10.0, 10.0, 10.0, 100.0, 100.0]
    );
    assert_eq!(outlook.upper_within(Duration::MAX).round(), 100.0);
    assert_eq!(outlook.until(), utc("2026-11-20T10:00"));
}
