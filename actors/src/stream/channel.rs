//! A channel: those who want the same series in the same form, and the log they share; and one reader's place in it.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::Waker;

use bytes::Bytes;
use parking_lot::Mutex;

use super::form::{Form, Item, Render};
use super::held::Held;
use super::hub::Opener;
use super::log::{Frame, Log, LogLimits, Overtaken};
use super::past::From;
use super::prediction::{Gap, GapReason, StreamId};
use crate::series::{Pattern, SeriesName};

/// What somebody wants to read.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Selector {
    model: Arc<str>,
    patterns: Vec<Pattern>,
    form: Form,
}

impl Selector {
    /// The same wish in whatever order its patterns come.
    #[must_use]
    pub fn new(model: &str, mut patterns: Vec<Pattern>, form: Form) -> Self {
        patterns.sort();
        patterns.dedup();
        Self { model: model.into(), patterns, form }
    }

    /// Name of the model.
    #[must_use]
    pub fn model(&self) -> &Arc<str> {
        &self.model
    }

    /// In order, each once.
    #[must_use]
    pub fn patterns(&self) -> &[Pattern] {
        &self.patterns
    }

    /// How it is written.
    #[must_use]
    pub fn form(&self) -> Form {
        self.form
    }

    /// Whether all of its patterns are names.
    pub(super) fn is_named(&self) -> bool {
        self.patterns.iter().all(Pattern::is_exact)
    }

    /// Series that are wanted by name.
    pub(super) fn named(&self) -> impl Iterator<Item = SeriesName> {
        let named = self.patterns.iter().filter(|pattern| pattern.is_exact());
        named.filter_map(|pattern| SeriesName::new(pattern.as_str()).ok())
    }

    pub(super) fn matches(&self, stream: &StreamId) -> bool {
        self.model == stream.model && self.means(&stream.series)
    }

    pub(super) fn means(&self, series: &SeriesName) -> bool {
        self.patterns.iter().any(|pattern| pattern.matches(series.as_str()))
    }
}

/// A stream as frames name it.
#[derive(Debug)]
pub(super) struct Tag {
    pub(super) index: u32,
    pub(super) id: StreamId,
}

#[derive(Debug)]
pub(super) struct Channel {
    pub(super) number: u64,
    pub(super) opener: Opener,
    pub(super) selector: Selector,
    pub(super) log: Mutex<Log>,
    pub(super) readers: AtomicUsize,
    /// The series side has been asked which streams there are.
    pub(super) learnt: AtomicBool,
}

impl Channel {
    pub(super) fn new(number: u64, opener: Opener, selector: Selector, limits: LogLimits) -> Self {
        let (log, readers) = (Mutex::new(Log::new(limits)), AtomicUsize::new(0));
        Self { number, opener, selector, log, readers, learnt: AtomicBool::new(false) }
    }

    pub(super) fn is_read(&self) -> bool {
        self.readers.load(Ordering::Acquire) > 0
    }
}

/// What reading led to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Read {
    /// All was taken; the waker will be told of more.
    Waiting,
    /// The taker is full.
    Full,
    /// Frames left the log before they were read.
    Fell,
}

/// One reader's place in a channel. Dropping it leaves the channel.
pub struct Subscription {
    channel: Arc<Channel>,
    render: Arc<dyn Render>,
    on_leave: Arc<dyn Fn() + Send + Sync>,
    /// Among the readers of all channels.
    number: u64,
    conflate: bool,
    cursor: u64,
    /// The log's head when it was asked for a waker; the log forgets wakers whenever its head moves.
    waiting_at: Option<u64>,
    warned: bool,
    /// By stream: up to which number and epoch it has been answered already.
    skip: Option<HashMap<u32, (u64, u64)>>,
    awaited: Option<Box<Awaited>>,
    held: Option<Box<Held>>,
}

/// Streams that a reader resumes and of which nothing was known when it came.
#[derive(Debug)]
pub(super) struct Awaited {
    pub(super) from: From,
    /// Streams of which it has been told, by index.
    pub(super) told: HashSet<u32>,
    /// Gaps that come before everything else.
    owed: VecDeque<Gap>,
}

impl Awaited {
    pub(super) fn new(from: From, told: HashSet<u32>) -> Self {
        Self { from, told, owed: VecDeque::new() }
    }

    /// Notes what the reader does not get of a stream whose `first` number is coming.
    fn begins(&mut self, stream: &Tag, first: u64, window: Option<u64>) {
        if !self.told.insert(stream.index) {
            return;
        }
        let Some(from) = self.from.of(&stream.id.series).filter(|from| *from != first) else { return };
        let was_short = from < first && window.is_none_or(|window| first <= window);
        let reason = if was_short { GapReason::Failed } else { GapReason::Lost };
        self.owed.push_back(Gap { stream: stream.id.clone(), from, to: first.saturating_sub(1), reason });
    }
}

impl Subscription {
    pub(super) fn new(
        channel: Arc<Channel>,
        render: Arc<dyn Render>,
        on_leave: Arc<dyn Fn() + Send + Sync>,
        number: u64,
        conflate: bool,
    ) -> Self {
        channel.readers.fetch_add(1, Ordering::AcqRel);
        let cursor = {
            let mut log = channel.log.lock();
            let head = log.head();
            if conflate {
                log.follow(number, head);
            }
            head
        };
        let (waiting_at, warned, skip, awaited, held) = (None, false, None, None, None);
        Self { channel, render, on_leave, number, conflate, cursor, waiting_at, warned, skip, awaited, held }
    }

    pub(super) fn channel(&self) -> &Arc<Channel> {
        &self.channel
    }

    /// The channel's number on this node.
    #[must_use]
    pub fn channel_number(&self) -> u64 {
        self.channel.number
    }

    /// What is read.
    #[must_use]
    pub fn selector(&self) -> &Selector {
        &self.channel.selector
    }

    /// A reader at the same place of the same channel, which conflates nothing.
    pub(super) fn beside(&self, number: u64) -> Self {
        let (channel, render) = (Arc::clone(&self.channel), Arc::clone(&self.render));
        let mut beside = Self::new(channel, render, Arc::clone(&self.on_leave), number, false);
        beside.cursor = self.cursor;
        beside
    }

    /// Moves to the newest end; what comes there and is in `skip` (by stream: number and epoch) is passed over, and
    /// where a stream that is `awaited` begins, what is missing before it is told.
    pub(super) fn start(&mut self, cursor: u64, skip: HashMap<u32, (u64, u64)>, awaited: Option<Awaited>) {
        self.cursor = cursor;
        if self.conflate {
            self.channel.log.lock().follow(self.number, cursor);
        }
        self.skip = (!skip.is_empty()).then_some(skip);
        self.awaited = awaited.map(Box::new);
    }

    /// How many frames this reader is behind.
    #[must_use]
    pub fn lag(&self) -> u64 {
        self.channel.log.lock().head().saturating_sub(self.cursor)
    }

    /// Where this reader stands in the log, if what comes there from now on is all that it is to be handed.
    #[must_use]
    pub fn place(&self) -> Option<u64> {
        let is_behind = self.warned || self.held.is_some();
        let is_plain = !self.conflate && !is_behind && self.skip.is_none() && self.awaited.is_none();
        is_plain.then_some(self.cursor)
    }

    /// Somebody else has handed out the frames before this place, which was [`Self::place`] or is behind it.
    pub fn advance(&mut self, place: u64) {
        self.cursor = place;
    }

    /// What tells its channel from all others that there are now.
    #[must_use]
    pub fn channel_key(&self) -> usize {
        Arc::as_ptr(&self.channel).addr()
    }

    /// Readers of its channel, this one included.
    #[must_use]
    pub fn readers(&self) -> usize {
        self.channel.readers.load(Ordering::Relaxed)
    }

    /// Hands out frames in order until `take` refuses one, which is not handed out then. At the end of the log
    /// `waker` is left there, if somebody is to be woken.
    pub fn read(&mut self, waker: Option<&Waker>, mut take: impl FnMut(&Bytes) -> bool) -> Read {
        loop {
            if self.held.is_some() {
                // What left while the rest is handed out comes with it.
                let overtaken = self.channel.log.lock().overtook(self.number);
                self.absorb(overtaken);
                if !self.pay(&mut take) || !self.read_held(&mut take) {
                    return Read::Full;
                }
            }
            match self.read_log(waker, &mut take) {
                Ok(read) => return read,
                Err(overtaken) => _ = self.absorb(Some(overtaken)),
            }
        }
    }

    /// Hands out what is in the log, unless something that left it comes before that. One lock, since all readers of a
    /// channel want it at the same moment.
    fn read_log(
        &mut self,
        waker: Option<&Waker>,
        take: &mut impl FnMut(&Bytes) -> bool,
    ) -> Result<Read, Overtaken> {
        let mut log = self.channel.log.lock();
        if let Some(overtaken) = log.overtook(self.number) {
            return Err(overtaken);
        }
        if self.warned {
            log.forget_slow(self.number);
            self.warned = false;
        }
        if self.cursor < log.base() {
            return Ok(Read::Fell);
        }
        let mut full = false;
        for frame in log.from(self.cursor) {
            if !passed_over(&mut self.skip, frame) {
                let (form, render) = (self.channel.selector.form, &*self.render);
                if let Some(awaited) = &mut self.awaited {
                    awaited.begins(&frame.stream, frame.seqs.0, frame.window);
                    full = !pay(awaited, form, render, take);
                }
                if full || !take(&frame.bytes) {
                    full = true;
                    break;
                }
            }
            self.cursor += 1;
        }
        if self.conflate {
            log.follow(self.number, self.cursor);
        }
        if full {
            return Ok(Read::Full);
        }
        let head = log.head();
        if let Some(waker) = waker
            && self.waiting_at != Some(head)
        {
            log.wait_anew(self.number, waker);
            self.waiting_at = Some(head);
        }
        Ok(Read::Waiting)
    }

    /// The reader cannot write now. It is woken before frames leave if it conflates, else once they have left;
    /// returns how many frames were conflated, or `None` when the reader has fallen off.
    pub fn blocked(&mut self, waker: &Waker) -> Option<u64> {
        let channel = Arc::clone(&self.channel);
        let mut log = channel.log.lock();
        let overtaken = log.overtook(self.number);
        let mut conflated = self.absorb(overtaken);
        if self.cursor < log.base() {
            return None;
        }
        if self.conflate && self.cursor < log.danger() {
            let held = self.held.get_or_insert_default();
            for frame in log.from(self.cursor) {
                if !passed_over(&mut self.skip, frame) {
                    if let Some(awaited) = &mut self.awaited {
                        awaited.begins(&frame.stream, frame.seqs.0, frame.window);
                    }
                    conflated += u64::from(held.add(frame));
                }
            }
            self.cursor = log.head();
            log.follow(self.number, self.cursor);
        }
        log.warn(self.number, self.cursor, self.conflate, waker);
        self.warned = true;
        Some(conflated)
    }

    /// What left the log before this reader came, conflated by whoever made it leave. Returns how many frames.
    fn absorb(&mut self, overtaken: Option<Overtaken>) -> u64 {
        let Some(Overtaken { cursor, held, frames }) = overtaken else { return 0 };
        self.cursor = cursor;
        if let Some(awaited) = &mut self.awaited {
            for newest in held.order.iter().filter_map(|index| held.by_stream.get(index)) {
                let (first, window) = (newest.first(), newest.frame.as_ref().and_then(|frame| frame.window));
                first.into_iter().for_each(|first| awaited.begins(&newest.tag, first, window));
            }
        }
        self.held.get_or_insert_default().absorb(held, &mut self.skip);
        frames
    }

    /// Hands out the gaps that come before everything else.
    fn pay(&mut self, take: &mut impl FnMut(&Bytes) -> bool) -> bool {
        let form = self.channel.selector.form;
        self.awaited.as_mut().is_none_or(|awaited| pay(awaited, form, &*self.render, take))
    }

    fn read_held(&mut self, take: &mut impl FnMut(&Bytes) -> bool) -> bool {
        let Some(held) = &mut self.held else { return true };
        let form = self.channel.selector.form;
        while let Some(index) = held.order.front() {
            if let Some(newest) = held.by_stream.get_mut(index) {
                if let Some((from, to)) = newest.passed {
                    let gap = Gap { stream: newest.tag.id.clone(), from, to, reason: GapReason::Conflated };
                    if !take(&self.render.render(form, Item::Gap(&gap))) {
                        return false;
                    }
                    newest.passed = None;
                }
                if let Some(frame) = &newest.frame
                    && !take(&frame.bytes)
                {
                    return false;
                }
            }
            if let Some(index) = held.order.pop_front() {
                held.by_stream.remove(&index);
            }
        }
        self.held = None;
        true
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        let mut log = self.channel.log.lock();
        if self.warned || self.waiting_at == Some(log.head()) {
            log.forget(self.number);
        }
        log.unfollow(self.number);
        drop(log);
        if self.channel.readers.fetch_sub(1, Ordering::AcqRel) == 1 {
            (self.on_leave)();
        }
    }
}

fn pay(
    awaited: &mut Awaited,
    form: Form,
    render: &dyn Render,
    take: &mut impl FnMut(&Bytes) -> bool,
) -> bool {
    while let Some(gap) = awaited.owed.front() {
        if !take(&render.render(form, Item::Gap(gap))) {
            return false;
        }
        awaited.owed.pop_front();
    }
    true
}

/// Whether the reader has been answered this already.
pub(super) fn passed_over(skip: &mut Option<HashMap<u32, (u64, u64)>>, frame: &Frame) -> bool {
    let Some(streams) = skip else { return false };
    let Some(&(seq, epoch)) = streams.get(&frame.stream.index) else { return false };
    if frame.seqs.1 <= seq && frame.epoch.is_none_or(|of| of <= epoch) {
        return true;
    }
    streams.remove(&frame.stream.index);
    if streams.is_empty() {
        *skip = None;
    }
    false
}
