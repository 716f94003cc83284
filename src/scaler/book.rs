//! What the scaler has heard of nodes, and what it has to tell them. Bounded, since anybody in the cluster may speak.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use jiff::Timestamp;
use peregrine_scaler::carry::Nodes;
use peregrine_scaler::fleet::Machine;
use peregrine_scaler::signal::{NodeReport, age};

use super::messages::{NodeVitals, Orders, Releases, measured};

/// Nodes that are remembered; more are not heard.
const NODES_MAX: usize = 2048;
/// A node that is silent for longer is forgotten.
const FORGET_AFTER: Duration = Duration::from_secs(600);
/// Longest name.
const NAME_LEN_MAX: usize = 128;

/// Longest name of a release.
const RELEASE_LEN_MAX: usize = 256;
/// Signals of one node, with those that only a newer program knows.
const SIGNALS_MAX: usize = 64;
/// Groups of which a release is remembered; a configuration has fewer.
const GROUPS_MAX: usize = 256;

/// All of it.
#[derive(Debug, Default)]
pub(crate) struct Book {
    nodes: BTreeMap<String, (Timestamp, NodeVitals)>,
    /// Machines whose nodes are to drain, by id and by slot.
    drains: BTreeSet<String>,
    /// What operators have said.
    pub(crate) releases: Releases,
}

impl Book {
    /// A node speaks; what it is told.
    pub(crate) fn hear(&mut self, mut vitals: NodeVitals, at: Timestamp) -> Orders {
        let releases = std::mem::take(&mut vitals.releases);
        if are_few(&releases) {
            self.releases.merge(&releases);
        }
        let is_told = |name: &str| self.drains.contains(name);
        let drain = is_told(&vitals.node) || vitals.machine.as_deref().is_some_and(is_told);
        let names = [Some(&vitals.node), Some(&vitals.region), vitals.machine.as_ref()];
        let fits = names.into_iter().flatten().all(|name| name.len() <= NAME_LEN_MAX)
            && vitals.measured.len() <= SIGNALS_MAX;
        if fits && (self.nodes.len() < NODES_MAX || self.nodes.contains_key(&vitals.node)) {
            self.nodes.insert(vitals.node.clone(), (at, vitals));
        }
        Orders { drain, releases: self.releases.clone() }
    }

    /// An operator says what machines of a group are to run from now on.
    ///
    /// # Errors
    /// That is no name of a release.
    pub(crate) fn order(&mut self, group: String, release: String, at: Timestamp) -> Result<(), String> {
        let is_word = |c: char| c.is_ascii_graphic();
        if release.is_empty() || release.len() > RELEASE_LEN_MAX || !release.chars().all(is_word) {
            return Err("a release is a word of up to 256 visible characters".to_owned());
        }
        let stamp = u64::try_from(at.as_millisecond()).unwrap_or(0);
        // Later than what was said before, whatever the clock of this node says.
        self.releases.stamp_ms = stamp.max(self.releases.stamp_ms.saturating_add(1));
        self.releases.by_group.insert(group, release);
        Ok(())
    }

    /// Forgets nodes that have long been silent.
    pub(crate) fn forget(&mut self, now: Timestamp) {
        self.nodes.retain(|_, (at, _)| age(now, *at).is_none_or(|age| age <= FORGET_AFTER));
    }

    /// What every node last said, by its machine and by its own name.
    pub(crate) fn reports(&self) -> BTreeMap<String, NodeReport> {
        let mut reports = BTreeMap::new();
        for (at, vitals) in self.nodes.values() {
            let report = report(*at, vitals);
            if let Some(machine) = &vitals.machine {
                reports.insert(machine.clone(), report.clone());
            }
            reports.insert(vitals.node.clone(), report);
        }
        reports
    }

    /// What nodes say that compute and run on none of these machines.
    pub(crate) fn fixed<'a>(&self, machines: impl Iterator<Item = &'a Machine>) -> Vec<NodeReport> {
        let known: BTreeSet<String> =
            machines.flat_map(|machine| [machine.id.0.clone(), machine.slot.to_string()]).collect();
        let is_fixed = |vitals: &NodeVitals| {
            vitals.computes
                && !known.contains(&vitals.node)
                && !vitals.machine.as_ref().is_some_and(|machine| known.contains(machine))
        };
        let said = self.nodes.values().filter(|(_, vitals)| is_fixed(vitals));
        said.map(|(at, vitals)| report(*at, vitals)).collect()
    }

    /// Where requests come from, in requests per second, as far as gateways have said of late.
    pub(crate) fn origins(&self, now: Timestamp, stale_after: Duration) -> BTreeMap<String, f64> {
        let mut origins = BTreeMap::new();
        let fresh = self.nodes.values().filter(|(at, _)| age(now, *at).is_some_and(|age| age <= stale_after));
        for (_, vitals) in fresh {
            if let Some(rate) = vitals.asked_here.filter(|rate| rate.is_finite() && *rate > 0.0) {
                *origins.entry(vitals.region.clone()).or_insert(0.0) += rate;
            }
        }
        origins
    }

    /// Requests per second that came to the whole cluster from callers; `None`: nobody has said of late.
    pub(crate) fn asked(&self, now: Timestamp, stale_after: Duration) -> Option<f64> {
        let fresh = self.nodes.values().filter(|(at, _)| age(now, *at).is_some_and(|age| age <= stale_after));
        let said = fresh.filter_map(|(_, vitals)| vitals.asked_here.filter(|rate| rate.is_finite()));
        said.reduce(|sum, rate| sum + rate)
    }

    /// Every node, with when it spoke.
    pub(crate) fn nodes(&self) -> impl Iterator<Item = &(Timestamp, NodeVitals)> {
        self.nodes.values()
    }

    /// What is wanted of machines that are no longer listed is forgotten.
    pub(crate) fn keep<'a>(&mut self, machines: impl Iterator<Item = &'a Machine>) {
        let known: BTreeSet<String> =
            machines.flat_map(|machine| [machine.id.0.clone(), machine.slot.to_string()]).collect();
        self.drains.retain(|name| known.contains(name));
    }
}

impl Nodes for Book {
    fn drain(&mut self, machine: &Machine, _: Timestamp) {
        self.drains.extend([machine.id.0.clone(), machine.slot.to_string()]);
    }

    fn undrain(&mut self, machine: &Machine, _: Timestamp) {
        self.drains.remove(&machine.id.0);
        self.drains.remove(&machine.slot.to_string());
    }
}

fn are_few(releases: &Releases) -> bool {
    // One that nothing is later than could never be taken back.
    releases.stamp_ms < u64::MAX
        && releases.by_group.len() <= GROUPS_MAX
        && releases
            .by_group
            .iter()
            .all(|(group, release)| group.len() <= NAME_LEN_MAX && release.len() <= RELEASE_LEN_MAX)
}

fn report(at: Timestamp, vitals: &NodeVitals) -> NodeReport {
    NodeReport {
        at,
        is_ready: vitals.is_ready,
        is_draining: vitals.is_draining,
        measured: measured(&vitals.measured),
    }
}

#[cfg(test)]
mod tests {
    use peregrine_scaler::fleet::{MachineId, MachineState, Slot};

    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + second).unwrap()
    }

    fn machine(id: &str, number: u32) -> Machine {
        Machine {
            id: MachineId(id.to_owned()),
            slot: Slot { group: "g".to_owned(), number },
            region: "iad".to_owned(),
            state: MachineState::Started,
            cordoned: false,
            release: "v1".to_owned(),
            created_at: at(0),
        }
    }

    fn vitals(node: &str, machine: Option<&str>, asked_here: f64) -> NodeVitals {
        NodeVitals {
            node: node.to_owned(),
            machine: machine.map(str::to_owned),
            region: "iad".to_owned(),
            computes: true,
            is_ready: true,
            asked_here: Some(asked_here),
            ..NodeVitals::default()
        }
    }

    #[test]
    fn a_node_is_known_by_its_machine_or_by_its_slot() {
        let mut book = Book::default();
        book.hear(vitals("g-0", None, 0.0), at(0));
        book.hear(vitals("x", Some("148e"), 0.0), at(0));
        book.hear(vitals("desk", None, 0.0), at(0));
        let machines = [machine("m0", 0), machine("148e", 1)];
        assert_eq!(book.fixed(machines.iter()).len(), 1, "the desk runs on no machine of a pool");
        let reports = book.reports();
        assert!(["g-0", "x", "148e", "desk"].iter().all(|name| reports.contains_key(*name)));
    }

    #[test]
    fn the_node_of_a_machine_that_goes_is_told_so_until_it_is_wanted_again() {
        let mut book = Book::default();
        let told = |book: &mut Book| {
            [
                book.hear(vitals("g-0", None, 0.0), at(0)).drain,
                book.hear(vitals("x", Some("148e"), 0.0), at(0)).drain,
            ]
        };
        assert_eq!(told(&mut book), [false, false]);
        book.drain(&machine("m0", 0), at(0));
        book.drain(&machine("148e", 1), at(0));
        assert_eq!(told(&mut book), [true, true]);
        book.undrain(&machine("m0", 0), at(0));
        assert_eq!(told(&mut book), [false, true]);
        book.keep([].iter());
        assert_eq!(told(&mut book), [false, false]);
    }

    #[test]
    fn requests_are_counted_where_they_come_in() {
        let mut book = Book::default();
        book.hear(vitals("a", None, 30.0), at(0));
        book.hear(vitals("b", None, 12.0), at(5));
        let mut far = vitals("c", None, f64::NAN);
        far.region = "fra".to_owned();
        book.hear(far, at(5));
        assert_eq!(book.origins(at(5), Duration::from_secs(30)), [("iad".to_owned(), 42.0)].into());
        assert_eq!(book.origins(at(33), Duration::from_secs(30)), [("iad".to_owned(), 12.0)].into());
        assert_eq!(book.asked(at(33), Duration::from_secs(30)), Some(12.0));
        assert_eq!(book.asked(at(99), Duration::from_secs(30)), None, "silence is not a demand of none");
        book.hear(vitals("a", None, 0.0), at(99));
        assert_eq!(book.asked(at(99), Duration::from_secs(30)), Some(0.0));
    }

    fn releases(stamp_ms: u64, group: &str, release: &str) -> Releases {
        Releases { stamp_ms, by_group: [(group.to_owned(), release.to_owned())].into() }
    }

    #[test]
    fn what_an_operator_says_is_later_than_all_that_nodes_have_heard() {
        let mut book = Book::default();
        let mut heard = |stamp_ms| {
            let releases = releases(stamp_ms, "g", "v1");
            book.hear(NodeVitals { releases, ..vitals("a", None, 0.0) }, at(0));
            let known = book.releases.stamp_ms;
            book.order("g".to_owned(), "v2".to_owned(), at(1)).unwrap();
            (known, book.releases.stamp_ms > known, book.releases.by_group["g"].clone())
        };
        let ahead = u64::MAX - 1;
        assert_eq!(heard(5), (5, true, "v2".to_owned()));
        let now = u64::try_from(at(1).as_millisecond()).unwrap();
        assert_eq!(heard(u64::MAX), (now, true, "v2".to_owned()), "nothing could be later");
        assert_eq!(heard(ahead), (ahead, true, "v2".to_owned()));
    }

    #[test]
    fn what_a_node_says_is_bounded() {
        let long = "x".repeat(RELEASE_LEN_MAX + 1);
        let mut book = Book::default();
        book.hear(vitals("a", Some(&long), 0.0), at(0));
        let measured = vec![(0, 1.0); SIGNALS_MAX + 1];
        book.hear(NodeVitals { measured, ..vitals("b", None, 0.0) }, at(0));
        assert_eq!(book.nodes().count(), 0);
        let many = (0..=GROUPS_MAX).map(|group| (format!("g{group}"), "v1".to_owned())).collect();
        for releases in
            [releases(7, "g", &long), releases(7, &long, "v1"), Releases { stamp_ms: 7, by_group: many }]
        {
            let told = book.hear(NodeVitals { releases, ..vitals("c", None, 0.0) }, at(0));
            assert_eq!((told.releases, &book.releases), (Releases::default(), &Releases::default()));
        }
        book.hear(NodeVitals { releases: releases(7, "g", "v1"), ..vitals("c", None, 0.0) }, at(0));
        assert_eq!(book.releases, releases(7, "g", "v1"));
        // Once is enough.
        assert!(book.nodes().all(|(_, vitals)| vitals.releases == Releases::default()));
    }

    #[test]
    fn the_book_is_bounded_and_forgets() {
        let mut book = Book::default();
        for number in 0..NODES_MAX + 10 {
            book.hear(vitals(&format!("n{number}"), None, 0.0), at(0));
        }
        book.hear(vitals(&"x".repeat(NAME_LEN_MAX + 1), None, 0.0), at(0));
        assert_eq!(book.nodes().count(), NODES_MAX);
        book.hear(vitals("n0", None, 0.0), at(500));
        book.forget(at(700));
        assert_eq!(book.nodes().count(), 1);
    }
}
