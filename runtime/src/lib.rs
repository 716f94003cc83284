//! Actors under supervision: bounded mailboxes, deadlines, restarts.
//!
//! Knows nothing of forecasts, HTTP, devices or the place it runs in. Two kinds of actors live in one tree:
//! actix actors share one arbiter thread, workers own a plain thread each.
//!
//! What holds:
//! - every mailbox is bounded, and a full one refuses;
//! - an ask always ends: with the answer, a refusal, a failure or its deadline;
//! - messages of one sender reach one mailbox in the order they were sent, each at most once;
//! - a mailbox outlives the incarnations of its actor: what is queued survives a restart, what was being
//!   handled fails at once with [`AskError::Failed`].

mod actor;
mod address;
mod clock;
mod deadline;
mod mailbox;
mod reply;
mod supervision;

pub use actor::{Failure, Worker};
pub use address::{Address, AskError, TellError};
pub use clock::{Clock, ManualClock, SystemClock};
pub use deadline::Deadline;
pub use mailbox::{DeadLetters, Envelope, Inbox, Mail, Mailbox, Received};
pub use reply::{Reply, ReplySlot, reply_slot};
pub use supervision::{
    ActorFailure, ActorKind, ActorState, ActorStatus, Backoff, Budget, ChildSpec, Children, Escalate,
    LastFailure, Outcome, StartError, StopReport, Strategy, Tree,
};
