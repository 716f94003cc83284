//! Machines that are made up: when their nodes are ready, what those say, and what becomes of requests.
//!
//! A machine is a queue with `c` servers and room for `K` requests, asked at random and serving at random (M/M/c/K). What
//! is lost and the mean number inside come from the states' probabilities, and the time within which 95 of 100 are
//! answered from the sojourn times of M/M/c: Kleinrock, "Queueing Systems, Volume 1: Theory", Wiley 1975, §3.5 to §3.7;
//! Gross and Harris, "Fundamentals of Queueing Theory", Wiley 1998, §2.3. Requests are spread evenly over the machines
//! that take any.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jiff::Timestamp;

use super::trace::Trace;
use crate::carry::Nodes;
use crate::fleet::{GroupSpec, Machine, MachineId, MachineState};
use crate::pool::simulated::{Delays, SimulatedPool};
use crate::pool::{Change, Hold, MachinePool, Order, PoolError};
use crate::rule::after;
use crate::signal::{NodeReport, Signal};

/// What a node is like.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct NodeModel {
    /// Share of what a machine can do at all that it does within its objective: its group's capacity, over the rate at
    /// which it serves.
    pub load_at_capacity: f64,
    /// Requests that are served at once.
    pub servers: u32,
    /// Requests inside at most, those that are served included.
    pub room: u32,
    /// From the machine's start until its node takes requests.
    pub boot: Duration,
    /// Predictions for each request.
    pub predictions_per_request: f64,
    /// Share of memory in use when idle, and what a full queue adds.
    pub memory: (f64, f64),
}

impl Default for NodeModel {
    fn default() -> Self {
        Self {
            load_at_capacity: 0.8,
            servers: 8,
            room: 64,
            boot: Duration::from_secs(15),
            predictions_per_request: 1.0,
            memory: (0.4, 0.2),
        }
    }
}

/// What one machine does under a rate of requests.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Load {
    /// Share of time in which it serves.
    pub utilisation: f64,
    /// Mean number inside.
    pub in_flight: f64,
    /// Seconds within which 95 of 100 are answered.
    pub p95: f64,
    /// Share that finds the queue full.
    pub error_share: f64,
}

impl NodeModel {
    /// Under `rate`, of a machine that serves `capacity` within its objective. Both in requests per second.
    #[must_use]
    pub fn load(&self, rate: f64, capacity: f64) -> Load {
        let serves = capacity / self.load_at_capacity;
        let servers = self.servers.max(1);
        let each = serves / f64::from(servers);
        // Probabilities of each number inside, up to a factor that keeps them within what a float holds.
        let (mut state, mut all, mut inside, mut waiting) = (1.0, 1.0, 0.0, 0.0);
        for number in 1..=self.room.max(servers) {
            state *= rate / (each * f64::from(number.min(servers)));
            all += state;
            inside += state * f64::from(number);
            if number >= servers {
                waiting += state;
            }
            if all > 1e200 {
                (state, all, inside, waiting) = (state / 1e200, all / 1e200, inside / 1e200, waiting / 1e200);
            }
        }
        let error_share = state / all;
        let utilisation = rate * (1.0 - error_share) / serves;
        // Who comes last into a full queue has this before it.
        let longest = f64::from(self.room) / serves + 20f64.ln() / each;
        let spare = serves - rate;
        let p95 = if spare > 0.0 { sojourn(each, spare, waiting / all).min(longest) } else { longest };
        Load { utilisation: utilisation.min(1.0), in_flight: inside / all, p95, error_share }
    }
}

/// The time that 5 of 100 exceed: all are served for a time with mean `1 / each`, and a share `waiting` of them waits for
/// one with mean `1 / spare` before.
fn sojourn(each: f64, spare: f64, waiting: f64) -> f64 {
    // Two rates that are all but the same divide by nothing.
    let spare = if (spare - each).abs() < 1e-6 * each { each * (1.0 + 1e-6) } else { spare };
    let exceeds = |time: f64| {
        let both = (spare * (-each * time).exp() - each * (-spare * time).exp()) / (spare - each);
        (1.0 - waiting) * (-each * time).exp() + waiting * both
    };
    let (mut low, mut high) = (0.0, 40.0 / each.min(spare));
    for _ in 0..60 {
        let middle = f64::midpoint(low, high);
        if exceeds(middle) > 0.05 { low = middle } else { high = middle }
    }
    high
}

/// A simulated pool that the world keeps a hand on.
#[derive(Clone)]
pub(super) struct SharedPool(Arc<Mutex<SimulatedPool>>);

impl SharedPool {
    fn with<T>(&self, call: impl FnOnce(&mut SimulatedPool) -> T) -> T {
        // One thread has it; poisoned or not, it is what it is.
        call(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl MachinePool for SharedPool {
    fn list(&mut self, now: Timestamp) -> Result<Vec<Machine>, PoolError> {
        self.with(|pool| pool.list(now))
    }

    fn room(&mut self, group: &GroupSpec, now: Timestamp) -> Result<Vec<(String, u32)>, PoolError> {
        self.with(|pool| pool.room(group, now))
    }

    fn create(&mut self, order: &Order, now: Timestamp) -> Result<MachineId, PoolError> {
        self.with(|pool| pool.create(order, now))
    }

    fn hold(
        &mut self,
        machine: &MachineId,
        held: Option<&Hold>,
        ttl: Duration,
        now: Timestamp,
    ) -> Result<Hold, PoolError> {
        self.with(|pool| pool.hold(machine, held, ttl, now))
    }

    fn release(&mut self, machine: &MachineId, hold: &Hold, now: Timestamp) -> Result<(), PoolError> {
        self.with(|pool| pool.release(machine, hold, now))
    }

    fn change(
        &mut self,
        machine: &MachineId,
        change: Change,
        hold: &Hold,
        now: Timestamp,
    ) -> Result<(), PoolError> {
        self.with(|pool| pool.change(machine, change, hold, now))
    }
}

/// Nodes that do as they are told at once; those that were told to drain.
#[derive(Clone, Debug, Default)]
pub(super) struct Told(Rc<RefCell<BTreeSet<MachineId>>>);

impl Told {
    fn is_draining(&self, machine: &MachineId) -> bool {
        self.0.borrow().contains(machine)
    }
}

impl Nodes for Told {
    fn drain(&mut self, machine: &Machine, _: Timestamp) {
        self.0.borrow_mut().insert(machine.id.clone());
    }

    fn undrain(&mut self, machine: &Machine, _: Timestamp) {
        self.0.borrow_mut().remove(&machine.id);
    }
}

/// Machines and those who ask.
pub(super) struct World<'a> {
    trace: &'a Trace,
    group: &'a GroupSpec,
    node: NodeModel,
    pool: SharedPool,
    told: Told,
    /// Since when machines run.
    started: BTreeMap<MachineId, Timestamp>,
    reports: BTreeMap<String, NodeReport>,
}

/// One step of a world.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Step {
    /// Requests per second, by the region that they come from.
    pub(super) demand: BTreeMap<String, f64>,
    /// Requests per second in all.
    pub(super) rate: f64,
    /// Machines that take requests.
    pub(super) serving: u32,
    /// Requests per second beyond what those answer within their objective.
    pub(super) beyond: f64,
    /// Mean utilisation of those machines, if there are any.
    pub(super) utilisation: Option<f64>,
    /// Nobody's report arrives.
    pub(super) is_silent: bool,
}

impl<'a> World<'a> {
    pub(super) fn new(trace: &'a Trace, group: &'a GroupSpec, node: NodeModel, delays: Delays) -> Self {
        Self {
            trace,
            group,
            node,
            pool: SharedPool(Arc::new(Mutex::new(SimulatedPool::new(delays)))),
            told: Told::default(),
            started: BTreeMap::new(),
            reports: BTreeMap::new(),
        }
    }

    pub(super) fn pool(&self) -> SharedPool {
        self.pool.clone()
    }

    pub(super) fn told(&self) -> Told {
        self.told.clone()
    }

    pub(super) fn reports(&self) -> &BTreeMap<String, NodeReport> {
        &self.reports
    }

    /// What regions have to give from now on.
    pub(super) fn prepare(&mut self, now: Timestamp) {
        for place in &self.group.places {
            let room = self.trace.is_full(&place.region, now).then_some(0);
            self.pool.with(|pool| pool.set_capacity(&place.region, room));
        }
    }

    /// Spreads the requests of now over the machines that there are, and has nodes say so.
    pub(super) fn step(&mut self, machines: &[Machine], now: Timestamp) -> Step {
        let runs = |machine: &&Machine| machine.state == MachineState::Started;
        let ids: BTreeSet<&MachineId> = machines.iter().map(|machine| &machine.id).collect();
        let running: BTreeSet<&MachineId> = machines.iter().filter(runs).map(|machine| &machine.id).collect();
        self.started.retain(|id, _| running.contains(id));
        // A node that is started anew has been told of nothing.
        self.told.0.borrow_mut().retain(|id| running.contains(id));
        self.reports.retain(|id, _| ids.iter().any(|listed| listed.0 == *id));
        for machine in machines.iter().filter(runs) {
            self.started.entry(machine.id.clone()).or_insert(now);
        }
        let is_up = |machine: &&Machine| {
            self.started.get(&machine.id).is_some_and(|since| after(*since, self.node.boot) <= now)
        };
        let up: Vec<&Machine> = machines.iter().filter(runs).filter(is_up).collect();
        let serves = |machine: &Machine| !machine.cordoned && !self.told.is_draining(&machine.id);
        let count = up.iter().filter(|machine| serves(machine)).count();
        let serving = u32::try_from(count).unwrap_or(u32::MAX);
        let demand = self.trace.demand(now);
        let rate: f64 = demand.values().sum();
        let is_silent = self.trace.is_silent(now);
        let share = if serving == 0 { 0.0 } else { rate / f64::from(serving) };
        let busy = self.node.load(share, self.group.capacity);
        if !is_silent {
            for machine in up {
                let (load, rate) = if serves(machine) {
                    (busy, share)
                } else {
                    (self.node.load(0.0, self.group.capacity), 0.0)
                };
                let is_draining = self.told.is_draining(&machine.id);
                let report = self.report(load, rate, is_draining, now);
                self.reports.insert(machine.id.0.clone(), report);
            }
        }
        let beyond = (rate - f64::from(serving) * self.group.capacity).max(0.0);
        let utilisation = (serving > 0).then_some(busy.utilisation);
        Step { demand, rate, serving, beyond, utilisation, is_silent }
    }

    fn report(&self, load: Load, rate: f64, is_draining: bool, now: Timestamp) -> NodeReport {
        let inside = load.in_flight / f64::from(self.node.room);
        let answered = rate * (1.0 - load.error_share);
        let serves = self.group.capacity / self.node.load_at_capacity;
        let measured = [
            (Signal::Utilisation, load.utilisation),
            (Signal::MemoryShare, self.node.memory.0 + self.node.memory.1 * inside),
            // Whoever is last in the queue waits for all before it.
            (Signal::QueueAge, (load.in_flight - 1.0).max(0.0) / serves),
            (Signal::RequestRate, rate),
            (Signal::P95, load.p95),
            (Signal::ErrorShare, load.error_share),
            (Signal::InFlight, load.in_flight),
            (Signal::PredictionRate, answered * self.node.predictions_per_request),
        ];
        NodeReport { at: now, is_ready: !is_draining, is_draining, measured: measured.into() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(servers: u32, room: u32) -> NodeModel {
        NodeModel { servers, room, ..NodeModel::default() }
    }

    /// One server that serves 50 per second, against sums over its states, p(n) ∝ ρⁿ, and M/M/1's exponential sojourn.
    #[test]
    fn a_node_with_one_server_is_the_simplest_queue() {
        for rate in [0.0, 10.0, 25.0, 49.0, 50.0, 51.0, 100.0, 1e6, 1e9] {
            let load = node(1, 4).load(rate, 40.0);
            let asked: f64 = rate / 50.0;
            let all: f64 = (0..=4).map(|n| asked.powi(n)).sum();
            let inside: f64 = (0..=4).map(|n| f64::from(n) * asked.powi(n)).sum::<f64>() / all;
            let blocked = asked.powi(4) / all;
            let near =
                |value: f64, expected: f64| assert!((value - expected).abs() < 1e-6, "{rate}: {load:?}");
            near(load.error_share, blocked);
            near(load.in_flight, inside);
            near(load.utilisation, (asked * (1.0 - blocked)).min(1.0));
        }
        let endless = node(1, 2000).load(40.0, 40.0);
        assert!((endless.p95 - 20f64.ln() / 10.0).abs() < 1e-6, "{endless:?}");
        assert!((endless.in_flight - 4.0).abs() < 1e-6, "{endless:?}");
    }

    /// Eight servers under 6.4 times what one does: Erlang's C is what its formula says, so that
    /// 6.4 + C · 0.8 / 0.2 are inside.
    #[test]
    fn a_node_with_many_servers_waits_as_erlang_says() {
        let load = node(8, 2000).load(40.0, 40.0);
        let terms: f64 = (0..8)
            .scan(1.0, |term, n| {
                let present = *term;
                *term *= 6.4 / f64::from(n + 1);
                Some(present)
            })
            .sum();
        let last = 6.4f64.powi(8) / 40_320.0 / 0.2;
        let waits = last / (last + terms);
        assert!((load.in_flight - (6.4 + waits * 4.0)).abs() < 1e-6, "{load:?} {waits}");
        assert!(load.error_share < 1e-12 && (load.utilisation - 0.8).abs() < 1e-9);
    }

    #[test]
    fn more_that_is_asked_is_never_answered_sooner_or_lost_less() {
        let mut before = node(8, 64).load(0.0, 40.0);
        for rate in 1..2000 {
            let load = node(8, 64).load(f64::from(rate) * 0.1, 40.0);
            assert!(load.p95 >= before.p95 - 1e-9 && load.error_share >= before.error_share, "{rate}");
            assert!(load.in_flight >= before.in_flight && load.utilisation >= before.utilisation - 1e-12);
            before = load;
        }
        assert!(before.error_share > 0.7 && before.in_flight > 60.0, "{before:?}");
    }
}
