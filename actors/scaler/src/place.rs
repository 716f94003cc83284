//! Where machines of a group should stand: the cheapest places for those who ask, within what can be had and paid.
//!
//! What a placement costs is the price of its machines and, for each millisecond that the mean request travels to its
//! nearest machine and back, `rtt_worth`. Machines that are there stay while they are wanted; others are added and
//! taken away one at a time, each where that leaves the least cost, and the new ones exchanged while that saves a tenth. That is not always the best of all placements, but
//! it is stable: what does not change leaves everything where it is.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::fleet::{GroupSpec, PlaceSpec};

/// Places within this share of the cheapest are as good; a stopped machine there decides.
const AS_GOOD: f64 = 0.1;

/// Round trips between regions, as far as they are known.
pub type RoundTrips = BTreeMap<(String, String), Duration>;

/// All that a placement depends on.
#[derive(Clone, Copy, Debug)]
pub struct Situation<'a> {
    /// The group.
    pub group: &'a GroupSpec,
    /// Machines that it should have running.
    pub wanted: u32,
    /// Those that run or are on their way, by region.
    pub running: &'a BTreeMap<String, u32>,
    /// Those that are stopped, by region.
    pub warm: &'a BTreeMap<String, u32>,
    /// How many more a region can run; one that is not named, any number.
    pub room: &'a BTreeMap<String, u32>,
    /// Where requests come from, in any unit.
    pub demand: &'a BTreeMap<String, f64>,
    /// Between regions.
    pub round_trips: &'a RoundTrips,
    /// What a millisecond of the mean round trip is worth, per hour.
    pub rtt_worth: f64,
    /// What running machines of the group may cost per hour.
    pub affordable: f64,
    /// Of that, what is not there for more machines than there are: those on their way out cost until they are gone. It
    /// takes none of the others with it.
    pub bound: f64,
}

/// How many machines should run, by region.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Placement {
    /// None are zero.
    pub by_region: BTreeMap<String, u32>,
    /// Of those that were wanted, the ones that no region has room for.
    pub without_room: u32,
    /// …and those that cannot be paid.
    pub without_money: u32,
}

impl Placement {
    /// Machines in all.
    #[must_use]
    pub fn total(&self) -> u32 {
        self.by_region.values().sum()
    }

    /// What they cost per hour.
    #[must_use]
    pub fn cost(&self, group: &GroupSpec) -> f64 {
        running_cost(group, &self.by_region)
    }
}

/// The placement for a situation.
#[must_use]
pub fn place(situation: &Situation<'_>) -> Placement {
    let group = situation.group;
    // A region that is no longer a place of the group keeps nothing.
    let mut at: BTreeMap<String, u32> = group
        .places
        .iter()
        .map(|place| {
            let running = situation.running.get(&place.region).copied().unwrap_or(0);
            (place.region.clone(), running.min(place.machines_max))
        })
        .collect();
    while total(&at) > situation.wanted || running_cost(group, &at) > situation.affordable {
        let Some(region) = least_missed(situation, &at) else { break };
        decrement(&mut at, &region);
    }
    let mut placement = Placement::default();
    while total(&at) < situation.wanted {
        let missing = situation.wanted - total(&at);
        let candidates: Vec<&PlaceSpec> =
            group.places.iter().filter(|place| has_room(situation, &at, place)).collect();
        if candidates.is_empty() {
            placement.without_room = missing;
            break;
        }
        let spent = running_cost(group, &at);
        let payable =
            |place: &&PlaceSpec| spent + place.running_per_hour <= situation.affordable - situation.bound;
        let payable: Vec<&PlaceSpec> = candidates.into_iter().filter(payable).collect();
        let Some(region) = best(situation, &at, &payable) else {
            placement.without_money = missing;
            break;
        };
        *at.entry(region).or_default() += 1;
    }
    exchange(situation, &mut at);
    at.retain(|_, machines| *machines > 0);
    placement.by_region = at;
    placement
}

/// Moves machines that are only now to be made, while that costs less: the first of two is not chosen with the second
/// in view.
fn exchange(situation: &Situation<'_>, at: &mut BTreeMap<String, u32>) {
    // Each move costs strictly less, so that it ends; the bound is for sums that only seem to.
    for _ in 0..total(at) {
        let before = cost(situation, at);
        let mut least = None::<(f64, BTreeMap<String, u32>)>;
        for (from, placed) in at.iter() {
            if *placed <= situation.running.get(from).copied().unwrap_or(0) {
                continue;
            }
            let mut without = at.clone();
            decrement(&mut without, from);
            for place in situation.group.places.iter().filter(|to| has_room(situation, &without, to)) {
                let mut moved = without.clone();
                *moved.entry(place.region.clone()).or_default() += 1;
                let after = cost(situation, &moved);
                let pays = running_cost(situation.group, &moved) <= situation.affordable - situation.bound;
                // A stopped machine is worth what made its place as good as the cheapest.
                let gain = before - after;
                if pays && gain > AS_GOOD * before && least.as_ref().is_none_or(|(best, _)| after < *best) {
                    least = Some((after, moved));
                }
            }
        }
        let Some((_, moved)) = least else { return };
        *at = moved;
    }
}

fn total(at: &BTreeMap<String, u32>) -> u32 {
    at.values().sum()
}

fn decrement(at: &mut BTreeMap<String, u32>, region: &str) {
    if let Some(machines) = at.get_mut(region) {
        *machines = machines.saturating_sub(1);
    }
}

fn running_cost(group: &GroupSpec, at: &BTreeMap<String, u32>) -> f64 {
    let price = |region: &str| group.place(region).map_or(0.0, |place| place.running_per_hour);
    at.iter().map(|(region, machines)| price(region) * f64::from(*machines)).sum()
}

/// Money and distance together, per hour.
fn cost(situation: &Situation<'_>, at: &BTreeMap<String, u32>) -> f64 {
    running_cost(situation.group, at) + situation.rtt_worth * mean_round_trip_ms(situation, at)
}

/// Of the demand that can be told: pairs of regions whose distance is not known do not count.
fn mean_round_trip_ms(situation: &Situation<'_>, at: &BTreeMap<String, u32>) -> f64 {
    let (mut weighted, mut weight) = (0.0, 0.0);
    for (from, rate) in situation.demand.iter().filter(|(_, rate)| **rate > 0.0 && rate.is_finite()) {
        let there = at.iter().filter(|(_, machines)| **machines > 0);
        let nearest = there.filter_map(|(to, _)| round_trip_ms(situation, from, to)).reduce(f64::min);
        if let Some(nearest) = nearest {
            weighted += rate * nearest;
            weight += rate;
        }
    }
    if weight > 0.0 { weighted / weight } else { 0.0 }
}

fn round_trip_ms(situation: &Situation<'_>, from: &str, to: &str) -> Option<f64> {
    if from == to {
        return Some(0.0);
    }
    let key = |a: &str, b: &str| (a.to_owned(), b.to_owned());
    let known =
        situation.round_trips.get(&key(from, to)).or_else(|| situation.round_trips.get(&key(to, from)));
    known.map(|round_trip| round_trip.as_secs_f64() * 1e3)
}

fn has_room(situation: &Situation<'_>, at: &BTreeMap<String, u32>, place: &PlaceSpec) -> bool {
    let placed = at.get(&place.region).copied().unwrap_or(0);
    let running = situation.running.get(&place.region).copied().unwrap_or(0);
    let added = placed.saturating_sub(running);
    placed < place.machines_max && situation.room.get(&place.region).is_none_or(|room| added < *room)
}

/// The region whose machine is missed least: the first of equals is kept longest.
fn least_missed(situation: &Situation<'_>, at: &BTreeMap<String, u32>) -> Option<String> {
    let mut best = None::<(f64, &str)>;
    for place in &situation.group.places {
        if at.get(&place.region).is_none_or(|machines| *machines == 0) {
            continue;
        }
        let mut without = at.clone();
        decrement(&mut without, &place.region);
        let cost = cost(situation, &without);
        if best.is_none_or(|(least, _)| cost <= least) {
            best = Some((cost, &place.region));
        }
    }
    best.map(|(_, region)| region.to_owned())
}

fn best(situation: &Situation<'_>, at: &BTreeMap<String, u32>, places: &[&PlaceSpec]) -> Option<String> {
    let before = cost(situation, at);
    let added: Vec<(f64, &PlaceSpec)> = places
        .iter()
        .map(|place| {
            let mut with = at.clone();
            *with.entry(place.region.clone()).or_default() += 1;
            (cost(situation, &with) - before, *place)
        })
        .collect();
    let least = added.iter().map(|(cost, _)| *cost).reduce(f64::min)?;
    let bound = least + AS_GOOD * least.abs();
    let is_warm = |place: &PlaceSpec| {
        let placed = at.get(&place.region).copied().unwrap_or(0);
        let running = situation.running.get(&place.region).copied().unwrap_or(0);
        let warm = situation.warm.get(&place.region).copied().unwrap_or(0);
        placed.saturating_sub(running) < warm
    };
    let as_good = || added.iter().filter(|(cost, _)| *cost <= bound);
    let chosen = as_good().find(|(_, place)| is_warm(place));
    let chosen = chosen.or_else(|| added.iter().find(|(cost, _)| *cost <= least));
    chosen.map(|(_, place)| place.region.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Region, price, machines at most.
    type Place = (&'static str, f64, u32);

    fn group(places: &[Place]) -> GroupSpec {
        let place = |(region, price, max): &Place| PlaceSpec {
            region: (*region).to_owned(),
            running_per_hour: *price,
            stopped_per_hour: 0.0,
            machines_max: *max,
        };
        GroupSpec { places: places.iter().map(place).collect(), ..crate::pool::contract::group("x") }
    }

    #[derive(Default)]
    struct Case {
        running: &'static [(&'static str, u32)],
        warm: &'static [(&'static str, u32)],
        room: &'static [(&'static str, u32)],
        demand: &'static [(&'static str, f64)],
        affordable: Option<f64>,
        bound: f64,
    }

    const THREE: [Place; 3] = [("iad", 1.0, 10), ("fra", 1.2, 10), ("nrt", 1.5, 10)];

    #[track_caller]
    fn check(places: &[Place], wanted: u32, case: &Case, expected: &[(&str, u32)], short: (u32, u32)) {
        let counts = |list: &[(&str, u32)]| list.iter().map(|(r, n)| ((*r).to_owned(), *n)).collect();
        let (running, warm, room): (BTreeMap<_, _>, BTreeMap<_, _>, BTreeMap<_, _>) =
            (counts(case.running), counts(case.warm), counts(case.room));
        let demand = case.demand.iter().map(|(region, rate)| ((*region).to_owned(), *rate)).collect();
        let trips = [("iad", "fra", 90), ("iad", "nrt", 160), ("fra", "nrt", 230)];
        let round_trips = trips
            .iter()
            .map(|(a, b, ms)| (((*a).to_owned(), (*b).to_owned()), Duration::from_millis(*ms)))
            .collect();
        let placement = place(&Situation {
            group: &group(places),
            wanted,
            running: &running,
            warm: &warm,
            room: &room,
            demand: &demand,
            round_trips: &round_trips,
            rtt_worth: 0.02,
            affordable: case.affordable.unwrap_or(f64::INFINITY),
            bound: case.bound,
        });
        assert_eq!(placement.by_region, counts(expected));
        assert_eq!((placement.without_room, placement.without_money), short);
    }

    #[test]
    fn without_demand_the_cheapest_place_has_all() {
        check(&THREE, 3, &Case::default(), &[("iad", 3)], (0, 0));
        check(&THREE, 0, &Case::default(), &[], (0, 0));
    }

    #[test]
    fn who_asks_draws_machines_near() {
        let both = Case { demand: &[("fra", 50.0), ("nrt", 50.0)], ..Case::default() };
        check(&THREE, 2, &both, &[("fra", 1), ("nrt", 1)], (0, 0));
    }

    #[test]
    fn a_bound_or_a_full_region_sends_machines_elsewhere() {
        check(&[("iad", 1.0, 2), ("fra", 1.2, 9)], 4, &Case::default(), &[("iad", 2), ("fra", 2)], (0, 0));
        let full = Case { room: &[("iad", 0)], ..Case::default() };
        check(&THREE, 2, &full, &[("fra", 2)], (0, 0));
        let both = Case { room: &[("iad", 0), ("fra", 1), ("nrt", 0)], ..Case::default() };
        check(&THREE, 3, &both, &[("fra", 1)], (2, 0));
    }

    #[test]
    fn what_is_there_stays() {
        let there = Case { running: &[("nrt", 2)], ..Case::default() };
        check(&THREE, 2, &there, &[("nrt", 2)], (0, 0));
        check(&THREE, 3, &there, &[("iad", 1), ("nrt", 2)], (0, 0));
        // A full region keeps those that it has.
        let full = Case { running: &[("nrt", 2)], room: &[("nrt", 0)], ..Case::default() };
        check(&THREE, 2, &full, &[("nrt", 2)], (0, 0));
    }

    #[test]
    fn the_dearest_goes_first() {
        let there = Case { running: &[("iad", 1), ("nrt", 2)], ..Case::default() };
        check(&THREE, 2, &there, &[("iad", 1), ("nrt", 1)], (0, 0));
        // But not where it is the only one near who asks.
        let asked = Case { running: &[("iad", 2), ("nrt", 1)], demand: &[("nrt", 9.0)], ..Case::default() };
        check(&THREE, 1, &asked, &[("nrt", 1)], (0, 0));
    }

    #[test]
    fn a_stopped_machine_decides_between_places_that_are_as_good() {
        let places = [("iad", 1.0, 9), ("ewr", 1.05, 9), ("fra", 1.2, 9)];
        let near = Case { warm: &[("ewr", 1)], ..Case::default() };
        check(&places, 2, &near, &[("ewr", 1), ("iad", 1)], (0, 0));
        let dear = Case { warm: &[("fra", 1)], ..Case::default() };
        check(&places, 2, &dear, &[("iad", 2)], (0, 0));
    }

    #[test]
    fn nothing_is_placed_that_cannot_be_paid() {
        let poor = Case { affordable: Some(2.1), ..Case::default() };
        check(&THREE, 4, &poor, &[("iad", 2)], (0, 2));
        let poorer = Case { running: &[("iad", 1), ("nrt", 1)], affordable: Some(1.1), ..Case::default() };
        check(&THREE, 2, &poorer, &[("iad", 1)], (0, 1));
        let broke = Case { running: &[("iad", 1)], affordable: Some(0.0), ..Case::default() };
        check(&THREE, 1, &broke, &[], (0, 1));
    }

    #[test]
    fn what_is_going_leaves_nothing_for_more_and_takes_nothing_along() {
        let going = Case { running: &[("iad", 2)], affordable: Some(3.1), bound: 1.0, ..Case::default() };
        check(&THREE, 3, &going, &[("iad", 2)], (0, 1));
        let gone = Case { bound: 0.0, ..going };
        check(&THREE, 3, &gone, &[("iad", 3)], (0, 0));
        let much = Case { running: &[("iad", 2)], affordable: Some(2.1), bound: 2.0, ..Case::default() };
        check(&THREE, 2, &much, &[("iad", 2)], (0, 0));
    }

    #[test]
    fn a_region_that_is_no_place_any_more_is_left() {
        let there = Case { running: &[("syd", 3)], ..Case::default() };
        check(&THREE, 2, &there, &[("iad", 2)], (0, 0));
    }
}
