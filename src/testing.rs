//! What unit tests of several rooms need alike.

use peregrine_shaders::{Family, Head, ModelSpec, NormalizerKind};

/// A model of one value per step, without exogenous columns.
pub(crate) fn point_spec(window: usize, horizon: usize) -> ModelSpec {
    ModelSpec {
        name: "m".to_owned(),
        family: Family::Mlp,
        horizon,
        window,
        series: 1,
        normalizer: NormalizerKind::Identity,
        head: Head::Point,
        hist_exog: Vec::new(),
        futr_exog: Vec::new(),
        stat_exog: Vec::new(),
        columns: vec!["mean".to_owned()],
    }
}

/// A model of `series` series at once, with as many columns as names.
pub(crate) fn series_spec(window: usize, horizon: usize, series: usize, columns: &[&str]) -> ModelSpec {
    ModelSpec {
        family: Family::Tsmixer,
        series,
        columns: columns.iter().map(|&name| name.to_owned()).collect(),
        ..point_spec(window, horizon)
    }
}
