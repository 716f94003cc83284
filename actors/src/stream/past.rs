//! What a reader is told before it reads along: the state of its series, or what it has missed.
//!
//! First the series are asked for what this hub does not have; then, stream by stream, the hub's own events are
//! added, and what the log repeats of them is passed over. So nothing is missing and nothing comes twice.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};

use futures_util::{StreamExt, stream};
use peregrine_runtime::Deadline;
use tokio::time::timeout_at;

use super::channel::{Awaited, Subscription};
use super::hub::{Hub, Stream};
use super::order::{end, epoch, first};
use super::prediction::{Gap, GapReason, Prediction, StreamEvent, StreamId};
use super::source::{Source, SourceError};
use crate::series::SeriesName;

/// Replays that one resumption asks for at once.
const REPLAYS_MAX: usize = 16;

/// A sequence number or an epoch of each stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum From {
    /// In all streams.
    All(u64),
    /// By series; there is none of others.
    Each(BTreeMap<SeriesName, u64>),
}

/// What a reader wants to know before it reads along.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wish {
    /// The newest prediction of each series that is not resumed.
    pub snapshot: bool,
    /// What came since then: from these sequence numbers on, inclusive. Other series are read from now on.
    pub from: Option<From>,
    /// Under which epochs the reader knows the numbers before those of `from`.
    pub epoch: Option<From>,
}

/// Where a stream is gone on with.
#[derive(Clone, Copy)]
struct Place {
    from: u64,
    /// Of the number before it.
    epoch: Option<u64>,
}

/// One thing of the past.
#[derive(Clone, Debug)]
pub enum PastItem {
    /// The state of a series.
    Snapshot(Arc<Prediction>),
    /// What happened.
    Event(StreamEvent),
}

/// The past of a reader.
#[derive(Debug, Default)]
pub struct Past {
    /// In the order of their numbers for each stream.
    pub items: VecDeque<PastItem>,
    /// Series that match now, each with the number that comes next.
    pub next: Vec<(SeriesName, u64)>,
    /// Those of them that are known by what they did not bring: none has had a prediction.
    pub silent: Vec<SeriesName>,
}

/// There is no past to be had.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PastError {
    /// The series cannot answer.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// The caller asks for less, or takes a snapshot.
    #[error("more than {past_max} predictions are to be replayed")]
    TooMuch {
        /// The bound.
        past_max: usize,
    },
}

impl Hub {
    /// Gathers what `wish` asks for and moves the reader behind it.
    ///
    /// # Errors
    /// When the model or its series refuse, or there is too much of it. Series that do not answer become gaps.
    pub async fn past(
        &self,
        reader: &mut Subscription,
        wish: &Wish,
        deadline: Deadline,
    ) -> Result<Past, PastError> {
        let source = self.inner.source.get().and_then(Weak::upgrade);
        if let Some(source) = &source {
            self.tell(&**source); // what comes after what is asked for must come here
            self.learn(reader, &**source, deadline).await?;
        }
        // Whoever resumes a series knows that there is one, though its owner may not answer just now.
        let named: Vec<SeriesName> = match &wish.from {
            Some(From::Each(each)) => each.keys().cloned().collect(),
            Some(From::All(_)) => reader.selector().named().collect(),
            None => Vec::new(),
        };
        let model = reader.selector().model();
        let ids = named.into_iter().map(|series| StreamId { model: Arc::clone(model), series });
        for id in ids.filter(|id| reader.selector().matches(id)) {
            self.stream_of(&id, true);
        }
        let streams = self.matching(reader);
        let mut fetched = HashMap::new();
        if let (Some(source), Some(_)) = (&source, &wish.from) {
            fetched = self.fetch(&streams, wish, source, deadline).await?;
        }
        self.gather(reader, &streams, wish, fetched)
    }

    /// Asks once for each channel which streams there are.
    async fn learn(
        &self,
        reader: &Subscription,
        source: &dyn Source,
        deadline: Deadline,
    ) -> Result<(), SourceError> {
        let channel = reader.channel();
        if channel.learnt.load(Ordering::Acquire) {
            return Ok(());
        }
        let mut whole = true;
        for pattern in channel.selector.patterns() {
            let newest = source.newest(channel.selector.model(), pattern, deadline);
            match timeout_at(deadline.instant().into(), newest).await {
                Ok(Ok(known)) => known.into_iter().for_each(|one| self.begin(one)),
                Ok(Err(refused @ (SourceError::UnknownModel(_) | SourceError::Unsuitable(_)))) => {
                    return Err(refused);
                }
                Ok(Err(SourceError::UnknownSeries(_))) => {} // it may begin later
                Ok(Err(SourceError::Unavailable(_))) | Err(_) => whole = false,
            }
        }
        channel.learnt.store(whole, Ordering::Release);
        Ok(())
    }

    /// A stream that this hub has heard nothing of begins behind its newest prediction.
    fn begin(&self, newest: Arc<Prediction>) {
        let Some(stream) = self.stream_of(&newest.stream, true) else { return };
        let mut state = stream.state.lock();
        if state.order.begin(newest.seq, newest.epoch) {
            state.recent.push_back(StreamEvent::Prediction(newest));
        }
    }

    fn matching(&self, reader: &Subscription) -> Vec<Arc<Stream>> {
        let registry = self.inner.registry.read();
        let selector = reader.selector();
        let matching = registry.streams.values().filter(|stream| selector.matches(&stream.tag.id));
        let mut streams: Vec<_> = matching.cloned().collect();
        drop(registry);
        streams.sort_by(|a, b| a.tag.id.series.cmp(&b.tag.id.series));
        streams
    }

    /// Asks for what is wanted and not here.
    async fn fetch(
        &self,
        streams: &[Arc<Stream>],
        wish: &Wish,
        source: &Arc<dyn Source>,
        deadline: Deadline,
    ) -> Result<HashMap<u32, Vec<StreamEvent>>, PastError> {
        let past_max = self.inner.limits.past_max;
        let missing = streams.iter().filter_map(|stream| {
            let place = wish.place(&stream.tag.id.series)?;
            let from = place.first();
            let state = stream.state.lock();
            let here = state.recent.front().is_some_and(|oldest| first(oldest) <= from);
            let last = state.order.last();
            // One that the reader knows has been given; one that it does not may be the next.
            let next = last.map(|last| last.saturating_add(u64::from(place.epoch.is_none())));
            // Only the owner knows whether a number beyond the newest of this hub has been given.
            let is_beyond = next.is_some_and(|next| from > next);
            let asked = is_beyond || !(here || next == Some(from));
            asked.then(|| (Arc::clone(&stream.tag), from, is_beyond || last.is_none()))
        });
        let missing: Vec<_> = missing.collect();
        let mut replies = stream::iter(missing)
            .map(|(tag, from, blind)| async move {
                let replay = source.replay(&tag.id, from, deadline);
                (tag.index, blind, timeout_at(deadline.instant().into(), replay).await)
            })
            .buffer_unordered(REPLAYS_MAX);
        let mut fetched = HashMap::new();
        let mut count = 0;
        while let Some((index, blind, reply)) = replies.next().await {
            let events = match reply {
                Ok(Ok(events)) => events,
                // What is missing before the next event would not be noticed: the reader comes back later.
                Ok(Err(failed @ SourceError::Unavailable(_))) if blind => return Err(failed.into()),
                Err(_elapsed) if blind => {
                    return Err(SourceError::Unavailable("a series does not answer".to_owned()).into());
                }
                // Those that do not answer become gaps.
                _ => continue,
            };
            count += events.len();
            if count > past_max {
                return Err(PastError::TooMuch { past_max });
            }
            fetched.insert(index, events);
        }
        Ok(fetched)
    }

    /// Joins what was fetched with what is here, and moves the reader to the end of it.
    fn gather(
        &self,
        reader: &mut Subscription,
        streams: &[Arc<Stream>],
        wish: &Wish,
        mut fetched: HashMap<u32, Vec<StreamEvent>>,
    ) -> Result<Past, PastError> {
        let past_max = self.inner.limits.past_max;
        let cursor = reader.channel().log.lock().head();
        let mut past = Past::default();
        let mut skip = HashMap::new();
        for stream in streams {
            let series = &stream.tag.id.series;
            let mut state = stream.state.lock();
            let mut seen = None;
            let got = fetched.remove(&stream.tag.index).unwrap_or_default();
            let got = filled(got, &state.recent);
            let is_silent = !state.recent.iter().chain(&got).any(|event| epoch(event).is_some());
            let is_unheard = got.is_empty() && state.order.last().is_none();
            // One of which nothing is known is awaited, unless the reader knows a number of it that is not there.
            if let Some(place) = wish.place(series).filter(|place| !is_unheard || place.epoch.is_some()) {
                let begun = past.items.len();
                if is_unheard {
                    state.order.begin(place.first().saturating_sub(1), 0);
                } else if let Some(last) = got.last() {
                    state.order.begin(end(last), epoch(last).unwrap_or(0));
                }
                let mut tail =
                    Tail { stream: &stream.tag.id, next: place.first(), epoch: 0, items: &mut past.items };
                got.into_iter().for_each(|event| tail.add(event));
                state.recent.iter().for_each(|event| tail.add(event.clone()));
                let (next, own) = (tail.next, tail.epoch);
                place.compare(&stream.tag.id, &mut past.items, begun);
                let known = state.recent.iter().rev().find_map(epoch).unwrap_or(0);
                seen = Some((next.saturating_sub(1), own.max(known)));
            } else if wish.snapshot {
                let newest = state.recent.iter().rev().find_map(|event| match event {
                    StreamEvent::Prediction(one) => Some(Arc::clone(one)),
                    StreamEvent::Gap(_) => None,
                });
                if let Some(newest) = newest {
                    seen = Some((newest.seq, newest.epoch));
                    past.items.push_back(PastItem::Snapshot(newest));
                }
            }
            if past.items.len() > past_max {
                return Err(PastError::TooMuch { past_max });
            }
            if let Some((seq, epoch)) = seen {
                skip.insert(stream.tag.index, (seq, epoch));
            }
            let last = seen.map(|(seq, _)| seq).or(state.order.last());
            past.next.extend(last.map(|last| (series.clone(), last.saturating_add(1))));
            if is_silent && last.is_some() {
                past.silent.push(series.clone());
            }
        }
        let told: HashSet<u32> = skip.keys().copied().collect();
        let heard = streams.iter().filter(|stream| told.contains(&stream.tag.index));
        let heard: HashSet<&SeriesName> = heard.map(|stream| &stream.tag.id.series).collect();
        let selector = reader.selector();
        let is_awaited = match &wish.from {
            Some(From::All(_)) => !selector.is_named() || selector.named().any(|one| !heard.contains(&one)),
            Some(From::Each(each)) => each.keys().any(|one| selector.means(one) && !heard.contains(one)),
            None => false,
        };
        let awaited = wish.from.clone().filter(|_| is_awaited).map(|from| Awaited::new(from, told));
        reader.start(cursor, skip, awaited);
        Ok(past)
    }
}

/// What was fetched, with what its owner does not make again and is here still.
fn filled(got: Vec<StreamEvent>, recent: &VecDeque<StreamEvent>) -> Vec<StreamEvent> {
    let owner = got.iter().find_map(epoch);
    let is_here = |one: &&StreamEvent| epoch(one).is_some_and(|of| owner.is_none_or(|owner| of == owner));
    let mut all = Vec::with_capacity(got.len());
    for event in got {
        let StreamEvent::Gap(gap) = &event else {
            all.push(event);
            continue;
        };
        let mut from = gap.from;
        let here = recent.iter().filter(is_here).filter(|_| gap.reason == GapReason::Expired);
        for one in here.filter(|one| end(one) <= gap.to) {
            if first(one) < from {
                continue;
            }
            if first(one) > from {
                all.push(StreamEvent::Gap(Gap { from, to: first(one) - 1, ..gap.clone() }));
            }
            from = end(one) + 1;
            all.push(one.clone());
        }
        // One that ends below where it begins says that the numbers began again.
        if from <= gap.to || from == gap.from {
            all.push(StreamEvent::Gap(Gap { from, ..gap.clone() }));
        }
    }
    all
}

impl From {
    pub(super) fn of(&self, series: &SeriesName) -> Option<u64> {
        match self {
            Self::All(from) => Some(*from),
            Self::Each(each) => each.get(series).copied(),
        }
    }
}

impl Wish {
    fn place(&self, series: &SeriesName) -> Option<Place> {
        let from = self.from.as_ref()?.of(series)?;
        let epoch = self.epoch.as_ref().and_then(|epoch| epoch.of(series));
        Some(Place { from, epoch: epoch.filter(|_| from > 1) })
    }
}

impl Place {
    /// The first number to be had: the reader's own last where it is to be compared.
    fn first(self) -> u64 {
        self.from - u64::from(self.epoch.is_some())
    }

    /// Takes the reader's own last number out of `items`, where those of the stream have `begun`; or says that it is
    /// not that any more, because an owner that knew nothing of it has given it again, or will.
    fn compare(self, stream: &StreamId, items: &mut VecDeque<PastItem>, begun: usize) {
        let Some(epoch) = self.epoch else { return };
        let own = self.first();
        let lost = |from, to| {
            let gap = Gap { stream: stream.clone(), from, to, reason: GapReason::Lost };
            PastItem::Event(StreamEvent::Gap(gap))
        };
        match items.get_mut(begun) {
            None => items.push_back(lost(self.from, own - 1)),
            Some(PastItem::Event(StreamEvent::Prediction(one))) if one.seq == own => {
                if one.epoch == epoch {
                    items.remove(begun);
                } else {
                    items[begun] = lost(own, own);
                }
            }
            Some(PastItem::Event(StreamEvent::Gap(gap))) if gap.from == own => {
                if gap.to == own {
                    items.remove(begun);
                } else {
                    gap.from = self.from;
                }
            }
            Some(_) => {}
        }
    }
}

/// The end of a stream's past, as it is put together.
struct Tail<'a> {
    stream: &'a StreamId,
    /// The number that is still missing.
    next: u64,
    epoch: u64,
    items: &'a mut VecDeque<PastItem>,
}

impl Tail<'_> {
    /// Adds an event unless it is there; says so when something before it is not to be had.
    fn add(&mut self, mut event: StreamEvent) {
        if let StreamEvent::Gap(gap) = &event
            && gap.to < gap.from
        {
            self.next = gap.to.saturating_add(1); // the numbers began again
            self.items.push_back(PastItem::Event(event));
            return;
        }
        if epoch(&event).is_some_and(|of| of < self.epoch) {
            return; // of an owner before the one that has answered
        }
        let newer_owner = epoch(&event).is_some_and(|of| of > self.epoch && self.epoch > 0);
        if end(&event) < self.next && !newer_owner {
            return;
        }
        if first(&event) > self.next {
            let (from, to) = (self.next, first(&event) - 1);
            let gap = Gap { stream: self.stream.clone(), from, to, reason: GapReason::Expired };
            self.items.push_back(PastItem::Event(StreamEvent::Gap(gap)));
        }
        if let StreamEvent::Gap(gap) = &mut event {
            gap.from = gap.from.max(self.next);
        }
        self.next = end(&event).saturating_add(1);
        self.epoch = epoch(&event).unwrap_or(self.epoch);
        self.items.push_back(PastItem::Event(event));
    }
}
