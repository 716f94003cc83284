//! What the actors are told of the configuration.

use peregrine_actors::release::CoverageLimits;
use peregrine_actors::{
    AdmissionLimits, BatchLimits, BreakerLimits, BreakerMode, CheckLimits, FallbackPolicy, MemoryMeter,
    Placement, Profile, Profiles, Settings, Workload,
};

use peregrine_shaders::Precision;

use crate::cluster;
use crate::config::{
    Config, FallbackChoice, ModeChoice, ModelsConfig, PrecisionChoice, ProfileChoice, WorkloadChoice,
};
use crate::memory;

/// The part of the configuration that the actors are told.
pub(crate) fn settings(config: &Config, placement: Placement) -> Settings {
    let (batching, breaker) = (&config.batching, &config.breaker);
    Settings {
        batching: BatchLimits {
            rows_max: batching.rows_max,
            wait_max: batching.wait_max,
            queue_rows_max: batching.queue_rows_max,
            request_rows_max: batching.request_rows_max,
            admission: AdmissionLimits {
                delay_target: batching.delay_target,
                model_share: batching.model_share,
            },
        },
        breaker: BreakerLimits {
            window_calls: breaker.window_calls,
            window_for: breaker.window,
            consecutive_failures: breaker.consecutive_failures,
            calls_min: breaker.calls_min,
            failure_share: breaker.failure_share,
            slow_share: breaker.slow_share,
            slow_after: breaker.slow_after,
            open_for: breaker.open_for,
            probes: breaker.probes,
            ..BreakerLimits::default()
        },
        breaker_mode: match breaker.mode {
            ModeChoice::Auto => BreakerMode::Auto,
            ModeChoice::Disabled => BreakerMode::Disabled,
            ModeChoice::MetricsOnly => BreakerMode::MetricsOnly,
        },
        coverage: (breaker.coverage_shortfall > 0.0).then_some(CoverageLimits {
            shortfall: breaker.coverage_shortfall,
            values_min: breaker.coverage_values_min as f64,
        }),
        checks: CheckLimits { every: breaker.check_every, drift_max: breaker.drift_max },
        fallback: fallback(config.backend.fallback),
        fallback_by_model: {
            let written = config.backend.fallbacks.iter();
            written.map(|(model, choice)| (model.clone(), fallback(*choice))).collect()
        },
        resident: config.backend.resident,
        rest_after: config.backend.rest_after,
        placement,
        placement_by_model: cluster::devices(config),
        profiles: profiles(&config.models),
        precision: precision(config.models.precision),
        precision_by_model: {
            let written = config.models.precisions.iter();
            written.map(|(model, choice)| (model.clone(), precision(*choice))).collect()
        },
        default_deadline: config.deadline.default,
        memory: MemoryMeter(memory::room),
        routing: cluster::routing(config),
        ..Settings::default()
    }
}

fn fallback(choice: FallbackChoice) -> FallbackPolicy {
    match choice {
        FallbackChoice::Never => FallbackPolicy::Never,
        FallbackChoice::Allow => FallbackPolicy::Allow,
        FallbackChoice::Prefer => FallbackPolicy::Prefer,
    }
}

/// `None`: as the profile says.
fn precision(choice: PrecisionChoice) -> Option<Precision> {
    match choice {
        PrecisionChoice::Auto => None,
        PrecisionChoice::F32 => Some(Precision::F32),
        PrecisionChoice::F16 => Some(Precision::F16),
        PrecisionChoice::Int8 => Some(Precision::Int8),
    }
}

fn profiles(models: &ModelsConfig) -> Profiles {
    let workload = match models.workload {
        WorkloadChoice::RealTime => Workload::RealTime,
        WorkloadChoice::Batch => Workload::Batch,
        WorkloadChoice::Balanced => Workload::Balanced,
        WorkloadChoice::MemoryIntensive => Workload::MemoryIntensive,
    };
    let profile = |choice: ProfileChoice| match choice {
        ProfileChoice::Auto => Profile::detect(workload, memory::total()),
        ProfileChoice::UltraLowLatency => Profile::UltraLowLatency,
        ProfileChoice::HighThroughput => Profile::HighThroughput,
        ProfileChoice::Balanced => Profile::Balanced,
        ProfileChoice::MemoryOptimized => Profile::MemoryOptimized,
    };
    let by_model = models.profiles.iter().map(|(model, choice)| (model.clone(), profile(*choice)));
    Profiles { default: profile(models.profile), by_model: by_model.collect() }
}
