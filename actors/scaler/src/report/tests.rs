//! Rounds as values, and what a report says of them.

use std::collections::BTreeMap;

use super::*;
use crate::control::{Cause, Done, Round};
use crate::cost::{Accrued, Billing, Line};
use crate::fleet::{GroupSpec, PlaceSpec, Slot};
use crate::pool::{Order, PoolError};
use crate::reconcile::Action;
use crate::rule::{Direction, Finding, Verdict};

const MINUTE: Duration = Duration::from_secs(60);

fn at(minute: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + minute * 60).unwrap()
}

fn group() -> GroupSpec {
    let place = |region: &str, running_per_hour| PlaceSpec {
        region: region.to_owned(),
        running_per_hour,
        stopped_per_hour: 0.01,
        machines_max: 8,
    };
    GroupSpec {
        name: "g".to_owned(),
        machines_max: 4,
        warm: 1,
        capacity: 10.0,
        places: vec![place("iad", 1.0), place("fra", 2.0)],
        ..crate::pool::contract::group("x")
    }
}

fn ledger(rules: &[&str]) -> Ledger {
    let rules: Vec<String> = rules.iter().map(|rule| (*rule).to_owned()).collect();
    Ledger::new(&[group()], &rules, at(0))
}

fn report(ledger: &Ledger, fixed: Option<u32>) -> Report {
    ledger.report(at(60), |_| None, fixed, [].iter())
}

/// A minute: machines by region and billing.
fn accrued(minute: i64, machines: &[(&str, Billing, f64)]) -> Accrued {
    let line = |(region, billing, count): &(&str, Billing, f64)| {
        let price = match (*region, billing) {
            (_, Billing::Stopped) => 0.01,
            ("iad", Billing::Running) => 1.0,
            _ => 2.0,
        };
        let machine_seconds = count * 60.0;
        let (group, region) = ("g".to_owned(), (*region).to_owned());
        Line { group, region, billing: *billing, machine_seconds, money: price * machine_seconds / 3600.0 }
    };
    Accrued {
        from: at(minute),
        to: at(minute + 1),
        lines: machines.iter().map(line).collect(),
        is_gap: false,
        unpriced_seconds: 0.0,
    }
}

fn usage(utilisation: Option<f64>, predictions: Option<f64>) -> BTreeMap<String, Usage> {
    BTreeMap::from([("g".to_owned(), Usage { utilisation, predictions })])
}

fn decision(from: u32, to: u32, cause: Cause) -> Decision {
    let (findings, facts) = (Vec::new(), Vec::new());
    Decision { at: at(0), group: "g".to_owned(), from, to, cause, findings, facts, short: (0, 0) }
}

fn round(decision: Decision) -> Round {
    Round { decisions: vec![decision], actions: Vec::new(), strays: Vec::new() }
}

fn near(value: f64, expected: f64) -> bool {
    (value - expected).abs() < 1e-9
}

#[test]
fn averages_and_savings_follow_from_what_was_billed() {
    let mut ledger = ledger(&[]);
    let two = [("iad", Billing::Running, 2.0), ("iad", Billing::Stopped, 1.0)];
    let three = [("iad", Billing::Running, 2.0), ("fra", Billing::Running, 1.0)];
    ledger.accrue(&[accrued(0, &two)], &usage(Some(0.5), Some(10.0)));
    ledger.accrue(&[accrued(1, &three)], &usage(None, None));
    let report = report(&ledger, Some(5));
    let said = &report.groups[0];
    assert!(near(said.machines_mean, 2.5) && said.machines_max == 3);
    assert_eq!(said.utilisation, Some(0.5));
    assert!(near(said.money, (2.01 + 4.0) / 60.0) && near(said.per_hour, 3.005));
    // Only the first minute's predictions were counted: 600 for 2.01/60.
    assert!(near(said.per_1000.unwrap(), 2.01 / 60.0 / 0.6));
    let regions: Vec<&str> = said.by_region.iter().map(|(region, _)| region.as_str()).collect();
    assert_eq!(regions, ["fra", "iad"]);
    // A running machine cost 6 per 5 machine-minutes: 1.2 per hour.
    let fixed: Vec<(u32, f64)> = said.savings.iter().map(|saving| (saving.machines, saving.money)).collect();
    assert!(fixed[0].0 == 3 && near(fixed[0].1, 3.0 * 1.2 / 30.0), "{fixed:?}");
    assert!(fixed[1].0 == 5 && near(fixed[1].1, 5.0 * 1.2 / 30.0), "{fixed:?}");
    assert!(near(said.savings[0].share, 1.0 - said.money / fixed[0].1));
}

#[test]
fn what_rounds_to_nothing_saved_has_no_sign() {
    let mut ledger = ledger(&[]);
    ledger.accrue(&[accrued(0, &[("iad", Billing::Running, 2.0)])], &usage(Some(0.5), None));
    let mut report = report(&ledger, Some(5));
    report.groups[0].savings[0].share = -0.0003;
    let said = report.to_string();
    assert!(
        said.contains("a fixed fleet of 2, as many as there were at most, would have cost 0.03: 0.0 % saved"),
        "{said}"
    );
    report.groups[0].savings = vec![Saving::new(FixedFleet::Smallest, 1, 4.2, 6.22)];
    let said = report.to_string();
    let want = "a fixed fleet of 1, the smallest that is over its objective for no longer, would have cost 4.20: 48.1 % more \
                was spent";
    assert!(said.contains(want), "{said}");
}

#[test]
fn nothing_is_not_zero() {
    let report = report(&ledger(&["a"]), None);
    let said = &report.groups[0];
    assert_eq!((said.utilisation, said.per_1000, said.savings.len()), (None, None, 0));
    assert_eq!(report.advice, [], "a rule that was never asked has not failed to act");
    assert!(report.to_string().contains("utilisation    not known"), "{report}");
}

#[test]
fn gaps_and_what_has_no_price_are_told() {
    let mut ledger = ledger(&[]);
    let gap = Accrued { is_gap: true, unpriced_seconds: 7200.0, ..accrued(0, &[]) };
    ledger.accrue(&[gap], &BTreeMap::new());
    let report = report(&ledger, None);
    assert!(near(report.gap_seconds, 60.0));
    assert_eq!(report.advice, [Advice::Unpriced { machine_hours: 2.0 }]);
    assert!(report.to_string().contains("not looked at for 1.0 min"), "{report}");
}

fn finding(rule: &str, direction: Direction, verdict: Verdict) -> Finding {
    Finding { rule: rule.to_owned(), direction, verdict }
}

#[test]
fn a_rule_that_never_acts_is_told_with_why() {
    let mut ledger = ledger(&["acts", "blind", "broken", "idle"]);
    let blind = || Verdict::Blind(vec!["utilisation".to_owned()]);
    let findings = vec![
        finding("acts", Direction::Up, Verdict::Acts { to: 2 }),
        finding("acts", Direction::Down, Verdict::Quiet),
        finding("blind", Direction::Up, blind()),
        finding("blind", Direction::Down, blind()),
        finding("broken", Direction::Up, Verdict::Broken("no".to_owned())),
        finding("idle", Direction::Down, Verdict::AtBound),
    ];
    for _ in 0..3 {
        ledger.round(
            &round(Decision { findings: findings.clone(), ..decision(1, 2, Cause::Steady) }),
            &[],
            MINUTE,
        );
    }
    let never =
        |rule: &str, held, blind| Advice::RuleNeverActed { rule: rule.to_owned(), rounds: 3, held, blind };
    let broken = Advice::RuleBroken { rule: "broken".to_owned(), rounds: 3 };
    let report = report(&ledger, None);
    assert_eq!(report.advice, [never("blind", 0, 3), broken, never("idle", 3, 0)]);
    assert_eq!(report.groups[0].changes, 3);
    let text = report.to_string();
    assert!(text.contains("rule `idle` never acted in 3 rounds: it held in 3 and was blind in 0"), "{text}");
}

#[test]
fn what_was_binding_is_told_with_how_long() {
    let mut ledger = ledger(&[]);
    let short = |room, money| Decision { short: (room, money), ..decision(3, 3, Cause::Steady) };
    let full =
        |rate: &str| Decision { facts: vec![("demand", rate.to_owned())], ..decision(4, 4, Cause::Steady) };
    for decision in [
        short(1, 0),
        short(0, 2),
        short(0, 1),
        full("55.5"),
        full("61 (some nodes are silent)"),
        full("40"),
        full("not known"),
        decision(4, 4, Cause::Blind),
        decision(4, 4, Cause::PoolSilent(PoolError::RateLimited)),
    ] {
        ledger.round(&round(decision), &[], MINUTE);
    }
    let group = || "g".to_owned();
    let expected = [
        Advice::AtMaximum { group: group(), machines_max: 4, lasted: MINUTE * 2, needed: 7 },
        Advice::BudgetBound { group: group(), lasted: MINUTE * 2, missing: 2 },
        Advice::NoRoom { group: group(), lasted: MINUTE, missing: 1 },
        Advice::Blind { group: group(), lasted: MINUTE },
        Advice::PoolSilent { group: group(), lasted: MINUTE },
    ];
    let report = report(&ledger, None);
    assert_eq!(report.advice, expected);
    let text = report.to_string();
    assert!(text.contains("g: machines_max = 4 was binding for 2.0 min; 7 were needed at most"), "{text}");
    assert!(text.contains("g: the budget was binding for 2.0 min; 2 machines could not be paid"), "{text}");
}

fn create(number: u32, result: Result<(), PoolError>) -> Done {
    let slot = Slot { group: "g".to_owned(), number };
    let order = Order { slot, region: "iad".to_owned(), release: "v1".to_owned(), launch: true };
    Done { action: Action::Create(order), result }
}

#[test]
fn regions_that_refuse_are_told() {
    let mut ledger = ledger(&[]);
    let full = || PoolError::NoCapacity { region: "iad".to_owned() };
    let done = [create(0, Err(full())), create(1, Err(full())), create(2, Err(PoolError::RateLimited))];
    ledger.round(&Round::default(), &done, MINUTE);
    let report = report(&ledger, None);
    assert_eq!(report.advice, [Advice::RegionFull { region: "iad".to_owned(), times: 2 }]);
    assert_eq!(report.groups[0].cold.count, 0);
}
