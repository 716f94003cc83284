//! The answer to a native forecast, written by hand: per series the middle, the intervals, and who made it.

use std::time::Duration;

use peregrine_actors::Forecast;
use peregrine_actors::audit::PredictionIds;
use peregrine_shaders::{Head, ModelSpec, head};

use super::parse::{BadForecast, SeriesBody};
use crate::gateway::numbers::print_list;
use crate::gateway::v2::print::text;

/// For heads that can give any level.
const LEVELS_DEFAULT: [f64; 2] = [80.0, 95.0];

/// What an answer is printed from.
pub(crate) struct Answer<'a> {
    pub(crate) forecast: &'a Forecast,
    pub(crate) series: &'a [SeriesBody<'a>],
    pub(crate) horizon: usize,
    /// Percent; the model gives each of them.
    pub(crate) levels: &'a [f64],
    /// From the arrival of the request.
    pub(crate) total: Duration,
    pub(crate) region: &'a str,
    /// Of the rows.
    pub(crate) ids: PredictionIds,
}

pub(crate) fn answer(answer: &Answer<'_>) -> Vec<u8> {
    let forecast = answer.forecast;
    let spec = &*forecast.spec;
    let mut out = Vec::with_capacity(256 + forecast.values.len() * 16);
    out.extend_from_slice(b"{\"model\":");
    text(&mut out, &spec.name);
    out.extend_from_slice(
        format!(",\"model_version\":\"{}\",\"horizon\":{}", forecast.version, answer.horizon).as_bytes(),
    );
    out.extend_from_slice(b",\"forecasts\":[");
    let shared = shared_members(answer);
    for (place, row) in forecast.values.chunks_exact(spec.answer_len()).enumerate() {
        if place > 0 {
            out.push(b',');
        }
        one(&mut out, answer, place, row, &shared);
    }
    out.extend_from_slice(b"]}");
    out
}

/// The levels that a model gives when none are asked for, rising.
pub(crate) fn own_levels(spec: &ModelSpec) -> Vec<f64> {
    match &spec.head {
        Head::Point => Vec::new(),
        Head::StudentT | Head::Normal => LEVELS_DEFAULT.to_vec(),
        Head::Quantiles(quantiles) => {
            let upper = quantiles.iter().filter(|&&quantile| quantile > 0.5);
            let mut levels: Vec<f64> = upper
                .map(|&quantile| ((2.0 * quantile - 1.0) * 1e8).round() / 1e6)
                .filter(|&level| offers(&spec.head, level))
                .collect();
            levels.sort_by(f64::total_cmp);
            levels
        }
    }
}

/// That a model gives no interval of this level, and of which it does.
pub(crate) fn no_level(spec: &ModelSpec, level: f64) -> BadForecast {
    let own: Vec<String> = own_levels(spec).iter().map(f64::to_string).collect();
    let offered = match &spec.head {
        Head::StudentT | Head::Normal => "it gives all above 0 and below 100".to_owned(),
        Head::Point | Head::Quantiles(_) if own.is_empty() => "it gives none".to_owned(),
        Head::Point | Head::Quantiles(_) => format!("it gives {}", own.join(", ")),
    };
    BadForecast::Level { level, offered }
}

/// Can a head give the bounds of this level?
pub(crate) fn offers(of: &Head, level: f64) -> bool {
    match of {
        Head::Point => false,
        Head::StudentT | Head::Normal => true,
        Head::Quantiles(_) => head::interval_columns(of, level).is_some(),
    }
}

fn one(out: &mut Vec<u8>, answer: &Answer<'_>, place: usize, row: &[f32], shared: &str) {
    let spec = &*answer.forecast.spec;
    out.extend_from_slice(b"{\"id\":");
    text(out, &answer.series[place].label(place));
    out.extend_from_slice(format!(",\"prediction_id\":\"{}\"", answer.ids.row(place)).as_bytes());
    if let Some(medians) = head::median(spec, row) {
        out.extend_from_slice(match spec.head {
            Head::Quantiles(_) => b",\"median\":",
            Head::Point | Head::StudentT | Head::Normal => b",\"mean\":",
        });
        print_list(out, &medians[..answer.horizon]);
    }
    out.extend_from_slice(b",\"intervals\":[");
    let mut first = true;
    for &level in answer.levels {
        let Some((low, high)) = head::bounds(spec, row, level) else { continue };
        if !std::mem::take(&mut first) {
            out.push(b',');
        }
        out.extend_from_slice(format!("{{\"level\":{level},\"lo\":").as_bytes());
        print_list(out, &low[..answer.horizon]);
        out.extend_from_slice(b",\"hi\":");
        print_list(out, &high[..answer.horizon]);
        out.push(b'}');
    }
    out.push(b']');
    let mut opening = ",\"quantiles\":{";
    for (level, column) in head::lone_quantiles(&spec.head) {
        out.extend_from_slice(format!("{opening}\"{level}\":").as_bytes());
        print_list(out, &head::column(spec, row, column)[..answer.horizon]);
        opening = ",";
    }
    if opening == "," {
        out.push(b'}');
    }
    if head::crosses(&spec.head, &row[..answer.horizon * spec.columns.len()]) {
        out.extend_from_slice(b",\"crossed\":true");
    }
    out.extend_from_slice(shared.as_bytes());
    out.push(b'}');
}

/// What is the same for every series of a request.
fn shared_members(answer: &Answer<'_>) -> String {
    let forecast = answer.forecast;
    let millis = |took: Duration| took.as_secs_f64() * 1e3;
    let timing = &forecast.timing;
    let transfer = answer.total.saturating_sub(timing.queue + timing.compute);
    // Names of nodes need no escapes.
    let node = forecast.peer().map(|node| format!("\"node\":\"{node}\",")).unwrap_or_default();
    let mut region = Vec::new();
    text(&mut region, answer.region);
    format!(
        ",\"model_version\":\"{}\",\"backend\":\"{}\",{node}\"degraded\":{},\"region\":{},\"timing_ms\":{{\"queue\":{:.3},\
         \"compute\":{:.3},\"transfer\":{:.3},\"total\":{:.3}}},\"batch_rows\":{}",
        forecast.version,
        forecast.backend_label(),
        forecast.degraded,
        String::from_utf8_lossy(&region),
        millis(timing.queue),
        millis(timing.compute),
        millis(transfer),
        millis(answer.total),
        timing.batch_rows,
    )
}

#[cfg(test)]
#[path = "tests/print.rs"]
mod tests;
