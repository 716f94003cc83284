//! The configuration as used: complete, checked, plain values. Nothing past boot sees the written form (`file.rs`).
//!
//! Built-in `configs/local.toml` < files in order < `PEREGRINE_…` variables < command line; see `layers.rs`.

mod alerts;
mod audit;
mod backend;
mod batching;
mod breaker;
mod checker;
mod cluster;
mod cluster_file;
mod data;
mod deadline;
mod error;
mod file;
mod found;
mod journal;
mod layers;
mod log;
mod models;
mod node;
mod paths;
mod printed;
mod resolve;
mod scaler;
mod scaler_file;
mod scaler_pools;
#[cfg(test)]
mod scaler_tests;
mod secret;
mod security;
mod series;
mod server;
mod stream;
#[cfg(test)]
mod tests;
mod topology;
#[cfg(test)]
mod topology_tests;
mod tracing;
mod units;

use std::collections::BTreeMap;

use peregrine_runtime::Region;

pub use alerts::{AlertsConfig, Webhook, is_http_url};
pub use audit::{AuditConfig, FailureChoice, SurvivesChoice};
pub use backend::{BackendConfig, KernelCache};
pub use batching::BatchingConfig;
pub use breaker::{BreakerConfig, ModeChoice};
pub use cluster::{
    ClusterConfig, Credentials, DetectorConfig, Holding, NodeEntry, PlacementConfig, RegionConfig,
    RoutingConfig, Seed,
};
pub use cluster_file::{DeviceChoice, PreferChoice, RoleChoice};
pub use data::{DataConfig, DemoConfig};
pub use deadline::DeadlineConfig;
pub use error::{ConfigError, Mistake};
pub use file::{
    BackendChoice, DurabilityChoice, FallbackChoice, LogFormat, PlacementChoice, PrecisionChoice,
    ProfileChoice, WorkloadChoice, schema,
};
pub use journal::{Durability, JournalConfig};
pub(crate) use layers::key_of;
pub use layers::{Leaf, Origin, Overrides, Sources};
pub use log::LogConfig;
pub use models::ModelsConfig;
pub use node::NodeConfig;
pub use resolve::{Resolved, resolve};
pub use scaler::{GroupConfig, Price, ScalerConfig};
pub use scaler_pools::{FlyPoolConfig, LocalPoolConfig, PoolConfig, SimulatedPoolConfig};
pub use secret::Secret;
pub use security::{Rate, Scope, SecurityConfig, TokenConfig};
pub use series::{HoldersChoice, SeriesConfig};
pub use server::{ServerConfig, TlsConfig};
pub use stream::StreamConfig;
pub use tracing::TracingConfig;

/// The built-in configuration: one node, the models and data that ship.
pub const BUILT_IN: &str = include_str!("../../configs/local.toml");

/// Everything a node needs to know before it starts.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// `[server]`
    pub server: ServerConfig,
    /// `[security]`
    pub security: SecurityConfig,
    /// `[node]`
    pub node: NodeConfig,
    /// `[models]`
    pub models: ModelsConfig,
    /// `[backend]`
    pub backend: BackendConfig,
    /// `[batching]`
    pub batching: BatchingConfig,
    /// `[breaker]`
    pub breaker: BreakerConfig,
    /// `[deadline]`
    pub deadline: DeadlineConfig,
    /// `[stream]`
    pub stream: StreamConfig,
    /// `[data]`
    pub data: DataConfig,
    /// `[series]`
    pub series: SeriesConfig,
    /// `[journal]`; `None`: windows do not survive the node.
    pub journal: Option<JournalConfig>,
    /// `[audit]`; `None`: predictions are not recorded.
    pub audit: Option<AuditConfig>,
    /// `[demo]`; `None`: nothing is replayed.
    pub demo: Option<DemoConfig>,
    /// `[alerts]`
    pub alerts: AlertsConfig,
    /// `[scaler]`
    pub scaler: ScalerConfig,
    /// `[log]`
    pub log: LogConfig,
    /// `[tracing]`; `None`: nothing is traced.
    pub tracing: Option<TracingConfig>,
    /// `[cluster]`; `None`: this node is alone.
    pub cluster: Option<ClusterConfig>,
    /// `[routing]`
    pub routing: RoutingConfig,
    /// `[regions.…]`
    pub regions: BTreeMap<Region, RegionConfig>,
    /// `[placement.…]`, by model; one without an entry is held everywhere.
    pub placement: BTreeMap<String, PlacementConfig>,
    /// `[[nodes]]`
    pub nodes: Vec<NodeEntry>,
}
