//! Carries out on one node what [`Singleton`] decides: talks to the voters, starts what acts, stops it, hands over.
//!
//! Handed over in order, what acts drains its mailbox while the lease lasts; a lease that is lost stops it at once.

use std::sync::Arc;
use std::time::{Duration, Instant, UNIX_EPOCH};

use futures_util::future::OptionFuture;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{sleep_until, timeout_at};

use super::route::{Route, offer_of, service_of};
use super::{Fence, Singleton, SingletonAction, SingletonError, SingletonSpec, SingletonState};
use crate::actor::Failure;
use crate::address::Address;
use crate::cluster::drain::Rest;
use crate::cluster::duties::{Duty, told_to_leave};
use crate::cluster::lease::{Holder, LeaseMessage};
use crate::cluster::talk::{Talk, Voice, view_of};
use crate::cluster::{Cluster, NodeId};
use crate::deadline::Deadline;
use crate::remote_message;
use crate::supervision::Tree;
use crate::wire::RemoteMessage;

/// What the factory of a singleton has made: actors that run, and the one that is spoken to.
pub struct Hosted<M: RemoteMessage> {
    /// Ends with the singleton. If it ends before, that is a failure.
    pub tree: Tree,
    /// One of its actors.
    pub address: Address<M>,
}

/// How a node hosts a singleton.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hosting {
    /// What acts may take this long to empty its mailbox when it hands over. When the lease is lost there is no
    /// time at all.
    pub stop_within: Duration,
    /// Wait between the failure of what acts and its next start.
    pub restart_after: Duration,
}

impl Default for Hosting {
    fn default() -> Self {
        Self { stop_within: Duration::from_secs(5), restart_after: Duration::from_secs(1) }
    }
}

/// A singleton that this node takes part in, until the node leaves.
pub struct SingletonHandle<M: RemoteMessage> {
    route: Arc<Route<M>>,
    states: watch::Receiver<SingletonState>,
}

impl<M: RemoteMessage + Clone + Sync> SingletonHandle<M> {
    /// Wherever it acts.
    #[must_use]
    pub fn address(&self) -> Address<M> {
        self.route.address()
    }

    /// Who acts, as far as is known here.
    #[must_use]
    pub fn holder(&self) -> Option<Holder> {
        self.route.holder()
    }

    /// What this node is to it, now and later.
    #[must_use]
    pub fn states(&self) -> watch::Receiver<SingletonState> {
        self.states.clone()
    }
}

/// What the hosts of one singleton say to each other.
#[derive(Debug, Serialize, Deserialize, actix::Message)]
#[rtype(result = "()")]
struct LeasePacket {
    from: NodeId,
    message: LeaseMessage,
}
// On the lane of the gossip: a burst of other messages must not cost anybody a lease.
remote_message!(LeasePacket, "peregrine.singleton", version 1, up to 4096 bytes, lane Control);

/// Packets that wait: several from each of a few hundred voters.
const PACKETS_MAX: usize = 1024;

type Make<M> = dyn Fn(Fence) -> Result<Hosted<M>, Failure> + Send + Sync;

impl Cluster {
    /// Takes part in a singleton: `make` starts it here whenever this is its node, and it is stopped when it no
    /// longer is. Two act at one time for no longer than one had begun when its lease ended; the epoch of
    /// [`Fence`] makes that harmless. `make` may block; a panic or an error in it is a failure to start.
    ///
    /// # Errors
    /// The lease promises nothing, the singleton is hosted here already, or this node leaves.
    pub fn singleton<M: RemoteMessage + Clone + Sync>(
        &self,
        spec: SingletonSpec,
        hosting: Hosting,
        make: impl Fn(Fence) -> Result<Hosted<M>, Failure> + Send + Sync + 'static,
    ) -> Result<SingletonHandle<M>, SingletonError> {
        spec.lease.check()?;
        let route = self.routes.get::<M>(&self.net, &spec.name)?;
        let offer = offer_of(&spec.name);
        let duty = self.duties.enter(&offer).ok_or_else(|| SingletonError::Taken(spec.name.clone()))?;
        let talk = Talk::open(&self.net, &offer, PACKETS_MAX)?;
        let (name, now) = (spec.name.clone(), self.net.now());
        let floor = self.net.clock.wall().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let singleton = Singleton::new(spec, self.id().clone(), self.incarnation(), floor, now);
        let (states, seen) = watch::channel(singleton.state());
        let host = Host {
            cluster: self.clone(),
            name,
            singleton,
            voice: talk.voice(),
            route: Arc::clone(&route),
            hosting,
            make: Arc::new(make),
            running: None,
            retry_at: None,
            leave_by: None,
            revision: 0,
            states,
            duty,
        };
        self.net.runtime.spawn(host.run(talk));
        Ok(SingletonHandle { route, states: seen })
    }

    /// The way to a singleton that other nodes host, wherever it acts. An ask that finds no holder waits for one
    /// until its deadline and then ends with [`AskError::Unreachable`](crate::AskError::Unreachable); a tell
    /// does not wait. Asks that wait keep no order.
    ///
    /// # Errors
    /// This node knows the name with another type of message.
    pub fn singleton_address<M: RemoteMessage + Clone + Sync>(
        &self,
        name: &str,
    ) -> Result<Address<M>, SingletonError> {
        Ok(self.routes.get::<M>(&self.net, name)?.address())
    }
}

struct Host<M: RemoteMessage> {
    cluster: Cluster,
    name: String,
    singleton: Singleton,
    voice: Voice<LeasePacket>,
    route: Arc<Route<M>>,
    hosting: Hosting,
    make: Arc<Make<M>>,
    running: Option<Running>,
    /// It failed; when nothing of it counts as running any more.
    retry_at: Option<Instant>,
    leave_by: Option<Deadline>,
    /// Of the view that was looked at last.
    revision: u64,
    states: watch::Sender<SingletonState>,
    duty: Duty,
}

struct Running {
    fence: Fence,
    /// When it has to be gone, once that is known; only ever earlier.
    stop: watch::Sender<Option<Deadline>>,
    task: JoinHandle<()>,
}

impl<M: RemoteMessage + Clone + Sync> Host<M> {
    async fn run(mut self, mut talk: Talk<LeasePacket>) {
        let mut views = self.cluster.views();
        let (mut leaving, mut stopping) = (self.duty.leaving(), self.cluster.net.stopping.subscribe());
        let view = view_of(&self.cluster.net);
        self.revision = view.revision;
        let actions = self.singleton.on_view(&view, self.now());
        self.act(actions).await;
        loop {
            let now = self.now();
            let wake_at = self.singleton.wake_at(now).into_iter().chain(self.retry_at).min();
            let wake: OptionFuture<_> = wake_at.map(|at| sleep_until(at.into())).into();
            let running: OptionFuture<_> = self.running.as_mut().map(|running| &mut running.task).into();
            let actions = tokio::select! {
                packet = talk.recv() => {
                    self.singleton.on_message(&packet.from, &packet.message, self.cluster.net.now())
                }
                _ = views.changed() => {
                    let view = Arc::clone(&views.borrow_and_update());
                    self.revision = view.revision;
                    self.singleton.on_view(&view, self.cluster.net.now())
                }
                Some(_) = running => self.on_ended(),
                Some(()) = wake => self.on_time(),
                deadline = told_to_leave(&mut leaving), if self.leave_by.is_none() => {
                    self.leave_by = Some(deadline);
                    self.retry_at = self.retry_at.and(Some(now));
                    self.singleton.leave(now)
                }
                _ = stopping.wait_for(|&stop| stop) => return self.abandon(),
            };
            self.act(actions).await;
            let gone = matches!(self.singleton.state(), SingletonState::Standby) && self.running.is_none();
            if self.leave_by.is_some() && gone {
                return;
            }
        }
    }

    fn now(&self) -> Instant {
        self.cluster.net.now()
    }

    fn on_time(&mut self) -> Vec<SingletonAction> {
        let now = self.now();
        if self.retry_at.is_some_and(|at| at <= now) {
            self.retry_at = None;
            return self.singleton.on_stopped(now);
        }
        self.singleton.tick(now)
    }

    /// Nothing of it runs any more: because it was told to stop, or because it failed.
    fn on_ended(&mut self) -> Vec<SingletonAction> {
        let (now, told) = (self.now(), self.running.take().is_some_and(|it| it.stop.borrow().is_some()));
        if told {
            return self.singleton.on_stopped(now);
        }
        tracing::error!(singleton = %self.name, "what acts has failed");
        self.singleton.on_failed();
        let wait = if self.leave_by.is_some() { Duration::ZERO } else { self.hosting.restart_after };
        self.retry_at = Some(now + wait);
        Vec::new()
    }

    async fn act(&mut self, actions: Vec<SingletonAction>) {
        for action in actions {
            match action {
                SingletonAction::Send(to, message) => {
                    // What is lost is asked for again.
                    self.voice.tell(&to, LeasePacket { from: self.cluster.id().clone(), message });
                }
                SingletonAction::Start { epoch } => self.start(epoch).await,
                SingletonAction::Stop { epoch } => {
                    tracing::info!(singleton = %self.name, epoch, "hands over");
                    self.stop_by(Deadline::after(self.now(), self.hosting.stop_within));
                }
                SingletonAction::Holds(holder) => self.route.tell_holder(holder),
            }
        }
        let (now, until) = (self.now(), self.singleton.acts_until());
        if let Some(running) = &self.running {
            running.fence.set_until(until);
        }
        let state = self.singleton.state();
        if matches!(state, SingletonState::Stopping { .. }) && until.is_none_or(|until| until <= now) {
            // Another may act: only what is under way ends.
            self.stop_by(Deadline::at(now));
        }
        if !matches!(state, SingletonState::Acting { .. }) && *self.states.borrow() != state {
            self.cluster.take_back(&offer_of(&self.name)).await;
        }
        self.states.send_if_modified(|known| std::mem::replace(known, state) != state);
        // One that nobody can take acts until this node is gone; leaving does not wait for it.
        let counts = match state {
            SingletonState::Standby | SingletonState::Claiming => false,
            SingletonState::Acting { .. } => self.singleton.has_successor(),
            SingletonState::Stopping { .. } => true,
        };
        let rest = Rest { singletons: usize::from(counts), ..Rest::default() };
        self.duty.post(rest, self.revision);
    }

    async fn start(&mut self, epoch: u64) {
        tracing::info!(singleton = %self.name, epoch, "acts here");
        let fence = Fence::new(epoch, Arc::clone(&self.cluster.net.clock));
        fence.set_until(self.singleton.acts_until());
        let (stop, told) = watch::channel(None);
        let life = Life {
            cluster: self.cluster.clone(),
            name: self.name.clone(),
            route: Arc::clone(&self.route),
            make: Arc::clone(&self.make),
        };
        let task = self.cluster.net.runtime.spawn(life.live(fence.clone(), told));
        self.running = Some(Running { fence, stop, task });
        self.cluster.offer(&offer_of(&self.name), &epoch.to_string()).await;
    }

    fn stop_by(&mut self, deadline: Deadline) {
        let Some(running) = &self.running else { return };
        let deadline = self.leave_by.map_or(deadline, |by| by.min(deadline));
        running.stop.send_if_modified(|told| {
            let sooner = told.is_none_or(|told| deadline < told);
            if sooner {
                *told = Some(deadline);
            }
            sooner
        });
    }

    /// The node is gone without having said so in time.
    fn abandon(&mut self) {
        if let Some(running) = &self.running {
            running.fence.set_until(None);
        }
        self.stop_by(Deadline::at(self.now()));
    }
}

/// One possession, from the factory to the last actor.
struct Life<M: RemoteMessage> {
    cluster: Cluster,
    name: String,
    route: Arc<Route<M>>,
    make: Arc<Make<M>>,
}

impl<M: RemoteMessage + Clone + Sync> Life<M> {
    async fn live(self, fence: Fence, mut told: watch::Receiver<Option<Deadline>>) {
        let epoch = fence.epoch();
        let make = Arc::clone(&self.make);
        let mut making = tokio::task::spawn_blocking(move || make(fence));
        let made = tokio::select! {
            made = &mut making => made,
            by = told_to_leave(&mut told) => match timeout_at(by.instant().into(), making).await {
                Ok(made) => made,
                // What it makes after this is dropped, and stops by that.
                Err(_elapsed) => return tracing::error!(singleton = %self.name, epoch, "its factory hangs"),
            },
        };
        let Hosted { tree, address } = match made {
            Ok(Ok(hosted)) => hosted,
            Ok(Err(error)) => return tracing::error!(singleton = %self.name, epoch, %error, "does not start"),
            Err(error) => return tracing::error!(singleton = %self.name, epoch, %error, "does not start"),
        };
        let service = service_of(&self.name);
        if told.borrow().is_none() {
            if let Err(error) = self.cluster.net.exports.add(&service, &address) {
                tracing::error!(singleton = %self.name, epoch, %error, "cannot be reached by others");
            }
            self.route.set_here(Some(address));
        }
        let by = tokio::select! {
            outcome = tree.ended() => {
                tracing::error!(singleton = %self.name, epoch, ?outcome, "ended by itself");
                None
            }
            by = told_to_leave(&mut told) => Some(by),
        };
        self.cluster.net.exports.remove(&service);
        self.route.set_here(None);
        let Some(by) = by else { return };
        told.mark_unchanged();
        let mut ending = std::pin::pin!(tree.stop(by));
        let report = loop {
            tokio::select! {
                report = &mut ending => break report,
                Ok(()) = told.changed() => {
                    let sooner = *told.borrow_and_update();
                    if let Some(sooner) = sooner {
                        tree.hasten(sooner);
                    }
                }
            }
        };
        if !report.stuck.is_empty() {
            tracing::error!(singleton = %self.name, epoch, stuck = ?report.stuck, "has not stopped in time");
        }
    }
}
