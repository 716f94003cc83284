//! A calendar as it is written, and what it says once it was checked.

use jiff::civil::Date;
use jiff::tz::TimeZone;
use serde::Deserialize;

use super::rule::{DayRule, date, digits, weekday};
use super::{Calendar, Weekdays};

/// Bytes of one file.
const TEXT_MAX_BYTES: usize = 64 << 10;
const SESSIONS_MAX: usize = 16;
/// Holidays of one calendar, and as many early closes.
const DAYS_MAX: usize = 512;
const NAME_MAX_CHARS: usize = 64;
const YEAR_MIN: i16 = 1970;
const YEAR_MAX: i16 = 2199;
const YEARS_MAX: i16 = 60;
pub(super) const MINUTES_A_DAY: i32 = 24 * 60;

/// A calendar that cannot be used. Whoever wrote the file acts.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CalendarError {
    /// It is no TOML, or has keys that mean nothing.
    #[error("calendar {calendar}: {error}")]
    Syntax {
        /// Whose.
        calendar: String,
        /// In the parser's words, with the line.
        error: String,
    },
    /// A value means nothing.
    #[error("calendar {calendar}: {key} = \"{value}\" is not {expected}")]
    Value {
        /// Whose.
        calendar: String,
        /// Where, as `holidays[2].rule`.
        key: String,
        /// What is written there.
        value: String,
        /// What could be.
        expected: &'static str,
    },
    /// A key is not there that must be.
    #[error("calendar {calendar}: {key} is missing")]
    Missing {
        /// Whose.
        calendar: String,
        /// Which.
        key: &'static str,
    },
    /// More than a calendar may have.
    #[error("calendar {calendar}: {key} has more than {max}")]
    TooMany {
        /// Whose.
        calendar: String,
        /// Of what.
        key: &'static str,
        /// How many are taken.
        max: usize,
    },
    /// It extends one that is not there, or that waits for this one.
    #[error("calendar {calendar}: extends = \"{base}\": there is no such calendar to extend")]
    NoBase {
        /// Whose.
        calendar: String,
        /// What it names.
        base: String,
    },
    /// More calendars than are taken.
    #[error("more than {max} calendars")]
    TooManyCalendars {
        /// How many are taken.
        max: usize,
    },
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct CalendarFile {
    extends: Option<String>,
    zone: Option<String>,
    valid: Option<YearsLine>,
    #[serde(default)]
    sessions: Vec<SessionLine>,
    #[serde(default)]
    holidays: Vec<HolidayLine>,
    #[serde(default)]
    early_closes: Vec<EarlyCloseLine>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct YearsLine {
    first: i16,
    last: i16,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SessionLine {
    days: String,
    opens: String,
    closes: String,
    from: Option<String>,
    until: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct HolidayLine {
    name: String,
    rule: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct EarlyCloseLine {
    name: String,
    rule: String,
    closes: String,
}

/// What a calendar is made of.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Parts {
    pub(super) zone: TimeZone,
    /// Years whose holidays are known: the first and the last.
    pub(super) first: i16,
    pub(super) last: i16,
    pub(super) sessions: Vec<Weekly>,
    pub(super) holidays: Vec<NamedDay>,
    /// With the minute of the close.
    pub(super) early_closes: Vec<(NamedDay, i32)>,
}

/// A session of every week.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Weekly {
    days: Weekdays,
    /// In minutes from the midnight that the trading day begins with; below zero on the day before.
    pub(super) opens: i32,
    pub(super) closes: i32,
    from: Option<Date>,
    until: Option<Date>,
}

impl Weekly {
    pub(super) fn is_on(&self, date: Date) -> bool {
        self.days.holds(date.weekday())
            && self.from.is_none_or(|from| from <= date)
            && self.until.is_none_or(|until| date <= until)
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct NamedDay {
    pub(super) name: String,
    pub(super) rule: DayRule,
}

/// One file that was read and not yet resolved.
pub(super) struct Written {
    name: String,
    file: CalendarFile,
}

impl Written {
    /// Reads a file.
    pub(super) fn read(name: &str, text: &str) -> Result<Self, CalendarError> {
        let named = |name: &str| name.chars().take(NAME_MAX_CHARS).collect::<String>();
        if !is_name(name) {
            return Err(CalendarError::Value {
                calendar: named(name),
                key: "name".to_owned(),
                value: named(name),
                expected: "up to 64 lowercase letters, digits and hyphens",
            });
        }
        let calendar = name.to_owned();
        if text.len() > TEXT_MAX_BYTES {
            return Err(CalendarError::TooMany { calendar, key: "bytes", max: TEXT_MAX_BYTES });
        }
        match toml::from_str(text) {
            Ok(file) => Ok(Self { name: calendar, file }),
            Err(error) => Err(CalendarError::Syntax { calendar, error: error.to_string() }),
        }
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// The calendar that it adds to.
    pub(super) fn base(&self) -> Option<&str> {
        self.file.extends.as_deref()
    }

    /// What it says, added to what `base` says: holidays and early closes are more of them, all else is instead.
    pub(super) fn resolve(self, base: Option<&Calendar>) -> Result<Calendar, CalendarError> {
        let Self { name, file } = self;
        let reader = Reader { calendar: &name };
        let base = base.map(|base| base.parts.clone());
        let zone = match (&file.zone, &base) {
            (Some(zone), _) => TimeZone::get(zone)
                .map_err(|_| reader.value("zone".to_owned(), zone, "a time zone of the IANA database"))?,
            (None, Some(base)) => base.zone.clone(),
            (None, None) => return Err(reader.missing("zone")),
        };
        let (first, last) = match (&file.valid, &base) {
            (Some(years), _) => reader.years(years)?,
            (None, Some(base)) => (base.first, base.last),
            (None, None) => return Err(reader.missing("valid")),
        };
        let sessions = file.sessions.iter().enumerate();
        let sessions: Vec<Weekly> =
            sessions.map(|(at, line)| reader.session(at, line)).collect::<Result<_, _>>()?;
        let (sessions, mut holidays, mut early_closes) = match base {
            Some(base) if sessions.is_empty() => (base.sessions, base.holidays, base.early_closes),
            Some(base) => (sessions, base.holidays, base.early_closes),
            None if sessions.is_empty() => return Err(reader.missing("sessions")),
            None => (sessions, Vec::new(), Vec::new()),
        };
        for (at, line) in file.holidays.iter().enumerate() {
            holidays.push(reader.day(format!("holidays[{at}]"), &line.name, &line.rule)?);
        }
        for (at, line) in file.early_closes.iter().enumerate() {
            let key = format!("early_closes[{at}]");
            let closes = reader.minute(format!("{key}.closes"), &line.closes)?;
            early_closes.push((reader.day(key, &line.name, &line.rule)?, closes));
        }
        for (key, count, max) in [
            ("sessions", sessions.len(), SESSIONS_MAX),
            ("holidays", holidays.len(), DAYS_MAX),
            ("early_closes", early_closes.len(), DAYS_MAX),
        ] {
            if count > max {
                return Err(CalendarError::TooMany { calendar: name, key, max });
            }
        }
        let parts = Parts { zone, first, last, sessions, holidays, early_closes };
        Ok(Calendar::new(name, parts))
    }
}

fn is_name(name: &str) -> bool {
    let letters = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    (1..=NAME_MAX_CHARS).contains(&name.len()) && name.bytes().all(letters)
}

/// Reads values, and says where one was that means nothing.
struct Reader<'a> {
    calendar: &'a str,
}

impl Reader<'_> {
    fn value(&self, key: String, value: &str, expected: &'static str) -> CalendarError {
        let value = value.chars().take(NAME_MAX_CHARS).collect();
        CalendarError::Value { calendar: self.calendar.to_owned(), key, value, expected }
    }

    fn missing(&self, key: &'static str) -> CalendarError {
        CalendarError::Missing { calendar: self.calendar.to_owned(), key }
    }

    fn years(&self, years: &YearsLine) -> Result<(i16, i16), CalendarError> {
        let YearsLine { first, last } = *years;
        let sensible = YEAR_MIN <= first && first <= last && last <= YEAR_MAX && last - first < YEARS_MAX;
        if sensible {
            return Ok((first, last));
        }
        let expected = "at most 60 years in order, between 1970 and 2199";
        Err(self.value("valid".to_owned(), &format!("{first} to {last}"), expected))
    }

    fn session(&self, at: usize, line: &SessionLine) -> Result<Weekly, CalendarError> {
        let key = |key: &str| format!("sessions[{at}].{key}");
        let days = weekdays(&line.days).ok_or_else(|| {
            self.value(key("days"), &line.days, "a weekday or a span of them, as `fri` or `mon-fri`")
        })?;
        let day = |name: &str, text: &Option<String>| match text {
            Some(text) => match date(text) {
                Some(date) => Ok(Some(date)),
                None => Err(self.value(key(name), text, "a date, as `2024-11-05`")),
            },
            None => Ok(None),
        };
        let opens = self.minute(key("opens"), &line.opens)?;
        let closes = self.minute(key("closes"), &line.closes)?;
        if closes == 0 || opens == MINUTES_A_DAY {
            let (key, value) =
                if closes == 0 { (key("closes"), &line.closes) } else { (key("opens"), &line.opens) };
            return Err(self.value(key, value, "an opening before 24:00 and a close after 00:00"));
        }
        let opens = if opens >= closes { opens - MINUTES_A_DAY } else { opens };
        Ok(Weekly { days, opens, closes, from: day("from", &line.from)?, until: day("until", &line.until)? })
    }

    /// `00:00` to `24:00`.
    fn minute(&self, key: String, text: &str) -> Result<i32, CalendarError> {
        let read = text.split_once(':').and_then(|(hours, minutes)| {
            let (hours, minutes) = (digits(hours, 2).ok()?, digits(minutes, 2).ok()?);
            let minute = i32::from(hours) * 60 + i32::from(minutes);
            (minutes < 60 && minute <= MINUTES_A_DAY).then_some(minute)
        });
        read.ok_or_else(|| self.value(key, text, "a time from 00:00 to 24:00"))
    }

    fn day(&self, key: String, name: &str, rule: &str) -> Result<NamedDay, CalendarError> {
        if name.is_empty() || name.chars().count() > NAME_MAX_CHARS {
            return Err(self.value(format!("{key}.name"), name, "a name of up to 64 characters"));
        }
        match rule.parse() {
            Ok(rule) => Ok(NamedDay { name: name.to_owned(), rule }),
            Err(_) => {
                let expected = "a day, as `2025-01-09`, `12-25 sat-1 sun+1`, `3rd mon jan` or `easter-2`";
                Err(self.value(format!("{key}.rule"), rule, expected))
            }
        }
    }
}

/// `fri` or `mon-fri`; a span goes forward within one week.
fn weekdays(text: &str) -> Option<Weekdays> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let number = |word: &str| weekday(word).map(jiff::civil::Weekday::to_monday_zero_offset);
    let (first, last) = (number(first)?, number(last)?);
    (first <= last).then(|| Weekdays((first..=last).fold(0, |bits, day| bits | 1 << day)))
}
