//! Failures as numbers, verdicts as words.

use std::time::{Duration, Instant};

use crate::supervision::policy::{Backoff, Budget, Escalate, Policy, ROOT, Rules, Strategy, Verdict};

const RULES: Rules = Rules {
    budget: Budget { restarts_max: 2, within: Duration::from_secs(10) },
    backoff: Backoff { base: Duration::from_millis(100), max: Duration::from_millis(350), jitter: 0.0 },
    when_spent: Escalate::Parent,
};

#[test]
fn failures_within_the_budget_restart_with_growing_waits() {
    check(&flat(RULES), &[(1, 0), (1, 1)], &["1..2 after 100", "1..2 after 200"]);
}

#[test]
fn one_failure_too_many_at_the_root_stops_the_node() {
    check(&flat(RULES), &[(1, 0), (1, 1), (1, 2)], &["1..2 after 100", "1..2 after 200", "stop node"]);
}

#[test]
fn failures_out_of_the_window_are_forgotten() {
    check(&flat(RULES), &[(1, 0), (1, 1), (1, 11)], &["1..2 after 100", "1..2 after 200", "1..2 after 200"]);
}

#[test]
fn budgets_are_counted_for_each_child() {
    check(
        &flat(RULES),
        &[(0, 0), (1, 0), (0, 1), (1, 1)],
        &["0..1 after 100", "1..2 after 100", "0..1 after 200", "1..2 after 200"],
    );
}

#[test]
fn a_child_may_be_left_down() {
    let rules = Rules { when_spent: Escalate::LeaveDown, budget: NONE, ..RULES };
    check(&flat(rules), &[(2, 0)], &["2..3 down"]);
}

#[test]
fn a_child_may_stop_the_node_past_its_parents() {
    let rules = Rules { when_spent: Escalate::StopNode, budget: NONE, ..RULES };
    check(&nested(Strategy::OneForOne, rules), &[(2, 0)], &["stop node"]);
}

#[test]
fn one_for_all_restarts_the_group() {
    check(&nested(Strategy::OneForAll, RULES), &[(2, 0)], &["1..4 after 100"]);
}

#[test]
fn rest_for_one_restarts_the_rest_of_the_group() {
    check(&nested(Strategy::RestForOne, RULES), &[(2, 0)], &["2..4 after 100"]);
}

#[test]
fn a_spent_budget_restarts_the_group_and_then_begins_anew() {
    check(
        &nested(Strategy::OneForOne, RULES),
        &[(2, 0), (2, 0), (2, 0), (2, 0)],
        &["2..3 after 100", "2..3 after 200", "1..4 after 100", "2..3 after 100"],
    );
}

#[test]
fn a_group_that_spends_its_own_budget_stops_the_node() {
    let rules = Rules { budget: NONE, ..RULES };
    check(
        &nested(Strategy::OneForOne, rules),
        &[(2, 0), (3, 1), (1, 2)],
        &["1..4 after 100", "1..4 after 200", "stop node"],
    );
}

#[test]
fn waits_double_up_to_the_longest() {
    let delays_ms = [1, 2, 3, 4, 40].map(|count| RULES.backoff.delay(count, 0.5).as_millis());
    assert_eq!(delays_ms, [100, 200, 350, 350, 350]);
}

#[test]
fn jitter_takes_off_no_more_than_its_share() {
    let backoff = Backoff { jitter: 0.4, ..RULES.backoff };
    let delays_ms = [0.0, 0.5, 1.0].map(|roll| backoff.delay(1, roll).as_millis());
    assert_eq!(delays_ms, [100, 80, 60]);
}

const NONE: Budget = Budget { restarts_max: 0, within: Duration::from_secs(10) };

/// Builds the tree of one test anew.
type Shape = Box<dyn Fn() -> Policy>;

/// Three actors under the root.
fn flat(rules: Rules) -> Shape {
    Box::new(move || {
        let mut policy = Policy::new(Strategy::OneForOne, 1);
        (0..3).for_each(|_| policy.add_actor(ROOT, rules));
        policy
    })
}

/// Actor 0 and 4 under the root, 1 to 3 in a group between them.
fn nested(strategy: Strategy, rules: Rules) -> Shape {
    Box::new(move || {
        let mut policy = Policy::new(Strategy::OneForOne, 1);
        policy.add_actor(ROOT, RULES);
        let group = policy.add_group(ROOT, RULES, strategy);
        (0..3).for_each(|_| policy.add_actor(group, rules));
        policy.add_actor(ROOT, RULES);
        policy
    })
}

#[track_caller]
fn check(shape: &Shape, failures: &[(usize, u64)], expected: &[&str]) {
    let start = Instant::now();
    let mut policy = shape();
    let verdicts: Vec<String> = failures
        .iter()
        .map(|&(actor, at_s)| match policy.on_failure(actor, start + Duration::from_secs(at_s)) {
            Verdict::Restart { actors, after } => format!("{actors:?} after {}", after.as_millis()),
            Verdict::LeaveDown { actors } => format!("{actors:?} down"),
            Verdict::StopNode => "stop node".to_owned(),
        })
        .collect();
    assert_eq!(verdicts, expected);
}
