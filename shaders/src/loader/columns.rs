//! What a loss function makes of the network's last axis: the head, and names for the answer's columns.

use crate::Head;
use crate::head::LEVEL_SLACK;

use super::LoadError;

const POINT_LOSSES: [&str; 9] =
    ["MAE", "MSE", "RMSE", "MAPE", "SMAPE", "MASE", "relMSE", "HuberLoss", "Huber"];
const QUANTILE_LOSSES: [&str; 2] = ["MQLoss", "HuberMQLoss"];
const LEVELS_MAX: usize = 1024;
/// The library rounds percents in names to hundredths.
const NAME_SLACK: f64 = 3e-5;

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
        let mut rising = levels.clone();
        rising.sort_by(f64::total_cmp);
        if let Some(pair) = rising.windows(2).find(|pair| pair[1] - pair[0] < LEVEL_SLACK) {
            return Err(LoadError::parameter("loss.quantiles", format!("holds {} more than once", pair[0])));
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

/// Names that a file gives the answer's columns, one for each: those with a meaning must mean their column.
///
/// # Errors
/// Names the first that means another column, or that is there twice.
pub(crate) fn check(head: &Head, given: &[String]) -> Result<(), LoadError> {
    let wanted = names(head);
    for (at, (name, own)) in given.iter().zip(&wanted).enumerate() {
        let level = match head {
            Head::Quantiles(levels) => Some(levels[at]),
            // The middle of what is symmetric.
            Head::Point | Head::StudentT | Head::Normal => (at == 0).then_some(0.5),
        };
        let means_other = name != own && wanted.contains(name)
            || level_of(name)
                .is_some_and(|claimed| level.is_none_or(|level| (level - claimed).abs() > NAME_SLACK));
        if means_other {
            let problem = format!("calls column {} `{name}`, which by the loss is `{own}`", at + 1);
            return Err(LoadError::parameter("expected_columns", problem));
        }
        if given[..at].contains(name) {
            return Err(LoadError::parameter("expected_columns", format!("names `{name}` twice")));
        }
    }
    Ok(())
}

/// `median` → `0.5`, `lo-95` and `lo-95.0` → `0.025`; `None`: the name speaks of no level.
fn level_of(name: &str) -> Option<f64> {
    if name == "median" {
        return Some(0.5);
    }
    let (side, percent) = name.split_once('-')?;
    let half = percent.parse::<f64>().ok()? / 200.0;
    match side {
        "lo" => Some(0.5 - half),
        "hi" => Some(0.5 + half),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_column_is_not_called_what_another_one_is() {
        let quantiles = Head::Quantiles(vec![0.5, 0.025, 0.1, 0.9, 0.975]);
        let good = "median lo-95 lo-80 hi-80 hi-95";
        for names in [good, "median lo-95.0 lo-80.0 hi-80.0 hi-95.0", "median bottom low high top"] {
            says(&quantiles, names, None);
        }
        let swapped = "calls column 2 `hi-95`, which by the loss is `lo-95`";
        says(&quantiles, "median hi-95 lo-80 hi-80 lo-95", Some(swapped));
        says(&quantiles, "median lo-95 lo-90 hi-80 hi-95", Some("calls column 3 `lo-90`"));
        says(&quantiles, "low median lo-80 hi-80 hi-95", Some("calls column 2 `median`"));
        says(&quantiles, "a b c d a", Some("names `a` twice"));
        says(&Head::Quantiles(vec![1.0 / 3.0]), "lo-33.33", None);
        says(&Head::StudentT, "mean df loc scale", None);
        says(
            &Head::StudentT,
            "mean df scale loc",
            Some("calls column 3 `scale`, which by the loss is `loc`"),
        );
        for (name, problem) in [("point", None), ("vol", None), ("median", None), ("lo-80", Some("`lo-80`"))]
        {
            says(&Head::Point, name, problem);
        }
    }

    #[test]
    fn names_of_its_own_contradict_no_head() {
        let levels = vec![0.5, 0.025, 0.1, 0.9, 0.975, 0.333_333, 0.000_01, 0.999_99];
        for head in [Head::Point, Head::StudentT, Head::Normal, Head::Quantiles(levels)] {
            check(&head, &names(&head)).unwrap();
        }
    }

    #[test]
    fn a_level_is_there_once() {
        let of = |levels: &[f64]| head("MQLoss", Some(levels.to_vec()), None);
        assert!(of(&[0.5, 0.1, 0.9]).is_ok());
        for levels in [&[0.5, 0.5, 0.5][..], &[0.1, 0.9, 0.1]] {
            let problem = of(levels).unwrap_err().to_string();
            assert!(problem.contains("loss.quantiles") && problem.contains("more than once"), "{problem}");
        }
    }

    #[track_caller]
    fn says(head: &Head, names: &str, problem: Option<&str>) {
        let names: Vec<String> = names.split(' ').map(str::to_owned).collect();
        match (check(head, &names), problem) {
            (Ok(()), None) => {}
            (Err(error), Some(problem)) => assert!(error.to_string().contains(problem), "{error}"),
            (got, wanted) => panic!("{names:?}: {got:?}, wanted {wanted:?}"),
        }
    }
}
