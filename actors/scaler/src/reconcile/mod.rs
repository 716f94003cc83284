//! From the machines there are to those there should be: which step comes next for each, and never two at once.
//!
//! Levels, not edges: each round looks at the list anew and says what is still to be done, so that a step that was
//! lost, done twice or done by another scaler changes nothing. A machine that is to go is cordoned, then drained, then
//! stopped, under one hold; only a machine that does not run is destroyed. A new release takes over machine by machine
//! as its own become ready, and the old ones stay stopped for a while, so that going back takes seconds.

mod backoff;
mod retire;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use jiff::Timestamp;

use crate::fleet::{GroupSpec, Machine, MachineId, MachineState, Slot};
use crate::place::Placement;
use crate::pool::{Change, Order, PoolError};
use crate::rule::after;
use crate::signal::NodeReport;
pub(crate) use backoff::Backoffs;
use retire::Retirement;

/// Machines of one group that are changed in one round.
const CHANGES_MAX: usize = 8;
/// A machine that is starting, or says that it is not ready, for longer is replaced.
const AILING_AFTER: Duration = Duration::from_secs(600);

/// One thing to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Make a machine.
    Create(Order),
    /// Change one.
    Change(Machine, Change),
    /// Tell the node on it to take no more, and to send its streams elsewhere.
    Drain(Machine),
    /// Tell it to take requests again.
    Undrain(Machine),
    /// Keep the right to change it.
    Hold(Machine),
    /// Give that right back.
    Release(Machine),
}

/// What a group's machines are to become.
#[derive(Clone, Copy, Debug)]
pub struct Goal<'a> {
    /// The group.
    pub group: &'a GroupSpec,
    /// Where how many should run.
    pub placement: &'a Placement,
    /// What they should run.
    pub release: &'a str,
    /// How long machines of another release stay stopped once nothing of it runs.
    pub rollback_for: Duration,
}

/// What is known of a group's machines.
#[derive(Clone, Copy, Debug)]
pub struct State<'a> {
    /// All of the group.
    pub machines: &'a [Machine],
    /// What their nodes last said; only what is fresh.
    pub reports: &'a BTreeMap<MachineId, NodeReport>,
}

/// What the reconciler remembers of one group.
#[derive(Debug, Default)]
pub struct Progress {
    retiring: BTreeMap<MachineId, Retirement>,
    backoffs: Backoffs,
    /// Since when machines are starting, or say that they are not ready.
    ailing: BTreeMap<MachineId, Timestamp>,
    /// Since when nothing of another release runs.
    rolled_since: Option<Timestamp>,
}

impl Progress {
    /// Machines that are on their way out.
    #[must_use]
    pub fn retiring(&self) -> usize {
        self.retiring.len()
    }

    /// Whether that machine is on its way out.
    #[must_use]
    pub fn is_retiring(&self, machine: &MachineId) -> bool {
        self.retiring.contains_key(machine)
    }

    /// Regions that refused machines for want of capacity, of late.
    #[must_use]
    pub fn full_regions(&self, now: Timestamp) -> BTreeSet<String> {
        self.backoffs.full_regions(now)
    }

    /// What became of an action. `chance` is uniform in 0 to 1 and spreads the next attempts of many.
    pub fn done(&mut self, action: &Action, result: Result<(), &PoolError>, now: Timestamp, chance: f64) {
        self.backoffs.done(action, result, now, chance);
        match (action, result) {
            (Action::Change(machine, Change::Cordon), Ok(())) => {
                if let Some(retirement) = self.retiring.get_mut(&machine.id) {
                    retirement.cordoned_at.get_or_insert(now);
                }
            }
            (Action::Change(machine, _) | Action::Hold(machine), Err(PoolError::Gone)) => {
                self.retiring.remove(&machine.id);
            }
            _ => {}
        }
    }
}

/// Machines of a group, sorted by what can be done with them.
struct Sorted<'a> {
    goal: Goal<'a>,
    state: State<'a>,
    now: Timestamp,
}

impl<'a> Sorted<'a> {
    fn is_current(&self, machine: &Machine) -> bool {
        machine.release == self.goal.release
    }

    /// They answer or are about to, and nobody has cordoned them.
    fn live(&self, progress: &Progress, current: bool) -> impl Iterator<Item = &'a Machine> {
        self.state
            .machines
            .iter()
            .filter(move |machine| self.is_current(machine) == current)
            .filter(|machine| machine.state.is_capacity() && !machine.cordoned)
            .filter(|machine| !progress.retiring.contains_key(&machine.id))
            .collect::<Vec<_>>()
            .into_iter()
    }

    fn is_ready(&self, machine: &Machine) -> bool {
        machine.state == MachineState::Started
            && self.state.reports.get(&machine.id).is_some_and(|report| report.is_ready)
    }

    /// It is on its way, or says that it is not ready; one that says nothing may be well.
    fn is_ailing(&self, machine: &Machine) -> bool {
        let report = || self.state.reports.get(&machine.id);
        match machine.state {
            MachineState::Starting => true,
            MachineState::Started => report().is_some_and(|report| !report.is_ready && !report.is_draining),
            _ => false,
        }
    }

    fn free_slots(&self) -> impl Iterator<Item = Slot> + 'a {
        let taken: BTreeSet<u32> = self.state.machines.iter().map(|machine| machine.slot.number).collect();
        let group = self.goal.group;
        (0..group.machines_max)
            .filter(move |number| !taken.contains(number))
            .map(|number| Slot { group: group.name.clone(), number })
    }
}

/// The next steps of a group, in order.
#[must_use]
pub fn next(goal: Goal<'_>, state: State<'_>, progress: &mut Progress, now: Timestamp) -> Vec<Action> {
    let sorted = Sorted { goal, state, now };
    let mut actions = Vec::new();
    let listed: BTreeSet<&MachineId> = state.machines.iter().map(|machine| &machine.id).collect();
    progress.retiring.retain(|id, _| listed.contains(id));
    progress.backoffs.forget(now);
    give_up_ailing(&sorted, progress);
    let missing = grow(&sorted, progress, &mut actions);
    take_up_again(&sorted, progress, &mut actions);
    shrink(&sorted, progress, &actions);
    replace(&sorted, progress, missing);
    retire::advance(&sorted, progress, &mut actions);
    tidy(&sorted, progress, missing, &mut actions);
    actions.retain(|action| progress.backoffs.allows(action, now));
    actions.truncate(CHANGES_MAX);
    actions
}

/// Lets a machine go that does not become ready, one at a time: what keeps all of them from it is not mended so.
fn give_up_ailing(sorted: &Sorted<'_>, progress: &mut Progress) {
    let machines = sorted.state.machines;
    progress.ailing.retain(|id, _| machines.iter().any(|m| m.id == *id && sorted.is_ailing(m)));
    for machine in machines.iter().filter(|machine| sorted.is_ailing(machine)) {
        let since = *progress.ailing.entry(machine.id.clone()).or_insert(sorted.now);
        if after(since, AILING_AFTER) <= sorted.now && progress.retiring.is_empty() {
            progress.retiring.insert(machine.id.clone(), Retirement::for_good(sorted.now));
        }
    }
}

/// Fills regions that have too few: first with machines that were about to go, then with stopped ones, then with new
/// ones. Returns how many are still missing.
fn grow(sorted: &Sorted<'_>, progress: &mut Progress, actions: &mut Vec<Action>) -> u32 {
    let Sorted { goal, state, now } = sorted;
    let mut free = sorted.free_slots().collect::<Vec<_>>().into_iter();
    let mut missing = 0;
    let full = progress.full_regions(*now);
    for (region, wanted) in &goal.placement.by_region {
        let live = sorted.live(progress, true).filter(|machine| machine.region == *region).count();
        let mut deficit = wanted.saturating_sub(u32::try_from(live).unwrap_or(u32::MAX));
        let here = |machine: &&Machine| machine.region == *region && sorted.is_current(machine);
        for machine in state.machines.iter().filter(here) {
            if deficit == 0 {
                break;
            }
            let retirement = progress.retiring.get(&machine.id);
            if retirement.is_some_and(|retirement| !retirement.may_return) {
                continue;
            }
            if machine.state.is_capacity() && (machine.cordoned || retirement.is_some()) {
                // One whose cordon another scaler holds refuses; it is asked again later.
                if !progress.backoffs.allows(&Action::Change(machine.clone(), Change::Uncordon), *now) {
                    continue;
                }
                progress.retiring.remove(&machine.id);
                actions.push(Action::Change(machine.clone(), Change::Uncordon));
                actions.push(Action::Release(machine.clone()));
                deficit -= 1;
            }
        }
        for machine in state.machines.iter().filter(here).filter(|machine| machine.state.is_warm()) {
            if deficit == 0 {
                break;
            }
            let start = Action::Change(machine.clone(), Change::Start);
            if !progress.backoffs.allows(&start, *now) {
                continue;
            }
            progress.retiring.remove(&machine.id);
            if machine.cordoned {
                actions.push(Action::Change(machine.clone(), Change::Uncordon));
            }
            actions.push(start);
            deficit -= 1;
        }
        while deficit > 0 && !full.contains(region) {
            let order =
                |slot| Order { slot, region: region.clone(), release: goal.release.to_owned(), launch: true };
            let create = free.by_ref().map(|slot| Action::Create(order(slot)));
            let Some(create) = create.into_iter().find(|create| progress.backoffs.allows(create, *now))
            else {
                break;
            };
            actions.push(create);
            deficit -= 1;
        }
        missing += deficit;
    }
    missing
}

/// A node that drains on a machine that nobody has cordoned is to take requests again. Not before its cordon is lifted:
/// whoever holds that has the node drain.
fn take_up_again(sorted: &Sorted<'_>, progress: &Progress, actions: &mut Vec<Action>) {
    let drains = |machine: &&Machine| {
        sorted.state.reports.get(&machine.id).is_some_and(|report| report.is_draining)
            && machine.state == MachineState::Started
            && !machine.cordoned
            && !progress.retiring.contains_key(&machine.id)
    };
    for machine in sorted.state.machines.iter().filter(drains) {
        actions.extend([Action::Undrain(machine.clone()), Action::Release(machine.clone())]);
    }
}

/// Lets machines go where there are too many: those that are not ready first, then the highest slots, so that two
/// scalers choose the same. While those that are wanted elsewhere are not ready, the ready ones stay: a move is first
/// there and then away. A machine that somebody has cordoned and nobody wants goes too.
fn shrink(sorted: &Sorted<'_>, progress: &mut Progress, actions: &[Action]) {
    let is_rescued = |machine: &Machine| {
        actions
            .iter()
            .any(|action| matches!(action, Action::Change(other, Change::Uncordon) if other.id == machine.id))
    };
    let left = sorted.state.machines.iter().filter(|machine| {
        machine.state.is_capacity()
            && machine.cordoned
            && !progress.retiring.contains_key(&machine.id)
            && !is_rescued(machine)
    });
    let left: Vec<MachineId> = left.map(|machine| machine.id.clone()).collect();
    let live: Vec<&Machine> = sorted.live(progress, true).collect();
    let ready = live.iter().filter(|machine| sorted.is_ready(machine)).count();
    let mut spare = u32::try_from(ready).unwrap_or(u32::MAX).saturating_sub(sorted.goal.placement.total());
    let mut regions: BTreeMap<&str, Vec<&Machine>> = BTreeMap::new();
    for machine in live {
        regions.entry(machine.region.as_str()).or_default().push(machine);
    }
    for (region, mut machines) in regions {
        let keep = sorted.goal.placement.by_region.get(region).copied().unwrap_or(0);
        machines.sort_by_key(|machine| {
            (machine.state == MachineState::Starting, !sorted.is_ready(machine), machine.slot.number)
        });
        for machine in machines.into_iter().skip(keep as usize).rev() {
            if sorted.is_ready(machine) {
                if spare == 0 {
                    continue;
                }
                spare -= 1;
            }
            progress.retiring.insert(machine.id.clone(), Retirement::begun(sorted.now));
        }
    }
    progress.retiring.extend(left.into_iter().map(|id| (id, Retirement::begun(sorted.now))));
}

/// Lets machines of another release go, as many as those of the wanted one can do without.
fn replace(sorted: &Sorted<'_>, progress: &mut Progress, missing: u32) {
    let number = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
    let wanted = sorted.goal.placement.total();
    let mut old: Vec<&Machine> = sorted.live(progress, false).collect();
    if old.is_empty() {
        return;
    }
    let live = number(sorted.live(progress, true).count());
    let ready = number(sorted.live(progress, true).filter(|machine| sorted.is_ready(machine)).count());
    let mut spare = (ready + number(old.len())).saturating_sub(wanted);
    // With no slot to spare, the new release must be given one: then one machine less answers for a while.
    let has_slot = sorted.free_slots().next().is_some();
    let warm = sorted.state.machines.iter().any(|machine| machine.state.is_warm());
    if spare == 0 && missing > 0 && !has_slot && !warm && live == ready && progress.retiring.is_empty() {
        spare = 1;
    }
    old.sort_by_key(|machine| machine.slot.number);
    for machine in old.into_iter().rev().take(spare as usize) {
        progress.retiring.insert(machine.id.clone(), Retirement::begun(sorted.now));
    }
}

/// Keeps as many stopped machines as are wanted, and none that fell over.
fn tidy(sorted: &Sorted<'_>, progress: &mut Progress, missing: u32, actions: &mut Vec<Action>) {
    let Sorted { goal, state, now } = sorted;
    let busy: BTreeSet<MachineId> = actions
        .iter()
        .filter_map(|action| match action {
            Action::Change(machine, _) => Some(machine.id.clone()),
            _ => None,
        })
        .collect();
    let idle =
        |machine: &&Machine| !busy.contains(&machine.id) && !progress.retiring.contains_key(&machine.id);
    for machine in state.machines.iter().filter(idle) {
        if machine.state == MachineState::Failed {
            actions.push(Action::Change(machine.clone(), Change::Destroy));
        }
    }
    let runs_old = state.machines.iter().any(|machine| {
        !sorted.is_current(machine) && !machine.state.is_warm() && machine.state != MachineState::Failed
    });
    progress.rolled_since = if runs_old { None } else { progress.rolled_since.or(Some(*now)) };
    let may_forget_old = progress
        .rolled_since
        .is_some_and(|since| crate::signal::age(*now, since).is_some_and(|age| age >= goal.rollback_for));

    let mut warm: Vec<&Machine> =
        state.machines.iter().filter(idle).filter(|machine| machine.state.is_warm()).collect();
    warm.sort_by_key(|machine| machine.slot.number);
    let (current, old): (Vec<&Machine>, Vec<&Machine>) =
        warm.into_iter().partition(|machine| sorted.is_current(machine));
    let has_slot = sorted.free_slots().next().is_some();
    let kept = goal.group.warm as usize;
    let mut surplus: Vec<&Machine> = current.iter().skip(kept).rev().copied().collect();
    if may_forget_old {
        surplus.extend(old.iter().rev());
    }
    if missing > 0 && !has_slot && surplus.is_empty() {
        // A machine that is wanted elsewhere needs the slot of one that only waits.
        surplus.extend(old.iter().rev().chain(current.iter().rev()).take(1));
    }
    actions.extend(surplus.into_iter().map(|machine| Action::Change(machine.clone(), Change::Destroy)));

    let stopping = state.machines.iter().filter(|machine| {
        sorted.is_current(machine)
            && (machine.state == MachineState::Stopping || progress.retiring.contains_key(&machine.id))
    });
    let spares = current.len() + stopping.count();
    // Those that are to run come first: a spare has no hurry, and must not take their slot.
    let makes_others = actions.iter().any(|action| matches!(action, Action::Create(_)));
    if missing == 0
        && !makes_others
        && spares < kept
        && state.machines.iter().all(|machine| machine.state != MachineState::Starting)
    {
        let full = progress.full_regions(*now);
        let place = goal.group.places.iter().find(|place| !full.contains(&place.region));
        let order = |slot, region: &str| {
            let release = goal.release.to_owned();
            Action::Create(Order { slot, region: region.to_owned(), release, launch: false })
        };
        // Slots that running machines may still need stay free.
        let taken = state.machines.len();
        let free = (goal.group.machines_max as usize).saturating_sub(taken);
        if let Some((place, slot)) = place.zip(sorted.free_slots().next()).filter(|_| free > 0) {
            actions.push(order(slot, &place.region));
        }
    }
}
