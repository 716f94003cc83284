//! Random weights for the families that walk along time.

use super::{Model, Rng};

impl Model {
    pub(super) fn recursive(&self) -> bool {
        self.class == "DeepAR" || self.hparams["recurrent"].as_bool().unwrap_or(false)
    }

    pub(super) fn encoder_layers(&self) -> usize {
        self.size(if self.class == "DeepAR" { "lstm_n_layers" } else { "encoder_n_layers" })
    }

    pub(super) fn randomize_sequence(&mut self, rng: &mut Rng) {
        let wide = 1 + self.hist + self.futr + self.stat;
        let outputs = self.outputs();
        if self.class == "TCN" {
            let width = self.size("encoder_hidden_size");
            self.convolutions(rng, width, wide);
            self.layer(rng, "context_adapter", self.h, self.window);
            return self.perceptron(rng, "mlp_decoder", "decoder_layers", 0, width + self.futr);
        }
        let width =
            self.size(if self.class == "DeepAR" { "lstm_hidden_size" } else { "encoder_hidden_size" });
        self.cells(rng, width, wide);
        match (self.class, self.recursive()) {
            ("DeepAR", _) => self.perceptron(rng, "decoder", "decoder_hidden_layers", 1, width),
            ("GRU", true) => self.layer(rng, "proj", outputs, width),
            (_, true) => {}
            (_, false) => {
                if self.h > self.window {
                    self.layer(rng, "upsample_sequence", self.h, self.window);
                }
                self.perceptron(rng, "mlp_decoder", "decoder_layers", 0, width + self.futr);
            }
        }
    }

    fn cells(&mut self, rng: &mut Rng, width: usize, wide: usize) {
        let gates = if self.class == "GRU" { 3 } else { 4 } * width;
        let projected = self.class == "LSTM" && self.recursive();
        let out = if projected { self.outputs() } else { width };
        let mut wide = wide;
        for layer in 0..self.encoder_layers() {
            let mut tensor = |kind: &str, shape: Vec<usize>, spread: f32| {
                let values = (0..shape.iter().product()).map(|_| rng.number() * spread).collect();
                self.tensors.insert(format!("hist_encoder.{kind}_l{layer}"), (shape, values));
            };
            tensor("weight_ih", vec![gates, wide], (3.0 / wide as f32).sqrt());
            tensor("weight_hh", vec![gates, out], (3.0 / out as f32).sqrt());
            if self.hparams["encoder_bias"].as_bool().unwrap_or(true) {
                tensor("bias_ih", vec![gates], 0.3);
                tensor("bias_hh", vec![gates], 0.3);
            }
            if projected {
                tensor("weight_hr", vec![out, width], (3.0 / width as f32).sqrt());
            }
            wide = out;
        }
    }

    fn convolutions(&mut self, rng: &mut Rng, width: usize, wide: usize) {
        let kernel = self.size("kernel_size");
        let mut wide = wide;
        for layer in 0..self.sizes("dilations").len() {
            let spread = (3.0 / (wide * kernel) as f32).sqrt();
            let matrix: Vec<f32> = (0..width * wide * kernel).map(|_| rng.number() * spread).collect();
            let bias: Vec<f32> = (0..width).map(|_| rng.number() * 0.3).collect();
            for twin in ["conv", "causalconv.0"] {
                let name = |kind: &str| format!("hist_encoder.tcn.{layer}.{twin}.{kind}");
                self.tensors.insert(name("weight"), (vec![width, wide, kernel], matrix.clone()));
                self.tensors.insert(name("bias"), (vec![width], bias.clone()));
            }
            wide = width;
        }
    }

    /// `more` layers than the hyper-parameter `count` says.
    fn perceptron(&mut self, rng: &mut Rng, name: &str, count: &str, more: usize, wide: usize) {
        let (layers, width, outputs) =
            (self.size(count) + more, self.size("decoder_hidden_size"), self.outputs());
        for layer in 0..layers {
            let out = if layer + 1 == layers { outputs } else { width };
            let wide = if layer == 0 { wide } else { width };
            self.layer(rng, &format!("{name}.layers.{}", 3 * layer), out, wide);
        }
    }
}
