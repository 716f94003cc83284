//! Models by the native routes: list, one, load, unload.

use actix_web::web::{Data, Path, Payload, Query};
use actix_web::{HttpRequest, HttpResponse};
use peregrine_actors::{ForecastError, ModelState, ModelStatus};
use peregrine_shaders::Precision;
use serde_json::{Value, json};

use super::{Problem, Shared, no_body};
use crate::catalog::Entry;

/// `?version=`; one that is misspelt must not mean all of them.
#[derive(Debug, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct VersionQuery {
    version: Option<u32>,
}

pub(super) async fn list(shared: Data<Shared>) -> Result<HttpResponse, Problem> {
    let served = shared.system.models();
    let mut models: Vec<Value> = served.iter().map(|model| view(model)).collect();
    let elsewhere = shared.elsewhere();
    for ((name, version), regions) in &elsewhere {
        if !served.iter().any(|model| is_entry(model, name, *version)) {
            let regions: Vec<&str> = regions.iter().map(peregrine_runtime::Region::as_str).collect();
            models.push(json!({ "name": name, "version": version.to_string(), "state": "remote", "regions": regions }));
        }
    }
    for entry in shared.repository().await? {
        let is_remote = elsewhere.contains_key(&(entry.name.clone(), entry.version));
        if !is_remote && !served.iter().any(|model| is_entry(model, &entry.name, entry.version)) {
            models.push(idle(&shared, &entry));
        }
    }
    let repositories: Vec<String> =
        shared.repositories().iter().map(|folder| folder.display().to_string()).collect();
    Ok(HttpResponse::Ok().json(json!({
        "default": shared.config().models.default,
        "repositories": repositories,
        "models": models,
    })))
}

pub(super) async fn one(
    shared: Data<Shared>,
    model: Path<String>,
    query: Query<VersionQuery>,
) -> Result<HttpResponse, Problem> {
    let found = match shared.system.locate(&model, query.version, shared.deadline(None)).await {
        Ok(found) => found,
        Err(error @ (ForecastError::UnknownModel(_) | ForecastError::UnknownVersion { .. })) => {
            // One that cannot be read holds nothing to be shown.
            let held = shared.repository().await.unwrap_or_default().into_iter();
            let mut newest_first = held.rev().filter(|entry| entry.name == *model);
            let entry =
                newest_first.find(|entry| query.version.is_none_or(|version| version == entry.version));
            return Ok(HttpResponse::Ok().json(idle(&shared, &entry.ok_or(error)?)));
        }
        Err(error) => return Err(error.into()),
    };
    let mut answer = view(&found);
    if let Some(release) = shared.system.release(&model) {
        answer["release"] = super::releases::view(&release, &shared.system);
    }
    Ok(HttpResponse::Ok().json(answer))
}

pub(super) async fn load(
    shared: Data<Shared>,
    model: Path<String>,
    request: HttpRequest,
    payload: Payload,
) -> Result<HttpResponse, Problem> {
    no_body(&shared, &request, payload, ": all versions in the repository are loaded").await?;
    shared.load(&model).await?;
    let found = shared.system.find(&model, None)?;
    Ok(HttpResponse::Ok().json(view(&found)))
}

pub(super) async fn unload(
    shared: Data<Shared>,
    model: Path<String>,
    query: Query<VersionQuery>,
    request: HttpRequest,
    payload: Payload,
) -> Result<HttpResponse, Problem> {
    no_body(&shared, &request, payload, ": `?version=` names a version, and nothing means all").await?;
    shared.unload(&model, query.version).await?;
    let served = shared.system.models().into_iter();
    let left = served.filter(|one| one.spec.name == *model && one.state == ModelState::Ready);
    let versions: Vec<String> = left.map(|one| one.version.to_string()).collect();
    let state = if versions.is_empty() { "unavailable" } else { ModelState::Ready.name() };
    Ok(HttpResponse::Ok().json(json!({ "name": *model, "state": state, "versions": versions })))
}

fn is_entry(model: &ModelStatus, name: &str, version: u32) -> bool {
    model.spec.name == name && model.version == version
}

/// One that a repository holds and nobody serves.
fn idle(shared: &Shared, entry: &Entry) -> Value {
    let mut model =
        json!({ "name": entry.name, "version": entry.version.to_string(), "state": "unavailable" });
    if let Some(reason) = shared.refusals.reason(&entry.name, entry.version) {
        model["reason"] = Value::from(reason);
    }
    model
}

fn view(model: &ModelStatus) -> Value {
    let spec = &model.spec;
    let (sha256, precision) = Precision::of_digest(&model.digest);
    json!({
        "name": spec.name,
        "version": model.version.to_string(),
        "state": model.state.name(),
        "family": spec.family.class(),
        "window": spec.window,
        "series": spec.series,
        "horizon": spec.horizon,
        "columns": spec.columns,
        "hist_exog": spec.hist_exog,
        "futr_exog": spec.futr_exog,
        "stat_exog": spec.stat_exog,
        "weight_bytes": model.weight_bytes,
        "precision": precision.name(),
        "sha256": sha256,
    })
}
