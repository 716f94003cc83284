//! Promises of a majority: who may act for a slot, one at a time, whatever the network does.
//!
//! A node bids for a slot by asking every voter, itself included. A voter promises a slot to one node until
//! `promise` after it was asked and promises it to no other before that, unless released. The bidder may act
//! while a majority of the electorate has promised, and counts each promise only until `lease` after it
//! *asked*. Two majorities share a voter, a voter has one promise at a time, and a lease ends before the
//! promises behind it (`lease < promise`, and asking comes before being asked): so no two nodes hold a slot at
//! one moment, under any loss, delay, cut, freeze or disagreement of views, as long as their clocks run at
//! rates within `promise : lease` of each other. A voter that restarts has forgotten what it promised, so it
//! is mute for `promise`. What a holder began before its lease ended may end after it: that, and no more, is
//! how long two can overlap, and the epoch tells which of them is older.
//!
//! Epochs grow from holder to holder: a voter promises only an epoch above all that it has seen, and each
//! majority holds a voter that saw the one before. If a majority restarts at once and nobody is left who
//! remembers, they begin again at the floor that the shell gives, so that one should grow as well.
//!
//! Knows no clock, no network and not what a slot stands for.

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::rendezvous::score;
use super::{Incarnation, NodeId};

/// How long what lasts. Checked when a node starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeaseLimits {
    /// Voters that there are when all are up. More than half of them must promise.
    pub electorate: usize,
    /// A promise counts for the holder this long after it asked.
    pub lease: Duration,
    /// A promise binds the voter this long after it was asked; longer than `lease` by what clocks may differ.
    pub promise: Duration,
    /// How often a holder asks; a few times per lease.
    pub renew: Duration,
}

/// Limits that promise nothing. The operator acts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a lease needs an electorate and 0 < renew < lease < promise")]
pub struct LeaseLimitsError;

impl LeaseLimits {
    /// # Errors
    /// Unless there is an electorate and `0 < renew < lease < promise`.
    pub fn check(&self) -> Result<(), LeaseLimitsError> {
        let ordered = Duration::ZERO < self.renew && self.renew < self.lease && self.lease < self.promise;
        if ordered && self.electorate > 0 { Ok(()) } else { Err(LeaseLimitsError) }
    }
}

/// What the nodes say to each other about leases.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum LeaseMessage {
    /// Bids for slots, or renews them.
    Claim(Claim),
    /// What a voter says to that.
    Vote(Vote),
    /// Gives back what was promised.
    Release(Release),
}

/// All bids of one node at one moment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claim {
    /// Life of the bidder.
    pub incarnation: Incarnation,
    /// Names this claim among those of the life.
    pub round: u64,
    /// For what.
    pub bids: Vec<Bid>,
}

/// A bid for one slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bid {
    /// For this.
    pub slot: u16,
    /// Under this epoch.
    pub epoch: u64,
    /// Whether the bidder holds it already.
    pub held: bool,
}

/// Answer to a claim.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Vote {
    /// Life of the bidder.
    pub incarnation: Incarnation,
    /// Of the claim.
    pub round: u64,
    /// Slots and epochs that are promised.
    pub granted: Vec<(u16, u64)>,
    /// Those that are not.
    pub refused: Vec<Refused>,
}

/// A bid that failed at one voter.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refused {
    /// Which slot.
    pub slot: u16,
    /// The highest epoch that the voter has seen for it.
    pub epoch: u64,
    /// To whom it is promised now; nobody if only the epoch was too low.
    pub promised_to: Option<NodeId>,
}

/// Promises that bind no longer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Release {
    /// Life of the one that had them.
    pub incarnation: Incarnation,
    /// Slots, with the epochs up to which they are given back.
    pub slots: Vec<(u16, u64)>,
}

/// Who acts, as far as is known here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    /// The fence: of two that act, the one with the lower epoch is out of date.
    pub epoch: u64,
    /// Who.
    pub node: NodeId,
    /// Which life of it.
    pub incarnation: Incarnation,
}

/// Messages to other nodes.
pub(crate) type Post = Vec<(NodeId, LeaseMessage)>;

/// Claims of which the votes still count.
const ROUNDS_MAX: usize = 32;
/// Steps of `renew` among which bidders that got in each other's way choose when to try again.
const BACKOFF_STEPS: u64 = 4;

/// One node's part: it votes on every slot and bids for some.
#[derive(Debug)]
pub(crate) struct Leases {
    me: NodeId,
    incarnation: Incarnation,
    limits: LeaseLimits,
    mute_until: Instant,
    voters: BTreeSet<NodeId>,
    slots: Vec<Slot>,
    round: u64,
    rounds: VecDeque<(u64, Instant)>,
}

#[derive(Debug, Default)]
struct Slot {
    promise: Option<Promise>,
    /// The highest epoch seen, and whose it is.
    top: Option<Holder>,
    /// Epochs are above this, whoever has them.
    floor: u64,
    /// Who has said that it holds the slot.
    known: Option<Holder>,
    bid: Option<OwnBid>,
}

#[derive(Debug)]
struct Promise {
    to: Holder,
    until: Instant,
}

#[derive(Debug)]
struct OwnBid {
    epoch: u64,
    /// When the claims were sent that the voters last granted.
    votes: BTreeMap<NodeId, Instant>,
    /// Voters that have said no since they last said yes.
    refused_by: BTreeSet<NodeId>,
    /// Votes of earlier rounds were given back and do not count.
    first_round: u64,
    next_at: Instant,
}

impl Leases {
    pub(crate) fn new(
        me: NodeId,
        incarnation: Incarnation,
        limits: LeaseLimits,
        slot_count: u16,
        epoch_floor: u64,
        now: Instant,
    ) -> Self {
        let slot = || Slot { floor: epoch_floor, ..Slot::default() };
        Self {
            voters: BTreeSet::from([me.clone()]),
            me,
            incarnation,
            limits,
            mute_until: now + limits.promise,
            slots: (0..slot_count).map(|_| slot()).collect(),
            round: 0,
            rounds: VecDeque::new(),
        }
    }

    /// Who is asked from now on. More voters than the electorate count as the electorate.
    pub(crate) fn set_voters(&mut self, voters: impl IntoIterator<Item = NodeId>) {
        self.voters = voters.into_iter().collect();
        self.voters.insert(self.me.clone());
    }

    /// Bids for a slot from now on; does nothing if it does already.
    pub(crate) fn bid(&mut self, slot: u16, now: Instant) {
        let first_round = self.round + 1;
        let slot = &mut self.slots[usize::from(slot)];
        let epoch = slot.next_epoch();
        slot.bid.get_or_insert_with(|| OwnBid::new(epoch, first_round, now));
    }

    /// Bids no longer, and gives back what was promised.
    pub(crate) fn quit(&mut self, slots: &[u16], now: Instant) -> Post {
        let mut released = Vec::new();
        for &slot in slots {
            if let Some(bid) = self.slots[usize::from(slot)].bid.take() {
                released.push((slot, bid.epoch));
            }
        }
        self.give_back(released, now)
    }

    /// Says at once that this node holds the slot, rather than with the next renewal.
    pub(crate) fn announce(&mut self, slot: u16, now: Instant) -> Post {
        if let Some(bid) = self.slots[usize::from(slot)].bid.as_mut() {
            bid.next_at = now;
        }
        self.tick(now)
    }

    /// Sends the claims that are due.
    pub(crate) fn tick(&mut self, now: Instant) -> Post {
        let due = |bid: &OwnBid, by: Instant| bid.next_at <= by;
        if !self.slots.iter().filter_map(|slot| slot.bid.as_ref()).any(|bid| due(bid, now)) {
            return Post::new();
        }
        // Those nearly due go along: one claim for many slots.
        let by = now + self.limits.renew / 2;
        let mut bids = Vec::new();
        for slot in 0..self.slots.len() {
            let held = self.until(slot_number(slot)).is_some_and(|until| now < until);
            let Some(bid) = self.slots[slot].bid.as_mut().filter(|bid| due(bid, by)) else { continue };
            bid.next_at = now + self.limits.renew;
            bids.push(Bid { slot: slot_number(slot), epoch: bid.epoch, held });
        }
        self.round += 1;
        self.rounds.push_back((self.round, now));
        if self.rounds.len() > ROUNDS_MAX {
            self.rounds.pop_front();
        }
        let claim = Claim { incarnation: self.incarnation, round: self.round, bids };
        let mut post = self.to_all(&LeaseMessage::Claim(claim.clone()));
        if let Some(vote) = self.vote(&self.me.clone(), &claim, now) {
            post.extend(self.count(&self.me.clone(), &vote, now));
        }
        post
    }

    /// When there is something to do without any message.
    pub(crate) fn wake_at(&self, now: Instant) -> Option<Instant> {
        let bids = self.slots.iter().enumerate().filter_map(|(slot, state)| {
            let next_at = state.bid.as_ref()?.next_at;
            let until = self.until(slot_number(slot)).filter(|until| now < *until);
            Some(until.map_or(next_at, |until| until.min(next_at)))
        });
        bids.min()
    }

    pub(crate) fn on_message(&mut self, from: &NodeId, message: &LeaseMessage, now: Instant) -> Post {
        match message {
            LeaseMessage::Claim(claim) => {
                let vote = self.vote(from, claim, now);
                vote.map(|vote| (from.clone(), LeaseMessage::Vote(vote))).into_iter().collect()
            }
            LeaseMessage::Vote(vote) => self.count(from, vote, now),
            LeaseMessage::Release(release) => {
                self.forget(from, release, now);
                self.tick(now)
            }
        }
    }

    /// Until when this node may act for the slot, if a majority has ever promised it under the present bid.
    pub(crate) fn until(&self, slot: u16) -> Option<Instant> {
        let bid = self.slots[usize::from(slot)].bid.as_ref()?;
        let mut asked: Vec<Instant> = bid.votes.values().copied().collect();
        asked.sort_unstable_by(|a, b| b.cmp(a));
        asked.get(self.quorum() - 1).map(|&asked_at| asked_at + self.limits.lease)
    }

    /// The epoch under which this node may act for the slot now.
    pub(crate) fn held(&self, slot: u16, now: Instant) -> Option<u64> {
        let until = self.until(slot)?;
        (now < until).then(|| self.slots[usize::from(slot)].bid.as_ref().map(|bid| bid.epoch))?
    }

    /// Who acts, as far as is known; this node itself while it holds the slot.
    pub(crate) fn holder(&self, slot: u16) -> Option<&Holder> {
        self.slots.get(usize::from(slot))?.known.as_ref()
    }

    fn quorum(&self) -> usize {
        self.limits.electorate.max(self.voters.len()) / 2 + 1
    }

    fn to_all(&self, message: &LeaseMessage) -> Post {
        let others = self.voters.iter().filter(|voter| **voter != self.me);
        others.map(|voter| (voter.clone(), message.clone())).collect()
    }

    fn vote(&mut self, from: &NodeId, claim: &Claim, now: Instant) -> Option<Vote> {
        let mute = now < self.mute_until;
        let (mut granted, mut refused) = (Vec::new(), Vec::new());
        for bid in &claim.bids {
            let Some(slot) = self.slots.get_mut(usize::from(bid.slot)) else { continue };
            let bidder = Holder { epoch: bid.epoch, node: from.clone(), incarnation: claim.incarnation };
            if bid.held {
                slot.learn(&bidder);
            }
            if mute {
                continue;
            }
            match slot.promise_to(&bidder, now + self.limits.promise, now) {
                Ok(()) => granted.push((bid.slot, bid.epoch)),
                Err(promised_to) => {
                    let epoch = slot.next_epoch() - 1;
                    refused.push(Refused { slot: bid.slot, epoch, promised_to });
                }
            }
        }
        (!mute).then_some(Vote { incarnation: claim.incarnation, round: claim.round, granted, refused })
    }

    fn count(&mut self, from: &NodeId, vote: &Vote, now: Instant) -> Post {
        let sent = self.rounds.iter().find(|(round, _)| *round == vote.round);
        let Some(&(round, sent_at)) = sent else { return Post::new() };
        if vote.incarnation != self.incarnation || !self.voters.contains(from) {
            return Post::new();
        }
        for &(slot, epoch) in &vote.granted {
            let Some(slot) = self.slots.get_mut(usize::from(slot)) else { continue };
            if let Some(bid) = slot.bid.as_mut().filter(|bid| bid.epoch == epoch && bid.first_round <= round)
            {
                let asked = bid.votes.entry(from.clone()).or_insert(sent_at);
                *asked = sent_at.max(*asked);
                bid.refused_by.remove(from);
            }
        }
        let released = vote.refused.iter().filter_map(|refused| self.on_refused(from, refused, round, now));
        let released = released.collect();
        self.give_back(released, now)
    }

    /// The promises to give back because no majority can come together any more.
    fn on_refused(
        &mut self,
        from: &NodeId,
        refused: &Refused,
        round: u64,
        now: Instant,
    ) -> Option<(u16, u64)> {
        let (next_round, quorum, voter_count) = (self.round + 1, self.quorum(), self.voters.len());
        let slot = self.slots.get_mut(usize::from(refused.slot))?;
        slot.floor = slot.floor.max(refused.epoch);
        let epoch = slot.next_epoch();
        let bid = slot.bid.as_mut().filter(|bid| bid.first_round <= round)?;
        bid.refused_by.insert(from.clone());
        let lost = voter_count.saturating_sub(bid.refused_by.len()) < quorum;
        if !lost || self.held(refused.slot, now).is_some() {
            return None;
        }
        // What some have promised must not keep another from getting the rest.
        let steps = 1 + score(&self.round.to_le_bytes(), &self.me) % BACKOFF_STEPS;
        let wait = self.limits.renew * u32::try_from(steps).unwrap_or(1);
        let next = OwnBid::new(epoch, next_round, now + wait);
        let before = self.slots[usize::from(refused.slot)].bid.replace(next)?;
        Some((refused.slot, before.epoch))
    }

    fn give_back(&mut self, slots: Vec<(u16, u64)>, now: Instant) -> Post {
        if slots.is_empty() {
            return Post::new();
        }
        let release = Release { incarnation: self.incarnation, slots };
        self.forget(&self.me.clone(), &release, now);
        self.to_all(&LeaseMessage::Release(release))
    }

    fn forget(&mut self, from: &NodeId, release: &Release, now: Instant) {
        for &(slot, epoch) in &release.slots {
            let Some(slot) = self.slots.get_mut(usize::from(slot)) else { continue };
            let theirs = |holder: &Holder| {
                holder.node == *from && holder.incarnation == release.incarnation && holder.epoch <= epoch
            };
            if slot.promise.as_ref().is_some_and(|promise| theirs(&promise.to)) {
                slot.promise = None;
            }
            if slot.known.as_ref().is_some_and(theirs) {
                slot.known = None;
                // A holder gave it up: whoever waits for it need not wait for its turn.
                if let Some(bid) = slot.bid.as_mut().filter(|_| *from != self.me) {
                    bid.next_at = now;
                }
            }
        }
    }
}

impl OwnBid {
    fn new(epoch: u64, first_round: u64, next_at: Instant) -> Self {
        Self { epoch, votes: BTreeMap::new(), refused_by: BTreeSet::new(), first_round, next_at }
    }
}

impl Slot {
    fn next_epoch(&self) -> u64 {
        self.top.as_ref().map_or(0, |top| top.epoch).max(self.floor).saturating_add(1)
    }

    fn learn(&mut self, holder: &Holder) {
        if self.known.as_ref().is_none_or(|known| known.epoch <= holder.epoch) {
            self.known = Some(holder.clone());
        }
        if self.top.as_ref().is_none_or(|top| top.epoch < holder.epoch) {
            self.top = Some(holder.clone());
        }
    }

    /// Promises the slot, or says to whom it is promised.
    fn promise_to(&mut self, bidder: &Holder, until: Instant, now: Instant) -> Result<(), Option<NodeId>> {
        let another = |promise: &&Promise| {
            now < promise.until
                && (promise.to.node != bidder.node || promise.to.incarnation != bidder.incarnation)
        };
        if let Some(promise) = self.promise.as_ref().filter(another) {
            return Err(Some(promise.to.node.clone()));
        }
        if bidder.epoch < self.next_epoch() && self.top.as_ref() != Some(bidder) {
            return Err(None);
        }
        self.top = Some(bidder.clone());
        self.promise = Some(Promise { to: bidder.clone(), until });
        Ok(())
    }
}

fn slot_number(index: usize) -> u16 {
    u16::try_from(index).unwrap_or(u16::MAX)
}
