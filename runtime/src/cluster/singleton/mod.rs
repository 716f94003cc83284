//! Which node acts as the one of its kind, and when it must stop.
//!
//! The holder is the eligible live member that scores highest with the singleton's name, once a majority of
//! the electorate has promised it the one slot (`super::lease`). Why never two for longer than the bound:
//! - a new holder needs promises of a majority; each voter of the old one's majority has promised until
//!   `promise` after it was last asked, and the two majorities share a voter: so the new one waits until the
//!   old one has handed over or has been silent to that voter for longer than `promise`;
//! - the old one counts its lease from when it asked and stops `lease < promise` later, whatever it hears or
//!   does not: cut off, it stops before another can start;
//! - a frozen process cannot stop, nor can it act; when it wakes it must ask [`Singleton::acting`] before what
//!   it does, so that at most the one step under way when it froze is late.
//!
//! That step is the bound. It cannot be made zero, so consumers keep the highest epoch and refuse lower ones.
//!
//! The decision is here; `host` carries it out on one node, `route` finds the present holder from any.

mod fence;
mod host;
mod route;
#[cfg(test)]
mod tests;

use std::time::Instant;

use super::lease::{Holder, LeaseLimits, LeaseMessage, Leases, Post};
use super::rendezvous::owner;
use super::{Incarnation, Member, NodeId, Standing, View};
pub use fence::Fence;
pub use host::{Hosted, Hosting, SingletonHandle};
pub(crate) use route::Routes;
pub use route::SingletonError;

/// What there is one of. The same on every node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SingletonSpec {
    /// Its name.
    pub name: String,
    /// Only members with this role hold it and vote on it.
    pub role: Option<String>,
    /// Of the lease behind it.
    pub lease: LeaseLimits,
}

/// What this node is to the singleton.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SingletonState {
    /// It belongs elsewhere.
    Standby,
    /// It belongs here; a majority has yet to promise it.
    Claiming,
    /// It acts here.
    Acting {
        /// The fence.
        epoch: u64,
    },
    /// It acts no more; what it had begun ends.
    Stopping {
        /// The fence that it had.
        epoch: u64,
    },
}

/// What the shell does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SingletonAction {
    /// Send this to that node; it may be lost.
    Send(NodeId, LeaseMessage),
    /// Start it here under this epoch.
    Start {
        /// The fence.
        epoch: u64,
    },
    /// Stop it here, and say [`Singleton::on_stopped`] when nothing of it runs any more.
    Stop {
        /// The fence that it had.
        epoch: u64,
    },
    /// Tell its consumers who acts.
    Holds(Holder),
}

/// One node's part in one singleton.
#[derive(Debug)]
pub struct Singleton {
    me: NodeId,
    spec: SingletonSpec,
    leases: Leases,
    state: SingletonState,
    mine: bool,
    elsewhere: bool,
    /// This node gives it up for good.
    left: bool,
    told: Option<Holder>,
}

const SLOT: u16 = 0;

impl Singleton {
    /// A node that has just started. `epoch_floor` grows from life to life, e.g. seconds since 1970.
    #[must_use]
    pub fn new(
        spec: SingletonSpec,
        me: NodeId,
        incarnation: Incarnation,
        epoch_floor: u64,
        now: Instant,
    ) -> Self {
        let leases = Leases::new(me.clone(), incarnation, spec.lease, 1, epoch_floor, now);
        let state = SingletonState::Standby;
        Self { me, spec, leases, state, mine: false, elsewhere: false, left: false, told: None }
    }

    /// The members have changed.
    pub fn on_view(&mut self, view: &View, now: Instant) -> Vec<SingletonAction> {
        let in_role =
            |member: &&Member| self.spec.role.as_ref().is_none_or(|role| member.roles.contains(role));
        let members = || view.members.values().filter(in_role);
        let able = members().filter(|member| member.standing == Standing::Active).map(|member| &member.id);
        let holder = owner(self.spec.name.as_bytes(), able);
        self.mine = holder == Some(&self.me) && !self.left;
        self.elsewhere = self.left || (holder.is_some() && !self.mine);
        let voters: Vec<NodeId> = members().map(|member| member.id.clone()).collect();
        self.leases.set_voters(voters);
        self.step(now)
    }

    /// Time has passed; see [`Self::wake_at`].
    pub fn tick(&mut self, now: Instant) -> Vec<SingletonAction> {
        let mut actions = sent(self.leases.tick(now));
        actions.extend(self.step(now));
        actions
    }

    /// When [`Self::tick`] is due without any other event.
    #[must_use]
    pub fn wake_at(&self, now: Instant) -> Option<Instant> {
        self.leases.wake_at(now)
    }

    /// Another node says something.
    pub fn on_message(
        &mut self,
        from: &NodeId,
        message: &LeaseMessage,
        now: Instant,
    ) -> Vec<SingletonAction> {
        let mut actions = sent(self.leases.on_message(from, message, now));
        actions.extend(self.step(now));
        actions
    }

    /// What was started here has ended by itself. It is started again, under another epoch, after
    /// [`Self::on_stopped`].
    pub fn on_failed(&mut self) {
        if let SingletonState::Acting { epoch } = self.state {
            self.state = SingletonState::Stopping { epoch };
        }
    }

    /// This node gives it up, whoever else is there to take it.
    pub fn leave(&mut self, now: Instant) -> Vec<SingletonAction> {
        (self.left, self.mine, self.elsewhere) = (true, false, true);
        self.step(now)
    }

    /// Nothing of it runs here any more.
    pub fn on_stopped(&mut self, now: Instant) -> Vec<SingletonAction> {
        let mut actions = Vec::new();
        if let SingletonState::Stopping { .. } = self.state {
            actions.extend(sent(self.leases.quit(&[SLOT], now)));
            self.state = SingletonState::Standby;
        }
        actions.extend(self.step(now));
        actions
    }

    /// The epoch under which it may act here now; to be asked before every step that the world sees.
    #[must_use]
    pub fn acting(&self, now: Instant) -> Option<u64> {
        match self.state {
            SingletonState::Acting { epoch } if self.leases.held(SLOT, now) == Some(epoch) => Some(epoch),
            _ => None,
        }
    }

    /// When what acts here, or stops, must have stopped unless the lease is renewed before.
    #[must_use]
    pub fn acts_until(&self) -> Option<Instant> {
        match self.state {
            SingletonState::Acting { .. } | SingletonState::Stopping { .. } => self.leases.until(SLOT),
            SingletonState::Standby | SingletonState::Claiming => None,
        }
    }

    /// Whether another node could act now: one that leaves need not wait for nobody.
    #[must_use]
    pub fn has_successor(&self) -> bool {
        self.elsewhere && !self.left
    }

    /// What this node is to it.
    #[must_use]
    pub fn state(&self) -> SingletonState {
        self.state
    }

    /// Who acts, as far as is known here.
    #[must_use]
    pub fn holder(&self) -> Option<&Holder> {
        self.leases.holder(SLOT)
    }

    fn step(&mut self, now: Instant) -> Vec<SingletonAction> {
        let mut actions = Vec::new();
        let held = self.leases.held(SLOT, now);
        self.state = match self.state {
            SingletonState::Standby if self.mine => {
                self.leases.bid(SLOT, now);
                actions.extend(sent(self.leases.tick(now)));
                SingletonState::Claiming
            }
            SingletonState::Claiming if !self.mine => {
                actions.extend(sent(self.leases.quit(&[SLOT], now)));
                SingletonState::Standby
            }
            SingletonState::Claiming => match held {
                Some(epoch) => {
                    actions.push(SingletonAction::Start { epoch });
                    actions.extend(sent(self.leases.announce(SLOT, now)));
                    SingletonState::Acting { epoch }
                }
                None => SingletonState::Claiming,
            },
            // One that leaves last has nobody to hand over to, and acts until it is gone.
            SingletonState::Acting { epoch } if held != Some(epoch) || self.elsewhere => {
                actions.push(SingletonAction::Stop { epoch });
                // A lease that ran out is not asked for again before everything has stopped.
                if held != Some(epoch) {
                    actions.extend(sent(self.leases.quit(&[SLOT], now)));
                }
                SingletonState::Stopping { epoch }
            }
            SingletonState::Stopping { epoch } if held != Some(epoch) => {
                actions.extend(sent(self.leases.quit(&[SLOT], now)));
                SingletonState::Stopping { epoch }
            }
            unchanged => unchanged,
        };
        if let Some(holder) = self.leases.holder(SLOT).filter(|holder| Some(*holder) != self.told.as_ref()) {
            self.told = Some(holder.clone());
            actions.push(SingletonAction::Holds(holder.clone()));
        }
        actions
    }
}

fn sent(post: Post) -> Vec<SingletonAction> {
    post.into_iter().map(|(to, message)| SingletonAction::Send(to, message)).collect()
}
