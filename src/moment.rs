//! A `ds` of a table as a moment, so that it shows whether rows are in order of time.

use std::cmp::Ordering;

use jiff::Timestamp;
use jiff::fmt::temporal::Pieces;
use jiff::tz::Offset;

/// A number or a date; neither kind is before the other.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Moment {
    /// Nanoseconds of an epoch are more digits than an `f64` holds.
    Whole(i128),
    Number(f64),
    Date(Timestamp),
}

impl Moment {
    /// A finite number, or a date as ISO 8601 has it, down to nanoseconds. One without an offset is in UTC.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        if let Ok(whole) = text.parse() {
            return Some(Self::Whole(whole));
        }
        match text.parse::<f64>() {
            Ok(number) => number.is_finite().then_some(Self::Number(number)),
            Err(_) => date(text).map(Self::Date),
        }
    }

    /// Which of two comes first; `None`: a number and a date.
    pub(crate) fn compare(self, other: Self) -> Option<Ordering> {
        match (self, other) {
            (Self::Whole(one), Self::Whole(other)) => Some(one.cmp(&other)),
            (Self::Date(one), Self::Date(other)) => Some(one.cmp(&other)),
            (one, other) => one.number()?.partial_cmp(&other.number()?),
        }
    }

    /// How long it is from one to the next, in numbers or seconds.
    pub(crate) fn until(self, next: Self) -> Option<f64> {
        match (self, next) {
            (Self::Whole(one), Self::Whole(next)) => Some(next.saturating_sub(one) as f64),
            (Self::Date(one), Self::Date(next)) => Some(next.duration_since(one).as_secs_f64()),
            (one, next) => Some(next.number()? - one.number()?),
        }
    }

    fn number(self) -> Option<f64> {
        match self {
            Self::Whole(number) => Some(number as f64),
            Self::Number(number) => Some(number),
            Self::Date(_) => None,
        }
    }
}

/// Where a row of a series stands.
#[derive(Clone, Debug)]
pub(crate) struct Stand {
    pub(crate) line: u64,
    pub(crate) ds: String,
    /// `None`: `ds` is no moment.
    pub(crate) at: Option<Moment>,
}

/// Rows of a series are not in order of time; the caller acts. Lines count from 1, the header included.
#[derive(Debug, thiserror::Error)]
pub enum OrderError {
    /// They are reversed, mixed or doubled.
    #[error(
        "line {line}: `{ds}` of series `{id}` is not after `{before}` of line {line_before}: its rows have to be in \
         order of time, each once"
    )]
    NotAfter {
        /// Of the row.
        line: u64,
        /// Of the row.
        ds: String,
        /// The series.
        id: String,
        /// `ds` of the row before.
        before: String,
        /// Of the row before.
        line_before: u64,
    },
    /// They may be in any order.
    #[error(
        "line {line}: nobody can tell whether `{ds}` of series `{id}` is after `{before}` of line {line_before}: `ds` have \
         to be numbers, or dates such as 2026-01-31 or 2026-01-31T15:04:05+01:00"
    )]
    Unknown {
        /// Of the row.
        line: u64,
        /// Of the row.
        ds: String,
        /// The series.
        id: String,
        /// `ds` of the row before.
        before: String,
        /// Of the row before.
        line_before: u64,
    },
}

impl Stand {
    pub(crate) fn new(line: u64, ds: &str) -> Self {
        Self { line, ds: ds.to_owned(), at: Moment::parse(ds) }
    }

    /// # Errors
    /// When it is not after the one before it in series `id`, for certain.
    pub(crate) fn check_after(&self, before: &Self, id: &str) -> Result<(), OrderError> {
        let order = before.at.zip(self.at).and_then(|(before, at)| before.compare(at));
        if order == Some(Ordering::Less) {
            return Ok(());
        }
        let (line, ds, id) = (self.line, self.ds.clone(), id.to_owned());
        let (before, line_before) = (before.ds.clone(), before.line);
        Err(match order {
            Some(_) => OrderError::NotAfter { line, ds, id, before, line_before },
            None => OrderError::Unknown { line, ds, id, before, line_before },
        })
    }
}

fn date(text: &str) -> Option<Timestamp> {
    let mut text = text.to_owned();
    // The first of a month, and how terminals of traders write days.
    if text.len() == "2026-01".len() {
        text.push_str("-01");
    } else if let [_, _, _, _, b'.' | b'/', _, _, b'.' | b'/', ..] = *text.as_bytes() {
        text.replace_range(4..5, "-");
        text.replace_range(7..8, "-");
    }
    let pieces = Pieces::parse(&text).ok()?;
    if pieces.offset().is_none() && pieces.time_zone_annotation().is_some() {
        return None; // a time of day that a clock shows twice a year
    }
    let offset = pieces.to_numeric_offset().unwrap_or(Offset::UTC);
    offset.to_timestamp(pieces.date().to_datetime(pieces.time().unwrap_or_default())).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_rise() {
        for (early, late) in [
            ("9", "10"),
            ("-1.5", "2e3"),
            ("8.5", "9"),
            // One f64 for both.
            ("1772755200000000000", "1772755200000000100"),
            ("2024-09", "2024-10"),
            ("2024-09-30", "2024-10-01"),
            ("2024.09.30 23:00", "2024.10.01 00:00"),
            ("2024/09/30", "2024/10/01"),
            ("2024-09-30 23:59:59", "2024-10-01 00:00:00"),
            ("2024-10-01T00:00:00Z", "2024-10-01T00:00:00.5Z"),
            ("2024-10-01T00:00:00.000000001", "2024-10-01T00:00:00.000000002"),
            ("2024-10-01T09:00:00", "2024-10-01 10:00:00"),
            ("2024-10-01", "2024-10-01T09:00:00Z"),
            ("2026-03-06 00:00:00+00:00", "2026-03-07 00:00:00+00:00"),
            ("2026-03-06T00:00:00+0200", "2026-03-06T00:00:00+01:00"),
            ("2024-10-27T02:30:00+02:00", "2024-10-27T02:00:00+01:00"),
            ("2024-10-27T02:30:00+02:00[Europe/Berlin]", "2024-10-27T02:00:00+01:00[Europe/Berlin]"),
        ] {
            assert_eq!(order(early, late), Some(Ordering::Less), "{early} {late}");
            assert_eq!(order(late, early), Some(Ordering::Greater), "{late} {early}");
            assert_eq!(order(early, early), Some(Ordering::Equal), "{early}");
        }
        assert_eq!(order("2024-10-01T02:00:00+02:00", "2024-10-01"), Some(Ordering::Equal));
        assert_eq!(order("7", "7.0"), Some(Ordering::Equal));
    }

    #[test]
    fn what_is_no_moment_has_no_order() {
        let is_none = |text: &str| Moment::parse(text).is_none();
        for text in [
            "",
            "next",
            "30/9/2024",
            "2024-13-01",
            "2024-02-30",
            "2024-10-01T9:00",
            "nan",
            "inf",
            "größe",
            "äöü.a/b",
        ] {
            assert!(is_none(text), "{text}");
        }
        assert!(is_none("2024-10-27T02:30:00[Europe/Berlin]"));
        assert_eq!(order("20241001", "2024-10-02"), None);
    }

    fn order(one: &str, other: &str) -> Option<Ordering> {
        Moment::parse(one)?.compare(Moment::parse(other)?)
    }
}
