//! The node that is attacked, and the link it is attacked over.

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use tokio::io::{AsyncRead, ReadBuf};
use tokio::sync::mpsc;

use crate::cluster::link::{Identity, Outboxes, Path};
use crate::cluster::net::{GossipMail, Limits, Net, NetParts, node_key};
use crate::cluster::{Incarnation, NodeId, View};
use crate::fabric::{DatagramError, Fabric, SimNetwork, Wire};

/// Bytes that come a few at a time, then no more.
pub(crate) struct Chunks {
    pub(crate) bytes: Bytes,
    /// At least one.
    pub(crate) chunk_bytes: usize,
}

impl AsyncRead for Chunks {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        let count = self.bytes.len().min(self.chunk_bytes).min(into.remaining());
        into.put_slice(&self.bytes.split_to(count));
        Poll::Ready(Ok(()))
    }
}

/// A link of which only the lanes matter.
struct NoWire;

#[async_trait]
impl Wire for NoWire {
    fn send_datagram(&self, _datagram: Bytes) -> Result<(), DatagramError> {
        Err(DatagramError::Closed)
    }

    async fn recv_datagram(&self) -> Option<Bytes> {
        None
    }

    fn datagram_bytes_max(&self) -> usize {
        0
    }

    fn rtt(&self) -> Duration {
        Duration::ZERO
    }

    fn close(&self, _reason: &str) {}

    async fn closed(&self) -> String {
        std::future::pending().await
    }
}

pub(crate) const CLUSTER: &str = "fuzz";
/// Gossip that waits.
pub(crate) const GOSSIP_QUEUE: usize = 4;
/// What the outbox of a lane holds.
pub(crate) const LANE_BYTES: usize = 64 << 10;

pub(crate) fn name(name: &str) -> NodeId {
    NodeId::new(name).expect("a valid name")
}

pub(crate) fn identity(id: &str) -> Identity {
    Identity { id: name(id), key: node_key(&name(id)), incarnation: Incarnation(1) }
}

/// Node `me`, and what it has heard of gossip.
pub(crate) fn net() -> (Arc<Net>, mpsc::Receiver<GossipMail>) {
    let advertise = SocketAddr::from(([10, 0, 0, 1], 1));
    let fabric: Arc<dyn Fabric> = Arc::new(SimNetwork::new(1).fabric(&name("me"), advertise));
    let (gossip, heard) = mpsc::channel(GOSSIP_QUEUE);
    let (goodbyes, _) = mpsc::channel(4);
    let parts = NetParts {
        id: name("me"),
        incarnation: Incarnation(1),
        cluster: CLUSTER.to_owned(),
        advertise,
        limits: Limits {
            lane_bytes: LANE_BYTES,
            asks_per_link: 4,
            relayed_bytes: 24 << 10,
            ..Limits::default()
        },
        fabric,
        clock: Arc::new(crate::SystemClock),
        gossip,
        goodbyes,
    };
    (Arc::new(Net::new(parts, View::default())), heard)
}

/// A link from `peer` to a node.
pub(crate) fn path(net: &Net, peer: &str) -> Arc<Path> {
    let outboxes = Arc::new(Outboxes::new(LANE_BYTES));
    outboxes.open();
    Arc::new(Path {
        me: net.me.clone(),
        peer: identity(peer),
        wire: Arc::new(NoWire),
        outboxes,
        askings: Default::default(),
        answers_lost: Arc::clone(&net.stats.answers_lost),
    })
}
