//! The overview as it is written and read. What a reader does not find is unknown to it; what it does not know it
//! passes over.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::history::History;

/// A node at one moment. Rates are per second over the last second or so, percentiles over the last ten.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Overview {
    /// Milliseconds since 1970.
    pub(crate) at: u64,
    pub(crate) node: Node,
    pub(crate) cluster: Cluster,
    pub(crate) requests: Requests,
    /// By name and version.
    pub(crate) models: Vec<Model>,
    pub(crate) devices: Vec<Device>,
    /// As `GET /v1/breakers` shows them.
    pub(crate) breakers: Vec<Value>,
    /// A tree: parents before their children.
    pub(crate) actors: Vec<Actor>,
    pub(crate) streams: Streams,
    pub(crate) system: Machine,
    /// As `alerts` of `GET /v1/alerts`: pending and firing.
    pub(crate) alerts: Vec<Value>,
    /// `None`: no scaler acts on this node.
    pub(crate) scaler: Option<Scaler>,
    /// `None`: left out, whoever asks has it already.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) history: Option<History>,
    /// Lists were shortened, since an overview has a largest size.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub(crate) cut: bool,
}

/// Which node it is.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Node {
    pub(crate) name: String,
    pub(crate) region: String,
    pub(crate) version: String,
    pub(crate) uptime_seconds: f64,
    /// It takes requests.
    pub(crate) ready: bool,
    /// What keeps it from being well.
    pub(crate) reasons: Vec<String>,
}

/// Which nodes there are.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Cluster {
    /// `None`: the node is alone.
    pub(crate) name: Option<String>,
    /// Nodes when all are up.
    pub(crate) size: u64,
    /// As `GET /v1/cluster` shows them.
    pub(crate) members: Vec<Value>,
    /// Gone without a word; as there.
    pub(crate) lost: Vec<Value>,
}

/// All routes that forecast, as clients see them.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Requests {
    /// Answers.
    pub(crate) rate: Option<f64>,
    /// Of those, 5xx.
    pub(crate) error_rate: Option<f64>,
    pub(crate) in_flight: u64,
    pub(crate) p50_ms: Option<f64>,
    pub(crate) p95_ms: Option<f64>,
    pub(crate) p99_ms: Option<f64>,
    pub(crate) p999_ms: Option<f64>,
}

/// One version of a model on this node's devices.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Model {
    pub(crate) name: String,
    pub(crate) version: String,
    pub(crate) family: String,
    pub(crate) state: String,
    /// Answers, to requests and to ticks; one has the rows of all that was asked for together.
    pub(crate) rate: Option<f64>,
    /// Windows forecast, asked for or on ticks.
    pub(crate) rows_rate: Option<f64>,
    /// Requests refused or failed.
    pub(crate) failed_rate: Option<f64>,
    /// From acceptance to answer.
    pub(crate) p50_ms: Option<f64>,
    pub(crate) p95_ms: Option<f64>,
    pub(crate) p99_ms: Option<f64>,
    /// From acceptance to the start of the batch.
    pub(crate) queue_p99_ms: Option<f64>,
    /// The batch.
    pub(crate) compute_p99_ms: Option<f64>,
    /// Windows of a batch, over the last ten seconds.
    pub(crate) batch_rows_mean: Option<f64>,
}

/// What computes.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Device {
    pub(crate) name: String,
    pub(crate) backend: String,
    /// Its place among those of its kind.
    pub(crate) device: u64,
    pub(crate) state: String,
    pub(crate) reason: Option<String>,
    /// Share of the time in which it computed for this node.
    pub(crate) busy_share: Option<f64>,
    pub(crate) queue_rows: u64,
    pub(crate) queue_requests: u64,
    /// What its driver says, 0 to 1.
    pub(crate) utilisation: Option<f64>,
    pub(crate) memory_used_bytes: Option<u64>,
    pub(crate) memory_total_bytes: Option<u64>,
    pub(crate) temperature_celsius: Option<f64>,
    pub(crate) power_watts: Option<f64>,
}

/// An actor, or a supervisor of some.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Actor {
    /// Unique on the node.
    pub(crate) name: String,
    /// Its supervisor; `None`: the root.
    pub(crate) parent: Option<String>,
    pub(crate) state: String,
    /// Messages that wait; `None`: a supervisor has no mailbox.
    pub(crate) mailbox_depth: Option<u64>,
    /// Messages taken out to handle.
    pub(crate) messages_rate: Option<f64>,
    pub(crate) restarts: u64,
    pub(crate) last_failure: Option<LastFailure>,
}

/// How an actor failed last.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct LastFailure {
    /// Milliseconds since 1970.
    pub(crate) at: u64,
    pub(crate) failure: String,
}

/// Ticks in, predictions out.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Streams {
    /// Open websockets, those that watch overviews left out.
    pub(crate) subscribers: u64,
    /// Most messages that a reader was behind, over the last second.
    pub(crate) lag_max: u64,
    pub(crate) messages_rate: Option<f64>,
    pub(crate) bytes_rate: Option<f64>,
    /// Messages that slow readers did not get.
    pub(crate) conflated_rate: Option<f64>,
    /// Ticks acknowledged.
    pub(crate) ticks_rate: Option<f64>,
    /// Predictions that followed ticks.
    pub(crate) predictions_rate: Option<f64>,
}

/// The machine; `None` throughout until it was looked at.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Machine {
    /// Of all cores, 0 to 1.
    pub(crate) cpu_share: Option<f64>,
    /// Of one core.
    pub(crate) process_cpu_share: Option<f64>,
    pub(crate) memory_used_bytes: Option<u64>,
    pub(crate) memory_total_bytes: Option<u64>,
    /// Resident memory of this process.
    pub(crate) process_bytes: Option<u64>,
}

/// The scaler while it acts on this node.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Scaler {
    /// The node that it acts on.
    pub(crate) acting_on: String,
    pub(crate) groups: Vec<ScalerGroup>,
    /// Since it began to act, of all groups.
    pub(crate) cost_so_far: Option<f64>,
    /// What as many machines as there were at most would have cost, all the time.
    pub(crate) cost_fixed: Option<f64>,
    /// `None`: prices are in any one currency, and nobody says which.
    pub(crate) currency: Option<String>,
}

/// One group of machines.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct ScalerGroup {
    pub(crate) name: String,
    pub(crate) wanted: u64,
    /// Machines that have started; `None`: a pool does not say.
    pub(crate) running: Option<u64>,
    /// Why so many are wanted.
    pub(crate) reason: String,
}
