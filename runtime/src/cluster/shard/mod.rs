//! Sharding: keys of one type, cut into a fixed number of shards, each with one owner among the nodes.
//!
//! Where a shard belongs is rendezvous hashing over the live members (`placement`); who may act for it is a
//! lease of a majority (`super::lease`), so that two views that differ never make two owners: processing by
//! two at once lasts no longer than what one had begun when its lease ended. The owner's side is `owner`, the
//! sender's side is `sender`. All of that is values in, actions out; `region` carries it out on one node, and
//! `handle` is what a program holds.
//!
//! What holds:
//! - a message is accepted by at most one owner; accepted and not yet processed, it moves along when the shard
//!   moves, or its loss is reported: never silently gone except with the node that had it;
//! - messages of one sender for one shard are processed in the order they were sent, with gaps where one was
//!   refused or failed, unless an owner died or lost its lease in between;
//! - a message that nobody accepts is sent on until its deadline, and then its sender is told.

#[cfg(any(test, feature = "fuzzing"))]
pub(in crate::cluster) mod fuzzing;
mod handle;
mod owner;
mod packet;
mod placement;
mod region;
mod sender;
#[cfg(test)]
mod tests;

use std::time::Duration;

use serde::{Deserialize, Serialize};

pub use handle::{RegionLimits, RegionStats, ShardError, ShardHandler, ShardJob, ShardRegion};
pub use owner::{Action, Failure, Lost, Owner, Unfinished, Work};
pub use placement::Placement;
pub use sender::{Fate, Sender, SenderLimits, Sending, Trouble};

use super::lease::{LeaseLimits, LeaseMessage};
use super::member::Fnv;
use super::rendezvous::mix;
use super::{Incarnation, NodeId, Region};

/// One shard of one type.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ShardId(pub u16);

/// The shard of a key when there are `count` of them; the same on every node, for ever.
///
/// # Panics
/// When there are none.
#[must_use]
pub fn shard_of(key: &[u8], count: u16) -> ShardId {
    assert!(count > 0, "a sharded type has shards");
    let shard = mix(Fnv::of(key)) % u64::from(count);
    ShardId(u16::try_from(shard).unwrap_or(0))
}

/// What is sharded, where and how. The same on every node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShardSpec {
    /// Name of the type.
    pub name: String,
    /// Where its keys live; anywhere if not said. A type with keys of several homes has a spec for each.
    pub home: Option<Region>,
    /// Only members with this role own shards and vote on owners.
    pub role: Option<String>,
    /// How many shards; fixed for the life of the type, 256 is a good number.
    pub shard_count: u16,
    /// Messages that one shard may hold. What is handed over may fill it twice over.
    pub queue_max: usize,
    /// How long the home must have had no member before its shards move to any region.
    pub grace: Duration,
    /// How long a node that does not get a shard lets senders wait, before it sends them, and what it holds for
    /// the shard, to the holder.
    pub acquire_max: Duration,
    /// How often an unanswered hand-over is repeated.
    pub transfer_retry: Duration,
    /// When an unanswered hand-over is given up and its messages are reported as failed.
    pub transfer_max: Duration,
    /// Of the leases behind ownership.
    pub lease: LeaseLimits,
}

/// Names one possession of a shard by one node, from the first message it accepts to the last. A message that
/// names one is accepted under no other: so what was refused cannot be overtaken by what was sent after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Term {
    /// Life of the owner.
    pub incarnation: Incarnation,
    /// Counts within the life.
    pub number: u64,
}

/// A message on its way to the owner of a shard.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Delivery<M> {
    /// For which shard.
    pub shard: ShardId,
    /// The sender's own name for it, for the answer.
    pub id: u64,
    /// Under which possession; none while the sender does not know one.
    pub term: Option<Term>,
    /// What the sender sees: [`View::fingerprint`](super::View::fingerprint).
    pub view: u64,
    /// The message.
    pub message: M,
}

/// What an owner says to a delivery.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Answer {
    /// It is here now.
    Accepted(Term),
    /// The shard is here, but holds as much as it may.
    Full,
    /// The shard is on its way here, and behind it what its former owner had accepted. Come back in a moment:
    /// what was taken now could overtake that.
    Wait,
    /// The shard is not here, or not under the term that was named.
    NotOwner {
        /// Who may have it.
        hint: Option<NodeId>,
        /// Whether both see the same members: if not, the sender may be out of date.
        same_view: bool,
    },
}

/// What the nodes of one sharded type say to each other.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ShardMessage<M> {
    /// About who may act.
    Lease(LeaseMessage),
    /// What a former owner had accepted and not processed.
    Transfer(Transfer<M>),
    /// The transfer is here.
    Received {
        /// Of which shard.
        shard: ShardId,
        /// Life of the former owner.
        incarnation: Incarnation,
        /// Which transfer.
        id: u64,
    },
}

/// A hand-over of messages; empty when there were none, to say that the shard may be taken.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Transfer<M> {
    /// Of which shard.
    pub shard: ShardId,
    /// Life of the former owner.
    pub from: Incarnation,
    /// Life of the receiver: another life cannot know whether the one before has received it.
    pub to: Incarnation,
    /// Rises within the life of the former owner.
    pub id: u64,
    /// In the order of their processing.
    pub batch: Vec<M>,
}
