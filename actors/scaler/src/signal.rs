//! What nodes say of themselves, and what that says of a group.
//!
//! Nobody who is silent counts as idle. A signal of a group is known when every machine that should speak has spoken
//! of late, partly known when some have, and missing when none has; rules that take machines away see only what is
//! known, rules that add some see what is partly known too.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;

use crate::fleet::{Machine, MachineState};

/// What one node last said of itself.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct NodeReport {
    /// When that was heard, by the clock of whoever heard it.
    pub at: Timestamp,
    /// It takes requests.
    pub is_ready: bool,
    /// It was told to take no more.
    pub is_draining: bool,
    /// What it measured. What it could not measure is not there, never zero.
    pub measured: BTreeMap<Signal, f64>,
}

/// What can be measured of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Signal {
    /// Share of the time in which its device computes; of a node without one, its cores. 0 to 1.
    Utilisation,
    /// Share of its device's memory in use; of a node without one, of the machine's. 0 to 1.
    MemoryShare,
    /// Seconds that the oldest waiting request has waited.
    QueueAge,
    /// Requests per second that were asked, answered or not.
    RequestRate,
    /// Seconds within which 95 of 100 requests were answered.
    P95,
    /// Share of requests that failed. 0 to 1.
    ErrorShare,
    /// Requests inside.
    InFlight,
    /// Ticks per second.
    TickRate,
    /// Predictions per second.
    PredictionRate,
}

/// How the signals of nodes become one of their group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fold {
    Sum,
    Mean,
    Max,
}

impl Signal {
    /// All of them.
    pub const ALL: [Self; 9] = [
        Self::Utilisation,
        Self::MemoryShare,
        Self::QueueAge,
        Self::RequestRate,
        Self::P95,
        Self::ErrorShare,
        Self::InFlight,
        Self::TickRate,
        Self::PredictionRate,
    ];

    /// Its name in rules.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Utilisation => "utilisation",
            Self::MemoryShare => "memory_share",
            Self::QueueAge => "queue_age",
            Self::RequestRate => "request_rate",
            Self::P95 => "p95",
            Self::ErrorShare => "error_share",
            Self::InFlight => "in_flight",
            Self::TickRate => "tick_rate",
            Self::PredictionRate => "prediction_rate",
        }
    }

    /// Rates add up; the worst memory and the slowest answers count as they are; load is a matter of all.
    const fn fold(self) -> Fold {
        match self {
            Self::RequestRate | Self::InFlight | Self::TickRate | Self::PredictionRate => Fold::Sum,
            Self::Utilisation => Fold::Mean,
            Self::MemoryShare | Self::QueueAge | Self::P95 | Self::ErrorShare => Fold::Max,
        }
    }
}

/// What is known of a quantity.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Reading {
    /// All that should say have said.
    Known(f64),
    /// What those say that do; others are silent.
    Partly(f64),
    /// Nobody says.
    Missing,
}

impl Reading {
    /// The value for a rule that adds machines.
    #[must_use]
    pub const fn to_add(self) -> Option<f64> {
        match self {
            Self::Known(value) | Self::Partly(value) => Some(value),
            Self::Missing => None,
        }
    }

    /// The value for a rule that takes machines away.
    #[must_use]
    pub const fn to_remove(self) -> Option<f64> {
        match self {
            Self::Known(value) => Some(value),
            Self::Partly(_) | Self::Missing => None,
        }
    }
}

/// What is known of a group.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct GroupSignals {
    /// By signal; one that is not there is missing.
    readings: BTreeMap<Signal, Reading>,
    /// Machines that should speak.
    pub expected: u32,
    /// Of those, the ones that have not of late.
    pub silent: u32,
    /// Machines whose nodes take requests.
    pub ready: u32,
    /// Nodes that come from no pool and take requests.
    pub fixed_ready: u32,
}

impl GroupSignals {
    /// One signal.
    #[must_use]
    pub fn reading(&self, signal: Signal) -> Reading {
        self.readings.get(&signal).copied().unwrap_or(Reading::Missing)
    }

    /// What `machines` of one group say, and the nodes beside them that do the same work and come from no pool. A
    /// machine must speak once it runs for longer than `grace`; a report older than `stale_after` is none, nor is one
    /// from the future or a value that is no number.
    #[must_use]
    pub fn of<'a>(
        machines: impl Iterator<Item = (&'a Machine, Option<&'a NodeReport>)>,
        fixed: &[NodeReport],
        now: Timestamp,
        stale_after: Duration,
        grace: Duration,
    ) -> Self {
        let mut signals = Self::default();
        let mut values = BTreeMap::<Signal, Vec<f64>>::new();
        let is_fresh = |report: &&NodeReport| age(now, report.at).is_some_and(|age| age <= stale_after);
        let mut hear = |heard: &NodeReport| {
            for signal in Signal::ALL {
                if let Some(value) = heard.measured.get(&signal).filter(|value| value.is_finite()) {
                    values.entry(signal).or_default().push(*value);
                }
            }
        };
        // Nobody knows which fixed nodes there should be: one that is gone is not missed.
        for heard in fixed.iter().filter(is_fresh) {
            signals.expected += 1;
            signals.fixed_ready += u32::from(heard.is_ready);
            hear(heard);
        }
        for (machine, report) in machines {
            let heard = report.filter(is_fresh);
            let runs = matches!(machine.state, MachineState::Started | MachineState::Unknown);
            let is_young = age(now, machine.created_at).is_none_or(|age| age <= grace);
            let Some(heard) = heard else {
                if runs && !is_young && !machine.cordoned {
                    signals.expected += 1;
                    signals.silent += 1;
                }
                continue;
            };
            signals.expected += 1;
            signals.ready += u32::from(heard.is_ready && machine.state == MachineState::Started);
            hear(heard);
        }
        for (signal, values) in values {
            let value = match signal.fold() {
                Fold::Sum => values.iter().sum(),
                Fold::Mean => values.iter().sum::<f64>() / count(values.len()),
                Fold::Max => values.iter().copied().fold(f64::NEG_INFINITY, f64::max),
            };
            let all = u32::try_from(values.len()).is_ok_and(|said| said == signals.expected);
            signals.readings.insert(signal, if all { Reading::Known(value) } else { Reading::Partly(value) });
        }
        signals
    }
}

/// How long ago `then` was; `None`: it is yet to come.
#[must_use]
pub fn age(now: Timestamp, then: Timestamp) -> Option<Duration> {
    Duration::try_from(now.duration_since(then)).ok()
}

#[expect(clippy::cast_precision_loss, reason = "machines are counted in thousands at most")]
fn count(len: usize) -> f64 {
    len as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fleet::{MachineId, Slot};

    const STALE: Duration = Duration::from_secs(30);
    const GRACE: Duration = Duration::from_secs(60);

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + second).unwrap()
    }

    fn machine(number: u32, state: MachineState) -> Machine {
        Machine {
            id: MachineId(format!("m{number}")),
            slot: Slot { group: "g".to_owned(), number },
            region: "iad".to_owned(),
            state,
            cordoned: false,
            release: "v1".to_owned(),
            created_at: at(-1000),
        }
    }

    fn report(second: i64, rate: f64) -> NodeReport {
        let measured = [(Signal::RequestRate, rate), (Signal::P95, rate / 1000.0)].into();
        NodeReport { at: at(second), is_ready: true, is_draining: false, measured }
    }

    /// Reports of started machines, and what the group's rate and p95 then are.
    #[track_caller]
    fn check(reports: &[Option<NodeReport>], rate: Reading, p95: Reading) {
        let machines: Vec<Machine> =
            (0..).take(reports.len()).map(|number| machine(number, MachineState::Started)).collect();
        let pairs = machines.iter().zip(reports.iter().map(Option::as_ref));
        let signals = GroupSignals::of(pairs, &[], at(0), STALE, GRACE);
        assert_eq!(signals.reading(Signal::RequestRate), rate);
        assert_eq!(signals.reading(Signal::P95), p95);
    }

    #[test]
    fn rates_add_up_and_the_slowest_counts() {
        check(&[Some(report(0, 10.0)), Some(report(-30, 30.0))], Reading::Known(40.0), Reading::Known(0.03));
    }

    #[test]
    fn who_is_silent_is_not_idle() {
        check(&[Some(report(0, 10.0)), None], Reading::Partly(10.0), Reading::Partly(0.01));
        check(&[Some(report(0, 10.0)), Some(report(-31, 5.0))], Reading::Partly(10.0), Reading::Partly(0.01));
        check(&[None, None], Reading::Missing, Reading::Missing);
        check(&[], Reading::Missing, Reading::Missing);
    }

    #[test]
    fn what_is_no_number_was_not_measured() {
        check(
            &[Some(report(0, f64::NAN)), Some(report(0, 5.0))],
            Reading::Partly(5.0),
            Reading::Partly(0.005),
        );
        check(&[Some(report(60, 5.0))], Reading::Missing, Reading::Missing);
    }

    #[test]
    fn a_young_machine_may_be_silent_yet_and_fixed_nodes_count() {
        let mut young = machine(1, MachineState::Started);
        young.created_at = at(-59);
        let old = machine(0, MachineState::Started);
        let said = report(0, 7.0);
        let stopped = machine(2, MachineState::Stopped);
        let pairs = [(&old, Some(&said)), (&young, None), (&stopped, None)];
        let signals =
            GroupSignals::of(pairs.into_iter(), &[report(0, 3.0), report(-31, 5.0)], at(0), STALE, GRACE);
        assert_eq!(signals.reading(Signal::RequestRate), Reading::Known(10.0));
        assert_eq!((signals.expected, signals.silent), (2, 0));
        assert_eq!((signals.ready, signals.fixed_ready), (1, 1));
    }
}
