//! The slot an answer travels in: made by the asker, filled once by whoever holds the other half.
//!
//! A slot that is dropped unfilled ends its ask at once, so the death of an actor answers everything it held. The
//! asker may be in this process or, through [`Caller`], on another node; the actor cannot tell.

use std::fmt;
use std::future::pending;

use futures_util::future::BoxFuture;
use tokio::sync::oneshot;

use crate::address::AskError;
use crate::alarm::before;
use crate::deadline::Deadline;

/// A slot and the wait for it, for messages that carry their own slot.
pub fn reply_slot<R>() -> (ReplySlot<R>, Reply<R>) {
    let (sender, receiver) = oneshot::channel();
    (ReplySlot(Slot::Here(sender)), Reply(receiver))
}

/// The half that answers.
#[derive(Debug)]
pub struct ReplySlot<R>(Slot<R>);

enum Slot<R> {
    Nobody,
    Here(oneshot::Sender<R>),
    Far(Box<dyn Caller<R>>),
}

/// An asker on another node. Dropping it unanswered tells the asker that the actor failed.
pub(crate) trait Caller<R>: Send {
    /// Sends the answer on its way; false when nobody waits any more.
    fn answer(self: Box<Self>, answer: R) -> bool;
    /// Says why there will be no answer.
    fn refuse(self: Box<Self>, why: AskError);
    /// Whether the asker has given up.
    fn is_gone(&self) -> bool;
    /// Resolves when the asker gives up.
    fn gone(&mut self) -> BoxFuture<'_, ()>;
}

impl<R> ReplySlot<R> {
    /// A slot nobody waits for: the one of a tell.
    pub(crate) fn nobody() -> Self {
        Self(Slot::Nobody)
    }

    pub(crate) fn far(caller: Box<dyn Caller<R>>) -> Self {
        Self(Slot::Far(caller))
    }

    /// Answers; false when nobody waits any more.
    pub fn send(self, reply: R) -> bool {
        match self.0 {
            Slot::Nobody => false,
            Slot::Here(sender) => sender.send(reply).is_ok(),
            Slot::Far(caller) => caller.answer(reply),
        }
    }

    /// Ends the ask with a reason. An asker in this process has it from elsewhere, and only sees the slot dropped.
    pub(crate) fn refuse(self, why: AskError) {
        if let Slot::Far(caller) = self.0 {
            caller.refuse(why);
        }
    }

    /// Whether there was an asker who has left. Work for it can be skipped.
    pub fn is_abandoned(&self) -> bool {
        match &self.0 {
            Slot::Nobody => false,
            Slot::Here(sender) => sender.is_closed(),
            Slot::Far(caller) => caller.is_gone(),
        }
    }

    /// Resolves once the asker has left; never for a tell.
    pub async fn abandoned(&mut self) {
        match &mut self.0 {
            Slot::Nobody => pending().await,
            Slot::Here(sender) => sender.closed().await,
            Slot::Far(caller) => caller.gone().await,
        }
    }
}

impl<R: Send + 'static> ReplySlot<R> {
    /// For actix, which answers into a channel of this kind. Called on an arbiter: an asker on another node gets
    /// its answer from a task there.
    pub(crate) fn into_sender(self) -> Option<oneshot::Sender<R>> {
        match self.0 {
            Slot::Nobody => None,
            Slot::Here(sender) => Some(sender),
            Slot::Far(mut caller) => {
                let (sender, mut receiver) = oneshot::channel();
                actix::spawn(async move {
                    tokio::select! {
                        answered = &mut receiver => if let Ok(answer) = answered {
                            caller.answer(answer);
                        },
                        // Dropping the receiver tells the handler's future that nobody waits.
                        () = caller.gone() => {}
                    }
                });
                Some(sender)
            }
        }
    }
}

impl<R> fmt::Debug for Slot<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Nobody => "Nobody",
            Self::Here(_) => "Here",
            Self::Far(_) => "Far",
        })
    }
}

/// The half that waits. Dropping it abandons the ask.
#[derive(Debug)]
pub struct Reply<R>(oneshot::Receiver<R>);

impl<R> Reply<R> {
    /// Waits for the answer, but no longer than the deadline.
    pub async fn before(self, deadline: Deadline) -> Result<R, AskError> {
        match before(deadline, self.0).await {
            Some(Ok(reply)) => Ok(reply),
            Some(Err(_dropped)) => Err(AskError::Failed),
            None => Err(AskError::Deadline),
        }
    }
}
