//! From the network's last axis to the answer's columns, and from an answer to intervals.
//!
//! Intervals of a distribution come from its exact quantile function, not from samples.

use statrs::distribution::{ContinuousCDF, Normal, StudentsT};

use crate::normalizer::{Normalizer, Scale};
use crate::{Head, ModelSpec};

/// Levels read from f32 files are this far from the decimal that was meant.
pub(crate) const LEVEL_SLACK: f64 = 1e-6;
/// From here on the library's quantile of Student's t loses digits, and the expansion has them all.
const FREEDOM_LARGE: f64 = 1000.0;
/// Levels of a model, as a rule.
const LEVELS_FEW: usize = 32;

/// Maps one step: `raw` is the network's, still normalized; `answer` gets one number per column.
pub(crate) fn answer(head: &Head, raw: &[f64], normalizer: Normalizer, at: Scale, answer: &mut [f32]) {
    match head {
        Head::Point | Head::Quantiles(_) => {
            for (value, &normalized) in answer.iter_mut().zip(raw) {
                *value = normalizer.invert(normalized, at) as f32;
            }
        }
        Head::StudentT => {
            let loc = (raw[1] * at.scale + at.shift) as f32;
            let scale = (softplus(raw[2]) + 0.1) * at.scale;
            answer.copy_from_slice(&[loc, (3.0 + softplus(raw[0])) as f32, loc, scale as f32]);
        }
        Head::Normal => {
            let loc = (raw[0] * at.scale + at.shift) as f32;
            let scale = (softplus(raw[1]) + 0.2) * at.scale;
            answer.copy_from_slice(&[loc, loc, scale as f32]);
        }
    }
}

/// Columns of the bounds of the central interval that holds `level` percent, where the model has trained them.
#[must_use]
pub fn interval_columns(head: &Head, level: f64) -> Option<(usize, usize)> {
    let Head::Quantiles(levels) = head else {
        return None;
    };
    let (low, high) = tails(level)?;
    Some((level_column(levels, low)?, level_column(levels, high)?))
}

/// Column of a quantile level, where the model has trained it.
#[must_use]
pub fn level_column(levels: &[f64], wanted: f64) -> Option<usize> {
    levels.iter().position(|level| (level - wanted).abs() < LEVEL_SLACK)
}

/// Lower and upper bound, per step, of the central interval that holds `level` percent. `row` is one row of a
/// forecast, `[h, C]`. `None` for a point forecast, a level that was not trained, or one outside `(0, 100)`.
#[must_use]
pub fn bounds(spec: &ModelSpec, row: &[f32], level: f64) -> Option<(Vec<f32>, Vec<f32>)> {
    let steps = row.chunks_exact(spec.columns.len());
    match &spec.head {
        Head::Point => None,
        Head::Quantiles(_) => {
            let (low, high) = interval_columns(&spec.head, level)?;
            Some(steps.map(|step| (step[low], step[high])).unzip())
        }
        Head::StudentT | Head::Normal => {
            let (low, high) = tails(level)?;
            steps
                .map(|step| Some((quantile(&spec.head, step, low)?, quantile(&spec.head, step, high)?)))
                .collect()
        }
    }
}

/// The median per step; the point forecast where there is no distribution. Between trained levels the two that
/// enclose one half are interpolated. `None`: all levels are on one side of it.
#[must_use]
pub fn median(spec: &ModelSpec, row: &[f32]) -> Option<Vec<f32>> {
    let steps = row.chunks_exact(spec.columns.len());
    match &spec.head {
        // Both distributions are symmetric: the median is the mean.
        Head::Point | Head::StudentT | Head::Normal => Some(steps.map(|step| step[0]).collect()),
        Head::Quantiles(levels) => {
            let mix = middle(levels)?;
            Some(steps.map(|step| mix.map(|(column, weight)| step[column] * weight).iter().sum()).collect())
        }
    }
}

/// Whether answers of this head have a median.
#[must_use]
pub fn has_median(head: &Head) -> bool {
    match head {
        Head::Point | Head::StudentT | Head::Normal => true,
        Head::Quantiles(levels) => middle(levels).is_some(),
    }
}

/// Columns and weights that make the level one half.
fn middle(levels: &[f64]) -> Option<[(usize, f32); 2]> {
    let nearest = |candidates: &mut dyn Iterator<Item = usize>| {
        candidates.min_by(|&a, &b| (levels[a] - 0.5).abs().total_cmp(&(levels[b] - 0.5).abs()))
    };
    let low = nearest(&mut (0..levels.len()).filter(|&column| levels[column] <= 0.5 + LEVEL_SLACK))?;
    let high = nearest(&mut (0..levels.len()).filter(|&column| levels[column] >= 0.5 - LEVEL_SLACK))?;
    let weight = if low == high { 0.0 } else { (0.5 - levels[low]) / (levels[high] - levels[low]) };
    Some([(low, (1.0 - weight) as f32), (high, weight as f32)])
}

/// Levels and columns of the quantiles that [`median`] and [`bounds`] never give: none is as far on the other side of one
/// half.
pub fn lone_quantiles(head: &Head) -> impl Iterator<Item = (f64, usize)> {
    let levels = match head {
        Head::Quantiles(levels) => levels.as_slice(),
        Head::Point | Head::StudentT | Head::Normal => &[],
    };
    let lone = |&(column, &level): &(usize, &f64)| {
        (level - 0.5).abs() >= LEVEL_SLACK
            && level_column(levels, level) == Some(column)
            && level_column(levels, 1.0 - level).is_none()
    };
    levels.iter().enumerate().filter(lone).map(|(column, &level)| (level, column))
}

/// One column of a row of a forecast, `[h, C]`, per step.
#[must_use]
pub fn column(spec: &ModelSpec, row: &[f32], at: usize) -> Vec<f32> {
    row.chunks_exact(spec.columns.len()).map(|step| step[at]).collect()
}

/// Whether any of these steps, `[steps, C]`, has a quantile above one of a higher level: heads that are trained apart may
/// answer so. Distributions and points cannot.
#[must_use]
pub fn crosses(head: &Head, steps: &[f32]) -> bool {
    let Head::Quantiles(levels) = head else { return false };
    // Every row of every answer is asked: as many levels as models have need no memory of their own.
    let (mut few, mut many) = ([0; LEVELS_FEW], Vec::new());
    let columns = if levels.len() <= LEVELS_FEW {
        &mut few[..levels.len()]
    } else {
        many.resize(levels.len(), 0);
        &mut many[..]
    };
    columns.iter_mut().enumerate().for_each(|(at, column)| *column = at);
    columns.sort_unstable_by(|a, b| levels[*a].total_cmp(&levels[*b]));
    let disordered = |step: &[f32]| columns.windows(2).any(|pair| step[pair[0]] > step[pair[1]]);
    // Multivariate answers have their quantiles innermost too.
    steps.chunks_exact(levels.len().max(1)).any(disordered)
}

fn quantile(head: &Head, step: &[f32], probability: f64) -> Option<f32> {
    let number = |column: usize| step.get(column).map(|&value| f64::from(value));
    let value = match head {
        Head::StudentT => {
            let (freedom, loc, scale) = (number(1)?, number(2)?, number(3)?);
            if freedom > FREEDOM_LARGE {
                loc + scale * student_quantile_near_normal(freedom, probability)
            } else {
                StudentsT::new(loc, scale, freedom).ok()?.inverse_cdf(probability)
            }
        }
        Head::Normal => Normal::new(number(1)?, number(2)?).ok()?.inverse_cdf(probability),
        Head::Point | Head::Quantiles(_) => return None,
    };
    // A bound that no float can hold is at the last one: infinity is no number to whoever reads the answer.
    Some(value.clamp(f64::from(f32::MIN), f64::from(f32::MAX)) as f32)
}

/// Cornish-Fisher expansion around the normal quantile.
fn student_quantile_near_normal(freedom: f64, probability: f64) -> f64 {
    let z = Normal::standard().inverse_cdf(probability);
    let z2 = z * z;
    let first = z * (z2 + 1.0) / 4.0;
    let second = z * ((5.0 * z2 + 16.0) * z2 + 3.0) / 96.0;
    let third = z * (((3.0 * z2 + 19.0) * z2 + 17.0) * z2 - 15.0) / 384.0;
    z + (first + (second + third / freedom) / freedom) / freedom
}

/// Probabilities below which the interval starts and ends.
fn tails(level: f64) -> Option<(f64, f64)> {
    (level > 0.0 && level < 100.0).then(|| ((1.0 - level / 100.0) / 2.0, (1.0 + level / 100.0) / 2.0))
}

fn softplus(x: f64) -> f64 {
    if x > 20.0 { x } else { x.exp().ln_1p() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Family, NormalizerKind};

    fn spec(head: Head) -> ModelSpec {
        ModelSpec {
            name: "test".to_owned(),
            family: Family::Nhits,
            horizon: 1,
            window: 4,
            series: 1,
            normalizer: NormalizerKind::Identity,
            columns: (0..head.answer_width()).map(|column| column.to_string()).collect(),
            head,
            hist_exog: Vec::new(),
            futr_exog: Vec::new(),
            stat_exog: Vec::new(),
        }
    }

    #[track_caller]
    fn check(head: Head, row: &[f32], level: f64, wanted: Option<(f64, f64)>) {
        let got = bounds(&spec(head), row, level);
        assert_eq!(got.is_some(), wanted.is_some(), "{got:?}");
        if let (Some((low, high)), Some((wanted_low, wanted_high))) = (got, wanted) {
            for (got, wanted) in [(low[0], wanted_low), (high[0], wanted_high)] {
                assert!((f64::from(got) - wanted).abs() <= 1e-6 * wanted.abs(), "{got} wanted {wanted}");
            }
        }
    }

    #[test]
    fn trained_levels_are_picked_by_column() {
        let head = Head::Quantiles(vec![0.5, 0.025, 0.1, 0.9, 0.975]);
        check(head.clone(), &[5.0, 1.0, 2.0, 8.0, 9.0], 95.0, Some((1.0, 9.0)));
        check(head.clone(), &[5.0, 1.0, 2.0, 8.0, 9.0], 80.0, Some((2.0, 8.0)));
        check(head, &[5.0, 1.0, 2.0, 8.0, 9.0], 90.0, None);
    }

    #[test]
    fn quantiles_without_a_partner_are_lone() {
        let lone = |levels: &[f64]| lone_quantiles(&Head::Quantiles(levels.to_vec())).collect::<Vec<_>>();
        assert_eq!(lone(&[0.5, 0.025, 0.1, 0.9, 0.975]), []);
        assert_eq!(lone(&[0.6, 0.9]), [(0.6, 0), (0.9, 1)]);
        assert_eq!(lone(&[0.9, 0.3, 0.1]), [(0.3, 1)]);
        assert_eq!(lone_quantiles(&Head::StudentT).count(), 0);
        assert_eq!(column(&spec(Head::Quantiles(vec![0.6, 0.9])), &[1.0, 2.0, 3.0, 4.0], 1), [2.0, 4.0]);
    }

    #[test]
    fn a_point_forecast_has_no_interval() {
        check(Head::Point, &[1.0], 95.0, None);
    }

    #[test]
    fn levels_outside_the_open_range_have_no_interval() {
        for level in [0.0, 100.0, -1.0, f64::NAN] {
            check(Head::Normal, &[0.0, 0.0, 1.0], level, None);
        }
    }

    #[test]
    fn normal_bounds_match_the_tables() {
        check(
            Head::Normal,
            &[10.0, 10.0, 2.0],
            95.0,
            Some((10.0 - 2.0 * 1.959_963_985, 10.0 + 2.0 * 1.959_963_985)),
        );
    }

    #[test]
    fn a_bound_beyond_the_floats_is_the_last_of_them() {
        let (max, beyond) = (f64::from(f32::MAX), 3e38 + 1.281_551_566 * 1e38);
        assert!(beyond > max);
        check(Head::Normal, &[3e38, 3e38, 1e38], 80.0, Some((3e38 - 1.281_551_566 * 1e38, max)));
        check(Head::StudentT, &[-3e38, 5.0, -3e38, 1e38], 80.0, Some((-max, -3e38 + 1.475_884_049 * 1e38)));
    }

    #[test]
    fn student_bounds_match_the_tables() {
        for (level, freedom, t) in [
            (95.0, 3.0, 3.182_446_305),
            (95.0, 5.0, 2.570_581_836),
            (95.0, 30.0, 2.042_272_456),
            (95.0, 1e6, 1.959_966_359),
            (95.0, 1e9, 1.959_963_985),
            (80.0, 5.0, 1.475_884_049),
            (99.9, 4.0, 8.610_301_581),
        ] {
            check(Head::StudentT, &[0.0, freedom, 0.0, 1.0], level, Some((-t, t)));
        }
    }

    #[test]
    fn both_ways_to_a_student_quantile_agree_where_they_meet() {
        for probability in [0.000_5, 0.025, 0.1, 0.4, 0.9, 0.999] {
            let exact = StudentsT::new(0.0, 1.0, FREEDOM_LARGE).unwrap().inverse_cdf(probability);
            let expanded = student_quantile_near_normal(FREEDOM_LARGE, probability);
            assert!((exact - expanded).abs() < 1e-7 * exact.abs(), "{exact} and {expanded} at {probability}");
        }
    }

    #[test]
    fn quantiles_cross_where_a_lower_one_is_above_a_higher() {
        let head = Head::Quantiles(vec![0.5, 0.1, 0.9]);
        let fine = [2.0, 1.0, 3.0, 4.0, 4.0, 5.0];
        assert!(!crosses(&head, &fine), "equal ones are in order");
        assert!(crosses(&head, &[2.0, 1.0, 3.0, 4.0, 4.1, 5.0]) && crosses(&head, &[2.0, 1.0, 1.9]));
        let many = Head::Quantiles((1..=40).map(|level| f64::from(level) / 41.0).collect());
        let mut rising: Vec<f32> = (0..40).map(|at| at as f32).collect();
        assert!(!crosses(&many, &rising));
        rising.swap(38, 39);
        assert!(crosses(&many, &rising));
        assert!(!crosses(&Head::Point, &[2.0, 1.0]) && !crosses(&Head::Normal, &[2.0, 1.0, 0.5]));
    }

    #[test]
    fn the_median_is_interpolated_between_the_levels_that_enclose_it() {
        let row = [1.0, 3.0];
        assert_eq!(median(&spec(Head::Quantiles(vec![0.25, 0.75])), &row), Some(vec![2.0]));
        assert_eq!(median(&spec(Head::Quantiles(vec![0.5, 0.75])), &row), Some(vec![1.0]));
        for levels in [vec![0.9, 0.75], vec![0.1, 0.4]] {
            assert_eq!(median(&spec(Head::Quantiles(levels.clone())), &row), None, "{levels:?}");
            assert!(!has_median(&Head::Quantiles(levels)));
        }
        assert_eq!(median(&spec(Head::StudentT), &[7.0, 5.0, 7.0, 1.0]), Some(vec![7.0]));
    }
}
