//! Notices that the time of day was set: it and the steady clock then no longer go together.
//!
//! What the scaler waits for is a time of day: cooldowns, backoffs and the age of what nodes said. Set back by hours, it
//! would wait for hours; set forward, it would take everybody for silent and nothing for recent.

use std::time::{Duration, Instant, SystemTime};

/// Slower changes are how a clock is kept right, and no cooldown minds them.
const STEP_MIN: Duration = Duration::from_secs(5);

/// Both clocks when they were last looked at.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pace {
    now: Instant,
    wall: SystemTime,
}

impl Pace {
    pub(super) fn new(now: Instant, wall: SystemTime) -> Self {
        Self { now, wall }
    }

    /// By how many seconds the time of day was set since the last look, if it was.
    pub(super) fn step(&mut self, now: Instant, wall: SystemTime) -> Option<f64> {
        let due = self.wall + now.saturating_duration_since(self.now);
        *self = Self { now, wall };
        let by = match wall.duration_since(due) {
            Ok(ahead) => ahead.as_secs_f64(),
            Err(behind) => -behind.duration().as_secs_f64(),
        };
        (by.abs() >= STEP_MIN.as_secs_f64()).then_some(by)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_step_is_told_once_and_in_its_direction() {
        let (now, wall) = (Instant::now(), SystemTime::UNIX_EPOCH + 1000 * SECOND * 3600);
        let mut pace = Pace::new(now, wall);
        assert_eq!(pace.step(now + SECOND, wall + SECOND), None, "both go on");
        assert_eq!(pace.step(now + 2 * SECOND, wall + 3602 * SECOND), Some(3600.0));
        assert_eq!(pace.step(now + 3 * SECOND, wall + 3603 * SECOND), None, "it is known by now");
        assert_eq!(pace.step(now + 4 * SECOND, wall + 4 * SECOND), Some(-3600.0));
    }

    #[test]
    fn a_long_wait_and_a_clock_that_is_kept_right_are_no_steps() {
        let (now, wall) = (Instant::now(), SystemTime::UNIX_EPOCH + 3600 * SECOND);
        let mut pace = Pace::new(now, wall);
        assert_eq!(pace.step(now + 7200 * SECOND, wall + 7200 * SECOND), None);
        assert_eq!(pace.step(now + 7201 * SECOND, wall + 7205 * SECOND), None);
        assert_eq!(pace.step(now + 7202 * SECOND, wall + 7202 * SECOND), None);
    }
}
