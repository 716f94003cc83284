//! Who is there: chitchat's gossip and failure detector, turned into one picture of the members.
//!
//! The shell; who is gone is decided in `verdicts`, what a record means is in `record.rs`, how gossip travels in
//! `gossip.rs`.

mod gossip;
mod record;
#[cfg(test)]
mod sim;
mod verdicts;

use std::collections::{BTreeMap, HashSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use chitchat::{
    ChitchatConfig, ChitchatHandle, ChitchatId, FailureDetectorConfig, NodeState, spawn_chitchat,
};
use parking_lot::Mutex;
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};

use crate::cluster::conn::ConnState;
use crate::cluster::net::{GossipMail, Net};
use crate::cluster::{Incarnation, Member, NodeId, Standing, View};
use gossip::GossipTransport;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) use gossip::read as read_gossip;
pub(crate) use record::Record;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) use record::member as record_member;
use record::{CUT, LOAD, MISSED, RECORD};
use verdicts::{Heard, TICK, Verdicts};

/// How quickly the absence of a member is noticed, and what that costs.
#[derive(Clone, Debug, PartialEq)]
pub struct Detector {
    /// Each node says that it lives this often, to three others.
    pub gossip_interval: Duration,
    /// A member of whom nothing new has been heard for so long is down; up to a fifth more if it was heard of
    /// rarely. News of a dead one still travel for a few intervals, so all others know after this, those, and
    /// one interval more.
    pub silence_max: Duration,
    /// How long the dead are remembered; short, since gossip carries them along.
    pub dead_grace: Duration,
}

impl Default for Detector {
    fn default() -> Self {
        Self {
            gossip_interval: Duration::from_millis(100),
            silence_max: Duration::from_millis(900),
            dead_grace: Duration::from_secs(60),
        }
    }
}

impl Detector {
    /// chitchat's detector as one with a fixed time.
    ///
    /// It compares the silence with the mean interval between news, which grows without bound where machines are
    /// busy or news travel slowly, and the time to a verdict with it. So of the intervals only the last counts,
    /// against a prior of `silence_max` with chitchat's weight of five: `6/5 * (last + 5 * silence_max) / 6`.
    fn failure_detector(&self) -> FailureDetectorConfig {
        FailureDetectorConfig::new(6.0 / 5.0, 1, self.silence_max, self.silence_max, self.dead_grace)
    }
}

/// Finds addresses of nodes to begin with; asked again for ever, since they change.
#[async_trait]
pub trait Discovery: Send + Sync + 'static {
    /// The addresses known now; none is no error.
    async fn addresses(&self) -> Vec<SocketAddr>;
}

/// How often discovery is asked while this node is alone, and once it is not.
const DISCOVER_ALONE: Duration = Duration::from_millis(500);
const DISCOVER_JOINED: Duration = Duration::from_secs(10);
const DISCOVER_TIMEOUT: Duration = Duration::from_secs(5);
/// Lives that said goodbye, remembered until the gossip has forgotten them.
const LEFT_MAX: usize = 4096;

/// What a node tells of itself.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Announcement {
    pub(crate) record: Record,
    pub(crate) load: f32,
}

pub(crate) struct Membership {
    chitchat: ChitchatHandle,
    announced: Mutex<Announcement>,
}

pub(crate) struct MembershipParts {
    pub(crate) detector: Detector,
    pub(crate) announcement: Announcement,
    pub(crate) gossip: mpsc::Receiver<GossipMail>,
    pub(crate) goodbyes: mpsc::Receiver<(NodeId, Incarnation)>,
    pub(crate) discovery: Option<Arc<dyn Discovery>>,
}

impl Membership {
    pub(crate) async fn start(net: &Arc<Net>, parts: MembershipParts) -> anyhow::Result<Arc<Self>> {
        let id = ChitchatId::new(net.me.id.as_str(), net.me.incarnation.0, net.advertise);
        let config = chitchat_config(id, net.cluster.clone(), &parts.detector);
        let transport = GossipTransport { net: Arc::clone(net), incoming: Mutex::new(Some(parts.gossip)) };
        let values = vec![(RECORD.to_owned(), parts.announcement.record.to_text())];
        let chitchat = spawn_chitchat(config, values, &transport).await?;
        let membership = Arc::new(Self { chitchat, announced: Mutex::new(parts.announcement) });
        let verdicts = Verdicts::new(net.me.id.clone(), parts.detector.dead_grace, Instant::now());
        tokio::spawn(watch(Arc::clone(net), Arc::clone(&membership), verdicts, parts.goodbyes));
        if let Some(discovery) = parts.discovery {
            tokio::spawn(discover(Arc::clone(net), Arc::clone(&membership), discovery));
        }
        Ok(membership)
    }

    /// Changes what this node says of itself.
    pub(crate) async fn announce(&self, change: impl FnOnce(&mut Announcement)) {
        let (before, after) = {
            let mut announced = self.announced.lock();
            let before = announced.clone();
            change(&mut announced);
            (before, announced.clone())
        };
        if before == after {
            return;
        }
        self.chitchat
            .with_chitchat(|chitchat| {
                let state = chitchat.self_node_state();
                if before.record != after.record {
                    state.set(RECORD, after.record.to_text());
                }
                if before.load.to_bits() != after.load.to_bits() {
                    state.set(LOAD, format!("{:.2}", after.load));
                }
            })
            .await;
    }

    pub(crate) fn stop(&self) {
        // It may have ended already, with the node's links.
        let _ = self.chitchat.initiate_shutdown();
    }
}

/// Gossip as it is spoken here.
pub(crate) fn chitchat_config(id: ChitchatId, cluster: String, detector: &Detector) -> ChitchatConfig {
    ChitchatConfig {
        listen_addr: id.gossip_advertise_addr,
        chitchat_id: id,
        cluster_id: cluster,
        gossip_interval: detector.gossip_interval,
        seed_nodes: Vec::new(),
        failure_detector_config: detector.failure_detector(),
        marked_for_deletion_grace_period: detector.dead_grace,
        catchup_callback: None,
        extra_liveness_predicate: None,
    }
}

/// Turns what gossip knows into views, until the node stops.
async fn watch(
    net: Arc<Net>,
    membership: Arc<Membership>,
    mut verdicts: Verdicts,
    mut goodbyes: mpsc::Receiver<(NodeId, Incarnation)>,
) {
    let mut live = membership.chitchat.with_chitchat(|chitchat| chitchat.live_nodes_watcher()).await;
    let mut stopping = net.stopping.subscribe();
    let mut ticks = interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut left = HashSet::new();
    let mut said = [(CUT, String::new()), (MISSED, String::new())];
    loop {
        tokio::select! {
            changed = live.changed() => if changed.is_err() {
                return;
            },
            Some(life) = goodbyes.recv() => {
                if left.len() >= LEFT_MAX {
                    left.clear();
                }
                net.note_left(life.0.clone(), life.1);
                left.insert(life);
            }
            _ = ticks.tick() => {
                verdicts.tick(Instant::now());
                measure(&net);
            }
            () = stopped(&mut stopping) => return,
        }
        let before = Arc::clone(&net.view.borrow());
        let announced = membership.announced.lock().clone();
        let heard = heard(&net, &live.borrow_and_update().clone(), &left, &announced);
        let members = verdicts.judge(&before.members, heard, Instant::now());
        if members != before.members {
            net.enter_view(Arc::new(View { members, revision: before.revision + 1 }));
        }
        let cut = net.cut_from();
        let cut = cut.iter().map(NodeId::as_str).collect::<Vec<_>>().join(" ");
        for ((key, said), now) in said.iter_mut().zip([cut, record::lives_to_text(verdicts.missed())]) {
            if *said != now {
                membership
                    .chitchat
                    .with_chitchat(|chitchat| chitchat.self_node_state().set(*key, &now))
                    .await;
                *said = now;
            }
        }
    }
}

/// Resolves when the node stops. Holds no lock of the channel, unlike the wait itself.
async fn stopped(stopping: &mut tokio::sync::watch::Receiver<bool>) {
    // The sender lives in what the caller holds.
    let _ = stopping.wait_for(|&stop| stop).await;
}

/// Of each name the latest life, and this node as it says it is.
fn heard<'a>(
    net: &Net,
    live: &BTreeMap<ChitchatId, NodeState>,
    left: &'a HashSet<(NodeId, Incarnation)>,
    announced: &Announcement,
) -> Heard<'a> {
    let mut members = BTreeMap::new();
    let mut misses = BTreeMap::new();
    for (id, state) in live {
        let life = (&*id.node_id, id.generation_id, id.gossip_advertise_addr);
        if record::has_left(|key| state.get(key)) {
            if let Ok(gone) = NodeId::new(&id.node_id) {
                net.note_left(gone, Incarnation(id.generation_id));
            }
            continue;
        }
        let Some(member) = record::member(life, |key| state.get(key)) else { continue };
        if member.id == net.me.id || left.contains(&(member.id.clone(), member.incarnation)) {
            continue;
        }
        let later =
            members.get(&member.id).is_none_or(|known: &Member| known.incarnation < member.incarnation);
        if later {
            misses.insert(member.id.clone(), record::missed(|key| state.get(key)));
            members.insert(member.id.clone(), member);
        }
    }
    let record = &announced.record;
    if let Ok(region) = crate::cluster::Region::new(&record.region) {
        let myself = Member {
            id: net.me.id.clone(),
            incarnation: net.me.incarnation,
            addr: net.advertise,
            region,
            roles: record.roles.clone(),
            version: record.version.clone(),
            load: announced.load,
            standing: if record.draining { Standing::Draining } else { Standing::Active },
            services: record.services.clone(),
            cut_from: net.cut_from(),
        };
        members.insert(net.me.id.clone(), myself);
    }
    Heard { members, misses, left }
}

fn measure(net: &Net) {
    for conn in net.conns() {
        if let ConnState::Up(up) = conn.state() {
            net.rtts.lock().record(&up.path.peer.id, up.path.wire.rtt());
        }
    }
}

/// Greets whoever discovery names and the view does not hold.
async fn discover(net: Arc<Net>, membership: Arc<Membership>, discovery: Arc<dyn Discovery>) {
    let mut stopping = net.stopping.subscribe();
    loop {
        let found = timeout(DISCOVER_TIMEOUT, discovery.addresses()).await.unwrap_or_default();
        let view = Arc::clone(&net.view.borrow());
        let known: HashSet<SocketAddr> = view.members.values().map(|member| member.addr).collect();
        for addr in found.into_iter().filter(|addr| *addr != net.advertise && !known.contains(addr)) {
            let _ = membership.chitchat.gossip(addr);
        }
        let pause = if view.members.len() > 1 { DISCOVER_JOINED } else { DISCOVER_ALONE };
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            _ = stopping.wait_for(|&stop| stop) => return,
        }
    }
}
