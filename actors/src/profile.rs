//! What a model is served for, and what follows from it. Plain values in, plain values out.

use std::time::Duration;

use peregrine_shaders::Precision;

use crate::settings::{FallbackPolicy, Placement, Settings};

/// What matters most about a model's forecasts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Profile {
    /// The time of a single request: it runs in its caller's thread where it can, on the GPU too, where the model stays
    /// between requests if it can, and batches are short so that nobody waits behind one.
    UltraLowLatency,
    /// Windows a second: long batches, on the GPU whatever a single one takes there, with matrices of halves.
    HighThroughput,
    /// Both.
    #[default]
    Balanced,
    /// Memory: weights lie ready for one such model at a time and are brought to the device when another is asked; matrices
    /// have halves.
    MemoryOptimized,
}

/// What the owner says the load will be like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Workload {
    /// Single windows that are wanted at once.
    RealTime,
    /// Many windows at a time.
    Batch,
    /// Both.
    Balanced,
    /// Many models, each of them rarely.
    MemoryIntensive,
}

/// What a profile means for one model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Terms {
    /// Rows of one batch.
    pub(crate) rows_max: usize,
    /// A request of fewer multiply-adds runs in its caller's thread when the CPU is idle.
    pub(crate) inline_macs_max: usize,
    /// The same for the GPU; the caller's thread waits for the device.
    pub(crate) gpu_inline_macs_max: usize,
    /// Which of two healthy devices runs a request.
    pub(crate) placement: Placement,
    /// What happens when the GPU cannot serve.
    pub(crate) fallback: FallbackPolicy,
    /// What a device has of it between its requests.
    pub(crate) residence: Residence,
    /// How exactly its matrices are kept, where its network sees normalized numbers.
    pub(crate) precision: Precision,
    /// Longest that a tick's prediction may be expected to take to be made in the thread that took the tick.
    pub(crate) in_line_max: Duration,
}

/// Ticks behind one whose prediction is made in line wait so long at most, unless what was expected was wrong.
const IN_LINE_MAX: Duration = Duration::from_micros(100);

/// What a device has of a model between its requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Residence {
    /// Nothing once another model was asked there.
    Guest,
    /// Its weights.
    Loaded,
    /// A kernel that waits for the next request, where device and plan allow it.
    Stays,
}

impl Profile {
    /// All of them.
    pub const ALL: [Self; 4] =
        [Self::UltraLowLatency, Self::HighThroughput, Self::Balanced, Self::MemoryOptimized];

    /// As the configuration writes it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::UltraLowLatency => "ultra_low_latency",
            Self::HighThroughput => "high_throughput",
            Self::Balanced => "balanced",
            Self::MemoryOptimized => "memory_optimized",
        }
    }

    /// For a declared workload on a machine with this much memory.
    #[must_use]
    pub fn detect(workload: Workload, memory_bytes: u64) -> Self {
        /// Below this, models that are rarely asked must not keep what others need.
        const SMALL_MACHINE: u64 = 512 << 20;
        match workload {
            Workload::RealTime => Self::UltraLowLatency,
            Workload::Batch => Self::HighThroughput,
            Workload::MemoryIntensive => Self::MemoryOptimized,
            Workload::Balanced if memory_bytes < SMALL_MACHINE => Self::MemoryOptimized,
            Workload::Balanced => Self::Balanced,
        }
    }

    pub(crate) fn terms(self, settings: &Settings) -> Terms {
        let rows_max = settings.batching.rows_max;
        let inline_macs_max = settings.inline_macs_max;
        let balanced = Terms {
            rows_max,
            inline_macs_max,
            gpu_inline_macs_max: 0,
            placement: settings.placement,
            fallback: settings.fallback,
            residence: Residence::Loaded,
            precision: Precision::F32,
            in_line_max: Duration::ZERO,
        };
        match self {
            Self::Balanced => balanced,
            Self::UltraLowLatency => Terms {
                rows_max: rows_max.min(32),
                inline_macs_max: inline_macs_max.saturating_mul(10),
                gpu_inline_macs_max: inline_macs_max.saturating_mul(10),
                residence: Residence::Stays,
                in_line_max: IN_LINE_MAX,
                ..balanced
            },
            Self::HighThroughput => Terms {
                rows_max: rows_max.saturating_mul(8),
                placement: Placement::Gpu,
                precision: Precision::F16,
                ..balanced
            },
            Self::MemoryOptimized => Terms {
                rows_max: rows_max.min(64),
                residence: Residence::Guest,
                precision: Precision::F16,
                ..balanced
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_declared_workload_has_its_profile() {
        let detect = |workload| Profile::detect(workload, 64 << 30);
        assert_eq!(detect(Workload::RealTime), Profile::UltraLowLatency);
        assert_eq!(detect(Workload::Batch), Profile::HighThroughput);
        assert_eq!(detect(Workload::Balanced), Profile::Balanced);
        assert_eq!(detect(Workload::MemoryIntensive), Profile::MemoryOptimized);
        assert_eq!(Profile::detect(Workload::Balanced, 256 << 20), Profile::MemoryOptimized);
        assert_eq!(Profile::detect(Workload::RealTime, 256 << 20), Profile::UltraLowLatency);
    }

    #[test]
    fn each_profile_pays_for_what_matters_to_it() {
        let settings = Settings { placement: Placement::Fastest, ..Settings::default() };
        let terms = |profile: Profile| profile.terms(&settings);
        let balanced = terms(Profile::Balanced);
        assert!(terms(Profile::UltraLowLatency).rows_max < balanced.rows_max);
        assert!(terms(Profile::UltraLowLatency).gpu_inline_macs_max > 0);
        let in_line = Profile::ALL.map(|profile| terms(profile).in_line_max > Duration::ZERO);
        assert_eq!(in_line, [true, false, false, false], "a thread that takes ticks is lent to none else");
        assert!(terms(Profile::HighThroughput).rows_max > balanced.rows_max);
        assert_eq!(terms(Profile::HighThroughput).placement, Placement::Gpu);
        let residence = Profile::ALL.map(|profile| terms(profile).residence);
        assert_eq!(residence, [Residence::Stays, Residence::Loaded, Residence::Loaded, Residence::Guest]);
        let precision = Profile::ALL.map(|profile| terms(profile).precision);
        assert_eq!(precision, [Precision::F32, Precision::F16, Precision::F32, Precision::F16]);
    }
}
