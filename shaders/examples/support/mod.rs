//! Plans of random weights that examples measure.

#![allow(unreachable_pub, dead_code, reason = "an example has no outside, and each uses its part")]

pub mod measured;

use std::sync::Arc;

use peregrine_shaders::{
    Activation, Cell, Command, Init, Linear, Move, Plan, PlanBuilder, Pool, PoolMode, SlidingLayer,
    SlidingStack, View, Weights,
};

/// SplitMix64.
pub struct Noise(pub u64);

impl Noise {
    /// `count` numbers from `-size` to `size`.
    pub fn uniform(&mut self, count: usize, size: f32) -> Vec<f32> {
        let mut next = || {
            self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
            let mut z = self.0;
            z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
            ((z ^ (z >> 31)) >> 40) as f32 / (1_u64 << 23) as f32 * size - size
        };
        (0..count).map(|_| next()).collect()
    }

    /// Of a layer that keeps its inputs' size.
    pub fn weights(&mut self, k: usize, n: usize) -> Arc<Weights> {
        let matrix = self.uniform(k * n, (3.0 / k as f32).sqrt());
        Arc::new(Weights::new(n, k, &matrix, self.uniform(n, 0.1)))
    }
}

/// A stacked LSTM with one output: layers, steps, inputs of a step, units.
pub fn lstm([layers, steps, inputs, units]: [usize; 4]) -> SlidingStack {
    let mut noise = Noise(1997);
    let layer = |number: usize| SlidingLayer {
        input: noise.weights(if number == 0 { inputs } else { units }, 4 * units),
        recurrent: noise.weights(units, 4 * units),
    };
    SlidingStack {
        name: format!("lstm {layers} x {units}, {steps} steps of {inputs}"),
        cell: Cell::Lstm,
        steps,
        layers: (0..layers).map(layer).collect(),
        head: Noise(1998).weights(units, 1),
    }
}

/// Three stacks as the forecaster records them for complete data: pooled by 2, 2 and 1, two hidden layers, the backcast
/// off the residual, all forecasts by one last layer into which the interpolation is folded.
pub fn nhits(window: usize, hidden: usize, outputs: usize) -> Plan {
    let mut noise = Noise(4242);
    let mut plan = PlanBuilder::new(&format!("nhits {window}→{outputs}, hidden {hidden}"));
    let features = plan.input(window);
    let residual = plan.buffer(window);
    let joined = plan.buffer(3 * hidden);
    let middle = plan.buffer(hidden);
    plan.move_columns(Move::copy(features, residual));
    let mut pooled: Option<View> = None;
    for (stack, kernel) in [2, 2, 1].into_iter().enumerate() {
        let residual_now = if stack == 0 { features } else { residual };
        let src = if kernel == 1 {
            residual_now
        } else {
            let dst = *pooled.get_or_insert_with(|| plan.buffer(window / 2));
            plan.pool(Pool { src: residual_now, dst, columns: 1, kernel, mode: PoolMode::Max });
            dst
        };
        let hidden_out = joined.slice(stack * hidden, hidden);
        let relu = Activation::Relu;
        plan.linear(Linear::plain(src, middle, noise.weights(src.width, hidden), relu));
        plan.linear(Linear::plain(middle, hidden_out, noise.weights(hidden, hidden), relu));
        if stack < 2 {
            let backcast = noise.weights(hidden, window);
            let init = Init::Accumulate;
            plan.linear(Linear {
                init,
                ..Linear::plain(hidden_out, residual, backcast, Activation::Identity)
            });
        }
    }
    let output = plan.buffer(outputs);
    plan.linear(Linear::plain(joined, output, noise.weights(3 * hidden, outputs), Activation::Identity));
    plan.finish(output)
}

/// What a plan of moves, pools and layers computes for one row, `[width]` in, `[out width]` out, in f64.
///
/// # Panics
/// On any other command.
pub fn reference(plan: &Plan, input: &[f32]) -> Vec<f64> {
    let mut buffers: Vec<Vec<f64>> = plan.buffer_widths.iter().map(|width| vec![0.0; *width]).collect();
    buffers[plan.inputs[0].0] = input.iter().copied().map(f64::from).collect();
    for command in &plan.commands {
        let read = |view: View| buffers[view.buffer.0][view.offset..view.offset + view.width].to_vec();
        let (dst, values) = match command {
            Command::Move(step) => {
                let source = read(step.src);
                assert_eq!((step.start, step.counts[0]), (0, 1), "a plain copy");
                (step.dst, source)
            }
            Command::Pool(pool) => {
                assert_eq!((pool.columns, pool.mode), (1, PoolMode::Max), "the largest of neighbours");
                let largest = |group: &[f64]| group.iter().copied().fold(f64::NEG_INFINITY, f64::max);
                (pool.dst, read(pool.src).chunks(pool.kernel).map(largest).collect())
            }
            Command::Linear(linear) => {
                let (x, before) = (read(linear.src), read(linear.dst));
                let weights = &linear.weights;
                let matrix = weights.matrix();
                let rows = matrix.chunks_exact(weights.in_width).zip(&weights.bias).zip(before);
                let sum = |((row, bias), before): ((&[f32], &f32), f64)| {
                    let sum: f64 = row.iter().zip(&x).map(|(w, x)| f64::from(*w) * x).sum();
                    let init = if linear.init == Init::Accumulate { before } else { 0.0 };
                    let sum = init + f64::from(*bias) + sum;
                    if linear.activation == Activation::Relu { sum.max(0.0) } else { sum }
                };
                (linear.dst, rows.map(sum).collect())
            }
            other => panic!("no reference for {other:?}"),
        };
        buffers[dst.buffer.0][dst.offset..dst.offset + dst.width].copy_from_slice(&values);
    }
    buffers[plan.output.0].clone()
}

/// The same layer `times` over between two narrow ones, so that the difference of two counts is the layer's time.
#[allow(dead_code, reason = "not every example uses every plan")]
pub fn repeated(k: usize, n: usize, times: usize) -> Plan {
    let mut noise = Noise(7);
    let mut plan = PlanBuilder::new(&format!("{k}→{n}, {times} times"));
    let input = plan.input(16);
    let (src, dst, output) = (plan.buffer(k), plan.buffer(n), plan.buffer(16));
    plan.linear(Linear::plain(input, src, noise.weights(16, k), Activation::Identity));
    let layer = noise.weights(k, n);
    for _ in 0..times {
        plan.linear(Linear::plain(src, dst, Arc::clone(&layer), Activation::Relu));
    }
    plan.linear(Linear::plain(dst, output, noise.weights(n, 16), Activation::Identity));
    plan.finish(output)
}
