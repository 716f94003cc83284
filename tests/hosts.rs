//! Clusters whose nodes are hosts of a private IPv6 network: what a network does to them. Needs root.

use std::time::Duration;

use crate::harness::{Fleet, Hosts, Load, Post, took};

const MODEL: &str = "nbeats-vol-quantile";
const WINDOW: usize = 64;
const DEADLINE: Duration = Duration::from_secs(5);
const CLIENTS: usize = 2;

/// From a cut to a way around it, and from healing to the direct way.
const REROUTED_WITHIN: Duration = Duration::from_secs(2);

const POSTS: [Post<'static>; 3] = [
    Post { name: "a", region: "fra", roles: &["gateway"] },
    Post { name: "b", region: "iad", roles: &["inference"] },
    Post { name: "c", region: "nrt", roles: &["inference"] },
];

fn load(fleet: &Fleet<'_>) -> Load {
    Load::of(fleet.addr("a"), MODEL, WINDOW, DEADLINE)
}

/// b answers, c when b cannot.
const B_FIRST: &[(&str, &str)] = &[("PLACEMENT__NBEATS-VOL-QUANTILE__STANDBY", r#"["nrt"]"#)];
/// Only b has the model.
const B_ALONE: &[(&str, &str)] = &[("PLACEMENT__NBEATS-VOL-QUANTILE__REGIONS", r#"["iad"]"#)];

#[test]
fn a_host_that_vanishes_costs_no_answer() {
    let hosts = Hosts::new(&["a", "b", "c"]);
    let fleet = Fleet::start(Some(&hosts), &POSTS, B_FIRST);
    let load = load(&fleet);
    load.during(CLIENTS, |load| {
        assert!(load.next(100).count("remote:iad") >= 100);
        for (from, to) in [("a", "b"), ("b", "a"), ("b", "c"), ("c", "b")] {
            hosts.cut(from, to);
        }
        let cut = load.next(200);
        assert!(cut.refusals().is_empty() && cut.slowest < DEADLINE, "{cut:?}");
        assert!(cut.count("remote:nrt") > 0, "{cut:?}");
        took("the others have noticed", || fleet.members("a").len() == 2 && fleet.members("c").len() == 2);
        for (from, to) in [("a", "b"), ("b", "a"), ("b", "c"), ("c", "b")] {
            hosts.heal(from, to);
        }
        took("it answers again", || load.next(20).count("remote:iad") > 0);
        assert!(load.seen().refusals().is_empty());
    });
}

/// a and b do not reach each other, both reach c: requests go through c, and directly again after healing.
#[test]
fn a_partial_partition_is_bypassed() {
    bypassed(&[("a", "b"), ("b", "a")]);
}

/// Only the way from a to b is cut.
#[test]
fn an_asymmetric_cut_is_bypassed() {
    bypassed(&[("a", "b")]);
}

/// Least MTU of IPv6, and that of some tunnels.
const NARROW: u16 = 1280;
/// Their windows fill several packets of any size that a network has.
const SERIES: usize = 32;

#[test]
fn hosts_behind_a_narrow_path_meet() {
    let hosts = Hosts::new(&["a", "b", "c"]);
    ["a", "b", "c"].iter().for_each(|name| hosts.narrow(name, NARROW));
    works_across(&Fleet::start(Some(&hosts), &POSTS, B_ALONE));
}

/// No host but b knows, and nothing says so: what is too long for b vanishes.
#[test]
fn a_host_behind_a_narrow_path_is_met() {
    let hosts = Hosts::new(&["a", "b", "c"]);
    hosts.narrow("b", NARROW);
    works_across(&Fleet::start(Some(&hosts), &POSTS, B_ALONE));
}

#[test]
fn a_path_that_becomes_narrow_costs_no_answer() {
    let hosts = Hosts::new(&["a", "b", "c"]);
    let fleet = Fleet::start(Some(&hosts), &POSTS, B_ALONE);
    works_across(&fleet);
    hosts.narrow("b", NARROW);
    works_across(&fleet);
}

#[track_caller]
fn works_across(fleet: &Fleet<'_>) {
    let load = Load::of_many(fleet.addr("a"), MODEL, WINDOW, SERIES, DEADLINE);
    load.during(CLIENTS, |load| {
        let seen = load.next(50);
        assert!(seen.refusals().is_empty() && seen.count("remote:iad") >= 50, "{seen:?}");
    });
    assert_eq!(fleet.metric("a", "peregrine_detours_total"), 0.0);
}

fn bypassed(ways: &[(&str, &str)]) {
    let hosts = Hosts::new(&["a", "b", "c"]);
    let fleet = Fleet::start(Some(&hosts), &POSTS, B_ALONE);
    let load = load(&fleet);
    load.during(CLIENTS, |load| {
        assert!(load.next(100).count("remote:iad") >= 100);
        assert_eq!(fleet.metric("a", "peregrine_detours_total"), 0.0);
        ways.iter().for_each(|(from, to)| hosts.cut(from, to));
        let found = took("requests go through c", || fleet.metric("a", "peregrine_detours_total") > 0.0);
        let around = took("b answers", || load.next(10).refusals().is_empty());
        assert!(found + around < REROUTED_WITHIN + Duration::from_millis(500), "{found:?} + {around:?}");
        let cut = load.next(100);
        assert!(cut.refusals().is_empty() && cut.count("remote:iad") >= 100, "{cut:?}");
        assert_eq!(fleet.members("a").len(), 3, "nobody is taken for dead");
        ways.iter().for_each(|(from, to)| hosts.heal(from, to));
        fleet.awaits("a", 3);
        fleet.awaits("b", 3);
        let before = fleet.metric("a", "peregrine_detours_total");
        let direct = load.next(100);
        assert!(direct.refusals().is_empty() && direct.count("remote:iad") >= 100, "{direct:?}");
        assert_eq!(fleet.metric("a", "peregrine_detours_total"), before, "the direct way is taken");
    });
}
