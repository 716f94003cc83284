//! Series of several nodes in one process: what is acknowledged, what is predicted, and what survives.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;
use peregrine_runtime::{Clock as _, Deadline, SystemClock};
use peregrine_shaders::cpu::CpuExecutor;
use peregrine_shaders::{Executor, Forecaster, Windows};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

use super::{MODEL, WINDOW, forecaster, until};
use crate::series::{
    Alone, Copies, CopyError, Effect, FeedError, History, Holder, Journal, JournalEntry, JournalError,
    LogEnd, Outlet, Pattern, Scatter, Series, SeriesLog, SeriesName, SeriesParts, SeriesSettings,
    ShardLimits, Standby, Taken, Tick, TickError, Timestamp,
};
use crate::stream::{GapReason, Prediction, SourceError, StreamEvent, StreamId};
use crate::{ExecutorFactory, ForecastRequest, Settings, System};

/// Keeps what is delivered to it.
#[derive(Default)]
pub(super) struct Hub {
    pub(super) events: Mutex<Vec<(Vec<String>, StreamEvent)>>,
    truths: Mutex<Vec<(String, u64, f32)>>,
}

impl Outlet for Hub {
    fn deliver(&self, nodes: &[Arc<str>], event: StreamEvent) {
        self.events.lock().push((nodes.iter().map(ToString::to_string).collect(), event));
    }

    fn observed(&self, series: &SeriesName, position: u64, value: f32) {
        self.truths.lock().push((series.to_string(), position, value));
    }
}

impl Hub {
    pub(super) fn predictions(&self) -> Vec<Arc<Prediction>> {
        let events = self.events.lock();
        let predictions = events.iter().filter_map(|(_, event)| match event {
            StreamEvent::Prediction(prediction) => Some(Arc::clone(prediction)),
            StreamEvent::Gap(_) => None,
        });
        predictions.collect()
    }
}

/// A disk that remembers, or refuses.
#[derive(Default)]
struct Disk {
    entries: Mutex<Vec<JournalEntry>>,
    full: Mutex<bool>,
}

#[async_trait]
impl Journal for Disk {
    fn places(&self) -> usize {
        usize::MAX
    }

    async fn keep(&self, entries: Vec<JournalEntry>, _: Vec<Scatter>) -> Result<(), JournalError> {
        if *self.full.lock() {
            return Err(JournalError::Disk("no space left on device".to_owned()));
        }
        self.entries.lock().extend(entries);
        Ok(())
    }

    fn restore(&self, each: &mut dyn FnMut(JournalEntry)) -> Result<(), JournalError> {
        let mut entries = self.entries.lock().clone();
        entries.sort_by_key(|entry| (entry.tick.series.clone(), entry.seq));
        entries.into_iter().for_each(each);
        Ok(())
    }

    async fn forget(&self, series: SeriesName) -> Result<(), JournalError> {
        self.entries.lock().retain(|entry| entry.tick.series != series);
        Ok(())
    }
}

/// Nodes that reach each other by a call, unless one of the two is down.
#[derive(Clone, Default)]
struct Net {
    nodes: Arc<Mutex<Nodes>>,
}

/// By name; none while it is down.
type Nodes = Vec<(String, Option<Series>)>;

struct Link {
    net: Net,
    me: String,
}

impl Link {
    fn reach(&self, to: &Holder) -> Result<Series, CopyError> {
        let nodes = self.net.nodes.lock();
        let up =
            |name: &str| nodes.iter().find(|(known, _)| known == name).and_then(|(_, node)| node.clone());
        let gone = || CopyError::Unreachable("down".to_owned());
        up(&self.me).ok_or_else(gone)?;
        up(&to.0).ok_or_else(gone)
    }
}

#[async_trait]
impl Copies for Link {
    fn standby(&self, _: u16) -> Standby {
        match self.others().into_iter().next() {
            Some(holder) => Standby::On(holder),
            None if self.net.nodes.lock().len() > 1 => Standby::Missing,
            None => Standby::Nobody,
        }
    }

    fn others(&self) -> Vec<Holder> {
        let nodes = self.net.nodes.lock();
        let others = nodes.iter().filter(|(name, node)| *name != self.me && node.is_some());
        others.map(|(name, _)| (name.as_str().into(), 1)).collect()
    }

    async fn replicate(
        &self,
        to: &Holder,
        shard: u16,
        epoch: u64,
        logs: Vec<SeriesLog>,
        _: Deadline,
    ) -> Result<Vec<(SeriesName, Taken)>, CopyError> {
        self.reach(to)?.replicate(shard, epoch, logs).await
    }

    async fn ends(&self, of: &Holder, shard: u16, epoch: u64, _: Deadline) -> Result<Vec<LogEnd>, CopyError> {
        self.reach(of)?.ends(shard, epoch)
    }

    async fn fetch(
        &self,
        of: &Holder,
        shard: u16,
        series: Vec<SeriesName>,
        _: Deadline,
    ) -> Result<Vec<SeriesLog>, CopyError> {
        self.reach(of)?.fetch(shard, &series)
    }
}

fn settings() -> SeriesSettings {
    SeriesSettings {
        shards: 4,
        limits: ShardLimits { history: WINDOW + 64, series_max: 100, steps: Vec::new() },
        ahead_max: Duration::from_secs(1 << 32),
        replay_max: 32,
        queue_max: 64,
        rows_max: 16,
        predict_within: Duration::from_secs(5),
        recover_max: Duration::from_millis(500),
        always: Vec::new(),
    }
}

async fn system() -> System {
    let cpu: ExecutorFactory = Arc::new(|| Ok(Box::new(CpuExecutor::new(1)) as Box<dyn Executor>));
    let system = System::start(Settings::default(), cpu, None, Arc::new(SystemClock), 7).unwrap();
    system.load(forecaster(), 1).await.unwrap();
    system
}

pub(super) fn start(
    system: &System,
    hub: &Arc<Hub>,
    journal: Option<Arc<dyn Journal>>,
    copies: Arc<dyn Copies>,
) -> Series {
    start_with(settings(), system, hub, journal, copies)
}

fn start_with(
    settings: SeriesSettings,
    system: &System,
    hub: &Arc<Hub>,
    journal: Option<Arc<dyn Journal>>,
    copies: Arc<dyn Copies>,
) -> Series {
    let parts = SeriesParts {
        settings,
        system: system.clone(),
        clock: Arc::new(SystemClock),
        journal,
        copies,
        outlet: hub.clone(),
        runtime: tokio::runtime::Handle::current(),
    };
    Series::start(parts).unwrap()
}

pub(super) fn name(name: &str) -> SeriesName {
    SeriesName::new(name).unwrap()
}

fn value(at: i64) -> f32 {
    ((at * 7919 % 1013) as f32).sin()
}

pub(super) fn tick(series: &str, at: i64) -> Tick {
    Tick {
        series: name(series),
        at: Timestamp(at),
        value: Some(value(at)),
        hist_exog: Vec::new(),
        futr_exog: Vec::new(),
        stat_exog: Vec::new(),
        trace: crate::Trace::default(),
    }
}

pub(super) fn ticks(series: &str, at: std::ops::Range<i64>) -> Vec<Tick> {
    at.map(|at| tick(series, at)).collect()
}

fn soon() -> Deadline {
    Deadline::after(SystemClock.now(), Duration::from_secs(10))
}

pub(super) async fn feed(series: &Series, epoch: u64, ticks: Vec<Tick>) -> Vec<Result<Effect, TickError>> {
    let shard = series.shard_of(&ticks[0].series);
    series.feed(shard, epoch, ticks, soon()).await.unwrap()
}

fn stream(series: &str) -> StreamId {
    StreamId { model: MODEL.into(), series: name(series) }
}

pub(super) fn everything() -> Vec<(Arc<str>, Pattern)> {
    vec![(MODEL.into(), Pattern::new("*").unwrap())]
}

pub(super) const L: i64 = WINDOW as i64;

#[tokio::test]
async fn each_tick_of_a_full_window_is_followed_by_its_forecast() {
    let (system, hub) = (system().await, Arc::<Hub>::default());
    let series = start(&system, &hub, None, Arc::new(Alone));
    series.want("here", everything());
    (0..4).for_each(|shard| series.gained(shard, 9));
    let effects = feed(&series, 9, ticks("a", 0..L + 3)).await;
    let want: Vec<_> = (1..=WINDOW as u64 + 3).map(|seq| Ok(Effect::Advanced { seq })).collect();
    assert_eq!(effects, want);
    until("four predictions", || hub.predictions().len() == 4).await;
    for (made, end) in hub.predictions().iter().zip(L..) {
        assert_eq!((made.seq, made.epoch, made.last), (end as u64, 9, Timestamp(end - 1)));
        let y = (end - L..end).map(value).collect();
        let windows = Windows { rows: 1, y, ..Windows::default() };
        let request = ForecastRequest::new(MODEL, windows, soon());
        let direct = system.forecast(request).await.unwrap();
        assert_eq!(*made.values, *direct.values);
        assert!(made.accepted_at.is_some_and(|accepted_at| made.made_at >= accepted_at));
    }
    assert!(hub.events.lock().iter().all(|(nodes, _)| *nodes == ["here"]));
    let truths = hub.truths.lock();
    assert_eq!(truths.len(), WINDOW + 3);
    let last = hub.predictions()[3].position;
    assert_eq!(truths.last(), Some(&("a".to_owned(), last, value(L + 2))), "the newest place");
}

/// Where predictions were made from and truths are told of, counted from the newest observation before a late one.
async fn places_around_a_late_tick(step: Option<i64>) -> (Vec<i64>, Vec<(i64, f32)>) {
    let (system, hub, disk) = (system().await, Arc::<Hub>::default(), Arc::<Disk>::default());
    let mut settings = settings();
    settings.limits.steps = step.map(|step| (Pattern::all(), step)).into_iter().collect();
    let series = start_with(settings.clone(), &system, &hub, Some(disk.clone()), Arc::new(Alone));
    series.want("here", everything());
    (0..4).for_each(|shard| series.gained(shard, 9));
    feed(&series, 9, (0..L).map(|place| tick("a", place * 10)).collect()).await;
    until("the first", || hub.predictions().len() == 1).await;
    let before = hub.truths.lock().len();
    for (place, made) in [L + 1, L, L + 2].into_iter().zip(2..) {
        feed(&series, 9, vec![tick("a", place * 10)]).await;
        until("the next", || hub.predictions().len() == made).await;
    }
    let live = hub.predictions();
    let start = i64::try_from(live[0].position).unwrap();
    let place = |position: u64| i64::try_from(position).unwrap() - start;
    let made: Vec<i64> = live.iter().map(|one| place(one.position)).collect();
    let truths = hub.truths.lock()[before..].iter().map(|&(_, at, value)| (place(at), value)).collect();
    // Made again, by this node and by one that has the series from the journal, they are about the same places.
    let again = start_with(settings, &system, &hub, Some(disk), Arc::new(Alone));
    (0..4).for_each(|shard| again.gained(shard, 9));
    for series in [series, again] {
        let shard = series.shard_of(&name("a"));
        series.owns(shard, 9, soon()).await.unwrap();
        let events = series.replay(&stream("a"), live[0].seq, soon()).await.unwrap();
        let replayed = events.iter().map(|event| match event {
            StreamEvent::Prediction(one) => place(one.position),
            StreamEvent::Gap(gap) => panic!("{gap:?}"),
        });
        assert_eq!(replayed.collect::<Vec<_>>(), made);
    }
    (made, truths)
}

#[tokio::test]
async fn a_prediction_after_a_late_tick_is_about_what_comes_after_its_newest_observation() {
    let of = |place: i64| value(place * 10);
    let (made, truths) = places_around_a_late_tick(Some(10)).await;
    assert_eq!(made, [0, 2, 2, 3]);
    assert_eq!(truths, [(2, of(L + 1)), (1, of(L)), (3, of(L + 2))], "in its slot of the grid");
    let (made, truths) = places_around_a_late_tick(None).await;
    assert_eq!(made, [0, 1, 1, 2]);
    assert_eq!(
        truths,
        [(1, of(L + 1)), (2, of(L + 2))],
        "without a grid, it stands where nothing was forecast"
    );
}

#[tokio::test]
async fn a_wish_that_comes_after_the_tick_brings_its_prediction() {
    let (system, hub) = (system().await, Arc::<Hub>::default());
    let series = start(&system, &hub, None, Arc::new(Alone));
    (0..3).for_each(|shard| series.gained(shard, 9));
    let owned = |name: &String| series.shard_of(&self::name(name)) < 3;
    let names: Vec<String> = (0..10).map(|at| format!("s{at}")).filter(owned).collect();
    for name in &names {
        feed(&series, 9, ticks(name, 0..L)).await;
    }
    assert!(hub.events.lock().is_empty(), "nobody wants to know");
    let wished = |of: &str| vec![(Arc::from(MODEL), Pattern::new(of).unwrap())];
    let made = || {
        let mut made: Vec<(String, u64)> =
            hub.predictions().iter().map(|one| (one.stream.series.to_string(), one.seq)).collect();
        made.sort();
        made
    };
    // Of all it wants, then of what it wants besides; the same again is nothing new.
    let new = series.want("there", wished(&names[0]));
    assert_eq!(new, wished(&names[0]));
    series.catch_up(&new);
    until("the newest of one", || made() == [(names[0].clone(), L as u64)]).await;
    assert!(series.want("there", wished(&names[0])).is_empty());
    let both = [wished(&names[0]), wished(&names[1])].concat();
    let new = series.want("there", both.clone());
    assert_eq!(new, wished(&names[1]));
    series.catch_up(&new);
    until("the newest of another", || made().len() == 2).await;
    assert_eq!(made()[1], (names[1].clone(), L as u64));
    // A node that was gone, and is back, knows nothing.
    series.want("there", Vec::new());
    assert_eq!(series.want("there", both.clone()), both);
}

#[tokio::test]
async fn a_replay_is_what_the_stream_carried() {
    let (system, hub) = (system().await, Arc::<Hub>::default());
    let series = start(&system, &hub, None, Arc::new(Alone));
    series.want("here", everything());
    (0..4).for_each(|shard| series.gained(shard, 9));
    feed(&series, 9, ticks("a", 0..L + 40)).await;
    until("all predictions", || hub.predictions().len() == 41).await;
    let live = hub.predictions();
    let events = series.replay(&stream("a"), L as u64 + 1, soon()).await.unwrap();
    let StreamEvent::Gap(gap) = &events[0] else { panic!("the oldest are gone") };
    assert_eq!((gap.from, gap.to, gap.reason), (L as u64 + 1, L as u64 + 8, GapReason::Expired));
    for (event, live) in events[1..].iter().zip(&live[9..]) {
        let StreamEvent::Prediction(again) = event else { panic!("{event:?}") };
        assert_eq!((again.seq, again.last, &again.values), (live.seq, live.last, &live.values));
    }
    assert_eq!(events.len(), 1 + 32);
    assert!(series.replay(&stream("a"), L as u64 + 41, soon()).await.unwrap().is_empty());
    let unknown = series.replay(&stream("b"), 1, soon()).await.unwrap_err();
    assert_eq!(unknown, SourceError::UnknownSeries("b".to_owned()));
    let newest = series.newest(MODEL, &Pattern::new("a*").unwrap(), soon()).await.unwrap();
    assert_eq!((newest.len(), newest[0].seq), (1, L as u64 + 40));
    // From before the stream began: there never was one.
    feed(&series, 9, ticks("c", 0..L + 2)).await;
    let from_start = series.replay(&stream("c"), 1, soon()).await.unwrap();
    assert_eq!(
        told(&from_start),
        [(1, L as u64 - 1, Some(GapReason::Failed)), made(L), made(L + 1), made(L + 2)]
    );
    let from_start = series.replay(&stream("a"), 1, soon()).await.unwrap();
    let gone = [(1, L as u64 - 1, GapReason::Failed), (L as u64, L as u64 + 8, GapReason::Expired)];
    assert_eq!(told(&from_start)[..2], gone.map(|(from, to, reason)| (from, to, Some(reason))));
    assert_eq!(told(&from_start)[2..], (L + 9..=L + 40).map(made).collect::<Vec<_>>());
}

/// What events are about, and why there is no prediction.
fn told(events: &[StreamEvent]) -> Vec<(u64, u64, Option<GapReason>)> {
    let one = |event: &StreamEvent| match event {
        StreamEvent::Prediction(one) => (one.seq, one.seq, None),
        StreamEvent::Gap(gap) => (gap.from, gap.to, Some(gap.reason)),
    };
    events.iter().map(one).collect()
}

fn made(seq: i64) -> (u64, u64, Option<GapReason>) {
    (seq as u64, seq as u64, None)
}

#[tokio::test]
async fn a_model_whose_window_is_longer_than_what_is_kept_follows_nothing() {
    let (system, hub) = (system().await, Arc::<Hub>::default());
    let mut settings = settings();
    settings.limits.history = WINDOW - 1;
    let series = start_with(settings, &system, &hub, None, Arc::new(Alone));
    (0..4).for_each(|shard| series.gained(shard, 9));
    feed(&series, 9, ticks("a", 0..L)).await;
    let refused = [
        series.replay(&stream("a"), 1, soon()).await.map(drop),
        series.newest(MODEL, &Pattern::all(), soon()).await.map(drop),
    ];
    for refused in refused {
        let Err(SourceError::Unsuitable(why)) = &refused else { panic!("{refused:?}") };
        assert!(
            why.contains("series.history") && why.contains(MODEL) && why.contains(&L.to_string()),
            "{why}"
        );
    }
}

#[tokio::test]
async fn what_could_not_be_forecast_is_told_again_as_that() {
    let (system, hub) = (system().await, Arc::<Hub>::default());
    let mut settings = settings();
    settings.limits.steps = vec![(Pattern::all(), 10)];
    let series = start_with(settings, &system, &hub, None, Arc::new(Alone));
    series.want("here", everything());
    (0..4).for_each(|shard| series.gained(shard, 9));
    // On a grid: the third tick fills the window, and holds nothing; the next ones do.
    let slots = [0, 1, L + 1, L + 2, L + 3];
    let unseen = |place: i64| Tick { value: None, ..tick("a", place * 10) };
    feed(&series, 9, slots[..2].iter().map(|&place| unseen(place)).collect()).await;
    feed(&series, 9, vec![unseen(slots[2])]).await;
    feed(&series, 9, slots[3..].iter().map(|&place| tick("a", place * 10)).collect()).await;
    until("its predictions", || hub.predictions().len() == 2).await;
    let live = hub.events.lock().iter().map(|(_, event)| event.clone()).collect::<Vec<_>>();
    assert_eq!(told(&live), [(3, 3, Some(GapReason::Failed)), made(4), made(5)]);
    let again = series.replay(&stream("a"), 1, soon()).await.unwrap();
    assert_eq!(told(&again), [(1, 3, Some(GapReason::Failed)), made(4), made(5)]);
}

#[tokio::test]
async fn who_goes_on_beyond_the_newest_number_is_told_and_gets_the_newest() {
    let (system, hub) = (system().await, Arc::<Hub>::default());
    let series = start(&system, &hub, None, Arc::new(Alone));
    (0..4).for_each(|shard| series.gained(shard, 9));
    feed(&series, 9, ticks("a", 0..L + 4)).await;
    let lost = |event: &StreamEvent| match event {
        StreamEvent::Gap(gap) => (gap.from, gap.to, gap.reason),
        StreamEvent::Prediction(_) => panic!("{event:?}"),
    };
    let newest = L as u64 + 4;
    for from in [newest + 2, 1_000_000] {
        let events = series.replay(&stream("a"), from, soon()).await.unwrap();
        assert_eq!(lost(&events[0]), (from, newest - 1, GapReason::Lost));
        assert!(matches!(&events[1..], [StreamEvent::Prediction(one)] if one.seq == newest), "{events:?}");
    }
    // Too few observations for a prediction, and none.
    feed(&series, 9, ticks("b", 0..2)).await;
    for (name, to) in [("b", 2), ("c", 0)] {
        let events = series.replay(&stream(name), 9, soon()).await.unwrap();
        assert_eq!(events.iter().map(lost).collect::<Vec<_>>(), [(9, to, GapReason::Lost)]);
    }
}

/// What followed the predictions of a stream: the numbers of gaps and why they are.
fn gaps(hub: &Hub) -> Vec<(u64, u64, GapReason)> {
    let events = hub.events.lock();
    let gaps = events.iter().filter_map(|(_, event)| match event {
        StreamEvent::Gap(gap) => Some((gap.from, gap.to, gap.reason)),
        StreamEvent::Prediction(_) => None,
    });
    gaps.collect()
}

#[tokio::test]
async fn who_follows_a_model_that_is_served_no_more_is_told_at_each_tick() {
    let (system, hub) = (system().await, Arc::<Hub>::default());
    let shorter = concat!(env!("CARGO_MANIFEST_DIR"), "/../models/nbeats-vol-quantile");
    let shorter = Forecaster::load(shorter.as_ref()).unwrap().named(MODEL);
    let short = shorter.spec().window as i64;
    assert!(system.unload(MODEL, None).await);
    system.load(Arc::new(shorter), 1).await.unwrap();
    let series = start(&system, &hub, None, Arc::new(Alone));
    series.want("here", everything());
    (0..4).for_each(|shard| series.gained(shard, 9));
    feed(&series, 9, ticks("a", 0..short)).await;
    feed(&series, 9, ticks("not yet", 0..short - 1)).await;
    until("its prediction", || hub.predictions().len() == 1).await;
    assert!(system.unload(MODEL, None).await);
    for at in short..short + 3 {
        feed(&series, 9, vec![tick("a", at)]).await;
        until("a gap", || gaps(&hub).last().is_some_and(|&(_, to, _)| to as i64 == at + 1)).await;
    }
    feed(&series, 9, ticks("not yet", short - 1..short)).await;
    // It is there again, with windows that the series does not fill yet.
    system.load(forecaster(), 2).await.unwrap();
    feed(&series, 9, ticks("a", short + 3..L - 1)).await;
    feed(&series, 9, ticks("not yet", short..short + 1)).await;
    until("all of them", || gaps(&hub).last().is_some_and(|&(_, to, _)| to as i64 == L - 1)).await;
    let mut next = short as u64 + 1;
    for (from, to, reason) in gaps(&hub) {
        assert_eq!((from, reason), (next, GapReason::Failed), "each once, and none of what has not begun");
        next = to + 1;
    }
    let told = gaps(&hub).len();
    feed(&series, 9, ticks("a", L - 1..L)).await;
    // Once more where the node has only then learnt that the model is there: the hub passes on one.
    until("its prediction", || hub.predictions().len() > 1).await;
    assert_eq!((hub.predictions()[1].seq, gaps(&hub).len()), (L as u64, told));
}

#[tokio::test]
async fn a_stream_that_cannot_follow_skips_to_its_newest_window_and_says_so() {
    let (system, hub) = (system().await, Arc::<Hub>::default());
    let series = start(&system, &hub, None, Arc::new(Alone));
    series.want("here", everything());
    (0..4).for_each(|shard| series.gained(shard, 9));
    // Applied at one go: nobody takes windows out of the queue of 64 meanwhile.
    feed(&series, 9, ticks("a", 0..L + 199)).await;
    let last = L as u64 + 199;
    until("the newest", || hub.predictions().last().is_some_and(|newest| newest.seq == last)).await;
    let mut next = L as u64;
    for (_, event) in hub.events.lock().iter() {
        match event {
            StreamEvent::Prediction(prediction) => {
                assert_eq!(prediction.seq, next);
                next += 1;
            }
            StreamEvent::Gap(gap) => {
                assert_eq!((gap.from, gap.reason), (next, GapReason::Conflated));
                next = gap.to + 1;
            }
        }
    }
    assert_eq!(next, last + 1);
    assert!(series.stats().conflated > 0);
}

#[tokio::test]
async fn windows_survive_a_restart_by_the_journal() {
    let (system, hub, disk) = (system().await, Arc::<Hub>::default(), Arc::<Disk>::default());
    let series = start(&system, &hub, Some(disk.clone()), Arc::new(Alone));
    (0..4).for_each(|shard| series.gained(shard, 9));
    feed(&series, 9, ticks("a", 0..L + 100)).await;
    let fed = Timestamp::from(SystemClock.wall());
    let before = series.newest(MODEL, &Pattern::new("a").unwrap(), soon()).await.unwrap();
    drop(series);
    let series = start(&system, &hub, Some(disk.clone()), Arc::new(Alone));
    (0..4).for_each(|shard| series.gained(shard, 10));
    let again = feed(&series, 10, vec![tick("a", L + 99)]).await;
    assert_eq!(again, [Ok(Effect::Duplicate { seq: L as u64 + 100 })]);
    let after = series.newest(MODEL, &Pattern::new("a").unwrap(), soon()).await.unwrap();
    assert_eq!((after[0].seq, &after[0].values), (before[0].seq, &before[0].values));
    // When its tick came is not when it is asked for, and is not made up.
    assert!(before[0].accepted_at.is_some_and(|accepted_at| accepted_at <= fed) && before[0].made_at >= fed);
    assert_eq!(after[0].accepted_at, None);
}

/// A disk with so many places for a series, as the journal has them.
struct Ring {
    places: usize,
    kept: Mutex<Places>,
}

#[derive(Default)]
struct Places {
    ring: BTreeMap<u64, JournalEntry>,
    aside: BTreeMap<u64, JournalEntry>,
    runs: Vec<(u64, u64)>,
}

#[async_trait]
impl Journal for Ring {
    fn places(&self) -> usize {
        self.places
    }

    async fn keep(&self, entries: Vec<JournalEntry>, scattered: Vec<Scatter>) -> Result<(), JournalError> {
        let mut kept = self.kept.lock();
        for entry in entries {
            kept.ring.insert(entry.seq % self.places as u64, entry);
        }
        for scatter in scattered {
            scatter.dropped.iter().for_each(|seq| drop(kept.aside.remove(seq)));
            kept.aside.extend(scatter.aside.into_iter().map(|entry| (entry.seq, entry)));
            kept.runs = scatter.runs;
        }
        Ok(())
    }

    fn restore(&self, each: &mut dyn FnMut(JournalEntry)) -> Result<(), JournalError> {
        let kept = self.kept.lock();
        let mut all: BTreeMap<u64, JournalEntry> = kept.aside.clone();
        all.extend(kept.ring.values().map(|entry| (entry.seq, entry.clone())));
        if !kept.runs.is_empty() {
            all.retain(|seq, _| kept.runs.iter().any(|(first, last)| (first..=last).contains(&seq)));
        }
        all.into_values().for_each(each);
        Ok(())
    }

    async fn forget(&self, _: SeriesName) -> Result<(), JournalError> {
        Ok(())
    }
}

#[tokio::test]
async fn what_is_kept_by_its_time_is_there_after_a_restart() {
    let (system, hub) = (system().await, Arc::<Hub>::default());
    let history = settings().limits.history;
    for (places, seed) in [(history, 1), (history, 2), (history + 9, 3), (history - 9, 4)] {
        let disk = Arc::new(Ring { places, kept: Mutex::default() });
        let start = || start(&system, &hub, Some(disk.clone()), Arc::new(Alone));
        let held = |series: &Series| {
            let mut ticks: Vec<Tick> =
                series.log(&name("a")).unwrap().ticks.into_iter().map(|entry| entry.tick).collect();
            ticks.sort_by_key(|tick| tick.at);
            ticks
        };
        let mut rng = StdRng::seed_from_u64(seed);
        let mut series = start();
        let count = history as i64;
        // Live, then older ones, then live ones until all of it is in order again; in requests of any size.
        let mut order: Vec<i64> = (5 * count..5 * count + 40).collect();
        order.extend((0..3 * count).map(|at| if seed == 2 { rng.random_range(0..5 * count) } else { at }));
        order.extend(5 * count + 40..7 * count);
        let mut rest = &order[..];
        for epoch in 1.. {
            (0..4).for_each(|shard| series.gained(shard, epoch));
            for _ in 0..rng.random_range(1..20) {
                let (now, later) = rest.split_at(rng.random_range(1..30).min(rest.len()));
                if !now.is_empty() {
                    feed(&series, epoch, now.iter().map(|&at| tick("a", at)).collect()).await;
                }
                rest = later;
            }
            let before = held(&series);
            drop(series);
            series = start();
            (0..4).for_each(|shard| series.gained(shard, epoch));
            let newest = &before[before.len().saturating_sub(places)..];
            feed(&series, epoch, vec![newest[newest.len() - 1].clone()]).await;
            assert_eq!(held(&series), newest, "{places} places, epoch {epoch}");
            if rest.is_empty() {
                break;
            }
        }
        let kept = disk.kept.lock();
        assert_eq!((kept.aside.len(), kept.runs.len()), (0, 0), "{places} places: nothing is left behind");
        assert!(kept.ring.len() <= places);
    }
}

#[tokio::test]
async fn what_was_too_late_is_too_late_after_a_restart() {
    let (system, hub, disk) = (system().await, Arc::<Hub>::default(), Arc::<Disk>::default());
    let series = start(&system, &hub, Some(disk.clone()), Arc::new(Alone));
    (0..4).for_each(|shard| series.gained(shard, 9));
    let (kept, sent) = (settings().limits.history as i64, settings().limits.history as i64 + 20);
    feed(&series, 9, ticks("a", 0..sent)).await;
    let again = feed(&series, 9, ticks("a", 0..sent)).await;
    drop(series);
    disk.entries.lock().retain(|entry| entry.seq as i64 > sent - kept);
    let series = start(&system, &hub, Some(disk.clone()), Arc::new(Alone));
    (0..4).for_each(|shard| series.gained(shard, 10));
    assert_eq!(feed(&series, 10, ticks("a", 0..sent)).await, again);
    let seq = sent as u64;
    assert_eq!(again[19..21], [Ok(Effect::TooLate { seq }), Ok(Effect::Duplicate { seq })]);
    // One that was missing among those that are kept still finds its place.
    let mut late = History::new(8, None);
    late.begin_at(3);
    [10, 20].iter().for_each(|&at| late.follow(&tick("a", at), 1));
    assert_eq!(late.apply(&tick("a", 15), 1), Effect::Inserted { seq: 5 });
    assert_eq!(late.apply(&tick("a", 9), 1), Effect::TooLate { seq: 5 });
}

#[tokio::test]
async fn a_tick_that_the_disk_refused_is_not_acknowledged_until_it_is_there() {
    let (system, hub, disk) = (system().await, Arc::<Hub>::default(), Arc::<Disk>::default());
    let series = start(&system, &hub, Some(disk.clone()), Arc::new(Alone));
    (0..4).for_each(|shard| series.gained(shard, 9));
    *disk.full.lock() = true;
    let refused = feed(&series, 9, vec![tick("a", 1)]).await;
    assert!(matches!(refused[..], [Err(TickError::Unavailable(_))]), "{refused:?}");
    let again = feed(&series, 9, vec![tick("a", 1)]).await;
    assert!(again[0].is_err(), "sent again, it is still not on disk");
    *disk.full.lock() = false;
    assert_eq!(feed(&series, 9, vec![tick("a", 1)]).await, [Ok(Effect::Duplicate { seq: 1 })]);
    assert_eq!(disk.entries.lock().len(), 1);
}

/// Three nodes; the first of those that are up is the copy of whoever owns the shards.
async fn three() -> (System, Net, Vec<(Arc<Hub>, Series)>) {
    let (system, net) = (system().await, Net::default());
    let node = |me: &str| {
        let hub = Arc::<Hub>::default();
        let link = Link { net: net.clone(), me: me.to_owned() };
        let series = start(&system, &hub, None, Arc::new(link));
        net.nodes.lock().push((me.to_owned(), Some(series.clone())));
        (hub, series)
    };
    let nodes = vec![node("a"), node("b"), node("c")];
    (system.clone(), net, nodes)
}

#[tokio::test]
async fn an_acknowledged_tick_survives_the_death_of_its_owner() {
    let (_system, net, nodes) = three().await;
    let (_, a) = &nodes[0];
    (0..4).for_each(|shard| a.gained(shard, 1));
    feed(a, 1, ticks("s", 0..L + 5)).await;
    net.nodes.lock()[0].1 = None;
    // b has the copy; c, which has nothing, takes over.
    let (hub, c) = &nodes[2];
    c.want("c", everything());
    (0..4).for_each(|shard| c.gained(shard, 2));
    let effects = feed(c, 2, vec![tick("s", L + 4), tick("s", L + 5)]).await;
    assert_eq!(
        effects,
        [Ok(Effect::Duplicate { seq: L as u64 + 5 }), Ok(Effect::Advanced { seq: L as u64 + 6 })]
    );
    until("the newest is predicted", || hub.predictions().last().is_some_and(|p| p.seq == L as u64 + 6))
        .await;
    assert_eq!(hub.predictions()[0].seq, L as u64 + 5, "what the former owner may not have delivered");
    assert_eq!(c.stats().incomplete, 0);
    // And the copy went on.
    let held = nodes[1].1.fetch(c.shard_of(&name("s")), &[name("s")]).unwrap();
    assert_eq!(held[0].ticks.last().map(|entry| entry.seq), Some(L as u64 + 6));
}

/// The window that a shard is taken over with is forecast again, those of the ticks that waited for it once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_fed_to_a_new_owner_is_not_forecast_again() {
    const ROUNDS: usize = 300;
    let (system, hub) = (system().await, Arc::<Hub>::default());
    let series = start(&system, &hub, None, Arc::new(Alone));
    series.want("here", everything());
    let shard = series.shard_of(&name("a"));
    series.gained(shard, 1);
    feed(&series, 1, ticks("a", 0..L)).await;
    for round in 0..ROUNDS {
        until("one for each tick and each owner", || hub.predictions().len() == 1 + 2 * round).await;
        let epoch = 2 + round as u64;
        series.gained(shard, epoch);
        feed(&series, epoch, vec![tick("a", L + round as i64)]).await;
    }
    until("the last ones", || hub.predictions().len() == 1 + 2 * ROUNDS).await;
    let mut counts = BTreeMap::<u64, usize>::new();
    hub.predictions().iter().for_each(|prediction| *counts.entry(prediction.seq).or_default() += 1);
    let newest = counts.pop_last();
    assert_eq!(newest, Some((L as u64 + ROUNDS as u64, 1)));
    assert_eq!(counts.into_values().collect::<Vec<_>>(), [2; ROUNDS]);
}

#[tokio::test]
async fn a_former_owner_is_fenced_off() {
    let (_system, _net, nodes) = three().await;
    let ((_, a), (_, b)) = (&nodes[0], &nodes[1]);
    (0..4).for_each(|shard| a.gained(shard, 1));
    feed(a, 1, ticks("s", 0..3)).await;
    (0..4).for_each(|shard| b.gained(shard, 2));
    feed(b, 2, ticks("s", 3..4)).await;
    // a does not know, and cannot acknowledge.
    let shard = a.shard_of(&name("s"));
    assert_eq!(a.feed(shard, 1, ticks("s", 4..5), soon()).await, Err(FeedError::NotOwner));
    assert_eq!(a.replicate(shard, 1, Vec::new()).await, Err(CopyError::Fenced));
}

#[tokio::test]
async fn a_node_that_sees_no_other_acknowledges_nothing() {
    let (_system, net, nodes) = three().await;
    net.nodes.lock()[1].1 = None;
    net.nodes.lock()[2].1 = None;
    let (_, a) = &nodes[0];
    (0..4).for_each(|shard| a.gained(shard, 1));
    let shard = a.shard_of(&name("s"));
    let within = Deadline::after(SystemClock.now(), Duration::from_millis(700));
    let refused = a.feed(shard, 1, ticks("s", 0..1), within).await.unwrap();
    assert!(matches!(refused[..], [Err(TickError::Unavailable(_))]), "{refused:?}");
    // A copy that comes gets all of it with the next tick, or with the same one again.
    let series = nodes[1].1.clone();
    net.nodes.lock()[1].1 = Some(series.clone());
    assert_eq!(feed(a, 1, ticks("s", 0..1)).await, [Ok(Effect::Duplicate { seq: 1 })]);
    feed(a, 1, ticks("s", 1..2)).await;
    assert_eq!(series.fetch(shard, &[name("s")]).unwrap()[0].ticks.len(), 2);
}
