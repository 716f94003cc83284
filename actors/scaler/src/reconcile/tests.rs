//! Fleets in memory that are driven by the reconciler for some rounds, and what they come to.

use super::*;
use crate::carry::{Carrier, Nodes};
use crate::pool::MachinePool;
use crate::pool::simulated::{Delays, SimulatedPool};
use crate::signal::Signal;

const SECOND: Duration = Duration::from_secs(1);

/// One scaler with its own memory, and the world that it shares with others.
struct World {
    pool: SimulatedPool,
    group: GroupSpec,
    now: Timestamp,
    /// Nodes that were told to drain, and when.
    draining: BTreeMap<MachineId, Timestamp>,
    /// A node that was told to drain is empty after so long.
    empties_after: Duration,
    /// No node says anything.
    is_silent: bool,
    /// Machines that had run and were stopped without having been cordoned and drained.
    torn: Vec<MachineId>,
    log: Vec<String>,
}

struct Scaler {
    progress: Progress,
    carrier: Carrier,
}

impl Scaler {
    fn new() -> Self {
        Self { progress: Progress::default(), carrier: Carrier::new(SECOND * 30) }
    }
}

struct Told<'a>(&'a mut BTreeMap<MachineId, Timestamp>);

impl Nodes for Told<'_> {
    fn drain(&mut self, machine: &Machine, now: Timestamp) {
        self.0.entry(machine.id.clone()).or_insert(now);
    }

    fn undrain(&mut self, machine: &Machine, _: Timestamp) {
        self.0.remove(&machine.id);
    }
}

fn placement(regions: &[(&str, u32)]) -> Placement {
    let by_region = regions.iter().map(|(region, n)| ((*region).to_owned(), *n)).collect();
    Placement { by_region, ..Placement::default() }
}

impl World {
    fn new(machines_max: u32, warm: u32) -> Self {
        let place = |region: &str| crate::fleet::PlaceSpec {
            region: region.to_owned(),
            ..crate::pool::contract::group("x").places[0].clone()
        };
        let group = GroupSpec {
            machines_max,
            warm,
            places: vec![place("iad"), place("fra")],
            drain: SECOND * 20,
            ..crate::pool::contract::group("x")
        };
        Self {
            pool: SimulatedPool::new(Delays { create: SECOND * 6, start: SECOND, stop: SECOND }),
            group,
            now: Timestamp::from_second(1_800_000_000).unwrap(),
            draining: BTreeMap::new(),
            empties_after: SECOND * 5,
            is_silent: false,
            torn: Vec::new(),
            log: Vec::new(),
        }
    }

    fn machines(&mut self) -> Vec<Machine> {
        self.pool.list(self.now).unwrap()
    }

    fn reports(&self, machines: &[Machine]) -> BTreeMap<MachineId, NodeReport> {
        if self.is_silent {
            return BTreeMap::new();
        }
        let started = machines.iter().filter(|machine| machine.state == MachineState::Started);
        let report = |machine: &Machine| {
            let told = self.draining.get(&machine.id);
            let inside = match told {
                Some(told) if after(*told, self.empties_after) <= self.now => 0.0,
                _ => 3.0,
            };
            NodeReport {
                at: self.now,
                is_ready: told.is_none(),
                is_draining: told.is_some(),
                measured: [(Signal::InFlight, inside)].into(),
            }
        };
        started.map(|machine| (machine.id.clone(), report(machine))).collect()
    }

    fn round(&mut self, scaler: &mut Scaler, placement: &Placement, release: &str) {
        let Ok(machines) = self.pool.list(self.now) else { return };
        let reports = self.reports(&machines);
        scaler.carrier.keep(machines.iter());
        let goal = Goal { group: &self.group, placement, release, rollback_for: SECOND * 120 };
        let state = State { machines: &machines, reports: &reports };
        for action in next(goal, state, &mut scaler.progress, self.now) {
            if let Action::Change(machine, Change::Stop) = &action
                && machine.state == MachineState::Started
                && !machine.cordoned
            {
                self.torn.push(machine.id.clone());
            }
            let result =
                scaler.carrier.carry(&action, &mut self.pool, &mut Told(&mut self.draining), self.now);
            if !matches!(action, Action::Hold(_) | Action::Release(_) | Action::Drain(_) | Action::Undrain(_))
            {
                self.log.push(line(&action, &result));
            }
            scaler.progress.done(&action, result.as_ref().copied(), self.now, 0.5);
        }
        let machines = self.machines();
        assert!(machines.len() <= self.group.machines_max as usize, "more than the maximum");
    }

    fn rounds(&mut self, scaler: &mut Scaler, placement: &Placement, release: &str, count: u32) {
        for _ in 0..count {
            self.round(scaler, placement, release);
            self.now = after(self.now, SECOND);
        }
    }

    /// `slot region state`, with a `!` where it is cordoned.
    fn shown(&mut self) -> Vec<String> {
        let mut machines = self.machines();
        machines.sort_by_key(|machine| machine.slot.number);
        let shown = |m: &Machine| {
            let mark = if m.cordoned { "!" } else { "" };
            format!("{} {} {} {}{mark}", m.slot.number, m.region, m.release, m.state.name())
        };
        machines.iter().map(shown).collect()
    }
}

fn line(action: &Action, result: &Result<(), PoolError>) -> String {
    let text = match action {
        Action::Create(order) => format!("create {} {}", order.slot.number, order.region),
        Action::Change(machine, change) => format!("{} {}", change.name(), machine.slot.number),
        Action::Drain(machine) => format!("drain {}", machine.slot.number),
        Action::Undrain(machine) => format!("undrain {}", machine.slot.number),
        Action::Hold(machine) => format!("hold {}", machine.slot.number),
        Action::Release(machine) => format!("release {}", machine.slot.number),
    };
    match result {
        Ok(()) => text,
        Err(err) => format!("{text}: {err}"),
    }
}

#[test]
fn what_is_missing_is_made_and_not_twice() {
    let (mut world, mut scaler) = (World::new(8, 0), Scaler::new());
    let wanted = placement(&[("iad", 2), ("fra", 1)]);
    world.rounds(&mut scaler, &wanted, "v1", 20);
    assert_eq!(world.log, ["create 0 fra", "create 1 iad", "create 2 iad"]);
    assert_eq!(world.shown(), ["0 fra v1 started", "1 iad v1 started", "2 iad v1 started"]);
}

#[test]
fn a_machine_goes_cordoned_drained_stopped_destroyed() {
    let (mut world, mut scaler) = (World::new(8, 0), Scaler::new());
    world.rounds(&mut scaler, &placement(&[("iad", 2)]), "v1", 10);
    world.log.clear();
    world.rounds(&mut scaler, &placement(&[("iad", 1)]), "v1", 3);
    assert_eq!(world.log, ["cordon 1"]);
    assert_eq!(world.draining.len(), 1, "its node knows");
    // Empty five seconds after it was told, not when its drain ends after twenty.
    world.rounds(&mut scaler, &placement(&[("iad", 1)]), "v1", 12);
    assert_eq!(world.log, ["cordon 1", "stop 1", "destroy 1"]);
    assert_eq!(world.shown(), ["0 iad v1 started"]);
}

#[test]
fn a_node_that_does_not_empty_is_stopped_when_its_drain_ends() {
    let (mut world, mut scaler) = (World::new(8, 0), Scaler::new());
    world.empties_after = SECOND * 1000;
    world.rounds(&mut scaler, &placement(&[("iad", 2)]), "v1", 10);
    world.log.clear();
    world.rounds(&mut scaler, &placement(&[("iad", 1)]), "v1", 20);
    assert_eq!(world.log, ["cordon 1"]);
    world.rounds(&mut scaler, &placement(&[("iad", 1)]), "v1", 5);
    assert_eq!(world.log, ["cordon 1", "stop 1", "destroy 1"]);
}

#[test]
fn a_machine_that_is_wanted_again_on_its_way_out_comes_back() {
    let (mut world, mut scaler) = (World::new(8, 0), Scaler::new());
    world.rounds(&mut scaler, &placement(&[("iad", 2)]), "v1", 10);
    world.rounds(&mut scaler, &placement(&[("iad", 1)]), "v1", 3);
    world.log.clear();
    world.rounds(&mut scaler, &placement(&[("iad", 2)]), "v1", 10);
    assert_eq!(world.log, ["uncordon 1"]);
    assert_eq!(world.shown(), ["0 iad v1 started", "1 iad v1 started"]);
    assert!(world.draining.is_empty());
}

#[test]
fn stopped_machines_are_kept_and_started_first() {
    let (mut world, mut scaler) = (World::new(8, 1), Scaler::new());
    world.rounds(&mut scaler, &placement(&[("iad", 3)]), "v1", 20);
    assert_eq!(world.log, ["create 0 iad", "create 1 iad", "create 2 iad", "create 3 iad"]);
    assert_eq!(world.shown().last().unwrap(), "3 iad v1 stopped", "a spare is made when all is well");
    world.rounds(&mut scaler, &placement(&[("iad", 1)]), "v1", 30);
    assert_eq!(world.shown(), ["0 iad v1 started", "1 iad v1 stopped!"]);
    world.log.clear();
    world.rounds(&mut scaler, &placement(&[("iad", 2)]), "v1", 3);
    assert_eq!(world.log[..2], ["uncordon 1", "start 1"]);
    assert_eq!(world.shown()[..2], ["0 iad v1 started", "1 iad v1 started"]);
}

#[test]
fn a_region_without_room_is_left_alone_for_a_while() {
    let (mut world, mut scaler) = (World::new(8, 0), Scaler::new());
    world.pool.set_capacity("iad", Some(1));
    world.rounds(&mut scaler, &placement(&[("iad", 2)]), "v1", 20);
    let refused = world.log.iter().filter(|line| line.contains("no capacity")).count();
    assert_eq!(refused, 1, "{:?}", world.log);
    assert_eq!(scaler.progress.full_regions(world.now).into_iter().collect::<Vec<_>>(), ["iad"]);
}

#[test]
fn a_pool_that_fails_is_asked_ever_more_seldom() {
    let (mut world, mut scaler) = (World::new(1, 0), Scaler::new());
    let mut attempts = 0;
    for _ in 0..600 {
        let machines = world.machines();
        let goal = Goal {
            group: &world.group,
            placement: &placement(&[("iad", 1)]),
            release: "v1",
            rollback_for: SECOND,
        };
        let state = State { machines: &machines, reports: &BTreeMap::new() };
        for action in next(goal, state, &mut scaler.progress, world.now) {
            attempts += 1;
            let error = PoolError::Unavailable("down".to_owned());
            scaler.progress.done(&action, Err(&error), world.now, 0.5);
        }
        world.now = after(world.now, SECOND);
    }
    assert!((8..16).contains(&attempts), "{attempts} attempts in ten minutes");
}

#[test]
fn a_machine_that_fell_over_is_replaced() {
    let (mut world, mut scaler) = (World::new(8, 0), Scaler::new());
    world.rounds(&mut scaler, &placement(&[("iad", 2)]), "v1", 10);
    let id = world.machines()[1].id.clone();
    world.pool.fail(&id);
    world.log.clear();
    world.rounds(&mut scaler, &placement(&[("iad", 2)]), "v1", 10);
    assert_eq!(world.log, ["create 2 iad", "destroy 1"]);
    assert_eq!(world.shown(), ["0 iad v1 started", "2 iad v1 started"]);
}

#[test]
fn silence_moves_nothing() {
    let (mut world, mut scaler) = (World::new(8, 0), Scaler::new());
    world.rounds(&mut scaler, &placement(&[("iad", 2)]), "v1", 10);
    world.log.clear();
    world.is_silent = true;
    world.rounds(&mut scaler, &placement(&[("iad", 2)]), "v1", 2000);
    assert_eq!(world.log, [] as [String; 0]);
}

#[test]
fn a_new_release_takes_over_and_can_be_taken_back() {
    let (mut world, mut scaler) = (World::new(8, 0), Scaler::new());
    let wanted = placement(&[("iad", 3)]);
    world.rounds(&mut scaler, &wanted, "v1", 10);
    world.log.clear();
    let mut fewest = u32::MAX;
    for _ in 0..40 {
        world.rounds(&mut scaler, &wanted, "v2", 1);
        let machines = world.machines();
        let answers = machines.iter().filter(|m| m.state == MachineState::Started && !m.cordoned).count();
        fewest = fewest.min(u32::try_from(answers).unwrap());
    }
    assert_eq!(fewest, 3, "as many answer at every moment as are wanted");
    let shown = world.shown();
    assert_eq!(shown.iter().filter(|line| line.ends_with("v2 started")).count(), 3, "{shown:?}");
    assert_eq!(
        shown.iter().filter(|line| line.ends_with("v1 stopped!")).count(),
        3,
        "kept to go back: {shown:?}"
    );
    world.log.clear();
    world.rounds(&mut scaler, &wanted, "v1", 3);
    assert_eq!(world.log.iter().filter(|line| line.starts_with("start")).count(), 3, "{:?}", world.log);
    // Nothing of the other release runs any more: after two minutes it is gone.
    world.rounds(&mut scaler, &wanted, "v1", 200);
    assert_eq!(world.shown(), ["0 iad v1 started", "1 iad v1 started", "2 iad v1 started"]);
}

#[test]
fn a_release_without_a_slot_to_spare_rolls_one_at_a_time() {
    let (mut world, mut scaler) = (World::new(3, 0), Scaler::new());
    let wanted = placement(&[("iad", 3)]);
    world.rounds(&mut scaler, &wanted, "v1", 10);
    let mut fewest = 3;
    for _ in 0..200 {
        world.rounds(&mut scaler, &wanted, "v2", 1);
        let machines = world.machines();
        fewest =
            fewest.min(machines.iter().filter(|m| m.state == MachineState::Started && !m.cordoned).count());
    }
    assert_eq!(fewest, 2);
    assert_eq!(world.shown(), ["0 iad v2 started", "1 iad v2 started", "2 iad v2 started"]);
}

#[test]
fn a_machine_moves_by_being_there_first() {
    let (mut world, mut scaler) = (World::new(8, 0), Scaler::new());
    world.rounds(&mut scaler, &placement(&[("iad", 1)]), "v1", 10);
    world.log.clear();
    world.rounds(&mut scaler, &placement(&[("fra", 1)]), "v1", 30);
    assert_eq!(world.log, ["create 1 fra", "cordon 0", "stop 0", "destroy 0"]);
}

#[test]
fn a_machine_that_never_becomes_ready_is_replaced() {
    let (mut world, mut scaler) = (World::new(8, 0), Scaler::new());
    world.rounds(&mut scaler, &placement(&[("iad", 2)]), "v1", 10);
    let sick = world.machines()[0].clone();
    world.log.clear();
    // It says all the time that it is not ready.
    for _ in 0..620 {
        let machines = world.machines();
        let mut reports = world.reports(&machines);
        if let Some(report) = reports.get_mut(&sick.id) {
            report.is_ready = false;
        }
        let goal = Goal {
            group: &world.group,
            placement: &placement(&[("iad", 2)]),
            release: "v1",
            rollback_for: SECOND,
        };
        let state = State { machines: &machines, reports: &reports };
        for action in next(goal, state, &mut scaler.progress, world.now) {
            let told = &mut Told(&mut world.draining);
            let result = scaler.carrier.carry(&action, &mut world.pool, told, world.now);
            if matches!(action, Action::Create(_) | Action::Change(..)) {
                world.log.push(line(&action, &result));
            }
            scaler.progress.done(&action, result.as_ref().copied(), world.now, 0.5);
        }
        world.now = after(world.now, SECOND);
    }
    assert_eq!(world.log, ["create 2 iad", "cordon 0", "stop 0", "destroy 0"]);
}

#[test]
fn two_scalers_end_where_they_agree_and_never_have_too_many() {
    for seed in 0..40_u64 {
        let mut world = World::new(5, 1);
        let (mut one, mut other) = (Scaler::new(), Scaler::new());
        let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        let mut draw = |bound: u64| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state % bound
        };
        for _ in 0..120 {
            let wish = |number: u64| match number {
                0 => placement(&[("iad", 1)]),
                1 => placement(&[("iad", 2), ("fra", 1)]),
                2 => placement(&[("fra", 4)]),
                _ => placement(&[("iad", 5)]),
            };
            let (first, second) = (wish(draw(4)), wish(draw(4)));
            for _ in 0..10 {
                world.round(&mut one, &first, "v1");
                world.round(&mut other, &second, "v1");
                world.now = after(world.now, SECOND);
            }
        }
        let agreed = placement(&[("iad", 2), ("fra", 1)]);
        for _ in 0..400 {
            world.round(&mut one, &agreed, "v1");
            world.round(&mut other, &agreed, "v1");
            world.now = after(world.now, SECOND);
        }
        let shown = world.shown();
        let running = |region: &str| {
            shown.iter().filter(|line| line.ends_with("started") && line.contains(region)).count()
        };
        assert_eq!((running("iad"), running("fra"), shown.len()), (2, 1, 4), "seed {seed}: {shown:?}");
        assert_eq!(world.torn, [], "seed {seed}: stopped while callers were sent to them");
    }
}
