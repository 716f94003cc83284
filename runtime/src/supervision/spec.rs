//! What the owner of a tree writes down: children in start order, each with a factory and its rules.

use std::sync::Arc;
use std::time::Duration;

use actix::{Actor, Context, Handler};

use crate::actor::{Failure, Launch, Worker, light, worker};
use crate::mailbox::{Control, Mail, Mailbox};
use crate::supervision::policy::{Backoff, Budget, Escalate, Rules, Strategy};
use crate::supervision::status::ActorKind;

/// The rules of one child, actor or group.
#[derive(Clone, Debug)]
pub struct ChildSpec {
    /// Unique in the tree.
    pub name: Arc<str>,
    /// How many failures are met with a restart.
    pub budget: Budget,
    /// How long to wait before each.
    pub backoff: Backoff,
    /// What happens after the last.
    pub when_spent: Escalate,
    /// When a sibling's failure stops it too: how long it may take before it is left behind.
    /// Of a group, its actors' own numbers count.
    pub stop_within: Duration,
}

impl ChildSpec {
    /// Five restarts in 30 s, waits from 50 ms to 5 s with a fifth of jitter, then the parent fails.
    pub fn new(name: impl Into<Arc<str>>) -> Self {
        Self {
            name: name.into(),
            budget: Budget { restarts_max: 5, within: Duration::from_secs(30) },
            backoff: Backoff { base: Duration::from_millis(50), max: Duration::from_secs(5), jitter: 0.2 },
            when_spent: Escalate::Parent,
            stop_within: Duration::from_secs(5),
        }
    }

    fn rules(&self) -> Rules {
        Rules { budget: self.budget, backoff: self.backoff, when_spent: self.when_spent }
    }
}

/// Children of one supervisor, in start order; they stop in reverse.
pub struct Children {
    pub(crate) strategy: Strategy,
    pub(crate) nodes: Vec<Child>,
}

pub(crate) enum Child {
    Actor(ActorSpec),
    Group { name: Arc<str>, rules: Rules, children: Children },
}

pub(crate) struct ActorSpec {
    pub(crate) name: Arc<str>,
    pub(crate) kind: ActorKind,
    pub(crate) rules: Rules,
    pub(crate) stop_within: Duration,
    pub(crate) mailbox: Arc<dyn Control>,
    pub(crate) launch: Box<dyn Launch>,
}

impl Children {
    /// No children yet.
    pub fn new(strategy: Strategy) -> Self {
        Self { strategy, nodes: Vec::new() }
    }

    /// Adds an actix actor: made by the factory on the arbiter, fed from the mailbox.
    /// It must not block, since it shares its thread.
    pub fn light<M, A, F>(&mut self, spec: ChildSpec, mailbox: Mailbox<M>, factory: F)
    where
        M: Mail,
        A: Actor<Context = Context<A>> + Handler<M>,
        F: Fn() -> Result<A, Failure> + Send + Sync + 'static,
    {
        let launch = light(Arc::clone(&mailbox.core), Arc::new(factory));
        self.push(spec, ActorKind::Light, mailbox, launch);
    }

    /// Adds an actor on a thread of its own: made by the factory on that thread, and free to block there.
    pub fn worker<M, W, F>(&mut self, spec: ChildSpec, mailbox: Mailbox<M>, factory: F)
    where
        M: Mail,
        W: Worker<M>,
        F: Fn() -> Result<W, Failure> + Send + Sync + 'static,
    {
        let launch = worker(Arc::clone(&spec.name), Arc::clone(&mailbox.core), Arc::new(factory));
        self.push(spec, ActorKind::Worker, mailbox, launch);
    }

    /// Adds a group: one child outwardly, with children and a strategy of its own.
    pub fn group(&mut self, spec: &ChildSpec, children: Children) {
        self.nodes.push(Child::Group { name: Arc::clone(&spec.name), rules: spec.rules(), children });
    }

    fn push<M: Mail>(
        &mut self,
        spec: ChildSpec,
        kind: ActorKind,
        mailbox: Mailbox<M>,
        launch: Box<dyn Launch>,
    ) {
        self.nodes.push(Child::Actor(ActorSpec {
            rules: spec.rules(),
            name: spec.name,
            kind,
            stop_within: spec.stop_within,
            mailbox: mailbox.core,
            launch,
        }));
    }
}
