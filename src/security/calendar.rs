//! Points in time as certificates and key files write them.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Date and time of day in UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Civil {
    pub(crate) year: i64,
    pub(crate) month: i64,
    pub(crate) day: i64,
    /// Of the day.
    pub(crate) second: i64,
}

impl Civil {
    /// `None`: there is no such day, or it is out of reach.
    pub(crate) fn to_system(self) -> Option<SystemTime> {
        let Self { year, month, day, second } = self;
        let fits = (0..=9999).contains(&year) && (1..=12).contains(&month) && (1..=31).contains(&day);
        if !fits {
            return None;
        }
        // Years begin in March, so that the odd day is their last; 400 of them have 146,097 days.
        let year = if month <= 2 { year - 1 } else { year };
        let (era, year_of_era) = (year.div_euclid(400), year.rem_euclid(400));
        let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
        let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
        let seconds = (era * 146_097 + day_of_era - 719_468) * 86_400 + second;
        let distance = Duration::from_secs(seconds.unsigned_abs());
        if seconds < 0 { UNIX_EPOCH.checked_sub(distance) } else { UNIX_EPOCH.checked_add(distance) }
    }
}

/// RFC 3339, in UTC, to the millisecond; what lies before 1970 is 1970.
pub(crate) fn rfc3339(at: SystemTime) -> String {
    let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
    let (days, second) = ((since.as_secs() / 86_400).cast_signed(), since.as_secs() % 86_400);
    // As above, the other way round.
    let days = days + 719_468;
    let (era, day_of_era) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{:03}Z", since.subsec_millis())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_are_counted_as_calendars_do() {
        check((1970, 1, 1, 0), Some(0));
        check((2000, 2, 29, 1), Some(951_782_401));
        check((2000, 3, 1, 0), Some(951_868_800));
        check((2026, 11, 28, 33_834), Some(1_795_857_834));
        check((2100, 3, 1, 0), Some(4_107_542_400));
        check((2026, 13, 1, 0), None);
        check((2026, 0, 1, 0), None);
    }

    #[test]
    fn times_are_written_as_they_are_read() {
        for (millis, want) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (951_782_401_250, "2000-02-29T00:00:01.250Z"),
            (951_868_800_000, "2000-03-01T00:00:00.000Z"),
            (1_795_857_834_007, "2026-11-28T09:23:54.007Z"),
            (4_107_542_399_999, "2100-02-28T23:59:59.999Z"),
        ] {
            assert_eq!(rfc3339(UNIX_EPOCH + Duration::from_millis(millis)), want);
        }
        // Every day of a whole cycle of the calendar, against the other direction.
        for days in 0..146_097_u64 {
            let at = UNIX_EPOCH + Duration::from_secs(days * 86_400);
            let text = rfc3339(at);
            let part = |range: std::ops::Range<usize>| text[range].parse().unwrap();
            let back = Civil { year: part(0..4), month: part(5..7), day: part(8..10), second: 0 };
            assert_eq!(back.to_system(), Some(at), "{text}");
        }
    }

    #[track_caller]
    fn check((year, month, day, second): (i64, i64, i64, i64), want: Option<u64>) {
        let got = Civil { year, month, day, second }.to_system();
        assert_eq!(got, want.map(|seconds| UNIX_EPOCH + Duration::from_secs(seconds)));
    }
}
