//! The demand is forecast by this product itself: a model of this node, asked as any caller would.

use std::sync::Arc;
use std::time::Duration;

use peregrine_actors::{ForecastRequest, System};
use peregrine_runtime::{Clock, Deadline};
use peregrine_scaler::demand::{DemandModel, ModelError, Quantiles};
use peregrine_shaders::{ModelSpec, Windows};
use tokio::runtime::Handle;

/// A forecast that takes longer is of no use: the fallback is there at once.
const WITHIN: Duration = Duration::from_secs(5);

/// A model that forecasts one series without any columns beside it.
pub(crate) struct Forecaster {
    system: System,
    clock: Arc<dyn Clock>,
    runtime: Handle,
    spec: Arc<ModelSpec>,
}

impl Forecaster {
    /// The model of that name. `None`: it is not served, or needs more than one series of numbers.
    pub(crate) fn find(
        system: &System,
        clock: &Arc<dyn Clock>,
        runtime: &Handle,
        model: &str,
    ) -> Option<Self> {
        let spec = Arc::clone(&system.find(model, None).ok()?.spec);
        let is_plain = spec.series == 1
            && spec.hist_exog.is_empty()
            && spec.futr_exog.is_empty()
            && spec.stat_exog.is_empty();
        is_plain.then(|| Self {
            system: system.clone(),
            clock: Arc::clone(clock),
            runtime: runtime.clone(),
            spec,
        })
    }
}

impl DemandModel for Forecaster {
    fn name(&self) -> &str {
        &self.spec.name
    }

    fn window(&self) -> usize {
        self.spec.window
    }

    fn horizon(&self) -> usize {
        self.spec.horizon
    }

    fn forecast(&mut self, values: &[f32]) -> Result<Quantiles, ModelError> {
        let windows = Windows { rows: 1, y: values.to_vec(), ..Windows::default() };
        let deadline = Deadline::after(self.clock.now(), WITHIN);
        let request = ForecastRequest::new(self.spec.name.clone(), windows, deadline);
        let forecast = self.runtime.block_on(self.system.forecast(request));
        let forecast = forecast.map_err(|failed| ModelError::Unavailable(failed.to_string()))?;
        quantiles(&forecast.spec, &forecast.values).ok_or_else(|| {
            ModelError::Refused(format!("`{}` says neither a median nor a mean", self.spec.name))
        })
    }
}

/// The widest interval that the model has around its middle; a model without one says points.
fn quantiles(spec: &ModelSpec, values: &[f32]) -> Option<Quantiles> {
    let width = spec.columns.len();
    let column = |name: &str| spec.columns.iter().position(|column| column == name);
    let of = |at: usize| values.iter().skip(at).step_by(width).copied().collect::<Vec<f32>>();
    let middle = column("median").or_else(|| column("mean")).or((width == 1).then_some(0))?;
    let levels = ["95", "90", "80"];
    let ends = levels
        .iter()
        .find_map(|level| Some((column(&format!("lo-{level}"))?, column(&format!("hi-{level}"))?)));
    let Some((lower, upper)) = ends else { return Some(Quantiles::point(of(middle))) };
    Some(Quantiles { lower: of(lower), median: of(middle), upper: of(upper) })
}
