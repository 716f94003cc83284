//! Weeks of requests as a market makes them: peaks at the open and the close, quiet nights, weekends and holidays, days
//! that are busier than others, and news.

use std::f64::consts::TAU;
use std::time::Duration;

use jiff::civil::Date;
use jiff::{SignedDuration, Timestamp};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

use super::xnys;
use crate::calendar::State;

const GRAIN_S: i64 = 300;

/// The mean rate of each cell.
pub(super) struct Trace {
    first_s: i64,
    step: Duration,
    pub(super) rates: Vec<f64>,
}

impl Trace {
    /// `days` days by the clock of New York.
    pub(super) fn new(seed: u64, first: &str, days: i64, step: Duration) -> Self {
        let calendar = xnys();
        let mut rng = StdRng::seed_from_u64(seed);
        let first: Date = first.parse().unwrap();
        let start = calendar.zone().to_timestamp(first.at(0, 0, 0, 0)).unwrap();
        let grains_a_cell = step.as_secs() as i64 / GRAIN_S;
        let cells = days * 24 * 3600 / step.as_secs() as i64;
        // Of the day, and of news.
        let (mut level, mut news, mut date) = (0.0, 0.0, None);
        let mut rates = Vec::new();
        for cell in 0..cells {
            let noise = (0.1 * normal(&mut rng)).exp();
            let mut sum = 0.0;
            for grain in 0..grains_a_cell {
                let at = start.as_second() + (cell * grains_a_cell + grain) * GRAIN_S;
                let at = Timestamp::from_second(at).unwrap();
                let today = calendar.zone().to_datetime(at).date();
                if date.replace(today) != Some(today) {
                    level = 0.8 * level + 0.12 * normal(&mut rng);
                }
                // Once in twelve days the world looks up, for an hour or two.
                news = if rng.random_bool(1.0 / (12.0 * 288.0)) { 2.0 } else { news * 0.95 };
                sum += profile(at) * f64::exp(level) * (1.0 + news);
            }
            rates.push(sum / grains_a_cell as f64 * noise);
        }
        Self { first_s: start.as_second(), step, rates }
    }

    pub(super) fn hours(seed: u64, first: &str, days: i64) -> Self {
        Self::new(seed, first, days, Duration::from_secs(3600))
    }

    /// When a cell begins.
    pub(super) fn start(&self, cell: usize) -> Timestamp {
        let step_s = self.step.as_secs() as i64;
        Timestamp::from_second(self.first_s + cell as i64 * step_s).unwrap()
    }
}

/// Requests per second on an ordinary day.
fn profile(at: Timestamp) -> f64 {
    let calendar = xnys();
    let clock = calendar.zone().to_datetime(at);
    let minutes = |from: Timestamp, to: Timestamp| to.duration_since(from).as_secs_f64() / 60.0;
    match calendar.state(at).unwrap() {
        State::Open { until } => {
            let opens = at - SignedDuration::from_hours(9);
            let opens = calendar.next_sessions(opens).find(|session| session.closes > at).unwrap().opens;
            40.0 + 160.0 * (-minutes(opens, at) / 45.0).exp() + 90.0 * (-minutes(at, until) / 30.0).exp()
        }
        State::Closed { opens_at }
            if calendar.day(clock.date()) == Some(crate::calendar::DayKind::Closed) =>
        {
            // Some look at their orders in the last hours before a week begins.
            if opens_at.is_some_and(|opens| minutes(at, opens) < 900.0) { 6.0 } else { 3.0 }
        }
        State::Closed { .. } => match clock.hour() {
            0..7 => 4.0,
            7..10 => 15.0,
            _ => 10.0,
        },
    }
}

fn normal(rng: &mut StdRng) -> f64 {
    let (radius, angle): (f64, f64) = (rng.random_range(f64::EPSILON..1.0), rng.random_range(0.0..TAU));
    (-2.0 * radius.ln()).sqrt() * angle.cos()
}
