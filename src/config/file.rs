//! The configuration as written: every key optional, unknown keys refused. Its JSON schema is `configs/schema.json`.
//!
//! The comments here are the schema's descriptions; bounds are checked by `resolve.rs`.

use std::collections::BTreeMap;
use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::alerts::AlertsFile;
use super::audit::AuditFile;
use super::batching::BatchingFile;
use super::breaker::BreakerFile;
use super::cluster_file::{ClusterFile, NodeEntryFile, Numbered, PlacementFile, RegionFile, RoutingFile};
use super::scaler_file::ScalerFile;
use super::secret::Secret;
use super::security::SecurityFile;
use super::series::SeriesFile;
use super::tracing::TracingFile;
use super::units::{WrittenDuration, WrittenSize};

/// Sections that are lists of tables.
pub(super) const LISTS: [&str; 1] = ["nodes"];
/// Sections whose keys are tables themselves, or positions of tables.
pub(super) const NESTED: [&str; 3] = ["nodes", "placement", "regions"];

/// Configuration of a peregrine node.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(title = "peregrine")]
pub(super) struct ConfigFile {
    pub(super) server: ServerFile,
    pub(super) security: SecurityFile,
    pub(super) node: NodeFile,
    pub(super) models: ModelsFile,
    pub(super) backend: BackendFile,
    pub(super) batching: BatchingFile,
    pub(super) breaker: BreakerFile,
    pub(super) deadline: DeadlineFile,
    pub(super) stream: StreamFile,
    pub(super) data: DataFile,
    pub(super) series: SeriesFile,
    pub(super) journal: JournalFile,
    pub(super) audit: AuditFile,
    pub(super) demo: DemoFile,
    pub(super) alerts: AlertsFile,
    pub(super) scaler: ScalerFile,
    pub(super) log: LogFile,
    pub(super) tracing: TracingFile,
    pub(super) cluster: ClusterFile,
    pub(super) routing: RoutingFile,
    /// What is known of regions, by name.
    pub(super) regions: BTreeMap<String, RegionFile>,
    /// Where models are held, by name; one without an entry is held everywhere.
    pub(super) placement: BTreeMap<String, PlacementFile>,
    /// The processes of `peregrine cluster`.
    pub(super) nodes: Numbered<NodeEntryFile>,
}

/// Where and how much the gateway accepts.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default, expecting = "a table")]
pub(super) struct ServerFile {
    /// Address and port, e.g. `127.0.0.1:8080`; port 0 picks a free one.
    pub(super) listen: Option<String>,
    /// HTTP worker threads; 0: one per core.
    pub(super) workers: Option<usize>,
    /// How long a thread that has just had work looks for more before it sleeps; 0s: it sleeps at once.
    pub(super) busy_poll: Option<WrittenDuration>,
    /// Largest request body.
    pub(super) body_max: Option<WrittenSize>,
    /// Of all bodies that are read or worked on at once; more are answered 429.
    pub(super) bodies_max: Option<WrittenSize>,
    /// Open connections, all workers together.
    pub(super) connections_max: Option<usize>,
    /// Requests inside the node at once; more are answered 429.
    pub(super) in_flight_max: Option<usize>,
    /// How long a request's header may take to arrive, and before it a TLS handshake.
    pub(super) header_timeout: Option<WrittenDuration>,
    /// How long an idle connection stays open.
    pub(super) keep_alive: Option<WrittenDuration>,
    /// How long a stopping node lets requests finish.
    pub(super) drain: Option<WrittenDuration>,
    /// PEM file of this node's certificate and those that vouch for it; empty: plain HTTP.
    pub(super) tls_certificate: Option<PathBuf>,
    /// PEM file of its private key.
    pub(super) tls_key: Option<PathBuf>,
}

/// Who this node is.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default, expecting = "a table")]
pub(super) struct NodeFile {
    /// Name in answers, logs and metrics.
    pub(super) name: Option<String>,
    /// Region in answers, logs and metrics.
    pub(super) region: Option<String>,
}

/// What is served.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default, expecting = "a table")]
pub(super) struct ModelsFile {
    /// Folders of model folders, relative to the working directory; the first that holds a name wins.
    pub(super) repositories: Option<Vec<PathBuf>>,
    /// The model of requests that name none; empty: the first by name.
    pub(super) default: Option<String>,
    /// What the load will be like.
    pub(super) workload: Option<WorkloadChoice>,
    /// What models are served for, unless `profiles` says otherwise.
    pub(super) profile: Option<ProfileChoice>,
    /// Profile by model name.
    pub(super) profiles: Option<BTreeMap<String, ProfileChoice>>,
    /// How exactly matrices are kept, unless `precisions` says otherwise.
    pub(super) precision: Option<PrecisionChoice>,
    /// Precision by model name.
    pub(super) precisions: Option<BTreeMap<String, PrecisionChoice>>,
    /// By model name, the version that answers from every start on, whatever was kept and however high others are.
    pub(super) versions: Option<BTreeMap<String, u32>>,
    /// A folder in which it is kept which versions of models answer, by order or after a canary, so that they do after a
    /// restart; empty: a restart forgets it.
    pub(super) releases: Option<PathBuf>,
    /// Opens encrypted models: 64 hexadecimal digits, best given as `PEREGRINE_MODEL_KEY`; empty: there are none.
    pub(super) key: Option<Secret>,
    /// Public keys, 64 hexadecimal digits each, of those who must have signed a model; empty: nobody must.
    pub(super) signers: Option<Vec<String>>,
}

/// What the load will be like.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum WorkloadChoice {
    /// Single windows that are wanted at once
    RealTime,
    /// Many windows at a time
    Batch,
    /// Both
    Balanced,
    /// Many models, each of them rarely
    MemoryIntensive,
}

/// What a model is served for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ProfileChoice {
    /// By the workload, and the memory of this machine
    Auto,
    /// The time of a single request
    UltraLowLatency,
    /// Windows a second
    HighThroughput,
    /// Both
    Balanced,
    /// Memory: weights of one such model at a time lie ready
    MemoryOptimized,
}

/// How exactly matrices are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum PrecisionChoice {
    /// Halves in the profiles `high_throughput` and `memory_optimized` beside a GPU, where the network sees normalized
    /// numbers
    Auto,
    /// As trained
    F32,
    /// Rounded to halves
    F16,
    /// Rounded to whole numbers of eight bits times a scale for each output; a GPU keeps them multiplied out
    Int8,
}

/// Where plans run.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default, expecting = "a table")]
pub(super) struct BackendFile {
    /// Which device answers.
    pub(super) choice: Option<BackendChoice>,
    /// Threads of the CPU executor; 0: one per core.
    pub(super) threads: Option<usize>,
    /// GPUs that serve, of those of the best kind in this machine, in the order in which Vulkan shows them; 0: all.
    pub(super) gpus: Option<usize>,
    /// A GPU batch that takes longer counts as failed.
    pub(super) gpu_timeout: Option<WrittenDuration>,
    /// What models and batches may take of each GPU's memory: models that were not asked for longest leave it for others and
    /// come back when they are asked. 0 B: as much as there is.
    pub(super) gpu_memory: Option<WrittenSize>,
    /// Where what the driver made of kernels is kept, so that the next start need not compile them: a folder, "auto" or
    /// "". Auto: `peregrine/kernels` in the user's folder of caches, for a hardware GPU.
    pub(super) kernel_cache: Option<String>,
    /// Which device runs a request when both could.
    pub(super) placement: Option<PlacementChoice>,
    /// Who answers when the GPU cannot, unless `fallbacks` says otherwise.
    pub(super) fallback: Option<FallbackChoice>,
    /// The same by model name.
    pub(super) fallbacks: Option<BTreeMap<String, FallbackChoice>>,
    /// Do models of the profile `ultra_low_latency` stay on the GPU between requests, where they can? Another process on
    /// the same GPU then waits a quarter of a second for each of its turns.
    pub(super) resident: Option<bool>,
    /// After so long without a request they rest, and the next one brings them back; 0: never. A model that stays keeps the
    /// GPU at its full clock and its power.
    pub(super) rest_after: Option<WrittenDuration>,
}

/// Which device answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum BackendChoice {
    /// A hardware GPU if there is one, else the CPU
    Auto,
    /// A hardware GPU; without one the node does not start
    Gpu,
    /// The CPU alone
    Cpu,
    /// A software Vulkan adapter stands in for a GPU
    Software,
}

impl BackendChoice {
    /// As the configuration writes it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Gpu => "gpu",
            Self::Cpu => "cpu",
            Self::Software => "software",
        }
    }
}

/// Who answers when the GPU cannot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum FallbackChoice {
    /// The GPU of another node, or nobody
    Never,
    /// The GPU of another node where that is expected to be sooner, else the CPU, labelled degraded
    Allow,
    /// The CPU, labelled degraded, before another node is asked
    Prefer,
}

/// Which device runs a request when both could.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum PlacementChoice {
    /// `fastest` beside a hardware GPU, `gpu` beside a software adapter
    Auto,
    /// The device that is expected to answer first, by what both took of late
    Fastest,
    /// The GPU, whatever it takes
    Gpu,
}

/// How long a request may take.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default, expecting = "a table")]
pub(super) struct DeadlineFile {
    /// For requests that state none.
    pub(super) default: Option<WrittenDuration>,
    /// The longest a request may ask for.
    pub(super) max: Option<WrittenDuration>,
}

/// Websockets, and what is kept for them.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default, expecting = "a table")]
pub(super) struct StreamFile {
    /// Open websockets; more are answered 503.
    pub(super) connections_max: Option<usize>,
    /// Largest message of a client.
    pub(super) message_max: Option<WrittenSize>,
    /// Subscriptions of one connection.
    pub(super) subscriptions_max: Option<usize>,
    /// Names and patterns of one subscription.
    pub(super) patterns_max: Option<usize>,
    /// Messages with ticks of one connection that wait for their answer; it is not read from meanwhile.
    pub(super) ticks_in_flight_max: Option<usize>,
    /// Different subscriptions on this node; equal ones count once and share a log.
    pub(super) channels_max: Option<usize>,
    /// Of them, those that one caller has opened: a key, or an address without one.
    pub(super) channels_per_caller_max: Option<usize>,
    /// Streams (a model's predictions of a series) that are followed at once.
    pub(super) streams_max: Option<usize>,
    /// Messages that a reader may be behind.
    pub(super) log_messages_max: Option<usize>,
    /// Bytes that a reader may be behind.
    pub(super) log_max: Option<WrittenSize>,
    /// Newest predictions of each stream from which a reader can resume on this node.
    pub(super) retention: Option<usize>,
    /// Longest silence of this node, at most 15 s.
    pub(super) heartbeat: Option<WrittenDuration>,
    /// Longest silence of a client, which is pinged at half of it.
    pub(super) idle_max: Option<WrittenDuration>,
    /// How long a client may take nothing of what is sent, and has to take the rest once it is to be closed.
    pub(super) stuck_max: Option<WrittenDuration>,
    /// For the closing handshake, once the client's socket has taken the rest.
    pub(super) close_timeout: Option<WrittenDuration>,
}

/// The series that requests may name by symbol.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default, expecting = "a table")]
pub(super) struct DataFile {
    /// CSV `unique_id,ds,column…` in any order, plain or gzip, relative to the working directory; empty: no symbols.
    pub(super) file: Option<PathBuf>,
    /// The column that a model forecasts, unless `columns` names another.
    pub(super) column: Option<String>,
    /// Column by model name.
    pub(super) columns: Option<BTreeMap<String, String>>,
}

/// Ticks on disk: what restores the windows of series when a node starts again.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default, expecting = "a table")]
pub(super) struct JournalFile {
    /// Folder, made if it is not there; empty: windows do not survive the node.
    pub(super) dir: Option<PathBuf>,
    /// Ticks kept of each series: at least the longest window of a model.
    pub(super) capacity: Option<usize>,
    /// Series kept; ticks of further ones are refused.
    pub(super) series_max: Option<usize>,
    /// What an acknowledged tick survives.
    pub(super) durability: Option<DurabilityChoice>,
    /// With `durability = "process"`: how soon it survives the loss of power too.
    pub(super) sync_every: Option<WrittenDuration>,
}

/// What an acknowledged tick survives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum DurabilityChoice {
    /// The death of the process, however sudden
    Process,
    /// The loss of power; each commit waits for the disk
    Disk,
}

/// The data file as a live market: its rows come in as ticks, again and again.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default, expecting = "a table")]
pub(super) struct DemoFile {
    /// Ticks a second, all series together; 0: off. A node of a cluster replays only where a file or a variable says so.
    pub(super) rate: Option<f64>,
    /// Before the names of the series.
    pub(super) prefix: Option<String>,
    /// The column of the data that is replayed; empty: `data.column`.
    pub(super) column: Option<String>,
}

/// What is logged, on stderr.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default, expecting = "a table")]
pub(super) struct LogFile {
    /// One line of text or one JSON object per event.
    pub(super) format: Option<LogFormat>,
    /// A tracing filter, e.g. `info,peregrine_actors=debug`.
    pub(super) filter: Option<String>,
}

/// How an event is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// One line of text.
    Text,
    /// One JSON object.
    Json,
}

/// The JSON schema of a configuration file, pretty-printed.
#[must_use]
pub fn schema() -> String {
    let schema = schemars::schema_for!(ConfigFile);
    format!("{:#}\n", schema.as_value())
}
