//! Decisions: which model answers, on which device, together with which other requests, and what happens when it fails.
//!
//! One room per actor; a shell that talks, pure files that think. Knows no HTTP, file or environment, and reads time
//! only from the clock it is given. The way of one request:
//! `router` (a table that is read without a lock) → `breaker` (a gate of a few atomics) → `inference` (a line in front
//! of one device) → reply slot.

pub mod alerts;
pub mod audit;
mod breaker;
mod devices;
mod health;
mod inference;
mod profile;
pub mod release;
mod remote;
mod request;
mod router;
pub mod scorecard;
pub mod series;
mod settings;
mod status;
pub mod stream;
mod supervisor;
mod system;
#[cfg(test)]
mod tests;
mod trace;

pub use breaker::{BreakerLimits, BreakerMode, BreakerSelector, TooManyOrders};
pub use devices::DeviceId;
pub use health::{MemoryMeter, MemoryRoom, Meters};
pub use inference::{AdmissionLimits, BatchLimits, CheckLimits, ExecutorFactory, Ladder, Spread};
pub use peregrine_runtime::{ActorStatus, StartError};
pub use profile::{Profile, Workload};
pub use remote::{
    HedgeLimits, Peers, Prefer, Provider, RemoteAnswer, RemoteForecast, RemoteRefusal, RetryLimits, WireError,
};
pub use request::{
    Forecast, ForecastError, ForecastRequest, Names, Origin, Priority, ServedBy, Subject, Timing,
};
pub use settings::{FallbackPolicy, Placement, Profiles, RoutingSettings, Settings};
pub use status::{
    BackendStats, BreakerState, BreakerStatus, DeviceMeter, DeviceState, DeviceStatus, Guarded, Health,
    ModelCounts, ModelState, ModelStats, ModelStatus, PaceStatus, PeerStats, Percentiles, RemoteStats,
    ResidentStatus, Tally, Vitals,
};
pub use system::{LoadRefused, System};
pub use trace::{Began, Done, Span, SpanKind, SpanSink, Trace, TraceParent, Value};
