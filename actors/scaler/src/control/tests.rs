//! Fleets in memory under the whole controller: loads as numbers, machines as numbers.

use super::*;
use crate::carry::{Carrier, Nodes};
use crate::fleet::PlaceSpec;
use crate::pool::simulated::{Delays, SimulatedPool};
use crate::rule::{Arm, Condition};

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);

struct NoNodes;

impl Nodes for NoNodes {
    fn drain(&mut self, _: &Machine, _: Timestamp) {}
    fn undrain(&mut self, _: &Machine, _: Timestamp) {}
}

fn group(min: u32, max: u32) -> GroupSpec {
    let place = |region: &str, price: f64| PlaceSpec {
        region: region.to_owned(),
        running_per_hour: price,
        stopped_per_hour: 0.01,
        machines_max: 10,
    };
    GroupSpec {
        name: "g".to_owned(),
        pool: "sim".to_owned(),
        machines_min: min,
        machines_max: max,
        warm: 0,
        capacity: 100.0,
        places: vec![place("iad", 1.0), place("fra", 1.5)],
        drain: SECOND * 30,
        ready_after: SECOND * 20,
    }
}

fn spec(group: GroupSpec, rules: Vec<Rule>) -> FleetSpec {
    FleetSpec {
        groups: vec![group],
        rules,
        budget: Budget::default(),
        stale_after: SECOND * 30,
        stabilisation: MINUTE * 5,
        dead_band: 0.1,
        rtt_worth: 0.0,
        rollback_for: MINUTE * 10,
        hold: SECOND * 60,
    }
}

fn rule(name: &str, up: Option<&str>, down: Option<&str>) -> Rule {
    let arm = |when: &str| Arm {
        when: Condition::new(when).unwrap(),
        step: 1,
        cooldown: MINUTE * 5,
        holds_for: Duration::ZERO,
        machines_min: 0,
        machines_max: 10,
    };
    Rule {
        name: name.to_owned(),
        groups: Vec::new(),
        priority: 1,
        is_emergency: false,
        up: up.map(arm),
        down: down.map(arm),
    }
}

struct World {
    controller: Controller,
    pools: BTreeMap<String, Attached>,
    now: Timestamp,
    /// Requests per second of the whole group, and what is forecast; nothing: not known.
    rate: Option<f64>,
    forecast: Option<f64>,
    spent: f64,
    /// Nodes that come from no pool.
    fixed: u32,
    list_fails: bool,
    actions: Vec<Action>,
}

impl World {
    fn new(spec: FleetSpec) -> Self {
        let pool = SimulatedPool::new(Delays { create: SECOND * 20, start: SECOND * 2, stop: SECOND });
        let pool = Attached { pool: Box::new(pool), carrier: Carrier::new(spec.hold) };
        Self {
            controller: Controller::new(spec),
            pools: [("sim".to_owned(), pool)].into(),
            now: Timestamp::from_second(1_800_000_000).unwrap(),
            rate: None,
            forecast: None,
            spent: 0.0,
            fixed: 0,
            list_fails: false,
            actions: Vec::new(),
        }
    }

    fn seen(&self, mut machines: BTreeMap<String, Result<Vec<Machine>, PoolError>>) -> Seen {
        if self.list_fails {
            machines = [("sim".to_owned(), Err(PoolError::Unavailable("down".to_owned())))].into();
        }
        let mut reports = BTreeMap::new();
        let listed: Vec<&Machine> = machines.values().flatten().flatten().collect();
        let started: Vec<&&Machine> =
            listed.iter().filter(|machine| machine.state == MachineState::Started).collect();
        let nodes = u32::try_from(started.len()).unwrap() + self.fixed;
        let report = |is_draining: bool| {
            let share = self.rate? / f64::from(nodes);
            let measured = [
                (Signal::RequestRate, share),
                (Signal::Utilisation, (share / 100.0).min(1.0)),
                (Signal::InFlight, 0.0),
            ];
            let measured = measured.into();
            Some(NodeReport { at: self.now, is_ready: !is_draining, is_draining, measured })
        };
        for machine in &started {
            reports.extend(report(machine.cordoned).map(|report| (machine.id.0.clone(), report)));
        }
        let fixed = (0..self.fixed).filter_map(|_| report(false)).collect();
        let view =
            GroupView { demand: self.forecast, release: "v1".to_owned(), fixed, ..GroupView::default() };
        Seen {
            now: self.now,
            machines,
            reports,
            groups: [("g".to_owned(), view)].into(),
            round_trips: RoundTrips::new(),
            spent: Spent { this_month: self.spent, remaining: MINUTE * 60 * 24 * 10 },
        }
    }

    fn round(&mut self) -> Decision {
        let mut pools = std::mem::take(&mut self.pools);
        let mut controller =
            std::mem::replace(&mut self.controller, Controller::new(spec(group(0, 1), Vec::new())));
        let (round, outcomes) =
            run_once(&mut controller, &mut pools, &mut NoNodes, self.now, |lists| self.seen(lists), || 0.5);
        (self.pools, self.controller) = (pools, controller);
        self.actions.extend(outcomes.into_iter().map(|done| done.action));
        self.now = crate::rule::after(self.now, SECOND * 10);
        round.decisions.into_iter().next().unwrap()
    }

    /// After so many minutes: machines wanted and machines that run.
    fn minutes(&mut self, minutes: u32) -> (u32, usize) {
        let mut wanted = 0;
        for _ in 0..minutes * 6 {
            wanted = self.round().to;
        }
        let machines = self.pools.get_mut("sim").unwrap().pool.list(self.now).unwrap();
        (wanted, machines.iter().filter(|machine| machine.state == MachineState::Started).count())
    }

    fn load(&mut self, rate: f64, forecast: f64) -> &mut Self {
        (self.rate, self.forecast) = (Some(rate), Some(forecast));
        self
    }
}

#[test]
fn the_least_is_there_without_any_data() {
    let mut world = World::new(spec(group(2, 5), Vec::new()));
    assert_eq!(world.minutes(2), (2, 2));
}

#[test]
fn capacity_follows_the_forecast_and_the_present() {
    let mut world = World::new(spec(group(1, 8), Vec::new()));
    assert_eq!(world.load(50.0, 80.0).minutes(2), (1, 1));
    assert_eq!(world.load(80.0, 350.0).minutes(2), (4, 4), "the forecast is served before it comes true");
    assert_eq!(
        world.load(620.0, 350.0).minutes(2),
        (7, 7),
        "what is asked now counts though nobody foresaw it"
    );
    assert_eq!(world.load(90.0, 90.0).minutes(4), (7, 7), "fewer would do, but not for long enough");
    assert_eq!(world.load(90.0, 90.0).minutes(4), (1, 1));
}

#[test]
fn nodes_that_come_from_no_pool_do_their_part() {
    let mut world = World::new(spec(group(0, 8), Vec::new()));
    world.fixed = 2;
    assert_eq!(world.load(150.0, 150.0).minutes(2), (0, 0));
    assert_eq!(world.load(390.0, 390.0).minutes(2), (2, 2));
    assert_eq!(world.load(150.0, 150.0).minutes(10), (0, 0));
}

#[test]
fn a_little_too_much_is_too_much_and_a_little_less_changes_nothing() {
    let mut world = World::new(spec(group(1, 8), Vec::new()));
    assert_eq!(world.load(199.0, 199.0).minutes(8), (2, 2));
    assert_eq!(world.load(201.0, 201.0).minutes(8), (3, 3));
    assert_eq!(world.load(195.0, 195.0).minutes(20), (3, 3));
    assert_eq!(world.load(175.0, 175.0).minutes(20), (2, 2));
}

#[test]
fn without_data_nothing_is_done() {
    let mut world = World::new(spec(group(1, 8), vec![rule("low", None, Some("utilisation < 0.9"))]));
    assert_eq!(world.load(380.0, 380.0).minutes(5), (4, 4));
    world.actions.clear();
    world.rate = None;
    world.forecast = None;
    assert_eq!(world.minutes(60), (4, 4));
    world.forecast = Some(10.0);
    assert_eq!(world.minutes(60), (4, 4));
    assert_eq!(world.actions, [], "not one action in two hours without data");
    // Nor for a forecast of more: it is made of the time before.
    world.forecast = Some(480.0);
    assert_eq!(world.minutes(60), (4, 4));
    assert_eq!(world.actions, []);
    world.rate = Some(380.0);
    assert_eq!(world.minutes(3), (5, 5));
}

#[test]
fn a_pool_that_does_not_list_is_left_alone() {
    let mut world = World::new(spec(group(1, 8), Vec::new()));
    assert_eq!(world.load(380.0, 380.0).minutes(5), (4, 4));
    world.actions.clear();
    world.list_fails = true;
    world.load(50.0, 50.0);
    for _ in 0..120 {
        let decision = world.round();
        assert_eq!(decision.cause, Cause::PoolSilent(PoolError::Unavailable("down".to_owned())));
        assert_eq!((decision.from, decision.to), (4, 4));
    }
    assert_eq!(world.actions, []);
}

#[test]
fn a_rule_takes_away_no_more_than_the_demand_allows() {
    let low = rule("low", None, Some("utilisation < 0.99"));
    let mut world = World::new(spec(group(1, 8), vec![low]));
    assert_eq!(world.load(380.0, 380.0).minutes(3), (4, 4));
    assert_eq!(world.load(265.0, 265.0).minutes(30), (3, 3), "the rule would go on; the demand needs three");
}

#[test]
fn a_rule_that_wants_more_keeps_what_the_forecast_would_take() {
    let high = rule("high", Some("request_rate > 150.0"), None);
    let mut world = World::new(spec(group(1, 4), vec![high]));
    assert_eq!(world.load(160.0, 160.0).minutes(15), (4, 4));
    assert_eq!(world.load(160.0, 160.0).minutes(60), (4, 4));
    assert_eq!(world.load(85.0, 85.0).minutes(10), (1, 1));
}

/// A rule that lets go at what it has led to speaks again as soon as that is taken away.
#[test]
fn what_a_rule_has_added_is_not_taken_before_the_window_is_over() {
    let mut few = rule("few", Some("machines < 3.0"), None);
    let arm = few.up.as_mut().unwrap();
    (arm.step, arm.cooldown) = (2, SECOND * 10);
    let mut world = World::new(spec(group(1, 8), vec![few]));
    world.load(50.0, 50.0);
    let mut changes = 0;
    for _ in 0..60 * 6 {
        let decision = world.round();
        changes += u32::from(decision.from != decision.to);
    }
    assert!((3..=24).contains(&changes), "{changes} changes in an hour whose window is five minutes");
}

#[test]
fn a_rule_at_its_bound_and_the_demand_do_not_take_turns() {
    let mut high = rule("high", Some("request_rate > 150.0"), None);
    high.up.as_mut().unwrap().machines_max = 4;
    let mut world = World::new(spec(group(1, 8), vec![high]));
    assert_eq!(world.load(160.0, 160.0).minutes(20), (4, 4));
    world.actions.clear();
    assert_eq!(world.load(160.0, 160.0).minutes(60), (4, 4));
    assert_eq!(world.actions, []);
    // More than it would have added goes when the demand does.
    assert_eq!(world.load(700.0, 700.0).minutes(5), (7, 7));
    assert_eq!(world.load(160.0, 160.0).minutes(20), (4, 4));
}

#[derive(Debug)]
struct OneForEach(f64);

impl Policy for OneForEach {
    fn name(&self) -> &str {
        "one for each"
    }

    fn wanted(&mut self, sight: &Sight<'_>) -> u32 {
        let rate = sight.signals.reading(Signal::RequestRate).to_add();
        rate.map_or(sight.wanted, |rate| (rate / self.0) as u32)
    }
}

#[test]
fn another_policy_says_how_many_and_the_rest_stays() {
    let mut poor = spec(group(1, 8), vec![rule("high", Some("request_rate > 1.0"), None)]);
    poor.budget.per_hour = Some(5.2);
    let mut world = World::new(poor.clone());
    world.controller = Controller::led_by(poor, Box::new(OneForEach(50.0)));
    assert_eq!(world.load(0.0, 800.0).minutes(5), (1, 1), "neither the rule nor the forecast is asked");
    world.load(200.0, 0.0);
    let decision = world.round();
    assert_eq!((decision.to, decision.cause), (4, Cause::Policy("one for each".to_owned())));
    assert_eq!(world.load(350.0, 0.0).minutes(3), (7, 5), "the budget holds");
    assert_eq!(world.load(900.0, 0.0).minutes(1).0, 8, "and the bounds do");
}

#[test]
fn the_budget_bounds_the_fleet() {
    let mut poor = spec(group(1, 8), Vec::new());
    poor.budget.per_hour = Some(3.2);
    let mut world = World::new(poor);
    world.load(700.0, 700.0);
    assert_eq!(world.minutes(3).1, 3);
    let decision = world.round();
    assert_eq!((decision.to, decision.short), (7, (0, 4)));
    assert!(decision.to_string().ends_with("4 of them cannot be paid"), "{decision}");
    // The month is all but spent: only what its rest can pay stays.
    world.controller.spec.budget = Budget { per_hour: None, per_month: Some(1000.0) };
    world.spent = 1000.0 - 240.0;
    assert_eq!(world.minutes(3).1, 1);
}

/// What is on its way out, or is made to be kept, bills too: it neither takes others with it nor comes on top.
#[test]
fn a_budget_that_binds_moves_nothing() {
    let mut poor = spec(GroupSpec { warm: 1, ..group(1, 8) }, Vec::new());
    poor.budget.per_hour = Some(3.2);
    let mut world = World::new(poor);
    world.load(180.0, 180.0).minutes(3);
    world.load(700.0, 700.0);
    let mut most = 0;
    for _ in 0..60 {
        world.round();
        let machines = world.pools.get_mut("sim").unwrap().pool.list(world.now).unwrap();
        most = most.max(machines.iter().filter(|m| m.state != MachineState::Stopped).count());
    }
    assert_eq!(most, 3);
    world.actions.clear();
    assert_eq!(world.minutes(30).1, 3);
    assert_eq!(world.actions, []);
    // One that falls silent on its way out leaves the others where they are.
    world.load(180.0, 180.0).minutes(9);
    assert_eq!(world.load(700.0, 700.0).minutes(3).1, 3);
}

#[test]
fn a_full_region_sends_machines_to_the_next() {
    let mut world = World::new(spec(group(1, 8), Vec::new()));
    world.load(80.0, 80.0).minutes(2);
    let mut pool = SimulatedPool::new(Delays { create: SECOND * 20, start: SECOND, stop: SECOND });
    pool.set_capacity("iad", Some(1));
    world.pools.insert("sim".to_owned(), Attached { pool: Box::new(pool), carrier: Carrier::new(MINUTE) });
    assert_eq!(world.load(280.0, 280.0).minutes(3), (3, 3));
    let placement = world.controller.placement("g").unwrap();
    assert_eq!(placement.by_region, [("fra".to_owned(), 2), ("iad".to_owned(), 1)].into());
}

#[test]
fn how_long_machines_take_is_measured() {
    let mut world = World::new(spec(group(1, 8), Vec::new()));
    assert_eq!(world.controller.time_to_ready("g"), Some(SECOND * 20), "as written");
    assert_eq!(world.load(180.0, 180.0).minutes(3), (2, 2));
    let measured = world.controller.time_to_ready("g").unwrap();
    assert!((SECOND * 20..=SECOND * 30).contains(&measured), "{measured:?}");
}

#[test]
fn decisions_say_why() {
    let high = rule("high", Some("request_rate > 150.0"), None);
    let mut world = World::new(spec(group(1, 4), vec![high]));
    world.load(160.0, 80.0).minutes(10);
    let said: Vec<String> = world.controller.decisions().map(ToString::to_string).collect();
    assert_eq!(said[0], "g: 1 -> 2 machines: rule `high` (up)");
}
