//! The statistics extension: counters that only grow, as integers.
//!
//! The actors count from acceptance on; what reading and printing cost is the gateway's own and is added here.

use actix_web::HttpResponse;
use actix_web::web::{Data, Path};
use peregrine_actors::{ModelStats, Tally};
use serde_json::{Value, json};

use super::{ModelPath, ProtocolError, Shared, answer};

pub(super) async fn all(shared: Data<Shared>) -> HttpResponse {
    answer(&document(&shared, |_| true))
}

pub(super) async fn one(shared: Data<Shared>, path: Path<ModelPath>) -> Result<HttpResponse, ProtocolError> {
    let version = path.version()?;
    let model = shared.system.find(&path.model, version)?;
    Ok(answer(&document(&shared, |stats| {
        stats.model == model.spec.name && version.is_none_or(|version| version == stats.version)
    })))
}

fn document(shared: &Shared, wanted: impl Fn(&ModelStats) -> bool) -> Value {
    let served = shared.system.models();
    let stats = shared.system.stats();
    let list = stats.iter().filter(|stats| wanted(stats)).filter_map(|stats| {
        // An unloaded model keeps its counters, but is no longer a model of this server.
        let same = served.iter().find(|model| is_same(model, stats));
        same.map(|model| one_model(shared, stats, model.weight_bytes))
    });
    json!({ "model_stats": list.collect::<Vec<_>>() })
}

fn is_same(model: &peregrine_actors::ModelStatus, stats: &ModelStats) -> bool {
    model.spec.name == stats.model && model.version == stats.version
}

fn one_model(shared: &Shared, stats: &ModelStats, weight_bytes: usize) -> Value {
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
    json!({
        "name": stats.model,
        "version": stats.version.to_string(),
        "last_inference": stats.last_inference_ms,
        "inference_count": stats.inference_count,
        "execution_count": stats.execution_count,
        "inference_stats": {
            "success": duration(Tally { ns: stats.success.ns + parse_ns + print_ns, ..stats.success }),
            "fail": duration(stats.fail),
            "queue": duration(stats.queue),
            "compute_input": duration(Tally { ns: stats.compute_input.ns + parse_ns, ..stats.compute_input }),
            "compute_infer": duration(stats.compute_infer),
            "compute_output": duration(Tally { ns: stats.compute_output.ns + print_ns, ..stats.compute_output }),
            "cache_hit": none(),
            "cache_miss": none(),
        },
        "response_stats": {},
        "batch_stats": batches.collect::<Vec<_>>(),
        "memory_usage": [{ "type": "CPU", "id": 0, "byte_size": weight_bytes }],
    })
}

fn duration(tally: Tally) -> Value {
    json!({ "count": tally.count, "ns": tally.ns })
}

fn nanos(took: std::time::Duration) -> u64 {
    u64::try_from(took.as_nanos()).unwrap_or(u64::MAX)
}
