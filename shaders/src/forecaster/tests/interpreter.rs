//! The plainest executor: one loop per command, f32, no state. Only for judging plans.

use std::sync::Arc;

use crate::{
    Activation, Backend, Command, ExecuteError, Executor, Init, Linear, Move, Plan, PlanId, Pool, PoolMode,
    View,
};

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
        assert_eq!(inputs.len(), plan.inputs.len());
        for row in 0..rows {
            // What is read before it is written shows as NaN.
            let mut buffers: Vec<Vec<f32>> =
                plan.buffer_widths.iter().map(|&width| vec![f32::NAN; width]).collect();
            for (buffer, input) in plan.inputs.iter().zip(inputs) {
                let width = plan.width(*buffer);
                assert_eq!(input.len(), rows * width);
                buffers[buffer.0].copy_from_slice(&input[row * width..(row + 1) * width]);
            }
            for command in &plan.commands {
                match command {
                    Command::Linear(linear) => run_linear(linear, &mut buffers),
                    Command::Pool(pool) => run_pool(pool, &mut buffers),
                    Command::Move(step) => run_move(step, &mut buffers),
                }
            }
            let width = plan.width(plan.output);
            output[row * width..(row + 1) * width].copy_from_slice(&buffers[plan.output.0]);
        }
        Ok(())
    }
}

fn read(view: View, buffers: &[Vec<f32>]) -> Vec<f32> {
    let values = buffers[view.buffer.0][view.offset..view.offset + view.width].to_vec();
    assert!(values.iter().all(|value| !value.is_nan()), "read before written: {view:?}");
    values
}

fn write(view: View, buffers: &mut [Vec<f32>], values: &[f32]) {
    buffers[view.buffer.0][view.offset..view.offset + view.width].copy_from_slice(values);
}

fn run_linear(linear: &Linear, buffers: &mut [Vec<f32>]) {
    let weights = &linear.weights;
    let src = read(linear.src, buffers);
    let start = match linear.init {
        Init::Bias => vec![0.0; weights.out_width],
        Init::Accumulate => read(linear.dst, buffers),
    };
    let mask = linear.mask.map(|mask| read(mask, buffers));
    let values: Vec<f32> = (0..weights.out_width)
        .map(|output| {
            let row = &weights.matrix[output * weights.in_width..(output + 1) * weights.in_width];
            let sum =
                row.iter().zip(&src).fold(start[output] + weights.bias[output], |sum, (w, x)| sum + w * x);
            activate(linear.activation, sum) * mask.as_ref().map_or(1.0, |mask| mask[output])
        })
        .collect();
    write(linear.dst, buffers, &values);
}

fn run_pool(pool: &Pool, buffers: &mut [Vec<f32>]) {
    let src = read(pool.src, buffers);
    let mut values = Vec::new();
    for group in src.chunks(pool.kernel * pool.columns) {
        for column in 0..pool.columns {
            let members = group.iter().copied().skip(column).step_by(pool.columns);
            values.push(match pool.mode {
                PoolMode::Max => members.fold(f32::NEG_INFINITY, f32::max),
                PoolMode::Mean => members.sum::<f32>() / (group.len() / pool.columns) as f32,
            });
        }
    }
    write(pool.dst, buffers, &values);
}

fn run_move(step: &Move, buffers: &mut [Vec<f32>]) {
    let src = read(step.src, buffers);
    let at = |j: usize| (step.start as i64 + j as i64 * i64::from(step.step)) as usize;
    let values: Vec<f32> = (0..step.dst.width).map(|j| src[at(j)]).collect();
    write(step.dst, buffers, &values);
}

fn activate(activation: Activation, x: f32) -> f32 {
    match activation {
        Activation::Identity => x,
        Activation::Relu => x.max(0.0),
        Activation::Softplus if x > 20.0 => x,
        Activation::Softplus => x.exp().ln_1p(),
        Activation::Tanh => x.tanh(),
        Activation::Selu if x > 0.0 => 1.050_701 * x,
        Activation::Selu => 1.050_701 * 1.673_263_2 * x.exp_m1(),
        Activation::Leaky(slope) if x <= 0.0 => slope * x,
        Activation::Leaky(_) => x,
        Activation::Sigmoid => 1.0 / (1.0 + (-x).exp()),
    }
}
