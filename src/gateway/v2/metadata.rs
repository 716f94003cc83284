//! What the server and its models are: metadata, readiness, and the configuration in the shape load tools read.

use actix_web::HttpResponse;
use actix_web::web::{Data, Path};
use peregrine_actors::{ModelState, ModelStatus};
use peregrine_shaders::Precision;
use serde_json::{Value, json};

use super::parse::{DATATYPE, INPUT_NAMES, OUTPUT, slot_shape, takes};
use super::{ModelPath, ProtocolError, Shared, answer};
use crate::gateway::error::Refusal;
use peregrine_actors::ForecastError;

const EXTENSIONS: [&str; 5] =
    ["binary_tensor_data", "model_configuration", "model_repository", "parameters", "statistics"];

pub(super) async fn server() -> HttpResponse {
    answer(&json!({
        "name": env!("CARGO_PKG_NAME"),
        "version": env!("CARGO_PKG_VERSION"),
        "extensions": EXTENSIONS,
    }))
}

pub(super) async fn model(
    shared: Data<Shared>,
    path: Path<ModelPath>,
) -> Result<HttpResponse, ProtocolError> {
    let model = shared.located(&path.model, path.version()?).await?;
    let mut versions: Vec<u32> = match path.version {
        Some(_) => vec![model.version],
        None => {
            let all = shared.system.models();
            let own = all.iter().filter(|one| one.spec.name == model.spec.name).map(|one| one.version);
            let own: Vec<u32> = own.collect();
            if own.is_empty() { vec![model.version] } else { own } // served elsewhere: the one that answers there
        }
    };
    versions.sort_unstable();
    let tensor = |name: &str, dims: &[usize]| {
        let shape: Vec<i64> = std::iter::once(-1).chain(dims.iter().map(|&dim| dim as i64)).collect();
        json!({ "name": name, "datatype": DATATYPE, "shape": shape })
    };
    let (sha256, precision) = Precision::of_digest(&model.digest);
    Ok(answer(&json!({
        "name": model.spec.name,
        "versions": versions.iter().map(u32::to_string).collect::<Vec<_>>(),
        "platform": format!("peregrine_{}", model.spec.family.class().to_lowercase()),
        "inputs": inputs(&model, tensor),
        "outputs": [tensor(OUTPUT, &output_dims(&model))],
        "parameters": {
            "columns": model.spec.columns.join(","),
            "precision": precision.name(),
            "sha256": sha256,
        },
    })))
}

pub(super) async fn ready(
    shared: Data<Shared>,
    path: Path<ModelPath>,
) -> Result<HttpResponse, ProtocolError> {
    let version = path.version()?;
    let model = shared.located(&path.model, version).await?;
    let refused = shared.system.refuses(&path.model, version) && !shared.is_elsewhere(&model);
    if model.state != ModelState::Ready || refused {
        return Err(Refusal::Forecast(ForecastError::NotReady(model.spec.name.clone())).into());
    }
    Ok(answer(&json!({ "name": model.spec.name, "ready": true })))
}

pub(super) async fn configuration(
    shared: Data<Shared>,
    path: Path<ModelPath>,
) -> Result<HttpResponse, ProtocolError> {
    let model = shared.located(&path.model, path.version()?).await?;
    let batching = shared.config().batching.clone();
    let tensor = |name: &str, dims: &[usize]| json!({ "name": name, "data_type": "TYPE_FP32", "dims": dims });
    let mut input = inputs(&model, tensor);
    for one in &mut input {
        if one["name"] == INPUT_NAMES[1] {
            one["optional"] = true.into();
        }
    }
    let wait_micros = u64::try_from(batching.wait_max.as_micros()).unwrap_or(u64::MAX);
    Ok(answer(&json!({
        "name": model.spec.name,
        "platform": "",
        "backend": env!("CARGO_PKG_NAME"),
        "max_batch_size": batching.request_rows_max,
        "input": input,
        "output": [tensor(OUTPUT, &output_dims(&model))],
        "dynamic_batching": { "max_queue_delay_microseconds": wait_micros },
    })))
}

fn inputs(model: &ModelStatus, tensor: impl Fn(&str, &[usize]) -> Value) -> Vec<Value> {
    (0..INPUT_NAMES.len())
        .filter(|&slot| takes(slot, &model.spec))
        .map(|slot| slot_shape(slot, &model.spec))
        .map(|(name, dims)| tensor(name, &dims))
        .collect()
}

fn output_dims(model: &ModelStatus) -> Vec<usize> {
    model.spec.answer_dims()
}
