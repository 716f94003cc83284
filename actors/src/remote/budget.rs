//! How much more may be asked than was asked of us: retries and hedges as shares of the requests.
//!
//! When every node fails, retries would multiply the load that makes them fail; a share bounds that whatever happens.
//! Plain arithmetic: readings of a clock in, yes or no out.

use std::time::{Duration, Instant};

/// How many retries there may be.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RetryLimits {
    /// Retries for each request of the last seconds, in `[0, 1]`.
    pub share: f64,
    /// Retries in the last seconds that are allowed even to a node with few requests.
    pub reserve: u32,
    /// What "the last seconds" are.
    pub window: Duration,
}

impl Default for RetryLimits {
    fn default() -> Self {
        Self { share: 0.2, reserve: 10, window: Duration::from_secs(10) }
    }
}

const SLOTS: usize = 10;

/// Requests and retries of the last seconds.
#[derive(Debug)]
pub(crate) struct RetryBudget {
    limits: RetryLimits,
    born: Instant,
    /// By tenth of the window, with the number of that tenth since birth.
    slots: [Slot; SLOTS],
}

#[derive(Clone, Copy, Debug, Default)]
struct Slot {
    tenth: u128,
    requests: u64,
    retries: u64,
}

impl RetryBudget {
    pub(crate) fn new(limits: RetryLimits, born: Instant) -> Self {
        Self { limits, born, slots: [Slot::default(); SLOTS] }
    }

    /// A request has come.
    pub(crate) fn deposit(&mut self, now: Instant) {
        self.slot(now).requests += 1;
    }

    /// Whether one more retry may be made; it then counts.
    pub(crate) fn withdraw(&mut self, now: Instant) -> bool {
        let tenth = self.tenth(now);
        let recent = self.slots.iter().filter(|slot| slot.tenth + SLOTS as u128 > tenth);
        let (requests, retries) = recent
            .fold((0, 0), |(requests, retries), slot| (requests + slot.requests, retries + slot.retries));
        let allowed = f64::from(self.limits.reserve) + requests as f64 * self.limits.share;
        let grants = (retries + 1) as f64 <= allowed;
        if grants {
            self.slot(now).retries += 1;
        }
        grants
    }

    fn tenth(&self, now: Instant) -> u128 {
        let width = (self.limits.window.as_nanos() / SLOTS as u128).max(1);
        now.saturating_duration_since(self.born).as_nanos() / width
    }

    fn slot(&mut self, now: Instant) -> &mut Slot {
        let tenth = self.tenth(now);
        let slot = &mut self.slots[(tenth % SLOTS as u128) as usize];
        if slot.tenth != tenth {
            *slot = Slot { tenth, ..Slot::default() };
        }
        slot
    }
}

/// Tokens that come with requests and go with hedges.
#[derive(Debug)]
pub(crate) struct HedgeBudget {
    share: f64,
    tokens_max: f64,
    tokens: f64,
}

impl HedgeBudget {
    pub(crate) fn new(share: f64, tokens_max: u32) -> Self {
        Self { share, tokens_max: f64::from(tokens_max), tokens: 0.0 }
    }

    /// A request has come.
    pub(crate) fn deposit(&mut self) {
        self.tokens = (self.tokens + self.share).min(self.tokens_max);
    }

    /// Whether one more hedge may be sent; it then counts.
    pub(crate) fn withdraw(&mut self) -> bool {
        // Twenty times a twentieth is a little less than one.
        let grants = self.tokens >= 1.0 - 1e-9;
        if grants {
            self.tokens -= 1.0;
        }
        grants
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retries_are_a_share_of_the_requests() {
        check(0.2, 0, &[(0, 100)], 0, 20);
        check(0.0, 0, &[(0, 100)], 0, 0);
        check(1.0, 0, &[(0, 7)], 0, 7);
    }

    #[test]
    fn a_quiet_node_has_a_reserve() {
        check(0.2, 3, &[], 0, 3);
        check(0.2, 3, &[(0, 10)], 0, 5);
    }

    #[test]
    fn what_was_long_ago_does_not_count() {
        check(0.5, 0, &[(0, 100), (9_500, 10)], 9_900, 55);
        check(0.5, 0, &[(0, 100), (9_500, 10)], 10_000, 5);
        check(0.5, 0, &[(0, 100)], 60_000, 0);
    }

    #[test]
    fn spent_retries_come_back_after_the_window() {
        let start = Instant::now();
        let mut budget =
            RetryBudget::new(RetryLimits { share: 0.0, reserve: 1, ..RetryLimits::default() }, start);
        let at = |ms| start + Duration::from_millis(ms);
        assert!(budget.withdraw(at(0)));
        assert!(!budget.withdraw(at(9_999)));
        assert!(budget.withdraw(at(10_000)));
    }

    #[test]
    fn hedges_are_a_share_of_the_requests_and_do_not_pile_up() {
        let mut budget = HedgeBudget::new(0.05, 2);
        let grants = |budget: &mut HedgeBudget| (0..100).filter(|_| budget.withdraw()).count();
        assert_eq!(grants(&mut budget), 0);
        (0..20).for_each(|_| budget.deposit());
        assert_eq!(grants(&mut budget), 1);
        (0..1000).for_each(|_| budget.deposit());
        assert_eq!(grants(&mut budget), 2);
    }

    /// Requests at milliseconds; then as many retries as are granted at `now_ms`.
    #[track_caller]
    fn check(share: f64, reserve: u32, requests: &[(u64, usize)], now_ms: u64, granted: usize) {
        let start = Instant::now();
        let limits = RetryLimits { share, reserve, window: Duration::from_secs(10) };
        let mut budget = RetryBudget::new(limits, start);
        for &(ms, count) in requests {
            (0..count).for_each(|_| budget.deposit(start + Duration::from_millis(ms)));
        }
        let now = start + Duration::from_millis(now_ms);
        assert_eq!((0..10_000).filter(|_| budget.withdraw(now)).count(), granted);
    }
}
