//! Real nodes for the tests of the shells: over the simulated network, and over QUIC on loopback.

use std::collections::BTreeMap;
use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;

use super::testing::{id, region};
use crate::cluster::lease::LeaseLimits;
use crate::{
    Cluster, ClusterConfig, Credentials, Deadline, Detector, Discovery, Fabric, Incarnation, Limits, Mailbox,
    QuicFabric, QuicOptions, SimNetwork, SystemClock, View,
};

/// Nodes and what is between them.
pub(crate) struct Testbed {
    /// Nothing over QUIC.
    network: Option<SimNetwork>,
    fabrics: BTreeMap<String, Arc<dyn Fabric>>,
    nodes: BTreeMap<String, Cluster>,
}

struct Seeds(Vec<SocketAddr>);

#[async_trait]
impl Discovery for Seeds {
    async fn addresses(&self) -> Vec<SocketAddr> {
        self.0.clone()
    }
}

impl Testbed {
    /// Nodes as `name` or `name@region`, with `+` before the name of one without the role `host`. They have met.
    pub(crate) async fn sim(seed: u64, said: &str) -> Self {
        let mut bed =
            Self { network: Some(SimNetwork::new(seed)), fabrics: BTreeMap::new(), nodes: BTreeMap::new() };
        for said in said.split_whitespace() {
            bed.start(said, 1).await;
        }
        bed.met().await;
        bed
    }

    pub(crate) async fn quic(said: &str) -> Self {
        let mut bed = Self { network: None, fabrics: BTreeMap::new(), nodes: BTreeMap::new() };
        for said in said.split_whitespace() {
            bed.start(said, 1).await;
        }
        bed.met().await;
        bed
    }

    /// One more node, or a new life of one that is gone.
    pub(crate) async fn start(&mut self, said: &str, life: u64) -> Cluster {
        let (said, host) = said.strip_prefix('+').map_or((said, true), |said| (said, false));
        let (name, place) = said.split_once('@').unwrap_or((said, "here"));
        let seeds: Vec<SocketAddr> = self.fabrics.values().map(|fabric| fabric.local_addr()).collect();
        let fabric = self.fabric(name);
        self.fabrics.insert(name.to_owned(), Arc::clone(&fabric));
        let config = ClusterConfig {
            cluster: "test".to_owned(),
            id: id(name),
            incarnation: Incarnation(life),
            advertise: fabric.local_addr(),
            region: region(place),
            roles: if host { vec!["host".to_owned()] } else { Vec::new() },
            version: "1".to_owned(),
            detector: Detector::default(),
            limits: Limits::default(),
        };
        let seeds = Arc::new(Seeds(seeds));
        let cluster = Cluster::start(config, fabric, Some(seeds), Arc::new(SystemClock)).await.unwrap();
        self.nodes.insert(name.to_owned(), cluster.clone());
        cluster
    }

    fn fabric(&self, name: &str) -> Arc<dyn Fabric> {
        let Some(network) = &self.network else {
            let secret = b"a secret of sixteen bytes";
            let credentials = Credentials::from_secret(secret, "test", &id(name)).unwrap();
            let listen = "127.0.0.1:0".parse().unwrap();
            return Arc::new(QuicFabric::bind(listen, &credentials, QuicOptions::default()).unwrap());
        };
        let host = name.bytes().next().unwrap();
        Arc::new(network.fabric(&id(name), ([10, 0, 0, host], 7000).into()))
    }

    pub(crate) fn node(&self, name: &str) -> &Cluster {
        &self.nodes[name]
    }

    pub(crate) fn nodes(&self) -> impl Iterator<Item = &Cluster> {
        self.nodes.values()
    }

    /// Those that stay see each other, and nobody else.
    pub(crate) async fn met(&self) {
        for node in self.nodes.values() {
            let others = || self.nodes.keys().map(|name| id(name));
            sees(node, |view| {
                view.members.len() == self.nodes.len() && others().all(|id| view.get(&id).is_some())
            })
            .await;
            let linked = async {
                while !others().all(|id| id == *node.id() || node.connected(&id)) {
                    tokio::task::yield_now().await;
                }
            };
            soon("the nodes have links", linked).await;
        }
    }

    /// The process is gone, without a word.
    pub(crate) fn kill(&mut self, name: &str) -> Cluster {
        let fabric = self.fabrics.remove(name).unwrap();
        match &self.network {
            Some(network) => network.kill(fabric.local_addr()),
            None => fabric.close(),
        }
        self.nodes.remove(name).unwrap()
    }

    /// It has left by itself.
    pub(crate) fn forget(&mut self, name: &str) {
        self.fabrics.remove(name);
        self.nodes.remove(name);
    }

    pub(crate) fn cut(&self, one: &str, other: &str) {
        self.both_ways(one, other, SimNetwork::cut);
    }

    pub(crate) fn heal(&self, one: &str, other: &str) {
        self.both_ways(one, other, SimNetwork::heal);
    }

    /// Cuts one off from all others.
    pub(crate) fn isolate(&self, name: &str) {
        self.nodes.keys().filter(|other| *other != name).for_each(|other| self.cut(name, other));
    }

    pub(crate) fn rejoin(&self, name: &str) {
        self.nodes.keys().filter(|other| *other != name).for_each(|other| self.heal(name, other));
    }

    pub(crate) fn freeze(&self, name: &str) {
        self.network.as_ref().unwrap().freeze(self.fabrics[name].local_addr());
    }

    pub(crate) fn thaw(&self, name: &str) {
        self.network.as_ref().unwrap().thaw(self.fabrics[name].local_addr());
    }

    fn both_ways(&self, one: &str, other: &str, act: fn(&SimNetwork, SocketAddr, SocketAddr)) {
        let (one, other) = (self.fabrics[one].local_addr(), self.fabrics[other].local_addr());
        let network = self.network.as_ref().unwrap();
        act(network, one, other);
        act(network, other, one);
    }
}

/// Leases of three voters that move in a second or two.
pub(crate) fn leases() -> LeaseLimits {
    let ms = Duration::from_millis;
    LeaseLimits { electorate: 3, lease: ms(1500), promise: ms(1800), renew: ms(250) }
}

pub(crate) async fn sees(node: &Cluster, pleases: impl Fn(&View) -> bool) {
    let mut views = node.views();
    soon("a view comes", async { drop(views.wait_for(|view| pleases(view)).await) }).await;
}

/// Fails the test when something takes far too long.
pub(crate) async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(60), future).await.unwrap_or_else(|_| panic!("too late: {what}"))
}

pub(crate) fn after(delay: Duration) -> Deadline {
    Deadline::after(Instant::now(), delay)
}

pub(crate) fn seconds(count: u64) -> Deadline {
    after(Duration::from_secs(count))
}

pub(crate) fn mailbox<M: crate::Mail>(capacity: usize) -> Mailbox<M> {
    Mailbox::new(capacity, Arc::new(SystemClock))
}
