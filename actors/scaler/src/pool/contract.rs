//! What every pool must do, as one test: run against the simulated pool, against processes, scripts and the fake of a
//! platform's API.

use std::time::Duration;

use jiff::Timestamp;

use super::{Change, Hold, MachinePool, Order, PoolError};
use crate::fleet::{GroupSpec, Machine, MachineId, MachineState, PlaceSpec, Slot};

/// Longest life of a hold that the contract takes.
const TTL: Duration = Duration::from_secs(30);
/// Readings of the clock after which a machine must have changed.
const READINGS_MAX: usize = 2000;

/// A group of one region, as small as can be.
#[must_use]
pub fn group(region: &str) -> GroupSpec {
    GroupSpec {
        name: "contract".to_owned(),
        pool: "contract".to_owned(),
        machines_min: 0,
        machines_max: 4,
        warm: 1,
        capacity: 100.0,
        places: vec![PlaceSpec {
            region: region.to_owned(),
            running_per_hour: 1.0,
            stopped_per_hour: 0.1,
            machines_max: 4,
        }],
        drain: Duration::from_secs(5),
        ready_after: Duration::from_secs(5),
    }
}

/// Takes machines of `group` through their lives. `clock` gives a later time with each call, and lets a pool that
/// lives in real time wait.
///
/// # Panics
/// Where the pool does not keep the contract.
pub fn check(
    pool: &mut dyn MachinePool,
    group: &GroupSpec,
    release: &str,
    clock: &mut dyn FnMut() -> Timestamp,
) {
    let mut run = Run { pool, clock };
    let region = &group.places[0].region;
    let order = |number, launch| Order {
        slot: Slot { group: group.name.clone(), number },
        region: region.clone(),
        release: release.to_owned(),
        launch,
    };
    assert_eq!(run.list(), [], "an empty pool lists nothing");
    run.room(group);

    let first = run.create(&order(0, true)).expect("a machine is made");
    let seen = run.only(&first);
    assert_eq!(
        (&seen.slot, &seen.region),
        (&order(0, true).slot, region),
        "it stands where it was asked for"
    );
    assert_eq!(seen.release, release, "and runs what it was asked to");
    assert!(seen.state.is_capacity(), "a machine that was just made counts as capacity: {:?}", seen.state);
    assert_eq!(run.create(&order(0, true)), Err(PoolError::SlotTaken), "a slot has one machine");
    run.until(&first, MachineState::Started);

    // A hold keeps others away, is renewed by its holder alone, and ends.
    let hold = run.hold(&first, None).expect("nobody holds it");
    assert!(matches!(run.hold(&first, None), Err(PoolError::Held { .. })), "a second hold is refused");
    let renewed = run.hold(&first, Some(&hold)).expect("the holder renews");
    assert!(renewed.until >= hold.until, "renewing does not shorten");
    let forged = Hold { nonce: "000000000000".to_owned(), until: hold.until };
    let refused = run.change(&first, Change::Stop, &forged);
    assert!(matches!(refused, Err(PoolError::Held { .. })), "nobody else changes it: {refused:?}");

    // It is cordoned and stopped, never destroyed while it runs.
    let destroyed = run.change(&first, Change::Destroy, &hold);
    assert!(matches!(destroyed, Err(PoolError::WrongState(_))), "it runs: {destroyed:?}");
    run.change(&first, Change::Cordon, &hold).expect("cordon");
    run.change(&first, Change::Cordon, &hold).expect("twice is once");
    assert!(run.only(&first).cordoned, "a cordon is seen");
    run.change(&first, Change::Stop, &hold).expect("stop");
    run.until(&first, MachineState::Stopped);
    run.change(&first, Change::Stop, &hold).expect("twice is once");

    // It starts again, under the name it had.
    run.change(&first, Change::Start, &hold).expect("start");
    run.change(&first, Change::Uncordon, &hold).expect("uncordon");
    run.until(&first, MachineState::Started);
    assert!(!run.only(&first).cordoned, "callers are sent again");
    run.release(&first, &hold);
    run.release(&first, &hold);

    // A second one is made without being started, and can be.
    let second = run.create(&order(1, false)).expect("a spare is made");
    run.until(&second, MachineState::Stopped);
    let second_hold = run.hold(&second, None).expect("nobody holds it");
    run.change(&second, Change::Start, &second_hold).expect("a spare starts");
    run.until(&second, MachineState::Started);
    assert_eq!(run.list().len(), 2, "two machines");

    // Both go, and their slots are free again.
    let hold = run.hold(&first, None).expect("it was given back");
    for (machine, hold) in [(&first, &hold), (&second, &second_hold)] {
        let hold = run.hold(machine, Some(hold)).expect("still held");
        run.change(machine, Change::Stop, &hold).expect("stop");
        run.until(machine, MachineState::Stopped);
        let hold = run.hold(machine, Some(&hold)).expect("still held");
        run.change(machine, Change::Destroy, &hold).expect("destroy");
        run.until_gone(machine);
        let gone = run.change(machine, Change::Start, &hold);
        assert_eq!(gone, Err(PoolError::Gone), "a machine that is gone stays gone");
    }
    let again = run.create(&order(0, false)).expect("the slot is free");
    assert_ne!(again, first, "an id is never given again");
    run.until(&again, MachineState::Stopped);
    let hold = run.hold(&again, None).expect("nobody holds it");
    run.change(&again, Change::Destroy, &hold).expect("destroy");
    run.until_gone(&again);
}

/// The pool and the clock. A pool that asks for fewer calls is asked later.
struct Run<'a> {
    pool: &'a mut dyn MachinePool,
    clock: &'a mut dyn FnMut() -> Timestamp,
}

impl Run<'_> {
    fn patiently<T>(
        &mut self,
        mut call: impl FnMut(&mut dyn MachinePool, Timestamp) -> Result<T, PoolError>,
    ) -> Result<T, PoolError> {
        for _ in 0..READINGS_MAX {
            let now = (self.clock)();
            match call(self.pool, now) {
                Err(PoolError::RateLimited) => {}
                ended => return ended,
            }
        }
        panic!("the pool asked for fewer calls {READINGS_MAX} times");
    }

    fn list(&mut self) -> Vec<Machine> {
        self.patiently(|pool, now| pool.list(now)).expect("a list")
    }

    fn room(&mut self, group: &GroupSpec) {
        let room = self.patiently(|pool, now| pool.room(group, now)).expect("room");
        for (region, _) in room {
            assert!(group.place(&region).is_some(), "{region} was not asked about");
        }
    }

    fn only(&mut self, machine: &MachineId) -> Machine {
        let found = self.list().into_iter().find(|listed| listed.id == *machine);
        found.unwrap_or_else(|| panic!("{machine} is not listed"))
    }

    fn until(&mut self, machine: &MachineId, state: MachineState) {
        let mut last = None;
        for _ in 0..READINGS_MAX {
            let seen = self.only(machine).state;
            if seen == state {
                return;
            }
            last = Some(seen);
        }
        panic!("{machine} did not become {} but {last:?}", state.name());
    }

    fn until_gone(&mut self, machine: &MachineId) {
        for _ in 0..READINGS_MAX {
            if !self.list().iter().any(|listed| listed.id == *machine) {
                return;
            }
        }
        panic!("{machine} did not go");
    }

    fn create(&mut self, order: &Order) -> Result<MachineId, PoolError> {
        self.patiently(|pool, now| pool.create(order, now))
    }

    fn hold(&mut self, machine: &MachineId, held: Option<&Hold>) -> Result<Hold, PoolError> {
        self.patiently(|pool, now| pool.hold(machine, held, TTL, now))
    }

    fn release(&mut self, machine: &MachineId, hold: &Hold) {
        self.patiently(|pool, now| pool.release(machine, hold, now)).expect("released");
    }

    fn change(&mut self, machine: &MachineId, change: Change, hold: &Hold) -> Result<(), PoolError> {
        self.patiently(|pool, now| pool.change(machine, change, hold, now))
    }
}
