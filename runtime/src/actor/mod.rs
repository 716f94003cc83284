//! The two kinds of actors and how one incarnation of each lives and dies.
//!
//! Knows mailboxes; knows no policy: it reports what happened and leaves the verdict to supervision.

mod arbiter;
mod light;
#[cfg(test)]
mod tests;
mod worker;

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::Sender;

pub(crate) use arbiter::Arbiter;
pub(crate) use light::light;
pub(crate) use worker::worker;

use crate::mailbox::{Inbox, Mail};
use crate::supervision::ActorFailure;

/// Why a factory or an actor gave up; whatever error it had.
pub type Failure = Box<dyn std::error::Error + Send + Sync>;

/// An actor on a thread of its own. It is made, used and dropped on that thread, so it may own what is not
/// `Send`, and it may block.
pub trait Worker<M: Mail>: 'static {
    /// Serves the inbox until it says stop. Returning earlier, an error and a panic all count as failures.
    fn run(&mut self, inbox: &mut Inbox<M>) -> Result<(), Failure>;
}

/// Starts incarnations of one actor.
pub(crate) trait Launch: Send {
    /// Must not block; what comes of it is reported.
    fn launch(&mut self, arbiter: &mut Arbiter, report: Report);

    /// Called once the latest incarnation has reported its end: waits out what is left of its thread.
    fn reap(&mut self) {}
}

/// What an incarnation tells its supervisor.
pub(crate) enum Event {
    /// The factory succeeded and the actor serves its mailbox.
    Started { actor: usize, incarnation: u64 },
    /// The incarnation is gone, and everything it owned with it.
    Ended { actor: usize, incarnation: u64, how: ActorFailure },
    /// The arbiter thread has nothing left to run.
    ArbiterEnded,
    /// The owner asks for the end of the tree.
    Stop(crate::deadline::Deadline),
}

/// Reports one incarnation; says that it vanished if it is dropped without a word.
pub(crate) struct Report {
    events: Sender<Event>,
    actor: usize,
    incarnation: u64,
    ended: bool,
}

impl Report {
    pub(crate) fn new(events: Sender<Event>, actor: usize, incarnation: u64) -> Self {
        Self { events, actor, incarnation, ended: false }
    }

    fn started(&self) {
        self.send(Event::Started { actor: self.actor, incarnation: self.incarnation });
    }

    fn ended(mut self, how: ActorFailure) {
        self.ended = true;
        self.send(Event::Ended { actor: self.actor, incarnation: self.incarnation, how });
    }

    fn send(&self, event: Event) {
        // The supervisor is gone only once nobody cares any more.
        let _ = self.events.send(event);
    }
}

impl Drop for Report {
    fn drop(&mut self) {
        if !self.ended {
            let how = ActorFailure::Vanished;
            self.send(Event::Ended { actor: self.actor, incarnation: self.incarnation, how });
        }
    }
}

/// Runs what others wrote; a panic becomes its message.
fn contain<T>(body: impl FnOnce() -> T) -> Result<T, Arc<str>> {
    // Unwind safe: after a panic the incarnation and all it touched are thrown away.
    catch_unwind(AssertUnwindSafe(body)).map_err(|payload| {
        let message = panic_message(payload.as_ref()).into();
        // A payload may panic when dropped; that is nobody's business any more.
        let _ = catch_unwind(AssertUnwindSafe(|| drop(payload)));
        message
    })
}

fn panic_message(payload: &(dyn Any + Send)) -> &str {
    if let Some(message) = payload.downcast_ref::<&'static str>() {
        message
    } else if let Some(message) = payload.downcast_ref::<String>() {
        message
    } else {
        "panic without a message"
    }
}

/// Runs a factory; its error and its panic are both failures.
fn make<A>(factory: &(dyn Fn() -> Result<A, Failure> + Send + Sync)) -> Result<A, ActorFailure> {
    match contain(factory) {
        Ok(Ok(actor)) => Ok(actor),
        Ok(Err(error)) => Err(ActorFailure::FactoryFailed(error.into())),
        Err(message) => Err(ActorFailure::FactoryPanicked(message)),
    }
}
