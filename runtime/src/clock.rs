//! The only place that reads a clock.

use std::time::{Duration, Instant, SystemTime};

use parking_lot::Mutex;

/// Where time comes from; everything else is handed a reading.
pub trait Clock: Send + Sync + 'static {
    /// Monotonic time: for deadlines, ages and intervals.
    fn now(&self) -> Instant;

    /// Time of day: for records and people, never for arithmetic.
    fn wall(&self) -> SystemTime;

    /// Whether it is that instant, or later. Asked twice for every ask, and mostly of an instant that is far.
    fn has_reached(&self, instant: Instant) -> bool {
        self.now() >= instant
    }
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

    #[cfg(target_os = "linux")]
    fn has_reached(&self, instant: Instant) -> bool {
        instant <= coarse::bound() && self.now() >= instant
    }
}

/// The kernel's last tick: a fifth of the price of the clock itself, and behind it.
#[cfg(target_os = "linux")]
mod coarse {
    use std::mem::MaybeUninit;
    use std::sync::LazyLock;
    use std::time::{Duration, Instant};

    /// No tick is longer; the longest that Linux can be built with has 10 ms, and a late one is caught up with
    /// within a few.
    const TICK_MAX: Duration = Duration::from_millis(100);

    /// An instant that is not before the present one.
    pub(super) fn bound() -> Instant {
        // The tick is read first, so the instant is the later of the two.
        static START: LazyLock<(Duration, Instant)> = LazyLock::new(|| (last_tick(), Instant::now()));
        START.1 + last_tick().saturating_sub(START.0) + TICK_MAX
    }

    fn last_tick() -> Duration {
        let mut reading = MaybeUninit::<libc::timespec>::zeroed();
        // SAFETY: the pointer is good for one `timespec`, in which zeroes are a value.
        let reading = unsafe {
            libc::clock_gettime(libc::CLOCK_MONOTONIC_COARSE, reading.as_mut_ptr());
            reading.assume_init()
        };
        Duration::new(reading.tv_sec.unsigned_abs(), reading.tv_nsec.unsigned_abs() as u32)
    }

    #[cfg(test)]
    #[test]
    fn the_bound_is_never_before_the_clock_and_not_far_behind_it() {
        for _ in 0..10_000 {
            let before = Instant::now();
            let bound = bound();
            assert!(before <= bound && bound <= Instant::now() + 2 * TICK_MAX);
        }
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
        assert!(clock.has_reached(now + Duration::from_secs(3)));
        assert!(!clock.has_reached(now + Duration::from_secs(4)));
        assert_eq!(clock.wall(), wall + Duration::from_secs(3));
    }
    #[test]
    fn an_instant_is_reached_when_the_clock_says_so_whether_it_is_near_or_far() {
        let now = SystemClock.now();
        for (instant, expected) in [
            (now - Duration::from_millis(1), true),
            (now, true),
            (now + Duration::from_secs(60), false),
            (now + Duration::from_secs(3600), false),
        ] {
            assert_eq!(SystemClock.has_reached(instant), expected);
        }
        let near = SystemClock.now() + Duration::from_millis(2);
        while !SystemClock.has_reached(near) {
            std::hint::spin_loop();
        }
        assert!(SystemClock.now() >= near);
    }
}
