//! The statistics extension: counters that only grow, as integers.
//!
//! The actors count from acceptance on; what reading and printing cost is the gateway's own and is added here. What other
//! nodes have answered is counted by them.

use actix_web::HttpResponse;
use actix_web::web::{Data, Path};
use peregrine_actors::{ForecastError, ModelStats, Tally};
use serde_json::{Value, json};

use super::{ModelPath, ProtocolError, Shared, answer};

pub(super) async fn all(shared: Data<Shared>) -> HttpResponse {
    document(list(&shared, |_, _| true))
}

pub(super) async fn one(shared: Data<Shared>, path: Path<ModelPath>) -> Result<HttpResponse, ProtocolError> {
    let wanted = path.version()?;
    let list =
        list(&shared, |model, version| model == path.model && wanted.is_none_or(|wanted| wanted == version));
    if list.is_empty() {
        let is_elsewhere = || shared.elsewhere().keys().any(|(model, _)| *model == path.model);
        if let Some(version) = wanted.filter(|_| is_elsewhere()) {
            return Err(ForecastError::UnknownVersion { model: path.model.clone(), version }.into());
        }
        // Whoever looks for it knows whether it is unknown or merely away.
        shared.located(&path.model, wanted).await?;
    }
    Ok(document(list))
}

/// Of versions that are served here, and of those that only others serve, as the index lists them.
fn list(shared: &Shared, wanted: impl Fn(&str, u32) -> bool) -> Vec<Value> {
    let (served, stats) = (shared.system.models(), shared.system.stats());
    let is_of = |stats: &ModelStats, name: &str, version| stats.model == name && stats.version == version;
    let here = stats.iter().filter(|stats| wanted(&stats.model, stats.version)).filter_map(|stats| {
        // An unloaded model keeps its counters, but is no longer a model of this server.
        let model = served.iter().find(|model| is_of(stats, &model.spec.name, model.version))?;
        Some(one_model(shared, stats, Some(model.weight_bytes)))
    });
    let elsewhere = shared.elsewhere().into_keys().filter(|(name, version)| wanted(name, *version));
    let elsewhere =
        elsewhere.filter(|(name, version)| !stats.iter().any(|stats| is_of(stats, name, *version)));
    let past =
        elsewhere.map(|(name, version)| one_model(shared, &shared.system.past_stats(&name, version), None));
    here.chain(past).collect()
}

fn document(list: Vec<Value>) -> HttpResponse {
    answer(&json!({ "model_stats": list }))
}

/// `weight_bytes`: none where they are not here.
fn one_model(shared: &Shared, stats: &ModelStats, weight_bytes: Option<usize>) -> Value {
    let transfer = shared.meter.transfer_of(&stats.model, stats.version);
    let (parse_ns, print_ns) = (nanos(transfer.parse), nanos(transfer.print));
    let batches = stats.batch_sizes.iter().map(|(rows, runs)| {
        json!({
            "batch_size": rows,
            "compute_input": duration(Tally { count: runs.count, ns: 0 }),
            "compute_infer": duration(*runs),
            "compute_output": duration(Tally { count: runs.count, ns: 0 }),
        })
    });
    let none = || duration(Tally::default());
    let memory = weight_bytes.map(|bytes| json!({ "type": "CPU", "id": 0, "byte_size": bytes }));
    json!({
        "name": stats.model,
        "version": stats.version.to_string(),
        "last_inference": stats.last_inference_ms,
        "inference_count": stats.inference_count,
        "execution_count": stats.execution_count,
        "inference_stats": {
            "success": duration(with(stats.success, parse_ns + print_ns)),
            "fail": duration(stats.fail),
            "queue": duration(stats.queue),
            "compute_input": duration(with(stats.compute_input, parse_ns)),
            "compute_infer": duration(stats.compute_infer),
            "compute_output": duration(with(stats.compute_output, print_ns)),
            "cache_hit": none(),
            "cache_miss": none(),
        },
        "response_stats": {},
        "batch_stats": batches.collect::<Vec<_>>(),
        "memory_usage": memory.into_iter().collect::<Vec<_>>(),
    })
}

/// The gateway's own time on top; what was read for another node to answer is time of nothing that is counted here.
fn with(tally: Tally, ns: u64) -> Tally {
    if tally.count == 0 { tally } else { Tally { ns: tally.ns + ns, ..tally } }
}

fn duration(tally: Tally) -> Value {
    json!({ "count": tally.count, "ns": tally.ns })
}

fn nanos(took: std::time::Duration) -> u64 {
    u64::try_from(took.as_nanos()).unwrap_or(u64::MAX)
}
