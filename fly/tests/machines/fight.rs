//! Two scalers with different wishes fight for an hour over one fleet on a platform that fails: what must hold at every
//! instant, and where the fleet ends once they agree and the platform has mended.
//!
//! Faults are the rows of `machines-api.json`, each alone and in mixes by seed.

mod rows;

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use peregrine_fly::machines::FlyPool;
use peregrine_scaler::Timestamp;
use peregrine_scaler::budget::{Budget, Spent};
use peregrine_scaler::carry::{Carrier, Nodes};
use peregrine_scaler::control::{Attached, Controller, FleetSpec, GroupView, Round, Seen};
use peregrine_scaler::fleet::{GroupSpec, Machine, PlaceSpec, Slot};
use peregrine_scaler::place::RoundTrips;
use peregrine_scaler::pool::PoolError;
use peregrine_scaler::reconcile::Action;
use peregrine_scaler::signal::{NodeReport, Signal};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::fake::What;
use super::fake::machine::FakeMachine;
use super::fake::world::{RELEASE, World};
use rows::{ROWS, Row};

const SECOND: Duration = Duration::from_secs(1);
const GROUP: &str = "inference";
const POOL: &str = "fly";
const MACHINES_MAX: u32 = 6;
const WARM: u32 = 1;
const DRAIN: Duration = Duration::from_secs(40);
/// Between two rounds of one scaler; the other's are in between.
const ROUND: Duration = Duration::from_secs(5);
/// How long they fight.
const FIGHT: Duration = Duration::from_secs(3600);
/// How long the fleet has to come to rest: the longest wait of a scaler after a refusal, what hangs on the platform,
/// and what is replaced for not becoming ready, one after the other.
const REST: Duration = Duration::from_secs(3600);
/// How long it must then stay as it is.
const STAYS: Duration = Duration::from_secs(300);
/// A node that was told to drain is empty after so long.
const EMPTIES_AFTER: Duration = Duration::from_secs(12);
/// Actions that are shown when something does not hold.
const TRAIL_MAX: usize = 400;
/// Answered by one machine, per second.
const CAPACITY: f64 = 100.0;
/// What they agree on in the end, and the machines that makes.
const AGREED: (f64, u32) = (330.0, 4);

struct Scaler {
    controller: Controller,
    pool: Attached,
    /// What this one believes is coming.
    demand: f64,
    changes_at: Timestamp,
    room: BTreeMap<String, u32>,
    /// A list, and what was decided on it, that is yet to be carried out.
    stale: Option<Round>,
}

/// Nodes that were told to drain, and when; a word to them may be lost.
struct Told {
    at: BTreeMap<String, Timestamp>,
    chance: StdRng,
    lost_share: f64,
}

impl Nodes for Told {
    fn drain(&mut self, machine: &Machine, now: Timestamp) {
        if !self.chance.random_bool(self.lost_share) {
            self.at.entry(machine.id.0.clone()).or_insert(now);
        }
    }

    fn undrain(&mut self, machine: &Machine, _: Timestamp) {
        if !self.chance.random_bool(self.lost_share) {
            self.at.remove(&machine.id.0);
        }
    }
}

impl Told {
    /// Since when the node knows. A process that came up later does not.
    fn since(&self, id: &str, up_since: Option<Timestamp>) -> Option<Timestamp> {
        self.at.get(id).copied().filter(|told| up_since.is_some_and(|up_since| *told >= up_since))
    }

    fn is_empty(&self, id: &str, up_since: Option<Timestamp>, now: Timestamp) -> bool {
        self.since(id, up_since).is_some_and(|told| after(told, EMPTIES_AFTER) <= now)
    }
}

fn after(now: Timestamp, time: Duration) -> Timestamp {
    now.checked_add(time).expect("a time")
}

fn group() -> GroupSpec {
    let place = |region: &str, running_per_hour| PlaceSpec {
        region: region.to_owned(),
        running_per_hour,
        stopped_per_hour: 0.01,
        machines_max: 10,
    };
    GroupSpec {
        name: GROUP.to_owned(),
        pool: POOL.to_owned(),
        machines_min: 1,
        machines_max: MACHINES_MAX,
        warm: WARM,
        capacity: CAPACITY,
        places: vec![place("iad", 1.0), place("fra", 1.2)],
        drain: DRAIN,
        ready_after: SECOND * 10,
    }
}

fn scaler(world: &World) -> Scaler {
    let spec = FleetSpec {
        groups: vec![group()],
        rules: Vec::new(),
        budget: Budget::default(),
        stale_after: SECOND * 30,
        // Short, so that they disagree often.
        stabilisation: SECOND * 20,
        dead_band: 0.0,
        rtt_worth: 0.0,
        rollback_for: SECOND * 120,
        hold: SECOND * 60,
    };
    let pool: FlyPool = world.pool(&[(GROUP, DRAIN)]);
    let pool = Attached { pool: Box::new(pool), carrier: Carrier::new(spec.hold) };
    let changes_at = world.now();
    let controller = Controller::new(spec);
    Scaler { controller, pool, demand: 50.0, changes_at, room: BTreeMap::new(), stale: None }
}

struct Fight {
    world: World,
    scalers: [Scaler; 2],
    told: Told,
    chance: StdRng,
    rows: Vec<(&'static Row, f64)>,
    /// Entries of the log that have been judged.
    judged: usize,
    /// One, or both of them.
    acting: usize,
    /// What one has decided is carried out only when the other has had its turn.
    is_stale: bool,
    name: String,
    /// What the scalers did of late.
    trail: VecDeque<String>,
}

impl Fight {
    fn new(seed: u64, rows: Vec<(&'static Row, f64)>, is_stale: bool) -> Self {
        let world = World::new(seed);
        let names: Vec<&str> = rows.iter().map(|(row, _)| row.name).collect();
        let name = format!("seed {seed}, {names:?}, stale {is_stale}");
        for (row, share) in &rows {
            world.with(|fake, _| row.inject(fake, *share));
        }
        let told = Told { at: BTreeMap::new(), chance: StdRng::seed_from_u64(seed ^ 1), lost_share: 0.1 };
        let scalers = [scaler(&world), scaler(&world)];
        let chance = StdRng::seed_from_u64(seed ^ 2);
        Self {
            world,
            scalers,
            told,
            chance,
            rows,
            judged: 0,
            acting: 2,
            is_stale,
            name,
            trail: VecDeque::new(),
        }
    }

    /// Wishes change every 15 to 90 seconds, each scaler's by itself.
    fn wish(&mut self, now: Timestamp) {
        for scaler in &mut self.scalers {
            if scaler.changes_at <= now {
                scaler.demand = self.chance.random_range(10.0..f64::from(MACHINES_MAX) * CAPACITY);
                scaler.changes_at = after(now, SECOND * self.chance.random_range(15..90));
            }
        }
    }

    /// What nodes say: those whose process runs and whose host can be reached.
    fn reports(&self, now: Timestamp) -> BTreeMap<String, NodeReport> {
        let told = &self.told;
        self.world.with(|fake, _| {
            let speaks = |machine: &&FakeMachine| machine.up_since.is_some() && machine.is_reachable();
            let report = |machine: &FakeMachine| {
                let is_draining = told.since(&machine.id, machine.up_since).is_some();
                let inside = if told.is_empty(&machine.id, machine.up_since, now) { 0.0 } else { 3.0 };
                let measured = [(Signal::InFlight, inside), (Signal::RequestRate, 5.0)].into();
                (machine.id.clone(), NodeReport { at: now, is_ready: !is_draining, is_draining, measured })
            };
            fake.live().filter(speaks).map(report).collect()
        })
    }

    fn decide(&mut self, which: usize, now: Timestamp) -> Round {
        let reports = self.reports(now);
        let scaler = &mut self.scalers[which];
        // Asked now and then; what is not known is tried.
        if now.as_second() % 30 < 5 {
            let room = scaler.pool.pool.room(&group(), now);
            scaler.room = room.map(|room| room.into_iter().collect()).unwrap_or_default();
        }
        let listed = scaler.pool.pool.list(now);
        if let Ok(machines) = &listed {
            scaler.pool.carrier.keep(machines.iter());
        }
        let view = GroupView {
            demand: Some(scaler.demand),
            release: RELEASE.to_owned(),
            room: scaler.room.clone(),
            ..GroupView::default()
        };
        let seen = Seen {
            now,
            machines: [(POOL.to_owned(), listed)].into(),
            reports,
            groups: [(GROUP.to_owned(), view)].into(),
            round_trips: RoundTrips::new(),
            spent: Spent { this_month: 0.0, remaining: SECOND * 86_400 },
        };
        let round = scaler.controller.round(&seen);
        assert!(round.strays.is_empty(), "{}", self.name);
        round
    }

    fn act(&mut self, which: usize, round: &Round, now: Timestamp) {
        for (_, action) in &round.actions {
            let scaler = &mut self.scalers[which];
            let Attached { pool, carrier } = &mut scaler.pool;
            let result = carrier.carry(action, pool.as_mut(), &mut self.told, now);
            scaler.controller.done(action, result.as_ref().copied(), now, self.chance.random());
            let what = match action {
                Action::Create(order) => format!("create {}", order.slot),
                Action::Change(machine, change) => format!("{} {}", change.name(), machine.slot),
                Action::Drain(machine) => format!("drain {}", machine.slot),
                Action::Undrain(machine) => format!("undrain {}", machine.slot),
                Action::Hold(machine) => format!("hold {}", machine.slot),
                Action::Release(machine) => format!("release {}", machine.slot),
            };
            self.trail.push_back(format!("{now} scaler {which}: {what}: {result:?}"));
            if self.trail.len() > TRAIL_MAX {
                self.trail.pop_front();
            }
            self.judge(now);
        }
    }

    /// What must hold at every instant.
    fn judge(&mut self, now: Timestamp) {
        let (name, told, from) = (&self.name, &self.told, self.judged);
        let trail = |slot: &str| {
            let of_it = self.trail.iter().filter(|line| line.contains(slot)).cloned();
            of_it.collect::<Vec<_>>().join("\n")
        };
        self.judged = self.world.with(|fake, _| {
            let live: Vec<&FakeMachine> = fake.live().collect();
            assert!(live.len() <= MACHINES_MAX as usize, "{name} at {now}: {} machines", live.len());
            let mut numbers: Vec<u32> = live
                .iter()
                .map(|machine| {
                    let slot: Slot = machine.name.parse().expect("every machine has a slot");
                    assert!(slot.group == GROUP && slot.number < MACHINES_MAX, "{name}: {slot}");
                    slot.number
                })
                .collect();
            numbers.sort_unstable();
            numbers.dedup();
            assert_eq!(numbers.len(), live.len(), "{name}: a slot has two machines");
            for entry in &fake.log[from..] {
                match &entry.what {
                    What::StopAsked { up_since: Some(up_since), cordoned_at, .. } => {
                        // Cordoned before it came up, within the last round: nobody was sent to it.
                        let is_new = cordoned_at.is_some_and(|since| since <= *up_since)
                            && entry.at < after(*up_since, ROUND);
                        let is_drained = is_new
                            || cordoned_at.is_some_and(|since| after(since, DRAIN) <= entry.at)
                            || told.is_empty(&entry.machine, Some(*up_since), entry.at);
                        assert!(
                            cordoned_at.is_some() && is_drained,
                            "{name}: undrained {entry:?}\n{}",
                            trail(&entry.name)
                        );
                    }
                    What::StopAsked { cordoned_at, .. } => {
                        let state = fake.machines[&entry.machine].state;
                        assert!(cordoned_at.is_some() || state == "stopped", "{name}: {state} {entry:?}");
                    }
                    What::DestroyAsked { state, by_force } => {
                        let rests =
                            ["created", "stopped", "suspended", "failed", "launch_failed", "destroying"];
                        assert!(!by_force && rests.contains(state), "{name}: {entry:?}");
                    }
                    _ => {}
                }
            }
            fake.log.len()
        });
    }

    /// Lets time pass in small steps, each of which is judged.
    fn pass(&mut self, time: Duration) {
        for _ in 0..5 {
            let now = self.world.pass(time / 5);
            self.judge(now);
        }
    }

    fn turn(&mut self, which: usize) {
        let now = self.world.now();
        let round = self.decide(which, now);
        if !self.is_stale {
            self.act(which, &round, now);
            return;
        }
        // Between its look and its deeds the other has done its own.
        let other = 1 - which;
        if let Some(before) = self.scalers[other].stale.take() {
            self.act(other, &before, now);
        }
        self.scalers[which].stale = Some(round);
    }

    fn run(&mut self, time: Duration, is_fighting: bool) {
        let until = after(self.world.now(), time);
        while self.world.now() < until {
            let now = self.world.now();
            if is_fighting {
                self.wish(now);
                let rows = self.rows.clone();
                for (row, share) in rows {
                    row.disturb(&self.world, &mut self.chance, share);
                }
            }
            for which in 0..2 {
                if which < self.acting {
                    self.turn(which);
                }
                self.pass(ROUND / 2);
            }
        }
    }

    /// The platform has mended, and both see the same: the fleet comes to where the plan says, and stays there.
    fn agree(&mut self) {
        self.world.with(|fake, _| fake.injections.clear());
        self.told.lost_share = 0.0;
        self.scalers.iter_mut().for_each(|scaler| scaler.demand = AGREED.0);
        let (mut rested, mut why) = (Duration::ZERO, None);
        let until = after(self.world.now(), REST);
        while rested < STAYS {
            assert!(self.world.now() < until, "{}: {why:?}\n{:#?}", self.name, self.trail);
            self.run(SECOND * 30, false);
            why = self.unrest();
            rested = if why.is_none() { rested + SECOND * 30 } else { Duration::ZERO };
        }
    }

    /// How the fleet differs from the plan of either scaler, or what there is beside it.
    fn unrest(&mut self) -> Option<String> {
        let now = self.world.pass(SECOND * 5);
        let told = &self.told;
        for scaler in &mut self.scalers[..self.acting] {
            let listed = scaler.pool.pool.list(now).expect("it has mended");
            let placement = scaler.controller.placement(GROUP).expect("it has decided").by_region.clone();
            let planned: BTreeMap<String, u32> =
                placement.into_iter().filter(|(_, count)| *count > 0).collect();
            let why = self.world.with(|fake, _| {
                let mut serving: BTreeMap<String, u32> = BTreeMap::new();
                for machine in fake.live().filter(|machine| machine.up_since.is_some()) {
                    let is_draining = told.since(&machine.id, machine.up_since).is_some();
                    let serves = machine.cordoned_at.is_none() && !is_draining && machine.is_reachable();
                    *serving.entry(machine.region.clone()).or_default() += u32::from(serves);
                }
                let stopped = fake.live().filter(|m| matches!(m.state, "created" | "stopped")).count();
                let live = fake.live().count();
                let is_planned = serving == planned && planned.values().sum::<u32>() == AGREED.1;
                let is_whole = stopped == WARM as usize && live == (AGREED.1 + WARM) as usize;
                let line =
                    |m: &FakeMachine| format!("{} {} {} {:?}", m.name, m.region, m.state, m.cordoned_at);
                let shown = || fake.live().map(line).collect::<Vec<_>>();
                (!is_planned || !is_whole || listed.len() != live).then(|| {
                    format!("{planned:?} is planned, {} are listed, there are {:?}", listed.len(), shown())
                })
            });
            if why.is_some() {
                return why;
            }
        }
        None
    }

    /// The whole hour, and the rest after it.
    fn fought(mut self) -> Self {
        self.run(FIGHT, true);
        self.agree();
        self
    }

    fn count(&self, what: impl Fn(&What) -> bool) -> usize {
        self.world.with(|fake, _| fake.log.iter().filter(|entry| what(&entry.what)).count())
    }
}

/// `SIM_SEED=7` replays one, `SIM_SEEDS=200` tries more.
fn seeds() -> std::ops::Range<u64> {
    let read = |name| std::env::var(name).ok().and_then(|number| number.parse::<u64>().ok());
    match (read("SIM_SEED"), read("SIM_SEEDS")) {
        (Some(seed), _) => seed..seed + 1,
        (None, count) => 0..count.unwrap_or(10),
    }
}

#[test]
fn two_scalers_fight_for_an_hour() {
    for seed in seeds() {
        let fight = Fight::new(seed, Vec::new(), false).fought();
        // They do fight: otherwise nothing was tried.
        let stops = fight.count(|what| matches!(what, What::StopAsked { .. }));
        let starts = fight.count(|what| matches!(what, What::Became("starting")));
        assert!(stops >= 20 && starts >= 20, "seed {seed}: {stops} stops, {starts} starts");
    }
}

#[test]
fn two_scalers_fight_under_each_fault() {
    for (seed, row) in ROWS.iter().enumerate() {
        let fight = Fight::new(seed as u64, vec![(row, row.share)], false).fought();
        let happened = fight.world.with(|fake, _| fake.faults);
        assert!(happened > 0 || row.is_disturbance(), "{} never happened", row.name);
    }
}

#[test]
fn two_scalers_fight_under_mixes_of_faults() {
    for seed in seeds() {
        let mut chance = StdRng::seed_from_u64(seed);
        let count = chance.random_range(3..8);
        let row = |_| (&ROWS[chance.random_range(0..ROWS.len())], chance.random_range(0.01..0.15));
        let rows = (0..count).map(row).collect();
        Fight::new(seed, rows, false).fought();
    }
}

/// The time between a look and a deed is that of the other's whole round.
#[test]
fn two_scalers_fight_on_what_they_saw_before() {
    for seed in seeds() {
        Fight::new(seed, Vec::new(), true).fought();
    }
}

#[test]
fn one_scaler_changes_its_mind_under_each_fault() {
    for (seed, row) in ROWS.iter().enumerate() {
        let mut fight = Fight::new(seed as u64, vec![(row, row.share)], false);
        fight.acting = 1;
        let fight = fight.fought();
        let happened = fight.world.with(|fake, _| fake.faults);
        assert!(happened > 0 || row.is_disturbance(), "{} never happened", row.name);
    }
}

#[test]
fn a_pool_that_never_answers_is_left_as_it_is() {
    let mut fight = Fight::new(1, Vec::new(), false);
    fight.agree();
    let before = fight.world.with(|fake, _| {
        fake.inject_share("list", super::fake::faults::Fault::Status { status: 500, happens: true }, 1.0);
        fake.log.len()
    });
    fight.run(FIGHT, true);
    let now = fight.world.now();
    let listed = fight.scalers[0].pool.pool.list(now);
    assert!(matches!(listed, Err(PoolError::Unavailable(_) | PoolError::RateLimited)), "{listed:?}");
    assert_eq!(
        fight.world.with(|fake, _| fake.log.len()),
        before,
        "nothing was asked of a fleet that nobody sees"
    );
}
