//! What a simulated scaler knows of the demand to come.

use std::fmt;
use std::time::Duration;

use jiff::Timestamp;

use super::trace::Trace;
use crate::demand::{Demand, DemandSettings, Season, SettingsError};
use crate::rule::after;

const STEP: Duration = Duration::from_secs(300);
const MINUTE: Duration = Duration::from_secs(60);

/// Whoever forecasts demand from what was measured of it.
pub trait Foresight: fmt::Debug {
    /// Takes a measurement, in requests per second.
    fn observe(&mut self, now: Timestamp, rate: f64);

    /// The most that will be asked from now until `ahead`, upper bound; `None`: nobody knows.
    fn most(&mut self, now: Timestamp, ahead: Duration) -> Option<f64>;
}

/// The product's own forecast of demand.
pub struct Forecast(Demand);

impl fmt::Debug for Forecast {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Forecast")
    }
}

impl Forecast {
    /// Steps of five minutes, so that an open is seen as one: the mean of an hour hides it. Four weeks of them are kept,
    /// and a quarter of an hour is forecast, which is longer than a machine takes to be ready.
    #[must_use]
    pub fn settings() -> DemandSettings {
        DemandSettings { step: STEP, horizon: 3, history_len: 4 * 7 * 288, ..DemandSettings::default() }
    }

    /// One that has seen what `trace` says of the time before `until`.
    ///
    /// # Errors
    /// See [`SettingsError`].
    pub fn with_history(
        settings: DemandSettings,
        season: Season,
        trace: &Trace,
        until: Timestamp,
    ) -> Result<Self, SettingsError> {
        let mut demand = Demand::new(settings, season, None)?;
        if let Some((mut at, _)) = trace.span() {
            while at < until {
                if !trace.is_silent(at) {
                    // One that is not taken is one that was not measured.
                    let _ = demand.recall(at, trace.total(at));
                }
                at = after(at, MINUTE);
            }
        }
        Ok(Self(demand))
    }
}

impl Foresight for Forecast {
    fn observe(&mut self, now: Timestamp, rate: f64) {
        // What is refused leaves a gap, and a gap is no forecast: the rules do without.
        let _ = self.0.observe(now, rate);
    }

    fn most(&mut self, now: Timestamp, ahead: Duration) -> Option<f64> {
        self.0.outlook(now).ok().map(|outlook| outlook.upper_within(ahead))
    }
}
