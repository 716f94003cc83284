//! The configuration as used: complete, checked, plain values. Nothing past boot sees the written form (`file.rs`).
//!
//! Built-in `configs/local.toml` < files in order < `PEREGRINE_…` variables < command line; see `layers.rs`.

mod alerts;
mod audit;
mod batching;
mod breaker;
mod cluster;
mod cluster_file;
mod error;
mod file;
mod found;
mod layers;
mod models;
mod paths;
mod resolve;
mod scaler;
mod scaler_file;
mod scaler_pools;
#[cfg(test)]
mod scaler_tests;
mod secret;
mod security;
mod series;
#[cfg(test)]
mod tests;
mod topology;
#[cfg(test)]
mod topology_tests;
mod tracing;
mod units;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use peregrine_runtime::{NodeId, Region};

use crate::sealed::Vault;

pub use alerts::{AlertsConfig, Webhook, is_webhook};
pub use audit::{AuditConfig, FailureChoice, SurvivesChoice};
pub use batching::BatchingConfig;
pub use breaker::{BreakerConfig, ModeChoice};
pub use cluster::{
    ClusterConfig, Credentials, DetectorConfig, Holding, NodeEntry, PlacementConfig, RegionConfig,
    RoutingConfig, Seed,
};
pub use cluster_file::{DeviceChoice, PreferChoice, RoleChoice};
pub use error::{ConfigError, Mistake};
pub use file::{
    BackendChoice, DurabilityChoice, FallbackChoice, LogFormat, PlacementChoice, PrecisionChoice,
    ProfileChoice, WorkloadChoice, schema,
};
pub(crate) use layers::key_of;
pub use layers::{Leaf, Origin, Overrides, Sources};
pub use resolve::{Resolved, resolve};
pub use scaler::{GroupConfig, Price, ScalerConfig};
pub use scaler_pools::{FlyPoolConfig, LocalPoolConfig, PoolConfig, SimulatedPoolConfig};
pub use secret::Secret;
pub use security::{Rate, Scope, SecurityConfig, TokenConfig};
pub use series::{HoldersChoice, SeriesConfig};
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

/// Where and how much the gateway accepts.
#[derive(Clone, Debug, PartialEq)]
pub struct ServerConfig {
    /// Port 0 picks a free one.
    pub listen: SocketAddr,
    /// HTTP worker threads, at least 1.
    pub workers: usize,
    /// How long workers and the thread of the series look for work after they had some; zero: they do not.
    pub busy_poll: Duration,
    /// Largest request body; larger ones get 413.
    pub body_bytes_max: usize,
    /// Of all bodies that are read or worked on at once; more get 429.
    pub bodies_bytes_max: usize,
    /// Open connections, all workers together.
    pub connections_max: usize,
    /// Requests that may be inside the node at once; more get 429.
    pub in_flight_max: usize,
    /// How long a request's header may take to arrive, and before it a TLS handshake.
    pub header_timeout: Duration,
    /// How long an idle connection stays open.
    pub keep_alive: Duration,
    /// How long a stopping node lets requests finish.
    pub drain: Duration,
    /// `None`: plain HTTP.
    pub tls: Option<TlsConfig>,
}

/// How the gateway proves who it is.
#[derive(Clone, Debug, PartialEq)]
pub struct TlsConfig {
    /// PEM: this node's certificate, then those that vouch for it.
    pub certificate: PathBuf,
    /// PEM.
    pub key: PathBuf,
}

/// Who this node is.
#[derive(Clone, Debug, PartialEq)]
pub struct NodeConfig {
    /// In answers, logs and metrics.
    pub name: NodeId,
    /// In answers, logs and metrics.
    pub region: Region,
}

/// What is served.
#[derive(Clone, Debug, PartialEq)]
pub struct ModelsConfig {
    /// Folders of model folders; the first that holds a name wins.
    pub repositories: Vec<PathBuf>,
    /// The model of requests that name none; `None`: the first by name.
    pub default: Option<String>,
    /// What the load will be like.
    pub workload: WorkloadChoice,
    /// What models are served for.
    pub profile: ProfileChoice,
    /// By model name.
    pub profiles: BTreeMap<String, ProfileChoice>,
    /// How exactly matrices are kept.
    pub precision: PrecisionChoice,
    /// By model name.
    pub precisions: BTreeMap<String, PrecisionChoice>,
    /// What opens encrypted models, and who must have signed them.
    pub vault: Vault,
}

/// Where plans run.
#[derive(Clone, Debug, PartialEq)]
pub struct BackendConfig {
    /// Which device.
    pub choice: BackendChoice,
    /// Threads of the CPU executor, at least 1.
    pub threads: usize,
    /// GPUs that serve; 0: all of the best kind.
    pub gpus: usize,
    /// A GPU batch that takes longer counts as failed.
    pub gpu_timeout: Duration,
    /// Bytes that models and batches may take of each GPU's memory; `None`: as much as there is.
    pub gpu_memory: Option<u64>,
    /// Where what the driver made of kernels is kept.
    pub kernel_cache: KernelCache,
    /// Which device runs a request when both could.
    pub placement: PlacementChoice,
    /// Who answers when the GPU cannot.
    pub fallback: FallbackChoice,
    /// By model name.
    pub fallbacks: BTreeMap<String, FallbackChoice>,
    /// Do models that are served for the time of a single request stay on the GPU between requests?
    pub resident: bool,
    /// After so long without a request they rest; `None`: never.
    pub rest_after: Option<Duration>,
}

/// Where what a driver made of kernels is kept, so that the next start need not compile them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KernelCache {
    /// Nowhere.
    None,
    /// In the user's folder of caches, if there is one; for a hardware GPU.
    Auto,
    /// In this folder.
    Folder(PathBuf),
}

impl KernelCache {
    fn of(written: &str) -> Self {
        match written {
            "" => Self::None,
            "auto" => Self::Auto,
            folder => Self::Folder(PathBuf::from(folder)),
        }
    }
}

/// How long a request may take.
#[derive(Clone, Debug, PartialEq)]
pub struct DeadlineConfig {
    /// For requests that state none.
    pub default: Duration,
    /// The longest a request may ask for.
    pub max: Duration,
}

/// Websockets, and what is kept for them.
#[derive(Clone, Debug, PartialEq)]
pub struct StreamConfig {
    /// Open websockets; more get 503.
    pub connections_max: usize,
    /// Largest message of a client.
    pub message_bytes_max: usize,
    /// Of one connection.
    pub subscriptions_max: usize,
    /// Of one subscription.
    pub patterns_max: usize,
    /// Messages with ticks of one connection that wait for their answer; it is not read from meanwhile.
    pub ticks_in_flight_max: usize,
    /// Different subscriptions on this node; equal ones count once.
    pub channels_max: usize,
    /// Streams (a model's predictions of a series) that are followed at once.
    pub streams_max: usize,
    /// Frames that a reader may be behind.
    pub log_frames_max: usize,
    /// Bytes that a reader may be behind.
    pub log_bytes_max: usize,
    /// Newest predictions of each stream that can be resumed from here.
    pub retention: usize,
    /// Longest silence of this node.
    pub heartbeat: Duration,
    /// Longest silence of a client, which is pinged at half of it.
    pub idle_max: Duration,
    /// How long a client may take nothing of what is sent.
    pub stuck_max: Duration,
    /// For the closing handshake.
    pub close_timeout: Duration,
}

/// The series that requests may name by symbol.
#[derive(Clone, Debug, PartialEq)]
pub struct DataConfig {
    /// `unique_id,ds,column…`; `None`: no symbols.
    pub file: Option<PathBuf>,
    /// The column that a model forecasts, unless `columns` says otherwise.
    pub column: String,
    /// By model name.
    pub columns: BTreeMap<String, String>,
}

impl DataConfig {
    /// The data column that `model` forecasts.
    #[must_use]
    pub fn column_of(&self, model: &str) -> &str {
        self.columns.get(model).unwrap_or(&self.column)
    }
}

/// Ticks on disk.
#[derive(Clone, Debug, PartialEq)]
pub struct JournalConfig {
    /// Where.
    pub dir: PathBuf,
    /// Ticks kept of each series, at least 1.
    pub capacity: u32,
    /// Series kept.
    pub series_max: usize,
    /// What an acknowledged tick survives.
    pub durability: Durability,
}

/// What an acknowledged tick survives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// The death of the process; the loss of power too, once it is so old.
    Process {
        /// How old.
        sync_every: Duration,
    },
    /// The loss of power.
    Disk,
}

/// The data file as a live market.
#[derive(Clone, Debug, PartialEq)]
pub struct DemoConfig {
    /// Ticks a second, above 0.
    pub rate: f64,
    /// Before the names of the series.
    pub prefix: String,
    /// The column of the data that is replayed.
    pub column: String,
}

/// What is logged, on stderr.
#[derive(Clone, Debug, PartialEq)]
pub struct LogConfig {
    /// One line of text or one JSON object per event.
    pub format: LogFormat,
    /// A `tracing` filter, e.g. `info,peregrine_actors=debug`.
    pub filter: String,
}
