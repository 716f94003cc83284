//! The span of an HTTP request: begun by the caller's `traceparent` or by the sampler, ended with the answer.
//!
//! Attributes are those of OpenTelemetry's semantic conventions for HTTP, and ours under `peregrine.`. An answer that
//! was recorded says so in `traceresponse`: a caller that sent no context learns under which id it finds its request,
//! and one that did, which span here was its own. `traceparent` is a request's field and would mean nothing there.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Instant;

use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::http::Method;
use actix_web::http::header::{HeaderMap, HeaderName, HeaderValue};
use actix_web::{HttpMessage as _, HttpRequest};
use peregrine_actors::audit::PredictionIds;
use peregrine_actors::{Done, Forecast, SpanKind, Trace, Value};
use peregrine_runtime::TraceContext;

use super::Shared;
use super::meter::Route;
use crate::telemetry::Telemetry;

const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");
const TRACERESPONSE: HeaderName = HeaderName::from_static("traceresponse");

/// A request that is recorded, among its extensions.
#[derive(Clone)]
struct Traced {
    span: Trace,
    /// What its handler knows of it.
    notes: Rc<RefCell<Vec<(&'static str, Value)>>>,
}

/// The context that a request came with.
pub(in crate::gateway) fn caller(headers: &HeaderMap) -> Option<TraceContext> {
    let mut parents = headers.get_all(TRACEPARENT);
    let parent = parents.next()?;
    // Of two nobody knows which is meant.
    if parents.next().is_some() { None } else { TraceContext::parse(parent.as_bytes()) }
}

/// The fields to be passed on beside it.
pub(super) fn state(headers: &HeaderMap) -> impl Iterator<Item = &[u8]> {
    headers.get_all(TRACESTATE).map(HeaderValue::as_bytes)
}

/// A request has come. Probes and scrapes begin no trace of their own.
pub(super) fn begin(telemetry: &Telemetry, request: &ServiceRequest, route: Route, now: Instant) -> Trace {
    let roots = !matches!(route, Route::Health | Route::Observe | Route::Docs);
    let headers = request.headers();
    let span = telemetry.begin(caller(headers), || state(headers), roots, now);
    if span.is_recorded() {
        request.extensions_mut().insert(Traced { span: span.clone(), notes: Rc::default() });
    }
    span
}

/// What the work of a request is part of.
pub(super) fn of(shared: &Shared, request: &HttpRequest) -> Trace {
    if shared.telemetry.is_none() {
        return Trace::default();
    }
    request.extensions().get::<Traced>().map(|traced| traced.span.clone()).unwrap_or_default()
}

/// A request was read between these instants.
pub(super) fn read(trace: &Trace, start: Instant, end: Instant, bytes: usize) {
    trace.piece(|| {
        let done = Done::new("transfer", start, end);
        done.with("peregrine.stage", "read").with("http.request.body.size", bytes)
    });
}

/// Its forecast was printed between these instants.
pub(super) fn printed(
    shared: &Shared,
    request: &HttpRequest,
    forecast: &Forecast,
    ids: Option<PredictionIds>,
    (start, end): (Instant, Instant),
) {
    if shared.telemetry.is_none() {
        return;
    }
    let Some(traced) = request.extensions().get::<Traced>().cloned() else { return };
    traced.span.piece(|| Done::new("transfer", start, end).with("peregrine.stage", "print"));
    let mut notes = traced.notes.borrow_mut();
    notes.push(("peregrine.model", forecast.spec.name.clone().into()));
    notes.push(("peregrine.version", forecast.version.into()));
    notes.push(("peregrine.backend", forecast.backend_label().into_owned().into()));
    notes.push(("peregrine.degraded", forecast.degraded.into()));
    let config = shared.config();
    let node = forecast.peer().map_or_else(|| config.node.name.to_string(), str::to_owned);
    notes.push(("peregrine.node", node.into()));
    notes.push(("peregrine.region", config.node.region.to_string().into()));
    if let Some(ids) = ids {
        notes.push(("peregrine.prediction.id", ids.row(0).to_string().into()));
    }
}

/// It is answered.
pub(super) fn end<B>(
    shared: &Shared,
    span: &Trace,
    response: &mut ServiceResponse<B>,
    (start, end): (Instant, Instant),
) {
    let Some(context) = span.context() else { return };
    if let Ok(value) = HeaderValue::from_str(&context.traceparent()) {
        response.headers_mut().insert(TRACERESPONSE, value);
    }
    let (request, status) = (response.request(), response.status());
    let traced = request.extensions().get::<Traced>().cloned();
    span.end(|| {
        let method = method(request.method());
        let route = request.match_pattern();
        let name = match &route {
            Some(route) => format!("{method} {route}"),
            None => method.to_owned(),
        };
        let mut done = Done::new(name, start, end)
            .of_kind(SpanKind::Server)
            .with("http.request.method", method)
            .with("url.scheme", if shared.tls.is_some() { "https" } else { "http" })
            .with("url.path", request.path().to_owned())
            .with("http.response.status_code", u32::from(status.as_u16()))
            .with("network.protocol.name", "http");
        if let Some(route) = route {
            done = done.with("http.route", route);
        }
        if let Some(host) = request.headers().get("host").and_then(|host| host.to_str().ok()) {
            let (address, port) = host_and_port(host);
            done = done.with("server.address", address.to_owned());
            if let Some(port) = port {
                done = done.with("server.port", u32::from(port));
            }
        }
        if let Some(traced) = traced {
            done.attributes.append(&mut traced.notes.borrow_mut());
        }
        match status.is_server_error() {
            false => done,
            // As the conventions have it: a server's span has not failed where the caller was wrong.
            true => {
                let why = status.canonical_reason().unwrap_or_default().to_owned();
                let done = done.with("error.type", status.as_u16().to_string());
                Done { error: Some(why), ..done }
            }
        }
    });
}

/// One of those that are known, or the word for all others.
fn method(method: &Method) -> &'static str {
    const KNOWN: [&str; 9] = ["GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH"];
    KNOWN.into_iter().find(|known| *known == method.as_str()).unwrap_or("_OTHER")
}

fn host_and_port(host: &str) -> (&str, Option<u16>) {
    let split = host.rsplit_once(':').filter(|(address, _)| !address.contains(':') || address.ends_with(']'));
    match split {
        Some((address, port)) => (address.trim_matches(['[', ']']), port.parse().ok()),
        None => (host.trim_matches(['[', ']']), None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_taken_apart() {
        for (host, want) in [
            ("a.example", ("a.example", None)),
            ("a.example:80", ("a.example", Some(80))),
            ("[::1]:8080", ("::1", Some(8080))),
            ("[::1]", ("::1", None)),
            ("a:x", ("a", None)),
            ("", ("", None)),
        ] {
            assert_eq!(host_and_port(host), want, "{host}");
        }
    }

    #[test]
    fn methods_are_few() {
        assert_eq!(method(&Method::POST), "POST");
        assert_eq!(method(&Method::from_bytes(b"BREW").unwrap()), "_OTHER");
    }

    #[test]
    fn two_parents_are_none() {
        const PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        let mut headers = HeaderMap::new();
        headers.append(TRACEPARENT, HeaderValue::from_static(PARENT));
        assert_eq!(caller(&headers).map(|context| context.traceparent()).as_deref(), Some(PARENT));
        headers.append(TRACEPARENT, HeaderValue::from_static(PARENT));
        assert_eq!(caller(&headers), None);
        assert_eq!(caller(&HeaderMap::new()), None);
    }
}
