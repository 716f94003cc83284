//! `GET /v1/config`: the configuration in use; `POST /v1/config`: one more layer of it, until the next restart or
//! SIGHUP.

use actix_web::HttpResponse;
use actix_web::web::{self, Data, Payload};
use actix_web::{HttpRequest, http::header::HeaderMap};
use serde_json::json;

use super::{Problem, Shared};
use crate::gateway::body::{self, BodyError, BodyLimits};
use crate::gateway::error::Refusal;

/// A configuration is small.
const BYTES_MAX: usize = 64 << 10;

pub(super) async fn show(shared: Data<Shared>) -> HttpResponse {
    HttpResponse::Ok().json(shared.reload.to_json())
}

pub(super) async fn post(
    shared: Data<Shared>,
    request: HttpRequest,
    mut payload: Payload,
) -> Result<HttpResponse, Problem> {
    let text = text(&shared, request.headers(), &mut payload).await?;
    let reload = shared.reload.clone();
    let work = move || reload.post(&text); // looks for files and folders
    let changed = web::block(work).await.map_err(|_cancelled| BodyError::Broken)?.map_err(Refusal::Reload)?;
    Ok(HttpResponse::Ok().json(json!({ "changed": changed })))
}

async fn text(shared: &Shared, headers: &HeaderMap, payload: &mut Payload) -> Result<String, BodyError> {
    let limits = BodyLimits {
        bytes_max: BYTES_MAX,
        together_max: shared.config().server.bodies_bytes_max,
        within: shared.config().deadline.max,
    };
    let bytes = body::read(headers, payload, limits, &shared.bodies).await?;
    String::from_utf8(bytes.to_vec()).map_err(|_| BodyError::NotText)
}
