//! The nodes, the network between them and what befalls them.

mod queue;
mod trouble;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use crate::cluster::drain::{Drain, DrainAction, Rest};
use crate::cluster::lease::LeaseMessage;
use crate::cluster::shard::Fate as SendFate;
use crate::cluster::shard::{
    Action, Answer, Delivery, Owner, Sender, SenderLimits, Sending, ShardId, ShardMessage, ShardSpec,
};
use queue::Queued;

use crate::cluster::sim::checks::{Ledger, Life, Note};
use crate::cluster::singleton::{Singleton, SingletonAction, SingletonSpec, SingletonState};
use crate::cluster::testing::{id, member, view_of};
use crate::cluster::{Incarnation, Member, NodeId, Standing, View};

const BEAT_US: u64 = 100_000;
const DETECT_US: u64 = 600_000;
const TROUBLE_US: u64 = 12_000_000;
const HEALED_US: u64 = 16_000_000;
const END_US: u64 = 26_000_000;
const ASK_US: u64 = 3_000_000;
const DRAIN: Duration = Duration::from_secs(5);

/// What may befall a cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Chaos {
    /// Kills, freezes, cuts of every kind, loss, drains.
    Everything,
    /// Only drains and restarts, one after the other.
    Drains,
}

pub(super) struct Setup {
    pub(super) chaos: Chaos,
    pub(super) spec: ShardSpec,
    /// Of all nodes, unless it is set wrong on purpose.
    pub(super) electorate: Option<usize>,
}

#[derive(Clone, Debug)]
enum Wire {
    Beat { life: u64, draining: bool },
    Goodbye,
    Shard(ShardMessage<Note>),
    Single(LeaseMessage),
    Deliver(Delivery<Note>),
    Answer(ShardId, u64, Answer),
    Reply(u64),
}

enum Event {
    Arrive { from: usize, to: usize, wire: Box<Wire> },
    Wake(usize),
    Beat(usize),
    Done { life: Life, note: Note },
    Stopped(Life),
    Ask,
    Trouble,
    Heal,
    Restart(usize),
    EndAsk(u64),
}

struct Node {
    life: u64,
    up: Option<Machines>,
    frozen_until: u64,
    heard: BTreeMap<usize, (u64, bool, u64)>,
    woken_at: u64,
}

struct Machines {
    owner: Owner<Note>,
    sender: Sender<Note>,
    singleton: Singleton,
    drain: Drain,
    view: View,
    names: BTreeMap<u64, u64>,
}

pub(super) struct World {
    setup: Setup,
    rng: StdRng,
    base: Instant,
    now: u64,
    seq: u64,
    queue: BinaryHeap<Reverse<Queued>>,
    nodes: Vec<Node>,
    cut: Vec<Vec<bool>>,
    last_arrival: Vec<Vec<u64>>,
    loss: f64,
    slow_us: u64,
    pub(super) ledger: Ledger,
    ids: u64,
    broken: Option<String>,
}

impl World {
    pub(super) fn new(seed: u64, mut setup: Setup) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        let count = rng.random_range(5..=7);
        setup.spec.lease.electorate = count;
        let node = || Node { life: 0, up: None, frozen_until: 0, heard: BTreeMap::new(), woken_at: 0 };
        let mut world = Self {
            rng,
            base: Instant::now(),
            now: 0,
            seq: 0,
            queue: BinaryHeap::new(),
            nodes: (0..count).map(|_| node()).collect(),
            cut: vec![vec![false; count]; count],
            last_arrival: vec![vec![0; count]; count],
            loss: if setup.chaos == Chaos::Everything { 0.01 } else { 0.0 },
            slow_us: 0,
            ledger: Ledger::default(),
            ids: 0,
            broken: None,
            setup,
        };
        (0..count).for_each(|node| world.at(0, Event::Restart(node)));
        world.at(3_000_000, Event::Ask);
        world.at(4_000_000, Event::Trouble);
        world.at(HEALED_US, Event::Heal);
        world
    }

    /// What was counted, or the rule that was broken.
    pub(super) fn run(mut self) -> Result<[usize; 4], String> {
        while let Some(Reverse(Queued(at, seq, event))) = self.queue.pop() {
            if at > END_US {
                break;
            }
            self.now = at;
            self.handle(event, seq);
            self.check_singleton();
            if let Some(broken) = self.broken {
                return Err(format!("at {} ms: {broken}", at / 1_000));
            }
        }
        self.settle()?;
        Ok(self.ledger.counts())
    }

    fn at(&mut self, at: u64, event: Event) {
        self.seq += 1;
        self.queue.push(Reverse(Queued(at, self.seq, event)));
    }

    fn instant(&self) -> Instant {
        self.base + Duration::from_micros(self.now)
    }

    fn handle(&mut self, event: Event, seq: u64) {
        let node = match &event {
            Event::Arrive { to, .. } => Some(*to),
            Event::Wake(node) | Event::Beat(node) => Some(*node),
            Event::Done { life, .. } | Event::Stopped(life) => Some(life.0),
            _ => None,
        };
        // A frozen node does nothing; what comes waits for it, in order, however often the freeze is prolonged.
        if let Some(until) = node.map(|node| self.nodes[node].frozen_until).filter(|until| *until > self.now)
        {
            return self.queue.push(Reverse(Queued(until, seq, event)));
        }
        match event {
            Event::Arrive { from, to, wire } => self.arrive(from, to, *wire),
            Event::Wake(node) => {
                self.with(node, |up, now| {
                    let mut out = Out::default();
                    out.shards.extend(up.owner.tick(now));
                    out.single.extend(up.singleton.tick(now));
                    out
                });
            }
            Event::Beat(node) => self.beat(node),
            Event::Done { life, note } if self.is_alive(life) => {
                self.post(life.0, note.origin.0, Wire::Reply(note.id));
                self.with(life.0, |up, now| Out::shards(up.owner.done(ShardId(note.shard), now).1));
            }
            Event::Stopped(life) if self.is_alive(life) => {
                self.with(life.0, |up, now| Out::single(up.singleton.on_stopped(now)));
            }
            Event::Done { .. } | Event::Stopped(_) => {}
            Event::Ask => self.ask(),
            Event::EndAsk(id) => {
                if self.ledger.open(id) {
                    self.ledger.ended(id);
                }
            }
            Event::Trouble => self.trouble(),
            Event::Heal => {
                self.cut.iter_mut().flatten().for_each(|cut| *cut = false);
                (self.loss, self.slow_us) = (0.0, 0);
                for node in 0..self.nodes.len() {
                    self.at(self.now, Event::Restart(node));
                }
            }
            Event::Restart(node) => self.restart(node),
        }
    }

    fn is_alive(&self, (node, life): Life) -> bool {
        self.nodes[node].up.is_some() && self.nodes[node].life == life
    }

    fn restart(&mut self, node: usize) {
        if self.nodes[node].up.is_some() {
            return;
        }
        self.nodes[node].life += 1;
        let life = Incarnation(self.nodes[node].life);
        let (me, now) = (name(node), self.instant());
        let mut spec = self.setup.spec.clone();
        spec.lease.electorate = self.setup.electorate.unwrap_or(spec.lease.electorate);
        let limits = SenderLimits { window: 8, waiting_max: 500, answer_max: Duration::from_secs(2) };
        let single = SingletonSpec { name: "scaler".into(), role: None, lease: spec.lease };
        // Grows with time, as the seconds of a real start do.
        let floor = self.now / 1_000;
        self.nodes[node].heard.clear();
        self.nodes[node].up = Some(Machines {
            owner: Owner::new(spec.clone(), me.clone(), life, floor, now),
            sender: Sender::new(spec, limits),
            singleton: Singleton::new(single, me, life, floor, now),
            drain: Drain::Serving,
            view: View::default(),
            names: BTreeMap::new(),
        });
        self.at(self.now, Event::Beat(node));
    }

    fn beat(&mut self, node: usize) {
        let life = self.nodes[node].life;
        let Some(up) = &self.nodes[node].up else { return };
        let draining = up.drain != Drain::Serving;
        for to in (0..self.nodes.len()).filter(|to| *to != node) {
            self.post(node, to, Wire::Beat { life, draining });
        }
        self.look(node);
        let in_flight = self.nodes[node].up.as_ref().map_or(0, |up| up.sender.open());
        let mut leaves = false;
        self.with(node, |up, now| {
            let mut out = Out { sends: up.sender.tick(now), ..Out::default() };
            let unfinished = up.owner.unfinished();
            let singletons = match up.singleton.state() {
                SingletonState::Standby | SingletonState::Claiming => 0,
                SingletonState::Acting { .. } | SingletonState::Stopping { .. } => 1,
            };
            let rest =
                Rest { in_flight, shards: unfinished.shards, messages: unfinished.messages, singletons };
            if let Some(DrainAction::Leave(_)) = up.drain.poll(rest, now) {
                out.shards.extend(up.owner.leave(now));
                leaves = true;
            }
            out
        });
        if leaves {
            (0..self.nodes.len()).for_each(|to| self.post(node, to, Wire::Goodbye));
            self.nodes[node].up = None;
            let after = self.rng.random_range(100_000..2_000_000);
            return self.at(self.now + after, Event::Restart(node));
        }
        self.at(self.now + BEAT_US, Event::Beat(node));
    }

    /// The detector: who was heard of lately is a member.
    fn look(&mut self, node: usize) {
        let now_us = self.now;
        let Node { heard, life, up, .. } = &mut self.nodes[node];
        let Some(up) = up else { return };
        heard.retain(|_, (_, _, at)| *at + DETECT_US > now_us);
        let mut members = vec![known(node, *life, up.drain != Drain::Serving)];
        members.extend(heard.iter().map(|(&other, &(life, draining, _))| known(other, life, draining)));
        let view = View { revision: 0, ..view_of(members) };
        if view == up.view {
            return;
        }
        up.view = view;
        self.with(node, |up, now| {
            let view = up.view.clone();
            Out {
                shards: up.owner.on_view(&view, now),
                single: up.singleton.on_view(&view, now),
                sends: up.sender.on_view(&view, now),
            }
        });
    }

    fn arrive(&mut self, from: usize, to: usize, wire: Wire) {
        if self.nodes[to].up.is_none() {
            return;
        }
        let sender = name(from);
        match wire {
            Wire::Beat { life, draining } => {
                let now = self.now;
                let heard = self.nodes[to].heard.entry(from).or_insert((life, draining, now));
                if heard.0 <= life {
                    *heard = (life, draining, now);
                }
                self.look(to);
            }
            Wire::Goodbye => {
                self.nodes[to].heard.remove(&from);
                self.look(to);
            }
            Wire::Shard(message) => {
                self.with(to, |up, now| Out::shards(up.owner.on_message(&sender, message, now)));
            }
            Wire::Single(message) => {
                self.with(to, |up, now| Out::single(up.singleton.on_message(&sender, &message, now)));
            }
            Wire::Deliver(delivery) => {
                let now = self.instant();
                let (shard, ask, note, life) =
                    (delivery.shard, delivery.id, delivery.message, self.nodes[to].life);
                let Some(up) = &mut self.nodes[to].up else { return };
                let (answer, back) = up.owner.deliver(delivery, now);
                if back.is_none() {
                    self.ledger.accepted(note, (to, life));
                }
                self.post(to, from, Wire::Answer(shard, ask, answer));
                self.with(to, |_, _| Out::default());
            }
            Wire::Answer(shard, ask, answer) => {
                self.with(to, |up, now| Out {
                    sends: up.sender.on_answer(&sender, shard, ask, answer, now),
                    ..Out::default()
                });
            }
            Wire::Reply(id) => {
                if self.ledger.open(id) {
                    self.ledger.ended(id);
                }
            }
        }
    }

    fn ask(&mut self) {
        if self.now < HEALED_US + 3_000_000 {
            let pause = self.rng.random_range(2_000..14_000);
            self.at(self.now + pause, Event::Ask);
        }
        let node = self.rng.random_range(0..self.nodes.len());
        let shard = self.rng.random_range(0..self.setup.spec.shard_count);
        if self.nodes[node].frozen_until > self.now {
            return;
        }
        let origin = (node, self.nodes[node].life);
        let Some(up) = self.nodes[node].up.as_ref().filter(|up| up.drain.accepts()) else { return };
        if up.view.members.len() < 2 {
            return;
        }
        self.ids += 1;
        let note = Note { id: self.ids, origin, shard };
        self.ledger.asked(note);
        let deadline = self.instant() + Duration::from_micros(ASK_US);
        self.at(self.now + ASK_US + 1, Event::EndAsk(note.id));
        self.with(node, |up, now| {
            // The name comes first: the answer to a message may be part of sending it.
            let (name, sends) = up.sender.send(ShardId(shard), note, deadline, now);
            up.names.insert(name, note.id);
            Out { sends, ..Out::default() }
        });
    }

    fn post(&mut self, from: usize, to: usize, wire: Wire) {
        if let Wire::Shard(ShardMessage::Transfer(transfer)) = &wire {
            for note in &transfer.batch {
                self.ledger.carried(*note, (to, transfer.to.0));
            }
        }
        if from != to && (self.cut[from][to] || self.rng.random_bool(self.loss)) {
            return;
        }
        let delay = self.rng.random_range(200..5_000) + self.rng.random_range(0..=self.slow_us);
        let at = (self.now + delay).max(self.last_arrival[from][to]);
        self.last_arrival[from][to] = at;
        self.at(at, Event::Arrive { from, to, wire: Box::new(wire) });
    }

    /// Lets the machines of a node do something, and does what they say.
    fn with(&mut self, node: usize, act: impl FnOnce(&mut Machines, Instant) -> Out) {
        let now = self.instant();
        let Some(up) = &mut self.nodes[node].up else { return };
        let out = act(up, now);
        let life = (node, self.nodes[node].life);
        for action in out.shards {
            match action {
                Action::Send(to, message) => self.post(node, number(&to), Wire::Shard(message)),
                Action::Failed(lost) => {
                    for note in lost.messages {
                        self.ledger.reported(note);
                    }
                }
                Action::Gained { .. } | Action::Ended { .. } => {}
            }
        }
        for action in out.single {
            match action {
                SingletonAction::Send(to, message) => self.post(node, number(&to), Wire::Single(message)),
                SingletonAction::Stop { .. } => {
                    let after = self.rng.random_range(0..50_000);
                    self.at(self.now + after, Event::Stopped(life));
                }
                SingletonAction::Start { .. } | SingletonAction::Holds(_) => {}
            }
        }
        for sending in out.sends {
            match sending {
                Sending::Send(to, delivery) => self.post(node, number(&to), Wire::Deliver(delivery)),
                Sending::Ended { id, fate: SendFate::Failed(_) } => {
                    let note = self.nodes[node].up.as_ref().and_then(|up| up.names.get(&id).copied());
                    if let Some(note) = note.filter(|note| self.ledger.open(*note)) {
                        self.ledger.ended(note);
                    }
                }
                Sending::Ended { .. } => {}
            }
        }
        self.work(node);
        let Node { up: Some(up), woken_at, .. } = &mut self.nodes[node] else { return };
        let wake = up.owner.wake_at(now).into_iter().chain(up.singleton.wake_at(now)).min();
        let Some(wake) = wake else { return };
        let at = u64::try_from((wake.max(now) - self.base).as_micros()).unwrap_or(u64::MAX) + 1;
        if *woken_at <= self.now || at < *woken_at {
            *woken_at = at;
            self.at(at, Event::Wake(node));
        }
    }

    fn work(&mut self, node: usize) {
        let (now, life) = (self.instant(), (node, self.nodes[node].life));
        while let Some(work) = self.nodes[node].up.as_mut().and_then(|up| up.owner.next(now)) {
            for other in (0..self.nodes.len()).filter(|other| *other != node) {
                let Node { up: Some(up), frozen_until, .. } = &self.nodes[other] else { continue };
                if *frozen_until <= self.now && up.owner.holds(work.shard, now).is_some() {
                    self.broken = Some(format!("two hold shard {}: {node} and {other}", work.shard.0));
                }
            }
            if let Err(broken) = self.ledger.processed(work.message, work.epoch) {
                self.broken = Some(broken);
            }
            let takes = self.rng.random_range(200..5_000);
            self.at(self.now + takes, Event::Done { life, note: work.message });
        }
    }
}

/// What the machines of one node want done.
#[derive(Default)]
struct Out {
    shards: Vec<Action<Note>>,
    single: Vec<SingletonAction>,
    sends: Vec<Sending<Note>>,
}

impl Out {
    fn shards(shards: Vec<Action<Note>>) -> Self {
        Self { shards, ..Self::default() }
    }

    fn single(single: Vec<SingletonAction>) -> Self {
        Self { single, ..Self::default() }
    }
}

fn name(node: usize) -> NodeId {
    id(&format!("n{node}"))
}

fn number(id: &NodeId) -> usize {
    id.as_str()[1..].parse().unwrap()
}

fn known(node: usize, life: u64, draining: bool) -> Member {
    let standing = if draining { Standing::Draining } else { Standing::Active };
    Member { incarnation: Incarnation(life), standing, ..member(name(node).as_str()) }
}
