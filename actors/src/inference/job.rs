//! What travels to a device: a model ready to run, and one request for it.

use std::sync::Arc;
use std::time::Instant;

use peregrine_runtime::{Deadline, ReplySlot};
use peregrine_shaders::{Forecaster, Windows};

use crate::devices::{DeviceId, PerDevice};
use crate::inference::batch::Waiting;
use crate::inference::check::{Check, Sampler};
use crate::inference::{Judge, Ledger, Line, Pace, Ticket};
use crate::profile::Terms;
use crate::request::{Forecast, ForecastError, Origin};

/// One version of one model, as devices see it. When its last request is gone, they forget its weights.
pub(crate) struct Served {
    pub(crate) forecaster: Arc<Forecaster>,
    pub(crate) version: u32,
    pub(crate) ledger: Arc<Ledger>,
    /// Who hears of its calls.
    pub(crate) judges: PerDevice<Arc<dyn Judge>>,
    /// How fast it runs.
    pub(crate) paces: PerDevice<Pace>,
    pub(crate) sampler: Sampler,
    pub(crate) terms: Terms,
    pub(crate) lines: PerDevice<Arc<Line>>,
}

impl Served {
    pub(crate) fn judge(&self, device: DeviceId) -> Arc<dyn Judge> {
        Arc::clone(&self.judges[device])
    }

    /// Requests of one key may share a batch: the version's first plan is nobody else's.
    pub(crate) fn key(&self) -> u64 {
        self.forecaster.plans().next().map_or(0, |plan| plan.id.0)
    }

    /// Multiply-adds of so many rows.
    fn work(&self, rows: usize) -> u64 {
        rows.saturating_mul(self.forecaster.row_macs()) as u64
    }

    /// A request for this version as it would stand in a queue.
    pub(crate) fn waiting(
        &self,
        rows: usize,
        origin: &Origin,
        (since, deadline): (Instant, Deadline),
    ) -> Waiting<()> {
        Waiting {
            key: self.key(),
            rows,
            work: self.work(rows),
            priority: origin.priority,
            caller: Arc::clone(&origin.caller),
            rows_max: self.terms.rows_max,
            since,
            deadline: deadline.instant(),
            item: (),
        }
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        for (_, line) in self.lines.iter() {
            self.forecaster.plans().for_each(|plan| line.retire(plan.id));
        }
    }
}

/// What the caller of a forecast gets.
pub(crate) type Answer = Result<Forecast, ForecastError>;

/// One request on its way. Dropped unanswered, its caller learns so at once.
pub(crate) struct Job {
    pub(crate) served: Arc<Served>,
    pub(crate) windows: Windows,
    pub(crate) accepted_at: Instant,
    pub(crate) deadline: Deadline,
    pub(crate) origin: Origin,
    /// It may run in its caller's thread.
    pub(crate) is_alone: bool,
    /// `None`: nobody waits, it is there for its check.
    pub(crate) slot: Option<ReplySlot<Answer>>,
    /// It is on the CPU because the GPU could not serve it.
    pub(crate) degraded: bool,
    /// A GPU that accepted it could not run it, and another has it now; it is handed on no further.
    pub(crate) relieved: bool,
    /// It finds out whether a device has recovered.
    pub(crate) ticket: Option<Ticket>,
    /// The answer of this GPU was not finite: if the one to come is, the GPU was wrong.
    pub(crate) suspect: Option<DeviceId>,
    /// What the GPU answered, if it is on the CPU to find out whether that was right.
    pub(crate) check: Option<Check>,
}

impl Job {
    /// Multiply-adds that it takes.
    pub(crate) fn work(&self) -> u64 {
        self.served.work(self.windows.rows)
    }

    /// As it stands in a queue.
    pub(crate) fn waiting(self) -> Waiting<Self> {
        self.served.waiting(self.windows.rows, &self.origin, (self.accepted_at, self.deadline)).with(self)
    }

    /// Whether its caller has left.
    pub(crate) fn is_abandoned(&self) -> bool {
        self.slot.as_ref().is_some_and(ReplySlot::is_abandoned)
    }

    pub(crate) fn fail(self, error: ForecastError, now: Instant) {
        if let Some(slot) = self.slot {
            self.served.ledger.failed(now.saturating_duration_since(self.accepted_at));
            // A caller that left needs no answer.
            slot.send(Err(error));
        }
    }
}
