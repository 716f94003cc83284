//! The cluster as written: `[cluster]`, `[routing]`, `[regions.…]`, `[placement.…]`, `[[nodes]]`.
//!
//! The comments here are the schema's descriptions; bounds are checked by `topology.rs`.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Serialize};

use super::Secret;
use super::file::BackendChoice;
use super::units::{WrittenDuration, WrittenSize};

/// How this node meets others.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default, expecting = "a table")]
pub(super) struct ClusterFile {
    /// UDP address for other nodes; empty: this node is alone.
    pub(super) listen: Option<String>,
    /// Nodes of other names are not met.
    pub(super) name: Option<String>,
    /// Address that other nodes dial; empty: the one listened on.
    pub(super) advertise: Option<String>,
    /// Where to look for other nodes: `host:port`, by address or by a DNS name that is looked up for ever.
    pub(super) seeds: Option<Vec<String>>,
    /// Address and port of the DNS server for the seeds' names; empty: the machine's own.
    pub(super) resolver: Option<String>,
    /// What all nodes of the cluster know and nobody else; 16 characters or more.
    pub(super) secret: Option<Secret>,
    /// Instead of a secret: the PEM file of the authority that signs the certificates of all nodes.
    pub(super) ca: Option<PathBuf>,
    /// The PEM file of this node's certificate.
    pub(super) certificate: Option<PathBuf>,
    /// The PEM file of its private key.
    pub(super) key: Option<PathBuf>,
    /// What this node does.
    pub(super) roles: Option<Vec<RoleChoice>>,
    /// Nodes that the cluster is meant to have, for majorities; 0: as many as `[[nodes]]`, or 1.
    pub(super) size: Option<usize>,
    /// How often a node tells others what it knows.
    pub(super) gossip_interval: Option<WrittenDuration>,
    /// A node of which nothing was heard for so long is dead; at least four times `gossip_interval`.
    pub(super) silence_max: Option<WrittenDuration>,
    /// How long a dead node is remembered.
    pub(super) dead_grace: Option<WrittenDuration>,
}

/// What a node does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum RoleChoice {
    /// Answers callers
    Gateway,
    /// Holds models and computes
    Inference,
}

impl RoleChoice {
    /// As the configuration writes it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Gateway => "gateway",
            Self::Inference => "inference",
        }
    }
}

/// Which node answers a request that this one cannot, or should not.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default, expecting = "a table")]
pub(super) struct RoutingFile {
    /// Which of several nodes that could answer is asked.
    pub(super) prefer: Option<PreferChoice>,
    /// May other nodes answer?
    pub(super) remote: Option<bool>,
    /// A second node is asked once this share of answers would have come, above 0.5 and below 1.
    pub(super) hedge_percentile: Option<f64>,
    /// …but never sooner.
    pub(super) hedge_after_min: Option<WrittenDuration>,
    /// Share of requests that may be asked twice, 0 to 1.
    pub(super) hedge_budget: Option<f64>,
    /// Share of requests that may be tried again, 0 to 1.
    pub(super) retry_budget: Option<f64>,
    /// A round trip of at least this much crosses an ocean: one try of a request may.
    pub(super) ocean_rtt: Option<WrittenDuration>,
    /// Requests that may wait for one other region, unless `[regions.…]` says otherwise; more are answered 429.
    pub(super) remote_in_flight_max: Option<usize>,
    /// On Fly: a body of at least this size, for a model of another Machine, is moved by Fly's proxy (`fly-replay`); 0: none is.
    pub(super) replay_from: Option<WrittenSize>,
}

/// Which of several nodes that could answer is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum PreferChoice {
    /// The one with the shortest round trip
    Nearest,
    /// The one with the least to do
    LeastLoaded,
    /// The one in the cheapest region
    Cost,
}

/// What is known of a region, and how much it is asked.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default, expecting = "a table")]
pub(super) struct RegionFile {
    /// Requests of this node that may wait for that region; more are answered 429.
    pub(super) in_flight_max: Option<usize>,
    /// Of a machine there, for `prefer = "cost"`.
    pub(super) cost_per_hour: Option<f64>,
    /// The region that takes over.
    pub(super) standby: Option<String>,
}

/// Where a model is held.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default, expecting = "a table")]
pub(super) struct PlacementFile {
    /// Regions that hold it; without this key: all that are no standby.
    pub(super) regions: Option<Vec<String>>,
    /// Regions that hold it too, and are asked when no other can answer.
    pub(super) standby: Option<Vec<String>>,
    /// The device that computes it.
    pub(super) device: Option<DeviceChoice>,
    /// The region to ask first: `remote:<region>`.
    pub(super) remote: Option<String>,
}

/// The device that computes a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum DeviceChoice {
    /// Whichever its node would choose
    Any,
    /// A GPU
    Gpu,
    /// The CPU
    Cpu,
}

/// One process of `peregrine cluster`.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default, expecting = "a table")]
pub(super) struct NodeEntryFile {
    /// Unique.
    pub(super) name: Option<String>,
    /// Where it is.
    pub(super) region: Option<String>,
    /// What it does; default: as `cluster.roles` of the files.
    pub(super) roles: Option<Vec<RoleChoice>>,
    /// Address and port for callers; port 0 picks a free one.
    pub(super) listen: Option<String>,
    /// UDP address and port for other nodes.
    pub(super) cluster_listen: Option<String>,
    /// Which device answers; default: as `backend.choice`.
    pub(super) backend: Option<BackendChoice>,
    /// The models it holds; default: those placed in its region.
    pub(super) models: Option<Vec<String>>,
}

/// A list of tables that single keys of stronger layers reach by position: `nodes.0.region`.
#[derive(Debug)]
pub(super) struct Numbered<T>(pub(super) BTreeMap<usize, T>);

impl<T> Default for Numbered<T> {
    fn default() -> Self {
        Self(BTreeMap::new())
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Numbered<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(NumberedVisitor(std::marker::PhantomData))
    }
}

struct NumberedVisitor<T>(std::marker::PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for NumberedVisitor<T> {
    type Value = Numbered<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of tables")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut entries: A) -> Result<Self::Value, A::Error> {
        let mut numbered = BTreeMap::new();
        while let Some(entry) = entries.next_element()? {
            numbered.insert(numbered.len(), entry);
        }
        Ok(Numbered(numbered))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Self::Value, A::Error> {
        let mut numbered = BTreeMap::new();
        while let Some(key) = entries.next_key::<String>()? {
            let at = key.parse().map_err(|_| {
                A::Error::custom(format_args!("`{key}` is no position: an entry begins with [[nodes]]"))
            })?;
            numbered.insert(at, entries.next_value()?);
        }
        Ok(Numbered(numbered))
    }
}

impl<T: JsonSchema> JsonSchema for Numbered<T> {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Numbered".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "array", "items": generator.subschema_for::<T>() })
    }
}
