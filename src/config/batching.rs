//! `[batching]`: as written, and as used.

use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;

use super::checker::{Checker, SECOND};
use super::units::WrittenDuration;

/// How requests gather into batches.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default, expecting = "a table")]
pub(super) struct BatchingFile {
    /// Rows of one batch.
    pub(super) rows_max: Option<usize>,
    /// How long a request may wait for company while the device is busy.
    pub(super) wait_max: Option<WrittenDuration>,
    /// Rows queued per device; more are answered 429.
    pub(super) queue_rows_max: Option<usize>,
    /// Rows of one request; more are answered 413.
    pub(super) request_rows_max: Option<usize>,
    /// When requests wait longer than this, and than three batches, fewer are let in; the others are answered 429.
    pub(super) delay_target: Option<WrittenDuration>,
    /// Of what may wait, what one model may hold while others wait too, above 0 and at most 1.
    pub(super) model_share: Option<f64>,
}

/// How requests gather.
#[derive(Clone, Debug, PartialEq)]
pub struct BatchingConfig {
    /// Rows of one batch.
    pub rows_max: usize,
    /// How long a request may wait for company while the device is busy.
    pub wait_max: Duration,
    /// Rows queued per device; more get 429.
    pub queue_rows_max: usize,
    /// Rows of one request; more get 413.
    pub request_rows_max: usize,
    /// When requests wait longer than this, and than three batches, fewer are let in.
    pub delay_target: Duration,
    /// Of what may wait, what one model may hold while others wait too.
    pub model_share: f64,
}

impl Checker<'_> {
    pub(super) fn batching(&mut self, written: &BatchingFile) -> Option<BatchingConfig> {
        let rows_max = self.within("batching.rows_max", written.rows_max, 1..=65_536);
        let wait_max = self.time("batching.wait_max", written.wait_max, Duration::ZERO..=SECOND * 10);
        let queue = self.within("batching.queue_rows_max", written.queue_rows_max, 1..=10_000_000);
        let request = self.within("batching.request_rows_max", written.request_rows_max, 1..=10_000_000);
        if let (Some(queue), Some(request)) = (queue, request)
            && request > queue
        {
            self.mistake(
                "batching.request_rows_max",
                format!("{request} is more than queue_rows_max = {queue}"),
            );
        }
        let target = self.time("batching.delay_target", written.delay_target, SECOND / 1000..=SECOND * 60);
        let model_share = self.share("batching.model_share", written.model_share);
        Some(BatchingConfig {
            rows_max: rows_max?,
            wait_max: wait_max?,
            queue_rows_max: queue?,
            request_rows_max: request?,
            delay_target: target?,
            model_share: model_share?,
        })
    }
}
