//! `GET /v1/alerts`: what is wrong now, what was, and by which rules.

use actix_web::HttpResponse;
use actix_web::web::{self, Data};
use peregrine_actors::alerts::{Alert, Comparison, Missing, Rule};
use serde_json::{Value, json};

use super::{Shared, get};
use crate::security::rfc3339;

pub(super) fn routes(config: &mut web::ServiceConfig) {
    get(config, "/v1/alerts", alerts);
}

async fn alerts(shared: Data<Shared>) -> HttpResponse {
    let picture = shared.alerts.picture();
    let (counts, waiting) = shared.alerts.deliveries();
    HttpResponse::Ok().json(json!({
        "alerts": picture.active.iter().map(view).collect::<Vec<_>>(),
        "resolved": picture.ended.iter().map(view).collect::<Vec<_>>(),
        "rules": picture.rules.iter().map(|rule| rule_view(rule)).collect::<Vec<_>>(),
        "overflowed": picture.overflowed,
        "evaluations": shared.alerts.evaluations(),
        "delivery": {
            "delivered": counts.delivered,
            "failed": counts.failed,
            "refused": counts.refused,
            "dropped": counts.dropped,
            "waiting": waiting,
        },
    }))
}

/// What is wrong now.
pub(super) fn active(shared: &Shared) -> Vec<Value> {
    shared.alerts.picture().active.iter().map(view).collect()
}

fn view(alert: &Alert) -> Value {
    json!({
        "rule": alert.rule.name,
        "severity": alert.rule.severity.name(),
        "state": alert.state.name(),
        "summary": alert.rule.summary,
        "labels": alert.labels,
        "value": alert.value,
        "bad_since": rfc3339(alert.bad_since),
        "fired_at": alert.fired_at.map(rfc3339),
        "resolved_at": alert.resolved_at.map(rfc3339),
        "fingerprint": format!("{:016x}", alert.fingerprint()),
    })
}

fn rule_view(rule: &Rule) -> Value {
    json!({
        "name": rule.name,
        "signal": rule.signal.name(),
        "comparison": match rule.comparison { Comparison::Above => "above", Comparison::Below => "below" },
        "threshold": rule.threshold,
        "clear": rule.clear,
        "for_seconds": rule.lasting.as_secs_f64(),
        "clear_for_seconds": rule.clear_lasting.as_secs_f64(),
        "severity": rule.severity.name(),
        "missing": match rule.missing {
            Missing::Resolve => "resolve",
            Missing::Hold => "hold",
            Missing::Fire => "fire",
        },
    })
}
