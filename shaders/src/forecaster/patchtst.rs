//! PatchTST: overlapping patches of the window as the steps of a transformer encoder.
//!
//! Batch norms and the learned positions are scales and shifts. Those that follow each other become one; the last
//! ones become part of the head.

use crate::loader::{Archive, Blueprint, Hparams, LoadError};
use crate::{Activation, Attention, Move, View};

use super::anchor::Instance;
use super::dense::Dense;
use super::network::{Anchor, Network, Order};
use super::norm::Norm;
use super::recorder::Recorder;

const LAYERS_MAX: usize = 64;
const BATCH_NORM_EPSILON: f64 = 1e-5;
/// Keeps the library from dividing by a weight of zero.
const INSTANCE_SLACK: f64 = 1e-10;

pub(super) fn build(blueprint: &Blueprint, archive: &Archive) -> Result<Network, LoadError> {
    let Blueprint { spec, hparams } = blueprint;
    let shape = Shape::read(hparams, spec.window)?;
    let (mut recorder, features) = Recorder::new(spec);
    let mut stream = Stream::start(&shape, archive, &mut recorder, features)?;
    for number in 0..shape.layers {
        let name = format!("model.backbone.encoder.layers.{number}");
        let batch =
            |part: &str| Norm::batch(archive, &format!("{name}.{part}.1"), shape.width, BATCH_NORM_EPSILON);
        let [attention, feed_forward] = [batch("norm_attn")?, batch("norm_ffn")?];
        if shape.pre_norm {
            stream.norm(&attention);
        }
        stream.attend(&shape, archive, &mut recorder, &name)?;
        stream.norm(if shape.pre_norm { &feed_forward } else { &attention });
        stream.feed_forward(&shape, archive, &mut recorder, &name)?;
        if !shape.pre_norm {
            stream.norm(&feed_forward);
        }
    }
    let out_width = spec.horizon * spec.head.network_width();
    let head = stream.head(&shape, Dense::take(archive, "model.head.linear", out_width, shape.flat_len())?);
    let output = recorder.buffer(1, out_width)?;
    recorder.layer("model.head", stream.values, output, &head, Activation::Identity)?;
    Ok(Network {
        plan: recorder.plan.finish(output),
        order: Order::OldestFirst,
        anchor: anchor(hparams, archive)?,
        masked: false,
    })
}

fn anchor(hparams: &Hparams, archive: &Archive) -> Result<Anchor, LoadError> {
    if !hparams.flag("revin")? {
        return Ok(Anchor::None);
    }
    let plain = Instance::plain(hparams.flag("revin_subtract_last")?, 1);
    if !hparams.flag("revin_affine")? {
        return Ok(Anchor::Instance(plain));
    }
    Ok(Anchor::Instance(Instance {
        weight: archive.take("model.revin_layer.affine_weight", &[1])?,
        bias: archive.take("model.revin_layer.affine_bias", &[1])?,
        slack: INSTANCE_SLACK,
        ..plain
    }))
}

/// Hyper-parameters, checked.
struct Shape {
    layers: usize,
    heads: usize,
    /// Channels of a patch.
    width: usize,
    feed_forward_width: usize,
    patches: usize,
    patch_len: usize,
    stride: usize,
    activation: Activation,
    /// Scores are handed from layer to layer.
    residual_scores: bool,
    pre_norm: bool,
}

impl Shape {
    fn read(hparams: &Hparams, window: usize) -> Result<Self, LoadError> {
        let (layers, heads) = (hparams.size("encoder_layers")?, hparams.size("n_heads")?);
        if layers > LAYERS_MAX {
            return Err(LoadError::TooLarge { what: "encoder_layers", len: layers, len_max: LAYERS_MAX });
        }
        let width = hparams.size("hidden_size")?;
        if !width.is_multiple_of(heads) {
            return Err(LoadError::parameter("n_heads", "does not divide `hidden_size`"));
        }
        let stride = hparams.size("stride")?;
        let patch_len = hparams.size("patch_len")?.min(window + stride);
        let activation = match hparams.text("activation")? {
            "gelu" => Activation::Gelu,
            "relu" => Activation::Relu,
            other => return Err(LoadError::unsupported(format!("activation `{other}` in PatchTST"))),
        };
        Ok(Self {
            layers,
            heads,
            width,
            feed_forward_width: hparams.size("linear_hidden_size")?,
            patches: (window + stride - patch_len) / stride + 1,
            patch_len,
            stride,
            activation,
            residual_scores: hparams.flag("res_attention")?,
            // The library's name says something else, its code says this.
            pre_norm: hparams.flag("batch_normalization")?,
        })
    }

    fn flat_len(&self) -> usize {
        self.patches.saturating_mul(self.width)
    }

    /// Of the scores. The library keeps it as a weight in either case, and reads that one where scores are handed on.
    fn factor(&self, archive: &Archive, name: &str) -> Result<f64, LoadError> {
        let stored = || Ok(archive.take(name, &[])?[0]);
        if self.residual_scores {
            return stored();
        }
        // Taken for what it is and left alone; a file without it lacks nothing.
        archive.shape(name).map(|_| stored()).transpose()?;
        Ok(((self.width / self.heads) as f64).powf(-0.5))
    }

    /// Query, key and value as one layer; the factor of the scores is part of the query.
    fn qkv(&self, archive: &Archive, name: &str) -> Result<Dense, LoadError> {
        let take = |part: &str| Dense::take(archive, &format!("{name}.{part}"), self.width, self.width);
        let factor = self.factor(archive, &format!("{name}.sdp_attn.scale"))?;
        let mut all = take("W_Q")?;
        all.matrix.iter_mut().chain(&mut all.bias).for_each(|value| *value *= factor);
        for part in ["W_K", "W_V"] {
            let more = take(part)?;
            all.matrix.extend(more.matrix);
            all.bias.extend(more.bias);
        }
        Ok(Dense { out_width: 3 * self.width, ..all })
    }
}

/// The residual stream, `[patches, width]`.
struct Stream {
    values: View,
    /// To be applied to `values` before they are read.
    pending: Option<Norm>,
    scores: Option<View>,
}

impl Stream {
    /// Patches and their positions.
    fn start(shape: &Shape, archive: &Archive, recorder: &mut Recorder, y: View) -> Result<Self, LoadError> {
        let padded = recorder.buffer(1, y.width + shape.stride)?;
        recorder.plan.move_columns(Move::copy(y, padded.slice(0, y.width)));
        recorder.plan.move_columns(Move::strided(y, padded.slice(y.width, shape.stride), y.width - 1, 0));
        let values = recorder.buffer(shape.patches, shape.width)?;
        let name = "model.backbone.W_P";
        let embed = Dense::take(archive, name, shape.width, shape.patch_len)?;
        let src = padded.slice(0, (shape.patches - 1) * shape.stride + shape.patch_len);
        recorder.layer(name, src, values, &embed, Activation::Identity)?;
        let shift = archive.take("model.backbone.W_pos", &[shape.patches, shape.width])?;
        let positions = Norm { shift, ..Norm::identity(values.width) };
        Ok(Self { values, pending: Some(positions), scores: None })
    }

    /// One more norm; it waits until somebody reads.
    fn norm(&mut self, norm: &Norm) {
        self.pending = Some(self.pending.take().map_or_else(|| norm.clone(), |before| before.then(norm)));
    }

    fn settled(&mut self, recorder: &mut Recorder, name: &str) -> Result<View, LoadError> {
        if let Some(norm) = self.pending.take() {
            let dst = recorder.buffer(1, self.values.width)?;
            recorder.norm(name, self.values, dst, &norm, None)?;
            self.values = dst;
        }
        Ok(self.values)
    }

    fn attend(
        &mut self,
        shape: &Shape,
        archive: &Archive,
        recorder: &mut Recorder,
        name: &str,
    ) -> Result<(), LoadError> {
        let name = format!("{name}.self_attn");
        let &Shape { heads, patches: steps, width, .. } = shape;
        let values = self.settled(recorder, &name)?;
        let qkv = recorder.buffer(steps, 3 * width)?;
        recorder.layer(&name, values, qkv, &shape.qkv(archive, &name)?, Activation::Identity)?;
        let scores = recorder.buffer(heads, steps * steps)?;
        let previous = self.scores.replace(scores).filter(|_| shape.residual_scores);
        let dst = recorder.buffer(steps, width)?;
        recorder.plan.attention(Attention { qkv, previous, scores, dst, heads, steps });
        let out = Dense::take(archive, &format!("{name}.to_out.0"), width, width)?;
        recorder.add_layer(&name, dst, values, &out)
    }

    fn feed_forward(
        &mut self,
        shape: &Shape,
        archive: &Archive,
        recorder: &mut Recorder,
        name: &str,
    ) -> Result<(), LoadError> {
        let (width, hidden_width) = (shape.width, shape.feed_forward_width);
        let values = self.settled(recorder, name)?;
        let hidden = recorder.buffer(shape.patches, hidden_width)?;
        let widen = Dense::take(archive, &format!("{name}.ff.0"), hidden_width, width)?;
        recorder.layer(name, values, hidden, &widen, shape.activation)?;
        let narrow = Dense::take(archive, &format!("{name}.ff.3"), width, hidden_width)?;
        recorder.add_layer(name, hidden, values, &narrow)
    }

    /// The head over `[patches, width]` instead of `[width, patches]`, after the norm that is still pending.
    fn head(&mut self, shape: &Shape, stored: Dense) -> Dense {
        let &Shape { patches, width, .. } = shape;
        let norm = self.pending.take().unwrap_or_else(|| Norm::identity(width));
        let period = norm.scale.len();
        let mut head = stored.clone();
        let rows = head.matrix.chunks_exact_mut(stored.in_width);
        for ((row, bias), from) in rows.zip(&mut head.bias).zip(stored.matrix.chunks_exact(stored.in_width)) {
            for (at, weight) in row.iter_mut().enumerate() {
                let value = from[(at % width) * patches + at / width];
                *weight = value * norm.scale[at % period];
                *bias += value * norm.shift[at % period];
            }
        }
        head
    }
}
