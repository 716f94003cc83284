//! Releases of a model by the native routes: split, canary, shadow, promote, rollback.
//!
//! Each answers with the state that its order led to.

use std::collections::BTreeMap;
use std::time::Duration;

use actix_web::web::{Data, Path, Payload};
use actix_web::{HttpRequest, HttpResponse};
use peregrine_actors::System;
use peregrine_actors::release::{
    Canary, CanaryLimits, CanarySpec, Plan, ReleaseOrder, ReleaseRefused, ReleaseStatus, ScoreLimit, Seen,
    ShadowSpec, ShadowStats,
};
use serde::de::{DeserializeOwned, Error as _};
use serde::{Deserialize, Deserializer};
use serde_json::{Value, json};

use super::{Problem, Shared, no_body, parse};
use crate::gateway::error::Refusal;
use crate::gateway::json::Scalar;

/// A version as forecasts take it: `2` or `"2"`.
#[derive(Clone, Copy)]
struct Version(u32);

impl<'de> Deserialize<'de> for Version {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = match Value::deserialize(from)? {
            Value::String(text) => text,
            other => other.to_string(),
        };
        let version = parse::version(&Scalar::Text(text.into()));
        version.map(Self).ok_or_else(|| D::Error::custom("no version"))
    }
}

/// What is there, `null` too.
fn written<'de, T: Deserialize<'de>, D: Deserializer<'de>>(from: D) -> Result<Option<T>, D::Error> {
    T::deserialize(from).map(Some)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SplitBody {
    weights: BTreeMap<u32, u32>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct CanaryBody {
    version: Version,
    steps: Vec<f64>,
    #[serde(default = "minute")]
    hold_ms: u64,
    #[serde(default)]
    limits: LimitsBody,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct LimitsBody {
    requests_min: Option<u64>,
    error_share: Option<f64>,
    p95_ratio: Option<f64>,
    #[serde(default, deserialize_with = "written")]
    score_ratio: Option<Option<f64>>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct ShadowBody {
    version: Option<Version>,
    share: Option<f64>,
    tolerance: Option<f64>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct PromoteBody {
    version: Option<Version>,
}

const fn minute() -> u64 {
    60_000
}

const SPLIT: &str = "`weights`: an object of whole numbers by version";
const CANARY: &str = "`version`, `steps`: a list of percentages, and if wanted `hold_ms`, `limits`: `requests_min`, \
                      `error_share`, `p95_ratio`, `score_ratio`";
const SHADOW: &str = "`version` and if wanted `share`, `tolerance`, or nothing";
const PROMOTE: &str = "nothing, or `version`";

pub(super) async fn split(
    shared: Data<Shared>,
    model: Path<String>,
    request: HttpRequest,
    payload: Payload,
) -> Result<HttpResponse, Problem> {
    let body: SplitBody = read(&shared, &request, payload, None, SPLIT).await?;
    order(&shared, &model, ReleaseOrder::Split(body.weights)).await
}

pub(super) async fn canary(
    shared: Data<Shared>,
    model: Path<String>,
    request: HttpRequest,
    payload: Payload,
) -> Result<HttpResponse, Problem> {
    let body: CanaryBody = read(&shared, &request, payload, None, CANARY).await?;
    let usual = CanaryLimits::default();
    let limits = CanaryLimits {
        requests_min: body.limits.requests_min.unwrap_or(usual.requests_min),
        error_share: body.limits.error_share.unwrap_or(usual.error_share),
        p95_ratio: body.limits.p95_ratio.unwrap_or(usual.p95_ratio),
        scores: match body.limits.score_ratio {
            None => usual.scores,
            Some(None) => ScoreLimit::Off,
            Some(Some(ratio)) => ScoreLimit::Always(ratio),
        },
    };
    let hold = Duration::from_millis(body.hold_ms);
    let spec = CanarySpec { version: body.version.0, steps: body.steps, hold, limits };
    order(&shared, &model, ReleaseOrder::Canary(spec)).await
}

pub(super) async fn shadow(
    shared: Data<Shared>,
    model: Path<String>,
    request: HttpRequest,
    payload: Payload,
) -> Result<HttpResponse, Problem> {
    let body: ShadowBody = read(&shared, &request, payload, None, SHADOW).await?;
    let spec = body.version.map(|Version(version)| ShadowSpec {
        version,
        share: body.share.unwrap_or(1.0),
        tolerance: body.tolerance.unwrap_or(ShadowSpec::TOLERANCE),
    });
    order(&shared, &model, ReleaseOrder::Shadow(spec)).await
}

pub(super) async fn promote(
    shared: Data<Shared>,
    model: Path<String>,
    request: HttpRequest,
    payload: Payload,
) -> Result<HttpResponse, Problem> {
    let body: PromoteBody = read(&shared, &request, payload, Some(PromoteBody::default()), PROMOTE).await?;
    order(&shared, &model, ReleaseOrder::Promote(body.version.map(|Version(version)| version))).await
}

pub(super) async fn rollback(
    shared: Data<Shared>,
    model: Path<String>,
    request: HttpRequest,
    payload: Payload,
) -> Result<HttpResponse, Problem> {
    no_body(&shared, &request, payload, ": POST …/promote names a version").await?;
    order(&shared, &model, ReleaseOrder::Rollback).await
}

/// A body of a form; `blank` is what an empty one means.
async fn read<T: DeserializeOwned>(
    shared: &Shared,
    request: &HttpRequest,
    mut payload: Payload,
    blank: Option<T>,
    form: &'static str,
) -> Result<T, Problem> {
    let body = shared.body(request.headers(), &mut payload).await?;
    match blank {
        Some(blank) if body.is_empty() => Ok(blank),
        _ => Ok(serde_json::from_slice(&body).map_err(|_| Refusal::Release(ReleaseRefused::Numbers(form)))?),
    }
}

async fn order(shared: &Shared, model: &str, order: ReleaseOrder) -> Result<HttpResponse, Problem> {
    let done = shared.system.order_release(model, order).await.map_err(|refused| match refused {
        ReleaseRefused::UnknownModel(model) => shared.not_served(&model, None),
        refused => Refusal::Release(refused),
    })?;
    let release = done.map(|release| view(&release, &shared.system));
    let mut answer = json!({ "name": model, "release": release });
    if let Some(kept) = shared.keep_releases().await {
        answer["kept"] = kept.into();
    }
    Ok(HttpResponse::Ok().json(answer))
}

/// A release as it stands.
pub(super) fn view(status: &ReleaseStatus, system: &System) -> Value {
    let release = &status.release;
    let portions: Vec<Value> = status
        .portions
        .iter()
        .map(|one| {
            let mut view = seen_view(&one.seen);
            view["version"] = one.version.to_string().into();
            view["share"] = one.share.into();
            view
        })
        .collect();
    let log: Vec<Value> = release
        .log
        .iter()
        .rev()
        .map(|event| {
            json!({ "ago_s": system.since(event.at).as_secs_f64(), "what": event.change.to_string() })
        })
        .collect();
    let canary = match &release.plan {
        Plan::Canary(canary) => Some(canary_view(canary, status, system)),
        Plan::Whole | Plan::Split(_) => None,
    };
    json!({
        "stable": release.stable.to_string(),
        "previous": release.previous.map(|version| version.to_string()),
        "plan": release.plan.name(),
        "versions": portions,
        "canary": canary,
        "shadow": status.shadow.as_ref().map(shadow_view),
        "log": log,
    })
}

fn canary_view(canary: &Canary, status: &ReleaseStatus, system: &System) -> Value {
    let limits = &canary.spec.limits;
    json!({
        "version": canary.spec.version.to_string(),
        "percent": canary.percent(),
        "steps": canary.spec.steps,
        "step_age_s": system.since(canary.since).as_secs_f64(),
        "hold_ms": canary.spec.hold.as_secs_f64() * 1e3,
        "step": status.step.as_ref().map(seen_view),
        "waiting": status.waiting.map(|waiting| waiting.to_string()),
        "limits": {
            "requests_min": limits.requests_min,
            "error_share": limits.error_share,
            "p95_ratio": limits.p95_ratio,
            "score_ratio": limits.scores.ratio(),
        },
    })
}

fn shadow_view(shadow: &ShadowStats) -> Value {
    let mut view = seen_view(&shadow.seen);
    view["version"] = shadow.spec.version.to_string().into();
    view["share"] = shadow.spec.share.into();
    view["tolerance"] = shadow.spec.tolerance.into();
    view["dropped"] = shadow.dropped.into();
    view["compared"] = shadow.compared.into();
    view["differing"] = shadow.differing.into();
    view["difference_mean"] = shadow.difference_mean.into();
    view["difference_max"] = shadow.difference_max.into();
    view
}

fn seen_view(seen: &Seen) -> Value {
    json!({ "requests": seen.requests, "failed": seen.failed, "p95_ms": seen.p95.as_secs_f64() * 1e3 })
}
