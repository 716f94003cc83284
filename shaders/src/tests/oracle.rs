//! Interprets a whole plan in f64 with the plainest loops there are: what every executor is compared with.

use crate::{
    Activation, Affine, Attention, Cell, Command, Init, LayerNorm, Linear, Move, Plan, Pool, PoolMode,
    Recurrent, View, Weights,
};

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
                Command::Affine(affine) => memory.affine(row, affine),
                Command::LayerNorm(norm) => memory.layer_norm(row, norm),
                Command::Attention(attention) => memory.attention(row, attention),
                Command::Recurrent(layer) => memory.recurrent(row, layer),
            }
        }
    }
    memory.buffers.swap_remove(plan.output.0)
}

/// `f(x)` as `plan/command.rs` defines it.
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
        Activation::Gelu => x * 0.5 * statrs::function::erf::erfc(-x / std::f64::consts::SQRT_2),
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
        let Linear { src, dst, weights, repeat, .. } = linear;
        let matrix = weights.matrix();
        for place in 0..repeat.count {
            let (from, to) = (place * repeat.src_step, place * repeat.dst_step);
            for o in 0..weights.out_width {
                let mut sum = f64::from(weights.bias[o]);
                if linear.init == Init::Accumulate {
                    sum += self.get(row, *dst, to + o);
                }
                for i in 0..weights.in_width {
                    let weight = f64::from(matrix[o * weights.in_width + i]);
                    sum += self.get(row, *src, from + i) * weight;
                }
                let factor = linear.mask.map_or(1.0, |mask| self.get(row, mask, o));
                self.set(row, *dst, to + o, activate(linear.activation, sum) * factor);
            }
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
        for i in 0..step.counts[0] {
            for j in 0..step.counts[1] {
                let from = step.start as i64
                    + i as i64 * i64::from(step.src_steps[0])
                    + j as i64 * i64::from(step.src_steps[1]);
                let value = self.get(row, step.src, usize::try_from(from).unwrap());
                self.set(row, step.dst, i * step.dst_steps[0] + j * step.dst_steps[1], value);
            }
        }
    }

    fn affine(&mut self, row: usize, affine: &Affine) {
        let period = affine.scale.len();
        for j in 0..affine.dst.width {
            let (scale, shift) = (f64::from(affine.scale[j % period]), f64::from(affine.shift[j % period]));
            let value = activate(affine.activation, self.get(row, affine.src, j) * scale + shift);
            let add = affine.add.map_or(0.0, |add| self.get(row, add, j));
            self.set(row, affine.dst, j, value + add);
        }
    }

    fn layer_norm(&mut self, row: usize, norm: &LayerNorm) {
        let group = norm.scale.len();
        for first in (0..norm.src.width).step_by(group) {
            let x: Vec<f64> = (first..first + group).map(|j| self.get(row, norm.src, j)).collect();
            let mean = x.iter().sum::<f64>() / group as f64;
            let variance = x.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / group as f64;
            for (c, x) in x.into_iter().enumerate() {
                let unit = (x - mean) / (variance + f64::from(norm.epsilon)).sqrt();
                let value = unit * f64::from(norm.scale[c]) + f64::from(norm.shift[c]);
                self.set(row, norm.dst, first + c, value);
            }
        }
    }

    fn attention(&mut self, row: usize, attention: &Attention) {
        let &Attention { qkv, previous, scores, dst, heads, steps } = attention;
        let model = dst.width / steps;
        let width = model / heads;
        let at = |part: usize, step: usize, head: usize, c: usize| {
            step * 3 * model + part * model + head * width + c
        };
        for head in 0..heads {
            for query in 0..steps {
                let row_of_scores = (head * steps + query) * steps;
                let mut all = Vec::new();
                for key in 0..steps {
                    let dot = |c| {
                        self.get(row, qkv, at(0, query, head, c)) * self.get(row, qkv, at(1, key, head, c))
                    };
                    let before =
                        previous.map_or(0.0, |previous| self.get(row, previous, row_of_scores + key));
                    all.push((0..width).map(dot).sum::<f64>() + before);
                }
                let top = all.iter().copied().fold(f64::NEG_INFINITY, f64::max);
                let total: f64 = all.iter().map(|score| (score - top).exp()).sum();
                for (key, score) in all.iter().enumerate() {
                    self.set(row, scores, row_of_scores + key, *score);
                }
                for c in 0..width {
                    let share = |key: usize| (all[key] - top).exp() / total;
                    let value =
                        (0..steps).map(|key| share(key) * self.get(row, qkv, at(2, key, head, c))).sum();
                    self.set(row, dst, query * model + head * width + c, value);
                }
            }
        }
    }

    fn recurrent(&mut self, row: usize, layer: &Recurrent) {
        let (units, out) = (layer.units(), layer.out_width());
        let width = layer.recurrent.out_width;
        let state_width = layer.state.width;
        let mut state: Vec<f64> = match layer.resumes {
            true => (0..state_width).map(|j| self.get(row, layer.state, j)).collect(),
            false => vec![0.0; state_width],
        };
        let sigmoid = |x| activate(Activation::Sigmoid, x);
        for step in 0..layer.steps {
            let (h, c) = state.split_at_mut(out);
            let given: Vec<f64> = (0..width).map(|g| self.get(row, layer.gates, step * width + g)).collect();
            let own = apply(&layer.recurrent, h);
            match layer.cell {
                Cell::Lstm => {
                    let gate = |gate: usize, u: usize| given[gate * units + u] + own[gate * units + u];
                    let mut hidden = Vec::new();
                    for (u, c) in c.iter_mut().enumerate() {
                        *c = sigmoid(gate(1, u)) * *c + sigmoid(gate(0, u)) * gate(2, u).tanh();
                        hidden.push(sigmoid(gate(3, u)) * c.tanh());
                    }
                    if let Some(projection) = &layer.projection {
                        hidden = apply(projection, &hidden);
                    }
                    h.copy_from_slice(&hidden);
                }
                Cell::Gru => {
                    for u in 0..units {
                        let r = sigmoid(given[u] + own[u]);
                        let z = sigmoid(given[units + u] + own[units + u]);
                        let n = (given[2 * units + u] + r * own[2 * units + u]).tanh();
                        h[u] = (1.0 - z) * n + z * h[u];
                    }
                }
            }
            for (u, h) in h.iter().enumerate() {
                self.set(row, layer.dst, step * out + u, *h);
            }
        }
        for (j, value) in state.into_iter().enumerate() {
            self.set(row, layer.state, j, value);
        }
    }
}

fn apply(weights: &Weights, x: &[f64]) -> Vec<f64> {
    let matrix = weights.matrix();
    let product = |row: &[f32]| row.iter().zip(x).map(|(weight, x)| f64::from(*weight) * x).sum::<f64>();
    let rows = matrix.chunks_exact(weights.in_width).map(product);
    weights.bias.iter().zip(rows).map(|(bias, product)| f64::from(*bias) + product).collect()
}
