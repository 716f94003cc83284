//! The slot an answer travels in: made by the asker, filled once by whoever holds the other half.
//!
//! A slot that is dropped unfilled ends its ask at once, so the death of an actor answers everything it held.

use tokio::sync::oneshot;
use tokio::time::timeout_at;

use crate::address::AskError;
use crate::deadline::Deadline;

/// A slot and the wait for it, for messages that carry their own slot.
pub fn reply_slot<R>() -> (ReplySlot<R>, Reply<R>) {
    let (sender, receiver) = oneshot::channel();
    (ReplySlot(Some(sender)), Reply(receiver))
}

/// The half that answers.
#[derive(Debug)]
pub struct ReplySlot<R>(Option<oneshot::Sender<R>>);

impl<R> ReplySlot<R> {
    /// A slot nobody waits for: the one of a tell.
    pub(crate) fn nobody() -> Self {
        Self(None)
    }

    /// Answers; false when nobody waits any more.
    pub fn send(self, reply: R) -> bool {
        self.0.is_some_and(|sender| sender.send(reply).is_ok())
    }

    /// Whether there was an asker who has left. Work for it can be skipped.
    pub fn is_abandoned(&self) -> bool {
        self.0.as_ref().is_some_and(oneshot::Sender::is_closed)
    }

    pub(crate) fn into_sender(self) -> Option<oneshot::Sender<R>> {
        self.0
    }
}

/// The half that waits. Dropping it abandons the ask.
#[derive(Debug)]
pub struct Reply<R>(oneshot::Receiver<R>);

impl<R> Reply<R> {
    /// Waits for the answer, but no longer than the deadline.
    pub async fn before(self, deadline: Deadline) -> Result<R, AskError> {
        match timeout_at(deadline.instant().into(), self.0).await {
            Ok(Ok(reply)) => Ok(reply),
            Ok(Err(_dropped)) => Err(AskError::Failed),
            Err(_elapsed) => Err(AskError::Deadline),
        }
    }
}
