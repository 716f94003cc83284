//! The only place that reads a clock.

use std::time::{Duration, Instant, SystemTime};

use parking_lot::Mutex;

/// Where time comes from; everything else is handed a reading.
pub trait Clock: Send + Sync + 'static {
    /// Monotonic time: for deadlines, ages and intervals.
    fn now(&self) -> Instant;

    /// Time of day: for records and people, never for arithmetic.
    fn wall(&self) -> SystemTime;
}

/// The clock of the machine.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Instant {
        Instant::now()
    }

    fn wall(&self) -> SystemTime {
        SystemTime::now()
    }
}

/// A clock that moves only when told to. Blocked waits still follow the clock of the machine.
#[derive(Debug)]
pub struct ManualClock {
    start: (Instant, SystemTime),
    elapsed: Mutex<Duration>,
}

impl ManualClock {
    /// Starts at the present moment and stays there.
    pub fn new() -> Self {
        Self { start: (Instant::now(), SystemTime::now()), elapsed: Mutex::new(Duration::ZERO) }
    }

    /// Moves both readings forward.
    pub fn advance(&self, by: Duration) {
        *self.elapsed.lock() += by;
    }
}

impl Default for ManualClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Instant {
        self.start.0 + *self.elapsed.lock()
    }

    fn wall(&self) -> SystemTime {
        self.start.1 + *self.elapsed.lock()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manual_clock_moves_only_when_told_to() {
        let clock = ManualClock::new();
        let (now, wall) = (clock.now(), clock.wall());
        assert_eq!(clock.now(), now);
        clock.advance(Duration::from_secs(3));
        assert_eq!(clock.now() - now, Duration::from_secs(3));
        assert_eq!(clock.wall(), wall + Duration::from_secs(3));
    }
}
