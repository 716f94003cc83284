//! When the intervals of a version hold so little of the truth that it is not to answer any more.
//!
//! Pure. That is a fault of what was learned, on whichever device it is computed: no circuit of a device helps, another
//! version does.

use super::canary::Fault;
use crate::scorecard::Score;

/// What the intervals of a version have to hold.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct CoverageLimits {
    /// An interval may hold less than it is meant to by this share, 0 to 1.
    pub shortfall: f64,
    /// Values, weighted, that must have met their truth before that is looked at.
    pub values_min: f64,
}

impl CoverageLimits {
    /// What is wrong with a version that was scored so; `None`: too little is known.
    pub(crate) fn judge(&self, score: &Score) -> Option<Result<(), Fault>> {
        let worst = score.worst_interval(self.values_min)?;
        let fault = Fault::Coverage { level: worst.level, held: worst.held, limit: self.shortfall };
        Some(if worst.shortfall() > self.shortfall { Err(fault) } else { Ok(()) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scorecard::Coverage;

    const LIMITS: CoverageLimits = CoverageLimits { shortfall: 0.3, values_min: 100.0 };

    #[test]
    fn an_interval_that_holds_far_less_than_it_is_meant_to_is_a_fault() {
        check(&[(80.0, 50.0, 100.0)], Some(Ok(())));
        check(&[(80.0, 49.9, 100.0)], Some(Err(80.0)));
        check(&[(80.0, 90.0, 100.0)], Some(Ok(())));
        check(&[(50.0, 45.0, 100.0), (80.0, 40.0, 100.0), (95.0, 60.0, 100.0)], Some(Err(80.0)));
    }

    #[test]
    fn what_rests_on_few_values_is_not_judged() {
        check(&[(80.0, 0.0, 99.9)], None);
        check(&[], None);
    }

    /// Intervals by level, what they held, and of how many values; which is at fault.
    #[track_caller]
    fn check(intervals: &[(f64, f64, f64)], want: Option<Result<(), f64>>) {
        let coverage = intervals.iter().map(|&(level, held, weight)| Coverage { level, held, weight });
        let score = Score {
            model: "m".into(),
            version: 1,
            step: None,
            series: 1,
            weight: 1.0,
            mae: 0.0,
            mase: None,
            pinball: None,
            coverage: coverage.collect(),
        };
        let level = |fault| match fault {
            Fault::Coverage { level, limit, .. } if limit == LIMITS.shortfall => level,
            other => panic!("{other}"),
        };
        assert_eq!(LIMITS.judge(&score).map(|judged| judged.map_err(level)), want, "{intervals:?}");
    }
}
