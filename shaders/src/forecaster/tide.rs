//! TiDE: the flattened window through residual blocks, and a block of its own for every step ahead.

use crate::loader::{Archive, Blueprint, Hparams, LoadError};
use crate::{Activation, Move, View};

use super::dense::Dense;
use super::network::{Anchor, Layout, Network, Order};
use super::norm::Norm;
use super::recorder::Recorder;

const LAYERS_MAX: usize = 64;

pub(super) fn build(blueprint: &Blueprint, archive: &Archive) -> Result<Network, LoadError> {
    let Blueprint { spec, hparams } = blueprint;
    let (horizon, outputs) = (spec.horizon, spec.head.network_width());
    let hidden_width = hparams.size("hidden_size")?;
    let step_width = hparams.size("decoder_output_dim")?;
    let temporal_hidden = hparams.size("temporal_decoder_dim")?;
    let blocks = Blocks { archive, normed: hparams.flag("layernorm")? };

    let (mut recorder, features) = Recorder::new(spec);
    let y = features.slice(0, spec.window);
    let Encoded { x, future } = encode(blueprint, &blocks, &mut recorder, features, hidden_width)?;

    let mut hidden = x;
    for number in 0..layer_count(hparams, "num_encoder_layers")? {
        let dst = recorder.buffer(1, hidden_width)?;
        blocks.record(&mut recorder, &format!("dense_encoder.{number}"), hidden, dst, 1, hidden_width)?;
        hidden = dst;
    }
    let decoder_layers = layer_count(hparams, "num_decoder_layers")?;
    for number in 0..decoder_layers {
        let is_last = number + 1 == decoder_layers;
        let dst =
            if is_last { recorder.buffer(horizon, step_width) } else { recorder.buffer(1, hidden_width) }?;
        blocks.record(&mut recorder, &format!("dense_decoder.{number}"), hidden, dst, 1, hidden_width)?;
        hidden = dst;
    }
    if let Some(future) = future {
        hidden = beside(&mut recorder, hidden, future, horizon)?;
    }
    let output = recorder.buffer(horizon, outputs)?;
    blocks.record(&mut recorder, "temporal_decoder", hidden, output, horizon, temporal_hidden)?;
    let skip = Dense::take(archive, "global_skip", output.width, y.width)?;
    recorder.add_layer("global_skip", y, output, &skip)?;
    Ok(Network {
        plan: recorder.plan.finish(output),
        order: Order::OldestFirst,
        anchor: Anchor::None,
        masked: false,
    })
}

/// What the dense encoder reads.
struct Encoded {
    x: View,
    /// The projected known-future columns of the steps ahead.
    future: Option<View>,
}

/// Projects the exogenous columns step by step.
fn encode(
    blueprint: &Blueprint,
    blocks: &Blocks<'_>,
    recorder: &mut Recorder,
    features: View,
    hidden_width: usize,
) -> Result<Encoded, LoadError> {
    let Blueprint { spec, hparams } = blueprint;
    let Layout { y, hist, futr, stat } = Layout::of(spec);
    if hist == 0 && futr == 0 {
        return Ok(Encoded { x: features, future: None });
    }
    let width = hparams.size("temporal_width")?;
    let span = spec.window + spec.horizon;
    let hist_len = if hist > 0 { spec.window.saturating_mul(width) } else { 0 };
    let futr_len = if futr > 0 { span.saturating_mul(width) } else { 0 };
    let x = recorder.buffer(1, hist_len.saturating_add(futr_len).saturating_add(y + stat))?;
    recorder.plan.move_columns(Move::copy(features.slice(0, y), x.slice(0, y)));
    if hist > 0 {
        let (src, dst) = (features.slice(y, hist), x.slice(y, hist_len));
        blocks.record(recorder, "hist_exog_projection", src, dst, spec.window, hidden_width)?;
    }
    let mut future = None;
    if futr > 0 {
        if hist == 0 {
            blocks.pass_over("hist_exog_projection", hidden_width, width)?;
        }
        let (src, dst) = (features.slice(y + hist, futr), x.slice(y + hist_len, futr_len));
        blocks.record(recorder, "futr_exog_projection", src, dst, span, hidden_width)?;
        future = Some(dst.slice(spec.window * width, spec.horizon * width));
    }
    if stat > 0 {
        let src = features.slice(y + hist + futr, stat);
        recorder.plan.move_columns(Move::copy(src, x.slice(y + hist_len + futr_len, stat)));
    }
    Ok(Encoded { x, future })
}

/// The columns of both, step by step.
fn beside(recorder: &mut Recorder, first: View, second: View, steps: usize) -> Result<View, LoadError> {
    let widths = [first.width / steps, second.width / steps];
    let width = widths[0] + widths[1];
    let joined = recorder.buffer(steps, width)?;
    for (src, columns, offset) in [(first, widths[0], 0), (second, widths[1], widths[0])] {
        recorder.plan.move_columns(Move {
            src,
            dst: joined.slice(offset, joined.width - offset),
            counts: [steps, columns],
            start: 0,
            src_steps: [columns as i32, 1],
            dst_steps: [width, 1],
        });
    }
    Ok(joined)
}

/// Residual blocks: `norm(lin2(relu(lin1(x))) + skip(x))`.
struct Blocks<'a> {
    archive: &'a Archive,
    normed: bool,
}

impl Blocks<'_> {
    /// The same block at each of `steps` steps.
    fn record(
        &self,
        recorder: &mut Recorder,
        name: &str,
        src: View,
        dst: View,
        steps: usize,
        hidden_width: usize,
    ) -> Result<(), LoadError> {
        let (in_width, out_width) = (src.width / steps, dst.width / steps);
        let take = |part: &str, out_width, in_width| {
            Dense::take(self.archive, &format!("{name}.{part}"), out_width, in_width)
        };
        let hidden = recorder.buffer(steps, hidden_width)?;
        let sum = if self.normed { recorder.buffer(steps, out_width)? } else { dst };
        recorder.layer(name, src, hidden, &take("lin1", hidden_width, in_width)?, Activation::Relu)?;
        recorder.layer(name, src, sum, &take("skip", out_width, in_width)?, Activation::Identity)?;
        recorder.add_layer(name, hidden, sum, &take("lin2", out_width, hidden_width)?)?;
        if self.normed {
            let norm = Norm::take(self.archive, &format!("{name}.norm"), out_width)?;
            recorder.layer_norm(name, sum, dst, &norm)?;
        }
        Ok(())
    }

    /// A block that the library makes and never asks: it has no inputs. Files without it are as good.
    fn pass_over(&self, name: &str, hidden_width: usize, out_width: usize) -> Result<(), LoadError> {
        if self.archive.shape(&format!("{name}.lin1.weight")).is_none() {
            return Ok(());
        }
        for (part, out_width, in_width) in
            [("lin1", hidden_width, 0), ("skip", out_width, 0), ("lin2", out_width, hidden_width)]
        {
            self.archive.take(&format!("{name}.{part}.weight"), &[out_width, in_width])?;
            self.archive.take(&format!("{name}.{part}.bias"), &[out_width])?;
        }
        if self.normed {
            Norm::take(self.archive, &format!("{name}.norm"), out_width)?;
        }
        Ok(())
    }
}

fn layer_count(hparams: &Hparams, name: &'static str) -> Result<usize, LoadError> {
    let count = hparams.size(name)?;
    if count > LAYERS_MAX {
        return Err(LoadError::TooLarge { what: name, len: count, len_max: LAYERS_MAX });
    }
    Ok(count)
}
