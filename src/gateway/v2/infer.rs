//! One inference: body in, forecast asked for, answer out.

use std::time::Duration;

use actix_web::http::header::CONTENT_TYPE;
use actix_web::web::{Data, Path, Payload};
use actix_web::{HttpRequest, HttpResponse};
use peregrine_actors::Names;

use super::parse::{infer_request, json_len};
use super::print::{Answer, Printed, answer};
use super::{ModelPath, ProtocolError, Shared};
use crate::gateway::glimpse::{self, Glimpse};
use crate::gateway::replay::Way;
use crate::gateway::{guard, traced};

/// Where the JSON ends and raw bytes begin.
const HEADER_LENGTH: &str = "inference-header-content-length";

pub(super) async fn infer(
    shared: Data<Shared>,
    path: Path<ModelPath>,
    request: HttpRequest,
    mut payload: Payload,
) -> Result<HttpResponse, ProtocolError> {
    let mut way = Way::of(&shared, request.headers());
    let body = shared.body(request.headers(), &mut payload).await?;
    let read_at = shared.clock.now();
    let version = path.version()?;
    let header_length = request.headers().get(HEADER_LENGTH);
    // What is not even text cannot be a count.
    let header_length = header_length.map(|value| value.to_str().unwrap_or("?"));
    let glimpse = || {
        let within = match json_len(&body, header_length).ok()? {
            0 => None, // raw
            json_len => glimpse::infer(&body[..json_len])?,
        };
        Some(Glimpse { model: Some(path.model.as_str().into()), version, within })
    };
    if let Some(elsewhere) = way.onwards(&shared, &body, glimpse) {
        return Ok(elsewhere);
    }
    let model = shared.located(&path.model, version).await?;
    let _admitted = shared.admit()?;
    let start = shared.clock.now();
    let parsed = infer_request(&body, header_length, &model.spec)?;
    let parsed_at = shared.clock.now();
    let parse = parsed_at.saturating_duration_since(start);
    let deadline = way.deadline(&shared, read_at, parsed.timeout);
    let origin = guard::origin(&shared, &request);
    if origin.trace.is_recorded() {
        traced::read(&origin.trace, start, parsed_at, body.len());
    }
    let ids = shared.records.as_ref().map(|_| shared.system.number(parsed.windows.rows));
    let request_id = || parsed.id.as_deref().unwrap_or_default().to_owned();
    let subject = shared.subject(|| Names { ids, request: request_id(), ..Names::default() });
    let forecast = match shared.forecast(&model, version, parsed.windows, deadline, origin, subject).await {
        Ok(forecast) => forecast,
        Err(refused) => {
            shared.meter.transfer(&model.spec.name, model.version, parse, None);
            return Err(refused.into());
        }
    };
    let start = shared.clock.now();
    let printed = answer(
        &Answer {
            id: parsed.id.as_deref(),
            spec: &forecast.spec,
            version: forecast.version,
            backend: &forecast.backend_label(),
            node: forecast.peer(),
            prediction: ids.map(|ids| ids.row(0)),
            degraded: forecast.degraded,
            values: &forecast.values,
        },
        parsed.binary_output,
    );
    let printed_at = shared.clock.now();
    let print: Duration = printed_at.saturating_duration_since(start);
    traced::printed(&shared, &request, &forecast, ids, (start, printed_at));
    shared.meter.transfer(&model.spec.name, forecast.version, parse, Some(print));
    let mut response = respond(printed);
    if let Some((name, region)) = way.hint(&shared, &forecast) {
        response.headers_mut().insert(name, region);
    }
    Ok(response)
}

fn respond(printed: Printed) -> HttpResponse {
    let mut response = HttpResponse::Ok();
    match printed.json_len {
        Some(json_len) => response
            .insert_header((CONTENT_TYPE, "application/octet-stream"))
            .insert_header((HEADER_LENGTH, json_len.to_string())),
        None => response.insert_header((CONTENT_TYPE, "application/json")),
    };
    response.body(printed.body)
}
