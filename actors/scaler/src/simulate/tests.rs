//! Traces as text, weeks by seed, short runs, and logs that are read again.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

use super::policy::Fixed;
use super::*;
use crate::budget::Budget;
use crate::calendar::{Calendar, Calendars};
use crate::control::FleetSpec;
use crate::demand::Season;
use crate::fleet::{GroupSpec, PlaceSpec};
use crate::pool::simulated::Delays;
use crate::rule;

const SECOND: Duration = Duration::from_secs(1);

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

fn xnys() -> Arc<Calendar> {
    Arc::clone(Calendars::built_in().get("xnys").unwrap())
}

fn fleet() -> FleetSpec {
    let place = |region: &str, running_per_hour| PlaceSpec {
        region: region.to_owned(),
        running_per_hour,
        stopped_per_hour: 0.01,
        machines_max: 8,
    };
    let group = GroupSpec {
        name: "g".to_owned(),
        machines_max: 8,
        capacity: 40.0,
        places: vec![place("iad", 1.0), place("lhr", 1.2)],
        ..crate::pool::contract::group("x")
    };
    FleetSpec {
        groups: vec![GroupSpec { machines_min: 1, ..group }],
        rules: rule::defaults(),
        budget: Budget::default(),
        stale_after: SECOND * 30,
        stabilisation: SECOND * 600,
        dead_band: 0.1,
        rtt_worth: 0.0,
        rollback_for: SECOND * 600,
        hold: SECOND * 60,
    }
}

fn scenario<'a>(fleet: &'a FleetSpec, trace: &'a Trace, from: &str, to: &str) -> Scenario<'a> {
    Scenario {
        fleet,
        trace,
        from: at(from),
        to: at(to),
        step: SECOND * 10,
        delays: Delays { create: SECOND * 60, start: SECOND * 5, stop: SECOND * 5 },
        node: NodeModel::default(),
        calendars: vec![xnys()],
        round_trips: crate::place::RoundTrips::new(),
        seed: 7,
    }
}

fn week(seed: u64, start: &str) -> Trace {
    let week = Week {
        seed,
        start: at(start),
        weeks_before: 0,
        calendar: &xnys(),
        regions: &[("iad", 0.75), ("lhr", 0.25)],
        news: None,
        silent: None,
        full: None,
    };
    week.trace()
}

#[test]
fn a_step_may_be_less_than_a_second() {
    let (fleet, trace) = (fleet(), week(1, "2026-03-09T00:00:00Z"));
    let of =
        |step| Scenario { step, ..scenario(&fleet, &trace, "2026-03-10T14:00:00Z", "2026-03-10T14:05:00Z") };
    let run = |step| run(&of(step), Contender::Other(Box::new(Fixed::new(2)))).map(|(outcome, _)| outcome);
    assert!(run(Duration::from_millis(500)).unwrap().requests > 0.0);
    assert_eq!(run(Duration::ZERO), Err(ScenarioError::Steps));
}

#[test]
fn no_time_is_nothing_to_simulate() {
    let (fleet, trace) = (fleet(), week(1, "2026-03-09T00:00:00Z"));
    for (from, to, checked) in [
        ("2026-03-10T14:00:00Z", "2026-03-10T14:00:00Z", Err(ScenarioError::Steps)),
        ("2026-03-10T14:00:00Z", "2026-03-10T13:00:00Z", Err(ScenarioError::Steps)),
        ("2026-03-10T14:00:00Z", "2026-03-10T14:00:10Z", Ok(())),
    ] {
        assert_eq!(scenario(&fleet, &trace, from, to).check(), checked);
    }
}

#[test]
fn a_file_of_a_spreadsheet_is_a_trace() {
    let text = "\u{feff}time,region,requests_per_second\r\n2026-03-09T00:00:00Z,iad,5\r\n";
    assert_eq!(Trace::read(text).unwrap().total(at("2026-03-09T00:00:00Z")), 5.0);
}

#[test]
fn rules_know_every_market_that_a_group_follows() {
    let (fleet, trace) = (fleet(), week(1, "2026-03-09T00:00:00Z"));
    // London alone is open, and more is asked than a rule for trading hours lets pass.
    let busy = "2026-03-09T00:00:00Z,iad,35\n2026-03-11T00:00:00Z,iad,35\n";
    let busy = Trace::read(busy).unwrap();
    let xlon = Arc::clone(Calendars::built_in().get("xlon").unwrap());
    let most = |calendars| {
        let scenario =
            Scenario { calendars, ..scenario(&fleet, &busy, "2026-03-10T09:00:00Z", "2026-03-10T10:00:00Z") };
        let season = Season::Market(xnys());
        let forecast =
            Forecast::with_history(Forecast::settings(), season, &trace, at("2026-03-09T00:00:00Z"));
        run(&scenario, Contender::Ours(Box::new(forecast.unwrap()))).unwrap().0.machines_max
    };
    assert!(most(vec![xnys(), xlon]) > most(vec![xnys()]));
}

#[track_caller]
fn refused(text: &str, expected: TraceError) {
    assert_eq!(Trace::read(text), Err(expected));
}

#[track_caller]
fn refused_line(line: usize, why: &'static str, text: &str) {
    refused(text, TraceError::Line { line, why });
}

#[test]
fn a_rate_holds_until_the_next() {
    let text = "time,region,requests_per_second\n2026-03-09T00:00:00Z,iad,5\n\n# a remark\n2026-03-09T00:01:00Z, lhr , 7.5\n\
                2026-03-09T00:02:00Z,iad,0\n";
    let trace = Trace::read(text).unwrap();
    let total = |time: &str| trace.total(at(time));
    assert_eq!(trace.demand(at("2026-03-08T23:59:59Z")), [].into());
    assert_eq!((total("2026-03-09T00:00:00Z"), total("2026-03-09T00:01:59Z")), (5.0, 12.5));
    assert_eq!(total("2026-03-10T00:00:00Z"), 7.5);
    assert_eq!(trace.regions().collect::<Vec<_>>(), ["iad", "lhr"]);
}

#[test]
fn disturbances_begin_and_end() {
    let text = "2026-03-09T00:00:00Z,iad,5\n2026-03-09T01:00:00Z,*,silent\n2026-03-09T01:30:00Z,iad,full\n\
                2026-03-09T02:00:00Z,*,heard\n2026-03-09T03:00:00Z,iad,roomy\n2026-03-09T04:00:00Z,lhr,full\n\
                2026-03-09T05:00:00Z,iad,1\n";
    let trace = Trace::read(text).unwrap();
    let hour = |hour: &str| at(&format!("2026-03-09T{hour}:00Z"));
    assert_eq!(
        ["00:59", "01:00", "01:59", "02:00"].map(|time| trace.is_silent(hour(time))),
        [false, true, true, false]
    );
    assert_eq!(trace.silent_since(hour("01:10")), Some(hour("01:00")));
    assert_eq!(
        ["01:29", "01:30", "03:00"].map(|time| trace.is_full("iad", hour(time))),
        [false, true, false]
    );
    // Without an end it lasts as long as the trace.
    assert_eq!(["04:59", "05:00"].map(|time| trace.is_full("lhr", hour(time))), [true, false]);
    assert_eq!(Trace::read(&trace.written()), Ok(trace));
}

#[test]
fn lines_that_say_nothing_are_told_by_number() {
    refused("", TraceError::Empty);
    refused("2026-03-09T00:00:00Z,*,silent", TraceError::Empty);
    let first = "2026-03-09T00:00:00Z,iad,5\n";
    refused_line(2, "is not three columns: time,region,requests_per_second", &format!("{first}a,b"));
    refused_line(2, "is not three columns: time,region,requests_per_second", &format!("{first}a,b,c,d"));
    refused_line(1, "its time is not like 2026-03-09T13:30:00Z", "yesterday,iad,5");
    refused_line(2, "is earlier than the line before it", &format!("{first}2026-03-08T00:00:00Z,iad,5"));
    refused_line(
        2,
        "is more than 400 days after the first line",
        &format!("{first}2028-03-08T00:00:00Z,iad,5"),
    );
    for rate in ["-1", "NaN", "inf", "1e10"] {
        refused_line(1, "its rate is not between 0 and 1e9", &format!("2026-03-09T00:00:00Z,iad,{rate}"));
    }
    refused_line(1, "is neither a rate nor a word that is known", "2026-03-09T00:00:00Z,iad,many");
    refused_line(1, "its region is no name", "2026-03-09T00:00:00Z,a b,5");
    refused_line(1, "its region is no name", &format!("2026-03-09T00:00:00Z,{},5", "a".repeat(33)));
    refused_line(2, "says a second rate of its region for the same time", &format!("{first}{first}"));
    refused_line(1, "is heard again without having been silent", "2026-03-09T00:00:00Z,*,heard");
    refused_line(1, "is roomy again without having been full", "2026-03-09T00:00:00Z,iad,roomy");
    let many: String = (0..65).map(|n| format!("2026-03-09T00:00:00Z,r{n},1\n")).collect();
    refused_line(65, "is of the 65th region", &many);
    let many: String = (0..65).map(|n| format!("2026-03-09T00:00:00Z,r{n},full\n")).collect();
    refused_line(65, "is of the 65th region", &many);
}

#[test]
fn broken_traces_and_logs_are_refused_and_nothing_worse() {
    let mut rng = StdRng::seed_from_u64(5);
    let trace = "2026-03-09T00:00:00Z,iad,5\n2026-03-09T01:00:00Z,*,silent\n2026-03-09T02:00:00Z,iad,full\n";
    let (log, _) = logged(1 << 16);
    let log = &log[..log.len().min(6000)];
    for text in [trace, log] {
        for _ in 0..2000 {
            let mut bytes = text.as_bytes().to_vec();
            for _ in 0..rng.random_range(1..4) {
                if bytes.len() < 8 {
                    break;
                }
                let place = rng.random_range(0..bytes.len());

                match rng.random_range(0..3) {
                    0 => bytes[place] = rng.random_range(32..127),
                    1 => drop(bytes.remove(place)),
                    _ => bytes.truncate(place.max(1)),
                }
            }
            let broken = String::from_utf8_lossy(&bytes);
            let _ = Trace::read(&broken);
            let _ = replay(&broken, fleet());
        }
    }
}

#[test]
fn a_week_is_its_seed() {
    let start = "2026-03-09T00:00:00Z";
    assert_eq!(week(1, start), week(1, start));
    assert_ne!(week(1, start), week(2, start));
    let read = Trace::read(&week(1, start).written()).unwrap();
    assert_eq!(read, week(1, start));
}

/// Mean requests per second over so many minutes.
fn mean(trace: &Trace, from: &str, minutes: u32) -> f64 {
    let rate = |minute| trace.total(rule::after(at(from), SECOND * 60 * minute));
    (0..minutes).map(rate).sum::<f64>() / f64::from(minutes)
}

#[test]
fn a_week_has_the_shape_of_its_market() {
    for seed in 0..5 {
        let trace = week(seed, "2026-03-02T00:00:00Z");
        // Winter time until Sunday: it opens at 14:30 and closes at 21:00.
        let open = mean(&trace, "2026-03-04T14:32:00Z", 10);
        let midday = mean(&trace, "2026-03-04T17:00:00Z", 60);
        let close = mean(&trace, "2026-03-04T20:50:00Z", 10);
        let night = mean(&trace, "2026-03-04T05:00:00Z", 60);
        let saturday = mean(&trace, "2026-03-07T14:30:00Z", 60);
        assert!(open > 2.0 * midday && close > 1.5 * midday, "{open} {midday} {close}");
        assert!(midday > 3.0 * night && saturday < 15.0, "{midday} {night} {saturday}");
        let trace = week(seed, "2026-03-09T00:00:00Z");
        let open = mean(&trace, "2026-03-11T13:32:00Z", 10);
        assert!(open > 1.8 * mean(&trace, "2026-03-11T14:32:00Z", 10), "summer time: it opens at 13:30");
        // Thanksgiving, and half a day after it.
        let trace = week(seed, "2026-11-23T00:00:00Z");
        assert!(mean(&trace, "2026-11-26T14:32:00Z", 60) < 15.0);
        assert!(mean(&trace, "2026-11-27T14:32:00Z", 10) > 100.0);
        assert!(mean(&trace, "2026-11-27T19:30:00Z", 60) < 30.0);
    }
}

#[test]
fn news_come_at_once_and_go_slowly() {
    let calendar = xnys();
    let news = at("2026-03-10T16:00:00Z");
    let quiet = Week {
        seed: 3,
        start: at("2026-03-09T00:00:00Z"),
        weeks_before: 0,
        calendar: &calendar,
        regions: &[("iad", 1.0)],
        news: None,
        silent: None,
        full: None,
    };
    let loud = Week { news: Some((news, 3.0)), ..quiet.clone() }.trace();
    let ratio = |minute| {
        let at = rule::after(news, SECOND * 60 * minute);
        loud.total(at) / quiet.trace().total(at)
    };
    let told = [0, 2, 12, 62].map(ratio);
    let expected = [1.0, 3.0, 2.0, 1.0 + 2.0 / 64.0];
    assert!(told.iter().zip(expected).all(|(told, expected)| (told - expected).abs() < 1e-3), "{told:?}");
}

#[test]
fn a_coarse_trace_has_the_same_requests() {
    let trace = week(4, "2026-03-09T00:00:00Z");
    let coarse = trace.coarse(SECOND * 900);
    for hour in 0..24 {
        let from = format!("2026-03-11T{hour:02}:00:00Z");
        assert!((mean(&trace, &from, 60) - mean(&coarse, &from, 60)).abs() < 0.01);
    }
    assert_eq!(coarse.written().lines().count(), 1 + 2 * 7 * 96);
}

/// What is asked of a fixed fleet of two, by hand: forty for a minute each of 100, 70 and 81 requests/s.
#[test]
fn what_ready_machines_do_not_answer_is_counted() {
    let text = "2026-03-08T00:00:00Z,iad,70\n2026-03-09T00:10:00Z,iad,100\n2026-03-09T00:11:00Z,iad,70\n\
                2026-03-09T00:12:00Z,iad,81\n2026-03-09T00:13:00Z,iad,80\n";
    let trace = Trace::read(text).unwrap();
    let fleet = fleet();
    let scenario = scenario(&fleet, &trace, "2026-03-09T00:00:00Z", "2026-03-09T01:00:00Z");
    let (outcome, report) = run(&scenario, Contender::Other(Box::new(Fixed::new(2)))).unwrap();
    assert_eq!((outcome.violation_s, outcome.requests_beyond.round()), (120.0, 20.0 * 60.0 + 60.0));
    assert_eq!(
        outcome.requests.round(),
        70.0 * 11.0 * 60.0 + 100.0 * 60.0 + 81.0 * 60.0 + 80.0 * 47.0 * 60.0
    );
    // Two machines in the cheaper region for an hour, and the disk of a third.
    assert!((outcome.cost - 2.01).abs() < 1e-9, "{outcome:?}");
    assert_eq!((outcome.actions, outcome.changes, outcome.machines_max), (0, 0, 2));
    assert!((report.groups[0].money - 2.01).abs() < 1e-9);
    assert!((report.groups[0].machines_mean - 2.0).abs() < 1e-9);
    assert!((report.groups[0].savings[0].share + 0.005).abs() < 1e-9, "{report}");
    let utilisation = report.groups[0].utilisation.unwrap();
    assert!((0.7..0.85).contains(&utilisation), "{utilisation}");
}

#[test]
fn what_cannot_be_simulated_is_refused() {
    let trace = week(1, "2026-03-09T00:00:00Z");
    let none = FleetSpec { groups: Vec::new(), ..fleet() };
    let of = |scenario: &Scenario<'_>| run(scenario, Contender::Other(Box::new(Fixed::new(2)))).unwrap_err();
    assert_eq!(
        of(&scenario(&none, &trace, "2026-03-09T00:00:00Z", "2026-03-10T00:00:00Z")),
        ScenarioError::NoGroup
    );
    let fleet = fleet();
    let back = scenario(&fleet, &trace, "2026-03-10T00:00:00Z", "2026-03-09T00:00:00Z");
    assert_eq!(of(&back), ScenarioError::Steps);
    assert_eq!(
        of(&Scenario { step: Duration::ZERO, to: at("2026-03-11T00:00:00Z"), ..back.clone() }),
        ScenarioError::Steps
    );
    assert_eq!(of(&Scenario { step: SECOND, to: at("2126-03-11T00:00:00Z"), ..back }), ScenarioError::Steps);
}

/// The rule of docs/clusters.md, on a day that one machine would answer.
#[test]
fn a_rule_before_the_open_is_over_with_the_open() {
    let up = rule::Arm {
        when: rule::Condition::new("market_opens_in < 600.0 + time_to_ready").unwrap(),
        step: 1,
        cooldown: SECOND * 600,
        holds_for: Duration::ZERO,
        machines_min: 3,
        machines_max: 3,
    };
    let before_the_open = rule::Rule {
        name: "before_the_open".to_owned(),
        groups: Vec::new(),
        priority: 70,
        is_emergency: false,
        up: Some(up),
        down: None,
    };
    let fleet = FleetSpec { rules: vec![before_the_open], ..fleet() };
    let trace = Trace::read("2026-03-01T00:00:00Z,iad,5\n").unwrap();
    // It opens at 13:30 and closes at 20:00.
    let scenario = scenario(&fleet, &trace, "2026-03-10T12:00:00Z", "2026-03-10T22:00:00Z");
    let forecast =
        Forecast::with_history(Forecast::settings(), Season::Market(xnys()), &trace, scenario.from).unwrap();
    let (outcome, report) = run(&scenario, Contender::Ours(Box::new(forecast))).unwrap();
    let changes: Vec<_> = report.decisions.iter().map(|d| (d.from, d.to, d.at)).collect();
    let [(1, 3, more), (3, 1, fewer)] = changes[..] else { panic!("{:?}", report.decisions) };
    assert!((at("2026-03-10T13:17:00Z")..at("2026-03-10T13:20:00Z")).contains(&more), "{more}");
    assert!((at("2026-03-10T13:39:00Z")..at("2026-03-10T13:42:00Z")).contains(&fewer), "{fewer}");
    assert_eq!(outcome.violation_s, 0.0);
}

/// The log of the hours around an open in which Virginia is full, and the report of the run.
fn logged(len_max: usize) -> (String, crate::report::Report) {
    let calendar = xnys();
    let full = Some(("iad", (at("2026-03-10T13:00:00Z"), at("2026-03-10T15:00:00Z"))));
    let silent = Some((at("2026-03-10T15:30:00Z"), at("2026-03-10T15:45:00Z")));
    let trace = Week {
        seed: 9,
        start: at("2026-03-09T00:00:00Z"),
        weeks_before: 1,
        calendar: &calendar,
        regions: &[("iad", 1.0), ("lhr", 0.5)],
        news: None,
        silent,
        full,
    };
    let trace = trace.trace();
    let fleet = fleet();
    let scenario = scenario(&fleet, &trace, "2026-03-10T13:00:00Z", "2026-03-10T17:00:00Z");
    let forecast = Forecast::with_history(
        Forecast::settings(),
        Season::Market(calendar),
        &trace,
        at("2026-03-10T12:00:00Z"),
    );
    let ours = Contender::Ours(Box::new(forecast.unwrap()));
    let mut recorder = Recorder::new(len_max);
    let (outcome, report) = run_recorded(&scenario, ours, Some(&mut recorder)).unwrap();
    assert!(outcome.refused > 0 && outcome.changes > 3, "{outcome:?}");
    assert_eq!(recorder.is_full(), len_max < 1 << 20);
    (recorder.text().to_owned(), report)
}

#[test]
fn a_log_leads_to_the_same_decisions() {
    let (log, report) = logged(64 << 20);
    let replayed = replay(&log, fleet()).unwrap();
    assert_eq!((replayed.rounds, replayed.differing.as_slice()), (5 * 360, [].as_slice()));
    // Whole: with causes, findings and facts.
    let changed: Vec<_> = replayed.decisions.into_iter().filter(|d| d.from != d.to).collect();
    assert!(changed.len() > 3);
    assert_eq!(changed, report.decisions);
}

#[test]
fn a_log_under_another_specification_says_where_it_differs() {
    let (log, _) = logged(64 << 20);
    let mut other = fleet();
    other.groups[0].capacity = 25.0;
    match replay(&log, other) {
        Ok(replayed) => assert!(!replayed.differing.is_empty()),
        Err(err) => assert!(matches!(err, LogError::Diverged { .. }), "{err}"),
    }
}

#[test]
fn a_log_that_is_full_ends_with_a_whole_round() {
    let (whole, _) = logged(64 << 20);
    let (cut, _) = logged(100_000);
    assert!(cut.len() <= 100_000 && whole.starts_with(&cut) && whole[cut.len()..].starts_with("round "));
    let replayed = replay(&cut, fleet()).unwrap();
    assert!(replayed.rounds > 10 && replayed.differing.is_empty());
}

#[test]
fn a_run_is_its_scenario() {
    let trace = week(6, "2026-03-09T00:00:00Z");
    let fleet = fleet();
    let scenario = scenario(&fleet, &trace, "2026-03-09T13:00:00Z", "2026-03-09T16:00:00Z");
    let once = || run(&scenario, Contender::Other(Box::new(super::policy::Kpa::new(5.0)))).unwrap();
    assert_eq!(once(), once());
}
