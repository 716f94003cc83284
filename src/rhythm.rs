//! What comes after the rows of a series in time: `ds` in the form of those that are there, where their step is regular.
//!
//! Regular are whole numbers and dates that are equally far apart, months by their day or their last day, and days
//! from Monday to Friday. One step that is another one, and nobody knows what comes next; nor does anybody where a week
//! of days has not shown whether weekends count.

use jiff::civil::{Date, DateTime, Time, Weekday};
use jiff::{SignedDuration, ToSpan as _};

/// Fewer show no rhythm.
const ROWS_MIN: usize = 3;
const DAY: SignedDuration = SignedDuration::from_hours(24);

/// The next `count` after `known`, oldest first; none where there is no rhythm, fewer where dates end.
pub(crate) fn after(known: &[&str], count: usize) -> Vec<String> {
    if known.len() < ROWS_MIN {
        return Vec::new();
    }
    numbers(known, count).or_else(|| dates(known, count)).unwrap_or_default()
}

fn numbers(known: &[&str], count: usize) -> Option<Vec<String>> {
    // Columns of whole numbers that a gap once was in are written as 7.0.
    let fraction = if known.iter().all(|ds| ds.ends_with(".0")) { ".0" } else { "" };
    let known = known.iter().map(|ds| ds.strip_suffix(fraction)?.parse().ok());
    let known: Vec<i64> = known.collect::<Option<_>>()?;
    let step = same(known.windows(2).map(|pair| pair[1].checked_sub(pair[0])))??;
    let (mut last, mut next) = (*known.last()?, Vec::new());
    while next.len() < count {
        let Some(at) = last.checked_add(step) else { break };
        next.push(format!("{at}{fraction}"));
        last = at;
    }
    Some(next)
}

fn dates(known: &[&str], count: usize) -> Option<Vec<String>> {
    let known: Vec<(DateTime, Form)> = known.iter().map(|ds| Form::read(ds)).collect::<Option<_>>()?;
    let form = &known[0].1;
    if known.iter().any(|(_, other)| other != form) {
        return None;
    }
    let known: Vec<DateTime> = known.iter().map(|(at, _)| *at).collect();
    let step = Step::of(&known)?;
    let first = *known.last()?;
    let ahead = (1..).map_while(|steps| step.after(first, steps));
    Some(ahead.take(count).map(|at| form.print(at)).collect())
}

/// What all of them are.
fn same<T: PartialEq>(mut all: impl Iterator<Item = T>) -> Option<T> {
    let first = all.next()?;
    all.all(|one| one == first).then_some(first)
}

enum Step {
    /// Of the calendar, on one day of the month or the last.
    Months {
        count: i32,
        is_last_day: bool,
    },
    Weekdays,
    Time(SignedDuration),
}

impl Step {
    fn of(known: &[DateTime]) -> Option<Self> {
        let pairs = || known.windows(2).map(|pair| (pair[0], pair[1]));
        let time_of_day = same(known.iter().map(|at| at.time()));
        let months = |at: DateTime| i32::from(at.year()) * 12 + i32::from(at.month());
        if time_of_day.is_some()
            && let Some(count @ 1..) = same(pairs().map(|(one, next)| months(next) - months(one)))
        {
            if known.iter().all(|at| at.day() == at.days_in_month()) {
                return Some(Self::Months { count, is_last_day: true });
            }
            if same(known.iter().map(|at| at.day())).is_some() {
                return Some(Self::Months { count, is_last_day: false });
            }
        }
        if let Some(step) = same(pairs().map(|(one, next)| next.duration_since(one))) {
            let is_working_week = step == DAY && known.iter().all(|at| weekday_after(at.date()).is_some());
            return (step.is_positive() && !is_working_week).then_some(Self::Time(step));
        }
        let are_weekdays = pairs().all(|(one, next)| weekday_after(one.date()) == Some(next.date()));
        (time_of_day.is_some() && are_weekdays).then_some(Self::Weekdays)
    }

    fn after(&self, last: DateTime, steps: i32) -> Option<DateTime> {
        match self {
            Self::Months { count, is_last_day } => {
                let at = last.checked_add(count.checked_mul(steps)?.months()).ok()?;
                if *is_last_day { Some(at.date().last_of_month().to_datetime(at.time())) } else { Some(at) }
            }
            Self::Weekdays => {
                let date = (0..steps).try_fold(last.date(), |date, _| weekday_after(date))?;
                Some(date.to_datetime(last.time()))
            }
            Self::Time(step) => last.checked_add(step.checked_mul(steps)?).ok(),
        }
    }
}

fn weekday_after(date: Date) -> Option<Date> {
    let days = match date.weekday() {
        Weekday::Saturday | Weekday::Sunday => return None,
        Weekday::Friday => 3,
        _ => 1,
    };
    date.checked_add(days.days()).ok()
}

/// How a date is written.
#[derive(Debug, PartialEq, Eq)]
struct Form {
    /// Between year, month and day.
    mark: char,
    has_day: bool,
    /// Between the day and its time.
    gap: Option<char>,
    /// Letters of the time, from its hours to fractions of a second.
    time_len: usize,
    /// An offset, or nothing.
    offset: String,
}

impl Form {
    /// `None`: in another form than would be printed again.
    fn read(ds: &str) -> Option<(DateTime, Self)> {
        let mark = ds.get(4..5)?.chars().next().filter(|mark| "-./".contains(*mark))?;
        let has_day = ds.len() > "2026-01".len();
        let date = ds.get(..if has_day { 10 } else { 7 })?;
        let rest = &ds[date.len()..];
        let mut parts = date.split(mark).map(|part| part.parse::<i16>().ok());
        let (year, month) = (parts.next()??, i8::try_from(parts.next()??).ok()?);
        let day = if has_day { i8::try_from(parts.next()??).ok()? } else { 1 };
        let gap = rest.chars().next();
        let clock = rest.get(gap.map_or(0, char::len_utf8)..)?;
        let time_len = clock.find(|letter: char| !matches!(letter, '0'..='9' | ':' | '.'));
        let (time, offset) = clock.split_at(time_len.unwrap_or(clock.len()));
        let at: Time = if time.is_empty() { Time::midnight() } else { time.parse().ok()? };
        let at = Date::new(year, month, day).ok()?.to_datetime(at);
        let form = Self { mark, has_day, gap, time_len: time.len(), offset: offset.to_owned() };
        (form.print(at) == ds).then_some((at, form))
    }

    fn print(&self, at: DateTime) -> String {
        let Self { mark, .. } = self;
        let mut text = format!("{:04}{mark}{:02}", at.year(), at.month());
        if self.has_day {
            text.push_str(&format!("{mark}{:02}", at.day()));
        }
        text.extend(self.gap);
        let time =
            format!("{:02}:{:02}:{:02}.{:09}", at.hour(), at.minute(), at.second(), at.subsec_nanosecond());
        text.push_str(&time[..self.time_len.min(time.len())]);
        text.push_str(&self.offset);
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_regular_step_goes_on_in_the_form_of_what_is_there() {
        for (known, want) in [
            (["1", "2", "3"], ["4", "5"]),
            (["1.0", "2.0", "3.0"], ["4.0", "5.0"]),
            (["1772755200", "1772755260", "1772755320"], ["1772755380", "1772755440"]),
            (["2024-02-29", "2024-03-01", "2024-03-02"], ["2024-03-03", "2024-03-04"]),
            (["2026-10-29", "2026-10-30", "2026-11-02"], ["2026-11-03", "2026-11-04"]),
            (["2026.10.01", "2026.10.08", "2026.10.15"], ["2026.10.22", "2026.10.29"]),
            (["2026-01", "2026-02", "2026-03"], ["2026-04", "2026-05"]),
            // Of 31 days each, and yet months.
            (["2026-07-01", "2026-08-01", "2026-09-01"], ["2026-10-01", "2026-11-01"]),
            (["2025-12-31", "2026-01-31", "2026-02-28"], ["2026-03-31", "2026-04-30"]),
            (["2025-09-30", "2025-12-31", "2026-03-31"], ["2026-06-30", "2026-09-30"]),
            (
                ["2026-10-30T22:00:00Z", "2026-10-30T23:00:00Z", "2026-10-31T00:00:00Z"],
                ["2026-10-31T01:00:00Z", "2026-10-31T02:00:00Z"],
            ),
            (
                [
                    "2026-10-30 09:30:00.000+02:00",
                    "2026-10-30 09:30:00.250+02:00",
                    "2026-10-30 09:30:00.500+02:00",
                ],
                ["2026-10-30 09:30:00.750+02:00", "2026-10-30 09:30:01.000+02:00"],
            ),
            (
                ["2026/10/30 23:50", "2026/10/30 23:55", "2026/10/31 00:00"],
                ["2026/10/31 00:05", "2026/10/31 00:10"],
            ),
        ] {
            assert_eq!(after(&known, 2), want, "{known:?}");
        }
    }

    #[test]
    fn without_a_rhythm_nobody_knows() {
        for known in [
            ["1", "2", "4"],
            ["2026-10-01", "2026-10-02", "2026-10-04"],
            ["2026-10-27", "2026-10-28", "2026-10-30"],
            // Whether weekends count has not been seen.
            ["2026-10-28", "2026-10-29", "2026-10-30"],
            ["2026-01-30", "2026-02-28", "2026-03-30"],
            ["1.5", "2.5", "3.5"],
            ["2026-10-24 00:00+02:00", "2026-10-25 00:00+02:00", "2026-10-26 00:00+01:00"],
            ["2026-10-01", "2026-10-02", "2026-10-03 00:00"],
            ["20261001", "2026-10-02", "2026-10-03"],
            ["a", "b", "c"],
            ["", "", ""],
            ["größe", "äöü.a/b", "é"],
        ] {
            assert_eq!(after(&known, 2), [""; 0], "{known:?}");
        }
        assert_eq!(after(&["1", "2"], 2), [""; 0]);
        assert_eq!(after(&["9999-12-29", "9999-12-30", "9999-12-31"], 2), [""; 0]);
        assert_eq!(after(&["9223372036854775805", "9223372036854775806", "9223372036854775807"], 1), [""; 0]);
    }
}
