//! Clusters whose nodes are hosts of a private IPv6 network: what a network does to them. Needs root.

use std::time::Duration;

use crate::harness::{Fleet, Hosts, Load, Post, took};

const MODEL: &str = "nbeats-vol-quantile";
const WINDOW: usize = 64;
const DEADLINE: Duration = Duration::from_secs(5);
const CLIENTS: usize = 2;

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
