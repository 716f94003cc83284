//! The series of one node: takes ticks for the shards it owns, keeps copies of those of others, and has the windows
//! forecast.
//!
//! A tick is answered when the journal and the copy on another node have it (`safe`); its prediction does not wait for
//! that (`follow`). Decides nothing about logs (`shard`), windows (`history`, `window`) or who wants what (`wants`).

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use peregrine_runtime::{Clock, Deadline};
use peregrine_shaders::{ModelSpec, Windows};
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::time::timeout_at;

use super::copies::{Copies, CopyError};
use super::counters::{Counters, SeriesStats};
use super::journal::{Journal, JournalEntry, JournalError};
use super::listing::{self, Listing, SeriesEntry};
use super::parts::{Outlet, SeriesParts, SeriesSettings};
use super::place::Place;
use super::predictor::{Handed, Predictor};
use super::tick::Timestamp;
use super::wants::Wants;
use super::window::Unready;
use super::{Effect, LogEnd, Pattern, SeriesLog, SeriesName, Taken, Tick, TickError};
use crate::stream::SourceError;
use crate::system::System;

/// The series of one node. Cheap to clone.
#[derive(Clone)]
pub struct Series {
    pub(super) inner: Arc<Inner>,
}

pub(super) struct Inner {
    pub(super) settings: SeriesSettings,
    pub(super) system: System,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) journal: Option<Arc<dyn Journal>>,
    pub(super) copies: Arc<dyn Copies>,
    pub(super) outlet: Arc<dyn Outlet>,
    pub(super) runtime: Handle,
    pub(super) places: Box<[Place]>,
    pub(super) wants: ArcSwap<Wants>,
    /// One change at a time.
    wanting: Mutex<()>,
    pub(super) predictors: Mutex<HashMap<Arc<str>, Arc<Predictor>>>,
    /// Shapes of models that only other nodes serve.
    pub(super) shapes: Mutex<HashMap<Arc<str>, Arc<ModelSpec>>>,
    pub(super) counters: Arc<Counters>,
}

/// Ticks were not taken at all.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FeedError {
    /// The shard is not owned here, or not under that epoch.
    #[error("the shard is not owned here")]
    NotOwner,
    /// The shard was taken over and is not ready.
    #[error("the shard is still being taken over")]
    Deadline,
}

impl Series {
    /// Reads the journal and is ready to own shards.
    ///
    /// # Errors
    /// The journal cannot be read.
    pub fn start(parts: SeriesParts) -> Result<Self, JournalError> {
        let SeriesParts { settings, system, clock, journal, copies, outlet, runtime } = parts;
        let place = |_| Place { held: Mutex::default(), ready: watch::Sender::new(0) };
        let inner = Inner {
            places: (0..settings.shards).map(place).collect(),
            wants: ArcSwap::from_pointee(Wants::new(settings.always.clone())),
            wanting: Mutex::default(),
            predictors: Mutex::default(),
            shapes: Mutex::default(),
            counters: Arc::default(),
            settings,
            system,
            clock,
            journal,
            copies,
            outlet,
            runtime,
        };
        if let Some(journal) = inner.journal.clone() {
            journal.restore(&mut |entry| inner.restore(&entry))?;
            for place in &inner.places {
                let mut held = place.held.lock();
                let names: Vec<SeriesName> = held.kept.keys().cloned().collect();
                names.iter().for_each(|name| held.found(name, journal.places()));
            }
        }
        Ok(Self { inner: Arc::new(inner) })
    }

    /// The shard of a series.
    #[must_use]
    pub fn shard_of(&self, series: &SeriesName) -> u16 {
        peregrine_runtime::shard::shard_of(series.as_str().as_bytes(), self.inner.settings.shards).0
    }

    /// Takes ticks for a shard that this node owns under `epoch`; one answer for each, in order. They are applied, and
    /// their predictions begun, when this is first polled after the shard is ready; `Ok` says that the journal and the
    /// copy have them.
    ///
    /// # Errors
    /// See [`FeedError`]: none was taken.
    pub async fn feed(
        &self,
        shard: u16,
        epoch: u64,
        ticks: Vec<Tick>,
        deadline: Deadline,
    ) -> Result<Vec<Result<Effect, TickError>>, FeedError> {
        let inner = &self.inner;
        let place = inner.places.get(usize::from(shard)).ok_or(FeedError::NotOwner)?;
        self.ready(place, epoch, deadline).await?;
        let (mut effects, touched) = self.apply(place, epoch, &ticks)?;
        let safe =
            tokio::join!(inner.keep(place, &touched), inner.copy(place, shard, epoch, &touched, deadline));
        let failed = match safe {
            (Ok(()), Ok(())) if *place.ready.borrow() >= epoch => None,
            // What another owner does not know of is not promised.
            (Ok(()), Ok(())) => {
                Some(TickError::Unavailable("the shard has gone to another owner".to_owned()))
            }
            (Err(JournalError::Full), _) => Some(TickError::Overloaded { retry_after_ms: 50 }),
            (Err(JournalError::Disk(why)), _) => Some(TickError::Unavailable(why)),
            (_, Err(failed)) => Some(TickError::Unavailable(failed.to_string())),
        };
        if let Some(failed) = failed {
            for effect in effects.iter_mut().filter(|effect| effect.is_ok()) {
                *effect = Err(failed.clone());
            }
        }
        inner.counters.acknowledge(&effects);
        Ok(effects)
    }

    /// Waits until this node holds what others held of a shard that it owns.
    ///
    /// # Errors
    /// It does not in time.
    pub async fn owns(&self, shard: u16, epoch: u64, deadline: Deadline) -> Result<(), FeedError> {
        let place = self.inner.places.get(usize::from(shard)).ok_or(FeedError::NotOwner)?;
        self.ready(place, epoch, deadline).await
    }

    async fn ready(&self, place: &Place, epoch: u64, deadline: Deadline) -> Result<(), FeedError> {
        if *place.ready.borrow() >= epoch {
            return Ok(());
        }
        let mut ready = place.ready.subscribe();
        let ready = timeout_at(deadline.instant().into(), ready.wait_for(|ready| *ready >= epoch)).await;
        ready.map_err(|_| FeedError::Deadline)?.map(drop).map_err(|_| FeedError::NotOwner)
    }

    /// Applies ticks and has their windows forecast, here where that is quick. Also says which series they were for.
    #[expect(clippy::type_complexity, reason = "one caller, just above")]
    fn apply(
        &self,
        place: &Place,
        epoch: u64,
        ticks: &[Tick],
    ) -> Result<(Vec<Result<Effect, TickError>>, HashSet<SeriesName>), FeedError> {
        let inner = &self.inner;
        let accepted_at = Timestamp::from(inner.clock.wall());
        let mut handed = Handed::default();
        let mut held = place.held.lock();
        if held.shard.fence() > epoch {
            return Err(FeedError::NotOwner);
        }
        let mut touched = HashSet::new();
        let mut effects = Vec::with_capacity(ticks.len());
        for tick in ticks {
            let effect = match in_time(tick, accepted_at, inner.settings.ahead_max) {
                Ok(()) => held.shard.feed(tick, epoch, &inner.settings.limits),
                Err(refused) => Err(refused),
            };
            inner.counters.fed(&effect);
            if let Ok(Effect::Advanced { seq } | Effect::Inserted { seq }) = effect {
                held.shard.accepted(&tick.series, seq, accepted_at);
                self.followed(&mut held, tick, seq, accepted_at, &mut handed);
            }
            if effect.is_ok() && !touched.contains(&tick.series) {
                touched.insert(tick.series.clone());
            }
            effects.push(effect);
        }
        drop(held);
        handed.answer();
        Ok((effects, touched))
    }

    /// Which predictions a node wants from now on, all of them. Returns what it did not want before: for those,
    /// [`Self::catch_up`] unless the node asks by itself.
    pub fn want(&self, node: &str, wanted: Vec<(Arc<str>, Pattern)>) -> Vec<(Arc<str>, Pattern)> {
        let inner = &self.inner;
        let _one = inner.wanting.lock();
        let models: HashSet<Arc<str>> = wanted.iter().map(|(model, _)| Arc::clone(model)).collect();
        let mut new = Vec::new();
        let wants = inner.wants.load();
        if let Some(next) = wants.with(node, wanted) {
            new = next.added(&wants, node);
            inner.wants.store(Arc::new(next));
        }
        for model in models.iter().filter(|model| inner.shape(model).is_none()) {
            self.learn(model, None);
        }
        new
    }

    /// Has the newest window of each series that this node owns and `wanted` means forecast. Of a tick that came before
    /// the wish did, nobody would be told otherwise until the next one.
    pub fn catch_up(&self, wanted: &[(Arc<str>, Pattern)]) {
        if wanted.is_empty() {
            return;
        }
        for place in &self.inner.places {
            let mut held = place.held.lock();
            if *place.ready.borrow() > 0 {
                self.refresh(&mut held, |model, series| {
                    wanted.iter().any(|(of, pattern)| **of == *model && pattern.matches(series))
                });
            }
        }
    }

    /// Nodes that want something of this one.
    #[must_use]
    pub fn wanting(&self) -> Vec<Arc<str>> {
        self.inner.wants.load().nodes().cloned().collect()
    }

    /// Holds what the owner of a shard holds.
    ///
    /// # Errors
    /// Another owner is known, or the disk refuses.
    pub async fn replicate(
        &self,
        shard: u16,
        epoch: u64,
        logs: Vec<SeriesLog>,
    ) -> Result<Vec<(SeriesName, Taken)>, CopyError> {
        let inner = &self.inner;
        let place = inner.place(shard)?;
        let (taken, touched) = {
            let mut held = place.held.lock();
            if !held.shard.raise(epoch) {
                return Err(CopyError::Fenced);
            }
            held.take(&logs, &inner.settings.limits)
        };
        let kept = inner.keep(place, &touched).await;
        kept.map_err(|failed| CopyError::Unreachable(failed.to_string()))?;
        Ok(taken)
    }

    /// How far the series of a shard go here; owners of lower epochs are refused from now on.
    ///
    /// # Errors
    /// A later owner is known.
    pub fn ends(&self, shard: u16, epoch: u64) -> Result<Vec<LogEnd>, CopyError> {
        let mut held = self.inner.place(shard)?.held.lock();
        if held.shard.raise(epoch) { Ok(held.shard.ends()) } else { Err(CopyError::Fenced) }
    }

    /// All that is held of some series of a shard.
    ///
    /// # Errors
    /// There is no such shard.
    pub fn fetch(&self, shard: u16, series: &[SeriesName]) -> Result<Vec<SeriesLog>, CopyError> {
        let held = self.inner.place(shard)?.held.lock();
        Ok(series.iter().filter_map(|name| held.shard.whole(name)).collect())
    }

    /// All that is kept of a series that this node owns.
    ///
    /// # Errors
    /// It is not owned here, or nobody has fed it.
    pub fn log(&self, series: &SeriesName) -> Result<SeriesLog, SourceError> {
        let place = &self.inner.places[usize::from(self.shard_of(series))];
        if *place.ready.borrow() == 0 {
            return Err(SourceError::Unavailable("the series is being taken over".to_owned()));
        }
        let whole = place.held.lock().shard.whole(series);
        whole.ok_or_else(|| SourceError::UnknownSeries(series.to_string()))
    }

    /// As [`ShardLimits::missing`](super::ShardLimits::missing), of a series that any node owns.
    #[must_use]
    pub fn missing(&self, log: &SeriesLog, spec: &ModelSpec) -> usize {
        self.inner.settings.limits.missing(log, spec)
    }

    /// As [`ShardLimits::window`](super::ShardLimits::window), of a series that any node owns.
    ///
    /// # Errors
    /// [`Unready`].
    pub fn window(&self, log: &SeriesLog, spec: &ModelSpec) -> Result<Windows, Unready> {
        self.inner.settings.limits.window(log, spec)
    }

    /// Series that this node owns and a pattern means, the first `count_max` of them after a name.
    #[must_use]
    pub fn list(&self, pattern: &Pattern, after: Option<&SeriesName>, count_max: usize) -> Listing {
        let owned = self.inner.places.iter().filter(|place| *place.ready.borrow() > 0);
        let (mut all, mut shards) = (Vec::new(), 0);
        for place in owned {
            shards += 1;
            let held = place.held.lock();
            let asked = held.shard.iter().filter(|(name, _)| {
                after.is_none_or(|after| *name > after) && pattern.matches(name.as_str())
            });
            all.extend(asked.filter_map(|(name, history)| SeriesEntry::of(name, history)));
            if all.len() > 2 * count_max {
                listing::page(&mut all, count_max); // what is not wanted is not held
            }
        }
        listing::page(&mut all, count_max);
        Listing { series: all, silent: Vec::new(), shards }
    }

    /// What there is, and what was done.
    #[must_use]
    pub fn stats(&self) -> SeriesStats {
        let mut stats = self.inner.counters.stats();
        for place in &self.inner.places {
            stats.shards_owned += usize::from(*place.ready.borrow() > 0);
            let held = place.held.lock();
            stats.series += held.shard.len();
            stats.bytes += held.shard.iter().map(|(_, history)| history.bytes()).sum::<usize>();
        }
        stats
    }

    /// The highest epoch under which anything was accepted that is held here; 0: nothing is.
    #[must_use]
    pub fn highest_epoch(&self) -> u64 {
        let of_place = |place: &Place| {
            let held = place.held.lock();
            held.shard.iter().filter_map(|(_, history)| history.epoch(history.seq())).max()
        };
        self.inner.places.iter().filter_map(of_place).max().unwrap_or(0)
    }

    /// Names of the series that this node owns and a pattern means.
    #[must_use]
    pub fn names(&self, pattern: &Pattern) -> Vec<SeriesName> {
        let owned = self.inner.places.iter().filter(|place| *place.ready.borrow() > 0);
        let mut names = Vec::new();
        for place in owned {
            let held = place.held.lock();
            names.extend(
                held.shard
                    .iter()
                    .map(|(name, _)| name)
                    .filter(|name| pattern.matches(name.as_str()))
                    .cloned(),
            );
        }
        names.sort();
        names
    }
}

impl Inner {
    pub(super) fn place(&self, shard: u16) -> Result<&Place, CopyError> {
        let place = self.places.get(usize::from(shard));
        place.ok_or_else(|| CopyError::Unreachable(format!("there is no shard {shard}")))
    }

    fn restore(&self, entry: &JournalEntry) {
        let name = &entry.tick.series;
        let shard = peregrine_runtime::shard::shard_of(name.as_str().as_bytes(), self.settings.shards).0;
        let Some(place) = self.places.get(usize::from(shard)) else { return };
        let mut held = place.held.lock();
        if held.shard.restore(entry, &self.settings.limits) {
            held.kept.insert(name.clone(), entry.seq);
        }
    }
}

/// Refuses what a wrong clock has dated: it would stay the newest of its series, and all that comes after it old.
fn in_time(tick: &Tick, now: Timestamp, ahead_max: Duration) -> Result<(), TickError> {
    let ahead = u128::try_from(i128::from(tick.at.0) - i128::from(now.0)).unwrap_or(0);
    if ahead <= ahead_max.as_nanos() {
        return Ok(());
    }
    let days = ahead / (86_400 * 1_000_000_000);
    Err(TickError::Invalid(format!(
        "`ts` is {days} days ahead of this node's clock: check its unit (milliseconds) and the sender's clock, or allow \
         it by series.ahead_max"
    )))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::tick::{SeriesName, Tick, Timestamp};
    use super::in_time;

    #[test]
    fn what_is_dated_too_far_ahead_is_refused_and_the_past_never() {
        let dated = |at: i64| {
            let tick = Tick {
                series: SeriesName::new("USD").expect("a name"),
                at: Timestamp(at),
                value: Some(1.0),
                hist_exog: Vec::new(),
                futr_exog: Vec::new(),
                stat_exog: Vec::new(),
                trace: Default::default(),
            };
            in_time(&tick, Timestamp(1_000), Duration::from_nanos(50)).is_ok()
        };
        assert_eq!([i64::MIN, 0, 1_000, 1_050].map(dated), [true; 4]);
        assert_eq!([1_051, i64::MAX].map(dated), [false; 2]);
    }
}
