//! What unit tests of several rooms need alike.

use peregrine_shaders::{Family, Head, ModelSpec, NormalizerKind};

/// A model of one value per step, without exogenous columns.
pub(crate) fn point_spec(window: usize, horizon: usize) -> ModelSpec {
    ModelSpec {
        name: "m".to_owned(),
        family: Family::Mlp,
        horizon,
        window,
        normalizer: NormalizerKind::Identity,
        head: Head::Point,
        hist_exog: Vec::new(),
        futr_exog: Vec::new(),
        stat_exog: Vec::new(),
        columns: vec!["mean".to_owned()],
    }
}
