//! Plans that stay on a device between requests, and an executor that asks nobody else.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::RwLock;

use crate::{Backend, ExecuteError, Executor, Plan, PlanId};

/// How a plan stays on a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stay {
    /// Rows of the largest request that needs no submission.
    pub rows_max: usize,
    /// After so long without a request the kernel leaves, and the next request brings it back; `None`: it polls for ever.
    /// A kernel that polls keeps the device at its full clock, and its power.
    pub rest_after: Option<Duration>,
}

/// A plan that stays on a device between requests. Any thread may ask it, also while its executor runs something else.
pub trait ResidentPlan: Send + Sync {
    /// Rows of the largest request that it answers.
    fn rows_max(&self) -> usize;

    /// As [`Executor::run`], for few rows.
    ///
    /// # Errors
    /// It has not answered: the executor has to be asked. `output` then holds nothing to be used.
    ///
    /// # Panics
    /// When a slice's length does not fit the plan: a programmer's error.
    fn run(&self, rows: usize, inputs: &[&[f32]], output: &mut [f32]) -> Result<(), NotServed>;

    /// What it has done so far.
    fn counts(&self) -> ResidentCounts;
}

/// Why a plan that stays has not answered: the ordinary way has to be taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotServed {
    /// It was not asked: it rests after long without a request, is launched again, or is gone for good.
    #[error("no kernel stays on the device now")]
    Away,
    /// Others ask it already: it answers one after the other, and a batch serves many sooner.
    #[error("others ask the kernel that stays on the device")]
    Busy,
    /// It was asked, and something is wrong with it or its device.
    #[error("the kernel that stays on the device did not answer")]
    Silent,
}

/// What a plan that stays has done so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ResidentCounts {
    /// Requests that it answered.
    pub requests: u64,
    /// How often one launch of its kernel took over from another.
    pub handovers: u64,
    /// Requests that it was asked and did not answer.
    pub silences: u64,
    /// Whether it answers now.
    pub serves: bool,
}

/// Plans that stay on one device.
pub type ResidentPlans = RwLock<HashMap<PlanId, Arc<dyn ResidentPlan>>>;

/// Asks plans that stay, and brings none there: what does not stay is [`ExecuteError::NotServed`].
pub struct ResidentExecutor {
    plans: Arc<ResidentPlans>,
    device: String,
}

impl ResidentExecutor {
    /// For plans that stay on `device`, now or later.
    #[must_use]
    pub fn new(plans: Arc<ResidentPlans>, device: &str) -> Self {
        Self { plans, device: format!("{device}, stays") }
    }
}

impl Executor for ResidentExecutor {
    fn backend(&self) -> Backend {
        Backend::Gpu
    }

    fn device(&self) -> &str {
        &self.device
    }

    fn load(&mut self, _plan: &Arc<Plan>) -> Result<(), ExecuteError> {
        Ok(())
    }

    fn unload(&mut self, _plan: PlanId) {}

    fn run(
        &mut self,
        plan: &Arc<Plan>,
        rows: usize,
        inputs: &[&[f32]],
        output: &mut [f32],
    ) -> Result<(), ExecuteError> {
        plan.assert_fits(rows, inputs, output);
        let resident = self.plans.read().get(&plan.id).cloned().ok_or(NotServed::Away)?;
        if rows <= resident.rows_max() {
            return Ok(resident.run(rows, inputs, output)?);
        }
        let widths: Vec<usize> = plan.inputs.iter().map(|input| plan.width(*input)).collect();
        let width = plan.width(plan.output);
        for first in (0..rows).step_by(resident.rows_max()) {
            let some = first..rows.min(first + resident.rows_max());
            let cells = |width: usize| some.start * width..some.end * width;
            let inputs: Vec<&[f32]> =
                inputs.iter().zip(&widths).map(|(input, width)| &input[cells(*width)]).collect();
            resident.run(some.len(), &inputs, &mut output[cells(width)])?;
        }
        Ok(())
    }
}
