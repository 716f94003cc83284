//! What one node does with the shards that are here, come here or leave.
//!
//! A shard is acquired (wanted, and already holding messages), owned, and handed off: first what is being
//! processed ends, then the rest goes to the next owner and is repeated until received, and only then is the
//! lease given back. Who loses the lease first keeps the messages and either gets it again or passes them on.

mod action;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, VecDeque};
use std::mem;
use std::time::Instant;

pub use action::{Action, Failure, Lost, Unfinished, Work};
use action::{lost, sent};

use super::placement::has_role;
use super::{Answer, Delivery, Placement, ShardId, ShardMessage, ShardSpec, Term, Transfer};
use crate::cluster::lease::Leases;
use crate::cluster::{Incarnation, NodeId, View};

/// Hand-overs of one shard that may be unanswered at a time.
const TRANSFERS_MAX: usize = 4;

/// Received transfers that are remembered, for each shard on average.
const TAKEN_PER_SHARD_MAX: usize = 64;

/// The shards of one type on one node.
#[derive(Debug)]
pub struct Owner<M> {
    me: NodeId,
    incarnation: Incarnation,
    spec: ShardSpec,
    placement: Placement,
    leases: Leases,
    shards: Vec<Shard<M>>,
    outbox: Vec<Outgoing<M>>,
    /// Transfers that were received and when, so that a repeated one is not taken twice.
    taken: BTreeMap<Taken, Instant>,
    terms: u64,
    transfers: u64,
    /// Where to look for work next, so that no shard starves.
    cursor: usize,
    left: bool,
}

#[derive(Debug)]
struct Shard<M> {
    state: State<M>,
    /// The epoch of what is being processed.
    busy: Option<u64>,
}

#[derive(Debug)]
enum State<M> {
    Away,
    /// Wanted here; bids for the lease. The first `handed` messages came from former owners.
    Acquiring {
        since: Instant,
        term: u64,
        queue: VecDeque<M>,
        handed: usize,
    },
    Owned {
        term: u64,
        queue: VecDeque<M>,
    },
    /// Belongs elsewhere; ends what it does and then goes.
    Ending {
        to: NodeId,
        queue: VecDeque<M>,
    },
    /// On its way; keeps the lease until it is received. What others hand over meanwhile is taken, or two that
    /// hand off to each other would wait for each other.
    HandingOff {
        to: NodeId,
        life: Incarnation,
        transfer: u64,
        late: VecDeque<M>,
    },
}

#[derive(Debug)]
struct Outgoing<M> {
    to: NodeId,
    transfer: Transfer<M>,
    next_at: Instant,
    give_up_at: Instant,
}

/// Whose transfer, of which shard. Several of one node may be open at a time and come in any order.
type Taken = (ShardId, NodeId, Incarnation, u64);

impl<M: Clone> Owner<M> {
    /// A node that has just started. `epoch_floor` grows from life to life, e.g. milliseconds since 1970.
    #[must_use]
    pub fn new(
        spec: ShardSpec,
        me: NodeId,
        incarnation: Incarnation,
        epoch_floor: u64,
        now: Instant,
    ) -> Self {
        let shard = |_| Shard { state: State::Away, busy: None };
        let leases = Leases::new(me.clone(), incarnation, spec.lease, spec.shard_count, epoch_floor, now);
        Self {
            me,
            incarnation,
            placement: Placement::new(&spec),
            leases,
            shards: (0..spec.shard_count).map(shard).collect(),
            spec,
            outbox: Vec::new(),
            taken: BTreeMap::new(),
            terms: 0,
            transfers: 0,
            cursor: 0,
            left: false,
        }
    }

    /// The members have changed.
    pub fn on_view(&mut self, view: &View, now: Instant) -> Vec<Action<M>> {
        self.placement.on_view(&self.spec, view, now);
        let voters = view.members.values().filter(|member| has_role(&self.spec, member));
        self.leases.set_voters(voters.map(|member| member.id.clone()));
        self.step(now)
    }

    /// Time has passed; see [`Self::wake_at`].
    pub fn tick(&mut self, now: Instant) -> Vec<Action<M>> {
        self.placement.tick(&self.spec, now);
        // Whoever sent it has given it up by then and does not repeat it.
        let keep = self.spec.transfer_max * 2;
        self.taken.retain(|_, at| now.saturating_duration_since(*at) < keep);
        let post = self.leases.tick(now);
        let mut actions = sent(post);
        actions.extend(self.step(now));
        actions
    }

    /// When [`Self::tick`] is due without any other event.
    #[must_use]
    pub fn wake_at(&self, now: Instant) -> Option<Instant> {
        let outbox = self.outbox.iter().map(|out| out.next_at.min(out.give_up_at));
        outbox.chain(self.leases.wake_at(now)).chain(self.placement.wake_at(&self.spec)).min()
    }

    /// Another node says something.
    pub fn on_message(&mut self, from: &NodeId, message: ShardMessage<M>, now: Instant) -> Vec<Action<M>> {
        let mut actions = Vec::new();
        match message {
            ShardMessage::Lease(message) => actions.extend(sent(self.leases.on_message(from, &message, now))),
            ShardMessage::Transfer(transfer) => actions.extend(self.on_transfer(from, transfer, now)),
            ShardMessage::Received { shard, incarnation, id } => {
                let this = |out: &Outgoing<M>| {
                    out.to == *from && out.transfer.shard == shard && out.transfer.id == id
                };
                if incarnation == self.incarnation {
                    self.outbox.retain(|out| !this(out));
                }
            }
        }
        actions.extend(self.step(now));
        actions
    }

    /// A message arrives; what to answer, and the message itself unless it was accepted.
    pub fn deliver(&mut self, delivery: Delivery<M>, now: Instant) -> (Answer, Option<M>) {
        let Delivery { shard, term: named, view, message, .. } = delivery;
        let not_owner = Answer::NotOwner {
            hint: self.hint(shard),
            same_view: view == self.placement.view().fingerprint(),
        };
        let Some(Shard { state, .. }) = self.shards.get_mut(usize::from(shard.0)) else {
            return (not_owner, Some(message));
        };
        let held = self.leases.held(shard.0, now).is_some();
        // Without the lease the next owner may be processing already: sent on, the message would overtake
        // those that are on their way from here.
        let leaving = matches!(state, State::Ending { .. } | State::HandingOff { .. });
        if leaving && !held {
            return (Answer::Full, Some(message));
        }
        if let State::Acquiring { since, .. } = state
            && !(held || self.left || named.is_some())
        {
            let soon = now.saturating_duration_since(*since) <= self.spec.acquire_max;
            return (if soon { Answer::Wait } else { not_owner }, Some(message));
        }
        let (State::Acquiring { term, queue, .. } | State::Owned { term, queue }) = state else {
            return (not_owner, Some(message));
        };
        let term = Term { incarnation: self.incarnation, number: *term };
        match () {
            () if self.left || named.is_some_and(|named| named != term) => (not_owner, Some(message)),
            () if queue.len() >= self.spec.queue_max => (Answer::Full, Some(message)),
            () => {
                queue.push_back(message);
                (Answer::Accepted(term), None)
            }
        }
    }

    /// The next message to process, if there is one that may be processed now.
    pub fn next(&mut self, now: Instant) -> Option<Work<M>> {
        let count = self.shards.len();
        for offset in 0..count {
            let index = (self.cursor + offset) % count;
            let number = u16::try_from(index).unwrap_or(u16::MAX);
            let Shard { state: State::Owned { queue, .. }, busy: busy @ None } = &mut self.shards[index]
            else {
                continue;
            };
            if queue.is_empty() {
                continue;
            }
            let Some(epoch) = self.leases.held(number, now) else { continue };
            *busy = Some(epoch);
            let message = queue.pop_front()?;
            self.cursor = index + 1;
            return Some(Work { shard: ShardId(number), epoch, message });
        }
        None
    }

    /// A message is processed. Whether the shard was held throughout: if not, its outcome may be out of date.
    pub fn done(&mut self, shard: ShardId, now: Instant) -> (bool, Vec<Action<M>>) {
        let Some(state) = self.shards.get_mut(usize::from(shard.0)) else { return (false, Vec::new()) };
        let epoch = state.busy.take();
        let held = epoch.is_some() && self.leases.held(shard.0, now) == epoch;
        let settled = held && matches!(state.state, State::Owned { .. });
        (held, if settled { Vec::new() } else { self.step(now) })
    }

    /// The epoch under which a shard may be processed here now.
    #[must_use]
    pub fn holds(&self, shard: ShardId, now: Instant) -> Option<u64> {
        let owned = matches!(self.shards.get(usize::from(shard.0))?.state, State::Owned { .. });
        owned.then(|| self.leases.held(shard.0, now))?
    }

    /// Whether another node would take the shards: one that leaves need not wait for nobody.
    #[must_use]
    pub fn has_successor(&self) -> bool {
        self.placement.owner(ShardId(0)).is_some_and(|node| *node != self.me)
    }

    /// What is still here of a node that wants to leave.
    #[must_use]
    pub fn unfinished(&self) -> Unfinished {
        let mut left = Unfinished::default();
        for Shard { state, busy } in &self.shards {
            left.shards += usize::from(!matches!(state, State::Away));
            left.messages += usize::from(busy.is_some());
            if let State::Acquiring { queue, .. }
            | State::Owned { queue, .. }
            | State::Ending { queue, .. }
            | State::HandingOff { late: queue, .. } = state
            {
                left.messages += queue.len();
            }
        }
        left.messages += self.outbox.iter().map(|out| out.transfer.batch.len()).sum::<usize>();
        left
    }

    /// Ends it here: gives every lease back and reports what nobody took. Accepts nothing any more.
    pub fn leave(&mut self, now: Instant) -> Vec<Action<M>> {
        self.left = true;
        let mut actions = Vec::new();
        for index in 0..self.shards.len() {
            let shard = ShardId(u16::try_from(index).unwrap_or(u16::MAX));
            let state = mem::replace(&mut self.shards[index].state, State::Away);
            let (State::Acquiring { queue, .. }
            | State::Owned { queue, .. }
            | State::Ending { queue, .. }
            | State::HandingOff { late: queue, .. }) = state
            else {
                continue;
            };
            actions.extend(lost(shard, Failure::Left, queue.into()));
        }
        for out in self.outbox.drain(..) {
            actions.extend(lost(out.transfer.shard, Failure::Left, out.transfer.batch));
        }
        let all: Vec<u16> = (0..self.spec.shard_count).collect();
        actions.extend(sent(self.leases.quit(&all, now)));
        actions
    }

    /// Who may have a shard that is not here.
    fn hint(&self, shard: ShardId) -> Option<NodeId> {
        let state = self.shards.get(usize::from(shard.0)).map(|shard| &shard.state);
        if let Some(State::Ending { to, .. } | State::HandingOff { to, .. }) = state {
            return Some(to.clone());
        }
        let holder = self.leases.holder(shard.0).map(|holder| &holder.node);
        let holder = holder.filter(|node| **node != self.me && self.placement.view().get(node).is_some());
        holder.or_else(|| self.placement.owner(shard).filter(|node| **node != self.me)).cloned()
    }

    fn on_transfer(&mut self, from: &NodeId, transfer: Transfer<M>, now: Instant) -> Option<Action<M>> {
        let Transfer { shard, from: life, to, id, batch } = transfer;
        let room = self.spec.queue_max * 2;
        let state = self.shards.get_mut(usize::from(shard.0))?;
        if to != self.incarnation || self.left || batch.len() > room {
            return None;
        }
        let key = (shard, from.clone(), life, id);
        if !self.taken.contains_key(&key) {
            // No answer to what cannot be taken now: it will be repeated.
            let full = self.taken.len() >= TAKEN_PER_SHARD_MAX * usize::from(self.spec.shard_count);
            if full || !state.state.take(batch, room, &mut self.terms, now) {
                return None;
            }
            if matches!(state.state, State::Acquiring { .. }) {
                self.leases.bid(shard.0, now);
            }
            self.taken.insert(key, now);
        }
        Some(Action::Send(from.clone(), ShardMessage::Received { shard, incarnation: life, id }))
    }

    /// Sends, repeats and gives up transfers.
    fn post_transfers(&mut self, now: Instant) -> Vec<Action<M>> {
        let mut actions = Vec::new();
        let view = self.placement.view();
        let retry = self.spec.transfer_retry;
        self.outbox.retain_mut(|out| {
            let life = view.get(&out.to).map(|member| member.incarnation);
            let died = life.is_some_and(|life| life > out.transfer.to);
            if died || out.give_up_at <= now {
                let why = if died { Failure::ReceiverDied } else { Failure::Unanswered };
                actions.extend(lost(out.transfer.shard, why, mem::take(&mut out.transfer.batch)));
                return false;
            }
            if out.next_at <= now {
                out.next_at = now + retry;
                let message = ShardMessage::Transfer(out.transfer.clone());
                actions.push(Action::Send(out.to.clone(), message));
            }
            true
        });
        actions
    }

    /// Lets every shard do what follows from the view, the leases and the transfers.
    fn step(&mut self, now: Instant) -> Vec<Action<M>> {
        let mut actions = Vec::new();
        if self.left {
            return actions;
        }
        let mut released = Vec::new();
        actions.extend(self.post_transfers(now));
        for index in 0..self.shards.len() {
            let shard = ShardId(u16::try_from(index).unwrap_or(u16::MAX));
            let before = mem::replace(&mut self.shards[index].state, State::Away);
            let owned = matches!(before, State::Owned { .. });
            let handing = matches!(before, State::HandingOff { .. });
            let after = self.next_state(shard, before, now);
            let held = self.leases.held(shard.0, now).is_some();
            let bids = match after {
                State::Acquiring { .. } | State::Owned { .. } => true,
                State::Ending { .. } | State::HandingOff { .. } => held,
                State::Away => false,
            };
            match (owned, &after) {
                (false, State::Owned { .. }) => {
                    let epoch = self.leases.held(shard.0, now).unwrap_or_default();
                    actions.push(Action::Gained { shard, epoch });
                }
                (true, State::Owned { .. }) | (false, _) => {}
                (true, _) => actions.push(Action::Ended { shard }),
            }
            // A lease that ran out while owned begins anew, under a new epoch.
            let handed_off = handing && !matches!(after, State::HandingOff { .. });
            if !bids || handed_off || (owned && matches!(after, State::Acquiring { .. })) {
                released.push(shard.0);
            }
            self.shards[index].state = after;
        }
        actions.extend(sent(self.leases.quit(&released, now)));
        for (shard, state) in (0..).zip(&self.shards) {
            if matches!(state.state, State::Acquiring { .. }) {
                self.leases.bid(shard, now);
            }
        }
        actions.extend(sent(self.leases.tick(now)));
        actions.extend(self.post_transfers(now));
        actions
    }

    fn next_state(&mut self, shard: ShardId, state: State<M>, now: Instant) -> State<M> {
        let elsewhere = self.placement.owner(shard).filter(|node| **node != self.me).cloned();
        let mine = self.placement.owner(shard) == Some(&self.me);
        let held = self.leases.held(shard.0, now).is_some();
        let busy = self.shards[usize::from(shard.0)].busy.is_some();
        let few = self.transfers_of(shard) < TRANSFERS_MAX;
        match (state, elsewhere.map(|to| (self.life(&to), to))) {
            (State::Away, _) if mine && few => State::acquiring(VecDeque::new(), &mut self.terms, now),
            (State::Acquiring { queue, .. }, Some(_)) if queue.is_empty() && !busy => State::Away,
            (State::Acquiring { queue, .. } | State::Owned { queue, .. }, Some((_, to))) => {
                State::Ending { to, queue }
            }
            (State::Acquiring { term, queue, .. }, None) if held => State::Owned { term, queue },
            (State::Acquiring { since, queue, .. }, None)
                if now.saturating_duration_since(since) > self.spec.acquire_max
                    && few
                    && !queue.is_empty() =>
            {
                // Somebody else sees it otherwise and has it: the messages wait no longer for an agreement.
                let holder = self.leases.holder(shard.0).map(|holder| holder.node.clone());
                let queue = match holder.map(|to| (self.life(&to), to)) {
                    Some((Some(life), to)) if to != self.me => {
                        self.start_transfer(shard, to, life, queue, now);
                        VecDeque::new()
                    }
                    _ => queue,
                };
                State::acquiring(queue, &mut self.terms, now)
            }
            (State::Owned { term, queue }, None) if !held => {
                State::Acquiring { since: now, term, handed: queue.len(), queue }
            }
            (State::Ending { queue, .. }, None) => State::acquiring(queue, &mut self.terms, now),
            (State::Ending { queue, .. }, Some((Some(life), to))) if !busy => {
                let transfer = self.start_transfer(shard, to.clone(), life, queue, now);
                State::HandingOff { to, life, transfer, late: VecDeque::new() }
            }
            (State::Ending { queue, .. }, Some((_, to))) => State::Ending { to, queue },
            (State::HandingOff { to, life, transfer, late }, _) => {
                let open = self.outbox.iter().any(|out| out.transfer.id == transfer);
                match open && self.life(&to) == Some(life) {
                    true => State::HandingOff { to, life, transfer, late },
                    false if late.is_empty() => State::Away,
                    false => State::acquiring(late, &mut self.terms, now),
                }
            }
            (state, _) => state,
        }
    }

    fn life(&self, node: &NodeId) -> Option<Incarnation> {
        self.placement.view().get(node).map(|member| member.incarnation)
    }

    fn transfers_of(&self, shard: ShardId) -> usize {
        self.outbox.iter().filter(|out| out.transfer.shard == shard).count()
    }

    fn start_transfer(
        &mut self,
        shard: ShardId,
        to: NodeId,
        life: Incarnation,
        queue: VecDeque<M>,
        now: Instant,
    ) -> u64 {
        self.transfers += 1;
        let id = self.transfers;
        let transfer = Transfer { shard, from: self.incarnation, to: life, id, batch: queue.into() };
        let give_up_at = now + self.spec.transfer_max;
        self.outbox.push(Outgoing { to, transfer, next_at: now, give_up_at });
        id
    }
}

impl<M> State<M> {
    fn acquiring(queue: VecDeque<M>, terms: &mut u64, now: Instant) -> Self {
        *terms += 1;
        Self::Acquiring { since: now, term: *terms, handed: queue.len(), queue }
    }

    /// Takes what a former owner hands over, ahead of what was accepted here; whether it could.
    fn take(&mut self, batch: Vec<M>, room: usize, terms: &mut u64, now: Instant) -> bool {
        let fits = |queue: &VecDeque<M>| queue.len() + batch.len() <= room;
        match self {
            Self::Away => *self = Self::acquiring(batch.into(), terms, now),
            Self::Acquiring { queue, handed, .. } if fits(queue) => {
                let later = queue.split_off(*handed);
                queue.extend(batch);
                *handed = queue.len();
                queue.extend(later);
            }
            Self::Owned { queue, .. } | Self::Ending { queue, .. } | Self::HandingOff { late: queue, .. }
                if fits(queue) =>
            {
                queue.extend(batch);
            }
            _ => return false,
        }
        true
    }
}
