//! Makes the predictions of a batch of windows, and says so where one could not be made.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::FutureExt as _;
use peregrine_runtime::{Clock, Deadline};
use peregrine_shaders::Windows;
use tracing::{error, warn};

use super::counters::Counters;
use super::parts::Outlet;
use super::tick::Timestamp;
use super::window::joined;
use crate::audit::{Position, RowName};
use crate::release::key_of;
use crate::request::{Forecast, ForecastError, ForecastRequest, Names, Origin, Priority, Subject};
use crate::stream::{Gap, GapReason, Prediction, StreamEvent, StreamId};
use crate::system::System;
use crate::trace::{Done, Trace};

/// A window to be forecast, and for whom.
#[derive(Debug)]
pub(super) struct Work {
    pub(super) stream: StreamId,
    pub(super) nodes: Arc<[Arc<str>]>,
    /// The first number that it is about: `seq`, unless there was nothing to forecast from for longer.
    pub(super) from: u64,
    pub(super) seq: u64,
    pub(super) epoch: u64,
    pub(super) position: u64,
    pub(super) last: Timestamp,
    pub(super) accepted_at: Option<Timestamp>,
    /// Since when it is waited for.
    pub(super) since: Timestamp,
    /// One row; `None`: there is nothing to forecast from, which is told in its turn, after the predictions before it.
    pub(super) windows: Option<Windows>,
    /// Number of the first window that was skipped before this one.
    pub(super) skipped_from: Option<u64>,
    /// The prediction as a piece of its tick, and since when; `None`: the tick is not recorded.
    pub(super) traced: Option<(Trace, Instant)>,
}

impl Work {
    /// Those are told that a stream has no prediction of some numbers.
    pub(super) fn nothing(stream: StreamId, nodes: Arc<[Arc<str>]>, from: u64, seq: u64) -> Self {
        let [last, since] = [Timestamp(0); 2];
        let (accepted_at, windows, skipped_from, traced) = (None, None, None, None);
        Self {
            stream,
            nodes,
            from,
            seq,
            epoch: 0,
            position: 0,
            last,
            accepted_at,
            since,
            windows,
            skipped_from,
            traced,
        }
    }

    /// By what a release chooses the version that answers.
    pub(super) fn key(&self) -> u64 {
        key_of(self.stream.series.as_str())
    }
}

/// What the predictions of one model need.
pub(super) struct Tools {
    pub(super) system: System,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) outlet: Arc<dyn Outlet>,
    pub(super) counters: Arc<Counters>,
    /// Windows of one batch.
    pub(super) rows_max: usize,
    /// Longest that one batch is tried for.
    pub(super) within: Duration,
    /// Makes the work of a stream's newest window, for those that skipped; hands it over before another tick comes.
    pub(super) newest: Newest,
}

pub(super) type Newest = Box<dyn Fn(&StreamId, &mut dyn FnMut(Option<Work>)) + Send + Sync>;

/// Rows of a batch that a version on probation forecasts too.
const PROBE_ROWS_MAX: usize = 16;

/// What the predictions of a batch have in common.
struct Made<'a> {
    forecast: &'a Forecast,
    at: Timestamp,
    backend: Arc<str>,
}

impl<'a> Made<'a> {
    fn of(forecast: &'a Forecast, at: Timestamp) -> Self {
        Self { forecast, at, backend: forecast.backend_label().into() }
    }

    fn prediction(&self, work: &Work, values: &[f32]) -> Prediction {
        Prediction {
            stream: work.stream.clone(),
            seq: work.seq,
            epoch: work.epoch,
            position: work.position,
            last: work.last,
            accepted_at: work.accepted_at,
            made_at: self.at,
            spec: Arc::clone(&self.forecast.spec),
            version: self.forecast.version,
            values: values.into(),
            backend: Arc::clone(&self.backend),
            degraded: self.forecast.degraded,
        }
    }
}

/// Where a release lets several versions answer, a series keeps its own: a batch for each.
pub(super) async fn serve(tools: &Tools, batch: &mut Vec<Work>) {
    let version = |work: &Work| tools.system.version_for(&work.stream.model, work.key());
    if batch.first().and_then(version).is_none() {
        return serve_together(tools, batch).await;
    }
    let mut parts = BTreeMap::<Option<u32>, Vec<Work>>::new();
    for work in batch.drain(..) {
        parts.entry(version(&work)).or_default().push(work);
    }
    for part in parts.values_mut() {
        serve_together(tools, part).await;
    }
}

/// A panic costs its batch, not the predictions after it.
async fn serve_together(tools: &Tools, batch: &mut Vec<Work>) {
    let note = |work: &Work| (work.stream.clone(), Arc::clone(&work.nodes), work.from..=work.seq);
    let notes: Vec<_> = batch.iter().map(note).collect();
    if AssertUnwindSafe(predict(tools, batch)).catch_unwind().await.is_err() {
        error!(windows = notes.len(), "predictions panicked");
        batch.clear();
        for (stream, nodes, numbers) in notes {
            tools.fail(stream, &nodes, numbers);
        }
    }
}

async fn predict(tools: &Tools, batch: &mut Vec<Work>) {
    let deadline = Deadline::after(tools.clock.now(), tools.within);
    while batch.iter().any(|work| work.windows.is_some()) {
        let Some(windows) = joined(batch.iter().filter_map(|work| work.windows.as_ref())) else {
            // The model has just changed its shape.
            return batch.drain(..).for_each(|work| tools.give_up(work));
        };
        let model = batch[0].stream.model.to_string();
        let key = Some(batch[0].key());
        // What several predictions have in common stands in the trace of the first.
        let host = batch.iter().find_map(|work| work.traced.as_ref());
        let trace = host.map(|(span, _)| span.clone()).unwrap_or_default();
        let origin = Origin { priority: Priority::High, key, trace: trace.clone(), ..Origin::default() };
        let subject = tools.subject(batch);
        let request = ForecastRequest { origin, subject, ..ForecastRequest::new(model, windows, deadline) };
        match tools.system.forecast(request).await {
            Ok(forecast) => {
                tools.probe(batch, &forecast, deadline);
                return tools.publish(batch, &forecast, &trace);
            }
            Err(ForecastError::Overloaded { retry_after_ms }) if !deadline.expired(tools.clock.now()) => {
                come_back(retry_after_ms, deadline, &*tools.clock).await;
            }
            // One window spoils no other.
            Err(ForecastError::NotFinite { row })
                if let Some(bad) = batch.iter_mut().filter(|work| work.windows.is_some()).nth(row) =>
            {
                bad.windows = None;
            }
            Err(failed) => {
                warn!(model = &*batch[0].stream.model, windows = batch.len(), error = %failed, trace_id = trace.id(), "no predictions");
                return batch.drain(..).for_each(|work| tools.give_up(work));
            }
        }
    }
    batch.drain(..).for_each(|work| tools.give_up(work));
}

/// Waits as long as whoever is overloaded wishes, within reason.
pub(super) async fn come_back(retry_after_ms: u32, deadline: Deadline, clock: &dyn Clock) {
    let pause = Duration::from_millis(u64::from(retry_after_ms).clamp(1, 100));
    tokio::time::sleep(pause.min(deadline.remaining(clock.now()))).await;
}

impl Tools {
    /// What the predictions are called where they are recorded.
    fn subject(&self, batch: &[Work]) -> Subject {
        if self.system.audit().is_none() {
            return Subject::Unnamed;
        }
        let row = |work: &Work| RowName {
            series: work.stream.series.shared(),
            position: Some(Position { seq: work.seq, epoch: work.epoch }),
        };
        let asked = batch.iter().filter(|work| work.windows.is_some());
        Subject::Named(Box::new(Names { rows: asked.map(row).collect(), ..Names::default() }))
    }

    /// Has versions whose intervals did not hold the truth forecast some of the same, to be scored.
    fn probe(&self, batch: &[Work], forecast: &Forecast, deadline: Deadline) {
        for probe in self.system.probes(&forecast.spec.name, forecast.version) {
            let some = || batch.iter().filter(|work| work.windows.is_some()).take(PROBE_ROWS_MAX);
            let Some(windows) = joined(some().filter_map(|work| work.windows.as_ref())) else { return };
            let made = Made::of(forecast, Timestamp::from(self.clock.wall()));
            let predictions = some().map(|work| made.prediction(work, &[])).collect();
            self.system.probe(probe, windows, predictions, deadline);
        }
    }

    fn publish(&self, batch: &mut Vec<Work>, forecast: &Forecast, host: &Trace) {
        let made = Made::of(forecast, Timestamp::from(self.clock.wall()));
        let mut rows = forecast.values.chunks_exact(forecast.spec.answer_len());
        for mut work in batch.drain(..) {
            let Some(values) = work.windows.as_ref().and_then(|_| rows.next()) else {
                self.give_up(work);
                continue;
            };
            self.counters.predicted(made.at.0.saturating_sub(work.since.0));
            self.tell_skipped(&work);
            let traced = work.traced.take();
            let prediction = made.prediction(&work, values);
            let seq = prediction.seq;
            self.outlet.deliver(&work.nodes, StreamEvent::Prediction(Arc::new(prediction)));
            if let Some((span, since)) = traced {
                let links = host.context().filter(|_| span != *host);
                span.end(|| {
                    Done::new("prediction", since, self.clock.now())
                        .linked(links)
                        .with("peregrine.model", forecast.spec.name.clone())
                        .with("peregrine.version", forecast.version)
                        .with("peregrine.backend", made.backend.to_string())
                        .with("peregrine.degraded", forecast.degraded)
                        .with("peregrine.seq", seq)
                });
            }
        }
    }

    /// Says what a stream skipped before a window, when there was no room.
    fn tell_skipped(&self, work: &Work) {
        if let Some(from) = work.skipped_from.filter(|&from| from < work.from) {
            self.counters.conflated(work.from - from);
            let gap = gap(&work.stream, from, work.from - 1, GapReason::Conflated);
            self.outlet.deliver(&work.nodes, StreamEvent::Gap(gap));
        }
    }

    fn give_up(&self, work: Work) {
        self.tell_skipped(&work);
        if let Some((span, since)) = &work.traced {
            span.end(|| {
                let why = Some(("failed", "the window could not be forecast".to_owned()));
                Done::new("prediction", *since, self.clock.now()).failed(why)
            });
        }
        self.fail(work.stream, &work.nodes, work.from..=work.seq);
    }

    fn fail(&self, stream: StreamId, nodes: &[Arc<str>], numbers: RangeInclusive<u64>) {
        self.counters.failed();
        let gap = gap(&stream, *numbers.start(), *numbers.end(), GapReason::Failed);
        self.outlet.deliver(nodes, StreamEvent::Gap(gap));
    }
}

pub(super) fn gap(stream: &StreamId, from: u64, to: u64, reason: GapReason) -> Gap {
    Gap { stream: stream.clone(), from, to, reason }
}
