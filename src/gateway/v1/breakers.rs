//! `GET /v1/breakers`: every circuit of this node; `POST /v1/breakers`: an operator decides about some of them.

use actix_web::web::{Data, Payload};
use actix_web::{HttpRequest, HttpResponse};
use peregrine_actors::{BreakerMode, BreakerSelector, BreakerState, BreakerStatus};
use peregrine_runtime::NodeId;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Problem, Shared};
use crate::config::Holding;
use crate::gateway::error::Refusal;

pub(super) async fn show(shared: Data<Shared>) -> HttpResponse {
    respond(&shared.system.breakers())
}

/// What is decided, and about which circuits: those that fit all that is said.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Order {
    mode: Mode,
    model: Option<String>,
    version: Option<u32>,
    backend: Option<Kind>,
    device: Option<usize>,
    node: Option<String>,
}

const FORM: &str = "`mode`: auto, forced-open, disabled or metrics-only, and if wanted `model`, `version`, `backend`: \
                    cpu, gpu, coverage or remote, `device`: its place among those of its kind, `node`";

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Mode {
    Auto,
    ForcedOpen,
    Disabled,
    MetricsOnly,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Kind {
    Cpu,
    Gpu,
    Coverage,
    Remote,
}

pub(super) async fn order(
    shared: Data<Shared>,
    request: HttpRequest,
    mut payload: Payload,
) -> Result<HttpResponse, Problem> {
    let body = shared.body(request.headers(), &mut payload).await?;
    let order: Order = serde_json::from_slice(&body).map_err(|_| Refusal::Order(FORM))?;
    if let Some(model) = &order.model {
        shared.known(model, order.version).await?;
    }
    let is_remote = matches!(order.backend, Some(Kind::Remote));
    let node = order.node.as_deref().map(NodeId::new).transpose();
    let selector = BreakerSelector {
        model: order.model,
        version: order.version,
        backend: order.backend.map(|kind| kind.name().to_owned()),
        device: order.device,
        node: node.map_err(|_| Refusal::Order(FORM))?,
    };
    let mode = match order.mode {
        Mode::Auto => BreakerMode::Auto,
        Mode::ForcedOpen => BreakerMode::ForcedOpen,
        Mode::Disabled => BreakerMode::Disabled,
        Mode::MetricsOnly => BreakerMode::MetricsOnly,
    };
    check(&shared, &selector, is_remote)?;
    let ordered = shared.system.set_breaker_mode(selector, mode).await.map_err(Refusal::Orders)?;
    Ok(respond(&ordered))
}

/// Refuses an order that no circuit fits, none that could come, and that takes none back: orders outlive circuits.
fn check(shared: &Shared, selector: &BreakerSelector, is_remote: bool) -> Result<(), Refusal> {
    let all = shared.system.breakers();
    if all.iter().any(|one| selector.fits(&one.guards)) || shared.system.has_breaker_orders(selector) {
        return Ok(());
    }
    let BreakerSelector { model, version, backend, device, node } = selector;
    let of_node =
        (backend.is_none() || is_remote) && model.is_none() && version.is_none() && device.is_none();
    let may_come = match (node, model) {
        // A node's breaker is made when it is asked first.
        (Some(node), _) => of_node && shared.is_member(node),
        (None, Some(model)) => {
            let serves = |one: &BreakerStatus| {
                let is_it =
                    |(of, its): (&str, u32)| of == model && version.is_none_or(|wanted| wanted == its);
                one.guards.model().is_some_and(is_it)
            };
            if shared.config().holding(model) == Holding::No {
                return Err(shared.not_served(model, *version));
            }
            !is_remote && !all.iter().any(serves)
        }
        (None, None) => of_node && (!is_remote || shared.cluster.is_some()),
    };
    if may_come { Ok(()) } else { Err(Refusal::NoBreaker) }
}

impl Kind {
    const fn name(self) -> &'static str {
        match self {
            Self::Cpu => "cpu",
            Self::Gpu => "gpu",
            Self::Coverage => "coverage",
            Self::Remote => "remote",
        }
    }
}

fn respond(breakers: &[BreakerStatus]) -> HttpResponse {
    HttpResponse::Ok().json(json!({ "breakers": breakers.iter().map(view).collect::<Vec<_>>() }))
}

/// A circuit as JSON.
pub(in crate::gateway) fn view(breaker: &BreakerStatus) -> Value {
    let retry_ms = match breaker.state {
        BreakerState::Open { remaining } => Some(remaining.as_secs_f64() * 1e3),
        BreakerState::Closed | BreakerState::HalfOpen | BreakerState::ForcedOpen => None,
    };
    json!({
        "kind": breaker.guards.kind(),
        "model": breaker.guards.model().map(|(model, _)| model),
        "version": breaker.guards.model().map(|(_, version)| version),
        "backend": breaker.guards.backend(),
        "device": breaker.guards.device().map(|device| device.index),
        "node": breaker.guards.node().map(NodeId::as_str),
        "mode": breaker.mode.name(),
        "state": breaker.state.name(),
        "probe_in_ms": retry_ms,
        "failures": breaker.failures,
        "transitions": breaker.transitions,
        "reason": breaker.reason,
    })
}
