//! The answer to a native forecast, written by hand: per series the middle, the intervals, and who made it.

use std::time::Duration;

use peregrine_actors::Forecast;
use peregrine_actors::audit::PredictionIds;
use peregrine_shaders::{Head, ModelSpec, head};

use super::parse::{BadForecast, SeriesBody};
use crate::gateway::numbers::print_list;
use crate::gateway::v2::print::text;
use crate::levels::offered;

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

/// That a model gives no interval of this level, and of which it does.
pub(crate) fn no_level(spec: &ModelSpec, level: f64) -> BadForecast {
    BadForecast::Level { level, offered: offered(spec) }
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
