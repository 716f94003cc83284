//! The report as JSON: `GET /v1/scaler/report`.

use std::collections::BTreeMap;

use peregrine_scaler::control::Decision;
use peregrine_scaler::demand::{NoOutlook, Outlook};
use peregrine_scaler::fleet::Machine;
use peregrine_scaler::pool::PoolError;
use peregrine_scaler::report::GroupReport;
use peregrine_scaler::rule::Finding;
use serde_json::{Value, json};

use super::book::Book;
use super::messages::measured;
use super::once::words;
use super::rounds::Picture;

/// All of it. `None`: no round has ended yet.
pub(crate) fn report(picture: Option<&Picture>, book: &Book) -> Value {
    let nodes: Vec<Value> = book
        .nodes()
        .map(|(at, vitals)| {
            let signals: serde_json::Map<String, Value> = measured(&vitals.measured)
                .into_iter()
                .map(|(signal, value)| (signal.name().to_owned(), json!(value)))
                .collect();
            json!({
                "node": vitals.node,
                "machine": vitals.machine,
                "region": vitals.region,
                "computes": vitals.computes,
                "ready": vitals.is_ready,
                "draining": vitals.is_draining,
                "heard_at": at.to_string(),
                "measured": signals,
                "asked_here": vitals.asked_here,
            })
        })
        .collect();
    let Some(picture) = picture else { return json!({ "state": "starting", "nodes": nodes }) };
    json!({
        "state": "acting",
        "at": picture.at.to_string(),
        "groups": picture.round.decisions.iter().map(|decision| group(picture, decision)).collect::<Vec<_>>(),
        "pools": picture.machines.iter().map(|(name, listed)| pool(name, listed)).collect::<Vec<_>>(),
        "nodes": nodes,
        "actions": picture.done.iter().map(|done| json!({
            "action": words(&done.action),
            "error": done.result.as_ref().err().map(ToString::to_string),
        })).collect::<Vec<_>>(),
        "strays": picture.round.strays.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "decisions": picture.decisions,
        "spent_this_month": picture.spent.this_month,
        "since": picture.report.from.to_string(),
        "averages": picture.report.groups.iter().map(average).collect::<Vec<_>>(),
        "advice": picture.report.advice.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "summary": picture.report.to_string(),
    })
}

fn group(picture: &Picture, decision: &Decision) -> Value {
    let name = &decision.group;
    let seconds = |times: &[std::time::Duration]| {
        times.iter().map(std::time::Duration::as_secs_f64).collect::<Vec<_>>()
    };
    let ready = picture.ready.get(name);
    let markets = picture.markets.get(name).copied().unwrap_or_default();
    let known: serde_json::Map<String, Value> =
        decision.facts.iter().map(|(name, text)| ((*name).to_owned(), json!(text))).collect();
    json!({
        "group": name,
        "wanted": decision.to,
        "was_wanted": decision.from,
        "explained": decision.to_string(),
        "findings": decision.findings.iter().map(Finding::to_string).collect::<Vec<_>>(),
        "known": known,
        "release": picture.releases.get(name),
        "markets": {
            "open": markets.is_open,
            "opens_in_seconds": markets.opens_in.map(|opens_in| opens_in.as_secs_f64()),
        },
        "demand": picture.outlooks.get(name).map(outlook),
        "without_room": decision.short.0,
        "without_money": decision.short.1,
        "ready_seconds": {
            "cold": ready.map(|[cold, _]| seconds(cold)),
            "warm": ready.map(|[_, warm]| seconds(warm)),
        },
    })
}

/// One group since this scaler began to act.
fn average(group: &GroupReport) -> Value {
    let savings = group.savings.iter().map(|saving| {
        json!({ "fixed_machines": saving.machines, "fixed_cost": saving.money, "saved_share": saving.share })
    });
    json!({
        "group": group.group,
        "machines_mean": group.machines_mean,
        "machines_max": group.machines_max,
        "utilisation": group.utilisation,
        "cost": group.money,
        "cost_per_hour": group.per_hour,
        "cost_per_1000": group.per_1000,
        "cost_by_region": group.by_region.iter().cloned().collect::<BTreeMap<String, f64>>(),
        "changes": group.changes,
        "savings": savings.collect::<Vec<_>>(),
    })
}

fn outlook(outlook: &Result<Outlook, NoOutlook>) -> Value {
    match outlook {
        Ok(outlook) => {
            let points = outlook.points.iter();
            let points: Vec<[f64; 3]> =
                points.map(|point| [point.lower, point.median, point.upper]).collect();
            json!({
                "by": outlook.by.to_string(),
                "why": outlook.why.to_string(),
                "step_seconds": outlook.step.as_secs_f64(),
                "lower_median_upper": points,
            })
        }
        Err(why) => json!({ "none": why.to_string() }),
    }
}

fn pool(name: &str, listed: &Result<Vec<Machine>, PoolError>) -> Value {
    match listed {
        Ok(machines) => json!({ "pool": name, "machines": machines.iter().map(machine).collect::<Vec<_>>() }),
        Err(error) => json!({ "pool": name, "error": error.to_string() }),
    }
}

fn machine(machine: &Machine) -> Value {
    json!({
        "id": machine.id.0,
        "slot": machine.slot.to_string(),
        "region": machine.region,
        "state": machine.state.name(),
        "cordoned": machine.cordoned,
        "release": machine.release,
        "created_at": machine.created_at.to_string(),
    })
}
