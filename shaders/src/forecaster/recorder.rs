//! Records layers that repeat along a row, and counts weights and columns before they are allocated.

use crate::loader::LoadError;
use crate::{Activation, Affine, Init, LayerNorm, Linear, ModelSpec, PlanBuilder, Repeat, View};

use super::dense::{Budget, Dense};
use super::network::Layout;
use super::norm::Norm;

/// Columns of all buffers of one plan together.
const ROW_LEN_MAX: usize = 1 << 21;
/// The library's layer norms all use it.
const LAYER_NORM_EPSILON: f32 = 1e-5;

/// A plan under construction.
pub(super) struct Recorder {
    pub(super) plan: PlanBuilder,
    budget: Budget,
    row_len: usize,
}

impl Recorder {
    /// An empty plan, and its `features` input.
    pub(super) fn new(spec: &ModelSpec) -> (Self, View) {
        let mut plan = PlanBuilder::new(&spec.name);
        let features = plan.input(Layout::of(spec).width());
        (Self { plan, budget: Budget::default(), row_len: 0 }, features)
    }

    /// A buffer of `steps · width` columns.
    pub(super) fn buffer(&mut self, steps: usize, width: usize) -> Result<View, LoadError> {
        let len = steps.saturating_mul(width).saturating_add(self.row_len);
        if len > ROW_LEN_MAX {
            return Err(LoadError::TooLarge { what: "the plan's row length", len, len_max: ROW_LEN_MAX });
        }
        self.row_len = len;
        Ok(self.plan.buffer(steps * width))
    }

    /// The layer at as many places as `dst` has room for, its sources spread evenly over `src`.
    pub(super) fn layer(
        &mut self,
        name: &str,
        src: View,
        dst: View,
        layer: &Dense,
        activation: Activation,
    ) -> Result<(), LoadError> {
        self.repeated(name, src, dst, layer, Init::Bias, activation)
    }

    /// As [`Self::layer`], added to what `dst` holds.
    pub(super) fn add_layer(
        &mut self,
        name: &str,
        src: View,
        dst: View,
        layer: &Dense,
    ) -> Result<(), LoadError> {
        self.repeated(name, src, dst, layer, Init::Accumulate, Activation::Identity)
    }

    fn repeated(
        &mut self,
        name: &str,
        src: View,
        dst: View,
        layer: &Dense,
        init: Init,
        activation: Activation,
    ) -> Result<(), LoadError> {
        self.budget.spend(layer.out_width, layer.in_width)?;
        let weights = layer.weights(name)?;
        let repeat = match dst.width / layer.out_width {
            1 => Repeat::ONCE,
            count => {
                let src_step = (src.width - layer.in_width) / (count - 1);
                Repeat { count, src_step, dst_step: layer.out_width }
            }
        };
        self.plan.linear(Linear { init, repeat, ..Linear::plain(src, dst, weights, activation) });
        Ok(())
    }

    /// Scale and shift, and `add` on top.
    pub(super) fn norm(
        &mut self,
        name: &str,
        src: View,
        dst: View,
        norm: &Norm,
        add: Option<View>,
    ) -> Result<(), LoadError> {
        self.budget.spend(2, norm.scale.len())?;
        let [scale, shift] = norm.vectors(name)?;
        self.plan.affine(Affine { src, dst, scale, shift, activation: Activation::Identity, add });
        Ok(())
    }

    /// Layer normalization with its affine part.
    pub(super) fn layer_norm(
        &mut self,
        name: &str,
        src: View,
        dst: View,
        norm: &Norm,
    ) -> Result<(), LoadError> {
        self.budget.spend(2, norm.scale.len())?;
        let [scale, shift] = norm.vectors(name)?;
        self.plan.layer_norm(LayerNorm { src, dst, scale, shift, epsilon: LAYER_NORM_EPSILON });
        Ok(())
    }
}
