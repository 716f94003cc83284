//! The way out of a machine: cordoned, drained, stopped, under one hold.

use jiff::Timestamp;

use super::{Action, Progress, Sorted};
use crate::fleet::MachineState;
use crate::pool::Change;
use crate::rule::after;
use crate::signal::Signal;

/// How far a machine has come.
#[derive(Clone, Copy, Debug)]
pub(super) struct Retirement {
    /// When it was decided.
    begun_at: Timestamp,
    /// When it was cordoned, as far as this scaler knows.
    pub(super) cordoned_at: Option<Timestamp>,
    /// It may be kept after all, should it be wanted again before it stops.
    pub(super) may_return: bool,
}

impl Retirement {
    pub(super) const fn begun(now: Timestamp) -> Self {
        Self { begun_at: now, cordoned_at: None, may_return: true }
    }

    pub(super) const fn for_good(now: Timestamp) -> Self {
        Self { begun_at: now, cordoned_at: None, may_return: false }
    }
}

/// The next step of every machine that is to go.
pub(super) fn advance(sorted: &Sorted<'_>, progress: &mut Progress, actions: &mut Vec<Action>) {
    let drain = sorted.goal.group.drain;
    for machine in sorted.state.machines {
        let Some(retirement) = progress.retiring.get_mut(&machine.id) else { continue };
        match machine.state {
            MachineState::Started | MachineState::Starting => {
                if !machine.cordoned {
                    // A cordon that somebody has lifted since counts no more: callers came again.
                    retirement.cordoned_at = None;
                    actions.push(Action::Change(machine.clone(), Change::Cordon));
                    continue;
                }
                // A cordon that another scaler has set counts from when it was first seen here.
                let cordoned_at = *retirement.cordoned_at.get_or_insert(sorted.now.max(retirement.begun_at));
                let report = sorted.state.reports.get(&machine.id);
                let is_empty = report.is_some_and(|report| {
                    report.is_draining
                        && report.measured.get(&Signal::InFlight).is_some_and(|inside| *inside < 1.0)
                });
                // One that is only starting has been told of no request yet.
                let has_served = machine.state == MachineState::Started;
                if is_empty || !has_served || after(cordoned_at, drain) <= sorted.now {
                    actions.push(Action::Change(machine.clone(), Change::Stop));
                } else {
                    actions.push(Action::Hold(machine.clone()));
                    if report.is_none_or(|report| !report.is_draining) {
                        actions.push(Action::Drain(machine.clone()));
                    }
                }
            }
            MachineState::Stopping => actions.push(Action::Hold(machine.clone())),
            MachineState::Stopped | MachineState::Suspended => {
                progress.retiring.remove(&machine.id);
                actions.push(Action::Release(machine.clone()));
            }
            MachineState::Failed | MachineState::Destroying => {
                progress.retiring.remove(&machine.id);
            }
            MachineState::Unknown => {}
        }
    }
}
