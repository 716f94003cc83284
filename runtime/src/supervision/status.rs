//! What can be seen of a tree from outside.

use std::error::Error;
use std::sync::Arc;
use std::time::SystemTime;

use crate::mailbox::DeadLetters;

/// Why an incarnation of an actor ended.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ActorFailure {
    /// The factory refused, for instance because a device is not there.
    #[error("factory failed: {0}")]
    FactoryFailed(Arc<dyn Error + Send + Sync>),
    /// The factory panicked.
    #[error("factory panicked: {0}")]
    FactoryPanicked(Arc<str>),
    /// The actor gave up with an error.
    #[error("failed: {0}")]
    Failed(Arc<dyn Error + Send + Sync>),
    /// The actor panicked.
    #[error("panicked: {0}")]
    Panicked(Arc<str>),
    /// The actor returned; a failure unless it had been told to stop.
    #[error("returned without being told to")]
    Returned,
    /// The thread it lived on died under it, or could not be had.
    #[error("vanished with its thread")]
    Vanished,
    /// It did not stop in its time and was left behind; its mailbox went to a new incarnation.
    #[error("did not stop in time")]
    Stuck,
}

/// Which kind of actor it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ActorKind {
    /// An actix actor on the shared arbiter.
    Light,
    /// An actor on a thread of its own.
    Worker,
}

/// What an actor is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ActorState {
    /// Waits for its turn or its backoff.
    Waiting,
    /// Its factory runs.
    Starting,
    /// Serves its mailbox.
    Running,
    /// Told to stop, not gone yet.
    Stopping,
    /// Gone, and not coming back.
    Stopped,
}

/// One actor as it is now.
#[derive(Clone, Debug)]
pub struct ActorStatus {
    /// Unique in the tree.
    pub name: Arc<str>,
    /// The groups that it is in, the outermost first; empty: it is a child of the root.
    pub groups: Arc<[Arc<str>]>,
    /// Which kind of actor it is.
    pub kind: ActorKind,
    /// What it is doing.
    pub state: ActorState,
    /// Incarnations after the first.
    pub restarts: u64,
    /// Messages waiting now.
    pub depth: usize,
    /// Messages that may wait.
    pub capacity: usize,
    /// Messages that it has taken out to handle, over all incarnations; its rate is how much the actor does.
    pub taken: u64,
    /// Messages that reached nobody.
    pub dead_letters: DeadLetters,
    /// The latest failure, if it ever failed.
    pub last_failure: Option<LastFailure>,
}

/// A failure and its time.
#[derive(Clone, Debug)]
pub struct LastFailure {
    /// When it was noticed.
    pub at: SystemTime,
    /// What it was.
    pub failure: ActorFailure,
}

/// How a tree ended.
#[derive(Clone, Debug)]
pub enum Outcome {
    /// Its owner stopped it.
    Stopped(StopReport),
    /// A failure went up to the root: the node should go down and be started anew.
    StopNode {
        /// The actor that failed last.
        actor: Arc<str>,
        /// How it failed.
        failure: ActorFailure,
        /// How the rest went down.
        report: StopReport,
    },
}

/// How a stop went.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StopReport {
    /// Actors that had not stopped when time was up; their threads live on.
    pub stuck: Vec<Arc<str>>,
    /// Messages thrown away because time was up or their actor was down.
    pub discarded: usize,
}
