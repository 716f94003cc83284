//! `[breaker]`: as written, and as used.

use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;

use super::checker::{Checker, DAY, SECOND};
use super::units::WrittenDuration;

/// When a model's backend is taken out of service, and when it is tried again.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default, expecting = "a table")]
pub(super) struct BreakerFile {
    /// Who decides, unless an operator has given other orders by `POST /v1/breakers`.
    pub(super) mode: Option<ModeChoice>,
    /// Calls remembered.
    pub(super) window_calls: Option<usize>,
    /// How long they are.
    pub(super) window: Option<WrittenDuration>,
    /// Failures in a row that open, however few calls there were.
    pub(super) consecutive_failures: Option<usize>,
    /// Calls needed before a share means anything.
    pub(super) calls_min: Option<usize>,
    /// Share of failures that opens, above 0 and at most 1.
    pub(super) failure_share: Option<f64>,
    /// Share of slow calls that opens, above 0 and at most 1.
    pub(super) slow_share: Option<f64>,
    /// A call that takes longer is slow.
    pub(super) slow_after: Option<WrittenDuration>,
    /// How long it stays open before a probe.
    pub(super) open_for: Option<WrittenDuration>,
    /// Successful probes that close it.
    pub(super) probes: Option<usize>,
    /// One answer of each model in so long is computed again by the CPU beside the GPU; 0: none.
    pub(super) check_every: Option<WrittenDuration>,
    /// A difference of so much of the range that the answer moves in is a wrong answer.
    pub(super) drift_max: Option<f64>,
    /// A version of which an interval holds less of the truth than it is meant to, by more than this share, hands over to
    /// the version before it; 0: it goes on.
    pub(super) coverage_shortfall: Option<f64>,
    /// Values, weighted, that must have met their truth before that is looked at.
    pub(super) coverage_values_min: Option<usize>,
}

/// Who decides what a breaker lets through.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ModeChoice {
    /// The calls
    Auto,
    /// Nobody: everything passes, nothing is counted
    Disabled,
    /// Nobody: everything passes, and the breaker shows what it would have done
    MetricsOnly,
}

/// When a model's backend is taken out of service, and when it is tried again.
#[derive(Clone, Debug, PartialEq)]
pub struct BreakerConfig {
    /// Who decides, unless an operator has given other orders.
    pub mode: ModeChoice,
    /// Calls remembered.
    pub window_calls: usize,
    /// How long they are.
    pub window: Duration,
    /// Failures in a row that open.
    pub consecutive_failures: usize,
    /// Calls needed before a share means anything.
    pub calls_min: usize,
    /// Share of failures that opens, in `(0, 1]`.
    pub failure_share: f64,
    /// Share of slow calls that opens, in `(0, 1]`.
    pub slow_share: f64,
    /// A call that takes longer is slow.
    pub slow_after: Duration,
    /// How long it stays open before a probe.
    pub open_for: Duration,
    /// Successful probes that close it.
    pub probes: usize,
    /// One answer of each model in so long is computed again by the CPU; zero: none.
    pub check_every: Duration,
    /// A difference of so much of the answer's range is a wrong answer.
    pub drift_max: f64,
    /// By more than this share an interval may not fall short of its level; 0: it may.
    pub coverage_shortfall: f64,
    /// Values, weighted, that must have met their truth before that is looked at.
    pub coverage_values_min: usize,
}

impl Checker<'_> {
    pub(super) fn breaker(&mut self, written: &BreakerFile) -> Option<BreakerConfig> {
        let window_calls = self.within("breaker.window_calls", written.window_calls, 1..=100_000);
        let calls_min = self.within("breaker.calls_min", written.calls_min, 1..=100_000);
        if let (Some(window), Some(min)) = (window_calls, calls_min)
            && min > window
        {
            self.mistake("breaker.calls_min", format!("{min} is more than window_calls = {window}"));
        }
        let failure_share = self.share("breaker.failure_share", written.failure_share);
        let slow_share = self.share("breaker.slow_share", written.slow_share);
        let slow_after = self.time("breaker.slow_after", written.slow_after, SECOND / 1000..=DAY);
        let open_for = self.time("breaker.open_for", written.open_for, SECOND / 1000..=DAY);
        let probes = self.within("breaker.probes", written.probes, 1..=1000);
        let mode = self.present("breaker.mode", written.mode);
        let window = self.time("breaker.window", written.window, SECOND / 1000..=DAY);
        let in_a_row = self.within("breaker.consecutive_failures", written.consecutive_failures, 1..=100_000);
        let check_every = self.time("breaker.check_every", written.check_every, Duration::ZERO..=DAY);
        let drift_max = self.share("breaker.drift_max", written.drift_max);
        let shortfall = written.coverage_shortfall;
        let coverage_shortfall = self.number(
            "breaker.coverage_shortfall",
            shortfall,
            |share| (0.0..=1.0).contains(&share),
            "a share from 0 to 1",
        );
        let values_min = written.coverage_values_min;
        let coverage_values_min = self.within("breaker.coverage_values_min", values_min, 1..=100_000_000);
        Some(BreakerConfig {
            mode: mode?,
            window: window?,
            consecutive_failures: in_a_row?,
            window_calls: window_calls?,
            calls_min: calls_min?,
            failure_share: failure_share?,
            slow_share: slow_share?,
            slow_after: slow_after?,
            open_for: open_for?,
            probes: probes?,
            check_every: check_every?,
            drift_max: drift_max?,
            coverage_shortfall: coverage_shortfall?,
            coverage_values_min: coverage_values_min?,
        })
    }
}
