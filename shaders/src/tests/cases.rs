//! Plans with inputs, made from a seed: the same numbers on every machine.

use std::sync::Arc;

use crate::{Activation, Init, Linear, Move, Plan, PlanBuilder, Pool, PoolMode, Precision, Repeat, Weights};

/// A plan and what is fed to it.
#[derive(Debug)]
pub(crate) struct Case {
    pub(crate) name: String,
    pub(crate) plan: Arc<Plan>,
    pub(crate) rows: usize,
    pub(crate) inputs: Vec<Vec<f32>>,
}

/// One fully connected layer: `k` inputs, `n` outputs.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LinearShape {
    pub(crate) k: usize,
    pub(crate) n: usize,
    pub(crate) init: Init,
    pub(crate) activation: Activation,
    pub(crate) masked: bool,
}

impl Case {
    /// Inputs uniform in ±1.
    pub(crate) fn of(plan: Plan, rows: usize) -> Self {
        let mut noise = Noise(rows as u64 + 77);
        let inputs =
            plan.inputs.iter().map(|buffer| noise.uniform(rows * plan.width(*buffer), 1.0)).collect();
        Self { name: format!("{} × {rows} rows", plan.name), plan: Arc::new(plan), rows, inputs }
    }

    pub(crate) fn input_slices(&self) -> Vec<&[f32]> {
        self.inputs.iter().map(Vec::as_slice).collect()
    }

    /// The same with matrices of halves.
    pub(crate) fn halved(&self) -> Self {
        self.rounded(Precision::F16)
    }

    /// The same with matrices that are kept so.
    pub(crate) fn rounded(&self, precision: Precision) -> Self {
        let plan = Arc::new(self.plan.rounded(precision).expect("weights of cases are small"));
        let name = format!("{}, {}", self.name, precision.name());
        Self { name, plan, rows: self.rows, inputs: self.inputs.clone() }
    }

    /// The same plan over rows `first .. first + rows` of this case.
    pub(crate) fn some_rows(&self, first: usize, rows: usize) -> Self {
        let widths = self.plan.inputs.iter().map(|buffer| self.plan.width(*buffer));
        let inputs =
            self.inputs.iter().zip(widths).map(|(all, w)| all[first * w..(first + rows) * w].to_vec());
        let name = format!("{} from row {first}, {rows} rows", self.name);
        Self { name, plan: Arc::clone(&self.plan), rows, inputs: inputs.collect() }
    }

    /// Source, destination and mask are ranges inside wider buffers; the cells around the destination must survive.
    pub(crate) fn linear(shape: LinearShape, rows: usize) -> Self {
        let LinearShape { k, n, init, activation, masked } = shape;
        let mut plan = PlanBuilder::new(&format!("linear {k}→{n} {init:?} {activation:?} masked {masked}"));
        let src = plan.input(k + 3);
        let before = plan.input(n + 5);
        let mask = plan.input(n + 2);
        let dst = plan.buffer(n + 5);
        plan.move_columns(Move::copy(before, dst));
        plan.linear(Linear {
            src: src.slice(2, k),
            dst: dst.slice(3, n),
            weights: weights(k as u64 * 1009 + n as u64, k, n),
            init,
            activation,
            mask: masked.then(|| mask.slice(1, n)),
            repeat: Repeat::ONCE,
        });
        Self::of(plan.finish(dst), rows)
    }

    /// One linear layer alone, whose buffers end where it does, its outputs read by nobody.
    pub(crate) fn alone(shape: LinearShape, rows: usize) -> Self {
        let LinearShape { k, n, init, activation, masked } = shape;
        let mut plan = PlanBuilder::new(&format!("alone {k}→{n} {init:?} {activation:?} masked {masked}"));
        let (src, before, mask) = (plan.input(k), plan.input(n), plan.input(n));
        let dst = plan.buffer(n);
        if init == Init::Accumulate {
            plan.move_columns(Move::copy(before, dst));
        }
        let weights = weights(k as u64 * 1009 + n as u64, k, n);
        let mask = masked.then_some(mask);
        plan.linear(Linear { init, mask, ..Linear::plain(src, dst, weights, activation) });
        Self::of(plan.finish(dst), rows)
    }

    /// One layer at each of `count` steps of whole buffers, `[count, k]` to `[count, n]`, but for the first `skipped` of what is
    /// written and the last ones of what is read, as a causal convolution has it.
    pub(crate) fn steps(shape: LinearShape, count: usize, skipped: usize, rows: usize) -> Self {
        let LinearShape { k, n, init, activation, .. } = shape;
        let mut plan = PlanBuilder::new(&format!(
            "linear {k}→{n} {init:?} {activation:?} at {count} steps but {skipped}"
        ));
        let (src, before) = (plan.input(count * k), plan.input(count * n));
        let dst = plan.buffer(count * n);
        if init == Init::Accumulate || skipped > 0 {
            plan.move_columns(Move::copy(before, dst));
        }
        let there = count - skipped;
        plan.linear(Linear {
            init,
            repeat: Repeat { count: there, src_step: k, dst_step: n },
            ..Linear::plain(
                src.slice(0, there * k),
                dst.slice(skipped * n, there * n),
                weights(k as u64 * 1013 + n as u64, k, n),
                activation,
            )
        });
        Self::of(plan.finish(dst), rows)
    }

    /// Pools a range of a wider buffer into a range of a wider buffer.
    pub(crate) fn pool(steps: usize, columns: usize, kernel: usize, mode: PoolMode, rows: usize) -> Self {
        let mut plan = PlanBuilder::new(&format!("pool {steps}×{columns} by {kernel} {mode:?}"));
        let src = plan.input(steps * columns + 4);
        let pooled = steps.div_ceil(kernel) * columns;
        let before = plan.input(pooled + 3);
        let dst = plan.buffer(pooled + 3);
        plan.move_columns(Move::copy(before, dst));
        let (src, into) = (src.slice(1, steps * columns), dst.slice(2, pooled));
        plan.pool(Pool { src, dst: into, columns, kernel, mode });
        Self::of(plan.finish(dst), rows)
    }

    /// Moves `count` columns out of a range `width` wide.
    pub(crate) fn moved(width: usize, count: usize, start: usize, step: i32, rows: usize) -> Self {
        let mut plan = PlanBuilder::new(&format!("move {count} of {width} from {start} by {step}"));
        let src = plan.input(width + 2);
        let before = plan.input(count + 3);
        let dst = plan.buffer(count + 3);
        plan.move_columns(Move::copy(before, dst));
        plan.move_columns(Move::strided(src.slice(1, width), dst.slice(2, count), start, step));
        Self::of(plan.finish(dst), rows)
    }

    /// The shape of a trained NHITS 168 → 24 with five quantiles: three pooled stacks of 2 × 256.
    pub(crate) fn nhits(rows: usize) -> Self {
        let (window, hidden, theta_f, outputs) = (168, 256, 256, 120);
        let mut plan = PlanBuilder::new("nhits 168→24");
        let y = plan.input(window);
        let mask = plan.input(window);
        let residual = plan.buffer(window);
        let reversed_mask = plan.buffer(window);
        let forecast = plan.buffer(outputs);
        let thetas = plan.buffer(3 * theta_f);
        let reverse = |src, dst| Move::strided(src, dst, window - 1, -1);
        plan.move_columns(reverse(y, residual));
        plan.move_columns(reverse(mask, reversed_mask));
        plan.move_columns(Move::strided(y, forecast, window - 1, 0));
        for (stack, kernel) in [2, 2, 1].into_iter().enumerate() {
            let pooled = plan.buffer(window / kernel);
            let middle = plan.buffer(hidden);
            let theta = thetas.slice(stack * theta_f, theta_f);
            plan.pool(Pool { src: residual, dst: pooled, columns: 1, kernel, mode: PoolMode::Max });
            let seed = 10 * stack as u64;
            plan.linear(Linear {
                src: pooled,
                dst: middle,
                weights: weights(seed + 1, pooled.width, hidden),
                init: Init::Bias,
                activation: Activation::Relu,
                mask: None,
                repeat: Repeat::ONCE,
            });
            plan.linear(Linear {
                src: middle,
                dst: theta,
                weights: weights(seed + 2, hidden, theta_f),
                init: Init::Bias,
                activation: Activation::Relu,
                mask: None,
                repeat: Repeat::ONCE,
            });
            plan.linear(Linear {
                src: theta,
                dst: residual,
                weights: weights(seed + 3, theta_f, window),
                init: Init::Accumulate,
                activation: Activation::Identity,
                mask: Some(reversed_mask),
                repeat: Repeat::ONCE,
            });
        }
        plan.linear(Linear {
            src: thetas,
            dst: forecast,
            weights: weights(99, 3 * theta_f, outputs),
            init: Init::Accumulate,
            activation: Activation::Identity,
            mask: None,
            repeat: Repeat::ONCE,
        });
        Self::of(plan.finish(forecast), rows)
    }

    /// Residual stacks of complete data: pooled by `kernels`, the backcast off the residual, all forecasts by one last
    /// layer. With `terms` a backcast and a forecast come from so few numbers, by a basis.
    pub(crate) fn complete_stacks(
        kernels: &[usize],
        [window, hidden, outputs]: [usize; 3],
        terms: Option<usize>,
        rows: usize,
    ) -> Self {
        let mut plan = PlanBuilder::new(&format!("stacks {kernels:?} {window}→{outputs} {terms:?}"));
        let statics = 2;
        let features = plan.input(window + statics);
        let residual = plan.buffer(window + statics);
        let joined = plan.buffer(kernels.len() * terms.unwrap_or(hidden));
        let (middle, top) = (plan.buffer(hidden), plan.buffer(hidden));
        plan.move_columns(Move::copy(features, residual));
        for (stack, &kernel) in kernels.iter().enumerate() {
            let seed = 10 * stack as u64;
            let mut src = if stack == 0 { features } else { residual };
            if kernel > 1 {
                let dst = plan.buffer(window.div_ceil(kernel));
                let y = src.slice(0, window);
                plan.pool(Pool { src: y, dst, columns: 1, kernel, mode: PoolMode::Max });
                src = dst;
            }
            let width = joined.width / kernels.len();
            let slice = joined.slice(stack * width, width);
            plan.linear(Linear::plain(src, middle, weights(seed + 1, src.width, hidden), Activation::Relu));
            let into = if terms.is_some() { top } else { slice };
            plan.linear(Linear::plain(middle, into, weights(seed + 2, hidden, hidden), Activation::Relu));
            let mut explains = into;
            if let Some(terms) = terms {
                plan.linear(Linear::plain(
                    into,
                    slice,
                    weights(seed + 4, hidden, width),
                    Activation::Identity,
                ));
                explains = plan.buffer(terms);
                plan.linear(Linear::plain(
                    into,
                    explains,
                    weights(seed + 5, hidden, terms),
                    Activation::Identity,
                ));
            }
            if stack + 1 < kernels.len() {
                plan.linear(Linear {
                    init: Init::Accumulate,
                    ..Linear::plain(
                        explains,
                        residual.slice(0, window),
                        weights(seed + 3, explains.width, window),
                        Activation::Identity,
                    )
                });
            }
        }
        let output = plan.buffer(outputs);
        let last = weights(9, joined.width, outputs);
        plan.linear(Linear::plain(joined, output, last, Activation::Identity));
        Self::of(plan.finish(output), rows)
    }

    /// Residual stacks as forecasters record them: pooled, a masked backcast, all forecasts by one last layer.
    pub(crate) fn stacks(rows: usize) -> Self {
        let (window, hidden, outputs) = (70, 72, 21);
        let mut plan = PlanBuilder::new("stacks 70→21");
        let features = plan.input(window + 3);
        let mask = plan.input(window);
        let joined = plan.buffer(4 * hidden);
        let residual = plan.buffer(window + 3);
        let middle = plan.buffer(hidden);
        plan.move_columns(Move::copy(features, residual));
        for (stack, kernel, mode) in [(0, 3, PoolMode::Max), (1, 2, PoolMode::Mean), (2, 1, PoolMode::Max)] {
            let mut src = if stack == 0 { features } else { residual };
            if kernel > 1 {
                let pooled = window.div_ceil(kernel);
                let dst = plan.buffer(pooled + 3);
                let (y, statics) = (src.slice(0, window), src.slice(window, 3));
                plan.pool(Pool { src: y, dst: dst.slice(0, pooled), columns: 1, kernel, mode });
                plan.move_columns(Move::strided(statics, dst.slice(pooled, 3), 2, -1));
                src = dst;
            }
            let seed = 10 * stack as u64;
            let hidden_out = joined.slice(stack * hidden, hidden);
            let first = weights(seed + 1, src.width, hidden);
            plan.linear(Linear::plain(src, middle, first, Activation::Relu));
            let second = weights(seed + 2, hidden, hidden);
            plan.linear(Linear::plain(middle, hidden_out, second, Activation::Tanh));
            plan.linear(Linear {
                init: Init::Accumulate,
                mask: Some(mask),
                ..Linear::plain(
                    hidden_out,
                    residual.slice(0, window),
                    weights(seed + 3, hidden, window),
                    Activation::Leaky(0.01),
                )
            });
        }
        plan.move_columns(Move::strided(middle, joined.slice(3 * hidden, hidden), hidden - 1, -1));
        let output = plan.buffer(outputs);
        plan.linear(Linear::plain(joined, output, weights(9, 4 * hidden, outputs), Activation::Softplus));
        Self::of(plan.finish(output), rows)
    }
}

/// Matrix uniform in ±√(3 / k), so that sums stay near the size of the inputs; bias in ±0.5.
pub(crate) fn weights(seed: u64, k: usize, n: usize) -> Arc<Weights> {
    let mut noise = Noise(seed);
    let matrix = noise.uniform(k * n, (3.0 / k as f32).sqrt());
    Arc::new(Weights::new(n, k, &matrix, noise.uniform(n, 0.5)))
}

/// SplitMix64.
pub(crate) struct Noise(pub(crate) u64);

impl Noise {
    /// `count` numbers in `±size`.
    pub(crate) fn uniform(&mut self, count: usize, size: f32) -> Vec<f32> {
        (0..count).map(|_| (self.next() >> 40) as f32 / (1u64 << 23) as f32 * size - size).collect()
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }
}
