//! How an actor is reached: a typed, cloneable address that stays valid over restarts.
//!
//! Knows the mailbox, never the actor behind it.

use std::fmt;
use std::sync::Arc;

use crate::deadline::Deadline;
use crate::mailbox::{Control, Core, DeadLetters, Envelope, Mail};
use crate::reply::{ReplySlot, reply_slot};

/// Where messages of one type go.
pub struct Address<M: Mail> {
    core: Arc<Core<M>>,
}

/// Why a message was not accepted; gives it back.
#[derive(thiserror::Error)]
pub enum TellError<M> {
    /// The mailbox holds as much as it may. Shed or come back later.
    #[error("mailbox is full")]
    Full(M),
    /// The actor is gone for good.
    #[error("mailbox is closed")]
    Closed(M),
}

/// Why an ask ended without an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AskError {
    /// Not accepted: the mailbox holds as much as it may.
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
}

impl<M: Mail> Address<M> {
    pub(crate) fn new(core: Arc<Core<M>>) -> Self {
        Self { core }
    }

    /// Hands the message over or gives it back; never waits.
    pub fn tell(&self, message: M) -> Result<(), TellError<M>> {
        self.core.push(Envelope { message, slot: ReplySlot::nobody(), deadline: None })
    }

    /// Hands the message over and waits for its answer. Needs a tokio timer around it.
    /// Dropping the future abandons the ask: a queued message is then skipped.
    pub async fn ask(&self, message: M, deadline: Deadline) -> Result<M::Result, AskError> {
        if deadline.expired(self.core.now()) {
            self.core.count_expired();
            return Err(AskError::Deadline);
        }
        let (slot, reply) = reply_slot();
        self.core.push(Envelope { message, slot, deadline: Some(deadline) }).map_err(
            |refused| match refused {
                TellError::Full(_) => AskError::Full,
                TellError::Closed(_) => AskError::Closed,
            },
        )?;
        match reply.before(deadline).await {
            // The mailbox drops what expired, which may be a moment before the timer here fires.
            Err(AskError::Failed) if deadline.expired(self.core.now()) => Err(AskError::Deadline),
            ended => ended,
        }
    }

    /// Messages waiting now.
    pub fn depth(&self) -> usize {
        self.core.depth()
    }

    /// Messages that may wait.
    pub fn capacity(&self) -> usize {
        self.core.capacity()
    }

    /// Messages that reached nobody, by reason.
    pub fn dead_letters(&self) -> DeadLetters {
        self.core.dead_letters()
    }
}

impl<M: Mail> Clone for Address<M> {
    fn clone(&self) -> Self {
        Self { core: Arc::clone(&self.core) }
    }
}

impl<M: Mail> fmt::Debug for Address<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Address").field("depth", &self.depth()).field("capacity", &self.capacity()).finish()
    }
}

impl<M> TellError<M> {
    /// The message that was refused.
    pub fn into_message(self) -> M {
        match self {
            Self::Full(message) | Self::Closed(message) => message,
        }
    }
}

impl<M> fmt::Debug for TellError<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Full(_) => "Full",
            Self::Closed(_) => "Closed",
        })
    }
}
