//! Stays below the platform's limits: so many calls a second for each action and machine.
//!
//! Source: Fly's documentation of the Machines API, rate limits: 1 per second with bursts of 3, reads of a machine 5
//! per second with bursts of 10. A twentieth is left unused: the network brings calls closer together.

use std::collections::BTreeMap;
use std::time::Duration;

use peregrine_scaler::Timestamp;

/// Buckets that are kept; beyond that those go that are full again, which is as if they had never been.
const BUCKETS_MAX: usize = 4096;

/// What the platform counts separately.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Action {
    /// All machines.
    List,
    /// One machine.
    Get,
    /// A new machine.
    Create,
    /// Start.
    Start,
    /// Stop.
    Stop,
    /// Suspend.
    Suspend,
    /// Cordon.
    Cordon,
    /// Uncordon.
    Uncordon,
    /// Destroy.
    Destroy,
    /// Take or renew a lease.
    Lease,
    /// Give a lease back.
    Release,
    /// A word about a machine.
    SetMetadata,
    /// Room in regions.
    Placements,
}

impl Action {
    /// Time for one call, and how many may come at once.
    const fn limits(self) -> (Duration, u32) {
        match self {
            Self::Get => (Duration::from_millis(210), 10),
            _ => (Duration::from_millis(1050), 3),
        }
    }

    /// Time for as many calls as may come at once.
    const fn burst(self) -> Duration {
        let (each, at_once) = self.limits();
        each.saturating_mul(at_once)
    }
}

/// For each action and machine the time at which nothing will have been spent any more: a bucket of tokens, kept as a
/// time so that nothing is rounded.
#[derive(Clone, Debug, Default)]
pub struct Limiter {
    full_at: BTreeMap<(Action, String), Timestamp>,
}

impl Limiter {
    /// Spends one call, if there is one. `key`: the machine, or nothing where the app is what is counted.
    pub fn take(&mut self, action: Action, key: &str, now: Timestamp) -> bool {
        if self.full_at.len() >= BUCKETS_MAX {
            self.full_at.retain(|_, full_at| *full_at > now);
        }
        if self.full_at.len() >= BUCKETS_MAX {
            return false;
        }
        let full_at = self.full_at.entry((action, key.to_owned())).or_insert(now);
        // A clock that has gone back makes nobody wait for longer than an empty bucket does.
        let spent = after(now, action.burst());
        let next = after((*full_at).clamp(now, spent), action.limits().0);
        if next > spent {
            *full_at = (*full_at).min(spent);
            return false;
        }
        *full_at = next;
        true
    }

    /// The platform has refused a call: others count there too, so what was left here is gone.
    pub fn drain(&mut self, action: Action, key: &str, now: Timestamp) {
        if let Some(full_at) = self.full_at.get_mut(&(action, key.to_owned())) {
            *full_at = after(now, action.burst());
        }
    }
}

fn after(now: Timestamp, time: Duration) -> Timestamp {
    now.checked_add(time).unwrap_or(Timestamp::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Calls at these milliseconds, and whether each may go.
    #[track_caller]
    fn check(action: Action, calls: &[(i64, bool)]) {
        let mut limiter = Limiter::default();
        for (millis, expected) in calls {
            let now = Timestamp::from_millisecond(1_800_000_000_000 + millis).unwrap();
            assert_eq!(limiter.take(action, "a", now), *expected, "at {millis} ms");
        }
    }

    #[test]
    fn three_at_once_and_then_one_a_second() {
        let at_once = [(0, true), (0, true), (0, true), (0, false)];
        let later = [(1049, false), (1050, true), (1500, false), (2100, true), (60_000, true)];
        check(Action::Start, &[at_once.as_slice(), &later].concat());
        let reads = (0..10).map(|_| (0, true));
        let reads: Vec<(i64, bool)> =
            reads.chain([(0, false), (209, false), (210, true), (300, false)]).collect();
        check(Action::Get, &reads);
    }

    #[test]
    fn a_clock_that_goes_back_gives_nothing_and_blocks_nobody() {
        let calls = [(5000, true), (5000, true), (5000, true), (0, false), (1049, false), (1050, true)];
        check(Action::List, &calls);
    }

    #[test]
    fn a_refusal_empties_the_bucket_and_others_are_not_touched() {
        let now = Timestamp::from_second(1_800_000_000).unwrap();
        let mut limiter = Limiter::default();
        assert!(limiter.take(Action::Start, "a", now));
        limiter.drain(Action::Start, "a", now);
        assert!(!limiter.take(Action::Start, "a", now));
        assert!(limiter.take(Action::Start, "b", now) && limiter.take(Action::Stop, "a", now));
    }

    #[test]
    fn buckets_are_bounded_and_forgotten_when_full_again() {
        let at = |seconds: i64| Timestamp::from_second(1_800_000_000 + seconds).unwrap();
        let mut limiter = Limiter::default();
        for machine in 0..BUCKETS_MAX {
            assert!(limiter.take(Action::Start, &machine.to_string(), at(0)));
        }
        assert!(!limiter.take(Action::Start, "one more", at(0)), "all are in use");
        assert!(limiter.take(Action::Start, "one more", at(2)), "all are full again");
        assert_eq!(limiter.full_at.len(), 1);
    }
}
