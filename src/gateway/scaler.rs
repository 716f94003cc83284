//! `GET /v1/scaler/report`: what the fleet is, what was decided and why; `POST /v1/scaler/release`: what a group's
//! machines are to run from now on. Any node of the cluster answers, wherever the scaler acts.

use std::time::Duration;

use actix_web::http::header::ContentType;
use actix_web::web::{self, Data, Payload};
use actix_web::{HttpRequest, HttpResponse};
use peregrine_runtime::Deadline;
use serde::Deserialize;
use serde_json::json;

use super::error::{Problem, Refusal};
use super::{Shared, get, post};
use crate::scaler::{FromScaler, ToScaler};

/// Where it acts is known within a lease, or nobody acts.
const WITHIN: Duration = Duration::from_secs(5);

pub(super) fn routes(config: &mut web::ServiceConfig) {
    get(config, "/v1/scaler/report", report);
    post(config, "/v1/scaler/release", release);
}

async fn report(shared: Data<Shared>) -> Result<HttpResponse, Problem> {
    match ask(&shared, ToScaler::Report).await? {
        FromScaler::Report(text) => Ok(HttpResponse::Ok().content_type(ContentType::json()).body(text)),
        _ => Err(Refusal::NoScaler.into()),
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Wanted {
    group: String,
    release: String,
}

async fn release(
    shared: Data<Shared>,
    request: HttpRequest,
    mut payload: Payload,
) -> Result<HttpResponse, Problem> {
    let body = shared.body(request.headers(), &mut payload).await?;
    let form = |_| Refusal::Fleet("a release is wanted as `group` and `release`, both text".to_owned());
    let Wanted { group, release } = serde_json::from_slice(&body).map_err(form)?;
    let wanted = ToScaler::Release { group: group.clone(), release: release.clone() };
    match ask(&shared, wanted).await? {
        FromScaler::Released(Ok(())) => {
            Ok(HttpResponse::Ok().json(json!({ "group": group, "release": release })))
        }
        FromScaler::Released(Err(why)) => Err(Refusal::Fleet(why).into()),
        _ => Err(Refusal::NoScaler.into()),
    }
}

async fn ask(shared: &Shared, message: ToScaler) -> Result<FromScaler, Refusal> {
    let scaler = shared.scaler.as_ref().ok_or(Refusal::NoScaler)?;
    let deadline = Deadline::after(shared.clock.now(), WITHIN);
    scaler.ask(message, deadline).await.map_err(|_| Refusal::NoScaler)
}
