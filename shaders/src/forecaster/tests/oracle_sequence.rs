//! LSTM, GRU, DeepAR and TCN as they are written down, in f64: one step at a time, nothing folded.
#![allow(clippy::needless_range_loop, reason = "indices as the formulas write them")]

use super::Model;
use super::oracle::{Input, activated, linear};

pub(super) fn rnn(model: &Model, input: &Input) -> Vec<f64> {
    if model.recursive() {
        return recursive(model, input);
    }
    let (l, h) = (model.window, model.h);
    let mut states = zero_states(model);
    let tops: Vec<Vec<f64>> =
        (0..l).map(|t| step(model, &mut states, columns(model, input, t, input.y[t]))).collect();
    let context = if h > l { along_time(model, "upsample_sequence", &tops) } else { tops[l - h..].to_vec() };
    decoded(model, input, context)
}

pub(super) fn tcn(model: &Model, input: &Input) -> Vec<f64> {
    let (l, kernel) = (model.window, model.size("kernel_size"));
    let mut x: Vec<Vec<f64>> = (0..l).map(|t| columns(model, input, t, input.y[t])).collect();
    for (layer, dilation) in model.sizes("dilations").into_iter().enumerate() {
        let (shape, w) = &model.tensors[&format!("hist_encoder.tcn.{layer}.conv.weight")];
        let (_, b) = &model.tensors[&format!("hist_encoder.tcn.{layer}.conv.bias")];
        let output = |t: usize, o: usize| {
            let mut sum = f64::from(b[o]);
            for j in 0..kernel {
                let at = t as i64 - ((kernel - 1 - j) * dilation) as i64;
                for c in 0..shape[1] {
                    let value = if at < 0 { 0.0 } else { x[at as usize][c] };
                    sum += f64::from(w[(o * shape[1] + c) * kernel + j]) * value;
                }
            }
            activated(model.text("encoder_activation"), sum, 0.0)
        };
        x = (0..l).map(|t| (0..shape[0]).map(|o| output(t, o)).collect()).collect();
    }
    decoded(model, input, along_time(model, "context_adapter", &x))
}

fn recursive(model: &Model, input: &Input) -> Vec<f64> {
    let l = model.window;
    let mut states = zero_states(model);
    let mut top = Vec::new();
    for t in 0..l {
        top = step(model, &mut states, columns(model, input, t, input.y[t]));
    }
    let mut answers = Vec::new();
    for ahead in 0..model.h {
        let mut answer = match model.class {
            "LSTM" => top.clone(),
            "GRU" => linear(model, "proj", &top),
            _ => {
                let hidden = model.size("decoder_hidden_layers");
                perceptron(model, "decoder", hidden + 1, top.clone())
            }
        };
        let next = match model.loss {
            "StudentT" => answer[1],
            "Normal" => answer[0],
            _ => {
                let mean = answer.iter().sum::<f64>() / answer.len() as f64;
                answer.fill(mean);
                mean
            }
        };
        answers.extend(answer);
        top = step(model, &mut states, columns(model, input, l + ahead, next));
    }
    answers
}

/// What the encoder reads at step `t`. Beyond the window there are no past columns; a recursive model sees the future
/// columns of the step it forecasts.
fn columns(model: &Model, input: &Input, t: usize, y: f64) -> Vec<f64> {
    let lead = usize::from(model.recursive());
    let futr: Vec<f64> =
        input.futr.iter().map(|column| column.get(t + lead).copied().unwrap_or(0.0)).collect();
    let mut x = vec![y];
    x.extend(input.hist.iter().map(|column| column[t]));
    if model.class == "DeepAR" {
        x.extend(futr);
        x.extend(&input.stat);
    } else {
        x.extend(&input.stat);
        x.extend(futr);
    }
    x
}

/// `h` and `c` of each layer.
fn zero_states(model: &Model) -> Vec<(Vec<f64>, Vec<f64>)> {
    let layers = model.encoder_layers();
    let width = |name: &str, layer: usize, side: usize| {
        model.tensors[&format!("hist_encoder.{name}_l{layer}")].0[side]
    };
    let gates = if model.class == "GRU" { 3 } else { 4 };
    let state =
        |layer| (vec![0.0; width("weight_hh", layer, 1)], vec![0.0; width("weight_hh", layer, 0) / gates]);
    (0..layers).map(state).collect()
}

fn step(model: &Model, states: &mut [(Vec<f64>, Vec<f64>)], mut x: Vec<f64>) -> Vec<f64> {
    let sigmoid = |x: f64| 1.0 / (1.0 + (-x).exp());
    for (layer, (h, c)) in states.iter_mut().enumerate() {
        let units = c.len();
        let a = product(model, &format!("ih_l{layer}"), &x);
        let b = product(model, &format!("hh_l{layer}"), h);
        if model.class == "GRU" {
            let before = h.clone();
            for u in 0..units {
                let r = sigmoid(a[u] + b[u]);
                let z = sigmoid(a[units + u] + b[units + u]);
                let n = (a[2 * units + u] + r * b[2 * units + u]).tanh();
                h[u] = (1.0 - z) * n + z * before[u];
            }
        } else {
            let gate = |gate: usize, u: usize| a[gate * units + u] + b[gate * units + u];
            let mut hidden = Vec::new();
            for u in 0..units {
                c[u] = sigmoid(gate(1, u)) * c[u] + sigmoid(gate(0, u)) * gate(2, u).tanh();
                hidden.push(sigmoid(gate(3, u)) * c[u].tanh());
            }
            let projection = format!("hr_l{layer}");
            let projected = model.tensors.contains_key(&format!("hist_encoder.weight_{projection}"));
            *h = if projected { product(model, &projection, &hidden) } else { hidden };
        }
        x.clone_from(h);
    }
    x
}

/// `W · x`, and the bias where there is one.
fn product(model: &Model, name: &str, x: &[f64]) -> Vec<f64> {
    let (shape, w) = &model.tensors[&format!("hist_encoder.weight_{name}")];
    let bias = model.tensors.get(&format!("hist_encoder.bias_{name}"));
    assert_eq!(shape[1], x.len(), "{name}");
    let output = |o: usize| {
        let sum: f64 = (0..x.len()).map(|i| f64::from(w[o * x.len() + i]) * x[i]).sum();
        sum + bias.map_or(0.0, |(_, b)| f64::from(b[o]))
    };
    (0..shape[0]).map(output).collect()
}

fn along_time(model: &Model, name: &str, x: &[Vec<f64>]) -> Vec<Vec<f64>> {
    let channel = |c: usize| linear(model, name, &x.iter().map(|step| step[c]).collect::<Vec<_>>());
    let channels: Vec<Vec<f64>> = (0..x[0].len()).map(channel).collect();
    (0..model.h).map(|t| channels.iter().map(|channel| channel[t]).collect()).collect()
}

fn decoded(model: &Model, input: &Input, context: Vec<Vec<f64>>) -> Vec<f64> {
    let mut out = Vec::new();
    for (t, mut x) in context.into_iter().enumerate() {
        x.extend(input.futr.iter().map(|column| column[model.window + t]));
        out.extend(perceptron(model, "mlp_decoder", model.size("decoder_layers"), x));
    }
    out
}

fn perceptron(model: &Model, name: &str, layers: usize, mut x: Vec<f64>) -> Vec<f64> {
    let activation = model.hparams["decoder_activation"].as_str().unwrap_or("ReLU");
    for layer in 0..layers {
        x = linear(model, &format!("{name}.layers.{}", 3 * layer), &x);
        if layer + 1 < layers {
            x = x.into_iter().map(|v| activated(activation, v, 0.0)).collect();
        }
    }
    x
}
