//! The native routes: forecasts by series, models, breakers.

pub(super) mod breakers;
mod config;
mod models;
pub(crate) mod parse;
pub(crate) mod print;
mod releases;

use actix_web::web::{self, Data, Payload};
use actix_web::{HttpRequest, HttpResponse};
use peregrine_actors::audit::RowName;
use peregrine_actors::release::key_of;
use peregrine_actors::{Names, Origin};
use serde_json::{Map, Value};

use self::parse::{BadForecast, ForecastBody, SeriesBody, WindowsError, forecast_body, windows};
use self::print::{Answer, answer};
use super::error::{Problem, Refusal, row_at_fault};
use super::replay::Way;
use super::symbols::Named;
use super::{Shared, below, get, get_or_post, glimpse, guard, post, traced};
use crate::levels::{offers, own_levels};

pub(crate) fn routes(config: &mut web::ServiceConfig) {
    post(config, "/v1/forecast", forecast);
    get(config, "/v1/models", models::list);
    below(config, "/v1/models/{model}", |routes| {
        get(routes, "", models::one);
        post(routes, "/load", models::load);
        post(routes, "/unload", models::unload);
        post(routes, "/split", releases::split);
        post(routes, "/canary", releases::canary);
        post(routes, "/shadow", releases::shadow);
        post(routes, "/promote", releases::promote);
        post(routes, "/rollback", releases::rollback);
    });
    get_or_post(config, "/v1/breakers", breakers::show, breakers::order);
    get_or_post(config, "/v1/config", config::show, config::post);
}

async fn forecast(
    shared: Data<Shared>,
    request: HttpRequest,
    mut payload: Payload,
) -> Result<HttpResponse, Problem> {
    let arrived = shared.clock.now();
    let mut way = Way::of(&shared, request.headers());
    let text = shared.body(request.headers(), &mut payload).await?;
    let read_at = shared.clock.now();
    if let Some(elsewhere) = way.onwards(&shared, &text, || glimpse::forecast(&text)) {
        return Ok(elsewhere);
    }
    let _admitted = shared.admit()?;
    let mut body = forecast_body(&text)?;
    let model = shared.model(body.model.as_deref(), body.version).await?;
    let spec = &model.spec;
    parse::refuse_several(spec)?;
    let horizon = body.horizon.unwrap_or(spec.horizon);
    if horizon > spec.horizon {
        return Err(BadForecast::Horizon { horizon, horizon_max: spec.horizon }.into());
    }
    let levels = body.levels.take().unwrap_or_else(|| own_levels(spec));
    if let Some(&level) = levels.iter().find(|&&level| !offers(&spec.head, level)) {
        return Err(print::no_level(spec, level).into());
    }
    let deadline = way.deadline(&shared, read_at, body.deadline);
    let key = body.series.first().and_then(SeriesBody::own_name).map(key_of);
    let origin = Origin { key, ..guard::origin(&shared, &request) };
    shared.system.turned_away((&spec.name, body.version), body.series.len(), &origin, deadline)?;
    let config = shared.config();
    let column = config.data.column_of(&spec.name);
    let named = body.series.iter().filter_map(|series| series.symbol.as_deref());
    let symbols = Named::new(&shared.series, column).with_fed(&shared, named, spec, deadline).await?;
    let windows = windows(&mut body.series, spec, &symbols).map_err(|error| match error {
        WindowsError::Body(error) => Refusal::from(error),
        WindowsError::Symbol(error) => error.into(),
    })?;
    let ids = shared.system.number(body.series.len());
    let row = |(place, series): (usize, &SeriesBody<'_>)| RowName {
        series: series.label(place).into(),
        position: None,
    };
    let subject = shared.subject(|| Names {
        ids: Some(ids),
        rows: body.series.iter().enumerate().map(row).collect(),
        ..Names::default()
    });
    if origin.trace.is_recorded() {
        traced::read(&origin.trace, arrived, shared.clock.now(), text.len());
    }
    let forecast = shared
        .forecast(&model, body.version, windows, deadline, origin, subject)
        .await
        .map_err(|error| with_label(error, &body))?;
    let answered = shared.clock.now();
    let total = answered.saturating_duration_since(arrived);
    let printed = answer(&Answer {
        forecast: &forecast,
        series: &body.series,
        horizon,
        levels: &levels,
        total,
        region: config.node.region.as_str(),
        ids,
    });
    traced::printed(&shared, &request, &forecast, Some(ids), (answered, shared.clock.now()));
    let mut response = HttpResponse::Ok();
    response.insert_header(("content-type", "application/json"));
    if let Some(hint) = way.hint(&shared, &forecast) {
        response.insert_header(hint);
    }
    Ok(response.body(printed))
}

/// Refuses what would have no effect: nothing and an empty object say the same. `hint` says where it belongs.
async fn no_body(
    shared: &Shared,
    request: &HttpRequest,
    mut payload: Payload,
    hint: &'static str,
) -> Result<(), Refusal> {
    let body = shared.body(request.headers(), &mut payload).await?;
    let says_nothing =
        || serde_json::from_slice::<Map<String, Value>>(&body).is_ok_and(|body| body.is_empty());
    if body.trim_ascii().is_empty() || says_nothing() { Ok(()) } else { Err(Refusal::NoBodyWanted(hint)) }
}

/// Names the series by the caller's own id.
fn with_label(error: peregrine_actors::ForecastError, body: &ForecastBody<'_>) -> Refusal {
    match row_at_fault(&error).and_then(|row| Some(body.series.get(row)?.label(row))) {
        Some(series) => Refusal::Series { series, source: error },
        None => error.into(),
    }
}
