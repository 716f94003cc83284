//! What follows from a tick: the truth is told, and windows that somebody wants are handed to the predictors.

use std::sync::Arc;

use peregrine_runtime::Deadline;
use peregrine_shaders::ModelSpec;

use super::place::Held;
use super::predict::{Tools, Work};
use super::predictor::{Handed, Predictor};
use super::room::{Inner, Series};
use super::wants::Want;
use super::{History, Pattern, SeriesName, Tick, Timestamp, Unready};
use crate::request::ForecastError;
use crate::stream::StreamId;

impl Series {
    /// What follows from a tick that changed a window; predictions begin when `handed` is answered.
    pub(super) fn followed(
        &self,
        held: &mut Held,
        tick: &Tick,
        seq: u64,
        accepted_at: Timestamp,
        handed: &mut Handed,
    ) {
        let inner = &self.inner;
        let wants = inner.wanted(held, &tick.series);
        let Some(history) = held.shard.get(&tick.series) else { return };
        if let (Some(value), Some(position)) = (tick.value, history.own_place()) {
            inner.outlet.observed(&tick.series, position, value);
        }
        for want in &*wants {
            let Some(spec) = inner.shape(&want.model) else {
                self.learn(&want.model, Some(&tick.series));
                continue;
            };
            let Some(history) = held.shard.get(&tick.series) else { return };
            let work = inner.work(history, &tick.series, want, seq, &spec, (Some(accepted_at), accepted_at));
            let begun = held.begun(&tick.series, &want.model);
            match work {
                Ok(work) => {
                    held.go_on(&tick.series, &want.model, seq);
                    let is_recorded = tick.trace.is_recorded();
                    let traced = is_recorded.then(|| (tick.trace.child(), inner.clock.now()));
                    handed.submit(self.predictor(&want.model), Work { traced, ..work });
                }
                // Its stream has not begun, or never will.
                Err(Unready::Short { .. } | Unready::Several(_)) if begun.is_none() => {}
                Err(_) => {
                    if let Some(nothing) = inner.nothing(held, &tick.series, want, seq) {
                        handed.submit(self.predictor(&want.model), nothing);
                    }
                }
            }
        }
    }

    fn predictor(&self, model: &Arc<str>) -> Arc<Predictor> {
        let mut predictors = self.inner.predictors.lock();
        if let Some(known) = predictors.get(model) {
            return Arc::clone(known);
        }
        let inner = &self.inner;
        let series = Arc::downgrade(inner);
        let tools = Tools {
            system: inner.system.clone(),
            clock: Arc::clone(&inner.clock),
            outlet: Arc::clone(&inner.outlet),
            counters: Arc::clone(&inner.counters),
            rows_max: inner.settings.rows_max,
            within: inner.settings.predict_within,
            newest: Box::new(move |stream, hand_over| match series.upgrade() {
                Some(inner) => Self { inner }.newest_work(stream, hand_over),
                None => hand_over(None),
            }),
        };
        let started = Arc::new(Predictor::start(tools, inner.settings.queue_max, &inner.runtime));
        predictors.insert(Arc::clone(model), Arc::clone(&started));
        started
    }

    /// The work of a stream's newest window, handed over while no tick can come.
    fn newest_work(&self, stream: &StreamId, hand_over: &mut dyn FnMut(Option<Work>)) {
        let inner = &self.inner;
        let Ok(place) = inner.place(self.shard_of(&stream.series)) else { return hand_over(None) };
        let mut held = place.held.lock();
        let wants = inner.wanted(&mut held, &stream.series);
        let work = || {
            let history = held.shard.get(&stream.series)?;
            let want = wants.iter().find(|want| want.model == stream.model)?;
            let spec = inner.shape(&stream.model)?;
            let now = Timestamp::from(inner.clock.wall());
            let accepted_at = held.shard.accepted_at(&stream.series, history.seq());
            let (seq, times) = (history.seq(), (accepted_at, now));
            let work = inner.work(history, &stream.series, want, seq, &spec, times);
            let nothing = || Work::nothing(stream.clone(), Arc::clone(&want.nodes), seq, seq);
            Some(work.unwrap_or_else(|_| nothing()))
        };
        hand_over(work());
    }

    /// Has the newest windows of a shard forecast that somebody wants, by those models and of those series that are
    /// `meant`.
    pub(super) fn refresh(&self, held: &mut Held, meant: impl Fn(&str, &str) -> bool) {
        let inner = &self.inner;
        let now = Timestamp::from(inner.clock.wall());
        let mut handed = Handed::default(); // its task is woken when this is dropped
        let names: Vec<SeriesName> = held.shard.iter().map(|(name, _)| name.clone()).collect();
        for name in names {
            let wants = inner.wanted(held, &name);
            let Some(history) = held.shard.get(&name) else { continue };
            let mut begun = Vec::new();
            for want in wants.iter().filter(|want| meant(&want.model, name.as_str())) {
                let Some(spec) = inner.shape(&want.model) else { continue };
                let times = (held.shard.accepted_at(&name, history.seq()), now);
                if let Ok(work) = inner.work(history, &name, want, history.seq(), &spec, times) {
                    begun.push((Arc::clone(&want.model), work.seq));
                    handed.submit(self.predictor(&want.model), work);
                }
            }
            begun.iter().for_each(|(model, seq)| held.go_on(&name, model, *seq));
        }
    }

    /// Asks for the shape of a model that this node does not serve, and makes up for the ticks that came meanwhile, or has
    /// those who follow `ticked` told that there is no such model.
    pub(super) fn learn(&self, model: &Arc<str>, ticked: Option<&SeriesName>) {
        let (series, model, ticked) = (self.clone(), Arc::clone(model), ticked.cloned());
        let deadline = Deadline::after(self.inner.clock.now(), self.inner.settings.predict_within);
        self.inner.runtime.spawn(async move {
            let found = match series.inner.system.locate(&model, None, deadline).await {
                Ok(found) => found,
                Err(ForecastError::UnknownModel(_)) => {
                    return ticked.iter().for_each(|ticked| series.tell_unserved(&model, ticked));
                }
                Err(_) => return, // it may be there all the same
            };
            let known = series.inner.shapes.lock().insert(Arc::clone(&model), Arc::clone(&found.spec));
            if known.is_none() {
                series.catch_up(&[(model, Pattern::all())]);
            }
        });
    }

    /// A stream whose model nobody serves any more has no predictions of the ticks that have come.
    fn tell_unserved(&self, model: &Arc<str>, series: &SeriesName) {
        let inner = &self.inner;
        let Ok(place) = inner.place(self.shard_of(series)) else { return };
        let mut held = place.held.lock();
        if *place.ready.borrow() == 0 || held.begun(series, model).is_none() || inner.shape(model).is_some() {
            return;
        }
        let wants = inner.wanted(&mut held, series);
        let newest = held.shard.get(series).map_or(0, History::seq);
        let Some(want) = wants.iter().find(|want| want.model == *model) else { return };
        if let Some(nothing) = inner.nothing(&mut held, series, want, newest) {
            let mut handed = Handed::default(); // its task is woken when this is dropped
            handed.submit(self.predictor(model), nothing);
        }
    }
}

impl Inner {
    /// The window of a series as work for a model: when its tick was accepted, and since when it is waited for.
    fn work(
        &self,
        history: &History,
        series: &SeriesName,
        want: &Want,
        seq: u64,
        spec: &ModelSpec,
        (accepted_at, since): (Option<Timestamp>, Timestamp),
    ) -> Result<Work, Unready> {
        Ok(Work {
            stream: StreamId { model: Arc::clone(&want.model), series: series.clone() },
            nodes: Arc::clone(&want.nodes),
            from: seq,
            seq,
            epoch: history.epoch(seq).unwrap_or(0),
            position: history.position_at(seq).unwrap_or(0),
            last: history.last(seq).unwrap_or(Timestamp(0)),
            accepted_at,
            since,
            windows: Some(history.window(seq, spec)?),
            skipped_from: None,
            traced: None,
        })
    }

    /// Those who want a stream are to be told that it has no prediction of the windows up to a number; `None`: they know.
    /// It waits for its turn: told at once, it would overtake the predictions that are not made yet.
    fn nothing(&self, held: &mut Held, series: &SeriesName, want: &Want, seq: u64) -> Option<Work> {
        let from = held.begun(series, &want.model).map_or(seq, |last| last + 1);
        if from > seq {
            return None;
        }
        held.go_on(series, &want.model, seq);
        let stream = StreamId { model: Arc::clone(&want.model), series: series.clone() };
        Some(Work::nothing(stream, Arc::clone(&want.nodes), from, seq))
    }

    fn wanted(&self, held: &mut Held, series: &SeriesName) -> Arc<[Want]> {
        let wants = self.wants.load();
        if let Some((generation, known)) = held.wanted.get(series)
            && *generation == wants.generation()
        {
            return Arc::clone(known);
        }
        let found: Arc<[Want]> = wants.of(series).into();
        if let Some(begun) = held.begun.get_mut(series) {
            begun.retain(|(model, _)| found.iter().any(|want| want.model == *model));
        }
        held.wanted.insert(series.clone(), (wants.generation(), Arc::clone(&found)));
        found
    }

    /// The shape of a model, served here or, as far as is known, elsewhere.
    pub(super) fn shape(&self, model: &str) -> Option<Arc<ModelSpec>> {
        match self.system.find(model, None) {
            Ok(found) => Some(Arc::clone(&found.spec)),
            Err(_) => self.shapes.lock().get(model).cloned(),
        }
    }
}
