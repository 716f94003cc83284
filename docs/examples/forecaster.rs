//! A network of one's own as a plan: recorded once, run by the CPU and by a GPU, held to plain arithmetic in f64.

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use peregrine_shaders::cpu::CpuExecutor;
use peregrine_shaders::gpu::{AdapterChoice, GpuExecutor, GpuOptions, adapters};
use peregrine_shaders::{Activation, Affine, Executor, Linear, Move, Plan, PlanBuilder, Weights};

const WINDOW: usize = 48;
const HIDDEN: usize = 64;
const HORIZON: usize = 12;
/// Of what moves in (-1, 1): sums of 64 terms in f32.
const TOLERANCE: f64 = 1e-5;

/// What training would give: small, and different everywhere.
fn layer(out_width: usize, in_width: usize, seed: f64) -> Arc<Weights> {
    let small = |at: usize| ((at as f64 * 0.618_034 + seed).fract() as f32 - 0.5) / in_width as f32;
    let matrix: Vec<f32> = (0..out_width * in_width).map(small).collect();
    Arc::new(Weights::new(out_width, in_width, &matrix, (0..out_width).map(small).collect()))
}

/// `forecast = last value + W2 · gelu(W1 · y + b1) + b2`, for a window that is scaled already.
fn record(first: &Arc<Weights>, second: &Arc<Weights>) -> Plan {
    let mut plan = PlanBuilder::new("residual-mlp");
    let y = plan.input(WINDOW);
    let hidden = plan.buffer(HIDDEN);
    plan.linear(Linear::plain(y, hidden, Arc::clone(first), Activation::Gelu));
    let change = plan.buffer(HORIZON);
    plan.linear(Linear::plain(hidden, change, Arc::clone(second), Activation::Identity));
    let last = plan.buffer(HORIZON);
    plan.move_columns(Move::strided(y, last, WINDOW - 1, 0)); // the last column, HORIZON times
    let forecast = plan.buffer(HORIZON);
    plan.affine(Affine {
        src: change,
        dst: forecast,
        scale: [1.0].into(),
        shift: [0.0].into(),
        activation: Activation::Identity,
        add: Some(last),
    });
    plan.finish(forecast)
}

/// The same in f64 and plain loops: what both executors must come to.
fn oracle(first: &Weights, second: &Weights, y: &[f32]) -> Vec<f64> {
    let dense = |weights: &Weights, x: &[f64]| -> Vec<f64> {
        let matrix = weights.matrix();
        let rows = matrix.chunks_exact(weights.in_width).zip(&weights.bias);
        rows.map(|(row, &bias)| {
            row.iter().zip(x).fold(f64::from(bias), |sum, (&w, x)| sum + f64::from(w) * x)
        })
        .collect()
    };
    let y: Vec<f64> = y.iter().copied().map(f64::from).collect();
    let hidden: Vec<f64> = dense(first, &y).into_iter().map(gelu).collect();
    dense(second, &hidden).into_iter().map(|change| y[WINDOW - 1] + change).collect()
}

/// `x · ½ (1 + erf(x / √2))`, the error function by its series: enough for |x| < 3.
fn gelu(x: f64) -> f64 {
    let z = x / std::f64::consts::SQRT_2;
    let (mut term, mut sum) = (z, z);
    for n in 1..60 {
        term *= -z * z / f64::from(n);
        sum += term / f64::from(2 * n + 1);
    }
    x * 0.5 * (1.0 + std::f64::consts::FRAC_2_SQRT_PI * sum)
}

fn check(
    executor: &mut dyn Executor,
    plan: &Arc<Plan>,
    windows: &[f32],
    want: &[f64],
) -> Result<(), Box<dyn Error>> {
    let mut got = vec![f32::NAN; want.len()]; // a number that is not written cannot look right
    executor.run(plan, windows.len() / WINDOW, &[windows], &mut got)?;
    let worst = got.iter().zip(want).map(|(&got, want)| (f64::from(got) - want).abs()).fold(0.0, f64::max);
    println!("{}: worst error {worst:.1e} on {}", executor.backend().name(), executor.device());
    // Not `>`: what is no number is wrong too.
    if worst <= TOLERANCE && got.iter().all(|value| value.is_finite()) {
        Ok(())
    } else {
        Err("it is wrong".into())
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let (first, second) = (layer(HIDDEN, WINDOW, 0.1), layer(HORIZON, HIDDEN, 0.7));
    let plan = Arc::new(record(&first, &second));
    println!("{} multiply-adds a row, {} bytes of weights", plan.row_macs(), plan.weight_bytes());

    let windows: Vec<f32> = (0..100 * WINDOW).map(|at| (at as f32 * 0.37).sin()).collect();
    let want: Vec<f64> =
        windows.chunks_exact(WINDOW).flat_map(|window| oracle(&first, &second, window)).collect();
    check(&mut CpuExecutor::new(1), &plan, &windows, &want)?;
    if adapters().is_empty() {
        println!("gpu: this machine shows no Vulkan adapter");
        return Ok(());
    }
    let options =
        GpuOptions { adapter: AdapterChoice::Any, timeout: Duration::from_secs(20), ..GpuOptions::default() };
    check(&mut GpuExecutor::open(&options)?, &plan, &windows, &want)
}
