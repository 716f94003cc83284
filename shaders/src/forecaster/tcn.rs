//! TCN: dilated convolutions that look back only, then a layer along time and a decoder on every step.

use std::sync::Arc;

use crate::loader::{Archive, Blueprint, LoadError};
use crate::{Activation, Affine, Init, Linear, PlanBuilder, Repeat, View, Weights};

use super::dense::{Budget, Dense};
use super::network::{Anchor, Layout, Network, Order};
use super::steps::{self, Decoder, LAYERS_MAX, StepInput};

/// Taps of all convolutions of a plan; each is a launch on a device.
const TAPS_MAX: usize = 1 << 12;

pub(super) fn build(blueprint: &Blueprint, archive: &Archive) -> Result<Network, LoadError> {
    let Blueprint { spec, hparams } = blueprint;
    let mut plan = PlanBuilder::new(&spec.name);
    let input = StepInput::of(spec, plan.input(Layout::of(spec).width()), false);
    let mut budget = Budget::default();
    let channels = hparams.size("encoder_hidden_size")?;
    let shape = Shape { window: spec.window, kernel: hparams.size("kernel_size")?, channels };
    let activation = steps::activation(hparams, "encoder_activation")?;
    let dilations = hparams.sizes("dilations")?;
    if dilations.is_empty() || dilations.len() > LAYERS_MAX {
        return Err(LoadError::parameter("dilations", "is empty or too long"));
    }
    let taps = dilations.iter().map(|&dilation| shape.taps_in_reach(dilation)).sum();
    if taps > TAPS_MAX {
        return Err(LoadError::TooLarge { what: "the count of taps", len: taps, len_max: TAPS_MAX });
    }

    let mut src = input.window(&mut plan);
    let sum = budget.buffer(&mut plan, spec.window, channels)?;
    let active = budget.buffer(&mut plan, spec.window, channels)?;
    for (number, &dilation) in dilations.iter().enumerate() {
        let in_width = if number == 0 { input.width() } else { channels };
        let convolution = shape.take(archive, &mut budget, number, in_width, dilation)?;
        convolution.record(&mut plan, src, sum);
        plan.affine(Affine {
            src: sum,
            dst: active,
            scale: Arc::from([1.0]),
            shift: Arc::from([0.0]),
            activation,
            add: None,
        });
        src = active;
    }

    const NAME: &str = "context_adapter";
    budget.spend(spec.horizon, spec.window)?;
    let adapter = Dense::take(archive, NAME, spec.horizon, spec.window)?.weights(NAME)?;
    let context = steps::along_time(&mut plan, &mut budget, src, &adapter)?;
    let widths = steps::decoder_widths(hparams, channels + spec.futr_exog.len(), spec.head.network_width())?;
    let activation = steps::activation(hparams, "decoder_activation")?;
    let decoder = Decoder::take(archive, &mut budget, "mlp_decoder", &widths, activation)?;
    let output = steps::decode_horizon(&mut plan, &mut budget, spec, &input, &decoder, context)?;
    Ok(Network { plan: plan.finish(output), order: Order::OldestFirst, anchor: Anchor::None, masked: false })
}

/// What all convolutions share.
#[derive(Clone, Copy)]
struct Shape {
    window: usize,
    kernel: usize,
    channels: usize,
}

/// One convolution, tap by tap: the layer that looks `shift` steps back, the one for the present first.
struct Convolution {
    window: usize,
    taps: Vec<(usize, Arc<Weights>)>,
}

impl Shape {
    /// Taps that see more than the zeros before the window.
    fn taps_in_reach(self, dilation: usize) -> usize {
        self.kernel.min(self.window.div_ceil(dilation))
    }

    fn take(
        self,
        archive: &Archive,
        budget: &mut Budget,
        number: usize,
        in_width: usize,
        dilation: usize,
    ) -> Result<Convolution, LoadError> {
        let Self { window, kernel, channels } = self;
        let name = format!("hist_encoder.tcn.{number}.conv");
        budget.spend(channels, in_width.saturating_mul(kernel))?;
        let stored = take_twin(archive, number, "weight", &[channels, in_width, kernel])?;
        let bias = take_twin(archive, number, "bias", &[channels])?;
        let tap = |back: usize| -> Result<(usize, Arc<Weights>), LoadError> {
            let matrix = stored.iter().skip(kernel - 1 - back).step_by(kernel).copied().collect();
            // The bias is added once.
            let bias = if back == 0 { bias.clone() } else { vec![0.0; channels] };
            let dense = Dense { out_width: channels, in_width, matrix, bias };
            Ok((back * dilation, dense.weights(&name)?))
        };
        let taps = (0..self.taps_in_reach(dilation)).map(tap).collect::<Result<_, _>>()?;
        Ok(Convolution { window, taps })
    }
}

impl Convolution {
    /// The sums without activation. A tap leaves out the steps for which it would look before the window: there it
    /// adds nothing.
    fn record(&self, plan: &mut PlanBuilder, src: View, dst: View) {
        for (shift, weights) in &self.taps {
            let count = self.window - shift;
            let (in_width, out_width) = (weights.in_width, weights.out_width);
            plan.linear(Linear {
                src: src.slice(0, count * in_width),
                dst: dst.slice(shift * out_width, count * out_width),
                weights: Arc::clone(weights),
                init: if *shift == 0 { Init::Bias } else { Init::Accumulate },
                activation: Activation::Identity,
                mask: None,
                repeat: Repeat { count, src_step: in_width, dst_step: out_width },
            });
        }
    }
}

/// A convolution's tensor, which the library keeps under two names and stores under either or both.
fn take_twin(archive: &Archive, number: usize, kind: &str, shape: &[usize]) -> Result<Vec<f64>, LoadError> {
    let first = format!("hist_encoder.tcn.{number}.conv.{kind}");
    let second = format!("hist_encoder.tcn.{number}.causalconv.0.{kind}");
    match (archive.shape(&first), archive.shape(&second)) {
        (Some(_), Some(_)) => {
            let values = archive.take(&first, shape)?;
            if archive.take(&second, shape)? != values {
                let problem = format!("differs from `{second}`, which is the same tensor");
                return Err(LoadError::parameter(first, problem));
            }
            Ok(values)
        }
        (None, Some(_)) => archive.take(&second, shape),
        _ => archive.take(&first, shape),
    }
}
