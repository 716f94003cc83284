//! `GET /metrics`: everything that is counted, as Prometheus text; `GET /metrics/gpu`: devices as JSON.
//!
//! Base units. Stages of forecasts are histograms, which add up over nodes and time; beside each stand the node's own
//! percentiles since it started, true to three digits and not guessed from buckets.

mod alerts;
mod cluster;
mod devices;
mod forecasts;
mod form;
mod releases;
mod scaler;
mod series;
mod trust;

use std::sync::atomic::Ordering;

use actix_web::http::header::{ACCEPT, VARY};
use actix_web::web::{self, Data};
use actix_web::{HttpRequest, HttpResponse};
use peregrine_actors::{Health, PaceStatus, Placement};
use serde_json::json;

use self::form::Form;
pub(super) use self::form::Page;
use super::health::{device_view, meter_view};
use super::meter::{BOUNDS_S, CLASSES, Meter, Route};
use super::stream::LagReader;
use super::{Shared, get};
use crate::reload::Outcome;
use crate::telemetry::{Fate, Telemetry};

pub(super) fn routes(config: &mut web::ServiceConfig) {
    get(config, "/metrics", metrics);
    get(config, "/metrics/gpu", gpu);
}

async fn metrics(shared: Data<Shared>, request: HttpRequest) -> HttpResponse {
    let config = shared.config();
    let node = &config.node;
    let accepts = request.headers().get_all(ACCEPT).filter_map(|value| value.to_str().ok());
    let form = Form::wanted(accepts);
    let mut page = Page::new(form, &[("region", &node.region), ("node", &node.name)]);
    page.family("peregrine_uptime_seconds", "gauge", "Since the node started.");
    page.sample("", &[], shared.uptime().as_secs_f64());
    page.family("peregrine_reloads_total", "counter", "Attempts to change the configuration, by outcome.");
    for outcome in Outcome::ALL {
        page.sample("", &[("outcome", &outcome.name())], shared.reload.count(outcome));
    }
    requests(&mut page, &shared.meter);
    let mut certificates = shared.certificates(shared.clock.wall()).peekable();
    if certificates.peek().is_some() {
        let help = "Until the certificate that a port shows expires; negative: since then.";
        page.family("peregrine_tls_certificate_expiry_seconds", "gauge", help);
    }
    for (port, left) in certificates {
        page.sample("", &[("port", &port)], left);
    }
    page.family(
        "peregrine_connections",
        "gauge",
        "Connections that are served, websockets too; a task each.",
    );
    page.sample("", &[], shared.meter.connections.load(Ordering::Relaxed));
    page.family("peregrine_bodies_bytes", "gauge", "Of request bodies that are read or worked on.");
    page.sample("", &[], shared.bodies.held());
    page.family("peregrine_rate_limited_total", "counter", "Requests that were too many, by kind of caller.");
    for (kind, count) in shared.security.limited() {
        page.sample("", &[("kind", &kind)], count);
    }
    page.family("peregrine_denied_total", "counter", "Requests that were not allowed, by reason.");
    for (reason, count) in shared.security.denied() {
        page.sample("", &[("reason", &reason)], count);
    }
    if let Some(telemetry) = &shared.telemetry {
        traces(&mut page, telemetry);
    }
    let stats = shared.system.stats();
    forecasts::models(&mut page, &stats, &shared.meter);
    forecasts::weights(&mut page, &shared);
    trust::breakers(&mut page, &shared);
    trust::checks(&mut page, &stats);
    releases::all(&mut page, &shared.system.releases());
    cluster::remote(&mut page, &shared);
    series::all(&mut page, &shared);
    let values_min = shared.config().breaker.coverage_values_min as f64;
    series::scores(&mut page, &shared.scorecard, values_min).await;
    if let Some(kept) = &shared.journal {
        series::journal(&mut page, kept);
    }
    if let Some(records) = &shared.records {
        super::audit::metrics(&mut page, records);
    }
    if let Some(demo) = &shared.demo {
        page.family("peregrine_demo_ticks_total", "counter", "Ticks of the demo that the series have.");
        page.sample("", &[], demo.fed());
    }
    if let Some(part) = &shared.cluster {
        cluster::members(&mut page, part);
    }
    if shared.platform.is_some() {
        cluster::replays(&mut page, &shared.replays);
    }
    streams(&mut page, &shared);
    let health = shared.system.health();
    devices::all(&mut page, &health);
    trust::queues(&mut page, &health);
    actors(&mut page, &health);
    page.family("peregrine_actors_stuck", "gauge", "Actors that are at one message for two minutes.");
    page.sample("", &[], shared.watch.stuck());
    page.family("peregrine_actors_stuck_total", "counter", "How often an actor was found so.");
    page.sample("", &[], shared.watch.stuck_ever());
    vitals(&mut page, &health);
    alerts::all(&mut page, &shared, &health);
    scaler::all(&mut page, &shared);
    HttpResponse::Ok()
        .insert_header(("content-type", form.content_type()))
        .insert_header((VARY, "accept"))
        .body(page.finish())
}

async fn gpu(shared: Data<Shared>) -> HttpResponse {
    let health = shared.system.health();
    let mut body = json!({
        "devices": health.devices.iter().map(device_view).collect::<Vec<_>>(),
        "placement": match shared.system.placement() {
            Placement::Gpu => "gpu",
            Placement::Cpu => "cpu",
            Placement::Fastest => "fastest",
        },
        "paces": shared.system.paces().iter().map(pace_view).collect::<Vec<_>>(),
    });
    if !health.meters.is_empty() {
        body["meters"] = health.meters.iter().map(meter_view).collect();
    }
    HttpResponse::Ok().json(body)
}

fn traces(page: &mut Page, telemetry: &Telemetry) {
    page.family("peregrine_trace_spans_total", "counter", "Spans by what became of them.");
    for fate in Fate::ALL {
        page.sample("", &[("outcome", &fate.name())], telemetry.count(fate));
    }
    page.family("peregrine_trace_spans_queued", "gauge", "Spans that wait for their export.");
    page.sample("", &[], telemetry.waiting());
    let (recorded, capped) = telemetry.traces();
    page.family(
        "peregrine_traces_total",
        "counter",
        "Traces that were to be recorded, by whether they were.",
    );
    page.sample("", &[("outcome", &"recorded")], recorded);
    page.sample("", &[("outcome", &"capped")], capped);
}

fn pace_view(pace: &PaceStatus) -> serde_json::Value {
    json!({
        "model": pace.model,
        "version": pace.version.to_string(),
        "backend": pace.backend.name(),
        "device": pace.index,
        "rows": pace.rows,
        "milliseconds": pace.took.as_secs_f64() * 1e3,
    })
}

fn requests(page: &mut Page, meter: &Meter) {
    page.family("peregrine_requests_total", "counter", "Answered requests by route and status class.");
    for route in Route::ALL {
        for (class, count) in CLASSES.iter().zip(meter.read(route).classes) {
            page.sample("", &[("route", &route.name()), ("class", class)], count);
        }
    }
    page.family("peregrine_errors_total", "counter", "Requests answered 4xx or 5xx, by route.");
    for route in Route::ALL {
        let [_, _, _, client, server] = meter.read(route).classes;
        page.sample("", &[("route", &route.name())], client + server);
    }
    page.family(
        "peregrine_request_seconds",
        "histogram",
        "From the request's head to its answer's, by route.",
    );
    for route in Route::ALL {
        let reading = meter.read(route);
        for ((bound, count), exemplar) in BOUNDS_S.iter().zip(reading.buckets).zip(reading.exemplars) {
            page.bucket(&[("route", &route.name()), ("le", bound)], count, exemplar);
        }
        let (all, exemplar) = (reading.buckets[BOUNDS_S.len()], reading.exemplars[BOUNDS_S.len()]);
        page.bucket(&[("route", &route.name()), ("le", &"+Inf")], all, exemplar);
        page.sample("_sum", &[("route", &route.name())], reading.seconds);
        page.sample("_count", &[("route", &route.name())], all);
    }
    page.family("peregrine_in_flight", "gauge", "Forecast requests inside the node.");
    page.sample("", &[], meter.in_flight());
}

fn streams(page: &mut Page, shared: &Shared) {
    let stats = shared.stream.stats(LagReader::Metrics);
    page.family("peregrine_stream_subscribers", "gauge", "Open websockets.");
    page.sample("", &[], stats.subscribers);
    page.family(
        "peregrine_stream_lag",
        "gauge",
        "Most messages that a reader was behind since the last look at this.",
    );
    page.sample("", &[], stats.lag_frames);
    let hub = shared.stream.hub().stats();
    let counters = [
        ("peregrine_stream_messages_total", "Messages of the shared logs that were sent.", stats.messages),
        ("peregrine_stream_bytes_total", "Their bytes, framed.", stats.bytes),
        ("peregrine_stream_conflated_total", "Messages that slow readers did not get.", stats.conflated),
        ("peregrine_stream_published_total", "Events that came to be sent.", hub.published),
        (
            "peregrine_stream_rendered_total",
            "Messages that were written, once for all readers.",
            hub.rendered,
        ),
        (
            "peregrine_stream_repairs_total",
            "Holes in the numbers of a stream that were asked about.",
            hub.repairs,
        ),
        ("peregrine_stream_refused_total", "Events of streams beyond the bound.", hub.refused),
    ];
    for (name, help, count) in counters {
        page.family(name, "counter", help);
        page.sample("", &[], count);
    }
    for (name, help, count) in [
        ("peregrine_stream_channels", "Different subscriptions.", hub.channels),
        ("peregrine_stream_streams", "Streams that are followed.", hub.streams),
    ] {
        page.family(name, "gauge", help);
        page.sample("", &[], count);
    }
    page.family("peregrine_stream_closed_total", "counter", "Websockets that ended, by why.");
    for (why, count) in stats.ends {
        page.sample("", &[("why", &why)], count);
    }
}

fn actors(page: &mut Page, health: &Health) {
    page.family("peregrine_mailbox_depth", "gauge", "Messages waiting in an actor's mailbox.");
    for actor in &health.actors {
        page.sample("", &[("actor", &actor.name)], actor.depth);
    }
    page.family("peregrine_actor_restarts_total", "counter", "Incarnations of an actor after its first.");
    for actor in &health.actors {
        page.sample("", &[("actor", &actor.name)], actor.restarts);
    }
    page.family("peregrine_dead_letters_total", "counter", "Messages that reached nobody, by reason.");
    for actor in &health.actors {
        let letters = &actor.dead_letters;
        for (reason, count) in [
            ("full", letters.full),
            ("closed", letters.closed),
            ("expired", letters.expired),
            ("abandoned", letters.abandoned),
        ] {
            page.sample("", &[("actor", &actor.name), ("reason", &reason)], count);
        }
    }
}

/// Missing, not zero, until the first sample is taken.
fn vitals(page: &mut Page, health: &Health) {
    let Some(vitals) = health.system else { return };
    page.family("peregrine_cpu_share", "gauge", "Share of all cores in use, 0 to 1.");
    page.sample("", &[], vitals.cpu_share);
    page.family("peregrine_process_cpu_share", "gauge", "Share of one core that this process uses.");
    page.sample("", &[], vitals.process_cpu_share);
    page.family(
        "peregrine_memory_used_bytes",
        "gauge",
        "Memory in use, of the machine or of the control group that limits it.",
    );
    page.sample("", &[], vitals.memory_used_bytes);
    page.family(
        "peregrine_memory_total_bytes",
        "gauge",
        "Memory of the machine, or the limit of the control group if that is less.",
    );
    page.sample("", &[], vitals.memory_total_bytes);
    page.family("peregrine_process_resident_bytes", "gauge", "Resident memory of this process.");
    page.sample("", &[], vitals.process_bytes);
}
