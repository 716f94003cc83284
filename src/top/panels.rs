//! What each panel shows of an overview, as tables.
//!
//! An overview may come from anybody: what it lacks is not known, what it has too much of is left out.

use std::collections::BTreeMap;

use serde_json::Value;

use super::table::{Cell, Column, Row, Table, Tone, figure, name, text};
use super::words::{UNKNOWN, bytes, clean, maybe, number, part, percent};
use crate::overview::{Actor, Overview};

/// Rows of a table; nobody reads more.
const ROWS_MAX: usize = 5000;
/// Alerts that are told.
const ALERTS_MAX: usize = 32;

/// What can be looked at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Panel {
    #[default]
    Nodes,
    Actors,
    Devices,
    Batches,
    Breakers,
    Streams,
}

impl Panel {
    pub(super) const ALL: [Self; 6] =
        [Self::Nodes, Self::Actors, Self::Devices, Self::Batches, Self::Breakers, Self::Streams];

    pub(super) const fn title(self) -> &'static str {
        match self {
            Self::Nodes => "Nodes",
            Self::Actors => "Actors",
            Self::Devices => "Devices",
            Self::Batches => "Batches",
            Self::Breakers => "Breakers",
            Self::Streams => "Streams",
        }
    }

    pub(super) const fn columns(self) -> &'static [Column] {
        match self {
            Self::Nodes => NODES,
            Self::Actors => ACTORS,
            Self::Devices => DEVICES,
            Self::Batches => BATCHES,
            Self::Breakers => BREAKERS,
            Self::Streams => STREAMS,
        }
    }

    /// Everything that there is to see.
    pub(super) fn table(self, seen: &Overview) -> Table {
        let mut rows = match self {
            Self::Nodes => nodes(seen),
            Self::Actors => actors(&seen.actors),
            Self::Devices => devices(seen),
            Self::Batches => batches(seen),
            Self::Breakers => breakers(seen),
            Self::Streams => streams(seen),
        };
        rows.truncate(ROWS_MAX);
        Table { columns: self.columns(), rows, is_tree: self == Self::Actors }
    }
}

const NODES: &[Column] = &[
    name("node"),
    text("region", 1),
    text("state", 2),
    figure("load", 5),
    figure("rtt ms", 3),
    figure("models", 6),
    text("link", 4),
    text("version", 8),
    text("roles", 7),
];

const ACTORS: &[Column] = &[
    name("actor"),
    text("state", 2),
    figure("mailbox", 1),
    figure("messages/s", 3),
    figure("restarts", 4),
    text("last failure", 5),
];

const DEVICES: &[Column] = &[
    name("device"),
    text("backend", 3),
    text("state", 1),
    figure("busy", 2),
    figure("rows waiting", 4),
    figure("requests waiting", 9),
    figure("use", 6),
    figure("memory", 7),
    figure("°C", 8),
    figure("W", 10),
    text("why", 5),
];

const BATCHES: &[Column] = &[
    name("model"),
    figure("v", 6),
    text("state", 5),
    figure("requests/s", 1),
    figure("rows/s", 4),
    figure("failed/s", 3),
    figure("rows a batch", 7),
    figure("p50 ms", 8),
    figure("p95 ms", 11),
    figure("p99 ms", 2),
    figure("queue p99", 9),
    figure("compute p99", 10),
    text("family", 12),
];

const BREAKERS: &[Column] = &[
    name("guards"),
    text("of", 3),
    text("state", 1),
    text("mode", 5),
    figure("probe in ms", 7),
    figure("failures", 2),
    figure("changes", 4),
    text("why", 6),
];

const STREAMS: &[Column] = &[name("what"), figure("now", 1), text("unit", 2)];

fn row(cells: Vec<Cell>) -> Row {
    Row { cells, depth: 0 }
}

/// A member of something that another route writes.
fn said(of: &Value, member: &str) -> Cell {
    match &of[member] {
        Value::String(text) if !text.is_empty() => Cell::text(text),
        Value::Number(number) => number.as_u64().map_or_else(|| count(number.as_f64()), whole),
        Value::Bool(yes) => Cell::text(if *yes { "yes" } else { "no" }),
        _ => Cell::text(UNKNOWN),
    }
}

fn count(value: Option<f64>) -> Cell {
    Cell::size(value, maybe(value))
}

fn whole(value: u64) -> Cell {
    let value = value as f64;
    Cell::size(Some(value), if value < 1e6 { format!("{value:.0}") } else { number(value) })
}

fn share(value: Option<f64>) -> Cell {
    Cell::size(value, percent(value))
}

fn or_dash(text: &str) -> Cell {
    Cell::text(if text.is_empty() { UNKNOWN } else { text })
}

fn nodes(seen: &Overview) -> Vec<Row> {
    let members = seen.cluster.members.iter().map(|member| {
        let state = said(member, "state");
        let tone = match state.text.as_str() {
            "active" | "ready" => Tone::Good,
            "draining" => Tone::Odd,
            _ => Tone::Bad,
        };
        let is_here = member["here"] == true;
        let is_cut = member["connected"] == false;
        let roles = member["roles"].as_array().map(Vec::as_slice).unwrap_or_default();
        let roles: Vec<&str> = roles.iter().filter_map(Value::as_str).collect();
        let link = match (is_here, is_cut) {
            (true, _) => Cell::text("here").toned(Tone::Faint),
            (_, true) => Cell::text("cut").toned(Tone::Bad),
            _ => said(member, "distance"),
        };
        row(vec![
            said(member, "node"),
            said(member, "region"),
            state.toned(tone),
            said(member, "load"),
            said(member, "rtt_ms"),
            member["models"]
                .as_object()
                .map_or_else(|| Cell::text(UNKNOWN), |models| whole(models.len() as u64)),
            link,
            said(member, "version"),
            or_dash(&roles.join(", ")),
        ])
    });
    let is_back = |lost: &Value| seen.cluster.members.iter().any(|member| member["node"] == lost["node"]);
    let lost = seen.cluster.lost.iter().filter(|lost| !is_back(lost)).map(|lost| {
        let mut cells = vec![said(lost, "node"), said(lost, "region"), Cell::text("gone").toned(Tone::Bad)];
        cells.resize_with(NODES.len(), || Cell::text(UNKNOWN));
        row(cells)
    });
    members.chain(lost).collect()
}

/// Who says what its parent is stands below it, whatever order they came in. A ring has no top: it is left where it is.
fn actors(actors: &[Actor]) -> Vec<Row> {
    let mut children = BTreeMap::<Option<&str>, Vec<usize>>::new();
    let names: BTreeMap<&str, usize> =
        actors.iter().enumerate().map(|(at, actor)| (actor.name.as_str(), at)).collect();
    for (at, actor) in actors.iter().enumerate() {
        let parent = actor.parent.as_deref().filter(|parent| names.contains_key(parent));
        children.entry(parent).or_default().push(at);
    }
    let mut rows = Vec::new();
    let mut is_shown = vec![false; actors.len()];
    let top = children.get(&None).cloned().unwrap_or_default();
    let mut rest: Vec<(usize, usize)> = top.into_iter().rev().map(|at| (at, 0)).collect();
    rest.splice(0..0, (0..actors.len()).rev().map(|at| (at, 0))); // what hangs on nothing comes last
    while let Some((at, depth)) = rest.pop() {
        if std::mem::replace(&mut is_shown[at], true) {
            continue;
        }
        rows.push(Row { depth, ..actor(&actors[at]) });
        let below = children.get(&Some(actors[at].name.as_str())).map(Vec::as_slice).unwrap_or_default();
        rest.extend(below.iter().rev().map(|at| (*at, depth + 1)));
    }
    rows
}

fn actor(actor: &Actor) -> Row {
    let tone = match actor.state.as_str() {
        "running" => Tone::Good,
        "starting" | "waiting" => Tone::Odd,
        _ => Tone::Bad,
    };
    let restarts = whole(actor.restarts);
    let failure = actor.last_failure.as_ref().map_or("", |last| &last.failure);
    row(vec![
        Cell::text(&actor.name),
        or_dash(&actor.state).toned(tone),
        actor.mailbox_depth.map_or_else(|| Cell::text(UNKNOWN), whole),
        count(actor.messages_rate),
        if actor.restarts > 0 { restarts.toned(Tone::Odd) } else { restarts },
        if failure.is_empty() { Cell::text("") } else { Cell::text(failure).toned(Tone::Faint) },
    ])
}

fn devices(seen: &Overview) -> Vec<Row> {
    let devices = seen.devices.iter().map(|device| {
        let tone = match device.state.as_str() {
            "up" => Tone::Good,
            "starting" => Tone::Odd,
            _ => Tone::Bad,
        };
        let memory = Cell::size(
            device.memory_used_bytes.map(|used| used as f64),
            part(device.memory_used_bytes, device.memory_total_bytes),
        );
        row(vec![
            or_dash(&device.name),
            or_dash(&of_kind(&device.backend, device.device)),
            or_dash(&device.state).toned(tone),
            share(device.busy_share),
            whole(device.queue_rows),
            whole(device.queue_requests),
            share(device.utilisation),
            memory,
            count(device.temperature_celsius),
            count(device.power_watts),
            Cell::text(device.reason.as_deref().unwrap_or_default()).toned(Tone::Faint),
        ])
    });
    devices.collect()
}

/// `gpu`, and `gpu-1` for the second of them.
fn of_kind(kind: &str, place: u64) -> String {
    if place == 0 { kind.to_owned() } else { format!("{kind}-{place}") }
}

fn batches(seen: &Overview) -> Vec<Row> {
    let models = seen.models.iter().map(|model| {
        let failed = count(model.failed_rate);
        let fails = model.failed_rate.is_some_and(|rate| rate > 0.0);
        let tone = if model.state == "ready" { Tone::Good } else { Tone::Odd };
        row(vec![
            or_dash(&model.name),
            version(&model.version),
            or_dash(&model.state).toned(tone),
            count(model.rate),
            count(model.rows_rate),
            if fails { failed.toned(Tone::Bad) } else { failed },
            count(model.batch_rows_mean),
            count(model.p50_ms),
            count(model.p95_ms),
            count(model.p99_ms),
            count(model.queue_p99_ms),
            count(model.compute_p99_ms),
            or_dash(&model.family),
        ])
    });
    models.collect()
}

fn version(version: &str) -> Cell {
    Cell::size(version.parse().ok(), clean(if version.is_empty() { UNKNOWN } else { version }))
}

fn breakers(seen: &Overview) -> Vec<Row> {
    let breakers = seen.breakers.iter().map(|breaker| {
        let node = breaker["node"].as_str().map(|node| format!("node {node}"));
        let model = breaker["model"].as_str().map(|model| match breaker["version"].as_u64() {
            Some(version) => format!("{model}/{version}"),
            None => model.to_owned(),
        });
        let state = said(breaker, "state");
        let tone = match state.text.as_str() {
            "closed" => Tone::Good,
            "half-open" => Tone::Odd,
            _ => Tone::Bad,
        };
        let mode = said(breaker, "mode");
        let is_ordered = mode.text != "auto";
        row(vec![
            or_dash(&node.or(model).unwrap_or_default()),
            or_dash(&of_kind(
                breaker["backend"].as_str().unwrap_or_default(),
                breaker["device"].as_u64().unwrap_or(0),
            )),
            state.toned(tone),
            if is_ordered { mode.toned(Tone::Odd) } else { mode },
            said(breaker, "probe_in_ms"),
            said(breaker, "failures"),
            said(breaker, "transitions"),
            Cell::text(breaker["reason"].as_str().unwrap_or_default()).toned(Tone::Faint),
        ])
    });
    breakers.collect()
}

fn streams(seen: &Overview) -> Vec<Row> {
    let streams = &seen.streams;
    let line = |what: &str, now: Cell, unit: &str| {
        row(vec![Cell::text(what), now, Cell::text(unit).toned(Tone::Faint)])
    };
    let lags = whole(streams.lag_max);
    let skips = count(streams.conflated_rate);
    let skipped = streams.conflated_rate.is_some_and(|rate| rate > 0.0);
    let sent = streams.bytes_rate.filter(|rate| *rate >= 0.0).map(|rate| rate as u64);
    let mut rows = vec![
        line("subscribers", whole(streams.subscribers), "websockets"),
        line("farthest behind", if streams.lag_max > 0 { lags.toned(Tone::Odd) } else { lags }, "messages"),
        line("ticks in", count(streams.ticks_rate), "a second"),
        line("predictions", count(streams.predictions_rate), "a second"),
        line("messages out", count(streams.messages_rate), "a second"),
        line("bytes out", Cell::size(streams.bytes_rate, bytes(sent)), "a second"),
        line("skipped", if skipped { skips.toned(Tone::Odd) } else { skips }, "messages a second"),
    ];
    if let Some(scaler) = &seen.scaler {
        let currency = scaler.currency.as_deref().unwrap_or("of money");
        for group in &scaler.groups {
            let running = group.running.map_or_else(|| UNKNOWN.to_owned(), |running| running.to_string());
            let machines = Cell::size(Some(group.wanted as f64), format!("{running} of {}", group.wanted));
            rows.push(line(&format!("machines of {}", group.name), machines, &group.reason));
        }
        rows.push(line("cost so far", count(scaler.cost_so_far), currency));
        rows.push(line("cost of a fixed fleet", count(scaler.cost_fixed), currency));
    }
    rows
}

/// What is wrong now, the firing before the pending.
pub(super) fn alerts(seen: &Overview) -> Vec<(Tone, String)> {
    let line = |alert: &Value| {
        let text = |member: &str| alert[member].as_str().unwrap_or(UNKNOWN).to_owned();
        let labels: Vec<String> = (alert["labels"].as_object().into_iter().flatten())
            .map(|(name, value)| format!("{name}={}", value.as_str().unwrap_or(UNKNOWN)))
            .collect();
        let value = maybe(alert["value"].as_f64());
        let line = format!(
            "{} {} {} ({value}) {} {}",
            text("state"),
            text("severity"),
            text("rule"),
            labels.join(" "),
            text("summary")
        );
        let tone = if alert["state"] == "firing" { Tone::Bad } else { Tone::Odd };
        (tone, clean(&line))
    };
    let mut lines: Vec<_> = seen.alerts.iter().take(ROWS_MAX).map(line).collect();
    lines.sort_by_key(|(tone, _)| *tone != Tone::Bad);
    lines.truncate(ALERTS_MAX);
    lines
}

/// The names of the nodes that can be looked at.
pub(super) fn members(seen: &Overview) -> Vec<String> {
    let names = seen.cluster.members.iter().filter_map(|member| member["node"].as_str());
    let mut names: Vec<String> = names.take(ROWS_MAX).map(str::to_owned).collect();
    names.sort();
    names.dedup();
    names
}
