//! Levels of intervals, in percent: which a model gives, and which of them when none are asked for.

use peregrine_shaders::{Head, ModelSpec, head};

/// For heads that can give any level.
const LEVELS_DEFAULT: [f64; 2] = [80.0, 95.0];

/// The levels that a model gives when none are asked for, rising.
pub(crate) fn own_levels(spec: &ModelSpec) -> Vec<f64> {
    match &spec.head {
        Head::Point => Vec::new(),
        Head::StudentT | Head::Normal => LEVELS_DEFAULT.to_vec(),
        Head::Quantiles(quantiles) => {
            let upper = quantiles.iter().filter(|&&quantile| quantile > 0.5);
            let mut levels: Vec<f64> = upper
                .map(|&quantile| ((2.0 * quantile - 1.0) * 1e8).round() / 1e6)
                .filter(|&level| offers(&spec.head, level))
                .collect();
            levels.sort_by(f64::total_cmp);
            levels
        }
    }
}

/// Can a head give the bounds of this level?
pub(crate) fn offers(of: &Head, level: f64) -> bool {
    match of {
        Head::Point => false,
        Head::StudentT | Head::Normal => true,
        Head::Quantiles(_) => head::interval_columns(of, level).is_some(),
    }
}

/// What is said to whoever asked for another level.
pub(crate) fn offered(spec: &ModelSpec) -> String {
    let own: Vec<String> = own_levels(spec).iter().map(f64::to_string).collect();
    match &spec.head {
        Head::StudentT | Head::Normal => "it gives all above 0 and below 100".to_owned(),
        Head::Point | Head::Quantiles(_) if own.is_empty() => "it gives none".to_owned(),
        Head::Point | Head::Quantiles(_) => format!("it gives {}", own.join(", ")),
    }
}
