//! What a loss function makes of the network's last axis: the head, and names for the answer's columns.

use crate::Head;

use super::LoadError;

const POINT_LOSSES: [&str; 9] =
    ["MAE", "MSE", "RMSE", "MAPE", "SMAPE", "MASE", "relMSE", "HuberLoss", "Huber"];
const QUANTILE_LOSSES: [&str; 2] = ["MQLoss", "HuberMQLoss"];
const LEVELS_MAX: usize = 1024;

/// `quantiles` and `distribution` come from the file; `None` where it says nothing.
pub(crate) fn head(
    loss: &str,
    quantiles: Option<Vec<f64>>,
    distribution: Option<&str>,
) -> Result<Head, LoadError> {
    if POINT_LOSSES.contains(&loss) {
        return Ok(Head::Point);
    }
    if QUANTILE_LOSSES.contains(&loss) {
        let levels = quantiles.ok_or_else(|| LoadError::parameter("loss.quantiles", "is missing"))?;
        if levels.is_empty() || levels.len() > LEVELS_MAX {
            return Err(LoadError::parameter("loss.quantiles", format!("holds {} levels", levels.len())));
        }
        if let Some(level) = levels.iter().find(|level| !(**level > 0.0 && **level < 1.0)) {
            return Err(LoadError::parameter("loss.quantiles", format!("{level} is not between 0 and 1")));
        }
        return Ok(Head::Quantiles(levels));
    }
    match (loss, distribution) {
        ("DistributionLoss", Some("StudentT")) => Ok(Head::StudentT),
        ("DistributionLoss", Some("Normal")) => Ok(Head::Normal),
        ("DistributionLoss", Some(other)) => Err(LoadError::unsupported(format!("distribution `{other}`"))),
        _ => Err(LoadError::unsupported(format!("loss `{loss}`"))),
    }
}

/// Names in the order of the answer's last axis.
pub(crate) fn names(head: &Head) -> Vec<String> {
    match head {
        Head::Point => vec!["point".to_owned()],
        Head::Quantiles(levels) => levels.iter().map(|&level| level_name(level)).collect(),
        Head::StudentT => ["mean", "df", "loc", "scale"].map(str::to_owned).to_vec(),
        Head::Normal => ["mean", "loc", "scale"].map(str::to_owned).to_vec(),
    }
}

/// `0.5` → `median`, `0.025` → `lo-95`, `0.9` → `hi-80`.
fn level_name(level: f64) -> String {
    let percent = ((1.0 - 2.0 * level).abs() * 100.0 * 1e4).round() / 1e4;
    if percent == 0.0 {
        return "median".to_owned();
    }
    format!("{}-{percent}", if level < 0.5 { "lo" } else { "hi" })
}
