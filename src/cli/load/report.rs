//! What is printed of a load: a table and a verdict, JSON, or rows of CSV.

use std::io;
use std::time::Duration;

use peregrine_load::recorder::{Spread, Window};
use peregrine_load::request::Kind;
use peregrine_load::split::{Between, Samples};
use serde_json::{Map, Value, json};

use super::measure::{Failures, Measured, name};
use super::{CliError, Plan};
use crate::cli::{print_json, print_line, print_table};

/// A thread of the generator that was busy for more of the time was at its limit…
const BUSY_MAX: f64 = 0.9;
/// …and so was one that sent later than this though a connection was free.
const LATE_MAX: Duration = Duration::from_millis(2);

pub(super) const PERCENTILES: [(&str, f64); 5] =
    [("p50", 0.5), ("p90", 0.9), ("p95", 0.95), ("p99", 0.99), ("p99_9", 0.999)];

pub(super) fn print(plan: &Plan, levels: &[Measured]) -> Result<(), CliError> {
    write_csv(plan, levels)?;
    let verdict = verdict(levels);
    if plan.as_json {
        let mut body = described(plan);
        body["levels"] = levels.iter().map(|level| level_json(plan, level)).collect();
        body["verdict"] = verdict.clone().into();
        print_json(&body)?;
    } else {
        print_table(&table(plan, levels))?;
        print_line(verdict)?;
        print_awake(plan)?;
    }
    outcome(levels.iter().map(|level| (&level.figures, &level.failures)))
}

/// Exit 1 where nothing was answered or an answer was wrong.
pub(super) fn outcome<'a>(parts: impl Iterator<Item = (&'a Window, &'a Failures)>) -> Result<(), CliError> {
    let (mut answered, mut wrong) = (0, 0);
    for (window, failures) in parts {
        answered += window.answered();
        wrong += wrong_count(failures);
    }
    match (answered, wrong) {
        (0, _) => Err(CliError::Reported("no request was answered".to_owned())),
        (_, 0) => Ok(()),
        (_, wrong) => Err(CliError::Reported(format!("{wrong} answers were wrong"))),
    }
}

/// Says what the figures are without, where that is so.
pub(super) fn print_awake(plan: &Plan) -> io::Result<()> {
    if !plan.target.busy_poll {
        return Ok(());
    }
    print_line("the generator stayed awake (--busy-poll): no wake-up of a client is in these figures")
}

/// What was asked of whom.
pub(super) fn described(plan: &Plan) -> Value {
    json!({
        "url": plan.target.url(),
        "model": plan.shape.model,
        "body": plan.ask.kind.name(),
        "rows": plan.ask.rows,
        "window": plan.shape.window(),
        "horizon": plan.shape.horizon(),
        "window_seconds": plan.window.as_secs_f64(),
        "stable_percent": plan.stable_percent,
        "stable_percentile": plan.percentile,
        "threads": plan.threads,
        "busy_poll": plan.target.busy_poll,
        "seed": plan.ask.seed,
    })
}

fn level_json(plan: &Plan, measured: &Measured) -> Value {
    let mut level = window_json(plan, &measured.figures);
    level["mode"] = if measured.level.rate.is_some() { "open" } else { "closed" }.into();
    level["rate_asked"] = measured.level.rate.into();
    level["settled"] = measured.settled.into();
    level["windows"] = measured.windows.len().into();
    level["longest_ms"] = longest(measured).map(millis).into();
    level["failures"] = failures_json(&measured.failures);
    level["server"] = server_json(plan, measured);
    level
}

/// The figures of a window, with every failure in it.
pub(super) fn window_json(plan: &Plan, window: &Window) -> Value {
    json!({
        "connections": window.connections,
        "seconds": window.span.as_secs_f64(),
        "answered": window.answered(),
        "requests_per_s": window.rate(),
        "windows_per_s": window.rate() * plan.ask.rows as f64,
        "latency_ms": spread_json(&window.latency),
        "failures": failures_json(&window.failures),
        "checked": window.checked,
        "reconnects": window.reconnects,
        "bytes_in": window.bytes_in,
        "starved": window.starved,
        "backlog": window.backlog,
        "oldest_waiting_ms": millis(window.oldest_waiting),
        "generator": {
            "cores": cores(window),
            "busiest": window.busiest,
            "late_ms": spread_json(&window.lateness),
            "at_limit": at_limit(window),
        },
    })
}

pub(super) fn failures_json(failures: &Failures) -> Value {
    let entries = failures.iter().map(|(failure, count)| (failure.to_string(), Value::from(*count)));
    Value::Object(entries.collect::<Map<_, _>>())
}

pub(super) fn spread_json(spread: &Spread) -> Value {
    if spread.count() == 0 {
        return Value::Null;
    }
    let mut members = json!({ "mean": millis(spread.mean()), "max": millis(spread.longest()) });
    for (name, share) in PERCENTILES {
        members[name] = millis(spread.at(share)).into();
    }
    members
}

fn server_json(plan: &Plan, measured: &Measured) -> Value {
    split_json(
        plan.ask.kind,
        &measured.figures.samples,
        Told { server: measured.server, mean: measured.mean },
    )
}

/// What a server says of a level, and how long that took the client.
#[derive(Clone, Copy, Default)]
pub(super) struct Told {
    server: Option<Between>,
    mean: Duration,
}

/// Of the answers themselves where they say it, else of the counters; `null` where neither does.
fn split_json(kind: Kind, samples: &Samples, told: Told) -> Value {
    let mean = |took: Duration| json!({ "mean": millis(took) });
    if samples.queue.count() > 0 {
        let mut body = json!({ "requests": samples.queue.count(), "rest_ms": spread_json(&samples.rest) });
        if kind == Kind::Stream {
            // A prediction says when its tick was accepted and when it was made; what it took within is of the counters.
            body["source"] = "predictions".into();
            body["made_ms"] = spread_json(&samples.compute);
            if let Some(server) = told.server {
                body["queue_ms"] = mean(server.mean.queue);
                body["compute_ms"] = mean(server.mean.compute);
            }
        } else {
            body["source"] = "answers".into();
            body["queue_ms"] = spread_json(&samples.queue);
            body["compute_ms"] = spread_json(&samples.compute);
            body["transfer_ms"] = spread_json(&samples.transfer);
        }
        return body;
    }
    let Some(server) = told.server else { return Value::Null };
    // Where no answer counts there is nothing of which anything could be left.
    let rest = (!told.mean.is_zero()).then(|| mean(told.mean.saturating_sub(server.mean.total())));
    json!({
        "source": "statistics",
        "requests": server.requests,
        "rows_per_batch": server.rows_per_batch,
        "queue_ms": mean(server.mean.queue),
        "compute_ms": mean(server.mean.compute),
        "transfer_ms": mean(server.mean.transfer),
        "rest_ms": rest,
    })
}

fn table(plan: &Plan, levels: &[Measured]) -> Vec<Vec<String>> {
    let mut header =
        vec!["load", "requests/s", "windows/s", "p50 ms", "p90", "p99", "p99.9", "max", "failed"];
    let split = levels.iter().any(|level| !server_json(plan, level).is_null());
    let hops: &[&str] = match (split, plan.ask.kind) {
        (false, _) => &[],
        (true, Kind::Stream) => &["queue", "compute", "made", "rest"],
        (true, _) => &["queue", "compute", "transfer", "rest"],
    };
    header.extend(hops);
    header.extend(["waiting", "own cores", "settled"]);
    let mut rows = vec![header.into_iter().map(str::to_owned).collect::<Vec<_>>()];
    for level in levels {
        let figures = &level.figures;
        // Of nothing there is no percentile, and none is zero.
        let told =
            |took| if figures.answered() > 0 { format!("{:.3}", millis(took)) } else { "-".to_owned() };
        let at = |share| told(figures.latency.at(share));
        let mut row = vec![
            name(level.level),
            format!("{:.1}", figures.rate()),
            format!("{:.1}", figures.rate() * plan.ask.rows as f64),
            at(0.5),
            at(0.9),
            at(0.99),
            at(0.999),
            told(figures.latency.longest()),
            failures_text(&level.failures),
        ];
        let server = server_json(plan, level);
        row.extend(hops.iter().map(|hop| hop_text(&server[format!("{hop}_ms")])));
        row.push(format!("{:.1} ms", millis(figures.oldest_waiting)));
        row.push(format!("{:.2}{}", cores(figures), if at_limit(figures) { " (limit)" } else { "" }));
        row.push(if level.settled { "yes" } else { "no" }.to_owned());
        rows.push(row);
    }
    rows
}

/// `p50/p99` where they are known, else the mean.
fn hop_text(hop: &Value) -> String {
    match (hop["p50"].as_f64(), hop["p99"].as_f64(), hop["mean"].as_f64()) {
        (Some(p50), Some(p99), _) => format!("{p50:.3}/{p99:.3}"),
        (_, _, Some(mean)) => format!("{mean:.3}"),
        _ => "-".to_owned(),
    }
}

pub(super) fn failures_text(failures: &Failures) -> String {
    if failures.is_empty() {
        return "0".to_owned();
    }
    let each: Vec<String> = failures.iter().map(|(failure, count)| format!("{count} {failure}")).collect();
    each.join(", ")
}

/// One line: the level with the most answers, and what to think of it.
fn verdict(levels: &[Measured]) -> String {
    let best = levels.iter().max_by(|a, b| a.figures.rate().total_cmp(&b.figures.rate()));
    let Some(best) = best.filter(|best| best.figures.answered() > 0) else {
        return "nothing was answered".to_owned();
    };
    let figures = &best.figures;
    let mut line = format!(
        "most with {}: {:.1} requests/s, p50 {:.3} ms, p99 {:.3} ms",
        name(best.level),
        figures.rate(),
        millis(figures.latency.at(0.5)),
        millis(figures.latency.at(0.99)),
    );
    let failed: u64 = levels.iter().flat_map(|level| level.failures.values()).sum();
    let wrong: u64 = levels.iter().map(|level| wrong_count(&level.failures)).sum();
    let unsettled = levels.iter().filter(|level| !level.settled).count();
    if failed > 0 {
        line.push_str(&format!("; {failed} requests failed, {wrong} of them answered wrongly"));
    }
    if unsettled > 0 {
        line.push_str(&format!("; {unsettled} of {} levels did not settle", levels.len()));
    }
    let earlier = levels.iter().filter(|level| longest(level) > Some(level.figures.latency.longest()));
    if let Some(took) = earlier.filter_map(longest).max() {
        line.push_str(&format!("; in a window before the last three one took {:.3} ms", millis(took)));
    }
    if levels.iter().any(|level| at_limit(&level.figures)) {
        line.push_str(
            "; the generator was at its limit, or held up: it needs more --threads, or a machine of its own",
        );
    }
    line
}

/// Of all windows, and not of the last three alone.
fn longest(measured: &Measured) -> Option<Duration> {
    let answered = measured.windows.iter().filter(|window| window.answered() > 0);
    answered.map(|window| window.latency.longest()).max()
}

pub(super) fn wrong_count(failures: &Failures) -> u64 {
    failures.iter().filter(|(failure, _)| failure.is_wrong()).map(|(_, count)| count).sum()
}

pub(super) fn at_limit(window: &Window) -> bool {
    window.busiest > BUSY_MAX || window.lateness.at(0.99) > LATE_MAX
}

fn cores(window: &Window) -> f64 {
    if window.span.is_zero() { 0.0 } else { window.own_cpu.as_secs_f64() / window.span.as_secs_f64() }
}

pub(super) fn millis(took: Duration) -> f64 {
    took.as_secs_f64() * 1e3
}

fn write_csv(plan: &Plan, levels: &[Measured]) -> Result<(), CliError> {
    let rows = levels.iter().flat_map(|level| {
        let told = Told { server: level.server, mean: level.mean };
        level.windows.iter().enumerate().map(move |(at, window)| CsvRow {
            load: name(level.level),
            at,
            url: plan.target.url(),
            window,
            told,
        })
    });
    csv_rows(plan, rows)
}

/// A window as a row of CSV.
pub(super) struct CsvRow<'a> {
    /// Its level.
    pub(super) load: String,
    /// Its number.
    pub(super) at: usize,
    /// Whose it is.
    pub(super) url: String,
    pub(super) window: &'a Window,
    /// Of its whole level: what stands where the answers of the window say nothing.
    pub(super) told: Told,
}

/// Where time goes, in CSV; what is not known is empty.
const HOPS: [&str; 5] = ["queue", "compute", "transfer", "made", "rest"];
const HOP_FIGURES: [&str; 3] = ["mean", "p50", "p99"];

pub(super) fn csv_rows<'a>(plan: &Plan, rows: impl Iterator<Item = CsvRow<'a>>) -> Result<(), CliError> {
    let Some(file) = &plan.csv else { return Ok(()) };
    let mut out = csv::Writer::from_path(file)?;
    let head = [
        "load",
        "window",
        "url",
        "model",
        "body",
        "rows",
        "connections",
        "seconds",
        "answered",
        "failed",
        "requests_per_s",
    ];
    let latencies = ["mean_ms", "p50_ms", "p90_ms", "p95_ms", "p99_ms", "p99_9_ms", "max_ms"];
    let tail = ["oldest_waiting_ms", "generator_cores", "late_p99_ms"];
    let hops = HOPS.into_iter().flat_map(|hop| HOP_FIGURES.map(|figure| format!("{hop}_{figure}_ms")));
    let named = head.into_iter().chain(latencies).chain(tail).map(str::to_owned);
    out.write_record(named.chain(["split_source".to_owned()]).chain(hops))?;
    for CsvRow { load, at, url, window, told } in rows {
        let mut row = vec![
            load,
            at.to_string(),
            url,
            plan.shape.model.clone(),
            plan.ask.kind.name().to_owned(),
            plan.ask.rows.to_string(),
            window.connections.to_string(),
            window.span.as_secs_f64().to_string(),
            window.answered().to_string(),
            window.failed_count().to_string(),
            window.rate().to_string(),
        ];
        let latency = &window.latency;
        let known = |took| if latency.count() > 0 { millis(took).to_string() } else { String::new() };
        row.push(known(latency.mean()));
        row.extend(PERCENTILES.map(|(_, share)| known(latency.at(share))));
        row.push(known(latency.longest()));
        row.push(millis(window.oldest_waiting).to_string());
        row.push(cores(window).to_string());
        row.push(millis(window.lateness.at(0.99)).to_string());
        let split = split_json(plan.ask.kind, &window.samples, told);
        row.push(split["source"].as_str().unwrap_or_default().to_owned());
        let figure = |hop: &str, figure| split[format!("{hop}_ms")][figure].as_f64();
        let figures = HOPS.into_iter().flat_map(|hop| HOP_FIGURES.map(|name| figure(hop, name)));
        row.extend(figures.map(|figure| figure.map_or_else(String::new, |figure| figure.to_string())));
        out.write_record(&row)?;
    }
    Ok(out.flush()?)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use peregrine_load::session::Level;

    use super::*;

    /// Windows of one answer each, that took so many milliseconds.
    fn measured(answers: &[u64]) -> Measured {
        let window = |millis: &u64| {
            let mut window = Window { span: Duration::from_secs(1), ..Window::default() };
            window.completed(Duration::ZERO, Duration::from_millis(*millis));
            window
        };
        let windows: Vec<Window> = answers.iter().map(window).collect();
        let mut figures = Window::default();
        windows.iter().rev().take(3).for_each(|window| figures.then(window));
        let level = Level { connections: 1, rate: None };
        let failures = BTreeMap::new();
        Measured { level, settled: true, windows, figures, failures, server: None, mean: Duration::ZERO }
    }

    #[test]
    fn what_stood_still_before_the_last_windows_is_not_forgotten() {
        let told = verdict(&[measured(&[5, 900, 1, 1, 2]), measured(&[1, 1, 2])]);
        assert!(told.contains("in a window before the last three one took 900."), "{told}");
        for calm in [&[1, 900, 1][..], &[1, 1, 1, 2], &[2, 1, 1, 2]] {
            let told = verdict(&[measured(calm)]);
            assert!(!told.contains("before"), "{calm:?}: {told}");
        }
        assert_eq!(longest(&measured(&[])), None);
    }
}
