//! HAR, the heterogeneous autoregression of volatility research (Corsi 2009): one pooled least-squares fit per step
//! ahead on the last value, the mean of 22 days and the mean of 66.

use peregrine_actors::scorecard::LEVELS;

use super::measures::quantile;

const MONTH_LEN: usize = 22;
const QUARTER_LEN: usize = 66;
/// One, the last value, two means.
const REGRESSORS: usize = 4;
/// A pivot that has lost this share of its diagonal is rounding error.
const PIVOT_SHARE_MIN: f64 = 1e-10;

/// The regressors depend on each other: constant series, or too few of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Collinear;

/// Fitted.
#[derive(Clone, Debug)]
pub(super) struct Har {
    /// Taken off every value before the fit, for the arithmetic's sake.
    center: f64,
    steps: Vec<Step>,
}

#[derive(Clone, Debug)]
struct Step {
    weights: [f64; REGRESSORS],
    /// Quantiles of what the fit leaves over, at [`LEVELS`]; zero for the median.
    residuals: [f64; LEVELS.len()],
}

/// Values that a series needs to have a say in every step's fit.
pub(super) fn training_len_min(horizon: usize) -> usize {
    QUARTER_LEN.saturating_add(horizon)
}

impl Har {
    /// Fits all steps on series of at least [`training_len_min`] values each.
    pub(super) fn fit(training: &[&[f32]], horizon: usize) -> Result<Self, Collinear> {
        let count = training.iter().map(|series| series.len()).sum::<usize>();
        let total: f64 = training.iter().copied().flatten().copied().map(f64::from).sum();
        let center = total / count as f64;
        let rows: Vec<Vec<[f64; REGRESSORS]>> = training
            .iter()
            .map(|series| (QUARTER_LEN..series.len()).map(|end| regressors(&series[..end], center)).collect())
            .collect();
        let steps = (0..horizon).map(|step| {
            let pairs = || {
                training.iter().zip(&rows).flat_map(move |(series, rows)| {
                    let targets = series.iter().skip(QUARTER_LEN + step);
                    rows.iter().zip(targets.map(move |&value| f64::from(value) - center))
                })
            };
            Step::fit(pairs)
        });
        Ok(Self { center, steps: steps.collect::<Result<_, _>>()? })
    }

    /// Per step the fitted value and its quantiles at [`LEVELS`], for a history of at least 66 values.
    pub(super) fn forecast(&self, history: &[f32]) -> Vec<(f64, [f64; LEVELS.len()])> {
        let row = regressors(history, self.center);
        let of_step = |step: &Step| {
            let value = self.center + dot(&step.weights, &row);
            (value, step.residuals.map(|residual| value + residual))
        };
        self.steps.iter().map(of_step).collect()
    }
}

impl Step {
    fn fit<'a, I>(pairs: impl Fn() -> I) -> Result<Self, Collinear>
    where
        I: Iterator<Item = (&'a [f64; REGRESSORS], f64)>,
    {
        let mut gram = [[0.0; REGRESSORS]; REGRESSORS];
        let mut moment = [0.0; REGRESSORS];
        for (row, target) in pairs() {
            for (i, &value) in row.iter().enumerate() {
                moment[i] += value * target;
                for (sum, &other) in gram[i].iter_mut().zip(row) {
                    *sum += value * other;
                }
            }
        }
        let weights = solve(&gram, &moment)?;
        let mut residuals: Vec<f64> = pairs().map(|(row, target)| target - dot(&weights, row)).collect();
        residuals.sort_unstable_by(f64::total_cmp);
        // The fitted value stands for the median: one forecast, not two.
        let around = |level| if level == 0.5 { 0.0 } else { quantile(&residuals, level) };
        Ok(Self { weights, residuals: LEVELS.map(around) })
    }
}

fn regressors(history: &[f32], center: f64) -> [f64; REGRESSORS] {
    let mean = |len: usize| {
        let last = &history[history.len() - len..];
        last.iter().map(|&value| f64::from(value) - center).sum::<f64>() / len as f64
    };
    [1.0, mean(1), mean(MONTH_LEN), mean(QUARTER_LEN)]
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// Solves `gram · x = moment`, gram symmetric and positive definite, by Cholesky's factors.
fn solve<const N: usize>(gram: &[[f64; N]; N], moment: &[f64; N]) -> Result<[f64; N], Collinear> {
    let mut lower = [[0.0; N]; N];
    for i in 0..N {
        for j in 0..=i {
            let rest = gram[i][j] - dot(&lower[i][..j], &lower[j][..j]);
            if i > j {
                lower[i][j] = rest / lower[j][j];
            } else if rest > PIVOT_SHARE_MIN * gram[i][i] {
                lower[i][i] = rest.sqrt();
            } else {
                return Err(Collinear);
            }
        }
    }
    let mut x = *moment;
    for i in 0..N {
        x[i] = (x[i] - dot(&lower[i][..i], &x[..i])) / lower[i][i];
    }
    for i in (0..N).rev() {
        let below: f64 = (i + 1..N).map(|k| lower[k][i] * x[k]).sum();
        x[i] = (x[i] - below) / lower[i][i];
    }
    Ok(x)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cholesky_solves_what_can_be_done_by_hand() {
        // 4x + 2y = 10, 2x + 3y = 9: x = 1.5, y = 2.
        let x = solve(&[[4.0, 2.0], [2.0, 3.0]], &[10.0, 9.0]).unwrap();
        assert!((x[0] - 1.5).abs() < 1e-14 && (x[1] - 2.0).abs() < 1e-14, "{x:?}");
        assert_eq!(solve(&[[1.0, 1.0], [1.0, 1.0]], &[1.0, 1.0]), Err(Collinear));
        assert_eq!(solve(&[[f64::NAN]], &[1.0]), Err(Collinear));
    }

    #[test]
    fn a_rule_without_noise_is_found() {
        let panel = ruled(0.0);
        let fitted = Har::fit(&slices(&panel), 1).unwrap();
        for (got, want) in fitted.steps[0].weights.iter().skip(1).zip(RULE) {
            assert!((got - want).abs() < 1e-4, "{fitted:?}");
        }
        let residuals = fitted.steps[0].residuals;
        assert!(
            residuals.is_sorted() && residuals.iter().all(|residual| residual.abs() < 1e-4),
            "{residuals:?}"
        );
    }

    #[test]
    fn the_fit_moves_with_the_level() {
        let (here, there) = (ruled(0.0), ruled(4096.0));
        let forecast = |panel: &[Vec<f32>]| Har::fit(&slices(panel), 2).unwrap().forecast(&panel[0])[1].0;
        assert!((forecast(&here) + 4096.0 - forecast(&there)).abs() < 0.01);
    }

    #[test]
    fn constant_and_straight_series_are_collinear() {
        assert_eq!(Har::fit(&[&[2.0; 200]], 3).unwrap_err(), Collinear);
        assert_eq!(Har::fit(&[], 3).unwrap_err(), Collinear);
        let line: Vec<f32> = (0..200).map(|at| at as f32).collect();
        assert_eq!(Har::fit(&[&line], 3).unwrap_err(), Collinear);
    }

    /// Weights of the last value and the two means.
    const RULE: [f64; 3] = [0.3, 0.4, 0.2];

    /// Twenty series of rough values, the last four of which follow the rule.
    fn ruled(level: f64) -> Vec<Vec<f32>> {
        let rough =
            |series: usize, at: usize| (at * (at + 7 * series)) as f64 % 17.0 - 8.0 + series as f64 / 4.0;
        let one = |number: usize| {
            let mut series: Vec<f32> =
                (0..QUARTER_LEN).map(|at| (level + rough(number, at)) as f32).collect();
            for _ in 0..4 {
                let row = regressors(&series, level);
                series.push((level + dot(&RULE, &row[1..])) as f32);
            }
            series
        };
        (1..=20).map(one).collect()
    }

    fn slices(panel: &[Vec<f32>]) -> Vec<&[f32]> {
        panel.iter().map(Vec::as_slice).collect()
    }
}
