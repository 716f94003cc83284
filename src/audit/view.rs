//! A record as people and their programs read it; the same over HTTP and from the command line.

use std::time::Duration;

use peregrine_actors::audit::Record;
use peregrine_shaders::Precision;
use serde::Serialize;

use super::Located;

/// A record, and those of its rows that were asked for. Typed, so that each number prints as the `f32` it is.
#[derive(Debug, Serialize)]
pub struct View<'a> {
    /// In which segment it is.
    pub segment: u64,
    /// Where in it.
    pub at: u64,
    /// It is what the chain says at this place.
    pub intact: bool,
    /// When it was answered, in milliseconds since 1970.
    pub at_ms: u64,
    /// What the caller called the request.
    pub request: &'a str,
    /// Name of the caller's key.
    pub caller: &'a str,
    /// The model.
    pub model: &'a str,
    /// Its version.
    pub model_version: String,
    /// Of the weights' file.
    pub sha256: &'a str,
    /// How exactly its matrices were kept: `f32`, `f16` or `int8`.
    pub precision: &'static str,
    /// `cpu` or `gpu`.
    pub backend: &'static str,
    /// The CPU stood in for a GPU.
    pub degraded: bool,
    /// The node that computed it.
    pub node: &'a str,
    /// Where that is.
    pub region: &'a str,
    /// It is another one than that which recorded.
    pub remote: bool,
    /// Where the time went.
    pub timing_ms: TimingView,
    /// Rows of the batch in which it was computed.
    pub batch_rows: u64,
    /// SHA-256 of all windows of the request.
    pub window_sha256: String,
    /// Rows of the request.
    pub rows_count: usize,
    /// Those that were asked for.
    pub rows: Vec<RowView<'a>>,
    /// Predictions of older records of the same name, by number, one of each; 100 at most.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub others: Vec<String>,
}

/// See [`peregrine_actors::Timing`].
#[derive(Debug, Serialize)]
pub struct TimingView {
    /// Before its batch began.
    pub queue: f64,
    /// Of its batch.
    pub compute: f64,
    /// From acceptance to answer.
    pub total: f64,
}

/// One prediction.
#[derive(Debug, Serialize)]
pub struct RowView<'a> {
    /// Its number.
    pub prediction_id: String,
    /// Its series.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub series: Option<&'a str>,
    /// In its stream.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seq: Option<u64>,
    /// In its stream.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub epoch: Option<u64>,
    /// What it was made of.
    pub y: &'a [f32],
    /// See [`peregrine_shaders::Windows`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mask: Option<&'a [f32]>,
    /// See [`peregrine_shaders::Windows`].
    #[serde(skip_serializing_if = "<[f32]>::is_empty")]
    pub hist_exog: &'a [f32],
    /// See [`peregrine_shaders::Windows`].
    #[serde(skip_serializing_if = "<[f32]>::is_empty")]
    pub futr_exog: &'a [f32],
    /// See [`peregrine_shaders::Windows`].
    #[serde(skip_serializing_if = "<[f32]>::is_empty")]
    pub stat_exog: &'a [f32],
    /// What was answered, all columns of the model.
    pub forecast: &'a [f32],
}

impl<'a> View<'a> {
    /// Of what was found.
    #[must_use]
    pub fn of(located: &'a Located) -> Self {
        let Located { segment, at, record, rows, others, is_intact } = located;
        let millis = |took: Duration| took.as_secs_f64() * 1e3;
        let (sha256, precision) = Precision::of_digest(&record.digest);
        Self {
            segment: *segment,
            at: *at,
            intact: *is_intact,
            at_ms: record.at_ms,
            request: &record.request,
            caller: &record.caller,
            model: &record.model,
            model_version: record.version.to_string(),
            sha256,
            precision: precision.name(),
            backend: record.backend.name(),
            degraded: record.degraded,
            node: &record.node,
            region: &record.region,
            remote: record.is_remote,
            timing_ms: TimingView {
                queue: millis(record.queue),
                compute: millis(record.compute),
                total: millis(record.took),
            },
            batch_rows: record.batch_rows,
            window_sha256: record.window_hash.to_string(),
            rows_count: record.windows.rows,
            rows: rows.iter().map(|row| RowView::of(record, *row)).collect(),
            others: others.iter().map(ToString::to_string).collect(),
        }
    }
}

impl<'a> RowView<'a> {
    fn of(record: &'a Record, row: usize) -> Self {
        let windows = &record.windows;
        let part = |all: &'a [f32]| {
            let len = all.len() / windows.rows.max(1);
            all.get(row * len..(row + 1) * len).unwrap_or_default()
        };
        let name = record.rows.get(row);
        let position = name.and_then(|name| name.position);
        Self {
            prediction_id: record.ids.row(row).to_string(),
            series: name.map(|name| &*name.series),
            seq: position.map(|position| position.seq),
            epoch: position.map(|position| position.epoch),
            y: part(&windows.y),
            mask: windows.mask.as_deref().map(part),
            hist_exog: part(&windows.hist_exog),
            futr_exog: part(&windows.futr_exog),
            stat_exog: part(&windows.stat_exog),
            forecast: part(&record.values),
        }
    }
}
