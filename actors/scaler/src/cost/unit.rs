//! What 1,000 predictions cost, of late.

use std::collections::VecDeque;
use std::time::Duration;

use jiff::Timestamp;

use crate::signal::age;

/// Times that are kept, whatever the window.
const ENTRIES_MAX: usize = 4096;

/// What 1,000 predictions cost at a price per hour and a rate per second; `None`: none are made, or nobody knows.
#[must_use]
pub fn per_1000(money_per_hour: f64, predictions_per_s: f64) -> Option<f64> {
    let cost = money_per_hour / 3600.0 / predictions_per_s * 1000.0;
    (predictions_per_s > 0.0 && cost.is_finite() && cost >= 0.0).then_some(cost)
}

/// The mean over a window. A time in which nobody counted predictions is left out, money and all: it is not one without
/// predictions.
#[derive(Clone, Debug)]
pub struct UnitCost {
    window: Duration,
    /// When it ended, its money and its predictions.
    entries: VecDeque<(Timestamp, f64, f64)>,
    money: f64,
    predictions: f64,
}

impl UnitCost {
    /// Nothing is known.
    #[must_use]
    pub const fn new(window: Duration) -> Self {
        Self { window, entries: VecDeque::new(), money: 0.0, predictions: 0.0 }
    }

    /// Adds a time that ends `now`.
    pub fn add(&mut self, now: Timestamp, money: f64, predictions: Option<f64>) {
        let counted = predictions.filter(|count| count.is_finite() && *count >= 0.0);
        if let Some(count) = counted.filter(|_| money.is_finite() && money >= 0.0) {
            self.entries.push_back((now, money, count));
            self.money += money;
            self.predictions += count;
        }
        let is_old = |at: Timestamp| age(now, at).is_some_and(|age| age >= self.window);
        while self.entries.front().is_some_and(|(at, ..)| is_old(*at)) || self.entries.len() > ENTRIES_MAX {
            let Some((_, money, count)) = self.entries.pop_front() else { break };
            self.money -= money;
            self.predictions -= count;
        }
        if self.entries.is_empty() {
            // What rounding has left.
            (self.money, self.predictions) = (0.0, 0.0);
        }
    }

    /// Money for 1,000 predictions.
    #[must_use]
    pub fn value(&self) -> Option<f64> {
        per_1000(self.money.max(0.0) * 3600.0, self.predictions)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(entries: &[(i64, f64, Option<f64>)], expected: Option<f64>) {
        let mut unit = UnitCost::new(Duration::from_secs(100));
        for (second, money, predictions) in entries {
            unit.add(Timestamp::from_second(*second).unwrap(), *money, *predictions);
        }
        match (unit.value(), expected) {
            (Some(value), Some(expected)) => assert!((value - expected).abs() < 1e-9, "{value}"),
            (value, expected) => assert_eq!(value, expected),
        }
    }

    #[test]
    fn the_latest_count() {
        check(&[(0, 1.0, Some(500.0)), (50, 1.0, Some(1500.0))], Some(1.0));
        check(&[(0, 9.0, Some(1.0)), (50, 1.0, Some(500.0)), (100, 2.0, Some(500.0))], Some(3.0));
    }

    #[test]
    fn what_nobody_counted_is_not_nothing() {
        check(&[], None);
        check(&[(0, 1.0, None)], None);
        check(&[(0, 1.0, Some(500.0)), (50, 7.0, None)], Some(2.0));
        check(&[(0, 1.0, Some(f64::NAN)), (50, f64::INFINITY, Some(1.0)), (60, 1.0, Some(-1.0))], None);
        check(&[(0, 1.0, Some(0.0))], None);
        check(&[(0, 1.0, Some(10.0)), (200, 1.0, None)], None);
    }

    #[test]
    fn a_price_and_a_rate_say_it_too() {
        assert_eq!(per_1000(3.6, 1.0), Some(1.0));
        assert_eq!(per_1000(3.6, 0.0), None);
        assert_eq!(per_1000(f64::NAN, 1.0), None);
        assert_eq!(per_1000(3.6, f64::NAN), None);
    }
}
