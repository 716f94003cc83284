//! `GET /metrics`: everything that is counted, as Prometheus text; `GET /metrics/gpu`: devices as JSON.
//!
//! Base units. Stages of forecasts are histograms, which add up over nodes and time; beside each stand the node's own
//! percentiles since it started, true to three digits and not guessed from buckets.

mod alerts;
mod devices;
mod form;
mod releases;
mod scaler;
mod trust;

use std::fmt::Display;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use actix_web::http::header::{ACCEPT, VARY};
use actix_web::web::{self, Data};
use actix_web::{HttpRequest, HttpResponse};
use peregrine_actors::scorecard::{Question, Score, Scorecard};
use peregrine_actors::{Health, Ladder, ModelStats, PaceStatus, Percentiles, Placement};
use peregrine_runtime::Cluster;
use serde_json::json;

use self::form::Form;
pub(super) use self::form::Page;
use super::health::{device_view, meter_view};
use super::meter::{BOUNDS_S, CLASSES, Meter, Route};
use super::replay::Replays;
use super::stream::LagReader;
use super::{Shared, get};
use crate::journal::TickJournal;
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
    if let Some(tls) = &shared.tls {
        let help = "Until the certificate of the public port expires; negative: since then.";
        page.family("peregrine_tls_certificate_expiry_seconds", "gauge", help);
        page.sample("", &[], tls.remaining_seconds(shared.clock.wall()));
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
    models(&mut page, &stats, &shared.meter);
    weights(&mut page, &shared);
    trust::breakers(&mut page, &shared);
    trust::checks(&mut page, &stats);
    releases::all(&mut page, &shared.system.releases());
    remote(&mut page, &shared);
    series(&mut page, &shared);
    let values_min = shared.config().breaker.coverage_values_min as f64;
    scores(&mut page, &shared.scorecard, values_min).await;
    if let Some(kept) = &shared.journal {
        journal(&mut page, kept);
    }
    if let Some(records) = &shared.records {
        super::audit::metrics(&mut page, records);
    }
    if let Some(demo) = &shared.demo {
        page.family("peregrine_demo_ticks_total", "counter", "Ticks of the demo that the series have.");
        page.sample("", &[], demo.fed());
    }
    if let Some(part) = &shared.cluster {
        cluster(&mut page, part);
    }
    if shared.platform.is_some() {
        replays(&mut page, &shared.replays);
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

/// The series that ticks feed.
fn series(page: &mut Page, shared: &Shared) {
    let stats = shared.live.series.stats();
    page.family(
        "peregrine_ticks_total",
        "counter",
        "Ticks that came to this node as their owner, by effect.",
    );
    let effects = [
        ("advanced", stats.advanced),
        ("inserted", stats.inserted),
        ("duplicate", stats.duplicate),
        ("conflict", stats.conflict),
        ("too_late", stats.too_late),
        ("refused", stats.refused),
    ];
    for (effect, count) in effects {
        page.sample("", &[("effect", &effect)], count);
    }
    let mut one = |name, kind, help, value: f64| {
        page.family(name, kind, help);
        page.sample("", &[], value);
    };
    let count = |count: u64| count as f64; // counters of a node stay far below 2^53
    let seconds = Duration::from_nanos(stats.predict_nanos).as_secs_f64();
    one("peregrine_ticks_acknowledged_total", "counter", "Ticks answered.", count(stats.acknowledged));
    one("peregrine_series", "gauge", "Series held, owned or as copies.", stats.series as f64);
    one("peregrine_series_bytes", "gauge", "Of their observations.", stats.bytes as f64);
    one("peregrine_shards_owned", "gauge", "Shards of series owned.", stats.shards_owned as f64);
    one("peregrine_shards_taken_over_total", "counter", "Shards taken over.", count(stats.recoveries));
    let help = "…of which a node that is there did not answer in time.";
    one("peregrine_shards_incomplete_total", "counter", help, count(stats.incomplete));
    one(
        "peregrine_predictions_total",
        "counter",
        "Predictions that followed ticks.",
        count(stats.predictions),
    );
    let help = "From tick to prediction, of all predictions together.";
    one("peregrine_predictions_seconds_total", "counter", help, seconds);
    let help = "Of these predictions, those made in the thread that took their tick.";
    one("peregrine_predictions_in_line_total", "counter", help, count(stats.in_line));
    let help = "Windows skipped because newer ones came before there was time.";
    one("peregrine_predictions_conflated_total", "counter", help, count(stats.conflated));
    let help = "Windows that could not be forecast.";
    one("peregrine_predictions_failed_total", "counter", help, count(stats.failed));
    let help = "Predictions that other nodes wanted and that were lost on the way.";
    let lost = shared.live.lost.load(Ordering::Relaxed);
    one("peregrine_predictions_lost_total", "counter", help, count(lost));
    let help = "Threads awake for `server.busy_poll`, the work that they did meanwhile included.";
    one("peregrine_busy_poll_seconds_total", "counter", help, shared.live.looked.time().as_secs_f64());
    let help = "How often such a thread asked for work.";
    one("peregrine_busy_poll_turns_total", "counter", help, count(shared.live.looked.turns()));
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

fn models(page: &mut Page, stats: &[ModelStats], meter: &Meter) {
    type Read = fn(&ModelStats) -> u64;
    let counters: [(&str, &str, Read); 6] = [
        ("peregrine_forecast_rows_total", "Windows forecast.", |stats| stats.inference_count),
        (
            "peregrine_forecast_crossed_rows_total",
            "Windows forecast with quantiles that cross: answered as they are, with `crossed`.",
            |stats| stats.crossed,
        ),
        ("peregrine_batches_total", "Batches run.", |stats| stats.execution_count),
        ("peregrine_forecasts_total", "Requests answered with a forecast.", |stats| stats.success.count),
        (
            "peregrine_forecast_failures_total",
            "Requests refused or failed after the model was found.",
            |stats| stats.fail.count,
        ),
        ("peregrine_forecasts_abandoned_total", "Requests whose caller left first.", |stats| stats.abandoned),
    ];
    for (name, help, read) in counters {
        page.family(name, "counter", help);
        for one in stats {
            page.sample("", &[("model", &one.model), ("version", &one.version)], read(one));
        }
    }
    stages(page, stats, meter);
    batches(page, stats);
}

/// Where the time of forecasts went.
fn stages(page: &mut Page, stats: &[ModelStats], meter: &Meter) {
    type Read = fn(&ModelStats) -> (&Percentiles, Duration);
    let stages: [([&str; 2], &str, Read); 3] = [
        (
            ["peregrine_forecast_seconds", "peregrine_forecast_quantile_seconds"],
            "From acceptance to answer.",
            |stats| (&stats.latency, Duration::from_nanos(stats.success.ns)),
        ),
        (
            ["peregrine_queue_seconds", "peregrine_queue_quantile_seconds"],
            "From acceptance to the start of the batch.",
            |stats| (&stats.queue_latency, Duration::from_nanos(stats.queue.ns)),
        ),
        (
            ["peregrine_compute_seconds", "peregrine_compute_quantile_seconds"],
            "The batch of a request.",
            |stats| {
                let spent = [stats.compute_input, stats.compute_infer, stats.compute_output];
                (&stats.compute_latency, Duration::from_nanos(spent.iter().map(|tally| tally.ns).sum()))
            },
        ),
    ];
    for (place, ([name, quantiles], help, read)) in stages.into_iter().enumerate() {
        page.family(name, "histogram", help);
        for one in stats {
            let labels: [(&str, &dyn Display); 2] = [("model", &one.model), ("version", &one.version)];
            page.durations(&labels, &one.ladders[place], read(one).1);
        }
        page.family(
            quantiles,
            "gauge",
            &format!("{help} True percentiles since the start, none before the first."),
        );
        for one in stats {
            page.quantiles(&[("model", &one.model), ("version", &one.version)], read(one).0);
        }
    }
    let help = "Reading the request (parse) and printing the answer (print).";
    page.family("peregrine_transfer_seconds", "histogram", help);
    for one in stats {
        let transfer = meter.transfer_of(&one.model, one.version);
        let stages: [(&str, &Ladder, Duration); 2] =
            [("parse", &transfer.parses, transfer.parse), ("print", &transfer.prints, transfer.print)];
        for (stage, ladder, took) in stages {
            page.durations(
                &[("model", &one.model), ("version", &one.version), ("stage", &stage)],
                ladder,
                took,
            );
        }
    }
}

fn batches(page: &mut Page, stats: &[ModelStats]) {
    page.family("peregrine_batch_rows", "histogram", "Rows of a batch.");
    for one in stats {
        let labels: [(&str, &dyn Display); 2] = [("model", &one.model), ("version", &one.version)];
        let (mut rows_sum, mut seen) = (0_u64, 0_u64);
        let mut sizes = one.batch_sizes.iter().peekable();
        for bound in (0..=12).map(|power| 1_usize << power) {
            while let Some((rows, runs)) = sizes.next_if(|(rows, _)| **rows <= bound) {
                rows_sum += *rows as u64 * runs.count;
                seen += runs.count;
            }
            page.sample("_bucket", &[labels[0], labels[1], ("le", &bound)], seen);
        }
        for (rows, runs) in sizes {
            rows_sum += *rows as u64 * runs.count;
            seen += runs.count;
        }
        page.sample("_bucket", &[labels[0], labels[1], ("le", &"+Inf")], seen);
        page.sample("_sum", &labels, rows_sum);
        page.sample("_count", &labels, seen);
    }
    page.family("peregrine_backend_rows_total", "counter", "Windows forecast, by backend.");
    for one in stats {
        for backend in &one.backends {
            let name = backend.backend.name();
            page.sample(
                "",
                &[("model", &one.model), ("version", &one.version), ("backend", &name)],
                backend.rows,
            );
        }
    }
    page.family("peregrine_degraded_total", "counter", "Requests answered in place of a GPU.");
    for one in stats {
        for backend in &one.backends {
            let name = backend.backend.name();
            let labels: [(&str, &dyn Display); 3] =
                [("model", &one.model), ("version", &one.version), ("backend", &name)];
            page.sample("", &labels, backend.degraded);
        }
    }
}

fn weights(page: &mut Page, shared: &Shared) {
    page.family("peregrine_weights_bytes", "gauge", "Weights and biases in f32.");
    for model in shared.system.models() {
        page.sample("", &[("model", &model.spec.name), ("version", &model.version)], model.weight_bytes);
    }
}

fn remote(page: &mut Page, shared: &Shared) {
    let Some(stats) = shared.system.remote_stats() else { return };
    page.family(
        "peregrine_remote_ask_seconds",
        "summary",
        "There and back, of asks that another node answered.",
    );
    for one in &stats.peers {
        let labels: [(&str, &dyn Display); 2] = [("to", &one.node), ("to_region", &one.region)];
        let of = &one.latency;
        for (quantile, took) in [("0.5", of.p50), ("0.9", of.p90), ("0.99", of.p99), ("0.999", of.p999)] {
            page.sample("", &[labels[0], labels[1], ("quantile", &quantile)], took.as_secs_f64());
        }
        page.sample("_sum", &labels, of.mean.as_secs_f64() * of.count as f64);
        page.sample("_count", &labels, of.count);
    }
    page.family("peregrine_remote_asks_total", "counter", "Asks of another node, by how they ended.");
    for one in &stats.peers {
        let ends = [
            ("answered", one.answered),
            ("refused", one.refused),
            ("failed", one.failed),
            ("cancelled", one.cancelled),
        ];
        for (end, count) in ends {
            page.sample("", &[("to", &one.node), ("to_region", &one.region), ("end", &end)], count);
        }
    }
    page.family("peregrine_remote_in_flight", "gauge", "Asks on their way to another node.");
    for one in &stats.peers {
        page.sample("", &[("to", &one.node), ("to_region", &one.region)], one.in_flight);
    }
    let totals = [
        ("peregrine_remote_requests_total", "Requests that other nodes were to answer.", stats.requests),
        ("peregrine_remote_retries_total", "Asks because an earlier one was refused.", stats.retries),
        ("peregrine_remote_retries_refused_total", "Retries beyond the budget.", stats.retries_refused),
        ("peregrine_remote_hedges_total", "Asks because an earlier one was late.", stats.hedges),
        ("peregrine_remote_hedge_wins_total", "Hedges that answered first.", stats.hedge_wins),
        ("peregrine_remote_hedges_refused_total", "Hedges beyond the budget.", stats.hedges_refused),
    ];
    for (name, help, count) in totals {
        page.family(name, "counter", help);
        page.sample("", &[], count);
    }
}

fn cluster(page: &mut Page, cluster: &Cluster) {
    let view = cluster.view();
    page.family("peregrine_cluster_members", "gauge", "Live nodes as this one sees them, itself included.");
    page.sample("", &[], view.members.len());
    page.family("peregrine_cluster_rtt_seconds", "gauge", "Smoothed round trip to a node.");
    for member in view.members.values().filter(|member| member.id != *cluster.id()) {
        if let Some(rtt) = cluster.rtt(&member.id) {
            page.sample("", &[("to", &member.id), ("to_region", &member.region)], rtt.as_secs_f64());
        }
    }
    let stats = cluster.stats();
    let counters = [
        ("peregrine_links_opened_total", "Links to other nodes that came about.", stats.links_opened),
        ("peregrine_links_lost_total", "Of those, links that were lost.", stats.links_lost),
        (
            "peregrine_links_refused_total",
            "Callers turned away after their credentials.",
            stats.links_refused,
        ),
        (
            "peregrine_link_violations_total",
            "Links ended because the peer broke the rules.",
            stats.violations,
        ),
        ("peregrine_answers_lost_total", "Answers to others that could not be sent.", stats.answers_lost),
        ("peregrine_detours_total", "Messages sent through a third node.", stats.detours),
        ("peregrine_relayed_total", "Frames passed on for others.", stats.relayed),
    ];
    for (name, help, count) in counters {
        page.family(name, "counter", help);
        page.sample("", &[], count);
    }
    page.family(
        "peregrine_remote_asks_waiting",
        "gauge",
        "Asks of this node that wait for another's answer.",
    );
    page.sample("", &[], stats.asks_waiting);
    let letters = [
        (
            "peregrine_remote_refused_total",
            "Messages of other nodes not taken here, by reason.",
            &stats.refused,
        ),
        (
            "peregrine_remote_tells_refused_total",
            "Messages that other nodes did not take.",
            &stats.tells_refused,
        ),
    ];
    for (name, help, by_reason) in letters {
        page.family(name, "counter", help);
        for (reason, count) in by_reason {
            page.sample("", &[("reason", reason)], count);
        }
    }
}

fn replays(page: &mut Page, replays: &Replays) {
    page.family(
        "peregrine_replays_asked_total",
        "counter",
        "Requests that Fly's proxy was to send elsewhere.",
    );
    page.sample("", &[], replays.asked());
    page.family("peregrine_replays_taken_total", "counter", "Requests that another Machine had sent here.");
    page.sample("", &[], replays.taken());
    page.family("peregrine_replays_failed_total", "counter", "Requests that came back unanswered, by why.");
    for (reason, count) in replays.failed() {
        page.sample("", &[("reason", &reason)], count);
    }
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

fn journal(page: &mut Page, journal: &TickJournal) {
    let status = journal.status();
    page.family("peregrine_journal_queued", "gauge", "Ticks that wait for the journal.");
    page.sample("", &[], status.queued);
    page.family("peregrine_journal_written_total", "counter", "Ticks that the journal has kept.");
    page.sample("", &[], status.written);
    page.family("peregrine_journal_failed_total", "counter", "Ticks that the disk refused.");
    page.sample("", &[], status.failed);
}

/// Of model versions, never of series, of which there are many. Missing, not zero, until something was scored.
async fn scores(page: &mut Page, card: &Arc<Scorecard>, values_min: f64) {
    type Read = fn(&Score) -> Option<f64>;
    let gauges: [(&str, &str, Read); 3] = [
        ("peregrine_score_mae", "Mean absolute error of the median of late.", |score| Some(score.mae)),
        ("peregrine_score_mase", "That by what a naive forecast of one step is off by.", |score| score.mase),
        ("peregrine_score_pinball", "Mean pinball loss over the model's levels of late.", |score| {
            score.pinball
        }),
    ];
    let read = Arc::clone(card);
    // Reads every stream of the node: not on a thread that answers requests.
    let scores = web::block(move || read.scores(Question::default())).await.unwrap_or_default();
    for (name, help, read) in gauges {
        page.family(name, "gauge", help);
        for score in &scores {
            let Some(value) = read(score) else { continue };
            page.sample("", &[("model", &score.model), ("version", &score.version)], value);
        }
    }
    page.family(
        "peregrine_score_coverage",
        "gauge",
        "Share of truths within the interval of a level, 0 to 1.",
    );
    for score in &scores {
        for one in &score.coverage {
            let labels: [(&str, &dyn Display); 3] =
                [("model", &score.model), ("version", &score.version), ("level", &one.level)];
            page.sample("", &labels, one.held / 100.0);
        }
    }
    page.family(
        "peregrine_score_coverage_shortfall",
        "gauge",
        "By how much the worst interval that rests on enough values held less than its level, 0 to 1.",
    );
    for score in &scores {
        let Some(worst) = score.worst_interval(values_min) else { continue };
        page.sample("", &[("model", &score.model), ("version", &score.version)], worst.shortfall());
    }
    page.family("peregrine_score_scored_total", "counter", "Values of predictions that met their truth.");
    for (model, version, scored) in card.scored() {
        page.sample("", &[("model", &model), ("version", &version)], scored);
    }
    let status = card.status();
    let plain: [(&str, &str, &str, u64); 4] = [
        ("peregrine_score_series", "gauge", "Series on the scorecard.", status.series as u64),
        ("peregrine_score_bytes", "gauge", "Memory of its streams.", status.bytes as u64),
        (
            "peregrine_score_unscored_total",
            "counter",
            "Predictions and truths that it had no room for, or that cannot be scored.",
            status.unscored,
        ),
        ("peregrine_score_late_total", "counter", "Truths too late to be scored in full.", status.too_late),
    ];
    for (name, kind, help, value) in plain {
        page.family(name, kind, help);
        page.sample("", &[], value);
    }
}

/// Missing, not zero, until the first sample is taken.
fn vitals(page: &mut Page, health: &Health) {
    let Some(vitals) = health.system else { return };
    page.family("peregrine_cpu_share", "gauge", "Share of all cores in use, 0 to 1.");
    page.sample("", &[], vitals.cpu_share);
    page.family("peregrine_process_cpu_share", "gauge", "Share of one core that this process uses.");
    page.sample("", &[], vitals.process_cpu_share);
    page.family("peregrine_memory_used_bytes", "gauge", "Memory of the machine in use.");
    page.sample("", &[], vitals.memory_used_bytes);
    page.family("peregrine_memory_total_bytes", "gauge", "Memory of the machine.");
    page.sample("", &[], vitals.memory_total_bytes);
    page.family("peregrine_process_resident_bytes", "gauge", "Resident memory of this process.");
    page.sample("", &[], vitals.process_bytes);
}
