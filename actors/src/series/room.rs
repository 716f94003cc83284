//! The series of one node: takes ticks for the shards it owns, keeps copies of those of others, and has the windows
//! forecast.
//!
//! A tick is answered when the journal and the copy on another node have it; its prediction does not wait for that.
//! Decides nothing about logs (`shard`), windows (`history`, `window`) or who wants what (`wants`).

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use peregrine_runtime::{Clock, Deadline};
use peregrine_shaders::ModelSpec;
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::time::timeout_at;

use super::copies::{Copies, CopyError, Standby};
use super::counters::{Counters, SeriesStats};
use super::journal::{Journal, JournalEntry, JournalError};
use super::predictor::{Predictor, Tools, Work};
use super::wants::{Want, Wants};
use super::window::Unready;
use super::{
    Effect, History, LogEnd, Pattern, SeriesLog, SeriesName, Shard, ShardLimits, Taken, Tick, TickError,
    Timestamp,
};
use crate::stream::{SourceError, StreamEvent, StreamId};
use crate::system::System;

/// Everything that can be chosen about the series of a node.
#[derive(Clone, Debug, PartialEq)]
pub struct SeriesSettings {
    /// Shards that series are cut into; the same on all nodes, for ever.
    pub shards: u16,
    /// Of each shard.
    pub limits: ShardLimits,
    /// Predictions that one replay makes at most; older ones are gone.
    pub replay_max: usize,
    /// Windows of one model that wait to be forecast. One more, and its stream skips to its newest.
    pub queue_max: usize,
    /// Windows of one batch.
    pub rows_max: usize,
    /// Longest that a prediction is tried for.
    pub predict_within: Duration,
    /// Longest that a new owner waits for the copies of nodes that are there and do not answer.
    pub recover_max: Duration,
    /// Predictions that are made and scored though nobody subscribed.
    pub always: Vec<(Arc<str>, Pattern)>,
}

/// Where predictions go.
pub trait Outlet: Send + Sync + 'static {
    /// Hands an event to the hubs of these nodes, in order for each stream. Must not block. Comes with no nodes for what
    /// is only scored.
    fn deliver(&self, nodes: &[Arc<str>], event: StreamEvent);

    /// A place of a series has this value.
    fn observed(&self, series: &SeriesName, position: u64, value: f32);
}

/// What the room is made of.
pub struct SeriesParts {
    /// What can be chosen.
    pub settings: SeriesSettings,
    /// Who forecasts.
    pub system: System,
    /// What time it is.
    pub clock: Arc<dyn Clock>,
    /// The disk, if there is one.
    pub journal: Option<Arc<dyn Journal>>,
    /// The other nodes.
    pub copies: Arc<dyn Copies>,
    /// Where predictions go.
    pub outlet: Arc<dyn Outlet>,
    /// Where predictions and recoveries run.
    pub runtime: Handle,
}

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
    outlet: Arc<dyn Outlet>,
    pub(super) runtime: Handle,
    pub(super) places: Box<[Place]>,
    wants: ArcSwap<Wants>,
    /// One change at a time.
    wanting: Mutex<()>,
    predictors: Mutex<HashMap<Arc<str>, Arc<Predictor>>>,
    /// Shapes of models that only other nodes serve.
    shapes: Mutex<HashMap<Arc<str>, Arc<ModelSpec>>>,
    pub(super) counters: Arc<Counters>,
}

/// A shard's place on this node.
pub(super) struct Place {
    pub(super) held: Mutex<Held>,
    /// The epoch under which this node owns it and is ready to; 0: it does not.
    pub(super) ready: watch::Sender<u64>,
}

#[derive(Default)]
pub(super) struct Held {
    pub(super) shard: Shard,
    /// What is wanted of each series, and at which generation that was found.
    wanted: HashMap<SeriesName, (u64, Arc<[Want]>)>,
    /// Numbers up to which the journal has a series.
    kept: HashMap<SeriesName, u64>,
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
        if *place.ready.borrow() < epoch {
            let mut ready = place.ready.subscribe();
            let ready = timeout_at(deadline.instant().into(), ready.wait_for(|ready| *ready >= epoch)).await;
            ready.map_err(|_| FeedError::Deadline)?.map_err(|_| FeedError::NotOwner)?;
        }
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

    /// Applies ticks and hands their windows to the predictors. Also says which series they were for.
    #[expect(clippy::type_complexity, reason = "one caller, just above")]
    fn apply(
        &self,
        place: &Place,
        epoch: u64,
        ticks: &[Tick],
    ) -> Result<(Vec<Result<Effect, TickError>>, HashSet<SeriesName>), FeedError> {
        let inner = &self.inner;
        let accepted_at = timestamp(inner.clock.wall());
        let mut held = place.held.lock();
        if held.shard.fence() > epoch {
            return Err(FeedError::NotOwner);
        }
        let mut touched = HashSet::new();
        let mut effects = Vec::with_capacity(ticks.len());
        for tick in ticks {
            let effect = held.shard.feed(tick, epoch, &inner.settings.limits);
            inner.counters.fed(&effect);
            if let Ok(Effect::Advanced { seq } | Effect::Inserted { seq }) = effect {
                self.followed(&mut held, tick, seq, accepted_at);
            }
            if effect.is_ok() && !touched.contains(&tick.series) {
                touched.insert(tick.series.clone());
            }
            effects.push(effect);
        }
        Ok((effects, touched))
    }

    /// What follows from a tick that changed a window.
    fn followed(&self, held: &mut Held, tick: &Tick, seq: u64, accepted_at: Timestamp) {
        let inner = &self.inner;
        let wants = inner.wanted(held, &tick.series);
        let Some(history) = held.shard.get(&tick.series) else { return };
        if let (Some(value), Some(position)) = (tick.value, history.position_of(seq)) {
            inner.outlet.observed(&tick.series, position, value);
        }
        for want in &*wants {
            let Some(spec) = inner.shape(&want.model) else {
                self.learn(&want.model);
                continue;
            };
            match inner.work(history, &tick.series, want, seq, &spec, accepted_at) {
                Ok(work) => self.predictor(&want.model).submit(work),
                // Its stream has not begun, or never will.
                Err(Unready::Short { .. } | Unready::Several(_)) => {}
                Err(_) => inner.give_up(&tick.series, want, seq),
            }
        }
    }

    /// Which predictions a node wants from now on, all of them.
    pub fn want(&self, node: &str, wanted: Vec<(Arc<str>, Pattern)>) {
        let inner = &self.inner;
        let _one = inner.wanting.lock();
        let models: HashSet<Arc<str>> = wanted.iter().map(|(model, _)| Arc::clone(model)).collect();
        if let Some(next) = inner.wants.load().with(node, wanted) {
            inner.wants.store(Arc::new(next));
        }
        for model in models.iter().filter(|model| inner.shape(model).is_none()) {
            self.learn(model);
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
            let now = timestamp(inner.clock.wall());
            inner.work(history, &stream.series, want, history.seq(), &spec, now).ok()
        };
        hand_over(work());
    }

    /// Has the newest window of every series of a shard forecast that somebody wants.
    pub(super) fn refresh(&self, place: &Place) {
        let inner = &self.inner;
        let now = timestamp(inner.clock.wall());
        let mut held = place.held.lock();
        let names: Vec<SeriesName> = held.shard.iter().map(|(name, _)| name.clone()).collect();
        for name in names {
            let wants = inner.wanted(&mut held, &name);
            let Some(history) = held.shard.get(&name) else { continue };
            for want in &*wants {
                let Some(spec) = inner.shape(&want.model) else { continue };
                if let Ok(work) = inner.work(history, &name, want, history.seq(), &spec, now) {
                    self.predictor(&want.model).submit(work);
                }
            }
        }
    }

    /// Asks for the shape of a model that this node does not serve.
    fn learn(&self, model: &Arc<str>) {
        let (inner, model) = (Arc::clone(&self.inner), Arc::clone(model));
        let deadline = Deadline::after(inner.clock.now(), inner.settings.predict_within);
        self.inner.runtime.spawn(async move {
            if let Ok(found) = inner.system.locate(&model, None, deadline).await {
                inner.shapes.lock().insert(model, Arc::clone(&found.spec));
            }
        });
    }
}

impl Inner {
    pub(super) fn place(&self, shard: u16) -> Result<&Place, CopyError> {
        let place = self.places.get(usize::from(shard));
        place.ok_or_else(|| CopyError::Unreachable(format!("there is no shard {shard}")))
    }

    /// The window of a series as work for a model.
    fn work(
        &self,
        history: &History,
        series: &SeriesName,
        want: &Want,
        seq: u64,
        spec: &ModelSpec,
        accepted_at: Timestamp,
    ) -> Result<Work, Unready> {
        Ok(Work {
            stream: StreamId { model: Arc::clone(&want.model), series: series.clone() },
            nodes: Arc::clone(&want.nodes),
            seq,
            epoch: history.epoch(seq).unwrap_or(0),
            position: history.position_of(seq).unwrap_or(0),
            last: history.last(seq).unwrap_or(Timestamp(0)),
            accepted_at,
            windows: history.window(seq, spec)?,
            skipped_from: None,
        })
    }

    fn give_up(&self, series: &SeriesName, want: &Want, seq: u64) {
        self.counters.failed();
        let stream = StreamId { model: Arc::clone(&want.model), series: series.clone() };
        let gap = super::predictor::gap(&stream, seq, seq, crate::stream::GapReason::Failed);
        self.outlet.deliver(&want.nodes, StreamEvent::Gap(gap));
    }

    fn wanted(&self, held: &mut Held, series: &SeriesName) -> Arc<[Want]> {
        let wants = self.wants.load();
        if let Some((generation, known)) = held.wanted.get(series)
            && *generation == wants.generation()
        {
            return Arc::clone(known);
        }
        let found: Arc<[Want]> = wants.of(series).into();
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

    fn restore(&self, entry: &JournalEntry) {
        let name = &entry.tick.series;
        let shard = peregrine_runtime::shard::shard_of(name.as_str().as_bytes(), self.settings.shards).0;
        let Some(place) = self.places.get(usize::from(shard)) else { return };
        let mut held = place.held.lock();
        let after = held.shard.get(name).and_then(|history| history.epoch(entry.seq - 1));
        let log = SeriesLog {
            series: name.clone(),
            first: entry.seq,
            after,
            ticks: vec![(entry.epoch, entry.tick.clone())],
        };
        if held.shard.take(&log, &self.settings.limits) == Taken::UpTo(entry.seq) {
            held.kept.insert(name.clone(), entry.seq);
        }
    }

    /// Lets the journal keep what it does not have of these series.
    pub(super) async fn keep(
        &self,
        place: &Place,
        touched: &HashSet<SeriesName>,
    ) -> Result<(), JournalError> {
        let Some(journal) = &self.journal else { return Ok(()) };
        let (entries, ends) = {
            let held = place.held.lock();
            let mut entries = Vec::new();
            let mut ends = Vec::new();
            for name in touched {
                let Some(history) = held.shard.get(name) else { continue };
                let kept = held.kept.get(name).copied().unwrap_or(0);
                for seq in (kept + 1).max(history.first_seq())..=history.seq() {
                    let (Some(epoch), Some(tick)) = (history.epoch(seq), history.tick(name, seq)) else {
                        continue;
                    };
                    entries.push(JournalEntry { seq, epoch, tick });
                }
                ends.push((name, history.seq()));
            }
            (entries, ends)
        };
        if entries.is_empty() {
            return Ok(());
        }
        journal.append(entries).await?;
        let mut held = place.held.lock();
        for (name, seq) in ends {
            let kept = held.kept.entry(name.clone()).or_default();
            *kept = (*kept).max(seq);
        }
        Ok(())
    }

    /// Brings the copy of these series up to date, if there is to be one.
    async fn copy(
        &self,
        place: &Place,
        shard: u16,
        epoch: u64,
        touched: &HashSet<SeriesName>,
        deadline: Deadline,
    ) -> Result<(), CopyError> {
        loop {
            let failed = match self.copies.standby(shard) {
                Standby::Nobody => return Ok(()),
                Standby::Missing => {
                    CopyError::Unreachable("no other node is there to hold a copy".to_owned())
                }
                Standby::On(holder) => {
                    let logs = place.held.lock().shard.lacking(&holder, touched);
                    if logs.is_empty() {
                        return Ok(());
                    }
                    match self.copies.replicate(&holder, shard, epoch, logs, deadline).await {
                        Ok(answers) => {
                            let mut held = place.held.lock();
                            for (series, taken) in answers {
                                held.shard.answered(&holder, &series, taken);
                            }
                            continue;
                        }
                        Err(CopyError::Fenced) => return Err(CopyError::Fenced),
                        Err(failed) => failed,
                    }
                }
            };
            if deadline.expired(self.clock.now() + PATIENCE) {
                return Err(failed);
            }
            // A node may be gone, which the members will know in a moment; another one is then named.
            tokio::time::sleep(PATIENCE).await;
        }
    }
}

/// Between two tries to reach a copy.
const PATIENCE: Duration = Duration::from_millis(50);

impl Held {
    /// Takes logs of other nodes; says how each went, and which series they were of.
    pub(super) fn take(
        &mut self,
        logs: &[SeriesLog],
        limits: &ShardLimits,
    ) -> (Vec<(SeriesName, Taken)>, HashSet<SeriesName>) {
        let mut taken = Vec::with_capacity(logs.len());
        let mut touched = HashSet::with_capacity(logs.len());
        for log in logs {
            // What is replaced has to be kept again.
            let kept = self.kept.entry(log.series.clone()).or_default();
            *kept = (*kept).min(log.first.saturating_sub(1));
            taken.push((log.series.clone(), self.shard.take(log, limits)));
            touched.insert(log.series.clone());
        }
        (taken, touched)
    }
}

/// The time of day; what does not fit is cut off.
pub(super) fn timestamp(wall: SystemTime) -> Timestamp {
    let since = wall.duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp(i64::try_from(since.as_nanos()).unwrap_or(i64::MAX))
}
