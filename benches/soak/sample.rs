//! What a node holds at a moment: by `/proc`, and by its own metrics.

use std::collections::BTreeMap;
use std::fs;

use crate::support::{Failure, Node};

/// How a figure is judged.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unit {
    /// By its trend.
    Mib,
    /// By what is left of it.
    Count,
}

/// Where a figure is found.
enum Source {
    /// A line of `/proc/PID/status`.
    Status(&'static str),
    Descriptors,
    /// The sum of a metric over its labels.
    Sum(&'static str),
    /// How many samples a metric has.
    Samples(&'static str),
    /// How many samples there are altogether: a label that grows shows here.
    Page,
}

pub(crate) struct Kind {
    pub(crate) name: &'static str,
    pub(crate) unit: Unit,
    source: Source,
}

const fn kind(name: &'static str, unit: Unit, source: Source) -> Kind {
    Kind { name, unit, source }
}

pub(crate) const KINDS: [Kind; 23] = [
    kind("resident MiB", Unit::Mib, Source::Status("VmRSS:")),
    kind("anonymous MiB", Unit::Mib, Source::Status("RssAnon:")),
    kind("threads", Unit::Count, Source::Status("Threads:")),
    kind("descriptors", Unit::Count, Source::Descriptors),
    kind("connections", Unit::Count, Source::Sum("peregrine_connections")),
    kind("requests in flight", Unit::Count, Source::Sum("peregrine_in_flight")),
    kind("bytes of bodies", Unit::Count, Source::Sum("peregrine_bodies_bytes")),
    kind("actors", Unit::Count, Source::Samples("peregrine_mailbox_depth")),
    kind("messages in mailboxes", Unit::Count, Source::Sum("peregrine_mailbox_depth")),
    kind("rows waiting", Unit::Count, Source::Sum("peregrine_queue_rows")),
    kind("models", Unit::Count, Source::Samples("peregrine_weights_bytes")),
    kind("plans on devices", Unit::Count, Source::Sum("peregrine_device_plans")),
    kind("bytes of plans", Unit::Count, Source::Sum("peregrine_device_plan_bytes")),
    kind("bytes of batches", Unit::Count, Source::Sum("peregrine_device_batch_bytes")),
    kind("breakers", Unit::Count, Source::Samples("peregrine_breaker_state")),
    kind("subscribers", Unit::Count, Source::Sum("peregrine_stream_subscribers")),
    kind("subscriptions", Unit::Count, Source::Sum("peregrine_stream_channels")),
    kind("streams", Unit::Count, Source::Sum("peregrine_stream_streams")),
    kind("series", Unit::Count, Source::Sum("peregrine_series")),
    kind("bytes of series", Unit::Count, Source::Sum("peregrine_series_bytes")),
    kind("bytes of the scorecard", Unit::Count, Source::Sum("peregrine_score_bytes")),
    kind("ticks for the journal", Unit::Count, Source::Sum("peregrine_journal_queued")),
    kind("samples of /metrics", Unit::Count, Source::Page),
];

/// A figure of each kind.
pub(crate) struct Sample(pub(crate) [f64; KINDS.len()]);

impl Sample {
    pub(crate) fn take(node: &Node) -> Result<Self, Failure> {
        let status = fs::read_to_string(node.proc().join("status"))?;
        let descriptors = fs::read_dir(node.proc().join("fd"))?.count();
        let page = ureq::get(format!("http://{}/metrics", node.addr)).call()?.body_mut().read_to_string()?;
        let mut metrics: BTreeMap<&str, (usize, f64)> = BTreeMap::new();
        let mut samples = 0;
        for line in page.lines().filter(|line| !line.starts_with('#')) {
            let (name, value) = line.rsplit_once(' ').ok_or("no sample")?;
            let entry = metrics.entry(name.split('{').next().unwrap_or(name)).or_default();
            entry.0 += 1;
            entry.1 += value.parse::<f64>()?;
            samples += 1;
        }
        let metric = |name: &str| metrics.get(name).copied().ok_or_else(|| format!("no metric {name}"));
        let mut figures = [0.0; KINDS.len()];
        for (figure, kind) in figures.iter_mut().zip(&KINDS) {
            *figure = match kind.source {
                Source::Status(field) => number(&status, field)?,
                Source::Descriptors => descriptors as f64,
                Source::Sum(name) => metric(name)?.1,
                Source::Samples(name) => metric(name)?.0 as f64,
                Source::Page => f64::from(samples),
            };
            if kind.unit == Unit::Mib {
                *figure /= 1024.0;
            }
        }
        Ok(Self(figures))
    }
}

fn number(status: &str, field: &str) -> Result<f64, Failure> {
    let line = status.lines().find_map(|line| line.strip_prefix(field)).ok_or("no such line")?;
    Ok(line.split_whitespace().next().ok_or("no number")?.parse()?)
}
