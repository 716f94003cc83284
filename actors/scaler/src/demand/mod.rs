//! What will be asked, with a bound that it seldom exceeds.
//!
//! Rates of requests are kept on a grid of time. At the end of each step the seasonal naive forecast is made, and a
//! model is asked twice: for what follows the rates, and for what follows the rest of them that the season does not
//! explain (a model that was trained on other series knows levels, not this market's hours). Each has a record: its
//! interval is moved until it holds as often as it should, and the model's forecast is used while its upper bound has
//! had the smaller loss over the latest week. Otherwise the seasonal naive one is, and without that one there is none:
//! no forecast is a typed answer, and capacity is then left to the rules.
//!
//! All arithmetic is on `ln(1 + rate)`: what varies in traffic are shares of it, and no bound can fall below none.

mod contest;
mod history;
mod model;
mod outlook;
mod season;
#[cfg(test)]
mod tests;

use std::time::Duration;

use jiff::Timestamp;

pub use history::Refused;
pub use model::{DemandModel, Failure, ModelError, Quantiles};
pub use outlook::{Coverage, NoOutlook, Outlook, Point, Source, Why};
pub use season::Season;

use contest::{Record, rate};
use history::{Cell, History, RATE_MAX};
use model::{Band, ask};
use season::SeasonalNaive;

const DAY: Duration = Duration::from_secs(24 * 3600);
const STEP_MIN: Duration = Duration::from_secs(60);
const HORIZON_MAX: usize = 288;
const HISTORY_MAX: usize = 50_000;
/// Of a model's window, this part at most may be filled in.
const GAPS_MAX: f64 = 0.1;
/// A model is used while its loss is below this part of the season's: less is a tie.
const BETTER: f64 = 0.99;
/// A model is used once it was compared in as many steps as a day has, and no fewer.
const PROVEN_MIN: usize = 24;

/// How demand is forecast.
#[derive(Clone, Debug, PartialEq)]
pub struct DemandSettings {
    /// A part of a day, in whole seconds; a minute at least.
    pub step: Duration,
    /// Steps that are forecast, at most 288.
    pub horizon: usize,
    /// Steps that are kept: two days at least, 50,000 at most. Five weeks know the latest three days of each kind.
    pub history_len: usize,
    /// Quantile of the upper bound, above 0.5 and up to 0.995: 0.975 for an interval of 95 %, 0.9 for one of 80 %.
    pub upper: f64,
    /// After as many steps without a measurement there is no forecast.
    pub stale_after: usize,
}

impl Default for DemandSettings {
    /// A day of hours, from six weeks of them.
    fn default() -> Self {
        Self {
            step: Duration::from_secs(3600),
            horizon: 24,
            history_len: 6 * 7 * 24,
            upper: 0.975,
            stale_after: 3,
        }
    }
}

/// Settings, or a model, that cannot be used. The operator acts.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum SettingsError {
    /// A value is out of its bounds.
    #[error("{key} is not {expected}")]
    Value {
        /// Which.
        key: &'static str,
        /// What could be.
        expected: &'static str,
    },
    /// The model looks back further than the history goes, or not as far ahead as is asked.
    #[error(
        "model {name} forecasts {model_horizon} steps from {model_window}, where {horizon} are due from at most {history_len}"
    )]
    Model {
        /// Its name.
        name: String,
        /// Steps that it looks at.
        model_window: usize,
        /// Steps that it forecasts.
        model_horizon: usize,
        /// Steps that are due.
        horizon: usize,
        /// Steps that are kept.
        history_len: usize,
    },
}

impl DemandSettings {
    fn day_steps(&self) -> usize {
        (DAY.as_secs() / self.step.as_secs()) as usize
    }

    fn check(&self) -> Result<(), SettingsError> {
        let refused = |key, expected| Err(SettingsError::Value { key, expected });
        let step = self.step;
        let divides =
            step.subsec_nanos() == 0 && STEP_MIN <= step && DAY.as_secs().is_multiple_of(step.as_secs());
        if !divides {
            return refused("step", "a part of a day in whole seconds, and a minute at least");
        }
        if !(1..=HORIZON_MAX).contains(&self.horizon) {
            return refused("horizon", "between 1 and 288 steps");
        }
        if self.history_len < 2 * self.day_steps() || self.history_len > HISTORY_MAX {
            return refused("history_len", "between two days of steps and 50,000 steps");
        }
        if !(self.upper > 0.5 && self.upper <= 0.995) {
            return refused("upper", "above 0.5 and at most 0.995");
        }
        if self.stale_after == 0 {
            return refused("stale_after", "at least one step");
        }
        Ok(())
    }
}

/// The demand of one group of machines: what it was, and what it will be.
pub struct Demand {
    settings: DemandSettings,
    history: History,
    season: SeasonalNaive,
    naive: Record,
    model: Option<Asked>,
}

/// A model, and the records of both ways to ask it.
struct Asked {
    model: Box<dyn DemandModel>,
    plain: Record,
    rest: Record,
}

impl Demand {
    /// Nothing is known yet.
    ///
    /// # Errors
    /// See [`SettingsError`].
    pub fn new(
        settings: DemandSettings,
        season: Season,
        model: Option<Box<dyn DemandModel>>,
    ) -> Result<Self, SettingsError> {
        settings.check()?;
        let DemandSettings { horizon, history_len, upper, .. } = settings;
        let day_steps = settings.day_steps();
        if let Some(model) = &model {
            let (model_window, model_horizon) = (model.window(), model.horizon());
            if model_window == 0 || model_window > history_len || model_horizon < horizon {
                let name = model.name().to_owned();
                return Err(SettingsError::Model { name, model_window, model_horizon, horizon, history_len });
            }
        }
        // Of late is within a week, so that each weekday counts once.
        let record = || Record::new(upper, horizon, 7 * day_steps.max(PROVEN_MIN));
        Ok(Self {
            history: History::new(settings.step, history_len),
            season: SeasonalNaive::new(season, upper, day_steps, history_len),
            naive: record(),
            model: model.map(|model| Asked { model, plain: record(), rest: record() }),
            settings,
        })
    }

    /// Takes one measurement of the rate, in requests per second. A step is the mean of those in it; one without any
    /// stays a gap.
    ///
    /// # Errors
    /// See [`Refused`].
    pub fn observe(&mut self, at: Timestamp, rate: f64) -> Result<(), Refused> {
        self.take(at, rate, true)
    }

    /// Takes one measurement that was kept from an earlier run: as [`observe`](Self::observe), but no model is asked.
    ///
    /// # Errors
    /// See [`Refused`].
    pub fn recall(&mut self, at: Timestamp, rate: f64) -> Result<(), Refused> {
        self.take(at, rate, false)
    }

    /// The steps that are over and known, to be kept for [`recall`](Self::recall): when each began, and its mean rate.
    pub fn kept(&self) -> impl Iterator<Item = (Timestamp, f64)> {
        let newest = self.history.newest();
        let cells = newest.map(|newest| newest + 1 - self.settings.history_len as i64..=newest);
        cells.into_iter().flatten().filter_map(|cell| {
            let value = self.history.get(cell)?;
            Some((self.history.start(cell), rate(value)))
        })
    }

    /// What will be asked from now on.
    ///
    /// # Errors
    /// See [`NoOutlook`].
    pub fn outlook(&mut self, now: Timestamp) -> Result<Outlook, NoOutlook> {
        self.advance(now, true)?;
        let short =
            |need| NoOutlook::Failed(Failure::ShortHistory { have: self.history.known_count(), need });
        let Some(origin) = self.history.newest() else { return Err(short(self.settings.day_steps())) };
        let known = self.history.newest_known().ok_or_else(|| short(self.settings.day_steps()))?;
        let stale = usize::try_from(origin - known).unwrap_or(usize::MAX);
        if stale >= self.settings.stale_after {
            return Err(NoOutlook::Stale { cells: stale });
        }
        let (by, why, record, given) = self.choose(origin)?;
        let point = |band: &Band| Point {
            lower: rate(band.lower),
            median: rate(band.median),
            upper: rate(band.upper),
        };
        let (held, count) = record.held();
        Ok(Outlook {
            at: now,
            starts: self.history.start(origin + 1),
            step: self.settings.step,
            points: given.iter().map(point).collect(),
            by,
            why,
            coverage: Coverage { nominal: self.settings.upper, held, count },
        })
    }

    fn take(&mut self, at: Timestamp, rate: f64, ask_model: bool) -> Result<(), Refused> {
        if !(0.0..=RATE_MAX).contains(&rate) {
            return Err(Refused::NoRate(rate));
        }
        self.advance(at, ask_model)?;
        self.history.add(rate);
        Ok(())
    }

    /// Ends every step that is over, judges what was said of it, and has the next ones forecast.
    fn advance(&mut self, now: Timestamp, ask_model: bool) -> Result<(), Refused> {
        let due = self.history.due(now)?;
        for _ in 0..due {
            let Some((cell, truth)) = self.history.close() else { break };
            self.season.learn(&self.history, cell, truth);
            let naive = self.naive.settle(cell, truth);
            if let Some(Asked { plain, rest, .. }) = &mut self.model {
                for record in [plain, rest] {
                    let verdict = record.settle(cell, truth);
                    record.race(&verdict, &naive);
                }
            }
        }
        // Whoever comes after a pause forecasts from where it is now.
        if due > 0
            && let Some(origin) = self.history.newest()
        {
            self.forecast(origin, ask_model);
        }
        Ok(())
    }

    fn forecast(&mut self, origin: Cell, ask_model: bool) {
        let Self { settings, history, season, naive, model } = self;
        naive.take(origin, season.forecast(history, origin, settings.horizon));
        let Some(Asked { model, plain, rest }) = model.as_mut().filter(|_| ask_model) else { return };
        let said = plain_window(history, season, model.window(), origin)
            .and_then(|values| ask(model.as_mut(), &values, settings.horizon));
        plain.take(origin, said);
        let said = rest_window(history, season, model.window(), origin)
            .and_then(|values| ask(model.as_mut(), &values, settings.horizon))
            .and_then(|bands| add_season(history, season, origin, bands));
        rest.take(origin, said);
    }

    /// The model's forecast if it was the better one of late, and the better of its two.
    fn choose(&self, origin: Cell) -> Result<(Source, Why, &Record, &[Band]), NoOutlook> {
        let naive = self.naive.given(origin);
        let need = self.settings.day_steps().max(PROVEN_MIN);
        let mut best: Option<(Source, &Record, &[Band], f64, f64)> = None;
        let mut why = if self.model.is_none() { Why::NoModel } else { Why::Unproven { steps: 0, need } };
        for (source, record) in self.model.iter().flat_map(Asked::ways) {
            let (steps, loss, naive_loss) = record.races();
            let Some(given) = record.given(origin) else {
                if let (Why::Unproven { steps: 0, .. }, Some(failure)) = (&why, record.failure()) {
                    why = Why::Failed(failure.clone());
                }
                continue;
            };
            if naive.is_none() {
                return Ok((source, Why::Alone, record, given));
            }
            if steps < need {
                why = Why::Unproven { steps, need };
            } else if loss >= BETTER * naive_loss {
                if !matches!(why, Why::NotBetter { loss: other, .. } if other <= loss) {
                    why = Why::NotBetter { loss, naive: naive_loss };
                }
            } else if best.as_ref().is_none_or(|best| loss / naive_loss < best.3 / best.4) {
                best = Some((source, record, given, loss, naive_loss));
            }
        }
        match (best, naive, self.naive.failure()) {
            (Some((source, record, given, loss, naive)), ..) => {
                Ok((source, Why::Better { loss, naive }, record, given))
            }
            (None, Some(given), _) => Ok((Source::SeasonalNaive, why, &self.naive, given)),
            (None, None, Some(failure)) => Err(NoOutlook::Failed(failure.clone())),
            (None, None, None) => Err(NoOutlook::Failed(Failure::ShortHistory { have: 0, need })),
        }
    }
}

impl Asked {
    fn ways(&self) -> [(Source, &Record); 2] {
        let name = || self.model.name().to_owned();
        [(Source::Model { name: name() }, &self.plain), (Source::ModelOfRest { name: name() }, &self.rest)]
    }
}

/// The latest values; a few that were not measured are what the season says, or the value before.
fn plain_window(
    history: &History,
    season: &SeasonalNaive,
    window: usize,
    origin: Cell,
) -> Result<Vec<f32>, Failure> {
    let have = history.len();
    if have < window {
        return Err(Failure::ShortHistory { have, need: window });
    }
    let cells = || (0..window).rev().map(|back| (history.get(origin - back as i64), season.said(back)));
    let missing = cells().filter(|(truth, _)| truth.is_none()).count();
    check_gaps(missing, window)?;
    // Some of them are known, or there were too many gaps.
    let mut last = cells().find_map(|(truth, _)| truth).unwrap_or(0.0);
    let values = cells().map(|(truth, said)| {
        last = truth.or(said).unwrap_or(last);
        last as f32
    });
    Ok(values.collect())
}

/// The latest values less the season; one that was not measured is as the season says.
fn rest_window(
    history: &History,
    season: &SeasonalNaive,
    window: usize,
    origin: Cell,
) -> Result<Vec<f32>, Failure> {
    let rest = |back: usize| Some(history.get(origin - back as i64)? - season.said(back)?);
    let values: Vec<Option<f64>> = (0..window).rev().map(rest).collect();
    check_gaps(values.iter().filter(|value| value.is_none()).count(), window)?;
    Ok(values.into_iter().map(|value| value.unwrap_or(0.0) as f32).collect())
}

fn check_gaps(missing: usize, window: usize) -> Result<(), Failure> {
    let few = missing as f64 <= GAPS_MAX * window as f64 && missing < window;
    if few { Ok(()) } else { Err(Failure::Gaps { missing, window }) }
}

fn add_season(
    history: &History,
    season: &SeasonalNaive,
    origin: Cell,
    bands: Vec<Band>,
) -> Result<Vec<Band>, Failure> {
    let add = |(at, band): (usize, Band)| {
        let said = season.median(history, origin + 1 + at as i64, origin);
        said.map(|said| band.raised(said.median)).ok_or(Failure::ShortHistory { have: 0, need: 1 })
    };
    bands.into_iter().enumerate().map(add).collect()
}
