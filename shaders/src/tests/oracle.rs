//! Interprets a whole plan in f64 with the plainest loops there are: what every executor is compared with.

use crate::{Activation, Command, Init, Linear, Move, Plan, Pool, PoolMode, View};

/// The output of `plan` over `rows` rows, `[rows, width of plan.output]`. Cells that the plan never wrote are NaN.
pub(crate) fn oracle(plan: &Plan, rows: usize, inputs: &[&[f32]]) -> Vec<f64> {
    let mut buffers: Vec<Vec<f64>> = plan.buffer_widths.iter().map(|w| vec![f64::NAN; rows * w]).collect();
    assert_eq!(inputs.len(), plan.inputs.len(), "count of inputs");
    for (buffer, input) in plan.inputs.iter().zip(inputs) {
        assert_eq!(input.len(), rows * plan.width(*buffer), "length of an input");
        buffers[buffer.0] = input.iter().map(|&v| f64::from(v)).collect();
    }
    let mut memory = Memory { widths: &plan.buffer_widths, buffers };
    for row in 0..rows {
        for command in &plan.commands {
            match command {
                Command::Linear(linear) => memory.linear(row, linear),
                Command::Pool(pool) => memory.pool(row, pool),
                Command::Move(step) => memory.move_columns(row, step),
            }
        }
    }
    memory.buffers.swap_remove(plan.output.0)
}

/// `f(x)` as `plan.rs` defines it.
pub(crate) fn activate(activation: Activation, x: f64) -> f64 {
    match activation {
        Activation::Identity => x,
        Activation::Relu => x.max(0.0),
        Activation::Softplus if x > 20.0 => x,
        Activation::Softplus => x.exp().ln_1p(),
        Activation::Tanh => x.tanh(),
        Activation::Selu if x > 0.0 => 1.050_700_987_355_480_5 * x,
        Activation::Selu => 1.050_700_987_355_480_5 * 1.673_263_242_354_377_2 * x.exp_m1(),
        Activation::Leaky(_) if x > 0.0 => x,
        Activation::Leaky(slope) => f64::from(slope) * x,
        Activation::Sigmoid => 1.0 / (1.0 + (-x).exp()),
    }
}

struct Memory<'p> {
    widths: &'p [usize],
    buffers: Vec<Vec<f64>>,
}

impl Memory<'_> {
    fn get(&self, row: usize, view: View, column: usize) -> f64 {
        assert!(column < view.width, "read outside a view");
        let value = self.buffers[view.buffer.0][row * self.widths[view.buffer.0] + view.offset + column];
        assert!(!value.is_nan(), "read before written: {view:?}");
        value
    }

    fn set(&mut self, row: usize, view: View, column: usize, value: f64) {
        assert!(column < view.width, "write outside a view");
        self.buffers[view.buffer.0][row * self.widths[view.buffer.0] + view.offset + column] = value;
    }

    fn linear(&mut self, row: usize, linear: &Linear) {
        let weights = &linear.weights;
        for o in 0..weights.out_width {
            let mut sum = f64::from(weights.bias[o]);
            if linear.init == Init::Accumulate {
                sum += self.get(row, linear.dst, o);
            }
            for i in 0..weights.in_width {
                sum += self.get(row, linear.src, i) * f64::from(weights.matrix[o * weights.in_width + i]);
            }
            let factor = linear.mask.map_or(1.0, |mask| self.get(row, mask, o));
            self.set(row, linear.dst, o, activate(linear.activation, sum) * factor);
        }
    }

    fn pool(&mut self, row: usize, pool: &Pool) {
        let steps = pool.src.width / pool.columns;
        for window in 0..steps.div_ceil(pool.kernel) {
            for column in 0..pool.columns {
                let cells: Vec<f64> = (window * pool.kernel..steps.min((window + 1) * pool.kernel))
                    .map(|step| self.get(row, pool.src, step * pool.columns + column))
                    .collect();
                let value = match pool.mode {
                    PoolMode::Max => cells.iter().copied().fold(f64::NEG_INFINITY, f64::max),
                    PoolMode::Mean => cells.iter().sum::<f64>() / cells.len() as f64,
                };
                self.set(row, pool.dst, window * pool.columns + column, value);
            }
        }
    }

    fn move_columns(&mut self, row: usize, step: &Move) {
        for j in 0..step.dst.width {
            let from = step.start as i64 + j as i64 * i64::from(step.step);
            let value = self.get(row, step.src, usize::try_from(from).unwrap());
            self.set(row, step.dst, j, value);
        }
    }
}
