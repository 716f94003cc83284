//! Carries out on one node what [`Owner`] and [`Sender`] decide for a sharded type.

use std::collections::HashMap;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant, UNIX_EPOCH};

use futures_util::FutureExt as _;
use futures_util::future::OptionFuture;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::{sleep_until, timeout_at};

use super::handle::{Counters, RegionLimits, ShardError, ShardHandler, ShardJob};
use super::packet::{Packet, Parcel, What};
use super::{Action, Delivery, Fate, Lost, Owner, Sender, Sending, ShardId, ShardSpec, Trouble, Work};
use crate::address::{AskError, Refusal};
use crate::cluster::body::Body;
use crate::cluster::drain::Rest;
use crate::cluster::duties::{Duty, told_to_leave};
use crate::cluster::link::{reason_from_byte, reason_to_byte};
use crate::cluster::talk::{Talk, Voice};
use crate::cluster::{Cluster, NodeId, Standing, View};
use crate::deadline::Deadline;
use crate::wire::RemoteMessage;

/// Packets that wait. One more is lost, and its sender finds out.
const PACKETS_MAX: usize = 16_384;
/// Messages of this node that wait to be looked at.
const COMMANDS_MAX: usize = 4_096;
/// Packets and messages looked at before work is handed out again.
const TURN_MAX: usize = 64;
/// How often deadlines are looked at.
const TICK: Duration = Duration::from_millis(50);

/// How a message ended: with an answer, if one was waited for.
pub(super) type Ended = Result<Option<(u16, Body)>, AskError>;

/// A message of this node.
pub(crate) struct Command {
    pub(super) shard: ShardId,
    pub(super) key: Body,
    pub(super) schema: u16,
    pub(super) body: Body,
    pub(super) deadline: Deadline,
    pub(super) answered: bool,
    pub(super) end: oneshot::Sender<Ended>,
}

/// What a region is started with.
pub(crate) struct Start<M: RemoteMessage> {
    pub(super) spec: ShardSpec,
    pub(super) limits: RegionLimits,
    pub(super) handler: Option<Arc<dyn ShardHandler<M>>>,
    pub(super) counters: Arc<Counters>,
}

/// Starts the region of a type on this node.
pub(crate) fn start<M: RemoteMessage>(
    cluster: &Cluster,
    start: Start<M>,
) -> Result<mpsc::Sender<Command>, ShardError> {
    let Start { spec, limits, handler, counters } = start;
    let service = format!("@shard/{}", spec.name);
    let duty = cluster.duties.enter(&service).ok_or_else(|| ShardError::Taken(spec.name.clone()))?;
    let talk = Talk::open(&cluster.net, &service, PACKETS_MAX)?;
    let now = cluster.net.now();
    let floor = cluster.net.clock.wall().duration_since(UNIX_EPOCH).unwrap_or_default();
    // No two lives begin in one millisecond.
    let floor = u64::try_from(floor.as_millis()).unwrap_or(u64::MAX);
    let floor = floor.max(limits.epoch_floor);
    let owner = handler
        .as_ref()
        .map(|_| Owner::new(spec.clone(), cluster.id().clone(), cluster.incarnation(), floor, now));
    let region = Region {
        cluster: cluster.clone(),
        voice: talk.voice(),
        owner,
        sender: Sender::new(spec, limits.sender),
        handler,
        limits,
        counters,
        sent: HashMap::new(),
        asked: HashMap::new(),
        asks: 0,
        jobs: JoinSet::new(),
        tick_at: now + TICK,
        draining: false,
        revision: 0,
        duty,
    };
    let (commands, queued) = mpsc::channel(COMMANDS_MAX);
    cluster.net.runtime.spawn(region.run(talk, queued));
    Ok(commands)
}

struct Region<M: RemoteMessage> {
    cluster: Cluster,
    voice: Voice<Packet>,
    owner: Option<Owner<Parcel>>,
    sender: Sender<Parcel>,
    handler: Option<Arc<dyn ShardHandler<M>>>,
    limits: RegionLimits,
    counters: Arc<Counters>,
    /// Messages that no owner has accepted, by the sender's name for them.
    sent: HashMap<u64, Sent>,
    /// Asks that wait for their answers.
    asked: HashMap<u64, oneshot::Sender<Ended>>,
    asks: u64,
    /// One a shard at most.
    jobs: JoinSet<Done>,
    tick_at: Instant,
    /// This node leaves, as the view of `revision` says.
    draining: bool,
    revision: u64,
    duty: Duty,
}

enum Sent {
    Ask(u64),
    Tell(oneshot::Sender<Ended>),
}

/// A message that was processed.
struct Done {
    shard: ShardId,
    parcel: Parcel,
    outcome: Result<(u16, Body), AskError>,
}

impl<M: RemoteMessage> Region<M> {
    async fn run(mut self, mut talk: Talk<Packet>, mut commands: mpsc::Receiver<Command>) {
        let mut views = self.cluster.views();
        let (mut leaving, mut stopping) = (self.duty.leaving(), self.cluster.net.stopping.subscribe());
        views.mark_changed();
        loop {
            let now = self.now();
            let owner_at = self.owner.as_ref().and_then(|owner| owner.wake_at(now));
            let open = self.sender.open() > 0 || !self.asked.is_empty();
            let tick_at = open.then_some(self.tick_at);
            let wake_at = owner_at.into_iter().chain(self.sender.wake_at()).chain(tick_at).min();
            let wake: OptionFuture<_> = wake_at.map(|at| sleep_until(at.into())).into();
            let mut leave_by = None;
            tokio::select! {
                packet = talk.recv() => {
                    self.on_packet(packet);
                    for _ in 0..TURN_MAX {
                        let Some(packet) = talk.recv().now_or_never() else { break };
                        self.on_packet(packet);
                    }
                }
                Some(command) = commands.recv() => {
                    self.on_command(command);
                    for _ in 0..TURN_MAX {
                        let Ok(command) = commands.try_recv() else { break };
                        self.on_command(command);
                    }
                }
                _ = views.changed() => {
                    let view = Arc::clone(&views.borrow_and_update());
                    self.on_view(&view);
                }
                Some(done) = self.jobs.join_next(), if !self.jobs.is_empty() => {
                    if let Ok(done) = done {
                        self.on_done(done);
                    }
                }
                Some(()) = wake => self.on_time(),
                deadline = told_to_leave(&mut leaving) => leave_by = Some(deadline),
                _ = stopping.wait_for(|&stop| stop) => return,
            }
            if let Some(deadline) = leave_by {
                return self.leave(deadline).await;
            }
            self.hand_out();
            self.post_rest();
        }
    }

    fn now(&self) -> Instant {
        self.cluster.net.now()
    }

    fn tell(&self, to: &NodeId, what: What) {
        // What does not arrive is asked for again, or its sender is told after a while.
        self.voice.tell(to, Packet { from: self.cluster.id().clone(), what });
    }

    fn on_view(&mut self, view: &View) {
        let now = self.now();
        let standing = view.get(self.cluster.id()).map(|myself| myself.standing);
        (self.draining, self.revision) = (standing == Some(Standing::Draining), view.revision);
        let actions = self.owner.as_mut().map(|owner| owner.on_view(view, now));
        self.act(actions.unwrap_or_default());
        let sendings = self.sender.on_view(view, now);
        self.send(sendings);
    }

    fn on_time(&mut self) {
        let now = self.now();
        let actions = self.owner.as_mut().map(|owner| owner.tick(now));
        self.act(actions.unwrap_or_default());
        let sendings = self.sender.tick(now);
        self.send(sendings);
        if self.tick_at <= now {
            self.tick_at = now + TICK;
            self.asked.retain(|_, end| !end.is_closed());
        }
    }

    fn on_command(&mut self, command: Command) {
        let Command { shard, key, schema, body, deadline, answered, end } = command;
        let now = self.now();
        if end.is_closed() {
            return;
        }
        if self.asked.len() >= self.limits.asks_max && answered {
            let _ = end.send(Err(AskError::Full));
            return;
        }
        let ask = if answered {
            self.asks += 1;
            self.asks
        } else {
            0
        };
        let budget_us = u64::try_from(deadline.remaining(now).as_micros()).unwrap_or(u64::MAX);
        let parcel = Parcel {
            origin: self.cluster.id().clone(),
            life: self.cluster.incarnation(),
            ask,
            budget_us,
            due: None,
            key,
            schema,
            body,
        };
        let (id, sendings) = self.sender.send(shard, parcel, deadline.instant(), now);
        let sent = if answered {
            self.asked.insert(ask, end);
            Sent::Ask(ask)
        } else {
            Sent::Tell(end)
        };
        self.sent.insert(id, sent);
        self.send(sendings);
    }

    fn on_packet(&mut self, packet: Packet) {
        let (now, from) = (self.now(), packet.from);
        match packet.what {
            What::Shard(message) => {
                let actions = self.owner.as_mut().map(|owner| owner.on_message(&from, message, now));
                self.act(actions.unwrap_or_default());
            }
            What::Deliver(delivery) => self.on_delivery(&from, delivery),
            What::Answer { shard, id, answer } => {
                let sendings = self.sender.on_answer(&from, shard, id, answer, now);
                self.send(sendings);
            }
            What::Reply { life, ask, outcome } => {
                let waiting = self.asked.remove(&ask).filter(|_| life == self.cluster.incarnation());
                if let Some(end) = waiting {
                    // The asker may have left this very moment.
                    let _ = end.send(outcome.map(Some).map_err(reason_from_byte));
                }
            }
        }
    }

    fn on_delivery(&mut self, from: &NodeId, mut delivery: Delivery<Parcel>) {
        let now = self.now();
        let (shard, id) = (delivery.shard, delivery.id);
        let due = now.checked_add(Duration::from_micros(delivery.message.budget_us));
        delivery.message.due = due;
        // Whoever owns nothing is sent nothing, or by a node that sees it in another role.
        let Some(owner) = &mut self.owner else { return };
        let (answer, _refused) = owner.deliver(delivery, now);
        self.tell(from, What::Answer { shard, id, answer });
    }

    fn send(&mut self, sendings: Vec<Sending<Parcel>>) {
        for sending in sendings {
            match sending {
                Sending::Send(to, delivery) => self.tell(&to, What::Deliver(delivery)),
                Sending::Ended { id, fate } => self.on_fate(id, &fate),
            }
        }
    }

    fn on_fate(&mut self, id: u64, fate: &Fate) {
        let trouble = match fate {
            Fate::Accepted(_) => None,
            Fate::Failed(Trouble::Full) => Some(AskError::Full),
            Fate::Failed(Trouble::Unrouted) => Some(AskError::Unreachable),
            Fate::Failed(Trouble::Lost) => Some(AskError::Lost),
            Fate::Failed(Trouble::Deadline) => Some(AskError::Deadline),
        };
        match (self.sent.remove(&id), trouble) {
            (Some(Sent::Tell(end)), trouble) => drop(end.send(trouble.map_or(Ok(None), Err))),
            (Some(Sent::Ask(ask)), Some(trouble)) => {
                if let Some(end) = self.asked.remove(&ask) {
                    let _ = end.send(Err(trouble));
                }
            }
            // An ask that was accepted waits for its answer.
            (Some(Sent::Ask(_)) | None, _) => {}
        }
    }

    fn act(&mut self, actions: Vec<Action<Parcel>>) {
        for action in actions {
            match action {
                Action::Send(to, message) => self.tell(&to, What::Shard(message)),
                Action::Gained { shard, epoch } => {
                    self.counters.owned.fetch_add(1, Ordering::Relaxed);
                    if let Some(handler) = &self.handler {
                        handler.gained(shard, epoch);
                    }
                }
                Action::Ended { shard } => {
                    self.counters.owned.fetch_sub(1, Ordering::Relaxed);
                    if let Some(handler) = &self.handler {
                        handler.ended(shard);
                    }
                }
                Action::Failed(lost) => self.on_lost(lost),
            }
        }
    }

    fn on_lost(&mut self, lost: Lost<Parcel>) {
        let Lost { shard, why, messages } = lost;
        tracing::warn!(shard = shard.0, ?why, count = messages.len(), "accepted messages are given up");
        self.counters.lost.fetch_add(messages.len() as u64, Ordering::Relaxed);
        for parcel in messages {
            self.reply(&parcel, Err(AskError::Lost));
        }
    }

    fn reply(&self, parcel: &Parcel, outcome: Result<(u16, Body), AskError>) {
        if parcel.ask != 0 {
            let outcome = outcome.map_err(reason_to_byte);
            self.tell(&parcel.origin, What::Reply { life: parcel.life, ask: parcel.ask, outcome });
        }
    }

    /// Starts whatever may be processed now.
    fn hand_out(&mut self) {
        let now = self.now();
        let (Some(owner), Some(handler)) = (&mut self.owner, &self.handler) else { return };
        while let Some(work) = owner.next(now) {
            self.jobs.spawn(process(Arc::clone(handler), work, now));
        }
    }

    fn on_done(&mut self, done: Done) {
        let now = self.now();
        let Some(owner) = &mut self.owner else { return };
        let (held, actions) = owner.done(done.shard, now);
        self.counters.processed.fetch_add(1, Ordering::Relaxed);
        // Without the lease another may have gone on already: what came of it here may be out of date.
        let outcome = if held { done.outcome } else { Err(AskError::Lost) };
        self.reply(&done.parcel, outcome);
        self.act(actions);
    }

    fn post_rest(&self) {
        let mut rest = Rest::default();
        if let Some(owner) = self.owner.as_ref().filter(|_| self.draining) {
            let unfinished = owner.unfinished();
            // Shards that nobody would take are not waited for; the messages in them are.
            let shards = if owner.has_successor() { unfinished.shards } else { 0 };
            rest = Rest { shards, messages: unfinished.messages, ..rest };
        }
        self.duty.post(rest, self.revision);
    }

    /// Gives everything back; what is being processed ends before the deadline or is dropped.
    async fn leave(mut self, deadline: Deadline) {
        let under_way = async {
            while let Some(done) = self.jobs.join_next().await {
                if let Ok(done) = done {
                    self.on_done(done);
                }
            }
        };
        let _ = timeout_at(deadline.instant().into(), under_way).await;
        let now = self.now();
        let actions = self.owner.as_mut().map(|owner| owner.leave(now));
        self.act(actions.unwrap_or_default());
    }
}

async fn process<M: RemoteMessage>(
    handler: Arc<dyn ShardHandler<M>>,
    work: Work<Parcel>,
    now: Instant,
) -> Done {
    let Work { shard, epoch, message: parcel } = work;
    let deadline = parcel.due.filter(|_| parcel.ask != 0).map(Deadline::at);
    if deadline.is_some_and(|deadline| deadline.expired(now)) {
        // Nobody waits for it any more, as with a message in any mailbox.
        return Done { shard, parcel, outcome: Err(AskError::Deadline) };
    }
    let outcome = match M::read(parcel.schema, &parcel.body.0) {
        Err(_) => Err(AskError::Refused(Refusal::Malformed)),
        Ok(message) => {
            let job = ShardJob { shard, epoch, key: parcel.key.0.clone(), message, deadline };
            // Unwind safe: what it had in hand is thrown away.
            let handled = AssertUnwindSafe(handler.handle(job)).catch_unwind().await;
            match handled {
                Ok(Ok(answer)) => {
                    let mut bytes = Vec::new();
                    match M::write_answer(&answer, parcel.schema, &mut bytes) {
                        Ok(()) if bytes.len() <= M::BYTES_MAX => Ok((parcel.schema, Body(bytes))),
                        Ok(()) => Err(AskError::Refused(Refusal::TooLarge)),
                        Err(_) => Err(AskError::Refused(Refusal::Malformed)),
                    }
                }
                Ok(Err(error)) => {
                    tracing::error!(shard = shard.0, %error, "a message failed");
                    Err(AskError::Failed)
                }
                Err(_panic) => {
                    tracing::error!(shard = shard.0, "a message made its handler panic");
                    Err(AskError::Failed)
                }
            }
        }
    };
    Done { shard, parcel, outcome }
}
