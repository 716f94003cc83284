use super::*;
use crate::fleet::{Machine, MachineId, MachineState, Slot};
use crate::signal::GroupSignals;
use crate::signal::{NodeReport, Signal};

const MINUTE: Duration = Duration::from_secs(60);

fn at(minute: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + minute * 60).unwrap()
}

fn arm(when: &str, step: u32, cooldown_min: u32, min: u32, max: u32) -> Arm {
    Arm {
        when: Condition::new(when).unwrap(),
        step,
        cooldown: MINUTE * cooldown_min,
        holds_for: Duration::ZERO,
        machines_min: min,
        machines_max: max,
    }
}

fn rule(name: &str, priority: i32, up: Option<Arm>, down: Option<Arm>) -> Rule {
    Rule { name: name.to_owned(), groups: Vec::new(), priority, is_emergency: false, up, down }
}

/// What one node says of the group.
fn facts(measured: &[(Signal, f64)]) -> Facts {
    said(&[Some(measured)])
}

fn said(nodes: &[Option<&[(Signal, f64)]>]) -> Facts {
    let machine = |number| Machine {
        id: MachineId(format!("m{number}")),
        slot: Slot { group: "g".to_owned(), number },
        region: "iad".to_owned(),
        state: MachineState::Started,
        cordoned: false,
        release: "v1".to_owned(),
        created_at: at(-100),
    };
    let machines: Vec<Machine> = (0..).take(nodes.len()).map(machine).collect();
    let reports: Vec<Option<NodeReport>> = nodes
        .iter()
        .map(|node| {
            let measured = (*node)?.iter().copied().collect();
            Some(NodeReport { at: at(0), is_ready: true, is_draining: false, measured })
        })
        .collect();
    let pairs = machines.iter().zip(reports.iter().map(Option::as_ref));
    Facts::of(&GroupSignals::of(pairs, &[], at(0), MINUTE, MINUTE))
}

fn default_rules() -> Vec<Rule> {
    let mut emergency =
        rule("emergency", 100, Some(arm("utilisation > 0.95 || memory_share > 0.95", 2, 2, 2, 5)), None);
    emergency.is_emergency = true;
    vec![
        emergency,
        rule("high use", 80, Some(arm("utilisation > 0.85 && request_rate > 50.0", 1, 5, 1, 4)), None),
        rule("low use", 40, None, Some(arm("utilisation < 0.4 && request_rate < 20.0", 1, 10, 1, 5))),
    ]
}

#[track_caller]
fn check(rules: &[Rule], present: u32, facts: &Facts, to: u32, by: Option<&str>) -> Judgement {
    let judged = judge(rules, "g", present, facts, &mut Memory::default(), at(0));
    assert_eq!((judged.to, judged.by.as_ref().map(|(rule, _)| rule.as_str())), (to, by), "{judged:#?}");
    judged
}

#[test]
fn the_rule_whose_condition_holds_acts() {
    let busy = facts(&[(Signal::Utilisation, 0.9), (Signal::MemoryShare, 0.2), (Signal::RequestRate, 80.0)]);
    check(&default_rules(), 2, &busy, 3, Some("high use"));
    let idle = facts(&[(Signal::Utilisation, 0.1), (Signal::MemoryShare, 0.2), (Signal::RequestRate, 3.0)]);
    check(&default_rules(), 2, &idle, 1, Some("low use"));
    let fine = facts(&[(Signal::Utilisation, 0.6), (Signal::MemoryShare, 0.2), (Signal::RequestRate, 30.0)]);
    check(&default_rules(), 2, &fine, 2, None);
}

#[test]
fn an_emergency_goes_first() {
    let full = facts(&[(Signal::Utilisation, 0.99), (Signal::MemoryShare, 0.2), (Signal::RequestRate, 80.0)]);
    let judged = check(&default_rules(), 2, &full, 4, Some("emergency"));
    let outranked = Verdict::Outranked { by: "emergency".to_owned() };
    assert!(judged.findings.iter().any(|f| f.rule == "high use" && f.verdict == outranked));
}

#[test]
fn bounds_are_kept_and_never_turn_a_rule_around() {
    let full = facts(&[(Signal::Utilisation, 0.99), (Signal::MemoryShare, 0.2), (Signal::RequestRate, 80.0)]);
    check(&default_rules(), 4, &full, 5, Some("emergency"));
    // Six is above the bound of each that adds: none of them takes any away.
    let judged = check(&default_rules(), 6, &full, 6, None);
    assert_eq!(judged.findings[0].verdict, Verdict::AtBound);
    let idle = facts(&[(Signal::Utilisation, 0.1), (Signal::MemoryShare, 0.2), (Signal::RequestRate, 3.0)]);
    check(&default_rules(), 1, &idle, 1, None);
    check(&default_rules(), 0, &idle, 0, None);
}

#[test]
fn an_arm_that_adds_leads_to_no_fewer_than_its_least() {
    let busy = facts(&[(Signal::RequestRate, 80.0)]);
    let rules = |min| [rule("open", 60, Some(arm("request_rate > 30.0", 1, 5, min, 5)), None)];
    check(&rules(3), 0, &busy, 3, Some("open"));
    check(&rules(3), 1, &busy, 3, Some("open"));
    check(&rules(3), 3, &busy, 4, Some("open"));
    check(&rules(9), 1, &busy, 5, Some("open"));
}

/// Or two rules, or a rule and the demand, would take turns.
#[test]
fn what_a_rule_has_added_stays_while_it_holds() {
    let open = || Some(arm("request_rate > 30.0", 1, 5, 2, 4));
    let costly = || Some(arm("utilisation < 0.6", 1, 5, 1, 5));
    let quiet = facts(&[(Signal::Utilisation, 0.5), (Signal::RequestRate, 80.0)]);
    let rules = [rule("open", 60, open(), None), rule("costly", 20, None, costly())];
    let judged = check(&rules, 4, &quiet, 4, None);
    assert_eq!(judged.keeps, 4);
    assert_eq!(judged.findings[1].verdict, Verdict::Outranked { by: "open".to_owned() });
    // It keeps no more than it would have added, and nothing from what outranks it.
    assert_eq!(check(&rules, 6, &quiet, 5, Some("costly")).keeps, 4);
    let rules = [rule("open", 60, open(), None), rule("costly", 80, None, costly())];
    check(&rules, 4, &quiet, 3, Some("costly"));
    let idle = facts(&[(Signal::Utilisation, 0.5), (Signal::RequestRate, 20.0)]);
    assert_eq!(check(&rules, 4, &idle, 3, Some("costly")).keeps, 0);
}

#[test]
fn what_is_not_known_moves_nothing() {
    let judged = check(&default_rules(), 3, &said(&[None, None]), 3, None);
    let blind = |names: &[&str]| Verdict::Blind(names.iter().map(|name| (*name).to_owned()).collect());
    assert_eq!(judged.findings[0].verdict, blind(&["memory_share", "utilisation"]));
    assert_eq!(judged.findings[2].verdict, blind(&["request_rate", "utilisation"]));
}

#[test]
fn the_known_half_of_an_or_is_enough() {
    let hot = facts(&[(Signal::MemoryShare, 0.97)]);
    check(&default_rules(), 2, &hot, 4, Some("emergency"));
}

#[test]
fn partly_known_adds_and_takes_nothing_away() {
    let busy: &[(Signal, f64)] =
        &[(Signal::Utilisation, 0.9), (Signal::MemoryShare, 0.2), (Signal::RequestRate, 80.0)];
    check(&default_rules(), 2, &said(&[Some(busy), None]), 3, Some("high use"));
    let idle: &[(Signal, f64)] =
        &[(Signal::Utilisation, 0.1), (Signal::MemoryShare, 0.2), (Signal::RequestRate, 3.0)];
    check(&default_rules(), 2, &said(&[Some(idle), None]), 2, None);
    check(&default_rules(), 2, &said(&[Some(idle), Some(idle)]), 1, Some("low use"));
}

#[test]
fn a_rule_rests_after_it_has_acted() {
    let rules = default_rules();
    let busy = facts(&[(Signal::Utilisation, 0.9), (Signal::MemoryShare, 0.2), (Signal::RequestRate, 80.0)]);
    let mut memory = Memory::default();
    let mut to =
        |minute, facts: &Facts, present| judge(&rules, "g", present, facts, &mut memory, at(minute)).to;
    assert_eq!(to(0, &busy, 1), 2);
    assert_eq!(to(4, &busy, 2), 2);
    assert_eq!(to(5, &busy, 2), 3);
    // What has just been added is not taken away again, though the other rule never acted.
    let idle = facts(&[(Signal::Utilisation, 0.1), (Signal::MemoryShare, 0.2), (Signal::RequestRate, 3.0)]);
    assert_eq!(to(9, &idle, 3), 3);
    assert_eq!(to(10, &idle, 3), 2);
    // An emergency does not wait for the ten minutes of that one.
    let full = facts(&[(Signal::Utilisation, 0.99), (Signal::MemoryShare, 0.2), (Signal::RequestRate, 30.0)]);
    assert_eq!(to(11, &full, 2), 4);
    assert_eq!(to(12, &full, 4), 4);
    assert_eq!(to(13, &full, 4), 5);
}

#[test]
fn a_condition_must_hold_for_its_time() {
    let mut rules = default_rules();
    if let Some(arm) = &mut rules[1].up {
        arm.holds_for = MINUTE * 3;
    }
    let busy = facts(&[(Signal::Utilisation, 0.9), (Signal::MemoryShare, 0.2), (Signal::RequestRate, 80.0)]);
    let fine = facts(&[(Signal::Utilisation, 0.6), (Signal::MemoryShare, 0.2), (Signal::RequestRate, 30.0)]);
    let mut memory = Memory::default();
    let mut to = |minute, facts: &Facts| judge(&rules, "g", 1, facts, &mut memory, at(minute)).to;
    assert_eq!(to(0, &busy), 1);
    assert_eq!(to(2, &fine), 1);
    assert_eq!(to(3, &busy), 1);
    assert_eq!(to(5, &busy), 1);
    assert_eq!(to(6, &busy), 2);
}

#[test]
fn of_equal_weight_the_one_that_keeps_more_acts() {
    let rules = [
        rule("less", 1, None, Some(arm("request_rate < 50.0", 1, 1, 0, 9))),
        rule("more", 1, Some(arm("request_rate < 50.0", 1, 1, 0, 9)), None),
    ];
    check(&rules, 3, &facts(&[(Signal::RequestRate, 1.0)]), 4, Some("more"));
}

#[test]
fn a_rule_is_for_its_groups() {
    let mut rules = default_rules();
    for rule in &mut rules {
        rule.groups = vec!["other".to_owned()];
    }
    let judged = check(&rules, 2, &facts(&[(Signal::Utilisation, 0.99)]), 2, None);
    assert_eq!(judged.findings, []);
}

#[test]
fn one_rule_may_go_both_ways() {
    let cost = rule(
        "cost",
        10,
        Some(arm("cost_per_1000 < 0.01", 1, 5, 1, 4)),
        Some(arm("cost_per_1000 > 0.05", 1, 5, 1, 4)),
    );
    let with = |cost| facts(&[]).with("cost_per_1000", cost);
    check(std::slice::from_ref(&cost), 2, &with(Some(0.005)), 3, Some("cost"));
    check(std::slice::from_ref(&cost), 2, &with(Some(0.06)), 1, Some("cost"));
    check(std::slice::from_ref(&cost), 2, &with(Some(0.03)), 2, None);
    check(&[cost], 2, &with(None), 2, None);
}

#[test]
fn markets_are_facts_too() {
    let hours = rule(
        "trading hours",
        60,
        Some(arm("(market_open || market_opens_in < 900.0) && request_rate > 30.0", 1, 5, 2, 4)),
        None,
    );
    let rules = [hours];
    let asked = facts(&[(Signal::RequestRate, 40.0)]);
    check(&rules, 2, &asked.clone().with_truth("market_open", Some(true)), 3, Some("trading hours"));
    let soon = asked.clone().with_truth("market_open", Some(false)).with("market_opens_in", Some(600.0));
    check(&rules, 2, &soon, 3, Some("trading hours"));
    let later = asked.clone().with_truth("market_open", Some(false)).with("market_opens_in", Some(6000.0));
    check(&rules, 2, &later, 2, None);
    check(&rules, 2, &asked, 2, None);
}

#[track_caller]
fn check_refused(text: &str, expected: &str) {
    let err = Condition::new(text).expect_err("refused").to_string();
    assert!(err.contains(expected), "{err}");
}

#[test]
fn a_condition_that_says_nothing_is_refused() {
    check_refused("utilization > 0.9", "`utilization` is not known");
    check_refused("utilisation >", "is no expression");
    check_refused("utilisation + 1.0", "neither true nor false");
    check_refused("market_open > 1.0", "is no expression");
    check_refused("utilisation > 'x'", "is no expression");
    check_refused("foo(utilisation) > 1.0", "is no expression");
    check_refused("", "is no expression");
    check_refused("[0.5].exists(p95, p95 > 0.1)", "is no expression");
    // A list within a list within a list: there is an end to it, in hours.
    let names =
        ["p95", "demand", "machines", "queue_age", "in_flight", "tick_rate", "error_share", "cost_per_hour"];
    let within = |inner: String, name| format!("[1,2,3,4,5,6,7,8,9].all({name}, {inner})");
    check_refused(&names.into_iter().fold("true".to_owned(), within), "is no expression");
    check_refused(&"(".repeat(2000), "is no expression");
    check_refused(&"1".repeat(3000), "longer than");
}

#[test]
fn findings_read_as_sentences() {
    let idle = facts(&[(Signal::Utilisation, 0.1), (Signal::RequestRate, 3.0)]);
    let judged = check(&default_rules(), 2, &idle, 1, Some("low use"));
    let read: Vec<String> = judged.findings.iter().map(ToString::to_string).collect();
    assert_eq!(
        read,
        [
            "emergency (up): cannot be decided, not known: memory_share",
            "high use (up): its condition does not hold",
            "low use (down): acts: 1 machines",
        ]
    );
}
