//! Brings a request to a device of this node: to the one that is expected to answer first, and where that does not take
//! it to the next.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use peregrine_runtime::ReplySlot;
use smallvec::{SmallVec, smallvec};

use super::{NotHere, Resort, System};
use crate::breaker::{Gate, Permit};
use crate::devices::{DeviceId, Devices};
use crate::inference::{Answer, Job, Line, RESIDENT_ROWS_MAX, Refused, Ticket};
use crate::profile::Residence;
use crate::request::{ForecastError, ForecastRequest};
use crate::router::{Outlook, Route, first};
use crate::settings::Placement;
use crate::status::DeviceState;

impl System {
    pub(super) fn admit(
        &self,
        route: &Route,
        request: ForecastRequest,
        slot: ReplySlot<Answer>,
        (now, resort): (Instant, Resort),
    ) -> Result<(), Box<NotHere>> {
        self.check(&request, &route.status, now).map_err(NotHere::with(None))?;
        let mut job = Job {
            served: Arc::clone(&route.served),
            windows: request.windows,
            accepted_at: now,
            deadline: request.deadline,
            origin: request.origin,
            is_alone: request.is_alone,
            slot: Some(slot),
            degraded: false,
            relieved: false,
            ticket: None,
            suspect: None,
            check: None,
        };
        let lines = &self.inner.rooms.lines;
        let cpu = (&*lines.cpu, &route.gates.cpu);
        let Some(gpus) = self.gpus_in_order(route, job.windows.rows, now) else {
            return submit(cpu, job, (now, resort));
        };
        let mut least_full: Option<u32> = None;
        for &id in &gpus {
            let Some(ticket) = enter(&lines[id], &route.gates[id], now) else { continue };
            match lines[id].submit(Job { ticket, ..job }) {
                Ok(()) => return Ok(()),
                Err(Refused::Full { retry_after_ms, job: back }) => {
                    least_full = Some(least_full.map_or(retry_after_ms, |least| least.min(retry_after_ms)));
                    job = *back;
                }
                Err(Refused::Down(back)) => job = *back,
            }
        }
        if let Some(retry_after_ms) = least_full {
            return Err(full(retry_after_ms, job));
        }
        match gpus.first() {
            Some(&id) if !route.served.terms.fallback.falls_back() => {
                let refused = refusal(&lines[id], &route.gates[id], now);
                Err(NotHere::with(Some(job.windows))(refused))
            }
            _ => submit(cpu, Job { degraded: true, ticket: None, ..job }, (now, resort)),
        }
    }

    /// The GPUs in the order in which they are asked: one about which a request is to find out whether it has recovered,
    /// the one that is expected to answer first, the others that are well, then those that are not. `None`: the CPU runs
    /// the request, since there is no other, it is to, or it is expected to answer before any of them.
    fn gpus_in_order(&self, route: &Route, rows: usize, now: Instant) -> Option<Devices> {
        let lines = &self.inner.rooms.lines;
        let placement = route.served.terms.placement;
        let cpu_is_well = || lines.cpu.is_up() && route.gates.cpu.is_closed();
        if lines.gpus.is_empty() || placement == Placement::Cpu && cpu_is_well() {
            return None;
        }
        let finds_out = |id: DeviceId| {
            let gate = &route.gates[id];
            !gate.is_closed() && lines[id].accepts() && gate.admits(now)
        };
        let well = self.candidates(route, rows);
        let mut order: Devices = lines.gpus().map(|(id, _)| id).collect();
        let with_cpu = placement == Placement::Fastest
            && !well.is_empty()
            && cpu_is_well()
            && !order.iter().any(|&id| finds_out(id));
        // What asks nobody to choose takes no turn.
        let turn = if with_cpu || well.len() > 1 { route.turns.fetch_add(1, Ordering::Relaxed) } else { 1 };
        let best = match well[..] {
            [] => None,
            [only] => Some(only),
            _ => {
                let outlook = |&id: &DeviceId| Outlook {
                    expected: route.served.paces[id].expect(rows, now),
                    backlog: lines[id].ahead(now),
                    queue: lines[id].queue(),
                };
                Some(well[first(&well.iter().map(outlook).collect::<SmallVec<[_; 4]>>(), turn)])
            }
        };
        if let Some(gpu) = best.filter(|_| with_cpu) {
            // The times of either hold what waiting for the batch that runs has cost of late.
            let outlook = |id: DeviceId| Outlook {
                expected: route.served.paces[id].expect(rows, now),
                backlog: lines[id].backlog(),
                queue: 0,
            };
            if first(&[outlook(gpu), outlook(DeviceId::CPU)], turn) == 1 {
                return None;
            }
        }
        if order.len() > 1 {
            order.sort_by_key(|&id| match id {
                _ if finds_out(id) => 0,
                _ if Some(id) == best => 1,
                _ if self.is_well(route, id) => 2,
                _ => 3,
            });
        }
        Some(order)
    }

    /// The GPUs among which a request may choose: all that are well, or the one of them on which its model stays.
    pub(super) fn candidates(&self, route: &Route, rows: usize) -> Devices {
        let mut well: Devices = self.well_gpus(route).map(|(id, _)| id).collect();
        if well.len() > 1 && rows <= RESIDENT_ROWS_MAX && route.served.terms.residence == Residence::Stays {
            let lines = &self.inner.rooms.lines;
            let home = well.iter().position(|&id| lines[id].keeps(&route.served.forecaster));
            if let Some(home) = home {
                well = smallvec![well[home]];
            }
        }
        well
    }

    /// The GPUs that are up and trusted with a model.
    pub(super) fn well_gpus<'a>(&'a self, route: &Route) -> impl Iterator<Item = (DeviceId, &'a Arc<Line>)> {
        self.inner.rooms.lines.gpus().filter(|(id, _)| self.is_well(route, *id))
    }

    fn is_well(&self, route: &Route, id: DeviceId) -> bool {
        self.inner.rooms.lines[id].is_up() && route.gates[id].is_closed()
    }
}

/// The ticket with which a request may go to a device, `None` inside if it is not a probe.
fn enter(line: &Line, gate: &Arc<Gate>, now: Instant) -> Option<Option<Ticket>> {
    if !line.accepts() {
        return None;
    }
    match gate.permit(now) {
        Permit::Pass => Some(None),
        Permit::Probe(ticket) => Some(Some(ticket)),
        Permit::Refuse => None,
    }
}

/// Sends a request to the device that has no substitute.
fn submit(
    (line, gate): (&Line, &Arc<Gate>),
    job: Job,
    (now, resort): (Instant, Resort),
) -> Result<(), Box<NotHere>> {
    let passes = || resort == Resort::Last && line.accepts() && gate.is_last_resort();
    let Some(ticket) = enter(line, gate, now).or_else(|| passes().then_some(None)) else {
        return Err(NotHere::with(Some(job.windows))(refusal(line, gate, now)));
    };
    line.submit(Job { ticket, ..job }).map_err(|refused| match refused {
        Refused::Full { retry_after_ms, job } => full(retry_after_ms, *job),
        Refused::Down(job) => NotHere::with(Some(job.windows))(refusal(line, gate, now)),
    })
}

fn full(retry_after_ms: u32, job: Job) -> Box<NotHere> {
    NotHere::with(Some(job.windows))(ForecastError::Overloaded { retry_after_ms })
}

fn refusal(line: &Line, gate: &Gate, now: Instant) -> ForecastError {
    let device = line.id();
    match (&line.status().state, gate.status(now)) {
        (DeviceState::Starting, _) => ForecastError::unavailable(format!("{device} is starting")),
        (DeviceState::Down { reason }, _) => {
            ForecastError::unavailable(format!("{device} is down: {reason}"))
        }
        (DeviceState::Up, gate) => {
            let state = gate.state.name();
            // An operator's order has no reason unless it was open before.
            let why = if gate.reason.is_empty() { String::new() } else { format!(": {}", gate.reason) };
            ForecastError::unavailable(format!("breaker of {device} is {state}{why}"))
        }
    }
}
