//! What nodes say to each other about series, as bytes.
//!
//! Everything here comes from the network; what it becomes is checked by the domain's own constructors.

use std::sync::Arc;

use peregrine_actors::Trace;
use peregrine_actors::series::{
    Effect, JournalEntry, LogEnd, Pattern, SeriesEntry, SeriesLog, SeriesName, Taken, Tick, TickError,
    Timestamp,
};
use peregrine_actors::stream::{Gap, GapReason, Prediction, SourceError, StreamEvent, StreamId};
use peregrine_runtime::remote_message;
use peregrine_shaders::ModelSpec;
use serde::{Deserialize, Serialize};

/// Text in an answer is cut to this, so that answers stay as small as questions.
const WHY_BYTES_MAX: usize = 64;

/// To the owner of a shard.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum ShardAsk {
    /// Take these, all of one shard.
    Ticks(Vec<WireTick>),
    /// Say who you are.
    Where,
    /// As `Ticks`, of a trace that is recorded: its id, and that of the span that asks. Nodes that do not know it
    /// refuse it, and are sent `Ticks`.
    Traced(Vec<WireTick>, [u8; 16], [u8; 8]),
    /// As `Traced`, with the `tracestate` that goes along. Nodes that do not know it refuse it, and are sent `Traced`.
    Stated(Vec<WireTick>, [u8; 16], [u8; 8], String),
}

/// What the owner says.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum ShardAnswer {
    /// One for each tick, in order.
    Effects(Vec<WireEffect>),
    /// The owner's name.
    Here(String),
    /// It is not ready in time.
    NotReady,
}

impl actix::Message for ShardAsk {
    type Result = ShardAnswer;
}

remote_message!(ShardAsk, "series.shard", version 1, up to 32_768 bytes, lane Ask);

/// From node to node.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum NodeAsk {
    /// Hold these parts of logs.
    Replicate { shard: u16, epoch: u64, logs: Vec<WireLog> },
    /// How far do your logs go?
    Ends { shard: u16, epoch: u64 },
    /// All you have of these.
    Fetch { shard: u16, series: Vec<String> },
    /// I want these predictions: model and pattern; all of them.
    Want { node: String, wanted: Vec<(String, String)> },
    /// Predictions that you want.
    Deliver(Vec<WireEvent>),
    /// Predictions of a stream once more.
    Replay { model: String, series: String, from: u64 },
    /// The newest predictions of series that you own.
    Newest { model: String, pattern: String },
    /// All you have of a series that you own.
    Log { series: String },
    /// The first series that you own after a name. Nodes that do not know it refuse it.
    List { pattern: String, after: Option<String>, count_max: u32 },
}

/// The answer to a [`NodeAsk`].
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum NodeAnswer {
    /// By series; the number up to which it is held, or none if it did not fit.
    Taken(Vec<(String, Option<u64>)>),
    /// Series, number and epoch.
    Ends(Vec<(String, u64, u64)>),
    /// Whole logs.
    Logs(Vec<WireLog>),
    /// Done.
    Done,
    /// Predictions.
    Events(Vec<WireEvent>),
    /// There is a later owner.
    Fenced,
    /// A stream cannot be had.
    Refused(WireSourceError),
    /// Something is wrong with the disk, or with the question.
    Failed(String),
    /// Series, and of how many shards they are.
    Listed(Vec<WireEntry>, u16),
}

/// A series and how far it goes.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct WireEntry {
    name: String,
    seq: u64,
    kept: u64,
    first: i64,
    last: i64,
}

/// Small ones, and what is waited for.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Ask(pub(super) NodeAsk);

/// Large ones.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct AskBulk(pub(super) NodeAsk);

impl actix::Message for Ask {
    type Result = NodeAnswer;
}

impl actix::Message for AskBulk {
    type Result = NodeAnswer;
}

remote_message!(Ask, "series.ask", version 1, up to 4_194_304 bytes, lane Ask);
remote_message!(AskBulk, "series.bulk", version 1, up to 33_554_432 bytes, lane Bulk);

/// A tick.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct WireTick {
    series: String,
    row: WireRow,
}

/// A part of a log. What goes on from the one before it in a message, of the same series and of higher numbers, is part of
/// that log: what came under the numbers between has been given up. Nodes that do not know this take it for the whole.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct WireLog {
    series: String,
    first: u64,
    after: Option<u64>,
    ticks: Vec<(u64, WireRow)>,
}

/// A tick without the name of its series.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct WireRow {
    at: i64,
    value: Option<f32>,
    hist_exog: Vec<(String, f32)>,
    futr_exog: Vec<(String, Vec<f32>)>,
    stat_exog: Vec<(String, f32)>,
}

/// What a tick did, or why it was not taken.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) enum WireEffect {
    Advanced(u64),
    Inserted(u64),
    Duplicate(u64),
    Conflict(u64),
    TooLate(u64),
    Invalid(String),
    Overloaded(u32),
    Unavailable(String),
    /// Series of its shard. Nodes that do not know it cannot read the answer, and ask again.
    Full(u64),
}

/// Of a stream.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) enum WireEvent {
    Prediction(WirePrediction),
    Gap { model: String, series: String, from: u64, to: u64, reason: u8 },
}

/// A prediction; its shape is that of its model's version.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct WirePrediction {
    pub(super) model: String,
    series: String,
    seq: u64,
    epoch: u64,
    position: u64,
    last: i64,
    /// That of `made_at` where it is not known.
    accepted_at: i64,
    made_at: i64,
    pub(super) version: u32,
    values: Vec<f32>,
    backend: String,
    degraded: bool,
}

/// Why a stream cannot be had.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) enum WireSourceError {
    UnknownModel(String),
    UnknownSeries(String),
    Unsuitable(String),
    Unavailable(String),
}

/// What came says something impossible.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Impossible;

const REASONS: [GapReason; 4] =
    [GapReason::Conflated, GapReason::Expired, GapReason::Failed, GapReason::Lost];

fn short(text: &str) -> String {
    text[..text.floor_char_boundary(WHY_BYTES_MAX)].to_owned()
}

pub(super) fn name(text: &str) -> Result<SeriesName, Impossible> {
    SeriesName::new(text).map_err(|_| Impossible)
}

pub(super) fn names(texts: &[String]) -> Result<Vec<SeriesName>, Impossible> {
    texts.iter().map(|text| name(text)).collect()
}

pub(super) fn stream(model: &str, series: &str) -> Result<StreamId, Impossible> {
    Ok(StreamId { model: model.into(), series: name(series)? })
}

pub(super) fn wanted(pairs: &[(String, String)]) -> Result<Vec<(Arc<str>, Pattern)>, Impossible> {
    let pair = |(model, pattern): &(String, String)| {
        Ok((model.as_str().into(), Pattern::new(pattern).map_err(|_| Impossible)?))
    };
    pairs.iter().map(pair).collect()
}

impl From<Tick> for WireRow {
    fn from(tick: Tick) -> Self {
        let Tick { at, value, hist_exog, futr_exog, stat_exog, .. } = tick;
        Self { at: at.0, value, hist_exog, futr_exog, stat_exog }
    }
}

impl WireRow {
    fn of(self, series: SeriesName) -> Tick {
        let Self { at, value, hist_exog, futr_exog, stat_exog } = self;
        Tick { series, at: Timestamp(at), value, hist_exog, futr_exog, stat_exog, trace: Trace::default() }
    }
}

impl From<Tick> for WireTick {
    fn from(tick: Tick) -> Self {
        Self { series: tick.series.as_str().to_owned(), row: tick.into() }
    }
}

impl TryFrom<WireTick> for Tick {
    type Error = Impossible;

    fn try_from(tick: WireTick) -> Result<Self, Impossible> {
        Ok(tick.row.of(name(&tick.series)?))
    }
}

impl From<SeriesEntry> for WireEntry {
    fn from(entry: SeriesEntry) -> Self {
        let SeriesEntry { name, seq, kept, first, last } = entry;
        Self { name: name.as_str().to_owned(), seq, kept: kept as u64, first: first.0, last: last.0 }
    }
}

impl TryFrom<WireEntry> for SeriesEntry {
    type Error = Impossible;

    fn try_from(entry: WireEntry) -> Result<Self, Impossible> {
        let WireEntry { name: text, seq, kept, first, last } = entry;
        let kept = usize::try_from(kept).map_err(|_| Impossible)?;
        Ok(Self { name: name(&text)?, seq, kept, first: Timestamp(first), last: Timestamp(last) })
    }
}

/// Logs as they are said.
pub(super) fn said(logs: Vec<SeriesLog>) -> Vec<WireLog> {
    let mut all: Vec<WireLog> = Vec::with_capacity(logs.len());
    for log in logs {
        let series = log.series.as_str().to_owned();
        let mut after = log.after;
        let mut next = None;
        for JournalEntry { seq, epoch, tick } in log.ticks {
            if next != Some(seq) {
                let after = after.take();
                all.push(WireLog { series: series.clone(), first: seq, after, ticks: Vec::new() });
            }
            if let Some(part) = all.last_mut() {
                part.ticks.push((epoch, tick.into()));
            }
            next = Some(seq + 1);
        }
    }
    all
}

/// Logs as they were said.
pub(super) fn heard(parts: Vec<WireLog>) -> Result<Vec<SeriesLog>, Impossible> {
    let mut all: Vec<SeriesLog> = Vec::with_capacity(parts.len());
    for WireLog { series, first, after, ticks } in parts {
        let series = name(&series)?;
        // Numbers of ticks are counted from the first.
        first.checked_add(ticks.len() as u64).ok_or(Impossible)?;
        let entry = |(seq, (epoch, row)): (u64, (u64, WireRow))| JournalEntry {
            seq,
            epoch,
            tick: row.of(series.clone()),
        };
        let entries = (first..).zip(ticks).map(entry);
        let goes_on = |log: &&mut SeriesLog| {
            log.series == series && after.is_none() && log.ticks.last().is_some_and(|last| last.seq < first)
        };
        match all.last_mut().filter(goes_on) {
            Some(log) => log.ticks.extend(entries),
            None => {
                let ticks = entries.collect();
                all.push(SeriesLog { series, after, ticks });
            }
        }
    }
    Ok(all)
}

impl From<Result<Effect, TickError>> for WireEffect {
    fn from(effect: Result<Effect, TickError>) -> Self {
        match effect {
            Ok(Effect::Advanced { seq }) => Self::Advanced(seq),
            Ok(Effect::Inserted { seq }) => Self::Inserted(seq),
            Ok(Effect::Duplicate { seq }) => Self::Duplicate(seq),
            Ok(Effect::Conflict { seq }) => Self::Conflict(seq),
            Ok(Effect::TooLate { seq }) => Self::TooLate(seq),
            Err(TickError::Invalid(why)) => Self::Invalid(short(&why)),
            Err(TickError::Overloaded { retry_after_ms }) => Self::Overloaded(retry_after_ms),
            // Whoever asks an owner finds out by itself that there can be none.
            Err(TickError::Unavailable(why) | TickError::NoQuorum(why)) => Self::Unavailable(short(&why)),
            Err(TickError::Full { series_max }) => Self::Full(series_max as u64),
        }
    }
}

impl From<WireEffect> for Result<Effect, TickError> {
    fn from(effect: WireEffect) -> Self {
        Ok(match effect {
            WireEffect::Advanced(seq) => Effect::Advanced { seq },
            WireEffect::Inserted(seq) => Effect::Inserted { seq },
            WireEffect::Duplicate(seq) => Effect::Duplicate { seq },
            WireEffect::Conflict(seq) => Effect::Conflict { seq },
            WireEffect::TooLate(seq) => Effect::TooLate { seq },
            WireEffect::Invalid(why) => return Err(TickError::Invalid(why)),
            WireEffect::Overloaded(retry_after_ms) => return Err(TickError::Overloaded { retry_after_ms }),
            WireEffect::Unavailable(why) => return Err(TickError::Unavailable(why)),
            WireEffect::Full(series_max) => {
                let series_max = usize::try_from(series_max).unwrap_or(usize::MAX);
                return Err(TickError::Full { series_max });
            }
        })
    }
}

impl From<&StreamEvent> for WireEvent {
    fn from(event: &StreamEvent) -> Self {
        match event {
            StreamEvent::Prediction(prediction) => Self::Prediction((&**prediction).into()),
            StreamEvent::Gap(gap) => Self::Gap {
                model: gap.stream.model.to_string(),
                series: gap.stream.series.as_str().to_owned(),
                from: gap.from,
                to: gap.to,
                reason: REASONS.iter().position(|reason| *reason == gap.reason).unwrap_or(0) as u8, // one of four
            },
        }
    }
}

impl From<&Prediction> for WirePrediction {
    fn from(prediction: &Prediction) -> Self {
        Self {
            model: prediction.stream.model.to_string(),
            series: prediction.stream.series.as_str().to_owned(),
            seq: prediction.seq,
            epoch: prediction.epoch,
            position: prediction.position,
            last: prediction.last.0,
            accepted_at: prediction.accepted_at.unwrap_or(prediction.made_at).0,
            made_at: prediction.made_at.0,
            version: prediction.version,
            values: prediction.values.to_vec(),
            backend: prediction.backend.to_string(),
            degraded: prediction.degraded,
        }
    }
}

impl WirePrediction {
    /// With the shape of its model.
    pub(super) fn with(self, spec: Arc<ModelSpec>) -> Result<Prediction, Impossible> {
        if self.values.len() != spec.answer_len() {
            return Err(Impossible);
        }
        Ok(Prediction {
            stream: stream(&self.model, &self.series)?,
            seq: self.seq,
            epoch: self.epoch,
            position: self.position,
            last: Timestamp(self.last),
            accepted_at: (self.accepted_at != self.made_at).then_some(Timestamp(self.accepted_at)),
            made_at: Timestamp(self.made_at),
            spec,
            version: self.version,
            values: self.values.into(),
            backend: self.backend.into(),
            degraded: self.degraded,
        })
    }
}

pub(super) fn gap(model: &str, series: &str, from: u64, to: u64, reason: u8) -> Result<Gap, Impossible> {
    let reason = REASONS.get(usize::from(reason)).copied().ok_or(Impossible)?;
    if from > to {
        return Err(Impossible);
    }
    Ok(Gap { stream: stream(model, series)?, from, to, reason })
}

impl From<SourceError> for WireSourceError {
    fn from(error: SourceError) -> Self {
        match error {
            SourceError::UnknownModel(model) => Self::UnknownModel(model),
            SourceError::UnknownSeries(series) => Self::UnknownSeries(series),
            SourceError::Unsuitable(why) => Self::Unsuitable(why),
            SourceError::Unavailable(why) => Self::Unavailable(why),
        }
    }
}

impl From<WireSourceError> for SourceError {
    fn from(error: WireSourceError) -> Self {
        match error {
            WireSourceError::UnknownModel(model) => Self::UnknownModel(model),
            WireSourceError::UnknownSeries(series) => Self::UnknownSeries(series),
            WireSourceError::Unsuitable(why) => Self::Unsuitable(why),
            WireSourceError::Unavailable(why) => Self::Unavailable(why),
        }
    }
}

pub(super) fn ends(ends: Vec<(String, u64, u64)>) -> Result<Vec<LogEnd>, Impossible> {
    let end = |(series, seq, epoch): (String, u64, u64)| Ok(LogEnd { series: name(&series)?, seq, epoch });
    ends.into_iter().map(end).collect()
}

pub(super) fn taken(taken: Vec<(String, Option<u64>)>) -> Result<Vec<(SeriesName, Taken)>, Impossible> {
    let one = |(series, up_to): (String, Option<u64>)| {
        Ok((name(&series)?, up_to.map_or(Taken::Apart, Taken::UpTo)))
    };
    taken.into_iter().map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_that_leaves_numbers_out_is_one_log_again() {
        let log = |series: &str, after: Option<u64>, seqs: &[u64]| {
            let series = SeriesName::new(series).unwrap();
            let entry = |&seq: &u64| {
                let row = WireRow {
                    at: -(seq as i64),
                    value: Some(1.5),
                    hist_exog: Vec::new(),
                    futr_exog: Vec::new(),
                    stat_exog: Vec::new(),
                };
                JournalEntry { seq, epoch: 1 + seq / 8, tick: row.of(series.clone()) }
            };
            SeriesLog { series: series.clone(), after, ticks: seqs.iter().map(entry).collect() }
        };
        let logs = vec![
            log("a", None, &[1, 2, 7, 8, 9, 20]),
            log("b", None, &[21, 22]),
            log("c", Some(4), &[3, 5]),
            log("c", Some(4), &[9]),
        ];
        let wire = said(logs.clone());
        let parts: Vec<_> = wire.iter().map(|part| (part.first, part.ticks.len(), part.after)).collect();
        let apart = [(1, 2, None), (7, 3, None), (20, 1, None), (21, 2, None)];
        assert_eq!(parts[..4], apart);
        assert_eq!(parts[4..], [(3, 1, Some(4)), (5, 1, None), (9, 1, Some(4))]);
        assert_eq!(heard(wire), Ok(logs));
        // What goes back is another log, and a number past all numbers none.
        let part = |first| WireLog { first, ..said(vec![log("a", None, &[9])]).remove(0) };
        assert_eq!(heard(vec![part(9), part(9)]).map(|logs| logs.len()), Ok(2));
        assert_eq!(heard(vec![part(u64::MAX)]), Err(Impossible));
    }
}
