//! What a rule says: which signal, beyond what, for how long, and what a reading that is missing means.
//!
//! The signals are a closed vocabulary: a rule can only ask for what nodes measure.

use std::time::Duration;

/// What a node measures of itself and its neighbours. Values are in the unit that the name ends with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Signal {
    /// Of a device, as its driver says.
    DeviceTemperatureCelsius,
    /// Share of time in which a device computed, 0 to 1, as its driver says.
    DeviceUtilisationShare,
    /// Share of a device's memory in use, as its driver says.
    DeviceMemoryShare,
    /// Share of the machine's memory in use.
    MemoryShare,
    /// 95 of 100 forecasts of the last window were answered within this time.
    ResponseP95Seconds,
    /// Share of forecasts of the last window that failed for a reason of this node.
    ErrorShare,
    /// Of one circuit: 0 closed, 1 half-open, 2 open, 3 forced open.
    BreakerState,
    /// Of one other node: 1 while it is gone without having said goodbye.
    ReplicaLost,
    /// Nodes that the cluster is meant to have and has not.
    ReplicasMissing,
    /// Until the certificate that a port shows expires; negative: since then.
    CertificateRemainingSeconds,
    /// Since the machine was last sampled: what decides by vitals is blind when they are old.
    VitalsAgeSeconds,
    /// How late a timer of an event loop was, at worst, of late.
    EventLoopLagSeconds,
    /// Actors that are at one message for too long.
    ActorsStuck,
    /// Ticks of the last window that the disk refused.
    JournalFailures,
    /// Of a model version: by how much an interval held less of the truth of late than it is meant to, 0 to 1.
    CoverageShortfallShare,
    /// Of a pool of machines: 1 while it does not list them, and nothing is done there.
    ScalerPoolSilent,
}

impl Signal {
    /// Each of them.
    pub const ALL: [Self; 16] = [
        Self::DeviceTemperatureCelsius,
        Self::DeviceUtilisationShare,
        Self::DeviceMemoryShare,
        Self::MemoryShare,
        Self::ResponseP95Seconds,
        Self::ErrorShare,
        Self::BreakerState,
        Self::ReplicaLost,
        Self::ReplicasMissing,
        Self::CertificateRemainingSeconds,
        Self::VitalsAgeSeconds,
        Self::EventLoopLagSeconds,
        Self::ActorsStuck,
        Self::JournalFailures,
        Self::CoverageShortfallShare,
        Self::ScalerPoolSilent,
    ];

    /// As the configuration writes it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::DeviceTemperatureCelsius => "device_temperature_celsius",
            Self::DeviceUtilisationShare => "device_utilisation_share",
            Self::DeviceMemoryShare => "device_memory_share",
            Self::MemoryShare => "memory_share",
            Self::ResponseP95Seconds => "response_p95_seconds",
            Self::ErrorShare => "error_share",
            Self::BreakerState => "breaker_state",
            Self::ReplicaLost => "replica_lost",
            Self::ReplicasMissing => "replicas_missing",
            Self::CertificateRemainingSeconds => "certificate_remaining_seconds",
            Self::VitalsAgeSeconds => "vitals_age_seconds",
            Self::EventLoopLagSeconds => "event_loop_lag_seconds",
            Self::ActorsStuck => "actors_stuck",
            Self::JournalFailures => "journal_failures",
            Self::CoverageShortfallShare => "coverage_shortfall_share",
            Self::ScalerPoolSilent => "scaler_pool_silent",
        }
    }
}

/// On which side of its threshold a value is bad.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Comparison {
    /// Bad when larger.
    Above,
    /// Bad when smaller.
    Below,
}

impl Comparison {
    /// Whether `value` is on the bad side of `bound`; on it is good.
    #[must_use]
    pub fn is_beyond(self, value: f64, bound: f64) -> bool {
        match self {
            Self::Above => value > bound,
            Self::Below => value < bound,
        }
    }
}

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// Somebody should look at it during the day.
    Warning,
    /// Somebody must act now.
    Critical,
}

impl Severity {
    /// Lowercase name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Warning => "warning",
            Self::Critical => "critical",
        }
    }
}

/// What it means that a reading which should be there is not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Missing {
    /// What was measured is no more, and its alert with it.
    Resolve,
    /// Nothing is known: the alert stays as it is.
    Hold,
    /// Not to know is what is bad.
    Fire,
}

/// One rule.
#[derive(Clone, Debug, PartialEq)]
pub struct Rule {
    /// Names its alerts.
    pub name: String,
    /// What it looks at.
    pub signal: Signal,
    /// Which side is bad.
    pub comparison: Comparison,
    /// Beyond it is bad.
    pub threshold: f64,
    /// An alert that fires ends only when the value is not even beyond this: a value that swings about the threshold
    /// is one alert.
    pub clear: f64,
    /// How long it must be bad without a break before the alert fires.
    pub lasting: Duration,
    /// How long it must be clear without a break before the alert ends.
    pub clear_lasting: Duration,
    /// How bad that is.
    pub severity: Severity,
    /// What a missing reading means.
    pub missing: Missing,
    /// One sentence for people.
    pub summary: String,
}
