//! The last quarter of an hour, in steps of five seconds.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::types::{Requests, Streams};

/// Of a step.
pub(super) const STEP: Duration = Duration::from_secs(5);
/// Steps that are kept.
pub(super) const STEPS_MAX: usize = 180;

/// Values by step, the oldest first; all lists are equally long.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct History {
    pub(crate) step_seconds: u64,
    /// End of the step, in milliseconds since 1970; they rise.
    pub(crate) at: Vec<u64>,
    pub(crate) rate: Vec<Option<f64>>,
    pub(crate) error_rate: Vec<Option<f64>>,
    pub(crate) p50_ms: Vec<Option<f64>>,
    pub(crate) p95_ms: Vec<Option<f64>>,
    pub(crate) p99_ms: Vec<Option<f64>>,
    pub(crate) ticks_rate: Vec<Option<f64>>,
    pub(crate) predictions_rate: Vec<Option<f64>>,
}

impl Default for History {
    fn default() -> Self {
        Self {
            step_seconds: STEP.as_secs(),
            at: Vec::new(),
            rate: Vec::new(),
            error_rate: Vec::new(),
            p50_ms: Vec::new(),
            p95_ms: Vec::new(),
            p99_ms: Vec::new(),
            ticks_rate: Vec::new(),
            predictions_rate: Vec::new(),
        }
    }
}

impl History {
    /// Adds a step, and forgets the oldest where there are too many.
    pub(crate) fn push(&mut self, at: u64, requests: &Requests, streams: &Streams) {
        // A clock that was set back says times again: what it has not reached is no past.
        let past_len = self.at.partition_point(|&step| step < at);
        append(&mut self.at, past_len, at);
        for (values, value) in [
            (&mut self.rate, requests.rate),
            (&mut self.error_rate, requests.error_rate),
            (&mut self.p50_ms, requests.p50_ms),
            (&mut self.p95_ms, requests.p95_ms),
            (&mut self.p99_ms, requests.p99_ms),
            (&mut self.ticks_rate, streams.ticks_rate),
            (&mut self.predictions_rate, streams.predictions_rate),
        ] {
            append(values, past_len, value);
        }
    }
}

fn append<T>(values: &mut Vec<T>, past_len: usize, value: T) {
    values.truncate(past_len);
    if values.len() >= STEPS_MAX {
        values.remove(0);
    }
    values.push(value);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_last_steps_are_kept() {
        let mut history = History::default();
        for step in 0..STEPS_MAX as u64 + 7 {
            let requests = Requests { rate: Some(step as f64), ..Requests::default() };
            history.push(step * 5000, &requests, &Streams::default());
        }
        assert_eq!((history.at.len(), history.at[0]), (STEPS_MAX, 35_000));
        assert_eq!((history.rate.len(), history.rate[0]), (STEPS_MAX, Some(7.0)));
        assert_eq!((history.p99_ms.len(), history.p99_ms[0]), (STEPS_MAX, None));
    }

    #[test]
    fn times_rise_though_the_clock_was_set_back() {
        let mut history = History::default();
        for (at, rate) in [(5000, 1.0), (10_000, 2.0), (15_000, 3.0), (7000, 4.0), (7000, 5.0), (12_000, 6.0)]
        {
            let streams = Streams { predictions_rate: Some(rate), ..Streams::default() };
            history.push(at, &Requests::default(), &streams);
        }
        assert_eq!(history.at, [5000, 7000, 12_000]);
        assert_eq!(history.predictions_rate, [Some(1.0), Some(5.0), Some(6.0)]);
        assert_eq!(history.rate.len(), 3);
    }
}
