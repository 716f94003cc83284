//! When a measurement has settled: the rule of Triton's `perf_analyzer`. Pure.
//!
//! Of the last three windows, each one's rate and each one's latency are within so many per cent of their mean.

use std::time::Duration;

/// Windows that have to agree.
pub const WINDOWS: usize = 3;

/// What is compared of a window.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Point {
    /// Answers a second.
    pub rate: f64,
    /// A percentile of the latency.
    pub latency: Duration,
}

/// Whether the last three of these windows agree. Windows without an answer never do.
#[must_use]
pub fn is_stable(windows: &[Point], percent: f64) -> bool {
    let Some(last) = windows.len().checked_sub(WINDOWS).map(|from| &windows[from..]) else {
        return false;
    };
    let agree = |of: fn(&Point) -> f64| {
        let mean = last.iter().map(of).sum::<f64>() / WINDOWS as f64;
        mean > 0.0 && last.iter().all(|point| (of(point) - mean).abs() <= mean * percent / 100.0)
    };
    agree(|point| point.rate) && agree(|point| point.latency.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_windows_are_too_few() {
        check(&[(100, 10), (100, 10)], false);
    }

    #[test]
    fn the_last_three_count() {
        check(&[(100, 10), (100, 10), (100, 10)], true);
        check(&[(1, 900), (104, 10), (100, 11), (96, 10)], true);
        check(&[(100, 10), (100, 10), (100, 10), (130, 10)], false);
    }

    #[test]
    fn a_rate_that_stays_does_not_excuse_a_latency_that_grows() {
        check(&[(100, 10), (100, 20), (100, 40)], false);
    }

    #[test]
    fn the_edge_is_within() {
        check(&[(90, 10), (100, 10), (110, 10)], true);
        check(&[(89, 10), (100, 10), (111, 10)], false);
    }

    #[test]
    fn nothing_answered_is_never_stable() {
        check(&[(0, 0), (0, 0), (0, 0)], false);
    }

    #[track_caller]
    fn check(windows: &[(u32, u64)], want: bool) {
        let point =
            |&(rate, ms): &(u32, u64)| Point { rate: rate.into(), latency: Duration::from_millis(ms) };
        let points: Vec<Point> = windows.iter().map(point).collect();
        assert_eq!(is_stable(&points, 10.0), want);
    }
}
