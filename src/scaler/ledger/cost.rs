//! What machines cost between two looks at them: values in, values out.

use std::collections::BTreeMap;

use jiff::Timestamp;
use peregrine_scaler::fleet::{GroupSpec, Machine, MachineId, MachineState};

/// What a group has cost in a region.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Charge {
    /// Seconds of machines that ran.
    pub running_seconds: f64,
    /// Seconds of machines that were stopped.
    pub stopped_seconds: f64,
    /// In the currency of the prices.
    pub cost: f64,
}

/// By group and region.
pub type Charges = BTreeMap<(String, String), Charge>;

/// What the machines of `groups` have cost from one look to the next, second by second. What happened between is not
/// seen: a machine that ran at either look is taken to have run all the time, and one that was only seen once to have
/// been there, at the earliest since it was made. So no bill is larger than what is reckoned with here, where the
/// prices are right. Machines of no group, or in a region without a price, are nobody's here.
#[must_use]
pub fn charges(
    groups: &[GroupSpec],
    before: &[Machine],
    after: &[Machine],
    from: Timestamp,
    until: Timestamp,
) -> Charges {
    let mut machines: BTreeMap<&MachineId, (&Machine, bool)> = BTreeMap::new();
    for machine in before.iter().chain(after) {
        let seen = machines.entry(&machine.id).or_insert((machine, false));
        *seen = (machine, seen.1 || is_running(machine.state));
    }
    let mut charges = Charges::new();
    for (machine, has_run) in machines.into_values() {
        let group = groups.iter().find(|group| group.name == machine.slot.group);
        let Some(place) = group.and_then(|group| group.place(&machine.region)) else { continue };
        let seconds = until.duration_since(from.max(machine.created_at)).as_secs_f64().max(0.0);
        let charge = charges.entry((machine.slot.group.clone(), machine.region.clone())).or_default();
        let price = if has_run {
            charge.running_seconds += seconds;
            place.running_per_hour
        } else {
            charge.stopped_seconds += seconds;
            place.stopped_per_hour
        };
        charge.cost += seconds / 3600.0 * price;
    }
    charges
}

/// Is it billed as one that runs? So is one of which nobody knows.
const fn is_running(state: MachineState) -> bool {
    use MachineState::{Destroying, Failed, Started, Starting, Stopped, Stopping, Suspended, Unknown};
    match state {
        Starting | Started | Stopping | Unknown => true,
        Stopped | Suspended | Failed | Destroying => false,
    }
}

impl Charge {
    /// The `share` of it, 0 to 1.
    pub(super) fn part(&self, share: f64) -> Self {
        Self {
            running_seconds: self.running_seconds * share,
            stopped_seconds: self.stopped_seconds * share,
            cost: self.cost * share,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use peregrine_scaler::fleet::PlaceSpec;

    use super::*;

    const START: i64 = 1_800_000_000;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(START + second).unwrap()
    }

    fn group() -> GroupSpec {
        GroupSpec {
            name: "g".to_owned(),
            pool: "p".to_owned(),
            machines_min: 0,
            machines_max: 9,
            warm: 0,
            capacity: 1.0,
            places: vec![PlaceSpec {
                region: "iad".to_owned(),
                running_per_hour: 36.0,
                stopped_per_hour: 3.6,
                machines_max: 9,
            }],
            drain: Duration::ZERO,
            ready_after: Duration::ZERO,
        }
    }

    fn machine(number: u32, region: &str, state: MachineState, created: i64) -> Machine {
        Machine {
            id: MachineId(format!("m{number}")),
            slot: format!("g-{number}").parse().unwrap(),
            region: region.to_owned(),
            state,
            cordoned: false,
            release: "v".to_owned(),
            created_at: at(created),
        }
    }

    /// Seconds run and stopped, and the cost in cents, between second 0 and second 100.
    #[track_caller]
    fn check(before: &[Machine], after: &[Machine], want: Option<(f64, f64, f64)>) {
        let charges = charges(&[group()], before, after, at(0), at(100));
        let key = ("g".to_owned(), "iad".to_owned());
        let got = charges.get(&key).map(|charge| {
            (charge.running_seconds, charge.stopped_seconds, (charge.cost * 1e6).round() / 1e4)
        });
        assert_eq!(got, want);
    }

    #[test]
    fn each_second_of_a_machine_costs() {
        use MachineState::{Failed, Started, Starting, Stopped, Stopping, Unknown};
        let one = |state| [machine(0, "iad", state, -50)];
        check(&one(Started), &one(Started), Some((100.0, 0.0, 100.0)));
        check(&one(Unknown), &one(Unknown), Some((100.0, 0.0, 100.0)));
        check(&one(Stopped), &one(Stopped), Some((0.0, 100.0, 10.0)));
        check(&one(Failed), &one(Failed), Some((0.0, 100.0, 10.0)));
        // It ran for a part of that time, and for how long of it is not known.
        check(&one(Started), &one(Stopped), Some((100.0, 0.0, 100.0)));
        check(&one(Stopped), &one(Starting), Some((100.0, 0.0, 100.0)));
        check(&one(Stopping), &[], Some((100.0, 0.0, 100.0)));
        // Made in between, or after all.
        check(&[], &[machine(0, "iad", Started, 70)], Some((30.0, 0.0, 30.0)));
        check(&[], &[machine(0, "iad", Started, 170)], Some((0.0, 0.0, 0.0)));
        let both = [machine(0, "iad", Started, -50), machine(1, "iad", Stopped, 90)];
        check(&both, &both, Some((100.0, 10.0, 101.0)));
    }

    #[test]
    fn what_is_of_no_group_or_place_is_nobodys() {
        check(&[], &[machine(0, "fra", MachineState::Started, 0)], None);
        let other = Machine { slot: "h-0".parse().unwrap(), ..machine(0, "iad", MachineState::Started, 0) };
        check(&[], &[other], None);
        check(&[], &[], None);
    }

    #[test]
    fn a_clock_that_goes_back_costs_nothing() {
        let one = [machine(0, "iad", MachineState::Started, -50)];
        let charges = charges(&[group()], &one, &one, at(100), at(0));
        assert!(charges.values().all(|charge| charge.cost == 0.0));
    }
}
