//! The latest calls of one circuit, by number and by age.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::state::{BreakerLimits, Call, Cause};

/// Calls that went alike in a row count as one entry.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Window {
    runs: VecDeque<Run>,
    calls: usize,
    failed: usize,
    slow: usize,
    /// Failures since the last call that did not fail.
    in_a_row: usize,
}

#[derive(Clone, Copy, Debug, PartialEq)]
struct Run {
    call: Call,
    count: usize,
    /// Of its latest.
    at: Instant,
}

impl Window {
    /// With `count` more calls, of which the oldest was `over` ago: those that are too old by now are not counted.
    pub(crate) fn with(
        mut self,
        call: Call,
        count: usize,
        over: Duration,
        now: Instant,
        limits: &BreakerLimits,
    ) -> Self {
        if count == 0 {
            return self;
        }
        self.in_a_row = if call == Call::Failed { self.in_a_row + count } else { 0 };
        let recent = if over <= limits.window_for {
            count
        } else {
            // They are taken to have come evenly.
            (count as f64 * limits.window_for.as_secs_f64() / over.as_secs_f64()).ceil() as usize
        };
        let count = recent.min(limits.window_calls);
        match self.runs.back_mut() {
            Some(run) if run.call == call && run.at == now => run.count += count,
            _ => self.runs.push_back(Run { call, count, at: now }),
        }
        self.weigh(call, count as isize);
        self.trim(now, limits);
        self
    }

    fn trim(&mut self, now: Instant, limits: &BreakerLimits) {
        while let Some(run) = self.runs.front_mut() {
            let surplus = if now.saturating_duration_since(run.at) > limits.window_for {
                run.count
            } else {
                self.calls.saturating_sub(limits.window_calls).min(run.count)
            };
            if surplus == 0 {
                break;
            }
            run.count -= surplus;
            let Run { call, count, .. } = *run;
            if count == 0 {
                self.runs.pop_front();
            }
            self.weigh(call, -(surplus as isize));
        }
    }

    fn weigh(&mut self, call: Call, by: isize) {
        self.calls = self.calls.saturating_add_signed(by);
        match call {
            Call::Fast => {}
            Call::Slow => self.slow = self.slow.saturating_add_signed(by),
            Call::Failed => self.failed = self.failed.saturating_add_signed(by),
        }
    }

    pub(crate) fn verdict(&self, limits: &BreakerLimits) -> Option<Cause> {
        if self.in_a_row >= limits.consecutive_failures {
            return Some(Cause::Failures);
        }
        if self.calls < limits.calls_min.min(limits.window_calls) {
            return None;
        }
        let share = |count: usize| count as f64 / self.calls as f64;
        if self.failed > 0 && share(self.failed) >= limits.failure_share {
            Some(Cause::Failures)
        } else if self.slow > 0 && share(self.slow) >= limits.slow_share {
            Some(Cause::Slowness)
        } else {
            None
        }
    }
}
