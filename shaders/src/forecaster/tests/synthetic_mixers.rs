//! Random weights of TiDE, PatchTST and TSMixer.

use super::{Model, Rng};

impl Model {
    fn vector(&mut self, rng: &mut Rng, name: &str, shape: &[usize], centre: f32, spread: f32) {
        let values = (0..shape.iter().product()).map(|_| centre + spread * rng.number()).collect();
        self.tensors.insert(name.to_owned(), (shape.to_vec(), values));
    }

    fn norm(&mut self, rng: &mut Rng, name: &str, width: usize) {
        self.vector(rng, &format!("{name}.weight"), &[width], 1.0, 0.3);
        self.vector(rng, &format!("{name}.bias"), &[width], 0.0, 0.2);
    }

    fn batch_norm(&mut self, rng: &mut Rng, name: &str, width: usize) {
        self.norm(rng, name, width);
        self.vector(rng, &format!("{name}.running_mean"), &[width], 0.1, 0.3);
        self.vector(rng, &format!("{name}.running_var"), &[width], 1.0, 0.6);
    }

    fn res_block(&mut self, rng: &mut Rng, name: &str, [wide, hidden, out]: [usize; 3]) {
        self.layer(rng, &format!("{name}.lin1"), hidden, wide);
        self.layer(rng, &format!("{name}.lin2"), out, hidden);
        self.layer(rng, &format!("{name}.skip"), out, wide);
        if self.flag("layernorm") {
            self.norm(rng, &format!("{name}.norm"), out);
        }
    }

    pub(super) fn randomize_tide(&mut self, rng: &mut Rng) {
        let (l, h, outputs) = (self.window, self.h, self.outputs());
        let (hidden, step, temporal) =
            (self.size("hidden_size"), self.size("decoder_output_dim"), self.size("temporal_width"));
        let mut wide = l + self.stat;
        if self.hist > 0 {
            self.res_block(rng, "hist_exog_projection", [self.hist, hidden, temporal]);
            wide += l * temporal;
        }
        if self.futr > 0 {
            self.res_block(rng, "futr_exog_projection", [self.futr, hidden, temporal]);
            wide += (l + h) * temporal;
        }
        for i in 0..self.size("num_encoder_layers") {
            self.res_block(rng, &format!("dense_encoder.{i}"), [wide, hidden, hidden]);
            wide = hidden;
        }
        let decoders = self.size("num_decoder_layers");
        for i in 0..decoders {
            let out = if i + 1 == decoders { step * h } else { hidden };
            self.res_block(rng, &format!("dense_decoder.{i}"), [hidden, hidden, out]);
        }
        let wide = step + if self.futr > 0 { temporal } else { 0 };
        self.res_block(rng, "temporal_decoder", [wide, self.size("temporal_decoder_dim"), outputs]);
        self.layer(rng, "global_skip", h * outputs, l);
    }

    pub(super) fn randomize_patchtst(&mut self, rng: &mut Rng) {
        let (width, hidden, stride) =
            (self.size("hidden_size"), self.size("linear_hidden_size"), self.size("stride"));
        let patch_len = self.size("patch_len").min(self.window + stride);
        let patches = (self.window + stride - patch_len) / stride + 1;
        if self.flag("revin") && self.flag("revin_affine") {
            self.vector(rng, "model.revin_layer.affine_weight", &[1], 1.2, 0.4);
            self.vector(rng, "model.revin_layer.affine_bias", &[1], 0.0, 0.5);
        }
        self.layer(rng, "model.backbone.W_P", width, patch_len);
        self.vector(rng, "model.backbone.W_pos", &[patches, width], 0.0, 0.4);
        for i in 0..self.size("encoder_layers") {
            let name = format!("model.backbone.encoder.layers.{i}");
            for part in ["W_Q", "W_K", "W_V", "to_out.0"] {
                self.layer(rng, &format!("{name}.self_attn.{part}"), width, width);
            }
            // There in either case; other than what stands in for it where it is not read.
            self.vector(rng, &format!("{name}.self_attn.sdp_attn.scale"), &[], 0.6, 0.05);
            self.batch_norm(rng, &format!("{name}.norm_attn.1"), width);
            self.batch_norm(rng, &format!("{name}.norm_ffn.1"), width);
            self.layer(rng, &format!("{name}.ff.0"), hidden, width);
            self.layer(rng, &format!("{name}.ff.3"), width, hidden);
        }
        self.layer(rng, "model.head.linear", self.h * self.outputs(), width * patches);
    }

    pub(super) fn randomize_tsmixer(&mut self, rng: &mut Rng) {
        let (l, series, hidden) = (self.window, self.series, self.size("ff_dim"));
        if self.flag("revin") {
            self.vector(rng, "norm.affine_weight", &[1, 1, series], 1.2, 0.4);
            self.vector(rng, "norm.affine_bias", &[1, 1, series], 0.0, 0.5);
        }
        for i in 0..self.size("n_block") {
            let name = format!("mixing_layers.{i}.temporal_mixer");
            self.batch_norm(rng, &format!("{name}.temporal_norm"), series * l);
            self.layer(rng, &format!("{name}.temporal_lin"), l, l);
            let name = format!("mixing_layers.{i}.feature_mixer");
            self.batch_norm(rng, &format!("{name}.feature_norm"), series * l);
            self.layer(rng, &format!("{name}.feature_lin_1"), hidden, series);
            self.layer(rng, &format!("{name}.feature_lin_2"), series, hidden);
        }
        self.layer(rng, "out", self.h * self.outputs(), l);
    }
}
