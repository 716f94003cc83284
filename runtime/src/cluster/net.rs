//! What all links of a node share, and how a frame finds its way: directly, through a third node, or not at all.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::{mpsc, watch};

use crate::address::{AskError, Refusal};
use crate::clock::Clock;
use crate::cluster::conn::{Conn, ConnState};
use crate::cluster::exports::Exports;
use crate::cluster::greeting::Layouts;
use crate::cluster::link::{Identity, Outboxes, Path};
use crate::cluster::order::Orders;
use crate::cluster::outbox::Unsent;
use crate::cluster::pending::Pending;
use crate::cluster::reader::GOSSIP_BYTES_MAX;
use crate::cluster::relay::{self, Onward, Relays, Ways};
use crate::cluster::stats::Stats;
use crate::cluster::{Fnv, Incarnation, NodeId, RttTable, View};
use crate::fabric::{Fabric, Lane};
use crate::seldom::Seldom;
use crate::wire::{CodecError, Flags, Header, Kind};

/// How much a node lets be under way.
#[derive(Clone, Debug, PartialEq)]
pub struct Limits {
    /// Asks of this node to one other that wait for their answer.
    pub asks_per_peer: usize,
    /// Bytes that may wait to be written to one lane of one link.
    pub lane_bytes: usize,
    /// Asks of one other node that are worked on here.
    pub asks_per_link: usize,
    /// Longest frame passed on for others.
    pub relayed_bytes: u32,
    /// How long a peer may take to greet.
    pub greeting: Duration,
    /// Wait before a link that failed is tried again: doubles from the first to the second.
    pub redial: (Duration, Duration),
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            asks_per_peer: 4096,
            lane_bytes: 8 << 20,
            asks_per_link: 8192,
            relayed_bytes: 4 << 20,
            greeting: Duration::from_secs(1),
            redial: (Duration::from_millis(50), Duration::from_secs(1)),
        }
    }
}

/// How long a node that nobody answers waits for others to start before it says so.
const ALONE_AFTER: Duration = Duration::from_secs(15);

/// A message of one node's gossip, with the address by which it is known.
pub(crate) type GossipMail = (SocketAddr, Bytes);

/// Nodes that said goodbye and are remembered.
const LEFT_MAX: usize = 4096;

pub(crate) struct Net {
    pub(crate) me: Identity,
    pub(crate) cluster: String,
    pub(crate) advertise: SocketAddr,
    pub(crate) limits: Limits,
    pub(crate) fabric: Arc<dyn Fabric>,
    pub(crate) clock: Arc<dyn Clock>,
    started: Instant,
    pub(crate) exports: Exports,
    pub(crate) pending: Pending,
    pub(crate) orders: Orders,
    pub(crate) stats: Stats,
    pub(crate) view: watch::Sender<Arc<View>>,
    /// To the membership.
    pub(crate) gossip: mpsc::Sender<GossipMail>,
    /// Lives that ended on purpose, to the membership.
    pub(crate) goodbyes: mpsc::Sender<(NodeId, Incarnation)>,
    /// The latest life of each node that ended on purpose; written before the view shows it.
    pub(crate) left: Mutex<HashMap<NodeId, Incarnation>>,
    pub(crate) runtime: tokio::runtime::Handle,
    pub(crate) stopping: watch::Sender<bool>,
    conns: Mutex<HashMap<SocketAddr, Arc<Conn>>>,
    /// Links that others opened, by the hash of their name.
    callers: Mutex<HashMap<u64, Arc<Path>>>,
    peers: Mutex<HashMap<u64, Arc<Peer>>>,
    relays: Mutex<Relays>,
    pub(crate) rtts: Mutex<RttTable>,
    /// Callers whose greeting was refused.
    pub(crate) turned_away: Mutex<Seldom>,
    /// Dials of a node without any link that nobody answered.
    alone: Mutex<Seldom>,
}

/// One life of another member, as far as sending to it goes.
pub(crate) struct Peer {
    pub(crate) identity: Identity,
    pub(crate) addr: SocketAddr,
    /// As its last greeting said.
    pub(crate) types: Mutex<Layouts>,
    pub(crate) asks: AtomicUsize,
    /// The link to its address, which is kept for as long as it is a member.
    conn: OnceLock<Arc<Conn>>,
    gone: AtomicBool,
    sequences: [Mutex<u64>; 4],
}

impl Peer {
    pub(crate) fn is_gone(&self) -> bool {
        self.gone.load(Ordering::Acquire)
    }
}

/// The first link of a way.
pub(crate) struct Way {
    pub(crate) conn: Arc<Conn>,
    flags: Flags,
}

/// What one builds a [`Net`] from.
pub(crate) struct NetParts {
    pub(crate) id: NodeId,
    pub(crate) incarnation: Incarnation,
    pub(crate) cluster: String,
    pub(crate) advertise: SocketAddr,
    pub(crate) limits: Limits,
    pub(crate) fabric: Arc<dyn Fabric>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) gossip: mpsc::Sender<GossipMail>,
    pub(crate) goodbyes: mpsc::Sender<(NodeId, Incarnation)>,
}

pub(crate) fn node_key(id: &NodeId) -> u64 {
    Fnv::of(id.as_str().as_bytes())
}

impl Net {
    /// Must be called within a tokio runtime.
    pub(crate) fn new(parts: NetParts, view: View) -> Self {
        Self {
            me: Identity { key: node_key(&parts.id), id: parts.id, incarnation: parts.incarnation },
            cluster: parts.cluster,
            advertise: parts.advertise,
            limits: parts.limits,
            fabric: parts.fabric,
            started: parts.clock.now(),
            clock: parts.clock,
            exports: Exports::default(),
            pending: Pending::default(),
            orders: Orders::default(),
            stats: Stats::default(),
            view: watch::Sender::new(Arc::new(view)),
            gossip: parts.gossip,
            goodbyes: parts.goodbyes,
            left: Mutex::default(),
            runtime: tokio::runtime::Handle::current(),
            stopping: watch::Sender::new(false),
            conns: Mutex::default(),
            callers: Mutex::default(),
            peers: Mutex::default(),
            relays: Mutex::new(Relays::new()),
            rtts: Mutex::new(RttTable::new()),
            turned_away: Mutex::default(),
            alone: Mutex::default(),
        }
    }

    pub(crate) fn now(&self) -> Instant {
        self.clock.now()
    }

    /// The link to an address, dialled now if there is none.
    pub(crate) fn conn(self: &Arc<Self>, addr: SocketAddr) -> Arc<Conn> {
        let mut conns = self.conns.lock();
        let conn = conns.entry(addr).or_insert_with(|| Conn::dial(self, addr));
        Arc::clone(conn)
    }

    pub(crate) fn conns(&self) -> Vec<Arc<Conn>> {
        self.conns.lock().values().cloned().collect()
    }

    /// Present life of a member.
    pub(crate) fn peer(&self, id: &NodeId) -> Option<Arc<Peer>> {
        self.peers.lock().get(&node_key(id)).filter(|peer| peer.identity.id == *id).cloned()
    }

    fn peer_by_key(&self, key: u64) -> Option<Arc<Peer>> {
        self.peers.lock().get(&key).cloned()
    }

    /// A link that another opened; an earlier one of the same node is closed, so that what it sent last on the
    /// old link never comes after what it sends on the new one.
    pub(crate) fn enter_caller(&self, path: &Arc<Path>) {
        let former = self.callers.lock().insert(path.peer.key, Arc::clone(path));
        if let Some(former) = former {
            former.wire.close("superseded");
        }
    }

    /// Nobody answers an address, for so long by now: `Some` if it is to be said, since this node has no link at all,
    /// with how often it happened unsaid before.
    pub(crate) fn unheard(&self, failing: Duration) -> Option<u64> {
        let linked =
            || !self.callers.lock().is_empty() || self.conns.lock().values().any(|conn| conn.is_up());
        (failing >= ALONE_AFTER && !linked()).then(|| self.alone.lock().happened(self.now())).flatten()
    }

    /// A life of a node has ended on purpose.
    pub(crate) fn note_left(&self, node: NodeId, life: Incarnation) {
        let mut left = self.left.lock();
        if left.len() >= LEFT_MAX && !left.contains_key(&node) {
            left.clear(); // whoever asks takes an old goodbye for a loss, once in thousands of nodes
        }
        let known = left.entry(node).or_insert(life);
        *known = (*known).max(life);
    }

    pub(crate) fn leave_caller(&self, path: &Arc<Path>) {
        let mut callers = self.callers.lock();
        if callers.get(&path.peer.key).is_some_and(|present| Arc::ptr_eq(present, path)) {
            callers.remove(&path.peer.key);
        }
    }

    /// Takes over a new view: dials who came, ends what waits for who went. Called by the membership alone.
    pub(crate) fn enter_view(self: &Arc<Self>, view: Arc<View>) {
        let mut gone = Vec::new();
        // A life that is met again remembers the last number; no message takes less than a nanosecond.
        let since_start = self.now().saturating_duration_since(self.started);
        let first = u64::try_from(since_start.as_nanos()).unwrap_or(u64::MAX >> 1);
        {
            let mut peers = self.peers.lock();
            peers.retain(|_, peer| {
                let lives = view.get(&peer.identity.id).is_some_and(|member| {
                    member.incarnation == peer.identity.incarnation && member.addr == peer.addr
                });
                if !lives {
                    peer.gone.store(true, Ordering::Release);
                    gone.push(Arc::clone(peer));
                }
                lives
            });
            for member in view.members.values().filter(|member| member.id != self.me.id) {
                let key = node_key(&member.id);
                peers.entry(key).or_insert_with(|| {
                    let identity = Identity { id: member.id.clone(), key, incarnation: member.incarnation };
                    let layouts = self.greeted(member.addr, &identity);
                    Arc::new(Peer {
                        identity,
                        addr: member.addr,
                        types: Mutex::new(layouts),
                        asks: AtomicUsize::new(0),
                        conn: OnceLock::new(),
                        gone: AtomicBool::new(false),
                        sequences: std::array::from_fn(|_| Mutex::new(first)),
                    })
                });
            }
        }
        let now = self.now();
        for member in view.members.values().filter(|member| member.id != self.me.id) {
            self.conn(member.addr).want(now);
        }
        let addrs: Vec<SocketAddr> = view.members.values().map(|member| member.addr).collect();
        self.conns.lock().retain(|addr, conn| addrs.contains(addr) || !conn.retire(now));
        self.rtts.lock().retain(&view);
        self.orders.retain(&view);
        self.view.send_replace(view);
        for peer in gone {
            self.relays.lock().forget(&peer.identity.id);
            let lost = self.pending.fail_node(peer.identity.key, peer.identity.incarnation.0);
            tracing::info!(node = %peer.identity.id, asks = lost, "member is gone");
        }
    }

    /// What a life of a node said when it was greeted from here.
    fn greeted(&self, addr: SocketAddr, identity: &Identity) -> Layouts {
        match self.conns.lock().get(&addr).map(|conn| conn.state()) {
            Some(ConnState::Up(up)) if up.path.peer == *identity => up.layouts.clone(),
            _ => Layouts::new(),
        }
    }

    /// A node has greeted. Of one that is no member yet, the link remembers it.
    pub(crate) fn learn(&self, identity: &Identity, layouts: Layouts) {
        if let Some(peer) = self.peer(&identity.id).filter(|peer| peer.identity == *identity) {
            *peer.types.lock() = layouts;
        }
    }

    /// How frames for a peer leave this node now.
    pub(crate) fn way(self: &Arc<Self>, peer: &Peer) -> Result<Way, AskError> {
        if peer.is_gone() {
            return Err(AskError::Closed);
        }
        let conn = Arc::clone(peer.conn.get_or_init(|| self.conn(peer.addr)));
        match conn.reaches(&peer.identity) {
            Some(true) => Ok(Way { conn, flags: Flags::default() }),
            Some(false) => self.detour(peer).ok_or(AskError::Unreachable),
            // Somebody else answers at its address: that life is over, and the membership will say so.
            None => Err(AskError::Closed),
        }
    }

    fn detour(&self, peer: &Peer) -> Option<Way> {
        let view = Arc::clone(&self.view.borrow());
        let ways = KnownWays { net: self, view: &view };
        let mut relays = self.relays.lock();
        let via = relays.choose(&view, &self.me.id, &peer.identity.id, &ways)?;
        let conn = self.conns.lock().get(&view.get(via)?.addr).cloned()?;
        Some(Way { conn, flags: Flags::VIA })
    }

    /// The direct way to a member is back.
    pub(crate) fn reached(&self, id: &NodeId) {
        self.relays.lock().forget(id);
    }

    /// Sends a message on its way, numbered in the order of its lane.
    pub(crate) fn send(
        &self,
        peer: &Peer,
        way: &Way,
        header: Header,
        body: impl FnOnce(&mut Vec<u8>) -> Result<(), CodecError>,
    ) -> Result<(), Unsent<CodecError>> {
        // Held over the push: numbers rise in the order in which frames lie in the outbox.
        let mut sequence = peer.sequences[header.lane as usize].lock();
        let header =
            Header { flags: way.flags, sequence: *sequence + 1, ..self.addressed(header, &peer.identity) };
        way.conn.outboxes.lane(header.lane).push(header, body)?;
        *sequence += 1;
        if way.flags.has(Flags::VIA) {
            self.stats.detours.fetch_add(1, Ordering::Relaxed);
        }
        Ok(())
    }

    /// Sends what needs no number.
    pub(crate) fn send_unnumbered(self: &Arc<Self>, peer: &Peer, header: Header) {
        if let Ok(way) = self.way(peer) {
            let header = Header { flags: way.flags, ..self.addressed(header, &peer.identity) };
            // Best effort: what is not cancelled ends by its deadline.
            let _ = way.conn.outboxes.lane(header.lane).push(header, |_| Ok::<(), CodecError>(()));
        }
    }

    fn addressed(&self, header: Header, to: &Identity) -> Header {
        Header {
            origin: self.me.key,
            incarnation: self.me.incarnation.0,
            destination: to.key,
            destination_incarnation: to.incarnation.0,
            ..header
        }
    }

    /// Passes a frame on to its destination: its one hop.
    pub(crate) fn forward(&self, header: Header, body: &[u8]) -> Result<(), AskError> {
        let no_route = AskError::Refused(Refusal::NoRoute);
        let onward = self.onward(header.destination).ok_or(no_route)?;
        let frame = Onward {
            target: &onward.target,
            via: header.flags.has(Flags::VIA),
            ends_ask: matches!(header.kind, Kind::Answer | Kind::Refusal | Kind::Cancel),
        };
        let view = Arc::clone(&self.view.borrow());
        relay::pass(&view, &self.me.id, frame, &onward).map_err(|_no_passage| no_route)?;
        let outboxes = onward.outboxes.ok_or(no_route)?;
        let header = Header { flags: Flags::RELAYED, ..header };
        let copy = |out: &mut Vec<u8>| -> Result<(), CodecError> {
            out.extend_from_slice(body);
            Ok(())
        };
        match outboxes.lane(header.lane).push(header, copy) {
            Ok(()) => {
                self.stats.relayed.fetch_add(1, Ordering::Relaxed);
                Ok(())
            }
            Err(Unsent::Full) => Err(AskError::Full),
            Err(Unsent::Closed | Unsent::Body(_)) => Err(no_route),
        }
    }

    /// The link that leads to a node by now, whichever of the two opened it; nothing if nobody knows the node.
    fn onward(&self, key: u64) -> Option<OnwardLink> {
        let caller = self.callers.lock().get(&key).cloned();
        let peer = self.peer_by_key(key);
        let target = match (&peer, &caller) {
            (Some(peer), _) => peer.identity.id.clone(),
            (None, Some(path)) => path.peer.id.clone(),
            (None, None) => return None,
        };
        let dialled = peer.and_then(|peer| {
            let conns = self.conns.lock();
            conns.get(&peer.addr).filter(|conn| conn.is_up()).map(|conn| Arc::clone(&conn.outboxes))
        });
        let outboxes = dialled.or_else(|| caller.map(|path| Arc::clone(&path.outboxes)));
        Some(OnwardLink { target, outboxes })
    }

    /// Sends a gossip message, or forgets it: the next round says it again.
    pub(crate) fn send_gossip(self: &Arc<Self>, to: SocketAddr, message: Bytes) {
        if message.len() > GOSSIP_BYTES_MAX as usize {
            // More members than gossip can name. Sent, it would end the link, and asks with it.
            tracing::warn!(message_bytes = message.len(), "gossip is longer than any node takes");
            return;
        }
        let conn = self.conn(to);
        conn.want(self.now());
        let ConnState::Up(up) = conn.state() else { return };
        if message.len() <= up.path.wire.datagram_bytes_max() {
            let _ = up.path.wire.send_datagram(message);
            return;
        }
        let header = self.addressed(Header::new(Kind::Gossip, Lane::Control), &up.path.peer);
        let _ = conn.outboxes.lane(Lane::Control).push(header, |out| -> Result<(), CodecError> {
            out.extend_from_slice(&message);
            Ok(())
        });
    }

    /// Live members that this node has no link to, for others to know.
    pub(crate) fn cut_from(&self) -> Vec<NodeId> {
        let view = Arc::clone(&self.view.borrow());
        let conns = self.conns.lock();
        (view.members.values())
            .filter(|member| member.id != self.me.id)
            .filter(|member| {
                conns.get(&member.addr).is_some_and(|conn| matches!(conn.state(), ConnState::Down))
            })
            .map(|member| member.id.clone())
            .collect()
    }
}

/// What leads from here to the destination of a frame that is passed on.
struct OnwardLink {
    target: NodeId,
    outboxes: Option<Arc<Outboxes>>,
}

impl Ways for OnwardLink {
    fn connected(&self, to: &NodeId) -> bool {
        *to == self.target && self.outboxes.is_some()
    }

    fn rtt(&self, _from: &NodeId, _to: &NodeId) -> Option<Duration> {
        None
    }
}

struct KnownWays<'a> {
    net: &'a Net,
    view: &'a View,
}

impl Ways for KnownWays<'_> {
    fn connected(&self, to: &NodeId) -> bool {
        let Some(member) = self.view.get(to) else { return false };
        self.net.conns.lock().get(&member.addr).is_some_and(|conn| conn.is_up())
    }

    fn rtt(&self, from: &NodeId, to: &NodeId) -> Option<Duration> {
        if *from == self.net.me.id { self.net.rtts.lock().rtt(to) } else { None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::fuzzing::peer;

    #[tokio::test]
    async fn a_node_that_nobody_answers_says_so_seldom_and_not_at_once() {
        let (net, _heard) = peer::net();
        assert_eq!(net.unheard(ALONE_AFTER - Duration::from_millis(1)), None, "others may still be starting");
        assert_eq!(net.unheard(ALONE_AFTER), Some(0));
        assert_eq!(net.unheard(ALONE_AFTER * 2), None, "a moment ago");
    }

    #[tokio::test]
    async fn a_node_with_a_link_is_not_alone() {
        let (net, _heard) = peer::net();
        let caller = peer::path(&net, "caller");
        net.enter_caller(&caller);
        assert_eq!(net.unheard(ALONE_AFTER), None);
        net.leave_caller(&caller);
        assert_eq!(net.unheard(ALONE_AFTER), Some(0));
    }
}
