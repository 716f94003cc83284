//! What can be seen of a system from outside: plain values, taken at one moment.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use peregrine_runtime::{ActorStatus, NodeId, Region};
use peregrine_shaders::{Backend, DeviceMemory, KernelFacts, ModelSpec, ResidentCounts};

use crate::breaker::BreakerMode;
use crate::devices::DeviceId;
pub use crate::health::DeviceMeter;
use crate::inference::{Ladder, Spread};

/// One version of one model.
#[derive(Clone, Debug)]
pub struct ModelStatus {
    /// Shapes and columns.
    pub spec: Arc<ModelSpec>,
    /// The version.
    pub version: u32,
    /// Hex SHA-256 of the weights file, behind which [`peregrine_shaders::Precision::of_digest`] reads how they are kept.
    pub digest: String,
    /// Whether it serves.
    pub state: ModelState,
    /// Bytes of weights and biases as they are kept.
    pub weight_bytes: usize,
}

/// Whether a model serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ModelState {
    /// Its weights are on their way to the devices.
    Loading,
    /// It serves.
    Ready,
}

impl ModelState {
    /// Lowercase name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Loading => "loading",
            Self::Ready => "ready",
        }
    }
}

/// How often, and how long in sum.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Times it happened.
    pub count: u64,
    /// Nanoseconds it took in sum.
    pub ns: u64,
}

impl Tally {
    pub(crate) fn add(&mut self, count: u64, took: Duration) {
        self.count += count;
        self.ns += nanos(took);
    }
}

/// Nanoseconds, saturating after some centuries.
pub(crate) fn nanos(took: Duration) -> u64 {
    u64::try_from(took.as_nanos()).unwrap_or(u64::MAX)
}

/// What one model version has done since it was first loaded.
#[derive(Clone, Debug, Default)]
pub struct ModelStats {
    /// The model.
    pub model: String,
    /// The version.
    pub version: u32,
    /// Rows forecast.
    pub inference_count: u64,
    /// Of those, the ones whose quantiles cross somewhere.
    pub crossed: u64,
    /// Batches run.
    pub execution_count: u64,
    /// Requests answered, with their time from acceptance to answer.
    pub success: Tally,
    /// Requests refused or failed after the model was found.
    pub fail: Tally,
    /// Requests whose caller left first; their work was dropped.
    pub abandoned: u64,
    /// Answered requests by time in the queue.
    pub queue: Tally,
    /// Gathering rows; each request is charged the time of its batch.
    pub compute_input: Tally,
    /// Running the plan, with normalizer and head.
    pub compute_infer: Tally,
    /// Handing out the rows.
    pub compute_output: Tally,
    /// Batches by their rows; the time is that of the run.
    pub batch_sizes: BTreeMap<usize, Tally>,
    /// Milliseconds since the epoch of the latest answer; 0: never.
    pub last_inference_ms: u64,
    /// By backend that answered.
    pub backends: Vec<BackendStats>,
    /// Of answered requests, from acceptance to answer.
    pub latency: Percentiles,
    /// Of answered requests, from acceptance to the start of the batch.
    pub queue_latency: Percentiles,
    /// Of answered requests, their batch.
    pub compute_latency: Percentiles,
    /// How those three were spread, in this order.
    pub ladders: [Ladder; 3],
    /// Of answers of a GPU.
    pub checks: CheckStats,
}

/// Counters of one model version, cheap enough to be compared every second.
#[derive(Clone, Debug)]
pub struct ModelCounts {
    /// The model.
    pub model: String,
    /// The version.
    pub version: u32,
    /// Rows forecast.
    pub rows: u64,
    /// Batches run.
    pub batches: u64,
    /// Requests answered.
    pub succeeded: u64,
    /// Requests refused or failed after the model was found.
    pub failed: u64,
    /// Of answered requests, from acceptance to answer.
    pub latency: Spread,
    /// Of answered requests, from acceptance to the start of the batch.
    pub queue_latency: Spread,
    /// Of answered requests, their batch.
    pub compute_latency: Spread,
}

/// How answers of a GPU compared with those of its CPU twin, since the model was loaded.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct CheckStats {
    /// Answers compared.
    pub checked: u64,
    /// Of those, the wrong ones.
    pub wrong: u64,
    /// The largest difference, as a share of the range that the answer moves in.
    pub drift_max: f64,
}

/// What one backend did for one model version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BackendStats {
    /// The backend.
    pub backend: Backend,
    /// Requests answered.
    pub requests: u64,
    /// Rows answered.
    pub rows: u64,
    /// Batches run.
    pub executions: u64,
    /// Requests answered in place of a GPU.
    pub degraded: u64,
}

/// How long batches of a model take on a device, of late, with the way there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PaceStatus {
    /// The model.
    pub model: String,
    /// The version.
    pub version: u32,
    /// The device's kind.
    pub backend: Backend,
    /// Its place among those of its kind.
    pub index: usize,
    /// Batches of up to this many rows, and more than half of it.
    pub rows: usize,
    /// A moving average.
    pub took: Duration,
}

/// True percentiles of a histogram with three significant digits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Percentiles {
    /// Values recorded.
    pub count: u64,
    /// Mean.
    pub mean: Duration,
    /// Median.
    pub p50: Duration,
    /// 90 of 100 are no longer.
    pub p90: Duration,
    /// 95 of 100 are no longer.
    pub p95: Duration,
    /// 99 of 100 are no longer.
    pub p99: Duration,
    /// 999 of 1000 are no longer.
    pub p999: Duration,
    /// The longest.
    pub max: Duration,
}

/// One circuit as it is now.
#[derive(Clone, Debug)]
pub struct BreakerStatus {
    /// What it guards.
    pub guards: Guarded,
    /// Who decides what it lets through.
    pub mode: BreakerMode,
    /// What it lets through, or would, where it only shows that.
    pub state: BreakerState,
    /// Failed calls so far.
    pub failures: u64,
    /// Changes of state so far.
    pub transitions: u64,
    /// Why it opened last; empty if never.
    pub reason: String,
}

/// What a circuit guards.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Guarded {
    /// One model version on a device of this node.
    Device {
        /// The model.
        model: String,
        /// The version.
        version: u32,
        /// Which one.
        device: DeviceId,
    },
    /// What one model version says of its own certainty, wherever it is computed.
    Coverage {
        /// The model.
        model: String,
        /// The version.
        version: u32,
    },
    /// All that is asked of another node.
    Peer {
        /// Which one.
        node: NodeId,
    },
}

impl Guarded {
    /// What kind of thing it is: `"device"`, `"coverage"` or `"node"`.
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Device { .. } => "device",
            Self::Coverage { .. } => "coverage",
            Self::Peer { .. } => "node",
        }
    }

    /// The kind of device, `"coverage"` or `"remote"`.
    #[must_use]
    pub const fn backend(&self) -> &'static str {
        match self {
            Self::Device { device, .. } => device.backend.name(),
            Self::Coverage { .. } => "coverage",
            Self::Peer { .. } => "remote",
        }
    }

    /// The device of this node.
    #[must_use]
    pub const fn device(&self) -> Option<DeviceId> {
        match self {
            Self::Device { device, .. } => Some(*device),
            Self::Coverage { .. } | Self::Peer { .. } => None,
        }
    }

    /// The other node.
    #[must_use]
    pub const fn node(&self) -> Option<&NodeId> {
        match self {
            Self::Device { .. } | Self::Coverage { .. } => None,
            Self::Peer { node } => Some(node),
        }
    }

    /// The model and its version.
    #[must_use]
    pub fn model(&self) -> Option<(&str, u32)> {
        match self {
            Self::Device { model, version, .. } | Self::Coverage { model, version } => {
                Some((model, *version))
            }
            Self::Peer { .. } => None,
        }
    }
}

impl fmt::Display for Guarded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Device { model, version, device } => write!(f, "{model}/{version} on {device}"),
            Self::Coverage { model, version } => write!(f, "the intervals of {model}/{version}"),
            Self::Peer { node } => write!(f, "node {node}"),
        }
    }
}

/// What a circuit lets through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BreakerState {
    /// Everything.
    Closed,
    /// Nothing.
    Open {
        /// Until probes may try.
        remaining: Duration,
    },
    /// A few probes.
    HalfOpen,
    /// Nothing, since an operator says so.
    ForcedOpen,
}

impl BreakerState {
    /// Lowercase name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Open { .. } => "open",
            Self::HalfOpen => "half-open",
            Self::ForcedOpen => "forced-open",
        }
    }
}

/// What was asked of other nodes so far.
#[derive(Clone, Debug, Default)]
pub struct RemoteStats {
    /// Requests that were to be answered elsewhere.
    pub requests: u64,
    /// Of those, the answered ones.
    pub answered: u64,
    /// Asks made because an earlier one was refused or lost.
    pub retries: u64,
    /// Such asks that the budget did not allow.
    pub retries_refused: u64,
    /// Asks made because an earlier one was late.
    pub hedges: u64,
    /// Of those, the ones that answered first.
    pub hedge_wins: u64,
    /// Such asks that the budget did not allow.
    pub hedges_refused: u64,
    /// By node, in the order of their names.
    pub peers: Vec<PeerStats>,
}

/// What was asked of one other node so far.
#[derive(Clone, Debug)]
pub struct PeerStats {
    /// Its name.
    pub node: NodeId,
    /// Where it is.
    pub region: Region,
    /// Asks sent to it.
    pub asks: u64,
    /// Asks that it answered.
    pub answered: u64,
    /// Asks that it refused while it was well.
    pub refused: u64,
    /// Asks that failed, its wrong answers included.
    pub failed: u64,
    /// Asks given up because another node had answered, or the caller had left.
    pub cancelled: u64,
    /// Asks on their way now.
    pub in_flight: usize,
    /// Of answered asks, there and back.
    pub latency: Percentiles,
}

/// One device as it is now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceStatus {
    /// Which kind.
    pub backend: Backend,
    /// Its place among those of its kind.
    pub index: usize,
    /// Its own name; empty until it was up once.
    pub name: String,
    /// Whether it serves.
    pub state: DeviceState,
    /// Requests waiting for it.
    pub queue_requests: usize,
    /// Rows waiting for it.
    pub queue_rows: usize,
    /// Rows that may wait for it.
    pub queue_rows_max: usize,
    /// What waits for it will take so long, by its pace of late.
    pub backlog: Duration,
    /// As much may wait, by the waits of late; `None`: it never waited long.
    pub backlog_max: Option<Duration>,
    /// Requests that it did not take, by reason.
    pub refused: Vec<(&'static str, u64)>,
    /// Requests that it has answered.
    pub requests: u64,
    /// Rows of them.
    pub rows: u64,
    /// Batches that it has run for them.
    pub batches: u64,
    /// Time spent computing so far.
    pub busy: Duration,
    /// Plans that stay on it between requests.
    pub residents: Vec<ResidentStatus>,
    /// What its executor keeps in its memory; `None`: it does not count, or is down.
    pub memory: Option<DeviceMemory>,
    /// What its executor knows of its kernels; `None`: it has no choice, or is down.
    pub kernels: Option<KernelFacts>,
}

impl DeviceStatus {
    /// One that is up, and has neither done anything yet nor anything to do.
    #[must_use]
    pub const fn idle(device: DeviceId) -> Self {
        Self {
            backend: device.backend,
            index: device.index,
            name: String::new(),
            state: DeviceState::Up,
            queue_requests: 0,
            queue_rows: 0,
            queue_rows_max: 1,
            backlog: Duration::ZERO,
            backlog_max: None,
            refused: Vec::new(),
            requests: 0,
            rows: 0,
            batches: 0,
            busy: Duration::ZERO,
            residents: Vec::new(),
            memory: None,
            kernels: None,
        }
    }

    /// Which one it is.
    #[must_use]
    pub const fn id(&self) -> DeviceId {
        DeviceId { backend: self.backend, index: self.index }
    }
}

/// A plan that stays on a device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResidentStatus {
    /// Its name.
    pub plan: String,
    /// What it has done there.
    pub counts: ResidentCounts,
}

/// Whether a device serves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DeviceState {
    /// Its executor is being built for the first time.
    Starting,
    /// It serves.
    Up,
    /// Its executor is gone and will be built again.
    Down {
        /// What happened to it.
        reason: String,
    },
}

/// The whole system as it is now.
#[derive(Clone, Debug)]
pub struct Health {
    /// The process is worth keeping.
    pub live: bool,
    /// Forecasts can be answered. A device that flaps does not change it; see `health/steady.rs`.
    pub ready: bool,
    /// It was ready once.
    pub started: bool,
    /// What keeps it from being live, ready, or undegraded; empty when all is well.
    pub reasons: Vec<String>,
    /// The devices.
    pub devices: Vec<DeviceStatus>,
    /// The actors, in start order.
    pub actors: Vec<ActorStatus>,
    /// The machine; `None` until the first sample.
    pub system: Option<Vitals>,
    /// What drivers say of the devices; empty where none does.
    pub meters: Vec<DeviceMeter>,
    /// How late a timer of the loop that all light actors share was at worst, of late.
    pub actor_lag: Duration,
}

/// One sample of the machine.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Vitals {
    /// When it was taken.
    pub taken_at: Instant,
    /// Share of all cores in use, 0 to 1.
    pub cpu_share: f64,
    /// Cores.
    pub cpu_count: usize,
    /// Load average of one minute.
    pub load_1m: f64,
    /// Memory in use: of the machine, or of the control group whose limit is smaller.
    pub memory_used_bytes: u64,
    /// Memory there is: the machine's, or that limit.
    pub memory_total_bytes: u64,
    /// Resident memory of this process.
    pub process_bytes: u64,
    /// Share of one core that this process uses.
    pub process_cpu_share: f64,
}
