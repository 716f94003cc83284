//! What demand will be, who says so, and how far it can be trusted.

use std::fmt;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use super::history::Refused;
use super::model::Failure;

/// The forecast of the next steps, in requests per second.
#[derive(Clone, Debug, PartialEq)]
pub struct Outlook {
    /// When it was asked for.
    pub at: Timestamp,
    /// When the first point begins: no later than `at`.
    pub starts: Timestamp,
    /// How long each point is.
    pub step: Duration,
    /// One after the other. Never empty.
    pub points: Vec<Point>,
    /// Whose forecast it is.
    pub by: Source,
    /// Why it is not another's.
    pub why: Why,
    /// How that one's upper bounds have held of late.
    pub coverage: Coverage,
}

/// The mean rate of one step, in requests per second.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Point {
    /// As seldom undercut as the upper bound is exceeded.
    pub lower: f64,
    /// As often exceeded as not.
    pub median: f64,
    /// Exceeded as seldom as the settings say.
    pub upper: f64,
}

impl Outlook {
    /// The highest upper bound of any step that has begun by `lead` from now. Beyond the last point nothing is known and
    /// the answer is that of all points.
    #[must_use]
    pub fn upper_within(&self, lead: Duration) -> f64 {
        let until = self.at.saturating_add(SignedDuration::try_from(lead).unwrap_or(SignedDuration::MAX));
        let until = until.unwrap_or(Timestamp::MAX).duration_since(self.starts);
        let steps = until.as_secs_f64() / self.step.as_secs_f64();
        let begun = (steps.ceil() as usize).clamp(1, self.points.len());
        self.points[..begun].iter().map(|point| point.upper).fold(0.0, f64::max)
    }

    /// The end of the last point.
    #[must_use]
    pub fn until(&self) -> Timestamp {
        let length = self.step.saturating_mul(u32::try_from(self.points.len()).unwrap_or(u32::MAX));
        let length = SignedDuration::try_from(length).unwrap_or(SignedDuration::MAX);
        self.starts.saturating_add(length).unwrap_or(Timestamp::MAX)
    }
}

/// Who forecasts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// As it was at this time of such a day.
    SeasonalNaive,
    /// A forecaster, from the rates themselves.
    Model {
        /// Its name.
        name: String,
    },
    /// A forecaster, from what the season leaves over.
    ModelOfRest {
        /// Its name.
        name: String,
    },
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::SeasonalNaive => f.write_str("seasonal naive"),
            Self::Model { name } => f.write_str(name),
            Self::ModelOfRest { name } => write!(f, "{name} on seasonal naive"),
        }
    }
}

/// Why that one forecasts. Losses are mean pinball losses of the upper bound over the latest week, in requests per
/// second.
#[derive(Clone, Debug, PartialEq)]
pub enum Why {
    /// There is no model.
    NoModel,
    /// The model has no forecast.
    Failed(Failure),
    /// The model was not compared for long enough.
    Unproven {
        /// Steps in which it was.
        steps: usize,
        /// Steps in which it must have been.
        need: usize,
    },
    /// The model is not better than the seasonal naive forecast.
    NotBetter {
        /// Of the model.
        loss: f64,
        /// Of the seasonal naive forecast.
        naive: f64,
    },
    /// The model is better.
    Better {
        /// Of the model.
        loss: f64,
        /// Of the seasonal naive forecast.
        naive: f64,
    },
    /// The seasonal naive forecast has too short a history.
    Alone,
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoModel => f.write_str("there is no model"),
            Self::Failed(failure) => write!(f, "the model has no forecast: {failure}"),
            Self::Unproven { steps, need } => write!(f, "the model was compared in {steps} of {need} steps"),
            Self::NotBetter { loss, naive } => {
                write!(f, "the model's loss is {loss:.3}, that of seasonal naive {naive:.3}")
            }
            Self::Better { loss, naive } => {
                write!(f, "its loss is {loss:.3}, that of seasonal naive {naive:.3}")
            }
            Self::Alone => f.write_str("the history is too short for seasonal naive"),
        }
    }
}

/// How upper bounds have held over the latest week.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Coverage {
    /// The share that should hold.
    pub nominal: f64,
    /// Those that held.
    pub held: usize,
    /// All whose time has come.
    pub count: usize,
}

impl Coverage {
    /// The share that held; `None` before the first one's time.
    #[must_use]
    pub fn share(&self) -> Option<f64> {
        (self.count > 0).then(|| self.held as f64 / self.count as f64)
    }
}

/// Why there is no forecast. Whoever decides does without: it is not a forecast of nothing.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum NoOutlook {
    /// Nobody measured for too long: whoever measures acts.
    #[error("nothing was measured in the latest {cells} cells")]
    Stale {
        /// That many, and all of the cells before this one if it is the length of the history.
        cells: usize,
    },
    /// No forecaster has one: mostly time helps.
    #[error("no forecast: {0}")]
    Failed(Failure),
    /// The clock does not go on from where it was.
    #[error(transparent)]
    Refused(#[from] Refused),
}
