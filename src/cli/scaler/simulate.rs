//! `peregrine scaler simulate`: what the configured fleet would have cost and missed under a demand, beside others.

use std::fs::File;
use std::io::{self, ErrorKind, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use peregrine_scaler::control::{FleetSpec, Policy};
use peregrine_scaler::demand::{Season, SettingsError};
use peregrine_scaler::place::RoundTrips;
use peregrine_scaler::pool::simulated::Delays;
use peregrine_scaler::report::{FixedFleet, Report, Saving};
use peregrine_scaler::simulate::policy::{Fixed, Kpa, TargetTracking};
use peregrine_scaler::simulate::{
    Contender, Forecast, NodeModel, Outcome, Scenario, ScenarioError, Table, Trace, TraceError,
    run as simulate,
};
use serde_json::{Value, json};

use super::ScalerError;
use crate::cli::options::ConfigArgs;
use crate::cli::{CliError, print_json};
use crate::config::{GroupConfig, ScalerConfig};

/// A year of minutes in ten regions takes less.
const TRACE_BYTES_MAX: u64 = 256 << 20;

#[derive(Debug, Args)]
pub(in crate::cli) struct SimulateArgs {
    /// Demand as CSV: time,region,requests_per_second
    #[arg(long, value_name = "FILE")]
    trace: PathBuf,
    #[command(flatten)]
    config: ConfigArgs,
    /// Which group of it; left out: the first
    #[arg(long)]
    group: Option<String>,
    /// From when it counts, RFC 3339; what the trace says before is history. Left out: from where the last quarter begins
    #[arg(long, value_name = "TIME")]
    from: Option<Timestamp>,
    /// Until when; left out: the trace's end
    #[arg(long, value_name = "TIME")]
    to: Option<Timestamp>,
    /// Machines of a fixed fleet to compare with, beside the smallest that is over its objective for no longer
    #[arg(long, value_name = "MACHINES")]
    fixed: Option<u32>,
    /// Chance
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// As JSON
    #[arg(long)]
    json: bool,
}

/// Nothing was simulated. The operator acts.
#[derive(Debug, thiserror::Error)]
pub(in crate::cli) enum SimulateError {
    /// The file cannot be read.
    #[error("{}: {source}", file.display())]
    Read {
        /// Which.
        file: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Nobody has traces of that size.
    #[error("{}: a trace has at most {TRACE_BYTES_MAX} bytes", file.display())]
    TooLarge {
        /// Which.
        file: PathBuf,
    },
    /// It is no trace.
    #[error("{}: {source}", file.display())]
    Trace {
        /// Which.
        file: PathBuf,
        /// Why.
        source: TraceError,
    },
    /// There is no such group.
    #[error("there is no group `{0}` in this configuration")]
    NoGroup(String),
    /// A fleet that the group cannot have.
    #[error("--fixed {machines}: the group has {min} to {max} machines")]
    Fixed {
        /// As asked for.
        machines: u32,
        /// Of the group.
        min: u32,
        /// Of the group.
        max: u32,
    },
    /// The fleet, or the time.
    #[error(transparent)]
    Scenario(#[from] ScenarioError),
    /// The history is too short to forecast from.
    #[error(transparent)]
    Forecast(#[from] SettingsError),
}

pub(super) fn run(args: SimulateArgs) -> Result<(), CliError> {
    let config = args.config.resolved_without_models()?.config.scaler;
    let (outcomes, report) = contend(&args, &config).map_err(|error| match error {
        SimulateError::NoGroup(_) | SimulateError::Fixed { .. } => CliError::Usage(error.to_string()),
        error => ScalerError::from(error).into(),
    })?;
    if args.json {
        let rows: Vec<Value> = outcomes.iter().map(row).collect();
        return Ok(print_json(&json!({ "policies": rows, "report": report.to_string() }))?);
    }
    let mut out = io::stdout().lock();
    writeln!(out, "{}\n{report}", Table(&outcomes))?;
    Ok(())
}

/// `None`: it is larger than that.
fn whole(file: &Path, bytes_max: u64) -> io::Result<Option<String>> {
    let mut text = Vec::new();
    File::open(file)?.take(bytes_max + 1).read_to_end(&mut text)?;
    if text.len() as u64 > bytes_max {
        return Ok(None);
    }
    String::from_utf8(text)
        .map(Some)
        .map_err(|error| io::Error::new(ErrorKind::InvalidData, error.utf8_error()))
}

fn contend(args: &SimulateArgs, config: &ScalerConfig) -> Result<(Vec<Outcome>, Report), SimulateError> {
    let file = &args.trace;
    let read = |source| SimulateError::Read { file: file.clone(), source };
    let text = whole(file, TRACE_BYTES_MAX)
        .map_err(read)?
        .ok_or_else(|| SimulateError::TooLarge { file: file.clone() })?;
    let trace = Trace::read(&text).map_err(|source| SimulateError::Trace { file: file.clone(), source })?;
    let group = match &args.group {
        Some(name) => config.groups.iter().find(|group| group.spec.name == *name),
        None => config.groups.first(),
    };
    let group = group.ok_or_else(|| SimulateError::NoGroup(args.group.clone().unwrap_or_default()))?;
    let (min, max) = (group.spec.machines_min, group.spec.machines_max);
    if let Some(machines) = args.fixed.filter(|machines| !(min..=max).contains(machines)) {
        return Err(SimulateError::Fixed { machines, min, max });
    }
    let fleet = FleetSpec { groups: vec![group.spec.clone()], ..config.fleet() };
    let (first, last) = trace.span().unwrap_or((Timestamp::UNIX_EPOCH, Timestamp::UNIX_EPOCH));
    let quarter = SignedDuration::from_secs(last.duration_since(first).as_secs() / 4);
    let from = args.from.or_else(|| last.checked_sub(quarter).ok()).unwrap_or(first);
    let scenario = Scenario {
        fleet: &fleet,
        trace: &trace,
        from,
        to: args.to.unwrap_or(last),
        step: config.evaluate_every,
        delays: delays(group),
        node: NodeModel { boot: group.spec.ready_after / 4, ..NodeModel::default() },
        calendars: group.markets.iter().filter_map(|name| config.calendars.get(name).ok().cloned()).collect(),
        round_trips: RoundTrips::new(),
        seed: args.seed,
    };
    scenario.check()?; // before all of its history is learnt
    let season = match scenario.calendars.first() {
        Some(calendar) => Season::Market(Arc::clone(calendar)),
        None => Season::Week(TimeZone::UTC),
    };
    let forecast = Forecast::with_history(Forecast::settings(), season, &trace, from)?;
    let (ours, mut report) = simulate(&scenario, Contender::Ours(Box::new(forecast)))?;
    let mut outcomes = vec![ours];
    let mut other = |policy: Box<dyn Policy>| -> Result<Outcome, SimulateError> {
        let (outcome, _) = simulate(&scenario, Contender::Other(policy))?;
        outcomes.push(outcome.clone());
        Ok(outcome)
    };
    for target in [0.6, 0.7, 0.8] {
        other(Box::new(TargetTracking::of_utilisation(target)))?;
    }
    let capacity = group.spec.capacity;
    other(Box::new(Kpa::new(0.7 * scenario.node.load(capacity, capacity).in_flight)))?;
    if let Some(machines) = args.fixed {
        other(Box::new(Fixed::new(machines)))?;
    }
    let (worst, spent) = (outcomes[0].violation_s, outcomes[0].cost);
    for machines in group.spec.machines_min.max(1)..=group.spec.machines_max {
        let (fixed, _) = simulate(&scenario, Contender::Other(Box::new(Fixed::new(machines))))?;
        let is_enough = fixed.violation_s <= worst;
        if is_enough {
            let saving = Saving::new(FixedFleet::Smallest, machines, fixed.cost, spent);
            report.groups[0].savings.insert(0, saving);
        }
        if is_enough || machines == group.spec.machines_max {
            outcomes.push(fixed);
            break;
        }
    }
    Ok((outcomes, report))
}

/// Of what a machine takes until it is ready, its node boots for a quarter.
fn delays(group: &GroupConfig) -> Delays {
    let create = group.spec.ready_after - group.spec.ready_after / 4;
    let start = create.min(Duration::from_secs(5));
    Delays { create, start, stop: start }
}

fn row(outcome: &Outcome) -> Value {
    json!({
        "policy": outcome.policy,
        "cost": outcome.cost,
        "violation_seconds": outcome.violation_s,
        "requests": outcome.requests,
        "requests_beyond": outcome.requests_beyond,
        "actions": outcome.actions,
        "changes": outcome.changes,
        "direction_changes": outcome.direction_changes,
        "machines_mean": outcome.machines_mean,
        "machines_max": outcome.machines_max,
        "overrun_seconds": outcome.overrun_s,
        "blind_actions": outcome.blind_actions,
        "refused": outcome.refused,
    })
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        args: SimulateArgs,
    }

    /// What became of the built-in fleet under the trace that ships, had its machines this capacity; the last is the fixed one.
    fn contended(capacity: f64) -> (Outcome, Outcome, Report) {
        let line = ["simulate", "--trace", "configs/traces/trading-week.csv"];
        let args = Line::try_parse_from(line).unwrap().args;
        let mut config = args.config.resolved_without_models().unwrap().config.scaler;
        config.groups[0].spec.capacity = capacity;
        let (outcomes, report) = contend(&args, &config).unwrap();
        (outcomes[0].clone(), outcomes.last().unwrap().clone(), report)
    }

    #[test]
    fn a_file_that_does_not_end_is_no_trace() {
        assert_eq!(whole(Path::new("/dev/zero"), 9).unwrap(), None);
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "123456789").unwrap();
        assert_eq!(whole(file.path(), 9).unwrap().as_deref(), Some("123456789"));
        assert_eq!(whole(file.path(), 8).unwrap(), None);
        std::fs::write(file.path(), b"\xff").unwrap();
        assert_eq!(whole(file.path(), 9).unwrap_err().kind(), ErrorKind::InvalidData);
    }

    #[test]
    fn the_fleet_is_compared_with_the_smallest_that_would_do_and_its_trace_needs_more_than_one_machine() {
        let (ours, fixed, report) = contended(200.0);
        assert_eq!((ours.violation_s, fixed.violation_s), (0.0, 0.0));
        assert_eq!(fixed.policy, "fixed 4");
        assert!(ours.cost < 0.5 * fixed.cost, "{} {}", ours.cost, fixed.cost);
        let savings = &report.groups[0].savings;
        assert_eq!((savings[0].fleet, savings[0].machines), (FixedFleet::Smallest, 4));
        assert!((savings[0].share - (1.0 - ours.cost / fixed.cost)).abs() < 1e-9);
        assert_eq!((savings[1].fleet, savings[1].machines), (FixedFleet::Most, ours.machines_max));
        assert!(savings[1].machines > 4, "{savings:?}");
    }

    #[test]
    fn a_fleet_that_is_dearer_than_a_machine_that_would_do_is_said_to_be() {
        let (ours, fixed, report) = contended(1000.0);
        assert_eq!((fixed.policy.as_str(), fixed.violation_s), ("fixed 1", 0.0));
        assert!(ours.cost > fixed.cost);
        assert!(report.to_string().contains("% more was spent\n"), "{report}");
    }
}
