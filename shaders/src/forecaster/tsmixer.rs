//! TSMixer: several series at once, mixed along time and across series in turn.
//!
//! The residual is kept as `[N, L]` for the temporal half of a layer and as `[L, N]` for the other.

use crate::loader::{Archive, Blueprint, Hparams, LoadError};
use crate::{Activation, Move, View};

use super::anchor::Instance;
use super::dense::Dense;
use super::network::{Anchor, Network, Order};
use super::norm::Norm;
use super::recorder::Recorder;

const LAYERS_MAX: usize = 64;
const BATCH_NORM_EPSILON: f64 = 1e-3;

pub(super) fn build(blueprint: &Blueprint, archive: &Archive) -> Result<Network, LoadError> {
    let Blueprint { spec, hparams } = blueprint;
    let layers = hparams.size("n_block")?;
    if layers > LAYERS_MAX {
        return Err(LoadError::TooLarge { what: "n_block", len: layers, len_max: LAYERS_MAX });
    }
    let mixer =
        Mixer { archive, window: spec.window, series: spec.series, hidden_width: hparams.size("ff_dim")? };
    let (mut recorder, features) = Recorder::new(spec);
    let mut by_series = mixer.transposed(&mut recorder, features, spec.series)?;
    for number in 0..layers {
        let name = format!("mixing_layers.{number}");
        let mixed = mixer.along_time(&mut recorder, &format!("{name}.temporal_mixer"), by_series)?;
        let by_step = mixer.transposed(&mut recorder, mixed, spec.window)?;
        mixer.across_series(&mut recorder, &format!("{name}.feature_mixer"), by_step)?;
        by_series = mixer.transposed(&mut recorder, by_step, spec.series)?;
    }
    let steps = spec.horizon * spec.head.network_width();
    let ahead = recorder.buffer(spec.series, steps)?;
    let out = Dense::take(archive, "out", steps, spec.window)?;
    recorder.layer("out", by_series, ahead, &out, Activation::Identity)?;
    let output = mixer.transposed(&mut recorder, ahead, steps)?;
    Ok(Network {
        plan: recorder.plan.finish(output),
        order: Order::OldestFirst,
        anchor: anchor(hparams, archive, spec.series)?,
        masked: false,
    })
}

fn anchor(hparams: &Hparams, archive: &Archive, series: usize) -> Result<Anchor, LoadError> {
    if !hparams.flag("revin")? {
        return Ok(Anchor::None);
    }
    let take = |part: &str| archive.take(&format!("norm.affine_{part}"), &[1, 1, series]);
    let (weight, bias) = (take("weight")?, take("bias")?);
    Ok(Anchor::Instance(Instance { weight, bias, ..Instance::plain(false, series) }))
}

struct Mixer<'a> {
    archive: &'a Archive,
    window: usize,
    series: usize,
    hidden_width: usize,
}

impl Mixer<'_> {
    /// `[steps, columns]` as `[columns, steps]`.
    fn transposed(&self, recorder: &mut Recorder, src: View, columns: usize) -> Result<View, LoadError> {
        let dst = recorder.buffer(1, src.width)?;
        recorder.plan.move_columns(Move::transpose(src, dst, columns));
        Ok(dst)
    }

    /// `x + relu(lin(norm(x)))` over `[N, L]`.
    fn along_time(&self, recorder: &mut Recorder, name: &str, x: View) -> Result<View, LoadError> {
        let normed = self.normed(recorder, &format!("{name}.temporal_norm"), x)?;
        let mixed = recorder.buffer(1, x.width)?;
        let layer = Dense::take(self.archive, &format!("{name}.temporal_lin"), self.window, self.window)?;
        recorder.layer(name, normed, mixed, &layer, Activation::Relu)?;
        let sum = recorder.buffer(1, x.width)?;
        recorder.norm(name, mixed, sum, &Norm::identity(1), Some(x))?;
        Ok(sum)
    }

    /// `x += lin2(relu(lin1(norm(x))))` over `[L, N]`.
    fn across_series(&self, recorder: &mut Recorder, name: &str, x: View) -> Result<(), LoadError> {
        let take = |part: &str, out, wide| Dense::take(self.archive, &format!("{name}.{part}"), out, wide);
        let normed = self.normed(recorder, &format!("{name}.feature_norm"), x)?;
        let hidden = recorder.buffer(self.window, self.hidden_width)?;
        let widen = take("feature_lin_1", self.hidden_width, self.series)?;
        recorder.layer(name, normed, hidden, &widen, Activation::Relu)?;
        recorder.add_layer(name, hidden, x, &take("feature_lin_2", self.series, self.hidden_width)?)
    }

    fn normed(&self, recorder: &mut Recorder, name: &str, x: View) -> Result<View, LoadError> {
        let norm = Norm::batch(self.archive, name, x.width, BATCH_NORM_EPSILON)?;
        let dst = recorder.buffer(1, x.width)?;
        recorder.norm(name, x, dst, &norm, None)?;
        Ok(dst)
    }
}
