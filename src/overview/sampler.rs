//! Rates and percentiles from counters of two moments.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use peregrine_actors::alerts::{Window, quantile};
use peregrine_actors::{ModelCounts, Spread};

use super::history::{History, STEP};
use super::types::{Model, Overview, Requests, Streams};
use crate::gateway::FINE_BOUNDS_S;

/// Percentiles are of so long: shorter ones jump, longer ones lag.
const SPAN: Duration = Duration::from_secs(10);

/// What a node has counted since it started.
#[derive(Clone, Debug, Default)]
pub(crate) struct Counters {
    /// Requests for forecasts answered within each of [`FINE_BOUNDS_S`], and all.
    pub(crate) answered: Vec<u64>,
    /// Of those, 5xx.
    pub(crate) failed: u64,
    /// By name and version, as an overview has them.
    pub(crate) models: BTreeMap<(String, String), ModelCounts>,
    /// Time that devices have computed, by backend and place.
    pub(crate) busy: BTreeMap<(String, u64), Duration>,
    /// Messages that actors have taken, by name.
    pub(crate) taken: BTreeMap<String, u64>,
    /// Messages of streams that were sent.
    pub(crate) messages: u64,
    pub(crate) bytes: u64,
    pub(crate) conflated: u64,
    pub(crate) ticks: u64,
    pub(crate) predictions: u64,
}

/// A reading and its moment.
type Moment = (Instant, Arc<Counters>);

/// Compares each reading with earlier ones.
pub(crate) struct Sampler {
    last: Option<Moment>,
    window: Window<Moment>,
    step: Option<Moment>,
    history: History,
}

impl Default for Sampler {
    fn default() -> Self {
        Self { last: None, window: Window::new(SPAN), step: None, history: History::default() }
    }
}

impl Sampler {
    /// Adds to `overview`, which says what is so now, how much happens: by itself nothing is known of that.
    pub(crate) fn look(&mut self, now: Instant, counters: Counters, mut overview: Overview) -> Overview {
        let counters = Arc::new(counters);
        let reading = (now, Arc::clone(&counters));
        if let Some(since) = self.last.as_ref().and_then(|last| Since::new(last, &reading)) {
            since.rates(&mut overview);
        }
        let earlier = self.window.turn(now, reading.clone());
        if let Some(since) = earlier.and_then(|earlier| Since::new(earlier, &reading)) {
            since.percentiles(&mut overview);
        }
        match &self.step {
            None => self.step = Some(reading.clone()),
            Some(step) if now.saturating_duration_since(step.0) >= STEP => {
                if let Some(since) = Since::new(step, &reading) {
                    let (mut requests, mut streams) = (Requests::default(), Streams::default());
                    since.requests(&mut requests);
                    since.times_of_requests(&mut requests);
                    since.streams(&mut streams);
                    self.history.push(overview.at, &requests, &streams);
                }
                self.step = Some(reading.clone());
            }
            Some(_) => {}
        }
        self.last = Some(reading);
        overview.history = Some(self.history.clone());
        overview
    }
}

/// What happened between two readings.
struct Since<'a> {
    before: &'a Counters,
    now: &'a Counters,
    seconds: f64,
}

impl<'a> Since<'a> {
    /// `None`: no time has passed.
    fn new(before: &'a Moment, now: &'a Moment) -> Option<Self> {
        let seconds = now.0.saturating_duration_since(before.0).as_secs_f64();
        (seconds > 0.0).then_some(Self { before: &before.1, now: &now.1, seconds })
    }

    /// `None`: a counter began anew, nobody knows what happened.
    fn rate(&self, before: u64, now: u64) -> Option<f64> {
        now.checked_sub(before).map(|count| rounded(count as f64 / self.seconds))
    }

    fn rates(&self, overview: &mut Overview) {
        self.requests(&mut overview.requests);
        self.streams(&mut overview.streams);
        for model in &mut overview.models {
            let Some((before, now)) = self.model(model) else { continue };
            model.rate = self.rate(before.succeeded, now.succeeded);
            model.rows_rate = self.rate(before.rows, now.rows);
            model.failed_rate = self.rate(before.failed, now.failed);
        }
        for device in &mut overview.devices {
            let key = (device.backend.clone(), device.device);
            let both = self.before.busy.get(&key).zip(self.now.busy.get(&key));
            let computed = both.and_then(|(before, now)| now.checked_sub(*before));
            // What it computes is counted when it is done.
            device.busy_share =
                computed.map(|computed| rounded((computed.as_secs_f64() / self.seconds).min(1.0)));
        }
        for actor in &mut overview.actors {
            let both = self.before.taken.get(&actor.name).zip(self.now.taken.get(&actor.name));
            actor.messages_rate = both.and_then(|(before, now)| self.rate(*before, *now));
        }
    }

    fn requests(&self, requests: &mut Requests) {
        let all = |counters: &Counters| counters.answered.last().copied().unwrap_or(0);
        requests.rate = self.rate(all(self.before), all(self.now));
        requests.error_rate = self.rate(self.before.failed, self.now.failed);
    }

    fn streams(&self, streams: &mut Streams) {
        let rate = |read: fn(&Counters) -> u64| self.rate(read(self.before), read(self.now));
        streams.messages_rate = rate(|counters| counters.messages);
        streams.bytes_rate = rate(|counters| counters.bytes);
        streams.conflated_rate = rate(|counters| counters.conflated);
        streams.ticks_rate = rate(|counters| counters.ticks);
        streams.predictions_rate = rate(|counters| counters.predictions);
    }

    fn percentiles(&self, overview: &mut Overview) {
        self.times_of_requests(&mut overview.requests);
        for model in &mut overview.models {
            let Some((before, now)) = self.model(model) else { continue };
            let latency = now.latency.since(&before.latency);
            [model.p50_ms, model.p95_ms, model.p99_ms] =
                [0.5, 0.95, 0.99].map(|share| millis(&latency, share));
            model.queue_p99_ms = millis(&now.queue_latency.since(&before.queue_latency), 0.99);
            model.compute_p99_ms = millis(&now.compute_latency.since(&before.compute_latency), 0.99);
            let (rows, batches) =
                (now.rows.checked_sub(before.rows), now.batches.checked_sub(before.batches));
            let batches = batches.filter(|count| *count > 0);
            model.batch_rows_mean =
                rows.zip(batches).map(|(rows, batches)| rounded(rows as f64 / batches as f64));
        }
    }

    fn times_of_requests(&self, requests: &mut Requests) {
        let both = self.now.answered.iter().zip(&self.before.answered);
        let counts: Vec<u64> = both.map(|(now, before)| now.saturating_sub(*before)).collect();
        let at = |share| quantile(&FINE_BOUNDS_S, &counts, share).map(|seconds| rounded(seconds * 1e3));
        requests.p50_ms = at(0.5);
        requests.p95_ms = at(0.95);
        requests.p99_ms = at(0.99);
        requests.p999_ms = at(0.999);
    }

    /// A model that was not there before has counted since it was.
    fn model(&self, model: &Model) -> Option<(&ModelCounts, &ModelCounts)> {
        let key = (model.name.clone(), model.version.clone());
        self.before.models.get(&key).zip(self.now.models.get(&key))
    }
}

fn millis(spread: &Spread, share: f64) -> Option<f64> {
    spread.quantile(share).map(|took| rounded(took.as_secs_f64() * 1e3))
}

/// To four decimals: nobody reads more, and every viewer is sent them.
fn rounded(value: f64) -> f64 {
    (value * 1e4).round() / 1e4
}

#[cfg(test)]
mod tests;
