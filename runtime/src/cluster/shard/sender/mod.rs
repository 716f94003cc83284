//! What one node does with the messages that it sends to shards: to whom they go, and in which order.
//!
//! While the owner's term is known, messages follow each other under it. After a refusal nothing more goes
//! out until all that was under way is answered; then the refused ones go first, one at a time, until an owner
//! has accepted one and with it a new term. So nothing overtakes what was refused.

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use super::{Answer, Delivery, Placement, ShardId, ShardSpec, Term};
use crate::cluster::{NodeId, View};

/// What a sender may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SenderLimits {
    /// Messages to one shard that are under way and not answered.
    pub window: usize,
    /// Messages to one shard that wait here for the window or for an owner.
    pub waiting_max: usize,
    /// An answer that takes longer does not come any more.
    pub answer_max: Duration,
}

/// What the shell does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sending<M> {
    /// Send this to that node; it may be lost.
    Send(NodeId, Delivery<M>),
    /// What became of a message.
    Ended {
        /// The sender's name for it.
        id: u64,
        /// How it went.
        fate: Fate,
    },
}

/// What became of a message, as its sender knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fate {
    /// An owner has it.
    Accepted(NodeId),
    /// It was not accepted, or nobody knows.
    Failed(Trouble),
}

/// Why a message did not get to an owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// As many wait as may, here or at the owner. Come back later.
    Full,
    /// Until its deadline nobody that it went to had the shard. Come back later.
    Unrouted,
    /// The node that it went to is gone or silent. It may have had its effect.
    Lost,
    /// Its deadline passed first. If it was under way, it may have had its effect.
    Deadline,
}

/// When a message that was told to wait is sent again.
const WAIT: Duration = Duration::from_millis(25);

/// The messages of one node to the shards of one type.
#[derive(Debug)]
pub struct Sender<M> {
    spec: ShardSpec,
    limits: SenderLimits,
    placement: Placement,
    routes: BTreeMap<ShardId, Route<M>>,
    ids: u64,
}

#[derive(Debug)]
struct Route<M> {
    way: Way,
    /// Where to try next, as the last refusal said.
    hint: Option<NodeId>,
    /// The shard is on its way to its owner; nothing is sent before this.
    wait_until: Option<Instant>,
    /// By the order in which they were sent.
    waiting: BTreeMap<u64, Pending<M>>,
    flying: VecDeque<(u64, Flight<M>)>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Way {
    /// The owner is not known: one message at a time.
    Probing,
    /// It is known: they follow each other.
    Open { to: NodeId, term: Term },
    /// It was, and is no more: what is under way ends first.
    Settling,
}

#[derive(Clone, Debug)]
struct Pending<M> {
    message: M,
    deadline: Instant,
    retried: bool,
}

#[derive(Debug)]
struct Flight<M> {
    to: NodeId,
    sent_at: Instant,
    pending: Pending<M>,
}

impl<M: Clone> Sender<M> {
    /// Nothing under way.
    #[must_use]
    pub fn new(spec: ShardSpec, limits: SenderLimits) -> Self {
        Self { placement: Placement::new(&spec), spec, limits, routes: BTreeMap::new(), ids: 0 }
    }

    /// Sends a message; its name, and what to do. It always ends with [`Sending::Ended`], once.
    pub fn send(
        &mut self,
        shard: ShardId,
        message: M,
        deadline: Instant,
        now: Instant,
    ) -> (u64, Vec<Sending<M>>) {
        self.ids += 1;
        let id = self.ids;
        let route = self.routes.entry(shard).or_insert_with(Route::new);
        if route.waiting.len() >= self.limits.waiting_max {
            return (id, vec![failed(id, Trouble::Full)]);
        }
        route.waiting.insert(id, Pending { message, deadline, retried: false });
        (id, self.pump(shard, now))
    }

    /// A node answers. Answers that nobody waits for any more say nothing.
    pub fn on_answer(
        &mut self,
        from: &NodeId,
        shard: ShardId,
        id: u64,
        answer: Answer,
        now: Instant,
    ) -> Vec<Sending<M>> {
        let Some(route) = self.routes.get_mut(&shard) else { return Vec::new() };
        let this = |(flying, flight): &(u64, Flight<M>)| *flying == id && flight.to == *from;
        let Some((_, flight)) = route.flying.iter().position(this).and_then(|at| route.flying.remove(at))
        else {
            return Vec::new();
        };
        let mut out = Vec::new();
        match answer {
            Answer::Accepted(term) => {
                if route.way == Way::Probing {
                    (route.way, route.hint) = (Way::Open { to: from.clone(), term }, None);
                }
                out.push(Sending::Ended { id, fate: Fate::Accepted(from.clone()) });
            }
            Answer::Full => out.push(failed(id, Trouble::Full)),
            Answer::Wait => {
                if matches!(route.way, Way::Open { .. }) {
                    route.way = Way::Settling;
                }
                route.hint = Some(from.clone());
                route.wait_until = Some(now + WAIT);
                route.waiting.insert(id, flight.pending);
            }
            Answer::NotOwner { hint, .. } => {
                if matches!(route.way, Way::Open { .. }) {
                    route.way = Way::Settling;
                }
                // Whoever is gone for this node would never answer.
                route.hint = hint.filter(|node| self.placement.view().get(node).is_some());
                // Two in turn: their views differ, as they do for a moment whenever a member comes or goes.
                if flight.pending.retried {
                    route.wait_until = Some(now + WAIT);
                }
                route.waiting.insert(id, Pending { retried: true, ..flight.pending });
            }
        }
        out.extend(self.pump(shard, now));
        out
    }

    /// The members have changed: what was under way to those who left is lost.
    pub fn on_view(&mut self, view: &View, now: Instant) -> Vec<Sending<M>> {
        let before = self.placement.view().clone();
        self.placement.on_view(&self.spec, view, now);
        let life = |view: &View, node: &NodeId| view.get(node).map(|member| member.incarnation);
        let gone = |node: &NodeId| {
            let now = life(view, node);
            now.is_none() || life(&before, node).is_some_and(|before| now != Some(before))
        };
        let mut out = Vec::new();
        for route in self.routes.values_mut() {
            route.hint = route.hint.take().filter(|node| !gone(node));
            if matches!(&route.way, Way::Open { to, .. } if gone(to)) {
                route.way = Way::Settling;
            }
            out.extend(route.lose(Trouble::Lost, |flight| gone(&flight.to)));
        }
        out.extend(self.pump_all(now));
        out
    }

    /// When [`Self::tick`] is due for a message that was told to wait. Deadlines come on top.
    #[must_use]
    pub fn wake_at(&self) -> Option<Instant> {
        let waits = |route: &Route<M>| route.wait_until.filter(|_| !route.waiting.is_empty());
        self.routes.values().filter_map(waits).min()
    }

    /// Time has passed; a few times per second is enough for the deadlines of those who wait here.
    pub fn tick(&mut self, now: Instant) -> Vec<Sending<M>> {
        self.placement.tick(&self.spec, now);
        let mut out = Vec::new();
        let answer_max = self.limits.answer_max;
        for route in self.routes.values_mut() {
            let unanswered = route.lose(Trouble::Deadline, |flight| flight.pending.deadline <= now);
            if !unanswered.is_empty() {
                // Perhaps it is not there any more.
                route.hint = None;
            }
            out.extend(unanswered);
            let silent = route.lose(Trouble::Lost, |flight| flight.sent_at + answer_max <= now);
            if !silent.is_empty() {
                route.hint = None;
                if matches!(route.way, Way::Open { .. }) {
                    route.way = Way::Settling;
                }
            }
            out.extend(silent);
            let late = route.waiting.extract_if(.., |_, pending| pending.deadline <= now);
            out.extend(late.map(|(id, pending)| {
                failed(id, if pending.retried { Trouble::Unrouted } else { Trouble::Deadline })
            }));
        }
        out.extend(self.pump_all(now));
        self.routes.retain(|_, route| route.way != Way::Probing || !route.is_idle());
        out
    }

    /// Messages that have not ended.
    #[must_use]
    pub fn open(&self) -> usize {
        self.routes.values().map(|route| route.waiting.len() + route.flying.len()).sum()
    }

    fn pump_all(&mut self, now: Instant) -> Vec<Sending<M>> {
        let shards: Vec<ShardId> = self.routes.keys().copied().collect();
        shards.into_iter().flat_map(|shard| self.pump(shard, now)).collect()
    }

    fn pump(&mut self, shard: ShardId, now: Instant) -> Vec<Sending<M>> {
        let view = self.placement.view().fingerprint();
        let Some(route) = self.routes.get_mut(&shard) else { return Vec::new() };
        let mut out = Vec::new();
        if route.way == Way::Settling && route.flying.is_empty() {
            route.way = Way::Probing;
        }
        let (to, term, window) = match &route.way {
            Way::Settling => return out,
            Way::Open { to, term } => (Some(to.clone()), Some(*term), self.limits.window),
            Way::Probing => (route.hint.clone().or_else(|| self.placement.owner(shard).cloned()), None, 1),
        };
        if route.wait_until.take_if(|until| *until <= now).is_none() && route.wait_until.is_some() {
            return out;
        }
        // Nobody has the shard: they wait for one who does, or for their deadlines.
        let Some(to) = to else { return out };
        while route.flying.len() < window {
            let Some((id, pending)) = route.waiting.pop_first() else { break };
            let message = pending.message.clone();
            out.push(Sending::Send(to.clone(), Delivery { shard, id, term, view, message }));
            route.flying.push_back((id, Flight { to: to.clone(), sent_at: now, pending }));
        }
        out
    }
}

impl<M> Route<M> {
    fn new() -> Self {
        Self {
            way: Way::Probing,
            hint: None,
            wait_until: None,
            waiting: BTreeMap::new(),
            flying: VecDeque::new(),
        }
    }

    fn is_idle(&self) -> bool {
        self.waiting.is_empty() && self.flying.is_empty()
    }

    fn lose(&mut self, trouble: Trouble, gone: impl Fn(&Flight<M>) -> bool) -> Vec<Sending<M>> {
        let mut out = Vec::new();
        self.flying.retain(|(id, flight)| {
            let lost = gone(flight);
            if lost {
                out.push(failed(*id, trouble));
            }
            !lost
        });
        out
    }
}

fn failed<M>(id: u64, trouble: Trouble) -> Sending<M> {
    Sending::Ended { id, fate: Fate::Failed(trouble) }
}
