//! Models with random weights, written as model folders.

use std::collections::BTreeMap;
use std::path::Path;

use safetensors::tensor::{Dtype, TensorView};
use serde_json::{Value, json};

use crate::Windows;

/// Small splitmix generator: the same numbers everywhere.
pub(super) struct Rng(pub(super) u64);

impl Rng {
    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// In `-1..1`.
    pub(super) fn number(&mut self) -> f32 {
        (self.next() >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    }

    pub(super) fn below(&mut self, end: usize) -> usize {
        (self.next() % end as u64) as usize
    }
}

/// What `model.json` and the weights say.
#[derive(Clone)]
pub(super) struct Model {
    pub(super) class: &'static str,
    pub(super) h: usize,
    pub(super) window: usize,
    pub(super) series: usize,
    pub(super) scaler: &'static str,
    pub(super) loss: &'static str,
    pub(super) hist: usize,
    pub(super) futr: usize,
    pub(super) stat: usize,
    pub(super) hparams: Value,
    pub(super) tensors: BTreeMap<String, (Vec<usize>, Vec<f32>)>,
}

const QUANTILES: [f64; 3] = [0.5, 0.1, 0.9];
const FIVE_QUANTILES: [f64; 5] = [0.5, 0.025, 0.1, 0.9, 0.975];

impl Model {
    /// Without exogenous columns and weights.
    pub(super) fn new(class: &'static str, h: usize, window: usize) -> Self {
        Self {
            class,
            h,
            window,
            series: 1,
            scaler: "standard",
            loss: "MAE",
            hist: 0,
            futr: 0,
            stat: 0,
            hparams: json!({}),
            tensors: BTreeMap::new(),
        }
    }

    /// Numbers per step of the network.
    pub(super) fn outputs(&self) -> usize {
        match self.loss {
            "MQLoss" => QUANTILES.len(),
            "HuberMQLoss" => FIVE_QUANTILES.len(),
            "StudentT" => 3,
            "Normal" => 2,
            _ => 1,
        }
    }

    pub(super) fn sizes(&self, name: &str) -> Vec<usize> {
        self.hparams[name].as_array().unwrap().iter().map(|size| size.as_u64().unwrap() as usize).collect()
    }

    pub(super) fn size(&self, name: &str) -> usize {
        self.hparams[name].as_u64().unwrap() as usize
    }

    pub(super) fn flag(&self, name: &str) -> bool {
        self.hparams[name].as_bool().unwrap()
    }

    pub(super) fn text(&self, name: &str) -> &str {
        self.hparams[name].as_str().unwrap()
    }

    /// Fills in all weights of a network of this shape.
    pub(super) fn randomize(mut self, seed: u64) -> Self {
        let mut rng = Rng(seed);
        if self.scaler == "revin" {
            self.tensors.insert("scaler.revin_weight".into(), (vec![1, 1, 1, 1], vec![1.25]));
            self.tensors.insert("scaler.revin_bias".into(), (vec![1, 1, 1, 1], vec![0.375]));
        }
        let (l, out) = (self.window, self.h * self.outputs());
        match self.class {
            "NHITS" | "NBEATS" => self.randomize_blocks(&mut rng),
            "MLP" => {
                let count = self.hparams["num_layers"].as_u64().unwrap();
                let width = self.hparams["hidden_size"].as_u64().unwrap() as usize;
                let mut wide = l * (1 + self.hist) + (l + self.h) * self.futr + self.stat;
                for number in 0..count {
                    self.layer(&mut rng, &format!("mlp.{number}"), width, wide);
                    wide = width;
                }
                self.layer(&mut rng, "out", out, wide);
            }
            "DLinear" => {
                self.layer(&mut rng, "linear_trend", out, l);
                self.layer(&mut rng, "linear_season", out, l);
            }
            "NLinear" => self.layer(&mut rng, "linear", out, l),
            "LSTM" | "GRU" | "DeepAR" | "TCN" => self.randomize_sequence(&mut rng),
            "TiDE" => self.randomize_tide(&mut rng),
            "PatchTST" => self.randomize_patchtst(&mut rng),
            "TSMixer" => self.randomize_tsmixer(&mut rng),
            other => panic!("no weights for {other}"),
        }
        self
    }

    fn randomize_blocks(&mut self, rng: &mut Rng) {
        let types: Vec<String> = serde_json::from_value(self.hparams["stack_types"].clone()).unwrap();
        let units: Vec<[usize; 2]> = serde_json::from_value(self.hparams["mlp_units"].clone()).unwrap();
        let step = if self.hparams["dropout_prob_theta"].as_f64().unwrap() > 0.0 { 3 } else { 2 };
        let (l, h, outputs) = (self.window, self.h, self.outputs());
        let mut block = 0;
        for (stack, count) in self.sizes("n_blocks").into_iter().enumerate() {
            for _ in 0..count {
                let name = |number: usize| format!("blocks.{block}.layers.{number}");
                let (wide, theta) = if self.class == "NHITS" {
                    let kernel = self.sizes("n_pool_kernel_size")[stack];
                    let knots = (h / self.sizes("n_freq_downsample")[stack]).max(1);
                    let wide = l.div_ceil(kernel) * (1 + self.hist)
                        + (l + h).div_ceil(kernel) * self.futr
                        + self.stat;
                    (wide, l + outputs * knots)
                } else {
                    (l, self.randomize_basis(rng, &types[stack], block))
                };
                self.layer(rng, &name(0), units[0][0], wide);
                let mut number = 1;
                let slope = 0.25 + 0.1 * rng.number();
                for &[layer_in, layer_out] in &units {
                    self.layer(rng, &name(number), layer_out, layer_in);
                    if self.text("activation") == "PReLU" {
                        self.tensors.insert(format!("{}.weight", name(number + 1)), (vec![1], vec![slope]));
                    }
                    number += step;
                }
                self.layer(rng, &name(number), theta, units.last().unwrap()[1]);
                block += 1;
            }
        }
    }

    /// Any basis will do: the loader uses it as stored. Returns theta's width.
    fn randomize_basis(&mut self, rng: &mut Rng, stack_type: &str, block: usize) -> usize {
        let terms = match stack_type {
            "identity" => return self.window + self.h * self.outputs(),
            "trend" => self.hparams["n_basis"].as_u64().unwrap() as usize + 1,
            _ => {
                let n = self.hparams["n_harmonics"].as_f64().unwrap();
                2 * ((n / 2.0 * self.h as f64).ceil() as usize + 1 - n as usize)
            }
        };
        for (side, len) in [("backcast", self.window), ("forecast", self.h)] {
            let values = match self.text("basis") {
                "legendre" => legendre(terms, len),
                _ => (0..terms * len).map(|_| rng.number()).collect(),
            };
            self.tensors.insert(format!("blocks.{block}.basis.{side}_basis"), (vec![terms, len], values));
        }
        terms * (1 + self.outputs())
    }

    pub(super) fn layer(&mut self, rng: &mut Rng, name: &str, out: usize, wide: usize) {
        let spread = (1.5 / wide as f32).sqrt();
        let matrix = (0..out * wide).map(|_| rng.number() * spread).collect();
        let bias = (0..out).map(|_| rng.number() * 0.2).collect();
        self.tensors.insert(format!("{name}.weight"), (vec![out, wide], matrix));
        self.tensors.insert(format!("{name}.bias"), (vec![out], bias));
    }

    pub(super) fn json(&self) -> Value {
        let names = |kind: &str, count: usize| (0..count).map(|i| format!("{kind}{i}")).collect::<Vec<_>>();
        let mut hparams = self.hparams.clone();
        hparams["h"] = json!(self.h);
        hparams["input_size"] = json!(self.window - usize::from(self.recursive()));
        hparams["scaler_type"] = json!(self.scaler);
        hparams["hist_exog_list"] = json!(names("hist", self.hist));
        hparams["futr_exog_list"] = json!(names("futr", self.futr));
        hparams["stat_exog_list"] = json!(names("stat", self.stat));
        let loss = match self.loss {
            "HuberMQLoss" => {
                json!({"type": "HuberMQLoss", "output_size": 5, "quantiles": FIVE_QUANTILES})
            }
            "MQLoss" => json!({"type": "MQLoss", "output_size": 3, "quantiles": QUANTILES}),
            "StudentT" => json!({"type": "DistributionLoss", "output_size": 3, "distribution": "StudentT",
                                 "param_names": ["-df", "-loc", "-scale"]}),
            "Normal" => json!({"type": "DistributionLoss", "output_size": 2, "distribution": "Normal",
                               "param_names": ["-loc", "-scale"]}),
            point => json!({"type": point, "output_size": 1}),
        };
        json!({
            "format": 1, "name": "synthetic", "class": self.class, "h": self.h, "window": self.window,
            "n_series": self.series, "multivariate": self.class == "TSMixer", "recurrent": self.recursive(), "scaler_type": self.scaler, "loss": loss,
            "hist_exog": names("hist", self.hist), "futr_exog": names("futr", self.futr),
            "stat_exog": names("stat", self.stat), "hparams": hparams,
        })
    }

    pub(super) fn weights(&self) -> Vec<u8> {
        let bytes: Vec<(&String, &Vec<usize>, Vec<u8>)> = self
            .tensors
            .iter()
            .map(|(name, (shape, values))| (name, shape, bytemuck::cast_slice(values).to_vec()))
            .collect();
        let views = bytes.iter().map(|(name, shape, bytes)| {
            (name.as_str(), TensorView::new(Dtype::F32, shape.to_vec(), bytes).unwrap())
        });
        safetensors::serialize(views, None).unwrap()
    }

    pub(super) fn write(&self, dir: &Path) {
        std::fs::write(dir.join("model.json"), self.json().to_string()).unwrap();
        std::fs::write(dir.join("weights.safetensors"), self.weights()).unwrap();
    }

    /// Random windows, one constant, one with gaps and a short history.
    pub(super) fn windows(&self, rng: &mut Rng) -> Windows {
        let rows = 6;
        let y_len = self.window * self.series;
        let mut y: Vec<f32> = (0..rows * y_len).map(|_| 3.0 + 2.0 * rng.number()).collect();
        let mut mask = vec![1.0; y.len()];
        y[..y_len].fill(1.9558);
        for at in y_len..2 * y_len {
            if at < y_len + y_len / 3 || rng.below(5) == 0 {
                (y[at], mask[at]) = (0.0, 0.0);
            }
        }
        let mut random = |count: usize| (0..count).map(|_| 5.0 * rng.number()).collect();
        Windows {
            rows,
            y,
            mask: Some(mask),
            hist_exog: random(rows * self.window * self.hist),
            futr_exog: random(rows * (self.window + self.h) * self.futr),
            stat_exog: random(rows * self.stat),
        }
    }
}

fn legendre(terms: usize, len: usize) -> Vec<f32> {
    let points: Vec<f64> = (0..len).map(|i| -1.0 + 2.0 * i as f64 / (len - 1).max(1) as f64).collect();
    let mut rows: Vec<Vec<f64>> = vec![vec![1.0; len], points.clone()];
    for n in 1..terms {
        let next = (0..len).map(|i| {
            let n = n as f64;
            ((2.0 * n + 1.0) * points[i] * rows[n as usize][i] - n * rows[n as usize - 1][i]) / (n + 1.0)
        });
        rows.push(next.collect());
    }
    rows.truncate(terms);
    rows.concat().into_iter().map(|value| value as f32).collect()
}
