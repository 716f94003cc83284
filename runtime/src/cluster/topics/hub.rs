//! Carries out publish and subscribe on one node: what is published goes to the subscribers here and, once each,
//! to the nodes that want it.
//!
//! What a node wants travels with what it says of itself, so a new subscription is heard with the gossip. A
//! subscriber that does not keep up misses messages and can see how many.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::{Mutex, RwLock};
use serde::{Deserialize, Serialize};
use tokio::sync::{Notify, mpsc};

use super::{Interests, TopicError, Topics};
use crate::cluster::body::Body;
use crate::cluster::duties::{Duty, told_to_leave};
use crate::cluster::exports::ExportError;
use crate::cluster::talk::{Talk, Voice};
use crate::cluster::{Cluster, NodeId, View};
use crate::remote_message;
use crate::wire::{CodecError, RemoteMessage};

/// Longest published message.
const MESSAGE_BYTES_MAX: usize = 1_000_000;
/// Patterns that a node tells others; more are widened, so that more is sent here than is wanted.
const PATTERNS_MAX: usize = 16;
/// Messages of other nodes that wait to be handed to the subscribers.
const PACKETS_MAX: usize = 4_096;

/// What one hub may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HubLimits {
    /// Subscriptions on this node.
    pub subscriptions_max: usize,
    /// Messages that wait for one subscriber; further ones are missed.
    pub waiting_max: usize,
}

impl Default for HubLimits {
    fn default() -> Self {
        Self { subscriptions_max: 4_096, waiting_max: 1_024 }
    }
}

/// A hub cannot be had. The program acts.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HubError {
    /// There is one of this name on this node, or the node leaves.
    #[error("hub `{0}` is here already, or this node leaves")]
    Taken(String),
    /// Its messages may be too long.
    #[error("messages of up to {0} bytes are too long to be published")]
    TooLong(usize),
    /// The name of its service is taken.
    #[error(transparent)]
    Export(#[from] ExportError),
}

/// Something was not published. Whoever wrote it acts.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PublishError {
    /// Not a topic.
    #[error(transparent)]
    Topic(#[from] TopicError),
    /// The message has no form in bytes, or too long a one.
    #[error(transparent)]
    Message(#[from] CodecError),
}

/// Whom a message was handed to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Published {
    /// Subscribers on this node.
    pub here: usize,
    /// Subscribers on this node that had no room and missed it.
    pub missed: usize,
    /// Other nodes that want it and to which it is on its way.
    pub nodes: usize,
    /// Other nodes that want it and could not be sent it.
    pub unsent: usize,
}

/// This node's part in the topics of one name and one type of message. Clones are the same part.
pub struct TopicHub<M: RemoteMessage>(Arc<Hub<M>>);

impl<M: RemoteMessage> Clone for TopicHub<M> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

/// Receives what is published under a pattern; ends when dropped.
pub struct TopicSubscription<M: RemoteMessage> {
    hub: Arc<Hub<M>>,
    id: u64,
    messages: mpsc::Receiver<(Arc<str>, M)>,
    missed: Arc<AtomicU64>,
}

#[derive(Debug, Serialize, Deserialize, actix::Message)]
#[rtype(result = "()")]
struct TopicPacket {
    topic: String,
    schema: u16,
    body: Body,
}
remote_message!(TopicPacket, "peregrine.topic", version 1, up to 1048576 bytes, lane Stream);

struct Hub<M: RemoteMessage> {
    local: Mutex<Local<M>>,
    /// What the other members want.
    wanted: RwLock<Vec<(NodeId, Interests)>>,
    /// What this node wants has changed.
    changed: Notify,
    voice: Voice<TopicPacket>,
    waiting_max: usize,
}

struct Local<M> {
    topics: Topics<u64>,
    subscribers: BTreeMap<u64, Subscriber<M>>,
    ids: u64,
}

struct Subscriber<M> {
    messages: mpsc::Sender<(Arc<str>, M)>,
    missed: Arc<AtomicU64>,
}

impl Cluster {
    /// Takes part in the topics of a name, until the node leaves.
    ///
    /// # Errors
    /// The name is taken on this node, or the messages are too long.
    pub fn topics<M: RemoteMessage + Clone>(
        &self,
        name: &str,
        limits: HubLimits,
    ) -> Result<TopicHub<M>, HubError> {
        if M::BYTES_MAX > MESSAGE_BYTES_MAX {
            return Err(HubError::TooLong(M::BYTES_MAX));
        }
        let service = format!("@topics/{name}");
        let duty = self.duties.enter(&service).ok_or_else(|| HubError::Taken(name.to_owned()))?;
        let talk = Talk::open(&self.net, &service, PACKETS_MAX)?;
        let topics = Topics::new(limits.subscriptions_max);
        let hub = Arc::new(Hub {
            local: Mutex::new(Local { topics, subscribers: BTreeMap::new(), ids: 0 }),
            wanted: RwLock::default(),
            changed: Notify::new(),
            voice: talk.voice(),
            waiting_max: limits.waiting_max.max(1),
        });
        hub.look(&self.view(), self.id(), &service);
        self.net.runtime.spawn(serve(self.clone(), Arc::clone(&hub), talk, service, duty));
        Ok(TopicHub(hub))
    }
}

impl<M: RemoteMessage + Clone> TopicHub<M> {
    /// Receives from now on what is published under a pattern, here at once and on other nodes as soon as they
    /// have heard of it.
    ///
    /// # Errors
    /// Not a pattern, or too many subscriptions.
    pub fn subscribe(&self, pattern: &str) -> Result<TopicSubscription<M>, TopicError> {
        let mut local = self.0.local.lock();
        let id = local.ids + 1;
        local.topics.subscribe(pattern, id)?;
        local.ids = id;
        let (sender, messages) = mpsc::channel(self.0.waiting_max);
        let missed = Arc::<AtomicU64>::default();
        local.subscribers.insert(id, Subscriber { messages: sender, missed: Arc::clone(&missed) });
        drop(local);
        self.0.changed.notify_one();
        Ok(TopicSubscription { hub: Arc::clone(&self.0), id, messages, missed })
    }

    /// Hands a message to everybody who wants its topic, at most once each; never waits. Messages of one node
    /// reach one subscriber in order.
    ///
    /// # Errors
    /// Not a topic, or not a message that can be sent.
    pub fn publish(&self, topic: &str, message: &M) -> Result<Published, PublishError> {
        let mut published = self.0.deliver(topic, message)?;
        let wanted = self.0.wanted.read();
        let nodes: Vec<&NodeId> =
            wanted.iter().filter(|(_, interests)| interests.want(topic)).map(|(node, _)| node).collect();
        if nodes.is_empty() {
            return Ok(published);
        }
        let mut bytes = Vec::new();
        message.write(M::VERSION, &mut bytes)?;
        if bytes.len() > M::BYTES_MAX {
            return Err(CodecError::TooLarge { bytes: bytes.len(), max: M::BYTES_MAX }.into());
        }
        for node in nodes {
            let body = Body(bytes.clone());
            let packet = TopicPacket { topic: topic.to_owned(), schema: M::VERSION, body };
            match self.0.voice.tell(node, packet) {
                true => published.nodes += 1,
                false => published.unsent += 1,
            }
        }
        Ok(published)
    }

    /// Other nodes that want a topic, as far as is heard here.
    #[must_use]
    pub fn wanted_by(&self, topic: &str) -> Vec<NodeId> {
        let wanted = self.0.wanted.read();
        wanted.iter().filter(|(_, interests)| interests.want(topic)).map(|(node, _)| node.clone()).collect()
    }
}

impl<M: RemoteMessage> TopicSubscription<M> {
    /// The next message and its topic; nothing once the node has left.
    pub async fn recv(&mut self) -> Option<(Arc<str>, M)> {
        self.messages.recv().await
    }

    /// Messages that it did not get, since as many waited as may.
    #[must_use]
    pub fn missed(&self) -> u64 {
        self.missed.load(Ordering::Relaxed)
    }
}

impl<M: RemoteMessage> Drop for TopicSubscription<M> {
    fn drop(&mut self) {
        let mut local = self.hub.local.lock();
        local.topics.forget(&self.id);
        local.subscribers.remove(&self.id);
        drop(local);
        self.hub.changed.notify_one();
    }
}

impl<M: RemoteMessage> Hub<M> {
    /// Reads what the others want.
    fn look(&self, view: &View, me: &NodeId, service: &str) {
        let others = view.members.values().filter(|member| member.id != *me);
        let wanted = others.filter_map(|member| {
            let patterns = member.services.get(service)?.lines().map(str::to_owned).collect();
            Some((member.id.clone(), Interests::read(patterns, PATTERNS_MAX).ok()?))
        });
        *self.wanted.write() = wanted.collect();
    }

    fn interests(&self) -> String {
        self.local.lock().topics.interests(PATTERNS_MAX).patterns().join("\n")
    }
}

impl<M: RemoteMessage + Clone> Hub<M> {
    fn deliver(&self, topic: &str, message: &M) -> Result<Published, TopicError> {
        let local = self.local.lock();
        let (topic, mut published) = (Arc::<str>::from(topic), Published::default());
        for id in local.topics.matches(&topic)? {
            let Some(subscriber) = local.subscribers.get(&id) else { continue };
            if subscriber.messages.try_send((Arc::clone(&topic), message.clone())).is_ok() {
                published.here += 1;
            } else {
                published.missed += 1;
                subscriber.missed.fetch_add(1, Ordering::Relaxed);
            }
        }
        Ok(published)
    }
}

async fn serve<M: RemoteMessage + Clone>(
    cluster: Cluster,
    hub: Arc<Hub<M>>,
    mut talk: Talk<TopicPacket>,
    service: String,
    duty: Duty,
) {
    let mut views = cluster.views();
    let (mut leaving, mut stopping) = (duty.leaving(), cluster.net.stopping.subscribe());
    views.mark_changed();
    loop {
        let mut announce = false;
        tokio::select! {
            packet = talk.recv() => {
                // What another node has in another layout, or has published wrongly, reaches nobody here.
                if let Ok(message) = M::read(packet.schema, &packet.body.0) {
                    let _ = hub.deliver(&packet.topic, &message);
                }
            }
            () = hub.changed.notified() => announce = true,
            _ = views.changed() => {
                let view = Arc::clone(&views.borrow_and_update());
                hub.look(&view, cluster.id(), &service);
                duty.post(crate::cluster::drain::Rest::default(), view.revision);
            }
            _ = told_to_leave(&mut leaving) => break,
            _ = stopping.wait_for(|&stop| stop) => break,
        }
        if announce {
            let interests = hub.interests();
            match interests.is_empty() {
                true => cluster.take_back(&service).await,
                false => cluster.offer(&service, &interests).await,
            }
        }
    }
    // Whoever still waits is told that nothing comes any more.
    hub.local.lock().subscribers.clear();
}
