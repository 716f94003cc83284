//! Verdicts by themselves, and among six nodes that gossip as chitchat does, on a clock of milliseconds.
//!
//! One node dies while another does not run for a while. Everything comes from one seed: rounds, whom they reach,
//! and who stalls when.

use std::collections::VecDeque;

use rand::rngs::StdRng;
use rand::seq::IteratorRandom as _;
use rand::{RngExt as _, SeedableRng as _};

use super::*;
use crate::cluster::Detector;
use crate::cluster::testing::{id, view};

const NODES: usize = 6;
/// Nodes that a round of chitchat reaches.
const FANOUT: usize = 3;
/// What is promised to a node that runs, and to one that did not from the end of its stall.
const KNOWN_MAX_MS: u64 = 1500;
const KNOWN_AFTER_STALL_MS: u64 = 300;
const HARM_MS: u64 = 3000;
const END_MS: u64 = 6000;
/// One that did not run for as long as the silence allowed would be missed rightly.
const STALL_MAX_MS: u64 = 750;

#[test]
fn whoever_runs_knows_in_time_and_whoever_did_not_soon_after() {
    for seed in 0..500 {
        let outcome = simulate(seed, true);
        assert!(!outcome.erred, "seed {seed}");
        for (node, known_ms) in outcome.known_ms.into_iter().enumerate().skip(1) {
            let stalled_ms = if node == 1 { outcome.stall_ms.end } else { 0 };
            let bound_ms = (HARM_MS + KNOWN_MAX_MS).max(stalled_ms + KNOWN_AFTER_STALL_MS);
            assert!(
                known_ms <= bound_ms,
                "seed {seed}: node {node} after {} ms, stalled {:?}",
                known_ms - HARM_MS,
                outcome.stall_ms
            );
        }
    }
}

#[test]
fn without_the_word_of_the_others_a_stall_costs_half_a_second_more() {
    let after = |seed| simulate(seed, false).known_ms.into_iter().skip(1).max().unwrap_or(0) - HARM_MS;
    let slowest_ms = (0..500).map(after).max().unwrap_or(0);
    assert!(slowest_ms > 1900, "{slowest_ms} ms");
}

#[test]
fn most_of_the_others_and_no_fewer_than_two() {
    check("a b c d e", &["b: e", "c: e"], "a b c d");
    check("a b c d e", &["b: e"], "a b c d e");
    check("a b c d e f", &["b: f", "c: f"], "a b c d e f");
    check("a b c", &["b: c"], "a b c");
    check("a b c d", &["b: a", "c: a", "d: a"], "a b c d");
    check("a b c d e", &["b: e", "e: e"], "a b c d e");
}

#[test]
fn a_later_life_is_not_the_one_that_is_missed() {
    let mut heard = view("a b c d").members;
    heard.get_mut(&id("d")).unwrap().incarnation = Incarnation(2);
    let misses = ["b", "c"].map(|witness| (id(witness), vec![(id("d"), Incarnation(1))])).into();
    let left = HashSet::new();
    let now = Instant::now();
    let members = verdicts(now).judge(&heard.clone(), Heard { members: heard, misses, left: &left }, now);
    assert!(members.contains_key(&id("d")));
}

#[test]
fn a_node_that_did_not_run_spares_the_silent_even_before_its_late_tick() {
    let (now, left) = (Instant::now(), HashSet::new());
    let mut verdicts = verdicts(now);
    let before = view("a b c").members;
    for (tick_ms, judge_ms, expected) in
        [(None, 501, (3, 0)), (Some(501), 502, (3, 0)), (Some(1000), 1100, (3, 0)), (None, 1101, (1, 2))]
    {
        let at = |ms| now + Duration::from_millis(ms);
        if let Some(ms) = tick_ms {
            verdicts.tick(at(ms));
        }
        let heard = Heard { members: view("a").members, misses: BTreeMap::new(), left: &left };
        let members = verdicts.judge(&before, heard, at(judge_ms));
        assert_eq!((members.len(), verdicts.missed().count()), expected, "at {judge_ms} ms");
    }
}

#[test]
fn whoever_is_heard_again_is_missed_no_more() {
    let (now, left) = (Instant::now(), HashSet::new());
    let mut verdicts = verdicts(now);
    let mut members = view("a b").members;
    for (heard, missed) in [("a", 1), ("a", 1), ("a b", 0)] {
        let heard = Heard { members: view(heard).members, misses: BTreeMap::new(), left: &left };
        members = verdicts.judge(&members, heard, now);
        assert_eq!(verdicts.missed().count(), missed);
    }
}

fn verdicts(now: Instant) -> Verdicts {
    Verdicts::new(id("a"), Duration::from_secs(60), now)
}

/// What node `a` makes of whom it hears, where each says whom it misses.
#[track_caller]
fn check(heard: &str, misses: &[&str], expected: &str) {
    let misses = (misses.iter())
        .filter_map(|said| said.split_once(": "))
        .map(|(witness, missed)| {
            (id(witness), missed.split(' ').map(|id_| (id(id_), Incarnation(1))).collect())
        })
        .collect();
    let (now, left, heard) = (Instant::now(), HashSet::new(), view(heard).members);
    let members = verdicts(now).judge(&heard.clone(), Heard { members: heard, misses, left: &left }, now);
    assert_eq!(members, view(expected).members);
}

struct Outcome {
    /// When each node had none of the dead one.
    known_ms: Vec<u64>,
    /// Somebody was missed who was there.
    erred: bool,
    stall_ms: std::ops::Range<u64>,
}

/// Node 0 dies, node 1 stalls.
fn simulate(seed: u64, words: bool) -> Outcome {
    let mut rng = StdRng::seed_from_u64(seed);
    let stall_start = rng.random_range(HARM_MS - 300..HARM_MS + 1300);
    let stall_ms = stall_start..stall_start + rng.random_range(0..STALL_MAX_MS);
    let start = Instant::now();
    let mut nodes: Vec<Node> = (0..NODES).map(|at| Node::new(at, &mut rng, start)).collect();
    let mut erred = false;
    for now_ms in 1..END_MS {
        let mut sent = Vec::new();
        for node in &mut nodes {
            let dead = node.at == 0 && now_ms >= HARM_MS;
            if dead || (node.at == 1 && stall_ms.contains(&now_ms)) {
                continue;
            }
            sent.extend(node.run(now_ms, words, &mut rng, start));
            erred |= node.at != 0
                && now_ms > 1000
                && (1..NODES).any(|other| !node.view.contains_key(&name(other)));
            if now_ms >= HARM_MS && node.known_ms.is_none() && !node.view.contains_key(&name(0)) {
                node.known_ms = Some(now_ms);
            }
        }
        sent.into_iter().for_each(|(to, mail)| nodes[to].inbox.push_back(mail));
    }
    let known_ms = nodes.iter().map(|node| node.known_ms.unwrap_or(END_MS)).collect();
    Outcome { known_ms, erred, stall_ms }
}

fn name(at: usize) -> NodeId {
    id(["a", "b", "c", "d", "e", "f"][at])
}

/// What a node knows of another.
#[derive(Clone, Default)]
struct Known {
    heartbeat: u64,
    heard_ms: u64,
    /// Between its last two news; none: it is not counted alive.
    interval_ms: Option<u64>,
    said: u64,
    misses: Vec<Life>,
}

/// The three messages of one exchange: news of heartbeats, and from the second on of what each says.
#[derive(Clone, Copy, PartialEq)]
enum Step {
    Syn,
    SynAck,
    Ack,
}

type Mail = (usize, Step, Vec<Known>);

struct Node {
    at: usize,
    known: Vec<Known>,
    live: Vec<bool>,
    next_round_ms: u64,
    next_tick_ms: u64,
    inbox: VecDeque<Mail>,
    verdicts: Verdicts,
    view: Members,
    known_ms: Option<u64>,
}

impl Node {
    fn new(at: usize, rng: &mut StdRng, start: Instant) -> Self {
        Self {
            at,
            known: vec![Known { interval_ms: Some(30), ..Known::default() }; NODES],
            live: vec![true; NODES],
            next_round_ms: rng.random_range(1..=100),
            next_tick_ms: rng.random_range(1..=100),
            inbox: VecDeque::new(),
            verdicts: Verdicts::new(name(at), Duration::from_secs(60), start),
            view: view("a b c d e f").members,
            known_ms: None,
        }
    }

    /// Everything that is due; what it sends. The rounds that it is late for come first, which is the worst order.
    fn run(&mut self, now_ms: u64, words: bool, rng: &mut StdRng, start: Instant) -> Vec<(usize, Mail)> {
        let mut sent = Vec::new();
        let mut looked = false;
        let interval_ms = Detector::default().gossip_interval.as_millis() as u64;
        while self.next_round_ms <= now_ms {
            self.next_round_ms += interval_ms;
            self.known[self.at].heartbeat += 1;
            let others = (0..NODES).filter(|&other| other != self.at && self.live[other]);
            for to in others.sample(rng, FANOUT) {
                sent.push((to, (self.at, Step::Syn, self.known.clone())));
            }
            let live: Vec<bool> =
                (0..NODES).map(|other| other == self.at || self.is_live(other, now_ms)).collect();
            for other in (0..NODES).filter(|&other| !live[other]) {
                self.known[other].interval_ms = None;
            }
            looked |= live != self.live;
            self.live = live;
        }
        while let Some((from, step, known)) = self.inbox.pop_front() {
            self.merge(&known, step, now_ms);
            let answer = match step {
                Step::Syn => Step::SynAck,
                Step::SynAck => Step::Ack,
                Step::Ack => continue,
            };
            sent.push((from, (self.at, answer, self.known.clone())));
        }
        let now = start + Duration::from_millis(now_ms);
        if self.next_tick_ms <= now_ms {
            self.next_tick_ms = now_ms + TICK.as_millis() as u64;
            self.verdicts.tick(now);
            looked = true;
        }
        if looked {
            self.judge(words, now);
        }
        sent
    }

    /// As `Detector` has chitchat judge.
    fn is_live(&self, other: usize, now_ms: u64) -> bool {
        let silence_max_ms = Detector::default().silence_max.as_millis() as u64;
        let known = &self.known[other];
        known.interval_ms.is_some_and(|last_ms| (now_ms - known.heard_ms) * 5 <= last_ms + 5 * silence_max_ms)
    }

    fn merge(&mut self, news: &[Known], step: Step, now_ms: u64) {
        for other in (0..NODES).filter(|&other| other != self.at) {
            let (mine, its) = (&mut self.known[other], &news[other]);
            if its.heartbeat > mine.heartbeat {
                let interval_ms = now_ms - mine.heard_ms;
                if interval_ms <= Detector::default().silence_max.as_millis() as u64 {
                    mine.interval_ms = Some(interval_ms);
                }
                (mine.heartbeat, mine.heard_ms) = (its.heartbeat, now_ms);
            }
            if step != Step::Syn && its.said > mine.said {
                (mine.said, mine.misses) = (its.said, its.misses.clone());
            }
        }
    }

    fn judge(&mut self, words: bool, now: Instant) {
        let all = view("a b c d e f").members;
        let is_heard = |id: &NodeId| (0..NODES).any(|at| self.live[at] && name(at) == *id);
        let heard: Members = all.into_iter().filter(|(id, _)| is_heard(id)).collect();
        let misses = (0..NODES)
            .filter(|&at| words && self.live[at])
            .map(|at| (name(at), self.known[at].misses.clone()))
            .collect();
        let left = HashSet::new();
        self.view = self.verdicts.judge(&self.view, Heard { members: heard, misses, left: &left }, now);
        let missed: Vec<Life> = self.verdicts.missed().map(|(id, life)| (id.clone(), life)).collect();
        let myself = &mut self.known[self.at];
        if myself.misses != missed {
            (myself.said, myself.misses) = (myself.said + 1, missed);
        }
    }
}
