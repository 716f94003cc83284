//! When requests of an open loop fall due: exponential gaps from a seed, as of many callers who know nothing of each
//! other. Pure; moments are spans since the load began.

use std::time::Duration;

use rand::rngs::SmallRng;
use rand::{RngExt as _, SeedableRng as _};

/// Due moments, one after the other, whatever becomes of the requests.
#[derive(Debug)]
pub struct Schedule {
    next: Duration,
    mean_s: f64,
    random: SmallRng,
}

impl Schedule {
    /// `rate` requests a second, above zero; the first falls due one gap after `start`.
    #[must_use]
    pub fn new(rate: f64, start: Duration, seed: u64) -> Self {
        let mut schedule = Self { next: start, mean_s: rate.recip(), random: SmallRng::seed_from_u64(seed) };
        schedule.step();
        schedule
    }

    /// The next due moment, taken out if it has come.
    pub fn pop(&mut self, now: Duration) -> Option<Duration> {
        if self.next > now {
            return None;
        }
        let due = self.next;
        self.step();
        Some(due)
    }

    /// The next due moment, left in.
    #[must_use]
    pub fn next(&self) -> Duration {
        self.next
    }

    /// Begins again at `now`: what fell due while nobody was to ask is nobody's request.
    pub fn resume(&mut self, now: Duration) {
        if self.next < now {
            self.next = now;
            self.step();
        }
    }

    fn step(&mut self) {
        // Not above one and never zero, so that the logarithm is finite.
        let uniform = 1.0 - self.random.random_range(0.0..1.0_f64);
        // What no clock reaches never falls due.
        let gap = Duration::try_from_secs_f64(-uniform.ln() * self.mean_s).unwrap_or(Duration::MAX);
        self.next = self.next.saturating_add(gap);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RATE: f64 = 1000.0;

    #[test]
    fn nothing_is_due_before_its_time_and_nothing_is_left_out() {
        let mut schedule = Schedule::new(RATE, Duration::ZERO, 7);
        let first = schedule.next();
        assert_eq!(schedule.pop(first - Duration::from_nanos(1)), None);
        assert_eq!(schedule.pop(first), Some(first));
        // A caller that slept gets every moment that it slept through, in order.
        let mut due = Vec::new();
        while let Some(moment) = schedule.pop(Duration::from_secs(1)) {
            due.push(moment);
        }
        assert!(due.is_sorted() && due.iter().all(|moment| *moment <= Duration::from_secs(1)));
        // A Poisson count: a thousand, give or take five times its root.
        assert!((840..=1160).contains(&due.len()), "{}", due.len());
    }

    #[test]
    fn gaps_are_exponential() {
        let gaps = gaps(7, 100_000);
        let mean = gaps.iter().sum::<f64>() / gaps.len() as f64;
        let spread = gaps.iter().map(|gap| (gap - mean).powi(2)).sum::<f64>() / gaps.len() as f64;
        // Mean and deviation of an exponential are equal; their errors over 100,000 gaps are 0.3 and 0.6 per cent.
        assert!((mean * RATE - 1.0).abs() < 0.02, "{mean}");
        assert!((spread.sqrt() * RATE - 1.0).abs() < 0.04, "{spread}");
        let long = gaps.iter().filter(|&&gap| gap * RATE > 3.0).count() as f64 / gaps.len() as f64;
        assert!((long / (-3.0_f64).exp() - 1.0).abs() < 0.1, "{long}");
    }

    #[test]
    fn a_rate_of_next_to_nothing_never_falls_due() {
        let mut schedule = Schedule::new(1e-300, Duration::ZERO, 7);
        assert_eq!(schedule.pop(Duration::from_secs(1 << 40)), None);
    }

    #[test]
    fn a_seed_is_a_schedule() {
        assert_eq!(gaps(7, 100), gaps(7, 100));
        assert_ne!(gaps(7, 100), gaps(8, 100));
    }

    #[test]
    fn a_pause_leaves_no_requests_behind() {
        let mut schedule = Schedule::new(RATE, Duration::ZERO, 7);
        schedule.resume(Duration::from_secs(5));
        assert!(schedule.next() > Duration::from_secs(5));
    }

    fn gaps(seed: u64, count: usize) -> Vec<f64> {
        let mut schedule = Schedule::new(RATE, Duration::ZERO, seed);
        let mut last = Duration::ZERO;
        (0..count)
            .map(|_| {
                let moment = schedule.pop(Duration::MAX).unwrap();
                (moment - std::mem::replace(&mut last, moment)).as_secs_f64()
            })
            .collect()
    }
}
