//! A network inside one process, for tests: seeded, on tokio's clock, and as bad as it is told to be.
//!
//! With a paused clock and a runtime of one thread, the same seed gives the same run. Every direction between
//! two addresses has its own latency, loss and cuts. What lanes carry is late but never lost; datagrams may be.
//! Credentials play no part.

mod link;
mod state;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex as Lock;
use tokio::sync::{Mutex, Notify, mpsc};
use tokio::time::{Instant, sleep, timeout};

use self::state::{Joined, Net};
use super::{ConnectError, Fabric, Link};
use crate::cluster::NodeId;

/// All nodes of a test and what is between them. Clones are the same network.
#[derive(Clone)]
pub struct SimNetwork {
    shared: Arc<Shared>,
}

/// A node's place in a [`SimNetwork`].
pub struct SimFabric {
    shared: Arc<Shared>,
    addr: SocketAddr,
    life: u64,
    links: Mutex<mpsc::Receiver<Link>>,
}

/// How one direction between two addresses behaves.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SimPath {
    /// What every packet takes.
    pub latency: Duration,
    /// What it may take on top, evenly drawn.
    pub jitter: Duration,
    /// Which share of datagrams is lost, 0 to 1.
    pub datagram_loss: f64,
    /// Which share of datagrams is overtaken by later ones, 0 to 1.
    pub datagram_reorder: f64,
}

/// How a network behaves unless told otherwise; the times are those of QUIC.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SimOptions {
    /// Every direction that was not set.
    pub path: SimPath,
    /// Longest a handshake may take.
    pub handshake_max: Duration,
    /// A peer that is silent for longer is gone.
    pub idle_max: Duration,
    /// What one lane holds in one direction.
    pub lane_bytes_max: usize,
    /// Datagrams on their way or waiting, in bytes; the oldest make room.
    pub datagram_bytes_max_waiting: usize,
    /// Links that may wait to be accepted; one more is refused.
    pub backlog_max: usize,
}

struct Shared {
    state: Lock<Net>,
    /// Told when a path may have become passable.
    weather: Notify,
}

impl Default for SimPath {
    fn default() -> Self {
        Self {
            latency: Duration::from_millis(1),
            jitter: Duration::ZERO,
            datagram_loss: 0.0,
            datagram_reorder: 0.0,
        }
    }
}

impl Default for SimOptions {
    fn default() -> Self {
        Self {
            path: SimPath::default(),
            handshake_max: Duration::from_secs(1),
            idle_max: Duration::from_millis(1100),
            lane_bytes_max: 256 * 1024,
            datagram_bytes_max_waiting: 256 * 1024,
            backlog_max: 64,
        }
    }
}

impl SimNetwork {
    /// A network that behaves by default.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self::with_options(seed, SimOptions::default())
    }

    /// A network that behaves like this.
    #[must_use]
    pub fn with_options(seed: u64, options: SimOptions) -> Self {
        let state = Lock::new(Net::new(seed, options));
        Self { shared: Arc::new(Shared { state, weather: Notify::new() }) }
    }

    /// Starts a node.
    ///
    /// # Panics
    /// There is one at this address that has neither been closed nor killed.
    #[must_use]
    pub fn fabric(&self, node: &NodeId, addr: SocketAddr) -> SimFabric {
        let mut state = self.shared.state.lock();
        let (backlog, links) = mpsc::channel(state.options.backlog_max);
        let life = state.start(node.clone(), addr, backlog);
        drop(state);
        self.shared.weather.notify_waiters();
        SimFabric { shared: Arc::clone(&self.shared), addr, life, links: Mutex::new(links) }
    }

    /// From now on, one direction behaves like this.
    pub fn set_path(&self, from: SocketAddr, to: SocketAddr, path: SimPath) {
        self.shared.state.lock().set_path((from, to), path);
    }

    /// Nothing arrives in this direction any more, and nobody is told.
    pub fn cut(&self, from: SocketAddr, to: SocketAddr) {
        self.shared.state.lock().set_cut((from, to), true, Instant::now());
    }

    /// Undoes [`SimNetwork::cut`]; what lanes had on the way sets out again.
    pub fn heal(&self, from: SocketAddr, to: SocketAddr) {
        self.shared.state.lock().set_cut((from, to), false, Instant::now());
        self.shared.weather.notify_waiters();
    }

    /// The process is gone. Its peers hear nothing, not even a goodbye; whatever still runs of it here finds
    /// its links and its fabric closed. Its address is free again.
    pub fn kill(&self, addr: SocketAddr) {
        self.shared.state.lock().end_life(addr, None, "the process was killed", false, Instant::now());
    }

    /// The process stands still: nothing it sends leaves, nothing arrives. Its tasks do run on here.
    pub fn freeze(&self, addr: SocketAddr) {
        self.shared.state.lock().set_frozen(addr, true, Instant::now());
    }

    /// Undoes [`SimNetwork::freeze`]. Links whose peers have given up meanwhile end then.
    pub fn thaw(&self, addr: SocketAddr) {
        self.shared.state.lock().set_frozen(addr, false, Instant::now());
        self.shared.weather.notify_waiters();
    }

    #[cfg(test)]
    pub(super) fn links_held(&self) -> usize {
        self.shared.state.lock().links_held()
    }
}

impl SimFabric {
    async fn shake_hands(&self, to: SocketAddr) -> Result<Link, ConnectError> {
        let gone = || ConnectError::Unreachable { addr: to, reason: "the fabric is closed".to_owned() };
        for (from, to) in [(self.addr, to), (to, self.addr)] {
            if !self.shared.state.lock().lives(self.addr, self.life) {
                return Err(gone());
            }
            self.shared.cross(from, to).await;
        }
        let mut state = self.shared.state.lock();
        if !state.lives(self.addr, self.life) {
            return Err(gone());
        }
        let joined = state.join(self.addr, to, Instant::now()).ok_or_else(gone)?;
        let within = state.options.handshake_max;
        drop(state);
        let Joined { ends: [own, other], ids: [caller, called], backlog } = joined;
        let theirs = link::link(&self.shared, other, self.addr, caller);
        let (shared, from) = (Arc::clone(&self.shared), self.addr);
        // The other end knows of the link when the first bytes arrive there, if they do.
        tokio::spawn(async move {
            if timeout(within, shared.cross(from, to)).await.is_ok() {
                let _dropped_when_full = backlog.try_send(theirs);
            }
        });
        Ok(link::link(&self.shared, own, to, called))
    }
}

impl Shared {
    /// Takes as long as a packet that is sent again until it arrives.
    async fn cross(&self, from: SocketAddr, to: SocketAddr) {
        loop {
            let mut weather = std::pin::pin!(self.weather.notified());
            weather.as_mut().enable();
            let reachable = self.state.lock().reachable(from, to);
            if !reachable {
                weather.await;
                continue;
            }
            let travel = self.state.lock().travel(from, to);
            sleep(travel).await;
            if self.state.lock().reachable(from, to) {
                return;
            }
        }
    }
}

#[async_trait]
impl Fabric for SimFabric {
    fn local_addr(&self) -> SocketAddr {
        self.addr
    }

    async fn connect(&self, to: SocketAddr) -> Result<Link, ConnectError> {
        let within = self.shared.state.lock().options.handshake_max;
        match timeout(within, self.shake_hands(to)).await {
            Ok(shaken) => shaken,
            Err(_elapsed) => Err(ConnectError::Timeout { addr: to, within }),
        }
    }

    async fn accept(&self) -> Option<Link> {
        self.links.lock().await.recv().await
    }

    fn close(&self) {
        let reason = "the node has closed";
        self.shared.state.lock().end_life(self.addr, Some(self.life), reason, true, Instant::now());
    }
}

impl Drop for SimFabric {
    fn drop(&mut self) {
        self.close();
    }
}
