//! Lists of machines as states, and what they have cost.

use super::*;
use crate::fleet::{PlaceSpec, Slot};

fn at(second: i64) -> Timestamp {
    // 2026-03-31T23:00:00Z: an hour before April.
    let start: Timestamp = "2026-03-31T23:00:00Z".parse().unwrap();
    start + jiff::SignedDuration::from_secs(second)
}

fn group() -> GroupSpec {
    let place = |region: &str, running, stopped| PlaceSpec {
        region: region.to_owned(),
        running_per_hour: running,
        stopped_per_hour: stopped,
        machines_max: 9,
    };
    GroupSpec {
        name: "g".to_owned(),
        places: vec![place("iad", 3.6, 0.36), place("fra", 7.2, 0.72)],
        ..crate::pool::contract::group("x")
    }
}

fn machine(number: u32, region: &str, state: MachineState, created: i64) -> Machine {
    Machine {
        id: MachineId(format!("m{number}")),
        slot: Slot { group: "g".to_owned(), number },
        region: region.to_owned(),
        state,
        cordoned: false,
        release: "v1".to_owned(),
        created_at: at(created),
    }
}

fn accrual(machines: &[Machine]) -> Accrual {
    let mut accrual = Accrual::new(Duration::from_secs(60));
    assert_eq!(accrual.observe(at(0), &[group()], machines.iter()), Ok(Vec::new()));
    accrual
}

#[track_caller]
fn near(value: f64, expected: f64) {
    assert!((value - expected).abs() < 1e-9, "{value} not {expected}");
}

/// What one machine costs over ten seconds.
#[track_caller]
fn check(region: &str, state: MachineState, money: f64) {
    let machines = [machine(0, region, state, -100)];
    let accrued = accrual(&machines).observe(at(10), &[group()], machines.iter()).unwrap();
    near(accrued.iter().map(Accrued::money).sum(), money);
}

#[test]
fn states_are_billed_as_platforms_do() {
    for state in
        [MachineState::Starting, MachineState::Started, MachineState::Stopping, MachineState::Unknown]
    {
        check("iad", state, 0.01);
        check("fra", state, 0.02);
    }
    for state in [MachineState::Stopped, MachineState::Suspended, MachineState::Failed] {
        check("iad", state, 0.001);
    }
}

#[test]
fn lines_tell_group_region_and_state() {
    let machines = [
        machine(0, "iad", MachineState::Started, -9),
        machine(1, "iad", MachineState::Stopping, -9),
        machine(2, "fra", MachineState::Stopped, -9),
    ];
    let accrued = accrual(&machines).observe(at(50), &[group()], machines.iter()).unwrap();
    let line = |region: &str, billing, machine_seconds, money| Line {
        group: "g".to_owned(),
        region: region.to_owned(),
        billing,
        machine_seconds,
        money,
    };
    let expected = [line("fra", Billing::Stopped, 50.0, 0.01), line("iad", Billing::Running, 100.0, 0.1)];
    assert_eq!(accrued.len(), 1);
    assert!(!accrued[0].is_gap);
    assert_eq!(accrued[0].lines, expected);
}

#[test]
fn the_fleet_of_before_is_billed_until_it_is_seen_to_be_another() {
    let before = [machine(0, "iad", MachineState::Started, -9)];
    let mut accrual = accrual(&before);
    // Gone, and another made four seconds ago.
    let after = [machine(1, "fra", MachineState::Starting, 6)];
    let accrued = accrual.observe(at(10), &[group()], after.iter()).unwrap();
    near(accrued[0].money(), 0.01 + 0.002 * 4.0);
    near(accrual.observe(at(20), &[group()], after.iter()).unwrap()[0].money(), 0.02);
}

#[test]
fn a_gap_is_billed_at_what_was_known_and_flagged() {
    let machines = [machine(0, "iad", MachineState::Started, -9)];
    let mut accrual = accrual(&machines);
    let accrued = accrual.observe(at(61), &[group()], [].iter()).unwrap();
    assert!(accrued[0].is_gap);
    near(accrued[0].money(), 0.061);
    assert_eq!(accrual.observe(at(70), &[group()], [].iter()).unwrap()[0].lines, []);
}

#[test]
fn a_month_begins_with_nothing_spent() {
    let machines = [machine(0, "iad", MachineState::Started, -9)];
    let mut accrual = accrual(&machines);
    let hour = Duration::from_secs(3600);
    let spent = accrual.spent(at(0));
    assert_eq!((spent.this_month, spent.remaining), (0.0, hour));
    accrual.observe(at(3590), &[group()], machines.iter()).unwrap();
    near(accrual.spent(at(3590)).this_month, 3.59);
    let accrued = accrual.observe(at(3630), &[group()], machines.iter()).unwrap();
    let cut: Vec<(Timestamp, Timestamp)> = accrued.iter().map(|piece| (piece.from, piece.to)).collect();
    assert_eq!(cut, [(at(3590), at(3600)), (at(3600), at(3630))]);
    let spent = accrual.spent(at(3630));
    near(spent.this_month, 0.03);
    assert_eq!(spent.remaining, hour * 24 * 30 - Duration::from_secs(30));
    // Seen in the next month without a list of it: nothing of that one is spent.
    near(accrual.spent(at(3600 * 24 * 40)).this_month, 0.0);
}

#[test]
fn a_record_is_gone_on_from() {
    let machines = [machine(0, "iad", MachineState::Started, -9)];
    let mut accrual = Accrual::resumed(Duration::from_secs(60), at(0), 5.0);
    accrual.observe(at(0), &[group()], machines.iter()).unwrap();
    accrual.observe(at(10), &[group()], machines.iter()).unwrap();
    near(accrual.spent(at(10)).this_month, 5.01);
    near(accrual.spent(at(3600)).this_month, 0.0);
}

#[test]
fn a_clock_that_jumps_bills_nothing_twice() {
    let machines = [machine(0, "iad", MachineState::Started, -9)];
    let mut accrual = accrual(&machines);
    let back = AccrualError::ClockBack { now: at(-5), last: at(0) };
    assert_eq!(accrual.observe(at(-5), &[group()], machines.iter()), Err(back));
    near(accrual.observe(at(10), &[group()], machines.iter()).unwrap()[0].money(), 0.01);
    let far = at(401 * 24 * 3600);
    assert!(matches!(accrual.observe(far, &[group()], machines.iter()), Err(AccrualError::FarAhead { .. })));
    near(accrual.spent(far).this_month, 0.0);
}

#[test]
fn what_has_no_price_is_told_and_not_free() {
    let machines =
        [machine(0, "syd", MachineState::Started, -9), machine(1, "iad", MachineState::Started, -9)];
    let accrued = accrual(&machines).observe(at(10), &[group()], machines.iter()).unwrap();
    near(accrued[0].unpriced_seconds, 10.0);
    near(accrued[0].money(), 0.01);
}
