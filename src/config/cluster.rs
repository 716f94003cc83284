//! The cluster as used: how this node meets others, which node answers, and who holds what.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use peregrine_runtime::{NodeId, Region};

use super::{BackendChoice, Config, DeviceChoice, PreferChoice, RoleChoice, Secret};

/// How this node meets others.
#[derive(Clone, Debug, PartialEq)]
pub struct ClusterConfig {
    /// Nodes of other names are not met.
    pub name: String,
    /// Port 0 picks a free one.
    pub listen: SocketAddr,
    /// What other nodes dial; `None`: the address that is bound, which names one interface.
    pub advertise: Option<SocketAddr>,
    /// Where to look for others.
    pub seeds: Vec<Seed>,
    /// The DNS server for the seeds' names; `None`: the machine's own.
    pub resolver: Option<SocketAddr>,
    /// How nodes know each other.
    pub credentials: Credentials,
    /// What this node does.
    pub roles: BTreeSet<RoleChoice>,
    /// Nodes that the cluster is meant to have, at least 1.
    pub size: usize,
    /// When a silent node counts as dead.
    pub detector: DetectorConfig,
}

/// Where another node may be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Seed {
    /// There.
    Addr(SocketAddr),
    /// Wherever DNS says at the time.
    Name {
        /// Looked up again and again.
        host: String,
        /// Of every address found.
        port: u16,
    },
}

impl fmt::Display for Seed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Addr(addr) => addr.fmt(f),
            Self::Name { host, port } => write!(f, "{host}:{port}"),
        }
    }
}

/// How nodes of one cluster know each other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Credentials {
    /// All of them know it.
    Secret(Secret),
    /// One authority has signed all their certificates. PEM files.
    Files {
        /// The authority's certificate.
        ca: PathBuf,
        /// This node's.
        certificate: PathBuf,
        /// Its private key.
        key: PathBuf,
    },
}

/// When a silent node counts as dead.
#[derive(Clone, Debug, PartialEq)]
pub struct DetectorConfig {
    /// How often a node tells others what it knows.
    pub gossip_interval: Duration,
    /// A node of which nothing was heard for so long is dead.
    pub silence_max: Duration,
    /// How long a dead node is remembered.
    pub dead_grace: Duration,
}

/// Which node answers a request that this one cannot, or should not.
#[derive(Clone, Debug, PartialEq)]
pub struct RoutingConfig {
    /// Which of several.
    pub prefer: PreferChoice,
    /// May other nodes answer?
    pub remote: bool,
    /// A second node is asked once this share of answers would have come, in `(0.5, 1)`.
    pub hedge_percentile: f64,
    /// …but never sooner.
    pub hedge_after_min: Duration,
    /// Share of requests that may be asked twice, in `[0, 1]`.
    pub hedge_budget: f64,
    /// Share of requests that may be tried again, in `[0, 1]`.
    pub retry_budget: f64,
    /// A round trip of at least this much crosses an ocean.
    pub ocean_rtt: Duration,
    /// Requests that may wait for one other region, unless its own entry says otherwise.
    pub remote_in_flight_max: usize,
    /// Bodies of at least so many bytes are moved by Fly's proxy, on Fly; `None`: none are.
    pub replay_from: Option<usize>,
}

/// What is known of a region.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RegionConfig {
    /// Requests that may wait for it; `None`: as of any region.
    pub in_flight_max: Option<usize>,
    /// Of a machine there.
    pub cost_per_hour: Option<f64>,
    /// The region that takes over.
    pub standby: Option<Region>,
}

/// Where a model is held.
#[derive(Clone, Debug, PartialEq)]
pub struct PlacementConfig {
    /// `None`: everywhere that is no standby.
    pub regions: Option<BTreeSet<Region>>,
    /// Asked when no other can answer.
    pub standby: BTreeSet<Region>,
    /// The device that computes it.
    pub device: DeviceChoice,
    /// The region to ask first.
    pub remote: Option<Region>,
}

/// One process of `peregrine cluster`.
#[derive(Clone, Debug, PartialEq)]
pub struct NodeEntry {
    /// Unique.
    pub name: NodeId,
    /// Where it is.
    pub region: Region,
    /// What it does.
    pub roles: BTreeSet<RoleChoice>,
    /// For callers.
    pub listen: SocketAddr,
    /// For other nodes.
    pub cluster_listen: SocketAddr,
    /// Which device.
    pub backend: BackendChoice,
    /// `None`: those placed in its region.
    pub models: Option<BTreeSet<String>>,
}

/// Whether a node holds a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Holding {
    /// It does not.
    No,
    /// It does, and is asked when no other can answer.
    Standby,
    /// It does.
    Yes,
}

impl PlacementConfig {
    pub(super) fn holding(&self, region: &Region) -> Holding {
        if self.standby.contains(region) {
            Holding::Standby
        } else if self.regions.as_ref().is_none_or(|regions| regions.contains(region)) {
            Holding::Yes
        } else {
            Holding::No
        }
    }
}

impl NodeEntry {
    /// Does this node hold `model`?
    #[must_use]
    pub fn holding(&self, model: &str, placement: &BTreeMap<String, PlacementConfig>) -> Holding {
        if !self.roles.contains(&RoleChoice::Inference) {
            return Holding::No;
        }
        match (&self.models, placement.get(model)) {
            (Some(models), _) if !models.contains(model) => Holding::No,
            (Some(_), None) | (None, None) => Holding::Yes,
            // A node that names the model holds it, in whatever region it is.
            (Some(_), Some(placed)) if placed.holding(&self.region) == Holding::No => Holding::Yes,
            (_, Some(placed)) => placed.holding(&self.region),
        }
    }
}

impl Config {
    /// Does this node compute? One that is alone does.
    #[must_use]
    pub fn computes(&self) -> bool {
        self.cluster.as_ref().is_none_or(|cluster| cluster.roles.contains(&RoleChoice::Inference))
    }

    /// Does this node hold `model`? One that is alone, or in no topology, goes by its region.
    #[must_use]
    pub fn holding(&self, model: &str) -> Holding {
        let entry = self.nodes.iter().find(|entry| self.cluster.is_some() && entry.name == self.node.name);
        match (entry, self.placement.get(model)) {
            _ if !self.computes() => Holding::No,
            (Some(entry), _) => entry.holding(model, &self.placement),
            (None, Some(placed)) => placed.holding(&self.node.region),
            (None, None) => Holding::Yes,
        }
    }

    /// Requests of this node that may wait for `region`.
    #[must_use]
    pub fn remote_in_flight_max(&self, region: &Region) -> usize {
        let own = self.regions.get(region).and_then(|region| region.in_flight_max);
        own.unwrap_or(self.routing.remote_in_flight_max)
    }
}
