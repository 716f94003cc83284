//! Stays below the platform's limits: so many calls a second for each action and machine.
//!
//! Source: Fly's documentation of the Machines API, rate limits: 1 per second with bursts of 3, reads of a machine 5
//! per second with bursts of 10.

use std::collections::BTreeMap;

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
    /// Calls per second, and how many at once.
    const fn limits(self) -> (f64, f64) {
        match self {
            Self::Get => (5.0, 10.0),
            _ => (1.0, 3.0),
        }
    }
}

#[derive(Clone, Copy, Debug)]
struct Bucket {
    tokens: f64,
    at: Timestamp,
}

/// A bucket of tokens for each action and machine.
#[derive(Clone, Debug, Default)]
pub struct Limiter {
    buckets: BTreeMap<(Action, String), Bucket>,
}

impl Limiter {
    /// Takes one token, if there is one. `key`: the machine, or nothing where the app is what is counted.
    pub fn take(&mut self, action: Action, key: &str, now: Timestamp) -> bool {
        if self.buckets.len() >= BUCKETS_MAX {
            self.buckets.retain(|(action, _), bucket| filled(*bucket, *action, now) < action.limits().1);
        }
        if self.buckets.len() >= BUCKETS_MAX {
            return false;
        }
        let fresh = Bucket { tokens: action.limits().1, at: now };
        let bucket = self.buckets.entry((action, key.to_owned())).or_insert(fresh);
        let tokens = filled(*bucket, action, now);
        let is_enough = tokens >= 1.0;
        // A clock that goes back gives nothing, and takes nothing.
        *bucket = Bucket { tokens: if is_enough { tokens - 1.0 } else { tokens }, at: bucket.at.max(now) };
        is_enough
    }

    /// The platform has refused a call: others count there too, so what was left here is gone.
    pub fn drain(&mut self, action: Action, key: &str, now: Timestamp) {
        if let Some(bucket) = self.buckets.get_mut(&(action, key.to_owned())) {
            *bucket = Bucket { tokens: 0.0, at: bucket.at.max(now) };
        }
    }
}

fn filled(bucket: Bucket, action: Action, now: Timestamp) -> f64 {
    let (per_second, burst) = action.limits();
    let seconds = now.duration_since(bucket.at).as_secs_f64().max(0.0);
    (bucket.tokens + seconds * per_second).min(burst)
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
        let calls = [
            (0, true),
            (0, true),
            (0, true),
            (0, false),
            (999, false),
            (1000, true),
            (1500, false),
            (2000, true),
        ];
        check(Action::Start, &calls);
        let reads: Vec<(i64, bool)> =
            (0..10).map(|_| (0, true)).chain([(0, false), (200, true), (300, false)]).collect();
        check(Action::Get, &reads);
    }

    #[test]
    fn a_clock_that_goes_back_gives_nothing() {
        let calls = [
            (5000, true),
            (5000, true),
            (5000, true),
            (0, false),
            (5000, false),
            (5999, false),
            (6000, true),
        ];
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
        assert!(limiter.take(Action::Start, "one more", at(1)), "all are full again");
        assert_eq!(limiter.buckets.len(), 1);
    }
}
