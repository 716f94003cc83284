//! One day of every year, as the rules of exchanges word it.
//!
//! A rule is a base, then any number of changes, with one space between:
//!
//! ```text
//! 2025-01-09        that day alone
//! 12-25             that day of each year
//! 3rd mon jan       the third Monday of January; `last` for the last
//! easter-2          so many days from Easter Sunday of the western churches
//! … +1              so many days later, or earlier
//! … sat-1 sun+1     from a Saturday to the day before, from a Sunday to the day after
//! ```

use std::str::FromStr;

use jiff::ToSpan;
use jiff::civil::{Date, Weekday};

/// Words that one rule may have.
const WORDS_MAX: usize = 12;
/// A change goes no further than a year.
const SHIFT_MAX_DAYS: i64 = 366;

/// A text that is no rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct NoRule;

/// Which day of a year.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct DayRule {
    base: Base,
    /// In days, before a weekday is looked at.
    offset: i64,
    shifts: Vec<(Weekday, i64)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Base {
    Once(Date),
    Yearly { month: i8, day: i8 },
    Weekday { nth: i8, weekday: Weekday, month: i8 },
    Easter,
}

impl DayRule {
    /// Its day in a year, which a change may have moved into another one; `None` where the year has no such day.
    pub(super) fn day_of(&self, year: i16) -> Option<Date> {
        let base = match self.base {
            Base::Once(date) => (date.year() == year).then_some(date),
            Base::Yearly { month, day } => Date::new(year, month, day).ok(),
            Base::Weekday { nth, weekday, month } => {
                Date::new(year, month, 1).ok()?.nth_weekday_of_month(nth, weekday).ok()
            }
            Base::Easter => easter(year),
        }?;
        let day = later(base, self.offset)?;
        match self.shifts.iter().find(|(weekday, _)| *weekday == day.weekday()) {
            Some((_, days)) => later(day, *days),
            None => Some(day),
        }
    }
}

fn later(date: Date, days: i64) -> Option<Date> {
    date.checked_add(days.days()).ok()
}

impl FromStr for DayRule {
    type Err = NoRule;

    fn from_str(text: &str) -> Result<Self, NoRule> {
        let words: Vec<&str> = text.split(' ').take(WORDS_MAX + 1).collect();
        if words.len() > WORDS_MAX {
            return Err(NoRule);
        }
        let (base, mut offset, changes) = match words.as_slice() {
            [nth, weekday, month, rest @ ..] if ordinal(nth).is_some() => {
                let nth = ordinal(nth).ok_or(NoRule)?;
                let weekday = self::weekday(weekday).ok_or(NoRule)?;
                let month = self::month(month).ok_or(NoRule)?;
                (Base::Weekday { nth, weekday, month }, 0, rest)
            }
            [word, rest @ ..] => match word.strip_prefix("easter") {
                Some("") => (Base::Easter, 0, rest),
                Some(days) => (Base::Easter, signed(days)?, rest),
                None => (day(word)?, 0, rest),
            },
            [] => return Err(NoRule),
        };
        let mut shifts: Vec<(Weekday, i64)> = Vec::new();
        for change in changes {
            match (change.get(..3).and_then(self::weekday), change.get(3..)) {
                (Some(weekday), Some(days)) if shifts.iter().all(|(known, _)| *known != weekday) => {
                    shifts.push((weekday, signed(days)?));
                }
                // Days come before weekdays, as they are applied.
                (None, _) if shifts.is_empty() => offset += signed(change)?,
                _ => return Err(NoRule),
            }
        }
        Ok(Self { base, offset, shifts })
    }
}

/// `2025-01-09` or `12-25`.
fn day(word: &str) -> Result<Base, NoRule> {
    if let Some(date) = date(word) {
        return Ok(Base::Once(date));
    }
    let (month, day) = word.split_once('-').ok_or(NoRule)?;
    let (month, day) = (digits(month, 2)? as i8, digits(day, 2)? as i8);
    // The 29th of February is a day, in the years that have it.
    Date::new(2024, month, day).map_err(|_| NoRule)?;
    Ok(Base::Yearly { month, day })
}

/// `2025-01-09` and nothing else that a library might take for a date.
pub(super) fn date(text: &str) -> Option<Date> {
    let mut parts = text.splitn(3, '-');
    let year = digits(parts.next()?, 4).ok()?;
    let month = digits(parts.next()?, 2).ok()?;
    let day = digits(parts.next()?, 2).ok()?;
    Date::new(year, month as i8, day as i8).ok()
}

/// A number of that many digits.
pub(super) fn digits(text: &str, count: usize) -> Result<i16, NoRule> {
    let all = text.len() == count && count <= 4 && text.bytes().all(|byte| byte.is_ascii_digit());
    if all { text.parse().map_err(|_| NoRule) } else { Err(NoRule) }
}

/// `+1` or `-2`.
fn signed(text: &str) -> Result<i64, NoRule> {
    let days: i64 = match text.split_at_checked(1) {
        Some(("+" | "-", rest)) if rest.bytes().all(|byte| byte.is_ascii_digit()) => {
            text.parse().map_err(|_| NoRule)?
        }
        _ => return Err(NoRule),
    };
    if days.abs() <= SHIFT_MAX_DAYS { Ok(days) } else { Err(NoRule) }
}

fn ordinal(word: &str) -> Option<i8> {
    match word {
        "1st" => Some(1),
        "2nd" => Some(2),
        "3rd" => Some(3),
        "4th" => Some(4),
        "5th" => Some(5),
        "last" => Some(-1),
        _ => None,
    }
}

/// `mon` to `sun`.
pub(super) fn weekday(word: &str) -> Option<Weekday> {
    const NAMES: [&str; 7] = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];
    let at = NAMES.iter().position(|name| *name == word)?;
    Weekday::from_monday_zero_offset(at as i8).ok()
}

fn month(word: &str) -> Option<i8> {
    const NAMES: [&str; 12] =
        ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];
    NAMES.iter().position(|name| *name == word).map(|at| at as i8 + 1)
}

/// Easter Sunday in the Gregorian calendar: the Sunday after the full moon of the church on or after the 21st of March.
/// By the steps that the church's tables come down to (golden number, epact, dominical letter).
fn easter(year: i16) -> Option<Date> {
    let year_number = i32::from(year);
    let golden = year_number % 19;
    let (century, year_of_century) = (year_number / 100, year_number % 100);
    let moon_shift = (8 * century + 13) / 25;
    // Days from the 21st of March to the full moon.
    let moon = (19 * golden + century - century / 4 - moon_shift + 15) % 30;
    // Two moons that the tables move by a day.
    let moon = moon - (golden + 11 * moon) / 319;
    let to_sunday = (2 * (century % 4) + 2 * (year_of_century / 4) - year_of_century % 4 - moon + 32) % 7;
    later(Date::new(year, 3, 22).ok()?, i64::from(moon + to_sunday))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(rule: &str, year: i16, expected: Option<&str>) {
        let rule: DayRule = rule.parse().unwrap();
        let day = rule.day_of(year).map(|date| date.to_string());
        assert_eq!(day.as_deref(), expected);
    }

    #[track_caller]
    fn check_none(rule: &str) {
        assert_eq!(rule.parse::<DayRule>(), Err(NoRule), "`{rule}`");
    }

    #[test]
    fn days_are_counted_as_the_calendar_does() {
        check("12-25", 2026, Some("2026-12-25"));
        check("02-29", 2026, None);
        check("02-29", 2028, Some("2028-02-29"));
        check("2025-01-09", 2025, Some("2025-01-09"));
        check("2025-01-09", 2026, None);
        check("3rd mon jan", 2026, Some("2026-01-19"));
        check("last mon may", 2027, Some("2027-05-31"));
        check("5th thu nov", 2026, None);
        check("4th thu nov +1", 2024, Some("2024-11-29"));
    }

    #[test]
    fn weekdays_move_a_day_and_leave_others() {
        check("07-04 sat-1 sun+1", 2025, Some("2025-07-04"));
        check("07-04 sat-1 sun+1", 2026, Some("2026-07-03"));
        check("07-04 sat-1 sun+1", 2027, Some("2027-07-05"));
        check("01-01 sat-1", 2028, Some("2027-12-31"));
        check("05-03 sun+3", 2026, Some("2026-05-06"));
    }

    /// Dates as published in almanacs, the earliest and the latest that can be and the moons that are moved among them.
    #[test]
    fn easter_is_when_the_almanac_says() {
        for (year, expected) in [
            (1818, "1818-03-22"),
            (1943, "1943-04-25"),
            (1954, "1954-04-18"),
            (1981, "1981-04-19"),
            (2000, "2000-04-23"),
            (2019, "2019-04-21"),
            (2024, "2024-03-31"),
            (2025, "2025-04-20"),
            (2026, "2026-04-05"),
            (2027, "2027-03-28"),
            (2028, "2028-04-16"),
            (2029, "2029-04-01"),
            (2030, "2030-04-21"),
            (2038, "2038-04-25"),
            (2049, "2049-04-18"),
            (2076, "2076-04-19"),
        ] {
            check("easter", year, Some(expected));
        }
        check("easter-2", 2026, Some("2026-04-03"));
        check("easter+1", 2026, Some("2026-04-06"));
    }

    #[test]
    fn what_is_no_rule_is_refused() {
        for text in
            ["", " ", "christmas", "12-25 ", "12-25  sun+1", "13-01", "02-30", "2025-02-29", "1-1", "+12-25"]
        {
            check_none(text);
        }
        for text in
            ["3rd mon", "6th mon jan", "3rd lun jan", "3rd mon janv", "easter2", "easter+", "easter+400"]
        {
            check_none(text);
        }
        for text in [
            "12-25 sun",
            "12-25 sun+",
            "12-25 sun+1 sun+2",
            "12-25 sun+1 +1",
            "12-25 sun+9999999999999999999",
        ] {
            check_none(text);
        }
        check_none(&"12-25 +1".repeat(40));
        check_none("12-25 sün+1");
    }
}
