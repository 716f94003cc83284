//! Where predictions come in and readers join: which stream goes to which channel.
//!
//! An event is put in order, rendered once for each form that is read, and appended to the log of each channel that
//! wants it; no reader is waited for. Locks are taken in this order: registry, stream, log.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::task::Waker;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::{Mutex, RwLock};
use tokio::sync::{Notify, mpsc};

use super::channel::{Channel, Selector, Subscription, Tag};
use super::form::{Form, Item, Render};
use super::log::{Frame, LogLimits};
use super::order::{Order, end, epoch, first};
use super::prediction::{StreamEvent, StreamId};
use super::source::Source;

/// Repairs that may wait for their turn; beyond them holes are told at once.
const REPAIRS_QUEUED_MAX: usize = 1024;

/// How much a hub holds.
#[derive(Clone, Copy, Debug)]
pub struct HubLimits {
    /// Different wishes at once.
    pub channels_max: usize,
    /// Of them, those of one caller.
    pub channels_per_caller_max: usize,
    /// Streams that are known at once.
    pub streams_max: usize,
    /// Frames of one channel's log.
    pub log_frames_max: usize,
    /// Bytes of one channel's log.
    pub log_bytes_max: usize,
    /// Events of one stream that can be resumed from here.
    pub retention: usize,
    /// Events that one resumption may bring.
    pub past_max: usize,
    /// How long missing events are waited for before they count as lost.
    pub repair_within: Duration,
    /// How long what nobody reads any more is still followed.
    pub grace: Duration,
}

impl Default for HubLimits {
    fn default() -> Self {
        Self {
            channels_max: 1024,
            channels_per_caller_max: 512,
            streams_max: 16_384,
            log_frames_max: 1024,
            log_bytes_max: 4 << 20,
            retention: 64,
            past_max: 65_536,
            repair_within: Duration::from_secs(2),
            grace: Duration::from_secs(10),
        }
    }
}

/// A reader was not let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum JoinRefused {
    /// Nothing is broken; come back later, or with a wish that others have.
    #[error("{channels_max} different subscriptions are served already")]
    TooManyChannels {
        /// The bound.
        channels_max: usize,
    },
    /// Others are to have room too: leave a subscription first, or join a wish that others have.
    #[error("{channels_max} different subscriptions of this caller are served already")]
    TooManyOfCaller {
        /// The bound.
        channels_max: usize,
    },
}

/// Who opens a channel, told from others: one number for one caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Opener(pub u64);

/// What a hub has counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HubStats {
    /// Channels now.
    pub channels: usize,
    /// Streams now.
    pub streams: usize,
    /// Events that came in.
    pub published: u64,
    /// Frames that were rendered.
    pub rendered: u64,
    /// Events of streams beyond the bound.
    pub refused: u64,
    /// Holes that were asked about.
    pub repairs: u64,
}

/// Shared by all who publish and read on a node. Cheap to clone.
#[derive(Clone)]
pub struct Hub {
    pub(super) inner: Arc<Inner>,
}

pub(super) struct Inner {
    pub(super) limits: HubLimits,
    pub(super) render: Arc<dyn Render>,
    /// Not held: it publishes to this hub, and who asks has both.
    pub(super) source: OnceLock<Weak<dyn Source>>,
    pub(super) registry: RwLock<Registry>,
    pub(super) repairs: mpsc::Sender<Repair>,
    pub(super) repairs_from: Mutex<Option<mpsc::Receiver<Repair>>>,
    /// The set of channels, or the number of their readers, is another.
    pub(super) changed: Arc<Notify>,
    /// The generation of channels that the source was told of.
    pub(super) told: Mutex<Option<u64>>,
    numbers: AtomicU64,
    published: AtomicU64,
    rendered: AtomicU64,
    refused: AtomicU64,
    repairs_asked: AtomicU64,
}

#[derive(Default)]
pub(super) struct Registry {
    pub(super) channels: HashMap<Selector, Arc<Channel>>,
    pub(super) streams: HashMap<StreamId, Arc<Stream>>,
    /// Rises with each channel that comes or goes.
    pub(super) generation: u64,
    indices: u32,
}

pub(super) struct Stream {
    pub(super) tag: Arc<Tag>,
    pub(super) state: Mutex<StreamState>,
}

pub(super) struct StreamState {
    pub(super) order: Order,
    /// The newest that were passed on, without holes.
    pub(super) recent: VecDeque<StreamEvent>,
    pub(super) channels: Vec<Arc<Channel>>,
}

/// A stream that misses everything from a number on.
pub(super) struct Repair {
    pub(super) stream: Arc<Stream>,
    pub(super) from: u64,
}

impl Hub {
    /// Without a source: what is published is passed on, and nothing can be asked.
    #[must_use]
    pub fn new(render: Arc<dyn Render>, limits: HubLimits) -> Self {
        let (repairs, repairs_from) = mpsc::channel(REPAIRS_QUEUED_MAX);
        let inner = Inner {
            limits,
            render,
            source: OnceLock::new(),
            registry: RwLock::default(),
            repairs,
            repairs_from: Mutex::new(Some(repairs_from)),
            changed: Arc::default(),
            told: Mutex::default(),
            numbers: AtomicU64::new(1),
            published: AtomicU64::new(0),
            rendered: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            repairs_asked: AtomicU64::new(0),
        };
        Self { inner: Arc::new(inner) }
    }

    /// How much it holds.
    #[must_use]
    pub fn limits(&self) -> &HubLimits {
        &self.inner.limits
    }

    /// What it has counted.
    #[must_use]
    pub fn stats(&self) -> HubStats {
        let registry = self.inner.registry.read();
        HubStats {
            channels: registry.channels.len(),
            streams: registry.streams.len(),
            published: self.inner.published.load(Ordering::Relaxed),
            rendered: self.inner.rendered.load(Ordering::Relaxed),
            refused: self.inner.refused.load(Ordering::Relaxed),
            repairs: self.inner.repairs_asked.load(Ordering::Relaxed),
        }
    }

    /// Something happened in a stream. Returns at once; what nobody reads is dropped.
    pub fn publish(&self, event: StreamEvent) {
        self.inner.published.fetch_add(1, Ordering::Relaxed);
        let id = match &event {
            StreamEvent::Prediction(one) => &one.stream,
            StreamEvent::Gap(gap) => &gap.stream,
        };
        let known = self.inner.registry.read().streams.get(id).cloned();
        let Some(stream) = known.or_else(|| self.stream_of(id, true)) else { return };
        let mut wake = Vec::new();
        let mut state = stream.state.lock();
        let passed = state.order.offer(event);
        self.pass(&stream.tag, &mut state, passed.events, &mut wake);
        if let Some(from) = passed.repair_from {
            self.inner.repairs_asked.fetch_add(1, Ordering::Relaxed);
            let repair = Repair { stream: Arc::clone(&stream), from };
            if self.inner.source.get().is_none() || self.inner.repairs.try_send(repair).is_err() {
                let told = state.order.repaired(Vec::new());
                self.pass(&stream.tag, &mut state, told.events, &mut wake);
            }
        }
        drop(state);
        wake.into_iter().for_each(Waker::wake);
    }

    /// A place at the newest end of the channel of these wishes. A channel that there is not yet counts as the opener's
    /// for as long as anybody reads it.
    ///
    /// # Errors
    /// When there are too many channels, or too many of this opener, and each has a reader.
    pub fn join(
        &self,
        selector: Selector,
        conflate: bool,
        opener: Opener,
    ) -> Result<Subscription, JoinRefused> {
        let inner = &self.inner;
        let mut registry = inner.registry.write();
        let channel = match registry.channels.get(&selector) {
            Some(channel) => Arc::clone(channel),
            None => {
                registry.make_room(&inner.limits, opener)?;
                let limits = LogLimits {
                    frames_max: inner.limits.log_frames_max,
                    bytes_max: inner.limits.log_bytes_max,
                };
                let channel = Arc::new(Channel::new(inner.number(), opener, selector.clone(), limits));
                for stream in registry.streams.values().filter(|known| selector.matches(&known.tag.id)) {
                    stream.state.lock().channels.push(Arc::clone(&channel));
                }
                registry.channels.insert(selector, Arc::clone(&channel));
                registry.generation += 1;
                inner.changed.notify_one();
                channel
            }
        };
        let changed = Arc::clone(&inner.changed);
        let on_leave = Arc::new(move || changed.notify_one());
        // While the registry is held, so that the channel cannot be swept before it has its reader.
        Ok(Subscription::new(channel, Arc::clone(&inner.render), on_leave, inner.number(), conflate))
    }

    /// Another reader where this one stands, which gets whatever comes there from now on.
    #[must_use]
    pub fn join_beside(&self, reader: &Subscription) -> Subscription {
        reader.beside(self.inner.number())
    }

    /// The stream of a name; a new one if somebody wants it (or `only_wanted` is not asked) and there is room.
    pub(super) fn stream_of(&self, id: &StreamId, only_wanted: bool) -> Option<Arc<Stream>> {
        let mut registry = self.inner.registry.write();
        if let Some(known) = registry.streams.get(id) {
            return Some(Arc::clone(known));
        }
        let channels: Vec<Arc<Channel>> =
            registry.channels.values().filter(|channel| channel.selector.matches(id)).cloned().collect();
        if channels.is_empty() && only_wanted {
            return None;
        }
        if registry.streams.len() >= self.inner.limits.streams_max {
            self.inner.refused.fetch_add(1, Ordering::Relaxed);
            return None;
        }
        registry.indices = registry.indices.wrapping_add(1);
        let state = StreamState { order: Order::new(id.clone()), recent: VecDeque::new(), channels };
        let stream = Arc::new(Stream {
            tag: Arc::new(Tag { index: registry.indices, id: id.clone() }),
            state: Mutex::new(state),
        });
        registry.streams.insert(id.clone(), Arc::clone(&stream));
        Some(stream)
    }

    /// Renders events and appends them to the logs of all who want them.
    pub(super) fn pass(
        &self,
        tag: &Arc<Tag>,
        state: &mut StreamState,
        events: Vec<StreamEvent>,
        wake: &mut Vec<Waker>,
    ) {
        for event in events {
            let mut rendered: Vec<(Form, Bytes)> = Vec::new();
            for channel in &state.channels {
                let form = channel.selector.form();
                let bytes = match rendered.iter().find(|(known, _)| *known == form) {
                    Some((_, bytes)) => bytes.clone(),
                    None => {
                        let item = match &event {
                            StreamEvent::Prediction(one) => Item::Prediction(one),
                            StreamEvent::Gap(gap) => Item::Gap(gap),
                        };
                        let bytes = self.inner.render.render(form, item);
                        rendered.push((form, bytes.clone()));
                        bytes
                    }
                };
                let seqs = (first(&event), end(&event));
                let window = match &event {
                    StreamEvent::Prediction(one) => Some(one.spec.window as u64),
                    StreamEvent::Gap(_) => None,
                };
                let frame = Frame { bytes, stream: Arc::clone(tag), seqs, epoch: epoch(&event), window };
                channel.log.lock().append(frame, wake);
            }
            self.inner.rendered.fetch_add(rendered.len() as u64, Ordering::Relaxed);
            state.recent.push_back(event);
            if state.recent.len() > self.inner.limits.retention.max(1) {
                state.recent.pop_front();
            }
        }
    }
}

impl Registry {
    /// For one more channel: what nobody reads any more gives way before its grace is over.
    fn make_room(&mut self, limits: &HubLimits, opener: Opener) -> Result<(), JoinRefused> {
        let own = self.channels.values().filter(|channel| channel.opener == opener).count();
        let channels_max = limits.channels_per_caller_max;
        if own >= channels_max && !self.let_go(|channel| channel.opener == opener) {
            return Err(JoinRefused::TooManyOfCaller { channels_max });
        }
        let channels_max = limits.channels_max;
        if self.channels.len() >= channels_max && !self.let_go(|_| true) {
            return Err(JoinRefused::TooManyChannels { channels_max });
        }
        Ok(())
    }

    /// Lets go of the oldest of these channels that has no reader, if there is one.
    fn let_go(&mut self, which: impl Fn(&Channel) -> bool) -> bool {
        let lonely = self.channels.values().filter(|channel| which(channel) && !channel.is_read());
        let Some(oldest) = lonely.min_by_key(|channel| channel.number).cloned() else { return false };
        self.channels.remove(&oldest.selector);
        self.generation += 1;
        self.streams.retain(|_, stream| {
            let mut state = stream.state.lock();
            state.channels.retain(|channel| channel.number != oldest.number);
            !state.channels.is_empty()
        });
        true
    }
}

impl Inner {
    fn number(&self) -> u64 {
        self.numbers.fetch_add(1, Ordering::Relaxed)
    }
}

/// Streams and channels hold each other.
impl Drop for Inner {
    fn drop(&mut self) {
        for stream in self.registry.get_mut().streams.values() {
            stream.state.lock().channels.clear();
        }
    }
}
