//! The plainest executor: the f64 oracle of plans behind the port. Only for judging plans.

use std::sync::Arc;

use crate::tests::oracle;
use crate::{Backend, ExecuteError, Executor, Plan, PlanId};

pub(super) struct Interpreter;

impl Executor for Interpreter {
    fn backend(&self) -> Backend {
        Backend::Cpu
    }

    fn device(&self) -> &str {
        "plain loops"
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
        for (cell, value) in output.iter_mut().zip(oracle(plan, rows, inputs)) {
            *cell = value as f32;
        }
        Ok(())
    }
}
