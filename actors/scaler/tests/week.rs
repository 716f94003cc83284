//! Whole trading weeks in virtual time, with everything that goes wrong in one: what the scaler costs and misses beside
//! other policies under the same machines, prices and budget.
//!
//! `cargo test --release -p peregrine_scaler --test week -- --nocapture` prints the tables.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use peregrine_scaler::budget::Budget;
use peregrine_scaler::calendar::{Calendar, Calendars};
use peregrine_scaler::control::{FleetSpec, Policy};
use peregrine_scaler::demand::Season;
use peregrine_scaler::fleet::{GroupSpec, PlaceSpec};
use peregrine_scaler::pool::simulated::Delays;
use peregrine_scaler::report::{Advice, Report};
use peregrine_scaler::rule;
use peregrine_scaler::simulate::policy::{Fixed, Kpa, TargetTracking};
use peregrine_scaler::simulate::{
    Contender, Forecast, NodeModel, Outcome, Scenario, Table, Trace, Week, run,
};

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(24 * 3600);

/// Of the demand's own turns a trading day has four: up to the open, down from it, up to the close, down from it. Over
/// the week the news has two, and nearly as many again are allowed for chance.
const TURNS_MAX: u32 = 5 * 4 + 2 + 18;

/// Three regions, machines that answer forty requests per second each, and the rules of a fleet that has none of its
/// own. Virginia's price is that of Fly's performance-8x, read on 2026-08-11; the others are made up.
fn fleet() -> FleetSpec {
    let place = |region: &str, running_per_hour: f64| PlaceSpec {
        region: region.to_owned(),
        running_per_hour,
        stopped_per_hour: 0.002,
        machines_max: 8,
    };
    let group = GroupSpec {
        name: "inference".to_owned(),
        pool: "simulated".to_owned(),
        machines_min: 1,
        machines_max: 10,
        warm: 1,
        capacity: 40.0,
        places: vec![place("iad", 0.34), place("lhr", 0.36), place("nrt", 0.40)],
        drain: SECOND * 30,
        ready_after: SECOND * 90,
    };
    FleetSpec {
        groups: vec![group],
        rules: rule::defaults(),
        budget: Budget { per_hour: Some(3.5), per_month: Some(1500.0) },
        stale_after: SECOND * 30,
        stabilisation: MINUTE * 10,
        dead_band: 0.1,
        rtt_worth: 0.0005,
        rollback_for: MINUTE * 10,
        hold: SECOND * 60,
    }
}

fn xnys() -> Arc<Calendar> {
    Arc::clone(Calendars::built_in().get("xnys").expect("it is built in"))
}

fn at(text: &str) -> Timestamp {
    text.parse().expect("a time")
}

/// Four weeks of history and a week from Monday: Virginia full around Monday's open, news on Tuesday at noon, and
/// silence from `silent` into the week for an hour and a half.
fn trace(seed: u64, start: Timestamp, silent: Duration) -> Trace {
    let calendar = xnys();
    let full = (start + HOUR * 13, start + HOUR * 15);
    let week = Week {
        seed,
        start,
        weeks_before: 4,
        calendar: &calendar,
        regions: &[("iad", 0.6), ("lhr", 0.25), ("nrt", 0.15)],
        news: Some((start + DAY + HOUR * 16, 2.6)),
        silent: Some((start + silent, start + silent + MINUTE * 90)),
        full: Some(("iad", full)),
    };
    week.trace()
}

fn scenario<'a>(fleet: &'a FleetSpec, trace: &'a Trace, from: Timestamp, to: Timestamp) -> Scenario<'a> {
    let trips = [("iad", "lhr", 76), ("iad", "nrt", 160), ("lhr", "nrt", 230)];
    let trip = |(a, b, ms): (&str, &str, u64)| ((a.to_owned(), b.to_owned()), Duration::from_millis(ms));
    Scenario {
        fleet,
        trace,
        from,
        to,
        step: SECOND * 10,
        delays: Delays { create: SECOND * 60, start: SECOND * 5, stop: SECOND * 5 },
        node: NodeModel::default(),
        calendars: vec![xnys()],
        round_trips: trips.into_iter().map(trip).collect(),
        seed: 1,
    }
}

fn ours(scenario: &Scenario<'_>) -> (Outcome, Report) {
    let season = Season::Market(xnys());
    let before = scenario.from - HOUR;
    let forecast = Forecast::with_history(Forecast::settings(), season, scenario.trace, before);
    run(scenario, Contender::Ours(Box::new(forecast.expect("settings that fit")))).expect("a scenario")
}

fn other(scenario: &Scenario<'_>, policy: impl Policy + 'static) -> Outcome {
    run(scenario, Contender::Other(Box::new(policy))).expect("a scenario").0
}

/// Knative's own share of 70 % of what is inside a machine at its capacity.
fn kpa(scenario: &Scenario<'_>) -> Kpa {
    let capacity = scenario.fleet.groups[0].capacity;
    Kpa::new(0.7 * scenario.node.load(capacity, capacity).in_flight)
}

/// The smallest fixed fleet that is over its objective for no longer.
fn smallest_fixed(scenario: &Scenario<'_>, violation_s: f64) -> Outcome {
    (3..=10)
        .map(|machines| other(scenario, Fixed::new(machines)))
        .find(|fixed| fixed.violation_s <= violation_s)
        .expect("ten machines are enough for any of these weeks")
}

/// Everything that a week must show.
#[track_caller]
fn check(seed: u64, start: &str) {
    let (fleet, start) = (fleet(), at(start));
    let trace = trace(seed, start, DAY * 2 + HOUR * 16);
    let scenario = scenario(&fleet, &trace, start, start + DAY * 7);
    let (ours, report) = ours(&scenario);
    let mut all = vec![ours.clone()];
    all.extend([0.5, 0.6, 0.7, 0.8].map(|target| other(&scenario, TargetTracking::of_utilisation(target))));
    all.push(other(&scenario, kpa(&scenario)));
    let fixed = smallest_fixed(&scenario, ours.violation_s);
    all.push(fixed.clone());
    let saved = 1.0 - ours.cost / fixed.cost;
    let table = format!("seed {seed}, {start}, {:.1} % saved\n{}", saved * 100.0, Table(&all));
    println!("{table}");

    assert!(saved >= 0.4, "{saved}\n{table}");
    for peer in &all[1..] {
        let is_cheaper = ours.cost < peer.cost;
        assert!(is_cheaper || ours.violation_s < peer.violation_s, "{} is better\n{table}", peer.policy);
        assert!(
            is_cheaper || ours.requests_beyond < peer.requests_beyond,
            "{} is better\n{table}",
            peer.policy
        );
    }
    assert!(ours.direction_changes <= TURNS_MAX, "{table}");
    assert_eq!((ours.overrun_s, ours.blind_actions), (0.0, 0), "{table}");
    assert!(all.iter().all(|outcome| outcome.overrun_s == 0.0), "{table}");
    // All that should go wrong did.
    assert!(ours.refused > 0, "{table}\n{report}");
    assert!(report.advice.iter().any(|advice| matches!(advice, Advice::RegionFull { .. })), "{report}");
    let blind = |advice: &Advice| match advice {
        Advice::RuleNeverActed { rule, blind, .. } => rule == "emergency" && *blind >= 90 * 6 - 3,
        _ => false,
    };
    assert!(report.advice.iter().any(blind), "{report}");
}

#[test]
fn a_week_after_the_clocks_went_forward() {
    check(1, "2026-03-09T00:00:00Z");
}

#[test]
fn a_week_in_spring() {
    check(2, "2026-04-13T00:00:00Z");
}

#[test]
fn a_week_that_ends_with_a_holiday() {
    check(3, "2026-06-15T00:00:00Z");
}

#[test]
fn the_week_of_thanksgiving() {
    check(4, "2026-11-23T00:00:00Z");
}

#[test]
fn a_week_in_winter() {
    check(5, "2026-02-02T00:00:00Z");
}

/// The feed dies before the close and comes back after it: what is asked falls to a third meanwhile, and nobody knows.
#[test]
fn nothing_is_done_while_nobody_says_anything() {
    for seed in 1..=5 {
        let (fleet, start) = (fleet(), at("2026-04-13T00:00:00Z"));
        let trace = trace(seed, start, DAY * 2 + HOUR * 19);
        let scenario = scenario(&fleet, &trace, start + DAY * 2 + HOUR * 13, start + DAY * 3);
        let (ours, report) = ours(&scenario);
        assert!(trace.total(start + DAY * 2 + HOUR * 20 + MINUTE * 20) < 40.0);
        assert_eq!(ours.blind_actions, 0, "seed {seed}\n{ours:?}\n{report}");
        assert_eq!(
            ours.machines_max,
            ours.machines_max.max(4),
            "there is something that could be taken away"
        );
        let last = report.decisions.last().expect("some");
        assert_eq!(last.to, 1, "it is taken away when it is known again\n{report}");
    }
}

/// Three machines can be paid at a time, and over the end of April forty, or seventeen: less than one machine costs
/// until then.
#[test]
fn a_budget_that_binds_is_never_exceeded() {
    for (seed, per_month) in [(1, 40.0), (2, 40.0), (3, 40.0), (1, 17.0)] {
        let mut fleet = fleet();
        fleet.budget = Budget { per_hour: Some(1.1), per_month: Some(per_month) };
        let start = at("2026-04-27T00:00:00Z");
        let trace = trace(seed, start, DAY * 2 + HOUR * 16);
        let scenario = scenario(&fleet, &trace, start + DAY, start + DAY * 4);
        let (ours, report) = ours(&scenario);
        let others =
            [other(&scenario, kpa(&scenario)), other(&scenario, TargetTracking::of_utilisation(0.5))];
        let all = [ours, others[0].clone(), others[1].clone()];
        let table = format!("{per_month}\n{}", Table(&all));
        println!("{table}");
        assert!(all.iter().all(|outcome| outcome.overrun_s == 0.0 && outcome.cost <= per_month), "{table}");
        assert!(report.advice.iter().any(|advice| matches!(advice, Advice::BudgetBound { .. })), "{report}");
    }
}

/// The week that comes with the product, and the one before it, a line for each quarter of an hour.
fn shipped() -> Trace {
    let (calendar, start) = (xnys(), at("2026-03-09T00:00:00Z"));
    let week = Week {
        seed: 1,
        start,
        weeks_before: 1,
        calendar: &calendar,
        regions: &[("iad", 0.6), ("lhr", 0.25), ("nrt", 0.15)],
        news: Some((start + DAY + HOUR * 16, 2.6)),
        silent: Some((start + DAY * 2 + HOUR * 16, start + DAY * 2 + HOUR * 17 + MINUTE * 30)),
        full: Some(("iad", (start + HOUR * 13, start + HOUR * 15))),
    };
    // For the machines of the configuration that is built in, which do five times as much as those above.
    week.trace().times(5.0).coarse(MINUTE * 15)
}

const SHIPPED: &str = include_str!("../../../configs/traces/trading-week.csv");

/// `-- --ignored` writes it anew.
#[test]
#[ignore = "writes into configs/traces"]
fn the_shipped_trace_is_written() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../configs/traces/trading-week.csv");
    std::fs::write(path, shipped().written()).expect("written");
}

#[test]
fn the_shipped_trace_is_what_its_seed_makes() {
    assert!(SHIPPED == shipped().written(), "cargo test -p peregrine_scaler --test week -- --ignored");
    let (mut fleet, start) = (fleet(), at("2026-03-09T00:00:00Z"));
    fleet.groups[0].capacity = 200.0;
    let trace = Trace::read(SHIPPED).expect("a trace");
    let scenario = scenario(&fleet, &trace, start, start + DAY * 6);
    let (ours, _) = ours(&scenario);
    let fixed = other(&scenario, Fixed::new(4));
    println!("{}", Table(&[ours.clone(), fixed.clone()]));
    assert!(ours.cost < 0.6 * fixed.cost && ours.overrun_s == 0.0 && ours.blind_actions == 0, "{ours:?}");
}
