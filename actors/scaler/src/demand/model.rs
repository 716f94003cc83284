//! The port to a forecaster, and what can be wrong with what it says.

/// Whatever forecasts the next values of a series from its latest ones.
///
/// Values are `ln(1 + rate)` with the rate in requests per second, or what is left of that when the season is taken off;
/// both ways are tried, and the better one is used. A quantile stays one under the logarithm.
pub trait DemandModel: Send {
    /// For people: which model it is.
    fn name(&self) -> &str;

    /// How many values it looks at.
    fn window(&self) -> usize;

    /// How many values it forecasts.
    fn horizon(&self) -> usize;

    /// Forecasts the [`horizon`](Self::horizon) values that follow these [`window`](Self::window) ones, all of them
    /// finite. Asked twice, at the first call to [`Demand`](super::Demand) after the end of a step; that call waits for
    /// it, so it has a deadline of its own.
    ///
    /// # Errors
    /// See [`ModelError`].
    fn forecast(&mut self, values: &[f32]) -> Result<Quantiles, ModelError>;
}

/// A forecast: one value of each kind for each step.
#[derive(Clone, Debug, PartialEq)]
pub struct Quantiles {
    /// As often above the truth as [`upper`](Self::upper) is below it.
    pub lower: Vec<f32>,
    /// As often above as below.
    pub median: Vec<f32>,
    /// The quantile of [`DemandSettings::upper`](super::DemandSettings::upper), as near as the model has it.
    pub upper: Vec<f32>,
}

impl Quantiles {
    /// A forecast of one value: its interval is what its errors make it.
    #[must_use]
    pub fn point(values: Vec<f32>) -> Self {
        Self { lower: values.clone(), median: values.clone(), upper: values }
    }
}

/// Why a model has no forecast.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ModelError {
    /// Not now: it is asked again after the next step.
    #[error("not available: {0}")]
    Unavailable(String),
    /// Never with such values: the operator chooses another model.
    #[error("refused: {0}")]
    Refused(String),
}

/// Why a forecaster is not used at this step; it is asked again at the next one.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum Failure {
    /// It needs more history: time helps.
    #[error("{have} of {need} cells are known")]
    ShortHistory {
        /// Cells that it could use.
        have: usize,
        /// Cells that it needs.
        need: usize,
    },
    /// Too much of its window was not measured: whoever measures acts.
    #[error("{missing} of the latest {window} cells were not measured")]
    Gaps {
        /// Cells without a value.
        missing: usize,
        /// Cells that it looks at.
        window: usize,
    },
    /// It said less or more than it had promised: its maker acts.
    #[error("{got} values where {expected} were due")]
    Length {
        /// Its horizon.
        expected: usize,
        /// Of the list that is off.
        got: usize,
    },
    /// It said what is no number: its maker acts.
    #[error("no finite value {lead} steps ahead")]
    NotFinite {
        /// Which step, counted from one.
        lead: usize,
    },
    /// It gave none.
    #[error(transparent)]
    Model(#[from] ModelError),
}

/// Lower bound, median and upper bound, in `ln(1 + rate)`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Band {
    pub(super) lower: f64,
    pub(super) median: f64,
    pub(super) upper: f64,
}

impl Band {
    /// The median stays; a bound on its wrong side becomes it.
    pub(super) fn ordered(self) -> Self {
        let Self { lower, median, upper } = self;
        Self { lower: lower.min(median), median, upper: upper.max(median) }
    }

    /// Each value by so much more.
    pub(super) fn raised(self, by: f64) -> Self {
        Self { lower: self.lower + by, median: self.median + by, upper: self.upper + by }
    }
}

/// Asks a model, and believes nothing of its form.
pub(super) fn ask(model: &mut dyn DemandModel, values: &[f32], horizon: usize) -> Result<Vec<Band>, Failure> {
    let expected = model.horizon();
    let Quantiles { lower, median, upper } = model.forecast(values)?;
    for list in [&lower, &median, &upper] {
        if list.len() != expected {
            return Err(Failure::Length { expected, got: list.len() });
        }
    }
    let bands = (0..horizon.min(expected)).map(|at| {
        let band =
            Band { lower: f64::from(lower[at]), median: f64::from(median[at]), upper: f64::from(upper[at]) };
        let finite = [band.lower, band.median, band.upper].into_iter().all(f64::is_finite);
        if finite { Ok(band.ordered()) } else { Err(Failure::NotFinite { lead: at + 1 }) }
    });
    bands.collect()
}
