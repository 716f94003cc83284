//! Levels of health, each with its reasons, and the whole node in one JSON.

use std::collections::BTreeMap;
use std::time::Duration;

use actix_web::HttpResponse;
use actix_web::http::StatusCode;
use actix_web::web::{self, Data};
use peregrine_actors::{
    DeviceMeter, DeviceState, DeviceStatus, Health, ModelState, Percentiles, ResidentStatus, Vitals,
};
use peregrine_runtime::{ActorKind, ActorState, ActorStatus};
use peregrine_shaders::{Backend, DeviceMemory, KernelFacts};
use serde_json::{Map, Value, json};

use super::app::unix_millis;
use super::cluster::{losses, lost, members};
use super::meter::Route;
use super::{Shared, get};
use crate::releases::Releases;

pub(super) fn routes(config: &mut web::ServiceConfig) {
    get(config, "/health", all);
    get(config, "/health/live", live);
    get(config, "/health/ready", ready);
    get(config, "/health/startup", startup);
    get(config, "/health/gpu", gpu);
    get(config, "/health/cluster", cluster);
    get(config, "/status", status);
}

/// The system's, with what is wrong and no reason not to be ready: models that cannot be served, ticks and releases that cannot
/// be kept, nodes that are lost, pools that the scaler cannot read.
fn whole(shared: &Shared) -> Health {
    let mut health = shared.system.health();
    health.reasons.extend(shared.refusals.complaints());
    health.reasons.extend(unkept(shared));
    health.reasons.extend(unkept_releases(shared));
    health.reasons.extend(losses(shared));
    health.reasons.extend(untold(shared));
    health.reasons.extend(silent_pools(shared));
    health
}

async fn all(shared: Data<Shared>) -> HttpResponse {
    let health = whole(&shared);
    let body = json!({
        "status": word(&health),
        "live": health.live,
        "ready": health.ready,
        "reasons": health.reasons,
        "devices": devices(&health),
        "node": shared.config().node.name.as_str(),
        "region": shared.config().node.region.as_str(),
        "version": env!("CARGO_PKG_VERSION"),
        "uptime_seconds": shared.uptime().as_secs_f64(),
        "lost": lost(&shared),
    });
    verdict(health.live && health.ready, &body)
}

async fn live(shared: Data<Shared>) -> HttpResponse {
    let health = shared.system.health();
    let reasons: &[String] = if health.live { &[] } else { &health.reasons };
    verdict(health.live, &json!({ "live": health.live, "reasons": reasons }))
}

/// Why ticks are refused; forecasts are answered all the same.
fn unkept(shared: &Shared) -> Option<String> {
    let refuses = shared.journal.as_ref().is_some_and(|journal| journal.status().refuses);
    refuses.then(|| "ticks are refused: the journal cannot be written".to_owned())
}

/// A restart would bring versions back that were taken back.
fn unkept_releases(shared: &Shared) -> Option<String> {
    let fails = shared.releases.as_ref().is_some_and(Releases::fails);
    fails.then(|| "releases cannot be kept: a restart would go on with older ones".to_owned())
}

/// A webhook that takes nothing for longer than this is a reason.
const UNTOLD_MAX: Duration = Duration::from_secs(10);

/// Nobody hears of alerts.
fn untold(shared: &Shared) -> Option<String> {
    let lasting = shared.alerts.untold_for().filter(|lasting| *lasting >= UNTOLD_MAX)?;
    let (_, waiting) = shared.alerts.deliveries();
    let seconds = lasting.as_secs();
    let reason =
        format!("alerts are not told: the webhook has taken none for {seconds} s, {waiting} events wait");
    (waiting > 0).then_some(reason)
}

/// Nobody knows their machines, so that no load brings one.
fn silent_pools(shared: &Shared) -> Vec<String> {
    let picture = shared.picture.load_full();
    let machines = picture.iter().flat_map(|picture| &picture.machines);
    let silent = machines.filter_map(|(pool, listed)| Some((pool, listed.as_ref().err()?)));
    silent.map(|(pool, error)| format!("pool `{pool}` does not list its machines: {error}")).collect()
}

/// A reason not to be ready.
pub(super) const TOLD_TO_DRAIN: &str = "the scaler has told this node to take no new requests";

async fn ready(shared: Data<Shared>) -> HttpResponse {
    let health = shared.system.health();
    let mut reasons = health.reasons;
    // What comes all the same is answered: whoever sends it may not have heard yet.
    let drains = shared.told.is_draining();
    reasons.extend(drains.then(|| TOLD_TO_DRAIN.to_owned()));
    reasons.extend(unkept(&shared));
    let ready = health.ready && !drains;
    verdict(ready, &json!({ "ready": ready, "reasons": reasons }))
}

/// 503 until the node was ready for the first time.
async fn startup(shared: Data<Shared>) -> HttpResponse {
    let health = shared.system.health();
    let reasons: &[String] = if health.started { &[] } else { &health.reasons };
    verdict(health.started, &json!({ "started": health.started, "reasons": reasons }))
}

/// 503 when GPUs were asked for and none is up; a node that was told to use its CPU is well without one.
async fn gpu(shared: Data<Shared>) -> HttpResponse {
    let health = shared.system.health();
    let gpus: Vec<&DeviceStatus> =
        health.devices.iter().filter(|device| device.backend == Backend::Gpu).collect();
    let well = gpus.is_empty() || gpus.iter().any(|device| device.state == DeviceState::Up);
    let reasons: Vec<String> = match gpus.is_empty() {
        true => vec!["no gpu in use: the cpu answers".to_owned()],
        false => {
            gpus.iter().filter_map(|device| Some(format!("{}: {}", device.id(), reason(device)?))).collect()
        }
    };
    let list: Vec<Value> = gpus.iter().map(|device| device_view(device)).collect();
    let mut body = json!({ "gpu": well && !gpus.is_empty(), "devices": list, "reasons": reasons });
    if !health.meters.is_empty() {
        body["meters"] = health.meters.iter().map(meter_view).collect();
    }
    verdict(well, &body)
}

/// 503 in a minority of the cluster that is meant to be.
async fn cluster(shared: Data<Shared>) -> HttpResponse {
    let Some(cluster) = &shared.cluster else {
        let health = shared.system.health();
        return verdict(
            health.ready,
            &json!({ "members": [standing_alone(&shared)], "lost": [], "reasons": health.reasons }),
        );
    };
    let view = cluster.view();
    let (here, meant) = (view.members.len(), shared.config().cluster.as_ref().map_or(1, |part| part.size));
    let mut reasons = Vec::new();
    if here < meant {
        reasons.push(format!("{here} of {meant} nodes are there"));
    }
    let others = view.members.values().filter(|member| member.id != *cluster.id());
    let cut = others.filter(|member| !cluster.connected(&member.id));
    reasons.extend(cut.map(|member| format!("`{}` is not reached directly", member.id)));
    reasons.extend(losses(&shared));
    let body = json!({ "members": members(cluster), "lost": lost(&shared), "reasons": reasons });
    verdict(here > meant / 2, &body)
}

/// The only member of a cluster that is none.
pub(super) fn standing_alone(shared: &Shared) -> Value {
    let mut models = BTreeMap::<String, Vec<String>>::new();
    for model in shared.system.models().iter().filter(|model| model.state == ModelState::Ready) {
        models.entry(model.spec.name.clone()).or_default().push(model.version.to_string());
    }
    let models: Map<String, Value> =
        models.into_iter().map(|(name, versions)| (name, json!({ "versions": versions }))).collect();
    json!({
        "node": shared.config().node.name.as_str(),
        "region": shared.config().node.region.as_str(),
        "here": true,
        "version": env!("CARGO_PKG_VERSION"),
        "state": match (shared.told.is_draining(), shared.system.health().ready) {
            (true, _) => "draining",
            (_, true) => "ready",
            (_, false) => "not-ready",
        },
        "models": models,
    })
}

async fn status(shared: Data<Shared>) -> HttpResponse {
    let health = whole(&shared);
    let performance: Vec<Value> = shared
        .system
        .stats()
        .iter()
        .map(|stats| {
            json!({
                "model": stats.model,
                "version": stats.version.to_string(),
                "rows": stats.inference_count,
                "batches": stats.execution_count,
                "succeeded": stats.success.count,
                "failed": stats.fail.count,
                "abandoned": stats.abandoned,
                "latency_ms": percentiles(&stats.latency),
                "queue_ms": percentiles(&stats.queue_latency),
                "compute_ms": percentiles(&stats.compute_latency),
            })
        })
        .collect();
    let requests: u64 =
        Route::ALL.iter().map(|&route| shared.meter.read(route).classes.iter().sum::<u64>()).sum();
    let models: Vec<Value> = shared
        .system
        .models()
        .iter()
        .map(|model| json!({ "name": model.spec.name, "version": model.version.to_string(), "state": model.state.name() }))
        .collect();
    let now = shared.clock.now();
    let lags = shared.lags(now, &health);
    let lags = lags.into_iter().map(|(name, lag)| (name, Value::from(lag.as_secs_f64() * 1e3)));
    let lags: serde_json::Map<String, Value> = lags.collect();
    let mut body = json!({
        "status": word(&health),
        "reasons": health.reasons,
        "timestamp": unix_millis(shared.clock.wall()),
        "system": {
            "node": shared.config().node.name.as_str(),
            "region": shared.config().node.region.as_str(),
            "version": env!("CARGO_PKG_VERSION"),
            "uptime_seconds": shared.uptime().as_secs_f64(),
            "cpu": health.system.map(|vitals| json!({
                "share": vitals.cpu_share,
                "count": vitals.cpu_count,
                "load_1m": vitals.load_1m,
                "process_share": vitals.process_cpu_share,
            })),
            "actors": health.actors.iter().map(actor_view).collect::<Vec<_>>(),
            "actors_stuck": shared.watch.stuck(),
            "event_loop_lag_ms": lags,
        },
        "performance": { "requests": requests, "in_flight": shared.meter.in_flight(), "models": performance },
        "models": models,
        "devices": devices(&health),
        "memory": health.system.map(memory),
        "cluster": { "members": shared.cluster.as_ref().map_or(1, |cluster| cluster.view().members.len()) },
    });
    if !health.meters.is_empty() {
        body["meters"] = health.meters.iter().map(meter_view).collect();
    }
    HttpResponse::Ok().json(body)
}

fn word(health: &Health) -> &'static str {
    match (health.live, health.ready, health.reasons.is_empty()) {
        (false, _, _) => "dead",
        (_, false, _) => "unavailable",
        (_, _, false) => "degraded",
        _ => "healthy",
    }
}

fn verdict(good: bool, body: &Value) -> HttpResponse {
    HttpResponse::build(if good { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }).json(body)
}

fn devices(health: &Health) -> Vec<Value> {
    health.devices.iter().map(device_view).collect()
}

/// A device as JSON.
pub(super) fn device_view(device: &DeviceStatus) -> Value {
    json!({
        "backend": device.backend.name(),
        "device": device.index,
        "name": device.name,
        "state": state_name(&device.state),
        "reason": reason(device),
        "queue_requests": device.queue_requests,
        "queue_rows": device.queue_rows,
        "queue_rows_max": device.queue_rows_max,
        "requests": device.requests,
        "rows": device.rows,
        "batches": device.batches,
        "busy_seconds": device.busy.as_secs_f64(),
        "memory": device.memory.as_ref().map(memory_view),
        "kernels": device.kernels.as_ref().map(kernels_view),
        "residents": device.residents.iter().map(resident_view).collect::<Vec<_>>(),
    })
}

fn memory_view(memory: &DeviceMemory) -> Value {
    let DeviceMemory { plans, plan_bytes, batch_bytes, budget_bytes, evictions } = memory;
    json!({
        "plans": plans,
        "plan_bytes": plan_bytes,
        "batch_bytes": batch_bytes,
        "budget_bytes": budget_bytes,
        "evictions": evictions,
    })
}

fn kernels_view(kernels: &KernelFacts) -> Value {
    let KernelFacts { choices, refused } = kernels;
    json!({ "measured_choices": choices, "refused": refused })
}

fn resident_view(resident: &ResidentStatus) -> Value {
    let ResidentStatus { plan, counts } = resident;
    json!({
        "plan": plan,
        "serves": counts.serves,
        "requests": counts.requests,
        "handovers": counts.handovers,
        "silences": counts.silences,
    })
}

/// What a driver says of a device; what it does not say is left out.
pub(super) fn meter_view(meter: &DeviceMeter) -> Value {
    let mut view = json!({ "device": meter.index, "name": meter.name });
    for (key, value) in [
        ("utilisation_share", meter.utilisation.map(Value::from)),
        ("memory_used_bytes", meter.memory_used_bytes.map(Value::from)),
        ("memory_total_bytes", meter.memory_total_bytes.map(Value::from)),
        ("temperature_celsius", meter.temperature_celsius.map(Value::from)),
        ("power_watts", meter.power_watts.map(Value::from)),
    ] {
        if let Some(value) = value {
            view[key] = value;
        }
    }
    view
}

pub(super) fn state_name(state: &DeviceState) -> &'static str {
    match state {
        DeviceState::Starting => "starting",
        DeviceState::Up => "up",
        DeviceState::Down { .. } => "down",
    }
}

pub(super) fn reason(device: &DeviceStatus) -> Option<String> {
    match &device.state {
        DeviceState::Up => None,
        DeviceState::Starting => Some("starting".to_owned()),
        DeviceState::Down { reason } => Some(reason.clone()),
    }
}

fn actor_view(actor: &ActorStatus) -> Value {
    json!({
        "name": &*actor.name,
        "kind": match actor.kind { ActorKind::Light => "light", ActorKind::Worker => "worker" },
        "state": actor_state(actor.state),
        "restarts": actor.restarts,
        "mailbox": { "depth": actor.depth, "capacity": actor.capacity },
        "last_failure": actor.last_failure.as_ref().map(|last| json!({
            "at": unix_millis(last.at),
            "failure": last.failure.to_string(),
        })),
    })
}

/// Lowercase name.
pub(super) const fn actor_state(state: ActorState) -> &'static str {
    match state {
        ActorState::Waiting => "waiting",
        ActorState::Starting => "starting",
        ActorState::Running => "running",
        ActorState::Stopping => "stopping",
        ActorState::Stopped => "stopped",
    }
}

fn memory(vitals: Vitals) -> Value {
    json!({
        "used_bytes": vitals.memory_used_bytes,
        "total_bytes": vitals.memory_total_bytes,
        "process_bytes": vitals.process_bytes,
    })
}

fn percentiles(of: &Percentiles) -> Value {
    let millis = |took: Duration| took.as_secs_f64() * 1e3;
    json!({
        "count": of.count,
        "mean": millis(of.mean),
        "p50": millis(of.p50),
        "p90": millis(of.p90),
        "p95": millis(of.p95),
        "p99": millis(of.p99),
        "p999": millis(of.p999),
        "max": millis(of.max),
    })
}
