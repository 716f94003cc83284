//! What running machines may cost now, so that neither the hour's nor the month's budget is ever exceeded.

use std::time::Duration;

/// How far ahead money is set aside for what is decided now: machines bill on while they drain and stop.
const AHEAD: Duration = Duration::from_secs(3600);

/// …and at the end of a month at least for this: as long as a machine may take to go.
const WIND_DOWN: Duration = Duration::from_secs(120);

/// The money there is.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Budget {
    /// Of all machines together, at any moment.
    pub per_hour: Option<f64>,
    /// Of all that is spent in a calendar month, UTC.
    pub per_month: Option<f64>,
}

/// What has been spent of the month.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Spent {
    /// Since the first of the month.
    pub this_month: f64,
    /// Until the next one begins.
    pub remaining: Duration,
}

impl Budget {
    /// What machines that run may go on costing per hour. Where the month cannot pay the smallest fleet to its end, one
    /// that runs all the same does so while there is money: to stop and start it again would cost and serve nobody.
    #[must_use]
    pub fn keepable(&self, spent: Spent, floor_per_hour: f64) -> f64 {
        let affordable = self.affordable(spent, floor_per_hour);
        let hourly = self.per_hour.unwrap_or(f64::INFINITY);
        let left = self.per_month.map_or(f64::INFINITY, |month| month - spent.this_month);
        let wind_down = floor_per_hour * WIND_DOWN.as_secs_f64() / 3600.0;
        if left > wind_down { affordable.max(floor_per_hour.min(hourly)) } else { affordable }
    }

    /// What machines may cost per hour from now on. `floor_per_hour`: what the smallest fleet that is wanted costs,
    /// which is set aside for the rest of the month, so that its end is not without machines.
    #[must_use]
    pub fn affordable(&self, spent: Spent, floor_per_hour: f64) -> f64 {
        let hourly = self.per_hour.unwrap_or(f64::INFINITY);
        let Some(month) = self.per_month else { return hourly.max(0.0) };
        let left = (month - spent.this_month).max(0.0);
        let remaining = spent.remaining.as_secs_f64() / 3600.0;
        let ahead = (AHEAD.as_secs_f64() / 3600.0).min(remaining);
        if ahead <= 0.0 {
            return hourly.max(0.0);
        }
        let least = WIND_DOWN.as_secs_f64() / 3600.0;
        let (ahead, remaining) = (ahead.max(least), remaining.max(least));
        // At the floor's rate from the next hour on, what is left for this one.
        let reserved = floor_per_hour * (remaining - ahead);
        let now = if left > reserved { (left - reserved) / ahead } else { left / remaining };
        hourly.min(now).max(0.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    #[track_caller]
    fn check(budget: (Option<f64>, Option<f64>), spent: f64, hours: u32, floor: f64, expected: f64) {
        let budget = Budget { per_hour: budget.0, per_month: budget.1 };
        let spent = Spent { this_month: spent, remaining: HOUR * hours };
        let affordable = budget.affordable(spent, floor);
        assert!(
            (affordable - expected).abs() < 1e-9 || affordable == expected,
            "{affordable} not {expected}"
        );
    }

    #[test]
    fn without_a_budget_all_can_be_paid() {
        check((None, None), 1e9, 1, 1.0, f64::INFINITY);
    }

    #[test]
    fn the_hour_bounds_and_the_month_bounds() {
        check((Some(3.0), None), 0.0, 100, 1.0, 3.0);
        // 730 for 100 hours, of which 99 are set aside at 1: this one may cost 631.
        check((None, Some(730.0)), 0.0, 100, 1.0, 631.0);
        check((Some(3.0), Some(730.0)), 0.0, 100, 1.0, 3.0);
        check((Some(3.0), Some(730.0)), 629.5, 100, 1.0, 1.5);
    }

    #[test]
    fn a_month_that_cannot_pay_the_smallest_fleet_pays_a_part_of_it() {
        check((None, Some(50.0)), 0.0, 100, 1.0, 0.5);
        check((None, Some(50.0)), 50.0, 100, 1.0, 0.0);
        check((None, Some(50.0)), 60.0, 100, 1.0, 0.0);
    }

    #[test]
    fn what_runs_without_enough_money_runs_until_it_is_all_but_gone() {
        let budget = Budget { per_hour: None, per_month: Some(10.0) };
        let keepable = |this_month| budget.keepable(Spent { this_month, remaining: HOUR * 100 }, 0.5);
        assert_eq!(keepable(0.0), 0.5);
        assert_eq!(keepable(9.98), 0.5);
        assert!(keepable(9.99) < 0.01);
        assert_eq!(
            Budget { per_hour: Some(0.4), ..budget }
                .keepable(Spent { this_month: 0.0, remaining: HOUR }, 0.5),
            0.4
        );
    }

    /// What runs at the end of a month bills on while it goes.
    #[test]
    fn the_last_minutes_are_paid_until_machines_are_gone() {
        let budget = Budget { per_hour: None, per_month: Some(10.0) };
        let affordable = |seconds| {
            let spent = Spent { this_month: 9.98, remaining: Duration::from_secs(seconds) };
            (budget.affordable(spent, 0.0) * 1e6).round() / 1e6
        };
        assert_eq!([240, 120, 60, 1].map(affordable), [0.3, 0.6, 0.6, 0.6]);
    }

    /// Hour by hour, always spending all that is allowed: never more than the month, and never an hour without.
    #[test]
    fn whoever_spends_all_that_is_allowed_stays_within_the_month() {
        let budget = Budget { per_hour: Some(5.0), per_month: Some(800.0) };
        let (mut spent, mut least) = (0.0, f64::INFINITY);
        for hour in 0..720 {
            let remaining = HOUR * (720 - hour);
            let rate = budget.affordable(Spent { this_month: spent, remaining }, 1.0);
            spent += rate;
            least = f64::min(least, rate);
        }
        assert!(spent <= 800.0 + 1e-6, "{spent}");
        assert!(least >= 1.0 - 1e-6, "{least}");
    }
}
