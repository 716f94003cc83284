//! The arithmetic as it is written down, in f64, step by step: nothing folded, nothing reordered, nothing shared
//! with the code it judges.

use super::{Model, oracle_mixers, oracle_sequence};
use crate::Windows;

/// `[rows, h, C]`, or `[rows, h, N, C]` of several series
pub(super) fn forecast(model: &Model, windows: &Windows) -> Vec<f64> {
    (0..windows.rows).flat_map(|row| forecast_row(model, windows, row)).collect()
}

pub(super) struct Input {
    pub(super) y: Vec<f64>,
    mask: Vec<f64>,
    pub(super) hist: Vec<Vec<f64>>,
    pub(super) futr: Vec<Vec<f64>>,
    pub(super) stat: Vec<f64>,
}

fn forecast_row(model: &Model, windows: &Windows, row: usize) -> Vec<f64> {
    if model.class == "TSMixer" {
        return oracle_mixers::tsmixer(model, windows, row);
    }
    let (l, span) = (model.window, model.window + model.h);
    let wide = |values: &[f32], from: usize, len: usize| -> Vec<f64> {
        values[from..from + len].iter().map(|&value| f64::from(value)).collect()
    };
    let y = wide(&windows.y, row * l, l);
    let mask = wide(windows.mask.as_ref().unwrap(), row * l, l);
    let (a, s) = statistics(model.scaler, &y, &mask);
    let column = |values: &[f32], columns: usize, steps: usize, c: usize| -> Vec<f64> {
        let series: Vec<f64> =
            (0..steps).map(|t| f64::from(values[(row * steps + t) * columns + c])).collect();
        let (a, s) = statistics(model.scaler, &series[..l], &mask);
        series.iter().map(|&value| scaled(model.scaler, value, a, s)).collect()
    };
    let input = Input {
        y: y.iter().map(|&value| scaled(model.scaler, value, a, s)).collect(),
        hist: (0..model.hist).map(|c| column(&windows.hist_exog, model.hist, l, c)).collect(),
        futr: (0..model.futr).map(|c| column(&windows.futr_exog, model.futr, span, c)).collect(),
        stat: wide(&windows.stat_exog, row * model.stat, model.stat),
        mask,
    };
    let raw = match model.class {
        "NHITS" => nhits(model, &input),
        "NBEATS" => nbeats(model, &input),
        "MLP" => mlp(model, &input),
        "DLinear" => dlinear(model, &input),
        "NLinear" => nlinear(model, &input),
        "LSTM" | "GRU" | "DeepAR" => oracle_sequence::rnn(model, &input),
        "TCN" => oracle_sequence::tcn(model, &input),
        "TiDE" => oracle_mixers::tide(model, &input),
        "PatchTST" => oracle_mixers::patchtst(model, &input),
        other => panic!("no oracle for {other}"),
    };
    let (a, s) = outward(model, (a, s));
    let answer = |step: &[f64]| match model.loss {
        "StudentT" => {
            let loc = step[1] * s + a;
            vec![loc, 3.0 + softplus(step[0]), loc, (softplus(step[2]) + 0.1) * s]
        }
        "Normal" => {
            let loc = step[0] * s + a;
            vec![loc, loc, (softplus(step[1]) + 0.2) * s]
        }
        _ => step.iter().map(|&z| unscaled(model.scaler, z, a, s)).collect(),
    };
    raw.chunks_exact(model.outputs()).flat_map(answer).collect()
}

/// Shift and scale of the way out.
pub(super) fn outward(model: &Model, (a, s): (f64, f64)) -> (f64, f64) {
    if model.scaler != "revin" {
        return (a, s);
    }
    let one = |name: &str| f64::from(model.tensors[name].1[0]);
    (a + one("scaler.revin_bias"), s * (one("scaler.revin_weight").max(0.0) + 1e-6))
}

pub(super) fn statistics(scaler: &str, x: &[f64], mask: &[f64]) -> (f64, f64) {
    let seen: Vec<f64> = x.iter().zip(mask).filter(|&(_, &m)| m == 1.0).map(|(&x, _)| x).collect();
    if scaler == "identity" {
        return (0.0, 1.0);
    }
    if seen.is_empty() {
        return (0.0, 1.0 + 1e-6);
    }
    let n = seen.len() as f64;
    let mean = seen.iter().sum::<f64>() / n;
    let deviation = (seen.iter().map(|x| (x - mean) * (x - mean)).sum::<f64>() / n).sqrt();
    let median = |mut values: Vec<f64>| {
        values.sort_by(f64::total_cmp);
        values[(values.len() - 1) / 2]
    };
    let low = seen.iter().copied().fold(f64::INFINITY, f64::min);
    let high = seen.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let (a, s) = match scaler {
        "standard" | "revin" => (mean, deviation),
        "robust" | "invariant" => {
            let med = median(seen.clone());
            let mad = median(seen.iter().map(|x| (x - med).abs()).collect());
            (med, if mad == 0.0 { 0.6744897501960817 * deviation } else { mad })
        }
        _ => (low, high - low),
    };
    (a, if s == 0.0 { 1.0 } else { s } + 1e-6)
}

pub(super) fn scaled(scaler: &str, x: f64, a: f64, s: f64) -> f64 {
    match scaler {
        "minmax1" => 2.0 * (x - a) / s - 1.0,
        "invariant" => ((x - a) / s).asinh(),
        _ => (x - a) / s,
    }
}

pub(super) fn unscaled(scaler: &str, z: f64, a: f64, s: f64) -> f64 {
    match scaler {
        "minmax1" => (z + 1.0) / 2.0 * s + a,
        "invariant" => z.sinh() * s + a,
        _ => z * s + a,
    }
}

pub(super) fn linear(model: &Model, name: &str, x: &[f64]) -> Vec<f64> {
    let (shape, w) = &model.tensors[&format!("{name}.weight")];
    let (_, b) = &model.tensors[&format!("{name}.bias")];
    assert_eq!(shape[1], x.len(), "{name}");
    (0..shape[0])
        .map(|o| f64::from(b[o]) + (0..x.len()).map(|i| f64::from(w[o * x.len() + i]) * x[i]).sum::<f64>())
        .collect()
}

fn softplus(x: f64) -> f64 {
    if x > 20.0 { x } else { (1.0 + x.exp()).ln() }
}

/// `slope` is that of PReLU.
pub(super) fn activated(activation: &str, v: f64, slope: f64) -> f64 {
    match activation {
        "ReLU" => v.max(0.0),
        "Softplus" => softplus(v),
        "Tanh" => v.tanh(),
        "SELU" if v > 0.0 => 1.0507009873554805 * v,
        "SELU" => 1.0507009873554805 * 1.6732632423543772 * (v.exp() - 1.0),
        "LeakyReLU" if v <= 0.0 => 0.01 * v,
        "PReLU" if v <= 0.0 => slope * v,
        "LeakyReLU" | "PReLU" => v,
        "Sigmoid" => 1.0 / (1.0 + (-v).exp()),
        other => panic!("{other}"),
    }
}

fn block_mlp(model: &Model, block: usize, u: &[f64]) -> Vec<f64> {
    let units = model.hparams["mlp_units"].as_array().unwrap().len();
    let step = if model.hparams["dropout_prob_theta"].as_f64().unwrap() > 0.0 { 3 } else { 2 };
    let name = |number: usize| format!("blocks.{block}.layers.{number}");
    let mut x = linear(model, &name(0), u);
    for unit in 0..units {
        x = linear(model, &name(1 + unit * step), &x);
        let slope = || f64::from(model.tensors[&format!("{}.weight", name(2 + unit * step))].1[0]);
        for v in &mut x {
            *v = match model.text("activation") {
                "PReLU" => activated("PReLU", *v, slope()),
                other => activated(other, *v, 0.0),
            };
        }
    }
    linear(model, &name(1 + units * step), &x)
}

fn pool(mode: &str, x: &[f64], k: usize) -> Vec<f64> {
    let group = |g: &[f64]| match mode {
        "MaxPool1d" => g.iter().copied().fold(f64::NEG_INFINITY, f64::max),
        _ => g.iter().sum::<f64>() / g.len() as f64,
    };
    x.chunks(k).map(group).collect()
}

/// Columns, each over time, to one step-major list.
fn flat(columns: &[Vec<f64>]) -> Vec<f64> {
    let steps = columns.first().map_or(0, Vec::len);
    (0..steps).flat_map(|t| columns.iter().map(move |column| column[t])).collect()
}

fn interpolate(mode: &str, kn: &[f64], h: usize, i: usize) -> f64 {
    let k = kn.len();
    let centre = (i as f64 + 0.5) * k as f64 / h as f64 - 0.5;
    match mode {
        "linear" => {
            let s = centre.max(0.0);
            let (j, w) = (s.floor() as usize, s - s.floor());
            (1.0 - w) * kn[j] + w * kn[(j + 1).min(k - 1)]
        }
        "nearest" => {
            let quotient = k as f32 / h as f32;
            kn[((i as f32 * quotient).floor() as usize).min(k - 1)]
        }
        _ => {
            let a = -0.75;
            let c1 = |x: f64| ((a + 2.0) * x - (a + 3.0)) * x * x + 1.0;
            let c2 = |x: f64| ((a * x - 5.0 * a) * x + 8.0 * a) * x - 4.0 * a;
            let (j, t) = (centre.floor() as i64, centre - centre.floor());
            let tap = |j: i64| kn[j.clamp(0, k as i64 - 1) as usize];
            c2(t + 1.0) * tap(j - 1) + c1(t) * tap(j) + c1(1.0 - t) * tap(j + 1) + c2(2.0 - t) * tap(j + 2)
        }
    }
}

fn nhits(model: &Model, input: &Input) -> Vec<f64> {
    let (l, h, outputs) = (model.window, model.h, model.outputs());
    let mut r: Vec<f64> = input.y.iter().rev().copied().collect();
    let mr: Vec<f64> = input.mask.iter().rev().copied().collect();
    let mut fc = vec![input.y[l - 1]; h * outputs];
    let mut block = 0;
    for (stack, count) in model.sizes("n_blocks").into_iter().enumerate() {
        let k = model.sizes("n_pool_kernel_size")[stack];
        let knots = (h / model.sizes("n_freq_downsample")[stack]).max(1);
        for _ in 0..count {
            let mode = model.text("pooling_mode");
            let pooled =
                |columns: &[Vec<f64>]| flat(&columns.iter().map(|c| pool(mode, c, k)).collect::<Vec<_>>());
            let mut u = pool(mode, &r, k);
            u.extend(pooled(&input.hist));
            u.extend(pooled(&input.futr));
            u.extend(&input.stat);
            let theta = block_mlp(model, block, &u);
            for t in 0..l {
                r[t] = (r[t] - theta[t]) * mr[t];
            }
            for q in 0..outputs {
                let kn = &theta[l + q * knots..l + (q + 1) * knots];
                for t in 0..h {
                    fc[t * outputs + q] += interpolate(model.text("interpolation_mode"), kn, h, t);
                }
            }
            block += 1;
        }
    }
    fc
}

fn nbeats(model: &Model, input: &Input) -> Vec<f64> {
    let (l, h, outputs) = (model.window, model.h, model.outputs());
    let types: Vec<String> = serde_json::from_value(model.hparams["stack_types"].clone()).unwrap();
    let mut r: Vec<f64> = input.y.iter().rev().copied().collect();
    let mr: Vec<f64> = input.mask.iter().rev().copied().collect();
    let mut fc = vec![input.y[l - 1]; h * outputs];
    let mut block = 0;
    for (stack, count) in model.sizes("n_blocks").into_iter().enumerate() {
        for _ in 0..count {
            let theta = block_mlp(model, block, &r);
            let basis = |side: &str| &model.tensors[&format!("blocks.{block}.basis.{side}_basis")];
            for t in 0..l {
                let back = if types[stack] == "identity" {
                    theta[t]
                } else {
                    let (shape, b) = basis("backcast");
                    (0..shape[0]).map(|p| theta[p] * f64::from(b[p * l + t])).sum()
                };
                r[t] = (r[t] - back) * mr[t];
            }
            for t in 0..h {
                for q in 0..outputs {
                    fc[t * outputs + q] += if types[stack] == "identity" {
                        theta[l + t * outputs + q]
                    } else {
                        let (shape, b) = basis("forecast");
                        let terms = shape[0];
                        (0..terms).map(|p| theta[terms + p * outputs + q] * f64::from(b[p * h + t])).sum()
                    };
                }
            }
            block += 1;
        }
    }
    fc
}

fn mlp(model: &Model, input: &Input) -> Vec<f64> {
    let mut x = input.y.clone();
    x.extend(flat(&input.hist));
    x.extend(flat(&input.futr));
    x.extend(&input.stat);
    for number in 0..model.hparams["num_layers"].as_u64().unwrap() {
        x = linear(model, &format!("mlp.{number}"), &x).into_iter().map(|v| v.max(0.0)).collect();
    }
    linear(model, "out", &x)
}

fn dlinear(model: &Model, input: &Input) -> Vec<f64> {
    let (y, l) = (&input.y, model.window);
    let k = model.hparams["moving_avg_window"].as_u64().unwrap() as usize;
    let mut padded = vec![y[0]; (k - 1) / 2];
    padded.extend(y);
    padded.extend(vec![y[l - 1]; (k - 1) / 2]);
    let trend: Vec<f64> = (0..l).map(|t| padded[t..t + k].iter().sum::<f64>() / k as f64).collect();
    let season: Vec<f64> = y.iter().zip(&trend).map(|(y, trend)| y - trend).collect();
    let seasonal = linear(model, "linear_season", &season);
    linear(model, "linear_trend", &trend).into_iter().zip(seasonal).map(|(a, b)| a + b).collect()
}

fn nlinear(model: &Model, input: &Input) -> Vec<f64> {
    let last = input.y[model.window - 1];
    let differences: Vec<f64> = input.y.iter().map(|y| y - last).collect();
    linear(model, "linear", &differences).into_iter().map(|out| out + last).collect()
}
