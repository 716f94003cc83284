//! Knative's pod autoscaler, by concurrency.
//!
//! Source: "Supported autoscaler types" and "Configuring the autoscaler", knative.dev/docs/serving/autoscaling, and
//! knative/serving, pkg/autoscaler/scaling/autoscaler.go: `desired = ceil(concurrency / target)` of the mean over a
//! stable window of 60 s; when what the mean over a panic window of 6 s desires is at least the double of the ready
//! machines, the more of both, and no fewer until the stable window has passed without; at most a thousand times more
//! and half as few at once; without data nothing changes, and those that are silent are taken to be like those that
//! speak (it asks a sample anyway). Scaling to none is off, as the group's least machines have it. Here it is asked at
//! every step and not every 2 s: a panic window is then the latest steps of 6 s, and one at least.

use std::collections::VecDeque;
use std::time::Duration;

use jiff::Timestamp;

use crate::control::{Policy, Sight};
use crate::rule::after;
use crate::signal::Signal;

const STABLE: Duration = Duration::from_secs(60);
const PANIC: Duration = Duration::from_secs(6);
const PANIC_AT: f64 = 2.0;
const UP_MAX: f64 = 1000.0;
const DOWN_MAX: f64 = 2.0;

/// Keeps so many requests in each machine.
#[derive(Clone, Debug)]
pub struct Kpa {
    target: f64,
    seen: VecDeque<(Timestamp, f64)>,
    panics_since: Option<Timestamp>,
    panic_most: u32,
}

impl Kpa {
    /// `target` requests inside each machine.
    #[must_use]
    pub const fn new(target: f64) -> Self {
        Self { target, seen: VecDeque::new(), panics_since: None, panic_most: 0 }
    }

    fn mean(&self, window: Duration, now: Timestamp) -> Option<f64> {
        let recent = || self.seen.iter().filter(|(at, _)| after(*at, window) > now).map(|(_, value)| *value);
        let count = u32::try_from(recent().count()).ok().filter(|count| *count > 0)?;
        Some(recent().sum::<f64>() / f64::from(count))
    }

    fn decide(&mut self, concurrency: Option<f64>, ready: u32, wanted: u32, now: Timestamp) -> u32 {
        self.seen.extend(concurrency.map(|concurrency| (now, concurrency)));
        while self.seen.front().is_some_and(|(at, _)| after(*at, STABLE) <= now) {
            self.seen.pop_front();
        }
        let (Some(stable), Some(panic)) = (self.mean(STABLE, now), self.mean(PANIC, now)) else {
            return wanted;
        };
        let ready = f64::from(ready.max(1));
        let bounds = ((ready / DOWN_MAX).floor(), (ready * UP_MAX).ceil());
        let desired = |value: f64| (value / self.target).ceil();
        let is_panic = desired(panic) / ready >= PANIC_AT;
        let bounded = |value: f64| to_count(desired(value).max(bounds.0).min(bounds.1));
        let (stable, panic) = (bounded(stable), bounded(panic));
        match self.panics_since {
            _ if is_panic => self.panics_since = Some(now),
            Some(since) if after(since, STABLE) < now => {
                self.panics_since = None;
                self.panic_most = 0;
            }
            _ => {}
        }
        if self.panics_since.is_none() {
            return stable;
        }
        self.panic_most = self.panic_most.max(stable).max(panic);
        self.panic_most
    }
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a rounded number, saturating")]
fn to_count(value: f64) -> u32 {
    value.clamp(0.0, f64::from(u32::MAX)) as u32
}

impl Policy for Kpa {
    fn name(&self) -> &str {
        "kpa"
    }

    fn wanted(&mut self, sight: &Sight<'_>) -> u32 {
        let spoken = sight.signals.expected - sight.signals.silent.min(sight.signals.expected);
        let inside = sight.signals.reading(Signal::InFlight).to_add();
        let concurrency = inside
            .filter(|_| spoken > 0)
            .map(|inside| inside * f64::from(sight.signals.expected) / f64::from(spoken));
        self.decide(concurrency, sight.signals.ready, sight.wanted, sight.now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Steps of ten seconds: what is inside, how many are ready, and what is wanted then.
    #[track_caller]
    fn check(steps: &[(Option<f64>, u32, u32)]) {
        let mut kpa = Kpa::new(2.0);
        let (mut wanted, mut now) = (1, Timestamp::from_second(1_800_000_000).unwrap());
        for (index, (inside, ready, expected)) in steps.iter().enumerate() {
            wanted = kpa.decide(*inside, *ready, wanted, now);
            assert_eq!(wanted, *expected, "step {index}");
            now = after(now, Duration::from_secs(10));
        }
    }

    #[test]
    fn the_stable_window_decides() {
        // The mean grows with each step: 3, 3.5, 3.67.
        check(&[(Some(3.0), 2, 2), (Some(4.0), 2, 2), (Some(4.0), 2, 2), (Some(6.0), 2, 3)]);
    }

    #[test]
    fn a_panic_follows_the_latest_and_takes_nothing_away() {
        let calm = (Some(1.0), 2, 1);
        let mut steps = vec![calm, calm, (Some(9.0), 2, 5)];
        // No fewer for the whole stable window, whatever is inside.
        steps.extend([(Some(1.0), 5, 5); 6]);
        steps.push((Some(1.0), 5, 2));
        check(&steps);
    }

    #[test]
    fn without_data_nothing_changes() {
        let mut steps = vec![(Some(5.0), 3, 3), (Some(5.0), 3, 3)];
        steps.extend([(None, 3, 3); 30]);
        steps.push((Some(1.0), 3, 1));
        check(&steps);
    }
}
