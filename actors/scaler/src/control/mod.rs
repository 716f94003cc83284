//! One round of the scaler: from what is seen to what is decided, and from that to what is done.
//!
//! How many machines a group should have is the greatest of what its rules say and of what the demand needs that is
//! forecast until a new machine would be ready; less than before only if nothing is missing in what was measured, if
//! no rule that adds machines holds, if the requests of now fit too, and if all of that was so for the whole
//! stabilisation window. Then come the group's bounds and the money.

mod decision;
mod policy;
mod ready;
mod run;
#[cfg(test)]
mod tests;
mod wish;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

pub use decision::{Cause, Decision};
pub use policy::{Policy, Sight};
pub use ready::{ReadyTimes, Start};
pub use run::{Attached, Done, run_once};
pub use wish::Wish;

use crate::budget::{Budget, Spent};
use crate::calendar::Calendar;
use crate::fleet::{GroupSpec, Machine, MachineId, MachineState, Slot};
use crate::place::{Placement, RoundTrips, Situation, place};
use crate::pool::PoolError;
use crate::reconcile::{self, Action, Goal, Progress, State};
use crate::rule::{Facts, Memory, Rule, judge};
use crate::signal::{GroupSignals, NodeReport, Signal, age};

/// Decisions that are kept.
const DECISIONS_MAX: usize = 512;

/// A fleet as it should be.
#[derive(Clone, Debug)]
pub struct FleetSpec {
    /// Its groups, by name.
    pub groups: Vec<GroupSpec>,
    /// When they should have more machines or fewer.
    pub rules: Vec<Rule>,
    /// What may be spent.
    pub budget: Budget,
    /// A report of a node that is older is none.
    pub stale_after: Duration,
    /// How long fewer machines must have been enough before some go.
    pub stabilisation: Duration,
    /// Share by which the demand must lie below what fewer machines answer before any go. More come without one:
    /// beyond their capacity machines miss their objective.
    pub dead_band: f64,
    /// What a millisecond of the mean round trip is worth, per hour.
    pub rtt_worth: f64,
    /// How long machines of a former release stay stopped.
    pub rollback_for: Duration,
    /// How long a hold on a machine lasts unless it is renewed.
    pub hold: Duration,
}

/// What is known of markets.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Markets {
    /// Whether one of the group's is open; `None`: not known.
    pub is_open: Option<bool>,
    /// Until the next opening, also while one is open; `None`: not known, or none closes.
    pub opens_in: Option<Duration>,
}

impl Markets {
    /// Open if one is, closed if all are; until the first of them opens next. One that does not know may be open, which
    /// the others cannot say.
    #[must_use]
    pub fn of(calendars: &[Arc<Calendar>], now: Timestamp) -> Self {
        let mut markets = Self { is_open: (!calendars.is_empty()).then_some(false), opens_in: None };
        for calendar in calendars {
            markets.is_open = match calendar.is_open(now) {
                Ok(true) => Some(true),
                Ok(false) => markets.is_open,
                Err(_) => markets.is_open.filter(|is_open| *is_open),
            };
            if let Ok(Some(opens_in)) = calendar.until_open(now) {
                markets.opens_in = Some(markets.opens_in.map_or(opens_in, |known| known.min(opens_in)));
            }
        }
        markets
    }
}

/// What is seen of one group beside its machines.
#[derive(Clone, Debug, Default)]
pub struct GroupView {
    /// Of its markets.
    pub markets: Markets,
    /// Requests per second that are forecast until a new machine would be ready, upper bound.
    pub demand: Option<f64>,
    /// Money for 1,000 predictions, of late.
    pub cost_per_1000: Option<f64>,
    /// Where requests come from, in any unit.
    pub origins: BTreeMap<String, f64>,
    /// How many more machines its pool has, by region, where it says so.
    pub room: BTreeMap<String, u32>,
    /// What its machines should run.
    pub release: String,
    /// Nodes that do the same work and come from no pool.
    pub fixed: Vec<NodeReport>,
}

/// All that one round sees.
#[derive(Clone, Debug)]
pub struct Seen {
    /// The time.
    pub now: Timestamp,
    /// What each pool lists.
    pub machines: BTreeMap<String, Result<Vec<Machine>, PoolError>>,
    /// What nodes last said, by the id or the slot of their machine.
    pub reports: BTreeMap<String, NodeReport>,
    /// By group.
    pub groups: BTreeMap<String, GroupView>,
    /// Between regions.
    pub round_trips: RoundTrips,
    /// Of the month.
    pub spent: Spent,
}

/// What is remembered of one group.
#[derive(Debug, Default)]
struct GroupMemory {
    rules: Memory,
    progress: Progress,
    wish: Option<Wish>,
    ready: ReadyTimes,
    placement: Placement,
}

/// What one round decided.
#[derive(Clone, Debug, Default)]
pub struct Round {
    /// One for each group.
    pub decisions: Vec<Decision>,
    /// What is to be done in each pool, in order.
    pub actions: Vec<(String, Action)>,
    /// Machines that no group has; nothing is done to them. The operator acts.
    pub strays: Vec<Slot>,
}

/// What machines that nothing is placed by cost per hour.
#[derive(Clone, Copy, Debug, Default)]
struct Burden {
    /// Of stopped ones, and of those that nobody can reach.
    idle: f64,
    /// Of those on their way out, which is over soon.
    going: f64,
}

/// The scaler's mind.
#[derive(Debug)]
pub struct Controller {
    spec: FleetSpec,
    groups: BTreeMap<String, GroupMemory>,
    decisions: VecDeque<Decision>,
    /// Decides in place of rules and demand.
    policy: Option<Box<dyn Policy>>,
}

impl Controller {
    /// One that remembers nothing: it takes over what it finds.
    #[must_use]
    pub fn new(spec: FleetSpec) -> Self {
        Self { spec, groups: BTreeMap::new(), decisions: VecDeque::new(), policy: None }
    }

    /// One that asks `policy` how many machines there should be; where they stand, what may be spent and how they come
    /// and go stays as it is.
    #[must_use]
    pub fn led_by(spec: FleetSpec, policy: Box<dyn Policy>) -> Self {
        Self { policy: Some(policy), ..Self::new(spec) }
    }

    /// The fleet as it should be.
    #[must_use]
    pub const fn spec(&self) -> &FleetSpec {
        &self.spec
    }

    /// The latest decisions that changed something, the newest last.
    pub fn decisions(&self) -> impl DoubleEndedIterator<Item = &Decision> {
        self.decisions.iter()
    }

    /// From a decision to the first answer of a new machine of a group, as measured, or as written.
    #[must_use]
    pub fn time_to_ready(&self, group: &str) -> Option<Duration> {
        let spec = self.spec.groups.iter().find(|spec| spec.name == group)?;
        let measured = self.groups.get(group).and_then(|memory| memory.ready.slowest(Start::Cold));
        Some(measured.unwrap_or(spec.ready_after))
    }

    /// What was measured of a group's starts.
    #[must_use]
    pub fn ready_times(&self, group: &str) -> Option<&ReadyTimes> {
        self.groups.get(group).map(|memory| &memory.ready)
    }

    /// Where the machines of a group should run, as of the latest round.
    #[must_use]
    pub fn placement(&self, group: &str) -> Option<&Placement> {
        self.groups.get(group).map(|memory| &memory.placement)
    }

    /// Decides. Nothing has been done when it returns: each action's outcome is told to [`Self::done`].
    pub fn round(&mut self, seen: &Seen) -> Round {
        let mut round = Round::default();
        let Burden { idle, going } = self.burden(seen);
        let floor = self.floor_per_hour() + idle;
        let keepable = self.spec.budget.keepable(seen.spent, floor);
        // What is kept may cost more than what would be begun; that much is not there for more machines.
        let bound = going + (keepable - self.spec.budget.affordable(seen.spent, floor)).max(0.0);
        let mut affordable = keepable - idle;
        let specs = self.spec.groups.clone();
        // What the others cost at least is set aside before one group takes all.
        let mut reserved: f64 = specs.iter().map(smallest_cost).sum();
        for group in &specs {
            reserved -= smallest_cost(group);
            let available = (affordable - reserved.max(0.0)).max(0.0);
            let (decision, cost) = self.group(group, seen, (available, bound), &mut round.actions);
            affordable -= cost;
            if decision.from != decision.to {
                self.decisions.push_back(decision.clone());
                if self.decisions.len() > DECISIONS_MAX {
                    self.decisions.pop_front();
                }
            }
            round.decisions.push(decision);
        }
        let all = seen.machines.values().flatten().flatten();
        round.strays = all
            .filter(|machine| !specs.iter().any(|group| group.name == machine.slot.group))
            .map(|machine| machine.slot.clone())
            .collect();
        round
    }

    /// What costs all the same, whatever is decided.
    fn burden(&self, seen: &Seen) -> Burden {
        let mut burden = Burden::default();
        for group in &self.spec.groups {
            let Some(Ok(machines)) = seen.machines.get(&group.pool) else { continue };
            for machine in machines.iter().filter(|machine| machine.slot.group == group.name) {
                let Some(place) = group.place(&machine.region) else { continue };
                let retires = self.groups.get(&group.name).is_some_and(|memory| {
                    memory.progress.is_retiring(&machine.id) || machine.state == MachineState::Stopping
                });
                match machine.state {
                    MachineState::Stopped | MachineState::Suspended => burden.idle += place.stopped_per_hour,
                    MachineState::Unknown => burden.idle += place.running_per_hour,
                    _ if retires || machine.cordoned => burden.going += place.running_per_hour,
                    _ => {}
                }
            }
        }
        burden
    }

    fn floor_per_hour(&self) -> f64 {
        self.spec.groups.iter().map(smallest_cost).sum()
    }

    fn group(
        &mut self,
        group: &GroupSpec,
        seen: &Seen,
        (affordable, bound): (f64, f64),
        actions: &mut Vec<(String, Action)>,
    ) -> (Decision, f64) {
        let memory = self.groups.entry(group.name.clone()).or_default();
        let nothing = PoolError::Unavailable("it was not listed".to_owned());
        let listed = match seen.machines.get(&group.pool) {
            Some(Ok(machines)) => machines,
            other => {
                let error = other.and_then(|result| result.as_ref().err()).unwrap_or(&nothing);
                let wanted = memory.wish.as_ref().map_or(0, |wish| wish.wanted);
                let cost = memory.placement.cost(group);
                let cause = Cause::PoolSilent(error.clone());
                return (unchanged(seen.now, group, wanted, cause), cost);
            }
        };
        let machines: Vec<Machine> =
            listed.iter().filter(|machine| machine.slot.group == group.name).cloned().collect();
        let reports = fresh(&machines, seen, self.spec.stale_after);
        memory.ready.observe(&machines, &reports, seen.now);
        let view = seen.groups.get(&group.name).cloned().unwrap_or_default();
        let pairs = machines.iter().map(|machine| (machine, reports.get(&machine.id)));
        let grace = memory.ready.slowest(Start::Cold).unwrap_or(group.ready_after) * 2;
        let signals = GroupSignals::of(pairs, &view.fixed, seen.now, self.spec.stale_after, grace);

        let running = |machine: &&Machine| {
            machine.state.is_capacity() && !memory.progress.is_retiring(&machine.id) && !machine.cordoned
        };
        let present = u32::try_from(machines.iter().filter(running).count()).unwrap_or(u32::MAX);
        let facts = facts(&signals, &view, present, group, memory);
        let wish = memory.wish.get_or_insert_with(|| Wish::adopted(present, group));
        let from = wish.wanted;
        let (cause, findings) = match &mut self.policy {
            Some(policy) => {
                let sight = Sight {
                    now: seen.now,
                    group,
                    machines: &machines,
                    reports: &reports,
                    signals: &signals,
                    present,
                    wanted: from,
                };
                wish.wanted = policy.wanted(&sight).clamp(group.machines_min, group.machines_max);
                let is_steady = wish.wanted == from;
                let cause = if is_steady { Cause::Steady } else { Cause::Policy(policy.name().to_owned()) };
                (cause, Vec::new())
            }
            None => {
                let judged = judge(&self.spec.rules, &group.name, from, &facts, &mut memory.rules, seen.now);
                let demand = wish::Demand {
                    forecast: view.demand,
                    measured: signals.reading(Signal::RequestRate),
                    is_blind: signals.expected > 0 && signals.silent == signals.expected,
                    capacity: group.capacity,
                    fixed: f64::from(signals.fixed_ready) * group.capacity,
                    dead_band: self.spec.dead_band,
                };
                (wish.update(&judged, demand, group, self.spec.stabilisation, seen.now), judged.findings)
            }
        };
        let to = wish.wanted;

        let mut by_region = [BTreeMap::new(), BTreeMap::new()];
        for machine in &machines {
            let at = match machine.state {
                _ if running(&machine) => &mut by_region[0],
                state if state.is_warm() => &mut by_region[1],
                _ => continue,
            };
            *at.entry(machine.region.clone()).or_insert(0) += 1;
        }
        // Two releases at once are one fleet for as long as one takes over from the other.
        let current =
            machines.iter().filter(running).filter(|machine| machine.release == view.release).count();
        let is_rolling = current > 0 && current < present as usize;
        let mut room = view.room.clone();
        room.extend(memory.progress.full_regions(seen.now).into_iter().map(|region| (region, 0)));
        let situation = Situation {
            group,
            wanted: to,
            running: &by_region[0],
            warm: &by_region[1],
            room: &room,
            demand: &view.origins,
            round_trips: &seen.round_trips,
            rtt_worth: self.spec.rtt_worth,
            affordable,
            bound,
        };
        let placement = place(&situation);
        let short = (placement.without_room, placement.without_money);
        let cost = if is_rolling {
            placement.cost(group).max(machines.iter().filter(running).map(|m| price(group, m)).sum())
        } else {
            placement.cost(group)
        };
        memory.placement = placement;
        let goal = Goal {
            group,
            placement: &memory.placement,
            release: &view.release,
            rollback_for: self.spec.rollback_for,
        };
        let state = State { machines: &machines, reports: &reports };
        let mut next = reconcile::next(goal, state, &mut memory.progress, seen.now);
        // A machine that is only made to be kept bills as one that runs until it is made.
        let mut left = affordable - bound - cost;
        next.retain(|action| match action {
            Action::Create(order) if !order.launch => {
                left -= group.place(&order.region).map_or(0.0, |place| place.running_per_hour);
                left >= 0.0
            }
            _ => true,
        });
        actions.extend(next.into_iter().map(|action| (group.pool.clone(), action)));
        let facts = facts.listed();
        (Decision { at: seen.now, group: group.name.clone(), from, to, cause, findings, facts, short }, cost)
    }

    /// What became of an action. `chance` is uniform in 0 to 1.
    pub fn done(&mut self, action: &Action, result: Result<(), &PoolError>, now: Timestamp, chance: f64) {
        let group = match action {
            Action::Create(order) => &order.slot.group,
            Action::Change(machine, _)
            | Action::Drain(machine)
            | Action::Undrain(machine)
            | Action::Hold(machine)
            | Action::Release(machine) => &machine.slot.group,
        };
        if let Some(memory) = self.groups.get_mut(group) {
            memory.progress.done(action, result, now, chance);
            if result.is_ok() {
                memory.ready.on_action(action, now);
            }
        }
    }
}

fn unchanged(at: Timestamp, group: &GroupSpec, wanted: u32, cause: Cause) -> Decision {
    Decision {
        at,
        group: group.name.clone(),
        from: wanted,
        to: wanted,
        cause,
        findings: Vec::new(),
        facts: Vec::new(),
        short: (0, 0),
    }
}

fn price(group: &GroupSpec, machine: &Machine) -> f64 {
    group.place(&machine.region).map_or(0.0, |place| place.running_per_hour)
}

/// What the smallest fleet of a group costs per hour.
fn smallest_cost(group: &GroupSpec) -> f64 {
    let cheapest = group.places.iter().map(|place| place.running_per_hour).reduce(f64::min);
    cheapest.unwrap_or(0.0) * f64::from(group.machines_min)
}

/// Reports of these machines that are not stale, by machine.
fn fresh(machines: &[Machine], seen: &Seen, stale_after: Duration) -> BTreeMap<MachineId, NodeReport> {
    let report = |machine: &Machine| {
        let report =
            seen.reports.get(&machine.id.0).or_else(|| seen.reports.get(&machine.slot.to_string()))?;
        // What was said before the machine was there is of another one that had its slot.
        let is_its = report.at >= machine.created_at;
        let is_fresh = age(seen.now, report.at).is_some_and(|age| age <= stale_after);
        (is_its && is_fresh).then(|| report.clone())
    };
    machines.iter().filter_map(|machine| Some((machine.id.clone(), report(machine)?))).collect()
}

fn facts(
    signals: &GroupSignals,
    view: &GroupView,
    present: u32,
    group: &GroupSpec,
    memory: &GroupMemory,
) -> Facts {
    let to_ready = memory.ready.slowest(Start::Cold).unwrap_or(group.ready_after);
    let opens_in = view.markets.opens_in.map(|opens_in| opens_in.as_secs_f64());
    Facts::of(signals)
        .with("machines", Some(f64::from(present)))
        .with("machines_ready", Some(f64::from(signals.ready)))
        .with("market_opens_in", opens_in)
        .with("cost_per_1000", view.cost_per_1000)
        .with("cost_per_hour", Some(memory.placement.cost(group)))
        .with("demand", view.demand)
        .with("time_to_ready", Some(to_ready.as_secs_f64()))
        .with_truth("market_open", view.markets.is_open)
}
