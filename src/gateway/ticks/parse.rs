//! One tick in JSON: `{"series","ts","value","hist_exog"?,"futr_exog"?,"stat_exog"?}`.
//!
//! Pure. `ts` is a number of milliseconds since 1970, read digit by digit so that nanoseconds stay exact, or an
//! RFC 3339 text. Every number is finite; columns are bounded.

use std::ops::Range;

use peregrine_actors::Trace;
use peregrine_actors::series::{SeriesName, Tick, Timestamp};

use super::Millis;
use crate::gateway::json::{Cursor, JsonError, once};
use crate::gateway::members::pass_over;

const MEMBERS: [&str; 6] = ["series", "ts", "value", "hist_exog", "futr_exog", "stat_exog"];
/// Most columns of one kind.
const COLUMNS_MAX: usize = 64;
/// Longest name of a column, in bytes.
const COLUMN_NAME_BYTES_MAX: usize = 128;
/// Most values of a column whose future is known.
const STEPS_MAX: usize = 4096;
/// Numbers that are the seconds of 2001 to 2096: as milliseconds they all lie in January and February 1970.
const SECONDS: Range<i64> = 1_000_000_000 * MILLI..4_000_000_000 * MILLI;
/// A millisecond in nanoseconds.
const MILLI: i64 = 1_000_000;
/// Largest and smallest power of ten behind a number of milliseconds.
const EXPONENT_MAX: i32 = 30;

const NOT_SECONDS: &str = "milliseconds since 1970, and these look like seconds: a time in January or February 1970 is \
                           written as RFC 3339 has it";

/// Why a text is no tick. The caller's mistake.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub(crate) enum BadTick {
    #[error(transparent)]
    Json(#[from] JsonError),
    #[error("the tick has no `{0}`")]
    NoMember(&'static str),
    #[error("`{name}` must be {want}")]
    Member { name: &'static str, want: &'static str },
    /// As some writers of JSON have it; which tick, and what of it.
    #[error(
        "series `{series}`, ts {}: `{name}` is {what}, which is no number: a `value` that is missing is `null`",
        Millis(*at)
    )]
    NoNumber { series: SeriesName, at: Timestamp, name: &'static str, what: &'static str },
    /// Well-formed; which tick, and what of it.
    #[error("series `{series}`, ts {}: `{name}` has a number that is too large for FP32", Millis(*at))]
    TooLarge { series: SeriesName, at: Timestamp, name: &'static str },
}

/// Reads a whole text.
#[cfg_attr(not(test), allow(dead_code, reason = "for bodies of ticks; a websocket's stand within a message"))]
pub(crate) fn parse_tick(text: &[u8]) -> Result<Tick, BadTick> {
    let mut cursor = Cursor::new(text);
    let tick = tick(&mut cursor)?;
    cursor.end()?;
    Ok(tick)
}

/// Reads one object.
pub(crate) fn tick(cursor: &mut Cursor<'_>) -> Result<Tick, BadTick> {
    let mut parts = TickParts::default();
    cursor.object(|key, cursor| {
        if key == "series" {
            let at = cursor.at();
            return Ok(once(&mut parts.series, cursor.string()?.into_owned(), "series", at)?);
        }
        if parts.member(key, cursor)? { Ok(()) } else { Ok::<(), BadTick>(pass_over(cursor, key, &MEMBERS)?) }
    })?;
    parts.finish()
}

/// The members of a tick, as they come.
#[derive(Debug, Default)]
pub(crate) struct TickParts {
    pub(crate) series: Option<String>,
    at: Option<Timestamp>,
    value: Option<Option<f32>>,
    hist_exog: Option<Vec<(String, f32)>>,
    futr_exog: Option<Vec<(String, Vec<f32>)>>,
    stat_exog: Option<Vec<(String, f32)>>,
    /// The first member with a number that cannot be: said once it is known which tick this is.
    wrong: Option<(&'static str, Wrong)>,
}

/// What stands where a number should.
#[derive(Clone, Copy, Debug)]
enum Wrong {
    /// One that no `f32` can hold.
    TooLarge,
    /// A word.
    NoNumber(&'static str),
}

impl TickParts {
    /// Reads the value of a member; `false`, with nothing read, if no tick has it. `series` is the caller's to read.
    pub(crate) fn member(&mut self, key: &str, cursor: &mut Cursor<'_>) -> Result<bool, BadTick> {
        let (at, wrong) = (cursor.at(), &mut self.wrong);
        match key {
            "ts" => once(&mut self.at, timestamp(cursor)?, "ts", at)?,
            "value" => once(&mut self.value, value(cursor, wrong)?, "value", at)?,
            "hist_exog" => {
                let columns = columns(cursor, "hist_exog", wrong, single)?;
                once(&mut self.hist_exog, columns, "hist_exog", at)?;
            }
            "stat_exog" => {
                let columns = columns(cursor, "stat_exog", wrong, single)?;
                once(&mut self.stat_exog, columns, "stat_exog", at)?;
            }
            "futr_exog" => {
                let columns = columns(cursor, "futr_exog", wrong, several)?;
                once(&mut self.futr_exog, columns, "futr_exog", at)?;
            }
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// Whether any member was there.
    pub(crate) fn any(&self) -> bool {
        self.at.is_some() || self.value.is_some()
    }

    pub(crate) fn finish(self) -> Result<Tick, BadTick> {
        let series = self.series.ok_or(BadTick::NoMember("series"))?;
        let want = "1 to 128 bytes without control characters and `*`";
        let series = SeriesName::new(&series).map_err(|_| BadTick::Member { name: "series", want })?;
        let at = self.at.ok_or(BadTick::NoMember("ts"))?;
        let value = self.value.ok_or(BadTick::NoMember("value"))?;
        match self.wrong {
            Some((name, Wrong::TooLarge)) => return Err(BadTick::TooLarge { series, at, name }),
            Some((name, Wrong::NoNumber(what))) => return Err(BadTick::NoNumber { series, at, name, what }),
            None => {}
        }
        Ok(Tick {
            series,
            at,
            value,
            hist_exog: self.hist_exog.unwrap_or_default(),
            futr_exog: self.futr_exog.unwrap_or_default(),
            stat_exog: self.stat_exog.unwrap_or_default(),
            trace: Trace::default(),
        })
    }
}

fn value(cursor: &mut Cursor<'_>, wrong: &mut Option<(&'static str, Wrong)>) -> Result<Option<f32>, BadTick> {
    if cursor.null() {
        return Ok(None);
    }
    Ok(single(cursor)?.map_err(|what| *wrong.get_or_insert(("value", what))).ok())
}

fn single(cursor: &mut Cursor<'_>) -> Result<Result<f32, Wrong>, JsonError> {
    match cursor.number() {
        Ok(text) => {
            let value = text.parse().ok().filter(|value: &f32| value.is_finite());
            Ok(value.ok_or(Wrong::TooLarge))
        }
        Err(error) => match cursor.pass_no_number(&error) {
            Some(what) => Ok(Err(Wrong::NoNumber(what))),
            None => Err(error),
        },
    }
}

fn several(cursor: &mut Cursor<'_>) -> Result<Result<Vec<f32>, Wrong>, JsonError> {
    let (mut values, begin) = (Vec::new(), *cursor);
    let wrong = match cursor.leaves(&mut values, 1, STEPS_MAX) {
        Ok(_) => return Ok(Ok(values)),
        Err(JsonError::Infinite { .. }) => Wrong::TooLarge,
        Err(error) => Wrong::NoNumber(cursor.no_number(&error).ok_or(error)?),
    };
    *cursor = begin;
    cursor.array(|cursor| single(cursor).map(drop))?;
    Ok(Err(wrong))
}

fn columns<T>(
    cursor: &mut Cursor<'_>,
    name: &'static str,
    wrong: &mut Option<(&'static str, Wrong)>,
    read: impl Fn(&mut Cursor<'_>) -> Result<Result<T, Wrong>, JsonError>,
) -> Result<Vec<(String, T)>, BadTick> {
    let mut columns: Vec<(String, T)> = Vec::new();
    cursor.object(|column, cursor| {
        if columns.len() == COLUMNS_MAX || column.len() > COLUMN_NAME_BYTES_MAX {
            return Err(BadTick::Member { name, want: "at most 64 columns of at most 128 bytes each" });
        }
        if columns.iter().any(|(known, _)| known == column) {
            return Err(BadTick::Member { name, want: "columns that each stand once" });
        }
        match read(cursor)? {
            Ok(value) => columns.push((column.to_owned(), value)),
            Err(what) => _ = wrong.get_or_insert((name, what)),
        }
        Ok(())
    })?;
    Ok(columns)
}

fn timestamp(cursor: &mut Cursor<'_>) -> Result<Timestamp, BadTick> {
    let want =
        "milliseconds since 1970, no finer than a nanosecond, or an RFC 3339 time, within 1678 to 2261";
    if cursor.peek() == Some(b'"') {
        let read = rfc3339(&cursor.string()?);
        return read.map(Timestamp).ok_or(BadTick::Member { name: "ts", want });
    }
    let read = nanos_of_millis(cursor.number()?).ok_or(BadTick::Member { name: "ts", want })?;
    if SECONDS.contains(&read) {
        return Err(BadTick::Member { name: "ts", want: NOT_SECONDS });
    }
    Ok(Timestamp(read))
}

/// A decimal number of milliseconds in nanoseconds; `None` unless it is exactly that many.
fn nanos_of_millis(text: &str) -> Option<i64> {
    let (negative, text) = text.strip_prefix('-').map_or((false, text), |text| (true, text));
    let (mantissa, exponent) = text.split_once(['e', 'E']).unwrap_or((text, "0"));
    let exponent: i32 = exponent.parse().ok()?;
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let fraction = fraction.trim_end_matches('0');
    let mut value: i128 = 0;
    for digit in whole.bytes().chain(fraction.bytes()) {
        value = value.checked_mul(10)?.checked_add(i128::from(digit.checked_sub(b'0')?))?;
        // Beyond any time, whatever the exponent takes away.
        if value > i128::from(i64::MAX) * 1_000_000_000 {
            return None;
        }
    }
    if value == 0 {
        return Some(0);
    }
    let power = exponent.checked_sub(i32::try_from(fraction.len()).ok()?)?.checked_add(6)?;
    if power.abs() > EXPONENT_MAX {
        return None;
    }
    let scale = 10_i128.checked_pow(power.unsigned_abs())?;
    let nanos = if power >= 0 {
        value.checked_mul(scale)?
    } else if value % scale == 0 {
        value / scale
    } else {
        return None;
    };
    i64::try_from(if negative { -nanos } else { nanos }).ok()
}

/// `2026-01-02T03:04:05.678Z` and its kin, as nanoseconds since 1970.
fn rfc3339(text: &str) -> Option<i64> {
    let bytes = text.as_bytes();
    let number = |from: usize, to: usize| -> Option<i64> {
        let digits = bytes.get(from..to)?;
        digits
            .iter()
            .try_fold(0, |sum, &byte| byte.is_ascii_digit().then(|| sum * 10 + i64::from(byte - b'0')))
    };
    let mark =
        |at: usize, wanted: &[u8]| bytes.get(at).is_some_and(|byte| wanted.contains(byte)).then_some(());
    let (year, month, day) = (number(0, 4)?, number(5, 7)?, number(8, 10)?);
    let (hour, minute, second) = (number(11, 13)?, number(14, 16)?, number(17, 19)?);
    mark(4, b"-")?;
    mark(7, b"-")?;
    mark(10, b"Tt ")?;
    mark(13, b":")?;
    mark(16, b":")?;
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let days = [31, if leap { 29 } else { 28 }, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    let days = *days.get(usize::try_from(month - 1).ok()?)?;
    if !(1..=days).contains(&day) || hour > 23 || minute > 59 || second > 59 {
        return None;
    }
    let mut at = 19;
    let mut nanos = 0;
    if bytes.get(at) == Some(&b'.') {
        let digits = bytes[at + 1..].iter().take_while(|byte| byte.is_ascii_digit()).count();
        if !(1..=9).contains(&digits) {
            return None;
        }
        nanos = number(at + 1, at + 1 + digits)? * 10_i64.pow(u32::try_from(9 - digits).ok()?);
        at += 1 + digits;
    }
    let offset_minutes = match bytes.get(at)? {
        b'Z' | b'z' if bytes.len() == at + 1 => 0,
        sign @ (b'+' | b'-') if bytes.len() == at + 6 => {
            mark(at + 3, b":")?;
            let (hours, minutes) = (number(at + 1, at + 3)?, number(at + 4, at + 6)?);
            if hours > 23 || minutes > 59 {
                return None;
            }
            (hours * 60 + minutes) * if *sign == b'-' { -1 } else { 1 }
        }
        _ => return None,
    };
    let minutes = (days_since_1970(year, month, day) * 24 + hour) * 60 + minute - offset_minutes;
    (minutes * 60 + second).checked_mul(1_000_000_000)?.checked_add(nanos)
}

/// Of the proleptic Gregorian calendar; years begin in March so that the leap day is the last.
fn days_since_1970(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let (era, of_era) = (year.div_euclid(400), year.rem_euclid(400));
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + day_of_year - 719_468
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
