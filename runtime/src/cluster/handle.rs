//! A node's place in its cluster, as the rest of the program holds it.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};

use crate::address::Address;
use crate::clock::Clock;
use crate::cluster::conn::{Conn, ConnState};
use crate::cluster::duties::Duties;
use crate::cluster::exports::{ExportError, service_key};
use crate::cluster::membership::{Announcement, Membership, MembershipParts, Record};
use crate::cluster::net::{Limits, Net, NetParts};
use crate::cluster::remote::RemoteActor;
use crate::cluster::singleton::Routes;
use crate::cluster::stats::ClusterStats;
use crate::cluster::{
    Detector, Discovery, Incarnation, Member, NodeId, Region, RttClass, Standing, View, accept,
};
use crate::deadline::Deadline;
use crate::fabric::{Fabric, Lane};
use crate::wire::{CodecError, Header, Kind, RemoteMessage};

/// Gossip that waits to be read. More is lost, and said again in the next round.
const GOSSIP_QUEUE: usize = 1024;

/// Who a node is in its cluster, and how it takes part.
#[derive(Clone, Debug)]
pub struct ClusterConfig {
    /// Clusters of different names never mix.
    pub cluster: String,
    /// This node.
    pub id: NodeId,
    /// Higher than in any earlier life, e.g. the milliseconds since 1970 at its start.
    pub incarnation: Incarnation,
    /// Where others dial it.
    pub advertise: SocketAddr,
    /// Where it is.
    pub region: Region,
    /// What it is for.
    pub roles: Vec<String>,
    /// Version of the program.
    pub version: String,
    /// How absence is noticed.
    pub detector: Detector,
    /// How much may be under way.
    pub limits: Limits,
}

/// A running part of a cluster. Cheap to clone; [`Cluster::leave`] ends it.
#[derive(Clone)]
pub struct Cluster {
    pub(crate) net: Arc<Net>,
    membership: Arc<Membership>,
    /// One change at a time of what this node says of itself, or an earlier one could be said last.
    announcing: Arc<tokio::sync::Mutex<()>>,
    pub(crate) duties: Arc<Duties>,
    pub(crate) routes: Arc<Routes>,
}

/// Services of such names are the runtime's own.
const OWN_SERVICE: char = '@';

/// A node did not become part of a cluster.
#[derive(Debug, thiserror::Error)]
pub enum JoinError {
    /// The gossip did not start. The program acts.
    #[error("membership: {0}")]
    Membership(String),
}

impl Cluster {
    /// Takes part from now on, alone until discovery or others find somebody. Its tasks run on the current tokio
    /// runtime.
    ///
    /// # Errors
    /// When the membership does not start.
    pub async fn start(
        config: ClusterConfig,
        fabric: Arc<dyn Fabric>,
        discovery: Option<Arc<dyn Discovery>>,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, JoinError> {
        let (gossip_in, gossip) = mpsc::channel(GOSSIP_QUEUE);
        let (goodbyes_in, goodbyes) = mpsc::channel(GOSSIP_QUEUE);
        let mut roles = config.roles;
        roles.sort();
        roles.dedup();
        let record = Record {
            region: config.region.as_str().to_owned(),
            roles: roles.clone(),
            version: config.version.clone(),
            draining: false,
            left: false,
            services: BTreeMap::new(),
        };
        let myself = Member {
            id: config.id.clone(),
            incarnation: config.incarnation,
            addr: config.advertise,
            region: config.region,
            roles,
            version: config.version,
            load: 0.0,
            standing: Standing::Active,
            services: BTreeMap::new(),
            cut_from: Vec::new(),
        };
        let view = View { members: BTreeMap::from([(config.id.clone(), myself)]), revision: 0 };
        let parts = NetParts {
            id: config.id,
            incarnation: config.incarnation,
            cluster: config.cluster,
            advertise: config.advertise,
            limits: config.limits,
            fabric,
            clock,
            gossip: gossip_in,
            goodbyes: goodbyes_in,
        };
        let net = Arc::new(Net::new(parts, view));
        tokio::spawn(accept::accept(Arc::clone(&net)));
        let parts = MembershipParts {
            detector: config.detector,
            announcement: Announcement { record, load: 0.0 },
            gossip,
            goodbyes,
            discovery,
        };
        let membership = Membership::start(&net, parts).await;
        let membership = membership.map_err(|error| JoinError::Membership(error.to_string()))?;
        Ok(Self {
            net,
            membership,
            announcing: Arc::default(),
            duties: Arc::default(),
            routes: Arc::default(),
        })
    }

    /// This node.
    #[must_use]
    pub fn id(&self) -> &NodeId {
        &self.net.me.id
    }

    /// Its present life.
    #[must_use]
    pub fn incarnation(&self) -> Incarnation {
        self.net.me.incarnation
    }

    /// The members as this node sees them now.
    #[must_use]
    pub fn view(&self) -> Arc<View> {
        Arc::clone(&self.net.view.borrow())
    }

    /// Every later view.
    #[must_use]
    pub fn views(&self) -> watch::Receiver<Arc<View>> {
        self.net.view.subscribe()
    }

    /// Lets other nodes send one type of message to an actor of this process, under a service's name.
    ///
    /// # Errors
    /// When the name has a receiver for that message already.
    pub fn export<M: RemoteMessage>(&self, service: &str, address: &Address<M>) -> Result<(), ExportError> {
        self.net.exports.add(service, address)
    }

    /// Takes a service back.
    pub fn withdraw(&self, service: &str) {
        self.net.exports.remove(service);
    }

    /// The address of a service on another member, good for its present life; `None`: no such member now.
    #[must_use]
    pub fn address<M: RemoteMessage>(&self, node: &NodeId, service: &str) -> Option<Address<M>> {
        let peer = self.net.peer(node)?;
        let actor = RemoteActor::<M>::new(Arc::clone(&self.net), peer, service_key(service));
        Some(Address::far(Arc::new(actor)))
    }

    /// Resolves when that life of a member is over: at once if it is over now. Death watch.
    pub async fn gone(&self, node: &NodeId, incarnation: Incarnation) {
        let mut views = self.views();
        let over = |view: &Arc<View>| view.get(node).is_none_or(|member| member.incarnation != incarnation);
        // The sender lives as long as this cluster does.
        let _ = views.wait_for(over).await;
    }

    /// Says how busy this node is, from 0 to 1.
    pub async fn set_load(&self, load: f32) {
        self.announce(|said| said.load = (load.clamp(0.0, 1.0) * 100.0).round() / 100.0).await;
    }

    /// Says what this node offers, all of it. Names that begin with `@` are the runtime's own: those given here
    /// are left out, and those that it has stay.
    pub async fn set_services(&self, services: BTreeMap<String, String>) {
        self.announce(|said| {
            said.record.services.retain(|name, _| name.starts_with(OWN_SERVICE));
            let given = services.into_iter().filter(|(name, _)| !name.starts_with(OWN_SERVICE));
            said.record.services.extend(given);
        })
        .await;
    }

    /// Says one thing of the runtime's own.
    pub(crate) async fn offer(&self, name: &str, described: &str) {
        debug_assert!(name.starts_with(OWN_SERVICE), "a name that programs cannot take");
        let (name, described) = (name.to_owned(), described.to_owned());
        self.announce(|said| drop(said.record.services.insert(name, described))).await;
    }

    /// Says it no longer.
    pub(crate) async fn take_back(&self, name: &str) {
        self.announce(|said| drop(said.record.services.remove(name))).await;
    }

    async fn announce(&self, change: impl FnOnce(&mut Announcement)) {
        let _one_at_a_time = self.announcing.lock().await;
        self.membership.announce(change).await;
    }

    /// Says whether this node takes new work.
    pub async fn set_standing(&self, standing: Standing) {
        self.announce(|said| said.record.draining = standing == Standing::Draining).await;
    }

    /// An address that is called where somebody refuses this node, or is refused by it, for what the two are configured
    /// with: it will be no member until an operator has mended that.
    #[must_use]
    pub fn estranged(&self) -> Option<SocketAddr> {
        self.net.conns().iter().find(|conn| conn.is_estranged()).map(|conn| conn.addr)
    }

    /// Smoothed round trip to a member.
    #[must_use]
    pub fn rtt(&self, node: &NodeId) -> Option<Duration> {
        self.net.rtts.lock().rtt(node)
    }

    /// How far a member is.
    #[must_use]
    pub fn distance(&self, node: &NodeId) -> RttClass {
        let view = self.view();
        self.net.rtts.lock().class(&view, &self.net.me.id, node)
    }

    /// Whether there is a link to a member now.
    #[must_use]
    pub fn connected(&self, node: &NodeId) -> bool {
        let Some(peer) = self.net.peer(node) else { return false };
        self.net.conns().iter().any(|conn| conn.addr == peer.addr && conn.is_up())
    }

    /// The latest life of a node that said goodbye. A node that is not in the view and said none was lost.
    #[must_use]
    pub fn left(&self, node: &NodeId) -> Option<Incarnation> {
        self.net.left.lock().get(node).copied()
    }

    /// Counters.
    #[must_use]
    pub fn stats(&self) -> ClusterStats {
        self.net.stats.read(self.net.pending.len())
    }

    /// Ends what this node does for the others, says goodbye, so that they need not find out, and closes every
    /// link. Asks that wait fail. [`Cluster::drain`] first finishes and hands over what there is.
    pub async fn leave(&self, deadline: Deadline) {
        self.duties.end(deadline).await;
        self.announce(|said| {
            said.record.left = true;
            said.record.draining = true;
        })
        .await;
        for conn in self.net.conns() {
            if let ConnState::Up(up) = conn.state() {
                let header =
                    Header { destination: up.path.peer.key, ..Header::new(Kind::Goodbye, Lane::Control) };
                let _ = conn.outboxes.lane(Lane::Control).push(header, |_| Ok::<(), CodecError>(()));
            }
        }
        // Until the last goodbye and the last answers are written, or time is up.
        let written = async {
            let waits = |lane: &Lane, conn: &Conn| conn.is_up() && !conn.outboxes.lane(*lane).is_empty();
            while self.net.conns().iter().any(|conn| Lane::ALL.iter().any(|lane| waits(lane, conn))) {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            // What is written leaves with the next packets.
            tokio::time::sleep(Duration::from_millis(20)).await;
        };
        let _ = tokio::time::timeout_at(deadline.instant().into(), written).await;
        self.membership.stop();
        self.net.stopping.send_replace(true);
        self.net.fabric.close();
    }
}
