//! The routes of the service that this one replaces: a symbol in, numbers out.
//!
//! Parameters come as a JSON body or as a query; the body wins where both name one.

use std::time::Duration;

use actix_web::web::{self, Data, Payload};
use actix_web::{HttpRequest, HttpResponse};
use peregrine_actors::audit::RowName;
use peregrine_actors::release::key_of;
use peregrine_actors::{Forecast, Names, Origin};
use peregrine_shaders::{Backend, Windows, head};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::app::unix_millis;
use super::error::{Problem, Refusal};
use super::symbols::Named;
use super::v1::parse::{BadForecast, refuse_several};
use super::v1::print;
use super::{Shared, guard, post, traced};

/// More symbols than any caller of the old service sent.
const SYMBOLS_MAX: usize = 1024;

pub(super) fn routes(config: &mut web::ServiceConfig) {
    post(config, "/neural/predict", predict);
    post(config, "/neural/batch_predict", batch_predict);
}

/// What a query may have; a body may have more.
const PARAMETERS: [&str; 5] = ["symbol", "symbols", "horizon", "confidence_level", "model"];

#[derive(Debug, Default, Deserialize)]
pub(super) struct Wish {
    symbol: Option<String>,
    symbols: Option<Symbols>,
    horizon: Option<usize>,
    confidence_level: Option<f64>,
    model: Option<String>,
}

/// A JSON list, or a query's `A,B`.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub(super) enum Symbols {
    List(Vec<String>),
    Joined(String),
}

impl Symbols {
    fn into_list(self) -> Vec<String> {
        match self {
            Self::List(list) => list,
            Self::Joined(joined) => joined.split(',').map(|symbol| symbol.trim().to_owned()).collect(),
        }
    }
}

async fn predict(
    shared: Data<Shared>,
    request: HttpRequest,
    mut payload: Payload,
) -> Result<HttpResponse, Problem> {
    let wish = wish(&shared, &request, &mut payload).await?;
    let symbol = wish.symbol.clone().ok_or(BadForecast::NoMember("symbol"))?;
    let answered = answer(&shared, &request, &wish, &[symbol]).await?;
    let prediction = answered.predictions.into_iter().next().map(|prediction| Prediction {
        latency_ms: Some(millis(answered.took)),
        timestamp: Some(answered.timestamp_ms),
        ..prediction
    });
    Ok(HttpResponse::Ok().json(prediction)) // one symbol, one prediction
}

async fn batch_predict(
    shared: Data<Shared>,
    request: HttpRequest,
    mut payload: Payload,
) -> Result<HttpResponse, Problem> {
    let mut wish = wish(&shared, &request, &mut payload).await?;
    let symbols = wish.symbols.take().ok_or(BadForecast::NoMember("symbols"))?.into_list();
    if symbols.is_empty() || symbols.len() > SYMBOLS_MAX {
        return Err(BadForecast::Member { name: "symbols", want: "1 to 1024 symbols" }.into());
    }
    let answered = answer(&shared, &request, &wish, &symbols).await?;
    Ok(HttpResponse::Ok().json(Batch {
        total_latency_ms: millis(answered.took),
        avg_latency_ms: millis(answered.took) / symbols.len() as f64,
        symbols_count: symbols.len(),
        timestamp: answered.timestamp_ms,
        predictions: answered.predictions,
    }))
}

/// One symbol's answer. Typed, so that each number prints as the `f32` it is.
#[derive(Serialize)]
struct Prediction {
    symbol: String,
    prediction_id: String,
    prediction: Vec<f32>,
    gpu_utilized: bool,
    model: String,
    model_version: String,
    backend: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    node: Option<String>,
    degraded: bool,
    #[serde(flatten)]
    interval: Option<Interval>,
    #[serde(skip_serializing_if = "Option::is_none")]
    latency_ms: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    timestamp: Option<u64>,
}

#[derive(Serialize)]
struct Interval {
    confidence_level: f64,
    lower: Vec<f32>,
    upper: Vec<f32>,
}

#[derive(Serialize)]
struct Batch {
    predictions: Vec<Prediction>,
    total_latency_ms: f64,
    avg_latency_ms: f64,
    symbols_count: usize,
    timestamp: u64,
}

struct Answered {
    predictions: Vec<Prediction>,
    took: Duration,
    timestamp_ms: u64,
}

async fn wish(shared: &Shared, request: &HttpRequest, payload: &mut Payload) -> Result<Wish, Refusal> {
    let body = shared.body(request.headers(), payload).await?;
    Ok(read(request.query_string(), &body)?)
}

/// The body wins.
pub(super) fn read(query: &str, body: &[u8]) -> Result<Wish, BadForecast> {
    let malformed =
        || BadForecast::Member { name: "request", want: "a JSON object or a query of known parameters" };
    let named = web::Query::<Vec<(String, String)>>::from_query(query).map_err(|_| malformed())?;
    if let Some((name, _)) = named.iter().find(|(name, _)| !PARAMETERS.contains(&name.as_str())) {
        return Err(BadForecast::UnknownParameter(name.chars().take(128).collect()));
    }
    let members = of_query(named.into_inner())?;
    let query = Wish::deserialize(&Value::Object(members.clone()))
        .map_err(|_| misread(&members).unwrap_or_else(malformed))?;
    if body.iter().all(u8::is_ascii_whitespace) {
        return Ok(query);
    }
    let of_body = || serde_json::from_slice(body).ok().and_then(|members| misread(&members));
    let body: Wish = serde_json::from_slice(body).map_err(|_| of_body().unwrap_or_else(malformed))?;
    Ok(Wish {
        symbol: body.symbol.or(query.symbol),
        symbols: body.symbols.or(query.symbols),
        horizon: body.horizon.or(query.horizon),
        confidence_level: body.confidence_level.or(query.confidence_level),
        model: body.model.or(query.model),
    })
}

/// The parameters of a query, as a body would have them: `symbols` that stand several times are one list, as clients write
/// lists.
fn of_query(named: Vec<(String, String)>) -> Result<Map<String, Value>, BadForecast> {
    let mut members = Map::new();
    for (name, text) in named {
        match members.get_mut(&name) {
            Some(Value::String(joined)) if name == "symbols" => *joined = format!("{joined},{text}"),
            Some(_) => {
                let known = PARAMETERS.into_iter().find(|known| *known == name);
                return Err(BadForecast::Member { name: known.unwrap_or("request"), want: "there once" });
            }
            None => {
                let is_number = matches!(name.as_str(), "horizon" | "confidence_level");
                let number = is_number.then(|| serde_json::from_str(&text).ok()).flatten();
                members.insert(name, number.unwrap_or(Value::String(text)));
            }
        }
    }
    Ok(members)
}

/// The first parameter that is not what it must be.
fn misread(members: &Map<String, Value>) -> Option<BadForecast> {
    let is_text = |value: &Value| value.is_string();
    let is_list = |value: &Value| value.as_array().is_some_and(|list| list.iter().all(Value::is_string));
    let bad = |name: &'static str, want: &'static str, fits: &dyn Fn(&Value) -> bool| {
        let value = members.get(name).filter(|value| !value.is_null())?;
        (!fits(value)).then_some(BadForecast::Member { name, want })
    };
    bad("symbol", "a string", &is_text)
        .or_else(|| bad("symbols", "a list of strings, or one with commas", &|it| is_text(it) || is_list(it)))
        .or_else(|| bad("horizon", "a whole number", &Value::is_u64))
        .or_else(|| bad("confidence_level", "a number", &Value::is_number))
        .or_else(|| bad("model", "a string", &is_text))
}

async fn answer(
    shared: &Shared,
    request: &HttpRequest,
    wish: &Wish,
    symbols: &[String],
) -> Result<Answered, Refusal> {
    let start = shared.clock.now();
    let _admitted = shared.admit()?;
    let model = shared.model(wish.model.as_deref(), None).await?;
    let spec = &model.spec;
    refuse_several(spec)?;
    let horizon = wish.horizon.unwrap_or(spec.horizon);
    if horizon == 0 || horizon > spec.horizon {
        return Err(BadForecast::Horizon { horizon, horizon_max: spec.horizon }.into());
    }
    let level = wish.confidence_level.map(percent).transpose()?;
    let key = symbols.first().map(|symbol| key_of(symbol));
    let origin = Origin { key, ..guard::origin(shared, request) };
    let deadline = shared.deadline(None);
    shared.system.turned_away((&spec.name, None), symbols.len(), &origin, deadline)?;
    let config = shared.config();
    let column = config.data.column_of(&spec.name);
    let named = symbols.iter().map(String::as_str);
    let known = Named::new(&shared.series, column).with_fed(shared, named, spec, deadline).await?;
    let mut windows = Windows::default();
    for symbol in symbols {
        known.append(symbol, spec, &mut windows)?;
    }
    let ids = shared.system.number(symbols.len());
    let row = |symbol: &String| RowName { series: symbol.as_str().into(), position: None };
    let subject = shared.subject(|| Names {
        ids: Some(ids),
        rows: symbols.iter().map(row).collect(),
        ..Names::default()
    });
    let forecast = shared.forecast(&model, None, windows, deadline, origin, subject).await?;
    let answered = shared.clock.now();
    let rows = forecast.values.chunks_exact(spec.answer_len());
    let predictions = symbols.iter().zip(rows).enumerate().map(|(place, (symbol, row))| {
        let one = one(&forecast, symbol, row, horizon, level)?;
        Ok::<_, Refusal>(Prediction { prediction_id: ids.row(place).to_string(), ..one })
    });
    let predictions = predictions.collect::<Result<_, _>>()?;
    let now = shared.clock.now();
    traced::printed(shared, request, &forecast, Some(ids), (answered, now));
    let took = now.saturating_duration_since(start);
    Ok(Answered { predictions, took, timestamp_ms: unix_millis(shared.clock.wall()) })
}

fn one(
    forecast: &Forecast,
    symbol: &str,
    row: &[f32],
    horizon: usize,
    level: Option<f64>,
) -> Result<Prediction, Refusal> {
    let spec = &forecast.spec;
    let no_median = || BadForecast::NoMedian { model: spec.name.clone() };
    let mut prediction = head::median(spec, row).ok_or_else(no_median)?;
    prediction.truncate(horizon);
    let interval = level.map(|level| {
        let (mut lower, mut upper) =
            head::bounds(spec, row, level).ok_or_else(|| print::no_level(spec, level))?;
        lower.truncate(horizon);
        upper.truncate(horizon);
        Ok::<_, BadForecast>(Interval { confidence_level: level, lower, upper })
    });
    Ok(Prediction {
        symbol: symbol.to_owned(),
        prediction_id: String::new(),
        prediction,
        gpu_utilized: forecast.backend == Backend::Gpu,
        model: spec.name.clone(),
        model_version: forecast.version.to_string(),
        backend: forecast.backend_label().into_owned(),
        node: forecast.peer().map(str::to_owned),
        degraded: forecast.degraded,
        interval: interval.transpose()?,
        latency_ms: None,
        timestamp: None,
    })
}

/// Callers write 0.95 or 95.
fn percent(level: f64) -> Result<f64, BadForecast> {
    let percent = if level < 1.0 { level * 100.0 } else { level };
    if percent > 0.0 && percent < 100.0 {
        Ok((percent * 1e6).round() / 1e6)
    } else {
        Err(BadForecast::Member { name: "confidence_level", want: "between 0 and 1, or a percentage" })
    }
}

fn millis(took: Duration) -> f64 {
    took.as_secs_f64() * 1e3
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parameter_that_cannot_be_read_is_named() {
        for (query, body, said) in [
            ("", r#"{"symbol":"USD","horizon":"3"}"#, "`horizon` must be a whole number"),
            ("", r#"{"symbol":7}"#, "`symbol` must be a string"),
            ("", r#"{"symbols":["A",1]}"#, "`symbols` must be a list of strings, or one with commas"),
            ("", r#"{"symbol":null,"confidence_level":"90"}"#, "`confidence_level` must be a number"),
            ("symbol=USD&horizon=three", "", "`horizon` must be a whole number"),
            ("confidence_level=high", "", "`confidence_level` must be a number"),
            ("symbol=USD&horizon=", "", "`horizon` must be a whole number"),
            ("symbol=USD&symbol=GBP", "", "`symbol` must be there once"),
            ("symbols=USD&horizon=1&horizon=2", "", "`horizon` must be there once"),
            ("", "[1]", "`request` must be a JSON object or a query of known parameters"),
            ("", "{", "`request` must be a JSON object or a query of known parameters"),
        ] {
            let refused = read(query, body.as_bytes()).map(|_| ()).unwrap_err();
            assert_eq!(refused.to_string(), said, "{query} {body}");
        }
        let read = read("symbol=1&horizon=3", br#"{"symbols":"A,B"}"#).unwrap();
        assert_eq!((read.symbol.as_deref(), read.horizon), (Some("1"), Some(3)));
    }

    #[test]
    fn a_list_in_a_query_has_commas_or_its_name_again() {
        for query in
            ["symbols=A,B,C&horizon=1", "symbols=A&symbols=B&horizon=1&symbols=C", "symbols=A&symbols=B%2CC"]
        {
            let symbols = read(query, b"").unwrap().symbols.unwrap().into_list();
            assert_eq!(symbols, ["A", "B", "C"], "{query}");
        }
    }
}
