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

    #[track_caller]
    fn check((year, month, day, second): (i64, i64, i64, i64), want: Option<u64>) {
        let got = Civil { year, month, day, second }.to_system();
        assert_eq!(got, want.map(|seconds| UNIX_EPOCH + Duration::from_secs(seconds)));
    }
}
