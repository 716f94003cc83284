//! Predictions once more: what a stream carried is made again from the log of its series.
//!
//! Nothing is kept for that beside the log, and the CPU path gives the same bits again.

use std::ops::RangeInclusive;
use std::sync::Arc;

use peregrine_runtime::Deadline;
use peregrine_shaders::{ModelSpec, Windows};

use super::predict::{come_back, gap};
use super::room::Series;
use super::window::joined;
use super::{History, Pattern, SeriesName, Shard, Timestamp, Unready};
use crate::request::{Forecast, ForecastError, ForecastRequest, Subject};
use crate::stream::{GapReason, Prediction, SourceError, StreamEvent, StreamId};

/// Predictions that a listing makes at most.
const NEWEST_MAX: usize = 10_000;

/// A prediction to make.
struct Blank {
    series: SeriesName,
    seq: u64,
    epoch: u64,
    position: u64,
    last: Timestamp,
    accepted_at: Option<Timestamp>,
    windows: Windows,
}

impl Series {
    /// What a stream of a series that this node owns carried from a number on, as [`Source::replay`] promises.
    ///
    /// [`Source::replay`]: crate::stream::Source::replay
    ///
    /// # Errors
    /// The series is not owned here, or the model cannot forecast now.
    pub async fn replay(
        &self,
        stream: &StreamId,
        from: u64,
        deadline: Deadline,
    ) -> Result<Vec<StreamEvent>, SourceError> {
        let spec = self.spec(&stream.model, deadline).await?;
        let inner = &self.inner;
        let mut events = Vec::new();
        let mut blanks = Vec::new();
        {
            let place = &inner.places[usize::from(self.shard_of(&stream.series))];
            if *place.ready.borrow() == 0 {
                return Err(SourceError::Unavailable("the series is being taken over".to_owned()));
            }
            let held = place.held.lock();
            let history = match held.shard.get(&stream.series) {
                Some(history) => history,
                // Whoever goes on there was told by an owner that took what it knew with it.
                None if from > 1 => return Ok(vec![StreamEvent::Gap(gap(stream, from, 0, GapReason::Lost))]),
                None => return Err(SourceError::UnknownSeries(stream.series.to_string())),
            };
            let newest = history.seq();
            let is_ahead = from > newest.saturating_add(1);
            let (asked, from) = (from, if is_ahead { newest } else { from }.max(1));
            let kept = (newest + 1).saturating_sub(inner.settings.replay_max as u64).max(history.first_seq());
            let first = from.max(kept);
            let mut tell = |from: u64, to: u64, reason| {
                if from <= to {
                    events.push(StreamEvent::Gap(gap(stream, from, to, reason)));
                }
            };
            // No stream had begun there, whatever is kept.
            let short = history.short_until(spec.window);
            tell(from, short.min(first - 1), GapReason::Failed);
            tell(from.max(short + 1), first - 1, GapReason::Expired);
            for seq in first..=newest {
                match Blank::new(&held.shard, history, &stream.series, seq, &spec) {
                    Ok(blank) => blanks.push(blank),
                    Err(Unready::Short { .. } | Unready::Expired) if seq > short => {
                        tell(seq, seq, GapReason::Expired);
                    }
                    Err(_) => tell(seq, seq, GapReason::Failed),
                }
            }
            if is_ahead {
                // The numbers have begun again: what came under the one asked for is gone with who gave it.
                let begins = blanks.first().map_or(newest + 1, |blank| blank.seq);
                events = vec![StreamEvent::Gap(gap(stream, asked, begins - 1, GapReason::Lost))];
            }
        }
        events.extend(self.forecast_all(&stream.model, blanks, deadline).await?);
        // One that ends below where it starts comes first.
        events.sort_by_key(|event| *seq_of(event).start().min(seq_of(event).end()));
        Ok(merged(events))
    }

    /// The newest prediction of each series that this node owns and a pattern means; series that the model cannot
    /// forecast as they are do not appear.
    ///
    /// # Errors
    /// The model cannot forecast now.
    pub async fn newest(
        &self,
        model: &str,
        pattern: &Pattern,
        deadline: Deadline,
    ) -> Result<Vec<Arc<Prediction>>, SourceError> {
        let model: Arc<str> = model.into();
        let spec = self.spec(&model, deadline).await?;
        let mut blanks = Vec::new();
        for name in self.names(pattern).into_iter().take(NEWEST_MAX) {
            let held = self.inner.places[usize::from(self.shard_of(&name))].held.lock();
            let Some(history) = held.shard.get(&name) else { continue };
            blanks.extend(Blank::new(&held.shard, history, &name, history.seq(), &spec));
        }
        let made = self.forecast_all(&model, blanks, deadline).await?;
        let predictions = made.into_iter().filter_map(|event| match event {
            StreamEvent::Prediction(prediction) => Some(prediction),
            StreamEvent::Gap(_) => None,
        });
        Ok(predictions.collect())
    }

    /// Whether a model can follow a series at all.
    ///
    /// # Errors
    /// [`SourceError::Unsuitable`], which says why not.
    pub fn suits(&self, spec: &ModelSpec) -> Result<(), SourceError> {
        let ModelSpec { name, window, series, .. } = spec;
        let kept = self.inner.settings.limits.history;
        if *series != 1 {
            return Err(SourceError::Unsuitable(format!("model `{name}` forecasts {series} series at once")));
        }
        if *window > kept {
            return Err(SourceError::Unsuitable(format!(
                "the window of model `{name}` is {window} observations, and {kept} are kept of a series: the operator \
                 raises series.history"
            )));
        }
        Ok(())
    }

    async fn spec(&self, model: &Arc<str>, deadline: Deadline) -> Result<Arc<ModelSpec>, SourceError> {
        let spec = match self.inner.shape(model) {
            Some(spec) => spec,
            None => match self.inner.system.locate(model, None, deadline).await {
                Ok(found) => Arc::clone(&found.spec),
                Err(ForecastError::UnknownModel(model)) => return Err(SourceError::UnknownModel(model)),
                Err(other) => return Err(SourceError::Unavailable(other.to_string())),
            },
        };
        self.suits(&spec)?;
        Ok(spec)
    }

    /// A prediction for each window, or a gap where the forecast is not finite.
    async fn forecast_all(
        &self,
        model: &Arc<str>,
        mut blanks: Vec<Blank>,
        deadline: Deadline,
    ) -> Result<Vec<StreamEvent>, SourceError> {
        let inner = &self.inner;
        let mut events = Vec::with_capacity(blanks.len());
        while !blanks.is_empty() {
            let rows = blanks.len().min(inner.settings.rows_max);
            let windows = joined(blanks[..rows].iter().map(|blank| &blank.windows));
            let windows = windows.ok_or_else(|| SourceError::Unavailable("the model changes".to_owned()))?;
            let request = ForecastRequest::new(model.to_string(), windows, deadline);
            let request = ForecastRequest { subject: Subject::Again, ..request };
            match inner.system.forecast(request).await {
                Ok(forecast) => {
                    let made_at = Timestamp::from(inner.clock.wall());
                    events.extend(predictions(model, &forecast, blanks.drain(..rows), made_at));
                }
                Err(ForecastError::NotFinite { row }) if row < rows => {
                    let bad = blanks.remove(row);
                    let stream = StreamId { model: Arc::clone(model), series: bad.series };
                    events.push(StreamEvent::Gap(gap(&stream, bad.seq, bad.seq, GapReason::Failed)));
                }
                Err(ForecastError::Overloaded { retry_after_ms }) if !deadline.expired(inner.clock.now()) => {
                    come_back(retry_after_ms, deadline, &*inner.clock).await;
                }
                Err(failed) => return Err(SourceError::Unavailable(failed.to_string())),
            }
        }
        Ok(events)
    }
}

impl Blank {
    fn new(
        shard: &Shard,
        history: &History,
        series: &SeriesName,
        seq: u64,
        spec: &ModelSpec,
    ) -> Result<Self, Unready> {
        Ok(Self {
            series: series.clone(),
            seq,
            epoch: history.epoch(seq).unwrap_or(0),
            position: history.position_at(seq).unwrap_or(0),
            last: history.last(seq).unwrap_or(Timestamp(0)),
            accepted_at: shard.accepted_at(series, seq),
            windows: history.window(seq, spec)?,
        })
    }
}

fn predictions(
    model: &Arc<str>,
    forecast: &Forecast,
    blanks: impl Iterator<Item = Blank>,
    made_at: Timestamp,
) -> Vec<StreamEvent> {
    let backend: Arc<str> = forecast.backend_label().into();
    let values = forecast.values.chunks_exact(forecast.spec.answer_len());
    let one = |(blank, values): (Blank, &[f32])| {
        StreamEvent::Prediction(Arc::new(Prediction {
            stream: StreamId { model: Arc::clone(model), series: blank.series },
            seq: blank.seq,
            epoch: blank.epoch,
            position: blank.position,
            last: blank.last,
            accepted_at: blank.accepted_at,
            made_at,
            spec: Arc::clone(&forecast.spec),
            version: forecast.version,
            values: values.into(),
            backend: Arc::clone(&backend),
            degraded: forecast.degraded,
        }))
    };
    blanks.zip(values).map(one).collect()
}

/// The numbers that an event is about.
fn seq_of(event: &StreamEvent) -> RangeInclusive<u64> {
    match event {
        StreamEvent::Prediction(prediction) => prediction.seq..=prediction.seq,
        StreamEvent::Gap(gap) => gap.from..=gap.to,
    }
}

/// Neighbouring gaps of one reason as one.
fn merged(events: Vec<StreamEvent>) -> Vec<StreamEvent> {
    let mut all: Vec<StreamEvent> = Vec::with_capacity(events.len());
    for event in events {
        if let (Some(StreamEvent::Gap(before)), StreamEvent::Gap(next)) = (all.last_mut(), &event)
            && before.reason == next.reason
            && before.to + 1 == next.from
        {
            before.to = next.to;
        } else {
            all.push(event);
        }
    }
    all
}
