//! Runs one batch on an executor: gathers rows, runs the plan, hands out the rows, and finds the row that overflows.
//!
//! Knows no queue, no breaker and no caller: requests in, a fate for each out.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use peregrine_runtime::Clock;
use peregrine_shaders::{
    DeviceMemory, ExecuteError, Executor, Forecaster, KernelFacts, PlanId, RunTimes, Scratch, Windows,
};

use crate::inference::ledger::Split;
use crate::profile::Residence;

/// An executor with the buffers that its batches reuse.
pub(crate) struct Engine {
    executor: Box<dyn Executor>,
    scratch: Scratch,
    gathered: Windows,
    out: Vec<f32>,
    /// Plans of the streamed model that was asked last: they leave before another model runs.
    guests: Vec<PlanId>,
}

/// What became of one request of a batch.
#[derive(Debug, PartialEq)]
pub(crate) enum Fate {
    /// `[rows, h, C]`, or `[rows, h, N, C]` of several series.
    Values(Vec<f32>),
    /// The network overflows at this row of the request.
    NotFinite { row: usize },
}

/// Why a batch did not run at all.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub(crate) enum Broken {
    #[error(transparent)]
    Refused(#[from] ExecuteError),
    #[error("executor panicked: {0}")]
    Panicked(String),
}

impl Broken {
    /// Whether the executor must be built anew.
    pub(crate) fn is_fatal(&self) -> bool {
        matches!(self, Self::Panicked(_) | Self::Refused(ExecuteError::DeviceLost(_)))
    }
}

impl Engine {
    pub(crate) fn new(executor: Box<dyn Executor>) -> Self {
        Self {
            executor,
            scratch: Scratch::default(),
            gathered: Windows::default(),
            out: Vec::new(),
            guests: Vec::new(),
        }
    }

    /// Drops the executor, which may panic again on its way out if it is broken.
    pub(crate) fn discard(self) {
        let _ = catch_unwind(AssertUnwindSafe(|| drop(self)));
    }

    /// Whether the times of the runs that follow are noted.
    pub(crate) fn observe(&mut self, wanted: bool) {
        self.executor.observe(wanted);
    }

    /// Of the last run.
    pub(crate) fn observed(&self) -> Option<RunTimes> {
        self.executor.observed()
    }

    /// What is kept on its device.
    pub(crate) fn memory(&self) -> Option<DeviceMemory> {
        self.executor.memory()
    }

    /// What is known of its kernels.
    pub(crate) fn kernels(&self) -> Option<KernelFacts> {
        self.executor.kernels()
    }

    /// What it runs on.
    pub(crate) fn device(&self) -> &str {
        self.executor.device()
    }

    /// Runs anything on the executor; a panic becomes an error.
    pub(crate) fn contain<T>(
        &mut self,
        body: impl FnOnce(&mut dyn Executor) -> Result<T, ExecuteError>,
    ) -> Result<T, Broken> {
        // Unwind safe: after a panic the engine is thrown away.
        caught(AssertUnwindSafe(|| body(self.executor.as_mut())))
    }

    /// Runs the requests as one batch and tells the fate of each, in order.
    pub(crate) fn run(
        &mut self,
        forecaster: &Arc<Forecaster>,
        residence: Residence,
        requests: &[&Windows],
        clock: &dyn Clock,
    ) -> Result<(Vec<Fate>, Split), Broken> {
        self.admit(forecaster, residence)?;
        let mut fates = Vec::with_capacity(requests.len());
        let mut split = Split::default();
        caught(AssertUnwindSafe(|| self.run_part(forecaster, requests, clock, &mut fates, &mut split)))?;
        Ok((fates, split))
    }

    /// Makes room: a streamed model's weights stay until another model is asked.
    fn admit(&mut self, forecaster: &Forecaster, residence: Residence) -> Result<(), Broken> {
        let next = forecaster.plans().next().map(|plan| plan.id);
        if self.guests.first().copied() == next {
            return Ok(());
        }
        for guest in std::mem::take(&mut self.guests) {
            self.contain(|executor| {
                executor.unload(guest);
                Ok(())
            })?;
        }
        if residence == Residence::Guest {
            // The run itself brings them.
            self.guests = forecaster.plans().map(|plan| plan.id).collect();
        }
        Ok(())
    }

    /// Halves a batch that is not finite until the requests to blame stand alone: their mates are not to suffer.
    fn run_part(
        &mut self,
        forecaster: &Arc<Forecaster>,
        requests: &[&Windows],
        clock: &dyn Clock,
        fates: &mut Vec<Fate>,
        split: &mut Split,
    ) -> Result<(), ExecuteError> {
        let started = clock.now();
        let windows = match requests {
            [] => return Ok(()),
            [alone] => *alone,
            many => {
                gather(&mut self.gathered, many, forecaster.spec().y_len());
                &self.gathered
            }
        };
        let gathered = clock.now();
        let ran = forecaster.forecast(self.executor.as_mut(), windows, &mut self.scratch, &mut self.out);
        let finished = clock.now();
        split.input += gathered.saturating_duration_since(started);
        split.infer += finished.saturating_duration_since(gathered);
        match (ran, requests) {
            (Ok(()), requests) => {
                let row_len = forecaster.spec().answer_len();
                let mut rest = self.out.as_slice();
                for request in requests {
                    let (own, others) = rest.split_at(request.rows * row_len);
                    fates.push(Fate::Values(own.to_vec()));
                    rest = others;
                }
                split.output += clock.now().saturating_duration_since(finished);
                Ok(())
            }
            (Err(ExecuteError::NotFinite { row }), [_alone]) => {
                fates.push(Fate::NotFinite { row });
                Ok(())
            }
            (Err(ExecuteError::NotFinite { .. }), many) => {
                let (left, right) = many.split_at(many.len() / 2);
                self.run_part(forecaster, left, clock, fates, split)?;
                self.run_part(forecaster, right, clock, fates, split)
            }
            (Err(error), _) => Err(error),
        }
    }
}

fn gather(into: &mut Windows, requests: &[&Windows], y_len: usize) {
    into.rows = 0;
    into.y.clear();
    into.hist_exog.clear();
    into.futr_exog.clear();
    into.stat_exog.clear();
    into.mask = None;
    for request in requests {
        into.append(request, y_len);
    }
}

fn caught<T>(body: AssertUnwindSafe<impl FnOnce() -> Result<T, ExecuteError>>) -> Result<T, Broken> {
    match catch_unwind(body) {
        Ok(ran) => Ok(ran?),
        Err(payload) => {
            let message = payload.downcast_ref::<&'static str>().map(|text| (*text).to_owned());
            let message = message.or_else(|| payload.downcast_ref::<String>().cloned());
            Err(Broken::Panicked(message.unwrap_or_else(|| "without a message".to_owned())))
        }
    }
}
