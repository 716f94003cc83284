//! `peregrine scaler`: the fleet explained, reported and changed by hand.

mod simulate;

use std::collections::BTreeMap;
use std::io::{self, Write as _};
use std::time::Duration;

use clap::{Args, Subcommand};
use jiff::Timestamp;
use peregrine_scaler::signal::{NodeReport, Signal};
use serde_json::{Value, json};

use super::options::ConfigArgs;
use super::trust::{AccessArgs, NodeArgs, node_url};
use super::{CliError, print_json};
use crate::scaler::OpenError;
use crate::scaler::once::{Evaluated, evaluate};

/// Where a node tells it.
const REPORT: &str = "/v1/scaler/report";
/// For the node that is asked.
const WITHIN: Duration = Duration::from_secs(10);

#[derive(Debug, Subcommand)]
pub(super) enum ScalerVerb {
    /// Evaluate once and explain; changes nothing unless told to
    Once(OnceArgs),
    /// What the scaler of a running cluster has done and why, and what it costs
    Report(ReportArgs),
    /// What the machines of a group are to run from now on; naming the former release again goes back to it
    Release(ReleaseArgs),
    /// Replay a demand trace against the configured fleet in virtual time, beside other policies
    Simulate(simulate::SimulateArgs),
}

#[derive(Debug, Args)]
pub(super) struct OnceArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// A node of a running cluster: what its nodes measure is asked there. Without one nothing is known of load
    #[arg(long, value_name = "URL", value_parser = node_url)]
    url: Option<String>,
    #[command(flatten)]
    access: AccessArgs,
    /// Do what was decided
    #[arg(long)]
    apply: bool,
    /// As JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
pub(super) struct ReportArgs {
    #[command(flatten)]
    asked: NodeArgs,
    /// As JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
pub(super) struct ReleaseArgs {
    /// The group
    group: String,
    /// The release
    release: String,
    #[command(flatten)]
    asked: NodeArgs,
}

/// The fleet cannot be evaluated.
#[derive(Debug, thiserror::Error)]
pub(super) enum ScalerError {
    /// A pool cannot be used.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// A trace cannot be used, or the fleet not simulated.
    #[error(transparent)]
    Simulate(#[from] simulate::SimulateError),
}

pub(super) fn run(verb: ScalerVerb) -> Result<(), CliError> {
    match verb {
        ScalerVerb::Once(args) => once(args),
        ScalerVerb::Report(args) => report(&args),
        ScalerVerb::Release(args) => release(&args),
        ScalerVerb::Simulate(args) => simulate::run(args),
    }
}

fn once(args: OnceArgs) -> Result<(), CliError> {
    let config = args.config.resolved_without_models()?.config;
    let reports = match &args.url {
        Some(url) => reports(&args.access.node(url, WITHIN)?.get(REPORT, None)?),
        None => BTreeMap::new(),
    };
    let evaluated = evaluate(&config, reports, args.apply).map_err(ScalerError::from)?;
    if args.json {
        return Ok(print_json(&as_json(&evaluated))?);
    }
    let mut out = io::stdout().lock();
    for decision in &evaluated.round.decisions {
        writeln!(out, "{decision}")?;
        for (name, known) in &decision.facts {
            writeln!(out, "    {name}: {known}")?;
        }
        for finding in &decision.findings {
            writeln!(out, "  {finding}")?;
        }
    }
    for stray in &evaluated.round.strays {
        writeln!(out, "{stray}: of no group that is configured; left alone")?;
    }
    for (what, outcome) in evaluated.lines() {
        writeln!(out, "{what}: {outcome}")?;
    }
    Ok(())
}

fn as_json(evaluated: &Evaluated) -> Value {
    let decision = |decision: &peregrine_scaler::control::Decision| {
        let known: serde_json::Map<String, Value> =
            decision.facts.iter().map(|(name, known)| ((*name).to_owned(), json!(known))).collect();
        json!({
            "group": decision.group,
            "from": decision.from,
            "to": decision.to,
            "explained": decision.to_string(),
            "findings": decision.findings.iter().map(ToString::to_string).collect::<Vec<_>>(),
            "known": known,
        })
    };
    let actions = evaluated.lines();
    json!({
        "decisions": evaluated.round.decisions.iter().map(decision).collect::<Vec<_>>(),
        "actions": actions.map(|(what, outcome)| json!({ "action": what, "outcome": outcome })).collect::<Vec<_>>(),
        "strays": evaluated.round.strays.iter().map(ToString::to_string).collect::<Vec<_>>(),
    })
}

fn report(args: &ReportArgs) -> Result<(), CliError> {
    let report: Value = args.asked.node(WITHIN)?.get(REPORT, None)?;
    if args.json {
        return Ok(print_json(&report)?);
    }
    let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let list = |key: &str| report[key].as_array().cloned().unwrap_or_default();
    let mut out = io::stdout().lock();
    writeln!(out, "{} at {}", text(&report["state"]), text(&report["at"]))?;
    for group in list("groups") {
        writeln!(out, "{}", text(&group["explained"]))?;
        for finding in group["findings"].as_array().into_iter().flatten() {
            writeln!(out, "  {}", text(finding))?;
        }
    }
    for pool in list("pools") {
        for machine in pool["machines"].as_array().into_iter().flatten() {
            let cordoned = if machine["cordoned"] == true { ", cordoned" } else { "" };
            writeln!(
                out,
                "{} {} {} {}{cordoned}",
                text(&machine["slot"]),
                text(&machine["region"]),
                text(&machine["release"]),
                text(&machine["state"]),
            )?;
        }
        if let Some(error) = pool["error"].as_str() {
            writeln!(out, "pool {}: {error}", text(&pool["pool"]))?;
        }
    }
    for decision in list("decisions") {
        writeln!(out, "{}", text(&decision))?;
    }
    writeln!(out, "spent this month: {}", text(&report["spent_this_month"]))?;
    if let Some(summary) = report["summary"].as_str() {
        writeln!(out, "{summary}")?;
    }
    Ok(())
}

fn release(args: &ReleaseArgs) -> Result<(), CliError> {
    let body = json!({ "group": args.group, "release": args.release });
    args.asked.node(WITHIN)?.post("/v1/scaler/release", &body)?;
    writeln!(io::stdout().lock(), "{} will run {}", args.group, args.release)?;
    Ok(())
}

/// What nodes measured, by machine and by name; what cannot be read was not measured.
fn reports(report: &Value) -> BTreeMap<String, NodeReport> {
    let mut reports = BTreeMap::new();
    for node in report["nodes"].as_array().into_iter().flatten() {
        let Some(at) = node["heard_at"].as_str().and_then(|text| text.parse::<Timestamp>().ok()) else {
            continue;
        };
        let measured = Signal::ALL.into_iter();
        let measured =
            measured.filter_map(|signal| Some((signal, node["measured"][signal.name()].as_f64()?)));
        let read = NodeReport {
            at,
            is_ready: node["ready"] == true,
            is_draining: node["draining"] == true,
            measured: measured.collect(),
        };
        for name in [&node["machine"], &node["node"]].into_iter().filter_map(Value::as_str) {
            reports.insert(name.to_owned(), read.clone());
        }
    }
    reports
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reports_are_read_as_they_were_written() {
        let report = json!({ "nodes": [
            { "node": "g-0", "machine": "148e", "heard_at": "2026-11-28T12:00:00Z", "ready": true, "draining": false,
              "measured": { "utilisation": 0.5, "unheard_of": 3 } },
            { "node": "odd", "heard_at": "yesterday" },
        ]});
        let read = reports(&report);
        assert_eq!(read.keys().collect::<Vec<_>>(), ["148e", "g-0"]);
        assert_eq!(read["g-0"].measured, [(Signal::Utilisation, 0.5)].into());
        assert!(read["g-0"].is_ready);
    }
}
