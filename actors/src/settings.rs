//! What the owner decides before a system starts: plain values, all of them checked by whoever read them.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use peregrine_runtime::Region;
use peregrine_shaders::Precision;

use crate::breaker::{BreakerLimits, BreakerMode};
use crate::health::MemoryMeter;
use crate::inference::{BatchLimits, CheckLimits};
use crate::profile::Profile;
use crate::release::CoverageLimits;
use crate::remote::{HedgeLimits, Prefer, RetryLimits};

/// Everything that can be chosen about a [`System`](crate::System).
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// How requests gather into batches, and how many may wait.
    pub batching: BatchLimits,
    /// When a model's backend is taken out of service.
    pub breaker: BreakerLimits,
    /// Who decides that, unless an operator has given other orders.
    pub breaker_mode: BreakerMode,
    /// When a version does not answer any more because its intervals hold too little; `None`: it always may.
    pub coverage: Option<CoverageLimits>,
    /// How answers of a GPU are checked.
    pub checks: CheckLimits,
    /// What happens when the GPU cannot serve.
    pub fallback: FallbackPolicy,
    /// The same for single models.
    pub fallback_by_model: BTreeMap<String, FallbackPolicy>,
    /// Whether the CPU, where it stands in for every model, answers until the GPUs have come up and have the models. A driver
    /// takes its time, most of all the first one of a machine.
    pub cpu_first: bool,
    /// Which device runs a request when both could.
    pub placement: Placement,
    /// The same for single models, whatever their profile says.
    pub placement_by_model: BTreeMap<String, Placement>,
    /// Models that are for other nodes to serve: while none of them does, one is missing for a time, not unknown.
    pub models_of_others: BTreeSet<String>,
    /// What models are served for.
    pub profiles: Profiles,
    /// How exactly matrices are kept; `None`: as the profile says beside a GPU, where the network sees normalized numbers.
    pub precision: Option<Precision>,
    /// The same for single models.
    pub precision_by_model: BTreeMap<String, Option<Precision>>,
    /// For requests that state no deadline.
    pub default_deadline: Duration,
    /// A CPU request of at most this many multiply-adds runs in its caller's thread when the device is idle.
    /// Zero: never. The default is about 0.3 ms of one core.
    pub inline_macs_max: usize,
    /// Whether models that are served for the time of a single request stay on a GPU between requests.
    pub resident: bool,
    /// After so long without a request they rest, and the next one brings them back; `None`: never.
    pub rest_after: Option<Duration>,
    /// How long bringing a model to its devices may take.
    pub load_within: Duration,
    /// How often the machine's load is sampled.
    pub sample_every: Duration,
    /// Who knows whether this process may use less memory than the machine has.
    pub memory: MemoryMeter,
    /// How other nodes are asked.
    pub routing: RoutingSettings,
}

/// How forecasts are had from other nodes, where there are any.
#[derive(Clone, Debug, PartialEq)]
pub struct RoutingSettings {
    /// Which of several nodes is asked first.
    pub prefer: Prefer,
    /// Models that are answered by the nodes of a region, even where they could be here: the region of each.
    pub regions_by_model: BTreeMap<String, Region>,
    /// When a second node is asked because the first is late.
    pub hedge: HedgeLimits,
    /// How often another node is asked because one refused.
    pub retry: RetryLimits,
    /// A longer round trip crosses an ocean: after the first ask at most one more goes that far.
    pub ocean_rtt: Duration,
    /// Requests of this node that one other may hold.
    pub in_flight_max: usize,
    /// Requests of this node that a region may hold, unless it is named below.
    pub region_in_flight_max: usize,
    /// The same, by region.
    pub in_flight_max_by_region: BTreeMap<Region, usize>,
    /// The region that takes over for a region: asked next where the nearest, or that region, is preferred.
    pub standby_by_region: BTreeMap<Region, Region>,
}

impl Settings {
    /// What happens to a model's requests when the GPU cannot serve.
    #[must_use]
    pub fn fallback_of(&self, model: &str) -> FallbackPolicy {
        self.fallback_by_model.get(model).copied().unwrap_or(self.fallback)
    }

    /// Whether the CPU stands in for the GPU, for any model.
    pub(crate) fn falls_back(&self) -> bool {
        self.fallback.falls_back() || self.fallback_by_model.values().any(|policy| policy.falls_back())
    }

    /// Whether GPUs are kept from answering at first.
    pub(crate) fn holds_gpus(&self) -> bool {
        let policies = self.fallback_by_model.values();
        self.cpu_first && self.fallback.falls_back() && policies.copied().all(FallbackPolicy::falls_back)
    }

    /// How exactly the owner wants a model's matrices, whatever its profile says.
    pub(crate) fn precision_of(&self, model: &str) -> Option<Precision> {
        self.precision_by_model.get(model).copied().unwrap_or(self.precision)
    }
}

impl RoutingSettings {
    /// Requests of this node that `region` may hold.
    #[must_use]
    pub fn in_flight_max_of(&self, region: &Region) -> usize {
        self.in_flight_max_by_region.get(region).copied().unwrap_or(self.region_in_flight_max)
    }
}

impl Default for RoutingSettings {
    fn default() -> Self {
        Self {
            prefer: Prefer::default(),
            regions_by_model: BTreeMap::new(),
            hedge: HedgeLimits::default(),
            retry: RetryLimits::default(),
            ocean_rtt: Duration::from_millis(75),
            in_flight_max: 256,
            region_in_flight_max: 256,
            in_flight_max_by_region: BTreeMap::new(),
            standby_by_region: BTreeMap::new(),
        }
    }
}

/// Whether the CPU may stand in for a GPU that was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FallbackPolicy {
    /// No: another node's GPU answers, or the caller is told that the model is unavailable.
    Never,
    /// Yes, labelled degraded, unless another node's GPU is expected to answer before it.
    Allow,
    /// Yes, labelled degraded, before any other node is asked.
    Prefer,
}

impl FallbackPolicy {
    pub(crate) fn falls_back(self) -> bool {
        self != Self::Never
    }
}

/// What models are served for, by name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Profiles {
    /// Of models that are not named below.
    pub default: Profile,
    /// By model.
    pub by_model: BTreeMap<String, Profile>,
}

impl Profiles {
    /// The profile of `model`.
    #[must_use]
    pub fn of(&self, model: &str) -> Profile {
        self.by_model.get(model).copied().unwrap_or(self.default)
    }
}

/// Which of two healthy devices runs a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Placement {
    /// The GPU, whatever it takes.
    Gpu,
    /// The CPU, whatever it takes.
    Cpu,
    /// The one that is expected to answer first, by what both took of late: see `router/placement.rs`.
    Fastest,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            batching: BatchLimits::default(),
            breaker: BreakerLimits::default(),
            breaker_mode: BreakerMode::Auto,
            coverage: None,
            checks: CheckLimits::default(),
            fallback: FallbackPolicy::Allow,
            fallback_by_model: BTreeMap::new(),
            cpu_first: false,
            placement: Placement::Gpu,
            placement_by_model: BTreeMap::new(),
            models_of_others: BTreeSet::new(),
            profiles: Profiles::default(),
            precision: None,
            precision_by_model: BTreeMap::new(),
            default_deadline: Duration::from_secs(2),
            inline_macs_max: 3_000_000,
            resident: true,
            rest_after: Some(Duration::from_secs(60)),
            load_within: Duration::from_secs(60),
            sample_every: Duration::from_secs(1),
            memory: MemoryMeter::default(),
            routing: RoutingSettings::default(),
        }
    }
}
