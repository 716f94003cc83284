//! Who is gone, from what this node hears itself and what the others say they miss.
//!
//! A node that does not run hears nothing, and what it then reads may be old: its own silence says little, and it
//! says so late. The others' word does not depend on that, so what most of them miss is gone for all.
//!
//! Knows no gossip and no clock.

use std::collections::{BTreeMap, HashSet};
use std::time::Duration;

use tokio::time::Instant;

use crate::cluster::{Incarnation, Member, NodeId};

/// Housekeeping: round trips, cut members, our own stalls.
pub(super) const TICK: Duration = Duration::from_millis(100);
/// A tick this late means that this node did not run: what it has not heard meanwhile says nothing.
const STALL: Duration = Duration::from_millis(400);
/// How long after a stall nobody is declared dead for this node's own silence: the others' heartbeats come in first.
const STALL_GRACE: Duration = Duration::from_millis(600);
/// Fewer do not speak for all.
const WITNESSES_MIN: usize = 2;
/// Lives that one node may say it misses.
const MISSED_MAX: usize = 1024;

/// One life of a node.
pub(super) type Life = (NodeId, Incarnation);
type Members = BTreeMap<NodeId, Member>;

/// What a node hears.
pub(super) struct Heard<'a> {
    /// Of whom it is not silent; itself included.
    pub(super) members: Members,
    /// Whom each of them misses.
    pub(super) misses: BTreeMap<NodeId, Vec<Life>>,
    /// Lives that said goodbye.
    pub(super) left: &'a HashSet<Life>,
}

pub(super) struct Verdicts {
    me: NodeId,
    /// How long a life is missed.
    remembered: Duration,
    ticked: Instant,
    stalled_until: Option<Instant>,
    spared: HashSet<NodeId>,
    missed: BTreeMap<NodeId, (Incarnation, Instant)>,
}

impl Verdicts {
    pub(super) fn new(me: NodeId, remembered: Duration, now: Instant) -> Self {
        let (spared, missed) = (HashSet::new(), BTreeMap::new());
        Self { me, remembered, ticked: now, stalled_until: None, spared, missed }
    }

    /// Called every [`TICK`], and at any other time only to judge.
    pub(super) fn tick(&mut self, now: Instant) {
        self.notice_stall(now);
        self.ticked = now;
    }

    fn notice_stall(&mut self, now: Instant) {
        let late = now.saturating_duration_since(self.ticked);
        if late > TICK + STALL {
            tracing::warn!(late_ms = late.as_millis() as u64, "this node did not run");
            self.stalled_until = Some(now + STALL_GRACE);
        }
    }

    /// The members from now on. `before` are those until now.
    pub(super) fn judge(&mut self, before: &Members, heard: Heard<'_>, now: Instant) -> Members {
        // What is heard may be ready before the tick that is late.
        self.notice_stall(now);
        let Heard { members: mut heard, misses, left } = heard;
        let silent: Vec<&Member> = (before.values())
            .filter(|member| !heard.contains_key(&member.id))
            .filter(|member| !left.contains(&(member.id.clone(), member.incarnation)))
            .collect();
        if self.stalled_until.is_some_and(|until| now < until) {
            for member in silent {
                if self.spared.insert(member.id.clone()) {
                    tracing::warn!(member = %member.id, "silent, but this node did not run itself: not declared gone yet");
                }
                heard.insert(member.id.clone(), member.clone());
            }
        } else {
            self.spared.clear();
            for member in silent.into_iter().take(MISSED_MAX - self.missed.len().min(MISSED_MAX)) {
                self.missed.insert(member.id.clone(), (member.incarnation, now));
            }
            self.missed.retain(|id, (incarnation, since)| {
                let returned = heard.get(id).is_some_and(|member| member.incarnation >= *incarnation);
                !returned && now.saturating_duration_since(*since) < self.remembered
            });
        }
        let gone: Vec<NodeId> =
            heard.values().filter(|m| self.most_miss(m, &heard, &misses)).map(|m| m.id.clone()).collect();
        gone.iter().for_each(|id| drop(heard.remove(id)));
        heard
    }

    /// Whether most of the others miss a member. This node is none of them: it has heard, or does not know.
    fn most_miss(&self, member: &Member, members: &Members, misses: &BTreeMap<NodeId, Vec<Life>>) -> bool {
        if member.id == self.me {
            return false;
        }
        let life = (member.id.clone(), member.incarnation);
        let others = members.keys().filter(|id| **id != self.me && **id != member.id);
        let (mut count, mut witnesses) = (0, 0);
        for other in others {
            count += 1;
            witnesses += usize::from(misses.get(other).is_some_and(|missed| missed.contains(&life)));
        }
        witnesses >= WITNESSES_MIN && witnesses * 2 > count
    }

    /// Whom this node misses, for the others to know.
    pub(super) fn missed(&self) -> impl Iterator<Item = (&NodeId, Incarnation)> {
        self.missed.iter().map(|(id, (incarnation, _))| (id, *incarnation))
    }
}

#[cfg(test)]
mod tests;
