//! How long machines take from the decision to start them until they take requests, as measured.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use jiff::Timestamp;

use crate::fleet::{Machine, MachineId, MachineState};
use crate::pool::Change;
use crate::reconcile::Action;
use crate::signal::{NodeReport, age};

/// Starts of each kind that are remembered.
const KEPT_MAX: usize = 16;

/// How a machine was started.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Start {
    /// Made anew.
    Cold,
    /// It was stopped.
    Warm,
}

/// The times of one group.
#[derive(Clone, Debug, Default)]
pub struct ReadyTimes {
    /// By slot, until its machine is seen.
    ordered: BTreeMap<String, (Timestamp, Start)>,
    waiting: BTreeMap<MachineId, (Timestamp, Start)>,
    measured: BTreeMap<Start, VecDeque<Duration>>,
}

impl ReadyTimes {
    /// The slowest of the latest starts of a kind: what must be reckoned with.
    #[must_use]
    pub fn slowest(&self, start: Start) -> Option<Duration> {
        self.measured.get(&start).and_then(|times| times.iter().max().copied())
    }

    /// The latest starts of a kind, the newest last.
    pub fn measured(&self, start: Start) -> impl Iterator<Item = Duration> {
        self.measured.get(&start).into_iter().flatten().copied()
    }

    pub(super) fn on_action(&mut self, action: &Action, now: Timestamp) {
        match action {
            Action::Create(order) if order.launch => {
                self.ordered.insert(order.slot.to_string(), (now, Start::Cold));
            }
            Action::Change(machine, Change::Start) => {
                self.waiting.insert(machine.id.clone(), (now, Start::Warm));
            }
            // What is being stopped is no longer waited for.
            Action::Change(machine, Change::Cordon | Change::Stop | Change::Destroy) => {
                self.waiting.remove(&machine.id);
            }
            _ => {}
        }
    }

    pub(super) fn observe(
        &mut self,
        machines: &[Machine],
        reports: &BTreeMap<MachineId, NodeReport>,
        now: Timestamp,
    ) {
        for machine in machines {
            if let Some(began) = self.ordered.remove(&machine.slot.to_string()) {
                self.waiting.insert(machine.id.clone(), began);
            }
        }
        let listed = |id: &MachineId| machines.iter().any(|machine| machine.id == *id);
        self.waiting.retain(|id, _| listed(id));
        for machine in machines.iter().filter(|machine| machine.state == MachineState::Started) {
            // A report from before the start is of the life before it.
            let Some((began, start)) = self.waiting.get(&machine.id).copied() else { continue };
            let ready = reports.get(&machine.id).filter(|report| report.is_ready && report.at > began);
            let Some(took) = ready.and_then(|report| age(report.at.min(now), began)) else { continue };
            self.waiting.remove(&machine.id);
            let times = self.measured.entry(start).or_default();
            times.push_back(took);
            if times.len() > KEPT_MAX {
                times.pop_front();
            }
        }
    }
}
