//! How an actor is reached: one typed, cloneable address, whether the actor is in this process or on another node.
//!
//! A near address stays valid over restarts of its actor; a far one is good for one life of its node.

use std::fmt;
use std::sync::Arc;

use futures_util::future::BoxFuture;

use crate::cluster::NodeId;
use crate::deadline::Deadline;
use crate::mailbox::{Control, Core, DeadLetters, Envelope, Mail};
use crate::reply::reply_slot;

/// Where messages of one type go.
pub struct Address<M: Mail> {
    route: Route<M>,
}

enum Route<M: Mail> {
    Near(Arc<Core<M>>),
    Far(Arc<dyn Far<M>>),
}

/// An actor on another node.
pub(crate) trait Far<M: Mail>: Send + Sync {
    fn tell(&self, message: M) -> Result<(), TellError<M>>;
    fn ask(&self, message: M, deadline: Deadline) -> BoxFuture<'static, Result<M::Result, AskError>>;
    /// Nothing when it is not always the same.
    fn node(&self) -> Option<&NodeId>;
    /// Asks on their way to that node, and how many may be.
    fn window(&self) -> (usize, usize);
}

/// Why a message was not accepted; gives it back.
#[derive(thiserror::Error)]
pub enum TellError<M> {
    /// The mailbox, or what may wait on the way to it, holds as much as it may. Shed or come back later.
    #[error("mailbox is full")]
    Full(M),
    /// The actor is gone for good, or its node's life is over.
    #[error("mailbox is closed")]
    Closed(M),
    /// The node lives but cannot be reached now, neither directly nor through another. Come back later.
    #[error("node cannot be reached")]
    Unreachable(M),
    /// The message cannot be sent there: it has no form that the other node reads, or is too long. The program acts.
    #[error("not sent: {1}")]
    Unsendable(M, Refusal),
}

/// Why an ask ended without an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AskError {
    /// Not accepted: the mailbox, or what may wait on the way to it, holds as much as it may.
    #[error("mailbox is full")]
    Full,
    /// Not accepted: the actor is gone for good.
    #[error("mailbox is closed")]
    Closed,
    /// Accepted, but given up: the actor failed or stopped while it held the message.
    #[error("actor failed before it answered")]
    Failed,
    /// The deadline passed first. The message may still have had its effect.
    #[error("deadline exceeded")]
    Deadline,
    /// Not accepted: the node lives but cannot be reached now.
    #[error("node cannot be reached")]
    Unreachable,
    /// The node went down, or the link to it was lost, while the ask was on its way. It may have had its effect.
    #[error("node or link was lost before it answered")]
    Lost,
    /// Not accepted: the other node does not take this message.
    #[error("refused: {0}")]
    Refused(Refusal),
}

/// Why a node does not take a message. Whoever runs the two programs acts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, thiserror::Error)]
pub enum Refusal {
    /// It has no such service.
    #[error("no such service")]
    UnknownService,
    /// The service does not take this type of message.
    #[error("unknown message type")]
    UnknownType,
    /// It knows the message only in other layouts.
    #[error("unknown message version")]
    UnknownVersion,
    /// Longer than the type allows.
    #[error("too large")]
    TooLarge,
    /// Not the message it claims to be.
    #[error("malformed")]
    Malformed,
    /// Overtaken by a later one on another way; order is kept by not taking it.
    #[error("overtaken")]
    Overtaken,
    /// It was for a life of the node that is over.
    #[error("for an earlier life")]
    OtherLife,
    /// Asked to pass it on, the node could not.
    #[error("no way on")]
    NoRoute,
}

impl<M: Mail> Address<M> {
    pub(crate) fn new(core: Arc<Core<M>>) -> Self {
        Self { route: Route::Near(core) }
    }

    pub(crate) fn far(far: Arc<dyn Far<M>>) -> Self {
        Self { route: Route::Far(far) }
    }

    /// Hands the message over or gives it back; never waits. To another node, handed over means on its way: it
    /// arrives at most once, and not at all when the node, the link or the actor's mailbox fails it, which is
    /// counted there.
    pub fn tell(&self, message: M) -> Result<(), TellError<M>> {
        match &self.route {
            Route::Near(core) => core.push(Envelope::told(message)),
            Route::Far(far) => far.tell(message),
        }
    }

    /// Hands the message over and waits for its answer. Needs a tokio timer around it.
    /// Dropping the future abandons the ask, on another node too: a queued message is then skipped.
    pub async fn ask(&self, message: M, deadline: Deadline) -> Result<M::Result, AskError> {
        match &self.route {
            Route::Near(core) => ask_near(core, message, deadline).await,
            Route::Far(far) => far.ask(message, deadline).await,
        }
    }

    /// The node the actor is on; `None`: this one, or one that is chosen for every message.
    #[must_use]
    pub fn node(&self) -> Option<&NodeId> {
        match &self.route {
            Route::Near(_) => None,
            Route::Far(far) => far.node(),
        }
    }

    /// Messages waiting now; of an actor on another node, asks on their way to that node.
    pub fn depth(&self) -> usize {
        match &self.route {
            Route::Near(core) => core.depth(),
            Route::Far(far) => far.window().0,
        }
    }

    /// Messages that may wait; as [`Address::depth`].
    pub fn capacity(&self) -> usize {
        match &self.route {
            Route::Near(core) => core.capacity(),
            Route::Far(far) => far.window().1,
        }
    }

    /// Messages that reached nobody, by reason. Those of an actor on another node are counted there.
    pub fn dead_letters(&self) -> DeadLetters {
        match &self.route {
            Route::Near(core) => core.dead_letters(),
            Route::Far(_) => DeadLetters::default(),
        }
    }

    /// The mailbox, if it is in this process.
    pub(crate) fn core(&self) -> Option<&Arc<Core<M>>> {
        match &self.route {
            Route::Near(core) => Some(core),
            Route::Far(_) => None,
        }
    }
}

async fn ask_near<M: Mail>(core: &Core<M>, message: M, deadline: Deadline) -> Result<M::Result, AskError> {
    if core.is_over(deadline) {
        core.count_expired();
        return Err(AskError::Deadline);
    }
    let (slot, reply) = reply_slot();
    core.push(Envelope { message, slot, deadline: Some(deadline) }).map_err(AskError::from)?;
    match reply.before(deadline).await {
        // The mailbox drops what expired, which may be a moment before the timer here fires.
        Err(AskError::Failed) if core.is_over(deadline) => Err(AskError::Deadline),
        ended => ended,
    }
}

impl<M: Mail> Clone for Address<M> {
    fn clone(&self) -> Self {
        let route = match &self.route {
            Route::Near(core) => Route::Near(Arc::clone(core)),
            Route::Far(far) => Route::Far(Arc::clone(far)),
        };
        Self { route }
    }
}

impl<M: Mail> fmt::Debug for Address<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = f.debug_struct("Address");
        if let Some(node) = self.node() {
            debug.field("node", node);
        }
        debug.field("depth", &self.depth()).field("capacity", &self.capacity()).finish()
    }
}

impl<M> TellError<M> {
    /// The message that was refused.
    pub fn into_message(self) -> M {
        match self {
            Self::Full(message)
            | Self::Closed(message)
            | Self::Unreachable(message)
            | Self::Unsendable(message, _) => message,
        }
    }
}

impl<M> From<TellError<M>> for AskError {
    fn from(refused: TellError<M>) -> Self {
        match refused {
            TellError::Full(_) => Self::Full,
            TellError::Closed(_) => Self::Closed,
            TellError::Unreachable(_) => Self::Unreachable,
            TellError::Unsendable(_, refusal) => Self::Refused(refusal),
        }
    }
}

impl<M> fmt::Debug for TellError<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Full(_) => f.write_str("Full"),
            Self::Closed(_) => f.write_str("Closed"),
            Self::Unreachable(_) => f.write_str("Unreachable"),
            Self::Unsendable(_, refusal) => f.debug_tuple("Unsendable").field(refusal).finish(),
        }
    }
}
