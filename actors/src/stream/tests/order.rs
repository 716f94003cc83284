use super::super::order::Order;
use super::*;

#[test]
fn numbers_that_rise_by_one_are_passed_on() {
    check("7 8 9", None, "7 8 9");
    check("7 8-10 11", None, "7 8-10 11");
}

#[test]
fn what_came_already_is_dropped() {
    check("7 8 7 8 9", None, "7 8 9");
    check("7 5-7 5-9 8-9 10", None, "7 8-9 10");
}

#[test]
fn a_new_owner_says_numbers_again_and_is_believed() {
    check("7 8 8' 9'", None, "7 8 8' 9'");
    check("7 8 7' 8 8'", None, "7 8 7' 8'");
    check("7 8' 9", None, "7 8'");
}

#[test]
fn a_hole_is_repaired_before_later_ones_are_passed_on() {
    check("7 10 11", Some("8 9 10"), "7 8 9 10 11");
    check("7 10", Some("8-9"), "7 8-9 10");
}

#[test]
fn what_a_repair_does_not_bring_is_lost() {
    check("7 10 11", Some(""), "7 8-9:lost 10 11");
    check("7 10 14 15", Some("8 9"), "7 8 9 10 11-13:lost 14 15");
    check("7 10 11", Some("9"), "7 8-8:lost 9 10 11");
}

#[test]
fn what_came_before_its_turn_costs_none_of_the_others() {
    check("7 10-10 8 9 11", Some(""), "7 8 9 10-10 11");
    check("7 11 9 10", Some(""), "7 8-8:lost 9 10 11");
}

#[test]
fn what_waits_for_a_repair_is_bounded() {
    let mut order = Order::new(stream("a"));
    let mut passed = Vec::new();
    for event in events("a", "1 3").into_iter().chain((4..400).map(|seq| event("a", &seq.to_string()))) {
        passed.extend(order.offer(event).events);
    }
    assert_eq!(words(&passed[..3]), "1 2-2:lost 3");
    assert_eq!(order.last(), Some(399));
}

#[test]
fn a_stream_that_began_elsewhere_notices_what_is_missing() {
    let mut order = Order::new(stream("a"));
    assert!(order.begin(5, 1));
    assert_eq!(order.offer(event("a", "5")).events.len(), 0);
    assert_eq!(order.offer(event("a", "8")).repair_from, Some(6));
    assert!(!order.begin(9, 1));
}

/// `repair` comes after all of `came`; `None`: it is never asked for.
#[track_caller]
fn check(came: &str, repair: Option<&str>, want: &str) {
    let mut order = Order::new(stream("a"));
    let (mut passed, mut asked) = (Vec::new(), None);
    for event in events("a", came) {
        let next = order.offer(event);
        passed.extend(next.events);
        asked = asked.or(next.repair_from);
    }
    assert_eq!(asked.is_some(), repair.is_some(), "asked from {asked:?}");
    if let Some(repair) = repair {
        passed.extend(order.repaired(events("a", repair)).events);
    }
    assert_eq!(words(&passed), want);
}
