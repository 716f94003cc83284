//! How good predictions were, once the truth has come: every prediction waits for the ticks that it is about.
//!
//! What is scored does not depend on the order in which predictions and truths come, as long as neither is too late:
//! predictions that come after the truth and truths that come late or are revised are scored as if they had come in
//! time. Everything is bounded: a stream keeps the predictions of its horizon, a series its recent truths, and what is
//! one too many is counted and not scored.

mod measures;
mod score;
mod series;
mod stream;
mod tally;
#[cfg(test)]
mod tests;
mod weights;

use std::collections::{BTreeMap, HashMap};
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};

use parking_lot::Mutex;

use crate::series::SeriesName;
use crate::stream::Prediction;
use measures::Layout;
use score::Sum;
use series::Series;
use stream::Stream;
use tally::Tally;

pub use measures::{LEVELS, levels, pinball, quantiles};
pub use score::{Coverage, Score};
pub use series::STREAMS_MAX;
pub use stream::LATE_PLACES;
pub use weights::WINDOW;

/// Locks over the series: whoever scores one waits for few others.
const SHARDS: usize = 16;
/// Model versions that are counted.
const VERSIONS_MAX: usize = 1024;

/// What a scorecard may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ScorecardLimits {
    /// Series; further ones are not scored.
    pub series_max: usize,
    /// Bytes of predictions that wait and of sums; further streams are not scored.
    pub bytes_max: usize,
}

impl Default for ScorecardLimits {
    /// Ten thousand series of a model with 24 steps and 5 quantiles, at 20 KB each.
    fn default() -> Self {
        Self { series_max: 10_000, bytes_max: 256 << 20 }
    }
}

/// Name of a model, and its version.
type Version = (Arc<str>, u32);

/// Scores predictions as the truth comes in. For all threads.
pub struct Scorecard {
    limits: ScorecardLimits,
    shards: [Mutex<HashMap<SeriesName, Series>>; SHARDS],
    hasher: RandomState,
    versions: Mutex<BTreeMap<Version, Arc<Tally>>>,
    series: AtomicUsize,
    bytes: AtomicUsize,
    unscored: AtomicU64,
    too_late: AtomicU64,
}

/// Which streams a question is about; `None`: all.
#[derive(Clone, Copy, Debug, Default)]
pub struct Question<'a> {
    /// Of which model.
    pub model: Option<&'a str>,
    /// Of which version.
    pub version: Option<u32>,
    /// Of which series.
    pub series: Option<&'a str>,
    /// Step by step?
    pub by_step: bool,
}

/// What a scorecard has counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ScorecardStatus {
    /// Series it holds.
    pub series: usize,
    /// Bytes its streams take.
    pub bytes: usize,
    /// Predictions and truths that were not scored because it is full, or because they cannot be.
    pub unscored: u64,
    /// Truths that came too late for some stream.
    pub too_late: u64,
}

impl Default for Scorecard {
    fn default() -> Self {
        Self::new(ScorecardLimits::default())
    }
}

impl Scorecard {
    /// An empty one.
    #[must_use]
    pub fn new(limits: ScorecardLimits) -> Self {
        Self {
            limits,
            shards: Default::default(),
            hasher: RandomState::new(),
            versions: Mutex::default(),
            series: AtomicUsize::new(0),
            bytes: AtomicUsize::new(0),
            unscored: AtomicU64::new(0),
            too_late: AtomicU64::new(0),
        }
    }

    /// A prediction was made: step `k` of it is about place `position + k` of its series.
    pub fn predicted(&self, prediction: &Prediction) {
        if self.try_predicted(prediction).is_none() {
            self.unscored.fetch_add(1, Relaxed);
        }
    }

    /// What place `position` of a series turned out to be. May come late, and again with another value.
    pub fn observed(&self, series: &SeriesName, position: u64, value: f32) {
        let mut shard = self.shard(series).lock();
        let is_known = shard.contains_key(series);
        if !value.is_finite() || !is_known && !self.has_room_for_series() {
            self.unscored.fetch_add(1, Relaxed);
            return;
        }
        if !is_known {
            shard.insert(series.clone(), Series::new(position));
        }
        if let Some(series) = shard.get_mut(series)
            && !series.observed(position, value)
        {
            self.too_late.fetch_add(1, Relaxed);
        }
    }

    /// Forgets a series.
    pub fn forget(&self, series: &SeriesName) {
        let gone = self.shard(series).lock().remove(series);
        if let Some(gone) = gone {
            self.series.fetch_sub(1, Relaxed);
            gone.streams.iter().for_each(|stream| self.release(stream));
        }
    }

    /// Forgets what it knows of a model version that is served no more.
    pub fn retire(&self, model: &str, version: u32) {
        self.renew(model, version);
        self.versions.lock().remove(&(Arc::from(model), version));
    }

    /// Scores a model version anew: nothing that it has predicted so far counts any more.
    pub fn renew(&self, model: &str, version: u32) {
        for shard in &self.shards {
            for series in shard.lock().values_mut() {
                series.streams.retain(|stream| {
                    let stays = *stream.model != *model || stream.version != version;
                    if !stays {
                        self.release(stream);
                    }
                    stays
                });
            }
        }
    }

    /// Scores by model version, in order; by step too where that was asked. Takes time in proportion to all streams,
    /// unless one series is asked for.
    #[must_use]
    pub fn scores(&self, question: Question<'_>) -> Vec<Score> {
        let mut sums = BTreeMap::<Version, Vec<Sum>>::new();
        let mut add = |series: &Series| {
            let scale = series.scale();
            for stream in series.streams.iter().filter(|stream| question.means(stream)) {
                let steps = sums.entry((Arc::clone(&stream.model), stream.version)).or_default();
                add_stream(steps, stream, scale, question.by_step);
            }
        };
        match question.series.map(SeriesName::new) {
            None => {
                for shard in &self.shards {
                    shard.lock().values().for_each(&mut add);
                }
            }
            Some(Ok(series)) => {
                self.shard(&series).lock().get(&series).into_iter().for_each(add);
            }
            Some(Err(_no_name)) => {}
        }
        let of_version = |((model, version), steps): (Version, Vec<Sum>)| {
            let score = move |(at, sum): (usize, Sum)| {
                sum.score(Arc::clone(&model), version, question.by_step.then_some(at + 1))
            };
            steps.into_iter().enumerate().filter_map(score)
        };
        sums.into_iter().flat_map(of_version).collect()
    }

    /// How often the central interval of `level` percent of a model version held the truth of late: what a breaker, or
    /// whoever promotes and rolls back models, may act on. `None` where none was scored.
    #[must_use]
    pub fn coverage(&self, model: &str, version: u32, level: f64) -> Option<Coverage> {
        let question = Question { model: Some(model), version: Some(version), ..Question::default() };
        let score = self.scores(question).into_iter().next()?;
        score.coverage.into_iter().find(|coverage| (coverage.level - level).abs() < 1e-3)
    }

    /// Values scored, ever, by model version.
    #[must_use]
    pub fn scored(&self) -> Vec<(Arc<str>, u32, u64)> {
        let versions = self.versions.lock();
        versions.iter().map(|((model, version), tally)| (Arc::clone(model), *version, tally.read())).collect()
    }

    /// Now.
    #[must_use]
    pub fn status(&self) -> ScorecardStatus {
        ScorecardStatus {
            series: self.series.load(Relaxed),
            bytes: self.bytes.load(Relaxed),
            unscored: self.unscored.load(Relaxed),
            too_late: self.too_late.load(Relaxed),
        }
    }

    fn try_predicted(&self, prediction: &Prediction) -> Option<()> {
        let (model, version) = (&prediction.stream.model, prediction.version);
        let name = &prediction.stream.series;
        let mut shard = self.shard(name).lock();
        if !shard.contains_key(name) {
            Layout::of(&prediction.spec)?;
            if !self.has_room_for_series() {
                return None;
            }
            shard.insert(name.clone(), Series::new(prediction.position));
        }
        let series = shard.get_mut(name)?;
        let is_it = |stream: &Stream| stream.version == version && *stream.model == **model;
        let at = match series.streams.iter().position(is_it) {
            Some(at) => at,
            None => self.new_stream(series, prediction)?,
        };
        let mut streams = std::mem::take(&mut series.streams);
        let stream = &mut streams[at];
        let row = stream.layout.row(prediction);
        if let Some(row) = &row {
            stream.predicted(prediction.position, row, |place| series.truth(place));
        }
        series.streams = streams;
        row.map(drop)
    }

    fn shard(&self, series: &SeriesName) -> &Mutex<HashMap<SeriesName, Series>> {
        &self.shards[self.hasher.hash_one(series) as usize % SHARDS]
    }

    fn has_room_for_series(&self) -> bool {
        let taken = self
            .series
            .fetch_update(Relaxed, Relaxed, |series| (series < self.limits.series_max).then_some(series + 1));
        taken.is_ok()
    }

    /// Its place among the streams of the series; `None`: there is no room, or it cannot be scored.
    fn new_stream(&self, series: &mut Series, prediction: &Prediction) -> Option<usize> {
        let layout = Layout::of(&prediction.spec)?;
        if series.streams.len() == STREAMS_MAX {
            let oldest = (0..STREAMS_MAX).min_by_key(|&at| series.streams[at].newest())?;
            self.release(&series.streams.swap_remove(oldest));
        }
        let bytes = Stream::bytes(&layout);
        let room = |held: usize| held.checked_add(bytes).filter(|&all| all <= self.limits.bytes_max);
        self.bytes.fetch_update(Relaxed, Relaxed, room).ok()?;
        let model = Arc::clone(&prediction.stream.model);
        let tally = self.tally(&model, prediction.version);
        series.streams.push(Stream::new(model, prediction.version, layout, tally, prediction.position));
        Some(series.streams.len() - 1)
    }

    fn release(&self, stream: &Stream) {
        self.bytes.fetch_sub(Stream::bytes(&stream.layout), Relaxed);
    }

    /// Of versions that are too many, one that nobody reads.
    fn tally(&self, model: &Arc<str>, version: u32) -> Arc<Tally> {
        let mut versions = self.versions.lock();
        let key = (Arc::clone(model), version);
        if versions.len() >= VERSIONS_MAX && !versions.contains_key(&key) {
            return Arc::default();
        }
        Arc::clone(versions.entry(key).or_default())
    }
}

impl Question<'_> {
    fn means(&self, stream: &Stream) -> bool {
        self.model.is_none_or(|model| *stream.model == *model)
            && self.version.is_none_or(|version| stream.version == version)
    }
}

fn add_stream(steps: &mut Vec<Sum>, stream: &Stream, scale: Option<f64>, by_step: bool) {
    let len = if by_step { stream.layout.horizon } else { 1 };
    if steps.len() < len {
        steps.resize_with(len, Sum::default);
    }
    let mut last = None;
    for step in 0..stream.layout.horizon {
        let Some(sums) = stream.step(step) else { continue };
        let at = if by_step { step } else { 0 };
        steps[at].add(&stream.layout, &sums, scale);
        if last.replace(at) != Some(at) {
            steps[at].end_of_series();
        }
    }
}
