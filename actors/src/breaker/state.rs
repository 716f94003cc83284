//! Decides when a model's backend is taken out of service, and when it is tried again.
//!
//! Knows no actor, model or clock: calls and clock readings in, the next state out. Closed lets all calls through and
//! remembers the latest; open refuses until its time is over; half-open has let a probe succeed and wants more.

use std::time::{Duration, Instant};

use super::window::Window;

/// When a circuit opens and how it closes again.
#[derive(Clone, Debug, PartialEq)]
pub struct BreakerLimits {
    /// Calls remembered.
    pub window_calls: usize,
    /// How long they are.
    pub window_for: Duration,
    /// Failures in a row that open, however few calls there were.
    pub consecutive_failures: usize,
    /// Calls needed before a share means anything.
    pub calls_min: usize,
    /// Share of failures that opens, in `(0, 1]`.
    pub failure_share: f64,
    /// Share of slow calls that opens, in `(0, 1]`.
    pub slow_share: f64,
    /// A call that takes longer is slow.
    pub slow_after: Duration,
    /// How long it stays open before a probe; doubles each time the probes fail.
    pub open_for: Duration,
    /// The longest that it stays open before a probe.
    pub open_for_max: Duration,
    /// Successful probes that close it; as many may be on their way at once.
    pub probes: usize,
}

impl BreakerLimits {
    /// How long a circuit that opened so many times in a row before stays open.
    pub(crate) fn pause(&self, streak: u32) -> Duration {
        self.open_for.saturating_mul(1 << streak.min(20)).min(self.open_for_max)
    }
}

impl Default for BreakerLimits {
    fn default() -> Self {
        Self {
            window_calls: 50,
            window_for: Duration::from_secs(60),
            consecutive_failures: 5,
            calls_min: 5,
            failure_share: 0.5,
            slow_share: 0.8,
            slow_after: Duration::from_secs(1),
            open_for: Duration::from_secs(1),
            open_for_max: Duration::from_secs(30),
            probes: 2,
        }
    }
}

/// How one call went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Call {
    Fast,
    Slow,
    Failed,
}

/// Why a circuit opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cause {
    Failures,
    Slowness,
    ProbeFailed,
    Wrong,
    DeviceDown,
}

impl Cause {
    pub(crate) const fn text(self) -> &'static str {
        match self {
            Self::Failures => "too many calls failed",
            Self::Slowness => "too many calls were slow",
            Self::ProbeFailed => "a probe failed or was slow",
            Self::Wrong => "an answer was wrong",
            Self::DeviceDown => "the device is down",
        }
    }
}

/// What a circuit learns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    /// So many calls were fast, in so long.
    Passed(usize, Duration),
    /// A call let through while closed has ended.
    Call(Call),
    /// A probe has ended.
    Probe(Call),
    /// An answer was not what it had to be.
    Wrong,
    /// The device cannot serve.
    DeviceDown,
    /// The device was built anew.
    DeviceUp,
}

/// The state of one model on one backend.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Circuit {
    Closed(Window),
    /// Probes may try from `until` on; it has opened `streak` times in a row.
    Open {
        until: Instant,
        streak: u32,
        cause: Cause,
    },
    HalfOpen {
        successes: usize,
        streak: u32,
        cause: Cause,
    },
}

impl Circuit {
    pub(crate) fn new() -> Self {
        Self::Closed(Window::default())
    }

    /// The one place where circuits change.
    pub(crate) fn next(self, event: Event, now: Instant, limits: &BreakerLimits) -> Self {
        match (self, event) {
            (Self::Closed(window), Event::Passed(count, over)) => {
                Self::Closed(window.with(Call::Fast, count, over, now, limits))
            }
            (Self::Closed(window), Event::Call(call) | Event::Probe(call)) => {
                let window = window.with(call, 1, Duration::ZERO, now, limits);
                match window.verdict(limits) {
                    Some(cause) => Self::opened(0, cause, now, limits),
                    None => Self::Closed(window),
                }
            }
            (Self::Closed(_), Event::Wrong) => Self::opened(0, Cause::Wrong, now, limits),
            (Self::Open { streak, .. } | Self::HalfOpen { streak, .. }, Event::Wrong) => {
                Self::opened(streak, Cause::Wrong, now, limits)
            }
            (Self::Closed(_), Event::DeviceDown) => Self::opened(0, Cause::DeviceDown, now, limits),
            (Self::Open { streak, .. } | Self::HalfOpen { streak, .. }, Event::DeviceDown) => {
                Self::opened(streak, Cause::DeviceDown, now, limits)
            }
            (Self::Open { streak, cause: Cause::DeviceDown, .. }, Event::DeviceUp) => {
                Self::Open { until: now, streak, cause: Cause::DeviceDown }
            }
            (Self::Open { streak, cause, .. }, Event::Probe(Call::Fast)) => {
                Self::probed(1, streak, cause, limits)
            }
            (Self::HalfOpen { successes, streak, cause }, Event::Probe(Call::Fast)) => {
                Self::probed(successes + 1, streak, cause, limits)
            }
            (
                Self::Open { streak, .. } | Self::HalfOpen { streak, .. },
                Event::Probe(Call::Slow | Call::Failed),
            ) => Self::opened(streak, Cause::ProbeFailed, now, limits),
            // Calls let through before it opened say nothing new, and a device that is up was never the cause.
            (unmoved, Event::Passed(..) | Event::Call(_) | Event::DeviceUp) => unmoved,
        }
    }

    /// Whether a request that has nowhere else to go may pass nevertheless.
    pub(crate) fn is_last_resort(&self) -> bool {
        match self {
            Self::Closed(_) => true,
            Self::Open { cause, .. } | Self::HalfOpen { cause, .. } => *cause == Cause::Slowness,
        }
    }

    fn opened(streak: u32, cause: Cause, now: Instant, limits: &BreakerLimits) -> Self {
        Self::Open { until: now + limits.pause(streak), streak: streak + 1, cause }
    }

    fn probed(successes: usize, streak: u32, cause: Cause, limits: &BreakerLimits) -> Self {
        if successes >= limits.probes { Self::new() } else { Self::HalfOpen { successes, streak, cause } }
    }
}
