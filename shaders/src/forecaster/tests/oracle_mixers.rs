//! TiDE, PatchTST and TSMixer as they are written down, for [`super::oracle`]: as literal as the rest of it.
#![allow(clippy::needless_range_loop, reason = "indices as the formulas write them")]

use statrs::function::erf::erfc;

use super::Model;
use super::oracle::{Input, linear, outward, scaled, statistics, unscaled};
use crate::Windows;

fn tensor<'m>(model: &'m Model, name: &str) -> &'m [f32] {
    &model.tensors[name].1
}

fn batch_norm(model: &Model, name: &str, at: usize, x: f64, epsilon: f64) -> f64 {
    let one = |part: &str| f64::from(tensor(model, &format!("{name}.{part}"))[at]);
    (x - one("running_mean")) / (one("running_var") + epsilon).sqrt() * one("weight") + one("bias")
}

fn plus(a: Vec<f64>, b: &[f64]) -> Vec<f64> {
    assert_eq!(a.len(), b.len());
    a.into_iter().zip(b).map(|(a, b)| a + b).collect()
}

fn relu(x: Vec<f64>) -> Vec<f64> {
    x.into_iter().map(|x| x.max(0.0)).collect()
}

fn res_block(model: &Model, name: &str, x: &[f64]) -> Vec<f64> {
    let part = |part: &str, x: &[f64]| linear(model, &format!("{name}.{part}"), x);
    let out = plus(part("lin2", &relu(part("lin1", x))), &part("skip", x));
    if !model.flag("layernorm") {
        return out;
    }
    let n = out.len() as f64;
    let mean = out.iter().sum::<f64>() / n;
    let variance = out.iter().map(|x| (x - mean) * (x - mean)).sum::<f64>() / n;
    let weight = tensor(model, &format!("{name}.norm.weight"));
    let bias = tensor(model, &format!("{name}.norm.bias"));
    let normed = out
        .iter()
        .enumerate()
        .map(|(i, x)| (x - mean) / (variance + 1e-5).sqrt() * f64::from(weight[i]) + f64::from(bias[i]));
    normed.collect()
}

pub(super) fn tide(model: &Model, input: &Input) -> Vec<f64> {
    let (l, h, outputs) = (model.window, model.h, model.outputs());
    let g = linear(model, "global_skip", &input.y);
    let projected = |name: &str, columns: &[Vec<f64>], steps: usize| -> Vec<Vec<f64>> {
        let step = |t: usize| columns.iter().map(|column| column[t]).collect::<Vec<f64>>();
        (0..steps).map(|t| res_block(model, name, &step(t))).collect()
    };
    let mut x = input.y.clone();
    if model.hist > 0 {
        x.extend(projected("hist_exog_projection", &input.hist, l).concat());
    }
    let mut f = Vec::new();
    if model.futr > 0 {
        f = projected("futr_exog_projection", &input.futr, l + h);
        x.extend(f.concat());
    }
    x.extend(&input.stat);
    for i in 0..model.size("num_encoder_layers") {
        x = res_block(model, &format!("dense_encoder.{i}"), &x);
    }
    for i in 0..model.size("num_decoder_layers") {
        x = res_block(model, &format!("dense_decoder.{i}"), &x);
    }
    let width = model.size("decoder_output_dim");
    let step = |t: usize| {
        let mut step = x[t * width..(t + 1) * width].to_vec();
        if model.futr > 0 {
            step.extend(&f[l + t]);
        }
        plus(res_block(model, "temporal_decoder", &step), &g[t * outputs..(t + 1) * outputs])
    };
    (0..h).flat_map(step).collect()
}

pub(super) fn patchtst(model: &Model, input: &Input) -> Vec<f64> {
    let (l, stride) = (model.window, model.size("stride"));
    let (width, heads) = (model.size("hidden_size"), model.size("n_heads"));
    let d = width / heads;
    let p = model.size("patch_len").min(l + stride);
    let mean = input.y.iter().sum::<f64>() / l as f64;
    let variance = input.y.iter().map(|y| (y - mean) * (y - mean)).sum::<f64>() / l as f64;
    let sd = (variance + 1e-5).sqrt();
    let c = if model.flag("revin_subtract_last") { input.y[l - 1] } else { mean };
    let affine = (model.flag("revin") && model.flag("revin_affine")).then(|| {
        ["weight", "bias"]
            .map(|part| f64::from(tensor(model, &format!("model.revin_layer.affine_{part}"))[0]))
    });
    let mut x = input.y.clone();
    if model.flag("revin") {
        for x in &mut x {
            *x = (*x - c) / sd;
            if let Some([weight, bias]) = affine {
                *x = *x * weight + bias;
            }
        }
    }
    x.extend(vec![x[l - 1]; stride]);
    let patches = (l + stride - p) / stride + 1;
    let mut u: Vec<Vec<f64>> = (0..patches)
        .map(|i| {
            let position: Vec<f64> =
                (0..width).map(|j| f64::from(tensor(model, "model.backbone.W_pos")[i * width + j])).collect();
            plus(linear(model, "model.backbone.W_P", &x[i * stride..i * stride + p]), &position)
        })
        .collect();
    let pre = model.flag("batch_normalization");
    let mut before: Option<Vec<Vec<Vec<f64>>>> = None;
    for layer in 0..model.size("encoder_layers") {
        let name = format!("model.backbone.encoder.layers.{layer}");
        let norm = |u: &[Vec<f64>], part: &str| -> Vec<Vec<f64>> {
            let name = format!("{name}.{part}.1");
            let channel = |(j, x): (usize, &f64)| batch_norm(model, &name, j, *x, 1e-5);
            u.iter().map(|u| u.iter().enumerate().map(channel).collect()).collect()
        };
        if pre {
            u = norm(&u, "norm_attn");
        }
        let project = |part: &str| -> Vec<Vec<f64>> {
            u.iter().map(|u| linear(model, &format!("{name}.self_attn.{part}"), u)).collect()
        };
        let (q, k, v) = (project("W_Q"), project("W_K"), project("W_V"));
        let scale = match model.flag("res_attention") {
            true => f64::from(tensor(model, &format!("{name}.self_attn.sdp_attn.scale"))[0]),
            false => 1.0 / (d as f64).sqrt(),
        };
        let mut joined = vec![vec![0.0; width]; patches];
        let mut all = Vec::new();
        for head in 0..heads {
            let mut s = vec![vec![0.0; patches]; patches];
            for i in 0..patches {
                for j in 0..patches {
                    let dot = |c: usize| q[i][head * d + c] * k[j][head * d + c];
                    s[i][j] = (0..d).map(dot).sum::<f64>() * scale;
                    if let (true, Some(before)) = (model.flag("res_attention"), &before) {
                        s[i][j] += before[head][i][j];
                    }
                }
                let top = s[i].iter().copied().fold(f64::NEG_INFINITY, f64::max);
                let total: f64 = s[i].iter().map(|s| (s - top).exp()).sum();
                for c in 0..d {
                    joined[i][head * d + c] =
                        (0..patches).map(|j| (s[i][j] - top).exp() / total * v[j][head * d + c]).sum();
                }
            }
            all.push(s);
        }
        before = Some(all);
        let sum = |u: &[Vec<f64>], more: Vec<Vec<f64>>| -> Vec<Vec<f64>> {
            more.into_iter().zip(u).map(|(more, u)| plus(more, u)).collect()
        };
        let out = joined.iter().map(|x| linear(model, &format!("{name}.self_attn.to_out.0"), x)).collect();
        u = sum(&u, out);
        u = norm(&u, if pre { "norm_ffn" } else { "norm_attn" });
        let act = |x: f64| match model.text("activation") {
            "gelu" => x * 0.5 * erfc(-x / 2f64.sqrt()),
            _ => x.max(0.0),
        };
        let feed = |u: &Vec<f64>| {
            let hidden: Vec<f64> = linear(model, &format!("{name}.ff.0"), u).into_iter().map(act).collect();
            linear(model, &format!("{name}.ff.3"), &hidden)
        };
        let more = u.iter().map(feed).collect();
        u = sum(&u, more);
        if !pre {
            u = norm(&u, "norm_ffn");
        }
    }
    let flat: Vec<f64> = (0..width).flat_map(|channel| u.iter().map(move |u| u[channel])).collect();
    let mut out = linear(model, "model.head.linear", &flat);
    if model.flag("revin") {
        for out in &mut out {
            if let Some([weight, bias]) = affine {
                *out = (*out - bias) / (weight + 1e-10);
            }
            *out = *out * sd + c;
        }
    }
    out
}

/// `[h, N, C]` of one row.
pub(super) fn tsmixer(model: &Model, windows: &Windows, row: usize) -> Vec<f64> {
    let (l, h, count, outputs) = (model.window, model.h, model.series, model.outputs());
    let cell = |values: &[f32], t: usize, n: usize| f64::from(values[(row * l + t) * count + n]);
    let mut scales = Vec::new();
    let mut x = vec![vec![0.0; count]; l];
    for n in 0..count {
        let y: Vec<f64> = (0..l).map(|t| cell(&windows.y, t, n)).collect();
        let mask: Vec<f64> = (0..l).map(|t| cell(windows.mask.as_ref().unwrap(), t, n)).collect();
        let (a, s) = statistics(model.scaler, &y, &mask);
        for t in 0..l {
            x[t][n] = scaled(model.scaler, y[t], a, s);
        }
        scales.push((a, s));
    }
    let affine = |part: &str, n: usize| f64::from(tensor(model, &format!("norm.affine_{part}"))[n]);
    let mut instances = Vec::new();
    if model.flag("revin") {
        for n in 0..count {
            let m = x.iter().map(|x| x[n]).sum::<f64>() / l as f64;
            let variance = x.iter().map(|x| (x[n] - m) * (x[n] - m)).sum::<f64>() / l as f64;
            let sd = (variance + 1e-5).sqrt();
            for x in &mut x {
                x[n] = (x[n] - m) / sd * affine("weight", n) + affine("bias", n);
            }
            instances.push((m, sd));
        }
    }
    for i in 0..model.size("n_block") {
        let name = format!("mixing_layers.{i}.temporal_mixer");
        for n in 0..count {
            let normed: Vec<f64> = (0..l)
                .map(|t| batch_norm(model, &format!("{name}.temporal_norm"), n * l + t, x[t][n], 1e-3))
                .collect();
            let mixed = relu(linear(model, &format!("{name}.temporal_lin"), &normed));
            for t in 0..l {
                x[t][n] += mixed[t];
            }
        }
        let name = format!("mixing_layers.{i}.feature_mixer");
        for (t, x) in x.iter_mut().enumerate() {
            let normed: Vec<f64> = (0..count)
                .map(|n| batch_norm(model, &format!("{name}.feature_norm"), t * count + n, x[n], 1e-3))
                .collect();
            let hidden = relu(linear(model, &format!("{name}.feature_lin_1"), &normed));
            *x = plus(linear(model, &format!("{name}.feature_lin_2"), &hidden), x);
        }
    }
    let mut r = vec![vec![0.0; count]; h * outputs];
    for n in 0..count {
        let series: Vec<f64> = x.iter().map(|x| x[n]).collect();
        for (k, value) in linear(model, "out", &series).into_iter().enumerate() {
            r[k][n] = match instances.get(n) {
                Some((m, sd)) => (value - affine("bias", n)) / affine("weight", n) * sd + m,
                None => value,
            };
        }
    }
    let mut answer = Vec::new();
    for t in 0..h {
        let v: Vec<f64> = (0..outputs * count).map(|j| r[t * outputs + j / count][j % count]).collect();
        for n in 0..count {
            for q in 0..outputs {
                let (a, s) = outward(model, scales[n]);
                answer.push(unscaled(model.scaler, v[n * outputs + q], a, s));
            }
        }
    }
    answer
}
