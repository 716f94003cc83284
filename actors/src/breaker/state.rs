//! Decides when a model's backend is taken out of service, and when it is tried again.
//!
//! Knows no actor, model or clock: calls and clock readings in, the next state out. Closed lets all calls through and
//! remembers the latest; open refuses until its time is over; half-open has let a probe succeed and wants more.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// When a circuit opens and how it closes again.
#[derive(Clone, Debug, PartialEq)]
pub struct BreakerLimits {
    /// Calls remembered.
    pub window_calls: usize,
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

impl Default for BreakerLimits {
    fn default() -> Self {
        Self {
            window_calls: 50,
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
    DeviceDown,
}

impl Cause {
    pub(crate) const fn text(self) -> &'static str {
        match self {
            Self::Failures => "too many calls failed",
            Self::Slowness => "too many calls were slow",
            Self::ProbeFailed => "a probe failed or was slow",
            Self::DeviceDown => "the device is down",
        }
    }
}

/// What a circuit learns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    /// So many calls were fast.
    Passed(usize),
    /// A call let through while closed has ended.
    Call(Call),
    /// A probe has ended.
    Probe(Call),
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
            (Self::Closed(window), Event::Passed(count)) => {
                Self::Closed(window.with(Call::Fast, count, limits.window_calls))
            }
            (Self::Closed(window), Event::Call(call) | Event::Probe(call)) => {
                let window = window.with(call, 1, limits.window_calls);
                match window.verdict(limits) {
                    Some(cause) => Self::opened(0, cause, now, limits),
                    None => Self::Closed(window),
                }
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
            (unmoved, Event::Passed(_) | Event::Call(_) | Event::DeviceUp) => unmoved,
        }
    }

    fn opened(streak: u32, cause: Cause, now: Instant, limits: &BreakerLimits) -> Self {
        let open_for = limits.open_for.saturating_mul(1 << streak.min(20)).min(limits.open_for_max);
        Self::Open { until: now + open_for, streak: streak + 1, cause }
    }

    fn probed(successes: usize, streak: u32, cause: Cause, limits: &BreakerLimits) -> Self {
        if successes >= limits.probes { Self::new() } else { Self::HalfOpen { successes, streak, cause } }
    }
}

/// The latest calls.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Window {
    calls: VecDeque<Call>,
    failed: usize,
    slow: usize,
}

impl Window {
    fn with(mut self, call: Call, count: usize, calls_max: usize) -> Self {
        for _ in 0..count.min(calls_max) {
            self.calls.push_back(call);
            self.weigh(call, 1);
            if self.calls.len() > calls_max
                && let Some(oldest) = self.calls.pop_front()
            {
                self.weigh(oldest, -1);
            }
        }
        self
    }

    fn weigh(&mut self, call: Call, by: isize) {
        match call {
            Call::Fast => {}
            Call::Slow => self.slow = self.slow.saturating_add_signed(by),
            Call::Failed => self.failed = self.failed.saturating_add_signed(by),
        }
    }

    fn verdict(&self, limits: &BreakerLimits) -> Option<Cause> {
        if self.calls.len() < limits.calls_min.min(limits.window_calls) {
            return None;
        }
        let share = |count: usize| count as f64 / self.calls.len() as f64;
        if self.failed > 0 && share(self.failed) >= limits.failure_share {
            Some(Cause::Failures)
        } else if self.slow > 0 && share(self.slow) >= limits.slow_share {
            Some(Cause::Slowness)
        } else {
            None
        }
    }
}
