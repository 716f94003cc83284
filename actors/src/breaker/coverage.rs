//! Decides whether a model version is to be believed: a circuit that opens when its intervals hold too little of the
//! truth, and closes when they hold enough of it again.
//!
//! Knows no scorecard, release or clock: what the newest truths say and clock readings in, the next state out. While it
//! is open the version answers only where nobody else can. Half-open, it forecasts for nobody but the scorecard, from
//! truths that came since.

use std::time::Instant;

use super::state::BreakerLimits;

/// What the newest truths say of a version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Held {
    /// Too few have come.
    Unknown,
    Enough,
    TooLittle,
}

/// The circuit of one version.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Trust {
    #[default]
    Closed,
    /// What it says is scored anew from `until` on; it has opened `streak` times in a row.
    Open {
        until: Instant,
        streak: u32,
    },
    HalfOpen {
        streak: u32,
    },
}

impl Trust {
    /// The one place where it changes.
    pub(crate) fn next(self, held: Held, now: Instant, limits: &BreakerLimits) -> Self {
        match (self, held) {
            (Self::Closed, Held::TooLittle) => Self::opened(0, now, limits),
            (Self::HalfOpen { streak }, Held::TooLittle) => Self::opened(streak, now, limits),
            (Self::HalfOpen { .. }, Held::Enough) => Self::Closed,
            (Self::Open { until, streak }, _) if until <= now => Self::HalfOpen { streak },
            // What is scored while it is open was mostly said before.
            (Self::Open { .. }, _) | (Self::Closed | Self::HalfOpen { .. }, _) => self,
        }
    }

    fn opened(streak: u32, now: Instant, limits: &BreakerLimits) -> Self {
        Self::Open { until: now + limits.pause(streak), streak: streak + 1 }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::Held::{Enough, TooLittle, Unknown};
    use super::*;

    #[test]
    fn too_little_opens_and_nothing_else_does() {
        check(&[(0, Unknown), (10, Enough), (20, Unknown)], "closed");
        check(&[(0, Enough), (10, TooLittle)], "open until 110");
    }

    #[test]
    fn nothing_counts_until_the_pause_is_over() {
        check(&[(0, TooLittle), (50, Enough)], "open until 100");
        check(&[(0, TooLittle), (99, TooLittle)], "open until 100");
        // What came before does not count behind it either.
        check(&[(0, TooLittle), (100, Enough)], "half-open");
        check(&[(0, TooLittle), (100, TooLittle)], "half-open");
    }

    #[test]
    fn what_is_scored_anew_decides() {
        let half_open = [(0, TooLittle), (100, TooLittle)];
        check(&[half_open[0], half_open[1], (500, Unknown)], "half-open");
        check(&[half_open[0], half_open[1], (110, Enough)], "closed");
        check(&[half_open[0], half_open[1], (110, TooLittle)], "open until 310");
    }

    #[test]
    fn each_time_in_a_row_it_pauses_for_longer_up_to_a_bound() {
        let mut looks = vec![(0, TooLittle)];
        looks.extend((1..10).flat_map(|round| [(round * 1000, Unknown), (round * 1000, TooLittle)]));
        check(&looks, "open until 9500");
        looks.extend([(10_000, Unknown), (10_000, Enough), (10_010, TooLittle)]);
        check(&looks, "open until 10110");
    }

    /// Looks at milliseconds.
    #[track_caller]
    fn check(looks: &[(u64, Held)], expected: &str) {
        let limits = BreakerLimits {
            open_for: Duration::from_millis(100),
            open_for_max: Duration::from_millis(500),
            ..BreakerLimits::default()
        };
        let start = Instant::now();
        let look = |trust: Trust, &(ms, held): &(u64, Held)| {
            trust.next(held, start + Duration::from_millis(ms), &limits)
        };
        let found = match looks.iter().fold(Trust::default(), look) {
            Trust::Closed => "closed".to_owned(),
            Trust::Open { until, .. } => format!("open until {}", (until - start).as_millis()),
            Trust::HalfOpen { .. } => "half-open".to_owned(),
        };
        assert_eq!(found, expected, "{looks:?}");
    }
}
