//! What an owner wants done, as its shell does it.

use crate::cluster::NodeId;
use crate::cluster::lease::Post;
use crate::cluster::shard::{ShardId, ShardMessage};

/// What the shell does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action<M> {
    /// Send this to that node; it may be lost.
    Send(NodeId, ShardMessage<M>),
    /// The shard is processed here from now on, under this epoch.
    Gained {
        /// Which.
        shard: ShardId,
        /// The fence for what is done with it.
        epoch: u64,
    },
    /// The shard is processed here no more; drop what is kept for it.
    Ended {
        /// Which.
        shard: ShardId,
    },
    /// Accepted here, and it will not be known whether they were processed.
    Failed(Lost<M>),
}

/// Messages that were accepted and then given up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lost<M> {
    /// Of which shard.
    pub shard: ShardId,
    /// Why.
    pub why: Failure,
    /// Tell their senders.
    pub messages: Vec<M>,
}

/// Why accepted messages were given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// Whoever was to get them died before it said that it had.
    ReceiverDied,
    /// Whoever was to get them did not say in time that it had.
    Unanswered,
    /// This node left with them, as nobody took them.
    Left,
}

/// A message to process now. Say [`Owner::done`](super::Owner::done) afterwards; the shard waits for that.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Work<M> {
    /// Of which shard.
    pub shard: ShardId,
    /// The fence for what is done with it: consumers keep the higher.
    pub epoch: u64,
    /// The message.
    pub message: M,
}

/// What a node that wants to leave still has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Unfinished {
    /// Shards that are not handed off.
    pub shards: usize,
    /// Messages in them and on their way to the next owner.
    pub messages: usize,
}

pub(super) fn sent<M>(post: Post) -> Vec<Action<M>> {
    post.into_iter().map(|(to, message)| Action::Send(to, ShardMessage::Lease(message))).collect()
}

pub(super) fn lost<M>(shard: ShardId, why: Failure, messages: Vec<M>) -> Option<Action<M>> {
    (!messages.is_empty()).then_some(Action::Failed(Lost { shard, why, messages }))
}
