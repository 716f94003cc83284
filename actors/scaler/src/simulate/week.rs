//! A trading week from a seed: peaks after the open and before the close, a trough at midday, quiet nights and a quiet
//! weekend over a floor of who trades around the clock; and, where they are wanted, the five disturbances.
//!
//! Sessions come from a market's calendar, so that holidays, early closes and clock changes are as they are. The shape
//! is the one that volumes of stock markets have (U-shaped: Jain and Joh, "The Dependence between Hourly Prices and
//! Trading Volume", J. Financial and Quantitative Analysis 23(3), 1988); its numbers are made up.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

use super::trace::{Span, Trace};
use crate::calendar::{Calendar, Session};
use crate::rule::after;
use crate::signal::age;

const MINUTE: Duration = Duration::from_secs(60);
const DAY: Duration = Duration::from_secs(24 * 3600);
/// Requests per second around the clock.
const FLOOR: f64 = 9.0;
/// …which the open and the close add, at most, and what every minute of a session adds.
const OPEN: f64 = 115.0;
const CLOSE: f64 = 80.0;
const SESSION: f64 = 52.0;
/// Days differ by this share, minutes by that, and a minute takes so much from the one before.
const DAY_SPREAD: f64 = 0.08;
const MINUTE_SPREAD: f64 = 0.03;
const MEMORY: f64 = 0.8;

/// What a week is made of.
#[derive(Clone, Debug)]
pub struct Week<'a> {
    /// Chance.
    pub seed: u64,
    /// When the week begins.
    pub start: Timestamp,
    /// Weeks before it, which are quiet but for the market: history for a forecaster.
    pub weeks_before: u32,
    /// Whose sessions.
    pub calendar: &'a Calendar,
    /// Regions, with the share of requests that each has when its own day is at its height.
    pub regions: &'a [(&'a str, f64)],
    /// A piece of news: demand is a multiple of the usual, and comes back over some twenty minutes.
    pub news: Option<(Timestamp, f64)>,
    /// No report arrives.
    pub silent: Option<Span>,
    /// A region has no machine to give.
    pub full: Option<(&'a str, Span)>,
}

impl Week<'_> {
    /// The trace, a rate for each minute and region.
    #[must_use]
    pub fn trace(&self) -> Trace {
        let mut rng = StdRng::seed_from_u64(self.seed);
        let before = DAY * 7 * self.weeks_before;
        let minutes = (before + DAY * 7).as_secs() / 60;
        let began =
            SignedDuration::try_from(before).ok().and_then(|before| self.start.checked_sub(before).ok());
        let began = began.unwrap_or(self.start);
        let mut sessions = self.calendar.next_sessions(began).peekable();
        let mut rates: BTreeMap<String, Vec<(Timestamp, f64)>> = BTreeMap::new();
        let (mut noise, mut day_factor) = (0.0, 1.0);
        let weight: f64 = self.regions.iter().map(|(_, share)| share).sum();
        for minute in 0..minutes {
            let at = after(began, MINUTE * u32::try_from(minute).unwrap_or(u32::MAX));
            if minute % (24 * 60) == 0 {
                day_factor = (DAY_SPREAD * normal(&mut rng)).exp();
            }
            noise = MEMORY * noise + MINUTE_SPREAD * normal(&mut rng);
            while sessions.peek().is_some_and(|session| after(session.closes, DAY / 4) <= at) {
                sessions.next();
            }
            let market = sessions.peek().map_or(0.0, |session| in_session(*session, at));
            let rate = (FLOOR * floor_of(minute) + market * day_factor) * noise.exp() * self.news_at(at);
            for (region, share) in self.regions {
                let part = rate * share / weight;
                // A thousandth of a request per second is as good as any; it keeps the text short.
                let part = (part * 1e3).round() / 1e3;
                rates.entry((*region).to_owned()).or_default().push((at, part));
            }
        }
        let full = self.full.iter().map(|(region, span)| ((*region).to_owned(), vec![*span])).collect();
        Trace::of(rates, self.silent.into_iter().collect(), full)
    }

    fn news_at(&self, at: Timestamp) -> f64 {
        let Some((since, height)) = self.news else { return 1.0 };
        let Some(minutes) = age(at, since).map(|age| age.as_secs_f64() / 60.0) else { return 1.0 };
        // Two minutes up, and half of it gone after ten.
        let rise = (minutes / 2.0).min(1.0);
        1.0 + (height - 1.0) * rise * (-(minutes - 2.0).max(0.0) * 2f64.ln() / 10.0).exp()
    }
}

/// Requests per second for the sake of a session, and of the hours around it.
fn in_session(session: Session, at: Timestamp) -> f64 {
    let minutes = |span: SignedDuration| span.as_secs_f64() / 60.0;
    let since_open = minutes(at.duration_since(session.opens));
    let to_close = minutes(session.closes.duration_since(at));
    if since_open < 0.0 {
        // Who trades before the open, over five hours.
        return 22.0 * (1.0 + since_open / 300.0).max(0.0);
    }
    if to_close <= 0.0 {
        return 30.0 * (to_close / 45.0).exp();
    }
    // The open is reached within two minutes and gone after an hour and a half; the close grows over its last hour.
    let open = OPEN * (since_open / 2.0).min(1.0) * (-since_open / 30.0).exp();
    let close = CLOSE * (-to_close / 20.0).exp();
    SESSION + open + close
}

/// Those who trade around the clock sleep a little too.
fn floor_of(minute: u64) -> f64 {
    let hour = (minute % (24 * 60)) as f64 / 60.0;
    1.0 + 0.25 * ((hour - 15.0) / 24.0 * std::f64::consts::TAU).cos()
}

/// Standard normal: Box and Muller, "A Note on the Generation of Random Normal Deviates", Ann. Math. Stat. 29(2), 1958.
fn normal(rng: &mut StdRng) -> f64 {
    let (u, v): (f64, f64) = (rng.random_range(f64::EPSILON..1.0), rng.random());
    (-2.0 * u.ln()).sqrt() * (std::f64::consts::TAU * v).cos()
}
