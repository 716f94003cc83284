//! What is recorded of a prediction, and its bytes: enough to compute it again, bit for bit.
//!
//! One request is one record, whatever its rows. The windows come first, copied before they are handed to a device; the
//! rest is added when the answer is there.

use std::time::Duration;

use peregrine_shaders::{Backend, Windows};

use super::codec::{
    FORMER_RECORD, RECORD, Reader, RecordError, put_floats, put_text, put_u32, put_u64, u32_at,
};
use super::id::{PredictionId, PredictionIds, key_of_number, key_of_text, split_epoch};
use super::link::{Link, sha256};
use crate::request::{Forecast, ServedBy};

/// A prediction as it was made.
#[derive(Clone, Debug, PartialEq)]
pub struct Record {
    /// Of its rows.
    pub ids: PredictionIds,
    /// What the caller called the request; empty: nothing.
    pub request: String,
    /// The model.
    pub model: String,
    /// By row; empty: the caller named none.
    pub rows: Vec<RowName>,
    /// When it was answered, in milliseconds since 1970.
    pub at_ms: u64,
    /// Name of the caller's key; empty: none was shown.
    pub caller: String,
    /// Of the model.
    pub version: u32,
    /// Hex SHA-256 of the weights.
    pub digest: String,
    /// The kind of device that computed it.
    pub backend: Backend,
    /// The CPU stood in for a GPU.
    pub degraded: bool,
    /// Another node than the one that recorded it has computed it.
    pub is_remote: bool,
    /// The node that computed it.
    pub node: String,
    /// Where that is.
    pub region: String,
    /// Where the time went: see [`Timing`](crate::Timing).
    pub queue: Duration,
    /// Of its batch.
    pub compute: Duration,
    /// Of its batch.
    pub batch_rows: u64,
    /// From acceptance to answer.
    pub took: Duration,
    /// The answer, `[rows, h, C]` or `[rows, h, N, C]`.
    pub values: Vec<f32>,
    /// What was asked.
    pub windows: Windows,
    /// SHA-256 of their counts and numbers, as they stand here.
    pub window_hash: Link,
}

/// What a row is called.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RowName {
    /// Its series.
    pub series: std::sync::Arc<str>,
    /// In its stream, if it belongs to one.
    pub position: Option<Position>,
}

/// Where a prediction stands in its stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position {
    /// Number of the window that it was made from.
    pub seq: u64,
    /// Under which possession of the series.
    pub epoch: u64,
}

/// What a record's bytes hold besides the windows and the answer.
pub(super) struct Finish<'a> {
    pub(super) ids: PredictionIds,
    pub(super) request: &'a str,
    pub(super) rows: &'a [RowName],
    pub(super) caller: &'a str,
    pub(super) digest: &'a str,
    pub(super) node: &'a str,
    pub(super) region: &'a str,
    pub(super) at_ms: u64,
    pub(super) took: Duration,
}

/// Begins a body with the windows.
pub(super) fn begin(windows: &Windows, capacity: usize) -> Vec<u8> {
    let mut out = Vec::with_capacity(capacity);
    out.push(RECORD);
    put_u32(&mut out, windows.rows as u32);
    put_u32(&mut out, windows.y.len() as u32);
    put_u32(&mut out, windows.mask.as_ref().map_or(u32::MAX, |mask| mask.len() as u32));
    let exogenous = [&windows.hist_exog, &windows.futr_exog, &windows.stat_exog];
    exogenous.iter().for_each(|part| put_u32(&mut out, part.len() as u32));
    put_floats(&mut out, &windows.y);
    windows.mask.iter().for_each(|mask| put_floats(&mut out, mask));
    exogenous.iter().for_each(|part| put_floats(&mut out, part));
    out
}

/// Ends a body with the answer.
pub(super) fn finish(out: &mut Vec<u8>, forecast: &Forecast, rest: &Finish<'_>) {
    let (is_remote, node, region) = match &forecast.served_by {
        ServedBy::Here => (false, rest.node, rest.region),
        ServedBy::Peer { node, region, .. } => (true, node.as_str(), region.as_str()),
    };
    let rows = forecast.values.len() / forecast.spec.answer_len().max(1);
    put_u64(out, rest.ids.run);
    put_u64(out, rest.ids.first);
    put_u32(out, rows as u32);
    put_text(out, rest.request);
    put_text(out, &forecast.spec.name);
    put_u32(out, rest.rows.len() as u32);
    for row in rest.rows {
        put_text(out, &row.series);
        out.push(u8::from(row.position.is_some()));
        if let Some(position) = row.position {
            put_u64(out, position.seq);
            put_u64(out, position.epoch);
        }
    }
    put_u64(out, rest.at_ms);
    put_text(out, rest.caller);
    put_u32(out, forecast.version);
    put_text(out, rest.digest);
    out.push(u8::from(forecast.backend == Backend::Gpu));
    out.push(u8::from(forecast.degraded));
    out.push(u8::from(is_remote));
    put_text(out, node);
    put_text(out, region);
    let timing = &forecast.timing;
    for number in [nanos(timing.queue), nanos(timing.compute), timing.batch_rows as u64, nanos(rest.took)] {
        put_u64(out, number);
    }
    put_u32(out, forecast.values.len() as u32);
    put_floats(out, &forecast.values);
}

/// Bytes of a body, or a little more: what is reserved before it is known.
pub(super) fn room_for(windows: &Windows, answer_len: usize, request: &str, rows: &[RowName]) -> usize {
    const REST: usize = 448;
    let mask = windows.mask.as_ref().map_or(0, Vec::len);
    let exogenous = windows.hist_exog.len() + windows.futr_exog.len() + windows.stat_exog.len();
    let numbers = windows.y.len() + mask + exogenous + windows.rows.saturating_mul(answer_len);
    let names: usize = rows.iter().map(|row| row.series.len() + 21).sum();
    numbers.saturating_mul(4).saturating_add(names + request.len() + REST)
}

impl Record {
    /// Reads a body.
    ///
    /// # Errors
    /// When it is none of this build's records.
    pub fn decode(body: &[u8]) -> Result<Self, RecordError> {
        let (inputs, window_hash, mut reader) = parts(body)?;
        let window_hash = window_hash.unwrap_or_else(|| sha256(&[inputs]));
        let mut inputs = Reader::new(inputs);
        let rows_len = inputs.u32()? as usize;
        let y_len = inputs.u32()? as usize;
        let mask_len = inputs.u32()?;
        let [hist, futr, stat] = [inputs.u32()? as usize, inputs.u32()? as usize, inputs.u32()? as usize];
        let y = inputs.floats(y_len)?;
        let mask = if mask_len == u32::MAX { None } else { Some(inputs.floats(mask_len as usize)?) };
        let windows = Windows {
            rows: rows_len,
            y,
            mask,
            hist_exog: inputs.floats(hist)?,
            futr_exog: inputs.floats(futr)?,
            stat_exog: inputs.floats(stat)?,
        };
        inputs.end()?;
        // Every row has numbers: what counts rows is bounded by bytes that came.
        if rows_len > y_len {
            return Err(RecordError::Short);
        }
        let (ids, _) = ids(&mut reader)?;
        let (request, model) = (reader.text()?.to_owned(), reader.text()?.to_owned());
        let count = reader.u32()? as usize;
        let mut rows = Vec::with_capacity(count.min(reader.count_max(5)));
        for _ in 0..count {
            let (series, position) = row(&mut reader)?;
            rows.push(RowName { series: series.into(), position });
        }
        let at_ms = reader.u64()?;
        let caller = reader.text()?.to_owned();
        let version = reader.u32()?;
        let digest = reader.text()?.to_owned();
        let backend = if reader.flag("backend")? { Backend::Gpu } else { Backend::Cpu };
        let (degraded, is_remote) = (reader.flag("degraded")?, reader.flag("remote")?);
        let (node, region) = (reader.text()?.to_owned(), reader.text()?.to_owned());
        let queue = Duration::from_nanos(reader.u64()?);
        let compute = Duration::from_nanos(reader.u64()?);
        let batch_rows = reader.u64()?;
        let took = Duration::from_nanos(reader.u64()?);
        let values_len = reader.u32()? as usize;
        let values = reader.floats(values_len)?;
        reader.end()?;
        Ok(Self {
            ids,
            request,
            model,
            rows,
            at_ms,
            caller,
            version,
            digest,
            backend,
            degraded,
            is_remote,
            node,
            region,
            queue,
            compute,
            batch_rows,
            took,
            values,
            windows,
            window_hash,
        })
    }

    /// The rows that are called so: that of a prediction's number, all of a request, one of a stream.
    #[must_use]
    pub fn rows_called(&self, name: &str) -> Vec<usize> {
        if !self.request.is_empty() && self.request == name {
            return (0..self.windows.rows).collect();
        }
        let number: Option<PredictionId> = name.parse().ok();
        let (of_any_epoch, epoch) = split_epoch(name);
        let is_row = |row: &usize| {
            Some(self.ids.row(*row)) == number
                || self.stream_name(*row).is_some_and(|of_stream| match epoch {
                    Some(_) => of_stream == of_any_epoch && self.epoch(*row) == epoch,
                    None => of_stream == name,
                })
        };
        (0..self.windows.rows).filter(is_row).collect()
    }

    /// What a row of a stream is called: `model/series#seq`.
    #[must_use]
    pub fn stream_name(&self, row: usize) -> Option<String> {
        let row = self.rows.get(row)?;
        row.position.map(|position| format!("{}/{}#{}", self.model, row.series, position.seq))
    }

    fn epoch(&self, row: usize) -> Option<u64> {
        Some(self.rows.get(row)?.position?.epoch)
    }
}

/// The keys under which a record stands in an index; nothing of what is no record. Allocates for no row.
pub(super) fn keys(body: &[u8], mut each: impl FnMut(u64)) -> Result<(), RecordError> {
    if !is_record(body) {
        return Ok(());
    }
    let (_, _, mut reader) = parts(body)?;
    let (ids, rows) = ids(&mut reader)?;
    for row in 0..rows {
        each(key_of_number(ids.row(row as usize)));
    }
    let request = reader.text()?;
    if !request.is_empty() {
        each(key_of_text(&[request]));
    }
    let model = reader.text()?;
    for _ in 0..reader.u32()? {
        let (series, position) = row(&mut reader)?;
        if let Some(position) = position {
            each(key_of_text(&[model, "/", series, "#", &position.seq.to_string()]));
        }
    }
    Ok(())
}

/// Is this body a prediction's?
#[must_use]
pub fn is_record(body: &[u8]) -> bool {
    matches!(body.first(), Some(&(RECORD | FORMER_RECORD)))
}

/// The windows, their hash if it is there, and the rest.
fn parts(body: &[u8]) -> Result<(&[u8], Option<Link>, Reader<'_>), RecordError> {
    let mut reader = Reader::new(body);
    match reader.u8()? {
        RECORD => {
            let len = windows_bytes(&body[1..]).ok_or(RecordError::Short)?;
            Ok((reader.take(len)?, None, reader))
        }
        FORMER_RECORD => {
            let len = reader.u32()? as usize;
            let inputs = reader.take(len)?;
            let hash = reader.take(32)?.try_into().map_err(|_| RecordError::Short)?;
            Ok((inputs, Some(Link(hash)), reader))
        }
        code => Err(RecordError::Code { what: "record", code }),
    }
}

/// How long the windows are that begin here: six counts, and the numbers of all but the first.
fn windows_bytes(bytes: &[u8]) -> Option<usize> {
    let count = |place: usize| u32_at(bytes, place * 4).map(|count| count as usize);
    let mask = count(2).filter(|mask| *mask != u32::MAX as usize);
    let counts = [count(1)?, mask.unwrap_or(0), count(3)?, count(4)?, count(5)?];
    let numbers = counts.iter().try_fold(0_usize, |sum, count| sum.checked_add(*count))?;
    numbers.checked_mul(4)?.checked_add(24)
}

fn ids(reader: &mut Reader<'_>) -> Result<(PredictionIds, u32), RecordError> {
    let ids = PredictionIds { run: reader.u64()?, first: reader.u64()? };
    // As many as the answer has; no more than a number of four bytes each can have come.
    let rows = reader.u32()?;
    if rows as usize > reader.count_max(4) {
        return Err(RecordError::Short);
    }
    Ok((ids, rows))
}

fn row<'a>(reader: &mut Reader<'a>) -> Result<(&'a str, Option<Position>), RecordError> {
    let series = reader.text()?;
    let position = match reader.flag("position")? {
        true => Some(Position { seq: reader.u64()?, epoch: reader.u64()? }),
        false => None,
    };
    Ok((series, position))
}

fn nanos(took: Duration) -> u64 {
    crate::status::nanos(took)
}
