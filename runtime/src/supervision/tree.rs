//! A running tree as its owner holds it: look at it, wait for it, break it on purpose, stop it.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};
use std::thread;

use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::time::timeout_at;

use crate::actor::Event;
use crate::clock::Clock;
use crate::cluster::watchdog::Pulses;
use crate::deadline::Deadline;
use crate::mailbox::Control;
use crate::supervision::keeper::Keeper;
use crate::supervision::policy::{Policy, ROOT};
use crate::supervision::spec::{ActorSpec, Child, Children};
use crate::supervision::status::{ActorKind, ActorState, ActorStatus, LastFailure, Outcome, StopReport};

/// Supervised actors. Dropping it stops them without waiting.
pub struct Tree {
    view: TreeView,
    events: Sender<Event>,
    clock: Arc<dyn Clock>,
    keeper: Mutex<Option<thread::JoinHandle<()>>>,
}

/// Why a tree cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Two children have one name. A mistake of the program.
    #[error("two actors are called `{0}`")]
    DuplicateName(Arc<str>),
    /// The system has no thread left.
    #[error("no thread for the supervisor")]
    NoThread(#[source] std::io::Error),
}

impl Tree {
    /// Starts the children in order, each once the one before runs or has failed, and returns before that.
    /// Needs no async runtime around it. The seed draws the jitter.
    pub fn start(children: Children, clock: Arc<dyn Clock>, seed: u64) -> Result<Self, StartError> {
        let mut policy = Policy::new(children.strategy, seed);
        let mut specs = Vec::new();
        flatten(children, ROOT, &[], &mut policy, &mut specs);
        let mut names = HashSet::new();
        if let Some((twice, _)) = specs.iter().find(|(spec, _)| !names.insert(Arc::clone(&spec.name))) {
            return Err(StartError::DuplicateName(Arc::clone(&twice.name)));
        }
        let entries = specs
            .iter()
            .map(|(spec, groups)| Entry {
                name: Arc::clone(&spec.name),
                groups: Arc::clone(groups),
                kind: spec.kind,
                mailbox: Arc::clone(&spec.mailbox),
            })
            .collect();
        let specs: Vec<ActorSpec> = specs.into_iter().map(|(spec, _)| spec).collect();
        let board = Arc::new(Board::new(specs.len()));
        let (events, queued) = channel();
        let keeper =
            Keeper::new(specs, policy, Arc::clone(&clock), (events.clone(), queued), Arc::clone(&board));
        let keeper = thread::Builder::new()
            .name("supervisor".into())
            .spawn(move || keeper.run())
            .map_err(StartError::NoThread)?;
        Ok(Self { view: TreeView { entries, board }, events, clock, keeper: Mutex::new(Some(keeper)) })
    }

    /// Every actor as it is now, in start order.
    pub fn snapshot(&self) -> Vec<ActorStatus> {
        self.view.snapshot()
    }

    /// For whoever looks on and owns nothing; good beyond the tree's own life.
    pub fn view(&self) -> TreeView {
        self.view.clone()
    }

    /// Where a [`Watch`](crate::watchdog::Watch) sees whether the actors move; good beyond the tree's own life.
    pub fn pulses(&self) -> Pulses {
        let actors =
            self.view.entries.iter().map(|entry| (Arc::clone(&entry.name), Arc::clone(&entry.mailbox)));
        Pulses { actors: actors.collect() }
    }

    /// Waits until a snapshot pleases; looks whenever an actor changes its state. False at the deadline.
    pub async fn wait_until(&self, deadline: Deadline, pleases: impl Fn(&[ActorStatus]) -> bool) -> bool {
        let mut changes = self.view.board.changes.subscribe();
        let settled = async {
            while !pleases(&self.snapshot()) {
                if changes.changed().await.is_err() {
                    return false;
                }
            }
            true
        };
        timeout_at(deadline.instant().into(), settled).await.unwrap_or(false)
    }

    /// Waits until every actor runs or has been left down. False at the deadline.
    pub async fn wait_running(&self, deadline: Deadline) -> bool {
        let settled =
            |status: &ActorStatus| matches!(status.state, ActorState::Running | ActorState::Stopped);
        self.wait_until(deadline, |statuses| statuses.iter().all(settled)).await
    }

    /// Makes an actor panic at its next look into its mailbox, idle or not; false if there is no such actor.
    pub fn inject_panic(&self, name: &str) -> bool {
        let entry = self.view.entries.iter().find(|entry| &*entry.name == name);
        if let Some(entry) = entry {
            entry.mailbox.panic_next();
        }
        entry.is_some()
    }

    /// How the tree ended, if it has.
    pub fn outcome(&self) -> Option<Outcome> {
        self.view.outcome()
    }

    /// Waits for the tree to end, by a stop or by a failure that went up to the root.
    pub async fn ended(&self) -> Outcome {
        let mut outcome = self.view.board.outcome.subscribe();
        loop {
            if let Some(outcome) = outcome.borrow_and_update().clone() {
                return outcome;
            }
            // The board holds the sender, so this only ever waits.
            let _ = outcome.changed().await;
        }
    }

    /// Stops the actors, last started first: each refuses new messages, empties its mailbox and goes.
    /// At the deadline the rest drop what they have; those that do not even then are reported.
    pub async fn stop(&self, deadline: Deadline) -> StopReport {
        // The supervisor is gone only when the tree has ended.
        let _ = self.events.send(Event::Stop(deadline));
        let outcome = self.ended().await;
        if let Some(keeper) = self.keeper.lock().take() {
            // It has published its last word, so this is a moment.
            let _ = keeper.join();
        }
        match outcome {
            Outcome::Stopped(report) | Outcome::StopNode { report, .. } => report,
        }
    }
}

/// A tree seen from outside.
#[derive(Clone)]
pub struct TreeView {
    entries: Arc<[Entry]>,
    board: Arc<Board>,
}

impl TreeView {
    /// Every actor as it is now, in start order.
    pub fn snapshot(&self) -> Vec<ActorStatus> {
        let posts = self.board.posts.lock().clone();
        let described = self.entries.iter().zip(posts).map(|(entry, post)| ActorStatus {
            name: Arc::clone(&entry.name),
            groups: Arc::clone(&entry.groups),
            kind: entry.kind,
            state: post.state,
            restarts: post.restarts,
            depth: entry.mailbox.depth(),
            capacity: entry.mailbox.capacity(),
            taken: entry.mailbox.taken(),
            dead_letters: entry.mailbox.dead_letters(),
            last_failure: post.last_failure,
        });
        described.collect()
    }

    /// How the tree ended, if it has.
    pub fn outcome(&self) -> Option<Outcome> {
        self.board.outcome.borrow().clone()
    }
}

impl Tree {
    /// Moves the deadline of a stop that is under way forward.
    pub(crate) fn hasten(&self, deadline: Deadline) {
        let _ = self.events.send(Event::Stop(deadline));
    }
}

impl Drop for Tree {
    fn drop(&mut self) {
        let _ = self.events.send(Event::Stop(Deadline::at(self.clock.now())));
    }
}

struct Entry {
    name: Arc<str>,
    groups: Arc<[Arc<str>]>,
    kind: ActorKind,
    mailbox: Arc<dyn Control>,
}

/// Where the supervisor writes and the owner reads.
pub(crate) struct Board {
    posts: Mutex<Vec<Post>>,
    changes: watch::Sender<()>,
    outcome: watch::Sender<Option<Outcome>>,
}

#[derive(Clone)]
pub(crate) struct Post {
    pub(crate) state: ActorState,
    pub(crate) restarts: u64,
    pub(crate) last_failure: Option<LastFailure>,
}

impl Board {
    fn new(actor_count: usize) -> Self {
        let post = Post { state: ActorState::Waiting, restarts: 0, last_failure: None };
        Self {
            posts: Mutex::new(vec![post; actor_count]),
            changes: watch::Sender::new(()),
            outcome: watch::Sender::new(None),
        }
    }

    pub(crate) fn change(&self, change: impl FnOnce(&mut [Post])) {
        change(&mut self.posts.lock());
        self.changes.send_replace(());
    }

    pub(crate) fn end(&self, outcome: Outcome) {
        self.outcome.send_replace(Some(outcome));
        self.changes.send_replace(());
    }
}

/// Numbers the actors in start order, for the policy and the supervisor alike.
fn flatten(
    children: Children,
    parent: usize,
    above: &[Arc<str>],
    policy: &mut Policy,
    specs: &mut Vec<(ActorSpec, Arc<[Arc<str>]>)>,
) {
    for child in children.nodes {
        match child {
            Child::Actor(spec) => {
                policy.add_actor(parent, spec.rules);
                specs.push((spec, above.into()));
            }
            Child::Group { name, rules, children } => {
                let group = policy.add_group(parent, rules, children.strategy);
                let above: Vec<Arc<str>> = above.iter().cloned().chain([name]).collect();
                flatten(children, group, &above, policy, specs);
            }
        }
    }
}
