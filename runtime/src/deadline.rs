//! The moment at which an answer stops being useful.
//!
//! Reads no clock: whoever asks brings the time. A deadline is passed on, never renewed.

use std::time::{Duration, Instant};

/// An absolute point in time that travels with a request through every hop.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Deadline(Instant);

/// Stands in for durations that overflow an [`Instant`]; far enough to mean "no hurry".
const FAR: Duration = Duration::from_secs(30 * 24 * 3600);

impl Deadline {
    /// The deadline at exactly this instant.
    pub fn at(instant: Instant) -> Self {
        Self(instant)
    }

    /// The deadline this long after a clock reading.
    pub fn after(now: Instant, delay: Duration) -> Self {
        Self(now.checked_add(delay).unwrap_or_else(|| now + FAR))
    }

    /// The instant itself.
    pub fn instant(self) -> Instant {
        self.0
    }

    /// What is left; zero once it has passed.
    pub fn remaining(self, now: Instant) -> Duration {
        self.0.saturating_duration_since(now)
    }

    /// Whether it has passed.
    pub fn expired(self, now: Instant) -> bool {
        now >= self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_is_left_before_the_deadline() {
        check(50, 20, 30, false);
    }

    #[test]
    fn a_deadline_expires_on_the_instant() {
        check(50, 50, 0, true);
    }

    #[test]
    fn nothing_is_left_afterwards() {
        check(50, 80, 0, true);
    }

    #[test]
    fn an_endless_delay_is_merely_far() {
        let now = Instant::now();
        assert_eq!(Deadline::after(now, Duration::MAX).remaining(now), FAR);
    }

    #[track_caller]
    fn check(delay_ms: u64, elapsed_ms: u64, remaining_ms: u64, expired: bool) {
        let start = Instant::now();
        let now = start + Duration::from_millis(elapsed_ms);
        let deadline = Deadline::after(start, Duration::from_millis(delay_ms));
        assert_eq!(deadline.remaining(now), Duration::from_millis(remaining_ms));
        assert_eq!(deadline.expired(now), expired);
    }
}
