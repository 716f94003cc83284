//! A sharded type as a program holds it: messages go to keys, wherever those are.

use std::marker::PhantomData;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use async_trait::async_trait;
use tokio::sync::{mpsc, oneshot};

use super::packet::{KEY_BYTES_MAX, PACKET_BYTES_MAX, PARCEL_BYTES};
use super::region::{Command, Ended, Start};
use super::{SenderLimits, ShardId, ShardSpec, shard_of};
use crate::actor::Failure;
use crate::address::{AskError, Refusal};
use crate::alarm::before;
use crate::cluster::Cluster;
use crate::cluster::body::Body;
use crate::cluster::exports::ExportError;
use crate::cluster::lease::LeaseLimitsError;
use crate::deadline::Deadline;
use crate::wire::RemoteMessage;

/// What a node does with the messages for the keys that it has.
#[async_trait]
pub trait ShardHandler<M: RemoteMessage>: Send + Sync + 'static {
    /// One message; of one shard one at a time, in order. An error or a panic fails the ask, and the next one
    /// follows. What it has not answered when its lease ends may be answered elsewhere: see [`ShardJob::epoch`].
    async fn handle(&self, job: ShardJob<M>) -> Result<M::Result, Failure>;

    /// A shard is processed here from now on. Must not block.
    fn gained(&self, _shard: ShardId, _epoch: u64) {}

    /// A shard is processed here no more; what is kept for it can go. Must not block.
    fn ended(&self, _shard: ShardId) {}
}

/// A message to process.
#[derive(Debug)]
pub struct ShardJob<M> {
    /// Of which shard.
    pub shard: ShardId,
    /// The fence for what is done with it: consumers keep the higher.
    pub epoch: u64,
    /// For which key.
    pub key: Vec<u8>,
    /// The message.
    pub message: M,
    /// When its asker stops waiting; none when nobody does.
    pub deadline: Option<Deadline>,
}

/// What one node lets be under way to a sharded type, and what it begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RegionLimits {
    /// Of each shard.
    pub sender: SenderLimits,
    /// Asks to all shards that wait for their answers.
    pub asks_max: usize,
    /// Owners act under epochs above it: those under which something was accepted in an earlier life, and is kept. They
    /// are above the seconds since 1970 in any case, which a clock that was set back makes too few.
    pub epoch_floor: u64,
}

impl Default for RegionLimits {
    fn default() -> Self {
        let answer_max = std::time::Duration::from_secs(2);
        Self {
            sender: SenderLimits { window: 64, waiting_max: 1024, answer_max },
            asks_max: 16_384,
            epoch_floor: 0,
        }
    }
}

/// A sharded type cannot be used like this. The program or its operator acts.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ShardError {
    /// The leases behind ownership would promise nothing.
    #[error(transparent)]
    Limits(#[from] LeaseLimitsError),
    /// There has to be a shard, and room for a message.
    #[error("no shards, or no room for a message")]
    Nothing,
    /// What a shard may hold must fit one hand-over.
    #[error("a full shard takes {bytes} bytes to hand over, at most {max} are possible")]
    TooLarge {
        /// What a full one takes.
        bytes: usize,
        /// What is possible.
        max: usize,
    },
    /// The type is in use on this node already, or the node leaves.
    #[error("sharded type `{0}` is in use here already, or this node leaves")]
    Taken(String),
    /// A node with the type's role owns shards, so it has to process them.
    #[error("this node owns shards of `{0}`: it has the role for it")]
    NoHandler(String),
    /// The name of its service is taken.
    #[error(transparent)]
    Export(#[from] ExportError),
}

/// Counted on this node since its start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RegionStats {
    /// Shards that are processed here now.
    pub owned: usize,
    /// Messages that were processed here.
    pub processed: u64,
    /// Messages that were accepted here and given up; their senders were told.
    pub lost: u64,
}

#[derive(Debug, Default)]
pub(super) struct Counters {
    pub(super) owned: AtomicUsize,
    pub(super) processed: AtomicU64,
    pub(super) lost: AtomicU64,
}

/// The way of this node to the keys of one type. Cheap to clone; the region itself ends with the node.
pub struct ShardRegion<M: RemoteMessage> {
    commands: mpsc::Sender<Command>,
    shard_count: u16,
    counters: Arc<Counters>,
    message: PhantomData<fn() -> M>,
}

impl<M: RemoteMessage> Clone for ShardRegion<M> {
    fn clone(&self) -> Self {
        Self {
            commands: self.commands.clone(),
            shard_count: self.shard_count,
            counters: Arc::clone(&self.counters),
            message: PhantomData,
        }
    }
}

impl Cluster {
    /// Takes part in a sharded type: with a handler this node owns its share of the shards, without one it only
    /// sends. What is said about messages in the module [`shard`](super) holds for [`ShardRegion::ask`] and
    /// [`ShardRegion::tell`]. Lasts until the node leaves; [`Cluster::drain`] hands the shards over first.
    ///
    /// # Errors
    /// The specification cannot work, the type is in use here already, or this node leaves.
    pub fn shards<M: RemoteMessage>(
        &self,
        spec: ShardSpec,
        limits: RegionLimits,
        handler: Option<Arc<dyn ShardHandler<M>>>,
    ) -> Result<ShardRegion<M>, ShardError> {
        spec.lease.check()?;
        if spec.shard_count == 0 || spec.queue_max == 0 || limits.sender.window == 0 {
            return Err(ShardError::Nothing);
        }
        let bytes = (M::BYTES_MAX + PARCEL_BYTES).saturating_mul(spec.queue_max).saturating_mul(2);
        let max = PACKET_BYTES_MAX - PARCEL_BYTES;
        if bytes > max {
            return Err(ShardError::TooLarge { bytes, max });
        }
        let view = self.view();
        let able = view.get(self.id()).is_some_and(|myself| super::placement::has_role(&spec, myself));
        if able && handler.is_none() {
            return Err(ShardError::NoHandler(spec.name));
        }
        let (counters, shard_count) = (Arc::<Counters>::default(), spec.shard_count);
        let start = Start { spec, limits, handler, counters: Arc::clone(&counters) };
        let commands = super::region::start(self, start)?;
        Ok(ShardRegion { commands, shard_count, counters, message: PhantomData })
    }
}

impl<M: RemoteMessage> ShardRegion<M> {
    /// Sends a message to a key and waits for its answer. Messages of this node for one key are processed in the
    /// order in which these calls are first polled.
    ///
    /// # Errors
    /// As an ask to any address. `Lost`: an owner had accepted it, and it is not known what came of it.
    pub async fn ask(&self, key: &[u8], message: M, deadline: Deadline) -> Result<M::Result, AskError> {
        match self.send(key, &message, deadline, true).await? {
            Some((schema, Body(bytes))) => {
                M::read_answer(schema, &bytes).map_err(|_| AskError::Refused(Refusal::Malformed))
            }
            None => Err(AskError::Failed),
        }
    }

    /// Sends a message to a key and waits until an owner has accepted it. It is then processed, unless the node
    /// that has it dies.
    ///
    /// # Errors
    /// It was not accepted; `Lost` and `Deadline`: perhaps it was.
    pub async fn tell(&self, key: &[u8], message: M, deadline: Deadline) -> Result<(), AskError> {
        self.send(key, &message, deadline, false).await.map(drop)
    }

    /// The shard of a key.
    #[must_use]
    pub fn shard_of(&self, key: &[u8]) -> ShardId {
        shard_of(key, self.shard_count)
    }

    /// Counters of this node.
    #[must_use]
    pub fn stats(&self) -> RegionStats {
        RegionStats {
            owned: self.counters.owned.load(Ordering::Relaxed),
            processed: self.counters.processed.load(Ordering::Relaxed),
            lost: self.counters.lost.load(Ordering::Relaxed),
        }
    }

    async fn send(&self, key: &[u8], message: &M, deadline: Deadline, answered: bool) -> Ended {
        let mut body = Vec::new();
        message.write(M::VERSION, &mut body).map_err(|_| AskError::Refused(Refusal::Malformed))?;
        if key.len() > KEY_BYTES_MAX || body.len() > M::BYTES_MAX {
            return Err(AskError::Refused(Refusal::TooLarge));
        }
        let (end, ended) = oneshot::channel();
        let command = Command {
            shard: self.shard_of(key),
            key: Body(key.to_vec()),
            schema: M::VERSION,
            body: Body(body),
            deadline,
            answered,
            end,
        };
        self.commands.try_send(command).map_err(|refused| match refused {
            mpsc::error::TrySendError::Full(_) => AskError::Full,
            mpsc::error::TrySendError::Closed(_) => AskError::Closed,
        })?;
        match before(deadline, ended).await {
            Some(Ok(ended)) => ended,
            // The region has ended with its node.
            Some(Err(_dropped)) => Err(AskError::Closed),
            None => Err(AskError::Deadline),
        }
    }
}
