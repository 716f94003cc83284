//! The thread that keeps a tree alive: takes what happened, asks the policy, acts.
//!
//! It never blocks on an actor: every step that has to wait is a state, and the next event or the next due time
//! moves it on.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender};
use std::time::{Duration, Instant};

use crate::actor::{Arbiter, Event, Report};
use crate::clock::Clock;
use crate::supervision::policy::{Policy, Verdict};
use crate::supervision::spec::ActorSpec;
use crate::supervision::status::{ActorFailure, ActorState, LastFailure, Outcome, StopReport};
use crate::supervision::tree::Board;

/// What an actor told to drop everything may take to notice, when the deadline of a stop has passed.
const HALT_GRACE: Duration = Duration::from_millis(250);
/// How long the rest may take to go down once a failure has reached the root.
const STOP_NODE_GRACE: Duration = Duration::from_secs(5);

pub(crate) struct Keeper {
    actors: Vec<Actor>,
    policy: Policy,
    recoveries: Vec<Recovery>,
    ending: Option<Ending>,
    clock: Arc<dyn Clock>,
    sender: Sender<Event>,
    events: Receiver<Event>,
    arbiter: Arbiter,
    board: Arc<Board>,
}

struct Actor {
    spec: ActorSpec,
    incarnation: u64,
    phase: Phase,
    /// Not to be started again.
    closed: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    Down,
    Starting,
    Running,
    Stopping { give_up_at: Instant },
}

/// Actors on their way through stop and start after a failure, or through their first start.
struct Recovery {
    /// In start order.
    pending: VecDeque<usize>,
    start_at: Instant,
    /// All of them have stopped; from now on they start.
    stopped: bool,
}

struct Ending {
    cause: Option<(Arc<str>, ActorFailure)>,
    deadline: Instant,
    /// Set when the deadline has passed: nothing is waited for beyond this.
    give_up_at: Option<Instant>,
    arbiter_closed: bool,
    arbiter_ended: bool,
    discarded: usize,
}

impl Keeper {
    pub(crate) fn new(
        specs: Vec<ActorSpec>,
        policy: Policy,
        clock: Arc<dyn Clock>,
        (sender, events): (Sender<Event>, Receiver<Event>),
        board: Arc<Board>,
    ) -> Self {
        let first_start =
            Recovery { pending: (0..specs.len()).collect(), start_at: clock.now(), stopped: true };
        let actors = specs
            .into_iter()
            .map(|spec| Actor { spec, incarnation: 0, phase: Phase::Down, closed: false })
            .collect();
        Self {
            actors,
            policy,
            recoveries: vec![first_start],
            ending: None,
            clock,
            arbiter: Arbiter::new(sender.clone()),
            sender,
            events,
            board,
        }
    }

    /// Runs until the tree has ended, and publishes how.
    pub(crate) fn run(mut self) {
        loop {
            let now = self.clock.now();
            let due_at = match self.ending.take() {
                None => self.recover(now),
                Some(mut ending) => match self.wind_down(&mut ending, now) {
                    Some(due_at) => {
                        self.ending = Some(ending);
                        Some(due_at)
                    }
                    None => return self.publish(ending),
                },
            };
            // This end of the channel holds a sender too, so an error can only be a timeout.
            let event = match due_at {
                Some(at) => self.events.recv_timeout(at.saturating_duration_since(now)).ok(),
                None => self.events.recv().ok(),
            };
            if let Some(event) = event {
                self.on_event(event);
            }
        }
    }

    fn on_event(&mut self, event: Event) {
        match event {
            Event::Started { actor, incarnation } => {
                let entry = &mut self.actors[actor];
                if entry.incarnation == incarnation && entry.phase == Phase::Starting {
                    self.enter(actor, Phase::Running);
                }
            }
            Event::Ended { actor, incarnation, how } => {
                if self.actors[actor].incarnation == incarnation {
                    self.actors[actor].spec.launch.reap();
                    self.on_ended(actor, how);
                }
            }
            Event::ArbiterEnded => {
                if let Some(ending) = &mut self.ending
                    && ending.arbiter_closed
                {
                    self.arbiter.reap();
                    ending.arbiter_ended = true;
                }
            }
            Event::Stop(deadline) => match &mut self.ending {
                Some(ending) => ending.deadline = ending.deadline.min(deadline.instant()),
                None => self.end(None, deadline.instant()),
            },
        }
    }

    fn on_ended(&mut self, actor: usize, how: ActorFailure) {
        let was_told = matches!(self.actors[actor].phase, Phase::Stopping { .. });
        self.enter(actor, Phase::Down);
        if was_told && matches!(how, ActorFailure::Returned) {
            return;
        }
        self.post_failure(actor, &how);
        let name = &self.actors[actor].spec.name;
        if was_told || self.ending.is_some() {
            tracing::error!(actor = %name, failure = %how, "actor failed while it stopped");
            return;
        }
        let now = self.clock.now();
        match self.policy.on_failure(actor, now) {
            Verdict::Restart { actors, after } => {
                let after_ms = u64::try_from(after.as_millis()).unwrap_or(u64::MAX);
                let along = actors.len() - 1;
                tracing::error!(actor = %name, failure = %how, after_ms, along, "actor failed, restarts");
                self.plan_recovery(actors.collect(), now + after);
            }
            Verdict::LeaveDown { actors } => {
                tracing::error!(actor = %name, failure = %how, "actor failed, stays down");
                self.forget(actors.clone());
                for actor in actors {
                    self.close(actor);
                    if self.is_alive(actor) {
                        let give_up_at = now + self.actors[actor].spec.stop_within;
                        self.enter(actor, Phase::Stopping { give_up_at });
                    }
                }
            }
            Verdict::StopNode => {
                tracing::error!(actor = %name, failure = %how, "actor failed, tree goes down");
                let cause = (Arc::clone(name), how);
                self.end(Some(cause), now + STOP_NODE_GRACE);
            }
        }
    }

    fn plan_recovery(&mut self, pending: VecDeque<usize>, mut start_at: Instant) {
        for recovery in &self.recoveries {
            if recovery.pending.iter().any(|actor| pending.contains(actor)) {
                start_at = start_at.max(recovery.start_at);
            }
        }
        self.forget(pending.iter().copied());
        let pending = pending.into_iter().filter(|&actor| !self.actors[actor].closed).collect();
        self.recoveries.push(Recovery { pending, start_at, stopped: false });
    }

    /// Takes actors out of whatever recovery they are in.
    fn forget(&mut self, actors: impl IntoIterator<Item = usize>) {
        for actor in actors {
            for recovery in &mut self.recoveries {
                recovery.pending.retain(|&pending| pending != actor);
            }
        }
    }

    /// Moves every recovery on as far as it goes; when to look again if nothing happens before.
    fn recover(&mut self, now: Instant) -> Option<Instant> {
        let mut due_at = None;
        for mut recovery in std::mem::take(&mut self.recoveries) {
            let due = if recovery.stopped { None } else { self.stop_pending(&mut recovery, now) };
            let due = if recovery.stopped { self.start_pending(&mut recovery, now) } else { due };
            due_at = earliest(due_at, due);
            if !recovery.pending.is_empty() {
                self.recoveries.push(recovery);
            }
        }
        due_at
    }

    /// Stops the pending actors one after the other, last first.
    fn stop_pending(&mut self, recovery: &mut Recovery, now: Instant) -> Option<Instant> {
        for &actor in recovery.pending.iter().rev() {
            match self.actors[actor].phase {
                Phase::Down => {}
                Phase::Stopping { give_up_at } if now < give_up_at => return Some(give_up_at),
                Phase::Stopping { .. } => self.abandon(actor),
                Phase::Starting | Phase::Running => {
                    let spec = &self.actors[actor].spec;
                    let give_up_at = now + spec.stop_within;
                    spec.mailbox.halt();
                    self.enter(actor, Phase::Stopping { give_up_at });
                    return Some(give_up_at);
                }
            }
        }
        recovery.stopped = true;
        None
    }

    /// Starts the pending actors one after the other, first first.
    fn start_pending(&mut self, recovery: &mut Recovery, now: Instant) -> Option<Instant> {
        if now < recovery.start_at {
            return Some(recovery.start_at);
        }
        while let Some(&actor) = recovery.pending.front() {
            match self.actors[actor].phase {
                Phase::Running => {
                    recovery.pending.pop_front();
                }
                Phase::Down => {
                    self.launch(actor);
                    return None;
                }
                Phase::Starting | Phase::Stopping { .. } => return None,
            }
        }
        None
    }

    fn launch(&mut self, actor: usize) {
        self.enter(actor, Phase::Starting);
        let entry = &mut self.actors[actor];
        entry.incarnation += 1;
        if entry.incarnation > 1 {
            self.board.change(|posts| posts[actor].restarts += 1);
        }
        let report = Report::new(self.sender.clone(), actor, entry.incarnation);
        entry.spec.launch.launch(&mut self.arbiter, report);
    }

    /// Leaves an incarnation behind that does not stop; whatever it still reports is not heard.
    fn abandon(&mut self, actor: usize) {
        self.actors[actor].incarnation += 1;
        self.enter(actor, Phase::Down);
        self.post_failure(actor, &ActorFailure::Stuck);
        tracing::error!(actor = %self.actors[actor].spec.name, "actor did not stop, left behind");
    }

    fn end(&mut self, cause: Option<(Arc<str>, ActorFailure)>, deadline: Instant) {
        self.recoveries.clear();
        self.ending = Some(Ending {
            cause,
            deadline,
            give_up_at: None,
            arbiter_closed: false,
            arbiter_ended: false,
            discarded: 0,
        });
    }

    /// Moves the end of the tree on; when to look again, or nothing once it is over.
    fn wind_down(&mut self, ending: &mut Ending, now: Instant) -> Option<Instant> {
        if now >= ending.deadline && ending.give_up_at.is_none() {
            ending.give_up_at = Some(now + HALT_GRACE);
            for actor in 0..self.actors.len() {
                ending.discarded += self.close(actor);
            }
        }
        let due_at = ending.give_up_at.unwrap_or(ending.deadline);
        for actor in (0..self.actors.len()).rev() {
            match self.actors[actor].phase {
                Phase::Down => ending.discarded += self.close(actor),
                Phase::Stopping { .. } if ending.give_up_at.is_some() => {}
                Phase::Stopping { .. } => return Some(due_at),
                Phase::Starting | Phase::Running => {
                    self.actors[actor].spec.mailbox.drain();
                    self.enter(actor, Phase::Stopping { give_up_at: due_at });
                    if ending.give_up_at.is_none() {
                        return Some(due_at);
                    }
                }
            }
        }
        let given_up = ending.give_up_at.is_some_and(|at| now >= at);
        if !given_up && (0..self.actors.len()).any(|actor| self.is_alive(actor)) {
            return Some(due_at);
        }
        if !ending.arbiter_closed {
            ending.arbiter_closed = true;
            ending.arbiter_ended = !self.arbiter.close();
            // Actors dropped with it still report, within this grace.
            ending.give_up_at = Some(now + HALT_GRACE);
            ending.deadline = ending.deadline.min(now);
        }
        let over = ending.arbiter_ended || ending.give_up_at.is_some_and(|at| now >= at);
        if over { None } else { ending.give_up_at }
    }

    fn publish(self, ending: Ending) {
        let stuck = self.actors.iter().filter(|actor| actor.phase != Phase::Down);
        let report = StopReport {
            stuck: stuck.map(|actor| Arc::clone(&actor.spec.name)).collect(),
            discarded: ending.discarded,
        };
        self.board.end(match ending.cause {
            None => Outcome::Stopped(report),
            Some((actor, failure)) => Outcome::StopNode { actor, failure, report },
        });
    }

    fn is_alive(&self, actor: usize) -> bool {
        self.actors[actor].phase != Phase::Down
    }

    /// Closes the mailbox for good; how many messages that threw away.
    fn close(&mut self, actor: usize) -> usize {
        let discarded = self.actors[actor].spec.mailbox.close();
        if std::mem::replace(&mut self.actors[actor].closed, true) {
            return discarded;
        }
        if !self.is_alive(actor) {
            self.enter(actor, Phase::Down);
        }
        discarded
    }

    fn enter(&mut self, actor: usize, phase: Phase) {
        let entry = &mut self.actors[actor];
        entry.phase = phase;
        let state = match phase {
            Phase::Down if entry.closed => ActorState::Stopped,
            Phase::Down => ActorState::Waiting,
            Phase::Starting => ActorState::Starting,
            Phase::Running => ActorState::Running,
            Phase::Stopping { .. } => ActorState::Stopping,
        };
        self.board.change(|posts| posts[actor].state = state);
    }

    fn post_failure(&self, actor: usize, failure: &ActorFailure) {
        let last_failure = Some(LastFailure { at: self.clock.wall(), failure: failure.clone() });
        self.board.change(|posts| posts[actor].last_failure = last_failure);
    }
}

fn earliest(one: Option<Instant>, other: Option<Instant>) -> Option<Instant> {
    match (one, other) {
        (Some(one), Some(other)) => Some(one.min(other)),
        (one, other) => one.or(other),
    }
}
