//! What the regions of one sharded type tell each other, in the form in which it crosses.

use std::time::Instant;

use serde::{Deserialize, Serialize};

use super::{Answer, Delivery, ShardId, ShardMessage};
use crate::cluster::body::Body;
use crate::cluster::{Incarnation, NodeId};
use crate::remote_message;

/// Longest packet: a hand-over, which must also pass through a third node.
pub(super) const PACKET_BYTES_MAX: usize = 4_194_304;
/// Longest key.
pub(super) const KEY_BYTES_MAX: usize = 256;
/// What a parcel takes beside its message.
pub(super) const PARCEL_BYTES: usize = KEY_BYTES_MAX + 256;

/// One message for one key, and whom its answer is for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Parcel {
    pub(super) origin: NodeId,
    pub(super) life: Incarnation,
    /// The origin's name for the answer; 0: nobody waits for one.
    pub(super) ask: u64,
    /// What its asker had left when it was sent; the time of a hand-over comes on top.
    pub(super) budget_us: u64,
    /// When that is over by the clock of whoever has it.
    #[serde(skip)]
    pub(super) due: Option<Instant>,
    pub(super) key: Body,
    pub(super) schema: u16,
    pub(super) body: Body,
}

#[derive(Debug, Serialize, Deserialize, actix::Message)]
#[rtype(result = "()")]
pub(super) struct Packet {
    pub(super) from: NodeId,
    pub(super) what: What,
}
// One lane for all of it: the protocol counts on the order of each pair.
remote_message!(Packet, "peregrine.shard", version 1, up to 4194304 bytes, lane Stream);

#[derive(Debug, Serialize, Deserialize)]
pub(super) enum What {
    /// Between owners.
    Shard(ShardMessage<Parcel>),
    Deliver(Delivery<Parcel>),
    Answer {
        shard: ShardId,
        id: u64,
        answer: Answer,
    },
    /// What came of a message: a layout and an answer in it, or a reason.
    Reply {
        life: Incarnation,
        ask: u64,
        outcome: Result<(u16, Body), u8>,
    },
}
