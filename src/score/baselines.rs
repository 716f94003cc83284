//! Forecasts that need no network, at the same origins.

use peregrine_actors::scorecard::LEVELS;

use super::har::Har;
use super::measures::{Measures, NORMAL, Tally};
use super::origins::Origins;
use super::panel::Panel;

/// Values of history that the long mean is taken of.
const MEAN_LEN: usize = 500;

/// The last value stays.
pub(super) fn naive(panel: &Panel, origins: Origins) -> Measures {
    let mut tally = Tally::new(&[], origins.count());
    for origin in origins.of_panel(panel) {
        let last = origin.history().last().copied().map_or(0.0, f64::from);
        for &truth in origin.truth(origins.horizon()) {
            tally.add(origin.index, f64::from(truth), last, &[]);
        }
    }
    tally.measures()
}

/// The mean of the last 500 values, or of all where there are fewer, with normal intervals around it.
pub(super) fn long_mean(panel: &Panel, origins: Origins) -> Measures {
    let mut tally = Tally::new(&LEVELS, origins.count());
    for origin in origins.of_panel(panel) {
        let history = origin.history();
        let (mean, deviation) = mean_and_deviation(&history[history.len().saturating_sub(MEAN_LEN)..]);
        let quantiles = NORMAL.map(|z| mean + z * deviation);
        for &truth in origin.truth(origins.horizon()) {
            tally.add(origin.index, f64::from(truth), mean, &quantiles);
        }
    }
    tally.measures()
}

/// The pooled regression.
pub(super) fn har(panel: &Panel, origins: Origins, fitted: &Har) -> Measures {
    let mut tally = Tally::new(&LEVELS, origins.count());
    for origin in origins.of_panel(panel) {
        for (&truth, (value, quantiles)) in
            origin.truth(origins.horizon()).iter().zip(fitted.forecast(origin.history()))
        {
            tally.add(origin.index, f64::from(truth), value, &quantiles);
        }
    }
    tally.measures()
}

/// The deviation is that of a new value from the mean, which is itself an estimate.
fn mean_and_deviation(values: &[f32]) -> (f64, f64) {
    let count = values.len() as f64;
    let mean = values.iter().copied().map(f64::from).sum::<f64>() / count;
    let squares: f64 = values.iter().map(|&value| (f64::from(value) - mean).powi(2)).sum();
    (mean, (squares / (count - 1.0) * (1.0 + 1.0 / count)).sqrt())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_value_is_off_by_what_came_after() {
        let measures = naive(&panel(), Origins::new(2, 1).unwrap());
        assert_eq!(measures.mae_by_origin, [2.0, 4.0]);
    }

    #[test]
    fn the_mean_is_of_what_was_known() {
        let measures = long_mean(&panel(), Origins::new(2, 2).unwrap());
        // Mean 2 of 1 and 3; then came 5 and 9.
        assert_eq!((measures.mae, measures.points), (5.0, 2));
    }

    #[test]
    fn the_deviation_of_a_new_value_counts_the_means_own() {
        // Squares 1 + 1 by 2 − 1, times 1 + 1/2.
        assert_eq!(mean_and_deviation(&[1.0, 3.0]), (2.0, 3.0_f64.sqrt()));
    }

    fn panel() -> Panel {
        Panel::read("unique_id,ds,y\nA,1,1\nA,2,3\nA,3,5\nA,4,9\n".as_bytes(), "y", &[]).unwrap()
    }
}
