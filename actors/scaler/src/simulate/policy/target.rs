//! Target tracking by the formula of the Kubernetes horizontal pod autoscaler.
//!
//! Source: "Horizontal Pod Autoscaling", kubernetes.io/docs/tasks/run-application/horizontal-pod-autoscale, sections
//! "Algorithm details" and "Configurable scaling behavior", and its controller's replica calculator
//! (kubernetes/kubernetes, pkg/controller/podautoscaler/replica_calculator.go): `desired = ceil(current · metric /
//! target)`; nothing within a tolerance of 10 %; machines that are not ready yet count as using nothing when more would
//! be wanted; those without a metric count as using nothing when more, and all of it when fewer would be wanted; what
//! would turn the direction around is dropped; without any metric nothing changes. More at once are at most the double
//! and at least four, in 15 s; fewer are the most that was wanted within 300 s.

use std::collections::VecDeque;
use std::time::Duration;

use jiff::Timestamp;

use crate::control::{Policy, Sight};
use crate::fleet::MachineState;
use crate::rule::after;
use crate::signal::Signal;

const TOLERANCE: f64 = 0.1;
const STABILISATION: Duration = Duration::from_secs(300);

/// Keeps a signal at a target.
#[derive(Clone, Debug)]
pub struct TargetTracking {
    name: String,
    signal: Signal,
    target: f64,
    /// What was wanted of late; each more than all after it.
    wanted: VecDeque<(Timestamp, u32)>,
}

/// What the machines say, as the calculator sorts them.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Counts {
    /// Sum of those that say something, and how many they are.
    sum: f64,
    said: u32,
    /// Not ready yet.
    unready: u32,
    missing: u32,
}

impl TargetTracking {
    /// Keeps the utilisation of machines at `target`, 0 to 1.
    #[must_use]
    pub fn of_utilisation(target: f64) -> Self {
        let name = format!("target {:.0} %", target * 100.0);
        Self { name, signal: Signal::Utilisation, target, wanted: VecDeque::new() }
    }

    fn counts(&self, sight: &Sight<'_>) -> Counts {
        let mut counts = Counts::default();
        let mut unready = 0;
        for machine in sight.machines.iter().filter(|machine| !machine.cordoned) {
            let measured = sight.reports.get(&machine.id).filter(|report| report.is_ready);
            let measured = measured.and_then(|report| report.measured.get(&self.signal));
            match (machine.state, measured) {
                (MachineState::Started, Some(value)) if value.is_finite() => {
                    counts.sum += value;
                    counts.said += 1;
                }
                (MachineState::Starting, _) => unready += 1,
                (MachineState::Started, _) => counts.missing += 1,
                _ => {}
            }
        }
        // A machine that has only started is not ready rather than silent, which the group's signals tell apart.
        let silent = sight.signals.silent.min(counts.missing);
        counts.unready = unready + (counts.missing - silent);
        counts.missing = silent;
        counts
    }

    fn within_window(&mut self, wanted: u32, now: Timestamp) -> u32 {
        while self.wanted.back().is_some_and(|(_, earlier)| *earlier <= wanted) {
            self.wanted.pop_back();
        }
        self.wanted.push_back((now, wanted));
        while self.wanted.front().is_some_and(|(at, _)| after(*at, STABILISATION) < now) {
            self.wanted.pop_front();
        }
        self.wanted.front().map_or(wanted, |(_, most)| *most)
    }
}

/// Machines for what they say.
fn desired(counts: Counts, current: u32, target: f64) -> u32 {
    if counts.said == 0 {
        return current;
    }
    let ratio = counts.sum / f64::from(counts.said) / target;
    let counts_unready = counts.unready > 0 && ratio > 1.0;
    if !counts_unready && counts.missing == 0 {
        let is_near = (1.0 - ratio).abs() <= TOLERANCE;
        return if is_near { current } else { ceil(ratio * f64::from(counts.said)) };
    }
    let (mut sum, mut count) = (counts.sum, counts.said);
    if counts.missing > 0 {
        count += counts.missing;
        if ratio < 1.0 {
            sum += target.max(1.0) * f64::from(counts.missing);
        }
    }
    if counts_unready {
        count += counts.unready;
    }
    let mended = sum / f64::from(count) / target;
    let turns = (ratio < 1.0 && mended > 1.0) || (ratio > 1.0 && mended < 1.0);
    if (1.0 - mended).abs() <= TOLERANCE || turns {
        return current;
    }
    let wanted = ceil(mended * f64::from(count));
    let turns = (mended < 1.0 && wanted > current) || (mended > 1.0 && wanted < current);
    if turns { current } else { wanted }
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a rounded number, saturating")]
fn ceil(value: f64) -> u32 {
    value.ceil().clamp(0.0, f64::from(u32::MAX)) as u32
}

impl Policy for TargetTracking {
    fn name(&self) -> &str {
        &self.name
    }

    fn wanted(&mut self, sight: &Sight<'_>) -> u32 {
        let current = sight.wanted;
        let wanted = desired(self.counts(sight), current, self.target);
        let fastest = current.saturating_mul(2).max(current.saturating_add(4));
        self.within_window(wanted, sight.now).min(fastest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(sum: f64, said: u32, unready: u32, missing: u32, current: u32, expected: u32) {
        assert_eq!(desired(Counts { sum, said, unready, missing }, current, 0.5), expected);
    }

    #[test]
    fn the_formula() {
        check(2.0, 2, 0, 0, 2, 4);
        check(1.08, 2, 0, 0, 2, 2);
        check(1.12, 2, 0, 0, 2, 3);
        check(0.4, 4, 0, 0, 4, 1);
        check(0.0, 0, 0, 3, 3, 3);
    }

    #[test]
    fn who_is_not_ready_dampens_and_who_is_silent_counts_against() {
        // Four at 100 % would want eight; with two that are coming, eight of six.
        check(4.0, 4, 2, 0, 6, 8);
        // Two at 60 % would want three; the one that is coming makes it enough.
        check(1.2, 2, 1, 0, 3, 3);
        // Three of four are idle, the silent one may be all that works: 1.3 of 2, and so three.
        check(0.3, 3, 0, 1, 4, 3);
        // Fewer would be wanted of those that speak, more with the silent: nothing changes.
        check(0.8, 2, 0, 2, 4, 4);
        // More would be wanted, and the silent count as idle.
        check(1.4, 2, 0, 2, 4, 4);
    }

    #[test]
    fn the_most_of_five_minutes_stays() {
        let mut tracking = TargetTracking::of_utilisation(0.5);
        let at = |second: i64| Timestamp::from_second(1_800_000_000 + second).unwrap();
        let said = [(0, 3), (100, 5), (200, 2), (399, 2), (400, 1), (401, 1), (501, 1)];
        let stays: Vec<u32> =
            said.iter().map(|(second, wanted)| tracking.within_window(*wanted, at(*second))).collect();
        assert_eq!(stays, [3, 5, 5, 5, 5, 2, 2]);
        assert_eq!(tracking.within_window(1, at(700)), 1);
    }
}
