//! The repository extension: what could be served, and putting it in and out of service.

use actix_web::web::{Data, Path, Payload};
use actix_web::{HttpRequest, HttpResponse};
use peregrine_actors::ModelState;
use peregrine_runtime::Region;
use serde_json::{Value, json};

use super::{ModelPath, ProtocolError, Shared};
use crate::catalog::Entry;
use crate::gateway::error::Refusal;
use crate::gateway::json::{Cursor, JsonError, Scalar};

pub(super) async fn index(
    shared: Data<Shared>,
    request: HttpRequest,
    mut payload: Payload,
) -> Result<HttpResponse, ProtocolError> {
    let body = shared.body(request.headers(), &mut payload).await?;
    let ready_only = ready_only(&body)?;
    let served = shared.system.models();
    let mut list: Vec<Value> = served
        .iter()
        .filter(|model| !ready_only || model.state == ModelState::Ready)
        .map(|model| {
            let state = match model.state {
                ModelState::Ready => "READY",
                ModelState::Loading => "LOADING",
            };
            // Of a newer folder than what serves.
            let reason = shared.refusals.reason(&model.spec.name, model.version).unwrap_or_default();
            json!({ "name": model.spec.name, "version": model.version.to_string(), "state": state, "reason": reason })
        })
        .collect();
    let elsewhere = shared.elsewhere();
    let not_here = |name: &str, version: u32| !served.iter().any(|model| is_entry(model, name, version));
    for ((name, version), regions) in &elsewhere {
        if not_here(name, *version) {
            let regions = regions.iter().map(Region::as_str).collect::<Vec<_>>().join(", ");
            let reason = format!("served by other nodes, in {regions}");
            list.push(
                json!({ "name": name, "version": version.to_string(), "state": "READY", "reason": reason }),
            );
        }
    }
    if !ready_only {
        for Entry { name, version, .. } in shared.repository().await? {
            let is_ready = elsewhere.contains_key(&(name.clone(), version));
            if !is_ready && not_here(&name, version) {
                let refused = shared.refusals.reason(&name, version);
                let reason = refused.unwrap_or_else(|| "not loaded".to_owned());
                let version = version.to_string();
                list.push(
                    json!({ "name": name, "version": version, "state": "UNAVAILABLE", "reason": reason }),
                );
            }
        }
    }
    Ok(super::answer(&Value::Array(list)))
}

pub(super) async fn load(
    shared: Data<Shared>,
    path: Path<ModelPath>,
    request: HttpRequest,
    mut payload: Payload,
) -> Result<HttpResponse, ProtocolError> {
    let body = shared.body(request.headers(), &mut payload).await?;
    parameters(&body, |name| match name {
        "config" => Err(Refusal::Unsupported("config")),
        file if file.starts_with("file:") => Err(Refusal::Unsupported("file:…")),
        _ => Ok(()),
    })?;
    shared.load(&path.model).await?;
    Ok(done())
}

pub(super) async fn unload(
    shared: Data<Shared>,
    path: Path<ModelPath>,
    request: HttpRequest,
    mut payload: Payload,
) -> Result<HttpResponse, ProtocolError> {
    let body = shared.body(request.headers(), &mut payload).await?;
    parameters(&body, |_| Ok(()))?;
    shared.unload(&path.model, None).await?;
    Ok(done())
}

fn done() -> HttpResponse {
    HttpResponse::Ok().insert_header(("content-type", "application/json")).finish()
}

fn is_entry(model: &peregrine_actors::ModelStatus, name: &str, version: u32) -> bool {
    model.spec.name == name && model.version == version
}

fn ready_only(body: &[u8]) -> Result<bool, JsonError> {
    let mut cursor = Cursor::new(body);
    if cursor.peek().is_none() {
        return Ok(false);
    }
    let mut ready = false;
    cursor.object(|key, cursor| {
        let at = cursor.at();
        match (key, cursor.scalar()?) {
            ("ready", Scalar::Flag(wish)) => ready = wish,
            ("ready", _) => return Err(JsonError::Expected { at, wanted: "true or false" }),
            _ => {}
        }
        Ok::<(), JsonError>(())
    })?;
    cursor.end()?;
    Ok(ready)
}

/// Shows each name in `parameters` to `judge`; an empty body has none.
fn parameters(body: &[u8], judge: impl Fn(&str) -> Result<(), Refusal>) -> Result<(), Refusal> {
    let mut cursor = Cursor::new(body);
    if cursor.peek().is_none() {
        return Ok(());
    }
    cursor.object(|key, cursor| {
        if key != "parameters" {
            return Ok(cursor.skip()?);
        }
        cursor.object(|name, cursor| {
            judge(name)?;
            Ok::<(), Refusal>(cursor.skip()?)
        })
    })?;
    Ok(cursor.end()?)
}
