//! Forecasts of demand over simulated weeks of a market.

mod coverage;
mod faults;
mod models;
mod season;
mod trace;

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use jiff::Timestamp;

use super::*;
use crate::calendar::{Calendar, Calendars};
use trace::Trace;

static CALENDARS: LazyLock<Calendars> = LazyLock::new(Calendars::built_in);

fn xnys() -> Arc<Calendar> {
    Arc::clone(CALENDARS.get("xnys").unwrap())
}

fn hourly(model: Option<Box<dyn DemandModel>>) -> Demand {
    Demand::new(DemandSettings::default(), Season::Market(xnys()), model).unwrap()
}

fn utc(text: &str) -> Timestamp {
    format!("{text}Z").parse().unwrap()
}

/// How forecasts fared over the steps that were judged.
#[derive(Debug, Default, Clone, Copy)]
struct Score {
    loss: f64,
    held: usize,
    count: usize,
}

impl Score {
    fn add(&mut self, level: f64, upper: f64, truth: f64) {
        self.loss += contest::pinball(level, truth - upper);
        self.held += usize::from(truth <= upper);
        self.count += 1;
    }

    fn loss(&self) -> f64 {
        self.loss / self.count as f64
    }

    fn held(&self) -> f64 {
        self.held as f64 / self.count as f64
    }
}

/// Feeds a trace, and scores every upper bound against what came, from the cell `judged_from` on.
fn run(
    demand: &mut Demand,
    trace: &Trace,
    judged_from: usize,
    mut seen: impl FnMut(usize, &Outlook),
) -> Score {
    let mut score = Score::default();
    for (at, rate) in trace.rates.iter().enumerate() {
        let now = trace.start(at);
        demand.observe(now, *rate).unwrap();
        if at < judged_from {
            continue;
        }
        let outlook = demand.outlook(now + Duration::from_secs(1)).unwrap();
        assert_eq!(outlook.starts, now);
        for (lead, point) in outlook.points.iter().enumerate() {
            assert!(0.0 <= point.lower && point.lower <= point.median && point.median <= point.upper);
            if let Some(truth) = trace.rates.get(at + lead) {
                score.add(demand.settings.upper, point.upper, *truth);
            }
        }
        seen(at, &outlook);
    }
    score
}
