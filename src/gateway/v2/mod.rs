//! The Open Inference Protocol, version 2, over HTTP.

mod infer;
mod metadata;
pub(crate) mod parse;
pub(crate) mod print;
mod repository;
mod statistics;

use actix_web::web::{self, Data};
use actix_web::{HttpResponse, http::StatusCode};
use serde_json::{Value, json};

use super::error::{ProtocolError, Refusal};
use super::{Shared, below, get, post};

pub(crate) fn routes(config: &mut web::ServiceConfig) {
    for base in ["/v2", "/v2/"] {
        get(config, base, metadata::server);
    }
    get(config, "/v2/health/live", live);
    get(config, "/v2/health/ready", ready);
    get(config, "/v2/models/stats", statistics::all);
    post(config, "/v2/repository/index", repository::index);
    below(config, "/v2/models/{model}", |routes| {
        model(routes);
        below(routes, "/versions/{version}", model);
    });
    below(config, "/v2/repository/models/{model}", |routes| {
        post(routes, "/load", repository::load);
        post(routes, "/unload", repository::unload);
    });
}

/// Of a model, and of one of its versions.
fn model(routes: &mut web::ServiceConfig) {
    post(routes, "/infer", infer::infer);
    get(routes, "/ready", metadata::ready);
    get(routes, "/config", metadata::configuration);
    get(routes, "/stats", statistics::one);
    get(routes, "", metadata::model);
}

/// `{model}` and, where the path has one, `{version}`.
#[derive(Debug, serde::Deserialize)]
struct ModelPath {
    model: String,
    version: Option<String>,
}

impl ModelPath {
    fn version(&self) -> Result<Option<u32>, Refusal> {
        let Some(text) = &self.version else { return Ok(None) };
        let digits = text.bytes().all(|byte| byte.is_ascii_digit());
        let number = text.parse().ok().filter(|&number: &u32| digits && number > 0);
        number.map(Some).ok_or_else(|| Refusal::Version(text.chars().take(32).collect()))
    }
}

async fn live(shared: Data<Shared>) -> HttpResponse {
    let live = shared.system.health().live;
    answer_with(verdict(live), &json!({ "live": live }))
}

async fn ready(shared: Data<Shared>) -> HttpResponse {
    let health = shared.system.health();
    let mut body = json!({ "live": health.live, "ready": health.ready });
    if !health.ready {
        body["error"] = health.reasons.join("; ").into();
    }
    answer_with(verdict(health.ready), &body)
}

fn verdict(good: bool) -> StatusCode {
    if good { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }
}

fn answer(body: &Value) -> HttpResponse {
    answer_with(StatusCode::OK, body)
}

/// The content type stands alone: clients compare it whole.
fn answer_with(status: StatusCode, body: &Value) -> HttpResponse {
    HttpResponse::build(status).insert_header(("content-type", "application/json")).body(body.to_string())
}
