//! The days of each calendar against the lists that exchanges have published.

use jiff::civil::{Date, Weekday};

use super::calendar;
use crate::calendar::DayKind;

/// Weekdays of one year on which a market is shut, and those on which it closes early; as `MM-DD`.
pub(super) struct Year {
    pub(super) year: i16,
    pub(super) closed: &'static str,
    pub(super) short: &'static str,
}

pub(super) const NEW_YORK: [Year; 4] = [
    Year {
        year: 2024,
        closed: "01-01 01-15 02-19 03-29 05-27 06-19 07-04 09-02 11-28 12-25",
        short: "07-03 11-29 12-24",
    },
    Year {
        year: 2025,
        closed: "01-01 01-09 01-20 02-17 04-18 05-26 06-19 07-04 09-01 11-27 12-25",
        short: "07-03 11-28 12-24",
    },
    Year {
        year: 2026,
        closed: "01-01 01-19 02-16 04-03 05-25 06-19 07-03 09-07 11-26 12-25",
        short: "11-27 12-24",
    },
    Year {
        year: 2027,
        closed: "01-01 01-18 02-15 03-26 05-31 06-18 07-05 09-06 11-25 12-24",
        short: "11-26",
    },
];

pub(super) const LONDON: [Year; 4] = [
    Year { year: 2024, closed: "01-01 03-29 04-01 05-06 05-27 08-26 12-25 12-26", short: "12-24 12-31" },
    Year { year: 2025, closed: "01-01 04-18 04-21 05-05 05-26 08-25 12-25 12-26", short: "12-24 12-31" },
    Year { year: 2026, closed: "01-01 04-03 04-06 05-04 05-25 08-31 12-25 12-28", short: "12-24 12-31" },
    Year { year: 2027, closed: "01-01 03-26 03-29 05-03 05-31 08-30 12-27 12-28", short: "12-24 12-31" },
];

pub(super) const XETRA: [Year; 4] = [
    Year { year: 2024, closed: "01-01 03-29 04-01 05-01 12-24 12-25 12-26 12-31", short: "12-30" },
    Year { year: 2025, closed: "01-01 04-18 04-21 05-01 12-24 12-25 12-26 12-31", short: "12-30" },
    Year { year: 2026, closed: "01-01 04-03 04-06 05-01 12-24 12-25 12-31", short: "12-30" },
    Year { year: 2027, closed: "01-01 03-26 03-29 12-24 12-31", short: "12-30" },
];

pub(super) const TOKYO: [Year; 4] = [
    Year {
        year: 2024,
        closed: "01-01 01-02 01-03 01-08 02-12 02-23 03-20 04-29 05-03 05-06 07-15 08-12 09-16 09-23 10-14 11-04 \
                 12-31",
        short: "",
    },
    Year {
        year: 2025,
        closed: "01-01 01-02 01-03 01-13 02-11 02-24 03-20 04-29 05-05 05-06 07-21 08-11 09-15 09-23 10-13 11-03 \
                 11-24 12-31",
        short: "",
    },
    Year {
        year: 2026,
        closed: "01-01 01-02 01-12 02-11 02-23 03-20 04-29 05-04 05-05 05-06 07-20 08-11 09-21 09-22 09-23 10-12 \
                 11-03 11-23 12-31",
        short: "",
    },
    Year {
        year: 2027,
        closed: "01-01 01-11 02-11 02-23 03-22 04-29 05-03 05-04 05-05 07-19 08-11 09-20 09-23 10-11 11-03 11-23 \
                 12-31",
        short: "",
    },
];

pub(super) const GLOBEX: [Year; 4] = [
    Year {
        year: 2024,
        closed: "01-01 03-29 12-25",
        short: "01-15 02-19 05-27 06-19 07-03 07-04 09-02 11-28 11-29 12-24",
    },
    Year {
        year: 2025,
        closed: "01-01 04-18 12-25",
        short: "01-09 01-20 02-17 05-26 06-19 07-03 07-04 09-01 11-27 11-28 12-24",
    },
    Year {
        year: 2026,
        closed: "01-01 12-25",
        short: "01-19 02-16 04-03 05-25 06-19 07-03 09-07 11-26 11-27 12-24",
    },
    Year {
        year: 2027,
        closed: "01-01 03-26 12-24",
        short: "01-18 02-15 05-31 06-18 07-05 09-06 11-25 11-26",
    },
];

pub(super) const FX: [Year; 4] = [
    Year { year: 2024, closed: "01-01 12-25", short: "" },
    Year { year: 2025, closed: "01-01 12-25", short: "" },
    Year { year: 2026, closed: "01-01 12-25", short: "" },
    Year { year: 2027, closed: "01-01", short: "" },
];

#[track_caller]
fn check(name: &str, published: &[Year]) {
    let calendar = calendar(name);
    for Year { year, closed, short } in published {
        let days = |kind: DayKind| {
            let mut found = Vec::new();
            let mut date = Date::new(*year, 1, 1).unwrap();
            while date.year() == *year {
                let is_weekend = matches!(date.weekday(), Weekday::Saturday | Weekday::Sunday);
                assert!(!is_weekend || calendar.day(date) == Some(DayKind::Closed), "{date}");
                if !is_weekend && calendar.day(date) == Some(kind) {
                    found.push(format!("{:02}-{:02}", date.month(), date.day()));
                }
                date = date.tomorrow().unwrap();
            }
            found.join(" ")
        };
        assert_eq!(days(DayKind::Closed), *closed, "closed in {year}");
        assert_eq!(days(DayKind::Short), *short, "short in {year}");
    }
}

#[test]
fn new_york_rests_when_it_says() {
    check("xnys", &NEW_YORK);
    check("xnas", &NEW_YORK);
}

#[test]
fn london_rests_on_bank_holidays() {
    check("xlon", &LONDON);
}

#[test]
fn frankfurt_rests_on_its_eight_days() {
    check("xetr", &XETRA);
}

#[test]
fn tokyo_makes_up_for_sundays() {
    check("xtks", &TOKYO);
}

#[test]
fn futures_halt_where_stocks_rest() {
    check("xcme", &GLOBEX);
}

#[test]
fn foreign_exchange_rests_twice_a_year() {
    check("fx", &FX);
}

#[test]
fn crypto_never_rests() {
    let calendar = calendar("crypto");
    let mut date = Date::constant(2024, 1, 1);
    while date.year() < 2028 {
        assert_eq!(calendar.day(date), Some(DayKind::Full));
        date = date.tomorrow().unwrap();
    }
}

#[test]
fn a_day_says_what_it_is_kept_for() {
    let occasion = |name: &str, date: &str| calendar(name).occasion(date.parse().unwrap()).map(str::to_owned);
    assert_eq!(occasion("xnys", "2025-01-09").as_deref(), Some("Day of mourning for President Carter"));
    assert_eq!(occasion("xnys", "2026-07-03").as_deref(), Some("Independence Day"));
    assert_eq!(occasion("xcme", "2026-07-03").as_deref(), Some("Independence Day"));
    assert_eq!(occasion("xtks", "2025-05-06").as_deref(), Some("Greenery Day"));
    assert_eq!(occasion("xnys", "2026-07-06"), None);
}
