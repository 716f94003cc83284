//! One inference: body in, forecast asked for, answer out.

use std::io::Write;
use std::time::Duration;

use actix_web::http::header::{ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_TYPE, HeaderMap, VARY};
use actix_web::web::{Data, Path, Payload};
use actix_web::{HttpRequest, HttpResponse};
use flate2::Compression;
use flate2::write::{GzEncoder, ZlibEncoder};

use peregrine_actors::Names;

use super::parse::{infer_request, json_len};
use super::print::{Answer, Printed, answer};
use super::{ModelPath, ProtocolError, Shared};
use crate::gateway::glimpse::{self, Glimpse};
use crate::gateway::replay::Way;
use crate::gateway::{guard, traced};

/// Where the JSON ends and raw bytes begin.
const HEADER_LENGTH: &str = "inference-header-content-length";
/// Smaller answers are not worth packing.
const PACK_BYTES_MIN: usize = 16 << 10;

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
    let mut response = respond(printed, request.headers());
    if let Some((name, region)) = way.hint(&shared, &forecast) {
        response.headers_mut().insert(name, region);
    }
    Ok(response)
}

fn respond(printed: Printed, wishes: &HeaderMap) -> HttpResponse {
    let mut response = HttpResponse::Ok();
    match printed.json_len {
        Some(json_len) => response
            .insert_header((CONTENT_TYPE, "application/octet-stream"))
            .insert_header((HEADER_LENGTH, json_len.to_string())),
        None => response.insert_header((CONTENT_TYPE, "application/json")),
    };
    if printed.body.len() >= PACK_BYTES_MIN
        && let Some((encoding, packed)) = packed(&printed.body, wishes)
    {
        return response
            .insert_header((CONTENT_ENCODING, encoding))
            .insert_header((VARY, "accept-encoding"))
            .body(packed);
    }
    response.body(printed.body)
}

/// The first of the forms we know that the client asks for.
fn packed(plain: &[u8], wishes: &HeaderMap) -> Option<(&'static str, Vec<u8>)> {
    let wishes = wishes.get(ACCEPT_ENCODING)?.to_str().ok()?;
    let encoding = wishes.split(',').find_map(|wish| {
        let (name, weight) = wish.split_once(';').unwrap_or((wish, ""));
        let refused = weight.trim().trim_start_matches("q=").parse() == Ok(0.0_f32);
        ["gzip", "deflate"].into_iter().find(|known| !refused && name.trim().eq_ignore_ascii_case(known))
    })?;
    let packed = if encoding == "gzip" {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(plain).and_then(|()| encoder.finish())
    } else {
        let mut encoder = ZlibEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(plain).and_then(|()| encoder.finish())
    };
    packed.ok().map(|packed| (encoding, packed))
}
